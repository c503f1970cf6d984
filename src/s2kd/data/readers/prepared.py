"""Reader of folders that `s2kd data prepare` wrote."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.data.dataset import Frames
from s2kd.data.frames import block_length
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import FrameSource
from s2kd.data.readers._record import per_frame, record
from s2kd.data.store import open_store

if TYPE_CHECKING:
    import xarray as xr


class _Frames(FrameSource):
    """Stored frames in physical units, each block checked when it is first read."""

    def __init__(self, frames: Frames) -> None:
        self._frames, self.shape, self.dtype = frames, frames.shape, np.dtype(np.float32)

    def read(self, first: int, stop: int) -> np.ndarray:
        """Frames `first` up to `stop`."""
        return self._frames[first:stop]


@readers.register("prepared")
def prepared(*, path: str | Path) -> "xr.Dataset":
    """A dataset as `s2kd data prepare` wrote it: the same frames, times, splits and words.

    Raises `S2KDError` for a folder that is not finished, that another version wrote, or that was
    altered since.
    """
    import dask.array as da

    folder = Path(path).expanduser()
    dataset = open_store(folder, memory_gb=0.0)
    grid = dataset.grid
    chunks = (block_length(dataset.frames.shape), -1, -1, -1)
    source = _Frames(dataset.frames)
    frames = da.from_array(source, chunks=chunks, lock=True, name=False, fancy=False)
    runs = np.full(len(dataset.times), "", dtype=object)
    labels = runs.copy()
    for split, stretches in dataset.splits.items():
        for stretch in stretches:
            labels[stretch.first : stretch.stop] = split
            runs[stretch.first : stretch.stop] = stretch.name
    degrees = {
        name: (dim, np.array(values))
        for name, dim, values in (
            ("latitude", "row", grid.latitude),
            ("longitude", "column", grid.longitude),
        )
        if values is not None
    }
    return record(
        frames,
        channels=grid.channels,
        units=grid.units,
        times=dataset.times,
        coords={
            "run": ("time", runs) if any(runs) else None,
            "split": ("time", labels),
            "context": None if dataset.context is None else per_frame(dataset.context),
            "mask": None if grid.mask is None else (("row", "column"), grid.exists),
            **degrees,
        },
        name=dataset.name,
        domain=dataset.domain,
        source=dataset.source,
        local_time=int(dataset.local_time),
        step_seconds=grid.step_seconds,
        wraps=int(grid.wraps),
        simultaneous=int(dataset.simultaneous),
        window=dataset.window,
        notices=list(dataset.notices),
    )
