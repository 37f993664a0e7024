"""Write the awkward files of nasty_files.py into a folder: python tests/helpers/write_nasty_files.py FOLDER."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.nasty_files import CASES, FOLDERS


def write_nasty_files(folder: Path) -> None:
    """Write all cases as files, the folders of files, and a pipe."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        (folder / case.name).write_bytes(case.content)
    for name, files, _ in FOLDERS:
        (folder / name).mkdir(exist_ok=True)
        for case in files:
            (folder / name / case.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / case.name).write_bytes(case.content)
    if not (folder / "a_pipe.csv").exists():
        os.mkfifo(folder / "a_pipe.csv")


if __name__ == "__main__":
    write_nasty_files(Path(sys.argv[1]))
    print(f"{len(CASES)} files, {len(FOLDERS)} folders and a pipe in {sys.argv[1]}")
