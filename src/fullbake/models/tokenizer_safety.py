"""Let a tokenizer.json into this process only after a process of its own has read it.

The first time that a file is seen, `tokenizer_trial` runs on it as a script: started anew, never forked, with limits on
processor time and memory. What it finds is remembered by the file's sha256 in the cache, so that it costs some tenths
of a second once. A file that this process wrote itself is remembered without a trial (`remember_written`). That a
bundle's fullbake.json records the same sha256 is no reason to skip the trial, since anybody can write one.

Trade-off: texts that were not tried can still make a wrong file fail; then the text is refused (`explain_failure`).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import tokenizers

from fullbake.core import runtime, storage
from fullbake.core.cache import Cache
from fullbake.core.errors import BaseModelError, Error
from fullbake.core.hashing import file_sha256, fingerprint, unchanged_file_sha256
from fullbake.core.json_files import Shape, ShapeFault, check_plain_file, match_shape
from fullbake.models import tokenizer_trial

_MOST_BYTES: Final = 1_000_000_000
"""Largest tokenizer.json. The largest of real encoders, with a million pieces, has under 100 MB."""

_SECONDS: Final = 60
"""Processor time of a trial. Half a million pieces take about 3 s; other machines are slower."""

_WALL_SECONDS: Final = 600.0
"""Time of a trial by the clock: many times more, as the machine may be busy."""

_LEAST_MEMORY: Final = 4_000_000_000
_MEMORY_PER_BYTE: Final = 60

_FORMAT: Final = 1
"""Raise it when the trial looks for more: files that were tried before are then tried again."""

_CACHE_BYTES: Final = 20_000_000
_ENTRY: Final = "tokenizer.json"

_REMEDY: Final = "Copy the tokenizer files of the model that this base was made from into its folder."


@dataclass(frozen=True)
class TokenizerFacts:
    """What a trial found out about a tokenizer.json."""

    highest_id: int
    """The largest token id that it can give."""

    tokens: int
    """The size of its vocabulary, added tokens included."""


class _Outcome(Shape):
    """What the trial prints."""

    highest_id: int = -1
    tokens: int = 0
    fault: str | None = None


_known: dict[str, TokenizerFacts] = {}
"""sha256 -> facts of the files that passed in this process."""


def check_tokenizer_file(file: Path, place: Path | str, *, sha256: str | None = None) -> TokenizerFacts:
    """Return the facts of a tokenizer.json that can be read without harm. See the module's docstring.

    Args:
        file: The tokenizer.json.
        place: The base or bundle, for the error.
        sha256: Of the file, where it is known already.

    Raises:
        BaseModelError: The file is no plain one, too large, or the library fails on it.
    """
    try:
        check_plain_file(file, _MOST_BYTES)
    except ShapeFault as fault:
        raise _unusable(place, str(fault)) from fault
    digest = sha256 or unchanged_file_sha256(file)
    if digest not in _known:
        _known[digest] = _remembered(digest) or _tried(file, place, digest)
    return _known[digest]


def remember_written(file: Path) -> None:
    """Note that a tokenizer.json is as this process wrote it, so that it needs no trial when it is read again.

    Args:
        file: The file. The tokenizer in it was read from a file that passed, or made here.
    """
    digest = file_sha256(file)
    if digest in _known or _remembered(digest) is not None:
        return
    outcome = tokenizer_trial.measure_tokenizer(tokenizers.Tokenizer.from_file(str(file)))
    _known[digest] = TokenizerFacts(**outcome)
    _remember(digest, _known[digest])


def _cache() -> Cache:
    return Cache(runtime.cache_dir() / "tokenizers", _CACHE_BYTES)


def _key(digest: str) -> str:
    return fingerprint("tokenizer trial", _FORMAT, tokenizers.__version__, digest)


def _remembered(digest: str) -> TokenizerFacts | None:
    with suppress(Error, OSError, ValueError):  # a cache that cannot be used is no reason to stop
        folder = _cache().get(_key(digest))
        if folder is not None:
            outcome = match_shape(_Outcome, storage.read_json(folder / _ENTRY))
            return TokenizerFacts(outcome.highest_id, outcome.tokens)
    return None


def _tried(file: Path, place: Path | str, digest: str) -> TokenizerFacts:
    outcome = run_trial(file)
    if outcome.fault is not None:
        raise _unusable(place, outcome.fault)
    facts = TokenizerFacts(outcome.highest_id, outcome.tokens)
    _remember(digest, facts)
    return facts


def _remember(digest: str, facts: TokenizerFacts) -> None:
    cache = _cache()
    with suppress(Error, OSError):  # a cache that may not be written costs a trial in each process, and no warning
        storage.require_writable(cache.root / _ENTRY)
        with cache.put(_key(digest), f"trial of a tokenizer of {facts.tokens:,} tokens") as new:
            storage.write_json(new / _ENTRY, asdict(facts))


def run_trial(file: Path, *, seconds: int = _SECONDS, memory: int | None = None) -> _Outcome:
    """Run the trial on a tokenizer.json in a process of its own.

    Args:
        file: The file.
        seconds: Its processor time.
        memory: Its address space in bytes; None for a number that grows with the file.
    """
    if memory is None:
        memory = max(_LEAST_MEMORY, _MEMORY_PER_BYTE * file.stat().st_size)
    packages = str(Path(tokenizers.__file__).parent.parent)
    command = [sys.executable, "-P", tokenizer_trial.__file__, str(file), str(seconds), str(memory), packages]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | quiet,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Outcome(fault=f"reading it took more than {_WALL_SECONDS:.0f} s")
    try:
        return match_shape(_Outcome, json.loads(done.stdout))
    except ValueError:  # killed by a limit, or by the library itself, before it printed anything
        return _Outcome(
            fault=f"reading it ended with code {done.returncode}: it needs more than {seconds} s of processor time or "
            f"{memory / 1e9:.0f} GB, or makes the library crash"
        )


def _unusable(place: Path | str, reason: str) -> BaseModelError:
    return BaseModelError(
        "its tokenizer.json cannot be used",
        where=f"base '{place}'",
        expected="a file that the tokenizers library reads without trouble",
        got=reason.rstrip("."),
        remedy=_REMEDY,
    )


def is_failure(error: BaseException) -> bool:
    """Return True if the Rust side of the tokenizers library raised this: a bare Exception, or a panic."""
    return type(error) is Exception or type(error).__name__ == "PanicException"


@contextmanager
def explain_failure(place: Path | str) -> Iterator[None]:
    """Turn a failure of the tokenizers library within the block into a BaseModelError.

    Args:
        place: The base or bundle, for the error.

    Yields:
        Nothing.

    Raises:
        BaseModelError: The library failed.
    """
    try:
        yield
    except BaseException as error:
        if not is_failure(error):
            raise
        raise BaseModelError(
            "its tokenizer fails on a text",
            where=f"base '{place}'",
            expected="a tokenizer that reads any text",
            got=" ".join(str(error).split())[:300],
            remedy=_REMEDY,
        ) from error
