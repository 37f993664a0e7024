"""Run further pretraining from end to end, from raw text to a base in a folder, or in the cache for a recipe's stage.

The result is a folder that loads like any other base, so nothing after it needs to know how the base was made. Only its
fullbake.json says so, for example that test texts were part of the corpus.

A base that starts from random weights may come without a tokenizer. Then a WordPiece vocabulary is trained on the
corpus first, as BERT's: text cleaned and in lower case, accents removed, words split at white space and punctuation.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import BertWordPieceTokenizer
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from fullbake.config.fields import Quoting
from fullbake.config.pretraining import PretrainingConfig
from fullbake.config.recipe import Recipe, dialect_of
from fullbake.config.sections import Dialect
from fullbake.core import ranks, runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.console import bar, say
from fullbake.core.errors import BaseModelError, DataError, DeadlinePassed, SpaceFault
from fullbake.core.hashing import file_sha256, fingerprint
from fullbake.core.tracker_names import Track, find_trackers
from fullbake.core.tracking import Tracker, flat_settings, series
from fullbake.core.tracking_worker import TRACKING_FILE, tracked_run
from fullbake.data.dataset import read_dataset
from fullbake.data.sources import Source, as_source
from fullbake.data.splits import Part, Parts
from fullbake.models.admission import admit
from fullbake.models.network import base_fingerprint, encoder_fingerprint
from fullbake.models.pretrained import load_config, resolve_base
from fullbake.pretraining.documents import Decontamination, DocumentSource, document_sources, file_source, text_source
from fullbake.pretraining.run import PretrainingRun, prepare_run, run_pretraining, write_base
from fullbake.training import checkpoints
from fullbake.training.checkpoints import CheckpointInterval, Checkpoints, ResumeMode, check_resume_mode
from fullbake.training.elastic import changes_in, check_all_ranks_see, check_folder_is_shared, check_same_on_all_ranks
from fullbake.training.job import FurtherPretrainedBase, Job

BASE_CACHE_BYTES: Final = 50 * 1024**3
"""Size of the cache of further pretrained bases at most: 50 GiB hold a hundred BERT-base."""

_VOCABULARY_CACHE_BYTES: Final = 2 * 1024**3

# From files to a folder


def further_pretrain(
    base: str | Path,
    corpus: Any,
    out: str | Path,
    *,
    stage: PretrainingConfig | None = None,
    text: str = "text",
    delimiter: str | None = None,
    encoding: str = "utf-8",
    quoting: Quoting = "standard",
    no_header: Sequence[str] | None = None,
    json_path: str | None = None,
    keep_out: Any = (),
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
    checkpoint_every: str = "5m",
    resume: ResumeMode = "auto",
    track: Track = None,
) -> dict[str, Any]:
    """Continue the pretraining of a base on raw text, and save the result as a new base.

    Args:
        base: folder, hub id or `demo`.
        corpus: `.txt` files (each line a paragraph, a blank line between documents) or tables (each row a document):
            a path, a table in memory (a data frame, an Arrow table, a Hugging Face Dataset, a dict of columns) or a
            column of texts; or a list of these.
        out: folder of the new base.
        stage: all settings; None uses the defaults.
        text: the column of tables that holds the texts.
        delimiter: the field separator of tables; None chooses it by the file's ending.
        encoding: the encoding of text files.
        quoting: `none` if quotes are part of the text in CSV, TSV and .txt tables.
        no_header: the names of the columns of tables whose first line is a row already.
        json_path: the member of .json files that holds the rows, with dots between the names.
        keep_out: tables, in these forms, whose texts must not be learned from, such as a test set. Documents and
            paragraphs that are equal or nearly equal to them are removed; under `stage.transductive` they stay and are
            counted.
        overwrite: replace what is in `out` once the new base is complete.
        cache_dir: where corpora and trained heads are kept; None uses the default cache folder.
        checkpoint_every: how often to save a checkpoint: steps ("50") or minutes ("5m").
        resume: what to do with an unfinished run in `out`: resume it if it fits ("auto"), or as the other modes say.
        track: where to record the run, as for `adapt`.

    Returns:
        The content of the new folder's fullbake.json.

    Raises:
        RecipeError: a setting does not fit the base or the corpus.
        DataError: the text cannot be read, or there is too little of it.
        BaseModelError: the base cannot be used.
        OutputError: `out` cannot be written, or holds something else.
        Fault: the loss diverged, or the disk is full.
        Interrupted: a signal stopped the run; the same call resumes it.
    """
    check_resume_mode(resume)
    trackers = find_trackers(track)
    given, held_out = _sources(corpus, "corpus"), _sources(keep_out, "keep_out")
    if not given:
        raise DataError("there is no corpus", expected="at least one file of text")
    ranks.join_ranks()
    stage = stage or PretrainingConfig()
    interval = CheckpointInterval.parse(checkpoint_every)
    with checkpoints.sole_run(out, writes=runtime.rank() == 0):
        storage.recover(out)
        # refuse a folder with something else in it now, not after hours of training
        if not checkpoints.is_saved(out):
            storage.require_vacant(out, overwrite=overwrite)
        dialect = dialect_of(
            delimiter=delimiter, encoding=encoding, quoting=quoting, no_header=no_header, json_path=json_path
        )
        sources = document_sources(given, text=text, dialect=dialect)
        tables = [read_dataset(source, text=text, **_dialect_for(source, dialect)) for source in held_out]
        excluded = [value for table in tables for value in table.texts.to_pylist()]
        start = base_with_vocabulary(base, sources, cache_dir) if stage.init == "random" else base
        admit(start, weights=stage.init != "random", cache_dir=cache_dir)
        run = prepare_run(
            start,
            sources,
            stage,
            decontamination=Decontamination(excluded, stage.transductive),
            cache_dir=cache_dir,
        )
        return _pretrain_into(out, run, str(base), overwrite, interval, resume, trackers)


def _sources(given: Any, name: str) -> list[Source]:
    """Return the sources of an argument that names one or several. In a list, strings are paths, not texts."""
    if isinstance(given, list | tuple | Iterator):
        several = list(given)
        if not all(isinstance(one, Mapping) for one in several) or not several:
            return [as_source(one, name) for one in several]
        given = several
    return [as_source(given, name)]


def _dialect_for(source: Source, dialect: Dialect) -> dict[str, Any]:
    """Return how a source is written, as arguments of `read_dataset`; a table in memory is not written."""
    return vars(dialect) if isinstance(source, str | Path) else {}


def _pretrain_into(
    out: str | Path,
    run: PretrainingRun,
    base: str,
    overwrite: bool,
    interval: CheckpointInterval,
    resume: ResumeMode,
    trackers: Sequence[Tracker],
) -> dict[str, Any]:
    """Train and save, and resume the unfinished run beside `out` if there is one. Return the new fullbake.json."""
    identity = _describe_run(run, base)
    check_same_on_all_ranks(identity)
    if checkpoints.only_cleanup_left(out, identity):
        say(f"{out} is complete already; its run was stopped while it deleted its checkpoints")
        checkpoints.remove_unfinished(out, writes=runtime.rank() == 0)
        return _read_manifest(out)
    ranks.wait_for_ranks()
    unfinished = checkpoints.open_unfinished_run(out, identity, interval, resume, writes=runtime.rank() == 0)
    check_folder_is_shared(unfinished)
    settings = flat_settings({"base": base, **identity["further_pretraining"], "versions": identity["versions"]})
    place, name = unfinished.folder / TRACKING_FILE, Path(out).resolve().name
    own = trackers if runtime.rank() == 0 else ()
    with tracked_run(own, name, settings, place=place, identity=unfinished.identity):
        result = run_pretraining(run, unfinished.checkpoints("pretraining"))
    if runtime.rank() == 0:
        about = {"run": unfinished.identity, "base": base}
        with storage.staged(out, overwrite=overwrite, needed=_estimate_size(run)) as folder:
            write_base(folder, run, result, about)
        unfinished.close()
    ranks.wait_for_ranks()
    return _read_manifest(out)


def _describe_run(run: PretrainingRun, base: str) -> dict[str, Any]:
    """Return everything that the new weights depend on, JSON values. A run is resumed only if they are the same."""
    return {
        "base": base,
        "weights": encoder_fingerprint(run.network.model),
        "further_pretraining": run.stage.model_dump(mode="json"),
        "corpus": run.corpus_facts["fingerprint"],
        "processes": runtime.world_size(),
        "threads": runtime.threads(),
        "device": runtime.device().type,
        "versions": runtime.versions(),
    }


def _estimate_size(run: PretrainingRun) -> int:
    """Return the bytes of the new base: its weights, and 4 MB for the other files."""
    sizes: list[int] = [tensor.nbytes for tensor in run.network.state_dict().values()]
    return sum(sizes) + 4_000_000


def _read_manifest(folder: str | Path) -> dict[str, Any]:
    return storage.read_manifest_file(folder) or {}


# A stage of a recipe


def with_further_pretraining(job: Job) -> Job:
    """Return the job with the base that its recipe's further pretraining makes, from the cache if it is there."""
    with series("further-pretraining"):
        folder = stage_base(job.recipe, job.parts, job.cache_dir, job.checkpoints("further-pretraining"))
    weights = base_fingerprint(folder)
    return replace(job, adapted=FurtherPretrainedBase(str(folder), weights, _read_manifest(folder)))


def stage_base(
    recipe: Recipe,
    parts: Parts,
    cache_dir: str | Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> Path:
    """Return the base that a recipe's further pretraining makes; the same settings and texts are trained only once.

    The corpus is the training part's texts and the stage's own files, without the texts of the validation and test
    parts (under `transductive` the files may hold them).

    Args:
        recipe: its base, its data and its further pretraining.
        parts: training, validation and test rows.
        cache_dir: where bases are kept; None uses the default cache folder.
        checkpoints: where to save, and from which to resume; None saves nothing.

    Raises:
        Error: as `further_pretrain`; SpaceFault if the base is larger than the cache may be.
        DeadlinePassed: the time was up before it was done, see `stopping.deadline`. Nothing is put into the cache.
    """
    stage, sources = recipe.stage, _make_sources(recipe, parts)
    scored = [column for part in (parts.validation, parts.test) if part is not None for column in _text_columns(part)]
    decontamination = Decontamination([text for column in scored for text in column], stage.transductive)
    cache = Cache(runtime.cache_dir(cache_dir) / "bases", BASE_CACHE_BYTES)
    key = _base_key(recipe.base, stage, [decontamination.apply(source) for source in sources])
    cached = cache.get(key)
    if ranks.true_on_all_ranks(cached is not None) and cached is not None:
        say(f"further pretraining: this base was found in the cache ({cache.root})")
        return cached
    run = prepare_run(recipe.base, sources, stage, decontamination=decontamination, cache_dir=cache_dir)
    result = run_pretraining(run, checkpoints)
    if "stopped" in result.history[-1]:
        # Its key is that of the whole stage: a part of it must never be found under it.
        raise DeadlinePassed("the time was up before further pretraining was done")
    if changes := changes_in(result.history):  # the bits may be others than those of runs without a change
        key = fingerprint(key, changes)
    if runtime.rank() == 0:
        description = f"{recipe.base} further pretrained, {run.loader.steps:,} steps"
        cache.store(key, description, lambda folder: write_base(folder, run, result, {"base": recipe.base}))
    ranks.wait_for_ranks()
    made = cache.get(key)
    check_all_ranks_see(made is not None, cache.root)
    if made is None:
        raise SpaceFault(
            "the further pretrained base does not fit into its cache",
            where=str(cache.root),
            remedy="Use another cache folder: --cache-dir.",
        )
    return made


def _make_sources(recipe: Recipe, parts: Parts) -> list[DocumentSource]:
    data, stage = recipe.data, recipe.stage
    rows = ["\n".join(row) for row in zip(*_text_columns(parts.train), strict=True)]
    own = text_source(rows, f"training rows of {parts.train.source.source}", parts.train.fingerprint())
    files = [file_source(path, text=data.text or "text", dialect=data.dialect) for path in stage.corpus or ()]
    return [own, *files]


def _text_columns(part: Part) -> list[list[str]]:
    """Return the part's texts, and its second texts if its rows are pairs."""
    taken = part.source.take(part.indices)
    return [column.to_pylist() for column in (taken.texts, taken.text_pair) if column is not None]


def _base_key(base: str | Path, stage: PretrainingConfig, sources: Sequence[DocumentSource]) -> str:
    """Return a hash of everything that the new weights depend on."""
    weights = "none" if stage.init == "random" else base_fingerprint(base)
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


# A vocabulary for a base that has none


_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_INPUTS: Final = ("input_ids", "token_type_ids", "attention_mask")

COVERED_CHARACTERS: Final = 0.9995
"""Share of all characters of a text that its vocabulary must have."""

_USUAL_ALPHABET: Final = 1_000
"""Characters that a large vocabulary has in any case, for letters that the corpus has rarely."""

_MIN_FREQUENCY: Final = 2
"""How often a piece must occur in the corpus."""


def base_with_vocabulary(
    base: str | Path, sources: Sequence[DocumentSource], cache_dir: str | Path | None = None
) -> str:
    """Return a base that has a tokenizer: `base` itself, or a cached folder with one that is trained on the sources.

    The config in that folder has the number of pieces that were made, which may be fewer than the base's config asks.

    Args:
        base: a folder with at least a config.json, a hub id, or `demo`.
        sources: the text to learn the vocabulary from.
        cache_dir: where vocabularies are kept; None uses the default cache folder.

    Raises:
        BaseModelError: the config's vocabulary has no room for the characters of the text.
        DataError: there is no text.
    """
    place = resolve_base(base)
    if not isinstance(place, Path) or any((place / name).is_file() for name in _TOKENIZER_FILES):
        return str(base)
    config = load_config(base)
    cache = Cache(runtime.cache_dir(cache_dir) / "vocabularies", _VOCABULARY_CACHE_BYTES)
    key = fingerprint("wordpiece", 2, file_sha256(place / "config.json"), [source.fingerprint for source in sources])
    if runtime.rank() == 0 and cache.get(key) is None:
        say(f"{base} has no tokenizer: training a WordPiece vocabulary of {config.vocab_size:,} tokens on the corpus")
        tokenizer = _train_tokenizer(sources, config)
        _say_vocabulary_size(len(tokenizer), config.vocab_size)

        def write(folder: Path) -> None:
            # rows of the embedding table that no piece uses would only cost memory
            sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
            storage.write_json(folder / "config.json", storage.read_json(place / "config.json") | sizes)
            tokenizer.save_pretrained(folder)

        cache.store(key, f"vocabulary of {len(tokenizer):,} pieces", write)
    ranks.wait_for_ranks()
    made = cache.get(key)
    check_all_ranks_see(made is not None, cache.root)
    return str(made or cache.root / key)


def _train_tokenizer(sources: Sequence[DocumentSource], config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    trainer = BertWordPieceTokenizer()
    alphabet = _choose_alphabet(_read_paragraphs(sources, "counting characters"), trainer, config.vocab_size)
    # without these the library numbers them in the order of a hash table, so equal runs would get other pieces
    inner = [f"##{character}" for character in alphabet if _may_continue_a_word(character, trainer)]
    trainer.train_from_iterator(
        _read_paragraphs(sources, "learning the vocabulary"),
        vocab_size=config.vocab_size,
        min_frequency=_MIN_FREQUENCY,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[*_SPECIAL, *inner],
        show_progress=False,
    )
    tokenizer = BertWordPieceTokenizer(vocab=trainer.get_vocab())
    size = tokenizer.get_vocab_size()
    if size > config.vocab_size:
        raise BaseModelError(
            "the config's vocabulary is too small for the characters of the corpus",
            where="config.json, vocab_size",
            expected=f"at least {size:,}",
            got=f"{config.vocab_size:,}",
            remedy="Raise vocab_size in config.json.",
        )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), _SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, model_input_names=list(_INPUTS), **names)


def _choose_alphabet(texts: Iterable[str], tokenizer: BertWordPieceTokenizer, vocab_size: int) -> list[str]:
    """Return the characters that the vocabulary must have, the most frequent ones first.

    The library's own limit of 1,000 characters would make a tenth of a Chinese text unknown. A vocabulary of every
    character, on the other hand, would spend its places on those that hardly occur.

    Args:
        texts: the text.
        tokenizer: what it does to a text first, such as lower case, is done to the characters.
        vocab_size: how many pieces are wanted.

    Raises:
        DataError: there is no text.
    """
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text)
    counts: Counter[str] = Counter()
    for character, count in raw.items():
        counts.update(dict.fromkeys(tokenizer.normalize(character).strip(), count))
    if not counts:
        raise DataError("there is no text to learn a vocabulary from", expected="at least one sentence")
    ordered = sorted(counts, key=lambda character: (-counts[character], character))
    sums = np.cumsum([counts[character] for character in ordered])
    needed = int(np.searchsorted(sums, COVERED_CHARACTERS * sums[-1])) + 1
    return ordered[: max(needed, min(_USUAL_ALPHABET, vocab_size // 4))]


def _may_continue_a_word(character: str, tokenizer: BertWordPieceTokenizer) -> bool:
    """Return True if the tokenizer does not split a word before this character, as it does before punctuation."""
    splitter: Any = tokenizer._tokenizer.pre_tokenizer
    return len(splitter.pre_tokenize_str(tokenizer.normalize(f"a{character}"))) == 1


def _say_vocabulary_size(made: int, asked: int) -> None:
    if made < asked:
        say(
            f"{made:,} of {asked:,} pieces were made: the corpus has no more words or parts of words that occur "
            f"{_MIN_FREQUENCY} times. The new base has a vocabulary of {made:,}"
        )


def _read_paragraphs(sources: Sequence[DocumentSource], purpose: str) -> Iterator[str]:
    sizes = [source.size for source in sources]
    total = sum(size for size in sizes if size is not None) if None not in sizes else None
    with bar(purpose, total, "characters") as advance:
        for document in chain.from_iterable(source.read() for source in sources):
            yield from document.paragraphs
            advance(document.characters)
