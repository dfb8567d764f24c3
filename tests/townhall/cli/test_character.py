"""`townhall character`: cards come in, are shown, edited, and go out."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from ext.tinygrad.errors import TownhallError
from tests.townhall.characters.making import BOOK, V1, V2, V3, png, source, text
from tests.townhall.cli.test_keeping import townhall as chat
from townhall.cli.main import main


@pytest.fixture
def character(capfd):
    """Run `townhall character …`; gives (exit code, stdout, stderr)."""

    def run(*args):
        code = main(["character", *map(str, args)])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def ada(tmp_path, character):
    """Imported from a PNG; the path of her card."""
    (tmp_path / "ada.png").write_bytes(png(text("chara", source(V2, indent=2))))
    assert character("import", tmp_path / "ada.png")[0] == 0
    return tmp_path / "user_data/townhall/characters/ada/card.json"


def test_a_card_is_imported_talked_to_and_exported_byte_for_byte(tmp_path, character, ada):
    assert ada.read_bytes() == source(V2, indent=2) and (ada.parent / "portrait.png").read_bytes() == png()
    done = chat("--personality", "ada", stdin="Hello\n")
    # the echo repeats what it was sent: the card's post-history instructions stand below the message
    assert done.returncode == 0 and done.stdout == "Hello\n\n[Answer in one sentence.]\n"
    assert character("export", "ADA", tmp_path / "out.json")[0] == 0
    assert (tmp_path / "out.json").read_bytes() == source(V2, indent=2)
    assert character("export", "ada", tmp_path / "out.png")[0] == 0
    code, out, _ = character("import", tmp_path / "out.png", "--name", "Ada the Second")
    assert (code, out) == (0, "Ada is here: townhall chat --personality ada-the-second\n")
    assert (ada.parents[1] / "ada-the-second/card.json").read_bytes() == source(V2, indent=2)
    assert character("export", "ada", tmp_path / "v3.json", "--v3")[0] == 0
    assert json.loads((tmp_path / "v3.json").read_bytes())["spec"] == "chara_card_v3"


def test_an_import_says_what_is_to_be_known(tmp_path, character):
    values = copy.deepcopy(V3) | {"spec_version": "3.1"}
    values["data"] |= {"character_book": BOOK, "description": "{{getvar::x}} {{foo}}"}
    (tmp_path / "ada.json").write_bytes(source(values))
    code, out, err = character("import", tmp_path / "ada.json")
    assert (code, out) == (0, "Countess is here: townhall chat --personality ada\n")
    assert err.splitlines() == [
        "made for a newer specification than V3; what is new in it is kept and not used",
        "the macros {{getvar::x}}, {{foo}} are not known, and left as written",
        "a lorebook of 1 entry",
        "the creator's notes: Not for prompts.",
    ]
    code, out, err = character("import", tmp_path / "ada.json", "--strict", "--replace")
    assert code == 2 and not out and "the macros {{getvar::x}}, {{foo}} are not known; take --strict away" in err


def test_characters_are_listed_and_shown(character, ada):
    (ada.parents[1] / "broken").mkdir()
    (ada.parents[1] / "broken" / "card.json").write_text("{")
    code, out, err = character("list")
    assert code == 0 and out.splitlines()[0] == f"{'ada':<20}  Ada by me, card V2, 3 greetings, Maths, History"
    assert "broken" in out.splitlines()[1] and "is not valid JSON" in out.splitlines()[1] and not err
    listed = [json.loads(line) for line in character("list", "--json")[1].splitlines()]
    assert listed[0]["tags"] == ["Maths", "History"] and "fault" in listed[1]
    out = character("show", "ada")[1]
    assert "creator_notes:\n  Not for prompts.\n" in out and "first_mes:\n  Good day, {{user}}.\n" in out
    assert character("show", "ada", "--json")[1] == source(V2, indent=2).decode() + "\n"


def test_without_characters_the_list_says_how_to_get_one(character):
    code, out, err = character("list")
    assert (code, out) == (0, "") and "townhall character import FILE adds one" in err


def test_a_character_is_made_and_edited_by_flags(tmp_path, character):
    code, out, _ = character("new", "Eve Smith", "--set", "description=Eve plays.", "--set", "tags=a", "--set", "tags=b")
    assert (code, out) == (0, "eve-smith is here: townhall chat --personality eve-smith\n")
    path = tmp_path / "user_data/townhall/characters/eve-smith/card.json"
    made = json.loads(path.read_bytes())
    assert made["spec"] == "chara_card_v3" and made["data"]["name"] == "Eve Smith" and made["data"]["tags"] == ["a", "b"]
    assert made["data"]["group_only_greetings"] == [] and made["data"]["creation_date"] == made["data"]["modification_date"] > 0
    assert character("edit", "eve-smith", "--set", "first_mes=Hi.")[2] == "eve-smith: first_mes changed\n"
    changed = json.loads(path.read_bytes())
    del changed["data"]["modification_date"], made["data"]["modification_date"]
    assert changed == made | {"data": made["data"] | {"first_mes": "Hi."}} and path.read_bytes().startswith(b'{\n  "spec"')
    before = path.read_bytes()
    assert character("edit", "eve-smith", "--set", "first_mes=Hi.")[2] == "nothing was changed\n" and path.read_bytes() == before


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """An editor that puts `text` in the file's place, where one is given, and shows what it was opened with."""
    monkeypatch.setenv("VISUAL", f"sh {tmp_path / 'editor.sh'}")

    def write(text=None):
        seen = tmp_path / "seen.yaml"
        lines = [f'cp "$1" {seen}']
        if text is not None:
            (tmp_path / "instead.yaml").write_text(text)
            lines.append(f'cp {tmp_path / "instead.yaml"} "$1"')
        (tmp_path / "editor.sh").write_text("\n".join(lines))
        return seen

    return write


def test_an_editor_shows_the_texts_and_changes_only_what_was_changed(character, ada, editor):
    seen = editor()
    assert character("edit", "ada")[2] == "nothing was changed\n" and ada.read_bytes() == source(V2, indent=2)
    page = yaml.safe_load(seen.read_text())
    assert page["description"] == V1["description"] and page["alternate_greetings"] == V2["data"]["alternate_greetings"]
    assert "mes_example: |-\n  <START>\n  {{user}}: What is two and two?\n" in seen.read_text()
    editor(seen.read_text().replace("In a library.", "In a garden."))
    assert character("edit", "ada")[2] == "ada: scenario changed\n"
    expected = copy.deepcopy(V2)
    expected["data"]["scenario"] = "In a garden."
    assert ada.read_bytes() == source(expected, indent=2) and not (ada.parent / "edit.yaml").exists()


@pytest.mark.parametrize(
    "page, fault",
    [
        ("name: [a\n", "edit.yaml, line 2: "),
        ("name: 7\n", "'name' must be text; put it in quotes"),
        ("nome: x\n", "must have the keys name, description"),
        ("tags: x\n", "'tags' must be a list of texts"),
        ("description: '" + "x" * 400_001 + "'", "has 400,"),
        ("name: &a [*a]\n", "edit.yaml"),
    ],
)
def test_a_page_that_is_broken_is_kept_and_gone_on_with(character, ada, editor, page, fault):
    before = ada.read_bytes()
    editor(page)
    code, out, err = character("edit", "ada")
    assert code == 2 and fault in err and "townhall character edit ada goes on with what you wrote" in err and len(err.splitlines()) == 1
    assert ada.read_bytes() == before
    seen = editor("name: Ada\n")
    assert character("edit", "ada")[2] == "nothing was changed\n" and seen.read_text() == page


@pytest.mark.parametrize(
    "args, fault",
    [
        (["import", "none.png"], "card none.png cannot be read: No such file"),
        (["import", "{tmp}"], "is not a file"),
        (["import", "{tmp}/ada.png"], "there is a character ada already; pass --replace, or another name with --name"),
        (["import", "{tmp}/ada.png", "--name", "Stacy"], "stacy is one of Townhall's own personas; pass another name with --name"),
        (["import", "{tmp}/ada.png", "--name", "!!"], "has no name that letters could be taken from"),
        (["export", "adda", "x.png"], "no character is called 'adda': did you mean ada? there is ada"),
        (["export", "ada", "{tmp}/x.gif"], "must end in .json or .png"),
        (["export", "ada", "{tmp}/ada.png"], "is there already; pass --replace"),
        (["export", "ada", "{tmp}/none/x.png"], "is no folder"),
        (["show", "eve"], "no character is called 'eve': there is ada"),
        (["edit", "ada", "--set", "descripton=x"], "--set descripton=x: did you mean 'description'?"),
        (["edit", "ada", "--set", "description"], "--set description: it takes FIELD=TEXT"),
        (["new", "gary"], "gary is one of Townhall's own personas"),
        (["new", "Ada"], "there is a character ada already"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path, character, ada, args, fault):
    before = ada.read_bytes()
    code, out, err = character(*[arg.replace("{tmp}", str(tmp_path)) for arg in args])
    assert code == 2 and not out and fault in err and len(err.splitlines()) == 1 and err.startswith("townhall: ")
    assert ada.read_bytes() == before


def test_a_broken_card_is_not_served_and_the_others_are(ada, capfd):
    from townhall.cli.chat_options import ChatOptions
    from townhall.cli.serve import answering

    ada.write_text("{")
    options = answering(ChatOptions(model=Path("fake:echo")), ())
    assert "ada" not in options.personas and "stacy" in options.personas
    assert "ada is not served: " in capfd.readouterr().err
    with pytest.raises(TownhallError):
        answering(ChatOptions(model=Path("fake:echo")), ("ada",))
