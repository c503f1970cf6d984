"""From data to the best small forecaster: plan, teach, search, judge, answer."""

import dataclasses
import math
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec.structs import replace

from s2kd.core.console import Progress
from s2kd.core.errors import S2KDError
from s2kd.core.files import digest, read_json, write_json
from s2kd.core.methods import Method, Part, method_named
from s2kd.core.recipe import Recipe, Stored
from s2kd.deploy.export import measure_onnx
from s2kd.evaluation.answer import Answer, Candidate, Cost, answer_of
from s2kd.data.windows import WindowDataset
from s2kd.models.checkpoint import build_teacher
from s2kd.models.given import open_teacher
from s2kd.models.layers import parameter_count
from s2kd.pipeline.candidates import (
    Budget,
    Design,
    MeasuredStudent,
    designs,
    measured,
    search_methods,
    student_parts,
    time_of_step,
)
from s2kd.pipeline.checks import check_captures, check_parts
from s2kd.pipeline.evaluate import TEACHER_METHODS, evaluate, export, report
from s2kd.pipeline.folder import Busy, load_recipe, locked, open_run
from s2kd.pipeline.narrate import narrate
from s2kd.pipeline.queue import OutOfTime
from s2kd.pipeline.run import Run
from s2kd.pipeline.search import Search, promote, tidy
from s2kd.pipeline.targets import copy_stored, store_teacher_outputs
from s2kd.pipeline.teach import train_teachers
from s2kd.training.extra import extra_windows
from s2kd.training.label_files import LabelFiles
from s2kd.training.labels import Labels, is_labels
from s2kd.training.loop import StopTraining, validation_error
from s2kd.training.objectives import exists_or_none, prediction_loss
from s2kd.training.stored import StoredForecasts

BUILTIN = "builtin"
"""The privileged teacher, trained on the user's data."""
TEACHER_SHARE = 0.3
"""At most this share of the time goes into training a teacher."""
FINAL_SHARE = 0.08
"""Share of the time for scores, report and export."""
MOST_TEACHER_EPOCHS = 28
"""Later, a teacher is better itself and teaches worse (docs/log.md; Cho & Hariharan 2019)."""
FEWEST_EPOCHS, MOST_EPOCHS, MOST_STEPS = 6, 200, 40_000
"""Bounds of the length of a candidate's training."""
USEFUL_EPOCHS = 15
"""Students are dropped from a search until so many epochs fit into its time."""
EXTRA_COST, DISTILLATION_COST = 2.0, 1.15
"""Cost of a step with extra windows, and of one that compares with a teacher, in plain steps."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user asks for; the rest is chosen by measurements.

    Attributes
    ----------
    budget
        What a student may cost.
    minutes
        Wall time of everything.
    teachers
        `builtin`, stored forecasts or labels (a path), or a callable (`models.given.open_teacher`);
        of several, the best on validation teaches. None for the built-in one, or for the captures'.
    captures, unlabelled
        Label stores and files of further frames (`Recipe.captures`, `Recipe.unlabelled`).
    students, sizes
        Backbones and sizes to try; empty for all.
    """

    budget: Budget = Budget()
    minutes: float = 30.0
    teachers: tuple[str, ...] = ()
    captures: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()


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


def recipe_with(run: Run, wishes: Wishes) -> Recipe:
    """The recipe of a run with the teacher and the methods of a search.

    Raises S2KDError where a teacher or a capture does not fit the data, or where none of several
    teachers can be judged on validation.
    """
    recipe = replace(
        run.recipe,
        captures=tuple(Stored(path=path) for path in wishes.captures),
        unlabelled=wishes.unlabelled,
    )
    sources = wishes.teachers or (() if wishes.captures or run.given else (BUILTIN,))
    source = sources[0] if sources else ""
    if len(sources) > 1:
        source = best_teacher(run, sources)
        run.say(f"The best teacher on validation: {source}")
    kind, latents = "none", True
    if run.given is not None:
        kind, latents = "given", run.given_teacher.latent_width is not None
    elif source == BUILTIN:
        kind = "text" if recipe.narrator.name != "none" else "no_text"
    elif source and _is_stored(source):
        kind, recipe = "stored", replace(recipe, stored=replace(recipe.stored, path=source))
        latents = _has_latents(recipe.stored)
    elif source:
        kind, recipe = "given", replace(recipe, given=source)
        latents = open_teacher(source, setting=run.setting).latent_width is not None
    if wishes.captures:
        stores = [Labels.open(path) for path in wishes.captures]
        latents = all(labels.latent_width is not None for labels in stores)
    methods = search_methods(kind, captures=bool(wishes.captures), latents=latents)
    return replace(recipe, methods=methods)


def _has_latents(stored: Stored) -> bool:
    path = Path(stored.path).expanduser()
    return bool(stored.latent) or (is_labels(path) and LabelFiles(path).has("latent"))


def best_teacher(run: Run, sources: Sequence[str]) -> str:
    """The one of several given or stored teachers with the lowest validation error."""
    if BUILTIN in sources:
        raise S2KDError(
            f"--teacher {BUILTIN}: is trained on your data, so give it alone, or give it the "
            "others' forecasts to compare with by `s2kd compare`"
        )
    windows = run.windows("val", device=run.fabric.device)
    errors = {}
    for source in sources:
        if _is_stored(source):
            errors[source] = stored_error(run, Stored(path=source), windows)
        else:
            teacher = open_teacher(source, setting=run.setting).to(run.fabric.device)
            errors[source] = validation_error(teacher, windows, None, run.fabric)
    return min(errors, key=errors.__getitem__)


def stored_error(run: Run, stored: Stored, windows: WindowDataset) -> float:
    """L_pred (eq. 1) of stored forecasts of these windows, all of which they must hold."""
    forecasts, normaliser = StoredForecasts(stored, windows), run.setting.normaliser
    exists, total = exists_or_none(windows), 0.0
    for index in torch.arange(len(windows)).split(32):
        future = torch.from_numpy(forecasts.read(index.numpy())[0])
        batch = windows.gather(index)
        total += len(index) * float(
            prediction_loss(future.to(batch.future), batch.future, normaliser, exists)
        )
    return total / len(windows)


def _is_stored(source: str) -> bool:
    """Whether a teacher is given by its forecasts in files."""
    return Path(source).suffix.lower() in (".zarr", ".nc", ".nc4", ".grib", ".grib2", ".grb")


# --- plan ----------------------------------------------------------------------------------------


def make_plan(run: Run, wishes: Wishes) -> Plan:
    """Build, export and time every student and the teacher, and divide the time.

    Raises S2KDError where no student is within the budget, or where disk or memory do not suffice.
    """
    recipe, count = run.recipe, len(run.windows("train"))
    parts = student_parts(
        run.dataset.grid, backbones=wishes.students, sizes=wishes.sizes, norm=_norm(recipe)
    )
    students, failures = [], {}
    progress = run.progress("measuring students")
    for number, (name, part) in enumerate(parts.items(), 1):
        try:
            students.append(measured(run, name, part, wishes.budget))
        except S2KDError as error:
            failures[name] = str(error)
        progress(number, len(parts), name)
    if all(student.excess for student in students):
        raise S2KDError(_nothing_left(students, failures))
    batch = recipe.student_training.batch_size
    steps = -(-count // batch)
    seconds = dict.fromkeys(("teacher", "labels", "search", "scores"), 0.0)
    total = 60 * wishes.minutes
    teacher_epochs, latent_values = 0, 0
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
    students, per_epoch = _in_time(students, recipe.methods, steps, remaining)
    most = max(FEWEST_EPOCHS, min(MOST_EPOCHS, MOST_STEPS // steps))
    epochs = _clamp(remaining / per_epoch, FEWEST_EPOCHS, most)
    seconds["search"] = epochs * per_epoch
    return Plan(
        windows={split: len(run.windows(split)) for split in ("train", "val", *run.test_splits)},
        teacher=_teacher_name(recipe),
        students=tuple(students),
        methods=tuple(method.name for method in recipe.methods),
        epochs=epochs,
        teacher_epochs=teacher_epochs,
        seconds=seconds,
        disk_bytes=disk_estimate(run, students, latent_values),
        memory_bytes=memory_estimate(run, students),
        failures=failures,
    )


@dataclass(frozen=True, kw_only=True)
class TeacherCost:
    """Size and speed of the built-in teacher, without its alignment with text."""

    parameters: int
    bytes: int
    latency_ms: float
    epoch_seconds: float
    latent_values: int


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
) -> tuple[list[MeasuredStudent], float]:
    """The students without the slowest to train, as many as there is time for, and the cost.

    Dropped ones have an `excess`. The cost is that of `search_cost`.
    """
    students = list(students)
    while True:
        affordable = [student for student in students if not student.excess]
        cost = search_cost(affordable, methods, steps)
        if cost * USEFUL_EPOCHS <= seconds or len(affordable) == 1:
            return students, cost
        slowest = max(affordable, key=lambda student: student.step_seconds)
        at = students.index(slowest)
        students[at] = dataclasses.replace(slowest, excess="too slow to train in this time")


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
    run.out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run.out).free
    if plan.disk_bytes > free:
        raise S2KDError(
            f"{run.out}: the search needs {_gib(plan.disk_bytes)} on disk, {_gib(free)} are free; "
            "choose another --out, or fewer --students or --sizes"
        )
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


# --- the job -------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class MainJob:
    """One `distill`: a run with its search's methods, in a folder, until a deadline.

    `base` holds the data and the recipe; `run_settings` are those of `Run` (machine, progress, say).
    """

    base: Run
    wishes: Wishes
    run_settings: dict[str, Any]
    started: float = field(default_factory=time.monotonic)

    @property
    def recipe(self) -> Recipe:
        """The recipe with the methods of the search."""
        return self.base.recipe

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.base.out

    @property
    def deadline(self) -> float:
        """When everything must be done."""
        return self.started + 60 * self.wishes.minutes

    def plan(self) -> Plan:
        """The plan of this folder, made now where there is none of these wishes."""
        path = self.out / "search" / "plan.json"
        key = digest([self.recipe.to_dict(), asdict(self.wishes)])
        saved = read_json(path) if path.exists() else {}
        if saved.get("key") == key:
            return msgspec.convert(saved["plan"], Plan)
        check_captures(self.base)
        plan = make_plan(self.base, self.wishes)
        check_room(self.base, plan)
        self.open(plan)  # so that the folder is a run's before anything else lies in it
        write_json(path, {"key": key, "plan": msgspec.to_builtins(plan)})
        return plan

    def open(self, plan: Plan) -> Run:
        """The run with the plan's numbers of epochs."""
        teacher_training = replace(
            self.recipe.teacher_training,
            epochs=plan.teacher_epochs or self.recipe.teacher_training.epochs,
        )
        recipe = replace(
            self.recipe,
            teacher_training=teacher_training,
            student_training=replace(self.recipe.student_training, epochs=plan.epochs),
        )
        if (self.out / "recipe.json").exists() and any((self.out / "teachers").glob("*")):
            # a search with more time goes on with the teacher that is there
            recipe = replace(recipe, teacher_training=load_recipe(self.out).teacher_training)
        return self._opened(recipe)

    def _opened(self, recipe: Recipe) -> Run:
        """The run of this recipe in the folder, with the data that are loaded already."""
        run = open_run(recipe, self.out, free=("student_training",), **self.run_settings)
        run.dataset, run.train_stats, run.fabric = (
            self.base.dataset,
            self.base.train_stats,
            self.base.fabric,
        )
        return run

    def prepare(self, run: Run, plan: Plan) -> None:
        """Narratives, teacher and its outputs, by one process; the others wait."""
        limit = time.monotonic() + 1.5 * plan.seconds["teacher"] + 5
        while True:
            try:
                with locked(self.out):
                    if any(method.teacher == "stored" for method in run.recipe.methods):
                        copy_stored(run)
                    narrate(run)
                    run.on_epoch = _until(min(limit, self.deadline))
                    train_teachers(run)
                    run.on_epoch = None
                    for kind in {method.teacher for method in run.recipe.methods}:
                        store_teacher_outputs(run, kind, run.recipe.seeds[0], run.recipe.methods)
                return
            except Busy:
                run.say("Waiting for another process, which makes the teacher")
                time.sleep(2)

    def search(self, run: Run, plan: Plan) -> Search:
        """Train candidates until all are judged or the time for it is over."""
        methods = [method_of(run.recipe, name) for name in plan.methods]
        search = Search(
            run=run,
            designs=designs(plan.students, methods),
            epochs=plan.epochs,
            deadline=self.deadline - plan.seconds["scores"],
        )
        watched, run.progress = run.progress, _limited(run.progress, search)
        search.run_until_done()
        run.progress = watched
        if not search.finished():
            raise S2KDError(_no_candidate(search))
        return search

    def finish(self, run: Run, plan: Plan, search: Search) -> Answer:
        """The best candidate and its peers: trained to the end, scored once, reported, exported."""
        with locked(self.out):
            _, best = search.finished()[0]
            baseline = Design(student=best.student, method=method_named("baseline"))
            run.say(f"The best on validation: {best.name}")
            if search.states()[baseline.name] != "finished":
                search.deadline = self.deadline
                search.try_design(baseline, to_the_end=True)
            peers = [d for _, d in search.finished() if d.student.name == best.student.name]
            chosen = {d.method.name: d for d in [*peers, baseline]}
            for design in chosen.values():
                promote(run, design)
            order = [m for m in [baseline.method, *run.recipe.methods] if m.name in chosen]
            recipe = replace(
                run.recipe,
                students=(best.student.part,),
                methods=tuple({method.name: method for method in order}.values()),
            )
            final = self._opened(recipe)
            scores = evaluate(final)
            answer = answer_of(
                scores,
                chosen=_label(best.student.part, best.method),
                baseline=_label(best.student.part, baseline.method),
                costs=self._costs(run, search, chosen.values()),
                candidates=[*search.candidates(), *_left_out(plan)],
                search={
                    "seconds": round(time.monotonic() - self.started, 1),
                    "minutes": self.wishes.minutes,
                    "max_latency_ms": self.wishes.budget.max_latency_ms,
                    "max_parameters": self.wishes.budget.max_parameters,
                    "windows": plan.windows,
                    "epochs": plan.epochs,
                    "teacher": plan.teacher,
                    "failures": plan.failures,
                },
            )
            write_json(self.out / "answer.json", answer.to_dict())
            report(final)
            export(final)
            tidy(run, list(chosen.values()))
        return answer

    def _costs(
        self, run: Run, search: Search, finished: Iterable[Design]
    ) -> dict[str, Cost]:
        """Size, speed and training time by the labels of the leaderboard."""
        seconds = {candidate.label: candidate.seconds for candidate in search.candidates()}
        costs = {
            _label(d.student.part, d.method): Cost(
                latency_ms=d.student.latency_ms,
                bytes=d.student.bytes,
                parameters=d.student.parameters,
                seconds=seconds.get(d.name),
                runtime=RUNTIME,
            )
            for d in finished
        }
        if run.teacher_kinds:
            cost = measured_teacher(run)
            for kind in run.teacher_kinds:
                costs[TEACHER_METHODS[kind]] = Cost(
                    latency_ms=cost.latency_ms,
                    bytes=cost.bytes,
                    parameters=cost.parameters,
                    seconds=None,
                    runtime=RUNTIME,
                )
        return costs


def _limited(progress: Callable[[str], Progress], search: Search) -> Callable[[str], Progress]:
    """Progress that raises `OutOfTime` long after the deadline: epochs end by themselves.

    Not before one candidate is trained.
    """

    def watched(stage: str) -> Progress:
        show = progress(stage)

        def update(done: int, total: int, word: str = "") -> None:
            show(done, total, word)
            if done < total and time.monotonic() > search.deadline + 10 and search.finished():
                raise OutOfTime(stage)

        return update

    return watched


RUNTIME = "ONNX Runtime, batch 1, 1 thread"


def _left_out(plan: Plan) -> list[Candidate]:
    """Students that were not trained: over the budget, too slow, or impossible on this grid."""
    return [
        Candidate(
            student=student.name,
            settings=student.part.params,
            method="",
            label=student.name,
            parameters=student.parameters,
            bytes=student.bytes,
            latency_ms=student.latency_ms or None,
            runtime=RUNTIME,
            validation=None,
            seconds=0.0,
            epochs=0,
            state="over_budget",
            reason=student.excess,
        )
        for student in plan.students
        if student.excess
    ]


def method_of(recipe: Recipe, name: str) -> Method:
    """The recipe's method of this name."""
    return next(method for method in recipe.methods if method.name == name)


def _label(part: Part, method: Method) -> str:
    """The label of a student in scores (`evaluation.summary.label_of`)."""
    return f"{part.name} {method.name}"


def _until(deadline: float) -> Callable[[Mapping[str, Any]], None]:
    """Called after every epoch, it ends a training at the deadline."""

    def on_epoch(record: Mapping[str, Any]) -> None:
        if time.monotonic() > deadline:
            raise StopTraining

    return on_epoch


def _no_candidate(search: Search) -> str:
    reasons = [c.reason for c in search.candidates() if c.reason and c.state == "failed"]
    if reasons:
        return f"every candidate failed; the last: {reasons[-1]}"
    return "the time was over before one candidate had trained for an epoch; raise --time"


def distill(
    recipe: Recipe,
    *,
    out: Path | str,
    wishes: Wishes = Wishes(),
    show_plan: Callable[[Plan], object] = lambda plan: None,
    plan_only: bool = False,
    **run_settings: Any,
) -> Answer | None:
    """Find, train and judge the best small forecaster within a budget; continues where it stopped.

    Parameters
    ----------
    recipe
        Data, split, teacher and length of windows; its students and methods are replaced.
    out
        The run folder.
    wishes
        Budget, time, teachers, captures, and what is tried.
    show_plan
        Called with the plan before anything long begins.
    plan_only
        Whether to stop there; the result is None.
    run_settings
        Machine, progress and say (`Run`).

    Returns
    -------
    The answer, which is also in `answer.json` and at the top of `report.html`.
    """
    if wishes.minutes <= 0:
        raise S2KDError(f"--time {wishes.minutes:g}m: must be longer than 0 minutes")
    started, base = time.monotonic(), Run(recipe=recipe, out=Path(out), **run_settings)
    base.recipe = recipe_with(base, wishes)
    check_parts(base.recipe)
    job = MainJob(base=base, wishes=wishes, run_settings=run_settings, started=started)
    with locked(job.out):
        plan = job.plan()
    show_plan(plan)
    if plan_only:
        return None
    run = job.open(plan)
    job.prepare(run, plan)
    search = job.search(run, plan)
    return job.finish(run, plan, search)
