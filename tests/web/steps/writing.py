"""The message box, help, languages, and what words are made of."""

import re

import yaml
from behave import given, step, then, when
from playwright.sync_api import expect

from tests.web import looking
from tests.web.looking import at_rest, button, conversation, kept, message_box, messages

RICH = """<think>They want to see everything.</think>Here it is: $E = m c^2$.

```python
def double(n: int) -> int:
    return 2 * n  # twice
```
"""


@when('I try "{title}"')
def try_it(context, title):
    context.page.get_by_role("button", name=re.compile(f"^{title}")).click()


@when("the draft is kept")
def draft_kept(context):
    """By the server, which has it a moment after the last key."""
    kept(context.page)
    wanted = message_box(context.page).input_value()
    looking.served(context, f"/townhall/chats/{looking.chat_id(context.page)}/draft", lambda draft: draft["text"], wanted)


@step("the page is loaded again")
def again(context):
    context.page.reload()


@then("I see the tokens of the prompt and of the window")
def prompt_tokens(context):
    expect(context.page.get_by_text(re.compile(r"5 tokens · \d+ / 1024"))).to_be_visible()


@when("I press the key ? outside of the message box")
def question_mark(context):
    at_rest(context.page)
    messages(context.page).last.focus()
    context.page.keyboard.press("?")


@when("I close the dialog with Escape")
def close_dialog(context):
    context.page.keyboard.press("Escape")


@then('I do not see "{text}"')
def see_not(context, text):
    expect(context.page.get_by_text(text)).to_have_count(0)


@given("I speak {locale:S}")
def speak(context, locale):
    context.locale = locale


@then("the page is written in German")
def german(context):
    expect(context.page.locator("html")).to_have_attribute("lang", "de")
    for name in ("Neuer Chat", "Senden"):
        expect(button(context.page, name)).to_be_visible()


@when("I switch the language to {name:w}")
def language(context, name):
    context.page.get_by_role("link", name="Preferences").click()
    context.page.get_by_role("combobox", name="Language").select_option(label=name)


@when("I have Ctrl+Enter send")
def ctrl_enter(context):
    context.page.get_by_role("link", name="Preferences").click()
    context.page.get_by_role("combobox", name="Send with").select_option(label="Ctrl + Enter (Enter begins a line)")
    button(context.page, "New chat").click()


@then("I have said nothing")
def said_nothing(context):
    expect(message_box(context.page)).to_have_value("one line\nanother line\n")
    expect(context.page).not_to_have_url(re.compile("#/chat/."))


@given("the page is open with a model that thinks, computes and programs")
def open_rich(context):
    context.visit(context.new_house(yaml.safe_dump({"replies": [RICH]}), own=True))


@then("the thoughts are folded, and can be read")
def thoughts(context):
    at_rest(context.page)
    text = context.page.get_by_text("They want to see everything.")
    expect(text).to_have_count(0)
    context.page.get_by_text("Thoughts", exact=True).click()
    expect(text).to_be_visible()


@then("the formula is set")
def formula(context):
    expect(conversation(context.page).locator(".katex math")).to_have_count(1)


@then("the code has colours, and can be copied")
def code(context):
    expect(conversation(context.page).locator("pre .hljs-keyword").first).to_have_text("def")
    context.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button(context.page, "Copy code").click()
    expect(button(context.page, "Copied")).to_be_visible()
    assert context.page.evaluate("navigator.clipboard.readText()") == "def double(n: int) -> int:\n    return 2 * n  # twice"


def more(page, action):
    at_rest(page)
    button(page, "More ways to send").click()
    page.get_by_role("menuitem", name=action, exact=True).click()


@when("I have my next message written")
def impersonate(context):
    more(context.page, "Write my next message")


@when('I write "{text}" and add it without a reply')
def without_reply(context, text):
    message_box(context.page).fill(text)
    more(context.page, "Add without a reply")


@when("I add a text file and a picture to my message")
def add_files(context):
    page = context.page
    at_rest(page)
    button(page, "More ways to send").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("menuitem", name="Add the text of files …").click()
    chooser.value.set_files(
        [
            {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"Use ``` for code.\nBring bread."},
            {"name": "beach.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\0\0"},
        ]
    )


@then("the message box holds the text under its name")
def file_held(context):
    expect(message_box(context.page)).to_have_value("notes.txt:\n````\nUse ``` for code.\nBring bread.\n````\n")
