"""Choosing variables and levels out of opened files, and checking that they belong together."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data._cf import Axes, Source, expand, gridded, open_path, times_of, why_not_gridded
from s2kd.data._plane import plane_of
from s2kd.data._record import shown
from s2kd.data._series import Piece, Reader, Series

if TYPE_CHECKING:
    import xarray as xr

KEPT_ATTRIBUTES = ("long_name", "standard_name", "units", "cell_methods")
GIVEN = "the dataset given"
"""What errors call frames that were handed over in memory."""
Fields = list[tuple[Source, dict[str, Axes]]]


def open_series(path: str, variables: Sequence[str] | str = ()) -> Series:
    """Open what `path` names and choose `variables` (all fields where none is named).

    A level is chosen by `name@level`, in the level's own unit. Variables may lie in different
    files, as long as times and grid agree.
    """
    return series_of(path, fields_of(path), variables)


def series_of(path: str, fields: Fields, variables: Sequence[str] | str = ()) -> Series:
    """`open_series` of files that are open already."""
    wanted = (variables,) if isinstance(variables, str) else tuple(variables)
    channels = wanted or tuple(dict.fromkeys(n for _, found in fields for n in found))
    if len(set(channels)) < len(channels):
        raise S2KDError(f"{path}: variables names the same one twice ({', '.join(channels)})")
    return joined(path, {channel: pieces_of(path, fields, channel) for channel in channels}, fields)


def joined(path: str, pieces: dict[str, list[Piece]], fields: Fields | None = None) -> Series:
    """Channels by name as one series; `fields` are the opened files, where not all are used."""
    _check_agreement(path, pieces)
    channels = tuple(pieces)
    one = pieces[channels[0]]
    attributes = {channel: _attributes(pieces[channel][0]) for channel in channels}
    used = [piece.source for own in pieces.values() for piece in own]
    sources = used if fields is None else [source for source, _ in fields]
    return Series(
        path=path,
        files=tuple(dict.fromkeys(source.path for source in sources)),
        channels=channels,
        units=tuple(attributes[channel].get("units", "") for channel in channels),
        attributes=attributes,
        plane=one[0].plane,
        times=np.concatenate([piece.times for piece in one]),
        readers=_readers(list(pieces.values())),
        source=_origin(sources[0]),
    )


def called(given: "str | Path | xr.Dataset") -> str:
    """What errors call a path, or frames that were handed over in memory."""
    return str(given) if isinstance(given, str | Path) else GIVEN


def fields_of(given: "str | Path | xr.Dataset") -> Fields:
    """Open every file that a path names, or take a dataset as it is; one must hold a field."""
    if isinstance(given, str | Path):
        sources = [source for file in expand(str(given)) for source in open_path(file)]
    else:
        sources = [Source(path=Path(GIVEN), data=given)]
    fields = [(source, gridded(source)) for source in sources]
    if not any(found for _, found in fields):
        raise S2KDError(why_not_gridded(sources[0]))
    return fields


def available(fields: Fields) -> list[str]:
    """Every name that may be asked for; a variable with levels as `name@level`."""
    names: dict[str, None] = {}
    for source, found in fields:
        for name, axes in found.items():
            if not axes.extra:
                names[name] = None
            for level in levels_of(source, name, axes):
                names[f"{name}@{level:.10g}"] = None
    return list(names)


def listed(fields: Fields) -> str:
    """What there is, for people: levels as a range."""
    names = {}
    for source, found in fields:
        for name, axes in found.items():
            levels = levels_of(source, name, axes) if axes.extra else []
            names[name] = f"{name}@{levels[0]:g}…{levels[-1]:g}" if levels else name
    return ", ".join(list(names.values())[:24])


def pieces_of(path: str, fields: Fields, channel: str) -> list[Piece]:
    """The pieces of one channel in time order, with their place in the series."""
    exact = any(channel in found for _, found in fields)
    name, _, level = (channel, "", "") if exact else channel.rpartition("@")
    pieces = []
    for source, found in fields:
        if name in found:
            pieces += _piece(source, name, found[name], level)
    if not pieces:
        raise S2KDError(_unknown(path, fields, channel, name or channel))
    # cftime of two calendars cannot be compared, and one file has one calendar
    if len({_calendar(piece.times) for piece in pieces}) > 1:
        raise S2KDError(f"{path}: files of several calendars")
    pieces.sort(key=lambda piece: piece.times[0])
    placed, first = [], 0
    for piece in pieces:
        placed.append(replace(piece, first=first))
        first += len(piece.times)
    return placed


def _piece(source: Source, name: str, axes: Axes, level: str) -> list[Piece]:
    """The piece in this file, or none where it does not hold the level."""
    levels = levels_of(source, name, axes)
    entries = [i for i, value in enumerate(levels) if level and _is_level(value, level)]
    if level and not entries:
        return []
    if len(axes.extra) > 1 or (axes.extra and not level):
        some = ", ".join(f"'{name}@{value:.10g}'" for value in levels[:4])
        raise S2KDError(
            f"{source.path}: {name!r} has the further dimension {' and '.join(axes.extra)}; "
            f"choose one entry, as in variables=[{some}]"
            if len(axes.extra) == 1 and levels
            else f"{source.path}: {name!r} has the further dimensions {', '.join(axes.extra)} "
            "and needs to be reduced to time, rows, columns and at most one numbered level"
        )
    times = times_of(source, axes)
    if len(times) == 0:
        raise S2KDError(f"{source.path}: {name!r} holds no times")
    return [
        Piece(
            source=source,
            variable=name,
            axes=axes,
            plane=plane_of(source, name, axes),
            times=times,
            level_dim=axes.extra[0] if axes.extra else None,
            levels=tuple(entries[:1]) if axes.extra else (),
        )
    ]


def levels_of(source: Source, name: str, axes: Axes) -> list[float]:
    """The values of the one further dimension, or of a scalar level coordinate."""
    array = source.data[name]
    if len(axes.extra) == 1:
        along = array.coords.get(axes.extra[0])
        if along is None:
            return list(map(float, range(array.sizes[axes.extra[0]])))
        return list(map(float, along.values)) if along.dtype.kind in "fiu" else []
    if axes.extra:
        return []
    single = [c for n, c in array.coords.items() if c.size == 1 and _is_vertical(str(n), c)]
    return [float(c.values.ravel()[0]) for c in single][:1]


def _is_vertical(name: str, coordinate: "xr.DataArray") -> bool:
    held = coordinate.attrs
    return coordinate.dtype.kind in "fiu" and (
        held.get("axis") == "Z"
        or "positive" in held
        or name.lower() in ("level", "lev", "plev", "height", "depth", "isobaricinhpa")
        or name.lower() == "pressure_level"
    )


def _is_level(value: float, asked: str) -> bool:
    try:
        return bool(np.isclose(value, float(asked), rtol=1e-6))
    except ValueError:
        return False


def _unknown(path: str, fields: Fields, channel: str, name: str) -> str:
    known = available(fields)
    near = nearest(channel, known) or nearest(name, known)
    return f"{path}: no variable {channel!r}{near} (there are {listed(fields)})"


def _calendar(times: np.ndarray) -> str:
    return "standard" if times.dtype != object else str(times[0].calendar)


def _check_agreement(path: str, pieces: dict[str, list[Piece]]) -> None:
    """Every channel must have the same times and units throughout, every file the same grid."""
    lead, first = next((channel, own[0]) for channel, own in pieces.items())
    times = np.concatenate([piece.times for piece in pieces[lead]])
    for channel, own in pieces.items():
        _check_times(path, lead, times, channel, np.concatenate([piece.times for piece in own]))
        for piece in own:
            words = piece.plane.differs(first.plane)
            if words:
                raise S2KDError(
                    f"{piece.source.path}: {channel!r} has {words} as {lead!r} in "
                    f"{first.source.path.name} has"
                )
            units = [_attributes(p).get("units", "") for p in (own[0], piece)]
            if not same_units(*units):
                raise S2KDError(
                    f"{piece.source.path}: {channel!r} is in {units[1]!r}, but in {units[0]!r} in "
                    f"{own[0].source.path.name}"
                )


def _check_times(path: str, lead: str, times: np.ndarray, channel: str, other: np.ndarray) -> None:
    short = min(len(times), len(other))
    apart = np.flatnonzero(times[:short] != other[:short])
    if len(apart) or len(times) != len(other):
        at = int(apart[0]) if len(apart) else short
        said = [shown(t[at]) if at < len(t) else "its end" for t in (times, other)]
        raise S2KDError(
            f"{path}: {lead!r} and {channel!r} must have the same times, but frame {at} is "
            f"{said[0]} in the one and {said[1]} in the other"
        )


def _readers(channels: list[list[Piece]]) -> tuple[Reader, ...]:
    """Levels of one variable are read together, so that a stored chunk is unpacked once."""
    together: dict[tuple[object, ...], list[int]] = {}
    for position, own in enumerate(channels):
        alone = position if own[0].level_dim is None else -1
        key = (alone, *((id(piece.source), piece.variable) for piece in own))
        together.setdefault(key, []).append(position)
    readers = []
    for positions in together.values():
        columns = zip(*(channels[p] for p in positions), strict=True)
        joined = tuple(
            replace(column[0], levels=tuple(i for piece in column for i in piece.levels))
            for column in columns
        )
        readers.append(Reader(positions=tuple(positions), pieces=joined))
    return tuple(readers)


def _attributes(piece: Piece) -> dict[str, str]:
    """The CF attributes that travel on to forecasts, all as text."""
    held = piece.source.data[piece.variable].attrs
    return {name: str(held[name]) for name in KEPT_ATTRIBUTES if name in held}


def _origin(source: Source) -> str:
    """A word on where the data come from: the title or institution, and the file's name."""
    held = source.data.attrs
    said = next((str(held[n]) for n in ("title", "source", "institution") if held.get(n)), "")
    return f"{said} ({source.path.name})" if said else source.path.name


def same_units(one: str, other: str) -> bool:
    """Whether `m**2 s**-2` and `m2/s2` or `degK` and `K` are one unit; an empty one fits all."""
    return not one or not other or _spelt(one) == _spelt(other)


def _spelt(units: str) -> tuple[tuple[str, int], ...]:
    """Unit names with their powers, sorted."""
    aliases = {"degk": "K", "kelvin": "K", "degrees_c": "degC", "celsius": "degC", "1": ""}
    powers: dict[str, int] = {}
    above, *below = units.replace("**", "").replace("^", "").split("/")
    for part, sign in [(above, 1), *((b, -1) for b in below)]:
        for name, power in re.findall(r"([^\W\d]+|%|°\w*|^1$)([-+]?\d+)?", part):
            name = aliases.get(name.lower(), name)
            powers[name] = powers.get(name, 0) + sign * int(power or 1)
    return tuple(sorted((name, power) for name, power in powers.items() if name and power))
