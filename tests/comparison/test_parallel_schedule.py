"""Random worlds are played with several workers: each piece of work once, in an order that its needs allow, in time."""

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.comparison.parallel_schedule import ParallelSchedule
from fullbake.comparison.schedule import Plan, PlannedRecipe, Progress, Scheduler, Trial, WayGroup


@dataclass
class Costs:
    """Seconds by way; frozen recipes share features, further ones a stage."""

    prepared: set[str] = field(default_factory=set)
    features: float = 20.0
    stage: float = 60.0
    training: float = 30.0

    def own(self, trial: Trial, *, searches: bool) -> float:
        seconds = {"f": self.training, "g": self.training}.get(trial.candidate[0], 2.0)
        return seconds * trial.size.rows * trial.size.epochs * (2 if searches else 1)

    def keys(self, trial: Trial) -> dict[str, float]:
        found = {}
        if trial.candidate[0] == "g":
            found[f"stage {trial.size.rows} {trial.size.pretraining}"] = self.stage * trial.size.pretraining
        if trial.candidate[0] == "h":
            found[f"features {trial.size.rows}"] = self.features * trial.size.rows
        return found

    def shared(self, trial: Trial) -> Mapping[str, float]:
        return {key: seconds for key, seconds in self.keys(trial).items() if key not in self.prepared}


WAYS: dict[str, WayGroup] = {"b": "baseline", "f": "finetune", "g": "further", "h": "frozen"}


def plan_of(letters: str, seeds: int, folds: int | None = None) -> Plan:
    recipes = []
    for number, letter in enumerate(letters):
        own = tuple(range(seeds if letter != "b" else 1))
        stage = "stage" if letter == "g" else None
        recipes.append(PlannedRecipe(f"{letter}{number}", WAYS[letter], own, stage))
    return Plan(tuple(recipes), (1.0, 0.7, 0.5), folds)


def play(plan: Plan, costs: Costs, workers: int, budget: float = math.inf) -> tuple[float, list[Trial], float]:
    """Play a comparison. Return (when it ended, the trials in the order they began, seconds of work)."""
    progress, now, work = Progress(), 0.0, 0.0
    began: list[Trial] = []
    prepared_once: set[str] = set()
    queue: list[tuple[float, int, Trial, tuple[str, ...]]] = []
    running: dict[Trial, float] = {}
    preparing: dict[str, float] = {}
    while True:
        while len(queue) < workers:
            schedule = ParallelSchedule(plan, progress, costs, workers, running, preparing)
            step = schedule.next_step(budget - now)
            if step is None:
                break
            trial, needed = step.trial, costs.shared(step.trial)
            if needed:
                assert not set(needed) & prepared_once, "shared work is done once"
                prepared_once |= set(needed)
                preparing |= needed
                seconds = sum(needed.values())
            else:
                assert trial not in running
                assert trial not in progress.finished, "a trial runs once"
                first = replace(trial, seed=plan.by_name[trial.candidate].seeds[0])
                assert trial == first or first in progress.finished, "other seeds wait for the rate of the first"
                assert set(costs.keys(trial)) <= costs.prepared
                began.append(trial)
                seconds = costs.own(trial, searches=step.searches)
                running[trial] = seconds
            work += seconds
            heapq.heappush(queue, (now + seconds, len(began) * 1000 + len(prepared_once), trial, tuple(needed)))
        if not queue:
            return now, began, work
        now, _, trial, keys = heapq.heappop(queue)
        for key in keys:
            costs.prepared.add(key)
            del preparing[key]
        if not keys:
            del running[trial]
            progress.finished[trial] = 1.0
        running = {one: max(end - now, 0.0) for end, _, one, own in queue if not own}


@settings(max_examples=40)
@given(
    letters=st.text("bfgh", min_size=1, max_size=6),
    seeds=st.integers(1, 3),
    workers=st.integers(1, 5),
    folds=st.sampled_from([None, 2]),
)
def test_everything_that_was_asked_for_runs_once(letters: str, seeds: int, workers: int, folds: int | None) -> None:
    plan, costs = plan_of(letters, seeds, folds), Costs()
    end, began, work = play(plan, costs, workers)
    wanted = {
        trial
        for recipe in plan.recipes
        for number in range(seeds)
        for trial in plan.trials(recipe.name, _whole, number)
    }
    assert set(began) == wanted
    assert work / workers <= end <= work


_whole = Trial("x", 0).size


def test_one_worker_does_what_the_plain_schedule_does() -> None:
    plan, costs = plan_of("bhhfg", 3), Costs()
    _, began, _ = play(plan, costs, 1)
    plain, progress, own = [], Progress(), Costs()
    while (step := Scheduler(plan, progress, own).next_step(math.inf)) is not None:
        own.prepared |= set(own.shared(step.trial))
        progress.finished[step.trial] = 1.0
        plain.append(step.trial)
    assert began == plain


@settings(max_examples=40)
@given(
    letters=st.text("bfgh", min_size=1, max_size=6),
    workers=st.integers(1, 5),
    budget=st.floats(1, 1000),
)
def test_a_true_forecast_ends_within_the_budget(letters: str, workers: int, budget: float) -> None:
    end, _, _ = play(plan_of(letters, 3), Costs(), workers, budget)
    assert end <= budget


def test_more_workers_do_more_within_a_budget() -> None:
    done = [len(play(plan_of("bhhfff", 3), Costs(), workers, 200)[1]) for workers in (1, 2, 4)]
    assert done[0] < done[1] < done[2]


def test_what_has_to_wait_is_not_replaced_by_something_smaller() -> None:
    plan, costs = plan_of("hh", 2), Costs()
    schedule = ParallelSchedule(plan, Progress(), costs, 2, {}, {"features 1.0": 20.0})
    assert schedule.next_step(math.inf) is None
    assert schedule.next_step(1000.0) is None


@pytest.mark.parametrize(("workers", "expected"), [(1, 64.0), (2, 47.0), (32, 31.0625)])
def test_the_bound_of_several_workers(workers: int, expected: float) -> None:
    plan, costs = plan_of("ffb", 1), Costs(training=15.0)
    schedule = ParallelSchedule(plan, Progress(), costs, workers)
    rules = Scheduler(plan, Progress(), costs)
    trials = [trial for recipe in plan.recipes for trial in plan.trials(recipe.name, _whole)]
    assert schedule.span(rules, trials) == pytest.approx(expected)


def test_time_that_is_wanted_falls_while_work_runs() -> None:
    """Shared work that runs counts by what is left of it, not as if it had not begun."""
    plan, costs = plan_of("gf", 1), Costs()
    trial = plan.trials("g0", plan.sizes("g0")[0], 0)[0]
    (key,) = costs.shared(trial)
    wanted = [
        ParallelSchedule(plan, Progress(), costs, 2, {}, preparing).seconds_wanted()
        for preparing in ({}, {key: costs.stage}, {key: 10.0})
    ]
    assert wanted[0] == wanted[1] == wanted[2] + (costs.stage - 10.0) / 2
