"""The house's walls: a module imports only from layers below its own (the table of docs/explanation/design.md)."""

import ast
from pathlib import Path

import pytest

import fullbake

PACKAGE = Path(fullbake.__file__).parent
ROOMS = """
axes baselines collapse disagreements draws dropout duplicates errors excerpts families figures hashing heads markings plots pooling progress rowfiles runtime sentences standins writing
attention bases batches charts chunks compressed decisions designs examples labels masking multilabel resampling splits storage survey terminal truncation
cache calibration cells checkpoints contests encoder firsttoken leakage manifest metrics numerals sections textfiles
arrowtables config exhibits languagemodel loop losses network packing recalls scoreboard tokenizer unfinished verdicts
entrants flags kernels logistic reporting summary tables tokens venue
data documents inference printing shortcut writers
bundle choosing guarding parts passes portions vocabularies
corpus finishing freezing inspection lowerlayers model standings
factsheet finetuning grids scoring stream
guesses ways
gauges pacing trials
probing
courses
pretraining
pilots staging
corpuscli rounds running
forgetting suspects
leaderboard
comparison
comparecli
cli
__main__
"""
LAYERS: dict[str, int] = {name: layer for layer, line in enumerate(ROOMS.split("\n")[1:-1]) for name in line.split()}
MODULES = sorted(PACKAGE.glob("*.py"))


def imported(path: Path) -> set[str]:
    """Names of fullbake's modules that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fullbake":
            inner = node.module.split(".")[1:]
            found |= set(inner[:1]) if inner else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fullbake.")}
    return found & {module.stem for module in MODULES}


def test_every_module_has_its_layer() -> None:
    assert set(LAYERS) == {module.stem for module in MODULES} - {"__init__"}


@pytest.mark.parametrize("module", [m for m in MODULES if m.stem != "__init__"], ids=lambda path: path.stem)
def test_imports_go_down(module: Path) -> None:
    upward = {name for name in imported(module) if LAYERS[name] >= LAYERS[module.stem]}
    assert not upward, f"{module.name} (layer {LAYERS[module.stem]}) imports {upward} from its own layer or above"


def test_package_is_flat() -> None:
    assert not [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE]


def test_no_relative_imports_hide_from_the_table() -> None:
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module.name} imports relatively"
