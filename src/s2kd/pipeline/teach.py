"""Stage `teach`: the teachers (eq. 13)."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import to_builtins

from s2kd.core.files import seal
from s2kd.core.recipe import Training
from s2kd.models.checkpoint import (
    build_teacher,
    metadata_of,
    save_model,
)
from s2kd.models.forecasters import Student, Teacher
from s2kd.narration.text.states import TextStates
from s2kd.pipeline.kept import is_kept, kept
from s2kd.pipeline.run import Run
from s2kd.training.loop import fit, validation_error
from s2kd.training.objectives import Distilling, Forecasting


def teacher_folder(run: Run, kind: str, seed: int) -> Path:
    """The folder of the teacher of this kind (`text` or `no_text`) and seed."""
    return run.out / "teachers" / f"{kind}-seed{seed}"


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
        on_epoch=run.on_epoch,
    )


def save(run: Run, folder: Path, model: Student | Teacher, metadata: dict[str, Any]) -> None:
    """Write the model and remove the work in progress."""

    def write() -> None:
        save_model(folder, model, metadata)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        seal(folder / "log.jsonl")

    run.first_only(write)


def outcome(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Number of epochs, the best one by validation, and its error."""
    best = min((row for row in history if not row.get("hint")), key=lambda row: row["val"])
    return {"epochs": len(history), "best_epoch": best["epoch"], "validation": best["val"]}
