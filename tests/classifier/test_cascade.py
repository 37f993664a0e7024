"""Making a cascade: who answers, what is promised, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.rows import make_rows, train, write_csv

from fullbake import Classifier, evaluate, predict_file
from fullbake.classifier.cascade import check_agreement, make_cascade, try_student
from fullbake.classifier.distill import distill_texts
from fullbake.classifier.engines import engines_of
from fullbake.classifier.export import export_graph
from fullbake.core.errors import BundleError, DataError, OutputError, RecipeError
from fullbake.data.dataset import read_dataset
from fullbake.evaluation.agreement import choose_threshold
from fullbake.training.distillation import StudentSettings

SEEN = [text for text, _ in make_rows(150, seed=5)]
NEW = [text for text, _ in make_rows(200, seed=6)]
ROWS = make_rows(40, seed=7)
TEXTS = [text for text, _ in ROWS]


@pytest.fixture(scope="module")
def folders(bases, tmp_path_factory) -> tuple[Path, Path]:
    """The folders of a student and of its teacher."""
    folder = tmp_path_factory.mktemp("members")
    teacher = train(bases("bert"), folder, "frozen-linear")
    teacher.save(folder / "teacher")
    settings = StudentSettings(width=16, pair_buckets=61, epochs=8)
    distill_texts(teacher, SEEN, out=folder / "student", cache_dir=folder / "cache", settings=settings)
    return folder / "student", folder / "teacher"


@pytest.fixture(scope="module")
def cascade_folder(folders, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cascade") / "cascade"
    make_cascade(*folders, NEW, agreement=0.85, out=folder)
    return folder


def test_threshold_is_the_one_that_the_texts_support(folders, cascade_folder):
    trial = try_student(*(Classifier.load(folder) for folder in folders), NEW)
    cascade = Classifier.load(cascade_folder)
    assert cascade.first.threshold == choose_threshold(trial.margins, trial.agrees, 0.85)
    assert 0 < cascade.first.threshold.answered < 200
    assert cascade.first.threshold.bound <= 0.15


def test_each_text_has_the_score_of_whoever_answers_it(folders, cascade_folder):
    student, teacher = (Classifier.load(folder) for folder in folders)
    found = Classifier.load(cascade_folder).answers(TEXTS)
    by_student = found.answered_by == "student"
    assert 0 < by_student.sum() < len(TEXTS)
    np.testing.assert_allclose(found.logits[by_student], student.logits(TEXTS)[by_student], atol=1e-4)
    np.testing.assert_allclose(found.logits[~by_student], teacher.logits(TEXTS)[~by_student], atol=1e-4)


def test_members_of_two_engines_answer_as_those_of_one(folders, tmp_path):
    for folder in folders:
        shutil.copytree(folder, tmp_path / folder.name)
    make_cascade(*folders, NEW, agreement=0.85, out=tmp_path / "plain")
    export_graph(tmp_path / "student")
    make_cascade(tmp_path / "student", tmp_path / "teacher", NEW, agreement=0.85, out=tmp_path / "mixed")
    assert engines_of(tmp_path / "mixed", "auto") == {"onnx", "torch"}
    mixed, plain = Classifier.load(tmp_path / "mixed"), Classifier.load(tmp_path / "plain")
    assert (mixed.first.student.engine, mixed.engine, plain.first.student.engine) == ("onnx", "torch", "torch")
    found, wanted = mixed.answers(TEXTS), plain.answers(TEXTS)
    assert (found.answered_by == wanted.answered_by).all()
    np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-4)


def test_cascade_is_not_scored_in_int8(cascade_folder):
    with pytest.raises(BundleError, match="a cascade is scored in fp32 alone"):
        Classifier.load(cascade_folder, precision="int8")


def test_text_is_answered_alike_alone_and_among_others(cascade_folder):
    cascade = Classifier.load(cascade_folder)
    together = cascade.answers(TEXTS)
    for row in range(10):
        alone = cascade.answers(TEXTS[row : row + 1])
        assert alone.answered_by[0] == together.answered_by[row]
        np.testing.assert_allclose(alone.logits[0], together.logits[row], atol=1e-4)


def test_predicted_file_says_who_answered(cascade_folder, tmp_path):
    source = write_csv(tmp_path / "new.csv", ROWS)
    assert predict_file(cascade_folder, source, tmp_path / "out.csv") == 40
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].endswith(",answered_by")
    answered = [line.rpartition(",")[2] for line in lines[1:]]
    assert answered == list(Classifier.load(cascade_folder).answers(TEXTS).answered_by)


def test_evaluation_counts_who_answered(cascade_folder, tmp_path):
    data = read_dataset(write_csv(tmp_path / "new.csv", ROWS), text="text", label="label")
    scores = evaluate(cascade_folder, data)
    assert sum(scores["answered_by"].values()) == 40
    assert set(scores["answered_by"]) == {"student", "teacher"}


def test_plain_bundle_does_not_say_who_answered(folders, tmp_path):
    data = read_dataset(write_csv(tmp_path / "new.csv", ROWS), text="text", label="label")
    assert "answered_by" not in evaluate(folders[1], data)
    assert Classifier.load(folders[1]).answers(TEXTS).answered_by is None


def test_saved_again_it_is_the_same_cascade(cascade_folder, tmp_path):
    cascade = Classifier.load(cascade_folder)
    cascade.save(tmp_path / "again")
    again = Classifier.load(tmp_path / "again")
    assert again.first.threshold == cascade.first.threshold
    np.testing.assert_array_equal(again.logits(TEXTS), cascade.logits(TEXTS))


def test_too_few_texts_leave_all_to_the_teacher(folders, tmp_path, caplog):
    with caplog.at_level("INFO", "fullbake"):
        cascade = make_cascade(*folders, NEW, agreement=0.99, out=tmp_path / "cascade")
    assert "at least 299 rows" in caplog.text
    for one in (cascade, Classifier.load(tmp_path / "cascade")):
        found = one.answers(TEXTS)
        assert set(found.answered_by) == {"teacher"}
        np.testing.assert_allclose(found.logits, Classifier.load(folders[1]).logits(TEXTS), atol=1e-4)


def test_texts_that_either_was_trained_on_are_left_out(folders, caplog):
    with caplog.at_level("INFO", "fullbake"):
        cascade = make_cascade(*folders, SEEN[:50] + NEW, agreement=0.8)
    assert "50 of 250 texts are left out" in caplog.text
    assert cascade.first.threshold.rows == 200


def test_texts_that_were_all_trained_on_are_refused(folders):
    with pytest.raises(DataError, match="trained on all of these"):
        make_cascade(*folders, SEEN)


def test_teachers_own_training_texts_are_left_out_too(folders):
    own = [text for text, _ in make_rows()]
    teacher = Classifier.load(folders[1])
    trained = [own[row - 1] for row in teacher.record.seen["train_rows"]]
    with pytest.raises(DataError, match="trained on all of these"):
        make_cascade(*folders, trained)


def test_members_with_other_labels_are_refused(folders, bases, tmp_path):
    other = train(bases("bert"), tmp_path, "frozen-linear")
    other.classes_ = np.array(["x", "y", "z"], dtype=np.object_)
    with pytest.raises(BundleError, match="differ in their labels"):
        make_cascade(folders[0], other, NEW)


def test_cascade_of_a_cascade_is_refused(folders, cascade_folder):
    with pytest.raises(BundleError, match="part of another one"):
        make_cascade(folders[0], cascade_folder, NEW)


def test_cascade_has_no_student(cascade_folder):
    with pytest.raises(BundleError, match="a cascade"):
        distill_texts(cascade_folder, NEW)


@pytest.mark.parametrize("agreement", [0, 1, 1.5, -0.1, True, "0.99", float("nan")])
def test_wrong_agreement_is_refused(agreement):
    with pytest.raises(RecipeError) as caught:
        check_agreement(agreement)
    assert caught.value.where == "--agreement"


def test_occupied_folder_is_refused(folders, cascade_folder):
    with pytest.raises(OutputError):
        make_cascade(*folders, NEW, out=cascade_folder)


def test_cascade_replaces_a_folder_with_overwrite(folders, tmp_path):
    for _ in range(2):
        make_cascade(*folders, NEW, agreement=0.8, out=tmp_path / "cascade", overwrite=True)
    assert Classifier.load(tmp_path / "cascade").first is not None
