"""WeatherBench (Rasp et al. 2020) and WeatherBench 2 (Rasp et al. 2024), as users hold them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data import times as clock
from s2kd.data._missing import check_choice
from s2kd.data._record import (
    checked_range,
    iso,
    shown,
    split,
    step_numbers,
    stretches,
    within,
)
from s2kd.data._series import Series
from s2kd.data._store import in_memory, on_disk
from s2kd.data._weatherbench import field_named, in_words, is_folder, open_fields
from s2kd.data.dataset import Dataset, Frames
from s2kd.data.netcdf import beginning_as, grid_of, latest_of

if TYPE_CHECKING:
    import xarray as xr

BENCHMARK = ("geopotential@500", "temperature@850")
"""Z500 and T850: the benchmark's two fields."""


@datasets.register("weatherbench")
def weatherbench(
    *,
    path: str,
    variables: Sequence[str] = BENCHMARK,
    hours: int = 6,
    train: Sequence[str] = ("1979", "2015"),
    val: Sequence[str] = ("2016", "2016"),
    test: Sequence[str] = ("2017", "2018"),
    gap: int = 0,
    missing: str = "error",
    cache: str = "",
    memory_gb: float = 1.0,
) -> Dataset:
    """ERA5 on WeatherBench's grid: its folders of NetCDF, or WeatherBench 2's Zarr.

    `path` is the folder that holds `geopotential_500`, `temperature_850` or the 13-level
    `geopotential`, `temperature` … (or the `5.625deg` above them); a Zarr store, local or at
    `gs://` or `https://`; or gridded files of the same variables. `variables` are long or short
    names with a level in hPa: `geopotential@500`, `geopotential_500` and `z500` are one. `hours`
    is the step: frames at 0, `hours`, 2 × `hours` … UTC. Splits are first and last dates, both
    whole; the benchmark's by default. Every year in them must be there; hours that are missing
    split the record. `missing`, `cache` and `memory_gb` are as in `netcdf`; a store at an address
    is always kept in `cache`.

    Frames are (channel, latitude from the north, longitude from 0°) in m² s⁻² and K, whatever the
    order in the files. Raises `S2KDError` for files cut short, grids or units that differ from
    file to file, times unsorted or twice, missing years, empty splits, channels without values,
    and means that no such field can have (geopotential height in metres, degrees Celsius).
    """
    check_choice(missing)
    if hours < 1 or 24 % hours:
        raise S2KDError(
            f"weatherbench: hours must divide a day (1, 2, 3, 4, 6, 8, 12, 24): {hours}"
        )
    path = str(path)
    ranges = {"train": train, "val": val, "test": test}
    years = _years(path, ranges)
    asked = (variables,) if isinstance(variables, str) else tuple(variables)
    fields = [field_named(name) for name in asked]
    if not fields or len({field.channel for field in fields}) < len(fields):
        raise S2KDError(f"{path}: variables must be one or more different ones, got {list(asked)}")
    wanted = {year for several in years.values() for year in several}
    series = open_fields(path, fields, wanted)
    _check_years(path, series, years, ranges)
    index, numbers, spacing = _every(path, series, hours, ranges)
    times = series.times[index]
    splits = split(
        path,
        times,
        stretches(numbers, spacing),
        ranges=ranges,
        fractions=(),
        gap=gap,
    )
    frames, exists = _frames(path, series, index, missing, cache, memory_gb)
    return Dataset(
        name="weatherbench",
        domain="weather",
        grid=grid_of(series, 3600.0 * hours, exists),
        frames=frames,
        times=times,
        splits=splits,
        attributes=series.attributes,
        source=series.source,
    )


def latest(
    path: str, grid: GridSpec, past: int, *, until: str = "", missing: str = "error"
) -> tuple[np.ndarray, np.ndarray]:
    """`s2kd.data.netcdf.latest` for any path that `weatherbench` reads, with its names of fields.

    Returns frames (past, channel, height, width) and times (past,).
    """
    return latest_of(series_for(path, grid), grid, past, until=until, missing=missing)[:2]


def series_for(given: "str | Path | xr.Dataset", grid: GridSpec) -> Series:
    """The channels of `grid`, whatever the files, or the dataset in memory, call them."""
    fields = [field_named(channel) for channel in grid.channels]
    return beginning_as(open_fields(given, fields), grid)


def fitting(path: str, channels: Sequence[str], times: np.ndarray) -> dict[str, object]:
    """Settings of `weatherbench` for a record with these times: its own splits where it has them.

    Else the last years in a row are cut: two to test on (one of less than five), one to validate.
    Raises `S2KDError` where there are fewer than three, or what `weatherbench` would refuse.
    """
    held = sorted(map(int, np.unique(_years_of(times))))
    params: dict[str, object] = {"path": path}
    if tuple(channels) != BENCHMARK:
        params["variables"] = list(channels)
    open_fields(path, [field_named(channel) for channel in channels])
    step, _ = step_numbers(path, times)
    if step > 6 * 3600:
        params["hours"] = round(step / 3600)
    if set(range(1979, 2019)) <= set(held):
        return params
    run = [year for year in held if set(range(year, held[-1] + 1)) <= set(held)]
    if len(run) < 3:
        raise S2KDError(
            f"{path}: holds {in_words(held)}; three years in a row are needed to train, validate "
            "and test on"
        )
    tested = 2 if len(run) > 4 else 1
    ends = {
        "train": (run[0], run[-tested - 2]),
        "val": (run[-tested - 1], run[-tested - 1]),
        "test": (run[-tested], run[-1]),
    }
    return params | {name: [str(first), str(last)] for name, (first, last) in ends.items()}


def _years(path: str, ranges: Mapping[str, Sequence[str]]) -> dict[str, range]:
    """The years that each split names."""
    found = {}
    for name, dates in ranges.items():
        low, high = checked_range(path, name, dates)
        found[name] = range(int(low[:4]), int(high[:4]) + 1)
    return found


def _years_of(times: np.ndarray) -> np.ndarray:
    """(time,) calendar years."""
    return np.array([text[:4] for text in iso(times)], dtype=int)


def _check_years(
    path: str, series: Series, years: Mapping[str, range], ranges: Mapping[str, Sequence[str]]
) -> None:
    """A benchmark's split with years left out would be another one: say which are not there."""
    held = sorted(map(int, np.unique(_years_of(series.times))))
    for name, wanted in years.items():
        lacking = [year for year in wanted if year not in held]
        if lacking:
            raise S2KDError(
                f"{path}: {name} wants {ranges[name][0]} to {ranges[name][-1]}, but there are no "
                f"frames of {in_words(lacking)} (there are of {in_words(held)}); fetch them, or "
                "set train, val and test to dates that are there"
            )


def _every(
    path: str, series: Series, hours: int, ranges: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames at 0, `hours`, … UTC in any split: their numbers, their steps and the spacing."""
    step, numbers = step_numbers(path, series.times)
    spacing = round(3600 * hours / step)
    if spacing < 1 or abs(spacing * step - 3600 * hours) > 1:
        raise S2KDError(
            f"{path}: frames are {step / 3600:g} h apart, so hours={hours} cannot be had; "
            f"set hours={max(1, round(step / 3600))} or a multiple that divides a day"
        )
    hour = clock.hour_of_day(series.times)
    chosen = np.abs(hour - hours * np.round(hour / hours)) < 1e-3
    wanted = [within(series.times, *checked_range(path, *one)) for one in ranges.items()]
    index = np.flatnonzero(chosen & np.any(wanted, axis=0))
    if not chosen.any():
        raise S2KDError(
            f"{path}: no frame lies at 0, {hours}, … h UTC; the first is {shown(series.times[0])}"
        )
    return index, numbers[index], spacing


def _frames(
    path: str, series: Series, index: np.ndarray, missing: str, cache: str, memory_gb: float
) -> tuple[Frames, np.ndarray | None]:
    """In memory where they fit, else (and from an address always) in a file."""
    size = 4 * len(index) * int(np.prod(series.shape[1:]))
    remote = "://" in path
    if size <= memory_gb * 2**30 and not remote:
        return in_memory(series, index, missing)
    if not cache and remote:
        kept = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = str(Path(kept) / "s2kd")
    elif not cache and is_folder(Path(path).expanduser()):
        cache = str(Path(path).expanduser() / ".s2kd-cache")
    return on_disk(series, index, missing, cache)
