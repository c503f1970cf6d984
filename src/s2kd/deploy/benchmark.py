"""Formats and runtimes of a student side by side: error, latency, size."""

from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from s2kd.core.errors import S2KDError
from s2kd.core.saved import WEIGHTS, find_student, load_metadata
from s2kd.deploy.export import VALIDATION, export_student, sample_frames
from s2kd.deploy.forecaster import Step, onnx_step, pytorch_step
from s2kd.deploy.measures import latency_ms, rmse, sample_windows, training_data
from s2kd.deploy.metadata import EXPORT, exported_metadata, is_exported


def benchmark(folder: Path, *, student: str = "") -> list[dict[str, Any]]:
    """A row per format and runtime, the fastest first; a student not exported yet is exported.

    Args:
        folder: a run's or a student's.
        student: of the run; empty: the one with the lowest validation error.

    Returns:
        Rows of `format`, `runtime`, `rmse` (of validation windows, in training standard deviations;
        None where the data cannot be read), `milliseconds` (median, one window, one thread) and
        `megabytes`.
    """
    folder = find_student(folder, student)
    if not is_exported(folder):
        export_student(folder)
    metadata, windows = load_metadata(folder), None
    with suppress(S2KDError):
        windows = sample_windows(training_data(metadata), metadata, "val", VALIDATION)
    sample, threads = sample_frames(metadata, 1).numpy(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [
            {
                "format": form,
                "runtime": runtime,
                "rmse": None if windows is None else rmse(step, *windows, metadata),
                "milliseconds": latency_ms(lambda step=step: step(sample)),
                "megabytes": path.stat().st_size / 1e6,
            }
            for form, runtime, path, step in _steps(folder)
        ]
    finally:
        torch.set_num_threads(threads)
    return sorted(rows, key=lambda row: row["milliseconds"])


def _steps(folder: Path) -> Iterator[tuple[str, str, Path, Step]]:
    """(format, runtime, file, function on one thread) of a student's folder with its export."""
    yield "float32", "PyTorch", folder / WEIGHTS, pytorch_step(folder)
    for name, form in exported_metadata(folder / EXPORT)["formats"].items():
        path = folder / EXPORT / form["file"]
        yield name, "ONNX Runtime", path, onnx_step(path, threads=1)
        if find_spec("openvino"):
            yield name, "OpenVINO", path, _openvino_step(path)


def _openvino_step(path: Path) -> Step:
    import openvino

    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": 1})
    return lambda past: model({"past": past})["future"]
