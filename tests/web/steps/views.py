"""Every view of the page: access, widths, pictures."""

from behave import given, then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.doubles import TALK
from tests.web.looking import SCREENSHOTS, at_rest, button, chat_id, message_box

# what is wider than its frame, and what can be pressed or written but lies outside of the window
SIDEWAYS = """() => {
  const seen = e => e.checkVisibility({visibilityProperty: true, opacityProperty: true});
  const wide = [...document.querySelectorAll('body, .main, .view, .talk, .panel-body, dialog[open]')]
    .filter(e => seen(e) && e.scrollWidth > e.clientWidth + 1).map(e => `${e.className} ${e.scrollWidth} > ${e.clientWidth}`);
  const out = [...document.querySelectorAll('button, a, input, select, textarea')].filter(seen)
    .filter(e => !e.closest('.side:not(.open), .skip, .unseen, .md, [inert]'))
    .filter(e => { const box = e.getBoundingClientRect(); return box.width > 1 && (box.left < -1 || box.right > innerWidth + 1); });
  return [...wide, ...out.map(e => e.ariaLabel || e.innerText || e.name || e.className)];
}"""


def chat_view(page):
    """A conversation of some length."""
    looking.say(page, TALK[0][0])
    expect(looking.conversation(page)).to_contain_text(TALK[0][0])
    at_rest(page)


def close(page):
    page.keyboard.press("Escape")


def opened(page, name):
    button(page, name).click()


def visit(page, hash):
    """An address within the page."""
    page.evaluate("hash => { location.hash = hash; }", hash)


# name, how it is opened, what shows that it is there, how it is closed
VIEWS = [
    ("new chat", lambda page: None, lambda page: page.get_by_role("radiogroup", name="Characters"), None),
    ("chat", chat_view, lambda page: page.locator(".message.last .message-tools"), None),
    ("settings", lambda page: opened(page, "Settings of this chat"), lambda page: page.locator(".panel .slider").first, close),
    (
        "actions",
        lambda page: page.locator(".message.last").get_by_role("button", name="More", exact=True).click(),
        lambda page: page.get_by_role("menu"),
        close,
    ),
    ("branches", lambda page: opened(page, "Branches"), lambda page: page.locator(".tree li").first, close),
    ("help", lambda page: page.keyboard.press("?"), lambda page: page.locator(".shortcuts"), close),
    ("search", lambda page: visit(page, "#/search?q=moon"), lambda page: page.locator(".hits li").first, None),
    ("preferences", lambda page: visit(page, "#/preferences"), lambda page: page.get_by_role("combobox", name="Theme"), None),
]


def each(context, look):
    """Open one view after another and have `look` look at it."""
    page = context.page
    context.remembered.setdefault("pictures", {})
    for name, open_it, sign, close_it in VIEWS:
        if name == "help":  # not from within the message box
            page.locator(".message.last").focus()
        open_it(page)
        expect(sign(page)).to_be_visible()
        looking.in_place(page)
        look(name)
        context.remembered["pictures"][name] = page.screenshot()
        if close_it:
            close_it(page)
            expect(sign(page)).to_have_count(0)


@then("no view has a serious fault of access")
def accessible(context):
    faults = []
    each(context, lambda name: faults.extend(f"{name}: {fault}" for fault in looking.violations(context.page)))
    assert not faults, "\n".join(faults)


@then("no view scrolls sideways, and its buttons are in reach")
def within(context):
    faults = []
    each(context, lambda name: faults.extend(f"{name}: {fault}" for fault in context.page.evaluate(SIDEWAYS)))
    assert not faults, "\n".join(faults)


def keep(context, suffix):
    for name, picture in context.remembered["pictures"].items():
        (SCREENSHOTS / f"view-{name.replace(' ', '-')}-{suffix}.png").write_bytes(picture)


@then("a picture of each view is taken, in {scheme:w}")
def pictures_in(context, scheme):
    keep(context, scheme)


@then("a picture of each view is taken, on {screen}")
def pictures_on(context, screen):
    keep(context, "320" if "320" in screen else "zoomed")


@given("a screen of 320 pixels")
def narrow(context):
    context.viewport = {"width": 320, "height": 640}


@given("a page at 200 % zoom")
def zoomed(context):
    context.viewport = {"width": 640, "height": 400}  # what 1280 by 800 come to


@when('I type "{text}" and send it with the keyboard')
def type_and_send(context, text):
    at_rest(context.page)
    expect(message_box(context.page)).to_be_focused()
    context.page.keyboard.type(text)
    context.page.keyboard.press("Enter")


def tab_to(page, found):
    for _ in range(60):
        if found.evaluate("e => e === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError("Tab does not come there")


@when('I move to "{name}" with Tab and type "{text}"')
def tab_and_type(context, name, text):
    page = context.page
    tab_to(page, page.get_by_role("spinbutton", name=name))
    page.keyboard.type(text)
    page.keyboard.press("Tab")


@when('I move to the chat "{words}" with Tab and the arrow keys and press Enter')
def tab_to_chat(context, words):
    page = context.page
    at_rest(page)
    wanted = looking.chats(page).get_by_role("link", name=words, exact=True)  # another scenario's chat may begin with the same words
    expect(wanted).to_be_visible()
    tab_to(page, looking.chats(page).locator("a[tabindex='0']"))
    for _ in range(20):
        if wanted.evaluate("e => e === document.activeElement"):
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


@then("the chat has temperature {temperature:g}")
def chat_temperature(context, temperature):
    path = f"/townhall/chats/{chat_id(context.page)}"
    looking.served(context, path, lambda chat: chat["settings"].get("sampler", {}).get("temperature"), temperature)
