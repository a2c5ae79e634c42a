"""The tree of all options, and how it is read: defaults, variables, arguments."""

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from tamis.errors import SettingsError
from tamis.settings.names import (
    SHORT_OPTIONS,
    did_you_mean,
    is_service_link,
    nearest,
    nearest_option,
    without_service_links,
)
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

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ENV_PREFIX = "TAMIS_"
_SWITCH_WORDS = ("true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n")
_SHOWN_FAULTS = ("literal", "int", "float", "bool", "greater", "less")
"""Kinds of faults that say the value: never a secret's."""


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
        if isinstance(env_settings, EnvSettingsSource):  # a service `tamis-server--metrics`
            env_settings.env_vars = without_service_links(env_settings.env_vars)
        return init_settings, env_settings


def load_settings(arguments: Sequence[str] = (), *, takes_model: bool = False) -> Settings:
    """Settings from defaults, the environment and `--section.option value` arguments.

    Args:
        arguments: Later ones win.
        takes_model: Whether one of them may be a model's name alone.

    Raises:
        SettingsError: an option is unknown or its value is not one it can have.
    """
    _refuse_unknown_variables(os.environ)
    try:
        return Settings.model_validate(_parsed_arguments(arguments, takes_model=takes_model))
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
        name: Embedded model, Hub name or folder.
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


def _parsed_arguments(arguments: Sequence[str], *, takes_model: bool) -> dict[str, dict[str, str]]:
    """`--section.option value`, `--section.option=value`, or a switch with no value at all."""
    defaults = {name: default for name, default, _ in describe_options()}
    given: dict[str, str] = {}
    waiting = deque(arguments)
    model = None
    while waiting:
        word = waiting.popleft()
        name, equals, value = word.partition("=")
        option = name.removeprefix("--").replace("-", "_")
        option = SHORT_OPTIONS.get(option, option)
        if takes_model and model is None and not word.startswith("-"):
            model = word
        elif not name.startswith("--") or option not in defaults:
            raise SettingsError(_no_option(name, defaults))
        else:
            if not equals:
                value = _next_value(name, waiting, switch=isinstance(defaults[option], bool))
            given[option] = value
    if model is not None and given.setdefault("model.name", model) != model:
        raise SettingsError(f"two models are named, {model} and {given['model.name']}; give one")
    sections: dict[str, dict[str, str]] = {}
    for option, value in given.items():
        section, _, key = option.partition(".")
        sections.setdefault(section, {})[key] = value
    return sections


def _no_option(name: str, options: Iterable[str]) -> str:
    found = nearest_option(name, options) if name.startswith("-") else None
    if found and "." not in name:
        found = next((short for short, option in SHORT_OPTIONS.items() if option == found), found)
    hint = did_you_mean(found and "--" + found.replace("_", "-"))
    return f"there is no option {name}{hint or '; `tamis settings --names` lists them'}"


def _next_value(name: str, waiting: deque[str], *, switch: bool) -> str:
    if switch:
        is_given = bool(waiting) and waiting[0].lower() in _SWITCH_WORDS
        return waiting.popleft() if is_given else "true"
    if waiting and not waiting[0].startswith("--"):
        return waiting.popleft()
    raise SettingsError(f"option {name} needs a value")


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    options = {_variable(name): name for name, _, _ in describe_options()}
    unknown = sorted(
        name
        for name, value in environment.items()
        if name.upper().startswith(ENV_PREFIX)
        and name.upper() not in options
        and not is_service_link(name, value)
    )
    if unknown:
        found = [nearest_option(name, options.values()) for name in unknown]
        meant = list(dict.fromkeys(_variable(name) for name in found if name))
        hint = did_you_mean(", ".join(meant))
        raise SettingsError(
            f"unknown variable {', '.join(unknown)}"
            f"{hint or '; `tamis settings --names` lists them'}"
        )


def _variable(option: str) -> str:
    return ENV_PREFIX + option.upper().replace(".", "__")


def _sentences(error: ValidationError, prefix: str = "") -> str:
    return "; ".join(
        f"{prefix}{'.'.join(map(str, fault['loc']))}: {fault['msg']}{_shown(fault)}"
        for fault in error.errors(include_url=False)
    )


def _shown(fault: "ErrorDetails") -> str:
    """The value at fault where it may be shown, and the choice that may have been meant."""
    if not fault["type"].startswith(_SHOWN_FAULTS):
        return ""
    value = fault["input"]
    choices = re.findall(r"'([^']*)'", fault["msg"]) if fault["type"] == "literal_error" else []
    return f", not {value!r:.60}{did_you_mean(nearest(str(value), choices))}"
