"""`tamis serve` on doubles, as a process of its own: each batch may leak, and take its time."""

import argparse
import threading
from collections.abc import Sequence

from tamis.cli.serve import run
from tamis.engine.pairs import EncodedPair
from tamis.settings import load_settings
from tests.faults.doubles import FaultyBackend, model_on


class LeakingBackend(FaultyBackend):
    """Keeps so many bytes for each batch, and not the batches themselves."""

    def __init__(self, n_bytes: int, seconds: float) -> None:
        super().__init__(self._leak)
        self._n_bytes = n_bytes
        self._seconds = seconds
        self._leaked: list[bytes] = []

    def _leak(self, _: Sequence[EncodedPair]) -> None:
        self.batches.clear()
        if self._n_bytes:
            self._leaked.append(b"x" * self._n_bytes)
        threading.Event().wait(self._seconds)  # faketime refuses a `time.sleep`


def main() -> None:
    """Serve on the port that the system gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leak-bytes", type=int, default=0)
    parser.add_argument("--batch-seconds", type=float, default=0.0)
    options, others = parser.parse_known_args()
    model = model_on(LeakingBackend(options.leak_bytes, options.batch_seconds))
    run(load_settings(others), load=lambda _: model)


if __name__ == "__main__":
    main()
