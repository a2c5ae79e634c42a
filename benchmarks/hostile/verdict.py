"""What is demanded while an attack runs, and whether it held."""

from typing import Any

import numpy as np

from benchmarks.hostile.attacking import Attacked
from benchmarks.hostile.honest import Seen

P99_TIMES_QUIET = 2.0
"""And one batch more: the attacker's batch that runs when an honest request comes."""
LIVEZ_SECONDS = 0.25
LOG_BYTES_PER_MINUTE = 1_000_000
ADDED_MEMORY_BYTES = 512 * 2**20
"""Above what it has while it is quiet: twice `limits.max_total_body_bytes` by default."""
BARS = {
    "p99_times_quiet_plus_one_batch": P99_TIMES_QUIET,
    "livez_seconds": LIVEZ_SECONDS,
    "log_bytes_per_minute": LOG_BYTES_PER_MINUTE,
    "added_memory_bytes": ADDED_MEMORY_BYTES,
}
NEW_CONNECTIONS = "new connection: "


def measured(seen: Seen, attacked: Attacked, *, log_bytes: int, seconds: float) -> dict[str, Any]:
    """The figures of a phase."""
    p50, p99 = np.percentile(seen.seconds or [0.0], (50, 99))
    return {
        "honest_requests": len(seen.seconds),
        "honest_p50_seconds": round(float(p50), 4),
        "honest_p99_seconds": round(float(p99), 4),
        "honest_outcomes": dict(sorted(seen.outcomes.items())),
        "livez_max_seconds": round(max(seen.livez_seconds, default=0.0), 4),
        "livez_max_seconds_new_connections": round(max(seen.new_livez_seconds, default=0.0), 4),
        "livez_failures": dict(sorted(seen.livez_failures.items())),
        "memory_max_bytes": seen.memory_bytes,
        "log_bytes_per_minute": round(log_bytes * 60 / seconds),
        "attackers_outcomes": dict(sorted(attacked.outcomes.items())),
        "attackers_cores": round(attacked.cores, 3),
        "own_lag_max_seconds": round(seen.lag_seconds, 4),
    }


def holds(
    found: dict[str, Any],
    quiet: dict[str, Any],
    batch_seconds: float,
    *,
    alive: bool,
    table_is_full: bool = False,
) -> dict[str, bool]:
    """Each demand, and whether a phase meets it.

    Args:
        found: Figures of the phase.
        quiet: Figures of the phase without an attack.
        batch_seconds: What a full batch takes.
        alive: Whether the server was ready afterwards.
        table_is_full: The attacker holds all connections that there may be, so that only kept ones
            are asked of.
    """
    bound = P99_TIMES_QUIET * quiet["honest_p99_seconds"] + batch_seconds
    failures = [
        name
        for name in found["livez_failures"]
        if not (table_is_full and name.startswith(NEW_CONNECTIONS))
    ]
    livez = found["livez_max_seconds"]
    if not table_is_full:
        livez = max(livez, found["livez_max_seconds_new_connections"])
    added = found["memory_max_bytes"] - quiet["memory_max_bytes"]
    return {
        "honest p99 within its bound": found["honest_p99_seconds"] <= bound,
        "no honest request refused or lost": set(found["honest_outcomes"]) == {"200"},
        "livez answers in time": livez <= LIVEZ_SECONDS and not failures,
        "memory within its bound": added <= ADDED_MEMORY_BYTES,
        "log within its bound": found["log_bytes_per_minute"] < LOG_BYTES_PER_MINUTE,
        "nobody sees a 500": "500" not in found["attackers_outcomes"],
        "server ready afterwards": alive,
    }
