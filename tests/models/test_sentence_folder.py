"""What the settings of a sentence-transformers folder mean; `test_sentence_transformers_extras` trains on one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fullbake.core import storage
from fullbake.core.errors import BaseModelError
from fullbake.models.sentence_folder import (
    Module,
    SentenceFolder,
    describe_use,
    projection_fingerprint,
    read_dense_layer,
    read_sentence_folder,
)

ST5 = "sentence_transformers.base.modules."
POOLED = {"modules.json": [{"path": "1_Pooling", "type": ST5 + "pooling.Pooling"}]}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        storage.write_json(folder / name, content)
    return folder


def test_other_bases_say_nothing(bases: Callable[..., Path]) -> None:
    assert read_sentence_folder(bases("bert")) == SentenceFolder()
    assert projection_fingerprint(bases("bert")) is None


def test_demo_names_its_length_and_normalizes() -> None:
    found = read_sentence_folder("demo")
    assert (found.max_length, found.prompt, found.dense, found.others) == (256, "", (), ("Normalize",))


def test_dense_before_the_pooling_and_unknown_modules_are_left_out(tmp_path: Path) -> None:
    kinds = ["Transformer", "Dense", "Pooling", "Dense", "Dropout", "Normalize"]
    modules = [{"path": f"{n}_{kind}" if n else "", "type": ST5 + kind} for n, kind in enumerate(kinds)]
    found = read_sentence_folder(write(tmp_path, {"modules.json": modules}))
    assert found.dense == (Module("Dense", "3_Dense"),)
    assert found.others == ("Dense", "Dropout", "Normalize")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"modules.json": {}}, "a list"),
        ({"modules.json": ["Pooling"]}, "a mapping"),
        ({"modules.json": [{"path": 3, "type": "Dense"}]}, "a text"),
        ({"modules.json": [{"path": "../elsewhere", "type": "Dense"}]}, "plain name of a subfolder"),
        (POOLED | {"config_sentence_transformers.json": []}, "a mapping"),
        (POOLED | {"config_sentence_transformers.json": {"default_prompt_name": "query"}}, "default prompt 'query'"),
        (POOLED | {"config_sentence_transformers.json": {"default_prompt_name": "q", "prompts": {"q": 1}}}, "a text"),
        (POOLED | {"sentence_bert_config.json": {"max_seq_length": "long"}}, "a whole number"),
        (POOLED | {"sentence_roberta_config.json": {"max_seq_length": "long"}}, "sentence_roberta_config.json"),
    ],
    ids=str,
)
def test_settings_of_another_shape_are_refused(files: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=words):
        read_sentence_folder(write(tmp_path, files))


def test_prompt_without_a_default_name_is_none(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": None}
    files = {"config_sentence_transformers.json": prompts, "sentence_roberta_config.json": {"max_seq_length": 2}}
    found = read_sentence_folder(write(tmp_path, POOLED | files))
    assert (found.prompt, found.max_length) == ("", 4)


def test_use_says_what_is_left_out() -> None:
    folder = SentenceFolder((Module("Dropout", ""),), "query: ", 16, pools_prompt=False, lowers=True)
    said = describe_use(folder, projected=False, pooling="cls", prompt="query: ", max_length=32, keeps_case=True)
    assert len(said.applied) == 1
    assert [words for words in ("include_prompt", "do_lower_case", "Dropout") if words in "; ".join(said.left_out)] == [
        "include_prompt",
        "do_lower_case",
        "Dropout",
    ]
    nothing = describe_use(SentenceFolder(), projected=False, pooling="cls", prompt="", max_length=8, keeps_case=True)
    assert nothing.sentences() == []


def test_dense_settings_have_the_defaults_of_sentence_transformers() -> None:
    layer = read_dense_layer({"in_features": 3, "out_features": 2})
    assert layer == {"in_features": 3, "out_features": 2, "bias": True, "activation": "Tanh", "residual": False}
