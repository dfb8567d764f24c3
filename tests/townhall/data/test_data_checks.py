"""Duplicates, leaks, and a split that keeps conversations whole."""

import random

from townhall.data.data_checks import Lengths, alike, split, without_duplicates
from townhall.data.training_chats import Said, TrainingChat


def chat(question: str, reply: str, source: str) -> TrainingChat:
    return TrainingChat((Said("user", question), Said("assistant", reply)), source=source)


LONG = "the moon is about three hundred and eighty four thousand kilometres away from the earth"


def test_equal_and_nearly_equal_conversations_are_found() -> None:
    chats = [
        chat("How far is it?", LONG, "a"),
        chat("how far is it", LONG.upper() + "!", "b"),
        chat("How far is it?", LONG + " my dear", "c"),
    ]
    chats += [chat("Who are you?", "A rapper.", "d")]
    pairs = {(pair.first, pair.second): pair for pair in alike(chats)}
    assert pairs["a", "b"].exact and not pairs["a", "c"].exact and pairs["a", "c"].share > 0.8
    assert not any("d" in pair for pair in pairs)
    assert [chat.source for chat in without_duplicates(chats)] == ["a", "c", "d"]


def test_only_pairs_of_both_sides_are_leaks() -> None:
    training = [chat("x", LONG, "a"), chat("x", LONG, "b"), chat("y", "something else", "c")]
    assert {(leak.first, leak.second) for leak in alike(training, [chat("x", LONG, "t")])} == {("a", "t"), ("b", "t")}
    assert alike(training, [chat("z", "nothing of this", "t")]) == []


def test_a_split_keeps_sources_whole_and_follows_its_seed() -> None:
    order = random.Random(1)
    chats = [chat(str(n), "x", f"log {n // 3}") for n in range(60)]
    training, test = split(chats, 0.2, seed=1)
    assert len(training) + len(test) == 60 and 12 <= len(test) <= 14
    assert not {one.source for one in training} & {one.source for one in test}
    shuffled = chats[:]
    order.shuffle(shuffled)
    assert {one.source for one in split(shuffled, 0.2, seed=1)[1]} == {one.source for one in test}
    assert {one.source for one in split(chats, 0.2, seed=2)[1]} != {one.source for one in test}


def test_lengths() -> None:
    assert Lengths.of([10, 20, 30], [1, 2, 3]) == Lengths(60, 6, 30, 20, 28)
    assert Lengths.of([], []).longest == 0
