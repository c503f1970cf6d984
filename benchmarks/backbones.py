"""Multiply-adds, activation memory and latency of every backbone preset on this machine.

`python benchmarks/backbones.py [--preset tiny] [--device cuda]` writes `results/backbones.json`, of
which docs/generate.py makes the table in docs/method.md.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s2kd.core.hardware import hardware, latency
from s2kd.core.tensors import Tokens
from s2kd.core.types import GridSpec
from s2kd.models.backbones import backbones
from s2kd.models.forecasters import FramesOnly, Student, Teacher
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


TEXT_LENGTH = 128
"""Number of tokens of a long narrative."""


def measured(size: Size, *, device: str = "cpu", repeats: int = 20) -> dict[str, Any]:
    """`row`, and multiply-adds, activation memory and latency of one window on `device`."""
    torch.manual_seed(0)
    model = build(size).to(device).to(memory_format=torch.channels_last)
    frames = torch.randn(1, size.frames, 2, size.height, size.width, device=device)
    alone = FramesOnly(model, _words(device) if size.role == "teacher" else None).eval()
    spent = latency(alone, frames, warmup=3, repeats=repeats)
    return {
        **row(size),
        "multiply_adds": multiply_adds(alone, frames),
        "activation_bytes": activation_bytes(alone, frames),
        "latency_ms": spent["median_ms"],
        "latency": spent,
        "hardware": hardware(device),
    }


def multiply_adds(module: nn.Module, frames: Tensor) -> int:
    """Multiply-adds of convolutions and matrix products in one forward pass.

    Half of what PyTorch's counter calls floating-point operations. Fourier transforms, norms and
    activations are not in it.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(frames)
    return counter.get_total_flops() // 2


def activation_bytes(module: nn.Module, frames: Tensor) -> int:
    """Bytes that a training step keeps for the backward pass, weights and inputs not counted."""
    parameter_storages = {
        p.untyped_storage().data_ptr() for p in (*module.parameters(), *module.buffers())
    }
    parameter_storages.add(frames.untyped_storage().data_ptr())
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameter_storages:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = module(frames)  # held until the sum is taken, so that no address is used twice
    total = sum(saved.values())
    del out
    return total


def _words(device: str) -> Tokens:
    values = torch.randn(1, TEXT_LENGTH, TEXT_WIDTH, device=device)
    padding = torch.zeros(1, TEXT_LENGTH, dtype=torch.bool, device=device)
    return Tokens(values=values, padding=padding)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    rows = [
        measured(size, device=options.device)
        for size in sizes()
        if options.preset in ("", size.preset)
    ]
    path = Path(__file__).parent.parent / "results" / "backbones.json"
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
