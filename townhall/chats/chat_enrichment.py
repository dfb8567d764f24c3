"""A chat's next question, rewritten so that it can be understood alone; the chat stays as it is."""

from collections.abc import Awaitable, Callable
from typing import Any

from townhall.chats.served_chat import ServedChat
from townhall.enrich.enricher import EnrichmentRequest, completed, searching
from townhall.logbook import restore
from townhall.server.errors import APIError
from townhall.server.service import Service


async def enriched(chat: ServedChat, service: Service, text: str, gone: Callable[[], Awaitable[bool]]) -> dict[str, Any]:
    """An EnrichedQuestion. APIError where the character is not served, the queue is full, or the client has `gone`."""
    if (model := chat.model) is None:
        raise APIError(400, "this server does not have the chat's character; set its model to another", "model", "model_not_found")
    served = service.served_models
    pairs, waiting = restore.split(node.turn for node in chat.tree.path())
    said = [one for question, answer in pairs for one in (("user", question.text), ("assistant", answer.text)) if one[1]]
    said += [("user", waiting.text)] if waiting else []
    names = chat.details()["settings"].get("libraries")
    libraries = [str(name) for name in names] if isinstance(names, list) else None
    resolved = await service.resolve(EnrichmentRequest(text, said), gone)
    notes = await chat.notes(text)

    def complete() -> dict[str, Any]:
        """Libraries belong to the planner's thread."""
        sources = served.libraries.instead(served.find(model).sources, libraries)
        return completed(EnrichmentRequest(text, said, notes, searching(sources.sources)), resolved).to_json()

    return await service.plan(lambda planner: complete()) | {"model": service.options.model_id}
