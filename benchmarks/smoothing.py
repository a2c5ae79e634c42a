"""What smoothing would do for int8, and what keeping some linear layers in float would.

Usage: python -m benchmarks.smoothing --data FOLDER [--work FOLDER] [--large FOLDER]

*Smoothing* (SmoothQuant, arXiv:2211.10438) moves an activation's outlier channels into the weights
that read it. A post-norm encoder allows it in one place without changing what it computes: between
value projection and attention output, channel by channel. Measured on ctranslate2, with factors
from 10 pairs that are not among those scored.

*Layers in float*: ctranslate2 rounds every linear layer of a model that it computes in int8, those
too that the file has in float; tamis-mini shows it, with its feed-forward outputs in float in the
file. So what such layers would give is simulated in torch: float32, with weights rounded by row
and activations by token, as ctranslate2 does.

The data is a folder in BEIR layout, candidates by BM25 (see int8_report.py). tamis-mini's weights
are real; on the large model's random ones only differences mean something.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - everybody calls it so
from numpy.typing import NDArray

from benchmarks.int8_report import Judged, read_judged
from benchmarks.results_file import save
from tamis.engine.backend import LocalBackend
from tamis.engine.calibration import QueryScores, compare
from tamis.engine.checkpoint import RUNTIME_FOLDER, Checkpoint, read_checkpoint, weight_files
from tamis.engine.collate import PackedBatch
from tamis.engine.ctranslate2.conversion import encoder_spec, spec_source
from tamis.engine.ctranslate2.runtime import CTranslate2Runtime
from tamis.engine.device import processor_name, usable_cores
from tamis.engine.heads.head import Head
from tamis.engine.loading import load_model
from tamis.engine.location import EMBEDDED_FOLDER
from tamis.engine.padding import Padding
from tamis.engine.pairs import EncodedPair, Logits
from tamis.engine.runtime import Runtime
from tamis.engine.weights import QuantizedRows, Weights
from tamis.scheduler.scheduler import score_now
from tamis.settings import DEFAULT_MODEL, ModelSettings

MAX_BATCH_TOKENS = 1024
DEPTH = 10
N_CALIBRATION = 10
N_QUERIES = {DEFAULT_MODEL: 12, "large": 2}
N_SIMULATED = {DEFAULT_MODEL: 4, "large": 1}
ALPHAS = (0.25, 0.5, 0.75)
FLOAT_LAYER_DTYPES = ("int8", "default")
KINDS = ("embeddings", "qkv", "attention output", "intermediate", "output")
Factors = Mapping[int, NDArray[np.float32]]
NO_FOLD: Factors = {}


def main() -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--large", type=Path, help="the random-weight large model; none: left out")
    options = parser.parse_args()
    queries = read_judged(options.data, DEPTH)
    measured: dict[str, Any] = {"data": options.data.name, "candidates": DEPTH}
    measured[DEFAULT_MODEL] = measure(DEFAULT_MODEL, DEFAULT_MODEL, queries, options.work)
    save("smoothing", measured)
    if options.large:
        found = measure("large", str(options.large), queries, options.work)
        measured["xlm-roberta-large, random weights"] = found
    print(json.dumps(measured, indent=2))
    print(save("smoothing", measured))
    return 0


def measure(kind: str, name: str, queries: list[Judged], work: Path) -> dict[str, Any]:
    """One model: int8 as it is, with each fold, and in simulation with layers in float."""
    folder = EMBEDDED_FOLDER if name == DEFAULT_MODEL else Path(name)
    checkpoint = read_checkpoint(folder)
    settings = ModelSettings(name=name, runtime="ctranslate2", dtype="float32", cache_dir=work)
    model = load_model(settings)
    scored = [model.tokenizer.encode(q.query, q.documents) for q in queries[: N_QUERIES[kind]]]
    seen = [model.tokenizer.encode(q.query, q.documents[:1])[0] for q in queries[-N_CALIBRATION:]]
    reference = scores(model.backend, scored)
    model.backend.close()
    head = model.backend.head

    def on_ctranslate2(weights: Weights, dtype: str = "int8") -> dict[str, float]:
        return against(reference, converted_scores(checkpoint, weights, head, scored, dtype))

    maxima = context_maxima(checkpoint, head, seen)
    folds = {alpha: smoothing_factors(checkpoint, maxima, alpha) for alpha in ALPHAS}
    runs = {"int8": on_ctranslate2(FoldedWeights(checkpoint, NO_FOLD))}
    for alpha, factors in folds.items():
        runs[f"int8, fold with alpha {alpha}"] = on_ctranslate2(FoldedWeights(checkpoint, factors))
    folded = FoldedWeights(checkpoint, folds[0.5])
    runs["float32, fold with alpha 0.5"] = on_ctranslate2(folded, "float32")
    for dtype in FLOAT_LAYER_DTYPES if name == DEFAULT_MODEL else ():
        run = on_ctranslate2(FloatOutputs(weight_files(folder)), dtype)
        runs[f"feed-forward outputs in float in the file, compute type {dtype}"] = run
    n = N_SIMULATED[kind]
    return {
        "ctranslate2": runs,
        "simulated": simulated(checkpoint, head, scored[:n], reference[:n], folds[0.5]),
    }


def simulated(
    checkpoint: Checkpoint,
    head: Head,
    scored: list[list[EncodedPair]],
    reference: list[Logits],
    half: Factors,
) -> dict[str, dict[str, float]]:
    """All linear layers rounded; all but one kind; all with a fold."""

    def run(rounded: Collection[str], factors: Factors = NO_FOLD) -> dict[str, float]:
        weights = FoldedWeights(checkpoint, factors)
        backend = LocalBackend(SimulatedRuntime(checkpoint, weights, head, rounded), head)
        return against(reference, [backend.forward(pairs) for pairs in scored])

    found = {"nothing rounded": run(()), "all rounded": run(KINDS)}
    for kind in KINDS:
        found[f"all but {kind}"] = run([other for other in KINDS if other != kind])
    found["all rounded, fold with alpha 0.5"] = run(KINDS, half)
    return found


def against(reference: list[Logits], scored: list[Logits]) -> dict[str, float]:
    """Noise (rms difference over the spread within a query), tau and the same first document."""
    report = compare(
        [QueryScores(a, b) for a, b in zip(reference, scored, strict=True)],
        max_length=ModelSettings().max_length,
        processor=processor_name(),
    )
    found = {
        "noise": report.logit_difference_rms / report.logit_std,
        "tau": report.tau,
        "same_top_1": report.same_top_1,
        "logit_difference_max": report.logit_difference_max,
        "n_pairs": report.n_pairs,
    }
    print(found, file=sys.stderr, flush=True)
    return found


def scores(backend: LocalBackend, scored: list[list[EncodedPair]]) -> list[Logits]:
    """Logits of each query's candidates."""
    return [score_now(backend, pairs, max_batch_tokens=MAX_BATCH_TOKENS) for pairs in scored]


def converted_scores(
    checkpoint: Checkpoint,
    weights: Weights,
    head: Head,
    scored: list[list[EncodedPair]],
    dtype: str,
) -> list[Logits]:
    """Convert some weights, open them on ctranslate2, score, throw away."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / RUNTIME_FOLDER
        folder.mkdir()
        spec = encoder_spec(checkpoint, weights)
        spec.validate()
        as_they_are = isinstance(spec_source(checkpoint, weights), QuantizedRows)
        spec.optimize(quantization=None if as_they_are or dtype == "float32" else "int8")
        spec.save(str(folder))
        del spec
        backend = LocalBackend(opened(folder, dtype, head), head)
    found = scores(backend, scored)
    backend.close()
    return found


def opened(folder: Path, dtype: str, head: Head) -> Runtime:
    """ctranslate2's files on this processor."""
    return CTranslate2Runtime(
        folder,
        device="cpu",
        dtype=dtype,
        threads=usable_cores(),
        max_batch_tokens=MAX_BATCH_TOKENS,
        reads_tokens=head.reads_tokens,
    )


class FoldedWeights(Weights):
    """A checkpoint's weights, value channels divided and attention output's columns multiplied.

    Args:
        factors: By layer, (hidden,).
    """

    def __init__(self, checkpoint: Checkpoint, factors: Factors) -> None:
        super().__init__(weight_files(checkpoint.folder))
        self._divided: dict[str, NDArray[np.float32]] = {}
        self._multiplied: dict[str, NDArray[np.float32]] = {}
        for layer, factor in factors.items():
            attention = f"{checkpoint.family.prefix}encoder.layer.{layer}.attention"
            self._divided[f"{attention}.self.value.weight"] = factor[:, None]
            self._divided[f"{attention}.self.value.bias"] = factor
            self._multiplied[f"{attention}.output.dense.weight"] = factor

    def matrix(self, name: str) -> NDArray[np.float32] | QuantizedRows:
        """See `Weights.matrix`. A row's own scale takes a division without rounding anew."""
        found = super().matrix(name)
        if name in self._divided:
            if isinstance(found, QuantizedRows):
                return QuantizedRows(found.rows, found.scales / self._divided[name][:, 0])
            return found / self._divided[name]
        if name in self._multiplied:
            plain = found.dequantized() if isinstance(found, QuantizedRows) else found
            return plain * self._multiplied[name]
        return found


class FloatOutputs(Weights):
    """A checkpoint stored in int8, with the feed-forward's second layers in float."""

    def matrix(self, name: str) -> NDArray[np.float32] | QuantizedRows:
        """See `Weights.matrix`."""
        found = super().matrix(name)
        is_output = name.endswith(".output.dense.weight") and ".attention." not in name
        return found.dequantized() if is_output and isinstance(found, QuantizedRows) else found


def smoothing_factors(
    checkpoint: Checkpoint, maxima: Mapping[int, torch.Tensor], alpha: float
) -> Factors:
    """SmoothQuant's equation 4: max|X| ** alpha / max|W| ** (1 - alpha), by channel."""
    weights = Weights(weight_files(checkpoint.folder))
    factors: dict[int, NDArray[np.float32]] = {}
    for layer, seen in maxima.items():
        attention = f"{checkpoint.family.prefix}encoder.layer.{layer}.attention"
        columns = np.abs(weights.array(f"{attention}.output.dense.weight")).max(axis=0)
        strongest = np.maximum(seen.numpy(), 1e-6)  # a channel that never speaks stays finite
        factors[layer] = strongest**alpha / np.maximum(columns, 1e-6) ** (1 - alpha)
    return factors


def context_maxima(
    checkpoint: Checkpoint, head: Head, pairs: list[EncodedPair]
) -> Mapping[int, torch.Tensor]:
    """Largest absolute input of each attention output, by layer and channel, (hidden,)."""
    runtime = SimulatedRuntime(checkpoint, FoldedWeights(checkpoint, {}), head, ())
    LocalBackend(runtime, head).forward(pairs)
    return runtime.maxima


class SimulatedRuntime:
    """A float32 encoder whose linear layers round as ctranslate2's int8 does.

    Args:
        rounded: Which kinds of `KINDS` do; the pooler goes with `output`.

    Attributes:
        maxima: Largest absolute input of each attention output seen so far, by layer, (hidden,).
    """

    device, dtype, max_batch_tokens = "cpu", "float32", MAX_BATCH_TOKENS
    padding: Padding = "none"

    def __init__(
        self, checkpoint: Checkpoint, weights: Weights, head: Head, rounded: Collection[str]
    ) -> None:
        self.maxima: dict[int, torch.Tensor] = {}
        self._checkpoint = checkpoint
        self._weights = weights
        self._reads_tokens = head.reads_tokens
        self._rounded = rounded

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        """See `Runtime.forward`."""
        states = self._embed(batch)
        for number in range(self._checkpoint.n_layers):
            states = self._layer(number, states, batch.lengths.tolist())
        if self._reads_tokens:
            return states.numpy()
        first = states[torch.from_numpy(batch.cu_seqlens[:-1].copy()).long()]
        pooled = self._linear("output", first, self._checkpoint.family.pooler)
        return torch.tanh(pooled).numpy()

    def close(self) -> None:
        """See `Runtime.close`."""

    def _embed(self, batch: PackedBatch) -> torch.Tensor:
        name = f"{self._checkpoint.family.prefix}embeddings"
        starts = np.repeat(batch.cu_seqlens[:-1], batch.lengths)
        places = np.arange(len(batch.token_ids)) - starts + self._checkpoint.position_offset
        words = self._weights.array(f"{name}.word_embeddings.weight")[batch.token_ids]
        types = self._weights.array(f"{name}.token_type_embeddings.weight")[batch.type_ids]
        positions = self._weights.array(f"{name}.position_embeddings.weight")[places]
        if "embeddings" in self._rounded:
            words, types = (rounded_rows(torch.from_numpy(x)).numpy() for x in (words, types))
        return self._norm(torch.from_numpy(words + types + positions), f"{name}.LayerNorm")

    def _layer(self, number: int, states: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        name = f"{self._checkpoint.family.prefix}encoder.layer.{number}"
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        qkv = self._linear("qkv", states, *parts)  # (n_tokens, 3 * hidden)
        shaped = qkv.view(len(states), 3, self._checkpoint.n_heads, -1).permute(1, 2, 0, 3)
        context = torch.cat(
            [
                F.scaled_dot_product_attention(*(part[None] for part in one))[0]
                for one in shaped.split(lengths, dim=2)
            ],
            dim=1,
        )  # (n_heads, n_tokens, head)
        context = context.transpose(0, 1).reshape(len(states), -1)
        self.maxima[number] = context.abs().amax(0)
        attended = self._linear("attention output", context, f"{name}.attention.output.dense")
        states = self._norm(states + attended, f"{name}.attention.output.LayerNorm")
        inner = F.gelu(self._linear("intermediate", states, f"{name}.intermediate.dense"))
        outer = self._linear("output", inner, f"{name}.output.dense")
        return self._norm(states + outer, f"{name}.output.LayerNorm")

    def _linear(self, kind: str, inputs: torch.Tensor, *names: str) -> torch.Tensor:
        weight = np.concatenate([self._weights.array(f"{name}.weight") for name in names])
        bias = np.concatenate([self._weights.array(f"{name}.bias") for name in names])
        matrix = torch.from_numpy(weight)
        if kind in self._rounded:
            matrix, inputs = rounded_rows(matrix), rounded_rows(inputs)
        return F.linear(inputs, matrix, torch.from_numpy(bias))

    def _norm(self, states: torch.Tensor, name: str) -> torch.Tensor:
        gamma, beta = (
            torch.tensor(self._weights.array(f"{name}.{part}")) for part in ("weight", "bias")
        )
        epsilon = self._checkpoint.layer_norm_epsilon
        return F.layer_norm(states, (states.shape[-1],), gamma, beta, epsilon)


def rounded_rows(values: torch.Tensor) -> torch.Tensor:
    """To the nearest of 255 steps that the largest absolute value of a row makes."""
    step = values.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (values / step).round_() * step


if __name__ == "__main__":
    sys.exit(main())
