"""The verbs `s2kd narrate …`: every window in words, and a page to judge the words by.

`s2kd narrate RECIPE …` is short for `s2kd narrate run RECIPE …`.
"""

from typing import Annotated, Any

import typer

from s2kd.cli_shared import Data, Out, Preset, Set, What, World, recipe_of, work_on


class _Shortened(typer.core.TyperGroup):
    """A group whose verb `default` need not be said."""

    default = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        said = bool(args) and (args[0] in self.commands or args == ["--help"])
        return super().parse_args(ctx, args if said else [self.default, *args])


app = typer.Typer(
    cls=_Shortened,
    help="Windows in words. `s2kd narrate RECIPE …` is short for `s2kd narrate run RECIPE …`.",
    rich_markup_mode=None,
)


@app.command()
def run(
    what: What = "",
    out: Out = ...,  # type: ignore[assignment]
    data: Data = "",
    world: World = "",
    preset: Preset = "",
    set_: Set = None,
    preview: Annotated[
        int,
        typer.Option(
            "--preview",
            metavar="N",
            help="Narrate only N windows, spread over the training split, and write "
            "preview.html: sheet, narrative and facts side by side.",
        ),
    ] = 0,
) -> None:
    """Put every window into words, and the words into token states."""
    from s2kd import stages

    recipe = recipe_of(what, out, data, world, preset, set_)
    if preview:
        from s2kd import preview as page

        work_on(recipe, out, lambda opened: page.write(opened, windows=preview))
        print(out / "preview.html")
        return
    work_on(recipe, out, stages.narrate)
    print(out / "narratives.jsonl")
