"""Products of token states, in the caller's thread alone, and what is made of them."""

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from tamis.engine.heads.head import Matrix

_SERIAL_MULTIPLICATIONS = 4 * 65536
"""Smaller products stay in the caller's thread (OpenBLAS's GEMM_MULTITHREAD_THRESHOLD)."""


def products(left: Matrix, right: Matrix) -> Matrix:
    """`left @ right.T`, (n_left, n_right), in parts that are small enough for one thread.

    Threads of numpy's BLAS wait actively when a product is done, and would take cores from the
    encoder, which is at the next batch by then.
    """
    n_left, hidden = left.shape
    step = max(1, _SERIAL_MULTIPLICATIONS // max(1, n_left * hidden))
    products = np.empty((n_left, len(right)), dtype=np.float32)
    for start in range(0, len(right), step):
        products[:, start : start + step] = left @ right[start : start + step].T
    return products


def project(states: Matrix, projection: Matrix) -> Matrix:
    """`states @ projection`, (n_tokens, hidden), in the caller's thread alone (see `products`)."""
    n_tokens, hidden = states.shape
    side = max(1, isqrt(_SERIAL_MULTIPLICATIONS // hidden))
    n_rows, n_columns = -(-n_tokens // side), -(-hidden // side)
    rows = np.zeros((n_rows * side, hidden), dtype=np.float32)
    rows[:n_tokens] = states
    columns = np.zeros((hidden, n_columns * side), dtype=np.float32)
    columns[:, :hidden] = projection
    blocks = rows.reshape(n_rows, 1, side, hidden) @ np.ascontiguousarray(
        columns.reshape(hidden, n_columns, side).transpose(1, 0, 2)
    )  # (n_rows, n_columns, side, side)
    joined: Matrix = blocks.transpose(0, 2, 1, 3).reshape(n_rows * side, n_columns * side)
    return joined[:n_tokens, :hidden]


def in_phrases(cosines: Matrix, starts: NDArray[np.intp], weight: float) -> Matrix:
    """Each cosine averaged with those of the tokens before both and of the tokens behind both.

    Where a query or a document ends, the cosine itself stands for the missing one.

    Args:
        cosines: Of a query's tokens and those of documents, end to end, (n_query_tokens, n_tokens).
        starts: Where each document starts, (n_documents,).
        weight: Of each neighbor; the cosine itself counts 1.
    """
    before = cosines.copy()
    before[1:, 1:] = cosines[:-1, :-1]
    before[1:, starts] = cosines[1:, starts]
    ends = np.append(starts[1:], cosines.shape[1]) - 1
    behind = cosines.copy()
    behind[:-1, :-1] = cosines[1:, 1:]
    behind[:-1, ends] = cosines[:-1, ends]
    averages = (cosines + weight * (before + behind)) / (1 + 2 * weight)
    return averages.astype(np.float32, copy=False)


def normalized(states: Matrix) -> Matrix:
    """States of length 1."""
    norms: Matrix = np.linalg.norm(states, axis=-1, keepdims=True)
    return states / norms
