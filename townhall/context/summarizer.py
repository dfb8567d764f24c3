"""Summaries of exchanges that leave the window: for each, a note of what the user stated in it."""

import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from townhall.answer import Answer
from townhall.answer_loop import AnswerLoop
from townhall.language_model import LanguageModel, Progress, TokenStream
from townhall.message import Exchange, Memory, Note, messages_of
from townhall.persona import Example, Persona
from townhall.prompt import Prompt
from townhall.template import open_format

# A small model copies well and sums up badly: asked for a summary of a few exchanges it invents a life for its user.
REQUEST = "Copy what this tells about me."
SUMMARIZER = Persona(
    "Scribe",
    "You copy facts.",
    examples=(
        Example(f"Good morning! My car is a red Fiat, it is from 1987.\n\n{REQUEST}", "My car is a red Fiat, it is from 1987."),
        Example(f"Explain the tides to me.\n\n{REQUEST}", "Nothing."),
    ),
)
GRAM = 3  # words
REPEATED = 0.5  # a note of which this share of word triples stands in the persona says what is pinned already
KNOWN = 0.8  # share of a note's words that the user has used; with fewer, it is the model's own invention


class Rejected(Exception):
    """No memory came of it; says why."""


class SummaryInterrupted(Rejected):
    """The summary was interrupted."""


@dataclass(frozen=True)
class Fold:
    """An attempt at a memory: either `memory`, or why there is none."""

    messages: tuple[int, ...]  # ids of those that were to be folded
    memory: Memory | None
    rejected: str | None = None

    def describe(self) -> str:
        """One line for a person."""
        if self.memory:
            return f"context: {len(self.messages)} messages left for a memory, which has {len(self.memory.ids)} tokens now"
        return f"context: no memory was made of {len(self.messages)} messages, {self.rejected}"


class Summarizer:
    """Works in a cache of its own, so that the conversation's stays as it is; the summarizer's instructions stay in it.

    A note is never written anew: a memory that is summed up again and again is a game of Chinese whispers. What the persona said is left
    to itself: it can say so again, and the user's facts must not drown in it.
    """

    def __init__(self, llama: LanguageModel, persona: Persona, format: str, bound: int):
        self.llama, self.bound = llama, bound
        self.prompt = Prompt(open_format(format, SUMMARIZER, llama.tokenizer, think=False), llama.tokenizer)
        self._cache: Any = None
        self._pages = tuple(map(page, (persona, SUMMARIZER)))

    def fold(
        self,
        own: Prompt,
        previous: Memory | None,
        exchanges: Sequence[Exchange],
        stopped: Callable[[], bool],
        on_progress: Progress | None = None,
    ) -> Fold:
        """All the `steps` at once, in its own cache; `stopped` is asked between them, and true ends it without a memory."""
        self._cache = self._cache if self._cache is not None else self.llama.new_cache()
        steps = self.steps(own, previous, exchanges, self._cache)
        shown = -1
        try:
            while True:
                done = next(steps)
                if on_progress and done > shown:
                    on_progress(shown := done, len(exchanges))
                if stopped():
                    steps.throw(SummaryInterrupted("it was interrupted"))
        except StopIteration as end:
            fold: Fold = end.value
            return fold

    def steps(self, own: Prompt, previous: Memory | None, exchanges: Sequence[Exchange], cache: Any) -> Generator[int, None, Fold]:
        """`previous` and a note of each of `exchanges` that stated something, the oldest notes left out beyond the bound.

        Laid out for the prompt `own`. Where no note comes of any of them, there is no new memory. Yields how many exchanges are done, after
        each pass over the model; Interrupted may be thrown in then.
        """
        ids = tuple(message.id for message in messages_of(exchanges))
        notes, reason = list(previous.notes if previous else ()), "nothing was told in them"
        written = False
        for done, exchange in enumerate(exchanges):
            if not (text := without_questions(exchange.user.text)):
                continue
            writing = self._write(own, text, cache)
            try:
                while True:
                    next(writing)
                    yield done
            except StopIteration as end:
                _add(notes, Note(end.value, (exchange.user.id,)))
                written = True
            except SummaryInterrupted as interrupted:
                writing.close()
                return Fold(ids, None, str(interrupted))
            except Rejected as rejected:
                reason = str(rejected)
        if not written:
            return Fold(ids, None, reason)
        while len((memory := own.memory(notes)).ids) > self.bound:
            notes.pop(0)  # each of them fits alone
        return Fold(ids, memory)

    def _write(self, own: Prompt, info: str, cache: Any) -> Generator[None, None, str]:
        """A note that is supported by the exchange and fits alone."""
        ids, room = [*self.prompt.head_ids, *self.prompt.turn_ids(f"{info}\n\n{REQUEST}")], self.bound - len(own.memory(()).ids)
        if room < 1 or len(ids) + room > cache.capacity:
            raise Rejected("they are longer than the model can read at once")
        text = yield from self._answer(ids, room, cache)
        if not re.search(r"\w", text):
            raise Rejected("the model wrote nothing down")
        if len(own.memory([Note(text, ())]).ids) > self.bound:
            raise Rejected(f"it was longer than {self.bound} tokens")
        if any(repeats(text, source) for source in self._pages):
            raise Rejected("it repeated what is pinned")
        if goes_round(text):
            raise Rejected("it went round in circles")
        if invents(text, info):
            raise Rejected("it said what was not told")
        return text

    def _answer(self, ids: list[int], room: int, cache: Any) -> Generator[None, None, str]:
        answer = Answer(self.llama, self.prompt)

        def generate() -> TokenStream:
            # one more than may be kept, so that a text which is too long shows itself
            return self.llama.generate(ids, room + 1, _greedy(), cache=cache, stop_ids=self.prompt.stop_ids)

        loop = AnswerLoop(self.llama, ids, cache, generate, answer)
        steps = loop.steps()
        try:
            for _ in steps:
                if not loop.finish and not answer.stopped:
                    yield
        finally:
            steps.close()
        if loop.finish == "length":
            raise Rejected(f"it was longer than {self.bound} tokens")
        return answer.shown


def _add(notes: list[Note], note: Note) -> None:
    """At the end; what is noted twice stands there once."""
    same = [known for known in notes if known.text == note.text]
    notes[:] = [known for known in notes if known.text != note.text]
    notes.append(Note(note.text, (*(source for known in same for source in known.sources), *note.sources)))


def page(persona: Persona) -> str:
    """All that a persona's head says."""
    return " ".join([persona.instructions, persona.greeting, *(f"{example.user} {example.reply}" for example in persona.examples)])


def without_questions(text: str) -> str:
    """`text` without its questions, which tell nothing."""
    sentences = re.findall(r"[^.!?\n]+[.!?]*|\n", text)
    return "".join(sentence for sentence in sentences if not sentence.endswith("?")).strip()


def invents(text: str, source: str) -> bool:
    """Does `text` say too much that is not in `source`? Words of three letters or more count by their beginning; no number may be new."""
    words, known = _stems(text), set(_stems(source))
    return sum(word in known for word in words) < KNOWN * len(words) or any(word[0].isdigit() and word not in known for word in words)


def goes_round(text: str) -> bool:
    """Has at least half of `text`, in word triples, been said in it before?"""
    grams = _grams(text)
    return len(set(grams)) <= (1 - REPEATED) * len(grams)


def repeats(text: str, source: str) -> bool:
    """Does at least half of `text`, in word triples, stand in `source` too? A shorter text is one such piece."""
    grams, known = _grams(text), " ".join(["", *_words(source), ""])
    return sum(f" {gram} " in known for gram in grams) >= REPEATED * len(grams)


def _stems(text: str) -> list[str]:
    return [word if word[0].isdigit() else word[:4] for word in _words(text) if len(word) > 2 or word[0].isdigit()]


def _grams(text: str) -> list[str]:
    words = _words(text)
    return [" ".join(words[i : i + GRAM]) for i in range(max(1, len(words) - GRAM + 1))]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _greedy() -> Any:
    from app.models.llama import SamplingParams

    return SamplingParams(temperature=0)
