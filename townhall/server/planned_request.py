"""What a planner makes of a request: answers to be made, by whom, and the receipt that goes with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from townhall.context.source import GatheredSources
from townhall.reply import citing
from townhall.server.job import AnswerRequest, RequestFigures
from townhall.server.tools import CallReading
from townhall.via.answering import AnswerQuestion

DROPPED, WARNING = "X-Townhall-Dropped", "X-Townhall-Warning"  # headers of a response


@dataclass(frozen=True)
class PlannedRequest:
    """Answers to generate, and facts about the prompt: `townhall` in the response."""

    runs: Sequence[AnswerRequest]
    info: dict[str, Any]
    model: str  # which one answers
    warning: str = ""
    given: Sequence[int] = ()  # ids of another reply that this one carries on
    gathered: GatheredSources = GatheredSources()  # what sources put into a chat's prompt
    sources: Mapping[str, Any] = field(default_factory=dict)  # and their note for its log
    calls: CallReading | None = None  # how calls of functions are read out of text
    elsewhere: AnswerQuestion | None = None  # what another server's model is asked, where that is to answer
    place: Mapping[str, str] = field(default_factory=dict)  # which model that is, and where
    notes: Sequence[str] = ()  # of the memory that the prompt holds

    @property
    def headers(self) -> dict[str, str]:
        """What was left out of the prompt and what is amiss, for those who read headers."""
        messages, tokens = len(self.info["dropped"]), self.info["dropped_tokens"]
        dropped = {DROPPED: f"messages={messages}, tokens={tokens}"} if tokens else {}
        return dropped | ({WARNING: self.warning} if self.warning else {})

    @property
    def begun(self) -> dict[str, Any]:
        """The receipt before there is an answer: another server's model was not given this prompt, but the same as messages."""
        if not self.elsewhere:
            return dict(self.info)
        return {name: value for name, value in self.info.items() if name != "prompt_sha256"} | {
            "device": self.place["host"],
            "via": dict(self.place),
        }

    def receipt(self, figures: RequestFigures, *texts: str) -> dict[str, Any]:
        """What became of the prompt, which model answered and what that cost, and what the answers cite."""
        found = self.begun if figures.sent else dict(self.info)
        if figures.sent:
            *_, last = figures.sent
            costs = [one.cost for one in figures.sent if one.cost is not None]
            found["sent"] = last.to_json() | ({"cost": sum(costs)} if costs else {}) | {"tokens": figures.completion_tokens}
            found["prompt_tokens"] = last.sent_tokens
        else:
            found |= {"prompt_tokens": figures.prompt_tokens} | ({"away": figures.away} if figures.away else {})
        if "parts" in found:
            found["parts"] = citing(found["parts"], "\n".join(texts))
        return found | {"seeds": list(figures.seeds)}
