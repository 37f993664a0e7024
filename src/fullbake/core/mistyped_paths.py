"""Tell a mistyped path from a hub id or a text, and name what is there with nearly this name.

A word may mean a file or something else: a base is a folder or a hub id, `predict` takes a file or texts. A file that
does not exist must not become a request to the hub, which takes a minute where there is no connection, and must not be
classified as a text.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from fullbake.core.errors import similar_names

MOST_NAMES = 200
"""Of a folder so many names are compared, at most."""


def is_path_by_form(word: str) -> bool:
    """Return True if a word can be nothing but a path: it begins with . / or ~, ends with /, or has several parts."""
    begins = word.startswith(("./", "../", "/", "~", ".\\", "..\\")) or word[1:3] == ":\\"
    return begins or word.endswith(("/", "\\")) or word.count("/") > 1


def looks_like_file(word: str, endings: Iterable[str]) -> bool:
    """Return True if a word without such a file looks like the name of one: an ending nearly right, or a separator.

    Args:
        word: What the user wrote where a file or a text is expected.
        endings: Endings of files, such as `.csv`.
    """
    if any(map(str.isspace, word)) or "://" in word:
        return False
    ending = Path(word.lower().removesuffix(".gz").removesuffix(".zst")).suffix[1:]
    known = [other.removeprefix(".") for other in endings]
    if len(ending) >= 3 and ending.isalnum() and (ending in known or similar_names(ending, known)):
        return True
    # Languages without spaces between words have sentences with a slash.
    return is_path_by_form(word) or (word.isascii() and "/" in word.strip("/"))


def similar_paths(path: str | Path, accept: Callable[[Path], bool]) -> list[str]:
    """Return the paths beside a missing one whose names are spelled like its name, the most similar first.

    Args:
        path: The path that does not exist.
        accept: Says whether a path is of the right kind.
    """
    wanted = Path(path)
    try:
        names = sorted(other.name for other in wanted.parent.iterdir() if not other.name.startswith("."))
    except OSError:
        return []
    near = similar_names(wanted.name, names[:MOST_NAMES])
    return [str(wanted.parent / name) for name in near if accept(wanted.parent / name)]


def mistyped_path_remedy(word: str, accept: Callable[[Path], bool]) -> str | None:
    """Return what to say of a word that must be a mistyped path; None where it exists, or may be a hub id.

    Args:
        word: What the user wrote where a path or a hub id is expected.
        accept: Says whether a path is of the right kind.
    """
    if os.path.exists(word):
        return None
    near = similar_paths(word, accept)
    # `bert-base-uncased` may be a hub id beside a folder `bert-base-cased`; `out/basse` beside `out/base` is a path.
    if not is_path_by_form(word) and not (near and "/" in word):
        return None
    if near:
        return f"Did you mean {near[0]!r}?"
    return "Check the path." if Path(word).parent.is_dir() else no_folder_remedy(Path(word))


def find_address(path: str | Path) -> str | None:
    """Return the address of a path that was meant as one, such as s3://bucket/folder; None for other paths."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", str(path))  # a Path keeps one of the two slashes
    return None if found is None else f"{found[1]}://{found[2]}"


def no_folder_remedy(path: Path) -> str:
    """Return what to say of a path whose folder does not exist either."""
    if find_address(path) is not None:
        return "Addresses are read by fullbake predict alone. For other commands copy the files to this machine."
    return f"There is no folder {str(path.parent)!r} either."
