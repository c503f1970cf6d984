"""What frozen teachers, or somebody's stored forecasts, say of the training windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from s2kd.core.files import digest, read_json
from s2kd.core.recipe import Method
from s2kd.models.checkpoint import load_card, load_teacher
from s2kd.models.normaliser import Normaliser
from s2kd.pipeline.stages._run import Run
from s2kd.pipeline.stages._teach import teacher_folder
from s2kd.training.blends import Blends
from s2kd.training.stored import StoredForecasts, store_forecasts
from s2kd.training.targets import LiveTargets, StoredTargets, store_targets


def make_targets(
    run: Run, kind: str, seed: int, *, live: bool = False, blends: Blends | None = None
) -> StoredTargets | LiveTargets:
    """What this teacher says of every training window, or of their `blends`, stored once.

    Where the store would be larger than the machine's budget, or with `live`, the teacher
    answers live: features of several stages are not stored.
    """
    if kind == "stored":
        return StoredTargets(run.out / "targets" / "stored")
    name = f"{kind}-seed{seed}" + (f"-blends{blends.copies}" if blends is not None else "")
    folder = run.out / "targets" / name
    teacher, card = load_teacher(teacher_folder(run, kind, seed))
    windows = blends or run.windows("train", device=run.fabric.device)
    teacher = teacher.to(run.fabric.device)
    states = run.states("train") if teacher.reads else None
    frames = run.recipe.lead * len(run.dataset.grid.channels)
    cells = int(np.prod(teacher.latent_grid))
    size = run.dataset.grid.height * run.dataset.grid.width * frames + teacher.latent_width * cells
    if live or len(windows) * size * 2 > run.machine.target_gigabytes * 2**30:
        return LiveTargets(teacher, windows, states)
    drawn = [blends.copies, blends.seed] if blends is not None else None
    key = digest([card["weights"], card["key"], states.key if states else None, drawn])
    told = run.report(f"targets {folder.name}")
    run.first_only(
        lambda: store_targets(
            folder,
            teacher,
            windows,
            states,
            key=key,
            progress=lambda done, total: told(done, total, ""),
        )
    )
    return StoredTargets(folder)


def blends_of(run: Run, method: Method, seed: int) -> Blends | None:
    """The blended windows that this method learns from besides, if any."""
    if not method.blends:
        return None
    windows = run.windows("train", device=run.fabric.device)
    return Blends(windows, copies=method.blends, seed=seed)


def label(run: Run, kind: str, seed: int, methods: Sequence[Method]) -> None:
    """Store all that this teacher says for these methods, before any two learn side by side."""
    make_targets(run, kind, seed)
    learners = (method for method in methods if method.teacher == kind)
    for method in {one.blends: one for one in learners if one.blends}.values():
        make_targets(run, kind, seed, blends=blends_of(run, method, seed))


def copy_stored(run: Run) -> dict[str, Any]:
    """Somebody's forecasts of every training window into `targets/stored`; what a card would say.

    Only the fields that distilling reads of a teacher's card: the identity of what it says, and
    the width of its latent.
    """
    forecasts = StoredForecasts(run.recipe.stored, run.windows("train"))
    folder, told = run.out / "targets" / "stored", run.report("targets stored")
    normaliser = Normaliser.from_statistics(
        run.known, kind=run.recipe.normalise, predict=run.recipe.predict
    )
    run.first_only(
        lambda: store_forecasts(
            folder, forecasts, normaliser, progress=lambda done, total: told(done, total, "")
        )
    )
    content = read_json(folder / "key.json")["content"]
    return {"weights": content, "part": {"width": forecasts.latent_width or 0}}


def teacher_card(run: Run, kind: str, seed: int) -> dict[str, Any] | None:
    """What is written about the teacher that a method learns from."""
    if kind == "none":
        return None
    return copy_stored(run) if kind == "stored" else load_card(teacher_folder(run, kind, seed))
