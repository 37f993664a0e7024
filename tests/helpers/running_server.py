"""A real server, in a thread, of classifiers that are in memory."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

from fullbake import Classifier
from fullbake.classifier.model import FirstAnswers
from fullbake.evaluation.agreement import CascadeThreshold
from fullbake.serving.app import build_app
from fullbake.serving.connections import BoundedConnection, ConnectionBounds
from fullbake.serving.door import DoorRules
from fullbake.serving.limits import Limits
from fullbake.serving.service import ModelSource, Service


@contextmanager
def running_server(
    classifiers: Mapping[str, Classifier], *, limits: Limits | None = None, **rules: Any
) -> Iterator[str]:
    """Serve classifiers by their names, and return the server's address. rules: fields of DoorRules."""

    class Source(ModelSource):
        def load(self) -> Classifier:
            return classifiers[self.name]

    service = Service([Source(name, Path(name)) for name in classifiers], limits or Limits())
    app = build_app(service, DoorRules(**{"hosts": frozenset(("127.0.0.1",)), **rules}))
    config = uvicorn.Config(app, http=BoundedConnection, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    server.server_state = ConnectionBounds(100)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def serve() -> None:
            await service.start()
            await server.serve([listener])

        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def relabeled(classifier: Classifier, label_names: list[str]) -> Classifier:
    """Return a classifier with other names of its labels, and the plain decision."""
    return Classifier(
        classifier.predictor,
        classifier.tokenizer,
        classifier.tokens,
        classifier.record,
        label_names=label_names,
        problem=classifier.problem,
    )


def of_pairs(classifier: Classifier, text: str, text_pair: str) -> Classifier:
    """Return a classifier as one of pairs of texts, with these names of its columns."""
    facts = classifier.record.facts
    columns = facts["columns"] | {"text": text, "text_pair": text_pair}
    record = replace(classifier.record, facts=facts | {"columns": columns})
    return Classifier(
        classifier.predictor,
        classifier.tokenizer,
        classifier.tokens,
        record,
        classifier.decision,
        label_names=classifier.label_names,
        problem=classifier.problem,
    )


def cascade_of(classifier: Classifier, student: Classifier, margin: float | None) -> Classifier:
    """Return a cascade in which a student answers from this margin on; None: never."""
    return classifier.with_first(FirstAnswers(student, CascadeThreshold(margin, 100, 50, 0, 0.01, 0.99)))
