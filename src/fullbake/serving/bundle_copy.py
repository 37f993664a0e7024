"""A copy of a bundle that nobody else changes while it is served.

Both engines map the weights into memory and read them from the file as they need them. Whoever overwrites that file
would change the scores of a running server, and whoever truncates it would end the server (SIGBUS). So a bundle is
loaded from a copy in the folder for temporary files, whose names are removed as soon as it is loaded; the system keeps
their content until the server lets go of it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fullbake.classifier.cascade_files import MEMBERS, is_cascade
from fullbake.classifier.engines import INT8_FOLDER
from fullbake.core.console import warn
from fullbake.core.errors import Error


@contextmanager
def private_copy(folder: Path) -> Iterator[Path]:
    """Yield a copy of a bundle or a cascade, which is removed after the block; errors name the bundle itself.

    Args:
        folder: The bundle. If it cannot be copied, it is yielded itself, and a warning says what follows from that.
    """
    if os.name == "nt":  # files in use can neither be truncated nor removed there
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="fullbake-serve-", ignore_cleanup_errors=True) as place:
        copy = Path(place) / "bundle"
        try:
            _copy_files(folder, copy)
        except OSError as error:
            if folder.is_dir():
                warn(
                    f"{folder} is served without a copy of its own ({error.strerror or error}). Do not overwrite its "
                    "files while the server runs; set TMPDIR to a folder with room for a copy"
                )
            copy = folder
        try:
            yield copy
        except Error as error:
            error.args = tuple(str(part).replace(str(copy), str(folder)) for part in error.args)
            raise


def _copy_files(folder: Path, copy: Path) -> None:
    """Copy the files of a bundle with those of its int8 graph; of a cascade also those of its members."""
    copy.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            shutil.copyfile(path, copy / path.name)
    for name in (INT8_FOLDER, *(MEMBERS if is_cascade(folder) else ())):
        if (folder / name).is_dir():
            _copy_files(folder / name, copy / name)
