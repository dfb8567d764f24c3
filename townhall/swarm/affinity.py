"""Which replica a request goes to: the one that holds its conversation's entries, else one that all routers agree on, else a free one."""

import hashlib
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

BOUND = 1.25  # of the mean load: a replica beyond it gets no new conversation (Mirrokni, Thorup, Zadimoghaddam: arXiv 1608.01350)
Outcome = Literal["kept", "new", "moved", "any"]


class Affinity:
    """Remembers which replica read which beginning; not thread-safe, a router has one.

    A conversation returns to its replica unless that is gone, or has no slot free while another has. One that is not known goes to the
    replica that rendezvous hashing gives its first message, as long as that one's load is within the bound.
    """

    def __init__(self, slots: int, most: int = 100_000):
        """`slots`: conversations that a replica works on at a time; `most`: beginnings that are remembered, the oldest is forgotten."""
        self._slots, self._most = slots, most
        self._known: OrderedDict[bytes, str] = OrderedDict()

    def rank(self, digests: Sequence[bytes], loads: Mapping[str, int]) -> list[str]:
        """The replicas of `loads` (name → requests under way), best first."""
        by_load = sorted(loads, key=lambda replica: (loads[replica], _weight(digests[0] if digests else b"", replica)))
        if (first := self._preferred(digests, loads)) is None:
            return by_load
        return [first, *(replica for replica in by_load if replica != first)]

    def outcome(self, digests: Sequence[bytes], replica: str) -> Outcome:
        """What it means that the request came to `replica`; to be asked before `remember`."""
        if not digests:
            return "any"
        held = self._holder(digests, None)
        return "new" if held is None else "kept" if held == replica else "moved"

    def remember(self, digest: bytes, replica: str) -> None:
        """That replica has read what the digest is of."""
        self._known[digest] = replica
        self._known.move_to_end(digest)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def _holder(self, digests: Sequence[bytes], among: Mapping[str, int] | None) -> str | None:
        """Where the longest beginning was read that is known; of the replicas in `among`, where that is given."""
        for digest in reversed(digests):
            held = self._known.get(digest)
            if held is not None and (among is None or held in among):
                self._known.move_to_end(digest)
                return held
        return None

    def _preferred(self, digests: Sequence[bytes], loads: Mapping[str, int]) -> str | None:
        if not digests or not loads:
            return None
        held = self._holder(digests, loads)
        if held is not None and len(digests) > 1:
            return held if loads[held] < self._slots or min(loads.values()) >= self._slots else None
        # a conversation that begins: openings such as "Hi" are many people's, so that these must not all go to one replica
        most = math.ceil(BOUND * (sum(loads.values()) + 1) / len(loads))
        order = sorted(loads, key=lambda replica: _weight(digests[0], replica), reverse=True)
        order = order if held is None else [held, *order]
        return next((replica for replica in order if loads[replica] < most), None)


def _weight(digest: bytes, replica: str) -> bytes:
    return hashlib.blake2b(replica.encode(), digest_size=8, key=digest).digest()
