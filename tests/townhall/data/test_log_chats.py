"""Conversations out of logs, and answers that were not wanted."""

from pathlib import Path

import pytest

from tests.townhall.logbook.test_log_syntax import HEAD
from townhall.data.log_chats import chats_of_logs, preferences_of_logs
from townhall.logbook import log_syntax


def said(question: str, *replies: str) -> str:
    return log_syntax.turn("User", question, "user", {}) + "".join(log_syntax.turn("Stacy", reply, "reply", {}) for reply in replies)


def log(folder: Path, name: str, *parts: str, **head: str) -> Path:
    path = folder / f"{name}.md"
    path.write_text(log_syntax.front_matter(HEAD | {"id": name} | head) + "".join(parts))
    return path


RESET, UNDO = (log_syntax.comment(kind) + "\n" for kind in ("reset", "undo"))


def texts(chats: object) -> list[list[str]]:
    return [[turn.text for turn in chat.turns] for chat in chats]  # type: ignore[attr-defined]


def test_conversations_are_taken_by_persona_and_length(tmp_path: Path) -> None:
    one = log(tmp_path, "one", said("a", "1"), said("b", "2"), RESET, said("c", "3"))
    two = log(tmp_path, "two", said("d", "4").replace("Stacy", "Gary"), persona="Gary")
    torn = tmp_path / "torn.md"
    assert texts(chats_of_logs([one, two, torn])) == [["a", "1", "b", "2"], ["c", "3"], ["d", "4"]]
    assert texts(chats_of_logs([one, two], frozenset({"gary"}))) == [["d", "4"]]
    assert texts(chats_of_logs([one, two], least=2)) == [["a", "1", "b", "2"]]
    assert texts(chats_of_logs([log(tmp_path, "three", said("a", "1"), said("b", "long" * 9))], longest_reply=10)) == [["a", "1"]]
    assert [chat.source for chat in chats_of_logs([one])] == ["one", "one"]


def test_a_completion_is_no_conversation(tmp_path: Path) -> None:
    assert not list(chats_of_logs([log(tmp_path, "one", said("a", "1"), kind="completion")]))


SWIPE = log_syntax.comment("branch", {"turn": 3}) + "\n" + log_syntax.turn("Stacy", "3", "reply", {})


@pytest.mark.parametrize("again", [UNDO + said("b", "3"), SWIPE])
def test_a_retried_answer_is_the_rejected_one(tmp_path: Path, again: str) -> None:
    path = log(tmp_path, "one", said("a", "1"), said("b", "2"), again)
    assert texts(chats_of_logs([path])) == [["a", "1", "b", "3"]]
    (chat,) = preferences_of_logs([path])
    assert texts([chat]) == [["a", "1", "b", "3"]] and chat.rejected == "2"


def test_the_same_answer_again_says_nothing(tmp_path: Path) -> None:
    assert not list(preferences_of_logs([log(tmp_path, "one", said("a", "1"), UNDO, said("a", "1"))]))
