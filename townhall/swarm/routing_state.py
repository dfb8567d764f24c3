"""What the front and Ray's router share, both being in one process: a request's wishes, and what is known of a model's replicas."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from townhall.swarm.affinity import Affinity


@dataclass
class RouteHint:
    """What a request says of where it wants to go, and where it went: the router fills in the latter."""

    digests: tuple[bytes, ...] = ()
    to: str | None = None  # only to this replica, such as for its metrics
    replica: str | None = None
    outcome: str = "any"

    def __reduce__(self) -> tuple[Any, ...]:
        return RouteHint, ()  # nothing of it is of use to a replica

    @classmethod
    def among(cls, arguments: Sequence[Any]) -> "RouteHint":
        """The one that a call has; one without wishes where there is none."""
        return next((one for one in arguments if isinstance(one, cls)), cls())


@dataclass
class RouterState:
    """A model's replicas as its router sees them."""

    affinity: Affinity
    replicas: list[str] = field(default_factory=list)
    loads: dict[str, int] = field(default_factory=dict)  # requests under way
    lock: threading.Lock = field(default_factory=threading.Lock)  # Serve has routers in a thread of their own

    def update(self, replicas: list[str]) -> None:
        """These are there now."""
        with self.lock:
            self.replicas, self.loads = replicas, {name: self.loads.get(name, 0) for name in replicas}

    def rank(self, hint: RouteHint, names: Sequence[str]) -> list[str]:
        """Those of `names` that the request may go to, best first."""
        if hint.to is not None:
            return [hint.to] if hint.to in names else []
        with self.lock:
            return self.affinity.rank(hint.digests, {name: self.loads.get(name, 0) for name in names})

    def routed(self, hint: RouteHint, name: str) -> None:
        """The request went to this replica."""
        with self.lock:
            if hint.to is None:
                hint.outcome = self.affinity.outcome(hint.digests, name)
                if hint.digests:
                    self.affinity.remember(hint.digests[-1], name)
                self.loads[name] = self.loads.get(name, 0) + 1
            hint.replica = name

    def leave(self, hint: RouteHint) -> None:
        """The request is over."""
        with self.lock:
            if hint.to is None and hint.replica in self.loads:
                self.loads[hint.replica] -= 1
            hint.replica = None

    def remember(self, digest: bytes, name: str) -> None:
        """That replica holds what this is the digest of."""
        with self.lock:
            self.affinity.remember(digest, name)


STATES: dict[str, RouterState] = {}  # by Serve's application
