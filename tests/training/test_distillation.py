"""The student's first vectors, its rows, its loss and its training."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import TokensConfig
from fullbake.core.errors import RecipeError
from fullbake.models.encoding import Encoded, row_offsets
from fullbake.models.inference import logits_over
from fullbake.models.static_encoder import STUDENT_BYTES
from fullbake.training.distillation import (
    Lesson,
    StudentRows,
    StudentSettings,
    TrainedStudent,
    assign_rows,
    first_vectors,
    row_means,
    soft_losses,
    table_numbers,
    train_student,
)
from fullbake.training.teacher_outputs import TeacherOutputs

VOCABULARY, WIDTH = 60, 12
SETTINGS = StudentSettings(width=8, pair_buckets=31, epochs=3)
FEW_NUMBERS = StudentSettings(width=2, pair_buckets=31, epochs=3)


def made_outputs(encoded: Encoded, classes: int = 3, seed: int = 0) -> TeacherOutputs:
    """Return outputs in which a text's logits are linear in the counts of its tokens."""
    random = np.random.default_rng(seed)
    ids, counts = np.unique(encoded.input_ids, return_counts=True)
    weights = random.normal(size=(VOCABULARY, classes)).astype(np.float32)
    rows = np.split(encoded.input_ids, encoded.offsets[1:-1])
    logits = np.stack([3 * weights[row].mean(axis=0) for row in rows]).astype(np.float32)
    states = random.normal(size=(len(ids), WIDTH)).astype(np.float32)
    return TeacherOutputs(logits, ids.astype(np.int64), counts.astype(np.int64), states)


def made_texts(count: int = 300, highest: int = 50, seed: int = 0) -> Encoded:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 12, count)
    return Encoded(random.integers(0, highest, lengths.sum()).astype(np.int32), row_offsets(lengths))


def made_lesson(problem_type: str = SINGLE_LABEL, documents: np.ndarray | None = None) -> Lesson:
    encoded = made_texts()
    encoded = Encoded(encoded.input_ids, encoded.offsets, None, documents)
    texts = np.arange(len(encoded) if documents is None else documents.max() + 1)
    tokens = TokensConfig(max_length=16, truncation="head" if documents is None else "windows")
    problem = problem_named(problem_type)
    return Lesson(
        made_outputs(encoded), encoded, texts[len(texts) // 5 :], texts[: len(texts) // 5], problem, ("a", "b", "c"),
        tokens, 0, "accuracy", [f" token{number}" for number in range(VOCABULARY)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    table = torch.nn.Embedding(VOCABULARY, WIDTH)
    base = SimpleNamespace(type_vocab_size=2, pad_token_id=0)
    return SimpleNamespace(get_input_embeddings=lambda: table, config=SimpleNamespace(encoder=base))


def test_first_vectors_keep_the_distances_of_the_states():
    outputs = made_outputs(made_texts())
    embeddings = np.random.default_rng(1).normal(size=(VOCABULARY, 5)).astype(np.float32)
    vectors = first_vectors(outputs, embeddings, WIDTH)
    frequency = outputs.token_counts / outputs.token_counts.sum()
    unweighted = vectors[outputs.token_ids] * ((1e-3 + frequency) / 1e-3)[:, None]
    expected = outputs.token_states - np.average(outputs.token_states, axis=0, weights=outputs.token_counts)
    ours, theirs = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (unweighted, expected))
    np.testing.assert_allclose(ours / ours.max(), theirs / theirs.max(), atol=1e-5)
    assert (unweighted**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)


def test_rare_tokens_weigh_more_than_frequent_ones():
    ids = np.array([0] * 90 + list(range(1, 11)), np.int32)
    outputs = TeacherOutputs(
        np.zeros((1, 2), np.float32), np.arange(11), np.bincount(ids), np.eye(11, dtype=np.float32)
    )
    lengths = np.linalg.norm(first_vectors(outputs, np.eye(11, dtype=np.float32), 11), axis=1)
    assert lengths[1:].min() > 10 * lengths[0]


def test_tokens_that_do_not_occur_are_predicted_from_their_embeddings():
    """Where states are a linear function of the embeddings, the regression finds it."""
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(400, 6)).astype(np.float32)
    states = (embeddings @ random.normal(size=(6, 6))).astype(np.float32)
    ids, counts = np.arange(300), np.ones(300, np.int64)
    partly = first_vectors(TeacherOutputs(np.zeros((1, 2)), ids, counts, states[:300]), embeddings, 6)
    partly[:300] *= (1e-3 + 1 / 300) / 1e-3  # undo the weights of tokens that occur
    gaps = np.linalg.norm(partly[300:, None] - partly[None, :300], axis=-1)
    true = np.linalg.norm(states[300:, None] - states[None, :300], axis=-1)
    assert np.corrcoef(gaps.ravel(), true.ravel())[0, 1] > 0.95


def test_every_token_has_a_row_while_there_is_room():
    outputs = made_outputs(made_texts())
    assert assign_rows(outputs, VOCABULARY, VOCABULARY).tolist() == list(range(VOCABULARY))


def test_most_frequent_tokens_have_rows_of_their_own_where_room_is_short():
    counts = np.array([5, 1, 9, 3])
    outputs = TeacherOutputs(np.zeros((1, 2)), np.array([2, 4, 6, 8]), counts, np.zeros((4, 3)))
    assert assign_rows(outputs, 10, 3).tolist() == [0, 0, 1, 0, 0, 0, 2, 0, 0, 0]


def test_numbers_of_texts_do_not_depend_on_their_neighbors():
    encoded = made_texts(5)
    rows = np.arange(VOCABULARY, dtype=np.int32)
    numbers = table_numbers(encoded, rows, 31)
    for text in range(5):
        alone = table_numbers(encoded.take(np.array([text])), rows, 31)
        start, end = 2 * encoded.offsets[text], 2 * encoded.offsets[text + 1]
        np.testing.assert_array_equal(numbers[start:end], alone)


def test_batch_gives_the_mean_of_each_text():
    encoded = made_texts(6)
    numbers = table_numbers(encoded, np.arange(VOCABULARY, dtype=np.int32), 31)
    data = StudentRows(numbers, encoded.lengths, np.zeros((6, 2), np.float32))
    table = torch.randn(VOCABULARY + 31, 4)
    student = TrainedStudent(table, torch.nn.Identity()).eval()
    found = student(*data.batch(np.array([4, 0, 3]))).detach()
    for place, text in enumerate((4, 0, 3)):
        own = numbers[2 * encoded.offsets[text] : 2 * encoded.offsets[text + 1]]
        torch.testing.assert_close(found[place], table[own].sum(dim=0) / encoded.lengths[text])


def test_soft_loss_of_hard_targets_is_the_cross_entropy():
    logits = torch.randn(5, 3)
    labels = torch.tensor([0, 2, 1, 1, 0])
    found = soft_losses(SINGLE_LABEL, logits, torch.eye(3)[labels])
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    matrix = (torch.rand(5, 3) > 0.5).float()
    problem = problem_named(MULTI_LABEL)
    expected = problem.row_losses(logits.numpy(), matrix.numpy())
    np.testing.assert_allclose(soft_losses(MULTI_LABEL, logits, matrix).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_saved_form_gives_the_scores_of_the_trained_form(teacher, head):
    """Codes of one byte change the logits by little, and the network reads texts as training did."""
    lesson = made_lesson()
    settings = StudentSettings(width=8, pair_buckets=31, head=head, epochs=3)
    network, history, temperature = train_student(teacher, lesson, settings, None)
    logits = logits_over(network, lesson.encoded, tokens=lesson.tokens, pad_id=0)
    best = max(history, key=lambda entry: entry["neg_log_loss"])
    held = lesson.validation
    targets = lesson.problem.probabilities(lesson.outputs.logits[held])
    loss = soft_losses(SINGLE_LABEL, torch.from_numpy(logits[held] * temperature).double(), torch.from_numpy(targets))
    assert float(loss.mean()) == pytest.approx(best["validation_loss"], abs=0.01)


def test_student_learns_a_teacher_that_counts_tokens(teacher):
    lesson = made_lesson()
    network, history, _ = train_student(teacher, lesson, SETTINGS, None)
    assert max(entry["accuracy"] for entry in history) > 0.8
    assert min(entry["validation_loss"] for entry in history) < 0.97 * history[0]["validation_loss"]
    assert network.config.encoder.max_position_embeddings == 16


def test_linear_student_has_one_number_for_each_class(teacher):
    assert train_student(teacher, made_lesson(), SETTINGS, None)[0].config.encoder.hidden_size == 3


def test_linear_student_of_more_classes_than_its_width_trains_by_passes(teacher):
    network, history, _ = train_student(teacher, made_lesson(), FEW_NUMBERS, None)
    assert network.config.encoder.hidden_size == 2
    assert [entry["epoch"] for entry in history] == [1, 2, 3]


def test_tokens_that_share_a_row_share_their_mean():
    vectors = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    assert row_means(vectors, np.array([0, 1, 0], np.int32)).tolist() == [[3, 4], [3, 4]]


def test_student_with_rows_that_tokens_share(teacher, monkeypatch):
    monkeypatch.setattr(StudentSettings, "room_for_tokens", lambda *_: 20)
    network, history, _ = train_student(teacher, made_lesson(), SETTINGS, None)
    assert network.config.encoder.token_rows == 20
    assert min(entry["validation_loss"] for entry in history) <= history[0]["validation_loss"]


def test_targets_mix_the_labels_of_texts_that_have_some():
    labels = np.arange(300) % 3
    lesson = replace(made_lesson(), labels=labels, labeled=np.arange(300) < 100)
    scores = lesson.problem.probabilities(lesson.outputs.logits)
    found = lesson.targets(0.25)
    np.testing.assert_allclose(found[:100], 0.75 * scores[:100] + 0.25 * np.eye(3)[labels[:100]], rtol=1e-5)
    np.testing.assert_allclose(found[100:], scores[100:], rtol=1e-6)
    np.testing.assert_array_equal(lesson.targets(0), made_lesson().targets(0.5))


def test_targets_mix_several_labels():
    labels = (np.random.default_rng(0).random((300, 3)) > 0.5).astype(np.uint8)
    lesson = replace(made_lesson(MULTI_LABEL), labels=labels, labeled=np.ones(300, bool))
    np.testing.assert_allclose(lesson.targets(1.0), labels)


def test_label_of_a_long_text_is_not_that_of_its_windows():
    documents = np.concatenate([np.repeat(np.arange(50), 3), np.arange(50, 200)])
    lesson = made_lesson(documents=documents)
    lesson = replace(lesson, labels=np.zeros(200, np.int64), labeled=np.ones(200, bool))
    found, scores = lesson.targets(1.0), lesson.problem.probabilities(lesson.outputs.logits)
    np.testing.assert_allclose(found[:150], scores[:150], rtol=1e-6)
    np.testing.assert_array_equal(found[150:], np.eye(3, dtype=np.float32)[np.zeros(150, int)])


def test_labels_change_what_the_student_says(teacher):
    labels = np.full(300, 2)
    lesson = replace(made_lesson(), labels=labels, labeled=np.ones(300, bool))
    shares = {}
    for share in (0.0, 0.8):
        settings = StudentSettings(width=8, pair_buckets=31, label_share=share)
        network, *_ = train_student(teacher, lesson, settings, None)
        logits = logits_over(network, lesson.encoded, tokens=lesson.tokens, pad_id=0)
        shares[share] = (logits.argmax(axis=1) == 2).mean()
    assert shares[0.8] > 0.9 > shares[0.0]


@pytest.mark.parametrize("settings", [SETTINGS, FEW_NUMBERS])
def test_same_seed_gives_the_same_bits(teacher, settings):
    one, other = (train_student(teacher, made_lesson(), settings, None)[0].state_dict() for _ in range(2))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=0)


def test_windows_are_rows_and_texts_are_pooled(teacher):
    documents = np.repeat(np.arange(100), 3)
    lesson = made_lesson(documents=documents)
    assert lesson.rows_of(np.array([2, 5])).tolist() == [6, 7, 8, 15, 16, 17]
    pooled = lesson.pooled(lesson.outputs.logits[6:9], np.array([6, 7, 8]))
    np.testing.assert_allclose(pooled[0], lesson.outputs.logits[6:9].mean(axis=0), rtol=1e-6)
    network, *_ = train_student(teacher, lesson, SETTINGS, None)
    assert logits_over(network, lesson.encoded, tokens=lesson.tokens, pad_id=0).shape == (100, 3)


def test_multi_label_student(teacher):
    network, history, _ = train_student(teacher, made_lesson(MULTI_LABEL), SETTINGS, None)
    assert network.config.problem_type == MULTI_LABEL
    assert history[0]["validation_loss"] < 1


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"width": 0}, "--width"),
        ({"epochs": 1.5}, "--epochs"),
        ({"pair_buckets": True}, "--pair-buckets"),
        ({"pair_buckets": 10_000_000}, "--pair-buckets"),
        ({"head": "standard"}, "--head"),
        ({"seed": -1}, "--seed"),
        ({"label_share": 1.5}, "--label-share"),
        ({"label_share": "half"}, "--label-share"),
        ({"label_share": float("nan")}, "--label-share"),
    ],
)
def test_wrong_settings_are_refused_by_their_flag(fields, flag):
    with pytest.raises(RecipeError) as caught:
        StudentSettings(**fields).check(384, 2)
    assert caught.value.where == flag


def test_width_is_at_most_the_teachers():
    assert StudentSettings().check(32, 2).width == 32


def test_weights_stay_within_the_limit_for_every_vocabulary():
    for vocabulary, classes in ((100, 28), (30_522, 28), (250_002, 28), (250_002, 128), (250_002, 500)):
        settings = StudentSettings().check(768, classes)
        width = settings.vector_width(classes)
        rows = min(vocabulary, settings.room_for_tokens(vocabulary, classes)) + settings.pair_buckets
        size = rows * (width + 4) + 4 * vocabulary + 4 * classes * (width + 1)
        assert size <= STUDENT_BYTES
