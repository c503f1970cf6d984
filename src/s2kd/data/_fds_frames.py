"""What both layouts of FDS output share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from s2kd.core.types import S2KDError

EPOCH = np.datetime64("2000-01-01", "ns")
"""The arbitrary date that a run's clock starts on."""


def shrink(
    frames: Float[np.ndarray, "time channel height width"],
    *,
    crop: Sequence[int] | None,
    pool: int,
    part: str = "fds",
) -> Float[np.ndarray, "time channel rows columns"]:
    """Rows and columns cut out, then averaged over blocks of `pool` × `pool`; float32."""
    height, width = frames.shape[2:]
    top, bottom, left, right = (0, height, 0, width) if crop is None else _four(crop, part)
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise S2KDError(
            f"{part}: crop={[top, bottom, left, right]} (first row, stop row, first column, stop "
            f"column) does not lie in {height}×{width} cells"
        )
    rows, columns = bottom - top, right - left
    if pool < 1 or rows % pool or columns % pool:
        raise S2KDError(
            f"{part}: pool={pool} does not divide {rows}×{columns} cells; crop them to a multiple"
        )
    kept = np.ascontiguousarray(frames[:, :, top:bottom, left:right], dtype=np.float32)
    if pool == 1:
        return kept
    blocks = kept.reshape(*kept.shape[:2], rows // pool, pool, columns // pool, pool)
    return blocks.mean(axis=(3, 5), dtype=np.float32)


def _four(crop: Sequence[int], part: str) -> Sequence[int]:
    if len(crop) != 4:
        raise S2KDError(
            f"{part}: crop={list(crop)} must be four numbers: first row, stop row, first column, "
            "stop column"
        )
    return crop


def need(path: Path, held: Any, key: str, where: str) -> Any:
    """`held[key]`, or an error that names what is there."""
    if not isinstance(held, dict) or key not in held:
        there = ", ".join(held) if isinstance(held, dict) else type(held).__name__
        raise S2KDError(f"{path}: {where} has no {key!r} (there is {there or 'nothing'})")
    return held[key]


def times(seconds: np.ndarray) -> np.ndarray:
    """Seconds of the run on an arbitrary date."""
    return EPOCH + np.round(seconds * 1e9).astype("timedelta64[ns]")
