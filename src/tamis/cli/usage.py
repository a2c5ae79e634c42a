"""Wrong usage in one sentence, with the name that was probably meant."""

import re
from typing import Any, NoReturn, cast

import typer

from tamis.settings.names import did_you_mean, nearest

UsageError = cast("type[Exception]", typer.BadParameter.__base__)
"""The parser's own, which typer does not export."""

_OTHER_VERBS = {"start": "serve", "server": "serve", "run": "serve", "rerank": "rank"}
"""What other programs call a verb."""


def fail_usage(error: Exception) -> NoReturn:
    """Say on stderr what is wrong with a command, and exit with 2; a group alone shows its help."""
    fault = cast("Any", error)  # the parser's types are private to typer
    if type(error).__name__ == "NoArgsIsHelpError":
        fault.show()
    else:
        typer.echo(f"tamis: {_sentence(fault)}", err=True)
    raise SystemExit(2)


def _sentence(fault: Any) -> str:
    path = fault.ctx.command_path if fault.ctx else "tamis"
    message = " ".join(str(fault.format_message()).split()).rstrip(".")
    if type(fault).__name__ == "NoSuchOption":
        hint = did_you_mean(nearest(fault.option_name, _options(fault)))
        message = f"`{path}` has no option {fault.option_name}{hint}"
    elif unknown := re.match(r"No such command '(.*?)'", message):
        hint = did_you_mean(_verb(fault, unknown[1]))
        message = f"`{path}` has no verb {unknown[1]}{hint}"
    else:
        message = message.replace("Value error, ", "").removeprefix("Invalid value: ")
        if choice := re.search(r"'([^']*)' is not one of (.*)", message):
            message += did_you_mean(nearest(choice[1], re.findall(r"'([^']*)'", choice[2])))
        message = message[:1].lower() + message[1:]
    return message if message.endswith("?") else f"{message}; `{path} --help` says more"


def _options(fault: Any) -> list[str]:
    """Every option of the verb at fault."""
    return [name for one in fault.ctx.command.get_params(fault.ctx) for name in one.opts]


def _verb(fault: Any, word: str) -> str | None:
    """The verb that is meant, in this group or, at the top, in one below it."""
    meant: dict[str, str] = {}
    for name, command in fault.ctx.command.commands.items():
        meant |= {below: f"{name} {below}" for below in getattr(command, "commands", {})}
    meant |= {name: name for name in fault.ctx.command.commands}
    known = _OTHER_VERBS.get(word, word)
    found = known if known in meant else nearest(known, meant)
    return None if found is None else meant[found]
