"""The reading order is a pure function of the seed: every row once in an epoch, new masks each time."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.bases import FAMILIES
from helpers.corpora import binomial, build_small_corpus, load_tokenizer, make_documents, masking, phase, shard_of

from fullbake.core.errors import DataError
from fullbake.core.rng import rng_stream
from fullbake.models.batching import Step
from fullbake.pretraining.corpus import Corpus
from fullbake.pretraining.data_loader import (
    CorpusLoader,
    MaskedBatch,
    Phase,
    ReadingOrder,
    build_examples,
    count_pairs,
    masked_batch,
    row_lengths,
)
from fullbake.pretraining.examples import FALSE_PAIR, NO_PAIR, TRUE_PAIR

TEXTS = make_documents(80)
SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("bert")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of several shards."""
    built = build_small_corpus(tmp_path_factory.mktemp("cache"), TEXTS, shard_characters=2500)
    assert len(built.shards) > 3
    return built


def make_order(objective: str = "mlm", **fields: Any) -> ReadingOrder:
    settings = {
        "batch_size": 4,
        "batch_tokens": None,
        "token_budget": 128,
        "short_probability": 0.1,
        "seed": 0,
    } | fields
    return ReadingOrder(objective, **settings)  # type: ignore[arg-type]


def make_loader(corpus: Corpus, phases: list[Phase], objective: str = "mlm", **fields: Any) -> CorpusLoader:
    return CorpusLoader(corpus, [shard.documents() for shard in corpus.shards], phases, make_order(objective, **fields))


def micro_batches(steps: list[Step]) -> list[list[list[int]]]:
    return [[rows.tolist() for rows in step.micro_batches] for step in steps]


@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "mlm+sop"])
def test_any_range_of_steps_equals_that_range_of_all_steps(corpus: Corpus, tokenizer: Any, objective: str) -> None:
    phases = [phase(tokenizer, 32, 150), phase(tokenizer, 64, 70)]
    whole = micro_batches(make_loader(corpus, phases, objective).plan(0, 220))
    assert len(whole) == 220
    for start, stop in [(0, 1), (149, 151), (100, 180), (219, 220), (37, 38), (220, 230)]:
        assert micro_batches(make_loader(corpus, phases, objective).plan(start, stop)) == whole[start:stop]
    sequential = make_loader(corpus, phases, objective)
    assert [
        step for start, stop in pairwise(range(0, 221, 20)) for step in micro_batches(sequential.plan(start, stop))
    ] == whole


def test_seed_decides_the_order_and_the_pairs(corpus: Corpus, tokenizer: Any) -> None:
    phases = [phase(tokenizer, 32, 60)]
    one, two = (make_loader(corpus, phases, "mlm+nsp", seed=seed) for seed in (0, 1))
    assert micro_batches(one.plan(0, 60)) != micro_batches(two.plan(0, 60))
    assert sorted(map(repr, all_spans(one))) != sorted(map(repr, all_spans(two)))


def all_spans(loader: CorpusLoader) -> list[Any]:
    return [found.spans.tolist() for found in loader.examples(0)]


def test_epoch_reads_every_token_once_and_the_next_in_another_order(corpus: Corpus, tokenizer: Any) -> None:
    loader = make_loader(corpus, [phase(tokenizer, 32, 10**6)])
    size = loader.steps_per_epoch(0)
    unmasked = masking(tokenizer, probability=0.0)
    expected = np.sort(np.concatenate([shard.input_ids for shard in corpus.shards]))
    epochs = [loader.plan(epoch * size, (epoch + 1) * size) for epoch in range(2)]
    for steps in epochs:
        batches = [loader.batch(step, unmasked) for step in steps]
        read = np.concatenate([batch.targets for batch in batches])
        assert (np.sort(read[~np.isin(read, tokenizer.all_special_ids)]) == expected[~np.isin(expected, [1])]).all()
        rows = np.concatenate([step.rows for step in steps])
        assert len(set(rows.tolist())) == len(rows)
    assert [len(step.rows) for step in epochs[0]] != [len(step.rows) for step in epochs[1]] or (
        loader.batch(epochs[0][0], unmasked).targets.tolist() != loader.batch(epochs[1][0], unmasked).targets.tolist()
    )


def test_masks_are_new_in_every_epoch_and_the_same_in_every_run(corpus: Corpus, tokenizer: Any) -> None:
    standard = masking(tokenizer)
    phases = [phase(tokenizer, 32, 10**6)]

    def seen() -> list[tuple[bytes, bytes]]:
        loader = make_loader(corpus, phases)
        batches = [loader.batch(step, standard) for step in loader.plan(0, 2 * loader.steps_per_epoch(0))]
        return [(row.tobytes(), mask.tobytes()) for batch in batches for row, mask in rows_and_masks(batch)]

    first = seen()
    masks: dict[bytes, list[bytes]] = {}
    for row, mask in first:
        masks.setdefault(row, []).append(mask)
    twice = [found for found in masks.values() if len(found) == 2]
    assert len(twice) > 100
    assert np.mean([one == two for one, two in twice]) < 0.25
    assert seen() == first


def rows_and_masks(batch: MaskedBatch) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (batch.targets[start:end], batch.chosen[start:end]) for start, end in pairwise(batch.encoded.offsets.tolist())
    ]


def test_micro_batches_change_no_mask(corpus: Corpus, tokenizer: Any) -> None:
    phases, standard = [phase(tokenizer, 32, 20)], masking(tokenizer)
    for step, other in zip(
        *(make_loader(corpus, phases, token_budget=budget).plan(0, 20) for budget in (40, 4000)), strict=True
    ):
        one, two = (make_loader(corpus, phases).batch(each, standard) for each in (step, other))
        assert (one.encoded.input_ids == two.encoded.input_ids).all()
        assert (one.rows == two.rows).all()


def test_batch_tokens_is_about_the_size_of_a_step(corpus: Corpus, tokenizer: Any) -> None:
    loader = make_loader(corpus, [phase(tokenizer, 32, 20)], batch_tokens=160)
    sizes = [loader.batch(step, masking(tokenizer)).encoded.lengths.sum() for step in loader.plan(0, 20)]
    assert np.median(sizes) == pytest.approx(160, rel=0.25)


def test_only_the_named_documents_are_read(corpus: Corpus, tokenizer: Any) -> None:
    documents: list[list[tuple[int, int]]] = [[] for _ in corpus.shards]
    documents[2] = corpus.shards[2].documents()[1:3]
    loader = CorpusLoader(corpus, documents, [phase(tokenizer, 32, 30)], make_order())
    first, last = documents[2][0][0], documents[2][1][1]
    ends = corpus.shards[2].sentence_ends
    read = loader.batch(loader.plan(0, 1)[0], masking(tokenizer, probability=0.0)).targets
    assert set(read) - set(tokenizer.all_special_ids) <= set(corpus.shards[2].input_ids[ends[first] : ends[last]])
    assert len(loader.plan(0, 30)) == 30


# What a batch holds


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", ["mlm", "mlm+nsp", "mlm+sop"])
def test_rows_equal_what_the_tokenizer_builds_from_their_segments(family: str, objective: str) -> None:
    own = load_tokenizer(family)
    shard = shard_of(TEXTS[:12], own)
    short_rows = phase(own, 40)
    examples = build_examples(shard, shard.documents(), short_rows, objective, 0.1, rng_stream(0))  # type: ignore[arg-type]
    rows = np.arange(len(examples))
    batch = masked_batch(shard, examples, short_rows, rows, masking(own), rng_stream(1))
    assert (batch.encoded.lengths == row_lengths(examples, short_rows)).all()
    assert batch.encoded.lengths.max() <= 40
    assert (batch.encoded.token_type_ids is not None) == short_rows.has_token_type_ids
    for row, (spans, label) in enumerate(zip(examples.spans.tolist(), examples.labels.tolist(), strict=True)):
        segments = [shard.input_ids[start:end].tolist() for start, end in spans if end]
        assert len(segments) == (1 if label == NO_PAIR else 2)
        expected = built_by_tokenizer(own, segments)
        places = slice(*batch.encoded.offsets[row : row + 2].tolist())
        assert batch.targets[places].tolist() == expected
        if batch.encoded.token_type_ids is not None:
            second = len(segments[1]) + 1 if len(segments) == 2 else 0
            kinds = [0] * (len(expected) - second) + [1] * second
            assert batch.encoded.token_type_ids[places].tolist() == kinds


def built_by_tokenizer(tokenizer: Any, segments: list[list[int]]) -> list[int]:
    """Return the special tokens around "a", or "a" and "a", with the segments in place of these."""
    backend = tokenizer.backend_tokenizer
    encoding = backend.encode(*["a"] * len(segments))
    built: list[int] = []
    last: int | None = None
    for token, owner in zip(encoding.ids, encoding.sequence_ids, strict=True):
        if owner is None:
            built.append(token)
        elif owner != last:
            built += segments[owner]
        last = owner
    return built


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("whole_words", [False, True])
def test_special_tokens_are_never_chosen_for_prediction(family: str, whole_words: bool) -> None:
    own = load_tokenizer(family)
    shard = shard_of([*TEXTS[:12], f"It said {own.sep_token} and {own.mask_token} here."], own)
    short_rows = phase(own, 24)
    examples = build_examples(shard, shard.documents(), short_rows, "mlm+nsp", 0.1, rng_stream(0))
    masks = masking(own, probability=1.0, mask=1.0, random=0.0, whole_words=whole_words)
    batch = masked_batch(shard, examples, short_rows, np.arange(len(examples)), masks, rng_stream(1))
    special = np.isin(batch.targets, own.all_special_ids)
    assert (batch.chosen == ~special).all()
    assert (batch.encoded.input_ids[~special] == own.mask_token_id).all()
    assert (batch.encoded.input_ids[special] == batch.targets[special]).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_words_are_masked_together(family: str) -> None:
    own = load_tokenizer(family)
    shard = shard_of(["The moviezz was reallyy bad and the storyline weak."] * 40, own)
    short_rows = phase(own, 64)
    examples = build_examples(shard, shard.documents(), short_rows, "mlm", 0.0, rng_stream(0))
    masks = masking(own, probability=0.4, whole_words=True)
    batch = masked_batch(shard, examples, short_rows, np.arange(len(examples)), masks, rng_stream(1))
    chosen = batch.chosen[~np.isin(batch.targets, [own.cls_token_id, own.sep_token_id])]
    units = np.cumsum(shard.word_starts) - 1
    vocabulary = np.isin(shard.input_ids, masks.vocabulary)
    for unit in range(units[-1] + 1):
        flags = chosen[(units == unit) & vocabulary]
        assert flags.all() or not flags.any()
    assert (np.bincount(units) > 1).any()


def test_more_shards_than_a_row_number_can_name_are_refused(corpus: Corpus, tokenizer: Any) -> None:
    documents = [corpus.shards[0].documents()] * 4097
    with pytest.raises(DataError, match="too many shards"):
        CorpusLoader(corpus, documents, [phase(tokenizer, 24)], make_order())


def test_shard_of_one_document_has_no_random_partners(tokenizer: Any) -> None:
    shard = shard_of(TEXTS[:1], tokenizer)
    short_rows = phase(tokenizer, 24)
    nsp, sop = (
        build_examples(shard, shard.documents(), short_rows, objective, 0.1, rng_stream(0))
        for objective in ("mlm+nsp", "mlm+sop")
    )
    assert count_pairs([nsp])["rows_without_partner"] == len(nsp)
    assert count_pairs([nsp, sop])["rows_without_partner"] < len(nsp) + len(sop)


def test_pairs_of_each_kind_are_counted(corpus: Corpus, tokenizer: Any) -> None:
    loader = make_loader(corpus, [phase(tokenizer, 32, 10)], "mlm+nsp")
    labels = np.concatenate([found.labels for found in loader.examples(0)])
    assert count_pairs(loader.examples(0)) == {
        "true_pairs": (labels == TRUE_PAIR).sum(),
        "false_pairs": (labels == FALSE_PAIR).sum(),
        "rows_without_partner": (labels == NO_PAIR).sum(),
    }


# Movie reviews, if they are there


@pytest.fixture(scope="module")
def imdb() -> tuple[Any, Any]:
    """Return (bert-base-uncased's tokenizer, 1,500 reviews as a shard)."""
    import transformers
    from pyarrow import parquet

    path, vocabulary = SHARED / "imdb_unlabelled.parquet", SHARED / "bert-base-uncased-vocab.txt"
    if not (path.is_file() and vocabulary.is_file()):
        pytest.skip("the shared data sets are not here")
    own = transformers.BertTokenizer(vocab=str(vocabulary))
    texts = parquet.read_table(path, columns=["text"])["text"].slice(0, 1500).to_pylist()
    return own, shard_of([text.replace("<br />", "\n") for text in texts], own)


@pytest.mark.parametrize("whole_words", [False, True])
def test_masking_shares_on_reviews(imdb: tuple[Any, Any], whole_words: bool) -> None:
    """15% of words (if whole words are drawn) or tokens are chosen, and 80/10/10 of these are replaced."""
    own, shard = imdb
    short_rows = phase(own, 128)
    examples = build_examples(shard, shard.documents(), short_rows, "mlm", 0.1, rng_stream(0))
    masks = masking(own, whole_words=whole_words)
    batch = masked_batch(shard, examples, short_rows, np.arange(len(examples)), masks, rng_stream(1))
    plain = np.isin(batch.targets, masks.vocabulary)
    assert len(examples) > 2500
    assert not batch.chosen[~plain].any()
    firsts = plain & starts_a_word(own, batch) if whole_words else plain
    chosen = batch.chosen & firsts
    assert chosen.sum() / firsts.sum() == binomial(0.15, int(firsts.sum()))
    before, after = batch.targets[chosen], batch.encoded.input_ids[chosen]
    assert (after == own.mask_token_id).mean() == binomial(0.8, len(after))
    changed = (after != own.mask_token_id) & (after != before)
    assert changed.mean() == binomial(0.1 * (1 - 1 / len(masks.vocabulary)), len(after))


def starts_a_word(tokenizer: Any, batch: MaskedBatch) -> np.ndarray:
    """Return (tokens,) True where a WordPiece token does not continue a word."""
    pieces = tokenizer.convert_ids_to_tokens(batch.targets.tolist())
    return np.array([not piece.startswith("##") for piece in pieces])


@pytest.mark.parametrize("objective", ["mlm+nsp", "mlm+sop"])
def test_pairs_of_reviews_are_balanced(imdb: tuple[Any, Any], objective: str) -> None:
    own, shard = imdb
    documents = shard.documents()
    short_rows = phase(own, 128)
    examples = build_examples(shard, documents, short_rows, objective, 0.1, rng_stream(0))  # type: ignore[arg-type]
    paired = examples.labels != NO_PAIR
    assert paired.sum() > 2500
    assert examples.random_share == binomial(0.5, int(paired.sum()))
    edges = shard.sentence_ends[shard.document_ends]
    owners = np.searchsorted(edges, examples.spans[paired][:, :, 0], side="right")
    same = owners[:, 0] == owners[:, 1]
    expected = examples.labels[paired] == TRUE_PAIR if objective == "mlm+nsp" else np.ones(paired.sum(), bool)
    assert (same == expected).all()


def test_tokens_per_step_are_the_mean_of_the_steps(tmp_path: Path, tokenizer: Any) -> None:
    own = make_loader(build_small_corpus(tmp_path, TEXTS), [phase(tokenizer, 24), phase(tokenizer, 48)], "mlm+nsp")
    for number in range(2):
        steps = own.steps_per_epoch(number)
        phases = [replace(one, steps=steps if place == number else 0) for place, one in enumerate(own.phases)]
        counted = CorpusLoader(own.corpus, own.documents, phases, own.order)
        batches = [counted.batch(step, masking(tokenizer)) for step in counted.plan(0, steps)]
        mean = sum(batch.encoded.lengths.sum() for batch in batches) / steps
        assert own.tokens_per_step(number) == pytest.approx(mean)
