"""Swipes, branches, edits, the author's note: what their commands do to the talk, to what the model is shown, and to the log."""

import json

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from tests.townhall.cli.test_commands import kept, pool, townhall, turn  # noqa: F401  (two of them are fixtures)
from townhall.cli import commands
from townhall.cli.completer import SlashCompleter
from townhall.errors import CommandError, ContextError, ModelError
from townhall.logbook.log_reader import read_log


def shown(desk, *lines):
    """What a command says."""
    return desk.type(*lines)[2]


def test_a_retry_keeps_the_former_reply_as_a_swipe(pool):  # noqa: F811
    mine = pool()
    mine.type("Hi", "/retry", "/retry")
    assert shown(mine, "/swipe") == ["  1 One.", "  2 Two.", "* 3 Three."]
    assert shown(mine, "/swipe 1") == [f"{mine.chat_state.persona.name}: One."]
    assert mine.said == kept(mine.log()) == [("Hi", "One.")]
    mine.type("Ho")
    assert mine.prompt() == turn("Hi", "One.") + turn("Ho")
    code, _, err = mine.type("/swipe 9", "/swipe x")
    assert code == 2 and all("takes a number from 1 to 1" in line for line in err)


def test_a_retry_that_fails_leaves_the_former_reply(pool):  # noqa: F811
    mine = pool("One.", [ModelError("the model fell over")], "Two.")
    code, _, _ = mine.type("Hi", "/retry")
    assert code == 2 and mine.said == kept(mine.log()) == [("Hi", "One.")]
    mine.type("Ho")
    assert mine.prompt() == turn("Hi", "One.") + turn("Ho")


def test_the_last_reply_is_carried_on_in_its_place(pool):  # noqa: F811
    mine = pool("One", " two.", " four.", "Five.")
    assert mine.type("Hi", "/continue", "/continue three")[1] == ["One", "One two.", "One two. three four."]
    assert mine.said == kept(mine.log()) == [("Hi", "One two. three four.")]
    assert mine.prompt(1) == turn("Hi") + "One" and mine.prompt(2) == turn("Hi") + "One two. three"
    assert mine.chat_state.conversation.last.cached_tokens >= len(mine.llama.prompts[1]) - 1
    mine.type("Ho")
    assert mine.prompt() == turn("Hi", "One two. three four.") + turn("Ho")
    assert "no reply to carry on" in shown(mine, "/reset", "/continue")[-1]


def test_a_continuation_that_is_interrupted_before_its_first_word_leaves_the_reply(pool):  # noqa: F811
    mine = pool("One.", " two.")
    mine.type("Hi")
    pieces = mine.chat_state.carry_on()
    pieces.close()  # before anything was read
    mine.chat_state.failed()
    assert mine.said == kept(mine.log()) == [("Hi", "One.")]


def test_any_message_is_edited_and_what_follows_stays(pool):  # noqa: F811
    mine = pool()
    mine.type("Hi", "Ho", "/edit #1 Hello", "/edit #2 Uno.")
    assert mine.said == kept(mine.log()) == [("Hello", "Uno."), ("Ho", "Two.")]
    mine.type("Ha")
    assert mine.prompt() == turn("Hello", "Uno.") + turn("Ho", "Two.") + turn("Ha")
    code, _, err = mine.type("/edit #99 x", "/edit #1", "/edit #x y")
    assert code == 2 and "there is no message #99" in err[0] and "takes the new text" in err[1] and "the number of a message" in err[2]


def test_messages_are_deleted_alone_or_with_all_below(pool):  # noqa: F811
    mine = pool()
    mine.type("a", "b", "c", "/delete 2")
    assert mine.said == [("a\n\nb", "Two."), ("c", "Three.")]
    mine.type("d")
    assert mine.prompt() == turn("a\n\nb", "Two.") + turn("c", "Three.") + turn("d")
    mine.type("/delete #5 below")
    assert mine.said == [("a\n\nb", "Two.")] and [t.text for t in mine.log().turns] == ["a", "b", "Two."]
    assert mine.type("/delete 5")[0] == 2 and mine.type("/delete 1 above")[0] == 2


def ratings(log):
    return {node.id: node.rating for node in log.tree if node.rating}


def test_replies_are_rated(pool):  # noqa: F811
    mine = pool()
    assert shown(mine, "Hi", "/rate good") == ["reply #2, 'One.', is rated good now"]
    mine.type("Ho", "/retry", "/rate bad", "/rate good #4")
    assert ratings(mine.log()) == {2: "good", 4: "good", 5: "bad"} and not mine.log().damages
    assert shown(mine, "/swipe") == ["  1 Two. (rated good)", "* 2 Three. (rated bad)"]
    assert "Stacy (2 of 2): Three. (rated bad)" in shown(mine, "/messages 1")[0]
    assert shown(mine, "/rate off") == ["reply #5, 'Three.', has no rating now"] and ratings(mine.log()) == {2: "good", 4: "good"}
    mine.type("/edit #2 Uno.")
    assert ratings(mine.log()) == {4: "good"} and mine.said == kept(mine.log()) == [("Hi", "Uno."), ("Ho", "Three.")]
    mine.type("Ha")
    assert mine.prompt() == turn("Hi", "Uno.") + turn("Ho", "Three.") + turn("Ha")


@pytest.mark.parametrize(
    "line, fault",
    [
        ("/rate", "takes good, bad or off"),
        ("/rate fine", "not 'fine'"),
        ("/rate #2", "takes good, bad or off"),
        ("/rate good two", "/rate takes the number of a message"),
        ("/rate good 9", "there is no message #9"),
        ("/rate good #1", "message #1 is no reply"),
    ],
)
def test_what_cannot_be_rated_is_said_in_one_sentence(pool, line, fault):  # noqa: F811
    mine = pool()
    mine.type("Hi")
    before = mine.chat_state.keeper.path.read_bytes()
    code, _, err = mine.type(line)
    assert code == 2 and len(err) == 1 and fault in err[0] and mine.chat_state.keeper.path.read_bytes() == before


def test_there_is_something_to_rate_only_after_a_reply(pool):  # noqa: F811
    with pytest.raises(CommandError, match="no reply to rate yet"):
        commands.run(pool().chat_state, "/rate good")


def test_ratings_go_along_into_another_log(pool, tmp_path):  # noqa: F811
    mine = pool()
    mine.type("Hi", "Ho", "/rate good #2", "/rate bad", f"/save {tmp_path / 'saved.md'}")
    first = mine.chat_state.keeper.path
    assert ratings(read_log(tmp_path / "saved.md")) == {2: "good", 4: "bad"}
    mine.type("/branch On", "/rate off #2")
    assert ratings(mine.log()) == {4: "bad"} and ratings(read_log(first)) == {2: "good", 4: "bad"}
    mine.type("/reset", "Hu", f"/load {tmp_path / 'saved.md'}", "Ha")
    assert mine.chat_state.keeper.path != first and ratings(mine.log()) == {2: "good", 4: "bad"}


def test_what_is_rated_without_a_log_is_in_the_log_that_is_saved(pool, tmp_path):  # noqa: F811
    mine = pool(log=False)
    mine.type("Hi", "/rate good", f"/save {tmp_path / 'saved.md'}")
    assert ratings(read_log(tmp_path / "saved.md")) == {2: "good"}


def test_the_words_of_a_rating_are_completed():
    def completed(text):
        return [found.text for found in SlashCompleter(commands.completions()).get_completions(Document(text), CompleteEvent())]

    assert completed("/rat") == ["/rate"] and completed("/rate ") == ["good", "bad", "off"] and completed("/rate b") == ["bad"]


def test_the_talk_parts_and_leads_back(pool):  # noqa: F811
    mine = pool()
    mine.type("a", "b", "/branch 2", "c")
    assert mine.prompt() == turn("a", "One.") + turn("c") and mine.said == kept(mine.log()) == [("a", "One."), ("c", "Three.")]
    assert shown(mine, "/branches") == ["  #3 b … 4 messages", "* #6 Three. … 4 messages"]
    mine.type("/branches 3", "d")
    assert mine.prompt() == turn("a", "One.") + turn("b", "Two.") + turn("d")
    assert shown(mine, "/messages 2") == ["#7 User: d", "#8 Stacy: Four."]
    assert "(1 of 2)" in shown(mine, "/messages")[2]
    mine.type("/branch #3", "/retry")
    assert mine.said[-1] == ("b", "Five.") and len(mine.log().tree.swipes(mine.log().tree.nodes[4])) == 2


def test_a_note_stands_at_its_depth_until_it_is_taken_away(pool):  # noqa: F811
    mine = pool()
    mine.type("a", "/note 1 be brief", "b")
    assert mine.prompt() == turn("a", "One.") + turn("[be brief]\n\nb") and shown(mine, "/note") == ["at depth 1: be brief"]
    mine.type("/branch On", "/note 0 be loud", "c")
    assert mine.prompt() == turn("a", "One.") + turn("b", "Two.") + turn("c\n\n[be loud]")
    mine.type("/note off", "d")
    assert "[be" not in mine.prompt() and "no author's note" in shown(mine, "/note")[0]


def test_a_note_is_there_again_when_the_talk_is_gone_on_with(townhall, tmp_path):  # noqa: F811
    path = tmp_path / "a.md"
    townhall("chat", "--model", "fake:echo", "--log-to", path, stdin=["Hi", "/note 0 be brief", "Ho", "/retry", "/swipe 1", "/continue"])
    assert "[be brief]" in townhall("chat", "--resume", path, stdin=["Ha"])[1]
    code, out, err = townhall("replay", path)
    assert code == 0 and out == "5 replies, 29 tokens: all the same\n", (out, err)


def test_the_model_writes_the_users_line(pool):  # noqa: F811
    mine = pool("One.", " you do?")
    mine.type("Hi")
    assert mine.type("/impersonate What would")[1] == ["What would you do?"]
    assert mine.prompt() == turn("Hi", "One.") + "<|im_start|>user\nWhat would" and mine.said == kept(mine.log()) == [("Hi", "One.")]


def test_words_are_found_in_all_talks(pool):  # noqa: F811
    mine = pool("The moon is far.")
    mine.type("How far?", "/branch Other")
    found = shown(mine, "/search MOON far")
    assert len(found) == 3 and all("The moon is far." in line for line in found[:2]) and found[2].startswith("2 messages")
    assert shown(mine, "/search sun") == ["no message holds all of these words"] and mine.type("/search")[0] == 2


def test_greetings_are_listed_and_another_begins_anew(pool, tmp_path):  # noqa: F811
    card = tmp_path / "ada.json"
    data = {"name": "Ada", "description": "A poet.", "first_mes": "Hail!", "alternate_greetings": ["Ho!"]}
    card.write_text(json.dumps({"spec": "chara_card_v2", "spec_version": "2.0", "data": data}))
    mine = pool(personality=str(card))
    assert shown(mine, "/greeting") == ["* 1 Hail!", "  2 Ho!"]
    mine.type("/greeting 2")
    assert mine.chat_state.persona.greeting == "Ho!" and mine.type("/greeting 3")[0] == 2


def test_without_a_log_swipes_and_branches_work_as_well(pool):  # noqa: F811
    mine = pool(log=False)
    mine.type("a", "/retry", "/swipe 1", "/continue", "b", "/branch 3", "/retry", "/edit #1 A", "/note be brief", "c")
    assert not mine.folder.exists()
    assert mine.said[0][0] == "A" and mine.said[-1][0] == "c" and "[be brief]" in mine.prompt()


def test_what_a_strategy_does_not_take_changes_nothing(pool):  # noqa: F811
    mine = pool(*["word " * 60] * 9, context="stop", max_context=512)
    mine.type("a", "b")
    before, said = mine.chat_state.keeper.path.read_bytes(), mine.said
    with pytest.raises(ContextError):
        commands.run(mine.chat_state, "/edit #1 " + "word " * 600)
    assert mine.said == said and mine.chat_state.keeper.path.read_bytes() == before


def test_the_log_of_every_command_replays(townhall, tmp_path):  # noqa: F811
    lines = [
        "Hi there",
        "/rate bad",
        "/retry",
        "/rate good #2",
        "/swipe 1",
        "How are you?",
        "/continue",
        "/edit #2 Hello",
        "/branch 2",
        "And now?",
        "/branches 4",
        "/delete 1",
    ]
    lines += ["Then", "/retry", "/undo", "/edit Something else", "/greeting 1", "Anew", "/retry"]
    townhall("chat", "--model", "fake:echo", "--log-to", tmp_path, stdin=lines)
    logs = sorted(tmp_path.glob("*.md"))
    assert len(logs) == 2
    for log in logs:
        code, out, err = townhall("replay", log)
        assert code == 0 and not read_log(log).damages, (log.read_text(), out, err)


def test_numbers_are_asked_for_in_one_sentence(pool):  # noqa: F811
    mine = pool()
    for line in ("/delete", "/delete x", "/branches x", "/messages x", "/greeting x", "/swipe"):
        with pytest.raises(CommandError):
            commands.run(mine.chat_state, line)
