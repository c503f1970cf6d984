"""The verbs that use a student: `forecast` and `export`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from s2kd.cli.options import Folder, Student


def forecast(
    folder: Folder,
    latest: Annotated[Path, typer.Argument(help="A gridded file whose last frames are the past.")],
    out: Annotated[Path, typer.Option("--out", help="A .nc or .zarr to write.")],
    student: Student = "",
    steps: Annotated[int, typer.Option("--steps", help="Default: as trained; more roll out.")] = 0,
    fill: Annotated[
        bool, typer.Option("--fill", help="Carry last values forward where the file lacks some.")
    ] = False,
    beyond_training: Annotated[
        bool,
        typer.Option("--beyond-training", help="Also from values far outside those of training."),
    ] = False,
) -> None:
    """The latest frames in, a CF forecast out."""
    from s2kd.deploy.forecast import forecast_file

    name = forecast_file(
        folder,
        latest,
        out,
        student=student,
        steps=steps,
        fill=fill,
        beyond_training=beyond_training,
        say=lambda text: print(text, file=sys.stderr),
    )
    print(f"{out} (by {name})")


def export(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", help="A .onnx to write; default: beside the student.")
    ] = None,
    student: Student = "",
) -> None:
    """A student as an ONNX file, normalising inside, checked against PyTorch."""
    from s2kd.core.saved import find_student
    from s2kd.deploy.export import export_onnx
    from s2kd.deploy.forecaster import Forecaster

    student_folder = find_student(folder, student)
    path = out or student_folder / "model.onnx"
    export_onnx(Forecaster.load(student_folder), path)
    print(path)
