"""A base is tried once, remembered by its files, and refused with every reason that is found."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.bases import make_base, make_tokenizer
from safetensors.torch import load_file, save_file

from fullbake.core import hashing
from fullbake.core.errors import BaseModelError
from fullbake.models import admission
from fullbake.models.admission import admit, describe_admission, examine

Bases = Callable[..., Path]

NAMES = ["config", "tokenizer", "weights", "vocabulary", "texts", "padding", "earlier texts"]


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what this process has admitted and hashed."""
    monkeypatch.setattr(admission, "_admitted", {})
    monkeypatch.setattr(hashing, "_known", {})


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each base that is tried."""
    made: list[str] = []
    run = admission._Examination.run

    def counted(self: Any) -> Any:
        made.append(str(self.base))
        return run(self)

    monkeypatch.setattr(admission._Examination, "run", counted)
    return made


def test_usual_base_passes_all_checks(bases: Bases, tmp_path: Path) -> None:
    found = examine(bases("bert"), cache_dir=tmp_path)
    assert [check.name for check in found.checks] == NAMES
    assert {check.result for check in found.checks} == {"passed"}
    assert (found.errors, found.notes, found.remembered) == ((), [], False)
    sizes = {"layers": 2, "width": 32, "max_length": 512, "vocabulary": 286}
    assert found.facts == sizes | {"model_type": "bert", "parameters": found.facts["parameters"]}
    assert json.loads(json.dumps(found.to_json()))["admitted"] is True


def test_run_says_one_line(bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    admit(bases("bert"), cache_dir=tmp_path)
    assert caplog.messages == [
        f"base {bases('bert')}: bert, 2 layers of width 32, texts of up to 512 tokens (7 checks passed)"
    ]
    assert describe_admission(admit(bases("bert"), cache_dir=tmp_path)).endswith("(checked before)")


def test_admitted_base_is_not_tried_again(bases: Bases, tmp_path: Path, trials: list[str]) -> None:
    first = examine(bases("bert"), cache_dir=tmp_path)
    assert examine(bases("bert"), cache_dir=tmp_path).remembered
    admission._admitted.clear()  # as in another process
    later = examine(str(bases("bert")), cache_dir=tmp_path)
    assert later.remembered
    assert (later.facts, later.checks) == (first.facts, first.checks)
    assert len(trials) == 1
    assert not examine(bases("bert"), cache_dir=tmp_path, again=True).remembered
    assert len(trials) == 2


def test_moved_base_is_remembered_and_changed_base_is_tried(bases: Bases, tmp_path: Path, trials: list[str]) -> None:
    examine(bases("bert"), cache_dir=tmp_path / "cache")
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "moved"))
    (folder / "README.md").write_text("The card is no part of it.")
    moved = examine(folder, cache_dir=tmp_path / "cache")
    assert moved.remembered
    assert moved.base == str(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    assert not examine(folder, cache_dir=tmp_path / "cache").remembered
    shutil.copy(make_base("bert", tmp_path / "other", seed=1) / "model.safetensors", folder)
    assert not examine(folder, cache_dir=tmp_path / "cache").remembered
    assert len(trials) == 3


def test_refused_base_is_tried_each_time(bases: Bases, tmp_path: Path, trials: list[str]) -> None:
    folder = broken_base(bases, tmp_path)
    for _ in range(2):
        with pytest.raises(BaseModelError, match="ids beyond"):
            admit(folder, cache_dir=tmp_path / "cache")
    assert len(trials) == 2


def broken_base(bases: Bases, folder: Path) -> Path:
    """Return a base with a tokenizer of more ids than embeddings, and with weights for more layers than it asks for."""
    copy = Path(shutil.copytree(bases("bert"), folder / "broken"))
    tokenizer = make_tokenizer("bert")
    tokenizer.add_tokens(["goodish"])
    tokenizer.save_pretrained(copy)
    return copy


def test_all_reasons_are_found(bases: Bases, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "broken"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    (folder / "tokenizer.json").write_text("{")
    found = examine(folder, cache_dir=tmp_path / "cache")
    results = {check.name: check.result for check in found.checks}
    assert [name for name in NAMES if results[name] == "refused"] == ["tokenizer", "weights"]
    assert [name for name in NAMES if results[name] == "not tried"] == NAMES[3:]
    assert len(found.errors) == 2
    assert found.to_json()["admitted"] is False


def test_missing_base_is_refused(tmp_path: Path) -> None:
    found = examine(tmp_path / "absent", cache_dir=tmp_path / "cache")
    assert "no such base" in str(found.errors[0])
    assert found.checks[0].result == "refused"


def test_notes_are_warnings(bases: Bases, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(shutil.copytree(bases("roberta"), tmp_path / "lower"))
    value = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(value | {"normalizer": {"type": "Lowercase"}}))
    for remembered in (False, True):
        caplog.clear()
        assert admit(folder, cache_dir=tmp_path / "cache").remembered is remembered
        assert "fullbake uses tokenizer.json as it is" in caplog.text


def test_base_that_starts_at_random_needs_no_weights(bases: Bases, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "bare"))
    (folder / "model.safetensors").unlink()
    assert not examine(folder, weights=False, cache_dir=tmp_path / "cache").errors
    assert examine(folder, cache_dir=tmp_path / "cache").errors


def test_whatever_a_base_raises_is_its_error(bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("some part")

    monkeypatch.setattr(admission, "refuse_ids_beyond_table", fail)
    (error,) = examine(bases("bert"), cache_dir=tmp_path).errors
    assert "the base fails when its vocabulary is tried" in str(error)
    assert "KeyError: 'some part'" in str(error)


def test_random_generators_are_as_before(bases: Bases, tmp_path: Path) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.random(), float(torch.rand(1))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    examine(bases("bert"), cache_dir=tmp_path, again=True)
    assert (random.random(), np.random.random(), float(torch.rand(1))) == expected


def test_cache_that_cannot_be_written_is_no_fault(bases: Bases, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not admit(bases("bert"), cache_dir=tmp_path / "file" / "cache").errors


def test_damaged_memory_is_made_again(bases: Bases, tmp_path: Path, trials: list[str]) -> None:
    examine(bases("bert"), cache_dir=tmp_path)
    admission._admitted.clear()
    (file,) = tmp_path.glob("admissions/*/admission.json")
    file.write_text("{}")
    assert not examine(bases("bert"), cache_dir=tmp_path).remembered
    assert len(trials) == 2


def test_sentence_folder_that_breaks_after_it_was_admitted_is_refused(bases: Bases, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases("bert"), base)
    (base / "modules.json").write_text('[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]')
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    assert not examine(base, cache_dir=tmp_path / "cache").errors
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode": 3}')
    assert "1_Pooling" in str(examine(base, cache_dir=tmp_path / "cache").errors[0])


def test_code_of_the_authors_is_noted(bases: Bases, tmp_path: Path) -> None:
    """It may compute something else under the model type and the weights of an architecture that transformers knows."""
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    code = {"auto_map": {"AutoModel": "owner/name--modeling.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config | code))
    (folder / "modeling.py").write_text("raise SystemExit")
    found = examine(folder, cache_dir=tmp_path / "cache")
    assert found.errors == ()
    (note,) = found.notes
    assert "'owner/name--modeling.OwnModel'" in note
    assert "transformers' own bert" in note


@pytest.mark.parametrize("names", ["module.{}", "roberta.{}"])
def test_weights_under_other_names_are_shown(bases: Bases, tmp_path: Path, names: str) -> None:
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    weights = load_file(folder / "model.safetensors")
    save_file({names.format(name): value for name, value in weights.items()}, folder / "model.safetensors")
    (error,) = examine(folder, cache_dir=tmp_path / "cache").errors
    assert f"got {names.format('embeddings.LayerNorm.bias')}" in str(error)
    assert "save the model itself again" in str(error)


@pytest.mark.parametrize("kind", ["head", "half", "gamma", "trainer"])
def test_what_people_save_beside_or_around_an_encoder_is_accepted(bases: Bases, tmp_path: Path, kind: str) -> None:
    folder = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    weights = load_file(folder / "model.safetensors")
    if kind == "head":
        weights = {f"bert.{name}": value for name, value in weights.items()} | {"classifier.bias": torch.zeros(3)}
    elif kind == "half":
        weights = {name: value.bfloat16() for name, value in weights.items()}
    elif kind == "gamma":  # as the first releases of BERT named them
        renamed = ((".weight", ".gamma"), (".bias", ".beta"))
        for new, old in renamed:
            weights = {name.replace(f"LayerNorm{new}", f"LayerNorm{old}"): value for name, value in weights.items()}
    else:
        for name in ("training_args.bin", "optimizer.pt", "rng_state.pth"):
            (folder / name).write_bytes(b"PK")
        (folder / "trainer_state.json").write_text('{"best_metric": NaN}')
        (folder / "checkpoint-500").mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = examine(folder, cache_dir=tmp_path / "cache")
    assert (found.errors, found.notes) == ((), [])


HUB = """
import json, sys
from fullbake.models.admission import examine
for name in sys.argv[1:]:
    found = examine(name, again=True)
    print(json.dumps([name, [str(error) for error in found.errors]]))
"""


def test_files_of_a_hub_base_are_checked_like_those_of_a_folder(bases: Bases, tmp_path: Path) -> None:
    """A stand-in for the cache of the hub's client: it is read offline, as after a download."""
    for name in ("good", "tokens", "length", "weights"):
        repository = tmp_path / "hub" / f"models--owner--{name}"
        snapshot = Path(shutil.copytree(bases("bert"), repository / "snapshots" / ("0" * 40)))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
        if name == "tokens":
            (snapshot / "special_tokens_map.json").write_text('{"pad_token": 7}')
        elif name == "length":
            (snapshot / "sentence_bert_config.json").write_text('{"max_seq_length": "long"}')
        elif name == "weights":
            weights = load_file(snapshot / "model.safetensors")
            whole = {key: value.to(torch.int8) for key, value in weights.items()}
            save_file(whole, snapshot / "model.safetensors", metadata={"format": "pt"})
    names = [f"owner/{name}" for name in ("good", "tokens", "length", "weights")]
    hub = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", HUB, *names]
    done = subprocess.run(command, env=os.environ | hub, capture_output=True, text=True, check=True)
    good, tokens, length, weights = (json.loads(line)[1] for line in done.stdout.splitlines())
    assert good == []
    assert "special_tokens_map.json cannot be used" in tokens[0]
    assert "sentence_bert_config.json cannot be used" in length[0]
    assert "the base is quantized" in weights[0]
