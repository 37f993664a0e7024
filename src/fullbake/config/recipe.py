"""What a run is: a recipe of sections, read from YAML and overridden field by field, every fault told at once.

Imports no torch, so that `fullbake --help` stays quick.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fullbake.config.fields import HeadKind, Section, Way
from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.sections import DataConfig, DecisionConfig, HeadConfig, TokensConfig, TrainingConfig
from fullbake.core.errors import RecipeError, did_you_mean


def _stage(value: object) -> object:
    """`tapt` from a command line -> that recipe's stage; `objective=mlm;steps=200` -> {"objective": "mlm", ...}."""
    if not isinstance(value, str):
        return value
    if "=" in value:
        return {name.strip(): word.strip() for name, _, word in (part.partition("=") for part in value.split(";"))}
    found = _read_recipe(value).get("further_pretraining")
    if found is None:
        raise ValueError(f"recipe {value!r} has no further pretraining")
    return found


class Recipe(Section):
    """One run's whole configuration: base, way, head, training, data handling."""

    base: str
    """Pretrained encoder: a folder in Hugging Face format, a hub id, or `demo` (all-MiniLM-L6-v2, packaged)."""

    way: Way = "finetune"
    """`finetune` trains the base's weights; `frozen` computes its features once and trains a head alone."""

    further_pretraining: Annotated[PretrainingConfig | None, BeforeValidator(_stage)] = None
    """Let the base learn from raw text first (way 1): a recipe whose stage is taken (`tapt`), or single fields of it as
    in "objective=mlm;steps=200". Default: no such stage."""

    head: HeadConfig = HeadConfig()
    training: TrainingConfig = TrainingConfig()
    tokens: TokensConfig = TokensConfig()
    data: DataConfig = DataConfig()
    decision: DecisionConfig = DecisionConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        faults = list(_misfits(self))
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @classmethod
    def load(cls, source: str | Path | None = None, /, **overrides: Any) -> "Recipe":
        """A shipped recipe by name, a YAML file, or the recipe that a bundle was made by, with single fields set
        otherwise.

        source: name, file, folder of a bundle, or None for the shipped recipe that fits the `way` and `head` among
        the overrides. overrides: any leaf field by its own name (`learning_rate=3e-5`, `head="mlp"`); None leaves it
        as it is. Raises RecipeError that lists every fault at once.
        """
        given = {name: value for name, value in overrides.items() if value is not None}
        name = source if source is not None else default_recipe(given.get("way"), given.get("head"))
        values = _read_recipe(name)
        faults = []
        for field, value in given.items():
            if field in FIELDS:
                _put(values, FIELDS[field], value)
            else:
                faults.append(f"{field}: there is no such field. {did_you_mean(field, FIELDS)}")
        return _validated(values, faults, where=f"recipe {str(name)!r}")

    @classmethod
    def load_stage(cls, source: str | Path | None = None, /, **overrides: Any) -> PretrainingConfig:
        """The further pretraining of a recipe (None: every default), with single fields of it set otherwise. Raises
        RecipeError."""
        values = {} if source is None else _read_recipe(source).get("further_pretraining")
        if values is None:
            raise RecipeError(f"recipe {str(source)!r} has no section further_pretraining")
        given = {name: value for name, value in overrides.items() if value is not None}
        excluded = {other for name in given for other in _EXCLUDED.get(name, ())}
        kept = {name: value for name, value in values.items() if name not in excluded}
        return _validated({"base": "none", "further_pretraining": kept | given}, [], f"recipe {str(source)!r}").stage

    @property
    def stage(self) -> PretrainingConfig:
        """The further pretraining; ask only where there is one."""
        assert self.further_pretraining is not None
        return self.further_pretraining

    def with_fields(self, **overrides: Any) -> "Recipe":
        """This recipe with some leaf fields set otherwise (None too sets)."""
        values = self.model_dump()
        for field, value in overrides.items():
            _put(values, FIELDS[field], value)
        return _validated(values, [], where="recipe")

    def to_yaml(self) -> str:
        """Every field, in the form that `load` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


_EXCLUDED = {
    "steps": ("epochs", "warmup_steps"),
    "epochs": ("steps", "warmup_steps"),
    "max_length": ("phases",),
    "phases": ("max_length",),
    "batch_size": ("batch_tokens",),
    "batch_tokens": ("batch_size",),
    "warmup": ("warmup_steps",),
}
"""Fields of further pretraining that give way to one that is set over a recipe's."""


def _misfits(recipe: Recipe) -> list[str]:
    head, training = recipe.head, recipe.training
    frozen = recipe.way == "frozen"
    rules = {
        "pooling: the standard head reads what its architecture reads; leave pooling out, or take head linear or mlp": (
            head.kind == "standard" and head.pooling is not None
        ),
        "optimizer: lbfgs fits way frozen with head linear alone; take adamw": (
            training.optimizer == "lbfgs" and not (frozen and head.kind == "linear")
        ),
        "freeze_layers: way frozen holds every layer fixed; take way finetune or leave it out": (
            frozen and training.freeze_layers is not None
        ),
        "layer_decay: way frozen trains no layer of the base; take way finetune or leave it out": (
            frozen and training.layer_decay != 1
        ),
        "loss: lbfgs fits plain cross entropy; take optimizer adamw for focal": (
            training.optimizer == "lbfgs" and training.loss != "cross_entropy"
        ),
        "label_smoothing: lbfgs fits plain cross entropy; take optimizer adamw for smoothing": (
            training.optimizer == "lbfgs" and training.label_smoothing > 0
        ),
        "label_smoothing: it has no meaning together with focal; take one of the two": (
            training.loss == "focal" and training.label_smoothing > 0
        ),
        "sampling: lbfgs sees all rows at once; take class_weights balanced": (
            training.optimizer == "lbfgs" and training.sampling != "shuffle"
        ),
        "truncation: of a pair of texts the longer one is cut at its end; take head or leave it out": (
            recipe.data.text_pair is not None and recipe.tokens.truncation != "head"
        ),
        "stride: it is for truncation windows (or auto)": (
            recipe.tokens.stride is not None and recipe.tokens.truncation not in ("windows", "auto")
        ),
        "batch_size: the mlp head's batch norm needs at least 2 rows": head.kind == "mlp" and training.batch_size < 2,
    }
    return [fault for fault, broken in rules.items() if broken]


def default_recipe(way: str | None, head: str | None) -> str:
    """Name of the shipped recipe whose defaults suit a way and a head."""
    if way == "frozen":
        return f"frozen-{head}" if head in get_args(HeadKind) else "frozen-mlp"
    return "finetune"


def recipe_names() -> dict[str, str]:
    """The shipped recipes: name -> the one-line description at the head of its file."""
    folder = resources.files("fullbake") / "resources" / "recipes"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(".yaml"): entry.read_text("utf-8").splitlines()[0].removeprefix("# ") for entry in files
    }


def _read_recipe(source: str | Path) -> dict[str, Any]:
    shipped = resources.files("fullbake") / "resources" / "recipes" / f"{source}.yaml"
    if isinstance(source, str) and source in recipe_names():
        return _parsed(shipped.read_text("utf-8"), str(source))
    path = Path(source)
    if (path / "fullbake.json").is_file():
        return dict(_parsed((path / "fullbake.json").read_text("utf-8"), str(path))["recipe"])
    if not path.is_file():
        raise RecipeError(
            f"no recipe {str(source)!r}",
            expected="the name of a shipped recipe, a YAML file, or a bundle",
            remedy=did_you_mean(str(source), recipe_names()),
        )
    return _parsed(path.read_text("utf-8"), str(path))


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError("this is not YAML", where=where, got=" ".join(str(error).split())) from error
    if not isinstance(values, dict):
        raise RecipeError("a recipe maps fields to values", where=where, got=type(values).__name__)
    return values


def _put(values: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for key in path[:-1]:
        inner = values.get(key)
        values[key] = {"kind": inner} if isinstance(inner, str) else dict(inner or {})
        values = values[key]
    values[path[-1]] = value


def _validated(values: dict[str, Any], faults: list[str], where: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        faults = faults + [_explained(fault) for fault in error.errors()]
    if faults:
        raise RecipeError(_counted(faults), where=where, remedy="\n".join(f"- {fault}" for fault in faults))
    return recipe


def _counted(faults: list[str]) -> str:
    return "one field is wrong" if len(faults) == 1 else f"{len(faults)} fields are wrong"


def _explained(fault: Mapping[str, Any]) -> str:
    """One pydantic fault as `section.field: expected ..., got ...`, with the fix where a name was mistyped."""
    place = ".".join(str(part) for part in fault["loc"] if not (isinstance(part, str) and "[" in part))
    if fault["type"] == "extra_forbidden":
        return f"{place}: there is no such field. {did_you_mean(str(fault['loc'][-1]), FIELDS)}"
    if fault["type"] == "missing":
        return f"{place}: missing. Name it in the recipe, or pass --{place} (`demo` is the packaged base)."
    if fault["type"] == "literal_error":
        return f"{place}: {did_you_mean(str(fault['input']), _choices(fault))} Got {fault['input']!r}."
    message = (
        fault["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1).removesuffix(".") + "."
    )
    got = "" if isinstance(fault["input"], dict | BaseModel) else f" Got {fault['input']!r}."
    return f"{place}: {message}{got}" if place else message


def _choices(fault: Mapping[str, Any]) -> list[str]:
    return [part.strip(" '") for part in fault["ctx"]["expected"].replace(" or ", ",").split(",")]


def leaf_fields() -> dict[str, tuple[str, FieldInfo]]:
    """Every leaf field by its flag name: (section title, pydantic's field). `head.kind` goes by the name `head`."""
    return {name: (_section_title(path), _field_at(path)) for name, path in FIELDS.items()}


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The words a Literal field takes, () where the field is free."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        return next((choices_of(inner) for inner in get_args(annotation) if choices_of(inner)), ())
    return ()


def _paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found.update(_paths(field.annotation, path))
        else:
            found[prefix[-1] if name == "kind" else name] = path
    return found


def _field_at(path: tuple[str, ...]) -> FieldInfo:
    model: type[BaseModel] = Recipe
    for key in path[:-1]:
        inner = model.model_fields[key].annotation
        assert isinstance(inner, type)
        model = inner
    return model.model_fields[path[-1]]


def _section_title(path: tuple[str, ...]) -> str:
    return path[0].capitalize() if len(path) > 1 else "Recipe"


FIELDS: dict[str, tuple[str, ...]] = _paths(Recipe)
"""Flag name of every leaf field -> where it stands in a recipe."""
