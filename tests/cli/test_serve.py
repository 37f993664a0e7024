"""The command `serve`: who is let in by which flags, and names of models."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fullbake.classifier import hub_bundles
from fullbake.serving import server

BUNDLE = Path(__file__).parents[1] / "fixtures" / "bundle_0_1_0"
KEY = "a-key-of-twenty-chars"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What servers were started with; none really is."""
    calls: list[dict[str, Any]] = []

    def note(app: Any, service: Any, address: Any, **given: Any) -> None:
        door = next(layer for layer in app.user_middleware if "rules" in layer.kwargs)
        calls.append({"service": service, "address": address, "rules": door.kwargs["rules"], **given})

    monkeypatch.setattr(server, "serve", note)
    return calls


def test_by_default_this_machine_alone_is_served(run, started):
    assert run("serve", BUNDLE)[0] == 0
    (call,) = started
    assert call["address"].host == "127.0.0.1"
    assert "*" not in call["rules"].hosts
    assert call["rules"].keys is None
    assert [source.name for source in call["service"].sources] == ["bundle_0_1_0"]
    assert call["grace"] == 30


def test_other_machines_need_a_key_or_a_clear_word(run, started, tmp_path: Path):
    code, _, error = run("serve", BUNDLE, "--host", "0.0.0.0")
    assert code == 2
    assert "--api-key-file" in error
    assert "--no-auth" in error
    code, _, error = run("serve", BUNDLE, "--host", "0.0.0.0", "--no-auth")
    assert code == 0
    assert "everybody who reaches 0.0.0.0" in error
    (tmp_path / "keys").write_text(KEY)
    assert run("serve", BUNDLE, "--host", "0.0.0.0", "--api-key-file", tmp_path / "keys")[0] == 0
    assert len(started) == 2
    assert started[0]["rules"].hosts >= {"localhost", "0.0.0.0"}
    assert started[1]["rules"].hosts == {"*"}, "who has a key may come under any name"
    assert started[1]["rules"].keys.accept(KEY)


def test_hosts_and_origins_are_taken_as_browsers_send_them(run, started):
    words = [
        "--allow-host",
        "Classify.example",
        "--allow-host",
        "[fe80::1]",
        "--allow-origin",
        "HTTPS://Example.org:8443",
    ]
    assert run("serve", BUNDLE, "--host", "[::1]", *words)[0] == 0
    (call,) = started
    assert call["address"].host == "::1"
    assert call["rules"].hosts >= {"classify.example", "[fe80::1]", "[::1]"}
    assert call["rules"].origins == {"https://example.org:8443"}
    assert run("serve", BUNDLE, "--allow-host", "*")[0] == 0
    assert "*" in started[1]["rules"].hosts


def test_models_have_the_names_that_are_given(run, started):
    assert run("serve", f"topics={BUNDLE}", f"other={BUNDLE}", "--timeout", "2s", "--max-texts", "7")[0] == 0
    service = started[0]["service"]
    assert [source.name for source in service.sources] == ["topics", "other"]
    assert (service.limits.timeout, service.limits.texts) == (2.0, 7)


def test_limits_have_flags_and_a_file_for_single_models(run, started, tmp_path: Path):
    (tmp_path / "limits.yaml").write_text("org/b: {max-texts: 3}")
    bundles = [f"a={BUNDLE}", f"org/b={BUNDLE}"]
    flags = ["--max-explained-words", "9", "--max-explained-characters", "99", "--max-connections", "50", "--log-texts"]
    assert run("serve", *bundles, *flags, "--limits", tmp_path / "limits.yaml")[0] == 0
    (call,) = started
    service = call["service"]
    assert (service.limits.explained_words, service.limits.explained_characters) == (9, 99)
    assert service.log_texts
    assert call["connections"] == 50
    first, second = service.sources
    assert first.limits is None
    assert (second.name, second.limits) == ("org/b", replace(service.limits, texts=3))


def test_bundle_of_the_hub_is_served_under_its_id(run, started, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub_bundles, "fetch_bundle", lambda repo, revision=None: BUNDLE)
    assert run("serve", "org/topics", "mine=org/topics")[0] == 0
    (call,) = started
    assert [source.name for source in call["service"].sources] == ["org/topics", "mine"]
    assert call["service"].sources[1].load().label_names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "serve needs a bundle"),
        ([BUNDLE, BUNDLE], "two bundles have the name"),
        ([BUNDLE, "--timeout", "soon"], "--timeout"),
        ([BUNDLE, "--max-texts", "0"], "--max-texts: this limit lets nothing in"),
        ([BUNDLE, "--max-connections", "0"], "--max-connections"),
        ([BUNDLE, "--limits", "missing"], "the file of limits cannot be read"),
        ([f"={BUNDLE}"], "a model needs a name"),
        ([f"a\nb={BUNDLE}"], "a model needs a name"),
        (["a="], "a model needs a name"),
        ([BUNDLE, "--api-key-file", "missing"], "cannot be read"),
        ([BUNDLE, "--allow-origin", "*"], "this is no origin"),
        ([BUNDLE, "--allow-origin", "example.org"], "such as https://example.org"),
        ([BUNDLE, "--allow-origin", "https://example.org/"], "this is no origin"),
        ([BUNDLE, "--allow-host", "https://example.org"], "this is no name of a host"),
        ([BUNDLE, "--allow-host", "example.org:8000"], "this is no name of a host"),
        ([BUNDLE, "--allow-host", "a,b"], "repeat the flag"),
    ],
)
def test_wrong_words_are_refused(words: list[Any], message: str, run, started):
    code, _, error = run("serve", *words)
    assert code == 2
    assert message in error
    assert not started
