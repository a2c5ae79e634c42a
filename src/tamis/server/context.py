"""What the routes of one server share."""

import time
from dataclasses import dataclass, field
from typing import Self, cast

from starlette.requests import Request

from tamis.assembly.assembly import Assembly
from tamis.observability.metrics import Metrics
from tamis.relevance.watch import RelevanceWatch
from tamis.server.body import BodyRoom
from tamis.server.keys import KeyFile
from tamis.server.lifespan import ModelLife
from tamis.settings import Settings
from tamis.sharing import FairThread


@dataclass(frozen=True, slots=True)
class ServerContext:
    """What answers are made with, and what is kept of them.

    Attributes:
        parsing: Reads large bodies.
        keys: None where anyone may call.
        started: When, in seconds of `time.monotonic()`.
    """

    settings: Settings
    metrics: Metrics
    life: ModelLife
    bodies: BodyRoom
    parsing: FairThread
    watch: RelevanceWatch
    keys: KeyFile | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def assembly(self) -> Assembly:
        """What answers come from."""
        return self.life.assembly

    @classmethod
    def of(cls, request: Request) -> Self:
        """The context of the server that got a request."""
        return cast("Self", request.app.state.context)
