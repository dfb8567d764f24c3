"""Conversations out of logs: whose persona, how long, how rated; answers that were taken back or rated bad are the rejected ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from townhall.data.training_chats import Said, TrainingChat, of_turns
from townhall.errors import LogError
from townhall.logbook.chat_tree import Rating
from townhall.logbook.log_reader import Log, read_log
from townhall.logbook.log_syntax import LogTurn
from townhall.logbook.logged_chat import CONVERSATION

Wanted = Literal["good", "not-bad"]


@dataclass(frozen=True)
class ReplyVersion:
    """One of the replies in one place of a conversation."""

    text: str
    rating: Rating | None
    stands: bool = False  # it is the one that the talk went on with


def chats_of_logs(
    paths: Iterable[Path],
    personas: frozenset[str] = frozenset(),
    least: int = 1,
    longest_reply: int = 0,
    rating: Wanted | None = None,
) -> Iterator[TrainingChat]:
    """Conversations of these personas (any case; none: all), of at least so many replies; logs that cannot be read are passed over.

    `longest_reply`: characters; 0: any. A conversation ends before its first longer reply. With a `rating` it ends before its first reply
    that is rated bad; with "good" it ends with the last one before that which is rated good, and is left out where there is none.
    """
    for log in _logs(paths, personas):
        if log.head.get("kind", CONVERSATION) != CONVERSATION:
            continue
        for part in _parts(log.turns):
            turns = _rated(log, list(_upto(part, longest_reply)), rating)
            chat = of_turns([Said("user" if turn.role == "user" else "assistant", turn.text) for turn in turns], source=log.id)
            if chat is not None and len(chat.replies) >= least:
                yield chat


def preferences_of_logs(
    paths: Iterable[Path],
    personas: frozenset[str] = frozenset(),
    least: int = 1,
    longest_reply: int = 0,
    rating: Wanted | None = None,
) -> Iterator[TrainingChat]:
    """Where a message has several replies: the conversation up to the better one, and the other.

    Of conversations of at least so many replies, the better one included, none of which is longer than `longest_reply` characters, nor the
    other one (0: any).

    A reply that is rated good is better than one that is rated bad. The one that stands is better than those that were retried or taken
    back, unless it is rated bad or the other one good. With a `rating` no reply before them is rated bad; with "good" the better one is
    rated good.
    """
    for log in _logs(paths, personas):
        for chat in _preferences(log, longest_reply, rating):
            if len(chat.replies) >= least:
                yield chat


def _logs(paths: Iterable[Path], personas: frozenset[str]) -> Iterator[Log]:
    """Those of the personas that can be read."""
    for path in paths:
        try:
            log = read_log(path)
        except LogError:
            continue
        if not personas or str(log.head.get("persona", "")).lower() in personas:
            yield log


def _preferences(log: Log, longest_reply: int, rating: Wanted | None) -> Iterator[TrainingChat]:
    nodes = log.tree.nodes
    taken: dict[tuple[int, str], list[ReplyVersion]] = {}  # by what the question followed, and its words
    for question, reply in zip(log.taken, log.taken[1:]):
        if question.role == "user" and reply.role == "assistant":
            asked = nodes[question.id].parent, question.text.strip()
            taken.setdefault(asked, []).append(ReplyVersion(reply.text, nodes[reply.id].rating))
    for part in _parts(log.turns):
        for at, turn in enumerate(part):
            if turn.role != "assistant" or at == 0 or part[at - 1].role != "user":
                continue
            before = part[:at]
            if len(list(_upto(before, longest_reply))) < at or (rating and _rated(log, before, "not-bad") != before):
                break
            node, asked = nodes[turn.id], (nodes[before[-1].id].parent, before[-1].text.strip())
            swipes = [ReplyVersion(other.turn.text, other.rating, other is node) for other in log.tree.swipes(node)]
            said = [Said("user" if one.role == "user" else "assistant", one.text) for one in before]
            for chosen, rejected in _pairs([*taken.get(asked, ()), *swipes]):
                if rating == "good" and chosen.rating != "good":
                    continue
                if longest_reply and max(len(chosen.text), len(rejected.text)) > longest_reply:
                    continue
                if chat := of_turns([*said, Said("assistant", chosen.text)], rejected=rejected.text, source=log.id):
                    yield chat


def _pairs(versions: Sequence[ReplyVersion]) -> Iterator[tuple[ReplyVersion, ReplyVersion]]:
    """(the better reply, the other one), each pair of texts once."""
    found = set()
    for chosen in versions:
        for rejected in versions:
            rated = chosen.rating == "good" and rejected.rating == "bad"
            kept = chosen.stands and chosen.rating != "bad" and rejected.rating != "good"
            texts = chosen.text.strip(), rejected.text.strip()
            if (rated or kept) and all(texts) and texts[0] != texts[1] and texts not in found:
                found.add(texts)
                yield chosen, rejected


def _parts(turns: Iterable[LogTurn]) -> Iterator[list[LogTurn]]:
    """Between resets."""
    part: list[LogTurn] = []
    for turn in turns:
        if turn.after_reset and part:
            yield part
            part = []
        part.append(turn)
    if part:
        yield part


def _upto(turns: Iterable[LogTurn], longest_reply: int) -> Iterator[LogTurn]:
    for turn in turns:
        if longest_reply and turn.role == "assistant" and len(turn.text) > longest_reply:
            return
        yield turn


def _rated(log: Log, turns: Sequence[LogTurn], rating: Wanted | None) -> list[LogTurn]:
    """As much of the turns as that rating allows."""
    found = list(turns)
    if rating is None:
        return found
    rated = [log.tree.nodes[turn.id].rating for turn in found]
    found = found[: rated.index("bad")] if "bad" in rated else found
    while rating == "good" and found and log.tree.nodes[found[-1].id].rating != "good":
        found.pop()
    return found
