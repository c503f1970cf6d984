"""Stage 2: the students (eq. 14)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins

from s2kd.core.recipe import Method, Part
from s2kd.data.prepared import origin
from s2kd.models.checkpoint import build_student, card_of, model_key
from s2kd.models.forecasters import Student
from s2kd.pipeline.stages._label import blends_of, make_targets, teacher_card
from s2kd.pipeline.stages._models import check_relations
from s2kd.pipeline.stages._open import compared
from s2kd.pipeline.stages._run import Run
from s2kd.pipeline.stages._training import begin, finish, inputs, is_finished, learn, outcome, shape
from s2kd.training.blends import Blends
from s2kd.training.losses import losses
from s2kd.training.objectives import Distilling, Forecasting, Weighted
from s2kd.training.targets import LiveTargets, StoredTargets


def student_folder(run: Run, student: Part, method: Method, seed: int) -> Path:
    """Where this student lies."""
    return run.out / "students" / f"{student.name}-{method.name}-seed{seed}"


def distill(run: Run, *, seeds: Sequence[int] = ()) -> None:
    """Stage 2: every student by every method, for these seeds or all (eq. 14)."""
    for seed in seeds or run.recipe.seeds:
        for method in run.recipe.methods:
            for student in run.recipe.students:
                distill_one(run, student, method, seed)


def distill_one(
    run: Run, part: Part, method: Method, seed: int, *, folder: Path | None = None
) -> None:
    """One student by one method, in `folder` or where a run has its students."""
    recipe, folder = run.recipe, folder or student_folder(run, part, method, seed)
    teacher = teacher_card(run, method.teacher, seed)
    key = model_key(
        **inputs(run),
        student=to_builtins(part),
        method=to_builtins(method),
        training=to_builtins(recipe.student_training),
        seed=seed,
        teacher=teacher["weights"] if teacher else None,
    )
    if is_finished(folder, key):
        return
    live = "stages" in compared(method)
    targets = make_targets(run, method.teacher, seed, live=live) if teacher else None
    blends = blends_of(run, method, seed)
    labelled = (
        make_targets(run, method.teacher, seed, live=live, blends=blends)
        if teacher and blends
        else None
    )
    begin(run, folder, key)
    torch.manual_seed(seed)
    student = build_student(
        part,
        **shape(run),
    ).to(memory_format=torch.channels_last)
    objective = student_objective(run, student, method, targets, teacher, blends, labelled)
    history = learn(run, objective, folder, seed, recipe.student_training, None, method.hint_epochs)
    card = card_of(
        "student",
        part,
        **shape(run),
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
    finish(run, folder, student, card)


def _origin(part: Part) -> dict[str, Any] | None:
    """What prepared data were made of: whose files a student of them can forecast from."""
    return origin(part.params["path"]) if part.name == "prepared" else None


def student_objective(
    run: Run,
    student: Student,
    method: Method,
    targets: StoredTargets | LiveTargets | None,
    teacher: dict[str, Any] | None,
    blends: Blends | None = None,
    labelled: StoredTargets | LiveTargets | None = None,
) -> Forecasting | Distilling:
    """What this method minimises; `labelled` is what the teacher says of the `blends`."""
    windows = run.windows("train", device=run.fabric.device)
    if targets is None or teacher is None:
        return Forecasting(student, windows, None, blends=blends)
    check_relations(run, method)
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
        targets,
        terms,
        teacher_width=teacher["part"]["width"],
        weight=method.weight,
        blends=(blends, labelled) if blends is not None else None,
    )
