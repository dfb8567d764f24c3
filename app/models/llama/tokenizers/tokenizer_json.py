"""A Hugging Face tokenizer.json, translated into the metadata a GGUF would carry.

Its patterns are looked up among those Townhall knows and never handed to a regex engine: a crafted one would run for ever.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.sanitize import quoted
from app.models.llama.tokenizers.split_patterns import DIGIT, DIGITS, GPT2, PRE_TOKENIZERS, SPACES, WHOLE_PIECES
from app.models.llama.tokenizers.vocabulary import (
    EACH,
    LEFT_OUT,
    MERGES,
    NORMALIZER,
    SPACE_AT_START_ONLY,
    SPACE_WHERE_ABSENT,
    SPLIT_AT_SPACES,
    UNICODE,
    UNKNOWN_CHARACTERS,
    WHOLE_PIECES_FIRST,
    TokenizerError,
)

MAX_TOKENS = 1 << 21
BYTE_TOKENS = {f"<0x{byte:02X}>" for byte in range(256)}
MEND = "use a LLaMA's, or put its tokenizer.model beside it"


def read_tokenizer_json(content: Mapping[str, Any], path: object, unknown_token: str | None = None) -> dict[str, Any]:
    """GGUF's tokenizer.ggml.* metadata, special ids and added tokens aside. TokenizerError for what is damaged or not supported, by name.

    `unknown_token` is another file's word on it, for transformers 5 leaves it out of a tokenizer.json.
    """

    def fail(fault: str) -> TokenizerError:
        return TokenizerError(f"{path} {fault}; {MEND}")

    model = content.get("model")
    if not isinstance(model, Mapping):
        raise fail("holds no model")
    if model.get("type", "BPE") != "BPE":
        raise fail(f"holds a tokenizer of type {quoted(model['type'])}, where Townhall supports BPE")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise fail(f"asks for {key} {quoted(model[key])}, which Townhall does not support")
    vocab = model.get("vocab")
    if not isinstance(vocab, Mapping) or not vocab or not all(type(n) is int and 0 <= n < MAX_TOKENS for n in vocab.values()):
        raise fail("holds no sound vocabulary")
    tokens: list[str | None] = [None] * (max(vocab.values()) + 1)
    for token, n in vocab.items():
        if tokens[n] is not None:
            raise fail(f"gives two tokens the id {n}")
        tokens[n] = token
    words = [token if token else f"[PAD{n}]" for n, token in enumerate(tokens)]
    types = np.array([TokenType.NORMAL if token else TokenType.UNUSED for token in tokens], np.int32)
    # nothing is spelled with a space by the time it is merged
    merges = [f"{left} {right}" for left, right in _merges(model.get("merges"), fail) if " " not in left + right]
    whole = bool(model.get("ignore_merges"))
    steps = list(_steps(content.get("pre_tokenizer")))
    decoder, cuts = _kinds(_steps(content.get("decoder"))), _kinds(steps)
    normalizers = list(_steps(content.get("normalizer")))
    if "ByteLevel" in cuts or decoder == {"ByteLevel"}:
        return (
            _rule(normalizers, fail)
            | _pre_tokenizer(steps, whole, fail)
            | {
                "tokenizer.ggml.model": "gpt2",
                "tokenizer.ggml.tokens": words,
                "tokenizer.ggml.token_type": types,
                "tokenizer.ggml.merges": merges,
                "tokenizer.ggml.add_bos_token": _begins_with_special(content.get("post_processor")),
            }
        )
    if not model.get("byte_fallback") and "Metaspace" not in decoder | cuts and not any(map(_writes_spaces, normalizers)):
        raise fail("is neither byte-level nor SentencePiece's kind of BPE")
    if whole:
        raise fail("ignores merges, which Townhall supports in byte-level BPE")
    for n, word in enumerate(words):
        if word in BYTE_TOKENS and model.get("byte_fallback"):
            types[n] = TokenType.BYTE
    unknown = model["unk_token"] if isinstance(model.get("unk_token"), str) else None
    marked = next((vocab[word] for word in (unknown, unknown_token, "<unk>") if word is not None and word in vocab), None)
    if marked is not None:
        types[marked] = TokenType.UNKNOWN
    unknown_id = {} if marked is None else {"tokenizer.ggml.unknown_token_id": marked}
    if not (types == TokenType.BYTE).sum() == len(BYTE_TOKENS):
        said = LEFT_OUT if unknown not in vocab else None if model.get("fuse_unk") else EACH
        unknown_id |= {UNKNOWN_CHARACTERS: said} if said else {}
    spaced = [step for step in normalizers if not _writes_spaces(step)]
    return (unknown_id | _rule(spaced, fail) | _space(normalizers, steps, words, fail)) | {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": _scores(words, vocab, merges),
        MERGES: merges,
        "tokenizer.ggml.add_bos_token": _begins_with_special(content.get("post_processor")),
    }


def _merges(merges: Any, fail: Any) -> list[tuple[str, str]]:
    """Pairs, whether written "a b" or ["a", "b"]."""
    if not isinstance(merges, list):
        raise fail("holds no merges")
    pairs = []
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
            raise fail(f"holds the merge {quoted(merge)}, which is no pair")
        pairs.append((parts[0], parts[1]))
    return pairs


def _steps(part: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """A pre-tokenizer, normalizer or decoder as a flat sequence."""
    if not isinstance(part, Mapping) or depth > 8:
        return
    for key in ("pretokenizers", "normalizers", "decoders", "processors"):
        if part.get("type") == "Sequence" and isinstance(part.get(key), list):
            for step in part[key]:
                yield from _steps(step, depth + 1)
            return
    yield part


def _kinds(steps: Iterable[Mapping[str, Any]]) -> set[str]:
    return {kind for step in steps if isinstance(kind := step.get("type"), str)}


def _pre_tokenizer(steps: list[Mapping[str, Any]], whole: bool, fail: Any) -> dict[str, Any]:
    """The GGUF name of a sequence of splits, of the models that take whole pieces as this one does where there is one."""
    patterns: list[str] = []
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", **rest} if not rest.get("invert"):
                patterns.append(pattern)
            case {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Removed", "invert": True} if pattern.endswith(SPACES):
                patterns.append(pattern)  # what does not match is removed, but everything matches
            case {"type": "Digits", **rest}:
                patterns.append(DIGIT if rest.get("individual_digits") else DIGITS)
            case {"type": "ByteLevel", **rest} if not rest.get("add_prefix_space"):
                if rest.get("use_regex", True):
                    patterns.append(GPT2)
            case _:
                raise fail(f"splits text by {quoted(dict(step))}, which Townhall does not know")
    # possessive quantifiers change nothing where what follows cannot match the same characters
    plain = tuple(pattern.replace(r"?+\p{L}", r"?\p{L}").replace("]++", "]+") for pattern in patterns)
    names = [name for name, known in PRE_TOKENIZERS.items() if known == plain]
    if not names:
        raise fail(f"splits text by the pattern {quoted(patterns)}, which Townhall does not know")
    same = [name for name in names if (name in WHOLE_PIECES) == whole]
    return {"tokenizer.ggml.pre": (same or names)[0]} | ({} if same else {WHOLE_PIECES_FIRST: whole})


def _scores(words: list[str], vocab: Mapping[str, int], merges: list[str]) -> np.ndarray:
    """SentencePiece merges what has the highest score: the earlier a merge, the higher."""
    scores = np.full(len(words), -1e6, np.float32)
    for rank, merge in reversed(list(enumerate(merges))):
        if (n := vocab.get(merge.replace(" ", ""))) is not None:
            scores[n] = -rank
    return scores


def _rule(normalizers: list[Mapping[str, Any]], fail: Any) -> dict[str, Any]:
    """One of Unicode's normal forms at most."""
    kinds = [step.get("type") for step in normalizers]
    if not kinds:
        return {}
    if len(kinds) > 1 or kinds[0] not in UNICODE:
        raise fail(f"changes text by {quoted(kinds[0] if len(kinds) == 1 else kinds)} before it cuts it, which Townhall does not know")
    return {NORMALIZER: kinds[0]}


def _writes_spaces(step: Mapping[str, Any]) -> bool:
    """A normalizer that writes spaces as ▁, or puts one in front: SentencePiece's own ways."""
    match step:
        case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"} | {"type": "Prepend", "prepend": "▁"}:
            return True
    return False


def _space(normalizers: list[Mapping[str, Any]], steps: list[Mapping[str, Any]], words: list[str], fail: Any) -> dict[str, bool]:
    """Where a text gets the space that it begins with."""
    space: dict[str, bool] = {"tokenizer.ggml.add_space_prefix": any(step.get("type") == "Prepend" for step in normalizers)}
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"String": " "}} if "Replace" in _kinds(normalizers):
                continue  # there are none left
            case {"type": "Metaspace", **rest} if rest.get("replacement", "▁") == "▁":
                scheme = rest.get("prepend_scheme") or ("always" if rest.get("add_prefix_space", True) else "never")
                if rest.get("split", True) and any("▁" in word[1:] for word in words):
                    space |= {SPLIT_AT_SPACES: True}
                space |= {"tokenizer.ggml.add_space_prefix": scheme != "never", SPACE_WHERE_ABSENT: True}
                space |= {SPACE_AT_START_ONLY: True} if scheme == "first" else {}
            case _:
                raise fail(f"splits text by {quoted(dict(step))}, which Townhall does not know")
    return space


def _begins_with_special(processor: Any) -> bool:
    """The template of one text begins with a special token: BOS."""
    for step in _steps(processor):
        single = step.get("single")
        if step.get("type") == "TemplateProcessing" and isinstance(single, list) and single:
            return isinstance(single[0], Mapping) and "SpecialToken" in single[0]
    return False
