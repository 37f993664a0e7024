"""The report holds every part, is JSON, and works where nothing heavy is installed."""

import json
from pathlib import Path
from typing import Any

import pytest

from fullbake.core import doctor, machine
from fullbake.core.errors import BundleError
from fullbake.core.storage import write_json

LIGHT: dict[str, Any] = {
    "processor": {"usable": 2},
    "torch": {"installed": False},
    "memory": {"available": None},
    "settings": {},
    "caches": [],
    "libraries": [],
    "bundle": None,
}


def folder(**changes: Any) -> dict[str, Any]:
    return {"name": "models", "path": "/cache", "writable": True, "free": 10**12} | changes


def test_report_is_json_and_whole(tmp_path: Path) -> None:
    report = doctor.examine_installation(cache_dir=tmp_path)
    assert json.loads(json.dumps(report)) == report
    assert report["hub"]["state"] == "offline"
    assert report["torch"]["installed"]
    assert list(tmp_path.iterdir()) == []
    assert set(LIGHT) < set(report)


def wrong(**changes: Any) -> list[tuple[str, str]]:
    report = LIGHT | changes
    found = [*doctor._machine_problems(report), *doctor._bundle_problems(report)]
    return [(problem.severity, problem.what) for problem in found]


def test_nothing_is_wrong_with_a_light_installation() -> None:
    assert wrong() == []


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"torch": {"installed": True, "error": "OSError: libgomp"}}, "error", "torch does not work: OSError: libgomp"),
        ({"settings": {"OMP_NUM_THREADS": "64"}}, "warning", "OMP_NUM_THREADS is 64, but 2"),
        ({"caches": [folder(writable=False)]}, "warning", "/cache cannot be written to"),
        ({"caches": [folder(free=10**6)]}, "warning", "only 1.0 MB free"),
        ({"memory": {"available": 10**8}}, "warning", "only 100.0 MB of main memory"),
        ({"bundle": {"path": "b", "graph": True}}, "error", "b has a graph, but onnxruntime"),
        ({"bundle": {"path": "b", "graph": False}}, "error", "b has no graph, and torch and transformers are missing"),
    ],
)
def test_problems_of_machine_and_bundle(changes: dict[str, Any], severity: str, words: str) -> None:
    ((got, what),) = wrong(**changes)
    assert got == severity
    assert words in what


@pytest.mark.parametrize(("cuda", "words"), [(None, "computes on the CPU only"), ("13.0", "finds no GPU")])
def test_unused_gpu_is_said(monkeypatch: pytest.MonkeyPatch, cuda: str | None, words: str) -> None:
    monkeypatch.setattr(machine, "has_nvidia_driver", lambda: True)
    ((severity, what),) = wrong(torch={"installed": True, "device": "cpu", "cuda": cuda})
    assert severity == "warning"
    assert words in what


def test_facts_of_a_bundle(tmp_path: Path) -> None:
    write_json(
        tmp_path / "fullbake.json", {"label_names": ["a"], "files": {"model.onnx": ""}, "versions": {"torch": "2"}}
    )
    assert doctor._bundle_facts(tmp_path) == {
        "path": str(tmp_path),
        "graph": True,
        "int8": False,
        "versions": {"torch": "2"},
    }


def test_a_cascade_needs_what_both_of_its_bundles_need(tmp_path: Path) -> None:
    write_json(tmp_path / "cascade.json", {})
    for name, files in (("student", {"model.onnx": ""}), ("teacher", {})):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "fullbake.json", {"label_names": ["a"], "files": files})
    assert not doctor._bundle_facts(tmp_path)["graph"]


@pytest.mark.parametrize("content", [None, "{}", "[", "[1]"])
def test_no_bundle_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "fullbake.json").write_text(content)
    with pytest.raises(BundleError):
        doctor.examine_installation(tmp_path)
