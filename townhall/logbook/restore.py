"""From a log back to a conversation: what stands in it, given to the model again with the ids that it sampled."""

from collections.abc import Iterable
from typing import Any

from townhall.answer import Answer
from townhall.conversation import Conversation
from townhall.errors import PrefillError
from townhall.logbook import log_syntax
from townhall.logbook.log_reader import LogTurn, Mark, take_back


def summary_checkpoint(events: Iterable[LogTurn | Mark]) -> list[LogTurn]:
    """The turns of the talk that a log ends in: not what was before a reset, nor what was taken back."""
    turns: list[LogTurn] = []
    for event in events:
        if isinstance(event, LogTurn):
            turns.append(event)
        elif event[0] == "reset":
            turns.clear()
        elif event[0] == "undo":
            take_back(turns, event[1])
    return turns


def exchanges(turns: Iterable[LogTurn]) -> list[tuple[LogTurn, LogTurn]]:
    """Questions and answers. A question that was never answered is left out, as the conversation did."""
    found: list[tuple[LogTurn, LogTurn]] = []
    question: LogTurn | None = None
    for turn in turns:
        if turn.role == "user":
            question = turn
        elif question and (turn.text or (turn.facts or {}).get("finish_reason") != "interrupted"):
            found.append((question, turn))
            question = None
    return found


def recall(conversation: Conversation, said: list[tuple[LogTurn, LogTurn]]) -> None:
    """Make it the conversation's history. ContextError where the context strategy does not let it."""
    conversation.recall(
        [(question.text, answer.text) for question, answer in said],
        [sampled(conversation, answer) for _, answer in said],
        [str((answer.facts or {}).get("reasoning") or "") for _, answer in said],
    )


def sampled(conversation: Conversation, turn: LogTurn) -> list[int] | None:
    """The ids that an answer has in a prompt; None where the log has none that this model would have said it with."""
    facts = turn.facts or {}
    ids, identity, opening = facts.get("tokens"), facts.get("identity"), facts.get("prefill", "")
    known, prompt = conversation.llama.tokenizer.vocab_size, conversation.prompt
    if not isinstance(identity, dict) or identity.get("model") != conversation.cache.identity.get("model") or not isinstance(opening, str):
        return None
    if not isinstance(ids, list) or not all(type(n) is int and 0 <= n < known and n not in prompt.stop_ids for n in ids):
        return None
    # ids that were carried over from another log hold no thoughts
    for separate in (True, False) if "said_in" not in facts else (False,):
        try:
            answer = Answer(conversation.llama, prompt, opening=prompt.opening_ids(opening), separate=separate)
        except PrefillError:
            return None
        for token in ids:
            answer.push(token)
        if not answer.stopped and facts.get("finish_reason") != "interrupted":
            answer.flush()
        if answer.shown == turn.text:
            return answer.kept_ids(facts.get("finish_reason"))
    return None  # a person has changed it


def carried(conversation: Conversation, origin: str) -> str:
    """The conversation as turns that were said in the log `origin`, for another log to begin with."""
    close, parts = len(conversation.prompt.close_ids), []
    for exchange in conversation.exchanges:
        ids = exchange.reply.ids[: len(exchange.reply.ids) - close]
        facts: dict[str, Any] = {"said_in": origin, "finish_reason": "stop"}
        parts.append(log_syntax.turn(conversation.persona.user, exchange.user.text, "user", {"said_in": origin}))
        facts |= {"reasoning": exchange.reply.reasoning} if exchange.reply.reasoning else {}
        facts |= {"identity": dict(conversation.cache.identity), "tokens": list(ids)}
        parts.append(log_syntax.turn(conversation.persona.name, exchange.reply.text, "reply", facts))
    return "".join(parts)
