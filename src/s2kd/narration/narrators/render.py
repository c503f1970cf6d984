"""One window's past as one picture: a contact sheet for models and people to look at.

A channel is a block of four maps: first, middle and last frame, and last less first. Colours are
looked up in tables, since a plotting library takes a thousand times as long.
"""

import io
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from s2kd.core.types import GridSpec, Past, S2KDError, Statistics
from s2kd.narration.narrators.layout import Layout, arranged, background, pillow
from s2kd.narration.words import kinds_of

MAPS = {"temperature": "magma", "heat": "magma"}
"""Colour maps by what a channel measures; all others are shown in viridis."""
CHANGE_MAP = "RdBu_r"
MISSING = 128
"""The grey, in all three colours, of cells that do not exist; no colour table holds it."""
WIDENED, CHANGE_SCALE = 0.25, 4.0

Sheet = UInt8[np.ndarray, "side side 3"]


@lru_cache
def colour_table(name: str, length: int = 256) -> UInt8[np.ndarray, "length 3"]:
    """Matplotlib's colour map of this name in `length` even steps."""
    from matplotlib import colormaps

    return colormaps[name].resampled(length)(np.arange(length), bytes=True)[:, :3].copy()


def value_range(known: Statistics, channel: int) -> tuple[float, float]:
    """The physical values at both ends of a channel's colours, from training statistics alone.

    The training quantiles 0.02 and 0.98, each moved outward by a quarter of what lies between
    (and the upper one to the quantile 0.995 at least), but never beyond the training extremes:
    rare extremes keep apart, and one outlier does not take all the colours. Where that is no
    range at all, the training extremes.
    """
    low, high = known.minimum[channel], known.maximum[channel]
    at = {p: values[channel] for p, values in known.quantiles.items()}
    if not {0.02, 0.98, 0.995} <= at.keys():
        return low, high
    more = WIDENED * (at[0.98] - at[0.02])
    bottom, top = max(low, at[0.02] - more), min(high, max(at[0.98] + more, at[0.995]))
    return (bottom, top) if top > bottom else (low, high)


def change_limit(known: Statistics, channel: int) -> float:
    """The change at the end of the diverging colours: four times the training root mean square
    of changes over the lead times; one standard deviation where statistics do not hold it.
    """
    return CHANGE_SCALE * known.change[channel] if known.change else known.std[channel]


@dataclass(frozen=True)
class _Plate:
    """All of a sheet that is the same for every window of one grid and one training split."""

    grid: GridSpec
    statistics: Statistics
    layout: Layout
    empty: np.ndarray
    channels: list[int]
    ranges: list[tuple[float, float]]
    limits: list[float]
    tables: list[np.ndarray]
    exists: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """Draws sheets of `size` × `size` pixels; the picture depends on these settings and `Past`.

    A cell is a whole number of pixels wide, as many as fit; of a grid too fine for the sheet,
    blocks of cells are averaged. `labels` adds headings and colour bars (this needs Pillow).
    `channels` names the channels to show, all if left out. Row 0 (north, top) is at the top.
    """

    size: int = 384
    labels: bool = True
    channels: tuple[str, ...] = ()
    _plates: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def version(self) -> str:
        """Names all that a sheet depends on besides the window: part of what narratives are
        stored under.
        """
        shown = f" channels={','.join(self.channels)}" if self.channels else ""
        return f"sheet-1 size={self.size} labels={self.labels}{shown}"

    def __call__(self, past: Past) -> Sheet:
        """The sheet of one window; values that are not finite in existing cells are refused."""
        plate = self._plate(past)
        sheet, steps = plate.empty.copy(), len(past.frames)
        frames = past.frames[[0, (steps - 1) // 2, steps - 1]].astype(np.float32)
        for place, channel in enumerate(plate.channels):
            shown = merged(frames[:, channel], plate.grid.exists, plate.layout.merge)
            if not np.isfinite(shown[:, plate.exists]).all():
                raise S2KDError(
                    f"narrator: {past.grid.channels[channel]!r} has values that are not finite; "
                    "fill them when the data is read"
                )
            low, high = plate.ranges[place]
            colours = plate.tables[place][graded(shown, low, high, plate.exists)]
            change = shown[2] - shown[0]
            steps_of_change = shaded(change, plate.limits[place], plate.exists)
            colours = [*colours, colour_table(CHANGE_MAP, 255)[steps_of_change]]
            for corner, panel in zip(plate.layout.corners[place], colours, strict=True):
                panel[~plate.exists] = MISSING
                _paint(sheet, corner, panel, plate.layout.scale)
        return sheet

    def _plate(self, past: Past) -> _Plate:
        key = (id(past.grid), id(past.statistics), past.domain)
        if key not in self._plates:  # a plate holds grid and statistics, so that ids stay theirs
            self._plates[key] = self._made(past)
        return self._plates[key]

    def _made(self, past: Past) -> _Plate:
        grid, known = past.grid, past.statistics
        for name in self.channels:
            if name not in grid.channels:
                raise S2KDError(
                    f"sheet: no channel called {name!r} (there are {', '.join(grid.channels)})"
                )
        numbers = [
            n for n, c in enumerate(grid.channels) if not self.channels or c in self.channels
        ]
        kinds = kinds_of(grid, past.domain)
        tables = [colour_table(MAPS.get(kinds[n], "viridis")) for n in numbers]
        ranges = [value_range(known, n) for n in numbers]
        limits = [change_limit(known, n) for n in numbers]
        layout = arranged(
            grid.height, grid.width, channels=len(numbers), size=self.size, labels=self.labels
        )
        change = colour_table(CHANGE_MAP, 255)
        empty = background(
            layout,
            grid,
            past.domain,
            numbers,
            ranges=ranges,
            limits=limits,
            tables=tables,
            change=change,
        )
        share = merged(
            grid.exists[None].astype(np.float32), np.ones_like(grid.exists), layout.merge
        )
        return _Plate(
            grid, known, layout, empty, numbers, ranges, limits, tables, exists=share[0] > 0
        )


def merged(
    frames: Float[np.ndarray, "frame height width"], exists: np.ndarray, by: int
) -> Float[np.ndarray, "frame rows columns"]:
    """Means over blocks of `by` × `by` cells, existing cells only; 0 where a block has none."""
    if by == 1:
        return frames
    down, across = (-frames.shape[1] % by, -frames.shape[2] % by)
    held = np.pad(exists, ((0, down), (0, across)))
    kept = np.where(held, np.pad(frames, ((0, 0), (0, down), (0, across))), 0)
    blocks = kept.reshape(len(frames), held.shape[0] // by, by, held.shape[1] // by, by)
    count = held.reshape(*blocks.shape[1:]).sum((1, 3))
    return (blocks.sum((2, 4)) / np.maximum(count, 1)).astype(np.float32)


def graded(
    values: np.ndarray, low: float, high: float, exists: np.ndarray
) -> UInt8[np.ndarray, "..."]:
    """The step 0..255 of each value between `low` and `high`; what lies beyond has the end's."""
    held = values if exists.all() else np.where(exists, values, np.float32(low))
    steps = (held - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.rint(steps), 0, 255).astype(np.uint8)


def shaded(change: np.ndarray, limit: float, exists: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """The step 0..254 of each change between ±`limit`; no change is 127, the neutral colour."""
    held = change if exists.all() else np.where(exists, change, np.float32(0))
    return (np.clip(np.rint(held * np.float32(127 / limit)), -127, 127) + 127).astype(np.uint8)


def _paint(sheet: np.ndarray, corner: tuple[int, int], panel: np.ndarray, scale: int) -> None:
    """Put a panel's cells on the sheet, each `scale` × `scale` pixels."""
    top, left = corner
    big = panel if scale == 1 else panel.repeat(scale, 0).repeat(scale, 1)
    sheet[top : top + big.shape[0], left : left + big.shape[1]] = big


def image(sheet: Sheet) -> Any:
    """The sheet as a Pillow picture."""
    return pillow().Image.fromarray(sheet)


def png(sheet: Sheet) -> bytes:
    """The sheet as the content of a PNG file."""
    return _encoded(sheet, format="PNG", compress_level=3)  # half the time of the usual 6


def jpeg(sheet: Sheet, *, quality: int = 92) -> bytes:
    """The sheet as the content of a JPEG file, with colours at full resolution."""
    return _encoded(sheet, format="JPEG", quality=quality, subsampling=0)


def _encoded(sheet: Sheet, **how: object) -> bytes:
    held = io.BytesIO()
    image(sheet).save(held, **how)
    return held.getvalue()
