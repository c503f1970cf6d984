"""The verbs `s2kd data …`: from an official address, or a user's own file, to a dataset."""

from pathlib import Path
from typing import Annotated

import typer

from s2kd.console import print_json

app = typer.Typer(help="Get data, and see what a file holds.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def describe(
    path: Annotated[Path, typer.Argument(help="A file or folder.")], as_json: Json = False
) -> None:
    """What the file holds, what is wrong with it, and a recipe that fits."""
    from s2kd import describe as looking
    from s2kd import recipes

    found = looking.describe(path)
    recipe = recipes.for_description(found)
    if as_json:
        print_json({**found.to_dict(), "recipe": recipe.to_dict() if recipe else None})
        return
    from rich.console import Console

    console = Console()
    console.print(looking.render(found))
    if recipe:
        console.print(
            f"A recipe that fits (save it as recipe.json, or run `s2kd run {path} --out DIR`):"
        )
        console.print_json(data=recipe.to_dict())
