"""A classifier that counts words: its scores can be computed by hand, and it needs neither torch nor a graph."""

from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fullbake.classifier.model import Classifier, RunRecord
from fullbake.config.problems import SINGLE_LABEL, problem_named
from fullbake.config.sections import TokensConfig
from fullbake.evaluation.decisions import Decision
from fullbake.models.encoding import Encoded
from fullbake.models.light_tokenizer import LightTokenizer
from fullbake.models.prediction import of_texts

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "the", "film", "is", "query", ":", "好", "坏")
"""Good films have more of `good` and 好 than of `bad` and 坏."""


def light_tokenizer() -> LightTokenizer:
    """Return a tokenizer whose tokens are words."""
    ids = {word: number for number, word in enumerate(WORDS)}
    backend = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = [(word, ids[word]) for word in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", specials)
    return LightTokenizer(backend, ("input_ids", "token_type_ids", "attention_mask"), 0, "counting")


class CountingPredictor:
    """Gives (good, bad) as logits: how often the words of each class are in a row."""

    engine = "onnx"

    def __init__(self) -> None:
        self.rows = 0

    def logits(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "") -> np.ndarray:
        """Return the counts, float32 (texts, 2)."""
        self.rows += len(encoded)
        rows = np.split(encoded.input_ids, encoded.offsets[1:-1])
        kinds = [[WORDS.index(word) for word in words] for words in (("good", "好"), ("bad", "坏"))]
        counts = np.array([[np.isin(row, ids).sum() for ids in kinds] for row in rows], np.float32)
        return of_texts(counts, encoded, tokens)

    def pooled(self, encoded: Encoded, tokens: TokensConfig, *, title: str = "") -> np.ndarray:
        """Return the same counts."""
        return self.logits(encoded, tokens)


def counting_classifier(
    *, problem: Any = SINGLE_LABEL, names: tuple[str, str] = ("good", "bad"), pairs: bool = False, **tokens: Any
) -> Classifier:
    """Return a classifier of films."""
    kind = problem_named(problem)
    columns = {"text": "text", "text_pair": "other" if pairs else None}
    return Classifier(
        CountingPredictor(),
        light_tokenizer(),
        TokensConfig(**({"max_length": 16} | tokens)),
        RunRecord({"columns": columns}),
        Decision(kind, names),
        label_names=names,
        problem=kind,
    )
