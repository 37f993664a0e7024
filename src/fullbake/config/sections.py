"""The sections of a recipe: frozen pydantic models, where the string under a field is its help text.

No two fields of different sections have the same name, so that the field, the keyword of `Recipe.load` and the
command-line flag are one word. The price: a section cannot choose its names freely (a test checks this). Rules within a
section are checked here, rules between sections in `recipe`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from fullbake.config.fields import (
    CachePrecision,
    ClassWeights,
    Costs,
    Delimiter,
    GradientNorm,
    HeadKind,
    LossKind,
    MetricName,
    NameList,
    NearDuplicates,
    Optimizer,
    Padding,
    PartSource,
    Pooling,
    Precision,
    Quoting,
    RatesOrAuto,
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
    """The columns that hold the texts and the labels. Without `label` and `labels` there are texts alone."""

    text: str

    label: str | None = None
    """One column with a label, a list of labels, or labels between separators in each row."""

    text_pair: str | None = None
    """The column of second texts, for tasks on text pairs."""

    labels: tuple[str, ...] | None = None
    """Columns of 0 and 1, one for each label, in place of `label`."""

    label_separator: str | None = None
    """The text between the labels in the `label` column."""

    exclusive: bool = False
    """Whether lists of labels (or separated labels, or columns of 0 and 1) hold one label a row, which is its class."""

    group: str | None = None
    """The column whose equal values mark rows that belong together, such as the texts of one user."""

    @property
    def of_texts(self) -> tuple[str, ...]:
        """The columns of texts: one, or two for text pairs."""
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    @property
    def of_labels(self) -> tuple[str, ...]:
        """The columns of labels; empty where there are texts alone."""
        if self.labels is not None:
            return self.labels
        return () if self.label is None else (self.label,)

    @property
    def of_groups(self) -> tuple[str, ...]:
        """The column of groups; empty where there is none."""
        return () if self.group is None else (self.group,)

    def to_json(self) -> dict[str, Any]:
        """Return the columns as JSON values, as a bundle stores them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Columns":
        """Return the columns that `to_json` wrote. Entries of later versions are left out."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        labels = values.get("labels")
        return cls(**{**known, "labels": None if labels is None else tuple(labels)})


@dataclass(frozen=True)
class Dialect:
    """How the files of rows are written, as far as their names do not say it. Each field is a flag."""

    delimiter: str | None = None
    """Between fields; None takes that of the format."""

    encoding: str = "utf-8"
    """Of text files; a name that Python's codecs know."""

    quoting: Quoting = "standard"
    """`standard`: a field may be within quotes. `none`: a quote is a character like any other."""

    no_header: tuple[str, ...] | None = None
    """The names of the columns of a file that does not begin with them; None reads them from the file."""

    json_path: str | None = None
    """The members of a JSON document that lead to the list of rows, with dots between them."""


class DataConfig(Section):
    """The columns of the data, and the rows that validate and test."""

    text: str = "text"
    """Column of the texts."""

    text_pair: str | None = None
    """Column of the second texts, for tasks on text pairs. Default: none."""

    label: str = "label"
    """Column of the labels. If it holds lists (JSON, Parquet), a row may have many labels."""

    labels: NameList | None = None
    """Columns of 0 and 1, one for each label, such as toxic,insult,threat. A row may have many. Use it instead of
    `label`."""

    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """Text between the labels where a cell of the label column holds many, such as `|` in `anger|joy`."""

    exclusive: bool = False
    """Each row has exactly one label, though it is written as a list, between separators, or in columns of 0 and 1: the
    labels are classes. A row with several labels is an error."""

    drop_rare: Annotated[int, Field(ge=1)] | None = None
    """Leave out labels that fewer rows of the training file have. The rows of such a class are left out in every part;
    where a row may have many labels, the rows stay and lose the label. Default: no label is left out."""

    group: str | None = None
    """Column such as a user or a document. Rows with the same value stay in one part or fold, and intervals and tests
    count groups, not rows. A row without a value is a group of its own. Default: none."""

    near_duplicates: NearDuplicates = "together"
    """`together` keeps nearly equal texts in one part or fold, as equal ones always are. `apart` allows them in two
    parts, for texts that are all made from a template; scores may then be too high, and are marked with it."""

    validation: PartSource = 0.2
    """Validation rows, which choose the epoch and the learning rate: a share of the training file, or a file."""

    folds: Annotated[int, Field(ge=0, le=50)] | None = None
    """Number of cross-validation folds of the training rows, in place of one validation part. 0 uses no folds. Default:
    5 if the validation share would hold fewer than 5 rows of a class, else 0."""

    test: PartSource | None = None
    """Test rows, which are scored once, at the end: a share of the training file, or a file. Default: none."""

    split_seed: int = Field(0, ge=0)
    """Random seed of the split into training, validation and test rows. `seed` is the seed of training."""

    delimiter: Delimiter | None = None
    """Character between the columns of a text file, `\\t` for a tab. A .txt file is a table if it is given. Default: by
    extension, a comma for .csv and a tab for .tsv."""

    encoding: str = "utf-8"
    """Encoding of text files. A byte order mark is allowed."""

    quoting: Quoting = "standard"
    """`standard`: a field within quotes may hold delimiters and line ends. `none`: quotes are part of the text, as in
    the TSV files of GLUE."""

    no_header: NameList | None = None
    """The names of all columns, such as label,text, for a file whose first line is a row already. They also name the
    items of rows that are JSON lists."""

    json_path: str | None = None
    """The member of a .json file that holds the rows, such as `train`; `data.train` is a member of a member. Default:
    the file is the list of rows itself."""

    drop_unlabelled: bool = False
    """Leave out rows with an empty label, instead of refusing the file."""

    drop_overlap: bool = False
    """Leave out training rows whose text, or group, is also in the validation or test part."""

    allow_overlap: bool = False
    """Keep training rows whose text, or group, is also in the validation or test part. All scores are marked with
    it."""

    @property
    def columns(self) -> Columns:
        """The columns of texts and labels."""
        label = None if self.labels else self.label
        return Columns(self.text, label, self.text_pair, self.labels, self.label_separator, self.exclusive, self.group)

    @property
    def dialect(self) -> Dialect:
        """How the files are written."""
        return Dialect(self.delimiter, self.encoding, self.quoting, self.no_header, self.json_path)

    @model_validator(mode="after")
    def _check_dialect(self) -> Self:
        if self.delimiter is not None and len(self.delimiter) > 1 and self.quoting != "none":
            raise ValueError(
                "delimiter: several characters separate fields only where quotes are part of the text: add "
                "quoting none (--quoting none), or give one character"
            )
        if self.no_header is not None and len(set(self.no_header)) != len(self.no_header):
            raise ValueError("no_header: the same name is given twice")
        return self

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if self.drop_overlap and self.allow_overlap:
            raise ValueError("drop_overlap and allow_overlap exclude each other: give one of the two")
        return self

    @model_validator(mode="after")
    def _check_folds(self) -> Self:
        if self.folds and isinstance(self.validation, str):
            raise ValueError("folds and a file for validation exclude each other: give one of the two")
        if self.folds == 1:
            raise ValueError("folds: one fold leaves nothing to train on; take 2 or more, or 0 for a single split")
        return self

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if self.labels is not None and self.label_separator is not None:
            raise ValueError("labels and label_separator exclude each other: name columns of 0 and 1, or one column")
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels: the same column is named twice")
        columns = {self.text, self.text_pair, *(self.labels or (self.label,))} - {None}
        if len(columns) < 1 + (self.text_pair is not None) + len(self.labels or (self.label,)):
            raise ValueError("text, text_pair and label have to be different columns")
        if self.group in columns:
            raise ValueError("group has to be another column than text, text_pair and label")
        return self


class TokensConfig(Section):
    """How texts become token ids, and how the ids are batched."""

    max_length: Annotated[int, Field(ge=4)] | None = None
    """Longest input in tokens, special tokens included. Default: the length that a sentence-transformers base names,
    else the limit of the base (512 for BERT)."""

    prompt: str | None = None
    """Text put before every text, such as `query: `; of pairs, before the first. It stays whatever is cut. Default: the
    default prompt of a sentence-transformers base, else none."""

    truncation: Truncation = "head"
    """Which part of a longer text is read. `head+tail` keeps 128 + 382 of 512 tokens (Sun et al. 2019, arXiv
    1905.05583). `windows` reads the whole text in pieces. `auto` tries all four and validation chooses."""

    stride: Annotated[int, Field(ge=0)] | None = None
    """Number of tokens that two neighboring windows share. Default: a quarter of `max_length`."""

    window_pooling: WindowPooling = "mean"
    """How the logits of a text's windows are combined: their mean, or their maximum."""

    padding: Padding = "longest"
    """Pad to the longest text of a batch, or always to `max_length`."""

    token_budget: Annotated[int, Field(ge=1)] = 2048
    """Most tokens of one forward pass, padding included. It limits memory; results change by rounding only."""


class HeadConfig(Section):
    """The layers on top of the encoder."""

    kind: HeadKind = "auto"
    """`standard` is the head of the base's architecture. `linear` is one layer. `mlp` is dropout, then blocks of dense
    layer, batch norm and ReLU. `auto` is, with way `finetune`, `linear` on a base that names its pooling, else
    `standard`; with way `frozen` both `linear` and `mlp` are trained and validation chooses."""

    pooling: Pooling | None = None
    """How the token vectors of a text become one vector. Default: what the base names, else `cls`."""

    dropout: float = Field(0.15, ge=0, lt=1)
    """Dropout probability before the blocks of an `mlp` head."""

    layers: int = Field(2, ge=1, le=16)
    """Number of blocks of an `mlp` head."""

    width: Annotated[int, Field(ge=1)] | None = None
    """Units of each block of an `mlp` head. Default: the hidden size of the base (768 for BERT)."""

    l2: float = Field(0.01, ge=0)
    """L2 penalty of an `mlp` head: this number times the sum of the output layer's squared weights is added to the
    loss."""

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value


class TrainingConfig(Section):
    """How weights are trained, for how long, and what chooses among the results."""

    optimizer: Optimizer = "adamw"
    """`lbfgs` fits scikit-learn's logistic regression, for a frozen base with a `linear` head only."""

    learning_rate: RatesOrAuto = "auto"
    """Peak learning rate. Of several, such as 5e-5,4e-5,3e-5,2e-5, each is trained and validation chooses. `auto` takes
    a rate that suits the width of the base; where there are enough steps, short trainings at four rates check it."""

    batch_size: int = Field(32, ge=1)
    """Rows in a batch."""

    gradient_accumulation: int = Field(1, ge=1)
    """Batches in one optimizer step."""

    epochs: int = Field(3, ge=1)
    """Number of passes over the training rows."""

    min_steps: int = Field(0, ge=0)
    """With few rows, raise the epochs until a training has so many optimizer steps. `--epochs` sets it to 0."""

    schedule: Schedule = "linear"
    """How the learning rate falls after warmup: `linear` or `cosine` falls to 0, `constant` does not fall, `1-sqrt`
    falls only in the last fifth of the steps (Hägele et al. 2024, arXiv 2405.18392)."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0 to its peak."""

    weight_decay: float = Field(0.01, ge=0)
    """Weight decay: decoupled with `adamw`, added to the gradients with `adam`. Biases and normalization layers have
    none."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of a layer divided by that of the layer above it. 1 is the same rate for all layers; Sun et al.
    2019 take 0.95."""

    freeze_layers: Annotated[int, Field(ge=0)] | None = None
    """Do not train the embeddings and the lowest N layers (0: the embeddings only). They run once and without dropout:
    their output is cached, and each step runs the layers above. Default: all layers are trained."""

    cache_precision: CachePrecision = "fp32"
    """Precision in which features and the output of frozen layers are cached on disk. `fp16` takes half the space and
    rounds them to 11 bits."""

    max_grad_norm: GradientNorm = 1.0
    """Largest norm of the gradient of a step. A longer gradient is scaled down to it; `none` leaves it as it is."""

    precision: Precision = "auto"
    """`auto` is bf16 on a GPU that supports it, else fp32."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many epochs without a better validation metric. Default: all epochs run."""

    loss: LossKind = "cross_entropy"
    """`cross_entropy` is binary for each label where a row may have many. `focal` is the loss of Lin et al. 2017 (arXiv
    1708.02002)."""

    focal_gamma: float = Field(2.0, ge=0)
    """The higher, the less the `focal` loss counts rows that are already predicted right. 0 gives cross entropy."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target probability that is spread over all classes (Szegedy et al. 2016, arXiv 1512.00567)."""

    class_weights: ClassWeights | None = None
    """Weight of each class in the loss: `balanced` gives all classes the same total weight; toxic=5,insult=2 sets
    the weights of some; the others have weight 1. Default: all rows have the same weight."""

    sampling: Sampling = "shuffle"
    """`shuffle` reads every row once per epoch. `balanced` draws rows with replacement, so that each
    class is drawn equally often."""

    metric: MetricName = "f1_macro"
    """Metric by which validation chooses the epoch, as scikit-learn spells it: f1_macro, accuracy, roc_auc,
    neg_log_loss and others. docs/reference/recipe.md lists all."""

    search_metric: MetricName = "neg_log_loss"
    """Metric by which validation chooses the learning rate, the regularization strength and the kind of head. Default:
    `metric` if you give that one, else neg_log_loss."""

    seed: int = Field(0, ge=0)
    """Random seed of the head's weights, shuffling and dropout."""

    @property
    def step_rows(self) -> int:
        """The rows of an optimizer step."""
        return self.batch_size * self.gradient_accumulation

    @property
    def peak_rate(self) -> float:
        """The peak learning rate of one training, the first of the rates.

        Raises:
            ValueError: the rate is still `auto`.
        """
        if self.learning_rate == "auto":
            raise ValueError("the learning rate is still 'auto': training.rates has to choose it first")
        return self.learning_rate[0]

    @model_validator(mode="before")
    @classmethod
    def _search_by_the_given_metric(cls, value: object) -> object:
        if isinstance(value, Mapping) and value.get("metric") is not None and "search_metric" not in value:
            return {**value, "search_metric": value["metric"]}
        return value


class DecisionConfig(Section):
    """How probabilities become labels. It is fitted on validation after training; test rows take no part."""

    calibrate: bool = True
    """Divide the logits by one temperature, so that probabilities match observed frequencies (Guo et al. 2017, arXiv
    1706.04599). The temperature becomes part of the output layer's weights."""

    thresholds: Thresholds = "auto"
    """`default` predicts the likeliest class, or each label of probability 0.5 and more. `f1` takes the threshold of
    best F1 on validation, for each label or for the class `positive`. `auto` is `f1` where a row may have many labels,
    else `default`."""

    at_recall: Share | None = None
    """Take the highest threshold that reaches this recall on validation, such as 0.95. Default: none."""

    at_precision: Share | None = None
    """Take the lowest threshold that reaches this precision on validation, such as 0.9. Default: none."""

    costs: Costs | None = None
    """Take the decision of least cost. Mistakes are named true>predicted, as in toxic>harmless=5; others cost 1. Where
    a row may have many labels: miss=5,false_alarm=1. Default: none."""

    positive: str | None = None
    """The class that the threshold is for, where each row has one class. Default: of two classes the last in sorted
    order."""

    @model_validator(mode="after")
    def _check_aims(self) -> Self:
        aims = {
            "at_recall": self.at_recall,
            "at_precision": self.at_precision,
            "costs": self.costs,
            "thresholds f1": self.thresholds == "f1" or None,
        }
        given = [name for name, value in aims.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: a threshold has one purpose")
        return self
