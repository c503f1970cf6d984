"""Maps of one window for a page: truth, forecasts and errors at several lead times.

Fields are small images, one pixel per cell, that the page enlarges; coastlines are a path on top.
"""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float, UInt8

from s2kd.core.types import GridSpec
from s2kd.evaluation.answer import with_unit

SMALL_CHANGE = 0.4
"""Of the spatial standard deviation: below it, maps show changes."""
FINEST_COAST = 10.0
"""Degrees of longitude: narrower maps have no coastlines."""
MOST_CELLS, MOST_LEADS = 20_000, 8
"""Of one image, and images of one field: larger grids are averaged, further leads left out."""
LEVELS = 255
"""Colours of a field; one more is that of cells that do not exist."""
MISSING = (187, 187, 187)


@dataclass(frozen=True, kw_only=True)
class ColourScale:
    """A colour map of Matplotlib over a range of values, and what they are."""

    name: str
    low: float
    high: float
    label: str

    @classmethod
    def of(
        cls, fields: Iterable[np.ndarray], exists: np.ndarray, name: str, label: str
    ) -> "ColourScale":
        """Over all but the outermost hundredth of the values; 0 in the middle but for viridis."""
        values = np.concatenate([frames[:, exists] for frames in fields], axis=None)
        low, high = (float(value) for value in np.quantile(values, (0.005, 0.995)))
        if name != "viridis":
            high = max(abs(low), abs(high))
            low = -high
        low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
        return cls(name=name, low=low, high=high, label=label)

    @property
    def palette(self) -> UInt8[np.ndarray, "level 3"]:
        """The colours of `LEVELS`, and that of cells that do not exist."""
        import matplotlib

        shades = matplotlib.colormaps[self.name](np.linspace(0, 1, LEVELS), bytes=True)[:, :3]
        return np.vstack([shades, np.array([MISSING], np.uint8)])

    @property
    def gradient(self) -> str:
        """As CSS."""
        stops = self.palette[np.linspace(0, LEVELS - 1, 9).astype(int)]
        return f"linear-gradient(90deg,{','.join('#' + bytes(stop).hex() for stop in stops)})"


@dataclass(frozen=True, kw_only=True)
class MapPanel:
    """One field at every lead shown: PNG as base64, and a note for each."""

    title: str
    images: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ChannelMaps:
    """The maps of one channel: truth, then each forecast above its error."""

    channel: str
    truth: MapPanel
    forecasts: tuple[tuple[MapPanel, MapPanel], ...]
    scales: tuple[ColourScale, ...]


def shown_leads(count: int) -> list[int]:
    """Positions of the leads on maps: all, or the first, the last and some between."""
    return sorted({round(n) for n in np.linspace(0, count - 1, min(count, MOST_LEADS))})


def channel_maps(
    *,
    past: Float[np.ndarray, "past channel height width"],
    truth: Float[np.ndarray, "lead channel height width"],
    forecasts: Mapping[str, np.ndarray],
    channel: int,
    grid: GridSpec,
) -> ChannelMaps:
    """Maps of one channel in its unit, at `shown_leads`.

    Where the truth changes little against its own range, fields are shown as their change since
    the last input. Fields share one range of colours, errors another.
    """
    leads = shown_leads(len(truth))
    start, exists = past[-1, channel], grid.exists
    fields = {"truth": truth, **forecasts}
    fields = {name: frames[leads, channel] for name, frames in fields.items()}
    errors = {name: frames - fields["truth"] for name, frames in fields.items() if name != "truth"}
    unit = grid.units[channel]
    label, colours = with_unit(grid.channels[channel], unit), "viridis"
    if _hides_change(fields["truth"][:, exists], start[exists]):
        fields = {name: frames - start for name, frames in fields.items()}
        label, colours = f"change of {label} since the last input", "RdBu_r"
    scales = [ColourScale.of(fields.values(), exists, colours, label)]
    panels = {name: _panel(name, frames, exists, scales[0]) for name, frames in fields.items()}
    if errors:
        error_label = with_unit("error", unit)
        scales.append(ColourScale.of(errors.values(), exists, "PuOr_r", error_label))
    pairs = []
    for name, frames in errors.items():
        rmse = np.sqrt(np.mean(np.square(frames[:, exists], dtype=np.float64), axis=1))
        notes = tuple(f"RMSE {value:.3g}" for value in rmse)
        pairs.append((panels[name], _panel(f"error: {name}", frames, exists, scales[1], notes)))
    return ChannelMaps(
        channel=grid.channels[channel],
        truth=panels["truth"],
        forecasts=tuple(pairs),
        scales=tuple(scales),
    )


def _hides_change(truth: Float[np.ndarray, "lead cell"], start: Float[np.ndarray, " cell"]) -> bool:
    """Whether the change over the lead times is small against the spread of the field."""
    change = float(np.sqrt(np.mean(np.square(truth - start))))
    return change < SMALL_CHANGE * float(np.std(start))


def _panel(
    title: str,
    frames: Float[np.ndarray, "lead height width"],
    exists: np.ndarray,
    scale: ColourScale,
    notes: tuple[str, ...] = (),
) -> MapPanel:
    images = tuple(_png(levels(field, exists, scale), scale) for field in frames)
    return MapPanel(title=title, images=images, notes=notes or ("",) * len(images))


def levels(
    field: Float[np.ndarray, "height width"], exists: np.ndarray, scale: ColourScale
) -> UInt8[np.ndarray, "rows columns"]:
    """The level of colour of every cell, `LEVELS` for those that do not exist.

    Grids of more than `MOST_CELLS` are averaged over squares of cells.
    """
    size = int(np.ceil(np.sqrt(field.size / MOST_CELLS)))
    if size > 1:
        rows, columns = (length // size * size for length in field.shape)
        squares = (rows // size, size, columns // size, size)
        weight = exists[:rows, :columns].reshape(squares).sum((1, 3))
        total = np.where(exists, field, 0)[:rows, :columns].reshape(squares).sum((1, 3))
        field, exists = total / np.maximum(weight, 1), weight > 0
    share = np.clip((field - scale.low) / (scale.high - scale.low), 0, 1)
    return np.where(exists, np.rint(share * (LEVELS - 1)), LEVELS).astype(np.uint8)


def _png(shades: UInt8[np.ndarray, "rows columns"], scale: ColourScale) -> str:
    """An image with a palette as base64 text."""
    from PIL import Image  # with Matplotlib

    image, stream = Image.fromarray(shades, "P"), io.BytesIO()
    image.putpalette(scale.palette.tobytes())
    image.save(stream, format="png", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


# --- where it is ---------------------------------------------------------------------------------


def extent(grid: GridSpec) -> tuple[float, float, float, float]:
    """(west, east, south, north): degrees where the grid has them, cells otherwise."""
    if grid.latitude is None or grid.longitude is None or min(grid.height, grid.width) < 2:
        return (-0.5, grid.width - 0.5, grid.height - 0.5, -0.5)
    x = (grid.longitude[-1] - grid.longitude[0]) / (grid.width - 1) / 2
    y = (grid.latitude[0] - grid.latitude[-1]) / (grid.height - 1) / 2
    west, east = grid.longitude[0] - x, grid.longitude[-1] + x
    return (west, east, grid.latitude[-1] - y, grid.latitude[0] + y)


def region(grid: GridSpec) -> str:
    """The extent in degrees, as `9 to 81 °N, -168 to -24 °E`; empty where there are none."""
    if grid.latitude is None or grid.longitude is None:
        return ""
    west, east, south, north = extent(grid)
    turn = 360 if east > 360 or west >= 180 else 0
    return f"{south:.4g} to {north:.4g} °N, {west - turn:.4g} to {east - turn:.4g} °E"


@cache
def coastlines() -> Float[np.ndarray, "point 2"]:
    """Longitude and latitude, degrees, NaN between lines: Natural Earth 1:110m, public domain."""
    with files("s2kd.evaluation").joinpath("coastline.npz").open("rb") as file:
        points = np.load(file)["points"]
    return np.where(points == np.iinfo(points.dtype).min, np.nan, points / 20)


def coast_path(grid: GridSpec) -> str:
    """Coastlines as an SVG path in degrees east and south of the map's corner.

    Empty on maps of a few degrees, for which the lines are too coarse.
    """
    west, east, south, north = extent(grid)
    if grid.latitude is None or grid.longitude is None or east - west < FINEST_COAST:
        return ""
    steps, pen = [], "M"
    for turn in (-360, 0, 360):
        for x, y in coastlines() + np.array([turn - west, -north]):
            # a little beyond the edge, so that lines end there
            if not (-9 <= x <= east - west + 9 and -9 <= -y <= north - south + 9):
                pen = "M"
                continue
            steps.append(f"{pen}{x:.4g} {-y:.4g}")
            pen = "L"
    return "".join(steps)
