"""The gallery and the editor of characters."""

import json
import re

from behave import given, then, when
from playwright.sync_api import expect

from tests.townhall.characters.hostile import SCRIPT
from tests.townhall.characters.making import V1, V2, png, source, text
from tests.web import looking
from tests.web.looking import button

CARD = source(V2, indent=2)
# what the element with the focus is called
FOCUSED = """() => { const e = document.activeElement;
  return e.getAttribute('aria-label') || (e.labels && e.labels[0] ? e.labels[0].innerText : e.innerText); }"""


@given("the page is open with the echo model, in a house of its own")
def own_house(context):
    context.visit(context.new_house("echo", own=True))


@given("a phone of 320 pixels")
def narrow(context):
    context.viewport = {"width": 320, "height": 700}


@when('I open the view "{name}"')
def open_view(context, name):
    page = context.page
    looking.aside(page)
    page.get_by_role("navigation", name="Views", exact=True).get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1, name=name, exact=True)).to_be_visible()


@when('I use the button "{name}"')
def press(context, name):
    button(context.page, name).click()


def cards(page):
    """The cards of the gallery."""
    return page.locator(".character-card")


def card(page, name):
    return cards(page).filter(has=page.get_by_role("heading", level=2, name=name, exact=True))


def drop(context, name, content):
    """As the file box takes it, to which the label of the drop area belongs."""
    context.page.locator(".file-drop input").set_input_files([{"name": name, "mimeType": "", "buffer": content}])


@when("I drop the card of Ada")
def drop_ada(context):
    drop(context, "ada.png", png(text("chara", CARD)))
    expect(card(context.page, "Ada")).to_be_visible()


@when('I drop the card of Ada again and name it "{name}"')
@when('I drop the card of Ada again and name it ""')
def drop_again(context, name=""):
    page = context.page
    drop(context, "ada.png", png(text("chara", CARD)))
    page.get_by_role("dialog").get_by_role("textbox").fill(name)
    page.get_by_role("dialog").get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("Ada is here.").last).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)


@when("I drop a picture without a card")
def drop_picture(context):
    drop(context, "picture.png", png())


@when("I drop a card that is full of scripts")
def drop_hostile(context):
    values = {**V1, "name": "Mallory", "description": SCRIPT, "first_mes": SCRIPT, "personality": SCRIPT}
    drop(context, "mallory.json", source(values))
    expect(card(context.page, "Mallory")).to_be_visible()


@when('I search the gallery for "{words}"')
def search(context, words):
    context.page.get_by_role("searchbox", name="Search names, tags and texts").fill(words)


@then('the gallery shows nothing but "{name}"')
def shows_only(context, name):
    expect(cards(context.page)).to_have_count(1)
    expect(card(context.page, name)).to_be_visible()


@then('the gallery shows "{name}"')
def shows(context, name):
    expect(card(context.page, name)).to_be_visible()


@then('the gallery does not show "{name}"')
def does_not_show(context, name):
    expect(card(context.page, name)).to_have_count(0)
    expect(card(context.page, "Gary")).to_be_visible()


@then('the server has the character "{id}"')
def served(context, id):
    looking.served(context, "/v1/models", lambda listed: id in [one["id"] for one in listed["data"]], True)


@when('I make "{name}" with the keyboard, who is "{about}" and greets with "{greeting}"')
def make(context, name, about, greeting):
    """Nothing but keys from the view's heading on."""
    page, keys = context.page, context.page.keyboard

    def tab_to(label):
        for _ in range(80):
            keys.press("Tab")
            found = page.evaluate(FOCUSED)
            if (found or "").strip() == label:
                return
        raise AssertionError(f"Tab does not reach {label!r}")

    tab_to("New character")
    keys.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("textbox")).to_be_focused()
    keys.type(name)
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1, name=name, exact=True)).to_be_visible()
    tab_to("Description")
    keys.type(about)
    tab_to("First message")
    keys.type(greeting)
    keys.press("Control+s")
    expect(page.get_by_text(f"{name} is saved.")).to_be_visible()


@then('"{name}" has the description "{about}"')
def described(context, name, about):
    listed = context.house.asked("/townhall/characters")["characters"]
    assert [one["description"] for one in listed if one["name"] == name] == [about]


@when('I look at the character "{name}"')
def look_at(context, name):
    page = context.page
    if not page.locator(".gallery").count():
        open_view(context, "Characters")
    card(page, name).get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", level=1, name=name, exact=True)).to_be_visible()


@then("nothing of it can be changed")
def read_only(context):
    page = context.page
    expect(page.get_by_role("textbox", name="Description")).not_to_be_editable()
    expect(button(page, "Save")).to_have_count(0)


@when('I write "{words}" as the greeting number {n:d} and save')
def greet(context, words, n):
    page = context.page
    button(page, "Add a greeting").click()
    page.get_by_role("textbox", name=f"Greeting {n}", exact=True).fill(words)
    button(page, "Save").click()
    expect(page.get_by_text(" is saved.")).to_be_visible()


@then('the character "{id}" has {n:d} greetings')
def greetings(context, id, n):
    assert len(context.house.asked(f"/townhall/characters/{id}")["greetings"]) == n


def lorebook(page):
    """The part of the editor, opened."""
    part = page.locator("details.fold").filter(has_text=re.compile("^Lorebook"))
    if part.get_attribute("open") is None:
        part.locator("> summary").click()
    return part


@when('I add a lorebook entry with the keys "{keys}" and the text "{words}"')
def add_entry(context, keys, words):
    part = lorebook(context.page)
    part.get_by_role("button", name="Add an entry", exact=True).click()
    part.get_by_role("textbox", name="Keys", exact=True).press_sequentially(keys)
    part.get_by_role("textbox", name="Text", exact=True).fill(words)


@when('I test the lorebook with "{words}"')
def test_lorebook(context, words):
    lorebook(context.page).get_by_role("textbox", name="Test: what would a message fire?").fill(words)


@then('the lorebook of "{id}" has the keys "{first}" and "{second}"')
def lore_keys(context, id, first, second):
    expect(context.page.get_by_text("The lorebook is saved")).to_be_visible()
    entries = context.house.asked(f"/townhall/characters/{id}/lorebook")["book"]["entries"]
    assert [entry["keys"] for entry in entries] == [[first, second]], entries


def act(page, name, action):
    """An action of a card's menu."""
    card(page, name).get_by_role("button", name=f"Actions for {name}", exact=True).click()
    page.get_by_role("menuitem", name=action, exact=True).click()


@when('I export "{name}" as JSON')
def export(context, name):
    with context.page.expect_download() as download:
        act(context.page, name, "Export as JSON")
    context.remembered["file"] = download.value.path().read_bytes()


@then("I get Ada's card byte for byte")
def exported(context):
    assert context.remembered["file"] == CARD and json.loads(CARD)["data"]["name"] == "Ada"


@when('I delete the character "{name}"')
def delete(context, name):
    act(context.page, name, "Delete")
    context.page.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()


@when("I open every part of the view")
def open_parts(context):
    closed = context.page.locator(".view details:not([open]) > summary")
    while closed.count():
        closed.first.click()


@then("nothing in the way of anybody is found")
def for_everybody(context):
    """axe-core, names for screen readers, and nothing that is cut off or beyond the screen."""
    page = context.page
    expect(page.locator(".view .spinner")).to_have_count(0)
    found = looking.violations(page)
    assert not found, "\n".join(found)
    lacking = looking.unnamed(page)
    assert not lacking, "\n".join(lacking)
    beyond = page.evaluate(
        "() => [...document.querySelectorAll('.view *')].filter(e => { const box = e.getBoundingClientRect();"
        " return box.width > 0 && box.right > innerWidth + 1 && !e.closest('.scroll, .unseen'); }).map(e => e.outerHTML.slice(0, 120))"
    )
    assert not beyond, beyond[:5]
