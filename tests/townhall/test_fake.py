"""The double: the same interfaces without weights, without tinygrad, at a speed that a script sets."""

import os
import subprocess
import sys

import pytest

from townhall.conversation import Conversation
from townhall.errors import ModelError
from townhall.fake.fake_model import open_fake, read_script
from townhall.persona import Example, Persona

pytestmark = pytest.mark.slow

PERSONA = Persona("Stacy", "Stacy raps.", examples=(Example("Your name?", "Stacy."),))


def chat_state(model, **settings):
    return Conversation(model, PERSONA, sampling=object(), **settings)


def write(tmp_path, text):
    path = tmp_path / "script.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("format", ["chat_template", "chat_log"])
@pytest.mark.parametrize("text", ["Hi", "What of it: 1, 2?", "two lines:\nand User: a third\n\nfourth", "käse 🧀", "[not EOS]"])
def test_echo_says_what_the_user_said_in_every_format_and_turn(format, text):
    conversation = chat_state(open_fake("fake:echo"), format=format)
    for _ in range(3):
        assert "".join(conversation.reply(text)) == text


def test_replies_come_one_after_another_and_then_again_token_by_token(tmp_path):
    script = write(tmp_path, "replies:\n- One two.\n- {text: Three.}\n- {tokens: [Fo, ur, .]}\n")
    conversation = chat_state(open_fake(f"fake:script={script}"))
    said = [list(conversation.reply("Go on")) for _ in range(4)]
    assert said == [["One", " two", "."], ["Three", "."], ["Fo", "ur", "."], ["One", " two", "."]]
    assert conversation.last.device == "FAKE" and conversation.last.finish_reason == "stop"


def test_a_script_sets_the_pace(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    script = write(tmp_path, "pause: 0.25\nprefill: 2\nreplies:\n- One two\n- {text: Three, pause: 0, prefill: 1}\n")
    conversation = chat_state(open_fake(f"fake:script={script}"))
    assert "".join(conversation.reply("Go on")) == "One two" and slept == [2, 0.25, 0.25, 0.25]
    slept.clear()
    assert "".join(conversation.reply("Go on")) == "Three" and slept == [1]


def test_what_a_double_says_is_its_fingerprint(tmp_path):
    def fingerprint(text):
        return open_fake(f"fake:script={write(tmp_path, text)}").fingerprint

    one = fingerprint("replies: [Yes.]")
    assert fingerprint("replies: [No.]") != one == fingerprint("pause: 0.1\nreplies:\n- Yes.\n") != open_fake("fake:echo").fingerprint


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "is empty; it needs a list of replies"),
        ("replies: []\n", "'replies' must be a list of at least one text"),
        ("replies: Hello\n", "line 1: 'replies' must be a list"),
        ("repleis: [a]\n", "unknown key 'repleis'; did you mean 'replies'"),
        ("replies: [a]\npause: -1\n", "line 2: 'pause' must be a number from 0 to 60"),
        ("replies: [a]\npause: .nan\n", "line 2: 'pause' must be a number"),
        ("replies: [a]\npause: soon\n", "line 2: 'pause' must be a number"),
        ("replies:\n- 3\n", "line 2: 'replies' must be text, not int"),
        ("replies:\n- {text: a, tokens: [b]}\n", "line 2: a reply needs 'text' or 'tokens'"),
        ("replies:\n- {pause: 1}\n", "line 2: a reply needs 'text' or 'tokens'"),
        ("replies: [a\n", "line 2: "),
    ],
)
def test_a_broken_script_is_named_with_its_line_and_fault(tmp_path, text, fault):
    with pytest.raises(ModelError, match=fault) as caught:
        read_script(write(tmp_path, text))
    assert "script.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="pipe is not a file"):
        read_script(tmp_path / "pipe")


@pytest.mark.parametrize("model", ["fake:", "fake:eco", "fake:echo=3", "fake:script", "fake:script="])
def test_a_double_that_there_is_not_is_refused(model):
    with pytest.raises(ModelError, match="pass fake:echo or fake:script=FILE"):
        open_fake(model)


def townhall(*args, stdin="", **env):
    return subprocess.run([sys.executable, "-m", "townhall", *args], input=stdin, capture_output=True, text=True, env=os.environ | env)


def test_the_program_talks_to_a_double_without_tinygrad_or_numpy():
    code = "import sys; from townhall.cli.main import main; assert main(['chat', '--model', 'fake:echo']) == 0; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], input="Hi\n", capture_output=True, text=True)
    answer, modules = done.stdout.splitlines()
    assert answer == "Hi" and not {"tinygrad", "numpy", "pydantic", "sqlite3"} & set(modules.split()), done.stderr


def test_the_program_says_that_it_is_a_double():
    done = townhall("chat", "--model", "fake:echo", "--json", stdin="Hi\n")
    assert '"backend": {"device": "FAKE"' in done.stdout and "FAKE: a scripted double" in done.stderr


def test_completion_over_a_double_echoes_the_last_line():
    assert townhall("chat", "--model", "fake:echo", "--prompt", "One\ntwo three").stdout == "two three\n"


@pytest.mark.parametrize(
    "args, fault",
    [
        (["--model", "fake:nobody"], "names no double"),
        (["--model", "fake:script=missing.yaml"], "script missing.yaml cannot be read: No such file"),
        (["--model", "fake:echo", "--temperature", "-1"], "--temperature -1.0 is out of range"),
        (["--model", "fake:echo", "--require", "gpu"], "runs on no device at all"),
    ],
)
def test_wrong_flags_end_with_one_sentence_and_exit_code_2(args, fault):
    done = townhall("chat", *args)
    assert done.returncode == 2 and fault in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout
