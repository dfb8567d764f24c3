"""What of a card reaches a persona: as SillyTavern joins it, macros replaced, nothing of what V2 keeps out of prompts."""

import copy
import json
from datetime import datetime

import pytest

from tests.townhall.characters.making import BOOK, V1, V2, V3, png, source, text
from townhall.characters import card_files, character_folder
from townhall.characters.card_prompt import card_prompt, examples, lorebook, plain, unknown_macros
from townhall.characters.cards import Card
from townhall.characters.errors import CardError
from townhall.errors import PersonaError
from townhall.persona import Example, list_personas, load_persona


def prompt(**fields):
    values = {"spec": "chara_card_v3", "spec_version": "3.0", "data": {"name": "Ada", **fields}}
    return card_prompt(Card.from_json(json.dumps(values).encode(), "card x"), "card x")


def test_a_card_is_joined_as_sillytavern_joins_it():
    made = card_prompt(Card.from_json(source(V2), "x"), "x")
    assert made.instructions == (
        "This is a conversation between Ada and User. Ada stays in character. Be exact.\n"
        "Ada computes; User asks.\nAda's personality: exact, dry\nScenario: In a library."
    )
    assert made.examples == (("What is two and two?", "Four."), ("And three?", "Seven, then."))
    assert made.greetings == ("Good day, User.", "Hello.", "You again, User?")
    assert made.post_history_instructions == "Answer in one sentence."


def test_what_v2_keeps_out_of_prompts_stays_out():
    hidden = {
        "creator_notes": "hidden-1",
        "tags": ["hidden-2"],
        "creator": "hidden-3",
        "character_version": "hidden-4",
        "extensions": {"a": "hidden-5"},
    }
    assert "hidden" not in repr(prompt(description="d", **hidden))


def test_an_empty_system_prompt_keeps_ours_and_original_puts_it_in():
    ours = "This is a conversation between Ada and User. Ada stays in character."
    assert prompt(system_prompt="").instructions == ours == prompt().instructions
    assert prompt(system_prompt="Mine.").instructions == "Mine."
    assert prompt(system_prompt="A {{ORIGINAL}} B").instructions == f"A {ours} B"
    assert prompt(post_history_instructions="{{original}}Now.").post_history_instructions == "Now."


def test_the_nickname_stands_for_char_and_fields_for_their_names():
    made = prompt(nickname="Countess", description="{{char}} <BOT>", scenario="{{description}}|{{personality}}", personality="p")
    expected = ["Countess Countess", "Countess's personality: p", "Scenario: Countess Countess|p"]
    assert made.name == "Countess" and made.instructions.split("\n")[1:] == expected


def test_a_conversation_begins_the_same_way_each_time():
    fields = {"description": "{{random:a,b,c,d,e,f,g,h}}{{roll:1000}}{{pick:a,b,c,d,e,f}}" * 5}
    assert prompt(**fields) == prompt(**fields) and prompt(**fields).instructions != prompt(**fields, tags=["x"]).instructions


@pytest.mark.parametrize(
    "text, exchanges, others",
    [
        ("", (), ""),
        ("<START>", (), ""),
        ("<START>\nUser: a\nAda: b\n", (("a", "b"),), ""),
        ("User: a\nAda: b\nmore of b\n\n*and* more\nUser: c\nAda: d", (("a", "b\nmore of b\n\n*and* more"), ("c", "d")), ""),
        ("<start>USER: a\n ada: b<START>User: c\nAda: d", (("a", "b"), ("c", "d")), ""),
        ("<START>\nUser: a\nUser: aa\nAda: b\nAda: bb", (("a\naa", "b\nbb"),), ""),
        ("<START>\nAda: I hum.\n<START>\nUser: a\nAda: b\nUser: unanswered", (("a", "b"),), "I hum."),
        ("She hums.\nUser: a\nEve: c\nAda: b", (("a\nEve: c", "b"),), "She hums."),
        ("User: a\r\nAda: b\r\n", (("a", "b"),), ""),
        ("User:\nAda: b", (), "b"),
        ("\n".join("User: a\nAda: b" for _ in range(40)), (("a", "b"),) * 32, "\n".join("b" for _ in range(8))),
    ],
)
def test_examples_are_split_into_exchanges(text, exchanges, others):
    assert examples(plain(text), ("Ada",), "User") == (exchanges, others)


def test_lines_of_the_card_s_own_name_count_beside_a_nickname():
    assert prompt(nickname="Countess", mes_example="{{user}}: a\nAda: b\n{{user}}: c\n{{char}}: d").examples == (("a", "b"), ("c", "d"))
    assert "How Ada talks:\nI hum." in prompt(mes_example="{{char}}: I hum.").instructions


@pytest.mark.parametrize(
    "name, expected",
    [
        ("Dr. Who: the Return", "Dr. Who the Return"),
        ("A\nB\x1b[31m", "A B[31m"),
        ("", "Character"),
        ("x" * 50, "x" * 40),
        ("👩‍🚀", "👩‍🚀"),
        ("\ud800", "\ufffd"),
    ],
)
def test_a_name_can_stand_before_a_colon(name, expected):
    values = {"name": name, "description": "d"}
    assert card_prompt(Card.from_json(json.dumps(values).encode(), "x"), "x").name == expected


def test_the_user_is_called_otherwise_than_the_character():
    made = card_prompt(Card.from_json(source(V1 | {"name": "user"}), "x"), "x")
    assert (made.name, made.user) == ("user", "You") and "You asks" in made.instructions


def test_texts_reach_a_model_without_what_speaks_to_terminals():
    made = prompt(description="a\x1b[2Jb\r\nc\x00\x07d\ud800\u200b e\u200df", first_mes="  hi  ")
    assert made.instructions.split("\n")[1:] == ["a[2Jb", "cd\ufffd e\u200df"] and made.greetings == ("hi",)


def test_more_than_any_model_reads_is_refused():
    with pytest.raises(CardError, match="card x has 400,001 characters for the prompt"):
        prompt(description="x" * 400_001)


def test_date_and_time_are_those_of_the_beginning():
    card = Card.from_json(source(V1 | {"description": "{{date}} {{time}}"}), "x")
    assert "May 1, 2026 9:05 AM" in card_prompt(card, "x", now=datetime(2026, 5, 1, 9, 5)).instructions


def test_unknown_macros_are_named():
    card = Card.from_json(source(V1 | {"description": "{{getvar::x}} {{char}} {{original}}", "first_mes": "{{idle}}"}), "x")
    assert unknown_macros(card) == ["getvar::x", "idle"]


def test_a_card_gives_its_lorebook():
    values = copy.deepcopy(V3)
    assert lorebook(Card.from_json(source(values), "x"), "x") is None
    values["data"]["character_book"] = BOOK
    assert [entry.keys for entry in lorebook(Card.from_json(source(values), "x"), "x").entries] == [("engine",)]


def test_personas_are_found_among_the_user_s_characters(tmp_path):
    card = Card.from_json(source(V2), "x")
    character_folder.add(card, png(), "ada")
    assert list_personas() == ["gary", "george", "lexie", "stacy", "ada"]
    ada = load_persona("ADA")
    assert (ada.name, ada.user, ada.greeting, ada.alternate_greetings) == ("Ada", "User", "Good day, User.", ("Hello.", "You again, User?"))
    assert ada.examples[0] == Example("What is two and two?", "Four.") and ada.post_history_instructions == "Answer in one sentence."
    assert ada.instructions.startswith("This is a conversation between Ada and User.")
    assert ada.card == tmp_path / "user_data/townhall/characters/ada/card.json"
    with pytest.raises(PersonaError, match="did you mean ada.*stacy, ada or the path of a YAML file or a character card"):
        load_persona("adaa")


def test_personas_are_read_from_card_files(tmp_path):
    (tmp_path / "ada.png").write_bytes(png(text("chara", source(V2))))
    (tmp_path / "nameless.json").write_bytes(source(V1 | {"name": ""}))
    assert load_persona(tmp_path / "ada.png").name == "Ada" and load_persona(str(tmp_path / "nameless.json")).name == "nameless"
    with pytest.raises(PersonaError, match="card .*none.json cannot be read: No such file"):
        load_persona(tmp_path / "none.json")


def test_a_character_that_was_broken_since_is_named():
    stored = character_folder.add(Card.from_json(source(V2), "x"), b"", "ada")
    stored.card_path.write_bytes(b"{")
    with pytest.raises(PersonaError, match=r"character ada \(.*card.json\) is not valid JSON"):
        load_persona("ada")
    assert "ada" in list_personas()


def test_the_folder_keeps_the_card_and_its_picture(tmp_path):
    written = source(V2, indent=3)
    stored = character_folder.add(card_files.from_bytes(png(text("chara", written)), "x").card, png(), "ada")
    assert stored.card_path.read_bytes() == written and stored.portrait() == png()
    with pytest.raises(CardError, match="there is a character ada already; pass --replace"):
        character_folder.add(stored.card(), b"", "ada")
    again = character_folder.add(Card.from_json(source(V1), "x"), b"\xff\xd8\xffjpeg", "ada", replace=True)
    assert again.card().version == 1 and [path.name for path in sorted(again.folder.iterdir())] == ["card.json", "portrait.jpg"]
    (again.folder.parent / "Not an id").mkdir()
    (again.folder.parent / "empty").mkdir()
    assert character_folder.names() == ["ada"]


@pytest.mark.parametrize(
    "name, id",
    [
        ("Ada Lovelace", "ada-lovelace"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\x", "c-x"),
        ("Zoë!", "zoë"),
        ("👩‍🚀", ""),
        ("a_b", "a-b"),
        ("x" * 60, "x" * 40),
    ],
)
def test_a_name_becomes_an_id_that_is_no_path(name, id):
    assert character_folder.id_of(name) == id
