"""What GPUs allow on paper: tokens a second of bge-reranker-v2-m3 in float16, from data sheets.

Usage: python -m benchmarks.roofline; nothing is run on a GPU.
"""

import sys
from typing import NamedTuple

from benchmarks.results_file import save
from tamis.bench.random_checkpoint import Shape

PAIR_TOKENS = 167
ACTIVATION_BYTES = 24 * 62_000
"""Traffic of a token through unfused layers in float16."""


class Card(NamedTuple):
    """Peaks of NVIDIA's data sheets: dense float16 tensor operations, memory bandwidth."""

    tflops: float
    gigabytes_per_second: float


CARDS = {
    "L4": Card(121, 300),
    "A10": Card(125, 600),
    "A100 80GB SXM": Card(312, 2039),
    "H100 SXM": Card(989, 3350),
}


def main() -> int:
    """Compute, print as Markdown and save."""
    rows = {name: bounds(card) for name, card in CARDS.items()}
    print(table(rows))
    save("roofline", {"pair_tokens": PAIR_TOKENS, "cards": rows})
    return 0


def bounds(card: Card) -> dict[str, float]:
    """Tokens and pairs a second: by arithmetic, and by unfused activations' traffic."""
    shape = Shape()
    linear = 2 * shape.n_layers * (4 * shape.hidden**2 + 2 * shape.hidden * shape.inner)
    attention = 4 * shape.n_layers * shape.hidden * PAIR_TOKENS
    arithmetic = card.tflops * 1e12 / (linear + attention)
    traffic = card.gigabytes_per_second * 1e9 / ACTIVATION_BYTES
    return {
        "peak_tflops": card.tflops,
        "gigabytes_per_second": card.gigabytes_per_second,
        "tokens_per_second_by_arithmetic": arithmetic,
        "tokens_per_second_by_unfused_traffic": traffic,
        "pairs_per_second_at_most": min(arithmetic, traffic) / PAIR_TOKENS,
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    bounds_of = "arithmetic, tokens/s | unfused traffic, tokens/s | pairs/s at most, unfused"
    lines = [f"| card | float16 TFLOP/s | GB/s | {bounds_of} |", "|---|---|---|---|---|---|"]
    for name, row in rows.items():
        peak, bandwidth, arithmetic, traffic, pairs = row.values()
        lines.append(
            f"| {name} | {peak:.0f} | {bandwidth:,.0f} | {arithmetic / 1000:,.0f} k "
            f"| {traffic / 1000:,.0f} k | {pairs:,.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
