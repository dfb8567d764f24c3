"""Libraries that a chat names for itself: their passages are in its prompts and in the receipts of its replies."""

import pytest

from tests.townhall.chats.test_chat_replay import all_the_same, echoing
from townhall.cli.main import main
from townhall.library.indexer import update
from townhall.library.libraries import Library, remove_library

pytestmark = pytest.mark.slow

REST = "Let the dough rest overnight in the fridge."


@pytest.fixture
def kitchen(tmp_path):
    """make(): the library kitchen."""

    def make(text=f"# Bread\n\n{REST}\n"):
        (tmp_path / "bread.md").write_text(text)
        with Library.open("kitchen", create=True) as library:
            update(library, [tmp_path / "bread.md"])

    make()
    return make


def test_passages_stand_in_the_prompt_and_in_the_receipt(chats, kitchen):
    chat = chats()
    chat.say("How long does the dough rest?")
    assert REST not in chat.prompt()
    changed = chat.call("PATCH", settings={"libraries": ["kitchen"]})
    assert changed["settings"]["libraries"] == ["kitchen"]
    message = chat.say("And how long does the dough rest?")["message"]
    assert REST in chat.prompt()
    (part,) = [part for part in message["receipt"]["parts"] if part["name"] == "library"]
    (item,) = part["items"]
    assert (item["library"], item["first_line"], item["last_line"]) == ("kitchen", 3, 3) and item["file"].endswith("bread.md")
    assert "inserted" in chat.log().turns[-1].facts
    chat.call("PATCH", settings={"libraries": []})
    chat.say("How long does the dough rest, again?")
    assert chat.prompt().count(REST) == 0  # a passage stands in one prompt, and not in the history


def test_a_library_that_is_gone_is_named_and_one_made_anew_is_read_anew(chats, kitchen):
    chat = chats(fields={"settings": {"libraries": ["Kitchen"]}})
    chat.say("How long does the dough rest?")
    assert REST in chat.prompt()
    remove_library("kitchen")
    refused = chat.call("POST", "/messages", 400, text="And the dough?")["error"]
    assert refused["code"] == "library_not_found" and "kitchen" in refused["message"]
    assert chat.call("PATCH", "", 400, settings={"libraries": ["kitchen"]})["error"]["code"] == "library_not_found"
    kitchen("# Bread\n\nLet the dough rest for one hour.\n")
    chat.say("How long does the dough rest?")
    assert "one hour" in chat.prompt() and REST not in chat.prompt()


@pytest.mark.parametrize("libraries", [["../x"], ["none-such"], ["a"] * 9, "kitchen", [7]])
def test_what_is_no_library_is_refused(chats, kitchen, libraries):
    chat = chats()
    assert chat.call("PATCH", "", 400, settings={"libraries": libraries})["error"]["message"]
    assert chat.call("GET")["settings"].get("libraries") is None


def test_a_chat_with_libraries_repeats_itself_without_them(chats, kitchen, capfd):
    chat = echoing(chats)
    chat.say("How long does the dough rest?")
    chat.call("PATCH", settings={"libraries": ["kitchen"]})
    chat.say("And how long does the dough rest?")
    chat.call("PATCH", settings={"libraries": None})
    chat.say("Thanks")
    remove_library("kitchen")
    code = main(["replay", str(chat.path)])
    assert (code, capfd.readouterr().out) == (0, all_the_same(chat.path))
