"""JSON files of bases are used or refused by name; odd files of real ones are no fault."""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.json_mutations import use_base, write_mutated
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from fullbake.core import storage
from fullbake.core.errors import BaseModelError
from fullbake.core.json_files import ShapeFault
from fullbake.models.base_files import check_base_files, check_config, check_config_of, check_settings, read_settings
from fullbake.models.pretrained import load_config, resolve_base

Bases = Callable[..., Path]


@pytest.fixture
def base(bases: Bases, tmp_path: Path) -> Path:
    """A BERT of random weights that a test may change."""
    return Path(shutil.copytree(bases("bert"), tmp_path / "base"))


# Any change


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_a_changed_json_file_is_used_or_refused(bases: Bases, name: str, rng: random.Random) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(shutil.copytree(bases("bert"), Path(made) / "base"))
        write_mutated(folder, name, rng)
        note(f"{name}: {(folder / name).read_text('utf-8', 'replace')[:3_000]}")
        with suppress(BaseModelError):
            use_base(folder)


# Limits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", -(10**9)),
        ("n_layers", 1_001),
        ("num_attention_heads", 10**6),
        ("vocab_size", 10**12),
        ("max_position_embeddings", 10**8),
        ("hidden_size", 10**9),
        ("intermediate_size", 10**12),
        ("num_labels", 10**9),
        ("anything", 10**30),
        ("id2label", {str(number): "x" for number in range(1_000_001)}),
    ],
)
def test_a_number_that_would_keep_the_machine_busy_is_refused(base: Path, field: str, value: object) -> None:
    config = storage.read_json(base / "config.json")
    with pytest.raises(ShapeFault, match=field):
        check_config(config | {field: value})
    with pytest.raises(BaseModelError, match=f"{field}: config.json cannot be used"):
        check_config_of(base, {"encoder": config | {field: value}})
    storage.write_json(base / "config.json", config | {field: value})
    with pytest.raises(BaseModelError, match=field):
        load_config(base)


def test_weights_that_the_folder_lacks_are_not_made_first(base: Path) -> None:
    """Within the limits, a config could still ask for memory that no machine has."""
    from fullbake.models.encoder import load_encoder

    config = storage.read_json(base / "config.json")
    sizes = {"hidden_size": 400_000, "intermediate_size": 9_000_000, "num_attention_heads": 4}
    storage.write_json(base / "config.json", config | sizes)
    with pytest.raises(BaseModelError, match="asks for far more weights than the folder holds"):
        load_encoder(base)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_other_kinds_of_files_are_not_opened(base: Path, name: str) -> None:
    (base / name).unlink(missing_ok=True)
    os.mkfifo(base / name)
    with pytest.raises(BaseModelError, match="got a named pipe"):
        resolve_base(base)
    (base / name).unlink()
    (base / name).symlink_to(os.devnull)
    with pytest.raises(BaseModelError, match="got a device"):
        resolve_base(base)
    (base / name).unlink()
    (base / name).symlink_to(base / "nowhere")
    with pytest.raises(BaseModelError, match="a link to one"):
        resolve_base(base)


def test_a_pointer_of_git_is_named(base: Path) -> None:
    (base / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(BaseModelError, match="git lfs pull"):
        resolve_base(base)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", [], "an object"),
        ("config.json", {"model_type": 7}, "model_type: expected a word"),
        ("tokenizer_config.json", [], "expected"),
        ("tokenizer_config.json", {"model_input_names": "x"}, "model_input_names: expected a list"),
        ("tokenizer_config.json", {"padding_side": "both"}, "padding_side: expected 'left' or 'right'"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder"),
        ("special_tokens_map.json", {"pad_token": 7}, "pad_token"),
        ("added_tokens.json", {"<a>": "7"}, "<a>: expected"),
        ("modules.json", {"a": 1}, "modules: expected a list"),
        ("modules.json", [{"type": 7}], "modules.0.type: expected"),
        ("model.safetensors.index.json", {"metadata": {}, "weight_map": {"a": 1}}, "weight_map.a: expected"),
        ("sentence_bert_config.json", {"max_seq_length": "many"}, "max_seq_length: expected"),
        ("sentence_roberta_config.json", {"max_seq_length": 0}, "max_seq_length: expected"),
        ("sentence_xlnet_config.json", {"do_lower_case": "yes"}, "do_lower_case: expected true or false"),
        ("sentence_bert_config.json", {"tokenizer_args": {"model_max_length": "x"}}, "model_max_length: expected"),
        ("tokenizer_config.json", {"max_len": "x"}, "max_len: expected"),
        ("1_Pooling/config.json", {"pooling_mode": []}, "pooling_mode: expected"),
        ("model.safetensors.index.json", {"weight_map": {"a": "x.safetensors"}}, "metadata: expected an entry"),
        ("config_sentence_transformers.json", {"prompts": ["x"]}, "prompts: expected"),
        ("1_Pooling/config.json", {"pooling_mode": 7}, "pooling_mode: expected"),
    ],
)
def test_a_wrong_value_is_named(name: str, content: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ShapeFault, match=words):
        check_settings(name, content)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    storage.write_json(tmp_path / name, content)
    with pytest.raises(BaseModelError, match=f"{Path(name).name} cannot be used"):
        read_settings(tmp_path / name, name)


def test_half_an_emoji_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "\\ud83d"}')
    with pytest.raises(BaseModelError, match="half of a surrogate pair"):
        read_settings(tmp_path / "config.json", "config.json")


# What real bases have


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"num_train_examples": 10**8, "dataset_size": 10**9, "num_tokens_seen": 3 * 10**12}),
        ("config.json", {"max_position_embeddings": 131_072, "vocab_size": 1_100_000, "num_hidden_layers": 48}),
        ("config.json", {"max_position_embeddings": -1, "type_vocab_size": 0, "eos_token_id": [1, 2]}),
        ("config.json", {"id2label": {"0": "num_heads", "1": "layers"}, "label2id": {"layers": 1}}),
        ("config.json", {"task_specific_params": {"summary": {"num_beams": 4, "prefix": "x"}}, "notes": None}),
        ("tokenizer_config.json", {}),
        ("tokenizer_config.json", {"model_max_length": 1_000_000_000_000_000_019_884_624_838_656}),
        ("tokenizer_config.json", {"do_lower_case": False, "never_split": None, "max_len": 512}),
        ("tokenizer_config.json", {"mask_token": {"content": "<mask>", "lstrip": True, "__type": "AddedToken"}}),
        ("tokenizer_config.json", {"bos_token": None, "additional_special_tokens": ["<eop>", {"content": "<eod>"}]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"4": {"content": "[MASK]", "special": True}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}, "extra_special_tokens": {}}),
        ("special_tokens_map.json", {"additional_special_tokens": ["<a>"], "cls_token": {"content": "<s>"}}),
        ("added_tokens.json", {"<unk_0>": 30_522}),
        ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]),
        ("sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": False}),
        ("sentence_bert_config.json", {"processor_kwargs": {"model_max_length": 1e30}, "transformer_task": "x"}),
        ("config_sentence_transformers.json", {"__version__": {"pytorch": "1.8.1"}, "prompts": {"q": "query: "}}),
        ("1_Pooling/config.json", {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True}),
        ("unknown.json", [7]),
    ],
)
def test_what_real_files_hold_passes(name: str, content: object) -> None:
    check_settings(name, content)


def test_files_beside_a_base_are_left_alone(base: Path) -> None:
    """Somebody's rows and notes are not opened, whatever they are."""
    (base / "rows.json").write_bytes(b"{" + b" " * 70_000_000)
    (base / "notes.txt").symlink_to(base / "nowhere")
    (base / "runs.json").mkdir()
    os.mkfifo(base / "pipe.txt")
    check_base_files(base)
    load_config(base)


def test_infinite_numbers_of_a_config_are_read(base: Path) -> None:
    """transformers wrote some so."""
    config = storage.read_json(base / "config.json")
    (base / "config.json").write_text(json.dumps(config | {"time_step_limit": [0.0, float("inf")]}))
    load_config(base)


def test_a_file_that_changed_is_checked_again(base: Path) -> None:
    settings_file = base / "tokenizer_config.json"
    check_base_files(base)
    content: dict[str, Any] = storage.read_json(settings_file)
    storage.write_json(settings_file, content | {"padding_side": "nowhere"})
    with pytest.raises(BaseModelError, match="padding_side"):
        check_base_files(base)
