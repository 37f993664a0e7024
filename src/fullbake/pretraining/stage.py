"""A WordPiece vocabulary of one's own, for a base that starts from nothing: a config and no tokenizer.

Trained by `tokenizers` on the sources as a stream, and kept in the cache under a key of all it depends on, beside the
config: a folder that loads like any other base that has no weights yet. As BERT's: text cleaned, lower case, accents
stripped, words split at white space and punctuation.

Way 1 from end to end: files of raw text become a base in a folder, or a stage of a recipe a base in the cache.

Further pretraining returns a folder that loads like any other base; so nothing after it knows how the base was made,
but for what its fullbake.json tells: that test texts went into it, say.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

from tokenizers import BertWordPieceTokenizer
from tokenizers.processors import BertProcessing
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.recipe import Recipe
from fullbake.core import runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import bar, say, warn
from fullbake.core.errors import BaseModelError, DataError, SpaceFault
from fullbake.core.hashing import file_sha256, fingerprint
from fullbake.data.dataset import read_dataset
from fullbake.data.splits import Part, Parts
from fullbake.models.encoder import load_encoder
from fullbake.models.network import encoder_fingerprint
from fullbake.models.pretrained import load_config, resolve_base
from fullbake.pretraining.documents import Decontamination, DocumentSource, file_source, text_source
from fullbake.pretraining.run import PretrainingRun, prepare_run, run_pretraining, write_base
from fullbake.training import checkpoints
from fullbake.training.checkpoints import CheckpointInterval, Checkpoints, ResumeMode
from fullbake.training.job import FurtherPretrainedBase, Job

_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_INPUTS: Final = ("input_ids", "token_type_ids", "attention_mask")
_CACHE_BYTES: Final = 2 * 1024**3


def base_with_vocabulary(
    base: str | Path, sources: Sequence[DocumentSource], cache_dir: str | Path | None = None
) -> str:
    """The folder of a base that has a tokenizer: `base` itself, or a cached folder with one trained on the sources.

    Raises BaseModelError where the config's vocabulary has no room for single characters, DataError where there is no
    text to learn from.
    """
    place = resolve_base(base)
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


def _train(sources: Sequence[DocumentSource], config: PreTrainedConfig) -> PreTrainedTokenizerFast:
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


def _paragraphs(sources: Sequence[DocumentSource], advance: Callable[[int], None]) -> Iterator[str]:
    for document in chain.from_iterable(source.read() for source in sources):
        yield from document.paragraphs
        advance(document.characters)


BASE_CACHE_BYTES: Final = 50 * 1024**3
"""Bound of the cache of further pretrained bases: 50 GiB hold a hundred BERT-base."""


def further_pretrain(
    base: str | Path,
    corpus: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    stage: PretrainingConfig | None = None,
    text: str = "text",
    delimiter: str | None = None,
    encoding: str = "utf-8",
    keep_out: Sequence[str | Path] = (),
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
    checkpoint_every: str = "5m",
    resume: ResumeMode = "auto",
) -> dict[str, Any]:
    """Let a base learn on from raw text, and save it as a base.

    corpus: files of text, or tables whose column `text` holds a document a row. out: the new base's folder. keep_out:
    tables whose texts must not be learned from (a test set): equal and nearly equal documents and paragraphs are left
    out, or let in and said so where the stage is transductive. Returns what the folder's fullbake.json holds. Raises
    Error's children: RecipeError, DataError, BaseModelError, OutputError, Fault; Interrupted where a signal stopped it.
    """
    runtime.join_ranks()
    stage = stage or PretrainingConfig()
    storage.recover(out)
    if not checkpoints.is_saved(out):
        storage.require_vacant(out, overwrite=overwrite)
    paths = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    if not paths:
        raise DataError("there is no corpus", expected="one file of text at least")
    sources = [file_source(path, text=text, delimiter=delimiter, encoding=encoding) for path in paths]
    guard = Decontamination(_held_back(keep_out, text, delimiter, encoding), stage.transductive)
    place = base_with_vocabulary(base, sources, cache_dir) if stage.init == "random" else base
    course = prepare_run(place, sources, stage, guard=guard, cache_dir=cache_dir)
    _tell_leaks(course.facts, stage)
    facts = _facts(course, str(base))
    cadence = CheckpointInterval.parse(checkpoint_every)
    if checkpoints.only_cleanup_left(out, facts):
        say(f"{out} was complete already; its run was stopped while it cleaned up")
        checkpoints.remove_unfinished(out, writes=runtime.rank() == 0)
        return _about(Path(out))
    runtime.wait_for_ranks()
    run = checkpoints.open_unfinished_run(out, facts, cadence, resume, writes=runtime.rank() == 0)
    outcome = run_pretraining(course, run.checkpoints("pretraining"))
    if runtime.rank() == 0:
        about = {"run": fingerprint(facts), "base": str(base)}
        with storage.staged(out, overwrite=overwrite, needed=_size(course)) as folder:
            write_base(folder, course, outcome, about)
        run.close()
    runtime.wait_for_ranks()
    return _about(Path(out))


def _held_back(files: Sequence[str | Path], text: str, delimiter: str | None, encoding: str) -> list[str]:
    """The texts of some tables."""
    tables = (read_dataset(path, text=text, delimiter=delimiter, encoding=encoding) for path in files)
    return [value for table in tables for value in table.texts.to_pylist()]


def _facts(course: PretrainingRun, base: str) -> dict[str, Any]:
    """All that the new weights depend on, JSON values."""
    return {
        "base": base,
        "weights": encoder_fingerprint(course.network.model),
        "further_pretraining": course.stage.model_dump(mode="json"),
        "corpus": course.facts["fingerprint"],
        "processes": runtime.world_size(),
        "threads": runtime.threads(),
        "device": runtime.device().type,
        "versions": runtime.versions(),
    }


def _size(course: PretrainingRun) -> int:
    sizes: list[int] = [tensor.nbytes for tensor in course.network.state_dict().values()]
    return sum(sizes) + 4_000_000


def _about(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = storage.read_json(folder / "fullbake.json")
    return about


def _tell_leaks(facts: dict[str, Any], stage: PretrainingConfig) -> None:
    documents, paragraphs = facts["held_back_documents"], facts["held_back_paragraphs"]
    if not documents and not paragraphs:
        return
    found = f"{documents:,} documents and {paragraphs:,} paragraphs of the corpus stand in held-back texts"
    if stage.transductive:
        warn(f"{found}; they were let in (transductive), and every score of this base says so")
    else:
        say(f"{found}; they were left out")


# As a stage of a recipe


def with_further_pretraining(job: Job) -> Job:
    """The job with the base that its recipe's further pretraining makes; checkpoints are the run's own."""
    folder = stage_base(job.recipe, job.parts, job.cache_dir, job.checkpoints("further-pretraining"))
    return replace(
        job, adapted=FurtherPretrainedBase(str(folder), encoder_fingerprint(load_encoder(folder)), _about(folder))
    )


def stage_base(
    recipe: Recipe,
    parts: Parts,
    cache_dir: str | Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Path:
    """The base that the recipe's further pretraining makes of its own, from the cache where it is there.

    The corpus is the training part's texts and the stage's own files, less what the other parts hold (unless
    transductive: then the files may hold them). checkpoints: where to save and go on from. Equal stages over equal
    texts are trained once. Raises as `further_pretrain` does.
    """
    stage, sources = recipe.stage, _sources(recipe, parts)
    held_back = [column for part in (parts.validation, parts.test) if part is not None for column in _columns(part)]
    guard = Decontamination([text for column in held_back for text in column], stage.transductive)
    cache = Cache(runtime.cache_dir(cache_dir) / "bases", BASE_CACHE_BYTES)
    key = _key(recipe.base, stage, [guard.apply(source) for source in sources])
    known = cache.get(key)
    if runtime.true_on_all_ranks(known is not None) and known is not None:
        say(f"further pretraining: this base was found in the cache ({cache.root})")
        return known
    course = prepare_run(recipe.base, sources, stage, guard=guard, cache_dir=cache_dir)
    _tell_leaks(course.facts, stage)
    outcome = run_pretraining(course, checkpoints)
    if runtime.rank() == 0:
        with cache.put(key, f"{recipe.base} further pretrained, {course.stream.steps:,} steps") as fresh:
            write_base(fresh, course, outcome, {"base": recipe.base})
    runtime.wait_for_ranks()
    made = cache.get(key)
    if made is None:
        raise SpaceFault(
            "the further pretrained base does not fit into its cache",
            where=str(cache.root),
            remedy="Name another cache folder by --cache-dir.",
        )
    return made


def _sources(recipe: Recipe, parts: Parts) -> list[DocumentSource]:
    data, stage = recipe.data, recipe.stage
    rows = ["\n".join(row) for row in zip(*_columns(parts.train), strict=True)]
    own = text_source(rows, f"training rows of {parts.train.source.source}", parts.train.fingerprint())
    files = [
        file_source(path, text=data.text or "text", delimiter=data.delimiter, encoding=data.encoding)
        for path in stage.corpus or ()
    ]
    return [own, *files]


def _columns(part: Part) -> list[list[str]]:
    """The part's texts, and the second ones where rows are pairs."""
    taken = part.source.take(part.indices)
    return [column.to_pylist() for column in (taken.texts, taken.text_pair) if column is not None]


def _key(base: str | Path, stage: PretrainingConfig, sources: Sequence[DocumentSource]) -> str:
    """Of all that the new weights depend on."""
    weights = "none" if stage.init == "random" else encoder_fingerprint(load_encoder(base))
    return fingerprint(
        "base",
        1,
        str(base),
        weights,
        stage.model_dump(mode="json"),
        [source.fingerprint for source in sources],
        runtime.threads(),
        runtime.world_size(),
        runtime.device().type,
        runtime.versions(),
    )
