"""Figures of a run: curves by lead time, the frontier, training, searches.

Every function returns a Matplotlib figure. Methods have one colour and one label in all of them.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from s2kd.core.errors import S2KDError
from s2kd.evaluation.compare import method_label

WIDTH, PANEL = 6.4, (5.2, 2.6)
"""Inches: of a figure on a page of its own, and of a panel beside others, without its legend."""
RATIOS = (0.1, 10.0)
"""Furthest limits of the axis of ratios."""
Curve = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation over seeds."""
# Okabe and Ito (2008): told apart with any kind of colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#6B6B00")
FIXED = {
    "persistence": ("#999999", ":"),
    "climatology": ("#999999", "--"),
    "teacher": ("black", "-"),
    "teacher-no-text": ("black", "--"),
    "teacher of your own": ("black", "-"),
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


def shared_legend(figure: Any, panels: Any, *, columns: int = 4) -> None:
    """One legend below all panels, every label once."""
    pairs = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels)
    handles = {label: handle for pair in pairs for handle, label in pair}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=max(1, min(columns, len(handles))),
        frameon=False,
        fontsize=9,
    )


def _panel(title: str, x_label: str, y_label: str, *, labels: int) -> tuple[Any, Any]:
    """A figure of one panel, with room for a legend of so many labels in three columns."""
    width, height = PANEL
    figure = new_figure(width, height + 0.2 * -(-labels // 3))
    axes = figure.subplots()
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.tick_params(labelsize=8)
    tidy_axes(axes)
    return figure, axes


def curves(
    by_method: Mapping[str, Curve],
    *,
    title: str,
    x: Sequence[float],
    x_label: str,
    style: Mapping[str, tuple[str, str]],
    limits: tuple[float | None, float | None] = (None, None),
    ratio: bool = False,
) -> Any:
    """One curve per method: its mean and standard deviation over seeds at every `x`.

    A `ratio` is logarithmic with a line at 1; others have the `limits` of their y axis.
    """
    figure, axes = _panel(title, x_label, "", labels=len(by_method))
    for method, (mean, std) in by_method.items():
        colour, line = style[method]
        axes.plot(x, mean, line, color=colour, label=method_label(method), linewidth=1.6)
        low, high = np.subtract(mean, std), np.add(mean, std)
        if np.any(high > low):
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(*limits)
    if not ratio:
        stride = -(-len(x) // 8)
        axes.set_xticks(x[stride - 1 :: stride])
    else:
        axes.axhline(1, color="black", linewidth=0.8)
        near = [0.5, 2.0, *(v for mean, _ in by_method.values() for v in mean if v > 0)]
        axes.set(xscale="log", yscale="log", ylim=np.clip((min(near), max(near)), *RATIOS))
        _whole_ticks(axes, int(x[-1]))
        _log_axis(axes.yaxis)
    shared_legend(figure, [axes], columns=3)
    return figure


def limits_near(curves: Sequence[Sequence[float]]) -> tuple[float | None, float | None]:
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


def frontier(
    points: Sequence[tuple[str, float, float, bool, str]],
    *,
    title: str,
    y_label: str,
    style: Mapping[str, tuple[str, str]],
    front: Sequence[tuple[float, float]] = (),
    lines: Mapping[str, float] = MappingProxyType({}),
) -> Any:
    """Error against latency: points of (method, ms, error, chosen, name), the chosen one a star.

    `front` joins points, `lines` are references, drawn where they are near.
    """
    labels = len({method for method, *_ in points}) + len(lines)
    figure, axes = _panel(title, "latency of a forecast (ms)", y_label, labels=labels)
    axes.plot(*zip(*front, strict=True) if front else ([], []), color="#999999", zorder=1)
    for method, latency, error, is_chosen, name in points:
        form = {"marker": "*", "s": 220, "zorder": 3} if is_chosen else {"marker": "o", "s": 40}
        colour, line = style[method]
        fill = colour if line == "-" else "white"
        axes.scatter(latency, error, label=method_label(method), c=fill, edgecolor=colour, **form)
        if (latency, error) in front:  # more names would overlap
            axes.annotate(name, (latency, error), (7, 5), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", yscale="log")
    axes.margins(0.12)
    highest = 2 * max((error for _, _, error, *_ in points), default=0.0)
    for name, value in lines.items():
        if value < highest:
            axes.axhline(value, color=style[name][0], linestyle=style[name][1], label=name)
    _log_axis(axes.xaxis)
    _log_axis(axes.yaxis)
    shared_legend(figure, [axes], columns=3)
    return figure


def training_curves(
    runs: Sequence[tuple[str, Sequence[tuple[int, float]]]],
    *,
    title: str,
    style: Mapping[str, tuple[str, str]],
    limits: tuple[float, float],
) -> Any:
    """Validation error by epoch: (method, points) of every training, a dot at its lowest."""
    from matplotlib.ticker import MaxNLocator

    labels = len({method for method, _ in runs})
    figure, axes = _panel(title, "epoch", "validation MSE", labels=labels)
    for method, points in runs:
        epochs, values = zip(*points, strict=True)
        colour, line = style[method]
        text = method_label(method)
        axes.plot(epochs, values, line, color=colour, label=text, linewidth=1.3, alpha=0.9)
        best = int(np.argmin(values))
        axes.plot(epochs[best], values[best], "o", color=colour, markersize=4)
    axes.set(yscale="log", ylim=limits)
    _log_axis(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    shared_legend(figure, [axes], columns=3)
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


def _log_axis(axis: Any, *, subs: Sequence[int] = ()) -> None:
    """Ticks at plain numbers: powers of ten alone leave most of a decade without one.

    Without `subs`, as many as the limits of the axis leave room for.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=subs or ((1, 2, 5) if high > 4 * low else range(1, 10))))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _marks(axes: Any, search: Mapping[str, Any], point: Any) -> None:
    for name, marker, colour in (("own", "o", "none"), ("best", "*", COLOURS[1])):
        if search.get(name):
            x, y = point(search[name])
            axes.plot(x, y, marker, ms=14, markerfacecolor=colour, markeredgecolor="black")
