"""tamis compared with other ways to run the same model, interleaved in one run.

Usage: python -m benchmarks.side_by_side --environments FOLDER [--work FOLDER]
           [--rounds N] [--documents N …]

FOLDER holds one virtual environment for each peer, made by `benchmarks/make_environments.sh`. All
run an XLM-RoBERTa-large of random weights on the same texts: speed and agreement mean something,
ranking does not. Each measurement has a process of its own, warmed up on two documents; seconds go
from texts to scores. Run nothing else meanwhile.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.results_file import save
from tamis.bench.gemm import DTYPES
from tamis.bench.gemm import measure_peaks as measure_gemm_peaks
from tamis.bench.random_checkpoint import Shape, write_random_checkpoint
from tamis.bench.workloads import Workload, rag_mix
from tamis.engine.device import usable_cores
from tamis.engine.templates import read_joint_template
from tamis.engine.tokenization import PairTokenizer, read_text_tokenizer

SCRIPTS = Path(__file__).parent / "contestants"
BASELINE = "tutorial"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to score pairs: a script, and the environment whose Python runs it.

    Attributes:
        environment: Folder name of a virtual environment; None for this one.
        arguments: What the script wants after the model's folder; WORK is the work folder.
        most_documents: Larger workloads are left out: it is too slow for them.
    """

    script: str
    environment: str | None = None
    arguments: tuple[str, ...] = ()
    most_documents: int = 1000


FIELD = {
    BASELINE: Contestant("tutorial.py", "sentence-transformers"),
    "CrossEncoder": Contestant("crossencoder.py", "sentence-transformers"),
    "FlagReranker": Contestant("flagreranker.py", "FlagEmbedding", most_documents=16),
    "tamis torch bfloat16": Contestant("tamis_reranker.py", None, ("WORK", "torch", "bfloat16")),
    "tamis torch float32": Contestant("tamis_reranker.py", None, ("WORK", "torch", "float32")),
    "tamis ctranslate2 float32": Contestant(
        "tamis_reranker.py", None, ("WORK", "ctranslate2", "float32")
    ),
    "tamis ctranslate2 int8": Contestant(
        "tamis_reranker.py", None, ("WORK", "ctranslate2", "int8")
    ),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement."""

    seconds: float
    scores: list[float]
    versions: dict[str, str]


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, nargs="+", default=[16, 50])
    parser.add_argument("--result", default="side_by_side", help="name of the saved result")
    options = parser.parse_args()
    folder: Path = options.work / "random-large"
    if not (folder / "tokenizer_config.json").exists():
        write_random_checkpoint(folder)
    measured: dict[str, Any] = {}
    for n_documents in options.documents:
        workload, name = rag_mix(n_documents), f"RAG mix, {n_documents} documents"
        peaks: list[dict[str, float]] = []
        runs = race(workload, folder, options.environments, options.work, options.rounds, peaks)
        lengths = pair_lengths(workload, folder)
        measured[name] = {
            "tokens": {"real": sum(lengths), "padded": max(lengths) * len(lengths)},
            **summary(runs),
            "gemm": shares_of_peak(runs, peaks, operations(lengths, Shape())),
        }
        print(json.dumps({name: measured[name]}, indent=2), flush=True)
        save(options.result, measured)
    return 0


def race(
    workload: Workload,
    folder: Path,
    environments: Path,
    work: Path,
    rounds: int,
    peaks: list[dict[str, float]],
) -> dict[str, list[Run]]:
    """Runs of each contestant; every round lets each run once, in turn.

    `peaks` gets the machine's GEMM rates (1e9 operations a second by dtype), twice a round.
    """
    runs: dict[str, list[Run]] = {}
    for number in range(rounds):
        for name, contestant in FIELD.items():
            if name in (BASELINE, "tamis torch float32"):
                peaks.append(measure_peaks())
            if len(workload.documents) <= contestant.most_documents:
                run = measure(contestant, workload, folder, environments, work)
                runs.setdefault(name, []).append(run)
                print(f"round {number + 1}: {name} {run.seconds:.2f} s", flush=True)
    return runs


def measure_peaks() -> dict[str, float]:
    """The machine's GEMM rates now, 1e9 operations a second by dtype."""
    rates: dict[str, float] = {}
    for dtype, peak in measure_gemm_peaks(DTYPES, threads=usable_cores()).items():
        assert peak.operations_per_second is not None, peak.missing
        rates[dtype] = peak.operations_per_second / 1e9
    return rates


def measure(
    contestant: Contestant, workload: Workload, folder: Path, environments: Path, work: Path
) -> Run:
    """One measurement in a process of its own."""
    python = sys.executable
    if contestant.environment is not None:
        python = str(environments / contestant.environment / "bin" / "python")
    arguments = [str(work) if word == "WORK" else word for word in contestant.arguments]
    command = [python, str(SCRIPTS / contestant.script), str(folder), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        versions = json.loads(process.stdout.readline())["versions"]
        _ask(process.stdin, process.stdout, Workload(workload.query, workload.documents[:2]))
        answer = _ask(process.stdin, process.stdout, workload)
        process.stdin.close()
    return Run(answer["seconds"], answer["scores"], versions)


def summary(runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Medians, ratios to the tutorials' way, and agreement with its scores."""
    baseline = statistics.median(run.seconds for run in runs[BASELINE])
    reference = np.array(runs[BASELINE][0].scores)
    contestants: dict[str, Any] = {}
    for name, found in runs.items():
        seconds = [run.seconds for run in found]
        difference = np.array(found[0].scores) - reference
        contestants[name] = {
            "seconds_median": statistics.median(seconds),
            "seconds": seconds,
            "times_faster_than_tutorial": baseline / statistics.median(seconds),
            "versions": found[0].versions,
        }
        if name.startswith("tamis"):
            contestants[name]["largest_logit_difference"] = float(np.abs(difference).max())
    return {"logits_std": float(reference.std()), "contestants": contestants}


def shares_of_peak(
    runs: dict[str, list[Run]], peaks: list[dict[str, float]], n_operations: float
) -> dict[str, Any]:
    """The share of the measured GEMM rates that each tamis reaches, on real tokens."""
    rates = {dtype: statistics.median(peak[dtype] for peak in peaks) for dtype in peaks[0]}
    return {
        "median_rates_1e9_per_second": rates,
        "operations_1e9": n_operations / 1e9,
        "share_of_median_rate": {
            name: n_operations
            / statistics.median(run.seconds for run in found)
            / (rates[name.split()[-1]] * 1e9)
            for name, found in runs.items()
            if name.startswith("tamis")
        },
    }


def operations(lengths: Sequence[int], shape: Shape) -> float:
    """Multiplications and additions of a forward pass over real tokens, all layers whole."""
    linear = 4 * shape.hidden**2 + 2 * shape.hidden * shape.inner
    attention = 4 * shape.hidden * sum(length**2 for length in lengths)
    return float(shape.n_layers * (2 * linear * sum(lengths) + attention))


def pair_lengths(workload: Workload, folder: Path) -> list[int]:
    """Tokens of each pair."""
    definition = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    text = read_text_tokenizer(definition)
    tokenizer = PairTokenizer(text, read_joint_template(text), max_length=512)
    return [pair.n_tokens for pair in tokenizer.encode(workload.query, workload.documents)]


def _ask(stdin: IO[str], stdout: IO[str], workload: Workload) -> dict[str, Any]:
    print(json.dumps(asdict(workload)), file=stdin, flush=True)
    answer: dict[str, Any] = json.loads(stdout.readline())
    return answer


if __name__ == "__main__":
    sys.exit(main())
