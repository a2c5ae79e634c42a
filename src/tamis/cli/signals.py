"""What signals do to `tamis serve`: some end it in order, one reads the keys, and none at once."""

import signal

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
IGNORED = (
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO),
)
"""Those that end a process unless it says otherwise. SIGHUP reads the keys where there are any."""


def ignore_others() -> None:
    """Let no other signal end the process; workers inherit that."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
