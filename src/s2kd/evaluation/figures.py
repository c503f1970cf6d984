"""Figures of a run: maps, spectra, errors by lead time, training curves, searches.

Every function returns a Matplotlib figure about 6 inches wide, so that it can be read on a phone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from s2kd.core.types import GridSpec, S2KDError

WIDTH = 6.4
# Okabe and Ito (2008): told apart with any kind of colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#6B6B00")
FIXED = {
    "persistence": ("#999999", ":"),
    "climatology": ("#999999", "--"),
    "teacher": ("black", "-"),
    "teacher-no-text": ("black", "--"),
    "truth": ("black", "-"),
}


def colours(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(colour, line style) by label: fixed for references and teachers, in turn for the rest."""
    free = [label for label in dict.fromkeys(labels) if label not in FIXED]
    styles = {
        label: (COLOURS[i % len(COLOURS)], ("-", "--", "-.", ":")[i // len(COLOURS) % 4])
        for i, label in enumerate(free)
    }
    return {label: FIXED.get(label) or styles[label] for label in labels}


def new_figure(width: float, height: float) -> Any:
    """An empty Matplotlib figure, inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise S2KDError(
            "figures need matplotlib, which is not installed: pip install matplotlib"
        ) from None
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def tidy_axes(axes: Any) -> None:
    """A faint grid, and no frame above and to the right."""
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def shared_legend(figure: Any, axes: Any) -> None:
    """One legend below all panels, of the labels of one of them."""
    handles, labels = axes.get_legend_handles_labels()
    columns = min(3, len(labels))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def lead_curves(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    *,
    hours: Sequence[float],
    unit_of_time: str,
    labels: Mapping[str, str],
    style: Mapping[str, tuple[str, str]],
) -> Any:
    """Error by lead time: `panels[channel][method] = (mean, standard deviation)` over seeds.

    `hours` are the lead times in `unit_of_time`, `labels` the axis label of each channel.
    """
    figure = new_figure(WIDTH, 0.6 + 2.5 * len(panels))
    rows_of_axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (channel, curves) in zip(rows_of_axes, panels.items(), strict=True):
        for method, (mean, std) in curves.items():
            colour, line = style[method]
            axes.plot(hours, mean, line, color=colour, label=method, linewidth=1.6, marker=".")
            low, high = np.subtract(mean, std), np.add(mean, std)
            if np.any(high > low):
                axes.fill_between(hours, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_ylabel(labels[channel])
        axes.set_ylim(bottom=0)
        tidy_axes(axes)
    rows_of_axes[-1].set_xlabel(f"lead time ({unit_of_time})")
    if unit_of_time == "hours":
        from matplotlib.ticker import MultipleLocator

        steps = (1, 2, 3, 6, 12, 24, 48, 96)
        step = next((s for s in steps if hours[-1] / s <= 8), 192)
        rows_of_axes[-1].xaxis.set_major_locator(MultipleLocator(step))
    shared_legend(figure, rows_of_axes[0])
    return figure


def spectra(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    wavenumber: Sequence[int],
    style: Mapping[str, tuple[str, str]],
) -> Any:
    """Radial spectra beside their ratio to the truth: `panels[channel][method]`, "truth" among."""
    figure = new_figure(WIDTH, 0.7 + 2.3 * len(panels))
    grid = figure.subplots(len(panels), 2, squeeze=False, sharex=True)
    k = np.asarray(wavenumber)[1:]
    for (power_axes, ratio_axes), (channel, curves) in zip(grid, panels.items(), strict=True):
        truth = np.maximum(np.asarray(curves["truth"], float)[1:], 1e-300)
        for method, power in curves.items():
            colour, line = style[method]
            power = np.maximum(np.asarray(power, float)[1:], 1e-300)
            line_width = 2.4 if method == "truth" else 1.5
            power_axes.loglog(k, power, line, color=colour, label=method, linewidth=line_width)
            if method != "truth":
                ratio_axes.loglog(k, power / truth, line, color=colour, linewidth=line_width)
        ratio_axes.axhline(1, color="black", linewidth=0.8)
        ratio_axes.set_yscale("log")
        low, high = ratio_axes.get_ylim()
        ratio_axes.set_ylim(max(low, 0.01), min(max(high, 1.5), 20))
        power_axes.set_ylabel(f"{channel}: power")
        ratio_axes.set_ylabel("forecast / truth")
        for axes in (power_axes, ratio_axes):
            tidy_axes(axes)
            _whole_ticks(axes, int(k[-1]))
    for axes in grid[-1]:
        axes.set_xlabel("waves per shorter side")
    shared_legend(figure, grid[0, 0])
    return figure


def _whole_ticks(axes: Any, last: int) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

    axes.set_xticks([2**i for i in range(int(math.log2(max(last, 1))) + 1)])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def training_curves(panels: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> Any:
    """Validation error by epoch: `panels[title][run] = records of log.jsonl`.

    Runs that differ only in their seed share a colour; a dot marks the weights that were kept.
    """
    figure = new_figure(WIDTH, 2.6 * len(panels))
    rows_of_axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (title, runs) in zip(rows_of_axes, panels.items(), strict=True):
        style, named = colours([without_seed(name) for name in runs]), set()
        for name, records in runs.items():
            label = without_seed(name)
            colour, line = style[label]
            forecast = [r for r in records if not r.get("hint")]
            points = [(r["epoch"] + 1, r["val"]) for r in forecast if r.get("val") is not None]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            shown = None if label in named else label
            axes.plot(epochs, values, line, color=colour, label=shown, linewidth=1.3, alpha=0.9)
            best = int(np.argmin(values))
            axes.plot(epochs[best], values[best], "o", color=colour, markersize=4)
            named.add(label)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylabel("validation MSE")
        axes.set_yscale("log")
        axes.legend(frameon=False, fontsize=8)
        tidy_axes(axes)
        _whole_epochs(axes)
    rows_of_axes[-1].set_xlabel("epoch")
    return figure


def _whole_epochs(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


def term_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Any:
    """Every term of the training loss by epoch, one panel a run."""
    figure = new_figure(WIDTH, 2.2 * len(runs))
    rows_of_axes = figure.subplots(len(runs), 1, squeeze=False)[:, 0]
    names = [name for records in runs.values() for name in records[0]["terms"]]
    style = colours(names)
    for axes, (title, records) in zip(rows_of_axes, runs.items(), strict=True):
        epochs = [record["epoch"] + 1 for record in records]
        for name in records[0]["terms"]:
            values = [record["terms"].get(name, math.nan) for record in records]
            axes.plot(epochs, values, style[name][1], color=style[name][0], label=name)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_yscale("log")
        axes.legend(frameon=False, fontsize=8, ncols=2)
        tidy_axes(axes)
        _whole_epochs(axes)
    rows_of_axes[-1].set_xlabel("epoch")
    return figure


def without_seed(name: str) -> str:
    """`student unet-s2kd-seed42` as `student unet-s2kd`."""
    import re

    return re.sub(r"[-_ ]?seed[-_ ]?\d+$", "", name)


def overview(
    groups: Mapping[str, Mapping[str, tuple[float, float]]],
    *,
    lines: Mapping[str, float],
    style: Mapping[str, tuple[str, str]],
) -> Any:
    """MSE of rows_of_axes method, one group a backbone; `lines` are references and teachers."""
    count = sum(map(len, groups.values())) + len(groups)
    figure = new_figure(WIDTH, 1.1 + 0.26 * count)
    axes = figure.subplots()
    row, ticks = 0, []
    for backbone, methods in groups.items():
        for method, (mean, std) in methods.items():
            colour = style[method][0]
            axes.errorbar(mean, row, xerr=std, fmt="o", color=colour, capsize=3, markersize=6)
            ticks.append((row, f"{backbone} {method}"))
            row += 1
        row += 1
    for name, value in lines.items():
        colour, line = style[name]
        axes.axvline(value, color=colour, linestyle=line, linewidth=1.4, label=name)
    axes.set_yticks([at for at, _ in ticks], [label for _, label in ticks])
    axes.invert_yaxis()
    axes.set_xlabel("MSE on the test split (normalised, lower is better)")
    tidy_axes(axes)
    if lines:
        shared_legend(figure, axes)
    return figure


AXIS_LABELS = {"lambda": "λ", "beta": "β", "lr": "learning rate"}


def sweep(search: Mapping[str, Any]) -> Any:
    """Validation error over the searched values: the plane of the first two, and each axis alone.

    `search` is what `s2kd sweep` writes; the star is the choice, the ring the recipe's own values.
    """
    trials = [trial for trial in search["trials"] if trial["state"] == "complete"]
    names, error = list(search["axes"]), [trial["validation"] for trial in trials]
    values = {name: [trial["values"][name] for trial in trials] for name in names}
    plane = names[:2] if len(names) > 1 else []
    figure = new_figure(WIDTH, (3.4 if plane else 0) + 2.6)
    rows = figure.subfigures(1 + bool(plane), 1, squeeze=False)[:, 0]
    if plane:
        axes = rows[0].subplots()
        points = axes.scatter(
            *(values[name] for name in plane), c=error, cmap="viridis_r", s=120, edgecolors="white"
        )
        _marks(axes, search, lambda trial: tuple(trial["values"][name] for name in plane))
        axes.set(xscale="log", yscale="log")
        for axis, name in zip((axes.xaxis, axes.yaxis), plane, strict=True):
            _log_axis(axis, subs=(1, 2, 5))
            axis.set_label_text(AXIS_LABELS[name])
        axes.margins(0.1)
        tidy_axes(axes)
        rows[0].colorbar(points, ax=axes, label="validation error")
    panels = rows[-1].subplots(1, len(names), squeeze=False, sharey=True)[0]
    panels[0].set_ylabel("validation error")
    for axes, name in zip(panels, names, strict=True):
        axes.plot(values[name], error, ".", color=COLOURS[0])
        _marks(axes, search, lambda trial, name=name: (trial["values"][name], trial["validation"]))
        axes.set_xscale("log")
        _log_axis(axes.xaxis, subs=(1, 3))
        axes.margins(x=0.12)
        axes.set_xlabel(AXIS_LABELS[name])
        tidy_axes(axes)
    return figure


def _log_axis(axis: Any, *, subs: Sequence[int]) -> None:
    """Ticks at plain numbers: powers of ten alone leave most of a decade without one."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _marks(axes: Any, search: Mapping[str, Any], point: Any) -> None:
    for name, marker, colour in (("own", "o", "none"), ("best", "*", COLOURS[1])):
        if search.get(name):
            x, y = point(search[name])
            axes.plot(x, y, marker, ms=14, markerfacecolor=colour, markeredgecolor="black")


def maps(
    *,
    past: np.ndarray,
    truth: np.ndarray,
    forecasts: Mapping[str, np.ndarray],
    channel: int,
    grid: GridSpec,
    when: Sequence[str],
) -> Any:
    """One channel: truth above forecasts, each beside its error at the last lead.

    `past`, `truth` and forecasts are (frame, channel, height, width) in physical units; `when`
    names each lead time. All fields share one colour range, and all errors another, centred on 0.
    """
    aspect = _extent_aspect(grid)
    leads = sorted({0, len(truth) // 2, len(truth) - 1}) if aspect <= 3 else [len(truth) - 1]
    columns = len(leads) + 1
    width = (WIDTH - 1.4) / columns / aspect
    figure = new_figure(WIDTH, 1.1 + (min(width, 2.4) + 0.24) * (len(forecasts) + 1))
    figure.get_layout_engine().set(h_pad=0.01, hspace=0.0, w_pad=0.02, wspace=0.0)
    axes = figure.subplots(len(forecasts) + 1, columns, squeeze=False, sharex=True, sharey=True)
    exists = grid.exists

    def show(panel: Any, field: np.ndarray, cmap: str, limits: tuple[float, float]) -> Any:
        return _show(panel, np.where(exists, field, np.nan), grid, cmap, limits)

    shown = [truth[lead, channel][exists] for lead in leads]
    limits = _range(np.concatenate([*shown, past[-1, channel][exists]]))
    last = leads[-1]
    errors = {name: f[last, channel] - truth[last, channel] for name, f in forecasts.items()}
    widest = max((float(np.quantile(np.abs(e[exists]), 0.995)) for e in errors.values()), default=1)
    widest = widest or 1.0
    field = None
    for row, (name, frames) in enumerate({"truth": truth, **forecasts}.items()):
        for column, lead in enumerate(leads):
            field = show(axes[row, column], frames[lead, channel], "viridis", limits)
            if row == 0:
                axes[row, column].set_title(when[lead], fontsize=9)
        axes[row, 0].set_ylabel(name.replace(" ", "\n", 1), fontsize=9)
    show(axes[0, -1], past[-1, channel], "viridis", limits)
    axes[0, -1].set_title("last input", fontsize=9)
    error = None
    for row, (_, values) in enumerate(errors.items(), start=1):
        error = show(axes[row, -1], values, "RdBu_r", (-widest, widest))
        spread = float(np.sqrt((values[exists] ** 2).mean()))
        axes[row, -1].set_title(f"RMSE {spread:.3g}", fontsize=8, pad=2)
    name = f"{grid.channels[channel]} ({grid.units[channel]})"
    _bars(figure, axes, field, error, (name, f"error, {when[last]}"))
    return figure


def _bars(figure: Any, axes: Any, field: Any, error: Any, names: tuple[str, str]) -> None:
    bars = [(field, axes[:, :-1], names[0])]
    bars += [(error, axes[:, -1:], names[1])] if error is not None else []
    for image, panels, label in bars:
        bar = figure.colorbar(
            image,
            ax=panels,
            location="bottom",
            shrink=0.9,
            # as thick under one column as under several
            aspect=11 * panels.shape[1],
            pad=0.01,
            extend="both",
        )
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.locator = _few_ticks()
        bar.update_ticks()


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=4)


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = (float(v) for v in np.quantile(values, (0.005, 0.995)))
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
    if grid.latitude is not None and grid.longitude is not None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        for axis, name in ((axes.xaxis, _east), (axes.yaxis, _north)):
            axis.set_major_locator(MaxNLocator(nbins=3, steps=[1, 2, 3, 5, 6, 9, 10]))
            axis.set_major_formatter(FuncFormatter(name))
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    return image


def _east(degrees: float, position: int | None = None) -> str:
    turned = (degrees + 180) % 360 - 180
    side = "" if turned in (0, -180) else ("E" if turned > 0 else "W")
    return f"{abs(turned):g}°{side}"


def _north(degrees: float, position: int | None = None) -> str:
    return f"{abs(degrees):g}°{'' if degrees == 0 else 'N' if degrees > 0 else 'S'}"
