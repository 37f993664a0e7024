"""Which libraries are installed, whether they fit, what the extras bring, and which conflicts are known.

All of it is read from the metadata of installed packages, so that no library is imported and a broken one is found too.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

EXTRA_PURPOSES: Final = {
    "train": "training, comparing, and scoring bundles that have no graph",
    "demo": "the packaged base that --base demo names",
    "suspects": "fullbake inspect --suspects, which lists doubtful labels",
    "export": "fullbake export, which writes the graph that onnxruntime reads",
    "serve": "fullbake serve, which answers over HTTP",
    "ray": "--on ray, which compares and scores on a Ray cluster",
    "spark": "scoring in Spark (fullbake.integrations.spark); needs Java",
}
"""Extra -> what it brings. Those for work on fullbake itself (test, bench) are not listed."""

WITHOUT_TRAINING: Final = frozenset(("serve", "ray", "spark"))
"""Extras that do not bring the extra `train` with them."""

TESTED_VERSIONS: Final = {"torch": "2.13.0", "transformers": "5.23.0"}
"""Versions that this version of fullbake was tested with, as constraints.txt pins them."""

NEIGHBORS: Final = ("torchvision", "torchaudio", "accelerate", "sentence-transformers", "peft", "datasets")
"""Libraries that need a certain torch or transformers, and break both if they do not get it."""

_RIVALS: Final = (("onnxruntime", "onnxruntime-gpu"), ("onnxruntime", "onnxruntime-directml"))
"""Packages that write the same files, so that one of them is broken if both are installed."""

Requirements = Callable[[str], list[str] | None]
"""Name of a package -> its requirements as metadata has them; raises PackageNotFoundError."""

Versions = Callable[[str], str]
"""Name of a package -> its version; raises PackageNotFoundError."""


@dataclass(frozen=True)
class Library:
    """A package that fullbake or one of its extras needs."""

    name: str
    wanted: str
    """The versions that fit, such as `>=5`."""
    extra: str | None
    """The first extra that brings it, None if fullbake itself does."""
    version: str | None
    """The installed version, None if it is missing."""

    @property
    def fits(self) -> bool:
        """True if a version that fits is installed."""
        return self.version is not None and version_fits(self.wanted, self.version)


@dataclass(frozen=True)
class InstallationProblem:
    """Something that is wrong, or that the user should know."""

    severity: Literal["error", "warning", "note"]
    """`error`: commands fail. `warning`: some may fail, or are slow. `note`: nothing is wrong."""
    what: str
    remedy: str


def installed_libraries(
    requires: Requirements = metadata.requires, version: Versions = metadata.version
) -> list[Library]:
    """Return the libraries of fullbake and of its extras, or [] where fullbake is not installed as a package."""
    found: dict[str, Library] = {}
    for extra in (None, *EXTRA_PURPOSES):
        for wanted in _requirements("fullbake", extra, requires):
            name = canonicalize_name(wanted.name)
            if name != "fullbake" and name not in found:
                found[name] = Library(name, str(wanted.specifier), extra, installed_version(name, version))
    return list(found.values())


def missing_of_extras(libraries: Iterable[Library]) -> dict[str, list[str]]:
    """Return extra -> names of its libraries that are missing or do not fit."""
    found: dict[str, list[str]] = {extra: [] for extra in EXTRA_PURPOSES}
    for library in libraries:
        if library.extra is not None and not library.fits:
            found[library.extra].append(library.name)
    alone = {"train", *WITHOUT_TRAINING}
    return {extra: names if extra in alone else [*found["train"], *names] for extra, names in found.items()}


def find_conflicts(
    libraries: list[Library], requires: Requirements = metadata.requires, version: Versions = metadata.version
) -> list[InstallationProblem]:
    """Return what is wrong with the installed libraries.

    Args:
        libraries: What `installed_libraries` returned.
        requires: Reads requirements.
        version: Reads versions.
    """
    problems = list(_unfit(libraries))
    named = [library.name for library in libraries if library.version is not None]
    for name in dict.fromkeys([*named, *NEIGHBORS]):
        problems += _unmet(name, requires, version, known={problem.what.split()[0] for problem in problems})
    for rivals in _RIVALS:
        if all(installed_version(name, version) is not None for name in rivals):
            problems.append(
                InstallationProblem(
                    "warning",
                    f"{' and '.join(rivals)} are both installed and overwrite each other's files",
                    f"Run: pip uninstall {' '.join(rivals)}; then install one of them.",
                )
            )
    for name, tested in TESTED_VERSIONS.items():
        installed = installed_version(name, version)
        if installed is not None and _is_newer(installed, tested):
            problems.append(
                InstallationProblem(
                    "note",
                    f"{name} {installed} is newer than {tested}, which this version of fullbake was tested with",
                    f"If something fails, run: pip install '{name}=={tested}'.",
                )
            )
    return problems


def version_fits(wanted: str, version: str) -> bool:
    """Return True if a version is within what a requirement asks for; local parts such as +cpu do not matter."""
    try:
        return Requirement(f"name{wanted}").specifier.contains(Version(version).public, prereleases=True)
    except (InvalidRequirement, InvalidVersion):
        return True  # a version of a private build: nobody can say


def _unfit(libraries: list[Library]) -> Iterator[InstallationProblem]:
    """Yield what is missing or too old, of fullbake's own requirements and of extras that are installed in part."""
    if not libraries:
        yield InstallationProblem(
            "warning",
            "fullbake is imported from a folder and not installed as a package, so its requirements are not known",
            "Run: pip install -e . in its folder.",
        )
    for library in libraries:
        target = "fullbake" if library.extra is None else f"fullbake[{library.extra}]"
        remedy = f"Run: pip install --upgrade '{target}'."
        if library.version is not None and not library.fits:
            what = f"{library.name} {library.version} is installed, but {target} needs {library.name}{library.wanted}"
            yield InstallationProblem("error", what, remedy)
        elif library.version is None and library.extra is None:
            yield InstallationProblem("error", f"{library.name} is missing, which fullbake needs", remedy)
    for extra in EXTRA_PURPOSES:
        own = [library for library in libraries if library.extra == extra]
        absent = [library.name for library in own if library.version is None]
        if absent and len(absent) < len(own) and (extra != "train" or "torch" not in absent):
            what = f"{', '.join(absent)}: missing, while the rest of fullbake[{extra}] is installed"
            yield InstallationProblem("warning", what, f"Run: pip install 'fullbake[{extra}]'.")


def _unmet(name: str, requires: Requirements, version: Versions, known: set[str]) -> Iterator[InstallationProblem]:
    """Yield the requirements of an installed package that are not met."""
    if installed_version(name, version) is None:
        return
    for wanted in _requirements(name, None, requires):
        other = canonicalize_name(wanted.name)
        installed = installed_version(other, version)
        if other in known or (installed is not None and version_fits(str(wanted.specifier), installed)):
            continue
        got = "it is missing" if installed is None else f"{installed} is installed"
        yield InstallationProblem(
            "warning",
            f"{name} {installed_version(name, version)} needs {other}{wanted.specifier}, but {got}",
            f"Run: pip install --upgrade {name}; or uninstall {name} if nothing else needs it.",
        )


def _requirements(name: str, extra: str | None, requires: Requirements) -> Iterator[Requirement]:
    """Yield the requirements of a package, or those that one of its extras adds."""
    with suppress(metadata.PackageNotFoundError):
        for text in requires(name) or ():
            with suppress(InvalidRequirement):
                wanted = Requirement(text)
                plain = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
                if plain if extra is None else not plain and _applies(wanted, extra):
                    yield wanted


def _applies(wanted: Requirement, extra: str) -> bool:
    marker: Any = wanted.marker
    return bool(marker.evaluate({"extra": extra}))


def installed_version(name: str, version: Versions = metadata.version) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_newer(installed: str, tested: str) -> bool:
    try:
        return Version(Version(installed).public) > Version(tested)
    except InvalidVersion:
        return False
