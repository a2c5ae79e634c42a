"""The tree of all options, and how it is read: defaults, variables, arguments."""

import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from tamis.errors import SettingsError
from tamis.settings.sections import (
    CacheSettings,
    CascadeSettings,
    LimitsSettings,
    LogSettings,
    ModelSettings,
    RelevanceSettings,
    SchedulerSettings,
    ServerSettings,
    TelemetrySettings,
)

ENV_PREFIX = "TAMIS_"
_SERVICE_LINK = re.compile(r"TAMIS_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")
"""What Kubernetes sets in every container beside a Service named `tamis`; not ours to refuse."""


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
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
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
    for name in ("max_length", "threads"):  # pydantic takes True for 1
        if isinstance(given.get(name), bool):
            raise SettingsError(f"model.{name} must be a whole number, not {given[name]}")
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
