"""What else a tokenizer.json, and the files beside it, ask for; and what becomes of it in a GGUF."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Reference

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.conversion import convert, unsaid
from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.tokenizers.split_patterns import PRE_TOKENIZERS, QWEN2
from app.models.llama.tokenizers.tokenizer import Tokenizer, TokenizerError
from app.models.llama.tokenizers.tokenizer_folder import read_tokenizer_folder
from app.models.llama.tokenizers.vocabulary import EACH, LEFT_OUT, MERGES, SPLIT_AT_SPACES, UNKNOWN_CHARACTERS
from tests.reference.random_tokenizers import (
    BYTES,
    KINDS,
    added_tokens,
    byte_level,
    folder_of,
    ids,
    legacy,
    metaspace,
    random_merges,
    read,
    saved,
    spaced,
    texts,
)
from tests.reference.tiny_formats import tiny_weights, write_hf
from tests.reference.words import byte_characters
from townhall.cli.main import main

# --- merges as listed ----------------------------------------------------------------------------------------------


def test_a_token_is_merged_as_listed_not_by_its_score(tmp_path: Path) -> None:
    vocab = {token: n for n, token in enumerate(["<unk>", *BYTES, *"▁abc", "bc", "ab", "abc"])}
    reference = Reference(models.BPE(vocab, [("b", "c"), ("a", "b"), ("ab", "c")], unk_token="<unk>", byte_fallback=True))
    reference.normalizer, reference.decoder = normalizers.Replace(" ", "▁"), decoders.Fuse()
    ours = saved(reference, tmp_path)
    assert ours.encode("abc", bos=False) == ids(reference, "abc") == [vocab["a"], vocab["bc"]]  # though abc has a score


def test_a_merge_that_makes_a_control_token_makes_none(tmp_path: Path) -> None:
    vocab = {token: n for n, token in enumerate(["<unk>", *BYTES, *"▁<s>", "<s", "<s>"])}
    reference = Reference(models.BPE(vocab, [("<", "s"), ("<s", ">")], unk_token="<unk>", byte_fallback=True))
    reference.normalizer, reference.decoder = legacy(), decoders.Fuse()
    reference.add_special_tokens([AddedToken("<s>", normalized=False)])
    ours = saved(reference, tmp_path)
    assert ours.encode("<s>", bos=False) == [vocab["<s>"]]
    assert ours.encode("<s>", bos=False, special=False) == [vocab[token] for token in ("▁", "<s", ">")]


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"dropout": 0.1}, "asks for dropout 0.1"),
        ({"end_of_word_suffix": "</w>"}, "asks for end_of_word_suffix '</w>'"),
        ({"ignore_merges": True}, "ignores merges, which Townhall supports in byte-level BPE"),
    ],
)
def test_what_a_model_may_not_ask_for_is_named(changes: dict[str, Any], fault: str, tmp_path: Path) -> None:
    saved(KINDS["legacy"](0), tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"model": content["model"] | changes}))
    with pytest.raises(TokenizerError, match=fault):
        read_tokenizer_folder(tmp_path)


def test_the_keys_that_say_so_are_checked(tmp_path: Path) -> None:
    reference = KINDS["each unknown"](0)
    saved(reference, tmp_path)
    metadata = read_tokenizer_folder(tmp_path).metadata
    assert metadata[UNKNOWN_CHARACTERS] == EACH and SPLIT_AT_SPACES not in metadata
    saved(KINDS["no unknown"](0), tmp_path)
    assert read_tokenizer_folder(tmp_path).metadata[UNKNOWN_CHARACTERS] == LEFT_OUT
    for wrong in (np.array([999_999]), np.array([-1]), np.array([0.5]), [1], "all"):
        with pytest.raises(TokenizerError, match=r"x.gguf gives tokenizer.townhall.rstrip as .*; "):
            Tokenizer.from_gguf(metadata | {"tokenizer.townhall.rstrip": wrong}, "x.gguf")


# --- transformers' files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config, marked", [({}, "<unk>"), ({"unk_token": "a"}, "a"), ({"unk_token": {"content": "b"}}, "b")])
def test_a_tokenizer_that_transformers_5_saved_is_read(config: dict[str, Any], marked: str, tmp_path: Path) -> None:
    """It writes "unk_token": null, and no tokenizer.model."""
    reference = spaced(3, None, metaspace("first"), unk_token=None)
    reference.add_special_tokens([AddedToken("<s>", normalized=False)])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = saved(reference, tmp_path)
    metadata = read_tokenizer_folder(tmp_path).metadata
    assert metadata["tokenizer.ggml.unknown_token_id"] == reference.token_to_id(marked)
    assert metadata["tokenizer.ggml.token_type"][reference.token_to_id(marked)] == TokenType.UNKNOWN
    if marked == "<unk>":
        assert [ours.encode(text, bos=False) for text in texts(3)] == [ids(reference, text) for text in texts(3)]


@pytest.mark.parametrize("kind", ["byte-level", "first"])
@pytest.mark.parametrize("source", ["config.json", "generation_config.json"])
def test_a_stale_end_in_a_config_takes_no_word_away(kind: str, source: str, tmp_path: Path) -> None:
    """LlamaConfig says 2 by default."""
    reference = KINDS[kind](1)
    reference.add_special_tokens([AddedToken("<|end|>", normalized=False)])
    end, word = reference.token_to_id("<|end|>"), reference.token_to_id("ab") or reference.token_to_id("a")
    (tmp_path / source).write_text(json.dumps({"eos_token_id": word, "bos_token_id": word}))
    ours = saved(reference, tmp_path)
    assert [ours.encode(text) for text in texts(2)] == [ids(reference, text) for text in texts(2)]
    assert ours.bos_id is None and ours.eos_id is None
    assert ours.stop_ids == {end, word} and ours.decode([word]).strip() and word not in ours.special_ids.values()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    assert read(tmp_path).eos_id == end


def test_a_stale_end_survives_conversion_as_a_word(tmp_path: Path) -> None:
    reference = KINDS["first"](1)
    reference.add_special_tokens([AddedToken("<|end|>", normalized=False)])
    folder = folder_of(reference, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    word = reference.token_to_id("a")
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": word}))
    made = open_checkpoint(convert(open_checkpoint(folder), tmp_path / "made.gguf", "f32")).tokenizer()
    assert made.eos_token == "<|end|>" and word in made.stop_ids
    assert [made.encode(text) for text in texts(2)] == [ids(reference, text) for text in texts(2)]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2", "qwen35", "tekken", "gpt-4o", "deepseek-llm", "deepseek-v3"])
def test_a_known_pattern_may_go_with_either_ignore_merges(pre: str, whole: bool, tmp_path: Path) -> None:
    vocab, merges = random_merges(5, byte_characters())
    vocab |= {token: len(vocab) + n for n, token in enumerate(["ĠĠa", "abcab", "12"])}  # no merge leads there
    reference = Reference(models.BPE(vocab, merges, ignore_merges=whole))
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[pre]]
    reference.pre_tokenizer = pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    reference.decoder = decoders.ByteLevel()
    ours = saved(reference, tmp_path)
    given = [*texts(5), "abcab", "  a", "12", "It's 12345\r\n\r\n x"]
    assert [ours.encode(text, bos=False) for text in given] == [ids(reference, text) for text in given]


def test_possessive_quantifiers_are_known(tmp_path: Path) -> None:
    reference, (pattern,) = byte_level(1), PRE_TOKENIZERS["bailingmoe"]
    possessive = pattern.replace(r"?\p{L}+", r"?+\p{L}+").replace(r"\p{N}]+", r"\p{N}]++")
    assert possessive.count("++") == possessive.count("?+") == 1
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(possessive), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    ours = saved(reference, tmp_path)
    assert [ours.encode(text, bos=False) for text in texts(1)] == [ids(reference, text) for text in texts(1)]


def test_a_pattern_by_what_it_keeps_is_known(tmp_path: Path) -> None:
    """tiktoken's converters remove what does not match, which is nothing."""
    reference = byte_level(1)
    steps = [pre_tokenizers.Split(Regex(QWEN2), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    reference.pre_tokenizer = pre_tokenizers.Sequence(steps)
    ours = saved(reference, tmp_path)
    assert [ours.encode(text, bos=False) for text in texts(1)] == [ids(reference, text) for text in texts(1)]


# --- what becomes of it in GGUF ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_converted_tokenizer_gives_the_same_ids(kind: str, tmp_path: Path) -> None:
    reference = KINDS[kind](0)
    reference.add_tokens(added_tokens(4))
    checkpoint = open_checkpoint(folder_of(reference, tmp_path / "model"))
    made = open_checkpoint(convert(checkpoint, tmp_path / "made.gguf", "f32")).tokenizer()
    for text in texts(9):
        assert made.encode(text) == checkpoint.tokenizer().encode(text), text


def test_what_gguf_cannot_say_is_listed(tmp_path: Path) -> None:
    reference = KINDS["byte-level, NFC"](0)
    reference.add_special_tokens([AddedToken("<|user|>", rstrip=True), AddedToken("<|end|>", lstrip=True, rstrip=True)])
    said = unsaid(open_checkpoint(folder_of(reference, tmp_path / "bytes")))
    expected = ["normalises text by NFC", "has ignore_merges as True", "has added tokens with lstrip (1), rstrip (2)"]
    assert said == expected
    reference = KINDS["first"](0)
    said = unsaid(open_checkpoint(folder_of(reference, tmp_path / "spaces")))
    assert said == [
        "puts its space before the first word only",
        "puts no space before one that is there",
        "merges by a list that no scores express",
    ]
    for kind, rule in (("each unknown", "has a token for each unknown character"), ("no unknown", "leaves unknown characters out")):
        assert rule in unsaid(open_checkpoint(folder_of(KINDS[kind](0), tmp_path / kind)))
    assert "merges nothing over a space" in unsaid(open_checkpoint(folder_of(KINDS["split"](0), tmp_path / "split")))
    assert unsaid(open_checkpoint(write_hf(tmp_path / "plain", tiny_weights()))) == []


def test_convert_tells_it_in_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "made.gguf"
    assert main(["convert", str(folder_of(KINDS["byte-level, NFC"](1), tmp_path / "model")), str(target)]) == 0
    out, said = capfd.readouterr()
    assert out == f"{target}\n"
    assert f"{target} is tokenised otherwise by llama.cpp, for GGUF has no keys for a tokenizer that normalises text by NFC;" in said
    assert main(["convert", str(write_hf(tmp_path / "plain", tiny_weights())), str(target)]) == 0
    assert "llama.cpp" not in capfd.readouterr().err


def test_merges_that_are_scores_are_not_written(tmp_path: Path) -> None:
    vocab = {token: n for n, token in enumerate(["<unk>", *BYTES, *"▁abc", "ab", "▁a", "abc", "▁ab"])}
    merges = [("a", "b"), ("▁", "a"), ("ab", "c"), ("▁", "ab"), ("▁a", "b")]

    def said(merges: list[tuple[str, str]], name: str) -> tuple[list[str], bool]:
        reference = Reference(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        reference.normalizer, reference.decoder = legacy(), decoders.Fuse()
        checkpoint = open_checkpoint(folder_of(reference, tmp_path / name))
        made = open_checkpoint(convert(checkpoint, tmp_path / f"{name}.gguf", "f32"))
        return unsaid(checkpoint), MERGES in made.tokenizer_metadata

    listed = ["merges by a list that no scores express"]
    assert said(merges, "all") == ([], False)
    assert said(merges[:-1], "one missing") == (listed, True)
    assert said([merges[3], *merges[:3], merges[4]], "before its parts") == (listed, True)
    assert said([*merges[:3], merges[4], merges[3]], "the other order") == ([], False)
