"""Runs on disk, end to end, as one array of frames that is read by slice and never loaded whole."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped

from s2kd.core.files import digest
from s2kd.core.types import S2KDError
from s2kd.data._fds_frames import shrink
from s2kd.data._missing import nearest_cells
from s2kd.data.dataset import FrameHash, Frames

BLOCK_BYTES = 2**26
HASHED_FRAMES = 32


@runtime_checkable
class OneRun(Protocol):
    """Frames of one run or environment; `shape` is (time, channel, height, width)."""

    shape: tuple[int, ...]

    def read(self, first: int, stop: int) -> np.ndarray:
        """(time, channel, height, width) float32 of these frames."""
        ...


class EndToEnd:
    """Frames of several runs as one array; a slice may cross from one run to the next."""

    def __init__(self, runs: Sequence[OneRun]) -> None:
        self.runs = tuple(runs)
        self.ends = np.cumsum([run.shape[0] for run in runs])
        self.shape = (int(self.ends[-1]), *runs[0].shape[1:])

    def __getitem__(self, frames: slice) -> np.ndarray:
        first, stop, step = frames.indices(self.shape[0])
        if step != 1:
            raise S2KDError(f"frames on disk are read in unbroken slices, got step {step}")
        parts = [np.empty((0, *self.shape[1:]), dtype=np.float32)]
        for run, end in zip(self.runs, self.ends, strict=True):
            begin = int(end) - run.shape[0]
            low, high = max(first, begin), min(stop, int(end))
            if low < high:
                parts.append(run.read(low - begin, high - begin))
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    @cached_property
    def content(self) -> str:
        """A hash of an even sample of every run's frames: reading all of them can take hours."""
        hashed = FrameHash()
        for run in self.runs:
            last = run.shape[0] - 1
            for number in np.unique(np.linspace(0, last, HASHED_FRAMES).astype(int)):
                hashed.update(run.read(int(number), int(number) + 1))
        return digest([hashed.hexdigest(), [run.shape for run in self.runs]])


def end_to_end(runs: Sequence[OneRun], memory_gb: float | int) -> Frames:
    """All frames in memory where they take up to `memory_gb` GiB, else read when asked for."""
    frames = EndToEnd(runs)
    if 4 * np.prod(frames.shape, dtype=np.float64) > memory_gb * 2**30:
        return frames
    held = np.empty(frames.shape, dtype=np.float32)
    block = max(1, BLOCK_BYTES // (4 * int(np.prod(frames.shape[1:]))))
    for first in range(0, len(held), block):
        held[first : first + block] = frames[first : first + block]
    return held


class Finish:
    """What is done to every frame that was read: fill cells that do not exist, crop and pool.

    `exists` is over the cells as stored; None: all exist. A pooled cell exists where all of its
    cells do.
    """

    def __init__(
        self,
        *,
        exists: Bool[np.ndarray, "height width"] | None,
        crop: Sequence[int] | None,
        pool: int,
        part: str,
    ) -> None:
        self.exists, self.crop, self.pool, self.part = exists, crop, pool, part
        self._source = None if exists is None else nearest_cells(exists, wraps=False).ravel()

    def __call__(
        self, frames: Shaped[np.ndarray, "time channel height width"]
    ) -> Float[np.ndarray, "time channel rows columns"]:
        if self._source is not None:
            flat = frames.reshape(*frames.shape[:2], -1)[..., self._source]
            frames = flat.reshape(frames.shape)
        return shrink(frames, crop=self.crop, pool=self.pool, part=self.part)

    def mask(self) -> tuple[tuple[bool, ...], ...] | None:
        """`GridSpec.mask` of the finished frames."""
        if self.exists is None:
            return None
        plane = self.exists[None, None].astype(np.float32)
        kept = shrink(plane, crop=self.crop, pool=self.pool, part=self.part)[0, 0] == 1
        if kept.all():
            return None
        if not kept.any():
            raise S2KDError(f"{self.part}: no cell exists within crop={list(self.crop or ())}")
        return tuple(tuple(map(bool, row)) for row in kept)


def refuse_not_finite(
    where: str, frames: np.ndarray, grid_channels: Sequence[str], first: int
) -> None:
    """Name the first value that is not finite in frames that begin at number `first`."""
    # a sum shows a value that is not finite, in one pass and without an array of answers
    if np.isfinite(frames.sum(dtype=np.float64)):
        return
    frame, channel, row, column = np.argwhere(~np.isfinite(frames))[0]
    raise S2KDError(
        f"{where}: {grid_channels[channel]!r} is not finite in frame {first + frame}, row {row}, "
        f"column {column}"
    )


def same_grid(named: dict[str, OneRun]) -> None:
    """Refuse runs whose frames differ in shape."""
    first = next(iter(named))
    for name, run in named.items():
        if run.shape[1:] != named[first].shape[1:]:
            raise S2KDError(
                f"{name}: frames have {_shown(run.shape)}, those of {first} "
                f"{_shown(named[first].shape)} (channel × height × width); all environments of a "
                "dataset share one grid"
            )


def _shown(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape[1:]))
