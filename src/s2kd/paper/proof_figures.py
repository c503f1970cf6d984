"""Figures of the proof: ablation, narrators, shares of the gap, maps with a region to look at."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from s2kd.evaluation.figures import WIDTH, colours, new_figure, shared_legend, tidy_axes
from s2kd.evaluation.significance import FEWEST_SEEDS, Comparison
from s2kd.paper.experiment import METHOD_ORDER, Models, gap_closed, metric, spread, together
from s2kd.paper.studies import ABLATION
from s2kd.paper.tables import name_of


def _grid(count: int, height: float, *, most: int = 4, **how: Any) -> tuple[Any, list[Any]]:
    """A figure of `count` panels; `height` is that of a line of `most`, or of three where more."""
    columns = count if count <= most else min(most, 3)
    figure = new_figure(WIDTH, height * -(-count // columns))
    places = figure.subplots(-(-count // columns), columns, squeeze=False, **how).ravel()
    for axes in places[count:]:
        axes.remove()
    return figure, list(places[:count])


def ablation_bars(panels: Mapping[str, Models]) -> Any:
    """Figure 3: MSE (bars, left axis) and SSIM (line, right axis) of the rows of the ablation."""
    figure, places = _grid(len(panels), 2.9, most=2)
    for axes, (title, models) in zip(places, panels.items(), strict=True):
        backbone = models.students[0]
        methods = [m for m in ABLATION if models.of("student", m, backbone)]
        rows = [models.of("student", m, backbone) for m in methods]
        at = np.arange(len(methods))
        mse, off = ([f(r, "mse") for r in rows] for f in (metric, spread))
        axes.bar(
            at, mse, yerr=np.nan_to_num(off), color="#4477aa", width=0.6, capsize=3, label="MSE"
        )
        low, high = min(mse) - np.nanmax([*off, 0]), max(mse) + np.nanmax([*off, 0])
        room = (high - low) or high
        axes.set_ylim(max(0, low - room), high + 0.6 * room)
        axes.set_xticks(at, [name_of(m) for m in methods], fontsize=8, rotation=30, ha="right")
        axes.set_title(title, fontsize=9)
        axes.set_ylabel("MSE (axis does not start at 0)", color="#4477aa", fontsize=8)
        axes.tick_params(labelsize=8)
        other = axes.twinx()
        other.tick_params(labelsize=8)
        ssim, apart = (np.array([f(r, "ssim") for r in rows]) for f in (metric, spread))
        other.errorbar(
            at + 0.1, ssim, yerr=np.nan_to_num(apart), fmt="o-", color="#228833", capsize=3
        )
        other.set_ylabel("SSIM (not from 0)", color="#228833", fontsize=8)
        other.spines["top"].set_visible(False)
        tidy_axes(axes)
    return figure


def narrator_points(panels: Mapping[str, Mapping[str, Comparison]]) -> Any:
    """Figure 4: percent by which the student errs more than with the rules' words, and bounds.

    Hollow where the bounds are of test windows alone, for want of seeds.
    """
    longest = max(panels.values(), key=len)
    labels = list(dict.fromkeys([*longest, *(label for one in panels.values() for label in one)]))
    figure, places = _grid(len(panels), 1.2 + 0.27 * len(labels), sharey=True)
    for axes, (title, points) in zip(places, panels.items(), strict=True):
        for label, found in points.items():
            place, fill = labels.index(label), "white"
            if found.seeds >= FEWEST_SEEDS:
                fill = "#4477aa"
            axes.plot(found.difference, place, "o", color="#4477aa", markerfacecolor=fill, zorder=3)
            if found.low is not None:
                axes.plot([found.low, found.high], [place] * 2, "-", color="#4477aa")
        axes.axvline(0, color="#888888", linewidth=1)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("error against rules %", fontsize=8)
        axes.locator_params(axis="x", nbins=5)
        axes.tick_params(labelsize=8)
        tidy_axes(axes)
    places[0].set_yticks(range(len(labels)), labels, fontsize=8)
    places[0].invert_yaxis()
    return figure


SHOWN = ("persistence", "teacher", "baseline", "fitnet", "spectral", "s2kd", "s2kd_plus")
"""Whom figures with little room show; colours go by this order in all of them."""

SHARES = (-110, 150)
"""Percent of the gap that the axis of `gap_shares` shows."""


def gap_shares(panels: Mapping[str, Models]) -> Any:
    """Share of the gap between baseline and teacher that each method closes, with 95 % bounds."""
    figure, places = _grid(len(panels), 3.1, sharex=True, sharey=True)
    every = [name for name in METHOD_ORDER if name not in ("baseline", "spectral", "semantic")]
    names = [m for m in every if any(p.of("student", m, p.students[0]) for p in panels.values())]
    for axes, (title, models) in zip(places, panels.items(), strict=True):
        backbone = models.students[0]
        base, teacher = models.of("student", "baseline", backbone), models.of("teacher", "teacher")
        drawn = 0
        for place, method in enumerate(names):
            rows = models.of("student", method, backbone)
            found = gap_closed(base, rows, teacher) if rows and teacher else None
            if found is None or found.value is None:
                continue
            drawn, share = drawn + 1, 100 * found.value
            # an arrow at the edge for what lies beyond it; hollow where there are no bounds
            mark = ">" if share > SHARES[1] else "<" if share < SHARES[0] else "o"
            fill = "white" if found.low is None else "#4477aa"
            if found.low is not None:
                bounds = np.clip([100 * found.low, 100 * found.high], *SHARES)
                axes.plot(bounds, [place] * 2, "-", color="#4477aa")
            axes.plot(np.clip(share, *SHARES), place, mark, color="#4477aa", markerfacecolor=fill)
        if not drawn:
            axes.text(20, (len(names) - 1) / 2, "no clear gap", ha="center", fontsize=8)
        axes.axvline(0, color="#888888", linewidth=1)
        axes.axvline(100, color="#888888", linewidth=1, linestyle="--")
        axes.set_xlim(SHARES[0] - 10, SHARES[1] + 10)
        axes.tick_params(labelsize=8)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("gap closed %", fontsize=8)
        tidy_axes(axes)
    places[0].set_yticks(range(len(names)), [name_of(m) for m in names], fontsize=8)
    places[0].invert_yaxis()
    return figure


def error_by_lead(panels: Mapping[str, Models]) -> Any:
    """MSE of teacher and the first student's methods by lead, as a multiple of the baseline's.

    Over the seeds that both have.
    """
    figure, places = _grid(len(panels), 2.7)
    labels = ["teacher", "output", "fitnet", "s2kd", "s2kd_plus"]
    style = colours([*SHOWN, "output"])
    for axes, (title, models) in zip(places, panels.items(), strict=True):
        for label in labels:
            both = together(
                models.forecasters.get(label, []),
                models.of("student", "baseline", models.students[0]),
            )
            if both[0]:
                curve, base = (
                    np.mean([_mse_by_lead(row) for row in rows], axis=0) for rows in both
                )
                colour, line = style[label]
                steps = np.arange(1, len(curve) + 1)
                axes.plot(
                    steps,
                    curve / base,
                    color=colour,
                    linestyle=line,
                    marker="o",
                    markersize=3,
                    label=name_of(label),
                )
        axes.axhline(1, color="#888888", linewidth=1)
        axes.tick_params(labelsize=8)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("lead step", fontsize=8)
        tidy_axes(axes)
    places[0].set_ylabel("MSE / plain student's", fontsize=8)
    shared_legend(figure, places[0])
    return figure


def _mse_by_lead(row: Mapping[str, Any]) -> Float[np.ndarray, " lead"]:
    channels = row["scores"]["by_lead"].values()
    return np.mean([one["mse"] for one in channels], axis=0)


def spectra_at_the_end(panels: Mapping[str, Models]) -> Any:
    """Power of the forecasts at the last lead, as a multiple of the truth's, by wavenumber."""
    figure, places = _grid(len(panels), 3.4)
    style = colours(SHOWN)
    for axes, (title, models) in zip(places, panels.items(), strict=True):
        for name, rows in with_spectra(models).items():
            ratio = np.mean([_power_ratio(row) for row in rows], axis=0)
            colour, line = style[name]
            waves = np.arange(1, len(ratio) + 1)  # without the mean, wavenumber 0
            axes.plot(waves, ratio, color=colour, linestyle=line, label=name_of(name))
        axes.axhline(1, color="#888888", linewidth=1)
        axes.set_ylim(0, 2)  # at the last wavenumber hardly any power is left to be a part of
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("wavenumber", fontsize=8)
        axes.tick_params(labelsize=8)
        tidy_axes(axes)
    places[0].set_ylabel("power / truth's, last lead", fontsize=8)
    shared_legend(figure, places[-1])
    return figure


def _power_ratio(row: Mapping[str, Any]) -> Float[np.ndarray, " wavenumber"]:
    """Mean over channels, each by its own truth; the mean (wavenumber 0) left out."""
    pairs = [
        (np.asarray(one["forecast"][-1]), np.asarray(one["truth"][-1]))
        for one in row["scores"]["spectra"].values()
    ]
    return np.mean([(f / np.maximum(t, 1e-30))[1:] for f, t in pairs], axis=0)


def with_spectra(models: Models) -> dict[str, Sequence[Mapping[str, Any]]]:
    """The results of `SHOWN` that hold spectra."""
    every = models.forecasters
    return {
        name: every[name]
        for name in SHOWN
        if name in every and all(row["scores"].get("spectra") for row in every[name])
    }


def hits_by_lead(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float | None, float | None]]]],
) -> Any:
    """CSI less the baseline's by lead step: forecaster to (value, low, high) of every lead."""
    figure, places = _grid(len(panels), 3.2)
    style = colours(SHOWN)
    for axes, (title, curves) in zip(places, panels.items(), strict=True):
        for number, (name, points) in enumerate(curves.items()):
            at = np.arange(1, len(points) + 1) + 0.06 * (number - len(curves) / 2)
            value = np.array([point[0] for point in points])
            off = [
                [value[i] - (p[1] if p[1] is not None else value[i]) for i, p in enumerate(points)],
                [(p[2] if p[2] is not None else value[i]) - value[i] for i, p in enumerate(points)],
            ]
            colour, line = style[name]
            axes.errorbar(
                at, value, yerr=off, color=colour, linestyle=line, marker="o", markersize=3,
                capsize=2, label=name_of(name),
            )  # fmt: skip
        axes.axhline(0, color="#888888", linewidth=1)
        axes.tick_params(labelsize=8)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("lead step", fontsize=8)
        tidy_axes(axes)
    places[0].set_ylabel("CSI − plain student's", fontsize=8)
    shared_legend(figure, places[-1])
    return figure


def region(truth: Float[np.ndarray, "height width"]) -> tuple[int, int, int, int]:
    """(first row, stop, first column, stop) of the third of the field with the most fine detail.

    Chosen from the truth alone, so that no forecast has a say in where one looks: the box whose
    departures from a running mean over five cells have the largest mean square.
    """
    padded = np.pad(truth, 2, mode="edge")
    box = np.lib.stride_tricks.sliding_window_view(padded, (5, 5)).mean((-1, -2))
    detail = np.nan_to_num(np.square(truth - box))
    rows, columns = (max(2, -(-length // 3)) for length in truth.shape)
    mean = np.lib.stride_tricks.sliding_window_view(detail, (rows, columns)).mean((-1, -2))
    top, left = np.unravel_index(int(mean.argmax()), mean.shape)
    return int(top), int(top) + rows, int(left), int(left) + columns


def region_maps(sample: Mapping[str, Any]) -> Any:
    """Figure 5: truth beside forecasts, whole and within the highlighted region."""
    from matplotlib.patches import Rectangle

    truth = np.asarray(sample["truth"])
    fields = {"truth": truth, **{n: np.asarray(f) for n, f in sample["forecasts"].items()}}
    top, stop, left, end = sample["region"]
    low, high = np.nanquantile(truth, [0.005, 0.995])
    wide = truth.shape[1] / truth.shape[0]
    figure = new_figure(WIDTH, 1.0 + 2 * min(2.2, WIDTH / len(fields) / wide))
    places = figure.subplots(2, len(fields), squeeze=False)
    origin = "upper" if sample.get("first_row_on_top", True) else "lower"
    for column, (name, field) in enumerate(fields.items()):
        parts = (field, field[top:stop, left:end])
        for row, part in enumerate(parts):
            axes = places[row, column]
            drawn = axes.imshow(
                part, cmap="viridis", vmin=low, vmax=high, origin=origin, aspect="auto"
            )
            axes.set_xticks([])
            axes.set_yticks([])
        error = parts[1] - truth[top:stop, left:end]
        places[0, column].set_title(name_of(name), fontsize=9)
        places[0, column].add_patch(
            Rectangle(
                (left - 0.5, top - 0.5),
                end - left,
                stop - top,
                fill=False,
                edgecolor="red",
                linestyle="--",
            )
        )
        if name != "truth":
            places[1, column].set_title(
                f"RMSE here {np.sqrt(np.nanmean(error**2)):.3g}", fontsize=8
            )
    bar = figure.colorbar(drawn, ax=places, location="right", shrink=0.8, aspect=30)
    bar.set_label(f"{sample['channel']} ({sample['unit']})", fontsize=8)
    return figure
