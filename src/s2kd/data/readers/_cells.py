"""Two-dimensional latitudes and longitudes: rows and columns of any name, and their order."""

import re
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from s2kd.data.readers._axes import kind_of

if TYPE_CHECKING:
    import xarray as xr

TOLERANCE = 1e-3
"""Degrees by which latitudes of one row, and longitudes of one column, may differ."""
NAME = re.compile(r"(?:.*_)?[a-z]{0,3}(?:(lat|latitude)|(lon|long|longitude))(?:_.*)?")


def with_still_cells(file: "xr.Dataset") -> "xr.Dataset":
    """With 2-D latitudes and longitudes in memory; those along time too (WRF), where they stay."""
    moving = []
    dated = {v.dims for name, v in file.variables.items() if kind_of(str(name), v) == "time"}
    for name, variable in file.variables.items():
        by_time = variable.ndim == 3 and variable.dims[:1] in dated
        if not (by_time or variable.ndim == 2) or kind_of_cells(str(name), variable) is None:
            continue
        cells = variable[0] if by_time else variable
        later = [variable[len(variable) // 2], variable[-1]] if by_time else []
        if all(np.array_equal(cells.values, v.values, equal_nan=True) for v in later):
            file = file.assign_coords({name: cells.load()})
        else:
            moving.append(str(name))
    notice = (f"{', '.join(moving)} move in time, so cells have no fixed places",) * bool(moving)
    return file.assign_attrs(notices=(*file.attrs.get("notices", ()), *notice))


def kind_of_cells(name: str, variable: "xr.Variable") -> str | None:
    """`latitude` or `longitude`; None for anything else."""
    kind = kind_of(name, variable)
    match = NAME.fullmatch(name.lower())
    degrees = str(variable.attrs.get("units", "")).lower() in ("", "degrees", "degree", "deg")
    if kind is None and degrees and match and variable.dtype.kind == "f" and variable.ndim == 2:
        return "latitude" if match[1] else "longitude"
    return kind if kind in ("latitude", "longitude") else None


def positions_of_cells(file: "xr.Dataset", array: "xr.DataArray") -> "xr.Dataset | None":
    """`latitude`, and `longitude` if there is one, (row, column) of a field; None: it has none.

    Those that the field's attribute `coordinates` names come first: a grid may have others, of its
    corners. Rows are the dimension along which latitude changes most.
    """
    import xarray as xr

    named = str(array.encoding.get("coordinates", "")).split()
    planes: dict[frozenset, dict[str, xr.Variable]] = {}
    for name in sorted(map(str, file.variables), key=lambda name: name not in named):
        variable = file.variables[name]
        kind = kind_of_cells(name, variable) if variable.ndim == 2 else None
        if kind and set(variable.dims) <= set(array.dims) and min(variable.shape) > 1:
            if str(variable.attrs.get("units", "")).lower().startswith("rad"):
                variable = variable * (180 / np.pi)
            planes.setdefault(frozenset(variable.dims), {}).setdefault(kind, variable)
    plane = max(planes.values(), key=len, default={})
    if "latitude" not in plane:
        return None
    cells = xr.Dataset(plane).transpose(*plane["latitude"].dims)
    along = [np.nanmean(np.abs(_steps(cells["latitude"], axis))) for axis in (0, 1)]
    return cells if along[0] >= along[1] else cells.transpose(*reversed(plane["latitude"].dims))


def regular_degrees(cells: "xr.Dataset") -> tuple[np.ndarray, np.ndarray] | None:
    """Latitudes of rows and longitudes of columns, where all their cells share them; else None."""
    degrees = []
    if "longitude" not in cells:
        return None
    for values, axis in ((cells["latitude"].values, 1), (cells["longitude"].values, 0)):
        first = np.take(values, [0], axis)
        if not (np.abs(_wrapped(values - first)) <= TOLERANCE).all():
            return None
        steps = _wrapped(np.diff(first.ravel()))
        if not ((steps > 0).all() or (steps < 0).all()):
            return None
        degrees.append(first.ravel())
    return degrees[0], degrees[1]


def turned(cells: "xr.Dataset") -> tuple[bool, bool]:
    """Whether row 0 is the southernmost, and whether column 0 is the easternmost."""
    east = -1 if "longitude" not in cells else -np.nanmean(_steps(cells["longitude"], 1))
    return bool(np.nanmean(_steps(cells["latitude"], 0)) > 0), bool(east > 0)


def _steps(degrees: "xr.DataArray", axis: int) -> Float[np.ndarray, "_ _"]:
    return _wrapped(np.diff(degrees.values.astype(np.float64), axis=axis))


def _wrapped(degrees: np.ndarray) -> np.ndarray:
    """Differences of degrees the short way round."""
    return (degrees + 180) % 360 - 180
