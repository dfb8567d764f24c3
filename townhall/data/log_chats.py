"""Conversations out of logs: whose persona, how long; answers that were taken back are the rejected ones."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from townhall.data.training_chats import Said, TrainingChat, of_turns
from townhall.errors import LogError
from townhall.logbook.log_reader import Log, read_log
from townhall.logbook.log_syntax import LogTurn
from townhall.logbook.logged_chat import CONVERSATION


def chats_of_logs(
    paths: Iterable[Path], personas: frozenset[str] = frozenset(), least: int = 1, longest_reply: int = 0
) -> Iterator[TrainingChat]:
    """Conversations of these personas (any case; none: all), of at least so many replies; logs that cannot be read are passed over.

    `longest_reply`: characters; 0: any. A conversation goes only as far as its first longer reply.
    """
    for log in _logs(paths, personas):
        if log.head.get("kind", CONVERSATION) != CONVERSATION:
            continue
        for part in _parts(log.turns):
            turns = list(_upto(part, longest_reply))
            chat = of_turns([Said("user" if turn.role == "user" else "assistant", turn.text) for turn in turns], source=log.id)
            if chat is not None and len(chat.replies) >= least:
                yield chat


def preferences_of_logs(paths: Iterable[Path], personas: frozenset[str] = frozenset()) -> Iterator[TrainingChat]:
    """Where an answer was retried, or another one chosen: the conversation up to what stayed, and what did not."""
    for log in _logs(paths, personas):
        yield from _preferences(log)


def _logs(paths: Iterable[Path], personas: frozenset[str]) -> Iterator[Log]:
    """Those of the personas that can be read."""
    for path in paths:
        try:
            log = read_log(path)
        except LogError:
            continue
        if not personas or str(log.head.get("persona", "")).lower() in personas:
            yield log


def _preferences(log: Log) -> Iterator[TrainingChat]:
    taken: dict[str, list[str]] = {}
    for question, reply in zip(log.taken, log.taken[1:]):
        if question.role == "user" and reply.role == "assistant" and reply.text.strip():
            taken.setdefault(question.text.strip(), []).append(reply.text)
    for part in _parts(log.turns):
        for at, turn in enumerate(part):
            if turn.role != "assistant" or at == 0 or part[at - 1].role != "user":
                continue
            node = log.tree.nodes.get(turn.id)
            swipes = [other.turn.text for other in log.tree.swipes(node) if other is not node] if node else []
            said = [Said("user" if one.role == "user" else "assistant", one.text) for one in part[: at + 1]]
            for rejected in dict.fromkeys([*taken.get(part[at - 1].text.strip(), ()), *swipes]):
                if rejected.strip() not in ("", turn.text.strip()) and (chat := of_turns(said, rejected=rejected, source=log.id)):
                    yield chat


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
