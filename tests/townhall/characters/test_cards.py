"""Cards in every form that they come in, and out again without loss. The specifications' own words are in docs/characters.md."""

import base64
import copy
import json
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.townhall.characters.making import BOOK, EXTENSIONS, V1, V2, V3, chunk, png, source, text
from townhall.characters import card_files, png_chunks
from townhall.characters.card_files import as_png, from_bytes, read
from townhall.characters.cards import BACKFILLED, Card
from townhall.characters.errors import CardError

CARDS = {"v1": V1, "v2": V2, "v3": V3}


def card(values):
    return Card.from_json(source(values), "card x")


@pytest.mark.parametrize("version, values", [(1, V1), (2, V2), (3, V3)])
def test_each_version_gives_its_fields(version, values):
    read = card(values)
    assert (read.version, read.name, read.text("scenario")) == (version, "Ada", "In a library.")
    assert read.texts("alternate_greetings") == (() if version == 1 else ("Hello.", "You again, {{user}}?"))
    assert read.text("nickname") == ("Countess" if version == 3 else "")


@pytest.mark.parametrize("values", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("style", [{}, {"indent": 4}, {"separators": (",", ":")}], ids=["plain", "indented", "tight"])
def test_json_comes_out_byte_for_byte_after_a_png(values, style):
    written = source(values, **style)
    first = from_bytes(written, "x").card
    assert first.source == written
    again = from_bytes(as_png(first, png()), "x")
    assert again.card.source == written and again.portrait == png()


def test_a_png_has_both_chunks_and_the_picture_as_it_was():
    made = as_png(card(V2), png(chunk(b"tEXt", b"Software\0made here")))
    chunks = {chunk.keyword: chunk for chunk in png_chunks.split(made, "x")}
    v2, v3 = (json.loads(base64.b64decode(bytes(chunks[key].data).partition(b"\0")[2])) for key in ("chara", "ccv3"))
    assert v2 == V2 and (v3["spec"], v3["spec_version"]) == ("chara_card_v3", "3.0")
    assert v3["data"] == V2["data"] | {"group_only_greetings": []}
    assert "software" in chunks and from_bytes(made, "x").portrait == png(chunk(b"tEXt", b"Software\0made here"))


def test_v3_is_written_as_v2_with_a_warning_and_without_decorators():
    values = copy.deepcopy(V3)
    values["data"]["character_book"] = BOOK
    v2 = json.loads(card(values).as_v2())
    assert v2["spec"] == "chara_card_v2" and v2["data"]["creator_notes"].startswith(BACKFILLED)
    assert not {"nickname", "assets", "source", "group_only_greetings", "creation_date"} & v2["data"].keys()
    assert v2["data"]["character_book"]["entries"][0]["content"] == "It weighs four tons."
    assert v2["data"]["extensions"] == EXTENSIONS and v2["data"]["unheard_of"] == {"kept": True}


def test_v1_becomes_v3_with_what_it_had_beside_its_fields():
    v3 = json.loads(card(V1 | {"chat": "Ada - 1", "fav": True}).as_v3())
    assert {key: v3["data"][key] for key in V1} == V1
    assert v3["data"]["extensions"] == {"tavern_v1": {"chat": "Ada - 1", "fav": True}}
    assert v3["data"]["alternate_greetings"] == v3["data"]["group_only_greetings"] == []


def test_of_two_chunks_v3_counts_where_it_says_something_else():
    other = copy.deepcopy(V3)
    other["data"]["description"] = "Newer."
    found = from_bytes(png(text("chara", source(V2)), text("ccv3", source(other))), "x").card
    assert found.text("description") == "Newer." and found.source == source(other)


@pytest.mark.parametrize("keyword", ["chara", "Chara", "CCV3"])
def test_a_keyword_counts_in_any_case(keyword):
    assert from_bytes(png(text(keyword, source(V2))), "x").card.source == source(V2)


@pytest.mark.parametrize(
    "made",
    [
        chunk(b"iTXt", b"chara\0\0\0en\0Figur\0" + base64.b64encode(source(V2))),
        chunk(b"iTXt", b"chara\0\1\0\0\0" + zlib.compress(base64.b64encode(source(V2)))),
        chunk(b"zTXt", b"chara\0\0" + zlib.compress(base64.b64encode(source(V2)))),
        chunk(b"tEXt", b"chara\0" + source(V2)),
        chunk(b"tEXt", b"chara\0" + base64.encodebytes(source(V2))),
        chunk(b"tEXt", b"chara\0" + base64.b64encode(source(V2)).rstrip(b"=")),
    ],
    ids=["iTXt", "iTXt packed", "zTXt", "no base64", "lines", "no padding"],
)
def test_other_ways_to_put_a_card_into_a_png_are_read(made):
    assert from_bytes(png(made), "x").card.source == source(V2)


def test_charx_gives_its_card_and_the_main_icon(tmp_path):
    values = copy.deepcopy(V3)
    values["data"]["assets"] = [
        {"type": "icon", "name": "other", "uri": "embeded://assets/other.png", "ext": "png"},
        {"type": "icon", "name": "main", "uri": "embeded://assets/icon/images/main.png", "ext": "png"},
        {"type": "background", "name": "main", "uri": "https://example.org/picture.png", "ext": "png"},
    ]
    path = tmp_path / "ada.charx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card.json", source(values, indent=2))
        archive.writestr("assets/icon/images/main.png", png())
        archive.writestr("assets/other.png", b"no picture")
    found = read(path)
    assert found.card.source == source(values, indent=2) and found.portrait == png()
    assert found.notes == ["1 other file of the archive is not kept"]
    behind = tmp_path / "behind.jpg"
    behind.write_bytes(b"\xff\xd8\xff\xe0" + bytes(5000) + path.read_bytes())
    assert read(behind).card.source == found.card.source


def test_without_a_png_of_its_own_a_character_has_a_plain_picture():
    made = as_png(card(V2), b"\xff\xd8\xffjpeg")
    kinds = {chunk.kind: bytes(chunk.data) for chunk in png_chunks.split(made, "x")}
    assert len(zlib.decompress(kinds[b"IDAT"])) == 384 * (1 + 3 * 256)
    Image = pytest.importorskip("PIL.Image")
    import io

    picture = Image.open(io.BytesIO(made))
    picture.load()
    assert picture.size == (256, 384) and json.loads(base64.b64decode(picture.text["chara"])) == V2


def test_a_change_keeps_everything_else_and_none_keeps_the_bytes():
    written = source(V2 | V1 | {"top": 1}, indent=2)
    first = Card.from_json(written, "x")
    assert first.changed({"description": V1["description"]}, "x") is first
    other = first.changed({"description": "Ünlike.", "name": "Eve"}, "x")
    expected = V2 | V1 | {"top": 1, "description": "Ünlike.", "name": "Eve"}
    expected["data"] = V2["data"] | {"description": "Ünlike.", "name": "Eve"}
    assert other.values == expected and other.source == source(expected, indent=2)
    with pytest.raises(CardError, match="x: 'tags' must be a list of texts"):
        first.changed({"tags": "Maths"}, "x")


def test_null_is_nothing_and_a_newer_specification_is_read():
    values = {"spec": "chara_card_v3", "spec_version": "4.5", "data": dict.fromkeys(V3["data"]) | {"name": "Ada", "character_book": None}}
    found = card(values)
    assert found.newer and found.book is None and found.texts("tags") == () and found.text("description") == ""
    assert not card(V3).newer and not card(V2).newer and card(V3 | {"spec": "chara_card_v9"}).newer
    assert card(V3 | {"spec_version": "three"}).newer


def test_halves_of_characters_survive_a_change():
    written = b'{"name": "A\\ud800", "description": "x"}'
    other = Card.from_json(written, "x").changed({"description": "y"}, "x")
    assert other.source == b'{"name":"A\\ud800","description":"y"}'


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"", "is empty"),
        (b"GIF89a", "is no card: it is neither JSON nor a PNG nor a CHARX file"),
        (b"[1]", "holds JSON, but no character card: a card is an object"),
        (b'{"a": 1}', "neither spec and data nor a name and a description"),
        (b'{"spec": "chara_card_v2"}', "says that it is a chara_card_v2, but has no data"),
        (b'{"spec": "lorebook_v3", "data": {}}', "is a lorebook"),
        (b'{"entries": {}}', "is a lorebook"),
        (b'{"name": "x", "description": 7}', "'description' must be text, not a number"),
        (b'{"spec": "chara_card_v2", "data": {"extensions": []}}', "'extensions' must be an object, not a list"),
        (b'{"spec": "chara_card_v2", "data": {"character_book": [1]}}', "'character_book' must be an object, not a list"),
        (b'{"name": "x",\n "description": }', "is not valid JSON: line 2, column 17"),
        (b'{"name": NaN, "description": ""}', "is not valid JSON: NaN is no number of JSON"),
        (b'{"name": ' + b"9" * 5000 + b', "description": ""}', "is not valid JSON: Exceeds the limit"),
        (b'{"name": "\xff"}', "is not UTF-8 text"),
        (png(), "is a picture without a character in it"),
        (png()[:40], "is cut short"),
        (png(width=0), "is a picture of 0 × 2 pixels"),
        (png(chunk(b"tEXt", b"chara\0!!!!")), "the text 'chara' is not base64"),
        (png(chunk(b"zTXt", b"chara\0\0xx")), "the text 'chara' cannot be unpacked"),
        (png(text("chara", source(V2))).replace(b"chara", b"ccv3x"), "the text 'ccv3x' is damaged"),
    ],
)
def test_what_is_no_card_is_refused_in_one_sentence(content, fault):
    with pytest.raises(CardError) as caught:
        from_bytes(content, "card x.png")
    assert fault in str(caught.value) and str(caught.value).startswith("card x.png") and "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(CardError, match="is not a file"):
        read(tmp_path)
    with pytest.raises(CardError, match="cannot be read: No such file"):
        read(tmp_path / "none.png")
    (tmp_path / "no.charx").write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(CardError, match="is a zip without card.json"):
        read(tmp_path / "no.charx")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.fixed_dictionaries({key: st.text() for key in V1})
cards = st.builds(
    lambda fields, more, spec: {"spec": spec, "data": more | fields},
    texts,
    st.dictionaries(st.text(min_size=1).map("x_".__add__), json_values, max_size=3),
    st.sampled_from(["chara_card_v2", "chara_card_v3"]),
)


@given(cards, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_any_card_comes_out_of_a_png_as_it_went_in(values, indent, ascii):
    try:
        written = json.dumps(values, indent=indent, ensure_ascii=ascii).encode()
    except UnicodeEncodeError:
        return
    assert from_bytes(as_png(Card.from_json(written, "x"), png()), "x").card.source == written


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_damaged_files_are_read_or_refused(noise, at, byte):
    whole = bytearray(as_png(card(V3), png()))
    whole[at % len(whole)] = byte
    for content in (noise, bytes(whole), b"{" + noise, png(chunk(b"iTXt", b"chara\0" + noise)), png(chunk(b"zTXt", b"chara\0" + noise))):
        try:
            from_bytes(content, "x")
        except CardError:
            pass


def test_a_chunk_that_claims_more_than_there_is_is_cut_short():
    broken = png()[:-12] + struct.pack(">I4s", 100_000_000, b"tEXt") + b"chara"
    with pytest.raises(CardError, match="cut short: a chunk of 100,000,000 bytes has"):
        from_bytes(broken, "x")
    assert card_files.OURS == ("chara", "ccv3")


def test_a_zip_whose_names_disagree_is_one_short_sentence(tmp_path):
    with zipfile.ZipFile(path := tmp_path / "ada.charx", "w") as archive:
        archive.writestr("card.json", "{" + " " * 5000)
    whole = bytearray(path.read_bytes())
    whole[26:28] = struct.pack("<H", 3000)  # how long the name in the file's own header is
    path.write_bytes(whole)
    with pytest.raises(CardError, match="is a zip that cannot be read: File name in directory") as caught:
        read(path)
    assert len(str(caught.value)) < 400 and str(caught.value).isprintable()
