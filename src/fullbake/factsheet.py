"""The facts of labelled texts as the terminal shows them: tables, then what should be known, the warnings first."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fullbake.data.inspection import Facts, Lengths, describe


def sheet(facts: Facts) -> RenderableType:
    """Everything about the data, for reading."""
    parts: list[RenderableType] = [Text(_size(facts), style="bold"), _labels(facts), _lengths(facts)]
    if facts.scripts:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in list(facts.scripts.items())[:5] if share >= 0.0005)
        parts.append(Text(f"scripts of the letters: {shares}"))
    for found in facts.findings:
        style = "yellow" if found.severity == "warning" else ""
        parts.append(Text.assemble((f"{found.severity}: ", style), describe(found)))
    if not facts.findings:
        parts.append(Text("nothing else to be known: no empty, repeated or contradicting rows, no leak that shows"))
    return Group(*parts)


def _size(facts: Facts) -> str:
    sampled = (
        "" if facts.sampled == facts.rows else f"; words, scripts and tokens are of {facts.sampled:,} sampled rows"
    )
    return f"{facts.source}: {facts.rows:,} rows{sampled}"


def _labels(facts: Facts) -> Table:
    table = Table(title="Labels" if facts.multi_label else "Classes", title_justify="left")
    table.add_column("label", overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("share", justify="right")
    for name, count in sorted(facts.labels.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(Text(repr(name) if name != name.strip() else name), f"{count:,}", f"{count / facts.rows:.1%}")
    return table


def _lengths(facts: Facts) -> Table:
    table = Table(title="Lengths of the texts", title_justify="left")
    for name in ("", "median", "90%", "99%", "longest", "over the limit", "cut off"):
        table.add_column(name, justify="left" if not name else "right")
    rows: dict[str, Lengths | None] = {"characters": facts.characters, "tokens": facts.tokens}
    for name, lengths in rows.items():
        if lengths is not None:
            numbers = (lengths.median, lengths.p90, lengths.p99, lengths.longest)
            over, lost = ("-" if share is None else f"{share:.1%}" for share in (lengths.over, lengths.lost))
            limit = "" if lengths.limit is None else f" of {lengths.limit}"
            table.add_row(name, *(f"{number:,}" for number in numbers), over + limit, lost)
    return table
