"""Every preset of every backbone at the paper's shapes, with its number of parameters."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from s2kd.core.types import GridSpec
from s2kd.models.backbones import backbones
from s2kd.models.forecasters import Student, Teacher
from s2kd.models.layers import parameter_count
from s2kd.models.normaliser import Normaliser

TEXT_WIDTH = 384
"""Of MiniLM's states."""

TEACHERS = {
    "triton": (12, ((32, 64),), 3),
    "earthfarseer": (12, ((32, 32),), 2),
    "simvp": (10, ((64, 64),), 1),
}
"""Frames in and out, grids and alignment layers N of the paper's teachers: weather, traffic,
fire. A backbone that is not here is listed as a student."""

STUDENT_GRIDS = ((32, 64), (32, 32), (128, 128))
ALIGNMENT = {"paper": (512, 8), "small": (64, 4), "tiny": (16, 4)}
"""D and heads of the alignment, by preset."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """One row of the table: two channels, as many frames out as in."""

    name: str
    preset: str
    role: str
    height: int
    width: int
    frames: int

    @property
    def grid(self) -> GridSpec:
        """The grid that the size is counted on."""
        return GridSpec(
            channels=("first", "second"),
            units=("1", "1"),
            height=self.height,
            width=self.width,
            step_seconds=1.0,
        )


def sizes() -> Iterator[Size]:
    """Every preset of every backbone, at the paper's shapes."""
    for name in backbones.names():
        frames, grids, _ = TEACHERS.get(name, (12, STUDENT_GRIDS, 0))
        role = "teacher" if name in TEACHERS else "student"
        for preset in backbones.presets(name):
            for height, width in grids:
                yield Size(
                    name=name, preset=preset, role=role, height=height, width=width, frames=frames
                )


def build(size: Size) -> Student | Teacher:
    """The model of that size; a teacher with its alignment, without the frozen text encoder."""
    backbone = backbones.build(
        size.name, size.grid, past=size.frames, lead=size.frames, preset=size.preset
    )
    normaliser = Normaliser(torch.zeros(2), torch.ones(2))
    if size.role == "student":
        return Student(backbone, normaliser)
    width, heads = ALIGNMENT[size.preset]
    depth = TEACHERS[size.name][2] if size.preset == "paper" else 2
    return Teacher(
        backbone,
        normaliser,
        wraps=False,
        text_width=TEXT_WIDTH,
        width=width,
        heads=heads,
        depth=depth,
    )


def row(size: Size) -> dict[str, Any]:
    """Name, preset, role, grid and learned parameters; nothing is allocated to count them."""
    with torch.device("meta"):
        parameters = parameter_count(build(size))
    return {
        "name": size.name,
        "preset": size.preset,
        "role": size.role,
        "grid": f"{size.height}x{size.width}",
        "frames": f"{size.frames}->{size.frames}",
        "channels": 2,
        "parameters": parameters,
    }
