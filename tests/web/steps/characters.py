"""Whom one can talk to."""

import re

from behave import given, then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.doubles import JUERGEN


def characters(page):
    """The group in a chat that has not begun."""
    return page.get_by_role("radiogroup", name="Characters", exact=True)


def character(page, name):
    name = re.compile(rf"\b{re.escape(name)}\b")
    return characters(page).get_by_role("radio", name=name)


@given('the page is open with a character called "Jürgen Größe"')
def open_with_juergen(context):
    flags = ("--persona", "jürgen.yaml", "--persona", "stacy")
    context.visit(context.new_house("echo", files=(("jürgen.yaml", JUERGEN),), flags=flags))


@then("I can choose between {names} and {last}")
def can_choose_between(context, names, last):
    for name in [*names.split(", "), last]:
        expect(character(context.page, name)).to_be_enabled()


@then("I can choose {name}")
def can_choose(context, name):
    expect(character(context.page, name)).to_be_enabled()


@then("each character has a portrait")
def portraits(context):
    people = characters(context.page).get_by_role("radio")
    pictures = characters(context.page).locator("img")  # beside the name, so it needs none of its own
    expect(pictures).to_have_count(people.count())
    for picture in pictures.all():
        expect(picture).to_be_visible()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => image.naturalWidth > 0"), "a portrait that did not load"


@when("I choose {name}")
def choose(context, name):
    page = context.page
    looking.at_rest(page)
    if not characters(page).count():  # another character: another chat
        looking.aside(page)
        looking.button(page, "New chat").click()
    character(page, name).check()


@when("I go to the characters and press the arrow up")
def arrow(context):
    page = context.page
    for _ in range(40):
        page.keyboard.press("Tab")
        if characters(page).get_by_role("radio", checked=True).evaluate("radio => radio === document.activeElement"):
            return page.keyboard.press("ArrowUp")
    raise AssertionError("Tab does not reach the characters")


@when("I go to the characters and press the arrow up twice")
def arrow_twice(context):
    arrow(context)
    expect(character(context.page, "Lexie")).to_be_focused()
    context.page.keyboard.press("ArrowUp")
    expect(character(context.page, "George")).to_be_focused()


@then("{name} is chosen")
def chosen(context, name):
    expect(character(context.page, name)).to_be_checked()


TAGS = """group => [...group.querySelectorAll('label')].map(label => {
  const tag = label.querySelector('.tag'), lines = parseFloat(getComputedStyle(tag).lineHeight);
  return [tag.textContent, label.title, Math.round(tag.clientHeight / lines), Math.round(tag.scrollHeight / lines),
          tag.scrollWidth > tag.clientWidth];
})"""


@then("below each name two lines at most tell who that is, and the whole when one points at it")
def taglines(context):
    expect(characters(context.page).locator("img")).to_have_count(characters(context.page).get_by_role("radio").count())
    info = characters(context.page).evaluate(TAGS)
    assert info and all(text and title == text and lines == min(2, wanted) and not cut for text, title, lines, wanted, cut in info), info
