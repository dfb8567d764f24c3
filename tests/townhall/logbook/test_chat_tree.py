"""Swipes, branches, edits and deletions as they stand in a log."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from townhall.logbook import log_syntax, restore
from townhall.logbook.chat_tree import ChatTree
from townhall.logbook.log_reader import parse

HEAD = log_syntax.front_matter({"id": "x", "user": "User", "persona": "Stacy"})


def user(text, **facts):
    return log_syntax.turn("User", text, "user", facts)


def reply(text, **facts):
    return log_syntax.turn("Stacy", text, "reply", {"finish_reason": "stop", **facts})


def mark(kind, **facts):
    return log_syntax.mark(kind, facts)


def tree_of(*parts):
    return parse((HEAD + "".join(parts)).encode(), Path("talk.md")).tree


def path(tree):
    return [node.id for node in tree.path()]


SWIPED = (user("a", id=1), reply("1", id=2), mark("branch", turn=1), reply("1b", id=3), user("b", id=4), reply("2", id=5))


@pytest.mark.parametrize(
    "marks, left",
    [
        ([], [1, 3, 4, 5]),
        ([mark("choose", turn=2)], [1, 2]),
        ([mark("choose", turn=2), mark("choose", turn=3)], [1, 3, 4, 5]),
        ([mark("choose", turn=4)], [1, 3, 4, 5]),
        ([mark("branch", turn=3)], [1, 3]),
        ([mark("branch", turn=3), user("c")], [1, 3, 6]),
        ([mark("branch", turn=3), user("c"), mark("choose", turn=4)], [1, 3, 4, 5]),
        ([mark("branch", turn=0), user("c")], [6]),
        ([mark("branch", turn=3), mark("undo")], []),
        ([mark("undo")], [1, 3]),
        ([mark("undo", turns=2), user("c")], [6]),
        ([mark("delete", turn=3)], [1, 4, 5]),
        ([mark("delete", turn=3, below=True)], [1, 2]),
        ([mark("delete", turn=5)], [1, 3, 4]),
        ([mark("delete", turn=1)], [3, 4, 5]),
        ([mark("delete", turn=3, below=True), mark("delete", turn=2)], [1]),
        ([mark("choose", turn=2), mark("delete", turn=2)], [1, 3, 4, 5]),
        ([mark("delete", turn=3), mark("choose", turn=3), mark("branch", turn=3)], [1, 4, 5]),  # it is there no more
        ([mark("choose", turn=99), mark("branch", turn="3"), mark("delete", turn=True), mark("branch")], [1, 3, 4, 5]),
        ([mark("reset"), user("c"), reply("3")], [6, 7]),
        ([mark("reset"), user("c"), mark("choose", turn=2)], [1, 2]),
    ],
)
def test_marks_lead_the_path(marks, left):
    assert path(tree_of(*SWIPED, *marks)) == left


def test_swipes_are_the_turns_of_one_speaker_in_one_place():
    tree = tree_of(*SWIPED, mark("branch", turn=2), user("c", id=6))
    assert [[one.id for one in tree.swipes(tree.nodes[id])] for id in (1, 2, 4, 6)] == [[1], [2, 3], [4], [6]]
    assert tree.is_chosen(tree.nodes[2]) and not tree.is_chosen(tree.nodes[3])


def test_an_edited_turn_reads_as_it_was_edited_and_its_first_words_stay_in_the_file():
    log = parse((HEAD + "".join([*SWIPED, reply("one", edits=3), user("B", edits=4, at="x")])).encode(), Path("talk.md"))
    assert [(turn.id, turn.text) for turn in log.turns] == [(1, "a"), (3, "one"), (4, "B"), (5, "2")]
    assert log.tree.nodes[3].edited and log.tree.nodes[3].facts == {"finish_reason": "stop", "id": 3}
    assert [event.text for event in log.events if not isinstance(event, tuple)] == ["a", "1", "1b", "b", "2", "one", "B"]


@pytest.mark.parametrize(
    "marks, rated",
    [
        ([mark("rate", turn=5, rating="good")], {5: "good"}),
        (
            [mark("rate", turn=5, rating="good"), mark("rate", turn=2, rating="bad"), mark("rate", turn=5, rating="bad")],
            {5: "bad", 2: "bad"},
        ),
        ([mark("rate", turn=5, rating="good"), mark("rate", turn=5, rating=None)], {}),
        ([mark("rate", turn=5, rating="good"), mark("choose", turn=2), mark("branch", turn=3)], {5: "good"}),
        ([mark("rate", turn=5, rating="good"), reply("other", edits=5)], {}),  # it was of other words
        ([mark("rate", turn=5, rating="good"), reply("2", edits=5)], {5: "good"}),
        ([mark("rate", turn=5, rating="good"), reply("2 and more", continues=5)], {}),
        ([mark("rate", turn=5, rating="bad"), reply("other", edits=5), mark("rate", turn=5, rating="good")], {5: "good"}),
        ([mark("delete", turn=5), mark("rate", turn=5, rating="good")], {}),
        ([mark("rate", turn=4, rating="good"), mark("rate", turn=9, rating="good"), mark("rate", rating="good")], {}),
        ([mark("rate", turn=5, rating="good"), *(mark("rate", turn=5, rating=x) for x in ("fine", 1, [], {}, True))], {5: "good"}),
        ([mark("rate", turn=5, rating="good"), mark("rate", turn=5), mark("rates", turn=5, rating="bad")], {5: "good"}),
        ([user("c", rating="good"), reply("3", rating="bad"), reply("4", rating=7)], {7: "bad"}),  # as a copied chat has them
    ],
)
def test_the_last_rating_of_a_reply_counts(marks, rated):
    log = parse((HEAD + "".join([*SWIPED, *marks])).encode(), Path("talk.md"))
    assert {node.id: node.rating for node in log.tree.nodes.values() if node.rating} == rated and not log.damages


def test_a_reply_that_was_carried_on_has_the_facts_of_its_end():
    tree = tree_of(*SWIPED, reply("2 and more", continues=5, tokens=[7, 8, 9], given_tokens=1))
    assert tree.nodes[5].turn.text == "2 and more" and tree.nodes[5].facts["given_tokens"] == 1 and not tree.nodes[5].edited


def test_numbers_stay_whatever_a_person_puts_between_or_takes_away():
    by_hand = tree_of(SWIPED[0], SWIPED[1], "## User\nput in\n\n## Stacy\nby hand\n", *SWIPED[2:])
    assert sorted(by_hand.nodes) == [1, 2, 3, 4, 5, 6, 7] and by_hand.nodes[3].turn.text == "1b" and by_hand.next_id == 8
    assert path(by_hand) == [1, 3, 4, 5] and [node.turn.text for node in by_hand.below(2)] == ["put in"]
    assert path(tree_of(*SWIPED[1:])) == [2, 3, 4, 5]  # the question is gone, so nothing says where the swipe stood
    assert path(tree_of(user("a"), reply("1"), user("b"))) == [1, 2, 3]


def test_settings_are_the_last_values():
    tree = tree_of(mark("set", tags=["a"], settings={"seed": 1, "think": True}), mark("set", settings={"seed": None, "x": 2}, note=None))
    assert tree.settings == {"tags": ["a"], "settings": {"think": True, "x": 2}}


def test_who_speaks_twice_is_heard_as_once_where_turns_have_numbers():
    def said(*parts):
        found, waiting = restore.split(node.turn for node in tree_of(*parts).path())
        return [(question.text, answer.text) for question, answer in found], waiting and waiting.text

    assert said(*SWIPED, mark("delete", turn=3)) == ([("a\n\nb", "2")], None)
    assert said(*SWIPED, mark("delete", turn=1), mark("delete", turn=4)) == ([("", "1b\n\n2")], None)
    assert said(*SWIPED, user("c", id=6), user("d", id=7)) == ([("a", "1b"), ("b", "2")], "c\n\nd")
    assert said(user("c"), user("d"), reply("1"), reply("2"), user("e")) == ([("d", "1")], "e")  # as older programs kept it


EVENTS = st.one_of(
    st.builds(lambda turn, rating: mark("rate", turn=turn, rating=rating), st.integers(1, 9), st.sampled_from(["good", "bad", None])),
    st.sampled_from([user("a"), reply("b"), mark("reset"), mark("undo"), mark("undo", turns=2), mark("branch", turn=0)]),
    st.builds(lambda kind, turn: mark(kind, turn=turn), st.sampled_from(["branch", "choose", "delete"]), st.integers(1, 9)),
    st.builds(lambda turn: mark("delete", turn=turn, below=True), st.integers(1, 9)),
)


@given(st.lists(EVENTS, max_size=24))
def test_no_turn_is_lost_and_every_path_holds_what_stands_only(parts):
    log = parse((HEAD + "".join(parts)).encode(), Path("talk.md"))
    tree = log.tree
    assert len(tree.nodes) == sum(not isinstance(event, tuple) for event in log.events)
    assert sorted(turn.id for turn in tree.taken()) == sorted(node.id for node in tree.nodes.values() if node.taken)
    standing = {node.id for node in tree}
    assert set(path(tree)) <= standing and {turn.id for turn in log.turns} <= standing
    for node in tree:
        tree.apply(("choose", {"turn": node.id}))
        assert node.id in path(tree) and [one.id for one in tree.path_to(node.id)] == path(tree)[: path(tree).index(node.id) + 1]
        assert node in tree.swipes(node)
    again = ChatTree(log.events)
    assert [node.id for node in again.path()] == [turn.id for turn in ChatTree(log.events).turns()][
        len(again.turns()) - len(again.path()) :
    ]
