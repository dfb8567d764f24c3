"""/townhall/libraries…: libraries are made, filled by uploads, indexed with progress, searched and deleted.

What is uploaded lies in a folder of the library's own, beside the indexes. Folders that `townhall library add` named are listed and
searched as well; their files are not ours to delete.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from townhall.library import libraries
from townhall.library.document_formats import FORMATS, MAX_BYTES, format_of, looks_like_text
from townhall.library.errors import LibraryError, UnreadableFile
from townhall.library.libraries import Library, Passage
from townhall.library.library_index import LibraryIndex
from townhall.server.endpoints import (
    COUNT,
    EVENTS,
    FILE,
    JSON,
    TEXT,
    Endpoint,
    EndpointGroup,
    event,
    listed,
    read_json,
    safe_name,
    schema,
    uploaded,
)  # fmt: skip
from townhall.server.errors import APIError, as_api_error, shutting_down
from townhall.server.guard import json_response
from townhall.server.requests import RequestModel
from townhall.server.service import Service

MOST_PASSAGES, MOST_DOCUMENTS = 50, 1000  # in one answer
MAX_QUESTION = 10_000  # characters
PULSE = 0.1  # seconds between two events of an update
UPLOADS = "files"


class LibraryCreation(RequestModel):
    """POST /townhall/libraries."""

    name: Annotated[str, Field(min_length=1, max_length=64)]


class LibraryQuestion(RequestModel):
    """POST /townhall/libraries/{name}/search."""

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION)]
    limit: Annotated[int, Field(ge=1, le=MOST_PASSAGES)] = 5


_NUMBER: JSON = {"type": "number"}
_PROGRESS: JSON = {"anyOf": [schema({"done": COUNT, "total": COUNT}), {"type": "null"}]}
REPLIES: dict[str, JSON] = {
    "LibraryEntry": schema(
        {"name": TEXT, "documents": COUNT, "passages": COUNT, "bytes": COUNT, "unreadable": COUNT, "indexing": _PROGRESS}
    ),
    "Libraries": schema({"libraries": listed("LibraryEntry"), "vectors": {"type": "boolean"}}),
    "LibraryDocument": schema(
        {"file": TEXT, "size": COUNT, "fault": TEXT, "uploaded": {"type": "boolean"}, "removable": {"type": "boolean"}}
    ),
    "LibraryContents": schema(
        {"library": {"$ref": "#/components/schemas/LibraryEntry"}, "files": listed("LibraryDocument"), "total": COUNT}
    ),
    "UploadedDocument": schema({"file": TEXT, "size": COUNT, "replaced": {"type": "boolean"}}),
    "LibraryPassage": schema(
        {"file": TEXT, "first": COUNT, "last": COUNT, "page": {"type": ["integer", "null"]}, "heading": TEXT, "text": TEXT}
        | {"score": _NUMBER, "relevance": _NUMBER, "place": TEXT}
    ),
    "LibraryPassages": schema({"passages": listed("LibraryPassage")}),
}


class IndexRun:
    """An update under way; any number of clients may listen. It goes on when they leave, and ends early when the server does."""

    def __init__(self, stopped: Callable[[], bool]):
        self.done, self.total = 0, 0
        self._stopped, self._said = stopped, 0.0
        self._listeners: set[asyncio.Queue[JSON]] = set()
        self._loop = asyncio.get_running_loop()

    def listen(self) -> "asyncio.Queue[JSON]":
        """Everything that is said from now on; the last has a `report` or an `error`."""
        queue: asyncio.Queue[JSON] = asyncio.Queue()
        self._listeners.add(queue)
        return queue

    def leave(self, queue: "asyncio.Queue[JSON]") -> None:
        self._listeners.discard(queue)

    def progress(self, done: int, total: int, path: Path) -> None:
        """Called on the thread that reads."""
        if self._stopped():
            raise shutting_down()  # the documents so far are kept
        self.done, self.total = done, total
        if done == total or time.monotonic() - self._said > PULSE:
            self._said = time.monotonic()
            self.say({"done": done, "total": total, "file": path.name})

    def say(self, values: JSON) -> None:
        def put() -> None:
            for queue in self._listeners:
                queue.put_nowait(values)

        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(put)


class LibraryRoutes:
    """One method for each endpoint."""

    def __init__(self, service: Service):
        self._service, self._limits = service, service.options.limits
        self._locks: dict[str, asyncio.Lock] = {}
        self._runs: dict[str, IndexRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def group(self) -> EndpointGroup:
        """The endpoints."""
        base, one = "/townhall/libraries", "/townhall/libraries/{name}"
        file: dict[str, JSON] = {"file": {**TEXT, "description": "Its name."}}
        pages: dict[str, JSON] = {"offset": COUNT, "limit": {**COUNT, "maximum": MOST_DOCUMENTS}, "search": TEXT}
        missing, busy = (404, 405), (404, 405, 409)
        endpoints = [
            Endpoint("GET", base, self.entries, "The libraries.", "Libraries"),
            Endpoint("POST", base, self.create, "Make a library.", "LibraryContents", LibraryCreation, errors=(405, 409), status=201),
            Endpoint("GET", one, self.contents, "Its documents.", "LibraryContents", query=pages, errors=missing),
            Endpoint("DELETE", one, self.delete, "Delete a library with what was uploaded to it.", "Deleted", errors=busy),
            Endpoint("POST", f"{one}/documents", self.upload, "Upload a document.", "UploadedDocument", FILE, file, missing, 201),
            Endpoint("DELETE", f"{one}/documents", self.remove, "Take a document out.", "Deleted", query=file, errors=busy),
            Endpoint("POST", f"{one}/index", self.index, "Read what is new or changed, with progress.", EVENTS, errors=missing),
            Endpoint("POST", f"{one}/search", self.search, "Passages that fit.", "LibraryPassages", LibraryQuestion, errors=missing),
        ]
        return EndpointGroup(endpoints, REPLIES)

    async def entries(self, request: Request) -> Response:
        """GET /townhall/libraries."""

        entries = await asyncio.to_thread(lambda: [self._entry(name) for name in libraries.list_libraries()])
        return json_response({"libraries": entries, "vectors": find_spec("wordllama") is not None})

    async def create(self, request: Request) -> Response:
        """POST /townhall/libraries."""
        asked = await read_json(request, LibraryCreation, self._limits)

        def make() -> JSON:
            if libraries.library_path(asked.name).exists():
                raise APIError(409, f"there is a library {asked.name} already", code="library_exists")
            Library.open(asked.name, create=True).close()
            return self._contents(asked.name.lower(), "", 0, MOST_DOCUMENTS)

        return json_response(await asyncio.to_thread(make), 201)

    async def contents(self, request: Request) -> Response:
        """GET /townhall/libraries/{name}."""
        offset, limit = _number(request, "offset", 0, 1 << 31), _number(request, "limit", 200, MOST_DOCUMENTS)
        search = request.query_params.get("search", "")[:200]
        return json_response(await asyncio.to_thread(lambda: self._contents(_known(request), search, offset, limit)))

    async def delete(self, request: Request) -> Response:
        """DELETE /townhall/libraries/{name}."""
        name = await asyncio.to_thread(_known, request)
        self._refuse_busy(name)
        async with self._lock(name):
            await asyncio.to_thread(libraries.remove_library, name)
            await asyncio.to_thread(shutil.rmtree, _uploads(name), True)
        return json_response({"deleted": name})

    async def upload(self, request: Request) -> Response:
        """POST /townhall/libraries/{name}/documents: it is read by the next /index."""
        name = await asyncio.to_thread(_known, request)
        file = safe_name(request.query_params.get("file", ""), "document.txt")
        folder = _uploads(name)
        async with uploaded(request, self._limits, MAX_BYTES, folder=folder) as path:

            def keep() -> JSON:
                target = folder / _readable_name(file, path)
                reply = {"file": target.name, "size": path.stat().st_size, "replaced": target.exists()}
                path.chmod(0o644)
                path.replace(target)
                return reply

            return json_response(await asyncio.to_thread(keep), 201)

    async def remove(self, request: Request) -> Response:
        """DELETE /townhall/libraries/{name}/documents?file=…"""
        name, file = await asyncio.to_thread(_known, request), request.query_params.get("file", "")
        self._refuse_busy(name)

        def take_out() -> None:
            with _index(name) as index:
                roots = index.roots()
                known = [Path(entry.path) for entry in index.documents()]
                known += [path for path in _uploads(name).glob("[!.]*") if path not in known]  # uploaded, and not read yet
                path = next((path for path in known if _shown(name, path, roots) == file), None)
                if path is None:
                    raise APIError(404, f"there is no document {file[:100]!r} in {name}", code="document_not_found")
                if not _removable(name, path, roots):
                    root = next(root for root in roots if path.is_relative_to(root))
                    raise APIError(400, f"{file} comes from the folder {root.name}, where it is to be deleted", code="from_folder")
                if path.is_relative_to(_uploads(name)):
                    path.unlink(missing_ok=True)
                index.remove_root(path)
                index.forget(str(path))
                index.commit()

        async with self._lock(name):
            await asyncio.to_thread(take_out)
        return json_response({"deleted": file})

    async def index(self, request: Request) -> Response:
        """POST /townhall/libraries/{name}/index: events with `done`, `total` and `file`, then one with `report`, or with `error`."""
        name = await asyncio.to_thread(_known, request)
        run = IndexRun(lambda: self._service.draining)
        queue = run.listen()
        task = asyncio.create_task(self._update(name, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(run, queue), headers=headers, media_type=EVENTS)

    async def search(self, request: Request) -> Response:
        """POST /townhall/libraries/{name}/search."""
        name = await asyncio.to_thread(_known, request)
        asked = await read_json(request, LibraryQuestion, self._limits)

        def found() -> list[JSON]:
            with Library.open(name) as library:
                roots = library.index.roots()
                return [_passage(name, passage, roots) for passage in library.search(asked.question, asked.limit)]

        return json_response({"passages": await asyncio.to_thread(found)})

    async def _events(self, run: IndexRun, queue: "asyncio.Queue[JSON]") -> AsyncIterator[bytes]:
        try:
            while True:
                try:
                    async with asyncio.timeout(self._limits.keep_alive):
                        values = await queue.get()
                except TimeoutError:
                    yield b": keep-alive\n\n"
                    continue
                yield event(values)
                if values.keys() & {"report", "error"}:
                    return
        finally:
            run.leave(queue)

    async def _update(self, name: str, run: IndexRun) -> None:
        """One at a time for each library; one that is asked for meanwhile follows, for there may be new documents."""
        async with self._lock(name):
            self._runs[name] = run
            try:
                run.say({"report": await asyncio.to_thread(self._read, name, run)})
            except Exception as error:  # whatever it is, those who listen are to hear of an end
                run.say(as_api_error(error).body())
            finally:
                del self._runs[name]

    def _read(self, name: str, run: IndexRun) -> JSON:
        from townhall.library.indexer import update

        folder = _uploads(name)
        with Library.open(name) as library:
            if not any(folder.glob("[!.]*")):
                library.index.remove_root(folder)  # an empty folder would be taken for a wrong one
                report = update(library, progress=run.progress)
            else:
                report = update(library, [folder], run.progress)
            roots = library.index.roots()
            faults = [{"file": _shown(name, Path(path), roots), "fault": fault} for path, fault in report.faults]
        counts = {key: getattr(report, key) for key in ("read", "unchanged", "removed", "passages", "bytes")}
        return {**counts, "faults": faults}

    def _entry(self, name: str) -> JSON:
        run, fault, sizes = self._runs.get(name), "", (0, 0, 0, 0)
        try:
            with _index(name) as index:
                sizes = index.sizes()
        except LibraryError as error:
            fault = str(error)
        indexing = {"done": run.done, "total": run.total} if run else None
        return {"name": name, **dict(zip(("documents", "passages", "bytes", "unreadable"), sizes)), "indexing": indexing, "fault": fault}

    def _contents(self, name: str, search: str, offset: int, limit: int) -> JSON:
        with _index(name) as index:
            roots, entries = index.roots(), index.documents()
        read = {entry.path for entry in entries}
        files = [
            {"file": _shown(name, path := Path(entry.path), roots), "size": entry.size, "fault": entry.fault or ""}
            | {"uploaded": path.is_relative_to(_uploads(name)), "removable": _removable(name, path, roots)}
            for entry in entries
        ]
        files += [
            {"file": path.name, "size": path.stat().st_size, "fault": "not read yet", "uploaded": True, "removable": True}
            for path in sorted(_uploads(name).glob("[!.]*"))
            if str(path) not in read
        ]
        files = sorted((file for file in files if search.casefold() in str(file["file"]).casefold()), key=lambda file: str(file["file"]))
        return {"library": self._entry(name), "files": files[offset : offset + limit], "total": len(files)}

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _refuse_busy(self, name: str) -> None:
        if self._lock(name).locked():
            raise APIError(409, f"the library {name} is being indexed; try again when that is done", code="busy", retry_after=2)


def _known(request: Request) -> str:
    """The name in the path; APIError 404 where there is no such library."""
    name = request.path_params["name"]
    try:
        path = libraries.library_path(name)
    except LibraryError as error:
        raise APIError(404, str(error), code="library_not_found") from error
    if not path.exists():
        raise APIError(404, f"there is no library {name}; /townhall/libraries lists them", code="library_not_found")
    return path.stem


@contextmanager
def _index(name: str) -> Iterator[LibraryIndex]:
    """The library's file alone: nothing of the embedder is loaded."""
    index = LibraryIndex(libraries.library_path(name))
    try:
        yield index
    finally:
        index.close()


def _uploads(name: str) -> Path:
    return libraries.default_folder() / UPLOADS / name


def _readable_name(file: str, path: Path) -> str:
    """The name under which the indexer reads an upload; LibraryError for what it cannot read."""
    with path.open("rb") as opened:
        head = opened.read(4096)
    try:
        format_of(Path(file), head)
    except UnreadableFile as error:
        raise LibraryError(f"{file}: {error}") from error
    if Path(file).suffix.lower() in FORMATS:
        return file
    if not looks_like_text(path):
        raise LibraryError(f"{file} is neither text, Markdown, HTML, PDF, DOCX, source code nor a chat")
    return f"{file}.txt"  # the kinds that are read go by suffix


def _removable(name: str, path: Path, roots: list[Path]) -> bool:
    return path in roots or path.is_relative_to(_uploads(name))


def _shown(name: str, path: Path, roots: list[Path]) -> str:
    """A document's name for people: of an upload the file's, of others from their folder on, so that no one reads where that lies."""
    if path.is_relative_to(folder := _uploads(name)):
        return path.relative_to(folder).as_posix()
    root = next((root for root in roots if path.is_relative_to(root)), path)
    return path.relative_to(root.parent).as_posix()


def _passage(name: str, passage: Passage, roots: list[Path]) -> JSON:
    file = _shown(name, Path(passage.file), roots)
    return {**asdict(passage), "file": file, "place": passage.place.replace(passage.file, file, 1)}


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text[:20]) > most:
        raise APIError(400, f"{name} must be a whole number from 0 to {most}", name)
    return int(text)
