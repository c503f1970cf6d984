"""Stages `evaluate` and `report`: every model of a run on the test splits, and the run's page."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import s2kd
from s2kd.core.errors import S2KDError
from s2kd.core.files import digest, read_json, write_json
from s2kd.core.recipe import Method, Part
from s2kd.core.types import Batch
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.rollout import Step, climatology_step, persistence_step, roll_out
from s2kd.evaluation.scoring import (
    SCORES_VERSION,
    climatology_forecast,
    latency,
    persistence,
    result_row,
    score,
)
from s2kd.models.checkpoint import load_metadata, load_student, load_teacher
from s2kd.models.forecasters import FramesOnly, Student, Teacher
from s2kd.pipeline.distil import student_folder
from s2kd.pipeline.narrate import narratives
from s2kd.pipeline.run import Run
from s2kd.pipeline.teach import teacher_folder
from s2kd.training.objectives import predict

REFERENCES = ("persistence", "climatology")
TEACHER_METHODS = {"text": "teacher", "no_text": "teacher-no-text"}
"""The names of the kinds of teacher in results."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """One forecaster to be scored: `row` are the fields of its result that are known before."""

    name: str
    key: str
    row: dict[str, Any]
    load: Callable[[], Student | Teacher] | None = None


def evaluated_models(run: Run) -> Iterator[EvaluatedModel]:
    """References, teachers and students of a run."""
    yield from references()
    for seed in run.recipe.seeds:
        for kind in run.teacher_kinds:
            yield evaluated_teacher(run, kind, seed)
        for method in run.recipe.methods:
            for part in run.recipe.students:
                yield evaluated_student(run, part, method, seed)


def references() -> Iterator[EvaluatedModel]:
    """Persistence and climatology."""
    for name in REFERENCES:
        row = {"backbone": name, "role": "reference", "method": name, "seed": None}
        yield EvaluatedModel(name=name, key=name, row=row)


def evaluated_teacher(run: Run, kind: str, seed: int) -> EvaluatedModel:
    """A trained teacher of the run."""
    folder = teacher_folder(run, kind, seed)
    metadata = _own_metadata(run, folder)
    row = {
        "backbone": run.recipe.teacher.backbone.name,
        "role": "teacher",
        "method": TEACHER_METHODS[kind],
        "seed": seed,
        "narrator": metadata["narrator"],
        "parameters": metadata["parameters"],
        "validation": metadata["validation"],
    }
    return EvaluatedModel(
        name=f"teacher-{folder.name}",
        key=metadata["weights"],
        row=row,
        load=lambda: load_teacher(folder)[0],
    )


def evaluated_student(run: Run, part: Part, method: Method, seed: int) -> EvaluatedModel:
    """A trained student of the run."""
    folder = student_folder(run, part, method, seed)
    metadata = _own_metadata(run, folder)
    row = {
        "backbone": part.name,
        "role": "student",
        "method": method.name,
        "seed": seed,
        "narrator": run.recipe.narrator.name if method.teacher == "text" else "none",
        "parameters": metadata["parameters"],
        "validation": metadata["validation"],
    }
    return EvaluatedModel(
        name=folder.name, key=metadata["weights"], row=row, load=lambda: load_student(folder)[0]
    )


def _own_metadata(run: Run, folder: Path) -> dict[str, Any]:
    """The metadata of a model of this run; S2KDError where the data have changed since."""
    metadata, fingerprint = load_metadata(folder), run.dataset.fingerprint
    if metadata.get("fingerprint", fingerprint) != fingerprint:
        raise S2KDError(
            f"{folder}: was trained on other data (fingerprint {metadata['fingerprint']}) than "
            f"{run.recipe.dataset.name!r} gives now ({fingerprint}); put the data back, or train "
            "it again with `s2kd run`"
        )
    return metadata


# --- scores --------------------------------------------------------------------------------------


def evaluate(run: Run, *, horizon: int = 0) -> list[dict[str, Any]]:
    """Score persistence, climatology, every teacher and every student on the test splits.

    With a `horizon` of 2 or more every row also has `long_horizon`: roll-outs to that multiple of
    the lead (`rollout.roll_out`).
    """
    if horizon < 0 or horizon == 1:
        raise S2KDError(f"--horizon {horizon}: wants at least 2 lead times, or 0 for no roll-out")
    run.horizon = horizon or run.horizon
    rows: list[dict[str, Any]] = []
    run.first_only(lambda: rows.extend(_evaluate(run)))
    return rows


def _evaluate(run: Run) -> list[dict[str, Any]]:
    rows = []
    for split in run.test_splits:
        windows = run.windows(split, device=run.fabric.device)
        for model in evaluated_models(run):
            rows.append(_score_one(run, model, split, windows, run.climatology))
    path = run.out / "scores.json"
    if not path.exists() or read_json(path) != rows:
        write_json(path, rows)
    return rows


def score_references(run: Run) -> list[dict[str, Any]]:
    """Results of persistence and climatology on every test split."""
    return [row for model in references() for row in _score_all(run, model)]


def score_teacher(run: Run, kind: str, seed: int) -> list[dict[str, Any]]:
    """Results of one teacher on every test split."""
    return _score_all(run, evaluated_teacher(run, kind, seed))


def score_student(run: Run, part: Part, method: Method, seed: int) -> list[dict[str, Any]]:
    """Results of one student on every test split."""
    return _score_all(run, evaluated_student(run, part, method, seed))


def _score_all(run: Run, model: EvaluatedModel) -> list[dict[str, Any]]:
    return [
        _score_one(run, model, split, run.windows(split, device=run.fabric.device), run.climatology)
        for split in run.test_splits
    ]


def _score_one(
    run: Run,
    model: EvaluatedModel,
    split: str,
    windows: WindowDataset,
    climatology: Climatology,
) -> dict[str, Any]:
    """One result, from its file where that is of these weights and windows."""
    path = run.out / "scores" / split / f"{model.name}.json"
    version = f"{s2kd.__version__} scores {SCORES_VERSION}"
    key = digest([model.key, run.dataset.fingerprint, windows.starts.tolist(), version])
    if path.exists():
        row = read_json(path)
        if row.get("key") == key:
            # of the same weights, perhaps by a recipe that has changed elsewhere since
            row |= {"preset": run.recipe.name, "recipe": run.recipe.digest}
            row |= {"validation": model.row.get("validation"), **_words(run, model)}
            row["settings"] = run.recipe.to_dict()
            return _with_long_horizon(run, model, windows, path, row)
    predict, speed = predictor(run, model, split, windows, climatology)
    scores = score(
        predict,
        windows,
        statistics=run.train_stats,
        climatology=climatology,
        cell_events=run.cell_events,
        progress=run.progress(f"score {model.name} on {split}"),
    )
    row = result_row(
        scores=scores,
        data=run.recipe.dataset.name,
        preset=run.recipe.name,
        split=split,
        latency=speed,
        fingerprint=run.dataset.fingerprint,
        recipe=run.recipe.digest,
        device=run.fabric.device,
        **model.row,
    )
    row |= {"key": key, "settings": run.recipe.to_dict(), **_words(run, model)}
    write_json(path, row)
    return _with_long_horizon(run, model, windows, path, row)


def _words(run: Run, model: EvaluatedModel) -> dict[str, Any]:
    """Version of the narrator that took part, and whether it reads the future."""
    if model.row["role"] == "reference" or model.row["narrator"] == "none":
        return {}
    narrator = run.narrator
    return {"reads_future": narrator.reads_future, "narrator_version": narrator.version}


def _with_long_horizon(
    run: Run, model: EvaluatedModel, windows: WindowDataset, path: Path, row: dict[str, Any]
) -> dict[str, Any]:
    """The row with its roll-out, where one is requested and it has none of that length."""
    if not run.horizon or row.get("long_horizon", {}).get("horizon") == run.horizon:
        return row
    step = stepper(run, model, windows)
    if step is None:
        return row
    rollout = roll_out(
        step,
        windows,
        horizon=run.horizon,
        statistics=run.train_stats,
        climatology=run.climatology,
        progress=run.progress(f"roll out {model.name} on {windows.split}"),
    )
    row = {**row, "long_horizon": rollout}
    write_json(path, row)
    return row


def read_scores(out: Path) -> list[dict[str, Any]]:
    """The rows that `evaluate` wrote."""
    path = out / "scores.json"
    if not path.exists():
        raise S2KDError(f"{out}: has no scores.json yet; run `s2kd evaluate` first")
    return read_json(path)


def predictor(
    run: Run, model: EvaluatedModel, split: str, windows: WindowDataset, climatology: Climatology
) -> tuple[Callable[[torch.Tensor, Batch], torch.Tensor], dict[str, Any] | None]:
    """A function that forecasts a batch, and the latency of one window."""
    if model.load is None:
        if model.name == "persistence":
            return persistence(windows.lead), None
        return climatology_forecast(climatology, windows), None
    network = model.load().to(run.fabric.device).to(memory_format=torch.channels_last)
    reads = isinstance(network, Teacher) and network.reads
    states = run.states(split) if reads else None
    first = windows.gather(torch.tensor([0]))
    tokens = states.tokens(first.index, first.past.device) if states is not None else None
    speed = latency(FramesOnly(network, tokens).eval(), first.past)
    return lambda past, window: predict(network, past, window.index, states), speed


def stepper(run: Run, model: EvaluatedModel, windows: WindowDataset) -> Step | None:
    """A function that forecasts block after block; None for a teacher that reads narratives.

    Such a teacher has no narratives of its own forecasts.
    """
    if model.load is None:
        if model.name == "persistence":
            return persistence_step(windows.lead)
        return climatology_step(run.climatology, windows, horizon=run.horizon)
    network = model.load().to(run.fabric.device).to(memory_format=torch.channels_last)
    if isinstance(network, Teacher) and network.reads:
        return None
    return lambda past, window, block: predict(network, past, window.index, None)


# --- report -----------------------------------------------------------------------------------


def report(run: Run) -> Path:
    """`report.html` and `figures/`, from the files of the run alone."""
    from s2kd.evaluation.report import write_report

    path = run.out / "report.html"
    rows = read_scores(run.out)
    search = run.out / "sweep.json"
    write_report(
        path,
        rows=rows,
        curves=_curves(run),
        samples=_samples(run),
        recipe=run.recipe,
        sweep=read_json(search) if search.exists() else None,
    )
    return path


def is_reported(out: Path) -> bool:
    """Whether the report is of these scores and search, written only where they change."""
    page, sources = out / "report.html", [out / "scores.json", out / "sweep.json"]
    times = [path.stat().st_mtime_ns for path in sources if path.exists()]
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
    """The middle test window: frames, narrative, and forecasts of the first seed's models."""
    windows, seed = run.windows("test"), run.recipe.seeds[0]
    number = len(windows) // 2
    window = windows.gather(torch.tensor([number]))
    forecasts = {}
    for model in evaluated_models(run):
        if model.load is None or model.row["seed"] != seed:
            continue
        network = model.load()
        states = run.states("test") if isinstance(network, Teacher) and network.reads else None
        forecast = predict(network, window.past, window.index, states)
        forecasts[_label(model)] = forecast[0].numpy()
    reads = "text" in run.teacher_kinds
    return {
        "past": window.past[0].numpy(),
        "truth": window.future[0].numpy(),
        "forecasts": forecasts,
        "narrative": narratives(run, "test")[number] if reads else "",
        "grid": run.dataset.grid,
    }


def _label(model: EvaluatedModel) -> str:
    row = model.row
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
