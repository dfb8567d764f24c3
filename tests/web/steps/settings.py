"""Presets, system prompt, author's note."""

from behave import step, then, when
from playwright.sync_api import expect

from tests.web.looking import at_rest, button, chat_id, newest, settings


def preset(page):
    settings(page)
    return page.get_by_role("combobox", name="Preset")


@when('I take the preset "{name}"')
def choose_preset(context, name):
    preset(context.page).select_option(label=name)
    expect(preset(context.page).locator("option:checked")).to_have_text(name)


@then("the reply was drawn with temperature {temperature:g}")
def drawn(context, temperature):
    assert newest(context)["sampler"]["temperature"] == temperature, newest(context)


@when('I save the settings as the preset "{name}"')
def save_preset(context, name):
    button(context.page, "Save as a preset").click()
    context.page.get_by_role("textbox", name="Name of the preset").fill(name)
    button(context.page, "Save").click()


@then('the preset is "{name}"')
def preset_is(context, name):
    expect(preset(context.page).locator("option:checked")).to_have_text(name)


@when("I reset all settings")
def reset(context):
    button(context.page, "Reset all").click()
    expect(button(context.page, "Reset all")).to_be_disabled()


def write(page, name, text):
    settings(page)
    box = page.get_by_role("textbox", name=name, exact=True)
    if not box.is_visible():
        page.get_by_text("System prompt and author's note", exact=True).click()
    box.fill(text)
    box.blur()


@when('I write the system prompt "{text}"')
def system(context, text):
    write(context.page, "System prompt", text)


@when('I write the note "{text}" at depth {depth:d}')
def note(context, text, depth):
    write(context.page, "Author's note", text)
    write(context.page, "Depth", str(depth))


@step('the chat has the system prompt "{system}" and the note "{text}" at depth {depth:d}')
def chat_has(context, system, text, depth):
    page = context.page
    at_rest(page)
    page.wait_for_function(
        "async ([id, ...wanted]) => { const chat = await (await fetch(`townhall/chats/${id}`)).json();"
        " return JSON.stringify([chat.system, chat.note?.text, chat.note?.depth]) === JSON.stringify(wanted); }",
        arg=[chat_id(page), system, text, depth],
        polling=100,
    )
    write_name = page.get_by_role("textbox", name="System prompt", exact=True)
    settings(page)
    expect(write_name).to_have_value(system)
