"""The command `explain`: which words the answer of a classifier to one text rests on."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from fullbake.cli.options import EngineFlag, PrecisionFlag, Threads, apply_engine_threads, find_bundle
from fullbake.cli.terminal import print_json, print_line, print_table
from fullbake.core.console import format_difference, format_score, say
from fullbake.core.errors import DataError
from fullbake.core.screen import PlainTable, Words

if TYPE_CHECKING:
    from fullbake.classifier.explanation import Explanation

_TABLE_WORDS = 10
"""Words in the table of a label."""

_STYLES = {
    1: ("", "black on #9ecbf0", "bold white on #0b5a9c"),
    -1: ("", "black on #f7c59f", "bold white on #a8480a"),
}
"""Styles of words that speak for the label (1) or against it (-1), from weak to strong."""


def add_explain_command(app: App) -> None:
    """Add the command to the app."""
    app.command(explain_command, name="explain")


def explain_command(
    bundle: Path,
    texts: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=False)] = (),
    /,
    *,
    label: tuple[str, ...] = (),
    max_parts: int = 500,
    json: bool = False,
    html: Path | None = None,
    overwrite: bool = False,
    engine: EngineFlag = "auto",
    precision: PrecisionFlag = "fp32",
    threads: Threads = "auto",
) -> None:
    """Show which words the answer to a text rests on: each is left out once, and the change of the score is shown.

    On a terminal, words that speak for the label are blue and words against it orange. An effect is the score with the
    word minus the score without it.

    Args:
        bundle: Folder that `fullbake train` wrote, or the id of a bundle on the hub, such as org/name.
        texts: The text; for a classifier of pairs, both texts. Default: stdin, all of it as one text.
        label: Label to explain; may be given several times. Default: the labels that the classifier gives.
        max_parts: How many words are left out at most. In a longer text, groups of neighboring words are left out
            first, then the single words of the groups that matter most.
        json: Print all words with their effects as JSON.
        html: Write a page to this file. It holds the text.
        overwrite: Replace the file of --html, if fullbake wrote it.
    """
    if html is not None:
        from fullbake.core.pages import check_page_target

        check_page_target(html, overwrite=overwrite)
    given = list(texts) or [_read_stdin()]
    bundle = find_bundle(bundle)
    apply_engine_threads(threads, bundle, engine, precision, few_texts=True)
    from fullbake.classifier.model import Classifier

    classifier = Classifier.load(bundle, engine=engine, precision=precision)
    _check_number(given, pairs=classifier.columns.text_pair is not None)
    found = classifier.explain(*given, labels=label or None, max_parts=max_parts)
    if html is not None:
        from fullbake.core.pages import write_page

        say(f"page: {write_page(html, found.to_html())} (it holds the text)")
    if json:
        print_json(found.to_json())
    else:
        _print(found)


def _read_stdin() -> str:
    """Return all of stdin as one text, without the line end at its end."""
    if sys.stdin is None:
        raise DataError("it is closed", where="stdin", remedy="Give the text as an argument.")
    if sys.stdin.isatty():
        say("reading one text; press Ctrl-D to end")
    content = sys.stdin.buffer.read()
    try:
        text = content.decode("utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError("the text is not UTF-8", where="stdin", got=str(error), remedy="Save it as UTF-8.") from error
    if not text.strip():
        raise DataError("there is no text", where="stdin", remedy="Give the text as an argument, or on stdin.")
    return text


def _check_number(texts: list[str], *, pairs: bool) -> None:
    if len(texts) == 1 + pairs:
        return
    raise DataError(
        "this classifier needs a pair of texts" if pairs else "one text is explained at a time",
        expected="two texts" if pairs else "one text",
        got=f"{len(texts)} text{'' if len(texts) == 1 else 's'}",
        remedy="Give both texts of one pair." if pairs else "Put the text in quotation marks.",
    )


def _print(found: "Explanation") -> None:
    """Print the texts, colored on a terminal, and a table of words for each label."""
    if not found.predicted:
        print_line("the classifier gives no label; the likeliest one is explained")
    for label in found.labels:
        given = "" if label in found.predicted else " (not given)"
        print_line((label, "bold"), f" {format_score(found.score(label))}{given}")
        for place in range(len(found.texts)):
            print_line(*_colored(found, label, place))
        table = PlainTable()
        table.add_column("word", overflow="fold")
        table.add_column("effect", justify="right", no_wrap=True)
        for word in found.top_words(label, _TABLE_WORDS):
            line = " ".join(word["word"].split())
            shown = line if len(line) <= 60 else f"{line[:40]} … {line[-15:]}"
            table.add_row(shown, format_difference(word["effect"]))
        print_table(table)
    for note in found.notes:
        print_line(note)


def _colored(found: "Explanation", label: str, place: int) -> list[Words]:
    """Return one text as pieces with styles."""
    effects = found.effects(label)
    largest = max((abs(word["effect"]) for word in effects), default=0) or 1.0
    text, pieces, done = found.texts[place], list[Words](), 0
    for word in effects:
        if word["text"] != place:
            continue
        share = word["effect"] / largest
        strength = 2 if abs(share) >= 0.5 else 1 if abs(share) >= 0.15 else 0
        style = _STYLES[1 if share > 0 else -1][strength]
        pieces += [text[done : word["start"]], (text[word["start"] : word["end"]], style)]
        done = word["end"]
    return [*pieces, text[done:]]
