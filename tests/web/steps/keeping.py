"""Logs: kept, opened, named, deleted, carried away."""

import re
from pathlib import Path

from behave import given, step, then, when
from playwright.sync_api import expect

from tests.web.looking import actions, at_rest, button, chat, chat_id, chats, conversation, in_place, kept, message_box, say, with_chat
from tests.web.looking import then as in_turn


def asked_about(before, words, after=""):
    """A question names the chat that it is about."""
    return re.compile(rf"^{before} “[^”]*{re.escape(words)}[^”]*”{after}$")


@step("I reload the page")
def reload(context):
    kept(context.page)
    context.page.reload()


@when("I open the same chat in a second tab")
def second_tab(context):
    kept(context.page)
    context.remembered["first tab"] = context.page
    context.page = context.page.context.new_page()
    context.page.goto(context.remembered["first tab"].url)


@when("I go back to the first tab")
def first_tab(context):
    context.remembered["second tab"], context.page = context.page, context.remembered["first tab"]
    context.page.bring_to_front()


@then("nothing that was said in either tab is lost")
def both_kept(context):
    at_rest(context.page)
    context.page.reload()
    log = conversation(context.page)
    expect(log).to_contain_text(in_turn("Said in the first tab", "Said in the second tab", "Said in the first tab again"))


@when('I open the chat "{words}"')
def open_chat(context, words):
    at_rest(context.page)
    chat(context.page, words).click()


@when('I double-click the chat "{words}"')
def double_click(context, words):
    chat(context.page, words).dblclick()


@when('I go from the chat "{words}" to the next one with the keyboard')
def next_chat(context, words):
    chat(context.page, words).focus()
    context.page.keyboard.press("ArrowDown")


@then('the chat "{words}" is marked as the open one')
def marked(context, words):
    expect(chat(context.page, words)).to_have_attribute("aria-current", "page")
    expect(chats(context.page).locator("[aria-current]")).to_have_count(1)


def new_name(page, words):
    with_chat(page, words, "Rename")
    return page.get_by_role("textbox", name=asked_about("New name for", words))


@when('I rename the chat "{words}" to "{name}"')
def rename(context, words, name):
    new_name(context.page, words).fill(name)
    button(context.page, "Save name").click()


@when('I rename the chat "{words}" to "{name}" and press Enter')
def rename_with_enter(context, words, name):
    box = new_name(context.page, words)
    box.fill(name)
    box.press("Enter")


@when("the server takes a second for everything")
def slow(context):
    at_rest(context.page)
    context.page.evaluate(
        """() => {
             const plain = window.fetch;
             window.underway = [];
             window.fetch = async (...asked) => {
               if (asked[1]?.method !== "GET") {
                 window.underway.push(String(asked[1].body));
                 await new Promise(done => setTimeout(done, 1000));
               }
               return plain(...asked);
             };
           }"""
    )


@when("the page is loaded again before that is sent")
def reload_halfway(context):
    context.page.wait_for_function("() => window.underway.length")
    context.page.reload()


@then('"{words}" was said once')
def once(context, words):
    at_rest(context.page)
    said = context.house.asked(f"/townhall/chats/{chat_id(context.page)}")["messages"]
    assert [message["text"] for message in said if message["role"] == "user"].count(words) == 1, said


@then("the new name can be written at once")
def name_awaited(context):
    box = context.page.get_by_role("textbox", name=asked_about("New name for", ""))
    expect(box).to_be_focused()
    context.page.wait_for_function("e => e.selectionStart === 0 && e.selectionEnd === e.value.length", arg=box.element_handle())


@when('I write "{text}" over it and press Enter')
def write_over(context, text):
    context.page.keyboard.type(text)
    context.page.keyboard.press("Enter")


@when('I begin to delete the chat "{words}" but think better of it')
def delete_not(context, words):
    with_chat(context.page, words, "Delete")
    button(context.page, "Cancel").click()


@when("I think better of it with Escape")
def keep_with_escape(context):
    context.page.keyboard.press("Escape")


@when('I delete the chat "{words}"')
def delete(context, words):
    with_chat(context.page, words, "Delete")
    context.page.get_by_role("button", name=asked_about("Delete", words, " for good")).click()


@when('I pick the chat "{words}" and press "{name}"')
def choose_and_press(context, words, name):
    with_chat(context.page, words, name)


@given("there are {n:d} chats")
def several(context, n):
    page = context.page
    for number in range(1, n + 1):
        say(page, f"chat number {number}")
        expect(conversation(page)).to_contain_text(in_turn(f"chat number {number}", f"chat number {number}"))
        at_rest(page)
        button(page, "New chat").click()
        expect(conversation(page)).not_to_contain_text("chat number")
    expect(chat(page, f"chat number {n}")).to_have_count(1)


@when('I scroll to the chat "{words}" and go to it with the keyboard')
def go_to(context, words):
    chat(context.page, words).focus()
    expect(chat(context.page, words)).to_be_in_viewport()
    context.remembered["chat"] = chat(context.page, words).bounding_box()


@when("another chat is begun in a second tab")
def begun_elsewhere(context):
    other = context.page.context.new_page()
    other.goto(context.house.page.url)
    say(other, "chat number 13")
    expect(conversation(other)).to_contain_text(in_turn("chat number 13", "chat number 13"))
    context.remembered["second tab"] = other


@then("what I see of the list has not moved")
def list_still(context):
    in_place(context.page)
    before, now = context.remembered["chat"], chat(context.page, "chat number 3").bounding_box()
    assert now == before, f"it stood at {before} and stands at {now}"


@then('the focus is on the actions of the chat "{words}"')
def focus_on_actions(context, words):
    expect(actions(context.page, words)).to_be_focused()


@then("the focus is on the message box")
def focus_on_box(context):
    expect(message_box(context.page)).to_be_focused()


@then('the focus is on the chat "{words}"')
def focus_on_chat(context, words):
    expect(chat(context.page, words)).to_be_focused()


@when('I export the chat "{words}"')
def export(context, words):
    with context.page.expect_download() as download:
        with_chat(context.page, words, "Export as Markdown")
    context.remembered["file"] = Path(download.value.path()).read_text(encoding="utf-8")


@then('the file that I get holds "{words}" twice')
def exported(context, words):
    assert context.remembered["file"].count(words) == 2, context.remembered["file"]


@then('the list of chats has "{first}" and "{second}"')
def lists_both(context, first, second):
    expect(chat(context.page, first)).to_have_count(1)
    expect(chat(context.page, second)).to_have_count(1)


@then('the list of chats has "{words}"')
def lists(context, words):
    expect(chat(context.page, words)).to_have_count(1)


@then('the list of chats does not have "{words}"')
def lists_not(context, words):
    expect(chat(context.page, words)).to_have_count(0)


@then('no file in the house holds "{words}"')
def gone(context, words):
    holding = [path for path in context.house.home.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]
    assert not holding, holding
