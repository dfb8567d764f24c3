"""Passages are within their limit, hold all of the text, stand on the lines that they name, and end at sentences."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.models.llama.checkpoint import open_checkpoint
from townhall.library.blocks import TextBlock
from townhall.library.chunker import LIMIT, chunks, count_words
from townhall.library.text_reader import markdown_blocks, plain_blocks

WORDS = st.lists(
    st.sampled_from(["a", "Word", "longer", "words.", "Ends!", "e.g.", "Dr.", "x" * 50, "(so", "käse", "\n", "\n\n", "# Title\n"]),
    max_size=300,
)
TEXT = "# Stories\n\n" + "\n\n".join(
    f"Sentence {n} of it tells of something. It goes on for a bit.\nThen paragraph {n} ends." for n in range(40)
)


def words(text):
    return re.findall(r"\S+", text)


@given(WORDS, st.integers(8, 60), st.integers(0, 8))
def test_passages_are_within_the_limit_and_hold_every_word(parts, limit, overlap):
    text = " ".join(parts).replace(" # Title", "\n# Title")
    blocks = markdown_blocks(text)
    found = list(chunks(blocks, limit, overlap))
    assert all(count_words(chunk.text) <= limit and chunk.text.strip() for chunk in found)
    joined = "".join("".join(chunk.text.split()) for chunk in found)
    for block in blocks:
        for word in words(block.text):
            assert word in joined or len(word) > limit  # nothing is lost, though long words may be cut
    lines = text.split("\n")
    for chunk in found:
        assert 1 <= chunk.first <= chunk.last <= len(lines)


def test_passages_stand_on_the_lines_that_they_name():
    lines = TEXT.split("\n")
    found = list(chunks(markdown_blocks(TEXT), 60, 15))
    assert len(found) > 10
    for chunk in found:
        there = " ".join(" ".join(lines[chunk.first - 1 : chunk.last]).split())
        assert " ".join(chunk.text.split()) in there and lines[chunk.first - 1].strip() and lines[chunk.last - 1].strip()


def test_passages_begin_and_end_at_sentences_and_overlap():
    found = list(chunks(markdown_blocks(TEXT), 60, 15))
    assert all(chunk.text[0].isupper() and chunk.text[-1] == "." for chunk in found)
    overlapping = [a for a, b in zip(found, found[1:]) if b.text.split("\n")[0].split(". ")[0].rstrip(".") in a.text]
    assert len(overlapping) == len(found) - 1
    bare = list(chunks(markdown_blocks(TEXT), 60, 0))
    assert not any(a.text[-20:] in b.text for a, b in zip(bare, bare[1:]))


def test_passages_do_not_cross_headings_that_have_enough_below_them():
    text = "# A\n\n" + "Alpha beta. " * 60 + "\n\n# B\n\n" + "Gamma delta. " * 60
    found = list(chunks(markdown_blocks(text), 100))
    assert {chunk.heading for chunk in found} == {("A",), ("B",)}
    assert all(("Alpha" in chunk.text, "Gamma" in chunk.text) == (chunk.heading == ("A",), chunk.heading == ("B",)) for chunk in found)


def test_short_sections_share_a_passage_below_what_they_have_in_common():
    text = "# Colours\n\n## Red\n\nLike fire.\n\n## Blue\n\nLike the sea.\n"
    (chunk,) = chunks(markdown_blocks(text))
    assert chunk.heading == ("Colours",) and chunk.text == "Red\nLike fire.\n\nBlue\nLike the sea." and (chunk.first, chunk.last) == (5, 9)


def test_code_is_cut_at_lines_and_keeps_its_indentation():
    code = "\n".join(f"    call({n})" for n in range(100))
    found = list(chunks([TextBlock(code, 11, 110, ("f",), code=True)], 40, 10))
    assert all(re.fullmatch(r"(    call\(\d+\)\n?)+", chunk.text) for chunk in found) and found[0].first == 11 and found[-1].last == 110


def test_abbreviations_do_not_end_a_sentence():
    text = "It was Dr. Smith, e.g. The man with Mr. Brown. " * 8
    assert all(chunk.text.startswith("It was") and chunk.text.endswith("Brown.") for chunk in chunks(plain_blocks(text), 25, 0))


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "word " * 50_000, "。" * 5000, "é" * 5000], ids=["one word", "no sentence", "no space", "accents"]
)
def test_text_without_structure_is_cut_all_the_same(text):
    found = list(chunks(plain_blocks(text), 50, 5))
    assert all(count_words(chunk.text) <= 50 for chunk in found) and len("".join(c.text for c in found).replace(" ", "")) >= len(
        text.replace(" ", "")
    )


def test_the_counter_that_is_passed_in_decides():
    found = list(chunks(markdown_blocks(TEXT), 100, 0, count=len))
    assert all(len(chunk.text) <= 100 for chunk in found) and len(found) > 20


@pytest.mark.weights
def test_words_estimate_the_tokens_of_the_default_model(default_model):
    """Passages of prose are about as long as they are to be; of code and tables, at most twice."""
    tokenizer = open_checkpoint(default_model).tokenizer()
    text = (Path(__file__).parents[3] / "docs/server.md").read_text()
    counts = [len(tokenizer.encode(chunk.text)) for chunk in chunks(markdown_blocks(text))]
    assert max(counts) <= 1.3 * LIMIT
