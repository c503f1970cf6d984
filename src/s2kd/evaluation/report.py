"""The report of a run: one self-contained HTML page with tables, maps and figures."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from s2kd.core.errors import S2KDError
from s2kd.core.files import write_text, write_whole
from s2kd.core.recipe import Recipe
from s2kd.core.types import GridSpec
from s2kd.evaluation import answer as answers
from s2kd.evaluation import figures, maps
from s2kd.evaluation.answer import REFERENCES, Answer, forecaster_label, lead_text, with_unit
from s2kd.evaluation.compare import BASELINE, KEYS, compare_methods, label
from s2kd.evaluation.events import event_scores
from s2kd.evaluation.page import (
    Figure,
    HeatMap,
    Maps,
    Section,
    Training,
    figure_of,
    render,
    training_section,
)
from s2kd.evaluation.results import select
from s2kd.evaluation.summary import HEAD, cells_of, label_of, trials_table
from s2kd.evaluation.tables import Table, number, p_text

EVENTS = ("below 5 %", "above 95 %", "above 99.5 %")
"""Events of the heat map; the scores hold the others too."""
MOST_MAPS = 4
MOST_CHANNELS = 6
MOST_RUNS = 24


@dataclass(frozen=True, kw_only=True)
class _Page:
    """What sections share: the scores of all splits and of the first, colours, the folder."""

    folder: Path
    splits: Mapping[str, xr.Dataset]
    answer: Answer | None
    style: Mapping[str, tuple[str, str]]

    @property
    def scores(self) -> xr.Dataset:
        return next(iter(self.splits.values()))

    def figure(self, drawing: Any, title: str, name: str = "") -> Figure:
        """The drawing for the page, and as PNG of this `name` beside it."""
        figure, name = figure_of(drawing, title), re.sub(r"[^\w.-]+", "_", name or title)
        write_whole(self.folder / f"{name}.png", lambda path: path.write_bytes(figure.png))
        return figure


def write_report(
    path: Path,
    *,
    scores: Mapping[str, xr.Dataset],
    trainings: Sequence[Training] = (),
    samples: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    search: Mapping[str, Any] | None = None,
    answer: Answer | None = None,
) -> None:
    """One self-contained page at `path`, and its figures as PNG in `figures/` beside it.

    Args:
        path: Where the page is written.
        scores: Scores by test split, models along `model`; figures are of the first.
        trainings: Every training, for its curve.
        samples: One test window: `past`, `truth` (frame, channel, height, width), `forecasts` by
            name, `narrative`, `grid` and `times` (valid times, last input first; may be empty).
        recipe: Printed as JSON.
        search: The result of `s2kd sweep`.
        answer: The answer of `s2kd distill`; without it, that of the best student on validation.

    Raises:
        S2KDError: Where there are no scores.
    """
    if not any(split.sizes["model"] for split in scores.values()):
        raise S2KDError(f"{path}: there are no scores to report yet")
    searched = answer is not None
    answer = answer or answer_of_run(scores)
    first = next(iter(scores.values()))
    frame = compare_methods(first)
    candidates = [c.method for c in answers.frontier_candidates(answer)] if answer else []
    names = [*frame["method"], *candidates, *(training.method for training in trainings), "truth"]
    page = _Page(
        folder=path.parent / "figures",
        splits=scores,
        answer=answer,
        style=figures.colours(names),
    )
    comparison = _comparison_section(page)
    sections = [
        comparison if not searched else None,
        _maps_section(page, samples) if samples else None,
        _lead_section(page),
        _spectra_section(page),
        _event_section(page, frame),
        _rollout_section(page, frame),
        training_section(
            trainings, page.style, lambda d, title: page.figure(d, title, f"training {title}")
        ),
        comparison if searched else None,
        _search_section(page, search) if search and search["best"] else None,
    ]
    text = render(
        title=str(first["preset"].values[0]),
        facts=_facts(page),
        headline=answer and [answers.summary(answer), answers.gap_text(answer)],
        errors=answer and answers.error_texts(answer),
        error_heading=answer and f"RMSE at {lead_text(answer.lead_seconds[-1])}",
        problems=answer and answers.problems(answer),
        unverified=answer and answers.unverified(answer),
        top=answer and _answer_section(page, answer),
        sections=[section for section in sections if section is not None],
        notes=_notes(page),
        recipe=recipe and json.dumps(recipe.to_dict(), indent=2, ensure_ascii=False),
    )
    write_text(path, text)


def answer_of_run(scores: Mapping[str, xr.Dataset]) -> Answer | None:
    """The answer whose chosen student is the best on validation; None where scores lack errors."""
    first = next(iter(scores.values()))
    students = select(first, role="student")
    if not np.isfinite(students["validation"].values).any():
        return None
    if any("window_squared_error" not in part for part in scores.values()):
        return None
    names = [f"{b} {m}" for b, m in zip(students["backbone"].values, students["method"].values,
                                        strict=True)]  # fmt: skip
    best = pd.Series(students["validation"].values, names).groupby(level=0).mean().idxmin()
    baseline = f"{best.split(' ')[0]} {BASELINE}"
    return answers.answer_of(
        scores,
        chosen=best,
        baseline=baseline if baseline in names else best,
        costs={},
        candidates=(),
        search={},
    )


def _facts(page: _Page) -> dict[str, str]:
    """Channels, windows, seeds and machine, once for all figures and tables."""
    first, parts = page.scores, page.splits.values()
    seeds = sorted({int(seed) for part in parts for seed in part["seed"].values if seed >= 0})
    hardware = json.loads(first["hardware"].values[0])
    threads = f"{hardware['threads']} thread{'s' * (hardware['threads'] != 1)}"
    units = zip(first["channel"].values.astype(str), first["unit"].values.astype(str), strict=True)
    channels = [with_unit(*pair) for pair in units]
    step = lead_text(float(first.attrs["step_seconds"]))
    return {
        "Channels": ", ".join(channels[:MOST_CHANNELS]) + ", …" * (len(channels) > MOST_CHANNELS),
        "Windows": ", ".join(f"{part.attrs['windows']} ({name})" for name, part in
                             page.splits.items()),
        "Frames": f"{first.attrs['past']} past, {first.attrs['lead']} future, {step} apart",
        "Seeds": ", ".join(map(str, seeds)) or "none",
        "Scored on": hardware.get("gpu") or f"{hardware['processor']}, {threads}",
    }  # fmt: skip


def _notes(page: _Page) -> dict[str, str]:
    """How everything was measured."""
    first = page.scores
    versions = json.loads(first["versions"].values[0])
    return {
        "Normalised": first.attrs["normalised"],
        "Intervals": "95 %, over test windows, allowing for windows that overlap or are alike",
        "±, shading": "standard deviation over seeds",
        "Gain": "MSE saved against the same backbone without distillation; * p < 0.05 (Holm)",
        "Gap closed": "share of the way from no distillation to the teacher, by MSE",
        "SSIM": first.attrs["ssim"] or "grid too small",
        "Climatology": first.attrs["climatology"] or "none",
        "Spectra": first.attrs["spectra"],
        "Extremes": "values beyond each cell's own training quantile",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Data fingerprint": str(first["fingerprint"].values[0]),
    }


# --- answer and comparison -----------------------------------------------------------------------


def _answer_section(page: _Page, answer: Answer) -> Section:
    split, candidates = answer.split, answers.frontier_candidates(answer)
    axis = "test MSE (normalised)"
    errors = {f.name: f.scores[split].mse for f in answer.forecasters}
    if len(answer.units) == 1:
        ((channel, unit),) = answer.units.items()
        axis = with_unit(f"RMSE at {lead_text(answer.lead_seconds[-1])}", unit)
        errors = {f.name: f.scores[split].rmse[channel][-1] for f in answer.forecasters}
    test = figures.frontier(
        [(f.method, f.cost.latency_ms, errors[f.name].value, f.name == answer.chosen, "")
         for f in answer.forecasters if f.cost and f.cost.latency_ms],
        title=f"Compared on the {split} split",
        y_label=axis,
        lines={f.method: errors[f.name].value for f in answer.forecasters if f.cost is None},
        style=page.style,
    )  # fmt: skip
    drawings = [page.figure(test, f"Error against latency, {split} split", "frontier")]
    if answer.candidates:
        validation = figures.frontier(
            [(c.method, c.latency_ms, c.validation,
              answers.scored_form(answer, c) is answer.student,
              label(c.student) if c.reason != "teacher" else "")
             for c in candidates if c.latency_ms and c.validation],
            title="All candidates on validation",
            y_label="validation MSE (normalised)",
            front=[(c.latency_ms, c.validation) for c in answers.pareto_front(candidates)],
            style=page.style,
        )  # fmt: skip
        title = "Error against latency, all candidates"
        drawings.insert(0, page.figure(validation, title, "candidates"))
    return Section(
        heading="Error against latency",
        note="The star is the chosen student"
        + ("; the line joins the best candidates." if answer.candidates else "."),
        tables=[answers.leaderboard(answer, split) for split in answer.windows],
        figures=drawings,
        folded=[answers.frontier(answer)] if answer.candidates else [],
    )


def _comparison_section(page: _Page) -> Section:
    section = Section(heading="Comparison of methods")
    for split, scores in page.splits.items():
        frame = compare_methods(scores)
        section.tables += [_main_table(split, frame), *_run_tables(split, scores, frame)]
    return section


def _main_table(split: str, frame: pd.DataFrame) -> Table:
    rows, lines = frame.to_dict("records"), []
    text = any(row["reads_text"] or row["reads_future"] for row in rows)
    for row in rows:
        *errors, gain, gap, reads = cells_of(row)
        if not np.isnan(row["gain_low"]):
            gain += f" [{row['gain_low']:+.1f}, {row['gain_high']:+.1f}]"
        lines.append((label_of(row), *errors, gain, p_text(row["p_value"]), gap, *[reads] * text))
    head = (*HEAD[:6], "p (Holm)", HEAD[6], *HEAD[7:] * text)
    return Table(title=f"Normalised errors, {split} split", head=head, lines=tuple(lines))


def _run_tables(split: str, scores: xr.Dataset, frame: pd.DataFrame) -> list[Table]:
    if not 1 < scores.sizes.get("run", 0) <= MOST_RUNS:
        return []
    rows = frame.to_dict("records")
    errors = [_models_of(scores, row)["mse_by_run"].mean("model").values for row in rows]
    lines = [
        (str(run), *map(number, of_run.tolist()))
        for run, of_run in zip(scores["run"].values, np.stack(errors, -1), strict=True)
    ]
    title = f"Normalised MSE by run or environment, {split} split"
    return [Table(title=title, head=("", *map(label_of, rows)), lines=tuple(lines))]


def _models_of(scores: xr.Dataset, row: Mapping[str, Any]) -> xr.Dataset:
    """The seeds behind one row of the summary."""
    return select(scores, **{key: row[key] for key in KEYS})


# --- maps ----------------------------------------------------------------------------------------


def _maps_section(page: _Page, samples: Mapping[str, Any]) -> Section:
    grid: GridSpec = samples["grid"]
    step, times = float(page.scores.attrs["step_seconds"]), samples.get("times") or ()
    leads, shown = maps.shown_leads(len(samples["truth"])), _shown(page, samples["forecasts"])
    start = f"Last input: {times[0]}." if times else ""
    west, east, south, north = maps.extent(grid)
    channels = [
        maps.channel_maps(
            past=samples["past"], truth=samples["truth"], forecasts=shown, channel=c, grid=grid
        )
        for c in range(min(MOST_MAPS, len(grid.channels)))
    ]
    return Section(
        heading="One test window",
        note=" ".join(filter(None, (start, maps.region(grid) and f"{maps.region(grid)}."))),
        narrative=samples.get("narrative") or "",
        maps=Maps(
            channels=channels,
            when=[(f"+{lead_text(step * (n + 1))}", times[n + 1] if times else "") for n in leads],
            size=(abs(east - west), abs(north - south)),
            coast=maps.coast_path(grid),
        ),
    )


def _shown(page: _Page, forecasts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The chosen student and its teacher; else the last student and the first teacher."""
    teachers = [name for name in forecasts if name.startswith("teacher")]
    students = [name for name in forecasts if name not in teachers]
    answer = page.answer
    if answer is not None and answer.chosen in students:
        students, teachers = [answer.chosen], [n for n in teachers if n == answer.teacher]
    names = [*students[-1:], *teachers[:1]]
    labels = [n if n in teachers else forecaster_label(*n.split(" ", 1)) for n in names]
    return {label: forecasts[name] for label, name in zip(labels, names, strict=True)}


# --- curves --------------------------------------------------------------------------------------


def _curve(values: xr.DataArray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation over seeds."""
    array = values.transpose("model", ...).values.astype(float)
    spread = array.std(0, ddof=1) if len(array) > 1 else np.zeros(array.shape[1])
    return array.mean(0).tolist(), spread.tolist()


def _lead_times(scores: xr.Dataset, steps: int) -> tuple[list[float], str]:
    """Lead times in the largest unit that keeps the steps readable, and the label of their axis."""
    step = float(scores.attrs["step_seconds"])
    units = {"days": 86_400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
    unit = next((u for u, seconds in units.items() if step * steps >= 4 * seconds), "seconds")
    return [step * (n + 1) / units[unit] for n in range(steps)], f"lead time ({unit})"


def _curve_figures(
    page: _Page,
    scores: xr.Dataset,
    name: str,
    rows: Mapping[str, str],
    values: Callable[[xr.Dataset, str], xr.DataArray],
    **settings: Any,
) -> list[Figure]:
    """A figure per label of `rows` and student backbone, of `values(seeds of a method, channel)`.

    Figures of one label share their y axis.
    """
    students = scores["role"].values == "student"
    backbones = list(dict.fromkeys(map(str, scores["backbone"].values[students]))) or [""]
    drawn = []
    for text, channel in rows.items():
        by_backbone = {}
        for backbone in backbones:
            models = scores.isel(model=~students | (scores["backbone"].values == backbone))
            methods = sorted(set(map(str, models["method"].values)), key=list(page.style).index)
            by_backbone[backbone] = {
                method: _curve(values(select(models, method=method), channel)) for method in methods
            }
        near = [c[0] for by in by_backbone.values() for m, c in by.items() if m not in REFERENCES]
        for backbone, by_method in by_backbone.items():
            title, file = text, f"{name} {channel}".strip()
            if len(backbones) > 1:
                title, file = f"{title}, {label(backbone)}", f"{file} {backbone}"
            drawing = figures.curves(
                by_method, title=title, style=page.style,
                limits=figures.limits_near(near), **settings,
            )  # fmt: skip
            drawn.append(page.figure(drawing, title, file))
    return drawn


def _channels(page: _Page) -> tuple[list[str], str]:
    """The channels that have figures, and a note where these are not all."""
    channels = list(map(str, page.scores["channel"].values))
    note = f"The first {MOST_CHANNELS} of {len(channels)} channels."
    return channels[:MOST_CHANNELS], note * (len(channels) > MOST_CHANNELS)


def _lead_section(page: _Page) -> Section:
    """Error by lead time in units."""
    scores, (channels, note) = page.scores, _channels(page)
    units = zip(channels, scores["unit"].values.astype(str), strict=False)
    times, x_label = _lead_times(scores, scores.sizes["lead"])
    drawn = _curve_figures(
        page, scores, "lead", {f"RMSE of {with_unit(c, unit)}": c for c, unit in units},
        lambda models, c: models["rmse_by_lead"].sel(channel=c), x=times, x_label=x_label,
    )  # fmt: skip
    return Section(heading="Error by lead time", note=note, figures=drawn)


def _spectra_section(page: _Page) -> Section | None:
    """The spectrum at the last lead against the truth's."""
    scores, (channels, note) = page.scores, _channels(page)
    last = scores.isel(lead=-1, model=scores["role"].values != "reference")
    if "spectrum_forecast" not in scores or not last.sizes["model"]:
        return None
    last = last.isel(wavenumber=slice(1, None))
    ratio = last["spectrum_forecast"] / last["spectrum_truth"]
    drawn = _curve_figures(
        page, last, "spectra", {f"{c}: power, forecast / truth": c for c in channels},
        lambda models, c: ratio.sel(model=models["model"], channel=c), ratio=True,
        x=last["wavenumber"].values.astype(float).tolist(), x_label="waves per shorter side",
    )  # fmt: skip
    note = f"Power of the forecast divided by the truth's: below 1 it is too smooth. {note}"
    return Section(heading="Spectra at the last lead time", note=note, figures=drawn)


def _event_section(page: _Page, frame: pd.DataFrame) -> Section | None:
    """CSI of `EVENTS`: a heat map per channel, with every model and event."""
    scores = page.scores
    events = [event for event in EVENTS if event in scores.get("event", ())]
    if "hits" not in scores or not events:
        return None
    csi = event_scores(scores)["csi"].where(scores["event_cells"] > 0).sel(event=events)
    rows, heat_maps = frame.to_dict("records"), []
    for channel in map(str, scores["channel"].values[:MOST_CHANNELS]):
        of_channel = csi.sel(channel=channel).transpose("model", "event")
        values = np.stack([
            of_channel.sel(model=_models_of(scores, row)["model"]).mean("model").values
            for row in rows
        ]).astype(float)  # fmt: skip
        shares = np.nan_to_num(values / np.nanmax(values, axis=0, initial=0.01))
        cells = [
            [(number(v, ".2f") if np.isfinite(v) else "", s) for v, s in zip(*line, strict=True)]
            for line in zip(values.tolist(), shares.tolist(), strict=True)
        ]
        by_row = dict(zip(map(label_of, rows), cells, strict=True))
        columns = tuple(event.replace(" %", "\u202f%") for event in events)
        heat_maps.append(HeatMap(title=channel, columns=columns, rows=by_row))
    note = (
        "Critical success index over all lead times and windows: 1 is best. Blank: no such event."
    )
    return Section(heading="Extremes", note=note, heat_maps=heat_maps)


def _rollout_section(page: _Page, frame: pd.DataFrame) -> Section | None:
    """Growth of the error in roll-outs, where there are some."""
    if "rollout_mse" not in page.scores:
        return None
    scores = page.scores
    rolled = scores.isel(model=scores["rollout_mse"].notnull().all("step").values)
    times, x_label = _lead_times(rolled, rolled.sizes["step"])
    section = Section(
        heading="Roll-outs",
        note=(
            f"To {rolled.attrs['rollout_horizon']} lead times, {rolled.attrs['rollout_windows']} "
            f"windows ({rolled.attrs['rollout_skipped']} too near the end of their stretch). "
            "Stable: every value finite and the error below "
            f"{rolled.attrs['rollout_limit']:g} times the variance about the climatology."
        ),
    )
    section.figures = _curve_figures(
        page, rolled, "roll-outs", {"normalised MSE": ""}, lambda models, _: models["rollout_mse"],
        x=times, x_label=x_label,
    )  # fmt: skip
    lines = []
    for row in frame.to_dict("records"):
        models = _models_of(rolled, row)
        if models.sizes["model"]:
            ahead = (
                float(models[f"rollout_ahead_of_{name}"].mean())
                for name in ("persistence", "climatology")
            )
            end = number(float(models["rollout_mse"].isel(step=-1).mean()))
            stable = f"{int(models['rollout_stable'].sum())} of {models.sizes['model']}"
            lines.append((label_of(row), end, stable, *(number(value, ".1f") for value in ahead)))
    head = ("", "MSE at the end", "Stable", "Ahead of persistence", "Ahead of climatology")
    section.tables.append(Table(title="Steps ahead", head=head, lines=tuple(lines)))
    return section


# --- training and search -------------------------------------------------------------------------


def _search_section(page: _Page, search: Mapping[str, Any]) -> Section:
    """The chosen values, the error over what was searched, and every trial."""
    trials = trials_table(search)
    note = (
        f"{search['backbone']} {search['method']} on {search['data']}, preset {search['preset']}, "
        f"{len(trials.lines)} trials ({search['sampler']}), seeds "
        f"{', '.join(map(str, search['seeds']))};"
        f" {search['measure']}. Chosen (star; the ring is the recipe's value): "
        f"{', '.join(search['settings'])}. The test split was not opened."
    )
    return Section(
        heading="Search",
        note=note,
        tables=[trials],
        figures=[page.figure(figures.sweep(search), "Validation error by setting", "sweep")],
    )
