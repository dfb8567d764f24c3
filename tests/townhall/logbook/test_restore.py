"""What a log gives back to the model: the talk as it stands, with the ids that were sampled where they can be believed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.townhall.fake import FakeLlama
from tests.townhall.logbook.test_log_syntax import HEAD
from tests.townhall.test_conversation import ask, chat_state
from townhall.logbook import log_syntax, restore
from townhall.logbook.log_reader import parse
from townhall.logbook.log_syntax import LogTurn

PATH = Path("talk.md")
UNDO, RESET, RESUME = (log_syntax.comment(kind) + "\n" for kind in ("undo", "reset", "resume"))


def said(question, answer, **facts):
    return log_syntax.turn("User", question, "user", {}) + log_syntax.turn("Stacy", answer, "reply", {"finish_reason": "stop"} | facts)


def spell(*parts):
    return (log_syntax.front_matter(HEAD) + "".join(parts)).encode()


def summary_checkpoint(data):
    return [(question.text, answer.text) for question, answer in restore.exchanges(restore.standing(parse(data, PATH).events))]


@pytest.mark.parametrize(
    "parts, left",
    [
        ([said("a", "1"), said("b", "2")], [("a", "1"), ("b", "2")]),
        ([said("a", "1"), said("b", "2"), UNDO], [("a", "1")]),
        ([said("a", "1"), said("b", "2"), UNDO, said("c", "3"), UNDO, said("d", "4")], [("a", "1"), ("d", "4")]),
        ([said("a", "1"), said("b", "2"), log_syntax.comment("undo", {"turns": 2}) + "\n", said("c", "3")], [("c", "3")]),
        ([said("a", "1"), RESET, said("b", "2"), RESUME, said("c", "3")], [("b", "2"), ("c", "3")]),
        ([said("a", "1"), RESET], []),
        ([said("a", "1"), RESET, UNDO], []),
        ([said("a", "1"), log_syntax.turn("User", "b", "user", {}), UNDO, RESUME, said("c", "3")], [("a", "1"), ("c", "3")]),
        ([said("a", "1"), log_syntax.turn("User", "b", "user", {}), said("c", "3")], [("a", "1"), ("c", "3")]),
        ([said("a", "1"), said("b", "", finish_reason="interrupted"), said("c", "")], [("a", "1"), ("c", "")]),
        (["## User\na\n\n## Stacy\nby hand\n"], [("a", "by hand")]),
    ],
)
def test_a_talk_is_what_stands_since_it_began_anew(parts, left):
    assert summary_checkpoint(spell(*parts)) == left


def test_a_comment_that_was_torn_takes_nothing_back_and_loses_nothing():
    data, undo = spell(said("a", "1"), said("b", "2")), UNDO.encode()
    for cut in range(len(undo)):
        taken = cut == len(undo) - 1  # its line's end alone may be missing
        for rest in (b"", b"\n" + said("c", "3").encode()):
            left = [("a", "1")] if taken else [("a", "1"), ("b", "2")]
            assert summary_checkpoint(data + undo[:cut] + rest) == left + [("c", "3")] * bool(rest), cut


@given(st.lists(st.sampled_from([said("a", "1"), said("b", ""), UNDO, RESET, RESUME, log_syntax.turn("User", "c", "user", {}), "junk\n"])))
def test_turns_that_stand_and_turns_that_were_taken_are_all_there_is(parts):
    log = parse(spell(*parts), PATH)
    assert sorted(turn.line for turn in (*log.turns, *log.taken)) == [event.line for event in log.events if isinstance(event, LogTurn)]
    since = restore.standing(log.events)
    assert since == log.turns[len(log.turns) - len(since) :] or RESET in parts


def test_answers_keep_their_ids_without_the_thoughts_before_them():
    llama = FakeLlama([["<think>", "hm", "</think>", "\n", "Pa", "ris", "."]])
    conversation = chat_state(llama)
    ask(conversation, "Where?")
    ids = [llama.tokenizer.id(token) for token in ("<think>", "hm", "</think>", "\n", "Pa", "ris", ".")]
    kept = parse(spell(restore.carried(conversation, "x")), PATH).turns[1]
    facts = {key: value for key, value in kept.facts.items() if key != "said_in"} | {"tokens": ids}
    logged = LogTurn("Stacy", "assistant", "Paris.", 1, facts)
    assert kept.facts["reasoning"] == "hm" and kept.facts["tokens"] == ids[4:]
    assert restore.sampled(conversation, kept) == ids[4:] == restore.sampled(conversation, logged)
    restore.recall(conversation, [(LogTurn("User", "user", "Where?", 1), logged)])
    assert conversation.exchanges[0].reply.reasoning == "hm"


def test_answers_keep_their_ids_and_others_are_not_believed():
    llama = FakeLlama([["Pa", "ris", "."]])
    conversation = chat_state(llama)
    ask(conversation, "Where?")
    turn = parse(spell(restore.carried(conversation, "x")), PATH).turns[1]
    ids = [llama.tokenizer.id(token) for token in ("Pa", "ris", ".")]
    assert restore.sampled(conversation, turn) == ids and turn.facts["said_in"] == "x"

    def changed(text=turn.text, **facts):
        return restore.sampled(conversation, LogTurn("Stacy", "assistant", text, 1, turn.facts | facts))

    assert changed() == ids and changed(text="Rome.") is None
    assert changed(identity={"model": "another"}) is None and changed(identity=3) is None
    for tokens in ([1 << 40], [-1], ["x"], None, [True], [*ids, 3], [*ids[:1], 2, *ids[1:]]):
        assert changed(tokens=tokens) is None, tokens  # 2 and 3 begin and end a turn
    assert changed(tokens=ids[1:], prefill="Pa") == ids and changed(tokens=ids, prefill=3) is None and changed(prefill="[EOS]") is None
    conversation.recall([("Where?", "Paris.")], [changed()])
    assert conversation.exchanges[0].reply.ids == (*ids, *conversation.prompt.close_ids)
