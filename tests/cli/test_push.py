"""The command `push` lists first, asks, and sends nothing without consent."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.commands import Run, refusal
from helpers.hub import Hub, serve_hub, use_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as running:
        use_hub(running, tmp_path / "cache", monkeypatch)
        monkeypatch.chdir(tmp_path)
        yield running


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_consent_is_a_flag(hub: Hub, run: Run, graph_bundles: Callable[..., Path]) -> None:
    bundle = graph_bundles("bert")
    assert "--dry-run, then pass --yes" in refusal(run, "push", bundle, "org/reviews")
    code, out, _ = run("push", bundle, "org/reviews", "--dry-run")
    assert code == 0
    for words in ("model.safetensors", "stays here: seen.safetensors", "is new and will be private", "no license"):
        assert words in out
    assert "model-index" in out
    assert "Nothing was sent" in out
    assert hub.repos == {}
    code, out, _ = run("push", bundle, "org/reviews", "--yes", "--license", "mit", "--public", "--tag", "food")
    assert code == 0
    assert f"pushed: {hub.url}/org/reviews" in out
    assert "public: everybody can read it" in out
    assert not hub.repos["org/reviews"].private


def test_a_pushed_bundle_is_used_by_its_id(
    hub: Hub, run: Run, graph_bundles: Callable[..., Path], tmp_path: Path
) -> None:
    run("push", graph_bundles("bert"), "org/reviews", "--yes")
    code, out, error = run("predict", "org/reviews", "food and water")
    assert code == 0, error
    assert "food and water" in out
    (tmp_path / "rows.csv").write_text("text,label\nfood and water,food\na game,game\nthe bank,money\n")
    code, out, error = run("evaluate", "org/reviews", "rows.csv")
    assert code == 0, error
    assert "whether rows were trained on is not known" in error


@pytest.mark.parametrize(("answer", "sent"), [("y", True), ("", False), ("no", False)])
def test_on_a_terminal_it_asks(
    hub: Hub,
    run: Run,
    graph_bundles: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    sent: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"apache-2.0\n{answer}\n"))
    code, out, _ = run("push", graph_bundles("bert"), "org/reviews")
    assert code == 0
    assert ("org/reviews" in hub.repos) is sent
    if sent:
        assert b"license: apache-2.0" in hub.repos["org/reviews"].files["README.md"]
    else:
        assert "Nothing was sent." in out
