import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from townhall.answer import EdgeTrim, StopFilter


def whole(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, str | None]:
    filter = StopFilter(stops)
    shown = "".join(map(filter.push, pieces))
    return shown + filter.flush(), filter.stopped


def splits(text: str) -> list[list[str]]:
    """Every way of cutting `text` into pieces."""
    ways = []
    for cuts in itertools.product([False, True], repeat=len(text) - 1):
        pieces = [text[0]]
        for char, cut in zip(text[1:], cuts, strict=True):
            pieces = [*pieces, char] if cut else [*pieces[:-1], pieces[-1] + char]
        ways.append(pieces)
    return ways


@pytest.mark.parametrize(
    "text, shown",
    [("Hi.[EOS]more", "Hi."), ("Hi [EO] [E", "Hi [EO] [E"), ("yes\nUser: no", "yes"), ("a\nUse", "a\nUse"), ("[[EOS]", "["), ("[EOS]", "")],
)
def test_no_split_shows_any_part_of_a_stop_string(text, shown):
    stops = ("[EOS]", "\nUser:")
    for pieces in splits(text):
        assert whole(stops, pieces)[0] == shown, pieces


@pytest.mark.parametrize("text", ["aab", "abab", "xabcd", "aaaa", "babcabd"])
@pytest.mark.parametrize("stops", [("ab",), ("abcd", "bc"), ("bc", "abc"), ("aa", "aab"), ("a",), ()])
def test_overlapping_stop_strings_end_at_the_same_place_however_the_text_is_cut(text, stops):
    assert len({whole(stops, pieces) for pieces in splits(text)}) == 1


def test_of_two_stop_strings_the_one_complete_first_wins_and_of_equals_the_longer():
    assert whole(("abcd", "bc"), ["abcd"]) == ("a", "bc")
    assert whole(("bc", "abc"), ["xabc"]) == ("x", "abc")


@given(st.lists(st.text("ab\n[]EOSUser: ", max_size=4), max_size=12))
def test_what_is_shown_so_far_is_always_the_beginning_of_what_will_be_shown(pieces):
    stops = ("[EOS]", "\nUser:")
    filter, text, shown = StopFilter(stops), "".join(pieces), ""
    expected = min((text.split(stop)[0] for stop in stops), key=len)
    for piece in pieces:
        shown += filter.push(piece)
        assert expected.startswith(shown)
    assert shown + filter.flush() == expected


def test_text_that_can_no_longer_become_a_stop_string_is_not_held_back():
    filter = StopFilter(("[EOS]",))
    assert filter.push("Hi [E") == "Hi "
    assert filter.push("h]") == "[Eh]"


def test_nothing_comes_after_a_stop_string():
    filter = StopFilter(("STOP",))
    assert filter.push("go STOP") + filter.push("and on") + filter.flush() == "go "


@given(st.lists(st.text(" \nab", max_size=3), max_size=10))
def test_trimming_piece_by_piece_equals_trimming_the_whole(pieces):
    trim = EdgeTrim()
    assert "".join(map(trim.push, pieces)) == "".join(pieces).strip()
