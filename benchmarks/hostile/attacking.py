"""One attack in a process of its own, until its stdin ends; what it saw comes as JSON.

Usage: python -m benchmarks.hostile.attacking FUNCTION PORT KEY
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from benchmarks.hostile import attacks

NICENESS = 19
"""The attacker is another machine's work in truth: here it takes what the server leaves it."""
START_SECONDS, END_SECONDS = 60.0, 15.0


@dataclass
class Attacked:
    """What the attacker saw.

    Attributes:
        outcomes: Answers by status, and what else became of requests.
        cores: CPU time a second of its process.
    """

    outcomes: dict[str, int] = field(default_factory=dict)
    cores: float = 0.0


def main() -> int:
    """Attack."""
    name, port, key = sys.argv[1:]
    os.nice(NICENESS)
    target = attacks.Target(int(port), key)
    started, used = time.monotonic(), _cpu_seconds()
    asyncio.run(_until_told(target, getattr(attacks, name)(target)))
    cores = (_cpu_seconds() - used) / (time.monotonic() - started)
    print(json.dumps({"outcomes": dict(target.outcomes), "cores": cores}))
    return 0


async def _until_told(target: attacks.Target, attack: Coroutine[Any, Any, None]) -> None:
    """Run an attack until stdin ends, as it does when the script that started us ends."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, told.set)
    task = asyncio.create_task(attack)
    await target.begins.wait()
    print("ready", flush=True)
    await asyncio.wait((task, asyncio.create_task(told.wait())), return_when="FIRST_COMPLETED")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@asynccontextmanager
async def attacking(
    attack: Callable[[attacks.Target], Coroutine[Any, Any, None]] | None, port: int, key: str
) -> AsyncIterator[Attacked]:
    """Attack until the block is left; the attacker's account is there afterwards."""
    account = Attacked()
    if attack is None:
        yield account
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.hostile.attacking", attack.__name__, str(port), key),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            await process.stdout.readline()
        yield account
        process.stdin.close()
        async with asyncio.timeout(END_SECONDS):
            told = json.loads(await process.stdout.read())
            await process.wait()
        account.outcomes, account.cores = told["outcomes"], told["cores"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
