"""The context window: what is in it, and what was let go."""

import re

from behave import given, then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.looking import conversation, message_box


@given("the page is open with the echo model and a window of {n:d} tokens")
def open_small(context, n):
    context.visit(context.new_house("echo", flags=("--max-context", str(n))))


@given("the page is open with the echo model, a window of {n:d} tokens and the strategy {strategy:w}")
def open_strategy(context, n, strategy):
    context.visit(context.new_house("echo", flags=("--max-context", str(n), "--context", strategy)))


def bar(page):
    return page.get_by_role("meter", name="Context window", exact=True)


def recent(page):
    """Tokens that the bar calls recent; 0 while nothing was said."""
    found = re.search(r"recent (\d+)", bar(page).get_attribute("aria-valuetext") or "")
    return int(found[1]) if found else 0


@then("the context bar tells of {first}, {second}, {third} and {last} tokens")
def bar_tells(context, first, second, third, last):
    for word in (first, second, third, last):
        expect(bar(context.page)).to_have_attribute("aria-valuetext", re.compile(rf"{word} \d+"))
        expect(context.page.get_by_text(re.compile(rf"^{word} \d+$"))).to_be_visible()  # for those who see it
    context.remembered["recent"] = recent(context.page)


@then("the context bar tells of more recent tokens than before")
def bar_grows(context):
    before = context.remembered["recent"]
    expect(bar(context.page)).not_to_have_attribute("aria-valuetext", re.compile(rf"recent {before}\b"))
    assert recent(context.page) > before


@when("I talk until the window is full")
def fill(context):
    for n in range(12):
        words = f"Sentence number {n} " + "about the sea and the ships " * 4
        looking.say(context.page, words.strip())
        context.remembered["said"] = words.strip()
        # either there is an answer, or the page says why there is none
        answered = conversation(context.page).get_by_text(words.strip(), exact=True).nth(1)
        expect(answered.or_(context.page.get_by_role("alert").filter(has_text=re.compile("fit|window|context"))).first).to_be_visible()
        looking.at_rest(context.page)
        if receipt(context.page).count() or context.page.get_by_role("alert").filter(has_text=re.compile("fit|window|context")).count():
            return
    raise AssertionError("twelve long sentences did not fill the window")


def receipt(page):
    return page.get_by_text(re.compile(r"let go|left out|dropped|forgot", re.IGNORECASE))


@then("a receipt tells what was let go")
def info(context):
    expect(receipt(context.page).first).to_be_visible()
    expect(receipt(context.page).first).to_contain_text(re.compile(r"\d"))


@then("the first thing that I said is still on the page")
def still_there(context):
    expect(conversation(context.page)).to_contain_text("Sentence number 0")


@then("the page says in one sentence that the conversation does not fit")
def does_not_fit(context):
    alert = context.page.get_by_role("alert").filter(has_text=re.compile("fit|window|context"))
    expect(alert).to_be_visible()
    assert "Traceback" not in alert.inner_text() and len(alert.inner_text()) < 300, alert.inner_text()


@then("my last words are not lost")
def not_lost(context):
    said = context.remembered["said"]
    in_box = message_box(context.page).input_value() == said
    assert in_box or said in conversation(context.page).inner_text(), "what I wrote last is gone"
