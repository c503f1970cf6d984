"""Export of a student to a folder that needs neither PyTorch nor this machine."""

import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.files import file_digest, sealed, whole_folder, write_json, write_text
from s2kd.core.hardware import hardware
from s2kd.core.saved import WEIGHTS
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import Dataset
from s2kd.deploy.forecaster import onnx_step
from s2kd.deploy.measures import latency_ms, rmse, sample_windows, training_data
from s2kd.deploy.metadata import CONFIG, EXPORT, EXPORTED, student_metadata
from s2kd.deploy.quantise import quantise
from s2kd.models.checkpoint import Setting, load_student
from s2kd.models.forecasters import FramesOnly, Student, Teacher

INT8 = "model.int8.onnx"
TOLERANCE = 1e-5
"""Largest difference from PyTorch, in units of the training standard deviation of each channel."""
CALIBRATION, VALIDATION = 64, 128
"""Numbers of windows from which int8 takes its ranges, and by which it is judged."""


def export_student(
    student_folder: Path,
    out: Path | None = None,
    *,
    dataset: Dataset | None = None,
    max_drop: float = 1.0,
    say: Callable[[str], object] = lambda text: None,
) -> Path:
    """Write a folder from which a student forecasts without PyTorch, and prove it.

    It holds `model.onnx` (input `past` (batch, past, channel, height, width), output `future`
    (batch, lead, channel, height, width), both in physical units with the batch free),
    `model.int8.onnx` where the accuracy allows it, the weights, `config.json` and a model card.

    Args:
        student_folder: of a trained student.
        out: the folder; None: `export` in the student's own. An older export there is replaced.
        dataset: the student's data; None: they are read again.
        max_drop: largest rise of the validation RMSE by int8, in percent.
        say: called with one sentence where there is no int8.

    Returns:
        The folder.

    Raises:
        S2KDError: the extra is missing, `out` holds something else, or the ONNX file does not
            agree with PyTorch.
    """
    student, trained = load_student(student_folder)
    metadata = student_metadata(student_folder)
    out = out or student_folder / EXPORT
    _check_replaceable(out)
    with whole_folder(out, replace=True) as partial:
        path = partial / "model.onnx"
        _to_onnx(student, sample_frames(metadata, 2), path)
        _prove(student, metadata, path)
        formats = {"float32": _measured(path, metadata)}
        try:
            error, int8 = _int8(path, metadata, dataset or training_data(trained), max_drop)
            formats = {"float32": {**formats["float32"], "rmse": error}, "int8": int8}
        except S2KDError as error:
            say(f"no int8: {error}")
            (partial / INT8).unlink(missing_ok=True)
        for form in formats.values():
            _name(partial / form["file"], metadata)
        shutil.copyfile(student_folder / WEIGHTS, partial / WEIGHTS)
        exported = {
            **metadata,
            "format": EXPORTED,
            "formats": formats,
            "default": min(formats, key=lambda name: formats[name]["milliseconds"]),
            "hardware": hardware(),
        }
        write_text(partial / "README.md", model_card(exported))
        exported["files"] = {file.name: file_digest(file) for file in sorted(partial.iterdir())}
        write_json(partial / CONFIG, sealed(exported))
    return out


def model_card(metadata: Mapping[str, Any]) -> str:
    """The README of an exported student, with YAML metadata as model hubs read them."""
    from jinja2 import Template

    template = files("s2kd.deploy").joinpath("model_card.md.j2").read_text(encoding="utf-8")
    reader = metadata["reader"] or {"name": "prepared"}
    return Template(template).render(**{**metadata, "reader": reader}) + "\n"


def _int8(
    path: Path, metadata: Mapping[str, Any], dataset: Dataset, max_drop: float
) -> tuple[float, dict[str, Any]]:
    """The error of the student in float32 (`path`), and the student in int8 beside it, measured.

    Raises S2KDError where the validation error rises by more than `max_drop` percent.
    """
    past, _ = sample_windows(dataset, metadata, "train", CALIBRATION)
    validation = sample_windows(dataset, metadata, "val", VALIDATION)

    def error_of(file: Path) -> float:
        return rmse(onnx_step(file), *validation, metadata)

    error, out = error_of(path), path.with_name(INT8)
    excluded = quantise(path, out, past, error_of=error_of, bound=error * (1 + max_drop / 100))
    measured = {**_measured(out, metadata), "rmse": error_of(out), "float32_layers": excluded}
    return error, measured


def _measured(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Name, size and latency (batch 1, one thread) of an ONNX file."""
    step, past = onnx_step(path, threads=1), sample_frames(metadata, 1).numpy()
    latency = latency_ms(lambda: step(past))
    return {"file": path.name, "bytes": path.stat().st_size, "milliseconds": latency}


def _check_replaceable(out: Path) -> None:
    """Refuse a place that holds anything but an older export."""
    if out.exists() and not (out.is_dir() and ((out / CONFIG).exists() or not any(out.iterdir()))):
        raise S2KDError(
            f"{out}: exists and is no folder that `s2kd export` wrote; give another --out"
        )


def _name(path: Path, metadata: Mapping[str, Any]) -> None:
    """Write the student's metadata into its ONNX file, which may be used by itself."""
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"s2kd": json.dumps(metadata)})
    onnx.save(model, str(path))


def _to_onnx(model: nn.Module, sample: Tensor, path: Path) -> None:
    """A student or teacher as an ONNX file, its batch free."""
    # in the plain memory layout: the exporter refuses others
    module = FramesOnly(model).eval().to(memory_format=torch.contiguous_format)
    # the exporter reports packages that it could also have used
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            module,
            (sample,),
            dynamo=True,
            input_names=["past"],
            output_names=["future"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            opset_version=18,
            external_data=False,
            verbose=False,
        )
    program.save(str(path))


def measure_onnx(model: Student | Teacher, setting: Setting) -> tuple[float, int]:
    """(milliseconds, bytes): latency of one window and size of the model as an ONNX file.

    Batch 1, one thread of ONNX Runtime on this machine's processor. A teacher must be one that does
    not read. Raises S2KDError where the extra is missing.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _to_onnx(model, sample_frames(setting.to_dict(), 2), path)
        measured = _measured(path, setting.to_dict())
        return measured["milliseconds"], measured["bytes"]


def _prove(student: nn.Module, metadata: Mapping[str, Any], path: Path) -> None:
    """Three windows (not the two it was traced with) through both.

    Besides `TOLERANCE` they may differ by float32's rounding of the largest value of a channel.
    """
    past = sample_frames(metadata, 3)
    with torch.inference_mode():
        expected = student(past).future.numpy()
    exported = onnx_step(path)(past.numpy())
    std = np.array(metadata["statistics"]["std"], dtype=np.float32)
    rounding = np.spacing(np.abs(expected).max((0, 1, 3, 4)))
    worst = np.abs(expected - exported).max((0, 1, 3, 4)) - rounding
    if not (worst <= TOLERANCE * std).all():  # NaN is no agreement
        raise S2KDError(
            f"export: the ONNX file differs from PyTorch by {(worst / std).max():.1e} standard "
            f"deviations, more than {TOLERANCE:.0e}; it was not written"
        )


def sample_frames(metadata: Mapping[str, Any], batch: int) -> Float[Tensor, "batch past c h w"]:
    """Plausible inputs: the training mean with noise of the training spread, seeded."""
    grid, train_stats = GridSpec.from_dict(metadata["grid"]), metadata["statistics"]
    generator = torch.Generator().manual_seed(0)
    shape = (batch, metadata["past"], len(grid.channels), grid.height, grid.width)
    noise = torch.randn(shape, generator=generator)
    mean, std = (torch.tensor(train_stats[k])[:, None, None] for k in ("mean", "std"))
    return mean + std * noise
