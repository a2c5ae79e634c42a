import pytest

from tamis.errors import SettingsError
from tamis.settings import Settings, describe_options, load_settings
from tamis.settings.names import SHORT_OPTIONS, is_service_link, nearest, nearest_option

OPTIONS = [name for name, _, _ in describe_options()]


@pytest.mark.parametrize(
    "service", ["TAMIS", "TAMIS_SERVER", "TAMIS_REDIS_MASTER", "TAMIS_PORT", "TAMIS_SERVICE_PORT_1"]
)
@pytest.mark.parametrize(
    ("suffix", "value"),
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_HOST", "fd00::1"),
        ("SERVICE_PORT", "8000"),
        ("SERVICE_PORT_HTTP", "8000"),
        ("SERVICE_PORT_HTTP_METRICS", "9090"),
        ("PORT", "tcp://10.0.0.1:8000"),
        ("PORT", "udp://[fd00::1]:53"),
        ("PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("PORT_53_UDP", "udp://10.0.0.1:53"),
        ("PORT_8000_TCP_PROTO", "tcp"),
        ("PORT_9_SCTP_PROTO", "sctp"),
        ("PORT_8000_TCP_PORT", "8000"),
        ("PORT_8000_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_what_kubernetes_sets_for_a_service_does_not_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, service: str, suffix: str, value: str
) -> None:
    assert is_service_link(f"{service}_{suffix}", value)
    monkeypatch.setenv(f"{service}_{suffix}", value)
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TAMIS_PORT", "9"),
        ("TAMIS_PORT", "9000"),
        ("TAMIS_PORT", ""),
        ("TAMIS_PORT", "http://10.0.0.1:8000"),
        ("TAMIS_SERVER_PORT", "8000"),
        ("TAMIS_SERVICE_HOST", "example.org"),
        ("TAMIS_SERVICE_PORT", "http"),
        ("TAMIS_PORT_8000_TCP_PROTO", "8000"),
        ("TAMIS_HOST", "10.0.0.1"),
        ("TAMIS_SERVER_HOST", "10.0.0.1"),
        ("TAMISX_PORT", "tcp://10.0.0.1:8000"),
        ("TAMIS_SERVER__PORT", "8000"),
    ],
)
def test_what_has_not_both_forms_is_no_link(name: str, value: str) -> None:
    assert not is_service_link(name, value)


def test_a_link_whose_name_is_an_options_is_not_taken_for_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAMIS_SERVER__METRICS_PORT", "tcp://10.0.0.1:9090")
    monkeypatch.setenv("TAMIS_SERVER__PORT", "9000")
    server = load_settings().server
    assert (server.port, server.metrics_port) == (9000, None)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("TAMIS_PORT", "TAMIS_SERVER__PORT"),
        ("TAMIS_SERVER_PORT", "TAMIS_SERVER__PORT"),
        ("TAMIS_SERVER__PROT", "TAMIS_SERVER__PORT"),
        ("TAMIS_SERVR__PORT", "TAMIS_SERVER__PORT"),
        ("TAMIS__SERVER__PORT", "TAMIS_SERVER__PORT"),
        ("TAMIS_HOST", "TAMIS_SERVER__HOST"),
        ("TAMIS_MODEL", "TAMIS_MODEL__NAME"),
        ("TAMIS_MODEL_NAME", "TAMIS_MODEL__NAME"),
        ("TAMIS_DEVICE", "TAMIS_MODEL__DEVICE"),
        ("TAMIS_WORKERS", "TAMIS_SCHEDULER__WORKERS"),
        ("TAMIS_LOG_LEVEL", "TAMIS_LOG__LEVEL"),
        ("TAMIS_REDIS_URL", "TAMIS_CACHE__REDIS_URL"),
        ("TAMIS_CACHE__REDIS", "TAMIS_CACHE__REDIS_URL"),
        ("TAMIS_KEYS_FILE", "TAMIS_SERVER__KEYS_FILE"),
        ("tamis_model__nme", "TAMIS_MODEL__NAME"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, meant: str
) -> None:
    monkeypatch.setenv(variable, "9")
    with pytest.raises(
        SettingsError, match=rf"^unknown variable {variable}; did you mean {meant}\?$"
    ):
        load_settings()


@pytest.mark.parametrize(
    ("argument", "meant"),
    [
        ("--prot", "--port"),
        ("--server.prot", "--server.port"),
        ("--hostname", "--host"),
        ("--model-id", "--model"),
        ("--log-level", "--log.level"),
        ("--keys-file", "--server.keys-file"),
        ("--max-batch-tokens", "--scheduler.max-batch-tokens"),
        ("--model.nme", "--model.name"),
    ],
)
def test_a_misspelt_argument_is_refused_with_the_nearest_name(argument: str, meant: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"^there is no option {argument}; did you mean {meant}\?"
    ):
        load_settings([argument, "x"])


def test_what_is_near_to_nothing_has_the_list_instead() -> None:
    with pytest.raises(SettingsError, match=r"--frobnicate; `tamis settings --names` lists them"):
        load_settings(["--frobnicate"])


@pytest.mark.parametrize("option", SHORT_OPTIONS.values())
def test_a_short_option_stands_for_one_that_there_is(option: str) -> None:
    assert option in OPTIONS
    assert nearest_option("--" + option, OPTIONS) == option


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["some/model"], "some/model"),
        (["--server.port", "9000", "some/model"], "some/model"),
        (["--model.offline", "some/model"], "some/model"),
        (["some/model", "--model=some/model"], "some/model"),
        (["--model", "some/model"], "some/model"),
    ],
)
def test_a_word_alone_is_the_model(arguments: list[str], name: str) -> None:
    assert load_settings(arguments, takes_model=True).model.name == name


def test_two_models_are_refused() -> None:
    with pytest.raises(SettingsError, match="two models are named, a and b"):
        load_settings(["a", "--model.name", "b"], takes_model=True)
    with pytest.raises(SettingsError, match="there is no option b"):
        load_settings(["a", "b"], takes_model=True)


@pytest.mark.parametrize(
    ("option", "value", "meant"),
    [
        ("model.device", "gpu", "cuda"),
        ("model.device", "CPU", "cpu"),
        ("model.dtype", "fp16", "float16"),
        ("model.dtype", "bf16", "bfloat16"),
        ("model.dtype", "int-8", "int8"),
        ("model.runtime", "pytorch", "torch"),
        ("log.level", "warn", "warning"),
    ],
)
def test_a_value_by_another_name_is_refused_with_ours(option: str, value: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=rf"not '{value}'; did you mean {meant}\?"):
        load_settings([f"--{option}={value}"])


def test_a_value_like_no_other_gets_no_proposal() -> None:
    assert nearest("zzz", ["cpu", "cuda"]) is None
    with pytest.raises(SettingsError, match=r"not 'tpu-v9'$"):
        load_settings(["--model.device", "tpu-v9"])


def test_a_secret_is_never_said() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(["--server.port", "x", "--cache.secret", "hush", "--cache.secrets", "hush"])
    assert "hush" not in str(raised.value)
