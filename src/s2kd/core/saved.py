"""Folders of saved models: their metadata, digests, and the students of a run."""

import math
from pathlib import Path
from typing import Any

from s2kd.core.errors import S2KDError, nearest
from s2kd.core.files import file_digest, read_sealed

WEIGHTS, METADATA = "model.safetensors", "model.json"
FORMAT = "s2kd-model-1"
NEEDED = ("kind", "part", "grid", "past", "lead", "normalise", "predict", "statistics", "weights")
"""Metadata without which a model cannot be built again."""


def load_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of the model in `folder`.

    Raises S2KDError where the folder holds no model, or where `model.json` was altered.
    """
    path = folder / METADATA
    if not path.exists():
        raise S2KDError(f"{folder}: no {METADATA} in it, so not the folder of a trained model")
    metadata = read_sealed(path, "restore the file, or train the model again")
    if metadata.get("format") != FORMAT:
        raise S2KDError(f"{path}: not the {METADATA} of this program")
    lacking = [name for name in NEEDED if name not in metadata]
    if lacking:
        raise S2KDError(f"{path}: incomplete (it lacks {', '.join(lacking)})")
    return metadata


def is_whole(folder: Path) -> bool:
    """Whether the model in `folder` is as it was saved, metadata and weights."""
    try:
        return file_digest(folder / WEIGHTS) == load_metadata(folder)["weights"]
    except (S2KDError, OSError):
        return False


def find_student(folder: Path, chosen: str = "") -> Path:
    """The folder of a run's student, or `folder` itself where it is a student's.

    `chosen` is a student's name, with or without its seed; of several seeds, or of all students
    where it is empty, the one with the lowest validation error is taken.
    """
    if (folder / "model.json").exists():
        return folder
    if not folder.exists():
        raise S2KDError(f"{folder}: no such folder")
    students = {path.parent.name: path.parent for path in folder.glob("students/*/model.json")}
    if not students:
        raise S2KDError(f"{folder}: holds no trained student (students/…/model.json)")
    seeds = [name for name in students if chosen in ("", name, name.rpartition("-seed")[0])]
    if not seeds:
        raise S2KDError(
            f"{folder}: no student {chosen!r}{nearest(chosen, students)} (there are "
            f"{', '.join(sorted(students))})"
        )
    return min(
        (students[name] for name in seeds),
        key=lambda path: load_metadata(path).get("validation", math.inf),
    )


def metadata_of_kind(folder: Path, kind: str) -> dict[str, Any]:
    """`load_metadata`, refused where the model is not a `kind`: student or teacher."""
    metadata = load_metadata(folder)
    if metadata["kind"] != kind:
        raise S2KDError(f"{folder}: holds a {metadata['kind']}; a {kind} is wanted")
    return metadata
