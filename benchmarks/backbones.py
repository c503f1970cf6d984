"""Multiply-adds, activation memory and latency of every backbone preset on this machine.

`python benchmarks/backbones.py [--preset tiny] [--device cuda]` writes `results/backbones.json`, of
which docs/generate.py makes the table in docs/method.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s2kd.core.hardware import hardware, latency
from s2kd.core.tensors import Tokens
from s2kd.models.costs import TEXT_WIDTH, Size, build, row, sizes
from s2kd.models.forecasters import FramesOnly

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
