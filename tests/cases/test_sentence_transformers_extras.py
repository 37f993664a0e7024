"""Dense, the default prompt and the length of a sentence-transformers folder are applied, Normalize is said to be left
out, and a bundle keeps what was applied."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.rows import dataset, recipe
from safetensors.torch import save_file

from fullbake import Classifier, Recipe, adapt
from fullbake.comparison.compare import _make_jobs
from fullbake.comparison.design import Candidate
from fullbake.core import storage
from fullbake.core.errors import BaseModelError
from fullbake.data.splits import divide
from fullbake.models.encoder import load_encoder
from fullbake.models.network import base_fingerprint, features, load_network
from fullbake.models.summary import summarize
from fullbake.models.tokenizer import load_tokenizer
from fullbake.training.job import resolve_recipe

Bases = Callable[..., Path]
PROMPT = "read this: "
TEXTS = ["good food and water", "the team play a game " * 20, "bank market"]
MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}


def make_folder(bert: Path, folder: Path) -> Path:
    """Write a sentence-transformers folder: mean, Dense from 32 to 16, Normalize, a default prompt, 16 tokens."""
    shutil.copytree(bert, folder)
    types = "sentence_transformers.models."
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": types + MODULES[path]} for n, path in enumerate(MODULES)
    ]
    for path in list(MODULES)[1:]:
        (folder / path).mkdir()
    storage.write_json(folder / "modules.json", modules)
    storage.write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    dense = {
        "in_features": 32,
        "out_features": 16,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    storage.write_json(folder / "2_Dense" / "config.json", dense)
    generator = torch.Generator().manual_seed(0)
    weights = {"linear.weight": torch.randn(16, 32, generator=generator), "linear.bias": torch.ones(16)}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    prompts = {"prompts": {"query": PROMPT}, "default_prompt_name": "query"}
    storage.write_json(folder / "config_sentence_transformers.json", prompts)
    storage.write_json(folder / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": False})
    return folder


@pytest.fixture(scope="module")
def base(bases: Bases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(bases("bert"), tmp_path_factory.mktemp("sentence") / "base")


def train(base: Path, folder: Path, name: str = "frozen-linear", **fields: Any) -> Classifier:
    chosen = recipe(base, name, **({"max_length": None} | fields))
    return adapt(chosen, dataset(folder), cache_dir=folder / "cache")


def embed(base: Path, texts: list[str]) -> torch.Tensor:
    """Compute what sentence-transformers gives before Normalize, text by text."""
    encoder, tokenizer = load_encoder(base), load_tokenizer(base)
    linear = torch.nn.Linear(32, 16)
    from safetensors.torch import load_file

    weights = load_file(base / "2_Dense" / "model.safetensors")
    linear.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in weights.items()})
    rows = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(PROMPT + text, truncation=True, max_length=16, return_tensors="pt")
            rows.append(torch.tanh(linear(encoder(**ids).last_hidden_state.mean(1))))
    return torch.cat(rows)


@pytest.mark.parametrize("name", ["frozen-linear", "frozen-mlp", "finetune"])
def test_bundle_keeps_what_was_applied(name: str, base: Path, tmp_path: Path) -> None:
    classifier = train(base, tmp_path, name)
    if name != "finetune":
        with torch.no_grad():
            weights = classifier.network.head(embed(base, TEXTS))
        assert np.allclose(classifier.logits(TEXTS), weights.numpy(), atol=1e-5)
    classifier.save(tmp_path / "bundle")
    facts = storage.read_json(tmp_path / "bundle" / "fullbake.json")
    assert (facts["tokens"]["prompt"], facts["tokens"]["max_length"]) == (PROMPT, 16)
    card = (tmp_path / "bundle" / "README.md").read_text("utf-8")
    assert "its Dense layer, as part of the pooling" in card
    assert "Left out: its Normalize" in card
    again = Classifier.load(tmp_path / "bundle")
    assert np.array_equal(again.logits(TEXTS), classifier.logits(TEXTS))
    assert again.network.projection[0].linear.weight.shape == (16, 32)


def test_run_says_what_is_applied_and_what_is_left_out(base: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    dataset(tmp_path)
    words = ["--way", "frozen", "--head", "linear", "--out", tmp_path / "out", "--cache-dir", tmp_path / "cache"]
    code, out, err = run("train", tmp_path / "rows-0.csv", "--base", base, *words)
    assert code == 0
    said = " ".join((out + err).split())
    for part in (
        "Dense layer",
        "default prompt 'read this: '",
        "16 tokens",
        "left out: its Normalize: heads that train",
    ):
        assert part in said


def test_what_the_user_names_wins(base: Path, tmp_path: Path) -> None:
    plain = train(base, tmp_path, pooling="max", prompt="", max_length=32)
    assert plain.network.projection is None
    assert (plain.tokens.prompt, plain.tokens.max_length) == ("", 32)
    used = plain.record.facts["base_use"]
    assert used["applied"] == []
    assert any("Dense layer, which belongs to another pooling than max" in part for part in used["left_out"])
    assert any("default prompt" in part for part in used["left_out"])


def test_recipe_takes_the_folders_defaults_and_the_summary_has_its_layer(base: Path, bases: Bases) -> None:
    tokens = resolve_recipe(Recipe.load("finetune", base=str(base))).tokens
    assert (tokens.prompt, tokens.max_length) == (PROMPT, 16)
    assert resolve_recipe(Recipe.load("finetune", base=str(bases("bert")))).tokens.prompt is None
    rows = {row.name: row for row in summarize(base, way="frozen", head=recipe(base).head).rows}
    assert (rows["projection.0.linear"].parameters, rows["projection.0.linear"].trainable) == (16 * 32 + 16, 0)
    assert base_fingerprint(base) != base_fingerprint(bases("bert"))


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail", "windows"])
def test_every_row_begins_with_the_prompt(truncation: Any, base: Path) -> None:
    from fullbake.models.encoding import tokenize

    tokenizer = load_tokenizer(base)
    prompt = tokenizer(PROMPT)["input_ids"][:-1]
    found = tokenize(tokenizer, TEXTS, max_length=16, truncation=truncation, stride=2, prompt=PROMPT, long_text=50)
    for start, end in zip(found.offsets, found.offsets[1:], strict=False):
        assert found.input_ids[start : start + len(prompt)].tolist() == prompt
        assert end - start <= 16
    short = tokenizer(PROMPT + TEXTS[0])["input_ids"]
    assert found.input_ids[: len(short)].tolist() == short


def test_further_pretraining_keeps_the_settings(base: Path, tmp_path: Path, run: Callable[..., Any]) -> None:
    lines = [f"The food {n} is good. We like the game and play at home.\n" for n in range(40)]
    (tmp_path / "corpus.txt").write_text("\n".join(lines))
    words = ["--objective", "mlm", "--steps", 2, "--batch-size", 4, "--max-length", 32, "--out", tmp_path / "new"]
    assert run("pretrain", tmp_path / "corpus.txt", "--base", base, *words)[0] == 0
    for name in ("2_Dense/model.safetensors", "config_sentence_transformers.json", "sentence_bert_config.json"):
        assert (tmp_path / "new" / name).is_file()
    classifier = train(tmp_path / "new", tmp_path)
    assert classifier.network.projection is not None
    assert (classifier.tokens.prompt, classifier.tokens.max_length) == (PROMPT, 16)


def test_compare_says_once_how_each_recipe_uses_the_base(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    recipes = {"a": recipe(base, max_length=None), "b": recipe(base, max_length=None), "c": recipe(base, pooling="max")}
    candidates = [Candidate(name, name, chosen) for name, chosen in recipes.items()]
    parts = divide(dataset(tmp_path), recipes["a"].data)
    _make_jobs(candidates, [parts], tmp_path / "cache")
    said = " ".join((caplog.text + capsys.readouterr().out).split())
    assert said.count("Dense layer, as part of the pooling") == 1
    assert said.count("its pooling, mean: the head reads max") == 1


def change_dense(base: Path, folder: Path, **fields: Any) -> Path:
    shutil.copytree(base, folder)
    path = folder / "2_Dense" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"in_features": 31}, "in_features 31"),
        ({"activation_function": "os.system"}, "the activation os.system"),
        ({"module_input_name": "token_embeddings"}, "token_embeddings"),
        ({"out_features": None}, "out_features"),
        ({"use_residual": True}, "residual"),
    ],
)
def test_dense_that_cannot_be_applied_is_refused_with_a_way_out(
    fields: dict[str, Any], words: str, base: Path, tmp_path: Path
) -> None:
    changed = change_dense(base, tmp_path / "base", **fields)
    with pytest.raises(BaseModelError, match=f"{words}(.|\n)*--pooling"):
        train(changed, tmp_path)
    train(changed, tmp_path, pooling="max")


def test_dense_as_a_pickle_is_never_read(base: Path, tmp_path: Path) -> None:
    changed = change_dense(base, tmp_path / "base")
    (changed / "2_Dense" / "model.safetensors").rename(changed / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match=r"2_Dense(.|\n)*a pickle"):
        train(changed, tmp_path)


def test_features_of_a_loaded_network_have_the_layer_in_them(base: Path, tmp_path: Path) -> None:
    train(base, tmp_path).save(tmp_path / "bundle")
    model = load_network(tmp_path / "bundle")
    assert features(model, {"input_ids": torch.arange(5, 15)[None]}).shape == (1, 16)
