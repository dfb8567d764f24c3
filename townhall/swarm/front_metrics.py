"""What the front of a swarm counts: requests by the replica that answered, conversations that came back, answers that were lost."""

from prometheus_client import CollectorRegistry, Counter, generate_latest


class FrontMetrics:
    """One registry for each front."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.front = Counter("townhall_swarm_front_requests", "Requests by path and status.", ["path", "status"], registry=registry)
        self.answered = Counter(
            "townhall_swarm_requests", "Requests by the replica that answered.", ["model", "replica", "status"], registry=registry
        )
        self.routed = Counter(
            "townhall_swarm_conversations",
            "Where conversations went: kept (to the replica that holds them), moved, new.",
            ["model", "outcome"],
            registry=registry,
        )
        self.lost = Counter("townhall_swarm_lost", "Answers whose replica was lost amid them.", ["model", "replica"], registry=registry)
        self.retried = Counter("townhall_swarm_retried", "Requests that a second replica was asked.", ["model"], registry=registry)

    def text(self) -> str:
        """Prometheus' text format."""
        return generate_latest(self._registry).decode()
