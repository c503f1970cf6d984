"""Records of fires: runs end to end, masked, cropped, pooled, at even steps, with parameters."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from s2kd.core.types import S2KDError
from s2kd.data.gaps import nearest_cells
from s2kd.data.readers._record import per_frame, record, seconds_after_epoch

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    Runs = Mapping[str, da.Array]

BLOCK_BYTES = 2**26
"""Frames at even steps that are interpolated together."""
Parameters = dict[str, dict[str, float | None]]
"""Numbers by run and parameter; null is unknown."""
HELD_OUT = ("heat_release", "ventilation")
"""Parameters that hold environments out by default: the first with three values or more."""


def fire_record(
    runs: "Runs",
    clocks: Mapping[str, np.ndarray],
    *,
    exists: Bool[np.ndarray, "row column"] | None,
    **metadata: Any,
) -> "xr.Dataset":
    """The runs end to end.

    Args:
        runs: by name, (time, channel, row, column).
        clocks: (time,) seconds, by run.
        exists: cells that exist; None: all.
        metadata: as for `record`.
    """
    import dask.array as da

    lengths = [len(clock) for clock in clocks.values()]
    return record(
        da.concatenate(list(runs.values())),
        times=seconds_after_epoch(np.concatenate(list(clocks.values()))),
        coords={
            "run": per_frame(runs, lengths),
            "mask": None if exists is None else (("row", "column"), exists),
        },
        domain="fire",
        **metadata,
    )


def finished(
    label: str,
    runs: "Runs",
    *,
    exists: Bool[np.ndarray, "height width"] | None = None,
    crop: Sequence[int] | None = None,
    pool: int = 1,
) -> tuple["dict[str, da.Array]", Bool[np.ndarray, "rows columns"] | None]:
    """The runs in float32, masked cells filled, cropped and pooled; and which cells exist.

    Args:
        label: names the reader in errors.
        runs: by name, (time, channel, height, width).
        exists: cells that exist; others take the value of the nearest that does. None: all.
        crop: first row, stop row, first column, stop column; None: all.
        pool: side of the blocks of cells that are averaged; a block exists where all its cells do.

    Raises:
        S2KDError: a crop outside the cells, a pool that does not divide them, or no cell left.
    """
    height, width = next(iter(runs.values())).shape[2:]
    area = (0, height, 0, width) if crop is None else tuple(crop)
    if len(area) != 4 or not (0 <= area[0] < area[1] <= height and 0 <= area[2] < area[3] <= width):
        raise S2KDError(
            f"{label}: crop={list(area)} must be first row, stop row, first column and stop column "
            f"within {height}×{width} cells"
        )
    top, bottom, west, east = area
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
            raise S2KDError(f"{label}: no cell exists within crop={list(area)}")

    def finish(frames: np.ndarray) -> np.ndarray:
        if source is not None:
            frames = frames.reshape(*frames.shape[:2], -1)[..., source].reshape(frames.shape)
        part = np.ascontiguousarray(frames[:, :, top:bottom, west:east], dtype=np.float32)
        if pool == 1:
            return part
        return part.reshape(*part.shape[:2], *blocks).mean(axis=(3, 5), dtype=np.float32)

    finished_runs = {}
    for name, run in runs.items():
        frames = run.rechunk({1: -1, 2: -1, 3: -1})
        chunks = (*frames.chunks[:2], (blocks[0],), (blocks[2],))
        finished_runs[name] = frames.map_blocks(
            finish, chunks=chunks, meta=np.empty((0, 0, 0, 0), np.float32)
        )
    return finished_runs, mask


def even_runs(
    label: str,
    runs: "Runs",
    times: Mapping[str, np.ndarray],
    *,
    step: float,
    begin: float = 0.0,
) -> tuple["dict[str, da.Array]", dict[str, np.ndarray], int]:
    """Runs interpolated to even steps, their clocks, and the gap that splits need.

    Between splits so many frames are left out that no stored frame enters both. A frame may draw
    on the first one stored after it, so that a past reaches into the future by less than one
    stored step.

    Args:
        label: names the data in errors.
        runs: by name, (time, channel, row, column).
        times: (time,) rising seconds, by run.
        step: seconds between frames.
        begin: seconds at which the record begins.

    Raises:
        S2KDError: a step that is not positive, or less than two steps of a run.
    """
    if not step > 0:
        raise S2KDError(f"{label}: step_seconds={step} must be positive")
    clocks = {}
    for name, stored in times.items():
        first, last = max(begin, float(stored[0])), float(stored[-1])
        if first + step > last:
            raise S2KDError(
                f"{label}: skip_seconds={begin:g} and step_seconds={step:g} leave nothing of run "
                f"{name!r}, which was written from {stored[0]:.4g} to {last:.4g} s"
            )
        clocks[name] = first + step * np.arange(int((last - first) / step + 1e-6) + 1)
    longest = max(float(np.diff(stored).max()) for stored in times.values())
    frames = {name: _evened(run, times[name], clocks[name]) for name, run in runs.items()}
    return frames, clocks, int(np.ceil(2 * longest / step)) - 1


def _evened(run: "da.Array", time: np.ndarray, clock: np.ndarray) -> "da.Array":
    import dask.array as da

    parts, length = [], max(1, BLOCK_BYTES // run[0].nbytes)
    for steps in np.split(clock, range(length, len(clock), length)):
        after = np.clip(np.searchsorted(time, steps, side="right"), 1, len(time) - 1)
        needed = slice(int(after.min()) - 1, int(after.max()) + 1)
        block = run[needed].rechunk(-1)
        chunks = ((len(steps),), *block.chunks[1:])
        parts.append(
            block.map_blocks(
                partial(resample, time=time[needed], clock=steps), chunks=chunks, dtype=np.float32
            )
        )
    return da.concatenate(parts)


def resample(
    frames: Float[np.ndarray, "time channel height width"],
    time: Float[np.ndarray, " time"],
    clock: Float[np.ndarray, " steps"],
) -> Float[np.ndarray, "steps channel height width"]:
    """Frames at the times of `clock`, by linear interpolation between those stored at `time`."""
    after = np.clip(np.searchsorted(time, clock, side="right"), 1, len(time) - 1)
    share = np.clip((clock - time[after - 1]) / (time[after] - time[after - 1]), 0, 1)
    share = share.astype(np.float32)[:, None, None, None]
    return (1 - share) * frames[after - 1] + share * frames[after]


def known_parameters(environments: Parameters, name: str) -> dict[str, float]:
    """The parameters of one environment that are not null."""
    return {k: float(v) for k, v in environments.get(name, {}).items() if v is not None}


def suggested_unseen(parameters: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The extremes of a parameter that is known of all runs and varies enough; else nothing."""
    for name in HELD_OUT:
        values = {run.get(name) for run in parameters.values()}
        if None not in values and len(values) >= 3:
            return {name: "extremes"}
    return {}
