"""Keyboard, phone, dark, screen reader, no network."""

import re

from behave import given, then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.looking import button, chats, conversation, message_box

# what a person would call the element with the focus; null at the end of the page
FOCUSED = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  const labels = [...(e.labels || [])].map(label => label.innerText).join(' ');
  return (e.getAttribute('aria-label') || labels || e.innerText || e.value || '').trim().split('\\n')[0];
}"""
# how light the page is, from 0 to 255
BACKGROUND = """() => {
  const colours = [...document.querySelectorAll('body, body *')].filter(e => e.offsetWidth >= innerWidth && e.offsetHeight > 300)
    .map(e => getComputedStyle(e).backgroundColor).filter(colour => !/, 0\\)/.test(colour));
  const [r, g, b] = colours.at(-1).match(/[\\d.]+/g).map(Number);
  return (r + g + b) / 3;
}"""
PHONE = {"width": 390, "height": 844}


@given("a phone")
def phone(context):
    context.viewport = PHONE


@given("a desktop")
def desktop(context):
    pass  # as every page is


@given("I like my screens {scheme:w}")
def prefer(context, scheme):
    context.scheme = scheme


@then("Tab reaches all there is to press, choose and write")
def tab_round(context):
    page = context.page
    expect(chats(page).get_by_role("link", name="Hands off the mouse")).to_be_visible()
    looking.at_rest(page)
    expect(button(page, "Retry")).to_be_enabled()
    message_box(page).fill("so that there is something to send")
    reached, dim = [], []
    while len(reached) < 80:
        page.keyboard.press("Tab")
        name = page.evaluate(FOCUSED)
        if reached and name == reached[0]:
            break  # once round
        reached.append(name)
        if name is not None and not looking.focus_shows(page):
            dim.append(name)
    context.remembered["dim"] = dim
    for wanted in ("Message", "Stacy", "New chat", "Send", "Hands off the mouse", "Settings", "Retry", "Copy", "Help"):
        assert any(wanted in (name or "") for name in reached), f"Tab does not reach {wanted}, but {reached}"


@when("I press the keys {keys:S}")
def press_keys(context, keys):
    context.page.keyboard.press(keys)


@then("I always see where the focus is")
def focus_seen(context):
    assert not context.remembered["dim"], context.remembered["dim"]


@then("the page does not scroll sideways")
def no_sideways(context):
    expect(message_box(context.page)).to_be_visible()
    wide, shown = context.page.evaluate("() => [document.scrollingElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= shown, f"the page is {wide} pixels wide on a screen of {shown}"


@then("the message box is in view")
def box_in_view(context):
    expect(message_box(context.page)).to_be_in_viewport(ratio=0.9)


@then("the page is {scheme:w}")
def page_is(context, scheme):
    light = context.page.evaluate(BACKGROUND)
    assert (light > 200) if scheme == "light" else (light < 70), f"the background is {light:.0f} of 255"


@then("everything that is written can be read against what is behind it")
def readable(context):
    expect(conversation(context.page)).to_contain_text(looking.then("Can you read this?", "Can you read this?"))
    looking.at_rest(context.page)
    faint = context.page.evaluate(looking.FAINT)
    assert not faint, faint


@then("every button, box, slider and image has a name")
def all_named(context):
    looking.at_rest(context.page)
    lacking = looking.unnamed(context.page)
    assert not lacking, "\n".join(lacking)


@then("new words are announced")
def announced(context):
    """By a region of their own: the list takes messages in and out as it is scrolled, which is no news."""
    said = context.page.get_by_role("status").filter(has_text="Stacy says: Read me aloud")
    expect(said).to_have_count(1)
    expect(conversation(context.page)).to_have_attribute("aria-live", "off")


@then("the page has a title, a language and one main heading")
def titled(context):
    expect(context.page).to_have_title(re.compile("Townhall"))
    assert context.page.evaluate("() => document.documentElement.lang"), "the page does not say its language"
    expect(context.page.get_by_role("heading", level=1)).to_have_count(1)


@then("nobody outside this machine was asked for anything")
def nobody_asked(context):
    assert not context.foreign, context.foreign
    about_us = [line for line in context.outside.asked if re.search("hugging|hf\\.co|cdn|fonts|api\\.|npm|jsdelivr", line)]
    assert not about_us, about_us


@then("the side bar is gone")
def side_gone(context):
    expect(context.page.get_by_role("complementary", name="Chats and views")).to_have_count(0)


@then('the side bar is gone, and the focus is on "{name}"')
def side_gone_focus(context, name):
    side_gone(context)
    expect(context.page.get_by_role("button", name=name, exact=True)).to_be_focused()


@then('the side bar is there, and the focus is on "{name}"')
def side_back(context, name):
    expect(context.page.get_by_role("complementary", name="Chats and views")).to_be_visible()
    expect(context.page.get_by_role("button", name=name, exact=True)).to_be_focused()
