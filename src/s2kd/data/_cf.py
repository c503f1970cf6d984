"""Finding time, rows and columns in any file that xarray opens, by CF attributes or by name."""

import glob
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.types import S2KDError

if TYPE_CHECKING:
    import xarray as xr

ENDINGS = (".nc", ".nc4", ".cdf", ".netcdf", ".grib", ".grb", ".grib2", ".grb2", ".zarr")
NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
NAMES = {
    "latitude": ("lat", "latitude"),
    "longitude": ("lon", "longitude"),
    "y": ("y", "yc", "ny", "nj", "j", "row", "rows", "rlat", "south_north", "northing"),
    "x": ("x", "xc", "nx", "ni", "i", "col", "cols", "columns", "rlon", "west_east", "easting"),
}
STANDARD = {
    "latitude": "latitude",
    "longitude": "longitude",
    "projection_y_coordinate": "y",
    "projection_x_coordinate": "x",
    "grid_latitude": "y",
    "grid_longitude": "x",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """One opened file; a GRIB file of several level types is several sources."""

    path: Path
    data: "xr.Dataset"


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What each dimension of a variable is.

    `time` is the coordinate that holds the times, `time_dim` its dimension (None: a single time).
    `row` and `column` are coordinates, or None where the file has none for `y` or `x`.
    `extra` are dimensions beyond these (levels, members) that have more than one entry.
    """

    time: str
    time_dim: str | None
    y: str
    x: str
    row: str | None
    column: str | None
    extra: tuple[str, ...]


def expand(path: str) -> list[Path]:
    """The files that `path` names: one file, a Zarr folder, a folder of files, or a pattern."""
    given = Path(path).expanduser()
    if is_zarr(given) or given.is_file():
        return [given]
    if given.is_dir():
        found = sorted(p for p in given.iterdir() if p.suffix.lower() in ENDINGS)
        wanted = f"a folder without files that end in {', '.join(ENDINGS)}"
    else:
        # pathlib's own globbing cannot start from an absolute pattern
        found = sorted(map(Path, glob.glob(str(given), recursive=True)))  # noqa: PTH207
        wanted = "no such file, folder or pattern that matches"
    if not found:
        raise S2KDError(f"{path}: {wanted}")
    return found


def open_path(path: Path) -> list[Source]:
    """Open one file or Zarr folder lazily; anything unreadable is an S2KDError that names it."""
    import xarray as xr

    engine = engine_of(path)
    try:
        with warnings.catch_warnings():
            # dates that datetime64 cannot hold become cftime objects, which is what we want
            warnings.simplefilter("ignore")
            if engine == "cfgrib":
                return _open_grib(path)
            if engine == "zarr":
                return _open_zarr(path)
            data = xr.open_dataset(path, engine=engine, cache=False, decode_timedelta=False)
    except S2KDError:
        raise
    except Exception as error:  # each backend raises its own kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        kind = {"h5netcdf": "NetCDF-4", "scipy": "NetCDF-3", "zarr": "Zarr", "cfgrib": "GRIB"}
        cut = "; it is cut short: fetch or copy it again" if "truncated" in reason[0] else ""
        raise S2KDError(f"{path}: cannot be read as {kind[engine]} ({reason[0]}){cut}") from None
    return [Source(path=path, data=data)]


def _open_zarr(path: Path) -> list[Source]:
    """A Zarr store, its fields in order of name: a folder has no order of its own."""
    import xarray as xr

    data = xr.open_dataset(path, engine="zarr", cache=False, decode_cf=False, consolidated=False)
    for name in data.dims:
        # Zarr 2 has a fill value, often 0, for every array, but no coordinate lacks values (CF
        # 2.5.1): read as missing, the first time of "hours since ..." would be none
        if name in data.variables:
            data[name].attrs.pop("_FillValue", None)
    data = xr.decode_cf(data, decode_timedelta=False)
    return [Source(path=path, data=data[sorted(map(str, data.data_vars))])]


def engine_of(path: Path) -> str:
    """The xarray engine that reads `path`, told by its first bytes and not by its name."""
    if is_zarr(path):
        return "zarr"
    if path.is_dir():
        raise S2KDError(f"{path}: a folder that is not a Zarr store")
    with path.open("rb") as file:
        start = file.read(8)
    if start == b"\x89HDF\r\n\x1a\n":
        return "h5netcdf"
    if start[:3] == b"CDF":
        _need("scipy", path, "NetCDF-3", "pip install 's2kd[netcdf3]'")
        return "scipy"
    if start[:4] == b"GRIB":
        _need("cfgrib", path, "GRIB", "pip install 's2kd[grib]'")
        return "cfgrib"
    raise S2KDError(f"{path}: neither NetCDF, Zarr nor GRIB (it starts with {start!r})")


def _need(module: str, path: Path, kind: str, remedy: str) -> None:
    try:
        __import__(module)
    except Exception as error:  # cfgrib raises RuntimeError where the C library is missing
        raise S2KDError(f"{path}: {kind} files need {module} ({error}): {remedy}") from None


def _open_grib(path: Path) -> list[Source]:
    import cfgrib

    opened = cfgrib.open_datasets(str(path), backend_kwargs={"indexpath": "", "errors": "raise"})
    if not opened:
        raise S2KDError(f"{path}: a GRIB file without fields")
    return [Source(path=path, data=data) for data in opened]


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def kind_of(name: str, variable: "xr.Variable | xr.DataArray") -> str | None:
    """`time`, `latitude`, `longitude`, `y` or `x`; None for anything else."""
    if variable.dtype.kind == "M" or _holds_cftime(variable):
        return "time"
    attributes = variable.attrs
    if attributes.get("standard_name") in STANDARD:
        return STANDARD[attributes["standard_name"]]
    units = str(attributes.get("units", "")).lower()
    if units in NORTH or units in EAST:
        return "latitude" if units in NORTH else "longitude"
    if attributes.get("axis") in ("X", "Y") and name.lower() not in NAMES["latitude"]:
        is_longitude = name.lower() in NAMES["longitude"]
        return "longitude" if is_longitude else attributes["axis"].lower()
    return _kind_by_name(name)


def _kind_by_name(name: str) -> str | None:
    return next((kind for kind, names in NAMES.items() if name.lower() in names), None)


def _holds_cftime(variable: "xr.Variable | xr.DataArray") -> bool:
    if variable.dtype != object or variable.ndim > 1 or variable.size == 0:
        return False
    import cftime

    return isinstance(np.ravel(variable.values)[0], cftime.datetime)


def axes_of(source: Source, name: str) -> Axes | None:
    """What the dimensions of variable `name` are; None where it is no field over time."""
    array = source.data[name]
    if array.dtype.kind not in "fiu":
        return None
    found: dict[str, tuple[str, str | None]] = {}
    for dim in array.dims:
        for kind, coordinate in _kinds_of_dim(source.data, str(dim)):
            found.setdefault(kind, (str(dim), coordinate))
    y, x = found.get("latitude") or found.get("y"), found.get("longitude") or found.get("x")
    time = found.get("time") or _single_time(array)
    if y is None or x is None or time is None or y[0] == x[0]:
        return None
    taken = (time[0], y[0], x[0])
    extra = tuple(str(d) for d in array.dims if d not in taken and array.sizes[d] > 1)
    return Axes(
        time=str(time[1]), time_dim=time[0], y=y[0], x=x[0], row=y[1], column=x[1], extra=extra
    )


def _kinds_of_dim(data: "xr.Dataset", dim: str) -> list[tuple[str, str | None]]:
    """What `dim` is by the coordinates along it (valid time first, then its own), or by name."""
    along = [str(n) for n, v in data.variables.items() if v.dims == (dim,)]
    along.sort(key=lambda n: (n != "valid_time", n != dim))
    kinds = [(kind_of(n, data.variables[n]), n) for n in along]
    known: list[tuple[str, str | None]] = [(k, n) for k, n in kinds if k is not None]
    own = _kind_by_name(dim)
    if not known and own is not None:
        return [({"latitude": "y", "longitude": "x"}.get(own, own), None)]
    return known


def _single_time(array: "xr.DataArray") -> tuple[None, str] | None:
    names = [str(n) for n, c in array.coords.items() if c.ndim == 0 and kind_of(str(n), c)]
    names = [n for n in names if kind_of(n, array.coords[n]) == "time"]
    names.sort(key=lambda n: (n != "valid_time", n != "time"))
    return (None, names[0]) if names else None


def gridded(source: Source) -> dict[str, Axes]:
    """The fields of `source` by name, with their axes."""
    found = {str(name): axes_of(source, str(name)) for name in source.data.data_vars}
    return {name: axes for name, axes in found.items() if axes is not None}


def why_not_gridded(source: Source) -> str:
    """One sentence on a file in which no variable is a field over time."""
    data = source.data
    for name, variable in data.variables.items():
        is_time = variable.attrs.get("axis") == "T" or "time" in (
            str(name).lower(),
            variable.attrs.get("standard_name"),
        )
        if is_time and kind_of(str(name), variable) is None and variable.ndim <= 1:
            if " since " in str(variable.attrs.get("units")):
                return (
                    f"{source.path}: {str(name)!r} holds times that are not decoded; open it with "
                    "decode_times=True"
                )
            return (
                f"{source.path}: {str(name)!r} does not say what it counts (units "
                f"{variable.attrs.get('units')!r}); give it units such as 'hours since 2000-01-01'"
            )
    held = ", ".join(f"{n} ({', '.join(map(str, v.dims))})" for n, v in data.data_vars.items())
    return (
        f"{source.path}: no variable has the axes time, latitude (or y) and longitude (or x); "
        f"it holds {held[:300] or 'no variables'}"
    )


def times_of(source: Source, axes: Axes) -> np.ndarray:
    """(time,) datetime64[ns], or cftime objects of another calendar."""
    values = np.atleast_1d(source.data[axes.time].values)
    return values.astype("datetime64[ns]") if values.dtype.kind == "M" else values
