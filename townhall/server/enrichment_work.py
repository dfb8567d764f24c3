"""A question rewritten on the engine's thread, for a client that shows it beside the own one."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from townhall.enrich.enricher import Enricher, EnrichmentRequest, Resolved
from townhall.language_model import LanguageModel
from townhall.server.errors import APIError
from townhall.server.job import JobFailed
from townhall.server.slots import Lane, Slot, SlotRequest

LOOK = 0.25  # seconds between two looks whether the client is still there


@dataclass(eq=False)
class EnrichmentWork:
    """A piece of work for the scheduler, in the background lane's slot, so that it takes no chat's cache. `emit` gets a `Resolved`."""

    enricher: Enricher
    asked: EnrichmentRequest
    emit: Callable[[Any], None]
    deadline: float
    lane: Lane = "background"
    cancelled: bool = False
    done: bool = field(default=False, init=False)

    @property
    def wanted(self) -> SlotRequest:
        """The rewriter's instructions."""
        head = self.enricher.prompt.head_ids
        return SlotRequest(head, len(head), self.lane)

    def cancel(self) -> None:
        """Stop at the next turn."""
        self.cancelled = True

    def steps(self, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]:
        """Do it, a pass over the model at a time."""
        resolved: Resolved = yield from self.enricher.steps(self.asked, slot.cache)
        self.done = True
        self.emit(resolved)


async def resolved(events: "asyncio.Queue[Any]", gone: Callable[[], Awaitable[bool]], cancel: Callable[[], object]) -> Resolved:
    """What comes of the work. APIError where it failed, or where the client has `gone`."""
    try:
        while True:
            try:
                async with asyncio.timeout(LOOK):
                    event = await events.get()
            except TimeoutError:
                if await gone():
                    raise APIError(408, "the client went away") from None  # which is not read
                continue
            if isinstance(event, Resolved):
                return event
            raise event.error if isinstance(event, JobFailed) else APIError(500, "the question could not be rewritten")
    finally:
        cancel()
