"""The exchanges that Stacy is trained on: as many as are promised, and nothing that she is asked afterwards."""

from pathlib import Path

from bench.answers import QUESTIONS
from townhall.data.data_checks import alike
from townhall.data.training_chats import normal, read_chats

FOLDER = Path(__file__).resolve().parents[2] / "eg" / "finetune"


def test_there_are_150_exchanges_and_no_leaks() -> None:
    training, held_out = read_chats(FOLDER / "stacy.jsonl"), read_chats(FOLDER / "held-out.jsonl")
    assert sum(len(chat.replies) for chat in (*training, *held_out)) == 150
    assert not alike(training) and not alike(training, held_out)
    asked = {normal(turn.text) for chat in (*training, *held_out) for turn in chat.turns if turn.role == "user"}
    assert len(asked) == 150 and not asked & {normal(question) for question in QUESTIONS if question != "What is your name?"}


def test_few_replies_say_who_she_is() -> None:
    replies = [reply for chat in read_chats(FOLDER / "stacy.jsonl") for reply in chat.replies]
    assert sum("stacy" in reply.lower() for reply in replies) <= 2
