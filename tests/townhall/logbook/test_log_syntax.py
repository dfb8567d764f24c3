"""What is written is read back exactly; whatever is torn off or damaged, the rest stands."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from townhall.errors import LogError
from townhall.logbook import log_syntax
from townhall.logbook.log_reader import parse, read_log

HEAD = {"id": "20260101-000000-abcdef", "user": "User", "persona": "Stacy", "settings": {"temperature": 0.3, "eos": []}}
PATH = Path("talk.md")


def spell(*turns, head=HEAD):
    """A log of (role, text) pairs."""
    names = {"user": "User", "reply": "Stacy"}
    return (
        log_syntax.front_matter(head) + "".join(log_syntax.turn(names[kind], text, kind, {"n": n}) for n, (kind, text) in enumerate(turns))
    ).encode()


TALK = [("user", "How far is the moon?"), ("reply", "Far.\n\nVery far – käse 🧀."), ("user", "And the sun?"), ("reply", "Farther.")]
LOG = spell(*TALK)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hi",
        "a\n\nb",
        "\nlead",
        "trail\n\n",
        "## User",
        "\\## Stacy",
        "\\\\<!-- x",
        "a\n<!-- user -->\n---\nb",
        "  ## User",
        "\r",
        "a\r\nb",
        "---",
    ],
)
def test_every_text_comes_back_as_it_was_said(text):
    log = parse(spell(("user", text), ("reply", text), ("user", "next")), PATH)
    assert [turn.text for turn in log.turns] == [text, text, "next"] and not log.damages
    assert [turn.role for turn in log.turns] == ["user", "assistant", "user"] and [turn.facts["n"] for turn in log.turns] == [0, 1, 2]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))
def test_any_texts_at_all_come_back(texts):
    log = parse(spell(*[("user", text) for text in texts]), PATH)
    assert [turn.text for turn in log.turns] == texts and not log.damages and log.head["id"] == HEAD["id"]


def test_facts_cannot_end_their_comment():
    text = log_syntax.turn("Stacy", "x", "reply", {"device": "--> ## User\n<!-- user -->"})
    (turn,) = parse((log_syntax.front_matter(HEAD) + text).encode(), PATH).turns
    assert turn.facts == {"device": "--> ## User\n<!-- user -->"}


def test_a_log_torn_at_any_byte_keeps_every_turn_that_was_whole():
    whole = parse(LOG, PATH)
    ends = [len(spell(*TALK[:n])) for n in range(len(TALK) + 1)]
    for cut in range(len(LOG) + 1):
        log = parse(LOG[:cut], PATH)
        finished = sum(cut >= end - 1 for end in ends[1:])  # the last newline may be missing
        assert list(log.turns[:finished]) == whole.turns[:finished], cut
        assert all(turn.facts is None for turn in log.turns[finished:]), cut
        if cut >= ends[0]:
            assert log.head == whole.head


def test_what_is_appended_after_a_tear_is_read():
    for cut in range(len(spell()), len(LOG)):
        log = parse(LOG[:cut] + b"\n" + log_syntax.turn("User", "Still there?", "user", {}).encode(), PATH)
        assert log.turns[-1].text == "Still there?" and log.turns[-1].facts == {}


@pytest.mark.parametrize("n", range(len(TALK)))
@pytest.mark.parametrize("junk, reason", [(b"\xff\xfe", "UTF-8"), (b"\0" * 40, "zero bytes")])
def test_a_damaged_turn_stands_aside_and_the_rest_is_shown(n, junk, reason):
    start, end = len(spell(*TALK[:n])), len(spell(*TALK[: n + 1]))
    at = LOG.index(TALK[n][1].split()[0].encode(), start)
    log = parse(LOG[: at + 2] + junk + LOG[at + 2 :], PATH)
    assert [turn.text for turn in log.turns] == [text for m, (_, text) in enumerate(TALK) if m != n]
    (damage,) = log.damages
    assert reason in damage.reason and junk in damage.raw and at < end
    assert damage.line == LOG[:at].count(b"\n") + (1 if reason == "UTF-8" else 0)


def test_a_damaged_comment_costs_its_facts_only():
    log = parse(LOG.replace(b'{"n": 1}', b'{"n": 1'), PATH)
    assert [turn.text for turn in log.turns][:1] == [TALK[0][1]] and log.turns[0].facts == {"n": 0}
    log = parse(LOG.replace(b'{"n": 1}', b"{n: 1}"), PATH)
    assert [turn.text for turn in log.turns] == [text for _, text in TALK] and log.turns[1].facts is None
    assert "not readable" in log.damages[0].reason


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"---\n",
        b"---\nid: [\n---\n",
        b"---\n- a\n---\n",
        b"---\na: &a [1]\nb: [*a, *a]\n---\n",
        b"---\nid: !!python/name:os.system\n---\n",
        b"--\nid: 1\n---\n",
        b'---\nid: "\\ud800"\n---\n',
    ],
)
def test_without_front_matter_the_turns_are_there(head):
    body = LOG[len(spell()) :]
    log = parse(head + body, PATH)
    assert [(turn.role, turn.text) for turn in log.turns] == [("user" if kind == "user" else "assistant", text) for kind, text in TALK]
    assert log.head == {} and log.damages and log.id == "talk"


def test_a_person_may_write_turns_and_remarks_and_save_with_crlf():
    text = (
        "---\nuser: Tom\npersona: Ada\n---\n\n## Tom\nHi.\n\n<!-- I was tired. -->\n## Ada\nHello.\n## Notes\nare words\n\n\n## Tom\nBye.\n"
    )
    for data in (text.encode(), text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + text.encode()):
        log = parse(data, PATH)
        assert [(turn.role, turn.text) for turn in log.turns] == [
            ("user", "Hi."),
            ("assistant", "Hello.\n## Notes\nare words"),
            ("user", "Bye."),
        ]
        assert not log.damages


def test_a_reset_is_told_by_the_turn_after_it():
    data = spell(*TALK[:2]) + (log_syntax.comment("reset") + "\n").encode() + log_syntax.turn("User", "Hi", "user", {}).encode()
    assert [turn.after_reset for turn in parse(data, PATH).turns] == [False, False, True]


def test_text_that_nobody_said_is_told(tmp_path):
    log = parse(spell(*TALK[:2]) + b"stray\n" + log_syntax.turn("User", "Hi", "user", {}).encode(), PATH)
    assert [damage.raw for damage in log.damages] == [b"stray"] and len(log.turns) == 3


def test_what_is_no_file_or_too_large_is_refused(tmp_path, monkeypatch):
    with pytest.raises(LogError, match="is not a file"):
        read_log(tmp_path)
    monkeypatch.setattr("townhall.logbook.log_reader.MAX_BYTES", 10)
    (tmp_path / "a.md").write_bytes(LOG)
    with pytest.raises(LogError, match="larger than"):
        read_log(tmp_path / "a.md")


@given(st.binary(max_size=300))
def test_no_bytes_at_all_are_too_strange_to_read(data):
    parse(data, PATH)
    parse(LOG + data, PATH)


@pytest.mark.parametrize(
    "line", ["## a" + " " * 10**6 + "b", "## " + " " * 10**6, "<!-- user " + "{} -->" * 10**5 + "x", "\\" * 10**6, "<!--" * 10**5]
)
def test_no_line_takes_longer_the_longer_it_is_than_it_must(line):
    """Some expressions would go through these lines a million times; the suite's time limit would tell."""
    assert len(parse(spell(*TALK) + line.encode() + log_syntax.turn("User", line, "user", {}).encode(), PATH).turns) == 5


def test_what_was_taken_back_stays_in_the_file_and_is_no_turn_any_more():
    head = log_syntax.front_matter({"id": "x", "user": "User", "persona": "Stacy"})
    said = [log_syntax.turn("User", "one", "user", {}), log_syntax.turn("Stacy", "1", "reply", {})]
    again = [log_syntax.turn("User", "two", "user", {}), log_syntax.turn("Stacy", "2", "reply", {})]
    undone = log_syntax.comment("undo", {"turns": 1}) + "\n"
    log = parse("".join([head, *said, *again, undone, *again, undone]).encode(), Path("x.md"))
    assert [turn.text for turn in log.turns] == ["one", "1"]
    assert [turn.text for turn in log.taken] == ["two", "2", "two", "2"]
    assert not log.damages


def test_taking_back_the_first_turn_after_a_reset_leaves_the_reset():
    said = log_syntax.turn("User", "one", "user", {}) + log_syntax.comment("reset") + "\n" + log_syntax.turn("User", "two", "user", {})
    front, last = log_syntax.front_matter({"user": "User"}), log_syntax.turn("User", "three", "user", {})
    log = parse(
        (front + said + log_syntax.comment("undo") + last).encode(),
        Path("x.md"),
    )
    assert [(turn.text, turn.after_reset) for turn in log.turns] == [("one", False), ("three", True)]


def test_the_last_title_counts():
    marks = "".join(log_syntax.comment("title", {"title": title}) + "\n" for title in ("Moon", "Moon --> and\nstars"))
    log = parse((log_syntax.front_matter({"user": "User"}) + marks + log_syntax.turn("User", "one", "user", {})).encode(), Path("x.md"))
    assert (log.title, [turn.text for turn in log.turns]) == ("Moon --> and\nstars", ["one"])
