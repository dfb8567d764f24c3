"""The folder of chats: found, named, exported, deleted; and nothing outside of it."""

import json

import pytest

from tests.townhall.web.test_live_chat import PLAIN, answered
from townhall.fake.fake_model import ScriptedReply
from townhall.logbook.log_index import Index
from townhall.web.client import WebError

pytestmark = pytest.mark.slow


@pytest.fixture
def kept(run, house, chat_store):
    """A shelf with one chat in it, and that chat."""
    chats = chat_store(house("Far.").root)
    chat = chats.begin(chats.served_model("stacy"))
    run(answered(chat, "How far?"))
    return chats, chat


def test_a_folder_that_is_not_there_holds_nothing_and_is_made_with_the_first_turn(chat_store, tmp_path):
    assert chat_store("http://127.0.0.1:9").saved() == [] and not (tmp_path / "logs").exists()


def test_chats_are_listed_as_townhall_log_lists_them(kept):
    chats, chat = kept
    assert [(one.id, one.title, one.persona) for one in chats.saved()] == [(chat.id, "How far?", "Stacy")]
    chat.rename("The moon")
    assert [one.title for one in chats.saved()] == ["The moon"]
    assert [(entry.id, entry.title, entry.turns) for entry in Index(chats.folder).entries()] == [(chat.id, "The moon", 2)]


def test_a_chat_is_found_again_by_another_shelf_and_goes_on(run, kept, chat_store):
    chats, chat = kept
    again = chat_store(chats._client.root).find(chat.id)
    run(answered(again, "And back?"))
    assert len(chat.exchanges()) == 2 and again.served_model.id == "stacy"


def test_exports_hold_the_talk_and_no_path_of_this_machine(kept):
    chats, chat = kept
    assert "**User:** How far?" in chats.exported(chat.id, "md")
    text = chats.exported(chat.id, "json")
    assert json.loads(text)["turns"][1]["text"] == "Far." and str(chats.folder) not in text


def test_deleting_is_for_good_but_not_while_a_reply_is_written(run, house, chat_store):
    chats = chat_store(house(ScriptedReply("a b c", pause=0.05)).root)
    chat = chats.begin(chats.served_model("stacy"))

    async def story():
        await chat.ask("Go", PLAIN)
        with pytest.raises(WebError, match="still being written"):
            chats.delete(chat.id)
        await chat.stop()
        chats.delete(chat.id)

    run(story())
    assert not chat.path.exists() and chats.saved() == []
    with pytest.raises(WebError, match="not there any more"):
        chats.find(chat.id)


@pytest.mark.parametrize(
    "id", ["", ".", "..", "../secret", "a/../../secret", "secret\0", "/etc/passwd", "index.sqlite", "link", "..\\secret"]
)
def test_no_id_reaches_beyond_the_folder(kept, tmp_path, id):
    chats, _ = kept
    (tmp_path / "secret.md").write_text("## User\nsecret\n")
    (chats.folder / "link.md").symlink_to(tmp_path / "secret.md")
    for reach in (chats.find, chats.delete, lambda id: chats.exported(id, "md")):
        with pytest.raises(WebError, match="not there any more"):
            reach(id)
    assert (tmp_path / "secret.md").exists()


def test_a_chat_with_somebody_whom_the_server_does_not_know_is_told(kept):
    chats, chat = kept
    other = chats.folder / "20260101-000000-abcdef.md"
    other.write_text(chat.path.read_text().replace("Stacy", "Nobody"))
    with pytest.raises(WebError, match="was with Nobody"):
        chats.find(other.stem)
