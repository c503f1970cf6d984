"""Metadata of a deployed student, from its own folder or from that of its export."""

from pathlib import Path
from typing import Any

from s2kd.core.files import read_sealed
from s2kd.core.recipe import completed
from s2kd.core.saved import load_metadata
from s2kd.core.types import S2KDError

CONFIG, EXPORTED = "config.json", "s2kd-export-1"
EXPORT = "export"
"""The folder in a student's own that it is exported to by default."""
FIELDS = (
    *("kind", "part", "parameters", "weights", "grid", "past", "lead", "normalise", "predict"),
    *("statistics", "method", "seed", "name", "versions", "attributes", "validation"),
    *("fingerprint", "source"),
)
"""Metadata of a student that its users get; settings, paths and logs of its training are not."""
SKIPPED = ("path", "cache", "environments", "whole_days")
"""Settings of readers that name or leave out files, environments or days of the training data."""


def student_metadata(student_folder: Path) -> dict[str, Any]:
    """Metadata of a trained student.

    Besides `FIELDS` it holds `student` (its name), `missing` (what was done to missing values in
    training), `marks` (values that stand for missing ones), `time_stride` (frames of the data per
    frame of the grid) and `reader` (name and settings of the reader of its data; None where it was
    trained on prepared data of unknown source).
    """
    metadata = load_metadata(student_folder)
    recipe = completed(metadata.get("recipe") or {"dataset": metadata["dataset"]})
    return {
        **{field: metadata[field] for field in FIELDS if field in metadata},
        "student": student_folder.name,
        "missing": recipe["keep"]["missing"],
        "marks": recipe["keep"]["marks"],
        "time_stride": recipe["keep"]["time_stride"],
        "reader": _reader(recipe["dataset"], metadata.get("origin")),
    }


def _reader(dataset: dict[str, Any], origin: dict[str, Any] | None) -> dict[str, Any] | None:
    """Name and settings of a reader; simulated worlds, which have no files, forecast from CF."""
    if dataset["name"] == "prepared":
        if origin is None:
            return None
        dataset = origin
    name, settings = dataset["name"], dataset.get("params", {})
    if name not in ("cf", "memory"):
        from s2kd.data.readers import readers

        if "path" in readers.options(name):
            return {"name": name, "params": {k: settings[k] for k in settings if k not in SKIPPED}}
    return {"name": "cf", "params": {}}


def exported_metadata(folder: Path) -> dict[str, Any]:
    """Metadata of an exported student.

    Besides those of `student_metadata` it holds `files` (SHA-256 by name), `formats` (file, bytes,
    milliseconds and validation RMSE by name) and `default` (the faster format). Raises S2KDError
    where the folder is not one that `s2kd export` wrote, or was altered.
    """
    path = folder / CONFIG
    metadata = read_sealed(path, "export the student again")
    if metadata.get("format") != EXPORTED or "digest" not in metadata:
        raise S2KDError(f"{path}: not the {CONFIG} of a student that `s2kd export` wrote")
    return metadata


def is_exported(student_folder: Path) -> bool:
    """Whether a student's own folder holds an export of its present weights."""
    folder = student_folder / EXPORT
    return (folder / CONFIG).exists() and (
        exported_metadata(folder)["weights"] == load_metadata(student_folder)["weights"]
    )
