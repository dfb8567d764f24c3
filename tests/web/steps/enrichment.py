"""Questions that the model rewrites, and what their writers make of them."""

from behave import given, then, when
from playwright.sync_api import expect

from tests.web.looking import at_rest, button, message_box


@given("the page is open with a server that rewrites questions")
def open_rewriting(context):
    context.visit(context.new_house(flags=("--enrich", "ask")))


@when('I ask "{text}"')
def ask(context, text):
    at_rest(context.page)
    message_box(context.page).fill(text)
    button(context.page, "Send").click()


def comparison(page):
    return page.get_by_role("group", name="Your question, and the rewritten one", exact=True)


@then('my question "{own}" stands beside "{offered}"')
def beside(context, own, offered):
    expect(comparison(context.page).get_by_text(own, exact=True)).to_be_visible()
    expect(comparison(context.page).get_by_role("textbox", name="Rewritten", exact=True)).to_have_value(offered)


@when('I edit the rewritten question to "{text}"')
def edit(context, text):
    comparison(context.page).get_by_role("textbox", name="Rewritten", exact=True).fill(text)


@then('my message is marked as "{said}" from "{own}"')
def marked(context, said, own):
    mine = context.page.get_by_role("article", name="You", exact=True).last
    mine.get_by_text(said, exact=True).click()
    expect(mine.get_by_text(own, exact=True)).to_be_visible()
