"""Comparisons in made-up worlds with a clock of their own, where forecasts are wrong and the machine changes its speed.

Nothing is trained: a trial is some seconds of work that passes in steps. `schedule.Scheduler` decides what is done.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fullbake.comparison.forecast import Corrections
from fullbake.comparison.schedule import NextTrial, Plan, PlannedRecipe, Progress, Scheduler, Size, Trial, Watch

NAMES = (
    "finetune",
    "frozen-mlp",
    "frozen-linear",
    "further-finetune",
    "further-frozen-mlp",
    "further-frozen-linear",
    "majority",
    "tfidf",
)
CLOSING = 0.01
"""Share of the budget that the verdict and the page take."""


def way_of(name: str) -> str:
    """Return the way of one of NAMES."""
    if name.startswith("further"):
        return "further"
    return "baseline" if name in ("majority", "tfidf") else name.partition("-")[0]


@dataclass
class World:
    """What is true of a machine and its data, and what the forecast believes."""

    names: tuple[str, ...]
    seeds: int
    folds: int | None
    budgets: tuple[float | None, ...]
    """Seconds of each call."""
    epoch: float
    """Seconds that an epoch of fine-tuning takes by the forecast."""
    passing: float
    """Seconds of a pass of the base over all rows by the forecast."""
    head: float
    """Seconds of training a head by the forecast."""
    passes: float
    """How many passes over the rows further pretraining has."""
    row_shares: tuple[float, ...]
    wrong: Mapping[str, float]
    """How many times its forecast each recipe takes; `stage` is further pretraining."""
    slower: float
    """How many times slower the machine is after `changes_at`."""
    changes_at: float
    """Seconds after which its speed changes, over all calls."""
    killed_after: float | None = None
    """Share of the first call after which it is killed; None if it is not."""

    def plan(self) -> Plan:
        """Return what is asked for."""
        lengths = [share for share in (1.0, 0.3, 0.1, 0.03) if share * self.passes > 1]
        short = [share / self.passes for share in (1.0, 0.5, 0.25, 0.125) if share / self.passes <= 1]
        pretraining = tuple(dict.fromkeys([1.0, *lengths, *short]))
        recipes = [
            PlannedRecipe(
                name,
                way_of(name),  # type: ignore[arg-type]
                (0,) if way_of(name) == "baseline" or name.endswith("linear") else tuple(range(self.seeds)),
                "tapt" if way_of(name) == "further" else None,
                pretraining if way_of(name) == "further" else (1.0,),
                min(1 / self.passes, 1.0),
                (1.0, 0.5, 0.25) if name.endswith("finetune") else (1.0,),
            )
            for name in self.names
        ]
        return Plan(tuple(recipes), self.row_shares, self.folds)


@dataclass
class BeliefCosts:
    """The forecast of a world: `schedule.TrialCosts`, corrected by what trials took."""

    world: World
    corrections: Corrections = field(default_factory=Corrections)
    prepared: set[str] = field(default_factory=set)

    def plain(self, trial: Trial, *, searches: bool) -> float:
        """Return the seconds of a trial's own work before any correction."""
        world, name = self.world, trial.candidate
        if way_of(name) == "baseline":
            return 0.05 + 0.1 * world.head * trial.size.rows
        search = 1.25 if searches else 1.0
        if name.endswith("finetune"):
            return 0.3 + search * 3 * world.epoch * trial.size.rows * trial.size.epochs + 0.2 * world.passing
        return 0.2 + search * world.head * trial.size.rows

    def plain_shared(self, trial: Trial) -> dict[str, float]:
        """Return the seconds of the work that it shares, by key, before any correction."""
        world, size, seconds = self.world, trial.size, dict[str, float]()
        stage = ""
        if way_of(trial.candidate) == "further":
            stage = f"stage {size.pretraining} {size.rows} {trial.fold}"
            seconds[stage] = 1.5 * world.epoch * world.passes * size.pretraining * size.rows
        if "frozen" in trial.candidate:
            rows = 0.3 + 0.7 * size.rows
            fold = trial.fold if stage or size.rows < 1 else None
            seconds[f"features {stage} {size.rows} {fold}"] = world.passing * rows
        return seconds

    def own(self, trial: Trial, *, searches: bool) -> float:
        """Return the seconds of training and scoring a trial."""
        return self.plain(trial, searches=searches) * self.corrections.factor(trial.candidate)

    def shared(self, trial: Trial) -> Mapping[str, float]:
        """Return the seconds of the shared work that is not done yet, by key."""
        return {
            key: seconds * self.corrections.factor(key.split()[0])
            for key, seconds in self.plain_shared(trial).items()
            if key not in self.prepared
        }


@dataclass(frozen=True)
class End:
    """The end of a call."""

    budget: float | None
    used: float
    """Seconds."""
    cheapest_wanted: float | None
    """Seconds of the cheapest work that was still wanted, by the forecast; None if all was done."""
    tick: float
    """The longest stretch of work that could not be interrupted."""


@dataclass
class Run:
    """A comparison of one or more calls in a world. Its results are what the tests look at."""

    world: World
    now: float = 0.0
    progress: Progress = field(default_factory=Progress)
    steps: list[tuple[int, NextTrial]] = field(default_factory=list)
    """(call, step) of everything that was begun."""
    ends: list["End"] = field(default_factory=list)
    """How each call ended that was not killed."""
    shown: list[tuple[float, float]] = field(default_factory=list)
    """How much the time left that is shown rose, and by how much the forecast of what is left rose, at each step."""
    order: list[tuple[Trial, float]] = field(default_factory=list)
    """Every trial that gave a result, in order, with the share of its training that was done."""
    prepared: set[str] = field(default_factory=set)
    tick: float = 0.0

    def go(self) -> "Run":
        """Run all calls."""
        for number, budget in enumerate(self.world.budgets):
            killed = self.world.killed_after is not None and number == 0 and budget is not None
            stop = self.now + (self.world.killed_after or 0) * (budget or 0) if killed else math.inf
            self._call(number, budget, stop)
        return self

    def schedule(self, costs: BeliefCosts) -> Scheduler:
        """Return the rules over what is there now."""
        return Scheduler(self.world.plan(), self.progress, costs)

    def _call(self, number: int, budget: float | None, killed_at: float) -> None:
        started = self.now
        self.progress.too_large.clear()
        self.tick = 0.0
        costs = BeliefCosts(self.world, prepared=self.prepared)
        closing = 0.0 if budget is None else CLOSING * budget
        end = math.inf if budget is None else started + budget - closing
        last_shown: float | None = None
        wanted = self.schedule(costs).seconds_wanted()
        while (step := self.schedule(costs).next_step(end - self.now)) is not None:
            assert len(self.steps) < 3000, "it does not end"
            began = self.now
            before = self.schedule(costs).seconds_wanted()
            shown = min(before, end - self.now)
            if last_shown is not None:
                self.shown.append((shown - last_shown, max(before - wanted, 0.0)))
            self.steps.append((number, step))
            self._trial(step, costs, end - self.now)
            if self.now > killed_at:
                return
            # the time left that is shown just before the next look: the countdown of this trial has gone on
            rest = max(before - step.expected, 0.0)
            last_shown = min(rest + max(step.expected - (self.now - began), 0.0), end - self.now)
            wanted = rest
        self.now += closing * self._pace()
        cheapest = self.schedule(costs).cheapest_wanted()
        self.ends.append(End(budget, self.now - started, cheapest, self.tick))

    def _pace(self) -> float:
        return self.world.slower if self.now >= self.world.changes_at else 1.0

    def _trial(self, step: NextTrial, costs: BeliefCosts, left: float) -> None:
        """Spend the trial's time in ticks, and note what came of it."""
        trial = step.trial
        plain = costs.plain(trial, searches=step.searches)
        own = costs.own(trial, searches=step.searches)
        watch = Watch(step, left, 0.05 * own, lambda: self.now)
        expected = costs.shared(trial)
        for key, seconds in costs.plain_shared(trial).items():
            if key not in self.prepared:
                group = key.split()[0]
                watch.begin(expected[key], encoder=True)
                share, spent = self._spend(seconds * self.world.wrong[group], 1000, watch)
                costs.corrections.record(group, spent / seconds / share, encoder=True)
                if share < 1:
                    self.progress.too_large.setdefault(trial.candidate, []).append(trial.size)
                    return
                self.prepared.add(key)
        epochs = max(round(3 * trial.size.epochs), 1) if trial.candidate.endswith("finetune") else 10
        watch.begin(own, encoder=trial.candidate.endswith("finetune"))
        share, spent = self._spend(plain * self.world.wrong[trial.candidate], 40 * epochs, watch)
        costs.corrections.record(trial.candidate, spent / plain / share, encoder=trial.candidate.endswith("finetune"))
        validated = math.floor(share * epochs + 1e-9) / epochs
        if not validated:
            self.progress.too_large.setdefault(trial.candidate, []).append(trial.size)
            return
        self.order.append((trial, validated))
        self.progress.finished[trial] = max(validated, self.progress.finished.get(trial, 0.0))

    def _spend(self, seconds: float, ticks: int, watch: Watch) -> tuple[float, float]:
        """Work in ticks until it is done or the time is up. Return (share done, seconds spent)."""
        start = self.now
        for tick in range(ticks):
            length = seconds / ticks * self._pace()
            self.tick = max(self.tick, length)
            self.now += length
            watch.note((tick + 1) / ticks)
            if tick < ticks - 1 and watch.time_is_up():
                return (tick + 1) / ticks, self.now - start
        return 1.0, self.now - start


def smallest_sweep_in_truth(world: World) -> float:
    """Return the seconds that the smallest first sweep really takes on the machine at its slowest.

    Of each way the dearest recipe counts, as the forecast may take any of them for the cheapest.
    """
    plan, costs = world.plan(), BeliefCosts(world)

    def seconds(names: list[str]) -> float:
        own, shared = 0.0, dict[str, float]()
        for name in names:
            one = plan.by_name[name]
            for trial in plan.trials(name, Size(plan.row_shares[-1], one.pretraining[-1], one.epochs[-1])):
                own += costs.plain(trial, searches=True) * world.wrong[name]
                shared |= {key: cost * world.wrong[key.split()[0]] for key, cost in costs.plain_shared(trial).items()}
        return own + sum(shared.values())

    ways = {way_of(name) for name in world.names} - {"baseline"}
    dearest = [
        max((name for name in world.names if way_of(name) == way), key=lambda name: seconds([name])) for way in ways
    ]
    baselines = [name for name in world.names if way_of(name) == "baseline"]
    return seconds([*dearest, *baselines]) * max(world.slower, 1.0)


def draw_world(random: np.random.Generator) -> World:
    """Return a random world."""

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(random.uniform(np.log(low), np.log(high))))

    count = int(random.integers(1, 9))
    chosen = set(random.permutation(NAMES)[:count].tolist())
    if chosen <= {"majority", "tfidf"}:
        chosen.add("finetune")
    names = tuple(name for name in NAMES if name in chosen)
    fewest = log_uniform(0.02, 1.0)
    shares = [1.0]
    while shares[-1] * 0.7 > fewest:
        shares.append(shares[-1] * 0.7)
    if fewest < 1 and shares[-1] > fewest:
        shares.append(fewest)
    calls = int(random.integers(1, 4))
    budgets = tuple(log_uniform(10, 20_000) for _ in range(calls))
    return World(
        names,
        seeds=int(random.integers(1, 4)),
        folds=[None, None, 2, 3][int(random.integers(4))],
        budgets=(*budgets[:-1], None) if random.random() < 0.1 else budgets,
        epoch=log_uniform(0.5, 500),
        passing=log_uniform(0.2, 100),
        head=log_uniform(0.2, 60),
        passes=log_uniform(0.5, 100),
        row_shares=tuple(shares),
        wrong={name: log_uniform(0.5, 5) if random.random() < 0.7 else 1.0 for name in (*NAMES, "stage", "features")},
        slower=[1.0, 10.0, 0.1][int(random.integers(3))],
        changes_at=float(random.uniform(0, sum(budgets))),
        killed_after=float(random.random()) if random.random() < 0.3 else None,
    )
