"""The page says what the leaderboard holds, to everyone, and nothing on it can act."""

import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from helpers import browser
from helpers.leaderboards import HOSTILE, board, write_board

from fullbake.comparison.report import SHOWN_DISAGREEMENTS, render_report, write_report
from fullbake.core import storage
from fullbake.core.errors import DataError

KINDS = ("topics", "binary", "hostile", "bare")
VOID = {"meta", "br", "hr", "img", "input", "link"}
Attributes = dict[str, str | None]


class Outline(HTMLParser):
    """A page's elements in order: (tag, attributes, path of open tags), and the text inside each kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Attributes, tuple[str, ...]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element, line {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


@pytest.fixture(params=KINDS, scope="module")
def page(request: pytest.FixtureRequest) -> str:
    return render_report(board(request.param))


def changed(change: Callable[[dict[str, Any]], object], kind: str = "topics") -> str:
    """The page of a leaderboard after `change`."""
    result = board(kind)
    change(result)
    return render_report(result)


def text_of(page: str) -> str:
    outline = Outline(page)
    return " ".join(" ".join(text for tag, text in outline.texts if tag not in {"style", "title", "desc"}).split())


# What it says


def test_sections_are_in_order_with_the_verdict_first() -> None:
    sections = [a["id"] for a in Outline(render_report(board("binary"))).all("section")]
    assert sections == [
        "verdict",
        "next",
        "mistakes",
        "leaderboard",
        "differences",
        "cost",
        "recall",
        "thresholds",
        "disagreements",
        "rates",
        "histories",
        "confusion",
        "calibration",
        "speed",
        "forgetting",
        "failed",
        "data",
        "reproduce",
    ]


def test_page_without_any_finished_recipe() -> None:
    page = render_report(board("bare"))
    sections = [a["id"] for a in Outline(page).all("section")]
    assert sections == ["verdict", "next", "leaderboard", "failed", "data", "reproduce"]
    assert "No recipe to recommend" in page
    assert page.count("the disk is full") == 8


def test_page_shows_verdict_warnings_failures_and_machine() -> None:
    result = board()
    text = text_of(render_report(result))
    assert "Take frozen-linear" in text
    for words in (*result["verdict"]["words"], *result["stamps"], *result["data"]["findings"]):
        assert words in text
    assert result["recipes"][-1]["reason"] in text
    assert "restarted with another seed every row was predicted 'sport'" in text
    assert "collapsed again, and kept the loss never left chance" in text
    assert result["design"]["left_out"][0] in text
    assert "7 of 8 recipes finished, each trained 3 times with different seeds" in text
    assert result["command"] in text
    for fact in (
        "duplicates removed 3",
        "tokens (pieces of words), median 38",
        "Intel Xeon 8375C",
        "torch 2.13.0",
        "2026-11-24 18:02 UTC",
    ):
        assert fact in text
    for entry in result["disagreements"]:
        assert " ".join(entry["text"].split())[:400] in text


def test_leaderboard_is_ordered_by_mean_and_compares_each_with_the_best() -> None:
    page = render_report(board())
    table = page[page.index('class="leaders"') : page.index("<caption>Cost")]
    names = re.findall(r"<span><bdi>(.*?)</bdi></span></span>", table)
    means = [float(mean) for mean in re.findall(r'class="number big">([\d.]+)', table)]
    assert len(means) == 7
    assert means == sorted(means, reverse=True)
    assert names[0] == "further-finetune"
    assert table.count("best mean") == 1
    assert table.count("no detectable difference") == 2
    assert table.count("detectably worse") == 4


def test_differences_have_the_best_recipe_first_and_keep_their_sign() -> None:
    def plain(result: dict[str, Any]) -> None:
        names = ("finetune", "further-finetune", "frozen-linear")
        result["recipes"] = [recipe for recipe in result["recipes"] if recipe["name"] in names]
        pair = dict.fromkeys(("p", "p_holm", "mcnemar_p"), 0.5) | {"rows_needed": None, "words": ""}
        pair |= {"a": "finetune", "b": "further-finetune", "difference": -0.02, "low": -0.05, "high": 0.01}
        result["pairs"] = [pair | {"detectable": False, "reason": "they scored the same"}]

    text = text_of(changed(plain))
    assert "further-finetune minus finetune" in text
    assert "+0.020 −0.010 to +0.050" in text
    assert "they scored the same" in text


def test_impossible_numbers_of_test_rows_are_not_advised() -> None:
    def needing(times: int) -> str:
        def change(result: dict[str, Any]) -> None:
            heads = {result["verdict"]["best"], result["verdict"]["recommended"]}
            for pair in result["pairs"]:
                if {pair["a"], pair["b"]} == heads:
                    pair["rows_needed"] = times * result["data"]["test"]

        return text_of(changed(change))

    assert "To see whether" in needing(100)
    assert "To see whether" not in needing(101)


def test_the_number_of_training_rows_is_not_said_of_trainings_that_had_fewer() -> None:
    def reduce(result: dict[str, Any]) -> None:
        result["reduced"] = {"finetune": ["Only 211 of the 899 training rows were used."]}

    def whole(result: dict[str, Any]) -> None:
        result["reduced"] = {}

    remark = "(what was made smaller to fit the budget is said below)"
    assert remark in text_of(changed(reduce))
    assert remark not in text_of(changed(whole))


def test_a_score_without_a_value_gives_its_reason() -> None:
    def undefined(result: dict[str, Any]) -> None:
        figure = {"mean": None, "low": None, "high": None, "seeds": [], "reason": "a class has no test row"}
        result["recipes"][0]["test"]["f1_macro"] = figure

    page = changed(undefined)
    table = page[page.index('class="leaders"') : page.index("<caption>Cost")]
    assert table.count("a class has no test row") == 1
    assert table.rindex("finetune</bdi>") > table.rindex("majority</bdi>")


def test_the_choice_of_a_baseline_is_shown() -> None:
    def choose(result: dict[str, Any]) -> None:
        for recipe in result["recipes"]:
            chosen = {"features": "words and characters", "strength": 10.0}
            recipe["baseline"] = chosen if recipe["name"] == "tfidf" else None

    text = text_of(changed(choose))
    assert text.count("on words and characters, C 10 (validation chose both)") == 1


def test_many_disagreements_are_cut_and_counted() -> None:
    page = changed(lambda result: result.update(disagreements=result["disagreements"][:1] * 1234))
    assert page.count(", labeled <strong>") == SHOWN_DISAGREEMENTS
    assert f"{SHOWN_DISAGREEMENTS - 6} more</summary>" in page
    assert f"Shown are {SHOWN_DISAGREEMENTS} of 1,234" in page


def test_many_labels_a_row_and_pairs_of_texts_are_written_out() -> None:
    entry = {
        "row": 1,
        "text": ["one", "other"],
        "label": ["a", "b"],
        "predictions": {"x": ["b"], "y": [], "z": ["a", "b"]},
    }
    text = text_of(changed(lambda result: result.update(disagreements=[entry])))
    assert "one | other" in text
    assert "labeled a, b" in text
    assert text.index("✓ a, b") < text.index("✗ b")
    assert "✗ none" in text


def test_more_classes_than_a_matrix_carries_become_a_list_of_mistakes() -> None:
    def widen(result: dict[str, Any]) -> None:
        result["label_names"] = [f"class {place}" for place in range(30)]
        for recipe in result["recipes"]:
            recipe["confusion"] = [[0] * 30 for _ in range(30)]
            recipe["confusion"][3][7] = 5

    page = changed(widen)
    assert 'class="matrix"' not in page
    assert "a table of all pairs would be too large to read" in page
    row = page[page.index("<bdi>class 3</bdi>") :][:120]
    assert "class 7" in row


def test_page_names_the_file_of_each_part_and_the_folds() -> None:
    def split(result: dict[str, Any]) -> None:
        result["data"] |= {"source": {"train": "a.csv", "validation": None, "test": "b.csv"}, "folds": 5}

    text = text_of(changed(split))
    assert "Which way for a.csv, b.csv ?" in text
    assert "in 5 folds" in text


def test_the_first_sentence_says_how_many_texts_are_right() -> None:
    text = text_of(render_report(board()))
    assert "It gives about 73 in 100 texts the right label. With other texts of the same kind" in text
    assert "Best: sport (it finds 8 in 10). Worst: pets" in text
    assert "always giving the most frequent answer would be right for about 5 in 100; counting words (tfidf)" in text
    named = text_of(changed(lambda result: result["data"].update(columns={"text": "comment", "label": "topic"})))
    assert "It gives about 73 in 100 comments the right topic." in named


def test_five_mistakes_of_the_recommended_recipe_are_shown_with_their_texts() -> None:
    result = board("binary")
    text = text_of(render_report(result))
    mistakes = text[text.index("Mistakes, with their texts") : text.index("Leaderboard Macro F1")]
    for entry in result["mistakes"]:
        assert " ".join(entry["text"].split()) in mistakes
        assert f"with a probability of {entry['probability']:.2f} row {entry['row']}" in mistakes
    none = changed(lambda result: result.update(mistakes=[]), "binary")
    assert "Mistakes, with their texts" not in none
    assert "Read the mistakes" not in none


def test_an_older_leaderboard_has_the_mistakes_among_its_disagreements() -> None:
    result = board()
    wrong = [e for e in result["disagreements"] if e["predictions"]["frozen-linear"] != e["label"]][:5]
    page = render_report(result)
    mistakes = page[page.index('id="mistakes"') : page.index('id="leaderboard"')]
    assert re.findall(r"<dt>row</dt><dd>(\d+)", mistakes) == [str(entry["row"]) for entry in wrong]
    assert "probability" not in text_of(
        f"<main>{mistakes[mistakes.index('<ol') : mistakes.index('</ol>')]}</ol></main>"
    )


def test_what_did_not_run_names_the_budget_and_what_was_made_smaller_its_recipes() -> None:
    text = text_of(render_report(board("binary")))
    assert "left out" not in text.split("What did not run")[0]
    assert "the budget of 1 h is too short a budget of 1 h 30 min" in text
    assert "Run the same command again with --budget 90m : then tapt takes part too." in text
    assert "further-finetune : Further pretraining was shortened to one pass." in text
    assert "finetune : The training rows were cut" in text
    for_all = changed(
        lambda result: result.update(
            reduced={recipe["name"]: ["All were cut."] for recipe in result["recipes"] if recipe["status"] == "done"}
        ),
        "binary",
    )
    assert "<li><bdi>All were cut.</bdi></li>" in for_all


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([[0]] * 5, "each trained once (with one seed)"),
        ([[0, 1]] * 5, "each trained 2 times with different seeds"),
        ([[0], [0, 1, 2], [0], [0], [0]], "each trained 1 to 3 times with different seeds"),
    ],
)
def test_the_number_of_trainings_is_said_in_words(seeds: list[list[int]], words: str) -> None:
    def train(result: dict[str, Any]) -> None:
        trained = [recipe for recipe in result["recipes"] if recipe["way"] != "baseline" and recipe["status"] == "done"]
        for recipe, own in zip(trained, seeds, strict=True):
            recipe["seeds"] = own

    text = text_of(changed(train))
    assert words in text
    assert "1 seeds" not in text
    assert ("finetune Fine-tuned base , one seed" in text) == ("1 to 3" in words)


def test_scores_without_an_interval_say_so() -> None:
    def remove(result: dict[str, Any]) -> None:
        for recipe in result["recipes"]:
            for figure in (recipe["test"] or {}).values():
                figure |= {"low": None, "high": None}
            for entry in recipe["recall"]:
                entry |= {"low": None, "high": None}

    text = text_of(changed(remove, "binary"))
    assert "no interval" in text
    assert "are to be expected" not in text


def test_speed_of_the_recommended_classifier_has_a_row_for_each_engine() -> None:
    page = render_report(board("binary"))
    assert "How fast the recommended classifier answers" in page
    for words in ("torch fp32", "onnx fp32", "2.51 s", "9.5 ms", "20.1 ms", "1,075", "412.0 MB"):
        assert words in page, words
    assert "How fast" not in render_report(board("topics")), "it was not measured"


def test_page_without_a_recommended_recipe_says_what_to_do() -> None:
    text = text_of(changed(lambda result: result["verdict"].update(recommended=None)))
    assert "No recipe to recommend" in text
    assert "See below why no recipe is recommended" in text
    assert "fullbake predict best" not in text


def test_entries_of_stored_results_may_lack_parts() -> None:
    """The stored comparisons of the benchmarks have no histories, curves and disagreements."""

    def strip(result: dict[str, Any]) -> None:
        result["disagreements"] = []
        for recipe in result["recipes"]:
            for key in ("histories", "calibration", "threshold_curve"):
                recipe.pop(key)

    assert "<h1>" in changed(strip, "binary")


def test_unknown_keys_of_a_leaderboard_are_ignored() -> None:
    def extend(result: dict[str, Any]) -> None:
        result["new"] = result["recipes"][0]["new"] = result["verdict"]["new"] = {"x": 1}

    assert changed(extend) == render_report(board())


# The file


def test_report_is_written_beside_its_leaderboard_and_replaces_an_older_one(tmp_path: Path) -> None:
    folder = write_board(tmp_path / "out")
    first = write_report(folder)
    content = first.read_bytes()
    assert first == folder / "report.html"
    assert write_report(folder).read_bytes() == content
    assert {path.name for path in folder.iterdir()} == {"leaderboard.json", "report.html"}


def test_a_page_that_could_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    folder = write_board(tmp_path / "out")
    content = write_report(folder).read_bytes()
    write_board(folder, "binary")

    def stop(operation: str, _: Path) -> None:
        if operation == "rename":
            raise OSError("stopped")

    with storage.observed(stop), pytest.raises(OSError, match="stopped"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no leaderboard"),
        ("{", "cannot be read"),
        ("[]", "another format version"),
        ('{"format": 2}', "Expected format 1; got format 2"),
        ('{"format": 1}', "the leaderboard is incomplete"),
        (json.dumps({k: v for k, v in board().items() if k != "pairs"}), "Expected pairs"),
    ],
)
def test_a_folder_without_a_good_leaderboard_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "leaderboard.json").write_text(content, "utf-8")
    with pytest.raises(DataError, match=words):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


# For everyone


def test_ids_are_unique_and_links_lead_somewhere(page: str) -> None:
    outline = Outline(page)
    ids = [attributes["id"] for _, attributes, _ in outline.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    referred = [str(a["href"]).removeprefix("#") for a in outline.all("a")]
    referred += [str(a["aria-labelledby"]) for _, a, _ in outline.elements if "aria-labelledby" in a]
    assert referred[0] == "verdict"
    assert set(referred) <= set(ids)


def test_headings_descend_one_by_one(page: str) -> None:
    levels = [int(tag[1]) for tag, _, _ in Outline(page).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_landmarks_are_there_and_named(page: str) -> None:
    outline = Outline(page)
    assert {tag: len(outline.all(tag)) for tag in ("html", "main", "header", "footer", "nav")} == dict.fromkeys(
        ("html", "main", "header", "footer", "nav"), 1
    )
    assert outline.all("html")[0]["lang"] == "en"
    assert all(a.get("aria-label") or a.get("aria-labelledby") for tag in ("nav", "section") for a in outline.all(tag))
    regions = [a for _, a, _ in outline.elements if a.get("role") == "region"]
    assert all(a.get("aria-label") and a.get("tabindex") == "0" for a in regions)


def test_every_chart_is_named_or_hidden(page: str) -> None:
    outline = Outline(page)
    for place, (tag, attributes, _) in enumerate(outline.elements):
        if tag != "svg" or attributes.get("aria-hidden") == "true":
            continue
        assert attributes["role"] == "img"
        assert attributes["aria-label"]
        assert [name for name, _, _ in outline.elements[place + 1 : place + 3]] == ["title", "desc"]


def test_every_table_has_a_caption_and_headings_with_a_scope(page: str) -> None:
    outline = Outline(page)
    assert len(outline.all("caption")) == len(outline.all("table"))
    assert all(a.get("scope") in {"row", "col"} for a in outline.all("th"))
    for place, (tag, _, path) in enumerate(outline.elements):
        if tag == "table":
            assert outline.elements[place + 1][0] == "caption"
            assert path[-1] == "div"


def test_no_heading_of_a_table_is_empty(page: str) -> None:
    headings = re.findall(r"<th\b[^>]*>(.*?)</th>", page, re.DOTALL)
    assert all(re.sub(r"<svg.*?</svg>|<[^>]*>", "", heading, flags=re.DOTALL).strip() for heading in headings)


def test_shades_of_a_matrix_leave_its_digits_readable(page: str) -> None:
    cells = re.findall(r'<td style="--share:(\d+)"( class="deep")?', page)
    assert all((int(share) >= 80) == bool(deep) for share, deep in cells)
    assert not [share for share, _ in cells if 50 < int(share) < 80]


def test_every_figure_has_its_numbers_as_a_table(page: str) -> None:
    figures = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert all("<figcaption>" in figure and "<summary>" in figure and "<table " in figure for figure in figures)


def test_every_kind_of_figure_is_on_a_tested_page() -> None:
    assert render_report(board("binary")).count("<figure>") == 6


def luminance(color: str) -> float:
    """Of #rrggbb, as WCAG 2 defines it."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colors_can_be_read(theme: int) -> None:
    style = resources.files("fullbake").joinpath("resources/templates/report.css").read_text("utf-8")
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style.split("@media")[theme]))

    def contrast(one: str, other: str) -> float:
        dark, light = sorted((luminance(colors[one]), luminance(colors[other])))
        return (light + 0.05) / (dark + 0.05)

    pairs = [(ink, ground) for ink in ("ink", "soft", "accent", "warn", "good") for ground in ("paper", "card", "tint")]
    pairs += [("ink", "warn-tint"), ("warn", "warn-tint"), ("quiet", "card")]
    low = {pair: contrast(*pair) for pair in pairs if contrast(*pair) < (4.5 if pair[0] != "quiet" else 3)}
    assert not low
    drawn = [f"s{place}" for place in range(8)] + ["base", "shade"]
    assert not {name: contrast(name, "card") for name in drawn if contrast(name, "card") < 3}


# Inert


def test_a_page_loads_nothing_and_forbids_everything(page: str) -> None:
    outline = Outline(page)
    policy = next(a["content"] for a in outline.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    tags = {tag for tag, _, _ in outline.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "link", "form", "input", "base", "image", "use"}
    assert len(outline.all("style")) == 1
    style = next(text for tag, text in outline.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    assert not [a for _, a, _ in outline.elements if any(name.startswith("on") or name == "src" for name in a)]
    assert all(str(a["href"]).startswith("#") for a in outline.all("a"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_harmless_everywhere(text: str) -> None:
    """Every string of the leaderboard is hostile: names, labels, reasons, versions, all but what the page compares."""

    def poison(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {text + k if key in {"versions", "predictions"} else k: poison(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(entry, key) for entry in value]
        if isinstance(value, str) and key not in {"status", "way", "metric", "date", "problem_type"}:
            return f"{value}{text}"
        return value

    outline = Outline(render_report(poison(board("binary"))))
    tags = {tag for tag, _, _ in outline.elements}
    plain = {tag for tag, _, _ in Outline(render_report(board("binary"))).elements}
    assert tags <= plain | {"details", "summary"}
    assert not [a for _, a, _ in outline.elements if any(name.startswith("on") for name in a)]


needs_browser = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium (as .ci/run does)"
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One start of the browser for all pages, by name: as reports, and two that would be owned."""
    folder = tmp_path_factory.mktemp("browser")
    frames = []
    for kind in KINDS:
        write_report(write_board(folder / kind, kind))
        frames.append((f"{kind}/report.html", 360))
    frames.append(("hostile/report.html", 1280))
    return dict(zip([*KINDS, "wide"], browser.look(folder, frames)["frames"], strict=True))


def look_at(folder: Path, page: str) -> dict[str, Any]:
    (folder / "page.html").write_text(page, "utf-8", "surrogatepass")
    return browser.look(folder, [("page.html", 800)])


@needs_browser
def test_hostile_texts_do_nothing_in_a_browser(seen: dict[str, Any]) -> None:
    for name in ("hostile", "wide"):
        found = seen[name]
        assert "fullbake compare on </script>" in found["title"]
        assert not set(found["tags"]) & {"script", "img", "iframe", "meta-refresh", "form"}
        assert found["tags"].count("style") == 1
        assert found["handlers"] == 0
        assert all(link.startswith("#") for link in found["links"])
        for text in (HOSTILE[0], HOSTILE[1], HOSTILE[5]):
            assert text in found["text"]


@needs_browser
def test_a_phone_scrolls_in_one_direction_only(seen: dict[str, Any]) -> None:
    assert {name: seen[name]["overflow"] for name in KINDS} == dict.fromkeys(KINDS, 0)


@needs_browser
def test_nothing_is_cut_on_a_phone(seen: dict[str, Any]) -> None:
    assert [seen[name]["cut"] for name in ("topics", "binary", "bare")] == [[], [], []]


@needs_browser
def test_the_browser_test_would_see_a_script_run(tmp_path: Path) -> None:
    """The control: the same texts, unescaped and without a policy, do own the page."""
    found = look_at(tmp_path, f"<!DOCTYPE html><title>page</title><body>{HOSTILE[1]}</body>")
    assert found["frames"][0]["title"] == "owned"


@needs_browser
def test_the_policy_holds_where_escaping_would_not(tmp_path: Path) -> None:
    page = render_report(board("bare")).replace("<main>", f"<main>{HOSTILE[0]}{HOSTILE[1]}{HOSTILE[3]}")
    found = look_at(tmp_path, page)
    assert "script" in found["frames"][0]["tags"]
    assert "fullbake compare" in found["frames"][0]["title"]
    assert found["title"] == "harness"
