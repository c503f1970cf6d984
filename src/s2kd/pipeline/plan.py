"""Plan of a search: what is trained for how long, and the disk and memory that it takes."""

import dataclasses
import math
import os
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from s2kd.core import files
from s2kd.core.errors import S2KDError
from s2kd.core.methods import Method
from s2kd.core.recipe import Recipe
from s2kd.deploy.export import measure_onnx
from s2kd.models.checkpoint import build_teacher
from s2kd.models.layers import parameter_count
from s2kd.pipeline.candidates import (
    Measured,
    MeasuredStudent,
    measured,
    student_parts,
    time_of_step,
)
from s2kd.pipeline.options import SearchOptions
from s2kd.pipeline.run import Run
from s2kd.training.extra import extra_windows

TEACHER_SHARE = 0.3
"""At most this share of the time goes into training a teacher."""
FINAL_SHARE = 0.08
"""Share of the time for scores, report and export."""
MOST_TEACHER_EPOCHS = 28
"""Later, a teacher is better itself and teaches worse (docs/log.md; Cho & Hariharan 2019)."""
FEWEST_EPOCHS, MOST_EPOCHS, MOST_STEPS = 6, 200, 40_000
"""Bounds of the length of a candidate's training."""
USEFUL_STEPS, USEFUL_EPOCHS = 6000, (12, 60)
"""Students are dropped from a search until so many steps fit into its time, within these epochs."""
TOO_SLOW = "too slow to train in this time"
EXTRA_COST, DISTILLATION_COST = 2.0, 1.15
"""Cost of a step with extra windows, and of one that compares with a teacher, in plain steps."""


@dataclass(frozen=True, kw_only=True)
class TeacherCost(Measured):
    """The built-in teacher, without its alignment with text."""

    epoch_seconds: float
    latent_values: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be trained, for how long, and what it takes.

    `seconds` is the expected time by stage; `disk_bytes` and `memory_bytes` are at most in use.
    `failures` are students that cannot be built or exported, with the reason.
    """

    windows: dict[str, int]
    teacher: str
    students: tuple[MeasuredStudent, ...]
    methods: tuple[str, ...]
    epochs: int
    teacher_epochs: int
    seconds: dict[str, float]
    disk_bytes: int
    memory_bytes: int
    failures: dict[str, str] = field(default_factory=dict)
    teacher_cost: TeacherCost | None = None


def make_plan(run: Run, options: SearchOptions) -> Plan:
    """Build, export and time every student and the teacher, and divide the time.

    Raises S2KDError where no student is within the budget, or where disk or memory do not suffice.
    """
    recipe, count = run.recipe, len(run.windows("train"))
    parts = student_parts(
        run.dataset.grid, backbones=options.students, sizes=options.sizes, norm=_norm(recipe)
    )
    students, failures = [], {}
    progress = run.progress("measuring students")
    for number, (name, part) in enumerate(parts.items(), 1):
        try:
            students.append(measured(run, name, part, options.budget))
        except S2KDError as error:
            failures[name] = str(error)
        progress(number, len(parts), name)
    if all(student.excess for student in students):
        raise S2KDError(_nothing_left(students, failures))
    batch = recipe.student_training.batch_size
    steps = -(-count // batch)
    seconds = dict.fromkeys(("teacher", "labels", "search", "scores"), 0.0)
    total = 60 * options.minutes
    teacher_cost, teacher_epochs, latent_values = None, 0, 0
    if run.teacher_kinds:
        teacher_cost = measured_teacher(run)
        per_epoch = 1.3 * len(run.teacher_kinds) * teacher_cost.epoch_seconds
        teacher_epochs = _clamp(TEACHER_SHARE * total / per_epoch, 4, MOST_TEACHER_EPOCHS)
        seconds["teacher"] = teacher_epochs * per_epoch
        copies = 1 + max(map(extra_copies, recipe.methods))
        seconds["labels"] = 0.4 * teacher_cost.epoch_seconds * copies
        latent_values = teacher_cost.latent_values
    seconds["scores"] = FINAL_SHARE * total
    remaining = total - sum(seconds.values())
    students, methods, per_epoch = _in_time(students, recipe.methods, steps, remaining)
    most = max(FEWEST_EPOCHS, min(MOST_EPOCHS, MOST_STEPS // steps))
    epochs = _clamp(remaining / per_epoch, FEWEST_EPOCHS, most)
    seconds["search"] = epochs * per_epoch
    return Plan(
        windows={split: len(run.windows(split)) for split in ("train", "val", *run.test_splits)},
        teacher=_teacher_name(recipe),
        students=tuple(students),
        methods=tuple(method.name for method in methods),
        epochs=epochs,
        teacher_epochs=teacher_epochs,
        seconds=seconds,
        disk_bytes=disk_estimate(run, students, latent_values),
        memory_bytes=memory_estimate(run, students),
        failures=failures,
        teacher_cost=teacher_cost,
    )


def measured_teacher(run: Run) -> TeacherCost:
    """The built-in teacher, built, exported and timed untrained."""
    with torch.random.fork_rng(devices=[]):
        teacher = build_teacher(run.recipe.teacher, run.setting, text_width=1, reads=False)
    latency_ms, size = measure_onnx(teacher, run.setting)
    batch = run.recipe.teacher_training.batch_size
    step = time_of_step(run, teacher, batch_size=batch)
    return TeacherCost(
        parameters=parameter_count(teacher),
        bytes=size,
        latency_ms=latency_ms,
        step_seconds=step,
        epoch_seconds=step * -(-len(run.windows("train")) // batch),
        latent_values=teacher.latent_width * math.prod(teacher.latent_grid),
    )


def extra_copies(method: Method) -> int:
    """Extra windows per own window that are stored for a method."""
    if method.extra is None:
        return 0
    settings = extra_windows.resolved(method.extra.name, method.extra.params)
    return int(settings.get("copies") or 8)


def _in_time(
    students: Sequence[MeasuredStudent], methods: Sequence[Method], steps: int, seconds: float
) -> tuple[list[MeasuredStudent], Sequence[Method], float]:
    """Students and methods, as many as there is time for, and the `search_cost` of them.

    Methods other than the first two, the most promising one and no distillation, go before any
    student; then the slowest students go, which have an `excess` then.
    """
    students, useful = list(students), _clamp(USEFUL_STEPS / steps, *USEFUL_EPOCHS)
    while True:
        affordable = [student for student in students if not student.excess]
        for tried in (methods, methods[:2]):
            cost = search_cost(affordable, tried, steps)
            if cost * useful <= seconds:
                return students, tried, cost
        if len(affordable) == 1:
            return students, methods[:2], cost
        slowest = max(affordable, key=lambda student: student.step_seconds)
        at = students.index(slowest)
        students[at] = dataclasses.replace(slowest, excess=TOO_SLOW)


def search_cost(
    students: Sequence[MeasuredStudent], methods: Sequence[Method], steps: int
) -> float:
    """Seconds of the whole search per epoch of a full training.

    By successive halving, about half of the first method's trainings is done, and about 0.6 of the
    other methods' with the two students that go on, which may be the dearest; then the baseline.
    """
    costs = sorted((student.step_seconds for student in students), reverse=True)
    first, *others = (_step_cost(method) for method in methods)
    dearest = costs[:2]
    total = 0.5 * first * sum(costs) + 0.6 * sum(others) * sum(dearest) + costs[0]
    return steps * total


def _step_cost(method: Method) -> float:
    cost = DISTILLATION_COST if method.terms else 1.0
    return cost * (EXTRA_COST if extra_copies(method) else 1.0)


def _clamp(value: float, least: int, most: int) -> int:
    return int(min(max(value, least), most))


def _norm(recipe: Recipe) -> str:
    """The norm that the recipe's own student has, "" for the backbones' default."""
    return str(recipe.students[0].params.get("norm", ""))


def _nothing_left(students: Sequence[MeasuredStudent], failures: Mapping[str, str]) -> str:
    if students:
        least = min(students, key=lambda s: (s.parameters, s.latency_ms))
        fast = min(students, key=lambda s: s.latency_ms if s.latency_ms > 0 else math.inf)
        return (
            f"no student is within the budget: the smallest has {least.parameters:,} parameters "
            f"({least.name}), the fastest takes {fast.latency_ms:.2f} ms ({fast.name}); raise "
            "--max-parameters or --max-latency"
        )
    name, reason = next(iter(failures.items()))
    return f"no student can be built on this grid; {name}: {reason}"


def disk_estimate(run: Run, students: Sequence[MeasuredStudent], latent_values: int) -> int:
    """Bytes on disk at most: labels of the training windows in float16, checkpoints and models."""
    recipe, grid = run.recipe, run.dataset.grid
    values = recipe.lead * len(grid.channels) * grid.height * grid.width + latent_values
    taught = [method for method in recipe.methods if method.terms]
    windows = len(run.windows("train")) * sum({extra_copies(m) for m in taught} | {1})
    targets = 2 * values * windows if taught else 0
    # a checkpoint holds weights, the best weights and two moments of Adam
    models = sum(5 * 4 * student.parameters for student in students) * len(recipe.methods)
    return targets + models


def memory_estimate(run: Run, students: Sequence[MeasuredStudent]) -> int:
    """Bytes of memory at most, on the device that trains: the peak so far, with what is to come.

    The peak holds the frames and one training step of every student and of the teacher.
    """
    largest = max(student.parameters for student in students)
    if run.fabric.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(run.fabric.device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak + 5 * 4 * largest + 2**30  # of targets, at most so much is held in memory


def check_room(run: Run, plan: Plan) -> None:
    """Refuse what would end in a full disk or memory, before anything long begins."""
    remedy = "choose another --out, or fewer --students or --sizes"
    files.check_room(run.out, plan.disk_bytes, remedy=remedy)
    if run.fabric.device.type == "cuda":
        memory = torch.cuda.mem_get_info(run.fabric.device)[1]
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if plan.memory_bytes > memory:
        raise S2KDError(
            f"the search needs {_gib(plan.memory_bytes)} of memory, this device has "
            f"{_gib(memory)}; leave the large --sizes out, or lower student_training.batch_size"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _teacher_name(recipe: Recipe) -> str:
    kinds = {method.teacher for method in recipe.methods} - {"none"}
    if "stored" in kinds:
        return recipe.stored.path
    if "given" in kinds:
        return recipe.given
    if kinds & {"text", "no_text"}:
        return f"{recipe.teacher.backbone.name} ({', '.join(sorted(kinds))})"
    return ", ".join(capture.path for capture in recipe.captures) or "none"
