"""The sources of a persona's prompts: its card's lorebook and others, its libraries, what it says behind the conversation."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from townhall.context.source import NoteSource, PromptSource, PromptSources
from townhall.language_model import TextTokenizer
from townhall.persona import Persona

if TYPE_CHECKING:
    from townhall.characters.lorebook import Lorebook
    from townhall.library.libraries import Library

Progress = Callable[[int, int, Path], None]  # documents done, documents in all, the one that is next


def open_sources(
    persona: Persona,
    tokenizer: TextTokenizer,
    lorebooks: Sequence[Path] = (),
    knowledge: Sequence[str] = (),
    greeting: int = 1,
    progress: Progress = lambda done, total, path: None,
) -> PromptSources:
    """All that the persona names, and more lorebooks and libraries. LorebookError or LibraryError for what cannot be used.

    `greeting`: with which one the chat begins, from 1. `progress` counts documents where a library is made of a path.
    """
    sources: list[PromptSource] = []
    if books := [book for book in _books(persona, lorebooks) if any(entry.enabled for entry in book.entries)]:
        from townhall.characters.lorebook_source import LorebookSource

        sources.append(LorebookSource(books, persona.name, persona.user, greeting - 1))
    if names := list(dict.fromkeys((*persona.knowledge, *knowledge))):
        from townhall.library.library_source import LibrarySource

        sources.append(LibrarySource([open_library(name, progress) for name in names]))
    if persona.reminder:
        sources.append(NoteSource("reminder", persona.reminder, depth=1, after=1))
    if persona.post_history_instructions:
        sources.append(NoteSource("post-history instructions", persona.post_history_instructions))
    return PromptSources(sources, tokenizer)


def check(lorebooks: Sequence[Path], knowledge: Sequence[str]) -> None:
    """LorebookError or LibraryError for what cannot be used, before a model is loaded for it."""
    _books(Persona("", ""), lorebooks)
    for name in knowledge:
        from townhall.library.indexer import check_paths
        from townhall.library.libraries import Library

        if _is_path(name):
            check_paths([Path(name).expanduser()])
        else:
            Library.open(name).close()


def _is_path(name: str) -> bool:
    """A library's name is none."""
    return "/" in name or name.startswith("~")


def open_library(name: str, progress: Progress = lambda done, total, path: None) -> "Library":
    """A library by its name; for a path the one that is made of it, brought up to date. LibraryError where there is none."""
    from townhall.library.libraries import Library

    if not _is_path(name):
        return Library.open(name)
    path = Path(name).expanduser()
    from townhall.library.indexer import check_paths, update

    check_paths([path])
    library = Library.open(library_of(path), create=True)
    update(library, [path], progress)
    return library


def library_of(path: Path) -> str:
    """The name of the library that is made of a path."""
    path = path.absolute()
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in path.stem).strip("-_")[:40] or "documents"
    return f"{stem}-{hashlib.sha256(str(path).encode(errors='replace')).hexdigest()[:8]}"


def _books(persona: Persona, paths: Sequence[Path]) -> "list[Lorebook]":
    books = []
    if persona.card is not None:
        from townhall.characters import card_files
        from townhall.characters.card_prompt import lorebook

        if book := lorebook(card_files.read(persona.card).card, f"card {persona.card}"):
            books.append(book)
    if paths := [*persona.lorebooks, *paths]:
        from townhall.characters.lorebook import Lorebook

        books += [Lorebook.from_file(path) for path in dict.fromkeys(paths)]
    return books
