"""Presets, system prompt, author's note."""

import numpy as np
from behave import given, step, then, when
from playwright.sync_api import expect

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.lora.adapter import Adapter, LowRank, adaptable_shapes
from app.models.llama.lora.gguf_adapter import write_gguf_adapter
from tests.reference.tiny import make_tiny_gguf
from tests.web import looking
from tests.web.doubles import COUNTING
from tests.web.houses import House, Plan
from tests.web.looking import at_rest, button, chat_id, newest, settings


def preset(page):
    settings(page)
    return page.get_by_role("combobox", name="Preset")


@when('I take the preset "{name}"')
def choose_preset(context, name):
    preset(context.page).select_option(label=name)
    expect(preset(context.page).locator("option:checked")).to_have_text(name)


@then("the reply was drawn with temperature {temperature:g}")
def drawn(context, temperature):
    assert newest(context)["sampler"]["temperature"] == temperature, newest(context)


@when('I save the settings as the preset "{name}"')
def save_preset(context, name):
    button(context.page, "Save as a preset").click()
    context.page.get_by_role("textbox", name="Name of the preset").fill(name)
    button(context.page, "Save").click()


@then('the preset is "{name}"')
def preset_is(context, name):
    expect(preset(context.page).locator("option:checked")).to_have_text(name)


@when("I reset all settings")
def reset(context):
    button(context.page, "Reset all").click()
    expect(button(context.page, "Reset all")).to_be_disabled()


def write(page, name, text):
    settings(page)
    box = page.get_by_role("textbox", name=name, exact=True)
    if not box.is_visible():
        page.get_by_text("System prompt and author's note", exact=True).click()
    box.fill(text)
    box.blur()


@given("new chats are held back")
def hold(context):
    context.held = []
    context.page.route(
        "**/townhall/chats", lambda route: context.held.append(route) if route.request.method == "POST" else route.continue_()
    )


@when("new chats are let through")
def let_through(context):
    while not context.held:  # the page is about to ask
        context.page.wait_for_timeout(50)
    for route in context.held:
        route.continue_()
    context.page.unroute("**/townhall/chats")


@when('I write the system prompt "{text}"')
def system(context, text):
    write(context.page, "System prompt", text)


@when('I write the note "{text}" at depth {depth:d}')
def note(context, text, depth):
    write(context.page, "Author's note", text)
    write(context.page, "Depth", str(depth))


@step('the chat has the system prompt "{system}" and the note "{text}" at depth {depth:d}')
def chat_has(context, system, text, depth):
    page = context.page
    at_rest(page)
    wanted = [system, text, depth]
    looking.served(
        context,
        f"/townhall/chats/{chat_id(page)}",
        lambda chat: [chat["system"], *((chat["note"] or {}).get(key) for key in ("text", "depth"))],
        wanted,
    )
    write_name = page.get_by_role("textbox", name="System prompt", exact=True)
    settings(page)
    expect(write_name).to_have_value(system)


@when('I type the temperature "{some}", wait for more of the reply, and type "{rest}"')
def type_meanwhile(context, some, rest):
    page = context.page
    settings(page)
    reply = page.locator(".message.theirs").last
    expect(reply).to_contain_text("one")
    page.get_by_role("spinbutton", name="Temperature").focus()
    page.keyboard.type(some)
    counted = COUNTING.split()
    shown = sum(word in reply.inner_text().split() for word in counted[:10])
    expect(reply).to_contain_text(counted[shown + 2])
    page.keyboard.type(rest)
    page.keyboard.press("Tab")


@when("I drag the temperature from one end to the other")
def drag(context):
    page = context.page
    settings(page)
    slider = page.get_by_role("slider", name="Temperature")
    context.remembered["end"] = float(slider.get_attribute("max"))
    slider.evaluate("""e => {
      for (let n = 0; n <= 20; n++) { e.value = e.min + (e.max - e.min) * n / 20; e.dispatchEvent(new Event('input', {bubbles: true})); }
    }""")


@then("the reply was drawn with the temperature at that end")
def drawn_at_end(context):
    assert newest(context)["sampler"]["temperature"] == context.remembered["end"]


@then("the chat has the temperature at that end")
def left_at_end(context):
    assert (
        context.house.asked(f"/townhall/chats/{chat_id(context.page)}")["settings"]["sampler"]["temperature"] == context.remembered["end"]
    )


@given('the page is open with a small real model and the adapter "{name}"')
def open_adapted(context, name):
    def make(home):
        path = make_tiny_gguf(home / "tiny.gguf", context_length=2048)
        config, rng = open_checkpoint(path).config, np.random.default_rng(1)
        normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
        matrices = {
            key: LowRank(normal(4, shape[1]), normal(shape[0], 4), 0.1)
            for key, shape in adaptable_shapes(config).items()
            if key.startswith("layers.")
        }
        write_gguf_adapter(Adapter(matrices), home / f"{name}.gguf", config)
        return path

    house = House(context.outside, Plan("tiny", ("--max-tokens", "12", "--lora", f"{name}={name}.gguf")), make)
    context.own.append(house)
    context.visit(house)


def adapters(page):
    """The choice between the character's adapters and the chat's own."""
    settings(page)
    choice = page.get_by_role("combobox", name="Adapters (LoRA)", exact=True)
    if not choice.is_visible():
        page.get_by_text("Adapters (LoRA)", exact=True).first.click()
    return choice


@when('I give the adapter "{name}" the weight {scale:g}')
def weigh(context, name, scale):
    at_rest(context.page)
    adapters(context.page).select_option(label="its own")
    box = context.page.get_by_role("spinbutton", name=name, exact=True)
    box.fill(str(scale))
    box.press("Tab")


@when('I take the adapter "{name}" away')
def take_away(context, name):
    at_rest(context.page)
    adapters(context.page).select_option(label="the character's")
    expect(context.page.get_by_role("spinbutton", name=name, exact=True)).to_have_count(0)


@then('the chat has the adapter "{name}" with the weight {scale:g}')
def has_adapter(context, name, scale):
    path = f"/townhall/chats/{chat_id(context.page)}"
    looking.served(context, path, lambda chat: chat["settings"].get("adapters"), [{"name": name, "scale": scale}])


def versions(context):
    """The texts of all versions of the newest reply, in their order."""
    chat = chat_id(context.page)
    return [context.house.asked(f"/townhall/chats/{chat}/messages/{id}")["text"] for id in newest(context)["swipe_ids"]]


@then("its two versions read differently")
def differ(context):
    first, second = versions(context)
    assert first != second, first


@then("its first and third version read alike")
def alike(context):
    first, _, third = versions(context)
    assert first == third, (first, third)
