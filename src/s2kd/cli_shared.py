"""What several files of verbs share: their common options, the recipe asked for, the run opened."""

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s2kd.core.console import first_process

if TYPE_CHECKING:
    from s2kd.core.recipe import Recipe
    from s2kd.pipeline.stages import Run

What = Annotated[
    str,
    typer.Argument(
        metavar="[RECIPE]",
        help="A built-in recipe, a recipe's JSON file, or a file of frames (NetCDF, Zarr, "
        "GRIB, .npy, .npz, HDF5). "
        "Not needed where --out already holds a run.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="The folder of the run.")]
Data = Annotated[str, typer.Option("--data", help="The folder that the recipe's files lie in.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change one field of the recipe, for example seeds=[42,43,44] or "
        "student_training.lr=3e-4.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Devices = Annotated[int, typer.Option("--devices", help="How many devices (or CPU processes).")]
Nodes = Annotated[int, typer.Option("--nodes", help="How many machines.")]
Accelerator = Annotated[str, typer.Option("--accelerator", help="auto, cpu, cuda or mps.")]
Precision = Annotated[
    str, typer.Option("--precision", help="32-true, bf16-mixed, … (Lightning Fabric's words).")
]
Strategy = Annotated[str, typer.Option("--strategy", help="auto, ddp, … (Lightning Fabric's).")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write its event files.")]
SaveEvery = Annotated[
    float, typer.Option("--save-every", help="Seconds from one saved state to the next; 0: always.")
]
World = Annotated[str, typer.Option("--world", help="The demo's world: atmosphere or plume.")]
Preset = Annotated[str, typer.Option("--preset", help="A benchmark's size: paper or small.")]


def recipe_of(
    what: str,
    out: Path,
    data: str,
    world: str,
    preset: str,
    settings: Sequence[str] | None,
    *,
    show: bool = False,
) -> "Recipe":
    """A recipe by name, by JSON file, made for a gridded file, or the run folder's own.

    With `show`, what was made for a file is printed, as `settings` leave it. `data`, `world` and
    `preset` are a built-in recipe's; S2KDError where nothing would read them.
    """
    from s2kd.core.files import read_json
    from s2kd.core.recipe import Recipe
    from s2kd.core.types import S2KDError
    from s2kd.pipeline import recipes, stages

    made = False
    given = {"--data": data, "--world": world, "--preset": preset}
    if not what and not (out / "recipe.json").exists():
        raise S2KDError(f"{out}: holds no run yet, so say which recipe (`s2kd list recipes`)")
    if not what or (what not in recipes.names() and Path(what).exists()):
        _refuse_unread(given, what or str(out / "recipe.json"))
    if not what:
        found = stages.load_recipe(out)
    elif what.endswith(".json") and Path(what).is_file():
        plain = read_json(Path(what))
        if isinstance(plain, dict) and "recipe" in plain:  # as a run saves it
            plain = plain["recipe"]
        if plain is None:  # as describe says it of a file that none fits
            raise S2KDError(f"{what}: holds no recipe: what it describes suits none")
        found = Recipe.from_dict(plain, where=what)
    elif what in recipes.names():
        found = recipes.get(what, data=data, world=world, preset=preset)
    elif Path(what).exists():
        found, made = _for_file(Path(what)), True
    elif os.sep in what or Path(what).suffix:
        raise S2KDError(f"{what}: no such file")
    else:
        found = recipes.get(what)
    found = found.with_settings(settings or [])
    if made and show:
        print(f"The recipe made for {what}:", file=sys.stderr)
        print(json.dumps(found.to_dict(), indent=2), file=sys.stderr)
    return found


def _refuse_unread(given: Mapping[str, str], what: str) -> None:
    from s2kd.core.types import S2KDError

    for option, value in given.items():
        if value:
            raise S2KDError(
                f"{option} {value}: is an option of built-in recipes (`s2kd list recipes`) and "
                f"would not be read with {what}; change fields of a recipe with --set"
            )


def _for_file(path: Path) -> "Recipe":
    from s2kd.core.types import S2KDError
    from s2kd.data import describe
    from s2kd.pipeline import recipes

    recipe = recipes.for_description(describe.describe(path))
    if recipe is None:
        looked = shlex.join(["s2kd", "data", "describe", str(path)])
        raise S2KDError(f"{path}: no recipe fits it; `{looked}` says what it holds")
    return recipe


def work_on(
    recipe: "Recipe",
    out: Path,
    stage: Callable[["Run"], object],
    *,
    quiet: bool = False,
    machine: Any = None,
    save_every: float = 20.0,
) -> None:
    """Open the run, hold its folder, do the stage."""
    from s2kd.core import console
    from s2kd.pipeline import stages

    quiet = quiet or not first_process()
    processes = machine.devices * machine.nodes if machine is not None else 1
    with stages.locked(out, processes), console.shown(quiet=quiet) as shown:
        more = {"machine": machine} if machine is not None else {}
        more["save_seconds"] = save_every
        run = stages.open_run(recipe, out, report=shown.report, say=shown.say, **more)
        stage(run)
