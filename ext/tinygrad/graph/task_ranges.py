"""What a kernel's source declares of its tasks: that one call may take several in a row, and what memory they read in their order.

The native replay calls such a kernel once for each range of tasks that a thread claims, core_id being the first one and, above its 32
bits, how many more there are. A thread that waits for others meanwhile fetches what the tasks of the next kernel will read that it is
likely to claim.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

MARK = "// task ranges "
WHOLE = 1 << 16  # all tasks of a kernel: shares of them are in these units
MOST_READS = 6


class Stretch(NamedTuple):
    """A stretch of an argument's memory that no kernel of the graph writes: tasks first / WHOLE to end / WHOLE read it, each its share."""

    argument: int
    offset: int  # bytes
    nbytes: int
    first: int
    end: int


def declare(reads: Sequence[Stretch]) -> str:
    """The line to put before a kernel's source."""
    assert len(reads) <= MOST_READS
    return f"{MARK}{json.dumps(reads)}\n"


def declared(source: str) -> tuple[Stretch, ...] | None:
    """What the source says; None where a call takes one task."""
    line = next((line for line in source.splitlines()[:2] if line.startswith(MARK)), None)
    return None if line is None else tuple(Stretch(*read) for read in json.loads(line[len(MARK) :]))
