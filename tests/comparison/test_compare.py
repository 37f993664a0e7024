"""The workspace, and whole comparisons of a few dozen rows on small bases."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from helpers.rows import dataset, make_rows, write_csv

from fullbake import Classifier, Recipe, compare
from fullbake.classifier.evaluate import read_as_trained
from fullbake.comparison.compare import WORKSPACE_FILE, open_workspace
from fullbake.comparison.forecast import Speed
from fullbake.comparison.functions import ComparisonFunctions
from fullbake.comparison.trial import TrialPredictions, TrialResult, failed_trial, score_trial, train_trial
from fullbake.core.errors import DataError, DeadlinePassed, DivergenceFault, OutputError, RecipeError
from fullbake.data.splits import Part, Parts, divide
from fullbake.training.job import Job

IDENTITY: dict[str, Any] = {"data": "a" * 64, "folds": None, "recipes": {"finetune": {"epochs": 3}}}


def enter(folder: Path, *, restart: bool = False, **given: Any) -> dict[str, Any]:
    """Open and close the workspace. Return the content of its WORKSPACE_FILE."""
    with open_workspace(folder, IDENTITY | given, restart=restart):
        pass
    found: dict[str, Any] = json.loads((folder / WORKSPACE_FILE).read_text())
    return found


def test_new_workspace_states_its_comparison(tmp_path: Path) -> None:
    assert enter(tmp_path / "deep" / "out") == IDENTITY
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"], "no lock is left"


def test_same_comparison_continues_and_recipes_may_be_added(tmp_path: Path) -> None:
    enter(tmp_path / "out")
    more = {"tfidf": {"x": 1}}
    assert enter(tmp_path / "out", recipes=more)["recipes"] == IDENTITY["recipes"] | more
    both = enter(tmp_path / "out", recipes=IDENTITY["recipes"])["recipes"]
    assert both == IDENTITY["recipes"] | more, "recipes of earlier calls stay"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"folds": 5}, r"folds: None there, 5 now"),
        ({"data": "b" * 64}, r"data: aaaaaaaaaaaa\.\.\. there, bbbbbbbbbbbb\.\.\. now"),
        ({"recipes": {"finetune": {"epochs": 4}}}, r"recipes\.finetune\.epochs: 3 there, 4 now"),
    ],
)
def test_another_comparison_is_refused_and_unchanged(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    enter(tmp_path / "out")
    (tmp_path / "out" / "cells" / "finetune" / "0" / "trained").mkdir(parents=True)
    with pytest.raises(OutputError, match=f"{words}(?s:.*)--restart"):
        enter(tmp_path / "out", **given)
    assert (tmp_path / "out" / "cells").is_dir()
    assert enter(tmp_path / "out", restart=True, **given)["folds"] == given.get("folds")
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_unreadable_workspace_file_counts_as_another_comparison(tmp_path: Path, damage: str) -> None:
    enter(tmp_path / "out")
    (tmp_path / "out" / WORKSPACE_FILE).write_text(damage)
    with pytest.raises(OutputError, match="the folder holds another comparison"):
        enter(tmp_path / "out")
    assert enter(tmp_path / "out", restart=True) == IDENTITY


def test_second_process_is_refused(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "out", IDENTITY, restart=False):
        other = FileLock(tmp_path / ".out.lock")
        assert other.lock_file
        with pytest.raises(OutputError, match="another process"):
            enter(tmp_path / "out")
    enter(tmp_path / "out")


def test_lock_is_released_after_an_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_workspace(tmp_path / "out", IDENTITY, restart=False):
        raise KeyboardInterrupt
    assert enter(tmp_path / "out") == IDENTITY


Bases = Callable[..., Path]

FIELDS: dict[str, Any] = {"max_length": 48, "batch_size": 8, "epochs": 2, "token_budget": 256, "test": 0.25}
NAMES = ("frozen-linear", "frozen-mlp", "majority")


def run(base: Path, folder: Path, names: tuple[str | Path, ...] = NAMES, **given: Any) -> dict[str, Any]:
    """Run a small comparison on `make_rows()`, with its caches and `out` in `folder`."""
    source = folder / "rows-0.csv"
    if not source.exists():
        dataset(folder, 80)
    settings = {"out": folder / "out", "seeds": 2, "head_rates": (1e-2, 1e-3), "cache_dir": folder / "cache"}
    return compare(source, names, **(settings | {"base": str(base)} | FIELDS | given))


@pytest.fixture(scope="module")
def done(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished comparison: (parent of its folder, leaderboard). Copy the folder before changing it."""
    folder = tmp_path_factory.mktemp("comparison")
    return folder, run(bases("bert"), folder)


def copy_to(folder: Path, done: tuple[Path, dict[str, Any]]) -> Path:
    shutil.copytree(done[0], folder, dirs_exist_ok=True)
    return folder


def without_time(board: dict[str, Any]) -> dict[str, Any]:
    """Return a leaderboard without the entries that differ between two equal runs."""
    copy = json.loads(json.dumps(board))
    copy.pop("seconds"), copy.pop("date")
    return copy


def test_folder_holds_every_promised_file(done: tuple[Path, dict[str, Any]]) -> None:
    out = done[0] / "out"
    assert {path.name for path in out.iterdir()} == {
        "best",
        "cells",
        "comparison.json",
        "leaderboard.json",
        "report.html",
    }
    assert json.loads((out / "leaderboard.json").read_text("utf-8")) == json.loads(json.dumps(done[1]))
    assert "f1" in (out / "report.html").read_text("utf-8").lower()
    assert not list(out.glob("cells/**/weights"))


def test_rates_and_strengths_are_chosen_by_log_loss_unless_a_metric_is_given(done: tuple[Path, dict[str, Any]]) -> None:
    recipes = json.loads((done[0] / "out" / "comparison.json").read_text("utf-8"))["recipes"]
    assert {recipe["training"]["search_metric"] for recipe in recipes.values()} == {"neg_log_loss"}
    assert {recipe["training"]["metric"] for recipe in recipes.values()} == {"f1_macro"}


def test_leaderboard_has_scores_and_costs_of_every_recipe(done: tuple[Path, dict[str, Any]]) -> None:
    board = done[1]
    recipes = {entry["name"]: entry for entry in board["recipes"]}
    assert list(recipes) == list(NAMES)
    assert {entry["status"] for entry in recipes.values()} == {"done"}
    assert [entry["rate"] for entry in recipes["frozen-mlp"]["rates"]] == [1e-2, 1e-3]
    assert recipes["frozen-mlp"]["seeds"] == [0, 1]
    assert recipes["frozen-linear"]["seeds"] == [0]
    for entry in recipes.values():
        figure = entry["test"]["f1_macro"]
        assert figure["low"] <= figure["mean"] <= figure["high"]
        assert len(figure["seeds"]) == len(entry["seeds"])
        assert 0 < entry["cost"]["train_seconds"] <= entry["cost"]["search_seconds"]
        assert entry["cost"]["rows_per_second"] > 0
        assert sum(map(sum, entry["confusion"])) == board["data"]["test"] == 20
    assert recipes["frozen-mlp"]["cost"]["trained_parameters"] > recipes["frozen-linear"]["cost"]["trained_parameters"]
    assert len(board["pairs"]) == 3
    assert board["verdict"]["recommended"] in ("frozen-linear", "frozen-mlp")
    assert len({json.dumps(row["predictions"]) for row in board["disagreements"]}) >= 1


def test_validation_of_the_first_seed_chooses_the_rate(done: tuple[Path, dict[str, Any]]) -> None:
    (entry,) = (entry for entry in done[1]["recipes"] if entry["name"] == "frozen-mlp")
    assert entry["rate"] in [rate["rate"] for rate in entry["rates"]]
    counts = {rate["rate"]: len(rate["validation"]) for rate in entry["rates"]}
    assert counts.pop(entry["rate"]) == 2, "the second seed takes the rate of the first"
    assert set(counts.values()) == {1}
    scored = {path.parent.name for path in (done[0] / "out" / "cells" / "frozen-mlp").glob("*/scored")}
    assert scored == {"0", "1"}, "every trial is scored once"


def test_best_classifier_predicts_and_records_its_test_scores(done: tuple[Path, dict[str, Any]]) -> None:
    folder, board = done
    classifier = Classifier.load(folder / "out" / "best")
    entry = next(entry for entry in board["recipes"] if entry["name"] == board["verdict"]["recommended"])
    test = divide(read_as_trained(classifier, folder / "rows-0.csv"), Recipe.load(base="x", test=0.25, folds=0).data)
    assert test.test is not None
    rows = test.test.source.take(test.test.indices)
    labels = np.array(rows.label_names)[rows.labels]
    right = float((classifier.predict(rows.texts) == labels).mean())
    recorded = classifier.record.facts["metrics"]["test"]["overall"]["accuracy"]["value"]
    assert right == pytest.approx(recorded)
    assert any(score == pytest.approx(recorded) for score in entry["test"]["accuracy"]["seeds"])


def test_same_command_again_trains_nothing(bases: Bases, done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = copy_to(tmp_path, done)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a finished trial was run again")

    functions = ComparisonFunctions(train=refuse, score=refuse, train_baseline=refuse, score_baseline=refuse)
    assert without_time(run(bases("bert"), folder, functions=functions)) == without_time(done[1])


def test_stopped_comparison_continues_and_gives_the_same_results(
    bases: Bases, done: tuple[Path, dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is stopped twice and says each time that it can continue; finished trials are not run again."""
    trained: list[str] = []

    def stop_twice(job: Job, rate: float | None) -> tuple[TrialResult, dict[str, np.ndarray]]:
        if len(trained) in (1, 2):
            trained.append("stopped")
            raise KeyboardInterrupt
        trained.append(f"{rate}")
        return train_trial(job, rate)

    functions = ComparisonFunctions(train=stop_twice)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), caplog.at_level(logging.INFO, "fullbake"):
            run(bases("bert"), tmp_path, functions=functions)
    assert caplog.text.count("the same command continues from there") == 2
    board = run(bases("bert"), tmp_path, functions=functions)
    assert trained.count("stopped") == 2
    assert len(trained) == 3 + 2
    costs = ("cost", "histories")
    for entry, other in zip(board["recipes"], done[1]["recipes"], strict=True):
        assert {key: entry[key] for key in entry if key not in costs} == {
            key: other[key] for key in other if key not in costs
        }


def test_seeds_and_recipes_can_be_added_to_a_folder(
    bases: Bases, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    board = run(bases("bert"), copy_to(tmp_path, done), (*NAMES, "frozen-standard"), seeds=3)
    before = {entry["name"]: entry for entry in done[1]["recipes"]}
    now = {entry["name"]: entry for entry in board["recipes"]}
    assert now["frozen-standard"]["status"] == "done"
    for rate, same in zip(now["frozen-mlp"]["rates"], before["frozen-mlp"]["rates"], strict=True):
        assert rate["validation"][: len(same["validation"])] == same["validation"]
    assert now["frozen-mlp"]["seeds"] == [0, 1, 2]


def test_training_and_selection_never_see_the_test_part(bases: Bases, tmp_path: Path) -> None:
    """Every training gets parts without test. The first seed tries all rates; the second has no choice to make."""
    trained: list[float | None] = []
    scored: list[Any] = []

    def train(job: Job, rate: float | None) -> tuple[TrialResult, dict[str, np.ndarray]]:
        assert job.parts.test is None
        trained.append(rate)
        return train_trial(job, rate)

    def score(job: Job, test: Part, weights: Mapping[str, np.ndarray]) -> TrialPredictions:
        scored.append(job.recipe.training.learning_rate)
        return score_trial(job, test, weights)

    board = run(bases("bert"), tmp_path, ("frozen-mlp",), functions=ComparisonFunctions(train=train, score=score))
    chosen = board["recipes"][0]["rate"]
    assert trained == [None, chosen]
    assert scored == [(chosen,)] * 2, "once for each seed"


def test_other_test_rows_do_not_change_the_validation_scores(bases: Bases, tmp_path: Path) -> None:
    rows = make_rows(80)
    write_csv(tmp_path / "train.csv", rows)
    boards = []
    for seed in (5, 6):
        test = str(write_csv(tmp_path / f"test-{seed}.csv", make_rows(20, seed=seed)))
        names = ("frozen-mlp", "tfidf")
        settings = {
            "out": tmp_path / f"out-{seed}",
            "seeds": 2,
            "cache_dir": tmp_path / "cache",
            "base": str(bases("bert")),
        }
        boards.append(
            compare(tmp_path / "train.csv", names, head_rates=(1e-2, 1e-3), **(settings | FIELDS | {"test": test}))
        )
    one, other = boards
    assert [entry["rates"] for entry in one["recipes"]] == [entry["rates"] for entry in other["recipes"]]
    assert one["data"]["fingerprint"] != other["data"]["fingerprint"]


def test_with_folds_every_row_is_test_once(bases: Bases, tmp_path: Path) -> None:
    board = run(bases("bert"), tmp_path, ("frozen-linear", "tfidf"), folds=3)
    assert board["data"]["test"] == 80
    assert board["data"]["folds"] == 3
    assert sum(entry["test"] for entry in board["data"]["labels"]) == 80
    assert all(sum(map(sum, entry["confusion"])) == 80 for entry in board["recipes"])
    assert "frozen-linear/fold-3/0" in board["recipes"][0]["cells"]


def test_further_pretraining_gets_the_training_part_of_each_fold(bases: Bases, tmp_path: Path) -> None:
    seen: list[Parts] = []

    def further_pretrain(job: Job) -> Job:
        seen.append(job.parts)
        return job

    run(
        bases("bert"),
        tmp_path,
        ("further-frozen-linear",),
        folds=2,
        further_pretraining="objective=mlm;steps=2",
        functions=ComparisonFunctions(further_pretrain=further_pretrain),
    )
    fingerprints = {parts.train.fingerprint() for parts in seen}
    assert len(fingerprints) == 2
    for parts in seen:
        assert parts.test is not None
        assert not set(parts.train.rows.tolist()) & set(parts.test.rows.tolist())


def test_failed_recipe_is_reported_and_the_others_are_compared(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def diverge(job: Job, rate: float | None) -> tuple[TrialResult, dict[str, np.ndarray]]:
        if job.recipe.head.kind == "mlp":
            error = DivergenceFault("the training loss is no longer a finite number")
            return failed_trial(error.what, job.recipe.training.seed), {}
        return train_trial(job, rate)

    with caplog.at_level(logging.WARNING, "fullbake"):
        board = run(bases("bert"), tmp_path, functions=ComparisonFunctions(train=diverge))
    (entry,) = (entry for entry in board["recipes"] if entry["name"] == "frozen-mlp")
    assert (entry["status"], entry["reason"]) == ("failed", "the training loss is no longer a finite number")
    assert "frozen-mlp failed" in caplog.text
    assert len(board["pairs"]) == 1
    assert "frozen-mlp" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_max_rows_is_stated_in_the_leaderboard(bases: Bases, tmp_path: Path) -> None:
    board = run(bases("bert"), tmp_path, ("frozen-linear", "tfidf"), max_rows=48)
    assert board["data"]["rows"] == 48
    assert board["data"]["max_rows"] == 48
    assert any("48 rows" in stamp for stamp in board["stamps"])


def test_metric_can_be_chosen(bases: Bases, tmp_path: Path) -> None:
    board = run(bases("bert"), tmp_path, ("frozen-linear", "tfidf"), metric="neg_log_loss")
    assert board["metric"] == "neg_log_loss"
    for entry in board["recipes"]:
        figure = entry["test"]["neg_log_loss"]
        assert figure["low"] <= figure["mean"] <= min(figure["high"], 0)
        assert figure["mean"] == pytest.approx(-entry["test"]["log_loss"]["mean"])


def test_several_labels_a_row(bases: Bases, tmp_path: Path) -> None:
    rows = [(text, str(int(label == "food")), str(int(label != "game"))) for text, label in make_rows(80)]
    write_csv(tmp_path / "marks.csv", rows, ("text", "food", "other"))
    settings = {"out": tmp_path / "out", "cache_dir": tmp_path / "cache", "base": str(bases("bert"))}
    board = compare(
        tmp_path / "marks.csv",
        ["frozen-linear", "majority", "tfidf"],
        seeds=1,
        **(settings | FIELDS | {"labels": "food,other"}),
    )
    assert board["problem_type"] == "multi_label_classification"
    assert {entry["status"] for entry in board["recipes"]} == {"done"}
    assert all(entry["confusion"] is None for entry in board["recipes"])
    assert [entry["label"] for entry in board["recipes"][0]["recall"]] == ["food", "other"]


def base_with_speed(train: float, infer: float) -> ComparisonFunctions:
    """The real functions, but with that speed (rows per second) in place of a measured one."""
    return ComparisonFunctions(measure_speed=lambda _: Speed(train=train, infer=infer, tokens=1e6))


def test_recipe_that_does_not_fit_is_named_with_the_budget_it_would_take(bases: Bases, tmp_path: Path) -> None:
    """At 100 seconds a row, fine-tuning does not fit into a minute, however small."""
    functions = base_with_speed(train=0.01, infer=1000.0)
    names = ("finetune", "frozen-linear", "tfidf")
    board = run(bases("bert"), tmp_path, names, budget="1m", functions=functions)
    entry = board["recipes"][0]
    assert entry["status"] == "left_out"
    assert entry["reason"] == "the budget of 1 min is too short"
    assert board["not_run"]["finetune"]["seconds_needed"] > 60
    assert board["design"]["budget_seconds"] == 60
    assert {other["status"] for other in board["recipes"][1:]} == {"done"}


def test_long_further_pretraining_is_shortened_and_it_is_said(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A hundred passes would take a minute; the budget has room for some of them."""
    with caplog.at_level(logging.INFO, "fullbake"):
        board = run(
            bases("bert"),
            tmp_path,
            ("further-frozen-linear", "tfidf"),
            budget="4m",
            further_pretraining="objective=mlm;epochs=100;batch_size=16",
            functions=base_with_speed(train=10.0, infer=1000.0),
        )
    assert {entry["status"] for entry in board["recipes"]} == {"done"}
    assert "to stay within the budget: further-frozen-linear: Further pretraining had" in caplog.text
    # The trainings of so few rows are much faster than that, so the rest of the budget was enough for the whole.
    assert "further-frozen-linear/0" in board["recipes"][0]["cells"]
    assert not board["reduced"]


def test_comparison_without_any_finished_trial_may_be_replaced(bases: Bases, tmp_path: Path) -> None:
    """So the advice of the error can be followed: other rows need no --restart."""

    def refuse(*_: Any) -> Any:
        raise DeadlinePassed("the time was up")

    functions = ComparisonFunctions(measure_speed=lambda _: Speed(1.0, 0.5), train=refuse)
    with pytest.raises(RecipeError, match=r"too short(?s:.*)--max-rows"):
        run(bases("bert"), tmp_path, ("finetune", "frozen-linear"), budget="30s", functions=functions)
    board = run(bases("bert"), tmp_path, ("frozen-linear", "tfidf"), max_rows=48)
    assert board["data"]["rows"] == 48


# Bad input


def test_folder_with_other_data_recipes_or_versions_is_refused(
    bases: Bases, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = copy_to(tmp_path, done)
    with pytest.raises(OutputError, match=r"max_rows: None there, 40 now(?s:.*)--restart"):
        run(bases("bert"), folder, max_rows=40)
    with pytest.raises(OutputError, match=r"recipes.frozen-mlp.training.epochs: 2 there, 3 now"):
        run(bases("bert"), folder, epochs=3)
    about = json.loads((folder / "out" / "comparison.json").read_text())
    about["versions"]["torch"] = "1.0"
    (folder / "out" / "comparison.json").write_text(json.dumps(about))
    with pytest.raises(OutputError, match=r"versions.torch: 1.0 there"):
        run(bases("bert"), folder)
    board = run(bases("bert"), folder, ("frozen-linear", "tfidf"), max_rows=40, restart=True)
    assert board["data"]["rows"] == 40


def test_folder_with_other_files_is_never_emptied(bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for restart in (False, True):
        with pytest.raises(
            OutputError, match=r"already holds something(.|\n)*another folder for the comparison: --out"
        ):
            run(bases("bert"), tmp_path, restart=restart)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seeds": 0}, "seeds is too small"),
        ({"folds": 1}, "folds is too small"),
        ({"budget": "soon"}, "--budget: this is not a duration"),
        ({"metric": "f1_samples"}, "no meaning for single_label_classification"),
        ({"metric": "f1_makro"}, "f1_macro"),
        ({"truncation": "auto"}, "truncation auto"),
        ({"names": ("frozen-linaer",)}, "Did you mean 'frozen-linear'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    bases: Bases, tmp_path: Path, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        run(bases("bert"), tmp_path, **given)
    assert not (tmp_path / "out").exists()


def test_too_few_rows_for_folds_or_parts_are_refused(bases: Bases, tmp_path: Path) -> None:
    dataset(tmp_path, 9)
    with pytest.raises(DataError, match=r"too few rows for 4 folds(?s:.*)--folds 3"):
        run(bases("bert"), tmp_path, folds=4)
    rows = [*make_rows(30, classes=2), ("money only once 77", "money"), ("money and once more 78", "money")]
    write_csv(tmp_path / "rows-0.csv", rows)
    with pytest.raises(DataError, match=r"too few rows to compare recipes on(?s:.*)'money'"):
        run(bases("bert"), tmp_path)
