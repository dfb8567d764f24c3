"""Text to ids and back: special tokens, BOS and streaming, the same over both kinds of vocabulary."""

import codecs
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.sanitize import quoted
from app.models.llama.tokenizers.added_tokens import Match, Spans, TokenFinder, read_matches
from app.models.llama.tokenizers.split_patterns import BOS_BY_DEFAULT
from app.models.llama.tokenizers.vocabulary import (
    ADDED_ONLY,
    MERGES,
    NORMALIZER,
    SPACE_AT_START_ONLY,
    SPACE_WHERE_ABSENT,
    SPLIT_AT_SPACES,
    UNKNOWN_CHARACTERS,
    WHOLE_PIECES_FIRST,
    TokenizerError,
    Vocabulary,
    strings,
)

__all__ = ["StreamDecoder", "Tokenizer", "TokenizerError"]

# llama.cpp's other kinds of vocabulary
OTHER_KINDS = {
    "bert": "WordPiece",
    "t5": "a unigram model",
    "rwkv": "a trie",
    "gemma4": "Gemma 4's BPE",
    "plamo2": "PLaMo's",
    "none": "none",
}


class PlainEncoder(Protocol):
    """A vocabulary's way with text that holds no special tokens."""

    prefix_space: bool  # a text starts with one space more than was written
    prefix_after_special: bool  # and so does what follows a special token

    def normal(self, text: str, begins: bool) -> str:
        """The text's normal form. `begins`: this is where a text starts, so that the space belongs here."""
        ...

    def encode(self, normal: str, begins: bool) -> list[int]: ...
    def token_bytes(self, n: int) -> bytes: ...
    def added_bytes(self, token: str) -> bytes:
        """What an added token adds to a text."""
        ...


class Tokenizer:
    """`stop_ids` are all ids that end a text or a turn; `add_bos` is the model's own rule, which `encode` follows."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        encoder: PlainEncoder,
        add_bos: bool,
        chat_template: str | None = None,
        matches: Mapping[int, Match] = MappingProxyType({}),
    ) -> None:
        self._vocabulary, self._encoder = vocabulary, encoder
        self.chat_template = chat_template
        self.bos_id, self.eos_id = vocabulary.bos_id, vocabulary.eos_id
        self.add_bos = add_bos and self.bos_id is not None
        self.space_after_special = encoder.prefix_after_special  # what follows a special token begins as a text does, with a space
        self.stop_ids = vocabulary.stop_ids
        self.stop_is_chosen = False  # by the user: then nothing else ends an answer
        self.special_ids = {vocabulary.tokens[n]: n for n in vocabulary.control_ids}
        literals = {vocabulary.tokens[n]: n for n in vocabulary.literal_ids}
        added = literals | self.special_ids
        normalised = {token: n for token, n in added.items() if matches.get(n, 0) & Match.NORMALIZED}
        plain = {token: n for token, n in added.items() if token not in normalised}
        self._plain = TokenFinder(plain, vocabulary.control_ids, matches)
        normal_forms = {encoder.normal(token, begins=True): n for token, n in normalised.items()}
        self._normalised = TokenFinder(normal_forms, vocabulary.control_ids, matches)
        self._marked_in_normal_form = not vocabulary.control_ids.isdisjoint(normalised.values())
        self._bytes: dict[int, bytes] = dict.fromkeys(vocabulary.control_ids, b"")
        self._bytes |= {n: encoder.added_bytes(token) for token, n in literals.items()}

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], path: Path | str = "the model", stop_ids: Collection[int] = ()) -> "Tokenizer":
        """`stop_ids` add to the ends that `metadata` names.

        Raises TokenizerError for a kind of vocabulary that is not supported, by name, and for a damaged one.
        """
        vocabulary = Vocabulary.from_gguf(metadata, path, stop_ids)
        matches = read_matches(metadata, vocabulary)
        declared = metadata.get("tokenizer.ggml.model")
        model = declared if isinstance(declared, str) else None

        def flag(key: str, default: bool) -> bool:
            value = metadata.get(f"tokenizer.ggml.{key}", default)
            if not isinstance(value, int):
                raise vocabulary.fail(f"gives tokenizer.ggml.{key} as {quoted(value)}; true or false is needed")
            return bool(value)

        encoder: PlainEncoder
        if model == "gpt2":
            from app.models.llama.tokenizers.byte_bpe import ByteLevelBPE

            pre = str(metadata.get("tokenizer.ggml.pre", "default"))
            merges, whole = strings(metadata.get("tokenizer.ggml.merges")), metadata.get(WHOLE_PIECES_FIRST)
            apart = _apart(metadata, vocabulary)
            encoder = ByteLevelBPE(vocabulary, merges, pre, apart, whole if isinstance(whole, bool) else None, _rule(metadata, vocabulary))
            add_bos = pre in BOS_BY_DEFAULT
        elif model == "llama":
            from app.models.llama.tokenizers.sentencepiece import SentencePiece, by_merges, by_score

            if MERGES in metadata:
                merges, unknown = strings(metadata[MERGES]), metadata.get(UNKNOWN_CHARACTERS)
                pieces = by_merges(vocabulary, merges, _apart(metadata, vocabulary), unknown, metadata.get(SPLIT_AT_SPACES) is True)
            else:
                pieces = by_score(vocabulary)
            encoder = SentencePiece(
                vocabulary,
                pieces,
                flag("add_space_prefix", True),
                rule=_rule(metadata, vocabulary),
                strip=flag("remove_extra_whitespaces", False),
                at_start_only=metadata.get(SPACE_AT_START_ONLY) is True,
                where_absent=metadata.get(SPACE_WHERE_ABSENT) is True,
            )
            add_bos = True
        else:
            kind = f"{quoted(declared)}{f', {OTHER_KINDS[model]}' if model in OTHER_KINDS else ''}"
            raise vocabulary.fail(f"has a tokenizer of kind {kind}", "Townhall supports gpt2 (byte-level BPE) and llama (SentencePiece)")
        template = metadata.get("tokenizer.chat_template")
        return cls(vocabulary, encoder, flag("add_bos_token", add_bos), template if isinstance(template, str) else None, matches)

    def stop_at(self, tokens: Iterable[str]) -> None:
        """End at these tokens, spelled out or as ids, whatever the files declare. TokenizerError for one that is not there."""
        self.stop_ids, self.stop_is_chosen = frozenset(map(self._named, tokens)), True

    def _named(self, token: str) -> int:
        # a number is an id: who means the digit can look its id up
        n = int(token) if token.isascii() and token.isdecimal() and len(token) < 9 else self._vocabulary.ids.get(token, -1)
        if not 0 <= n < self.vocab_size:
            raise TokenizerError(f"--eos {quoted(token)} is no token of this model; pass one as the vocabulary spells it, or its id")
        return n

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary.tokens)

    def undecodable(self, rows: int) -> np.ndarray:
        """Of `rows` ids those that stand for nothing, int64: padding of the embedding and holes in the vocabulary. Never to be sampled."""
        unused = self._vocabulary.of_type(TokenType.UNUSED) - self.stop_ids
        return np.array([*sorted(unused), *range(self.vocab_size, rows)], np.int64)

    @property
    def bos_token(self) -> str:
        return "" if self.bos_id is None else self._vocabulary.tokens[self.bos_id]

    @property
    def eos_token(self) -> str:
        return "" if self.eos_id is None else self._vocabulary.tokens[self.eos_id]

    def encode(self, text: str, bos: bool = True, special: bool = True) -> list[int]:
        """Ids of one text. With `special` False, "<|im_end|>" is ten characters of text, never the token.

        BOS comes first where `bos` and the model's rule ask for it and the text does not already begin with it.
        """
        return self.encode_pieces([(text, special)], bos)

    def encode_pieces(self, pieces: Iterable[tuple[str, bool]], bos: bool = True, continued: bool = False) -> list[int]:
        """Ids of (text, special) pieces as one text: merges reach across their borders, exactly as if it had been rendered whole.

        `continued` says that plain text came before, so that SentencePiece puts no space in front.
        """
        whole, wanted, at = [], [], 0
        for text, special in pieces:
            whole.append(text.encode("utf-8", "replace").decode())  # a lone surrogate becomes "?"
            if special and text:
                wanted.append((at, at + len(text)))
            at += len(text)
        ids, fresh = list[int](), not continued
        text = "".join(whole)
        for start, stop, n in self._plain.split(text, wanted):
            if n is not None:
                ids.append(n)
                fresh = self._encoder.prefix_after_special
                continue
            normal = self._encoder.normal(text[start:stop], fresh)
            spans: Spans = ()
            if self._marked_in_normal_form:
                spans = [(max(a - start, 0), min(b, stop) - start) for a, b in wanted if a < stop and b > start]
                spans = self._moved(text[start:stop], normal, spans, fresh)
            ids += self._encode_normal(normal, spans, fresh) if self._normalised else self._encoder.encode(normal, fresh)
            fresh = False
        if bos and self.add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def _encode_normal(self, normal: str, wanted: Spans, fresh: bool) -> list[int]:
        """Of a normal form, in which added tokens are looked for by theirs."""
        ids: list[int] = []
        for start, stop, n in self._normalised.split(normal, wanted):
            ids += [n] if n is not None else self._encoder.encode(normal[start:stop], fresh)
            fresh = n is not None and self._encoder.prefix_after_special
        return ids

    def _moved(self, text: str, normal: str, spans: Spans, fresh: bool) -> Spans:
        """Where the spans of a text lie in its normal form."""
        if normal == text:
            return spans

        def moved(at: int) -> int:
            return 0 if at == 0 else len(normal) if at == len(text) else len(self._encoder.normal(text[:at], fresh))

        return [(moved(first), moved(last)) for first, last in spans]

    def token_bytes(self, n: int) -> bytes:
        """What one id adds to the text: control tokens and ids beyond the vocabulary add nothing."""
        if (known := self._bytes.get(n)) is None:
            known = self._encoder.token_bytes(n) if 0 <= n < self.vocab_size else b""
            self._bytes[n] = known
        return known

    def spellings(self) -> Iterator[tuple[int, bytes]]:
        """Every id of the vocabulary, and what it adds to a text."""
        return ((n, self.token_bytes(n)) for n in range(self.vocab_size))

    def decode(self, ids: Iterable[int]) -> str:
        """The inverse of `encode`: special tokens vanish, bytes that are not UTF-8 show as U+FFFD."""
        stream = self.stream()
        return "".join(map(stream.push, ids)) + stream.flush()

    def stream(self, continued: bool = False) -> "StreamDecoder":
        """Decode id by id. `continued` keeps SentencePiece's leading space: the ids go on from a text that was shown."""
        return StreamDecoder(self, strip_space=self._encoder.prefix_space and not continued)


def _rule(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> str | None:
    from app.models.llama.tokenizers.vocabulary import RULES

    rule = metadata.get(NORMALIZER)
    if rule is not None and (not isinstance(rule, str) or rule not in RULES):
        raise vocabulary.fail(f"normalises text by {quoted(rule)} ({NORMALIZER})", f"Townhall supports {', '.join(RULES)}")
    return rule


class StreamDecoder:
    """Holds back the bytes of an unfinished character; all pushes and the flush together equal `decode`."""

    def __init__(self, tokenizer: Tokenizer, strip_space: bool) -> None:
        self._tokenizer, self._strip_space = tokenizer, strip_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, n: int) -> str:
        """The text that is certain now; "" while a character is unfinished and for special tokens."""
        data = self._tokenizer.token_bytes(n)
        if data and self._strip_space:
            data, self._strip_space = data.removeprefix(b" "), False
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What an unfinished character leaves: U+FFFD or nothing."""
        return self._decoder.decode(b"", final=True)


def _apart(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> set[int]:
    """Ids that no merge makes: control tokens, and what was added to the model's own vocabulary. Single characters spell the others."""
    added = metadata.get(ADDED_ONLY)
    alone = set(added.tolist()) if isinstance(added, np.ndarray) else set()
    control = {n for n in vocabulary.control_ids if len(vocabulary.tokens[n]) > 1}
    return control | alone & (vocabulary.control_ids | vocabulary.literal_ids)
