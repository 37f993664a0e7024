"""Threads follow the processors that are free, and a resumed run keeps its number."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullbake.core import processors, runtime
from fullbake.core.errors import RecipeError
from fullbake.core.processors import Processors


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore torch's number of threads, and let no variable of this machine decide."""
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """A machine of four processors, on which other processes keep `busy` of them busy; `samples` are counted."""
    state = {"busy": 0.0, "samples": 0}

    def measure() -> Processors:
        state["samples"] += 1
        return Processors(4, state["busy"])

    monkeypatch.setattr(processors, "measure", measure)
    monkeypatch.setattr(processors, "count_usable", lambda: 4)
    monkeypatch.setattr(processors, "_default_threads", lambda: 4)
    return state


@pytest.mark.parametrize(("text", "setting"), [("auto", "auto"), (" AUTO ", "auto"), ("1", 1), ("16", 16)])
def test_threads_are_a_number_or_auto(text: str, setting: int | str) -> None:
    assert processors.parse_threads(text) == setting


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "all", "2 threads", "²"])
def test_other_threads_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--threads"):
        processors.parse_threads(text)


@pytest.mark.parametrize(
    ("usable", "busy", "free"), [(2, 0, 2), (2, 0.4, 2), (2, 0.6, 1), (2, 1, 1), (2, 2, 1), (16, 3.2, 13), (1, 9, 1)]
)
def test_busy_processors_are_not_free(usable: int, busy: float, free: int) -> None:
    assert Processors(usable, busy).free == free


def test_all_processors_compute_where_none_is_busy(machine: dict[str, float], caplog: pytest.LogCaptureFixture) -> None:
    assert processors.use_threads("auto") == torch.get_num_threads() == 4
    assert caplog.messages == []


def test_busy_processors_are_left_out_and_a_line_says_why(
    machine: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    machine["busy"] = 2.9
    with caplog.at_level("INFO"):
        assert processors.use_threads("auto") == torch.get_num_threads() == 1
    assert "1 thread on 4 processors" in caplog.text
    assert "2.9" in caplog.text
    assert "--threads 4" in caplog.text


def test_a_resumed_run_keeps_its_number_and_measures_nothing(machine: dict[str, float]) -> None:
    assert processors.use_threads("auto", recorded=3) == torch.get_num_threads() == 3
    assert processors.use_threads(2, recorded=3) == torch.get_num_threads() == 2
    assert not machine["samples"]


def test_the_environment_and_launchers_decide_for_themselves(
    machine: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine["busy"] = 4
    torch.set_num_threads(2)
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        assert processors.use_threads("auto") == 2
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert processors.use_threads("auto") == 2
    assert processors.use_threads("auto") == 1


def test_more_threads_than_processors_are_warned_of(
    machine: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    assert processors.use_threads(5) == torch.get_num_threads() == 5
    assert "there are 4 processors" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/stat")
def test_another_process_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        try:
            seen = max(processors.measure().busy for _ in range(5))
        finally:
            child.kill()
    assert seen > 0.3


def test_a_first_sample_saves_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    now = [100.0]
    monkeypatch.setattr(processors.time, "monotonic", lambda: now[0])
    processors.measure(waits.append)
    assert waits == [processors.SAMPLE_SECONDS]
    for age, times in ((0.1, 2), (3.0, 2), (60.0, 3)):
        processors.begin_measuring()
        now[0] += age
        processors.measure(waits.append)
        assert len(waits) == times, age


SAMPLE = processors._Sample(0.0, 0.0, 0.0, 0.0)


@given(others=st.floats(0, 8), outside=st.floats(0, 8), own=st.floats(0, 4))
def test_the_quota_of_a_container_is_shared_within_it(others: float, outside: float, own: float) -> None:
    """Eight processors, of which the container may use two: processes outside count once they exceed the other six."""
    after = replace(SAMPLE, moment=1.0, machine=others + outside + own, group=others + own, own=own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processors, "_quota", lambda: 2.0)
        patch.setattr(runtime, "count_processors", lambda: 8)
        busy = processors._busy(SAMPLE, after)
    assert busy == pytest.approx(max(others, others + outside - 6))


def test_without_counts_the_load_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0), raising=False)
    unknown = replace(SAMPLE, machine=None)
    assert processors._busy(unknown, unknown) == 1.5
    monkeypatch.delattr(os, "getloadavg")
    assert processors._busy(unknown, unknown) == 0.0


def test_quotas_of_both_versions_of_control_groups_are_read(tmp_path: Path) -> None:
    assert processors._quota(tmp_path) is None
    assert processors._group_seconds(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpuacct").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpuacct" / "cpuacct.usage").write_text("2500000000\n")
    assert processors._quota(tmp_path) is None
    assert processors._group_seconds(tmp_path) == 2.5
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    assert processors._quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert processors._quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 3000000\nuser_usec 1\n")
    assert processors._quota(tmp_path) == 2.0
    assert processors._group_seconds(tmp_path) == 3.0


def test_a_quota_limits_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "count_processors", lambda: 8)
    for quota, usable in ((None, 8), (2.0, 2), (0.3, 1), (99.0, 8)):
        monkeypatch.setattr(processors, "_quota", lambda quota=quota: quota)
        assert processors.count_usable() == usable


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n", ("AVX-512 VNNI",)),
        ("flags : fpu avx2 avx_vnni amx_int8\n", ("AVX-VNNI", "AMX")),
        ("flags\t: fpu avx2 avx512f vmx_flags\n", ()),
        ("Features\t: fp asimd asimddp i8mm\n", ("ARM dot products", "ARM 8-bit matrix products")),
        ("cpu model : something else\n", None),
    ],
)
def test_instructions_for_8_bits_are_found(text: str, found: tuple[str, ...] | None, tmp_path: Path) -> None:
    shown = tmp_path / "cpuinfo"
    shown.write_text(text)
    assert processors.int8_instructions(shown) == found


def test_system_that_does_not_list_instructions_is_unknown(tmp_path: Path) -> None:
    assert processors.int8_instructions(tmp_path / "none") is None
