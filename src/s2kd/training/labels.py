"""Label stores: a teacher's forecasts of many windows and their inputs, as open Zarr.

`forecast` (time, lead, channel, row, column), the frames that the teacher saw as `inputs` (frame,
channel, row, column) with `last_frame` (time), and its `latent` (time, feature, latent_row,
latent_column), all float32 and in physical units; `time` is that of the last past frame.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

import s2kd
from s2kd.core.files import digest, whole_folder
from s2kd.core.registry import nearest
from s2kd.core.types import GridSpec, S2KDError
from s2kd.core.units import conversion
from s2kd.data.windows import WindowDataset
from s2kd.models.given import GivenTeacher, check_places, content_digest
from s2kd.training.label_files import BLOCK, Attributes, LabelFiles, save_attributes
from s2kd.training.label_files import is_labels as is_labels
from s2kd.training.objectives import States
from s2kd.training.targets import AnyTeacher, forecast_of, freeze, teacher_extent

if TYPE_CHECKING:
    import xarray as xr

CHUNK_BYTES = 2**26


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """A finished label store, by window number; `Labels.open` reads one.

    Attributes:
        files: its arrays and attributes.
        grid: channels, units and place of the fields as they are returned.
        past, lead: frames of inputs and of forecasts.
        times: (window,) times of the last past frames, datetime64[ns] or cftime objects.
        runs: (window,) the run or environment of each window, "" where there is but one.
    """

    files: LabelFiles
    grid: GridSpec
    past: int
    lead: int
    times: np.ndarray
    runs: np.ndarray
    _last_frame: Int[np.ndarray, " window"] | None
    _channels: tuple[int, ...] | None = None
    _scale: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def open(cls, path: Path | str, *, memory_gb: float = 1.0) -> "Labels":
        """The store at `path`; its values stay in memory where they fit `memory_gb` GiB.

        Raises S2KDError where the store is unfinished, torn, altered, or of another kind.
        """
        path = Path(path).expanduser()
        files = LabelFiles(path, memory_gb=memory_gb)
        if not files.attributes.complete:
            raise S2KDError(f"{path}: is not finished; give the same `s2kd label` command again")
        try:
            coordinates = files.coordinates()
            grid = _grid(coordinates, files.attributes)
            times = coordinates["time"].values
            frames = coordinates["last_frame"].values if files.has("inputs") else None
        except (KeyError, ValueError, OverflowError) as error:
            raise S2KDError(f"{path}: its coordinates cannot be read ({error})") from None
        _check_shapes(files, grid, len(times), frames)
        runs = coordinates["run"].values if "run" in coordinates else np.full(len(times), "")
        return cls(
            files=files,
            grid=grid,
            past=files.attributes.past,
            lead=files.attributes.lead,
            times=times,
            runs=runs.astype(str),
            _last_frame=frames,
        )

    def __len__(self) -> int:
        return len(self.times)

    @property
    def path(self) -> Path:
        """The folder."""
        return self.files.path

    @property
    def digest(self) -> str:
        """Identity of the content: part of the key of what is made from it."""
        return self.files.attributes.digest

    @property
    def teacher(self) -> dict[str, str]:
        """Its `name` and `digest`."""
        return self.files.attributes.teacher

    @property
    def latent_width(self) -> int | None:
        """Number of features of the latents; None where none are stored."""
        return self.files.arrays["latent"].shape[1] if self.files.has("latent") else None

    @property
    def latent_extent(self) -> tuple[int, int]:
        """(rows, columns) of the grid under the latents."""
        return self.files.attributes.latent_extent

    def describe(self) -> dict[str, Any]:
        """Facts of the store as plain data."""
        attributes, grid = self.files.attributes, self.grid
        ranges = attributes.ranges
        return {
            "path": str(self.path),
            "kind": "label store",
            "teacher": self.teacher,
            "windows": len(self),
            "first_time": str(self.times.min())[:19],
            "last_time": str(self.times.max())[:19],
            "step_seconds": grid.step_seconds,
            "past": self.past,
            "lead": self.lead,
            "rows": grid.height,
            "columns": grid.width,
            "latent_width": self.latent_width,
            "channels": [
                {"name": name, "units": unit, **{view: ranges[view][n] for view in ranges}}
                for n, (name, unit) in enumerate(zip(grid.channels, grid.units, strict=True))
            ],
            "digest": self.digest,
        }

    def inputs(self, index: np.ndarray) -> Float[np.ndarray, "batch past channel height width"]:
        """Past frames of the windows with these numbers, in the grid's units."""
        if self._last_frame is None:
            raise S2KDError(f"{self.path}: holds no inputs; label again without --without-inputs")
        frames = self._last_frame[index][:, None] + np.arange(1 - self.past, 1)
        values = self.files.read("inputs", frames.ravel())
        return self._fitted(values.reshape(*frames.shape, *values.shape[1:]))

    def forecasts(self, index: np.ndarray) -> Float[np.ndarray, "batch lead channel height width"]:
        """The teacher's forecasts of these windows, in the grid's units."""
        return self._fitted(self.files.read("forecast", index)[:, : self.lead])

    def latents(self, index: np.ndarray) -> Float[np.ndarray, "batch d h w"] | None:
        """The teacher's latents of these windows; None where none are stored."""
        return self.files.read("latent", index) if self.files.has("latent") else None

    def check_against(self, grid: GridSpec, *, past: int, lead: int, source: str) -> "Labels":
        """These labels with channels, order and units of `grid`, and so many past and lead frames.

        Channels are matched by name, and further ones dropped. Of more past frames the last are
        taken, of more lead frames the first. `source` names the data in errors.

        Raises S2KDError naming the channel, unit, step, place or number of frames that differs.
        """
        label = str(self.path)
        missing = [channel for channel in grid.channels if channel not in self.grid.channels]
        if missing:
            raise S2KDError(
                f"{label}: has no channel {missing[0]!r} of {source}"
                f"{nearest(missing[0], self.grid.channels)} (it has "
                f"{', '.join(self.grid.channels)})"
            )
        order = tuple(self.grid.channels.index(channel) for channel in grid.channels)
        units = [self.grid.units[position] for position in order]
        scales = np.array(
            [
                _scale(label, source, *names)
                for names in zip(grid.channels, units, grid.units, strict=True)
            ]
        )
        check_places(label, self.grid, grid)
        for name, frames, required in (("past", self.past, past), ("lead", self.lead, lead)):
            if frames < required:
                raise S2KDError(f"{label}: has {name}={frames}, {source} needs {name}={required}")
        if (grid.exists & ~self.grid.exists).any():
            raise S2KDError(f"{label}: has no values in some cells that exist in {source}")
        changes = (scales != (1.0, 0.0)).any()
        return replace(
            self,
            grid=grid,
            past=past,
            lead=lead,
            _channels=None if order == tuple(range(len(self.grid.channels))) else order,
            _scale=(scales[:, 0, None, None], scales[:, 1, None, None]) if changes else None,
        )

    def _fitted(self, values: np.ndarray) -> np.ndarray:
        if self._channels is not None:
            values = values[:, :, self._channels]
        if self._scale is not None:
            factor, offset = self._scale
            values = (values * factor + offset).astype(np.float32)
        return values


def _scale(label: str, source: str, channel: str, stored: str, unit: str) -> tuple[float, float]:
    scale = conversion(stored, unit)
    if scale is None:
        raise S2KDError(
            f"{label}: {channel!r} is in {stored!r}, which does not convert to {unit!r} of {source}"
        )
    return scale


def _grid(coordinates: "xr.Dataset", attributes: Attributes) -> GridSpec:
    degrees = {
        name: tuple(map(float, coordinates[name].values))
        for name in ("latitude", "longitude")
        if name in coordinates
    }
    mask = coordinates["mask"].values.astype(bool).tolist() if "mask" in coordinates else None
    return GridSpec(
        channels=tuple(map(str, coordinates["channel"].values)),
        units=tuple(map(str, coordinates["units"].values)),
        height=attributes.rows,
        width=attributes.columns,
        step_seconds=attributes.step_seconds,
        wraps=bool(attributes.wraps),
        mask=None if mask is None else tuple(map(tuple, mask)),
        **degrees,
    )


def _check_shapes(files: LabelFiles, grid: GridSpec, windows: int, last: np.ndarray | None) -> None:
    """Arrays that agree with coordinates and attributes, in blocks that are all there."""
    frame = (len(grid.channels), grid.height, grid.width)
    lead, past = files.attributes.lead, files.attributes.past
    expected = {"forecast": (windows, lead, *frame), "inputs": frame, "latent": (windows,)}
    for view, digests in files.attributes.blocks.items():
        if not files.has(view):
            raise S2KDError(f"{files.path / view}: no such array; the store is torn")
        shape = files.arrays[view].shape
        agrees = (
            shape[1:] == frame
            if view == "inputs"
            else shape[: len(expected[view])] == expected[view]
        )
        if not agrees or len(digests) != -(-shape[0] // BLOCK):
            raise S2KDError(
                f"{files.path / view}: has shape {shape}, which the coordinates contradict"
            )
    if last is not None:
        count = files.arrays["inputs"].shape[0]
        if last.shape != (windows,) or last.min() < past - 1 or last.max() >= count:
            raise S2KDError(f"{files.path / 'last_frame'}: points outside of the {count} inputs")


# --- writing -------------------------------------------------------------------------------------


@torch.no_grad()
def write_labels(
    path: Path | str,
    teacher: AnyTeacher,
    windows: WindowDataset,
    states: States | None = None,
    *,
    states_key: str = "",
    latents: bool = False,
    inputs: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Write the teacher's forecasts of all windows; what a killed call has written is not redone.

    They are those of `LiveTargets` of the same windows, in batches of `BLOCK`, to the last bit.

    Args:
        path: a new folder, or the unfinished store of the same teacher, data and settings.
        teacher: on the windows' device.
        windows: their `lead` may be 0, since no truth is read.
        states: token states, for a teacher that reads.
        states_key: identity of these states.
        latents: whether its latents are stored too.
        inputs: whether the past frames are stored.
        progress: called with the number of windows done and of all.

    Returns:
        The digest of the store.

    Raises:
        S2KDError: another store lies there, a block of it was altered, or an answer of the
            teacher is not finite.
    """
    path, teacher = Path(path), freeze(teacher)
    probe = forecast_of(teacher, windows.gather(torch.arange(1)), states)
    name, identity = _identity(teacher)
    if latents and probe.latent is None:
        raise S2KDError(f"{name}: gives no latent, so none can be stored")
    origin = {
        "teacher": identity,
        "data": windows.dataset.fingerprint,
        "windows": digest([windows.starts.tolist(), windows.past]),
        "latents": latents,
        "inputs": inputs,
        "narratives": states_key,
    }
    frames = np.unique(windows.starts[:, None] + np.arange(windows.past))
    if not path.exists():
        shapes = {
            **({"inputs": (len(frames), *probe.future.shape[2:])} if inputs else {}),
            "forecast": (len(windows), *probe.future.shape[1:]),
            **({"latent": (len(windows), *probe.latent.shape[1:])} if latents else {}),
        }
        extent = teacher_extent(teacher, windows.dataset.grid)
        attributes = _attributes(
            windows, {"name": name, "digest": identity}, shapes, origin, extent
        )
        _create(path, _template(windows, frames, shapes), attributes)
    files = _own_files(path, origin)
    if inputs:
        _write_inputs(files, windows, frames)
    _write_forecasts(files, teacher, windows, states, progress)
    files.save(complete=True)
    return files.attributes.digest


def _identity(teacher: AnyTeacher) -> tuple[str, str]:
    if isinstance(teacher, GivenTeacher):
        return teacher.name, teacher.digest
    return type(teacher).__name__, content_digest(teacher)


def _attributes(
    windows: WindowDataset,
    teacher: dict[str, str],
    shapes: dict[str, tuple[int, ...]],
    origin: dict[str, Any],
    extent: tuple[int, int],
) -> Attributes:
    dataset, grid = windows.dataset, windows.dataset.grid
    return Attributes(
        s2kd=s2kd.__version__,
        teacher=teacher,
        past=windows.past,
        lead=shapes["forecast"][1],
        step_seconds=float(grid.step_seconds),
        domain=dataset.domain,
        local_time=int(dataset.local_time),
        wraps=int(grid.wraps),
        rows=grid.height,
        columns=grid.width,
        latent_extent=extent,
        origin=origin,
        blocks={view: [] for view in shapes},
        ranges={},
    )


def _template(
    windows: WindowDataset, frames: np.ndarray, shapes: dict[str, tuple[int, ...]]
) -> "xr.Dataset":
    """The store before its large arrays are written: their metadata, and all coordinates."""
    import dask.array
    import xarray as xr

    dataset, grid = windows.dataset, windows.dataset.grid
    rows = "row" if grid.latitude is None else "latitude"
    columns = "column" if grid.longitude is None else "longitude"
    dims = {
        "inputs": ("frame", "channel", rows, columns),
        "forecast": ("time", "lead", "channel", rows, columns),
        "latent": ("time", "feature", "latent_row", "latent_column"),
    }
    last = windows.starts + windows.past - 1
    leads = grid.step_seconds * np.arange(1, shapes["forecast"][1] + 1)
    start = {"standard_name": "forecast_reference_time", "long_name": "time of the last past frame"}
    period = {"standard_name": "forecast_period", "units": "seconds"}
    variables: dict[str, Any] = {
        "time": ("time", dataset.times[last], start),
        "lead": ("lead", leads, period),
        "channel": ("channel", np.array(grid.channels)),
        "units": ("channel", np.array(grid.units)),
    }
    for name, degrees, unit in (
        ("latitude", grid.latitude, "north"),
        ("longitude", grid.longitude, "east"),
    ):
        if degrees is not None:
            variables[name] = (
                name,
                np.array(degrees),
                {"standard_name": name, "units": f"degrees_{unit}"},
            )
    if grid.mask is not None:
        variables["mask"] = ((rows, columns), grid.exists, {"long_name": "cells that exist"})
    groups = windows.groups.astype(str)
    position = np.searchsorted(frames, last)
    if "inputs" in shapes:
        variables["last_frame"] = ("time", position)
        variables["frame_time"] = ("frame", dataset.times[frames])
    if (groups != "").any():
        variables["run"] = ("time", groups)
        if "inputs" in shapes:
            frame_run = np.empty(len(frames), groups.dtype)
            for back in range(windows.past):
                frame_run[position - back] = groups
            variables["frame_run"] = ("frame", frame_run)
    for view, shape in shapes.items():
        chunks = (_chunk_length(shape), *shape[1:])
        zeros = dask.array.zeros(shape, chunks=chunks, dtype="f4")
        variables[view] = (
            dims[view],
            zeros,
            {},
            {"chunks": chunks, "_FillValue": np.float32("nan")},
        )
    template = xr.Dataset(variables)
    unit = "microseconds" if dataset.times.dtype == object else "nanoseconds"
    for name in {"time", "frame_time"} & set(variables):
        template[name].encoding = {"units": f"{unit} since 1970-01-01", "dtype": "int64"}
    return template


def _chunk_length(shape: tuple[int, ...]) -> int:
    """Entries per chunk: a power of two, so that no chunk lies in two blocks."""
    length = BLOCK
    while length > 1 and 4 * length * int(np.prod(shape[1:])) > CHUNK_BYTES:
        length //= 2
    return length


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
    files.check_blocks()
    return files


def _blocks(files: LabelFiles, view: str, index: np.ndarray) -> Iterator[np.ndarray]:
    """The entries of each block that is not yet written."""
    for first in range(len(files.attributes.blocks[view]) * BLOCK, len(index), BLOCK):
        yield index[first : first + BLOCK]


def _write_inputs(files: LabelFiles, windows: WindowDataset, frames: np.ndarray) -> None:
    series, exists = windows.dataset.frames, windows.dataset.grid.exists
    for numbers in _blocks(files, "inputs", frames):
        pieces = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
        values = [series[int(piece[0]) : int(piece[-1]) + 1] for piece in pieces]
        files.append("inputs", np.concatenate(values), 1, exists)
        files.save()


def _write_forecasts(
    files: LabelFiles,
    teacher: AnyTeacher,
    windows: WindowDataset,
    states: States | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    exists = windows.dataset.grid.exists
    for numbers in _blocks(files, "forecast", np.arange(len(windows))):
        answer = forecast_of(teacher, windows.gather(torch.from_numpy(numbers)), states)
        future = answer.future.cpu().numpy()
        _check_finite(files, future[..., exists], windows, numbers)
        files.append("forecast", future, 2, exists)
        if files.has("latent"):
            latent = answer.latent.cpu().numpy()
            _check_finite(files, latent, windows, numbers)
            files.append("latent", latent, None, exists)
        files.save()
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
