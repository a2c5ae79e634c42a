# The part of CTranslate2's interface that tamis uses: the package ships no types.

from collections.abc import Sequence
from enum import Enum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__version__: str

def get_cuda_device_count() -> int: ...
def get_supported_compute_types(device: str, device_index: int = 0) -> set[str]: ...

class Device(Enum):
    cpu = ...
    cuda = ...

class DataType(Enum):
    float32 = ...

class StorageView:
    device: str
    @classmethod
    def from_array(cls, array: NDArray[Any]) -> Self: ...
    def to(self, dtype: DataType) -> StorageView: ...
    def to_device(self, device: Device) -> StorageView: ...
    def __array__(self, dtype: np.dtype[Any] | None = None) -> NDArray[Any]: ...

class EncoderForwardOutput:
    last_hidden_state: StorageView
    pooler_output: StorageView | None

class Encoder:
    def __init__(
        self,
        model_path: str,
        device: str = "cpu",
        *,
        device_index: int | list[int] = 0,
        compute_type: str = "default",
        inter_threads: int = 1,
        intra_threads: int = 0,
    ) -> None: ...
    def forward_batch(
        self,
        inputs: Sequence[Sequence[int]] | StorageView,
        lengths: StorageView | None = None,
        token_type_ids: Sequence[Sequence[int]] | None = None,
    ) -> EncoderForwardOutput: ...
    def unload_model(self, to_cpu: bool = False) -> None: ...
