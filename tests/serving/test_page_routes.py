"""The page, in a real browser with a real server: type, score, drop a file, see errors."""

import csv
import io
import json
import random
import re
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import CHROMIUM
from helpers.chromium import Chromium, Page, chromium
from helpers.leaderboards import HOSTILE
from helpers.running_server import cascade_of, of_pairs, relabeled, running_server

import fullbake
from fullbake import Classifier
from fullbake.classifier.predict import predict_file
from fullbake.core.escaping import escape_hidden
from fullbake.serving.keys import ApiKeys
from fullbake.serving.limits import Limits
from fullbake.serving.page_routes import PAGE_FOLDER, page_routes

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXT = "we think the bank card price is very old 😀 food"
HOSTILE_NAMES = [HOSTILE[0], HOSTILE[1], "__proto__"]
LIMITS = Limits(texts=40)


@pytest.fixture(scope="module")
def classifiers() -> dict[str, Classifier]:
    topics = Classifier.load(FIXTURES / "bundle_0_1_0")
    return {
        "topics": topics,
        "many": Classifier.load(FIXTURES / "bundle_0_1_0_multilabel"),
        "pairs": of_pairs(topics, "question", "answer"),
        "cascade": cascade_of(topics, topics, 0.2),
        HOSTILE[0]: of_pairs(relabeled(topics, HOSTILE_NAMES), HOSTILE[1], "toString"),
    }


@pytest.fixture(scope="module")
def address(classifiers: dict[str, Classifier]) -> Iterator[str]:
    with running_server(classifiers, limits=LIMITS) as url:
        yield url


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Chromium]:
    with chromium(downloads) as running:
        yield running


@pytest.fixture(scope="module")
def tab(browser: Chromium) -> Page:
    return browser.page()


@pytest.fixture
def page(tab: Page, address: str) -> Iterator[Page]:
    """The page, as a user has it who did nothing yet. It must not write an error, nor be owned."""
    tab.emulate(language="en-US")
    show(tab, address)
    yield tab
    assert tab.problems == []
    assert tab.run("document.title") != "owned"
    tab.run("sessionStorage.clear()")


def show(page: Page, address: str) -> None:
    page.open(address)
    page.wait("!document.querySelector('#content').hidden")


def choose_model(page: Page, name: str) -> None:
    choose(page, "#model", name)
    page.wait(f"document.querySelector('#model-name').textContent === {json.dumps(name)}")


def choose(page: Page, selector: str, value: str) -> None:
    select = f"document.querySelector('{selector}')"
    page.run(f"{select}.value = {json.dumps(value)}, {select}.dispatchEvent(new Event('change'))")


def classify(page: Page, text: str = TEXT, button: str = "#classify") -> None:
    page.click("#text")
    page.type(text)
    page.click(button)
    page.wait("document.querySelector('#text-result').children.length")


def percentage(score: float) -> str:
    return ">99.9%" if score > 0.999 else "<0.1%" if score < 0.001 else f"{100 * score:.1f}%"


def bars(page: Page) -> list[dict[str, Any]]:
    return list(
        page.run(
            """[...document.querySelectorAll('#text-result .bars li')].map(row => ({
                label: row.querySelector('bdi').textContent,
                score: row.querySelector('.value').firstChild.textContent,
                width: row.querySelector('.filled').style.getPropertyValue('--share'),
                threshold: row.querySelector('.threshold')?.style.getPropertyValue('--at') ?? null,
                given: row.classList.contains('given'),
            }))"""
        )
    )


def score_file(page: Page, path: Path, **options: str) -> None:
    page.drop("#drop", path)
    page.wait("!document.querySelector('#file-form').hidden")
    for name, value in options.items():
        choose(page, f"#{name.replace('_', '-')}", value)
    page.click("#file-start")
    page.wait("document.querySelector('#file-result').children.length")


def download(page: Page, folder: Path) -> Path:
    name = page.run("document.querySelector('#file-result a').download")
    path = folder / name
    path.unlink(missing_ok=True)
    page.click("#file-result a")
    page.until(path.is_file)
    return path


def read_table(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


def test_all_files_of_the_page_are_served_and_packaged() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["fullbake"]
    package = Path(fullbake.__file__).parent
    files = sorted(PAGE_FOLDER.iterdir())
    assert all(any(fnmatch(str(path.relative_to(package)), pattern) for pattern in patterns) for path in files)
    assert len(page_routes()) == len(files)


def test_nothing_of_the_page_is_loaded_from_elsewhere() -> None:
    for path in PAGE_FOLDER.iterdir():
        text = path.read_text("utf-8")
        assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}, path.name
        assert "innerHTML" not in text
        assert not re.search(r"<[^>]* (style|on\w+)=", text)


def test_a_text_is_scored_by_the_keyboard(page: Page, classifiers: dict[str, Classifier]) -> None:
    page.click("#text")
    page.type(TEXT)
    page.press("Enter", 13, modifiers=2)
    page.wait("document.querySelector('#text-result').children.length")
    probabilities = classifiers["topics"].predict_proba([TEXT])[0]
    found = bars(page)
    assert [(bar["label"], bar["score"]) for bar in found] == [
        (classifiers["topics"].label_names[place], percentage(probabilities[place]))
        for place in np.argsort(-probabilities)
    ]
    assert [bar["given"] for bar in found] == [True, False, False]
    assert all(bar["threshold"] is None for bar in found)
    assert found[0]["label"] in page.text("#text-status")


def test_thresholds_of_many_labels_are_drawn(page: Page, classifiers: dict[str, Classifier]) -> None:
    choose_model(page, "many")
    classify(page)
    decision = classifiers["many"].decision.to_json()
    assert decision is not None
    given = classifiers["many"].predict([TEXT])[0]
    found = {bar["label"]: bar for bar in bars(page)}
    assert {label: float(bar["threshold"]) for label, bar in found.items()} == decision["thresholds"]
    assert [found[label]["given"] for label in classifiers["many"].label_names] == [bool(one) for one in given]


def test_a_pair_and_a_cascade_are_scored(page: Page, classifiers: dict[str, Classifier]) -> None:
    choose_model(page, "pairs")
    page.click("#text")
    page.type("old game")
    page.click("#classify")
    assert "both texts" in page.text("#text-message")
    page.click("#pair")
    page.type("bank card")
    page.click("#classify")
    page.wait("document.querySelector('#text-result').children.length")
    expected = classifiers["pairs"].predict_proba(["old game"], ["bank card"])[0].max()
    assert bars(page)[0]["score"] == percentage(expected)
    choose_model(page, "cascade")
    page.click("#classify")
    page.wait("document.querySelector('#text-result').children.length")
    answered = classifiers["cascade"].answers(["old game"]).answered_by
    assert answered is not None
    assert f"The {answered[0]} answered" in page.text("#text-result")


def test_words_that_mattered_are_shaded(page: Page, classifiers: dict[str, Classifier]) -> None:
    classify(page, button="#explain")
    page.wait("document.querySelector('#words-result').children.length")
    explanation = classifiers["topics"].explain(TEXT)
    top = explanation.top_words(number=3)
    shaded = page.run("[...document.querySelectorAll('.shaded mark')].map(m => [m.textContent, m.className])")
    assert [top[0]["word"], "for" if top[0]["effect"] > 0 else "against"] in shaded
    assert page.run("document.querySelector('.shaded').textContent") == TEXT
    page.run("document.querySelector('details').open = true")
    assert f"{abs(100 * top[0]['effect']):.1f} points" in page.text("details tbody tr")
    choose_label = (
        "(s => { s.selectedIndex = 1; s.dispatchEvent(new Event('change')); })(document.querySelector('#words-label'))"
    )
    page.run(choose_label)
    assert page.run("document.activeElement.id") == "words-label"


def test_hidden_characters_of_labels_are_shown_as_in_the_terminal(page: Page) -> None:
    numbers = [*range(0xD800), *range(0xE000, 0x10000), 0xE0041, 0x1F600]
    text = "".join(chr(number) for number in numbers if number not in (0x200C, 0x200D))
    script = f"import('./page/dom.js').then(({{foreign}}) => foreign({json.dumps(text)}).textContent)"
    assert page.run(script) == escape_hidden(text, keep_lines=True)
    assert page.run("import('./page/dom.js').then(({foreign}) => foreign('a\\ud800').textContent)") == "a\\ud800"


def test_hostile_labels_and_texts_do_nothing(page: Page, downloads: Path, tmp_path: Path) -> None:
    choose_model(page, HOSTILE[0])
    page.click("#pair")
    page.type(HOSTILE[1])
    classify(page, HOSTILE[0], button="#explain")
    page.wait("document.querySelector('#words-result').children.length")
    assert {bar["label"] for bar in bars(page)} == set(HOSTILE_NAMES)
    (tmp_path / "hostile.csv").write_text(
        f'"{HOSTILE[1].replace(chr(34), chr(34) * 2)}",toString\n<b>x,<i>y\n', "utf-8"
    )
    score_file(page, tmp_path / "hostile.csv")
    assert "1 rows" in page.text("#file-result")
    elements = "document.querySelectorAll('script, img, link, iframe, object, style').length"
    assert page.run(elements) == len(
        re.findall("<(?:script|img|link)", (PAGE_FOLDER / "index.html").read_text("utf-8"))
    )
    attributes = page.run("[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())")
    assert not [name for name in attributes if name.startswith("on")]
    assert page.run("({}).polluted") is None


def test_a_file_comes_back_as_the_library_scores_it(
    page: Page, classifiers: dict[str, Classifier], downloads: Path, tmp_path: Path
) -> None:
    generator = random.Random(0)
    words = ["food", "game", "bank", "card", "old", "play,", '"quoted"', "\n", "line;", "😀", ""]
    rows = [[str(n), " ".join(generator.choices(words, k=9)) + f" {n}"] for n in range(300)]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *rows])
    for name in ("many", "cascade"):
        choose_model(page, name)
        score_file(page, tmp_path / "rows.csv")
        assert "Done: 300 rows" in page.text("#file-result")
        found = read_table(download(page, downloads))
        predict_file(classifiers[name], tmp_path / "rows.csv", tmp_path / f"{name}.csv")
        expected = read_table(tmp_path / f"{name}.csv")
        assert found[0] == expected[0]
        assert [row[:2] for row in found] == [row[:2] for row in expected]
        for own, other in zip(found[1:], expected[1:], strict=True):
            assert [value if not is_number(value) else pytest.approx(float(value), abs=1e-5) for value in other] == [
                float(value) if is_number(value) else value for value in own
            ]


def is_number(text: str) -> bool:
    return re.fullmatch(r"[\d.e-]+", text) is not None


def test_json_lines_keep_their_digits(page: Page, downloads: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"body": "old game", "id": 12345678901234567890}\r\n\n{"id":1.10,"body":"bank"}', "utf-8"
    )
    page.choose_file("#file", tmp_path / "rows.jsonl")
    page.wait("!document.querySelector('#file-form').hidden")
    page.click("#file-start")
    assert "Choose the column" in page.text("#file-message")
    assert page.run("document.activeElement.id") == "column-0"
    choose(page, "#column-0", "body")
    page.click("#file-start")
    page.wait("document.querySelector('#file-result').children.length")
    lines = download(page, downloads).read_text("utf-8").splitlines()
    assert [line.split(', "predicted"')[0] for line in lines] == [
        '{"body": "old game", "id": 12345678901234567890',
        '{"id":1.10,"body":"bank"',
    ]
    assert set(json.loads(lines[0])) == {"body", "id", "predicted", "score", "score:food", "score:game", "score:money"}


WRONG_FILES = [
    ("a.csv", b"text,b\n1,2\n3,4,5\n", "Row 3 has 3 fields, but 2 are expected"),
    ("a.csv", b'text,b\n"never closed,2\n', "A quote in row 2 is never closed"),
    ("a.csv", b'text,b\n"a"b,2\n', "Row 2 has text after a closing quote"),
    ("a.csv", b"", "The file has no rows"),
    ("a.csv", b"text,text\n1,2\n", "Two columns have the name"),
    ("a.csv", "text\ncafé\n".encode("latin-1"), "The file is not UTF-8"),
    ("a.xlsx", b"PK\x03\x04", "cannot be read in the browser"),
    ("a.csv", b"text\n\x00\n", "cannot be read in the browser"),
    ("a.json", b'[{"text": "a"}]', "one large JSON value"),
    ("a.jsonl", b'{"text": "a"}\n[1]\n', "Line 2 is no JSON object"),
    ("a.csv", b"text,score\na,1\n", "has a column \u201cscore\u201d already"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', "Row 1 has a text that is not valid Unicode"),
    ("a.jsonl", b'{"text": null}\n', "Line 1 has no text in \u201ctext\u201d"),
]  # fmt: skip
"""Name, content, and what the page says of it."""


def test_a_wrong_file_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    for name, content, sentence in WRONG_FILES:
        (tmp_path / name).write_bytes(content)
        page.drop("#drop", tmp_path / name)
        page.wait("document.querySelector('#file-message').textContent || !document.querySelector('#file-form').hidden")
        if not page.text("#file-message"):
            page.click("#file-start")
            page.wait("document.querySelector('#file-message').textContent")
        assert sentence in page.text("#file-message")
        assert page.run("[...document.querySelectorAll('[role=alert]')].filter(e => e.textContent).length") == 1
        if page.run("Boolean(document.querySelector('#file-other'))"):
            page.click("#file-other")


def test_options_of_a_file_are_changed(page: Page, downloads: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("predicted;score;text\n1;2;café\n".encode("latin-1"))
    page.drop("#drop", tmp_path / "a.csv")
    page.wait("!document.querySelector('#file-form').hidden")
    assert page.run("document.querySelector('#file-delimiter').value") == ";"
    choose(page, "#file-encoding", "windows-1252")
    page.wait("document.querySelector('#file-form td.chosen')?.textContent === 'café'")
    page.click("#file-start")
    page.wait("document.querySelector('#file-prefix')")
    page.click("#file-prefix")
    page.type("new_")
    page.click("#file-start")
    page.wait("document.querySelector('#file-result .done')")
    found = download(page, downloads).read_bytes().decode("utf-8")
    assert found.startswith("\ufeffpredicted;score;text;new_predicted;new_score;new_score:food")
    assert "\r\n1;2;café;" in found


WATCH = """(() => {
  const real = window.fetch, seen = window.seen = {running: 0, most: 0, sizes: [], refusals: 0};
  const met = new Promise(resolve => { seen.meet = resolve; });
  window.fetch = async (url, options) => {
    if (!String(url).endsWith("v1/predict")) return real(url, options);
    seen.sizes.push(JSON.parse(options.body).texts.length);
    seen.most = Math.max(seen.most, ++seen.running);
    if (seen.running === 2) setTimeout(seen.meet, 100);
    try {
      if (window.together) await met;
      if (window.hold) await new Promise((_, stop) => options.signal.addEventListener("abort",
        () => stop(new DOMException("", "AbortError"))));
      if (seen.refusals++ < 2) {
        const body = JSON.stringify({error: {kind: "overloaded", message: "The queue is full."}});
        return new Response(body, {status: 429, headers: {"retry-after": "0"}});
      }
      return await real(url, options);
    } finally { seen.running--; }
  };
})()"""


def test_requests_are_bounded_and_patient(page: Page, downloads: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"game {n}" for n in range(150)), "utf-8")
    page.run(WATCH)
    # The first answers wait until two requests run, and 0.1 s more for a third: so speed does not decide what is seen.
    page.run("window.together = true")
    score_file(page, tmp_path / "a.txt")
    seen = page.run("window.seen")
    assert "Done: 150 rows" in page.text("#file-result")
    assert seen["most"] == 2
    assert max(seen["sizes"]) <= LIMITS.texts
    rows = read_table(download(page, downloads))
    assert [row[0] for row in rows[1:]] == [f"game {n}" for n in range(150)]


def test_what_was_scored_before_a_cancel_is_kept(page: Page, downloads: Path, tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("game on\n" * 500, "utf-8")
    page.run(WATCH)
    page.run(
        "(words => new MutationObserver(() => { window.hold ||= /[1-9]\\d* rows/.test(words.textContent); })"
        ".observe(words, {childList: true}))(document.querySelector('#file-words'))"
    )
    page.drop("#drop", tmp_path / "b.txt")
    page.wait("!document.querySelector('#file-form').hidden")
    page.click("#file-start")
    page.wait("window.hold")
    assert page.run("document.activeElement.id") == "file-cancel"
    page.press("Enter", 13)
    page.wait("document.querySelector('#file-result a')")
    assert "Cancelled" in page.text("#file-result")
    assert 1 < len(read_table(download(page, downloads))) < 501


def test_a_refused_row_is_named(page: Page, classifiers: dict[str, Classifier], tmp_path: Path) -> None:
    with running_server({"topics": classifiers["topics"]}, limits=replace(LIMITS, characters=1_000)) as url:
        show(page, url)
        (tmp_path / "a.csv").write_text("text\n" + "game\n" * 20 + "x" * 1_001 + "\ngame\n", "utf-8")
        score_file(page, tmp_path / "a.csv")
        assert "row 22" in page.text("#file-message")
        assert "1,001 characters" in page.text("#file-message")
        assert "16 rows were scored" in page.text("#file-result")
        classify(page, "a game")
    page.problems.clear()  # the browser itself notes each refusal
    page.click("#classify")
    page.wait("document.querySelector('#text-message').textContent")
    assert "cannot be reached" in page.text("#text-message")
    page.problems.clear()


def test_a_model_that_was_replaced_is_noticed(page: Page, tmp_path: Path) -> None:
    answer = {"results": [{"label": "new", "scores": {"new": 1, "food": 0, "game": 0}}], "timing": {"seconds": 0}}
    page.run(f"window.fetch = async () => new Response({json.dumps(json.dumps(answer))})")
    page.click("#text")
    page.type("a text")
    page.click("#classify")
    page.wait("document.querySelector('#text-message').textContent")
    (tmp_path / "a.txt").write_text("a text")
    score_file(page, tmp_path / "a.txt")
    for place in ("#text-message", "#file-message"):
        assert "was replaced" in page.text(place)


def test_a_key_is_asked_for_and_stays_in_the_tab(tab: Page, classifiers: dict[str, Classifier], tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("0123456789abcdef\n")
    with running_server({"topics": classifiers["topics"]}, keys=ApiKeys(tmp_path / "keys.txt")) as url:
        page = tab
        page.open(url)
        page.wait("!document.querySelector('#key-section').hidden")
        assert page.run("document.activeElement.id") == "key"
        page.type("wrong")
        page.press("Enter", 13)
        page.wait("document.querySelector('#page-message').textContent")
        assert "not accepted" in page.text("#page-message")
        page.type("0123456789abcdef")
        page.press("Enter", 13)
        page.wait("!document.querySelector('#content').hidden")
        assert page.run("[document.cookie, localStorage.length, document.querySelector('#key').value]") == ["", 0, ""]
        classify(page)
        page.wait("document.querySelector('#code').textContent.includes('FULLBAKE_API_KEY')")
        assert "0123456789abcdef" not in page.run("document.documentElement.outerHTML")
    page.problems.clear()


def test_every_string_is_there_in_both_languages(page: Page, address: str) -> None:
    page.emulate(width=360, language="zh-CN")
    show(page, address)
    english, chinese = page.run("import('/page/strings.js').then(m => [m.STRINGS.en, m.STRINGS.zh])")
    assert list(english) == list(chinese)
    holes = {
        key: (set(re.findall(r"\{\w+\}", english[key])), set(re.findall(r"\{\w+\}", chinese[key]))) for key in english
    }
    assert {key: pair for key, pair in holes.items() if pair[0] != pair[1]} == {}
    sources = "".join(path.read_text("utf-8") for path in PAGE_FOLDER.iterdir() if path.suffix in {".js", ".html"})
    used = set(
        re.findall(r"""(?:words\(|data-text=|, |\[|\? |: )"((?:\w+\.)+\w+|skip|model|footer|loading)\"""", sources)
    )
    assert {key for key in used if key.split(".")[0] in {k.split(".")[0] for k in english}} <= set(english)
    assert page.run("document.documentElement.lang") == "zh-Hans"
    classify(page, button="#explain")
    page.wait("document.querySelector('#words-result').children.length")
    assert page.run("document.documentElement.scrollWidth") == 360
    assert page.run("[...document.querySelectorAll('[data-text]')].filter(e => !e.textContent).length") == 0
    page.click("#language")
    assert page.text("#classify") == "Classify"
    assert page.run("[...document.querySelectorAll('#text-result .eyebrow')].map(e => e.textContent)") == ["Answer"]
    assert page.run("document.documentElement.scrollWidth") == 360


def test_everything_has_a_name_for_a_screen_reader(page: Page, tmp_path: Path) -> None:
    classify(page, button="#explain")
    page.wait("document.querySelector('#words-result').children.length")
    (tmp_path / "a.csv").write_text("text\ngame\n")
    page.drop("#drop", tmp_path / "a.csv")
    page.wait("!document.querySelector('#file-form').hidden")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    wanted = {"button", "textbox", "combobox", "checkbox", "radio", "progressbar", "link", "region", "table", "heading"}
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in wanted and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    duplicates = page.run(
        "(ids => ids.filter((id, n) => ids.indexOf(id) !== n))([...document.querySelectorAll('[id]')].map(e => e.id))"
    )
    assert duplicates == []


def test_code_of_the_page_runs(page: Page, classifiers: dict[str, Classifier]) -> None:
    text = 'it\'s a "game" \\n $HOME `ls` \n 😀 ' + HOSTILE[1]
    classify(page, text)
    page.wait("document.querySelector('#code').textContent.includes('HOME')")
    expected = classifiers["topics"].predict([text])[0]
    page.click("[for=code-Python]")
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(page.run("document.querySelector('#code code').textContent"), {})
    assert f"'label': '{expected}'" in printed.getvalue()
    page.click("[for=code-JavaScript]")
    lines = page.run("document.querySelector('#code code').textContent")
    assert (
        page.run(f"(async console => {{ {lines} ; return console.kept; }})({{log(value) {{ this.kept = value; }}}})")[
            0
        ]["label"]
        == expected
    )
    page.click("[for=code-curl]")
    page.click("#code-copy")
    page.wait("document.querySelector('#code [role=status]').textContent")


def test_csv_is_read_as_python_reads_it(page: Page) -> None:
    generator = random.Random(1)
    alphabet = ["a", "é", "😀", '"', ",", ";", "\t", "|", " ", "\n", "\r\n", "'", ""]
    cases = []
    for _ in range(60):
        width, delimiter = generator.randint(2, 4), generator.choice(",;\t|")
        table = [
            ["".join(generator.choices(alphabet, k=generator.randint(0, 5))) for _ in range(width)]
            for _ in range(generator.randint(1, 6))
        ]
        text = io.StringIO()
        end = generator.choice(["\n", "\r\n", "\r"])
        quoting = csv.QUOTE_ALL if end == "\r" else csv.QUOTE_MINIMAL  # Python quotes no \n where lines end with \r
        csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(table)
        pieces, rest = [], text.getvalue()
        while rest:
            size = generator.randint(1, 9)
            pieces, rest = [*pieces, rest[:size]], rest[size:]
        cases.append((delimiter, pieces, table))
    script = """import('/page/tables.js').then(({CsvParser, writeCsvRow}) => CASES.map(([delimiter, pieces]) => {
        const parser = new CsvParser(delimiter);
        const rows = [...pieces.flatMap(piece => parser.push(piece)), ...parser.finish()];
        return [rows, rows.map(row => writeCsvRow(row, delimiter)).join("")];
    }))"""
    found = page.run(script.replace("CASES", json.dumps([case[:2] for case in cases])))
    for (delimiter, _, table), (rows, written) in zip(cases, found, strict=True):
        assert rows == table
        assert list(csv.reader(io.StringIO(written, newline=""), delimiter=delimiter)) == table


def test_delimiters_and_formats_are_guessed(page: Page) -> None:
    samples = {
        "a;b\n1,5;2\n3,1;4\n": ";",
        "a,b\n1;2,3\n": ",",
        "a\tb\n1, 2\t3\n": "\t",
        "text\nhello\nworld\n": ",",
        'a|b\n"x|y"|2\n': "|",
    }
    found = page.run(f"import('/page/tables.js').then(m => {json.dumps(list(samples))}.map(m.guessDelimiter))")
    assert found == list(samples.values())
    formats = [
        ("a.csv", "x"),
        ("a.txt", "x"),
        ("a.dat", '{"a": 1}\n'),
        ("a.json", '{"a": 1}\n{"a": 2}'),
        ("a.ndjson", "{"),
    ]
    found = page.run(f"import('/page/tables.js').then(m => {json.dumps(formats)}.map(one => m.guessFormat(...one)))")
    assert found == ["csv", "lines", "jsonl", "jsonl", "jsonl"]


def test_a_browser_that_has_a_file_gets_it_once(page: Page) -> None:
    script = """(async () => {
        const first = await fetch("/page/page.css", {cache: "no-store"}), tag = first.headers.get("etag");
        const again = await fetch("/page/page.css", {cache: "no-store", headers: {"if-none-match": tag}});
        return [first.status, again.status, (await again.text()).length];
    })()"""
    assert page.run(script) == [200, 304, 0]
