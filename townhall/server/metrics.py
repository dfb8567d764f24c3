"""What a server counts for Prometheus. Names after `townhall_` are vLLM's where it counts the same (docs.vllm.ai, "Production metrics")."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from townhall.server.job import Job
from townhall.server.remote_job import RemoteJob
from townhall.server.slots import PrefixLookup

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500)


class _ReadCounter(Collector):
    """A counter whose value is kept elsewhere, and only grows."""

    def __init__(self, name: str, help: str, value: Callable[[], float]):
        self._name, self._help, self._value = name, help, value

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._help, value=self._value())


class Metrics:
    """One registry for each server, so that several can live in a process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("townhall_requests", "Requests by path and status.", ["path", "status"], registry=registry)
        self.prompt_tokens = Counter("townhall_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.cached_tokens = Counter("townhall_cached_tokens", "Tokens of prompts that were in a cache already.", registry=registry)
        self._lookups = Counter(
            "townhall_prefix_cache_prompts",
            "Prompts by where their beginning was found: in the conversation's own slot, copied from another's or from a persona's "
            "prefix; or nowhere.",
            ["source"],
            registry=registry,
        )
        self._queries = Counter("townhall_prefix_cache_queries", "Tokens of prompts that were looked for in caches.", registry=registry)
        self._hits = Counter("townhall_prefix_cache_hits", "Tokens of them that were found.", ["source"], registry=registry)
        self.model_loads = Counter("townhall_model_loads", "Models loaded because of a request.", registry=registry)
        self.model_unloads = Counter("townhall_model_unloads", "Models that left the memory.", registry=registry)
        self.completion_tokens = Counter("townhall_completion_tokens", "Tokens sampled.", registry=registry)
        self.cancelled = Counter("townhall_cancelled", "Requests whose client went away.", registry=registry)
        self.first_text = Histogram(
            "townhall_first_text_seconds", "From a request's arrival to its first text.", buckets=SECONDS, registry=registry
        )
        self.rate = Histogram(
            "townhall_tokens_per_second", "Tokens per second of decoding, others' turns left out.", buckets=RATES, registry=registry
        )

        self.via_answers = Counter(
            "townhall_via_answers", "Requests for which another server was asked.", ["outcome"], registry=registry
        )  # answered, away (the local model answered), failed, cancelled
        self.via_tokens = Counter("townhall_via_tokens", "Tokens sent to another server, and its answers'.", ["kind"], registry=registry)
        self.via_cost = Counter("townhall_via_cost", "What other servers' answers cost, by --via-price.", ["currency"], registry=registry)

    def looked_up(self, lookup: PrefixLookup) -> None:
        """Count a prompt; one of which no token was there has no source."""
        source = lookup.source if lookup.cached else "none"
        self._lookups.labels(source).inc()
        self._queries.inc(lookup.tokens)
        if lookup.cached:
            self._hits.labels(source).inc(lookup.cached)

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, help, registry=self.registry).set_function(value)

    def watch_count(self, name: str, help: str, value: Callable[[], float]) -> None:
        """A counter that is read when it is asked for; its samples' name ends in `_total`."""
        self.registry.register(_ReadCounter(name, help, value))

    def total(self, name: str) -> float | None:
        """The sum of a family's samples of this name, whatever their labels; None where it has none."""
        values = [sample.value for family in self.registry.collect() for sample in family.samples if sample.name == name]
        return sum(values) if values else None

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)

    def count(self, job: Job) -> None:
        """A job has ended."""
        figures = job.figures
        self.prompt_tokens.inc(figures.prompt_tokens)
        self.cached_tokens.inc(figures.cached_tokens)
        self.completion_tokens.inc(figures.completion_tokens)
        for lookup in job.lookups:
            self.looked_up(lookup)
        if job.cancelled and not job.done:
            self.cancelled.inc()
        if figures.first_seconds is not None:
            self.first_text.observe(figures.first_seconds)
        if figures.completion_tokens and figures.decode_seconds:
            self.rate.observe(figures.completion_tokens / figures.decode_seconds)

    def count_remote(self, job: RemoteJob) -> None:
        """An answer of another server has come to its end, or does not come."""
        self.via_answers.labels(job.outcome).inc()
        if job.outcome == "away":
            return  # the local model's job is counted by itself
        if job.first_seconds is not None:
            self.first_text.observe(job.first_seconds)
        if job.cancelled and not job.done:
            self.cancelled.inc()
        for figures in job.sent:
            self.via_tokens.labels("prompt").inc(figures.sent_tokens if figures.server_tokens is None else figures.server_tokens)
            self.via_tokens.labels("answer").inc(figures.tokens or 0)
            if figures.cost is not None:
                self.via_cost.labels(figures.currency).inc(figures.cost)
