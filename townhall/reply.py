"""The reply to a turn: its text, its figures, and the receipt of what its prompt held and what was left out of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from townhall.context.source import GatheredSources, PromptPart, SourceItem, described

if TYPE_CHECKING:
    from townhall.via.answering import SentFigures


@dataclass(frozen=True)
class Receipt:
    """Tokens, all of them; `dropped` are ids of messages that left the window for this turn.

    The tokens of `parts` add up to `prompt_tokens`; `passed_over` is what sources could have given and did not.
    """

    strategy: str
    window: int
    prompt_tokens: int
    pinned_tokens: int
    dropped: Sequence[int] = ()
    dropped_tokens: int = 0
    recomputed_tokens: int = 0  # computed for an earlier turn already, and again for this one
    memory_tokens: int = 0
    memory_of: Sequence[int] = ()  # ids of the messages that the memory came from
    parts: Sequence[PromptPart] = ()
    passed_over: Sequence[SourceItem] = ()
    sent: "SentFigures | None" = None  # where another server's model answered

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(replace(self, parts=(), passed_over=(), sent=None))
        del plain["sent"]
        plain |= {"sent": self.sent.to_json()} if self.sent else {}
        plain |= {"dropped": list(self.dropped), "memory_of": list(self.memory_of), "parts": [part.to_json() for part in self.parts]}
        passed_over = [item.to_json() for item in self.passed_over]
        return {**plain, "passed_over": passed_over}

    def with_citations(self, text: str) -> "Receipt":
        """Each numbered passage with whether the reply `text` cites it."""
        named = cited_numbers(text)

        def marked(item: SourceItem) -> SourceItem:
            number = item.details.get("number")
            return item if number is None else replace(item, details={**item.details, "cited": number in named})

        return replace(self, parts=tuple(replace(part, items=tuple(map(marked, part.items))) for part in self.parts))

    def cited(self) -> str:
        """Where the passages in the prompt are from, and which the reply does not name by their numbers; "" without any."""
        items = [item for part in self.parts for item in part.items if "file" in item.details]
        return "; ".join(item.label + " (not cited)" * (item.details.get("cited") is False) for item in items)

    def describe_parts(self) -> str:
        """A line for each part of the prompt, with what it is made of and why, and one for what was passed over."""
        lines = [
            f"{part.tokens:>6} {part.name}, {part.place}" + "".join(f"\n         {described([item])}" for item in part.items)
            for part in self.parts
        ]
        again = f", {self.recomputed_tokens} of them read again" if self.recomputed_tokens else ""
        lines.append(f"{self.prompt_tokens:>6} tokens in the last prompt{again}")
        lines += [f"       {self.sent.describe()}"] if self.sent else []
        return "\n".join([*lines, *(f"       passed over: {described([item])}" for item in self.passed_over)])

    def describe(self) -> str | None:
        """One line for a person; None when nothing was dropped."""
        if not self.dropped_tokens:
            return None
        what = f"the {len(self.dropped)} oldest messages" if self.dropped else "the beginning of the prompt"
        again = f", {self.recomputed_tokens} of them read again" if self.recomputed_tokens else ""
        folded = f" for a memory of {self.memory_tokens}" if self.memory_tokens else ""
        return (
            f"context ({self.strategy}): {what} ({self.dropped_tokens} tokens) left the window of {self.window}{folded}; "
            f"the prompt is now {self.prompt_tokens} tokens, {self.pinned_tokens} of them pinned{again}"
        )


def cited_numbers(text: str) -> set[int]:
    """The passages that a reply cites: [2], [1, 2], (2), "passage 2"."""
    return {int(n) for found in _CITED.finditer(text) for n in re.findall(r"[0-9]+", found[0])}


def citing(parts: Sequence[Mapping[str, Any]], text: str) -> list[dict[str, Any]]:
    """Parts of a receipt in JSON values, each numbered passage with whether the reply `text` cites it."""
    named = cited_numbers(text)
    return [
        {**part, "items": [item | ({"cited": item["number"] in named} if "number" in item else {}) for item in part["items"]]}
        for part in parts
    ]


_CITED = re.compile(
    r"\[[0-9]{1,2}(?:\s*[,;]\s*[0-9]{1,2})*\]|\([0-9]{1,2}\)|\bpassages? [0-9]{1,2}\b(?:(?:, | and |, and )[0-9]{1,2}\b)*", re.IGNORECASE
)


@dataclass(frozen=True)
class Reply:
    """`finish_reason` is "stop" (an end token or a stop string), "length" (max_tokens or the window), or "interrupted"."""

    text: str
    tokens: int  # sampled
    prompt_tokens: int
    cached_tokens: int  # of the prompt, already in the KV cache
    finish_reason: str
    prefill_seconds: float
    decode_seconds: float
    device: str
    receipt: Receipt
    reasoning: str = ""  # what the model thought before it
    gathered: GatheredSources = GatheredSources()  # what sources put into its prompt; the receipt says it in short

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(replace(self, gathered=GatheredSources()))
        del plain["gathered"]
        return plain | {"receipt": self.receipt.to_json()}
