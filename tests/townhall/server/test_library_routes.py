"""/townhall/libraries: what is uploaded is read with progress and found with its place; files that are not uploads stay."""

import json
import threading

import httpx
import pytest

from tests.townhall.library.office_files import pdf
from townhall.library.indexer import update
from townhall.library.libraries import Library
from townhall.server import library_routes

pytestmark = pytest.mark.slow

POEM = "# Kubla Khan\n\n## The dome\n\nIn Xanadu did Kubla Khan a stately pleasure-dome decree, where Alph, the sacred river, ran.\n"
BREAD = "Sourdough\n=========\n\nKnead the flour and the water for ten minutes.\nLet the dough rest overnight in the fridge.\n"


@pytest.fixture
def api(serve):
    server = serve()
    with httpx.Client(base_url=f"{server.root}/townhall", timeout=60) as client:
        client.server = server
        yield client


@pytest.fixture
def uploads(tmp_path):
    return tmp_path / "user_data/townhall/libraries/files"


def made(api, name="notes"):
    response = api.post("/libraries", json={"name": name})
    assert response.status_code == 201, response.text
    return response.json()


def put(api, file, content, name="notes"):
    return api.post(
        f"/libraries/{name}/documents", params={"file": file}, content=content.encode() if isinstance(content, str) else content
    )


def index(api, name="notes"):
    """The events of an update."""
    with api.stream("POST", f"/libraries/{name}/index") as response:
        assert response.status_code == 200 and response.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]


def test_documents_are_uploaded_read_with_progress_and_found_with_their_place(api, uploads):
    assert made(api)["files"] == []
    assert put(api, "poem.md", POEM).json() == {"file": "poem.md", "size": len(POEM), "replaced": False}
    assert put(api, "bread.txt", BREAD).status_code == 201
    assert put(api, "ship.pdf", pdf(["The ancient mariner", "shot the albatross."])).status_code == 201
    waiting = api.get("/libraries/notes").json()["files"]
    assert [(one["file"], one["fault"], one["uploaded"]) for one in waiting][0] == ("bread.txt", "not read yet", True)
    events = index(api)
    assert events[0]["done"] == 0 and events[0]["total"] == 3 and events[-1]["report"]["read"] == 3 and events[-1]["report"]["faults"] == []
    assert api.get("/libraries").json()["libraries"][0] | {"passages": 0, "bytes": 0} == {
        "name": "notes", "documents": 3, "passages": 0, "bytes": 0, "unreadable": 0, "indexing": None, "fault": "",
    }  # fmt: skip
    found = api.post("/libraries/notes/search", json={"question": "How long does the dough rest?"}).json()["passages"]
    assert found[0]["file"] == "bread.txt" and found[0]["place"] == "bread.txt, lines 4-5" and "overnight" in found[0]["text"]
    assert found[0]["score"] > 0 and 0 < found[0]["relevance"] <= 1
    found = api.post("/libraries/notes/search", json={"question": "the albatross"}).json()["passages"]
    assert found[0]["file"] == "ship.pdf" and found[0]["page"] == 1
    assert (
        api.post("/libraries/notes/search", json={"question": "sacred river", "limit": 1}).json()["passages"][0]["heading"]
        == "Kubla Khan > The dome"
    )
    assert (uploads / "notes/poem.md").read_text() == POEM


def test_a_document_is_replaced_and_taken_out(api, uploads):
    made(api)
    put(api, "poem.md", POEM)
    index(api)
    assert put(api, "poem.md", BREAD).json()["replaced"]
    assert index(api)[-1]["report"]["read"] == 1
    assert api.post("/libraries/notes/search", json={"question": "sacred river"}).json()["passages"] == []
    assert api.delete("/libraries/notes/documents", params={"file": "poem.md"}).json() == {"deleted": "poem.md"}
    assert not (uploads / "notes/poem.md").exists() and api.get("/libraries/notes").json()["total"] == 0
    assert api.delete("/libraries/notes/documents", params={"file": "poem.md"}).status_code == 404
    assert index(api)[-1]["report"] | {"bytes": 0} == {"read": 0, "unchanged": 0, "removed": 0, "passages": 0, "bytes": 0, "faults": []}


def test_folders_of_the_users_own_are_searched_and_not_touched(api, tmp_path):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    (shelf / "poem.md").write_text(POEM)
    (tmp_path / "bread.txt").write_text(BREAD)
    with Library.open("notes", create=True) as library:
        update(library, [shelf, tmp_path / "bread.txt"])
    files = api.get("/libraries/notes").json()["files"]
    assert [(one["file"], one["uploaded"], one["removable"]) for one in files] == [
        ("bread.txt", False, True),
        ("shelf/poem.md", False, False),
    ]
    refused = api.delete("/libraries/notes/documents", params={"file": "shelf/poem.md"})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "from_folder"
    assert api.delete("/libraries/notes/documents", params={"file": "bread.txt"}).status_code == 200
    put(api, "more.md", "# More\n\nThe albatross followed the ship.\n")
    assert index(api)[-1]["report"]["read"] == 1
    assert [one["file"] for one in api.get("/libraries/notes", params={"search": "O"}).json()["files"]] == ["more.md", "shelf/poem.md"]
    assert str(tmp_path) not in api.get("/libraries/notes").text
    assert str(tmp_path) not in api.post("/libraries/notes/search", json={"question": "river albatross"}).text
    assert api.delete("/libraries/notes").json() == {"deleted": "notes"}
    assert (shelf / "poem.md").exists() and (tmp_path / "bread.txt").exists() and api.get("/libraries").json()["libraries"] == []


def test_an_update_goes_on_without_its_client_and_a_second_one_follows(api, monkeypatch):
    made(api)
    put(api, "poem.md", POEM)
    begun, go_on = threading.Event(), threading.Event()
    read = library_routes.LibraryRoutes._read

    def slow(self, name, run):
        begun.set()
        assert go_on.wait(60)
        return read(self, name, run)

    monkeypatch.setattr(library_routes.LibraryRoutes, "_read", slow)
    with api.stream("POST", "/libraries/notes/index"):
        assert begun.wait(60)
    assert api.get("/libraries/notes").json()["library"]["indexing"] == {"done": 0, "total": 0}
    refused = api.delete("/libraries/notes")
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "busy"
    put(api, "bread.txt", BREAD)  # after the first has begun
    threading.Timer(0, go_on.set).start()
    report = index(api)[-1]["report"]
    assert report["read"] + report["unchanged"] == 2 and api.get("/libraries/notes").json()["library"]["documents"] == 2


@pytest.mark.parametrize(
    "file, content, kept",
    [
        ("../../../etc/passwd.md", POEM, "passwd.md"),
        (".hidden.md", POEM, "hidden.md"),
        ("a\\b\\c.md", POEM, "c.md"),
        ("server.log", "it rained\n", "server.log.txt"),
        ("x" * 300 + ".md", POEM, "x" * 117 + ".md"),
        ("", POEM, "document.txt"),
        ("ä?ö.md", POEM, "ä_ö.md"),
    ],
)
def test_names_of_uploads_stay_in_their_folder(api, uploads, file, content, kept):
    made(api)
    assert put(api, file, content).json()["file"] == kept
    assert [path.name for path in (uploads / "notes").iterdir()] == [kept]
    assert index(api)[-1]["report"]["read"] == 1


@pytest.mark.parametrize("file, content, fault", [("x.exe", b"MZ\0\0", "is not a text"), ("x.bin", b"\xff\xfe\xfd\x80", "neither text")])
def test_what_cannot_be_read_is_refused_at_once(api, uploads, file, content, fault):
    made(api)
    response = put(api, file, content)
    assert response.status_code == 400 and fault in response.json()["error"]["message"] and not list((uploads / "notes").iterdir())


def test_a_document_without_text_is_listed_with_its_fault(api):
    made(api)
    put(api, "broken.pdf", b"%PDF-1.4 nothing")
    put(api, "poem.md", POEM)
    report = index(api)[-1]["report"]
    assert report["read"] == 1 and [one["file"] for one in report["faults"]] == ["broken.pdf"]
    assert [bool(one["fault"]) for one in api.get("/libraries/notes").json()["files"]] == [True, False]


def test_uploads_are_bounded(api, uploads, monkeypatch):
    made(api)
    monkeypatch.setattr(library_routes, "MAX_BYTES", 1000)
    response = put(api, "poem.md", "word " * 1000)
    assert response.status_code == 413 and not [path for path in uploads.rglob("*") if path.is_file()]


def test_libraries_that_are_not_there_and_names_that_are_none(api):
    for response in (api.get("/libraries/no"), put(api, "x.md", POEM, "no"), api.delete("/libraries/no"), api.get("/libraries/..%2e")):
        assert response.status_code == 404 and response.json()["error"]["message"]
    assert api.post("/libraries", json={"name": "a/b"}).status_code == 400
    made(api)
    assert api.post("/libraries", json={"name": "Notes"}).status_code == 409
    assert api.post("/libraries/notes/search", json={"question": "x", "limit": 51}).status_code == 400


def test_a_library_that_is_broken_is_listed_with_its_fault(api, tmp_path):
    made(api)
    (tmp_path / "user_data/townhall/libraries/odd.sqlite").write_text("not a database at all, but a text of some length")
    entries = {one["name"]: one["fault"] for one in api.get("/libraries").json()["libraries"]}
    assert entries["notes"] == "" and "cannot be opened" in entries["odd"]
