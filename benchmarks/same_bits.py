"""Whether two source folders compute the same bits: the same small runs on both, compared hash by hash.

    python benchmarks/same_bits.py OLD_SRC NEW_SRC --out result.json [--store]
    python benchmarks/same_bits.py --only SRC --out old.json

For a restructuring, which moves code and must not change any figure. Each folder runs in its own process with
PYTHONPATH set to it and one thread, on bases with random weights and rows that this script makes. It uses only the
public names and the command line, because inner modules move. Hashed are weights, probe logits, scores, predictions,
written files, and the keys and contents of the caches. What differs between two runs of the same code is left out;
`TIMED` and the comments beside the cases give the reasons.

Words are compared apart from figures, because a restructuring may also improve the wording. Of a text for people (a
table, a model card, an error, a sentence in JSON) the figures are its numbers, in any order; the whole text counts as
words, and so does a picture. The exit code is 1 if figures differ or a case failed, with `--words` also if words
differ.

A file written by `--only` may replace a folder. `--keep FOLDER` keeps everything that was computed, each JSON value
under `parts/`. `--store` writes the table to `benchmarks/results/same_bits.json`.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import random
import re
import runpy
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

Found = dict[str, Any]
"""What a case came to, by part: bytes, the path of a file, or a JSON value (a text is one)."""

Hashes = dict[str, dict[str, str]]
"""Case -> part -> sha256."""

INSIDE = "--inside"
"""The word by which this script calls itself in a side's own process."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "NO_COLOR": "1",
    "PYTHONWARNINGS": "ignore",
}

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "numpy", "safetensors", "pyarrow")

TIMED = {
    "seconds",
    "train_seconds",
    "search_seconds",
    "stage_seconds",
    "budget_seconds",
    "rows_per_second",
    "tokens_per_second",
    "peak_memory_bytes",
    "memory",
    "date",
    "command",
    "machine",
    "versions",
    "fullbake",
}
"""Names of JSON values that are measured, or tell of the moment and the machine: they differ from run to run."""

# Bases and rows. Made before a side is run, without fullbake; the same bytes for every side.

WORDS = """
the a an and or not is are was be to of in on at for with from by this that it you he she we they my your his her what
who why how when where there here no yes good bad great poor happy sad love hate like want need know think see say go
come make take give find get use work play read write run walk talk look day night time year man woman people world
life hand part child eye place week case point home water room money story movie film book game team music food price
market bank card account phone city country news sport never always very really just only also more most than then now
new old first last long little own other right big high
""".split()  # noqa: SIM905

SUBJECTS = {"food": "food water home good", "game": "game team play point", "money": "bank card price market"}
FILLERS = "the a and we they new old last little long very never think see people world time way".split()  # noqa: SIM905
ODD = (
    "caf\u00e9",
    "na\u00efve",
    'said "no"',
    "50%",
    "\u6f22\u5b57",
    "end.\nNext",
    "it's",
    "\U0001f600",
    "a,b;c",
    "WHY?!",
)
"""Words that reading, quoting and tokenizing have to come through with."""

SIZES = {"width": 32, "layers": 3, "heads": 4, "positions": 128}


def make_inputs() -> None:
    """Bases and rows, into the working folder."""
    for family in ("bert", "distilbert", "roberta", "electra"):
        make_base(family, Path("bases") / family)
    shutil.copytree("bases/bert", "bases/weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree("bases/weightless", "bases/bare", ignore=shutil.ignore_patterns("tokenizer*"))
    make_rows()


def make_base(family: str, folder: Path) -> None:
    """A small encoder with random weights, biases and norms among them, and a composed vocabulary.

    BERT has the heads that it was pretrained under, the others have none.
    """
    import torch
    import transformers

    hub: Any = transformers
    if family == "roberta":
        vocab, merges = _byte_pairs()
        tokenizer = hub.RobertaTokenizer(vocab=vocab, merges=merges)
    else:
        names = {"model_input_names": ["input_ids", "attention_mask"]} if family == "distilbert" else {}
        tokenizer = hub.BertTokenizer(vocab=_word_pieces(), **names)
    tokenizer.model_max_length = SIZES["positions"]
    tokenizer.save_pretrained(folder)
    config = hub.AutoConfig.for_model(family, **_config(family, tokenizer))
    torch.manual_seed(0)
    kind = hub.AutoModelForPreTraining if family == "bert" else hub.AutoModel
    encoder = kind.from_config(config)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    encoder.save_pretrained(folder)


def _config(family: str, tokenizer: Any) -> dict[str, Any]:
    width, layers, heads, positions = SIZES.values()
    known = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": positions}
    known["initializer_range"] = 0.1  # large enough to learn from in a few steps
    if family == "distilbert":
        return known | {"dim": width, "hidden_dim": 2 * width, "n_layers": layers, "n_heads": heads}
    sizes = {"hidden_size": width, "intermediate_size": 2 * width}
    sizes |= {"num_hidden_layers": layers, "num_attention_heads": heads}
    if family == "roberta":
        ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
        return known | sizes | ends | {"max_position_embeddings": positions + 2, "type_vocab_size": 1}
    return known | sizes | ({"embedding_size": width // 2} if family == "electra" else {})


def _word_pieces() -> dict[str, int]:
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{sign}" for sign in characters)]
    pieces += [word for word in sorted(set(WORDS)) if len(word) > 1]
    return {piece: number for number, piece in enumerate([*pieces, "##ing", "##ed", "##ly", "##er", "##es"])}


def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The 256 bytes, and merges that build each word from the left, its leading space first."""
    from tokenizers import pre_tokenizers

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: dict[tuple[str, str], None] = {}
    for word in sorted(set(WORDS)):
        built = "\u0120"
        for letter in word:
            merges[built, letter] = None
            built += letter
    pieces += dict.fromkeys("".join(pair) for pair in merges)
    return {piece: number for number, piece in enumerate(pieces)}, list(merges)


def make_rows() -> None:
    """Files of rows: three subjects, two rare classes, many labels, pairs, long texts, few rows, given parts, raw
    text."""
    topics = [[text, subject] for text, subject in _texts(96, seed=1)]
    topics += [topics[0], [f"{topics[1][0]}  ", topics[1][1]]]  # equal, and equal but for spaces
    _write_csv("topics.csv", ("text", "label"), topics)
    _write_csv("rare.csv", ("text", "label"), [[t, "rare" if s == "money" and n % 2 else "plain"] for n, t, s in _n(2)])
    _write_csv("few.csv", ("text", "label"), [list(row) for row in _texts(24, seed=3)])
    _write_csv("long.csv", ("text", "label"), [list(row) for row in _texts(48, seed=4, shortest=20, longest=90)])
    flags = [[t, int(s == "food"), int(s != "game" and n % 2), int(n % 3 == 0)] for n, t, s in _n(5)]
    _write_csv("flags.csv", ("text", "food", "odd", "third"), flags)
    _write_csv("joined.csv", ("text", "label"), [[t, f"{s}|odd" if n % 2 else s] for n, t, s in _n(6)])
    others = [text for text, _ in _texts(90, seed=8)]
    pairs = [[t, others[n], "alike" if n % 3 == 0 else "apart"] for n, t, _ in _n(7)]
    _write_csv("pairs.csv", ("text", "other", "label"), pairs)
    _write_csv("given.csv", ("text", "label"), [topics[2], topics[3], *map(list, _texts(24, seed=9))])
    _write_csv("held.csv", ("text", "label"), [topics[4], *map(list, _texts(24, seed=10))])
    new = [text for text, _ in _texts(40, seed=11)]
    _write_csv("new.csv", ("number", "text"), [[str(n), text] for n, text in enumerate(new)])
    lines = [json.dumps({"number": n, "text": text}, ensure_ascii=False) for n, text in enumerate(new)]
    Path("new.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    documents = ["\n".join(_sentences(n)) for n in range(60)]
    Path("corpus.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")


def _n(seed: int) -> Iterator[tuple[int, str, str]]:
    """(number, text, subject) of 90 rows."""
    return ((number, text, subject) for number, (text, subject) in enumerate(_texts(90, seed)))


def _texts(count: int, seed: int, shortest: int = 1, longest: int = 8) -> list[tuple[str, str]]:
    """(text, subject) rows of very different length, all texts different, the subjects in turn."""
    drawn, rows = random.Random(seed), []
    for number in range(count):
        subject = list(SUBJECTS)[number % 3]
        words = drawn.choices(SUBJECTS[subject].split(), k=5)
        words += drawn.choices(FILLERS, k=drawn.randint(shortest, longest))
        words += drawn.choices(ODD, k=drawn.randint(0, 2))
        drawn.shuffle(words)
        rows.append((f"{' '.join(words)} {seed * 1000 + number}", subject))
    return rows


def _sentences(number: int) -> Iterator[str]:
    """The paragraphs of a document."""
    drawn = random.Random(1000 + number)
    for place in range(drawn.randint(1, 3)):
        sentences = [" ".join(drawn.choices(WORDS, k=drawn.randint(3, 12))) for _ in range(drawn.randint(1, 4))]
        yield " ".join(f"{words.capitalize()} {number}{place}." for words in sentences)


def _write_csv(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


# Runs of `adapt`

SHORT: dict[str, Any] = {
    "max_length": 32,
    "epochs": 4,
    "batch_size": 8,
    "validation": 0.25,
    "test": 0.2,
    "folds": 0,
    "token_budget": 256,
}
FINETUNE = {"learning_rate": 3e-3}
FLAGS = {"labels": ["food", "odd", "third"]}
PAIRS = {"text_pair": "other"}
STAGE = {"objective": "mlm", "steps": 20, "max_length": 32, "batch_size": 8, "evaluations": 2, "learning_rate": 1e-3}


@dataclass(frozen=True)
class Run:
    """A training. recipe: a shipped one's name. base: a family. data: a file of rows. fields: those not as in
    `SHORT`."""

    recipe: str
    base: str
    data: str = "topics.csv"
    fields: Mapping[str, Any] = field(default_factory=dict)


RUNS: dict[str, Run] = {
    "finetune, standard head, BERT": Run("finetune", "bert", fields=FINETUNE),
    "finetune, standard head, DistilBERT, patience": Run(
        "finetune", "distilbert", fields=FINETUNE | {"epochs": 8, "patience": 1, "schedule": "cosine"}
    ),
    "finetune, standard head, RoBERTa, both ends": Run(
        "finetune", "roberta", "long.csv", FINETUNE | {"truncation": "head+tail"}
    ),
    "finetune, linear head, ELECTRA": Run(
        "finetune",
        "electra",
        fields=FINETUNE | {"head": "linear", "pooling": "mean", "gradient_accumulation": 2, "label_smoothing": 0.1},
    ),
    "finetune, linear head, DistilBERT, balanced draws": Run(
        "finetune", "distilbert", "rare.csv", FINETUNE | {"head": "linear", "sampling": "balanced", "seed": 3}
    ),
    "finetune, mlp head, BERT": Run("finetune", "bert", fields=FINETUNE | {"head": "mlp", "pooling": "cls+mean"}),
    "finetune, mlp head, RoBERTa, adam": Run(
        "finetune", "roberta", fields=FINETUNE | {"head": "mlp", "pooling": "max", "optimizer": "adam", "width": 24}
    ),
    "finetune, layer decay": Run("finetune", "bert", fields=FINETUNE | {"layer_decay": 0.8, "schedule": "1-sqrt"}),
    "finetune, rates chosen": Run("finetune", "bert", fields={"learning_rate": [3e-3, 1e-3, 2e-4]}),
    "finetune, lower layers fixed": Run("finetune", "bert", fields=FINETUNE | {"freeze_layers": 1}),
    "finetune, embeddings fixed, fp16 states": Run(
        "finetune", "distilbert", fields=FINETUNE | {"freeze_layers": 0, "cache_precision": "fp16"}
    ),
    "finetune, folds": Run("finetune", "bert", fields=FINETUNE | {"folds": 3, "epochs": 2}),
    "finetune, few rows": Run(
        "finetune", "distilbert", "few.csv", FINETUNE | {"test": None, "folds": None, "epochs": 2}
    ),
    "finetune, windows": Run(
        "finetune", "bert", "long.csv", FINETUNE | {"truncation": "windows", "stride": 4, "epochs": 2}
    ),
    "finetune, pairs": Run("finetune", "bert", "pairs.csv", FINETUNE | PAIRS),
    "finetune, pairs, RoBERTa": Run("finetune", "roberta", "pairs.csv", FINETUNE | PAIRS | {"head": "linear"}),
    "finetune, many labels": Run("finetune", "bert", "flags.csv", FINETUNE | FLAGS),
    "finetune, many labels, focal": Run(
        "finetune", "distilbert", "flags.csv", FINETUNE | FLAGS | {"loss": "focal", "metric": "f1_micro"}
    ),
    "finetune, class weights, recall": Run(
        "finetune", "bert", "rare.csv", FINETUNE | {"class_weights": "balanced", "at_recall": 0.9, "positive": "rare"}
    ),
    "finetune, focal, costs": Run(
        "finetune",
        "bert",
        "rare.csv",
        FINETUNE | {"loss": "focal", "focal_gamma": 1.5, "costs": {"rare>plain": 5, "plain>rare": 1}},
    ),
    "finetune, given parts": Run(
        "finetune", "bert", fields=FINETUNE | {"validation": "given.csv", "test": "held.csv", "drop_overlap": True}
    ),
    "finetune, further pretraining before": Run("finetune", "bert", fields=FINETUNE | {"further_pretraining": STAGE}),
    "frozen, linear head, BERT": Run("frozen-linear", "bert"),
    "frozen, linear head, DistilBERT, mean": Run("frozen-linear", "distilbert", fields={"pooling": "mean"}),
    "frozen, linear head, demo": Run("frozen-linear", "demo"),
    "frozen, linear head, adamw, folds": Run(
        "frozen-linear", "electra", fields={"optimizer": "adamw", "learning_rate": [1e-2, 1e-3], "folds": 3}
    ),
    "frozen, mlp head, BERT": Run("frozen-mlp", "bert", fields={"epochs": 8}),
    "frozen, mlp head, RoBERTa, rates chosen": Run(
        "frozen-mlp",
        "roberta",
        fields={"learning_rate": [1e-2, 3e-3, 1e-3], "pooling": "cls+mean", "epochs": 8, "patience": 8},
    ),
    "frozen, mlp head, weights, precision aimed at": Run(
        "frozen-mlp", "bert", "rare.csv", {"class_weights": {"rare": 4, "plain": 1}, "at_precision": 0.6, "folds": None}
    ),
    "frozen, standard head, BERT": Run("frozen-standard", "bert", fields={"learning_rate": 1e-2}),
    "frozen, standard head, DistilBERT": Run("frozen-standard", "distilbert", fields={"learning_rate": 3e-2}),
    "frozen, windows": Run("frozen-linear", "bert", "long.csv", {"truncation": "windows", "window_pooling": "max"}),
    "frozen, windows, mlp head": Run("frozen-mlp", "distilbert", "long.csv", {"truncation": "windows", "epochs": 8}),
    "frozen, truncation chosen": Run("frozen-linear", "bert", "long.csv", {"truncation": "auto", "pooling": "mean"}),
    "frozen, pairs": Run("frozen-linear", "bert", "pairs.csv", PAIRS | {"thresholds": "f1", "positive": "alike"}),
    "frozen, many labels": Run("frozen-linear", "bert", "joined.csv", {"label_separator": "|"}),
    "frozen, many labels, mlp head": Run("frozen-mlp", "bert", "flags.csv", FLAGS | {"loss": "focal", "epochs": 4}),
    "frozen, fp16 features": Run("frozen-linear", "roberta", fields={"cache_precision": "fp16", "calibrate": False}),
    "frozen, further pretraining before": Run(
        "frozen-mlp", "bert", fields={"epochs": 8, "further_pretraining": STAGE | {"objective": "mlm+nsp"}}
    ),
}


def recipe_of(run: Run) -> Any:
    """Its recipe. The base goes by a relative path, for that is part of what a run is."""
    from fullbake import Recipe

    base = run.base if run.base == "demo" else f"bases/{run.base}"
    return Recipe.load(run.recipe, base=base, **(SHORT | dict(run.fields)))


def adapted(run: Run, folder: Path) -> Found:
    """Train it and save it, load it again, score rows with it and predict a file."""
    from fullbake import Classifier, adapt, evaluate, predict_file, read_dataset

    recipe = recipe_of(run)
    trained = adapt(recipe, run.data, out=folder / "bundle")
    loaded = Classifier.load(folder / "bundle")
    pair = run.fields.get("text_pair")
    source = "pairs.csv" if pair else "new.csv"
    rows: Any = read_dataset(run.data, **columns_of(run), label_names=loaded.label_names)
    predict_file(loaded, source, folder / "predicted.csv")
    texts = [rows.texts.to_pylist(), *([rows.text_pair.to_pylist()] if pair else [])]
    return {
        **bundle_parts(folder / "bundle"),
        "logits as trained": trained.logits(*texts).tobytes(),
        "logits as loaded": loaded.logits(*texts).tobytes(),
        "chances": loaded.predict_proba(*texts).tobytes(),
        "predictions": loaded.predict(*texts).tolist(),
        "evaluate": evaluate(loaded, rows),
        "predict_file": folder / "predicted.csv",
    }


def columns_of(run: Run) -> dict[str, Any]:
    """Where the texts and labels of its rows are."""
    given = {name: run.fields[name] for name in ("labels", "label_separator", "text_pair") if name in run.fields}
    return {"text": "text"} | given | ({} if "labels" in given else {"label": "label"})


def bundle_parts(bundle: Path) -> Found:
    """Every file of a bundle or of a further pretrained base, pictures too."""
    return {path.name: path for path in sorted(bundle.iterdir())}


# What else is public


def reading(_: Path) -> Found:
    """Read files as data sets; return the fingerprints of their texts and labels, and their row numbers."""
    from fullbake import read_dataset

    asked: dict[str, dict[str, Any]] = {
        "topics.csv": {"label": "label"},
        "flags.csv": FLAGS,
        "joined.csv": {"label": "label", "label_separator": "|"},
        "pairs.csv": {"label": "label", "text_pair": "other"},
        "new.csv": {},
        "new.jsonl": {},
    }
    found: Found = {}
    for name, columns in asked.items():
        rows = read_dataset(name, text="text", **columns)
        facts = [rows.texts_fingerprint(), rows.fingerprint() if columns else None, rows.rows.tolist()]
        found[name] = [*facts, list(rows.label_names)]
        found[f"texts of {name}"] = "\n".join(rows.take([3, 1, 2]).texts.to_pylist()).encode()
    return found


def scoring(folder: Path) -> Found:
    """One bundle: its scores of files in each form, and by the command line, in tables and as JSON."""
    import pyarrow as pa
    from pyarrow import parquet

    from fullbake import Classifier, adapt, predict_file

    adapt(recipe_of(RUNS["frozen, linear head, BERT"]), "topics.csv", out=folder / "bundle")
    adapt(recipe_of(RUNS["finetune, many labels"]), "flags.csv", out=folder / "many")
    classifier = Classifier.load(folder / "bundle")
    with Path("new.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    parquet.write_table(pa.table({"text": texts}), folder / "new.parquet")
    (folder / "shards").mkdir()
    for name in ("topics.csv", "held.csv"):
        shutil.copy(name, folder / "shards")
    found: Found = {}
    for source in ("new.csv", "new.jsonl", folder / "new.parquet", folder / "shards"):
        for form in (".csv", ".jsonl", ".parquet"):
            target = folder / f"{Path(source).name}-as{form}"
            predict_file(classifier, source, target, prefix="our ")
            found[target.name] = target
    typed = (texts[0], "", "a game of the team " * 12)
    for name in ("bundle", "many"):
        found[f"typed texts, {name}"] = command("predict", folder / name, *typed)
        found[f"a file to stdout, {name}"] = command("predict", folder / name, "new.csv").encode()
    found["evaluate, table"] = command("evaluate", folder / "bundle", "held.csv")
    found["evaluate, JSON"] = json.loads(command("evaluate", folder / "many", "flags.csv", "--json"))
    return found


def telling(folder: Path) -> Found:
    """What the command line tells without training a classifier."""
    base = "bases/bert"
    words = ("inspect", "topics.csv", "--base", base, "--max-length", "32")
    found: Found = {
        "recipes": command("recipes"),
        "recipe": command("recipes", "sun2019"),
        "summary, base": command("summary", "bases/roberta"),
        "summary, mlp head": command("summary", base, "--way", "frozen", "--head", "mlp", "--num-labels", "3"),
        "inspect, table": command(*words, "--plot", folder / "facts.png"),
        "inspect, JSON": json.loads(command("inspect", "flags.csv", "--labels", "food,odd,third", "--json")),
        "inspect, picture": folder / "facts.png",
    }
    command(*words, "--suspects", folder / "suspects.csv")
    found["inspect, suspects"] = folder / "suspects.csv"
    return found


def refusing(_: Path) -> Found:
    """Make mistakes; return their error messages."""
    from fullbake import Error, Recipe, adapt, read_dataset

    asked: dict[str, Callable[[], object]] = {
        "field": lambda: Recipe.load("frozen-mlp", base="demo", epochs="none", lerning_rate=1),
        "recipe": lambda: Recipe.load("frozen-mpl", base="demo"),
        "column": lambda: read_dataset("topics.csv", text="text", label="lable"),
        "label": lambda: read_dataset("topics.csv", text="text", label="label", label_names=["food", "game", "many"]),
        "base": lambda: adapt(Recipe.load("frozen-linear", base="bases/none"), "topics.csv"),
        "length": lambda: adapt(Recipe.load("frozen-linear", base="bases/bert", max_length=1000), "topics.csv"),
    }
    found: Found = {}
    for name, ask in asked.items():
        try:
            ask()
        except Error as error:
            found[name] = [type(error).__name__, str(error)]
    return found


def pretrained(folder: Path) -> Found:
    """Further pretraining alone, its objectives, from a base and from nothing."""
    from fullbake import Recipe, further_pretrain

    common = {"steps": 24, "max_length": 32, "batch_size": 8, "evaluations": 2, "learning_rate": 1e-3}
    stages: dict[str, tuple[str, str, dict[str, Any]]] = {
        "mlm": ("tapt", "roberta", {"whole_words": True, "token_budget": 128}),
        "mlm+nsp": ("further-pretrain", "bert", {"max_length": None, "phases": {"16": 0.5, "48": 0.5}}),
        "mlm+sop": ("sun2019", "bert", {"objective": "mlm+sop", "schedule": "1-sqrt", "gradient_accumulation": 2}),
        "from nothing": ("tapt", "weightless", {"init": "random"}),
    }
    found: Found = {}
    for name, (recipe, base, given) in stages.items():
        stage = Recipe.load_stage(recipe, **(common | given))
        about = further_pretrain(f"bases/{base}", "corpus.txt", folder / name, stage=stage, keep_out=["held.csv"])
        found |= {f"{name}, {part}": value for part, value in bundle_parts(folder / name).items()}
        found[f"{name}, told"] = about
    probed = command("probe", folder / "mlm+nsp", "--base", "bases/bert", "--json")
    return found | {"probe of mlm+nsp": json.loads(probed)}


def vocabulary(folder: Path) -> Found:
    """The key under which a vocabulary of the corpus is kept. What is kept is left out, and so is all that is trained
    from it: the trainer of `tokenizers` breaks ties between pieces in another order each time."""
    from fullbake import Recipe, further_pretrain

    stage = Recipe.load_stage(None, init="random", objective="mlm", steps=2, max_length=32, batch_size=8, evaluations=1)
    further_pretrain("bases/bare", "corpus.txt", folder / "out", stage=stage, cache_dir=folder / "apart")
    return {"key": [path.name for path in sorted((folder / "apart" / "vocabularies").glob("[!.]*"))]}


COMPARED: dict[str, Any] = {
    "max_length": 32,
    "batch_size": 8,
    "epochs": 5,
    "token_budget": 256,
    "test": 0.25,
    "seeds": 2,
    "rates": (3e-3, 1e-3),
    "head_rates": (1e-2, 3e-3),
}


def compared(folder: Path) -> Found:
    """A comparison of four recipes and both baselines, and the same again, which trains nothing."""
    from fullbake import compare

    names = ("finetune", "frozen-mlp", "frozen-linear", "further-frozen-linear", "majority", "tfidf")
    fields = COMPARED | {"base": "bases/bert", "further_pretraining": STAGE, "out": folder / "out"}
    board, again = compare("topics.csv", names, **fields), compare("topics.csv", names, **fields)
    return comparison_parts(folder / "out") | {"leaderboard": figures(board), "leaderboard again": figures(again)}


def compared_in_folds(folder: Path) -> Found:
    """One classifier against a baseline, two labels, in folds. As there is one classifier, it is the best one."""
    from fullbake import compare

    fields = COMPARED | {"base": "bases/distilbert", "folds": 3, "out": folder / "out"}
    board = compare("rare.csv", ("frozen-mlp", "tfidf"), **fields, positive="rare")
    best = {f"best, {name}": path for name, path in bundle_parts(folder / "out" / "best").items()}
    return comparison_parts(folder / "out") | best | {"leaderboard": figures(board)}


def comparison_parts(out: Path) -> Found:
    """What a comparison's folder says of itself, and every finished cell, but for the times in it. report.html is left
    out: the times are drawn in it. So is best/: what is recommended is the cheapest by time."""
    cells = sorted((out / "cells").rglob("manifest.json"))
    found: Found = {"comparison.json": out / "comparison.json"}
    for manifest in cells:
        about = json.loads(manifest.read_text("utf-8"))["about"]  # beside it, a hash over it and so over its times
        name = manifest.parent.relative_to(out / "cells").as_posix()
        found |= {f"cell {name}": about, f"cell {name}, arrays": manifest.with_name("arrays.safetensors")}
    return found


def figures(board: Mapping[str, Any]) -> Any:
    """A leaderboard without what is recommended, which goes by the time that training took."""
    kept: Any = json.loads(json.dumps(board))
    kept["verdict"].pop("recommended")
    del kept["verdict"]["words"][1:2]  # which says so in words
    return kept


# Stopped in the middle, and resumed by the same command. The step at which it was stopped is left out: it is chance.


def stopped_training(folder: Path) -> Found:
    """Fine-tuning by the command line, stopped by SIGTERM; beside it the same run that nobody stopped."""
    from fullbake import Recipe, adapt

    fields = {"base": "bases/bert", "epochs": 24, "batch_size": 8, "max_length": 32, "learning_rate": 1e-3}
    adapt(Recipe.load("finetune", **fields), "topics.csv", out=folder / "whole")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    words = ["train", "topics.csv", "--way", "finetune", *flags, "--checkpoint-every", "10"]
    code = stop_and_resume([*words, "--out", str(folder / "stopped")], folder / "stopped", "*/step-*", signal.SIGTERM)
    return both(folder, {"exit code": code})


def stopped_pretraining(folder: Path) -> Found:
    """Further pretraining by the command line, killed; beside it the same run that nobody killed."""
    from fullbake import Recipe, further_pretrain

    fields = {"objective": "mlm", "steps": 200, "batch_size": 8, "max_length": 32, "evaluations": 2}
    stage = Recipe.load_stage(None, **fields)
    further_pretrain("bases/bert", "corpus.txt", folder / "whole", stage=stage)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    words = ["pretrain", "corpus.txt", "--base", "bases/bert", *flags, "--checkpoint-every", "10"]
    code = stop_and_resume([*words, "--out", str(folder / "stopped")], folder / "stopped", "*/step-*", signal.SIGKILL)
    return both(folder, {"exit code": code})


def stopped_comparison(folder: Path) -> Found:
    """A comparison by the command line, stopped by SIGINT after a cell; beside it the one that nobody stopped."""
    from fullbake import compare

    fields: dict[str, Any] = {"base": "bases/bert", "epochs": 20, "batch_size": 8, "max_length": 32, "test": 0.25}
    names, rates = ("frozen-mlp", "majority"), (1e-2, 3e-3, 1e-3)
    whole = compare("topics.csv", names, out=folder / "whole", seeds=3, head_rates=rates, **fields)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    words = ["compare", "topics.csv", "--recipes", ",".join(names), "--seeds", "3"]
    words += ["--head-rates", ",".join(map(str, rates))]
    out = folder / "stopped"
    code = stop_and_resume([*words, *flags, "--out", str(out)], out, "cells/*/*/*/trained", signal.SIGINT)
    board = json.loads((out / "leaderboard.json").read_text("utf-8"))
    if _digest(_untimed(figures(whole))) != _digest(_untimed(figures(board))):
        raise RuntimeError("the comparison that was stopped came to other figures")
    return comparison_parts(out) | {"exit code": code, "leaderboard": figures(board)}


def both(folder: Path, found: Found) -> Found:
    """Return the parts of a stopped run and of an uninterrupted one. Raise an error if their weights differ."""
    whole, stopped = bundle_parts(folder / "whole"), bundle_parts(folder / "stopped")
    if whole["model.safetensors"].read_bytes() != stopped["model.safetensors"].read_bytes():
        raise RuntimeError("the run that was stopped ended with other weights")
    return found | {f"whole, {n}": p for n, p in whole.items()} | {f"stopped, {n}": p for n, p in stopped.items()}


def stop_and_resume(words: Sequence[str], out: Path, sign: str, number: signal.Signals) -> int:
    """Start the command, send it the signal when two of what it saves are there, and give the same command again.
    Returns the first one's exit code. sign: pattern of what it saves, in `out` or in the folder beside it. A run that
    has checkpoints gets --resume, because it would reach the same weights from the start, too."""
    line = [sys.executable, "-P", "-m", "fullbake", *words]
    with Path(f"{out}.log").open("w") as log, subprocess.Popen(line, stdout=log, stderr=log) as process:
        while process.poll() is None:
            places = (out, out.with_name(f"{out.name}.unfinished"))
            if sum(len(list(place.glob(sign))) for place in places) >= 2:
                process.send_signal(number)
                break
            time.sleep(0.01)
        code = process.wait(timeout=600)
    if code == 0 or (out / "fullbake.json").exists():
        raise RuntimeError(f"it was done before it could be stopped, see {out}.log")
    with Path(f"{out}.again.log").open("w") as log:
        again = [*line, *(["--resume"] if sign.endswith("step-*") else [])]
        subprocess.run(again, stdout=log, stderr=log, check=True, timeout=600)
    return code


def command(*words: object) -> str:
    """What `python -m fullbake` prints, run in this process, as starting another takes seconds."""
    written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    typed, sys.argv = sys.argv, ["fullbake", *map(str, words)]
    try:
        with redirect_stdout(written):
            runpy.run_module("fullbake", run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{' '.join(sys.argv)} ended with {end.code}") from end
    finally:
        sys.argv = typed
    written.flush()
    buffer = written.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


CASES: dict[str, Callable[[Path], Found]] = {
    "reading": reading,
    **{name: lambda folder, run=run: adapted(run, folder) for name, run in RUNS.items()},  # type: ignore[misc]
    "files and the command line": scoring,
    "inspect, summary, recipes": telling,
    "refusals": refusing,
    "further pretraining alone": pretrained,
    "a vocabulary's key": vocabulary,
    "comparison": compared,
    "comparison in folds": compared_in_folds,
    "stopped training": stopped_training,
    "stopped pretraining": stopped_pretraining,
    "stopped comparison": stopped_comparison,
}

# A side, in its own process: its working folder is the current one, its code what PYTHONPATH leads to.


def inside() -> None:
    """Run every case and write `hashes.json`, with the tracebacks of failed cases."""
    import fullbake

    code = Path(fullbake.__file__).resolve().parent.parent
    if code != Path(os.environ["SAME_BITS_CODE"]).resolve():
        raise RuntimeError(f"the code comes from {code}")
    hashes: Hashes = {"inputs": {path.as_posix(): _sha256(path) for path in _inputs()}}
    words: Hashes = {}
    faults: dict[str, str] = {}
    for number, (name, case) in enumerate(CASES.items()):
        if os.environ["SAME_BITS_CASES"] not in name:
            continue
        started = time.perf_counter()
        folder = Path("out") / f"{number:02}"
        folder.mkdir(parents=True)
        os.environ["FULLBAKE_CACHE_DIR"] = str(folder / "cache")
        try:
            found = case(folder)
        except Exception:
            faults[name] = traceback.format_exc()
            found = {}
        found |= cache_parts(folder / "cache")
        values = {part: _value(value) for part, value in found.items()}
        hashes[name] = {part: _digest(_figures(value)) for part, value in values.items() if not _drawn(part)}
        words[name] = {
            part: _digest(value) for part, value in values.items() if _digest(_figures(value)) != _digest(value)
        }
        words[name] |= {part: _digest(value) for part, value in values.items() if _drawn(part)}
        _leave(name, values)
        outcome = f"{len(found):3} parts" if name not in faults else f"failed: {faults[name].splitlines()[-1]}"
        print(f"  {time.perf_counter() - started:5.1f} s  {outcome}  {name}", flush=True)
    Path("hashes.json").write_text(json.dumps({"cases": hashes, "words": words, "faults": faults}))


def _inputs() -> list[Path]:
    return sorted([*Path("bases").rglob("*.*"), *Path().glob("*.csv"), *Path().glob("*.jsonl"), *Path().glob("*.txt")])


def cache_parts(cache: Path) -> Found:
    """The keys of a case's caches, and what features and states are kept under them. Contents of bases and corpora are
    left out: they tell how long they took, and the weights trained from them are hashed all the same."""
    if not cache.is_dir():
        return {}
    keys = sorted(path.relative_to(cache).as_posix() for path in cache.glob("*/*") if path.is_dir())
    kept = sorted(path for path in cache.glob("features/*/*") if path.is_file())
    return {"cache keys": keys, "cached features": [[path.name, _sha256(path)] for path in kept]}


def _value(value: Any) -> Any:
    """A part as bytes or as a JSON value without times in it; files of JSON and of text are read."""
    if isinstance(value, Path):
        plain = value.name in ("tokenizer.json", "tokenizer_config.json", "config.json")
        if value.suffix == ".json" and not plain:
            return _untimed(json.loads(value.read_text("utf-8")))
        return value.read_text("utf-8") if value.suffix == ".md" else value.read_bytes()
    return value if isinstance(value, bytes) else _untimed(value)


def _figures(value: Any) -> Any:
    """A JSON value with the numbers in place of each text that has words."""
    if isinstance(value, str):
        return sorted(re.findall(r"\d+(?:[.,]\d+)*", value)) if len(value.split()) > 1 else value
    if isinstance(value, Mapping):
        return {name: _figures(inner) for name, inner in value.items()}
    return [_figures(inner) for inner in value] if isinstance(value, list | tuple) else value


def _drawn(part: str) -> bool:
    """Whether it is a picture: words and figures in one."""
    return part.endswith((".png", "picture"))


def _digest(value: Any) -> str:
    payload = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(payload).hexdigest()


def _leave(case: str, values: Mapping[str, Any]) -> None:
    """Write the JSON values of a case, for whoever looks for a difference."""
    Path("parts").mkdir(exist_ok=True)
    for part, value in values.items():
        if not isinstance(value, bytes):
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False)
            Path("parts", f"{case}, {part}.txt".replace("/", " ")).write_text(text, encoding="utf-8")


def _untimed(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {name: _untimed(inner) for name, inner in value.items() if name not in TIMED}
        if "format" in kept and "files" in kept:  # the manifest's own hash is over times and versions too
            kept.pop("sha256", None)
            kept["files"] = {name: about for name, about in kept["files"].items() if not _drawn(name)}
        return kept
    return [_untimed(inner) for inner in value] if isinstance(value, list | tuple) else value


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Outside: both sides, one after the other


def run_side(source: Path, place: Path, cases: str) -> dict[str, Any]:
    """The cases with a word in their name on the code in a source folder, computed in `place`."""
    source, place = source.resolve(), place.resolve()
    if not (source / "fullbake" / "__init__.py").is_file():
        raise SystemExit(f"{source}: no folder fullbake in it")
    print(f"{source}", flush=True)
    pinned = place / "pinned" / "fullbake-0.dist-info"
    pinned.mkdir(parents=True)
    # The version of fullbake is part of cache and run keys, so both sides get the same one, whatever is installed.
    (pinned / "METADATA").write_text("Metadata-Version: 2.1\nName: fullbake\nVersion: 0\n")
    paths = os.pathsep.join([str(pinned.parent), str(source)])
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": paths, "SAME_BITS_CODE": str(source)}
    environment["SAME_BITS_CASES"] = cases
    started, used = time.perf_counter(), _processor_seconds()
    with (place / "stderr.log").open("w") as log:
        line = [sys.executable, "-P", str(Path(__file__).resolve()), INSIDE]
        done = subprocess.run(line, cwd=place, env=environment, stderr=log)
    if done.returncode:
        raise SystemExit(f"{source}: ended with {done.returncode}\n{(place / 'stderr.log').read_text()[-3000:]}")
    found: dict[str, Any] = json.loads((place / "hashes.json").read_text())
    return {
        "seconds": round(time.perf_counter() - started),
        "processor_seconds": round(_processor_seconds() - used),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "processor": platform.processor() or platform.machine(),
        **found,
    }


def _processor_seconds() -> float:
    """Of the processes that this one started and waited for."""
    used = os.times()
    return used.children_user + used.children_system


@contextmanager
def folder_for(name: str, keep: Path | None) -> Iterator[Path]:
    """Where a side computes: below `keep`, or a folder that goes at the end."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix=f"same-bits-{name}-") as place:
            yield Path(place)
        return
    (keep / name).mkdir(parents=True)
    yield keep / name


def side(name: str, source: Path, keep: Path | None, cases: str) -> dict[str, Any]:
    """What a source folder computes, or what a file says that it did."""
    if source.is_file():
        found: dict[str, Any] = json.loads(source.read_text("utf-8"))
        for kind in ("cases", "words"):
            found[kind] = {name: parts for name, parts in found[kind].items() if cases in name or name == "inputs"}
        return found
    with folder_for(name, keep) as place:
        return run_side(source, place, cases)


def compare_sides(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """(case -> hashes of both and whether they are equal; what differs, in figures and in words)."""
    cases: dict[str, Any] = {}
    apart: dict[str, list[str]] = {"figures": [], "words": []}
    for name in dict.fromkeys([*old["cases"], *new["cases"]]):
        one, other = (found["cases"].get(name, {}) for found in (old, new))
        differing = _differing(one, other)
        failed = [found["faults"][name] for found in (old, new) if name in found["faults"]]
        spoken = _differing(*(found["words"].get(name, {}) for found in (old, new)))
        cases[name] = {"equal": not differing and not failed, "same_words": not spoken, "old": one, "new": other}
        apart["figures"] += [f"{name}: {part}" for part in differing] + [f"{name}: failed\n{fault}" for fault in failed]
        apart["words"] += [f"{name}: {part}" for part in spoken if part not in differing]
    return cases, apart


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(part for part in one.keys() | other.keys() if one.get(part) != other.get(part))


def digest(parts: Mapping[str, str]) -> str:
    """One short hash over all parts of a case."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12] if parts else "-"


def show(cases: Mapping[str, Any], apart: Mapping[str, Sequence[str]]) -> None:
    """The table, and below it what differs."""
    width = max(map(len, cases))
    print(f"{'case':{width}} | {'old':12} | {'new':12} | equal | words")
    print(f"{'-' * width} | {'-' * 12} | {'-' * 12} | ----- | -----")
    for name, case in cases.items():
        equal, words = "yes" if case["equal"] else "NO", "same" if case["same_words"] else "other"
        print(f"{name:{width}} | {digest(case['old']):12} | {digest(case['new']):12} | {equal:5} | {words}")
    for kind, lines in apart.items():
        for line in lines:
            print(f"other {kind}: {line}")


def store(cases: Mapping[str, Any], figures: int, words: int) -> None:
    """Store the table of a comparison among the benchmark results, with 12 digits of each hash."""
    from machine import store_result

    rows = [
        {
            "case": name,
            "parts": len(found["new"]),
            "old": digest(found["old"])[:12],
            "new": digest(found["new"])[:12],
            "equal": "yes" if found["equal"] else "no",
        }
        for name, found in cases.items()
    ]
    store_result("same_bits", rows, parts_that_differ=figures, texts_with_other_words=words)


def main() -> int:
    """Record one side, or compare two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sides", nargs="*", type=Path, metavar="SRC", help="two source folders, or files of --only")
    parser.add_argument("--only", type=Path, metavar="SRC", help="record this one side")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for all hashes")
    parser.add_argument("--keep", type=Path, help="new folder for all that is computed")
    parser.add_argument("--words", action="store_true", help="count other words as a difference")
    parser.add_argument("--store", action="store_true", help="store the table in benchmarks/results")
    parser.add_argument("--cases", default="", metavar="WORD", help="run only the cases with this in their name")
    asked = parser.parse_args()
    if len(asked.sides) != (0 if asked.only else 2):
        parser.error("name two source folders, or one by --only")
    if asked.only:
        found = side("only", asked.only, asked.keep, asked.cases)
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
        parts = sum(map(len, found["cases"].values()))
        print(f"{len(found['cases'])} cases, {parts} parts, {found['seconds']} s; kept in {asked.out}")
        for name, fault in found["faults"].items():
            print(f"failed: {name}\n{fault}")
        return int(bool(found["faults"]))
    old, new = (
        side(name, source, asked.keep, asked.cases) for name, source in zip(("old", "new"), asked.sides, strict=True)
    )
    cases, apart = compare_sides(old, new)
    show(cases, apart)
    for name in ("python", "libraries", "processor"):
        if old[name] != new[name]:
            print(f"note that the sides ran with different {name}: {old[name]} and {new[name]}")
    sides = {"old": old, "new": new}
    facts = {name: {fact: value for fact, value in found.items() if fact != "cases"} for name, found in sides.items()}
    content = {"about": (__doc__ or "").partition("\n")[0], "equal": not apart["figures"], "apart": apart}
    asked.out.write_text(json.dumps(content | facts | {"cases": cases}, indent=1) + "\n")
    figures, words = (len(lines) for lines in apart.values())
    print(
        f"figures: {figures or 'none'} of {sum(map(len, new['cases'].values()))} parts differ; words: {words or 'none'}"
    )
    print(f"kept in {asked.out}")
    if asked.store:
        store(cases, figures, words)
    return int(bool(figures or (asked.words and words)))


if __name__ == "__main__":
    if sys.argv[1:] == [INSIDE]:
        make_inputs()
        inside()
    else:
        sys.exit(main())
