"""Make command-line flags from the fields of a recipe.

A flag's help is the line under the field. Values stay text here; the recipe parses and validates them, so that one
place reports what is wrong.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

from cyclopts import Group, Parameter
from pydantic import BaseModel, ConfigDict, create_model
from pydantic.fields import FieldInfo

from fullbake.config.fields import Engine, ScoringPrecision, parse_amounts
from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.recipe import FIELDS, choices_of, leaf_fields, shipped_value
from fullbake.core import runtime
from fullbake.core.errors import RecipeError
from fullbake.core.extras import name_missing_extra
from fullbake.core.processors import parse_threads, use_session_threads, use_threads
from fullbake.training.checkpoints import ResumeMode, recorded_threads

SECTIONS: Final = ("Recipe", "Data", "Tokens", "Head", "Training", "Decision", "Further pretraining")
"""Sections in the order in which a command's help shows them."""

DIALECT_FIELDS: Final = ("delimiter", "encoding", "quoting", "no_header", "json_path")
"""Fields that say how files of rows are written."""

TEXT_FIELDS: Final = ("text", "text_pair", *DIALECT_FIELDS)
ROW_FIELDS: Final = (*TEXT_FIELDS, "label", "labels", "label_separator", "exclusive", "group", "drop_unlabelled")
"""Fields that say how labeled rows are read. With a bundle the columns of its training are the default."""


COMPARISON_FIELDS: Final = (
    *("base", "further_pretraining", *ROW_FIELDS, "validation", "test", "split_seed", "drop_overlap", "allow_overlap"),
    *("drop_rare", "near_duplicates"),
    *("max_length", "truncation", "stride", "window_pooling", "token_budget", "epochs", "batch_size", "precision"),
    *("loss", "class_weights", "sampling", "metric"),
    *("calibrate", "thresholds", "at_recall", "at_precision", "costs", "positive"),
)
"""Fields that may be set for all recipes of a comparison. The others are what the recipes differ in."""


def shown_default(value: object) -> str | None:
    """Return the default of a parameter for the help; None where it says nothing: a switch that is off, no value."""
    return None if value in (None, False, "", ()) else str(value)


def _recipe_fields(names: Sequence[str] | None = None) -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield (name, section, field) of the named fields of a recipe; None yields all."""
    for name, (section, field) in leaf_fields().items():
        if names is None or name in names:
            yield name, section, field


def _stage_fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield (name, section, field) of further pretraining, but for the corpus, which is an argument."""
    for name, field in PretrainingConfig.model_fields.items():
        if name != "corpus":
            yield name, "Further pretraining", field


def _flags(
    fields: Iterator[tuple[str, str, FieldInfo]], shown: Callable[[str, FieldInfo], str | None]
) -> type[BaseModel]:
    """Return a model class that has these fields as optional flags.

    Args:
        fields: name, section and field of each.
        shown: returns the default of a field for the help; it is called when help is asked for.
    """
    made: dict[str, Any] = {}
    for name, section, field in fields:
        kind = bool if field.annotation is bool else str
        words = choices_of(field.annotation)
        choices = f" One of: {', '.join(words)}." if words else ""
        about = Parameter(
            help=f"{field.description}{choices}",
            group=Group(section, sort_key=SECTIONS.index(section)),
            negative=f"--no-{name.replace('_', '-')}" if field.default is True else "",
            metavar=_METAVARS.get(name) or value_word(field.annotation),
            show_default=partial(_call_without_default, shown, name, field),
        )
        made[name] = (Annotated[kind | None, about], None)
    return create_model("Flags", __config__=ConfigDict(defer_build=True), **made)


def _call_without_default(
    shown: Callable[[str, FieldInfo], str | None], name: str, field: FieldInfo, _: object
) -> str | None:
    """Call `shown` as cyclopts calls it: with the parameter's own default, which is None for every flag."""
    return shown(name, field)


_METAVARS: Final = {
    "base": "BASE",
    **dict.fromkeys(("text", "text_pair", "label", "group"), "COLUMN"),
    "labels": "COLUMNS",
    "no_header": "NAMES",
    **dict.fromkeys(("validation", "test"), "SHARE|FILE"),
    "metric": "METRIC",
    "search_metric": "METRIC",
    "further_pretraining": "RECIPE|FIELDS",
    **dict.fromkeys(("class_weights", "costs"), "NAME=NUMBER,..."),
    "at_recall": "SHARE",
    "at_precision": "SHARE",
    "phases": "LENGTH:SHARE,...",
    "probe_text": "FILE",
}
"""What stands for the value of a flag in the help, where the type of the field says too little."""


def value_word(annotation: Any) -> str:
    """Return what stands for a value of this type in the help: INT, FLOAT, FLOATS, CHOICE or STR."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return value_word(inner[0])
    if origin in (Union, UnionType):
        kinds = [value_word(kind) for kind in inner if kind is not type(None)]
        return "STR" if "STR" in kinds else next((kind for kind in kinds if kind != "CHOICE"), kinds[0])
    if origin is Literal:
        return "CHOICE"
    if origin is tuple:
        return f"{value_word(inner[0])}S"
    return {int: "INT", float: "FLOAT"}.get(annotation, "STR")


def _default_of_training(name: str, field: FieldInfo) -> str | None:
    """Return what a training takes for a field that no flag and no recipe sets, None where the help says it."""
    if name in _AS_IT_SAYS:
        return None
    usual, frozen = (values.get(name, field.default) for values in _shipped_values())
    if field.is_required() or usual is None or usual is False:
        return None
    differs = "" if frozen == usual or name == "way" else f"; with --way frozen {_spell(frozen)}"
    return f"{_spell(usual)}{differs}"


def _default_of_comparison(name: str, field: FieldInfo) -> str | None:
    """Return what a comparison takes for a field that no flag sets, None where the help says it."""
    usual, frozen = (values.get(name) for values in _shipped_values())
    return _default_of_training(name, field) if usual == frozen else "that of each recipe"


_AS_IT_SAYS: Final = ("search_metric",)
"""Fields whose help tells the default in words."""


@cache
def _shipped_values() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields, by their short names, of the recipes that are taken where none is named, for both ways."""
    fields = leaf_fields()
    found = [
        {name: shipped_value(way, path, fields[name][1].default) for name, path in FIELDS.items()}
        for way in ("finetune", "frozen")
    ]
    return found[0], found[1]


def _spell(value: object) -> str:
    """Return a value as its flag takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_spell, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _default_of_field(_: str, field: FieldInfo) -> str | None:
    return None if field.is_required() or field.default in (None, False) else _spell(field.default)


def _default_as_trained(name: str, field: FieldInfo) -> str | None:
    """Return the default of a field where a bundle is given: the columns are those of its training."""
    if name in DIALECT_FIELDS or name == "drop_unlabelled":
        return _default_of_field(name, field)
    return "as in training" if name in ("text", "label") else None


Flags, ComparisonOptions = (
    _flags(_recipe_fields(), _default_of_training),
    _flags(_recipe_fields(COMPARISON_FIELDS), _default_of_comparison),
)
RowOptions, TextOptions = (_flags(_recipe_fields(names), _default_as_trained) for names in (ROW_FIELDS, TEXT_FIELDS))
DialectOptions = _flags(_recipe_fields(DIALECT_FIELDS), _default_of_field)
StageOptions = _flags(_stage_fields(), _default_of_field)

if TYPE_CHECKING:
    # mypy cannot analyze models that are created at run time
    RecipeFlags = BaseModel
    RowFlags = BaseModel
    ComparisonFlags = BaseModel
    TextFlags = BaseModel
    DialectFlags = BaseModel
    StageFlags = BaseModel
else:
    RecipeFlags = Annotated[Flags, Parameter(name="*")]
    RowFlags = Annotated[RowOptions, Parameter(name="*")]
    ComparisonFlags = Annotated[ComparisonOptions, Parameter(name="*")]
    TextFlags = Annotated[TextOptions, Parameter(name="*")]
    DialectFlags = Annotated[DialectOptions, Parameter(name="*")]
    StageFlags = Annotated[StageOptions, Parameter(name="*")]


Threads = Annotated[
    str,
    Parameter(
        help="Number of threads to compute with. auto takes as many as processors are free when the work begins; a "
        "resumed run keeps its number. Results repeat bit for bit only with an equal number."
    ),
]
"""The flag --threads; `apply_threads` reads its value."""


OnFlag = Annotated[
    str | None,
    Parameter(
        name="--on",
        help="Where the work runs: ray (the cluster of RAY_ADDRESS or of this machine, else a new one), or "
        "ray:HOST:PORT. Needs `pip install 'fullbake[ray]'`. Default: this process.",
    ),
]
"""The flag --on of the commands whose work may run on a cluster."""


WorkersFlag = Annotated[
    str | None,
    Parameter(
        name="--workers",
        help="With --on: how many processes train together, or the fewest and the most, such as 1:4; a lost one is "
        "replaced, or the others continue. Default: one for each GPU of the cluster, else one for each machine.",
    ),
]
"""The flag --workers of the commands that train."""


TrackFlag = Annotated[
    tuple[str, ...],
    Parameter(
        name="--track",
        negative="",
        show_default=False,
        help="Record the run with a tracker: tensorboard, mlflow, wandb or trackio. It gets the recipe, losses, scores "
        "and the bundle, and no text of a row. Repeat the flag for several.",
    ),
]
"""The flag --track of the commands that train."""


EngineFlag = Annotated[
    Engine,
    Parameter(
        help="What computes: torch; or onnx, which needs a bundle with a graph (fullbake export) and starts faster. "
        "auto takes onnx where there is a graph and no GPU."
    ),
]
"""The flag --engine of the commands that score."""


PrecisionFlag = Annotated[
    ScoringPrecision,
    Parameter(
        help="What it computes in: fp32; or int8, which needs a bundle with an int8 graph (fullbake export --int8) and "
        "is faster on processors with instructions for it."
    ),
]
"""The flag --precision of the commands that score."""


ThresholdFlag = Annotated[
    str | None,
    Parameter(
        name="--threshold",
        metavar="SCORE|NAME=SCORE,...",
        help="Decide by this score in place of the classifier's own decision: 0.8, or by label, such as "
        "toxic=0.8,insult=0.6. Where a row has one label, it is the score from which on that class is predicted.",
    ),
]
"""The flag --threshold of the command that predicts; `parse_threshold` reads its value."""


def parse_threshold(text: str | None) -> float | dict[str, float] | None:
    """Return the value of --threshold: a score, or scores by label.

    Raises:
        RecipeError: A score is no number. Labels and the range of a score are checked where the classifier is known.
    """
    if text is None:
        return None
    given = parse_amounts(text)
    try:
        if isinstance(given, dict):
            return {name: float(word) for name, word in given.items()}
        return float(text)
    except ValueError:
        raise RecipeError(
            "a threshold is a score",
            where="--threshold",
            expected="a score from 0 to 1, or one for each label, such as toxic=0.8,insult=0.6",
            got=repr(text),
        ) from None


def find_bundle(bundle: Path) -> Path:
    """Return the folder of the bundle that a command is given, which is fetched if its name is an id on the hub.

    Args:
        bundle: A folder, or an id such as `org/name`.
    """
    if bundle.exists():
        return bundle
    from fullbake.classifier.hub_bundles import local_bundle

    return local_bundle(str(bundle))


def apply_engine_threads(
    text: str, bundle: Path, engine: Engine, precision: ScoringPrecision = "fp32", *, few_texts: bool = False
) -> None:
    """Let the engine that will score a bundle compute with the number of threads that --threads asks for.

    Args:
        text: the value of the flag.
        bundle: the bundle.
        engine: the value of --engine.
        precision: the value of --precision; int8 is computed by onnx.
        few_texts: the work is over at once.

    Raises:
        RecipeError: the value is neither a number above 0 nor `auto`.
    """
    from fullbake.classifier.engines import engines_of  # it loads numpy, which --help does not need

    engines = {"onnx"} if precision == "int8" else engines_of(bundle, engine)
    if engines == {"onnx"}:
        use_session_threads(parse_threads(text), few_texts=few_texts)
        return
    with name_missing_extra():
        apply_threads(text)
    if "onnx" in engines:  # the members of a cascade share the processors one after the other
        runtime.set_session_threads(runtime.threads())


def apply_threads(text: str, out: Path | None = None, resume: ResumeMode = "auto") -> None:
    """Let torch compute with the number of threads that --threads asks for.

    Args:
        text: the value of the flag.
        out: the output folder, beside which there may be an unfinished run whose number is kept.
        resume: what is done about that run.

    Raises:
        RecipeError: the value is neither a number above 0 nor `auto`.
        OutputError: the file that describes the unfinished run is damaged.
    """
    setting = parse_threads(text)
    use_threads(setting, recorded=None if out is None or resume == "restart" else recorded_threads(out))


def resume_mode(required: bool, anyway: bool, restart: bool) -> ResumeMode:
    """Return the resume mode that the three flags ask for.

    Args:
        required: --resume was given.
        anyway: --resume-anyway was given.
        restart: --restart was given.

    Raises:
        RecipeError: More than one of them was given.
    """
    words: dict[ResumeMode, bool] = {"require": required, "anyway": anyway, "restart": restart}
    asked = [word for word, given in words.items() if given]
    if len(asked) > 1:
        raise RecipeError("--resume, --resume-anyway and --restart exclude each other", remedy="Pass one of them.")
    return asked[0] if asked else "auto"
