"""A recipe from end to end: `adapt` makes a classifier and saves it.

The only module that unpacks a whole recipe; below it everything takes plain values or one section.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fullbake.classifier.model import Classifier, RunRecord
from fullbake.config.fields import Truncation
from fullbake.config.recipe import Recipe
from fullbake.config.sections import TrainingConfig
from fullbake.core import runtime, storage
from fullbake.core.console import say, warn
from fullbake.core.hashing import fingerprint
from fullbake.data import inspection
from fullbake.data.dataset import Dataset
from fullbake.data.duplicates import text_hashes
from fullbake.data.splits import Part, Parts, divide, read_labeled
from fullbake.evaluation.calibration import CalibratedDecision, score_decision
from fullbake.models import network, pretrained
from fullbake.models.encoder import load_encoder
from fullbake.models.encoding import count_tokens
from fullbake.models.inference import logits_over
from fullbake.pretraining.stage import with_further_pretraining
from fullbake.training import checkpoints
from fullbake.training.checkpoints import CheckpointInterval, ResumeMode, UnfinishedRun
from fullbake.training.job import (
    Job,
    _stride,
    check_problem,
    encode_dataset,
    feature_cache,
    recipe_tokenizer,
    resolve_recipe,
)
from fullbake.training.selection import History, SelectedRun, calibrate_network, train_best
from fullbake.training.strategies import strategy_for


def adapt(
    recipe: Recipe,
    data: Dataset | str | Path,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    cache_dir: str | Path | None = None,
    checkpoint_every: str = "5m",
    resume: ResumeMode = "auto",
) -> Classifier:
    """Make a classifier from a base by the recipe.

    data: a Dataset, or a file or hub id read by the recipe's `data` section. out: where the bundle is saved; None
    saves nothing and keeps nothing for going on. overwrite: let the new bundle replace what stands there, once it is
    complete. cache_dir: where features are kept. checkpoint_every: steps (`50`) or time (`30s`, `5m`) between
    checkpoints. resume: what to do about an unfinished run of the same `out`: `auto` goes on if it is the same run,
    `require` refuses to start anew, `anyway` goes on though something differs, `restart` throws it away. Under
    torchrun or accelerate launch the processes share the work; rank 0 writes. Raises Error's children: RecipeError,
    DataError, BaseModelError, OutputError, Fault; Interrupted where a signal stopped it.
    """
    runtime.join_ranks()
    if out is None:
        return _train(_prepare(recipe, data, cache_dir))
    _check_target(out, overwrite)
    job = _prepare(recipe, data, cache_dir)
    if checkpoints.only_cleanup_left(out, job.facts()):
        say(f"{out} was complete already; its run was stopped while it cleaned up")
        checkpoints.remove_unfinished(out, writes=runtime.rank() == 0)
        return Classifier.load(out)
    runtime.wait_for_ranks()  # all have looked at what lies there before one of them writes
    cadence = CheckpointInterval.parse(checkpoint_every)
    run = checkpoints.open_unfinished_run(out, job.facts(), cadence, resume, writes=runtime.rank() == 0)
    classifier = _train(replace(job, run=run))
    _save(classifier, Path(out), overwrite, run)
    return classifier


def _check_target(out: str | Path, overwrite: bool) -> None:
    """Refuse a target that holds something, before the hours of work; one whose run only has to clean up is looked at
    later."""
    storage.recover(out)
    if not checkpoints.is_saved(out):
        storage.require_vacant(out, overwrite=overwrite)


def _prepare(recipe: Recipe, data: Dataset | str | Path, cache_dir: str | Path | None) -> Job:
    recipe = resolve_recipe(recipe)
    dataset = data if isinstance(data, Dataset) else read_labeled(data, recipe.data)
    parts = divide(dataset, recipe.data)
    check_problem(recipe, parts)
    tokenizer = recipe_tokenizer(recipe)
    say(_sizes(parts, dataset))
    _tell_facts(
        inspection.inspect_parts(parts, recipe.data, partial(count_tokens, tokenizer), recipe.tokens.max_length)
    )
    return Job(recipe, parts, tokenizer, _fingerprint(recipe), feature_cache(cache_dir), cache_dir=cache_dir)


def _fingerprint(recipe: Recipe) -> str:
    """Of the weights that the run begins with: none where it starts from nothing."""
    if recipe.further_pretraining and recipe.stage.init == "random":
        return "none"
    return network.encoder_fingerprint(load_encoder(recipe.base))


def _tell_facts(facts: inspection.Facts) -> None:
    for line in inspection.headlines(facts):
        say(line)
    for found in facts.findings:
        if found.severity == "warning":
            warn(inspection.describe_finding(found))


def _sizes(parts: Parts, dataset: Dataset) -> str:
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.by_name().items())
    return (
        f"{dataset.source}: {sizes} rows, {len(dataset.label_names)} {dataset.problem.noun}"
    )


def _train(job: Job) -> Classifier:
    asked, job = job, with_further_pretraining(job) if job.recipe.further_pretraining else job
    chosen, trained, tried = _choose(job)
    finished = calibrate_network(
        trained, job.parts.selection_part.labels, job.parts.train.source.label_names, job.recipe.decision
    )
    classifier = Classifier(trained.network, chosen.tokenizer, chosen.recipe.tokens, RunRecord(), finished.decision)
    record = _record(chosen, trained, finished)
    facts = {"run": fingerprint(asked.facts()), "truncation_tried": tried}  # the run is the one that was asked for
    classifier.record = replace(record, facts=record.facts | facts)
    return classifier


def _choose(job: Job) -> tuple[Job, SelectedRun, dict[str, float]]:
    """(the job as it was chosen, what it trained, the metric of each truncation that was tried)."""
    best: tuple[Job, SelectedRun] | None = None
    tried: dict[str, float] = {}
    for option in _truncations(job):
        candidate = job if option == job.recipe.tokens.truncation else _cut_by(job, option)
        trained = train_best(
            strategy_for(candidate), _rates(job.recipe.training), job.recipe.training.metric, job.parts.folds
        )
        tried[option] = trained.value
        if best is None or trained.value > best[1].value:
            best = candidate, trained
    assert best is not None
    if len(tried) > 1:
        told = ", ".join(f"{value:.4f} for {option}" for option, value in tried.items())
        say(f"validation chose truncation {best[0].recipe.tokens.truncation}: {job.recipe.training.metric} {told}")
    return *best, tried if len(tried) > 1 else {}


def _rates(training: TrainingConfig) -> tuple[float, ...]:
    return training.learning_rate[:1] if training.optimizer == "lbfgs" else training.learning_rate


def _truncations(job: Job) -> tuple[Truncation, ...]:
    """The truncations to try. Where no text is longer than the limit they are all the same."""
    if job.recipe.tokens.truncation != "auto":
        return (job.recipe.tokens.truncation,)
    windows = _cut_by(job, "windows")
    for part in (job.parts.train, job.parts.selection_part):
        encoded = encode_dataset(part.source, windows)
        if len(encoded) > len(part.source):
            return ("head", "tail", "head+tail", "windows")
    say("truncation auto: no text is longer than max_length, nothing to try")
    return ("head",)


def _cut_by(job: Job, truncation: Truncation) -> Job:
    """The job with its texts cut in this way."""
    recipe = job.recipe.with_fields(
        truncation=truncation, stride=_stride(job.recipe.tokens, truncation, job.recipe.tokens.max_length or 0)
    )
    return replace(job, recipe=recipe, tokenizer=recipe_tokenizer(recipe), prefix=f"{truncation}-")


def _save(classifier: Classifier, out: Path, overwrite: bool, run: UnfinishedRun) -> None:
    """The bundle under its name, then nothing of the unfinished run: in this order, so that one of the two is always
    whole."""
    if runtime.rank() == 0:
        classifier.save(out, overwrite=overwrite)
        run.close()
    runtime.wait_for_ranks()


def _record(job: Job, trained: SelectedRun, finished: CalibratedDecision) -> RunRecord:
    """What is saved beside the weights. Test is scored here, once, after everything has been chosen."""
    test = None if job.parts.test is None else _test_logits(job, job.parts.test, trained.network)
    return record_of(job, finished, trained.history, test)


def record_of(job: Job, finished: CalibratedDecision, history: History, test: np.ndarray | None) -> RunRecord:
    """What is saved beside weights that are final. test: logits of the test rows, None where there are none."""
    parts = job.parts
    scored = {"validation": (parts.selection_part.labels, finished.logits)}
    if parts.test is not None and test is not None:
        scored["test"] = parts.test.labels, test
    named, facts = parts.by_name(), job.facts()
    scores = {name: score_decision(labels, logits, finished.decision) for name, (labels, logits) in scored.items()}
    scores["validation"]["thresholds"] = finished.thresholds
    rows = {f"{name}_rows": part.rows for name, part in named.items()}
    return RunRecord(
        facts
        | {
            "columns": parts.train.source.columns.to_json(),
            "metrics": scores,
            "calibration": finished.calibration,
            "data": _data_facts(parts),
            "further_pretraining": _lineage(job),
        },
        {"hashes": text_hashes(parts.train.joined_texts), **rows},
        history,
    )


def _lineage(job: Job) -> dict[str, Any] | None:
    """What is known of the further pretraining that the encoder has been through: the recipe's own, or its base's."""
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
    named = parts.by_name().items()
    return {
        "source": {name: Path(part.source.source).name for name, part in named},  # a bundle travels; paths do not
        "fingerprint": {name: part.fingerprint() for name, part in named},
        "rows": {name: len(part) for name, part in named},
        "folds": len(parts.folds),
        "overlap_allowed": parts.overlap_allowed,
        "overlap_dropped": parts.overlap_dropped,
    }
