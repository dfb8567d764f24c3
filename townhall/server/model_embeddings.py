"""Embeddings from the served model itself: the mean of its last hidden states, of length 1."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from townhall.language_model import LanguageModel
from townhall.server.errors import APIError
from townhall.server.slots import Lane, Slot, SlotRequest


@dataclass(frozen=True)
class Embedded:
    """All texts are read: a float32 vector (D,) of length 1 for each, and how many tokens they have together."""

    vectors: Sequence[np.ndarray]
    tokens: int


@dataclass(eq=False)
class EmbeddingWork:
    """A piece of work for the scheduler: reads each text by itself, a pass at a time, in the background lane's slot.

    So it takes no chat's cache, and waits for chats. `emit` gets an `Embedded` at the end.
    """

    texts: Sequence[list[int]]
    emit: Callable[[Any], None]
    deadline: float
    lane: Lane = "background"
    cancelled: bool = False
    done: bool = field(default=False, init=False)

    @property
    def wanted(self) -> SlotRequest:
        """Any cache will do: every text is read from its first token on, so that its vector depends on nothing else."""
        return SlotRequest((), 0, self.lane, once=True)

    def cancel(self) -> None:
        """Stop at the next turn."""
        self.cancelled = True

    def steps(self, llama: LanguageModel, slot: Slot) -> Generator[None, None, None]:
        """Do it; APIError 400 for a model without hidden states."""
        vectors = []
        for ids in self.texts:
            total: Any = 0.0
            for rows in llama.hidden(ids, slot.cache):
                total = total + rows.sum(axis=0, dtype=np.float64)
                yield
            if not np.ndim(total):
                raise APIError(400, "this model makes no embeddings", "model")
            vectors.append(pooled(total))
        self.done = True
        self.emit(Embedded(vectors, sum(map(len, self.texts))))


def pooled(total: np.ndarray) -> np.ndarray:
    """A sum of hidden states as a vector of length 1: the mean's direction is the sum's."""
    norm = float(np.linalg.norm(total))
    unit: np.ndarray = (total / norm if norm > 0 else total).astype(np.float32)
    return unit


def ids_of(llama: LanguageModel, inputs: Sequence[str | list[int]], cut: bool = False) -> list[list[int]]:
    """Each input's ids, BOS as the model has it before texts; APIError 400 for ids that it does not have.

    Texts beyond the window are `cut` at their ends, or refused.
    """
    tokenizer, most = llama.tokenizer, llama.max_context
    found = []
    for text in inputs:
        # a token has at most so many characters that longer texts need not be looked at
        if isinstance(text, str) and len(text) > most * 256 and not cut:
            raise _too_long(len(text) // 256, most)
        ids = tokenizer.encode(text[: most * 256]) if isinstance(text, str) else list(text)
        if wrong := [n for n in ids if not 0 <= n < tokenizer.vocab_size]:
            raise APIError(400, f"input: {wrong[0]} is no token of this model, which has {tokenizer.vocab_size}", "input")
        if len(ids) > most and not cut:
            raise _too_long(len(ids), most)
        found.append(ids[:most])
    return found


def _too_long(tokens: int, most: int) -> APIError:
    said = f"context_length_exceeded: this model's maximum context length is {most} tokens; a text of input has {tokens}, send it in parts"
    return APIError(400, said, "input", "context_length_exceeded")
