"""What is shown: every token of the window accounted for, each thing that was forgotten told once, and no foreign word as HTML."""

import re
from xml.etree import ElementTree

import pytest

from townhall.logbook import log_syntax
from townhall.web import view
from townhall.web.avatars import FOLDER, portrait
from townhall.web.client import ModelChoice

TOLD = {"window": 1024, "pinned_tokens": 194, "memory_tokens": 40, "reserve_tokens": 256, "prompt_tokens": 400, "strategy": "slide"}


@pytest.mark.parametrize("prompt, completion", [(400, 20), (194, 0), (760, 200), (1000, 24), (1024, 0), (0, 0)])
def test_the_parts_of_the_window_add_up(prompt, completion):
    parts = view.shares(TOLD | {"prompt_tokens": prompt}, completion)
    assert all(part.tokens >= 0 for part in parts)
    assert sum(part.tokens for part in parts) == 1024
    assert [part.name for part in parts] == ["pinned", "memory", "recent", "reserve", "free"]


def test_the_talk_takes_from_what_was_free_and_then_from_the_reserve():
    by_name = {part.name: part.tokens for part in view.shares(TOLD, 20)}
    assert by_name == {"pinned": 194, "memory": 40, "recent": 186, "reserve": 256, "free": 348}
    by_name = {part.name: part.tokens for part in view.shares(TOLD | {"prompt_tokens": 760}, 200)}
    assert (by_name["reserve"], by_name["free"]) == (64, 0)


def test_what_was_forgotten_is_told_once():
    info = TOLD | {"dropped": [0, 1, 2, 3], "dropped_tokens": 312}
    assert view.receipt(info, 0).startswith("Forgot the 4 oldest messages to make room: 312 tokens")
    assert view.receipt(info, 4) == "" and view.receipt(TOLD, 0) == ""
    assert view.receipt(info, 2).startswith("Forgot 2 more messages")


def test_foreign_words_are_never_html():
    evil = ModelChoice('x"><script>', "<b>Eve</b>", "<img src=x onerror=y>", "<script>hi</script>")
    shown = view.header(evil) + view.facts(None, evil) + view.problem("<i>") + str(view.conversation(None, evil))
    assert not re.search(r"<(script|b>|i>|img src=x)", shown)


def test_an_empty_page_has_a_greeting_and_a_meter():
    served_model = ModelChoice("stacy", "Stacy", "", "Yo!")
    assert view.conversation(None, served_model) == [{"role": "assistant", "content": "Yo!"}]
    assert 'role="meter"' in view.bar(None) and 'aria-label="Context window"' in view.bar(None)


@pytest.mark.parametrize("id", [*(path.stem for path in FOLDER.glob("*.svg")), "somebody", '<&"', "名前", "", "..", "../../secret"])
def test_portraits_are_whole_and_fetch_nothing(id):
    text = portrait(id)
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("viewBox") == "0 0 96 96"
    assert not re.search(r"<script|href|url\((?!#)|\son\w+=", text)


def test_every_persona_that_ships_has_a_face():
    from townhall.persona import list_personas

    assert set(list_personas()) <= {path.stem for path in FOLDER.glob("*.svg")}


def test_of_a_very_long_talk_the_end_is_shown_and_the_rest_told(chat_store, tmp_path):
    chats = chat_store("http://127.0.0.1:9")
    said = "".join(log_syntax.turn("User", f"q{n}", "user", {}) + log_syntax.turn("Stacy", f"a{n}", "reply", {}) for n in range(100))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "long.md").write_text(log_syntax.front_matter({"user": "User", "persona": "Stacy"}) + said)
    chat = chats.find("long")
    first, *others = view.conversation(chat, chat.served_model)
    assert "40 earlier exchanges stand in the log" in first["content"]
    assert [message["content"] for message in others] == [f"{who}{n}" for n in range(40, 100) for who in "qa"]
