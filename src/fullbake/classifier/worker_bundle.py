"""A bundle in a worker process of another program, such as Spark or Ray: loaded once, and checked to be the one sent.

A worker is handed plain values: the folder, the sha256 that the bundle must have, and how to compute. It keeps the
classifier for the next rows, because loading takes longer than scoring some thousand of them.
"""

import platform
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fullbake.classifier.bundle_outline import bundle_digest
from fullbake.classifier.engines import engines_of
from fullbake.classifier.model import Classifier
from fullbake.config.fields import Engine, ScoringPrecision
from fullbake.core import runtime
from fullbake.core.errors import BundleError, Error
from fullbake.core.extras import name_missing_extra

SCORING_LIBRARIES: Final = ("fullbake", "tokenizers", "onnxruntime", "torch", "transformers")
"""Libraries that decide the scores."""

_MOST_LOADED: Final = 2
"""So many classifiers a worker keeps."""


@dataclass(frozen=True)
class WorkerBundle:
    """Which bundle a worker loads, and how it computes."""

    digest: str
    """The sha256 that `bundle_outline.bundle_digest` must return there."""

    engine: Engine = "auto"
    precision: ScoringPrecision = "fp32"
    threads: int = 1


_loaded: dict[WorkerBundle, Classifier] = {}
_lock = threading.Lock()


def load_worker_bundle(bundle: WorkerBundle, folder: Path) -> Classifier:
    """Load a bundle, or return the classifier that this process has loaded already.

    Args:
        bundle: What is loaded.
        folder: Where it is on this machine.

    Raises:
        BundleError: There is no bundle, it is another one, or it is damaged.
        MissingExtraError: This machine lacks the engine's libraries.
    """
    with _lock:
        if bundle not in _loaded:
            _check_digest(bundle, folder)
            _use_threads(bundle, folder)
            while len(_loaded) >= _MOST_LOADED:
                del _loaded[next(iter(_loaded))]
            _loaded[bundle] = Classifier.load(folder, engine=bundle.engine, precision=bundle.precision)
        return _loaded[bundle]


def _check_digest(bundle: WorkerBundle, folder: Path) -> None:
    where = f"{folder} on {platform.node()}"
    if not folder.is_dir():
        raise BundleError(
            "a worker cannot see the bundle",
            where=where,
            expected="the folder of the bundle",
            got="nothing",
            remedy="Put it on a folder that every machine sees under the same path, or let it be sent to the workers.",
        )
    found = bundle_digest(folder)
    if found != bundle.digest:
        raise BundleError(
            "a worker sees another bundle than the driver",
            where=where,
            expected=f"the bundle with sha256 {bundle.digest[:12]}",
            got=f"one with sha256 {found[:12]}",
            remedy="Copy the same bundle to every machine, or let it be sent to the workers.",
        )


def _use_threads(bundle: WorkerBundle, folder: Path) -> None:
    """Let the engines that will compute use the number of threads."""
    runtime.set_session_threads(bundle.threads)
    if bundle.precision == "fp32" and "torch" in engines_of(folder, bundle.engine):
        with name_missing_extra():
            runtime.set_threads(bundle.threads)


def scoring_versions() -> dict[str, str]:
    """Return the installed versions of what decides the scores, by name."""
    return runtime.installed_of(SCORING_LIBRARIES)


def check_scoring_versions(driver: Mapping[str, str]) -> None:
    """Raise Error if this machine has another version of a library than the driver.

    A library that only one of them has is no fault: a bundle with a graph needs no torch.

    Args:
        driver: What `scoring_versions` returned there.
    """
    here = scoring_versions()
    differing = [name for name in driver if name in here and here[name] != driver[name]]
    if differing:
        raise Error(
            "a worker has other versions than the driver",
            where=platform.node(),
            expected=", ".join(f"{name} {driver[name]}" for name in differing),
            got=", ".join(f"{name} {here[name]}" for name in differing),
            remedy="Install the same versions on every machine: pip install "
            + " ".join(f"'{name}=={driver[name]}'" for name in differing)
            + ".",
        )
