"""Frames of a reader's dataset, read in blocks with gaps filled, into memory."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from s2kd.core.errors import first_line
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Frames
from s2kd.data.gaps import GapFilter

if TYPE_CHECKING:
    import xarray as xr

BLOCK_BYTES = 2**26


class RecordFrames:
    """Frames of a reader's dataset, read by slice: (time, channel, height, width) float32.

    Values that the attribute `marks` lists for a channel are missing ones.
    """

    def __init__(self, record: "xr.Dataset", label: str) -> None:
        self.record, self.label = record, label
        sizes = record.sizes
        self.shape = (sizes["time"], len(record.data_vars), sizes["row"], sizes["column"])
        marks = record.attrs.get("marks", {})
        self.marks = [marks.get(str(name), ()) for name in record.data_vars]

    def __getitem__(self, frames: slice) -> Float[np.ndarray, "time channel height width"]:
        piece = self.record.isel(time=frames)
        try:
            loaded = piece.drop_vars(piece.coords).compute()
        except Exception as error:  # every format and codec raises its own types
            times = piece.time.values
            raise S2KDError(
                f"{self.label}: cannot be read between {str(times[0])[:19]} and "
                f"{str(times[-1])[:19]} ({first_line(error)})"
            ) from None
        shape = (loaded.sizes["time"], *self.shape[1:])
        values = np.empty(shape, dtype=np.float32)
        for channel, variable in enumerate(loaded.data_vars.values()):
            values[:, channel] = variable.transpose("time", "row", "column").values
            for mark in self.marks[channel]:
                values[:, channel][values[:, channel] == np.float32(mark)] = np.nan
        return values


def block_length(shape: Sequence[int]) -> int:
    """The number of float32 frames in about `BLOCK_BYTES`."""
    return max(1, BLOCK_BYTES // (4 * int(np.prod(shape[1:]))))


def block_edges(frames: Frames) -> list[int]:
    """Edges of blocks of about `BLOCK_BYTES`, which split no stored chunk."""
    count = frames.shape[0]
    length = block_length(frames.shape)
    chunks: Sequence[int] = ()
    if isinstance(frames, RecordFrames):
        chunks = next(iter(frames.record.data_vars.values())).chunksizes.get("time", ())
    ends = [int(end) for end in np.cumsum(chunks)] or [*range(length, count, length), count]
    edges = [0]
    for begin, end in itertools.pairwise([0, *ends]):
        if end - edges[-1] > length and begin > edges[-1]:
            edges.append(begin)
    return [*edges, count]


def copied_to_memory(dataset: Dataset, gaps: GapFilter) -> Dataset:
    """The dataset with all frames as one array, gaps filled."""
    values = np.empty(dataset.frames.shape, dtype=np.float32)
    edges = block_edges(dataset.frames)
    for first, stop in itertools.pairwise(edges):
        values[first:stop] = gaps.filled(dataset.frames[first:stop])
    grid = masked(dataset.grid, gaps.existing())
    return replace(dataset, frames=values, grid=grid, notices=gaps.notices(dataset.notices))


def masked(grid: GridSpec, exists: Bool[np.ndarray, "height width"] | None) -> GridSpec:
    """The grid with only the cells that exist; None: all."""
    if exists is None:
        return replace(grid, mask=None)
    return replace(grid, mask=tuple(tuple(map(bool, row)) for row in exists))
