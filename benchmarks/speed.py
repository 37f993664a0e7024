"""How fast fullbake is beside what people use today, as ratios measured in one run.

    python benchmarks/speed.py FOLDER_OF_DATA [name ...] [--again] [--full] [--quick] [--threads N]

Names are those of speed_rows.py; without any, all that have no result yet are run (some 25 minutes on two cores; leave
the machine alone meanwhile). Each result is kept at once in results/speed/NAME.json: a run that was stopped goes on
where it was. --again measures anew what is kept. --full takes all rows for the slow sides too, which takes hours.
--quick is a trial at tiny sizes that keeps nothing. FOLDER_OF_DATA holds ag_news_test.csv, jigsaw_8k.csv and
sms_spam.csv.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, keep
from rounds import ATTEMPTS, Measured, Side, measure
from speed_rows import SIZES, Against, Comparison, comparisons

KEPT = "speed"


def main() -> None:
    asked = _arguments()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)  # before any child loads torch
    size = "quick" if asked.quick else "full" if asked.full else "usual"
    found = comparisons(asked.data, SIZES[size])
    unknown = [name for name in asked.names if name not in found]
    if unknown:
        raise SystemExit(f"no comparison {', '.join(unknown)}. There is: {', '.join(found)}.")
    for name in asked.names or found:
        if not asked.quick and not asked.again and (RESULTS / KEPT / f"{name}.json").exists():
            print(f"{name}: kept before; --again measures it anew")
            continue
        facts = run(found[name], asked.threads, quick=asked.quick)
        _print(found[name], facts)
        if not asked.quick:
            keep(f"{KEPT}/{name}", facts.pop("rows"), threads_of_a_side=asked.threads, size=size, **facts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--all", action="store_true", help="all that are not kept yet: what happens without names too")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


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
    for row, against, peer in zip(rows[1:], comparison.peers, peers, strict=True):
        row |= _ratio(against, ours, peer) | _agreement(comparison, ours, peer)
    return {
        "work": comparison.work,
        "rounds": comparison.rounds,
        "quality": comparison.quality,
        "share_at_least": comparison.share_at_least,
        "operations_per_second": most,
        "rows": rows,
    }


def _side_row(measured: Measured, most: float, ours: Measured) -> dict[str, Any]:
    """One side. Its share of the machine is that of the operations which the work needs, whatever the side did."""
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


def _ratio(against: Against, ours: Measured, peer: Measured) -> dict[str, Any]:
    """How many times faster we are, round by round; or, where that is the aim, how many times longer we take."""
    pairs = zip(ours.seconds, peer.seconds, strict=True)
    rounds = [own / other if against.at_most else other / own for own, other in pairs]
    return {
        "ratio": statistics.median(rounds),
        "ratio_low": min(rounds),
        "ratio_high": max(rounds),
        "at_least": against.at_least,
        "at_most": against.at_most,
    }


def _agreement(comparison: Comparison, ours: Measured, peer: Measured) -> dict[str, Any]:
    """How far the answers lie apart at most. Raises SystemExit where that is more than rounding: then the sides did not
    do the same work."""
    if comparison.agreement is None or ours.answer is None or peer.answer is None:
        return {}
    one, other = (_unit(side.answer) if comparison.normalized else side.answer for side in (ours, peer))
    apart = float(np.abs(one - other).max())
    if not apart <= comparison.agreement:
        raise SystemExit(f"{comparison.work}: the answers lie {apart:.2g} apart")
    return {"apart": apart}


def _unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _print(comparison: Comparison, facts: dict[str, Any]) -> None:
    print(f"\n{comparison.work} (product {facts['operations_per_second'] / 1e9:.0f} GFLOP/s)")
    for row in facts["rows"]:
        share = "" if row["share_of_product"] is None else f", {row['share_of_product']:.0%} of the product"
        ratio = (
            f", ratio {row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})" if "ratio" in row else ""
        )
        told = (
            f"{row['median']:.3f} s{share}{ratio}, others took {row['others']:.2f} processors, {row['repeats']} repeats"
        )
        print(f"  {row['side']}: {told}", flush=True)


if __name__ == "__main__":
    main()
