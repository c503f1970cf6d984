"""The demo: the shipped heavy forecaster, its capture, and three students of a short record."""

import shutil
from pathlib import Path

import torch

import s2kd.pipeline as stages
from s2kd.core.hardware import hardware
from s2kd.core.recipe import Recipe
from s2kd.core.saved import METADATA, WEIGHTS, load_metadata
from s2kd.data.loading import read_record
from s2kd.data.write import write
from s2kd.deploy.export import model_card
from s2kd.deploy.forecast import forecast_file
from s2kd.deploy.metadata import student_metadata
from s2kd.evaluation.answer import Answer
from s2kd.evaluation.report import answer_of_run
from s2kd.pipeline.labelling import label
from s2kd.pipeline.recipes import demo as recipes
from s2kd.pipeline.run import Run

LATEST, FORECAST = "latest.nc", "forecast.nc"
STRIDE = 2
"""Frames from one window of the archive to the next."""
THREADS = 2
"""Of the heavy forecaster's training: sums of other numbers of threads differ in their last bit."""


def make_capture(run: Run) -> None:
    """The heavy forecaster's answers to a simulated archive, in the run's folder."""
    label(
        run.recipe.given,
        recipes.archive(run.recipe),
        out=run.recipe.captures[0].path,
        latents=True,
        stride=STRIDE,
        machine=run.machine,
        progress=run.progress,
    )


def run_demo(run: Run) -> Answer:
    """Capture, students, scores, report, ONNX file, and a forecast from the end of the record."""
    make_capture(run)
    stages.run_all(run)
    stages.export(run)
    latest = read_record(run.recipe.dataset).isel(time=slice(-run.recipe.past, None))
    write(latest.drop_vars(["run", "split"]), run.out / LATEST)
    forecast_file(run.out, run.out / LATEST, run.out / FORECAST)
    return answer_of_run(stages.read_scores(run.out))


def retrain_teacher(run: Run) -> Path:
    """Train the heavy forecaster of `recipes.heavy` anew; its folder, with a card.

    On the versions and number of threads that the card states, the weights are those of the
    package bit for bit.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    stages.train_students(run)
    torch.set_num_threads(threads)
    recipe, folder = run.recipe, run.out / "teacher"
    trained = stages.student_folder(run, recipe.students[0], recipe.methods[0], recipe.seeds[0])
    folder.mkdir(exist_ok=True)
    for name in (METADATA, WEIGHTS):
        shutil.copyfile(trained / name, folder / name)
    (folder / "README.md").write_text(card(folder, recipe), encoding="utf-8")
    return folder


def is_shipped(folder: Path, world: str) -> bool:
    """Whether a heavy forecaster has the weights of the one in the package, bit for bit."""
    shipped = recipes.shipped_teacher(world)
    return load_metadata(folder)["weights"] == load_metadata(shipped)["weights"]


def card(folder: Path, recipe: Recipe) -> str:
    """The model card, with what the forecaster was trained on and how to train it again."""
    training = recipe.student_training
    settings = {**recipe.dataset.params, "name": recipe.dataset.name}
    facts = {
        "simulated data": ", ".join(f"{name} {value}" for name, value in settings.items()),
        "training": f"{training.epochs} epochs, lr {training.lr:g}, batch {training.batch_size}, "
        f"seed {recipe.seeds[0]}, {THREADS} threads",
        "made by": f"s2kd demo --world {recipe.dataset.name} --retrain-teacher",
        "licence": "Apache-2.0",
    }
    metadata = student_metadata(folder) | {"student": recipe.name, "hardware": hardware()}
    return model_card({**metadata, "formats": {}, "facts": facts})
