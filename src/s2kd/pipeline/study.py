"""Optuna studies that several processes or machines share, and what their trials read."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from s2kd.core.files import is_alive
from s2kd.pipeline.checks import compared_views
from s2kd.pipeline.folder import Busy, locked
from s2kd.pipeline.narratives import narrate
from s2kd.pipeline.run import Run
from s2kd.pipeline.targets import copy_stored, store_teacher_outputs
from s2kd.pipeline.teach import train_teachers

if TYPE_CHECKING:
    import optuna

PROCESS = "process"
"""Attribute of a trial: the machine and process that run it."""


def import_optuna() -> Any:
    """The module, silenced."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # a failed trial is in the result
    return optuna


def open_study(
    folder: Path, name: str, *, first: Sequence[dict[str, Any]] = (), **settings: Any
) -> "tuple[optuna.Study, list[Any]]":
    """The study of this name in `folder/journal.log`, and the trials of processes that died.

    Those trials are marked as failed, so that the caller may queue them again. A new study has
    the values `first` in its queue. `settings` are those of `optuna.create_study`.
    """
    optuna = import_optuna()
    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    dead = []
    with FileLock(folder / ".lock"):
        study = optuna.create_study(
            study_name=name,
            storage=optuna.storages.JournalStorage(backend),
            load_if_exists=True,
            **settings,
        )
        trials = study.get_trials(deepcopy=False)
        for values in () if trials else first:
            study.enqueue_trial(values)
        for trial in trials:
            if trial.state.name == "RUNNING" and not _is_alive(trial):
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                dead.append(trial)
    return study, dead


def sign(trial: "optuna.Trial") -> None:
    """Note which process runs the trial."""
    trial.set_user_attr(PROCESS, [socket.gethostname(), os.getpid()])


def _is_alive(trial: Any) -> bool:
    """Whether the process of a running trial may live; on other machines there is no knowing."""
    host, process = trial.user_attrs.get(PROCESS, ("", 0))
    if host != socket.gethostname():
        return bool(host)
    return is_alive(process)


# --- what all trials read ------------------------------------------------------------------------


@contextmanager
def waiting_lock(
    out: Path, say: Callable[[str], None], *, is_late: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """The folder's lock, waited for while another process of the search holds it.

    Gives False, without the lock, where `is_late` says so first.
    """
    with ExitStack() as stack:
        while not is_late():
            try:
                stack.enter_context(locked(out))
            except Busy:
                say("Waiting for another process of this search")
                time.sleep(2)
            else:
                yield True
                return
        yield False


def prepare_supervision(run: Run) -> None:
    """Narratives, teachers, and their outputs for the run's methods, before any trial begins."""
    methods = run.recipe.methods
    if any(method.teacher == "stored" for method in methods):
        copy_stored(run)
    narrate(run)
    train_teachers(run)
    stored = [m for m in methods if m.terms and "feature_pyramid" not in compared_views(m)]
    for seed in run.recipe.seeds:
        for kind in dict.fromkeys(method.teacher for method in stored):
            store_teacher_outputs(run, kind, seed, stored)
