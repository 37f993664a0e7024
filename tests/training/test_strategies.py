"""Both ways of training, from file to bundle, for every kind of problem."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import make_job, make_rows, recipe, train, weights, write_csv
from helpers.weights import assert_same
from transformers import AutoModelForSequenceClassification, PreTrainedModel, pipeline

from fullbake import Classifier, Recipe, adapt, evaluate, predict_file
from fullbake.classifier.evaluate import read_as_trained
from fullbake.core import storage
from fullbake.core.errors import DataError, RecipeError
from fullbake.data.files import open_table
from fullbake.models.prediction import encode
from fullbake.training import strategies
from fullbake.training.job import Job, resolve_recipe
from fullbake.training.rates import HEAD_RATES, RateProbe
from fullbake.training.strategies import rates_of, recipes_to_try

Bases = Callable[..., Path]
WAYS = ["frozen-linear", "frozen-mlp", "finetune"]
LABELS = ("food", "game", "money")


def many_labels(count: int = 90) -> list[tuple[str, list[str]]]:
    """Return (text, labels) rows about one subject, two, or none."""
    rows = make_rows(count, seed=5)
    made = []
    for place, (text, label) in enumerate(rows):
        other, second = rows[(place * 7 + 1) % count]
        kinds = place % 3
        made.append((text + " " + other, sorted({label, second})) if kinds == 1 else (text, [label]))
    return [*made, *((f"the and a we they {number}", []) for number in range(10))]


@pytest.fixture(scope="module")
def label_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the same rows with their labels as lists, as columns of 0 and 1, and separated by a character."""
    folder, rows = tmp_path_factory.mktemp("label_files"), many_labels()
    lines = [json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows]
    (folder / "lists.jsonl").write_text("".join(lines))
    columns = [(text, *(str(int(name in labels)) for name in LABELS)) for text, labels in rows]
    return {
        "lists": folder / "lists.jsonl",
        "columns": write_csv(folder / "columns.csv", columns, ("text", *LABELS)),
        "separated": write_csv(folder / "separated.csv", [(text, "|".join(labels)) for text, labels in rows]),
    }


def test_rates_of_each_way(bases: Bases, tmp_path: Path) -> None:
    base = bases("bert", hidden_size=16)
    auto = rates_of(make_job(base, tmp_path, "finetune", learning_rate="auto", batch_size=4, gradient_accumulation=2))
    assert isinstance(auto, RateProbe)
    assert (auto.rule, auto.width, auto.batch, auto.steps) == (3e-4, 16, 8, 12)  # 45 rows, 2 epochs
    longer = rates_of(make_job(base, tmp_path, "finetune", learning_rate="auto", epochs=2, min_steps=50))
    assert isinstance(longer, RateProbe)
    assert longer.steps == 54
    assert rates_of(make_job(base, tmp_path, "finetune", learning_rate="1e-4,2e-4")) == (1e-4, 2e-4)
    assert rates_of(make_job(base, tmp_path, "frozen-mlp", learning_rate="auto")) == HEAD_RATES["mlp"]
    assert rates_of(make_job(base, tmp_path, "frozen-mlp")) == (1e-2,)
    assert len(rates_of(make_job(base, tmp_path, "frozen-linear"))) == 1


def test_frozen_without_a_head_keeps_the_better_of_linear_and_mlp(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    fields = {"learning_rate": "1e-2,1e-3", "epochs": 4, "folds": 0}
    both = train(bases("bert"), tmp_path, "frozen", **fields)
    said = next(message for message in caplog.messages if message.startswith("validation chose the head"))
    values = {kind: float(value) for value, kind in re.findall(r"(-\d\.\d+) for (\w+)", said)}
    assert set(values) == {"linear", "mlp"}
    kind = both.record.facts["chosen"]["head"]
    assert values[kind] == max(values.values())
    alone = train(bases("bert"), tmp_path, f"frozen-{kind}", **(fields if kind == "mlp" else {"folds": 0}))
    assert_same(weights(both), weights(alone))
    both.save(tmp_path / "bundle")
    assert Classifier.load(tmp_path / "bundle").record.facts["recipe"]["head"]["kind"] == kind


@pytest.mark.parametrize("fields", [{"loss": "focal"}, {"label_smoothing": 0.1}, {"sampling": "balanced"}])
def test_frozen_without_a_head_tries_the_mlp_alone_where_regression_cannot_train_so(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture, fields: dict[str, Any]
) -> None:
    caplog.set_level("INFO")
    options = recipes_to_try(make_job(bases("bert"), tmp_path, "frozen", **fields).recipe)
    assert [option.head.kind for option in options] == ["mlp"]
    assert "the mlp alone is tried" in caplog.text


def test_default_head_of_a_base_is_linear_over_the_pooling_that_it_names(bases: Bases, tmp_path: Path) -> None:
    base = bases("bert")
    assert resolve_recipe(Recipe.load("finetune", base=str(base))).head.kind == "standard"
    named = tmp_path / "named"
    shutil.copytree(base, named)
    (named / "modules.json").write_text('[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]')
    (named / "1_Pooling").mkdir()
    (named / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    head = resolve_recipe(Recipe.load("finetune", base=str(named))).head
    assert (head.kind, head.pooling) == ("linear", "mean")
    assert resolve_recipe(Recipe.load("devlin2019", base=str(named))).head.kind == "standard"
    over = resolve_recipe(Recipe.load("finetune", base=str(base), pooling="max")).head
    assert (over.kind, over.pooling) == ("linear", "max")
    (named / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    assert resolve_recipe(Recipe.load("finetune", base=str(named))).head.kind == "standard"


def test_auto_rate_is_probed_and_recorded(bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fields = {"learning_rate": "auto", "batch_size": 2, "epochs": 22, "folds": 0}  # 506 steps
    trained = train(bases("bert"), tmp_path, "finetune", **fields)
    assert any(message.startswith("trying the learning rates") for message in caplog.messages)
    rate = trained.record.facts["chosen"]["learning_rate"]
    fixed = train(bases("bert"), tmp_path, "finetune", **fields | {"learning_rate": str(rate)})
    assert_same(weights(trained), weights(fixed))


FORMS: dict[str, dict[str, Any]] = {
    "lists": {},
    "columns": {"labels": ",".join(LABELS)},
    "separated": {"label_separator": "|"},
}


@pytest.mark.parametrize("name", WAYS)
def test_every_form_of_many_labels_gives_the_same_classifier(
    bases: Bases, label_files: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """The same bits; and the bundle keeps thresholds and problem type."""
    pooling = {} if name == "finetune" else {"pooling": "mean"}
    made = {
        form: adapt(recipe(bases("bert"), name, epochs=3, folds=0, **pooling, **FORMS[form]), path, cache_dir=tmp_path)
        for form, path in label_files.items()
    }
    assert_same(weights(made["lists"]), weights(made["columns"]))
    assert_same(weights(made["lists"]), weights(made["separated"]))
    classifier = made["columns"]
    assert classifier.label_names == LABELS
    texts = [text for text, _ in many_labels()[:7]]
    assert classifier.predict(texts).shape == (7, 3)
    assert set(np.unique(classifier.predict(texts))) <= {0, 1}
    classifier.save(tmp_path / "m")
    again = Classifier.load(tmp_path / "m")
    assert again.decision == classifier.decision
    assert again.decision.thresholds is not None
    assert np.array_equal(again.predict_proba(texts), classifier.predict_proba(texts))
    scores = evaluate(again, read_as_trained(again, label_files["columns"]))
    assert scores["problem_type"] == "multi_label_classification"
    assert 0 <= scores["calibration"]["ece"] <= 1


def test_plain_transformers_applies_the_sigmoid(bases: Bases, label_files: dict[str, Path], tmp_path: Path) -> None:
    chosen = recipe(bases("bert"), "frozen-standard", folds=0)
    made = adapt(chosen, label_files["lists"], out=tmp_path / "m", cache_dir=tmp_path)
    text = many_labels()[0][0]
    scorer = pipeline("text-classification", str(tmp_path / "m"), top_k=None)
    plain = {entry["label"]: entry["score"] for entry in scorer([text], truncation=True)[0]}
    ours = dict(zip(made.label_names, made.predict_proba([text])[0], strict=True))
    assert plain == pytest.approx(ours, abs=1e-5)
    assert sum(plain.values()) != pytest.approx(1)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    assert model.config.problem_type == "multi_label_classification"


def test_predicted_label_columns_of_a_file_can_be_read_again(
    bases: Bases, label_files: dict[str, Path], tmp_path: Path
) -> None:
    made = adapt(recipe(bases("bert"), folds=0, **FORMS["columns"]), label_files["columns"], cache_dir=tmp_path)
    for form in (".csv", ".jsonl", ".parquet"):
        target = tmp_path / f"scored{form}"
        predict_file(made, label_files["columns"], target)
        columns = {name: name for name in ("predicted:food", "predicted:game", "predicted:money")}
        (chunk,) = open_table(target, columns=list(columns)).chunks()
        read = np.array([[int(value) for value in chunk.columns[name]] for name in columns]).T
        assert np.array_equal(read, made.predict([text for text, _ in many_labels()]))


# Pairs


def pairs(count: int = 60) -> list[tuple[str, str, str]]:
    rows = make_rows(count, seed=6)
    made = []
    for place, (text, label) in enumerate(rows):
        other, second = rows[(place * 5 + 2) % count]
        made.append((text, other, "same" if label == second else "other"))
    return made


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_pairs_of_texts(bases: Bases, tmp_path: Path, family: str, name: str) -> None:
    source = write_csv(tmp_path / "pairs.csv", pairs(), ("one", "two", "label"))
    fields = {"text": "one", "text_pair": "two", "max_length": 40, "folds": 0}
    made = adapt(recipe(bases(family), name, epochs=1, **fields), source, out=tmp_path / "m", cache_dir=tmp_path)
    ones, twos = [row[0] for row in pairs()], [row[1] for row in pairs()]
    again = Classifier.load(tmp_path / "m")
    scores = again.predict_proba(ones, twos)
    np.testing.assert_allclose(scores, made.predict_proba(ones, twos), atol=1e-6)
    np.testing.assert_allclose(again.predict_proba(ones[:1], twos[:1])[0], scores[0], atol=1e-5)
    assert not np.allclose(again.predict_proba(twos[:5], ones[:5]), scores[:5], atol=1e-7)
    assert again.columns.text_pair == "two"
    target = tmp_path / "scored.csv"
    assert predict_file(again, source, target) == 60
    assert evaluate(again, read_as_trained(again, source))["rows"] == 60
    with pytest.raises(DataError, match="pairs of texts"):
        again.predict(ones)


def test_a_second_text_for_single_texts_is_refused(bases: Bases, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows())
    made = adapt(recipe(bases("bert")), source, cache_dir=tmp_path)
    with pytest.raises(DataError, match="single texts"):
        made.predict(["a"], ["b"])


# Windows


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("name", WAYS)
def test_long_texts_in_windows(bases: Bases, tmp_path: Path, name: str, pooling: str) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows())
    fields = {"max_length": 16, "truncation": "windows", "window_pooling": pooling, "folds": 0, "epochs": 1}
    made = adapt(recipe(bases("bert"), name, **fields), source, out=tmp_path / "m", cache_dir=tmp_path)
    assert made.tokens.stride == 4
    texts = [text for text, _ in make_rows()]
    again = Classifier.load(tmp_path / "m")
    together = again.logits(texts)
    assert together.shape == (60, 3)
    # Batches of other shapes round differently, and a linear head magnifies that if features hardly vary.
    np.testing.assert_allclose(again.logits(texts[:1])[0], together[0], rtol=1e-5, atol=1e-5)
    encoded = encode(texts, again.tokenizer, again.tokens)
    assert len(encoded) > 60
    short = adapt(
        recipe(bases("bert"), name, **(fields | {"truncation": "head", "stride": None})), source, cache_dir=tmp_path
    )
    assert not np.allclose(short.logits(texts), together, atol=1e-4)


def test_validation_chooses_the_truncation(bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows())
    caplog.set_level("INFO", "fullbake")
    made = adapt(recipe(bases("bert"), max_length=16, truncation="auto", folds=0), source, cache_dir=tmp_path)
    tried = made.record.facts["truncation_tried"]
    assert set(tried) == {"head", "tail", "head+tail", "windows"}
    assert tried[made.tokens.truncation] == max(tried.values())
    assert made.record.facts["recipe"]["tokens"]["truncation"] == made.tokens.truncation
    assert any(line.startswith("validation chose truncation") for line in caplog.messages)
    alone = adapt(
        recipe(bases("bert"), max_length=16, truncation=made.tokens.truncation, folds=0), source, cache_dir=tmp_path
    )
    assert_same(weights(made), weights(alone))


def test_no_truncation_is_tried_if_every_text_fits(bases: Bases, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows())
    made = adapt(recipe(bases("bert"), max_length=64, truncation="auto", folds=0), source, cache_dir=tmp_path)
    assert (made.tokens.truncation, made.record.facts["truncation_tried"]) == ("head", {})


# Few labels, imbalance


@pytest.mark.parametrize("name", WAYS)
def test_eight_rows_for_each_class_are_enough(bases: Bases, tmp_path: Path, name: str) -> None:
    """Folds choose; every row trains, and every row is scored by a network that did not see it."""
    source = write_csv(tmp_path / "few.csv", make_rows(24))
    made = adapt(recipe(bases("bert"), name, epochs=2), source, out=tmp_path / "m", cache_dir=tmp_path)
    facts = made.record.facts
    assert facts["data"]["rows"] == {"train": 24}
    assert facts["data"]["folds"] == 5
    assert facts["metrics"]["validation"]["rows"] == 24
    assert len(made.record.history) == max(entry.get("epoch", entry.get("trial")) for entry in made.record.history)
    assert Classifier.load(tmp_path / "m").predict(["some food"]).shape == (1,)


@pytest.mark.parametrize("name", ["frozen-linear", "frozen-mlp"])
def test_heads_share_one_encoder_and_get_the_bits_of_networks_of_their_own(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made: list[Job] = []
    build = strategies.initial_network

    def counted(job: Job) -> PreTrainedModel:
        made.append(job)
        return build(job)

    monkeypatch.setattr(strategies, "initial_network", counted)
    shared = train(bases("bert"), tmp_path, name, folds=3)
    assert len(made) == 1, "three folds and the training on all rows take one reading of the base"
    monkeypatch.setattr(strategies, "_networks_on_one_encoder", lambda job: lambda: build(job))
    assert_same(weights(shared), weights(train(bases("bert"), tmp_path, name, folds=3)))


def test_folds_give_the_same_bits_twice(bases: Bases, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "few.csv", make_rows(24))
    chosen = recipe(bases("bert"), "finetune", epochs=2, learning_rate="1e-3,5e-3")
    one, again = (adapt(chosen, source, cache_dir=tmp_path) for _ in range(2))
    assert_same(weights(one), weights(again))


@pytest.mark.parametrize(
    "fields",
    [
        {"class_weights": "balanced"},
        {"class_weights": "food=5"},
        {"loss": "focal"},
        {"label_smoothing": 0.1},
        {"sampling": "balanced"},
    ],
)
@pytest.mark.parametrize("name", ["frozen-mlp", "finetune"])
def test_each_option_for_imbalance_changes_what_is_learned(
    bases: Bases, tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    rows = [row for place, row in enumerate(make_rows(90)) if row[1] != "food" or place < 30]
    source = write_csv(tmp_path / "rows.csv", rows)
    plain = adapt(recipe(bases("bert"), name, epochs=1, folds=0), source, cache_dir=tmp_path)
    other = adapt(recipe(bases("bert"), name, epochs=1, folds=0, **fields), source, cache_dir=tmp_path)
    texts = [text for text, _ in rows]
    assert not np.allclose(plain.logits(texts), other.logits(texts), atol=1e-6)


def test_class_weights_matter_under_lbfgs(bases: Bases, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows(90))
    plain, heavy = (
        adapt(recipe(bases("bert"), folds=0, class_weights=weight), source, cache_dir=tmp_path)
        for weight in (None, "food=50")
    )
    texts = [text for text, _ in make_rows(90)]
    assert heavy.predict_proba(texts)[:, 0].mean() > plain.predict_proba(texts)[:, 0].mean() + 0.1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"class_weights": "fod=5"}, "Did you mean 'food'"),
        ({"at_recall": 0.9}, "--positive"),
        ({"positive": "foo", "at_recall": 0.9}, "no class 'foo'"),
        ({"metric": "f1_samples"}, "no meaning"),
    ],
)
def test_fields_that_do_not_fit_the_labels_are_refused_before_training(
    bases: Bases, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows())
    with pytest.raises(RecipeError, match=words):
        adapt(recipe(bases("bert"), **fields), source, cache_dir=tmp_path)


def test_a_required_recall_is_reached_on_validation(bases: Bases, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "rows.csv", make_rows(120))
    chosen = recipe(bases("bert"), positive="money", at_recall=0.95)
    made = adapt(chosen, source, out=tmp_path / "m", cache_dir=tmp_path)
    scores = made.record.facts["metrics"]["validation"]
    (entry,) = scores["thresholds"]
    assert entry["recall"] >= 0.95
    row = next(row for row in scores["per_class"] if row["label"] == "money")
    assert row["recall"]["value"] == pytest.approx(entry["recall"])
    assert Classifier.load(tmp_path / "m").decision == made.decision


def test_a_run_killed_before_its_cleanup_is_recognized_as_complete(
    bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Although its recipe is not the one that was asked for: validation chose the truncation."""
    source = write_csv(tmp_path / "rows.csv", make_rows())
    chosen = recipe(bases("bert"), max_length=16, truncation="auto", folds=0)

    def stop(operation: str, path: Path) -> None:
        if operation == "remove" and path.name == "m.unfinished":
            raise KeyboardInterrupt

    with storage.observed(stop), pytest.raises(KeyboardInterrupt):
        adapt(chosen, source, out=tmp_path / "m", cache_dir=tmp_path)
    caplog.set_level("INFO", "fullbake")
    adapt(chosen, source, out=tmp_path / "m", cache_dir=tmp_path)
    assert any("is complete already" in message for message in caplog.messages)
