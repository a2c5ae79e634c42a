"""A worker program on doubles, which misbehaves as a plan says.

The plan is a file in the model's folder: a line for each life of a worker, the last for all that
follow. Each life adds its process id to `lives` there.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, cast

from tamis.engine.backend import LocalBackend
from tamis.engine.facts import ModelFacts
from tamis.engine.loading import LoadedModel
from tamis.engine.pairs import EncodedPair
from tamis.engine.tokenization import PairTokenizer
from tamis.errors import ModelNotFoundError
from tamis.settings import ModelSettings
from tamis.testing import FakeBackend, WordTokenizer
from tamis.workers.worker import main

COMMAND = (sys.executable, __file__)
PLAN, LIVES, GO = "plan", "lives", "go"
CANARY = "canary-51c2"


def write_plan(folder: Path, *lives: str) -> Path:
    """Have workers on a folder behave so, one life after the other."""
    folder.mkdir(exist_ok=True)
    (folder / PLAN).write_text("\n".join(lives))
    return folder


def lives(folder: Path) -> list[int]:
    """Process ids of all workers there have been."""
    path = folder / LIVES
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_for_ever() -> NoReturn:
    """Hang, as a deadlock does."""
    while True:
        threading.Event().wait()


def load(_: ModelSettings, folder: Path) -> LoadedModel:
    """A model of doubles that behaves as this life's line says."""
    with (folder / LIVES).open("a") as file:
        file.write(f"{os.getpid()}\n")
    plan = (folder / PLAN).read_text().splitlines()
    behaviour = plan[min(len(lives(folder)), len(plan)) - 1]
    if behaviour == "exits":
        os._exit(3)
    if behaviour == "refuses":
        raise ModelNotFoundError("there is no such model")
    if behaviour == "fails loading":
        raise RuntimeError("a device is lost")
    if behaviour == "loses a connection":
        raise ConnectionResetError("the hub hung up")
    if behaviour == "logs the worst":
        logging.getLogger("a.library").critical("all is lost")
    if behaviour == "hangs loading":
        wait_for_ever()
    while behaviour == "waits" and not (folder / GO).exists():
        time.sleep(0.01)  # another process makes the file
    model = model_on(Misbehaving(behaviour))
    return (
        replace(model, facts=replace(model.facts, digest="other"))
        if behaviour == "has other files"
        else model
    )


class Misbehaving(FakeBackend):
    """Dies, hangs or raises when a batch comes, if it is to."""

    class Runtime:
        """Says where it runs."""

        device, dtype, max_batch_tokens = "cpu", "float32", 2048

    runtime = Runtime()

    def __init__(self, behaviour: str) -> None:
        super().__init__(self._misbehave)
        self._behaviour = behaviour

    def _misbehave(self, pairs: Sequence[EncodedPair]) -> None:
        if self._behaviour == "dies":
            os._exit(9)
        if self._behaviour == "hangs":
            wait_for_ever()
        if self._behaviour == "raises":
            raise RuntimeError(CANARY)
        if self._behaviour == "has no memory":
            raise MemoryError
        if self._behaviour == "dies on long" and any(pair.n_tokens > 40 for pair in pairs):
            os._exit(9)


def model_on(backend: FakeBackend) -> LoadedModel:
    """A model of doubles."""
    place = cast("LocalBackend", backend).runtime
    facts = ModelFacts("fake", "fake", place.device, place.dtype, 512, place.max_batch_tokens)
    return LoadedModel(
        facts,
        tokenizer=cast("PairTokenizer", WordTokenizer()),
        backend=cast("LocalBackend", backend),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], load))
