"""`fullbake explain` prints words with their effects, as a table, as JSON and as a page."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.counting import counting_classifier
from rich.console import Console

from fullbake.classifier.model import Classifier
from fullbake.cli import explain as explaining
from fullbake.core.pages import is_page
from fullbake.core.screen import Line

Run = Callable[..., tuple[int, str, str]]
TEXT = "the good film is bad, good"


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return `bundle(pairs=True)`, which stands for the bundle of a classifier that counts words."""

    def stand_for(**options: Any) -> str:
        monkeypatch.setattr(Classifier, "load", lambda *_, **__: counting_classifier(**options))
        return "bundle"

    return stand_for


def type_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)


def test_bundle_on_disk_is_explained(run: Run, graph_bundles: Callable[..., Path]) -> None:
    code, out, _ = run("explain", graph_bundles("bert"), "a good game with a team", "--engine", "onnx")
    assert code == 0
    assert "a good game with a team" in out
    assert "effect" in out


def test_table_names_the_label_and_the_words(run: Run, bundle: Callable[..., str]) -> None:
    code, out, err = run("explain", bundle(), TEXT)
    assert (code, err) == (0, "")
    assert out.startswith(f"good 0.731\n{TEXT}\n")
    assert out.index("│ good") < out.index("│ bad") < out.index("│ the")
    assert "−0.150" in out


def test_json_has_every_word_of_the_labels_asked_for(run: Run, bundle: Callable[..., str]) -> None:
    _, out, _ = run("explain", bundle(), TEXT, "--json", "--label", "bad", "--label", "good")
    found = json.loads(out)
    assert [entry["label"] for entry in found["labels"]] == ["bad", "good"]
    assert [word["word"] for word in found["labels"][0]["words"]] == ["the", "good", "film", "is", "bad", ",", "good"]


def test_page_is_written_and_only_replaced_if_asked(run: Run, bundle: Callable[..., str], tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    code, out, err = run("explain", bundle(), TEXT, "--html", page)
    assert code == 0
    assert is_page(page)
    assert "it holds the text" in err
    assert TEXT in out
    assert run("explain", bundle(), TEXT, "--html", page)[0] == 2
    assert run("explain", bundle(), TEXT, "--html", page, "--overwrite")[0] == 0


def test_stdin_is_one_text(run: Run, bundle: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    type_stdin(monkeypatch, "\ufeffgood\nfilm 好\n".encode())
    found = json.loads(run("explain", bundle(), "--json")[1])
    assert found["texts"] == ["good\nfilm 好"]


@pytest.mark.parametrize(("content", "message"), [(b" \n", "there is no text"), (b"\xff", "is not UTF-8")])
def test_stdin_without_a_text_is_refused(
    run: Run, bundle: Callable[..., str], monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    type_stdin(monkeypatch, content)
    code, _, err = run("explain", bundle())
    assert code == 2
    assert message in err


def test_number_of_texts_is_checked(run: Run, bundle: Callable[..., str]) -> None:
    code, _, err = run("explain", bundle(), "good", "film")
    assert code == 2
    assert "quotation marks" in err
    code, _, err = run("explain", bundle(pairs=True), "good")
    assert code == 2
    assert "both texts" in err
    assert run("explain", bundle(pairs=True), "good", "bad film")[0] == 0


def test_unknown_label_is_refused(run: Run, bundle: Callable[..., str]) -> None:
    code, _, err = run("explain", bundle(), TEXT, "--label", "goood")
    assert code == 2
    assert "Did you mean 'good'" in err


def test_colors_follow_the_effects_and_hidden_characters_are_shown() -> None:
    found = counting_classifier().explain("the good film is bad\x1b[2J good")
    screen = Console(force_terminal=True, color_system="truecolor", width=100, file=io.StringIO())
    screen.print(Line(*explaining._colored(found, "good", 0)), soft_wrap=True)
    drawn = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "48;2;168;72;10mbad" in drawn  # strong, against
    assert "48;2;11;90;156mgood" in drawn
    assert "\\x1b" in drawn
    assert "\x1b[2J" not in drawn
