"""The report of a run: one self-contained HTML page with tables and figures."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
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
from s2kd.evaluation.compare import KEYS, compare_methods
from s2kd.evaluation.events import event_interval, event_scores
from s2kd.evaluation.results import select
from s2kd.evaluation.summary import HEAD, cells_of, label_of
from s2kd.evaluation.tables import Table, interval, number, p_text

EVENTS = ("below 5 %", "above 95 %", "above 99.5 %")
"""Events of the table; the scores hold the others too."""
MOST_MAPS = 6
MOST_RUNS = 24


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A PNG, as text for the page, and its caption."""

    base64: str
    caption: str


@dataclass(kw_only=True)
class Section:
    """A heading, then tables, then figures."""

    heading: str
    narrative: str = ""
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Page:
    """What sections share: where figures go, and the conventions for captions."""

    folder: Path
    scores: Mapping[str, xr.Dataset]

    def figure(self, name: str, drawing: Any, caption: str) -> Figure:
        """The drawing as PNG beside the page, and as text inside it."""
        stream = io.BytesIO()
        drawing.savefig(stream, format="png", dpi=150, facecolor="white")
        content = stream.getvalue()
        name = re.sub(r"[^\w.-]+", "_", name)
        write_whole(self.folder / f"{name}.png", lambda path: path.write_bytes(content))
        return Figure(base64=base64.b64encode(content).decode(), caption=caption)


def write_report(
    path: Path,
    *,
    scores: Mapping[str, xr.Dataset],
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    samples: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    search: Mapping[str, Any] | None = None,
) -> None:
    """One self-contained page at `path`, and its figures as PNG in `figures/` beside it.

    Args:
        path: Where the page is written.
        scores: Scores by test split, models along `model`.
        curves: The records of every training's `log.jsonl`, by run name.
        samples: One test window: `past`, `truth` (frame, channel, height, width), `forecasts` by
            name, `narrative` and `grid`.
        recipe: Printed as JSON.
        search: The result of `s2kd sweep`.

    Raises:
        S2KDError: Where there are no scores.
    """
    from jinja2 import Environment

    if not any(split.sizes["model"] for split in scores.values()):
        raise S2KDError(f"{path}: there are no scores to report yet")
    page = _Page(folder=path.parent / "figures", scores=scores)
    sections = [_across_splits(page)] if len(scores) > 1 else []
    sections += [_split_section(page, name, split) for name, split in scores.items()]
    first = next(iter(scores.values()))
    if samples:
        sections.append(_sample_section(page, first, samples))
    if curves and any(curves.values()):
        sections.append(_training_section(page, first, curves))
    if search and search["best"]:
        sections.append(_search_section(page, search))
    sections.append(_method_section(page, first))
    template = files("s2kd.evaluation").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    write_text(
        path,
        environment.from_string(template).render(
            title=f"{first['data'].values[0]}: {first['preset'].values[0]}",
            caption=_caption(*scores.values()),
            sections=sections,
            recipe=recipe and json.dumps(recipe.to_dict(), indent=2, ensure_ascii=False),
        ),
    )


def _caption(*scores: xr.Dataset) -> str:
    """What every figure must say: data, preset, split, seeds, hardware."""
    first = scores[0]
    seeds = sorted({int(seed) for part in scores for seed in part["seed"].values if seed >= 0})
    hardware = json.loads(first["hardware"].values[0])
    threads = f"{hardware['threads']} thread{'s' * (hardware['threads'] != 1)}"
    machine = hardware.get("gpu") or f"{hardware['processor']}, {threads}"
    splits = ", ".join(str(part["split"].values[0]) for part in scores)
    return (
        f"Data {first['data'].values[0]}, preset {first['preset'].values[0]}, {splits} split, "
        f"{first.attrs['windows']} windows of {first.attrs['past']} past and "
        f"{first.attrs['lead']} future frames, seeds {', '.join(map(str, seeds)) or 'none'}, "
        f"scored on {machine}."
    )


# --- scores --------------------------------------------------------------------------------------


def _across_splits(page: _Page) -> Section:
    """MSE of every model on each test split, and how many times that on the first."""
    keys = [key for key in KEYS if key != "split"]
    splits = list(page.scores)
    frame = pd.concat([compare_methods(scores) for scores in page.scores.values()])
    errors = frame.pivot_table(index=keys, columns="split", values="mse", sort=False)[splits]
    lines = []
    for key, row in errors.iterrows():
        cells = [number(row[split]) for split in splits]
        for column, split in enumerate(splits[1:], 1):
            if np.isfinite(row[split]):
                cells[column] += f" (×{row[split] / row[splits[0]]:.2f})"
        lines.append((label_of(dict(zip(keys, key, strict=True))), *cells))
    windows = ", ".join(f"{name} {scores.attrs['windows']}" for name, scores in page.scores.items())
    caption = (
        f"Normalised MSE of each test split, and how many times that on {splits[0]} it is. "
        f"Windows: {windows}."
    )
    table = Table(title="", head=("", *splits), lines=tuple(lines), caption=caption)
    return Section(heading="Test splits side by side", tables=[table])


def _split_section(page: _Page, split: str, scores: xr.Dataset) -> Section:
    caption, frame = _caption(scores), compare_methods(scores)
    style = figures.colours(scores["method"].values.tolist())
    section = Section(heading=f"Results on the {split} split")
    section.tables = [_main_table(frame, caption)]
    section.tables += _event_tables(scores, frame, caption)
    section.tables += _run_tables(scores, frame, caption)
    section.figures = _overview(page, split, frame, caption, style)
    section.figures += _lead_figures(page, split, scores, caption, style)
    section.figures += _spectrum_figures(page, split, scores, caption, style)
    tables, drawn = _rollouts(page, split, scores, frame, caption, style)
    section.tables += tables
    section.figures += drawn
    return section


def _main_table(frame: pd.DataFrame, caption: str) -> Table:
    lines = [
        (
            label_of(row),
            *cells_of(row),
            number(row["latency_ms"], ".2f"),
            "–"
            if np.isnan(row["gain_low"])
            else f"{row['gain_low']:+.1f} to {row['gain_high']:+.1f}",
            p_text(row["p_value"]),
        )
        for row in frame.to_dict("records")
    ]
    return Table(
        title="",
        head=(*HEAD, "Latency ms", "95 % interval of gain", "p (Holm)"),
        lines=tuple(lines),
        caption=(
            "MSE and MAE are means per element of fields divided by their training standard "
            "deviation; ± is the standard deviation over seeds. Gain: MSE saved against the same "
            "backbone's baseline, * where p < 0.05 over test windows. Gap closed: share of the way "
            f"from baseline to teacher. {caption}"
        ),
    )


def _overview(page: _Page, split: str, frame: pd.DataFrame, caption: str, style: dict) -> list:
    students = frame[frame["role"] == "student"]
    if students.empty:
        return []
    groups = {
        backbone: {
            row["method"]: (row["mse"], 0.0 if np.isnan(row["mse_std"]) else row["mse_std"])
            for row in part.to_dict("records")
        }
        for backbone, part in students.groupby("backbone", sort=False)
    }
    # a reference far off the scale would squeeze all students into a corner
    near = (frame["role"] == "teacher") | (
        (frame["role"] == "reference") & (frame["mse"] < 1.5 * students["mse"].max())
    )
    lines = dict(zip(frame.loc[near, "method"], frame.loc[near, "mse"], strict=True))
    drawing = figures.overview(groups, lines=lines, style=style)
    return [
        page.figure(f"{split}-overview", drawing, f"Students, teachers and references. {caption}")
    ]


def _panels(scores: xr.Dataset) -> dict[str, xr.Dataset]:
    """By student backbone: its models with all references and teachers."""
    students = scores["role"].values == "student"
    backbones = list(dict.fromkeys(scores["backbone"].values[students])) or [""]
    return {
        str(name): scores.isel(model=~students | (scores["backbone"].values == name))
        for name in backbones
    }


def _by_method(scores: xr.Dataset) -> dict[str, xr.Dataset]:
    methods = dict.fromkeys(map(str, scores["method"].values))
    return {method: select(scores, method=method) for method in methods}


def _curve(values: xr.DataArray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation over seeds."""
    array = values.transpose("model", ...).values.astype(float)
    spread = array.std(0, ddof=1) if len(array) > 1 else np.zeros(array.shape[1])
    return array.mean(0).tolist(), spread.tolist()


def _lead_times(scores: xr.Dataset, steps: int) -> tuple[list[float], str]:
    """Lead times in the largest unit that keeps the steps readable, and that unit."""
    step = float(scores.attrs["step_seconds"])
    units = {"days": 86_400.0, "hours": 3600.0, "minutes": 60.0, "seconds": 1.0}
    unit = next((u for u, seconds in units.items() if step * steps >= 4 * seconds), "seconds")
    return [step * (n + 1) / units[unit] for n in range(steps)], unit


def _named(split: str, kind: str, backbone: str) -> str:
    return "-".join(filter(None, (split, kind, backbone)))


def _of_students(backbone: str) -> str:
    return f", students of {backbone}" if backbone else ""


def _lead_figures(
    page: _Page, split: str, scores: xr.Dataset, caption: str, style: dict
) -> list[Figure]:
    times, unit = _lead_times(scores, scores.sizes["lead"])
    channels = dict(zip(scores["channel"].values, scores["unit"].values, strict=True))
    drawn = []
    for backbone, models in _panels(scores).items():
        methods = _by_method(models)
        panels = {
            channel: {m: _curve(s["rmse_by_lead"].sel(channel=channel)) for m, s in methods.items()}
            for channel in channels
        }
        labels = {channel: f"{channel}: RMSE ({u})" for channel, u in channels.items()}
        drawing = figures.lead_curves(
            panels, hours=times, unit_of_time=unit, labels=labels, style=style
        )
        text = (
            f"Error by lead time{_of_students(backbone)}; mean over seeds, shaded by their "
            f"standard deviation. {caption}"
        )
        drawn.append(page.figure(_named(split, "lead", backbone), drawing, text))
    return drawn


def _spectrum_figures(
    page: _Page, split: str, scores: xr.Dataset, caption: str, style: dict
) -> list[Figure]:
    if "spectrum_forecast" not in scores:
        return []
    style = {**style, "truth": figures.FIXED["truth"], "teacher": ("black", "-.")}
    last = scores.isel(lead=-1)
    drawn = []
    for backbone, models in _panels(last.isel(model=last["role"].values != "reference")).items():
        panels = {}
        for channel in map(str, scores["channel"].values):
            power = models["spectrum_forecast"].sel(channel=channel)
            truth = last["spectrum_truth"].sel(channel=channel)
            panels[channel] = {"truth": truth.values.tolist()} | {
                method: power.sel(model=part["model"]).mean("model").values.tolist()
                for method, part in _by_method(models).items()
            }
        if not models.sizes["model"]:
            continue
        drawing = figures.spectra(
            panels, wavenumber=scores["wavenumber"].values.tolist(), style=style
        )
        text = (
            f"Radial power spectrum at lead {int(last['lead'])}{_of_students(backbone)}, mean over "
            "windows and seeds; right, its ratio to the truth's: below 1 the forecast is too "
            f"smooth. {caption}"
        )
        drawn.append(page.figure(_named(split, "spectra", backbone), drawing, text))
    return drawn


def _models_of(scores: xr.Dataset, row: Mapping[str, Any]) -> xr.Dataset:
    """The seeds behind one row of the summary."""
    return select(scores, **{key: row[key] for key in KEYS})


def _event_tables(scores: xr.Dataset, frame: pd.DataFrame, caption: str) -> list[Table]:
    """CSI with its interval, POD, FAR, bias and SEDI of `EVENTS`."""
    if "hits" not in scores:
        return []
    values = event_scores(scores)
    left_out = scores.attrs["cells"] - scores["event_cells"]
    lines = []
    for row in frame.to_dict("records"):
        models = _models_of(scores, row)
        means = values.sel(model=models["model"]).mean("model")
        for channel in map(str, scores["channel"].values):
            for event in (name for name in EVENTS if name in scores["event"].values):
                at = {"channel": channel, "event": event}
                if not int(scores["event_cells"].sel(at)):
                    continue
                csi = event_interval(models, **at)
                others = (float(means[name].sel(at)) for name in ("pod", "far", "bias", "sedi"))
                lines.append(
                    (
                        label_of(row),
                        channel,
                        event,
                        interval(csi.value, csi.low, csi.high, ".3f"),
                        *(number(value, ".3f") for value in others),
                        str(int(left_out.sel(at))),
                    )
                )
    head = ("", "Channel", "Event", "CSI", "POD", "FAR", "Bias", "SEDI", "Cells left out")
    text = (
        "Values beyond each cell's own training quantile, over all leads and windows; CSI with "
        "seeds pooled and its 95 % interval. Left out are cells in which training saw no such "
        f"event. {caption}"
    )
    return [Table(title="Rare events", head=head, lines=tuple(lines), caption=text)]


def _run_tables(scores: xr.Dataset, frame: pd.DataFrame, caption: str) -> list[Table]:
    if not 1 < scores.sizes.get("run", 0) <= MOST_RUNS:
        return []
    lines = [
        (
            label_of(row),
            *map(number, _models_of(scores, row)["mse_by_run"].mean("model").values.tolist()),
        )
        for row in frame.to_dict("records")
    ]
    head = ("", *map(str, scores["run"].values))
    text = f"Normalised MSE of each. {caption}"
    title = "MSE by run or environment"
    return [Table(title=title, head=head, lines=tuple(lines), caption=text)]


def _rollouts(
    page: _Page, split: str, scores: xr.Dataset, frame: pd.DataFrame, caption: str, style: dict
) -> tuple[list[Table], list[Figure]]:
    """Growth of the error in roll-outs, where there are some."""
    if "rollout_mse" not in scores:
        return [], []
    rolled = scores.isel(model=scores["rollout_mse"].notnull().all("step").values)
    times, unit = _lead_times(rolled, rolled.sizes["step"])
    drawn = []
    for backbone, models in _panels(rolled).items():
        panels = {"": {m: _curve(s["rollout_mse"]) for m, s in _by_method(models).items()}}
        drawing = figures.lead_curves(
            panels,
            hours=times,
            unit_of_time=unit,
            labels={"": "MSE, normalised"},
            style=style,
        )
        text = (
            f"Roll-outs to {rolled.attrs['rollout_horizon']} lead times{_of_students(backbone)}: "
            f"error by step; mean over seeds, shaded by their standard deviation. {caption}"
        )
        drawn.append(page.figure(_named(split, "horizon", backbone), drawing, text))
    lines = []
    for row in frame.to_dict("records"):
        models = _models_of(rolled, row)
        if not models.sizes["model"]:
            continue
        ahead = (
            float(models[f"rollout_ahead_of_{name}"].mean())
            for name in ("persistence", "climatology")
        )
        lines.append(
            (
                label_of(row),
                number(float(models["rollout_mse"].isel(step=-1).mean())),
                f"{int(models['rollout_stable'].sum())} of {models.sizes['model']}",
                *(number(value, ".1f") for value in ahead),
            )
        )
    text = (
        f"{rolled.attrs['rollout_windows']} windows ({rolled.attrs['rollout_skipped']} too near "
        "the end of their stretch were skipped). Stable: every value finite and the error below "
        f"{rolled.attrs['rollout_limit']:g} times the variance about the climatology; ahead: "
        f"steps. {caption}"
    )
    head = ("", "MSE at the end", "Stable", "Ahead of persistence", "Ahead of climatology")
    return [Table(title="Roll-outs", head=head, lines=tuple(lines), caption=text)], drawn


# --- sample, training, search, method ------------------------------------------------------------


def _sample_section(page: _Page, scores: xr.Dataset, samples: Mapping[str, Any]) -> Section:
    grid: GridSpec = samples["grid"]
    section = Section(heading="One test window", narrative=samples.get("narrative") or "")
    steps, unit = _lead_times(scores, scores.sizes["lead"])
    when = [f"+{step:g} {unit if step != 1 else unit.removesuffix('s')}" for step in steps]
    for channel, name in enumerate(grid.channels):
        drawing = figures.maps(
            past=samples["past"],
            truth=samples["truth"],
            forecasts=_shown(samples["forecasts"]),
            channel=channel,
            grid=grid,
            when=when,
        )
        text = (
            f"{name} ({grid.units[channel]}): truth, forecasts and their errors at the last lead, "
            f"in one colour range each. {_caption(scores)}"
        )
        section.figures.append(page.figure(f"maps-{name}", drawing, text))
    return section


def _shown(forecasts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """At most six: teachers, then one backbone's methods before the next one's."""
    teachers = sorted((name for name in forecasts if name.startswith("teacher")), key=len)
    students = [name for name in forecasts if name not in teachers]
    backbones = list(dict.fromkeys(name.split(" ")[0] for name in students))
    students.sort(key=lambda name: backbones.index(name.split(" ")[0]))
    return {name: forecasts[name] for name in (teachers + students)[:MOST_MAPS]}


def _training_section(
    page: _Page, scores: xr.Dataset, curves: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Section:
    curves = {name: records for name, records in curves.items() if records}
    backbones = [name for name in _panels(scores) if name]
    panels: dict[str, dict[str, Sequence[Mapping[str, Any]]]] = {}
    for name, records in curves.items():
        kind, _, rest = name.partition(" ")
        backbone = next((b for b in backbones if rest.startswith(f"{b}-")), "")
        panels.setdefault(f"{kind} {backbone}".strip(), {})[rest or name] = records
    caption = _caption(scores)
    text = (
        "Validation MSE by epoch, one line per seed; the dot marks the weights that were kept. "
        f"{caption}"
    )
    section = Section(heading="Training")
    section.figures.append(page.figure("training", figures.training_curves(panels), text))
    several: dict[str, Sequence[Mapping[str, Any]]] = {}
    for name, records in curves.items():
        if len(records) > 1 and len(records[0].get("terms") or {}) > 1:
            several.setdefault(figures.without_seed(name), records)
    if several:
        drawing = figures.term_curves(dict(list(several.items())[:8]))
        text = f"Terms of the training loss by epoch, weights not applied, first seed. {caption}"
        section.figures.append(page.figure("terms", drawing, text))
    return section


def _search_section(page: _Page, search: Mapping[str, Any]) -> Section:
    """The chosen values, the error over what was searched, and every trial."""
    trials = [trial for trial in search["trials"] if trial["state"] == "complete"]
    trials.sort(key=lambda trial: trial["validation"])
    caption = (
        f"{search['backbone']} {search['method']} on {search['data']}, preset {search['preset']}, "
        f"{len(trials)} trials ({search['sampler']}), seeds {', '.join(map(str, search['seeds']))};"
        f" {search['measure']}. Chosen: {', '.join(search['settings'])}. The test split was not "
        "opened."
    )
    lines = [
        (
            str(trial["number"]),
            *(f"{trial['values'][axis]:g}" for axis in search["axes"]),
            f"{trial['validation']:.5f}",
        )
        for trial in trials
    ]
    head = ("Trial", *(figures.AXIS_LABELS[axis] for axis in search["axes"]), "Validation error")
    drawing = figures.sweep(search)
    text = f"The star is the choice, the ring the recipe's value. {caption}"
    return Section(
        heading="Search",
        tables=[Table(title="", head=head, lines=tuple(lines), caption=caption)],
        figures=[page.figure("sweep", drawing, text)],
    )


def _method_section(page: _Page, scores: xr.Dataset) -> Section:
    versions, hardware = (json.loads(scores[n].values[0]) for n in ("versions", "hardware"))
    notes = {
        "Normalised unit": scores.attrs["normalised"],
        "SSIM": scores.attrs["ssim"] or "grid too small",
        "Climatology": scores.attrs["climatology"] or "none",
        "Spectra": scores.attrs["spectra"],
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Hardware": ", ".join(f"{name} {value}" for name, value in hardware.items()),
        "Data fingerprint": str(scores["fingerprint"].values[0]),
    }
    table = Table(title="", head=("", ""), lines=tuple(notes.items()), caption=_caption(scores))
    return Section(heading="How it was measured", tables=[table])
