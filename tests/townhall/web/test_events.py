"""What a press does: once, to the chat that the tab shows, and whatever else is on its way to the page."""

import asyncio

import pytest

pytest.importorskip("gradio", reason="the extra `web` is not installed")

from townhall.fake.model import Line
from townhall.web.asking import PLAIN
from townhall.web.events import SEND, STOP, Events, Tab
from townhall.web.offline import gr

SETTINGS = (PLAIN.temperature, PLAIN.top_p, PLAIN.top_k, PLAIN.min_p, PLAIN.repeat_penalty, "3", PLAIN.max_tokens, PLAIN.context)


@pytest.fixture
def events(house, shelf):
    """events(*lines): over a server that says these lines in turn."""
    return lambda *lines: Events(shelf(house(*lines).root), "stacy")


def at(chat):
    """A request of a page whose address names that chat."""
    return gr.Request(query_params={"chat": chat} if chat else {})


PLACE = at("")


async def all_of(shown):
    return [one async for one in shown]


def test_pressing_twice_asks_once_and_says_nothing_of_it(run, events):
    do, tab = events(Line("a b c", pause=0.02)), Tab("")

    async def story():
        send = [all_of(do.press(SEND, tab, PLACE, "One?", "", "stacy", *SETTINGS)) for _ in "12"]
        return await asyncio.gather(*send)

    _, second = run(story())
    assert len(do._shelf.saved()) == 1
    assert [one[0] for one in second] == [{"__type__": "update"}]  # what stands in the box stays there
    assert not any(isinstance(part, str) and "alert" in part for one in second for part in one)


def test_a_press_does_what_the_button_said_and_not_what_it_says_by_then(run, events):
    do, tab = events("Fine."), Tab("")

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "One?", "", "stacy", *SETTINGS))
        await all_of(do.press(STOP, tab, PLACE, "a draft", "", "stacy", *SETTINGS))

    run(story())
    assert [question.text for question, _ in do._open(tab).exchanges()] == ["One?"]


def test_a_tab_that_left_is_shown_no_more_of_the_reply_which_goes_on(run, events):
    do, tab = events(Line("a b c d e f g h", pause=0.05)), Tab("")

    async def story():
        shown = do.press(SEND, tab, PLACE, "One?", "", "stacy", *SETTINGS)
        await anext(shown)
        chat = do._open(tab)
        await do.new(tab, "stacy")
        assert await all_of(shown) == []
        async for _ in chat.changes():
            pass
        return chat

    chat = run(story())
    assert chat.exchanges()[0][1].text == "a b c d e f g h" and tab.chat == ""


def test_what_came_to_the_browser_too_late_is_put_right(run, events):
    do, tab = events("Fine."), Tab("")

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "One?", "", "stacy", *SETTINGS))
        late = do._open(tab).version
        await do.new(tab, "stacy")
        return await do.look(tab, late, PLACE), await do.look(tab, "", PLACE)

    healed, nothing = run(story())
    assert healed[0] == "" and nothing == {"__type__": "update"}


def test_a_message_may_be_quicker_than_the_arrival_of_its_tab(run, events):
    do, tab, second = events("Fine.", "Also."), Tab(), Tab()

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "One?", "", "stacy", *SETTINGS))
        shown = await do.arrive(tab, PLACE)
        await all_of(do.press(SEND, second, at(tab.chat), "Two?", "", "stacy", *SETTINGS))  # opened at that chat's address
        return shown

    assert run(story())[0].startswith(tab.chat) and tab.chat
    assert [question.text for question, _ in do._open(tab).exchanges()] == ["One?", "Two?"] and second.chat == tab.chat


def test_a_tab_that_nobody_remembers_says_itself_what_it_shows(run, events):
    do, tab = events("Fine."), Tab("")

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "One?", "", "stacy", *SETTINGS))
        stranger = Tab()
        await do.look(stranger, do._open(tab).version, at(tab.chat))
        return stranger

    assert run(story()).chat == tab.chat != ""


def test_deleting_takes_the_chat_that_the_question_named(run, events):
    do, one, other = events("Fine."), Tab(""), Tab("")

    async def story():
        await all_of(do.press(SEND, one, PLACE, "One?", "", "stacy", *SETTINGS))
        await all_of(do.press(SEND, other, PLACE, "This is a long question about nothing", "", "stacy", *SETTINGS))
        *_, sure, about = do.ask_sure(other.chat)
        await do.delete(one, one.chat, about, "stacy")  # another one was picked meanwhile
        return sure

    assert run(story())["value"] == "Delete “This is a long question…” for good"
    assert [saved.title for saved in do._shelf.saved()] == ["One?"]
