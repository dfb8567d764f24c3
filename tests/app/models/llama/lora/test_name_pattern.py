"""Patterns over module names: as Python's `re` has them, and in bounded time."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.models.llama.lora.name_pattern import NamePatternError, fullmatch

NAMES = ["model.layers.1.self_attn.q_proj", "model.layers.11.mlp.down_proj", "lm_head", "model.embed_tokens", ""]
PATTERNS = [
    r".*q_proj",
    r".*\.layers\.(1|2)\.(self_attn\.[qk]_proj|mlp\..*)",
    r"^model\.layers\.\d+\.mlp\.(?:up|down)_proj$",
    r"model\.layers\.1{1,2}\..*?proj",
    r"[^.]*",
    r"(?P<all>lm_head|model\.embed.+)",
    r"\w+\.\w+\.[0-9]{2}\.\S*",
    "",
    "a{2}|lm_.{4}",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_matches_as_re_does(pattern: str) -> None:
    for name in NAMES:
        assert fullmatch(pattern, name) == (re.fullmatch(pattern, name) is not None), name
        assert fullmatch(pattern, name, True) == (re.match(rf"(.*\.)?({pattern})$", name) is not None), name


atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\.", r"\w"])
patterns = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join).map("({})".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{1,2}", "*?"])).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(patterns, st.text("ab.c", max_size=8))
def test_any_pattern_matches_as_re_does(pattern: str, text: str) -> None:
    assert fullmatch(pattern, text) == (re.fullmatch(pattern, text) is not None)


@pytest.mark.parametrize(
    "pattern", [r"(?!vision).*", r"(?<=a)b", r"(a)\1", "(a", "a)", "[a", "*a", "a**", "a{x}", "a{9999}", "a\\", "(" * 99, "a" * 5000]
)
def test_what_is_not_followed_is_refused(pattern: str) -> None:
    with pytest.raises(NamePatternError):
        fullmatch(pattern, "model.layers.1.self_attn.q_proj")


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)*b", "(.*)*(.*)*(.*)*x", "((((a{0,200}){0,200}){0,200}){0,200}){0,200}"])
def test_patterns_that_python_would_not_finish_end(pattern: str) -> None:
    """By an answer or a refusal; each is within the budget of steps."""
    try:
        assert not fullmatch(pattern, "a" * 60) or pattern.endswith("}")
    except NamePatternError as error:
        assert "too long" in str(error)
