"""Searching λ, β and the learning rate on the validation split, shared by any number of processes.

```
DIR/sweep/journal.log            every trial, by Optuna; only ever added to
DIR/sweep/trials/<student>-<method>-<key>-seed<n>/   the trained student, as in students/
DIR/sweep.json, DIR/sweep.png    the whole surface and the choice
```

The teacher and its targets are made once and read by every trial. The test split is never opened.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins
from msgspec.structs import replace

import s2kd
from s2kd import pipeline
from s2kd.core.console import Progress
from s2kd.core.files import digest, write_json, write_whole
from s2kd.core.hardware import hardware, versions
from s2kd.core.recipe import Method, Part
from s2kd.core.types import S2KDError
from s2kd.models.checkpoint import load_metadata
from s2kd.pipeline import Run

if TYPE_CHECKING:
    import optuna

AXES = ("lambda", "beta", "lr")
GRID = {"lambda": (0.1, 0.5, 1.0, 2.0, 5.0), "beta": (0.1, 0.25, 0.5, 1.0, 2.0)}
"""Round the paper's choice (λ = 1, β = 0.5), which was found by a grid search; it does not say on
which grid."""
GRID_LR = (1 / 3, 1.0, 3.0, 9.0)
"""Times the recipe's learning rate."""
RANGES = {"lambda": (0.05, 20.0), "beta": (0.02, 10.0)}
LR_RANGE = 10.0
"""Up and down from the recipe's learning rate."""
TRIALS = 20


class _OutOfTime(Exception):
    """The minutes are spent; the training stands in its checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched: one student by one method, over these `axes`."""

    method: Method
    student: Part
    axes: tuple[str, ...]
    lr: float

    def values(self) -> dict[str, float]:
        """The recipe's own, as a trial."""
        whole = {"lambda": self.method.weight, "beta": _beta(self.method), "lr": self.lr}
        return {name: whole[name] for name in self.axes}

    def method_at(self, values: Mapping[str, float]) -> Method:
        """The method with these weights."""
        terms = tuple(
            replace(term, weight=values.get("beta", term.weight))
            if term.loss.name == "spectral"
            else term
            for term in self.method.terms
        )
        weight = values.get("lambda", self.method.weight)
        return replace(self.method, weight=weight, terms=terms)

    def settings(self, values: Mapping[str, float]) -> list[str]:
        """The same for `--set`."""
        path = f"methods.{self.method.name}"
        places = {"lambda": f"{path}.weight", "lr": "student_training.lr"}
        for number, term in enumerate(self.method.terms):
            if term.loss.name == "spectral":
                places["beta"] = f"{path}.terms.{number}.weight"
        return [f"{places[name]}={value:g}" for name, value in values.items()]


def _beta(method: Method) -> float:
    return next((t.weight for t in method.terms if t.loss.name == "spectral"), math.nan)


def search_of(
    run: Run, *, method: str = "s2kd", student: str = "", over: str = "", grid: bool = False
) -> Search:
    """What to search in this run's recipe; `over` names axes by comma.

    If empty: all that apply, in a `grid` only λ and β as in the paper (for a method without them
    the learning rate). λ wants a method with terms, β one with a spectral term beside another. A
    learning rate that is searched for one method alone flatters it: search the baseline's too
    before they are compared.
    """
    methods = {one.name: one for one in run.recipe.methods}
    students = {one.name: one for one in run.recipe.students}
    if method not in methods:
        raise S2KDError(f"--method {method}: the recipe has {', '.join(methods)}")
    if student and student not in students:
        raise S2KDError(f"--student {student}: the recipe has {', '.join(students)}")
    found = methods[method]
    losses = [term.loss.name for term in found.terms]
    apply = {"lambda": bool(losses), "beta": "spectral" in losses and len(losses) > 1, "lr": True}
    usual = [axis for axis in AXES if apply[axis] and not (grid and losses and axis == "lr")]
    asked = [name for name in over.split(",") if name] or usual
    for name in asked:
        if name not in AXES:
            raise S2KDError(f"--over {name}: must be of {', '.join(AXES)}")
        if not apply[name]:
            raise S2KDError(f"--over {name}: method {method!r} has no such weight")
    return Search(
        method=found,
        student=students[student] if student else run.recipe.students[0],
        axes=tuple(name for name in AXES if name in asked),
        lr=run.recipe.student_training.lr,
    )


def sweep(
    run: Run,
    search: Search,
    *,
    trials: int = 0,
    minutes: float = 0.0,
    grid: bool = False,
) -> dict[str, Any]:
    """Search until `trials` trainings are finished (by all processes together) or time is up.

    With `grid` the product of `GRID` over the axes, else the tree-structured Parzen estimator
    (Bergstra et al. 2011) over log-uniform ranges, the recipe's own values first; 0 trials means
    the whole grid, or 20. A trial's value is the mean over the recipe's seeds of the best
    validation forecast error. Trials of a process that was killed are taken up again by the next
    one, from their checkpoints. Writes and returns what `sweep.json` holds.
    """
    optuna = _optuna()
    if trials < 0 or minutes < 0:
        raise S2KDError(f"--trials {trials} --minutes {minutes}: must not be below 0")
    deadline = time.monotonic() + 60 * minutes if minutes else math.inf
    run = narrowed(run, search)
    ready = prepare(run, deadline)
    study = _study(optuna, run, search, grid)
    points = len(_grid(search))
    wanted = min(trials or points, points) if grid else trials or TRIALS
    last: S2KDError | None = None
    while ready and time.monotonic() < deadline:
        with _alone(run):
            _take_up(optuna, study, run)
            if _asked(optuna, study) >= wanted:
                break
            trial, values = _ask(study, search)
            held = _hold(run, trial.number)
        try:
            last = _try(optuna, study, trial, run, search, values, deadline) or last
        finally:
            held.close()
    found = _result(optuna, study, run, search, grid)
    if found["best"] is None and last is not None:
        raise last
    write_result(run.out, found)
    return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise S2KDError("Optuna is not installed: pip install 's2kd[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


# --- before the trials ---------------------------------------------------------------------------


def narrowed(run: Run, search: Search) -> Run:
    """The same run, knowing of the searched method and student alone; what is costly is shared."""
    found = copy.copy(run)
    found.recipe = replace(run.recipe, methods=(search.method,), students=(search.student,))
    return found


def prepare(run: Run, deadline: float = math.inf) -> bool:
    """Narratives, teachers and targets, by one process; others wait. False: no time was left."""
    watched = copy.copy(run)
    watched.progress = _watched(run.progress, deadline)
    while time.monotonic() < deadline:
        try:
            with pipeline.locked(run.out):
                _prepare(watched)
        except _OutOfTime:
            return False
        except pipeline.Busy:
            run.say("Waiting for another process, which makes the teacher")
            time.sleep(2)
        else:
            # what was read meanwhile serves the trials too
            run.__dict__.update({k: v for k, v in vars(watched).items() if k != "report"})
            return True
    return False


def _prepare(run: Run) -> None:
    (method,) = run.recipe.methods
    if method.teacher == "stored":
        pipeline.copy_stored(run)
    pipeline.narrate(run)
    pipeline.train_teachers(run)
    if method.teacher in ("text", "no_text") and "feature_pyramid" not in pipeline.compared_views(
        method
    ):
        for seed in run.recipe.seeds:
            pipeline.store_teacher_outputs(run, method.teacher, seed, [method])


# --- the study -----------------------------------------------------------------------------------


def _study(optuna: Any, run: Run, search: Search, grid: bool) -> "optuna.Study":
    folder = run.out / "sweep"
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    with _alone(run):
        storage = optuna.storages.JournalStorage(backend)
        name = _name(run, search, grid)
        study = optuna.create_study(
            study_name=name, storage=storage, direction="minimize", load_if_exists=True
        )
        seed = len(study.get_trials(deepcopy=False))
        if not seed:  # tried first: the grid, or the recipe's own values; once for all processes
            for point in _grid(search) if grid else [search.values()]:
                study.enqueue_trial(point)
    # seeded by the trials there are: a new start must not draw the same values again
    study.sampler = optuna.samplers.TPESampler(
        seed=seed, constant_liar=True, n_startup_trials=8, multivariate=False
    )
    return study


def _name(run: Run, search: Search, grid: bool) -> str:
    """One study for everything that a trial's value depends on, besides what is searched."""
    recipe = run.recipe
    plain = {k: v for k, v in recipe.to_dict().items() if k != "name"}
    for axis in search.axes:
        if axis == "lr":
            plain["student_training"]["lr"] = None
    method = to_builtins(search.method_at(dict.fromkeys(search.axes, 0.0)))
    parts = [plain | {"methods": None}, method, search.axes, run.dataset.fingerprint]
    kind = "tpe"
    if grid:  # its points too: another grid is another study, of the same trained students
        kind = "grid"
        parts.append(_grid(search))
    key = digest(parts)
    return f"{search.student.name}-{search.method.name}-{kind}-{key[:12]}"


def _grid(search: Search) -> list[dict[str, float]]:
    points: list[dict[str, float]] = [{}]
    for axis in search.axes:
        values = [f * search.lr for f in GRID_LR] if axis == "lr" else GRID[axis]
        points = [{**point, axis: _round(value)} for point in points for value in values]
    return points


def _ask(study: "optuna.Study", search: Search) -> tuple["optuna.Trial", dict[str, float]]:
    trial = study.ask()
    ranges = {**RANGES, "lr": (search.lr / LR_RANGE, search.lr * LR_RANGE)}
    values = {
        axis: _round(trial.suggest_float(axis, *ranges[axis], log=True)) for axis in search.axes
    }
    trial.set_user_attr("values", values)
    return trial, values


def _round(value: float) -> float:
    """Three digits: a finer choice would be noise, and nobody types more."""
    return float(f"{value:.3g}")


def _asked(optuna: Any, study: "optuna.Study") -> int:
    """Trials finished, at work, or failed by their own values; not those that are tried again."""
    states = optuna.trial.TrialState
    return sum(
        one.state in (states.COMPLETE, states.RUNNING) or "error" in one.user_attrs
        for one in study.get_trials(deepcopy=False)
    )


# --- one trial -----------------------------------------------------------------------------------


def _try(
    optuna: Any,
    study: "optuna.Study",
    trial: "optuna.Trial",
    run: Run,
    search: Search,
    values: dict[str, float],
    deadline: float,
) -> S2KDError | None:
    """Train and tell; an error that another choice may not have is told and returned."""
    begun = time.monotonic()
    failed = optuna.trial.TrialState.FAIL
    try:
        value = train(run, search, values, deadline)
    except _OutOfTime:
        with _alone(run):
            study.tell(trial, state=failed)
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        return None
    except S2KDError as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=failed)
        return error
    trial.set_user_attr("seconds", round(time.monotonic() - begun, 1))
    study.tell(trial, value)
    return None


def train(
    run: Run, search: Search, values: Mapping[str, float], deadline: float = math.inf
) -> float:
    """Mean over seeds of the best validation error of the student trained with these values."""
    method = search.method_at(values)
    lr = values.get("lr", search.lr)
    tried = copy.copy(run)
    tried.progress = _watched(run.progress, deadline)
    training = replace(run.recipe.student_training, lr=lr)
    tried.recipe = replace(run.recipe, student_training=training, methods=(method,))
    found = []
    for seed in run.recipe.seeds:
        folder = trial_folder(run, search, values, seed)
        pipeline.distill_student(tried, search.student, method, seed, folder=folder)
        found.append(load_metadata(folder)["validation"])
    return float(sum(found) / len(found))


def trial_folder(run: Run, search: Search, values: Mapping[str, float], seed: int) -> Path:
    """Named by what is trained, so that a trial taken up again finds its checkpoint."""
    key = digest([to_builtins(search.method_at(values)), values.get("lr", search.lr)])[:10]
    name = f"{search.student.name}-{search.method.name}-{key}-seed{seed}"
    return run.out / "sweep" / "trials" / name


def _watched(report: Callable[[str], Progress], deadline: float) -> Callable:
    """Progress that ends a training when the time is up."""

    def watched(stage: str) -> Progress:
        told = report(stage)

        def progress(done: int, total: int, word: str = "") -> None:
            told(done, total, word)
            if time.monotonic() > deadline and done < total:
                raise _OutOfTime

        return progress

    return watched


# --- processes -----------------------------------------------------------------------------------


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Only one process at a time asks for a trial, or takes up those of the dead."""
    file = _open(run, "ask")
    try:
        _lock(file, wait=True)
        yield
    finally:
        file.close()


def _open(run: Run, name: str) -> Any:
    path = run.out / "sweep" / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")


def _lock(file: Any, *, wait: bool) -> bool:
    """Whether the file is now this process's, until it is closed or the process ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: everyone is taken to be alive
        return wait
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _hold(run: Run, number: int) -> Any:
    """A lock that says, as long as this process lives, that it is at work on this trial."""
    file = _open(run, f"trial-{number}")
    file.write(f"{os.getpid()}\n")
    _lock(file, wait=True)
    return file


def _take_up(optuna: Any, study: "optuna.Study", run: Run) -> None:
    """Trials whose process is gone are marked as failed, and their values asked for again."""
    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    for trial in running:
        with _open(run, f"trial-{trial.number}") as file:
            if not _lock(file, wait=False):
                continue  # its process lives
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        values = trial.params or trial.system_attrs.get("fixed_params")
        if values:
            study.enqueue_trial(values, user_attrs={"again": trial.number})


# --- what came of it -----------------------------------------------------------------------------


def _result(
    optuna: Any, study: "optuna.Study", run: Run, search: Search, grid: bool
) -> dict[str, Any]:
    tried = [_row(trial) for trial in study.get_trials(deepcopy=False)]
    done = [one for one in tried if one["state"] == "complete"]
    best = min(done, key=lambda one: one["validation"]) if done else None
    own = {name: _round(value) for name, value in search.values().items()}
    return {
        "data": run.recipe.dataset.name,
        "preset": run.recipe.name,
        "backbone": search.student.name,
        "method": search.method.name,
        "split": "val",
        "seeds": list(run.recipe.seeds),
        "axes": list(search.axes),
        "sampler": "grid" if grid else "TPE",
        "measure": "best validation forecast error, mean over seeds, in the training unit",
        "trials": tried,
        "best": best,
        "own": next((one for one in done if one["values"] == own), None),
        "settings": search.settings(best["values"]) if best else [],
        "versions": {**versions(), "s2kd": s2kd.__version__, "optuna": optuna.__version__},
        "hardware": hardware(run.fabric.device),
        "fingerprint": run.dataset.fingerprint,
        "recipe": run.recipe.to_dict(),
    }


def _row(trial: Any) -> dict[str, Any]:
    about = trial.user_attrs
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "values": about.get("values", {}),
        "validation": trial.value,
        **{name: about[name] for name in ("seconds", "error", "again") if name in about},
    }


def at_edge(found: Mapping[str, Any]) -> list[str]:
    """The axes of a grid along which its best is the least or the largest value tried.

    There the grid says which way to go, not where to stop.
    """
    if found["sampler"] != "grid" or found["best"] is None:
        return []
    tried = [one["values"] for one in found["trials"] if one["state"] == "complete"]
    best, reached = found["best"]["values"], []
    for axis in found["axes"]:
        values = sorted({one[axis] for one in tried})
        if len(values) > 1 and best[axis] in (values[0], values[-1]):
            reached.append(axis)
    return reached


def write_result(out: Path, found: Mapping[str, Any]) -> None:
    """`sweep.json`, and `sweep.png` where something is finished."""
    from s2kd.evaluation import figures

    write_json(out / "sweep.json", found)
    if found["best"] is None:
        return
    drawn = figures.sweep(found)
    write_whole(
        out / "sweep.png",
        lambda beside: drawn.savefig(beside, format="png", dpi=150, facecolor="white"),
    )


def table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the finished trials, best first."""
    done = [one for one in found["trials"] if one["state"] == "complete"]
    done.sort(key=lambda one: one["validation"])
    head = ["trial", *found["axes"], "validation"]
    return head, [_line(one, found["axes"]) for one in done]


def _line(one: Mapping[str, Any], axes: Sequence[str]) -> list[str]:
    values = [f"{one['values'][axis]:g}" for axis in axes]
    return [str(one["number"]), *values, f"{one['validation']:.5f}"]
