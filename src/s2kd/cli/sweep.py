"""The verb `s2kd sweep`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from s2kd.cli.options import (
    Accelerator,
    Data,
    Json,
    Minutes,
    Out,
    Precision,
    Set,
    What,
    World,
    recipe_of,
)
from s2kd.core import console
from s2kd.core.console import print_json, print_table


def sweep(
    what: What = "",
    out: Out = ...,  # type: ignore[assignment]
    trials: Annotated[
        int, typer.Option(metavar="N", help="Trainings in all; 0: 20, or the whole grid.")
    ] = 0,
    minutes: Minutes = 0.0,
    grid: Annotated[
        bool,
        typer.Option("--grid", help="Search a grid over λ and β, as in the paper; default: TPE."),
    ] = False,
    over: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Of lambda,beta,lr; default: all that the method has."),
    ] = "",
    method: Annotated[str, typer.Option(metavar="NAME", help="A method of the recipe.")] = "s2kd",
    student: Annotated[str, typer.Option(metavar="NAME", help="Default: the recipe's first.")] = "",
    data: Data = "",
    world: World = None,
    set_: Set = None,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
    as_json: Json = False,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also save the search here, for `s2kd reproduce --page`."),
    ] = None,
) -> None:
    """Search λ, β and the learning rate on validation data; processes may share DIR."""
    from s2kd import pipeline

    machine = pipeline.Machine(accelerator=accelerator, precision=precision)
    recipe = recipe_of(what, out, set_, data=data, world=world)
    from s2kd.evaluation.results import save_search
    from s2kd.pipeline import sweep as searching

    with console.shown(quiet=as_json) as shown:
        run = pipeline.open_run(
            recipe, out, progress=shown.progress, say=shown.say, machine=machine
        )
        search = searching.search_of(run, method=method, student=student, over=over, grid=grid)
        result = searching.sweep(run, search, trials=trials, minutes=minutes, grid=grid)
        if results is not None:
            save_search(results, result)
    _show(result, out, as_json)


def _show(result: dict[str, Any], out: Path, as_json: bool) -> None:
    from s2kd.evaluation.summary import trials_table
    from s2kd.pipeline import sweep as searching

    if as_json:
        print_json(result)
        return
    if result["best"] is None:
        print("No trial is finished yet; the same command goes on from here.")
        return
    table = trials_table(result)
    print_table(table.head, table.lines[:10], justify="right")
    failed = [trial for trial in result["trials"] if "error" in trial]
    if failed:
        print(f"{len(failed)} trials failed; the last: {failed[-1]['error']}")
    print(f"The best {min(10, len(table.lines))} of {len(table.lines)}, by {result['measure']}.")
    print("The choice: " + " ".join(f"--set {setting}" for setting in result["settings"]))
    for axis in searching.at_edge(result):
        print(f"The best lies at the edge of the grid over {axis}: beyond it may be better.")
    print(f"All of it: {out / 'sweep.json'}, {out / 'sweep.png'}")
