"""Which trackers there are by name, and what to install for each. Their code is in `integrations`, above this folder.

The table holds the names of modules, which are imported when somebody asks for the tracker: so `adapt(track="mlflow")`
needs no import of a bridge, and a library that is not installed stops nobody who did not ask for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from fullbake.core.errors import MissingExtraError, RecipeError, did_you_mean
from fullbake.core.extras import is_installed
from fullbake.core.tracking import Tracker


@dataclass(frozen=True)
class TrackerSource:
    """Where the tracker of a name is."""

    module: str
    """The module that has it, within fullbake."""

    attribute: str
    """The class, which is called without arguments."""

    libraries: tuple[str, ...]
    """Modules of which one must be installed."""

    install: str
    """What to install."""


TRACKERS: Final[dict[str, TrackerSource]] = {
    "tensorboard": TrackerSource(
        "integrations.track_tensorboard", "TensorBoardTracker", ("tensorboardX", "tensorboard"), "tensorboardX"
    ),
    "mlflow": TrackerSource("integrations.track_mlflow", "MlflowTracker", ("mlflow",), "mlflow"),
    "wandb": TrackerSource("integrations.track_wandb", "WandbTracker", ("wandb",), "wandb"),
    "trackio": TrackerSource("integrations.track_trackio", "TrackioTracker", ("trackio",), "trackio"),
}

Track = str | Tracker | Sequence[str | Tracker] | None
"""What callers pass as `track`: the name of a tracker, a tracker, several of both, or None."""


def find_trackers(track: Track) -> list[Tracker]:
    """Return the trackers that a caller asks for, each once.

    Args:
        track: A name (several with commas between them), an object with the members of `tracking.Tracker`, or several.

    Raises:
        RecipeError: There is no tracker of this name, or an object is none.
        MissingExtraError: Its library is not installed.
    """
    given = [track] if isinstance(track, str) or not isinstance(track, Sequence) else list(track)
    found: dict[str, Tracker] = {}
    for one in given:
        if isinstance(one, str):
            for name in one.split(","):
                if name.strip():
                    found.setdefault(name.strip(), _tracker_named(name.strip()))
        elif one is not None:
            found[_checked(one).name] = one
    return list(found.values())


def _tracker_named(name: str) -> Tracker:
    source = TRACKERS.get(name.lower())
    if source is None:
        raise RecipeError(
            "there is no tracker of this name",
            where="--track (track)",
            expected=", ".join(TRACKERS),
            got=repr(name),
            remedy=did_you_mean(name, TRACKERS) or "In Python a tracker of your own may be passed as an object.",
        )
    if not any(is_installed(library) for library in source.libraries):
        raise MissingExtraError(
            f"--track {name} needs the library {source.install}, which is not installed",
            remedy=f"Run: pip install {source.install}. Or leave out --track {name}.",
            module=source.libraries[0],
        )
    made: Tracker = getattr(import_module(f"fullbake.{source.module}"), source.attribute)()
    return made


def _checked(tracker: Any) -> Tracker:
    """Return the object if it has the members of a tracker."""
    if isinstance(tracker, type) or not isinstance(tracker, Tracker):
        raise RecipeError(
            "this is no tracker",
            where="track",
            expected=f"one of {', '.join(TRACKERS)}, or an object with `name` and `open_run`",
            got=repr(tracker)[:100],
        )
    return tracker
