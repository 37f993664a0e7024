"""Who takes part in a comparison, and how a recipe is made smaller.

Candidates are recipes (by name or file), the same recipes after further pretraining, and baselines. What of them runs,
and in which order, is decided in `schedule`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fullbake.comparison.schedule import PlannedRecipe, Size, WayGroup
from fullbake.config.pretraining import DEFAULT_BATCH, DEFAULT_PASSES, PretrainingConfig
from fullbake.config.recipe import Recipe, recipe_names
from fullbake.core.console import parse_duration
from fullbake.core.errors import RecipeError, did_you_mean
from fullbake.core.hashing import fingerprint
from fullbake.core.synonyms import RECIPE_SYNONYMS
from fullbake.training import baselines
from fullbake.training.rates import epochs_for

FEWEST_ROWS: Final = 200
"""Training rows are not cut below this number."""

FEWEST_ROWS_OF_CLASS: Final = 16
"""Nor below this number of rows of each class, or of label."""

ROW_STEP: Final = 0.7
"""Each share of rows that a comparison may be cut to, as a share of the one before."""

PRETRAINING_SHARES: Final = (1.0, 0.3, 0.1, 0.03)
"""Shares of further pretraining that may run, as long as they are more than one pass over the rows."""

PASSES: Final = (1.0, 0.5, 0.25, 0.125)
"""Passes over the rows that a shorter further pretraining may have."""

EPOCH_SHARES: Final = (1.0, 0.5, 0.25)
"""Shares of the epochs of fine-tuning that may run."""


def row_shares(rows: int, classes: int) -> tuple[float, ...]:
    """Return the shares of the training rows that a comparison may be cut to, from 1 downwards.

    Args:
        rows: training rows.
        classes: number of classes or labels.
    """
    fewest = min(max(FEWEST_ROWS, FEWEST_ROWS_OF_CLASS * classes) / max(rows, 1), 1.0)
    shares = [1.0]
    while shares[-1] * ROW_STEP > fewest:
        shares.append(shares[-1] * ROW_STEP)
    return tuple(shares) if shares[-1] <= fewest else (*shares, fewest)


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


@dataclass(frozen=True)
class Candidate:
    """A recipe or a baseline that takes part in a comparison."""

    name: str
    """Unique within the comparison, such as `further-finetune`."""
    title: str
    """The name shown to people."""
    recipe: Recipe | None
    """None for a baseline."""
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

    def planned(self, seeds: int, rows: int) -> PlannedRecipe:
        """Return what the schedule needs to know of it.

        Args:
            seeds: how many seeds are asked for.
            rows: training rows.
        """
        count = seeds if self.depends_on_seed else 1
        recipe, own = self.recipe, tuple(range(self.seed, self.seed + count))
        if recipe is None:
            return PlannedRecipe(self.name, "baseline", own)
        way: WayGroup = "further" if self.further_pretrained else recipe.way
        possible = EPOCH_SHARES if recipe.way == "finetune" else EPOCH_SHARES[:1]
        counts = {max(round(epochs_of(recipe, rows) * share), 1): share for share in reversed(possible)}
        epochs = tuple(sorted(counts.values(), reverse=True))  # of shares with equal epochs the larger one
        if recipe.further_pretraining is None:
            return PlannedRecipe(self.name, way, own, epochs=epochs)
        stage = fingerprint(str(recipe.base), recipe.stage.model_dump(mode="json"))
        one_pass = min(1 / pretraining_passes(recipe, rows), 1.0)
        return PlannedRecipe(self.name, way, own, stage, pretraining_shares(recipe, rows), one_pass, epochs)


def epochs_of(recipe: Recipe, rows: int) -> int:
    """Return the epochs of a classifier's training, raised where the rows are few."""
    return epochs_for(recipe.training, rows)


def pretraining_passes(recipe: Recipe, rows: int) -> float:
    """Return how many passes over the training rows a recipe's further pretraining has, about."""
    stage = recipe.stage
    if stage.steps is None:
        return float(stage.epochs or DEFAULT_PASSES)
    return stage.steps * _rows_of_step(stage) / max(rows, 1)


def _rows_of_step(stage: PretrainingConfig) -> int:
    return (stage.batch_size or DEFAULT_BATCH) * stage.gradient_accumulation


def pretraining_shares(recipe: Recipe, rows: int) -> tuple[float, ...]:
    """Return the shares of a recipe's further pretraining that may run, from 1 downwards to a part of one pass."""
    passes = pretraining_passes(recipe, rows)
    long = [share for share in PRETRAINING_SHARES if share * passes > 1]
    short = [count / passes for count in PASSES if count < passes]
    return tuple(dict.fromkeys([1.0, *long, *short]))


def at_size(recipe: Recipe, size: Size, rows: int) -> Recipe:
    """Return a recipe that runs the given share of its epochs and of its further pretraining.

    Args:
        recipe: the whole recipe.
        size: the shares; rows are cut elsewhere.
        rows: training rows that it will have.
    """
    if size.epochs != 1:
        recipe = recipe.with_fields(epochs=max(round(epochs_of(recipe, rows) * size.epochs), 1), min_steps=0)
    if size.pretraining == 1 or recipe.further_pretraining is None:
        return recipe
    stage, changed = recipe.stage, dict[str, Any]()
    passes = pretraining_passes(recipe, rows) * size.pretraining
    if stage.steps is None and passes >= 1:
        changed["epochs"] = round(passes)
    else:
        steps = passes * rows / _rows_of_step(stage)
        fewest = math.ceil(1 / min(stage.lengths.values()))  # each phase needs a step
        changed |= {"steps": max(round(steps), fewest), "epochs": None}
    if stage.warmup_steps is not None:
        changed["warmup_steps"] = int(stage.warmup_steps * size.pretraining)
    return recipe.with_fields(further_pretraining=stage.model_dump(mode="json") | changed)


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
        rates: Learning rates for recipes that train the base and name none themselves. Of several, validation chooses.
        head_rates: The same for heads on a frozen base.
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
            remedy=did_you_mean(word, [*recipe_names(), *DEFAULT_RECIPES], RECIPE_SYNONYMS),
        )
    if "learning_rate" not in fields:
        recipe = _with_rates(recipe, head_rates if recipe.way == "frozen" else rates, shipped in recipe_names())
    return Candidate(word, _title(word, recipe), recipe, recipe.training.seed)


def _with_rates(recipe: Recipe, given: tuple[float, ...] | None, shipped: bool) -> Recipe:
    """Return the recipe with the rates that a comparison tries.

    A file's own rates are the choice of its author. Of the shipped recipes, `frozen-mlp` has the one rate that was
    published; a comparison lets validation choose among four, which train together on the same features.
    """
    if recipe.training.optimizer == "lbfgs" or (not shipped and recipe.training.learning_rate != "auto"):
        return recipe
    if given is not None:
        return recipe.with_fields(learning_rate=given)
    searched = recipe.way == "frozen" and recipe.head.kind == "mlp"
    return recipe.with_fields(learning_rate="auto") if searched else recipe


def _title(name: str, recipe: Recipe) -> str:
    """Describe a shipped recipe in words (without commas, as titles are listed); use the name of any other."""
    if name.removeprefix(FURTHER_PREFIX) not in ("finetune", "frozen-mlp", "frozen-linear", "frozen-standard"):
        return name
    kind = {"mlp": "MLP"}.get(recipe.head.kind, recipe.head.kind)
    base = "Fine-tuned base" if recipe.way == "finetune" else "Frozen base"
    named_head = name.removeprefix(FURTHER_PREFIX) != "finetune"
    plain = f"{base} with {kind} head" if named_head else base
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
