"""Sources: what goes into a prompt beside the conversation, each with a budget, a place and its lines in the receipt.

A source is asked once for its texts in the pinned head, which stay the same in every prompt, and then at each turn for what this turn gets.
A turn's texts are laid into user messages, for every prompt format has those: in front of or behind the words. They stand in one prompt
and not in the history, so the next prompt shares everything with the last one up to the first of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal, Protocol

from townhall.language_model import TextTokenizer
from townhall.persona import Persona

SourceRole = Literal["system", "user", "assistant"]
SourceState = Mapping[str, Any]  # JSON values
SEAM = 4  # tokens that line breaks beside a text may take


class SourceSpot(Enum):
    """Where a text goes; the values are their names in logs and receipts."""

    BEFORE_CHARACTER = "before the character"  # these two in the pinned head
    AFTER_CHARACTER = "after the character"
    AT_DEPTH = "at depth"
    NEWEST = "newest turn"  # in front of its words, behind whatever stands there by its depth


@dataclass(frozen=True)
class SourcePlace:
    """`depth` counts messages from the end, 0 behind the newest; `from_start` from the beginning of the conversation."""

    spot: SourceSpot
    depth: int = 0
    from_start: bool = False

    @property
    def pinned(self) -> bool:
        """Is it in the head?"""
        return self.spot in (SourceSpot.BEFORE_CHARACTER, SourceSpot.AFTER_CHARACTER)

    def describe(self) -> str:
        """For a receipt."""
        if self.spot is not SourceSpot.AT_DEPTH:
            return self.spot.value
        return f"depth {self.depth}" + " from the start" * self.from_start


@dataclass(frozen=True)
class SourceItem:
    """A part of a source's text, or what was passed over: an entry of a lorebook, a passage. `tokens` are counted by itself."""

    label: str
    why: str
    tokens: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)  # more for the receipt, in JSON values

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"label": self.label, "why": self.why, "tokens": self.tokens, **self.details}


@dataclass(frozen=True)
class SourceText:
    """A text as the model reads it, with whatever fence is around it, and what it is made of."""

    source: str
    place: SourcePlace
    text: str
    items: tuple[SourceItem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For a log: all that it takes to put it into the same prompt again."""
        place = {"place": self.place.spot.value, "depth": self.place.depth, "from_start": self.place.from_start}
        return {"source": self.source, **{key: value for key, value in place.items() if value}, "text": self.text}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "SourceText":
        """What `to_json` wrote. KeyError, TypeError or ValueError for anything else."""
        place = SourcePlace(SourceSpot(values["place"]), int(values.get("depth", 0)), bool(values.get("from_start", False)))
        if not isinstance(values["text"], str) or place.depth < 0:
            raise ValueError("a text of a source must be text, at a depth from 0")
        return cls(str(values["source"]), place, values["text"])


@dataclass(frozen=True)
class PromptPart:
    """A line of a receipt; all lines together are the whole prompt."""

    name: str  # "persona", "memory", "history", "turn", "opening", or a source's
    place: str
    tokens: int
    items: tuple[SourceItem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.name, "place": self.place, "tokens": self.tokens, "items": [item.to_json() for item in self.items]}


@dataclass(frozen=True)
class SourceRequest:
    """What a source may go by. `state` is what it returned at the turn before, {} at the first."""

    messages: Sequence[tuple[SourceRole, str]]  # all that was said, oldest first; the last one is to be answered
    budget: int  # tokens of all its texts of this turn
    count: Callable[[str], int]  # tokens of a text
    state: SourceState = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class SourceTurn:
    """What a source gives to one turn. `opening` is what the answer is to begin with."""

    texts: tuple[SourceText, ...] = ()
    state: SourceState = field(default_factory=dict)
    passed_over: tuple[SourceItem, ...] = ()
    opening: str = ""


class PromptSource(Protocol):
    """A new source is one class with these members, handed to `PromptSources`."""

    @property
    def name(self) -> str:
        """How receipts call it; unique among the sources of a conversation."""
        ...

    @property
    def remembers(self) -> bool:
        """Does what it gives hang on its state, so that an API's transcript must be led through it turn by turn?"""
        ...

    def budget(self, capacity: int, count: Callable[[str], int]) -> int:
        """Tokens that its texts of one turn may take of a window of `capacity`; they are kept free for it."""
        ...

    def head(self, count: Callable[[str], int]) -> Sequence[SourceText]:
        """Its texts in the pinned head, asked for when a conversation begins."""
        ...

    def turn(self, request: SourceRequest) -> SourceTurn:
        """Its texts for a turn, of at most `request.budget` tokens, without those of the head. The same request gives the same turn."""
        ...


def bracketed(text: str) -> str:
    """A remark to the model, told from a speaker's words as SillyTavern's users do it."""
    text = text.strip()
    return text if text.startswith("[") and text.endswith("]") else f"[{text}]"


@dataclass(frozen=True)
class NoteSource:
    """One text at a depth in every prompt: an author's note, a reminder, what a card says behind the conversation."""

    name: str
    text: str
    depth: int = 0  # messages from the end; 0 stands behind the newest
    role: SourceRole = "system"
    every: int = 1  # at every so manieth message of the user's
    after: int = 0  # so many of them are without it at the beginning
    speaker: str = ""  # who says it, for the role "assistant"

    remembers = False

    def budget(self, capacity: int, count: Callable[[str], int]) -> int:
        """What it takes, with the seam to the words beside it; a quarter of the window at most."""
        return min(capacity // 4, count(self._said()) + SEAM) if self.text.strip() else 0

    def head(self, count: Callable[[str], int]) -> Sequence[SourceText]:
        """Nothing: it moves along with the conversation."""
        return ()

    def turn(self, request: SourceRequest) -> SourceTurn:
        """The note, where it fits and it is its turn."""
        said = sum(role == "user" for role, _ in request.messages)
        if not self.text.strip() or said <= self.after or said % self.every:
            return SourceTurn()
        text = self._said()
        if (tokens := request.count(text)) > request.budget:
            return SourceTurn(passed_over=(SourceItem(self.name, f"over its budget of {request.budget} tokens", tokens),))
        why = "in every prompt" if self.every == 1 else f"at every {self.every} messages"
        place = SourcePlace(SourceSpot.AT_DEPTH, self.depth)
        return SourceTurn((SourceText(self.name, place, text, (SourceItem(self.name, why, tokens),)),))

    def _said(self) -> str:
        text = bracketed(self.text) if self.role == "system" else self.text.strip()
        return f"{self.speaker}: {text}" if self.role == "assistant" and self.speaker else text


@dataclass(frozen=True)
class GatheredSources:
    """What all sources give to one turn."""

    texts: tuple[SourceText, ...] = ()
    states: Mapping[str, SourceState] = field(default_factory=dict)  # by the sources' names
    passed_over: tuple[SourceItem, ...] = ()
    opening: str = ""


class PromptSources:
    """The sources of a conversation, in the order in which their texts stand where they meet.

    `head` are the pinned texts. With `beside` there are no sources: a log is repeated, which says what head they gave and how many tokens
    they kept free.
    """

    def __init__(
        self,
        sources: Sequence[PromptSource],
        tokenizer: TextTokenizer,
        head: Sequence[SourceText] | None = None,
        beside: int | None = None,
    ):
        self.sources, self._tokenizer, self._beside = tuple(sources), tokenizer, beside
        texts = head if head is not None else [text for source in self.sources for text in source.head(self.count)]
        self.head = tuple(text for text in texts if text.text.strip())

    def adding(self, more: Sequence[PromptSource]) -> "PromptSources":
        """These sources and more behind them; the head is not asked for again."""
        if not more:
            return self
        return PromptSources(
            (*self.sources, *more), self._tokenizer, [*self.head, *(text for one in more for text in one.head(self.count))]
        )

    def instead(self, name: str, other: PromptSource | None) -> "PromptSources":
        """`other` in the place of the source of that name, in front where there is none; neither has texts in the head."""
        kept = [source for source in self.sources if source.name != name]
        at = next((at for at, source in enumerate(self.sources) if source.name == name), 0)
        return PromptSources([*kept[:at], *([other] if other else []), *kept[at:]], self._tokenizer, self.head, self._beside)

    def count(self, text: str) -> int:
        """Tokens of a text by itself."""
        return len(self._tokenizer.encode(text, bos=False, special=False)) if text else 0

    def persona(self, persona: Persona) -> Persona:
        """With the head's texts around its description."""
        spots = (SourceSpot.BEFORE_CHARACTER, SourceSpot.AFTER_CHARACTER)
        before, after = ("\n".join(text.text for text in self.head if text.place.spot is spot) for spot in spots)
        if not before and not after:
            return persona
        return replace(persona, description="\n".join(filter(None, (before, persona.instructions, after))), style="")

    def beside(self, capacity: int, free: int) -> int:
        """Tokens of a window to keep for the texts of a turn, when `free` are left beside head and answer: at most half of those."""
        wanted = sum(self._wishes(capacity)) if self._beside is None else self._beside
        return max(0, min(wanted, free // 2))

    def gather(
        self,
        messages: Sequence[tuple[SourceRole, str]],
        states: Mapping[str, SourceState],
        seed: int,
        capacity: int,
        beside: int,
        remembering: bool = False,
    ) -> GatheredSources:
        """Every source's texts for the last of `messages`, each within its share of the `beside` tokens that a window keeps for them.

        With `remembering`, only of those that go by what they gave before.
        """
        turns = {
            source.name: source.turn(SourceRequest(messages, budget, self.count, states.get(source.name, {}), seed))
            for source, budget in zip(self.sources, shares(self._wishes(capacity), beside), strict=True)
            if source.remembers or not remembering
        }
        return GatheredSources(
            tuple(text for turn in turns.values() for text in turn.texts if text.text.strip()),
            {name: turn.state for name, turn in turns.items() if turn.state},
            tuple(item for turn in turns.values() for item in turn.passed_over),
            next((turn.opening for turn in turns.values() if turn.opening), ""),
        )

    def states(self, messages: Sequence[tuple[SourceRole, str]], seed: int, capacity: int, beside: int) -> Mapping[str, SourceState]:
        """What the sources remember before the last of `messages`, the others having been said one after the other."""
        states: Mapping[str, SourceState] = {}
        if any(source.remembers for source in self.sources):
            for at in range(1, len(messages)):
                if messages[at - 1][0] == "user":
                    states = self.gather(messages[:at], states, seed, capacity, beside, remembering=True).states
        return states

    def note(self, capacity: int) -> dict[str, Any]:
        """For a log, what beside the texts of each turn it takes to build the same prompts again: {} without sources."""
        wanted = sum(self._wishes(capacity)) if self._beside is None else self._beside
        noted = {"beside": wanted, "head": [text.to_json() for text in self.head]}
        return {key: value for key, value in noted.items() if value}

    @classmethod
    def from_note(cls, values: Mapping[str, Any], tokenizer: TextTokenizer) -> "PromptSources":
        """What `note` wrote. KeyError, TypeError or ValueError for anything else."""
        return cls((), tokenizer, [SourceText.from_json(text) for text in values.get("head", ())], int(values.get("beside", 0)))

    def _wishes(self, capacity: int) -> list[int]:
        return [max(0, source.budget(capacity, self.count)) for source in self.sources]


def shares(wishes: Sequence[int], room: int) -> list[int]:
    """`room` divided so that small wishes are met in full and large ones share the rest evenly."""
    given = [0] * len(wishes)
    for left, at in zip(range(len(wishes), 0, -1), sorted(range(len(wishes)), key=lambda at: wishes[at]), strict=True):
        given[at] = min(wishes[at], room // left)
        room -= given[at]
    return given


def described(items: Iterable[SourceItem]) -> str:
    """Labels and reasons in one line."""
    return "; ".join(f"{item.label} ({item.why})" if item.why else item.label for item in items)
