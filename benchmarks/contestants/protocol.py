"""The loop that all contestants share; standard library only, for it runs in every environment."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

Score = Callable[[str, list[str]], Sequence[float]]


def serve(score: Score, packages: Sequence[str]) -> None:
    """Say versions, then answer requests until standard input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # libraries that print must not break the protocol
    print(
        json.dumps({"versions": {name: version(name) for name in packages}}), file=out, flush=True
    )
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        scores = [float(value) for value in score(request["query"], request["documents"])]
        answer = {"seconds": time.perf_counter() - started, "scores": scores}
        print(json.dumps(answer), file=out, flush=True)
