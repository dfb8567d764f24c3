"""What is said of a request that is refused: one printable line, whatever the request holds (found by bench.fuzz --only api_request)."""

import json

import pytest

from townhall.server.errors import APIError
from townhall.server.requests import ChatRequest, parse

HELLO = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"logit_bias": {"\x1b[2J": None}}, "logit_bias"),
        ({"response_format": {"type": "\u202e\ud7fc\n"}}, "response_format"),
        ({"response_format": {"type": "x" * 5000}}, "response_format"),
    ],
)
def test_a_refusal_repeats_no_control_characters(changes: dict[str, object], named: str) -> None:
    with pytest.raises(APIError) as refused:
        parse(ChatRequest, json.dumps({"messages": HELLO, **changes}).encode())
    message = str(refused.value)
    assert named in message and message.isprintable() and len(message) < 1500
    assert refused.value.param is not None and refused.value.param.isprintable()
