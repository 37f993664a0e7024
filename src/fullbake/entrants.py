"""Who takes part in a comparison: recipes by name or file, the same after further pretraining, and baselines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fullbake import baselines
from fullbake.config.recipe import Recipe, recipe_names
from fullbake.core.errors import RecipeError, did_you_mean
from fullbake.designs import Line

FURTHER: Final = "further-"
"""Before a shipped recipe's name: that recipe after further pretraining."""

STAGE: Final = "tapt"
"""The recipe whose further pretraining that is."""

DEFAULT: Final = (
    "finetune",
    "frozen-mlp",
    "frozen-linear",
    f"{FURTHER}finetune",
    f"{FURTHER}frozen-mlp",
    f"{FURTHER}frozen-linear",
    *baselines.NAMES,
)

RATES: Final = (5e-5, 2e-5, 3e-5, 4e-5)
"""For encoder weights: the grid of Devlin et al. 2019, in the order in which a smaller design takes them."""

HEAD_RATES: Final = {"mlp": (1e-2, 1e-3, 3e-3, 3e-4)}
"""For heads on frozen features, where a head has rates of its own that suit it."""

_OTHER_HEAD_RATES: Final = (1e-3, 1e-2, 3e-3, 3e-4)


@dataclass(frozen=True)
class Entrant:
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

    def line(self, seeds: int) -> Line:
        """As a design sees it."""
        count = seeds if self.lucky else 1
        return Line(self.name, self.rates, tuple(range(self.seed, self.seed + count)), self.further)

    def shortened(self, share: float) -> "Entrant":
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
        return Entrant(self.name, self.title, recipe, self.rates, self.seed)


def read_entrants(
    names: Sequence[str | Path],
    *,
    rates: tuple[float, ...] | None = None,
    head_rates: tuple[float, ...] | None = None,
    **fields: Any,
) -> list[Entrant]:
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
) -> Entrant:
    word = str(name)
    if word in baselines.NAMES:
        return Entrant(word, baselines.NAMES[word], None)
    stage = fields.get("further_pretraining")
    plain = {field: value for field, value in fields.items() if field != "further_pretraining"}
    shipped = word.removeprefix(FURTHER)
    if word in recipe_names():
        recipe = Recipe.load(word, **plain)
    elif word.startswith(FURTHER) and shipped in recipe_names():
        recipe = Recipe.load(shipped, **plain, further_pretraining=stage or STAGE)
    elif Path(word).exists():
        recipe, word = Recipe.load(name, **plain), Path(word).stem
    else:
        raise RecipeError(
            f"no recipe {word!r}",
            expected="a shipped recipe, `further-` and one, a baseline, or a YAML file",
            remedy=did_you_mean(word, [*recipe_names(), *DEFAULT]),
        )
    return Entrant(word, _title(word, recipe), recipe, _grid(recipe, rates, head_rates), recipe.training.seed)


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
    if name.removeprefix(FURTHER) not in ("finetune", "frozen-mlp", "frozen-linear", "frozen-standard"):
        return name
    kind = {"mlp": "MLP"}.get(recipe.head.kind, recipe.head.kind)
    base = "Fine-tuned base" if recipe.way == "finetune" else "Frozen base"
    plain = base if (recipe.way, kind) == ("finetune", "standard") else f"{base} with {kind} head"
    return f"{plain} after further pretraining" if recipe.further_pretraining else plain


def _check_rows(entrants: Sequence[Entrant]) -> None:
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
