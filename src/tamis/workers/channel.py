"""Frames between the server and a worker: a length, then msgpack. Nothing is unpickled."""

import selectors
import socket
import struct
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from tamis.engine.facts import ModelFacts
from tamis.engine.padding import Padding
from tamis.engine.pairs import EncodedPair, TokenSequence, distinct_sequences
from tamis.errors import TamisError

_LENGTH = struct.Struct("<I")
_CHUNK_BYTES = 2**18


class Start(msgspec.Struct, tag="start", frozen=True):
    """The first frame a worker gets.

    Attributes:
        settings: The fields of `ModelSettings` that are set, as JSON.
        folder: The folder of the model's files.
        cores: The cores it may use; None for all of the server's.
        level: Least severe level of its log.
        parent: The server's process id.
    """

    settings: bytes
    folder: str
    cores: list[int] | None
    level: int
    parent: int


class Work(msgspec.Struct, tag="work", frozen=True):
    """A batch: sequences end to end, int32, and which of them make each pair.

    Attributes:
        lengths: Tokens of each sequence.
        type_ids: Of all tokens; empty where every one is 0.
        pair_sizes: Sequences of each pair.
        pair_sequences: Their places in `lengths`, pair after pair. A sequence that several
            pairs allocation is sent once, and shared again at the other end.
    """

    lengths: bytes
    token_ids: bytes
    type_ids: bytes
    pair_sizes: bytes
    pair_sequences: bytes


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Asks whether the model's thread is alive; it answers between batches."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """The model is loaded and has scored its warm-up.

    Attributes:
        seconds_per_token: Measured during the warm-up.
        padding: How far its attention pads sequences.
    """

    facts: ModelFacts
    seconds_per_token: float
    padding: Padding = "none"


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """The model cannot be loaded: a `TamisError`'s code and message."""

    code: str
    message: str


class WorkDone(msgspec.Struct, tag="answer", frozen=True):
    """A batch's logits, float32."""

    logits: bytes


class WorkFailed(msgspec.Struct, tag="failed", frozen=True):
    """The model raised on a batch.

    Attributes:
        kind: The exception's class.
        out_of_memory: Whether it ran out of memory.
    """

    kind: str
    out_of_memory: bool


class Pong(msgspec.Struct, tag="pong", frozen=True):
    """The answer to `Ping`."""


class Log(msgspec.Struct, tag="log", frozen=True):
    """A line of the worker's log, which the server writes into its own."""

    logger: str
    level: int
    message: str


ToWorker = Start | Work | Ping
FromWorker = Ready | Refused | WorkDone | WorkFailed | Pong | Log
Received = TypeVar("Received")


class Channel(Generic[Received]):
    """One end of a socket pair. Any thread may send; one receives.

    Args:
        end: The socket, which the channel closes.
        kinds: The union of frames that come in: `Received` itself.
    """

    def __init__(self, end: socket.socket, kinds: Any) -> None:
        self._socket = end
        self._decoder: msgspec.msgpack.Decoder[Received] = msgspec.msgpack.Decoder(kinds)
        self._encoder = msgspec.msgpack.Encoder()
        self._sending = Lock()
        self._buffer = bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(end, selectors.EVENT_READ)

    def send(self, frame: ToWorker | FromWorker) -> None:
        """Send a frame; blocks while the other end does not read.

        Raises:
            OSError: the other end is gone.
        """
        content = self._encoder.encode(frame)
        with self._sending:
            self._socket.sendall(_LENGTH.pack(len(content)) + content)

    def receive(self, seconds: float | None = None) -> Received | None:
        """The next frame; None if no whole frame came within the given time.

        Raises:
            EOFError: the other end is gone.
            ValueError: what came is not a frame.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while (content := self._next_content()) is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self._selector.select(left):
                return None
            self._read()
        return self._decoder.decode(content)

    def shut_down(self) -> None:
        """Let both ends read an end of file; from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has been shut down already
            return

    def close(self) -> None:
        """Close the socket; call it from the thread that receives."""
        self.shut_down()
        with self._sending:  # or its descriptor could be reused while a sender still writes
            self._selector.close()
            self._socket.close()

    def _read(self) -> None:
        """Read what is there: a sender that stops in the middle of a frame must not block us."""
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except ConnectionError as error:
            raise EOFError from error
        if not chunk:
            raise EOFError
        self._buffer += chunk

    def _next_content(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        content = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return content


def refusal(frame: Refused) -> TamisError:
    """The error of a worker that refused to load, as an instance of its own class."""
    waiting: list[type[TamisError]] = [TamisError]
    while waiting:
        cls = waiting.pop()
        if cls.code == frame.code:
            return cls(frame.message)
        waiting += cls.__subclasses__()
    return TamisError(frame.message)


def pack(pairs: Sequence[EncodedPair]) -> Work:
    """A batch as a frame."""
    sequences, rows = distinct_sequences(pairs)
    type_ids = np.concatenate([sequence.type_ids for sequence in sequences])
    return Work(
        lengths=_int32([len(sequence.token_ids) for sequence in sequences]),
        token_ids=np.concatenate([one.token_ids for one in sequences]).astype("<i4").tobytes(),
        type_ids=type_ids.astype("<i4").tobytes() if type_ids.any() else b"",
        pair_sizes=_int32([len(pair.sequences) for pair in pairs]),
        pair_sequences=_int32([row for of_pair in rows for row in of_pair]),
    )


def unpack(work: Work) -> list[EncodedPair]:
    """The pairs of a frame. It leaves out whether they were truncated: models do not need it.

    Raises:
        ValueError: its parts are inconsistent.
    """
    token_ids = np.frombuffer(work.token_ids, dtype="<i4")
    type_ids = np.frombuffer(work.type_ids, dtype="<i4")
    if not work.type_ids:
        type_ids = np.zeros_like(token_ids)
    ends = np.cumsum(np.frombuffer(work.lengths, dtype="<i4"))
    if len(type_ids) != len(token_ids) or not len(ends) or ends[-1] != len(token_ids):
        raise ValueError("a batch whose lengths do not add up")
    sequences = [
        TokenSequence(ids, types)
        for ids, types in zip(
            np.split(token_ids, ends[:-1]), np.split(type_ids, ends[:-1]), strict=True
        )
    ]
    rows = iter(np.frombuffer(work.pair_sequences, dtype="<i4").tolist())
    sizes = np.frombuffer(work.pair_sizes, dtype="<i4").tolist()
    return [
        EncodedPair(tuple(sequences[next(rows)] for _ in range(size)), truncated=False)
        for size in sizes
    ]


def _int32(numbers: Sequence[int]) -> bytes:
    return np.array(numbers, dtype="<i4").tobytes()
