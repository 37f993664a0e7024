"""Turn a recipe and labeled rows into a saved classifier, from end to end.

With `training.job` and `training.strategies` this is the only module that unpacks a whole recipe.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fullbake.classifier.baseline_scores import score_baselines
from fullbake.classifier.model import Classifier, RunRecord
from fullbake.classifier.recorded import recorded_job
from fullbake.classifier.row_facts import count_labels_of_parts, describe_rows
from fullbake.config.fields import Truncation
from fullbake.config.recipe import Recipe, as_recipe
from fullbake.core import ranks, runtime, storage
from fullbake.core.console import say, warn
from fullbake.core.errors import RecipeError
from fullbake.core.hashing import fingerprint
from fullbake.core.tracker_names import Track, find_trackers
from fullbake.core.tracking import Tracker
from fullbake.data import inspection
from fullbake.data.dataset import Dataset
from fullbake.data.findings import describe_finding
from fullbake.data.label_checks import drop_rare_labels
from fullbake.data.labeled_files import read_labeled
from fullbake.data.normalization import text_hashes
from fullbake.data.sources import as_parts
from fullbake.data.splits import Part, Parts, count_groups, divide, join_parts, sample_rows
from fullbake.evaluation.calibration import CalibratedDecision, score_decision
from fullbake.models import network, pretrained
from fullbake.models.admission import admit
from fullbake.models.encoding import count_tokens
from fullbake.models.inference import logits_over
from fullbake.pretraining.stage import with_further_pretraining
from fullbake.training import checkpoints
from fullbake.training.checkpoints import CheckpointInterval, ResumeMode, check_resume_mode
from fullbake.training.elastic import changes_in, check_folder_is_shared, check_same_on_all_ranks
from fullbake.training.job import (
    Job,
    check_problem,
    describe_base_use,
    encode_dataset,
    feature_cache,
    recipe_tokenizer,
    resolve_recipe,
    window_stride,
)
from fullbake.training.rates import epochs_for
from fullbake.training.selection import History, SelectedRun, calibrate_network, chosen_trial, refit, train_best
from fullbake.training.strategies import jobs_to_try, metrics_of, rates_of, strategy_for


def adapt(
    recipe: Recipe | str | Path,
    data: Any,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
    checkpoint_every: str = "5m",
    resume: ResumeMode = "auto",
    track: Track = None,
    max_rows: int | None = None,
    refit: bool = False,
    baseline: bool = False,
    **fields: Any,
) -> Classifier:
    """Train a classifier by a recipe, and save it.

    Under torchrun or accelerate launch the processes share the work, and rank 0 writes.

    Args:
        recipe: The base, the way, and all settings; or the name of a shipped recipe, a YAML file, or a bundle.
        data: Labeled rows, which are read by the recipe's `data` section: a file or hub id, a DataFrame of pandas or
            polars, an Arrow table, a Hugging Face Dataset, a dict of columns, or a pair (texts, labels). Or a Dataset
            of `read_dataset`. A DatasetDict, or a dict of "train", "validation" and "test" to any of these, gives the
            parts.
        out: Folder for the bundle. None saves nothing, no checkpoint either.
        overwrite: Replace what the folder holds when the new bundle is complete.
        cache_dir: Folder of the caches. None: FULLBAKE_CACHE_DIR, or the user's cache folder.
        checkpoint_every: Steps (`50`) or time (`30s`, `5m`) between checkpoints.
        resume: What to do with an unfinished run of the same `out`. `auto` resumes it if it is the same run, else
            raises OutputError. `require` raises OutputError where there is none. `anyway` resumes although something
            differs. `restart` deletes it.
        track: Where to record the run: `tensorboard`, `mlflow`, `wandb`, `trackio`, a tracker of your own
            (`core.tracking.Tracker`), or a list of them.
        max_rows: Train and validate on at most this many rows of `data`; each class keeps its share. None: all rows.
        refit: After validation chose, train the chosen setting once more on training and validation rows. Temperature,
            thresholds and validation scores stay those of the first training; test scores are of the new one.
        baseline: Score the majority class and TF-IDF on the same rows, for `record.facts["baselines"]`.
        **fields: Fields that replace those of the recipe, as in `Recipe.load`: base="demo", label="topic", epochs=5.

    Returns:
        The trained classifier.

    Raises:
        RecipeError: A field of the recipe is wrong, or does not fit the data.
        DataError: The rows cannot be read or split.
        BaseModelError: The base cannot be found or used.
        OutputError: `out` holds something else, or cannot be written.
        Fault: The disk is full, or the loss is no longer finite.
        Interrupted: A signal stopped the training; a checkpoint was saved.
    """
    if isinstance(data, Recipe):
        raise RecipeError(
            "the arguments stand the other way round", remedy="Pass the recipe first: adapt(recipe, rows)."
        )
    recipe = Recipe.load(recipe, **fields) if fields else as_recipe(recipe)
    check_resume_mode(resume)
    ranks.join_ranks()
    trackers = find_trackers(track)
    if out is None:
        job = _prepare(recipe, data, cache_dir, max_rows, refit)
        check_same_on_all_ranks(job.facts())
        with recorded_job(trackers, job, Path(job.recipe.base).name) as recorded:
            classifier = _train(job, baseline)
            recorded.finish(classifier.record.facts, None)
            return classifier
    with checkpoints.sole_run(out, writes=runtime.rank() == 0):
        _check_target(out, overwrite)
        job = _prepare(recipe, data, cache_dir, max_rows, refit)
        check_same_on_all_ranks(job.facts())
        return _train_into(out, job, overwrite, checkpoint_every, resume, trackers, baseline)


def _train_into(
    out: str | Path,
    job: Job,
    overwrite: bool,
    checkpoint_every: str,
    resume: ResumeMode,
    trackers: Sequence[Tracker],
    baseline: bool,
) -> Classifier:
    """Train, save, and resume the unfinished run beside `out` if there is one."""
    name = Path(out).resolve().name
    if checkpoints.only_cleanup_left(out, job.facts()):
        say(f"{out} is complete already; its run was stopped while it deleted its checkpoints")
        classifier = _load_with_rows(out, job.parts)
        run = checkpoints.saved_run(out, writes=runtime.rank() == 0)
        with recorded_job(trackers, replace(job, run=run), name) as recorded:
            recorded.finish(classifier.record.facts, Path(out))
        run.close()
        return classifier
    ranks.wait_for_ranks()  # every process must have read the folder before rank 0 writes to it
    interval = CheckpointInterval.parse(checkpoint_every)
    run = checkpoints.open_unfinished_run(out, job.facts(), interval, resume, writes=runtime.rank() == 0)
    check_folder_is_shared(run)
    job = replace(job, run=run)
    with recorded_job(trackers, job, name) as recorded:
        classifier = _train(job, baseline)
        if runtime.rank() == 0:
            classifier.save(out, overwrite=overwrite)
        recorded.finish(classifier.record.facts, Path(out))
    run.close()  # after the bundle is saved: one of the two is always complete
    ranks.wait_for_ranks()
    return classifier


def _load_with_rows(out: str | Path, parts: Parts) -> Classifier:
    """Load a bundle, and score its rows once more for the facts that a bundle does not hold."""
    classifier = Classifier.load(out, engine="torch")
    part = parts.test or (None if classifier.record.facts.get("refit") else parts.validation)
    if part is None:  # the classifiers that scored these rows, of the folds or from before a refit, are gone
        rows: dict[str, Any] = {"labels": count_labels_of_parts(parts)}
    else:
        scored = part.source.take(part.indices)
        rows = describe_rows(parts, part, classifier.logits(scored.texts, scored.text_pair), classifier.decision)
    classifier.record = replace(classifier.record, rows=rows)
    return classifier


def _check_target(out: str | Path, overwrite: bool) -> None:
    """Raise OutputError if the target holds something, before hours of work.

    A finished bundle whose run only has to delete its checkpoints passes.
    """
    storage.recover(out)
    if not checkpoints.is_saved(out):
        storage.require_vacant(out, overwrite=overwrite)


def _prepare(recipe: Recipe, data: Any, cache_dir: str | Path | None, max_rows: int | None, once_more: bool) -> Job:
    """Read and divide the rows, check that the recipe fits them, and print what is known of them."""
    given = as_parts(data)
    recipe = resolve_recipe(recipe.with_fields(**given.fields(recipe.data)) if given.others else recipe)
    train = given.train if isinstance(given.train, Dataset) else read_labeled(given.train, recipe.data)
    dataset = sample_rows(drop_rare_labels(train, recipe.data.drop_rare), max_rows)
    parts = divide(dataset, recipe.data, given.others)
    if once_more and parts.validation is None:
        say("refit: folds train on all rows in the end anyway, so there is nothing more to do")
    check_problem(recipe, parts)
    admit(recipe.base, weights=not _starts_at_random(recipe), cache_dir=cache_dir)
    tokenizer = recipe_tokenizer(recipe)
    for sentence in describe_base_use(recipe, tokenizer).sentences():
        say(sentence)
    say(_describe_sizes(parts, dataset))
    _print_facts(
        inspection.inspect_parts(
            parts,
            recipe.data,
            partial(count_tokens, tokenizer, prompt=recipe.tokens.prompt),
            recipe.tokens.max_length,
        )
    )
    return Job(
        recipe,
        parts,
        tokenizer,
        _base_fingerprint(recipe),
        feature_cache(cache_dir),
        cache_dir=cache_dir,
        refit=once_more,
    )


def _base_fingerprint(recipe: Recipe) -> str:
    """Return the fingerprint of the weights that the run starts from; "none" for random weights."""
    if _starts_at_random(recipe):
        return "none"
    return network.base_fingerprint(recipe.base)


def _starts_at_random(recipe: Recipe) -> bool:
    return recipe.further_pretraining is not None and recipe.stage.init == "random"


def _print_facts(facts: inspection.Facts) -> None:
    for line in inspection.headlines(facts):
        say(line)
    for found in facts.findings:
        if found.severity == "warning":
            warn(describe_finding(found))


def _describe_sizes(parts: Parts, dataset: Dataset) -> str:
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.by_name().items())
    ids = dataset.group_ids
    groups = "" if ids is None else f", {len(np.unique(ids)):,} groups by {dataset.columns.group!r}"
    return f"{dataset.source}: {sizes} rows, {len(dataset.label_names)} {dataset.problem.noun}{groups}"


def _train(job: Job, baseline: bool) -> Classifier:
    """Run the further pretraining if there is one, train, calibrate, and score the test rows, baselines beside them."""
    given, job = job, with_further_pretraining(job) if job.recipe.further_pretraining else job
    chosen, trained, tried = _train_best_truncation(job)
    validated = trained
    if job.refit and job.parts.validation is not None:
        trained = _refit(chosen, validated)
    finished = calibrate_network(
        trained, job.parts.selection_part.labels, job.parts.train.source.label_names, job.recipe.decision
    )
    classifier = Classifier.of_network(
        trained.network, chosen.tokenizer, chosen.recipe.tokens, RunRecord(), finished.decision
    )
    record = _record(chosen, trained, finished)
    if trained is not validated:
        record = replace(record, seen=record.seen | {"hashes": text_hashes(_joined(chosen.parts).joined_texts)})
    rate = None if chosen.recipe.training.optimizer == "lbfgs" else trained.rate
    found = {"truncation_tried": tried, "chosen": {"head": chosen.recipe.head.kind, "learning_rate": rate}}
    # A run is known by what the caller gave when it began.
    facts = {"run": fingerprint(given.facts()) if job.run is None else job.run.identity} | found
    if trained is not validated:
        facts["refit"] = {"rows": len(_joined(chosen.parts))} | chosen_trial(validated)
    if changes := changes_in(trained.history):
        facts["rank_changes"] = changes
    if baseline and runtime.rank() == 0:
        facts["baselines"] = score_baselines(job.parts, job.recipe.decision)
    classifier.record = replace(record, facts=record.facts | facts)
    return classifier


def _joined(parts: Parts) -> Part:
    """Return the training and validation rows as one part."""
    assert parts.validation is not None
    return join_parts(parts.train, parts.validation)


def _refit(job: Job, chosen: SelectedRun) -> SelectedRun:
    """Train what validation chose once more, on training and validation rows."""
    epochs = epochs_for(job.recipe.training, len(job.parts.train))
    everything = replace(job, parts=replace(job.parts, train=_joined(job.parts), validation=None))
    return refit(strategy_for(everything), chosen, metrics_of(job), epochs)


def _train_best_truncation(job: Job) -> tuple[Job, SelectedRun, dict[str, float]]:
    """Train with each truncation to try, and keep the one with the best validation score.

    Returns:
        The job with the chosen truncation and head, its selected run, and the score of each truncation (empty for only
        one).
    """
    best: tuple[Job, SelectedRun] | None = None
    tried: dict[str, float] = {}
    for option in _truncations(job):
        candidate = job if option == job.recipe.tokens.truncation else _with_truncation(job, option)
        chosen, trained = _train_best_head(candidate)
        tried[option] = trained.score
        if best is None or trained.score > best[1].score:
            best = chosen, trained
    assert best is not None
    if len(tried) > 1:
        values = ", ".join(f"{value:.4f} for {option}" for option, value in tried.items())
        say(f"validation chose truncation {best[0].recipe.tokens.truncation}: {job.recipe.training.metric} {values}")
    return *best, tried if len(tried) > 1 else {}


def _train_best_head(job: Job) -> tuple[Job, SelectedRun]:
    """Train each kind of head to try, and keep the one with the best validation score.

    Returns:
        The job with the chosen head, and its selected run.
    """
    best: tuple[Job, SelectedRun] | None = None
    metrics, tried = metrics_of(job), {}
    for candidate in jobs_to_try(job):
        kind = candidate.recipe.head.kind
        if candidate is not job:
            say(f"head {kind}:")
        trained = train_best(strategy_for(candidate), rates_of(candidate), metrics, job.parts.folds)
        if candidate is job:
            return job, trained
        tried[kind] = trained.search_score
        if best is None or trained.search_score > best[1].search_score:
            best = candidate, trained
    assert best is not None
    values = ", ".join(f"{value:.4f} for {kind}" for kind, value in tried.items())
    say(f"validation chose the head {best[0].recipe.head.kind}: {metrics.search} {values}")
    return best


def _truncations(job: Job) -> tuple[Truncation, ...]:
    """Return the truncations to try. If no text is longer than the limit they are all equal, and one is enough."""
    if job.recipe.tokens.truncation != "auto":
        return (job.recipe.tokens.truncation,)
    windows = _with_truncation(job, "windows")
    for part in (job.parts.train, job.parts.selection_part):
        encoded = encode_dataset(part.source, windows)
        if len(encoded) > len(part.source):
            return ("head", "tail", "head+tail", "windows")
    say("truncation auto: no text is longer than max_length, so there is nothing to try")
    return ("head",)


def _with_truncation(job: Job, truncation: Truncation) -> Job:
    """Return the job with another truncation."""
    recipe = job.recipe.with_fields(
        truncation=truncation, stride=window_stride(job.recipe.tokens, truncation, job.recipe.tokens.max_length or 0)
    )
    return replace(job, recipe=recipe, tokenizer=recipe_tokenizer(recipe), prefix=f"{truncation}-")


def _record(job: Job, trained: SelectedRun, finished: CalibratedDecision) -> RunRecord:
    """Return what is saved beside the weights. The test rows are scored here, once, after all choices."""
    test = None if job.parts.test is None else _test_logits(job, job.parts.test, trained.network)
    return record_of(job, finished, trained.history, test)


def record_of(job: Job, finished: CalibratedDecision, history: History, test: np.ndarray | None) -> RunRecord:
    """Return what is saved beside final weights.

    Args:
        job: The run.
        finished: The temperature and the decision, with the validation logits.
        history: One entry an epoch.
        test: Logits of the test rows (rows, classes), or None without a test part.
    """
    parts = job.parts
    scored = {"validation": (parts.selection_part, finished.logits)}
    if parts.test is not None and test is not None:
        scored["test"] = parts.test, test
    named, facts = parts.by_name(), job.facts()
    scores = {
        name: score_decision(part.labels, logits, finished.decision, part.group_ids)
        for name, (part, logits) in scored.items()
    }
    scores["validation"]["thresholds"] = finished.thresholds
    rows = {f"{name}_rows": part.rows for name, part in named.items()}
    shown = parts.selection_part, finished.logits
    if parts.test is not None and test is not None:
        shown = parts.test, test
    return RunRecord(
        facts
        | {
            "columns": parts.train.source.columns.to_json(),
            "metrics": scores,
            "calibration": finished.calibration,
            "data": _data_facts(parts),
            "further_pretraining": _lineage(job),
            "base_use": describe_base_use(job.recipe, job.tokenizer).to_json(),
        },
        {"hashes": text_hashes(parts.train.joined_texts), **rows},
        history,
        describe_rows(parts, *shown, finished.decision),
    )


def _lineage(job: Job) -> dict[str, Any] | None:
    """Return what is known of the encoder's further pretraining: that of the recipe, or else that of its base."""
    about = job.adapted.about if job.adapted else pretrained.read_base_manifest(job.recipe.base)
    return None if about is None else {name: value for name, value in about.items() if name not in ("files", "format")}


def _test_logits(job: Job, test: Part, model: nn.Module) -> np.ndarray:
    return logits_over(
        model.to(runtime.device()),
        encode_dataset(test.source.take(test.indices), job),
        tokens=job.recipe.tokens,
        pad_id=job.tokenizer.pad_token_id,
        title="testing",
        shared=True,
    )


def _data_facts(parts: Parts) -> dict[str, Any]:
    """Return what a bundle records of its rows, as JSON values."""
    named = parts.by_name().items()
    return {
        "source": {
            name: Path(part.source.source).name for name, part in named
        },  # only the name: a bundle is copied to other machines
        "fingerprint": {name: part.fingerprint() for name, part in named},
        "rows": {name: len(part) for name, part in named},
        "folds": len(parts.folds),
        "overlap_allowed": parts.overlap_allowed,
        "overlap_dropped": parts.overlap_dropped,
        "near_overlap": parts.near_overlap,
        "dropped_labels": parts.train.source.dropped_labels,
        "groups": {name: count_groups(part) for name, part in named},
    }
