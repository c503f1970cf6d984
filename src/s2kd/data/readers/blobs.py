"""Simulated blobs that a uniform wind moves round a torus: a world small enough for tests."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from s2kd.data.readers import readers
from s2kd.data.readers._record import member_splits, per_frame, record, seconds_after_epoch

if TYPE_CHECKING:
    import xarray as xr

FASTEST = 1.5
"""Cells per step that a blob moves at most, in each direction."""


def drift(
    *, size: int, length: int, seed: int, run: int
) -> Float[np.ndarray, "{length} {size} {size}"]:
    """One run: two round blobs (standard deviation size/8, peaks 0.5 to 1) under one constant wind.

    The blobs never change shape, so frame t + 1 follows exactly from frames t - 1 and t.
    """
    rng = np.random.default_rng([seed, run])
    centre = rng.uniform(0, size, (2, 2))
    strength = rng.uniform(0.5, 1.0, 2)
    wind = rng.uniform(-FASTEST, FASTEST, 2)
    position = centre[:, None] + wind * np.arange(length)[:, None]  # blob, time, axis
    distance = (np.arange(size) - position[..., None] + size / 2) % size - size / 2
    bell = np.exp(-(distance**2) / (2 * (size / 8) ** 2))
    return np.einsum("b,bty,btx->tyx", strength, bell[:, :, 0], bell[:, :, 1])


@readers.register("blobs")
def blobs(*, size: int = 16, runs: int = 8, length: int = 40, seed: int = 0) -> "xr.Dataset":
    """`runs` runs of `length` hourly frames of one channel on `size` × `size` cells.

    Every run has its own blobs and wind; the last fifth of the runs (at least one) is the test
    split, as many before it the val split. Raises `S2KDError` for fewer than three runs.
    """
    labels = member_splits("blobs", runs, max(1, runs // 5))
    frames = np.stack([drift(size=size, length=length, seed=seed, run=r) for r in range(runs)])
    return record(
        frames.reshape(-1, 1, size, size).astype(np.float32),
        channels=("density",),
        units=("1",),
        times=np.tile(seconds_after_epoch(3600.0 * np.arange(length)), runs),
        coords={
            "run": per_frame([f"run {number}" for number in range(runs)], length),
            "split": per_frame(labels, length),
        },
        long_names={"density": "density of the blobs"},
        name="blobs",
        domain="generic",
        source="simulated: blobs carried by a uniform wind",
        step_seconds=3600.0,
        wraps=1,
    )
