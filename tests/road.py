"""One tiny experiment, walked to its end once a session, for the tests of the road."""

import atexit
import functools
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from s2kd import pipeline
from s2kd.core.recipe import Part, Recipe, TeacherSpec, Training
from s2kd.pipeline.recipes import BASELINE, FITNET, OUTPUT, s2kd

S2KD = (sys.executable, "-m", "s2kd")
QUICK = Training(epochs=2, batch_size=8, lr=2e-3, schedule="cosine", clip=1.0)
TEACHER = TeacherSpec(
    backbone=Part(
        name="simvp",
        # dropped paths: so that a random state that is not restored shows
        params={"spatial": 4, "temporal": 16, "blocks": 2, "expansion": 2, "drop_path": 0.2},
    ),
    width=16,
    heads=2,
    depth=1,
    dropout=0.1,
)


def tiny() -> Recipe:
    """Every method on blobs, by models of a few thousand weights."""
    return Recipe(
        name="tiny",
        dataset=Part(name="blobs", params={"size": 16, "runs": 5, "length": 20}),
        past=3,
        lead=2,
        predict="change",
        narrator=Part(name="rules"),
        text=Part(name="hashed"),
        teacher=TEACHER,
        students=(Part(name="unet", params={"width": 4}),),
        methods=(BASELINE, OUTPUT, FITNET, s2kd()),
        teacher_training=QUICK,
        student_training=QUICK,
    )


MODELS = (
    "teachers/text-seed42",
    "teachers/no_text-seed42",
    "students/unet-baseline-seed42",
    "students/unet-output-seed42",
    "students/unet-fitnet-seed42",
    "students/unet-s2kd-seed42",
)


def scratch() -> Path:
    """A folder that goes when the session ends."""
    folder = Path(tempfile.mkdtemp(prefix="s2kd-road-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def walk(recipe: Recipe, out: Path, *, until: str = pipeline.STAGES[-1]) -> list[str]:
    """The road to a stage; the stages that had work to do, in order."""
    stages: dict[str, None] = {}

    def progress(stage: str):
        return lambda done, total, word="": stages.setdefault(stage)

    pipeline.run_all(pipeline.open_run(recipe, out, progress=progress), until=until)
    return list(stages)


@functools.cache
def finished() -> Path:
    """A finished run of `tiny()`: to be read, or copied and then changed."""
    out = scratch() / "run"
    walk(tiny(), out)
    return out


def copy_of(run: Path, to: Path) -> Path:
    """A copy with the times of the files kept."""
    return Path(shutil.copytree(run, to))


def saved_recipe(folder: Path, recipe: Recipe | None = None) -> Path:
    """The recipe as the JSON file that a user would write."""
    path = folder / "tiny.json"
    path.write_text(json.dumps((recipe or tiny()).to_dict()))
    return path


def environment(**more: str) -> dict[str, str]:
    """For subprocesses: one thread, so that sums are always made in one order."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **more}


def content(folder: Path, pattern: str = "**/*") -> dict[str, bytes]:
    """Every file below `folder`, by its name there."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def weights(out: Path) -> dict[str, bytes]:
    """The weights of every model of a run, byte by byte."""
    return content(out, "*/*/model.safetensors")


# --- the command line in processes of its own ----------------------------------------------------


def forked(target: Callable[..., object], *arguments: object) -> multiprocessing.Process:
    """A started process of a server that has imported everything once.

    Importing takes longer than a tiny run.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "s2kd.pipeline",
            "s2kd.evaluation.figures",
            "lightning_fabric",
            "matplotlib.pyplot",
            "road",
        ]
    )
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def start(
    arguments: list[str],
    log: Path,
    *,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    largest_file: int = 0,
) -> multiprocessing.Process:
    """`s2kd ARGUMENTS` in a forked process.

    Output goes to `log`; a `largest_file` (bytes) makes further writing fail as on a full disk.
    `folder` is the working folder.
    """
    settings = (folder or Path.cwd(), environment or {}, largest_file)
    return forked(_verb, arguments, str(log), *settings)


def _verb(
    arguments: list[str], log: str, folder: Path, environment: dict[str, str], largest_file: int
) -> None:
    import torch

    from s2kd.cli import main

    os.chdir(folder)
    os.environ.update(environment)
    with Path(log).open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    if largest_file:
        import resource

        sys.dont_write_bytecode = True  # Python renames a module cut short into place
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    main(arguments)
