"""API keys: which files are right, which keys are accepted, and when the file is read again."""

import os
from pathlib import Path

import pytest

from fullbake.core.errors import RecipeError
from fullbake.serving import keys
from fullbake.serving.keys import ApiKeys

ONE, OTHER = "k" * 20, "schlüssel-" * 3


def test_only_the_keys_of_the_file_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"# of the team\n\n{ONE}\n  {OTHER}  \n", encoding="utf-8")
    own = ApiKeys(path)
    assert own.accept(ONE)
    assert own.accept(OTHER)
    for wrong in ("", ONE[:-1], ONE + "k", "# of the team", "\udcff" * 20):
        assert not own.accept(wrong)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "has none"), (b"# nothing\n", "has none"), (b"short\n", "key 1 is too short"), (b"\xff\xfe\x00", "be read")],
)
def test_file_without_good_keys_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes(content)
    with pytest.raises(RecipeError, match=words):
        ApiKeys(tmp_path / "keys.txt")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        ApiKeys(tmp_path / "none.txt")


def test_changed_file_is_read_again_and_a_wrong_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keys, "_CHECKED_EVERY", 0.0)
    path = tmp_path / "keys.txt"
    path.write_text(ONE)
    own = ApiKeys(path)
    path.write_text(OTHER, encoding="utf-8")
    os.utime(path, ns=(1, 1))
    assert (own.accept(ONE), own.accept(OTHER)) == (False, True)
    path.write_text("")
    assert own.accept(OTHER)
    assert "stay as they are" in caplog.text
    path.unlink()
    assert own.accept(OTHER)
