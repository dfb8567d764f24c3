"""LLaMA 3's original tokenizer.model: lines of a token in base64 and its rank, turned into the metadata a GGUF would carry."""

import base64
import binascii
import re
from typing import Any

import numpy as np

from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.tokenizers.byte_bpe import ALPHABET
from app.models.llama.tokenizers.vocabulary import TokenizerError

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
