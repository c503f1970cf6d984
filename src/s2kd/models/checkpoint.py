"""Weights with all that is needed to use them: model.safetensors beside model.json."""

from pathlib import Path
from typing import Any

from torch import nn

from s2kd.core.files import digest, read_json, write_json, write_whole
from s2kd.core.hardware import versions
from s2kd.core.recipe import Part, TeacherSpec
from s2kd.core.types import GridSpec, S2KDError, Statistics
from s2kd.models.backbones import backbones
from s2kd.models.forecasters import Student, Teacher
from s2kd.models.layers import parameter_count
from s2kd.models.normaliser import Normaliser

WEIGHTS, CARD = "model.safetensors", "model.json"
NEEDED = (
    "kind", "part", "grid", "past", "lead", "normalise", "predict", "statistics", "weights",
)  # fmt: skip
"""What a model cannot be built again without."""


def build_student(
    part: Part,
    grid: GridSpec,
    *,
    past: int,
    lead: int,
    known: Statistics,
    normalise: str,
    predict: str,
) -> Student:
    """A student, not yet trained."""
    backbone = backbones.build(part.name, grid, past=past, lead=lead, **part.params)
    return Student(backbone, Normaliser.from_statistics(known, kind=normalise, predict=predict))


def build_teacher(
    spec: TeacherSpec,
    grid: GridSpec,
    *,
    past: int,
    lead: int,
    known: Statistics,
    normalise: str,
    predict: str,
    text_width: int,
    reads: bool,
) -> Teacher:
    """A teacher, not yet trained; with `reads=False` the same one without the alignment."""
    part = spec.backbone
    return Teacher(
        backbones.build(part.name, grid, past=past, lead=lead, **part.params),
        Normaliser.from_statistics(known, kind=normalise, predict=predict),
        wraps=grid.wraps,
        text_width=text_width,
        width=spec.width,
        heads=spec.heads,
        depth=spec.depth if reads else 0,
        branches=spec.branches,
        dropout=spec.dropout,
    )


def save_model(folder: Path, model: nn.Module, metadata: dict[str, Any]) -> None:
    """Write weights, then the metadata: a folder with `model.json` is complete."""
    from safetensors.torch import save_file

    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_whole(folder / WEIGHTS, lambda beside: save_file(weights, beside))
    whole = {
        "format": "s2kd-model-1",
        "parameters": parameter_count(model),
        "weights": file_digest(folder / WEIGHTS),
        "versions": versions(),
        **metadata,
    }
    write_json(folder / CARD, whole)


def load_metadata(folder: Path) -> dict[str, Any]:
    """What is written about a model; refuses a folder that is not one of ours."""
    path = folder / CARD
    if not path.exists():
        raise S2KDError(f"{folder}: no {CARD} in it, so not the folder of a trained model")
    metadata = read_json(path)
    if not isinstance(metadata, dict) or metadata.get("format") != "s2kd-model-1":
        raise S2KDError(f"{path}: not the model.json of this program")
    lacking = [name for name in NEEDED if name not in metadata]
    if lacking:
        raise S2KDError(f"{path}: incomplete (it lacks {', '.join(lacking)})")
    return metadata


def load_weights(folder: Path, model: nn.Module, metadata: dict[str, Any]) -> None:
    """Fill a model of the right shape; a truncated or exchanged file is refused."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.exists():
        raise S2KDError(f"{path}: no such file; the model's folder is incomplete")
    try:
        weights = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise S2KDError(f"{path}: truncated or not safetensors ({error})") from None
    if file_digest(path) != metadata["weights"]:
        raise S2KDError(f"{path}: not the weights that {CARD} beside it was written for")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise S2KDError(
            f"{path}: does not fit the model its metadata describes ({error})"
        ) from None


def file_digest(path: Path) -> str:
    """A hash of the file's content."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def metadata_of(
    kind: str,
    part: Part | TeacherSpec,
    grid: GridSpec,
    *,
    past: int,
    lead: int,
    known: Statistics,
    normalise: str,
    predict: str,
    **more: Any,
) -> dict[str, Any]:
    """Metadata of a `student` or `teacher`: all that `load_student` needs, and its origin."""
    from dataclasses import asdict

    from msgspec import to_builtins

    return {
        "kind": kind,
        "part": to_builtins(part),
        "grid": grid.to_dict(),
        "past": past,
        "lead": lead,
        "normalise": normalise,
        "predict": predict,
        "statistics": asdict(known),
        **more,
    }


def _statistics(metadata: dict[str, Any]) -> Statistics:
    plain = metadata["statistics"]
    listed = {k: tuple(v) for k, v in plain.items() if k != "quantiles"}
    quantiles = {float(q): tuple(v) for q, v in plain["quantiles"].items()}
    return Statistics(**listed, quantiles=quantiles)


def load_student(folder: Path) -> tuple[Student, dict[str, Any]]:
    """A trained student in evaluation mode, and its metadata."""
    metadata = load_metadata(folder)
    if metadata["kind"] != "student":
        raise S2KDError(f"{folder}: holds a {metadata['kind']}; a student is wanted")
    student = build_student(
        Part(**metadata["part"]),
        GridSpec.from_dict(metadata["grid"]),
        past=metadata["past"],
        lead=metadata["lead"],
        known=_statistics(metadata),
        normalise=metadata["normalise"],
        predict=metadata["predict"],
    )
    load_weights(folder, student, metadata)
    return student.eval(), metadata


def load_teacher(folder: Path) -> tuple[Teacher, dict[str, Any]]:
    """A trained teacher in evaluation mode, and its metadata."""
    metadata = load_metadata(folder)
    if metadata["kind"] != "teacher":
        raise S2KDError(f"{folder}: holds a {metadata['kind']}; a teacher is wanted")
    part = dict(metadata["part"])
    spec = TeacherSpec(**{**part, "backbone": Part(**part["backbone"])})
    teacher = build_teacher(
        spec,
        GridSpec.from_dict(metadata["grid"]),
        past=metadata["past"],
        lead=metadata["lead"],
        known=_statistics(metadata),
        normalise=metadata["normalise"],
        predict=metadata["predict"],
        text_width=metadata["text_width"],
        reads=metadata["reads"],
    )
    load_weights(folder, teacher, metadata)
    return teacher.eval(), metadata


def model_key(**inputs: Any) -> str:
    """The name of everything a trained model depends on."""
    return digest(inputs)
