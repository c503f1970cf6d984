"""Saved models: `model.safetensors` (weights) beside `model.json` (resolved settings, origin)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace
from torch import nn

from s2kd.core.files import file_digest, plain_fields, sealed, write_json, write_whole
from s2kd.core.hardware import versions
from s2kd.core.recipe import Part, TeacherSpec
from s2kd.core.saved import FORMAT, METADATA, WEIGHTS, metadata_of_kind
from s2kd.core.types import GridSpec, S2KDError, Statistics
from s2kd.models.backbones import backbones
from s2kd.models.forecasters import Student, Teacher
from s2kd.models.layers import parameter_count
from s2kd.models.normaliser import Normaliser


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a model is built for: grid, numbers of frames, and units of its input and output.

    `statistics` are those of the training split; `normalise` and `predict` are the recipe's.
    """

    grid: GridSpec
    past: int
    lead: int
    statistics: Statistics
    normalise: str = "zscore"
    predict: str = "frames"

    @property
    def normaliser(self) -> Normaliser:
        """A normaliser by the training statistics."""
        return Normaliser.from_statistics(
            self.statistics, kind=self.normalise, predict=self.predict
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able data."""
        return {
            "grid": self.grid.to_dict(),
            "past": self.past,
            "lead": self.lead,
            "normalise": self.normalise,
            "predict": self.predict,
            "statistics": asdict(self.statistics),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Setting":
        """The inverse of `to_dict`; further keys are left alone."""
        values = dict(plain["statistics"])
        quantiles = {float(q): tuple(v) for q, v in values.pop("quantiles").items()}
        per_channel = {name: tuple(value) for name, value in values.items()}
        return cls(
            grid=GridSpec.from_dict(plain["grid"]),
            statistics=Statistics(**per_channel, quantiles=quantiles),
            **{name: plain[name] for name in ("past", "lead", "normalise", "predict")},
        )


def build_student(part: Part, setting: Setting) -> Student:
    """An untrained student."""
    return Student(_backbone(part, setting), setting.normaliser)


def build_teacher(spec: TeacherSpec, setting: Setting, *, text_width: int, reads: bool) -> Teacher:
    """An untrained teacher; with `reads=False` the same one without the alignment."""
    return Teacher(
        _backbone(spec.backbone, setting),
        setting.normaliser,
        wraps=setting.grid.wraps,
        text_width=text_width,
        width=spec.width,
        heads=spec.heads,
        depth=spec.depth if reads else 0,
        branches=spec.branches,
        dropout=spec.dropout,
    )


def _backbone(part: Part, setting: Setting) -> nn.Module:
    return backbones.build(
        part.name, setting.grid, past=setting.past, lead=setting.lead, **part.params
    )


def metadata_of(
    kind: str, part: Part | TeacherSpec, setting: Setting, **origin: Any
) -> dict[str, Any]:
    """Metadata of a trained `student` or `teacher`.

    The part is written resolved, with every preset and default, so that a later default does not
    change this model. `origin` are JSON-able facts about data and training; of a teacher also
    `text_width` and `reads`.
    """
    if isinstance(part, TeacherSpec):
        part = replace(part, backbone=_resolved(part.backbone, setting.grid))
    else:
        part = _resolved(part, setting.grid)
    return {"kind": kind, "part": to_builtins(part), **setting.to_dict(), **origin}


def _resolved(part: Part, grid: GridSpec) -> Part:
    return replace(part, params=backbones.resolved(part.name, part.params, grid=grid))


def save_model(folder: Path, model: nn.Module, metadata: dict[str, Any]) -> None:
    """Write weights, then the metadata: a folder with `model.json` is complete."""
    from safetensors.torch import save_file

    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_whole(folder / WEIGHTS, lambda beside: save_file(weights, beside))
    content = {
        "format": FORMAT,
        "parameters": parameter_count(model),
        "weights": file_digest(folder / WEIGHTS),
        "versions": versions(),
        **metadata,
    }
    write_json(folder / METADATA, sealed(content))


def load_student(folder: Path) -> tuple[Student, dict[str, Any]]:
    """A trained student in evaluation mode, and its metadata."""
    metadata = metadata_of_kind(folder, "student")
    with plain_fields(folder / METADATA, "train it again"):
        student = build_student(Part(**metadata["part"]), Setting.from_dict(metadata))
    load_weights(folder, student, metadata)
    return student.eval(), metadata


def load_teacher(folder: Path) -> tuple[Teacher, dict[str, Any]]:
    """A trained teacher in evaluation mode, and its metadata."""
    metadata = metadata_of_kind(folder, "teacher")
    with plain_fields(folder / METADATA, "train it again"):
        part = metadata["part"]
        teacher = build_teacher(
            TeacherSpec(**{**part, "backbone": Part(**part["backbone"])}),
            Setting.from_dict(metadata),
            text_width=metadata["text_width"],
            reads=metadata["reads"],
        )
    load_weights(folder, teacher, metadata)
    return teacher.eval(), metadata


def load_weights(folder: Path, model: nn.Module, metadata: dict[str, Any]) -> None:
    """Fill a model of the right shape; a truncated or exchanged file is refused."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.exists():
        raise S2KDError(f"{path}: no such file; the model's folder is incomplete")
    if file_digest(path) != metadata["weights"]:
        raise S2KDError(
            f"{path}: not the weights that {METADATA} beside it was written for; "
            "the command that trained the model trains it again"
        )
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise S2KDError(
            f"{path}: does not fit the model its metadata describes ({error})"
        ) from None
