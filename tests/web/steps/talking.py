"""Saying things, and what is answered."""

import re
import time

from behave import given, step, then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.doubles import COUNTING, SLOWLY
from tests.web.looking import button, chat, conversation, message_box


@given("the page is open with the echo model")
def open_echo(context):
    context.visit(context.new_house())


@given("the page is open with a model that counts slowly")
def open_counting(context):
    context.visit(context.new_house(SLOWLY))


@given("the page is open with a model that counts slowly, on a server of its own")
def open_counting_elsewhere(context):
    context.visit(context.new_house(SLOWLY))


@given('the page is open with a model that says "{first}" and "{second}" in turn')
def open_in_turn(context, first, second):
    context.visit(context.new_house(f'replies: ["{first}", "{second}"]\n', own=True))


@step('I say "{text}"')
def say(context, text):
    looking.say(context.page, text)
    # the words are in the conversation before the next thing is done
    expect(conversation(context.page)).to_contain_text(text.partition("\n")[0][:40])
    context.remembered["said"] = text


@step("I say")
def say_at_length(context):
    looking.say(context.page, context.text)


@step("I say a word of {n:d} letters")
def say_long_word(context, n):
    looking.say(context.page, "m" * n)
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


@when('I write "{text}" and press Enter twice')
def write_and_enter_twice(context, text):
    write_and_enter(context, text)
    context.page.keyboard.press("Enter")
    context.remembered["said"] = text


@when('I go on with "{text}"')
def go_on(context, text):
    context.page.wait_for_function("() => window.underway.length")
    write_on(context.page, text)


def write_on(page, text):
    """While the message before is on its way, or the page on its way to another chat."""
    page.keyboard.type(text)


@when('I press "{name}" and go on with "{text}"')
def press_and_go_on(context, name, text):
    button(context.page, name).click()
    write_on(context.page, text)


@when('I say "{text}" and press Escape when the answer begins')
def escape_at_once(context, text):
    context.page.evaluate(
        """() => new MutationObserver((_, observer) => {
             if (!document.querySelector('.send.stop')) return;
             observer.disconnect();
             document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}));
           }).observe(document.body, {subtree: true, attributes: true, childList: true})"""
    )
    write_and_enter(context, text)
    expect(conversation(context.page)).to_contain_text(text)


@when("I press Enter in the empty message box")
def enter_nothing(context):
    message_box(context.page).focus()
    context.page.keyboard.press("Enter")


@step("I press {key:w}")
def press_key(context, key):
    if key == "Escape":
        expect(button(context.page, "Stop")).to_be_visible()  # there is something to stop
    context.page.keyboard.press(key)


@step('I press "{name}"')
def press_button(context, name):
    if name != "Stop":
        looking.at_rest(context.page)
    button(context.page, name).click()


@then('"{shown}" stands where "{gone}" stood')
def exchanged(context, shown, gone):
    expect(button(context.page, shown)).to_be_visible()
    expect(button(context.page, gone)).to_have_count(0)
    beside = context.page.locator("#composer").bounding_box(), button(context.page, shown).bounding_box()
    assert context.remembered.setdefault("composer", beside) == beside, f"the composer moved: {context.remembered['composer']}, {beside}"


@then("I am told that {name} is writing")
def told_of_writing(context, name):
    expect(context.page.get_by_role("status").filter(has_text=f"{name} is writing")).to_have_count(1)


@then("the page complains of nothing")
def no_complaint(context):
    expect(context.page.get_by_role("alert")).to_have_count(0)


@when('I go to "{name}" with the keyboard')
def tab_to(context, name):
    message_box(context.page).focus()
    context.page.keyboard.press("Tab")
    expect(button(context.page, name)).to_be_focused()


@when("the answer is stopped in another tab")
def stopped_elsewhere(context):
    looking.kept(context.page)
    other = context.page.context.new_page()
    other.goto(context.page.url)
    button(other, "Stop").click()
    looking.at_rest(other)
    other.close()


@then('the focus is on "{name}"')
def focus_on(context, name):
    expect(button(context.page, name)).to_be_focused()


END = """log => {
  const end = getComputedStyle([...log.querySelectorAll('.theirs .md p')].at(-1), '::after');
  return [end.content, end.animationName];
}"""


@then("a still mark that is no text stands at its end")
def cursor(context):
    assert conversation(context.page).evaluate(END) == ['""', "none"]  # who asked for less motion sees it stand still


@then("nothing stands at its end")
def no_cursor(context):
    looking.at_rest(context.page)
    assert conversation(context.page).evaluate(END)[0] == "none"


@when("I leave it for a new chat")
def leave(context):
    button(context.page, "New chat").click()


@then("{name} greets me, and it stays at that while the answer grows")
def undisturbed(context, name):
    greets(context, name)
    expect(conversation(context.page)).not_to_contain_text("Count while I am elsewhere")
    other = context.page.context.new_page()
    other.goto(context.house.page.url)
    chat(other, "Count while I am elsewhere").click()
    expect(conversation(other)).to_contain_text("nine ten")
    button(other, "Stop").click()
    looking.at_rest(other)
    expect(conversation(context.page)).not_to_contain_text("Count while I am elsewhere")


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
    looking.at_rest(context.page)  # an answer that is still being written could change what the next step sees


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
    expect(conversation(context.page).get_by_text(context.remembered["said"], exact=True)).to_have_count(2 * n)  # with its echo


@then("I have asked {n:d} thing")
def asked(context, n):
    looking.at_rest(context.page)
    expect(conversation(context.page).get_by_text(context.remembered["said"], exact=True)).to_have_count(n)


def watch(page, text):
    """From here on the page notes how long what stands below that text has become."""
    page.evaluate(
        """(text) => {
             const lengths = (window.lengths = []);
             new MutationObserver(() => {
               const [, after = ''] = (document.querySelector('[role=log][aria-label=Conversation]')?.innerText ?? '').split(text);
               if (after.length > (lengths.at(-1) ?? 0)) lengths.push(after.length);
             }).observe(document.body, {subtree: true, childList: true, characterData: true});
           }""",
        text,
    )


@when('I say "{text}" and watch the conversation')
def say_and_watch(context, text):
    watch(context.page, text)
    say(context, text)


@when("I reload the page and watch the conversation")
def reload_and_watch(context):
    context.page.reload()
    watch(context.page, context.remembered["said"])


@then("I see the answer grow word by word")
def grows(context):
    context.page.wait_for_function("() => window.lengths.length > 5")
    seen = context.page.evaluate("() => window.lengths")
    assert max(b - a for a, b in zip(seen, seen[1:])) < len(COUNTING) / 4, f"it came in leaps: {seen}"
    expect(conversation(context.page)).not_to_contain_text("ninety ten")


@then("I can stop it")
def can_stop(context):
    button(context.page, "Stop").click()
    looking.at_rest(context.page)
    expect(button(context.page, "Send")).to_be_visible()


@then("nothing runs on the server any more")
def server_free(context):
    deadline = time.monotonic() + 120
    while context.house.running():
        assert time.monotonic() < deadline, "the server still writes an answer that nobody reads"
        time.sleep(0.05)


@then("the answer stays as it was")
def stays(context):
    looking.at_rest(context.page)
    expect(conversation(context.page)).to_contain_text("one two three four five")
    expect(conversation(context.page)).not_to_contain_text("ninety ten")
    before = conversation(context.page).inner_text()
    context.page.reload()  # what is kept is what was seen
    expect(conversation(context.page)).to_contain_text(" ".join(words(before)))
    assert words(conversation(context.page).inner_text()) == words(before)


def words(text):
    """The numbers that were counted."""
    return [word for word in re.findall(r"\w+", text) if word in COUNTING.split()]


@when('I change my words to "{text}"')
def edit(context, text):
    looking.at_rest(context.page)
    mine = context.page.get_by_role("article", name="You").last
    mine.hover()
    mine.get_by_role("button", name="Edit", exact=True).click()
    box = context.page.get_by_role("textbox", name="Edit message")
    expect(box).to_be_focused()
    box.fill(text)
    button(context.page, "Send again").click()
