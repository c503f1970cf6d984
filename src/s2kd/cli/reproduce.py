"""`s2kd reproduce`: the paper's tables and figures from results, and the trainings they lack."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from s2kd.cli.options import Accelerator, Jobs, Json, Minutes, Precision
from s2kd.core import console
from s2kd.core.errors import S2KDError

OUT, PRESET, SEEDS = Path("runs/proof"), "small", "42,43,44,45,46"


def _named_files(texts: list[str] | None) -> dict[str, str]:

    paths = {}
    for text in texts or []:
        name, equals, path = text.partition("=")
        if not equals or not Path(path).expanduser().exists():
            raise S2KDError(
                f"--narratives {text}: must be NAME=FILE with a file of recorded narratives"
            )
        paths[name] = str(Path(path).expanduser().resolve())
    return paths


def reproduce(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT",
            help="table1 … table4, fig3, fig4, fig5, extremes, spectra, horizon; default: all.",
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Train on the files in this folder; default: only read --results."
        ),
    ] = "",
    on: Annotated[
        str, typer.Option(metavar="NAMES", help="Data sets, by comma; default: what --data holds.")
    ] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the trainings.")] = OUT,
    results: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the result files.")
    ] = Path("results"),
    preset: Annotated[
        Literal["paper", "small"], typer.Option(help="The size of the models.")
    ] = PRESET,
    seeds: Annotated[str, typer.Option(metavar="NUMBERS", help="By comma.")] = SEEDS,
    minutes: Minutes = 0.0,
    jobs: Jobs = 1,
    narratives: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A recorded narrator for figure 4."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change one field of every recipe."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all tables and figures as a Markdown page."),
    ] = None,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
    plan: Annotated[bool, typer.Option("--plan", help="List the trainings and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Make the paper's tables and figures, beside the published; continues where it stopped."""
    from s2kd.evaluation.results import read_results
    from s2kd.paper import page as results_page
    from s2kd.paper.studies import check_tables

    tables = check_tables(what or [])
    names = [name for name in on.split(",") if name]
    if data:
        jobs_to_run = _jobs(
            tables, data, names, preset=preset, seeds=seeds, narratives=narratives, settings=set_
        )
        maps = not tables or "fig5" in tables
        if plan:
            _print_plan(jobs_to_run, out, results, maps=maps, as_json=as_json)
            return
        machine = {"accelerator": accelerator, "precision": precision}
        _run(jobs_to_run, out, results, minutes, jobs, machine, maps=maps, quiet=as_json)
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
    files = read_results(results)
    if names:
        files = {n: scores for n, scores in files.items() if scores["data"].values[0] in names}
    if page is not None:
        print(results_page.write(page, files, results))
    else:
        results_page.show(files, tables, results, as_json=as_json)


def _only_with_data(**given: object) -> None:
    """Refuse options that only a training reads."""
    for name, value in given.items():
        if value:
            raise S2KDError(f"--{name} needs --data FOLDER: without it nothing is trained")


def _jobs(
    tables: list[str],
    data: str,
    names: list[str],
    *,
    preset: str,
    seeds: str,
    narratives: list[str] | None,
    settings: list[str] | None,
) -> list:
    """The training jobs of these tables, for the data sets in the folder."""
    from s2kd.paper.studies import recipes_in, training_jobs, variants_of

    if not all(seed.strip().isdigit() for seed in seeds.split(",")):
        raise S2KDError(f"--seeds {seeds}: must be whole numbers by comma, as in 42,43,44")
    variants = [
        variant
        for name, recipe in recipes_in(data, preset=preset, names=names).items()
        for variant in variants_of(
            recipe.with_settings(settings or []),
            data=name,
            preset=preset,
            seeds=[int(seed) for seed in seeds.split(",")],
            narratives=_named_files(narratives),
        )
    ]
    return training_jobs(variants, tables)


def _print_plan(jobs: list, out: Path, results: Path, *, maps: bool, as_json: bool) -> None:
    from s2kd.paper.reproduce import to_do

    remaining = {job.name for job in to_do(jobs, out, results, maps=maps)}
    if as_json:
        rows = [{"name": j.name, "level": j.level, "done": j.name not in remaining} for j in jobs]
        console.print_json({"trainings": rows})
        return
    for job in jobs:
        print(f"{'to do' if job.name in remaining else 'done'}  level {job.level}  {job.name}")


def _run(
    jobs: list,
    out: Path,
    results: Path,
    minutes: float,
    parallel: int,
    machine: dict[str, str],
    *,
    maps: bool,
    quiet: bool,
) -> None:
    from s2kd.paper.reproduce import HORIZON, reproduce
    from s2kd.pipeline import Machine
    from s2kd.pipeline.queue import JobContext

    with console.shown(quiet=quiet) as shown:
        context = JobContext(
            minutes=minutes,
            parallel=parallel,
            machine=Machine(**machine),
            horizon=HORIZON,
            progress=shown.progress,
            say=shown.say,
        )
        summary = reproduce(jobs, out, results, context, maps=maps)
        shown.say(
            f"{summary.finished} trainings finished now, {summary.left} left"
            + ("; the same command continues from here" if summary.left else "")
        )
