"""Spark: rows of a DataFrame get the columns of `predict_frame`, in local mode, and wrong columns are refused early."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.rows import make_rows
from helpers.served_models import BUNDLE

from fullbake import Classifier, predict_frame
from fullbake.classifier import worker_bundle
from fullbake.classifier.bundle_outline import bundle_digest
from fullbake.classifier.prediction_columns import PredictionOptions
from fullbake.classifier.worker_bundle import WorkerBundle, scoring_versions
from fullbake.core.errors import BundleError, DataError, MissingExtraError, RecipeError
from fullbake.integrations import spark as bridge

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'fullbake[spark]'")
HAS_JAVA = shutil.which("java") is not None or "JAVA_HOME" in os.environ
needs_java = pytest.mark.skipif(not HAS_JAVA, reason="Spark needs Java, and there is no program java")
pytestmark = pytest.mark.filterwarnings("ignore")  # of pyspark's own imports

ROWS = [(number, text) for number, (text, _) in enumerate(make_rows(30))]
MANY = BUNDLE.with_name("bundle_0_1_0_multilabel")


@pytest.fixture(scope="module")
def bundle(graph_bundles: Callable[..., Path]) -> Path:
    return graph_bundles("bert")


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    settings = {
        "spark.driver.memory": "512m",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "1",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "7",
        "spark.log.level": "OFF",
    }
    for name, value in settings.items():
        builder = builder.config(name, value)
    made = builder.getOrCreate()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def frame(session: Any) -> Any:
    return session.createDataFrame(ROWS, "id long, body string").repartition(1)


# With Java


@needs_java
def test_rows_get_the_columns_of_predict_frame_in_their_order(bundle: Path, frame: Any) -> None:
    scored = bridge.score(frame, bundle, text="body", top_k=2, prefix="p_")
    own = frame.toArrow()
    expected = predict_frame(bundle, own, text="body", top_k=2, prefix="p_").to_pydict()
    found = scored.toArrow().to_pydict()
    assert list(found) == list(expected)
    assert found["id"] == expected["id"]
    assert found["p_predicted"] == expected["p_predicted"]
    np.testing.assert_allclose(found["p_score"], expected["p_score"], atol=1e-5)


@needs_java
def test_wrong_columns_are_refused_before_any_job(bundle: Path, frame: Any, session: Any) -> None:
    before = session.sparkContext._jsc.sc().dagScheduler().nextJobId()
    with pytest.raises(DataError, match=r"(?s)no column 'bodi'.*Did you mean 'body'"):
        bridge.score(frame, bundle, text="bodi")
    with pytest.raises(DataError, match="no column 'text'"):
        bridge.score(frame, bundle)
    with pytest.raises(DataError, match="column 'x' does not hold plain values"):
        bridge.score(session.createDataFrame([([1],)], "x array<int>"), bundle, text="x")
    with pytest.raises(DataError, match=r"(?s)there is a column 'predicted' already.*prefix"):
        bridge.score(session.createDataFrame([("a", "b")], "text string, Predicted string"), bundle)
    with pytest.raises(DataError, match="single texts"):
        bridge.score(frame, bundle, text=("body", "id"))
    with pytest.raises(RecipeError, match="--top-k"):
        bridge.score(frame, bundle, text="body", top_k=0)
    assert session.sparkContext._jsc.sc().dagScheduler().nextJobId() == before
    assert bridge.score(frame, bundle, text="BODY", labels_only=True).columns == ["id", "body", "predicted"]


@needs_java
def test_a_null_fails_the_job_with_its_row(bundle: Path, session: Any) -> None:
    rows = session.createDataFrame([("a",), (None,)], "text string").coalesce(1)
    with pytest.raises(Exception, match=r"(?s)partition 0 .*row 2: column 'text' has no value"):
        bridge.score(rows, bundle).collect()


@needs_java
def test_sql_gets_a_function(bundle: Path, frame: Any, session: Any) -> None:
    bridge.register(session, bundle, "topic")
    frame.createOrReplaceTempView("mails")
    found = session.sql("SELECT topic(body) AS t, topic(CAST(NULL AS string)) AS n FROM mails ORDER BY id").collect()
    assert [row.t for row in found] == list(Classifier.load(bundle).predict([text for _, text in ROWS]))
    assert {row.n for row in found} == {None}


@needs_java
def test_the_bundle_is_sent_once_and_without_hashes_of_texts(bundle: Path, frame: Any, session: Any) -> None:
    for _ in range(2):
        bridge.score(frame, bundle, text="body")
    (name,) = {name for (_, folder, _), (name, _) in bridge._archives.items() if folder == bundle.resolve()}
    from pyspark import SparkFiles

    sent = Path(SparkFiles.get(name))
    assert (sent / "fullbake.json").is_file()
    assert not (sent / "seen.safetensors").exists()


# Without Java: what runs on a worker


def worker(folder: Path, **changes: Any) -> bridge.SparkWorker:
    bundle = WorkerBundle(bundle_digest(folder), "torch")
    return bridge.SparkWorker(bundle, str(folder), False, scoring_versions() | changes)


@pytest.fixture
def _nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_bundle, "_loaded", {})


@pytest.mark.usefixtures("_nothing_loaded")
def test_batches_keep_their_columns_and_rows() -> None:
    batch = pa.record_batch({"text": [text for _, text in ROWS], "n": list(range(30))})
    names = ("predicted:animals", "score:animals")
    options = PredictionOptions()
    classifier = Classifier.load(MANY)
    names = tuple(f"{kind}:{label}" for kind in ("predicted", "score") for label in classifier.label_names)
    found = list(bridge._score_batches(worker(MANY), ("text",), options, names, iter([batch, batch.slice(0, 0)])))
    assert sum(part.num_rows for part in found) == 30
    expected = classifier.predict([text for _, text in ROWS])
    columns = pa.Table.from_batches(found)
    assert columns.column_names == ["text", "n", *names]
    for place, label in enumerate(classifier.label_names):
        assert columns[f"predicted:{label}"].to_pylist() == expected[:, place].tolist()


@pytest.mark.usefixtures("_nothing_loaded")
def test_answers_of_sql_are_those_of_predict() -> None:
    texts = pa.array([text for _, text in ROWS[:5]] + [None])
    classifier = Classifier.load(MANY)
    found = bridge._answer_columns(worker(MANY), PredictionOptions(), [texts]).to_pylist()
    indicators = classifier.predict(texts.to_pylist()[:5])
    assert found[:5] == [
        [name for name, is_given in zip(classifier.label_names, row, strict=True) if is_given] for row in indicators
    ]
    assert found[5] is None
    answer = partial(bridge._answer_columns, worker(MANY))
    listed = answer(PredictionOptions(top_k=1, threshold=0.99), [texts]).to_pylist()
    assert [len(row) for row in listed[:5]] == [
        len(row) for row in classifier.predict(texts.to_pylist()[:5], top_k=1, threshold=0.99)
    ]


@pytest.mark.usefixtures("_nothing_loaded")
def test_a_worker_of_another_version_or_bundle_refuses(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"(?s)other versions than the driver.*tokenizers 0\.1"):
        bridge._load(worker(MANY, tokenizers="0.1"))
    with pytest.raises(BundleError, match="another bundle"):
        bridge._load(bridge.SparkWorker(WorkerBundle("0" * 64), str(MANY), False, {}))


class ConnectSession:
    """What a session of Spark Connect has in place of a SparkContext."""

    def __init__(self, name: str) -> None:
        self.session_id, self.sent = name, list[str]()

    @property
    def sparkContext(self) -> Any:  # noqa: N802
        raise RuntimeError("[JVM_ATTRIBUTE_NOT_SUPPORTED]")

    def addArtifacts(self, *paths: str, archive: bool = False) -> None:  # noqa: N802
        assert archive
        self.sent += paths


def test_spark_connect_gets_the_bundle_once_a_session(bundle: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"  # as the hub's cache keeps a bundle: links to files elsewhere
    snapshot.mkdir()
    for path in bundle.iterdir():
        (snapshot / path.name).symlink_to(path)
    for session in (ConnectSession("a"), ConnectSession("b")):
        sent = bridge._send(session, snapshot, "auto", "fp32", shared=False)
        assert bridge._send(session, snapshot, "auto", "fp32", shared=False) == sent
        (path, name) = session.sent[0].split("#")
        assert (len(session.sent), name, sent.worker.sent) == (1, sent.worker.place, True)
        shutil.unpack_archive(path, tmp_path / session.session_id)
        assert bundle_digest(tmp_path / session.session_id) == sent.outline.digest
        assert not (tmp_path / session.session_id / "seen.safetensors").exists()


def test_a_session_that_sends_nothing_needs_a_shared_bundle(bundle: Path) -> None:
    with pytest.raises(BundleError, match="shared=True"):
        bridge._send(object(), bundle, "auto", "fp32", shared=False)
    assert not bridge._send(object(), bundle, "auto", "fp32", shared=True).worker.sent


def test_what_is_no_frame_no_bundle_and_no_name_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"(?s)no DataFrame of Spark.*predict_frame"):
        bridge.score({"text": ["a"]}, bundle)
    with pytest.raises(RecipeError, match="name of a function in SQL"):
        bridge.register(None, bundle, "my function")
    monkeypatch.setattr(bridge, "is_installed", lambda _: False)
    with pytest.raises(MissingExtraError, match=r"fullbake\[spark\]"):
        bridge.score(None, bundle)


def test_long_texts_are_scored_few_at_a_time() -> None:
    batch = pa.record_batch({"text": ["x" * 1_000_000] * 9})
    assert [part.num_rows for part in bridge._slices(batch, ["text"])] == [3, 3, 3]
    batch = pa.record_batch({"text": ["x"] * 5000})
    assert [part.num_rows for part in bridge._slices(batch, ["text"])] == [4096, 904]
