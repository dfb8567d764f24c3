"""Thumbs up and thumbs down at a reply."""

from behave import then, when
from playwright.sync_api import expect

from tests.web import looking
from townhall.logbook.log_reader import read_log


def newest(page):
    """The newest reply, in whatever language, when it is whole."""
    expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
    return page.locator(".message.theirs").last


@then("the newest reply is not rated")
def not_rated(context):
    buttons = newest(context.page).locator("[aria-pressed]")
    expect(buttons).to_have_count(2)
    for at in range(2):
        expect(buttons.nth(at)).to_have_attribute("aria-pressed", "false")


@then('the newest reply is rated "{name}"')
def rated(context, name):
    pressed = newest(context.page).get_by_role("button", pressed=True)
    expect(pressed).to_have_count(1)
    expect(pressed).to_have_accessible_name(name)


@then("the log rates it bad")
def logged(context):
    tree = read_log(context.house.logs / f"{looking.chat_id(context.page)}.md").tree
    assert tree.path()[-1].rating == "bad"


@then("only the newest reply can be rated")
def one_only(context):
    expect(newest(context.page).get_by_role("button", name="Good reply", exact=True)).to_have_count(1)
    expect(looking.messages(context.page)).to_have_count(3)  # the greeting, my words, the reply
    expect(context.page.locator(".message").get_by_role("button", name="Good reply", exact=True)).to_have_count(1)


@when('I write "{text}" in German and send it')
def say_in_german(context, text):
    context.page.get_by_role("textbox", name="Nachricht", exact=True).fill(text)
    context.page.get_by_role("button", name="Senden", exact=True).click()
    expect(context.page.locator(".message.theirs .bubble").last).to_contain_text(text)


@when('I press the key {key:w} on "{name}"')
def press_on(context, key, name):
    newest(context.page).get_by_role("button", name=name, exact=True).press(key)
