"""Options that several verbs share, and the recipe and run folder that they name."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2kd.core.console import first_process

if TYPE_CHECKING:
    from s2kd.core.recipe import Recipe
    from s2kd.pipeline import Machine, Run

What = Annotated[
    str,
    typer.Argument(
        metavar="[RECIPE]",
        help="A built-in recipe, a recipe's JSON file, or a file of frames (NetCDF, Zarr, "
        "GRIB, .npy, .npz, HDF5). "
        "Not needed where --out already holds a run.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="The run folder.")]
Data = Annotated[str, typer.Option("--data", help="The folder of the recipe's files.")]
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
World = Annotated[str, typer.Option("--world", help="The demo's world: atmosphere or plume.")]
Preset = Annotated[str, typer.Option("--preset", help="A benchmark's size: paper or small.")]
Accelerator = Annotated[str, typer.Option("--accelerator", help="auto, cpu, cuda or mps.")]
Precision = Annotated[
    str, typer.Option("--precision", help="32-true, bf16-mixed, … (Lightning Fabric's names).")
]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A run's or a student's folder.")]
Student = Annotated[str, typer.Option("--student", help="Default: best validation.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Trainings in parallel.")]
Minutes = Annotated[
    float,
    typer.Option(
        "--minutes",
        min=0,
        help="Stop after so many minutes; the same command continues. 0: no limit.",
    ),
]


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
    """The recipe that `what` names, changed by `settings`.

    Parameters
    ----------
    what
        A built-in recipe, a JSON file, a gridded file, or empty for the recipe of `out`.
    out
        The run folder.
    data, world, preset
        Settings of a built-in recipe; refused where nothing would read them.
    settings
        Changes `path=value`.
    show
        Whether a recipe made for a gridded file is printed on standard error.
    """
    from s2kd import pipeline
    from s2kd.core.errors import S2KDError
    from s2kd.core.recipe import Recipe
    from s2kd.pipeline import recipes

    if not what and not (out / "recipe.json").exists():
        raise S2KDError(f"{out}: holds no run yet, so say which recipe (`s2kd list recipes`)")
    builtin, is_path = what in recipes.names(), bool(what) and Path(what).exists()
    if not what or (is_path and not builtin):
        options = {"--data": data, "--world": world, "--preset": preset}
        _refuse_unread(options, what or str(out / "recipe.json"))
    if not what:
        recipe = pipeline.load_recipe(out)
    elif what.endswith(".json") and Path(what).is_file():
        recipe = Recipe.from_dict(_recipe_json(Path(what)), source=what)
    elif is_path and not builtin:
        recipe = recipes.for_data(what).with_settings(settings or [])
        if show:
            text = json.dumps(recipe.to_dict(), indent=2)
            print(f"The recipe made for {what}:\n{text}", file=sys.stderr)
        return recipe
    elif not builtin and (os.sep in what or Path(what).suffix):
        raise S2KDError(f"{what}: no such file")
    else:
        recipe = recipes.get(what, data=data, world=world, preset=preset)
    return recipe.with_settings(settings or [])


def _refuse_unread(options: Mapping[str, str], source: str) -> None:
    from s2kd.core.errors import S2KDError

    for option, value in options.items():
        if value:
            raise S2KDError(
                f"{option} {value}: is an option of built-in recipes (`s2kd list recipes`) and "
                f"would not be read with {source}; change fields of a recipe with --set"
            )


def _recipe_json(path: Path) -> object:
    """A recipe's JSON, as it stands alone or inside a run's or a description's."""
    from s2kd.core.errors import S2KDError
    from s2kd.core.files import read_json

    content = read_json(path)
    if isinstance(content, dict) and "recipe" in content:
        content = content["recipe"]
        if content is None:
            raise S2KDError(f"{path}: holds no recipe: none fits the file that it describes")
    return content


@contextmanager
def opened_run(
    recipe: "Recipe",
    out: Path,
    *,
    quiet: bool = False,
    machine: "Machine | None" = None,
    save_every: float = 20.0,
) -> "Iterator[Run]":
    """The run in `out`, its folder locked, progress shown by the first process only."""
    from s2kd import pipeline
    from s2kd.core import console

    machine = machine or pipeline.Machine()
    with (
        pipeline.locked(out, machine.devices * machine.nodes),
        console.shown(quiet=quiet or not first_process()) as shown,
    ):
        yield pipeline.open_run(
            recipe,
            out,
            machine=machine,
            progress=shown.progress,
            say=shown.say,
            save_seconds=save_every,
        )
