"""The torch runtime straight from a folder, in dtypes that a server would not take on this CPU."""

from pathlib import Path

from tamis.engine.checkpoint import read_checkpoint
from tamis.engine.torch.runtime import TorchRuntime
from tamis.engine.weights import read_weights


def open_torch(
    folder: Path, *, dtype: str, reads_tokens: bool = False, device: str = "cpu"
) -> TorchRuntime:
    """A folder's encoder, with one thread."""
    checkpoint = read_checkpoint(folder)
    return TorchRuntime(
        checkpoint,
        read_weights(checkpoint),
        device=device,
        dtype=dtype,
        threads=1,
        reads_tokens=reads_tokens,
    )
