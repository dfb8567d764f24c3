"""Which files a library reads, and as what: by their suffix, else by their first bytes."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from townhall.library.errors import LibraryError, UnreadableFile

TEXT, MARKDOWN, HTML, PDF, DOCX, CODE, CHAT = "text", "markdown", "html", "pdf", "docx", "code", "chat"
_SUFFIXES = {
    TEXT: "txt text rst asc org tex adoc",
    MARKDOWN: "md markdown mkd mdx qmd",
    HTML: "html htm xhtml",
    PDF: "pdf",
    DOCX: "docx",
    CHAT: "chat jsonl",
    CODE: "py pyi js mjs ts tsx jsx c h cc cpp cxx hh hpp cu cuh cl m mm rs go java kt swift scala cs fs rb php pl pm lua r jl zig nim "
    "hs ml ex exs erl clj lisp el vim sh bash zsh fish ps1 sql proto cmake gradle toml yaml yml ini cfg conf",
}
FORMATS = {f".{suffix}": name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
MAX_BYTES = 64 << 20  # of one file
_SKIPPED = {"node_modules", "__pycache__", "site-packages"}  # and whatever is hidden
_HEAD = 4096


def format_of(path: Path, head: bytes) -> str:
    """What `path` is to be read as; `head` are its first bytes. UnreadableFile where it is not text and nothing else that is known."""
    if head.startswith(b"%PDF-"):
        return PDF
    known = FORMATS.get(path.suffix.lower())
    if known in (PDF, DOCX):
        return known  # a damaged one is refused by its reader, by name
    if head.startswith(b"PK\x03\x04") or b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFile("it is not a text, an HTML page, a PDF or a DOCX file")
    return known or TEXT


def documents(root: Path) -> Iterator[Path]:
    """The files that adding `root` means, sorted: itself, or those below a folder with a suffix in FORMATS, or with none and text inside.

    Hidden files, symbolic links below a folder, and folders of installed packages are left out. LibraryError where there is no such path.
    """
    try:
        mode = root.stat().st_mode
    except OSError as error:
        raise LibraryError(f"{root} cannot be read: {error.strerror or error}; name a file or a folder of documents") from error
    if not stat.S_ISDIR(mode):
        if not stat.S_ISREG(mode):
            raise LibraryError(f"{root} is neither a file nor a folder; name a file or a folder of documents")
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _SKIPPED)
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and _counts(path):
                yield path


def _counts(path: Path) -> bool:
    suffix = path.suffix.lower()
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        return suffix in FORMATS or not suffix and looks_like_text(path)
    except OSError:
        return False  # gone meanwhile, or closed to us


def looks_like_text(path: Path) -> bool:
    """UTF-8 without control characters, as far as the first bytes tell."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not merely a character cut in two
            return False
        text = head[: error.start].decode()
    return bool(text) and not any(character < " " and character not in "\t\n\r\f" for character in text)
