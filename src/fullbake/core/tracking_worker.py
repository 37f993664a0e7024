"""Hand what is recorded to the trackers, each on a thread of its own, so that the training never waits for one.

Points collect for a second and go to the tracker together. If they come faster than a tracker takes them, points of
steps are dropped, never epochs or scores. The first error of a tracker ends its part of the run with one line.

A journal beside the unfinished run keeps its id and the last step that each tracker has. A resumed run continues under
that id and leaves out the steps between its checkpoint and the kill, which were recorded before: their values are the
same bits.
"""

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from fullbake.core.console import say, warn
from fullbake.core.errors import DeadlinePassed, Interrupted
from fullbake.core.hashing import fingerprint
from fullbake.core.tracking import (
    Point,
    RunInfo,
    RunStatus,
    Setting,
    TrackedRun,
    Tracker,
    recorded_by,
)

TRACKING_FILE: Final = "tracking.json"
"""The name of the journal."""

BATCH_SECONDS: Final = 1.0
"""Points collect for so long."""

SETTLE_SECONDS: Final = 2.0
"""How long a checkpoint waits at most until the trackers have what was noted before it."""

CLOSE_SECONDS: Final = 60.0
"""How long the end of a run waits at most for each tracker."""

STOP_SECONDS: Final = 10.0
"""The same for a run that failed or was stopped."""

BUNDLE_SECONDS: Final = 600.0
"""The same where a tracker takes the files of the classifier."""

PATIENCE_SECONDS: Final = 3.0
"""A wait that takes longer than this is announced."""

MOST_POINTS: Final = 50_000
"""Points that wait for one tracker at most."""


class Journal:
    """The id of a run, and the last step of each value that each tracker has; kept in a file."""

    def __init__(self, place: Path | None, identity: str) -> None:
        """Read the journal of the run, or begin a new one.

        Args:
            place: The file; None keeps nothing.
            identity: Fingerprint of what the run is. A journal of another run is replaced.
        """
        self.place, self._identity, self._lock = place, identity, threading.Lock()
        known = _read_journal(place)
        self.resumed = known is not None and known.get("identity") == identity
        self.id: str = known["id"] if known is not None and self.resumed else secrets.token_hex(4)
        self._steps: dict[str, int] = known["steps"] if known is not None and self.resumed else {}
        self._finished: list[str] = known.get("finished", []) if known is not None and self.resumed else []
        self.known = dict(self._steps)
        """The steps that were recorded before this process."""
        self._write()

    @staticmethod
    def key(tracker: str, run: str, name: str) -> str:
        """Return the key of a value of a run in a tracker."""
        return f"{tracker} {run} {name}"

    def new_values(self, tracker: str, run: str, point: Point) -> Point | None:
        """Return the point without the values that an earlier process recorded; None if there are no others."""
        values = {
            name: value
            for name, value in point.values.items()
            if point.step > self.known.get(self.key(tracker, run, name), -1)
        }
        return replace(point, values=values) if values else None

    def note(self, tracker: str, run: str, points: Sequence[Point]) -> None:
        """Remember that a tracker has these points."""
        with self._lock:
            for point in points:
                for name in point.values:
                    key = self.key(tracker, run, name)
                    self._steps[key] = max(point.step, self._steps.get(key, -1))
            self._write()

    def is_finished(self, tracker: str, run: str) -> bool:
        """Return True if a tracker has all of a run, from now or before."""
        return f"{tracker} {run}" in self._finished

    def note_finished(self, tracker: str, run: str) -> None:
        """Remember that a tracker has all of a run."""
        with self._lock:
            self._finished.append(f"{tracker} {run}")
            self._write()

    def _write(self) -> None:
        if self.place is None:
            return
        known = {"id": self.id, "identity": self._identity, "steps": self._steps, "finished": self._finished}
        content = json.dumps(known)
        # Without it a resumed run is a new one to the trackers: no reason to end the training.
        with contextlib.suppress(OSError):
            fresh = self.place.with_name(f"{self.place.name}.new")
            fresh.write_text(content, "utf-8")
            os.replace(fresh, self.place)


def _read_journal(place: Path | None) -> dict[str, Any] | None:
    """Return the content of a journal; None if there is none that can be used."""
    if place is None:
        return None
    try:
        known = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(known, dict) and isinstance(known.get("id"), str) and isinstance(known.get("steps"), dict)
    return known if whole else None


@dataclass(frozen=True)
class _Event:
    """Something for a tracker to do with a run: a point, a run to open, or a call."""

    run: str
    point: Point | None = None
    opens: RunInfo | None = None
    call: Callable[[TrackedRun], None] | None = None
    finishes: bool = False
    """Whether the run is complete after the call."""
    done: threading.Event | None = None
    """Set when everything before it is done."""
    last: bool = False


class _Worker:
    """One tracker and its thread."""

    def __init__(self, tracker: Tracker, journal: Journal) -> None:
        self.tracker, self.journal = tracker, journal
        self.finished, self.failed, self.dropped = threading.Event(), False, 0
        self._queue: SimpleQueue[_Event] = SimpleQueue()
        self._hurry = threading.Event()
        self._runs: dict[str, TrackedRun] = {}
        threading.Thread(target=self._work, name=f"fullbake-track-{tracker.name}", daemon=True).start()

    def put(self, event: _Event) -> None:
        """Take an event. Points are dropped where too many wait."""
        if event.point is not None and self._queue.qsize() >= MOST_POINTS and not self.failed:
            self.dropped += 1
            return
        self._queue.put(event)

    def settle(self) -> None:
        """Wait until everything that was put is done, for SETTLE_SECONDS at most."""
        if self.failed:
            return
        done = threading.Event()
        self._hurry.set()
        self.put(_Event("", done=done))
        done.wait(SETTLE_SECONDS)

    def begin_to_end(self) -> None:
        """Take no more events after those that wait."""
        self._hurry.set()
        self.put(_Event("", last=True))

    def _work(self) -> None:
        going = True
        while going:
            events = [self._queue.get()]
            self._hurry.wait(BATCH_SECONDS)
            self._hurry.clear()
            with contextlib.suppress(Empty):
                while True:
                    events.append(self._queue.get_nowait())
            going = not any(event.last for event in events)
            self._handle_all(events)
        self.finished.set()

    def _handle_all(self, events: Sequence[_Event]) -> None:
        """Do what the events ask for, with the neighboring points of a run together."""
        for (run, are_points), group in groupby(events, key=lambda event: (event.run, event.point is not None)):
            if are_points:
                points = [event.point for event in group if event.point is not None]
                self._try(partial(self._log, run, points))
                continue
            for event in group:
                self._try(partial(self._handle, event))
                if event.done is not None:
                    event.done.set()

    def _handle(self, event: _Event) -> None:
        if event.opens is not None:
            self._open(event.opens)
        if event.call is not None:
            event.call(self._runs[event.run])
        if event.finishes:
            self.journal.note_finished(self.tracker.name, event.run)

    def _open(self, info: RunInfo) -> None:
        opened = self._runs[info.id] = self.tracker.open_run(info)
        if info.parent is None:
            say(f"{self.tracker.name} records this run: {opened.where}", aloud=True)

    def _log(self, run: str, points: Sequence[Point]) -> None:
        fresh = [new for point in points if (new := self.journal.new_values(self.tracker.name, run, point))]
        if fresh:
            self._runs[run].log(fresh)
            self.journal.note(self.tracker.name, run, fresh)

    def _try(self, act: Callable[[], None]) -> None:
        """Do something, unless the tracker has failed. Its first error is its last."""
        if self.failed:
            return
        try:
            act()
        except BaseException as error:  # wandb raises SystemExit, for one
            self.failed = True
            words = " ".join(str(error).split())[:300]
            warn(
                f"{self.tracker.name} failed and records no more of this run, which continues without it: "
                f"{type(error).__name__}{f': {words}' if words else ''}"
            )


class Recorder:
    """Takes the notes of one run, and hands them to the threads of all trackers."""

    def __init__(self, info: RunInfo, workers: Sequence[_Worker], *, of_children: bool = False) -> None:
        """Open the run.

        Args:
            info: What it is.
            workers: The threads of the trackers.
            of_children: Only its children take the notes of trainings.
        """
        self.info, self._workers, self._of_children = info, workers, of_children
        self.has_bundle = False
        self._put(opens=info)

    def _put(self, **event: Any) -> None:
        for worker in self._workers:
            worker.put(_Event(self.info.id, **event))

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Take values of a step."""
        if not self._of_children:
            self._put(point=Point(step, values, time.time()))

    def settle(self) -> None:
        """Hand what was noted to the trackers, for SETTLE_SECONDS each at most."""
        for worker in self._workers:
            worker.settle()

    def open_child(self, name: str, settings: Mapping[str, Setting]) -> "Recorder":
        """Open a run that belongs to this one. Its id follows from its name, so that a resumed run finds it."""
        info = RunInfo(self._child_id(name), name, settings, self.info.resumed, parent=self.info.id)
        return Recorder(info, self._workers)

    def has_child(self, name: str) -> bool:
        """Return True if a run of this name below this one was finished before."""
        child = self._child_id(name)
        return all(worker.journal.is_finished(worker.tracker.name, child) for worker in self._workers)

    def _child_id(self, name: str) -> str:
        return f"{self.info.id}-{fingerprint(name)[:6]}"

    def scores(self, scores: Mapping[str, float]) -> None:
        """Take the final scores."""
        self._put(call=lambda run: run.log_scores(scores))

    def bundle(self, folder: Path) -> None:
        """Take the files of the finished classifier. They must stay until the run is closed."""
        self.has_bundle = True
        self._put(call=lambda run: run.log_bundle(folder))

    def close(self, status: RunStatus) -> None:
        """End this run."""

        self._put(call=lambda run: run.close(status), finishes=status == "finished")


@contextmanager
def tracked_run(
    trackers: Sequence[Tracker],
    name: str,
    settings: Mapping[str, Setting],
    *,
    place: Path | None = None,
    identity: str = "",
    of_children: bool = False,
) -> Iterator[Recorder | None]:
    """Within the block, record all trainings into one run of each tracker.

    Args:
        trackers: Empty records nothing.
        name: What people call the run.
        settings: The fields of the recipe, and facts of the run.
        place: The journal of the run; None where nothing can be resumed.
        identity: Fingerprint of what the run is.
        of_children: Only runs below this one take the notes of trainings (`tracking.child_run`).

    Yields:
        What takes the scores and the bundle at the end; None where nothing is recorded.
    """
    if not trackers:
        yield None
        return
    journal = Journal(place, identity)
    workers = [_Worker(tracker, journal) for tracker in trackers]
    info = RunInfo(f"{_plain(name)}-{journal.id}", name, settings, journal.resumed)
    recorder = Recorder(info, workers, of_children=of_children)
    status: RunStatus = "failed"
    try:
        with recorded_by(recorder):
            yield recorder
        status = "finished"
    except (Interrupted, DeadlinePassed, KeyboardInterrupt):
        status = "stopped"
        raise
    finally:
        recorder.close(status)
        _end(
            workers, STOP_SECONDS if status != "finished" else BUNDLE_SECONDS if recorder.has_bundle else CLOSE_SECONDS
        )


def _plain(name: str) -> str:
    """Return a name in the letters that ids and folders of all trackers take."""
    letters = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
    return letters.strip("-")[:60] or "run"


def _end(workers: Sequence[_Worker], limit: float) -> None:
    """Wait until the trackers have everything, but not longer than `limit` seconds, nor past a Ctrl-C."""
    for worker in workers:
        worker.begin_to_end()
    until = time.monotonic() + limit
    for worker in workers:
        name = worker.tracker.name
        try:
            if not worker.finished.wait(min(PATIENCE_SECONDS, limit)):
                say(f"waiting until {name} has everything, up to {limit:.0f} s; Ctrl-C ends the wait", aloud=True)
                worker.finished.wait(max(0.0, until - time.monotonic()))
        except KeyboardInterrupt:
            warn(f"the wait for {name} was ended: the last values of this run may be missing there")
            continue
        if not worker.finished.is_set():
            warn(f"{name} did not take everything within {limit:.0f} s: the last values may be missing there")
        elif worker.dropped and not worker.failed:
            warn(f"{name} was too slow: {worker.dropped:,} of the steps of this run are not in it")
