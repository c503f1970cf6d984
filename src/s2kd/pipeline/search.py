"""The main job: the best small forecaster for some data and a budget, in a given time.

Students at several sizes are trained by several methods with successive halving (Jamieson &
Talwalkar 2016; Li et al. 2020): after a sixth and a half of the epochs only the better third goes
on. Validation chooses; the test split is read once, at the end.
"""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2kd.core.errors import S2KDError
from s2kd.core.files import digest
from s2kd.core.methods import key_form
from s2kd.core.recipe import Recipe
from s2kd.core.saved import load_metadata
from s2kd.evaluation.answer import TIME_OVER, Candidate
from s2kd.evaluation.compare import BASELINE
from s2kd.evaluation.progress import trial_state
from s2kd.pipeline.candidates import Design
from s2kd.pipeline.distil import distill_student, student_folder
from s2kd.pipeline.queue import OutOfTime
from s2kd.pipeline.run import Run
from s2kd.pipeline.study import import_optuna, open_study, sign
from s2kd.training.loop import EpochsInTime, OnEpoch

if TYPE_CHECKING:
    import optuna

REDUCTION = 3
"""After each rung, one candidate in so many goes on."""


class Pruned(Exception):
    """A candidate that was behind at a rung; its checkpoint stays."""


@dataclass(kw_only=True)
class Search:
    """One search in a run folder: its designs, their epochs, and when it must end.

    `deadline` is a `time.monotonic` at which the last training stops.
    """

    run: Run
    designs: Sequence[Design]
    epochs: int
    deadline: float

    def __post_init__(self) -> None:
        optuna = import_optuna()
        least = max(2, self.epochs // 6)
        names = sorted(design.name for design in self.designs)
        leads = sum(design.method == self.designs[0].method for design in self.designs)
        content = [names, self.epochs, _key_of(self.run.recipe), self.run.dataset.fingerprint]
        self.study, _ = open_study(
            self.run.out / "search",
            digest(content),
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=least,
                reduction_factor=REDUCTION,
                # students of the first method wait for each other at the first rung
                bootstrap_count=leads if leads > 1 else 0,
            ),
        )

    @property
    def by_name(self) -> dict[str, Design]:
        """The designs by name."""
        return {design.name: design for design in self.designs}

    def trials(self) -> "dict[str, list[optuna.trial.FrozenTrial]]":
        """The trials of every design so far, in order."""
        trials: dict[str, list[Any]] = {name: [] for name in self.by_name}
        for trial in self.study.get_trials(deepcopy=False):
            name = trial.user_attrs.get("design", "")
            if name in trials:
                trials[name].append(trial)
        return trials

    @property
    def ends(self) -> float:
        """When candidates stop: the best student's baseline is left as much time as that took."""
        trials = self.trials()
        ranked = self._ranked(trials)
        if not ranked:
            return self.deadline
        best = ranked[0][1]
        if trial_state(trials.get(f"{best.student.name} {BASELINE}", ())) == "finished":
            return self.deadline
        return self.deadline - _seconds(trials[best.name])

    @property
    def length(self) -> int:
        """Epochs of a training to the end: as many as the best one had time for."""
        trials = self.trials()
        ranked = self._ranked(trials)
        rows = trials[ranked[0][1].name] if ranked else []
        is_short = any(trial.user_attrs.get("reason") == TIME_OVER for trial in rows)
        return _epochs(rows) if is_short else self.epochs

    def run_until_done(self) -> None:
        """Train one design after the other until all are judged or the time is over.

        One is trained in any case, for an epoch at least.
        """
        while time.monotonic() < self.ends or not self.finished():
            step = self.next_design()
            if step is None:
                return
            design, to_the_end = step
            try:
                self.try_design(design, to_the_end=to_the_end)
            except OutOfTime:
                return

    def next_design(self) -> tuple[Design, bool] | None:
        """The design to train next, and whether to the end; None when the search is complete.

        First every student by the first method, up to the first rung, and the best of them to the
        end; then every other method for the two best students; then what was pruned of the best
        three to the end.
        """
        trials = self.trials()
        states = {name: trial_state(rows) for name, rows in trials.items()}
        first = self.designs[0].method.name
        fresh = [d for d in self.designs if states[d.name] in ("", "interrupted")]
        lead = [d for d in fresh if d.method.name == first]
        if lead:
            return lead[0], False
        best = {name: _best(rows) for name, rows in trials.items()}
        judged = (design for design in self.designs if math.isfinite(best[design.name]))
        ranking = sorted(judged, key=lambda design: best[design.name])
        leaders = [design for design in ranking if design.method.name == first][:2]
        if "finished" not in states.values() and leaders and states[leaders[0].name] == "pruned":
            return leaders[0], True
        finalists = [design.student.name for design in leaders]
        others = [d for d in fresh if d.student.name in finalists]
        if others:
            return min(others, key=lambda d: finalists.index(d.student.name)), False
        unfinished = [d for d in ranking[:REDUCTION] if states[d.name] == "pruned"]
        return (unfinished[0], True) if unfinished else None

    def states(self) -> dict[str, str]:
        """`finished`, `pruned`, `running`, `failed`, `interrupted` or "" of every design."""
        return {name: trial_state(rows) for name, rows in self.trials().items()}

    def try_design(self, design: Design, *, to_the_end: bool = False) -> None:
        """One trial: train until it is finished or pruned; OutOfTime where the time is over."""
        optuna = import_optuna()
        trial, started = self.study.ask(), time.monotonic()
        trial.set_user_attr("design", design.name)
        sign(trial)
        best, length, is_first = math.inf, self.length, not self.finished()
        limit = self.deadline if to_the_end else self.ends
        if to_the_end and is_first:  # half of the time is left to its baseline
            limit = (started + limit) / 2
        in_time, epochs = EpochsInTime(length, limit), length

        def on_epoch(record: Mapping[str, Any]) -> int:
            nonlocal best, epochs
            best, done, fitting = min(best, record["val"]), record["epoch"] + 1, in_time(record)
            trial.report(best, done)
            is_over = done == fitting < length
            if to_the_end or (is_first and is_over):
                epochs = fitting  # a forecaster in time, though not trained as long as planned
                return epochs
            if is_over:
                raise OutOfTime(design.name)
            if done < length and trial.should_prune():
                raise Pruned
            return length

        state, value, reason = optuna.trial.TrialState.FAIL, None, ""
        try:
            folder = train_design(self.run, design, on_epoch=on_epoch)
            value = load_metadata(folder)["validation"]
            reason = TIME_OVER if epochs < length else ""
            state = optuna.trial.TrialState.COMPLETE
        except Pruned:
            state = optuna.trial.TrialState.PRUNED
        except OutOfTime:
            reason = "interrupted"
            raise
        except S2KDError as error:
            reason = str(error)
        finally:
            if reason:
                trial.set_user_attr("reason", reason)
            trial.set_user_attr("seconds", round(time.monotonic() - started, 2))
            self.study.tell(trial, value, state=state)

    def finished(self) -> list[tuple[float, Design]]:
        """(validation error, design) of what is trained to the end, best first."""
        return self._ranked(self.trials())

    def _ranked(
        self, trials: "Mapping[str, Sequence[optuna.trial.FrozenTrial]]"
    ) -> list[tuple[float, Design]]:
        rows = [
            (trial.value, self.by_name[name])
            for name, group in trials.items()
            for trial in group
            if trial.state.name == "COMPLETE"
        ]
        return sorted(rows, key=lambda row: row[0])

    def candidates(self) -> list[Candidate]:
        """One row per design, those never tried included, best first."""
        rows = []
        for name, trials in self.trials().items():
            design, best = self.by_name[name], _best(trials)
            rows.append(
                design.student.candidate(
                    method=design.method.name,
                    label=name,
                    validation=best if math.isfinite(best) else None,
                    seconds=_seconds(trials),
                    epochs=_epochs(trials),
                    state=trial_state(trials) or "not_tried",
                    reason=trials[-1].user_attrs.get("reason", "") if trials else "",
                )
            )
        return sorted(rows, key=lambda row: (row.validation is None, row.validation or 0.0))


def _best(trials: Sequence[Any]) -> float:
    """The lowest validation error that the trials of a design reported; infinite for none."""
    values = [value for trial in trials for value in trial.intermediate_values.values()]
    return min(values, default=math.inf)


def _seconds(trials: Sequence[Any]) -> float:
    """Seconds of all trials of a design."""
    return float(sum(trial.user_attrs.get("seconds", 0.0) for trial in trials))


def _epochs(trials: Sequence[Any]) -> int:
    """Epochs that the trials of a design reached."""
    return max((max(trial.intermediate_values, default=0) for trial in trials), default=0)


def _key_of(recipe: Recipe) -> dict[str, Any]:
    """Everything of the recipe that a trial's value depends on, besides the design."""
    plain = recipe.to_dict()
    for name in ("name", "students", "methods"):
        plain.pop(name)
    return plain


# --- one design ----------------------------------------------------------------------------------


def trial_folder(run: Run, design: Design) -> Path:
    """Named by what is trained: a second trial continues from the first one's checkpoint."""
    seed = run.recipe.seeds[0]
    training = run.recipe.to_dict()["student_training"]
    key = digest([design.student.part.params, key_form(design.method), training])[:10]
    name = f"{design.student.name}-{design.method.name}-{key}-seed{seed}"
    return run.out / "search" / "trials" / name


def train_design(run: Run, design: Design, *, on_epoch: OnEpoch | None = None) -> Path:
    """Train one design with the run's first seed, or find it trained; returns its folder."""
    part, method, folder = design.student.part, design.method, trial_folder(run, design)
    narrowed = run.narrowed(students=(part,), methods=(method,))
    narrowed.on_epoch = on_epoch
    distill_student(narrowed, part, method, run.recipe.seeds[0], folder=folder)
    return folder


def promote(run: Run, design: Design) -> Path:
    """Copy a finished design to where the run keeps its students."""
    source = trial_folder(run, design)
    folder = student_folder(run, design.student.part, design.method, run.recipe.seeds[0])
    if (folder / "model.json").exists() and (
        load_metadata(folder)["digest"] == load_metadata(source)["digest"]
    ):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    return folder


def tidy(run: Run, kept_designs: Sequence[Design]) -> None:
    """Remove what only training needed: targets, checkpoints and the weights of other designs."""
    shutil.rmtree(run.out / "targets", ignore_errors=True)
    folders = {trial_folder(run, design) for design in kept_designs}
    for folder in (run.out / "search" / "trials").glob("*"):
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        if folder not in folders:
            (folder / "model.safetensors").unlink(missing_ok=True)
            (folder / "model.json").unlink(missing_ok=True)
