"""The machine's matrix-multiplication rates: what a forward pass is held against.

Usage: python -m benchmarks.gemm; prints 1e9 operations a second by dtype, best of several shapes.

The shapes are those of XLM-RoBERTa-large's linear layers at 1,024 tokens; the library is torch.
"""

import json
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - everybody calls it so
from torch import Tensor

N_TOKENS = 1024
SHAPES = ((1024, 1024), (1024, 3072), (1024, 4096), (4096, 1024))
REPEATS = 8


def main() -> int:
    """Measure and print as JSON."""
    print(json.dumps(peaks()))
    return 0


@torch.inference_mode()
def peaks() -> dict[str, float]:
    """Best rate over the shapes, by dtype; int8 is the bare product, without quantizing."""
    rates: dict[str, float] = {}
    for columns, rows in SHAPES:
        states, weight = torch.randn(N_TOKENS, columns), torch.randn(rows, columns)
        small = torch.randint(-127, 128, (N_TOKENS, columns), dtype=torch.int8)
        small_weight = torch.randint(-127, 128, (rows, columns), dtype=torch.int8).t()
        half, half_weight = states.bfloat16(), weight.bfloat16()
        ways: dict[str, Callable[[], Tensor]] = {
            "float32": lambda x=states, w=weight: F.linear(x, w),
            "bfloat16": lambda x=half, w=half_weight: F.linear(x, w),
            "int8": lambda x=small, w=small_weight: torch._int_mm(x, w),  # noqa: SLF001 - no other
        }
        for dtype, multiply in ways.items():
            rate = 2 * N_TOKENS * columns * rows / _fastest(multiply) / 1e9
            rates[dtype] = max(rate, rates.get(dtype, 0.0))
    return rates


def _fastest(multiply: Callable[[], Tensor]) -> float:
    """Seconds of the fastest of some calls, after one that does not count."""
    multiply()
    seconds: list[float] = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main())
