"""Anybody's forecasts in a file as the teacher: found window by window, never interpolated.

A NetCDF file, a Zarr folder, or several: WeatherBench 2's layout (time, prediction_timedelta,
latitude, longitude), our own (time, lead_time, …), or any other whose axes can be told.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from s2kd.core.files import digest, read_json, whole_folder, write_json
from s2kd.core.recipe import Stored
from s2kd.core.registry import nearest
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data._cf import Axes, Source, expand, gridded, kind_of, open_path
from s2kd.data._plane import plane_of
from s2kd.data._select import same_units
from s2kd.data.windows import WindowDataset
from s2kd.models.normaliser import Normaliser
from s2kd.training.targets import FORMAT, NOTE, extent_note

if TYPE_CHECKING:
    import xarray as xr

LEADS = ("lead_time", "prediction_timedelta", "step", "lead", "leadtime", "forecast_period")
SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
UNITS = {
    "day": "d", "days": "d", "hour": "h", "hours": "h", "minute": "m", "minutes": "m",
    "second": "s", "seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class _File:
    """One file, its fields cut to the leads and cells wanted: (time, lead, height, width) each."""

    path: Path
    times: tuple[str, ...]
    fields: tuple["xr.DataArray", ...]
    latent: "xr.DataArray | None"


class StoredForecasts:
    """The stored forecasts of all these windows, found by the time of each one's last past frame.

    Raises `S2KDError` that names what the files lack: initialisation times, lead times, variables
    or coordinates. Where several runs of the data share times, the files tell them apart by a
    variable `run` along their time axis, which holds the names of the runs.
    """

    def __init__(self, spec: Stored, windows: WindowDataset) -> None:
        self.spec, self.windows = spec, windows
        self.paths = expand(spec.path)
        starts = windows.starts + windows.past - 1
        wanted = [_iso(t) for t in windows.dataset.times[starts]]
        by_run = len(set(wanted)) < len(wanted)
        if by_run:
            wanted = [
                f"{time} of run {run}" for time, run in zip(wanted, windows.groups, strict=True)
            ]
        self._files = [
            _opened(source, spec, windows, by_run)
            for path in self.paths
            for source in open_path(path)
        ]
        self._where = self._found(wanted)

    def _found(self, wanted: Sequence[str]) -> np.ndarray:
        """(window, 2): the file and the place along its time axis."""
        places: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(self._files):
            for place, time in enumerate(file.times):
                if time in places:
                    raise S2KDError(f"{file.path}: holds the initialisation time {time} twice")
                places[time] = (number, place)
        missing = [time for time in wanted if time not in places]
        if missing:
            held = sorted(places)
            raise S2KDError(
                f"{self.spec.path}: lacks {len(missing)} of the {len(wanted)} initialisation times "
                f"of the {self.windows.split} windows (times of the last past frame), such as "
                f"{_some(missing)}; it holds {len(held)}, {held[0]} to {held[-1]}"
            )
        return np.array([places[time] for time in wanted])

    @property
    def latent_width(self) -> int | None:
        """How many features the stored latent has; None where none is named."""
        latent = self._files[0].latent
        return None if latent is None else latent.shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """The files as they lie on disk (names, sizes, times) and what is read of them."""
        marks = []
        for path in self.paths:
            parts = sorted(path.rglob("*")) if path.is_dir() else [path]
            stats = [(str(p.relative_to(path.parent)), p.stat()) for p in parts if p.is_file()]
            marks.append([(name, s.st_size, s.st_mtime_ns) for name, s in stats])
        data = self.windows.dataset.fingerprint
        sizes = [self.windows.past, self.windows.lead]
        spec = [self.spec.latent, self.spec.variables]
        return digest([marks, data, self.windows.starts.tolist(), sizes, spec])

    def read(
        self, index: np.ndarray
    ) -> tuple[
        Float[np.ndarray, "batch lead channel height width"],
        Float[np.ndarray, "batch d h w"] | None,
    ]:
        """(forecasts in the file's own units, latents) of the windows with these numbers."""
        where = self._where[index]
        frames: list[np.ndarray] = [np.empty(0)] * len(index)
        latents: list[np.ndarray] = [np.empty(0)] * len(index)
        for number in np.unique(where[:, 0]):
            file, rows = self._files[number], np.flatnonzero(where[:, 0] == number)
            places = where[rows, 1]
            fields = np.stack([_values(f, places) for f in file.fields], axis=2)
            features = None if file.latent is None else _values(file.latent, places)
            for at, row in enumerate(rows):
                frames[row] = fields[at]
                if features is not None:
                    latents[row] = features[at]
        self._refuse_missing(frames, index)
        return np.stack(frames), np.stack(latents) if self.latent_width is not None else None

    def _refuse_missing(self, frames: Sequence[np.ndarray], index: np.ndarray) -> None:
        grid = self.windows.dataset.grid
        for row, number in zip(frames, index, strict=True):
            if not np.isfinite(row[..., grid.exists]).all():
                time = self.windows.dataset.times[
                    self.windows.starts[number] + self.windows.past - 1
                ]
                raise S2KDError(
                    f"{self.spec.path}: the forecast from {_iso(time)} holds values that are "
                    "missing or not finite in cells that exist"
                )


def store_forecasts(
    folder: Path,
    forecasts: StoredForecasts,
    normaliser: Normaliser,
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Copy them into a store that `StoredTargets` reads, unless it is there; a hash of the content.

    Forecasts in the normaliser's unit, float32 so that nothing is rounded. Cells that do not
    exist repeat the last past frame. Latents are taken to cover the grid without any padding.
    """
    windows = forecasts.windows
    grid = windows.dataset.grid
    views = ["forecast"] + (["latent"] if forecasts.latent_width is not None else [])
    scale = [normaliser.offset.tolist(), normaliser.unit.tolist(), normaliser.predicts_change]
    wanted = {
        "format": FORMAT,
        "key": digest([forecasts.fingerprint, scale]),
        "views": views,
        "windows": len(windows),
        "done": len(windows),
        **extent_note((grid.height, grid.width), grid),
    }
    note = folder / NOTE
    held = read_json(note) if note.exists() else {}
    if {k: held.get(k) for k in wanted} == wanted:
        return held["content"]
    shutil.rmtree(folder, ignore_errors=True)
    content = hashlib.blake2b(digest_size=16)
    with whole_folder(folder) as beside:
        arrays: dict[str, np.memmap] = {}
        for index in torch.arange(len(windows)).split(batch_size):
            for view, value in zip(views, _block(forecasts, normaliser, index), strict=False):
                if view not in arrays:
                    arrays[view] = np.lib.format.open_memmap(
                        beside / f"{view}.npy", "w+", "<f4", (len(windows), *value.shape[1:])
                    )
                arrays[view][index[0] : index[-1] + 1] = value
                content.update(np.ascontiguousarray(value, "<f4").tobytes())
            if progress is not None:
                progress(int(index[-1]) + 1, len(windows))
        for array in arrays.values():
            array.flush()
        write_json(beside / NOTE, {**wanted, "content": content.hexdigest()})
    return content.hexdigest()


def _block(
    forecasts: StoredForecasts, normaliser: Normaliser, index: torch.Tensor
) -> tuple[np.ndarray, np.ndarray | None]:
    """(forecast in the normaliser's unit, latent) of a block of windows."""
    frames, latents = forecasts.read(index.numpy())
    past = forecasts.windows.gather(index).past.cpu()
    exists = torch.from_numpy(forecasts.windows.dataset.grid.exists)
    future = torch.where(exists, torch.from_numpy(frames), past[:, -1:])
    return normaliser.decoded(future, past).numpy(), latents


# --- one file ------------------------------------------------------------------------------------


def _opened(source: Source, spec: Stored, windows: WindowDataset, by_run: bool) -> _File:
    """The file with every channel found in it, on the grid and at the leads of the windows."""
    grid = windows.dataset.grid
    for channel in spec.variables:
        if channel not in grid.channels:
            raise S2KDError(
                f"stored.variables: the data have no channel {channel!r}"
                f"{nearest(channel, grid.channels)} (there are {', '.join(grid.channels)})"
            )
    found = gridded(source)
    if not found:
        raise S2KDError(
            f"{source.path}: holds no field with rows, columns and an initialisation time"
        )
    fields, axes = [], next(iter(found.values()))
    for number, channel in enumerate(grid.channels):
        name, level = _variable(source, channel, str(spec.variables.get(channel, "")), found)
        axes = found[name]
        _same_unit(source, name, channel, grid.units[number])
        fields.append(_cut(source, name, level, axes, windows))
    times = [_iso(t) for t in _initial_times(source, axes)]
    if by_run:
        runs = _runs(source, axes.time_dim)
        times = [f"{t} of run {run}" for t, run in zip(times, runs, strict=True)]
    return _File(
        path=source.path,
        times=tuple(times),
        fields=tuple(fields),
        latent=_latent(source, spec.latent, axes.time_dim) if spec.latent else None,
    )


def _variable(source: Source, channel: str, given: str, found: dict[str, Axes]) -> tuple[str, str]:
    """(variable, level) of a channel: by the name given, its own, or the attribute `channel`."""
    asked = given or channel
    if asked in found:
        return asked, ""
    for name in found:
        if not given and source.data[name].attrs.get("channel") == channel:
            return name, ""
    name, _, level = asked.rpartition("@")
    if name in found:
        return name, level
    raise S2KDError(
        f"{source.path}: no variable for the channel {channel!r}{nearest(asked, found)} (there are "
        f"{', '.join(found)}); name it by stored.variables, as in "
        f'\'stored.variables={{"{channel}": "{next(iter(found))}"}}\''
    )


def _same_unit(source: Source, name: str, channel: str, unit: str) -> None:
    held = str(source.data[name].attrs.get("units", ""))
    if not same_units(held, unit):
        raise S2KDError(
            f"{source.path}: {name!r} is in {held!r}, but {channel!r} of the data is in {unit!r}; "
            "convert the forecasts first"
        )


def _cut(
    source: Source, name: str, level: str, axes: Axes, windows: WindowDataset
) -> "xr.DataArray":
    """One channel as (time, lead, height, width), lazily."""
    array = source.data[name]
    lead = _lead_dim(source, array)
    rows, columns = _cells(source, name, axes, windows.dataset.grid)
    leads = _lead_places(source, lead, windows)
    chosen = {lead: _plain(leads), axes.y: _plain(rows), axes.x: _plain(columns)}
    further = [dim for dim in axes.extra if dim != lead]
    if level and len(further) == 1:
        chosen[further[0]] = _level_place(source, name, further[0], level)
    elif further:
        raise S2KDError(
            f"{source.path}: {name!r} has the further dimension {' and '.join(further)}; choose a "
            f"level by stored.variables ('{name}@500'), and reduce members to one"
        )
    array = array.isel(chosen)
    if axes.time_dim is None:
        array = array.expand_dims("time_of_start")
    order = (axes.time_dim or "time_of_start", lead, axes.y, axes.x)
    # what is left has one entry
    return array.squeeze([d for d in array.dims if d not in order], drop=True).transpose(*order)


def _lead_dim(source: Source, array: "xr.DataArray") -> str:
    for dim in map(str, array.dims):
        held = source.data.coords.get(dim)
        standard = "" if held is None else held.attrs.get("standard_name", "")
        if held is not None and (dim.lower() in LEADS or standard == "forecast_period"):
            return dim
    raise S2KDError(
        f"{source.path}: {array.name!r} ({', '.join(map(str, array.dims))}) has no axis of lead "
        f"times; it must be called one of {', '.join(LEADS)}"
    )


def _lead_places(source: Source, dim: str, windows: WindowDataset) -> np.ndarray:
    """Where along `dim` the leads 1 … T_out lie."""
    held = source.data.coords[dim]
    if held.dtype.kind == "m":
        seconds = held.values / np.timedelta64(1, "ns") * 1e-9
    else:
        unit = UNITS.get(str(held.attrs.get("units", "")).lower(), held.attrs.get("units", ""))
        if unit not in SECONDS:
            raise S2KDError(
                f"{source.path}: {dim!r} does not say what it counts (units {unit!r}); "
                "give it units such as 'hours'"
            )
        seconds = held.values * SECONDS[str(unit)]
    wanted = windows.dataset.grid.step_seconds * np.arange(1, windows.lead + 1)
    return _places(
        seconds,
        wanted,
        1e-6 * windows.dataset.grid.step_seconds,
        lambda some: f"{source.path}: lacks the lead times {some} h",
        shown=lambda values: values / 3600,
    )


def _cells(source: Source, name: str, axes: Axes, grid: GridSpec) -> tuple[np.ndarray, np.ndarray]:
    """Which of the file's rows and columns are the grid's, in the grid's order."""
    where = f"{source.path}: {name!r}"
    plane = plane_of(source, name, axes)
    if (grid.latitude is None) != (plane.latitude is None):
        has, lacks = ("the data", "it") if plane.latitude is None else ("it", "the data")
        raise S2KDError(f"{where}: {has} has latitudes and longitudes, {lacks} has none")
    if grid.latitude is None:
        if (plane.height, plane.width) != (grid.height, grid.width):
            raise S2KDError(
                f"{where}: has {plane.height}×{plane.width} cells (rows × columns), "
                f"the data {grid.height}×{grid.width}"
            )
        rows, columns = np.arange(grid.height), np.arange(grid.width)
        return rows[::-1] if plane.flip_rows else rows, columns[
            ::-1
        ] if plane.flip_columns else columns
    rows = _places(
        source.data[axes.row].values, np.array(grid.latitude), 1e-3,
        lambda some: f"{where} lacks the latitudes {some} (fields are not interpolated)",
    )  # fmt: skip
    if grid.longitude is None:
        raise S2KDError(f"{where}: the data have latitudes and no longitudes")
    columns = _places(
        source.data[axes.column].values, np.array(grid.longitude), 1e-3,
        lambda some: f"{where} lacks the longitudes {some} (fields are not interpolated)",
        turn=360.0,
    )  # fmt: skip
    return rows, columns


def _places(
    held: np.ndarray,
    wanted: np.ndarray,
    within: float,
    lacks: Callable[[str], str],
    *,
    turn: float = 0.0,
    shown: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> np.ndarray:
    """Where in `held` every wanted value lies, to `within`; going round after `turn`."""
    apart = np.abs(held.astype(float)[None] - wanted.astype(float)[:, None])
    if turn:
        apart = np.minimum(apart % turn, turn - apart % turn)
    missing = wanted[apart.min(axis=1) > within]
    if len(missing):
        some = _some([f"{value:g}" for value in shown(missing)])
        low, high = (f"{value:g}" for value in shown(np.array([held.min(), held.max()])))
        raise S2KDError(f"{lacks(some)}; it holds {len(held)}, {low} to {high}")
    return apart.argmin(axis=1)


def _level_place(source: Source, name: str, dim: str, level: str) -> int:
    held = source.data.coords.get(dim)
    try:
        at = np.flatnonzero(np.isclose(np.asarray(held, dtype=float), float(level), rtol=1e-6))
    except (TypeError, ValueError):
        at = np.empty(0, dtype=int)
    if not len(at):
        values = "" if held is None else f" (it has {_some([str(v) for v in held.values])})"
        raise S2KDError(f"{source.path}: {name!r} has no {dim} {level}{values}")
    return int(at[0])


def _latent(source: Source, name: str, dim: str | None) -> "xr.DataArray":
    """The feature array, (time, feature, row, column)."""
    if name not in source.data:
        known = list(map(str, source.data.data_vars))
        raise S2KDError(
            f"{source.path}: no variable {name!r} for stored.latent{nearest(name, known)} "
            f"(there are {', '.join(known)})"
        )
    array = source.data[name]
    if array.ndim != 4 or array.dims[0] != dim:
        raise S2KDError(
            f"{source.path}: stored.latent {name!r} has the axes "
            f"({', '.join(map(str, array.dims))}); wanted are four, {dim!r} first, then feature, "
            "row and column"
        )
    return array


def _initial_times(source: Source, axes: Axes) -> np.ndarray:
    """(time,) when the forecasts start, which is not when they are valid."""
    along = () if axes.time_dim is None else (axes.time_dim,)
    names = [
        str(name)
        for name, held in source.data.variables.items()
        if held.dims == along and kind_of(str(name), held) == "time" and name != "valid_time"
    ]
    if not names:
        raise S2KDError(
            f"{source.path}: holds only the times that forecasts are valid for, not when they start"
        )
    # a coordinate named like its axis wins
    return np.atleast_1d(source.data[min(names, key=lambda name: name != axes.time_dim)].values)


def _runs(source: Source, dim: str | None) -> list[str]:
    held = source.data.variables.get("run")
    if held is None or held.dims != (dim,):
        raise S2KDError(
            f"{source.path}: several runs of the data share times; a variable 'run' along "
            f"{dim!r} must name the run of every forecast"
        )
    return [v.decode() if isinstance(v, bytes) else str(v) for v in held.values]


def _values(array: "xr.DataArray", places: np.ndarray) -> np.ndarray:
    """float32 entries at these places along the first axis, in that order."""
    unique, back = np.unique(places, return_inverse=True)  # files read in rising order only
    return array.isel({array.dims[0]: unique}).values.astype(np.float32)[back]


def _plain(places: np.ndarray) -> slice | np.ndarray:
    """An unbroken rising range as a slice, which every backend reads well."""
    if len(places) and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def _iso(time: object) -> str:
    """One time of any calendar to the microsecond."""
    if isinstance(time, np.datetime64):
        time = time.astype("datetime64[us]").item()
    return time.isoformat(timespec="microseconds").removesuffix(".000000")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
