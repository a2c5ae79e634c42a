"""How much runtimes, precisions and batches change a logit: the tolerances that docs/ publishes.

Usage: python -m benchmarks.agreement [--work FOLDER]

On an XLM-RoBERTa-large of random weights (2.3 GB, written to the work folder) and on tamis-mini.
Random weights give no ranking; only differences mean something there.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import save
from tamis.bench.random_checkpoint import write_random_checkpoint
from tamis.engine.loading import load_model
from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.scheduler.scheduler import score_now
from tamis.settings import DEFAULT_MODEL, DtypeName, ModelSettings, RuntimeName

MAX_BATCH_TOKENS = 1024
SEED = 7
VARIANTS: tuple[tuple[RuntimeName, DtypeName], ...] = (
    ("torch", "float32"),
    ("ctranslate2", "float32"),
    ("ctranslate2", "int8"),
)
Logits = NDArray[np.float32]


def main() -> int:
    """Measure both models, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/benchmarks"))
    work: Path = parser.parse_args().work
    large = work / "xlm-roberta-large-random"
    if not (large / "tokenizer.json").exists():
        write_random_checkpoint(large)
    measured = {
        "xlm-roberta-large, random weights": measure(str(large), random_pairs(24), work),
        DEFAULT_MODEL: measure(DEFAULT_MODEL, None, work),
    }
    print(json.dumps(measured, indent=2))
    print(save("agreement", measured))
    return 0


def measure(name: str, pairs: Sequence[EncodedPair] | None, work: Path) -> dict[str, Any]:
    """Logits of one model in every variant, alone and in batches, and how they differ."""
    alone: dict[str, Logits] = {}
    batched: dict[str, Logits] = {}
    for runtime, dtype in VARIANTS:
        settings = ModelSettings(name=name, runtime=runtime, dtype=dtype, cache_dir=work)
        model = load_model(settings)
        scored = pairs if pairs is not None else text_pairs(model.tokenizer.encode)
        variant = f"{runtime} {dtype}"
        alone[variant] = np.concatenate([model.backend.forward([pair]) for pair in scored])
        batched[variant] = score_now(model.backend, scored, max_batch_tokens=MAX_BATCH_TOKENS)
        model.backend.close()
    reference = "torch float32"
    return {
        "n_pairs": len(alone[reference]),
        "logits_mean": float(alone[reference].mean()),
        "logits_std": float(alone[reference].std()),
        "batch_mates": {name: difference(alone[name], batched[name]) for name in alone},
        "against_torch_float32": {
            name: difference(batched[name], batched[reference])
            for name in alone
            if name != reference
        },
    }


def difference(found: Logits, reference: Logits) -> dict[str, float]:
    """Largest and root mean square difference."""
    delta = found.astype(np.float64) - reference
    return {"max": float(np.abs(delta).max()), "rms": float(np.sqrt((delta**2).mean()))}


def random_pairs(n_pairs: int) -> list[EncodedPair]:
    """Pairs of random tokens: log-normal lengths around 120, 20 to 510."""
    random = np.random.default_rng(SEED)
    lengths = np.clip(random.lognormal(np.log(120), 0.65, n_pairs), 20, 510).astype(int)
    pairs: list[EncodedPair] = []
    for length in lengths:
        ids = random.integers(5, 250_000, length).astype(np.int32)
        ids[0], ids[-1] = 0, 2
        pairs.append(EncodedPair((TokenSequence(ids, np.zeros_like(ids)),), truncated=False))
    return pairs


def text_pairs(encode: Any) -> list[EncodedPair]:
    """Every heading of docs/ with every paragraph: real text, some of it on the question."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    text = "\n\n".join(page.read_text(encoding="utf-8") for page in pages)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    paragraphs = [part for part in text.split("\n\n") if len(part) > 200]
    return list(_encoded(encode, headings[:8], paragraphs[:40]))


def _encoded(encode: Any, queries: list[str], documents: list[str]) -> Iterable[EncodedPair]:
    for query, document in product(queries, documents):
        yield from encode(query, [document])


if __name__ == "__main__":
    sys.exit(main())
