"""The models that Ray Serve has deployed, as the front asks them."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RayServeException, RequestCancelledError

from townhall.server.errors import APIError, as_api_error
from townhall.swarm.forwarding import AnswerStart, ForwardedRequest
from townhall.swarm.relay import ReplicaLost
from townhall.swarm.routing_state import STATES, RouteHint, RouterState

APPLICATION = "model-"  # before a model's name
PATIENCE = 10.0  # seconds that a replica has to say how it is


def deployed_models() -> dict[str, Any]:
    """Serve's status of each model by name; those that are being taken down left out."""
    applications = serve.status().applications
    names = (name for name, status in applications.items() if name.startswith(APPLICATION) and status.status != "DELETING")
    return {name.removeprefix(APPLICATION): applications[name] for name in names}


class RayAnswer:
    """An answer under way. The model is asked when the iteration begins."""

    def __init__(self, handle: Any, request: ForwardedRequest, hint: RouteHint, state: Callable[[], RouterState | None]):
        self._handle, self._request, self._hint, self._state = handle, request, hint, state
        self._generator: Any = None
        self._over = False
        self.replica: str | None = None
        self.outcome = "any"

    async def __aiter__(self) -> AsyncIterator[AnswerStart | bytes]:
        self._generator = self._handle.remote(self._request, self._hint)
        try:
            async for piece in self._generator:
                if self.replica is None:
                    self.replica, self.outcome = self._hint.replica, self._hint.outcome
                yield piece
            self._over = True
        except BackPressureError as error:
            raise APIError(429, "all replicas of this model are full; try again later", code="queue_full", retry_after=5) from error
        except (RequestCancelledError, TaskCancelledError) as error:
            raise asyncio.CancelledError from error
        except RayTaskError as error:
            raise as_api_error(error.cause if isinstance(error.cause, Exception) else error) from error
        except (RayActorError, RayError, RayServeException) as error:
            self.replica = self.replica or self._hint.replica
            raise ReplicaLost from error

    async def whole(self, seconds: float) -> bytes:
        """The body of an answer that is small."""
        async with asyncio.timeout(seconds):
            return b"".join([piece async for piece in self if isinstance(piece, bytes)])

    def remember(self, digest: bytes) -> None:
        """The replica holds what this is the digest of."""
        if (state := self._state()) and self.replica:
            state.remember(digest, self.replica)

    def close(self) -> None:
        """Nothing more of it is wanted, or it is complete."""
        if self._generator is not None and not self._over:
            with suppress(Exception):
                self._generator.cancel()
        self._over = True
        if state := self._state():
            state.leave(self._hint)


class RayClient:
    """One model's replicas."""

    def __init__(self, name: str):
        self.name, self._application = name, APPLICATION + name
        handle = serve.get_app_handle(self._application)
        self._ask = handle.options(method_name="ask", stream=True)
        self._describe, self._metrics = handle.options(method_name="describe"), handle.options(method_name="metrics")

    def ask(self, request: ForwardedRequest, digests: list[bytes]) -> RayAnswer:
        """An answer under way."""
        return RayAnswer(self._ask, request, RouteHint(tuple(digests)), self._state)

    async def describe(self) -> list[dict[str, Any]]:
        """What each replica says of itself."""
        return [said for _, said in await self._from_each(self._describe.remote)]

    async def metrics(self) -> list[tuple[str, str]]:
        """(replica, Prometheus' text) of each."""
        return await self._from_each(self._metrics.remote)

    def _state(self) -> RouterState | None:
        return STATES.get(self._application)

    async def _from_each(self, call: Callable[[RouteHint], Awaitable[Any]]) -> list[tuple[str, Any]]:
        if self._state() is None:  # Serve makes the router with the first request
            await self._said(call, RouteHint())
        state = self._state()
        names = list(state.replicas) if state else []
        said = await asyncio.gather(*(self._said(call, RouteHint(to=name)) for name in names))
        return [(name, one) for name, one in zip(names, said) if one is not None]

    async def _said(self, call: Callable[[RouteHint], Awaitable[Any]], hint: RouteHint) -> Any:
        """None where the replica does not answer."""
        # calls of one context share the id by which Serve's routers tell pending calls apart: of two at a time one would wait for ever
        task = asyncio.get_running_loop().create_task(_awaited(call, hint), context=contextvars.Context())
        try:
            return await asyncio.wait_for(task, PATIENCE)
        except (TimeoutError, RayError, RayServeException):
            return None
        finally:
            if hint.to is None and (state := self._state()):
                state.leave(hint)


async def _awaited(call: Callable[[RouteHint], Awaitable[Any]], hint: RouteHint) -> Any:
    return await call(hint)
