"""A chat is its log: asked, answered, stopped, taken back, and never two at a time."""

import asyncio
import fcntl

import pytest

from townhall.errors import LogError
from townhall.fake.fake_model import ScriptedReply
from townhall.logbook import log_syntax
from townhall.logbook.log_reader import read_log
from townhall.web.chat_store import ChatStore
from townhall.web.client import Client, WebError
from townhall.web.sampling_controls import SamplingControls

pytestmark = pytest.mark.slow

PLAIN = SamplingControls(seed=3)


async def answered(chat, text, controls=PLAIN, **named):
    """Ask and wait for the end."""
    await chat.ask(text, controls, **named)
    async for _ in chat.changes():
        pass


def said(chat):
    """(question, answer) pairs, as the file has them."""
    return [(question.text, answer.text if answer else None) for question, answer in chat.exchanges()]


def test_an_answer_is_kept_as_a_log_that_townhall_log_reads(run, house, chat_store):
    chats = chat_store(house("About 384,000 km.").root)
    chat = chats.begin(chats.served_model("stacy"))
    run(answered(chat, "How far is the moon?"))
    log = read_log(chat.path)
    assert log.head["persona"] == "Stacy" and not log.damages
    assert [(turn.role, turn.text) for turn in log.turns] == [("user", "How far is the moon?"), ("assistant", "About 384,000 km.")]
    facts = log.turns[1].facts
    assert facts["finish_reason"] == "stop" and facts["asked"]["seed"] == 3 and facts["receipt"]["seeds"] == [3]
    assert facts["completion_tokens"] > 2


def test_the_model_hears_the_whole_talk(run, house, chat_store):
    server = house("First.", "Second.")
    chats = chat_store(server.root)
    chat = chats.begin(chats.served_model("stacy"))

    async def story():
        await answered(chat, "One?")
        await answered(chat, "Two?")

    run(story())
    facts = chat.exchanges()[-1][1].facts
    first = chat.exchanges()[0][1].facts
    assert facts["prompt_tokens"] > first["prompt_tokens"] and facts["receipt"]["dropped"] == []


def test_stopping_keeps_what_was_said_and_frees_the_slot(run, house, chat_store):
    server = house(ScriptedReply("word " * 400, pause=0.01))
    chats = chat_store(server.root)
    chat = chats.begin(chats.served_model("stacy"))

    async def story():
        await chat.ask("Go", PLAIN)
        async for _ in chat.changes():
            if chat.live and chat.live.text:
                break
        await chat.stop()

    run(story())
    (question, answer) = chat.exchanges()[0]
    assert answer.text.startswith("word") and answer.facts["finish_reason"] == "interrupted"
    assert answer.facts["receipt"]["window"] == 1024 and answer.facts["prompt_tokens"] > 0
    server.wait(lambda: server.service.health()["slots"]["active"] == 0)


def test_stopping_at_once_keeps_the_question_alone_and_frees_the_slot(run, house, chat_store):
    server = house(ScriptedReply("word " * 400, pause=0.01))
    chats = chat_store(server.root)
    chat = chats.begin(chats.served_model("stacy"))

    async def story():
        await chat.ask("Go", PLAIN)
        await chat.stop()

    run(story())
    assert said(chat) == [("Go", None)] and chat.live is None
    server.wait(lambda: server.service.health()["slots"]["active"] == 0)


def test_a_second_question_while_a_reply_is_written_is_told_and_changes_nothing(run, house, chat_store):
    chats = chat_store(house(ScriptedReply("a b c", pause=0.05)).root)
    chat = chats.begin(chats.served_model("stacy"))

    async def story():
        await chat.ask("One?", PLAIN)
        with pytest.raises(WebError, match="still being written"):
            await chat.ask("Two?", PLAIN)
        with pytest.raises(WebError, match="still being written"):
            chat.undo()
        async for _ in chat.changes():
            pass

    run(story())
    assert said(chat) == [("One?", "a b c")]


def test_two_questions_at_the_same_moment_are_one(run, house, chat_store):
    chats = chat_store(house(ScriptedReply("a b c", pause=0.02)).root)
    chat = chats.begin(chats.served_model("stacy"))

    async def story():
        outcomes = await asyncio.gather(chat.ask("One?", PLAIN), chat.ask("Two?", PLAIN), return_exceptions=True)
        async for _ in chat.changes():
            pass
        return outcomes

    outcomes = run(story())
    assert [type(outcome) for outcome in outcomes] == [type(None), WebError]
    assert said(chat) == [("One?", "a b c")]


def test_retrying_replaces_the_answer_and_undoing_gives_the_question_back(run, house, chat_store):
    chats = chat_store(house("First.", "Second.", "Third.").root)
    chat = chats.begin(chats.served_model("stacy"))

    async def story():
        await answered(chat, "One?")
        await answered(chat, "Two?")
        await answered(chat, "Two!", instead=True)

    run(story())
    assert said(chat) == [("One?", "First."), ("Two!", "Third.")]
    assert chat.undo() == "Two!" and said(chat) == [("One?", "First.")]
    assert chat.undo() == "One?" and said(chat) == [] and chat.undo() == ""
    assert [turn.text for turn in read_log(chat.path).taken] == ["Two?", "Second.", "Two!", "Third.", "One?", "First."]


def test_a_question_that_the_server_refuses_is_not_kept(run, house, chat_store):
    chats = chat_store(house(max_context=512).root)
    chat = chats.begin(chats.served_model("stacy"))
    run(answered(chat, "Fits."))
    with pytest.raises(WebError, match="does not fit into the window"):
        run(chat.ask("word " * 600, SamplingControls(context="stop"), instead=True))
    assert said(chat) == [("Fits.", "Fine.")] and chat.live is None


def test_a_server_that_is_gone_costs_neither_the_talk_nor_the_next_question(run, house, chat_store, tmp_path):
    chats = chat_store("http://127.0.0.1:9")
    chat = chats.begin(chats.served_model("stacy"))
    with pytest.raises(WebError, match="does not answer"):
        run(chat.ask("Anybody?", PLAIN))
    assert not chat.path.exists()
    chat._client = Client(house().root)
    run(answered(chat, "Anybody?"))
    assert said(chat) == [("Anybody?", "Fine.")]


def test_a_log_that_another_process_writes_is_told(run, house, chat_store):
    chats = chat_store(house().root)
    chat = chats.begin(chats.served_model("stacy"))
    run(answered(chat, "One?"))
    with chat.path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(LogError, match="another townhall"):
            run(chat.ask("Two?", PLAIN))
    run(answered(chat, "Two?"))
    assert said(chat) == [("One?", "Fine."), ("Two?", "Fine.")]


def test_what_another_program_wrote_is_seen_and_belongs_to_the_talk(run, house, chat_store):
    chats = chat_store(house().root)
    chat = chats.begin(chats.served_model("stacy"))
    run(answered(chat, "One?"))
    seen = chat.version
    with chat.path.open("a") as file:
        file.write("\n## User\nBy hand?\n\n## Stacy\nBy hand.\n")
    assert chat.version != seen and said(chat)[-1] == ("By hand?", "By hand.")


def test_a_log_in_which_the_user_has_a_name_goes_on_under_it(run, house, chat_store, tmp_path):
    chats = chat_store(house().root)
    (tmp_path / "logs").mkdir()
    begun = log_syntax.front_matter({"user": "Ada", "persona": "Stacy"}) + log_syntax.turn("Ada", "One?", "user", {})
    (tmp_path / "logs" / "ada.md").write_text(begun + log_syntax.turn("Stacy", "One.", "reply", {}))
    chat = chats.find("ada")
    run(answered(chat, "Two?"))
    log = read_log(chat.path)
    assert [(turn.name, turn.text) for turn in log.turns] == [("Ada", "One?"), ("Stacy", "One."), ("Ada", "Two?"), ("Stacy", "Fine.")]
    assert not log.damages


def test_a_disk_that_takes_nothing_costs_nobody_the_talk(run, house, chat_store, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    chats = ChatStore(blocked / "logs", Client(house("One.", "Two.").root), chat_store("http://127.0.0.1:9").served_models)
    chat = chats.begin(chats.served_models[0])
    run(answered(chat, "First?"))
    assert "not being kept" in chat.problem and said(chat) == [("First?", "One.")]
    blocked.unlink()
    run(answered(chat, "Second?"))
    assert "kept again" in chat.problem
    assert [turn.text for turn in read_log(chat.path).turns] == ["First?", "One.", "Second?", "Two."]


@pytest.mark.parametrize("brief, stoppable", [(0.0, True), (3600.0, False)])
def test_only_a_reply_that_takes_its_time_offers_its_end(run, house, chat_store, monkeypatch, brief, stoppable):
    monkeypatch.setattr("townhall.web.live_chat.BRIEF", brief)
    chats = chat_store(house(ScriptedReply("a b c d e", pause=0.05)).root)
    chat = chats.begin(chats.served_model("stacy"))
    seen = []

    async def story():
        await chat.ask("One?", PLAIN)
        async for _ in chat.changes():
            seen.append(chat.live.lasting)

    run(story())
    assert any(seen) == stoppable
