"""Lorebooks in prompts: what fires always is pinned, what comes and goes stands near the end, and what stays is remembered."""

import json
import random

import pytest

from tests.townhall.fake import CHATML, FakeLlama, FakeTokenizer
from townhall.characters.lorebook import Lorebook
from townhall.characters.lorebook_source import LorebookSource
from townhall.context.source import PromptSources, SourceRequest, SourceSpot
from townhall.conversation import Conversation
from townhall.persona import Persona


def entry(content, *keys, **fields):
    return {"keys": list(keys), "content": content, "extensions": {}, "enabled": True, "insertion_order": 100, **fields}


def book(*entries, **fields):
    return Lorebook.from_values({"name": "Ulm", "extensions": {}, "entries": list(entries), **fields}, "book", "the book")


def count(text):
    return len(text.split())


def turn(source, *messages, state=None, budget=100, seed=0):
    roles = [("user", "assistant")[at % 2] for at in range(len(messages))]
    return source.turn(SourceRequest(list(zip(roles, messages, strict=True)), budget, count, state or {}, seed))


def said(turn):
    return [(text.place.spot, text.place.depth, text.text) for text in turn.texts]


def test_what_fires_always_is_pinned_beside_the_character_and_nothing_else_is():
    source = LorebookSource(
        [
            book(
                entry("It rains in {{char}}'s town.", constant=True, position="before_char"),
                entry("The year is 1743.", constant=True, position="after_char"),
                entry("At depth.", constant=True, extensions={"position": 4, "depth": 2}),
                entry("Rolled {{roll:6}}.", constant=True),
                entry("Maybe.", constant=True, extensions={"probability": 50, "useProbability": True}),
                entry("The tower is old.", "tower"),
            )
        ],
        "Ada",
    )
    head = source.head(count)
    assert [(text.place.spot, text.text) for text in head] == [
        (SourceSpot.BEFORE_CHARACTER, "It rains in Ada's town."),
        (SourceSpot.AFTER_CHARACTER, "The year is 1743."),
    ]
    found = turn(source, "Show me the tower")
    assert (SourceSpot.AT_DEPTH, 2, "[At depth.]") in said(found)
    newest = next(text for spot, _, text in said(found) if spot is SourceSpot.NEWEST)
    assert "The tower is old." in newest and "Rolled" in newest and "1743" not in newest and "rains" not in newest


def test_entries_before_the_character_come_first_in_front_of_the_newest_words():
    source = LorebookSource([book(entry("Second.", "x"), entry("First.", "x", position="before_char", insertion_order=200))], "Ada")
    source.head(count)
    assert said(turn(source, "x")) == [(SourceSpot.NEWEST, 0, "[First.\nSecond.]")]


@pytest.mark.parametrize("role, expected", [(0, "[Deep.]"), (1, "Deep."), (2, "Ada: Deep.")])
def test_an_entry_at_a_depth_by_its_role(role, expected):
    source = LorebookSource([book(entry("Deep.", "x", extensions={"position": 4, "depth": 3, "role": role}))], "Ada")
    assert said(turn(source, "x")) == [(SourceSpot.AT_DEPTH, 3, expected)]


def test_places_of_the_authors_note_and_outlets():
    entries = [entry("Note.", "x", extensions={"position": 2}), entry("Outlet.", "x", extensions={"position": 7})]
    source = LorebookSource([book(*entries)], "Ada")
    assert said(turn(source, "x")) == [(SourceSpot.AT_DEPTH, 4, "[Note.]")]


def test_a_reverse_depth_counts_from_the_start():
    source = LorebookSource([book(entry("@@reverse_depth 1\nEarly.", "x"))], "Ada")
    (text,) = turn(source, "x").texts
    assert text.place.from_start and text.place.depth == 1


def test_why_an_entry_fired_and_why_others_did_not():
    source = LorebookSource(
        [book(entry("The tower is old.", "tower", name="Tower"), entry(" ".join(["long"] * 90), "tower", name="Long"))], "Ada"
    )
    found = turn(source, "the tower", budget=50)
    (item,) = (item for text in found.texts for item in text.items)
    assert (item.label, item.why, item.details["book"]) == ("Ulm: Tower", "key 'tower'", "Ulm")
    assert [(item.label, "budget" in item.why) for item in found.passed_over] == [("Ulm: Long", True)]


def test_sticky_and_cooldown_go_from_turn_to_turn_as_json():
    source = LorebookSource([book(entry("Here.", "tower", extensions={"sticky": 3, "cooldown": 4}))], "Ada")
    assert source.remembers
    state, fired, messages = {}, [], []
    for text in ("the tower", "b", "c", "the tower", "e", "the tower", "g"):
        messages += [text]
        found = turn(source, *messages, state=json.loads(json.dumps(state)))
        state = found.state
        fired.append(bool(found.texts))
        messages += ["Fine."]
    # messages 1, 3, …: stays up to 4, is silent from 5 to 8, finds its key among the newest four at 9, stays up to 12
    assert fired == [True, True, False, False, True, True, False]


def test_a_book_that_remembers_nothing_has_no_state():
    source = LorebookSource([book(entry("Here.", "tower"))], "Ada")
    assert not source.remembers and turn(source, "tower").state == {}


@pytest.mark.parametrize("state", [{"sticky": 1}, {"sticky": {}, "cooldown": {"a": [1]}, "fired": {}}, {"x": None}])
def test_a_state_that_a_person_has_changed_is_begun_anew(state):
    source = LorebookSource([book(entry("Here.", "tower", extensions={"sticky": 3}))], "Ada")
    assert turn(source, "tower", state=state).texts


def test_probability_draws_by_the_seed_and_the_turn():
    source = LorebookSource([book(entry("Luck.", "x", extensions={"probability": 50, "useProbability": True}))], "Ada")
    draws = [bool(turn(source, *["x"] * (2 * at + 1), seed=7).texts) for at in range(40)]
    assert draws == [bool(turn(source, *["x"] * (2 * at + 1), seed=7).texts) for at in range(40)]
    assert 10 < sum(draws) < 30
    assert draws != [bool(turn(source, *["x"] * (2 * at + 1), seed=8).texts) for at in range(40)]


def test_a_greeting_of_its_own():
    source = LorebookSource([book(entry("@@is_greeting 1\nSecond.", "x"))], "Ada", greeting=1)
    assert turn(source, "x").texts and not turn(LorebookSource([book(entry("@@is_greeting 1\nSecond.", "x"))], "Ada"), "x").texts


def test_random_books_keep_their_budget_and_the_receipt_adds_up():
    """Whatever fires: no turn's texts take more than the window keeps for them, and the parts are the whole prompt."""
    rng = random.Random(4)
    words = [f"word{n}" for n in range(40)]
    for _ in range(12):
        entries = [
            entry(
                " ".join(rng.choices(words, k=rng.randrange(1, 30))) + ".",
                *rng.sample(words, 2),
                constant=rng.random() < 0.2,
                insertion_order=rng.randrange(200),
                extensions={"position": rng.choice([0, 1, 2, 3, 4, 5, 6]), "depth": rng.randrange(6), "sticky": rng.choice([0, 0, 3])},
            )
            for _ in range(20)
        ]
        llama = FakeLlama(lambda prompt: " ".join(rng.choices(words, k=8)) + ".", 512, FakeTokenizer(rng.choice([CHATML, None])))
        source = LorebookSource([book(*entries, token_budget=80)], "Stacy")
        sources = PromptSources([source], llama.tokenizer)
        conversation = Conversation(llama, Persona("Stacy", "Stacy raps."), sampling=object(), max_tokens=32, sources=sources)
        head = list(conversation.prompt.head_ids)
        for _ in range(15):
            "".join(conversation.reply(" ".join(rng.choices(words, k=6)) + "?"))
            receipt = conversation.last.receipt
            assert sum(part.tokens for part in receipt.parts) == receipt.prompt_tokens == len(llama.prompts[-1])
            assert llama.prompts[-1][: len(head)] == head
            beside = sum(part.tokens for part in receipt.parts if part.name == "lorebook" and not part.place.endswith("character"))
            assert beside <= conversation.window.beside
