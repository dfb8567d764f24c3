"""Counts for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class Metrics:
    """One registry for each server, so that several can live in a process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("townhall_requests", "Requests by path and status.", ["path", "status"], registry=registry)
        self.prompt_tokens = Counter("townhall_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.cached_tokens = Counter("townhall_cached_tokens", "Tokens of prompts that were in a cache already.", registry=registry)
        self.completion_tokens = Counter("townhall_completion_tokens", "Tokens sampled.", registry=registry)
        self.cancelled = Counter("townhall_cancelled", "Requests whose client went away.", registry=registry)
        self.first_text = Histogram(
            "townhall_first_text_seconds", "From a request's arrival to its first text.", buckets=SECONDS, registry=registry
        )
        self.rate = Histogram(
            "townhall_tokens_per_second", "Tokens per second of decoding, others' turns left out.", buckets=RATES, registry=registry
        )

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, help, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
