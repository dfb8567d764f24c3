"""What is done to a chat is in its log as it is done: read again, the log is the same chat."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from townhall.errors import LogError
from townhall.logbook import log_syntax
from townhall.logbook.chat_record import ChatFile, ChatRecord
from townhall.logbook.log_reader import parse, read_log

HEAD = {"id": "x", "user": "User", "persona": "Stacy"}
NAMES = {"user": "User", "assistant": "Stacy"}
TEXTS = st.text(max_size=12) | st.sampled_from(["## User", "<!-- undo -->", "\\## x", "a\n\nb", "\r", "-->", "---", "\0"])
OPERATIONS = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(["user", "assistant"]), TEXTS),
    st.tuples(st.sampled_from(["edit", "carry_on"]), st.integers(1, 8), TEXTS),
    st.tuples(st.sampled_from(["branch", "choose", "delete", "cut"]), st.integers(0, 8)),
    st.tuples(st.sampled_from(["undo", "reset"])),
    st.tuples(st.just("rate"), st.integers(1, 8), st.sampled_from(["good", "bad", None])),
    st.tuples(st.just("set"), st.dictionaries(st.sampled_from(["a", "b"]), st.none() | st.integers() | TEXTS, min_size=1)),
)


def do(record, operation):
    kind, *rest = operation
    node = record.tree.nodes.get(rest[0]) if rest and isinstance(rest[0], int) else None
    if kind == "say":
        record.say(*rest, {"at": "now"})
    elif kind == "set":
        record.set(*rest)
    elif kind in ("undo", "reset"):
        getattr(record, kind)()
    elif kind == "branch" and (not rest[0] or (node and not node.taken)):
        record.branch(rest[0])
    elif node and kind == "rate":
        record.rate(node, rest[1])
    elif node and not node.taken and kind == "edit":
        record.edit(node, rest[1])
    elif node and not node.taken and kind == "carry_on":
        record.carry_on(node, rest[1], {"tokens": [1]})
    elif node and not node.taken and kind in ("choose", "delete", "cut"):
        record.choose(node) if kind == "choose" else record.delete(node, below=kind == "cut")


def state(tree):
    """Everything about a tree but the lines of its file."""
    nodes = [
        (one.id, one.parent, one.turn.role, one.turn.text, one.turn.facts, one.edited, one.taken, one.rating) for one in tree.nodes.values()
    ]
    return nodes, [node.id for node in tree.path()], tree.settings, tree.next_id, [turn.id for turn in tree.turns()]


@given(st.lists(OPERATIONS, max_size=20))
def test_a_log_that_is_read_again_is_the_same_chat(operations):
    text = [log_syntax.front_matter(HEAD)]
    record = ChatRecord(NAMES, text.append)
    for operation in operations:
        do(record, operation)
    log = parse("".join(text).encode(errors="replace"), Path("talk.md"))
    assert not log.damages and state(log.tree) == state(record.tree)


def test_a_file_is_locked_for_the_time_of_an_operation_only(tmp_path):
    mine, theirs = ChatFile(tmp_path / "a.md", HEAD), None
    with mine.open() as record:
        record.say("user", "Hi", {})
        theirs = ChatFile(tmp_path / "a.md", {})
        with pytest.raises(LogError, match="being written by another"), theirs.open():
            pass
        with mine.open() as inner:  # as while a reply is written and the chat is renamed
            inner.rename("T")
        record.say("assistant", "Ho", {})
    assert theirs.follow()
    with theirs.open() as record:
        record.say("user", "Ha", {})
    assert [turn.text for turn in read_log(tmp_path / "a.md").turns] == ["Hi", "Ho", "Ha"]


def test_what_another_program_wrote_a_moment_ago_is_not_written_over(tmp_path):
    mine = ChatFile(tmp_path / "a.md", HEAD)
    with mine.open() as record:
        record.say("user", "Hi", {})
    theirs = ChatFile(tmp_path / "a.md", {})
    with theirs.open() as record:
        record.say("assistant", "Ho", {})
    with pytest.raises(LogError, match="a moment ago"), mine.open():
        pass
    assert mine.follow() and not mine.follow() and [node.id for node in mine.record.tree.path()] == [1, 2]
    (tmp_path / "a.md").unlink()
    with pytest.raises(LogError, match="not there any more"):
        mine.follow()


def test_what_is_done_before_the_file_is_there_is_written_with_what_comes_first(tmp_path):
    file = ChatFile(tmp_path / "a.md", HEAD)
    file.record.say("assistant", "Hail!", {"greeting": 0})
    assert not file.saved and not (tmp_path / "a.md").exists() and not file.follow()
    with file.open() as record:
        record.say("user", "Hi", {})
    assert file.saved and [turn.text for turn in read_log(tmp_path / "a.md").turns] == ["Hail!", "Hi"]
