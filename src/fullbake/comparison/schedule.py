"""What a comparison trains next: pure arithmetic over what is finished, what things cost, and the seconds left.

A comparison grows in sweeps: the baselines, then every recipe once, then what was made smaller once more as a whole,
then a second seed for all, a third, and so on. After each sweep there is a whole verdict. Nothing is planned in
advance: after every trial, `Scheduler.next_step` looks at what is there and what the rest would cost by the newest
forecast. So a comparison that was killed, or is asked for with a larger budget, continues by the same rules.

What does not fit in the first sweep is made smaller, in this order: further pretraining shortened to one pass, its
cheapest recipe alone, a part of one pass, fewer training rows for all recipes alike, fewer epochs of fine-tuning. Only
then recipes are left out. Rows are
raised for all recipes together or not at all, because recipes that saw different numbers of rows say little about the
ways.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from typing import Final, Literal, Protocol

WayGroup = Literal["baseline", "frozen", "finetune", "further"]
"""`further` is any recipe that starts with further pretraining."""

WAYS: Final[tuple[WayGroup, ...]] = ("baseline", "frozen", "finetune", "further")
"""In the order in which the first sweep takes one recipe of each."""

MARGIN: Final = 1.1
"""What is begun must be expected to take at most the seconds left divided by this."""

SMALLER_MARGIN: Final = 1.25
"""The same for a first sweep that is made smaller, before any recipe has shown how good the forecast is."""

LONGEST_STAGE_SHARE: Final = 0.5
"""A further pretraining that has to be shortened may take this share of the time left: seeds need the rest."""

WORTH_GROWING: Final = 2.0
"""A recipe that cannot run as a whole is run again only if it gets this many times the rows or the pretraining."""

QUICK_SHARE: Final = 0.25
"""A recipe whose shared work is done comes before the first recipe of another way if it takes at most this share of
what that one takes."""

STRETCH_STEPS: Final = 20
STRETCH_SECONDS: Final = 2.0
"""The pace of a training is that of its last steps: so many, and as many more as took these seconds."""

_TOLERANCE: Final = 1e-9


@dataclass(frozen=True)
class Size:
    """How much of a recipe a trial runs, each as a share of the whole."""

    rows: float = 1.0
    """Share of the training rows."""
    pretraining: float = 1.0
    """Share of the length of further pretraining."""
    epochs: float = 1.0
    """Share of the epochs of the classifier."""

    def covers(self, other: "Size") -> bool:
        """Return True if nothing of this size is smaller than in the other."""
        pairs = ((self.rows, other.rows), (self.pretraining, other.pretraining), (self.epochs, other.epochs))
        return all(mine >= theirs - _TOLERANCE for mine, theirs in pairs)


WHOLE: Final = Size()


@dataclass(frozen=True)
class Trial:
    """One training run of a comparison: a candidate, a seed and a fold, at a size.

    The learning rate is no part of it: the trial of a candidate's first seed chooses it, the other seeds take it.
    """

    candidate: str
    """Name of the candidate."""
    seed: int
    """Seed of the training."""
    fold: int | None = None
    """Fold number from 0; None without folds."""
    size: Size = WHOLE
    """How much of the recipe runs."""

    @property
    def id(self) -> str:
        """Return the id used in `leaderboard.json` and as the folder below `cells/`.

        Examples: `finetune/0`, `finetune/fold-1/0`, `further-finetune/pretraining-0.1/0`.
        """
        parts = [] if self.fold is None else [f"fold-{self.fold + 1}"]
        shares = (("rows", self.size.rows), ("pretraining", self.size.pretraining), ("epochs", self.size.epochs))
        parts += [f"{name}-{share:.3g}" for name, share in shares if share != 1]
        return "/".join([self.candidate, *parts, str(self.seed)])


@dataclass(frozen=True)
class PlannedRecipe:
    """What the schedule needs to know of a candidate."""

    name: str
    way: WayGroup
    seeds: tuple[int, ...]
    """Its seeds, in order; a single one if the seed does not change the result."""
    stage: str | None = None
    """Key of its further pretraining; recipes with equal keys share it."""
    pretraining: tuple[float, ...] = (1.0,)
    """Shares of its further pretraining that may run, from 1 downwards."""
    one_pass: float = 0.0
    """The share of it that is one pass over the texts."""
    epochs: tuple[float, ...] = (1.0,)
    """Shares of its epochs that may run, from 1 downwards."""

    def size(self, rows: float = 1.0, pretraining: int = 0, epochs: int = 0) -> Size:
        """Return a size by the share of rows and by positions in its own lists (the last one if they are shorter)."""
        return Size(
            rows, *(own[min(at, len(own) - 1)] for own, at in ((self.pretraining, pretraining), (self.epochs, epochs)))
        )


@dataclass(frozen=True)
class Plan:
    """Everything that was asked for."""

    recipes: tuple[PlannedRecipe, ...]
    row_shares: tuple[float, ...] = (1.0,)
    """Shares of the training rows that all recipes may be cut to, from 1 downwards."""
    folds: int | None = None

    @cached_property
    def by_name(self) -> Mapping[str, PlannedRecipe]:
        """Return the recipes by name."""
        return {recipe.name: recipe for recipe in self.recipes}

    @property
    def fold_numbers(self) -> tuple[int | None, ...]:
        """Return the folds, or a single None."""
        return tuple(range(self.folds)) if self.folds else (None,)

    def sizes(self, name: str) -> list[Size]:
        """Return all sizes that a recipe may have, from the whole downwards."""
        recipe = self.by_name[name]
        return [Size(*shares) for shares in product(self.row_shares, recipe.pretraining, recipe.epochs)]

    def trials(self, name: str, size: Size, number: int = 0) -> list[Trial]:
        """Return a recipe's trials of its seed `number` (from 0), one in each fold; none if it has fewer seeds."""
        seeds = self.by_name[name].seeds[number : number + 1]
        return [Trial(name, seed, fold, size) for seed in seeds for fold in self.fold_numbers]


class TrialCosts(Protocol):
    """The forecast, in seconds."""

    def own(self, trial: Trial, *, searches: bool) -> float:
        """Return the seconds of training and scoring a trial. searches: it also chooses the learning rate."""

    def shared(self, trial: Trial) -> Mapping[str, float]:
        """Return the seconds of the work that it shares with other trials and that is not done yet, by key."""


@dataclass
class Progress:
    """What has happened so far."""

    finished: dict[Trial, float] = field(default_factory=dict)
    """The share of its training that each finished trial did: below 1 if its time was up before its end."""
    too_large: dict[str, list[Size]] = field(default_factory=dict)
    """Sizes that ran out of time before they gave any result, by candidate."""

    def may_try(self, name: str, size: Size) -> bool:
        """Return False if this size, or a smaller one, ran out of time without a result."""
        return not any(size.covers(failed) for failed in self.too_large.get(name, ()))

    def ran_to_its_end(self, trial: Trial) -> bool:
        """Return True if this trial, or the same at a larger size, ran to its end."""
        same = (trial.candidate, trial.seed, trial.fold)
        return any(
            share == 1 and (other.candidate, other.seed, other.fold) == same and other.size.covers(trial.size)
            for other, share in self.finished.items()
        )


@dataclass(frozen=True)
class NextTrial:
    """What to do next."""

    trial: Trial
    sweep: str
    """Which sweep it belongs to, in words."""
    expected: float
    """Seconds that it is expected to take, with the shared work that it is the first to need."""
    searches: bool
    """Whether it chooses the learning rate."""
    reserve: float = 0.0
    """Seconds that must stay for others: in the first sweep, a recipe of each way that has none yet, and those whose
    shared work is done."""


@dataclass
class Watch:
    """Looks at the clock while a trial runs, and says when it must end.

    A trial that takes longer than expected shows that the others will take longer too. So what must stay for them is
    multiplied by how much too long it takes, as its own steps show it.
    """

    step: NextTrial
    left: float
    """Seconds left for trials when it began; infinity without a budget."""
    scoring: float
    """Seconds that scoring it is expected to take."""
    clock: Callable[[], float]
    """Seconds from any fixed moment."""
    slower: float = 1.0
    """How many times as long as expected the trial takes, by its own steps."""
    part: str | None = None
    """The kind of shared work that runs; None if the trial's own training runs."""
    shared_seconds: float = 0.0
    """Seconds that shared work took, once it is done."""
    _expected: float = math.inf
    """Seconds that the part that runs is expected to take."""
    _encoder: bool = False
    _marks: deque[tuple[float, float]] = field(default_factory=deque)
    """(moment, share of the steps done) of the training that runs."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started = self.clock()

    @property
    def elapsed(self) -> float:
        """Return the seconds since the trial began."""
        return self.clock() - self.started

    def begin(self, expected: float, part: str | None = None, *, encoder: bool) -> None:
        """Note that a part of the trial begins, and how many seconds it is expected to take.

        Args:
            expected: the seconds.
            part: the kind of shared work that it is; None if it is the trial's own.
            encoder: whether the encoder trains. Its speed was measured, so if its steps take longer than expected, the
                machine has become slower; the steps of a head only show that its forecast was wrong.
        """
        self.part, self._encoder = part, encoder
        self._expected = max(expected, _TOLERANCE)
        self._marks.clear()  # the first step is preceded by other work, such as features

    def note(self, share: float) -> None:
        """Note which share of the steps of a training is done."""
        now, marks = self.clock(), self._marks
        if marks and share < marks[-1][1]:  # another training of the same part, such as the next rate
            marks.clear()
        marks.append((now, share))
        # The last steps count, not the whole training: the machine may have become slower since.
        while len(marks) > STRETCH_STEPS + 1 and now - marks[1][0] >= STRETCH_SECONDS:
            marks.popleft()
        then, before = marks[0]
        if len(marks) > STRETCH_STEPS and now - then >= STRETCH_SECONDS:
            seconds = (now - then) / (share - before)  # of the whole part
            wholly = (self.elapsed + (1 - share) * seconds) / max(self.step.expected, _TOLERANCE)
            self.slower = max(1.0, seconds / self._expected if self._encoder else wholly)

    def time_is_up(self) -> bool:
        """Return True if the trial must end now."""
        elapsed = self.elapsed
        slower = max(self.slower, elapsed / max(self.step.expected, _TOLERANCE))
        return elapsed + slower * (self.scoring + self.step.reserve) >= self.left


FIRST_SWEEP: Final = "first sweep"
GROWING: Final = "what was made smaller, once more"


@dataclass(frozen=True)
class TrialGroup:
    """Trials that are worth running only together."""

    sweep: str
    trials: list[Trial]
    margin: float = MARGIN


@dataclass(frozen=True)
class Scheduler:
    """The rules, over a plan, what is finished of it, and the newest forecast."""

    plan: Plan
    progress: Progress
    costs: TrialCosts

    def next_step(self, left: float) -> NextTrial | None:
        """Return what to do next, None if nothing that is asked for fits into the time left.

        Args:
            left: seconds left for trials; infinity without a budget.
        """
        for group in self.groups(left):
            if self.seconds(group.trials) * group.margin <= left:
                trial = self.in_order(group.trials)[0]
                expected = self.seconds([trial])
                reserve = 0.0
                if group.sweep == FIRST_SWEEP:
                    reserve = self.reserve(trial, group.trials, left - expected * MARGIN)
                return NextTrial(trial, group.sweep, expected, self.searches(trial), reserve)
        return None

    def best(self, name: str) -> Size | None:
        """Return the size of the recipe's trials that the verdict is about; None if there are none.

        That is the largest size of which the first seed is finished in every fold. Trials that were stopped count only
        where nothing else is there.
        """
        return self._current.get(name)

    def _largest(self, name: str) -> Size | None:
        sizes = {trial.size for trial in self.progress.finished if trial.candidate == name}
        shares = {size: self.share(name, size) for size in sizes}
        ranked = [size for size in sizes if shares[size]]

        def rank(size: Size) -> tuple[bool, float, float, float]:
            return shares[size] == 1, size.rows, size.pretraining, size.epochs * shares[size]

        return max(ranked, key=rank, default=None)

    def share(self, name: str, size: Size) -> float:
        """Return the share of its training that the recipe's first seed did at this size, 0 if a fold is missing."""
        return min(self.progress.finished.get(trial, 0.0) for trial in self.plan.trials(name, size))

    def seconds(self, trials: Iterable[Trial], *, after: Trial | None = None) -> float:
        """Return the seconds of these trials. Work that they share is counted once.

        Args:
            trials: The trials.
            after: A trial that has begun before them; work that they share with it is not counted.
        """
        own, shared = 0.0, dict[str, float]()
        for trial in trials:
            own += self.costs.own(trial, searches=self.searches(trial))
            shared |= self.costs.shared(trial)
        done = {} if after is None else self.costs.shared(after)
        return own + sum(seconds for key, seconds in shared.items() if key not in done)

    def cheapest_wanted(self) -> float | None:
        """Return the seconds of the cheapest work that is still wanted, None if everything asked for is done."""
        return min((self.seconds(group.trials) for group in self.groups(math.inf)), default=None)

    def seconds_wanted(self) -> float:
        """Return the seconds of everything that was asked for and is not done: every recipe and seed, as a whole."""
        return self.seconds(self._missing_whole())

    def smallest_sweep_seconds(self) -> float:
        """Return the seconds of the smallest first sweep: the baselines and one recipe of each way."""
        baselines = [one.name for one in self.plan.recipes if one.way == "baseline"]
        return self.seconds(
            self._missing({name: self._smallest[name] for name in (*self._representatives, *baselines)})
        )

    def seconds_to_enter(self, name: str) -> float:
        """Return the seconds that one recipe takes at the smallest size, with all work that it needs."""
        return self.seconds(self.plan.trials(name, self._smallest[name]))

    def searches(self, trial: Trial) -> bool:
        """Return True if a trial chooses the learning rate: that of the first seed does."""
        return trial.seed == self.plan.by_name[trial.candidate].seeds[0]

    # Groups, in the order of preference

    def groups(self, left: float) -> Iterator[TrialGroup]:
        """Yield what may be done next, the most wanted first."""
        groups = chain(
            self._first_sweep(left),
            [TrialGroup(GROWING, self._missing_whole(seeds=1))],
            self._absent(),
            self._growing_alone(),
            self._more_seeds(),
            self._growing_partly(),
        )
        return (group for group in groups if group.trials)

    def _first_sweep(self, left: float) -> Iterator[TrialGroup]:
        """Yield what is missing of the first sweep, at the largest size and at smaller and smaller ones."""
        begun = any(one.way != "baseline" for one in self._present)
        for level, sizes in enumerate(self._levels()):
            missing = self._missing(sizes)
            sure = begun or not level or all(trial.size == self._smallest[trial.candidate] for trial in missing)
            if all(self._fits_the_others(trial) for trial in missing) and not self._has_long_stage(missing, left):
                yield TrialGroup(FIRST_SWEEP, missing, MARGIN if sure else SMALLER_MARGIN)

    def _fits_the_others(self, trial: Trial) -> bool:
        """Return True if a trial is not larger than those that are done, nor known to be too large."""
        size, name = trial.size, trial.candidate
        alike = size.rows <= self._rows_in_use and size.pretraining <= self._pretraining_in_use(name)
        return alike and self.progress.may_try(name, size)

    def _has_long_stage(self, trials: Sequence[Trial], left: float) -> bool:
        """Return True if a shortened further pretraining could be shortened more, and that would save much time."""
        return any(self._could_save(trial) > LONGEST_STAGE_SHARE * left for trial in trials)

    def _could_save(self, trial: Trial) -> float:
        """Return the seconds that the shortest further pretraining would save; 0 if it is not shortened at all."""
        shortest = self.plan.by_name[trial.candidate].pretraining[-1]
        if trial.size.pretraining == 1:
            return 0.0
        shorter = replace(trial, size=replace(trial.size, pretraining=shortest))
        return sum(self.costs.shared(trial).values()) - sum(self.costs.shared(shorter).values())

    def _levels(self) -> Iterator[dict[str, Size]]:
        """Yield the sizes of a first sweep by recipe, from the whole to the smallest; then ever fewer recipes."""
        recipes: Sequence[PlannedRecipe] = self.plan.recipes
        rows = self.plan.row_shares
        shortest = max((len(recipe.pretraining) for recipe in recipes), default=1) - 1
        fewest = max((len(recipe.epochs) for recipe in recipes), default=1) - 1
        for length in range(shortest + 1):
            if not length or all(one.size(1.0, length, 0).pretraining >= one.one_pass for one in recipes if one.stage):
                yield {recipe.name: recipe.size(1.0, length, 0) for recipe in recipes}
        # One recipe after a whole pass says more than three after a part of one.
        recipes = self._without_dear_variants
        for length in range(shortest + 1):
            yield {recipe.name: recipe.size(1.0, length, 0) for recipe in recipes}
        for share in rows[1:]:
            yield {recipe.name: recipe.size(share, shortest, 0) for recipe in recipes}
        for epochs in range(1, fewest + 1):
            yield {recipe.name: recipe.size(rows[-1], shortest, epochs) for recipe in recipes}
        order = self._order_of_leaving_out(recipes)
        for dropped in range(1, len(order)):
            yield {recipe.name: self._smallest[recipe.name] for recipe in recipes if recipe not in order[:dropped]}

    @cached_property
    def _present(self) -> list[PlannedRecipe]:
        """Return the recipes that have a result of their first seed in every fold."""
        return [recipe for recipe in self.plan.recipes if self.best(recipe.name) is not None]

    @cached_property
    def _smallest(self) -> dict[str, Size]:
        rows = self.plan.row_shares[-1]
        return {one.name: Size(rows, one.pretraining[-1], one.epochs[-1]) for one in self.plan.recipes}

    @cached_property
    def _prices(self) -> dict[str, float]:
        """Return what each recipe costs at the smallest size; 0 if it has a result."""
        return {name: self.seconds(self._missing({name: size})) for name, size in self._smallest.items()}

    @cached_property
    def _without_dear_variants(self) -> list[PlannedRecipe]:
        """Return the recipes without those that share a further pretraining with a cheaper one."""
        prices, cheapest = self._prices, dict[str, str]()
        for recipe in sorted(self.plan.recipes, key=lambda recipe: prices[recipe.name]):
            if recipe.stage is not None:
                cheapest.setdefault(recipe.stage, recipe.name)
        return [one for one in self.plan.recipes if one.stage is None or cheapest[one.stage] == one.name]

    @cached_property
    def _representatives(self) -> list[str]:
        """Return the cheapest recipe of each way but the baselines; one that has a result costs nothing."""
        prices = self._prices
        ways = [[one.name for one in self.plan.recipes if one.way == way] for way in WAYS[1:]]
        return [min(names, key=lambda name: prices[name]) for names in ways if names]

    def _order_of_leaving_out(self, recipes: Sequence[PlannedRecipe]) -> list[PlannedRecipe]:
        """Return the recipes to leave out, the first first: those whose way has a cheaper one, then the dearest."""
        prices, kept = self._prices, self._representatives
        removable = [recipe for recipe in recipes if prices[recipe.name] > 0]
        return sorted(removable, key=lambda one: (one.way == "baseline", one.name in kept, -prices[one.name]))

    def reserve(self, trial: Trial, group: Sequence[Trial], at_most: float) -> float:
        """Return the seconds that a trial must leave to others in the first sweep.

        These are its other folds, itself at the smallest size (for the case that it gives no result at this one), one
        recipe, at the smallest size, of each way that has no result, and the recipes whose shared work is done, as far
        as they fit into `at_most` seconds.

        Args:
            trial: The trial that is about to run.
            group: The trials of the sweep that it belongs to.
            at_most: Seconds.
        """
        prices, own = self._prices, self.plan.by_name[trial.candidate].way
        others = {
            name: self._smallest[name]
            for name in self._representatives
            if self.plan.by_name[name].way != own and self.progress.may_try(name, self._smallest[name])
        }
        others |= {one.candidate: one.size for one in group if not self._shares_work(one)}
        others.pop(trial.candidate, None)
        ordered = [{name: others[name]} for name in sorted(others, key=lambda name: prices[name])]
        own_smallest = self._smallest[trial.candidate]
        if trial.size != own_smallest:
            ordered = [{trial.candidate: own_smallest}, *ordered]
        trials = [one for one in self._missing({trial.candidate: trial.size}) if one != trial]
        reserve = 0.0
        for more in ({}, *ordered):
            trials = [*trials, *self._missing(more)]
            seconds = self.seconds(trials, after=trial)
            if seconds > at_most:
                break
            reserve = seconds
        return min(reserve * SMALLER_MARGIN, max(at_most, 0.0))

    @cached_property
    def _rows_in_use(self) -> float:
        """Return the smallest share of rows that a recipe with a result was trained on; 1 if there is none."""
        return min((size.rows for size in self._current.values()), default=1.0)

    @cached_property
    def _current(self) -> dict[str, Size]:
        """Return the size that each recipe with a result has."""
        return {one.name: size for one in self.plan.recipes if (size := self._largest(one.name)) is not None}

    def _pretraining_in_use(self, name: str) -> float:
        """Return the smallest share of its further pretraining that a recipe of the same stage was trained after."""
        lengths = [size.pretraining for other, size in self._current.items() if other in self._same_stage(name)]
        return min(lengths, default=1.0)

    def _same_stage(self, name: str) -> list[str]:
        """Return the recipes that share this one's further pretraining; itself alone if it has none."""
        stage = self.plan.by_name[name].stage
        return [name] if stage is None else [one.name for one in self.plan.recipes if one.stage == stage]

    def _missing(self, sizes: Mapping[str, Size]) -> list[Trial]:
        """Return the trials of the first seed of these recipes that are not there, without recipes that have a result.

        The folds of a recipe all have the same size, so a fold that is there at another size does not count.
        """
        return [
            trial
            for name, size in sizes.items()
            if self.best(name) is None
            for trial in self.plan.trials(name, size)
            if trial not in self.progress.finished
        ]

    def _missing_whole(self, seeds: int | None = None) -> list[Trial]:
        """Return the whole trials that are missing: of the first `seeds` seeds, None for all."""
        most = max((len(recipe.seeds) for recipe in self.plan.recipes), default=0) if seeds is None else seeds
        return [
            trial
            for number in range(most)
            for recipe in self.plan.recipes
            if self.progress.may_try(recipe.name, WHOLE)
            for trial in self.plan.trials(recipe.name, WHOLE, number)
            if self.progress.finished.get(trial, 0.0) < 1
        ]

    def _absent(self) -> Iterator[TrialGroup]:
        """Yield each recipe without a result by itself, the cheapest first, at the sizes that the others have."""
        prices, current = self._prices, self._current
        rows_in_use = {size.rows for size in current.values()} or set(self.plan.row_shares)
        for recipe in sorted(self.plan.recipes, key=lambda one: prices[one.name]):
            longest = self._pretraining_in_use(recipe.name)
            lengths = [share for share in recipe.pretraining if share <= longest]
            for rows, length, epochs in product(sorted(rows_in_use, reverse=True), lengths, recipe.epochs):
                size = Size(rows, length, epochs)
                if recipe.name not in current and self.progress.may_try(recipe.name, size):
                    yield TrialGroup(FIRST_SWEEP, self._missing({recipe.name: size}))

    def _growing_alone(self) -> Iterator[TrialGroup]:
        """Yield what can run in full on the rows that it has: further pretraining, epochs, what was stopped."""
        for name, size in self._current.items():
            # Recipes that share a further pretraining grow together.
            yield TrialGroup(GROWING, self._growth({other: Size(size.rows) for other in self._same_stage(name)}))
            reached = size.epochs * self.share(name, size)
            for epochs in self.plan.by_name[name].epochs:
                if epochs > reached:
                    yield TrialGroup(GROWING, self._growth({name: replace(size, epochs=epochs)}))

    def _growth(self, sizes: Mapping[str, Size]) -> list[Trial]:
        """Return the missing trials of recipes with a result at these sizes; none if a size was too large."""
        current = self._current
        names = [name for name in sizes if name in current]
        if not all(self.progress.may_try(name, sizes[name]) for name in names):
            return []
        trials = [trial for name in names for trial in self.plan.trials(name, sizes[name])]
        return [trial for trial in trials if not self.progress.ran_to_its_end(trial)]

    def _more_seeds(self) -> Iterator[TrialGroup]:
        """Yield the second seed of each recipe at the size that it has, then the third, and so on."""
        current = self._current
        for number in range(1, max((len(recipe.seeds) for recipe in self.plan.recipes), default=0)):
            for name, size in current.items():
                if self.share(name, size) == 1:  # a trial that was stopped is never averaged with others
                    trials = self.plan.trials(name, size, number)
                    missing = [trial for trial in trials if self.progress.finished.get(trial, 0.0) < 1]
                    yield TrialGroup(f"seed {number + 1}", missing)

    def _growing_partly(self) -> Iterator[TrialGroup]:
        """Yield larger sizes short of the whole, which are wanted where all seeds at the present size are done."""
        current = self._current
        for share in self.plan.row_shares:
            if current and share >= WORTH_GROWING * self._rows_in_use:
                larger = {name: replace(size, rows=share) for name, size in current.items() if size.rows < share}
                yield TrialGroup(GROWING, self._growth(larger))
        for name, size in current.items():
            for length in self.plan.by_name[name].pretraining:
                if length >= WORTH_GROWING * size.pretraining:
                    group = [other for other in self._same_stage(name) if other in current]
                    larger = {other: replace(current[other], pretraining=length) for other in group}
                    yield TrialGroup(GROWING, self._growth(larger))

    # The order within a group

    def in_order(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials in the order of a sweep.

        Baselines come first, then one recipe of each way, then the cheapest first. A cheap recipe whose shared work is
        done does not wait for a way that takes much longer.
        """
        prices: dict[str, float] = {}
        for trial in trials:
            prices[trial.candidate] = prices.get(trial.candidate, 0.0) + self.seconds([trial])
        ways = {name: self.plan.by_name[name].way for name in prices}
        present = {recipe.way for recipe in self._present}
        first_of_way: dict[WayGroup, str] = {}
        for name in sorted(prices, key=lambda name: prices[name]):
            if ways[name] not in present and ways[name] != "baseline":
                first_of_way.setdefault(ways[name], name)
        ready = [
            name for name in prices if not any(self._shares_work(trial) for trial in trials if trial.candidate == name)
        ]

        def place(name: str) -> int:
            way = ways[name]
            if way == "baseline" or first_of_way.get(way) == name:
                return WAYS.index(way)
            later = [
                WAYS.index(way) for way, first in first_of_way.items() if prices[name] <= QUICK_SHARE * prices[first]
            ]
            return min(later) if later and name in ready else len(WAYS)

        return sorted(trials, key=lambda one: (place(one.candidate), prices[one.candidate], one.fold or 0))

    def _shares_work(self, trial: Trial) -> bool:
        """Return True if a trial needs shared work that is not done yet."""
        return sum(self.costs.shared(trial).values()) > 0
