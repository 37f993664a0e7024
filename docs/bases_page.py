"""Make docs/reference/bases.md from what tests/admission stored: which families are admitted and have a graph."""

import json
import textwrap
from pathlib import Path

from markdown_tables import row

INTRO = """# Which bases work

A base is admitted by trying it, not by a table of families. Before anything is computed on it, fullbake checks:

- **config**: it is an encoder that transformers {version} knows and that has a masked LM and a classifier form.
  Adapters (`adapter_config.json`) and quantized weights are refused with what to do, and so is a base of several
  languages that names none.
- **tokenizer**: token ids are those that the `tokenizers` library gives on its tokenizer.json, on texts with capitals,
  accents, full-width letters, emoji and many scripts. Where transformers would build another tokenizer, tokenizer.json
  is used as it is, and the run says so. It must have a padding token, and an unknown token where one can be needed. A
  vocabulary that does not fit the case of its letters is noted.
- **weights**: they are all that config.json asks for and no others, apart from heads, poolers and buffers.
- **vocabulary**: every id has an embedding.
- **texts**: states are finite, one of the base's width for each token up to its longest text, equal each time, and
  depend on the other words of the text.
- **padding**: a text alone, padded and in a batch with others has the same states, up to 1e-4 of their largest value.
- **earlier texts**: a long text has the same states before and after short ones.

`fullbake check BASE` makes the checks and shows what was found. Every run makes them too, and remembers a base that
passed by the sha256 of its files and the versions of torch, transformers and tokenizers: for `demo` they take about a
second once, and hashing its files afterwards. Prediction from a bundle makes none of them.

The table is what a tiny base of each family with random weights got, on a CPU, from tests/admission/test_families.py.
Your base is tried itself: its settings and weights decide.

## Families

"""

TAIL = """

Not listed are {others} families that transformers classifies texts with and that are no encoders with a masked LM:
{names}.

They are refused, as are models of images and sound.
"""


def graphs(file: Path) -> str:
    """Return the table of families and the heads whose graph was proved.

    Args:
        file: what the sweep stored, graphs.json; missing before the first sweep.
    """
    if not file.exists():
        return ""
    stored = json.loads(file.read_text("utf-8"))
    heads = ("standard", "linear", "mlp")
    head = row("model_type in config.json", *(f"head {name}" for name in heads)) + row(*["---"] * 4)
    rows = [
        row(f"`{family}`", *(answers.get(name, "not tried") for name in heads))
        for family, answers in stored["families"].items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in stored["versions"].items())
    return f"{head}{''.join(rows)}\n({versions}; tests/admission/test_graph_families.py.)\n"


def render(file: Path) -> str:
    """Return the page.

    Args:
        file: what the sweep stored, families.json.
    """
    stored = json.loads(file.read_text("utf-8"))
    shown, others = [], []
    for family, answer in stored["families"].items():
        if any(part in answer["reason"] for part in ("no text encoder", "config.json cannot be used")):
            others.append(f"`{family}`")
        else:
            shown.append(row(f"`{family}`", answer["result"], answer["reason"].partition(" (model type")[0]))
    head = row("model_type in config.json", "a tiny base is", "because") + row("---", "---", "---")
    names = "\n".join(textwrap.wrap(", ".join(others), 118, break_on_hyphens=False))
    tail = TAIL.format(others=len(others), names=names)
    return INTRO.format(version=stored["transformers"]) + head + "".join(shown) + tail
