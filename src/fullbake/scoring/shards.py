"""Find the shards of an input: a file, a folder with all below it, a glob, or a place that pyarrow reads, such as s3://.

A shard keeps its place below the input, so that the output has the same folders. Names that start with `.` or `_` are
left out, as everywhere: other programs put their marks and unfinished files under such names.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fullbake.config.sections import Dialect
from fullbake.core.errors import DataError, Error
from fullbake.core.mistyped_paths import similar_paths
from fullbake.data.files import FORMATS, names_a_data_file
from fullbake.data.signatures import FOREIGN_ENDINGS
from fullbake.data.tables import COMPRESSED_ENDINGS, data_suffix

_MAGIC: Final = re.compile(r"[*?[]")
_PLAIN_TEXT: Final = ".txt"

_GOOGLE_SECONDS: Final = 10
"""Google's library would try for a quarter of an hour to reach a store that does not answer."""

_SECRET: Final = re.compile(r"secret|key|token|password|signature", re.IGNORECASE)
_NO_ANSWER: Final = re.compile(r"NETWORK_CONNECTION|REQUEST_TIMEOUT|UNAVAILABLE|CURL error|curlCode|[Tt]imed out")
_REFUSED: Final = re.compile(
    r"ACCESS_DENIED|ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|INVALID_CLIENT_TOKEN|(EXPIRED|SECURITY)_TOKEN"
    r"|PERMISSION_DENIED|UNAUTHENTICATED|HTTP status 40[13]|OAuth2 access token|Authentic|Authoriz"
)


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
        folder = Path(split_glob(source.as_posix())[0])
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
        system, path = fs.FileSystem.from_uri(_as_uri(address))
    except (ArrowException, OSError, ValueError) as error:
        raise address_error(address, error) from None
    return system, str(path)


def _as_uri(address: str) -> str:
    """Return an address with escapes for what a URI may not hold, such as spaces, and a bound on Google's retries."""
    # pyarrow would cut a path at a # in silence.
    uri = re.sub(r"%(?![0-9A-Fa-f]{2})|[^!-~]|#", lambda found: quote(found[0]), address)
    if not uri.startswith(("gs://", "gcs://")) or "retry_limit_seconds=" in uri:
        return uri
    return f"{uri}{'&' if _split_options(uri)[1] else '?'}retry_limit_seconds={_GOOGLE_SECONDS}"


def _split_options(address: str) -> tuple[str, str]:
    """Return an address without its options, and these with their `?`. Another `?` is that of a glob."""
    found = re.search(r"\?(?=\w+=)", address)
    return (address, "") if found is None else (address[: found.start()], address[found.start() :])


def _refuse_secrets(address: str) -> None:
    """Raise DataError if an address holds a secret: it would stand in manifests, and go to every worker.

    A name before `@` is none by itself: Azure has the container there, and Hadoop the user.
    """
    parts = urlsplit(address)
    options = {name: "***" if _SECRET.search(name) else value for name, value in parse_qsl(parts.query)}
    key = parts.username if parts.scheme == "s3" else None
    if parts.password or key or "***" in options.values():
        query = f"?{urlencode(options, safe='*')}" if options else ""
        raise DataError(
            "an address must not hold a password or a key",
            where=f"{parts.scheme}://***@{parts.hostname or ''}{parts.path}{query}",
            remedy="Leave them out, and give them to each machine as its store reads them, such as AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, a file of credentials, or a role of the machine.",
        )


def address_error(address: str, error: Exception) -> Error:
    """Return the error that says why pyarrow cannot read an address: the network, the credentials, or the name.

    Returns:
        A DataError if another file may be readable; an Error if the store does not answer.
    """
    text = " ".join(str(error).split()).removesuffix(".")
    if _REFUSED.search(text):
        known = "set" if os.environ.get("AWS_ACCESS_KEY_ID") else "not set"
        where = f" AWS_ACCESS_KEY_ID is {known} here." if address.startswith("s3") else ""
        return DataError(
            "the store refuses to show this: the credentials are missing or wrong, or may not read it",
            where=address,
            got=text[:300],
            remedy=f"Give this machine credentials that may list the folder and read its files.{where}",
        )
    if _NO_ANSWER.search(text):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return Error(
            "the store of this address does not answer",
            where=address,
            expected=f"an answer of {endpoint} (AWS_ENDPOINT_URL)" if endpoint and address.startswith("s3") else None,
            got=text[:300],
            remedy="Check the network. A store of your own is named by AWS_ENDPOINT_URL=http://HOST:PORT, or in the "
            "address: s3://bucket/folder?endpoint_override=HOST:PORT&scheme=http.",
        )
    if "NO_SUCH_BUCKET" in text:
        return DataError("there is no such bucket", where=address, remedy="Check its name, and the endpoint.")
    if isinstance(error, FileNotFoundError):
        return DataError("there is no such file or folder", where=address, remedy="Check the path below the bucket.")
    return DataError(
        "this address cannot be read",
        where=address,
        got=text[:300],
        remedy="pyarrow reads s3://, gs://, abfs://, hdfs:// and file://; check the spelling and the credentials of "
        "this machine.",
    )


def split_glob(source: str) -> tuple[str, str]:
    """Return the folder of a glob and the pattern below it; of what is no glob the source itself and "".

    Args:
        source: A path, or an address, whose options stay with the folder.
    """
    start, rest = source.split("://", 1) if is_address(source) else ("", source)
    rest, options = _split_options(rest) if start else (rest, "")
    parts = rest.split("/")
    first = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    folder = "/".join(parts[:first]) or ("/" if rest.startswith("/") and not start else "")
    pattern = "/".join(parts[first:])
    return (f"{start}://{folder}{options}", unquote(pattern)) if start else (folder, pattern)


def _at_address(address: str) -> list[InputShard]:
    """Return the shards at an address, whose path may be a glob."""
    from pyarrow import ArrowException, fs

    base, pattern = split_glob(address)
    system, folder = open_address(base)
    try:
        info = system.get_file_info(folder)
        if info.type == fs.FileType.File:
            return [InputShard(PurePosixPath(folder).name, base, int(info.size or 0), int(info.mtime_ns or 0))]
        listed = system.get_file_info(fs.FileSelector(folder, recursive=True))
    except (ArrowException, OSError) as error:
        raise address_error(address, error) from None
    shards = []
    for entry in listed:
        name = str(PurePosixPath(entry.path).relative_to(folder))
        hidden = any(part[0] in "._" for part in PurePosixPath(name).parts)
        if entry.type != fs.FileType.File or hidden or (pattern and not fits_glob(name, pattern)):
            continue
        shards.append(InputShard(name, _below(base, name), int(entry.size or 0), int(entry.mtime_ns or 0)))
    return shards


def _below(address: str, name: str) -> str:
    """Return the address of a file below the folder that an address names, with the options after `?`."""
    base, options = _split_options(address)
    return f"{base.rstrip('/')}/{quote(name)}{options}"


def fits_glob(name: str, pattern: str) -> bool:
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
