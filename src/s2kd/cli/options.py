"""Options that several verbs share, and the recipe and run folder that they name."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from s2kd.core import console
from s2kd.core.console import first_process
from s2kd.core.errors import S2KDError

if TYPE_CHECKING:
    from s2kd.core.recipe import Recipe
    from s2kd.pipeline import Machine, Run

What = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A built-in recipe (`s2kd list recipes`), a recipe's file (JSON, YAML, TOML), or a "
        "file or folder of frames (NetCDF, Zarr, GRIB, .npy, .npz, HDF5); default: that of --out.",
    ),
]
Frames = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A file or folder of frames (NetCDF, Zarr, GRIB, .npy, .npz, HDF5), or a recipe.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="The run folder.")]
Data = Annotated[str, typer.Option(metavar="PATH", help="The files of a built-in recipe.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change one field of the recipe, as seeds=[42,43,44] or student_training.lr=3e-4; "
        "repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
World = Annotated[Literal["atmosphere", "plume"] | None, typer.Option(help="The demo's world.")]
Preset = Annotated[Literal["paper", "small"] | None, typer.Option(help="A benchmark's size.")]
Accelerator = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="32-true, 16-mixed or bf16-mixed.")]
RunFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run or student.")]
Student = Annotated[str, typer.Option(metavar="NAME", help="As unet-s2kd; default: the best.")]
Jobs = Annotated[int, typer.Option(metavar="N", min=1, help="Trainings in parallel.")]
Minutes = Annotated[float, typer.Option(metavar="M", min=0, help="At most M minutes; 0: any.")]


def recipe_of(
    what: str,
    out: Path,
    settings: Sequence[str] | None = None,
    *,
    data: str = "",
    world: str | None = None,
    preset: str | None = None,
) -> "Recipe":
    """The recipe that `what` names, changed by `settings`.

    Parameters
    ----------
    what
        A built-in recipe, a recipe's file, a gridded file, or empty for the recipe of `out`.
    out
        The run folder.
    settings
        Changes `path=value`.
    data, world, preset
        Settings of a built-in recipe; refused where nothing would read them.
    """
    from s2kd import pipeline
    from s2kd.core.recipe_files import FORMATS, read_recipe
    from s2kd.pipeline import recipes
    from s2kd.pipeline.checks import check_settings

    if not what and not (out / "recipe.json").exists():
        raise S2KDError(f"{out}: holds no run yet, so say which recipe (`s2kd list recipes`)")
    builtin, is_path = what in recipes.names(), bool(what) and Path(what).exists()
    if not what or (is_path and not builtin):
        source = what or str(out / "recipe.json")
        for option, value in {"--data": data, "--world": world, "--preset": preset}.items():
            if value:
                raise S2KDError(
                    f"{option} {value}: is an option of built-in recipes (`s2kd list recipes`) and "
                    f"would not be read with {source}; change fields of a recipe with --set"
                )
    if not what:
        recipe = pipeline.load_recipe(out)
    elif Path(what).suffix.lower() in FORMATS and Path(what).is_file():
        recipe = read_recipe(Path(what))
    elif is_path and not builtin:
        recipe = recipes.for_data(what, settings or [], partial(print, file=sys.stderr))
    elif not builtin and (os.sep in what or Path(what).suffix):
        raise S2KDError(f"{what}: no such file")
    else:
        recipe = recipes.get(what, data=data, world=world or "", preset=preset or "")
    recipe = recipe.with_settings(settings or [])
    check_settings(recipe)
    return recipe


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
