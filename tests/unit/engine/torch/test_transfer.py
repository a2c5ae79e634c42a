import numpy as np
import pytest
import torch

from tamis.engine.torch.transfer import fetch, put

CPU = torch.device("cpu")


def test_on_the_cpu_nothing_is_copied() -> None:
    array = np.arange(3, dtype=np.int32)

    tensor = put(array, CPU)
    array[0] = 7

    assert tensor.tolist() == [7, 1, 2]
    assert tensor.dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_comes_back_is_float32(dtype: torch.dtype) -> None:
    found = fetch(torch.tensor([0.5, -2.0], dtype=dtype))

    assert found.dtype == np.float32
    assert found.tolist() == [0.5, -2.0]
