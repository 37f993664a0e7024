"""A classifier as the two objects that transformers works with: a model and a tokenizer."""

import copy

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from fullbake.config.sections import TokensConfig
from fullbake.core.console import say
from fullbake.models.network import EncoderForTextClassification


def copy_for_transformers(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tokens: TokensConfig
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Return copies of a network and its tokenizer that the caller may change, and say what they do not do.

    Args:
        network: The network.
        tokenizer: Its tokenizer.
        tokens: How the classifier cuts texts.
    """
    if isinstance(network, EncoderForTextClassification):
        say(
            "transformers has no class with this head: the model is fullbake's EncoderForTextClassification. It works "
            "in pipelines and trainers here; where it is loaded again, import Classifier from fullbake first."
        )
    if tokens.truncation != "head":
        say(f"the classifier cuts long texts by truncation {tokens.truncation}; a pipeline keeps only their beginning")
    if tokens.prompt:
        say(f"the classifier puts {tokens.prompt!r} before every text; a pipeline does not, so do it yourself")
    return copy.deepcopy(network).eval(), copy.deepcopy(tokenizer)
