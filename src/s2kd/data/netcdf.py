"""Any gridded series that follows CF, or nearly: NetCDF, Zarr or GRIB; one file or many."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import Domain, GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data._missing import Missing, check_choice
from s2kd.data._plane import differing
from s2kd.data._record import iso, shown, split, step_numbers, stretches
from s2kd.data._select import (
    Fields,
    available,
    called,
    fields_of,
    listed,
    open_series,
    same_units,
    series_of,
)
from s2kd.data._series import Series
from s2kd.data._store import in_memory, on_disk
from s2kd.data.dataset import Dataset

if TYPE_CHECKING:
    import xarray as xr


@datasets.register("netcdf")
def netcdf(
    *,
    path: str,
    variables: Sequence[str] = (),
    train: Sequence[str] = (),
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    fractions: Sequence[float] = (0.75, 0.1, 0.15),
    gap: int = 24,
    missing: str = "error",
    time_stride: int = 1,
    cache: str = "",
    memory_gb: float = 1.0,
    domain: Domain = "weather",
    local_time: bool = False,
) -> Dataset:
    """Frames from NetCDF-3/4, Zarr 2/3 or GRIB: a file, a folder of files or a pattern.

    `variables` are names, with a level as `geopotential@500` in the level's own unit; empty takes
    every field. Splits are first and last dates, both whole (`train=["2013-01", "2014-06-30"]`),
    or `fractions` of the record in time order; `gap` frames are left out between splits, which
    should be at least past + lead. Missing times split the record: no window bridges them.
    `missing` says what to do about NaN: `error`; `mask` takes cells that are NaN at every time (in
    any variable) out of the grid; `fill` does so too and otherwise carries each cell's last value
    forward, never back. `time_stride` keeps every n-th time. Above `memory_gb` GiB the frames are
    written once to a folder `cache` (by default `.s2kd-cache` beside the data) and read from it.
    Ascending latitudes are turned north first, longitudes made ascending.
    """
    check_choice(missing)
    if time_stride < 1:
        raise S2KDError(f"time_stride must be at least 1, got {time_stride}")
    series = open_series(path, variables)
    step, numbers = step_numbers(path, series.times)
    index = np.flatnonzero(numbers % time_stride == 0)
    times = series.times[index]
    splits = split(
        path,
        times,
        stretches(numbers[index], time_stride),
        ranges={"train": train, "val": val, "test": test},
        fractions=fractions,
        gap=gap,
    )
    size = 4 * len(index) * int(np.prod(series.shape[1:]))
    if size > memory_gb * 2**30:
        frames, exists = on_disk(series, index, missing, cache)
    else:
        frames, exists = in_memory(series, index, missing)
    return Dataset(
        name=Path(path).stem,
        domain=domain,
        grid=grid_of(series, step * time_stride, exists),
        frames=frames,
        times=times,
        splits=splits,
        local_time=local_time,
        attributes=series.attributes,
        source=series.source,
    )


def grid_of(series: Series, step_seconds: float, exists: np.ndarray | None) -> GridSpec:
    """The grid of a series whose frames are taken `step_seconds` apart."""
    plane = series.plane
    return GridSpec(
        channels=series.channels,
        units=series.units,
        height=plane.height,
        width=plane.width,
        step_seconds=step_seconds,
        latitude=plane.latitude,
        longitude=plane.longitude,
        wraps=plane.wraps,
        mask=None if exists is None else tuple(tuple(map(bool, row)) for row in exists),
    )


def latest(
    path: str, grid: GridSpec, past: int, *, until: str = "", missing: str = "error"
) -> tuple[np.ndarray, np.ndarray]:
    """The last `past` frames of a file as a model trained on `grid` wants them.

    Returns frames (past, channel, height, width) float32 and times (past,), `grid.step_seconds`
    apart, the last at or before the date `until` (empty: the last there is). A finer step in the
    file is thinned, counted back from the last frame. Channels, units, size and coordinates must
    be the grid's. Cells outside `grid.mask` are filled as in training; NaN elsewhere is an error
    unless `missing="fill"`, which fills as in training too: each cell's last value among these
    frames is carried forward, and before its first one the nearest cell stands in. A cell without
    any value among these frames, and a first frame without any, are errors.
    """
    return latest_of(series_for(path, grid), grid, past, until=until, missing=missing)[:2]


def series_for(given: "str | Path | xr.Dataset", grid: GridSpec) -> Series:
    """The channels of `grid` in a file or in memory; S2KDError where some are not there."""
    fields, name = fields_of(given), called(given)
    _check_channels(name, fields, grid)
    return beginning_as(series_of(name, fields, grid.channels), grid)


def beginning_as(series: Series, grid: GridSpec) -> Series:
    """The columns of a grid round the Earth from where `grid` begins: 0..360 and -180..180 fit."""
    if not grid.wraps or grid.longitude is None:
        return series
    return series.beginning_at(grid.longitude[0])


def latest_of(
    series: Series, grid: GridSpec, past: int, *, until: str = "", missing: str = "error"
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """`latest` of a series that is open already, and how many values of existing cells it filled.

    How many with the cell's last value, and how many with the nearest cell's.
    """
    if missing not in ("error", "fill"):
        raise S2KDError(f"missing={missing!r}: must be 'error' or 'fill' here")
    path = series.path
    _check_fits(series, grid)
    index = _last(series, grid, past, until)
    frames = series.read(index)
    absent = ~np.isfinite(frames) & grid.exists
    if absent.any():
        _check_missing(path, grid, series.times[index], absent, fill=missing == "fill")
    watch = Missing(grid.channels, grid.height, grid.width, wraps=grid.wraps)
    watch.watch(frames)
    frames[~np.isfinite(frames)] = 0.0
    # before a cell's first value there is none of its own
    borrowed = int(np.logical_and.accumulate(absent).sum())
    return frames, series.times[index], (int(absent.sum()) - borrowed, borrowed)


def _check_missing(
    path: str, grid: GridSpec, times: np.ndarray, absent: np.ndarray, *, fill: bool
) -> None:
    """Refuse `absent` values (frame, channel, row, column), or with `fill` those without a past."""
    never = absent.all(0)
    if never.any():
        channel, row, column = np.argwhere(never)[0]
        cells = int(never[channel].sum())
        raise S2KDError(
            f"{path}: {grid.channels[channel]!r} has no value in any of the last {len(times)} "
            f"frames in {cells} cells, the first at row {row}, column {column}; the model was "
            "trained on values there and there is none to carry forward: fill them in the file"
        )
    blank = (absent[0] | ~grid.exists).all((1, 2))
    if fill and blank.any():
        raise S2KDError(
            f"{path}: {grid.channels[int(blank.argmax())]!r} has no values at all at "
            f"{shown(times[0])}, the first of the {len(times)} frames that the model needs, so "
            "there is nothing to carry forward"
        )
    if not fill:
        frame, channel, row, column = np.argwhere(absent)[0]
        raise S2KDError(
            f"{path}: {grid.channels[channel]!r} has {int(absent[:, channel].sum())} missing "
            f"values in the last {len(times)} frames, the first at {shown(times[frame])}, row "
            f"{row}, column {column}; --fill (missing='fill') carries the last value forward"
        )


def _check_channels(path: str, fields: Fields, grid: GridSpec) -> None:
    known = available(fields)
    lacking = [c for c in grid.channels if c not in known]
    if lacking:
        near = nearest(lacking[0], known)
        raise S2KDError(
            f"{path}: lacks {', '.join(lacking)}, which the model was trained on{near} "
            f"(the file has {listed(fields)})"
        )


def _check_fits(series: Series, grid: GridSpec) -> None:
    """Units, size and coordinates."""
    for channel, has, wants in zip(series.channels, series.units, grid.units, strict=True):
        if not same_units(has, wants):
            raise S2KDError(
                f"{series.path}: {channel!r} is in {has!r}, the model was trained on {wants!r}"
            )
    plane = series.plane
    if (plane.height, plane.width) != (grid.height, grid.width):
        raise S2KDError(
            f"{series.path}: frames are {plane.height}×{plane.width}, the model was trained on "
            f"{grid.height}×{grid.width} (rows × columns); regrid the file"
        )
    for what in ("latitude", "longitude"):
        words = differing(what, getattr(plane, what), getattr(grid, what))
        if words:
            raise S2KDError(
                f"{series.path}: {words} as the model was trained on; regrid or cut the file"
            )


def _last(series: Series, grid: GridSpec, past: int, until: str) -> np.ndarray:
    """Numbers of the last `past` frames, one model step apart."""
    times = series.times
    if until:
        asked = until.replace(" ", "T")
        count = int((iso(times).astype(f"U{len(asked)}") <= asked).sum())
        if not count:
            raise S2KDError(
                f"{series.path}: no frame at or before {until}; it starts {shown(times[0])}"
            )
        times = times[:count]
    if past == 1 and len(times) == 1:
        return np.zeros(1, dtype=np.int64)
    if len(times) < past:
        raise S2KDError(
            f"{series.path}: holds {len(times)} frames, the model needs the last {past}"
        )
    step, numbers = step_numbers(series.path, times)
    thin = round(grid.step_seconds / step)
    if thin < 1 or abs(thin * step - grid.step_seconds) > 0.01 * step:
        raise S2KDError(
            f"{series.path}: frames are {step:g} s apart, the model was trained on "
            f"{grid.step_seconds:g} s"
        )
    wanted = numbers[-1] - thin * np.arange(past)[::-1]
    found = np.searchsorted(numbers, wanted)
    absent = wanted[numbers[found] != wanted]
    if len(absent):
        back = (numbers[-1] - absent[-1]) * step
        raise S2KDError(
            f"{series.path}: the model needs the {past} frames up to {shown(times[-1])}, "
            f"{grid.step_seconds:g} s apart, but there is none {back:g} s before that"
        )
    return found
