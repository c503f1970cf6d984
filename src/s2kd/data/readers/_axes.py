"""Kinds of coordinates by attributes, units and names; forecasts laid out by valid time."""

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
NAMES = {
    "latitude": ("lat", "latitude"),
    "longitude": ("lon", "longitude"),
    "y": ("y", "yc", "ny", "nj", "j", "row", "rows", "rlat", "south_north", "northing"),
    "x": ("x", "xc", "nx", "ni", "i", "col", "cols", "column", "columns", "rlon", "west_east",
          "easting"),
}  # fmt: skip
STANDARD_NAMES = {
    "latitude": "latitude", "projection_y_coordinate": "y", "grid_latitude": "y",
    "longitude": "longitude", "projection_x_coordinate": "x", "grid_longitude": "x",
}  # fmt: skip
LENGTHS = ("m", "km", "meter", "metre", "kilometer", "kilometre")
"""Units of coordinates that are no degrees, whatever they are called."""
AXIS = "valid_time"


def kind_of(name: str, variable: "xr.Variable | xr.DataArray") -> str | None:
    """`time`, `latitude`, `longitude`, `y` or `x`; None for anything else."""
    if variable.dtype.kind == "M" or _holds_cftime(variable):
        return "time"
    attributes = variable.attrs
    units = str(attributes.get("units", "")).lower()
    if units.rstrip("s") in LENGTHS and kind_by_name(name) in ("latitude", "longitude"):
        return "y" if kind_by_name(name) == "latitude" else "x"
    if attributes.get("standard_name") in STANDARD_NAMES:
        return STANDARD_NAMES[attributes["standard_name"]]
    if units in NORTH or units in EAST:
        return "latitude" if units in NORTH else "longitude"
    if attributes.get("axis") in ("X", "Y") and name.lower() not in NAMES["latitude"]:
        is_longitude = name.lower() in NAMES["longitude"]
        return "longitude" if is_longitude else attributes["axis"].lower()
    return kind_by_name(name)


def kind_by_name(name: str) -> str | None:
    """The kind that a name alone stands for."""
    return next((kind for kind, names in NAMES.items() if name.lower() in names), None)


def _holds_cftime(variable: "xr.Variable | xr.DataArray") -> bool:
    if variable.dtype != object or variable.ndim > 2:
        return False
    import cftime

    dates = (date for date in np.ravel(variable.values) if date is not None)
    return isinstance(next(dates, None), cftime.datetime)


def by_valid_time(file: "xr.Dataset", name: str) -> tuple["xr.Dataset", tuple[str, ...]]:
    """The dataset with one axis of valid times where `name` has runs and lead times, and notices.

    A time that several runs reach is taken from the shortest lead. Frames without a value before
    the first and after the last that has some are left out.
    """
    import xarray as xr

    flat = [c for c in file[name].coords.values() if c.ndim == 2 and min(c.shape) > 1]
    valid = next((c for c in flat if kind_of("", c) == "time"), None)
    if valid is None:
        return file, ()
    # runs have dates of their own, lead times have not
    lead, run = sorted(valid.dims, key=lambda d: d in file and kind_of(str(d), file[d]) == "time")
    times, first = np.unique(valid.transpose(lead, run).values, return_index=True)
    numbers = np.unravel_index(first, (valid.sizes[lead], valid.sizes[run]))
    points = {lead: xr.DataArray(numbers[0], dims=AXIS), run: xr.DataArray(numbers[1], dims=AXIS)}
    file = file.drop_vars({valid.name, lead, run} & file.coords.keys())
    file = file.isel(points).assign_coords({AXIS: (AXIS, times)})

    def empty(numbers: Iterable[int]) -> int:
        frames = (file[name].isel({AXIS: number}) for number in numbers)
        return sum(1 for _ in itertools.takewhile(lambda f: not f.notnull().any(), frames))

    inside = slice(empty(range(len(times))), len(times) - empty(range(-1, -len(times), -1)))
    notice = f"runs and lead times ({run} × {lead}) are read as one series of valid times"
    if valid.size > len(times):
        notice += f"; {valid.size - len(times)} frames that a later run holds too are left out"
    return file.isel({AXIS: inside}), (notice,)
