"""Pages of HTML as files that are whole or absent, and never replace what fullbake did not write.

A page is one file without script that loads nothing and forbids scripts by its content security policy.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Final

from fullbake.core import storage
from fullbake.core.errors import OutputError
from fullbake.core.markup import Html, tag

CONTENT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)

_GENERATOR: Final = b'<meta name="generator" content="fullbake '

_STYLE: Final = """
:root{color-scheme:light dark}
body{margin:0 auto;padding:1.5rem;max-width:64rem;background:#faf7f2;color:#211a12;font:16px/1.5 system-ui,sans-serif}
footer{opacity:.75;font-size:.85rem;margin-top:1.5rem}
@media (prefers-color-scheme:dark){body{background:#16120d;color:#f0e8dd}}
"""


def simple_page(title: str, body: Html) -> str:
    """Return a page that needs no template.

    Args:
        title: For the window; never a text of the user's.
        body: What is shown. It may hold texts of rows.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">'),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="referrer", content="no-referrer"),
        tag("meta", name_="generator", content=f"fullbake {version('fullbake')}"),
        tag("title", title),
        Html(f"<style>{_STYLE}</style>"),
    )
    words = (
        f"Made by fullbake {version('fullbake')}. This page holds the text: share it only with those who may read it. "
    )
    foot = tag("footer", words, "It loads nothing and runs no script.")
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', tag('main', body), foot), lang='en')}\n"


def write_page(target: Path, page: str) -> Path:
    """Write a page, replacing an older one when the new one is complete. Returns its path."""
    with storage.staged_file(target, overwrite=True) as path:
        storage.write_bytes(path, page.encode())
    return target


def is_page(path: Path) -> bool:
    """Return True if the file is a page that fullbake wrote."""
    try:
        with path.open("rb") as file:
            return _GENERATOR in file.read(4000)
    except OSError:
        return False


def check_page_target(target: Path, *, overwrite: bool) -> None:
    """Refuse a target that may not be written, before hours of work.

    Args:
        target: The path of the page.
        overwrite: Whether a page that fullbake wrote may be replaced. Anything else is never replaced.

    Raises:
        OutputError: Something is there that must stay, or its folder cannot be written to.
    """
    storage.require_writable(target)
    if not target.exists():
        return
    if not is_page(target):
        raise OutputError(
            "the page of the classifier cannot be written: something else has its name",
            where=str(target),
            expected="no such file, or a page that fullbake wrote",
            got="a folder" if target.is_dir() else "another file",
            remedy="Move it, or choose another name.",
        )
    if not overwrite:
        raise OutputError(
            "there is a page of an earlier classifier",
            where=str(target),
            remedy="Pass --overwrite to replace it, or choose another name.",
        )
