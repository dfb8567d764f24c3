"""What a press does: once, to the chat that the tab shows, and whatever else is on its way to the page."""

import asyncio

import pytest

pytest.importorskip("gradio", reason="the extra `web` is not installed")

from townhall.fake.fake_model import ScriptedReply
from townhall.web.gradio_offline import gr
from townhall.web.handlers import SEND, STOP, Handlers
from townhall.web.sampling_controls import PLAIN, SLIDERS
from townhall.web.tab_state import TabState

pytestmark = pytest.mark.slow

SETTINGS = (*(getattr(PLAIN, name) for name in SLIDERS), "3", PLAIN.max_tokens, PLAIN.context)


@pytest.fixture
def events(house, chat_store):
    """events(*lines): over a server that says these lines in turn."""
    return lambda *lines: Handlers(chat_store(house(*lines).root), "stacy")


def at(chat):
    """A request of a page whose address names that chat."""
    return gr.Request(query_params={"chat": chat} if chat else {})


PLACE = at("")


async def all_of(shown):
    return [one async for one in shown]


def test_pressing_twice_asks_once_and_says_nothing_of_it(run, events):
    do, tab = events(ScriptedReply("a b c", pause=0.02)), TabState("")

    async def story():
        send = [all_of(do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS)) for _ in "12"]
        return await asyncio.gather(*send)

    _, second = run(story())
    assert len(do._chat_store.saved()) == 1
    assert [one[0] for one in second] == [{"__type__": "update"}]  # what stands in the box stays there
    assert not any(isinstance(part, str) and "alert" in part for one in second for part in one)


def test_a_press_does_what_the_button_said_and_not_what_it_says_by_then(run, events):
    do, tab = events("Fine."), TabState("")

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS))
        await all_of(do.press(STOP, tab, PLACE, "", "a draft", "", "stacy", *SETTINGS))

    run(story())
    assert [question.text for question, _ in do._open(tab).exchanges()] == ["One?"]


def test_a_tab_that_left_is_shown_no_more_of_the_reply_which_goes_on(run, events):
    do, tab = events(ScriptedReply("a b c d e f g h", pause=0.05)), TabState("")

    async def story():
        shown = do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS)
        await anext(shown)
        chat = do._open(tab)
        await do.new(tab, "", "stacy")
        assert await all_of(shown) == []
        async for _ in chat.changes():
            pass
        return chat

    chat = run(story())
    assert chat.exchanges()[0][1].text == "a b c d e f g h" and tab.chat == ""


def test_what_came_to_the_browser_too_late_is_put_right(run, events):
    do, tab = events("Fine."), TabState("")

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS))
        late = do._open(tab).version
        await do.new(tab, "", "stacy")
        return await do.look(tab, late, PLACE), await do.look(tab, "", PLACE)

    healed, nothing = run(story())
    assert healed[0] == "" and nothing == {"__type__": "update"}


def test_a_message_may_be_quicker_than_the_arrival_of_its_tab(run, events):
    do, tab, second = events("Fine.", "Also."), TabState(), TabState()

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS))
        shown = await do.arrive(tab, PLACE)
        await all_of(do.press(SEND, second, at(tab.chat), "", "Two?", "", "stacy", *SETTINGS))  # opened at that chat's address
        return shown

    assert run(story())[0].startswith(tab.chat) and tab.chat
    assert [question.text for question, _ in do._open(tab).exchanges()] == ["One?", "Two?"] and second.chat == tab.chat


def test_a_tab_that_nobody_remembers_says_itself_what_it_shows(run, events):
    do, tab = events("Fine."), TabState("")

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS))
        stranger = TabState()
        await do.look(stranger, do._open(tab).version, at(tab.chat))
        return stranger

    assert run(story()).chat == tab.chat != ""


def test_deleting_takes_the_chat_that_the_question_named(run, events):
    do, one, other = events("Fine."), TabState(""), TabState("")

    async def story():
        await all_of(do.press(SEND, one, PLACE, "", "One?", "", "stacy", *SETTINGS))
        await all_of(do.press(SEND, other, PLACE, "", "This is a long question about nothing", "", "stacy", *SETTINGS))
        *_, sure, about = do.ask_sure(one, other.chat)
        await do.delete(one, one.chat, about, "stacy")  # another one was picked meanwhile
        return sure

    assert run(story())["value"] == "Delete “This is a long question…” for good"
    assert [saved.title for saved in do._chat_store.saved()] == ["One?"]


def test_pressing_twice_around_a_reply_asks_once_and_keeps_what_was_added(run, events):
    do, tab = events("Fine."), TabState("")

    async def story():
        for text in ("One?", "One?", "One? Two?"):  # nothing of what came of it has reached the browser
            await all_of(do.press(SEND, tab, PLACE, "", text, "", "stacy", *SETTINGS))
        taken = tab.taken
        await do.new(tab, "", "stacy")
        await all_of(do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS))  # another chat, where it was not said yet
        return taken

    assert run(story()) == (2, len(" Two?"))
    assert [one.title for one in do._chat_store.saved()] == ["One?", "One?"]
    assert sum(len(do._chat_store.find(one.id).exchanges()) for one in do._chat_store.saved()) == 3


def test_a_box_is_relieved_of_the_taken_words_in_the_units_of_browsers(run, events):
    do, tab = events("Fine."), TabState("")

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "", "Hi 🙂", "", "stacy", *SETTINGS))
        return await do.arrive(tab, PLACE)

    assert 'data-taken="1" data-units="5"' in run(story())[1]


def test_a_tab_that_was_forgotten_takes_no_number_that_its_page_has_heard(run, events):
    do, tab, forgotten = events("Fine.", "Also."), TabState(), TabState()

    async def story():
        for one, text in ((tab, "One?"), (forgotten, "Two?")):
            await all_of(do.press(SEND, one, at(tab.chat), "", text, "", "stacy", *SETTINGS))

    run(story())
    assert tab.chat == forgotten.chat and 1 < tab.taken[0] < forgotten.taken[0]


def test_a_question_that_was_quicker_than_the_choice_of_its_chat_stays_open(run, events):
    do, tab = events("Fine."), TabState("")

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS))

    run(story())
    do.ask_sure(tab, tab.chat)
    assert do.pick(tab, tab.chat)[4:] == (gr.skip(),) * 6
    assert do.pick(tab, "another")[5]["visible"] is False and tab.asked == ""


def test_nothing_but_another_voice_touches_the_list_in_which_somebody_chooses(run, events):
    do, tab = events("Fine."), TabState()

    async def story():
        arrived = await do.arrive(tab, PLACE)
        glance = await do.look(tab, None, PLACE)  # a page that has not heard of its arrival
        chosen = await do.choose(tab, "gary")
        late = await do.arrive(tab, PLACE)
        return arrived, glance, chosen, late, await do.choose_model(tab, "double")

    arrived, glance, chosen, late, by_model = run(story())
    assert glance == gr.skip()
    assert arrived[-2:] == late[-2:] == (gr.skip(), gr.skip()) and late[1] == chosen[3] and 'data-persona="gary"' in late[1]
    assert chosen[-2:] == (gr.skip(), "gary") and by_model[-2:] == ("double", gr.skip())


def test_a_chat_is_renamed_from_its_whole_name(run, events):
    do, tab = events("Fine."), TabState("")
    name = "A name of five dozen letters and more, which the list cuts off"

    async def story():
        await all_of(do.press(SEND, tab, PLACE, "", "One?", "", "stacy", *SETTINGS))
        await do.rename(tab, tab.chat, tab.chat, name)
        return do.ask_title(tab, tab.chat)

    assert run(story())[3]["value"] == name and do._chat_store.saved()[0].title.endswith("…")
