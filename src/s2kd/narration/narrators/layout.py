"""Where the maps of a contact sheet go, and all of it that is not a map: headings, colour bars."""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import UInt8

from s2kd.core.types import Domain, GridSpec, S2KDError
from s2kd.narration.narrators.redact import shown_labels, written_unit

HEADINGS = ("first", "middle", "last", "change")
GAP, TITLE, CAPTION, LEGEND, BAR = 4, 14, 11, 56, 8
"""Pixels: between maps, for a channel's name, for a heading, for colour bars, for one bar."""
LEAST_LEGEND, LEAST_PANEL, MOST_SCALE = 60, 8, 32
INK, EDGE = (20, 20, 20), (90, 90, 90)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`corners[channel][map]` is the (top, left) pixel of each map, in the order of `HEADINGS`.

    A map is `panel` pixels (height, width): `scale` pixels a cell, or one pixel for `merge` ×
    `merge` cells. `blocks` are the (top, left, height, width) of each channel.
    """

    size: int
    labels: bool
    scale: int
    merge: int
    panel: tuple[int, int]
    per_row: int
    corners: list[list[tuple[int, int]]]
    blocks: list[tuple[int, int, int, int]]


def arranged(height: int, width: int, *, channels: int, size: int, labels: bool) -> Layout:
    """The layout with the largest maps; S2KDError where they would be too small to tell."""
    for scale, merge in _scales(max(height, width)):
        panel = (ceil(height / merge) * scale, ceil(width / merge) * scale)
        if merge > 1 and min(panel) < min(LEAST_PANEL, height, width):
            break
        for per_row in (4, 2, 1):
            for across in range(1, channels + 1):
                found = _placed(panel, channels, per_row, across, size, labels)
                if found is not None:
                    corners, blocks = found
                    return Layout(
                        size=size,
                        labels=labels,
                        scale=scale,
                        merge=merge,
                        panel=panel,
                        per_row=per_row,
                        corners=corners,
                        blocks=blocks,
                    )
    raise S2KDError(
        f"sheet: {channels} channels of {height}×{width} cells do not fit on {size}×{size} "
        "pixels; choose a larger size, or fewer channels with channels=[…]"
    )


def _scales(longest: int) -> list[tuple[int, int]]:
    """(pixels a cell, cells a pixel), largest maps first."""
    return [(s, 1) for s in range(MOST_SCALE, 0, -1)] + [(1, m) for m in range(2, longest + 1)]


def _placed(
    panel: tuple[int, int], channels: int, per_row: int, across: int, size: int, labels: bool
) -> tuple[list, list] | None:
    """Corners and blocks, centred on the sheet; None where they do not fit."""
    title, caption, legend = (TITLE, CAPTION, LEGEND) if labels else (0, 0, 0)
    rows = len(HEADINGS) // per_row
    maps = rows * (panel[0] + caption + GAP)
    tall = title + max(maps, LEAST_LEGEND if labels else 0)
    wide = per_row * (panel[1] + GAP) + legend
    down = ceil(channels / across)
    spare = size - down * tall - GAP, size - across * wide - GAP
    if min(spare) < 0:
        return None
    corners, blocks = [], []
    for number in range(channels):
        top = spare[0] // 2 + GAP + number // across * tall
        left = spare[1] // 2 + GAP + number % across * wide
        blocks.append((top, left, tall, wide))
        corners.append(
            [
                (
                    top + title + caption + k // per_row * (panel[0] + caption + GAP),
                    left + k % per_row * (panel[1] + GAP),
                )
                for k in range(len(HEADINGS))
            ]
        )
    return corners, blocks


def background(
    layout: Layout,
    grid: GridSpec,
    domain: Domain,
    channels: list[int],
    *,
    ranges: list[tuple[float, float]],
    limits: list[float],
    tables: list[np.ndarray],
    change: np.ndarray,
) -> UInt8[np.ndarray, "side side 3"]:
    """A white sheet with a thin line round every map and, where wanted, the labels."""
    sheet = np.full((layout.size, layout.size, 3), 255, dtype=np.uint8)
    high, wide = layout.panel
    for corners in layout.corners:
        for top, left in corners:
            sheet[top - 1 : top + high + 1, left - 1 : left + wide + 1] = EDGE
    if not layout.labels:
        return sheet
    tools = pillow()
    image = tools.Image.fromarray(sheet)
    pen = _Pen(tools, image)
    names = shown_labels(grid, domain)
    for place, number in enumerate(channels):
        top, left, _, across = layout.blocks[place]
        unit = written_unit(grid.units[number])
        title = names[number] + (f" ({unit})" if unit not in ("", "1") else "")
        pen.write(left, top - 2, pen.fitted(title, across), bold=True)
        for heading, (down, right) in zip(HEADINGS, layout.corners[place], strict=True):
            pen.write(right, down - CAPTION - 1, heading)
        _legend(pen, layout, place, ranges[place], limits[place], tables[place], change)
    return np.array(image)


def _legend(
    pen: "_Pen",
    layout: Layout,
    place: int,
    span: tuple[float, float],
    limit: float,
    table: np.ndarray,
    change: np.ndarray,
) -> None:
    """Two colour bars with their ends in physical units: values above, change below."""
    top, left, tall, wide = layout.blocks[place]
    x, y = left + wide - LEGEND + 2, top + TITLE + CAPTION
    each = min(90, (tall - TITLE - CAPTION - 5 * GAP) // 2)
    starts = [y, y + each + 4 * GAP]
    if layout.per_row == 2 and layout.panel[0] >= LEAST_LEGEND // 2:  # beside the rows of maps
        starts, each = [layout.corners[place][k][0] for k in (0, 2)], layout.panel[0]
    bars = ((span[0], span[1], table, False), (-limit, limit, change, True))
    for y, (low, high, colours, signed) in zip(starts, bars, strict=True):
        pen.bar(x, y, each, colours)
        pen.write(x + BAR + 3, y - 3, short(high, signed=signed))
        pen.write(x + BAR + 3, y + each - 9, short(low, signed=signed))


def short(value: float, *, signed: bool = False) -> str:
    """Three significant digits, whole from a hundred on; a minus is never put before a 0."""
    value = value or 0.0
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if abs(value) >= 1e6:
        digits = f"{value:.2g}"
    return f"+{digits}" if signed and value > 0 else digits


def pillow() -> Any:
    """The Pillow package with the modules used here."""
    try:
        import PIL.Image
        import PIL.ImageDraw
        import PIL.ImageFont
    except ImportError:
        raise S2KDError(
            "pictures for narrators need Pillow; install it: pip install 's2kd[lmm]'"
        ) from None
    return PIL


class _Pen:
    """Writes in Pillow's own font, so that sheets look alike everywhere."""

    def __init__(self, tools: Any, image: Any) -> None:
        self._draw = tools.ImageDraw.Draw(image)
        self._font = tools.ImageFont.load_default(size=12)
        self._small = tools.ImageFont.load_default(size=10)

    def write(self, x: int, y: int, text: str, *, bold: bool = False) -> None:
        self._draw.text((x, y), text, fill=INK, font=self._font if bold else self._small)

    def fitted(self, text: str, width: int) -> str:
        """The text, cut where it is wider than `width` pixels."""
        if self._draw.textlength(text, font=self._font) <= width:
            return text
        while text and self._draw.textlength(text + "…", font=self._font) > width:
            text = text[:-1]
        return text + "…"

    def bar(self, x: int, y: int, height: int, colours: np.ndarray) -> None:
        """A colour table from its last colour (top) to its first, with a thin line round it."""
        for row in range(height):
            step = round((height - 1 - row) / max(1, height - 1) * (len(colours) - 1))
            colour = tuple(int(c) for c in colours[step])
            self._draw.line([(x, y + row), (x + BAR - 1, y + row)], fill=colour)
        self._draw.rectangle([(x - 1, y - 1), (x + BAR, y + height)], outline=EDGE)
