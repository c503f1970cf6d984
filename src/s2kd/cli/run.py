"""The verbs that train and score: `compare`, `evaluate`, `diagnose`, `report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from s2kd.cli.options import (
    Accelerator,
    Data,
    Jobs,
    Json,
    Minutes,
    Out,
    Precision,
    Preset,
    RunFolder,
    Set,
    What,
    World,
    opened_run,
    recipe_of,
)
from s2kd.core.console import first_process, print_json, print_table
from s2kd.core.errors import S2KDError


def compare(
    what: What = "",
    out: Out = ...,  # type: ignore[assignment]
    data: Data = "",
    world: World = None,
    preset: Preset = None,
    set_: Set = None,
    until: Annotated[
        str,
        typer.Option(
            metavar="STAGE", help="The last stage: narrate, teach, distil, evaluate or report."
        ),
    ] = "report",
    as_json: Json = False,
    jobs: Jobs = 1,
    minutes: Minutes = 0.0,
    accelerator: Accelerator = "auto",
    devices: Annotated[
        int, typer.Option(metavar="N", help="Number of GPUs, or of CPU processes.")
    ] = 1,
    nodes: Annotated[int, typer.Option(metavar="N", help="Number of machines.")] = 1,
    precision: Precision = "32-true",
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="auto, ddp, … (of Lightning Fabric).")
    ] = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard event files.")
    ] = False,
    save_every: Annotated[
        float, typer.Option(metavar="S", help="Seconds between checkpoints; 0: every step.")
    ] = 20.0,
) -> None:
    """Train and score methods side by side on any data; continues where it stopped."""
    from s2kd import pipeline

    stage = pipeline.stage_number(until)
    if (jobs > 1 or minutes) and stage < pipeline.stage_number("distil"):
        raise S2KDError(f"--until {until}: --jobs and --minutes are for trainings up to distil")
    recipe = recipe_of(what, out, set_, data=data, world=world, preset=preset)
    machine = pipeline.Machine(
        accelerator=accelerator,
        devices=devices,
        nodes=nodes,
        precision=precision,
        strategy=strategy,
        tensorboard=tensorboard,
    )
    with opened_run(recipe, out, quiet=as_json, machine=machine, save_every=save_every) as opened:
        if jobs > 1 or minutes:
            context = pipeline.JobContext(
                minutes=minutes,
                parallel=jobs,
                machine=machine,
                progress=opened.progress,
                say=opened.say,
            )
            summary = pipeline.run_jobs(pipeline.jobs_of(recipe, out), context)
            if summary.left:
                opened.say(f"{summary.left} trainings left; the same command goes on from here")
                return
        opened.say(f"Recipe: {out / 'recipe.json'}\nWatch it: s2kd watch {out}")
        pipeline.run_all(opened, until=until)
    if stage >= pipeline.stage_number("evaluate"):
        _show_scores(out, as_json, report=until == "report")
    else:
        print_json(str(out)) if as_json else print(out)


def evaluate(
    out: RunFolder,
    horizon: Annotated[
        int, typer.Option(metavar="N", help="Also roll out to N times the lead.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Score every model of a run on its test splits."""
    from s2kd import pipeline

    with opened_run(pipeline.load_recipe(out), out, quiet=as_json) as opened:
        pipeline.evaluate(opened, horizon=horizon)
    _show_scores(out, as_json, report=False)


def diagnose(
    out: RunFolder,
    windows: Annotated[
        int, typer.Option(metavar="N", help="At most N windows per split, evenly spaced.")
    ] = 1000,
    as_json: Json = False,
) -> None:
    """Measure how near each student's forecasts come to its teacher's."""
    from s2kd import pipeline

    with opened_run(pipeline.load_recipe(out), out, quiet=as_json) as opened:
        rows = pipeline.diagnose(opened, most=windows)
    if as_json:
        print_json(rows)
        return
    print_table(
        [
            "student",
            "teacher",
            "seed",
            "split",
            "student MSE",
            "teacher MSE",
            "MSE between",
            "gain %",
        ],
        [_diagnosis_cells(row) for row in rows],
    )
    print(
        "Mean squared errors in the unit of the training loss: of both models, and between their "
        "forecasts. Gain: by how much the last is smaller than for a student of that seed without "
        "a teacher; empty where the run has none."
    )


def _diagnosis_cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['backbone']} {row['method']}",
        "reading" if row["teacher"] == "text" else "text-free",
        str(row["seed"]),
        row["split"],
        *(f"{row[name]:.4g}" for name in ("student_mse", "teacher_mse", "student_teacher_mse")),
        "" if row["fidelity_gain_percent"] is None else f"{row['fidelity_gain_percent']:+.1f}",
    ]


def report(out: RunFolder) -> None:
    """Write report.html and figures/ of a run."""
    from s2kd import pipeline

    with opened_run(pipeline.load_recipe(out), out) as opened:
        pipeline.report(opened)
    print(out / "report.html")


def _show_scores(out: Path, as_json: bool, *, report: bool = True) -> None:
    """One table of scores per test split."""
    if not first_process():
        return
    from s2kd import pipeline
    from s2kd.evaluation.summary import summary_rows, summary_table

    scores = pipeline.read_scores(out)
    if as_json:
        print_json(summary_rows(scores.values()))
        return
    from rich.console import Console

    console = Console(markup=False)
    for split in scores.values():
        console.print(summary_table(split))
    if report:
        console.print(f"Report: {out / 'report.html'}", highlight=False)
