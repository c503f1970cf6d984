"""Finished work, found by its inputs: continued after a stop, and never overwritten."""

import shutil
from collections.abc import Callable
from pathlib import Path

from s2kd.core.files import digest, read_sealed, sealed, write_json
from s2kd.core.saved import is_whole, load_metadata

NOTE = "training.json"
"""In a folder where work has begun: the digest of its inputs."""


def _call(work: Callable[[], object]) -> None:
    work()


def kept(
    folder: Path,
    inputs: object,
    make: Callable[[str], object],
    *,
    first_only: Callable[[Callable[[], object]], None] = _call,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Let `make` fill `folder`, unless it already holds the result of exactly these inputs.

    `inputs` is a JSON-able value of everything that the result depends on. `make` is called by
    every process of a run, with the digest that it writes last, into `model.json` or `key.json`;
    `first_only` is `Run.first_only`. Unfinished work of the same inputs is left for `make` to
    continue; a model or checkpoint of other inputs is moved to `before/` of the run, which `say` is
    told.
    """
    key = digest(inputs)
    if _finished_key(folder) == key:
        return
    first_only(lambda: _begin(folder, key, say))
    make(key)
    first_only(lambda: (folder / NOTE).unlink(missing_ok=True))


def is_kept(folder: Path, inputs: object) -> bool:
    """Whether the finished result of exactly these inputs lies in `folder`."""
    return _finished_key(folder) == digest(inputs)


def _finished_key(folder: Path) -> str | None:
    """The digest of the inputs of a finished model or store; None where nothing is finished."""
    if (folder / "model.json").exists():
        return load_metadata(folder).get("key") if is_whole(folder) else None
    store = _read(folder / "key.json")
    return store.get("key") if store.get("done") == store.get("windows") else None


def _begin(folder: Path, key: str, say: Callable[[str], None]) -> None:
    """An empty folder, or the one in which this very work was interrupted."""
    begun = _read(folder / NOTE) or _read(folder / "key.json")
    if folder.exists() and begun.get("key") != key:
        set_aside(folder, say)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NOTE, sealed({"key": key}))


def set_aside(folder: Path, say: Callable[[str], None]) -> None:
    """Move a model or its checkpoint to `before/<name>-<n>`; delete what holds neither.

    Training takes hours, and a changed file or version may be a mistake.
    """
    if not any((folder / name).exists() for name in ("model.json", "checkpoint.pt")):
        shutil.rmtree(folder)
        return
    before = folder.parent.parent / "before"  # beside it, every folder would be a model in use
    before.mkdir(exist_ok=True)
    number = 1
    while (aside := before / f"{folder.name}-{number}").exists():
        number += 1
    folder.rename(aside)
    say(
        f"{folder.name} was trained from other data, settings or teacher, by another version, "
        f"or was altered since: it is trained again, and what was there is kept in {aside}"
    )


def _read(path: Path) -> dict:
    return read_sealed(path, f"delete {path.parent}") if path.exists() else {}
