"""SentencePiece BPE (LLaMA 1 and 2, Mistral): the model file rebuilt from a GGUF's pieces, scores and types.

The wire format is protocol buffers' (https://protobuf.dev/programming-guides/encoding), the fields those of
sentencepiece_model.proto; writing the few that matter by hand spares a dependency on protobuf.
"""

import struct

from sentencepiece import SentencePieceProcessor

from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.sanitize import clipped
from app.models.llama.tokenizers.vocabulary import Vocabulary, normalizer

SPACE = "▁"
BPE = 2  # TrainerSpec.ModelType
VARINT, BYTES, FLOAT = 0, 2, 5


class SentencePiece:
    """Encodes plain text; control pieces are the caller's business: SentencePiece itself never matches them in a text."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prefix_space: bool,
        rule: str | None = None,
        strip: bool = False,
        at_start_only: bool = False,
        where_absent: bool = False,
    ) -> None:
        """`rule` and `strip` as `normalizer` takes them; the others say where the space goes that a text starts with."""
        self.prefix_space, self.prefix_after_special = prefix_space, prefix_space and not at_start_only
        self._where_absent, self._strip, self._normalise = where_absent, strip, normalizer(rule, strip)
        self._tokens, self._byte_ids = vocabulary.tokens, vocabulary.of_type(TokenType.BYTE)
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model_proto(vocabulary))
        except RuntimeError as error:
            raise vocabulary.fail(f"has a vocabulary that SentencePiece refuses ({clipped(error)})") from None

    def encode(self, text: str, begins: bool = False) -> list[int]:
        normal = self._normalise(text)
        if begins:
            spaced = self._where_absent and normal.startswith((" ", SPACE))
            normal = " " + normal if normal and self.prefix_space and not spaced else normal
        elif self._strip and text[:1].isspace():  # it goes on from a word
            normal = " " + normal
        return list(self._processor.EncodeAsIds(normal))

    def token_bytes(self, n: int) -> bytes:
        token = self._tokens[n]
        if n in self._byte_ids:
            return bytes([int(token[3:5], 16)])  # <0x0A>
        return token.replace(SPACE, " ").encode("utf-8", "replace")


def model_proto(vocabulary: Vocabulary) -> bytes:
    """A ModelProto with the vocabulary's ids in order; the space before the first word is left to the caller."""
    if vocabulary.scores is None:
        raise vocabulary.fail("has SentencePiece tokens but no scores (tokenizer.ggml.scores)")
    types = vocabulary.types.tolist()
    unknown = list(vocabulary.of_type(TokenType.UNKNOWN))
    if len(unknown) != 1:
        raise vocabulary.fail(f"marks {len(unknown)} tokens as unknown where SentencePiece needs one")
    byte_tokens = {vocabulary.tokens[n] for n in vocabulary.of_type(TokenType.BYTE)}
    if byte_tokens and byte_tokens != {f"<0x{byte:02X}>" for byte in range(256)}:
        raise vocabulary.fail(f"has {len(byte_tokens)} byte tokens that are not <0x00> to <0xFF>")
    control, pieces = vocabulary.control_ids, []
    for n, (token, score) in enumerate(zip(vocabulary.tokens, vocabulary.scores.tolist(), strict=True)):
        kind = int(TokenType.CONTROL) if n in control and n != unknown[0] else types[n]
        piece = token.encode("utf-8", "replace")
        body = b"\x0a" + _varint(len(piece)) + piece + b"\x15" + struct.pack("<f", score) + b"\x18" + _varint(kind)
        pieces.append(b"\x0a" + _varint(len(body)) + body)
    trainer = _number(3, BPE) + _number(4, len(types)) + _number(35, int(bool(byte_tokens))) + _number(40, unknown[0])
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
