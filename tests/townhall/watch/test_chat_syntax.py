"""A conversation as people write it by hand."""

import pytest

from townhall.watch.lock import WatchError
from townhall.watch.tasks import ChatSyntax, delimiter, front_matter, refuse_open_front_matter

LAYOUT = ChatSyntax("User", "Stacy")


def said(text, layout=LAYOUT):
    return [(turn.role, turn.text) for turn in layout.turns(text)]


@pytest.mark.parametrize(
    "text, turns",
    [
        ("", []),
        ("Just words", []),
        ("User: Hi", [("user", "Hi")]),
        ("User:Hi\n", [("user", "Hi")]),
        ("User:\n  Hi\nthere\n\n", [("user", "  Hi\nthere")]),
        ("User: Hi\n\nStacy: Ho\n\nUser: ", [("user", "Hi"), ("assistant", "Ho"), ("user", "")]),
        ("User: Hi\nStacy: Ho\nUser:", [("user", "Hi"), ("assistant", "Ho"), ("user", "")]),
        ("A note\n\nUser: Hi", [("user", "Hi")]),
        ("User: a Stacy: b\n User: c\nUsers: d", [("user", "a Stacy: b\n User: c\nUsers: d")]),
        ("User:  a \n  \n\nStacy:\n\n\tb\n  c", [("user", " a "), ("assistant", "\tb\n  c")]),
        ("User:   \n \n", [("user", "")]),
        ("User: one\n\n\ntwo\n", [("user", "one\n\n\ntwo")]),
        ("---\npersonality: gary\n---\nUser: Hi", [("user", "Hi")]),
        ("---\nUser: Hi\n---\nUser: Ho", [("user", "Ho")]),
        ("---\nUser: Hi", [("user", "Hi")]),
    ],
)
def test_a_line_with_a_speakers_name_begins_a_turn(text, turns):
    assert said(text) == turns


@pytest.mark.parametrize(
    "text, delim, cue",
    [
        ("", "\n\n", "User: "),
        ("Hi", "\n\n", "\n\nUser: "),
        ("Hi\n", "\n\n", "\nUser: "),
        ("Hi\n\n", "\n\n", "User: "),
        ("Hi\n\n\n", "\n\n", "User: "),
        ("Hi", "\n", "\nUser: "),
        ("Hi\n", "\n", "User: "),
        ("Hi", "\n---\n", "\n---\nUser: "),
        ("Hi\n", "\n---\n", "---\nUser: "),
    ],
)
def test_only_what_is_missing_of_the_delimiter_is_written(text, delim, cue):
    assert ChatSyntax("User", "Stacy", delim).cue(text, "User") == cue


def test_a_delimiter_that_can_be_seen_is_no_part_of_what_was_said():
    layout = ChatSyntax("User", "Stacy", delimiter("* * *"))
    text = "User: Hi"
    for name, words in (("Stacy", "Ho"), ("User", "And *?")):
        text += layout.cue(text, name) + words
    assert text == "User: Hi\n* * *\nStacy: Ho\n* * *\nUser: And *?"
    assert said(text, layout) == [("user", "Hi"), ("assistant", "Ho"), ("user", "And *?")]
    assert said("User: \n* * *\nStacy: Ho", layout) == [("user", ""), ("assistant", "Ho")]


@pytest.mark.parametrize(
    "given, meant",
    [(r"\n\n", "\n\n"), ("\n", "\n"), ("", "\n"), ("---", "\n---\n"), (r"\n--\n\n", "\n--\n\n"), (r"a\\n", "\na\\n\n"), (r"\t", "\n\t\n")],
)
def test_delim_is_lines_of_its_own_however_it_is_spelled(given, meant):
    assert delimiter(given) == meant


def test_settings_on_top_keep_their_lines():
    assert front_matter("---\na: 1\nb: 2\n---\nUser: Hi") == ("\na: 1\nb: 2\n", 18)
    assert front_matter("---\na: 1\n---") == ("\na: 1\n", 12) and front_matter("a\n---\n---\n") == ("", 0) == front_matter("---\na: 1\n")


def test_settings_without_an_end_are_told_and_a_rule_on_top_is_none(tmp_path):
    with pytest.raises(WatchError, match=r"a\.chat, line 1: the settings on top have no end"):
        refuse_open_front_matter("---\npersonality: gary\n\nUser: Hi", tmp_path / "a.chat")
    refuse_open_front_matter("---\n\nUser: Hi", tmp_path / "a.chat")
    refuse_open_front_matter("---\npersonality: gary\n---\nUser: Hi", tmp_path / "a.chat")


@pytest.mark.parametrize("words", ["Hi", "Hi\n\nthere", "Übergrößen — 你好", "1. one\n2. two", "a: b"])
def test_what_is_written_is_read_back(words):
    text = ""
    for name in ("User", "Stacy", "User"):
        text += LAYOUT.cue(text, name) + words
    assert said(text) == [("user", words), ("assistant", words), ("user", words)]
