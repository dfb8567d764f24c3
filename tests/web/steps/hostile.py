"""What a page must not do with the words of strangers."""

import json
import re
import urllib.request

from behave import then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.hostile import TEXTS
from tests.web.looking import chat, conversation, messages
from townhall.logbook import log_syntax

NAME = "<img src=x onerror=alert(1)>"
ID = "20260101-000000-bbbbbb"
DANGEROUS = (
    "script, iframe, object, embed, style, link, form, video, audio, base, meta, img:not(.face), [onerror], [onload], "
    "[href^='javascript:' i], [href^='data:' i]"
)
# positions that a text gave itself; KaTeX's own stay within its formulas
PLACED = "all => all.filter(e => !e.closest('.katex') && e.style.position).length"
WIDTHS = """() => { const talk = document.querySelector('.talk');
  return [document.scrollingElement.scrollWidth - innerWidth, talk.scrollWidth - talk.clientWidth]; }"""
OUTSIDE = """() => { const talk = document.querySelector('.talk').getBoundingClientRect();
  return [...document.querySelectorAll('.talk .message')].filter(message => { const box = message.getBoundingClientRect();
    return box.left < talk.left - 1 || box.right > talk.right + 1; }).map(message => message.dataset.id); }"""


def a_chat(context, texts):
    """A log of these texts, as either side's words; they need not fit into a request."""
    turns = [log_syntax.turn(name, text, kind, {}) for text in texts for name, kind in (("User", "user"), ("Stacy", "reply"))]
    context.house.logs.mkdir(parents=True, exist_ok=True)
    head = f"---\ntownhall: 1\nid: {ID}\nuser: User\npersona: Stacy\nserved_as: stacy\n---\n\n"
    (context.house.logs / f"{ID}.md").write_text(head + "\n".join(turns), encoding="utf-8")
    context.page.on("dialog", lambda dialog: (context.faults.append(dialog.message), dialog.dismiss()))


@when("a chat holds every hostile text, from both sides")
def hold(context):
    assert len(TEXTS) >= 40
    a_chat(context, TEXTS)


@then("each of them is shown, and none of them ran, reached the network or broke the page")
def harmless(context):
    page = context.page
    page.goto(f"{context.house.page.url}/#/chat/{ID}")
    expect(messages(page)).to_have_count(2 * len(TEXTS))
    looking.in_place(page)
    assert page.title().endswith("· Townhall") and not context.faults, context.faults
    expect(conversation(page).locator(DANGEROUS)).to_have_count(0)
    assert conversation(page).locator("[style]").evaluate_all(PLACED) == 0
    assert max(page.evaluate(WIDTHS)) <= 0, page.evaluate(WIDTHS)
    assert not page.evaluate(OUTSIDE), page.evaluate(OUTSIDE)
    for text in ("over everything", "taken", "Show all 100,000 characters", "Show all 5,500,000 characters"):
        expect(conversation(page).get_by_text(text).first).to_be_attached()
    expect(looking.message_box(page)).to_be_in_viewport()
    hosts = re.compile(r"example\.org")
    assert not [url for url in context.foreign if hosts.search(url)] and not [line for line in context.outside.asked if hosts.search(line)]


@when('a chat holds "{name}" and is called so, in a folder and with a tag of that name')
def named(context, name):
    a_chat(context, [name])
    body = json.dumps({"title": name, "folder": name, "tags": [name]}).encode()
    url, headers = f"{context.house.page.url}/townhall/chats/{ID}", {"Content-Type": "application/json"}
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    direct.open(urllib.request.Request(url, body, headers, method="PATCH"), timeout=60).close()


@then("the list, the search and the branches show it as it stands")
def shown_as_it_stands(context):
    page = context.page
    expect(chat(page, NAME)).to_be_visible()
    expect(looking.chats(page).get_by_text(NAME, exact=True)).to_have_count(2)  # the folder and the chat
    chat(page, NAME).click()
    expect(messages(page)).to_have_count(2)
    looking.button(page, "Branches").click()
    expect(page.get_by_role("dialog").get_by_text(NAME)).to_have_count(2)
    page.keyboard.press("Escape")
    page.evaluate("location.hash = '#/search?q=onerror'")
    expect(page.locator(".hits li")).to_have_count(2)
    assert not context.faults, context.faults
    expect(page.locator("img:not(.face, .brand img)")).to_have_count(0)
