"""Tables of text for the terminal and Markdown; `report.html.j2` has their HTML."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.console
    import rich.table


@dataclass(frozen=True, kw_only=True)
class Table:
    """Head and lines of text; the caption names data, split, seeds and hardware."""

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    caption: str = ""

    def markdown(self) -> str:
        """As a Markdown table under its title."""
        rows = [self.head, ("---",) * len(self.head), *self.lines]
        body = "\n".join(
            "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows
        )
        caption = f"\n\n*{self.caption}*" if self.caption else ""
        return f"**{self.title}**\n\n{body}{caption}"

    def __rich_console__(
        self, console: "rich.console.Console", options: "rich.console.ConsoleOptions"
    ) -> "Iterator[rich.table.Table]":
        """For a terminal; columns that do not fit beside the first continue below."""
        columns = [_Column.of(*cells) for cells in zip(self.head, *self.lines, strict=True)]
        first, start = columns[0], 1
        while start < len(columns):
            stop, width = start, first.least + 2  # a space and a border beside each column
            while stop == start or (
                stop < len(columns) and width + columns[stop].least + 2 <= options.max_width
            ):
                width += columns[stop].least + 2
                stop += 1
            part = [first, *columns[start:stop]]
            is_tight = sum(column.most + 2 for column in part) > options.max_width
            yield self._rich(part, start == 1, stop == len(columns), is_tight)
            start = stop

    def _rich(
        self, columns: "Sequence[_Column]", is_first: bool, is_last: bool, is_tight: bool
    ) -> "rich.table.Table":
        """Some columns; numbers to the right, as narrow as their words if `is_tight`."""
        from rich import box
        from rich.table import Table as Shown

        shown = Shown(
            title=self.title if is_first else None,
            caption=self.caption if is_last else None,
            box=box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for number, column in enumerate(columns):
            shown.add_column(
                column.name,
                justify="right" if number else "left",
                overflow="fold",
                min_width=column.least,
                max_width=column.least if is_tight and number else None,
            )
        for cells in zip(*(column.cells for column in columns), strict=True):
            shown.add_row(*cells)
        return shown


@dataclass(frozen=True)
class _Column:
    """A column in a terminal, bounds and deviations below their values.

    `least` is the width that breaks no word, value or bounds, `most` the width that breaks nothing.
    """

    name: str
    cells: tuple[str, ...]
    least: int
    most: int

    @classmethod
    def of(cls, name: str, *cells: str) -> "_Column":
        lines = [line for cell in cells for line in below(cell).split("\n")]
        bounds = [line for line in lines if line.startswith(("[", "±"))]
        words = [word for text in (name, *lines) for word in text.split()]
        least = max(map(len, [*words, *bounds]), default=1)
        most = max(map(len, [name, *lines]))
        return cls(name, tuple(map(below, cells)), least, least if bounds else most)


def below(cell: str) -> str:
    """A cell with bounds or deviation below its value."""
    return cell.replace("**", "").replace(" [", "\n[").replace(" ±", "\n±")


def number(value: float | None, form: str = ".4f") -> str:
    """A number in this format; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:{form}}"


def interval(value: float | None, low: float | None, high: float | None, form: str) -> str:
    """`value [low, high]`; without the bounds where there are none."""
    if value is None or not math.isfinite(value):
        return "–"
    bounded = low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
    return f"{value:{form}}" + (f" [{low:{form}}, {high:{form}}]" if bounded else "")


def p_text(p_value: float | None) -> str:
    """A p-value to three digits; – where there is none."""
    return "<0.001" if p_value is not None and p_value < 0.0005 else number(p_value, ".3f")


def parameters_text(count: int) -> str:
    """Parameters in millions from 100,000 on; a dash for 0."""
    if not count:
        return "–"
    return f"{count / 1e6:.2f}\u202fM" if count >= 1e5 else f"{count:,}"
