"""A student as an ONNX file: physical units in and out, any batch size."""

import json
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.core.files import write_json, write_whole
from s2kd.core.types import S2KDError
from s2kd.deploy.forecaster import Forecaster
from s2kd.models.checkpoint import Setting
from s2kd.models.forecasters import FramesOnly, Student, Teacher

TOLERANCE = 1e-5
"""Largest difference from PyTorch, relative to the largest magnitude of each channel's output."""


def export_onnx(forecaster: Forecaster, path: Path) -> dict[str, Any]:
    """Write the student to `path` and prove it: the file must agree with PyTorch.

    The input `past` is (batch, past, channel, height, width) and the output `future` (batch,
    lead, channel, height, width), both in physical units with the batch free. What the channels
    are is in the file's metadata under `s2kd` and beside it in `<name>.onnx.json`. Raises
    S2KDError where `path` does not end in .onnx, the extra is missing or the file does not agree.
    """
    if path.suffix != ".onnx":  # else file or metadata could take the place of the student's own
        raise S2KDError(f"{path}: an exported student is a file that ends in .onnx")
    _require()
    import onnx

    sample = _sample(forecaster, 2)
    # in the plain memory layout: the exporter refuses others
    plain = FramesOnly(forecaster.student).eval().to(memory_format=torch.contiguous_format)

    metadata = public_card(forecaster)

    def write(beside: Path) -> None:
        _to_onnx(plain, sample, beside)
        model = onnx.load(str(beside))
        entry = model.metadata_props.add()
        entry.key, entry.value = "s2kd", json.dumps(metadata)
        onnx.save(model, str(beside))
        _prove(forecaster, beside)

    write_whole(path, write)
    # the whole name and .json: `model.json` is the student's own metadata, which may lie there too
    write_json(path.with_name(path.name + ".json"), metadata)
    return metadata


def _to_onnx(module: nn.Module, sample: Tensor, path: Path) -> None:
    """The module as an ONNX file, its batch free."""
    with _silence():
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


@contextmanager
def _silence() -> Iterator[None]:
    """Keep back what the exporter says of packages that it could also have used."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def public_card(forecaster: Forecaster) -> dict[str, Any]:
    """What a user of the file must know: shapes, channels, units, grid, origin."""
    metadata = forecaster.metadata
    keep = (
        "grid",
        "past",
        "lead",
        "method",
        "seed",
        "name",
        "parameters",
        "versions",
        "attributes",
        "validation",
        "fingerprint",
        "source",
    )
    return {key: metadata[key] for key in keep if key in metadata}


def run_onnx(
    path: Path, past: Float[np.ndarray, "batch past channel height width"]
) -> Float[np.ndarray, "batch lead channel height width"]:
    """The forecast of an exported file, by ONNX Runtime."""
    _require()
    return _session(path).run(["future"], {"past": np.asarray(past, dtype=np.float32)})[0]


def _session(path: Path, *, threads: int = 0) -> Any:
    """ONNX Runtime on the processor; 0 threads for as many as it chooses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure_onnx(
    model: Student | Teacher, setting: Setting, *, warmup: int = 5, repeats: int = 40
) -> tuple[float, int]:
    """(milliseconds, bytes): latency of one window and size of the model as an ONNX file.

    Batch 1, one thread of ONNX Runtime on this machine's processor; the median of `repeats` calls
    after `warmup`. A teacher must be one that does not read. Raises S2KDError where the extra is
    missing.
    """
    _require()
    grid, train_stats = setting.grid, setting.statistics
    shape = (2, setting.past, len(grid.channels), grid.height, grid.width)
    sample = torch.tensor(train_stats.mean, dtype=torch.float32)[:, None, None].expand(shape)
    plain = FramesOnly(model).eval().to(memory_format=torch.contiguous_format)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _to_onnx(plain, sample.contiguous(), path)
        session = _session(path, threads=1)
        past, times = {"past": sample[:1].numpy()}, []
        for _ in range(warmup + repeats):
            start = time.perf_counter()
            session.run(["future"], past)
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times[warmup:]), path.stat().st_size


def _prove(forecaster: Forecaster, path: Path) -> None:
    """Three windows (not the two it was traced with) through both."""
    past = _sample(forecaster, 3).numpy()
    expected, exported = forecaster.predict(past), run_onnx(path, past)
    scale = np.maximum(np.abs(expected).max((0, 1, 3, 4), keepdims=True), np.finfo(np.float32).tiny)
    worst = float((np.abs(expected - exported) / scale).max())
    if not worst <= TOLERANCE:  # NaN is no agreement
        raise S2KDError(
            f"export: the ONNX file differs from PyTorch by {worst:.1e} relative, "
            f"more than {TOLERANCE:.0e}; it was not written"
        )


def _sample(forecaster: Forecaster, batch: int) -> Float[Tensor, "batch past channel h w"]:
    """Plausible inputs: the training mean with noise of the training spread, seeded."""
    grid, train_stats = forecaster.grid, forecaster.metadata["statistics"]
    generator = torch.Generator().manual_seed(0)
    shape = (batch, forecaster.past, len(grid.channels), grid.height, grid.width)
    noise = torch.randn(shape, generator=generator)
    mean, std = (torch.tensor(train_stats[k])[:, None, None] for k in ("mean", "std"))
    return mean + std * noise


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise S2KDError(
            f"export needs {error.name}, which is not installed: pip install 's2kd[onnx]'"
        ) from None
