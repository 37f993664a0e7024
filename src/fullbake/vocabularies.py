"""A WordPiece vocabulary of one's own, for a base that starts from nothing: a config and no tokenizer.

Trained by `tokenizers` on the sources as a stream, and kept in the cache under a key of all it depends on, beside the
config: a folder that loads like any other base that has no weights yet. As BERT's: text cleaned, lower case, accents
stripped, words split at white space and punctuation.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from tokenizers import BertWordPieceTokenizer
from tokenizers.processors import BertProcessing
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from fullbake.core import runtime
from fullbake.core.cache import Cache
from fullbake.core.console import bar, say
from fullbake.core.errors import BaseModelError, DataError
from fullbake.core.hashing import file_sha256, fingerprint
from fullbake.documents import Source
from fullbake.models.pretrained import load_config, resolve

_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_INPUTS: Final = ("input_ids", "token_type_ids", "attention_mask")
_CACHE_BYTES: Final = 2 * 1024**3


def with_vocabulary(base: str | Path, sources: Sequence[Source], cache_dir: str | Path | None = None) -> str:
    """The folder of a base that has a tokenizer: `base` itself, or a cached folder with one trained on the sources.

    Raises BaseModelError where the config's vocabulary has no room for single characters, DataError where there is no
    text to learn from.
    """
    place = resolve(base)
    if not isinstance(place, Path) or any((place / name).is_file() for name in _TOKENIZER_FILES):
        return str(base)
    config = load_config(base)
    cache = Cache(runtime.cache_dir(cache_dir) / "vocabularies", _CACHE_BYTES)
    key = fingerprint("wordpiece", file_sha256(place / "config.json"), [source.fingerprint for source in sources])
    if runtime.rank() == 0 and cache.get(key) is None:
        say(f"no tokenizer in {base}: training a WordPiece vocabulary of {config.vocab_size:,} on the corpus")
        tokenizer = _train(sources, config)
        with cache.put(key, f"vocabulary of {config.vocab_size:,} pieces") as folder:
            shutil.copyfile(place / "config.json", folder / "config.json")
            tokenizer.save_pretrained(folder)
    runtime.wait_for_ranks()
    return str(cache.root / key)


def _train(sources: Sequence[Source], config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    trainer = BertWordPieceTokenizer()
    sizes = [source.size for source in sources]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    with bar("learning the vocabulary", total, "characters") as advance:
        trainer.train_from_iterator(
            _paragraphs(sources, advance),
            vocab_size=config.vocab_size,
            min_frequency=2,
            special_tokens=list(_SPECIAL),
            show_progress=False,
        )
    size = trainer.get_vocab_size()
    if size <= len(_SPECIAL):
        raise DataError("there is no text to learn a vocabulary from", expected="at least one sentence")
    if size > config.vocab_size:
        raise BaseModelError(
            "the config's vocabulary is too small for the characters of the corpus",
            where="config.json, vocab_size",
            expected=f"at least {size:,}",
            got=f"{config.vocab_size:,}",
        )
    ends = [(token, trainer.token_to_id(token)) for token in ("[SEP]", "[CLS]")]
    trainer.post_processor = BertProcessing(*ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=trainer._tokenizer, model_input_names=list(_INPUTS), **names)


def _paragraphs(sources: Sequence[Source], advance: Callable[[int], None]) -> Iterator[str]:
    for document in chain.from_iterable(source.read() for source in sources):
        yield from document.paragraphs
        advance(document.characters)
