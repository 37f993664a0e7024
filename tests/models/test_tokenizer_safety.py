"""A tokenizer.json is tried in a process of its own once, and what that process cannot stand is refused here."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fullbake.core import runtime
from fullbake.core.errors import BaseModelError
from fullbake.models import tokenizer_safety
from fullbake.models.tokenizer import load_tokenizer
from fullbake.models.tokenizer_safety import (
    check_tokenizer_file,
    explain_failure,
    is_failure,
    remember_written,
    run_trial,
)

Bases = Callable[..., Path]

TRUNCATION = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}


@pytest.fixture(autouse=True)
def new_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is known yet, neither to this process nor to the cache."""
    monkeypatch.setattr(tokenizer_safety, "_known", {})
    monkeypatch.setenv("FULLBAKE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that a process was started for."""
    found: list[Path] = []

    def counted(file: Path, **limits: Any) -> Any:
        found.append(file)
        return run_trial(file, **limits)

    monkeypatch.setattr(tokenizer_safety, "run_trial", counted)
    return found


@pytest.fixture
def file(bases: Bases, tmp_path: Path) -> Path:
    """A tokenizer.json that a test may change."""
    return Path(shutil.copy(bases("bert") / "tokenizer.json", tmp_path / "tokenizer.json"))


def change(file: Path, **fields: object) -> Path:
    """Set fields of a tokenizer.json."""
    file.write_text(json.dumps(json.loads(file.read_bytes()) | fields))
    return file


def test_a_file_is_tried_once_and_remembered_by_its_sha256(
    file: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = check_tokenizer_file(file, "base")
    assert facts.tokens == facts.highest_id + 1 > 200
    check_tokenizer_file(file, "base")
    monkeypatch.setattr(tokenizer_safety, "_known", {})  # as in the next process
    moved = file.rename(file.with_name("other.json"))
    assert check_tokenizer_file(moved, "other") == facts
    assert trials == [file]
    check_tokenizer_file(change(moved, padding=None, truncation=TRUNCATION), "other")
    assert trials == [file, moved]


def test_a_file_that_was_written_here_needs_no_trial(
    file: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_written(file)
    remember_written(file)
    monkeypatch.setattr(tokenizer_safety, "_known", {})
    assert check_tokenizer_file(file, "bundle").tokens > 200
    assert not trials


def test_without_a_cache_a_file_is_tried_in_each_process(
    file: Path, trials: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("no folder")
    for _ in range(2):
        monkeypatch.setattr(tokenizer_safety, "_known", {})
        check_tokenizer_file(file, "base")
    assert len(trials) == 2


def test_a_damaged_memory_is_made_again(file: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = check_tokenizer_file(file, "base")
    for path in (runtime.cache_dir() / "tokenizers").rglob("tokenizer.json"):
        path.write_text('{"tokens": "many"}')
    monkeypatch.setattr(tokenizer_safety, "_known", {})
    assert check_tokenizer_file(file, "base") == facts
    assert len(trials) == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": {"type": "WordPiece"}}, "tokenizer.json cannot be used"),
        ({"model": []}, "no object 'model'"),
        ({"padding": {"strategy": {"Fixed": 10**12}}}, "pads texts to 1000000000000 tokens"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "tokenizer.json cannot be used"),
    ],
)
def test_a_file_that_the_library_cannot_read_is_refused(fields: dict[str, Any], words: str, file: Path) -> None:
    with pytest.raises(BaseModelError, match=words):
        check_tokenizer_file(change(file, **fields), "base")


def test_a_pattern_that_takes_too_long_is_refused(file: Path) -> None:
    """Its steps double with each letter; the trial's texts have hundreds."""
    split = {"type": "Split", "pattern": {"Regex": "(?:a|aa)+$"}, "behavior": "Isolated", "invert": False}
    assert "retry-limit" in str(run_trial(change(file, pre_tokenizer=split)).fault)


def test_a_process_that_takes_too_long_is_stopped(file: Path) -> None:
    longer = {"type": "Replace", "pattern": {"Regex": "."}, "content": "é" * 40}
    slow = [longer, *[{"type": "NFD"}, {"type": "NFC"}] * 4_000]  # about two minutes of two cores of 2026
    outcome = run_trial(change(file, normalizer={"type": "Sequence", "normalizers": slow}), seconds=1)
    assert "more than 1 s of processor time" in str(outcome.fault)


def test_a_process_that_needs_too_much_memory_is_stopped(file: Path) -> None:
    assert run_trial(file, memory=20_000_000).fault is not None


def test_other_kinds_of_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(BaseModelError, match="got a named pipe"):
        check_tokenizer_file(tmp_path / "tokenizer.json", "base")


def test_a_base_is_refused_by_the_trial_of_its_tokenizer(bases: Bases, tmp_path: Path) -> None:
    base = Path(shutil.copytree(bases("bert"), tmp_path / "base"))
    change(base / "tokenizer.json", padding={"strategy": {"Fixed": 10**9}})
    with pytest.raises(BaseModelError, match=r"base: its tokenizer\.json cannot be used|pads texts"):
        load_tokenizer(base)


def test_only_failures_of_the_library_become_errors_of_the_base() -> None:
    with pytest.raises(BaseModelError, match="its tokenizer fails on a text"), explain_failure("base"):
        raise Exception("WordPiece error: Missing [UNK] token from the vocabulary")
    with pytest.raises(ZeroDivisionError), explain_failure("base"):
        raise ZeroDivisionError
    assert is_failure(type("PanicException", (BaseException,), {})())
    assert not is_failure(ValueError())
