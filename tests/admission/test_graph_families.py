"""Every family's graph equals its network, or is refused, as the table in docs/how-to/export.md says.

`python tests/admission/test_graph_families.py` tries them all and writes the stored results after each family; then run
docs/generate.py. Families that are stored already with these versions are left out, unless they are named as arguments.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from helpers.bases import FAMILIES, make_base
from helpers.family_bases import make_family_base
from helpers.graphs import prove_network

from fullbake.core.errors import Error

FOLDER = Path(__file__).parents[2] / "docs" / "bases"
STORED = FOLDER / "graphs.json"
HEADS = ("standard", "linear", "mlp")
LIBRARIES = ("torch", "transformers", "onnxscript", "onnxruntime")

Answers = dict[str, dict[str, str]]


def read_stored() -> tuple[dict[str, str], Answers]:
    """Return the versions that the stored results are of, and the results."""
    stored = json.loads(STORED.read_text("utf-8")) if STORED.exists() else {"versions": {}, "families": {}}
    return stored["versions"], stored["families"]


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}


def try_graph(family: str, head: str, folder: Path, bases: Callable[..., Path] = make_base) -> str:
    """Return how far the graph of a tiny classifier of the family is from torch, or why it has none."""
    try:
        if family in FAMILIES:
            base = bases(family, folder / "base") if bases is make_base else bases(family)
        else:
            base = make_family_base(family, folder)
        return f"{prove_network(base, folder / head, head).difference:.0e}"
    except Error as error:
        return error.what


def admitted() -> Iterator[str]:
    """Yield the families of the tests, then every other family that is admitted."""
    yield from FAMILIES
    answers = json.loads((FOLDER / "families.json").read_text("utf-8"))["families"]
    yield from (name for name, answer in answers.items() if answer["result"] == "admitted" and name not in FAMILIES)


@pytest.fixture(autouse=True)
def _same_versions() -> None:
    if read_stored()[0] != versions():
        pytest.skip("the stored results are those of other versions")


def test_required_families_have_a_graph_with_every_head() -> None:
    stored = read_stored()[1]
    for family in FAMILIES:
        assert {head: float(stored[family][head]) < 1e-4 for head in HEADS} == dict.fromkeys(HEADS, True), family


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*holds no pooler")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_graph_equals_the_network(family: str, head: str, bases: Callable[..., Path], tmp_path: Path) -> None:
    assert float(try_graph(family, head, tmp_path, bases)) < 1e-4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*holds no pooler")
@pytest.mark.parametrize("family", sorted(set(read_stored()[1]) - set(FAMILIES)))
def test_other_family_gets_its_answer(family: str, tmp_path: Path) -> None:
    for head, answer in read_stored()[1][family].items():
        found = try_graph(family, head, tmp_path / head)
        assert (found == answer) or float(found) < 1e-4 > float(answer)


if __name__ == "__main__":
    known = read_stored()
    results = known[1] if known[0] == versions() else {}
    for name in sys.argv[1:] or [name for name in admitted() if name not in results]:
        results[name] = {}
        for kind in HEADS if name in FAMILIES else HEADS[:2]:
            with tempfile.TemporaryDirectory() as place:
                results[name][kind] = try_graph(name, kind, Path(place))
        print(name, results[name], flush=True)
        STORED.write_text(json.dumps({"versions": versions(), "families": results}, indent=1) + "\n", "utf-8")
