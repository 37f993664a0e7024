"""The command `doctor`: what is installed here, what the machine has, and what is wrong."""

from pathlib import Path
from typing import Any

from cyclopts import App
from rich.console import Group, RenderableType

from fullbake.cli.terminal import print_json, print_table
from fullbake.core.console import format_size
from fullbake.core.screen import Line, PlainTable

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def add_doctor_command(app: App) -> None:
    """Add the command to the app."""
    app.command(doctor_command, name="doctor")


def doctor_command(bundle: Path | None = None, /, *, json: bool = False, cache_dir: Path | None = None) -> None:
    """Show what is installed, what this machine has, and what is wrong. Send this with a question or a bug report.

    It changes nothing and works without torch. A hub that does not answer is no error. Ends with exit code 1 if
    something is wrong that makes commands fail.

    Args:
        bundle: Folder that `fullbake train` wrote, to see whether it can be used here.
        json: Print everything as JSON.
        cache_dir: Folder of the caches. Default: FULLBAKE_CACHE_DIR, or the user's cache folder.
    """
    from fullbake.core.doctor import examine_installation

    report = examine_installation(bundle, cache_dir)
    if json:
        print_json(report)
    else:
        print_table(report_table(report))
    if any(problem["severity"] == "error" for problem in report["problems"]):
        raise SystemExit(1)


def report_table(report: dict[str, Any]) -> RenderableType:
    """Return the report of `core.doctor.examine_installation` as tables and lines for a person."""
    facts = PlainTable()
    facts.add_column("what")
    facts.add_column("here", overflow="fold")
    for name, value in _facts(report):
        facts.add_row(name, value)
    problems = [
        Line((f"{problem['severity']}: ", _STYLES[problem["severity"]]), f"{problem['what']}. {problem['remedy']}")
        for problem in report["problems"]
    ]
    return Group(facts, *(problems or [Line("nothing is wrong")]))


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    processor, memory, torch = report["processor"], report["memory"], report["torch"]
    instructions = processor["vector_instructions"]
    limit = f", this container may use {format_size(memory['limit'])}" if memory["limit"] else ""
    rows = [
        ("fullbake", f"{report['fullbake']['version']} in {report['fullbake']['path']}"),
        ("Python", f"{report['python']['version']}, {report['python']['path']}"),
        ("system", report["system"]),
        ("processor", f"{processor['name']}, {_processors(processor)}"),
        ("vector instructions", "unknown" if instructions is None else ", ".join(instructions) or "none"),
        ("threads", _threads(report)),
        ("memory", f"{_size(memory['available'])} available of {_size(memory['total'])}{limit}"),
        ("accelerator", _accelerator(torch)),
        ("hub", _hub(report["hub"])),
    ]
    rows += [(f"cache: {folder['name']}", _folder(folder)) for folder in report["caches"]]
    rows += [(f"extra: {name}", _extra(extra)) for name, extra in report["extras"].items()]
    rows += [(library["name"], _library(library)) for library in report["libraries"]]
    rows += [(f"${name}", value) for name, value in report["settings"].items()]
    if report["bundle"] is not None:
        rows.append(("bundle", _bundle(report["bundle"])))
    return rows


def _processors(processor: dict[str, Any]) -> str:
    quota = "" if processor["usable"] == processor["processors"] else f", {processor['usable']} by the quota"
    return f"{processor['processors']} processors{quota}, {processor['busy']:.1f} of them busy"


def _threads(report: dict[str, Any]) -> str:
    if report["threads"]["given"]:
        return "as OMP_NUM_THREADS or MKL_NUM_THREADS says"
    return f"--threads auto takes at most {report['threads']['auto']} now"


def _accelerator(torch: dict[str, Any]) -> str:
    if not torch["installed"]:
        return "none: torch is not installed"
    if "device" not in torch:
        return f"unknown: {torch['error']}"
    built = "built for the CPU" if torch["cuda"] is None else f"built for CUDA {torch['cuda']}"
    gpus = ", ".join(f"{gpu['name']} ({format_size(gpu['memory'])})" for gpu in torch["gpus"])
    return f"{gpus or torch['device']}; torch is {built}, {torch['cpu_capability']}"


def _hub(hub: dict[str, Any]) -> str:
    if hub["endpoint"] is None:
        return f"{hub['state']}: {hub['detail']}"
    mirror = " (by HF_ENDPOINT)" if hub["mirror"] else ""
    return f"{hub['state']}: {hub['endpoint']}{mirror}, {hub['detail']}"


def _folder(folder: dict[str, Any]) -> str:
    size = f"{'' if folder['complete'] else 'at least '}{format_size(folder['size'])}"
    state = size if folder["exists"] else "not made yet"
    closed = "" if folder["writable"] else ", cannot be written to"
    return f"{state}, {_size(folder['free'])} free on its disk{closed}: {folder['path']}"


def _extra(extra: dict[str, Any]) -> str:
    state = f"lacks {', '.join(extra['missing'])}" if extra["missing"] else "installed"
    return f"{state}: {extra['purpose']}"


def _library(library: dict[str, Any]) -> str:
    wanted = f" (needed: {library['wanted']})" if library["wanted"] and not library["fits"] else ""
    return f"{library['version'] or 'not installed'}{wanted}"


def _bundle(bundle: dict[str, Any]) -> str:
    graph = f"with a graph{', int8' if bundle['int8'] else ''}" if bundle["graph"] else "without a graph"
    versions = bundle["versions"]
    written = [f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions]
    return f"{bundle['path']}: {graph}{', written with ' if written else ''}{', '.join(written)}"


def _size(size: int | None) -> str:
    return "unknown" if size is None else format_size(size)
