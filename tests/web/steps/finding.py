"""Search, folders, tags."""

import re

from behave import then, when
from playwright.sync_api import expect

from tests.web.looking import at_rest, button, chats, with_chat


@when('I search for "{words}"')
def search(context, words):
    at_rest(context.page)
    context.page.get_by_role("link", name="Search in all chats").click()
    context.page.get_by_role("searchbox", name="Search in all chats").fill(words)


@when('I follow the hit "{words}"')
def follow(context, words):
    context.page.locator(".hits").get_by_role("link").filter(has_text=words).first.click()


def name_it(page, label, text):
    page.get_by_role("textbox", name=label).fill(text)
    button(page, "Save").click()


@when('I put the chat "{words}" into the folder "{folder}"')
def put(context, words, folder):
    with_chat(context.page, words, "Move to a folder")
    name_it(context.page, re.compile("^Folder"), folder)


@then('the folder "{folder}" holds "{words}"')
def holds(context, folder, words):
    group = chats(context.page).get_by_role("group").filter(has_text=folder)
    expect(group.get_by_role("link", name=words)).to_be_visible()


@when('I give the chat "{words}" the tags "{tags}"')
def tag(context, words, tags):
    with_chat(context.page, words, "Tags")
    name_it(context.page, re.compile("^Tags,"), tags)


def tag_button(page, name):
    return page.get_by_role("group", name="Tags").get_by_role("button", name=re.compile(f"^{name}"))


@then('the tag "{name}" can be pressed')
def can_press(context, name):
    expect(tag_button(context.page, name)).to_be_enabled()


@when('I press the tag "{name}"')
def press_tag(context, name):
    tag_button(context.page, name).click()
    expect(tag_button(context.page, name)).to_have_attribute("aria-pressed", "true")


@when('I filter the chats by "{words}"')
def filter_by(context, words):
    context.page.get_by_role("searchbox", name="Filter chats").fill(words)
