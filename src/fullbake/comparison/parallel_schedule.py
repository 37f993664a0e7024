"""What several workers do next: the rules of `schedule`, while other trials run.

Pure arithmetic too. A running trial counts as finished when the rules are asked what is wanted, so that nobody begins
it again. What depends on its result waits: other seeds need the rate that the first one chooses, and work that trials
share is done once. Where what is wanted most has to wait, a worker takes what comes after it, if there is time for
both.

The time that trials take on w workers is bounded as for any schedule that leaves no worker idle (Graham 1966): all
seconds / w + the longest trial x (1 - 1/w). One worker gives the sum, as `schedule` has it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fullbake.comparison.schedule import (
    FIRST_SWEEP,
    NextTrial,
    Plan,
    Progress,
    Scheduler,
    Trial,
    TrialCosts,
    TrialGroup,
)


@dataclass(frozen=True)
class _CostsWithoutPrepared:
    """The forecast, as if the shared work that is being done were done."""

    costs: TrialCosts
    preparing: frozenset[str]

    def own(self, trial: Trial, *, searches: bool) -> float:
        return self.costs.own(trial, searches=searches)

    def shared(self, trial: Trial) -> Mapping[str, float]:
        return {key: seconds for key, seconds in self.costs.shared(trial).items() if key not in self.preparing}


@dataclass(frozen=True)
class ParallelSchedule:
    """The rules, over a plan, what is finished of it, what runs, and the newest forecast."""

    plan: Plan
    progress: Progress
    costs: TrialCosts
    workers: int
    running: Mapping[Trial, float] = field(default_factory=dict)
    """The expected seconds left of each trial that runs."""
    preparing: Mapping[str, float] = field(default_factory=dict)
    """The same of each piece of shared work that is being done, by key."""

    def next_step(self, left: float) -> NextTrial | None:
        """Return what a free worker does next, None if nothing is wanted, ready, and fits into the time left.

        A trial whose shared work is not done is returned too: that work is done first, by itself.

        Args:
            left: Seconds left for trials; infinity without a budget.
        """
        rules = self._rules()
        waiting: set[str] = set()
        ahead: list[Trial] = []
        for group in rules.groups(left):
            names = {trial.candidate for trial in group.trials}
            if names & waiting or self.span(rules, [*ahead, *group.trials]) * group.margin > left:
                continue
            ready = [trial for trial in rules.in_order(group.trials) if self._is_ready(trial)]
            if ready:
                return self._step(rules, ready[0], group, left)
            waiting |= names  # smaller sizes of what has to wait are no substitute for it
            ahead += group.trials
        return None

    def seconds_wanted(self) -> float:
        """Return the seconds until everything that was asked for is done, on all workers, with what runs."""
        return (self._rules().seconds_wanted() + self._busy) / self.workers

    def span(self, rules: Scheduler, trials: Iterable[Trial]) -> float:
        """Return the seconds until these trials are done, after what runs, on all workers."""
        trials, share = list(trials), 1 / self.workers
        longest = max((rules.seconds([trial]) for trial in trials), default=0.0)
        return (rules.seconds(trials) + self._busy) * share + longest * (1 - share)

    @property
    def _busy(self) -> float:
        """The seconds of all workers that what runs still takes."""
        return sum(self.running.values()) + sum(self.preparing.values())

    def _rules(self) -> Scheduler:
        """Return the rules, as if all that runs were finished."""
        finished = self.progress.finished | dict.fromkeys(self.running, 1.0)
        costs = _CostsWithoutPrepared(self.costs, frozenset(self.preparing))
        return Scheduler(self.plan, Progress(finished, self.progress.too_large), costs)

    def _is_ready(self, trial: Trial) -> bool:
        """Return True if nothing that runs has to end before this trial can begin."""
        if any(key in self.preparing for key in self.costs.shared(trial)):
            return False
        first = self.plan.by_name[trial.candidate].seeds[0]
        return trial.seed == first or replace(trial, seed=first) not in self.running

    def _step(self, rules: Scheduler, trial: Trial, group: TrialGroup, left: float) -> NextTrial:
        expected, reserve = rules.seconds([trial]), 0.0
        if group.sweep == FIRST_SWEEP:
            at_most = (left - expected * group.margin) * self.workers
            reserve = rules.reserve(trial, group.trials, at_most) / self.workers
        return NextTrial(trial, group.sweep, expected, rules.searches(trial), reserve)
