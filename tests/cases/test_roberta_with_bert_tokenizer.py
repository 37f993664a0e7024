"""A base with one segment under a tokenizer that numbers two: pairs work, in training and in pretraining."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.bases import make_other_base
from helpers.rows import recipe, write_csv

from fullbake import Classifier, adapt
from fullbake.data.dataset import read_dataset
from fullbake.models.tokenizer import load_mlm_tokenizer
from fullbake.training.job import recipe_tokenizer, resolve_recipe

PAIRS = [
    (f"{word} food number {n}", f"the {word} game", label)
    for n in range(15)
    for word, label in (("good", "yes"), ("bad", "no"))
]


@pytest.fixture(scope="module", params=[1, 0])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RoBERTa with one segment, DeBERTa with none; both under BERT's tokenizer."""
    kind = "roberta" if request.param else "deberta-v2"
    folder = tmp_path_factory.mktemp(kind)
    return make_other_base(kind, folder, tokenizer="bert", type_vocab_size=request.param)


@pytest.mark.parametrize("name", ["frozen-linear", "finetune"])
def test_pairs_train_and_predict(name: str, base: Path, tmp_path: Path) -> None:
    rows = read_dataset(
        write_csv(tmp_path / "pairs.csv", PAIRS, ("first", "second", "label")),
        text="first", text_pair="second", label="label",
    )  # fmt: skip
    chosen = recipe(base, name, text="first", text_pair="second")
    assert "token_type_ids" not in recipe_tokenizer(resolve_recipe(chosen)).model_input_names
    classifier = adapt(chosen, rows, cache_dir=tmp_path / "cache")
    classifier.save(tmp_path / "bundle")
    texts = ["good food", "bad food"], ["the good game", "the bad game"]
    assert (Classifier.load(tmp_path / "bundle").logits(*texts) == classifier.logits(*texts)).all()


def test_next_sentences_are_predicted(base: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    documents = [f"The food {n} is good. We like the game. They play at home.\n" for n in range(40)]
    (tmp_path / "corpus.txt").write_text("\n".join(documents))
    assert "token_type_ids" not in load_mlm_tokenizer(base).model_input_names
    words = ["--objective", "mlm+nsp", "--steps", 2, "--batch-size", 4, "--max-length", 32, "--out", tmp_path / "new"]
    code, out, err = run("pretrain", tmp_path / "corpus.txt", "--base", base, *words)
    assert (code, "pairs" in out + err) == (0, True)
