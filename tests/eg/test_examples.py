"""The examples run as they stand, from any folder, whatever path leads to them, with the fake model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EG = Path(__file__).resolve().parents[2] / "eg"
FAKE = ["--model", "fake:echo"]


def run(script, *args, cwd):
    # the interpreter that runs the tests is the one that the examples find where nothing is installed
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run([str(script), *args, *FAKE], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("link", [None, "absolute", "relative"])
def test_watch_puts_a_conversation_where_you_are_and_answers_it(tmp_path, link):
    script = EG / "watch" / "watch.sh"
    if link:
        (tmp_path / "bin").mkdir()
        target = script if link == "absolute" else os.path.relpath(script, tmp_path / "bin")
        script = tmp_path / "bin" / "my-watch"
        script.symlink_to(target)
    done = run(script, "--once", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    asked = (EG / "watch" / "talk.chat").read_text()
    assert (tmp_path / "talk.chat").read_text() == f"{asked}\nGary: What is the capital of Japan?\n\nUser: "
    again = run(script, "--once", cwd=tmp_path)
    assert again.returncode == 0 and "there is nothing to answer" in again.stderr  # what is there is gone on with, not replaced


def test_free_form_carries_its_story_on(tmp_path):
    done = run(EG / "free-form" / "free-form.sh", "--once", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    begun, now = (EG / "free-form" / "story.txt").read_text().rstrip(), (tmp_path / "story.txt").read_text()
    assert now.startswith(begun) and len(now) > len(begun) + 50 and now.endswith("\n") and not now.endswith("\n\n")


def test_one_shot_prints_the_answer_and_leaves_the_question_as_it_is(tmp_path):
    question = EG / "one-shot" / "question.chat"
    before = question.read_bytes()
    done = run(EG / "one-shot" / "one-shot.sh", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == f"{before.decode()}\nStacy: What year was the French Revolution?\n\nUser: \n", (
        done.stderr
    )
    (own := tmp_path / "own.txt").write_text("User: Hi")
    done = run(EG / "one-shot" / "one-shot.sh", "own.txt", "--personality", "gary", cwd=tmp_path)
    assert done.stdout == "User: Hi\n\nGary: Hi\n\nUser: \n" and own.read_text() == "User: Hi" and question.read_bytes() == before
