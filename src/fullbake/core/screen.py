"""What is drawn on a terminal: consoles, lines and tables that no text from outside can act through.

`rich` draws. Three rules are added here, so that no caller has to think of them. A string is plain text, never markup.
Hidden characters, and characters that the terminal's encoding lacks, become escapes before the width of a column is
computed; `PlainConsole` looks at all that is drawn once more, for what did not come through a `Line`. And a stream that
is closed or full never stops the work: what could not be written is noted in `StandardStream.error`.
"""

import sys
from collections.abc import Iterable
from typing import Any, Literal, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from fullbake.core.escaping import escape_hidden, escape_unencodable

Words = str | tuple[str, str]
"""A text, or a text with its style such as `bold`."""


class StandardStream:
    """stdout or stderr, as the process has it at the moment of each call. Writing never raises.

    Args:
        name: Which one.

    Attributes:
        error: The first error of writing; None if there was none. The stream that gave it is not written to again.
    """

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self.name = name
        self.forget_error()

    def forget_error(self) -> None:
        """Begin anew, for another run in the same process."""
        self.error: OSError | ValueError | None = None
        self._broken: TextIO | None = None

    @property
    def stream(self) -> TextIO | None:
        """The stream itself; None if the process was started without it."""
        found: Any = getattr(sys, self.name)
        # While a bar is drawn, rich puts a stream of its own in place, which would write to this one again.
        stream: TextIO | None = getattr(found, "rich_proxied_file", found)
        return stream

    @property
    def encoding(self) -> str:
        """The encoding of the stream."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, or note why that is not possible."""
        stream = self.stream
        if stream is None and text:
            self._note(stream, OSError("it is closed"))
        if stream is not None and stream is not self._broken:
            try:
                stream.write(text)
            except (OSError, ValueError) as error:  # ValueError: Python itself closed it
                self._note(stream, error)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written, or note why that is not possible."""
        stream = self.stream
        if stream is not None and stream is not self._broken:
            try:
                stream.flush()
            except (OSError, ValueError) as error:
                self._note(stream, error)

    def _note(self, stream: TextIO | None, error: OSError | ValueError) -> None:
        self.error, self._broken = self.error or error, stream

    def isatty(self) -> bool:
        """Return True if the stream is a terminal."""
        return self.stream is not None and not self.stream.closed and self.stream.isatty()

    def fileno(self) -> int:
        """Return the number of the file."""
        if self.stream is None:
            raise OSError("it is closed")
        return self.stream.fileno()


class PlainConsole(Console):
    """A console that draws no hidden character, and none that its encoding lacks."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Draw one thing; see `rich.console.Console.render`."""
        for segment in super().render(renderable, options):
            text = segment.text
            if segment.control is None and not (text.isascii() and text.isprintable()):
                text = escape_unencodable(escape_hidden(text, keep_lines=True), self.encoding)
            yield segment if text == segment.text else Segment(text, segment.style, segment.control)


class Line:
    """One line of plain text, or a cell of a table.

    Args:
        parts: Texts, each alone or with a style. Line ends within them become escapes too.
    """

    def __init__(self, *parts: Words) -> None:
        self.parts = tuple((part, "") if isinstance(part, str) else part for part in parts)

    def text_for(self, console: Console) -> Text:
        """Return the text that the console can show."""
        shown = ((escape_unencodable(escape_hidden(text), console.encoding), style) for text, style in self.parts)
        return Text.assemble(*shown)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the line."""
        yield self.text_for(console)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width that the line needs."""
        return Measurement.get(console, options, self.text_for(console))


class PlainTable(Table):
    """A table whose strings are plain text. A cell is a text, or a text with its style.

    Args:
        title: One line above the table, at its left.
        options: The other options of `rich.table.Table`.
    """

    def __init__(self, *, title: str | None = None, **options: Any) -> None:
        super().__init__(title=None, title_justify="left", **options)
        # rich draws a title like any other thing, although it says that it takes texts alone
        self.title = None if title is None else cast("Text", Line((title, "table.title")))

    def add_column(self, header: Any = "", *rest: Any, **options: Any) -> None:
        """Add a column under a header of plain text."""
        super().add_column(Line(header) if isinstance(header, str) else header, *rest, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of cells."""
        super().add_row(*(Line(cell) if isinstance(cell, str | tuple) else cell for cell in cells), **options)
