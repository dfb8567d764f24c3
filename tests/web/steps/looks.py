"""Pictures, for people to look at."""

from behave import given, then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.doubles import TALK, TALKATIVE
from tests.web.looking import SCREENSHOTS, conversation


@given("the page is open with a talkative model")
def open_talkative(context):
    context.visit(context.new_house(TALKATIVE))


@when("I have a conversation with Stacy")
def chat_state(context):
    for question, reply in TALK:
        looking.say(context.page, question)
        expect(conversation(context.page)).to_contain_text(looking.then(question, reply.split("\n")[-1][:20]))
        looking.at_rest(context.page)


@then('a picture is taken as "{name}"')
def picture(context, name):
    context.page.screenshot(path=SCREENSHOTS / f"{name}.png")
