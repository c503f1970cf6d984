"""Stored forecasts as the teacher, matched to windows by time, lead and place; no interpolation.

A label store (`s2kd label`), or NetCDF, Zarr or GRIB, one file or several, with axes of
initialisation time, lead time, rows and columns: WeatherBench 2's layout, our own, or any other
that follows CF.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from s2kd.core.files import digest, read_sealed
from s2kd.core.recipe import Stored
from s2kd.core.registry import nearest
from s2kd.core.types import GridSpec, S2KDError
from s2kd.core.units import conversion
from s2kd.data.readers.cf import Field, fields_in
from s2kd.data.readers.files import open_files
from s2kd.data.windows import WindowDataset
from s2kd.models.normaliser import Normaliser
from s2kd.training.labels import Labels, is_labels
from s2kd.training.targets import NOTE, REMEDY, extent_note, fill_store

if TYPE_CHECKING:
    import xarray as xr

LEADS = ("lead_time", "prediction_timedelta", "step", "lead", "leadtime", "forecast_period")


@dataclass(frozen=True, kw_only=True, eq=False)
class _File:
    """What a file has in common with a label store: forecasts by position, and their times."""

    path: Path
    times: Sequence[object] | np.ndarray
    runs: Sequence[str]
    forecasts: Callable[[np.ndarray], np.ndarray]  # (time, lead, channel, row, column)
    latents: Callable[[np.ndarray], np.ndarray]  # (time, feature, row, column)
    latent_width: int | None
    latent_extent: tuple[int, int]


class StoredForecasts:
    """The stored forecasts of all windows of a split, found by each one's last past frame.

    Raises S2KDError naming what the files lack: initialisation times, lead times, variables or
    coordinates. Where several runs of the data share times, a variable `run` along the files' time
    axis holds the name of the run of every forecast.
    """

    def __init__(self, spec: Stored, windows: WindowDataset) -> None:
        self.spec, self.windows = spec, windows
        for channel in spec.variables:
            channels = windows.dataset.grid.channels
            if channel not in channels:
                raise S2KDError(
                    f"stored.variables: the data have no channel {channel!r}"
                    f"{nearest(channel, channels)} (there are {', '.join(channels)})"
                )
        times = windows.dataset.times[windows.starts + windows.past - 1]
        self._times = _keys(times)
        by_run = len(set(self._times)) < len(self._times)
        store = Path(spec.path).expanduser()
        self._files: list[_File | Labels]
        if is_labels(store):
            labels = _labels(store, spec, windows)
            by_run = by_run or len(set(labels.times.tolist())) < len(labels)
            self._files = [labels]
        else:
            self._files = [_file(*file, spec, windows, by_run) for file in open_files(spec.path)]
        self._places = self._located(_keys(times, windows.groups if by_run else None), by_run)

    def _located(self, keys: Sequence[str], by_run: bool) -> np.ndarray:
        """(window, 2): number of the file, and position along its time axis."""
        places: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(self._files):
            for position, key in enumerate(_keys(file.times, file.runs if by_run else None)):
                if key in places:
                    raise S2KDError(f"{file.path}: holds the initialisation time {key} twice")
                places[key] = (number, position)
        missing = [key for key in keys if key not in places]
        if missing:
            stored = sorted(places)
            raise S2KDError(
                f"{self.spec.path}: lacks {len(missing)} of the {len(keys)} initialisation times "
                f"of the {self.windows.split} windows (times of the last past frame), such as "
                f"{_listed(missing)}; it holds {len(stored)}, {stored[0]} to {stored[-1]}"
            )
        return np.array([places[key] for key in keys])

    @property
    def latent_width(self) -> int | None:
        """Number of features of the stored latent; None where none is named."""
        return self._files[0].latent_width

    @property
    def latent_extent(self) -> tuple[int, int]:
        """(rows, columns) of the grid under the latents; without padding unless a store says so."""
        return self._files[0].latent_extent

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the files (names, sizes, times of change) and of what is read from them."""
        stats = []
        for path in dict.fromkeys(file.path for file in self._files):
            parts = sorted(path.rglob("*")) if path.is_dir() else [path]
            entries = [(str(p.relative_to(path.parent)), p.stat()) for p in parts if p.is_file()]
            stats.append([(name, stat.st_size, stat.st_mtime_ns) for name, stat in entries])
        data = self.windows.dataset.fingerprint
        frames = [self.windows.past, self.windows.lead]
        spec = [self.spec.latent, self.spec.variables]
        return digest([stats, data, self.windows.starts.tolist(), frames, spec])

    def read(
        self, index: np.ndarray
    ) -> tuple[
        Float[np.ndarray, "batch lead channel height width"],
        Float[np.ndarray, "batch d h w"] | None,
    ]:
        """(forecasts in physical units, latents) of the windows with these numbers."""
        grid, lead = self.windows.dataset.grid, self.windows.lead
        shape = (len(index), lead, len(grid.channels), grid.height, grid.width)
        forecasts, latents = np.empty(shape, np.float32), None
        numbers, positions = self._places[index].T
        for number in np.unique(numbers):
            file, rows = self._files[number], np.flatnonzero(numbers == number)
            forecasts[rows] = file.forecasts(positions[rows])
            if self.latent_width is not None:
                features = file.latents(positions[rows])
                latents = (
                    np.empty((len(index), *features.shape[1:]), np.float32)
                    if latents is None
                    else latents
                )
                latents[rows] = features
        finite = np.isfinite(forecasts[..., grid.exists]).all(axis=(1, 2, 3))
        if not finite.all():
            raise S2KDError(
                f"{self.spec.path}: the forecast from {self._times[index[finite.argmin()]]} holds "
                "values that are missing or not finite in cells that exist"
            )
        return forecasts, latents


def store_forecasts(
    folder: Path,
    forecasts: StoredForecasts,
    normaliser: Normaliser,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Copy the forecasts into a store that `StoredTargets` reads, unless it holds them already.

    They are kept in the normaliser's unit as float32, so that nothing is rounded. Cells that do not
    exist repeat the last past frame. Returns a digest of the content.
    """
    windows = forecasts.windows
    exists = torch.from_numpy(windows.dataset.grid.exists)

    def block(index: torch.Tensor) -> dict[str, torch.Tensor]:
        frames, latents = forecasts.read(index.numpy())
        past = windows.gather(index).past.cpu()
        future = torch.where(exists, torch.from_numpy(frames), past[:, -1:])
        values = {"forecast": normaliser.decoded(future, past)}
        return values if latents is None else {**values, "latent": torch.from_numpy(latents)}

    views = ["forecast"] + (["latent"] if forecasts.latent_width is not None else [])
    scale = [normaliser.offset.tolist(), normaliser.unit.tolist(), normaliser.predicts_change]
    header = {
        "key": digest([forecasts.fingerprint, scale]),
        "views": views,
        "windows": len(windows),
        **extent_note(forecasts.latent_extent, windows.dataset.grid),
    }
    fill_store(folder, header, block, progress=progress)
    return stored_content(folder)


def stored_content(folder: Path) -> str:
    """A digest of the values of the store in `folder`."""
    return digest(read_sealed(folder / NOTE, REMEDY)["digests"])


# --- one file ------------------------------------------------------------------------------------


def _file(
    path: Path, file: "xr.Dataset", spec: Stored, windows: WindowDataset, by_run: bool
) -> _File:
    """The channels of an open file, on the grid and at the leads of the windows."""
    grid = windows.dataset.grid
    file = file.drop_vars("valid_time", errors="ignore")  # forecasts are found by their start
    lead = _lead_dimension(path, file)
    fields = {
        name: pieces[0]
        for name, pieces in fields_in([(path, file.isel({lead: 0}, drop=True))]).items()
        if not isinstance(pieces, str) and lead in file[name].dims
    }
    if not fields:
        raise S2KDError(f"{path}: holds no field with rows, columns and an initialisation time")
    steps = grid.step_seconds * np.arange(1, windows.lead + 1)
    leads = _positions(
        _lead_seconds(path, file[lead]) / 3600, steps / 3600, 1e-6 * grid.step_seconds / 3600,
        f"{path}: lacks the lead times", unit=" h",
    )  # fmt: skip
    arrays = []
    for channel, unit in zip(grid.channels, grid.units, strict=True):
        name, level = _variable(path, channel, str(spec.variables.get(channel, "")), fields)
        field = fields[name]
        file_unit = str(field.array.attrs.get("units", ""))
        scale = conversion(file_unit, unit)
        if scale is None:
            raise S2KDError(
                f"{path}: {name!r} is in {file_unit!r}, which does not convert to {unit!r} of "
                f"{channel!r} of the data"
            )
        array = _cut(file[name].isel({lead: _as_slice(leads)}), field, level, lead, grid)
        arrays.append((array, *scale))
    if len(field.times) != file.sizes.get(field.time_dim, 1):
        raise S2KDError(f"{path}: some initialisation times have no value; leave these out")
    latent = _latent(path, file, spec.latent, field.time_dim) if spec.latent else None
    return _File(
        path=path,
        times=field.times,
        runs=_runs(path, file, field) if by_run else (),
        forecasts=lambda positions: np.stack(
            [_values(a, positions) * factor + offset for a, factor, offset in arrays], axis=2
        ),
        latents=lambda positions: _values(latent, positions),
        latent_width=None if latent is None else latent.shape[1],
        latent_extent=(grid.height, grid.width),
    )


def _labels(path: Path, spec: Stored, windows: WindowDataset) -> Labels:
    """A label store, in the channels and units of the windows."""
    if spec.variables or spec.latent not in ("", "latent"):
        raise S2KDError(
            f"{path}: is a label store, whose channels have their names and whose latent is called "
            f"'latent'; leave out stored.variables={dict(spec.variables)} and "
            f"stored.latent={spec.latent!r}"
        )
    labels = Labels.open(path)
    if spec.latent and labels.latent_width is None:
        raise S2KDError(f"{path}: holds no latent; label again with --latents")
    dataset = windows.dataset
    return labels.check_against(dataset.grid, past=1, lead=windows.lead, source=dataset.name)


def _lead_dimension(path: Path, file: "xr.Dataset") -> str:
    for name, coordinate in file.coords.items():
        is_lead = coordinate.attrs.get("standard_name") == "forecast_period"
        if name in file.dims and (is_lead or str(name).lower() in LEADS):
            return str(name)
    raise S2KDError(
        f"{path}: has no axis of lead times; it must be called one of {', '.join(LEADS)}"
    )


def _lead_seconds(path: Path, coordinate: "xr.DataArray") -> np.ndarray:
    import pandas as pd

    if coordinate.dtype.kind == "m":
        return coordinate.values / np.timedelta64(1, "ns") * 1e-9
    unit = str(coordinate.attrs.get("units", ""))
    try:
        # one of each unit: fractions of hours keep their digits
        return coordinate.values * pd.to_timedelta(1, unit=unit or "none").total_seconds()
    except ValueError:
        raise S2KDError(
            f"{path}: {coordinate.name!r} does not say what it counts (units {unit!r}); give it "
            "units such as 'hours'"
        ) from None


def _variable(path: Path, channel: str, given: str, fields: dict[str, Field]) -> tuple[str, str]:
    """(variable, level) of a channel: by the recipe, by its own name, or by `channel` in attrs."""
    label = given or channel
    if label in fields:
        return label, ""
    for name, field in fields.items():
        if not given and field.array.attrs.get("channel") == channel:
            return name, ""
    name, _, level = label.rpartition("@")
    if name in fields:
        return name, level
    raise S2KDError(
        f"{path}: no variable for the channel {channel!r}{nearest(label, fields)} (there are "
        f"{', '.join(fields)}); name it by stored.variables, as in "
        f'\'stored.variables={{"{channel}": "{next(iter(fields))}"}}\''
    )


def _cut(
    array: "xr.DataArray", field: Field, level: str, lead: str, grid: GridSpec
) -> "xr.DataArray":
    """One channel as (time, lead, row, column), lazily."""
    name, plane = array.name, field.plane
    rows, columns = _cells(field, grid)
    cells = {
        plane.rows.dimension: _as_slice(plane.row_index[rows]),
        plane.columns.dimension: _as_slice(plane.column_index[columns]),
    }
    if len(field.extra) > 1 or (field.extra and not level):
        raise S2KDError(
            f"{field.path}: {name!r} has the further dimension {' and '.join(field.extra)}; choose "
            f"a level by stored.variables ('{name}@500'), and reduce members to one"
        )
    if field.extra:
        number = field.level_number(level)
        if number is None:
            values = (
                f" (it has {_listed([f'{v:g}' for v in field.levels])})" if field.levels else ""
            )
            raise S2KDError(f"{field.path}: {name!r} has no {field.extra[0]} {level}{values}")
        cells[field.extra[0]] = number
    array = array.isel(cells)
    if field.time_dim is None:
        array = array.expand_dims("initial_time")
    order = (field.time_dim or "initial_time", lead, plane.rows.dimension, plane.columns.dimension)
    single = [dim for dim in array.dims if dim not in order]
    return array.squeeze(single, drop=True).transpose(*order)


def _cells(field: Field, grid: GridSpec) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the file's plane that are the grid's, in the grid's order."""
    plane, label = field.plane, f"{field.path}: {field.array.name!r}"
    if (grid.latitude is None) != (plane.latitude is None):
        has, lacks = ("the data", "it") if plane.latitude is None else ("it", "the data")
        raise S2KDError(f"{label}: {has} has latitudes and longitudes, {lacks} has none")
    if grid.latitude is None:
        if plane.shape != (grid.height, grid.width):
            height, width = plane.shape
            raise S2KDError(
                f"{label}: has {height}×{width} cells (rows × columns), the data "
                f"{grid.height}×{grid.width}"
            )
        return np.arange(grid.height), np.arange(grid.width)
    if grid.longitude is None:
        raise S2KDError(f"{label}: the data have latitudes and no longitudes")
    hint = " (fields are not interpolated)"
    return _positions(
        plane.latitude, np.array(grid.latitude), 1e-3, f"{label} lacks the latitudes", unit=hint
    ), _positions(
        np.round(plane.longitude, 4) % 360,
        np.round(grid.longitude, 4) % 360,
        1e-3,
        f"{label} lacks the longitudes",
        unit=hint,
    )


def _positions(
    values: np.ndarray, targets: np.ndarray, tolerance: float, problem: str, *, unit: str
) -> np.ndarray:
    """The position in `values` of every target, to `tolerance`; S2KDError lists the missing."""
    import pandas as pd

    order = np.argsort(values)
    nearest_places = pd.Index(np.asarray(values, np.float64)[order]).get_indexer(
        targets, method="nearest", tolerance=tolerance
    )
    missing = targets[nearest_places < 0]
    if len(missing):
        raise S2KDError(
            f"{problem} {_listed([f'{value:g}' for value in missing])}{unit}; it holds "
            f"{len(values)}, {min(values):g} to {max(values):g}"
        )
    return order[nearest_places]


def _latent(path: Path, file: "xr.Dataset", name: str, time_dim: str | None) -> "xr.DataArray":
    """The feature array, (time, feature, row, column)."""
    if name not in file:
        names = list(map(str, file.data_vars))
        raise S2KDError(
            f"{path}: no variable {name!r} for stored.latent{nearest(name, names)} "
            f"(there are {', '.join(names)})"
        )
    array = file[name]
    if array.ndim != 4 or array.dims[0] != time_dim:
        raise S2KDError(
            f"{path}: stored.latent {name!r} has the axes ({', '.join(map(str, array.dims))}); "
            f"wanted are four, {time_dim!r} first, then feature, row and column"
        )
    return array


def _runs(path: Path, file: "xr.Dataset", field: Field) -> list[str]:
    runs = file.variables.get("run")
    if runs is None or runs.dims != (field.time_dim,):
        raise S2KDError(
            f"{path}: several runs of the data share times; a variable 'run' along "
            f"{field.time_dim!r} must name the run of every forecast"
        )
    return [run.decode() if isinstance(run, bytes) else str(run) for run in runs.values]


def _keys(times: Iterable[object], runs: Iterable[str] | None = None) -> list[str]:
    """What forecasts are found by: initialisation times, with the run where runs share them."""
    texts = [_time_text(time) for time in times]
    return texts if runs is None else [f"{t} of run {r}" for t, r in zip(texts, runs, strict=True)]


def _time_text(time: object) -> str:
    """One time of any calendar, to the microsecond."""
    if isinstance(time, np.datetime64):
        return str(np.datetime_as_string(time, "us")).removesuffix(".000000")
    return time.isoformat(timespec="microseconds").removesuffix(".000000")


def _values(array: "xr.DataArray", positions: np.ndarray) -> np.ndarray:
    """float32 entries at these positions of the first axis; files are read in rising order."""
    unique, inverse = np.unique(positions, return_inverse=True)
    return array.isel({array.dims[0]: unique}).values.astype(np.float32)[inverse]


def _as_slice(index: np.ndarray) -> slice | np.ndarray:
    """An unbroken rising range as a slice, which every backend reads well."""
    if len(index) and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
