"""The verb `s2kd demo`: a heavy forecaster teaches a small one on simulated data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2kd.cli.options import Json, Set, World, opened_run
from s2kd.core.console import print_json

if TYPE_CHECKING:
    from s2kd.evaluation.answer import Answer


def demo(
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: runs/demo-WORLD.")
    ] = None,
    world: World = None,
    retrain_teacher: Annotated[
        bool, typer.Option("--retrain-teacher", help="Only train the heavy forecaster again.")
    ] = False,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Show the main job on simulated data, in about a minute and a half."""
    from s2kd.pipeline.checks import check_settings
    from s2kd.pipeline.recipes import demo as recipes

    world = world or "atmosphere"
    folder = out or Path("runs") / f"demo-{world}{'-teacher' * retrain_teacher}"
    taught = recipes.heavy(world) if retrain_teacher else recipes.taught(world, folder)
    recipe = taught.with_settings(set_ or [])
    check_settings(recipe)
    from s2kd.pipeline import demo as demos

    with opened_run(recipe, folder, quiet=as_json) as opened:
        if not retrain_teacher:
            answer = demos.run_demo(opened)
            print_json(answer.to_dict()) if as_json else _show(answer, folder)
            return
        trained = demos.retrain_teacher(opened)
    same = demos.is_shipped(trained, world)
    if as_json:
        print_json({"teacher": str(trained), "same_as_shipped": same})
    else:
        print(f"{trained} (weights {'equal to' if same else 'other than'} the package's)")


def _show(answer: "Answer", out: Path) -> None:
    """The answer, the leaderboard, and the files."""
    from rich.console import Console

    from s2kd.evaluation.answer import headline, leaderboard
    from s2kd.pipeline import demo as demos

    console = Console(markup=False)
    console.print(headline(answer), highlight=False)
    console.print(leaderboard(answer))
    console.print(
        f"Report: {out / 'report.html'}\n"
        f"Forecast: s2kd forecast {out} {out / demos.LATEST} --out {out / demos.FORECAST} (done)\n"
        "Your own data: s2kd distill FILE --out runs/mine",
        highlight=False,
        soft_wrap=True,
    )
