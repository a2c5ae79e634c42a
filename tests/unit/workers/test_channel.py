import socket
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamis.engine.collate import collate
from tamis.engine.pairs import EncodedPair, TokenSequence
from tamis.errors import QueueFullError, TamisError
from tamis.testing import WordTokenizer
from tamis.workers.channel import (
    Channel,
    FromWorker,
    Ping,
    Pong,
    Refused,
    ToWorker,
    Work,
    WorkDone,
    pack,
    refusal,
    unpack,
)

Ends = tuple[Channel[FromWorker], Channel[ToWorker]]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A server's end and a worker's."""
    ours, theirs = socket.socketpair()
    server: Channel[FromWorker] = Channel(ours, FromWorker)
    worker: Channel[ToWorker] = Channel(theirs, ToWorker)
    yield server, worker
    server.close()
    worker.close()


def sequence(*ids: int, type_id: int = 0) -> TokenSequence:
    token_ids = np.array(ids, dtype=np.int32)
    return TokenSequence(token_ids, np.full_like(token_ids, type_id))


def test_frames_come_out_as_they_went_in_and_in_their_order(ends: Ends) -> None:
    server, worker = ends
    work = pack(WordTokenizer().encode("q", ["a", "b c"]))
    server.send(work)
    server.send(Ping())
    assert worker.receive() == work
    assert worker.receive() == Ping()
    worker.send(WorkDone(b"\0\0\0\0"))
    assert server.receive() == WorkDone(b"\0\0\0\0")


def test_nothing_comes_when_nothing_is_sent(ends: Ends) -> None:
    server, _ = ends
    assert server.receive(0.01) is None


def test_half_a_frame_is_kept_until_the_rest_is_there() -> None:
    ours, theirs = socket.socketpair()
    server: Channel[FromWorker] = Channel(ours, FromWorker)
    frame = msgspec.msgpack.encode(Pong())
    data = len(frame).to_bytes(4, "little") + frame
    theirs.sendall(data[:6])
    assert server.receive(0.01) is None
    theirs.sendall(data[6:])
    assert server.receive(1) == Pong()
    theirs.close()
    with pytest.raises(EOFError):
        server.receive(1)
    server.close()


def test_a_frame_of_the_wrong_kind_is_refused(ends: Ends) -> None:
    server, worker = ends
    worker.send(Ping())
    with pytest.raises(msgspec.ValidationError):
        server.receive(1)


def test_hanging_up_ends_both_ends(ends: Ends) -> None:
    server, worker = ends
    server.shut_down()
    server.shut_down()
    for end in (server, worker):
        with pytest.raises(EOFError):
            end.receive(1)
    with pytest.raises(OSError, match="pipe"):
        worker.send(Pong())


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9), st.integers(0, 1)),
        min_size=1,
        max_size=6,
    )
)
def test_pairs_read_together_are_the_same_after_it(drawn: list[tuple[list[int], int]]) -> None:
    pairs = [
        EncodedPair((sequence(*ids, type_id=type_id),), truncated=False) for ids, type_id in drawn
    ]
    for there, here in zip(unpack(pack(pairs)), pairs, strict=True):
        assert there.sequences[0].token_ids.tolist() == here.sequences[0].token_ids.tolist()
        assert there.sequences[0].type_ids.tolist() == here.sequences[0].type_ids.tolist()


def test_a_query_that_pairs_share_is_sent_once_and_shared_again() -> None:
    query = sequence(1, 2, 3)
    pairs = [EncodedPair((query, sequence(n, n)), truncated=False) for n in range(3)]
    work = pack(pairs)
    assert len(work.token_ids) == 4 * (3 + 3 * 2)
    before, after = collate(pairs), collate(unpack(work))
    assert after.pair_sequences.tolist() == before.pair_sequences.tolist()
    assert after.token_ids.tolist() == before.token_ids.tolist()
    assert after.cu_seqlens.tolist() == before.cu_seqlens.tolist()


def test_lengths_that_do_not_add_up_are_refused() -> None:
    work = pack(WordTokenizer().encode("q", ["a"]))
    with pytest.raises(ValueError, match="do not add up"):
        unpack(msgspec.structs.replace(work, token_ids=work.token_ids[:-4]))


def test_no_frame_is_unpickled() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Ping()), type=ToWorker) == Ping()
    with pytest.raises(msgspec.DecodeError):
        msgspec.msgpack.decode(b"\x80\x04K\x01.", type=Work)  # a pickled 1


def test_every_error_a_worker_meets_is_raised_again_as_its_class() -> None:
    waiting: list[type[TamisError]] = [TamisError]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        error = refusal(Refused(cls.code, "a sentence"))
        assert type(error) is cls
        assert str(error) == "a sentence"
    assert isinstance(refusal(Refused("queue_full", "a sentence")), QueueFullError)
    assert type(refusal(Refused("of tomorrow", "a sentence"))) is TamisError
