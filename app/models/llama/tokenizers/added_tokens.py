"""Tokens that are found in a text before it is cut and merged, and the white space that goes with them.

The rules are those of the tokenizers package (src/tokenizer/added_vocabulary.rs): at each place the longest token counts, first of those
that are looked for in the text as it is, then, in what is left, of those that are looked for in its normal form.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import IntFlag
from typing import Any

import numpy as np

from app.models.llama.sanitize import quoted
from app.models.llama.tokenizers.vocabulary import Vocabulary


class Match(IntFlag):
    """How an added token is looked for; the names are those of a tokenizer.json."""

    LSTRIP = 1  # with the white space before it
    RSTRIP = 2  # with the white space behind it
    SINGLE_WORD = 4  # only where no letter or digit touches it
    NORMALIZED = 8  # in the text's normal form, by its own


# GGUF has no keys for these: ids per rule, of a converted file
MATCH_KEYS = {rule: f"tokenizer.townhall.{str(rule.name).lower()}" for rule in Match}
WHITE_SPACE = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))))
# letters that are symbols by their category: circled and squared ones
LETTERS = frozenset(
    chr(n) for first, last in ((0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)) for n in range(first, last + 1)
)
JOINERS = "\u200c\u200d"
Spans = Sequence[tuple[int, int]]


def read_matches(metadata: Mapping[str, Any], vocabulary: Vocabulary) -> dict[int, Match]:
    """Id → rules, of the tokens that have some. TokenizerError for what are no ids."""
    found: dict[int, Match] = {}
    for rule, key in MATCH_KEYS.items():
        if (ids := metadata.get(key)) is None:
            continue
        if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu" or not ((ids >= 0) & (ids < len(vocabulary.tokens))).all():
            raise vocabulary.fail(f"gives {key} as {quoted(ids)}; ids of its tokens are needed")
        for n in ids.tolist():
            found[n] = found.get(n, Match(0)) | rule
    name = metadata.get("general.name")
    if not found and isinstance(name, str) and ("phi-3" in name.lower() or "phi3" in name.lower()):
        # llama.cpp knows these by the model's name, for no GGUF says it
        special = vocabulary.control_ids | vocabulary.literal_ids
        found = {n: Match.RSTRIP for n in special if vocabulary.tokens[n] not in ("<unk>", "<s>", "<|endoftext|>")}
    return found


def written_matches(matches: Mapping[int, Match]) -> dict[str, np.ndarray]:
    """The inverse of `read_matches`."""
    lists = {key: [n for n, rules in sorted(matches.items()) if rules & rule] for rule, key in MATCH_KEYS.items()}
    return {key: np.array(ids, np.int32) for key, ids in lists.items() if ids}


class TokenFinder:
    """Finds tokens in a text: control tokens where they are wanted, the others everywhere."""

    def __init__(self, tokens: Mapping[str, int], control: Collection[int], matches: Mapping[int, Match]) -> None:
        self._tokens, self._control, self._matches = tokens, control, matches
        lengths: dict[str, set[int]] = {}  # by the first two characters, or the one there is
        for token in tokens:
            lengths.setdefault(token[:2], set()).add(len(token))
        for start, found in lengths.items():
            found |= lengths.get(start[:1], set()) if len(start) == 2 else set()
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        self._starts = re.compile("[" + re.escape("".join(sorted({token[0] for token in tokens}))) + "]") if tokens else None

    def __bool__(self) -> bool:
        return self._starts is not None

    def split(self, text: str, wanted: Spans) -> Iterator[tuple[int, int, int | None]]:
        """(start, stop, id, or None for plain text). A control token is found within one of the spans `wanted`, which are in order.

        As in the tokenizers package, a token that takes white space which another took before may overlap it.
        """
        at = white = 0  # `white` is where the last white space that a token took ends
        for start, stop, n in self._found(text, wanted):
            rules = self._matches.get(n, Match(0))
            if rules & Match.SINGLE_WORD and (_is_word(text[start - 1 : start]) or _is_word(text[stop : stop + 1])):
                continue
            if rules & Match.LSTRIP:
                while start > at and text[start - 1] in WHITE_SPACE:
                    start -= 1
                start = max(start, at)
            if rules & Match.RSTRIP:
                stop = max(stop, white) if text[stop : stop + 1] in WHITE_SPACE else stop
                while stop < len(text) and text[stop] in WHITE_SPACE:
                    stop += 1
                white = stop
            if at < start:
                yield at, start, None
            if start < stop:
                yield start, stop, n
            at = stop
        if at != len(text):
            yield at, len(text), None

    def _found(self, text: str, wanted: Spans) -> Iterator[tuple[int, int, int]]:
        """Every token, none of which overlaps another."""
        firsts = [first for first, _ in wanted]
        pos = 0
        while self._starts is not None and (start := self._starts.search(text, pos)) is not None:
            pos = start.start()
            for stop, n in self._at(text, pos):
                after = bisect_right(firsts, pos)  # the spans that begin at `pos` or before
                border = firsts[after] if after < len(firsts) and firsts[after] < stop else None
                last = wanted[after - 1][1] if after else 0
                if n not in self._control:
                    if border is not None and self._hides_control(text, border, stop, wanted[after][1]):
                        continue  # the words before a marker take none of it away
                    yield pos, stop, n
                elif stop <= last:
                    yield pos, stop, n
                elif pos < last or border is not None:
                    continue  # half of it is plain words
                pos = stop
                break
            else:
                pos += 1

    def _at(self, text: str, pos: int) -> Iterator[tuple[int, int]]:
        """(stop, id) of the tokens that begin at `pos`, longest first."""
        for length in self._lengths.get(text[pos : pos + 2]) or self._lengths.get(text[pos], []):
            word = text[pos : pos + length]
            if (n := self._tokens.get(word)) is not None and len(word) == length:
                yield pos + length, n

    def _hides_control(self, text: str, first: int, last: int, limit: int) -> bool:
        return any(n in self._control and stop <= limit for pos in range(first, last) for stop, n in self._at(text, pos))


def _is_word(char: str) -> bool:
    r"""Rust's \w, of one character or none: Unicode's UTS 18, annex C."""
    if not char:
        return False
    kind = unicodedata.category(char)
    return kind[0] in "LM" or kind in ("Nd", "Nl", "Pc") or char in JOINERS or char in LETTERS
