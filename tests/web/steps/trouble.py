"""Servers that die, models that say strange things, and what is said to the server."""

import re

from behave import given, step, then, when
from playwright.sync_api import expect

from tests.web.doubles import SLOWLY
from tests.web.looking import at_rest, message_box, newest, settings
from tests.web.prefix_proxy import PrefixProxy


@given("the page is open with a model that counts slowly, on a server that will die")
def open_doomed(context):
    context.visit(context.new_house(SLOWLY, own=True))


@given("the page is open with the echo model, in a program of its own")
@given("the page is open with the echo model, in a program that will be started again")
def open_restarted(context):
    context.visit(context.new_house("echo", own=True))


@step("the program is started again")
def restart(context):
    context.house.page.end()
    context.house.page.start()


@when('I begin to write "{text}"')
def begin(context, text):
    message_box(context.page).fill(text)


@then('the message box still holds "{text}"')
def still_holds(context, text):
    expect(message_box(context.page)).to_have_value(text)


@step("the server dies")
def die(context):
    context.house.page.kill()


@step("the server is there again")
def again(context):
    context.house.page.start()


def complaint(page):
    return page.get_by_role("alert").or_(page.get_by_role("status")).filter(has_text=re.compile("server|reach|answer", re.IGNORECASE))


@then("the page says in one sentence that the server is gone")
def says_gone(context):
    expect(complaint(context.page).first).to_be_visible()
    text = complaint(context.page).first.inner_text()
    assert "Traceback" not in text and len(text) < 300, text
    at_rest(context.page)


@then("the page complains no more")
def says_nothing(context):
    expect(complaint(context.page)).to_have_count(0)


@then("the words ran nothing and fetched nothing")
def harmless(context):
    assert context.page.title().endswith("· Townhall"), context.page.title()
    assert not context.foreign, context.foreign
    links = context.page.locator("[href^='javascript:' i]")
    expect(links).to_have_count(0)
    expect(context.page.locator("iframe[src*='example.org'], img[src*='example.org']")).to_have_count(0)


@when("I set the {name} to {value}")
def set_value(context, name, value):
    page = context.page
    settings(page)
    box = page.get_by_role("spinbutton", name=re.compile(f"^{name}", re.IGNORECASE)).or_(
        page.get_by_role("textbox", name=name[:1].upper() + name[1:], exact=True)
    )
    box.fill(value)
    box.press("Tab")


@when("I open more samplers")
def open_more(context):
    settings(context.page)
    context.page.get_by_text("More samplers", exact=True).click()
    expect(context.page.get_by_role("textbox", name="DRY sequence breakers")).to_be_visible()


@then('the reply was drawn with DRY at {multiplier:g} between "{first}" and "{second}"')
def asked_with_dry(context, multiplier, first, second):
    drawn = newest(context)["sampler"]
    assert (drawn.get("dry_multiplier"), drawn.get("dry_sequence_breakers")) == (multiplier, [first.replace("\\n", "\n"), second]), drawn


@then("the reply was drawn with temperature {temperature:g} and seed {seed:d}")
def asked_with(context, temperature, seed):
    reply = newest(context)
    assert (reply["sampler"].get("temperature"), reply["seed"]) == (temperature, seed), reply


@given('the page is open with the echo model behind the key "{key}"')
def open_locked(context, key):
    context.visit(context.new_house("echo", own=True, flags=("--api-key", key)))


def key_box(page):
    return page.get_by_label("API key", exact=True)


@then("I am asked for the key")
def asked_for_key(context):
    expect(key_box(context.page)).to_have_value("")
    expect(key_box(context.page)).to_be_focused()


@when('I give the key "{key}"')
def give_key(context, key):
    key_box(context.page).fill(key)
    with context.page.expect_response(lambda reply: "/v1/models" in reply.url):
        context.page.keyboard.press("Enter")


@given("the page is open with the echo model, behind a proxy that has it under a prefix")
def open_proxied(context):
    house = context.new_house()
    proxy = PrefixProxy(house.page.port)
    context.own.append(proxy)
    context.visit(house, proxy.url)


@then("each picture is there")
def pictures(context):
    wait = "() => [...document.images].length > 1 && [...document.images].every(image => image.complete && image.naturalWidth)"
    context.page.wait_for_function(wait)
