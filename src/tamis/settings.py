"""Every option of tamis: its name, default, unit and help, written here and nowhere else.

Options come, later ones winning, from defaults, `TAMIS_SECTION__OPTION` variables and
`--section.option` arguments.
"""

import os
import re
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from tamis.errors import SettingsError

DeviceName = Literal["auto", "cpu", "cuda"]
DtypeName = Literal["auto", "float32", "float16", "bfloat16", "int8"]
RuntimeName = Literal["auto", "ctranslate2", "torch"]
LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

DEFAULT_MODEL = "tamis-mini"
ENV_PREFIX = "TAMIS_"
_SERVICE_LINK = re.compile(r"TAMIS_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")
"""What Kubernetes sets in every container beside a Service named `tamis`; not ours to refuse."""


def _user_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "tamis"
    try:
        return Path.home() / ".cache" / "tamis"
    except RuntimeError:  # a user without a home, as containers have them
        return Path(tempfile.gettempdir()) / "tamis"


class Section(BaseModel):
    """A group of options; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(Section):
    """Which model, where it runs and how."""

    name: Annotated[
        str,
        Field(description="Embedded model, hub name (BAAI/bge-reranker-v2-m3) or local folder."),
    ] = DEFAULT_MODEL
    revision: Annotated[
        str | None,
        Field(description="Branch, tag or commit of a hub name; the newest when left out."),
    ] = None
    runtime: Annotated[
        RuntimeName, Field(description="Inference library; auto takes ctranslate2.")
    ] = "auto"
    device: Annotated[DeviceName, Field(description="auto takes CUDA where there is one.")] = "auto"
    dtype: Annotated[
        DtypeName,
        Field(
            description="Arithmetic; auto is float16 on CUDA and, on a CPU, what the model names, "
            "or int8 in place of float32 where its calibration report passes."
        ),
    ] = "auto"
    max_length: Annotated[
        int,
        Field(ge=16, description="Tokens a pair may have; longer documents are cut.", le=131_072),
    ] = 512
    threads: Annotated[
        int, Field(ge=0, description="CPU threads; 0 takes the cores this process may use.")
    ] = 0
    offline: Annotated[bool, Field(description="Look at local files only, never at the hub.")] = (
        False
    )
    cache_dir: Annotated[Path, Field(description="Folder for converted models.")] = Field(
        default_factory=_user_cache_dir
    )


class CascadeSettings(Section):
    """A cheap model first, the served one for the best of its order only."""

    model: Annotated[
        str, Field(description="First-stage model, which scores all documents of a request.")
    ] = DEFAULT_MODEL
    keep: Annotated[
        int,
        Field(ge=0, description="Best documents that the served model reads; 0 is no cascade."),
    ] = 0
    margin: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="And those whose first-stage logit is so little below the last kept one.",
        ),
    ] = 0.0


class CacheSettings(Section):
    """Scores that are kept, so that no pair is scored twice."""

    memory_bytes: Annotated[
        int, Field(ge=0, description="Memory for scores in the server's process; 0 keeps none.")
    ] = 64 * 2**20
    ttl_seconds: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Seconds that a score is kept.")
    ] = 86_400.0
    secret: Annotated[
        SecretStr | None,
        Field(
            description="What keys are made under, the same on all servers that share a store: "
            "without it, who reads the store can tell which texts it knows."
        ),
    ] = None
    shared: Annotated[
        bool,
        Field(
            description="Whether callers with different keys share scores; how fast an answer is "
            "then tells one what others have asked."
        ),
    ] = False
    redis_url: Annotated[
        SecretStr | None,
        Field(
            description="Redis that servers share: redis://, rediss://, unix://, "
            "redis+sentinel://host:port,host:port/service/db or redis+cluster://host:port,host:port."
        ),
    ] = None
    redis_timeout_ms: Annotated[
        int, Field(ge=1, description="Milliseconds that a request waits for Redis, at most.")
    ] = 50


class SchedulerSettings(Section):
    """How pairs of many callers become batches."""

    max_batch_tokens: Annotated[
        int,
        Field(
            ge=0,
            description="Tokens in one forward pass, at most (a longer pair is alone); 0 takes "
            "what was measured on this processor when the model was converted.",
        ),
    ] = 0
    max_queued_tokens: Annotated[
        int,
        Field(ge=1, description="Tokens waiting or running, at most; beyond it callers get 429."),
    ] = 1_000_000
    workers: Annotated[
        int,
        Field(
            ge=0,
            le=64,
            description="Processes that run the model, which share out cores or CUDA devices; "
            "0 runs it in the server's own.",
        ),
    ] = 0
    stall_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds without progress until a model counts as hung, at least; five "
            "times the p99 of its batches where that is more.",
        ),
    ] = 10.0
    worker_start_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds a worker gets to load, and where needed convert, its model.",
        ),
    ] = 1800.0


class ServerSettings(Section):
    """The HTTP server."""

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535, description="Port; 0 takes a free one.")] = 8000
    timeout_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds until a request must be answered, unless it asks for less.",
        ),
    ] = 120.0
    drain_delay_seconds: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Seconds from SIGTERM, when /readyz turns 503, to the end of listening.",
        ),
    ] = 5.0
    drain_seconds: Annotated[
        int, Field(ge=0, description="Seconds that running requests get to finish at shutdown.")
    ] = 25
    keys_file: Annotated[
        Path | None,
        Field(description="File of those who may call (`tamis keys make`); anyone when left out."),
    ] = None
    allowed_hosts: Annotated[
        str,
        Field(
            description="Names it is called by, with commas between, beside addresses, names "
            "without a dot and its own; *.example.org for all below one, * for any."
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        Field(description="Origins whose pages may call, with commas between; * for any."),
    ] = ""
    metrics_port: Annotated[
        int | None,
        Field(ge=1, le=65_535, description="Port that /metrics is on, instead of the common one."),
    ] = None
    metrics_open: Annotated[
        bool, Field(description="Whether /metrics on the common port asks for no key.")
    ] = False


class LimitsSettings(Section):
    """What one caller, connection or request may take; `GET /v1/limits` shows it."""

    max_body_bytes: Annotated[
        int, Field(ge=1, description="Bytes a body may have, as it is sent and unpacked.")
    ] = 8 * 2**20
    max_total_body_bytes: Annotated[
        int,
        Field(
            ge=1,
            description="Bytes of all callers' bodies, unpacked, from the first one to its answer; "
            "beyond it callers get 429.",
        ),
    ] = 256 * 2**20
    max_unpacked_ratio: Annotated[
        int, Field(ge=1, description="Bytes that a packed body may have for one that was sent.")
    ] = 20
    max_depth: Annotated[
        int, Field(ge=3, le=64, description="Levels of JSON arrays and objects.")
    ] = 16
    max_containers: Annotated[
        int, Field(ge=3, description="JSON arrays and objects that a body may have.")
    ] = 100_000
    max_documents: Annotated[int, Field(ge=1, description="Documents a request may carry.")] = 1000
    max_document_characters: Annotated[
        int, Field(ge=1, description="Characters a document's text may have.")
    ] = 100_000
    max_query_characters: Annotated[
        int, Field(ge=1, description="Characters a query may have.")
    ] = 16_000
    max_request_tokens: Annotated[
        int, Field(ge=1, description="Tokens a request's pairs may have, all together.")
    ] = 1_000_000
    max_headers: Annotated[int, Field(ge=1, description="Headers of a request.")] = 64
    max_header_bytes: Annotated[
        int, Field(ge=1024, description="Bytes of a request's first line and headers.")
    ] = 32 * 2**10
    max_chunks: Annotated[int, Field(ge=1, description="Chunks a body may come in.")] = 8192
    header_seconds: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Seconds for headers to be there.")
    ] = 10.0
    body_seconds: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Seconds for a body to be there.")
    ] = 15.0
    answer_seconds: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds in which a caller must take a KiB for each, or all, of an answer.",
        ),
    ] = 15.0
    idle_seconds: Annotated[
        int, Field(ge=1, description="Seconds an idle connection is kept open.")
    ] = 75


class LogSettings(Section):
    """What is logged; never a query's or document's text."""

    level: Annotated[LogLevel, Field(description="Least severe level that is written.")] = "info"
    format: Annotated[
        LogFormat, Field(description="auto is console on a terminal and json elsewhere.")
    ] = "auto"


class RelevanceSettings(Section):
    """What is kept of rankings, to see when they go wrong."""

    threshold: Annotated[
        float,
        Field(ge=0, le=1, description="A best score below it counts as nothing relevant."),
    ] = 0.5
    window: Annotated[
        int,
        Field(ge=100, le=100_000, description="Newest requests in which drift is looked for."),
    ] = 500
    baseline: Annotated[
        Path | None,
        Field(description="File to compare them with (`tamis baseline record`)."),
    ] = None
    max_series: Annotated[
        int,
        Field(ge=1, description="Models, dialects and callers told apart; the rest is `other`."),
    ] = 50
    feedback_requests: Annotated[
        int, Field(ge=0, description="Newest answers that feedback can be given on; 0 for none.")
    ] = 5000
    feedback_seconds: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="For so long.")
    ] = 3600.0
    log_file: Annotated[
        Path | None, Field(description="JSONL file for a sample of requests; none when left out.")
    ] = None
    log_share: Annotated[
        float, Field(ge=0, le=1, description="Share of requests in the sample.")
    ] = 0.01
    log_texts: Annotated[
        bool, Field(description="Write texts into it, and not their keyed digests.")
    ] = False
    log_key: Annotated[
        SecretStr | None,
        Field(description="Key of these digests; a new one at every start when left out."),
    ] = None
    log_max_bytes: Annotated[
        int, Field(ge=2**16, description="Bytes of the file and the one before it, `NAME.1`.")
    ] = 100 * 2**20


class Settings(BaseSettings):
    """All options, read once at start."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    model: ModelSettings = Field(default_factory=ModelSettings)
    cascade: CascadeSettings = Field(default_factory=CascadeSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    scheduler: SchedulerSettings = Field(default_factory=SchedulerSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    limits: LimitsSettings = Field(default_factory=LimitsSettings)
    relevance: RelevanceSettings = Field(default_factory=RelevanceSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library passes it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - left out on purpose
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then variables; no .env file and no secrets folder is looked for."""
        return init_settings, env_settings


def load_settings(arguments: Sequence[str] = ()) -> Settings:
    """Settings from defaults, the environment and `--section.option value` arguments.

    Raises:
        SettingsError: an option is unknown or its value is not one it can have.
    """
    _refuse_unknown_variables(os.environ)
    try:
        return Settings.model_validate(_parsed_arguments(arguments))
    except ValidationError as error:
        raise SettingsError(_sentences(error)) from error
    except SourceError as error:
        raise SettingsError(str(error)) from error


def model_settings(
    options: Mapping[str, object], base: ModelSettings | None = None
) -> ModelSettings:
    """Settings of a model from options; those that are None, or left out, are as in `base`.

    Args:
        options: Values by name.
        base: What holds where no option is given; the defaults, without any variable, if None.

    Raises:
        SettingsError: an option is unknown or its value is not one it can have.
    """
    held = {} if base is None else base.model_dump(exclude_unset=True)
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return ModelSettings.model_validate(held | given)
    except ValidationError as error:
        raise SettingsError(_sentences(error, "model.")) from error


def first_stage_settings(name: str, second: ModelSettings) -> ModelSettings:
    """Settings of a cascade's first stage: on the device and threads of the second.

    Args:
        name: Embedded model, hub name or folder.
        second: Settings of the model that reads the best.
    """
    shared = second.model_dump(include={"device", "threads", "offline", "cache_dir"})
    return model_settings({"name": name, **shared})


def describe_options(
    section: type[BaseModel] = Settings, prefix: str = ""
) -> Iterator[tuple[str, object, str]]:
    """Each option's dotted name, default and help, in the order they are declared."""
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, BaseModel):
            yield from describe_options(type(default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default, field.description or ""


def _parsed_arguments(arguments: Sequence[str]) -> dict[str, dict[str, str]]:
    """`--section.option value`, `--section.option=value`, or a switch with no value at all."""
    defaults = {name: default for name, default, _ in describe_options()}
    sections: dict[str, dict[str, str]] = {}
    waiting = deque(arguments)
    while waiting:
        name, equals, value = waiting.popleft().partition("=")
        option = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or option not in defaults:
            raise SettingsError(f"there is no option {name}; `tamis settings --names` lists them")
        if not equals:
            value = _next_value(name, waiting, switch=isinstance(defaults[option], bool))
        section, _, key = option.partition(".")
        sections.setdefault(section, {})[key] = value
    return sections


def _next_value(name: str, waiting: deque[str], *, switch: bool) -> str:
    if waiting and not waiting[0].startswith("--"):
        return waiting.popleft()
    if switch:
        return "true"
    raise SettingsError(f"option {name} needs a value")


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    known = {
        EnvSettingsSource(Settings).env_prefix.upper() + name.upper().replace(".", "__")
        for name, _, _ in describe_options()
    }
    unknown = sorted(
        name
        for name in environment
        if name.upper().startswith(ENV_PREFIX)
        and name.upper() not in known
        and not _SERVICE_LINK.fullmatch(name)
    )
    if unknown:
        raise SettingsError(
            f"unknown variable {', '.join(unknown)}; `tamis settings --names` lists them"
        )


def _sentences(error: ValidationError, prefix: str = "") -> str:
    return "; ".join(
        f"{prefix}{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        for fault in error.errors(include_url=False)
    )
