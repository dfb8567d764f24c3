"""Models: what is loaded, what is there, what it takes."""

import re

from behave import given, then, when
from playwright.sync_api import expect

from tests.reference.tiny import make_tiny_gguf
from tests.web import looking
from tests.web.houses import House, Plan
from tests.web.looking import button, settings


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


@then("the share of prompts that was cached is the server's")
def cached(context):
    counted = context.house.asked("/townhall/models/meter")["prefix_cache"]
    share = round(100 * counted["hits"] / counted["queries"])
    speed = context.page.get_by_role("region", name="Speed", exact=True)
    expect(speed).to_contain_text(f"{share} % of {counted['queries']} prompt tokens were in a cache")


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


def several_models(context, *flags):
    """A server over a small LLaMA of random weights, with another in its folder."""

    def folder(home):
        (home / "models").mkdir()
        make_tiny_gguf(home / "models" / "small.gguf", type="Q8_0", context_length=2048)

    def first(home):
        return make_tiny_gguf(home / "first.gguf", type="Q8_0", context_length=2048)

    house = House(context.outside, Plan("", ("--models-dir", "models", *flags)), make=first, before=folder)
    context.own.append(house)
    return house


@given("the page is open with a server of several models")
def several(context):
    context.visit(several_models(context))


@given("the page is open with a server of several models and little memory")
def several_in_little(context):
    context.visit(several_models(context, "--memory", "1MB"))


def file(context, name):
    """Its line in the list of models."""
    return context.page.get_by_role("region", name="Models that are here", exact=True).get_by_role("listitem").filter(has_text=name)


@when('I load the model "{name}"')
def load(context, name):
    file(context, name).get_by_role("button", name=f"Load {name}", exact=True).click()


@then('the model "{name}" can be unloaded')
def loaded(context, name):
    expect(file(context, name).get_by_role("button", name=f"Unload {name}", exact=True)).to_be_enabled()
    states = {one["name"]: one["state"] for one in context.house.asked("/townhall/models")["models"]}
    assert states[name] == "loaded", states


@then('whoever wants to chat can choose "{name}"')
def on_offer(context, name):
    button(context.page, "New chat").click()
    expect(context.page.get_by_role("radio", name=name)).to_be_attached()


@when('I pin the model "{name}"')
@when('I unpin the model "{name}"')
def change_pin(context, name):
    file(context, name).get_by_role("button", name="Pinned", exact=True).click()


@then('the model "{name}" cannot be unloaded')
def not_to_be_unloaded(context, name):
    expect(file(context, name).get_by_role("button", name=f"Unload {name}", exact=True)).to_be_disabled()


@when('I unload the model "{name}"')
def unload(context, name):
    file(context, name).get_by_role("button", name=f"Unload {name}", exact=True).click()


@then('the model "{name}" can be loaded')
def unloaded(context, name):
    expect(file(context, name).get_by_role("button", name=f"Load {name}", exact=True)).to_be_enabled()


@then('I am told why "{name}" does not fit')
def no_room(context, name):
    expect(file(context, name).get_by_role("alert")).to_contain_text(re.compile(r"\d"))


@when('I switch the model to "{name}"')
def choose_model(context, name):
    settings(context.page)
    box = context.page.get_by_role("combobox", name="Model", exact=True)
    expect(box.locator("option", has_text=name)).not_to_have_count(0)
    box.select_option(next(value for value in [name, ""] if box.locator(f'option[value="{value}"]', has_text=name).count()))


@when("I take away the persona in the settings")
def no_persona(context):
    settings(context.page)
    context.page.get_by_role("combobox", name="Who answers", exact=True).select_option(label="No persona")


@then('the chat is with "{model}"')
def chat_is_with(context, model):
    looking.served(context, f"/townhall/chats/{looking.chat_id(context.page)}", lambda chat: chat["chat"]["model"], model)


@then('I am still with "{name}"')
def still_with(context, name):
    expect(context.page.get_by_role("heading", name=name, exact=True, level=1)).to_be_visible()


@then('the picture of "{name}" is the persona\'s')
def own_picture(context, name):
    face = context.page.get_by_role("banner").or_(context.page.locator(".chat-head")).locator("img.face").first
    expect(face).to_have_attribute("src", re.compile(rf"/characters/{name.lower()}/portrait"))


@then('the server has "{name}" in memory')
def in_memory(context, name):
    def state(found):
        return next(one["state"] for one in found["models"] if one["name"] == name)

    looking.served(context, "/townhall/models", state, "loaded")
