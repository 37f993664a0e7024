"""The recipe: the whole configuration of a run, read from YAML, with single fields set by flags or keywords.

All errors of a recipe are collected and raised at once, so that a user fixes them in one round. The trade-off: the
messages of pydantic are translated here into the form that all errors of fullbake have. Nothing heavy is imported,
because `fullbake --help` loads this module.
"""

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fullbake.config.fields import Section, Way, parse_none
from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.sections import DataConfig, DecisionConfig, Dialect, HeadConfig, TokensConfig, TrainingConfig
from fullbake.config.unknown_fields import describe_unknown_field
from fullbake.core import storage
from fullbake.core.arguments import PATH, as_plain_value, describe_value, require_type
from fullbake.core.errors import RecipeError, did_you_mean
from fullbake.core.markup import join, notebook_block, tag, value_table
from fullbake.core.synonyms import RECIPE_SYNONYMS, VALUE_SYNONYMS, right_name


def _parse_stage(value: object) -> object:
    """Turn the text of a flag into the fields of further pretraining; a mapping stays.

    `tapt` gives the fields of that recipe's section; `objective=mlm;steps=200` gives these two fields.
    """
    if not isinstance(value, str):
        return value
    if "=" in value:
        return {name.strip(): word.strip() for name, _, word in (part.partition("=") for part in value.split(";"))}
    found = _read_recipe(value).get("further_pretraining")
    if found is None:
        raise ValueError(f"recipe {value!r} has no section further_pretraining")
    return found


class _RecipeFields(Section):
    """The fields of a recipe and the rules between them, with the errors of pydantic."""

    base: str
    """The pretrained encoder: a folder in Hugging Face format, a hub id, or `demo` (the packaged all-MiniLM-L6-v2)."""

    way: Way = "finetune"
    """`finetune` trains the weights of the base and a head. `frozen` computes the features of the base once and trains
    only a head on them."""

    further_pretraining: Annotated[PretrainingConfig | None, BeforeValidator(_parse_stage)] = None
    """Train the base on raw text first: the name of a recipe whose fields are taken (`tapt`), or single fields such as
    "objective=mlm;steps=200". Default: no further pretraining."""

    head: HeadConfig = HeadConfig()
    training: TrainingConfig = TrainingConfig()
    tokens: TokensConfig = TokensConfig()
    data: DataConfig = DataConfig()
    decision: DecisionConfig = DecisionConfig()

    @model_validator(mode="after")
    def _check_sections(self) -> Self:
        conflicts = _conflicts(self)
        if conflicts:
            raise ValueError("; ".join(conflicts))
        return self


class Recipe(_RecipeFields):
    """The whole configuration of one run.

    Args:
        **values: Sections, or single fields by their short names as in `load`. What is not named has the default of the
            field; `load` takes the values of a shipped recipe instead, which were measured.

    Raises:
        RecipeError: Fields are wrong; all wrong fields are listed.
    """

    def __init__(self, *sources: object, **values: Any) -> None:
        if sources:
            raise RecipeError(
                "Recipe(...) takes fields by name",
                got=describe_value(sources[0]),
                remedy="For a shipped recipe, a YAML file or a bundle there is Recipe.load('finetune', base='demo').",
            )
        try:
            super().__init__(**_nested(values))
        except ValidationError as error:
            raise _wrong_fields(_explain_all(error), "recipe") from None

    if not TYPE_CHECKING:  # a type checker would take it as a promise that every attribute is there

        def __getattr__(self, name):
            try:
                return super().__getattr__(name)
            except AttributeError:
                if name not in FIELDS:
                    raise
                place = ".".join(FIELDS[name])
                raise AttributeError(f"a recipe has its fields in sections: recipe.{place}") from None

    @classmethod
    def load(cls, source: "str | Path | Mapping[str, Any] | Recipe | None" = None, /, **overrides: Any) -> "Recipe":
        """Read a recipe and replace single fields.

        Args:
            source: The name of a shipped recipe, a YAML file, or the folder of a bundle, whose recipe is taken; or a
                recipe, or its fields as a mapping. None takes the shipped recipe for the `way` and `head` among the
                overrides.
            **overrides: New values by field name, such as `learning_rate=3e-5` or `head="mlp"`. None changes nothing.

        Raises:
            RecipeError: There is no such recipe, or fields are wrong; all wrong fields are listed.
        """
        given = {name: as_plain_value(value) for name, value in overrides.items() if value is not None}
        name = source if source is not None else default_recipe(given.get("way"), given.get("head"))
        values = _read_recipe(name)
        where = f"recipe {str(name)!r}" if isinstance(name, PATH) else "recipe"
        faults = []
        if "epochs" in given:
            given.setdefault("min_steps", 0)  # the user's number of epochs is not raised
        if "metric" in given:
            given.setdefault("search_metric", given["metric"])
        for field, value in given.items():
            if field in FIELDS:
                _put(values, FIELDS[field], value)
            else:
                faults.append(f"{field}: {describe_unknown_field(field, FIELDS)}")
        return _validated(values, faults, where)

    @classmethod
    def load_stage(cls, source: str | Path | None = None, /, **overrides: Any) -> PretrainingConfig:
        """Read the section further_pretraining of a recipe and replace single fields.

        Args:
            source: As for `load`, but None takes the default of every field.
            **overrides: New values by field name. A field also replaces those that exclude it: `steps=200` removes
                `epochs`. None changes nothing.

        Raises:
            RecipeError: There is no such recipe, it has no such section, or fields are wrong.
        """
        values = {} if source is None else _read_recipe(source).get("further_pretraining")
        if values is None:
            raise RecipeError(f"recipe {str(source)!r} has no section further_pretraining")
        given = {name: value for name, value in overrides.items() if value is not None}
        excluded = {other for name in given for other in _EXCLUDED.get(name, ())}
        kept = {name: value for name, value in values.items() if name not in excluded}
        return _validated({"base": "none", "further_pretraining": kept | given}, [], f"recipe {str(source)!r}").stage

    @property
    def stage(self) -> PretrainingConfig:
        """The section further_pretraining of a recipe that has one."""
        assert self.further_pretraining is not None
        return self.further_pretraining

    def with_fields(self, **overrides: Any) -> "Recipe":
        """Return a copy with new values for some fields, by field name. Unlike in `load`, None is a value."""
        values, faults = self.model_dump(), []
        for field, value in overrides.items():
            if field in FIELDS:
                _put(values, FIELDS[field], value)
            else:
                faults.append(f"{field}: {describe_unknown_field(field, FIELDS)}")
        return _validated(values, faults, where="recipe")

    def differences(self) -> tuple[str, dict[str, Any]]:
        """Return the shipped recipe that this one is nearest to, and the fields that differ, by name.

        Of recipes that differ in equally many fields, the one that fits the way and the head is taken.
        """
        own = default_recipe(self.way, self.head.kind)
        names = sorted(recipe_names(), key=lambda name: name != own)
        found = {name: _differing(self, _shipped_recipe(name)) for name in names}
        nearest = min(names, key=lambda name: len(found[name]))
        return nearest, found[nearest]

    def __repr__(self) -> str:
        """Return one line: the nearest shipped recipe, and the fields that differ from it."""
        name, fields = self.differences()
        return f"Recipe({', '.join([repr(name), *(f'{field}={value!r}' for field, value in fields.items())])})"

    def __str__(self) -> str:
        """Return the same line."""
        return repr(self)

    def _repr_html_(self) -> str:
        """Return the fields that differ from the nearest shipped recipe, for a notebook."""
        name, fields = self.differences()
        shipped = _shipped_recipe(name)
        rows = [
            (field, str(value), "" if field == "base" else str(_value_at(shipped, FIELDS[field])))
            for field, value in fields.items()
        ]
        title = join("Recipe ", tag("b", name), f": {recipe_names()[name]}")
        words = (
            "to_yaml() has every field." if len(rows) > 1 else "All other fields are as shipped; to_yaml() has them."
        )
        table = value_table(("field", "here", f"in {name}"), rows, figures=False)
        return notebook_block(title, table if rows else None, tag("p", words, class_="s"))

    def to_yaml(self) -> str:
        """Return YAML with every field, which `load` reads back to an equal recipe."""
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
"""Field of further pretraining -> the recipe's fields that it replaces when a user sets it."""


def _conflicts(recipe: _RecipeFields) -> list[str]:
    """Return a sentence for each rule between fields of different sections that the recipe breaks."""
    head, training, tokens = recipe.head, recipe.training, recipe.tokens
    frozen, lbfgs = recipe.way == "frozen", training.optimizer == "lbfgs"
    rules = [
        (
            head.kind == "standard" and head.pooling is not None,
            "pooling: the standard head has the pooling of its architecture; leave it out, or take head linear or mlp",
        ),
        (
            lbfgs and not (frozen and head.kind == "linear"),
            "optimizer: lbfgs works with way frozen and head linear only; take adamw",
        ),
        (
            frozen and training.freeze_layers is not None,
            "freeze_layers: way frozen trains no layer of the base; take way finetune, or leave freeze_layers out",
        ),
        (
            frozen and training.layer_decay != 1,
            "layer_decay: way frozen trains no layer of the base; take way finetune, or leave layer_decay out",
        ),
        (
            lbfgs and training.loss != "cross_entropy",
            "loss: lbfgs minimizes plain cross entropy; take optimizer adamw for focal",
        ),
        (
            lbfgs and training.label_smoothing > 0,
            "label_smoothing: lbfgs minimizes plain cross entropy; take optimizer adamw for smoothing",
        ),
        (
            training.loss == "focal" and training.label_smoothing > 0,
            "label_smoothing: it has no meaning together with focal loss; take one of the two",
        ),
        (
            lbfgs and training.sampling != "shuffle",
            "sampling: lbfgs reads all rows at once; take class_weights balanced",
        ),
        (
            recipe.data.text_pair is not None and tokens.truncation != "head",
            "truncation: in a pair of texts the longer one is cut at its end; take head, or leave truncation out",
        ),
        (
            tokens.stride is not None and tokens.truncation not in ("windows", "auto"),
            "stride: it needs truncation windows or auto",
        ),
        (
            head.kind == "mlp" and training.batch_size < 2,
            "batch_size: the batch norm of an mlp head needs at least 2 rows",
        ),
    ]
    return [sentence for broken, sentence in rules if broken]


def dialect_of(**fields: Any) -> Dialect:
    """Return how a file is written, from values or from the texts of flags.

    Args:
        **fields: Fields of `Dialect`. None changes nothing.

    Raises:
        RecipeError: A field is wrong.
    """
    try:
        return DataConfig.model_validate({name: value for name, value in fields.items() if value is not None}).dialect
    except ValidationError as error:
        faults = "\n".join(f"- {_explain(fault)}" for fault in error.errors())
        raise RecipeError("the flags that say how a file is written are wrong", remedy=faults) from None


def default_recipe(way: str | None, head: str | None) -> str:
    """Return the name of the shipped recipe for a way and a head, None where the user named none."""
    if way == "frozen":
        return f"frozen-{head}" if head in ("standard", "linear", "mlp") else "frozen"
    return "finetune"


def recipe_names() -> dict[str, str]:
    """Return the shipped recipes: name -> the description in the first line of its file."""
    folder = resources.files("fullbake") / "resources" / "recipes"
    files = {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    return {name: files[name].read_text("utf-8").splitlines()[0].removeprefix("# ") for name in sorted(files)}


def as_recipe(value: Any) -> Recipe:
    """Return the recipe that a caller means: a recipe, or what `Recipe.load` reads.

    Raises:
        RecipeError: It is neither, there is no such recipe, or fields are wrong.
    """
    return value if isinstance(value, Recipe) else Recipe.load(value)


def _read_recipe(source: "str | Path | Mapping[str, Any] | Recipe") -> dict[str, Any]:
    if isinstance(source, Recipe):
        return source.model_dump()
    if isinstance(source, Mapping):
        return _nested(source)
    require_type(source, PATH, "recipe", error=RecipeError, expected="a Recipe, or what Recipe.load takes")
    shipped = resources.files("fullbake") / "resources" / "recipes" / f"{source}.yaml"
    if isinstance(source, str) and source in recipe_names():
        return _parsed(shipped.read_text("utf-8"), str(source))
    path = Path(source)
    if (path / storage.MANIFEST_FILE).is_file():
        return _read_recipe_of_bundle(path)
    if not path.is_file():
        raise RecipeError(
            f"no recipe {str(source)!r}",
            expected="the name of a shipped recipe, a YAML file, or the folder of a bundle",
            remedy=_similar_recipes(str(source)),
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(
            "the file is not UTF-8", where=str(path), got=str(error), remedy="Save it as UTF-8."
        ) from error
    return _parsed(text, str(path))


def _similar_recipes(source: str) -> str:
    """Return sentences for a name that is no recipe."""
    names = did_you_mean(source, recipe_names(), RECIPE_SYNONYMS)
    is_base = source == "demo" or "bert" in source.lower() or (Path(source) / "config.json").is_file()
    if is_base and right_name(source, recipe_names(), RECIPE_SYNONYMS) is None:
        return f"If it is a base, the field is called base: --base {source} (base={source!r}). {names}"
    return names


@cache
def _read_shipped(name: str) -> dict[str, Any]:
    return _read_recipe(name)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe in their sections. values: sections, and single fields by their short names."""
    found = {name: values[name] for name in values if name in _RecipeFields.model_fields}
    if isinstance(found.get("head"), str):
        found["head"] = {"kind": found["head"]}
    for name, value in values.items():
        if name not in found and name in FIELDS:
            section = found.get(FIELDS[name][0])
            found[FIELDS[name][0]] = section.model_dump() if isinstance(section, BaseModel) else section
            _put(found, FIELDS[name], as_plain_value(value))
        elif name not in found:
            found[name] = value  # pydantic says that there is no such field
    return {name: as_plain_value(value) for name, value in found.items()}


def _read_recipe_of_bundle(folder: Path) -> dict[str, Any]:
    try:
        manifest = storage.read_manifest_file(folder) or {}
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{storage.MANIFEST_FILE} is damaged", where=str(folder), got=str(error), remedy="Copy the bundle again."
        ) from error
    if "recipe" not in manifest:
        raise RecipeError(
            f"{storage.MANIFEST_FILE} holds no recipe",
            where=str(folder),
            expected="the folder of a bundle, as `fullbake train --out` writes it",
            got=f"a {manifest.get('kind', 'folder of another kind')}",
        )
    return dict(manifest["recipe"])


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError("the file is not valid YAML", where=where, got=" ".join(str(error).split())) from error
    if not isinstance(values, dict):
        raise RecipeError("a recipe has to be a mapping of fields to values", where=where, got=type(values).__name__)
    return values


def _put(values: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set the field at this path, without changing the inner mappings of the source."""
    for key in path[:-1]:
        inner = values.get(key)
        # `head: mlp` is short for `head: {kind: mlp}`.
        values[key] = {"kind": inner} if isinstance(inner, str) else dict(inner or {})
        values = values[key]
    values[path[-1]] = value


def _validated(values: dict[str, Any], faults: list[str], where: str) -> Recipe:
    """Return the recipe of these values, or raise RecipeError with these faults and all that pydantic finds."""
    try:
        _RecipeFields.model_validate(values)
    except ValidationError as error:
        faults = faults + _explain_all(error)
    if faults:
        raise _wrong_fields(faults, where)
    return Recipe(**values)


def _wrong_fields(faults: list[str], where: str) -> RecipeError:
    count = "one field is wrong" if len(faults) == 1 else f"{len(faults)} fields are wrong"
    return RecipeError(count, where=where, remedy="\n".join(f"- {fault}" for fault in faults))


def _explain_all(error: ValidationError) -> list[str]:
    """Return one line for each wrong field. A field of several types has an error for each: only the closest counts."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for fault in error.errors():
        field = fault["loc"][: 2 if fault["loc"][:1] and fault["loc"][0] in _SECTIONS else 1]
        found.setdefault(field if len(fault["loc"]) > len(field) else fault["loc"], []).append(fault)
    return [_explain(fault) for faults in found.values() for fault in _closest(faults)]


def _closest(faults: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the errors that lie deepest in the value, such as those of single numbers of a list."""
    if any(fault["type"] in ("extra_forbidden", "missing") for fault in faults):
        return faults
    depth = max(len(_place(fault)) for fault in faults)
    return [fault for fault in faults if len(_place(fault)) == depth]


def _place(fault: Mapping[str, Any]) -> list[str]:
    # pydantic names the branch of a union ("dict[str,...]") within the place; a user has no use for it
    return [str(part) for part in fault["loc"] if not (isinstance(part, str) and "[" in part)]


def _explain(fault: Mapping[str, Any]) -> str:
    """Return a pydantic error as one line: section.field, what was expected, what was given, and a near name."""
    place = ".".join(_place(fault))
    if fault["type"] == "extra_forbidden":
        return f"{place}: {describe_unknown_field(str(fault['loc'][-1]), FIELDS)}"
    if fault["type"] == "missing":
        return f"{place}: missing. Name it in the recipe, or pass --{place} (`demo` is the packaged base)."
    if fault["type"] == "literal_error":
        return f"{place}: {did_you_mean(str(fault['input']), _words_of(fault), VALUE_SYNONYMS)} Got {fault['input']!r}."
    message = (
        fault["msg"].removeprefix("Value error, ").replace("Input should be", "expected", 1).removesuffix(".") + "."
    )
    got = "" if isinstance(fault["input"], dict | BaseModel) else f" Got {fault['input']!r}."
    return f"{place}: {message}{got}" if place else message


def _words_of(fault: Mapping[str, Any]) -> list[str]:
    """Return the words that a Literal field takes, from pydantic's "'a', 'b' or 'c'"."""
    return [part.strip(" '") for part in fault["ctx"]["expected"].replace(" or ", ",").split(",")]


_SECTIONS = ("head", "training", "tokens", "data", "decision", "further_pretraining")


def leaf_fields() -> dict[str, tuple[str, FieldInfo]]:
    """Return flag name -> (section title, pydantic's field) of every field. `head.kind` has the name `head`."""
    return {name: (_section_title(path), _field_at(path)) for name, path in FIELDS.items()}


def choices_of(annotation: Any) -> tuple[str, ...]:
    """Return the words that a field of this type takes; () where it takes other values too."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        kinds = [inner for inner in get_args(annotation) if inner is not type(None)]
        return choices_of(kinds[0]) if len(kinds) == 1 else ()
    return ()


def _paths(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Return flag name -> path of every field of a model and its sections."""
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


def shipped_value(name: str, path: tuple[str, ...], default: Any) -> Any:
    """Return what a shipped recipe says for a field, without checking the recipe, which takes longer.

    Args:
        name: The recipe.
        path: The place of the field, as `FIELDS` has it.
        default: What is returned where the recipe does not name the field.
    """
    value: Any = _read_shipped(name)
    for key in path:
        # `head: mlp` is short for `head: {kind: mlp}`.
        value = {"kind": value} if isinstance(value, str) else value
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return parse_none(value)


def _section_title(path: tuple[str, ...]) -> str:
    return path[0].capitalize() if len(path) > 1 else "Recipe"


@cache
def _shipped_recipe(name: str) -> Recipe:
    return Recipe.load(name, base="none")


def _value_at(recipe: Recipe, path: tuple[str, ...]) -> Any:
    value: Any = recipe
    for key in path:
        value = getattr(value, key)
    return value


def _differing(recipe: Recipe, other: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe whose values differ from those of another one."""
    values = {field: _value_at(recipe, path) for field, path in FIELDS.items()}
    return {field: value for field, value in values.items() if value != _value_at(other, FIELDS[field])}


FIELDS: dict[str, tuple[str, ...]] = _paths(Recipe)
"""Flag name of every field -> its path in a recipe, such as ("training", "epochs")."""
