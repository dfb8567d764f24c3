"""What the page's controls hold becomes fields of a request."""

import pytest

from townhall.web.client import WebError
from townhall.web.sampling_controls import NAMES, PLAIN, SamplingControls, as_text


def controls(**changes):
    """What the page's controls hold: numbers as floats, a list as a text."""
    shown = {name: getattr(PLAIN, name) for name in NAMES}
    shown |= {"seed": "", "dry_sequence_breakers": as_text(PLAIN.dry_sequence_breakers)}
    return [float(value) if type(value) is int else value for value in (shown | changes).values()]


def test_untouched_controls_are_the_defaults():
    assert SamplingControls.from_page(*controls()) == PLAIN
    assert all(type(PLAIN.body()[name]) is int for name in ("top_k", "mirostat", "repeat_last_n", "dry_allowed_length"))


def test_a_list_is_written_as_json():
    for text, texts in (('["\\n", "Ada:"]', ("\n", "Ada:")), ('"é"', ("é",)), ("", ()), ("[]", ())):
        assert SamplingControls.from_page(*controls(dry_sequence_breakers=text)).dry_sequence_breakers == texts


@pytest.mark.parametrize("text", ["Ada:", "[1]", '[""]', '{"a": 1}', "[" * 9000, as_text(["x"] * 65)])
def test_what_is_no_list_of_texts_is_one_sentence(text):
    with pytest.raises(WebError, match="^DRY sequence breakers must be a list of at most 64 texts"):
        SamplingControls.from_page(*controls(dry_sequence_breakers=text))
