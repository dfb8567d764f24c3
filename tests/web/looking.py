"""What a person sees, hears or reaches on the page: roles and names first, pixels where only they tell."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

NAMED = {
    "button", "textbox", "searchbox", "combobox", "slider", "spinbutton", "checkbox", "radio", "switch", "link",
    "image", "img", "tab", "menuitem", "option", "listbox", "radiogroup", "log", "dialog", "alertdialog",
}  # fmt: skip

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
FAINT = Path(__file__).with_name("contrast.js").read_text()
AXE = (Path(__file__).parent / "vendor" / "axe.js").read_text()
GRAVE = ("serious", "critical")
CHAT = re.compile(r"#/chat/([^?]+)")  # where a chat is open, its id


def message_box(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Message", exact=True)


def conversation(page: Page) -> Locator:
    return page.get_by_role("log", name="Conversation", exact=True)


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def aside(page: Page) -> None:
    """Open the side bar where it is folded away."""
    size = page.viewport_size
    if size and size["width"] <= 820 and not page.get_by_role("complementary", name="Chats and views").is_visible():
        page.get_by_role("button", name="Open the side bar", exact=True).click()


def chats(page: Page) -> Locator:
    """The list at the side."""
    return page.get_by_role("navigation", name="Chats", exact=True)


def chat(page: Page, words: str) -> Locator:
    """A chat of the list; its link has its name and nothing else."""
    return chats(page).get_by_role("link", name=words)


def messages(page: Page) -> Locator:
    """All that stand on the page, the oldest first."""
    return conversation(page).get_by_role("article")


def message(page: Page, words: str) -> Locator:
    """The newest message with these words."""
    return messages(page).filter(has_text=words).last


def choose_action(page: Page, words: str, action: str) -> None:
    """An action of a message, from its menu."""
    found = message(page, words)
    found.hover()
    found.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("menuitem", name=action, exact=True).click()


def at_rest(page: Page) -> None:
    """Wait until the reply that is being written, if there is one, is whole: only then may it be taken back, exported or answered."""
    expect(conversation(page)).to_have_attribute("aria-busy", "false")


def in_place(page: Page) -> None:
    """What has come to the page stands where it is to be drawn."""
    page.evaluate("() => new Promise(requestAnimationFrame)")


def say(page: Page, text: str) -> None:
    """Write it and send it, as somebody does who has heard the other one out."""
    at_rest(page)
    message_box(page).fill(text)
    button(page, "Send").click()


def chat_id(page: Page) -> str:
    """Of the chat that is open, or is being made."""
    page.wait_for_url(CHAT)
    found = CHAT.search(page.url)
    assert found, page.url
    return found[1]


def actions(page: Page, words: str) -> Locator:
    """The button that opens what can be done with a chat of the list."""
    return chats(page).get_by_role("listitem").filter(has=page.get_by_role("link", name=words)).get_by_role("button")


def with_chat(page: Page, words: str, what: str) -> None:
    """Open a chat's menu, and choose what is to be done with it."""
    at_rest(page)
    actions(page, words).click()
    page.get_by_role("menuitem", name=what, exact=True).click()


def settings(page: Page) -> None:
    """Open the drawer where it is not open."""
    handle = button(page, "Settings of this chat")
    if handle.get_attribute("aria-expanded") != "true":
        handle.click()
    expect(page.get_by_role("complementary", name="Settings of this chat")).to_be_visible()


def newest(context: Any) -> dict[str, Any]:
    """The newest message of the chat that is open, as the server has it."""
    at_rest(context.page)
    message: dict[str, Any] = context.house.asked(f"/townhall/chats/{chat_id(context.page)}")["messages"][-1]
    return message


def served(context: Any, path: str, read: Callable[[Any], Any], wanted: Any) -> None:
    """Wait until that is what `read` finds in what the server answers; what the page asks of it may still be on its way."""
    deadline = time.monotonic() + context.deadline / 1000
    while (found := read(context.house.asked(path))) != wanted:
        assert time.monotonic() < deadline, f"{path} has {found!r}, and {wanted!r} is expected"
        context.page.wait_for_timeout(100)  # the page goes on meanwhile


def kept(page: Page) -> None:
    """Wait until the address names the chat: from then on a reload, or another tab with that address, finds it."""
    expect(page).to_have_url(re.compile(r"#/chat/."))


def then(*texts: str) -> re.Pattern[str]:
    """These words, one after another, whatever stands between."""
    return re.compile(".*".join(re.escape(text) for text in texts), re.DOTALL)


def unnamed(page: Page) -> list[str]:
    """What a screen reader would call just "button" or "edit"."""
    session = page.context.new_cdp_session(page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    lacking = []
    for node in nodes:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in NAMED and not node.get("name", {}).get("value", "").strip():
            described = session_html(page, node.get("backendDOMNodeId"))
            lacking.append(f"{role}: {described}")
    return lacking


def violations(page: Page) -> list[str]:
    """What axe-core calls serious or critical, each with the first place where it is."""
    page.evaluate(AXE)
    found: list[dict[str, Any]] = page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        ".map(v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.map(n => n.html + ' | ' + n.failureSummary)}))"
    )
    return [f"{one['id']}: {one['help']}: {one['nodes'][0][:600]}" for one in found if one["impact"] in GRAVE]


def session_html(page: Page, node: int | None) -> str:
    """The beginning of a node's HTML, to find it by."""
    if node is None:
        return "?"
    session = page.context.new_cdp_session(page)
    session.send("DOM.getDocument", {"depth": 0})
    html: str = session.send("DOM.getOuterHTML", {"backendNodeId": node})["outerHTML"]
    session.detach()
    return html[:160]


def focus_shows(page: Page) -> bool:
    """Does the element with the focus look other than without it?"""
    box = page.evaluate(
        "() => { const e = document.activeElement, l = e.closest('label') || e; const b = l.getBoundingClientRect();"
        " return [b.x, b.y, b.width, b.height]; }"
    )
    size = page.viewport_size
    assert size
    x, y = max(0, box[0] - 8), max(0, box[1] - 8)
    clip = {"x": x, "y": y, "width": min(size["width"], box[0] + box[2] + 8) - x, "height": min(size["height"], box[1] + box[3] + 8) - y}
    if clip["width"] <= 0 or clip["height"] <= 0:
        return False  # somewhere off the screen
    shown = page.screenshot(clip=clip)  # type: ignore[arg-type]
    page.evaluate("() => { window.townhallFocus = document.activeElement; document.activeElement.blur(); }")
    plain = page.screenshot(clip=clip)  # type: ignore[arg-type]
    page.evaluate("() => window.townhallFocus.focus({preventScroll: true})")
    return shown != plain
