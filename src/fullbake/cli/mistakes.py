"""Answer a command line that cannot be understood: what is meant, what is missing, and the line to type instead.

The meaning of a word goes before its spelling: `--lr` is answered with `--learning-rate`, `fit` with `train`.
"""

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from fullbake.cli.examples import EXAMPLES
from fullbake.cli.first_training import Missing, missing_things
from fullbake.core.errors import Error, RecipeError, did_you_mean, similar_names
from fullbake.core.synonyms import COMMAND_SYNONYMS, FIELD_SYNONYMS, JOB_WORDS, VALUE_SYNONYMS, no_setting, right_name
from fullbake.data.files import names_a_data_file


def explain_mistake(app: App, error: CycloptsError, arguments: Sequence[str]) -> str:
    """Return the error of a command line that cyclopts refused.

    Args:
        app: The application.
        error: What cyclopts raised.
        arguments: The words of the command line.
    """
    if isinstance(error, UnknownCommandError):
        return _unknown_command(app, arguments)
    command = arguments[0] if arguments and arguments[0] in commands_of(app) else None
    if command is None:
        return f"{error}\n`fullbake help` lists the commands."
    if isinstance(error, UnknownOptionError) or _unknown_words(app, command, arguments):
        return _unknown_flags(app, command, arguments)
    if isinstance(error, MissingArgumentError):
        return _missing_values(app, command, error, arguments)
    if isinstance(error, UnusedCliTokensError):
        return _too_many(command, error)
    if isinstance(error, RepeatArgumentError):
        return _error(f"{error.token.keyword} is given more than once", "Give it once.", command)
    if isinstance(error, CoercionError) and error.argument is not None and error.argument.get_choices():
        return _wrong_choice(command, error)
    return f"{error}\n{_more(command)}"


def commands_of(app: App) -> list[str]:
    """Return the names of the commands, sorted."""
    return sorted(name for name in app if not name.startswith("-"))


def _more(command: str) -> str:
    return f"`fullbake {command} --help` lists what it takes."


def _error(what: str, remedy: str, command: str) -> str:
    return str(RecipeError(what, remedy=f"{remedy}\n{_more(command)}"))


def _line(words: Sequence[str]) -> str:
    """Return a command line that can be copied."""
    return shlex.join(["fullbake", *words])


def _unknown_command(app: App, arguments: Sequence[str]) -> str:
    word, rest, names = arguments[0], arguments[1:], commands_of(app)
    if word.startswith("-"):
        flag = f" {_meant_elsewhere(app, word)}" if word.strip("-") else ""
        what = f"a command comes before the flag {word}"
        return str(RecipeError(what, remedy=f"{flag}\n{_all_commands(names)}".strip()))
    meant = right_name(word, names, COMMAND_SYNONYMS) or next(iter(similar_names(word, names)), None)
    if meant is not None:
        remedy = f"It is called {meant}: {_line([meant, *rest])}"
    elif Path(word).exists() or names_a_data_file(Path(word)):
        remedy = f"A command comes first: {_line(['train', *arguments])}\nor inspect, compare, evaluate, predict."
    else:
        remedy = _all_commands(names)
    return str(RecipeError(f"there is no command {word!r}", remedy=remedy))


def _all_commands(names: Sequence[str]) -> str:
    return f"The commands are {', '.join(names)}. `fullbake help` says what each does."


def _unknown_flags(app: App, command: str, arguments: Sequence[str]) -> str:
    """Answer all unknown flags of a command line at once."""
    known = flags_of(app, command)
    faults, fixed, whole = [], [command], True
    skip = False
    for place, word in enumerate(arguments[1:], start=1):
        if skip:
            skip = False
            continue
        flag, equals, value = word.partition("=")
        if not _is_flag(word) or flag.replace("_", "-") in known:
            fixed.append(word)
            continue
        answer, new = _answer_flag(app, command, flag, known)
        faults.append(answer)
        if new is None:
            whole = False
        elif new == "":
            skip = not equals and _is_value(arguments[place + 1 : place + 2])
        elif new == _POSITIONAL:
            fixed += [value] if equals else []
        else:
            fixed.append(new + equals + value)
            follows = bool(equals) or (place + 1 < len(arguments) and not _is_flag(arguments[place + 1]))
            whole = whole and follows != known[new]  # a switch takes no value, any other flag needs one
    found = _also_missing(app, command, fixed) if whole else None
    more = [] if found is None else [*found.faults, *found.later]
    what = faults[0] if len(faults) == 1 else f"{len(faults)} flags are unknown"
    lines = [] if len(faults) == 1 else [f"- {fault}" for fault in faults]
    if more:
        lines += [f"Also missing{' or wrong' if found and found.later else ''}:", *(f"- {fault}" for fault in more)]
    if whole:
        lines.append(f"Try: {_line(fixed)}" if found is None else found.suggestion(fixed))
    stop = "" if what.endswith("?") else "."
    return "\n".join([f"{what}{stop}", *lines, _more(command)])


def _also_missing(app: App, command: str, words: Sequence[str]) -> Missing | None:
    """Return what a command line lacks after its flags were mended; None for commands that do not read labeled rows."""
    if command not in _ON_ROWS:
        return None
    required = {"--out", "--base"} & {flag for flag in flags_of(app, command) if flag not in words}
    for absent in ([], ["--out"], ["DATA"], ["DATA", "--out"]):
        if "--out" in absent and "--out" not in required:
            continue
        try:
            return _missing_on_rows(app, command, absent, words)
        except (CycloptsError, Error):
            continue
    return None


_POSITIONAL = "positional"
"""In place of a flag: its value is given without one."""


def _answer_flag(app: App, command: str, flag: str, known: dict[str, bool]) -> tuple[str, str | None]:
    """Return the answer to an unknown flag, and what to write in its place.

    Returns:
        The answer, and the right flag; "" if the flag is left out, `_POSITIONAL` if its value is given without a flag,
        None if that is not known.
    """
    what = f"{command} has no flag {flag}"
    if flag.startswith("--no-") and known.get(f"--{flag[5:]}"):
        return f"{what}: --{flag[5:]} is off unless it is given", ""
    word = flag.strip("-").replace("-", "_").casefold()
    meaning = "jobs" if word in JOB_WORDS and "--jobs" in known else FIELD_SYNONYMS.get(word, word)
    meant = right_name(meaning, [name.strip("-") for name in known], {})
    if meant is not None:
        return f"{what}: here it is called --{meant}", f"--{meant}"
    if meaning == "data":
        return f"{what}: the rows are named without a flag", _POSITIONAL
    absent = no_setting(word)
    if absent is not None:
        return f"{what}. {absent}".removesuffix("."), ""
    elsewhere = _meant_elsewhere(app, flag)
    near = similar_names(flag, known) or similar_names(f"--{word}", known)
    if near and not elsewhere:
        return f"{what}: did you mean {near[0]}?", near[0]
    return f"{what}{f'. {elsewhere}' if elsewhere else ''}".removesuffix("."), None


def _meant_elsewhere(app: App, flag: str) -> str:
    """Return a sentence that says which commands have a flag; "" if none has."""
    word = flag.partition("=")[0].strip("-").replace("-", "_").casefold()
    name = f"--{FIELD_SYNONYMS.get(word, word).replace('_', '-')}"
    having = [command for command in commands_of(app) if name in flags_of(app, command)]
    if not having:
        return ""
    return f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} {name}."


def _unknown_words(app: App, command: str, arguments: Sequence[str]) -> bool:
    """Return True if a command line has a flag that the command does not have."""
    known = flags_of(app, command)
    flags = [word.partition("=")[0].replace("_", "-") for word in arguments if _is_flag(word)]
    return any(flag not in known for flag in flags)


def _is_value(following: Sequence[str]) -> bool:
    """Return True if the word after a flag that is left out belonged to it: no flag, and no file."""
    return len(following) == 1 and not _is_flag(following[0]) and not Path(following[0]).exists()


def _is_flag(word: str) -> bool:
    """Return True if a word is a flag, and no negative number."""
    return re.match(r"-{1,2}[A-Za-z]", word) is not None


def flags_of(app: App, command: str) -> dict[str, bool]:
    """Return the flags of a command, each with whether it is a switch, which takes no value."""
    found = {"--debug": True, "--quiet": True, "--help": True, "-h": True}
    for argument in _arguments_of(app, command):
        if argument.parse:
            switch = argument.token_count()[0] == 0
            # The app makes no `--no-...` of its own; the collection, which does not know the app, would.
            hidden = () if argument.parameter.negative else argument.negatives
            found.update((name, switch) for name in argument.names if name.startswith("-") and name not in hidden)
    return found


def _arguments_of(app: App, command: str) -> Iterator[Any]:
    yield from app[command].assemble_argument_collection(parse_docstring=True)


def _missing_values(app: App, command: str, error: MissingArgumentError, arguments: Sequence[str]) -> str:
    """Name all required arguments that are missing."""
    assert error.argument is not None
    if error.keyword is not None:  # a flag stands at the end, or before another one, without its value
        return _error(f"{error.keyword} needs a value", f"Write {error.keyword} VALUE.", command)
    absent = missing_arguments(app, command, error, arguments)
    if command in _ON_ROWS:
        return _first_training(app, command, absent, arguments)
    lines = [f"- {name}: {text}" for name, text in absent.items()]
    names = list(absent)
    shown = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    lines.append(f"Such as: {EXAMPLES[command][0]}" if command in EXAMPLES else "")
    return "\n".join([f"fullbake {command} needs {shown}.", *filter(None, lines), _more(command)])


_ON_ROWS = {"train": ("base", "out"), "compare": ("base",), "inspect": ()}
"""Commands on a labeled file -> what they need besides it."""


def _first_training(app: App, command: str, absent: dict[str, str], arguments: Sequence[str]) -> str:
    """Name all that a command on a labeled file lacks, also what is known only from its other words and the file."""
    found = _missing_on_rows(app, command, absent, arguments)
    return f"{found.message(arguments)}\n{_more(command)}"


def _missing_on_rows(app: App, command: str, absent: Collection[str], arguments: Sequence[str]) -> Missing:
    """Return what a command on a labeled file lacks. absent: its required arguments that are known to be missing."""
    filled = [command, *(["data"] if "DATA" in absent else []), *arguments[1:]]
    filled += ["--out", "out"] if "--out" in absent else []
    _, bound, _ = app.parse_args(filled, exit_on_error=False, print_error=False)
    words = bound.arguments
    flags = words["flags"].model_dump(exclude_none=True) if "flags" in words else {}
    return missing_things(
        command,
        None if "DATA" in absent else words["data"],
        flags,
        out=None if "--out" in absent else words.get("out_folder"),
        recipe=words.get("recipe"),
        needs=_ON_ROWS[command],
    )


def missing_arguments(app: App, command: str, error: MissingArgumentError, arguments: Sequence[str]) -> dict[str, str]:
    """Return the required arguments of a command that a command line lacks, each with its help.

    Args:
        app: The application.
        command: The command.
        error: The error of the first of them. Arguments without a flag come in order, so those after it lack too.
        arguments: The words of the command line.
    """
    assert error.argument is not None
    required = [argument for argument in _arguments_of(app, command) if argument.required and argument.parse]
    first = error.argument.name
    absent, reached = {}, False
    for argument in required:
        reached = reached or argument.name == first
        flags = [name for name in argument.names if name.startswith("--")]
        if flags and any(word.partition("=")[0] in flags for word in arguments):
            continue
        if reached or flags:
            name = flags[0] if flags else argument.name.strip("-").upper()
            absent[name] = " ".join(str(argument.parameter.help or "").split()).replace("`", "")
    return absent


def _too_many(command: str, error: UnusedCliTokensError) -> str:
    words = error.unused_tokens or []
    remedy = "Leave it out, or name it by a flag."
    if command in ("train", "compare") and any(names_a_data_file(Path(word)) for word in words):
        remedy = (
            f"Rows that validate or test are named by a flag: --test {words[0]}. Several files of training rows go "
        )
        remedy += "into a folder of their own, which is named instead."
    return _error(f"{command} has no use for {', '.join(map(repr, words))}", remedy, command)


def _wrong_choice(command: str, error: CoercionError) -> str:
    assert error.argument is not None
    got = error.token.value if error.token is not None else ""
    choices = [str(choice) for choice in error.argument.get_choices() or ()]
    what = f"{error.argument.name} cannot be {got!r}"
    return _error(what, did_you_mean(got, choices, VALUE_SYNONYMS), command)
