"""Servers that die, models that say strange things, and what is said to the server."""

import json
import re

from behave import given, step, then, when
from playwright.sync_api import expect

from tests.web.doubles import SLOWLY
from tests.web.looking import at_rest, message_box


@given("the page is open with a model that counts slowly, on a server that will die")
def open_doomed(context):
    context.visit(context.new_house(SLOWLY, separate=True, own=True))


@given("the page is open with the echo model, and somebody listens between page and server")
def open_listened(context):
    context.visit(context.new_house("echo", separate=True, own=True, listened=True))


@given("the page is open with the echo model, in a program that will be started again")
def open_restarted(context):
    context.visit(context.new_house("echo", own=True))


@step("the program is started again")
def restart(context):
    context.page.evaluate("() => { window.before = true; }")
    context.house.page.end()
    context.house.page.start()
    context.page.wait_for_function("() => !window.before")  # the page noticed, and loads itself anew


@when('I begin to write "{text}"')
def begin(context, text):
    message_box(context.page).fill(text)


@then('the message box still holds "{text}"')
def still_holds(context, text):
    expect(message_box(context.page)).to_have_value(text)


@step("the server dies")
def die(context):
    context.house.server.kill()


@step("the server is there again")
def again(context):
    context.house.server.start()


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
    assert context.page.title().startswith("Townhall"), context.page.title()
    assert not context.foreign, context.foreign
    links = context.page.locator("[href^='javascript:' i]")
    expect(links).to_have_count(0)
    expect(context.page.locator("iframe[src*='example.org'], img[src*='example.org']")).to_have_count(0)


@when("I set the {name} to {value}")
def set_value(context, name, value):
    page = context.page
    box = page.get_by_role("spinbutton", name=re.compile(name, re.IGNORECASE)).or_(
        page.get_by_role("textbox", name=name[:1].upper() + name[1:])
    )
    if not box.is_visible():
        page.get_by_role("button", name=re.compile("^Settings")).click()
    box.fill(value)
    box.press("Tab")


@when("I open more samplers")
def open_more(context):
    context.page.get_by_role("button", name=re.compile("^Settings")).click()
    context.page.get_by_role("button", name="More samplers").click()
    expect(context.page.get_by_role("textbox", name="DRY sequence breakers")).to_be_visible()


@then('the server was asked with DRY at {multiplier:g} between "{first}" and "{second}"')
def asked_with_dry(context, multiplier, first, second):
    bodies = [json.loads(body) for path, body in context.house.listener.heard if path.endswith("/chat/completions")]
    breakers = [first.replace("\\n", "\n"), second]
    assert (bodies[-1].get("dry_multiplier"), bodies[-1].get("dry_sequence_breakers")) == (multiplier, breakers), bodies


@then("the server was asked with temperature {temperature:g} and seed {seed:d}")
def asked_with(context, temperature, seed):
    bodies = [json.loads(body) for path, body in context.house.listener.heard if path.endswith("/chat/completions")]
    assert (bodies[-1].get("temperature"), bodies[-1].get("seed")) == (temperature, seed), bodies
