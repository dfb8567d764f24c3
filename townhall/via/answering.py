"""An answer that another model gives in the local one's place: what that model is asked, and what comes of it."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from townhall.context.source import SourceText
from townhall.context.strategy import WindowPlan
from townhall.message import Exchange, Message, messages_of
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.prompt_builder import BuiltPrompt, laid_in, memory_tokens
from townhall.via.errors import RemoteError

if TYPE_CHECKING:
    from townhall.conversation import Conversation

MOST_STOPS = 4  # of a request, as OpenAI has it
BEGIN = "[Begin your answer with these words: {opening}]"
CARRY_ON = "[Carry on your last answer from exactly where it ends. Repeat nothing of it.]"


@dataclass(frozen=True)
class AnswerQuestion:
    """A prompt as chat messages. The tokens are counted by the local model's tokenizer, in its own prompt format."""

    messages: Sequence[Mapping[str, str]]  # role and content
    max_tokens: int
    sampling: Any = None  # SamplingParams
    stop: Sequence[str] = ()
    sent_tokens: int = 0
    whole_tokens: int = 0  # of the prompt with all that was ever said, and no memory in its place
    carried: str = ""  # the answer's text until now, where it is carried on


@dataclass(frozen=True)
class SentFigures:
    """What a request to another server came to. `server_tokens` of the prompt and `tokens` of the answer are the server's own count."""

    host: str
    model: str
    sent_tokens: int
    whole_tokens: int
    server_tokens: int | None = None
    tokens: int | None = None
    cost: float | None = None  # of prompt and answer; None without a price
    whole_cost: float | None = None  # had the whole history been sent
    currency: str = ""
    total_cost: float | None = None  # of this and all answers before it: of a session, a kept chat, or since a server's start

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not known is left out."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}

    def describe(self) -> str:
        """One line for a person."""
        saved = self.whole_tokens - self.sent_tokens
        less = f" of {self.whole_tokens} ({saved / self.whole_tokens:.0%} less)" if saved > 0 else ""
        counted = f"; the server counted {self.server_tokens}" if self.server_tokens is not None else ""
        unit = f" {self.currency}" if self.currency else ""
        cost = "" if self.cost is None else f"; cost {self.cost:.6f}{unit}"
        if self.cost is not None and self.whole_cost is not None and saved > 0:
            cost += f" in place of {self.whole_cost:.6f}{unit}"
        if self.total_cost is not None and self.total_cost != self.cost:
            cost += f", {self.total_cost:.6f}{unit} in all"
        return f"sent to {self.model} at {self.host}: {self.sent_tokens} tokens{less}{counted}{cost}"


class ArrivingAnswer(Protocol):
    """Iterate it for the answer's text; "" where nothing has come for a moment. `close` ends it, and keeps what came."""

    @property
    def text(self) -> str: ...  # all that was shown
    @property
    def reasoning(self) -> str: ...
    @property
    def finish_reason(self) -> str | None: ...  # "stop" or "length"; None until it is complete
    @property
    def tokens(self) -> int: ...
    @property
    def first_seconds(self) -> float: ...
    @property
    def seconds(self) -> float: ...  # from the first text on
    @property
    def place(self) -> str: ...  # where it comes from
    @property
    def figures(self) -> SentFigures | None: ...
    def new_reasoning(self) -> str: ...
    def __iter__(self) -> Iterator[str]: ...
    def close(self) -> None: ...


class AnsweringModel(Protocol):
    """Who answers. Iterating what it gives raises a RemoteError; with `away` set, the local model answers instead."""

    def answer(self, question: AnswerQuestion) -> ArrivingAnswer: ...


@dataclass
class KeptAnswer:
    """An answer as a log has it, said again."""

    text: str
    reasoning: str = ""
    finish_reason: str | None = "stop"
    tokens: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0
    place: str = "log"
    figures: SentFigures | None = None
    _said: list[str] = field(default_factory=list)

    def answer(self, question: AnswerQuestion) -> "KeptAnswer":
        return self

    def new_reasoning(self) -> str:
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter([self.text])

    def close(self) -> None:
        """There is nothing to end."""


def as_messages(
    prompt: Prompt, persona: Persona, plan: WindowPlan, turn: Message, texts: Sequence[SourceText] = ()
) -> list[dict[str, str]]:
    """The same that a prompt says: who speaks, the examples, a memory, the talk as it was kept, the turn, and what sources put in."""
    plan, turn = laid_in(prompt, plan, turn, texts)
    said: list[tuple[str, str]] = [("system", persona.instructions)]
    for example in persona.examples:
        said += [("user", example.user), ("assistant", example.reply)]
    kept: list[Exchange] = [plan.memory.exchange, *plan.kept] if plan.memory else list(plan.kept)
    said += [(one.role, one.text) for message in (*messages_of(kept), turn) for one in message.laid_out]
    return [{"role": role, "content": text} for role, text in said if text.strip()]


def begun(messages: Sequence[Mapping[str, str]], opening: str, carried: str) -> list[Mapping[str, str]]:
    """`messages` with the wish for an answer that begins with `opening`, or carries on `carried`."""
    if opening and messages:
        return [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}\n\n{BEGIN.format(opening=opening)}"}]
    if carried:
        return [*messages, {"role": "assistant", "content": carried}, {"role": "user", "content": CARRY_ON}]
    return list(messages)


def question_for(conversation: "Conversation", built: BuiltPrompt) -> AnswerQuestion:
    """What a model elsewhere is asked for the turn of `built`."""
    persona, opening = conversation.sources.persona(conversation.persona), built.gathered.opening
    carried = "" if opening else conversation.llama.tokenizer.decode(built.opening).strip()
    messages = begun(as_messages(conversation.prompt, persona, built.plan, built.turn, built.gathered.texts), opening, carried)
    stop = tuple(dict.fromkeys((f"\n{persona.user}:", *persona.stop, *conversation.stop)))
    sent = len(built.ids)
    whole = sent + left_out(built.plan, conversation.exchanges)
    return AnswerQuestion(messages, conversation.max_tokens, conversation.sampling, stop, sent, whole, carried)


def left_out(plan: WindowPlan, exchanges: Sequence[Exchange]) -> int:
    """Tokens of the exchanges that the plan has no longer, less those of the memory that it has instead."""
    gone = exchanges[: len(exchanges) - len(plan.kept)]
    return max(0, sum(exchange.tokens for exchange in gone) - memory_tokens(plan.memory))


class Hearing:
    """Takes an answer in, piece by piece. `finish` says how it ended, and is empty where nothing came of it."""

    def __init__(
        self,
        answer: ArrivingAnswer,
        stopped: Callable[[], bool],
        on_reasoning: Callable[[str], None],
        away: Callable[[str], object] = lambda said: None,
    ):
        """`away` gets the sentence why no answer comes, where another model is to give it."""
        self.answer, self.finish = answer, ""
        self._stopped, self._on_reasoning, self._away = stopped, on_reasoning, away

    def pieces(self) -> Generator[str, None, None]:
        """What may be shown. RemoteError where there is none, or it broke off: then what came of it is kept."""
        try:
            for text in self.answer:
                if thoughts := self.answer.new_reasoning():
                    self._on_reasoning(thoughts)
                if text:
                    yield text
                elif self._stopped():
                    self.finish = "interrupted"
                    return
            self.finish = self.answer.finish_reason or "stop"
        except (GeneratorExit, KeyboardInterrupt):
            self.finish = "interrupted"
            raise
        except RemoteError as error:
            error.kept = bool(self.answer.text)
            self.finish = "interrupted" if error.kept else ""
            if error.kept or not error.away:
                raise
            self._away(str(error))
        finally:
            self.answer.close()


def laid_reply(prompt: Prompt, built: BuiltPrompt, said: ArrivingAnswer) -> Message:
    """The answer as the history has it: no ids were sampled here, so it is laid out from its text."""
    return Message(built.turn.id + 1, "assistant", said.text, prompt.reply_ids(said.text), reasoning=said.reasoning)
