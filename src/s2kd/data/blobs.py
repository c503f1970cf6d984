"""Blobs carried by a uniform wind round a torus: a world small enough to test on."""

import numpy as np
from jaxtyping import Float

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data.dataset import Dataset, Stretch

FASTEST = 1.5
"""Cells a step that a blob moves at most, in each direction."""


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
    place = centre[:, None] + wind * np.arange(length)[:, None]  # blob, time, axis
    apart = (np.arange(size) - place[..., None] + size / 2) % size - size / 2
    bell = np.exp(-(apart**2) / (2 * (size / 8) ** 2))
    return np.einsum("b,bty,btx->tyx", strength, bell[:, :, 0], bell[:, :, 1])


@datasets.register("blobs")
def blobs(*, size: int = 16, runs: int = 8, length: int = 40, seed: int = 0) -> Dataset:
    """`runs` stretches of `length` hourly frames of one channel on `size` × `size` cells.

    Every run has blobs and a wind of its own; the last fifth of the runs (at least one) is the
    test split, as many before it the val split. Raises `S2KDError` for fewer than three runs.
    """
    if runs < 3 or min(size, length) < 1:
        raise S2KDError(
            f"blobs: needs runs ≥ 3 (one a split), size ≥ 1 and length ≥ 1, "
            f"got {runs}, {size} and {length}"
        )
    frames = np.stack([drift(size=size, length=length, seed=seed, run=r) for r in range(runs)])
    stretches = tuple(
        Stretch(first=r * length, stop=(r + 1) * length, name=f"run {r}") for r in range(runs)
    )
    held = max(1, runs // 5)
    hours = np.tile(np.arange(length), runs).astype("timedelta64[h]")
    return Dataset(
        name="blobs",
        domain="generic",
        grid=GridSpec(
            channels=("density",),
            units=("1",),
            height=size,
            width=size,
            step_seconds=3600.0,
            wraps=True,
        ),
        frames=frames.reshape(-1, 1, size, size).astype(np.float32),
        times=(np.datetime64("2000-01-01") + hours).astype("datetime64[ns]"),
        splits={
            "train": stretches[: -2 * held],
            "val": stretches[-2 * held : -held],
            "test": stretches[-held:],
        },
        attributes={"density": {"long_name": "density of the blobs"}},
        source="simulated: blobs carried by a uniform wind",
    )
