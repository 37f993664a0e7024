"""The layers after a base's pooling compute what sentence-transformers computes, or are refused before work."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.bases import make_base
from safetensors.torch import load_file, save_file

from fullbake.config.sections import HeadConfig
from fullbake.core import storage
from fullbake.core.errors import BaseModelError
from fullbake.models.heads import ACTIVATIONS, build_projection
from fullbake.models.network import build_network, features
from fullbake.models.projection import (
    find_missing_weights,
    load_projection,
    projection_fingerprint,
    read_layer,
    read_projection_layers,
)
from fullbake.models.sentence_folder import Module

Bases = Callable[..., Path]
Layers = list[tuple[str, dict[str, Any], dict[str, torch.Tensor]]]
TYPES = "sentence_transformers.models."


def random(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(sum(sizes)))


def dense(inputs: int, outputs: int, *, bias: bool = True, residual: bool = False, **fields: Any) -> Any:
    weights = {"linear.weight": random(outputs, inputs)} | ({"linear.bias": random(outputs)} if bias else {})
    if residual and inputs != outputs:
        weights["residual.weight"] = random(outputs, inputs)
    settings = {"in_features": inputs, "out_features": outputs, "bias": bias, "use_residual": residual}
    return "Dense", settings | {"activation_function": "torch.nn.modules.activation.Tanh"} | fields, weights


def norm(width: int) -> Any:
    return "LayerNorm", {"dimension": width}, {"norm.weight": random(width), "norm.bias": random(width)}


NORMALIZE: Any = ("Normalize", {}, {})


def make_sentence_base(bert: Path, folder: Path, layers: Layers, pooling: Any = "mean") -> Path:
    """Copy a base into a folder as sentence-transformers would save it with these modules after its pooling."""
    shutil.copytree(bert, folder)
    kinds = ["Transformer", "Pooling", *(kind for kind, _, _ in layers)]
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": TYPES + kind}
        for n, kind in enumerate(kinds)
    ]
    storage.write_json(folder / "modules.json", modules)
    for number, (kind, settings, weights) in enumerate([("Pooling", {"pooling_mode": pooling}, {}), *layers], 1):
        own = folder / f"{number}_{kind}"
        own.mkdir()
        storage.write_json(own / "config.json", settings)
        if weights:
            save_file(weights, own / "model.safetensors")
    return folder


def apply(vector: torch.Tensor, layers: Layers) -> torch.Tensor:
    """Compute what sentence-transformers does, written out once more."""
    for kind, settings, weights in layers:
        if kind == "Normalize":
            vector = vector / vector.norm(dim=-1, keepdim=True)
        elif kind == "LayerNorm":
            vector = torch.layer_norm(vector, vector.shape[-1:], weights["norm.weight"], weights["norm.bias"])
        else:
            out = vector @ weights["linear.weight"].T + weights.get("linear.bias", torch.tensor(0.0))
            out = ACTIVATIONS[settings["activation_function"].rpartition(".")[2]]()(out)
            if settings["use_residual"]:
                out = out + (vector @ weights["residual.weight"].T if "residual.weight" in weights else vector)
            vector = out
    return vector


@pytest.mark.parametrize(
    "layers",
    [
        [dense(32, 16)],
        [dense(32, 16, bias=False, activation_function="torch.nn.modules.linear.Identity")],
        [dense(32, 48, bias=False), dense(48, 8)],
        [dense(32, 32, residual=True), dense(32, 8, residual=True, bias=False)],
        [norm(32)],
        [norm(32), dense(32, 8)],
        [dense(32, 8), norm(8)],
        [NORMALIZE, dense(32, 8, activation_function="torch.nn.modules.activation.Mish")],
    ],
    ids=lambda layers: "-".join(kind for kind, _, _ in layers),
)
def test_features_are_those_of_sentence_transformers(layers: Layers, bases: Bases, tmp_path: Path) -> None:
    base = make_sentence_base(bases("bert"), tmp_path / "base", layers)
    ids = torch.arange(5, 17).reshape(2, 6)
    plain = build_network(bases("bert"), HeadConfig(kind="linear", pooling="mean"), ["a", "b"], seed=0)
    model = build_network(base, HeadConfig(kind="linear"), ["a", "b"], seed=0)
    with torch.no_grad():
        expected = apply(features(plain, {"input_ids": ids}), layers)
        torch.testing.assert_close(features(model, {"input_ids": ids}), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_float_type_become_fp32(dtype: torch.dtype, bases: Bases, tmp_path: Path) -> None:
    kind, settings, weights = dense(32, 8)
    stored = {name: tensor.to(dtype) for name, tensor in weights.items()}
    found = load_projection(
        make_sentence_base(bases("bert"), tmp_path / "base", [(kind, settings, stored)]), "mean", 32
    )
    assert found is not None
    assert torch.equal(found.weights["0.linear.weight"], stored["linear.weight"].float())


def test_layers_are_known_without_reading_their_weights(
    bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_sentence_base(bases("bert"), tmp_path / "base", [dense(32, 8)])
    monkeypatch.setattr("fullbake.models.projection.load_file", lambda _: pytest.fail("weights were read"))
    assert [layer["out_features"] for layer in read_projection_layers(base, "mean", 32)] == [8]
    assert read_projection_layers(base, "cls", 32) == ()


def test_damaged_weights_are_refused_before_they_are_read(bases: Bases, tmp_path: Path) -> None:
    base = make_sentence_base(bases("bert"), tmp_path / "base", [dense(32, 8)])
    path = base / "2_Dense" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BaseModelError, match=r"2_Dense(.|\n)*--pooling"):
        read_projection_layers(base, "mean", 32)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (dense(32, 8, module_output_name="other"), "module_output_name 'other'"),
        (dense(32, 8, module_input_name="token_embeddings"), "module_input_name"),
        (dense(32, 8, activation_function="mine.ReLU"), "the activation mine.ReLU"),
        (dense(32, 8, activation_function=None), "the activation None"),
        (dense(31, 8), "in_features 31"),
        (dense(32, 8, bias=False, in_features=True), "in_features"),
        (norm(31), "in_features 31"),
        (("LayerNorm", {"dimension": 32}, {"norm.weight": random(32)}), "weights of shapes"),
        (("Dense", dense(32, 8)[1], {name: t.int() for name, t in dense(32, 8)[2].items()}), "type I32"),
    ],
    ids=str,
)
def test_layer_that_cannot_be_applied_is_refused(layer: Any, words: str, bases: Bases, tmp_path: Path) -> None:
    base = make_sentence_base(bases("bert"), tmp_path / "base", [layer])
    with pytest.raises(BaseModelError, match=words):
        read_projection_layers(base, "mean", 32)


def test_fingerprint_changes_with_the_layers(bases: Bases, tmp_path: Path) -> None:
    assert projection_fingerprint(bases("bert")) is None
    kinds: list[Layers] = [[dense(32, 8)], [dense(32, 8, bias=False)], [NORMALIZE, dense(32, 8)], [norm(32)]]
    found = {
        projection_fingerprint(make_sentence_base(bases("bert"), tmp_path / str(number), layers))
        for number, layers in enumerate(kinds)
    }
    assert len(found) == len(kinds)


def test_layers_whose_weights_are_no_safetensors_are_named(bases: Bases, tmp_path: Path) -> None:
    base = make_sentence_base(bases("bert"), tmp_path / "base", [dense(32, 8), dense(8, 4)])
    (base / "3_Dense" / "model.safetensors").rename(base / "3_Dense" / "pytorch_model.bin")
    assert find_missing_weights(base) == ["3_Dense"]


def test_dense_settings_have_the_defaults_of_sentence_transformers() -> None:
    layer = read_layer(Module("Dense", "", {"in_features": 3, "out_features": 2}), 3)
    assert layer == {"in_features": 3, "out_features": 2, "bias": True, "activation": "Tanh", "residual": False}


def test_dense_layers_of_older_bundles_name_no_kind() -> None:
    layer = {"in_features": 3, "out_features": 2, "bias": True, "activation": "Tanh", "residual": False}
    built = build_projection([layer])
    assert built is not None
    assert built(torch.ones(1, 3)).shape == (1, 2)


@pytest.mark.slow
def test_folder_that_sentence_transformers_saves_means_the_same(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    modules = library.sentence_transformer.modules
    base = make_base("bert", tmp_path / "bert")
    parts = [
        modules.Transformer(str(base), max_seq_length=16),
        modules.Pooling(32, "mean"),
        modules.Normalize(),
        modules.Dense(32, 16, bias=False),
        modules.LayerNorm(16),
    ]
    theirs = library.SentenceTransformer(modules=parts, device="cpu")
    theirs.save(str(tmp_path / "saved"))
    from fullbake import Recipe
    from fullbake.models.collation import collate
    from fullbake.models.encoding import tokenize
    from fullbake.training.job import recipe_tokenizer, resolve_recipe

    texts = ["good food", "the team play a game " * 20]
    recipe = resolve_recipe(Recipe.load("finetune", base=str(tmp_path / "saved")))
    assert recipe.tokens.max_length == 16
    tokenizer = recipe_tokenizer(recipe)
    encoded = tokenize(tokenizer, texts, max_length=16, truncation="head", prompt=recipe.tokens.prompt)
    model = build_network(tmp_path / "saved", recipe.head, ["a", "b"], seed=0)
    with torch.no_grad():
        batch = collate(encoded, torch.arange(2).numpy(), pad_id=tokenizer.pad_token_id)
        torch.testing.assert_close(features(model, batch), theirs.encode(texts, convert_to_tensor=True))
    assert load_file(tmp_path / "saved" / "3_Dense" / "model.safetensors").keys() == {"linear.weight"}
