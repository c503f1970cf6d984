"""The report of a run: one page that stands by itself."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s2kd.core.files import write_text
from s2kd.core.recipe import Recipe
from s2kd.core.types import GridSpec, S2KDError
from s2kd.evaluation import figures
from s2kd.evaluation.cell_events import EventCounts, event_interval
from s2kd.evaluation.html_page import Page
from s2kd.evaluation.summary import (
    HEAD,
    KEYS,
    Row,
    cells_of,
    label_of,
    mean_of_known,
    number,
    summary_rows,
)


def write_report(
    path: Path,
    *,
    rows: Sequence[Row],
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    samples: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    sweep: Mapping[str, Any] | None = None,
) -> None:
    """One self-contained page at `path`, and its figures as PNG in `figures/` beside it.

    `rows` are those of `scoring.result_row`; `curves` the records of every training's `log.jsonl`
    by run name; `samples` one test window: `past`, `truth` (frame, channel, height, width),
    `forecasts` by name, `narrative` and `grid`; `recipe` is printed whole;
    `sweep` is what `s2kd sweep` found. Nothing is linked.
    """
    if not rows:
        raise S2KDError(f"{path}: there are no scores to report yet")
    page = Page(path.parent / "figures")
    _across_splits(page, rows)
    for split in dict.fromkeys((row["data"], row["preset"], row["split"]) for row in rows):
        _split_section(page, [r for r in rows if (r["data"], r["preset"], r["split"]) == split])
    if samples:
        _sample_section(page, rows, samples)
    if curves:
        _curve_section(page, rows, curves)
    if sweep and sweep["best"]:
        _sweep_section(page, sweep)
    _method_section(page, rows, recipe)
    write_text(path, page.render(f"{rows[0]['data']}: {rows[0]['preset']}", _stated(rows)))


def _stated(rows: Sequence[Row]) -> str:
    """What every figure must say: data, preset, split, seeds, hardware."""
    seeds = sorted({row["seed"] for row in rows if row["seed"] is not None})
    about, scored = rows[0]["hardware"], rows[0]["scores"]["conventions"]
    threads = f"{about['threads']} thread{'s' * (about['threads'] != 1)}"
    machine = about.get("gpu") or f"{about['processor']}, {threads}"
    splits = ", ".join(dict.fromkeys(row["split"] for row in rows))
    return (
        f"Data {rows[0]['data']}, preset {rows[0]['preset']}, {splits} split, "
        f"{scored['windows']} windows of {scored['past']} past and {scored['lead']} future frames, "
        f"seeds {', '.join(map(str, seeds)) or 'none'}, scored on {machine}."
    )


def _across_splits(page: Page, rows: Sequence[Row]) -> None:
    """Where a model was scored on several test splits: its MSE on each, and against the first."""
    splits = list(dict.fromkeys(row["split"] for row in rows))
    if len(splits) < 2:
        return
    windows = {row["split"]: row["scores"]["conventions"]["windows"] for row in rows}
    scores: dict[tuple, dict[str, float | None]] = {}
    labels: dict[tuple, str] = {}
    several = len({(row["data"], row["preset"]) for row in rows}) > 1
    for one in summary_rows(rows):
        key = tuple(one[k] for k in KEYS if k != "split")
        scores.setdefault(key, {})[one["split"]] = one["mse"]
        labels[key] = f"{one['preset']}: {label_of(one)}" if several else label_of(one)
    lines = []
    for key, known in scores.items():
        base = known.get(splits[0])
        cells = [number(known.get(split), ".4f") for split in splits]
        for column, split in enumerate(splits[1:], 1):
            if base and known.get(split) is not None:
                cells[column] += f" (×{known[split] / base:.2f})"
        lines.append([labels[key], *cells])
    page.heading("Test splits side by side")
    page.table(
        ("", *splits),
        lines,
        f"Normalised MSE of each test split, and how many times that on {splits[0]} it is. "
        f"Windows: {', '.join(f'{split} {windows[split]}' for split in splits)}.",
    )


def _split_section(page: Page, rows: list[Row]) -> None:
    split, stated = rows[0]["split"], _stated(rows)
    page.heading(f"Results on the {split} split")
    summary = summary_rows(rows)
    page.table(
        (*HEAD, "Latency ms", "95 % interval of gain", "p (Holm)"),
        [
            [
                label_of(one),
                *cells_of(one),
                number(one["latency_ms"], ".2f"),
                "–"
                if one["gain_low"] is None
                else f"{one['gain_low']:+.1f} to {one['gain_high']:+.1f}",
                number(one["p_value"], ".3f"),
            ]
            for one in summary
        ],
        "MSE and MAE are means per element of fields divided by their training standard "
        "deviation; ± is the standard deviation over seeds. Gain: MSE saved against the same "
        "backbone's baseline, * where p < 0.05 in a paired block bootstrap over test windows. "
        "Gap closed: share of the way from baseline to teacher. " + stated,
    )
    style = figures.colours([r["method"] for r in rows])
    _overview(page, summary, split, stated, style)
    _lead_figures(page, rows, split, stated, style)
    _spectrum_figures(page, rows, split, stated, style)
    _extremes_table(page, rows, stated)
    _cell_extremes_table(page, rows, stated)
    _horizon_figures(page, rows, split, stated, style)
    _group_table(page, rows, stated)


def _overview(page: Page, summary: list[dict], split: str, stated: str, style: dict) -> None:
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    for one in summary:
        if one["role"] == "student":
            spread = (one["mse"], one["mse_std"] or 0.0)
            groups.setdefault(one["backbone"], {})[one["method"]] = spread
    if groups:
        worst = max(mean for methods in groups.values() for mean, _ in methods.values())
        lines = {
            one["method"]: one["mse"]
            for one in summary
            # a reference far off the scale would squeeze all students into a corner
            if one["role"] == "teacher" or (one["role"] == "reference" and one["mse"] < 1.5 * worst)
        }
        drawn = figures.overview(groups, lines=lines, style=style)
        page.figure(f"{split}-overview", drawn, f"Students, teachers and references. {stated}")


def _backbones(rows: Sequence[Row]) -> list[str]:
    """Backbones of students, or one empty name where there are only teachers and references."""
    return list(dict.fromkeys(r["backbone"] for r in rows if r["role"] == "student")) or [""]


def _beside(rows: Sequence[Row], backbone: str) -> dict[str, list[Row]]:
    """References, teachers and the students of one backbone, by method."""
    chosen: dict[str, list[Row]] = {}
    for row in rows:
        if row["role"] != "student" or row["backbone"] == backbone:
            chosen.setdefault(row["method"], []).append(row)
    return chosen


def _lead_times(conventions: Mapping[str, Any]) -> tuple[list[float], str]:
    """Every lead time, in the largest unit that keeps the steps readable, and that unit."""
    step = conventions["step_seconds"]
    last = step * conventions["lead"]
    units = {"days": 86_400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
    unit = next((u for u, long in units.items() if last >= 4 * long), "seconds")
    return [step * (n + 1) / units[unit] for n in range(conventions["lead"])], unit


def _lead_figures(page: Page, rows: list[Row], split: str, stated: str, style: dict) -> None:
    about = rows[0]["scores"]["conventions"]
    hours, unit = _lead_times(about)
    labels = {
        channel: f"{channel}: RMSE ({u})"
        for channel, u in zip(about["channels"], about["units"], strict=True)
    }
    for backbone in _backbones(rows):
        panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
        for channel in about["channels"]:
            for method, ones in _beside(rows, backbone).items():
                curves = np.array([r["scores"]["by_lead"][channel]["rmse"] for r in ones], float)
                spread = curves.std(0, ddof=1) if len(curves) > 1 else np.zeros(curves.shape[1])
                shown = curves.mean(0).tolist(), spread.tolist()
                panels.setdefault(channel, {})[method] = shown
        drawn = figures.lead_curves(
            panels, hours=hours, unit_of_time=unit, labels=labels, style=style
        )
        name = "-".join(filter(None, (split, "lead", backbone)))
        page.figure(
            name,
            drawn,
            f"Error by lead time{f', students of {backbone}' if backbone else ''}; mean over "
            f"seeds, shaded by their standard deviation. {stated}",
        )


def _spectrum_figures(page: Page, rows: list[Row], split: str, stated: str, style: dict) -> None:
    known = rows[0]["scores"]["spectra"]
    if not known:
        return
    style = {**style, "truth": figures.FIXED["truth"], "teacher": ("black", "-.")}
    first = next(iter(known.values()))
    for backbone in _backbones(rows):
        panels: dict[str, dict[str, list[float]]] = {}
        for channel, truth in known.items():
            panels[channel] = {"truth": truth["truth"][-1]}
            for method, ones in _beside(rows, backbone).items():
                if ones[0]["role"] != "reference":
                    power = [row["scores"]["spectra"][channel]["forecast"][-1] for row in ones]
                    panels[channel][method] = np.mean(power, axis=0).tolist()
        drawn = figures.spectra(panels, wavenumber=first["wavenumber"], style=style)
        page.figure(
            "-".join(filter(None, (split, "spectra", backbone))),
            drawn,
            f"Radial power spectrum at lead {first['lead'][-1]}"
            f"{f', students of {backbone}' if backbone else ''}, mean over windows and seeds; "
            f"right, its ratio to the truth's: below 1 the forecast is too smooth. {stated}",
        )


def _extremes_table(page: Page, rows: list[Row], stated: str) -> None:
    """CSI and SEDI of the 95 % event, or of the nearest there is."""
    known = rows[0]["scores"]["extremes"]
    events = [name for name in next(iter(known.values()), {}) if name.startswith("above")]
    if not events:
        return
    event = "above 95 %" if "above 95 %" in events else events[0]
    names = ("csi", "pod", "far", "bias", "sedi")
    lines = []
    for one, ones in _by_summary(rows):
        for channel in known:
            scores = [row["scores"]["extremes"][channel][event] for row in ones]
            means = [number(mean_of_known([s[name] for s in scores]), ".3f") for name in names]
            lines.append([label_of(one), channel, *means])
    page.heading(f"Extremes: {event} of the training split", level=3)
    page.table(
        ("", "Channel", "CSI", "POD", "FAR", "Bias", "SEDI"),
        lines,
        f"Over all cells, leads and windows; other thresholds are in scores.json. {stated}",
    )


CELL_EVENTS = ("below 5 %", "above 95 %", "above 99.5 %", "surge above 95 %")


def _cell_extremes_table(page: Page, rows: list[Row], stated: str) -> None:
    """CSI with its interval, POD, FAR and SEDI of events by each cell's own quantiles."""
    if not all(row["scores"].get("cell_extremes") for row in rows):
        return  # results of before
    known = EventCounts.from_scores(rows[0]["scores"])
    lines = []
    for one, ones in _by_summary(rows):
        counted = [EventCounts.from_scores(row["scores"]) for row in ones]
        for channel in known.channels:
            for event in CELL_EVENTS:
                if event in known.events and known.cells_of(channel, event):
                    where = {"channel": channel, "event": event}
                    found = event_interval(counted, **where, resamples=400)
                    scores = [r["scores"]["cell_extremes"]["scores"][channel][event] for r in ones]
                    means = [
                        mean_of_known([s[name] for s in scores]) for name in ("pod", "far", "sedi")
                    ]
                    lines.append(
                        [
                            label_of(one),
                            channel,
                            event,
                            number(found.value, ".3f"),
                            "–" if found.low is None else f"{found.low:.3f} to {found.high:.3f}",
                            *(number(mean, ".3f") for mean in means),
                            str(max(scores[0]["left_out"])),
                        ]
                    )
    page.heading("Extremes by each cell's own training quantiles", level=3)
    page.table(
        ("", "Channel", "Event", "CSI", "95 % interval", "POD", "FAR", "SEDI", "Left out"),
        lines,
        "Over all leads and windows, seeds pooled; the interval is of a block bootstrap over test "
        f"windows. Left out: cells where training saw no such event. {stated}",
    )


def _horizon_figures(page: Page, rows: list[Row], split: str, stated: str, style: dict) -> None:
    """Growth of the error in roll-outs, where there are some."""
    rolled = [row for row in rows if row.get("long_horizon", {}).get("windows")]
    if not rolled:
        return
    about = rolled[0]["scores"]["conventions"]
    steps = rolled[0]["long_horizon"]["steps"]
    hours, unit = _lead_times({**about, "lead": steps})
    lines = []
    for backbone in _backbones(rolled):
        curves: dict[str, tuple[list[float], list[float]]] = {}
        for method, ones in _beside(rolled, backbone).items():
            errors = np.array([row["long_horizon"]["mse"] for row in ones], float)
            spread = errors.std(0, ddof=1) if len(errors) > 1 else np.zeros(errors.shape[1])
            curves[method] = errors.mean(0).tolist(), spread.tolist()
        drawn = figures.lead_curves(
            {"": curves},
            hours=hours,
            unit_of_time=unit,
            labels={"": "MSE, normalised"},
            style=style,
        )
        page.figure(
            "-".join(filter(None, (split, "horizon", backbone))),
            drawn,
            f"Roll-outs to {rolled[0]['long_horizon']['horizon']} lead times"
            f"{f', students of {backbone}' if backbone else ''}: error by step; mean over seeds, "
            f"shaded by their standard deviation. {stated}",
        )
    for one, ones in _by_summary(rolled):
        found = [row["long_horizon"] for row in ones]
        lines.append(
            [
                label_of(one),
                number(mean_of_known([f["mse"][-1] for f in found]), ".4f"),
                f"{sum(f['stable'] for f in found)} of {len(found)}",
                number(mean_of_known([float(f["ahead_of_persistence"]) for f in found]), ".1f"),
                number(mean_of_known([float(f["ahead_of_climatology"]) for f in found]), ".1f"),
            ]
        )
    first = rolled[0]["long_horizon"]
    page.table(
        ("", "MSE at the end", "Stable", "Ahead of persistence", "Ahead of climatology"),
        lines,
        f"{first['windows']} windows ({first['skipped']} too near the end of their stretch were "
        f"skipped). Stable: every value finite and the error below {first['limit']:g} times the "
        f"variance about the climatology; ahead: steps. {stated}",
    )


def _by_summary(rows: Sequence[Row]) -> list[tuple[dict[str, Any], list[Row]]]:
    """Every line of the summary with the rows behind it."""
    return [
        (one, [row for row in rows if all(row[key] == one[key] for key in KEYS)])
        for one in summary_rows(rows)
    ]


def _group_table(page: Page, rows: list[Row], stated: str) -> None:
    names = list(rows[0]["scores"]["by_group"])
    if not 1 < len(names) <= 24:
        return
    lines = [
        [
            label_of(one),
            *(
                number(mean_of_known([r["scores"]["by_group"][name]["mse"] for r in ones]), ".4f")
                for name in names
            ),
        ]
        for one, ones in _by_summary(rows)
    ]
    page.heading("MSE by run or environment", level=3)
    page.table(("", *names), lines, f"Normalised MSE of each. {stated}")


MOST_MAPS = 6


def _sample_section(page: Page, rows: Sequence[Row], samples: Mapping[str, Any]) -> None:
    grid: GridSpec = samples["grid"]
    page.heading("One test window")
    if samples.get("narrative"):
        page.text("What the teacher read of the past:")
        page.text(samples["narrative"], kind="blockquote")
    forecasts = _chosen(samples["forecasts"])
    steps, unit = _lead_times(rows[0]["scores"]["conventions"])
    when = [f"+{step:g} {unit if step != 1 else unit.removesuffix('s')}" for step in steps]
    for channel, name in enumerate(grid.channels):
        drawn = figures.maps(
            past=samples["past"],
            truth=samples["truth"],
            forecasts=forecasts,
            channel=channel,
            grid=grid,
            when=when,
        )
        page.figure(
            f"maps-{name}",
            drawn,
            f"{name} ({grid.units[channel]}): truth, forecasts and their errors at the last lead, "
            f"in one colour range each. {_stated(rows)}",
        )


def _chosen(forecasts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """At most six: teachers, then one backbone's methods before the next one's."""
    names = sorted((name for name in forecasts if name.startswith("teacher")), key=len)
    students = [name for name in forecasts if name not in names]
    backbones = list(dict.fromkeys(name.split(" ")[0] for name in students))
    students.sort(key=lambda name: backbones.index(name.split(" ")[0]))
    return {name: forecasts[name] for name in (names + students)[:MOST_MAPS]}


def _curve_section(
    page: Page, rows: Sequence[Row], curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    curves = {name: records for name, records in curves.items() if records}
    panels: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    for name, records in curves.items():
        kind, _, rest = name.partition(" ")
        backbone = next((b for b in _backbones(rows) if b and rest.startswith(f"{b}-")), "")
        panels.setdefault(f"{kind} {backbone}".strip(), {})[rest or name] = records
    if not panels:
        return
    page.heading("Training")
    page.figure(
        "training",
        figures.training_curves(panels),
        "Validation MSE by epoch, one line a seed; the dot marks the weights that were kept. "
        + _stated(rows),
    )
    several = {}
    for name, records in curves.items():
        if len(records) > 1 and len(records[0].get("terms") or {}) > 1:
            several.setdefault(figures.without_seed(name), records)
    if several:
        page.figure(
            "terms",
            figures.term_curves(dict(list(several.items())[:8])),
            "Terms of the training loss by epoch, weights not applied, first seed. "
            + _stated(rows),
        )


def _sweep_section(page: Page, sweep: Mapping[str, Any]) -> None:
    """The chosen values, the whole surface and every trial."""
    done = [one for one in sweep["trials"] if one["state"] == "complete"]
    done.sort(key=lambda one: one["validation"])
    seeds = ", ".join(map(str, sweep["seeds"]))
    stated = (
        f"{sweep['backbone']} {sweep['method']} on {sweep['data']}, preset {sweep['preset']}, "
        f"{len(done)} trials ({sweep['sampler']}), seeds {seeds}; {sweep['measure']}. The test "
        "split was not opened."
    )
    page.heading("Search")
    page.text("Chosen: " + ", ".join(sweep["settings"]))
    page.figure(
        "sweep",
        figures.sweep(sweep),
        f"The star is the choice, the ring the recipe's own. {stated}",
    )
    lines = [
        [str(one["number"]), *(f"{one['values'][a]:g}" for a in sweep["axes"]),
         f"{one['validation']:.5f}"]
        for one in done
    ]  # fmt: skip
    head = ("Trial", *(figures.AXIS_LABELS[axis] for axis in sweep["axes"]), "Validation error")
    page.table(head, lines, stated)


def _method_section(page: Page, rows: Sequence[Row], recipe: Recipe | None) -> None:
    page.heading("How it was measured")
    about = rows[0]["scores"]["conventions"]
    notes = {
        "Normalised unit": about["normalised"],
        "SSIM": about["ssim"] or "grid too small",
        "Climatology": about["climatology"] or "none",
        "Spectra": about["spectra"],
        "Versions": ", ".join(f"{k} {v}" for k, v in rows[0]["versions"].items()),
        "Hardware": ", ".join(f"{k} {v}" for k, v in rows[0]["hardware"].items()),
        "Data fingerprint": rows[0]["fingerprint"],
    }
    page.table(("", ""), [[name, value] for name, value in notes.items()], _stated(rows))
    if recipe is not None:
        plain = json.dumps(recipe.to_dict(), indent=2, ensure_ascii=False)
        page.folded("The recipe", plain)
