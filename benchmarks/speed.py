"""The speed of fullbake relative to what people use today, as ratios that are measured in one run.

    python benchmarks/speed.py FOLDER_OF_DATA [name ...] [--again] [--full] [--quick] [--threads N]

The names are those of speed_rows.py. By default all comparisons without a stored result are measured, which takes about
25 minutes on two cores; nothing else should run on the machine. Each result is stored in results/speed/NAME.json as
soon as it is complete, so that a run that was stopped can be resumed. --again measures stored comparisons again. --full
uses all rows for the slow sides too, which takes hours. --quick is a trial with tiny sizes that stores nothing.
fullbake's own switches are environment variables (FULLBAKE_HOLD_MEMORY=1) and are stored with the result.
FOLDER_OF_DATA holds ag_news_test.csv, jigsaw_8k.csv and sms_spam.csv.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, store_result
from rounds import ATTEMPTS, Measured, Side, measure
from speed_rows import SIZES, Comparison, Peer, comparisons

FOLDER = "speed"
SWITCHES = ("FULLBAKE_HOLD_MEMORY", "FULLBAKE_FAST_KERNELS")


def main() -> None:
    arguments = _arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before any child loads torch
    size = "quick" if arguments.quick else "full" if arguments.full else "usual"
    found = comparisons(arguments.data, SIZES[size])
    unknown = [name for name in arguments.names if name not in found]
    if unknown:
        raise SystemExit(f"there is no comparison {', '.join(unknown)}. Choose from: {', '.join(found)}.")
    for name in arguments.names or found:
        if not arguments.quick and not arguments.again and (RESULTS / FOLDER / f"{name}.json").exists():
            print(f"{name}: a result is stored; --again measures it again")
            continue
        facts = run(found[name], arguments.threads, quick=arguments.quick)
        _print(found[name], facts)
        if not arguments.quick:
            store_result(f"{FOLDER}/{name}", facts.pop("rows"), **_settings(arguments, size), **facts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=lambda path: str(Path(path).resolve()), help="the folder of the data sets")
    parser.add_argument("names", nargs="*", help="comparisons of speed_rows.py")
    parser.add_argument(
        "--all", action="store_true", help="all comparisons without a stored result, which is the default"
    )
    parser.add_argument("--again", action="store_true", help="measure comparisons with a stored result again")
    parser.add_argument("--full", action="store_true", help="use all rows for the slow sides too")
    parser.add_argument("--quick", action="store_true", help="use tiny sizes, and store nothing")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def _settings(arguments: argparse.Namespace, size: str) -> dict[str, Any]:
    switches = {name: os.environ[name] for name in SWITCHES if name in os.environ}
    return {"threads_of_a_side": arguments.threads, "size": size, "switches": switches}


def run(comparison: Comparison, threads: int, *, quick: bool = False) -> dict[str, Any]:
    """Measure a comparison and, in the same rounds, a large matrix product."""
    product = Side("matrix product", "ours:matrix_product", {"size": 512 if quick else 2048})
    sides = [comparison.ours, *(peer.side for peer in comparison.peers), product]
    ours, *peers, machine = measure(
        sides,
        rounds=comparison.rounds,
        threads=threads,
        warm_up=comparison.warm_up,
        attempts=1 if quick else ATTEMPTS,
    )
    most = max(facts["operations_per_second"] for facts in machine.facts)
    rows = [_side_row(ours, most, ours), *(_side_row(peer, most, ours) for peer in peers)]
    for row, aim, peer in zip(rows[1:], comparison.peers, peers, strict=True):
        row |= _ratio(aim, ours, peer) | _agreement(comparison, ours, peer)
    return {
        "work": comparison.work,
        "rounds": comparison.rounds,
        "quality": comparison.quality,
        "share_at_least": comparison.share_at_least,
        "operations_per_second": most,
        "rows": rows,
    }


def _side_row(measured: Measured, most: float, ours: Measured) -> dict[str, Any]:
    """Return the entry of one side.

    Its share of the machine counts the operations that the work needs, not those that the side executed.
    """
    middle = statistics.median(measured.seconds)
    needed = ours.facts[-1].get("operations")
    return {
        "side": measured.name,
        "median": middle,
        "seconds": measured.seconds,
        "scaled_by": measured.scale,
        "share_of_product": None if needed is None else needed / middle / most,
        "others": max(measured.others),
        "repeats": measured.repeats,
        "facts": measured.facts[-1],
    }


def _ratio(aim: Peer, ours: Measured, peer: Measured) -> dict[str, Any]:
    """Return how many times faster fullbake is in each round; if the aim is a time, how many times longer it takes."""
    pairs = zip(ours.seconds, peer.seconds, strict=True)
    rounds = [own / other if aim.at_most else other / own for own, other in pairs]
    return {
        "ratio": statistics.median(rounds),
        "ratio_low": min(rounds),
        "ratio_high": max(rounds),
        "at_least": aim.at_least,
        "at_most": aim.at_most,
    }


def _agreement(comparison: Comparison, ours: Measured, peer: Measured) -> dict[str, Any]:
    """Return the largest difference between the answers.

    Raises:
        SystemExit: The difference is more than rounding, so the sides did not do the same work.
    """
    if comparison.agreement is None or ours.answer is None or peer.answer is None:
        return {}
    one, other = (unit_rows(side.answer) if comparison.normalized else side.answer for side in (ours, peer))
    difference = float(np.abs(one - other).max())
    if not difference <= comparison.agreement:
        raise SystemExit(f"{comparison.work}: the answers differ by {difference:.2g}")
    return {"apart": difference}


def unit_rows(rows: Any) -> Any:
    """Scale each row to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _print(comparison: Comparison, facts: dict[str, Any]) -> None:
    print(f"\n{comparison.work} (product {facts['operations_per_second'] / 1e9:.0f} GFLOP/s)")
    for row in facts["rows"]:
        share = "" if row["share_of_product"] is None else f", {row['share_of_product']:.0%} of the product"
        ratio = (
            f", ratio {row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})" if "ratio" in row else ""
        )
        details = (
            f"{row['median']:.3f} s{share}{ratio}, others used {row['others']:.2f} processors, {row['repeats']} repeats"
        )
        print(f"  {row['side']}: {details}", flush=True)


if __name__ == "__main__":
    main()
