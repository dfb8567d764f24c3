"""Replies cut into messages of Discord's."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from townhall.discord_bot.message_parts import LIMIT, neutral, split

PIECES = st.sampled_from(
    [
        "The moon is far. ",
        "Is it? ",
        "word ",
        "supercalifragilistic" * 9,
        "\n",
        "\n\n",
        "```",
        "```py\n",
        "\n```\n",
        "`x`",
        "@everyone ",
        "@here",
    ]
    + ["😀" * 7, "👨‍👩‍👧", "é", "日本語です。", "    indented\n", "x = 1\n" * 40, "A sentence that says something. " * 20]
)
REPLIES = st.lists(PIECES, max_size=60).map("".join)


def units(text: str) -> int:
    """As JavaScript counts."""
    return len(text.encode("utf-16-le")) // 2


@settings(max_examples=400)
@given(REPLIES, st.integers(60, 300))
def test_parts_fit_join_and_close_their_code_blocks(text, limit):
    parts = split(text, limit)
    assert "".join(part.text for part in parts) == text
    for part in parts:
        assert units(part.shown) <= limit and not re.search("@(everyone|here)", part.shown)
        assert len(re.findall("```", part.shown)) % 2 == 0
        assert part.text or not text


@settings(max_examples=200)
@given(REPLIES, st.integers(60, 200), st.floats(0, 1))
def test_parts_that_were_sent_stay_as_they_are(text, limit, share):
    sent = split(text[: int(len(text) * share)], limit)[:-1]
    assert split(text, limit)[: len(sent)] == sent


@pytest.mark.parametrize("end", ["said.", "said!", "said?", "said.**", 'said."', "said…"])
def test_a_cut_is_at_the_end_of_a_sentence(end):
    text = f"This was {end} " * 12
    for part in split(text, 100)[:-1]:
        assert part.shown.endswith(end) and units(part.shown) > 50


def test_a_paragraph_goes_before_a_sentence_and_that_before_a_space():
    sentence = "x" * 30 + ". "
    assert split(f"{sentence * 2}\n\n{sentence * 3}", 120)[0].text == f"{sentence * 2}\n\n"
    assert [len(part.text) for part in split(sentence * 4, 120)] == [96, 32]
    assert [part.shown for part in split("word " * 30, 104)] == ["word " * 19 + "word", "word " * 9 + "word"]


def test_a_code_block_is_kept_whole_in_the_next_message():
    block = "```py\n" + "print(1)\n" * 150 + "```"
    parts = split(f"{'Look at this. ' * 60}\n{block}\nThat is all.")
    assert [part.shown.count("```") for part in parts] == [0, 2] and block in parts[1].shown and parts[1].shown.endswith("That is all.")


def test_a_code_block_too_long_for_a_message_is_closed_and_opened_again():
    lines = [f"line_{n} = {n}\n" for n in range(400)]
    parts = split(f"```py\n{''.join(lines)}```")
    assert len(parts) == 3
    for part in parts:
        assert part.shown.startswith("```py\n") and part.shown.endswith("```")
    inside = [part.shown.removeprefix("```py\n").removesuffix("```") for part in parts]
    assert "".join(inside).replace("\n", "") == "".join(lines).replace("\n", "")
    assert all(line.startswith("line_") for part in inside for line in part.strip().split("\n"))


def test_what_cannot_be_cut_well_is_cut_between_characters():
    family = "👨‍👩‍👧"
    for part in split(family * 600):
        assert part.text == family * (len(part.text) // len(family))
    assert [units(part.shown) for part in split("a" * 5000)] == [LIMIT - 5, LIMIT - 5, 5000 - 2 * (LIMIT - 5)]


def test_a_mention_of_everyone_looks_the_same_and_is_none():
    shown = neutral("@everyone @HERE <@&5> mail@hereford.example @anna")
    assert (
        "@everyone" not in shown
        and "@HERE" not in shown
        and shown.replace("\u200b", "") == ("@everyone @HERE <@&5> mail@hereford.example @anna")
    )
