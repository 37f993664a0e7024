"""What a run is: the frozen models of a recipe, read from YAML and overridden field by field.

Every leaf field has a name of its own across all sections, so that the field, the key word of `Recipe.load` and the
command-line flag are one word. The price: two sections may not use the same word (a test holds that).
Imports no torch, so that `fullbake --help` stays quick.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fullbake.errors import RecipeError, did_you_mean
from fullbake.metrics import SELECTION

Way = Literal["finetune", "frozen"]
HeadKind = Literal["standard", "linear", "mlp"]
Pooling = Literal["cls", "mean", "max", "cls+mean"]
Truncation = Literal["head", "tail", "head+tail"]
Padding = Literal["longest", "max_length"]
Optimizer = Literal["adamw", "adam", "lbfgs"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16"]


def _numbers(value: object) -> object:
    """`5e-5,4e-5` from a command line, one number, or a list of them -> a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value if isinstance(value, list | tuple) else [value]


def _share_or_source(value: object) -> object:
    """`0.2` from a command line is a share, anything that is no number a file or a hub id."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _known_metric(value: object) -> object:
    if value not in SELECTION:
        raise ValueError(did_you_mean(str(value), SELECTION))
    return value


Rate = Annotated[float, Field(gt=0, lt=1)]
Rates = Annotated[tuple[Rate, ...], BeforeValidator(_numbers), Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Part = Annotated[Share | str, BeforeValidator(_share_or_source)]
Metric = Annotated[str, BeforeValidator(_known_metric)]


class Section(BaseModel):
    """A part of a recipe: frozen, no unknown fields, the line under a field is its help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=False, allow_inf_nan=False
    )


class DataConfig(Section):
    """Which columns, and which rows choose and score."""

    text: str = "text"
    """Column that holds the texts."""

    label: str = "label"
    """Column that holds the labels. They keep their spelling."""

    validation: Part = 0.2
    """Rows that choose the epoch and the rate: a share of the training file, or a file."""

    test: Part | None = None
    """Rows that are scored once, at the end: a share of the training file, or a file. Default: none."""

    split_seed: int = Field(0, ge=0)
    """Seed of the split into parts, apart from the seed of training."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Field separator of text files. Default: by extension."""

    encoding: str = "utf-8"
    """Encoding of text files (a byte order mark is allowed)."""

    drop_unlabelled: bool = False
    """Leave rows with an empty label out, instead of refusing the file."""

    drop_overlap: bool = False
    """Leave training rows out whose text also stands in a given validation or test file."""

    allow_overlap: bool = False
    """Accept such rows. The run and every report made from it say so."""

    @model_validator(mode="after")
    def _one_way_with_overlap(self) -> Self:
        if self.drop_overlap and self.allow_overlap:
            raise ValueError("drop_overlap and allow_overlap exclude each other")
        return self


class TokensConfig(Section):
    """How a text becomes token ids, and how ids are batched."""

    max_length: Annotated[int, Field(ge=4)] | None = None
    """Longest input in tokens, special ones included. Default: what the base can take (512 for BERT)."""

    truncation: Truncation = "head"
    """Which end of a longer text is kept; `head+tail` keeps 128 + 382 of 512 (Sun et al. 2019, arXiv 1905.05583)."""

    padding: Padding = "longest"
    """Pad to the longest text of a batch, or always to max_length."""

    token_budget: Annotated[int, Field(ge=1)] = 2048
    """Most tokens, padding included, that one forward pass takes. Cuts batches; changes results by rounding only."""


class HeadConfig(Section):
    """What stands on top of the encoder."""

    kind: HeadKind = "standard"
    """`standard` (the architecture's own), `linear`, or `mlp` (dropout, then dense + batch norm + ReLU blocks)."""

    pooling: Pooling | None = None
    """How token vectors become one: cls, mean, max or cls+mean. Default: cls, unless the base names its own."""

    dropout: float = Field(0.15, ge=0, lt=1)
    """Dropout before the blocks of an `mlp` head."""

    layers: int = Field(2, ge=1, le=16)
    """Blocks of an `mlp` head."""

    width: Annotated[int, Field(ge=1)] | None = None
    """Units of each block. Default: as wide as the base (768 for BERT)."""

    l2: float = Field(0.01, ge=0)
    """Times the sum of squared kernel weights of an `mlp` head's output layer, added to the mean loss."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value


class TrainingConfig(Section):
    """How weights are moved, for how long, and what chooses among the results."""

    optimizer: Optimizer = "adamw"
    """`adamw`, `adam`, or `lbfgs` (a frozen base under a `linear` head only: scikit-learn's logistic regression)."""

    learning_rate: Rates = (5e-5,)
    """Peak rate; several, as in 5e-5,4e-5,3e-5,2e-5, are each trained and validation chooses. 4e-4 on the whole base
    does not converge (Sun et al. 2019, fig. 2)."""

    batch_size: int = Field(32, ge=1)
    """Rows in a batch."""

    gradient_accumulation: int = Field(1, ge=1)
    """Batches in one optimizer step."""

    epochs: int = Field(3, ge=1)
    """Passes over the training rows."""

    schedule: Schedule = "linear"
    """Decay of the rate after warm-up: linear or cosine to 0, or constant."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises from 0 to its peak."""

    weight_decay: float = Field(0.01, ge=0)
    """Decoupled under adamw; never on biases and norms."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer's rate over that of the layer above it; 0.95 in Sun et al. 2019, 1 is no decay."""

    freeze_layers: Annotated[int, Field(ge=0)] | None = None
    """Hold the embeddings and the lowest N layers of the base fixed (0: the embeddings alone)."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients longer than this are scaled down to it."""

    precision: Precision = "auto"
    """`auto` takes bf16 where a GPU has it, fp32 elsewhere."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many epochs without a better validation metric. Default: run all epochs."""

    metric: Metric = "f1_macro"
    """What chooses the epoch and the rate on validation, as scikit-learn spells it."""

    seed: int = Field(0, ge=0)
    """Seed of head initialization, shuffling and dropout."""


class Recipe(Section):
    """One run's whole configuration: base, way, head, training, data handling."""

    base: str
    """Pretrained encoder: a folder in Hugging Face format, a hub id, or `demo` (all-MiniLM-L6-v2, packaged)."""

    way: Way = "finetune"
    """`finetune` trains the base's weights; `frozen` computes its features once and trains a head alone."""

    head: HeadConfig = HeadConfig()
    training: TrainingConfig = TrainingConfig()
    tokens: TokensConfig = TokensConfig()
    data: DataConfig = DataConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
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

    def with_fields(self, **overrides: Any) -> "Recipe":
        """This recipe with some leaf fields set otherwise (None too sets)."""
        values = self.model_dump()
        for field, value in overrides.items():
            _put(values, FIELDS[field], value)
        return _validated(values, [], where="recipe")

    def to_yaml(self) -> str:
        """Every field, in the form that `load` reads back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


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
    folder = resources.files("fullbake") / "recipes"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(".yaml"): entry.read_text("utf-8").splitlines()[0].removeprefix("# ") for entry in files
    }


def _read_recipe(source: str | Path) -> dict[str, Any]:
    shipped = resources.files("fullbake") / "recipes" / f"{source}.yaml"
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
