"""Write the pages of docs/ that the program prints itself: configuration.md and cli.md."""

import os
import sys
from pathlib import Path

from typer.testing import CliRunner

from tamis.cli.commands import app
from tamis.settings import ENV_PREFIX, describe_options

DOCS = Path(__file__).parent

CONFIGURATION_HEAD = """# Configuration

Every option has one dotted name. It comes, later ones winning, from its default, a variable, an
argument of `tamis serve`:

    TAMIS_SERVER__PORT=9000 tamis serve --model.name BAAI/bge-reranker-v2-m3

An unknown variable or argument, or a value that an option cannot have, stops the start with a
sentence that names it (exit code 78). `tamis settings` prints what is in force.

The model hub's own variables (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`) are
`huggingface_hub`'s and work as documented there.

Defaults below are those of a Linux user without variables; `~` is the home folder.
"""
CLI_HEAD = """# Command line

What `--help` says, for every verb. Exit codes: 0 done, 2 wrong usage, 65 input that cannot be used,
69 the model hub does not answer, 70 a failure of tamis's own, 78 a model or a setting that cannot
be used.
"""
VERBS = [
    [],
    ["rank"],
    ["serve"],
    ["settings"],
    ["demo"],
    ["models"],
    ["models", "list"],
    ["models", "pull"],
    ["models", "verify"],
    ["models", "convert"],
]


def configuration_page() -> str:
    """docs/configuration.md."""
    lines = [CONFIGURATION_HEAD]
    section = ""
    for name, default, text in describe_options():
        if name.partition(".")[0] != section:
            section = name.partition(".")[0]
            lines.append(
                f"\n## {section}\n\n| option | variable | default | meaning |\n|---|---|---|---|"
            )
        variable = ENV_PREFIX + name.upper().replace(".", "__")
        shown = str(default)
        for folder, name_of_it in (
            (os.environ.get("XDG_CACHE_HOME"), "~/.cache"),
            (Path.home(), "~"),
        ):
            shown = shown.replace(str(folder), name_of_it) if folder else shown
        lines.append(f"| `{name}` | `{variable}` | `{shown}` | {text} |")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """docs/cli.md."""
    runner = CliRunner()
    parts = [CLI_HEAD]
    for verb in VERBS:
        command = " ".join(["tamis", *verb])
        result = runner.invoke(app, [*verb, "--help"], prog_name="tamis", env={"COLUMNS": "80"})
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        parts.append(f"## `{command}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write both pages."""
    (DOCS / "configuration.md").write_text(configuration_page(), encoding="utf-8")
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
