"""A vocabulary as a GGUF declares it: tokens, their types, which ids begin and end a text; checked once, when it is read.

`normalizer` is what a tokenizer does to a text before it splits it: Unicode's normal forms, and SentencePiece's rules of the same kind.
A SentencePiece model carries its rule as a table, too. Only the rule's name is taken from a file: a crafted table would be walked by
C++ that trusts it.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.sanitize import quoted
from ext.tinygrad.errors import TownhallError

# ids that end a turn or a text in the families met so far, whatever the file declares as its one EOS
STOP_NAMES = frozenset(
    ("</s>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>")
    + ("<end_of_turn>", "<|endofturn|>", "<|end_of_turn|>", "<EOT>", "[EOS]", "<｜end▁of▁sentence｜>")
)
# <|im_start|>, <s>, [INST]: text that steers the model, however the converter typed it
MARKUP = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")

# what a GGUF has no key for, so that a converted file keeps it
NORMALIZER = "tokenizer.townhall.normalizer"  # a key of SENTENCEPIECE or a Unicode normal form
SPACE_AT_START_ONLY = "tokenizer.townhall.space_at_start_only"  # SentencePiece's space comes before the text, not after special tokens
SPACE_WHERE_ABSENT = "tokenizer.townhall.space_where_absent"  # and only where the text does not begin with one
SPLIT_AT_SPACES = "tokenizer.townhall.split_at_spaces"  # no merge reaches over a space
MERGES = "tokenizer.townhall.merges"  # of SentencePiece's kind of vocabulary, which otherwise merges by score
UNKNOWN_CHARACTERS = "tokenizer.townhall.unknown_characters"  # EACH or LEFT_OUT, where several in a row are not one unknown token
EACH, LEFT_OUT = "each", "left out"
ADDED_ONLY = "tokenizer.townhall.added_only"  # ids of added words and characters that the model's own vocabulary lacks
WHOLE_PIECES_FIRST = "tokenizer.townhall.ignore_merges"  # of byte-level BPE: where it differs from what the name of the pattern implies

MAX_SCORE = 1e30  # a piece's score is its rank or its log-probability; beyond float32 it would be no number


class TokenizerError(TownhallError):
    """A vocabulary that cannot be used: names the file, the fault and the mend."""


@dataclass(frozen=True)
class Vocabulary:
    path: str
    tokens: list[str]  # id → token in the scheme's own spelling
    ids: dict[str, int]  # and back
    types: np.ndarray  # id → TokenType
    scores: np.ndarray | None  # id → score, SentencePiece only
    bos_id: int | None
    eos_id: int | None
    turn_end_ids: tuple[int, ...]  # EOT and EOM where declared
    other_end_ids: tuple[int, ...] = ()  # what other files name as ends, rightly or not
    declared_unknown: int | None = None

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], path: Path | str, stop_ids: Collection[int] = ()) -> "Vocabulary":
        """`stop_ids` are those that other files name as ends. Raises TokenizerError for missing, misshapen or contradictory metadata."""

        def fail(fault: str) -> TokenizerError:
            return TokenizerError(f"{path} {fault}; use a file that a current llama.cpp converted")

        tokens = strings(metadata.get("tokenizer.ggml.tokens"))
        if not tokens:
            raise fail("carries no vocabulary (tokenizer.ggml.tokens)")
        tokens = [token or f"[EMPTY_{n}]" for n, token in enumerate(tokens)]
        ids = {token: n for n, token in enumerate(tokens)}
        if len(ids) != len(tokens):
            twice = next(token for n, token in enumerate(tokens) if ids[token] != n)
            raise fail(f"lists the token {quoted(twice)} twice")

        def per_token(key: str) -> np.ndarray | None:
            values = metadata.get(key)
            if values is None:
                return None
            if not isinstance(values, np.ndarray) or len(values) != len(tokens) or np.isnan(values).any():
                raise fail(f"gives {key} that do not match its {len(tokens):,} tokens")
            return values

        def declared(kind: str) -> int | None:
            value = metadata.get(f"tokenizer.ggml.{kind}_token_id")
            if value is None:
                return None
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(tokens):
                raise fail(f"names {quoted(value)} as its {kind.upper()} token, but has {len(tokens):,} tokens")
            return value

        types, scores = per_token("tokenizer.ggml.token_type"), per_token("tokenizer.ggml.scores")
        turn_ends = tuple(n for n in (declared("eot"), declared("eom")) if n is not None)
        if types is None:
            types = np.full(len(tokens), int(TokenType.NORMAL))
            special = [declared("bos"), declared("eos"), *turn_ends, *map(ids.get, STOP_NAMES)]
            types[[n for n in special if n is not None]] = TokenType.CONTROL
        # llama.cpp's "undefined", and whatever else is no type, is an ordinary token
        types = np.where((types >= TokenType.NORMAL) & (types <= TokenType.BYTE), types, int(TokenType.NORMAL)).astype(np.int64)
        return cls(
            path=str(path),
            tokens=tokens,
            ids=ids,
            types=types,
            scores=None if scores is None else scores.clip(-MAX_SCORE, MAX_SCORE).astype(np.float32),
            bos_id=declared("bos"),
            eos_id=declared("eos"),
            turn_end_ids=turn_ends,
            declared_unknown=declared("unknown"),
            other_end_ids=tuple(n for n in stop_ids if n < len(tokens)),
        )

    def fail(self, fault: str, mend: str = "use a file that a current llama.cpp converted") -> TokenizerError:
        return TokenizerError(f"{self.path} {fault}; {mend}")

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Every id that the file declares, or the vocabulary names, as the end of a text or a turn."""
        named = {self.ids[name] for name in STOP_NAMES & self.ids.keys() if self.types[self.ids[name]] != TokenType.NORMAL}
        declared = {self.eos_id} if self.eos_id is not None else set()
        return frozenset(named | declared | {*self.turn_end_ids, *self.other_end_ids})

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Ids that steer the model: never the result of encoding text, and no text when decoded.

        An ordinary word stays one though a file names it as an end, rightly or not: it ends a reply, and texts are made of it.
        """
        control = self.of_type(TokenType.CONTROL) | self.of_type(TokenType.UNKNOWN)
        declared = {n for n in (self.bos_id, self.eos_id, *self.turn_end_ids) if n is not None}
        return frozenset(control | {n for n in self.of_type(TokenType.USER_DEFINED) | declared if MARKUP.fullmatch(self.tokens[n])})

    @cached_property
    def literal_ids(self) -> frozenset[int]:
        """Added tokens that are ordinary words (runs of spaces, say): matched in any text, shown as they are."""
        return self.of_type(TokenType.USER_DEFINED) - self.control_ids

    @cached_property
    def unknown_id(self) -> int | None:
        """The one that stands for what has no token; where several are marked as unknown, the declared one, or the first."""
        unknown = self.of_type(TokenType.UNKNOWN)
        return self.declared_unknown if self.declared_unknown in unknown else min(unknown, default=None)

    def of_type(self, kind: TokenType) -> frozenset[int]:
        return frozenset(np.flatnonzero(self.types == kind).tolist())


def strings(value: Any) -> list[str]:
    """The strings of a metadata array; empty for anything else."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return []
    items = list(value)
    return items if set(map(type, items)) <= {str} else []


UNICODE = ("NFC", "NFD", "NFKC", "NFKD")
SENTENCEPIECE = ("nfkc", "nmt_nfkc", "nfkc_cf", "nmt_nfkc_cf")  # its built-in rules besides identity, which is none
RULES = (*UNICODE, *SENTENCEPIECE)


def normalizer(rule: str | None, strip: bool = False) -> Callable[[str], str]:
    """From a text to its normal form by one of RULES. `strip`, of SentencePiece: runs of spaces become one, and those at both ends vanish.

    SentencePiece's rules spell spaces as ▁.
    """
    if rule in UNICODE:
        from tokenizers import normalizers

        normalise: Callable[[str], str] = getattr(normalizers, rule)().normalize_str
        return normalise
    if not rule and not strip:
        return lambda text: text
    from sentencepiece import SentencePieceNormalizer

    spm = SentencePieceNormalizer(
        rule_name=rule or "identity", add_dummy_prefix=False, escape_whitespaces=True, remove_extra_whitespaces=strip
    )
    return lambda text: str(spm.Normalize(text))
