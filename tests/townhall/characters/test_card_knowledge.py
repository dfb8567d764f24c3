"""What a card brings to be searched: libraries that are there, documents of its own archive, and no other place."""

import copy
import zipfile

import pytest

from tests.townhall.characters.making import V1, V3, png, source
from tests.townhall.fake import FakeTokenizer
from townhall.characters import card_knowledge, character_folder
from townhall.characters.card_files import read
from townhall.characters.cards import Card
from townhall.context.source import SourceRequest
from townhall.library.libraries import Library
from townhall.persona import load_persona
from townhall.persona_sources import open_sources


def values_with(*entries):
    values = copy.deepcopy(V3)
    values["data"]["extensions"] = {"townhall": {"knowledge": list(entries)}}
    return values


def card(*entries):
    return Card.from_json(source(values_with(*entries)), "card")


@pytest.fixture
def charx(tmp_path):
    """Makes a CHARX file of these members with a card that names `entries`."""

    def make(members, *entries):
        path = tmp_path / "ada.charx"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("card.json", source(values_with(*entries)))
            for name, content in members.items():
                archive.writestr(name, content)
        return path

    return make


def keep(path):
    found = read(path)
    return found, character_folder.add(found.card, found.portrait, "ada", True, found.documents)


def test_a_card_names_libraries_and_no_other_place():
    named = card("kubla-khan", "../up", "/etc", "~/notes", "a/b", "C:\\x", "", "x.sqlite", "-x", "kubla-khan", 7, {"a": 1}, "y" * 65)
    assert card_knowledge.names_of(named) == ("kubla-khan",) and not card_knowledge.documents_of(named)
    assert len(card_knowledge.names_of(card(*(f"n{n}" for n in range(100))))) == card_knowledge.MAX_NAMES
    for extensions in (None, {}, {"townhall": None}, {"townhall": {"knowledge": "kubla-khan"}}, {"townhall": ["kubla-khan"]}):
        values = copy.deepcopy(V3) | {"data": {**V3["data"], "extensions": extensions}}
        assert card_knowledge.names_of(Card.from_json(source(values), "card")) == ()
    assert card_knowledge.names_of(Card.from_json(source(V1), "card")) == ()


def test_only_a_library_that_is_there_is_used(tmp_path):
    (tmp_path / "ada.json").write_bytes(source(values_with("mine", "yours")))
    with Library.open("mine", create=True):
        pass
    assert load_persona(tmp_path / "ada.json").knowledge == ("mine",)
    assert card_knowledge.missing(card("mine", "yours")) == ["yours"]


def test_documents_of_an_archive_are_kept_and_searched(charx):
    members = {
        "notes/towns/ulm.md": "# Ulm\n\nThe tower of Ulm has 768 steps.\n",
        "notes/../../../evil.txt": "The king of Thule is Olaf.\n",
        "notes/page.html": "<p>no</p>",
        "other/b.md": "not named",
        "icon.png": png(),
    }
    found, stored = keep(charx(members, "embeded://notes/"))
    assert sorted(path.name for path in stored.documents.iterdir()) == ["01-ulm.md", "02-evil.txt"]
    assert found.notes == ["3 other files of the archive are not kept"]
    persona = load_persona("ada")
    assert persona.knowledge == (str(stored.documents),)
    library = next(one for one in open_sources(persona, FakeTokenizer()).sources if one.name == "library")
    turn = library.turn(request("How many steps has the tower of Ulm?"))
    assert "> The tower of Ulm has 768 steps." in turn.texts[0].text
    _, stored = keep(charx({}, "embeded://notes/"))
    assert not stored.documents.exists() and load_persona("ada").knowledge == ()
    keep(charx(members, "embeded://notes/"))
    character_folder.remove(stored)
    assert not stored.folder.exists()


def request(text):
    return SourceRequest([("user", text)], 400, lambda text: len(text) // 3)


def test_a_card_that_is_not_imported_has_no_folder_beside_it(charx, tmp_path):
    (tmp_path / "knowledge").mkdir()
    (tmp_path / "knowledge" / "private.md").write_text("My number is 4711.")
    assert load_persona(charx({"notes/a.md": "a"}, "embeded://notes/")).knowledge == ()


def test_documents_are_bounded(charx):
    large = b"a" * (card_knowledge.MAX_DOCUMENT + 1)
    many = {f"notes/{n}.txt": b"b" * (1 << 18) for n in range(80)}
    found = read(charx({"notes/large.txt": large, **many}, "embedded://notes/"))
    assert len(found.documents) == card_knowledge.MAX_BYTES >> 18 and sum(map(len, found.documents.values())) <= card_knowledge.MAX_BYTES
    assert len(read(charx({f"notes/{n}.md": b"b" for n in range(80)}, "embeded://notes/")).documents) == card_knowledge.MAX_DOCUMENTS
