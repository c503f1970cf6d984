"""The verbs that use a student: `forecast`, `export` and `benchmark`."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from s2kd.cli.options import Folder, Json, Student


def forecast(
    folder: Folder,
    latest: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A gridded file that ends with the past frames, or a folder of them.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The .nc or .zarr to write; for a folder of files, the folder of a forecast per "
            "file (made where it is missing or older than its file).",
        ),
    ],
    student: Student = "",
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of frames; more than in training roll out. Default: as in training.",
        ),
    ] = None,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill", help="Carry the last value of a cell forward where values are missing."
        ),
    ] = False,
    beyond_training: Annotated[
        bool, typer.Option("--beyond-training", help="Accept values far outside those of training.")
    ] = False,
) -> None:
    """Forecast from the latest frames of a file, as CF NetCDF or Zarr."""
    from s2kd.deploy.forecast import forecast_file, forecast_files

    settings = {
        "student": student,
        "steps": steps,
        "fill": fill,
        "beyond_training": beyond_training,
        "say": partial(print, file=sys.stderr),
    }
    if latest.is_dir() and not out.suffix:
        for path in forecast_files(folder, latest, out, **settings):
            print(path)
        return
    print(f"{out} (by {forecast_file(folder, latest, out, **settings)})")


def export(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="The folder to write; default: export/ in the student's."
        ),
    ] = None,
    student: Student = "",
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop",
            metavar="PERCENT",
            min=0,
            help="Largest rise of the validation RMSE by int8.",
        ),
    ] = 1.0,
) -> None:
    """Write a student as a folder that forecasts without PyTorch; checked against PyTorch."""
    from s2kd.core.saved import find_student

    student_folder = find_student(folder, student)
    from s2kd.deploy.export import export_student  # imports PyTorch

    to_stderr = partial(print, file=sys.stderr)
    print(export_student(student_folder, out, max_drop=max_drop, say=to_stderr))


def benchmark(folder: Folder, student: Student = "", as_json: Json = False) -> None:
    """Compare the formats of a student: error, latency, size."""
    from s2kd.core.console import print_json, print_table
    from s2kd.deploy.benchmark import benchmark as rows_of
    from s2kd.evaluation.tables import number

    rows = rows_of(folder, student=student)
    if as_json:
        print_json(rows)
        return
    print_table(
        ["format", "runtime", "RMSE", "ms", "MB"],
        [
            [row["format"], row["runtime"], number(row["rmse"])]
            + [number(row[field], ".2f") for field in ("milliseconds", "megabytes")]
            for row in rows
        ],
    )
