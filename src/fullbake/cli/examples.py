"""The examples at the end of each command's help, and what `fullbake --help` ends with."""

from typing import Final

from cyclopts import App

_NEXT_LINE: Final = "\\\n    "
"""Continues a command line on the next line. A narrow help would break a longer one, which could not be copied then."""

EXAMPLES: Final = {
    "bench": ("fullbake bench classifier",),
    "cache": ("fullbake cache",),
    "cascade": ("fullbake cascade student classifier --data unlabeled.csv --out cascade",),
    "check": ("fullbake check demo",),
    "compare": (
        "fullbake compare reviews.csv --text review --label stars --base demo",
        f"fullbake compare reviews.csv --text review --label stars {_NEXT_LINE}--base demo --jobs 2",
    ),
    "demo": ("fullbake demo --budget 2m",),
    "distill": ("fullbake distill classifier --data unlabeled.csv --out student",),
    "doctor": ("fullbake doctor",),
    "evaluate": ("fullbake evaluate classifier test.csv",),
    "explain": ('fullbake explain classifier "Great film!"',),
    "export": ("fullbake export classifier",),
    "inspect": ("fullbake inspect reviews.csv --text review --label stars",),
    "pilot": ("fullbake pilot corpus.txt --base demo --budget 3m",),
    "predict": (
        "fullbake predict classifier new.csv --out scored.csv",
        'fullbake predict classifier "Great film!"',
        f"fullbake predict classifier new.csv {_NEXT_LINE}--threshold spam=0.9 --labels-only --out labels.csv",
        "fullbake predict classifier 'mails/*.parquet' --out scored --jobs 2",
    ),
    "pretrain": ("fullbake pretrain corpus.txt --base bert-base-uncased --out my-base",),
    "probe": ("fullbake probe classifier",),
    "push": ("fullbake push classifier my-org/my-classifier",),
    "recipes": ("fullbake recipes frozen",),
    "serve": ("fullbake serve classifier",),
    "summary": ("fullbake summary demo --way frozen --head mlp",),
    "train": (
        f"fullbake train reviews.csv --text review --label stars {_NEXT_LINE}--base demo --test 0.2 --out classifier",
        f"fullbake train reviews.csv --text review --label stars {_NEXT_LINE}--base demo --way frozen --out quick",
    ),
}
"""Command -> command lines that can be typed as they are, with files of one's own."""

_FIRST_STEPS: Final = (
    "fullbake demo",
    "fullbake inspect reviews.csv --text review --label stars",
    EXAMPLES["train"][0],
    EXAMPLES["predict"][1],
)


def add_examples(app: App) -> None:
    """Let the help of each command end with its examples. app: the application with all commands."""
    app.help_epilogue = _as_block("First steps", _FIRST_STEPS)
    for name, lines in ((name, EXAMPLES[name]) for name in EXAMPLES if name in app):
        app[name].help_epilogue = _as_block("Example" if len(lines) == 1 else "Examples", lines)


def _as_block(title: str, lines: tuple[str, ...]) -> str:
    indented = "\n".join(f"    {line}" for text in lines for line in text.splitlines())
    return f"{title}:\n\n{indented}"
