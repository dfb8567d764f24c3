"""Parameters of made-up functions, and whether a call's arguments are what they ask for, said by a validator that is not ours."""

import json
from typing import Any

from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator  # schemathesis brings it

NAMES = st.text("abcdefgh_", min_size=1, max_size=6)


def _values(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.tuples(st.integers(-99, 99), st.integers(0, 50))
    plain: list[st.SearchStrategy[dict[str, Any]]] = [
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        bounds.map(lambda b: {"type": "integer", "minimum": b[0], "maximum": b[0] + b[1]}),
        bounds.map(lambda b: {"type": "number", "minimum": b[0], "maximum": b[0] + b[1] + 1}),
        st.tuples(st.integers(0, 3), st.integers(0, 9)).map(lambda b: {"type": "string", "minLength": b[0], "maxLength": b[0] + b[1]}),
        st.lists(st.text(max_size=5) | st.integers(-9, 9) | st.none(), min_size=1, max_size=3, unique_by=repr).map(lambda v: {"enum": v}),
        st.sampled_from([{"type": "string", "format": "date"}, {"type": "string", "pattern": "^[A-Z]{2}[0-9]{1,3}$"}, {"const": "fixed"}]),
    ]
    if depth:
        inner = _values(depth - 1)
        plain += [
            inner.map(lambda v: {"type": "array", "items": v, "maxItems": 2}),
            st.lists(inner, min_size=1, max_size=2).map(lambda v: {"anyOf": v}),
            objects(depth - 1),
        ]
    return st.one_of(plain)


@st.composite
def objects(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    """A schema of an object with a few properties, some of them required."""
    properties = draw(st.dictionaries(NAMES, _values(depth), max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def malformed(arguments: str, schema: dict[str, Any]) -> str | None:
    """What is wrong with a call's arguments; None for nothing."""
    try:
        value = json.loads(arguments)
    except ValueError as error:
        return str(error)
    return next((error.message for error in Draft202012Validator(schema).iter_errors(value)), None)
