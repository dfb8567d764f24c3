"""Many messages, and replies that are quicker than a screen."""

import yaml
from behave import given, then, when
from playwright.sync_api import expect

from tests.web.looking import conversation, message_box, messages

WORDS = "\n\n".join(f"This is paragraph {n}, with a **bold** word, some `code` and a little more to read than that." for n in range(1, 400))


@given("the page is open with a chat of {n:d} messages")
def open_long(context, n):
    house = context.new_house("echo", own=True)
    turns = [
        f"## {'User' if number % 2 else 'Stacy'}\nMessage number {number} of {n}. " + "word " * (number * 7 % 60) + "\n"
        for number in range(1, n + 1)
    ]
    house.logs.mkdir(parents=True, exist_ok=True)
    head = "---\ntownhall: 1\nid: 20260101-000000-aaaaaa\nuser: User\npersona: Stacy\nserved_as: stacy\n---\n\n"
    (house.logs / "20260101-000000-aaaaaa.md").write_text(head + "\n".join(turns))
    context.visit(house)
    context.page.goto(house.page.url + "/#/chat/20260101-000000-aaaaaa")


@then("the newest message is in view")
def newest_in_view(context):
    expect(conversation(context.page).get_by_text("Message number 2000 of 2000")).to_be_in_viewport()


@then("fewer than {n:d} messages are in the document")
def few(context, n):
    assert 0 < messages(context.page).count() < n


@when("I scroll to the beginning")
def scroll(context):
    page = context.page
    page.keyboard.press("Escape")
    conversation(page).hover()
    # as a person's wheel does: on and on, until nothing comes any more
    page.wait_for_function(
        """() => { const talk = document.querySelector('.talk'); talk.dispatchEvent(new WheelEvent('wheel', {bubbles: true}));
                   talk.scrollTop = 0; return talk.innerText.includes('number 1 of 2000'); }""",
        polling=100,
    )


@then('I see the message "{words}"')
def see_message(context, words):
    expect(conversation(context.page).get_by_text(f"Message {words}")).to_be_in_viewport()


@given("the page is open with a model that writes quickly")
def open_quick(context):
    script = f"pause: 0.01\nreplies: [{yaml.safe_dump(WORDS, default_style=chr(34)).strip()}]\n"
    context.visit(context.new_house(script, own=True, flags=("--max-context", "32768", "--max-tokens", "16000")))


@when("I scroll up while it grows")
def scroll_up(context):
    page = context.page
    conversation(page).get_by_text("This is paragraph 25,").wait_for()
    page.evaluate(
        """() => { const talk = document.querySelector('.talk');
             talk.dispatchEvent(new WheelEvent('wheel', {bubbles: true})); talk.scrollTop = Math.max(0, talk.scrollTop - 200);
             window.kept = [...document.querySelectorAll('.message.last .md-block')].slice(0, 8); }"""
    )
    expect(page.get_by_role("button", name="To the newest message")).to_be_visible()
    context.remembered["top"] = page.evaluate("document.querySelector('.talk').scrollTop")


@then("what I read stays where it is")
def still(context):
    conversation(context.page).get_by_text("This is paragraph 40,").wait_for()
    assert context.page.evaluate("document.querySelector('.talk').scrollTop") == context.remembered["top"]


@then("I can type meanwhile")
def type_meanwhile(context):
    page = context.page
    assert conversation(page).get_attribute("aria-busy") == "true", "the reply is over already"
    message_box(page).focus()
    page.keyboard.type("typed while it grows, letter by letter")
    expect(message_box(page)).to_have_value("typed while it grows, letter by letter")


@then("what was rendered once is not rendered again")
def kept(context):
    same = """() => { const now = [...document.querySelectorAll('.message.last .md-block')];
      return window.kept.length === 8 && window.kept.every((node, at) => now[at] === node); }"""
    assert context.page.evaluate(same)
