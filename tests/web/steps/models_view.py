"""Models: what is loaded, what is there, what it takes."""

import re

from behave import given, then, when
from playwright.sync_api import expect

from tests.reference.tiny import make_tiny_gguf
from tests.web import looking


@given("the page is open with the echo model and a folder of models")
def with_models(context):
    house = context.new_house("echo", flags=("--models-dir", "models"), own=True)
    (house.home / "models").mkdir()
    (house.home / "models" / "broken.gguf").write_bytes(b"GGUF")
    make_tiny_gguf(house.home / "models" / "small.gguf", type="Q8_0", dim=256, hidden_dim=512, context_length=32768)
    context.visit(house)


@then("I see the device as the server attests it")
def device(context):
    attested = context.house.asked("/health")["description"]
    expect(context.page.get_by_role("region", name="Loaded", exact=True)).to_contain_text(attested)


@when("the reply is whole")
def whole(context):
    looking.at_rest(context.page)


@then("the speed is a number")
def speed(context):
    expect(context.page.locator(".speed b")).to_have_text(re.compile(r"^\d"))


@when('I plan for the model "{name}"')
def plan_for(context, name):
    context.page.get_by_role("checkbox", name=name).check()


@when("I plan for {n:d} tokens")
def plan_window(context, n):
    page = context.page
    context.remembered["cache"] = caches(context)
    page.get_by_role("combobox", name="Context window", exact=True).select_option(str(n))


def picture(context):
    return context.page.locator(".memory-bar")


def caches(context):
    """The column of the KV caches, as it reads."""
    return context.page.get_by_role("region", name="Memory", exact=True).locator("tbody td").nth(2).inner_text()


@then('the memory picture has "{name}"')
def in_picture(context, name):
    expect(picture(context)).to_have_attribute("aria-label", re.compile(rf": {name} \d"))


@then("the picture's KV caches grow")
def grown(context):
    column = context.page.get_by_role("region", name="Memory", exact=True).locator("tbody td").nth(2)
    expect(column).not_to_have_text(context.remembered["cache"])
