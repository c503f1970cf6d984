"""Training what the paper's tables lack, and the results that they are made from.

What the results hold of the same recipe, data and version is done, wherever it was trained; so
another machine goes on from the result files alone. A model that is needed there (a teacher, a
student for a map) is trained again, and its results stay as they are.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import s2kd
from s2kd import pipeline
from s2kd.core.files import write_netcdf
from s2kd.evaluation.results import (
    each_model,
    join_models,
    read_results,
    relabel,
    same_training,
    save_result,
    select,
)
from s2kd.models.checkpoint import load_student
from s2kd.paper.figures import detailed_region
from s2kd.paper.studies import TrainingJob, Variant
from s2kd.pipeline.queue import Job, JobContext, JobSummary, opened_folders, run_jobs
from s2kd.pipeline.run import Run
from s2kd.pipeline.scores import (
    REFERENCES,
    TEACHER_METHODS,
    evaluated_student,
    evaluated_teacher,
    references,
    score_models,
)
from s2kd.training.objectives import predict

HORIZON = 4
"""Roll-outs go to so many times the trained lead."""

SAMPLED = ("baseline", "s2kd", "s2kd_plus")
"""Methods on the maps of figure 5."""


def to_do(
    jobs: Sequence[TrainingJob], out: Path, results: Path, *, maps: bool
) -> list[TrainingJob]:
    """Jobs without results, and with `maps` those of a missing map whose student is missing."""
    files = {} if not results.is_dir() else _coordinates(read_results(results))
    runs: dict[str, Run] = {}
    missing = []
    for job in jobs:
        folder = job.variant.folder
        if folder not in runs:
            runs[folder] = _run(job.variant, out, tuple(runs.values()))
        drawn = maps and _is_drawn(job) and not _sample_path(results, job.variant).exists()
        has_model = (_student_folder(job, out) / "model.json").exists()
        if (drawn and not has_model) or not is_done(job, files, runs[folder]):
            missing.append(job)
    return missing


def is_done(job: TrainingJob, results: Mapping[str, xr.Dataset], run: Run) -> bool:
    """Whether every test split has results of this very training, of its teacher and references."""
    return all(
        _is_of(select(results[name], **fields), job, run)
        for name in _result_names(job, run)
        for fields in _models(job)
        if name in results
    ) and set(_result_names(job, run)) <= set(results)


def _result_names(job: TrainingJob, run: Run) -> list[str]:
    return [f"{job.variant.data}-{job.variant.preset}-{split}" for split in run.test_splits]


def _models(job: TrainingJob) -> list[dict[str, Any]]:
    """Coordinates of the models that a job adds to the results: its own, teacher, references."""
    variant = {"variant": job.variant.name}
    models = [{"backbone": job.student, "method": job.method, "seed": job.seed}]
    kind = job.recipe.methods[0].teacher
    if kind != "none":
        backbone = job.recipe.teacher.backbone.name
        models.append({"backbone": backbone, "method": TEACHER_METHODS[kind], "seed": job.seed})
    if job.variant.is_main:
        models += [{"backbone": name, "method": name, "seed": -1} for name in REFERENCES]
    return [{**variant, **fields} for fields in models]


def _is_of(scores: xr.Dataset, job: TrainingJob, run: Run) -> bool:
    """Whether a selection is the one model of this recipe, data, narrator and version."""
    if scores.sizes["model"] != 1 or scores["fingerprint"].values[0] != run.dataset.fingerprint:
        return False
    narrator, version = (str(scores[n].values[0]) for n in ("narrator", "narrator_version"))
    if (
        narrator != "none"
        and (version or narrator == "recorded")
        and version != run.narrator.version
    ):
        return False
    return same_training(scores, job.recipe.to_dict(), s2kd.__version__)


def _coordinates(results: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    return {name: scores.drop_vars(list(scores.data_vars)) for name, scores in results.items()}


def _run(variant: Variant, out: Path, loaded: Sequence[Run] = ()) -> Run:
    """The run of a variant, with the data of a loaded run of the same data."""
    run = Run(recipe=variant.recipe, out=out / variant.folder)
    for candidate in loaded:
        if candidate.recipe.dataset == run.recipe.dataset:
            run.dataset = candidate.dataset
    return run


def reproduce(
    jobs: Sequence[TrainingJob],
    out: Path,
    results: Path,
    context: JobContext,
    *,
    maps: bool,
) -> JobSummary:
    """Run the jobs that are left until the time is up, then draw the maps that can be made.

    `jobs` are in order of worth, `out` holds the run folders and `results` the result files; `maps`
    says whether figure 5 is wanted.
    """
    unfinished = to_do(jobs, out, results, maps=maps)
    context.say(f"{len(jobs) - len(unfinished)} of {len(jobs)} trainings are done already")
    variants = {out / job.variant.folder: job.variant for job in unfinished}
    queued = [
        Job(
            recipe=job.recipe,
            folder=out / job.variant.folder,
            finish=partial(store_results, results=results, job=job),
        )
        for job in unfinished
    ]
    with opened_folders({folder: variant.recipe for folder, variant in variants.items()}):
        summary = run_jobs(queued, context)
    if maps:
        for variant in {job.variant.folder: job.variant for job in jobs}.values():
            if variant.is_main:
                save_sample(variant, out, results)
    return summary


def store_results(run: Run, *, results: Path, job: TrainingJob) -> None:
    """Score the models of a job that the results lack, and add them."""
    files = _coordinates(read_results(results)) if results.is_dir() else {}
    (part,), (method,) = run.recipe.students, run.recipe.methods
    models = [evaluated_student(run, part, method, job.seed)]
    if method.teacher != "none":
        models.append(evaluated_teacher(run, method.teacher, job.seed))
    if job.variant.is_main:
        models += references()

    def is_stored(fields: dict[str, Any]) -> bool:
        listed = [select(files[n], **fields) for n in _result_names(job, run) if n in files]
        return len(listed) == len(run.test_splits) and all(_is_of(s, job, run) for s in listed)

    pairs = zip(_models(job), models, strict=True)
    if not (missing := [model for fields, model in pairs if not is_stored(fields)]):
        return
    labels = {"data": job.variant.data, "preset": job.variant.preset, "variant": job.variant.name}
    for scores in score_models(run, missing):
        save_result(results, join_models([relabel(m, **labels) for m in each_model(scores)]))


# --- figure 5 ------------------------------------------------------------------------------------


def _is_drawn(job: TrainingJob) -> bool:
    """Whether the student of a job is on a map: first student, first seed."""
    recipe = job.variant.recipe
    first = job.student == recipe.students[0].name and job.seed == recipe.seeds[0]
    return job.variant.is_main and first and job.method in SAMPLED


def _student_folder(job: TrainingJob, out: Path) -> Path:
    narrow = job.recipe
    run = Run(recipe=narrow, out=out / job.variant.folder)
    return pipeline.student_folder(run, narrow.students[0], narrow.methods[0], job.seed)


def _sample_path(results: Path, variant: Variant) -> Path:
    return results / "maps" / f"{variant.data}-{variant.preset}.nc"


@torch.no_grad()
def save_sample(variant: Variant, out: Path, results: Path) -> None:
    """The middle test window: truth and forecasts of its first channel at the last lead.

    Neither window, channel nor region is chosen by looking at a forecast.
    """
    recipe, path = variant.recipe, _sample_path(results, variant)
    run, seed = _run(variant, out), recipe.seeds[0]
    folders = {
        method.name: pipeline.student_folder(run, recipe.students[0], method, seed)
        for method in recipe.methods
        if method.name in SAMPLED
    }
    folders = {name: f for name, f in folders.items() if (f / "model.json").exists()}
    if path.exists() or not {"baseline", "s2kd"} <= set(folders):
        return
    windows, grid = run.windows("test"), run.dataset.grid
    number = len(windows) // 2
    batch = windows.gather(torch.tensor([number]))
    truth = np.where(grid.exists, batch.future[0, -1, 0].numpy(), np.nan)
    forecasts = {
        name: predict(load_student(folder)[0].eval(), batch.past, batch.index, None)[0, -1, 0]
        for name, folder in folders.items()
    }
    fields = {"truth": truth, **{name: field.numpy() for name, field in forecasts.items()}}
    attributes = {
        "data": variant.data,
        "preset": variant.preset,
        "seed": seed,
        "window": number,
        "lead": recipe.lead,
        "channel": grid.channels[0],
        "unit": grid.units[0],
        "first_row_on_top": int(grid.latitude is None or grid.latitude[0] > grid.latitude[-1]),
        "region": detailed_region(truth),
    }
    stack = np.stack(list(fields.values())).astype(np.float32)
    sample = xr.Dataset(
        {"field": (("name", "row", "column"), stack)}, {"name": list(fields)}, attributes
    )
    encoding = {"field": {"zlib": True, "shuffle": True}}
    write_netcdf(path, sample, encoding)


def read_samples(results: Path) -> list[xr.Dataset]:
    """The map samples beside the results, in order of their names: `field` by name, row, column."""
    paths = sorted((results / "maps").glob("*.nc"))
    return [xr.load_dataset(path, engine="h5netcdf") for path in paths]
