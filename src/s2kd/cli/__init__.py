"""The command line: a verb is a function; nothing heavy is imported before a verb runs.

What a user can put right is one sentence on standard error and exit status 2.
"""

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from s2kd.cli import data, demo, deploy, distill, label, narrate, parts, reproduce, run, sweep
from s2kd.cli.sections import Sections
from s2kd.cli.serve import serve
from s2kd.cli.watch import watch

app = typer.Typer(
    name="s2kd",
    cls=Sections,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
SECTIONS = {
    "Make and use a small forecaster": {
        distill.distill: "s2kd distill latest.nc --out runs/mine --max-latency 5ms",
        label.label: "s2kd label heavy:model archive.nc --out capture.zarr --latents",
        watch: "s2kd watch runs/mine --web",
        deploy.forecast: "s2kd forecast runs/mine latest.nc --out forecast.nc",
        deploy.export: "s2kd export runs/mine --out student",
        deploy.benchmark: "s2kd benchmark runs/mine",
        serve: "s2kd serve runs/mine --latest latest.nc",
    },
    "Compare methods": {
        run.compare: "s2kd compare ncep_air --data FOLDER --out runs/air",
        run.evaluate: "s2kd evaluate runs/air --horizon 4",
        run.diagnose: "s2kd diagnose runs/air",
        run.report: "s2kd report runs/air",
        sweep.sweep: "s2kd sweep ncep_air --data FOLDER --out runs/sweep --minutes 60",
        narrate.narrate: "s2kd narrate latest.nc --out runs/mine --preview 20",
        reproduce.reproduce: "s2kd reproduce table1 extremes",
    },
    "Look around": {
        demo.demo: "s2kd demo",
        parts.list_: "s2kd list recipes",
        parts.check: "s2kd check backbones:unet",
    },
}
app.add_typer(data.app, name="data", rich_help_panel="Data")
for section, examples in SECTIONS.items():
    for verb, example in examples.items():
        name = verb.__name__.rstrip("_")
        app.command(name, rich_help_panel=section, epilog=f"$ {example}")(verb)
app.command("run", hidden=True)(run.compare)  # its name in earlier versions


def _print_version(requested: bool) -> bool:
    if requested:
        import s2kd

        print(s2kd.__version__)
        raise typer.Exit
    return requested


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit; errors that the user can put right are one sentence, status 2."""
    # OpenMP threads that wait by spinning are up to thirty times slower on a busy machine; PyTorch
    # reads this when it is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from s2kd.core.console import escape_what_a_terminal_lacks
    from s2kd.core.errors import S2KDError

    escape_what_a_terminal_lacks()
    try:
        app(args=arguments)
    except S2KDError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("s2kd: stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if _disk_is_full(error):
            _fail("the disk is full; free some space, and the same command goes on from here")
        if _memory_is_full(error):
            _fail("out of memory; lower the sizes of models and data, or the batch size")
        if isinstance(error, OSError) and error.filename:
            _fail(_file_error(error))
        raise


def _disk_is_full(error: Exception) -> bool:
    """Whether the disk, a quota or a limit on file size is reached.

    safetensors and HDF5 report this in the message only; PyTorch names its archive writer.
    """
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno in codes:
        return True
    messages = (*map(os.strerror, codes), "inline_container", "PytorchStreamWriter")
    return any(message in str(error) for message in messages)


def _memory_is_full(error: Exception) -> bool:
    """Whether NumPy or PyTorch, which says so in the message only, could not allocate."""
    messages = ("can't allocate memory", "CUDA out of memory")
    return isinstance(error, MemoryError) or any(message in str(error) for message in messages)


def _file_error(error: OSError) -> str:
    """The path that could not be used, and why."""
    # of a rename, the second name is the one that the user gave
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
