"""Prometheus' text of many replicas as one, each sample with the name of its model and replica."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


class _MergedTexts(Collector):
    def __init__(self, texts: Sequence[tuple[Mapping[str, str], str]]):
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for labels, text in self._texts:
            for found in text_string_to_metric_families(text):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                family.samples += [sample._replace(labels={**labels, **sample.labels}) for sample in found.samples]
        return iter(families.values())


def merged(texts: Iterable[tuple[Mapping[str, str], str]]) -> bytes:
    """The families of (labels of a source, its text) each once, with all their samples."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_MergedTexts(list(texts)))
    return generate_latest(registry)
