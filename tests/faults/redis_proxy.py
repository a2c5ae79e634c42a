"""A proxy between a client and its Redis, which does to the bytes what it is told."""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Fault = Literal[
    "none",
    "refuse",  # nobody listens, and who is connected is cut off
    "reset",  # each answer becomes a reset
    "stall",  # no answer comes until another fault is set: then all of them
    "half",  # half of an answer, and the end
    "half_stall",  # half of an answer, and nothing more
    "throttle",  # a byte every 5 ms
    "corrupt",  # a byte of the last value is another
    "garble",  # random bytes
    "delay",  # each answer 200 ms late
    "jitter",  # each answer up to 3 ms late
    "loading",  # what a server says while it reads its data from the disk
]

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
_CHUNK = 65_536


class FaultProxy:
    """Listens on a port of its own, in a thread of its own."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._fault: Fault = "none"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._random = random.Random(1)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"redis://127.0.0.1:{self.port}"

    def be(self, fault: Fault) -> None:
        """From now on, for connections that are there too."""
        asyncio.run_coroutine_threadsafe(self._be(fault), self._loop).result(10)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self.be("none")

    def stop(self) -> None:
        """End; whoever is connected is cut off."""
        self.be("refuse")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()

    async def _be(self, fault: Fault) -> None:
        self._fault = fault
        self._changed.set()
        self._changed = asyncio.Event()
        if fault == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
            for writer in tuple(self._writers):
                _reset(writer)
            await asyncio.gather(*self._serving, return_exceptions=True)
        elif fault != "refuse" and self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if (serving := asyncio.current_task()) is not None:
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)
        there: asyncio.StreamWriter | None = None
        try:
            answers, there = await asyncio.open_connection("127.0.0.1", self._target_port)
            asking = asyncio.create_task(self._ask(reader, there, writer))
            answering = asyncio.create_task(self._answer(answers, writer))
            both = (asking, answering)
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        except OSError:
            pass
        finally:
            for one in (writer, there):
                if one is not None:
                    one.close()
                    with suppress(OSError):
                        await one.wait_closed()
            self._writers.discard(writer)

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        there: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        while asked := await reader.read(_CHUNK):
            if self._fault == "loading":
                back.write(LOADING)
            else:
                there.write(asked)

    async def _answer(self, answers: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while answer := await answers.read(_CHUNK):
            await self._pass_on(answer, back)

    async def _pass_on(self, answer: bytes, back: asyncio.StreamWriter) -> None:
        match self._fault:
            case "reset":
                _reset(back)
            case "half":
                back.write(answer[: len(answer) // 2])
                back.close()
            case "throttle":
                for byte in answer:
                    back.write(bytes([byte]))
                    await asyncio.sleep(0.005)
            case "stall" | "half_stall" as fault:
                n_first = len(answer) // 2 if fault == "half_stall" else 0
                back.write(answer[:n_first])
                await self._changed.wait()
                back.write(answer[n_first:])
            case "delay" | "jitter" as fault:
                late = 0.2 if fault == "delay" else 0.003 * self._random.random()
                await asyncio.sleep(late)
                back.write(answer)
            case _:
                back.write(self._spoilt(answer))

    def _spoilt(self, answer: bytes) -> bytes:
        if self._fault == "garble":
            return self._random.randbytes(len(answer))
        if self._fault == "corrupt" and len(answer) > 20:
            return answer[:-6] + bytes([answer[-6] ^ 0xFF]) + answer[-5:]
        return answer


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an end."""
    there = writer.get_extra_info("socket")
    if there is not None:
        with suppress(OSError):  # it is closed already
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def proxy_to(port: int) -> Iterator[FaultProxy]:
    """A proxy to a port of this machine."""
    proxy = FaultProxy(port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
