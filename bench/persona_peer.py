"""The chats of `bench/persona.py` through llama.cpp: the same prompts, rendered by Townhall, and llama-cpp-python's own sampler chain.

In a process of its own: two runtimes with their threads in one are no fair witness.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.models.llama.checkpoint import open_checkpoint
from bench.persona_figures import SaidReply

if TYPE_CHECKING:
    from bench.persona import Setup, Talk

CONTEXT = 1024


def hold(
    path: Path, begin: Callable[[], bool], setup: "Setup", talks: "Sequence[Talk]", over: "Callable[[Talk, list[SaidReply]], None]"
) -> None:
    """Hold these chats, one after another."""
    with multiprocessing.get_context("spawn").Pool(1, _open, (path,)) as pool:
        for talk in talks:
            if not begin():
                return
            over(talk, pool.apply(_held, (setup, talk)))


_peer: "PeerModel | None" = None  # of the process


def _open(path: Path) -> None:
    global _peer
    _peer = PeerModel(path)


def _held(setup: "Setup", talk: "Talk") -> list[SaidReply]:
    assert _peer
    return talk.hold(setup.conversation(_peer, talk.persona))


@dataclass
class PeerCache:
    """What of a conversation the peer has read is its own affair."""

    capacity: int = CONTEXT
    tokens: list[int] = field(default_factory=list)
    identity: dict[str, str] = field(default_factory=dict)

    def prepare_remove(self) -> None:
        """Nothing is removed."""


class PeerModel:
    """llama.cpp as a language model of ours, with the file's tokenizer as Townhall reads it."""

    device, max_context = "llama.cpp", CONTEXT

    def __init__(self, path: Path):
        import llama_cpp

        self.tokenizer: Any = open_checkpoint(path).tokenizer()
        self._peer = llama_cpp.Llama(str(path), n_ctx=CONTEXT, verbose=False)

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
        self._peer.set_seed(sampling.seed)
        drawn = self._peer.generate(
            ids, top_k=sampling.top_k, top_p=sampling.top_p, min_p=sampling.min_p, temp=sampling.temperature,
            repeat_penalty=sampling.repeat_penalty,
        )  # fmt: skip
        room = min(max_tokens, CONTEXT - len(ids))
        return PeerStream(drawn, room, stop_ids or self.tokenizer.stop_ids)


class PeerStream(Iterator[int]):
    """Ids up to a stop id, or as many as there may be."""

    cached_tokens, upcoming = 0, None
    prefill_seconds = decode_seconds = shared_seconds = 0.0

    def __init__(self, drawn: Iterator[int], room: int, stop_ids: frozenset[int]):
        self._drawn, self._room, self._stop_ids = drawn, room, stop_ids
        self.finish_reason: str | None = None

    def __next__(self) -> int:
        if self.finish_reason or self._room == 0:
            self.finish_reason = self.finish_reason or "length"
            raise StopIteration
        token, self._room = int(next(self._drawn)), self._room - 1
        if token in self._stop_ids:
            self.finish_reason = "stop"
            raise StopIteration
        return token

    def force(self, ids: Sequence[int]) -> None:
        """Personas without thoughts have nothing to force."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is left to do."""
