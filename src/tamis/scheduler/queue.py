"""Jobs waiting for the model, shared out fairly: plain data, no await, no clock."""

from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import chain, islice
from math import inf

from tamis.errors import QueueFullError, RequestTooLargeError
from tamis.scheduler.jobs import Batch, Entry, Job, Terms
from tamis.sharing import SharedRoom

_MOST_TURNS_A_BATCH = 16
"""Flows among which a batch is divided; of more each gets as much, and some wait for the next."""
_MOST_PASSED_OVER = 64
"""Flows whose next pair is too long for the room that a batch has left, until no more are asked."""


@dataclass(slots=True, eq=False)
class _Level:
    """The jobs of one caller and priority, the one whose turn is next first.

    Attributes:
        n_tokens: Of all their waiting pairs, kept as they come and go: nobody has to add them up.
    """

    jobs: dict[Job, None] = field(default_factory=dict[Job, None])
    n_tokens: int = 0

    def add(self, job: Job) -> None:
        self.jobs[job] = None
        self.n_tokens += job.n_waiting_tokens

    def remove(self, job: Job) -> None:
        del self.jobs[job]
        self.n_tokens -= job.n_waiting_tokens


@dataclass(slots=True, eq=False)
class _Flow:
    """The jobs of one caller, by priority and then in turn.

    Attributes:
        name: The caller's.
        levels: Those with waiting pairs, by priority; none is empty.
        n_jobs: In all levels together.
        n_tokens: Of all their waiting pairs.
        deficit: Tokens it may still take in this turn, and carries over to the next.
        in_turn: Whether its turn has begun and is not over.
    """

    name: str
    levels: dict[int, _Level] = field(default_factory=dict[int, _Level])
    n_jobs: int = 0
    n_tokens: int = 0
    deficit: int = 0
    in_turn: bool = False

    def add(self, job: Job) -> None:
        self.levels.setdefault(job.terms.priority, _Level()).add(job)
        self.n_jobs += 1
        self.n_tokens += job.n_waiting_tokens

    def remove(self, job: Job) -> None:
        """Take out a job, if it is here."""
        level = self.levels.get(job.terms.priority)
        if level is not None and job in level.jobs:
            level.remove(job)
            self.n_jobs -= 1
            self.n_tokens -= job.n_waiting_tokens
            if not level.jobs:
                del self.levels[job.terms.priority]

    def fill(self, entries: list[Entry], room: int, share: int, now: float) -> int:
        """Move pairs into a batch while deficit and room allow; returns the room that is left.

        A job that got its share goes behind its equals; one that room or deficit stopped before
        keeps its place, and smaller ones pass. One whose next pair exceeds the deficit ends the
        flow's turn, so that the deficit can grow to it. One whose deadline has come is dropped.
        """
        for job in self._first(room):
            if job.terms.deadline <= now:
                self.remove(job)
                job.take_nothing_more()
                job.is_wanted = False
                continue
            room = self._take(job, entries, room, share)
            if job.waiting and job.next_tokens > self.deficit:
                self.in_turn = False
                break
            if room <= 0:
                break
        return room

    def _take(self, job: Job, entries: list[Entry], room: int, share: int) -> int:
        """Move pairs of one job into a batch; returns the room that is left."""
        level = self.levels[job.terms.priority]
        n_before, n_waiting = len(entries), job.n_waiting_tokens
        while job.waiting and self._fits(job.next_tokens, entries, room):
            room -= job.next_tokens
            self.deficit -= job.next_tokens
            job.turn_tokens += job.next_tokens
            entries.append((job, job.take_next()))
        level.n_tokens -= n_waiting - job.n_waiting_tokens
        self.n_tokens -= n_waiting - job.n_waiting_tokens
        if not job.waiting:
            self.remove(job)
        elif len(entries) > n_before and job.turn_tokens + job.next_tokens > share:
            job.turn_tokens = 0
            del level.jobs[job]
            level.jobs[job] = None
        return room

    def _first(self, n_jobs: int) -> list[Job]:
        """The jobs whose turn is next, at most this many: each takes a token of a batch or more."""
        in_order = (self.levels[priority].jobs for priority in sorted(self.levels))
        return list(islice(chain.from_iterable(in_order), n_jobs))

    def _fits(self, n_tokens: int, entries: Collection[Entry], room: int) -> bool:
        return n_tokens <= self.deficit and (n_tokens <= room or not entries)


class _Totals:
    """What all flows have waiting, kept as it changes: nobody has to ask every flow.

    Attributes:
        n_jobs: Of all flows.
    """

    def __init__(self) -> None:
        self.n_jobs = 0
        self._counted: dict[_Flow, tuple[int, int]] = {}
        self._n_flows: Counter[int] = Counter()
        self._n_tokens: Counter[int] = Counter()

    def count(self, flow: _Flow) -> None:
        """Take in how a flow is now; called after each change of it."""
        now, before = (flow.n_jobs, flow.n_tokens), self._counted.get(flow, (0, 0))
        if now == before:
            return
        for (n_jobs, n_tokens), sign in ((before, -1), (now, 1)):
            self.n_jobs += sign * n_jobs
            self._n_tokens[n_tokens.bit_length()] += sign * n_tokens
            self._n_flows[n_tokens.bit_length()] += sign * bool(n_jobs)
        if flow.n_jobs:
            self._counted[flow] = now
        else:
            del self._counted[flow]

    def tokens_up_to(self, n_each: int) -> int:
        """Tokens of all flows, counting at most `n_each` per flow: up to twice too high.

        Flows are counted by the binary digits of their tokens.
        """
        return sum(
            min(self._n_tokens[n_digits], n_each * n_flows)
            for n_digits, n_flows in self._n_flows.items()
        )


class PairQueue:
    """Jobs of many callers, bounded in tokens, served by deficit round robin.

    Each caller's jobs are a flow, which in its turn may take its share of a batch, and carries over
    what it could not use (Shreedhar and Varghese, SIGCOMM 1995). Within a flow the jobs of the
    lowest priority number take turns: a small job waits for one batch of a large one, not for all
    of it.

    A flow gets no less in a turn than a sixteenth of a batch, or than the longest pair needs: with
    thousands of flows a turn that is too small for any pair would be all that a round gives.

    Args:
        max_tokens: Tokens of all jobs, waiting or running; callers share them as a `SharedRoom`.
    """

    def __init__(self, *, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._turns: deque[_Flow] = deque()
        self._waiting: dict[str, _Flow] = {}
        self._room = SharedRoom(max_tokens)
        self._totals = _Totals()
        self._longest = 0  # pair of any job since nothing was waiting

    @property
    def n_tokens(self) -> int:
        """Tokens admitted and not yet released: waiting or running."""
        return self._room.n_held

    @property
    def n_jobs(self) -> int:
        """Jobs with pairs that no batch has taken."""
        return self._totals.n_jobs

    def tokens_before(self, job: Job) -> int:
        """Waiting tokens computed before a job that came now would be done, as turns go; at most.

        Meanwhile every other flow, and every equal of its own, gets as much as it does.
        """
        own, n_before = job.n_tokens, self._totals.tokens_up_to(job.n_tokens)
        flow = self._waiting.get(job.terms.caller)
        if flow is None:
            return n_before
        n_before -= min(own, flow.n_tokens)
        for priority, level in flow.levels.items():
            if priority < job.terms.priority:
                n_before += level.n_tokens
            elif priority == job.terms.priority:
                n_before += min(own * len(level.jobs), level.n_tokens)
        return n_before

    def require_room(self, n_tokens: int, terms: Terms) -> None:
        """Refuse what there is no room for on a caller's terms.

        Raises:
            QueueFullError: there is none now; it says by how many tokens.
            RequestTooLargeError: there never is, for this number of tokens.
        """
        own = terms.max_caller_tokens
        limit = self._max_tokens if own is None else min(self._max_tokens, own)
        if n_tokens > limit:
            raise RequestTooLargeError(
                f"the request has {n_tokens:,} tokens, at most {limit:,} may wait; "
                "split the request"
            )
        n_missing = self._room.shortage(terms.caller, n_tokens)
        if n_missing:
            raise _queue_full(self._room.n_held, n_tokens, self._max_tokens, n_missing)
        n_of_caller = self._room.held_by(terms.caller)
        n_missing = n_of_caller + n_tokens - limit
        if n_missing > 0:
            raise _queue_full(n_of_caller, n_tokens, limit, n_missing, " of this key")

    def add(self, job: Job) -> None:
        """Admit a job; whether there is room is `require_room`'s to say."""
        self._room.add(job.terms.caller, job.n_tokens)
        if job.waiting:
            flow = self._waiting.get(job.terms.caller)
            if flow is None:
                flow = self._waiting[job.terms.caller] = _Flow(job.terms.caller)
                self._turns.append(flow)
            self._longest = max(self._longest, job.next_tokens)
            flow.add(job)
            self._totals.count(flow)

    def remove(self, job: Job) -> None:
        """Take out a job's waiting pairs and release its tokens; called once for each job."""
        self._room.add(job.terms.caller, -job.n_tokens)
        self.drop(job)

    def drop(self, job: Job) -> None:
        """Take out a job's waiting pairs; a batch that runs goes on, but is not tried again."""
        job.is_wanted = False
        flow = self._waiting.get(job.terms.caller)
        if flow is not None:
            flow.remove(job)
            self._totals.count(flow)
            if not flow.levels:
                self._forget(flow)
        job.take_nothing_more()

    def take(self, max_tokens: int, now: float = -inf) -> Batch | None:
        """The next batch, at most `max_tokens` (a longer pair goes alone); None when empty.

        Jobs whose deadline is `now` or before are dropped where their turn comes.
        """
        entries: list[Entry] = []
        room = max_tokens
        suspended: list[_Flow] = []
        share = max(1, max_tokens // max(1, len(self._turns)))
        quantum = max(share, min(self._longest, max_tokens // _MOST_TURNS_A_BATCH))
        while self._turns and room > 0 and len(suspended) < _MOST_PASSED_OVER:
            flow = self._turns.popleft()
            if not flow.in_turn:
                flow.in_turn = True
                flow.deficit += quantum
            room = flow.fill(entries, room, share, now)
            self._totals.count(flow)
            if not flow.levels:
                del self._waiting[flow.name]
            elif flow.in_turn:
                suspended.append(flow)  # room is all it wants: its turn goes on in the next batch
            else:
                self._turns.append(flow)
        self._turns.extendleft(reversed(suspended))
        if not self._turns:
            self._longest = 0
        return Batch(tuple(entries)) if entries else None

    def _forget(self, flow: _Flow) -> None:
        """A flow without waiting pairs keeps no claim."""
        self._turns.remove(self._waiting.pop(flow.name))


def _queue_full(
    n_held: int, n_more: int, limit: int, n_missing: int, whose: str = ""
) -> QueueFullError:
    return QueueFullError(
        f"{n_held:,} tokens{whose} are waiting or running and {n_more:,} more came, "
        f"at most {limit:,} may; try again later",
        n_tokens_over=n_missing,
    )
