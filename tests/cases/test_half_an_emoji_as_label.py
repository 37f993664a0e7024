"""Half of a surrogate pair within a list of labels is refused with its line, by every command that reads labels."""

from collections.abc import Callable
from pathlib import Path

import pytest

CASE = Path(__file__).parent.parent / "fixtures" / "cases" / "half_an_emoji_as_label" / "tweets.jsonl"
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", ["inspect", "train", "compare"])
def test_half_a_surrogate_pair_is_refused_with_the_line(
    command: str, run: Run, bases: Callable[..., Path], tmp_path: Path
) -> None:
    words = () if command == "inspect" else ("--base", bases("bert"), "--out", tmp_path / "out")
    code, out, errors = run(command, CASE, *words)
    assert (code, out) == (2, "")
    assert "line 1" in errors
    assert "field 'label' holds half of a surrogate pair" in errors
    assert "\\ud83d" in errors


def test_list_that_nobody_reads_is_refused_like_a_text_that_nobody_reads(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": "y", "tags": ["\\ud83d"]}\n', "utf-8")
    code, _, errors = run("inspect", path)
    assert code == 2
    assert "line 2" in errors
    assert "'tags'" in errors
