"""API transcripts: from a whole list of messages to the prompt that a `Conversation` would have come to."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from townhall.context.source import GatheredSources, PromptPart, PromptSources, SourceRole
from townhall.context.strategy import ContextStrategy, Window, WindowPlan
from townhall.formats.prompt_pieces import PromptTurn
from townhall.message import Exchange, Memory, Message, messages_of
from townhall.prompt import Prompt
from townhall.prompt_builder import build, refuse_oversized_text

Spoken = Callable[[str], Sequence[int] | None]  # the ids of an answer as they were sampled, where they are known


@dataclass(frozen=True)
class SummaryCheckpoint:
    """How a conversation stood when a memory had been made of its beginning."""

    exchanges: int  # how many it had then
    left: int  # of them out of the window
    noted: int  # of them read by the summarizer
    memory: Memory | None


Recall = Callable[[Sequence[Exchange]], SummaryCheckpoint | None]  # the latest standing of a conversation that begins with these


@dataclass(frozen=True)
class PromptPlan:
    """A prompt, and the facts for its receipt."""

    ids: tuple[int, ...]
    dropped: tuple[int, ...]  # indices of messages that the model will not see
    dropped_tokens: int
    opening: str = ""  # the answer's beginning, where the list ended with one that is to be carried on
    removed: tuple[int, int] | None = None  # positions that left `before` for this turn
    before: tuple[int, ...] = ()  # the prompt had nothing left
    memory: Memory | None = None
    memory_of: tuple[int, ...] = ()  # indices of the messages it came from
    exchanges: tuple[Exchange, ...] = ()  # all that was said before this turn
    turn: Message | None = None
    parts: tuple[PromptPart, ...] = ()  # of the prompt: their tokens add up to all of it
    gathered: GatheredSources = GatheredSources()
    window: WindowPlan = WindowPlan(())  # what of them the prompt holds
    begun: tuple[int, ...] = ()  # ids that a source has the answer begin with, as a part of it
    answer_at: int = 0  # where in `ids` the answer begins

    @property
    def question(self) -> str:
        """What is answered."""
        return self.turn.text if self.turn else ""

    def contents(self) -> dict[str, Any]:
        """What the prompt is made of, and the very texts that sources put into it, in JSON values."""
        return {
            "parts": [part.to_json() for part in self.parts],
            "passed_over": [item.to_json() for item in self.gathered.passed_over],
            "inserted": [text.to_json() for text in self.gathered.texts],
        }


def lay_out(
    prompt: Prompt,
    strategy: ContextStrategy,
    window: Window,
    turns: Sequence[PromptTurn],
    spoken: Spoken = lambda text: None,
    recall: Recall = lambda exchanges: None,
    sources: PromptSources | None = None,
    seed: int = 0,
    sampled: Sequence[Sequence[int] | None] | None = None,
    opening: Sequence[int] | None = None,
    may_begin: bool = False,
) -> PromptPlan:
    """The prompt for the last of `turns`, in which users and assistants may speak in any order; ContextError where it cannot fit.

    The strategy is led through the conversation again, turn by turn, so that it lets go of what it let go of when these turns were new:
    the front of the prompt stays the same from request to request. So are `sources`, those that go by what they gave before.

    `sampled` has the ids of each answer, in the place of `spoken`. The answer begins with the ids `opening`, by default with the answer
    that the list ends with; where it begins with neither and `may_begin`, a source may say with what.
    """
    for message in turns:
        refuse_oversized_text(message.text, window.capacity)
    said = list(grouped(turns))
    indices = [one.indices for one in said]
    exchanges = []
    for at, one in enumerate(said[:-1]):
        ids = spoken(one.answer) if sampled is None else sampled[at]
        exchange = exchange_of(prompt, at, one.question, one.answer, ids, one.reasoning)
        exchanges.append(replace(exchange, user=_asked(prompt, exchange.user, one, spoken)))
    question, answer = said[-1].question, said[-1].answer
    turn = Message(2 * len(exchanges), "user", question, () if said[-1].turns else prompt.turn_ids(question))
    turn = _asked(prompt, turn, said[-1], spoken)
    *_, current = plans(strategy, window, exchanges, recall(exchanges) if strategy.memory else None)
    if opening is None:
        opening = prompt.begun_ids(answer) if answer else ()
    gathered = GatheredSources()
    if sources and sources.sources:
        before: list[tuple[SourceRole, str]] = [(message.role, message.text) for message in messages_of(exchanges)]
        messages = [*before, ("user", question)]
        states = sources.states(messages, seed, window.capacity, window.beside)
        gathered = sources.gather(messages, states, seed, window.capacity, window.beside)
    begun: tuple[int, ...] = ()
    if may_begin and not opening and gathered.opening:
        opening = begun = tuple(prompt.opening_ids(gathered.opening))
    built = build(prompt, strategy, window, current, turn, opening, gathered if begun else replace(gathered, opening=""))
    plan = built.plan
    gone = exchanges[: len(exchanges) - len(plan.kept)]
    noted = {source // 2 for source in plan.memory.sources} if plan.memory else set()
    return PromptPlan(
        ids=tuple(built.ids),
        dropped=tuple(index for of_one in indices[: len(gone)] for index in of_one),
        dropped_tokens=_tokens(prompt, gone, plan, turn, built.prompt),
        opening=answer,
        removed=built.removed,
        before=(*built.before, *turn.ids) if built.removed else (),
        memory=plan.memory,
        memory_of=tuple(index for at in sorted(noted) for index in indices[at] if turns[index].role == "user"),
        exchanges=tuple(exchanges),
        turn=turn,
        parts=built.parts,
        gathered=built.gathered,
        window=plan,
        begun=begun,
        answer_at=len(built.prompt),
    )


def plans(
    strategy: ContextStrategy, window: Window, exchanges: Sequence[Exchange], summary_checkpoint: SummaryCheckpoint | None = None
) -> Iterator[WindowPlan]:
    """What was in the window before each of `exchanges`, and after the last, when they were said one after the other.

    From `summary_checkpoint` on, where there is one.
    """
    if summary_checkpoint is None and window.holds(sum(exchange.tokens for exchange in exchanges), 0):
        yield from (WindowPlan(tuple(exchanges[:said])) for said in range(len(exchanges) + 1))  # then nothing ever had to go
        return
    said, left, memory = (
        (summary_checkpoint.exchanges, summary_checkpoint.left, summary_checkpoint.memory) if summary_checkpoint else (0, 0, None)
    )
    yield (plan := WindowPlan(tuple(exchanges[left:said]), (), memory))
    for exchange in exchanges[said:]:
        chosen = strategy.choose(window, plan, len(exchange.user.ids))
        yield (plan := WindowPlan((*chosen.kept, exchange), (), chosen.memory))


def exchange_of(prompt: Prompt, at: int, question: str, answer: str, sampled: Sequence[int] | None = None, reasoning: str = "") -> Exchange:
    """What was said, the `at`-th time; `sampled` are the ids of the answer where they are known."""
    reply = (*sampled, *prompt.close_ids) if sampled is not None else prompt.reply_ids(answer)
    user = Message(2 * at, "user", question, prompt.turn_ids(question))
    return Exchange(user, Message(2 * at + 1, "assistant", answer, tuple(reply), sampled is not None, reasoning))


def _asked(prompt: Prompt, user: Message, one: "SpokenExchange", spoken: Spoken) -> Message:
    """A question with the calls that were made for it."""
    return replace(user, ids=prompt.turns_ids(one.turns, spoken), turns=one.turns) if one.turns else user


def _tokens(prompt: Prompt, gone: Sequence[Exchange], plan: WindowPlan, turn: Message, ids: Sequence[int]) -> int:
    """What `gone` took of a prompt that had them; where only the template can lay them out, both prompts are compared."""
    if not any(one.structured for exchange in gone for one in exchange.user.turns):
        return sum(exchange.tokens for exchange in gone)
    return len(prompt.ids(WindowPlan((*gone, *plan.kept), (), plan.memory), turn)) - len(ids)


@dataclass(frozen=True)
class SpokenExchange:
    """A question and its answer, which is "" where it is still to be given.

    `turns`: all of a question for which the model called functions: the user's words, the calls, what came of them, in any number.
    """

    indices: list[int]
    question: str
    answer: str
    reasoning: str = ""  # before the answer
    turns: tuple[PromptTurn, ...] = ()


def grouped(turns: Sequence[PromptTurn]) -> Iterator[SpokenExchange]:
    """The exchanges; who speaks twice is heard as once, an answer without a question answers silence.

    Calls and their results belong to the question that they were made for, so that the window never holds one without the other.
    """
    starts = [0]
    for index, turn in enumerate(turns):
        if turn.role == "user" and not turn.result and any(one.role == "assistant" for one in turns[starts[-1] : index]):
            starts.append(index)
    for start, stop in zip(starts, [*starts[1:], len(turns)], strict=True):
        own = turns[start:stop]
        asked = next((at for at in range(len(own), 0, -1) if own[at - 1].role != "assistant" or own[at - 1].calls), 0)
        before, after = own[:asked], own[asked:]
        calling = any(one.role != "user" or one.result for one in before)
        yield SpokenExchange(
            list(range(start, stop)),
            "\n\n".join(one.spelled for one in before),
            "\n\n".join(one.text for one in after),
            "\n\n".join(one.reasoning for one in after if one.reasoning),
            tuple(_joined(before)) if calling else (),
        )


def _joined(turns: Iterable[PromptTurn]) -> list[PromptTurn]:
    """The turns, who speaks twice heard as once."""
    joined: list[PromptTurn] = []
    for turn in turns:
        last = joined[-1] if joined else None
        if last and last.role == turn.role and not (last.structured or turn.structured):
            reasoning = "\n\n".join(filter(None, (last.reasoning, turn.reasoning)))
            between = "\n" if turn.result else "\n\n"
            joined[-1] = replace(last, text=f"{last.text}{between}{turn.text}", reasoning=reasoning)
        else:
            joined.append(turn)
    return joined


def paired(turns: Iterable[PromptTurn]) -> Iterable[tuple[list[int], str, str]]:
    """(indices, question, answer) of each exchange."""
    return [(one.indices, one.question, one.answer) for one in grouped(list(turns))]
