"""The page about attacks has the figures that were measured."""

import json
from pathlib import Path
from typing import Any

from benchmarks.hostile import verdict
from docs.hostile_page import REFUSED, RESULT, hostile_page

ROOT = Path(__file__).parents[2]
PHASE: dict[str, Any] = {
    "honest_p50_seconds": 0.1,
    "honest_p99_seconds": 0.2,
    "honest_outcomes": {"200": 300},
    "livez_max_seconds": 0.02,
    "livez_max_seconds_new_connections": 0.03,
    "livez_failures": {},
    "memory_max_bytes": 300 * 2**20,
    "log_bytes_per_minute": 250_000,
    "attackers_outcomes": {},
    "attackers_cores": 0.0,
}
BATCH_SECONDS = 0.25


def judged(*, table_is_full: bool = False, alive: bool = True, **changed: Any) -> set[str]:
    """The demands that a phase misses."""
    demands = verdict.holds(
        PHASE | changed, PHASE, BATCH_SECONDS, alive=alive, table_is_full=table_is_full
    )
    return {name for name, held in demands.items() if not held}


def saved() -> dict[str, Any]:
    """A result of two attacks, as the script saves it."""
    refused = {"200": 290, "429": 10}
    noisy = PHASE | {"honest_outcomes": refused, "attackers_outcomes": {"400": 5}}
    noisy |= {"what": "All at once.", "attackers_cores": 0.5, "honest_p99_seconds": 1.5}
    demands = verdict.holds(noisy, PHASE, BATCH_SECONDS, alive=True)
    absurd = {"what": "A file.", "exit_code": 78, "holds": {REFUSED: True}}
    packages = {"tamis": "0.1.0"}
    machine = {"processor": "P", "cores": 2, "commit": "c", "packages": packages}
    measured = {"seconds_per_attack": 28.0, "honest_callers": 20, "documents_per_request": 3}
    measured |= {"load": 0.4, "honest_requests_per_second": 9.5, "max_descriptors": 512}
    measured |= {"batch_seconds": BATCH_SECONDS, "bars": verdict.BARS}
    measured |= {"quiet": PHASE, "quiet_afterwards": PHASE}
    measured |= {"attacks": {"noise": noisy | {"holds": demands}, "absurd": absurd}}
    return {"environment": machine, "measured": measured}


def test_the_page_is_what_was_measured() -> None:
    page = ROOT / "docs" / "hostile.md"
    written = page.read_text(encoding="utf-8") if page.exists() else None
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else None
    assert written == (hostile_page(result) if result else None), "run `make docs`"


def test_the_page_says_what_was_missed_and_by_how_much() -> None:
    page = hostile_page(saved())
    (noise,) = [line for line in page.splitlines() if line.startswith("| noise")]
    assert "| 1,500 ms | 10 429 | 30 ms | 300 MiB | 0.25 MB | 0.50 cores |" in noise
    assert "missed: honest p99 within its bound; missed: no honest request refused" in noise
    assert "= 650 ms" in page
    (absurd,) = [line for line in page.splitlines() if line.startswith("| absurd")]
    assert absurd.endswith("| the server refuses the file |")
    assert "- **noise**: All at once." in page


def test_a_phase_like_the_quiet_one_meets_every_demand() -> None:
    assert judged() == set()


def test_each_demand_is_missed_just_beyond_its_bar() -> None:
    p99 = {"honest p99 within its bound"}
    assert judged(honest_p99_seconds=2 * 0.2 + BATCH_SECONDS) == set()
    assert judged(honest_p99_seconds=0.651) == p99
    assert judged(honest_outcomes={"200": 299, "429": 1}) == {"no honest request refused or lost"}
    assert judged(honest_outcomes={}) == {"no honest request refused or lost"}
    livez = {"livez answers in time"}
    assert judged(livez_max_seconds=0.25) == set()
    assert judged(livez_max_seconds=0.251) == livez
    assert judged(livez_max_seconds_new_connections=0.251) == livez
    assert judged(livez_failures={"kept connection: 503": 1}) == livez
    most = PHASE["memory_max_bytes"] + verdict.ADDED_MEMORY_BYTES
    assert judged(memory_max_bytes=most) == set()
    assert judged(memory_max_bytes=most + 1) == {"memory within its bound"}
    assert judged(log_bytes_per_minute=1_000_000) == {"log within its bound"}
    assert judged(attackers_outcomes={"400": 9, "500": 1}) == {"nobody sees a 500"}
    assert judged(alive=False) == {"server ready afterwards"}


def test_new_connections_do_not_count_while_the_attacker_holds_them_all() -> None:
    failed = {"new connection: TimeoutError": 3}
    slow = {"livez_max_seconds_new_connections": 9.0, "livez_failures": failed}
    assert judged(**slow, table_is_full=True) == set()
    assert judged(**slow) == {"livez answers in time"}
    kept = {"livez_failures": {"kept connection: TimeoutError": 1}}
    assert judged(**kept, table_is_full=True) == {"livez answers in time"}
