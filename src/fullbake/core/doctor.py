"""Everything that decides whether and how fast fullbake works here, as one report: `fullbake doctor`.

It needs none of the heavy libraries, changes nothing, and ends within seconds whatever is broken.
"""

import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from fullbake.core import installation, machine, processors, runtime, storage
from fullbake.core.console import format_size
from fullbake.core.errors import BundleError
from fullbake.core.installation import InstallationProblem

REPORT_FORMAT: Final = 1
"""The version of the JSON form. Keys are only added."""

_LITTLE_DISK: Final = 2 * 1000**3
_LITTLE_MEMORY: Final = 1 * 1000**3


def examine_installation(bundle: str | Path | None = None, cache_dir: str | Path | None = None) -> dict[str, Any]:
    """Return the report, JSON values. `problems` lists what is wrong, errors first.

    Args:
        bundle: A bundle that should work here; None for none.
        cache_dir: Folder of fullbake's caches; None for the default.

    Raises:
        BundleError: There is no bundle.
    """
    libraries = installation.installed_libraries()
    found = processors.measure()
    torch = machine.accelerators()
    instructions = machine.vector_instructions()
    report: dict[str, Any] = {
        "format": REPORT_FORMAT,
        "fullbake": {"version": installation.installed_version("fullbake"), "path": str(Path(__file__).parents[1])},
        "python": {"version": platform.python_version(), "path": sys.executable},
        "system": platform.platform(),
        "libraries": [asdict(library) | {"fits": library.fits} for library in libraries],
        "extras": {
            extra: {"purpose": installation.EXTRA_PURPOSES[extra], "missing": missing}
            for extra, missing in installation.missing_of_extras(libraries).items()
        },
        "processor": {
            "name": runtime.processor_name(),
            "processors": runtime.count_processors(),
            "usable": found.usable,
            "busy": round(found.busy, 2),
            "vector_instructions": None if instructions is None else list(instructions),
            "int8": None if instructions is None else any(one in processors.INT8_FLAGS for one in instructions),
        },
        "threads": {"auto": found.free, "given": runtime.threads_are_given(), "torch": torch.get("threads")},
        "memory": machine.memory(),
        "caches": [machine.to_json(folder) for folder in machine.cache_folders(cache_dir)],
        "torch": torch,
        "hub": machine.to_json(machine.ask_hub()),
        "settings": runtime.settings(),
        "bundle": None if bundle is None else _bundle_facts(Path(bundle)),
    }
    problems = [*installation.find_conflicts(libraries), *_machine_problems(report), *_bundle_problems(report)]
    order = ("error", "warning", "note")
    report["problems"] = [asdict(one) for one in sorted(problems, key=lambda one: order.index(one.severity))]
    return report


def _bundle_facts(folder: Path) -> dict[str, Any]:
    """Return what a bundle needs: its graph, its precision of 8 bits, the versions that wrote it."""
    if (folder / "cascade.json").is_file():
        parts = [_bundle_facts(folder / name) for name in ("student", "teacher")]
        shared = {name: all(part[name] for part in parts) for name in ("graph", "int8")}
        return {"path": str(folder)} | shared | {"versions": parts[1]["versions"]}
    try:
        manifest = storage.read_manifest_file(folder)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{storage.MANIFEST_FILE} is damaged", where=str(folder), remedy="Copy the bundle again."
        ) from error
    if manifest is None or "label_names" not in manifest:
        raise BundleError(
            "there is no bundle",
            where=str(folder),
            expected="a folder that `fullbake train --out` wrote",
            remedy="Check the path, or leave it out.",
        )
    files = manifest.get("files", {})
    return {
        "path": str(folder),
        "graph": "model.onnx" in files,
        "int8": "int8/model.onnx" in files,
        "versions": manifest.get("versions", {}),
    }


def _machine_problems(report: dict[str, Any]) -> list[InstallationProblem]:
    found = [_torch_problem(report["torch"])]
    usable = report["processor"]["usable"]
    given = report["settings"].get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given) > usable:
        what = f"OMP_NUM_THREADS is {given}, but {usable} processors may be used"
        found.append(_warning(what, "Unset it, or set it to the number of processors at most."))
    for folder in report["caches"]:
        if not folder["writable"]:
            what = f"{folder['path']} cannot be written to, so that nothing is kept there between runs"
            found.append(_warning(what, "Name another folder by FULLBAKE_CACHE_DIR or HF_HOME."))
        if folder["free"] is not None and folder["free"] < _LITTLE_DISK:
            what = f"the disk of {folder['path']} has only {format_size(folder['free'])} free"
            found.append(_warning(what, "fullbake cache --clear frees what can be computed again."))
    available = report["memory"]["available"]
    if available is not None and available < _LITTLE_MEMORY:
        what = f"only {format_size(available)} of main memory are available"
        found.append(_warning(what, "End other programs; --token-budget 1024 needs less memory."))
    return [problem for problem in found if problem is not None]


def _torch_problem(torch: dict[str, Any]) -> InstallationProblem | None:
    if torch.get("error"):
        what = f"torch does not work: {torch['error']}"
        return InstallationProblem("error", what, "Run: pip install --force-reinstall torch.")
    if not torch["installed"] or torch["device"] != "cpu" or not machine.has_nvidia_driver():
        return None
    what = (
        "there is an NVIDIA driver, but this torch computes on the CPU only"
        if torch["cuda"] is None
        else f"there is an NVIDIA driver, but torch for CUDA {torch['cuda']} finds no GPU"
    )
    return _warning(what, "Install a torch for the driver's CUDA version, or update the driver.")


def _warning(what: str, remedy: str) -> InstallationProblem:
    return InstallationProblem("warning", what, remedy)


def _bundle_problems(report: dict[str, Any]) -> list[InstallationProblem]:
    bundle = report["bundle"]
    if bundle is None:
        return []
    has = {library["name"]: library["version"] for library in report["libraries"]}
    works_by_torch = report["torch"]["installed"] and has.get("transformers") is not None
    if bundle["graph"] and has.get("onnxruntime") is None:
        what = f"{bundle['path']} has a graph, but onnxruntime, which runs it, is missing"
        remedy = "Run: pip install onnxruntime."
        return [_warning(what, remedy) if works_by_torch else InstallationProblem("error", what, remedy)]
    if not bundle["graph"] and not works_by_torch:
        what = f"{bundle['path']} has no graph, and torch and transformers are missing"
        remedy = "Run: pip install 'fullbake[train]'; or fullbake export where they are installed."
        return [InstallationProblem("error", what, remedy)]
    return []
