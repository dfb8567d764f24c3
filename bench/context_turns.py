"""Turns of one length under a context strategy: what an ordinary one costs, what one that overflows costs, and whether that lasts.

Also how far a shifted cache is from one that was computed afresh: logits over the same tokens, one against the other.
"""

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama import Llama, SamplingParams
from app.models.llama.kv_cache import KVCache
from ext.tinygrad import buffers
from townhall import Conversation, Persona
from townhall.errors import ContextError


@dataclass
class Drift:
    """Grows by one comparison per token; KL(fresh ‖ held) in nats."""

    agree: list[bool] = field(default_factory=list)
    divergence: list[float] = field(default_factory=list)

    def measure(self, llama: Llama, held: KVCache, last: int) -> None:
        """Compare what `held` says after each of its `last` newest tokens with what a fresh cache of the same tokens says.

        Both take these tokens one by one, so that only what lies before them differs. `held` ends up as it was.
        """
        tokens = list(held.tokens)
        at = max(1, len(tokens) - last)
        fresh = llama.new_cache()
        llama.prefill(tokens[:at], fresh)
        held.truncate(at)
        for token in tokens[at:]:
            ours = _log_softmax(llama.engine.step(token, held))
            theirs = _log_softmax(llama.engine.step(token, fresh))
            self.agree.append(bool(ours.argmax() == theirs.argmax()))
            self.divergence.append(float(np.sum(np.exp(theirs) * (theirs - ours))))

    def figures(self) -> dict[str, Any]:
        """Share of tokens with the same likeliest successor; mean, median and worst divergence."""
        if not self.agree:
            return {"tokens": 0}
        kl = np.array(self.divergence)
        return {
            "tokens": len(self.agree),
            "top1": float(np.mean(self.agree)),
            "kl_mean": float(kl.mean()),
            "kl_median": float(np.median(kl)),
            "kl_max": float(kl.max()),
        }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)  # a copy as well: the engine's own array is overwritten by its next step
    wide -= wide.max()
    return np.asarray(wide - np.log(np.exp(wide).sum()))


QUESTION = "Tell me much, much more about number {n}, please, and leave nothing out of it."
NEVER = frozenset({1 << 30})  # no vocabulary has this id, so every answer takes all of its tokens
TIMED_TURNS, ANSWER = 48, 64  # tokens of an answer: what a persona of the default model says in a typical one
STATM = Path("/proc/self/statm")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class BenchTurn:
    """What one turn took, in seconds: to its first piece of text, to its last, and for what was written down after that."""

    first: float
    whole: float
    after: float
    processor: float  # seconds of all threads up to the last piece: other processes disturb these less
    overflow: bool  # something left the window for it
    tokens: int  # question and answer
    prompt: int
    recomputed: int


def take_turns(llama: Llama, persona: Persona, context: str, answer: int, seed: int = 1) -> Iterator[tuple[Conversation, BenchTurn]]:
    """Turns without end; a refused one is followed by /reset, as `stop` asks for."""
    conversation = Conversation(llama, persona, context=context, sampling=SamplingParams(temperature=0.7, seed=seed), max_tokens=answer)
    conversation.prompt.stop_ids, conversation.prompt.stop = NEVER, ()
    conversation.prepare()
    number = 0
    while True:
        number = (number + 1) % 1000
        text, started, before = QUESTION.format(n=f"{number:03d}"), time.perf_counter(), time.process_time()
        try:
            pieces = conversation.reply(text)
            refused = False
        except ContextError:
            conversation.reset()
            pieces, refused = conversation.reply(text), True
        next(pieces, "")
        first = time.perf_counter() - started
        for _ in pieces:
            pass
        whole, processor = time.perf_counter() - started, time.process_time() - before
        conversation.after_reply()
        after = time.perf_counter() - started - whole
        last = conversation.last
        assert last is not None
        receipt = last.receipt
        tokens = conversation.exchanges[-1].tokens
        overflow = bool(receipt.dropped) or refused
        yield conversation, BenchTurn(first, whole, after, processor, overflow, tokens, last.prompt_tokens, receipt.recomputed_tokens)


def cost(llama: Llama, persona: Persona, context: str, turns: int, progress: Progress) -> dict[str, Any]:
    """Medians over `turns` turns, those that overflow and the others measured alternately, as they come."""
    taken: list[BenchTurn] = []
    for _, turn in take_turns(llama, persona, context, ANSWER):
        taken.append(turn)
        progress(f"{context}: turn {len(taken)} of {turns}")
        if len(taken) == turns:
            break
    # the first turn has nothing before it and the first overflow may still have something to set up: both count all the same
    plain, over = [turn for turn in taken if not turn.overflow], [turn for turn in taken if turn.overflow]
    figures: dict[str, Any] = {
        "turns": turns,
        "overflows": len(over),
        "tokens_per_turn": _median([turn.tokens for turn in taken]),
        "prompt_tokens": _median([turn.prompt for turn in taken]),
        "recomputed_per_overflow": _median([turn.recomputed for turn in over]),
        "ordinary": _seconds(plain),
        "overflow": _seconds(over),
    }
    if plain and over:
        figures["ratio"] = figures["overflow"]["whole"] / figures["ordinary"]["whole"]
        figures["ratio_processor"] = figures["overflow"]["processor"] / figures["ordinary"]["processor"]
        figures["ratio_first"] = figures["overflow"]["first"] / figures["ordinary"]["first"]
    return figures


def soak(llama: Llama, persona: Persona, context: str, tokens: int, answer: int, progress: Progress) -> dict[str, Any]:
    """`tokens` generated tokens in one window, and what was promised of them."""
    taken: list[BenchTurn] = []
    memory: list[float] = []
    generated, heads = 0, set()
    for conversation, turn in take_turns(llama, persona, context, answer):
        taken.append(turn)
        memory.append(resident())
        generated += conversation.last.tokens if conversation.last else 0
        heads.add(head_digest(conversation.cache, conversation.prompt.head_ids))
        progress(f"{context}: {generated} of {tokens} tokens, {memory[-1]:.0f} MB")
        if generated >= tokens:
            break
    plain = [turn for turn in taken if not turn.overflow]
    warm = memory[len(memory) // 5 :]
    return {
        "tokens": generated,
        "turns": len(taken),
        "overflows": len(taken) - len(plain),
        "resident_mb": [round(warm[0], 1), round(max(warm), 1)],
        "resident_growth": max(warm) / warm[0] - 1 if warm[0] else None,
        "last_fifth": _last_fifth([turn.whole for turn in plain]),
        "last_fifth_processor": _last_fifth([turn.processor for turn in plain]),
        "head_identical": len(heads) == 1,
    }


def head_digest(cache: KVCache, head: tuple[int, ...]) -> str:
    """Of the pinned head's ids, keys and values in every layer: the same as long as not a bit of them changes."""
    digest = hashlib.blake2b(np.array(cache.tokens[: len(head)], np.int64).tobytes())
    assert cache.tokens[: len(head)] == list(head)
    for tensor in cache.tensors:
        kv_heads, rows, head_dim = tensor.shape
        values = buffers.read(tensor, np.empty((kv_heads, rows, head_dim), np.uint16 if tensor.dtype.itemsize == 2 else np.uint32))
        digest.update(np.ascontiguousarray(values[:, : len(head)]).data)
    return digest.hexdigest()


def resident() -> float:
    """Megabytes that this process holds; 0 where /proc does not say."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if STATM.exists() else 0.0


def _last_fifth(seconds: list[float]) -> float:
    """The last fifth's median by the first fifth's."""
    fifth = max(1, len(seconds) // 5)
    return statistics.median(seconds[-fifth:]) / statistics.median(seconds[:fifth])


def _seconds(turns: list[BenchTurn]) -> dict[str, float | None]:
    return {name: _median([getattr(turn, name) for turn in turns]) for name in ("first", "whole", "after", "processor")}


def _median(values: list[Any]) -> Any:
    return statistics.median(values) if values else None
