"""Every option of tamis: its name, default, unit and help, written here and nowhere else.

Options come, later ones winning, from defaults, `TAMIS_SECTION__OPTION` variables and
`--section.option` arguments.
"""

from tamis.settings.sections import (
    DEFAULT_MODEL,
    CacheSettings,
    CascadeSettings,
    DeviceName,
    DtypeName,
    LimitsSettings,
    LogFormat,
    LogLevel,
    LogSettings,
    ModelSettings,
    RelevanceSettings,
    RuntimeName,
    SchedulerSettings,
    Section,
    ServerSettings,
    TelemetrySettings,
)
from tamis.settings.tree import (
    ENV_PREFIX,
    Settings,
    describe_options,
    first_stage_settings,
    load_settings,
    model_settings,
)

__all__ = [
    "DEFAULT_MODEL",
    "ENV_PREFIX",
    "CacheSettings",
    "CascadeSettings",
    "DeviceName",
    "DtypeName",
    "LimitsSettings",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "ModelSettings",
    "RelevanceSettings",
    "RuntimeName",
    "SchedulerSettings",
    "Section",
    "ServerSettings",
    "Settings",
    "TelemetrySettings",
    "describe_options",
    "first_stage_settings",
    "load_settings",
    "model_settings",
]
