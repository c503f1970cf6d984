"""What every training shares: the key of its inputs, the loop, a folder begun and finished."""

import shutil
from pathlib import Path
from typing import Any

import s2kd
from s2kd.core.files import read_json, write_json
from s2kd.models.checkpoint import load_card, save_model
from s2kd.models.forecasters import Student, Teacher
from s2kd.narration.text.states import TextStates
from s2kd.pipeline.stages._run import Run
from s2kd.training.objectives import Distilling, Forecasting
from s2kd.training.train import fit, validation_error


def inputs(run: Run) -> dict[str, Any]:
    """What every model of a run depends on."""
    recipe = run.recipe
    names = ("past", "lead", "stride", "normalise", "predict")
    return {
        "data": run.dataset.fingerprint,
        "version": s2kd.__version__,
        **{name: getattr(recipe, name) for name in names},
    }


def shape(run: Run) -> dict[str, Any]:
    """What a model must be made for: grid, frames, units."""
    recipe = run.recipe
    names = ("past", "lead", "normalise", "predict")
    settings = {name: getattr(recipe, name) for name in names}
    return {"grid": run.dataset.grid, "known": run.known, **settings}


def read_by(run: Run, kind: str) -> dict[str, TextStates | None]:
    """The token states of training and validation that a teacher of this kind reads."""
    return {s: run.states(s) if kind == "text" else None for s in ("train", "val")}


def learn(
    run: Run,
    objective: Forecasting | Distilling,
    folder: Path,
    seed: int,
    training: Any,
    states: TextStates | None,
    hint_epochs: int = 0,
) -> list[dict[str, Any]]:
    """The loop, with this run's machine and validation split."""
    val = run.windows("val", device=run.fabric.device)
    return fit(
        objective,
        count=len(run.windows("train")),
        validate=lambda: validation_error(objective.model, val, states, run.fabric),
        training=training,
        seed=seed,
        folder=folder,
        fabric=run.fabric,
        hint_epochs=hint_epochs,
        progress=run.report(f"train {folder.name}") if run.fabric.is_global_zero else None,
        save_seconds=run.save_seconds,
        tensorboard=run.machine.tensorboard,
    )


def is_finished(folder: Path, key: str) -> bool:
    """Whether the model that this key names is already there."""
    return (folder / "model.json").exists() and load_card(folder).get("key") == key


def begin(run: Run, folder: Path, key: str) -> None:
    """An empty folder, or the one in which this very training was interrupted.

    What was trained there from other inputs is kept elsewhere (`put_aside`).
    """

    def ready() -> None:
        note = folder / "training.json"
        if folder.exists() and not (note.exists() and read_json(note).get("key") == key):
            put_aside(run, folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(note, {"key": key})

    run.first_only(ready)


def put_aside(run: Run, folder: Path) -> None:
    """Move a model, or its checkpoint, to `before/<name>-<n>` and say so; delete what has neither.

    Training takes hours, and a changed file or version may be a mistake.
    """
    if not any((folder / name).exists() for name in ("model.json", "checkpoint.pt")):
        shutil.rmtree(folder)
        return
    before = folder.parent.parent / "before"  # not beside it: there every folder is in use
    before.mkdir(exist_ok=True)
    number = 1
    while (aside := before / f"{folder.name}-{number}").exists():
        number += 1
    folder.rename(aside)
    run.say(
        f"{folder.name} was trained from other data, settings or teacher, or by another version: "
        f"it is trained again, and what was there is kept in {aside}"
    )


def finish(run: Run, folder: Path, model: Student | Teacher, card: dict[str, Any]) -> None:
    """The model with its card, and nothing of the work in progress."""

    def write() -> None:
        save_model(folder, model, card)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        (folder / "training.json").unlink(missing_ok=True)

    run.first_only(write)


def outcome(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a card: how long it learned, and its best epoch by validation."""
    best = min((r for r in history if not r.get("hint")), key=lambda r: r["val"])
    return {"epochs": len(history), "best_epoch": best["epoch"], "validation": best["val"]}
