import os
import signal
import threading
from pathlib import Path

import pytest

from tamis.bench.own_process import ended_by_signals, run_apart, signals_wait
from tamis.errors import InferenceError, UnsupportedModelError


def add(one: int, other: int) -> tuple[int, int]:
    return one + other, os.getpid()


def refuse(name: str) -> None:
    raise UnsupportedModelError(f"{name} is not run")


def die() -> None:
    os._exit(3)


def hang(fifo: Path) -> None:
    fifo.write_text(str(os.getpid()))
    threading.Event().wait()


def test_an_answer_comes_from_another_process() -> None:
    total, process_id = run_apart(add, 2, 3)
    assert total == 5
    assert process_id != os.getpid()


def test_an_error_raised_on_purpose_is_raised_again() -> None:
    with pytest.raises(UnsupportedModelError, match="it is not run"):
        run_apart(refuse, "it")


def test_a_process_that_dies_is_said() -> None:
    with pytest.raises(InferenceError, match="exited with code 3"):
        run_apart(die)


def test_an_interrupted_call_ends_its_process(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    here = threading.get_ident()
    seen: list[int] = []

    def interrupt() -> None:
        seen.append(int(fifo.read_text()))
        signal.pthread_kill(here, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        run_apart(hang, fifo)
    interrupter.join()
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_signals_wait_for_the_end_of_a_start() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), signals_wait():  # noqa: PT012 - it raises at the end
        signal.raise_signal(signal.SIGINT)
        done.append("the start")
    assert done == ["the start"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_us_raises_and_the_former_way_comes_back(number: signal.Signals) -> None:
    former = signal.getsignal(number)
    with pytest.raises(SystemExit) as raised, ended_by_signals():
        signal.raise_signal(number)
    assert raised.value.code == 128 + number
    assert signal.getsignal(number) == former


def test_a_hangup_that_is_ignored_stays_so() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)
