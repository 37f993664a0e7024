"""TODO"""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from fullbake.config.fields import NameList, Precision, Rate, Schedule, Section, Share, _parse_shares

PretrainingObjective = Literal["mlm", "mlm+nsp", "mlm+sop"]
Init = Literal["base", "random"]


class PretrainingConfig(Section):
    """Way 1's stage: the base goes on learning from raw text, before it becomes a classifier."""

    corpus: NameList | None = None
    """Files of raw text (.txt), or tables with a column of texts. Within a recipe they are read besides the training
    part's own texts."""

    objective: PretrainingObjective = "mlm+nsp"
    """Masked words alone (`mlm`), with next-sentence prediction (Devlin et al. 2019) or with sentence order (`mlm+sop`,
    Lan et al. 2020, arXiv 1909.11942)."""

    steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps in all."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the corpus, in place of steps. Masks and pairs are drawn anew in each. Default: 3."""

    max_length: Annotated[int, Field(ge=8)] | None = None
    """Tokens of a row, special ones included. Default: 128."""

    phases: Annotated[
        dict[Annotated[int, Field(ge=8)], Annotated[float, Field(gt=0, le=1)]], BeforeValidator(_parse_shares)
    ] | (None) = None
    """Lengths one after another with their shares of the steps, in place of max_length: 128:0.9,512:0.1 as BERT was
    trained."""

    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Rows in a batch. Default: 32."""

    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens in a batch, in place of batch_size: as many rows as hold that many on average."""

    gradient_accumulation: int = Field(1, ge=1)
    """Batches in one optimizer step."""

    token_budget: Annotated[int, Field(ge=1)] = 2048
    """Most tokens, padding included, that one forward pass takes. Changes results by rounding only."""

    learning_rate: Rate = 5e-5
    """Peak rate. From a checkpoint 2e-5 to 5e-5 keep what it knew; BERT itself was trained at 1e-4."""

    optimizer: Literal["adamw", "adam"] = "adamw"
    """`adamw` (what BERT's authors call Adam: their weight decay is decoupled) or `adam`."""

    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of Adam's mean of gradients."""

    beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of Adam's mean of squares."""

    epsilon: float = Field(1e-6, gt=0)
    """Added to the root of Adam's mean of squares (1e-6 in BERT's own code)."""

    weight_decay: float = Field(0.01, ge=0)
    """Never on biases and norms."""

    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients longer than this are scaled down to it."""

    schedule: Schedule = "linear"
    """Decay of the rate after warm-up: linear or cosine to 0, constant, or constant and down in the last fifth
    (`1-sqrt`)."""

    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0 to its peak."""

    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps of warm-up, in place of a share."""

    mask_probability: Share = 0.15
    """Chance of a token (or word) to be one that the model has to guess."""

    mask_share: float = Field(0.8, ge=0, le=1)
    """Share of these that become the mask token."""

    random_share: float = Field(0.1, ge=0, le=1)
    """Share of these that become a random token; the rest stays as it is."""

    whole_words: bool = False
    """Mask all pieces of a word together."""

    short_probability: float = Field(0.1, ge=0, lt=1)
    """Chance of a pair to be shorter than max_length, as in BERT's own data."""

    held_out: Share = 0.05
    """Share of the corpus, at most 50,000 tokens of it, that is never trained on and measures the loss."""

    evaluations: int = Field(10, ge=1)
    """How often both losses, on held-out and on general text, are measured on the way."""

    probe_text: str | None = None
    """File of general text for measuring what is forgotten. Default: bundled English sentences."""

    language: str = "en"
    """Language (ISO 639-1) whose abbreviations the splitter into sentences knows."""

    init: Init = "base"
    """`random` starts from nothing: a base that is a config alone, trained from random weights."""

    transductive: bool = False
    """Let texts of the validation and test parts into the corpus. The base and every score of it say so."""

    precision: Precision = "auto"
    """`auto` takes bf16 where a GPU has it, fp32 elsewhere."""

    seed: int = Field(0, ge=0)
    """Seed of masks, pairs, order and dropout."""

    @property
    def lengths(self) -> dict[int, float]:
        """Each phase's length and its share of the steps."""
        return self.phases or {self.max_length or 128: 1.0}

    @model_validator(mode="after")
    def _phases_add_up(self) -> Self:
        if self.phases and abs(sum(self.phases.values()) - 1) > 1e-6:
            raise ValueError(f"phases: their shares add up to {sum(self.phases.values()):g}, not to 1")
        return self

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for one, other in (("batch_tokens", "batch_size"), ("phases", "max_length"), ("steps", "epochs")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{one} and {other} exclude each other")
        if self.mask_share + self.random_share > 1:
            raise ValueError("mask_share and random_share are more than all together")
        if self.warmup_steps is not None and self.steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} leave none of the {self.steps} steps for the rest")
        return self
