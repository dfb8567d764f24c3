"""The model writes down what is about to be forgotten: previous memory and evicted exchanges in, a short memory out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from townhall.answer import Answer
from townhall.facade import LanguageModel
from townhall.message import Exchange, Memory, messages_of
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.template import open_format

SCRIBE = Persona(
    "Scribe",
    "You keep notes of a conversation. You write down the names, places, numbers, wishes and decisions that were told, "
    "in one or two short sentences, and nothing else.",
)  # no example: a small model writes the example down instead
REQUEST = "Write down in one or two short sentences what {user} told about himself or herself."
GRAM = 3  # words
REPEATED = 0.5  # a memory of which this share of word triples stands in the persona says what is pinned already


class Rejected(Exception):
    """No memory came of it; says why."""


@dataclass(frozen=True)
class Fold:
    """An attempt at a memory: either `memory`, or why there is none."""

    messages: tuple[int, ...]  # ids of those that were to be folded
    memory: Memory | None
    rejected: str | None = None

    def describe(self) -> str:
        """One line for a person."""
        if self.memory:
            return f"context: {len(self.messages)} messages are now a memory of {len(self.memory.ids)} tokens"
        return f"context: no memory was made of {len(self.messages)} messages, {self.rejected}"


class Scribe:
    """Works in a cache of its own, so that the conversation's stays as it is; the scribe's instructions stay in it."""

    def __init__(self, llama: LanguageModel, persona: Persona, format: str, bound: int):
        self.llama, self.persona, self.bound = llama, persona, bound
        self.prompt = Prompt(open_format(format, SCRIBE, llama.tokenizer), llama.tokenizer)
        self.cache = llama.new_cache()
        self._pages = tuple(map(page, (persona, SCRIBE)))

    def fold(self, own: Prompt, previous: Memory | None, exchanges: Sequence[Exchange], stopped: Callable[[], bool]) -> Fold:
        """A memory of `exchanges` and what was remembered before them, laid out for the prompt `own`."""
        ids = tuple(message.id for message in messages_of(exchanges))
        try:
            return Fold(ids, self._write(own, previous, exchanges, stopped))
        except Rejected as reason:
            return Fold(ids, None, str(reason))

    def _write(self, own: Prompt, previous: Memory | None, exchanges: Sequence[Exchange], stopped: Callable[[], bool]) -> Memory:
        room = self.bound - len(own.memory("", ()).ids)
        ids = self._prompt(previous, exchanges)
        while len(ids) + room > self.cache.capacity and len(exchanges) > 1:
            exchanges = exchanges[1:]
            ids = self._prompt(previous, exchanges)
        if room < 1 or len(ids) + room > self.cache.capacity:
            raise Rejected("they are longer than the model can read at once")
        sources = (*(previous.sources if previous else ()), *(message.id for message in messages_of(exchanges)))
        text = self._answer(ids, room, stopped)
        if not re.search(r"\w", text):
            raise Rejected("the model wrote nothing down")
        memory = own.memory(text, sources)
        if len(memory.ids) > self.bound:
            raise Rejected(f"it was longer than {self.bound} tokens")
        if any(repeats(text, source) for source in self._pages):
            raise Rejected("it repeated what is pinned")
        if goes_round(text):
            raise Rejected("it went round in circles")
        return memory

    def _prompt(self, previous: Memory | None, exchanges: Sequence[Exchange]) -> list[int]:
        lines = [f"Notes so far: {previous.text}"] if previous else []
        for exchange in exchanges:
            lines += [f"{self.persona.user}: {exchange.user.text.strip()}", f"{self.persona.name}: {_opening(exchange.reply.text)}"]
        request = "\n".join([*lines, "", REQUEST.format(user=self.persona.user)])
        return [*self.prompt.head_ids, *self.prompt.turn_ids(request)]

    def _answer(self, ids: list[int], room: int, stopped: Callable[[], bool]) -> str:
        # one more than may be kept, so that a text which is too long shows itself
        generation = self.llama.generate(ids, room + 1, _greedy(), cache=self.cache, stop_ids=self.prompt.stop_ids)
        answer = Answer(self.llama, self.prompt)
        try:
            for token in generation:
                answer.push(token)
                if answer.stopped:
                    break
                if stopped():
                    raise Rejected("it was interrupted")
            else:
                answer.flush()
                if generation.finish_reason == "length":
                    raise Rejected(f"it was longer than {self.bound} tokens")
        finally:
            generation.close()
        return answer.shown


def page(persona: Persona) -> str:
    """All that a persona's head says."""
    return " ".join([persona.instructions, persona.greeting, *(f"{example.user} {example.reply}" for example in persona.examples)])


def goes_round(text: str) -> bool:
    """Has at least half of `text`, in word triples, been said in it before?"""
    grams = _grams(text)
    return len(set(grams)) <= (1 - REPEATED) * len(grams)


def repeats(text: str, source: str) -> bool:
    """Does at least half of `text`, in word triples, stand in `source` too? A shorter text is one such piece."""
    grams, known = _grams(text), " ".join(["", *_words(source), ""])
    return sum(f" {gram} " in known for gram in grams) >= REPEATED * len(grams)


def _grams(text: str) -> list[str]:
    words = _words(text)
    return [" ".join(words[i : i + GRAM]) for i in range(max(1, len(words) - GRAM + 1))]


def _opening(text: str) -> str:
    """An answer's first sentence: the model knows by itself what it goes on to say, and what the user told must not drown in it."""
    return re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _greedy() -> Any:
    from app.models.llama import Sampling

    return Sampling(temperature=0, repeat_penalty=1.1)
