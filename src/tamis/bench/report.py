"""What `tamis bench` reports: plain values in base units, ready to be printed as JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tamis.bench import RANDOM_LARGE, WorkloadName
from tamis.bench.engine import EngineReport, measure_engine
from tamis.bench.environment import environment
from tamis.bench.gemm import GemmPeak, better_peaks, measure_peaks, read_encoder_size
from tamis.bench.own_process import run_apart
from tamis.bench.own_server import own_server, serve_options
from tamis.bench.peak_memory import peak_memory_bytes
from tamis.bench.random_checkpoint import write_random_checkpoint
from tamis.bench.server import measure_server, served_model
from tamis.bench.workloads import Workload, make_workload
from tamis.engine.device import usable_cores
from tamis.engine.loading import LoadedModel, load_model
from tamis.engine.location import locate
from tamis.errors import SettingsError
from tamis.settings import ModelSettings, model_settings

Report = dict[str, Any]
Say = Callable[[str], None]
"""Is told what is done next; what takes a second or a minute should not be silent."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The requests to measure with.

    Attributes:
        name: Of the workload.
        n_rounds: Requests; to a server, requests of each caller.
    """

    name: WorkloadName
    n_documents: int
    seed: int
    n_rounds: int

    def request(self, number: int = 0) -> Workload:
        """A request's texts; each number has its own."""
        return make_workload(self.name, self.n_documents, seed=self.seed + number)


def engine_report(
    asked: Asked, settings: ModelSettings, say: Say, *, max_batch_tokens: int = 0
) -> Report:
    """A model in a process of its own, and the share of the machine's GEMM peak it reaches.

    A token budget of 0 is the model's own.

    Raises:
        TamisError: the model cannot be loaded, or does not score.
    """
    settings, facts = _prepare(settings, say)
    threads = settings.threads or usable_cores()
    dtypes = ("float32", facts["dtype"]) if facts["device"] == "cpu" else ()
    say("measuring the machine's matrix products")
    before = measure_peaks(dtypes, threads=threads)
    say(f"measuring {asked.n_rounds} requests of {asked.n_documents} documents")
    budget = max_batch_tokens or facts["max_batch_tokens"]
    measured = run_apart(_measure_engine, settings, asked.request(), asked.n_rounds, budget)
    say("measuring the machine's matrix products again: timings drift between runs")
    peaks = better_peaks(before, measure_peaks(dtypes, threads=threads))
    return {
        "workload": asdict(asked),
        "model": {**facts, "max_batch_tokens": budget, "n_threads": threads},
        "engine": asdict(measured),
        "gemm": _held_against(peaks, facts["dtype"], measured.operations_per_second),
        "environment": environment(),
    }


def server_report(asked: Asked, url: str, concurrency: Sequence[int], say: Say) -> Report:
    """A server that runs, perhaps elsewhere: the environment is that of the callers.

    Raises:
        SettingsError: it does not rerank.
    """
    return {
        "workload": asdict(asked),
        "model": served_model(url),
        "server": {"url": url, "concurrency": _measure_server(asked, url, concurrency, say)},
        "environment": environment(),
    }


def own_server_report(
    asked: Asked,
    settings: ModelSettings,
    concurrency: Sequence[int],
    say: Say,
    *,
    max_batch_tokens: int = 0,
) -> Report:
    """A server that is started for it and ended after it.

    A token budget of 0 is the model's own.

    Raises:
        TamisError: the model cannot be loaded, or the server does not get ready or rerank.
    """
    settings, facts = _prepare(settings, say)
    budget = max_batch_tokens or facts["max_batch_tokens"]
    threads = settings.threads or usable_cores()
    say("starting the server")
    with own_server(serve_options(settings, max_batch_tokens=budget)) as server:
        when_ready = peak_memory_bytes(server.process_id)
        measured = _measure_server(asked, server.url, concurrency, say)
        peak = peak_memory_bytes(server.process_id)
    return {
        "workload": asdict(asked),
        "model": {**facts, "max_batch_tokens": budget, "n_threads": threads},
        "server": {
            "seconds_to_ready": server.seconds_to_ready,
            "peak_memory_when_ready_bytes": when_ready,
            "peak_memory_bytes": peak,
            "concurrency": measured,
        },
        "environment": environment(),
    }


def _prepare(settings: ModelSettings, say: Say) -> tuple[ModelSettings, Report]:
    """Settings of a model that loads as it always will, and what the model says of itself.

    A first load may fetch, convert and tune. It is done in a process of its own, before anything
    is measured, so that memory and seconds are those of every later start.
    """
    name = settings.name
    if name == RANDOM_LARGE:
        folder = settings.cache_dir / RANDOM_LARGE
        if not (folder / "tokenizer_config.json").exists():  # written last
            say(f"writing the model of random weights to {folder}")
            run_apart(_write_random_large, folder)
        settings = model_settings({"name": str(folder)}, settings)
    say(f"loading {name}, and converting it if that was not done yet")
    return settings, {**run_apart(_load_once, settings), "name": name}


def _write_random_large(folder: Path) -> None:
    try:
        write_random_checkpoint(folder)
    except (OSError, SafetensorError) as error:  # the latter where there is no room for weights
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"cannot write {folder}: {reason}") from error


def _load_once(settings: ModelSettings) -> Report:
    model = load_model(settings)
    try:
        return _facts(model)
    finally:
        model.backend.close()


def _facts(model: LoadedModel) -> Report:
    return {name: value for name, value in asdict(model.facts).items() if name != "digest"}


def _measure_engine(
    settings: ModelSettings, workload: Workload, rounds: int, max_batch_tokens: int
) -> EngineReport:
    model = load_model(settings)
    folder = locate(settings.name, revision=settings.revision, offline=settings.offline)
    size = read_encoder_size(folder)
    try:
        return measure_engine(
            model, size, workload, rounds=rounds, max_batch_tokens=max_batch_tokens
        )
    finally:
        model.backend.close()


def _held_against(peaks: dict[str, GemmPeak], dtype: str, operations_per_second: float) -> Report:
    """The model's operations a second over the machine's; None where that was not measured."""

    def share(name: str) -> float | None:
        peak = peaks.get(name, GemmPeak()).operations_per_second
        return operations_per_second / peak if peak else None

    missing = None if peaks else "matrix products are measured on the CPU, where this model is not"
    return {
        "share_of_peak": share(dtype),
        "share_of_float32_peak": share("float32"),
        "dtype": dtype,
        "missing": peaks[dtype].missing if peaks else missing,
        "peaks": {name: asdict(peak) for name, peak in peaks.items()},
    }


def _measure_server(asked: Asked, url: str, concurrency: Sequence[int], say: Say) -> Report:
    """By the number of callers at a time."""
    measured: Report = {}
    for callers in concurrency:
        n_requests = asked.n_rounds * callers
        say(f"measuring {n_requests} requests of {callers} callers at a time")
        workloads = [asked.request(number) for number in range(n_requests)]
        report = measure_server(url, workloads, concurrency=callers)
        measured[str(callers)] = asdict(report)
    return measured
