"""Horizontal grids of files: rows turned north first, columns west first, and the way back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from s2kd.core.types import S2KDError

AXIS_ATTRIBUTES = ("long_name", "standard_name", "units", "axis")


@dataclass(frozen=True, kw_only=True, eq=False)
class FileAxis:
    """Rows or columns as a file has them, so that written forecasts align with it.

    `name` and `values` are those of the coordinate in its own type (`values` None: there is
    none). `order` holds, for every row (column) of the file, its number in the grid.
    """

    dimension: str
    name: str
    values: np.ndarray | None
    attributes: dict[str, str]
    order: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """Which rows and columns of a file make the grid, in the grid's order.

    `latitude` descends and `longitude` ascends (past 360 across the file's seam); both are None
    on a grid that is not geographic. `row_index` and `column_index` are numbers in the file.
    """

    latitude: np.ndarray | None
    longitude: np.ndarray | None
    wraps: bool
    row_index: np.ndarray
    column_index: np.ndarray
    rows: FileAxis
    columns: FileAxis

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the grid."""
        return len(self.row_index), len(self.column_index)

    def difference(self, other: "Plane") -> str:
        """What differs from `other`, or "" where both are the same grid."""
        if self.shape != other.shape:
            height, width = self.shape
            return f"{height}×{width} cells, not {other.shape[0]}×{other.shape[1]} (rows × columns)"
        for name in ("latitude", "longitude"):
            text = coordinate_difference(name, getattr(self, name), getattr(other, name))
            if text:
                return text
        return ""


def coordinate_difference(
    name: str,
    first: Sequence[float] | np.ndarray | None,
    second: Sequence[float] | np.ndarray | None,
) -> str:
    """How two coordinates of equal length differ; "" where they agree to 0.001 degrees."""
    if first is None or second is None:
        if first is second:
            return ""
        return f"no {name}s, some expected" if first is None else f"{name}s, none expected"
    a, b = np.asarray(first), np.asarray(second)
    # 359.5 and -0.5 are the same meridian
    apart = np.abs((a - b + 180) % 360 - 180) if name == "longitude" else np.abs(a - b)
    return (
        "" if apart.max() <= 1e-3 else f"{name}s {a[0]:g} to {a[-1]:g}, not {b[0]:g} to {b[-1]:g}"
    )


def geographic_plane(
    rows: FileAxis,
    columns: FileAxis,
    *,
    label: str,
    degrees: tuple[np.ndarray, np.ndarray] | None = None,
) -> Plane:
    """The plane of a regular latitude-longitude grid; S2KDError names `label`.

    `degrees` are latitudes of the rows and longitudes of the columns, where the axes hold none.
    """
    if degrees is None:
        rows, columns = in_degrees(rows, columns, label=label)
    else:
        check_degrees(label, *degrees, sure=True)
    latitude, longitude = (_rounded(v) for v in degrees or (rows.values, columns.values))
    row_index = np.arange(len(latitude))
    if latitude[0] < latitude[-1]:
        row_index = row_index[::-1]
    latitude = latitude[row_index]
    if np.any(np.diff(latitude) >= 0):
        raise S2KDError(f"{label}: {rows.name!r} neither ascends nor descends throughout")
    longitude, column_index = _ascending(longitude, f"{label}: {columns.name!r}")
    if len(longitude) > 2 and abs(longitude[-1] - longitude[0] - 360) < 1e-3:
        # 0 and 360 degrees are one column, stored twice
        longitude, column_index = longitude[:-1], column_index[:-1]
    return _plane(rows, columns, row_index, column_index, latitude, longitude)


def in_degrees(rows: FileAxis, columns: FileAxis, *, label: str) -> tuple[FileAxis, FileAxis]:
    """Latitudes and longitudes in degrees, from radians where these are their units.

    Raises S2KDError where the values are no degrees, or could be radians and do not say.
    """
    axes = []
    for axis in (rows, columns):
        unit = axis.attributes.get("units", "").lower()
        if unit.startswith("rad"):
            values = np.degrees(np.asarray(axis.values, dtype=np.float64))
            axis = replace(axis, values=values, attributes={**axis.attributes, "units": "degrees"})
        axes.append(axis)
    check_degrees(
        label,
        *(np.asarray(axis.values, dtype=np.float64) for axis in axes),
        sure=any("units" in axis.attributes for axis in axes),
    )
    return axes[0], axes[1]


def check_degrees(
    label: str, latitude: np.ndarray, longitude: np.ndarray, *, sure: bool = False
) -> None:
    """Refuse coordinates that cannot be degrees, or (unless `sure`) could as well be radians."""
    for name, values, largest in (("latitude", latitude, 90.0), ("longitude", longitude, 720.0)):
        if np.abs(values).max() > largest + 0.01:
            raise S2KDError(
                f"{label}: {name}s from {values[0]:g} to {values[-1]:g} are no degrees; give the "
                "coordinate its own units, such as 'm' or 'km', or degrees"
            )
    circle = np.ptp(longitude) * len(longitude) / max(1, len(longitude) - 1)
    radians = np.abs(latitude).max() <= np.pi / 2 and np.abs(longitude).max() <= 2 * np.pi
    if radians and (not sure or abs(circle - 2 * np.pi) < 1e-3):
        raise S2KDError(
            f"{label}: latitudes from {latitude[0]:g} to {latitude[-1]:g} and longitudes from "
            f"{longitude[0]:g} to {longitude[-1]:g} may be radians; give them units, 'radians' or "
            "'degrees_north' and 'degrees_east'"
        )


def projected_plane(
    rows: FileAxis, columns: FileAxis, *, south_first: bool, east_first: bool
) -> Plane:
    """The plane of a grid without latitudes and longitudes of its rows and columns."""
    row_index, column_index = np.arange(len(rows.order)), np.arange(len(columns.order))
    row_index = row_index[::-1] if south_first else row_index
    column_index = column_index[::-1] if east_first else column_index
    return _plane(rows, columns, row_index, column_index)


def _plane(
    rows: FileAxis,
    columns: FileAxis,
    row_index: np.ndarray,
    column_index: np.ndarray,
    latitude: np.ndarray | None = None,
    longitude: np.ndarray | None = None,
) -> Plane:
    return Plane(
        latitude=latitude,
        longitude=longitude,
        wraps=longitude is not None and _is_global(longitude),
        row_index=row_index,
        column_index=column_index,
        rows=replace(rows, order=_positions(row_index, len(rows.order))),
        columns=replace(columns, order=_positions(column_index, len(columns.order))),
    )


def _positions(index: np.ndarray, size: int) -> np.ndarray:
    """The number in the grid of each of `size` places in the file (0 for a repeated one)."""
    positions = np.zeros(size, dtype=np.int64)
    positions[index] = np.arange(len(index))
    return positions


def _rounded(values: np.ndarray | None) -> np.ndarray:
    """A coordinate in float64, rounded to the digits that its own type holds."""
    values = np.asarray(values)
    degrees = values.astype(np.float64)
    return np.round(degrees, 5) if values.dtype.itemsize <= 4 else degrees


def _ascending(longitude: np.ndarray, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Ascending longitudes without a jump at the seam, and their columns in the file."""
    unwrapped = np.unwrap(longitude, period=360)
    index = np.arange(len(longitude))
    if len(longitude) > 1 and unwrapped[0] > unwrapped[-1]:
        index, unwrapped = index[::-1], unwrapped[::-1]
        unwrapped = unwrapped - 360 * np.round((unwrapped[0] - np.min(longitude)) / 360)
    if np.any(np.diff(unwrapped) <= 0) or unwrapped[-1] - unwrapped[0] > 360 + 1e-3:
        raise S2KDError(f"{label} does not run once round in order")
    return unwrapped, index


def _is_global(longitude: np.ndarray) -> bool:
    """Whether the column after the last is the first again."""
    steps = np.diff(longitude)
    if len(steps) == 0 or steps.max() - steps.min() > 0.01 * steps.mean():
        return False
    return bool(abs(len(longitude) * steps.mean() - 360) < 0.5 * steps.mean())
