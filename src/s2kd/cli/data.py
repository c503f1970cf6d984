"""The verbs `s2kd data …`: from an official address, or a user's own file, to a dataset."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from s2kd.cli import options
from s2kd.cli.label import print_labels
from s2kd.cli.sections import Sections
from s2kd.core import console
from s2kd.core.console import print_json
from s2kd.core.errors import S2KDError

app = typer.Typer(
    help="Get data and see what a file holds: fetch, describe, prepare.",
    cls=Sections,
    no_args_is_help=True,
)


@app.command(epilog="$ s2kd data fetch ncep_air --out FOLDER")
def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="ncep_air, weatherbench2, taxibj or prometheus.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to fill.")],
    years: Annotated[
        str,
        typer.Option(metavar="YEARS", help="WeatherBench: 1979-2018 or 2016,2017; default: all."),
    ] = "",
    variables: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="WeatherBench: z500,t850 (default), temperature@700, t2m, …; TaxiBJ: openstl "
            "(default), raw or plus; Prometheus: a1,a2,b1 or T,P (default: all).",
        ),
    ] = "",
    base: Annotated[
        str,
        typer.Option(
            "--from", metavar="URL", help="The address of a copy; default: the official one."
        ),
    ] = "",
) -> None:
    """Download an official data set and check its files; continues where it stopped."""
    from s2kd.data import fetch as fetching

    names = [name.strip() for name in variables.split(",") if name.strip()]
    with console.shown() as shown:
        fetched = fetching.fetch(name, out, years=years, variables=names, base=base, shown=shown)
    print(f"{fetched.folder}: {', '.join(fetched.files[:3])}{', …' * (len(fetched.files) > 3)}")
    print(f"Terms: {fetched.licence}.\nCite: {fetched.cite}.\nNext: {fetched.next_command}")


@app.command(epilog="$ s2kd data prepare latest.nc --out FOLDER --dtype int16")
def prepare(
    what: options.Frames,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")],
    dtype: Annotated[
        str,
        typer.Option(
            metavar="DTYPE",
            help="float32, or int16 with scale and offset per channel: half the size, rounded.",
        ),
    ] = "float32",
    data: options.Data = "",
    preset: options.Preset = None,
    set_: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Write the data of a recipe or file in the layout that trains fastest."""
    from s2kd import pipeline
    from s2kd.core.files import write_json
    from s2kd.core.recipe import Keep, Part, Split
    from s2kd.data import prepare as prepare_data
    from s2kd.data.store import FRAMES

    recipe = options.recipe_of(what, out, set_, data=data, preset=preset)
    with pipeline.locked(out), console.shown(quiet=as_json) as shown:
        facts = prepare_data(
            recipe.dataset,
            out,
            split=recipe.split,
            keep=recipe.keep,
            dtype=dtype,
            progress=shown.progress("prepare"),
        )
        part = Part(name="prepared", params={"path": str(out)})
        stored = replace(recipe, dataset=part, split=Split(), keep=Keep())
        write_json(out / "recipe.json", stored.to_dict())
    if as_json:
        print_json({name: value for name, value in facts.items() if name != "dataset"})
        return
    stored, channels = facts["frames"], facts["dataset"]["grid"]["channels"]
    size = (out / FRAMES).stat().st_size / 2**30
    print(f"{out}: {' × '.join(map(str, stored['shape']))} {stored['dtype']}, {size:.3g} GiB")
    if stored["dtype"] == "int16":
        errors = zip(channels, stored["largest_error"], strict=True)
        print("Largest rounding: " + ", ".join(f"{name} {error:.3g}" for name, error in errors))
    print(f"Fingerprint: {facts['fingerprint']}")
    print(f"Next: s2kd compare {shlex.quote(str(out / 'recipe.json'))} --out DIR")


@app.command(epilog="$ s2kd data describe latest.nc")
def describe(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A file or folder of frames, or a label store.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the recipe that fits, as JSON.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what a file holds, what is wrong with it, and which recipe fits."""
    from s2kd.core.files import write_json
    from s2kd.data import describe as describing
    from s2kd.pipeline import recipes
    from s2kd.training.label_files import is_labels

    if is_labels(path.expanduser()) and out is None:
        from s2kd.training.labels import Labels

        print_labels(Labels.open(path), as_json)
        return
    description = describing.describe(path)
    recipe = recipes.for_description(description)
    if out is not None:
        if recipe is None:
            raise S2KDError(f"{path}: no recipe fits it: {'; '.join(description.problems)}")
        write_json(out, recipe.to_dict())
    if as_json:
        print_json({**description.to_dict(), "recipe": recipe.to_dict() if recipe else None})
        return
    from rich.console import Console

    Console().print(describing.render(description))
    if recipe:
        # not by rich, which would break the command into lines
        print(f"Next: s2kd distill {shlex.quote(str(out or path))} --out DIR")
