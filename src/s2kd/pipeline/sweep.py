"""Search for λ, β and the learning rate on the validation split, by Optuna.

Teacher and targets are made once and read by every trial. The test split is never opened.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

import s2kd
from s2kd.core.errors import S2KDError
from s2kd.core.files import digest, write_json, write_sealed, write_whole
from s2kd.core.hardware import hardware, versions
from s2kd.core.methods import key_form
from s2kd.core.recipe import Method, Part
from s2kd.core.saved import load_metadata
from s2kd.pipeline.distil import distill_student
from s2kd.pipeline.queue import JobContext, OutOfTime
from s2kd.pipeline.run import Run
from s2kd.pipeline.study import (
    import_optuna,
    open_study,
    prepare_supervision,
    sign,
    waiting_lock,
)

if TYPE_CHECKING:
    import optuna

AXES = ("lambda", "beta", "lr")
GRID = {"lambda": (0.1, 0.5, 1.0, 2.0, 5.0), "beta": (0.1, 0.25, 0.5, 1.0, 2.0)}
"""Around the paper's choice (λ = 1, β = 0.5); its own grid is not published."""
GRID_LR = (1 / 3, 1.0, 3.0, 9.0)
"""Multiples of the recipe's learning rate."""
RANGES = {"lambda": (0.05, 20.0), "beta": (0.02, 10.0)}
LR_RANGE = 10.0
"""Up and down from the recipe's learning rate."""
TRIALS = 20


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched: one student by one method, over these `axes`."""

    method: Method
    student: Part
    axes: tuple[str, ...]
    lr: float

    def values(self) -> dict[str, float]:
        """The recipe's own values, as a trial."""
        beta = (t.weight for t in self.method.terms if t.loss.name == "spectral")
        values = {"lambda": self.method.weight, "beta": next(beta, math.nan), "lr": self.lr}
        return {axis: values[axis] for axis in self.axes}

    def method_at(self, values: Mapping[str, float]) -> Method:
        """The method with these weights."""
        terms = tuple(
            replace(term, weight=values.get("beta", term.weight))
            if term.loss.name == "spectral"
            else term
            for term in self.method.terms
        )
        return replace(self.method, weight=values.get("lambda", self.method.weight), terms=terms)

    def settings(self, values: Mapping[str, float]) -> list[str]:
        """The same for `--set`."""
        path = f"methods.{self.method.name}"
        fields = {"lambda": f"{path}.weight", "lr": "student_training.lr"}
        for number, term in enumerate(self.method.terms):
            if term.loss.name == "spectral":
                fields["beta"] = f"{path}.terms.{number}.weight"
        return [f"{fields[axis]}={value:g}" for axis, value in values.items()]

    def grid(self) -> list[dict[str, float]]:
        """Every point of the grid."""
        lr = [factor * self.lr for factor in GRID_LR]
        columns = [lr if axis == "lr" else GRID[axis] for axis in self.axes]
        return [dict(zip(self.axes, map(_round, p), strict=True)) for p in product(*columns)]


def search_of(
    run: Run, *, method: str = "s2kd", student: str = "", over: str = "", grid: bool = False
) -> Search:
    """The search that these options of `s2kd sweep` describe.

    Without `student` that of the recipe's first. `over` are axes by comma; if empty, all that
    apply, in a `grid` λ and β only, as in the paper (for a method without them the learning rate).
    λ applies to methods with terms, β to those with a spectral term beside another. A learning rate
    that is searched for one method alone flatters it: search the baseline's too before they are
    compared.
    """
    methods = {m.name: m for m in run.recipe.methods}
    students = {part.name: part for part in run.recipe.students}
    if method not in methods:
        raise S2KDError(f"--method {method}: the recipe has {', '.join(methods)}")
    if student and student not in students:
        raise S2KDError(f"--student {student}: the recipe has {', '.join(students)}")
    losses = [term.loss.name for term in methods[method].terms]
    apply = {"lambda": bool(losses), "beta": "spectral" in losses and len(losses) > 1, "lr": True}
    usual = [axis for axis in AXES if apply[axis] and not (grid and losses and axis == "lr")]
    axes = [axis for axis in over.split(",") if axis] or usual
    for axis in axes:
        if axis not in AXES:
            raise S2KDError(f"--over {axis}: must be of {', '.join(AXES)}")
        if not apply[axis]:
            raise S2KDError(f"--over {axis}: method {method!r} has no such weight")
    return Search(
        method=methods[method],
        student=students[student] if student else run.recipe.students[0],
        axes=tuple(axis for axis in AXES if axis in axes),
        lr=run.recipe.student_training.lr,
    )


def sweep(
    run: Run, search: Search, *, trials: int = 0, minutes: float = 0.0, grid: bool = False
) -> dict[str, Any]:
    """Search until `trials` trainings are finished, by all processes together, or time is up.

    With `grid` the product of `GRID` over the axes, else the tree-structured Parzen estimator
    (Bergstra et al. 2011) over log-uniform ranges, the recipe's own values first; 0 trials means
    the whole grid, or 20. A trial's value is the mean over the recipe's seeds of the best
    validation error. Values whose training was stopped are tried again, from its checkpoint.
    Writes `sweep.json` and returns its content.
    """
    optuna = import_optuna()
    if trials < 0 or minutes < 0:
        raise S2KDError(f"--trials {trials} --minutes {minutes}: must not be below 0")
    context = JobContext(minutes=minutes, progress=run.progress, say=run.say)
    points = len(search.grid())
    limit = min(trials or points, points) if grid else trials or TRIALS
    run = run.narrowed(methods=(search.method,), students=(search.student,))
    run.progress = context.watched
    is_prepared = prepare(run, context)
    study = _study(optuna, run, search, grid)

    def objective(trial: "optuna.Trial") -> float:
        started, values = time.monotonic(), _suggest(trial, search)
        trial.set_user_attr("values", values)
        sign(trial)
        try:
            error = train(run, search, values)
        except OutOfTime:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
            raise
        except S2KDError as failure:  # other values may work
            trial.set_user_attr("error", str(failure))
            raise
        trial.set_user_attr("seconds", round(time.monotonic() - started, 1))
        return error

    def stop(study: "optuna.Study", _: object) -> None:
        if context.is_late or _counted(study) >= limit:
            study.stop()

    if is_prepared and not context.is_late and _counted(study) < limit:
        study.optimize(objective, callbacks=[stop], catch=(S2KDError, OutOfTime))
    result = _result(optuna, study, run, search, grid)
    errors = [trial["error"] for trial in result["trials"] if "error" in trial]
    if result["best"] is None and errors:
        raise S2KDError(errors[-1])
    write_result(run.out, result)
    return result


def prepare(run: Run, context: JobContext) -> bool:
    """Narratives, teachers and targets, by one process; others wait. False where time ran out."""
    try:
        with waiting_lock(run.out, run.say, is_late=lambda: context.is_late) as is_ours:
            if is_ours:
                prepare_supervision(run)
            return is_ours
    except OutOfTime:
        return False


# --- the study -----------------------------------------------------------------------------------


def _study(optuna: Any, run: Run, search: Search, grid: bool) -> "optuna.Study":
    """The study in the run's journal, its first values queued, those of dead processes again."""
    first = search.grid() if grid else [search.values()]
    study, dead = open_study(run.out / "sweep", _study_name(run, search, grid), first=first)
    for trial in dead:
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
    # seeded by the number of trials: a new start must not draw the same values again
    study.sampler = optuna.samplers.TPESampler(
        seed=len(study.get_trials(deepcopy=False)),
        constant_liar=True,
        n_startup_trials=8,
        multivariate=False,
    )
    return study


def _study_name(run: Run, search: Search, grid: bool) -> str:
    """One study for everything that a trial's value depends on, besides what is searched."""
    plain = {k: v for k, v in run.recipe.to_dict().items() if k != "name"}
    if "lr" in search.axes:
        plain["student_training"]["lr"] = None
    method = key_form(search.method_at(dict.fromkeys(search.axes, 0.0)))
    parts = [plain | {"methods": None}, method, search.axes, run.dataset.fingerprint]
    if grid:  # another grid is another study, of the same trained students
        parts.append(search.grid())
    kind = "grid" if grid else "tpe"
    return f"{search.student.name}-{search.method.name}-{kind}-{digest(parts)[:12]}"


def _suggest(trial: "optuna.Trial", search: Search) -> dict[str, float]:
    ranges = {**RANGES, "lr": (search.lr / LR_RANGE, search.lr * LR_RANGE)}
    return {a: _round(trial.suggest_float(a, *ranges[a], log=True)) for a in search.axes}


def _round(value: float) -> float:
    """Three digits: a finer choice would be noise, and nobody types more."""
    return float(f"{value:.3g}")


def _counted(study: "optuna.Study") -> int:
    """Trials finished, at work, or failed by their own values; not those that are tried again."""
    return sum(
        trial.state.name in ("COMPLETE", "RUNNING") or "error" in trial.user_attrs
        for trial in study.get_trials(deepcopy=False)
    )


# --- one trial -----------------------------------------------------------------------------------


def train(run: Run, search: Search, values: Mapping[str, float]) -> float:
    """Mean over seeds of the best validation error of the student trained with these values."""
    method = search.method_at(values)
    training = replace(run.recipe.student_training, lr=values.get("lr", search.lr))
    trial_run = run.narrowed(student_training=training, methods=(method,))
    errors = []
    for seed in run.recipe.seeds:
        folder = trial_folder(run, search, values, seed)
        distill_student(trial_run, search.student, method, seed, folder=folder)
        errors.append(load_metadata(folder)["validation"])
    return float(sum(errors) / len(errors))


def trial_folder(run: Run, search: Search, values: Mapping[str, float], seed: int) -> Path:
    """Named by what is trained, so that the same values continue from their checkpoint."""
    key = digest([key_form(search.method_at(values)), values.get("lr", search.lr)])[:10]
    name = f"{search.student.name}-{search.method.name}-{key}-seed{seed}"
    return run.out / "sweep" / "trials" / name


# --- the result ----------------------------------------------------------------------------------


def _result(
    optuna: Any, study: "optuna.Study", run: Run, search: Search, grid: bool
) -> dict[str, Any]:
    rows = [_row(trial) for trial in study.get_trials(deepcopy=False)]
    complete = [row for row in rows if row["state"] == "complete"]
    best = min(complete, key=lambda row: row["validation"]) if complete else None
    recipe_values = {axis: _round(value) for axis, value in search.values().items()}
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
        "trials": rows,
        "best": best,
        "own": next((row for row in complete if row["values"] == recipe_values), None),
        "settings": search.settings(best["values"]) if best else [],
        "versions": {**versions(), "s2kd": s2kd.__version__, "optuna": optuna.__version__},
        "hardware": hardware(run.fabric.device),
        "fingerprint": run.dataset.fingerprint,
        "recipe": run.recipe.to_dict(),
    }


def _row(trial: Any) -> dict[str, Any]:
    names = ("seconds", "error", "again")
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "values": trial.user_attrs.get("values", {}),
        "validation": trial.value,
        **{name: trial.user_attrs[name] for name in names if name in trial.user_attrs},
    }


def at_edge(result: Mapping[str, Any]) -> list[str]:
    """The axes of a grid whose best value is the least or the largest of those tried."""
    if result["sampler"] != "grid" or result["best"] is None:
        return []
    complete = [row["values"] for row in result["trials"] if row["state"] == "complete"]
    best, axes = result["best"]["values"], []
    for axis in result["axes"]:
        tried = sorted({values[axis] for values in complete})
        if len(tried) > 1 and best[axis] in (tried[0], tried[-1]):
            axes.append(axis)
    return axes


def write_result(out: Path, result: Mapping[str, Any]) -> None:
    """`sweep.json`, and `sweep.png` where a trial is finished."""
    from s2kd.evaluation import figures

    write_json(out / "sweep.json", result, write_sealed)
    if result["best"] is None:
        return
    figure = figures.sweep(result)
    write_whole(
        out / "sweep.png",
        lambda path: figure.savefig(path, format="png", dpi=150, facecolor="white"),
    )
