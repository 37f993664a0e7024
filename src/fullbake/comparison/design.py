"""How large a comparison is: which cells there are, and the largest design that is expected to fit a budget.

Pure arithmetic: what a design costs is given as a function. When time is short, rates go first, then the length of
further pretraining, then seeds down to two; then whole recipes, the dearest first. A recipe that is in the design has
as many rates to choose from as every other one, or the comparison would reward search and not the way.

Who takes part in a comparison: recipes by name or file, the same after further pretraining, and baselines.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fullbake.comparison import baselines
from fullbake.config.recipe import Recipe, recipe_names
from fullbake.core.errors import RecipeError, did_you_mean

TRAINING_SHARES: Final = (1.0, 0.3, 0.1, 0.03)
"""Shares of further pretraining's own length that may be run."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Trial:
    """One training: a recipe, one of its rates (None where it has none), a seed, and the fold (None without folds)."""

    entrant: str
    rate: float | None
    seed: int
    fold: int | None = None

    @property
    def id(self) -> str:
        """As `leaderboard.json` and the folder `cells/` have it: `finetune/5e-05/0`, `finetune/fold-1/5e-05/0`."""
        fold = [] if self.fold is None else [f"fold-{self.fold + 1}"]
        return "/".join([self.entrant, *fold, "only" if self.rate is None else f"{self.rate:g}", str(self.seed)])


@dataclass(frozen=True)
class RecipePlan:
    """A recipe as a design sees it. rates: in the order of preference, () where there are none. seeds: likewise; one
    alone where luck plays no part. further: whether further pretraining comes first."""

    name: str
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    further: bool = False

    def cells(self, rates: int, seeds: int, folds: int | None) -> list[Trial]:
        """Its cells with so many rates and seeds."""
        return [
            Trial(self.name, rate, seed, fold)
            for fold in (range(folds) if folds else (None,))
            for seed in self.seeds[:seeds]
            for rate in (self.rates[:rates] or (None,))
        ]


@dataclass(frozen=True)
class Design:
    """Which recipes take part, with how many rates and seeds, and the share of further pretraining's length."""

    names: tuple[str, ...]
    rates: int
    seeds: int
    share: float = 1.0

    def cells(self, lines: Sequence[RecipePlan], folds: int | None) -> list[Trial]:
        """All trainings, recipe by recipe."""
        taken = [line for line in lines if line.name in self.names]
        return [cell for line in taken for cell in line.cells(self.rates, self.seeds, folds)]


def full_design(lines: Sequence[RecipePlan]) -> Design:
    """Everything that was asked for."""
    rates = max((len(line.rates) for line in lines), default=0)
    return Design(tuple(line.name for line in lines), max(rates, 1), max(len(line.seeds) for line in lines))


def smaller_designs(lines: Sequence[RecipePlan], dearest: Sequence[str]) -> Iterator[Design]:
    """The full design, then ever smaller ones. dearest: names that may be left out, in that order."""
    full = full_design(lines)
    counts = list(dict.fromkeys((full.rates, max(full.rates // 2, 1), 1)))
    fewest = min(full.seeds, 2)
    for gone in range(len(dearest) + 1):
        names = tuple(name for name in full.names if name not in dearest[:gone])
        shares = TRAINING_SHARES if any(line.further for line in lines if line.name in names) else TRAINING_SHARES[:1]
        last = gone == len(dearest)
        for seeds in range(full.seeds, 0 if last else fewest - 1, -1):
            for share in shares:
                yield from (Design(names, rates, seeds, share) for rates in counts)


def pick_design(designs: Iterator[Design], cost: Callable[[Design], float], seconds: float) -> Design | None:
    """The first design that is expected to fit; None where none is."""
    return next((design for design in designs if cost(design) <= seconds), None)


def describe_left_out(full: Design, chosen: Design, reason: str) -> list[str]:
    """What the chosen design has less than the full one, in words. reason: why recipes are not in."""
    words = [f"{name}: {reason}" for name in full.names if name not in chosen.names]
    if chosen.rates < full.rates:
        words.append(f"learning rates: {chosen.rates} of up to {full.rates} for each recipe")
    if chosen.seeds < full.seeds:
        words.append(f"seeds: {chosen.seeds} of {full.seeds}")
    if chosen.share < full.share:
        words.append(f"further pretraining: {chosen.share:.0%} of its own length")
    return words


def parse_duration(text: str) -> float:
    """`90s`, `10m` or `1h` -> seconds. Raises RecipeError for anything else."""
    found = _DURATION.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise RecipeError("the budget is no time", expected="a time such as 90s, 10m or 1h", got=repr(text))
    return float(found[1]) * _SECONDS[found[2]]


FURTHER_PREFIX: Final = "further-"
"""Before a shipped recipe's name: that recipe after further pretraining."""

FURTHER_STAGE: Final = "tapt"
"""The recipe whose further pretraining that is."""

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
"""For encoder weights: the grid of Devlin et al. 2019, in the order in which a smaller design takes them."""

HEAD_RATES: Final = {"mlp": (1e-2, 1e-3, 3e-3, 3e-4)}
"""For heads on frozen features, where a head has rates of its own that suit it."""

_OTHER_HEAD_RATES: Final = (1e-3, 1e-2, 3e-3, 3e-4)


@dataclass(frozen=True)
class Candidate:
    """One side of the comparison. recipe: None for a baseline. rates: to choose from, () where it has none. seed: the
    first of its seeds."""

    name: str
    title: str
    recipe: Recipe | None
    rates: tuple[float, ...] = ()
    seed: int = 0

    @property
    def way(self) -> str:
        """finetune, frozen or baseline."""
        return "baseline" if self.recipe is None else self.recipe.way

    @property
    def further(self) -> bool:
        """Whether further pretraining comes first."""
        return self.recipe is not None and self.recipe.further_pretraining is not None

    @property
    def lucky(self) -> bool:
        """Whether another seed gives another result."""
        return self.recipe is not None and self.recipe.training.optimizer != "lbfgs"

    def line(self, seeds: int) -> RecipePlan:
        """As a design sees it."""
        count = seeds if self.lucky else 1
        return RecipePlan(self.name, self.rates, tuple(range(self.seed, self.seed + count)), self.further)

    def shortened(self, share: float) -> "Candidate":
        """With that share of its further pretraining."""
        if share == 1 or self.recipe is None or self.recipe.further_pretraining is None:
            return self
        stage, given = self.recipe.stage, {}
        if stage.steps is not None:
            given["steps"] = max(round(stage.steps * share), 1)
        else:
            given["epochs"] = max(round((stage.epochs or 3) * share), 1)
        if stage.warmup_steps is not None:
            given["warmup_steps"] = int(stage.warmup_steps * share)
        fields = stage.model_dump(mode="json") | given
        recipe = self.recipe.with_fields(further_pretraining=fields)
        return Candidate(self.name, self.title, recipe, self.rates, self.seed)


def read_candidates(
    names: Sequence[str | Path],
    *,
    rates: tuple[float, ...] | None = None,
    head_rates: tuple[float, ...] | None = None,
    **fields: Any,
) -> list[Candidate]:
    """The entrants by these names: shipped recipes, `further-` and a shipped recipe, baselines, or YAML files.

    rates, head_rates: what encoders and heads choose from, in place of the grids here; a recipe that names several
    rates itself keeps them. fields: of every recipe. Raises RecipeError for what is not known, stands twice, or reads
    other columns than the rest.
    """
    entrants = [_entrant(name, rates, head_rates, fields) for name in names]
    known = [entrant.name for entrant in entrants]
    twice = next((name for name in known if known.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(
            f"two recipes are called {twice!r}", remedy="Name the files otherwise: a recipe goes by its file's name."
        )
    if all(entrant.recipe is None for entrant in entrants):
        raise RecipeError("there is no recipe to compare", got=", ".join(known) or "none", remedy="Name one: finetune.")
    _check_rows(entrants)
    return entrants


def _entrant(
    name: str | Path, rates: tuple[float, ...] | None, head_rates: tuple[float, ...] | None, fields: dict[str, Any]
) -> Candidate:
    word = str(name)
    if word in baselines.BASELINE_NAMES:
        return Candidate(word, baselines.BASELINE_NAMES[word], None)
    stage = fields.get("further_pretraining")
    plain = {field: value for field, value in fields.items() if field != "further_pretraining"}
    shipped = word.removeprefix(FURTHER_PREFIX)
    if word in recipe_names():
        recipe = Recipe.load(word, **plain)
    elif word.startswith(FURTHER_PREFIX) and shipped in recipe_names():
        recipe = Recipe.load(shipped, **plain, further_pretraining=stage or FURTHER_STAGE)
    elif Path(word).exists():
        recipe, word = Recipe.load(name, **plain), Path(word).stem
    else:
        raise RecipeError(
            f"no recipe {word!r}",
            expected="a shipped recipe, `further-` and one, a baseline, or a YAML file",
            remedy=did_you_mean(word, [*recipe_names(), *DEFAULT_RECIPES]),
        )
    return Candidate(word, _title(word, recipe), recipe, _grid(recipe, rates, head_rates), recipe.training.seed)


def _grid(recipe: Recipe, rates: tuple[float, ...] | None, head_rates: tuple[float, ...] | None) -> tuple[float, ...]:
    if recipe.training.optimizer == "lbfgs":
        return ()
    own = recipe.training.learning_rate
    if recipe.way == "frozen":
        grid = head_rates or HEAD_RATES.get(recipe.head.kind, _OTHER_HEAD_RATES)
    else:
        grid = rates or RATES
    return own if len(own) > 1 else grid


def _title(name: str, recipe: Recipe) -> str:
    """What people call it: of shipped recipes in words (without commas: titles stand in lists), of a file its name."""
    if name.removeprefix(FURTHER_PREFIX) not in ("finetune", "frozen-mlp", "frozen-linear", "frozen-standard"):
        return name
    kind = {"mlp": "MLP"}.get(recipe.head.kind, recipe.head.kind)
    base = "Fine-tuned base" if recipe.way == "finetune" else "Frozen base"
    plain = base if (recipe.way, kind) == ("finetune", "standard") else f"{base} with {kind} head"
    return f"{plain} after further pretraining" if recipe.further_pretraining else plain


def _check_rows(entrants: Sequence[Candidate]) -> None:
    """All read the same rows by the same columns and choose by the same metric."""
    recipes = {entrant.name: entrant.recipe for entrant in entrants if entrant.recipe is not None}
    first = next(iter(recipes))
    for name, recipe in recipes.items():
        one = recipes[first].data.model_dump() | {"metric": recipes[first].training.metric}
        other = recipe.data.model_dump() | {"metric": recipe.training.metric}
        differing = [field for field in one if one[field] != other[field]]
        if differing:
            raise RecipeError(
                "recipes of one comparison read the same rows and choose by the same metric",
                where=f"recipes {first!r} and {name!r}",
                expected="the same " + ", ".join(differing),
                got="; ".join(f"{field}: {one[field]} and {other[field]}" for field in differing),
                remedy="Pass " + " ".join(f"--{field.replace('_', '-')}" for field in differing) + " for all of them.",
            )
