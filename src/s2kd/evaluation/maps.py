"""Maps of one window: truth, forecasts and errors, coastlines where there are coordinates."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Float

from s2kd.core.types import GridSpec
from s2kd.evaluation.answer import with_unit
from s2kd.evaluation.figures import WIDE, new_figure

LABEL_BOX = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
SMALL_CHANGE = 0.4
"""Of the spatial standard deviation: below it, maps show changes."""
FINEST_COAST = 10.0
"""Degrees of longitude: narrower maps have no coastlines."""


def maps(
    *,
    past: Float[np.ndarray, "past channel height width"],
    truth: Float[np.ndarray, "lead channel height width"],
    forecasts: Mapping[str, np.ndarray],
    channel: int,
    grid: GridSpec,
    when: Sequence[str],
) -> Any:
    """One channel, physical units, a row per lead time: truth, forecasts, and their errors.

    `when` names the lead times. Where the truth changes little against its own range, fields are
    shown as their change since the last input. Fields share one colour range, errors another.
    """
    leads = sorted({0, len(truth) // 2, len(truth) - 1})
    fields = {"truth": truth, **forecasts}
    fields = {name: frames[leads, channel] for name, frames in fields.items()}
    errors = {f"error: {n}": f - fields["truth"] for n, f in fields.items() if n != "truth"}
    start, exists = past[-1, channel], grid.exists
    unit = grid.units[channel]
    label, cmap = with_unit(grid.channels[channel], unit), "viridis"
    if _hides_change(fields["truth"][:, exists], start[exists]):
        fields = {name: frames - start for name, frames in fields.items()}
        label, cmap = f"change of {label} since the last input", "RdBu_r"
    width = (WIDE - 0.9) / len(fields | errors)
    height = min(width / _extent_aspect(grid), 2.6)
    figure = new_figure(WIDE, 1.2 + (height + 0.2) * len(leads))
    axes = figure.subplots(
        len(leads), len(fields | errors), squeeze=False, sharex=True, sharey=True
    )
    for panel, lead in zip(axes[:, 0], leads, strict=True):
        panel.set_ylabel(when[lead], fontsize=8)
    _draw(axes[:, : len(fields)], fields, grid, cmap=cmap, label=label)
    if errors:
        panels = axes[:, len(fields) :]
        _draw(panels, errors, grid, cmap="PuOr_r", label=with_unit("error", unit))
        for (row, column), panel in np.ndenumerate(panels):
            error = list(errors.values())[column][row][exists]
            rmse = f"RMSE {float(np.sqrt(np.mean(np.square(error)))):.3g}"
            panel.text(0.02, 0.03, rmse, fontsize=8, bbox=LABEL_BOX, transform=panel.transAxes)
    return figure


def _draw(
    panels: np.ndarray,
    columns: Mapping[str, Float[np.ndarray, "lead height width"]],
    grid: GridSpec,
    *,
    cmap: str,
    label: str,
) -> None:
    """Fields of one colour range, one column each, and their colour bar."""
    exists, image = grid.exists, None
    values = np.concatenate([frames[:, exists] for frames in columns.values()], axis=None)
    limits = _range(values, centred=cmap != "viridis")
    for panel, (title, frames) in zip(panels.T, columns.items(), strict=True):
        panel[0].set_title(title.replace(" (", "\n(", 1), fontsize=8)
        for axes, field in zip(panel, frames, strict=True):
            image = _show(axes, np.where(exists, field, np.nan), grid, cmap, limits)
    bar = panels[0, 0].figure.colorbar(
        image,
        ax=panels,
        location="bottom",
        shrink=0.8,
        aspect=11 * len(columns),
        pad=0.02,
        extend="both",
    )
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.locator = _few_ticks()
    bar.update_ticks()


def _hides_change(truth: Float[np.ndarray, "lead cell"], start: Float[np.ndarray, " cell"]) -> bool:
    """Whether the change over the lead times is small against the spread of the field."""
    change = float(np.sqrt(np.mean(np.square(truth - start))))
    return change < SMALL_CHANGE * float(np.std(start))


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4)


def _range(values: np.ndarray, *, centred: bool) -> tuple[float, float]:
    """All but the outermost hundredth of the values; with 0 in its middle where `centred`."""
    low, high = (float(v) for v in np.quantile(values, (0.005, 0.995)))
    if centred:
        high = max(abs(low), abs(high))
        low = -high
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _extent(grid: GridSpec) -> tuple[float, float, float, float]:
    """(west, east, south, north): degrees where the grid has them, cells otherwise."""
    if grid.latitude is None or grid.longitude is None or min(grid.height, grid.width) < 2:
        return (-0.5, grid.width - 0.5, grid.height - 0.5, -0.5)
    x = (grid.longitude[-1] - grid.longitude[0]) / (grid.width - 1) / 2
    y = (grid.latitude[0] - grid.latitude[-1]) / (grid.height - 1) / 2
    return (
        grid.longitude[0] - x,
        grid.longitude[-1] + x,
        grid.latitude[-1] - y,
        grid.latitude[0] + y,
    )


def _extent_aspect(grid: GridSpec) -> float:
    west, east, south, north = _extent(grid)
    return abs(east - west) / abs(north - south)


def _show(
    axes: Any, field: np.ndarray, grid: GridSpec, cmap: str, limits: tuple[float, float]
) -> Any:
    import matplotlib

    colour = matplotlib.colormaps[cmap].with_extremes(bad="#bbbbbb")
    image = axes.imshow(
        field, cmap=colour, vmin=limits[0], vmax=limits[1], extent=_extent(grid), aspect="equal"
    )
    axes.tick_params(labelsize=7, length=2)
    axes.autoscale(False)
    _draw_coastlines(axes, grid)
    if grid.latitude is not None and grid.longitude is not None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        for axis, name in ((axes.xaxis, _east), (axes.yaxis, _north)):
            axis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 3, 5, 6, 9, 10]))
            axis.set_major_formatter(FuncFormatter(name))
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    return image


@cache
def coastlines() -> Float[np.ndarray, "point 2"]:
    """Longitude and latitude, degrees, NaN between lines: Natural Earth 1:110m, public domain."""
    with files("s2kd.evaluation").joinpath("coastline.npz").open("rb") as file:
        points = np.load(file)["points"]
    return np.where(points == np.iinfo(points.dtype).min, np.nan, points / 20)


def _draw_coastlines(axes: Any, grid: GridSpec) -> None:
    """Not on maps of a few degrees, for which the lines are too coarse."""
    if grid.latitude is None or grid.longitude is None:
        return
    west, east, _, _ = _extent(grid)
    if east - west < FINEST_COAST:
        return
    longitude, latitude = coastlines().T
    for turn in (-360, 0, 360):
        if np.any((longitude + turn > west) & (longitude + turn < east)):
            axes.plot(longitude + turn, latitude, color="#333333", linewidth=0.5)


def _east(degrees: float, position: int | None = None) -> str:
    turned = (degrees + 180) % 360 - 180
    side = "" if turned in (0, -180) else ("E" if turned > 0 else "W")
    return f"{abs(turned):g}°{side}"


def _north(degrees: float, position: int | None = None) -> str:
    return f"{abs(degrees):g}°{'' if degrees == 0 else 'N' if degrees > 0 else 'S'}"
