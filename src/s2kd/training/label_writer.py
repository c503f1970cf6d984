"""Writing of label stores, block by block; what a killed process has written is not redone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import s2kd
from s2kd.core.files import check_room, digest, whole_folder
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.models.given import GivenTeacher
from s2kd.training.label_files import (
    BLOCK,
    BLOCK_BYTES,
    Attributes,
    LabelFiles,
    save_attributes,
)
from s2kd.training.targets import freeze

if TYPE_CHECKING:
    import xarray as xr

Shapes = dict[str, tuple[int, ...]]


@torch.no_grad()
def write_labels(
    path: Path | str,
    teacher: GivenTeacher,
    windows: WindowDataset,
    *,
    latents: bool = False,
    inputs: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Write the teacher's forecasts of all windows; what a killed call has written is not redone.

    They are those of `LiveTargets` of the same windows, in batches of 32 (fewer where that exceeds
    64 MiB), to the last bit. `path` is a new folder, or the unfinished store of the same teacher,
    data and settings. The windows' `lead` may be 0, since no truth is read. `latents` and `inputs`
    say whether the teacher's latents and the past frames are stored. Returns the digest of the
    store.

    Raises S2KDError where another store lies there, a block of it was altered, or an answer of the
    teacher is not finite.
    """
    path, teacher = Path(path), freeze(teacher)
    probe = teacher(windows.gather(torch.arange(1)).past)
    if latents and probe.latent is None:
        raise S2KDError(f"{teacher.name}: gives no latent, so none can be stored")
    origin = {
        "teacher": teacher.digest,
        "data": windows.dataset.fingerprint,
        "windows": digest([windows.starts.tolist(), windows.past]),
        "latents": latents,
        "inputs": inputs,
        "narratives": "",
    }
    frames = np.unique(windows.starts[:, None] + np.arange(windows.past))
    if not path.exists():
        shapes: Shapes = {"forecast": (len(windows), *probe.future.shape[1:])}
        if inputs:
            shapes = {"inputs": (len(frames), *probe.future.shape[2:]), **shapes}
        if latents:
            shapes["latent"] = (len(windows), *probe.latent.shape[1:])
        attributes = _attributes(
            windows,
            shapes,
            teacher={"name": teacher.name, "digest": teacher.digest},
            origin=origin,
            latent_extent=teacher.extent,
        )
        size = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
        check_room(path.parent, size, remedy="label with a larger --stride, or on another disk")
        _create(path, _template(windows, frames, shapes, attributes.block), attributes)
    files = _own_files(path, origin)
    if inputs:
        _write_inputs(files, windows, frames)
    _write_forecasts(files, teacher, windows, progress)
    files.save(complete=True)
    return files.attributes.digest


def _attributes(windows: WindowDataset, shapes: Shapes, **origin: Any) -> Attributes:
    dataset, grid = windows.dataset, windows.dataset.grid
    entry = 4 * max(int(np.prod(shape[1:])) for shape in shapes.values())
    return Attributes(
        s2kd=s2kd.__version__,
        past=windows.past,
        lead=shapes["forecast"][1],
        step_seconds=float(grid.step_seconds),
        domain=dataset.domain,
        local_time=int(dataset.local_time),
        wraps=int(grid.wraps),
        rows=grid.height,
        columns=grid.width,
        block=max(1, min(BLOCK, BLOCK_BYTES // entry)),
        blocks={view: [] for view in shapes},
        **origin,
    )


def _template(
    windows: WindowDataset, frames: np.ndarray, shapes: Shapes, block: int
) -> "xr.Dataset":
    """The store before its large arrays are written: their metadata, and all coordinates."""
    import dask.array
    import xarray as xr

    times, grid = windows.dataset.times, windows.dataset.grid
    plane, places = _places(grid)
    dims = {
        "inputs": ("frame", "channel", *plane),
        "forecast": ("time", "lead", "channel", *plane),
        "latent": ("time", "feature", "latent_row", "latent_column"),
    }
    last = windows.starts + windows.past - 1
    leads = grid.step_seconds * np.arange(1, shapes["forecast"][1] + 1)
    start = {"standard_name": "forecast_reference_time", "long_name": "time of the last past frame"}
    variables: dict[str, Any] = {
        "time": ("time", times[last], start),
        "lead": ("lead", leads, {"standard_name": "forecast_period", "units": "seconds"}),
        "channel": ("channel", np.array(grid.channels)),
        "units": ("channel", np.array(grid.units)),
        **places,
    }
    runs = windows.groups.astype(str)
    if "inputs" in shapes:
        position = np.searchsorted(frames, last)
        frame_runs = np.empty(len(frames), runs.dtype)
        frame_runs[position[:, None] - np.arange(windows.past)] = runs[:, None]
        variables["last_frame"] = ("time", position)
        variables["frame_time"] = ("frame", times[frames])
        variables["frame_run"] = ("frame", frame_runs)
    variables["run"] = ("time", runs)
    for view, shape in shapes.items():
        chunks = (min(block, shape[0]), *shape[1:])
        encoding = {"chunks": chunks, "_FillValue": np.float32("nan")}
        zeros = dask.array.zeros(shape, chunks=chunks, dtype="f4")
        variables[view] = (dims[view], zeros, {}, encoding)
    if not runs.astype(bool).any():
        variables = {name: value for name, value in variables.items() if "run" not in name}
    template = xr.Dataset(variables)
    unit = "microseconds" if times.dtype == object else "nanoseconds"
    for name in {"time", "frame_time"} & set(variables):
        template[name].encoding = {"units": f"{unit} since 1970-01-01", "dtype": "int64"}
    return template


def _places(grid: GridSpec) -> tuple[list[str], dict[str, Any]]:
    """Names of rows and columns, and their coordinates and mask where there are such."""
    plane, places = ["row", "column"], {}
    for axis, (name, degrees, unit) in enumerate(
        (
            ("latitude", grid.latitude, "degrees_north"),
            ("longitude", grid.longitude, "degrees_east"),
        )
    ):
        if degrees is not None:
            plane[axis] = name
            places[name] = (name, np.array(degrees), {"standard_name": name, "units": unit})
    if grid.mask is not None:
        places["mask"] = (plane, grid.exists, {"long_name": "cells that exist"})
    return plane, places


def _create(path: Path, template: "xr.Dataset", attributes: Attributes) -> None:
    with whole_folder(path) as folder:
        template.to_zarr(folder, mode="w", zarr_format=2, consolidated=False, compute=False)
        save_attributes(folder, attributes)
        files = LabelFiles(folder)
        attributes.coordinates = files.coordinate_digest()
        save_attributes(folder, attributes)


def _own_files(path: Path, origin: dict[str, Any]) -> LabelFiles:
    """The store of exactly this origin, its finished blocks checked."""
    files = LabelFiles(path, writes=True)
    stored = files.attributes.origin
    differing = [name for name, value in origin.items() if stored.get(name) != value]
    if differing:
        raise S2KDError(
            f"{path}: holds other labels (they differ in {', '.join(differing)}); choose another "
            "--out, or delete it"
        )
    for view in files.arrays:
        for _ in files.blocks(view):
            pass  # read, so that a damaged one is found
    return files


def _blocks(files: LabelFiles, view: str, index: np.ndarray) -> Iterator[np.ndarray]:
    """The entries of each block that is not yet written."""
    length = files.attributes.block
    for first in range(len(files.attributes.blocks[view]) * length, len(index), length):
        yield index[first : first + length]


def _write_inputs(files: LabelFiles, windows: WindowDataset, frames: np.ndarray) -> None:
    series = windows.dataset.frames
    for numbers in _blocks(files, "inputs", frames):
        pieces = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
        values = [series[int(piece[0]) : int(piece[-1]) + 1] for piece in pieces]
        files.append("inputs", np.concatenate(values))
        files.note()


def _write_forecasts(
    files: LabelFiles,
    teacher: GivenTeacher,
    windows: WindowDataset,
    progress: Callable[[int, int], None] | None,
) -> None:
    exists = windows.dataset.grid.exists
    for numbers in _blocks(files, "forecast", np.arange(len(windows))):
        answer = teacher(windows.gather(torch.from_numpy(numbers)).past)
        future = answer.future.cpu().numpy()
        _check_finite(files, future[..., exists], windows, numbers)
        files.append("forecast", future)
        if files.has("latent"):
            latent = answer.latent.cpu().numpy()
            _check_finite(files, latent, windows, numbers)
            files.append("latent", latent)
        files.note()
        if progress is not None:
            progress(int(numbers[-1]) + 1, len(windows))


def _check_finite(
    files: LabelFiles, values: np.ndarray, windows: WindowDataset, numbers: np.ndarray
) -> None:
    finite = np.isfinite(values).reshape(len(values), -1).all(1)
    if not finite.all():
        frame = windows.starts[numbers[finite.argmin()]] + windows.past - 1
        raise S2KDError(
            f"{files.attributes.teacher['name']}: its answer to the window that ends at "
            f"{str(windows.dataset.times[frame])[:19]} holds values that are not finite"
        )
