"""JSON from others: its size, depth and number of values are looked at before Python builds anything of it."""

import json
import re
from typing import Any

from townhall.characters.errors import CardError

MAX_BYTES = 16 << 20
MAX_VALUES = 400_000  # dictionaries and lists of so many take about 100 MB
MAX_DEPTH = 100
# possessive, so that a long string needs no memory and an open one is looked at once; it then reaches to the end of the text
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z|\\\Z)', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_INDENT = re.compile(r'\s*\{\r?\n([ \t]+)"')
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(source: bytes, where: str) -> Any:
    """What the JSON says; CardError, which begins with `where`, for what is none or too much."""
    if len(source) > MAX_BYTES:
        raise CardError(f"{where} holds {len(source) >> 20} MB of JSON, more than {MAX_BYTES >> 20} MB; take out what is no text")
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CardError(f"{where} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    _measure(text, where)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise CardError(f"{where} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise CardError(f"{where} is nested too deeply") from error
    except ValueError as error:  # a number of 5,000 digits, or one that JSON does not know
        raise CardError(f"{where} is not valid JSON: {str(error).split(';')[0]}") from error


def dump(value: Any, like: bytes = b"") -> bytes:
    """`value` as JSON in UTF-8, set as the JSON `like` is: indented, or on one line."""
    indented = _INDENT.match(like[:200].decode("utf-8", errors="replace"))
    if indented:
        text = json.dumps(value, ensure_ascii=False, indent=indented[1])
    else:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text).encode()


def _measure(text: str, where: str) -> None:
    # a value needs two quotation marks and a key two; where there are far more, their texts are not even taken out
    crowded = text.count('"') > 4 * MAX_VALUES
    bare = "" if crowded else _STRING.sub("", text)
    if crowded or sum(map(bare.count, "[{,")) > MAX_VALUES:
        raise CardError(f"{where} holds more than {MAX_VALUES:,} values; a character has far fewer")
    if bare.count("[") + bare.count("{") > MAX_DEPTH:
        depth = 0
        for bracket in _BRACKET.finditer(bare):
            depth += 1 if bracket[0] in "[{" else -1
            if depth > MAX_DEPTH:
                raise CardError(f"{where} is nested more than {MAX_DEPTH} deep; a character is not")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
