"""Distillation from end to end: a student is a bundle like any other, and bad input is refused with the reason."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from helpers.rows import make_rows, recipe, train, write_csv

from fullbake import Classifier, adapt, distill, evaluate
from fullbake.classifier.distill import GivenTexts, distill_texts, divide_texts, read_texts
from fullbake.core.errors import BundleError, DataError, Interrupted, OutputError, RecipeError
from fullbake.data.dataset import read_dataset
from fullbake.data.normalization import text_hashes
from fullbake.models.graph_check import read_checked_graph
from fullbake.models.graph_session import open_graph, run_graph
from fullbake.training import loop
from fullbake.training.distillation import StudentSettings

SHORT = StudentSettings(width=16, pair_buckets=61, epochs=4)
PASSES = StudentSettings(width=16, pair_buckets=61, epochs=4, head="mlp")
ROWS = make_rows(120, seed=5)
TEXTS = [text for text, _ in ROWS]


@pytest.fixture(scope="module")
def teacher(bases, tmp_path_factory):
    return train(bases("bert"), tmp_path_factory.mktemp("teacher"), "frozen-mlp")


@pytest.fixture(scope="module")
def student_folder(teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    data = write_csv(folder / "texts.csv", ROWS)
    distill_texts(teacher, data, out=folder / "bundle", cache_dir=folder / "cache", settings=SHORT)
    return folder / "bundle"


def test_student_loads_and_scores_as_any_bundle(student_folder, teacher, tmp_path):
    student = Classifier.load(student_folder)
    assert student.label_names == teacher.label_names
    assert student.network.config.encoder.model_type == "fullbake-static"
    assert student.predict_proba(TEXTS).shape == (120, 3)
    scores = evaluate(
        student, read_dataset(write_csv(tmp_path / "new.csv", make_rows(30, seed=9)), text="text", label="label")
    )
    assert scores["rows"] == 30
    assert scores["trained_on"] == 0
    assert not (student_folder.parent / "bundle.unfinished").exists()


def test_text_has_the_same_score_alone_in_a_batch_and_saved_again(student_folder, tmp_path):
    student = Classifier.load(student_folder)
    together = student.logits(TEXTS)
    alone = np.concatenate([student.logits([text]) for text in TEXTS[:20]])
    np.testing.assert_allclose(together[:20], alone, atol=1e-5)
    student.save(tmp_path / "again")
    np.testing.assert_array_equal(Classifier.load(tmp_path / "again").logits(TEXTS), together)


def test_bundle_says_whose_student_it_is(student_folder):
    facts = json.loads((student_folder / "fullbake.json").read_text())["student"]
    assert facts["texts"] == 120
    assert facts["agreement"]["rows"] == 12
    assert facts["labeled"]["rows"] == 12
    assert facts["bytes"] < 20_000_000
    card = (student_folder / "README.md").read_text()
    assert facts["teacher"] in card
    assert "student" in card
    assert "the teacher's labels" in card


def test_bundle_holds_no_text(student_folder):
    for path in student_folder.rglob("*"):
        content = path.read_bytes()
        assert not any(text.encode() in content for text in TEXTS)


def test_all_given_texts_are_in_seen(student_folder):
    student = Classifier.load(student_folder)
    assert {bytes(row) for row in student.record.seen["hashes"]} == {bytes(row) for row in text_hashes(TEXTS)}


def test_list_file_and_dataset_give_the_same_student(teacher, tmp_path):
    path = write_csv(tmp_path / "texts.csv", ROWS)
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    sources = [TEXTS, path, [path], read_dataset(path, text="text", label="label"), frame]
    for same in (frame, pl.DataFrame(frame), {"text": TEXTS}, (frame["text"], frame["label"]), iter(TEXTS)):
        assert read_texts(teacher, same).texts == TEXTS
    assert read_texts(teacher, frame).labeled.all()
    assert not read_texts(teacher, frame[["text"]]).labeled.any()
    settings = replace(SHORT, label_share=0.0)  # a list has no labels
    students = [
        distill_texts(teacher, data, cache_dir=tmp_path / "cache", settings=settings).student for data in sources
    ]
    for student in students[1:]:
        np.testing.assert_array_equal(student.logits(TEXTS), students[0].logits(TEXTS))


def test_teacher_may_have_a_graph(graph_bundles, tmp_path):
    """A bundle with a graph is loaded without torch elsewhere."""
    student = distill_texts(graph_bundles("bert"), TEXTS, cache_dir=tmp_path, settings=SHORT).student
    assert student.predict_proba(TEXTS[:2]).shape == (2, 3)


def test_public_function_takes_settings_by_name(teacher, tmp_path):
    student = distill(teacher, TEXTS, cache_dir=tmp_path, width=8, pair_buckets=31, epochs=1, head="mlp")
    assert student.network.config.encoder.hidden_size == 8
    with pytest.raises(TypeError):
        distill(teacher, TEXTS, wide=8)


def test_killed_training_resumes_to_the_same_bits(teacher, tmp_path, monkeypatch):
    def run(name):
        options = {"cache_dir": tmp_path / "cache", "checkpoint_every": "1", "settings": PASSES}
        return distill_texts(teacher, TEXTS, out=tmp_path / name, **options).student

    whole = run("whole")
    take, steps = loop._Training._take_step, []

    def stop_after_two(self, step):
        steps.append(step)
        if len(steps) == 3:
            raise Interrupted(2, 2, None)
        return take(self, step)

    monkeypatch.setattr(loop._Training, "_take_step", stop_after_two)
    with pytest.raises(Interrupted):
        run("cut")
    assert (tmp_path / "cut.unfinished").is_dir()
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(loop._Training, "_take_step", take)
    np.testing.assert_array_equal(run("cut").logits(TEXTS), whole.logits(TEXTS))
    assert not (tmp_path / "cut.unfinished").exists()


def test_unfinished_run_of_other_settings_is_refused(teacher, tmp_path, monkeypatch):
    def stop(self, step):
        raise Interrupted(2, 1, None)

    options = {"out": tmp_path / "out", "cache_dir": tmp_path / "cache", "checkpoint_every": "1"}
    take = loop._Training._take_step
    calls = []

    def stop_second(self, step):
        calls.append(step)
        return take(self, step) if len(calls) < 3 else stop(self, step)

    monkeypatch.setattr(loop._Training, "_take_step", stop_second)
    with pytest.raises(Interrupted):
        distill_texts(teacher, TEXTS, settings=PASSES, **options)
    with pytest.raises(OutputError, match="something else"):
        distill_texts(teacher, TEXTS, settings=StudentSettings(width=8, pair_buckets=61), **options)


def test_labels_are_learned_where_texts_have_them(teacher, student_folder, tmp_path):
    """Another label share is another student, and a student of texts without labels says nothing of labels."""
    labeled = read_dataset(write_csv(tmp_path / "texts.csv", ROWS), text="text", label="label")
    settings = {"cache_dir": tmp_path / "cache", "width": 16, "pair_buckets": 61}
    mixed = distill(teacher, labeled, **settings)
    assert mixed.record.facts["student"]["learned_labels"] == 108
    np.testing.assert_allclose(mixed.logits(TEXTS), Classifier.load(student_folder).logits(TEXTS), atol=1e-5)
    scores_alone = distill(teacher, labeled, label_share=0.0, **settings)
    assert np.abs(scores_alone.logits(TEXTS) - mixed.logits(TEXTS)).max() > 0.01
    plain = distill(teacher, TEXTS, **settings)
    np.testing.assert_array_equal(scores_alone.logits(TEXTS), plain.logits(TEXTS))
    assert plain.record.facts["student"]["learned_labels"] == 0
    assert "50% of what it learned" in (student_folder / "README.md").read_text()
    plain.save(tmp_path / "plain")
    assert "true labels too" not in (tmp_path / "plain" / "README.md").read_text()


def test_multi_label_classifier_has_a_student(bases, tmp_path):
    names = ("food", "game", "money")
    rows = [(text, *(int(label == name) for name in names)) for text, label in make_rows(60)]
    data = write_csv(tmp_path / "train.csv", rows, ("text", *names))
    chosen = recipe(bases("bert"), labels=list(names))
    teacher = adapt(chosen, data, cache_dir=tmp_path / "cache")
    found = distill_texts(teacher, TEXTS, out=tmp_path / "student", cache_dir=tmp_path / "cache", settings=SHORT)
    loaded = Classifier.load(tmp_path / "student")
    assert loaded.problem.name == "multi_label_classification"
    assert loaded.decision == teacher.decision
    np.testing.assert_array_equal(loaded.logits(TEXTS), found.student.logits(TEXTS))


def test_windows_classifier_has_a_student_that_reads_windows(bases, tmp_path):
    teacher = train(bases("bert"), tmp_path, "frozen-linear", truncation="windows", max_length=16)
    found = distill_texts(teacher, TEXTS, out=tmp_path / "student", cache_dir=tmp_path / "cache", settings=SHORT)
    np.testing.assert_allclose(found.teacher_logits, teacher.logits(TEXTS), atol=1e-4)
    loaded = Classifier.load(tmp_path / "student")
    assert loaded.tokens.truncation == "windows"
    np.testing.assert_array_equal(loaded.logits(TEXTS), found.student.logits(TEXTS))


def test_classifier_of_pairs_is_refused_with_the_reason(bases, tmp_path):
    rows = [(text, f"{label} {text[:5]}", label) for text, label in make_rows(60)]
    data = write_csv(tmp_path / "pairs.csv", rows, ("text", "other", "label"))
    teacher = adapt(recipe(bases("bert"), text_pair="other"), data, cache_dir=tmp_path / "cache")
    with pytest.raises(BundleError, match="cannot compare two texts"):
        distill_texts(teacher, TEXTS, settings=SHORT)


def test_student_of_a_student_is_refused(student_folder):
    with pytest.raises(BundleError, match="student itself"):
        distill_texts(student_folder, TEXTS, settings=SHORT)


def test_too_few_texts_are_refused(teacher):
    with pytest.raises(DataError, match="too few texts"):
        distill_texts(teacher, TEXTS[:19] + TEXTS[:19], settings=SHORT)


def test_occupied_folder_is_refused_before_any_work(teacher, student_folder):
    with pytest.raises(OutputError):
        distill_texts(teacher, TEXTS, out=student_folder, settings=SHORT)


def test_wrong_setting_is_refused(teacher):
    with pytest.raises(RecipeError, match="width"):
        distill(teacher, TEXTS, width=0)


def test_missing_file_is_refused(teacher, tmp_path):
    with pytest.raises(DataError):
        distill_texts(teacher, tmp_path / "nothing.csv", settings=SHORT)


def test_equal_texts_are_kept_once_with_their_label(teacher, tmp_path):
    labeled = write_csv(tmp_path / "labeled.csv", ROWS[:30])
    unlabeled = write_csv(tmp_path / "texts.csv", [(text.upper(),) for text, _ in ROWS[:60]], ("text",))
    given = read_texts(teacher, [unlabeled, labeled])
    assert len(given.texts) == 60
    assert given.labeled.sum() == 30
    names = np.array(teacher.label_names)
    found = dict(zip(np.array(given.texts)[given.labeled], names[given.labels[given.labeled]], strict=True))
    assert found == dict(ROWS[:30])


def test_labels_that_do_not_fit_are_left_out(teacher, tmp_path):
    path = write_csv(tmp_path / "other.csv", [(text, "elsewhere") for text in TEXTS])
    given = read_texts(teacher, path)
    assert given.labels is None
    assert len(given.texts) == 120


def test_held_out_texts_are_those_the_teacher_did_not_see():
    texts = [f"{text} and more" for text in TEXTS]
    given = GivenTexts(texts, None, np.zeros(120, bool), "texts")
    seen = {bytes(row) for row in text_hashes(texts[:100])}
    train_rows, held, known = divide_texts(given, seen, 0)
    assert len(held) == 12
    assert known == 0
    assert (held >= 100).all()
    assert sorted([*train_rows, *held]) == list(range(120))


def test_near_equal_texts_stay_on_one_side():
    base = "the people of this city like the old game and the food of the market very much"
    texts = [f"{base} {number // 2} {'!' * (number % 2)}" for number in range(8)] + TEXTS
    given = GivenTexts(texts, None, np.zeros(len(texts), bool), "texts")
    train_rows, held, _ = divide_texts(given, set(), 3)
    sides = {row in set(held.tolist()) for row in range(8)}
    assert len(sides) == 1
    assert len(train_rows) > len(held)


def test_texts_that_are_all_nearly_equal_are_refused():
    base = "the people of this city like the old game and the food of the market very much"
    texts = [f"{base} {number}" for number in range(30)]
    with pytest.raises(DataError, match="nearly equal"):
        divide_texts(GivenTexts(texts, None, np.zeros(30, bool), "texts"), set(), 0)


def test_path_in_a_list_is_a_file_and_a_string_is_a_text(teacher, tmp_path):
    path = write_csv(tmp_path / "texts.csv", ROWS)
    assert read_texts(teacher, [Path(path)]).texts == TEXTS
    with pytest.raises(DataError, match="too few"):
        read_texts(teacher, [str(path)])


def test_student_has_a_graph_that_gives_its_scores(student_folder, tmp_path):
    student = Classifier.load(student_folder)
    student.save(tmp_path / "graph", graph=True)
    graph = read_checked_graph(tmp_path / "graph", classes=3)
    ids = np.random.default_rng(0).integers(5, 50, (3, 9))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    session = open_graph(graph, tmp_path / "graph", threads=1)
    found = run_graph(session, {name: given[name] for name in graph.inputs})
    with torch.no_grad():
        expected = student.network(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
    np.testing.assert_allclose(found["logits"], expected.numpy(), atol=1e-5)
