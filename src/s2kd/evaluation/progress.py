"""Progress of a run, read from its files: trainings so far, their states, whether it has ended."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct

from s2kd.core.files import check_seal, plain_fields, read_json, read_sealed
from s2kd.core.recipe import Recipe
from s2kd.evaluation import figures
from s2kd.evaluation.answer import MARK, forecaster_label
from s2kd.evaluation.compare import TEACHER_METHODS, label
from s2kd.evaluation.page import Section, Training, render, training_section
from s2kd.evaluation.tables import Table, number

if TYPE_CHECKING:
    import optuna

MODELS = {
    "teachers": r"(?P<method>.+)-seed(?P<seed>\d+)",
    "students": r"(?P<model>[^-]+)-(?P<method>.+)-seed(?P<seed>\d+)",
    "search/trials": r"(?P<model>[^-]+-[^-]+)-(?P<method>.+)-[0-9a-f]{10}-seed(?P<seed>\d+)",
}
"""Names of the folders of models, by where they lie."""
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 16
"""Characters of a curve in a terminal."""
REMEDY = "delete it, and the page lacks its curve"
RENEWAL = 5
"""Seconds after which the page of a run in progress is read again."""


def _points(path: Path) -> list[tuple[int, float]]:
    """Epochs and validation errors of a `log.jsonl`; its last line may be half written."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    with plain_fields(path, REMEDY):
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [(r["epoch"] + 1, r["val"]) for r in records
                if not r.get("hint") and r.get("val") is not None]  # fmt: skip


# --- the search ----------------------------------------------------------------------------------


class _Student(Struct):
    name: str
    excess: str


class _Plan(Struct):
    students: list[_Student]
    methods: list[str]


def trial_state(trials: "Sequence[optuna.trial.FrozenTrial]") -> str:
    """`finished`, `pruned`, `running`, `failed`, `interrupted` or "": the trials of one design."""
    names = [trial.state.name for trial in trials]
    if "COMPLETE" in names:
        return "finished"
    if not names:
        return ""
    last = trials[-1]
    if last.state.name in ("PRUNED", "RUNNING"):
        return last.state.name.lower()
    reason = last.user_attrs.get("reason", "interrupted")
    return "interrupted" if reason == "interrupted" else "failed"


def _search_states(out: Path) -> dict[tuple[str, str], str]:
    """The state of every (student, method) of the plan, by the journal of trials."""
    plan, journal = out / "search" / "plan.json", out / "search" / "journal.log"
    states = {}
    if plan.exists():
        content = msgspec.convert(read_json(plan)["plan"], _Plan)
        names = [student.name for student in content.students if not student.excess]
        states = {(name, method): "waiting" for method in content.methods for name in names}
    if journal.exists() and journal.stat().st_size:
        for design, trials in _trials(journal).items():
            student, _, method = design.partition(" ")
            states[student, method] = trial_state(trials)
    return states


def _trials(journal: Path) -> "dict[str, list[optuna.trial.FrozenTrial]]":
    """The trials of the last study by design."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    storage = optuna.storages.JournalStorage(backend)
    trials: dict[str, list[Any]] = {}
    for name in optuna.get_all_study_names(storage)[-1:]:
        for trial in optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False):
            if design := trial.user_attrs.get("design"):
                trials.setdefault(design, []).append(trial)
    return trials


# --- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """A run so far: its trainings, the last message of its log, and whether it has ended."""

    name: str
    trainings: tuple[Training, ...]
    message: str
    ended: bool


def read_progress(out: Path) -> RunProgress | None:
    """What the files of a run folder say; None where there is no run yet.

    Teachers come first, then students by their lowest validation error; of a search, these are its
    candidates. A run has ended when its report is of all that was trained and scored.
    """
    if not (out / "recipe.json").exists():
        return None
    recipe = Recipe.from_dict(read_sealed(out / "recipe.json", "")["recipe"])
    epochs = {"teachers": recipe.teacher_training.epochs}
    states, trainings = _search_states(out), []
    names = ("scores.json", "answer.json", "sweep.json", "search/plan.json", "search/journal.log")
    sources = [out / name for name in names]
    for folder in ("teachers", "search/trials" if states else "students"):
        for path in sorted((out / folder).glob("*/log.jsonl")):
            name = re.fullmatch(MODELS[folder], path.parent.name)
            if name is None:
                continue
            sources.append(path)
            model, method = name.groupdict().get("model", "teacher"), name["method"]
            state = states.pop((model, method), "waiting")
            if state == "waiting":  # not in the journal of a search
                state = "finished" if (path.parent / "model.json").exists() else "running"
            if state == "finished":
                check_seal(path, REMEDY)
            training = Training(
                model=model,
                method=TEACHER_METHODS.get(method, method),
                seed=int(name["seed"]),
                points=_points(path),
                state=state,
                most=epochs.get(folder, recipe.student_training.epochs),
            )
            trainings.append(training)
    most = recipe.student_training.epochs
    for (model, method), state in states.items():
        training = Training(model=model, method=method, seed=-1, points=(), state=state, most=most)
        trainings.append(training)
    report, log = out / "report.html", out / "distill.log"
    changed = max((path.stat().st_mtime for path in sources if path.exists()), default=0.0)
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return RunProgress(
        name=recipe.name,
        trainings=tuple(sorted(trainings, key=lambda t: (t.model != "teacher", t.best))),
        message=lines[-1] if lines else "",
        ended=report.exists() and report.stat().st_mtime >= changed,
    )


def progress_table(progress: RunProgress, *, curves: bool = True) -> Table:
    """The trainings with their state and, for a terminal, their curves."""
    students = [t.best for t in progress.trainings if t.model != "teacher" and t.points]
    seeds = {training.seed for training in progress.trainings if training.points}
    lines = []
    for t in progress.trainings:
        is_teacher = t.model == "teacher"
        name = label(t.method) if is_teacher else forecaster_label(t.model, t.method)
        name += f", seed {t.seed}" * (len(seeds) > 1 and bool(t.points))
        is_best = not is_teacher and t.best == min(students, default=None)
        epochs = f"{t.points[-1][0] if t.points else 0} of {t.most}"
        cells = (MARK * is_best + name, epochs, number(t.best), t.state)
        lines.append((*cells, *[curve_text([value for _, value in t.points])] * curves))
    return Table(
        title="Trainings" * curves,
        head=("", "Epoch", "Validation MSE", "State", *["Curve"] * curves),
        lines=tuple(lines),
        caption="Validation MSE: normalised, the lowest so far. ▸: best student.",
    )


def curve_text(values: Sequence[float]) -> str:
    """A curve as a line of blocks, logarithmic, the last block the last value."""
    if not values:
        return ""
    at = np.linspace(0, len(values) - 1, min(WIDTH, len(values))).round().astype(int)
    logs = np.log(np.maximum(np.asarray(values, float)[at], 1e-12))
    share = (logs - logs.min()) / max(float(np.ptp(logs)), 1e-12)
    return "".join(BLOCKS[level] for level in np.rint(share * (len(BLOCKS) - 1)).astype(int))


def progress_page(progress: RunProgress) -> str:
    """The page of a run in progress, which reads itself again after `RENEWAL` seconds."""
    trainings = progress.trainings
    done = sum(training.state not in ("waiting", "running") for training in trainings)
    table = progress_table(progress, curves=False)
    curves = training_section(trainings, figures.colours([t.method for t in trainings]))
    return render(
        title=progress.name,
        refresh=RENEWAL,
        facts={"Trainings": f"{done} of {len(trainings)} done", "Log": progress.message or "–"},
        sections=[
            Section(heading="Leaderboard so far", tables=[table]),
            *([curves] if curves else []),
        ],
    )
