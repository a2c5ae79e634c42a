"""What the routes of one server share."""

from dataclasses import dataclass
from typing import Self, cast

from starlette.requests import Request

from tamis.observability.metrics import Metrics
from tamis.server.body import BodyRoom
from tamis.server.lifespan import ModelLife
from tamis.settings import Settings


@dataclass(frozen=True, slots=True)
class ServerContext:
    """Settings, metrics, the model's life and the room for bodies."""

    settings: Settings
    metrics: Metrics
    life: ModelLife
    bodies: BodyRoom

    @classmethod
    def of(cls, request: Request) -> Self:
        """The context of the server that got a request."""
        return cast("Self", request.app.state.context)
