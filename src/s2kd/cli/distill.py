"""The verb `s2kd distill`: the best small forecaster for some data and a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2kd.cli.options import (
    Accelerator,
    Data,
    Frames,
    Json,
    Out,
    Precision,
    Set,
    World,
    recipe_of,
)
from s2kd.core import console
from s2kd.core.console import print_json

if TYPE_CHECKING:
    from s2kd.evaluation.answer import Answer
    from s2kd.evaluation.tables import Table
    from s2kd.pipeline.plan import Plan


def distill(
    what: Frames = "",
    out: Out = ...,  # type: ignore[assignment]
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEACHER",
            help="builtin, a file of forecasts or labels, package.module:callable, an ONNX file, "
            "or the folder of a model or run; of several, the best on validation teaches. "
            "Default: the captures' teacher, or builtin without --capture.",
        ),
    ] = None,
    capture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ZARR", help="A label store of an archive (`s2kd label`); repeatable."
        ),
    ] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Further frames, which the teacher answers; repeatable."),
    ] = None,
    max_latency: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Longest time per forecast on one thread of ONNX Runtime, as 5ms; default: any.",
        ),
    ] = "",
    max_parameters: Annotated[
        int, typer.Option(metavar="N", min=0, help="Largest number of parameters; 0: any.")
    ] = 0,
    limit: Annotated[
        str,
        typer.Option(
            "--time",
            metavar="TIME",
            help="Wall time in all, as 90s, 30m or 2h; the last training may add a quarter.",
        ),
    ] = "30m",
    students: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Backbones to try: unet,resnet,mixer; default: all."),
    ] = "",
    sizes: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Sizes to try: small,medium,large,paper; default: all but paper."
        ),
    ] = "",
    data: Data = "",
    world: World = None,
    set_: Set = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the plan (students, time, disk, memory) and stop.")
    ] = False,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
    as_json: Json = False,
) -> None:
    """Find and train the best small forecaster of any data; continues where it stopped."""
    from s2kd import pipeline
    from s2kd.pipeline.options import MINUTES, SearchOptions, budget_of, quantity

    minutes = quantity("--time", limit, MINUTES)
    options = SearchOptions(
        budget=budget_of(max_latency, max_parameters),
        minutes=minutes,
        teachers=tuple(teacher or ()),
        captures=tuple(capture or ()),
        unlabelled=tuple(unlabelled or ()),
        students=_names(students),
        sizes=_names(sizes),
    )
    machine = pipeline.Machine(accelerator=accelerator, precision=precision)
    recipe = recipe_of(what, out, set_, data=data, world=world)
    from s2kd.pipeline import main_job  # imports PyTorch, which refusals do without

    with console.shown(quiet=as_json) as shown:
        overall = console.Overall(shown, out / "distill.log", 60 * minutes)
        answer = main_job.distill(
            recipe,
            out=out,
            options=options,
            show_plan=lambda plan: None if as_json else _show_plan(plan, out),
            plan_only=plan,
            machine=machine,
            progress=overall.progress,
            say=overall.say,
        )
    if answer is None:
        return
    if as_json:
        print_json(answer.to_dict())
        return
    _show_answer(answer, out)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _show_plan(plan: "Plan", out: Path) -> None:
    """One screen: what is trained, how long, how much disk and memory."""
    from rich.console import Console

    from s2kd.evaluation.tables import Table, parameters_text

    console = Console(stderr=True, markup=False)
    lines = [
        (
            student.name,
            parameters_text(student.parameters),
            f"{student.latency_ms:.2f}",
            f"{student.bytes / 1e6:.2f}",
            student.excess or "tried",
        )
        for student in plan.students
    ]
    lines += [(name, "", "", "", reason) for name, reason in plan.failures.items()]
    windows = ", ".join(f"{split} {count}" for split, count in plan.windows.items())
    console.print(
        Table(
            title="Plan",
            head=("Student", "Parameters", "ms", "MB", ""),
            lines=tuple(lines),
            caption="ms: one forecast by ONNX Runtime, one thread.",
        )
    )
    minutes = {name: f"{value / 60:.1f} min" for name, value in plan.seconds.items() if value}
    rows = {
        "Windows": windows,
        "Teacher": plan.teacher
        + (f", at most {plan.teacher_epochs} epochs" if plan.teacher_epochs else ""),
        "Methods": ", ".join(plan.methods),
        "Epochs": f"{plan.epochs} at most per candidate; a third goes on after each rung",
        "Time": ", ".join(f"{name} {text}" for name, text in minutes.items()),
        "At most": f"{plan.disk_bytes / 2**30:.2f} GiB on disk, "
        f"{plan.memory_bytes / 2**30:.1f} GiB of memory",
        "Watch it": f"s2kd watch {out}",
    }
    for name, text in rows.items():
        console.print(f"{name}: {text}", highlight=False)


def _show_answer(answer: "Answer", out: Path) -> None:
    """The answer, the leaderboard, what was not verified, and the next steps."""
    from rich.console import Console

    from s2kd.evaluation.answer import frontier, headline, leaderboard, problems, unverified

    console = Console(markup=False)
    console.print(headline(answer), highlight=False)
    for remedy in dict.fromkeys(remedy for _, remedy in problems(answer)):
        console.print(remedy, highlight=False)
    console.print(leaderboard(answer))
    console.print(frontier(answer))
    console.print(_exported(out))
    console.print("Not verified: " + "; ".join(unverified(answer)) + ".", highlight=False)
    console.print(
        f"Report: {out / 'report.html'}\n"
        f"Forecast: s2kd forecast {out} LATEST_FILE --out forecast.nc\n"
        f"Export: s2kd export {out}",
        highlight=False,
    )


def _exported(out: Path) -> "Table":
    """The formats that forecasts from the run's folder can use."""
    from s2kd.core.saved import find_student
    from s2kd.deploy.metadata import EXPORT, exported_metadata
    from s2kd.evaluation.tables import Table, number

    metadata = exported_metadata(find_student(out) / EXPORT)
    return Table(
        title=f"Exported; {metadata['default']} is the faster",
        head=("Format", "RMSE", "ms", "MB"),
        lines=tuple(
            (
                name,
                number(form.get("rmse")),
                number(form["milliseconds"], ".2f"),
                number(form["bytes"] / 1e6, ".2f"),
            )
            for name, form in metadata["formats"].items()
        ),
        caption="RMSE on validation windows in training standard deviations; ms: one thread.",
    )
