"""Rounds trained matrices to int8 rows so that what the layers compute changes least (GPTQ).

The base's weights stand on the very grid that rows are rounded to, and training moves most of them
by less than half a step: rounded to the nearest they would fall back to the base. GPTQ (Frantar et
al., arXiv:2210.17323) rounds one column after the other and lets the columns behind make up for it,
measured on real inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from training.model.base import Floats
from training.model.folder import LARGEST, Rows
from training.model.layers import layer_parts
from training.model.states import States
from training.model.student import Student

N_TEXTS = 256
DAMPING = 0.01


def rounded(student: Student, states: States, tensors: Mapping[str, Floats]) -> dict[str, Rows]:
    """The student's matrices as int8 rows, under the names of a model folder.

    Args:
        student: It computes with the weights that are to be rounded.
        states: Of texts below the trained layers: the inputs are taken from some of them.
        tensors: Those weights; what is not a matrix is left out of the answer.
    """
    grams = _grams(student, states)
    return {
        name: round_rows(weight, grams[_reader(name)])
        for name, weight in tensors.items()
        if weight.ndim == 2
    }


def round_rows(weight: Floats, gram: Floats) -> Rows:
    """A matrix (n_out, n_in) as int8 rows; `gram` is the sum of x xT over inputs, (n_in, n_in)."""
    step = np.abs(weight).max(axis=1) / LARGEST  # (n_out,)
    step[step == 0] = 1
    damped = gram.astype(np.float64)
    damped[np.diag_indices_from(damped)] += DAMPING * np.diag(damped).mean()
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T  # (n_in, n_in)
    left = weight.astype(np.float64)
    rows = np.zeros(weight.shape, dtype=np.int8)
    for column in range(weight.shape[1]):
        rows[:, column] = np.rint(left[:, column] / step).clip(-LARGEST, LARGEST)
        error = (left[:, column] - rows[:, column] * step) / upper[column, column]
        left[:, column:] -= np.outer(error, upper[column, column:])
    return rows, step.astype(np.float32)


@torch.no_grad()
def _grams(student: Student, states: States) -> dict[str, Floats]:
    """For each linear part, by its name in a model folder, the sum of x xT over its inputs."""
    grams: dict[str, Tensor] = {}
    hooks = []
    for number, layer in enumerate(student.layers, student.first):
        for part, name in layer_parts().items():
            module = getattr(layer, part)

            def add(
                _: nn.Module, inputs: tuple[Tensor], name: str = f"encoder.layer.{number}.{name}"
            ) -> None:
                with torch.autocast("cpu", enabled=False):
                    rows = inputs[0].float().flatten(0, 1)
                    grams[name] = grams.get(name, torch.tensor(0.0)) + rows.T @ rows

            hooks.append(module.register_forward_pre_hook(add))
    n = len(states.starts) - 1
    for number in range(0, n, max(1, n // N_TEXTS)):  # one by one: padding is no input
        student.encode([states.of(number)], is_query=False)
    for hook in hooks:
        hook.remove()
    return {name: gram.numpy() for name, gram in grams.items()}


def _reader(name: str) -> str:
    """The linear part that a matrix is of: query, key and value read the same."""
    layer, found, _ = name.partition("attention.self.")
    return f"{layer}attention.self" if found else name.removesuffix(".weight")
