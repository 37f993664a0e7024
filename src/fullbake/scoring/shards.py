"""Find the shards of an input: a file, a folder with all below it, a glob, or a place that pyarrow reads, such as s3://.

A shard keeps its place below the input, so that the output has the same folders. Names that start with `.` or `_` are
left out, as everywhere: other programs put their marks and unfinished files under such names.
"""

import glob
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote, urlsplit

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError
from fullbake.core.mistyped_paths import similar_paths
from fullbake.data.files import FORMATS, names_a_data_file
from fullbake.data.signatures import FOREIGN_ENDINGS
from fullbake.data.tables import COMPRESSED_ENDINGS, data_suffix

_MAGIC: Final = re.compile(r"[*?[]")
_PLAIN_TEXT: Final = ".txt"


@dataclass(frozen=True)
class InputShard:
    """One file of the input."""

    name: str
    """Its path below the input, with slashes; the name in every message and manifest."""

    place: str
    """Its absolute path, or its address with `://`."""

    size: int
    """Bytes."""

    changed: int
    """When it was changed last, in nanoseconds since 1970; 0 if its file system does not say."""

    @property
    def is_remote(self) -> bool:
        """True if pyarrow reads it."""
        return is_address(self.place)

    @property
    def output_name(self) -> str:
        """The name of its scored rows: the same, without compression; of a .txt file with the ending .tsv."""
        path = PurePosixPath(self.name)
        if path.suffix.lower() in COMPRESSED_ENDINGS:
            path = path.with_suffix("")
        return str(path.with_suffix(".tsv") if path.suffix.lower() == _PLAIN_TEXT else path)


def is_address(word: str) -> bool:
    """Return True if a word is an address such as s3://bucket/folder, which pyarrow reads."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", word) is not None


def names_several(word: str) -> bool:
    """Return True if a word names shards rather than one file: an address, a folder, or a glob without such a file."""
    return is_address(word) or Path(word).is_dir() or (_MAGIC.search(word) is not None and not Path(word).exists())


def find_shards(source: str | Path, dialect: Dialect) -> list[InputShard]:
    """Find the shards of an input.

    Args:
        source: A file, a folder, a glob such as `logs/*/part-*.csv`, or an address.
        dialect: How the files are written; a .txt file is a table only with a delimiter.

    Returns:
        The shards, in the order of their names.

    Raises:
        DataError: There is nothing, a file is no table, the files are of several formats, or two would be written under
            one name.
    """
    word = str(source)
    found = sorted(_at_address(word) if is_address(word) else _on_disk(Path(word)), key=lambda shard: shard.name)
    if not found:
        raise DataError(
            "there is no file to score",
            where=word,
            expected=f"files that end with {', '.join(FORMATS)}",
            remedy="Names that start with . or _ are left out.",
        )
    _check_formats(word, found, dialect)
    _check_names(found)
    return found


def _on_disk(source: Path) -> Iterator[InputShard]:
    if source.is_dir():
        yield from _shards_below(source, source.rglob("*"))
    elif source.exists():
        yield from _shards_below(source.parent, [source], named=True)
    elif _MAGIC.search(str(source)):
        parts = source.parts
        first = next(place for place, part in enumerate(parts) if _MAGIC.search(part))
        folder = Path(*parts[:first])
        yield from _shards_below(folder, map(Path, glob.iglob(str(source), recursive=True)))
    else:
        near = similar_paths(source, lambda other: other.is_dir() or names_a_data_file(other))
        raise DataError(
            "there is no such file or folder",
            where=str(source),
            remedy=f"Did you mean {near[0]!r}?" if near else "Check the path.",
        )


def _shards_below(folder: Path, paths: Iterable[Path], *, named: bool = False) -> Iterator[InputShard]:
    """Yield the visible files among paths. named: the caller named the file itself, so its name may be any."""
    for path in paths:
        name = path.relative_to(folder)
        if not path.is_file() or (not named and any(part[0] in "._" for part in name.parts)):
            continue
        status = path.stat()
        yield InputShard(name.as_posix(), str(path.resolve()), status.st_size, status.st_mtime_ns)


# Addresses


def open_address(address: str) -> tuple[Any, str]:
    """Return pyarrow's file system of an address, and the path in it.

    Raises:
        DataError: pyarrow does not know the kind of address, or cannot reach it; or it holds a password.
    """
    from pyarrow import ArrowException, fs

    _refuse_secrets(address)
    try:
        system, path = fs.FileSystem.from_uri(address)
    except (ArrowException, OSError, ValueError) as error:
        raise _unreachable(address, error) from None
    return system, str(path)


def _refuse_secrets(address: str) -> None:
    """Raise DataError if an address holds a password: it would stand in manifests, and go to every worker."""
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise DataError(
            "an address must not hold a name or a password",
            where=f"{parts.scheme}://***@{parts.hostname or ''}{parts.path}",
            remedy="Leave them out, and give them to each machine as its store reads them, such as AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, a file of credentials, or a role of the machine.",
        )


def _unreachable(address: str, error: Exception) -> DataError:
    return DataError(
        "this address cannot be read",
        where=address,
        got=" ".join(str(error).split())[:300],
        remedy="pyarrow reads s3://, gs://, abfs://, hdfs:// and file://; check the spelling and the credentials of "
        "this machine.",
    )


def _at_address(address: str) -> list[InputShard]:
    """Return the shards at an address, whose path may be a glob."""
    from pyarrow import ArrowException, fs

    scheme, rest = address.split("://", 1)
    rest, mark, options = rest.partition("?")
    parts = rest.split("/")
    first = next((place for place, part in enumerate(parts) if "*" in part or "[" in part), len(parts))
    pattern = "/".join(parts[first:])
    base = f"{scheme}://{'/'.join(parts[:first])}{mark}{options}"
    system, folder = open_address(base)
    try:
        info = system.get_file_info(folder)
        if info.type == fs.FileType.File:
            return [InputShard(PurePosixPath(folder).name, base, int(info.size or 0), int(info.mtime_ns or 0))]
        listed = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    except (ArrowException, OSError) as error:
        raise _unreachable(address, error) from None
    shards = []
    for entry in listed:
        name = str(PurePosixPath(entry.path).relative_to(folder))
        hidden = any(part[0] in "._" for part in PurePosixPath(name).parts)
        if entry.type != fs.FileType.File or hidden or (pattern and not _matches(name, pattern)):
            continue
        shards.append(InputShard(name, _below(base, name), int(entry.size or 0), int(entry.mtime_ns or 0)))
    return shards


def _below(address: str, name: str) -> str:
    """Return the address of a file below the folder that an address names, with the options after `?`."""
    base, mark, options = address.partition("?")
    return f"{base.rstrip('/')}/{quote(name)}{mark}{options}"


def _matches(name: str, pattern: str) -> bool:
    """Return True if a path fits a glob part by part; `**` stands for any number of folders."""
    parts, wanted = name.split("/"), pattern.split("/")
    if "**" not in wanted:
        return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
    place = wanted.index("**")
    tail = wanted[place + 1 :]
    head_fits = len(parts) >= place + len(tail) and all(map(fnmatchcase, parts[:place], wanted[:place]))
    return head_fits and all(map(fnmatchcase, parts[len(parts) - len(tail) :], tail))


# Checks


def _check_formats(word: str, shards: list[InputShard], dialect: Dialect) -> None:
    known = (*FORMATS, *([] if dialect.delimiter is None else [_PLAIN_TEXT]))
    for shard in shards:
        ending = data_suffix(Path(shard.name))
        if ending not in known:
            raise DataError(
                "the format of the file is not known",
                where=shard.place,
                expected=f"a name that ends with {', '.join(known)}",
                remedy=FOREIGN_ENDINGS.get(ending)
                or "Name the shards by a glob, such as 'folder/*.csv', or put a _ before the names of other files.",
            )
    first = shards[0]
    other = next((one for one in shards if _format(one) is not _format(first)), None)
    if other is not None:
        raise DataError(
            "the input holds files of several formats",
            where=word,
            got=f"{first.name} and {other.name}",
            remedy="Name those of one format by a glob, such as 'folder/*.csv'.",
        )


def _format(shard: InputShard) -> Any:
    return FORMATS.get(data_suffix(Path(shard.name)))


def _check_names(shards: list[InputShard]) -> None:
    seen: dict[str, str] = {}
    for shard in shards:
        other = seen.setdefault(shard.output_name.lower(), shard.name)
        if other != shard.name:
            raise DataError(
                "two files would be written under one name",
                where=shard.output_name,
                got=f"{other} and {shard.name}",
                remedy="Rename one of them, or name them by two globs and two folders.",
            )
