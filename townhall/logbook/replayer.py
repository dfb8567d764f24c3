"""Replays a log: the same prompts and seeds, every sampled id compared with the log."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from townhall.context.source import GatheredSources, PromptSources, SourceText
from townhall.conversation import Conversation
from townhall.errors import LogError
from townhall.language_model import LanguageModel
from townhall.logbook import restore
from townhall.logbook.chat_tree import ChatTree
from townhall.logbook.log_reader import Log
from townhall.logbook.log_syntax import LogTurn, Mark
from townhall.logbook.recording_model import WatchedModel, prompt_hash
from townhall.text_completion import TextCompletion
from townhall.via.answering import KeptAnswer


@dataclass(frozen=True)
class Difference:
    """Where a reply stopped being the log's. `position` counts its tokens from 0; None: the prompt itself is another one."""

    reply: int  # from 1
    line: int
    position: int | None
    expected: int | None = None  # None: the log's reply ends here
    got: int | None = None  # None: this run's reply ends here


@dataclass(frozen=True)
class ReplayResult:
    """How far the replies were the same. `kept` of another server's model were passed over: they stand as the log has them."""

    replies: int
    tokens: int
    difference: Difference | None = None
    kept: int = 0


@dataclass(frozen=True)
class Expected:
    """A reply as the log has it."""

    number: int
    line: int
    prompt_sha256: str
    ids: list[int]
    interrupted: bool
    sampler: dict[str, Any]
    prefill: str = ""
    max_tokens: int | None = None
    given: Sequence[int] = ()  # ids that the reply was made to begin with
    texts: tuple[SourceText, ...] = ()  # that sources put into its prompt


class Different(Exception):
    """The first token that differs ends a replay."""

    def __init__(self, difference: Difference):
        super().__init__(difference)
        self.difference = difference


class LoggedInterrupt(KeyboardInterrupt):
    """Ctrl-C, as it came in the log."""


class RehearsedModel(WatchedModel):
    """The model, held to `expected` whenever that is set; what it does of its own (memories) is left alone."""

    def __init__(self, llama: LanguageModel):
        super().__init__(llama)
        self.expected: Expected | None = None

    def generate(
        self, ids: list[int], max_tokens: int, sampling: Any = None, cache: Any = None, stop_ids: frozenset[int] | None = None
    ) -> Any:
        if self.expected and prompt_hash(ids) != self.expected.prompt_sha256:
            raise Different(Difference(self.expected.number, self.expected.line, None))
        generation = self._llama.generate(ids, max_tokens, sampling, cache=cache, stop_ids=stop_ids)
        return RehearsedGeneration(generation, self.expected) if self.expected else generation


class RehearsedGeneration(Iterator[int]):
    """Ids as long as they are the log's."""

    def __init__(self, generation: Any, expected: Expected):
        self._generation, self._ids, self._expected, self._at = generation, iter(generation), expected, 0

    def __next__(self) -> int:
        expected, at = self._expected.ids, self._at
        if self._expected.interrupted and at == len(expected):
            raise LoggedInterrupt
        token = next(self._ids, None)
        wanted = expected[at] if at < len(expected) else None
        if token != wanted:
            raise Different(Difference(self._expected.number, self._expected.line, at, wanted, token))
        if token is None:
            raise StopIteration
        self._at += 1
        return token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generation, name)


@dataclass(frozen=True)
class ReplayStep:
    """A reply to be repeated, and what stood in the chat's tree when it was given."""

    reply: LogTurn
    said: list[tuple[LogTurn, LogTurn]]
    question: str
    settings: dict[str, Any]


def steps(log: Log) -> Iterator[ReplayStep | Mark]:
    """Every reply that was given here, to a question that stands before it, and the marks `reset`, `resume` and `sources` between them.

    A question without a receipt is passed over: the conversation did not keep it either.
    """
    tree = ChatTree()
    for event in log.events:
        if not isinstance(event, LogTurn):
            if event[0] in ("reset", "resume", "sources"):
                yield event
        elif event.role == "assistant" and event.facts is not None and not event.facts.keys() & {"said_in", "edits", "greeting", "written"}:
            carried = tree.nodes.get(event.facts.get("continues") or 0)
            path = tree.path_to(carried.parent) if carried else tree.path()
            said, question = restore.split(node.turn for node in path)
            if question or "id" in event.facts or carried:
                yield ReplayStep(event, said, question.text if question else "", tree.settings)
        tree.apply(event)
        if not isinstance(event, LogTurn) and event[0] == "resume":
            yield "resumed", {"said": restore.exchanges(node.turn for node in tree.path())}


def replay(
    log: Log,
    model: RehearsedModel,
    conversation: Conversation,
    info: Callable[[ReplayResult], None] = lambda outcome: None,
    make: Callable[[dict[str, Any]], Conversation] | None = None,
) -> ReplayResult:
    """Go through every reply that has a receipt, up to the first that differs, and through whatever was done with the chat between.

    `info` gets the result so far after each reply that is the same. `conversation` must be fresh, and over `model`; where the chat's own
    settings change, `make` makes another one. LogError for a receipt that lacks what it takes.
    """
    outcome = ReplayResult(0, 0)
    settings: dict[str, Any] = {}
    sources = conversation.sources
    for step in steps(log):
        if not isinstance(step, ReplayStep):
            kind, facts = step
            if kind == "reset":
                conversation.reset()
            elif kind == "sources":
                sources = _sources(facts, log, conversation)
                conversation.use(sources)
            elif kind == "resumed":
                conversation.renew()
                restore.recall(conversation, facts["said"])
            continue
        reply, facts = step.reply, step.reply.facts or {}
        if make and (now := of_conversation(step.settings)) != settings:
            conversation, settings = make(now), now
            conversation.use(sources)
        model.expected = None
        if "via" in facts:
            _say_again(conversation, step)
            outcome = replace(outcome, kept=outcome.kept + 1)
            continue
        expected = _expected(reply, outcome.replies + 1, log)
        if expected.max_tokens is not None:
            conversation.limit(expected.max_tokens)
        # a server lays the whole conversation out for each of its answers
        (restore.recall if facts.get("served") else restore.bring)(conversation, step.said)
        receipt = facts.get("receipt")
        if facts.get("served") and isinstance(receipt, dict) and isinstance(memory := receipt.get("memory"), str):
            gone = receipt.get("dropped_messages")  # what the server's summary of them says is in the receipt
            conversation.hold(gone // 2 if type(gone) is int and 0 <= gone <= 2 * len(step.said) else 0, memory)
        stop = facts.get("stop")
        conversation.stop = [text for text in stop if isinstance(text, str)] if isinstance(stop, list) else []
        model.expected = expected
        if difference := _rehearse(conversation, step.question, expected, log, reply):
            return replace(outcome, difference=difference)
        model.expected = None
        if not expected.interrupted and not facts.get("served"):
            conversation.after_reply()
        outcome = replace(outcome, replies=outcome.replies + 1, tokens=outcome.tokens + len(expected.ids))
        info(outcome)
    return outcome


def _say_again(conversation: Conversation, step: ReplayStep) -> None:
    """Have another server's answer as it is kept, so that what comes after it finds it where it was."""
    facts = step.reply.facts or {}
    (restore.recall if facts.get("served") else restore.bring)(conversation, step.said)
    finish = facts.get("finish_reason")
    conversation.elsewhere = KeptAnswer(step.reply.text, str(facts.get("reasoning") or ""), finish if isinstance(finish, str) else "stop")
    try:
        for _ in conversation.reply(step.question, gathered=GatheredSources()):
            pass
        if finish != "interrupted" and not facts.get("served"):
            conversation.after_reply()
    finally:
        conversation.elsewhere = None


def of_conversation(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a chat that say how a conversation is laid out."""
    held = settings.get("settings")
    held = held if isinstance(held, dict) else {}
    found = {key: settings[key] for key in ("model", "system") if settings.get(key)}
    return found | {key: held[key] for key in ("context", "think") if held.get(key) is not None}


def replay_completion(log: Log, model: RehearsedModel, max_tokens: int, context: str) -> ReplayResult:
    """The same for a text that was carried on, without a persona."""
    outcome = ReplayResult(0, 0)
    for at, reply in enumerate(log.turns):
        if _repeatable(log.turns[: at + 1]):
            model.expected = expected = _expected(reply, outcome.replies + 1, log)
            text = TextCompletion(model, log.turns[at - 1].text, _sampling(expected, log, reply), max_tokens, context)
            if difference := _heard(text):
                return ReplayResult(outcome.replies, outcome.tokens, difference)
            outcome = ReplayResult(outcome.replies + 1, outcome.tokens + len(expected.ids))
    return outcome


def _rehearse(conversation: Conversation, question: str, expected: Expected, log: Log, reply: LogTurn) -> Difference | None:
    """Have a question answered again."""
    conversation.sampling = _sampling(expected, log, reply)
    return _heard(conversation.reply(question, expected.prefill, opening=expected.given or None, gathered=GatheredSources(expected.texts)))


def _heard(pieces: Iterable[str]) -> Difference | None:
    """All that is said, up to where it differs."""
    try:
        for _ in pieces:
            pass
    except LoggedInterrupt:
        pass
    except Different as found:
        return found.difference
    return None


def total(log: Log) -> int:
    """How many replies there are to be repeated."""
    return sum(isinstance(step, ReplayStep) and "via" not in (step.reply.facts or {}) for step in steps(log))


def _repeatable(turns: Sequence[LogTurn]) -> bool:
    """Is the last turn an answer that was given here, to a question that stands before it?"""
    if len(turns) < 2 or turns[-2].role != "user" or turns[-1].role != "assistant":
        return False
    return turns[-1].facts is not None and "said_in" not in turns[-1].facts


def _expected(reply: LogTurn, number: int, log: Log) -> Expected:
    facts = reply.facts or {}
    ids, sampler, prompt = facts.get("tokens"), facts.get("sampler"), facts.get("prompt_sha256")
    if not isinstance(ids, list) or not all(type(token) is int for token in ids) or not isinstance(prompt, str):
        raise _unreadable(log, reply)
    if not isinstance(sampler, dict):
        raise _unreadable(log, reply)
    prefill, most, given = facts.get("prefill", ""), facts.get("max_tokens"), facts.get("given_tokens", 0)
    if not isinstance(prefill, str) or (most is not None and (type(most) is not int or most < 1)):
        raise _unreadable(log, reply)
    if type(given) is not int or not 0 <= given <= len(ids):
        raise _unreadable(log, reply)
    interrupted = facts.get("finish_reason") == "interrupted"
    try:
        texts = tuple(SourceText.from_json(text) for text in facts.get("inserted", ()))
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(log, reply) from error
    return Expected(number, reply.line, prompt, ids[given:], interrupted, sampler, prefill, most, ids[:given], texts)


def _sources(facts: dict[str, Any], log: Log, conversation: Conversation) -> PromptSources:
    try:
        return PromptSources.from_note(facts, conversation.llama.tokenizer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LogError(f"log {log.path}: a comment `sources` does not say what it takes to repeat the replies below it") from error


def _sampling(expected: Expected, log: Log, reply: LogTurn) -> Any:
    from app.models.llama.sampling_params import SamplingParams

    try:
        return SamplingParams.from_note(expected.sampler)
    except TypeError as error:
        raise _unreadable(log, reply) from error


def _unreadable(log: Log, reply: LogTurn) -> LogError:
    return LogError(
        f"log {log.path}, line {reply.line}: the receipt of this reply lacks what it takes to repeat it (tokens, sampler, prompt_sha256)"
    )
