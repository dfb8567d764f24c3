"""Versions of messages, branches, and what else a model could have said."""

import re

from behave import given, step, then, when
from playwright.sync_api import expect

from tests.reference.tiny import make_tiny_gguf
from tests.web import looking
from tests.web.houses import House, Plan
from tests.web.looking import at_rest, button, chats, messages


def theirs(page):
    """The newest reply."""
    return messages(page).and_(page.locator(".theirs")).last


def mine(page):
    """My newest message."""
    return page.get_by_role("article", name="You", exact=True).last


def version(message, at, of):
    expect(message.get_by_label(f"Version {at} of {of}", exact=True)).to_be_visible()


@then("the newest reply is version {at:d} of {of:d}")
def reply_version(context, at, of):
    at_rest(context.page)
    version(theirs(context.page), at, of)


@then("my newest message is version {at:d} of {of:d}")
def my_version(context, at, of):
    at_rest(context.page)
    mine(context.page).hover()
    version(mine(context.page), at, of)


@when("I go to the version before of my newest message")
def my_previous(context):
    mine(context.page).hover()
    mine(context.page).get_by_role("button", name="Previous version").click()


@when('I change the reply "{words}" to "{text}"')
def change_reply(context, words, text):
    page = context.page
    at_rest(page)
    theirs(page).get_by_role("button", name="Edit", exact=True).click()
    page.get_by_role("textbox", name="Edit message").fill(text)
    button(page, "Save").click()


@then("the newest reply is marked as edited")
def edited(context):
    expect(theirs(context.page).get_by_text("edited", exact=True)).to_be_visible()


def choose(page, message, action):
    at_rest(page)
    message.hover()
    message.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("menuitem", name=action, exact=True).click()


@when('I pick the action "{action}" for my message "{words}", and agree')
def choose_for_mine(context, action, words):
    page = context.page
    choose(page, page.get_by_role("article", name="You", exact=True).filter(has_text=words), action)
    button(page, "Delete").click()


@when('I pick the action "{action}" for the newest message')
def choose_for_newest(context, action):
    choose(context.page, messages(context.page).last, action)


@when('I pick the action "{action}" for the first reply')
def choose_for_first(context, action):
    choose(context.page, context.page.locator(".message.theirs").nth(1), action)  # the greeting is no reply


@then("there are {n:d} messages")
def count(context, n):
    expect(messages(context.page)).to_have_count(n)


@when('I open the branches and choose "{words}"')
def open_tree(context, words):
    at_rest(context.page)
    button(context.page, "Branches").click()
    context.page.get_by_role("dialog", name="Branches").get_by_role("button", name=re.compile(f"You.*{re.escape(words)}")).click()


@then('there are two chats in the list called "{words}"')
def two_chats(context, words):
    expect(chats(context.page).get_by_role("link", name=words)).to_have_count(2)


@when('I begin the reply with "{text}"')
def prefill(context, text):
    page = context.page
    button(page, "More ways to send").click()
    page.get_by_role("menuitem", name="Begin the reply with …").click()
    page.get_by_role("textbox", name="The reply begins with").fill(text)


@when('I retry with the preset "{preset}" and seed {seed:d}')
def retry_with(context, preset, seed):
    page = context.page
    choose(page, theirs(page), "Retry with other settings …")
    dialog = page.get_by_role("dialog", name="Retry with other settings")
    dialog.get_by_role("combobox", name="Preset").select_option(label=preset)
    dialog.get_by_role("textbox", name="Seed").fill(str(seed))
    dialog.get_by_role("button", name="Retry", exact=True).click()


@then("the settings of the chat are as before")
def settings_untouched(context):
    assert context.house.asked(f"/townhall/chats/{looking.chat_id(context.page)}")["settings"] == {}


@given("the page is open with a small real model")
def open_real(context):
    """A LLaMA of random weights: what it says is no sense, and its probabilities are its own."""
    house = House(
        context.outside, Plan("tiny", ("--max-tokens", "12")), lambda home: make_tiny_gguf(home / "tiny.gguf", context_length=2048)
    )
    context.own.append(house)
    context.visit(house)


@when("I look at the token probabilities of the newest reply")
def look_at_tokens(context):
    choose(context.page, theirs(context.page), "Token probabilities")


def tokens(page):
    return page.get_by_role("group", name="Tokens of this reply").locator(".token")


@then("each token tells how likely it was")
def likely(context):
    expect(tokens(context.page).first).to_be_visible()
    titles = tokens(context.page).evaluate_all("all => all.map(token => token.title)")
    assert titles and all(re.search(r": [\d.]+ %$", title) for title in titles), titles


def tokens_kept(context):
    """The newest reply's tokens as the server has them: ids, since half a character has no text that could be compared."""
    chat = looking.chat_id(context.page)
    message = context.house.asked(f"/townhall/chats/{chat}")["messages"][-1]["id"]
    return context.house.asked(f"/townhall/chats/{chat}/messages/{message}/logprobs?top=5")["tokens"]


@when("I take another token than the first")
def choose_token(context):
    page = context.page
    first = tokens_kept(context)[0]
    tokens(page).first.hover()
    choices = page.get_by_role("group", name=re.compile("Alternatives for")).locator("button")
    expect(choices).to_have_count(len(first["top"]))
    at = next(at for at, one in enumerate(first["top"]) if one["id"] != first["id"])
    context.remembered["token"] = first["top"][at]["id"]
    choices.nth(at).click()


@then("it begins with the token that I chose")
def begins(context):
    at_rest(context.page)
    assert tokens_kept(context)[0]["id"] == context.remembered["token"]


@step("I wait for the reply")
def wait(context):
    at_rest(context.page)
