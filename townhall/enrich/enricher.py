"""Enrichment: the local model rewrites a question so that it can be understood alone, and facts that matter to it are added.

A small model rewrites badly at times: what rules can resolve they do, and what the model writes passes `rewrite_guard` or is left.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from townhall.answer import Answer
from townhall.answer_loop import AnswerLoop
from townhall.context.source import PromptSource
from townhall.enrich.known_facts import about_me, matching, sentences, statements, wanted_form
from townhall.enrich.references import carried_over, refers, with_members, with_salient
from townhall.enrich.rewrite_guard import fault_of
from townhall.language_model import LanguageModel, TokenStream
from townhall.persona import Example, Persona
from townhall.prompt import Prompt
from townhall.template import open_format

# examples teach a small model what an instruction does not
REWRITER = Persona(
    "B",
    "Rewrite the last question of A so that it can be understood alone.",
    user="A",
    examples=(
        Example("A: Who wrote Hamlet?\nB: Shakespeare wrote Hamlet.\nA: When was he born?", "When was Shakespeare born?"),
        Example("A: What is the capital of Spain?\nB: Madrid is the capital of Spain.\nA: And of Italy?", "What is the capital of Italy?"),
        Example("A: I have a cat called Tom.\nB: How nice!\nA: How old do they get?", "How old do cats get?"),
        Example("A: Name the largest planet.\nB: It is Jupiter.\nA: How many moons does it have?", "How many moons does Jupiter have?"),
    ),
)
SEEN, CLIPPED = 4, 300  # newest messages that the model sees, and characters of each
MOST_TOKENS = 64  # of a question


@dataclass(frozen=True)
class Enrichment:
    """`text` is offered for the question `own`; where nothing is, they are the same, and `reason` says why.

    It is made of `question`, which holds no references, of facts in brackets, and of the form that is wanted.
    """

    own: str
    text: str
    question: str
    reason: str = ""
    facts: tuple[str, ...] = ()
    form: str = ""
    tokens: int = 0  # sampled for it

    @property
    def changed(self) -> bool:
        return self.text != self.own

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**vars(self), "facts": list(self.facts), "reason": self.reason or None, "changed": self.changed}


@dataclass(frozen=True)
class EnrichmentRequest:
    """`said` is the talk until now, the oldest first; `notes` those of its memory; `search` finds passages of the talk's documents."""

    question: str
    said: Sequence[tuple[str, str]] = ()  # role, text
    notes: Sequence[str] = ()
    search: Callable[[str], Sequence[str]] = lambda question: ()


def searching(sources: Sequence[PromptSource]) -> Callable[[str], Sequence[str]]:
    """What finds passages in the libraries among the sources."""
    from townhall.library.library_source import LibrarySource

    libraries = [source for source in sources if isinstance(source, LibrarySource)]
    return lambda question: [text for library in libraries for text in library.texts(question)]


@dataclass(frozen=True)
class Resolved:
    """A question without references, or as it was, and why; `tokens` were sampled for it."""

    question: str
    reason: str = ""
    tokens: int = 0


class Enricher:
    """Works in a cache that is handed in, so that a conversation's stays as it is."""

    def __init__(self, llama: LanguageModel, format: str = "auto"):
        self.llama = llama
        self.prompt = Prompt(open_format(format, REWRITER, llama.tokenizer, think=False), llama.tokenizer)
        self._cache: Any = None

    def enrich(self, asked: EnrichmentRequest, stopped: Callable[[], bool] = lambda: False) -> Enrichment:
        """All of it at once, in a cache of its own; `stopped` is asked between passes over the model, and true leaves the own question."""
        self._cache = self._cache if self._cache is not None else self.llama.new_cache()
        steps = self.steps(asked, self._cache)
        try:
            while True:
                next(steps)
                if stopped():
                    steps.close()
                    return completed(asked, Resolved(asked.question, "it was stopped"), facts=False)
        except StopIteration as end:
            return completed(asked, end.value)

    def steps(self, asked: EnrichmentRequest, cache: Any) -> Generator[None, None, "Resolved"]:
        """The question without references; yields after each pass over the model."""
        own = asked.question.strip()
        if not refers(own) or not asked.said:
            return Resolved(own, "it can be understood alone")
        return (yield from self._resolve(own, asked.said, cache))

    def _resolve(self, own: str, said: Sequence[tuple[str, str]], cache: Any) -> Generator[None, None, Resolved]:
        texts = [text for _, text in said]
        asked_before = next((text for role, text in reversed(said) if role == "user"), "")
        named = with_members(own, texts)
        if (same := carried_over(named, asked_before)) and not fault_of(own, same, texts):
            return Resolved(same)
        # every word of a member was said, so that what it replaces is all that can be missing
        if named != own and not refers(named):
            return Resolved(named)
        text, tokens = yield from self._written(named, said, cache)
        text = text if text.endswith("?") or not own.endswith("?") else f"{text.rstrip('.!')}?"
        if not (fault := fault_of(named, text, texts)):
            return Resolved(text, "", tokens)
        for ruled in (named, with_salient(named, texts)):  # the rules alone may do it
            if ruled != own and not fault_of(own, ruled, texts):
                return Resolved(ruled, "", tokens)
        return Resolved(own, fault, tokens)

    def _written(self, question: str, said: Sequence[tuple[str, str]], cache: Any) -> Generator[None, None, tuple[str, int]]:
        """What the model writes in its place, and how many tokens it took."""
        lines = [f"{'A' if role == 'user' else 'B'}: {_clipped(text)}" for role, text in said[-SEEN:]]
        ids = [*self.prompt.head_ids, *self.prompt.turn_ids("\n".join((*lines, f"A: {question}")))]
        while len(ids) + MOST_TOKENS > cache.capacity and lines:
            lines.pop(0)
            ids = [*self.prompt.head_ids, *self.prompt.turn_ids("\n".join((*lines, f"A: {question}")))]
        if len(ids) + MOST_TOKENS > cache.capacity:
            return "", 0
        answer = Answer(self.llama, self.prompt)

        def generate() -> TokenStream:
            return self.llama.generate(ids, MOST_TOKENS, _greedy(), cache=cache, stop_ids=self.prompt.stop_ids)

        loop = AnswerLoop(self.llama, ids, cache, generate, answer)
        steps = loop.steps()
        try:
            for _ in steps:
                if "\n" in answer.shown:
                    break
                yield
        finally:
            steps.close()
        first = answer.shown.strip().split("\n")[0].strip()
        return first.removeprefix("A:").removeprefix("B:").strip(), len(answer.ids)


def completed(asked: EnrichmentRequest, resolved: Resolved, facts: bool = True) -> Enrichment:
    """What is offered, with facts of memory, of the user's own statements and of documents that matter to it, and the wanted form."""
    question = resolved.question
    found = _facts(question, asked) if facts else ()
    if question == asked.question.strip() and not found:
        return Enrichment(asked.question, asked.question, question, resolved.reason, tokens=resolved.tokens)
    form = wanted_form(question)
    text = " ".join(filter(None, (question, *(f"({fact})" for fact in found), form)))
    return Enrichment(asked.question, text, question, "", found, form, resolved.tokens)


def _facts(question: str, asked: EnrichmentRequest) -> tuple[str, ...]:
    stated = statements(text for role, text in asked.said if role == "user")
    if about_me(question):
        return tuple(f"I said: {fact}" for fact in matching(question, [*asked.notes, *stated]))
    return tuple(f"My documents say: {fact}" for fact in matching(question, sentences(asked.search(question)), least=2, most=1))


def _clipped(text: str) -> str:
    """A message in one line."""
    line = " ".join(text.split())
    return line if len(line) <= CLIPPED else f"{line[:CLIPPED].rsplit(' ', 1)[0]} …"


def _greedy() -> Any:
    from app.models.llama import SamplingParams

    return SamplingParams(temperature=0)
