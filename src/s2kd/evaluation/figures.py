"""Figures of a run: curves by lead time, the frontier, heat maps, training, searches.

Every function returns a Matplotlib figure. Methods have one colour and one label in all of them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from s2kd.core.errors import S2KDError
from s2kd.evaluation.answer import REFERENCES
from s2kd.evaluation.compare import label as method_label

WIDTH, WIDE = 6.4, 9.6
"""Inches, of figures with one column of panels and with several."""
RATIOS = (0.1, 10.0)
"""Limits of the axis of ratios."""
Curve = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation over seeds."""
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


def shared_legend(figure: Any, panels: Any) -> None:
    """One legend below all panels, every label once."""
    pairs = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels)
    handles = {label: handle for pair in pairs for handle, label in pair}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=max(1, min(4, len(handles))),
        frameon=False,
        fontsize=9,
    )


def curve_grid(
    panels: Mapping[str, Mapping[str, Mapping[str, Curve]]],
    *,
    x: Sequence[float],
    x_label: str,
    style: Mapping[str, tuple[str, str]],
    ratio: bool = False,
) -> Any:
    """Curves of methods: `panels[label of the y axis][title of the column][method]`.

    A curve is its mean and standard deviation over seeds at every `x`. Panels of a row share their
    y axis, fitted to all but the references, or for a `ratio` logarithmic with a line at 1.
    """
    columns = list(dict.fromkeys(name for row in panels.values() for name in row))
    width = WIDTH if len(columns) == 1 else WIDE
    figure = new_figure(width, 0.8 + 2.3 * len(panels))
    grid = figure.subplots(len(panels), len(columns), squeeze=False, sharex=True, sharey="row")
    for row, (label, by_column) in zip(grid, panels.items(), strict=True):
        for axes, column in zip(row, columns, strict=True):
            for method, (mean, std) in by_column.get(column, {}).items():
                colour, line = style[method]
                axes.plot(x, mean, line, color=colour, label=method_label(method), linewidth=1.6)
                low, high = np.subtract(mean, std), np.add(mean, std)
                if np.any(high > low):
                    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            if ratio:
                axes.axhline(1, color="black", linewidth=0.8)
                axes.set(xscale="log", yscale="log", ylim=RATIOS)
                _whole_ticks(axes, int(x[-1]))
                _log_axis(axes.yaxis, subs=(1, 2, 5))
            tidy_axes(axes)
        if not ratio:
            students = [
                c for by in by_column.values() for m, c in by.items() if m not in REFERENCES
            ]
            row[0].set_ylim(*_near([c[0] for c in students]))
        row[0].set_ylabel(label.replace(": ", "\n"), fontsize=9)
    for axes, title in zip(grid[0], columns, strict=True):
        axes.set_title(method_label(title) if len(columns) > 1 else "", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel(x_label)
    shared_legend(figure, grid.flat)
    return figure


def _near(curves: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
    """Limits that leave room for references near the curves, and no more."""
    values = np.asarray(curves, float)
    if not values.size or not np.isfinite(values).any():
        return None, None
    return 0.85 * float(np.nanmin(values)), 1.35 * float(np.nanmax(values))


def _whole_ticks(axes: Any, last: int) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator, ScalarFormatter

    axes.set_xticks([2**i for i in range(int(math.log2(max(last, 1))) + 1)])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def heat_map(
    values: Float[np.ndarray, "row column"], *, rows: Sequence[str], columns: Sequence[str]
) -> Any:
    """Numbers as cells shaded by their share of the column's largest; NaN is blank."""
    figure = new_figure(WIDE, 0.8 + 0.24 * len(rows))
    axes = figure.subplots()
    shades = values / np.nanmax(values, axis=0, initial=0.01)
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if shades[row, column] > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, size=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    turned = {"rotation": 30, "ha": "left"} if len(columns) > 4 else {}
    axes.set_xticks(range(len(columns)), columns, fontsize=9, **turned)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def frontier(
    panels: Mapping[str, Sequence[tuple[str, float, float, bool]]],
    *,
    front: Sequence[tuple[float, float]],
    lines: Mapping[str, float],
    style: Mapping[str, tuple[str, str]],
) -> Any:
    """Error against latency: `panels[label of the error] = (method, ms, error, chosen), …`.

    `front` joins points of the first panel, `lines` are references of the last; the star is the
    chosen student.
    """
    figure = new_figure(WIDTH if len(panels) == 1 else WIDE, 3.6)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    grid[0].plot(*zip(*front, strict=True) if front else ([], []), color="#999999", zorder=1)
    for axes, (label, points) in zip(grid, panels.items(), strict=True):
        for method, latency, error, is_chosen in points:
            form = {"marker": "*", "s": 220, "zorder": 3} if is_chosen else {"marker": "o", "s": 40}
            colour = style[method][0]
            axes.scatter(latency, error, color=colour, label=method_label(method), linewidth=0.7,
                         edgecolor="white", **form)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="latency of a forecast (ms)", ylabel=label)
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            _log_axis(axis, subs=(1, 2, 5) if high > 4 * low else range(1, 10))
        tidy_axes(axes)
    highest = 2 * max((error for _, _, error, _ in points), default=0.0)
    for name, value in lines.items():
        if value < highest:
            grid[-1].axhline(value, color=style[name][0], linestyle=style[name][1], label=name)
    shared_legend(figure, grid)
    return figure


def training_curves(
    panels: Mapping[str, Sequence[tuple[str, Sequence[Mapping[str, Any]]]]],
    *,
    style: Mapping[str, tuple[str, str]],
) -> Any:
    """Validation error by epoch: `panels[title] = (method, records of log.jsonl), …`, one per seed.

    A dot marks the best weights.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(WIDTH if columns == 1 else WIDE, 0.6 + 2.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, runs) in zip(grid.flat, panels.items(), strict=False):
        for method, records in runs:
            forecast = [r for r in records if not r.get("hint")]
            points = [(r["epoch"] + 1, r["val"]) for r in forecast if r.get("val") is not None]
            if not points:
                continue
            epochs, values = zip(*points, strict=True)
            colour, line = style[method]
            label = method_label(method)
            axes.plot(epochs, values, line, color=colour, label=label, linewidth=1.3, alpha=0.9)
            best = int(np.argmin(values))
            axes.plot(epochs[best], values[best], "o", color=colour, markersize=4)
        axes.set_title(method_label(title), fontsize=10, loc="left")
        axes.set(xlabel="epoch", ylabel="validation MSE", yscale="log")
        tidy_axes(axes)
        _whole_epochs(axes)
    shared_legend(figure, grid.flat)
    return figure


def _whole_epochs(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())


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
