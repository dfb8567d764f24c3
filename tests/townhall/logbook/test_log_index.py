"""The index follows the text, whatever happens to either."""

import os
import sqlite3

import pytest

from tests.townhall.logbook.test_log_syntax import HEAD, TALK, spell
from townhall.errors import LogError
from townhall.logbook import log_reader
from townhall.logbook.log_index import Index
from townhall.logbook.log_reader import parse


@pytest.fixture
def folder(tmp_path):
    for n in range(3):
        head = HEAD | {"id": f"2026010{n}-120000-aaaaa{n}", "started": f"2026-01-0{n + 1}T12:00:00Z"}
        (tmp_path / f"{head['id']}.md").write_bytes(spell(("user", f"Question {n}"), ("reply", f"Größe {n}"), head=head))
    return tmp_path


def ids(index):
    return [entry.id[-1] for entry in index.entries()]


def agrees(folder):
    """The index as it was kept up equals one that is made anew."""
    kept = Index(folder).rows()
    assert kept == Index(folder, anew=True).rows()
    return kept


def test_logs_are_listed_the_newest_first(folder):
    entries = Index(folder).entries()
    assert [entry.id[-1] for entry in entries] == ["2", "1", "0"]
    assert (entries[0].persona, entries[0].turns, entries[0].first, entries[0].damages) == ("Stacy", 2, "Question 2", 0)


def test_a_search_finds_turns_with_all_words_in_any_case(folder):
    index = Index(folder)
    assert [(found.id[-1], found.text) for found in index.search("question 1")] == [("1", "Question 1")]
    assert [found.id[-1] for found in index.search("GRÖSSE")] == ["2", "1", "0"]
    assert index.search("question größe") == [] and index.search("%") == []


def test_the_index_follows_new_changed_and_vanished_files(folder):
    Index(folder).close()
    (folder / "b.md").write_bytes(spell(*TALK))
    first = sorted(folder.glob("2026*.md"))[0]
    first.write_bytes(first.read_bytes().replace(b"Question 0", b"A change of mind"))
    sorted(folder.glob("2026*.md"))[1].unlink()
    index = Index(folder)
    assert len(index.entries()) == 3 and index.search("moon") and index.search("change of mind") and not index.search("question 0")
    agrees(folder)


def test_only_files_that_changed_are_read(folder, monkeypatch):
    Index(folder).close()
    read = []
    monkeypatch.setattr("townhall.logbook.log_index.read_log", lambda path: read.append(path.name))
    Index(folder).close()
    assert read == []


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100, None])
def test_an_index_that_is_damaged_or_gone_is_made_anew(folder, damage):
    before = Index(folder).rows()
    path = folder / "index.sqlite"
    if damage is None:
        data = bytearray(path.read_bytes())
        data[100:4000] = os.urandom(3900)
        path.write_bytes(data)
    else:
        path.write_bytes(damage)
    assert Index(folder).rows() == before


def test_an_index_of_another_version_is_made_anew(folder):
    before = Index(folder).rows()
    db = sqlite3.connect(folder / "index.sqlite")
    db.executescript("PRAGMA user_version = 99; DROP TABLE turn; CREATE TABLE turn (other)")
    db.close()
    assert Index(folder).rows() == before


def test_an_index_that_cannot_be_written_lives_in_memory(folder):
    (folder / "index.sqlite").mkdir()
    assert ids(Index(folder)) == ["2", "1", "0"]


def test_a_folder_that_is_not_there_holds_no_logs(tmp_path):
    assert Index(tmp_path / "none").entries() == [] and not (tmp_path / "none").exists()


def test_a_log_that_cannot_be_read_is_listed_with_its_fault(folder, monkeypatch):
    monkeypatch.setattr("townhall.logbook.log_reader.MAX_BYTES", 10)
    assert all("larger than" in entry.fault for entry in Index(folder).entries())


def test_logs_are_named_by_the_beginning_of_their_id_by_path_or_as_the_last(folder):
    index = Index(folder)
    assert index.find("last").name == "20260102-120000-aaaaa2.md" and index.find("20260101").name == "20260101-120000-aaaaa1.md"
    assert str(index.find("/some/where.md")) == "/some/where.md"
    with pytest.raises(LogError, match="3 logs begin with '2026', the newest is 20260102"):
        index.find("2026")
    with pytest.raises(LogError, match="is called 'x'; `townhall log list` names them"):
        index.find("x")


def test_damage_is_counted_and_the_rest_is_found(folder):
    path = folder / "c.md"
    path.write_bytes(spell(*TALK).replace(b"Farther", b"Fa\xffther"))
    (entry,) = [entry for entry in Index(folder).entries() if entry.name == "c.md"]
    assert (entry.turns, entry.damages) == (3, 1) and Index(folder).search("moon")
    agrees(folder)


def test_what_is_exported_is_all_there_is_or_the_talk_alone(tmp_path):
    log = parse(spell(*TALK[:2]) + b"\n## User\nA \x1b[31mred\n\xff", tmp_path / "a.md")
    info = log_reader.as_json(log)
    assert info["head"] == log.head and [turn["text"] for turn in info["turns"]] == [text for _, text in TALK[:2]]
    assert info["damages"][0]["raw"].startswith("## User\nA \x1b[31mred") and info["turns"][1]["facts"] == {"n": 1}
    log = parse(spell(("user", "A \x1b[31mred *thing*"), ("reply", "x\n\ny")), tmp_path / "a.md")
    assert (
        log_reader.as_markdown(log) == "# A talk with Stacy\n\n**User:** A \N{REPLACEMENT CHARACTER}[31mred *thing*\n\n**Stacy:** x\n\ny\n"
    )
