"""Load a bundle from a model hub by its id, such as `org/name`, through the cache of huggingface_hub.

A local folder of that name wins. Only the files that the bundle's own fullbake.json lists are fetched, all of the same
commit, so nothing else that a repository holds reaches this machine. HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE
act as everywhere else. Without network a bundle that was loaded before is found in the cache.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fullbake.classifier.cascade_files import CASCADE_FILE, MEMBERS
from fullbake.classifier.manifest import SEEN_FILE, UNHASHED_FILES, read_manifest
from fullbake.core.console import say
from fullbake.core.errors import BundleError, Error
from fullbake.core.extras import name_missing_extra
from fullbake.core.storage import MANIFEST_FILE

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""An organization or a user, and a name."""

FIRST_ANSWER_SECONDS: Final = 10.0
"""How long the hub may take to answer the first question."""


def is_hub_id(word: str | Path) -> bool:
    """Return True if a word is the id of a repository, and there is no such file or folder here.

    Args:
        word: What a user calls a bundle. A `Path` object is never an id.
    """
    return isinstance(word, str) and _ID.fullmatch(word) is not None and not Path(word).exists()


def local_bundle(word: str | Path, revision: str | None = None) -> Path:
    """Return the folder of a bundle, which is fetched first if the word is the id of a repository.

    Args:
        word: A folder or an id.
        revision: A branch, a tag or a commit; only of an id.

    Raises:
        BundleError: There is no such repository, it may not be read, it holds no bundle, or the hub cannot be reached.
    """
    if is_hub_id(word):
        return fetch_bundle(str(word), revision)
    if revision is not None:
        raise BundleError(
            "a revision belongs to a repository on the hub, and this is a folder",
            where=str(word),
            got=f"revision {revision!r}",
            remedy="Leave out --revision (revision).",
        )
    return Path(word)


def fetch_bundle(repo: str, revision: str | None = None) -> Path:
    """Fetch a bundle or a cascade from the hub into its cache, and return the folder there.

    Args:
        repo: The id of the repository.
        revision: A branch, a tag or a commit. None: `main`.

    Raises:
        BundleError: As for `local_bundle`.
    """
    unreachable = _why_unreachable()
    for name in (MANIFEST_FILE, CASCADE_FILE):
        found = _fetch(repo, name, revision, optional=True, unreachable=unreachable)
        if found is not None:
            break
    else:
        raise BundleError(
            "this repository holds no fullbake bundle",
            where=_place(repo, revision),
            expected=f"a repository with {MANIFEST_FILE}, as `fullbake push` makes it",
            remedy=f"A model of transformers is used by transformers itself; an encoder may be a base: --base {repo}.",
        )
    commit = found.parent.name  # .../snapshots/COMMIT
    # onnxruntime reads no weights through a link that leaves the graph's folder, as those of the cache do.
    folder = found.parent.parent.parent / "fullbake" / commit
    members = ("",) if name == MANIFEST_FILE else tuple(f"{member}/" for member in MEMBERS)
    for member in members:
        _fetch_member(repo, commit, folder, member, unreachable)
    if name == CASCADE_FILE:
        _place_file(found.resolve(), folder / CASCADE_FILE)
    return folder


def _fetch_member(repo: str, commit: str, folder: Path, member: str, unreachable: str | None) -> None:
    """Fetch the files that a fullbake.json lists, unless the folder has them all.

    Args:
        repo: The id.
        commit: The commit.
        folder: The folder of the bundle in the cache.
        member: The folder of this fullbake.json with a slash, empty for the repository itself.
        unreachable: Why the hub cannot be asked; None if it can be.
    """
    manifest = _fetch(repo, f"{member}{MANIFEST_FILE}", commit, unreachable=unreachable)
    assert manifest is not None
    with hub_faults(repo, folder):
        files = read_manifest(manifest.parent)["files"]
    new = [name for name in (*files, MANIFEST_FILE) if not (folder / f"{member}{name}").is_file()]
    if not new:
        return
    size = sum(int(files[name]["size"]) for name in new if name in files)
    say(f"fetching {len(new)} files of {repo} ({size / 1e6:,.1f} MB)")
    for name in (*UNHASHED_FILES, *files, MANIFEST_FILE):  # the last one says that all are here
        found = _fetch(repo, f"{member}{name}", commit, optional=name in UNHASHED_FILES, unreachable=unreachable)
        if found is not None:
            _place_file(found.resolve(), folder / f"{member}{name}")


def _place_file(source: Path, target: Path) -> None:
    """Give a file of the cache a second name, or copy it where the file system has no hard links."""
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, fresh)
    except OSError:
        shutil.copyfile(source, fresh)
    os.replace(fresh, target)


def _why_unreachable() -> str | None:
    """Return why the hub cannot be asked, or None. It is asked once: its own client would try for half a minute."""
    with name_missing_extra():
        from huggingface_hub import constants, get_session
    try:
        get_session().head(constants.ENDPOINT, timeout=FIRST_ANSWER_SECONDS)
    except Exception as error:  # offline mode, and whatever the HTTP library raises
        return without_token(str(error)) or type(error).__name__
    return None


def _fetch(
    repo: str, name: str, revision: str | None, *, optional: bool = False, unreachable: str | None = None
) -> Path | None:
    """Return where a file of a repository is in the cache, or None if it is optional and the repository lacks it.

    Args:
        repo: The id.
        name: The file.
        revision: A branch, a tag or a commit.
        optional: Whether the repository may lack it.
        unreachable: Why the hub cannot be asked, so that only the cache is.
    """
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repo, name, revision=revision, local_files_only=unreachable is not None))
    except errors.LocalEntryNotFoundError as error:
        if optional and name.rpartition("/")[2] in UNHASHED_FILES:
            return None  # a figure or the card, which nothing needs, and no network
        if optional and name == MANIFEST_FILE:
            return None  # a cascade has none
        raise explain_hub_error(error, repo, revision, unreachable) from error
    except errors.EntryNotFoundError as error:
        if optional:
            return None
        raise explain_hub_error(error, repo, revision) from error
    except Exception as error:  # whatever the HTTP library raises
        raise explain_hub_error(error, repo, revision) from error


@contextmanager
def hub_faults(repo: str, folder: Path) -> Iterator[None]:
    """Within the block, add to errors about a bundle where it came from, and how to fetch it anew.

    Args:
        repo: The id.
        folder: Where it is in the cache.

    Yields:
        Nothing.

    Raises:
        BundleError: What the block raised, with the remedy of a bundle from the hub.
    """
    try:
        yield
    except BundleError as error:
        raise BundleError(
            error.what,
            where=f"{repo} on the hub, fetched to {folder}",
            expected=error.expected,
            got=error.got,
            remedy=f"Delete {folder.parent.parent} to fetch it again. If it is wrong then too, ask the owner of the "
            "repository.",
        ) from error


def explain_hub_error(
    error: Exception, repo: str, revision: str | None = None, unreachable: str | None = None
) -> Error:
    """Return the error that says why a repository cannot be used, without the user's token.

    Args:
        error: What huggingface_hub raised.
        repo: The id of the repository.
        revision: The revision that was asked for.
        unreachable: Why the hub cannot be asked, if that is known.
    """
    from huggingface_hub import errors

    where = _place(repo, revision)
    if isinstance(error, errors.GatedRepoError):
        return BundleError(
            "its owner must grant access to this repository first",
            where=where,
            remedy="Ask for access on its page, then set HF_TOKEN, or log in: hf auth login.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return BundleError(
            "there is neither such a folder here nor such a repository on the hub, or you may not see it",
            where=where,
            remedy="Check the spelling. For a private one set HF_TOKEN, or log in: hf auth login.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return BundleError("the repository has no such revision", where=where, remedy="Check --revision (revision).")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return BundleError(
            "a file that the bundle lists is missing in the repository",
            where=where,
            got=without_token(str(error)),
            remedy="Ask its owner to push it again.",
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _refused(error, where)
    return BundleError(
        "neither a folder here, nor in the cache, and the hub cannot be reached",
        where=where,
        got=unreachable or without_token(str(error)),
        remedy="Check the network, HF_HUB_OFFLINE and HF_ENDPOINT (fullbake doctor shows them), or copy the bundle "
        "here and name its folder.",
    )


def _refused(error: "HfHubHTTPError", where: str) -> BundleError:
    code = getattr(error.response, "status_code", None)
    if code in (401, 403):
        return BundleError(
            "the hub refuses this to you",
            where=where,
            got=without_token(str(error)),
            remedy="Set HF_TOKEN to a token with the right to write, or log in: hf auth login. Your account must "
            "belong to that organization.",
        )
    return BundleError("the hub answers with an error", where=where, got=without_token(str(error)))


def _place(repo: str, revision: str | None) -> str:
    return repo if revision is None else f"{repo}, revision {revision}"


def without_token(text: str) -> str:
    """Return a text on one line, without the user's token for the hub.

    Args:
        text: What the hub's library says.
    """
    from huggingface_hub import get_token

    token = get_token()
    hidden = text if not token else text.replace(token, "***")
    return " ".join(re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_***", hidden).split())[:300]


BUNDLE_ONLY_FILES: Final = (SEEN_FILE, "model.onnx", "history.png", "reliability.png", "labels.png", "history.json")
"""Files that only some bundles have: a push removes those of an earlier bundle."""
