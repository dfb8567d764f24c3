"""Whom one can talk to."""

import re

from behave import given, then, when
from playwright.sync_api import expect

from tests.web.doubles import JUERGEN


def characters(page):
    """The group; on a phone it may have to be opened first."""
    return page.get_by_role("group", name="Characters", exact=True)


def character(page, name):
    name = re.compile(rf"\b{re.escape(name)}\b")
    group = characters(page)
    return group.get_by_role("radio", name=name).or_(group.get_by_role("button", name=name))


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
    images = characters(context.page).get_by_role("img")
    expect(images).to_have_count(4)
    for image in images.all():
        expect(image).to_be_visible()
        assert image.evaluate("e => e.tagName !== 'IMG' || e.naturalWidth > 0"), "a portrait that did not load"


@when("I choose {name}")
def choose(context, name):
    character(context.page, name).click()
