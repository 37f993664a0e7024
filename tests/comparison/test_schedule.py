"""What is done next: small cases by hand, and five hundred random worlds with wrong forecasts and changing machines."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from helpers.schedule_worlds import CLOSING, BeliefCosts, Run, draw_world, smallest_sweep_in_truth, way_of
from hypothesis import given, settings
from hypothesis import strategies as st

from fullbake.comparison.schedule import (
    FIRST_SWEEP,
    GROWING,
    WHOLE,
    NextTrial,
    Plan,
    PlannedRecipe,
    Progress,
    Scheduler,
    Size,
    Trial,
    Watch,
)

# Cases by hand

FINETUNE = PlannedRecipe("finetune", "finetune", (0, 1, 2), epochs=(1.0, 0.5))
LINEAR = PlannedRecipe("frozen-linear", "frozen", (0,))
MLP = PlannedRecipe("frozen-mlp", "frozen", (0, 1, 2))
FURTHER = PlannedRecipe("further-finetune", "further", (0, 1, 2), "tapt", (1.0, 0.1), 0.1, (1.0, 0.5))
FURTHER_LINEAR = PlannedRecipe("further-frozen-linear", "further", (0,), "tapt", (1.0, 0.1), 0.1)
MAJORITY = PlannedRecipe("majority", "baseline", (0,))


class Costs:
    """Seconds by recipe, in proportion to rows and epochs; further pretraining takes 100 s, features 4 s."""

    seconds: Mapping[str, float] = {
        "finetune": 30,
        "frozen-linear": 1,
        "frozen-mlp": 2,
        "further-finetune": 30,
        "further-frozen-linear": 1,
        "majority": 0.1,
    }

    def __init__(self, prepared: Sequence[str] = ()) -> None:
        self.prepared = prepared

    def own(self, trial: Trial, *, searches: bool) -> float:
        return self.seconds[trial.candidate] * trial.size.rows * trial.size.epochs * (2 if searches else 1)

    def shared(self, trial: Trial) -> Mapping[str, float]:
        size = trial.size
        stage = {f"stage {size.pretraining} {size.rows}": 100 * size.pretraining * size.rows}
        features = {f"features {trial.candidate.startswith('further')} {size.rows}": 4 * size.rows}
        shared = (stage if "further" in trial.candidate else {}) | (features if "frozen" in trial.candidate else {})
        return {key: seconds for key, seconds in shared.items() if key not in self.prepared}


def schedule(
    *recipes: PlannedRecipe,
    finished: Mapping[Trial, float] | None = None,
    folds: int | None = None,
    costs: Costs | None = None,
) -> Scheduler:
    progress = Progress(dict(finished or {}))
    return Scheduler(Plan(recipes, (1.0, 0.5, 0.1), folds), progress, costs or Costs())


def play(rules: Scheduler, left: float, most: int = 100) -> list[tuple[str, str]]:
    """Let everything take what is forecast. Return (sweep, trial id) of each step."""
    steps: list[tuple[str, str]] = []
    for _ in range(most):
        step = Scheduler(rules.plan, rules.progress, rules.costs).next_step(left)
        if step is None:
            return steps
        steps.append((step.sweep, step.trial.id))
        rules.progress.finished[step.trial] = 1.0
        left -= step.expected
    raise AssertionError("it does not end")


def test_trial_id_names_recipe_fold_size_and_seed() -> None:
    assert Trial("finetune", 0).id == "finetune/0"
    assert Trial("finetune", 2, 0).id == "finetune/fold-1/2"
    assert Trial("finetune", 1, None, Size(0.1, 0.25, 0.5)).id == "finetune/rows-0.1/pretraining-0.25/epochs-0.5/1"


def test_without_a_budget_all_recipes_run_sweep_by_sweep() -> None:
    steps = play(schedule(FINETUNE, MLP, LINEAR, FURTHER, MAJORITY), math.inf)
    assert steps == [
        (FIRST_SWEEP, "majority/0"),
        (FIRST_SWEEP, "frozen-linear/0"),
        (FIRST_SWEEP, "finetune/0"),
        (FIRST_SWEEP, "further-finetune/0"),
        (FIRST_SWEEP, "frozen-mlp/0"),
        ("seed 2", "finetune/1"),
        ("seed 2", "frozen-mlp/1"),
        ("seed 2", "further-finetune/1"),
        ("seed 3", "finetune/2"),
        ("seed 3", "frozen-mlp/2"),
        ("seed 3", "further-finetune/2"),
    ]


def test_cheap_recipe_whose_features_are_there_does_not_wait_for_dear_ways() -> None:
    done = {Trial("frozen-mlp", 0): 1.0, Trial("majority", 0): 1.0}
    costs = Costs(("features False 1.0",))
    steps = play(schedule(FINETUNE, MLP, LINEAR, FURTHER, MAJORITY, finished=done, costs=costs), 400)
    assert [trial for _, trial in steps[:3]] == ["frozen-linear/0", "finetune/0", "further-finetune/0"]


def test_further_pretraining_leaves_time_for_a_recipe_whose_features_are_there() -> None:
    """The recipe takes more than a quarter of further pretraining, so that it comes after it."""

    class SlowLinear(Costs):
        seconds: Mapping[str, float] = {**Costs.seconds, "frozen-linear": 40}

    done = {Trial("frozen-mlp", 0): 1.0, Trial("finetune", 0): 1.0, Trial("majority", 0): 1.0}
    rules = schedule(FINETUNE, MLP, LINEAR, FURTHER, MAJORITY, finished=done, costs=SlowLinear(("features False 1.0",)))
    step = rules.next_step(400)
    assert step is not None
    assert step.trial.candidate == "further-finetune"
    assert step.reserve >= 2 * 40


def test_time_for_itself_at_a_smaller_size_leaves_out_what_the_trial_will_have_done() -> None:
    class CostsWithHead(Costs):
        """All further pretraining needs one head of 60 s."""

        def shared(self, trial: Trial) -> Mapping[str, float]:
            return {**super().shared(trial), **({"head": 60} if "further" in trial.candidate else {})}

    rules = schedule(FURTHER_LINEAR, costs=CostsWithHead())
    whole, short = (Trial("further-frozen-linear", 0, None, Size(pretraining=share)) for share in (1.0, 0.1))
    assert rules.seconds([short]) == pytest.approx(60 + 10 + 4 + 2)
    assert rules.seconds([short], after=whole) == pytest.approx(10 + 2)
    step = rules.next_step(190)
    assert step is not None
    assert 0 < step.reserve < 15


def test_every_fold_runs_before_the_next_recipe() -> None:
    steps = play(schedule(FINETUNE, LINEAR, folds=2), math.inf)
    assert [trial for _, trial in steps[:4]] == [
        "frozen-linear/fold-1/0",
        "frozen-linear/fold-2/0",
        "finetune/fold-1/0",
        "finetune/fold-2/0",
    ]


def test_pretraining_is_shortened_first() -> None:
    """All as a whole takes 100 + 60 + 60 + 6 s."""
    steps = play(schedule(FINETUNE, LINEAR, FURTHER, MAJORITY), 200)
    assert (FIRST_SWEEP, "further-finetune/pretraining-0.1/0") in steps
    assert (FIRST_SWEEP, "finetune/0") in steps
    assert not [trial for _, trial in steps if "rows" in trial]


def test_dear_recipes_of_a_stage_go_before_rows_are_cut_and_come_back() -> None:
    steps = play(schedule(FINETUNE, LINEAR, FURTHER, FURTHER_LINEAR, MAJORITY), 140)
    first = [trial for sweep, trial in steps if sweep == FIRST_SWEEP]
    assert "further-frozen-linear/pretraining-0.1/0" in first
    assert not [trial for trial in first if "rows" in trial]
    assert "further-finetune/pretraining-0.1/0" not in first[:4]


def test_rows_are_cut_for_all_recipes_alike_and_raised_for_all() -> None:
    rules = schedule(FINETUNE, LINEAR, MAJORITY)
    steps = play(rules, 50)
    first = {trial for sweep, trial in steps if sweep == FIRST_SWEEP}
    assert first == {"finetune/rows-0.5/0", "frozen-linear/rows-0.5/0", "majority/rows-0.5/0"}
    again = play(rules, 100)
    whole = {trial for sweep, trial in again if sweep == GROWING}
    assert whole == {"finetune/0", "frozen-linear/0", "majority/0"}
    assert again.index((GROWING, "finetune/0")) < again.index(("seed 2", "finetune/1"))


def test_epochs_are_halved_before_a_recipe_is_left_out() -> None:
    steps = play(schedule(FINETUNE, LINEAR, MAJORITY), 5)
    assert (FIRST_SWEEP, "finetune/rows-0.1/epochs-0.5/0") in steps
    steps = play(schedule(FINETUNE, LINEAR, MAJORITY), 2)
    assert not [trial for _, trial in steps if "finetune" in trial]
    assert (FIRST_SWEEP, "frozen-linear/rows-0.1/0") in steps


def test_budget_for_nothing_gives_no_step() -> None:
    assert schedule(FINETUNE, LINEAR, MAJORITY).next_step(0.001) is None


def test_smallest_sweep_and_the_cost_of_one_recipe() -> None:
    rules = schedule(FINETUNE, MLP, LINEAR, FURTHER, FURTHER_LINEAR, MAJORITY)
    linear, finetune, further = 2 * 0.1 + 0.4, 60 * 0.1 * 0.5, 100 * 0.1 * 0.1 + 0.4 + 2 * 0.1
    assert rules.smallest_sweep_seconds() == pytest.approx(linear + finetune + further + 0.02)
    assert rules.seconds_to_enter("further-frozen-linear") == pytest.approx(further)
    assert rules.seconds_wanted() == pytest.approx(100 + 2 * 4 + 2 * 120 + (4 + 2 * 2) + 2 * 2 + 0.2)


def test_trial_without_result_is_tried_smaller_and_then_left_out() -> None:
    rules = schedule(FINETUNE)
    rules.progress.too_large["finetune"] = [WHOLE]
    step = rules.next_step(1000)
    assert step is not None
    assert step.trial.size == Size(0.5)
    rules.progress.too_large["finetune"].append(Size(0.1, 1.0, 0.5))
    assert Scheduler(rules.plan, rules.progress, Costs()).next_step(1000) is None


def test_stopped_trial_is_never_averaged_and_run_again() -> None:
    stopped = Trial("finetune", 0)
    rules = schedule(FINETUNE, finished={stopped: 1 / 3})
    assert rules.best("finetune") == WHOLE
    assert rules.share("finetune", WHOLE) == pytest.approx(1 / 3)
    step = rules.next_step(70)
    assert step is not None
    assert (step.sweep, step.trial) == (GROWING, stopped)
    too_short = rules.next_step(40)
    assert too_short is not None
    assert too_short.trial.size == Size(1.0, 1.0, 0.5), "half of the epochs is more than a third"
    assert rules.next_step(20) is None, "no second seed beside a trial that was stopped"
    small = Trial("finetune", 0, None, Size(0.5))
    both = schedule(FINETUNE, finished={stopped: 1 / 3, small: 1.0})
    assert both.best("finetune") == Size(0.5), "what ran to its end stays"


def test_recipe_that_is_added_later_runs_at_the_size_of_the_others() -> None:
    done = dict.fromkeys(schedule(FINETUNE).plan.trials("finetune", Size(0.5)), 1.0)
    rules = schedule(FINETUNE, MLP, finished=done)
    step = rules.next_step(math.inf)
    assert step is not None
    assert step.trial == Trial("frozen-mlp", 0, None, Size(0.5))


# The watch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def step(expected: float, reserve: float = 0.0) -> NextTrial:
    return NextTrial(Trial("finetune", 0), FIRST_SWEEP, expected, searches=True, reserve=reserve)


def test_trial_ends_when_scoring_and_the_others_need_the_rest() -> None:
    clock = Clock()
    watch = Watch(step(50, reserve=20), 100, 10, clock)
    clock.now = 49
    assert not watch.time_is_up()
    clock.now = 61
    assert not watch.time_is_up()
    clock.now = 63
    assert watch.time_is_up(), "30 s for the others are 38 s on a machine that takes 63 s in place of 50 s"


def test_slow_steps_of_a_training_are_noticed_early() -> None:
    """A training of 1,000 steps is expected to take 50 s."""
    clock = Clock()
    watch = Watch(step(50, reserve=9), 100, 0, clock)
    watch.begin(50, encoder=True)

    def take(steps: range, seconds: float) -> None:
        for number in steps:
            clock.now += seconds
            watch.note(number / 1000)

    take(range(1, 22), 0.5)
    assert watch.slower == pytest.approx(10)
    assert watch.time_is_up()
    take(range(1, 101), 0.05)
    assert watch.slower == pytest.approx(1), "that was another training, at another rate"
    take(range(101, 142), 0.1)
    assert watch.slower == pytest.approx(2), "the last steps count"


def test_slow_steps_of_a_head_do_not_speak_for_the_others() -> None:
    clock = Clock()
    watch = Watch(step(50, reserve=9), 100, 0, clock)
    watch.begin(50, encoder=False)
    clock.now = 44.9  # its features
    for number in range(1, 42):
        clock.now += 0.1
        watch.note(number / 100)
    assert watch.slower == pytest.approx((49 + 5.9) / 50)
    assert not watch.time_is_up()


def test_without_a_budget_the_time_is_never_up() -> None:
    clock = Clock()
    watch = Watch(step(1), math.inf, 1, clock)
    clock.now = 1e9
    assert not watch.time_is_up()


# Random worlds


@settings(max_examples=500, derandomize=True, deadline=None, database=None)
@given(st.integers(0, 2**32 - 1))
def test_budget_is_used_and_kept_and_the_ways_are_there_in_random_worlds(seed: int) -> None:
    world = draw_world(np.random.default_rng(seed))
    run = Run(world).go()
    for end in run.ends:
        if end.budget is None:
            assert end.cheapest_wanted is None, "without a budget everything is done"
            continue
        assert end.used <= 1.1 * end.budget + (world.slower + 1) * end.tick
        left = (1 - CLOSING) * end.budget - end.used
        done = end.cheapest_wanted is None or left < 1.2 * end.cheapest_wanted
        assert end.used >= 0.85 * end.budget or done
    for rise, correction in run.shown:
        assert rise <= correction + 1e-6 * max(world.epoch, 1)
    _check_progress(run)
    most = max((end.budget or math.inf for end in run.ends), default=0.0)
    if world.killed_after is None and most >= 3 * smallest_sweep_in_truth(world):
        present = {name for name in world.names if run.schedule(BeliefCosts(world)).best(name) is not None}
        assert {way_of(name) for name in present} == {way_of(name) for name in world.names}


def _check_progress(run: Run) -> None:
    """Nothing that ran to its end is run again, and what the verdict is about has one size."""
    finished: set[Trial] = set()
    for trial, share in run.order:
        assert trial not in finished, "it was done before"
        if share == 1:
            finished.add(trial)
    rules = run.schedule(BeliefCosts(run.world))
    for name in run.world.names:
        size = rules.best(name)
        if size is not None and any(
            trial.size == WHOLE and share == 1 for trial, share in run.order if trial.candidate == name
        ):
            whole = rules.plan.trials(name, WHOLE)
            if all(run.progress.finished.get(trial) == 1 for trial in whole):
                assert size == WHOLE, "the whole trial replaces the smaller one"
