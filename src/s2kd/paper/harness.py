"""Units of work that respect the clock: done once, in order, several at a time, to be gone on with.

```
OUT/<study>/                 the run folder of a study (as `s2kd run` makes it)
OUT/<study>/done/<unit>.json what is finished, with its result files
RESULTS/<data>-<preset>-<split>.nc
```

What RESULTS holds of the same recipe, data and version is finished too, wherever it was trained.
So another machine goes on from the result files alone; a model that is still wanted there (a
teacher by a student, a student by a map) is trained again, and its results stay as they are.
"""

import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

import s2kd
from s2kd import pipeline
from s2kd.core.console import Progress
from s2kd.core.files import read_json, write_json
from s2kd.core.recipe import Method, Part
from s2kd.core.types import S2KDError
from s2kd.evaluation.results import (
    NEW_NAMES,
    each_model,
    read_scores,
    relabel,
    same_training,
    save_result,
    select,
)
from s2kd.paper.studies import Study, Unit, method_of
from s2kd.pipeline import Machine, Run

HORIZON = 4
"""Roll-outs go to so many times the trained lead."""


class OutOfTime(Exception):
    """The minutes are spent; the training stands in its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a harness works, until when (seconds since 1970), and on what machine."""

    out: Path
    results: Path
    deadline: float | None = None
    machine: Machine = field(default_factory=Machine)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call of `work` came to: units finished now, before, and left."""

    now: int
    before: int
    left: int


def work(
    units: Sequence[Unit],
    place: Place,
    *,
    models: Collection[str] = (),
    jobs: int = 1,
    report: Callable[[str], Progress] = pipeline.silent,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Do every unit that is left (`to_do`), until the time is up; call again to go on.

    With `jobs` > 1 so many processes train side by side (on one GPU, or on several cores), each
    with its share of the cores. A unit starts when its teacher is finished. Raises the first
    error of a unit, after the others at work have ended.
    """
    left = to_do(units, place, models=models)
    if jobs > 1:
        _OPEN.clear()  # the processes read data of their own
    before = len(units) - len(left)
    say(f"{before} of {len(units)} trainings are done already")
    with ExitStack() as locks:
        for folder in dict.fromkeys(unit.study.folder for unit in left):
            locks.enter_context(pipeline.locked(place.out / folder))
        for study in {unit.study.folder: unit.study for unit in left}.values():
            pipeline.open_run(study.recipe, place.out / study.folder)
        done = _one_by_one if jobs == 1 else _side_by_side
        now = done(left, place, jobs, report, say)
    return Outcome(now=now, before=before, left=len(left) - now)


def to_do(units: Sequence[Unit], place: Place, *, models: Collection[str] = ()) -> list[Unit]:
    """Units without results, and those whose model is wanted in `out` and is not there.

    Wanted are teachers that a missing student learns from, and the units named by `models`.
    """
    by_study = sorted(units, key=lambda unit: unit.study.folder)  # so that each is opened once
    left = {unit.name for unit in by_study if not finished(unit, place)}
    left |= {unit.name for unit in units if unit.name in models and not _noted(unit, place)}
    asked = {need.name for unit in units if unit.name in left for need in unit.needs}
    left |= {unit.name for unit in units if unit.name in asked and not _noted(unit, place)}
    return [unit for unit in units if unit.name in left]


def finished(unit: Unit, place: Place) -> bool:
    """Whether this very training has its results already, from here or from elsewhere."""
    return _noted(unit, place) or bool(recorded(unit, place))


def _noted(unit: Unit, place: Place) -> bool:
    """Whether it was done in `out`."""
    note = _note(unit, place)
    if not note.exists():
        return False
    written = read_json(note)
    return written["key"] == unit.key and all(
        _has_model(place.results / file, model) for file, model in written["results"]
    )


def _has_model(path: Path, model: str) -> bool:
    return path.exists() and model in read_scores(path)["model"].values


def recorded(unit: Unit, place: Place) -> list[tuple[str, str]]:
    """File and model of its results, where every test split has them of this very training."""
    if not all(_recorded(place.results, row, "test") for row in unit.rows):
        return []  # and so no data need be read
    run = _opened(unit.study, place)
    settings = unit.study.recipe.to_dict()
    pairs = []
    for row in unit.rows:
        for split in run.test_splits:
            scores = _recorded(place.results, row, split)
            if (
                scores is None
                or scores["fingerprint"].values[0] != run.dataset.fingerprint
                or not same_training(scores, settings, s2kd.__version__)
                or not _same_words(scores, run)
            ):
                return []
            pairs.append((_results_file(row, split), str(scores["model"].values[0])))
    return pairs


def _results_file(row: Mapping[str, Any], split: str) -> str:
    return f"{row['data']}-{row['preset']}-{split}.nc"


def _recorded(results: Path, row: Mapping[str, Any], split: str) -> xr.Dataset | None:
    """The one model of these fields, if the results have it."""
    path = results / _results_file(row, split)
    if not path.exists():
        return None
    seed = -1 if row["seed"] is None else row["seed"]
    method = NEW_NAMES.get(row["method"], row["method"])
    names = ("variant", "role", "backbone")
    scores = select(
        read_scores(path), seed=seed, method=method, **{name: row[name] for name in names}
    )
    return scores if scores.sizes["model"] else None


def _same_words(scores: xr.Dataset, run: Run) -> bool:
    """Whether a result is of the words of this run's narrator: its settings name recorded ones by
    their file alone. Older results of other narrators do not say, and their settings do.
    """
    narrator = str(scores["narrator"].values[0])
    version = str(scores["narrator_version"].values[0])
    if narrator == "none":
        return True
    return version == run.narrator.version if version else narrator != "recorded"


def _note(unit: Unit, place: Place) -> Path:
    name = re.sub(r"[^\w.-]+", "-", unit.name.removeprefix(unit.study.folder).strip())
    return place.out / unit.study.folder / "done" / f"{name}.json"


def _one_by_one(
    left: Sequence[Unit], place: Place, jobs: int, report: Any, say: Callable[[str], None]
) -> int:
    count = 0
    for unit in left:
        if _late(place):
            break
        say(f"{count + 1} of {len(left)}: {unit.name}")
        try:
            do(unit, place, report=report, say=say)
        except OutOfTime:
            break
        count += 1
    return count


def _side_by_side(
    left: Sequence[Unit], place: Place, jobs: int, report: Any, say: Callable[[str], None]
) -> int:
    """The first unit whose teacher is done goes to the first process that is free."""
    import multiprocessing

    waiting, running, count = list(left), {}, 0
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(jobs, context, _start_process, (threads,)) as pool:
        while waiting or running:
            names = {unit.name for unit in (*waiting, *running.values())}
            for unit in list(waiting):
                free = len(running) < jobs and not _late(place)
                if free and not any(need.name in names for need in unit.needs):
                    if _narrating(unit, running.values(), place):
                        continue
                    waiting.remove(unit)
                    running[pool.submit(do, unit, place)] = unit
                    say(f"started: {unit.name}")
            if not running:
                break
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            count += sum(_ended(one, running.pop(one), say) for one in ended)
    return count


def _narrating(unit: Unit, running: Any, place: Place) -> bool:
    """Whether another process is just putting this study's windows into words."""
    same = any(other.study.folder == unit.study.folder for other in running)
    return same and not (place.out / unit.study.folder / "done" / "narrated").exists()


def _ended(one: "Future[None]", unit: Unit, say: Callable[[str], None]) -> bool:
    try:
        one.result()
    except OutOfTime:
        return False
    say(f"done: {unit.name}")
    return True


def _start_process(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _late(place: Place) -> bool:
    return place.deadline is not None and time.time() >= place.deadline


def do(
    unit: Unit,
    place: Place,
    *,
    report: Callable[[str], Progress] = pipeline.silent,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Train this unit's model if it is not trained, score it, write its results.

    Where the results are recorded already (by another machine), they stay.
    """
    run = _opened(unit.study, place)
    run.progress, run.say = _until(place, report), say
    # a teacher that reads has to be told of its own forecasts, which costs minutes: once will do
    rolls = unit.role != "teacher" or unit.seed == unit.study.recipe.seeds[0]
    run.horizon = HORIZON if rolls else 0
    _narrated(run, unit, place)
    started = time.monotonic()
    _train(run, unit, place)
    pairs = recorded(unit, place)
    study = unit.study
    fields = {"data": study.data, "preset": study.preset, "variant": study.variant}
    for scores in _scored(run, unit) if not pairs else ():
        for model in each_model(scores):
            labelled = relabel(model, **fields)
            path = save_result(place.results, labelled)
            pairs.append((path.name, str(labelled["model"].values[0])))
    seconds = round(time.monotonic() - started, 1)
    write_json(_note(unit, place), {"key": unit.key, "results": pairs, "seconds": seconds})


_OPEN: dict[tuple, Run] = {}


def _opened(study: Study, place: Place) -> Run:
    """The study's run; the last ones stay open, since units of a study follow each other."""
    key = (str(place.out), study.folder, study.recipe.digest)
    if key not in _OPEN:
        while len(_OPEN) >= 3:
            del _OPEN[next(iter(_OPEN))]
        run = Run(
            recipe=study.recipe,
            out=place.out / study.folder,
            machine=place.machine,
            save_seconds=10.0 if place.deadline is not None else 20.0,
        )
        for other in _OPEN.values():
            if other.recipe.dataset == study.recipe.dataset and "dataset" in vars(other):
                run.dataset = other.dataset  # the frames of all studies of one data set, once
        _OPEN[key] = run
    return _OPEN[key]


def _narrated(run: Run, unit: Unit, place: Place) -> None:
    """Words and token states of every window, before the study's first training."""
    mark = run.out / "done" / "narrated"
    if unit.role == "reference" or mark.exists():
        return
    pipeline.narrate(run)
    mark.parent.mkdir(exist_ok=True)
    mark.touch()


def _until(place: Place, report: Callable[[str], Progress]) -> Callable[[str], Progress]:
    """`report`, and the end of the work where the minutes are spent."""

    def stage(name: str) -> Progress:
        inner = report(name)

        def told(done: int, total: int, word: str = "") -> None:
            inner(done, total, word)
            if done < total and _late(place):
                raise OutOfTime(name)

        return told

    return stage


def _train(run: Run, unit: Unit, place: Place) -> None:
    match unit.role:
        case "reference":
            pass
        case "teacher":
            others = sorted(place.out.glob(f"*/teachers/{unit.method}-seed{unit.seed}"))
            pipeline.copy_teacher(run, unit.method, unit.seed, others)
            pipeline.train_teacher(run, unit.method, unit.seed)
            pipeline.store_teacher_outputs(run, unit.method, unit.seed, run.recipe.methods)
        case "student":
            pipeline.distill_student(run, *_student(unit), unit.seed)
        case _:
            raise S2KDError(f"a unit is a reference, teacher or student, not {unit.role!r}")


def _scored(run: Run, unit: Unit) -> list[xr.Dataset]:
    if unit.role == "reference":
        return pipeline.score_references(run)
    if unit.role == "teacher":
        return pipeline.score_teacher(run, unit.method, unit.seed)
    return pipeline.score_student(run, *_student(unit), unit.seed)


def _student(unit: Unit) -> tuple[Part, Method]:
    part = next(p for p in unit.study.recipe.students if p.name == unit.student)
    return part, method_of(unit.study, unit.method)
