"""The command `push`: share a bundle on a model hub, after a list of what leaves this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from fullbake.cli.terminal import print_line, print_table
from fullbake.core.console import say
from fullbake.core.errors import OutputError
from fullbake.core.screen import PlainTable

if TYPE_CHECKING:
    from fullbake.integrations.hub import Push

Repeated = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


def add_push_command(app: App) -> None:
    """Add the command to the app."""
    app.command(push_command, name="push")


def push_command(
    bundle: Path,
    repo: str,
    /,
    *,
    license: str | None = None,  # noqa: A002  (the flag's name)
    language: Repeated = (),
    tag: Repeated = (),
    public: bool = False,
    seen: bool = False,
    message: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    yes: bool = False,
) -> None:
    """Push a bundle to a model hub, after a list of the files that leave this machine and a question.

    `Classifier.load("org/name")` and `fullbake predict org/name` then load it. The hashes of the training texts
    (seen.safetensors) stay here, because they let others test whether a text was among those.

    Args:
        bundle: Folder of the bundle, or of a cascade.
        repo: Id of the repository, such as my-name/reviews. A new one is made if there is none.
        license: License of the model, such as apache-2.0 or mit, for its card. On a terminal it is asked for.
        language: Code of the language of the texts, such as en, for the card. Repeat the flag for several.
        tag: A tag for the card. Repeat the flag for several.
        public: Make a new repository public. Without the flag it is private. An existing one stays as it is.
        seen: Send seen.safetensors too, so that `fullbake evaluate` there can find rows that were trained on.
        message: Message of the commit.
        overwrite: Push into a repository that holds something else than a bundle.
        dry_run: List the files and show the card's metadata, and send nothing. Works without network.
        yes: Do not ask.
    """
    asks = sys.stdin is not None and sys.stdin.isatty() and not yes and not dry_run
    if not asks and not yes and not dry_run:
        raise OutputError(
            "a push needs your consent, and there is no terminal to ask on",
            where=repo,
            remedy="Look at what would be sent with --dry-run, then pass --yes.",
        )
    if asks and license is None:
        license = input("License of the model, such as apache-2.0 (empty for none): ").strip() or None  # noqa: A001
    from fullbake.integrations.hub import CardFacts, prepared_push, send_push

    card = CardFacts(license, language, tag)
    options = {"private": not public, "seen": seen, "overwrite": overwrite, "needs_hub": not dry_run}
    with prepared_push(bundle, repo, card, **options) as push:
        _show(push, license)
        if dry_run:
            print_line((push.shared.folder / "README.md").read_text("utf-8").split("---\n")[1].rstrip())
            print_line("Nothing was sent (--dry-run).")
            return
        if asks and input(f"Send {len(push.sizes)} files to {repo}? [y/N] ").strip().lower() not in ("y", "yes"):
            print_line("Nothing was sent.")
            return
        say(f"sending to {repo}")
        address = send_push(push, message)
    print_line(f"pushed: {address}")
    print_line(f'Try it: fullbake predict {repo} "a text"')


def _show(push: "Push", license_name: str | None) -> None:
    """Print what leaves this machine, what stays, and where it goes."""
    table = PlainTable(title=f"What leaves this machine for {push.repo}")
    table.add_column("file", overflow="fold")
    table.add_column("bytes", justify="right")
    for name, size in push.sizes.items():
        table.add_row(name, f"{size:,}")
    table.add_row("together", f"{sum(push.sizes.values()):,}")
    print_table(table)
    for name in push.shared.left_out:
        print_line(f"stays here: {name} (--seen sends it)")
    for name in push.removed:
        print_line(f"is removed there: {name}, of an earlier bundle")
    kind = "private" if push.private else "public: everybody can read it"
    if push.unknown is not None:
        print_line(f"What the repository holds is not known ({push.unknown}). If it is new, it will be {kind}.")
    else:
        print_line(f"The repository {'exists and is' if push.exists else 'is new and will be'} {kind}.")
    if license_name is None:
        print_line("The card names no license, so that others may not use the model (--license apache-2.0).")
