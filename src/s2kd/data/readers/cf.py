"""Gridded records that follow CF, or nearly: NetCDF, Zarr or GRIB; one file, many, or in memory."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import Domain, S2KDError
from s2kd.core.units import same_units
from s2kd.data.grids import AXIS_ATTRIBUTES, FileAxis, Plane, geographic_plane, projected_plane
from s2kd.data.readers import readers
from s2kd.data.readers._axes import by_valid_time, kind_by_name, kind_of
from s2kd.data.readers._cells import (
    kind_of_cells,
    positions_of_cells,
    regular_degrees,
    turned,
    with_still_cells,
)
from s2kd.data.readers._record import check_free
from s2kd.data.readers._valid import valid_limits
from s2kd.data.readers.files import open_files
from s2kd.data.steps import calendar_of, date_text, exact_times

if TYPE_CHECKING:
    import xarray as xr

VERTICAL = ("level", "lev", "plev", "height", "depth", "isobaricinhpa", "pressure_level")
CHANNEL_ATTRIBUTES = ("long_name", "standard_name", "units", "cell_methods")
CHUNK_BYTES = 2**26


@readers.register("cf")
def cf(
    *,
    path: str,
    variables: Sequence[str] = (),
    domain: Domain = "weather",
    local_time: bool = False,
) -> "xr.Dataset":
    """NetCDF-3/4, Zarr 2/3 or GRIB: a file, a folder of files, a pattern or an address.

    `variables` are names, with a level as `geopotential@500` in the level's own unit; empty takes
    every field. Files that follow one another are joined in time, variables may lie in different
    files. Raises S2KDError, naming the file, where something cannot be read or does not fit.
    """
    return joined(path, fields_of(path), variables).assign_attrs(
        domain=domain, local_time=int(local_time)
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Field:
    """One variable of one opened file: its axes, times, grid and levels, not yet read.

    `time_dim` is None where the file holds a single time; `extra` are dimensions beyond time, rows
    and columns that have more than one entry, `levels` the values of the only one, or of a scalar
    vertical coordinate; values beyond `valid` are missing; `notices` are sentences on what was
    assumed or left out.
    """

    path: Path
    array: "xr.DataArray"
    file: "xr.Dataset"
    times: np.ndarray
    time_dim: str | None
    extra: tuple[str, ...]
    levels: tuple[float, ...]
    plane: Plane
    valid: tuple[float, float] | None = None
    notices: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names by which its channels can be chosen."""
        name = str(self.array.name)
        if "@" in name:
            return [name]
        plain = [] if self.extra else [name]
        return plain + [f"{name}@{level:.10g}" for level in self.levels]

    def channel(self, level: str = "", *, chunked: bool = True) -> "xr.DataArray":
        """(time, row, column), lazily, in the grid's order; `level` in the level's unit."""
        array, rows, columns = self.array, self.plane.rows, self.plane.columns
        if self.extra:
            array = array.isel({self.extra[0]: self.level_number(level)})
        keep = {self.time_dim, rows.dimension, columns.dimension}
        array = array.isel({d: 0 for d in array.dims if d not in keep}, drop=True)
        array = array.drop_vars(list(array.coords))
        array = array.expand_dims("time") if self.time_dim is None else array
        names = {self.time_dim: "time", rows.dimension: "row", columns.dimension: "column"}
        array = array.rename({a: b for a, b in names.items() if a is not None and a != b})
        array = array.transpose("time", "row", "column")
        if chunked or self.valid:
            array = array.chunk({"time": self._frames_per_chunk()})
        if self.valid:
            array = array.where((array >= self.valid[0]) & (array <= self.valid[1]))
        array = array.isel(row=_as_slice(self.plane.row_index))
        return array.isel(column=_as_slice(self.plane.column_index)).assign_coords(time=self.times)

    def level_number(self, level: str) -> int | None:
        """The entry of the further dimension that holds `level`."""
        try:
            near = np.flatnonzero(np.isclose(self.levels, float(level), rtol=1e-6))
        except ValueError:
            return None
        return int(near[0]) if len(near) else None

    @property
    def stored_frames(self) -> int:
        """How many frames are stored together; 1 where the file does not state it."""
        sizes = self.array.encoding.get("chunksizes") or self.array.encoding.get("chunks")
        if not sizes or self.time_dim is None or len(sizes) != self.array.ndim:
            return 1
        return int(sizes[self.array.dims.index(self.time_dim)])

    def _frames_per_chunk(self) -> int:
        """A bounded number of frames that splits no stored chunk without need."""
        stored = self.stored_frames
        frame = 4 * len(self.plane.rows.order) * len(self.plane.columns.order)
        bound = max(1, CHUNK_BYTES // frame)
        whole_chunks = bound // stored * stored or stored
        return whole_chunks if whole_chunks <= 4 * bound else bound


Fields = dict[str, list[Field] | str]
"""Per variable its fields, one per file; or a sentence on why it is not a channel."""


def fields_of(source: "str | Path | xr.Dataset | xr.DataArray") -> Fields:
    """Every variable over time, rows and columns, in all files that `source` names."""
    return fields_in(open_files(source))


def fields_in(files: "Sequence[tuple[Path, xr.Dataset]]") -> Fields:
    """Every variable over time, rows and columns, in files that are open."""
    fields: Fields = {}
    for path, opened in files:
        file = with_still_cells(opened)
        for name in map(str, file.data_vars):
            try:
                field = _field(path, file, name)
            except S2KDError as error:
                fields.setdefault(name, str(error))
                continue
            previous = fields.get(name)
            if field is not None and isinstance(previous, list):
                previous.append(field)
            elif field is not None and previous is None:
                fields[name] = [field]
    if not fields:
        raise S2KDError(_why_no_field(*files[0]))
    return {new: pieces for name in fields for new, pieces in separated(name, fields[name])}


def joined(
    path: str, fields: Fields, variables: Sequence[str] | str = (), *, chunked: bool = True
) -> "xr.Dataset":
    """The chosen channels (all fields where `variables` is empty) as one record.

    Channels in one file are read without Dask where they need not be `chunked`.
    """
    import xarray as xr

    names = (variables,) if isinstance(variables, str) else tuple(variables)
    names = names or tuple(fields)
    if len(set(names)) < len(names):
        raise S2KDError(f"{path}: variables names the same one twice ({', '.join(names)})")
    check_free(path, names)
    pieces_by_channel = {name: _pieces(path, fields, name) for name in names}
    _check_agreement(path, pieces_by_channel)
    channels = {}
    for name, pieces in pieces_by_channel.items():
        chunked |= len(pieces) > 1
        parts = [field.channel(level, chunked=chunked) for field, level in pieces]
        array = parts[0] if len(parts) == 1 else xr.concat(parts, "time")
        channels[name] = array.assign_attrs(_attributes(pieces[0][0]))
        channels[name].encoding = dict(pieces[0][0].array.encoding)
    used = [field for pieces in pieces_by_channel.values() for field, _ in pieces]
    first = used[0]
    dataset = xr.Dataset({name: array.variable for name, array in channels.items()})
    times = np.concatenate([field.times for field, _ in pieces_by_channel[names[0]]])
    coordinates: dict[str, Any] = {"time": ("time", times)}
    if first.plane.latitude is not None:
        coordinates |= {
            "latitude": ("row", first.plane.latitude),
            "longitude": ("column", first.plane.longitude),
        }
    first_field = next(pieces[0] for pieces in fields.values() if isinstance(pieces, list))
    return dataset.assign_coords(coordinates).assign_attrs(
        name=Path(path).stem,
        domain="weather",
        source=_origin(first_field),
        wraps=int(first.plane.wraps),
        axes=(first.plane.rows, first.plane.columns),
        places=_places(first),
        stored_frames=first.stored_frames,
        notices=tuple(dict.fromkeys(text for field in used for text in field.notices)),
        history=str(first.file.attrs.get("history", "")),
    )


def starting_at(dataset: "xr.Dataset", longitude: float) -> "xr.Dataset":
    """The same record with the column at `longitude` first, where the grid goes round the Earth."""
    if not dataset.attrs.get("wraps") or "longitude" not in dataset.coords:
        return dataset
    degrees = dataset["longitude"].values
    shift = int(np.abs((degrees - longitude + 180) % 360 - 180).argmin())
    if shift == 0:
        return dataset
    moved = np.concatenate([degrees[shift:], degrees[:shift] + 360])
    order = np.roll(np.arange(len(degrees)), -shift)
    turned = dataset.isel(column=order).assign_coords(longitude=("column", moved))
    if "axes" not in dataset.attrs:
        return turned
    rows, columns = dataset.attrs["axes"]
    columns = replace(columns, order=(columns.order - shift) % len(degrees))
    return turned.assign_attrs(axes=(rows, columns))


# --- choosing and checking channels ---------------------------------------------------------------


def channel_names(fields: Fields) -> list[str]:
    """Every name that `variables` may hold; a variable with levels as `name@level`."""
    lists = [pieces for pieces in fields.values() if isinstance(pieces, list)]
    return list(dict.fromkeys(name for pieces in lists for field in pieces for name in field.names))


def summary(fields: Fields) -> str:
    """The variables of a file for messages, levels as a range."""
    texts = []
    for name, pieces in fields.items():
        levels = pieces[0].levels if isinstance(pieces, list) and pieces[0].extra else ()
        texts.append(f"{name}@{levels[0]:g}…{levels[-1]:g}" if levels else name)
    return ", ".join(texts[:24])


def _pieces(path: str, fields: Fields, channel: str) -> list[tuple[Field, str]]:
    """The fields of one channel in time order, each with the level to take."""
    name, _, level = (channel, "", "") if channel in fields else channel.rpartition("@")
    pieces = fields.get(name)
    if isinstance(pieces, str):
        raise S2KDError(pieces)
    matching = [f for f in pieces or () if not level or f.level_number(level) is not None]
    if not matching:
        names = channel_names(fields)
        near = nearest(channel, names) or nearest(name or channel, names)
        raise S2KDError(f"{path}: no variable {channel!r}{near} (there are {summary(fields)})")
    for field in matching:
        if field.extra and not level:
            examples = ", ".join(f"'{name}@{value:.10g}'" for value in field.levels[:4])
            raise S2KDError(
                f"{field.path}: {name!r} has the further dimension {' and '.join(field.extra)}; "
                + (
                    f"choose one entry, as in variables=[{examples}]"
                    if examples
                    else "reduce it to time, rows, columns and at most one numbered level"
                )
            )
    if len({calendar_of(field.times) for field in matching}) > 1:
        raise S2KDError(f"{path}: files of several calendars")
    matching.sort(key=lambda f: f.times[0])
    for first, second in itertools.pairwise(matching):
        shared = np.intersect1d(first.times, second.times)
        if len(shared):
            places = " and ".join(dict.fromkeys(str(f.path) for f in (first, second)))
            raise S2KDError(
                f"{path}: {name!r} is twice in {places} at {len(shared)} times, the first "
                f"{date_text(shared[0])}; give one file per time, or two fields two names"
            )
    return [(field, level) for field in matching]


def _check_agreement(path: str, chosen: dict[str, list[tuple[Field, str]]]) -> None:
    """Every channel must have the same times, every file the same grid and units."""
    lead_name, lead = next(iter(chosen.items()))
    times = np.concatenate([field.times for field, _ in lead])
    for name, pieces in chosen.items():
        channel_times = np.concatenate([field.times for field, _ in pieces])
        shared = min(len(times), len(channel_times))
        # the first frame that differs, or that only one of them has
        at = int(np.argmax(np.append(times[:shared] != channel_times[:shared], True)))
        if at < max(len(times), len(channel_times)):
            texts = [date_text(t[at]) if at < len(t) else "its end" for t in (times, channel_times)]
            raise S2KDError(
                f"{path}: {lead_name!r} and {name!r} must have the same times, but frame {at} is "
                f"{texts[0]} in the one and {texts[1]} in the other; choose those that agree: "
                f"dataset.params.variables=['{lead_name}']"
            )
        for field, _ in pieces:
            text = field.plane.difference(lead[0][0].plane)
            if text:
                raise S2KDError(
                    f"{field.path}: {name!r} has {text} as {lead_name!r} in "
                    f"{lead[0][0].path.name} has"
                )
            units = [str(f.array.attrs.get("units", "")) for f in (pieces[0][0], field)]
            if not same_units(*units):
                raise S2KDError(
                    f"{field.path}: {name!r} is in {units[1]!r}, but in {units[0]!r} in "
                    f"{pieces[0][0].path.name}"
                )


def _attributes(field: Field) -> dict[str, str]:
    """The CF attributes that travel on to forecasts, all as text; `units` always."""
    attributes = field.array.attrs
    texts = {key: str(attributes[key]) for key in CHANNEL_ATTRIBUTES if key in attributes}
    return {"units": ""} | texts


def _origin(field: Field) -> str:
    """Title or institution of the file, with its name."""
    attributes = field.file.attrs
    titles = (str(attributes[n]) for n in ("title", "source", "institution") if attributes.get(n))
    title = next(titles, "")
    return f"{title} ({field.path.name})" if title else field.path.name


def _as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Evenly spaced numbers as a slice, which is read faster."""
    steps = np.diff(index)
    if len(index) < 2 or (steps != steps[0]).any():
        return index
    stop = int(index[-1]) + int(steps[0])
    return slice(int(index[0]), None if stop < 0 else stop, int(steps[0]))


# --- fields of one name ---------------------------------------------------------------------------

TELLING = ("GRIB_typeOfLevel", "GRIB_stepType", "GRIB_paramId", "standard_name", "cell_methods")
"""Attributes in which two fields of one name differ."""


def separated(name: str, pieces: list[Field] | str) -> list[tuple[str, list[Field] | str]]:
    """Fields of one name that are of several levels, step types or statistics, each by a name.

    What differs follows the name: `t_surface`, `prate_avg`, `t@850`. Members of an ensemble, and
    others whose coordinates differ, are told apart where they have the same times.
    """
    if isinstance(pieces, str) or len(pieces) == 1:
        return [(name, pieces)]
    groups = _grouped(pieces, coordinates=False)
    if any(_share_times(group) for _, group in groups):
        members = _grouped(pieces, coordinates=True)
        groups = groups if any(_share_times(group) for _, group in members) else members
    if len(groups) == 1:
        return [(name, pieces)]
    keys = dict.fromkeys(key for identity, _ in groups for key in identity)
    key = next(k for k in keys if len({identity.get(k) for identity, _ in groups}) == len(groups))
    result: list[tuple[str, list[Field] | str]] = []
    for identity, group in groups:
        value = identity.get(key, "")
        ending = f"@{value:.10g}" if isinstance(value, float) else f"_{value}"
        new = name + re.sub(r"[^\w@.+-]+", "_", ending).rstrip("_")
        result.append((new, [replace(f, array=f.array.rename(new)) for f in group]))
    return result


def _grouped(
    pieces: Sequence[Field], *, coordinates: bool
) -> list[tuple[dict[str, str | float], list[Field]]]:
    """Fields that differ in nothing that both say, with what they say."""
    groups: list[tuple[dict[str, str | float], list[Field]]] = []
    for field in pieces:
        identity = _identity(field, coordinates=coordinates)
        for shared, group in groups:
            if all(shared.get(key, value) == value for key, value in identity.items()):
                shared |= identity
                group.append(field)
                break
        else:
            groups.append((identity, [field]))
    return groups


def _identity(field: Field, *, coordinates: bool) -> dict[str, str | float]:
    """What tells a field from others of its name; with `coordinates`, all that are scalars."""
    attributes = field.array.attrs
    identity = {key: str(attributes[key]) for key in TELLING if key in attributes}
    for name, scalar in field.array.coords.items():
        if scalar.size == 1 and (coordinates or _is_vertical(str(name), scalar)):
            if scalar.dtype.kind in "fiu":
                identity[str(name)] = float(scalar.values.ravel()[0])
            elif scalar.dtype.kind in "US":
                identity[str(name)] = str(scalar.values.ravel()[0])
    return identity


def _share_times(pieces: Sequence[Field]) -> bool:
    times = np.concatenate([field.times for field in pieces])
    return len(set(times.tolist())) < len(times)


# --- axes -----------------------------------------------------------------------------------------


def _field(path: Path, file: "xr.Dataset", name: str) -> Field | None:
    """A variable with its axes; None where it is not a field over time, rows and columns."""
    if file[name].dtype.kind not in "fiu" or kind_of_cells(name, file.variables[name]):
        return None
    file, notices = by_valid_time(file, name)
    array, notices = file[name], (*file.attrs["notices"], *notices)
    axes: dict[str, tuple[str | None, str | None]] = {}
    for dim in map(str, array.dims):
        for kind, coordinate in _kinds_of_dim(file, dim):
            axes.setdefault(kind, (dim, coordinate))
    y, x = axes.get("latitude") or axes.get("y"), axes.get("longitude") or axes.get("x")
    time = axes.pop("time", None) or _single_time(array)
    cells = None if {"latitude", "longitude"} <= axes.keys() else positions_of_cells(file, array)
    if cells is not None:
        y, x = ((d, dict(axes.values()).get(d)) for d in map(str, cells.latitude.dims))
    if y is None or x is None or time is None or y[0] == x[0]:
        return None
    extra = tuple(
        str(d) for d in array.dims if d not in (time[0], y[0], x[0]) and array.sizes[d] > 1
    )
    times = np.atleast_1d(file[time[1]].values)
    dated = np.array([t == t and t is not None for t in times])  # NaT differs from itself
    if not dated.any():
        raise S2KDError(f"{path}: {name!r} holds no times")
    if not dated.all():
        file = file.isel({time[0]: _as_slice(np.flatnonzero(dated))})
        notices += (f"{(~dated).sum()} of {len(times)} frames have no time and are left out",)
        times = times[dated]
    valid, problem = valid_limits(file[name].variable)
    notices += (f"{name!r} {problem}",) if problem else ()
    return Field(
        path=path,
        valid=valid,
        array=file[name],
        file=file,
        times=exact_times(times),
        time_dim=time[0],
        extra=extra,
        levels=_levels(array, extra),
        plane=_plane(file, y, x, cells, label=f"{path}: {name!r}"),
        notices=notices,
    )


def _kinds_of_dim(file: "xr.Dataset", dim: str) -> list[tuple[str, str | None]]:
    """What `dim` is by the coordinates along it (valid time first, then its own), or by name."""
    along = [str(name) for name, variable in file.variables.items() if variable.dims == (dim,)]
    along.sort(key=lambda name: (name != "valid_time", name != dim))
    kinds = [(kind_of(name, file.variables[name]), name) for name in along]
    matches: list[tuple[str, str | None]] = [(k, n) for k, n in kinds if k is not None]
    by_name = kind_by_name(dim)
    if not matches and by_name is not None:
        return [({"latitude": "y", "longitude": "x"}.get(by_name, by_name), None)]
    return matches


def _single_time(array: "xr.DataArray") -> tuple[None, str] | None:
    scalars = {str(n): c for n, c in array.coords.items() if c.ndim == 0}
    names = [name for name, scalar in scalars.items() if kind_of(name, scalar) == "time"]
    names.sort(key=lambda name: (name != "valid_time", name != "time"))
    return (None, names[0]) if names else None


def _levels(array: "xr.DataArray", extra: tuple[str, ...]) -> tuple[float, ...]:
    """The values of the one further dimension, or of a scalar vertical coordinate."""
    if len(extra) == 1:
        along = array.coords.get(extra[0])
        if along is None:
            return tuple(map(float, range(array.sizes[extra[0]])))
        return tuple(map(float, along.values)) if along.dtype.kind in "fiu" else ()
    single = [c for n, c in array.coords.items() if c.size == 1 and _is_vertical(str(n), c)]
    return () if extra or not single else (float(single[0].values.ravel()[0]),)


def _is_vertical(name: str, coordinate: "xr.DataArray") -> bool:
    attributes = coordinate.attrs
    return coordinate.dtype.kind in "fiu" and (
        attributes.get("axis") == "Z" or "positive" in attributes or name.lower() in VERTICAL
    )


def _plane(
    file: "xr.Dataset",
    y: tuple[str, str | None],
    x: tuple[str, str | None],
    cells: "xr.Dataset | None",
    *,
    label: str,
) -> Plane:
    rows, columns = _file_axis(file, *y), _file_axis(file, *x)
    degrees = regular_degrees(cells) if cells is not None else None
    kinds = [
        axis.values is not None and kind_of(axis.name, file[axis.name]) for axis in (rows, columns)
    ]
    if degrees is not None or kinds == ["latitude", "longitude"]:
        return geographic_plane(rows, columns, label=label, degrees=degrees)
    south_first, east_first = _south_first(rows), False
    if cells is not None:
        south_first, east_first = turned(cells)
    elif columns.values is not None:
        east_first = bool(columns.values[0] > columns.values[-1])
    return projected_plane(rows, columns, south_first=south_first, east_first=east_first)


def _file_axis(file: "xr.Dataset", dimension: str, name: str | None) -> FileAxis:
    coordinate = None if name is None else file[name]
    if coordinate is not None and coordinate.dtype.kind not in "fiu":
        coordinate = None
    attributes = {} if coordinate is None else coordinate.attrs
    return FileAxis(
        dimension=dimension,
        name=dimension if coordinate is None else str(name),
        values=None if coordinate is None else coordinate.values,
        attributes={key: str(attributes[key]) for key in AXIS_ATTRIBUTES if key in attributes},
        order=np.arange(file.sizes[dimension]),
    )


def _south_first(rows: FileAxis) -> bool:
    """Whether row 0 is the lower one of a projection, whose y counts upwards.

    A bare row number is an image's: it counts downwards already.
    """
    if rows.values is None:
        return False
    upwards = rows.attributes.get("standard_name") in ("projection_y_coordinate", "grid_latitude")
    upwards = upwards or rows.attributes.get("units") in ("m", "km", "metre", "meter")
    return bool(upwards and rows.values[0] < rows.values[-1])


def _places(field: Field) -> "xr.Dataset":
    """Further coordinates of the cells, in the file's order, for a forecast to repeat.

    Two-dimensional coordinates, latitudes and longitudes, and the grid mapping, which is also the
    attribute `grid_mapping` of the returned dataset (CF 5.6).
    """
    import xarray as xr

    file, coordinates = field.file, {}
    plane = {field.plane.rows.dimension, field.plane.columns.dimension}
    for name, variable in file.variables.items():
        flat = set(variable.dims) == plane and variable.dtype.kind in "fiu"
        if flat and (name in file.coords or kind_of(str(name), variable)):
            # bounds would be a further variable
            attributes = {key: text for key, text in variable.attrs.items() if key != "bounds"}
            coordinates[name] = (variable.dims, variable.values, attributes, {"_FillValue": None})
    array = field.array
    text = str(array.attrs.get("grid_mapping") or array.encoding.get("grid_mapping", ""))
    # "crs" or "crs: x y": some names are coordinates
    mappings = [
        name
        for name in text.replace(":", " ").split()
        if name in file.variables and "grid_mapping_name" in file[name].attrs
    ]
    scalars = {name: ((), np.int32(0), file[name].attrs) for name in mappings}
    return xr.Dataset(scalars, coordinates, {"grid_mapping": text} if mappings else {})


def _why_no_field(path: Path, file: "xr.Dataset") -> str:
    """One sentence on a file in which no variable is a field over time."""
    for name, variable in file.variables.items():
        attributes = variable.attrs
        is_time = "time" in (str(name).lower(), attributes.get("standard_name"))
        if (is_time or attributes.get("axis") == "T") and kind_of(str(name), variable) is None:
            return (
                f"{path}: {str(name)!r} does not say what it counts (units "
                f"{attributes.get('units')!r}, calendar {attributes.get('calendar')!r}); give it "
                "units such as 'hours since 2000-01-01' and a calendar of CF"
            )
    group = str(file.attrs.get("group", "")).strip("/")
    names = ", ".join(
        f"{group}/{name} {array.shape}" if group else f"{name} ({', '.join(map(str, array.dims))})"
        for name, array in file.data_vars.items()
    )
    dated = any(kind_of(str(name), variable) == "time" for name, variable in file.variables.items())
    return (
        f"{path}: no variable has the axes time, latitude (or y) and longitude (or x); "
        f"it holds {names[:300] or 'no variables'}{'' if dated else ', and no time'}"
    )
