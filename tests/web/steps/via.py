"""Replies of another server's model: who gave them, what they cost, and what is said where it gives none."""

import os

from behave import given, then, when
from playwright.sync_api import expect

from tests.townhall.via.misbehaving import Misbehaving, fails, says
from tests.web.looking import at_rest, conversation, message_box, messages

SECRET = "sk-sesame-0123456789"


def visit(context, *behaviours):
    """A page whose server has answers from a double that does so."""
    remote = Misbehaving(*behaviours)
    remote.__enter__()
    context.add_cleanup(remote.__exit__)
    os.environ["TOWNHALL_VIA_KEY"] = SECRET
    flags = ("--via", remote.url, "--via-model", "big-one", "--via-price", "big-one=100/1000 USD", "--persona", "stacy")
    context.remembered["place"] = remote.url.removeprefix("http://").removesuffix("/v1")
    context.visit(context.new_house('replies: ["Local words."]\n', own=True, flags=flags))


@given("the page is open with a server that has answers from another one")
def answered(context):
    visit(context, says("Remote", " words."))


@given("the page is open with a server that has answers from one that is away")
def away(context):
    visit(context, fails(503))


@given("the page is open with a server that has answers from one that refuses its key")
def refusing(context):
    visit(context, fails(401, f"Incorrect API key provided: {SECRET}"))


@then('I see that "{model}" answers from there')
def who_answers(context, model):
    expect(context.page.get_by_text(f"{model} at {context.remembered['place']} answers", exact=True)).to_be_visible()


@then('the last reply reads "{text}" and names "{model}" with "{cost}"')
def named(context, text, model, cost):
    at_rest(context.page)
    last = messages(context.page).last
    expect(last).to_contain_text(text)
    expect(last).to_contain_text(f"Answered by {model} at {context.remembered['place']}: 50 tokens sent, 2 in the answer, {cost}")


@then("its menu offers no token probabilities")
def no_probabilities(context):
    last = messages(context.page).last
    last.hover()
    last.get_by_role("button", name="More", exact=True).click()
    expect(context.page.get_by_role("menuitem").first).to_be_visible()
    expect(context.page.get_by_role("menuitem", name="Token probabilities", exact=True)).to_have_count(0)


@then('the last reply says that the local model answered, for the other server "{why}"')
def stood_in(context, why):
    at_rest(context.page)
    last = messages(context.page).last
    expect(last).to_contain_text("Local words.")
    expect(last).to_contain_text("The local model answered:")
    expect(last).to_contain_text(why)


@when('I say a thing that gets no answer, "{text}"')
def say_in_vain(context, text):
    message_box(context.page).fill(text)
    message_box(context.page).press("Enter")
    expect(conversation(context.page)).to_contain_text(text)


@then('an alert shows "{words}"')
def alert_shows(context, words):
    expect(context.page.get_by_role("alert").filter(has_text=words)).to_be_visible()


@then("nothing on the page holds the key")
def no_key(context):
    assert SECRET not in context.page.content() and SECRET not in context.house.words()
