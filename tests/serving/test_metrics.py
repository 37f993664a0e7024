"""Metrics in Prometheus' text format."""

from fullbake.serving.batcher import RoundFacts
from fullbake.serving.metrics import Metrics


def test_rounds_and_labels_are_counted_for_each_model():
    metrics = Metrics()
    metrics.count_round("a", RoundFacts(texts=3, tokens=40, requests=2, seconds=0.03))
    metrics.count_round("a", RoundFacts(texts=1, tokens=2, requests=1, seconds=0.3))
    metrics.count_labels("a", ["spam", "ham", "spam", 'h"am\n'])
    lines = metrics.render().decode().splitlines()
    for line in (
        'fullbake_texts_total{model="a"} 4.0',
        'fullbake_tokens_total{model="a"} 42.0',
        'fullbake_round_texts_bucket{le="2.0",model="a"} 1.0',
        'fullbake_round_seconds_bucket{le="0.05",model="a"} 1.0',
        'fullbake_labels_total{label="spam",model="a"} 2.0',
        'fullbake_labels_total{label="h\\"am\\n",model="a"} 1.0',
    ):
        assert line in lines


def test_servers_do_not_share_metrics():
    Metrics().count_labels("a", ["x"])
    assert b'label="x"' not in Metrics().render()
