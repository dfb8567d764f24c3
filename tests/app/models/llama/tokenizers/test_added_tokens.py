"""Added tokens: ids as the tokenizers package gives them, on tokenizers made here and on random texts."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Reference

from app.models.llama.tokenizers.tokenizer import Tokenizer
from tests.reference.random_tokenizers import (
    KINDS,
    added_tokens,
    byte_level,
    ids,
    legacy,
    read,
    saved,
    spaced,
    texts,
)
from tests.reference.words import byte_characters

CASES = list(range(6))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_are_found_as_the_tokenizers_package_finds_them(kind: str, case: int, tmp_path: Path) -> None:
    reference = KINDS[kind](case)
    reference.add_tokens(added_tokens(case))
    ours = saved(reference, tmp_path)
    given = texts(case)
    assert [ours.encode(text, bos=False) for text in given] == [
        ours.encode(text, bos=False) if (found := ids(reference, text)) is None else found for text in given
    ]
    reference.encode_special_tokens = True  # the package's word for leaving them text
    assert [ours.encode(text, bos=False, special=False) for text in given] == [
        ours.encode(text, bos=False, special=False) if (found := ids(reference, text)) is None else found for text in given
    ]


@pytest.mark.parametrize(
    "rules, text, expected",
    [
        ({"rstrip": True}, "a<|user|>\n\nb", ["a", "<|user|>", "b"]),
        ({"lstrip": True}, "a \u3000<|user|>\nb", ["a", "<|user|>", "Ċ", "b"]),
        ({"lstrip": True, "rstrip": True}, " <|user|> <|user|> ", ["<|user|>", "<|user|>"]),
        ({"single_word": True}, "a<|user|> <|user|>b <|user|>.", [*"a<|user|>Ġ<|user|>b", "Ġ", "<|user|>", "."]),
    ],
)
def test_each_rule_alone(rules: dict[str, bool], text: str, expected: list[str], tmp_path: Path) -> None:
    reference = Reference(models.BPE({char: n for n, char in enumerate(byte_characters())}, []))
    reference.pre_tokenizer, reference.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    reference.add_special_tokens([AddedToken("<|user|>", **rules)])
    found = saved(reference, tmp_path).encode(text, bos=False)
    assert [reference.id_to_token(n) for n in found] == expected and found == ids(reference, text)


def test_a_token_config_overrules_a_tokenizer_json(tmp_path: Path) -> None:
    reference = byte_level(1)
    reference.add_special_tokens(["<|user|>"])
    plain = saved(reference, tmp_path)
    n = reference.token_to_id("<|user|>")
    entry = {"content": "<|user|>", "lstrip": False, "rstrip": True, "single_word": False, "normalized": False, "special": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {str(n): entry}}))
    assert read(tmp_path).encode("<|user|>\n", bos=False) == [n] != plain.encode("<|user|>\n", bos=False)


# --- pieces --------------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(tmp_path: Path) -> tuple[Reference, Tokenizer]:
    reference = byte_level(1)
    reference.add_special_tokens([AddedToken("<|user|>", rstrip=True), AddedToken("<|end|>", lstrip=True)])
    reference.add_tokens([AddedToken("\n\n", normalized=False), AddedToken(".<", normalized=False)])
    return reference, saved(reference, tmp_path)


def test_white_space_goes_with_a_marker_across_pieces(chat: tuple[Reference, Tokenizer]) -> None:
    reference, ours = chat
    pieces = [("<|user|>", True), ("\n", True), ("  the a \n", False), ("<|end|>\n", True)]
    assert ours.encode_pieces(pieces) == ids(reference, "".join(text for text, _ in pieces))


def test_an_added_word_reaches_over_pieces_but_takes_no_marker_away(chat: tuple[Reference, Tokenizer]) -> None:
    reference, ours = chat
    assert ours.encode_pieces([("a\n", False), ("\nb", True)]) == ids(reference, "a\n\nb")
    end = reference.token_to_id("<|end|>")
    assert ours.encode_pieces([("a.", False), ("<|end|>", True)])[-1] == end  # ".<" would take its first character
    assert ours.encode_pieces([("a.<|end|>", True)])[-1] != end  # as the package has it, where the template itself says so
    assert end not in ours.encode_pieces([("<|en", False), ("d|>", True), ("<|end|>", False), ("<|end", True), ("|>", True)])


@pytest.mark.parametrize("rule", ["legacy", "byte-level, NFKC"])
def test_words_do_not_become_a_marker_by_normalisation(rule: str, tmp_path: Path) -> None:
    """The marker is looked for in normalised text, where a person's full-width letters spell it."""
    reference = KINDS["byte-level, NFKC"](0) if rule != "legacy" else spaced(0, legacy(normalizers.NFKC()))
    reference.add_special_tokens([AddedToken("<s>", normalized=True)])
    ours, marker = saved(reference, tmp_path), reference.token_to_id("<s>")
    assert marker in (ids(reference, "＜ｓ＞") or []) and marker in ours.encode("＜ｓ＞")
    assert marker not in ours.encode("＜ｓ＞<s>", special=False)
    found = ours.encode_pieces([("<s>", True), ("① ＜ｓ＞ ½", False), (" <s>", True)])
    assert found.count(marker) == 2 and (found[0], found[-1]) == (marker, marker)


def test_white_space_without_end_is_taken_once(tmp_path: Path) -> None:
    """Each of many spaces is a token here that takes those behind it: none of them looks at all the others."""
    reference = byte_level(1)
    reference.add_tokens([AddedToken(" ", rstrip=True, normalized=False)])
    ours = saved(reference, tmp_path)
    for text in ("   a", "a  \n b  c ", " \n "):
        assert ours.encode(text, bos=False) == ids(reference, text)
    assert len(ours.encode(" " * 200_000, bos=False)) == 200_000
