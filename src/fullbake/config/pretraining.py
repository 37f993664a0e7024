"""The recipe's section for further pretraining, which comes before a classifier is trained.

It is a file of its own because it is also used alone: `fullbake pretrain` takes these fields as flags. Steps, lengths
and batch sizes can each be given in two ways. Both at once are refused, because no order between them would be obvious.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from fullbake.config.fields import LengthShares, NameList, Precision, Rate, Schedule, Section, Share

PretrainingObjective = Literal["mlm", "mlm+nsp", "mlm+sop"]
Init = Literal["base", "random"]

DEFAULT_PASSES: Final = 3
"""Passes over the corpus where neither `steps` nor `epochs` is given."""

DEFAULT_BATCH: Final = 32
"""Rows of a batch where neither `batch_size` nor `batch_tokens` is given."""


class PretrainingConfig(Section):
    """Further pretraining: the base learns from raw text before it becomes a classifier."""

    corpus: NameList | None = None
    """Files of raw text (.txt), or tables with a column of texts. Inside a recipe, the texts of the training part are
    always read, and these files in addition. Default: no further files."""

    objective: PretrainingObjective = "mlm+nsp"
    """`mlm` predicts masked tokens. `mlm+nsp` also predicts whether one segment follows another (Devlin et al. 2019),
    `mlm+sop` whether two consecutive segments are in the right order (Lan et al. 2020, arXiv 1909.11942)."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Total number of optimizer steps. Default: what `epochs` gives."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the corpus, in place of `steps`. Each pass draws new masks and pairs. Default: 3."""

    max_length: Annotated[int, Field(ge=8)] | None = None
    """Longest row in tokens, special tokens included. Default: 128."""

    phases: LengthShares | None = None
    """Row lengths in tokens, one after another, each with its share of the steps, in place of `max_length`. BERT was
    trained with 128:0.9,512:0.1. Default: one phase of `max_length`."""

    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Rows in a batch. Default: 32."""

    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Average number of tokens in a batch, in place of `batch_size`. Default: none, `batch_size` counts."""

    gradient_accumulation: int = Field(1, ge=1)
    """Batches in one optimizer step."""

    token_budget: Annotated[int, Field(ge=1)] = 2048
    """Most tokens of one forward pass, padding included. It limits memory; results change by rounding only."""

    learning_rate: Rate = 5e-5
    """Peak learning rate. From a pretrained base, 2e-5 to 5e-5 forget little; BERT itself was trained at 1e-4."""

    optimizer: Literal["adamw", "adam"] = "adamw"
    """`adamw` decouples the weight decay, as the code of BERT's authors does; `adam` adds it to the gradients."""

    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of Adam's running mean of gradients."""

    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of Adam's running mean of squared gradients."""

    epsilon: float = Field(1e-6, gt=0)
    """Added to the denominator of Adam's update. BERT's own code uses 1e-6."""

    weight_decay: float = Field(0.01, ge=0)
    """Weight decay. Biases and normalization layers have none."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradient of a step. A longer gradient is scaled down to it."""

    schedule: Schedule = "linear"
    """How the learning rate falls after warmup: `linear` or `cosine` to 0, `constant` never, `1-sqrt` in the last fifth
    of the steps (Hägele et al. 2024, arXiv 2405.18392)."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0 to its peak."""

    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Number of warmup steps, in place of the share `warmup`. Default: none, the share counts."""

    mask_probability: Share = 0.15
    """Probability that a token (or a word, with `whole_words`) is selected for the model to predict."""

    mask_share: float = Field(0.8, ge=0, le=1)
    """Share of the selected tokens that are replaced by the mask token."""

    random_share: float = Field(0.1, ge=0, le=1)
    """Share of the selected tokens that are replaced by a random token. The rest stays unchanged."""

    whole_words: bool = False
    """Select all tokens of a word together (whole-word masking). Default: each token alone."""

    short_probability: float = Field(0.1, ge=0, lt=1)
    """Probability that a pair of segments is made shorter than `max_length`, as in BERT's own data."""

    held_out: Share = 0.05
    """Share of the corpus, at most 50,000 tokens, that is not trained on. The loss is measured on it."""

    evaluations: Annotated[int, Field(ge=1)] | None = None
    """How many times during training the losses on held-out text and on general text are measured. Default: 10, or
    fewer in a short training, so that measuring takes at most a tenth of the time of its steps."""

    probe_text: str | None = None
    """File of general text, to measure how much the base forgets. Default: bundled English sentences; none with
    `init: random`, where there is nothing to forget."""

    language: str = "en"
    """Language of the corpus (ISO 639-1 code). The sentence splitter takes its abbreviations from it."""

    init: Init = "base"
    """Weights to start from: `base` takes those of the base; `random` takes its config alone and draws new weights."""

    transductive: bool = False
    """Allow texts of the validation and test parts in the corpus. The base and all its scores are marked with it."""

    precision: Precision = "auto"
    """`auto` is bf16 on a GPU that supports it, else fp32."""

    seed: int = Field(0, ge=0)
    """Random seed of masks, pairs, row order and dropout."""

    @property
    def lengths(self) -> dict[int, float]:
        """The row length of each phase in tokens, with its share of the steps."""
        return self.phases or {self.max_length or 128: 1.0}

    @model_validator(mode="after")
    def _check_phases(self) -> Self:
        if self.phases and abs(sum(self.phases.values()) - 1) > 1e-6:
            raise ValueError(f"phases: the shares have to add up to 1, not to {sum(self.phases.values()):g}")
        return self

    @model_validator(mode="after")
    def _check_excluding_fields(self) -> Self:
        for one, other in (("batch_tokens", "batch_size"), ("phases", "max_length"), ("steps", "epochs")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} and {other} exclude each other: give one of the two")
        if self.mask_share + self.random_share > 1:
            raise ValueError("mask_share and random_share have to add up to 1 or less")
        if self.warmup_steps is not None and self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: has to be less than the {self.steps} steps, not {self.warmup_steps}")
        return self
