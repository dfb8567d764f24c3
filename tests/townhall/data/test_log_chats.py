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


def test_pairs_are_taken_by_length_too(tmp_path: Path) -> None:
    path = log(tmp_path, "one", said("a", "1"), said("b", "2"), SWIPE)
    assert len(list(preferences_of_logs([path], least=2))) == 1 and not list(preferences_of_logs([path], least=3))
    assert len(list(preferences_of_logs([log(tmp_path, "two", said("a", "1"), UNDO, said("a", "2"))], longest_reply=1))) == 1
    for former, later in (("1", "long"), ("long", "1")):
        path = log(tmp_path, "three", said("a", former), UNDO, said("a", later), said("b", "1"), UNDO, said("b", "2"))
        found = [chat.rejected for chat in preferences_of_logs([path], longest_reply=3)]
        assert found == ([] if later == "long" else ["1"])  # after a long reply nothing is taken; a long one is on neither side


def rate(turn: int, rating: str | None) -> str:
    return log_syntax.mark("rate", {"turn": turn, "rating": rating})


TALK = (said("a", "1"), said("b", "2"), said("c", "3"), said("d", "4"))  # replies 2, 4, 6, 8
A, B, C, D = ["a", "1"], ["b", "2"], ["c", "3"], ["d", "4"]


@pytest.mark.parametrize(
    "rated, not_bad, good",
    [
        ({}, [A + B + C + D], []),
        ({4: "good"}, [A + B + C + D], [A + B]),
        ({2: "good", 6: "good"}, [A + B + C + D], [A + B + C]),
        ({8: "good"}, [A + B + C + D], [A + B + C + D]),
        ({6: "bad"}, [A + B], []),
        ({2: "good", 6: "bad", 8: "good"}, [A + B], [A]),
        ({2: "bad", 4: "good"}, [], []),
    ],
)
def test_conversations_are_taken_by_rating(tmp_path: Path, rated: dict[int, str], not_bad: list[list[str]], good: list[list[str]]) -> None:
    path = log(tmp_path, "one", *TALK, *(rate(turn, rating) for turn, rating in rated.items()))
    assert texts(chats_of_logs([path])) == [A + B + C + D]
    assert texts(chats_of_logs([path], rating="not-bad")) == not_bad
    assert texts(chats_of_logs([path], rating="good")) == good
    assert texts(chats_of_logs([path], rating="good", least=2)) == [chat for chat in good if len(chat) > 2]


def test_each_talk_of_a_log_is_taken_by_its_own_ratings(tmp_path: Path) -> None:
    path = log(tmp_path, "one", said("a", "1"), rate(2, "bad"), RESET, said("c", "3"), rate(4, "good"), said("d", "4"))
    assert texts(chats_of_logs([path], rating="good")) == [C] and texts(chats_of_logs([path], rating="not-bad")) == [C + D]


def test_a_reply_that_is_rated_good_may_stand_on_another_branch(tmp_path: Path) -> None:
    path = log(tmp_path, "one", said("a", "1"), said("b", "2"), SWIPE, rate(4, "good"))
    assert not list(chats_of_logs([path], rating="good"))  # the talk went on without it


@pytest.mark.parametrize(
    "rated, pairs",
    [
        ({}, [("4", "2"), ("4", "3")]),
        ({4: "bad"}, [("4", "2"), ("4", "3")]),
        ({4: "good"}, [("4", "3")]),  # no one says that the one that stands is better
        ({6: "bad"}, []),
        ({4: "good", 6: "bad"}, [("2", "4")]),
        ({4: "good", 5: "bad"}, [("2", "3"), ("4", "3")]),
        ({4: "good", 5: "bad", 6: "bad"}, [("2", "3"), ("2", "4")]),
        ({5: "good", 6: "good"}, [("4", "2")]),
        ({5: "bad", 6: "good"}, [("4", "2"), ("4", "3")]),
    ],
)
def test_a_reply_that_is_rated_good_is_better_than_one_that_is_rated_bad(
    tmp_path: Path, rated: dict[int, str], pairs: list[tuple[str, str]]
) -> None:
    path = log(
        tmp_path, "one", said("a", "1"), said("b", "2"), SWIPE, SWIPE.replace("\n3\n", "\n4\n"), *(rate(*one) for one in rated.items())
    )
    found = list(preferences_of_logs([path]))
    assert sorted((chat.turns[-1].text, chat.rejected) for chat in found) == pairs
    assert all(texts([chat])[0][:-1] == ["a", "1", "b"] for chat in found)
    good = [pair for pair in pairs if rated.get(int(pair[0]) + 2) == "good"]  # the reply 2 is turn 4, and so on
    assert sorted((chat.turns[-1].text, chat.rejected) for chat in preferences_of_logs([path], rating="good")) == good
    worse = log(tmp_path, "two", *(path.read_text().partition("---\n\n")[2], rate(2, "bad")))
    assert len(list(preferences_of_logs([worse]))) == len(pairs) and not list(preferences_of_logs([worse], rating="not-bad"))


def test_what_was_taken_back_is_compared_by_its_rating(tmp_path: Path) -> None:
    def pairs(*parts: str) -> list[tuple[str, str]]:
        found = preferences_of_logs([log(tmp_path, "one", *parts)])
        return [(chat.turns[-1].text, chat.rejected) for chat in found]

    again = (rate(2, "good"), UNDO, said("a", "2"))
    assert pairs(said("a", "1"), *again) == [] and pairs(said("a", "1"), *again, rate(4, "bad")) == [("1", "2")]
    elsewhere = (said("a", "1"), rate(2, "good"), UNDO, said("b", "2"), said("a", "3"), rate(6, "bad"))
    assert pairs(*elsewhere) == []  # the same words, after others


def test_the_same_answer_again_says_nothing(tmp_path: Path) -> None:
    assert not list(preferences_of_logs([log(tmp_path, "one", said("a", "1"), UNDO, said("a", "1"))]))
