"""Planes of a fire simulation: masked cells filled, cropped, pooled, and brought to even steps."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from s2kd.core.types import S2KDError
from s2kd.data.gaps import nearest_cells

Finish = Callable[[np.ndarray], np.ndarray]
"""(time, channel, height, width) as stored to float32 (time, channel, rows, columns)."""


def plane_finisher(
    shape: tuple[int, int],
    *,
    exists: Bool[np.ndarray, "height width"] | None,
    crop: Sequence[int] | None,
    pool: int,
    label: str,
) -> tuple[Finish, tuple[int, int], Bool[np.ndarray, "rows columns"] | None]:
    """The function that finishes frames, their new shape, and which of their cells exist.

    Parameters
    ----------
    shape
        height and width of the frames as stored.
    exists
        cells that exist; others take the value of the nearest that does. None: all.
    crop
        first row, stop row, first column, stop column; None: all.
    pool
        side of the blocks of cells that are averaged; a block exists where all its cells do.
    label
        names the reader in errors.

    Raises
    ------
    S2KDError
        a crop outside the cells, a pool that does not divide them, or no cell left.
    """
    height, width = shape
    if crop is not None and len(crop) != 4:
        raise S2KDError(
            f"{label}: crop={list(crop)} must be four numbers: first row, stop row, first column, "
            "stop column"
        )
    top, bottom, west, east = (0, height, 0, width) if crop is None else crop
    if not (0 <= top < bottom <= height and 0 <= west < east <= width):
        raise S2KDError(
            f"{label}: crop={[top, bottom, west, east]} (first row, stop row, first column, stop "
            f"column) is outside {height}×{width} cells"
        )
    rows, columns = bottom - top, east - west
    if pool < 1 or rows % pool or columns % pool:
        raise S2KDError(
            f"{label}: pool={pool} does not divide {rows}×{columns} cells; crop to a multiple"
        )
    blocks = (rows // pool, pool, columns // pool, pool)
    source, mask = None, None
    if exists is not None and not exists.all():
        source = nearest_cells(exists, wraps=False).ravel()
        mask = exists[top:bottom, west:east].reshape(blocks).all((1, 3))
        if not mask.any():
            raise S2KDError(f"{label}: no cell exists within crop={list(crop or ())}")

    def finish(frames: np.ndarray) -> np.ndarray:
        if source is not None:
            frames = frames.reshape(*frames.shape[:2], -1)[..., source].reshape(frames.shape)
        part = np.ascontiguousarray(frames[:, :, top:bottom, west:east], dtype=np.float32)
        if pool == 1:
            return part
        return part.reshape(*part.shape[:2], *blocks).mean(axis=(3, 5), dtype=np.float32)

    return finish, (rows // pool, columns // pool), mask


def smallest_gap(label: str, time: np.ndarray, step: float) -> int:
    """Frames that splits must be apart, so that no stored frame enters interpolations of both.

    Raises
    ------
    S2KDError
        a step that is not positive.
    """
    if not step > 0:
        raise S2KDError(f"{label}: step_seconds={step} must be positive")
    return int(np.ceil(2 * float(np.diff(time).max()) / step)) - 1


def resample(
    frames: Float[np.ndarray, "time channel height width"],
    time: Float[np.ndarray, " time"],
    clock: Float[np.ndarray, " steps"],
) -> Float[np.ndarray, "steps channel height width"]:
    """Frames at the times of `clock`, by linear interpolation between those stored at `time`.

    A frame may draw on the first one stored after it, so a forecast's past reaches into the future
    by less than one stored step; splits stay apart by their gap.
    """
    after = np.clip(np.searchsorted(time, clock, side="right"), 1, len(time) - 1)
    share = np.clip((clock - time[after - 1]) / (time[after] - time[after - 1]), 0, 1)
    share = share.astype(np.float32)[:, None, None, None]
    return (1 - share) * frames[after - 1] + share * frames[after]
