"""Facts and findings about labeled texts."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from helpers.rows import make_rows, write_csv
from pyarrow import parquet

from fullbake.config.sections import DataConfig, TokensConfig
from fullbake.data.dataset import read_dataset
from fullbake.data.findings import Finding, describe_finding
from fullbake.data.inspection import Facts, headlines, inspect_file, inspect_parts
from fullbake.data.splits import divide
from fullbake.models.encoding import count_tokens
from fullbake.models.tokenizer import load_tokenizer

Bases = Callable[..., Path]
WORDS = "the a and we they new old last little long very never think see people world time way".split()  # noqa: SIM905


def honest(count: int = 200, seed: int = 0) -> list[tuple[str, str]]:
    """Texts that do not depend on their labels."""
    drawn = random.Random(seed)
    return [(" ".join(drawn.choices(WORDS, k=drawn.randint(8, 20))), drawn.choice(["x", "y"])) for _ in range(count)]


def inspect_rows(folder: Path, rows: list[tuple[str, str]], **fields: Any) -> Facts:
    return inspect_file(write_csv(folder / "rows.csv", rows), DataConfig(**fields))


def found(facts: Facts, kind: str) -> Finding:
    return next(finding for finding in facts.findings if finding.kind == kind)


def test_honest_rows_raise_no_warning(tmp_path: Path) -> None:
    for seed in range(5):
        facts = inspect_rows(tmp_path, honest(seed=seed))
        assert [describe_finding(one) for one in facts.findings if one.severity == "warning"] == []
        assert (facts.rows, sum(facts.labels.values()), facts.sampled) == (200, 200, 200)


def test_equal_and_contradicting_texts_are_counted_with_their_rows(tmp_path: Path) -> None:
    rows = [*honest(), ("The Same  text here", "x"), ("the same text here", "x"), ("THE same text here", "y")]
    facts = inspect_rows(tmp_path, rows)
    assert found(facts, "equal texts").count == 2
    assert found(facts, "equal texts").rows == (202,)
    contradicting = found(facts, "contradicting labels")
    assert (contradicting.count, contradicting.severity) == (3, "warning")
    assert set(contradicting.rows) <= {201, 202, 203}


def test_nearly_equal_texts_are_counted(tmp_path: Path) -> None:
    long = " ".join(str(number) for number in range(60))
    facts = inspect_rows(tmp_path, [*honest(), (long, "x"), (long + " more", "x")])
    assert found(facts, "near duplicates").count == 2


def test_word_that_gives_the_label_away_and_name_in_the_text_are_found(tmp_path: Path) -> None:
    rows = [(f"{text} VIA-WEB" if label == "x" else text, label) for text, label in honest()]
    leak = found(inspect_rows(tmp_path, rows), "leakage")
    assert leak.severity == "warning"
    assert "'x'" in leak.message
    named = [(f"{text} Category: complaint" if label == "x" else text, label) for text, label in honest()]
    facts = inspect_rows(tmp_path, [(text, "complaint" if label == "x" else label) for text, label in named])
    assert "name of the label 'complaint' is in" in found(facts, "named label").message


def test_leaks_that_words_do_not_show_are_found(tmp_path: Path) -> None:
    rows = [(f"{text}\ufe0f" if label == "x" else text, label) for text, label in honest()]
    invisible = found(inspect_rows(tmp_path, rows), "invisible characters")
    assert invisible.severity == "warning"
    assert "variation selectors (U+FE0E, U+FE0F) (in" in invisible.message
    assert "predicts the label of 100% of the held-out rows" in invisible.message
    assert {rows[row - 1][1] for row in invisible.rows} <= {"x", "y"}
    position = found(inspect_rows(tmp_path, sorted(honest(), key=lambda row: row[1])), "sorted by label")
    assert position.severity == "note"


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_spare_column_that_gives_the_label_away_is_found(tmp_path: Path, ending: str) -> None:
    columns = {"text": [], "label": [], "stars": [], "id": []}  # type: dict[str, list[str]]
    for number, (text, label) in enumerate(honest()):
        for name, value in zip(columns, (text, label, "5" if label == "x" else "1", str(number % 7)), strict=True):
            columns[name].append(value)
    path = tmp_path / f"rows{ending}"
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if ending == ".csv":
        path.write_text("\n".join([",".join(columns), *(",".join(row.values()) for row in rows)]))
    elif ending == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        parquet.write_table(pa.table(columns), path)
    spare = found(inspect_file(path, DataConfig()), "revealing column")
    assert spare.severity == "note"
    assert "the column 'stars' predicts the label of 100% of the held-out rows" in spare.message
    assert "'id'" not in spare.message


def test_rows_without_a_label_do_not_stop_the_search_for_leaks(tmp_path: Path) -> None:
    rows = [(f"{text} VIA-WEB\u200b" if label == "x" else text, label) for text, label in honest()]
    kinds = {finding.kind for finding in inspect_rows(tmp_path, [*rows, ("no label", "")]).findings}
    assert {"leakage", "invisible characters", "unlabelled"} <= kinds


def test_labels_that_look_alike_and_rare_labels_are_found(tmp_path: Path) -> None:
    rows = [*honest(), ("one more", "X"), ("and another", " x")]
    facts = inspect_rows(tmp_path, rows)
    assert "' x', 'X', 'x'" in found(facts, "labels alike").message
    assert found(facts, "rare labels").count == 2


def test_signs_of_a_wrong_encoding_and_blank_texts_are_found(tmp_path: Path) -> None:
    rows = [*honest(), ("GrÃ¼ÃŸe", "x"), ("broken \ufffd", "y"), ("   ", "x"), ("<b>bold</b> &amp; more", "y")]
    messages = " / ".join(describe_finding(one) for one in inspect_rows(tmp_path, rows).findings)
    for part in ("read as Latin-1", "U+FFFD", "nothing but white space", "markup", "(row 201)", "(row 203)"):
        assert part in messages


def test_rows_without_a_label_are_a_finding_not_an_error(tmp_path: Path) -> None:
    facts = inspect_rows(tmp_path, [*honest(), ("no label", "")])
    assert (facts.unlabelled, found(facts, "unlabelled").count) == (1, 1)


def test_texts_that_given_files_share_with_training_are_found(tmp_path: Path) -> None:
    rows = honest()
    test = write_csv(tmp_path / "test.csv", [(rows[3][0].upper(), "x"), ("a new text", "y")])
    facts = inspect_rows(tmp_path, rows, test=str(test))
    assert found(facts, "overlap with test").count == 1
    assert "--drop-overlap" in found(facts, "overlap with test").message


def test_chinese_texts_are_inspected(tmp_path: Path) -> None:
    drawn = random.Random(0)
    rows = [("".join(drawn.choices("房间很小位置好交通方便", k=12)), "差" if n % 2 else "好") for n in range(80)]
    leaked = [(f"{text}退款" if label == "差" else text, label) for text, label in rows]
    facts = inspect_rows(tmp_path, leaked)
    assert facts.scripts == {"Han": 1.0}
    assert "'退款' gives away the label '差'" in found(facts, "leakage").message


def test_rows_with_several_labels_are_inspected(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text, "label": [label] if label == "x" else []}) for text, label in honest()]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    facts = inspect_file(tmp_path / "rows.jsonl", DataConfig())
    assert facts.multi_label
    assert set(facts.labels) == {"x"}
    assert found(facts, "no label holds").count == 200 - facts.labels["x"]


def test_facts_of_a_large_file_say_that_they_come_from_a_sample(tmp_path: Path) -> None:
    rows = [(f"{text} {place}", label) for place, (text, label) in enumerate(honest(400))]
    path = write_csv(tmp_path / "rows.csv", rows + rows)
    facts, again = (inspect_file(path, DataConfig(), sample_rows=50, max_hashes=64) for _ in range(2))
    assert (facts.rows, facts.sampled) == (800, 50)
    equal = found(facts, "equal texts")
    assert "estimated from 1 text in" in equal.message
    assert 200 < equal.count < 700
    assert facts.to_json() == again.to_json()


def test_run_prints_labels_and_lengths_when_it_starts(bases: Bases, tmp_path: Path) -> None:
    data = read_dataset(write_csv(tmp_path / "rows.csv", make_rows()), text="text", label="label")
    config, tokens = DataConfig(folds=0), TokensConfig(max_length=20)
    facts = inspect_parts(
        divide(data, config), config, partial(count_tokens, load_tokenizer(bases("bert"))), tokens.max_length
    )
    assert facts.tokens is not None
    assert facts.tokens.limit == 20
    assert 0 < facts.tokens.over < 1  # type: ignore[operator]
    labels, lengths, unknown = headlines(facts)
    assert labels == "labels: food 33.3%, game 33.3%, money 33.3%"
    assert "longer than the limit of 20" in lengths
    assert unknown == "unknown tokens: 0.00%"


def test_unknown_tokens_are_a_warning_that_says_what_to_do(bases: Bases, tmp_path: Path) -> None:
    counter = partial(count_tokens, load_tokenizer(bases("bert")))
    rows = [(f"很好 {number} 的", "good" if number % 2 else "bad") for number in range(40)]
    facts = inspect_file(write_csv(tmp_path / "chinese.csv", rows), DataConfig(), counter, 64)
    assert facts.unknown_tokens is not None
    assert facts.unknown_tokens > 0.5
    assert "--init random" in found(facts, "unknown tokens").message
    assert facts.to_json()["unknown_tokens"] == facts.unknown_tokens
    assert inspect_file(tmp_path / "chinese.csv", DataConfig()).unknown_tokens is None


def test_frames_are_inspected_as_their_files(tmp_path: Path) -> None:
    rows = pd.DataFrame(
        [(text, label, label[0], number) for number, (text, label) in enumerate(make_rows(80))],
        columns=["text", "label", "code", "number"],
    )
    rows.to_parquet(tmp_path / "rows.parquet")
    of_file, of_frame = inspect_file(tmp_path / "rows.parquet", DataConfig()), inspect_file(rows, DataConfig())
    assert replace(of_frame, source=of_file.source) == of_file
    assert found(of_frame, "revealing column")
    assert of_frame.source == "a pandas DataFrame of 80 rows"
    parts = inspect_file({"train": rows, "test": rows.iloc[:10]}, DataConfig())
    assert found(parts, "overlap with test").count == 10
