"""Commands on a real, tiny model: what the KV cache holds is used, what a context strategy let go comes back, and every log replays."""

import io
import json
import sys
from itertools import pairwise

import pytest

from tests.reference.tiny import make_tiny_gguf
from townhall.cli.main import main
from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", dim=128, context_length=512)


@pytest.fixture
def townhall(tmp_path, model, monkeypatch, capfd):
    (tmp_path / "ada.yaml").write_text("name: Ada\ndescription: Ada counts.\n")
    logs = tmp_path / "logs"

    def run(*args, stdin=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in stdin)))
        code = main(list(map(str, args)))
        return (code, *capfd.readouterr())

    def chat(*args, stdin):
        own = (
            ()
            if "--resume" in args
            else ("--model", model, "--personality", tmp_path / "ada.yaml", "--max-context", "400", "--count", "16")
        )
        code, out, err = run("chat", *own, "--log-to", logs, "--json", *args, stdin=stdin)
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def replay():
        for log in sorted(logs.glob("*.md")):
            code, out, err = run("replay", log)
            assert code == 0 and out.endswith("all the same\n"), (log.read_text(), out, err)
        return sorted(map(read_log, logs.glob("*.md")), key=lambda log: log.head["started"])

    return chat, replay


def test_what_the_cache_holds_is_not_read_again_and_what_was_taken_back_is_gone(townhall):
    chat, replay = townhall
    lines = ["One two", "Three", "/retry", "/edit Four", "/undo", "/prefill Five", "Three", "/retry", "Six"]
    first, second, again, edited, begun, without, last = chat("--seed", "1", stdin=lines)
    assert again["prompt_tokens"] == second["prompt_tokens"] == again["cached_tokens"] + 1
    assert edited["cached_tokens"] >= first["prompt_tokens"] + first["tokens"]
    assert begun["text"].startswith("Five") and begun["prompt_tokens"] > second["prompt_tokens"]
    assert without["prompt_tokens"] == second["prompt_tokens"] and not without["text"].startswith("Five")
    assert last["cached_tokens"] >= without["prompt_tokens"] and all(reply["receipt"]["recomputed_tokens"] == 0 for reply in (again, last))
    (log,) = replay()
    assert [turn.text for turn in log.turns] == ["One two", first["text"], "Three", without["text"], "Six", last["text"]]


@pytest.mark.parametrize("context", ["slide", "shift", "summarize"])
def test_a_long_talk_that_was_taken_back_branched_and_resumed_replays(townhall, context):
    chat, replay = townhall
    story = [f"I am Tom, number {n}, and I like it." for n in range(8)]
    replies = chat("--context", context, "--seed", "3", stdin=[*story, "/undo 2", "Seven", "/branch", "Eight", "/retry", "Nine"])
    assert any(reply["receipt"]["dropped"] for reply in replies)
    resumed = chat("--resume", "last", stdin=["Ten", "/undo", "Ten again", "/settings count 9", "/retry"])
    assert resumed[0]["receipt"]["dropped_tokens"] > 0 and resumed[-1]["tokens"] <= 9
    first, second = replay()
    assert len(first.turns) == 14 and len(second.turns) == 20
    for one, other in pairwise([first.turns[:14], second.turns[:14]]):
        assert [turn.text for turn in one] == [turn.text for turn in other]


@pytest.mark.parametrize("context", ["slide", "stop"])
def test_a_log_that_is_taken_up_leads_to_the_prompt_of_going_on(townhall, context):
    """The next answer is the one that the session would have given, had it not been left; sampled ids are kept, not tokenised anew."""
    chat, _ = townhall
    story = [f"Number {n}?" for n in range(5)]
    held = ("--context", context, "--temperature", "0")
    whole = chat(*held, stdin=[*story, "And now?"])
    chat(*held, stdin=story)
    (taken_up,) = chat("--resume", "last", stdin=["And now?"])
    assert taken_up["prompt_tokens"] == whole[-1]["prompt_tokens"] and taken_up["text"] == whole[-1]["text"]
