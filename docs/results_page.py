"""Make docs/results.md, and tables for other pages, from the stored results of benchmarks."""

import ast
import json
from pathlib import Path
from typing import Any

from markdown_tables import cell, row, table

from fullbake.cli import tables
from fullbake.core.console import format_interval

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def render(folder: Path) -> str:
    """Return the page: a table for each file of `benchmarks/results`, with its name, command, machine and versions."""
    files = sorted(folder.glob("*.json"))
    parts = [_result(json.loads(path.read_text("utf-8")), path.name) for path in files]
    boards = [(path, json.loads(path.read_text("utf-8"))) for path in sorted(folder.glob("comparisons/*.json"))]
    parts = [*(_comparison(board, path) for path, board in boards), *parts]
    return "\n".join(
        [
            "# Results\n\nThese results were measured and stored by the scripts in `benchmarks/`.\n",
            *(parts or ["None are stored yet."]),
        ]
    )


def sklearn_search(folder: Path) -> str:
    """Return the seconds of a search over heads on features that are computed once, and every time; "" if unknown."""
    path = folder / "sklearn_search.json"
    if not path.is_file():
        return ""
    stored = json.loads(path.read_text("utf-8"))
    seconds: dict[str, list[float]] = {}
    for entry in stored["rows"]:
        seconds.setdefault(entry["search"], []).append(entry["processor seconds"])
    once, each = (min(seconds[name]) for name in ("computed once", "computed every time"))
    return (
        f"Measured on {stored['data']}, one thread: the search takes {once:.1f} s of processor time\n"
        f"where each text is computed once, and {each:.1f} s where every call computes them\n"
        "([all figures](../results.md)).\n"
    )


def cluster_scoring(folder: Path) -> str:
    """Return the seconds and the memory of a million rows scored by one process, by Ray and by Spark; "" if unknown."""
    path = folder / "cluster_scoring.json"
    if not path.is_file():
        return ""
    shown = ("side", "rows", "seconds", "rows a second", "driver, most MB", "worker, most MB", "equal to one process")
    rows = json.loads(path.read_text("utf-8"))["rows"]
    return table([{name: entry[name] for name in shown} for entry in rows])


def executors(folder: Path) -> str:
    """Return what a comparison takes in one process, in several, and on Ray, for short and for long trials."""
    rows = []
    for name, trials in (("executors_long", "4 fine-tunings"), ("executors", "12 of about 2 s, one thread each")):
        path = folder / f"{name}.json"
        for entry in json.loads(path.read_text("utf-8"))["rows"] if path.is_file() else []:
            if entry.get("node_killed", "none") == "none":
                each = f" of {entry['trial_seconds']:.0f} s" if "trial_seconds" in entry else ""
                taken = {"seconds": entry["seconds"], "processor seconds": entry["cpu_seconds"]}
                rows.append({"trials": f"{trials}{each}", "where": entry["where"], **taken})
    return table(rows)


def _comparison(board: dict[str, Any], path: Path) -> str:
    """Return a leaderboard: the verdict, then one row for each recipe."""
    metric, data = board["metric"], board["data"]
    done = [entry for entry in board["recipes"] if entry["status"] == "done"]
    rows = [
        row("recipe", f"{metric} on test, 95% interval", "rate", "training", "peak memory", "trained", "rows/s"),
        row(*["---"] * 7),
    ]
    rows += [_recipe_row(entry, metric) for entry in sorted(done, key=lambda entry: -entry["test"][metric]["mean"])]
    undone = [f"- {entry['name']}: {entry['reason']}\n" for entry in board["recipes"] if entry["status"] != "done"]
    notes = [f"- {line}\n" for line in [*tables.left_out_besides_recipes(board), *board["stamps"]]]
    parts = ", ".join(f"{data[part]:,} {part}" for part in ("train", "validation", "test"))
    cut = f", cut to {data['max_rows']:,} rows" if data["max_rows"] else ""
    seeds = ", ".join(map(str, board["design"]["seeds"]))
    facts = (
        f"{data['source']}: {parts} rows{cut}; seeds {seeds}. Command: `{board['command']}`, {board['date'][:10]}, "
        f"{board['seconds'] / 60:.0f} min. Machine: {_named(board['machine'])}. Versions: {_named(board['versions'])}."
    )
    words = "\n".join(f"> {line}" for line in board["verdict"]["words"])
    head = f"## Comparison: {path.stem.replace('_', ' ')}\n\n{words}\n"
    stored = f"Stored in `benchmarks/results/comparisons/{path.name}`."
    return f"{head}\n{''.join(rows)}\n{_recalls(done)}\n{''.join([*undone, *notes])}\n{facts}\n{stored}\n"


def _recalls(done: list[dict[str, Any]]) -> str:
    """Return the recall of each class with its interval, one row for each recipe."""
    rows: list[dict[str, Any]] = []
    for entry in done:
        shown: dict[str, Any] = {"recall, 95% interval": entry["name"]}
        for one in entry["recall"]:
            shown[f"{one['label']} ({one['support']:,} rows)"] = _with_interval(one) if one["support"] else "no rows"
        rows.append(shown)
    return table(rows)


def _recipe_row(entry: dict[str, Any], metric: str) -> str:
    figure, cost = entry["test"][metric], entry["cost"]
    memory = "" if cost["peak_memory_bytes"] is None else f"{cost['peak_memory_bytes'] / 1e6:,.0f} MB"
    return row(
        f"{entry['name']}",
        _with_interval(figure),
        "" if entry["rate"] is None else f"{entry['rate']:g}",
        f"{cost['train_seconds']:.1f} s",
        memory,
        f"{cost['trained_parameters']:,}",
        f"{cost['rows_per_second']:,.0f}",
    )


def _with_interval(figure: dict[str, Any]) -> str:
    return f"{figure['mean']:.3f} ({format_interval(figure['low'], figure['high']) or 'no interval'})"


def _result(stored: dict[str, Any], file: str) -> str:
    own_facts = _facts({name: value for name, value in stored.items() if name not in _COMMON})
    facts = (
        f"Command: `{stored['command']}`, {stored['date']}. Machine: {_named(stored['machine'])}, load at the end "
        f"{stored['load_at_end']}. Versions: {_named(stored['versions'])}."
    )
    head = f"## {stored['name'].replace('_', ' ').capitalize()}\n\n{_about(stored)}\n"
    shown = _int8_tables(stored["rows"]) if stored["name"] == "int8_speed" else _tables(stored["rows"])
    return f"{head}\n{shown}\n{own_facts}\n{facts}\nStored in `benchmarks/results/{file}`.\n"


def _tables(rows: list[dict[str, Any]]) -> str:
    """Return one table, or one for each `part` where rows name theirs."""
    parts: dict[str | None, list[dict[str, Any]]] = {}
    for entry in rows:
        parts.setdefault(entry.get("part"), []).append({name: entry[name] for name in entry if name != "part"})
    return "\n".join(table(own) if part is None else f"{part}:\n\n{table(own)}" for part, own in parts.items())


def _int8_tables(rows: list[dict[str, Any]]) -> str:
    """Return a table of the speed of int8, and one of what it changes on each data set."""
    speeds = [
        {
            "base": entry["name"].removeprefix("speed, "),
            **{f"CPU s, {engine}": seconds for engine, seconds in entry["cpu_seconds"].items()},
            **{name: found["ratio"] for name, found in entry["ratios"].items()},
            "MB, fp32": entry["bytes"]["fp32"] / 1e6,
            "MB, int8": entry["bytes"]["int8"] / 1e6,
        }
        for entry in rows
        if "cpu_seconds" in entry
    ]
    quality = [
        {
            "data": entry["name"],
            "judging rows": entry["rows"]["judged"],
            "equal labels": _change(entry["equal_labels"], "value"),
            **{f"{name}, int8 less fp32": _change(found, "difference") for name, found in entry["metrics"].items()},
            "99.9% of probabilities within": entry["probabilities_apart"]["far"],
            "kept, by metric": ", ".join(name for name, kept in entry["kept"].items() if kept) or "no",
        }
        for entry in rows
        if "equal_labels" in entry
    ]
    return f"{table(speeds)}\n\n{table(quality)}"


def _change(found: dict[str, float], name: str) -> str:
    return f"{found[name]:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _about(stored: dict[str, Any]) -> str:
    """Return the first line of the benchmark's docstring today; of a script that is gone, the line stored then."""
    script = BENCHMARKS / Path(stored["command"].split()[1]).name
    if not script.is_file():
        return str(stored["about"])
    return (ast.get_docstring(ast.parse(script.read_text("utf-8"))) or "").partition("\n")[0]


def _facts(facts: dict[str, Any], indent: str = "") -> str:
    """Return the facts of a benchmark, one line each, and the history of a training as a table."""
    lines, tables = [], []
    for name, value in facts.items():
        title = name.replace("_", " ")
        if name == "history":
            tables.append(f"\n{_history(value)}\n")
        elif isinstance(value, dict) and any(isinstance(inner, (dict, list)) for inner in value.values()):
            lines += [f"{indent}- {title}:\n", _facts(value, f"{indent}  ")]
        elif isinstance(value, dict):
            short = {key.replace("_", " "): cell(own) for key, own in value.items() if key != "fingerprint"}
            lines.append(f"{indent}- {title}: {_named(short)}\n")
        else:
            lines.append(f"{indent}- {title}: {cell(value)}\n")
    return "".join([*lines, *tables])


def _history(history: list[dict[str, Any]]) -> str:
    """Return the evaluations of a training as a table."""
    wanted = ("step", "train_loss", "mlm_loss", "mlm_accuracy", "pair_accuracy", "general_mlm_loss", "learning_rate")
    return table([{name.replace("_", " "): entry[name] for name in wanted if name in entry} for entry in history])


_COMMON = {"name", "about", "command", "date", "machine", "load_at_end", "versions", "rows"}
"""Keys that every stored result has; the others belong to one benchmark."""


def _named(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


# Blocks of other pages


def splitters(folder: Path) -> str:
    """Return the measurements of libraries that split text into sentences."""
    stored = json.loads((folder / "sentence_splitters.json").read_text("utf-8"))
    return table([{name: row[name] for name in row if not name.startswith("WikiText")} for row in stored["rows"]])


def corpus_building(folder: Path) -> str:
    """Return the measurements of building a corpus."""
    return table(json.loads((folder / "corpus_building.json").read_text("utf-8"))["rows"])


def way_one(folder: Path) -> str:
    """Return what further pretraining gained for each recipe, means over the seeds."""
    stored = json.loads((folder / "further_pretraining.json").read_text("utf-8"))
    groups: dict[tuple[str, str], list[float]] = {}
    for line in stored["rows"]:
        groups.setdefault((line["recipe"], line["base"]), []).append(line["accuracy"])
    bases, recipes = (list(dict.fromkeys(names)) for names in zip(*((b, r) for r, b in groups), strict=True))
    rows = []
    for recipe in recipes:
        means = [sum(groups[recipe, base]) / len(groups[recipe, base]) for base in bases]
        spans = (f"{min(groups[recipe, base]):.3f} to {max(groups[recipe, base]):.3f}" for base in bases)
        spread = {base: f"{mean:.3f} ({span})" for base, mean, span in zip(bases, means, spans, strict=True)}
        rows.append({"recipe": recipe} | spread | {"difference": f"{means[1] - means[0]:+.3f}"})
    return table(rows)


def forgetting(folder: Path) -> str:
    """Return what a small base learned and forgot at four learning rates."""
    return table(json.loads((folder / "forgetting.json").read_text("utf-8"))["rows"])


def serving(folder: Path) -> str:
    """Return how servers did with 64 clients, and what happened under overload and over a restart."""
    stored = json.loads((folder / "serving.json").read_text("utf-8"))["rows"]
    busy = [entry for entry in stored if entry["part"] == "clients" and entry["clients"] == 64]
    fastest: dict[str, dict[str, Any]] = {}
    for entry in busy:
        shown = fastest.setdefault(entry["server"], {"server": entry["server"]})
        shown[f"{entry['texts']} texts a second"] = entry["requests a second"]
        shown[f"{entry['texts']}, p50 and p99 (ms)"] = f"{entry['p50']:.0f}, {entry['p99']:.0f}"
    overload, life = (next(entry for entry in stored if entry["part"] == part) for part in ("overload", "life"))
    alone = [
        f"{entry['texts a processor second']:.0f} ({entry['texts']}, {entry['precision']})"
        for entry in stored
        if entry["part"] == "library"
    ]
    again = life["refused with 503"] + life["not listening"] + life["closed before an answer"]
    return (
        f"{table(list(fastest.values()))}\n"
        f"The library alone, with all texts at once, computes {', '.join(alone)} a second on the same thread.\n"
        "With three times as many requests as it can answer, and a limit of 2 s, the server answered\n"
        f"{overload['requests a second']:.0f} a second, the slowest after {overload['slowest'] / 1000:.1f} s, and the "
        "others with 429; its memory went\n"
        f"from {overload['MB before']} to {overload['MB at most']} MB. Of {life['requests']:,} requests with a reload "
        "and a SIGTERM between them,\n"
        f"{life['broken answers']} answers broke off, {life['wrong scores']} scores differed from the library's, and "
        f"{again:,} requests were\nrefused and sent again ([all figures](../results.md)).\n"
    )
