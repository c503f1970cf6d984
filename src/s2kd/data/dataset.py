"""Dataset: frames of all runs end to end, and the stretches of each split."""

import hashlib
import itertools
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from s2kd.core.files import BlockDigests, digest
from s2kd.core.types import Domain, GridSpec, S2KDError

SPLITS = ("train", "val", "test")
"""Splits of every dataset; further test splits are named `test_…` (`test_unseen`)."""


class FrameHash:
    """Hash of the content of frames, whatever the blocks in which they come."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def update(self, frames: np.ndarray) -> None:
        """Add the next frames, without a copy where they are contiguous."""
        self._hash.update(np.ascontiguousarray(frames).reshape(-1).view(np.uint8))

    def hexdigest(self) -> str:
        """The hash of all frames so far."""
        return self._hash.hexdigest()


@runtime_checkable
class Frames(Protocol):
    """Anything that gives frames by slice: an array in memory, or `StoredFrames` on disk."""

    shape: tuple[int, ...]

    def __getitem__(self, frames: slice) -> np.ndarray: ...


def will_need(file: int, offset: int, size: int) -> None:
    """Let the system begin to read this part of a file; does nothing where it has no such call."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)


class StoredFrames:
    """A `.npy` of frames, read by slice and never mapped: (time, channel, height, width) float32.

    Reading into a fresh array rather than by memory map keeps what has been read out of the
    resident set, so that a series larger than memory costs no more than one batch. An int16 value
    is `code * scale + offset`, per channel. `content` is the hash of all frames as they are read;
    `digests` are those of their blocks, against which each is checked when it is first read.
    """

    def __init__(
        self,
        path: Path,
        *,
        scale: Sequence[float] = (1.0,),
        offset: Sequence[float] = (0.0,),
        content: str = "",
        digests: BlockDigests | None = None,
    ) -> None:
        self.path, self.content, self._digests = path, content, digests
        try:
            mapped = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise S2KDError(f"{path}: truncated or not a .npy of frames ({error})") from None
        if mapped.ndim != 4 or mapped.dtype.str not in ("<f4", "<i2") or mapped.flags.f_contiguous:
            raise S2KDError(
                f"{path}: has shape {mapped.shape} and type {mapped.dtype}, "
                "wants four axes (time, channel, height, width) of float32 or int16"
            )
        self.shape, self.dtype, self.offset = mapped.shape, mapped.dtype, mapped.offset
        self._values = int(np.prod(mapped.shape[1:]))
        self._scale = np.asarray(scale, dtype=np.float32)[:, None, None]
        self._shift = np.asarray(offset, dtype=np.float32)[:, None, None]
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)

    def expect(self, first: int, stop: int) -> None:
        """Let the system begin to read these frames."""
        size = self._values * self.dtype.itemsize
        will_need(self._file.fileno(), self.offset + first * size, (stop - first) * size)

    def __getitem__(self, frames: slice) -> Float[np.ndarray, "time channel height width"]:
        first, stop, step = frames.indices(self.shape[0])
        if step != 1:
            raise S2KDError(f"{self.path}: frames are read in unbroken slices, got step {step}")
        if self._digests is not None:
            for number in self._digests.unchecked(np.arange(first, stop)):
                begin = number * self._digests.length
                end = min(begin + self._digests.length, self.shape[0])
                self._digests.check(number, self.stored(begin, end))
        return self.decoded(self.stored(first, stop))

    def stored(self, first: int, stop: int) -> np.ndarray:
        """Frames as they lie on disk."""
        self._file.seek(self.offset + first * self._values * self.dtype.itemsize)
        count = max(0, stop - first) * self._values
        return np.fromfile(self._file, self.dtype, count).reshape(-1, *self.shape[1:])

    def decoded(self, stored: np.ndarray) -> np.ndarray:
        """Stored values as float32 in physical units."""
        if stored.dtype == np.dtype("<f4"):
            return stored
        return stored.astype(np.float32) * self._scale + self._shift


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Frames `first` up to, not including, `stop`: unbroken in time, of one run or environment."""

    first: int
    stop: int
    name: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Frames in physical units, and their splits.

    Attributes:
        frames: (time, channel, height, width) float32, all runs end to end; cells that do not
            exist (`grid.mask`) hold any finite number.
        times: (time,) datetime64[ns], or cftime objects of another calendar.
        splits: "train", "val", "test" (and "test_…") as stretches that share no frame.
        local_time: the hour of `times` is the local hour.
        context: facts for narrators, per frame.
        attributes: CF attributes by channel.
        source: origin, for the history of files written.
        notices: sentences on what was left out in reading, printed when a run opens its data.
        window: the only (past, lead) of windows, where a stretch's first frames differ in kind
            from its last ones.
        simultaneous: the stretches of a split are parts of one scene at the same moments (planes
            of a volume), so that their windows are no independent evidence.
    """

    name: str
    domain: Domain
    grid: GridSpec
    frames: Frames
    times: np.ndarray
    splits: Mapping[str, tuple[Stretch, ...]]
    local_time: bool = False
    context: tuple[tuple[str, ...], ...] | None = None
    attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    source: str = ""
    notices: tuple[str, ...] = ()
    window: tuple[int, int] | None = None
    simultaneous: bool = False

    def __post_init__(self) -> None:
        want = (len(self.grid.channels), self.grid.height, self.grid.width)
        if tuple(self.frames.shape[1:]) != want:
            raise S2KDError(
                f"{self.name}: frames have shape {tuple(self.frames.shape)}, "
                f"the grid wants (time, {', '.join(map(str, want))})"
            )
        if len(self.times) != self.frames.shape[0]:
            raise S2KDError(
                f"{self.name}: {self.frames.shape[0]} frames but {len(self.times)} times"
            )
        for split in SPLITS:
            if split not in self.splits:
                raise S2KDError(f"{self.name}: has no split called {split!r}")
        self._refuse_shared_frames()
        for split, stretches in self.splits.items():
            if self.simultaneous and len({s.stop - s.first for s in stretches}) > 1:
                raise S2KDError(
                    f"{self.name}: the stretches of {split!r} are said to be simultaneous but "
                    "differ in length"
                )

    def _refuse_shared_frames(self) -> None:
        taken = sorted(
            (s.first, s.stop, split) for split, stretches in self.splits.items() for s in stretches
        )
        count = self.frames.shape[0]
        for first, stop, split in taken:
            if not 0 <= first <= stop <= count:
                raise S2KDError(
                    f"{self.name}: split {split!r} has a stretch from frame {first} to {stop}, "
                    f"but there are {count} frames"
                )
        for (_, stop, name), (first, _, following) in itertools.pairwise(taken):
            if first < stop:
                raise S2KDError(
                    f"{self.name}: splits {name!r} and {following!r} share frames {first} to "
                    f"{stop - 1}"
                )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every frame and of the splits: what trained models and caches are keyed by.

        Frames that know the hash of their content (`content`) are not read for it.
        """
        content = self.frames.content if isinstance(self.frames, StoredFrames) else ""
        if not content:
            hashed = FrameHash()
            block = max(1, 2**24 // int(np.prod(self.frames.shape[1:])))
            for first in range(0, self.frames.shape[0], block):
                hashed.update(self.frames[first : first + block])
            content = hashed.hexdigest()
        return self.fingerprint_of(content)

    def fingerprint_of(self, content: str) -> str:
        """`fingerprint` where the hash of all frames is `content`."""
        splits = {k: [(s.first, s.stop, s.name) for s in v] for k, v in self.splits.items()}
        return digest([content, self.grid.to_dict(), splits])
