"""WeatherBench (Rasp et al. 2020) and WeatherBench 2 (Rasp et al. 2024): ERA5 on coarse grids."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.core.units import same_units
from s2kd.data.readers import cf as gridded
from s2kd.data.readers import readers
from s2kd.data.readers.files import IN_MEMORY, is_zarr
from s2kd.data.steps import date_text, hour_of_day, iso, regularity

if TYPE_CHECKING:
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

BENCHMARK = ("geopotential@500", "temperature@850")
"""Z500 and T850: the benchmark's two fields."""
SPLIT = {"train": ("1979", "2015"), "val": ("2016", "2016"), "test": ("2017", "2018"), "gap": 0}
"""The benchmark's dates."""
SHORT = {
    "geopotential": "z",
    "temperature": "t",
    "u_component_of_wind": "u",
    "v_component_of_wind": "v",
    "specific_humidity": "q",
    "relative_humidity": "r",
    "vorticity": "vo",
    "potential_vorticity": "pv",
    "2m_temperature": "t2m",
    "10m_u_component_of_wind": "u10",
    "10m_v_component_of_wind": "v10",
    "total_cloud_cover": "tcc",
    "total_precipitation": "tp",
    "toa_incident_solar_radiation": "tisr",
}
"""WeatherBench's folders, which are WeatherBench 2's variables, and the names in its files."""
LONG = {short: long for long, short in SHORT.items()}
UNITS = {"geopotential": "m**2 s**-2", "temperature": "K", "2m_temperature": "K"}
GLOBAL_MEANS = {
    BENCHMARK[0]: (54_100.0, "multiply geopotential height in metres by 9.80665"),
    BENCHMARK[1]: (275.0, "add 273.15 to degrees Celsius"),
}
"""Usual global means of the benchmark's fields, in m² s⁻² and K (ERA5), and what often differs."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkField:
    """One channel: WeatherBench's long name, and the level in hPa where it has one."""

    name: str
    level: str = ""

    @property
    def channel(self) -> str:
        """`geopotential@500`, whatever the files call it."""
        return f"{self.name}@{self.level}" if self.level else self.name

    @property
    def flat(self) -> str:
        """`geopotential_500`: its folder, and its variable where there is one per level."""
        return f"{self.name}_{self.level}" if self.level else self.name


@readers.register("weatherbench")
def weatherbench(
    *, path: str | Path, variables: Sequence[str] = BENCHMARK, hours: int = 6
) -> "xr.Dataset":
    """ERA5 on WeatherBench's grid: its folders of NetCDF, or WeatherBench 2's Zarr.

    Args:
        path: the folder that holds `geopotential_500`, `temperature_850` or the 13-level
            `geopotential`, `temperature` … (or the `5.625deg` above them); a Zarr store, local or
            at `gs://` or `https://`; or gridded files of the same variables.
        variables: long or short names with a level in hPa: `geopotential@500`,
            `geopotential_500` and `z500` are one.
        hours: the step: frames at 0, `hours`, 2 × `hours` … UTC.

    Channels have long names. Every year that a split names must be there. By default the splits
    are the benchmark's dates; where years of these are missing, the last years in a row: two to
    test on (one of fewer than five), one to validate.

    Raises:
        S2KDError: what the reader `cf` refuses, and units or means that such a field cannot have
            (geopotential height in metres, degrees Celsius).
    """
    if hours < 1 or 24 % hours:
        raise S2KDError(
            f"weatherbench: hours must divide a day (1, 2, 3, 4, 6, 8, 12, 24), got {hours}"
        )
    names = (variables,) if isinstance(variables, str) else tuple(variables)
    fields = [field_named(name) for name in names]
    if not fields or len({field.channel for field in fields}) < len(fields):
        raise S2KDError(f"{path}: variables must be one or more different ones, got {list(names)}")
    record = open_fields(path, fields)
    return _every(str(path), record, hours).assign_attrs(
        name="weatherbench",
        domain="weather",
        step_seconds=3600.0 * hours,
        split=_default_split(record["time"].values),
        complete_years=1,
    )


def field_named(name: str) -> BenchmarkField:
    """`geopotential@500`, `geopotential_500`, `z@500` and `z500` are one; `t2m` needs no level."""
    if name in SHORT or name in LONG:
        return BenchmarkField(name=LONG.get(name, name))
    match = re.fullmatch(r"(.+?)[@_]?(\d+(?:\.\d+)?)", name)
    if match and (match[1] in SHORT or match[1] in LONG or "@" in name):
        return BenchmarkField(name=LONG.get(match[1], match[1]), level=f"{float(match[2]):.10g}")
    return BenchmarkField(name=name)


def open_fields(path: "str | Path | xr.Dataset", fields: Sequence[BenchmarkField]) -> "xr.Dataset":
    """These fields by their long names, of a folder, a Zarr store, gridded files or a dataset."""
    folders = variable_folders(Path(path).expanduser()) if isinstance(path, str | Path) else {}
    label = str(path) if isinstance(path, str | Path) else IN_MEMORY
    by_channel = {stored.channel: folder for folder, stored in folders.items()}
    available = {} if folders else gridded.fields_of(path)
    pieces: gridded.Fields = {}
    for field in fields:
        level = ""
        if folders:
            folder = by_channel.get(field.channel) or by_channel.get(field.name)
            if folder is None:
                raise S2KDError(
                    f"{label}: has no folder {field.flat!r} for {field.channel!r}"
                    f"{nearest(field.channel, by_channel)} (it has "
                    f"{', '.join(p.name for p in folders)})"
                )
            available, level = gridded.fields_of(folder), folders[folder].level
        name, stored_pieces = _stored(label, available, field, level)
        _check_values(stored_pieces, field)
        pieces[name] = stored_pieces
    record = gridded.joined(label, pieces, [field.channel for field in fields])
    for field in fields:
        attributes = record[field.channel].attrs
        attributes["units"] = attributes.get("units") or UNITS.get(field.name, "")
    return record


def variable_folders(path: Path) -> dict[Path, BenchmarkField]:
    """WeatherBench's folders under `path` (perhaps in its `5.625deg`), one per variable."""
    if not path.is_dir() or is_zarr(path):
        return {}
    below = sorted(p for p in path.glob("*deg") if p.is_dir())
    # a folder of one variable stands for its parent
    parents = [path.parent] if _is_variable_folder(path) else []
    for root in (path, *below, *parents):
        folders = {p: field_named(p.name) for p in sorted(root.iterdir()) if _is_variable_folder(p)}
        if folders:
            return folders
    return {}


def _is_variable_folder(folder: Path) -> bool:
    return folder.is_dir() and field_named(folder.name).name in SHORT and any(folder.glob("*.nc"))


def _stored(
    label: str, available: gridded.Fields, field: BenchmarkField, folder_level: str
) -> tuple[str, list[gridded.Field]]:
    """One field by its channel name, or by its long name where the files have levels.

    Files without a level coordinate hold the level of their folder.
    """
    names = (field.flat, SHORT.get(field.name, ""), field.name)
    name = next((name for name in names if name in available), None)
    if name is None:
        options = gridded.channel_names(available)
        raise S2KDError(
            f"{label}: has no {field.channel!r}{nearest(field.channel, options)} "
            f"(there are {gridded.summary(available)})"
        )
    pieces = available[name]
    if isinstance(pieces, str):
        raise S2KDError(pieces)
    if name != field.flat and field.level and (pieces[0].extra or pieces[0].levels):
        return field.name, pieces
    if name != field.flat and field.level not in ("", folder_level):
        raise S2KDError(
            f"{pieces[0].path}: {name!r} has no level coordinate, so nothing says that it is at "
            f"{field.level} hPa"
        )
    return field.channel, pieces


def _check_values(pieces: Sequence[gridded.Field], field: BenchmarkField) -> None:
    """Units, and a plausible mean of one frame per file, of the benchmark's two fields."""
    if field.channel not in GLOBAL_MEANS:
        return
    mean, remedy = GLOBAL_MEANS[field.channel]
    for piece in pieces:
        units, number = str(piece.array.attrs.get("units", "")), len(piece.times) // 2
        frame = piece.channel(field.level).isel(time=slice(number, number + 1)).values
        value = float(np.nanmean(frame)) if np.isfinite(frame).any() else mean
        if not same_units(units, UNITS[field.name]) or not 0.7 < value / mean < 1.3:
            raise S2KDError(
                f"{piece.path}: {field.channel!r} has the mean {value:,.6g} {units} at "
                f"{date_text(piece.times[number])[:16]}, where about {mean:,.3g} "
                f"{UNITS[field.name]} is usual; {remedy}, or check the file's units and level"
            )


def _every(label: str, record: "xr.Dataset", hours: int) -> "xr.Dataset":
    """Frames at 0, `hours`, … UTC."""
    times = record["time"].values
    step = regularity(times).step_seconds / 3600
    if step and abs(hours / step - max(1, round(hours / step))) > 1e-3:
        raise S2KDError(
            f"{label}: frames are {step:g} h apart, so hours={hours} cannot be had; "
            f"set hours={max(1, round(step))} or a multiple that divides a day"
        )
    hour = hour_of_day(times)
    frames = np.flatnonzero(np.abs(hour - hours * np.round(hour / hours)) < 1e-3)
    if not len(frames):
        raise S2KDError(
            f"{label}: no frame lies at 0, {hours}, … h UTC; the first is {date_text(times[0])}"
        )
    return record.isel(time=frames) if len(frames) < len(times) else record


def _default_split(times: np.ndarray) -> dict[str, Any]:
    """The benchmark's dates where all of its years are there, else the last years in a row."""
    years = sorted({int(text[:4]) for text in iso(times)})
    if set(range(1979, 2019)) <= set(years):
        return SPLIT
    last = [year for year in years if set(range(year, years[-1] + 1)) <= set(years)]
    if len(last) < 3:
        return {}
    tested = 2 if len(last) > 4 else 1
    return {
        "train": (str(last[0]), str(last[-tested - 2])),
        "val": (str(last[-tested - 1]), str(last[-tested - 1])),
        "test": (str(last[-tested]), str(last[-1])),
        "gap": 0,
    }


def describe_layout(path: Path) -> "DetectedLayout | None":
    """WeatherBench's folders, or a Zarr store of the globe with the benchmark's two fields."""
    from s2kd.data.describe import DetectedLayout

    folders = variable_folders(path)
    if folders:
        lines = ["WeatherBench folder", *(folder.name for folder in folders)]
        channels = _available_channels(folders)
    elif is_zarr(path):
        lines = ["WeatherBench 2 Zarr"]
        channels = list(BENCHMARK)
    else:
        return None
    if set(BENCHMARK) <= set(channels):
        channels = list(BENCHMARK)
    settings: dict[str, Any] = {"path": str(path)}
    settings |= {"variables": channels} if channels != list(BENCHMARK) else {}
    layout = DetectedLayout(reader="weatherbench", settings=settings, lines=lines)
    try:
        record = open_fields(path, [field_named(channel) for channel in channels])
    except S2KDError as error:
        layout.problems.append(str(error))
        return layout if folders else None
    times = record["time"].values
    step = regularity(times).step_seconds
    if not folders and not (record.attrs["wraps"] and 0 < step <= 12 * 3600):
        return None
    if step > 6 * 3600:
        settings["hours"] = round(step / 3600)
    official = "variables" not in settings and _default_split(times) is SPLIT
    return replace(layout, recipe="weatherbench" if official else "")


def _available_channels(folders: Mapping[Path, BenchmarkField]) -> list[str]:
    """The benchmark's fields where folders hold them, else one channel per folder."""
    middle = []
    for folder, field in folders.items():
        pieces = next(iter(gridded.fields_of(folder).values()))
        levels = pieces[0].levels if isinstance(pieces, list) and pieces[0].extra else ()
        names = [f"{field.name}@{level:.10g}" for level in levels] or [field.channel]
        official = [name for name in names if name in BENCHMARK]
        middle += official or [names[len(names) // 2]]
    return list(dict.fromkeys(middle))[:6]
