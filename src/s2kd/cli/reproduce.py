"""The verbs of the proof: `s2kd reproduce`."""

import time
from pathlib import Path
from typing import Annotated

import typer

from s2kd.cli.options import Accelerator, Json, Minutes, Precision

OUT, PRESET, SEEDS = Path("runs/proof"), "small", "42,43,44,45,46"


def _pairs(texts: list[str] | None) -> dict[str, str]:
    from s2kd.core.types import S2KDError

    found = {}
    for text in texts or []:
        name, equals, path = text.partition("=")
        if not equals or not Path(path).expanduser().exists():
            raise S2KDError(
                f"--narratives {text}: wants NAME=FILE with a file of recorded narratives"
            )
        found[name] = str(Path(path).expanduser().resolve())
    return found


def reproduce(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHAT]...",
            help="table1 table2 table3 table4 fig3 fig4 fig5 extremes spectra horizon; "
            "all of them: none named.",
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            "--data", help="Train on the files in this folder; without it, results are read only."
        ),
    ] = "",
    on: Annotated[
        str, typer.Option("--on", help="Data sets, by comma; default: what --data holds.")
    ] = "",
    out: Annotated[Path, typer.Option("--out", help="Folder of the trainings.")] = OUT,
    results: Annotated[Path, typer.Option("--results", help="Folder of the result files.")] = Path(
        "results"
    ),
    preset: Annotated[str, typer.Option("--preset", help="paper or small.")] = PRESET,
    seeds: Annotated[str, typer.Option("--seeds", help="By comma.")] = SEEDS,
    minutes: Minutes = 0.0,
    jobs: Annotated[int, typer.Option("--jobs", help="Trainings side by side.")] = 1,
    narratives: Annotated[
        list[str] | None,
        typer.Option("--narratives", metavar="NAME=FILE", help="A recorded narrator for figure 4."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change one field of every recipe."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", help="Also write all tables and figures as a Markdown page."),
    ] = None,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
    plan: Annotated[bool, typer.Option("--plan", help="Only say what there is to train.")] = False,
    as_json: Json = False,
) -> None:
    """The paper's tables and figures, beside the published ones; goes on where it stopped."""
    from s2kd.evaluation.results import read_results
    from s2kd.evaluation.rows import rows as nested_rows
    from s2kd.paper import proof_page
    from s2kd.paper.studies import check_tables

    wanted = check_tables(what or [])
    if data:
        _train(
            wanted,
            data,
            on=on,
            out=out,
            results=results,
            preset=preset,
            seeds=seeds,
            minutes=minutes,
            jobs=jobs,
            narratives=_pairs(narratives),
            settings=set_ or [],
            accelerator=accelerator,
            precision=precision,
            plan=plan,
            quiet=as_json,
        )
        if plan:
            return
    else:
        _only_with_data(
            plan=plan,
            minutes=minutes,
            jobs=jobs != 1,
            narratives=narratives,
            set=set_,
            seeds=seeds != SEEDS,
            preset=preset != PRESET,
            out=out != OUT,
            accelerator=accelerator != "auto",
            precision=precision != "32-true",
        )
    rows = nested_rows(read_results(results))
    asked = [name for name in on.split(",") if name]
    if asked:
        rows = [row for row in rows if row["data"] in asked]
    if page is not None:
        print(proof_page.write(page, rows, results))
    else:
        proof_page.show(rows, wanted, results, as_json=as_json)


def _only_with_data(**given: object) -> None:
    """Refuse what only a training would read."""
    from s2kd.core.types import S2KDError

    for name, value in given.items():
        if value:
            raise S2KDError(f"--{name} wants --data FOLDER: without it nothing is trained")


def _train(
    wanted: list[str],
    data: str,
    *,
    on: str,
    out: Path,
    results: Path,
    preset: str,
    seeds: str,
    minutes: float,
    jobs: int,
    narratives: dict[str, str],
    settings: list[str],
    accelerator: str,
    precision: str,
    plan: bool,
    quiet: bool,
) -> None:
    from s2kd.core import console
    from s2kd.core.types import S2KDError
    from s2kd.paper import harness
    from s2kd.paper import reproduce as proof
    from s2kd.pipeline import Machine

    if not all(seed.strip().isdigit() for seed in seeds.split(",")):
        raise S2KDError(f"--seeds {seeds}: wants whole numbers by comma, as in 42,43,44")
    if jobs < 1 or minutes < 0:
        raise S2KDError(
            f"--jobs must be at least 1 and --minutes at least 0, got {jobs}, {minutes}"
        )
    asked = [name for name in on.split(",") if name]
    made = proof.all_studies(
        proof.sources_in(data, preset=preset, asked=asked),
        preset=preset,
        seeds=[int(seed) for seed in seeds.split(",")],
        narratives=narratives,
        settings=settings,
    )
    place = harness.Place(
        out=out,
        results=results,
        deadline=time.time() + 60 * minutes if minutes else None,
        machine=Machine(accelerator=accelerator, precision=precision),
    )
    if plan:
        listed = proof.planned(made, wanted)
        models = proof.for_maps(made, wanted, place)
        left = {unit.name for unit in harness.to_do(listed, place, models=models)}
        if quiet:
            units = [{"name": u.name, "level": u.level, "done": u.name not in left} for u in listed]
            console.print_json({"trainings": units})
            return
        for unit in listed:
            word = "to do" if unit.name in left else "done"
            print(f"{word}  level {unit.level}  {unit.name}")
        return
    with console.shown(quiet=quiet) as shown:
        # with several trainings at once, their bars would be each other's noise
        report = shown.progress if jobs == 1 else console.Quiet().progress
        outcome = proof.reproduce(made, wanted, place, jobs=jobs, report=report, say=shown.say)
        shown.say(
            f"{outcome.now} trainings done now, {outcome.before} before, {outcome.left} left"
            + ("; the same command goes on from here" if outcome.left else "")
        )
