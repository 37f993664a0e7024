"""fullbake.cli.tables: ."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.rows import make_rows, write_csv
from rich.console import Console, RenderableType

from fullbake.cli import tables
from fullbake.cli.tables import facts_sheet
from fullbake.config.problems import MULTI_LABEL, SINGLE_LABEL, problem_named
from fullbake.config.sections import DataConfig, HeadConfig
from fullbake.core.cache import Cache
from fullbake.core.errors import BaseModelError
from fullbake.data.inspection import inspect_file
from fullbake.evaluation import metrics
from fullbake.evaluation.decisions import Decision
from fullbake.models.admission import Admission, Check
from fullbake.models.summary import summarize


def shown(path: Path) -> str:
    console = Console(width=140, color_system=None, record=True, file=io.StringIO())
    console.print(facts_sheet(inspect_file(path, DataConfig())))
    return console.export_text()


def test_facts_sheet_shows_labels_lengths_and_findings(tmp_path: Path) -> None:
    rows = [*make_rows(60), ("[red]not markup[/red]", "[bold]"), ("again", "[bold]"), ("Again", " game")]
    text = shown(write_csv(tmp_path / "rows.csv", rows))
    for part in ("63 rows", "[bold]", "' game'", "characters", "Latin 100.0%", "warning: ", "note: "):
        assert part in text
    assert "tokens" not in text.split("scripts of")[0]


def test_facts_sheet_says_when_there_are_no_findings(tmp_path: Path) -> None:
    rows = [(f"{number} {number * 7919 % 1013} word", "ab"[number % 2]) for number in range(100)]
    assert "no findings" in shown(write_csv(tmp_path / "rows.csv", rows))


def printed(result: RenderableType, width: int = 120) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(result)
    return console.export_text()


def scored(names: tuple[str, ...] = ("no", "yes"), rows: int = 40) -> dict[str, Any]:
    chances = np.random.default_rng(0).dirichlet(np.ones(len(names)), rows)
    return metrics.score(np.arange(rows) % len(names), chances, names)


def test_scores_show_every_figure_and_class() -> None:
    result = scored()
    text = printed(tables.scores_table(result))
    for name in result["overall"]:
        assert metrics.metric_title(name) in text
    assert "ROC-AUC of 'yes'" in text
    assert f"{result['overall']['accuracy']['value']:.4f}" in text
    for row in result["per_class"]:
        assert row["label"] in text
        assert f"{row['f1']['value']:.3f}" in text
    assert "40 rows" in text
    assert "Confusion" in text


def test_labels_are_never_markup() -> None:
    text = printed(tables.scores_table(scored(("[red]", "[/]", ":smile:"))))
    assert text.count("[red]") == 3
    assert "[/]" in text
    assert ":smile:" in text


@pytest.mark.parametrize("classes", [3, 77])
def test_confusion_is_shown_while_it_is_small(classes: int) -> None:
    text = printed(tables.scores_table(scored(tuple(f"class{n}" for n in range(classes)), rows=2 * classes)))
    assert ("Confusion" in text) == (classes == 3)
    assert f"class{classes - 1}" in text


def test_undefined_figure_shows_its_reason() -> None:
    result = metrics.score(np.zeros(4, dtype=np.int64), np.tile([0.8, 0.2], (4, 1)), ("no", "yes"))
    reason = result["overall"]["roc_auc"]["reason"]
    assert reason
    assert reason in printed(tables.scores_table(result), width=200)


def test_long_labels_are_not_cut_short() -> None:
    name = "a_label_with_a_very_long_name_indeed"
    text = printed(tables.scores_table(scored((name, "b", "c"))), width=80)
    assert "…" not in text
    assert "support" in text


def test_headline_is_one_line() -> None:
    line = tables.scores_headline("validation", scored())
    assert line.startswith("validation")
    assert "40 rows" in line
    assert "accuracy" in line
    assert "\n" not in line


def test_predictions() -> None:
    text = printed(
        tables.predictions_table(
            Decision(problem_named(SINGLE_LABEL), ("no", "[b]yes")),
            ["a [i]text", "another"],
            np.array([[0.2, 0.8], [0.9, 0.1]]),
        )
    )
    assert "[b]yes" in text
    assert "a [i]text" in text
    assert "0.800" in text
    assert "0.900" in text


def test_predictions_without_scores() -> None:
    rule, rows = Decision(problem_named(SINGLE_LABEL), ("no", "yes")), np.array([[0.2, 0.8]])
    text = printed(tables.predictions_table(rule, ["a text"], rows, None, 2, labels_only=True))
    assert "yes, no" in text
    assert "score" not in text
    assert "0." not in text


def test_summary_gives_the_totals() -> None:
    from transformers import DistilBertConfig

    text = printed(tables.summary_table(summarize(DistilBertConfig(), way="frozen", head=HeadConfig(kind="mlp"))))
    for total in ("67,551,746", "1,185,794", "66,365,952"):
        assert total in text


def test_cache_lists_entries_and_how_full_it_is(tmp_path: Path) -> None:
    features = Cache(tmp_path / "cache", 10**6)
    assert "0 entries" in printed(tables.cache_table(features), width=300)
    with features.put("abcdef0123456789", "12 texts x 32") as folder:
        (folder / "file").write_bytes(b"x" * 1000)
    text = printed(tables.cache_table(features), width=300)
    assert "12 texts x 32" in text
    assert "abcdef012345" in text
    assert "1 entry" in text
    assert "of at most 1.0 MB" in text


MANY = metrics.score(
    np.array([[1, 0], [0, 0], [1, 1]], dtype=np.uint8), np.array([[0.9, 0.1], [0.2, 0.3], [0.4, 0.8]]), ("a", "[b]")
)


def test_scores_of_many_labels() -> None:
    text = printed(tables.scores_table(MANY | {"calibration": {"ece": 0.0123}}))
    for part in ("F1, mean over rows", "Hamming loss", "[b]", "expected calibration error: 0.0123"):
        assert part in text
    assert "Confusion" not in text
    assert "F1, micro" in tables.scores_headline("test", MANY)


def test_thresholds_and_calibration() -> None:
    entry = {"label": "[b]", "threshold": 0.25, "support": 3, "precision": 0.5, "recall": 1.0, "f1": None}
    text = printed(tables.thresholds_table([entry]))
    assert "0.2500" in text
    assert "[b]" in text
    line = tables.calibration_line({"temperature": 1.5, "before": {"ece": 0.2}, "after": {"ece": 0.1}})
    assert line == "temperature 1.500: validation calibration error 0.2000 before, 0.1000 after"


def test_predictions_of_many_labels_and_of_a_pair() -> None:
    rule = Decision(problem_named(MULTI_LABEL), ("a", "[b]"), (0.3, 0.5))
    text = printed(tables.predictions_table(rule, ["one", "two"], np.array([[0.4, 0.9], [0.1, 0.2]])))
    assert "a, [b]" in text
    assert "0.400, 0.900" in text
    assert "none" in text
    pair = printed(
        tables.predictions_table(
            Decision(problem_named(SINGLE_LABEL), ("no", "yes")), ["one", "two"], np.array([[0.2, 0.8]])
        )
    )
    assert "one | two" in pair


def test_admission_table_shows_each_check() -> None:
    checks = (Check("config", "passed", "an encoder"), Check("weights", "refused", "[red]layers[/red] left over"))
    facts = {"model_type": "bert", "layers": 2, "width": 1024, "parameters": 2000}
    console = Console(width=140, color_system=None, record=True, file=io.StringIO())
    console.print(tables.admission_table(Admission("base", facts, checks)))
    text = " ".join(console.export_text().split())
    assert "base: admitted, bert, 2 layers of width 1,024, 2,000 parameters" in text
    assert "[red]layers[/red] left over" in text
    console.print(tables.admission_table(Admission("base", {}, checks, errors=(BaseModelError("no"),))))
    assert console.export_text().strip().startswith("base: refused")
