"""The horizontal grid of a field: turned so that row 0 is north and column 0 west."""

from dataclasses import dataclass, replace

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data._cf import Axes, Source, kind_of

KEPT_ATTRIBUTES = ("long_name", "standard_name", "units", "axis")


@dataclass(frozen=True, kw_only=True, eq=False)
class FileAxis:
    """Rows or columns as a file has them: what is written lines up with it.

    `name` and `values` are those of its coordinate, in its own type (None: it has none); `order`
    holds for every row (column) of the file the grid's.
    """

    dimension: str
    name: str
    values: np.ndarray | None
    attributes: dict[str, str]
    order: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Plane:
    """Rows and columns as they lie after turning, and how to turn what is read.

    `latitude` descends and `longitude` ascends (past 360 where the file crosses its seam); both
    are None on a grid that is not geographic. `width` is how many columns are kept: a file that
    repeats its first at the end (0 and 360 degrees) loses the repeat. On a grid that wraps, `shift`
    is how many columns are moved from the west end to the east. `rows` and `columns` are the
    file's own.
    """

    height: int
    width: int
    latitude: tuple[float, ...] | None
    longitude: tuple[float, ...] | None
    wraps: bool
    flip_rows: bool
    flip_columns: bool
    rows: FileAxis
    columns: FileAxis
    shift: int = 0

    def turn(self, values: np.ndarray) -> np.ndarray:
        """(..., y, x) as the file has it to (..., height, width)."""
        values = values[..., ::-1, :] if self.flip_rows else values
        values = values[..., ::-1] if self.flip_columns else values
        values = values[..., : self.width]
        return np.roll(values, -self.shift, axis=-1) if self.shift else values

    def beginning_at(self, longitude: float) -> "Plane":
        """The same cells with the column at `longitude` first; itself where nothing has to move."""
        if not self.wraps or self.longitude is None:
            return self
        own = np.array(self.longitude)
        shift = int(np.abs((own - longitude + 180) % 360 - 180).argmin())
        if shift == 0:
            return self
        moved = np.concatenate([own[shift:], own[:shift] + 360])
        order = (self.columns.order - shift) % self.width
        return replace(
            self,
            longitude=tuple(map(float, moved)),
            columns=replace(self.columns, order=order),
            shift=(self.shift + shift) % self.width,
        )

    def differs(self, other: "Plane") -> str:
        """What differs from `other`, in words; empty where both are the same grid."""
        if (self.height, self.width) != (other.height, other.width):
            return (
                f"{self.height}×{self.width} cells, not {other.height}×{other.width} "
                "(rows × columns)"
            )
        for what in ("latitude", "longitude"):
            words = differing(what, getattr(self, what), getattr(other, what))
            if words:
                return words
        return ""


def differing(what: str, one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> str:
    """How two coordinates of equal length differ; empty where they agree to 0.001 degrees."""
    if one is None or other is None:
        if one is other:
            return ""
        return (
            f"{'no ' if one is None else ''}{what}s, {'none' if other is None else 'some'} expected"
        )
    a, b = np.asarray(one), np.asarray(other)
    # 359.5 and -0.5 are the same meridian
    apart = np.abs((a - b + 180) % 360 - 180) if what == "longitude" else np.abs(a - b)
    if apart.max() <= 1e-3:
        return ""
    return f"{what}s {a[0]:g} to {a[-1]:g}, not {b[0]:g} to {b[-1]:g}"


def plane_of(source: Source, name: str, axes: Axes) -> Plane:
    """The grid of variable `name`."""
    array = source.data[name]
    height, width = array.sizes[axes.y], array.sizes[axes.x]
    where = f"{source.path}: {name!r}"
    rows = _values(source, axes.row)
    columns = _values(source, axes.column)
    geographic = _is(source, axes.row, "latitude") and _is(source, axes.column, "longitude")
    if not geographic:
        flip_rows = _south_first(source, axes, rows)
        flip_columns = columns is not None and len(columns) > 1 and bool(columns[0] > columns[-1])
        return Plane(
            height=height,
            width=width,
            latitude=None,
            longitude=None,
            wraps=False,
            flip_rows=flip_rows,
            flip_columns=flip_columns,
            rows=_own(source, axes.y, axes.row, flip_rows, height),
            columns=_own(source, axes.x, axes.column, flip_columns, width),
        )
    flip_rows = bool(rows[0] < rows[-1])
    latitude = rows[::-1] if flip_rows else rows
    if np.any(np.diff(latitude) >= 0):
        raise S2KDError(f"{where}: {axes.row!r} neither ascends nor descends throughout")
    longitude, flip_columns = _ascending(columns, where, str(axes.column))
    if len(longitude) > 2 and abs(longitude[-1] - longitude[0] - 360) < 1e-3:
        longitude = longitude[:-1]
    return Plane(
        height=height,
        width=len(longitude),
        latitude=tuple(map(float, latitude)),
        longitude=tuple(map(float, longitude)),
        wraps=_goes_round(longitude),
        flip_rows=flip_rows,
        flip_columns=flip_columns,
        rows=_own(source, axes.y, axes.row, flip_rows, height),
        columns=_own(source, axes.x, axes.column, flip_columns, len(longitude)),
    )


def _own(source: Source, dimension: str, name: str | None, flip: bool, kept: int) -> FileAxis:
    """An axis as it lies in the file; those beyond `kept` begin again at the first."""
    number = np.arange(source.data.sizes[dimension])
    coordinate = None if name is None else source.data[name]
    told = coordinate is not None and coordinate.dtype.kind in "fiu"
    attributes = coordinate.attrs if told else {}
    return FileAxis(
        dimension=dimension,
        name=name if told else dimension,
        values=coordinate.values if told else None,
        attributes={key: str(attributes[key]) for key in KEPT_ATTRIBUTES if key in attributes},
        order=(number[::-1] if flip else number) % kept,
    )


def _values(source: Source, name: str | None) -> np.ndarray | None:
    """A coordinate in float64, rounded to what its own type can tell."""
    if name is None or source.data[name].dtype.kind not in "fiu":
        return None
    values = source.data[name].values
    wide = values.astype(np.float64)
    return np.round(wide, 5) if values.dtype.itemsize <= 4 else wide


def _is(source: Source, name: str | None, kind: str) -> bool:
    return name is not None and kind_of(name, source.data[name]) == kind


def _ascending(columns: np.ndarray, where: str, name: str) -> tuple[np.ndarray, bool]:
    """Longitudes without a jump at the seam, ascending; whether they had to be turned."""
    unwrapped = np.unwrap(columns, period=360)
    flip = len(columns) > 1 and bool(unwrapped[0] > unwrapped[-1])
    turned = unwrapped[::-1] if flip else unwrapped
    turned = turned - 360 * np.round((turned[0] - np.min(columns)) / 360) if flip else turned
    if np.any(np.diff(turned) <= 0) or turned[-1] - turned[0] > 360 + 1e-3:
        raise S2KDError(f"{where}: {name!r} does not run once round in order")
    return turned, flip


def _goes_round(longitude: np.ndarray) -> bool:
    """Whether the column after the last one is the first again."""
    steps = np.diff(longitude)
    if len(steps) == 0 or steps.max() - steps.min() > 0.01 * steps.mean():
        return False
    return bool(abs(len(longitude) * steps.mean() - 360) < 0.5 * steps.mean())


def _south_first(source: Source, axes: Axes, rows: np.ndarray | None) -> bool:
    """Whether row 0 is the southern (lower) one on a grid of its own projection.

    A two-dimensional latitude decides; else a projection's y, which counts upwards. A bare row
    number is an image's: it counts downwards already.
    """
    for name, variable in source.data.variables.items():
        if variable.dims == (axes.y, axes.x) and kind_of(str(name), variable) == "latitude":
            means = np.nanmean(variable.values[[0, -1]].astype(np.float64), axis=1)
            return bool(means[0] < means[1])
    if axes.row is None or rows is None:
        return False
    attributes = source.data[axes.row].attrs
    upwards = attributes.get("standard_name") in ("projection_y_coordinate", "grid_latitude")
    upwards = upwards or attributes.get("units") in ("m", "km", "metre", "meter")
    return bool(upwards and rows[0] < rows[-1])
