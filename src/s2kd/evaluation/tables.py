"""Tables of text with one form for the terminal, Markdown and HTML."""

import html
import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

    def html(self) -> str:
        """As an HTML table with its caption below; a line that begins with ▸ stands out."""

        def line(cells: tuple[str, ...], tag: str) -> str:
            inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
            marked = ' class="mark"' if cells[0].startswith("▸") else ""
            return f"<tr{marked}>{inner}</tr>"

        body = "".join(line(cells, "td") for cells in self.lines)
        return (
            f'<div class="wide"><table><thead>{line(self.head, "th")}</thead>'
            f"<tbody>{body}</tbody></table></div>"
            + (f'<p class="faint">{html.escape(self.caption)}</p>' if self.caption else "")
        )

    def rich(self) -> "rich.table.Table":
        """For a terminal; numbers to the right, bounds and deviations below their value."""
        from rich import box
        from rich.table import Table as Shown

        shown = Shown(
            title=self.title,
            caption=self.caption,
            box=box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        columns = zip(*self.lines, strict=True) if self.lines else [()] * len(self.head)
        for number, (name, column) in enumerate(zip(self.head, columns, strict=True)):
            # values and their bounds are not broken; names may be
            bounded = any(" [" in cell or " ±" in cell for cell in column)
            words = [word for cell in (name, *column) for word in cell.split()]
            least = max(map(len, words), default=1)
            justify = "right" if number else "left"
            if bounded:
                parts = [part for cell in column for part in _below(cell).split("\n")]
                name = textwrap.fill(name, max(map(len, [*parts, *name.split()])))
            shown.add_column(
                name,
                justify=justify,
                no_wrap=bounded,
                overflow="fold",
                min_width=min(least, 16) if number == 0 else least,
            )
        for line in self.lines:
            shown.add_row(*map(_below, line))
        return shown


def _below(cell: str) -> str:
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
