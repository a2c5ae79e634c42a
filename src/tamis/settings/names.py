"""Names of options: the short ones, those nearest to a misspelt one, and variables of others."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from ipaddress import ip_address

SHORT_OPTIONS = {
    "model": "model.name",
    "revision": "model.revision",
    "device": "model.device",
    "dtype": "model.dtype",
    "runtime": "model.runtime",
    "max_length": "model.max_length",
    "threads": "model.threads",
    "offline": "model.offline",
    "host": "server.host",
    "port": "server.port",
    "workers": "scheduler.workers",
}
"""What everybody types, on every verb that takes it, and the option it stands for."""

_OTHER_WORDS = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "fp32": "float32",
    "float": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "pytorch": "torch",
    "ct2": "ctranslate2",
    "warn": "warning",
    "critical": "error",
    "fatal": "error",
    "text": "console",
}
"""What other programs call a value."""

_PROTOCOLS = ("tcp", "udp", "sctp")
_LINK_URL = re.compile(r"(?:tcp|udp|sctp)://(?P<address>.+):\d{1,5}")
_CUTOFF = 0.7
"""Likeness (0..1) below which no name is proposed."""


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable is what Kubernetes sets for a Service named `tamis` or `tamis-...`.

    It sets seven kinds in every container of the namespace. Name and value must both have their
    form: TAMIS_PORT=tcp://10.0.0.1:8000 is one, TAMIS_PORT=9000 is not.
    """
    return any(form.fullmatch(name) and has_form(value) for form, has_form in _LINKS)


def without_service_links(environment: Mapping[str, str | None]) -> dict[str, str | None]:
    """Variables less those of services."""
    return {
        name: value
        for name, value in environment.items()
        if not is_service_link(name.upper(), value or "")
    }


def nearest_option(name: str, options: Iterable[str]) -> str | None:
    """The dotted name of the option that is meant by a name that is none, if one is near.

    Args:
        name: As it was written: `--server.prot`, `TAMIS_SERVER_PORT`, `--max-model-len`.
        options: The dotted names that there are.
    """
    flat = {option.replace(".", "_"): option for option in options}
    tails: dict[str, str] = {}
    for option in flat.values():
        tails.setdefault(option.partition(".")[2], option)
    known: dict[str, str] = tails | flat | SHORT_OPTIONS
    word = re.sub(r"[-._\s]+", "_", name.lower()).strip("_").removeprefix("tamis_")
    close = get_close_matches(word, known, n=1, cutoff=_CUTOFF)
    close += [short for short in SHORT_OPTIONS if word.startswith(short)]  # --hostname
    return known[close[0]] if close else None


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that is meant by a word that is none, if one is near."""
    known = list(choices)
    other = _OTHER_WORDS.get(word.lower())
    if other in known:
        return other
    close = get_close_matches(word.lower(), known, n=1, cutoff=_CUTOFF)
    return close[0] if close else None


def did_you_mean(name: str | None) -> str:
    """The end of a sentence on a name that is none."""
    return f"; did you mean {name}?" if name else ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_link_url(text: str) -> bool:
    url = _LINK_URL.fullmatch(text)
    return url is not None and _is_address(url["address"].strip("[]"))


_PORT = r"PORT_\d+_(TCP|UDP|SCTP)"
_LINKS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (re.compile(rf"TAMIS(_\w+)?_({suffix})"), has_form)
    for suffix, has_form in (
        (rf"SERVICE_HOST|{_PORT}_ADDR", _is_address),
        (rf"SERVICE_PORT(_\w+)?|{_PORT}_PORT", str.isdecimal),
        (rf"{_PORT}_PROTO", _PROTOCOLS.__contains__),
        (rf"PORT|{_PORT}", _is_link_url),
    )
)
"""Names of such variables, and what their values must look like."""
