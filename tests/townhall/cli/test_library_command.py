"""`townhall library`: add, list, search, remove, watch; a pipe gets plain text, wrong input one sentence."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from townhall.cli.main import main
from townhall.library import indexer

ROOT = Path(__file__).parents[3]


@pytest.fixture
def library(capfd):
    """Run `townhall library …`; gives (exit code, stdout, stderr)."""

    def run(*args):
        code = main(["library", *map(str, args)])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "moon.md").write_text("# The moon\n\nThe moon is about 384,000 kilometres away from the earth.\n")
    (folder / "bread.txt").write_text("Let the sourdough rest overnight in the fridge.\n")
    return folder


def test_documents_are_added_listed_found_and_removed(library, notes):
    code, out, err = library("add", "mine", notes)
    assert (code, out) == (0, "") and "library mine: 2 documents read (2 passages)" in err
    assert library("list")[1].startswith("mine ") and "2 documents, 2 passages" in library("list")[1]
    (info,) = [json.loads(line) for line in library("list", "--json")[1].splitlines()]
    assert (info["name"], info["documents"], info["roots"]) == ("mine", 2, [str(notes)])
    code, out, err = library("search", "mine", "how", "far", "is", "the", "moon")
    assert code == 0 and out == f"1. {notes}/moon.md, line 3  [The moon]\n   The moon is about 384,000 kilometres away from the earth.\n\n"
    (passage,) = [json.loads(line) for line in library("search", "mine", "how far is the moon", "--json")[1].splitlines()]
    assert passage["file"] == f"{notes}/moon.md" and (passage["first"], passage["last"], passage["heading"]) == (3, 3, "The moon")
    code, out, err = library("search", "mine", "who composed Carmen")
    assert (code, out) == (0, "") and err == "nothing in mine fits the question\n"
    assert library("remove", "mine")[0] == 0 and library("list")[1] == "" and (notes / "moon.md").exists()


def test_adding_again_reads_what_changed(library, notes):
    library("add", "mine", notes)
    (notes / "bread.txt").write_text("The baguette is baked at once.\n")
    (notes / "moon.md").unlink()
    assert "1 document read (1 passage), 1 gone" in library("add", "mine")[2]
    assert library("search", "mine", "baguette")[1] and not library("search", "mine", "moon")[1]


def test_documents_without_text_are_named(library, notes):
    (notes / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    code, out, err = library("add", "mine", notes)
    assert code == 0 and not out and f"{notes}/broken.pdf: it is damaged" in err and "2 documents read" in err
    assert "(1 without text)" in library("list")[1]


@pytest.mark.parametrize(
    "args, fault",
    [
        (["add", "mine", "{notes}/none"], "none cannot be read: No such file or directory; name a file or a folder of documents"),
        (["add", "mine", "{notes}/empty"], "empty holds no documents"),
        (["add", "mine", "{notes}/program"], "program gives no text: it is not a text"),
        (["add", "mine"], "no library is called 'mine'"),
        (["add", "a/b", "{notes}"], "'a/b' is no name for a library; use letters, digits, - and _"),
        (["search", "mine", "x"], "no library is called 'mine' (there is none yet); `townhall library add mine PATH` makes it"),
        (["remove", "mine"], "no library is called 'mine'"),
        (["search", "mine"], "Missing argument"),
        (["search", "mine", "x", "--limit", "0"], "0 is out of range; pass a number from 1 to 50"),
    ],
)
def test_wrong_input_gets_one_sentence_and_exit_code_2(library, notes, args, fault):
    (notes / "empty").mkdir()
    (notes / "program").write_bytes(b"\x7fELF\0")
    code, out, err = library(*(arg.format(notes=notes) for arg in args))
    assert code == 2 and not out and fault in err and len(err.splitlines()) == 1 and err.startswith("townhall: ")


def test_ctrl_c_keeps_what_was_read(library, notes, monkeypatch):
    from townhall.cli import library as command

    def press(done, total, path):
        if done == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "show_progress", press)
        code, _, err = library("add", "mine", notes)
    assert code == 130 and "what was read so far is kept" in err
    assert "2 documents, 2 passages" not in library("list")[1]
    assert library("add", "mine", notes)[0] == 0 and "2 documents, 2 passages" in library("list")[1]


def test_without_wordllama_words_are_indexed_and_it_is_said(library, notes, monkeypatch):
    from townhall.library import libraries

    monkeypatch.setattr(libraries, "default_embedder", lambda: None)
    assert "only words are indexed" in library("add", "mine", notes)[2]
    assert library("search", "mine", "how far is the moon")[1]


@pytest.mark.slow
def test_a_watch_reads_what_is_saved_until_ctrl_c(notes, tmp_path):
    environment = os.environ | {"XDG_DATA_HOME": str(tmp_path / "user_data"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "townhall", "library", "add", "mine", str(notes), "--watch"]
    watching = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(watching.stderr.readline, "")
        assert "2 documents read" in next(lines) and "is watched; Ctrl-C ends that" in next(lines)
        (notes / "more.md").write_text("Currants are berries.\n")
        assert "1 document read (1 passage), 2 unchanged" in next(line for line in lines if "more" not in line)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(120) == 0 and watching.stdout.read() == ""
    finally:
        watching.kill()
        watching.communicate()


def test_progress_is_not_shown_in_a_pipe(library, notes, monkeypatch):
    monkeypatch.setattr(indexer, "COMMIT_SECONDS", -1.0)
    assert "\r" not in library("add", "mine", notes)[2]
