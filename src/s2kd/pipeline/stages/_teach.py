"""Stage 1: the teachers (eq. 13)."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from msgspec import to_builtins

from s2kd.models.checkpoint import build_teacher, card_of, model_key
from s2kd.pipeline.stages._run import Run
from s2kd.pipeline.stages._training import (
    begin,
    finish,
    inputs,
    is_finished,
    learn,
    outcome,
    read_by,
    shape,
)
from s2kd.training.objectives import Forecasting


def teacher_folder(run: Run, kind: str, seed: int) -> Path:
    """Where the teacher of this kind and seed lies."""
    return run.out / "teachers" / f"{kind}-seed{seed}"


def train_teachers(run: Run, *, seeds: Sequence[int] = ()) -> None:
    """Stage 1: every teacher that the methods learn from, for these seeds or all (eq. 13)."""
    for seed in seeds or run.recipe.seeds:
        for kind in run.kinds:
            train_teacher(run, kind, seed)


def teacher_key(run: Run, kind: str, seed: int) -> str:
    """A name for exactly this teacher: two of the same key have the same weights."""
    texts = [states.key for states in read_by(run, kind).values() if states is not None]
    return model_key(
        **inputs(run),
        teacher=to_builtins(run.recipe.teacher),
        training=to_builtins(run.recipe.teacher_training),
        seed=seed,
        text=texts or None,
    )


def borrow_teacher(run: Run, kind: str, seed: int, folders: Iterable[Path]) -> None:
    """Copy this very teacher from the first of these folders that holds it, if any does."""
    folder, key = teacher_folder(run, kind, seed), teacher_key(run, kind, seed)
    there = [one for one in folders if one != folder and is_finished(one, key)]
    if there and not folder.exists():
        beside = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(there[0], beside)
        beside.rename(folder)


def train_teacher(run: Run, kind: str, seed: int) -> None:
    """One teacher; `blind` is the same one without the alignment and the words."""
    recipe, folder, reads = run.recipe, teacher_folder(run, kind, seed), kind == "text"
    states = read_by(run, kind)
    key = teacher_key(run, kind, seed)
    if is_finished(folder, key):
        return
    begin(run, folder, key)
    torch.manual_seed(seed)
    width = run.states("train").width if reads else 1
    teacher = build_teacher(
        recipe.teacher,
        **shape(run),
        text_width=width,
        reads=reads,
    ).to(memory_format=torch.channels_last)
    train = run.windows("train", device=run.fabric.device)
    objective = Forecasting(teacher, train, states["train"])
    history = learn(run, objective, folder, seed, recipe.teacher_training, states["val"])
    card = card_of(
        "teacher",
        recipe.teacher,
        **shape(run),
        text_width=width,
        reads=reads,
        key=key,
        name=recipe.name,
        seed=seed,
        narrator=recipe.narrator.name if reads else "none",
        fingerprint=run.dataset.fingerprint,
        recipe=recipe.to_dict(),
        **outcome(history),
    )
    finish(run, folder, teacher, card)
