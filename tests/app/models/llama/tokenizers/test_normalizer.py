"""What happens to a text before it is cut, and where its first space goes: ids as the sentencepiece and tokenizers packages give them."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Reference

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.conversion import convert
from app.models.llama.tokenizers.tokenizer import Tokenizer, TokenizerError
from app.models.llama.tokenizers.tokenizer_folder import read_tokenizer_folder
from tests.reference.tiny_formats import tiny_weights, write_hf

TEXTS = [
    "",
    "  ",
    " a",
    "a  b ",
    "a\nb\n\n c",
    "\t\tx",
    "ﬁne ①② ½",
    "ｆｕｌｌ　ｗｉｄｔｈ",
    "e\u0301 é",
    "각 \u1112\u1161\u11ab",
    "🙂\u200b\u00a0x",
    "▁a▁ b▁",
]
TEXTS += ["STRASSE ß ǅ", "\x00\x01", "\ufeffbom", "the dog,  the  fox"]
MARKED = ["<s>the dog</s>she", "<s> a</s> b", "a<s>b", "x</s>\n<s>", "</s>  two"]
SENTENCES = ["The quick brown fox jumps over the lazy dog.", "She sells sea shells by the sea shore: e\u0301 é 각 ﬁ 1 2."] * 10


@cache
def trained(rule: str = "identity", dummy: bool = True, strip: bool = False) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        normalization_rule_name=rule,
        add_dummy_prefix=dummy,
        remove_extra_whitespaces=strip,
        minloglevel=2,
    )
    return model.getvalue()


def tokenizer_of(folder: Path) -> Tokenizer:
    files = read_tokenizer_folder(folder)
    return Tokenizer.from_gguf(files.metadata, folder, files.stop_ids)


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("dummy", [False, True])
@pytest.mark.parametrize("rule", ["identity", "nfkc", "nmt_nfkc", "nfkc_cf"])
def test_a_sentencepiece_model_normalises_as_it_says(rule: str, dummy: bool, strip: bool, tmp_path: Path) -> None:
    """OpenLLaMA's does, and takes several spaces for one."""
    (tmp_path / "tokenizer.model").write_bytes(trained(rule, dummy, strip))
    reference, ours = sentencepiece.SentencePieceProcessor(model_proto=trained(rule, dummy, strip)), tokenizer_of(tmp_path)
    for text in TEXTS:
        assert ours.encode(text, bos=False, special=False) == reference.encode(text), text


def test_what_goes_on_keeps_its_space_though_spaces_are_stripped(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained(strip=True))
    ours = tokenizer_of(tmp_path)
    assert (
        ours.encode_pieces([("  fox", False)], bos=False, continued=True)
        == ours.encode("dog fox", bos=False)[-len(ours.encode("fox", bos=False)) :]
    )


def field(number: int, value: bytes | int) -> bytes:
    """A protocol buffer's, of less than 128 bytes."""
    if isinstance(value, int):
        return bytes((*_key(number << 3), value))
    return bytes((*_key(number << 3 | 2), len(value))) + value


def _key(key: int) -> tuple[int, ...]:
    return (key,) if key < 128 else (key & 127 | 128, key >> 7)


@pytest.mark.parametrize(
    "extra, fault",
    [
        (field(3, field(1, b"mine") + field(2, b"\0" * 8)), "normalises text by a table of its own \\('mine'\\)"),
        (field(3, field(5, 0)), "leaves them as they are"),
        (field(2, field(24, 1)), "puts spaces behind words"),
    ],
)
def test_what_a_sentencepiece_model_may_not_ask_for_is_named(extra: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained() + extra)  # a later field of the same number counts
    with pytest.raises(TokenizerError, match=fault):
        read_tokenizer_folder(tmp_path)


@cache
def pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of the trained model, as transformers' converter finds them."""
    model = sentencepiece.SentencePieceProcessor(model_proto=trained())
    vocab = {model.id_to_piece(n): n for n in range(len(model))}
    cuts = [(piece[:at], piece[at:]) for piece in vocab for at in range(1, len(piece))]
    merges = [pair for pair in cuts if pair[0] in vocab and pair[1] in vocab]
    return vocab, sorted(merges, key=lambda pair: (-model.get_score(vocab[pair[0] + pair[1]]), vocab[pair[0]], vocab[pair[1]]))


def write_json(folder: Path, normalizer: Any, pre_tokenizer: Any) -> Reference:
    vocab, merges = pieces()
    reference = Reference(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if normalizer:
        reference.normalizer = normalizer
    if pre_tokenizer:
        reference.pre_tokenizer = pre_tokenizer
    reference.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    reference.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ("<unk>", "<s>", "</s>")])
    reference.save(str(folder / "tokenizer.json"))
    return reference


PREPEND = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
WAYS = {
    "legacy": (normalizers.Sequence(PREPEND), None),
    "first": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
    "always": (None, pre_tokenizers.Metaspace(prepend_scheme="always", split=False)),
    "never": (None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False)),
    "replaced alone": (normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")),
    "NFKC": (normalizers.Sequence([normalizers.NFKC(), *PREPEND]), None),
    "NFD": (normalizers.Sequence([normalizers.NFD(), *PREPEND]), None),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_tokenizer_json_places_its_space_and_normalises_as_it_says(way: str, tmp_path: Path) -> None:
    reference = write_json(tmp_path, *WAYS[way])
    ours = tokenizer_of(tmp_path)
    for text in [*TEXTS, *MARKED]:
        assert ours.encode(text, bos=False) == reference.encode(text, add_special_tokens=False).ids, text


def test_a_byte_level_tokenizer_json_normalises_as_it_says(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "model", tiny_weights())
    content = json.loads((folder / "tokenizer.json").read_text())
    plain = tokenizer_of(folder)
    (folder / "tokenizer.json").write_text(json.dumps(content | {"normalizer": {"type": "NFC"}}))
    assert tokenizer_of(folder).encode("e\u0301", bos=False) == plain.encode("é", bos=False) != plain.encode("e\u0301", bos=False)
    made = convert(open_checkpoint(folder), tmp_path / "made.gguf", "f32")
    assert open_checkpoint(made).tokenizer().encode("e\u0301") == tokenizer_of(folder).encode("e\u0301")


@pytest.mark.parametrize(
    "normalizer, pre_tokenizer, fault",
    [
        (normalizers.Lowercase(), None, "changes text by 'Lowercase' before it cuts it"),
        (normalizers.Sequence([normalizers.Strip(), *PREPEND]), None, "changes text by 'Strip'"),
        (normalizers.Sequence([normalizers.NFC(), normalizers.NFD()]), None, r"changes text by \['NFC', 'NFD'\]"),
        (normalizers.Sequence(PREPEND), pre_tokenizers.Digits(individual_digits=True), "splits text by .*Digits"),
        (None, pre_tokenizers.Metaspace(replacement="_"), "splits text by .*replacement"),
    ],
)
def test_what_a_tokenizer_json_may_not_ask_for_is_named(normalizer: Any, pre_tokenizer: Any, fault: str, tmp_path: Path) -> None:
    write_json(tmp_path, normalizer, pre_tokenizer)
    with pytest.raises(TokenizerError, match=fault):
        read_tokenizer_folder(tmp_path)


def test_a_tokenizer_config_moves_the_first_space_of_a_tokenizer_model(tmp_path: Path) -> None:
    model = sentencepiece.SentencePieceProcessor(model_proto=trained())
    (tmp_path / "tokenizer.model").write_bytes(trained())
    assert tokenizer_of(tmp_path).encode("<s>the</s>dog") == [1, *model.encode("the"), 2, *model.encode("dog")]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": False}))
    unspaced = [*model.encode("the"), 2, model.piece_to_id("dog")]
    assert tokenizer_of(tmp_path).encode("the</s>dog") == [1, *unspaced] and model.id_to_piece(unspaced[-1]) == "dog"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": False}))
    assert tokenizer_of(tmp_path).encode("dog") == [1, unspaced[-1]]


def test_a_rule_that_nobody_knows_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained())
    metadata = read_tokenizer_folder(tmp_path).metadata
    for rule in ("rot13", np.arange(2)):
        with pytest.raises(TokenizerError, match=r"x.gguf normalises text by ('rot13'|array)"):
            Tokenizer.from_gguf(metadata | {"tokenizer.townhall.normalizer": rule}, "x.gguf")
