"""SentencePiece BPE (LLaMA 1 and 2, Mistral, Gemma), merged by score or, out of a tokenizer.json, by a list.

For the former the model file is rebuilt from pieces, scores and types. The wire format is protocol buffers'
(https://protobuf.dev/programming-guides/encoding), the fields those of sentencepiece_model.proto; writing the few that matter by hand
spares a dependency on protobuf.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.sanitize import clipped
from app.models.llama.tokenizers.vocabulary import EACH, LEFT_OUT, MERGES, Vocabulary, normalizer, strings

SPACE = "▁"
BPE = 2  # TrainerSpec.ModelType
VARINT, BYTES, FLOAT = 0, 2, 5


class SentencePiece:
    """Encodes plain text; control pieces are the caller's business: no text spells one."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        pieces: Callable[[str], list[int]],
        prefix_space: bool,
        rule: str | None = None,
        strip: bool = False,
        at_start_only: bool = False,
        where_absent: bool = False,
    ) -> None:
        """`pieces` gives the ids of a text in normal form. `rule` and `strip` as `normalizer` takes them; the others say where the space
        goes that a text starts with; one that is put only where there is none yet comes after added tokens were looked for.
        """
        self.prefix_space, self.prefix_after_special = prefix_space, prefix_space and not at_start_only
        self._where_absent, self._strip, self._normalise = where_absent, strip, normalizer(rule, strip)
        self._tokens, self._byte_ids = vocabulary.tokens, vocabulary.of_type(TokenType.BYTE)
        self._pieces = pieces

    def normal(self, text: str, begins: bool = False) -> str:
        normal = self._normalise(text)
        if not begins and self._strip and text[:1].isspace():  # it goes on from a word
            normal = SPACE + normal
        if self._where_absent:
            return normal
        return (SPACE + normal if begins and normal and self.prefix_space else normal).replace(" ", SPACE)

    def encode(self, normal: str, begins: bool = False) -> list[int]:
        spaced = normal.replace(" ", SPACE)
        if begins and self._where_absent and self.prefix_space and not spaced.startswith(SPACE):
            spaced = SPACE + spaced
        return self._pieces(spaced)

    def token_bytes(self, n: int) -> bytes:
        token = self._tokens[n]
        if n in self._byte_ids:
            return bytes([int(token[3:5], 16)])  # <0x0A>
        return self.added_bytes(token)

    def added_bytes(self, token: str) -> bytes:
        return token.replace(SPACE, " ").encode("utf-8", "replace")


def by_score(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """As SentencePiece's own library merges: the neighbours that make the piece of highest score, again and again."""
    from sentencepiece import SentencePieceProcessor

    processor, size = SentencePieceProcessor(), len(vocabulary.tokens)
    try:
        processor.LoadFromSerializedProto(model_proto(vocabulary))
    except RuntimeError as error:
        raise vocabulary.fail(f"has a vocabulary that SentencePiece refuses ({clipped(error)})") from None
    return lambda text: [n for n in processor.EncodeAsIds(text) if n < size]


def by_merges(
    vocabulary: Vocabulary, merges: Sequence[str], apart: Collection[int], unknown: object, split: bool
) -> Callable[[str], list[int]]:
    """As the tokenizers package merges, by a list; bytes stand for what is no token where the vocabulary has them.

    `apart` are ids that no merge makes. `unknown` is EACH or LEFT_OUT where unknown characters in a row are not one. With `split`, no merge
    reaches over a space.
    """
    from tokenizers import Tokenizer, pre_tokenizers

    from app.models.llama.tokenizers.byte_bpe import bpe_model

    n = None if unknown == LEFT_OUT else vocabulary.unknown_id
    token = None if n is None else vocabulary.tokens[n]
    has_bytes = bool(vocabulary.of_type(TokenType.BYTE))
    tokenizer = Tokenizer(bpe_model(vocabulary, merges, {*apart} - {n}, unk_token=token, fuse_unk=unknown != EACH, byte_fallback=has_bytes))
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    return lambda text: list(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def merges_are_scores(metadata: Mapping[str, Any]) -> tuple[bool, bool]:
    """Does merging by the listed MERGES give what merging by score gives: nearly always, and always?

    It does where every pair of tokens that makes a token is listed, pairs that make the same token stand together, and behind those that
    make their parts. What is left are places where two such pairs overlap, for the list may take the right one first, and user-defined
    pieces, which SentencePiece takes before it merges.
    """
    tokens, types = strings(metadata.get("tokenizer.ggml.tokens")), metadata.get("tokenizer.ggml.token_type")
    types = [int(TokenType.NORMAL)] * len(tokens) if types is None else types.tolist()
    mergeable = {token for token, kind in zip(tokens, types) if kind in (TokenType.NORMAL, TokenType.USER_DEFINED)}
    ranks: dict[tuple[str, str], int] = {}
    made: dict[str, int] = {}  # token → rank of its first pair
    last = ""
    for rank, merge in enumerate(strings(metadata.get(MERGES))):
        left, _, right = merge.partition(" ")
        if (token := left + right) != last and token in made:
            return False, False
        ranks[left, right], last = rank, token
        made.setdefault(token, rank)
    always = not any(token in made for token, kind in zip(tokens, types) if kind == TokenType.USER_DEFINED)
    for token in mergeable:
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in mergeable and right in mergeable:
                rank = ranks.get((left, right), -1)
                if rank <= max(made.get(left, -1), made.get(right, -1)):
                    return False, False
                always &= not (token.startswith(right) and ranks.get((right, token[len(right) :]), rank) < rank)
    return True, always


def model_proto(vocabulary: Vocabulary) -> bytes:
    """A ModelProto with the vocabulary's ids in order; the space before the first word is left to the caller."""
    if vocabulary.scores is None:
        raise vocabulary.fail("has SentencePiece tokens but no scores (tokenizer.ggml.scores)")
    types, unknown = vocabulary.types.tolist(), vocabulary.unknown_id
    byte_tokens = {vocabulary.tokens[n] for n in vocabulary.of_type(TokenType.BYTE)}
    if byte_tokens and byte_tokens != {f"<0x{byte:02X}>" for byte in range(256)}:
        raise vocabulary.fail(f"has {len(byte_tokens)} byte tokens that are not <0x00> to <0xFF>")
    tokens, scores = vocabulary.tokens, vocabulary.scores.tolist()
    if unknown is None:
        if not byte_tokens:
            raise vocabulary.fail("marks 0 tokens as unknown where SentencePiece needs one")
        # the library asks for one, though bytes stand for all that has no token
        unknown, tokens, scores, types = (
            len(tokens),
            [*tokens, f"<unknown {len(tokens)}>"],
            [*scores, 0.0],
            [*types, int(TokenType.UNKNOWN)],
        )
    control, pieces = vocabulary.control_ids, []
    for n, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        kind = int(TokenType.CONTROL) if n in control and n != unknown else types[n]
        piece = token.encode("utf-8", "replace")
        body = b"\x0a" + _varint(len(piece)) + piece + b"\x15" + struct.pack("<f", score) + b"\x18" + _varint(kind)
        pieces.append(b"\x0a" + _varint(len(body)) + body)
    trainer = _number(3, BPE) + _number(4, len(types)) + _number(35, int(bool(byte_tokens))) + _number(40, unknown)
    normalizer = _bytes(1, b"identity") + _number(3, 0) + _number(4, 0) + _number(5, 1)  # no prefix, keep spaces, spaces as ▁
    return b"".join(pieces) + _bytes(2, trainer) + _bytes(3, normalizer)


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | BYTES) + _varint(len(value)) + value
