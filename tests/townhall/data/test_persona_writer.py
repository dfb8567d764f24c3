"""Drafts by a model: what fails a check is left out and counted."""

import json
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from tests.townhall.via.misbehaving import Misbehaving, fails, says
from townhall.cli.main import main
from townhall.data.persona_writer import PersonaWriter, fault_of, first_line
from townhall.persona import Example, Persona

PERSONA = Persona("Stacy", "Stacy was a rapper all her life and loves to answer questions in rhyme.", examples=(Example("a", "b"),))
GOOD = "The moon is far away, my dear, and it never phones."


@pytest.mark.parametrize(
    "said, fault",
    [
        (GOOD, ""),
        ("", "empty"),
        ("Yes.", "short"),
        ("word " * 130 + ".", "long"),
        ("It begins well and then it is cut off in the", "long"),
        ("It is far away.<|im_end|> And more.", "markup"),
        ("It is far.\nUser: and then?", "markup"),
        ("I said that Stacy was a rapper all her life and loves to sing.", "copied"),
        ("they are so good and they are so good and they are so good and they are so good.", "loops"),
    ],
)
def test_answers_are_checked(said: str, fault: str) -> None:
    assert fault_of(said, PERSONA) == fault


@pytest.mark.parametrize("text", ["1. How far is it?", '"How far is it?"\nSo.', "Question: How far is it?", "\n- How far is it?"])
def test_questions_are_taken_out_of_what_is_around_them(text: str) -> None:
    assert first_line(text) == "How far is it?"


def test_what_passes_is_kept_and_the_rest_counted() -> None:
    number = count()
    questions = ["How far is it?", "no question", "How far is it?", "Why is it so?", "Who is that?", "When will it be?"]
    answers = iter([GOOD, "Yes.", GOOD, "It will be soon, I promise."])
    writer = PersonaWriter(PERSONA, lambda message, seed: questions[next(number)], lambda message, seed: next(answers), Counter())
    chats = list(writer.write(2, topics=("space",)))
    assert [chat.replies[0] for chat in chats] == [GOOD, "It will be soon, I promise."]
    assert writer.left_out == {"question": 1, "asked before": 1, "short": 1, "said before": 1}


def test_it_gives_up_on_a_model_that_cannot() -> None:
    writer = PersonaWriter(PERSONA, lambda message, seed: "no", lambda message, seed: GOOD, Counter())
    assert list(writer.write(3)) == [] and writer.left_out["question"] == 30


@pytest.mark.slow
def test_a_server_writes_where_it_is_asked_and_a_fault_keeps_what_there_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    questions = [says(f"What is {thing} good for?") for thing in ("rain", "wood")]
    answers = [says("Rain is good for gardens, my dear."), says("Wood is good for ships and fires.")]
    with Misbehaving(questions[0], answers[0], questions[1], answers[1], fails(401)) as server:
        out = tmp_path / "draft.jsonl"
        flags = ["--via", server.url, "--via-model", "big", "--count", "3", "--personality", "gary"]
        assert main(["data", "from-persona", str(out), *flags]) == 2
        asked = [body["messages"] for _, body in server.asked]
    assert [json.loads(line)["messages"][-1]["content"] for line in out.read_text().splitlines()] == [
        "Rain is good for gardens, my dear.",
        "Wood is good for ships and fires.",
    ]
    assert asked[1][-1]["content"] == "What is rain good for?" and "Gary" in asked[1][0]["content"]
    assert "wants a key" in capfd.readouterr()[1]
    assert main(["data", "from-persona", str(out), *flags, "--model", "x.gguf"]) == 2
    assert "both say who writes" in capfd.readouterr()[1]


@pytest.mark.parametrize(
    "said", ['A: "Where do you sleep?"', '1. "Where do you sleep?"', "Question: Where do you sleep?\nA: In bed.", "Where do you sleep?"]
)
def test_a_question_is_taken_without_what_stands_around_it(said: str) -> None:
    assert first_line(said) == "Where do you sleep?"
