"""Honest callers, first alone and then during each attack: do they notice it?

Usage: python -m benchmarks.hostile [--seconds-per-attack 28] [--only NAME ...]

Twenty callers with two keys ask tamis-mini for 40% of what the server can do, while an attacker
with a third key, or with none, does its worst from a process of its own. Ten minutes by default.
Ends with 1 where the honest callers' p99 is above twice its quiet value and one batch more, where
one of them is refused, where `/livez` takes more than 250 ms, where memory or log grow beyond
their bounds, where anyone sees a 500, or where the server is not ready afterwards.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.hostile import verdict
from benchmarks.hostile.fake_redis import fake_redis
from benchmarks.hostile.honest import N_CALLERS, N_DOCUMENTS, Texts
from benchmarks.hostile.server import MAX_DESCRIPTORS, SERVER_OPTIONS, NotReadyError
from benchmarks.hostile.stage import ATTACKS, LOAD, Attack, Stage, calibrated, phase
from benchmarks.results_file import save
from tamis.bench.own_process import ended_by_signals

CALIBRATION_SECONDS = 8.0
CANNOT_BE_USED = 78
"""Exit code of a server that refuses a file by name: an attack that never begins."""


def main() -> int:
    """Measure, print and save; a part is printed alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds-per-attack", type=float, default=28.0)
    parser.add_argument("--only", action="append", choices=[attack.name for attack in ATTACKS])
    options = parser.parse_args()
    chosen = [attack for attack in ATTACKS if not options.only or attack.name in options.only]
    with ended_by_signals(), tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(run(Path(folder), chosen, options.seconds_per_attack))
    print(json.dumps(result, indent=2))
    if len(chosen) == len(ATTACKS):
        save("hostile", result)
    return 0 if result["holds"] else 1


async def run(folder: Path, chosen: Sequence[Attack], seconds: float) -> dict[str, Any]:
    """All phases, and the verdict."""
    with fake_redis() as redis:
        async with AsyncExitStack() as stack:
            stage = Stage(folder, redis, Texts(), stack)
            found = await calibrated(stage, min(seconds, CALIBRATION_SECONDS))
            told(f"{found}")
            rate, batch = found["honest_requests_per_second"], found["batch_seconds"]
            quiet = await phase(stage, None, rate=rate, seconds=seconds)
            told(f"quiet: {quiet}")
            results: dict[str, Any] = {}
            for attack in chosen:
                results[attack.name] = await judged(stage, attack, quiet, batch, rate, seconds)
                told(f"{attack.name}: {results[attack.name]}")
            after = await phase(stage, None, rate=rate, seconds=seconds)
    return {
        "seconds_per_attack": seconds,
        "server_options": list(SERVER_OPTIONS),
        "max_descriptors": MAX_DESCRIPTORS,
        "honest_callers": N_CALLERS,
        "documents_per_request": N_DOCUMENTS,
        "load": LOAD,
        **found,
        "bars": verdict.BARS,
        "quiet": quiet,
        "attacks": results,
        "quiet_afterwards": after,
        "holds": all(all(result["holds"].values()) for result in results.values()),
    }


async def judged(
    stage: Stage, attack: Attack, quiet: dict[str, Any], batch: float, rate: float, seconds: float
) -> dict[str, Any]:
    """The figures of an attack, and which demands were met."""
    try:
        found = await phase(stage, attack, rate=rate, seconds=seconds)
    except NotReadyError as error:
        refused = attack.baseline and error.exit_code == CANNOT_BE_USED
        told(f"{attack.name}: {error}")
        holds = {"the server refuses the file with exit code 78": refused}
        return {"what": described(attack), "exit_code": error.exit_code, "holds": holds}
    alive = found["alive"]
    demands = verdict.holds(found, quiet, batch, alive=alive, table_is_full=attack.table_is_full)
    what = {"what": described(attack), "table_is_full": attack.table_is_full}
    return {**what, **found, "holds": demands}


def described(attack: Attack) -> str:
    """What an attack does, in its own words."""
    parts = [part.__doc__ for part in (attack.crew, attack.meanwhile) if part and part.__doc__]
    return " ".join([*([attack.what] if attack.what else []), *parts])


def told(line: str) -> None:
    """Show how far it is."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
