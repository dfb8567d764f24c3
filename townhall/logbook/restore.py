"""From a log back to a conversation: what stands in it, given to the model again with the ids that it sampled."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from townhall.answer import Answer
from townhall.conversation import Conversation
from townhall.errors import PrefillError
from townhall.language_model import HasTokenizer
from townhall.logbook import log_syntax
from townhall.logbook.chat_tree import ChatTree, Rating
from townhall.logbook.log_syntax import LogTurn, Mark
from townhall.prompt import Prompt


def standing(events: Iterable[LogTurn | Mark]) -> list[LogTurn]:
    """The turns of the talk that a log ends in: the path that it goes, not what was before a reset."""
    return [node.turn for node in ChatTree(events).path()]


def exchanges(turns: Iterable[LogTurn]) -> list[tuple[LogTurn, LogTurn]]:
    """Questions and answers; a question that still waits for its answer is left out."""
    return split(turns)[0]


def split(turns: Iterable[LogTurn]) -> tuple[list[tuple[LogTurn, LogTurn]], LogTurn | None]:
    """(questions and answers, the question that waits for its answer).

    Who speaks twice is heard as once, and an answer without a question answers silence. A turn without a number is from a program that
    did otherwise, or a person's: there, a question that was never answered is left out, and so is an answer without a question.
    """
    found: list[tuple[LogTurn, LogTurn]] = []
    question: LogTurn | None = None
    for turn in turns:
        numbered = "id" in (turn.facts or {})
        if turn.role == "user":
            question = _joined(question, turn) if question and "id" in (question.facts or {}) else turn
        elif not turn.text and (turn.facts or {}).get("finish_reason") == "interrupted":
            continue
        elif question or (numbered and not found):
            found.append((question or LogTurn("", "user", "", turn.line), turn))
            question = None
        elif numbered:
            found[-1] = (found[-1][0], _joined(found[-1][1], turn))
    return found, question


def _joined(first: LogTurn, second: LogTurn) -> LogTurn:
    """Two turns of one speaker as one, laid out anew."""
    return replace(second, text="\n\n".join(filter(None, (first.text, second.text))), facts={"id": second.id})


def recall(conversation: Conversation, said: list[tuple[LogTurn, LogTurn]]) -> None:
    """Make it the conversation's history. ContextError where the context strategy does not let it."""
    conversation.recall(
        [(question.text, answer.text) for question, answer in said],
        [sampled(conversation, answer) for _, answer in said],
        [str((answer.facts or {}).get("reasoning") or "") for _, answer in said],
        [states if isinstance(states := (answer.facts or {}).get("source_states"), dict) else {} for _, answer in said],
    )


def bring(conversation: Conversation, said: list[tuple[LogTurn, LogTurn]]) -> None:
    """Make the history what was said: by taking back what came later, or where that is not enough, anew. ContextError as from `recall`."""
    held = conversation.exchanges
    same = 0
    while same < min(len(held), len(said)) and (held[same].user.text, held[same].reply.text) == tuple(turn.text for turn in said[same]):
        same += 1
    if same == len(said):
        conversation.undo(len(held) - same)
    else:
        recall(conversation, said)


def sampled(conversation: Conversation, turn: LogTurn) -> list[int] | None:
    """The ids that an answer has in a prompt; None where the log has none that this model would have said it with."""
    return kept_ids(conversation.llama, conversation.prompt, conversation.cache.identity.get("model"), turn)


def kept_ids(llama: HasTokenizer, prompt: Prompt, model: str | None, turn: LogTurn) -> list[int] | None:
    """The same for prompts that begin as `prompt` does, of the model with the fingerprint `model`."""
    facts = turn.facts or {}
    ids, identity, opening = facts.get("tokens"), facts.get("identity"), facts.get("prefill", "")
    known = llama.tokenizer.vocab_size
    if not isinstance(identity, dict) or identity.get("model") != model or not isinstance(opening, str):
        return None
    if not isinstance(ids, list) or not all(type(n) is int and 0 <= n < known and n not in prompt.stop_ids for n in ids):
        return None
    # ids that were carried over from another log hold no thoughts
    for separate in (True, False) if "said_in" not in facts else (False,):
        try:
            answer = Answer(llama, prompt, opening=prompt.opening_ids(opening), separate=separate)
        except PrefillError:
            return None
        for token in ids:
            answer.push(token)
        if not answer.stopped and facts.get("finish_reason") != "interrupted":
            answer.flush()
        if answer.shown == turn.text:
            return answer.kept_ids(facts.get("finish_reason"))
    return None  # a person has changed it


Ratings = Mapping[tuple[str, str], Rating]  # of answers, by the texts of question and answer


def ratings(tree: ChatTree) -> Ratings:
    """Of the answers on the path."""
    said = exchanges(node.turn for node in tree.path())
    return {(question.text, answer.text): rating for question, answer in said if (rating := tree.nodes[answer.id].rating)}


def carried(conversation: Conversation, origin: str, rated: Ratings | None = None) -> str:
    """The conversation as turns that were said in the log `origin`, for another log to begin with; `rated`: as answers were rated there."""
    close, parts = len(conversation.prompt.close_ids), []
    for exchange, states in zip(conversation.exchanges, conversation.source_states, strict=True):
        ids = exchange.reply.ids[: len(exchange.reply.ids) - close]
        facts: dict[str, Any] = {"said_in": origin, "finish_reason": "stop"}
        parts.append(log_syntax.turn(conversation.persona.user, exchange.user.text, "user", {"said_in": origin}))
        facts |= {"reasoning": exchange.reply.reasoning} if exchange.reply.reasoning else {}
        facts |= {"source_states": dict(states)} if states else {}
        facts |= {"rating": rating} if (rating := (rated or {}).get((exchange.user.text, exchange.reply.text))) else {}
        facts |= {"identity": dict(conversation.cache.identity), "tokens": list(ids)}
        parts.append(log_syntax.turn(conversation.persona.name, exchange.reply.text, "reply", facts))
    return "".join(parts)
