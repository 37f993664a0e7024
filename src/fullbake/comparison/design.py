"""Who takes part in a comparison, and how many trials each candidate gets within a time budget.

Candidates are recipes (by name or file), the same recipes after further pretraining, and baselines. The size of a
comparison is pure arithmetic here: the cost of a design is passed in as a function. When time is short, learning rates
are reduced first, then the length of further pretraining, then seeds (down to two), then whole recipes, the most
expensive first. All recipes of a design choose among the same number of rates; otherwise the comparison would reward
the longer search instead of the better recipe.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fullbake.comparison import baselines
from fullbake.config.recipe import Recipe, recipe_names
from fullbake.core.console import parse_duration
from fullbake.core.errors import RecipeError, did_you_mean

TRAINING_SHARES: Final = (1.0, 0.3, 0.1, 0.03)
"""Shares of the configured length of further pretraining that a smaller design may run."""


@dataclass(frozen=True)
class Trial:
    """One training run of a comparison."""

    candidate: str
    """Name of the candidate."""
    rate: float | None
    """Learning rate; None if the candidate has none."""
    seed: int
    """Seed of the training."""
    fold: int | None = None
    """Fold number from 0; None without folds."""

    @property
    def id(self) -> str:
        """Return the id used in `leaderboard.json` and as the folder below `cells/`.

        Examples: `finetune/5e-05/0`, `finetune/fold-1/5e-05/0`.
        """
        fold = [] if self.fold is None else [f"fold-{self.fold + 1}"]
        return "/".join([self.candidate, *fold, "only" if self.rate is None else f"{self.rate:g}", str(self.seed)])


@dataclass(frozen=True)
class RecipePlan:
    """The rates and seeds that a candidate may use. A design takes the first few of each."""

    name: str
    """Name of the candidate."""
    rates: tuple[float, ...]
    """Learning rates, the preferred first; () if it has none."""
    seeds: tuple[int, ...]
    """Seeds; a single one if the seed does not change the result."""
    further_pretrained: bool = False
    """Whether further pretraining comes first."""

    def trials(self, rates: int, seeds: int, folds: int | None) -> list[Trial]:
        """Return its trials with the first `rates` learning rates and the first `seeds` seeds in each fold."""
        return [
            Trial(self.name, rate, seed, fold)
            for fold in (range(folds) if folds else (None,))
            for seed in self.seeds[:seeds]
            for rate in (self.rates[:rates] or (None,))
        ]


@dataclass(frozen=True)
class Design:
    """The size of a comparison."""

    names: tuple[str, ...]
    """Candidates that take part."""
    rates: int
    """Learning rates of each candidate, at most."""
    seeds: int
    """Seeds of each candidate, at most."""
    pretraining_share: float = 1.0
    """Share of the configured length of further pretraining, from 0 to 1."""

    def trials(self, plans: Sequence[RecipePlan], folds: int | None) -> list[Trial]:
        """Return all trials, candidate by candidate."""
        included = [plan for plan in plans if plan.name in self.names]
        return [trial for plan in included for trial in plan.trials(self.rates, self.seeds, folds)]


def full_design(plans: Sequence[RecipePlan]) -> Design:
    """Return the design with every candidate, rate and seed of the plans."""
    rates = max((len(plan.rates) for plan in plans), default=0)
    return Design(tuple(plan.name for plan in plans), max(rates, 1), max(len(plan.seeds) for plan in plans))


def smaller_designs(plans: Sequence[RecipePlan], removable: Sequence[str]) -> Iterator[Design]:
    """Yield the full design, then smaller and smaller ones.

    Args:
        plans: Of all candidates.
        removable: Names of the candidates that may be left out, in the order in which they are left out.
    """
    full = full_design(plans)
    rate_counts = list(dict.fromkeys((full.rates, max(full.rates // 2, 1), 1)))
    fewest_seeds = min(full.seeds, 2)
    for removed in range(len(removable) + 1):
        names = tuple(name for name in full.names if name not in removable[:removed])
        further = any(plan.further_pretrained for plan in plans if plan.name in names)
        shares = TRAINING_SHARES if further else TRAINING_SHARES[:1]
        # A single seed is the last resort: no interval over seeds can be made of it.
        last = removed == len(removable)
        # What the inner loops change is given up first.
        for seeds in range(full.seeds, 0 if last else fewest_seeds - 1, -1):
            for share in shares:
                yield from (Design(names, rates, seeds, share) for rates in rate_counts)


def pick_design(designs: Iterator[Design], cost: Callable[[Design], float], seconds: float) -> Design | None:
    """Return the first design whose cost, in seconds, is at most `seconds`; None if there is none."""
    return next((design for design in designs if cost(design) <= seconds), None)


def describe_left_out(full: Design, chosen: Design, reason: str) -> list[str]:
    """Return one line for each thing that the chosen design has less of than the full one.

    Args:
        full: Everything that was requested.
        chosen: The design that will be run.
        reason: Why recipes were left out; it is put after the name of each.
    """
    lines = [f"{name}: {reason}" for name in full.names if name not in chosen.names]
    if chosen.rates < full.rates:
        lines.append(f"learning rates: {chosen.rates} of up to {full.rates} for each recipe")
    if chosen.seeds < full.seeds:
        lines.append(f"seeds: {chosen.seeds} of {full.seeds}")
    if chosen.pretraining_share < full.pretraining_share:
        lines.append(f"further pretraining: {chosen.pretraining_share:.0%} of its own length")
    return lines


def parse_budget(text: str) -> float:
    """Return the seconds of a time budget such as `90s`, `10m` or `1h`.

    Raises:
        RecipeError: it is not a duration.
    """
    return parse_duration(text, "--budget")


FURTHER_PREFIX: Final = "further-"
"""Put before the name of a shipped recipe: that recipe after further pretraining."""

FURTHER_STAGE: Final = "tapt"
"""The shipped recipe whose further pretraining is used for it."""

DEFAULT_RECIPES: Final = (
    "finetune",
    "frozen-mlp",
    "frozen-linear",
    f"{FURTHER_PREFIX}finetune",
    f"{FURTHER_PREFIX}frozen-mlp",
    f"{FURTHER_PREFIX}frozen-linear",
    *baselines.BASELINE_NAMES,
)

RATES: Final = (5e-5, 2e-5, 3e-5, 4e-5)
"""Learning rates for encoder weights: the grid of Devlin et al. 2019, in the order in which a smaller design takes
them."""

HEAD_RATES: Final = {"mlp": (1e-2, 1e-3, 3e-3, 3e-4)}
"""Learning rates for heads on frozen features, by kind of head."""

_OTHER_HEAD_RATES: Final = (1e-3, 1e-2, 3e-3, 3e-4)


@dataclass(frozen=True)
class Candidate:
    """A recipe or a baseline that takes part in a comparison."""

    name: str
    """Unique within the comparison, such as `further-finetune`."""
    title: str
    """The name shown to people."""
    recipe: Recipe | None
    """None for a baseline."""
    rates: tuple[float, ...] = ()
    """Learning rates to choose from; () if it has none."""
    seed: int = 0
    """The first of its seeds."""

    @property
    def way(self) -> str:
        """Return finetune, frozen or baseline."""
        return "baseline" if self.recipe is None else self.recipe.way

    @property
    def further_pretrained(self) -> bool:
        """Return True if further pretraining comes first."""
        return self.recipe is not None and self.recipe.further_pretraining is not None

    @property
    def depends_on_seed(self) -> bool:
        """Return True if another seed gives another result."""
        return self.recipe is not None and self.recipe.training.optimizer != "lbfgs"

    def plan(self, seeds: int) -> RecipePlan:
        """Return its rates and its first `seeds` seeds."""
        count = seeds if self.depends_on_seed else 1
        return RecipePlan(self.name, self.rates, tuple(range(self.seed, self.seed + count)), self.further_pretrained)

    def with_pretraining_share(self, share: float) -> "Candidate":
        """Return a copy that runs only this share of its further pretraining; itself if it has none."""
        if share == 1 or self.recipe is None or self.recipe.further_pretraining is None:
            return self
        stage, changed = self.recipe.stage, {}
        if stage.steps is not None:
            changed["steps"] = max(round(stage.steps * share), 1)
        else:
            changed["epochs"] = max(round((stage.epochs or 3) * share), 1)
        if stage.warmup_steps is not None:
            changed["warmup_steps"] = int(stage.warmup_steps * share)
        fields = stage.model_dump(mode="json") | changed
        recipe = self.recipe.with_fields(further_pretraining=fields)
        return Candidate(self.name, self.title, recipe, self.rates, self.seed)


def read_candidates(
    names: Sequence[str | Path],
    *,
    rates: tuple[float, ...] | None = None,
    head_rates: tuple[float, ...] | None = None,
    **fields: Any,
) -> list[Candidate]:
    """Read the candidates that these names stand for.

    Args:
        names: Shipped recipes, `further-` and a shipped recipe, baselines, or YAML files.
        rates: Learning rates for encoders, in place of RATES. A recipe that lists several rates keeps its own.
        head_rates: The same for heads on frozen features, in place of HEAD_RATES.
        **fields: Recipe fields that are set in every recipe.

    Raises:
        RecipeError: A name is unknown or given twice, there are only baselines, or the recipes read different columns
            or choose by different metrics.
    """
    candidates = [_read_candidate(name, rates, head_rates, fields) for name in names]
    known = [candidate.name for candidate in candidates]
    twice = next((name for name in known if known.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(
            f"two recipes are called {twice!r}",
            remedy="Rename one of the files: a recipe takes its name from its file. Or name it once.",
        )
    if all(candidate.recipe is None for candidate in candidates):
        raise RecipeError("there is no recipe to compare", got=", ".join(known) or "none", remedy="Name one: finetune.")
    _check_same_rows(candidates)
    return candidates


def _read_candidate(
    name: str | Path, rates: tuple[float, ...] | None, head_rates: tuple[float, ...] | None, fields: dict[str, Any]
) -> Candidate:
    word = str(name)
    if word in baselines.BASELINE_NAMES:
        return Candidate(word, baselines.BASELINE_NAMES[word], None)
    # A stage that the call names belongs to the `further-` recipes alone.
    stage = fields.get("further_pretraining")
    plain = {field: value for field, value in fields.items() if field != "further_pretraining"}
    shipped = word.removeprefix(FURTHER_PREFIX)
    if word in recipe_names():
        recipe = Recipe.load(word, **plain)
    elif word.startswith(FURTHER_PREFIX) and shipped in recipe_names():
        recipe = Recipe.load(shipped, **plain, further_pretraining=stage or FURTHER_STAGE)
    elif Path(word).exists():  # last, so that a file in the working folder cannot replace a shipped recipe
        recipe, word = Recipe.load(name, **plain), Path(word).stem
    else:
        raise RecipeError(
            f"no recipe {word!r}",
            expected="a shipped recipe, `further-` and a shipped recipe, a baseline, or a YAML file",
            remedy=did_you_mean(word, [*recipe_names(), *DEFAULT_RECIPES]),
        )
    return Candidate(word, _title(word, recipe), recipe, _rate_grid(recipe, rates, head_rates), recipe.training.seed)


def _rate_grid(
    recipe: Recipe, rates: tuple[float, ...] | None, head_rates: tuple[float, ...] | None
) -> tuple[float, ...]:
    if recipe.training.optimizer == "lbfgs":
        return ()  # L-BFGS has no learning rate
    own = () if recipe.training.learning_rate == "auto" else recipe.training.learning_rate
    if recipe.way == "frozen":
        grid = head_rates or HEAD_RATES.get(recipe.head.kind, _OTHER_HEAD_RATES)
    else:
        grid = rates or RATES
    # A single rate is the default of a recipe; several are a choice of its author.
    return own if len(own) > 1 else grid


def _title(name: str, recipe: Recipe) -> str:
    """Describe a shipped recipe in words (without commas, as titles are listed); use the name of any other."""
    if name.removeprefix(FURTHER_PREFIX) not in ("finetune", "frozen-mlp", "frozen-linear", "frozen-standard"):
        return name
    kind = {"mlp": "MLP"}.get(recipe.head.kind, recipe.head.kind)
    base = "Fine-tuned base" if recipe.way == "finetune" else "Frozen base"
    plain = base if (recipe.way, kind) == ("finetune", "standard") else f"{base} with {kind} head"
    return f"{plain} after further pretraining" if recipe.further_pretraining else plain


def _check_same_rows(candidates: Sequence[Candidate]) -> None:
    """Raise RecipeError unless all recipes read the same columns and choose by the same metric."""
    recipes = {candidate.name: candidate.recipe for candidate in candidates if candidate.recipe is not None}
    first = next(iter(recipes))
    for name, recipe in recipes.items():
        one = recipes[first].data.model_dump() | {"metric": recipes[first].training.metric}
        other = recipe.data.model_dump() | {"metric": recipe.training.metric}
        different = [field for field in one if one[field] != other[field]]
        if different:
            raise RecipeError(
                "the recipes of a comparison must read the same rows and choose by the same metric",
                where=f"recipes {first!r} and {name!r}",
                expected="the same " + ", ".join(different),
                got="; ".join(f"{field}: {one[field]} and {other[field]}" for field in different),
                remedy="Pass " + " ".join(f"--{field.replace('_', '-')}" for field in different) + " for all of them.",
            )
