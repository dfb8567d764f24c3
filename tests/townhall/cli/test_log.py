"""`townhall log`: what was kept, listed, shown, searched, exported, indexed anew."""

import json

import pytest

from tests.townhall.cli.test_keeping import townhall as chat
from tests.townhall.logbook.test_log_syntax import TALK, spell
from townhall.cli.main import main


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "user_data" / "townhall" / "logs"


@pytest.fixture
def log(capfd):
    """Run `townhall log …`; gives (exit code, stdout, stderr)."""

    def run(*args):
        code = main(["log", *map(str, args)])
        return (code, *capfd.readouterr())

    return run


def test_talks_are_listed_shown_searched_and_exported(log, folder):
    chat(stdin="How far is the moon?\nTwo\n")
    chat("--personality", "gary", stdin="Hello\n")
    code, out, _ = log("list")
    rows = out.splitlines()
    assert code == 0 and len(rows) == 2 and "Gary" in rows[0] and "4 turns  How far is the moon?" in rows[1]
    entries = [json.loads(line) for line in log("list", "--json")[1].splitlines()]
    assert [entry["persona"] for entry in entries] == ["Gary", "Stacy"] and entries[0]["model"] == "fake:echo"
    assert log("list", "--limit", "1")[1] == rows[0] + "\n"
    assert log("show", "last")[1] == "User: Hello\nGary: Hello\n"
    assert log("show", entries[1]["id"])[1] == "User: How far is the moon?\nStacy: How far is the moon?\nUser: Two\nStacy: Two\n"
    assert len(log("search", "MOON", "far")[1].splitlines()) == 2 and "no turn" in log("search", "sun")[2]
    assert [json.loads(line)["speaker"] for line in log("search", "moon", "--json")[1].splitlines()] == ["User", "Stacy"]
    info = json.loads(log("export", "last")[1])
    assert info["turns"][1]["text"] == "Hello" and info["turns"][1]["facts"]["tokens"] and info["head"]["persona"] == "Gary"
    assert "**User:** Hello\n\n**Gary:** Hello\n" in log("export", entries[0]["path"], "--markdown")[1]
    assert "2 logs in" in log("reindex")[2] and log("list")[1] == out


def test_what_is_damaged_is_told_and_can_be_looked_at(log, tmp_path):
    path = tmp_path / "a.md"
    path.write_bytes(spell(*TALK).replace(b"Farther", b"Fa\xffther") + b"\n## User\nWell\n\n## Stacy\nI was sa")
    code, out, err = log("show", path)
    assert code == 0 and "And the sun?" in out and "ther" not in out.split("sun?")[1] and out.endswith("Stacy: I was sa\n")
    assert "bytes that are not UTF-8; `townhall log show --damaged` prints it" in err and "has no receipt" in err
    assert "Fa\N{REPLACEMENT CHARACTER}ther" in log("show", path, "--damaged")[1]


def test_ratings_are_shown_and_exported(log, folder):
    chat(stdin="One\n/rate good\nTwo\n")
    code, out, err = log("show", "last")
    assert code == 0 and out == "User: One\nStacy: One\nUser: Two\nStacy: Two\n" and err.count("(rated good)") == 1
    assert [turn["rating"] for turn in json.loads(log("export", "last")[1])["tree"]] == [None, "good", None, None]


def test_the_folder_can_be_named_by_flag_or_setting(log, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.md").write_bytes(spell(*TALK))
    assert "How far" in log("list", "--log-to", tmp_path / "mine")[1] and "no logs in" in log("list")[2]
    (tmp_path / "user_config" / "townhall").mkdir(parents=True)
    (tmp_path / "user_config" / "townhall" / "settings.yaml").write_text(f"log_to: {tmp_path / 'mine'}\n")
    assert "How far" in log("list")[1]


@pytest.mark.parametrize(
    "args, fault",
    [
        (["show", "20990101"], "is called '20990101'; `townhall log list` names them"),
        (["show", "last"], "is called 'last'"),
        (["export", "missing.md"], "log missing.md is not a file"),
        (["search"], "Missing argument"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(log, args, fault):
    code, out, err = log(*args)
    assert code == 2 and not out and fault in err and len(err.splitlines()) == 1 and err.startswith("townhall: ")
