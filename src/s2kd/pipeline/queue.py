"""A queue of trainings: narrowed recipes in folders, in parallel, until the time is up.

```python
with opened_folders({out: recipe}):
    summary = run_jobs(jobs_of(recipe, out), JobContext(minutes=9, parallel=2))
```

A job is a recipe narrowed to some seeds, methods and students, in the run folder of the whole
recipe. What is finished is not done again, so the same call continues where the last one stopped.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from msgspec import structs

from s2kd.core.console import Progress
from s2kd.core.errors import S2KDError
from s2kd.core.recipe import Recipe
from s2kd.pipeline.distil import train_students
from s2kd.pipeline.folder import locked, open_run
from s2kd.pipeline.narratives import narrate
from s2kd.pipeline.run import Machine, Run, silent
from s2kd.pipeline.teach import copy_teacher, teacher_folder, train_teacher

LOADED_RUNS = 3
"""Runs whose data stay in memory, since jobs of one folder follow each other."""


class OutOfTime(Exception):
    """The minutes are spent; the training can go on from its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A narrowed recipe in a run folder; `finish` is called with the trained run.

    With several processes `finish` has to be picklable: a function of a module, or its partial.
    """

    recipe: Recipe
    folder: Path
    finish: Callable[[Run], object] | None = None

    @property
    def name(self) -> str:
        """Folder, students, methods and seeds."""
        students = "+".join(part.name for part in self.recipe.students)
        methods = "+".join(method.name for method in self.recipe.methods)
        seeds = "+".join(map(str, self.recipe.seeds))
        return f"{self.folder.name}: {students} {methods} seed {seeds}"


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """How long jobs may take (0 minutes: no limit), how many run in parallel, and where."""

    minutes: float = 0.0
    parallel: int = 1
    machine: Machine = field(default_factory=Machine)
    horizon: int = 0
    progress: Callable[[str], Progress] = silent
    say: Callable[[str], None] = lambda text: None
    deadline: float | None = None

    def __post_init__(self) -> None:
        if self.minutes and self.deadline is None:
            object.__setattr__(self, "deadline", time.time() + 60 * self.minutes)

    @property
    def is_late(self) -> bool:
        """Whether the minutes are spent."""
        return self.deadline is not None and time.time() >= self.deadline

    def watched(self, stage: str) -> Progress:
        """The progress of a stage, which raises `OutOfTime` when the minutes are spent."""
        show = self.progress(stage)

        def progress(done: int, total: int, word: str = "") -> None:
            show(done, total, word)
            if done < total and self.is_late:
                raise OutOfTime(stage)

        return progress


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    """How many jobs were finished, and how many are left."""

    finished: int
    left: int


def jobs_of(recipe: Recipe, folder: Path) -> list[Job]:
    """One job per student, method and seed: whole seeds first, then methods."""
    return [
        Job(
            recipe=structs.replace(recipe, seeds=(seed,), methods=(method,), students=(student,)),
            folder=folder,
        )
        for seed in recipe.seeds
        for method in recipe.methods
        for student in recipe.students
    ]


@contextmanager
def opened_folders(recipes: Mapping[Path, Recipe]) -> Iterator[None]:
    """Lock these run folders, and write the whole recipe that each belongs to."""
    with ExitStack() as locks:
        for folder, recipe in recipes.items():
            locks.enter_context(locked(folder))
            open_run(recipe, folder)
        yield


def run_jobs(jobs: Sequence[Job], context: JobContext) -> JobSummary:
    """Run jobs in order until the minutes are spent; call again to continue.

    The caller holds the folders (`opened_folders`).

    With `parallel` > 1, as many processes share the cores or one GPU; a job starts when no other
    one is training its teacher. Raises the first error of a job, after the others have ended.
    """
    if context.parallel > 1 and context.machine.devices * context.machine.nodes != 1:
        raise S2KDError(f"--jobs {context.parallel}: each job has one device; leave --devices out")
    run_all = _in_sequence if context.parallel == 1 else _in_parallel
    finished = run_all(list(jobs), context)
    return JobSummary(finished=finished, left=len(jobs) - finished)


def run_job(job: Job, context: JobContext, folders: Sequence[Path] = ()) -> None:
    """Narrate, teach and distil for one job, then finish it.

    A teacher that one of the other `folders` holds is copied, not trained again.
    """
    run = _loaded_run(job, context)
    run.horizon = context.horizon
    run.progress, run.say = context.watched, context.say
    if "train" not in run._states:  # not yet in this process
        narrate(run)
    for seed in job.recipe.seeds:
        for kind in run.teacher_kinds:
            name = teacher_folder(run, kind, seed).relative_to(job.folder)
            copy_teacher(run, kind, seed, [folder / name for folder in folders])
            train_teacher(run, kind, seed)
    train_students(run)
    if job.finish is not None:
        job.finish(run)


def _in_sequence(jobs: list[Job], context: JobContext) -> int:
    folders = list(dict.fromkeys(job.folder for job in jobs))
    for number, job in enumerate(jobs):
        if context.is_late:
            return number
        context.say(f"{number + 1} of {len(jobs)}: {job.name}")
        try:
            run_job(job, context, folders)
        except OutOfTime:
            return number
    return len(jobs)


def _in_parallel(jobs: list[Job], context: JobContext) -> int:
    """The first job whose teacher is not being trained goes to the first free process."""
    _RUNS.clear()  # every process reads data of its own
    folders = list(dict.fromkeys(job.folder for job in jobs))
    waiting, running, finished = list(jobs), {}, 0
    threads = max(1, (os.cpu_count() or 1) // context.parallel)
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    # bars of several processes would overwrite each other, and callbacks cannot be pickled
    remote = replace(context, progress=silent, say=_say_nothing)
    with ProcessPoolExecutor(context.parallel, spawn, torch.set_num_threads, (threads,)) as pool:
        while waiting or running:
            for job in list(waiting):
                busy = set().union(*map(_unfinished, running.values()))
                free = len(running) < context.parallel and not context.is_late
                if free and busy.isdisjoint(_unfinished(job)):
                    waiting.remove(job)
                    running[pool.submit(run_job, job, remote, folders)] = job
                    context.say(f"started: {job.name}")
            if not running:
                break
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            finished += sum(_is_finished(future, running.pop(future), context) for future in ended)
    return finished


def _unfinished(job: Job) -> set[Path]:
    """Teachers, or token states, that this job would make before its student."""
    kinds = {method.teacher for method in job.recipe.methods} & {"text", "no_text"}
    folders = [f"{kind}-seed{seed}" for kind in kinds for seed in job.recipe.seeds]
    teachers = (job.folder / "teachers" / name for name in folders)
    files = {teacher / "model.json" for teacher in teachers}
    if "text" in kinds:
        files.add(job.folder / "states" / "test.safetensors")
    return {file for file in files if not file.exists()}


def _is_finished(future: "Future[None]", job: Job, context: JobContext) -> bool:
    try:
        future.result()
    except OutOfTime:
        return False
    context.say(f"done: {job.name}")
    return True


def _say_nothing(text: str) -> None:
    """Messages of a process that nobody reads."""


_RUNS: dict[Path, Run] = {}


def _loaded_run(job: Job, context: JobContext) -> Run:
    """The run of a job, with the data that the last job in its folder has loaded."""
    earlier = _RUNS.pop(job.folder, None)
    if earlier is not None and _same_data(earlier.recipe, job.recipe):
        run = earlier.narrowed(**structs.asdict(job.recipe))
    else:
        run = Run(recipe=job.recipe, out=job.folder, machine=context.machine)
        for loaded in _RUNS.values():
            if loaded.recipe.dataset == job.recipe.dataset and "dataset" in vars(loaded):
                run.dataset = loaded.dataset
    run.save_seconds = 20.0 if context.deadline is None else 10.0
    while len(_RUNS) >= LOADED_RUNS:
        del _RUNS[next(iter(_RUNS))]
    _RUNS[job.folder] = run
    return run


def _same_data(first: Recipe, second: Recipe) -> bool:
    """Whether two recipes differ in nothing but seeds, methods and students."""
    narrowed = {name: getattr(second, name) for name in ("seeds", "methods", "students")}
    return structs.replace(first, **narrowed) == second
