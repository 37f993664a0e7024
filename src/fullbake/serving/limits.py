"""How much a request may ask for, and how much may wait: of a server, and of each of its models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from fullbake.core.console import parse_duration
from fullbake.core.errors import RecipeError, did_you_mean

FLAGS: Final = {
    "body_bytes": "max-body",
    "texts": "max-texts",
    "characters": "max-characters",
    "queue_tokens": "max-queue",
    "timeout": "timeout",
    "explained_words": "max-explained-words",
    "explained_characters": "max-explained-characters",
}
"""Field of Limits -> flag of `fullbake serve`, without its dashes."""

_VALUES_A_TEXT: Final = 100
_LEAST_VALUES: Final = 100_000


@dataclass(frozen=True)
class Limits:
    """Bounds of a server or of a model. Each bounds the memory or the time that one client can take."""

    body_bytes: int = 16_000_000
    """Largest body of a request. It is read before the model is known, so all models have the same."""

    texts: int = 1_024
    """Most texts in a request."""

    characters: int = 10_000_000
    """Most characters in a text. Only the ends of a long text are read, so this bounds memory rather than time."""

    queue_tokens: int = 400_000
    """Most tokens that wait. A request that does not fit is refused with 429."""

    timeout: float = 30.0
    """Seconds in which a request must be answered, unless it asks for less."""

    explained_words: int = 100
    """Most words of a text that are left out, one after another, to show which of them mattered."""

    explained_characters: int = 50_000
    """Most characters of a text that is explained: all of it is divided into words."""

    def __post_init__(self) -> None:
        """Refuse a bound that would let nothing in."""
        least = {"explained_words": 4}
        for name, value in asdict(self).items():
            if not value >= least.get(name, 0) or value == 0:
                raise RecipeError(
                    "this limit lets nothing in",
                    where=f"--{FLAGS[name]}",
                    expected=f"at least {least.get(name, 1)}",
                    got=f"{value}",
                )

    @property
    def values(self) -> int:
        """Most values in a JSON body: rows of 100 columns for as many texts as a request may have.

        Each value is checked before it is known what the request asks for, and meanwhile all other requests wait.
        """
        return max(_LEAST_VALUES, _VALUES_A_TEXT * self.texts)

    def to_json(self) -> dict[str, Any]:
        """Return the bounds, for clients that divide their work into requests."""
        return asdict(self)


def read_limits(path: Path, default: Limits, models: Sequence[str]) -> dict[str, Limits]:
    """Read the limits of single models from a YAML file: `NAME: {max-texts: 8, timeout: 5s}`.

    Args:
        path: The file.
        default: What holds where the file says nothing.
        models: Names of the models that are served.

    Returns:
        The limits of each model that the file names.

    Raises:
        RecipeError: The file cannot be read, names a model that is not served, or has another key or value.
    """
    where = f"--limits {path}"
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise _wrong(where, "the file of limits cannot be read", got=" ".join(str(error).split())[:200]) from error
    if not isinstance(given, dict) or not all(isinstance(own, dict) for own in given.values()):
        raise _wrong(where, "this is no file of limits")
    for name in given:
        if name not in models:
            hint = did_you_mean(str(name), tuple(models))
            raise RecipeError("there is no such model", where=where, got=repr(name), remedy=hint or None)
    return {name: _with_values(default, own, f"{where}: {name}") for name, own in given.items()}


def _with_values(default: Limits, given: Mapping[Any, Any], where: str) -> Limits:
    """Return the limits of one model. given: what the file says of it."""
    fields = {flag: name for name, flag in FLAGS.items()}
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = fields.get(str(key).removeprefix("--").replace("_", "-"))
        if name == "body_bytes":
            remedy = "A body is read before its model is known: give --max-body on the command line."
            raise RecipeError("this limit is one for all models", where=where, got=str(key), remedy=remedy)
        if name is None:
            hint = did_you_mean(str(key), tuple(flag for flag in fields if flag != "max-body"))
            raise RecipeError("there is no such limit", where=where, got=repr(key), remedy=hint or None)
        if name == "timeout":
            found[name] = parse_duration(str(value), f"{where}: {key}")
        elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
            found[name] = value
        else:
            raise RecipeError(
                "this is no limit", where=f"{where}: {key}", expected="a whole number above 0", got=repr(value)
            )
    return replace(default, **found)


def _wrong(where: str, what: str, got: str | None = None) -> RecipeError:
    return RecipeError(what, where=where, expected="a YAML file such as `topics: {max-texts: 8, timeout: 5s}`", got=got)
