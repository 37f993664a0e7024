"""The sections of a recipe: frozen pydantic models, the line under a field is its help.

Every leaf field has a name of its own across all sections, so that the field, the key word of `Recipe.load` and the
command-line flag are one word. The price: two sections may not use the same word (a test holds that). What has to
fit across sections is the recipe's to check.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from fullbake.config.fields import (
    CachePrecision,
    ClassWeights,
    Costs,
    HeadKind,
    LossKind,
    MetricName,
    NameList,
    Optimizer,
    Padding,
    PartSource,
    Pooling,
    Precision,
    Rates,
    Sampling,
    Schedule,
    Section,
    Share,
    Thresholds,
    Truncation,
    WindowPooling,
)


@dataclass(frozen=True)
class Columns:
    """Which columns hold the texts and the labels.

    label: one column, of single labels, lists, or labels parted by label_separator. labels: columns of 0 and 1, in
    place of `label`. Neither: texts alone.
    """

    text: str
    label: str | None = None
    text_pair: str | None = None
    labels: tuple[str, ...] | None = None
    label_separator: str | None = None

    @property
    def of_texts(self) -> tuple[str, ...]:
        """The columns of texts, one or two."""
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    @property
    def of_labels(self) -> tuple[str, ...]:
        """The columns of labels, none where there are texts alone."""
        if self.labels is not None:
            return self.labels
        return () if self.label is None else (self.label,)

    def to_json(self) -> dict[str, Any]:
        """As a mapping, the way a bundle keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Columns":
        """What `to_json` gave."""
        labels = values.get("labels")
        return cls(**{**values, "labels": None if labels is None else tuple(labels)})


class DataConfig(Section):
    """Which columns, and which rows choose and score."""

    text: str = "text"
    """Column that holds the texts."""

    text_pair: str | None = None
    """Column that holds a second text, for tasks on sentence pairs."""

    label: str = "label"
    """Column that holds the labels, which keep their spelling. Lists in it (JSON, Parquet) make many labels a row."""

    labels: NameList | None = None
    """Columns of 0 and 1, one a label, as in toxic,insult,threat: many labels a row. In place of `label`."""

    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """What parts the labels in the label column, where one text field holds many, as in `anger|joy`."""

    validation: PartSource = 0.2
    """Rows that choose the epoch and the rate: a share of the training file, or a file."""

    folds: Annotated[int, Field(ge=0, le=50)] | None = None
    """Choose by that many folds of the training rows in place of one validation part; 0 never does. Default: 5 where
    a validation share would hold under 5 rows of a class, else 0."""

    test: PartSource | None = None
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

    @property
    def columns(self) -> Columns:
        """Which columns hold what."""
        label = None if self.labels else self.label
        return Columns(self.text, label, self.text_pair, self.labels, self.label_separator)

    @model_validator(mode="after")
    def _one_way_with_overlap(self) -> Self:
        if self.drop_overlap and self.allow_overlap:
            raise ValueError("drop_overlap and allow_overlap exclude each other")
        return self

    @model_validator(mode="after")
    def _folds_of_own_rows(self) -> Self:
        if self.folds and isinstance(self.validation, str):
            raise ValueError("folds: the file given for validation chooses; leave one of the two out")
        if self.folds == 1:
            raise ValueError("folds: one fold would leave nothing to train on; take 2 or more, or 0 for a single split")
        return self

    @model_validator(mode="after")
    def _one_form_of_labels(self) -> Self:
        if self.labels is not None and self.label_separator is not None:
            raise ValueError("labels and label_separator exclude each other: columns of 0 and 1, or one column")
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: a column is named twice")
        columns = {self.text, self.text_pair, *(self.labels or (self.label,))} - {None}
        if len(columns) < 1 + (self.text_pair is not None) + len(self.labels or (self.label,)):
            raise ValueError("text, text_pair and label have to be different columns")
        return self


class TokensConfig(Section):
    """How a text becomes token ids, and how ids are batched."""

    max_length: Annotated[int, Field(ge=4)] | None = None
    """Longest input in tokens, special ones included. Default: what the base can take (512 for BERT)."""

    truncation: Truncation = "head"
    """Which end of a longer text is kept; `head+tail` keeps 128 + 382 of 512 (Sun et al. 2019, arXiv 1905.05583).
    `windows` reads all of it, piece by piece; `auto` tries all four and validation chooses."""

    stride: Annotated[int, Field(ge=0)] | None = None
    """Tokens that neighboring windows share. Default: a quarter of max_length."""

    window_pooling: WindowPooling = "mean"
    """How the logits of a text's windows become one: mean or max."""

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
    """Decay of the rate after warm-up: linear or cosine to 0, constant, or constant and down in the last fifth
    (`1-sqrt`, Hägele et al. 2024, arXiv 2405.18392)."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of all steps in which the rate rises from 0 to its peak."""

    weight_decay: float = Field(0.01, ge=0)
    """Decoupled under adamw; never on biases and norms."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer's rate over that of the layer above it; 0.95 in Sun et al. 2019, 1 is no decay."""

    freeze_layers: Annotated[int, Field(ge=0)] | None = None
    """Hold the embeddings and the lowest N layers of the base fixed (0: the embeddings alone). They run without
    dropout, and once: their output is kept in the cache, and each step runs the layers above."""

    cache_precision: CachePrecision = "fp32"
    """How frozen features and the output of frozen layers are kept on disk; `fp16` takes half the room and rounds them
    to 11 bits."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients longer than this are scaled down to it."""

    precision: Precision = "auto"
    """`auto` takes bf16 where a GPU has it, fp32 elsewhere."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many epochs without a better validation metric. Default: run all epochs."""

    loss: LossKind = "cross_entropy"
    """`cross_entropy` (for many labels: binary, a label each) or `focal` (Lin et al. 2017, arXiv 1708.02002)."""

    focal_gamma: float = Field(2.0, ge=0)
    """How far `focal` turns away from rows that are right already; 0 is cross entropy."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes (Szegedy et al. 2016, arXiv 1512.00567)."""

    class_weights: ClassWeights | None = None
    """Weight of each class in the loss: `balanced` (all classes weigh alike), or some by name: toxic=5,insult=2."""

    sampling: Sampling = "shuffle"
    """`shuffle` shows every row once an epoch; `balanced` draws rows with replacement, every class alike."""

    metric: MetricName = "f1_macro"
    """What chooses the epoch and the rate on validation, as scikit-learn spells it."""

    seed: int = Field(0, ge=0)
    """Seed of head initialization, shuffling and dropout."""


class DecisionConfig(Section):
    """How scores become labels, fitted on validation when training is done. Test never sees it."""

    calibrate: bool = True
    """Scale the logits so that scores are honest chances (temperature, Guo et al. 2017, arXiv 1706.04599). It goes into
    the output layer's weights."""

    thresholds: Thresholds = "auto"
    """`f1`: the threshold of best F1 on validation, for each label or for `positive`; `default`: 0.5, and the likeliest
    of exclusive classes; `auto`: `f1` where a row may have many labels, else `default`."""

    at_recall: Share | None = None
    """The highest threshold that keeps this recall on validation, such as 0.95."""

    at_precision: Share | None = None
    """The lowest threshold that keeps this precision on validation."""

    costs: Costs | None = None
    """What mistakes cost, by "true>predicted": toxic>harmless=5,harmless>toxic=1; those not named cost 1. For many
    labels a row: miss=5,false_alarm=1."""

    positive: str | None = None
    """The class whose threshold is meant. Default: of two classes the last in sorted order."""

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        aims = {
            "at_recall": self.at_recall,
            "at_precision": self.at_precision,
            "costs": self.costs,
            "thresholds f1": self.thresholds == "f1" or None,
        }
        given = [name for name, value in aims.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: a threshold has one aim")
        return self
