"""docs/hostile.md, from the saved result of benchmarks/hostile."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent.parent / "benchmarks" / "results" / "hostile.json"

HEAD = """# Under attack

Printed by `python -m docs.generate` from `benchmarks/results/hostile.json`, which
`python -m benchmarks.hostile` writes. {honest_callers} honest callers with two keys send
{honest_requests_per_second:.1f} requests a second of {documents_per_request} short documents to
tamis-mini, {load:.0%} of what the server can do. First they are alone, then an attacker runs next
to them, one attack after another, {seconds_per_attack:g} s each. The attacker has a third key, or
none.

Machine: {processor}, {cores} cores, tamis {tamis} at commit {commit}. The model computes with one
thread, nothing is cached, and the server may open {max_descriptors} descriptors.

The callers, the attacker and the server share the machine. The attacker's process has the lowest
priority (nice 19) and sends at a bounded rate, so that the figures show how the server shares
itself out. The column *attacker's CPU* is what it took all the same.

## Bars

| | bar |
|---|---|
| p99 of honest requests | {times:g} × quiet + one batch ({batch_ms:.0f} ms) = {bound_ms:,.0f} ms |
| honest requests that are refused, lost or not answered | 0 |
| slowest `/livez` | {livez_ms:.0f} ms |
| resident memory | quiet + {added:.0f} MiB |
| log | {log:.1f} MB a minute |
| answers with status 500, to anyone | 0 |
| server | ready afterwards |

A request's time runs from the moment at which it was due, so that a caller who is held up counts
for the requests that it could not send. `/livez` is asked ten times a second on a kept connection
and on new ones. While an attacker holds every connection that there may be, only the kept one
counts.

## Measured

"""
COLUMNS = (
    *("", "p50", "p99", "not answered with 200", "slowest `/livez`", "memory", "log a minute"),
    *("attacker's CPU", "verdict"),
)
REFUSED = "the server refuses the file with exit code 78"
ATTACKS = """
## Attacks

"""


def hostile_page(saved: Mapping[str, Any]) -> str:
    """The page."""
    measured, machine = saved["measured"], saved["environment"]
    quiet, bars = measured["quiet"], measured["bars"]
    times, batch = bars["p99_times_quiet_plus_one_batch"], measured["batch_seconds"]
    told = HEAD.format(
        **measured,
        **{name: machine[name] for name in ("processor", "cores", "commit")},
        tamis=machine["packages"]["tamis"],
        times=times,
        batch_ms=1e3 * batch,
        bound_ms=1e3 * (times * quiet["honest_p99_seconds"] + batch),
        livez_ms=1e3 * bars["livez_seconds"],
        added=bars["added_memory_bytes"] / 2**20,
        log=bars["log_bytes_per_minute"] / 1e6,
    )
    rows = [COLUMNS, ("---",) * len(COLUMNS), _row("quiet", quiet, "")]
    rows += [
        _row(name, found, _verdict(found["holds"])) for name, found in measured["attacks"].items()
    ]
    rows.append(_row("quiet afterwards", measured["quiet_afterwards"], ""))
    table = "".join("| " + " | ".join(row) + " |\n" for row in rows).replace(" --- ", "---")
    attacks = "".join(
        f"- **{name}**: {found['what']}\n" for name, found in measured["attacks"].items()
    )
    return told + table + ATTACKS + attacks


def _row(name: str, found: Mapping[str, Any], verdict: str) -> tuple[str, ...]:
    if "exit_code" in found:  # the server did not start
        return (name, *[""] * 7, verdict)
    not_answered = {key: n for key, n in found["honest_outcomes"].items() if key != "200"}
    livez = max(found["livez_max_seconds"], found["livez_max_seconds_new_connections"])
    if found.get("table_is_full"):
        livez = found["livez_max_seconds"]
    return (
        name,
        f"{1e3 * found['honest_p50_seconds']:,.0f} ms",
        f"{1e3 * found['honest_p99_seconds']:,.0f} ms",
        ", ".join(f"{n} {key}" for key, n in not_answered.items()) or "0",
        f"{1e3 * livez:,.0f} ms",
        f"{found['memory_max_bytes'] / 2**20:,.0f} MiB",
        f"{found['log_bytes_per_minute'] / 1e6:.2f} MB",
        f"{found['attackers_cores']:.2f} cores" if found["attackers_outcomes"] else "",
        verdict,
    )


def _verdict(holds: Mapping[str, bool]) -> str:
    if set(holds) == {REFUSED}:
        return "the server refuses the file" if holds[REFUSED] else "the server did not start"
    missed = [f"missed: {demand}" for demand, held in holds.items() if not held]
    return "; ".join(missed) or "holds"
