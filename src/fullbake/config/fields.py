"""The types of recipe fields: the words a field may hold, number ranges, and lists as people type them.

A type accepts both forms of a value: the Python or YAML form (`[5e-5, 4e-5]`) and the text of a command-line flag
(`5e-5,4e-5`). That way a section is the only place where a field is described, and the command line needs no parsers
of its own.
"""

import ast
import inspect
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fullbake.core.errors import RecipeError

Way = Literal["finetune", "frozen"]
HeadKind = Literal["auto", "standard", "linear", "mlp"]
Pooling = Literal["cls", "mean", "max", "cls+mean"]
Truncation = Literal["head", "tail", "head+tail", "windows", "auto"]
WindowPooling = Literal["mean", "max"]
Padding = Literal["longest", "max_length"]
Optimizer = Literal["adamw", "adam", "lbfgs"]
Schedule = Literal["linear", "cosine", "constant", "1-sqrt"]
Precision = Literal["auto", "fp32", "bf16"]
LossKind = Literal["cross_entropy", "focal"]
Sampling = Literal["shuffle", "balanced"]
Engine = Literal["auto", "torch", "onnx"]
ScoringPrecision = Literal["fp32", "int8"]
CachePrecision = Literal["fp32", "fp16"]
Thresholds = Literal["auto", "default", "f1"]
NearDuplicates = Literal["together", "apart"]
Quoting = Literal["standard", "none"]


def parse_numbers(value: object) -> object:
    """Split the text `5e-5,4e-5` into a list. A single number becomes a list of one; a list stays."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value if isinstance(value, list | tuple) else [value]


def parse_rates(value: object) -> object:
    """Split the text of rates as `parse_numbers` does. The word `auto` stays."""
    return value if value == "auto" else parse_numbers(value)


def parse_none(value: object) -> object:
    """Turn the text `none` into None. Any other value stays."""
    return None if isinstance(value, str) and value.lower() == "none" else value


def parse_names(value: object) -> object:
    """Split the text `toxic,insult` into a list of names. A list stays, so names in YAML may hold commas."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def parse_delimiter(value: object) -> object:
    """Turn the two characters `\\t` into a tab, as people type it without a shell's `$'\\t'`. Any other value stays."""
    return "\t" if value == "\\t" else value


def parse_lengths(value: object) -> object:
    """Split the text `128:0.9,512:0.1` into {"128": "0.9", "512": "0.1"}. A mapping stays."""
    if not isinstance(value, str):
        return value
    return {length.strip(): share.strip() for length, _, share in (part.partition(":") for part in value.split(","))}


def parse_amounts(value: object) -> object:
    """Split the text `toxic=5,insult=2` into {"toxic": "5", "insult": "2"}. A mapping or another word stays."""
    if not isinstance(value, str) or "=" not in value:
        return value
    # The last "=" of a part separates, because a label may contain one.
    pairs = [part.rpartition("=") for part in value.split(",")]
    return {name.strip(): amount.strip() for name, _, amount in pairs}


def parse_share(value: object) -> object:
    """Turn the text `20%` into 0.2. Any other value stays."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip()) if isinstance(value, str) else None
    return float(found[1]) / 100 if found else value


def parse_share_or_source(value: object) -> object:
    """Turn the text of a number into a share. Any other text is a file or a hub id, and stays.

    Raises:
        ValueError: the number is not between 0 and 1.
    """
    share = parse_share(value)
    if isinstance(share, str):
        try:
            share = float(share)
        except ValueError:
            return value
    if isinstance(share, int | float) and not 0 < share < 1:
        meant = f": write {share / 100:g} or {share:g}% if a share of {share:g}% is meant" if 1 < share < 100 else ""
        raise ValueError(
            f"expected a share of the rows above 0 and below 1, such as 0.2 or 20%, or a file{meant}. A number of rows "
            "cannot be given"
        )
    return share


Rate = Annotated[float, Field(gt=0, lt=1)]
RatesOrAuto = Annotated[
    Literal["auto"] | Annotated[tuple[Rate, ...], Field(min_length=1)], BeforeValidator(parse_rates)
]
GradientNorm = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(parse_none)]
Share = Annotated[float, BeforeValidator(parse_share), Field(gt=0, lt=1)]
LengthShares = Annotated[
    dict[Annotated[int, Field(ge=8)], Annotated[float, Field(gt=0, le=1)]], BeforeValidator(parse_lengths)
]
PartSource = Annotated[Share | str, BeforeValidator(parse_share_or_source)]
MetricName = Annotated[str, Field(min_length=1)]
"""Any word: which metrics there are is known in `evaluation`, and `training.job.resolve_recipe` checks it."""
Delimiter = Annotated[str, BeforeValidator(parse_delimiter), Field(min_length=1, max_length=8)]
NameList = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(parse_names), Field(min_length=1)]
Amount = Annotated[float, Field(ge=0)]
ClassWeights = Annotated[Literal["balanced"] | dict[str, Amount], BeforeValidator(parse_amounts)]
Costs = Annotated[dict[str, Amount], BeforeValidator(parse_amounts), Field(min_length=1)]


@cache
def _attribute_docstrings(file: str) -> dict[str, dict[str, str]]:
    """Return the string under each annotated attribute of each class in a file."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(Path(file).read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            for field, below in pairwise(node.body):
                text = getattr(getattr(below, "value", None), "value", None) if isinstance(below, ast.Expr) else None
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
                    found.setdefault(node.name, {})[field.target.id] = inspect.cleandoc(text)
    return found


class Section(BaseModel):
    """A section of a recipe: frozen, without unknown fields. The string under a field is its help text."""

    model_config = ConfigDict(
        defer_build=True,  # a command checks few of the shapes; building all takes a tenth of a second
        frozen=True,
        extra="forbid",
        hide_input_in_errors=False,
        allow_inf_nan=False,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Give each field the string under it. pydantic can do so too, but looks for the source of each class anew."""
        texts = _attribute_docstrings(inspect.getfile(cls)).get(cls.__name__, {})
        for name, text in texts.items():
            cls.model_fields[name].description = text

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse every change, and say how a changed copy is made.

        Raises:
            RecipeError: Always, for a field.
        """
        if name in type(self).model_fields:
            raise RecipeError(
                "a recipe cannot be changed",
                where=name,
                remedy=f"with_fields returns a changed copy: recipe = recipe.with_fields({name}={value!r}).",
            )
        super().__setattr__(name, value)
