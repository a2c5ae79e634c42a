"""Something again and again, at a rate."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator


async def ticks(rate: float) -> AsyncIterator[int]:
    """Numbers at a limited rate per second; missed ones are not made up for."""
    for number in itertools.count():
        started = time.monotonic()
        yield number
        await asyncio.sleep(max(0.0, started + 1 / rate - time.monotonic()))
