import io
from pathlib import Path

from rich.console import Console
from rows import make_rows, write_csv

from fullbake.cli.tables import sheet
from fullbake.config.sections import DataConfig
from fullbake.data.inspection import inspect_file


def shown(path: Path) -> str:
    console = Console(width=140, color_system=None, record=True, file=io.StringIO())
    console.print(sheet(inspect_file(path, DataConfig())))
    return console.export_text()


def test_it_shows_what_there_is_to_know(tmp_path: Path) -> None:
    rows = [*make_rows(60), ("[red]not markup[/red]", "[bold]"), ("again", "[bold]"), ("Again", " game")]
    text = shown(write_csv(tmp_path / "rows.csv", rows))
    for part in ("63 rows", "[bold]", "' game'", "characters", "Latin 100.0%", "warning: ", "note: "):
        assert part in text
    assert "tokens" not in text.split("scripts of")[0]


def test_it_says_that_nothing_is_to_be_known(tmp_path: Path) -> None:
    rows = [(f"{number} {number * 7919 % 1013} word", "ab"[number % 2]) for number in range(100)]
    assert "nothing else to be known" in shown(write_csv(tmp_path / "rows.csv", rows))
