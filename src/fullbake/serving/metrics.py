"""What Prometheus collects: requests, texts, tokens, queue, rounds, latencies, and the labels that were given."""

import collections
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from fullbake.serving.batcher import RoundFacts

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter("fullbake_requests", "Requests by route and status.", ["route", "status"], registry=own)
        self.connections = Gauge("fullbake_connections", "Open connections.", registry=own)
        self.seconds = Histogram(
            "fullbake_request_seconds",
            "Time from a request to its response.",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.texts = Counter("fullbake_texts", "Texts that were scored.", ["model"], registry=own)
        self.tokens = Counter(
            "fullbake_tokens", "Tokens that were computed, special ones included.", ["model"], registry=own
        )
        self.labels = Counter(
            "fullbake_labels", "Labels that were given: a drift of texts shows.", ["model", "label"], registry=own
        )
        self.waiting = Gauge(
            "fullbake_queue_tokens", "Tokens that wait or are being computed.", ["model"], registry=own
        )
        self.rate = Gauge("fullbake_tokens_per_second", "Speed of the rounds, as measured.", ["model"], registry=own)
        self.round_texts = Histogram(
            "fullbake_round_texts", "Texts of a round.", ["model"], buckets=_SIZES, registry=own
        )
        self.round_seconds = Histogram(
            "fullbake_round_seconds", "Time of a round.", ["model"], buckets=_SECONDS, registry=own
        )

    def count_refusal(self, status: int) -> None:
        """Count what was refused before it was a request: a head that is no HTTP, a connection too many."""
        self.requests.labels("other", str(status)).inc()

    def count_round(self, model: str, facts: RoundFacts) -> None:
        """Count what was computed in a round."""
        self.texts.labels(model).inc(facts.texts)
        self.tokens.labels(model).inc(facts.tokens)
        self.round_texts.labels(model).observe(facts.texts)
        self.round_seconds.labels(model).observe(facts.seconds)

    def count_labels(self, model: str, labels: Iterable[str]) -> None:
        """Count labels that were given."""
        for label, times in collections.Counter(labels).items():
            self.labels.labels(model, label).inc(times)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
