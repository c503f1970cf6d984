"""What WeatherBench calls things, where it puts them, and what values they have."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data._cf import ENDINGS, Source, gridded, open_path
from s2kd.data._select import (
    Fields,
    available,
    called,
    fields_of,
    joined,
    levels_of,
    listed,
    pieces_of,
    same_units,
)
from s2kd.data._series import Piece, Series
from s2kd.data.times import seconds_between

if TYPE_CHECKING:
    import xarray as xr

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
GRAVITY = 9.80665
YEAR = re.compile(r"_(\d{4})_")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One channel: WeatherBench's long name, and the level in hPa where it has one."""

    name: str
    level: str = ""

    @property
    def channel(self) -> str:
        """`geopotential@500`, whatever the files call it."""
        return f"{self.name}@{self.level}" if self.level else self.name

    @property
    def flat(self) -> str:
        """`geopotential_500`: its folder, and its variable where there is one a level."""
        return f"{self.name}_{self.level}" if self.level else self.name


def field_named(asked: str) -> Field:
    """`geopotential@500`, `geopotential_500`, `z@500` and `z500` are one; `t2m` needs no level."""
    if asked in SHORT or asked in LONG:
        return Field(name=LONG.get(asked, asked))
    matched = re.fullmatch(r"(.+?)[@_]?(\d+(?:\.\d+)?)", asked)
    if matched and (matched[1] in SHORT or matched[1] in LONG or "@" in asked):
        return Field(name=LONG.get(matched[1], matched[1]), level=f"{float(matched[2]):.10g}")
    return Field(name=asked)


def is_folder(path: Path) -> bool:
    """Whether `path` holds WeatherBench's folders, one a variable (perhaps under `5.625deg`)."""
    return path.is_dir() and any(_fields_in(root) for root in _roots(path))


def _roots(path: Path) -> list[Path]:
    """Where the folders of variables may lie; a folder of one variable stands for its parent."""
    below = sorted(p for p in path.glob("*deg") if p.is_dir())
    own = [path.parent] if _field_of_folder(path) else []
    return [path, *below, *own]


def _field_of_folder(folder: Path) -> Field | None:
    """What a folder holds, by its name, if there are NetCDF files in it."""
    field = field_named(folder.name)
    known = field.name in SHORT and folder.is_dir()
    return field if known and any(folder.glob("*.nc")) else None


def _fields_in(root: Path) -> dict[Path, Field]:
    found = {p: _field_of_folder(p) for p in sorted(root.iterdir())} if root.is_dir() else {}
    return {folder: field for folder, field in found.items() if field is not None}


def published(path: Path) -> dict[Path, Field]:
    """The folders of variables under `path` whose files are named as the benchmark's are."""
    if not path.is_dir():
        return {}
    held = next((found for root in _roots(path) if (found := _fields_in(root))), {})
    return {folder: field for folder, field in held.items() if any(folder.glob("*deg.nc"))}


def open_fields(
    given: "str | Path | xr.Dataset", fields: Sequence[Field], years: Iterable[int] | None = None
) -> Series:
    """These fields of a folder, a Zarr store (an address too) or gridded files, as one series.

    Or of a dataset in memory. Files whose names say another year than one of `years` are not
    opened.
    """
    pieces: dict[str, list[Piece]] = {}
    opened: dict[str, Fields]
    path = called(given)
    if not isinstance(given, str | Path):
        opened = dict.fromkeys((field.name for field in fields), fields_of(given))
    elif "://" in path:
        from s2kd.data._remote import open_remote

        source = open_remote(path)
        opened = {field.name: [(source, gridded(source))] for field in fields}
    elif is_folder(Path(path).expanduser()):
        opened = _open_folders(Path(path).expanduser(), fields, years)
    else:
        opened = dict.fromkeys((field.name for field in fields), fields_of(path))
    for field in fields:
        own = opened.get(field.channel) or opened[field.name]
        pieces[field.channel] = pieces_of(path, own, _spoken(path, own, field))
        _check_order(pieces[field.channel])
    _check_values(pieces)
    return _with_units(joined(path, pieces), fields)


def _open_folders(
    path: Path, fields: Sequence[Field], years: Iterable[int] | None
) -> dict[str, Fields]:
    """Opened files by channel (`geopotential@500`) or, where one folder has all levels, by name."""
    root = next(root for root in _roots(path) if _fields_in(root))
    held = _fields_in(root)
    by_channel = {field.channel: folder for folder, field in held.items()}
    opened: dict[str, Fields] = {}
    for field in fields:
        folder = by_channel.get(field.channel) or by_channel.get(field.name)
        if folder is None:
            near = nearest(field.channel, by_channel)
            raise S2KDError(
                f"{root}: has no folder {field.flat!r} for {field.channel!r}{near} "
                f"(it has {', '.join(p.name for p in held)})"
            )
        key = held[folder].channel
        if key not in opened:
            opened[key] = open_years(folder, years)
    return opened


def open_years(folder: Path, years: Iterable[int] | None = None) -> Fields:
    """The files of these years, in order of their names."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)
    if years is not None:
        wanted = set(years)
        told = {file: YEAR.search(file.name) for file in files}
        files = [f for f in files if (year := told[f]) is None or int(year[1]) in wanted]
    if not files:
        raise S2KDError(f"{folder}: holds no NetCDF file of the years asked for")
    sources = [source for file in files for source in open_path(file)]
    return [(source, gridded(source)) for source in sources]


def _spoken(path: str, opened: Fields, field: Field) -> str:
    """What these files call the field, with its level where they know levels."""
    names = [name for name in (SHORT.get(field.name, ""), field.name) if name]
    # one variable a level, as `s2kd data fetch` writes them
    if any(field.flat in found for _, found in opened):
        return field.flat
    for source, found in opened:
        for name in names:
            if name not in found:
                continue
            axes = found[name]
            levels = levels_of(source, name, axes)
            if field.level and (levels or axes.extra):
                return f"{name}@{field.level}"
            if field.level and _named_level(source) != field.level:
                raise S2KDError(
                    f"{source.path}: {name!r} has no level coordinate, so nothing says that it is "
                    f"at {field.level} hPa"
                )
            return name
    known = available(opened)
    near = nearest(field.channel, known)
    raise S2KDError(f"{path}: has no {field.channel!r}{near} (there are {listed(opened)})")


def _named_level(source: Source) -> str:
    """The level that a folder's name tells: `geopotential_500`."""
    return field_named(source.path.parent.name).level


def in_words(years: Sequence[int]) -> str:
    """Years as `1979–1983, 1990`."""
    runs: list[list[int]] = []
    for year in years:
        if runs and year == runs[-1][-1] + 1:
            runs[-1].append(year)
        else:
            runs.append([year])
    return ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


# --- what is checked -----------------------------------------------------------------------------


def _check_order(pieces: Sequence[Piece]) -> None:
    """Times ascend within each file and from one file to the next; errors name the file."""
    for piece in pieces:
        wrong = np.flatnonzero(seconds_between(piece.times) <= 0)
        if len(wrong):
            at = int(wrong[0]) + 1
            same = piece.times[at] == piece.times[at - 1]
            raise S2KDError(
                f"{piece.source.path}: time {_shown(piece.times[at])} (number {at}) "
                f"{'occurs twice' if same else 'lies before the one that precedes it'}; sort the "
                "file by time and drop repeated times"
            )
    for one, other in itertools.pairwise(pieces):
        if other.times[0] <= one.times[-1]:
            raise S2KDError(
                f"{other.source.path}: starts {_shown(other.times[0])}, but "
                f"{one.source.path.name} reaches {_shown(one.times[-1])}: two files hold the same "
                "times; keep one of them"
            )


def _shown(time: object) -> str:
    return str(time)[:16]


def usual(field: Field) -> tuple[float, str] | None:
    """A global mean that is usual, and its unit; None where nothing is known.

    Geopotential is the standard atmosphere's (ISO 2533:1975): below 11 km
    h = 44330.8 m (1 − (p / 1013.25 hPa)^0.190263), above h = 11 km + 6341.6 m ln(226.32 hPa / p).
    """
    if field.name in ("temperature", "2m_temperature"):
        return 270.0, "K"
    if field.name != "geopotential" or not field.level or float(field.level) > 950:
        return None
    pressure = float(field.level)
    high = 11_000 + 6341.6 * math.log(226.32 / pressure)
    low = 44330.8 * (1 - (pressure / 1013.25) ** 0.190263)
    return GRAVITY * (low if pressure >= 226.32 else high), "m² s⁻²"


def _check_values(pieces: dict[str, list[Piece]]) -> None:
    """One frame a file: units as they are written, and a mean that can be true."""
    for channel, own in pieces.items():
        field = field_named(channel)
        expected = usual(field)
        for piece in own if expected else []:
            _check_file(piece, field, *expected)


def _check_file(piece: Piece, field: Field, mean: float, unit: str) -> None:
    where = f"{piece.source.path}: {field.channel!r}"
    said = str(piece.source.data[piece.variable].attrs.get("units", ""))
    remedy = "multiply it by 9.80665" if field.name == "geopotential" else "add 273.15"
    if not same_units(said, UNITS[field.name]):
        raise S2KDError(f"{where} is in {said!r}, not in {unit}; {remedy} if that is what it lacks")
    frame = piece.read(np.array([len(piece.times) // 2]))[0]
    values = frame[np.isfinite(frame)]
    if not values.size:
        return  # what is missing is counted when frames are read
    found = float(values.mean(dtype=np.float64))
    ratio = found / mean
    if 0.7 < ratio < 1.3:
        return
    if field.name == "geopotential" and 0.7 < ratio * GRAVITY < 1.3:
        why = "it looks like geopotential height in metres: " + remedy
    elif unit == "K" and -80 < found < 50:
        why = "it looks like degrees Celsius: " + remedy
    else:
        why = "check the file's units and level"
    raise S2KDError(
        f"{where} has the mean {found:,.6g} at {_shown(piece.times[len(piece.times) // 2])}, where "
        f"about {mean:,.3g} {unit} is usual; {why}"
    )


def _with_units(series: Series, fields: Sequence[Field]) -> Series:
    """Units that a file does not give are the benchmark's."""
    units = [
        unit or UNITS.get(field.name, "") for unit, field in zip(series.units, fields, strict=True)
    ]
    return replace(series, units=tuple(units))
