"""What `townhall chat` keeps: every conversation, unless it is told not to."""

import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "user_data" / "townhall" / "logs"


def townhall(*args, stdin="Hi\nHo\n", model="fake:echo", **settings):
    command = [sys.executable, "-m", "townhall", "chat", "--model", model, *map(str, args)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, **settings)


def logs(folder):
    return [read_log(path) for path in sorted(folder.glob("*.md"))]


def test_every_conversation_is_kept_with_all_it_takes_to_repeat_it(folder):
    townhall("--seed", "7", "--count", "20")
    (log,) = logs(folder)
    assert [(turn.role, turn.text) for turn in log.turns] == [("user", "Hi"), ("assistant", "Hi"), ("user", "Ho"), ("assistant", "Ho")]
    assert (log.head["persona"], log.head["user"], log.head["device"]) == ("Stacy", "User", "FAKE") and log.head["weights"].startswith(
        "fake"
    )
    assert log.head["settings"] | {"model": "fake:echo", "count": 20, "context": "slide"} == log.head["settings"]
    facts = log.turns[1].facts
    assert facts["finish_reason"] == "stop" and facts["sampler"]["seed"] == 7 and len(facts["prompt_sha256"]) == 64
    assert len(facts["tokens"]) == 1 and facts["receipt"]["strategy"] == "slide" and facts["identity"]["model"] == log.head["weights"]
    assert not log.damages


def test_a_seed_that_nobody_chose_is_written_down_and_is_another_each_time(folder):
    townhall()
    seeds = [turn.facts["sampler"]["seed"] for turn in logs(folder)[0].turns[1::2]]
    assert all(isinstance(seed, int) for seed in seeds) and seeds[0] != seeds[1]


def test_no_log_and_a_setting_keep_nothing(folder, tmp_path):
    townhall("--no-log")
    (tmp_path / "quiet.yaml").write_text("log: false\n")
    townhall("-c", tmp_path / "quiet.yaml")
    assert not folder.exists()
    townhall("-c", tmp_path / "quiet.yaml", "--log")
    assert len(logs(folder)) == 1


def test_nothing_said_leaves_nothing(folder):
    assert townhall(stdin="").returncode == 0
    assert not folder.exists()


def test_a_line_that_is_refused_is_no_turn(folder):
    townhall("--max-context", "512", stdin=f"Hi\n{'word ' * 600}\nHo\n")
    assert [turn.text for turn in logs(folder)[0].turns] == ["Hi", "Hi", "Ho", "Ho"]


def test_a_folder_or_one_file_can_be_named(tmp_path, folder):
    townhall("--log-to", tmp_path / "mine")
    assert len(logs(tmp_path / "mine")) == 1 and not folder.exists()
    diary = tmp_path / "diary.md"
    townhall("--log-to", diary, stdin="One\n")
    townhall("--log-to", diary, stdin="Two\n")
    assert [(turn.text, turn.after_reset) for turn in read_log(diary).turns] == [
        ("One", False),
        ("One", False),
        ("Two", False),
        ("Two", False),
    ]
    receipts = [turn.facts for turn in read_log(diary).turns[1::2]]
    assert receipts[1]["prompt_tokens"] > receipts[0]["prompt_tokens"] + 5  # the model was given what the file holds


def test_a_file_with_another_kind_of_talk_is_not_gone_on_with(tmp_path):
    diary = tmp_path / "diary.md"
    townhall("--log-to", diary)
    before = diary.read_bytes()
    for flags, fault in (
        (["--personality", "gary"], "persona Stacy, and this one has Gary"),
        (["--top-k", "3"], "top_k 40, and this one has 3; name another file, or pass --top-k 40"),
    ):
        done = townhall("--log-to", diary, *flags)
        assert done.returncode == 2 and fault in done.stderr and done.stderr.splitlines()[-1].startswith("townhall: log ")
    assert diary.read_bytes() == before
    (tmp_path / "notes.md").write_text("# Shopping\n")
    assert "notes.md does not begin as a log does; name another file" in townhall("--log-to", tmp_path / "notes.md").stderr
    (tmp_path / "empty.md").touch()
    townhall("--log-to", tmp_path / "empty.md")
    assert len(read_log(tmp_path / "empty.md").turns) == 4 and not read_log(tmp_path / "empty.md").damages


def test_two_processes_do_not_write_one_log(tmp_path):
    diary = tmp_path / "diary.md"
    command = [sys.executable, "-m", "townhall", "chat", "--model", "fake:echo", "--log-to", str(diary)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    first.stdin.write("Hi\n")
    first.stdin.flush()
    assert first.stdout.readline() == "Hi\n"
    second = townhall("--log-to", diary)
    assert second.returncode == 2 and "is being written by another townhall" in second.stderr and not second.stdout
    first.communicate("Ho\n")
    assert [turn.text for turn in read_log(diary).turns] == ["Hi", "Hi", "Ho", "Ho"]


def test_a_full_disk_costs_the_log_only(tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # it would be cut
    done = townhall("--log-to", tmp_path / "a.md", stdin="Hi\n" * 20, preexec_fn=small_files, env=environment)
    assert done.returncode == 0 and done.stdout == "Hi\n" * 20
    info = [line for line in done.stderr.splitlines() if "goes on all the same" in line]
    assert len(info) == 1 and info[0].startswith("townhall: ") and "File too large" in info[0]
    log = read_log(tmp_path / "a.md")
    assert log.turns and not log.damages and all(turn.facts for turn in log.turns)


def test_an_answer_that_is_interrupted_is_kept_as_far_as_it_was_shown(tmp_path):
    script = tmp_path / "slow.yaml"
    script.write_text("pause: 0.02\nreplies: ['" + "more " * 300 + "']\n")
    command = [sys.executable, "-m", "townhall", "chat", "--model", f"fake:script={script}", "--log-to", str(tmp_path / "a.md")]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    program.stdin.write(b"Go\n")
    program.stdin.flush()
    shown = os.read(program.stdout.fileno(), 4)
    program.send_signal(signal.SIGINT)
    shown += program.communicate()[0]
    turn = read_log(tmp_path / "a.md").turns[1]
    assert turn.facts["finish_reason"] == "interrupted" and turn.text == shown.decode().rstrip("\n") and turn.text.startswith("more")


def test_the_answer_is_on_the_disk_before_its_line_ends(tmp_path):
    """Who has seen an answer end can rely on the log."""
    command = [sys.executable, "-m", "townhall", "chat", "--model", "fake:echo", "--log-to", str(tmp_path / "a.md")]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for n in range(1, 6):
        program.stdin.write(f"{n}\n")
        program.stdin.flush()
        assert program.stdout.readline() == f"{n}\n"
        assert [turn.text for turn in read_log(tmp_path / "a.md").turns if turn.facts][-2:] == [str(n)] * 2
    program.kill()
    program.communicate()


def test_json_stays_json(folder):
    assert [json.loads(line)["text"] for line in townhall("--json").stdout.splitlines()] == ["Hi", "Ho"]
