"""The command line: a verb is a stage.

Nothing heavy is imported before a verb needs it, so that `s2kd --help` answers at once.
"""

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s2kd import cli_data, cli_narrate, cli_proof, cli_sweep
from s2kd.cli_shared import (
    Accelerator,
    Data,
    Devices,
    Json,
    Nodes,
    Out,
    Precision,
    Preset,
    SaveEvery,
    Set,
    Strategy,
    TensorBoard,
    What,
    World,
    recipe_of,
    work_on,
)
from s2kd.core.console import first_process
from s2kd.core.console import print_json as _print_json
from s2kd.core.console import print_table as _print_table

if TYPE_CHECKING:
    from s2kd.pipeline.stages import Run

app = typer.Typer(
    name="s2kd",
    help="Turn a heavy forecaster of gridded, moving fields into a small one that runs anywhere.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_narrate.app, name="narrate")
app.add_typer(cli_proof.app)
app.add_typer(cli_sweep.app)


def _print_version(asked: bool) -> bool:
    if asked:
        import s2kd

        print(s2kd.__version__)
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Turn a heavy forecaster of gridded, moving fields into a small one that runs anywhere."""


# --- the road ------------------------------------------------------------------------------------


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Default: runs/demo-WORLD.")] = None,
    world: World = "atmosphere",
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Simulated data, a teacher that reads, a student that does not: all in 2 to 3 minutes."""
    from s2kd.pipeline import recipes, stages

    recipe = recipes.get("demo", world=world).with_settings(set_ or [])
    folder = out or Path("runs") / f"demo-{world}"

    def work(run: "Run") -> None:
        stages.run_all(run)
        run.say("Exporting the best student to ONNX")
        run.first_only(lambda: stages.export(run))

    work_on(recipe, folder, work, quiet=as_json)
    _show(folder, as_json)


@app.command()
def run(
    what: What = "",
    out: Out = ...,  # type: ignore[assignment]
    data: Data = "",
    world: World = "",
    preset: Preset = "",
    set_: Set = None,
    as_json: Json = False,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: Precision = "32-true",
    strategy: Strategy = "auto",
    tensorboard: TensorBoard = False,
    save_every: SaveEvery = 20.0,
) -> None:
    """The whole road for a recipe, or for any gridded file; goes on where it stopped."""
    from s2kd.pipeline import stages

    recipe = recipe_of(what, out, data, world, preset, set_, show=not as_json)
    machine = _machine(accelerator, devices, nodes, precision, strategy, tensorboard)
    work_on(recipe, out, stages.run_all, quiet=as_json, machine=machine, save_every=save_every)
    _show(out, as_json)


@app.command(name="train-teacher")
def train_teacher(
    what: What = "",
    out: Out = ...,  # type: ignore[assignment]
    data: Data = "",
    world: World = "",
    preset: Preset = "",
    set_: Set = None,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: Precision = "32-true",
    strategy: Strategy = "auto",
    tensorboard: TensorBoard = False,
    save_every: SaveEvery = 20.0,
) -> None:
    """Stage 1: the teachers that the recipe's methods learn from."""
    from s2kd.pipeline import stages

    def work(run: "Run") -> None:
        stages.narrate(run)
        stages.train_teachers(run)

    machine = _machine(accelerator, devices, nodes, precision, strategy, tensorboard)
    recipe = recipe_of(what, out, data, world, preset, set_)
    work_on(recipe, out, work, machine=machine, save_every=save_every)
    print(f"{out / 'teachers'}")


@app.command()
def distill(
    what: What = "",
    out: Out = ...,  # type: ignore[assignment]
    data: Data = "",
    world: World = "",
    preset: Preset = "",
    set_: Set = None,
    accelerator: Accelerator = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: Precision = "32-true",
    strategy: Strategy = "auto",
    tensorboard: TensorBoard = False,
    save_every: SaveEvery = 20.0,
) -> None:
    """Stage 2: the students, each by each method."""
    from s2kd.pipeline import stages

    def work(run: "Run") -> None:
        stages.narrate(run)
        stages.train_teachers(run)
        stages.distill(run)

    machine = _machine(accelerator, devices, nodes, precision, strategy, tensorboard)
    recipe = recipe_of(what, out, data, world, preset, set_)
    work_on(recipe, out, work, machine=machine, save_every=save_every)
    print(f"{out / 'students'}")


@app.command()
def evaluate(
    out: Out = ...,  # type: ignore[assignment]
    horizon: Annotated[
        int,
        typer.Option(
            "--horizon", help="Also roll out to so many times the lead (4, say), fed with itself."
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Score every model of a run on its test splits."""
    from s2kd.pipeline import stages

    def work(run: "Run") -> None:
        stages.evaluate(run, horizon=horizon)

    work_on(stages.load_recipe(out), out, work, quiet=as_json)
    _show(out, as_json, report=False)


@app.command()
def diagnose(
    out: Out = ...,  # type: ignore[assignment]
    windows: Annotated[
        int, typer.Option("--windows", help="At most so many of a split, evenly spaced.")
    ] = 1000,
    as_json: Json = False,
) -> None:
    """How near each student's forecasts come to its teacher's."""
    from s2kd.pipeline import stages

    found: list[dict[str, Any]] = []
    work_on(
        stages.load_recipe(out),
        out,
        lambda run: found.extend(stages.diagnose(run, most=windows)),
        quiet=as_json,
    )
    if as_json:
        _print_json(found)
        return
    _print_table(
        ["student", "teacher", "seed", "on", "its error", "teacher's", "apart", "nearer %"],
        [
            [
                f"{row['backbone']} {row['method']}",
                "reading" if row["taught_by"] == "text" else "text-free",
                str(row["seed"]),
                row["split"],
                *(f"{row[name]:.4g}" for name in ("student", "teacher", "apart")),
                "" if row["nearer_percent"] is None else f"{row['nearer_percent']:+.1f}",
            ]
            for row in found
        ],
    )
    print(
        "Mean squared errors in the unit of the training loss. Apart: between the forecasts of the "
        "two. Nearer: by so much less than a student of that seed without a teacher is; empty "
        "where the run has none."
    )


@app.command()
def report(out: Out = ...) -> None:  # type: ignore[assignment]
    """Write report.html and figures/ of a run."""
    from s2kd.pipeline import stages

    work_on(stages.load_recipe(out), out, stages.report)
    print(out / "report.html")


# --- using a student -----------------------------------------------------------------------------


@app.command()
def forecast(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's or a student's folder.")],
    latest: Annotated[Path, typer.Argument(help="A gridded file whose last frames are the past.")],
    out: Annotated[Path, typer.Option("--out", help="A .nc or .zarr to write.")],
    student: Annotated[str, typer.Option("--student", help="Default: best validation.")] = "",
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
    from s2kd.deploy import service

    name = service.forecast_file(
        folder,
        latest,
        out,
        student=student,
        steps=steps,
        fill=fill,
        beyond_training=beyond_training,
        say=lambda words: print(words, file=sys.stderr),
    )
    print(f"{out} (by {name})")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's or a student's folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="A .onnx to write; default: beside the student.")
    ] = None,
    student: Annotated[str, typer.Option("--student", help="Default: best validation.")] = "",
) -> None:
    """A student as an ONNX file, normalising inside, checked against PyTorch."""
    from s2kd.deploy.export import export_onnx
    from s2kd.deploy.forecaster import Forecaster, find_student

    found = find_student(folder, student)
    path = out or found / "model.onnx"
    export_onnx(Forecaster.load(found), path)
    print(path)


# --- looking around ------------------------------------------------------------------------------


@app.command(name="list")
def list_(
    kind: Annotated[
        str, typer.Argument(help="recipes, methods, datasets, backbones, …; all if left out.")
    ] = "",
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="For backbones: also multiply-adds, activation memory and latency of every "
            "preset on this machine.",
        ),
    ] = False,
    preset: Annotated[str, typer.Option("--preset", help="For backbones: this one only.")] = "",
    device: Annotated[str, typer.Option("--device", help="Where to measure.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Every part and recipe that there is; for backbones, every preset and what it costs."""
    from s2kd.pipeline import catalogue

    if kind == "backbones":
        _list_backbones(measure, preset, device, as_json)
        return
    rows = catalogue.rows(kind)
    if as_json:
        _print_json(rows)
        return
    _print_table(["kind", "name", "what it is"], [[r["kind"], r["name"], r["about"]] for r in rows])


def _list_backbones(measure: bool, preset: str, device: str, as_json: bool) -> None:
    from s2kd.core import console
    from s2kd.core.errors import S2KDError
    from s2kd.models import measure as costs
    from s2kd.models.backbones import PRESETS

    if preset and preset not in PRESETS:
        raise S2KDError(f"--preset {preset}: must be one of {', '.join(PRESETS)}")
    sizes = [size for size in costs.sizes() if preset in ("", size.preset)]
    if not measure:
        rows = [costs.row(size) for size in sizes]
    else:
        rows = []
        with console.shown(quiet=as_json) as shown:
            told = shown.report("measure")
            for number, size in enumerate(sizes):
                rows.append(costs.measured(size, device=device))
                told(number + 1, len(sizes), f"{size.name} {size.preset}")
    if as_json:
        _print_json(rows)
        return
    head = ["backbone", "preset", "role", "frames", "grid", "M par."]
    cells = [
        [r["name"], r["preset"], r["role"], r["frames"], r["grid"], f"{r['parameters'] / 1e6:.2f}"]
        for r in rows
    ]
    if measure:
        head += ["G MACs", "MiB", "ms"]
        for cell, r in zip(cells, rows, strict=True):
            cell += [
                f"{r['multiply_adds'] / 1e9:.2f}",
                f"{r['activation_bytes'] / 2**20:.0f}",
                f"{r['latency_ms']:.1f}",
            ]
    _print_table(head, cells)
    if measure:
        spent, where = rows[0]["latency"], rows[0]["hardware"]
        processor = where.get("gpu", where["processor"])
        print(
            "Parameters in millions, multiply-adds in thousand millions, MiB of activations kept "
            f"for a training step. One window at a time on {processor} ({spent['device']}, "
            f"{spent['dtype']}, {spent['threads']} threads), median of {spent['repeats']}."
        )


@app.command()
def check(
    part: Annotated[str, typer.Argument(metavar="[KIND:]NAME", help="All parts if left out.")] = "",
    as_json: Json = False,
) -> None:
    """Run the contract on a part of ours, or on one of yours (MODULE:NAME)."""
    from s2kd.pipeline import catalogue

    rows = catalogue.check(part)
    if as_json:
        _print_json(rows)
    else:
        _print_table(
            ["part", "check", "result"], [[r["part"], r["check"], r["result"]] for r in rows]
        )
    if any(row["result"] != "ok" for row in rows):
        raise typer.Exit(1)


# --- what the verbs share ------------------------------------------------------------------------


def _machine(
    accelerator: str, devices: int, nodes: int, precision: str, strategy: str, tensorboard: bool
) -> Any:
    from s2kd.pipeline.stages import Machine

    return Machine(
        accelerator=accelerator,
        devices=devices,
        nodes=nodes,
        precision=precision,
        strategy=strategy,
        tensorboard=tensorboard,
    )


def _show(out: Path, as_json: bool, *, report: bool = True) -> None:
    """The table of a run's scores, one for every test split."""
    if not first_process():
        return
    from s2kd.evaluation.summary import summary_rows, summary_table
    from s2kd.pipeline import stages

    rows = stages.read_scores(out)
    if as_json:
        _print_json(summary_rows(rows))
        return
    from rich.console import Console

    console = Console()
    for split in dict.fromkeys(row["split"] for row in rows):
        console.print(summary_table([row for row in rows if row["split"] == split]))
    if report:
        console.print(f"Report: {out / 'report.html'}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; what the user can put right is one sentence and exit status 2."""
    # Threads that wait for each other by spinning are up to thirty times slower on a machine that
    # does something else as well; this is read when PyTorch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from s2kd.core.errors import S2KDError

    try:
        app(args=arguments)
    except S2KDError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("s2kd: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if _no_space(error):
            _fail("the disk is full; free some space, and the same command goes on from here")
        if isinstance(error, OSError) and error.filename:
            _fail(_told(error))
        raise


def _no_space(error: Exception) -> bool:
    """Whether nothing more could be written: a full disk, a quota, a limit on a file's size.

    safetensors and HDF5 say so in words only; PyTorch says where its archive broke off.
    """
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno in codes:
        return True
    words = (*map(os.strerror, codes), "inline_container", "PytorchStreamWriter")
    return any(word in str(error) for word in words)


def _told(error: OSError) -> str:
    """Which place could not be used, and why."""
    # where a file is renamed into place, the second name is the one that the user gave
    path = error.filename2 or error.filename
    match error.errno:
        case errno.EEXIST | errno.ENOTDIR:
            return f"{path}: is a file, not a folder, so nothing can lie in it"
        case errno.EISDIR | errno.ENOTEMPTY:
            return f"{path}: is a folder; give the name of a file"
        case errno.ENOENT:
            return f"{path}: no such file or folder, and it cannot be made"
        case _:
            return f"{path}: {(error.strerror or type(error).__name__).lower()}"


def _fail(sentence: str) -> None:
    print(f"s2kd: {sentence}", file=sys.stderr)
    sys.exit(2)
