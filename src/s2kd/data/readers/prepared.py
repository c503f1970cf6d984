"""Reader of folders that `s2kd data prepare` wrote."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.data.readers import readers
from s2kd.data.readers._array_files import lazy_array
from s2kd.data.readers._record import per_frame, record
from s2kd.data.store import FRAMES, open_store, store_facts

if TYPE_CHECKING:
    import xarray as xr


@readers.register("prepared")
def prepared(*, path: str | Path) -> "xr.Dataset":
    """A dataset as `s2kd data prepare` wrote it: the same frames, times, splits and words.

    Raises `S2KDError` for a folder that is not finished, that another version wrote, or whose
    frames differ from those written (an even sample is checked).
    """
    folder = Path(path).expanduser()
    dataset = open_store(folder, memory_gb=0.0)
    storage, grid = store_facts(folder)["frames"], dataset.grid
    frames = lazy_array(folder / FRAMES)
    if frames.dtype.kind == "i":
        scale, offset = (
            np.asarray(storage[name], dtype=np.float32)[:, None, None]
            for name in ("scale", "offset")
        )
        frames = frames.astype(np.float32) * scale + offset
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
