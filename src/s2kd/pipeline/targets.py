"""What students match: a teacher's outputs on own and extra windows, stored once or live."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from s2kd.core.recipe import Method, Part
from s2kd.core.saved import load_metadata
from s2kd.models.checkpoint import load_teacher
from s2kd.pipeline.checks import compared_views, parts_of
from s2kd.pipeline.kept import kept
from s2kd.pipeline.run import Run
from s2kd.pipeline.teach import teacher_folder
from s2kd.training.extra import ExtraWindows, Material, StoredInputs, extra_windows
from s2kd.training.extra.mixture import Mixture, MixtureTargets
from s2kd.training.labels import Labels, is_labels
from s2kd.training.objectives import Targets
from s2kd.training.stored import StoredForecasts, store_forecasts, stored_content
from s2kd.training.targets import (
    FORMAT,
    AnyTeacher,
    ForecastsOnly,
    LiveTargets,
    StoredTargets,
    extent_note,
    fill_store,
    store_targets,
    views_of,
)

ASKED = ("text", "no_text", "given")
"""Kinds of teacher that answer any window."""


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What a method's student matches besides the truth: targets, extra windows with theirs.

    `teacher_width` is the number of features of the latents that are compared.
    """

    targets: Targets | None = None
    extra: ExtraWindows | None = None
    extra_targets: Targets | None = None
    teacher_width: int = 0


def supervision_of(
    run: Run, method: Method, seed: int, teacher: dict[str, Any] | None
) -> Supervision:
    """Targets and extra windows of a method whose teacher has this metadata."""
    live = "feature_pyramid" in compared_views(method)
    targets = make_targets(run, method.teacher, seed, live=live) if teacher else None
    extra = extra_targets = None
    if method.extra is not None:
        extra, extra_targets = make_extra(run, method, seed, live=live)
    width = teacher["part"]["width"] if teacher else 0
    if uses_captures(method) and not _is_captures_teacher(run, method.teacher):
        targets = None if targets is None else ForecastsOnly(targets)
        latent = extra_targets.gather(torch.zeros(1, dtype=torch.long), "cpu").latent
        width = 0 if latent is None else latent.shape[1]
    return Supervision(
        targets=targets, extra=extra, extra_targets=extra_targets, teacher_width=width
    )


def uses_captures(method: Method) -> bool:
    """Whether the extra windows of a method are, in part, those of the recipe's captures."""
    return any("captures" in extra_windows.get(part.name).reads for part in parts_of(method))


def _is_captures_teacher(run: Run, kind: str) -> bool:
    """Whether this teacher is the one that answered all captures, so that latents are alike."""
    digest = None
    if kind == "given":
        digest = run.given_teacher.digest
    elif kind == "stored" and is_labels(Path(run.recipe.stored.path)):
        digest = Labels.open(run.recipe.stored.path).teacher["digest"]
    return {labels.teacher["digest"] for labels in run.captures} == {digest}


def extra_inputs(run: Run, method: Method) -> dict[str, Any]:
    """What a student's weights depend on through extra windows, besides what `key_form` says."""
    parts = parts_of(method)
    reads = {field for part in parts for field in extra_windows.get(part.name).reads}
    settings = [extra_windows.resolved(part.name, part.params) for part in parts]
    if all(part.name == "blends" for part in parts):
        return {}
    return {
        "extra": settings,
        "captures": [labels.digest for labels in run.captures] if "captures" in reads else [],
        "unlabelled": (
            [windows.dataset.fingerprint for windows in run.unlabelled]
            if "unlabelled" in reads
            else []
        ),
    }


# --- a teacher's outputs -------------------------------------------------------------------------


def teacher_metadata(run: Run, kind: str, seed: int) -> dict[str, Any] | None:
    """The metadata of the teacher that a method learns from; None without a teacher."""
    match kind:
        case "none":
            return None
        case "stored":
            return copy_stored(run)
        case "given":
            teacher = run.given_teacher
            return {"weights": teacher.digest, "part": {"width": teacher.latent_width or 0}}
    return load_metadata(teacher_folder(run, kind, seed))


def _opened(run: Run, kind: str, seed: int) -> tuple[AnyTeacher, list[str | None]]:
    """A teacher that answers any window, on the run's device, and what its answers depend on."""
    if kind == "given":
        teacher = run.given_teacher
        return teacher.to(run.fabric.device), [teacher.digest, None]
    teacher, metadata = load_teacher(teacher_folder(run, kind, seed))
    return teacher.to(run.fabric.device), [metadata["weights"], metadata["key"]]


def make_targets(
    run: Run, kind: str, seed: int, *, live: bool = False, extra: ExtraWindows | None = None
) -> StoredTargets | LiveTargets:
    """Outputs of this teacher for every training window, or for these `extra` ones, stored once.

    With `live`, or where the store would exceed the machine's budget, the teacher runs with the
    student: feature pyramids are not stored.
    """
    if kind == "stored":
        return StoredTargets(run.out / "targets" / "stored")
    suffix = "" if extra is None else f"-{extra.name}"
    folder = run.out / "targets" / f"{kind}-seed{seed}{suffix}"
    teacher, inputs = _opened(run, kind, seed)
    windows = extra or run.windows("train", device=run.fabric.device)
    states = run.states("train") if teacher.reads else None
    recipe, grid = run.recipe, run.dataset.grid
    frame = len(grid.channels) * grid.height * grid.width
    size = 2 * recipe.lead * frame
    if teacher.latent_width is not None:
        size += 2 * teacher.latent_width * int(np.prod(teacher.latent_grid))
    views = views_of(teacher)
    if extra is not None and extra.stores_inputs:
        size, views = size + 4 * recipe.past * frame, (*views, "past")
    if live or len(windows) * size > run.machine.target_gigabytes * 2**30:
        return LiveTargets(teacher, windows, states)
    inputs += [states.key if states else None, None if extra is None else extra.key]
    progress = run.progress(f"targets {folder.name}")
    return _store(
        run,
        folder,
        inputs,
        lambda key: store_targets(
            folder, teacher, windows, states, key=key, views=views, progress=progress
        ),
    )


def _store(run: Run, folder: Path, inputs: Any, write: Callable[[str], None]) -> StoredTargets:
    """The store in `folder`, written by the first process unless it is that of these inputs."""

    def store(key: str) -> None:
        def locked() -> None:
            with FileLock(folder.with_name(f".{folder.name}.lock")):  # of two jobs of a queue
                write(key)

        run.first_only(locked)

    kept(folder, [FORMAT, inputs], store, first_only=run.first_only, say=run.say)
    return StoredTargets(folder)


def store_teacher_outputs(run: Run, kind: str, seed: int, methods: Sequence[Method]) -> None:
    """Store what these methods read of this teacher, before students train in parallel.

    The `kind` may be `none`, for methods that learn from captures alone.
    """
    if kind != "none":
        make_targets(run, kind, seed)
    for method in methods:
        if method.teacher == kind and method.extra is not None and method.terms:
            make_extra(run, method, seed)


def copy_stored(run: Run) -> dict[str, Any]:
    """Copy the recipe's stored forecasts of every training window into `targets/stored`.

    Returns the part of a teacher's metadata that distilling reads: a digest of the content, and
    the width of the latent.
    """
    forecasts = StoredForecasts(run.recipe.stored, run.windows("train"))
    folder = run.out / "targets" / "stored"
    progress = run.progress("targets stored")
    run.first_only(
        lambda: store_forecasts(folder, forecasts, run.setting.normaliser, progress=progress)
    )
    return {"weights": stored_content(folder), "part": {"width": forecasts.latent_width or 0}}


# --- extra windows -------------------------------------------------------------------------------


def make_extra(
    run: Run, method: Method, seed: int, *, live: bool = False
) -> tuple[ExtraWindows, Targets | None]:
    """The extra windows of a method, and their targets: the teacher's outputs or their own."""
    part = build_extra(run, method.extra, method.teacher, seed)
    if not method.terms:
        return part, None
    return _with_targets(run, part, method.teacher, seed, live)


def build_extra(run: Run, part: Part, kind: str, seed: int) -> ExtraWindows:
    """Extra windows by name and settings, for this kind of teacher."""
    reads = {field for each in parts_of(part) for field in extra_windows.get(each.name).reads}
    teacher = _opened(run, kind, seed)[0] if kind in ASKED else None
    material = Material(
        windows=run.windows("train", device=run.fabric.device),
        statistics=run.train_stats,
        normaliser=run.setting.normaliser,
        seed=seed,
        teacher=teacher,
        states=run.states("train") if kind == "text" else None,
        captures=run.captures if "captures" in reads else (),
        unlabelled=run.unlabelled if "unlabelled" in reads else (),
    )
    return extra_windows.build(part.name, material, **part.params)


def _with_targets(
    run: Run, part: ExtraWindows, kind: str, seed: int, live: bool
) -> tuple[ExtraWindows, Targets]:
    if isinstance(part, Mixture):
        pairs = [_with_targets(run, source, kind, seed, live) for source in part.sources]
        part.sources = [source for source, _ in pairs]
        return part, MixtureTargets(part.sizes, [targets for _, targets in pairs])
    if part.has_answers:
        targets = _copied(run, part) if part.stores_inputs else part.targets
    else:
        targets = make_targets(run, kind, seed, live=live, extra=part)
    if part.stores_inputs and isinstance(targets, StoredTargets):
        part = StoredInputs(part, targets)
    return part, targets


def _copied(run: Run, part: ExtraWindows) -> Targets:
    """Inputs and answers that a part brings, in a store that is read at random, in float32."""

    def block(index: torch.Tensor) -> dict[str, torch.Tensor]:
        target = part.targets.gather(index, "cpu")
        values = {"past": part.gather(index).past, "forecast": target.forecast}
        return values if target.latent is None else {**values, "latent": target.latent}

    first = block(torch.zeros(1, dtype=torch.long))
    size = sum(value.nbytes for value in first.values()) * len(part)
    if size > run.machine.target_gigabytes * 2**30:
        return part.targets
    folder = run.out / "targets" / part.name
    note = extent_note(part.targets.extent, run.dataset.grid)
    header = {"views": list(first), "windows": len(part), **note}
    progress = run.progress(f"targets {folder.name}")
    return _store(
        run,
        folder,
        part.key,
        lambda key: fill_store(folder, {"key": key, **header}, block, progress=progress),
    )
