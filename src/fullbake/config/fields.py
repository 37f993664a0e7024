"""TODO"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fullbake.config.problems import MULTI_LABEL_SELECTION, SELECTION
from fullbake.core.errors import did_you_mean

Way = Literal["finetune", "frozen"]
HeadKind = Literal["standard", "linear", "mlp"]
Pooling = Literal["cls", "mean", "max", "cls+mean"]
Truncation = Literal["head", "tail", "head+tail", "windows", "auto"]
WindowPooling = Literal["mean", "max"]
Padding = Literal["longest", "max_length"]
Optimizer = Literal["adamw", "adam", "lbfgs"]
Schedule = Literal["linear", "cosine", "constant", "1-sqrt"]
Precision = Literal["auto", "fp32", "bf16"]
LossKind = Literal["cross_entropy", "focal"]
Sampling = Literal["shuffle", "balanced"]
CachePrecision = Literal["fp32", "fp16"]
Thresholds = Literal["auto", "default", "f1"]


def _parse_numbers(value: object) -> object:
    """`5e-5,4e-5` from a command line, one number, or a list of them -> a list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value if isinstance(value, list | tuple) else [value]


def _parse_names(value: object) -> object:
    """`toxic,insult` from a command line -> a list of column names; a YAML list may hold names with commas."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _parse_shares(value: object) -> object:
    """`128:0.9,512:0.1` from a command line -> {"128": "0.9", "512": "0.1"}; mappings stay."""
    if not isinstance(value, str):
        return value
    return {length.strip(): share.strip() for length, _, share in (part.partition(":") for part in value.split(","))}


def _parse_amounts(value: object) -> object:
    """`toxic=5,insult=2` from a command line -> {"toxic": "5", "insult": "2"}; other words and mappings stay."""
    if not isinstance(value, str) or "=" not in value:
        return value
    pairs = [part.rpartition("=") for part in value.split(",")]
    return {name.strip(): amount.strip() for name, _, amount in pairs}


def _parse_share_or_source(value: object) -> object:
    """`0.2` from a command line is a share, anything that is no number a file or a hub id."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _known_metric(value: object) -> object:
    known = tuple(SELECTION | MULTI_LABEL_SELECTION)
    if value not in known:
        raise ValueError(did_you_mean(str(value), known))
    return value


Rate = Annotated[float, Field(gt=0, lt=1)]
Rates = Annotated[tuple[Rate, ...], BeforeValidator(_parse_numbers), Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
PartSource = Annotated[Share | str, BeforeValidator(_parse_share_or_source)]
MetricName = Annotated[str, BeforeValidator(_known_metric)]
NameList = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_parse_names), Field(min_length=1)
]
Amount = Annotated[float, Field(ge=0)]
ClassWeights = Annotated[Literal["balanced"] | dict[str, Amount], BeforeValidator(_parse_amounts)]
Costs = Annotated[dict[str, Amount], BeforeValidator(_parse_amounts), Field(min_length=1)]


class Section(BaseModel):
    """A part of a recipe: frozen, no unknown fields, the line under a field is its help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=False, allow_inf_nan=False
    )
