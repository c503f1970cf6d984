"""The report of a run: one self-contained HTML page with tables and figures."""

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from s2kd.core.errors import S2KDError
from s2kd.core.files import write_text, write_whole
from s2kd.core.recipe import Recipe
from s2kd.core.types import GridSpec
from s2kd.evaluation import figures
from s2kd.evaluation.answer import (
    Answer,
    answer_of,
    forecaster_label,
    frontier,
    frontier_candidates,
    headline,
    lead_text,
    leaderboard,
    pareto_front,
    scored_form,
    unverified,
    with_unit,
)
from s2kd.evaluation.compare import BASELINE, KEYS, TEACHER_METHODS, compare_methods
from s2kd.evaluation.events import event_scores
from s2kd.evaluation.maps import maps
from s2kd.evaluation.results import select
from s2kd.evaluation.summary import HEAD, cells_of, trials_table
from s2kd.evaluation.tables import Table, number, p_text

EVENTS = ("below 5 %", "above 95 %", "above 99.5 %")
"""Events of the heat map; the scores hold the others too."""
MOST_MAPS = 4
MOST_CHANNELS = 6
MOST_BACKBONES = 3
"""Columns of a figure; further backbones have figures of their own."""
MOST_RUNS = 24


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A PNG, as text for the page; `kind` is `chart`, `small chart` or `map`."""

    base64: str
    title: str
    kind: str


@dataclass(kw_only=True)
class Section:
    """A heading and a note, figures, tables, and tables that are folded away."""

    heading: str
    note: str = ""
    narrative: str = ""
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    details: list[Table] = field(default_factory=list)


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

    def figure(self, name: str, drawing: Any, title: str, *, kind: str = "chart") -> Figure:
        """The drawing as PNG beside the page, and as text inside it."""
        stream = io.BytesIO()
        drawing.savefig(stream, format="png", dpi=150, facecolor="white")
        content = stream.getvalue()
        name = re.sub(r"[^\w.-]+", "_", name)
        write_whole(self.folder / f"{name}.png", lambda path: path.write_bytes(content))
        kind = "small chart" if drawing.get_figwidth() < figures.WIDE and kind == "chart" else kind
        return Figure(base64=base64.b64encode(content).decode(), title=title, kind=kind)


def write_report(
    path: Path,
    *,
    scores: Mapping[str, xr.Dataset],
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    samples: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    search: Mapping[str, Any] | None = None,
    answer: Answer | None = None,
) -> None:
    """One self-contained page at `path`, and its figures as PNG in `figures/` beside it.

    Args:
        path: Where the page is written.
        scores: Scores by test split, models along `model`; figures are of the first.
        curves: The records of every training's `log.jsonl`, by run name.
        samples: One test window: `past`, `truth` (frame, channel, height, width), `forecasts` by
            name, `narrative`, `grid` and `times` (valid times, last input first; may be empty).
        recipe: Printed as JSON.
        search: The result of `s2kd sweep`.
        answer: The answer of `s2kd distill`; without it, that of the best student on validation.

    Raises:
        S2KDError: Where there are no scores.
    """
    from jinja2 import Environment

    if not any(split.sizes["model"] for split in scores.values()):
        raise S2KDError(f"{path}: there are no scores to report yet")
    searched = answer is not None
    answer = answer or answer_of_run(scores)
    first = next(iter(scores.values()))
    candidates = [c.method for c in answer.candidates] if answer else []
    frame = compare_methods(first)
    page = _Page(
        folder=path.parent / "figures",
        splits=scores,
        answer=answer,
        style=figures.colours([*frame["method"], *candidates, "truth"]),
    )
    comparison = _comparison_section(page)
    sections = [
        *([] if searched else [comparison]),
        *([_maps_section(page, samples)] if samples else []),
        *_curve_sections(page),
        *_event_section(page, frame),
        *_rollout_section(page, frame),
        *_training_section(page, curves or {}),
        *([comparison] if searched else []),
        *([_search_section(page, search)] if search and search["best"] else []),
    ]
    template = files("s2kd.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    write_text(
        path,
        environment.from_string(template).render(
            title=f"{first['data'].values[0]}: {first['preset'].values[0]}",
            facts=_facts(page),
            headline=answer and headline(answer),
            unverified=answer and unverified(answer),
            top=answer and _answer_section(page, answer),
            sections=sections,
            notes=_notes(page),
            recipe=recipe and json.dumps(recipe.to_dict(), indent=2, ensure_ascii=False),
        ),
    )


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
    return answer_of(
        scores,
        chosen=best,
        baseline=baseline if baseline in names else best,
        costs={},
        candidates=(),
        search={},
    )


def _facts(page: _Page) -> dict[str, str]:
    """Data, windows, seeds and machine, once for all figures and tables."""
    first, parts = page.scores, page.splits.values()
    seeds = sorted({int(seed) for part in parts for seed in part["seed"].values if seed >= 0})
    hardware = json.loads(first["hardware"].values[0])
    threads = f"{hardware['threads']} thread{'s' * (hardware['threads'] != 1)}"
    windows = (f"{part.attrs['windows']} ({name})" for name, part in page.splits.items())
    return {
        "Windows": ", ".join(windows),
        "Frames": f"{first.attrs['past']} past, {first.attrs['lead']} future",
        "Step": lead_text(float(first.attrs["step_seconds"])),
        "Seeds": ", ".join(map(str, seeds)) or "none",
        "Scored on": hardware.get("gpu") or f"{hardware['processor']}, {threads}",
    }


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
    split, candidates = answer.split, frontier_candidates(answer)
    label = "test MSE (normalised)"
    errors = {f.name: f.scores[split].mse for f in answer.forecasters}
    if len(answer.units) == 1:
        ((channel, unit),) = answer.units.items()
        label = with_unit(f"RMSE at {lead_text(answer.lead_seconds[-1])}", unit)
        errors = {f.name: f.scores[split].rmse[channel][-1] for f in answer.forecasters}
    panels = {label: [
        (f.method, f.cost.latency_ms, errors[f.name].value, f.name == answer.chosen)
        for f in answer.forecasters if f.cost and f.cost.latency_ms
    ]}  # fmt: skip
    if answer.candidates:
        panels = {"validation MSE (normalised)": [
            (c.method, c.latency_ms, c.validation, scored_form(answer, c) is answer.student)
            for c in candidates if c.latency_ms and c.validation
        ]} | panels  # fmt: skip
    drawing = figures.frontier(
        panels,
        front=[(c.latency_ms, c.validation) for c in pareto_front(candidates)],
        lines={f.method: errors[f.name].value for f in answer.forecasters if f.cost is None},
        style=page.style,
    )
    title = "Error against latency: the star is the chosen student, the line the best candidates"
    return Section(
        heading="",
        tables=[leaderboard(answer, split) for split in answer.windows],
        figures=[page.figure("frontier", drawing, title)],
        details=[frontier(answer)] if answer.candidates else [],
    )


def _comparison_section(page: _Page) -> Section:
    section = Section(heading="Comparison of methods")
    for split, scores in page.splits.items():
        frame = compare_methods(scores)
        section.tables += [_main_table(split, frame), *_run_tables(split, scores, frame)]
    return section


def _main_table(split: str, frame: pd.DataFrame) -> Table:
    lines = [
        (
            _label(row),
            *cells_of(row),
            number(row["latency_ms"], ".2f"),
            "–"
            if np.isnan(row["gain_low"])
            else f"{row['gain_low']:+.1f} to {row['gain_high']:+.1f}",
            p_text(row["p_value"]),
        )
        for row in frame.to_dict("records")
    ]
    head = (*HEAD, "ms (PyTorch)", "95 % interval of gain", "p (Holm)")
    return Table(title=f"Normalised errors, {split} split", head=head, lines=tuple(lines))


def _run_tables(split: str, scores: xr.Dataset, frame: pd.DataFrame) -> list[Table]:
    if not 1 < scores.sizes.get("run", 0) <= MOST_RUNS:
        return []
    lines = [
        (
            _label(row),
            *map(number, _models_of(scores, row)["mse_by_run"].mean("model").values.tolist()),
        )
        for row in frame.to_dict("records")
    ]
    head = ("", *map(str, scores["run"].values))
    title = f"Normalised MSE by run or environment, {split} split"
    return [Table(title=title, head=head, lines=tuple(lines))]


def _label(row: Mapping[str, Any]) -> str:
    if row["role"] == "student":
        return forecaster_label(row["backbone"], row["method"])
    return str(row["label"])


def _models_of(scores: xr.Dataset, row: Mapping[str, Any]) -> xr.Dataset:
    """The seeds behind one row of the summary."""
    return select(scores, **{key: row[key] for key in KEYS})


# --- maps ----------------------------------------------------------------------------------------


def _maps_section(page: _Page, samples: Mapping[str, Any]) -> Section:
    grid: GridSpec = samples["grid"]
    section = Section(heading="One test window", narrative=samples.get("narrative") or "")
    step, times = float(page.scores.attrs["step_seconds"]), samples.get("times") or ()
    when = [f"+{lead_text(step * n)}" for n in range(1, len(samples["truth"]) + 1)]
    if times:
        section.note = f"Last input: {times[0]}."
        when = [f"{lead}\n{time}" for lead, time in zip(when, times[1:], strict=True)]
    shown = _shown(page, samples["forecasts"])
    for channel, name in enumerate(grid.channels[:MOST_MAPS]):
        drawing = maps(
            past=samples["past"],
            truth=samples["truth"],
            forecasts=shown,
            channel=channel,
            grid=grid,
            when=when,
        )
        section.figures.append(page.figure(f"maps-{name}", drawing, name, kind="map"))
    return section


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


def _groups(scores: xr.Dataset) -> list[dict[str, dict[str, xr.Dataset]]]:
    """By student backbone, a few together: the seeds of each method, with the other roles."""
    students = scores["role"].values == "student"
    backbones = list(dict.fromkeys(map(str, scores["backbone"].values[students]))) or [""]
    by_backbone = {}
    for name in backbones:
        models = scores.isel(model=~students | (scores["backbone"].values == name))
        methods = dict.fromkeys(map(str, models["method"].values))
        by_backbone[name] = {method: select(models, method=method) for method in methods}
    names = [backbones[n : n + MOST_BACKBONES] for n in range(0, len(backbones), MOST_BACKBONES)]
    return [{name: by_backbone[name] for name in part} for part in names]


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
    """`values(seeds of a method, channel)` by label of the row, one figure for a few backbones."""
    drawn = []
    for position, backbones in enumerate(_groups(scores)):
        panels = {
            label: {
                backbone: {method: _curve(values(models, channel)) for method, models in by.items()}
                for backbone, by in backbones.items()
            }
            for label, channel in rows.items()
        }
        drawing = figures.curve_grid(panels, style=page.style, **settings)
        drawn.append(page.figure(f"{name}-{position + 1}" if position else name, drawing, name))
    return drawn


def _curve_sections(page: _Page) -> list[Section]:
    """Error by lead time in units, and the spectrum at the last lead against the truth's."""
    scores, channels = page.scores, list(map(str, page.scores["channel"].values))
    shown = channels[:MOST_CHANNELS]
    note = f"The first {len(shown)} of {len(channels)} channels." * (len(shown) < len(channels))
    times, x_label = _lead_times(scores, scores.sizes["lead"])
    units = zip(shown, scores["unit"].values.astype(str), strict=False)
    rows = {with_unit(f"{channel}: RMSE", unit): channel for channel, unit in units}
    drawn = _curve_figures(
        page, scores, "lead", rows, lambda models, c: models["rmse_by_lead"].sel(channel=c),
        x=times, x_label=x_label,
    )  # fmt: skip
    sections = [Section(heading="Error by lead time", note=note, figures=drawn)]
    last = scores.isel(lead=-1, model=scores["role"].values != "reference")
    if "spectrum_forecast" in scores and last.sizes["model"]:
        last = last.isel(wavenumber=slice(1, None))
        ratio = last["spectrum_forecast"] / last["spectrum_truth"]
        drawn = _curve_figures(
            page, last, "spectra", {f"{channel}: ratio": channel for channel in shown},
            lambda models, c: ratio.sel(model=models["model"], channel=c),
            x=last["wavenumber"].values.astype(float).tolist(), ratio=True,
            x_label="waves per shorter side",
        )  # fmt: skip
        note = f"Power of the forecast divided by the truth's: below 1 it is too smooth. {note}"
        sections.append(Section(heading="Spectra at the last lead time", note=note, figures=drawn))
    return sections


def _event_section(page: _Page, frame: pd.DataFrame) -> list[Section]:
    """CSI of `EVENTS`: every model, channel and event as one heat map."""
    scores = page.scores
    events = [event for event in EVENTS if event in scores.get("event", ())]
    if "hits" not in scores or not events:
        return []
    channels = list(map(str, scores["channel"].values[:MOST_CHANNELS]))
    csi = event_scores(scores)["csi"].sel(channel=channels, event=events)
    csi = csi.where(scores["event_cells"] > 0).transpose("model", "channel", "event")
    rows = frame.to_dict("records")
    values = [csi.sel(model=_models_of(scores, row)["model"]).mean("model") for row in rows]
    many = len(channels) > 1
    drawing = figures.heat_map(
        np.stack([v.values.astype(float).ravel() for v in values]),
        rows=[_label(row) for row in rows],
        columns=[f"{c} {e}" if many else e for c in channels for e in events],
    )
    note = (
        "Critical success index over all lead times and windows: 1 is best. Blank: no such event."
    )
    figure = page.figure("extremes", drawing, "Critical success index of extremes")
    return [Section(heading="Extremes", note=note, figures=[figure])]


def _rollout_section(page: _Page, frame: pd.DataFrame) -> list[Section]:
    """Growth of the error in roll-outs, where there are some."""
    if "rollout_mse" not in page.scores:
        return []
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
        page, rolled, "roll-outs", {"MSE, normalised": ""}, lambda models, _: models["rollout_mse"],
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
            lines.append((_label(row), end, stable, *(number(value, ".1f") for value in ahead)))
    head = ("", "MSE at the end", "Stable", "Ahead of persistence", "Ahead of climatology")
    section.tables.append(Table(title="Steps ahead", head=head, lines=tuple(lines)))
    return [section]


# --- training and search -------------------------------------------------------------------------


def _training_section(
    page: _Page, curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Section]:
    """Validation error by epoch, where there are logs."""
    students = page.scores["role"].values == "student"
    backbones = dict.fromkeys(map(str, page.scores["backbone"].values[students]))
    panels: dict[str, list[tuple[str, Sequence[Mapping[str, Any]]]]] = {}
    for name, records in curves.items():
        kind, _, run = name.partition(" ")
        run = re.sub(r"[-_ ]?seed[-_ ]?\d+$", "", run)
        backbone = next((b for b in backbones if run.startswith(f"{b}-")), "")
        method = TEACHER_METHODS.get(run, run.removeprefix(f"{backbone}-"))
        if records and method in page.style:
            panels.setdefault(backbone or kind, []).append((method, records))
    if not panels:
        return []
    drawing = figures.training_curves(panels, style=page.style)
    figure = page.figure("training", drawing, "Validation error by epoch")
    note = "One line per seed; a dot marks the weights that were used."
    return [Section(heading="Training", note=note, figures=[figure])]


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
        figures=[page.figure("sweep", figures.sweep(search), "Validation error by setting")],
    )
