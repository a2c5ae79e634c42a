"""Write the pages of docs/ that are generated from the program and its measurements."""

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

Every option has one dotted name. Its value comes from its default, an environment variable or an
argument of `tamis serve`; later ones override earlier ones:

    TAMIS_SERVER__PORT=9000 tamis serve --model.name BAAI/bge-reranker-v2-m3

Common options have a short form: `--model` (or the name alone), `--revision`, `--device`,
`--dtype`, `--runtime`, `--max-length`, `--threads`, `--offline`, `--host`, `--port`, `--workers`.

An unknown variable or argument, or an invalid value, stops the start with exit code 78 and an error
that suggests the nearest valid name. Variables that Kubernetes sets for a service named `tamis` or
`tamis-...` (`TAMIS_SERVER_PORT=tcp://10.0.0.1:8000`) are ignored. `tamis settings` prints the
values in force.

The Hub's own variables (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`) work as
`huggingface_hub` documents them.

Defaults below are those of a Linux user without variables; `~` is the home folder.
"""
CLI_HEAD = """# Command line

The output of `--help` for every command. Exit codes: 0 success, 1 drift found
(`baseline compare`), 2 wrong usage, 65 invalid input, 69 the Hub or the cache does not answer, 70
internal error, 78 invalid model or setting.

`score` is the logit's sigmoid, 0 to 1, here and in Python; over HTTP the native dialect calls it
`relevance_score` and the logit `score`. `tamis rank` prints score, position and text, separated by
tabs, and with `--explain` the words that matched. `--json` prints both, `logit` and `score`.

`tamis --install-completion` installs shell completion for commands, options, values and models.
"""
NUMERICS_HEAD = """# Numerics

How much a logit changes with the runtime, the precision and the other pairs in its batch. Measured
with `python -m benchmarks.agreement`; the figures below come from
`benchmarks/results/agreement.json` ({processor}, {cores} cores, ctranslate2 {ctranslate2}, torch
{torch}).

## Tolerances

| | a pair alone compared with any batch | compared with transformers' float32 |
|---|---|---|
| float32, either runtime | within 1e-4 | within 1e-4 |
| int8, tamis-mini | within 0.25 | within 0.7 |
| int8, a large model | depends on its weights: measure it | depends on its weights: measure it |

Tests check the first two rows (`tests/integration/test_parity.py`). The int8 bounds, 0.25 and 0.7,
are about three and 1.7 times the largest difference seen (0.09 and 0.42).

In float32, the answer to a request does not depend on what else the server computes. In int8 it
does, within the batch tolerance above. Activations are quantized token by token, so pairs of a
batch do not share a scale. But a difference in the last bit occasionally flips a rounding, and the
following layers amplify it. Compared with its AVX2 kernels, CTranslate2's AVX-512 kernels flip
roundings in the same way ([decision 10](decisions/0010-kernels-are-measured.md)). This is why tamis
uses int8 only if it is requested or if a calibration report passes.

For tamis-mini, int8 costs more ranking quality than its speed is worth (its
[card](../src/tamis/models/mini/README.md) has the figures). Its weights are int8 in the file and
float32 in computation.

## Measurements

Differences of logits. The logits of random weights differ little from each other, so the same
difference matters more there: compare it with the standard deviation of the logits. The figures of
tamis-mini are from its version 1, before it was trained.
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
