"""Small tokenizers made with the tokenizers package, random texts, and the package's own ids of them."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Reference

from app.models.llama.tokenizers.split_patterns import QWEN2
from app.models.llama.tokenizers.tokenizer import Tokenizer
from app.models.llama.tokenizers.tokenizer_folder import read_tokenizer_folder
from tests.reference.tiny_formats import tiny_weights, write_hf
from tests.reference.words import byte_characters

TEXTS = 300
PARTS = "a b c ab abc the . , 1 12 _ é e\u0301 ① ▁ ▁a 日 😀".split(" ") + [
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t ",
    "\u00a0",
    "\u3000",
    "\x1c",
    "\u200d",
]
# spelled so that Townhall takes those that are not special for words; see test_added_words_match_always_but_markup_only_as_markup
ADDED = ["<|user|>", "<|end|>", "<s>", "[X]", "ab", "abc", "bc", "the", "b the", "  ", "\n", "é", "e\u0301a", "a①", "_", "日", "▁a", " a"]


def texts(seed: int, n: int = TEXTS) -> list[str]:
    picker = random.Random(seed)
    parts = PARTS + ADDED[:12]
    return ["".join(picker.choices(parts, k=picker.randint(0, 14))) for _ in range(n)]


def added_tokens(seed: int) -> list[AddedToken]:
    """Up to nine, each with rules of its own."""
    picker = random.Random(seed)
    chosen = picker.sample(ADDED, picker.randint(3, 9))
    marked = [token for token in ADDED[:4] if token in chosen]

    def rules() -> dict[str, bool]:
        return {rule: picker.random() < 0.35 for rule in ("lstrip", "rstrip", "single_word", "normalized")}

    return [AddedToken(token, special=token in marked or picker.random() < 0.2, **rules()) for token in chosen]


def random_merges(seed: int, alphabet: Iterable[str], n: int = 40) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary and merges, most ways to spell a token left out."""
    picker = random.Random(seed)
    vocab = {char: n for n, char in enumerate(alphabet)}
    merges: dict[tuple[str, str], None] = {}
    common = [char for char in vocab if char in "abcthe▁Ġ.1"]
    while len(merges) < n:
        known = [token for token in vocab if len(token) > 1]
        left, right = (picker.choice(known if known and picker.random() < 0.4 else common) for _ in range(2))
        if len(left + right) < 6:
            merges[left, right] = None
            vocab.setdefault(left + right, len(vocab))
    return vocab, list(merges)


def byte_level(seed: int, normalizer: Any = None) -> Reference:
    vocab, merges = random_merges(seed, byte_characters())
    reference = Reference(models.BPE(vocab, merges, ignore_merges=seed % 2 == 0))
    if normalizer:
        reference.normalizer = normalizer
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    reference.decoder = decoders.ByteLevel()
    return reference


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def spaced(seed: int, normalizer: Any = None, pre_tokenizer: Any = None, **model: Any) -> Reference:
    """SentencePiece's kind."""
    letters = [*"abcdefght▁.,1", "é"]
    vocab, merges = random_merges(seed, ["<unk>", *BYTES, *letters] if model.get("byte_fallback", True) else ["<unk>", *letters])
    reference = Reference(models.BPE(vocab, merges, **({"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True} | model)))
    if normalizer:
        reference.normalizer = normalizer
    if pre_tokenizer:
        reference.pre_tokenizer = pre_tokenizer
    reference.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return reference


def legacy(*before: Any) -> Any:
    return normalizers.Sequence([*before, normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def metaspace(scheme: str, split: bool = False) -> Any:
    return pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)


KINDS: dict[str, Callable[[int], Reference]] = {
    "byte-level": byte_level,
    "byte-level, NFC": lambda seed: byte_level(seed, normalizers.NFC()),
    "byte-level, NFKC": lambda seed: byte_level(seed, normalizers.NFKC()),
    "legacy": lambda seed: spaced(seed, legacy()),
    "legacy, NFKC": lambda seed: spaced(seed, legacy(normalizers.NFKC())),
    "first": lambda seed: spaced(seed, None, metaspace("first")),
    "always": lambda seed: spaced(seed, None, metaspace("always")),
    "never": lambda seed: spaced(seed, None, metaspace("never")),
    "replaced": lambda seed: spaced(seed, normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")),
    "split": lambda seed: spaced(seed, None, metaspace("always", split=True)),
    "unknown": lambda seed: spaced(seed, legacy(), None, byte_fallback=False),
    "each unknown": lambda seed: spaced(seed, legacy(), None, byte_fallback=False, fuse_unk=False),
    "no unknown": lambda seed: spaced(seed, legacy(), None, byte_fallback=False, unk_token=None),
}


def read(folder: Path) -> Tokenizer:
    files = read_tokenizer_folder(folder)
    return Tokenizer.from_gguf(files.metadata, folder, files.stop_ids)


def saved(reference: Reference, folder: Path) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    reference.save(str(folder / "tokenizer.json"))
    return read(folder)


def ids(reference: Reference, text: str) -> list[int] | None:
    """None where the package itself panics, for two tokens took the same white space."""
    try:
        return list(reference.encode(text, add_special_tokens=False).ids)
    except BaseException as error:
        assert type(error).__name__ == "PanicException", error
        return None


def folder_of(reference: Reference, folder: Path) -> Path:
    """A tiny model with this tokenizer."""
    write_hf(folder, tiny_weights(vocab_size=reference.get_vocab_size()), vocab_size=reference.get_vocab_size(), eos_token_id=None)
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    reference.save(str(folder / "tokenizer.json"))
    return folder
