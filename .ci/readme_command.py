"""Print one of the README's two commands: `demo` or `tests` (the bash block under the heading of that name)."""

import re
import sys
from pathlib import Path

HEADINGS = {"demo": "See it work", "tests": "Run the tests"}


def command(name: str, readme: Path = Path("README.md")) -> str:
    """The block under the heading of `name` (a key of HEADINGS); SystemExit where there is none."""
    pattern = rf"^## {re.escape(HEADINGS[name])}\n.*?^```bash\n(.*?)^```$"
    found = re.search(pattern, readme.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"README.md: expected a bash block under '## {HEADINGS[name]}', found none.")
    return found[1]


if __name__ == "__main__":
    print(command(sys.argv[1]), end="")
