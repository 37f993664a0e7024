"""What the admission of `demo` costs: the first one with all its trials, and one that is remembered.

    python benchmarks/admission_cost.py

Each run is a process of its own with an empty cache and the default threads. `imports` are those that every run on a
base needs anyway (torch, transformers); `first` and `remembered` are what the admission adds.
"""

import json
import subprocess
import sys
import tempfile

from machine import store_result

RUNS = 5

CHILD = """
import json, sys, time
begun = time.perf_counter()
from fullbake.models.admission import examine
from fullbake.models.encoder import load_encoder
seconds = {"imports": time.perf_counter() - begun}
for name in ("first", "remembered"):
    begun = time.perf_counter()
    assert not examine("demo", cache_dir=sys.argv[1]).errors
    seconds[name] = time.perf_counter() - begun
print(json.dumps({name: round(value, 3) for name, value in seconds.items()}))
"""


def main() -> None:
    rows = []
    for number in range(1, RUNS + 1):
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run([sys.executable, "-c", CHILD, cache], check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"run": number, **json.loads(done.stdout)})
        print(rows[-1])
    middle = {name: sorted(row[name] for row in rows)[RUNS // 2] for name in ("imports", "first", "remembered")}
    store_result("admission_cost", rows, medians=middle)


if __name__ == "__main__":
    main()
