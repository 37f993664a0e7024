"""Classifiers without a network, and a server of them without a socket: protocols are tested, not scores."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from fullbake import Classifier
from fullbake.classifier.model import RunRecord
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import TokensConfig
from fullbake.evaluation.decisions import Decision
from fullbake.models.encoding import Encoded
from fullbake.models.light_tokenizer import read_light_tokenizer
from fullbake.models.prediction import of_texts
from fullbake.serving.app import build_app
from fullbake.serving.door import DoorRules
from fullbake.serving.limits import Limits
from fullbake.serving.service import ModelSource, Service

BUNDLE = Path(__file__).parents[1] / "fixtures/bundle_0_1_0"

read_tokenizer = cache(read_light_tokenizer)


@dataclass(frozen=True)
class CountingPredictor:
    """An engine whose numbers are sums over the token ids of a row."""

    classes: int
    engine: str = "onnx"

    def logits(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "scoring") -> np.ndarray:
        return self._numbers(encoded, tokens, self.classes)

    def pooled(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "embedding") -> np.ndarray:
        return self._numbers(encoded, tokens, 4)

    def _numbers(self, encoded: Encoded, tokens: TokensConfig, width: int) -> np.ndarray:
        angles = encoded.input_ids[:, None] * np.arange(1, width + 1) / 7
        sums = np.add.reduceat(np.sin(angles), encoded.offsets[:-1], axis=0)
        return of_texts(sums.astype(np.float32), encoded, tokens)


@dataclass(frozen=True)
class MadeSource(ModelSource):
    """A model that is made, not loaded."""

    classifier: Any = None

    def load(self) -> Classifier:
        return self.classifier


def make_source(
    name: str,
    labels: Sequence[str],
    *,
    many: bool = False,
    pair: bool = False,
    thresholds: Sequence[float] | None = None,
    **tokens: Any,
) -> MadeSource:
    """Return a model without a network.

    Args:
        name: Of the model.
        labels: Its labels.
        many: Whether a text may have many labels.
        pair: Whether it reads pairs.
        thresholds: Of the labels.
        **tokens: Fields of TokensConfig.
    """
    problem = problem_named(MULTI_LABEL if many else SINGLE_LABEL)
    columns = {"text": "text", "label": "label"} | ({"text_pair": "other"} if pair else {})
    classifier = Classifier(
        CountingPredictor(len(labels)),
        read_tokenizer(BUNDLE),
        TokensConfig(**({"max_length": 32, "truncation": "head"} | tokens)),
        RunRecord({"columns": columns}),
        None if thresholds is None else Decision(problem, tuple(labels), tuple(thresholds)),
        label_names=labels,
        problem=problem,
    )
    return MadeSource(name, BUNDLE, classifier=classifier)


@contextmanager
def open_client(*sources: ModelSource, limits: Limits | None = None, **rules: Any) -> Iterator[TestClient]:
    """Serve models within the block, and yield a client of the server. Keywords are those of DoorRules.

    Its `service` is the server's.
    """
    service = Service(sources, limits or Limits())
    app = build_app(service, DoorRules(**({"hosts": frozenset(("testserver",))} | rules)))
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.portal is not None
        client.portal.call(service.start)
        client.service = service  # type: ignore[attr-defined]
        yield client
