"""Untrusted documents end in one sentence: whatever they are, the process that reads them is bounded, and the next one is read."""

import os

import pytest

from tests.townhall.library.office_files import docx, pdf
from townhall.library.document_formats import MAX_BYTES, documents
from townhall.library.errors import LibraryError
from townhall.library.reading_process import ReadingProcess

LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "' + "&a;" * 1000 + '"><!ENTITY c "' + "&b;" * 1000 + '"><!ENTITY d "' + "&c;" * 1000 + '">]>'
)
# made by the test itself: 300 MB to pack are too much for every run that only collects it
HOSTILE = {
    "laughs.docx": lambda: docx(("", "&d;"), doctype=LAUGHS),
    "bomb.docx": lambda: docx(("", "x"), extra={f"word/{n}.xml": b"\0" * (100 << 20) for n in range(3)}),
    "no.docx": lambda: b"PK\x03\x04" + bytes(100),
    "empty.docx": lambda: b"",
    "outside.docx": lambda: docx(("", "x")).replace(b"word/document.xml", b"../../etc/passwd\0"),
    "cut.pdf": lambda: pdf(["Hello"])[:200],
    "loop.pdf": lambda: pdf(["Hello"]).replace(b"/Kids [6 0 R]", b"/Kids [2 0 R]"),
    "long.pdf": lambda: pdf(["Hello"]).replace(b"/Count 1", b"/Count 999999999"),
    "noise.pdf": lambda: b"%PDF-1.7\n" + bytes(range(256)) * 100,
    "binary.txt": lambda: bytes(range(256)),
    "archive.md": lambda: b"PK\x03\x04 and more",
    "bad.jsonl": lambda: b'{"name": "a", "mes": "b"}\n' + b"[" * 100_000,
    "empty.md": lambda: b"",
    "space.txt": lambda: b" \n\t\n",
}


@pytest.fixture(scope="module")
def reader():
    with ReadingProcess() as process:
        yield process


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_end_in_one_sentence(name, reader, tmp_path):
    (tmp_path / name).write_bytes(HOSTILE[name]())
    reading = reader.read(tmp_path / name)
    if name not in ("cut.pdf", "long.pdf", "loop.pdf"):  # pypdf mends some, and then gives their text
        assert reading.fault and not reading.blocks
    assert reading.fault is None or len(reading.fault.splitlines()) == 1 and "Traceback" not in reading.fault
    (tmp_path / "sound.md").write_text("# A\nb\n")
    sound = reader.read(tmp_path / "sound.md")
    assert sound.fault is None and [(block.text, block.heading) for block in sound.blocks] == [("b", ("A",))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["<div>" * 200_000, "<p " + "a=" * 200_000, "<!--" * 100_000, "&" * 400_000, "<pre>" + "\n" * 500_000, "</" * 300_000],
    ids=["nested", "attributes", "comments", "references", "lines", "ends"],
)
def test_large_crafted_pages_are_read_or_refused(text, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(text)
    with ReadingProcess(seconds=2.0) as process:  # html.parser takes a minute for some of them
        reading = process.read(path)
    assert reading.fault is None or len(reading.fault.splitlines()) == 1


def test_what_takes_too_long_is_given_up_and_the_next_is_read(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("hello\n")
    with ReadingProcess(seconds=0.0) as process:
        assert process.read(path).fault == "reading it takes more than 0 s"
        process._allowed = None
        assert [block.text for block in process.read(path).blocks] == ["hello"]


def test_what_takes_too_much_memory_is_given_up_and_the_next_is_read(tmp_path):
    large, small = tmp_path / "large.txt", tmp_path / "small.txt"
    large.write_text("a\n" * (8 << 20))
    small.write_text("hello\n")
    with ReadingProcess(memory=128 << 20) as process:
        fault = process.read(large).fault
        assert fault and "memory" in fault
        assert [block.text for block in process.read(small).blocks] == ["hello"]


def test_a_child_that_dies_costs_one_document(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("hello\n")
    with ReadingProcess() as process:
        process.read(path)
        assert process._child
        process._child.kill()
        process._child.wait()
        assert [block.text for block in process.read(path).blocks] == ["hello"]


def test_large_files_pipes_and_devices_are_refused_unread(reader, tmp_path):
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    os.mkfifo(tmp_path / "pipe.txt")
    assert "larger than" in str(reader.read(tmp_path / "huge.txt").fault)
    assert reader.read(tmp_path / "pipe.txt").fault == "it is not a regular file"
    assert "cannot be read: No such file" in str(reader.read(tmp_path / "none.txt").fault)
    with pytest.raises(LibraryError, match="neither a file nor a folder"):
        list(documents(tmp_path / "pipe.txt"))


def test_the_child_cannot_write_and_has_no_keys_of_the_user(monkeypatch, tmp_path):
    from townhall.library import reading_process

    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with ReadingProcess() as process:
        (tmp_path / "a.md").write_text("a")
        process.read(tmp_path / "a.md")
        assert process._child
        if os.path.exists("/proc"):
            pid = process._child.pid
            assert b"secret" not in open(f"/proc/{pid}/environ", "rb").read()
            limits = open(f"/proc/{pid}/limits").read()
            sizes = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
            assert sizes["Max file size"] == "0" and sizes["Max address space"] == str(reading_process.MEMORY)


def test_a_folder_gives_the_documents_that_it_holds(tmp_path):
    for name in ("b.md", "a.txt", "sub/c.py", "README", ".hidden.md", ".git/d.md", "node_modules/e.md", "photo.jpg", "data.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text\n")
    (tmp_path / "program").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "link.md").symlink_to(tmp_path / "b.md")
    (tmp_path / "round").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.md")
    assert [str(path.relative_to(tmp_path)) for path in documents(tmp_path)] == ["README", "a.txt", "b.md", "sub/c.py"]
    assert list(documents(tmp_path / "photo.jpg")) == [tmp_path / "photo.jpg"]  # named, it is tried
    with pytest.raises(LibraryError, match="name a file or a folder of documents"):
        list(documents(tmp_path / "none"))
