"""A window that was not asked for fits itself to a model that was trained for fewer tokens, and says so; one that was is refused."""

import io
import json
import sys
from pathlib import Path

import httpx
import pytest

from tests.reference.tiny import make_tiny_gguf
from tests.townhall.server.running import Running
from townhall.cli import terminal
from townhall.cli.chat_options import ChatOptions
from townhall.cli.main import main
from townhall.cli.model_loading import load
from townhall.cli.serve import answering
from townhall.default_window import WINDOW
from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow

NOTE = "tiny.gguf was trained for 256 tokens, so that is its context window instead of 1024"
REFUSAL = "townhall: --max-context 300 exceeds the 256 tokens that tiny.gguf was trained for; pass 256 or less"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf"))


@pytest.fixture
def ada(tmp_path):
    (tmp_path / "ada.yaml").write_text("name: Ada\ndescription: Ada counts.\n")
    return str(tmp_path / "ada.yaml")


@pytest.fixture
def townhall(monkeypatch, capfd):
    def run(*args, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main(list(map(str, args)))
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def commands(model, ada, tmp_path):
    """Each command that loads a model, and what is typed to it."""
    (tmp_path / "talk.chat").write_text("User: Hi\n\n")
    return {
        "chat": (("chat", "--model", model, "--personality", ada, "--count", "3"), "Hi\n"),
        "prompt": (("chat", "--model", model, "--prompt", "Once", "--count", "3"), ""),
        "watch": (("watch", "--model", model, "--personality", ada, "--count", "3", "--once", tmp_path / "talk.chat"), ""),
        "warm": (("warm", "--model", model), ""),
    }


@pytest.mark.parametrize("command", ["chat", "prompt", "watch", "warm"])
def test_a_default_fits_itself_and_only_what_was_asked_for_is_refused(townhall, commands, command):
    arguments, typed = commands[command]
    code, _, said = townhall(*arguments, stdin=typed)
    assert code == 0 and said.count(NOTE) == 1, said
    code, _, said = townhall(*arguments, "--max-context", "300", stdin=typed)
    assert code == 2 and REFUSAL in said.splitlines()
    if command != "watch":
        code, _, said = townhall(*arguments, "--max-context", "200", stdin=typed)
        assert code == 0 and "trained for" not in said


def test_a_settings_file_asks_as_a_flag_does(townhall, commands, tmp_path):
    (tmp_path / "mine.yaml").write_text("max_context: 300\n")
    arguments, typed = commands["chat"]
    code, _, said = townhall(*arguments, "-c", tmp_path / "mine.yaml", stdin=typed)
    assert code == 2 and REFUSAL in said.splitlines()
    (tmp_path / "mine.yaml").write_text("max_context: null\n")
    code, _, said = townhall(*arguments, "-c", tmp_path / "mine.yaml", stdin=typed)
    assert code == 0 and NOTE in said
    code, _, said = townhall("chat", "--model", "fake:echo", "-c", "default", "--no-log", stdin="/settings max_context\n")
    assert code == 0 and f"max_context is {WINDOW}" in said


def test_a_persona_that_leaves_no_room_is_told_of_what_helps(townhall, model):
    code, _, said = townhall("chat", "--model", model, stdin="Hi\n")
    assert code == 2 and "--max-context" not in said
    assert "Stacy's persona leaves no room to talk in the 256 tokens that the model was trained for; name a shorter one" in said


def test_a_log_keeps_the_window_that_was_and_a_replay_fits_any(townhall, commands, model, tmp_path):
    (arguments, _), log = commands["prompt"], tmp_path / "a.md"
    assert townhall(*arguments, "--log-to", log)[0] == 0
    assert read_log(log).head["settings"]["max_context"] == 256
    code, out, said = townhall("replay", log)
    assert (code, out) == (0, "1 reply, 3 tokens: all the same\n") and "trained for" not in said
    # a log that was held with a larger window, on another model: replay has no flag to mend that with
    larger = make_tiny_gguf(tmp_path / "larger.gguf", context_length=512)
    assert townhall(*arguments, "--model", larger, "--log-to", tmp_path / "b.md", "--max-context", "300")[0] == 0
    code, out, said = townhall("replay", tmp_path / "b.md", "--model", model)
    assert (code, out) == (0, "1 reply, 3 tokens: all the same\n")
    assert "tiny.gguf was trained for 256 tokens, so that is its context window instead of 300" in said


def test_a_session_shows_its_window_and_moves_to_a_smaller_model(townhall, ada, model, tmp_path):
    larger = make_tiny_gguf(tmp_path / "larger.gguf", context_length=2048)
    lines = f"/settings max_context\n/model {model}\n/settings max_context\n"
    code, _, said = townhall("chat", "--model", larger, "--personality", ada, stdin=lines)
    assert code == 0 and said.index("max_context is 1024") < said.index(NOTE) < said.index("max_context is 256")


def test_personas_that_were_not_named_are_left_out_of_the_page(model, capfd):
    options = ChatOptions(model=Path(model), cache=False)
    server = Running(lambda: load(options), answering(options, ()), note=terminal.note)
    try:
        assert [one["id"] for one in httpx.get(f"{server.url}/models").json()["data"]] == ["tiny"]
    finally:
        server.stop()
    said = capfd.readouterr().err
    assert NOTE in said and "stacy is not served: the persona leaves no room to talk in a window of 256 tokens" in said


def test_other_errors_of_a_model_stay_what_they_are(townhall, tmp_path):
    wrong = make_tiny_gguf(tmp_path / "wrong.gguf", overrides={"llama.context_length": 0})
    code, _, said = townhall("chat", "--model", wrong, "--prompt", "Once")
    assert code == 2 and "trained for" not in said and json.dumps("context_length")[1:-1] in said
