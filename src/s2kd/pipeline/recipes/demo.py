"""Recipes of the demo: a short record, and the heavy forecaster of many simulated years."""

from pathlib import Path

from msgspec.structs import replace

from s2kd.core.recipe import Part, Recipe, Stored, method_named
from s2kd.core.types import S2KDError
from s2kd.pipeline.recipes import BASELINE, METHODS, builtin
from s2kd.pipeline.recipes.standins import small_training, wide_teacher
from s2kd.pipeline.search_methods import search_methods

RECORD = {
    "atmosphere": {
        "members": 3,
        "days": 50,
        "step_hours": 12,
        "height": 24,
        "width": 48,
        "seed": 1,
    },
    "plume": {
        "heat_release": [150],
        "wind": [0.75],
        "unseen_heat_release": [],
        "unseen_wind": [],
        "members": 3,
        "frames": 40,
        "height": 24,
        "width": 48,
        "cell": 0.33,
        "seed": 1,
    },
}
"""Settings of the worlds' readers: one run each to train, validate and test on."""

YEARS = {
    "atmosphere": {"members": 20, "seed": 1000},
    "plume": {"members": 30, "frames": 80, "seed": 1000},
}
"""Changes of `RECORD`: what the heavy forecaster was trained on."""

ARCHIVE = {
    "atmosphere": {"members": 12},
    "plume": {"members": 14, "frames": 60},
}
"""Changes of `RECORD`: the inputs of the heavy forecaster's capture."""

WIDTH = {"atmosphere": 6, "plume": 8}
"""Of the students, U-Nets."""

TRAINING = {"atmosphere": small_training(40), "plume": small_training(120, lr=5e-3)}
"""Of the students, chosen on validation data (docs/log.md)."""

ARCHIVE_SEED = 2000
"""Added to the record's seed."""

CAPTURE = "capture.zarr"
"""The label store of the archive, in the run folder."""


@builtin
def demo(*, world: str = "atmosphere") -> Recipe:
    """No download: a short record of a simulated atmosphere, or plume (--world plume)."""
    if world not in RECORD:
        raise S2KDError(f"recipe 'demo': world must be one of {tuple(RECORD)}, got {world!r}")
    return Recipe(
        name=f"demo-{world}",
        dataset=Part(name=world, params=RECORD[world]),
        past=4,
        lead=4,
        predict="change",
        teacher=wide_teacher(unet=16),
        students=(Part(name="unet", params={"width": WIDTH[world]}),),
        methods=METHODS,
        teacher_training=small_training(12),
        student_training=replace(TRAINING[world], batch_size=8),
    )


def taught(world: str, folder: Path) -> Recipe:
    """The recipe of the verb: no teacher, S²-KD as published, and the default of `distill`.

    The heavy forecaster teaches both; the label store of its archive lies in `folder`.
    """
    published = replace(method_named("s2kd"), teacher="given")
    default, *_ = search_methods("given", captures=True, latents=True)
    return replace(
        demo(world=world),
        methods=(BASELINE, published, default),
        given=str(shipped_teacher(world)),
        captures=(Stored(path=str(folder / CAPTURE)),),
    )


def archive(recipe: Recipe) -> Recipe:
    """The demo's recipe with the inputs of the capture in place of the record."""
    seed = ARCHIVE_SEED + recipe.dataset.params["seed"]
    return _changed(recipe, {**ARCHIVE[recipe.dataset.name], "seed": seed})


def heavy(world: str) -> Recipe:
    """The training of the heavy forecaster: a wider U-Net without a teacher."""
    return replace(
        _changed(demo(world=world), YEARS[world]),
        name=f"demo-{world}-teacher",
        students=(Part(name="unet", params={"width": 16}),),
        methods=(BASELINE,),
        student_training=small_training(8),
    )


def shipped_teacher(world: str) -> Path:
    """The folder of the heavy forecaster that comes with the package."""
    return Path(__file__).parent.parent / "demo" / world


def _changed(recipe: Recipe, params: dict) -> Recipe:
    dataset = Part(name=recipe.dataset.name, params={**recipe.dataset.params, **params})
    return replace(recipe, dataset=dataset)
