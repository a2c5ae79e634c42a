"""Arrays on their way to torch's device and back."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def put(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device; on the CPU without a copy.

    A GPU takes it from pinned memory while this thread goes on.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def fetch(tensor: Tensor) -> NDArray[np.float32]:
    """A tensor in float32, in this process's memory; waits for the device."""
    return tensor.float().cpu().numpy()
