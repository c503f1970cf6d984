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


def save_model(folder: Path, model: nn.Module, card: dict[str, Any]) -> None:
    """Write weights, then the card: a folder with a card is complete."""
    from safetensors.torch import save_file

    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_whole(folder / WEIGHTS, lambda beside: save_file(weights, beside))
    whole = {
        "format": "s2kd-model-1",
        "parameters": parameter_count(model),
        "weights": file_digest(folder / WEIGHTS),
        "versions": versions(),
        **card,
    }
    write_json(folder / CARD, whole)


def load_card(folder: Path) -> dict[str, Any]:
    """What is written about a model; refuses a folder that is not one of ours."""
    path = folder / CARD
    if not path.exists():
        raise S2KDError(f"{folder}: no {CARD} in it, so not the folder of a trained model")
    card = read_json(path)
    if not isinstance(card, dict) or card.get("format") != "s2kd-model-1":
        raise S2KDError(f"{path}: not a model card of this program")
    lacking = [name for name in NEEDED if name not in card]
    if lacking:
        raise S2KDError(f"{path}: an incomplete model card (it lacks {', '.join(lacking)})")
    return card


def load_weights(folder: Path, model: nn.Module, card: dict[str, Any]) -> None:
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
    if file_digest(path) != card["weights"]:
        raise S2KDError(f"{path}: not the weights that {CARD} beside it was written for")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise S2KDError(f"{path}: does not fit the model its card describes ({error})") from None


def file_digest(path: Path) -> str:
    """A hash of the file's content."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_of(
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
    """The card of a `student` or `teacher`: what `load_student` needs, and where it came from."""
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


def _statistics(card: dict[str, Any]) -> Statistics:
    plain = card["statistics"]
    listed = {k: tuple(v) for k, v in plain.items() if k != "quantiles"}
    quantiles = {float(q): tuple(v) for q, v in plain["quantiles"].items()}
    return Statistics(**listed, quantiles=quantiles)


def load_student(folder: Path) -> tuple[Student, dict[str, Any]]:
    """A trained student in evaluation mode, and its card."""
    card = load_card(folder)
    if card["kind"] != "student":
        raise S2KDError(f"{folder}: holds a {card['kind']}; a student is wanted")
    student = build_student(
        Part(**card["part"]),
        GridSpec.from_dict(card["grid"]),
        past=card["past"],
        lead=card["lead"],
        known=_statistics(card),
        normalise=card["normalise"],
        predict=card["predict"],
    )
    load_weights(folder, student, card)
    return student.eval(), card


def load_teacher(folder: Path) -> tuple[Teacher, dict[str, Any]]:
    """A trained teacher in evaluation mode, and its card."""
    card = load_card(folder)
    if card["kind"] != "teacher":
        raise S2KDError(f"{folder}: holds a {card['kind']}; a teacher is wanted")
    part = dict(card["part"])
    spec = TeacherSpec(**{**part, "backbone": Part(**part["backbone"])})
    teacher = build_teacher(
        spec,
        GridSpec.from_dict(card["grid"]),
        past=card["past"],
        lead=card["lead"],
        known=_statistics(card),
        normalise=card["normalise"],
        predict=card["predict"],
        text_width=card["text_width"],
        reads=card["reads"],
    )
    load_weights(folder, teacher, card)
    return teacher.eval(), card


def model_key(**inputs: Any) -> str:
    """The name of everything a trained model depends on."""
    return digest(inputs)
