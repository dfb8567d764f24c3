"""Byte-level BPE (GPT-2's scheme): text as bytes, bytes as printable characters, split by a pattern, merged by rank.

`read_tiktoken` turns LLaMA 3's original tokenizer.model (lines of a token in base64 and its rank) into the metadata a GGUF would carry.
"""

import base64
import binascii
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.sanitize import clipped, quoted
from app.models.llama.tokenizers.split_patterns import COMMON, PRE_TOKENIZERS, WHOLE_PIECES
from app.models.llama.tokenizers.vocabulary import TokenizerError, Vocabulary, normalizer


def byte_alphabet() -> dict[str, int]:
    """GPT-2's table, character → byte: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


ALPHABET = byte_alphabet()


class ByteLevelBPE:
    """Encodes plain text; control tokens are the caller's business, and left out here so that no text can spell one."""

    prefix_space = prefix_after_special = False

    def __init__(
        self,
        vocabulary: Vocabulary,
        merges: Sequence[str],
        pre: str,
        apart: Collection[int],
        whole: bool | None = None,
        rule: str | None = None,
    ) -> None:
        """`apart` are ids that no merge makes; `whole` takes pieces that are tokens as they stand, by default where `pre` implies it."""
        if pre not in PRE_TOKENIZERS:
            mend = f"Townhall supports {', '.join(COMMON)} and {len(PRE_TOKENIZERS) - len(COMMON)} others"
            raise vocabulary.fail(f"splits text as {quoted(pre)} (tokenizer.ggml.pre)", mend)
        self._tokens = vocabulary.tokens
        model = bpe_model(vocabulary, merges, apart, ignore_merges=pre in WHOLE_PIECES if whole is None else whole)
        self._tokenizer = Tokenizer(model)
        steps: list[PreTokenizer] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[pre]]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        self._normalise = normalizer(rule)

    def normal(self, text: str, begins: bool = False) -> str:
        return self._normalise(text)

    def encode(self, normal: str, begins: bool = False) -> list[int]:
        # a batch of one: it takes half the time, for it keeps no offsets, and lets other threads run meanwhile, which encode does not
        return list(self._tokenizer.encode_batch_fast([normal], add_special_tokens=False)[0].ids)

    def added_bytes(self, token: str) -> bytes:
        return token.encode("utf-8", "replace")

    def token_bytes(self, n: int) -> bytes:
        """The bytes of an ordinary token; characters outside the alphabet, which no sound file has, stand for themselves."""
        token = self._tokens[n]
        try:
            return bytes([ALPHABET[char] for char in token])
        except KeyError:
            return token.encode("utf-8", "replace")


def bpe_model(vocabulary: Vocabulary, merges: Sequence[str], apart: Collection[int], **options: Any) -> models.BPE:
    """The tokenizers package's model over the vocabulary without the ids in `apart`; merges are "left right"."""
    vocab = dict(vocabulary.ids)
    for n in apart:
        del vocab[vocabulary.tokens[n]]
    try:
        pairs = [(left, right) for left, right in (merge.split(" ", 1) for merge in merges)]
        try:
            return models.BPE(vocab, pairs, **options)
        except Exception:  # the package raises bare Exception for a merge of unknown tokens
            words = {vocabulary.tokens[n] for n in apart}
            pairs = [pair for pair in pairs if pair[0] + pair[1] not in words and words.isdisjoint(pair)]
            return models.BPE(vocab, pairs, **options)
    except Exception as error:
        raise vocabulary.fail(f"has merges that do not fit its vocabulary ({clipped(error)})") from None


LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]{1,7}\r?\n")
N_SPECIAL = 256
# the names of LLaMA 3.1 and later (llama-models, llama3/tokenizer.py); 3.0 had reserved ones where these have a use
NAMED = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id", 7: "end_header_id"}
NAMED |= {8: "eom_id", 9: "eot_id", 10: "python_tag"}
BOS, EOS, EOM, EOT = 0, 1, 8, 9  # after the ordinary tokens
CHARACTERS = {byte: char for char, byte in ALPHABET.items()}


def looks_like_tiktoken(head: bytes) -> bool:
    return LINE.match(head) is not None


def read_tiktoken(data: bytes, path: object) -> dict[str, Any]:
    """GGUF's tokenizer.ggml.* metadata. TokenizerError for a damaged file."""
    tokens: list[bytes] = []
    try:
        for n, line in enumerate(data.split()):
            if n % 2 == 0:
                tokens.append(base64.b64decode(line, validate=True))
            elif int(line) != len(tokens) - 1:
                raise ValueError
        if len(data.split()) != 2 * len(tokens) or len(set(tokens)) != len(tokens) or not all(tokens):
            raise ValueError
    except (binascii.Error, ValueError):
        raise TokenizerError(f"{path} is no sound list of tokens and ranks; download it again") from None
    words = ["".join(map(CHARACTERS.__getitem__, token)) for token in tokens]
    special = [f"<|{name}|>" for name in _special_names()]
    n = len(words)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": words + special,
        "tokenizer.ggml.token_type": np.array([TokenType.NORMAL] * n + [TokenType.CONTROL] * N_SPECIAL, np.int32),
        "tokenizer.ggml.merges": merges_of(words),
        "tokenizer.ggml.bos_token_id": n + BOS,
        "tokenizer.ggml.eos_token_id": n + EOS,
        "tokenizer.ggml.eom_token_id": n + EOM,
        "tokenizer.ggml.eot_token_id": n + EOT,
        "tokenizer.ggml.add_bos_token": True,
    }


def merges_of(words: list[str]) -> list[str]:
    """tiktoken merges whatever pair forms the token of lowest rank: as BPE merges, every way to cut each token in two, by rank."""
    known = set(words)
    merges = []
    for word in words:
        for at in range(1, min(len(word), MAX_TOKEN)):
            left, right = word[:at], word[at:]
            if left in known and right in known:
                merges.append(f"{left} {right}")
    return merges


MAX_TOKEN = 256  # characters; LLaMA 3's longest has 128


def _special_names() -> list[str]:
    reserved = iter(range(N_SPECIAL))
    return [NAMED.get(n) or f"reserved_special_token_{next(reserved)}" for n in range(N_SPECIAL)]
