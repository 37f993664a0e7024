from pathlib import Path
from typing import Any

import pytest

from fullbake.core import storage
from fullbake.core.errors import OutputError
from fullbake.core.hashing import fingerprint
from fullbake.training import checkpoints
from fullbake.training.checkpoints import Cadence, Resume, folder_beside, open_run

FACTS: dict[str, Any] = {
    "recipe": {"training": {"epochs": 3}},
    "data": {"train": "a" * 64},
    "processes": 1,
    "versions": {"torch": "2.13.0"},
}


def opened(out: Path, facts: dict[str, Any] = FACTS, resume: Resume = "auto") -> checkpoints.Unfinished:
    """Open a run, and save something in it."""
    run = open_run(out, facts, Cadence(steps=5), resume, writes=True)
    (run.folder / "rate-1" / "step-000000005").mkdir(parents=True, exist_ok=True)
    return run


def test_a_run_that_saved_nothing_is_no_hindrance(tmp_path: Path) -> None:
    open_run(tmp_path / "m", FACTS, Cadence(steps=5), "auto", writes=True)
    assert opened(tmp_path / "m", changed(processes=2)).identity == fingerprint(changed(processes=2))


def changed(**changes: Any) -> dict[str, Any]:
    return {**FACTS, **changes}


def test_a_new_run_lies_beside_its_output(tmp_path: Path) -> None:
    run = opened(tmp_path / "m")
    assert run.folder == folder_beside(tmp_path / "m") == tmp_path / "m.unfinished"
    assert not (tmp_path / "m").exists()
    assert storage.read_json(run.folder / "run.json") == FACTS


def test_the_same_run_is_gone_on_with(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "m"), opened(tmp_path / "m")
    assert first.identity == second.identity == fingerprint(FACTS)


@pytest.mark.parametrize(
    ("now", "named"),
    [
        (changed(recipe={"training": {"epochs": 5}}), r"recipe\.training\.epochs: 3 there, 5 now"),
        (changed(data={"train": "b" * 64}), r"data\.train: a{12}\.\.\. there, b{12}\.\.\. now"),
        (changed(processes=2), "processes: 1 there, 2 now"),
        (changed(versions={"torch": "2.14.0"}), r"versions\.torch: 2\.13\.0 there, 2\.14\.0 now"),
    ],
    ids=["recipe", "data", "processes", "versions"],
)
def test_another_run_is_refused_naming_what_differs(tmp_path: Path, now: dict[str, Any], named: str) -> None:
    opened(tmp_path / "m")
    with pytest.raises(OutputError, match=named):
        opened(tmp_path / "m", now)


def test_anyway_goes_on_under_the_old_identity_and_says_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(tmp_path / "m")
    with caplog.at_level("WARNING", "fullbake"):
        assert opened(tmp_path / "m", changed(processes=2), resume="anyway").identity == first.identity
    assert "processes: 1 there, 2 now" in caplog.text


def test_restart_throws_it_away(tmp_path: Path) -> None:
    first = opened(tmp_path / "m")
    (first.folder / "rate-1" / "step-000000010").mkdir()
    again = opened(tmp_path / "m", changed(processes=2), resume="restart")
    assert again.identity == fingerprint(changed(processes=2))
    assert not (first.folder / "rate-1" / "step-000000010").exists()


def test_resume_refuses_to_start_anew(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no unfinished run"):
        opened(tmp_path / "m", resume="require")
    opened(tmp_path / "m")
    opened(tmp_path / "m", resume="require")


@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_damaged_description_is_refused(tmp_path: Path, content: str) -> None:
    run = opened(tmp_path / "m")
    (run.folder / "run.json").write_text(content)
    with pytest.raises(OutputError, match=r"damaged[\s\S]*--restart"):
        opened(tmp_path / "m")


def test_only_cleaning_is_left_where_the_bundle_is_this_run_s(tmp_path: Path) -> None:
    out = tmp_path / "m"
    run = opened(out)
    assert not checkpoints.is_saved(out)
    out.mkdir()
    storage.write_json(out / "fullbake.json", {"run": "of another"})
    assert not checkpoints.is_saved(out)
    storage.write_json(out / "fullbake.json", {"run": run.identity})
    assert checkpoints.is_saved(out)
    assert checkpoints.only_cleaning_left(out, FACTS)
    assert not checkpoints.only_cleaning_left(out, changed(processes=2))
    checkpoints.clean(out, writes=True)
    assert not run.folder.exists()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    open_run(tmp_path / "m", FACTS, Cadence(steps=5), "auto", writes=False).close()
    assert not list(tmp_path.iterdir())
