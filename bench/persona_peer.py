"""The chats of `bench/persona.py` through llama.cpp's server: the same prompts, as ids, and its own sampler chain, set alike."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from app.models.llama.checkpoint import open_checkpoint
from bench.persona_figures import SaidReply
from bench.served import llama_server

if TYPE_CHECKING:
    from bench.persona import Setup, Talk

CONTEXT, SLOTS = 1024, 4
# of the settings, those that both know; llama.cpp's server applies them in this order, as Townhall does
CHAIN = ["penalties", "top_k", "top_p", "min_p", "temperature"]
SAME = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n")


def hold(
    path: Path,
    binary: Path,
    begin: Callable[[], bool],
    setup: "Setup",
    talks: "Sequence[Talk]",
    over: "Callable[[Talk, list[SaidReply]], None]",
) -> None:
    """Hold these chats, a few side by side; an exception of one of them is raised at the end."""
    left: queue.SimpleQueue[Talk] = queue.SimpleQueue()
    for talk in talks:
        left.put(talk)
    tokenizer, errors = open_checkpoint(path).tokenizer(), list[BaseException]()

    def seat(url: str, slot: int) -> None:
        try:
            model: Any = PeerModel(tokenizer, url, slot)
            while begin() and not errors:
                try:
                    talk = left.get_nowait()
                except queue.Empty:
                    return
                over(talk, talk.hold(setup.conversation(model, talk.persona)))
        except BaseException as error:
            errors.append(error)

    with llama_server(binary, path, SLOTS, CONTEXT) as served:
        threads = [threading.Thread(target=seat, args=(served.url.removesuffix("/v1"), slot)) for slot in range(SLOTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


@dataclass
class PeerCache:
    """What of a conversation the peer has read is its own affair."""

    capacity: int = CONTEXT
    tokens: list[int] = field(default_factory=list)
    identity: dict[str, str] = field(default_factory=dict)

    def reachable(self, n: int) -> int:
        """Nothing is kept that could be gone on from, or not."""
        return n

    def prepare_remove(self) -> None:
        """Nothing is removed."""


class PeerModel:
    """A slot of llama.cpp's server as a language model of ours, with the file's tokenizer as Townhall reads it."""

    device, max_context = "llama.cpp", CONTEXT

    def __init__(self, tokenizer: Any, url: str, slot: int):
        self.tokenizer, self._slot = tokenizer, slot
        self._http = httpx.Client(base_url=url, timeout=600)

    def new_cache(self) -> PeerCache:
        """For one conversation."""
        return PeerCache()

    def pass_tokens(self, tokens: int, cache: PeerCache) -> int:
        """The peer reads a prompt when it answers."""
        return tokens

    def prefill(self, ids: list[int], cache: PeerCache, on_progress: Any = None) -> Any:
        """As above."""

    def score(self, ids: list[int], cache: PeerCache) -> Iterator[Any]:
        """Not used here."""
        return iter(())

    def hidden(self, ids: list[int], cache: PeerCache) -> Iterator[Any]:
        """Not used here."""
        return iter(())

    def generate(
        self, ids: list[int], max_tokens: int, sampling: Any = None, cache: Any = None, stop_ids: frozenset[int] | None = None
    ) -> "PeerStream":
        """Sampled as the same settings have it there."""
        drawn = {name: getattr(sampling, name) for name in SAME}
        room = min(max_tokens, CONTEXT - len(ids))
        body = {"prompt": ids, "n_predict": room, "seed": sampling.seed, "samplers": CHAIN, "id_slot": self._slot, **drawn}
        # a stream would leave out the ids of characters that are not whole yet
        answer = self._http.post("/completion", json=body | {"return_tokens": True, "cache_prompt": True})
        answer.raise_for_status()
        return PeerStream(answer.json()["tokens"], room, stop_ids or self.tokenizer.stop_ids)


class PeerStream(Iterator[int]):
    """Ids up to a stop id, or as many as there may be."""

    cached_tokens, upcoming = 0, None
    prefill_seconds = decode_seconds = shared_seconds = 0.0

    def __init__(self, ids: Sequence[int], room: int, stop_ids: frozenset[int]):
        self._ids, self._whole, self._stop_ids = iter(ids), len(ids) < room, stop_ids
        self.finish_reason: str | None = None

    def __next__(self) -> int:
        token = next(self._ids, None) if self.finish_reason is None else None
        if token is None or token in self._stop_ids:
            # the server ends before its bound at an end token only, which it may leave out
            self.finish_reason = self.finish_reason or ("stop" if token is not None or self._whole else "length")
            raise StopIteration
        return token

    def force(self, ids: Sequence[int]) -> None:
        """Personas without thoughts have nothing to force."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is left to do."""
