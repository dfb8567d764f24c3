"""Marks go along with characters: checked with words in capitals and a template's own text in small letters."""

import random

import pytest

from townhall.formats.marked_text import MarkedText, holds_words, joined, runs, words

METHODS = {
    "strip": lambda text: text.strip(),
    "strip of letters": lambda text: text.strip("aAB "),
    "lstrip": lambda text: text.lstrip(),
    "rstrip": lambda text: text.rstrip("b"),
    "removeprefix": lambda text: text.removeprefix("a"),
    "removesuffix": lambda text: text.removesuffix("B"),
    "split": lambda text: text.split(),
    "split once": lambda text: text.split(None, 1),
    "split at": lambda text: text.split("A"),
    "rsplit": lambda text: text.rsplit(None, 1),
    "rsplit at": lambda text: text.rsplit("a", 2),
    "splitlines": lambda text: text.splitlines(),
    "splitlines with ends": lambda text: text.splitlines(keepends=True),
    "partition": lambda text: text.partition("A"),
    "rpartition": lambda text: text.rpartition("a"),
    "replace": lambda text: text.replace("A", "xy"),
    "replace by words": lambda text: (text if isinstance(text, MarkedText) else MarkedText(text, ())).replace("b", words("XY")),
    "replace once": lambda text: text.replace("a", "", 1),
    "slice": lambda text: text[1:-1],
    "item": lambda text: text[-1] if text else "",
    "characters": lambda text: list(text),
    "twice": lambda text: 2 * text * 1,
    "between": lambda text: "a" + text + "b",
    "str": lambda text: str(text),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_character_keeps_its_mark(method):
    random_ = random.Random(method)
    for _ in range(500):
        parts = ["".join(random_.choices(random_.choice(("AB", "ab")) + " \n\r\x1c\u2003", k=random_.randrange(6))) for _ in range(4)]
        marked = joined(words(part, 7) if part.upper() == part and part.strip() else part for part in parts)
        plain = "".join(parts)
        result, expected = METHODS[method](marked), METHODS[method](plain)
        assert result == expected
        for text in [result] if isinstance(result, str) else result:
            assert "".join(part for part, _ in runs(text)) == text
            for part, whose in runs(text):
                assert type(part) is str and part
                assert all(letter.isupper() == (whose is not None) for letter in part if letter.isalpha())


def test_case_follows_where_it_changes_no_length():
    text = joined(["a", words("b c", 3)])
    assert list(runs(text.upper())) == [("A", None), ("B C", 3)] and list(runs(text.title())) == [("A", None), ("b C", 3)]
    assert list(runs(joined(["a", words("\N{LATIN SMALL LETTER SHARP S}", 3)]).upper())) == [("ASS", -1)]


def test_neighbours_of_one_turn_are_one_run():
    assert list(runs(joined([words("a", 1), words("b", 1), words("c", 2), "d"]))) == [("ab", 1), ("c", 2), ("d", None)]


def test_words_are_found_in_containers():
    text = words("a")
    assert isinstance(text, MarkedText) and words("") == "" and not holds_words(words(""))
    assert all(map(holds_words, (text, [text], (1, {"a": [text]}), {text: 1})))
    assert not any(map(holds_words, ("a", ["a"], {"a": ("b", 1)}, None)))
    deep = [1]
    for _ in range(20):
        deep = [deep]
    assert holds_words(deep)  # what is not looked at may hold some
