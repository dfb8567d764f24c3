"""Libraries: made, filled, searched."""

from behave import then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.looking import button

DOCUMENTS = {
    "bread.md": b"# Bread\n\nLet the dough rest overnight in the fridge.\n",
    "poem.txt": b"In Xanadu did Kubla Khan a stately pleasure dome decree.\n",
    "program.exe": b"MZ\0\0\0\0",
}


def files(page):
    return page.get_by_role("region", name="Documents", exact=True).get_by_role("listitem")


@when('I make the library "{name}"')
def make(context, name):
    page = context.page
    button(page, "New library").click()
    page.get_by_role("dialog").get_by_role("textbox").fill(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name=name, exact=True)).to_be_visible()


@when("I drop the documents {names}")
def drop(context, names):
    page = context.page
    wanted = [name.strip('"') for name in names.split(", ")]
    with page.expect_response(lambda response: response.url.endswith("/index")) as answer:
        page.locator(".file-drop input").set_input_files([{"name": name, "mimeType": "", "buffer": DOCUMENTS[name]} for name in wanted])
    answer.value.finished()
    expect(page.get_by_role("progressbar")).to_have_count(0)


@then('the library lists "{first}" and "{second}"')
def lists_both(context, first, second):
    lists(context, first)
    lists(context, second)


@then('the library lists "{name}"')
def lists(context, name):
    listed = files(context.page).filter(has_text=name)
    expect(listed).to_have_count(1)
    expect(listed).not_to_contain_text("not read yet")


@then('the library does not list "{name}"')
def does_not_list(context, name):
    expect(files(context.page).filter(has_text=name)).to_have_count(0)


@when('I search the library for "{words}"')
def search(context, words):
    context.page.get_by_role("searchbox", name="Search", exact=True).fill(words)
    context.page.keyboard.press("Enter")
    expect(context.page.locator(".passages li").first).to_be_visible()


def agree(page, action):
    page.get_by_role("dialog").get_by_role("button", name=action, exact=True).click()


@when('I take out "{name}"')
def take_out(context, name):
    button(context.page, f"Take out {name}").click()
    agree(context.page, "Remove")


@when('I delete the library "{name}"')
def delete(context, name):
    button(context.page, f"Delete the library {name}").click()
    agree(context.page, "Delete")


@when('I begin a new chat with the library "{name}"')
def chat_with(context, name):
    page = context.page
    looking.aside(page)
    button(page, "New chat").click()
    button(page, "Settings of this chat").click()
    panel = page.get_by_role("complementary", name="Settings of this chat")
    panel.locator("summary").filter(has_text="Libraries").click()
    panel.get_by_role("combobox", name="Libraries of this chat", exact=True).select_option("own")
    panel.get_by_role("checkbox", name=name, exact=True).check()


@then('the reply names "{place}" as its source')
def names_source(context, place):
    looking.at_rest(context.page)
    sources = looking.messages(context.page).last.locator("details.sources")
    sources.locator("summary").click()
    expect(sources.get_by_role("link", name=place)).to_be_visible()
