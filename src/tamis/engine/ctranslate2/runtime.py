"""The default runtime: CTranslate2, which needs no torch and removes padding by itself."""

from pathlib import Path

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from tamis.engine.collate import PackedBatch
from tamis.engine.padding import Padding
from tamis.errors import InferenceError, RuntimeUnavailableError


def cuda_available() -> bool:
    """Whether CTranslate2 sees a CUDA device."""
    return ctranslate2.get_cuda_device_count() > 0


def computed_dtypes(device: str) -> frozenset[str]:
    """What CTranslate2 computes in on a device of this machine."""
    return frozenset(ctranslate2.get_supported_compute_types(device))


MOST_PADDING = 8
"""How many times its length a sequence is padded to at most, in a large batch."""
LEAST_PLACES = 4096
"""Of a large batch, filled up: attention over 40 sequences of 512 places takes 0.5 GB a layer."""


class CTranslate2Runtime:
    """An encoder converted by `conversion.py`.

    Args:
        folder: CTranslate2's own files.
        threads: CPU threads of one forward pass.
        max_batch_tokens: See `Runtime.max_batch_tokens`.
        reads_tokens: Whether token states are wanted rather than the pooled first token.

    Raises:
        RuntimeUnavailableError: the files are corrupt, or the device has no memory for them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        dtype: str,
        threads: int,
        max_batch_tokens: int,
        reads_tokens: bool,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.max_batch_tokens = max_batch_tokens
        # its linear layers drop padding, except float16 on a GPU; its attention keeps it
        self.padding: Padding = "longest"
        self._reads_tokens = reads_tokens
        try:
            self._encoder: ctranslate2.Encoder | None = ctranslate2.Encoder(
                str(folder),
                device=device,
                compute_type=dtype,
                inter_threads=1,
                intra_threads=threads,
            )
        except RuntimeError as error:
            raise RuntimeUnavailableError(
                f"ctranslate2 cannot open {folder} on {device} in {dtype}: {error}"
            ) from error

    def forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Run the encoder; a batch that is mostly padding is run in two parts."""
        short = batch.lengths * MOST_PADDING < batch.lengths.max()
        if not short.any() or len(short) * int(batch.lengths.max()) < LEAST_PLACES:
            return self._forward(batch)
        of_short = np.repeat(short, batch.lengths)  # (n_tokens,)
        rows = of_short if self._reads_tokens else short
        long = self._forward(_part(batch, ~short, ~of_short))
        output = np.empty((len(rows), long.shape[1]), dtype=np.float32)
        output[~rows] = long
        output[rows] = self.forward(_part(batch, short, of_short))
        return output

    def _forward(self, batch: PackedBatch) -> NDArray[np.float32]:
        output = self._run(batch)
        if not self._reads_tokens:
            pooled = output.pooler_output
            assert pooled is not None  # noqa: S101 - the conversion wrote the pooling layer
            return _to_numpy(pooled)  # (n_sequences, hidden)
        states = _to_numpy(output.last_hidden_state)  # (n_sequences, longest, hidden)
        return states[_filled(batch)]  # (n_tokens, hidden)

    def close(self) -> None:
        self._encoder = None  # `unload_model` does nothing while the last batch winds down

    def _run(self, batch: PackedBatch) -> ctranslate2.EncoderForwardOutput:
        if self._encoder is None:
            raise InferenceError("the model is closed")
        if batch.type_ids.any():
            bounds = batch.cu_seqlens[1:-1]
            return self._encoder.forward_batch(
                [part.tolist() for part in np.split(batch.token_ids, bounds)],
                token_type_ids=[part.tolist() for part in np.split(batch.type_ids, bounds)],
            )
        padded = np.zeros((len(batch.lengths), int(batch.lengths.max())), dtype=np.int32)
        padded[_filled(batch)] = batch.token_ids
        return self._encoder.forward_batch(
            ctranslate2.StorageView.from_array(padded),
            ctranslate2.StorageView.from_array(batch.lengths),
        )


def _part(batch: PackedBatch, rows: NDArray[np.bool_], tokens: NDArray[np.bool_]) -> PackedBatch:
    """Some sequences of a batch, and which of its tokens are theirs."""
    lengths = batch.lengths[rows]
    return PackedBatch(
        token_ids=batch.token_ids[tokens],
        type_ids=batch.type_ids[tokens],
        cu_seqlens=np.cumsum([0, *lengths], dtype=np.int32),
        pair_sequences=batch.pair_sequences,
    )


def _filled(batch: PackedBatch) -> NDArray[np.bool_]:
    """Which places of a padded (n_sequences, longest) array hold a token."""
    lengths = batch.lengths
    return np.arange(int(lengths.max())) < lengths[:, None]


def _to_numpy(view: ctranslate2.StorageView) -> NDArray[np.float32]:
    on_cpu = view if view.device == "cpu" else view.to_device(ctranslate2.Device.cpu)
    return np.array(on_cpu.to(ctranslate2.DataType.float32), dtype=np.float32)
