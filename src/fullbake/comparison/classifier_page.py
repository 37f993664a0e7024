"""Write the page of one classifier, beside its bundle: what its score means, its mistakes, what to do next.

The page holds texts of rows, and a bundle is pushed and shared, so the page stands beside the bundle and never in it.
It is made of the same parts as the report of a comparison. It is in this folder because the parts are, and because a
classifier must not depend on how it is shown.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from fullbake.classifier.baseline_scores import METRICS_SHOWN, compare_with_baselines
from fullbake.classifier.model import Classifier
from fullbake.classifier.row_facts import curve_of_positive, list_mistakes
from fullbake.comparison import page, plain_words, report_figures, svg
from fullbake.comparison.plain_words import PlainScores
from fullbake.config.problems import MULTI_LABEL
from fullbake.core import runtime
from fullbake.core.console import format_count, format_interval, format_score
from fullbake.core.pages import write_page
from fullbake.data.dataset import Dataset
from fullbake.data.splits import Part
from fullbake.evaluation.metrics import METRICS, metric_phrase, metric_title
from fullbake.training.baselines import BASELINE_NAMES

_HEADS = {"standard": "the standard head", "linear": "a linear head", "mlp": "an MLP head"}


@dataclass(frozen=True)
class ScoredClassifier:
    """A classifier with its scores on some rows, as its page needs them."""

    name: str
    """Name of the bundle's folder."""

    facts: Mapping[str, Any]
    """The entries of its fullbake.json."""

    history: Sequence[Mapping[str, Any]]
    """One entry an epoch, or a regularization strength."""

    scores: Mapping[str, Any]
    """What `evaluation.calibration.score_decision` returns for the rows."""

    rows: Mapping[str, Any]
    """What `classifier.row_facts.describe_rows` returns; empty where the rows are not at hand."""

    part: str
    """"test" or "validation"; "" for the rows of another file."""

    source: str
    """Name of the file of the rows."""

    command: str
    """The command line that made the page."""

    stamps: Sequence[str] = field(default=())
    """Sentences that must accompany the scores."""


def write_training_page(classifier: Classifier, bundle: Path, command: str) -> Path:
    """Write the page of a classifier that was just trained, beside its bundle. Returns the path of the page.

    Args:
        classifier: What `adapt` returned: its `record.rows` has the facts that the bundle does not hold.
        bundle: The folder of its bundle.
        command: The command line.
    """
    facts, target = classifier.record.facts, page.page_beside(bundle)
    part = "test" if "test" in facts["metrics"] else "validation"
    scored = ScoredClassifier(
        name=target.stem,
        facts=_with_labels(classifier),
        history=classifier.record.history,
        scores=facts["metrics"][part],
        rows=classifier.record.rows,
        part=part,
        source=facts["data"]["source"][part if part in facts["data"]["source"] else "train"],
        command=command,
        stamps=classifier.stamps,
    )
    return write_page(target, render_classifier(scored))


def write_evaluation_page(
    classifier: Classifier,
    name: str,
    dataset: Dataset,
    logits: np.ndarray,
    scores: Mapping[str, Any],
    target: Path,
    command: str,
) -> Path:
    """Write the page of a classifier's scores on a file. Returns the path of the page.

    Args:
        classifier: The classifier.
        name: The name of its bundle.
        dataset: Labeled rows.
        logits: Its logits for them, float32 (rows, classes).
        scores: What `evaluate` returned for them.
        target: The path of the page.
        command: The command line.
    """
    part, decision = Part(dataset, np.arange(len(dataset))), classifier.decision
    known = scores["trained_on"]
    overlap = [f"{known:,} of these rows have a text that it was trained on, so the scores are too high."] * bool(known)
    scored = ScoredClassifier(
        name=name,
        facts=_with_labels(classifier),
        history=(),
        scores=scores,
        rows={
            "mistakes": list_mistakes(part, logits, decision),
            "threshold_curve": curve_of_positive(part, logits, decision),
        },
        part="",
        source=Path(dataset.source).name,
        command=command,
        stamps=[*classifier.stamps, *overlap],
    )
    return write_page(target, render_classifier(scored))


def _with_labels(classifier: Classifier) -> dict[str, Any]:
    return classifier.record.facts | {"label_names": list(classifier.label_names)}


def render_classifier(classifier: ScoredClassifier) -> str:
    """Return the page of a classifier as HTML."""
    facts, scores = classifier.facts, classifier.scores
    training, metric = facts["recipe"]["training"], _shown_metric(facts, scores)
    entry = _recipe_entry(classifier, training["metric"])
    styles = report_figures.marker_styles([entry])
    plain, title = _plain_scores(classifier), metric_phrase(training["metric"])
    curve = report_figures.threshold_curves([entry], styles)
    view = {
        "version": runtime.versions()["fullbake"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": classifier.name,
        "page_title": f"How good is {classifier.name}? fullbake on {classifier.source}",
        "made_by": "fullbake train" if classifier.part else "fullbake evaluate",
        "title": _title(facts),
        "trained": facts["data"]["rows"]["train"] if classifier.part else None,
        "part_words": classifier.part or "labeled",
        "source": classifier.source,
        "facts": facts,
        "base": Path(facts["recipe"]["base"]).name,
        "command": classifier.command,
        "scores": scores,
        "multi_label": scores["problem_type"] == MULTI_LABEL,
        "sentences": plain_words.describe_scores(plain),
        "tiles": _tiles(classifier, metric),
        "stamps": [*_stamps(classifier), *classifier.stamps, *_remarks(classifier)],
        "steps": _steps(classifier, plain),
        "mistakes": page.view_mistakes(classifier.rows.get("mistakes") or ()),
        "overall": _overall(scores),
        "baselines": _beside_baselines(classifier),
        "styles": styles,
        "recall_figure": report_figures.recall_of_one(scores["per_class"], styles[classifier.name]),
        "threshold_figure": curve,
        "history_figure": report_figures.histories([entry], styles, training["metric"], title),
        "calibration_figure": report_figures.calibrations([entry], styles),
        "matrices": [page.view_matrix(classifier.name, scores["confusion_matrix"], facts["label_names"])]
        if scores["confusion_matrix"] is not None
        else [],
        "label_names": facts["label_names"],
        "labels": classifier.rows.get("labels") or [],
        "data_facts": _data_facts(facts["data"]),
    }
    return page.render_page("classifier.html", view | {"texts": bool(view["mistakes"]), "sections": _sections(view)})


def _sections(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    return page.sections_of(
        {
            "verdict": ("In short", True),
            "next": ("Next", True),
            "mistakes": ("Mistakes", view["mistakes"]),
            "classes": ("Labels" if view["multi_label"] else "Classes", view["recall_figure"]),
            "scores": ("Scores", True),
            "thresholds": ("Thresholds", view["threshold_figure"]),
            "histories": ("Training", view["history_figure"]),
            "confusion": ("Confusion", view["matrices"]),
            "calibration": ("Calibration", view["calibration_figure"]),
            "data": ("Data", True),
            "reproduce": ("Reproduce", True),
        }
    )


def _recipe_entry(classifier: ScoredClassifier, metric: str) -> dict[str, Any]:
    """Return what the figures of a comparison need of a recipe."""
    history = [entry for entry in classifier.history if classifier.part]
    return {
        "name": classifier.name,
        "way": classifier.facts["recipe"]["way"],
        "histories": [history] if any(metric in entry for entry in history) else [],
        "seeds": [classifier.facts["recipe"]["training"]["seed"]],
        "calibration": classifier.scores.get("calibration"),
        "threshold_curve": classifier.rows.get("threshold_curve"),
    }


def _plain_scores(classifier: ScoredClassifier) -> PlainScores:
    scores, labels = classifier.scores, classifier.rows.get("labels") or []
    return PlainScores(
        rows=scores["rows"],
        accuracy=scores["overall"].get("accuracy") or {},
        recalls=[
            {"label": row["label"], "support": row["support"], "mean": row["recall"]["value"]}
            for row in scores["per_class"]
        ],
        confusion=scores["confusion_matrix"],
        trained={entry["name"]: entry["train"] for entry in labels if entry["train"] is not None},
        columns=classifier.facts.get("columns") or {},
        part=classifier.part,
        others=_trivial_answers(classifier),
        ece=(scores.get("calibration") or {}).get("ece"),
    )


def _baselines(classifier: ScoredClassifier) -> dict[str, Mapping[str, Any]]:
    """Return the scores of each baseline on the rows of the page; {} where none was scored on them."""
    found = classifier.facts.get("baselines") if classifier.part else None
    return {} if found is None else {name: found[name][classifier.part] for name in BASELINE_NAMES}


def _trivial_answers(classifier: ScoredClassifier) -> list[tuple[str, float]]:
    """Return what the baselines do, in plain words, with their accuracy."""
    return [(plain_words.BASELINE_WORDS[name], scores["accuracy"]) for name, scores in _baselines(classifier).items()]


def _beside_baselines(classifier: ScoredClassifier) -> dict[str, Any]:
    """Return the table of the classifier beside the baselines: `titles`, `rows` and `note`; {} without baselines."""
    found = _baselines(classifier)
    if not found:
        return {}
    facts = classifier.facts["baselines"]
    own = [classifier.scores["overall"].get(name, {}).get("value") for name in METRICS_SHOWN]
    rows = [(BASELINE_NAMES[name], [scores[metric] for metric in METRICS_SHOWN]) for name, scores in found.items()]
    few = (
        f"{facts['train_rows']:,} of the {facts['rows']:,} training rows" if facts["train_rows"] < facts["rows"] else ""
    )
    return {
        "titles": [metric_title(name) for name in METRICS_SHOWN],
        "rows": [(classifier.name, own), *rows],
        "note": few,
    }


def _shown_metric(facts: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """Return the metric that selected, where it is reported; else macro F1."""
    metric = str(facts["recipe"]["training"]["metric"])
    return metric if metric in scores["overall"] else "f1_macro"


def _title(facts: Mapping[str, Any]) -> str:
    """Return the way, the base and the head in words."""
    recipe = facts["recipe"]
    kind = (facts.get("chosen") or {}).get("head") or recipe["head"]["kind"]
    way = "Fine-tuned" if recipe["way"] == "finetune" else "Frozen"
    further = " after further pretraining" if recipe.get("further_pretraining") else ""
    return f"{way} base {Path(str(recipe['base'])).name} with {_HEADS.get(kind, f'head {kind}')}{further}"


def _tiles(classifier: ScoredClassifier, metric: str) -> list[tuple[str, str, str]]:
    """Return (label, value, text below) of each tile."""
    scores = classifier.scores
    names = dict.fromkeys((metric, "accuracy"))
    found = [(metric_phrase(name), scores["overall"].get(name)) for name in names]
    tiles = [
        (name, format_score(value["value"]), format_interval(value["low"], value["high"]) or "no interval")
        for name, value in found
        if value is not None
    ]
    few = f"the fewest of a class: {min(row['support'] for row in scores['per_class']):,}"
    if scores.get("groups") is not None:
        few += f"; in {scores['groups']:,} groups"
    ece = (scores.get("calibration") or {}).get("ece")
    return [
        *tiles,
        (f"{classifier.part or 'scored'} rows", format_count(scores["rows"]), few),
        ("calibration error", format_score(ece), "of its probabilities, 0 is best"),
    ]


def _stamps(classifier: ScoredClassifier) -> list[str]:
    if classifier.part != "validation":
        return []
    folds = classifier.facts["data"].get("folds")
    how = "each row by a classifier that did not train on it; " if folds else ""
    return [
        f"There are no test rows. These are the validation rows ({how}they also chose the epoch), so the scores are "
        "somewhat too high. --test 0.2 keeps test rows."
    ]


def _remarks(classifier: ScoredClassifier) -> list[str]:
    """Return the sentence that a classifier is not above a baseline, where that is so."""
    remark = compare_with_baselines(dict(classifier.facts)) if classifier.part else None
    return [] if remark is None else [remark]


def _steps(classifier: ScoredClassifier, plain: PlainScores) -> list[Markup]:
    name, pair = classifier.name, bool((classifier.facts.get("columns") or {}).get("text_pair"))
    texts = '"a text" "another text"' if pair else '"a text"'
    where = "the folder of this page" if classifier.part else "the folder that holds the bundle"
    use = Markup("Use it: <code>fullbake predict {} {}</code> in {}, or <code>Classifier.load({})</code> in Python.")
    first = [use.format(svg.isolate_text(name), texts, where, svg.isolate_text(f'"{name}"'))]
    if classifier.rows.get("mistakes"):
        first.append(Markup("Read the mistakes below. Correct labels that are wrong, and train again."))
    if classifier.part == "validation":
        first.append(Markup("Keep test rows for a fair score: train again with <code>--test 0.2</code>."))
    last = [
        Markup("Ask whether another way is better: <code>{}</code>.").format(svg.isolate_text(_comparison(classifier)))
    ]
    return plain_words.advise(plain, first, last if classifier.part else ())


def _comparison(classifier: ScoredClassifier) -> str:
    """Return the command that compares this way with others on the same data."""
    recipe, columns = classifier.facts["recipe"], classifier.facts.get("columns") or {}
    words = ["fullbake", "compare", classifier.facts["data"]["source"]["train"]]
    # `near_duplicates` has a default that need not be said; bundles of earlier versions have neither field.
    rows = {name: recipe["data"].get(name) for name in ("drop_rare", "near_duplicates")}
    rows["near_duplicates"] = "apart" if rows["near_duplicates"] == "apart" else None
    for flag, value in (*columns.items(), *rows.items(), ("base", Path(str(recipe["base"])).name)):
        if value is None or value is False:
            continue
        words.append(f"--{flag.replace('_', '-')}")
        if value is not True:
            words.append(",".join(value) if isinstance(value, list | tuple) else str(value))
    return shlex.join(words)


def _overall(scores: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """Return (title, value, meaning) of each score."""
    found = []
    for name, value in scores["overall"].items():
        record = METRICS.get(name)
        definition = record.definitions.get(scores["problem_type"]) if record else None
        positive = scores["positive"] if record and record.one_vs_rest else None
        title = metric_title(name) if positive is None else f"{metric_title(name)} of {positive}"
        found.append((title, value, "" if definition is None else definition.meaning))
    return found


def _data_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    sources = dict.fromkeys(data["source"].values())
    facts = [("source", ", ".join(sources))]
    facts += [(f"{part} rows", format_count(rows)) for part, rows in data["rows"].items()]
    if data.get("folds"):
        facts.append(("folds of the training rows, as validation", format_count(data["folds"])))
    if data.get("overlap_dropped"):
        facts.append(("rows left out because their text is in two parts", format_count(data["overlap_dropped"])))
    return facts
