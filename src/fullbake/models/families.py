"""What is special about each encoder family: one record per family that needs care.

What can be found out by trying is found out by trying, in the module that needs it: the first position (`pretrained`),
the list of layers (`encoder`), whether a head can run without its encoder (`network`). This table holds what cannot:
names of classes and weights that differ between families. A family without a record gets the defaults
of `Family`: it works, without the fast layers and with its pair head in a file of its own.

Nothing heavy is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class PairHeadNames:
    """Where a family keeps the head that judges pairs of texts (NSP or SOP)."""

    model_class: str
    """Class in `transformers` that has the masked-LM head and the pair head."""

    dense: str
    """Name in that class of the dense layer (width -> width)."""

    output: str
    """Name in that class of the output layer (width -> 2)."""


@dataclass(frozen=True)
class FastClasses:
    """Classes whose forward pass `fast_layers` knows. Each is written as package.Class below transformers.models."""

    layer: str
    """Class of one encoder layer."""

    stack: str
    """Class that runs its `self.layer` one after another and hands its keyword arguments on to the attention. The
    states that it is given know their positions already."""

    parts: Literal["bert", "distilbert"]
    """Whose names the parts of a layer have."""


@dataclass(frozen=True)
class Family:
    """What is special about an encoder family. The defaults describe a family that needs no care."""

    shares_layers: bool = False
    """True if one group of weights runs as every layer, so that layers cannot be frozen one by one."""

    pooling_field: str = "classifier_pooling"
    """Config field that names what the standard head reads. A config without this field means the first token."""

    pooler_activation: str | None = None
    """Where the encoder's pooler is a bare dense layer: the encoder's attribute that holds the activation."""

    pair_head: PairHeadNames | None = None
    """Place of the pair head, if the family has one; None puts it into a file of its own beside the weights."""

    fast: FastClasses | None = None
    """Classes that the fast layers know; None runs all layers as transformers has them."""


FAMILIES: Final[Mapping[str, Family]] = {
    "albert": Family(
        shares_layers=True,
        pooler_activation="pooler_activation",
        pair_head=PairHeadNames("AlbertForPreTraining", "albert.pooler", "sop_classifier.classifier"),
    ),
    "bert": Family(
        pair_head=PairHeadNames("BertForPreTraining", "bert.pooler.dense", "cls.seq_relationship"),
        fast=FastClasses("bert.BertLayer", "bert.BertEncoder", parts="bert"),
    ),
    "camembert": Family(fast=FastClasses("camembert.CamembertLayer", "camembert.CamembertEncoder", parts="bert")),
    "distilbert": Family(
        fast=FastClasses("distilbert.TransformerBlock", "distilbert.Transformer", parts="distilbert"),
    ),
    "electra": Family(fast=FastClasses("electra.ElectraLayer", "electra.ElectraEncoder", parts="bert")),
    "roberta": Family(fast=FastClasses("roberta.RobertaLayer", "roberta.RobertaEncoder", parts="bert")),
    "xlm-roberta": Family(
        fast=FastClasses("xlm_roberta.XLMRobertaLayer", "xlm_roberta.XLMRobertaEncoder", parts="bert")
    ),
}
"""Model type, as config.json has it -> the family's record. `tests/models/test_families.py` checks every claim."""


def family_of(model_type: str) -> Family:
    """Return the record of a model type, or the defaults for a family that needs no care.

    Args:
        model_type: What config.json calls the architecture, such as `bert`.
    """
    return FAMILIES.get(model_type, Family())
