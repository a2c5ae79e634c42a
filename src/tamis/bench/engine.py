"""One caller, one model, in one process: seconds, where they go, and memory."""

import statistics
import time
from dataclasses import asdict, dataclass

from tamis.bench.clocks import Spent, TimedHead, TimedRuntime
from tamis.bench.gemm import EncoderSize
from tamis.bench.latency import Latency, latency
from tamis.bench.peak_memory import peak_memory_bytes
from tamis.bench.workloads import Workload
from tamis.engine.backend import LocalBackend
from tamis.engine.loading import LoadedModel
from tamis.ranking import rank
from tamis.scheduler.scheduler import score_now


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds of one request by phase.

    Attributes:
        batches: Queue, packing and handing out of logits.
    """

    tokenize: float
    batches: float
    runtime: float
    head: float
    rank: float

    @property
    def total(self) -> float:
        """Seconds of the request."""
        return self.tokenize + self.batches + self.runtime + self.head + self.rank


@dataclass(frozen=True, slots=True)
class EngineReport:
    """Medians over the rounds, one request each.

    Attributes:
        n_tokens: Real tokens of one request as the runtime gets them.
        padding_waste: Share of the places that would hold no token if each batch were padded
            to its longest sequence. The torch runtime computes none of them, CTranslate2 only
            in attention.
        operations_per_second: Multiplications and additions on real tokens, all layers whole.
        stage_shares: Each phase's share of all rounds' time.
        peak_memory_bytes: The process's high-water mark, loading included.
    """

    n_pairs: int
    n_tokens: int
    n_batches: int
    padding_waste: float
    pairs_per_second: float
    tokens_per_second: float
    operations_per_second: float
    latency: Latency
    stage_shares: dict[str, float]
    peak_memory_bytes: int | None


def measure_engine(
    model: LoadedModel,
    size: EncoderSize,
    workload: Workload,
    *,
    rounds: int,
    max_batch_tokens: int = 0,
) -> EngineReport:
    """Score a workload `rounds` times, after one uncounted run.

    Args:
        model: Stays open.
        size: Of the model's encoder.
        workload: One request.
        rounds: Requests that count, at least 1.
        max_batch_tokens: Token budget of a forward pass; 0 takes the model's own.
    """
    budget = max_batch_tokens or model.facts.max_batch_tokens
    measured = [_one_request(model, workload, budget) for _ in range(rounds + 1)][1:]
    seconds = [phases.total for phases, _ in measured]
    median = statistics.median(seconds)
    spent = measured[0][1]
    return EngineReport(
        n_pairs=len(workload.documents),
        n_tokens=spent.n_tokens,
        n_batches=spent.n_batches,
        padding_waste=1 - spent.n_tokens / spent.n_padded_tokens,
        pairs_per_second=len(workload.documents) / median,
        tokens_per_second=spent.n_tokens / median,
        operations_per_second=size.operations(_lengths(model, workload)) / median,
        latency=latency(seconds),
        stage_shares=_shares([phases for phases, _ in measured]),
        peak_memory_bytes=peak_memory_bytes(),
    )


def _one_request(
    model: LoadedModel, workload: Workload, max_batch_tokens: int
) -> tuple[Phases, Spent]:
    """The steps of `Reranker.rank`, with a clock between them."""
    spent = Spent()
    inner = model.backend
    backend = LocalBackend(TimedRuntime(inner.runtime, spent), TimedHead(inner.head, spent))
    started = time.perf_counter()
    pairs = model.tokenizer.encode(workload.query, workload.documents)
    tokenized = time.perf_counter()
    logits = score_now(backend, pairs, max_batch_tokens=max_batch_tokens)
    scored = time.perf_counter()
    rank(logits)
    ranked = time.perf_counter()
    in_model = spent.runtime_seconds + spent.head_seconds
    phases = Phases(
        tokenize=tokenized - started,
        batches=scored - tokenized - in_model,
        runtime=spent.runtime_seconds,
        head=spent.head_seconds,
        rank=ranked - scored,
    )
    return phases, spent


def _shares(measured: list[Phases]) -> dict[str, float]:
    total = sum(phases.total for phases in measured)
    names = asdict(measured[0])
    return {name: sum(getattr(phases, name) for phases in measured) / total for name in names}


def _lengths(model: LoadedModel, workload: Workload) -> list[int]:
    """Tokens of each sequence that must be computed, a shared query once."""
    pairs = model.tokenizer.encode(workload.query, workload.documents)
    sequences = {id(one): one for pair in pairs for one in pair.sequences}
    return [len(one.token_ids) for one in sequences.values()]
