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
    code, out, error = run("explain", "org/reviews", "food and water")
    assert code == 0, error
    assert "water" in out


DATA = ("--data", "rows.csv", "--out", "o")


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "org/none", "a text"),
        ("evaluate", "org/none", "rows.csv"),
        ("explain", "org/none", "a text"),
        ("bench", "org/none"),
        ("distill", "org/none", *DATA),
        ("cascade", "org/none", "org/other", *DATA),
    ],
    ids=lambda words: words[0],
)
def test_commands_that_read_a_bundle_ask_the_hub_for_it(hub: Hub, run: Run, words: tuple[str, ...]) -> None:
    Path("rows.csv").write_text("text,label\nfood and water,food\n")
    assert "nor such a repository on the hub" in refusal(run, *words)
    assert any("org/none" in request for request in hub.requests)


@pytest.mark.parametrize("trouble", ["no network", "an error of the hub"])
def test_a_dry_run_lists_without_an_answer_of_the_hub(
    hub: Hub, run: Run, graph_bundles: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "no network":
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    else:
        hub.broken = True
    code, out, error = run("push", graph_bundles("bert"), "org/reviews", "--dry-run")
    assert code == 0, error
    for words in ("model.safetensors", "not known (the hub", "If it is new, it will be private", "Nothing was sent"):
        assert words in " ".join(out.split())
    assert refusal(run, "push", graph_bundles("bert"), "org/reviews", "--yes")


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
