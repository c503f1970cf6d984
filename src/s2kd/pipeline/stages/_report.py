"""Last: the page of a run, and its best student as a file that runs anywhere."""

import json
from pathlib import Path
from typing import Any

import torch

from s2kd.core.files import read_json
from s2kd.models.forecasters import Teacher
from s2kd.pipeline.stages._entrants import Entrant, entrants
from s2kd.pipeline.stages._evaluate import read_scores
from s2kd.pipeline.stages._narrate import narrative
from s2kd.pipeline.stages._run import Run
from s2kd.training.objectives import foresee


def report(run: Run) -> Path:
    """`report.html` and `figures/`, from the files of the run alone."""
    from s2kd.evaluation.report import write_report

    path = run.out / "report.html"
    rows = read_scores(run.out)
    found = run.out / "sweep.json"
    write_report(
        path,
        rows=rows,
        curves=_curves(run),
        samples=_samples(run),
        recipe=run.recipe,
        sweep=read_json(found) if found.exists() else None,
    )
    return path


def is_reported(out: Path) -> bool:
    """Whether the report is of these scores and search, written only where they change."""
    page, made = out / "report.html", [out / "scores.json", out / "sweep.json"]
    times = [path.stat().st_mtime_ns for path in made if path.exists()]
    return page.exists() and page.stat().st_mtime_ns >= max(times)


def _curves(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The log of every training, by name."""
    curves = {}
    for kind in ("teachers", "students"):
        for path in sorted((run.out / kind).glob("*/log.jsonl")):
            lines = path.read_text(encoding="utf-8").splitlines()
            curves[f"{kind[:-1]} {path.parent.name}"] = [json.loads(line) for line in lines]
    return curves


@torch.no_grad()
def _samples(run: Run) -> dict[str, Any]:
    """The middle test window: its frames, its words, and what the first seed makes of it."""
    windows, seed = run.windows("test"), run.recipe.seeds[0]
    number = len(windows) // 2
    window = windows.gather(torch.tensor([number]))
    forecasts = {}
    for entrant in entrants(run):
        if entrant.load is None or entrant.row["seed"] != seed:
            continue
        model = entrant.load()
        states = run.states("test") if isinstance(model, Teacher) and model.reads else None
        forecasts[_label(entrant)] = foresee(model, window.past, window.index, states)[0].numpy()
    return {
        "past": window.past[0].numpy(),
        "truth": window.future[0].numpy(),
        "forecasts": forecasts,
        "narrative": narrative(run, number),
        "grid": run.dataset.grid,
    }


def _label(entrant: Entrant) -> str:
    row = entrant.row
    return row["method"] if row["role"] == "teacher" else f"{row['backbone']} {row['method']}"


def export(run: Run) -> Path:
    """An ONNX file of the run's best student by validation error, beside its weights."""
    from s2kd.deploy.export import export_onnx
    from s2kd.deploy.forecaster import Forecaster, find_student

    best = find_student(run.out)
    path = best / "model.onnx"
    if not path.exists() or path.stat().st_mtime_ns < (best / "model.json").stat().st_mtime_ns:
        export_onnx(Forecaster.load(best), path)
    return path
