"""Turn results into what the terminal shows: tables of facts, scores, layers, leaderboards and caches.

Cells are texts, or (text, style); `PlainTable` shows them as plain text, because a label may be called `[red]`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from fullbake.core.console import format_duration, format_size
from fullbake.core.screen import Line, PlainTable, Words
from fullbake.evaluation.metrics import METRICS, metric_title
from fullbake.evaluation.top_labels import list_top_labels

if TYPE_CHECKING:
    import numpy as np

    from fullbake.classifier.speed import EngineSpeed
    from fullbake.core.cache import Cache
    from fullbake.data.inspection import Facts, Lengths
    from fullbake.evaluation.decisions import Decision
    from fullbake.models.admission import Admission
    from fullbake.models.summary import Summary


MOST_LABELS = 30
FEWEST_LABELS = 10
"""Of more labels than both together, so many of the commonest and of the rarest are shown."""


def facts_sheet(facts: "Facts") -> RenderableType:
    """Return the facts of labeled texts: size, labels, lengths, scripts, then findings, warnings first."""
    from fullbake.data.findings import describe_finding  # loads pyarrow, which --help must not

    parts: list[RenderableType] = [Line((_size(facts), "bold")), _labels(facts), _lengths(facts)]
    if facts.scripts:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in list(facts.scripts.items())[:5] if share >= 0.0005)
        parts.append(Line(f"scripts of the letters: {shares}"))
    if facts.unknown_tokens is not None:
        parts.append(Line(f"unknown tokens: {facts.unknown_tokens:.2%} of all tokens"))
    for found in facts.findings:
        style = "yellow" if found.severity == "warning" else ""
        parts.append(Line((f"{found.severity}: ", style), describe_finding(found)))
    if not facts.findings:
        parts.append(Line("no findings: no empty, repeated or contradicting rows, and no visible leak"))
    return Group(*parts)


def _size(facts: "Facts") -> str:
    sampled = (
        "" if facts.sampled == facts.rows else f"; words, scripts and tokens are of {facts.sampled:,} sampled rows"
    )
    return f"{facts.source}: {facts.rows:,} rows{sampled}"


def _labels(facts: "Facts") -> PlainTable:
    table = PlainTable(title="Labels" if facts.multi_label else "Classes")
    table.add_column("label", overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    ordered = sorted(facts.labels.items(), key=lambda item: (-item[1], item[0]))
    hidden = len(ordered) - MOST_LABELS - FEWEST_LABELS
    for place, (name, count) in enumerate(ordered):
        if hidden > 0 and place == MOST_LABELS:
            table.add_row(f"... {hidden:,} more (--json has all)", "", "")
        if hidden > 0 and MOST_LABELS <= place < MOST_LABELS + hidden:
            continue
        table.add_row(repr(name) if name != name.strip() else name, f"{count:,}", f"{count / facts.rows:.1%}")
    return table


def _lengths(facts: "Facts") -> PlainTable:
    table = PlainTable(title="Lengths of the texts")
    for name in ("", "median", "90%", "99%", "longest", "over the limit", "cut off"):
        table.add_column(name, justify="left" if not name else "right")
    rows: dict[str, Lengths | None] = {"characters": facts.characters, "tokens": facts.tokens}
    for name, lengths in rows.items():
        if lengths is not None:
            numbers = (lengths.median, lengths.p90, lengths.p99, lengths.longest)
            over, lost = ("-" if share is None else f"{share:.1%}" for share in (lengths.over, lengths.lost))
            limit = "" if lengths.limit is None else f" of {lengths.limit}"
            table.add_row(name, *(f"{number:,}" for number in numbers), over + limit, lost)
    return table


WIDEST_CONFUSION = 12


def scores_table(result: dict[str, Any]) -> RenderableType:
    """Return the scores of `evaluation.metrics.score`: overall, per class, and a small confusion matrix."""
    parts: list[RenderableType] = [_overall(result), _per_class(result)]
    if result["confusion_matrix"] is not None and len(result["per_class"]) <= WIDEST_CONFUSION:
        parts.append(_confusion(result))
    if "calibration" in result:
        parts.append(Line(f"expected calibration error: {result['calibration']['ece']:.4f}"))
    return Group(*parts)


def _overall(result: dict[str, Any]) -> PlainTable:
    positive = result["positive"]
    table = PlainTable(title=f"{result['rows']:,} rows")
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right")
    table.add_column("95% interval")
    for name, figure in result["overall"].items():
        of_one = positive is not None and name in METRICS and METRICS[name].one_vs_rest
        title = f"{metric_title(name)} of {positive!r}" if of_one else metric_title(name)
        table.add_row(title, _value(figure), _interval(figure))
    return table


def _per_class(result: dict[str, Any]) -> PlainTable:
    table = PlainTable(title="Per class, with 95% intervals")
    table.add_column("class", overflow="fold")
    table.add_column("support", justify="right", no_wrap=True)
    for name in ("precision", "recall", "F1"):
        table.add_column(name, no_wrap=True)
    for row in result["per_class"]:
        figures = [_with_interval(row[name]) for name in ("precision", "recall", "f1")]
        table.add_row(row["label"], f"{row['support']:,}", *figures)
    return table


def _confusion(result: dict[str, Any]) -> PlainTable:
    names = [row["label"] for row in result["per_class"]]
    table = PlainTable(title="Confusion matrix: true class by row, predicted class by column")
    table.add_column("", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for position, (name, counts) in enumerate(zip(names, result["confusion_matrix"], strict=True)):
        cells = [(f"{n:,}", "bold" if column == position else "") for column, n in enumerate(counts)]
        table.add_row(name, *cells)
    return table


def _value(figure: dict[str, Any]) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.4f}"


def _interval(figure: dict[str, Any]) -> Words:
    """Return the interval, or the reason why there is no value."""
    if figure["value"] is None:
        return figure["reason"], "dim"
    return "" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"


def _with_interval(figure: dict[str, Any]) -> Words:
    if figure["value"] is None:
        return f"- ({figure['reason']})", "dim"
    return f"{figure['value']:.3f} ({figure['low']:.2f}-{figure['high']:.2f})"


def scores_headline(part: str, result: dict[str, Any]) -> str:
    """Return one line with the main scores of a part (train, validation, test)."""
    names = ("accuracy", "f1_macro", "log_loss")
    if result["confusion_matrix"] is None:
        names = ("f1_macro", "f1_micro", "log_loss")
    shown = {name: result["overall"][name]["value"] for name in names}
    figures = "  ".join(f"{metric_title(name)} {value:.4f}" for name, value in shown.items() if value is not None)
    return f"{part:<11} {result['rows']:>7,} rows  {figures}"


def baseline_lines(part: str, facts: dict[str, Any]) -> list[str]:
    """Return a line for each baseline that was scored on a part, below the line of the classifier.

    Args:
        part: train, validation or test.
        facts: Entries of fullbake.json.
    """
    found = facts.get("baselines")
    if found is None:
        return []
    lines = []
    for name, title in _BASELINE_TITLES.items():
        figures = "  ".join(f"{metric_title(metric)} {value:.4f}" for metric, value in found[name][part].items())
        lines.append(f"  {title:<22} {figures}")
    if found["train_rows"] < found["rows"]:
        lines[-1] += f"  (of {found['train_rows']:,} training rows)"
    return lines


_BASELINE_TITLES = {"majority": "majority class", "tfidf": "TF-IDF"}


def refit_line(facts: dict[str, Any]) -> str:
    """Return a line that says what a refit trained on, and whose scores those of validation are."""
    rows = facts["refit"]["rows"]
    return f"refit on {rows:,} training and validation rows; the validation scores are of the training before it"


def rank_change_lines(changes: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each change of the number of processes, see `elastic.changes_in`."""
    return [f"resumed: {change['note']}" for change in changes]


def calibration_line(facts: dict[str, Any]) -> str:
    """Return one line that says how the temperature changed the calibration error of the validation rows."""
    before, after = (facts[key]["ece"] for key in ("before", "after"))
    worse = " (worse)" if after > before else ""
    errors = f"validation calibration error {before:.4f} before, {after:.4f} after{worse}"
    return f"temperature {facts['temperature']:.3f}: {errors}"


def thresholds_table(entries: Sequence[dict[str, Any]]) -> PlainTable:
    """Return the threshold of each label, with its precision, recall and F1 on the validation rows."""
    table = PlainTable(title="Thresholds, fitted on validation")
    table.add_column("label", overflow="fold")
    for name in ("threshold", "support", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for entry in entries:
        figures = ["-" if entry[key] is None else f"{entry[key]:.3f}" for key in ("precision", "recall", "f1")]
        table.add_row(entry["label"], f"{entry['threshold']:.4f}", f"{entry['support']:,}", *figures)
    return table


def int8_table(facts: dict[str, Any]) -> RenderableType:
    """Return what the gate of int8 measured. facts: the entry `int8` of fullbake.json."""
    found, speed = facts["fidelity"], facts["speed"]
    metric, equal = found["metric"], found["equal_labels"]
    table = PlainTable(title=f"{found['rows']:,} judging rows")
    table.add_column("figure", overflow="fold")
    for name in ("fp32", "int8"):
        table.add_column(name, justify="right")
    table.add_column("difference, with 95% interval")
    change = f"{metric['difference']:+.4f} ({metric['low']:+.4f} to {metric['high']:+.4f})"
    table.add_row(metric_title(metric["name"]), f"{metric['original']:.4f}", f"{metric['other']:.4f}", change)
    errors = facts["calibration_error"]
    table.add_row("calibration error", f"{errors['fp32']:.4f}", f"{errors['int8']:.4f}", "")
    rates = speed["fp32_texts_per_cpu_second"], speed["int8_texts_per_cpu_second"]
    table.add_row(
        "texts a CPU second", *(f"{rate:,.1f}" for rate in rates), f"{rates[1] / max(rates[0], 1e-9):.2f} times"
    )
    sizes = facts["bytes"]
    table.add_row("weights", format_size(sizes["fp32"]), format_size(sizes["int8"]), "")
    same = f"{equal['value']:.2%} of the rows get the same labels ({equal['low']:.2%} to {equal['high']:.2%})"
    apart = f"one probability in a thousand differs by more than {found['probabilities_apart']['far']:.3f}"
    fitted = (
        f"temperature {facts['temperature']:.3f}, fitted with the decision on {facts['data']['fitted']:,} other rows"
    )
    return Group(table, Line(same), Line(apart), Line(fitted))


def predictions_table(
    decision: "Decision",
    texts: Sequence[str],
    probabilities: "np.ndarray",
    answered_by: Sequence[str] | None = None,
    top_k: int | None = None,
    *,
    labels_only: bool = False,
) -> PlainTable:
    """Return texts with their predicted labels and the scores of these.

    Args:
        decision: The rule that turns probabilities into labels.
        texts: One text a row, or the two texts of the only row.
        probabilities: (rows, classes).
        answered_by: Who gave them, in a cascade: one word a row.
        top_k: Show so many of the likeliest labels of each text too.
        labels_only: Show no score.
    """
    listed = [] if top_k is None else list_top_labels(probabilities, decision.label_names, top_k)
    others = [*([] if top_k is None else ["likeliest"]), *([] if answered_by is None else ["answered by"])]
    table = PlainTable()
    for name in ("text", "predicted", *([] if labels_only else ["score"]), *others):
        table.add_column(name)
    shown = [" | ".join(texts)] if len(probabilities) < len(texts) else texts
    decided = decision.problem.label_ids(decision.decide(probabilities))
    for number, (text, row, ids) in enumerate(zip(shown, probabilities, decided, strict=True)):
        names = ", ".join(decision.label_names[place] for place in ids) or "none"
        cells = [] if labels_only else [", ".join(f"{row[place]:.3f}" for place in ids)]
        if listed:
            scores = ["" if labels_only else f" {entry['score']:.3f}" for entry in listed[number]]
            cells.append(
                ", ".join(f"{entry['label']}{score}" for entry, score in zip(listed[number], scores, strict=True))
            )
        table.add_row(text, (names, "bold"), *cells, *([] if answered_by is None else [answered_by[number]]))
    return table


def summary_table(result: "Summary") -> RenderableType:
    """Return one row a layer, and the totals of parameters."""
    table = PlainTable()
    for name in ("layer", "kind", "output shape"):
        table.add_column(name)
    for name in ("parameters", "trainable"):
        table.add_column(name, justify="right")
    for row in result.rows:
        shape = "-" if row.shape is None else f"({', '.join(map(str, row.shape))})"
        table.add_row(row.name, row.kind, shape, f"{row.parameters:,}", f"{row.trainable:,}")
    totals = PlainTable(box=None, show_header=False, pad_edge=False)
    totals.add_column()
    totals.add_column(justify="right")
    totals.add_row("Total params", f"{result.total:,}")
    totals.add_row("Trainable params", f"{result.trainable:,}")
    totals.add_row("Non-trainable params", f"{result.non_trainable:,}")
    return Group(table, totals)


def leaderboard_table(board: dict[str, Any]) -> PlainTable:
    """Return the recipes of a leaderboard by their mean test score, best first, then those without a score."""
    metric = board["metric"]
    table = PlainTable()
    table.add_column("recipe", overflow="fold")
    table.add_column(f"{metric_title(metric)} on test", no_wrap=True)
    for name in ("training", "rows/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for entry in sorted(board["recipes"], key=lambda entry: -_mean(entry, metric)):
        figure, cost = entry["test"].get(metric), entry["cost"]
        style = "bold" if entry["name"] == board["verdict"]["recommended"] else ""
        if figure is None or figure["mean"] is None:
            table.add_row(
                entry["name"],
                "-",
                "-",
                "-",
                (f"{entry['status'].replace('_', ' ')}: {entry['reason']}", "dim"),
            )
            continue
        bounds = "no interval" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"
        shown = f"{figure['mean']:.3f} ({bounds})"
        speed = f"{cost['rows_per_second']:,.0f}"
        table.add_row((entry["name"], style), shown, f"{cost['train_seconds']:.1f} s", speed, _standing(entry, board))
    return table


def left_out_besides_recipes(board: dict[str, Any]) -> list[str]:
    """Return what a comparison left out for lack of time, without recipes: the leaderboard gives their reasons."""
    names = tuple(f"{entry['name']}: " for entry in board["recipes"])
    return [line for line in board["design"]["left_out"] if not line.startswith(names)]


def _mean(entry: dict[str, Any], metric: str) -> float:
    value = (entry["test"].get(metric) or {}).get("mean")
    return float("-inf") if value is None else float(value)


def _standing(entry: dict[str, Any], board: dict[str, Any]) -> str:
    """Return how a recipe compares with the one that has the best mean."""
    best, name = board["verdict"]["best"], entry["name"]
    taken = "recommended; " if name == board["verdict"]["recommended"] else ""
    if name == best:
        return f"{taken}best mean"
    pair = next(pair for pair in board["pairs"] if {pair["a"], pair["b"]} == {name, best})
    if pair.get("ahead_in_one_training"):
        return f"{taken}behind in one training"
    return f"{taken}{'detectably worse' if pair['detectable'] else 'no detectable difference'}"


def cache_table(features: "Cache") -> RenderableType:
    """Return the entries of a cache, the last used first, and its size."""
    entries = features.entries()
    table = PlainTable()
    for name in ("key", "features", "size", "last used"):
        table.add_column(name)
    for entry in entries:
        used = datetime.fromtimestamp(entry.used, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.key[:12], entry.description, format_size(entry.size), used)
    full = format_size(sum(entry.size for entry in entries))
    count = "1 entry" if len(entries) == 1 else f"{len(entries)} entries"
    line = Line(f"{features.root}: {count}, {full} of at most {format_size(features.limit_bytes)}")
    return Group(table, line) if entries else line


def pretraining_table(about: dict[str, Any]) -> PlainTable:
    """Return the losses of a further pretraining before and after. `about` is the new base's fullbake.json."""
    start, end = about["start"], next(entry for entry in about["history"] if entry["best"])
    table = _before_and_after(f"{about['base']} after {end['step']:,} of {about['steps']:,} steps")
    _compare(table, start, end, "mlm_loss", "held-out text: masked-LM loss")
    _compare(table, start, end, "mlm_accuracy", "held-out text: masked words right")
    if "pair_accuracy" in end:
        _compare(table, start, end, "pair_accuracy", "held-out text: pairs right")
    if "general_mlm_loss" in end:
        _compare(table, start, end, "general_mlm_loss", "general text: masked-LM loss")
        _compare(table, start, end, "general_mlm_accuracy", "general text: masked words right")
    return table


def pilot_table(facts: dict[str, Any]) -> PlainTable:
    """Return the figures of a pilot of further pretraining."""
    sampled = "" if facts["sampled"] == 1 else f" on {facts['sampled']:.1%} of the text"
    table = _before_and_after(f"a pilot of {facts['steps']:,} steps{sampled}, {format_duration(facts['seconds'])}")
    for name, title in (("pieces_per_word", "tokens per word"), ("unknown_share", "share of unknown tokens")):
        values = facts[name]
        table.add_row(f"{title}: general text, this text", f"{values['general']:.4f}", f"{values['domain']:.4f}", "")
    _compare(table, facts["start"], facts["end"], "mlm_loss", "held-out text: masked-LM loss")
    if facts["head_alone"] is not None:
        table.add_row("held-out text: only the head trained", "", f"{facts['head_alone']:.4f}", "")
    if facts["forgotten"] is not None:
        _compare(table, facts["start"], facts["end"], "general_mlm_loss", "general text: masked-LM loss")
    return table


def admission_table(admission: "Admission") -> PlainTable:
    """Return what was tried on a base, and what was found."""
    facts, title = admission.facts, f"{admission.base}: {'refused' if admission.errors else 'admitted'}"
    if "width" in facts:
        title += f", {facts['model_type']}, {facts['layers']} layers of width {facts['width']:,}"
    if "parameters" in facts:
        title += f", {facts['parameters']:,} parameters"
    table = PlainTable(title=title)
    table.add_column("check", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("found", overflow="fold")
    for check in admission.checks:
        table.add_row(check.name, check.result, check.detail)
    return table


def speed_table(found: "Sequence[EngineSpeed]") -> PlainTable:
    """Return how fast each engine and precision of a bundle answers."""
    threads = "1 thread" if found[0].threads == 1 else f"{found[0].threads} threads"
    table = PlainTable(title=f"Speed on this machine with {threads}")
    for name in ("engine", "precision"):
        table.add_column(name, no_wrap=True)
    for name in ("cold start", "one text", "slowest of 100", "texts a second", "texts a CPU second", "memory"):
        table.add_column(name, justify="right")
    for speed in found:
        table.add_row(
            speed.engine,
            speed.precision,
            f"{speed.cold_start_s:.2f} s",
            f"{speed.p50_ms:.1f} ms",
            f"{speed.p99_ms:.1f} ms",
            f"{speed.texts_per_second:,.0f}",
            f"{speed.texts_per_cpu_second:,.0f}",
            format_size(speed.peak_memory),
        )
    return table


def probe_table(found: dict[str, Any]) -> PlainTable:
    """Return what `pretraining.forgetting.probe` measured."""
    table = _before_and_after(f"{found['words']:,} masked words of general text; before: {found['base']}")
    _compare(table, found["before"], found["after"], "mlm_loss", "masked-LM loss (nats)")
    _compare(table, found["before"], found["after"], "mlm_accuracy", "masked words right")
    return table


def _before_and_after(title: str) -> PlainTable:
    table = PlainTable(title=title)
    table.add_column("figure")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    return table


def _compare(table: PlainTable, before: dict[str, Any], after: dict[str, Any], name: str, title: str) -> None:
    table.add_row(title, f"{before[name]:.4f}", f"{after[name]:.4f}", f"{after[name] - before[name]:+.4f}")


def answered_line(counts: dict[str, int]) -> str:
    """Return who answered the rows of a cascade. counts: rows by `student` and `teacher`."""
    total = sum(counts.values())
    shares = (f"{name} {counts.get(name, 0) / total:.1%}" for name in ("student", "teacher"))
    return f"answered by: {', '.join(shares)}"


def students_table(rows: Sequence[dict[str, Any]], agreement: float) -> PlainTable:
    """Return student, TF-IDF and teacher on the held-out texts.

    Args:
        rows: As `comparison.students.compare_students` gives them.
        agreement: The agreement of the column on the cascade.
    """
    held = next(row["agreement"]["rows"] for row in rows if row["agreement"] is not None)
    table = PlainTable(title=f"On {held:,} held-out texts")
    labeled = any(row["accuracy"] is not None for row in rows)
    titles = ["", "equal labels", "95% interval", f"answers alone at {agreement:g}"]
    for title in [*titles, *(["accuracy", "macro-F1"] if labeled else [])]:
        table.add_column(title, justify="left" if not title else "right")
    for row in rows:
        found = row["agreement"]
        cells = [row["name"], "-", "-", "-"]
        if found is not None:
            cells[1:3] = f"{found['value']:.1%}", f"{found['low']:.1%} to {found['high']:.1%}"
            cells[3] = f"{row['answered']:.0%}"
        scores = [row[name] for name in ("accuracy", "f1_macro")] if labeled else []
        table.add_row(*cells, *("-" if score is None else _value(score) for score in scores))
    return table
