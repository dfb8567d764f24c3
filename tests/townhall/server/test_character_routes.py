"""/townhall/characters: what is made, imported and changed there is served from then on; what is not the user's stays as it is."""

import base64
import copy
import json
import socket
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.townhall.characters.making import BOOK, V1, V2, V3, png, source, text
from tests.townhall.fake import FakeLlama
from tests.townhall.server.running import Running, ask
from townhall.characters import card_files

pytestmark = pytest.mark.slow

CARD = png(text("chara", source(V2, indent=2)))


@pytest.fixture
def llama() -> FakeLlama:
    return FakeLlama()


@pytest.fixture
def api(serve, llama) -> httpx.Client:
    server = serve(llama)
    with httpx.Client(base_url=f"{server.root}/townhall", timeout=60) as client:
        client.server = server
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "user_data/townhall/characters"


def imported(api: httpx.Client, content: bytes = CARD, **query: str) -> dict:
    response = api.post("/characters/import", content=content, params=query)
    assert response.status_code == 201, response.text
    return response.json()


def last_prompt(llama: FakeLlama) -> str:
    return llama.tokenizer.decode(llama.prompts[-1])


def models(api: httpx.Client) -> set[str]:
    return {model.id for model in OpenAI(base_url=f"{api.server.root}/v1", api_key="-").models.list()}


def test_a_card_that_is_imported_answers_without_a_restart(api, llama, folder):
    assert "ada" not in models(api)
    made = imported(api)
    assert made["id"] == "ada" and made["served"] and made["editable"] and made["version"] == 2 and made["not_served"] == ""
    assert made["fields"]["description"] == V1["description"] and made["fields"]["tags"] == ["Maths", "History"]
    assert made["greetings"] == ["Good day, User.", "Hello.", "You again, User?"]
    assert (folder / "ada/card.json").read_bytes() == source(V2, indent=2) and (folder / "ada/portrait.png").read_bytes() == png()
    assert "ada" in models(api)
    assert ask(api.server, model="ada").status_code == 200 and "Ada computes; User asks." in last_prompt(llama)
    taken = api.post("/characters/import", content=CARD)
    assert taken.status_code == 409 and taken.json()["error"]["code"] == "character_exists"
    assert imported(api, name="Ada the Second")["id"] == "ada-the-second" and imported(api, replace="true")["id"] == "ada"


def test_characters_and_personas_are_listed_and_searched(api):
    imported(api)
    listed = api.get("/characters").json()["characters"]
    assert [one["id"] for one in listed] == ["gary", "george", "lexie", "stacy", "ada"]
    ada = listed[-1]
    assert (ada["kind"], ada["name"], ada["greetings"], ada["tags"], ada["served"]) == ("character", "Ada", 3, ["Maths", "History"], True)
    assert {one["id"]: one["served"] for one in listed} == {"gary": True, "george": False, "lexie": False, "stacy": True, "ada": True}
    for words, found in (("maths computes", ["ada"]), ("ADA maths stacy", []), ("gary", ["gary"]), ("nothing-such", [])):
        assert [one["id"] for one in api.get("/characters", params={"search": words}).json()["characters"]] == found


def test_a_broken_card_is_listed_with_its_fault(api, folder):
    (folder / "broken").mkdir(parents=True)
    (folder / "broken/card.json").write_text("{")
    entry = next(one for one in api.get("/characters").json()["characters"] if one["id"] == "broken")
    assert "is not valid JSON" in entry["fault"] and not entry["served"]
    assert api.get("/characters/broken").status_code == 400 and api.delete("/characters/broken").json() == {"deleted": "broken"}


def test_a_character_is_made_edited_duplicated_and_deleted(api, llama, folder):
    made = api.post(
        "/characters", json={"name": "Eve Smith", "fields": {"description": "Eve plays chess.", "alternate_greetings": ["Hi.", "Ho."]}}
    )
    assert made.status_code == 201 and made.json()["id"] == "eve-smith" and made.json()["version"] == 3
    before = json.loads((folder / "eve-smith/card.json").read_bytes())
    assert ask(api.server, model="eve-smith").status_code == 200 and "Eve plays chess." in last_prompt(llama)
    changed = api.patch("/characters/eve-smith", json={"description": "Eve plays go.", "first_mes": "Your move.", "nickname": "E"}).json()
    assert changed["fields"]["description"] == "Eve plays go." and changed["greetings"] == ["Your move.", "Hi.", "Ho."]
    assert ask(api.server, model="eve-smith").status_code == 200
    assert "Eve plays go." in last_prompt(llama) and "chess" not in last_prompt(llama)
    after = json.loads((folder / "eve-smith/card.json").read_bytes())
    same = {"description", "first_mes", "nickname", "modification_date"}
    assert {k: v for k, v in after["data"].items() if k not in same} == {k: v for k, v in before["data"].items() if k not in same}
    assert api.patch("/characters/eve-smith", json={"first_mes": ""}).json()["greetings"] == ["Hi.", "Ho."]
    copied = api.post("/characters/eve-smith/duplicate", json={})
    assert (
        copied.status_code == 201
        and copied.json()["id"] == "e-smith"[:0] + "eve-smith-2"
        and copied.json()["fields"]["name"] == "Eve Smith"
    )
    assert api.post("/characters/eve-smith/duplicate", json={"name": "Eva"}).json()["id"] == "eva"
    assert api.post("/characters/eve-smith/duplicate", json={"name": "Eva"}).status_code == 409
    assert api.delete("/characters/eve-smith").json() == {"deleted": "eve-smith"} and not (folder / "eve-smith").exists()
    assert api.get("/characters/eve-smith").status_code == 404 and models(api) >= {"eve-smith-2", "eva"} and "eve-smith" not in models(api)


def test_what_is_not_changed_stays_byte_for_byte(api, folder):
    imported(api)
    assert api.patch("/characters/ada", json={"description": V1["description"], "nickname": ""}).status_code == 200
    assert (folder / "ada/card.json").read_bytes() == source(V2, indent=2)


def test_a_shipped_persona_stays_and_its_copy_can_be_changed(api, llama):
    shown = api.get("/characters/stacy").json()
    assert not shown["editable"] and shown["kind"] == "persona" and shown["fields"]["name"] == "Stacy" and shown["greetings"]
    book = {"book": None}
    for refused in (
        api.patch("/characters/stacy", json={"name": "x"}),
        api.delete("/characters/stacy"),
        api.put("/characters/stacy/lorebook", json=book),
    ):
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "read_only"
    made = api.post("/characters/stacy/duplicate", json={}).json()
    assert made["id"] == "stacy-2" and made["editable"] and made["fields"]["description"] == shown["fields"]["description"]
    assert api.patch("/characters/stacy-2", json={"description": "{{char}} dives."}).status_code == 200
    assert ask(api.server, model="stacy-2").status_code == 200 and "Stacy dives." in last_prompt(llama)


def test_a_v1_card_becomes_v3_where_it_must(api, folder):
    imported(api, source(V1))
    assert api.patch("/characters/ada", json={"scenario": "In a garden."}).json()["version"] == 1
    assert json.loads((folder / "ada/card.json").read_bytes()) == V1 | {"scenario": "In a garden."}
    changed = api.patch("/characters/ada", json={"alternate_greetings": ["Hello."]}).json()
    assert (
        changed["version"] == 3
        and changed["greetings"] == ["Good day, User.", "Hello."]
        and changed["fields"]["scenario"] == "In a garden."
    )


def test_cards_are_exported_as_they_came_and_as_pictures(api):
    imported(api)
    response = api.get("/characters/ada/export")
    assert response.content == source(V2, indent=2) and response.headers["content-disposition"] == 'attachment; filename="ada.json"'
    assert "sandbox" in response.headers["content-security-policy"]
    picture = api.get("/characters/ada/export", params={"format": "png"}).content
    assert imported(api, picture, name="again")["fields"] == api.get("/characters/ada").json()["fields"]
    assert json.loads(api.get("/characters/ada/export", params={"v3": "true"}).content)["spec"] == "chara_card_v3"
    assert json.loads(api.get("/characters/gary/export").content)["data"]["name"] == "Gary"
    assert api.get("/characters/ada/export", params={"format": "gif"}).status_code == 400


def test_portraits_are_given_taken_and_inert(api, folder):
    imported(api, source(V1))
    drawn = api.get("/characters/ada/portrait")
    assert drawn.headers["content-type"].startswith("image/svg") and "sandbox" in drawn.headers["content-security-policy"]
    assert drawn.headers["x-content-type-options"] == "nosniff"
    assert api.put("/characters/ada/portrait", content=CARD).status_code == 200  # a card's picture, without the card in it
    assert (
        api.get("/characters/ada/portrait").content == png() and api.get("/characters/ada/portrait").headers["content-type"] == "image/png"
    )
    assert api.put("/characters/ada/portrait", content=b"<svg onload=alert(1)>").status_code == 400
    assert (folder / "ada/portrait.png").exists()
    assert api.put("/characters/ada/portrait", content=b"").status_code == 200
    assert not list((folder / "ada").glob("portrait.*"))
    assert api.get("/characters/stacy/portrait").text.startswith("<svg")


def test_a_lorebook_is_written_with_all_its_keys_and_tested(api, folder):
    imported(api, source(V3))
    assert api.get("/characters/ada/lorebook").json() == {"book": None, "entries": 0}
    book = copy.deepcopy(BOOK)
    book["entries"] += [
        {"keys": ["never"], "content": "…", "enabled": False, "insertion_order": 2, "extensions": {"probability": 0}, "own": {"x": 1}},
        {"keys": ["tons"], "content": "A ton is 1,000 kg.", "enabled": True, "insertion_order": 3, "comment": "Weights", "extensions": {}},
    ]
    assert api.put("/characters/ada/lorebook", json={"book": book}).json() == {"book": book, "entries": 3}
    assert json.loads((folder / "ada/card.json").read_bytes())["data"]["character_book"] == book
    found = api.post("/characters/ada/lorebook/test", json={"text": "How heavy is the engine?"}).json()
    assert [(one["text"], one["place"], one["keys"]) for one in found["fired"]] == [("It weighs four tons.", "at depth 2", ["engine"])]
    assert "engine" in found["fired"][0]["why"] and found["fired"][0]["tokens"] > 0 and found["passed_over"] == []
    tried = {**book, "recursive_scanning": True}  # not saved: as it stands in an editor
    found = api.post("/characters/ada/lorebook/test", json={"text": "the engine", "book": tried}).json()
    assert [one["title"] for one in found["fired"]] == ["", "Weights"]
    tried["entries"] = [book["entries"][0] | {"extensions": {"probability": 0}}]
    found = api.post("/characters/ada/lorebook/test", json={"messages": [{"role": "assistant", "content": "engine"}], "book": tried}).json()
    assert found["fired"] == [] and "probability" in found["passed_over"][0]["why"]
    wrong = api.put("/characters/ada/lorebook", json={"book": {"entries": [{"keys": 7}]}})
    assert wrong.status_code == 400 and "'keys' must be a list of texts" in wrong.json()["error"]["message"]
    assert api.put("/characters/ada/lorebook", json={"book": None}).json() == {"book": None, "entries": 0}


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_who_is_not_there_is_not_found(api, method):
    response = api.request(method, "/characters/no-such", json={} if method == "patch" else None)
    assert response.status_code == 404 and response.json()["error"]["code"] == "character_not_found"


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"", "is empty"),
        (b"{", "is not valid JSON"),
        (png(), "a picture without a character in it"),
        (b"PK\3\4", "cut short"),
        (b"\x7fELF", "neither JSON nor a PNG nor a CHARX"),
        (source({**V1, "name": "Stacy"}), "one of Townhall's own personas"),
        (source({**V1, "name": "double"}), ""),
    ],
)
def test_an_import_that_cannot_be_leaves_nothing(api, folder, content, fault):
    response = api.post("/characters/import", content=content)
    if not fault:  # the bare model's id: it is kept, and not served
        assert response.status_code == 201 and "id of the model itself" in response.json()["not_served"]
        return
    assert response.status_code == 400 and fault in response.json()["error"]["message"] and not folder.exists()


def test_an_upload_that_is_too_large_is_refused(api, folder, monkeypatch):
    with socket.create_connection(api.server.address, timeout=60) as client:  # before anything of it is read
        client.sendall(b"POST /townhall/characters/import HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (65 << 20))
        assert b" 413 " in client.recv(4096).splitlines()[0]
    monkeypatch.setattr(card_files, "MAX_PICTURE", 100_000)  # and where its length was not declared
    response = api.post("/characters/import", content=(b"{" * 10_000 for _ in range(20)))
    assert response.status_code == 413 and response.json()["error"]["code"] == "body_too_large" and not folder.exists()


def test_a_character_without_room_to_talk_is_kept_and_not_served(serve):
    server: Running = serve(FakeLlama(max_context=256), personas=())
    body = {"name": "Long", "fields": {"description": "word " * 400}}
    made = httpx.post(f"{server.root}/townhall/characters", json=body, timeout=60)
    assert made.status_code == 201 and not made.json()["served"] and "256" in made.json()["not_served"]


def test_strangers_are_refused_as_by_the_api(serve):
    server = serve(keys=("secret",))
    assert httpx.get(f"{server.root}/townhall/characters").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    assert httpx.get(f"{server.root}/townhall/characters", headers=headers).status_code == 200
    open_server = serve(hosts=("127.0.0.1",))
    root = f"{open_server.root}/townhall/characters"
    assert httpx.post(root, json={"name": "x"}, headers={"Origin": "http://evil.example"}).status_code == 403
    assert httpx.get(root, headers={"Host": "evil.example"}).status_code == 403


def test_base64_of_a_card_in_a_png_is_that_of_the_card(api):
    imported(api)
    picture = api.get("/characters/ada/export", params={"format": "png"}).content
    assert base64.b64encode(source(V2, indent=2)) in picture
