"""Stage `teach`: the teachers (eq. 13), and their outputs on the training windows."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from msgspec import to_builtins

from s2kd.core.files import read_json
from s2kd.core.recipe import Method, Training
from s2kd.models.checkpoint import (
    build_teacher,
    load_metadata,
    load_teacher,
    metadata_of,
    save_model,
)
from s2kd.models.forecasters import Student, Teacher
from s2kd.narration.text.states import TextStates
from s2kd.pipeline.kept import existing_folder, is_kept, kept
from s2kd.pipeline.run import Run
from s2kd.training.blends import Blends
from s2kd.training.loop import fit, validation_error
from s2kd.training.objectives import Distilling, Forecasting
from s2kd.training.stored import StoredForecasts, store_forecasts
from s2kd.training.targets import LiveTargets, StoredTargets, store_targets


def teacher_folder(run: Run, kind: str, seed: int) -> Path:
    """The folder of the teacher of this kind (`text` or `no_text`) and seed."""
    return existing_folder(run.out / "teachers" / f"{kind}-seed{seed}")


def train_teachers(run: Run, *, seeds: Sequence[int] = ()) -> None:
    """Every teacher that the methods learn from, for these seeds or all (eq. 13)."""
    for seed in seeds or run.recipe.seeds:
        for kind in run.teacher_kinds:
            train_teacher(run, kind, seed)


def train_teacher(run: Run, kind: str, seed: int) -> None:
    """One teacher; `no_text` is the same network without alignment and narratives."""
    recipe, folder, reads = run.recipe, teacher_folder(run, kind, seed), kind == "text"
    inputs = teacher_inputs(run, kind, seed)

    def train(key: str) -> None:
        torch.manual_seed(seed)
        states = _states(run, kind)
        width = run.states("train").width if reads else 1
        teacher = build_teacher(recipe.teacher, run.setting, text_width=width, reads=reads).to(
            memory_format=torch.channels_last
        )
        windows = run.windows("train", device=run.fabric.device)
        objective = Forecasting(teacher, windows, states["train"])
        history = learn(run, objective, folder, seed, recipe.teacher_training, states["val"])
        metadata = metadata_of(
            "teacher",
            recipe.teacher,
            run.setting,
            text_width=width,
            reads=reads,
            key=key,
            name=recipe.name,
            seed=seed,
            narrator=recipe.narrator.name if reads else "none",
            text=to_builtins(recipe.text) if reads else None,
            fingerprint=run.dataset.fingerprint,
            recipe=recipe.to_dict(),
            **outcome(history),
        )
        save(run, folder, teacher, metadata)

    kept(folder, inputs, train, first_only=run.first_only, say=run.say)


def teacher_inputs(run: Run, kind: str, seed: int) -> dict[str, Any]:
    """Everything that the weights of this teacher depend on."""
    state_keys = [states.key for states in _states(run, kind).values() if states is not None]
    return {
        **run.model_inputs,
        "teacher": to_builtins(run.recipe.teacher),
        "training": to_builtins(run.recipe.teacher_training),
        "seed": seed,
        "text": state_keys or None,
    }


def _states(run: Run, kind: str) -> dict[str, TextStates | None]:
    """Token states of training and validation for a teacher that reads; None for the other."""
    return {split: run.states(split) if kind == "text" else None for split in ("train", "val")}


def copy_teacher(run: Run, kind: str, seed: int, folders: Iterable[Path]) -> None:
    """Copy this very teacher from the first of these folders that holds it, if any does."""
    folder, inputs = teacher_folder(run, kind, seed), teacher_inputs(run, kind, seed)
    copies = [path for path in folders if path != folder and is_kept(path, inputs)]
    if copies and not folder.exists():
        copy = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(copies[0], copy)
        copy.rename(folder)


# --- training, of teachers and students ----------------------------------------------------------


def learn(
    run: Run,
    objective: Forecasting | Distilling,
    folder: Path,
    seed: int,
    training: Training,
    val_states: TextStates | None = None,
    hint_epochs: int = 0,
) -> list[dict[str, Any]]:
    """The training loop on this run's machine and validation split; one row per epoch."""
    val = run.windows("val", device=run.fabric.device)
    return fit(
        objective,
        count=len(run.windows("train")),
        validate=lambda: validation_error(objective.model, val, val_states, run.fabric),
        training=training,
        seed=seed,
        folder=folder,
        fabric=run.fabric,
        hint_epochs=hint_epochs,
        progress=run.progress(f"train {folder.name}") if run.fabric.is_global_zero else None,
        save_seconds=run.save_seconds,
        tensorboard=run.machine.tensorboard,
    )


def save(run: Run, folder: Path, model: Student | Teacher, metadata: dict[str, Any]) -> None:
    """Write the model and remove the work in progress."""

    def write() -> None:
        save_model(folder, model, metadata)
        (folder / "checkpoint.pt").unlink(missing_ok=True)

    run.first_only(write)


def outcome(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Number of epochs, the best one by validation, and its error."""
    best = min((row for row in history if not row.get("hint")), key=lambda row: row["val"])
    return {"epochs": len(history), "best_epoch": best["epoch"], "validation": best["val"]}


# --- teacher outputs -----------------------------------------------------------------------------


def make_targets(
    run: Run, kind: str, seed: int, *, live: bool = False, blends: Blends | None = None
) -> StoredTargets | LiveTargets:
    """Outputs of this teacher for every training window, or for their `blends`, stored once.

    With `live`, or where the store would exceed the machine's budget, the teacher runs with the
    student: feature pyramids are not stored.
    """
    if kind == "stored":
        return StoredTargets(run.out / "targets" / "stored")
    suffix = f"-blends{blends.copies}" if blends is not None else ""
    folder = existing_folder(run.out / "targets" / f"{kind}-seed{seed}{suffix}")
    teacher, metadata = load_teacher(teacher_folder(run, kind, seed))
    windows = blends or run.windows("train", device=run.fabric.device)
    teacher = teacher.to(run.fabric.device)
    states = run.states("train") if teacher.reads else None
    grid = run.dataset.grid
    values = run.recipe.lead * len(grid.channels) * grid.height * grid.width
    values += teacher.latent_width * int(np.prod(teacher.latent_grid))
    if live or len(windows) * values * 2 > run.machine.target_gigabytes * 2**30:
        return LiveTargets(teacher, windows, states)
    blend_inputs = [blends.copies, blends.seed] if blends is not None else None
    inputs = [metadata["weights"], metadata["key"], states.key if states else None, blend_inputs]
    progress = run.progress(f"targets {folder.name}")

    def store(key: str) -> None:
        def write() -> None:
            with FileLock(folder.with_name(f".{folder.name}.lock")):  # of two jobs of a queue
                store_targets(folder, teacher, windows, states, key=key, progress=progress)

        run.first_only(write)

    kept(folder, inputs, store, first_only=run.first_only, say=run.say)
    return StoredTargets(folder)


def blends_of(run: Run, method: Method, seed: int) -> Blends | None:
    """The blended windows that this method also learns from, if any."""
    if not method.blends:
        return None
    windows = run.windows("train", device=run.fabric.device)
    return Blends(windows, copies=method.blends, seed=seed)


def store_teacher_outputs(run: Run, kind: str, seed: int, methods: Sequence[Method]) -> None:
    """Store this teacher's outputs for all of these methods, before students train in parallel."""
    make_targets(run, kind, seed)
    by_blends = {method.blends: method for method in methods if method.teacher == kind}
    for count, method in by_blends.items():
        if count:
            make_targets(run, kind, seed, blends=blends_of(run, method, seed))


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
    content = read_json(folder / "key.json")["content"]
    return {"weights": content, "part": {"width": forecasts.latent_width or 0}}


def teacher_metadata(run: Run, kind: str, seed: int) -> dict[str, Any] | None:
    """The metadata of the teacher that a method learns from; None without a teacher."""
    if kind == "none":
        return None
    return copy_stored(run) if kind == "stored" else load_metadata(teacher_folder(run, kind, seed))
