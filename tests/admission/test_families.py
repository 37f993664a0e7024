"""Every family that could be a text encoder is admitted or refused with the reason that docs/reference/bases.md gives.

`python tests/admission/test_families.py` tries them all and writes the stored results; then run docs/generate.py.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from helpers.family_bases import make_family_base, other_families, text_families, write_family_config
from helpers.rows import make_rows, recipe, write_csv
from transformers import AutoConfig

from fullbake import Classifier, adapt
from fullbake.core.errors import BaseModelError
from fullbake.data.dataset import read_dataset
from fullbake.models.admission import Admission, examine
from fullbake.models.pretrained import load_config

STORED = Path(__file__).parents[2] / "docs" / "bases" / "families.json"
FAMILIES: dict[str, dict[str, str]] = json.loads(STORED.read_text("utf-8"))["families"] if STORED.exists() else {}
ADMITTED = [family for family, answer in FAMILIES.items() if answer["result"] == "admitted"]

QUICK = ("bert", "convbert", "fnet", "gpt2", "modernvbert", "mra", "reformer", "xmod", "yoso")
"""Families of which each is refused for another reason, or admitted with care."""


def try_family(family: str, folder: Path) -> Admission:
    """Try a tiny base of the family; only its config is written where that is refused already."""
    found = examine(write_family_config(family, folder), cache_dir=folder / "cache", again=True)
    if found.checks[0].result == "refused":
        return found
    return examine(make_family_base(family, folder), cache_dir=folder / "cache", again=True)


def describe(found: Admission) -> dict[str, str]:
    """Return what is stored of an admission: the result, and the first reason with what was found."""
    if not found.errors:
        return {"result": "admitted", "reason": ""}
    return {"result": "refused", "reason": found.errors[0].what}


@pytest.fixture(autouse=True)
def _same_version() -> None:
    stored = json.loads(STORED.read_text("utf-8"))["transformers"]
    if stored != transformers.__version__:
        pytest.skip(f"the results are those of transformers {stored}")


def test_all_families_have_an_answer() -> None:
    assert list(FAMILIES) == text_families()


@pytest.mark.parametrize("family", QUICK)
def test_family_gets_its_answer(family: str, tmp_path: Path) -> None:
    assert describe(try_family(family, tmp_path)) == FAMILIES[family]


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(QUICK)))
def test_every_other_family_gets_its_answer(family: str, tmp_path: Path) -> None:
    assert describe(try_family(family, tmp_path)) == FAMILIES[family]


@pytest.mark.slow
def test_what_is_no_text_encoder_is_refused(tmp_path: Path) -> None:
    """Families of images, sound and bare decoders; a few need libraries or settings to make even a config."""
    tried = 0
    for family in other_families():
        try:
            AutoConfig.for_model(family).save_pretrained(tmp_path)
        except Exception:
            continue
        with pytest.raises(BaseModelError):
            load_config(tmp_path)
        tried += 1
    assert tried > 0.8 * len(other_families())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*holds no pooler")
@pytest.mark.parametrize("family", ADMITTED)
@pytest.mark.parametrize("name", ["frozen-linear", "finetune"])
def test_admitted_family_trains_and_scores_repeat(family: str, name: str, tmp_path: Path) -> None:
    base = make_family_base(family, tmp_path / "base")
    rows = read_dataset(write_csv(tmp_path / "rows.csv", make_rows(24, 2)), text="text", label="label")
    head: dict[str, Any] = {"head": "standard"} if name == "finetune" else {}
    chosen = recipe(base, name, max_length=24, epochs=1, **head)
    classifier = adapt(chosen, rows, cache_dir=tmp_path / "cache")
    texts = [text for text, _ in make_rows(8, 2, seed=3)]
    together = classifier.predict_proba(texts)
    alone = np.concatenate([classifier.predict_proba([text]) for text in texts])
    # Scores, not logits: states repeat to 5e-7 of their scale in every family, but on the nearly constant states of a
    # random base a head has weights of up to 30, which enlarge that in its logits.
    assert np.abs(alone - together).max() <= 1e-5
    classifier.save(tmp_path / "bundle")
    assert np.abs(Classifier.load(tmp_path / "bundle").predict_proba(texts) - together).max() <= 1e-5


if __name__ == "__main__":
    answers = {}
    for name in text_families():
        with tempfile.TemporaryDirectory() as folder:
            answers[name] = describe(try_family(name, Path(folder)))
        print(name, answers[name])
    STORED.parent.mkdir(exist_ok=True)
    content = {"transformers": transformers.__version__, "families": answers}
    STORED.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
