"""Folders of saved models: their metadata, digests, and the students of a run."""

import hashlib
import json
from pathlib import Path
from typing import Any

from s2kd.core.errors import S2KDError
from s2kd.core.files import digest, read_json

WEIGHTS, METADATA = "model.safetensors", "model.json"
FORMAT = "s2kd-model-1"
NEEDED = ("kind", "part", "grid", "past", "lead", "normalise", "predict", "statistics", "weights")
"""Metadata without which a model cannot be built again."""


def sealed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Plain JSON-able metadata with a digest over all the rest."""
    plain = json.loads(json.dumps(metadata))
    plain.pop("digest", None)
    return {**plain, "digest": digest(plain)}


def load_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of the model in `folder`.

    Raises S2KDError where the folder holds no model, or where `model.json` was altered since it
    was written (older versions wrote no digest; theirs are read as they are).
    """
    path = folder / METADATA
    if not path.exists():
        raise S2KDError(f"{folder}: no {METADATA} in it, so not the folder of a trained model")
    metadata = read_json(path)
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise S2KDError(f"{path}: not the {METADATA} of this program")
    lacking = [name for name in NEEDED if name not in metadata]
    if lacking:
        raise S2KDError(f"{path}: incomplete (it lacks {', '.join(lacking)})")
    if "digest" in metadata and metadata != sealed(metadata):
        raise S2KDError(
            f"{path}: was altered after the model was saved; restore the file, or train the model "
            "again"
        )
    return metadata


def find_student(folder: Path, name: str = "") -> Path:
    """The folder of one student of a run, or `folder` itself where it is a student's."""
    if (folder / "model.json").exists():
        return folder
    if not folder.exists():
        raise S2KDError(f"{folder}: no such folder")
    students = {path.parent.name: path.parent for path in folder.glob("students/*/model.json")}
    if not students:
        raise S2KDError(f"{folder}: holds no trained student (students/…/model.json)")
    if not name:
        return min(students.values(), key=lambda path: load_metadata(path)["validation"])
    if name not in students:
        raise S2KDError(f"{folder}: no student {name!r} (there are {', '.join(sorted(students))})")
    return students[name]


def metadata_of_kind(folder: Path, kind: str) -> dict[str, Any]:
    """`load_metadata`, refused where the model is not a `kind`: student or teacher."""
    metadata = load_metadata(folder)
    if metadata["kind"] != kind:
        raise S2KDError(f"{folder}: holds a {metadata['kind']}; a {kind} is wanted")
    return metadata


def file_digest(path: Path) -> str:
    """SHA-256 of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
