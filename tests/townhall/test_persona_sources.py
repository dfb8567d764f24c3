"""A persona with lorebook, library and memory: what it names is opened, and a long chat keeps its promises."""

import json
import random
import re

import pytest

from tests.townhall.characters.making import V2
from tests.townhall.fake import CHATML, FakeLlama, FakeTokenizer
from townhall.characters.errors import CardError, LorebookError
from townhall.context.summarizer import REQUEST
from townhall.conversation import Conversation
from townhall.errors import PersonaError
from townhall.library.errors import LibraryError
from townhall.library.indexer import update
from townhall.library.libraries import Library
from townhall.persona import Persona, load_persona
from townhall.persona_sources import library_of, open_library, open_sources

LORE = {
    "name": "Ulm",
    "token_budget": 60,
    "extensions": {},
    "entries": [
        {
            "keys": ["tower"],
            "content": "The tower of Ulm has 768 steps.",
            "extensions": {"sticky": 3},
            "enabled": True,
            "insertion_order": 1,
        },
        {"keys": [], "content": "{{char}} was born in Ulm.", "constant": True, "extensions": {}, "enabled": True, "insertion_order": 2},
        {
            "keys": ["bell"],
            "content": "The bell is cracked.",
            "extensions": {"position": 4, "depth": 2},
            "enabled": True,
            "insertion_order": 3,
        },
    ],
}
FACTS = [
    f"The number of the house called {name} is {number}." for number, name in enumerate("Alder Birch Cedar Dogwood Elm Fir".split(), 4_000)
]


@pytest.fixture
def folder(tmp_path):
    """A card with a lorebook, another lorebook, documents, and a persona that names the last two."""
    card = V2 | {"data": V2["data"] | {"character_book": LORE, "mes_example": ""}}
    (tmp_path / "ada.json").write_text(json.dumps(card))
    (tmp_path / "world.json").write_text(json.dumps(LORE))
    (tmp_path / "docs").mkdir()
    for number, fact in enumerate(FACTS):
        (tmp_path / "docs" / f"house{number}.txt").write_text(fact + "\n")
    (tmp_path / "guide.yaml").write_text(
        "name: Guide\ndescription: Guide shows the town.\nknowledge: [./docs]\nlorebooks: [world.json]\n"
        "post_history_instructions: Answer in one sentence.\n"
    )
    return tmp_path


def test_a_persona_names_its_sources(folder):
    persona = load_persona(folder / "guide.yaml")
    assert persona.knowledge == (str(folder / "docs"),) and persona.lorebooks == (folder / "world.json",)
    sources = open_sources(persona, FakeTokenizer())
    assert [source.name for source in sources.sources] == ["lorebook", "library", "post-history instructions"]
    assert [text.text for text in sources.head] == ["Guide was born in Ulm."]


def test_a_card_brings_its_lorebook_and_what_is_said_behind_the_conversation(folder):
    sources = open_sources(load_persona(folder / "ada.json"), FakeTokenizer())
    assert [source.name for source in sources.sources] == ["lorebook", "post-history instructions"]
    llama = FakeLlama()
    conversation = Conversation(
        llama,
        load_persona(folder / "ada.json"),
        sampling=object(),
        sources=open_sources(load_persona(folder / "ada.json"), llama.tokenizer),
    )
    "".join(conversation.reply("What of the tower?"))
    shown = llama.tokenizer.show(llama.prompts[-1])
    assert "[The tower of Ulm has 768 steps.]\n\nWhat of the tower?\n\n[Answer in one sentence.]<|im_end|>" in shown
    assert "Ada was born in Ulm." in shown.split("<|im_end|>")[0]


def test_a_reminder_stands_in_front_of_the_newest_words_from_the_second_turn_on(tmp_path):
    (tmp_path / "ada.yaml").write_text("name: Ada\ndescription: Ada computes.\nreminder: You are Ada, and brief.\n")
    llama, persona = FakeLlama(), load_persona(tmp_path / "ada.yaml")
    conversation = Conversation(llama, persona, sampling=object(), sources=open_sources(persona, llama.tokenizer))
    for text in ("one", "two", "three"):
        "".join(conversation.reply(text))
    shown = [llama.tokenizer.show(prompt) for prompt in llama.prompts]
    assert [text.count("[You are Ada, and brief.]") for text in shown] == [0, 1, 1]
    assert "[You are Ada, and brief.]\n\nthree<|im_end|>" in shown[2]


def test_a_persona_without_sources_has_none():
    assert not open_sources(load_persona("stacy"), FakeTokenizer()).sources


def test_a_path_becomes_a_library_that_follows_its_files(folder):
    with open_library(str(folder / "docs")) as library:
        assert library.name == library_of(folder / "docs") and len(library.index.documents()) == 6
        assert library.search("Which number has the house Cedar?")
    (folder / "docs" / "house6.txt").write_text("The number of the house called Gorse is 4006.\n")
    (folder / "docs" / "house0.txt").unlink()
    with open_library(str(folder / "docs")) as library:
        assert library.search("house Gorse number") and not any("Alder" in one.text for one in library.search("number of the house Alder"))


@pytest.mark.parametrize(
    "lorebook, knowledge, error",
    [
        ("nowhere.json", None, LorebookError),
        ("guide.yaml", None, CardError),
        (None, "nothing", LibraryError),
        (None, "./nowhere", LibraryError),
        (None, "no name", LibraryError),
    ],
)
def test_what_cannot_be_used_is_one_sentence(folder, lorebook, knowledge, error):
    with pytest.raises(error) as raised:
        open_sources(Persona("A", "B"), FakeTokenizer(), [folder / lorebook] if lorebook else (), [knowledge] if knowledge else ())
    assert "\n" not in str(raised.value) and (lorebook or knowledge.removeprefix("./")) in str(raised.value)


def test_greetings_are_counted_from_one():
    persona = Persona("A", "B", greeting="one", alternate_greetings=("two", "three"))
    assert [persona.greeted(number).greeting for number in (1, 2, 3)] == ["one", "two", "three"]
    assert persona.greeted(2).greetings == ("two", "one", "three")
    with pytest.raises(PersonaError, match="A has 3 greetings; pass a number from 1 to 3"):
        persona.greeted(4)
    assert Persona("A", "B").greeted(1).greeting == ""


@pytest.mark.slow
@pytest.mark.parametrize("context", ["summarize", "slide", "shift", "halve"])
@pytest.mark.parametrize("template", [CHATML, None], ids=["chatml", "chat_log"])
def test_three_thousand_tokens_with_lorebook_library_and_memory(folder, context, template):
    """At 1,024 tokens of window: the pinned head stays, and every receipt's parts are the whole prompt."""
    rng = random.Random(3)
    names = ["Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir"]

    def answer(prompt):
        if REQUEST in prompt:  # a note of what leaves the window is written
            return (re.findall(r"My dog is called \w+ and weighs \d kilos\.", prompt) or ["Nothing."])[-1]
        return f"My car is a Fiat, number {len(prompt)}, and the tower is near. " * 3

    llama = FakeLlama(answer, 1024, FakeTokenizer(template))
    persona = load_persona(folder / "guide.yaml")
    sources = open_sources(persona, llama.tokenizer, [folder / "world.json"])
    conversation = Conversation(llama, persona, context=context, sampling=object(), max_tokens=128, sources=sources)
    head, spoken, fired, memory = list(conversation.prompt.head_ids), 0, set(), 0
    while spoken < 3000:
        words = rng.choice(
            [
                f"Which number has the house called {rng.choice(names)}?",
                f"My dog is called {rng.choice(names)} and weighs {rng.randrange(9)} kilos. I saw the tower.",
                "Does the bell ring?",
                "Tell me more about the town and its people, in as many words as you like.",
            ]
        )
        "".join(conversation.reply(words))
        receipt, prompt = conversation.last.receipt, llama.prompts[-1]
        assert prompt[: len(head)] == head
        assert sum(part.tokens for part in receipt.parts) == receipt.prompt_tokens == len(prompt) <= 1024
        assert sum(part.tokens for part in receipt.parts if part.name == "memory") == receipt.memory_tokens
        for text in conversation.last.gathered.texts:
            assert text.text in llama.tokenizer.show(prompt)
        fired |= {part.name for part in receipt.parts if part.tokens}
        memory += bool(receipt.memory_tokens)
        spoken += conversation.exchanges[-1].tokens
        conversation.after_reply()
    assert {"lorebook", "library", "post-history instructions", "persona", "history", "turn"} <= fired
    assert (memory > 0) == (context == "summarize")


def test_a_library_by_its_name(folder):
    with Library.open("houses", create=True) as library:
        update(library, [folder / "docs"])
    sources = open_sources(Persona("A", "B"), FakeTokenizer(), knowledge=["houses", "houses"])
    assert [source.name for source in sources.sources] == ["library"]
