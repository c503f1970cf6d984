"""The contact sheet of a window: its past as one picture, for models and people.

Each channel has four maps: first, middle and last frame, and the change from first to last. The
sheet is one Matplotlib figure, whose images are set anew for every window.
"""

import io
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np
from jaxtyping import UInt8

from s2kd.core.types import Past, S2KDError, Statistics
from s2kd.narration.prompts import shown_labels, written_unit
from s2kd.narration.words import kinds_of

HEADINGS = ("first", "middle", "last", "change")
COLOUR_MAPS = {"temperature": "magma", "heat": "magma"}
"""By what a channel measures; all others are shown in viridis, changes in `CHANGE_MAP`."""
CHANGE_MAP, MISSING = "RdBu_r", (128, 128, 128)
"""`MISSING` is the grey of cells that do not exist; no colour map holds it."""
DPI, FONT_POINTS = 100, 7
GAP, HEADING, TITLE, BAR, MARGIN, SMALLEST_MAP = 4, 14, 14, 8, 48, 8
"""Pixels: between maps, of a heading, a title, a colour bar, a bar with its numbers, a map."""

Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""
Sheet = UInt8[np.ndarray, "side side 3"]


def value_range(train_stats: Statistics, channel: int) -> tuple[float, float]:
    """The physical values at both ends of a channel's colours, from training statistics alone.

    The training quantiles 0.02 and 0.98, widened by a quarter of their distance on both sides
    (the upper end at least to quantile 0.995), within the training extremes: rare extremes stay
    distinct, and one outlier does not take all the colours. The extremes where that is empty.
    """
    low, high = train_stats.minimum[channel], train_stats.maximum[channel]
    quantiles = {p: values[channel] for p, values in train_stats.quantiles.items()}
    if not {0.02, 0.98, 0.995} <= quantiles.keys():
        return low, high
    margin = 0.25 * (quantiles[0.98] - quantiles[0.02])
    bottom = max(low, quantiles[0.02] - margin)
    top = min(high, max(quantiles[0.98] + margin, quantiles[0.995]))
    return (bottom, top) if top > bottom else (low, high)


def change_limit(train_stats: Statistics, channel: int) -> float:
    """The change at both ends of the diverging colours: four times the training RMS of changes
    over the lead times; one standard deviation where the statistics lack it.
    """
    return 4 * train_stats.change[channel] if train_stats.change else train_stats.std[channel]


@dataclass(frozen=True)
class _Figure:
    """A figure for one grid and one training split; `images[channel]` are its four maps."""

    canvas: Any
    images: dict[int, list[Any]]
    past: Past
    """Holds grid and statistics, so that their ids stay theirs."""


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """Draws sheets of `size` × `size` pixels from these settings and a `Past` alone.

    `labels` adds names, headings and colour bars. `channels` names the channels to show, all
    where empty. Row 0 (north, top) is at the top; a grid finer than the pixels is averaged.
    """

    size: int = 384
    labels: bool = True
    channels: tuple[str, ...] = ()
    _figures: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def version(self) -> str:
        """What a sheet depends on besides the window: part of what narratives are stored under."""
        shown = f" channels={','.join(self.channels)}" if self.channels else ""
        return f"sheet-2 size={self.size} labels={self.labels}{shown}"

    def __call__(self, past: Past) -> Sheet:
        """The sheet of one window; values that are not finite in existing cells are refused."""
        figure, exists, steps = self.figure(past), past.grid.exists, len(past.frames)
        for channel, images in figure.images.items():
            first, middle, last = past.frames[[0, (steps - 1) // 2, steps - 1], channel]
            maps = np.stack([first, middle, last, last - first])
            if not np.isfinite(maps[:, exists]).all():
                raise S2KDError(
                    f"narrator: {past.grid.channels[channel]!r} has values that are not finite; "
                    "fill them when the data is read"
                )
            for image, values in zip(images, maps, strict=True):
                image.set_data(np.where(exists, values, np.nan))
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()

    def figure(self, past: Past) -> _Figure:
        """The figure for windows of this grid, domain and training split."""
        key = (id(past.grid), id(past.statistics), past.domain)
        if key not in self._figures:
            import matplotlib

            with matplotlib.rc_context():
                matplotlib.rcdefaults()  # a user's settings must not change a sheet
                self._figures[key] = self._new_figure(past)
        return self._figures[key]

    def _new_figure(self, past: Past) -> _Figure:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        grid = past.grid
        for name in self.channels:
            if name not in grid.channels:
                raise S2KDError(
                    f"sheet: no channel called {name!r} (there are {', '.join(grid.channels)})"
                )
        channels = [i for i, c in enumerate(grid.channels) if c in (self.channels or grid.channels)]
        layout = arrange(grid.height, grid.width, len(channels), size=self.size, labels=self.labels)
        figure = Figure(figsize=(self.size / DPI, self.size / DPI), dpi=DPI)
        canvas = FigureCanvasAgg(figure)
        images = {
            channel: self._maps(figure, past, channel, boxes)
            for channel, boxes in zip(channels, layout, strict=True)
        }
        return _Figure(canvas, images, past)

    def _maps(self, figure: Any, past: Past, channel: int, boxes: list[Box]) -> list[Any]:
        """The four images of one channel, with its labels."""
        from matplotlib import colormaps

        def add_axes(left: int, top: int, width: int, height: int) -> Any:
            box = (left, self.size - top - height, width, height)
            return figure.add_axes([value / self.size for value in box], xticks=[], yticks=[])

        grid, images = past.grid, []
        colours = COLOUR_MAPS.get(kinds_of(grid, past.domain)[channel], "viridis")
        limit = change_limit(past.statistics, channel)
        spans = [value_range(past.statistics, channel)] * 3 + [(-limit, limit)]
        for heading, box, (low, high) in zip(HEADINGS, boxes, spans, strict=True):
            table = colormaps[CHANGE_MAP if heading == "change" else colours]
            table = table.with_extremes(bad=tuple(level / 255 for level in MISSING))
            panel = add_axes(*box)
            panel.spines[:].set_linewidth(0.5)
            blank, options = np.zeros((grid.height, grid.width)), {"vmin": low, "vmax": high}
            images.append(panel.imshow(blank, cmap=table, aspect="auto", **options))
            if self.labels:
                panel.set_title(heading, fontsize=FONT_POINTS, pad=2)
        if self.labels:
            x, y, width, height = boxes[0]
            name, unit = shown_labels(grid, past.domain)[channel], written_unit(grid.units[channel])
            title = f"{name} ({unit})" if unit not in ("", "1") else name
            title = title[: (boxes[3][0] + width - x) // 5]
            above = 1 - (y - HEADING) / self.size
            figure.text(x / self.size, above, title, va="bottom", fontsize=FONT_POINTS + 1)
            bars = {0: ("left", -3 * BAR // 2), 3: ("right", width + BAR // 2)}
            for number, (side, shift) in bars.items():
                bar = add_axes(boxes[number][0] + shift, boxes[number][1], BAR, height)
                ends = images[number].get_clim()
                colour_bar = figure.colorbar(images[number], cax=bar)
                colour_bar.set_ticks(ends, labels=[number_text(value) for value in ends])
                bar.yaxis.set_ticks_position(side)
                bar.tick_params(labelsize=FONT_POINTS - 1, length=2, pad=1)
        return images


def arrange(height: int, width: int, channels: int, *, size: int, labels: bool) -> list[list[Box]]:
    """The boxes of the four maps per channel, as large as `size` × `size` pixels allow."""
    margin, title, heading = (MARGIN, TITLE, HEADING) if labels else (2, 0, GAP)

    def scale(choice: tuple[int, int]) -> float:
        """Pixels per cell with so many maps in a row and channels side by side."""
        per_row, across = choice
        wide = (size / across - 2 * margin) / per_row - GAP
        high = (size / ceil(channels / across) - title) / (4 // per_row) - heading
        return min(wide / width, high / height)

    choices = [(per_row, across) for per_row in (4, 2, 1) for across in range(1, channels + 1)]
    per_row, across = choice = max(choices, key=scale)
    if scale(choice) * min(height, width) < min(SMALLEST_MAP, height, width):
        raise S2KDError(
            f"sheet: {channels} channels of {height}×{width} cells do not fit on {size}×{size} "
            "pixels; choose a larger size, or fewer channels with channels=[…]"
        )
    wide, high = round(width * scale(choice)), round(height * scale(choice))
    step_x, step_y = wide + GAP, high + heading
    block_x, block_y = size / across, size / ceil(channels / across)
    x = (block_x - per_row * step_x + GAP) / 2  # centred within the block of a channel
    y = (block_y - title - 4 // per_row * step_y) / 2 + title + heading
    return [
        [
            (
                round(c % across * block_x + x) + n % per_row * step_x,
                round(c // across * block_y + y) + n // per_row * step_y,
                wide,
                high,
            )
            for n in range(4)
        ]
        for c in range(channels)
    ]


def number_text(value: float) -> str:
    """Three significant digits, whole from a hundred to a million."""
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{value:.3g}"


def png(sheet: Sheet) -> bytes:
    """The sheet as the content of a PNG file."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(sheet).save(content, format="PNG", compress_level=3)
    return content.getvalue()
