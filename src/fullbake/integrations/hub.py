"""Push a bundle to a model hub: what leaves this machine is known before, and nothing leaves that was not listed.

`seen.safetensors` stays here unless it is asked for, see `classifier.sharing`. A new repository is private: what is
public can have been copied before one regrets it. The upload is one commit, so that a reader never sees half a bundle.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from fullbake.classifier.cascade_files import CASCADE_FILE
from fullbake.classifier.hub_bundles import BUNDLE_ONLY_FILES, explain_hub_error, is_hub_id
from fullbake.classifier.sharing import SharedCopy, copy_for_sharing
from fullbake.core.errors import Error, OutputError, RecipeError
from fullbake.core.extras import name_missing_extra
from fullbake.core.storage import MANIFEST_FILE

PACKAGED_BASE: Final = "sentence-transformers/all-MiniLM-L6-v2"
"""The id of the base `demo`."""

FOREIGN_FILES: Final = (".gitattributes", ".gitignore", "README.md", "LICENSE")
"""Files of a repository that are there without a model."""


@dataclass(frozen=True)
class CardFacts:
    """What a model card says besides the bundle's own facts."""

    license: str | None = None
    """An identifier such as `apache-2.0`."""

    languages: Sequence[str] = ()
    """Codes such as `en`."""

    tags: Sequence[str] = ()


@dataclass(frozen=True)
class Push:
    """What a push will do."""

    repo: str
    """The id of the repository."""

    shared: SharedCopy
    """The files that are uploaded."""

    exists: bool
    """Whether the repository exists; False where `unknown` says that the hub did not tell."""

    private: bool
    """Whether it is, or will be, private."""

    removed: tuple[str, ...] = ()
    """Files of an earlier bundle in the repository that are removed."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    """The bytes of each file."""

    unknown: str | None = None
    """Why the hub did not say whether the repository exists and what it holds; None if it did."""


@contextmanager
def prepared_push(
    bundle: str | Path,
    repo: str,
    card: CardFacts = CardFacts(),
    *,
    private: bool = True,
    seen: bool = False,
    overwrite: bool = False,
    needs_hub: bool = True,
) -> Iterator[Push]:
    """Prepare a push, and look at the repository; nothing is sent. `send_push` sends it, within the block.

    Args:
        bundle: The folder of a bundle or a cascade.
        repo: The id, such as `org/name`.
        card: What the model card says besides.
        private: Whether a new repository is private. One that exists stays as it is.
        seen: Send the hashes of the training texts too.
        overwrite: Replace what the repository holds, although it is no bundle.
        needs_hub: Whether it is an error if the hub does not say what the repository holds. Without, `unknown` says why
            it did not; such a push is to be looked at, not to be sent.

    Yields:
        What the push will do.

    Raises:
        BundleError: It is no bundle, or the hub refuses or cannot be reached.
        OutputError: The repository holds something else.
        RecipeError: `repo` is no id.
    """
    _check_id(repo)
    with TemporaryDirectory(prefix="fullbake-push-") as folder:
        shared = copy_for_sharing(Path(bundle), Path(folder), seen=seen)
        readme = Path(folder) / "README.md"
        text = readme.read_text("utf-8", "replace") if readme.is_file() else ""
        readme.write_text(card_with_metadata(text, shared.facts, repo, card), "utf-8")
        sizes = {name: (Path(folder) / name).stat().st_size for name in {*shared.files, "README.md"}}
        known, unknown = None, None
        try:
            known = _look(repo)
        except Error as error:
            if needs_hub:
                raise
            unknown = f"{error.what}: {error.got}" if error.got else error.what
        held = () if known is None else tuple(sibling.rfilename for sibling in known.siblings or ())
        _check_vacant(repo, held, overwrite)
        removed = tuple(name for name in held if name in BUNDLE_ONLY_FILES and name not in sizes)
        kept = private if known is None else bool(known.private)
        yield Push(repo, shared, known is not None, kept, removed, dict(sorted(sizes.items())), unknown)


def push_bundle(bundle: str | Path, repo: str, *, message: str | None = None, **options: Any) -> str:
    """Push a bundle to the hub, and return the address of its page.

    Args:
        bundle: The folder of a bundle or a cascade.
        repo: The id, such as `org/name`. A new repository is private unless `private=False`.
        message: What the commit says.
        **options: As for `prepared_push`: card, private, seen, overwrite.

    Raises:
        Error: As for `prepared_push`.
    """
    with prepared_push(bundle, repo, **options) as push:
        return send_push(push, message)


def send_push(push: Push, message: str | None = None) -> str:
    """Send a prepared push in one commit. Return the address of the repository's page.

    Args:
        push: What to send.
        message: What the commit says.

    Raises:
        BundleError: The hub refuses it, or cannot be reached.
    """
    api = _api()
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    added = [CommitOperationAdd(name, str((push.shared.folder / name).resolve())) for name in push.sizes]
    try:
        if not push.exists:
            api.create_repo(push.repo, private=push.private, exist_ok=True)
        api.create_commit(
            push.repo,
            [*added, *(CommitOperationDelete(name) for name in push.removed)],
            commit_message=message or "Bundle of fullbake",
        )
    except Exception as error:  # whatever the HTTP library raises
        raise _explain(error, push.repo) from error
    return f"{api.endpoint}/{push.repo}"


def _api() -> Any:
    with name_missing_extra():
        from huggingface_hub import HfApi
    return HfApi(library_name="fullbake")


def _check_id(repo: str) -> None:
    if not is_hub_id(repo) and not (isinstance(repo, str) and repo.count("/") == 1 and Path(repo).exists()):
        raise RecipeError(
            "this is not the id of a repository on the hub",
            where=str(repo),
            expected="an organization or your user name, and a name: org/name",
            remedy="For example: fullbake push out/model my-name/reviews.",
        )


def _look(repo: str) -> Any:
    """Return what the hub says of a repository; None if there is none, or none that this user sees."""
    api = _api()
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.model_info(repo, timeout=10)
    except GatedRepoError as error:
        raise explain_hub_error(error, repo) from error
    except RepositoryNotFoundError:
        return None
    except Exception as error:
        raise _explain(error, repo) from error


def _explain(error: Exception, repo: str) -> Error:
    from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError

    if isinstance(error, LocalTokenNotFoundError | RepositoryNotFoundError):
        return OutputError(
            "the hub does not let you write there",
            where=repo,
            remedy="Set HF_TOKEN to a token with the right to write, or log in: hf auth login. Your account must own "
            "that name, or belong to that organization.",
        )
    explained = explain_hub_error(error, repo)
    what = "the hub cannot be reached" if "cannot be reached" in explained.what else explained.what
    return OutputError(what, where=repo, got=explained.got, remedy=explained.remedy)


def _check_vacant(repo: str, held: Sequence[str], overwrite: bool) -> None:
    other = [name for name in held if name not in FOREIGN_FILES]
    if other and not overwrite and not {MANIFEST_FILE, CASCADE_FILE} & set(other):
        raise OutputError(
            "the repository holds something else than a fullbake bundle",
            where=repo,
            got=f"{', '.join(sorted(other)[:6])}{' and more' if len(other) > 6 else ''}",
            remedy="Choose another name, or pass --overwrite (overwrite=True) to put the bundle beside or over it.",
        )


# The model card


def card_with_metadata(text: str, facts: Mapping[str, Any], repo: str, card: CardFacts) -> str:
    """Return a model card whose metadata say what hubs search and show: scores, base, license, languages, tags.

    Args:
        text: The card of the bundle. Metadata that its author wrote stay, unless they are set here.
        facts: The entries of its fullbake.json.
        repo: The id of the repository, which the example of use names.
        card: What the user says.
    """
    written, body = split_card(text)
    data = {"library_name": "transformers", "pipeline_tag": "text-classification"} | written
    data["tags"] = list(dict.fromkeys([*_as_list(written.get("tags")), "fullbake", *card.tags]))
    given = {
        "license": card.license,
        "language": list(card.languages) or None,
        "base_model": base_on_hub(facts),
        "model-index": model_index(facts, repo),
    }
    data |= {name: value for name, value in given.items() if value is not None}
    head = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n{body.replace('this folder', repo)}"


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """Return the metadata of a model card, and the rest of it.

    Args:
        text: The card. Metadata that are no YAML object count as none.
    """
    parts = text.split("---\n", 2)
    if not text.startswith("---\n") or len(parts) < 3:
        return {}, text
    try:
        found = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        found = None
    return (found if isinstance(found, dict) else {}), parts[2]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def base_on_hub(facts: Mapping[str, Any]) -> str | None:
    """Return the id of the base that a bundle was trained from; None if that was a folder.

    Args:
        facts: The entries of its fullbake.json.
    """
    base = (facts.get("recipe") or {}).get("base")
    if base == "demo":
        return PACKAGED_BASE
    return base if isinstance(base, str) and is_hub_id(base) else None


def model_index(facts: Mapping[str, Any], repo: str) -> list[dict[str, Any]] | None:
    """Return the scores as hubs read them: of the test rows, or else of the validation rows.

    The format knows no interval and no number of rows: both are in the arguments of the metric and in its name.

    Args:
        facts: The entries of a bundle's fullbake.json.
        repo: The id of the repository.
    """
    parts = facts.get("metrics") or {}
    split = next((name for name in ("test", "validation") if name in parts), None)
    if split is None:
        return None
    found, rows = parts[split], int(parts[split]["rows"])
    selecting = facts["recipe"]["training"]["metric"]
    names = list(dict.fromkeys([selecting, "f1_macro", "accuracy"]))
    scores = [(name, found["overall"][name]) for name in names if name in found["overall"]]
    metrics = [_metric(name, score, split, rows) for name, score in scores if score["value"] is not None]
    source = ((facts.get("data") or {}).get("source") or {}).get(split) or "unnamed"
    dataset = {"name": source, "type": source, "split": split}
    task = {"type": "text-classification", "name": "Text classification"}
    name = repo.split("/")[-1]
    return [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}] if metrics else None


def _metric(name: str, score: Mapping[str, Any], split: str, rows: int) -> dict[str, Any]:
    kind, _, average = name.partition("_") if name.startswith(("f1_", "recall_", "precision_")) else (name, "", "")
    words, arguments = f"{name}, {rows:,} {split} rows", {"rows": rows, **({"average": average} if average else {})}
    if score["low"] is not None and score["high"] is not None:
        words += f", 95% interval {score['low']:.3f} to {score['high']:.3f}"
        arguments["interval"] = [round(float(score["low"]), 4), round(float(score["high"]), 4)]
    return {"type": kind, "name": words, "value": round(float(score["value"]), 4), "args": arguments}
