"""Labels that the terminal cannot show: the work is done, and the terminal gets escapes."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.rows import make_rows, write_csv

from fullbake.cli.main import main

LABELS = ("\U0001f600 happy", "\U0001f621 angry", "na\u00efve \u2013 so")
SHORT = ("--max-length", "32", "--epochs", "1", "--batch-size", "8", "--way", "frozen", "--head", "linear")


@pytest.fixture(params=["ascii", "latin-1"])
def typed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run a command with streams of a poor encoding; returns (exit code, what stdout and stderr got)."""

    def call(*words: object) -> tuple[int, str]:
        raw = io.BytesIO()
        streams = [io.TextIOWrapper(raw, request.param, errors="strict", write_through=True) for _ in range(2)]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", streams[0])
            patched.setattr(sys, "stderr", streams[1])
            with pytest.raises(SystemExit) as end:
                main([str(word) for word in words])
        return int(end.value.code or 0), raw.getvalue().decode(request.param)

    return call


def test_train_evaluate_and_predict(
    typed: Callable[..., tuple[int, str]], bases: Callable[..., Path], tmp_path: Path
) -> None:
    texts = [text for text, _ in make_rows(60)]
    rows = write_csv(tmp_path / "reviews.csv", [(text, LABELS[n % 3]) for n, text in enumerate(texts)])
    out = tmp_path / "m"
    code, shown = typed("train", rows, "--base", bases("bert"), *SHORT, "--out", out)
    assert code == 0, shown
    assert r"\U0001f600 happy" in shown
    facts = json.loads((out / "fullbake.json").read_text("utf-8"))
    assert sorted(facts["label_names"]) == sorted(LABELS), "files keep the labels"
    code, shown = typed("evaluate", out, rows)
    assert code == 0, shown
    assert r"\U0001f621 angry" in shown
    code, shown = typed("evaluate", out, rows, "--json")
    assert code == 0, shown
    found = json.loads(shown[shown.index("{") :])
    assert sorted(row["label"] for row in found["per_class"]) == sorted(LABELS), "JSON keeps the labels"
    code, shown = typed("inspect", rows)
    assert code == 0, shown
    code, shown = typed("predict", out, "a good day \U0001f600")
    assert code == 0, shown
    assert r"a good day \U0001f600" in shown
