"""Stage `distil`: the students (eq. 14)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins

from s2kd.core.methods import key_form
from s2kd.core.recipe import Method, Part
from s2kd.data.loading import origin
from s2kd.models.checkpoint import build_student, metadata_of
from s2kd.models.forecasters import Student
from s2kd.pipeline.checks import check_batch
from s2kd.pipeline.kept import kept
from s2kd.pipeline.run import Run
from s2kd.pipeline.targets import Supervision, extra_inputs, supervision_of, teacher_metadata
from s2kd.pipeline.teach import learn, outcome, save
from s2kd.training.losses import losses
from s2kd.training.objectives import Distilling, Forecasting, Weighted


def student_folder(run: Run, student: Part, method: Method, seed: int) -> Path:
    """The folder of this student in its run."""
    return run.out / "students" / f"{student.name}-{method.name}-seed{seed}"


def train_students(run: Run, *, seeds: Sequence[int] = ()) -> None:
    """Every student by every method, for these seeds or all (eq. 14)."""
    for seed in seeds or run.recipe.seeds:
        for method in run.recipe.methods:
            for student in run.recipe.students:
                distill_student(run, student, method, seed)


def distill_student(
    run: Run, part: Part, method: Method, seed: int, *, folder: Path | None = None
) -> None:
    """One student by one method, in `folder` or where the run keeps its students."""
    recipe, folder = run.recipe, folder or student_folder(run, part, method, seed)
    teacher = teacher_metadata(run, method.teacher, seed)
    inputs = {
        **run.model_inputs,
        "student": to_builtins(part),
        "method": key_form(method),
        "training": to_builtins(recipe.student_training),
        "seed": seed,
        "teacher": teacher["weights"] if teacher else None,
        **extra_inputs(run, method),
    }

    def train(key: str) -> None:
        supervision = supervision_of(run, method, seed, teacher)
        torch.manual_seed(seed)
        student = build_student(part, run.setting).to(memory_format=torch.channels_last)
        objective = student_objective(run, student, method, supervision)
        history = learn(
            run, objective, folder, seed, recipe.student_training, hint_epochs=method.hint_epochs
        )
        metadata = metadata_of(
            "student",
            part,
            run.setting,
            key=key,
            name=recipe.name,
            method=method.name,
            seed=seed,
            attributes={k: dict(v) for k, v in run.dataset.attributes.items()},
            domain=run.dataset.domain,
            dataset=to_builtins(recipe.dataset),
            origin=_origin(recipe.dataset),
            source=run.dataset.source,
            fingerprint=run.dataset.fingerprint,
            recipe=recipe.to_dict(),
            **outcome(history),
        )
        save(run, folder, student, metadata)

    kept(folder, inputs, train, first_only=run.first_only, say=run.say)


def _origin(part: Part) -> dict[str, Any] | None:
    """The files that prepared data were written from: a student can forecast from those too."""
    return origin(part.params["path"]) if part.name == "prepared" else None


def student_objective(
    run: Run,
    student: Student,
    method: Method,
    supervision: Supervision,
) -> Forecasting | Distilling:
    """What this method minimises (eq. 14); without losses, the forecast error alone."""
    windows = run.windows("train", device=run.fabric.device)
    extra, extra_targets = supervision.extra, supervision.extra_targets
    if not method.terms:
        return Forecasting(student, windows, None, extra=extra)
    check_batch(run, method)
    terms = [
        Weighted(
            term.loss.name,
            term.weight,
            losses.build(term.loss.name, **term.loss.params),
            losses.compares(term.loss.name),
        )
        for term in method.terms
    ]
    return Distilling(
        student,
        windows,
        supervision.targets,
        terms,
        teacher_width=supervision.teacher_width,
        weight=method.weight,
        extra=(extra, extra_targets) if extra is not None else None,
    )
