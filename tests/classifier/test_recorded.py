"""A training is recorded as it is: all steps once, also after a kill, with the same weights and no text of a row."""

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.event_files import read_scalars
from helpers.rows import make_rows, recipe, write_csv
from helpers.trackers import FailingTracker, MemoryTracker

from fullbake import Classifier, Recipe, adapt
from fullbake.integrations.track_mlflow import MlflowTracker
from fullbake.integrations.track_tensorboard import TensorBoardTracker

SCRIPT = """
import os, signal, sys
import torch
from fullbake import Recipe, adapt
from fullbake.core import rng
from fullbake.integrations.track_mlflow import MlflowTracker
from fullbake.integrations.track_tensorboard import TensorBoardTracker

folder, runs, store, fields = sys.argv[1:4] + [eval(sys.argv[4])]
seed_step, taken = rng.seed_step, []

def killing(*given):
    taken.append(1)
    if len(taken) > 14:
        os.kill(os.getpid(), signal.SIGKILL)
    return seed_step(*given)

rng.seed_step = killing
torch.set_num_threads(1)
trackers = [TensorBoardTracker(runs), MlflowTracker(store)]
chosen, out = Recipe.load("finetune", **fields), folder + "/out"
adapt(chosen, folder + "/rows.csv", out=out, checkpoint_every="6", track=trackers)
"""


@pytest.fixture(scope="module")
def killed(bases: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was killed at step 14, two steps after its second checkpoint, and then resumed."""
    folder = tmp_path_factory.mktemp("recorded")
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    write_csv(folder / "rows.csv", make_rows(60))
    fields = {"epochs": 3, "batch_size": 8, "test": 0.25, "learning_rate": "1e-3", "base": str(bases("bert"))}
    fields |= {"text": "text", "label": "label", "max_length": 48}
    store = f"file://{folder / 'store'}"
    words = [sys.executable, "-c", SCRIPT, str(folder), str(folder / "runs"), store, repr(fields)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr[-2000:]
    again = [TensorBoardTracker(folder / "runs"), MlflowTracker(store)]
    chosen = Recipe.load("finetune", **fields)
    adapt(chosen, folder / "rows.csv", out=folder / "out", checkpoint_every="6", track=again)
    adapt(chosen, folder / "rows.csv", out=folder / "plain")
    return folder


def test_a_killed_run_goes_into_the_same_tensorboard_folder_with_each_step_once(killed: Path) -> None:
    (place,) = (killed / "runs").iterdir()
    found = read_scalars(place)
    steps = [step for step, _ in found["train/loss"]]
    assert steps == list(range(1, steps[-1] + 1))
    assert steps[-1] > 14
    assert len(found["epoch/validation_loss"]) == 3
    assert found["train/learning_rate"][-1][1] < found["train/learning_rate"][3][1]
    assert {"final/test/f1_macro", "final/test/accuracy_low", "final/test/rows"} <= set(found)


def test_a_killed_run_is_one_run_of_mlflow_with_its_bundle(killed: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"file://{killed / 'store'}")
    experiment = client.get_experiment_by_name("fullbake")
    (run,) = client.search_runs([experiment.experiment_id])
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert (run.info.run_name, run.info.status) == ("out", "FINISHED")
    assert run.data.params["way"] == "finetune"
    assert run.data.params["rows.test"] == "15"
    assert 0 <= run.data.metrics["test/accuracy_low"] <= run.data.metrics["test/accuracy"] <= 1
    bundle = Path(run.info.artifact_uri.removeprefix("file://")) / "bundle"
    assert not (bundle / "seen.safetensors").exists()
    assert Classifier.load(bundle).label_names == ("food", "game", "money")


def test_tracking_and_the_kill_change_no_bit(killed: Path) -> None:
    hashes = [
        hashlib.sha256((killed / name / "model.safetensors").read_bytes()).hexdigest() for name in ("out", "plain")
    ]
    assert hashes[0] == hashes[1]
    assert not (killed / "out.unfinished").exists()


def test_no_text_of_a_row_is_in_a_tracker(killed: Path) -> None:
    texts = [text.encode() for text, _ in make_rows(60)]
    files = [path for place in ("runs", "store") for path in (killed / place).rglob("*") if path.is_file()]
    contents = [path.read_bytes() for path in files]
    assert len(files) > 20
    assert not [path for path, content in zip(files, contents, strict=True) for text in texts if text in content]


def test_heads_and_failures_are_recorded_without_a_bundle(
    bases: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory, failing = MemoryTracker(), FailingTracker("log")
    chosen = recipe(bases("bert"), "frozen-mlp", learning_rate="1e-2,1e-3", folds=0, text="text", label="label")
    rows: Any = write_csv(tmp_path / "rows.csv", make_rows(40))
    with caplog.at_level(logging.INFO, "fullbake"):
        adapt(chosen, rows, cache_dir=tmp_path / "cache", track=[memory, failing])
    (run,) = memory.runs.values()
    assert run.steps("rate-0.01/train/loss") == run.steps("rate-0.001/train/loss")
    assert len(run.steps("rate-0.01/epoch/f1_macro")) == 2
    assert "validation/f1_macro" in run.scores
    assert run.files == {}
    assert caplog.text.count("failing failed") == 1


def test_an_unknown_tracker_is_refused_before_any_work(run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, error = run("train", "no-such-file.csv", "--base", "demo", "--out", "x", "--track", "wandbb")
    assert code == 2
    assert "Did you mean 'wandb'?" in error
