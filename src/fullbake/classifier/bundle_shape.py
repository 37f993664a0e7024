"""What a bundle's fullbake.json must hold, and how its parts must fit together.

The shapes name what the code reads: loading, scoring, saving again, the model card and the page of an evaluation. Keys
that are not named may hold anything, as later versions add some; keys that version 0.1.0 did not write are optional.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Self

import numpy as np
from pydantic import Field, ValidationError, field_validator, model_validator

from fullbake.config.problems import MULTI_LABEL, ProblemType, problem_named
from fullbake.config.sections import TokensConfig
from fullbake.core.json_files import Shape, ShapeFault, explain_first_fault, match_shape
from fullbake.models.base_files import FileFacts, FurtherPretraining

_MOST_LABELS: Final = 100_000
"""Labels of a classifier. The largest public data sets for text have some 10,000 (EURLEX, AmazonCat)."""

_LONGEST_ROW: Final = 2_000_000
"""Tokens of the longest text that a classifier may ask for."""

_MOST_BUDGET: Final = 2**31
_ARRAYS: Final = ("input_ids", "offsets", "logits")
"""Arrays that probe.safetensors must hold. `token_type_ids` may be there too."""

INT8_FILES: Final = ("int8/model.onnx", "int8/model.safetensors", "int8/probe.safetensors")
"""Files of a bundle's int8 graph: itself, its weights, and the logits of the probe texts."""

_USUAL_LABELS: Final = {"0": "LABEL_0", "1": "LABEL_1"}
"""What a config.json without names of labels means."""

_Words = Annotated[str, Field(min_length=1)]
_Amount = Annotated[int, Field(ge=0, lt=2**53)]
_Share = Annotated[float, Field(ge=0, le=1.000001)]
"""A share that may be a rounding error above 1."""


def _is_text(word: str) -> bool:
    """Return False for half of a surrogate pair, which no file and no terminal can show."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Columns(Shape):
    text: _Words
    label: _Words | None
    text_pair: _Words | None
    labels: Annotated[list[_Words], Field(min_length=1)] | None
    label_separator: _Words | None
    exclusive: bool = False
    group: _Words | None = None

    @model_validator(mode="after")
    def _check_text(self) -> Self:
        names = (self.text, self.label, self.text_pair, self.label_separator, self.group, *(self.labels or ()))
        if not all(_is_text(name) for name in names if name is not None):
            raise ValueError("names that are Unicode text")
        return self


class _Score(Shape):
    value: float | None
    low: float | None
    high: float | None


class _ClassScores(Shape):
    label: str
    support: _Amount
    precision: _Score
    recall: _Score
    f1: _Score


class _Bin(Shape):
    low: _Share
    high: _Share
    count: Annotated[int, Field(ge=1, lt=2**53)]
    confidence: _Share
    accuracy: _Share


class _Reliability(Shape):
    ece: _Share
    bins: list[_Bin]


class _Overall(Shape):
    accuracy: _Score
    f1_macro: _Score
    f1_micro: _Score


class _Scores(Shape):
    rows: _Amount
    overall: _Overall
    per_class: list[_ClassScores]
    confusion_matrix: list[list[_Amount]] | None
    calibration: _Reliability


class _Metrics(Shape):
    """The scores of each part, and of no other."""

    validation: _Scores
    test: _Scores | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_parts(cls, value: object) -> object:
        if isinstance(value, dict) and not value.keys() <= {"validation", "test"}:
            raise ValueError("scores of the parts 'validation' and 'test' alone")
        if isinstance(value, dict) and "test" in value and value["test"] is None:
            raise ValueError("scores of the test part, or no such entry")
        return value


class _Calibration(Shape):
    temperature: Annotated[float, Field(gt=0)]
    before: _Reliability
    after: _Reliability


class _Sources(Shape):
    train: str


class _Rows(Shape):
    train: _Amount


class _Data(Shape):
    source: _Sources
    rows: _Rows
    folds: _Amount
    overlap_allowed: _Amount
    overlap_dropped: _Amount
    near_overlap: _Amount = 0
    dropped_labels: dict[str, _Amount] | None = None
    groups: dict[str, _Amount | None] | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if not all(isinstance(name, str) for name in (self.source.model_extra or {}).values()):
            raise ValueError("the name of a file for each part")
        if not all(type(rows) is int and rows >= 0 for rows in (self.rows.model_extra or {}).values()):
            raise ValueError("a number of rows for each part")
        return self


class _HeadFacts(Shape):
    kind: str


class _TrainingFacts(Shape):
    metric: _Words
    seed: Annotated[int, Field(ge=0)]


class _RecipeFacts(Shape):
    base: _Words
    way: _Words
    head: _HeadFacts
    training: _TrainingFacts


class _Chosen(Shape):
    head: str | None = None


class _Versions(Shape):
    fullbake: str


class _BaseUse(Shape):
    applied: list[str]
    left_out: list[str]


class _GraphFacts(Shape):
    """What is known of the bundle's ONNX graph."""

    exporter: str
    opset: _Amount
    difference: Annotated[float, Field(ge=0)]


class _Agreement(Shape):
    rows: _Amount
    value: _Share
    low: _Share
    high: _Share


class _LabeledScores(Shape):
    accuracy: _Score
    f1_macro: _Score


class _Labeled(Shape):
    rows: _Amount
    student: _LabeledScores
    teacher: _LabeledScores


class _Student(Shape):
    """What a student's bundle says of its teacher."""

    teacher: str
    agreement: _Agreement
    held_out_seen: _Amount
    labeled: _Labeled | None


class _Int8Metric(Shape):
    name: _Words
    original: float
    other: float
    difference: float
    low: float
    high: float


class _EqualLabels(Shape):
    value: _Share
    low: _Share
    high: _Share


class _ProbabilitiesApart(Shape):
    far: _Share


class _Fidelity(Shape):
    rows: _Amount
    equal_labels: _EqualLabels
    probabilities_apart: _ProbabilitiesApart
    metric: _Int8Metric


class _Int8Rows(Shape):
    source: str
    fitted: _Amount


class _Int8Promise(Shape):
    tolerance: float
    agreement: float


class _BothSizes(Shape):
    fp32: _Amount
    int8: _Amount


class _BothErrors(Shape):
    fp32: _Share
    int8: _Share


class _Int8Speed(Shape):
    processor: str
    instructions: list[str] | None
    fp32_texts_per_cpu_second: Annotated[float, Field(ge=0)]
    int8_texts_per_cpu_second: Annotated[float, Field(ge=0)]


class _Int8Facts(Shape):
    """What is known of the bundle's int8 graph."""

    temperature: Annotated[float, Field(gt=0)]
    thresholds: dict[str, Any] | None
    bytes: _BothSizes
    data: _Int8Rows
    promise: _Int8Promise
    fidelity: _Fidelity
    calibration_error: _BothErrors
    speed: _Int8Speed


class BundleFacts(Shape):
    """The entries of a bundle's fullbake.json."""

    label_names: Annotated[list[str], Field(min_length=1, max_length=_MOST_LABELS)]
    problem_type: ProblemType
    thresholds: dict[str, Any] | None
    tokens: dict[str, Any]
    columns: _Columns
    metrics: _Metrics
    calibration: _Calibration | None
    data: _Data
    recipe: _RecipeFacts
    versions: _Versions
    files: dict[str, FileFacts]
    run: str
    base: str
    device: str
    threads: _Amount
    further_pretraining: FurtherPretraining | None
    chosen: _Chosen | None = None
    base_use: _BaseUse | None = None
    graph: _GraphFacts | None = None
    student: _Student | None = None
    int8: _Int8Facts | None = None

    @field_validator("label_names")
    @classmethod
    def _check_labels(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("names that all differ")
        if not all(_is_text(name) for name in names):
            raise ValueError("names that are Unicode text")
        return names

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, FileFacts]) -> dict[str, FileFacts]:
        for name in files:
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts or "\\" in name or place.as_posix() != name or name == ".":
                raise ValueError("names of files inside the folder")
        return files

    @model_validator(mode="after")
    def _check_graph(self) -> Self:
        if ("model.onnx" in self.files) != (self.graph is not None):
            raise ValueError("an entry graph where, and only where, there is a file model.onnx")
        own = {name for name in self.files if name.startswith("int8/")}
        if own != (set(INT8_FILES) if self.int8 is not None else set()):
            raise ValueError(f"an entry int8 where, and only where, there are {', '.join(INT8_FILES)}")
        return self

    @field_validator("versions")
    @classmethod
    def _check_versions(cls, versions: _Versions) -> _Versions:
        if not all(isinstance(version, str) for version in (versions.model_extra or {}).values()):
            raise ValueError("the name of a version for each library")
        return versions


class _Thresholds(Shape):
    thresholds: dict[str, _Share]


class _Costs(Shape):
    costs: dict[str, Annotated[float, Field(ge=0, le=1e12)]]


def check_facts(facts: Mapping[str, Any]) -> TokensConfig:
    """Check the entries of a bundle's fullbake.json, and that they fit together.

    Args:
        facts: The entries, `files` among them.

    Returns:
        The entry `tokens`.

    Raises:
        ShapeFault: Names the first entry that is wrong.
    """
    found = match_shape(BundleFacts, dict(facts))
    _check_decision(found.thresholds, found.problem_type, found.label_names)
    if found.int8 is not None:
        _check_decision(found.int8.thresholds, found.problem_type, found.label_names, ("int8", "thresholds"))
    _check_scores(found)
    return _read_tokens(found.tokens)


def _check_decision(
    rule: dict[str, Any] | None,
    problem_type: ProblemType,
    names: Sequence[str],
    within: tuple[str, ...] = ("thresholds",),
) -> None:
    """Raise ShapeFault if thresholds or costs do not belong to these labels."""
    if rule is None:
        return
    problem, where = problem_named(problem_type), ".".join(within)
    if "costs" in rule:
        costs = match_shape(_Costs, rule, within=within).costs
        known = set(problem.cost_names(names)) if problem.exclusive and len(names) ** 2 == len(costs) else set()
        if costs.keys() != known or "thresholds" in rule:
            raise ShapeFault(f"{where}.costs", "a cost for each pair of classes", f"{len(costs):,} costs")
        return
    found = match_shape(_Thresholds, rule, within=within).thresholds
    fits = len(found) == 1 and found.keys() <= set(names) if problem.exclusive else found.keys() == set(names)
    if not fits:
        expected = "a threshold for one class" if problem.exclusive else "a threshold for each label"
        raise ShapeFault(f"{where}.thresholds", expected, ", ".join(map(repr, list(found)[:3])) or "none")


def _check_scores(found: BundleFacts) -> None:
    """Raise ShapeFault if scores are of other labels than the classifier's, or of another kind of problem."""
    for part, scores in (("validation", found.metrics.validation), ("test", found.metrics.test)):
        if scores is None:
            continue
        if [row.label for row in scores.per_class] != found.label_names:
            raise ShapeFault(f"metrics.{part}.per_class", "the labels in the order of label_names")
        matrix = scores.confusion_matrix
        if (matrix is None) != (found.problem_type == MULTI_LABEL):
            raise ShapeFault(f"metrics.{part}.confusion_matrix", "a matrix only where a row has one label")
        if matrix is not None and {len(matrix), *map(len, matrix)} != {len(found.label_names)}:
            raise ShapeFault(f"metrics.{part}.confusion_matrix", "a row and a column for each label")


def _read_tokens(values: dict[str, Any]) -> TokensConfig:
    try:
        tokens = TokensConfig.model_validate(values)
    except ValidationError as error:
        raise explain_first_fault(error, ("tokens",)) from error
    if tokens.max_length is None or tokens.max_length > _LONGEST_ROW:
        raise ShapeFault("tokens.max_length", f"a number of at most {_LONGEST_ROW:,}", str(tokens.max_length)[:40])
    if tokens.truncation == "auto":
        raise ShapeFault("tokens.truncation", "what was chosen", "'auto'")
    if tokens.stride is not None and tokens.stride >= tokens.max_length:
        raise ShapeFault("tokens.stride", "less than max_length", str(tokens.stride)[:40])
    if tokens.token_budget > _MOST_BUDGET:
        raise ShapeFault("tokens.token_budget", f"at most {_MOST_BUDGET:,}", str(tokens.token_budget)[:40])
    return tokens


def check_probe(arrays: Mapping[str, np.ndarray], *, labels: int, max_length: int) -> None:
    """Check the arrays of probe.safetensors.

    Args:
        arrays: By name, as the file holds them.
        labels: Number of labels.
        max_length: Longest row in tokens that the network takes.

    Raises:
        ShapeFault: An array is missing, of another type or shape, or one too many; or a row is too long.
    """
    names = [name for name in _ARRAYS if name not in arrays]
    if names or not set(arrays) <= {*_ARRAYS, "token_type_ids"}:
        raise ShapeFault("", f"the arrays {', '.join(_ARRAYS)} and token_type_ids", ", ".join(sorted(arrays)[:6]))
    ids, offsets, logits = (arrays[name] for name in _ARRAYS)
    types = arrays.get("token_type_ids")
    flat = [ids, offsets, *([] if types is None else [types])]
    if any(array.ndim != 1 or array.dtype.kind not in "iu" for array in flat):
        raise ShapeFault("", "whole numbers in input_ids, offsets and token_type_ids, one after another")
    lengths = np.diff(offsets.astype(np.int64)) if len(offsets) > 1 else np.zeros(1, np.int64)
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(ids) or lengths.min() < 1:
        raise ShapeFault("offsets", "the start of each row, and the end of the last one")
    if lengths.max() > max_length:
        raise ShapeFault("offsets", f"rows of at most {max_length:,} tokens", f"{lengths.max():,}")
    if types is not None and types.shape != ids.shape:
        raise ShapeFault("token_type_ids", f"{len(ids):,} numbers", f"{len(types):,}")
    if logits.dtype.kind != "f" or logits.shape != (len(lengths), labels) or not np.isfinite(logits).all():
        raise ShapeFault("logits", f"finite numbers, ({len(lengths)}, {labels})", f"{logits.dtype} {logits.shape}")


def check_int8_probe(arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> None:
    """Check the arrays of int8/probe.safetensors.

    Args:
        arrays: By name, as the file holds them.
        shape: That of the logits in the bundle's own probe, (texts, classes).

    Raises:
        ShapeFault: There is anything but logits of this shape.
    """
    logits = arrays.get("logits")
    if logits is None or len(arrays) > 1:
        raise ShapeFault("", "the array logits alone", ", ".join(sorted(arrays)[:6]))
    if logits.dtype.kind != "f" or logits.shape != shape or not np.isfinite(logits).all():
        raise ShapeFault("logits", f"finite numbers, {shape}", f"{logits.dtype} {logits.shape}")


def check_seen(arrays: Mapping[str, np.ndarray]) -> None:
    """Check the arrays of seen.safetensors.

    Raises:
        ShapeFault: An array is missing, or of another type or shape.
    """
    hashes = arrays.get("hashes")
    if hashes is None or hashes.dtype != np.uint8 or hashes.ndim != 2 or hashes.shape[1] != 16:
        raise ShapeFault("hashes", "bytes, (texts, 16)", None if hashes is None else f"{hashes.dtype} {hashes.shape}")
    for name, array in arrays.items():
        if name != "hashes" and (array.ndim != 1 or array.dtype != np.int64):
            raise ShapeFault(name, "int64, (rows,)", f"{array.dtype} {array.shape}")


def check_labels_of_config(config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Check that config.json names the labels and the problem type of fullbake.json.

    Args:
        config: The content of config.json.
        facts: The entries of fullbake.json.

    Raises:
        ShapeFault: They differ.
    """
    expected = {str(number): name for number, name in enumerate(facts["label_names"])}
    found = config.get("id2label", _USUAL_LABELS)
    if found != expected:
        got = f"{len(found):,} names" if isinstance(found, dict) else repr(found)[:40]
        named = list(chain.from_iterable(found.items()))[:6] if isinstance(found, dict) else []
        raise ShapeFault("id2label", f"the {len(expected):,} labels of fullbake.json", f"{got} {named}"[:200])
    if config.get("problem_type") != facts["problem_type"]:
        raise ShapeFault("problem_type", repr(facts["problem_type"]), repr(config.get("problem_type"))[:40])


class _HistoryEntry(Shape):
    """An entry of history.json, as far as the plot reads it."""

    train_loss: float
    validation_loss: float
    epoch: int | None = None
    C: Annotated[float, Field(gt=0)] | None = None
    rate: float | None = None
    best: bool | None = None

    @model_validator(mode="after")
    def _check_axis(self) -> Self:
        if (self.epoch is None) == (self.C is None):
            raise ValueError("an epoch or a strength")
        return self


def is_history(history: object, metric: str) -> bool:
    """Return True if the content of history.json, which users may edit, can be drawn.

    Args:
        history: The content.
        metric: Name of the metric that selected.
    """
    if not isinstance(history, list):
        return False
    try:
        entries = [match_shape(_HistoryEntry, entry) for entry in history]
    except ShapeFault:
        return False
    scored = all(isinstance(entry.get(metric), int | float) for entry in history)
    return scored and len({(entry.epoch is None, entry.rate is None) for entry in entries}) <= 1
