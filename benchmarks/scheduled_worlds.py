"""Whether a comparison uses and keeps its budget in random worlds with wrong forecasts and changing machines.

    python benchmarks/scheduled_worlds.py [worlds]

Nothing is trained: the rules of `fullbake.comparison.schedule` run on a clock of their own. A trial takes half to five
times its forecast, and the machine may become ten times slower or faster at any moment. The tests play five hundred of
these worlds; here are more, with counts. Calls of a comparison that were killed are not counted.
"""

import sys
from pathlib import Path

import numpy as np
from machine import store_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.schedule_worlds import (
    CLOSING,
    BeliefCosts,
    End,
    Run,
    World,
    draw_world,
    smallest_sweep_in_truth,
    way_of,
)


def uses_budget(end: End) -> bool:
    """Return True if a call used 85% of its budget, did everything, or had no time for the cheapest rest."""
    if end.budget is None or end.cheapest_wanted is None:
        return True
    left = (1 - CLOSING) * end.budget - end.used
    return end.used >= 0.85 * end.budget or left < 1.2 * end.cheapest_wanted


def keeps_budget(world: World, end: End) -> bool:
    """Return True if a call took at most 110% of its budget, apart from work that cannot be interrupted."""
    return end.budget is None or end.used <= 1.1 * end.budget + (world.slower + 1) * end.tick


def main(worlds: int) -> None:
    """Play the worlds and store the counts."""
    calls = used = kept = jumps = 0
    ways: dict[str, list[bool]] = {"1 to 2": [], "2 to 3": [], "3 to 10": [], "10 and more": []}
    for number in range(worlds):
        world = draw_world(np.random.default_rng(number))
        run = Run(world).go()
        calls += len(run.ends)
        used += sum(uses_budget(end) for end in run.ends)
        kept += sum(keeps_budget(world, end) for end in run.ends)
        jumps += sum(rise > correction + 1e-6 * max(world.epoch, 1) for rise, correction in run.shown)
        if world.killed_after is None and run.ends:
            rules = run.schedule(BeliefCosts(world))
            missing = {way_of(name) for name in world.names} - {
                way_of(name) for name in world.names if rules.best(name) is not None
            }
            times = max((end.budget or np.inf) for end in run.ends) / smallest_sweep_in_truth(world)
            for least, most, name in (
                (1, 2, "1 to 2"),
                (2, 3, "2 to 3"),
                (3, 10, "3 to 10"),
                (10, np.inf, "10 and more"),
            ):
                if least <= times < most:
                    ways[name].append(not missing)
    rows = [
        {"budget over the smallest sweep": name, "worlds": len(found), "all ways there": sum(found)}
        for name, found in ways.items()
    ]
    counts = {"worlds": worlds, "calls": calls, "budget_used": used, "budget_kept": kept, "jumps_of_time_left": jumps}
    print(counts, *rows, sep="\n")
    store_result("scheduled_worlds", rows, **counts)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3000)
