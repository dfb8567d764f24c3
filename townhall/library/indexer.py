"""Brings a library up to date with its documents: what is new or changed is read, what is gone is forgotten."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from townhall.library.chunker import LIMIT, OVERLAP, Chunk, Counter, chunks, count_words
from townhall.library.document_formats import documents
from townhall.library.errors import LibraryError
from townhall.library.libraries import Library
from townhall.library.library_index import DocumentEntry, context
from townhall.library.reading_process import Reading, ReadingProcess

COMMIT_SECONDS = 2.0  # work that a crash may cost
_RECENT = 2 * 10**9  # ns: a file that was saved so shortly before it was read may be saved again without its time changing


@dataclass
class UpdateReport:
    """What an update did. `faults` are documents that gave no text, and why."""

    read: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    bytes: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


Progress = Callable[[int, int, Path], None]  # documents done, documents in all, the one that is next


def check_paths(paths: Sequence[Path]) -> None:
    """LibraryError for a path that is not there, cannot be read, or holds no documents."""
    for path in paths:
        if next(documents(path), None) is None:
            kinds = "text, Markdown, HTML, PDF, DOCX, source code or a chat"
            raise LibraryError(f"{path} holds no documents; name a folder with files whose names say that they are {kinds}")


def update(
    library: Library,
    paths: Sequence[Path] = (),
    progress: Progress = lambda done, total, path: None,
    reader: ReadingProcess | None = None,
    limit: int = LIMIT,
    overlap: int = OVERLAP,
    count: Counter = count_words,
) -> UpdateReport:
    """Add `paths` to what the library holds, and read all of it that is new or changed since.

    A document is in the library whole or as it was before; an exception, Ctrl-C included, leaves those that were read. LibraryError for a
    path that is not there, or a file that gives no text; documents below folders that give none are in the report.
    """
    roots = [Path(os.path.abspath(path)) for path in paths]
    check_paths(roots)
    index, report, process = library.index, UpdateReport(), reader or ReadingProcess()
    try:
        for root in roots:
            index.add_root(root)
        known = {entry.path: entry for entry in index.documents()}
        there, missing = _there(library, known, report)
        for gone in known.keys() - {str(path) for path in there}:
            if not any(Path(gone).is_relative_to(root) for root in missing):
                index.forget(gone)
                report.removed += 1
        saved = time.monotonic()
        for path, found, reading in _readings(there, known, process, progress, library, report):
            passages = list(chunks(reading.blocks, limit, overlap, count))
            _store(library, path, found, reading, passages, report)
            if time.monotonic() - saved > COMMIT_SECONDS:
                index.commit()
                saved = time.monotonic()
        _embed_missing(library)
        for named, fault in report.faults:
            if Path(named) in roots:
                index.forget(named)
                index.remove_root(Path(named))
                raise LibraryError(f"{named} gives no text: {fault}")
    finally:
        process.close()
        index.commit()  # documents are put in whole, so what an exception leaves is sound
    return report


def _there(library: Library, known: Mapping[str, DocumentEntry], report: UpdateReport) -> tuple[list[Path], list[Path]]:
    """Every document below the roots, and the folders that are missing.

    A folder may be on a disk that is not mounted, so what was read of it is kept; a single file that is missing is gone.
    """
    there: dict[Path, None] = {}
    missing = []
    for root in library.index.roots():
        try:
            there |= dict.fromkeys(documents(root))
        except LibraryError as error:
            if str(root) in known and root.parent.is_dir():
                library.index.remove_root(root)
                continue
            missing.append(root)
            report.faults.append((str(root), f"{error}; what was read of it before is kept"))
    return list(there), missing


def _readings(
    there: Sequence[Path],
    known: Mapping[str, DocumentEntry],
    process: ReadingProcess,
    progress: Progress,
    library: Library,
    report: UpdateReport,
) -> Iterator[tuple[Path, os.stat_result, Reading]]:
    """The documents that are new or changed; while one is stored, the next is read."""
    waiting: tuple[Path, os.stat_result] | None = None
    for number, path in enumerate(there):
        progress(number, len(there), path)
        try:
            found = path.stat()
            str(path).encode()
        except OSError:
            continue  # gone meanwhile
        except UnicodeEncodeError:
            report.faults.append((os.fsencode(path).decode(errors="replace"), "its name is not UTF-8; rename it"))
            continue
        if _unchanged(path, found, known.get(str(path)), library):
            report.unchanged += 1
            continue
        reading = process.finish() if waiting else None
        process.start(path)
        if waiting and reading:
            yield *waiting, reading
        waiting = path, found
    if waiting:
        yield *waiting, process.finish()
    progress(len(there), len(there), Path())


def _unchanged(path: Path, found: os.stat_result, entry: DocumentEntry | None, library: Library) -> bool:
    if entry is None or "is not installed" in (entry.fault or ""):
        return False
    if (entry.size, entry.changed) == (found.st_size, found.st_mtime_ns):
        return True
    if entry.size != found.st_size or entry.sha256 != _sha256(path):
        return False
    library.index.touch(entry.path, _reliable(found))
    return True


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _reliable(found: os.stat_result) -> int:
    """When the file was saved; 0 where it was just now, and may be saved again without its time changing."""
    return found.st_mtime_ns if time.time_ns() - found.st_mtime_ns > _RECENT else 0


def _store(library: Library, path: Path, found: os.stat_result, reading: Reading, passages: Sequence[Chunk], report: UpdateReport) -> None:
    fault = reading.fault or (None if passages else "it holds no text")
    entry = DocumentEntry(str(path), reading.sha256, found.st_size, _reliable(found), fault)
    embedder = library.embedder
    vectors = (
        embedder.embed([f"{context(entry.path, chunk.heading)}\n{chunk.text}" for chunk in passages]) if embedder and passages else None
    )
    library.index.put(entry, passages, embedder.id if embedder else "", vectors)
    if fault:
        report.faults.append((str(path), fault))
    else:
        report.read += 1
        report.passages += len(passages)
        report.bytes += found.st_size


def _embed_missing(library: Library) -> None:
    """Vectors of documents that were read without an embedder, or by another."""
    if embedder := library.embedder:
        for path, texts in library.index.without_vectors(embedder.id):
            library.index.set_vectors(path, embedder.id, embedder.embed([f"{above}\n{text}" for above, text in texts]))
