"""Execute the notebooks in docs/notebooks and keep their outputs.

`python docs/run_notebooks.py` executes each in a new folder and writes it back with its outputs. The tests execute them
too, and compare what comes out with what is kept.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "notebooks"


def execute(path: Path, folder: Path) -> Any:
    """Return a notebook after all its cells ran in a folder.

    Args:
        path: The notebook. It stays as it is.
        folder: Where its kernel works.

    Returns:
        The notebook with new outputs, without progress displays and times.
    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    run_cells(notebook, folder)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _without_progress(cell.outputs)
    notebook.metadata.pop("language_info", None)
    return notebook


def run_cells(notebook: Any, folder: Path) -> None:
    """Run all cells of a notebook in a folder, and keep what they give in it."""
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=900, startup_timeout=300, kernel_name="python3", resources=place)
    client.execute()


def _without_progress(outputs: list[Any]) -> list[Any]:
    """Leave out displays, which depend on how long the work takes, and join the lines around them."""
    found: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and found and found[-1].get("name") == output.name:
            found[-1].text += output.text
        elif output.output_type != "display_data":
            found.append(output)
    return found


def shape(notebook: Any) -> list[list[tuple[str, ...]]]:
    """Return what each code cell gave as far as it is the same on every machine: kinds of outputs, how lines begin."""
    return [
        [(output.output_type, *sorted(output.get("data", {})), *_beginnings(output)) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _beginnings(output: Any) -> list[str]:
    text = str(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return [re.split(r"[(\d:]", line)[0][:30] for line in text.splitlines()]


def main() -> None:
    """Execute all notebooks."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(path, Path(folder)), path)  # type: ignore[no-untyped-call]
        print(f"written: {path.name}")


if __name__ == "__main__":
    main()
