"""Several variables of one or many files as one series of frames, read block by block."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data._cf import Axes, Source, kind_of
from s2kd.data._plane import Plane
from s2kd.data._record import shown

if TYPE_CHECKING:
    import xarray as xr

BLOCK_BYTES = 2**26


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """The part of one variable that lies in one file: frames `first` up to `stop` of the series.

    `levels` are the entries of `level_dim` that are wanted, in order.
    """

    source: Source
    variable: str
    axes: Axes
    plane: Plane
    times: np.ndarray
    level_dim: str | None
    levels: tuple[int, ...]
    first: int = 0

    @property
    def stop(self) -> int:
        """One past the last frame."""
        return self.first + len(self.times)

    def read(self, local: np.ndarray) -> np.ndarray:
        """(frame, level, height, width) float32 of these frames, counted from `first`."""
        axes, array = self.axes, self.source.data[self.variable]
        picks: dict[str, object] = {} if axes.time_dim is None else {axes.time_dim: _slice(local)}
        order = [] if axes.time_dim is None else [axes.time_dim]
        if self.level_dim is not None:
            picks[self.level_dim] = list(self.levels)
            order.append(self.level_dim)
        order += [axes.y, axes.x]
        picks |= {str(d): 0 for d in array.dims if d not in order}
        try:
            values = array.isel(picks).transpose(*order).values
        except Exception as error:  # every codec raises its own kinds
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise S2KDError(
                f"{self.source.path}: {self.variable!r} cannot be read between "
                f"{shown(self.times[local[0]])} and {shown(self.times[local[-1]])} ({reason[0]})"
            ) from None
        values = values[None] if axes.time_dim is None else values
        values = values[:, None] if self.level_dim is None else values
        return np.asarray(self.plane.turn(values), dtype=np.float32)

    @property
    def time_chunk(self) -> int:
        """How many frames are stored together; 1 where the file does not say."""
        array = self.source.data[self.variable]
        sizes = array.encoding.get("chunksizes") or array.encoding.get("chunks")
        if not sizes or self.axes.time_dim is None or len(sizes) != array.ndim:
            return 1
        return int(sizes[array.dims.index(self.axes.time_dim)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """One variable over all files; its levels are the channels at `positions`."""

    positions: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """Channels that share times and grid, not yet read."""

    path: str
    files: tuple[Path, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    attributes: dict[str, dict[str, str]]
    plane: Plane
    times: np.ndarray
    readers: tuple[Reader, ...]
    source: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(time, channel, height, width)."""
        return (len(self.times), len(self.channels), self.plane.height, self.plane.width)

    def read(self, index: np.ndarray) -> np.ndarray:
        """(frame, channel, height, width) float32 of these (ascending) frames; gaps are NaN."""
        out = np.empty((len(index), *self.shape[1:]), dtype=np.float32)
        for reader in self.readers:
            for piece in reader.pieces:
                a, b = np.searchsorted(index, (piece.first, piece.stop))
                if b > a:
                    # one channel after the other: a fancy index would copy once more
                    values = piece.read(index[a:b] - piece.first)
                    for level, position in enumerate(reader.positions):
                        out[a:b, position] = values[:, level]
        return out

    def places(self) -> "xr.Dataset":
        """What else says where the cells lie, in the file's own order, for a forecast to repeat.

        Two-dimensional coordinates and latitudes and longitudes, and the grid mapping, which is
        also the attribute `grid_mapping` of what is returned (CF 5.6).
        """
        import xarray as xr

        piece = self.readers[0].pieces[0]
        data, axes = piece.source.data, piece.axes
        found = {}
        for name, variable in data.variables.items():
            flat = set(variable.dims) == {axes.y, axes.x} and variable.dtype.kind in "fiu"
            if flat and (name in data.coords or kind_of(str(name), variable)):
                # bounds would be a further variable
                told = {key: text for key, text in variable.attrs.items() if key != "bounds"}
                found[name] = (variable.dims, variable.values, told, {"_FillValue": None})
        field = data[piece.variable]
        said = str(field.attrs.get("grid_mapping") or field.encoding.get("grid_mapping", ""))
        # "crs" or "crs: x y": some names are coordinates
        mappings = [name for name in said.replace(":", " ").split() if _is_mapping(data, name)]
        scalars = {name: ((), np.int32(0), data[name].attrs) for name in mappings}
        return xr.Dataset(scalars, found, {"grid_mapping": said} if mappings else {})

    def beginning_at(self, longitude: float) -> "Series":
        """The same with the column at `longitude` first, where the grid goes round the Earth."""
        plane = self.plane.beginning_at(longitude)
        if plane is self.plane:
            return self
        readers = tuple(
            replace(
                reader,
                pieces=tuple(
                    replace(piece, plane=piece.plane.beginning_at(longitude))
                    for piece in reader.pieces
                ),
            )
            for reader in self.readers
        )
        return replace(self, plane=plane, readers=readers)

    def blocks(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """`read` in blocks of bounded size, cut where files end and along stored chunks."""
        size = max(1, BLOCK_BYTES // (4 * int(np.prod(self.shape[1:]))))
        for piece in self.readers[0].pieces:
            inside = index[np.searchsorted(index, piece.first) : np.searchsorted(index, piece.stop)]
            for part in _cut(inside, piece.first, size, piece.time_chunk):
                yield self.read(part)


def _is_mapping(data: "xr.Dataset", name: str) -> bool:
    return name in data.variables and "grid_mapping_name" in data[name].attrs


def _cut(index: np.ndarray, first: int, size: int, chunk: int) -> Iterator[np.ndarray]:
    """Parts of `index`, at most `size` frames each, that split no stored chunk without need."""
    # up to four times the bound is better than unpacking a chunk again and again
    fits = size // chunk * chunk or chunk
    reach = fits if fits <= 4 * size else size
    begin = 0
    while begin < len(index):
        bound = first + ((int(index[begin]) - first) // reach + 1) * reach
        end = int(np.searchsorted(index, bound))
        yield index[begin:end]
        begin = end


def _slice(local: np.ndarray) -> slice | np.ndarray:
    """Evenly spaced numbers as a slice, which every backend reads faster."""
    steps = np.diff(local)
    if len(local) == 1 or (steps == steps[0]).all():
        return slice(int(local[0]), int(local[-1]) + 1, int(steps[0]) if len(steps) else 1)
    return local
