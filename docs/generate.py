"""Write the pages of docs/ that the program and its measurements print themselves."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from docs import hostile_page
from docs.performance_page import performance_page
from typer.testing import CliRunner

from tamis.cli.commands import app
from tamis.settings import ENV_PREFIX, describe_options

DOCS = Path(__file__).parent

CONFIGURATION_HEAD = """# Configuration

Every option has one dotted name. It comes, later ones winning, from its default, a variable, an
argument of `tamis serve`:

    TAMIS_SERVER__PORT=9000 tamis serve --model.name BAAI/bge-reranker-v2-m3

What is typed most has a short form: `--model` (or the name alone), `--revision`, `--device`,
`--dtype`, `--runtime`, `--max-length`, `--threads`, `--offline`, `--host`, `--port`, `--workers`.

An unknown variable or argument, or a value that an option cannot have, stops the start with a
sentence that names it and the nearest one there is (exit code 78). Variables that Kubernetes sets
for a service named `tamis` or `tamis-...` (`TAMIS_SERVER_PORT=tcp://10.0.0.1:8000`) are ignored.
`tamis settings` prints what is in force.

The model hub's own variables (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`) are
`huggingface_hub`'s and work as documented there.

Defaults below are those of a Linux user without variables; `~` is the home folder.
"""
CLI_HEAD = """# Command line

What `--help` says, for every verb. Exit codes: 0 done, 1 a line was crossed (`baseline compare`),
2 wrong usage, 65 input that cannot be used, 69 the model hub or the cache does not answer, 70 a
failure of tamis's own, 78 a model or a setting that cannot be used.

`score` is the logit's sigmoid, 0 to 1, here and in Python; over HTTP the native dialect calls it
`relevance_score`, and the logit `score`. `tamis rank` prints score, position and text, with tabs
between, and with `--explain` what matched; `--json` prints both, `logit` and `score`.

`tamis --install-completion` lets a shell complete verbs, options, their values and models.
"""
NUMERICS_HEAD = """# Numerics

How far a logit moves with the runtime, the precision and the other pairs of its batch. Measured by
`python -m benchmarks.agreement`; the figures below are those of
`benchmarks/results/agreement.json` ({processor}, {cores} cores, ctranslate2 {ctranslate2}, torch
{torch}).

## What tamis promises

| | a pair alone, and with any batch mates | against transformers' float32 |
|---|---|---|
| float32, either runtime | within 1e-4 | within 1e-4 |
| int8, tamis-mini | within 0.25 | within 0.7 |
| int8, a large model | depends on its weights: measure it | depends on its weights: measure it |

Tests hold the first two rows (`tests/integration/test_parity.py`); the int8 bounds, 0.25 and 0.7,
are about three and 1.7 times the largest difference seen (0.09 and 0.42). So in float32 the answer
to a request does not depend on what else the server is doing. In int8 it does, by the batch
tolerance above: activations are quantized token by token, so batch mates do not share a scale, but
a last-bit difference flips a rounding now and then, and the layers after it amplify it.
CTranslate2's AVX-512 kernels in place of its AVX2 ones flip roundings in the same way ([decision
10](decisions/0010-kernels-are-measured.md)). That is why int8 is used only when it is asked for,
or when a calibration report passes.

For tamis-mini int8 moves more than it gains (its [card](../src/tamis/models/mini/README.md) has the
ranking figures), so its weights are int8 in the file and float32 in the arithmetic.

## What was measured

Differences of logits. Random weights give no ranking; their logits differ little from each other,
so the same difference weighs more there: compare it with the standard deviation of the logits.
tamis-mini is its version 1 here, before it was trained.
"""
VERBS = [
    [],
    ["rank"],
    ["serve"],
    ["settings"],
    ["demo"],
    ["bench"],
    ["models"],
    ["models", "list"],
    ["models", "pull"],
    ["models", "verify"],
    ["models", "convert"],
    ["models", "tune"],
    ["models", "calibrate"],
    ["keys"],
    ["cache"],
    ["cache", "stats"],
    ["cache", "clear"],
    ["baseline"],
    ["baseline", "record"],
    ["baseline", "compare"],
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


def numerics_page() -> str:
    """docs/numerics.md."""
    path = DOCS.parent / "benchmarks" / "results" / "agreement.json"
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    machine = results["environment"]
    lines = [NUMERICS_HEAD.format(**machine, **machine["packages"])]
    for name, found in results["measured"].items():
        lines.append(
            f"\n### {name}\n\n{found['n_pairs']} pairs, logits with standard deviation "
            f"{found['logits_std']:.3g}.\n\n| | alone and in batches: largest, rms "
            "| against torch float32: largest, rms |\n|---|---|---|"
        )
        for variant, mates in found["batch_mates"].items():
            against = found["against_torch_float32"].get(variant)
            other = f"{against['max']:.1e}, {against['rms']:.1e}" if against else ""
            lines.append(f"| {variant} | {mates['max']:.1e}, {mates['rms']:.1e} | {other} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the pages."""
    (DOCS / "numerics.md").write_text(numerics_page(), encoding="utf-8")
    (DOCS / "configuration.md").write_text(configuration_page(), encoding="utf-8")
    (DOCS / "cli.md").write_text(cli_page(), encoding="utf-8")
    (DOCS / "performance.md").write_text(performance_page(), encoding="utf-8")
    if hostile_page.RESULT.exists():
        saved = json.loads(hostile_page.RESULT.read_text(encoding="utf-8"))
        (DOCS / "hostile.md").write_text(hostile_page.hostile_page(saved), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
