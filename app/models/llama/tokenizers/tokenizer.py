"""Text to ids and back: special tokens, BOS and streaming, the same over both kinds of vocabulary."""

import codecs
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.sanitize import quoted
from app.models.llama.tokenizers.vocabulary import NORMALIZER, SPACE_AT_START_ONLY, SPACE_WHERE_ABSENT, TokenizerError, Vocabulary, strings

__all__ = ["StreamDecoder", "Tokenizer", "TokenizerError"]


class PlainEncoder(Protocol):
    """A vocabulary's way with text that holds no special tokens."""

    prefix_space: bool  # a text starts with one space more than was written
    prefix_after_special: bool  # and so does what follows a special token

    def encode(self, text: str, begins: bool) -> list[int]:
        """`begins`: this is where a text starts, so that the space belongs here."""
        ...

    def token_bytes(self, n: int) -> bytes: ...


class Tokenizer:
    """`stop_ids` are all ids that end a text or a turn; `add_bos` is the model's own rule, which `encode` follows."""

    def __init__(self, vocabulary: Vocabulary, encoder: PlainEncoder, add_bos: bool, chat_template: str | None) -> None:
        self._vocabulary, self._encoder = vocabulary, encoder
        self.chat_template = chat_template
        self.bos_id, self.eos_id = vocabulary.bos_id, vocabulary.eos_id
        self.add_bos = add_bos and self.bos_id is not None
        self.space_after_special = encoder.prefix_after_special  # what follows a special token begins as a text does, with a space
        self.stop_ids = vocabulary.stop_ids
        self.stop_is_chosen = False  # by the user: then nothing else ends an answer
        self.special_ids = {vocabulary.tokens[n]: n for n in vocabulary.control_ids}
        literals = {vocabulary.tokens[n]: n for n in vocabulary.literal_ids}
        self._with_special, self._without_special = _Splitter(literals | self.special_ids), _Splitter(literals)
        self._bytes: dict[int, bytes] = dict.fromkeys(vocabulary.control_ids, b"")
        self._bytes |= {n: token.encode("utf-8", "replace") for token, n in literals.items()}

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], path: Path | str = "the model", stop_ids: Collection[int] = ()) -> "Tokenizer":
        """`stop_ids` add to the ends that `metadata` names.

        Raises TokenizerError for a kind of vocabulary that is not supported, by name, and for a damaged one.
        """
        vocabulary = Vocabulary.from_gguf(metadata, path, stop_ids)
        declared = metadata.get("tokenizer.ggml.model")
        model = declared if isinstance(declared, str) else None

        def flag(key: str, default: bool) -> bool:
            value = metadata.get(f"tokenizer.ggml.{key}", default)
            if not isinstance(value, int):
                raise vocabulary.fail(f"gives tokenizer.ggml.{key} as {quoted(value)}; true or false is needed")
            return bool(value)

        encoder: PlainEncoder
        if model == "gpt2":
            from app.models.llama.tokenizers.byte_bpe import BOS_BY_DEFAULT, ByteLevelBPE

            pre = str(metadata.get("tokenizer.ggml.pre", "default"))
            merges = strings(metadata.get("tokenizer.ggml.merges"))
            encoder = ByteLevelBPE(vocabulary, merges, pre, vocabulary.control_ids, _rule(metadata, vocabulary))
            add_bos = pre in BOS_BY_DEFAULT
        elif model == "llama":
            from app.models.llama.tokenizers.sentencepiece import SentencePiece

            encoder = SentencePiece(
                vocabulary,
                flag("add_space_prefix", True),
                rule=_rule(metadata, vocabulary),
                strip=flag("remove_extra_whitespaces", False),
                at_start_only=metadata.get(SPACE_AT_START_ONLY) is True,
                where_absent=metadata.get(SPACE_WHERE_ABSENT) is True,
            )
            add_bos = True
        else:
            raise vocabulary.fail(
                f"has a tokenizer of kind {quoted(declared)}", "Townhall supports gpt2 (byte-level BPE) and llama (SentencePiece)"
            )
        template = metadata.get("tokenizer.chat_template")
        return cls(vocabulary, encoder, flag("add_bos_token", add_bos), template if isinstance(template, str) else None)

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
        ids: list[int] = []
        fresh, plain = not continued, ""

        def settle() -> None:
            nonlocal fresh, plain
            if plain:
                ids.extend(self._encoder.encode(plain, begins=fresh))
                fresh, plain = False, ""

        for text, special in pieces:
            splitter = self._with_special if special else self._without_special
            for part in splitter.split(text.encode("utf-8", "replace").decode()):  # a lone surrogate becomes "?"
                if isinstance(part, str):
                    plain += part
                else:
                    settle()
                    ids.append(part)
                    fresh = self._encoder.prefix_after_special
        settle()
        if bos and self.add_bos and self.bos_id is not None and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def token_bytes(self, n: int) -> bytes:
        """What one id adds to the text: control tokens and ids beyond the vocabulary add nothing."""
        if (known := self._bytes.get(n)) is None:
            known = self._encoder.token_bytes(n) if 0 <= n < self.vocab_size else b""
            self._bytes[n] = known
        return known

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


class _Splitter:
    """Finds tokens in a text, at each place the longest that fits."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self._tokens = tokens
        self._lengths: dict[str, list[int]] = {}  # first character → lengths, longest first
        for token in tokens:
            self._lengths.setdefault(token[0], []).append(len(token))
        self._lengths = {first: sorted(set(lengths), reverse=True) for first, lengths in self._lengths.items()}

    def split(self, text: str) -> Iterator[str | int]:
        """Plain stretches as text, found tokens as ids."""
        start = pos = 0
        while pos < len(text):
            for length in self._lengths.get(text[pos], ()):
                found = self._tokens.get(text[pos : pos + length])
                if found is not None:
                    if start < pos:
                        yield text[start:pos]
                    yield found
                    start = pos = pos + length
                    break
            else:
                pos += 1
        if start < len(text):
            yield text[start:]
