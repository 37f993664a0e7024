"""Run the trials of a comparison on several workers, in the order of the schedule.

`runner` keeps the results, the store and the forecast; this loop gives every free worker what the schedule wants next,
and takes what comes back, in any order. A trial that is finished is stored at once, so that the same command continues
wherever it was stopped.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fullbake.comparison.cache_entries import install_entries
from fullbake.comparison.executors import Executor, Returned
from fullbake.comparison.packing import Assignment, Outcome, WorkPackage, read_outcome
from fullbake.comparison.parallel_schedule import ParallelSchedule
from fullbake.comparison.recorded_trials import record_finished
from fullbake.comparison.runner import Runner, Spent
from fullbake.comparison.schedule import NextTrial, Trial
from fullbake.comparison.trial import failed_trial
from fullbake.comparison.worker import machine_name
from fullbake.core.errors import Fault, SpaceFault
from fullbake.core.ray_cluster import require_equal_versions

WAIT_SECONDS: Final = 2.0
"""How often the table is brought up to date."""

MOST_SHOWN: Final = 4
"""At most so many running trials are named."""

GRACE_SECONDS: Final = 30.0
"""A worker that does not end this long after the time was up is given up."""


@dataclass
class _Running:
    """What a worker does."""

    assignment: Assignment
    began: float
    """When it was submitted, on the runner's clock."""
    share: float = 0.0
    """Share of the steps of its current training that is done, as its worker says."""

    def left(self, now: float) -> float:
        """Return the seconds that it is expected to take from now on.

        What takes longer than expected goes by the share of its steps that is done.
        """
        expected = (
            sum(self.assignment.task.shared.values()) if self.assignment.prepares else self.assignment.step.expected
        )
        elapsed = now - self.began
        return max(expected - elapsed, (1 - self.share) * elapsed if self.share else 0.0)


class Dispatcher:
    """Runs the trials of a runner's plan on an executor."""

    def __init__(
        self,
        runner: Runner,
        executor: Executor,
        package: WorkPackage,
        *,
        threads: int,
        shares_out: bool = True,
        sends_entries: bool = False,
    ) -> None:
        """Prepare to run.

        Args:
            runner: Keeps the results.
            executor: Does the work.
            package: What the executor was given, to check what comes back.
            threads: Threads of each trial.
            shares_out: The workers see the comparison's folder, so that they can write checkpoints there.
            sends_entries: The workers share no cache: entries go through this process.
        """
        self.runner, self.executor, self.package, self.threads = runner, executor, package, threads
        self.shares_out, self.sends_entries = shares_out, sends_entries
        self._running: dict[str, _Running] = {}
        self._sweep: str | None = None

    def run(self) -> None:
        """Run all trials that fit. The results are those of the runner."""
        self.runner.read_finished()
        while True:
            while len(self._running) < self.executor.workers and (step := self._next_step()) is not None:
                if self._verdict_comes_first(step):
                    break
                self._submit(step)
            if not self._running:
                if self._next_step() is None:
                    break
                continue
            for returned in self.executor.wait(WAIT_SECONDS):
                self._take(returned)
            self._end_late()
            self._show()
        self.runner.end()

    # What is next

    def _next_step(self) -> NextTrial | None:
        return self._schedule().next_step(self.runner.seconds_left)

    def _schedule(self) -> ParallelSchedule:
        runner, now = self.runner, self.runner.functions.clock()
        running: dict[Trial, float] = {}
        preparing: dict[str, float] = {}
        for one in self._running.values():
            if one.assignment.prepares:
                keys = one.assignment.task.shared
                preparing |= dict.fromkeys(keys, one.left(now) / max(len(keys), 1))
            else:
                running[one.assignment.task.trial] = one.left(now)
        return ParallelSchedule(
            runner.plan, runner.progress, runner.forecast, self.executor.workers, running, preparing
        )

    def _verdict_comes_first(self, step: NextTrial) -> bool:
        """Write the verdict between two sweeps, if it is time for one and nothing of the earlier sweep runs."""
        if self._sweep not in (None, step.sweep) and self.runner.verdict_is_due():
            if any(one.assignment.step.sweep == self._sweep for one in self._running.values()):
                return True
            self.runner.write_verdict()
            self._sweep = None  # the time that was taken may change what comes next
            return True
        self._sweep = step.sweep
        return False

    def _submit(self, step: NextTrial) -> None:
        runner, trial = self.runner, step.trial
        task = runner.task(trial, searches=step.searches)
        prepares = bool(task.shared)
        if not self.shares_out:
            task = task.without_checkpoints()
        left = runner.seconds_left
        assignment = Assignment(
            task=task,
            step=step,
            threads=runner.recorded_threads(trial) or self.threads,
            left=None if math.isinf(left) else left,
            scoring=runner.forecast.scoring(trial),
            closing=runner.closing,
            prepares=prepares,
            keep_from=runner.best_value(trial),
            needs=list(runner.forecast.plain_shared(trial)),
            sends_entries=self.sends_entries and prepares,
        )
        runner.say_smaller(trial)
        self._running[assignment.id] = _Running(assignment, runner.functions.clock())
        self.executor.submit(assignment)
        self._show()

    # What came back

    def _take(self, returned: Returned) -> None:
        running = self._running.pop(returned.id, None)
        if running is None:  # it was given up, or came twice
            return
        assignment = running.assignment
        if returned.data is None:
            raise Fault(
                "a trial's worker died, again and again",
                where=f"{assignment.id} on {returned.machine}",
                got=returned.reason,
                remedy="What is finished is kept: the same command continues. For lack of memory, pass fewer --jobs.",
            )
        outcome = read_outcome(returned.data, assignment, self.package)
        require_equal_versions(outcome.versions, outcome.machine)
        for keys, seconds in outcome.learned:
            self.runner.learn_shared(assignment.task.trial, keys, seconds)
        if outcome.entries:
            install_entries(outcome.entries, self.package.facts["cache_dir"])
        if outcome.error is not None:
            self._take_error(assignment, outcome, outcome.error)
        elif outcome.gave_up is not None:
            self._give_up(assignment, outcome, outcome.gave_up)
        elif not assignment.prepares:
            self._keep(assignment, outcome)

    def _take_error(self, assignment: Assignment, outcome: Outcome, error: Mapping[str, str]) -> None:
        """Shared work that failed makes its trial fail, as it does in one process; all else ends the comparison."""
        where, what, remedy = f"{assignment.id} on {outcome.machine}", str(error["what"]), error.get("remedy") or None
        if error["kind"] == "space":
            raise SpaceFault(what, where=where, remedy=remedy)
        if not assignment.prepares:
            raise Fault(what, where=where, remedy=remedy)
        trial = assignment.task.trial
        self._keep(assignment, Outcome(outcome.machine, failed_trial(what, trial.seed), elapsed=outcome.elapsed))

    def _keep(self, assignment: Assignment, outcome: Outcome) -> None:
        """Store a finished trial and learn from it."""
        runner, trial, result = self.runner, assignment.task.trial, outcome.result
        assert result is not None
        runner.store_trained(trial, result, outcome.weights)
        if outcome.predictions is not None:
            runner.keep_predictions(trial, outcome.predictions)
        runner.learn_own(assignment.step, result, _spent(outcome))
        runner.keep(trial, result)
        candidate, predictions = runner.settings.candidates[trial.candidate], outcome.predictions
        record_finished(candidate, trial, result, predictions, self.package.folds[trial.fold or 0].test)
        where = "" if outcome.machine == machine_name() else f" on {outcome.machine}"
        runner.show(trial, f"{result.seconds:.1f} s{where}", result.restarts)

    def _give_up(self, assignment: Assignment, outcome: Outcome, reason: str) -> None:
        self.runner.give_up(assignment.step, _spent(outcome), f"{reason} ({outcome.machine})")

    def _end_late(self) -> None:
        """Give up what still runs long after the time was up: its worker hangs."""
        late = -self.runner.seconds_left - self.runner.closing - GRACE_SECONDS
        if math.isinf(late) or late < 0:
            return
        for name, running in list(self._running.items()):
            self.executor.cancel(name)
            del self._running[name]
            seconds = self.runner.functions.clock() - running.began
            outcome = Outcome("its worker", elapsed=seconds)
            self._give_up(running.assignment, outcome, "it did not end in time")

    def _show(self) -> None:
        """Show what runs, where, and how far it is."""
        progress, now = self.executor.progress(), self.runner.functions.clock()
        words = []
        for name, running in self._running.items():
            found = progress.get(name)
            running.share = found.share if found is not None else 0.0
            share = f" {running.share:.0%}" if running.share else ""
            words.append(f"{name}{share}{f' on {found.machine}' if found else ''}")
        left = max((one.left(now) for one in self._running.values()), default=0.0)
        after = self.runner.seconds_after(left, self._schedule().seconds_wanted() - left)
        more = f", and {len(words) - MOST_SHOWN} more" if len(words) > MOST_SHOWN else ""
        self.runner.table.begin(f"{', '.join(words[:MOST_SHOWN])}{more}", left, after)


def _spent(outcome: Outcome) -> Spent:
    return Spent(outcome.elapsed, outcome.shared_seconds, outcome.slower, outcome.part)
