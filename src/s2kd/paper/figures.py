"""Figures of the paper: shares of the gap, ablation, narrators, rare events, maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from s2kd.evaluation.compare import BASELINE, label
from s2kd.evaluation.figures import WIDTH, colours, new_figure, shared_legend, tidy_axes
from s2kd.evaluation.significance import FEWEST_SEEDS, Estimate
from s2kd.paper.experiment import Experiment
from s2kd.paper.studies import ABLATION

BLUE, GREEN = "#4477aa", "#228833"

SHARES = (-110, 150)
"""Percent of the gap that the axis of `gap_shares` shows."""


def _panels(titles: Sequence[str], height: float, *, columns: int = 3, **shared: bool) -> Any:
    """A figure with one titled panel per title; `height` is that of a row of panels."""
    count = len(titles)
    columns = min(columns, count)
    figure = new_figure(WIDTH, height * -(-count // columns))
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **shared).ravel()
    for axes in grid[count:]:
        axes.remove()
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(title.replace(", ", "\n", 1), fontsize=9)
        axes.tick_params(labelsize=8)
        tidy_axes(axes)
    return figure, list(grid[:count])


def _estimates_by_row(axes: Any, rows: Sequence[str], estimates: Mapping[str, Estimate]) -> None:
    """Values with bounds on the rows of their names; hollow with fewer than three seeds."""
    for name, estimate in estimates.items():
        position = rows.index(name)
        fill = BLUE if estimate.seeds >= FEWEST_SEEDS else "white"
        axes.plot(estimate.value, position, "o", color=BLUE, markerfacecolor=fill, zorder=3)
        if estimate.low is not None:
            axes.plot([estimate.low, estimate.high], [position, position], "-", color=BLUE)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)


def narrator_points(panels: Mapping[str, Mapping[str, Estimate]]) -> Any:
    """Figure 4: percent by which the student errs more than with the rule narrator's narratives."""
    rows = list(dict.fromkeys(name for points in panels.values() for name in points))
    figure, grid = _panels(list(panels), 1.2 + 0.27 * len(rows), sharey=True)
    for axes, points in zip(grid, panels.values(), strict=True):
        _estimates_by_row(axes, rows, points)
        axes.set_xlabel("error against rules %", fontsize=8)
    grid[0].invert_yaxis()
    return figure


def gap_shares(panels: Mapping[str, Experiment]) -> Any:
    """Share of the gap between baseline and teacher that each method closes, with 95 % bounds.

    Hollow where there are no bounds; an arrow at the edge for what lies beyond the axis.
    """
    tables = {title: experiment.table[(experiment.table["backbone"] == experiment.backbone)
                               & experiment.table["gap_closed_percent"].notna()]
              for title, experiment in panels.items()}  # fmt: skip
    rows = list(dict.fromkeys(name for table in tables.values() for name in table["label"]))
    figure, grid = _panels(list(panels), 3.1, sharex=True, sharey=True)
    for axes, table in zip(grid, tables.values(), strict=True):
        for row in table.to_dict("records"):
            position, share = rows.index(row["label"]), row["gap_closed_percent"]
            mark = ">" if share > SHARES[1] else "<" if share < SHARES[0] else "o"
            fill = "white" if np.isnan(row["gap_closed_low"]) else BLUE
            bounds = np.clip([row["gap_closed_low"], row["gap_closed_high"]], *SHARES)
            axes.plot(bounds, [position, position], "-", color=BLUE)
            axes.plot(np.clip(share, *SHARES), position, mark, color=BLUE, markerfacecolor=fill)
        if table.empty:
            axes.text(20, (len(rows) - 1) / 2, "no clear gap", ha="center", fontsize=8)
        axes.axvline(0, color="#888888", linewidth=1)
        axes.axvline(100, color="#888888", linewidth=1, linestyle="--")
        axes.set_xlim(SHARES[0] - 10, SHARES[1] + 10)
        axes.set_xlabel("gap closed %", fontsize=8)
    grid[0].set_yticks(range(len(rows)), rows, fontsize=8)
    grid[0].invert_yaxis()
    return figure


def ablation_bars(panels: Mapping[str, Experiment]) -> Any:
    """Figure 3: MSE (bars, left axis) and SSIM (line, right axis) of the rows of the ablation."""
    figure, grid = _panels(list(panels), 2.9, columns=2)
    for axes, experiment in zip(grid, panels.values(), strict=True):
        table = experiment.restricted(ABLATION).table
        at = np.arange(len(table))
        mse, deviation = table["mse"].to_numpy(), table["mse_std"].fillna(0).to_numpy()
        axes.bar(at, mse, yerr=deviation, color=BLUE, width=0.6, capsize=3)
        low, high = (mse - deviation).min(), (mse + deviation).max()
        axes.set_ylim(max(0, 2 * low - high), high + 0.6 * (high - low))
        axes.set_xticks(at, list(table["label"]), fontsize=8, rotation=30, ha="right")
        axes.set_ylabel("MSE (not from 0)", color=BLUE, fontsize=8)
        right = axes.twinx()
        deviation = table["ssim_std"].fillna(0)
        right.errorbar(at + 0.1, table["ssim"], yerr=deviation, fmt="o-", color=GREEN, capsize=3)
        right.set_ylabel("SSIM (not from 0)", color=GREEN, fontsize=8)
        right.tick_params(labelsize=8)
    return figure


def csi_by_lead(panels: Mapping[str, Mapping[str, Sequence[Estimate]]]) -> Any:
    """CSI less the baseline's by lead step, with 95 % bounds, by method."""
    figure, grid = _panels(list(panels), 3.2)
    style = colours(list(dict.fromkeys(m for curves in panels.values() for m in curves)))
    for axes, curves in zip(grid, panels.values(), strict=True):
        for number, (method, points) in enumerate(curves.items()):
            at = np.arange(1, len(points) + 1) + 0.06 * (number - len(curves) / 2)
            colour, line = style[method]
            values = np.array([p.value for p in points], float)
            bounds = np.array([[p.low, p.high] for p in points], float).T
            axes.errorbar(
                at, values, yerr=np.nan_to_num(np.abs(bounds - values)), color=colour,
                linestyle=line, marker="o", markersize=3, capsize=2, label=label(method),
            )  # fmt: skip
        axes.axhline(0, color="#888888", linewidth=1)
        axes.set_xlabel("lead step", fontsize=8)
    grid[0].set_ylabel(f"CSI − CSI of the {BASELINE}", fontsize=8)
    shared_legend(figure, grid[-1:])
    return figure


def detailed_region(truth: Float[np.ndarray, "height width"]) -> tuple[int, int, int, int]:
    """(first row, stop, first column, stop) of the third of the field with the most fine detail.

    Chosen from the truth alone: the box whose departures from a running mean over five cells have
    the largest mean square.
    """
    padded = np.pad(truth, 2, mode="edge")
    smooth = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).mean((-1, -2))
    detail = np.nan_to_num(np.square(truth - smooth))
    rows, columns = (max(2, -(-length // 3)) for length in truth.shape)
    mean = np.lib.stride_tricks.sliding_window_view(detail, (rows, columns)).mean((-1, -2))
    top, west = np.unravel_index(int(mean.argmax()), mean.shape)
    return int(top), int(top) + rows, int(west), int(west) + columns


def region_maps(sample: xr.Dataset) -> Any:
    """Figure 5: truth beside forecasts, whole and within the region of most detail."""
    from matplotlib.patches import Rectangle

    fields = {str(n): sample["field"].sel(name=n).values for n in sample["name"].values}
    truth = fields["truth"]
    top, bottom, west, right = sample.attrs["region"]
    low, high = np.nanquantile(truth, [0.005, 0.995])
    aspect = truth.shape[1] / truth.shape[0]
    figure = new_figure(WIDTH, 1.0 + 2 * min(2.2, WIDTH / len(fields) / aspect))
    grid = figure.subplots(2, len(fields), squeeze=False)
    origin = "upper" if sample.attrs["first_row_on_top"] else "lower"
    for (upper, lower), (name, field) in zip(grid.T, fields.items(), strict=True):
        part = field[top:bottom, west:right]
        for axes, values in ((upper, field), (lower, part)):
            image = axes.imshow(
                values, cmap="viridis", vmin=low, vmax=high, origin=origin, aspect="auto"
            )
            axes.set_xticks([])
            axes.set_yticks([])
        upper.set_title(label(name), fontsize=9)
        corner, size = (west - 0.5, top - 0.5), (right - west, bottom - top)
        upper.add_patch(Rectangle(corner, *size, fill=False, edgecolor="red", linestyle="--"))
        if name != "truth":
            rmse = np.sqrt(np.nanmean((part - truth[top:bottom, west:right]) ** 2))
            lower.set_title(f"RMSE {rmse:.3g}", fontsize=8)
    bar = figure.colorbar(image, ax=grid, location="right", shrink=0.8, aspect=30)
    bar.set_label(f"{sample.attrs['channel']} ({sample.attrs['unit']})", fontsize=8)
    return figure
