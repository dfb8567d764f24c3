"""Libraries: what was added is found with its place; updates read what changed; nothing is ever there by half."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.townhall.library.office_files import docx, pdf
from townhall.library import indexer
from townhall.library.document_formats import documents
from townhall.library.errors import LibraryError
from townhall.library.indexer import update
from townhall.library.libraries import Library, list_libraries, remove_library
from townhall.library.library_watch import watch

POEM = """# Kubla Khan

## The dome

In Xanadu did Kubla Khan a stately pleasure-dome decree, where Alph, the sacred river, ran through caverns measureless to man.

## The dulcimer

A damsel with a dulcimer in a vision once I saw. It was an Abyssinian maid, singing of Mount Abora.
"""
BREAD = "Sourdough\n=========\n\nKnead the flour and the water for ten minutes.\nLet the dough rest overnight in the fridge.\n"
OVEN = '''class Oven:
    """Bakes bread at a temperature in degrees Celsius."""

    def preheat(self, degrees):
        self.degrees = degrees
'''


@pytest.fixture
def shelf(tmp_path):
    """A folder of documents."""
    folder = tmp_path / "documents"
    (folder / "code").mkdir(parents=True)
    (folder / "poem.md").write_text(POEM)
    (folder / "bread.txt").write_text(BREAD)
    (folder / "code" / "oven.py").write_text(OVEN)
    (folder / "ship.pdf").write_bytes(
        pdf(["The ancient mariner", "shot the albatross."], ["The Ship sailed on."], bookmarks={"Part one": 1})
    )
    (folder / "frost.docx").write_bytes(docx(("H1", "Frost"), ("", "The frost performs its secret ministry, unhelped by any wind.")))
    for path in documents(folder):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


@pytest.fixture(params=[True, False], ids=["vectors", "words"])
def library(request, tmp_path):
    with Library.open("shelf", tmp_path / "libraries", create=True) as opened:
        if not request.param:
            opened.embedder = None
        yield opened


def contents(library):
    """All that is in the file, but for ids."""
    db = sqlite3.connect(library.index.path)
    joined = "chunk JOIN document ON document.id = document JOIN word ON word.rowid = chunk.id"
    chunks = f"SELECT path, first, last, page, chunk.heading, word.heading, text FROM {joined} ORDER BY path, chunk.id"
    tables = [
        db.execute(chunks).fetchall(),
        db.execute("SELECT path, sha256, size, fault, embedder, vectors FROM document ORDER BY path").fetchall(),
    ]
    tables.append(db.execute("SELECT count(*) FROM word").fetchall())
    db.execute("INSERT INTO word (word) VALUES ('integrity-check')")
    db.close()
    return tables


@pytest.mark.parametrize(
    "question, file, place, heading",
    [
        ("Where does the river Alph run?", "poem.md", "lines 5-9", "Kubla Khan"),
        ("How long does the dough rest?", "bread.txt", "lines 4-5", "Sourdough"),
        ("Who shot the albatross?", "ship.pdf", "page 1, lines 1-2", "Part one"),
        ("What performs a secret ministry?", "frost.docx", "line 2", "Frost"),
        ("preheat the oven to so many degrees", "oven.py", "lines 1-5", "Oven"),
    ],
)
def test_a_question_finds_its_passage_with_file_and_lines(library, shelf, question, file, place, heading):
    update(library, [shelf])
    passage = library.search(question)[0]
    assert Path(passage.file) == next(shelf.rglob(file)) and place in passage.place and passage.heading == heading
    assert 0.3 < passage.relevance <= 1 and passage.score > 0


@pytest.mark.parametrize(
    "question", ["How is parliament elected in Norway?", "quantum chromodynamics", "?", "", "'; DROP TABLE word --", "Who are you?"]
)
def test_nothing_is_found_where_nothing_fits(library, shelf, question):
    update(library, [shelf])
    assert library.search(question) == []


def test_an_empty_library_finds_nothing(library):
    assert library.search("anything") == []


def test_the_same_text_in_two_files_is_found_once(library, shelf):
    (shelf / "copy.txt").write_text(BREAD)
    update(library, [shelf])
    assert len(library.search("dough rest overnight")) == 1


def test_an_update_reads_what_changed_and_forgets_what_is_gone(library, shelf, tmp_path, monkeypatch):
    assert update(library, [shelf]).read == 5
    report = update(library)
    assert (report.read, report.unchanged, report.removed) == (0, 5, 0)
    (shelf / "bread.txt").write_text(BREAD.replace("overnight", "a fortnight"))
    (shelf / "poem.md").unlink()
    (shelf / "new.md").write_text("# New\n\nThe nightingale sings.\n")
    os.utime(shelf / "ship.pdf", (1_800_000_000, 1_800_000_000))  # saved again, with the same bytes
    report = update(library)
    assert (report.read, report.unchanged, report.removed) == (2, 3, 1)
    assert library.search("dough fortnight") and library.search("nightingale sings") and not library.search("Alph sacred river")
    with Library.open("fresh", tmp_path / "libraries", create=True) as fresh:
        fresh.embedder = library.embedder
        update(fresh, [shelf])
        assert contents(fresh) == contents(library)


def test_a_change_that_keeps_size_and_time_is_seen_where_the_file_was_new(library, shelf):
    path = shelf / "quick.md"
    path.write_text("The first words.\n")
    update(library, [shelf])
    stat = path.stat()
    path.write_text("The other words.\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert update(library).read == 1 and "other" in library.search("other words")[0].text


def test_a_document_without_text_is_reported_and_not_read_again(library, shelf):
    (shelf / "broken.docx").write_bytes(b"PK\x03\x04")
    os.utime(shelf / "broken.docx", (1_700_000_000, 1_700_000_000))
    report = update(library, [shelf])
    assert report.read == 5 and [Path(path).name for path, _ in report.faults] == ["broken.docx"] and "not a DOCX" in report.faults[0][1]
    assert update(library).faults == [] and library.index.sizes()[3] == 1


def test_a_named_file_without_text_is_refused(library, shelf):
    (shelf / "picture.xyz").write_bytes(b"\0\1\2")
    with pytest.raises(LibraryError, match=r"picture.xyz gives no text: it is not a text"):
        update(library, [shelf / "bread.txt", shelf / "picture.xyz"])
    assert library.index.roots() == [shelf / "bread.txt"] and library.search("dough rest overnight")


def test_a_folder_that_is_missing_keeps_what_was_read(library, shelf):
    update(library, [shelf / "code", shelf / "bread.txt"])
    (shelf / "code").rename(shelf / "elsewhere")
    (shelf / "bread.txt").unlink()
    report = update(library)
    assert report.removed == 1 and "is kept" in report.faults[0][1]
    assert library.search("preheat oven degrees") and not library.search("dough rest overnight")


def test_documents_whose_names_are_no_text_are_reported(library, shelf):
    try:
        (shelf / os.fsdecode(b"b\xe4d.md")).write_text("hello")
    except OSError:
        pytest.skip("this file system takes no such name")
    report = update(library, [shelf])
    assert report.read == 5 and report.faults[0][1].startswith("its name is not UTF-8")


def test_vectors_are_added_once_there_is_an_embedder(shelf, tmp_path):
    with Library.open("a", tmp_path, create=True) as library:
        embedder, library.embedder = library.embedder, None
        update(library, [shelf])
        library.embedder = embedder
        update(library)
        with Library.open("b", tmp_path, create=True) as whole:
            update(whole, [shelf])
            assert contents(library) == contents(whole)


@pytest.mark.slow
@pytest.mark.parametrize("at", range(0, 40, 3))
def test_an_interrupted_update_leaves_whole_documents(shelf, tmp_path, monkeypatch, at):
    """Ctrl-C falls into the n-th statement."""
    with Library.open("a", tmp_path, create=True) as library:
        (shelf / "old.md").write_text("The old words of the sea.\n")
        update(library, [shelf / "old.md"])
        (shelf / "old.md").write_text("The new words of the land.\n\n" + "\n\n".join(f"# H{n}\n\n{'word ' * 150}" for n in range(5)))
        seen = 0

        def interrupt(statement):
            nonlocal seen
            seen += 1
            if seen == at and "ROLLBACK" not in statement and "RELEASE" not in statement:
                raise KeyboardInterrupt

        real = library.index._db

        class Interrupting:
            def execute(self, statement, *values):
                interrupt(statement)
                return real.execute(statement, *values)

            def executemany(self, statement, rows):
                interrupt(statement)
                return real.executemany(statement, rows)

            def __getattr__(self, name):
                return getattr(real, name)

        monkeypatch.setattr(library.index, "_db", Interrupting())
        try:
            update(library, [shelf])
        except KeyboardInterrupt:
            pass
        monkeypatch.setattr(library.index, "_db", real)
        with Library.open("a", tmp_path) as reopened:
            whole = dict(reopened.index._rows("SELECT path, count(*) FROM chunk JOIN document ON document.id = document GROUP BY path"))
            assert all(whole.get(entry.path) for entry in reopened.index.documents())
        update(library, [shelf])  # the same again
        with Library.open("b", tmp_path, create=True) as fresh:
            update(fresh, [shelf])
            assert contents(library)[0] == contents(fresh)[0]


@pytest.mark.slow
def test_a_killed_update_leaves_a_sound_library(shelf, tmp_path):
    script = f"""
import os
from pathlib import Path
from townhall.library import indexer
from townhall.library.libraries import Library
library = Library.open("a", Path({str(tmp_path)!r}), create=True)
indexer.update(library, [Path({str(shelf / "bread.txt")!r})])
indexer.update(library, [Path({str(shelf)!r})], lambda done, total, path: os._exit(9) if done == 3 else None)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
    assert done.returncode == 9
    with Library.open("a", tmp_path) as library:
        assert library.search("dough rest overnight") and update(library, [shelf]).read >= 2
        assert len(library.index.documents()) == 5


def test_others_read_while_one_writes(shelf, tmp_path):
    with Library.open("a", tmp_path, create=True) as writer, Library.open("a", tmp_path) as reader:
        update(writer, [shelf / "bread.txt"])
        assert reader.search("dough rest overnight")
        found = []

        def look(done, total, path):
            found.append(len(reader.search("dough rest overnight")))

        update(writer, [shelf], look)
        assert set(found) == {1} and reader.search("Who shot the albatross?")  # and a reader sees what was written meanwhile


def test_threads_share_a_library(shelf, tmp_path):
    with Library.open("a", tmp_path, create=True) as library:
        update(library, [shelf])
        failed = []

        def ask():
            for _ in range(20):
                if not library.search("Who shot the albatross?"):
                    failed.append(1)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed


@pytest.mark.slow
def test_a_watch_reads_what_is_saved(shelf, tmp_path):
    with Library.open("a", tmp_path / "libraries", create=True) as library:
        update(library, [shelf / "code", shelf / "bread.txt"])
        stopped = threading.Event()
        reports = watch(library, lambda done, total, path: None, stopped.is_set)
        (shelf / "bread.txt").write_text("Bread of the second kind, with raisins.\n")
        assert next(reports).read == 1
        (shelf / "code" / "more.md").write_text("Currants and other berries.\n")
        assert next(reports).read == 1
        (shelf / "code" / "more.md").unlink()
        assert next(reports).removed == 1
        stopped.set()
        assert list(reports) == []
        assert library.search("bread with raisins") and not library.search("currants berries")


def test_names_of_libraries_are_checked(tmp_path):
    for name in ("", "../a", "a/b", "a b", ".a", "x" * 65, "-a"):
        with pytest.raises(LibraryError, match="is no name for a library"):
            Library.open(name, tmp_path, create=True)
    with pytest.raises(LibraryError, match=r"no library is called 'a' \(there is none yet\)"):
        Library.open("a", tmp_path)
    with pytest.raises(LibraryError, match="no library is called"):
        remove_library("a", tmp_path)
    Library.open("Two", tmp_path, create=True).close()
    assert list_libraries(tmp_path) == ["two"] and Library.open("TWO", tmp_path).name == "two"
    remove_library("two", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(200)])
def test_what_is_no_library_is_said_in_one_sentence(tmp_path, data):
    (tmp_path / "a.sqlite").write_bytes(data)
    with pytest.raises(LibraryError, match="townhall library remove a"):
        Library.open("a", tmp_path)


def test_a_library_of_another_version_is_refused(tmp_path):
    db = sqlite3.connect(tmp_path / "a.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(LibraryError, match="made by another version"):
        Library.open("a", tmp_path)


def test_paths_without_documents_are_refused_before_anything_is_done(library, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, fault in (("empty", "holds no documents"), ("none", "cannot be read: No such file")):
        with pytest.raises(LibraryError, match=fault):
            update(library, [tmp_path / path])
    assert library.index.roots() == []


def test_work_is_saved_now_and_then(shelf, tmp_path, monkeypatch):
    monkeypatch.setattr(indexer, "COMMIT_SECONDS", -1.0)
    with Library.open("a", tmp_path, create=True) as writer, Library.open("a", tmp_path) as reader:
        seen = []
        update(writer, [shelf], lambda done, total, path: seen.append(reader.index.sizes()[0]))
        assert seen[-1] >= 4 and len(set(seen)) > 3
