"""Optuna studies in a journal file that several processes or machines share."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from s2kd.core.errors import S2KDError

if TYPE_CHECKING:
    import optuna

PROCESS = "process"
"""Attribute of a trial: the machine and process that run it."""


def import_optuna() -> Any:
    """The module, silenced; S2KDError naming the extra where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise S2KDError("Optuna is not installed: pip install 's2kd[sweep]'") from None
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
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
