"""Saying things, and what is answered."""

import re
import time

from behave import given, step, then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.doubles import COUNTING, SLOWLY
from tests.web.looking import button, conversation, message_box


@given("the page is open with the echo model")
def open_echo(context):
    context.visit(context.new_house())


@given("the page is open with a model that counts slowly")
def open_counting(context):
    context.visit(context.new_house(SLOWLY, separate=True))


@given("the page is open with a model that counts slowly, on a server of its own")
def open_counting_elsewhere(context):
    context.visit(context.new_house(SLOWLY, separate=True))


@given('the page is open with a model that says "{first}" and "{second}" in turn')
def open_in_turn(context, first, second):
    context.visit(context.new_house(f'replies: ["{first}", "{second}"]\n', own=True))


@step('I say "{text}"')
def say(context, text):
    box = message_box(context.page)
    box.fill(text)
    button(context.page, "Send").click()
    # the words are in the conversation before the next thing is done
    expect(conversation(context.page)).to_contain_text(text.partition("\n")[0][:40])
    context.remembered["said"] = text


@step("I say")
def say_at_length(context):
    box = message_box(context.page)
    box.fill(context.text)
    button(context.page, "Send").click()


@step("I say a word of {n:d} letters")
def say_long_word(context, n):
    message_box(context.page).fill("m" * n)
    button(context.page, "Send").click()
    expect(conversation(context.page)).to_contain_text(re.compile(f"m{{{n}}}.*m{{{n}}}", re.DOTALL))


@when('I write "{first}" and, after Shift+Enter, "{second}"')
def write_lines(context, first, second):
    box = message_box(context.page)
    box.press_sequentially(first)
    box.press("Shift+Enter")
    box.press_sequentially(second)
    expect(box).to_have_value(f"{first}\n{second}")


@when('I write "{text}" and press Enter')
def write_and_enter(context, text):
    box = message_box(context.page)
    box.focus()
    context.page.keyboard.type(text)
    context.page.keyboard.press("Enter")


@when("I press Enter in the empty message box")
def enter_nothing(context):
    message_box(context.page).focus()
    context.page.keyboard.press("Enter")


@step("I press {key:w}")
def press_key(context, key):
    context.page.keyboard.press(key)


@step('I press "{name}"')
def press_button(context, name):
    button(context.page, name).click()


@step('the answer has reached "{word}"')
def reached(context, word):
    expect(conversation(context.page)).to_contain_text(
        re.compile(rf"{looking.then(context.remembered['said']).pattern}.*\b{word}\b", re.DOTALL)
    )


@then("{name} greets me")
def greets(context, name):
    from townhall.persona import load_persona

    expect(conversation(context.page)).to_contain_text(load_persona(name).greeting)


@then('the conversation reads "{first}" and then "{second}"')
def reads(context, first, second):
    expect(conversation(context.page)).to_contain_text(looking.then(first, second))
    # an answer that is still being written could change what the next step sees
    expect(button(context.page, "Stop")).to_be_hidden()


@then('the conversation shows "{text}"')
def shows(context, text):
    expect(conversation(context.page)).to_contain_text(text)


@then('the conversation does not show "{text}"')
def shows_not(context, text):
    expect(conversation(context.page)).not_to_contain_text(text)


@then('I see "{text}"')
def see(context, text):
    expect(context.page.get_by_text(text).first).to_be_visible()


@then("the message box is empty and ready")
def box_ready(context):
    box = message_box(context.page)
    expect(box).to_have_value("")
    expect(box).to_be_enabled()
    expect(box).to_be_focused()


@then("I have said {n:d} thing")
def said(context, n):
    expect(context.page.get_by_text(context.remembered["said"], exact=True)).to_have_count(2 * n)  # with its echo


@then("I see the answer grow word by word")
def grows(context):
    expect(conversation(context.page)).to_contain_text("one")
    seen = context.page.evaluate(
        """() => new Promise(done => {
             const log = () => document.querySelector('[role=log][aria-label=Conversation]').innerText;
             const lengths = [log().length];
             new MutationObserver((_, observer) => {
               if (log().length > lengths.at(-1)) lengths.push(log().length);
               if (lengths.length > 5) { observer.disconnect(); done(lengths); }
             }).observe(document.body, {subtree: true, childList: true, characterData: true});
           })"""
    )
    assert max(b - a for a, b in zip(seen, seen[1:])) < len(COUNTING) / 4, f"it came in leaps: {seen}"
    expect(conversation(context.page)).not_to_contain_text("ninety ten")


@then("I can stop it")
def can_stop(context):
    button(context.page, "Stop").click()
    expect(button(context.page, "Stop")).to_be_hidden()


@then("nothing runs on the server any more")
def server_free(context):
    deadline = time.monotonic() + 20
    while context.house.running():
        assert time.monotonic() < deadline, "the server still writes an answer that nobody reads"
        time.sleep(0.05)


@then("the answer stays as it was")
def stays(context):
    expect(button(context.page, "Stop")).to_be_hidden()
    expect(conversation(context.page)).to_contain_text("one two three four five")
    expect(conversation(context.page)).not_to_contain_text("ninety ten")
    before = conversation(context.page).inner_text()
    context.page.reload()  # what is kept is what was seen
    expect(conversation(context.page)).to_contain_text("one two three four five")
    assert words(conversation(context.page).inner_text()) == words(before)


def words(text):
    """The numbers that were counted."""
    return [word for word in re.findall(r"\w+", text) if word in COUNTING.split()]


@when('I change my words to "{text}"')
def edit(context, text):
    button(context.page, "Edit").click()
    box = message_box(context.page)
    expect(box).not_to_have_value("")
    box.fill(text)
    button(context.page, "Send").click()
