"""Versions, hardware and latency of one forecast: facts that every result is stored with."""

import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.types import S2KDError


def call_times(call: Callable[[], object], *, warmup: int, repeats: int) -> list[float]:
    """Wall times of `repeats` calls after `warmup` others, in milliseconds."""
    times = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times[warmup:]


def latency(
    module: nn.Module,
    past: Float[Tensor, "batch past channel height width"],
    *,
    warmup: int = 10,
    repeats: int = 50,
) -> dict[str, Any]:
    """Wall time of `module(past)` on `past`'s device, one window at a time, in milliseconds.

    The median of `repeats` calls after `warmup`, with the 5th and 95th percentile; evaluation
    mode, no gradients; a GPU is waited for. The first window of a larger batch is taken.
    """
    if warmup < 0 or repeats < 1:
        raise S2KDError(f"latency: warmup={warmup} and repeats={repeats} must be ≥ 0 and ≥ 1")
    # each part's own mode: a wrapper in training mode may hold a model in evaluation mode
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    past = past[:1]
    try:
        with torch.inference_mode():
            _wait(past.device)
            times = call_times(
                lambda: (module(past), _wait(past.device)), warmup=warmup, repeats=repeats
            )
    finally:
        for part, training in modes:
            part.training = training
    return {
        "median_ms": statistics.median(times),
        "p05_ms": float(np.quantile(times, 0.05)),
        "p95_ms": float(np.quantile(times, 0.95)),
        "batch": 1,
        "warmup": warmup,
        "repeats": repeats,
        "device": str(past.device),
        "dtype": str(past.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def versions(*names: str) -> dict[str, str]:
    """Versions of s2kd, torch, numpy and Python (and of further packages) in use."""
    packages = {name: _version(name) for name in ("torch", "numpy", *names)}
    return {"s2kd": installed("s2kd"), **packages, "python": sys.version.split()[0]}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@lru_cache(maxsize=1)
def _processor() -> str:
    """The processor's name; Linux keeps it in a file, others say it themselves."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What a run was made on: processor, threads, and the GPU where one was used."""
    device = torch.device(device)
    facts: dict[str, Any] = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts
