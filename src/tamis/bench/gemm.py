"""How many operations a forward pass takes, and how many the machine can do.

Usage: python -m tamis.bench.gemm [DTYPE ...]; prints the rates as JSON, of float32, bfloat16 and
int8 by default. torch is used where it is installed.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from tamis.engine.checkpoint import CONFIG_FILE
from tamis.engine.files import read_struct

DTYPES = ("float32", "bfloat16", "int8")
N_TOKENS = 1024
SHAPES = ((1024, 1024), (1024, 3072), (1024, 4096), (4096, 1024))
"""Columns and rows of XLM-RoBERTa-large's linear layers: the shape of the work does not
depend on the model that is held against it."""
LEAST_REPEATS = 3
SHAPE_SECONDS = 0.1
"""A shape is repeated for so long, and so often at least."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Product = tuple[float, Callable[[], object]]
"""Operations of a matrix product, and the product itself."""


class _EncoderConfig(msgspec.Struct, frozen=True):
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """What the operations of an encoder depend on."""

    n_layers: int
    hidden: int
    inner: int

    def operations(self, lengths: Sequence[int]) -> float:
        """Multiplications and additions for sequences of these lengths, all layers whole."""
        linear = 2 * (4 * self.hidden**2 + 2 * self.hidden * self.inner) * sum(lengths)
        attention = 4 * self.hidden * sum(length**2 for length in lengths)
        return float(self.n_layers * (linear + attention))


def read_encoder_size(folder: Path) -> EncoderSize:
    """Sizes of a model's folder.

    Raises:
        IncompleteModelError: it has no config.json.
        UnsupportedModelError: config.json does not name them.
    """
    config = read_struct(folder / CONFIG_FILE, _EncoderConfig)
    return EncoderSize(config.num_hidden_layers, config.hidden_size, config.intermediate_size)


@dataclass(frozen=True, slots=True)
class GemmPeak:
    """The best rate of matrix products in one dtype; int8 is the bare product, nothing quantized.

    Attributes:
        operations_per_second: Multiplications and additions; None where it was not measured.
        library: The one that reached it.
        missing: Why it was not measured.
    """

    operations_per_second: float | None = None
    library: str | None = None
    missing: str | None = None


def measure_peaks(dtypes: Iterable[str], *, threads: int) -> dict[str, GemmPeak]:
    """The machine's CPU now, by dtype, in its own process and on a number of threads."""
    wanted = tuple(dict.fromkeys(dtypes))
    if not wanted:
        return {}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tamis.bench.gemm", *wanted],
        env=os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        return dict.fromkeys(wanted, GemmPeak(missing=f"its measurement failed: {why}"))
    return msgspec.json.decode(done.stdout, type=dict[str, GemmPeak])


def better_peaks(one: Mapping[str, GemmPeak], other: Mapping[str, GemmPeak]) -> dict[str, GemmPeak]:
    """The higher rate of two measurements of the same dtypes."""
    return {
        dtype: max(one[dtype], other[dtype], key=lambda peak: peak.operations_per_second or 0.0)
        for dtype in one
    }


def main() -> int:
    """Measure in this process and print as JSON."""
    print(json.dumps({dtype: asdict(_peak(dtype)) for dtype in sys.argv[1:] or DTYPES}))
    return 0


def _peak(dtype: str) -> GemmPeak:
    """By numpy in float32, by torch in any dtype it has; the better library counts."""
    rates: dict[str, float] = {}
    if dtype == "float32":
        rates["numpy"] = _best_rate(_numpy_products())
    missing = ""
    try:
        rates["torch"] = _best_rate(_torch_products(dtype))
    except ImportError:
        missing = f"only torch multiplies in {dtype}, and it is not installed (tamis[torch])"
    except RuntimeError as error:
        missing = f"torch does not multiply in {dtype} here: {str(error).partition(chr(10))[0]}"
    if not rates:
        return GemmPeak(missing=missing)
    library = max(rates, key=rates.__getitem__)
    return GemmPeak(rates[library], library)


def _numpy_products() -> Iterator[Product]:
    random = np.random.default_rng(0)
    for columns, rows in SHAPES:
        left = random.standard_normal((N_TOKENS, columns), dtype=np.float32)
        right = random.standard_normal((columns, rows), dtype=np.float32)
        yield _operations(columns, rows), partial(np.matmul, left, right)


def _torch_products(dtype: str) -> Iterator[Product]:
    import torch

    for columns, rows in SHAPES:
        if dtype == "int8":
            left = torch.randint(-127, 128, (N_TOKENS, columns), dtype=torch.int8)
            right = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
            int8_product = torch._int_mm  # noqa: SLF001 # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] - no other
            multiply = partial(int8_product, left, right.t())
        else:
            left = torch.randn(N_TOKENS, columns).to(getattr(torch, dtype))
            right = torch.randn(rows, columns).to(getattr(torch, dtype))
            multiply = partial(torch.nn.functional.linear, left, right)
        yield _operations(columns, rows), multiply


def _operations(columns: int, rows: int) -> float:
    return 2.0 * N_TOKENS * columns * rows


def _best_rate(products: Iterable[Product]) -> float:
    """Operations a second of the fastest product."""
    return max(operations / _fastest(multiply) for operations, multiply in products)


def _fastest(multiply: Callable[[], object]) -> float:
    """Seconds of the fastest call, after one that does not count: it starts the threads."""
    multiply()
    seconds: list[float] = []
    while len(seconds) < LEAST_REPEATS or sum(seconds) < SHAPE_SECONDS:
        started = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main())
