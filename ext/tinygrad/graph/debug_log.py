"""Reasons for taking a slower path, printed under DEBUG=1."""

import sys

from tinygrad.helpers import DEBUG

_said: set[str] = set()


def say(reason: str) -> None:
    """Print a reason, once."""
    if DEBUG >= 1 and reason not in _said:
        _said.add(reason)
        print(f"graph: {reason}", file=sys.stderr)
