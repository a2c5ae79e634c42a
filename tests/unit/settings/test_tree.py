import tempfile
from pathlib import Path

import pytest

from tamis.errors import SettingsError
from tamis.settings import Settings, describe_options, load_settings


def test_without_any_option_the_defaults_hold() -> None:
    settings = load_settings()

    assert settings.model.name == "tamis-mini"
    assert settings.model.max_length == 512
    assert settings.server.host == "127.0.0.1"
    assert settings.model.cache_dir.name == "tamis"


def test_a_variable_sets_a_nested_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIS_SCHEDULER__MAX_BATCH_TOKENS", "4096")
    monkeypatch.setenv("TAMIS_MODEL__OFFLINE", "true")
    monkeypatch.setenv("TAMIS_MODEL__CACHE_DIR", "/var/cache/models")

    settings = load_settings()

    assert settings.scheduler.max_batch_tokens == 4096
    assert settings.model.offline
    assert settings.model.cache_dir == Path("/var/cache/models")


@pytest.mark.parametrize(
    "arguments",
    [["--model.max-length", "64"], ["--model.max-length=64"], ["--model.max_length=64"]],
)
def test_an_argument_sets_a_nested_option(arguments: list[str]) -> None:
    assert load_settings(arguments).model.max_length == 64


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.offline"], True),
        (["--model.offline", "true"], True),
        (["--model.offline=false"], False),
    ],
)
def test_a_switch_needs_no_value(arguments: list[str], expected: bool) -> None:
    assert load_settings(arguments).model.offline is expected


def test_a_cascade_is_set_by_arguments_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAMIS_CASCADE__MARGIN", "1.5")

    cascade = load_settings(["--cascade.keep", "5", "--cascade.model=cheap"]).cascade

    assert (cascade.model, cascade.keep, cascade.margin) == ("cheap", 5, 1.5)


def test_an_argument_wins_over_a_variable_of_the_same_section(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAMIS_SERVER__PORT", "9000")
    monkeypatch.setenv("TAMIS_SERVER__HOST", "0.0.0.0")

    server = load_settings(["--server.port", "9001"]).server

    assert (server.port, server.host) == (9001, "0.0.0.0")


@pytest.mark.parametrize(
    "variable", ["TAMIS_MODEL__NAMES", "TAMIS_MAX_LENGTH", "TAMIS_MODEL", "tamis_model__nme"]
)
def test_an_unknown_variable_refuses_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")

    with pytest.raises(SettingsError, match=f"unknown variable {variable}"):
        load_settings()


@pytest.mark.parametrize(
    "arguments",
    [["--model.nme", "x"], ["--max-len=64"], ["--model.max-length", "64", "--quiet"], ["-v"]],
)
def test_an_unknown_argument_refuses_the_start(arguments: list[str]) -> None:
    with pytest.raises(SettingsError, match="there is no option -"):
        load_settings(arguments)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("model.max_length", "15"),
        ("model.max_length", "many"),
        ("model.device", "tpu"),
        ("model.dtype", "float64"),
        ("model.threads", "-1"),
        ("scheduler.max_batch_tokens", "-1"),
        ("scheduler.max_queued_tokens", "1.5"),
        ("cascade.keep", "-1"),
        ("cascade.margin", "-0.1"),
        ("cascade.margin", "inf"),
        ("server.port", "65536"),
        ("log.level", "loud"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused_with_the_options_name(
    monkeypatch: pytest.MonkeyPatch, option: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=rf"{option}: "):
        load_settings([f"--{option}={value}"])

    monkeypatch.setenv("TAMIS_" + option.upper().replace(".", "__"), value)
    with pytest.raises(SettingsError, match=rf"{option}: "):
        load_settings()


def test_a_missing_value_is_a_settings_error() -> None:
    with pytest.raises(SettingsError):
        load_settings(["--model.name"])


def test_a_stray_word_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="bge"):
        load_settings(["bge"])


def test_the_cache_goes_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert load_settings().model.cache_dir == Path("/somewhere/tamis")

    monkeypatch.delenv("XDG_CACHE_HOME")
    assert load_settings().model.cache_dir == Path.home() / ".cache" / "tamis"


def test_every_option_is_described_once_with_its_default() -> None:
    options = {name: (default, text) for name, default, text in describe_options()}

    assert options["model.max_length"][0] == Settings().model.max_length
    assert all(text.endswith(".") for _, text in options.values())
    assert len(options) == len(list(describe_options())) >= 18


def test_a_kubernetes_service_of_our_name_does_not_stop_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAMIS_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("TAMIS_SERVICE_PORT_HTTP", "8000")
    monkeypatch.setenv("TAMIS_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("TAMIS_PORT_8000_TCP_ADDR", "10.0.0.1")
    assert load_settings().server.port == 8000

    monkeypatch.setenv("TAMIS_SERVER_PORT", "9000")
    with pytest.raises(SettingsError, match="TAMIS_SERVER_PORT"):
        load_settings()


def test_a_user_without_a_home_gets_a_cache_in_the_temporary_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert load_settings().model.cache_dir == Path(tempfile.gettempdir()) / "tamis"
