from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rows import column, make_rows, train

from fullbake import Classifier
from fullbake.config.sections import Columns, TokensConfig
from fullbake.core.errors import DataError

Bases = Callable[..., Path]
TEXTS = [*(row[0] for row in make_rows(14, seed=5)), "", "game " * 300]
CASES = [
    ("bert", "frozen-mlp", "cls"),
    ("distilbert", "finetune", None),
    ("roberta", "frozen-linear", "mean"),
    ("electra", "frozen-standard", None),
    ("albert", "frozen-mlp", "mean"),
    ("deberta-v2", "finetune", None),
    ("deberta-v3", "frozen-mlp", "max"),
    ("modernbert", "finetune", None),
    ("mpnet", "frozen-linear", "cls+mean"),
    ("xlm-roberta", "frozen-standard", None),
]


@pytest.fixture(scope="module")
def classifier(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return train(bases("bert"), tmp_path_factory.mktemp("run"), "frozen-mlp")


def with_tokens(classifier: Classifier, **settings: object) -> Classifier:
    tokens = TokensConfig.model_validate(classifier.tokens.model_dump() | settings)
    return Classifier(classifier.network, classifier.tokenizer, tokens, classifier.record)


@pytest.mark.parametrize(("family", "name", "pooling"), CASES)
def test_a_text_scores_the_same_anywhere(
    bases: Bases, tmp_path: Path, family: str, name: str, pooling: str | None
) -> None:
    """Promise 4: alone, in any batch, at any padding, under any budget, from the library and a reloaded bundle."""
    made = train(bases(family, initializer_range=0.2), tmp_path, name, pooling=pooling, epochs=1, learning_rate=1e-3)
    expected = made.predict_proba(TEXTS)
    assert expected.std(axis=0).max() > 1e-3
    made.save(tmp_path / "m")
    for other in (
        with_tokens(made, token_budget=1),
        with_tokens(made, token_budget=100_000),
        with_tokens(made, padding="max_length"),
        Classifier.load(tmp_path / "m"),
    ):
        np.testing.assert_allclose(other.predict_proba(TEXTS), expected, atol=1e-5)
    alone = np.concatenate([made.predict_proba([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    np.testing.assert_allclose(made.predict_proba(TEXTS[::-1])[::-1], expected, atol=1e-5)


def test_words_of_scikit_learn(classifier: Classifier) -> None:
    chances = classifier.predict_proba(TEXTS)
    assert chances.shape == (len(TEXTS), 3)
    assert chances.dtype == np.float64
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert classifier.classes_.tolist() == ["food", "game", "money"]
    assert np.array_equal(classifier.predict(TEXTS), classifier.classes_[chances.argmax(axis=1)])


def test_texts_may_be_an_arrow_column(classifier: Classifier) -> None:
    assert np.array_equal(classifier.logits(column(TEXTS)), classifier.logits(TEXTS))


def test_no_texts_give_no_rows(classifier: Classifier) -> None:
    assert classifier.predict_proba([]).shape == (0, 3)
    assert classifier.predict([]).shape == (0,)


def test_one_string_is_refused(classifier: Classifier) -> None:
    """Its letters are not texts."""
    with pytest.raises(DataError, match=r"predict\(\[text\]\)"):
        classifier.predict("a good game")


def test_what_is_no_text_is_refused(classifier: Classifier) -> None:
    with pytest.raises(DataError, match=r"text 2(?s:.*)got None"):
        classifier.predict(["a", None])  # type: ignore[list-item]


def test_it_knows_its_columns(classifier: Classifier) -> None:
    assert classifier.columns == Columns("text", "label")


def test_network_is_left_in_eval_mode(classifier: Classifier) -> None:
    classifier.predict(TEXTS)
    assert not any(module.training for module in classifier.network.modules())
