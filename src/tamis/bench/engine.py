"""One caller, one model, in this process: seconds, where they go, and memory."""

import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tamis.bench.gemm import EncoderSize, float32_peak
from tamis.bench.latency import Latency, latency
from tamis.bench.timing import Spent, TimedHead, TimedRuntime
from tamis.bench.workloads import Workload
from tamis.engine.backend import LocalBackend
from tamis.engine.loading import LoadedModel
from tamis.ranking import rank
from tamis.scheduler.scheduler import score_now


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of one request by stage.

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
        stage_shares: Each stage's share of all rounds' time.
        float32_gemm: 1e9 operations a second of numpy's float32 matrix product, best of two
            measurements.
        share_of_float32_gemm: Operations on real tokens a second over it; int8 and bfloat16
            may pass 1, since their own peak is not measured here.
        peak_memory: The process's high-water mark before any matrix product of the
            benchmark's own, in bytes.
    """

    n_pairs: int
    n_tokens: int
    n_batches: int
    padding_waste: float
    pairs_per_second: float
    tokens_per_second: float
    latency: Latency
    stage_shares: dict[str, float]
    float32_gemm: float
    share_of_float32_gemm: float
    peak_memory: int


def measure_engine(
    model: LoadedModel,
    size: EncoderSize,
    workload: Workload,
    *,
    rounds: int,
    max_batch_tokens: int = 0,
) -> EngineReport:
    """Score a workload so many times, after once that does not count.

    Args:
        model: Stays open.
        size: Of the model's encoder.
        workload: One request.
        rounds: Requests that count, at least 1.
        max_batch_tokens: Token budget of a forward pass; 0 takes the model's own.
    """
    budget = max_batch_tokens or model.max_batch_tokens
    measured = [_one_request(model, workload, budget) for _ in range(rounds + 1)][1:]
    memory = peak_memory()
    peak = max(float32_peak(), float32_peak())
    seconds = [stages.total for stages, _ in measured]
    median = statistics.median(seconds)
    spent = measured[0][1]
    operations = size.operations(_lengths(model, workload))
    return EngineReport(
        n_pairs=len(workload.documents),
        n_tokens=spent.n_tokens,
        n_batches=spent.n_batches,
        padding_waste=1 - spent.n_tokens / spent.n_padded_tokens,
        pairs_per_second=len(workload.documents) / median,
        tokens_per_second=spent.n_tokens / median,
        latency=latency(seconds),
        stage_shares=_shares([stages for stages, _ in measured]),
        float32_gemm=peak / 1e9,
        share_of_float32_gemm=operations / median / peak,
        peak_memory=memory,
    )


def peak_memory() -> int:
    """High-water mark of this process's resident memory in bytes."""
    fields = Path("/proc/self/status").read_text(encoding="utf-8").split()
    return int(fields[fields.index("VmHWM:") + 1]) * 1024


def _one_request(
    model: LoadedModel, workload: Workload, max_batch_tokens: int
) -> tuple[Stages, Spent]:
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
    stages = Stages(
        tokenize=tokenized - started,
        batches=scored - tokenized - in_model,
        runtime=spent.runtime_seconds,
        head=spent.head_seconds,
        rank=ranked - scored,
    )
    return stages, spent


def _shares(measured: list[Stages]) -> dict[str, float]:
    total = sum(stages.total for stages in measured)
    names = asdict(measured[0])
    return {name: sum(getattr(stages, name) for stages in measured) / total for name in names}


def _lengths(model: LoadedModel, workload: Workload) -> list[int]:
    """Tokens of each sequence that must be computed, a shared query once."""
    pairs = model.tokenizer.encode(workload.query, workload.documents)
    sequences = {id(one): one for pair in pairs for one in pair.sequences}
    return [len(one.token_ids) for one in sequences.values()]
