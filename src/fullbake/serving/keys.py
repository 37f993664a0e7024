"""API keys: read from a file, compared in constant time, read again when the file changes."""

import hmac
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from fullbake.core.console import say, warn
from fullbake.core.errors import RecipeError, one_line
from fullbake.core.hashing import file_stamp

SHORTEST_KEY: Final = 16
"""Fewest characters of a key; shorter ones can be guessed."""

_CHECKED_EVERY: Final = 1.0
"""Seconds between looks at the file."""


class ApiKeys:
    """The keys that a server accepts.

    Args:
        path: A text file with one key a line. Empty lines and those that start with # are left out.

    Raises:
        RecipeError: The file cannot be read, has no key, or one that is too short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = file_stamp(path)
        self._digests = _read_keys(path)
        self._looked = time.monotonic()

    def accept(self, key: str) -> bool:
        """Return True if a key is one of them. It takes the same time whichever it is, or is not."""
        self._read_again()
        digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = False
        for own in self._digests:
            found |= hmac.compare_digest(own, digest)
        return found

    def _read_again(self) -> None:
        """Read the file if it changed. A file that is wrong now leaves the keys as they are, and a warning says so."""
        now = time.monotonic()
        if now - self._looked < _CHECKED_EVERY:
            return
        self._looked, stamp = now, file_stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._digests = _read_keys(self._path)
        except RecipeError as error:
            warn(f"the API keys stay as they are: {one_line(error)}")
        else:
            say(f"API keys read again: {len(self._digests)}")


def _read_keys(path: Path) -> list[bytes]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            "the file of API keys cannot be read",
            where=f"--api-key-file {path}",
            expected="a text file with one key a line",
            got=str(error)[:200],
        ) from error
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise RecipeError(
            "the file of API keys has none",
            where=f"--api-key-file {path}",
            expected="one key a line",
            remedy="Write one: python -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE.",
        )
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST_KEY:
            raise RecipeError(
                f"key {number} is too short",
                where=f"--api-key-file {path}",
                expected=f"at least {SHORTEST_KEY} characters",
                got=f"{len(key)}",
                remedy="Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'.",
            )
    return [sha256(key.encode()).digest() for key in keys]
