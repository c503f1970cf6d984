"""Data sets that come cut into windows: every example is a stretch of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data._arrays import ArrayIn
from s2kd.data.dataset import Stretch

EPOCH = np.datetime64("2000-01-01", "ns")
"""The arbitrary date that the clock of examples without a date starts on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Some examples of one split: their past and their future frames, as they lie on disk.

    `first` and `stop` number those examples of the two arrays that are meant.
    """

    split: str
    past: ArrayIn
    future: ArrayIn
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


class CutFrames:
    """Frames (time, channel, height, width) float32 of cut examples end to end, read by slice.

    Frame k of example i is frame `i * (past + lead) + k`. `of_past` and `of_future` turn what is
    stored, (example, ...), into (example, past or lead, channel, height, width) float32.
    """

    def __init__(
        self,
        parts: Sequence[Examples],
        *,
        past: int,
        lead: int,
        frame: tuple[int, int, int],
        of_past: Callable[[ArrayIn, np.ndarray], np.ndarray],
        of_future: Callable[[ArrayIn, np.ndarray], np.ndarray],
    ) -> None:
        self._parts, self._past, self._length = tuple(parts), past, past + lead
        self._ends = np.cumsum([len(part) for part in parts])
        self._of_past, self._of_future = of_past, of_future
        self.shape = (int(self._ends[-1]) * self._length, *frame)

    def __getitem__(self, frames: slice) -> np.ndarray:
        first, stop, step = frames.indices(self.shape[0])
        if step != 1:
            raise S2KDError(f"frames are read in unbroken slices, got step {step}")
        out = np.empty((max(0, stop - first), *self.shape[1:]), dtype=np.float32)
        place = first
        while place < stop:
            number = place // self._length
            part = int(np.searchsorted(self._ends, number, side="right"))
            end = min(-(-stop // self._length), int(self._ends[part]))
            frames_read = self._examples(part, number, end).reshape(-1, *self.shape[1:])
            skip = place - number * self._length
            taken = frames_read[skip : skip + stop - place]
            out[place - first : place - first + len(taken)] = taken
            place += len(taken)
        return out

    def _examples(self, part: int, number: int, end: int) -> np.ndarray:
        """(example, past + lead, channel, height, width): examples `number` up to `end`."""
        one = self._parts[part]
        shift = one.first - (int(self._ends[part]) - len(one))
        a, b = number + shift, end + shift
        past = self._of_past(one.past, one.past.read((slice(a, b),)))
        future = self._of_future(one.future, one.future.read((slice(a, b),)))
        return np.concatenate([past, future], axis=1)


def times(count: int, length: int, step_seconds: int) -> np.ndarray:
    """(count · length,) datetime64[ns]: a step a frame, and one left out between examples."""
    number = np.arange(count)[:, None] * (length + 1) + np.arange(length)
    return EPOCH + number.ravel() * np.timedelta64(step_seconds, "s").astype("timedelta64[ns]")


def stretches(parts: Sequence[Examples], split: str, length: int) -> tuple[Stretch, ...]:
    """One stretch an example, for those of `split`."""
    found, number = [], 0
    for part in parts:
        for example in range(number, number + len(part)):
            if part.split == split:
                found.append(Stretch(first=example * length, stop=(example + 1) * length))
        number += len(part)
    return tuple(found)


def sketches(part: Examples, rows_of: Callable[[ArrayIn, int, int], np.ndarray]) -> list[set]:
    """What each example's frames look like: hashes of some rows of every frame.

    `rows_of` gives (example, frame, ...) of examples of an array. A frame that is one value all
    over (an outage) looks like any other and is left out.
    """
    found: list[set] = []
    block = 64
    for first in range(part.first, part.stop, block):
        stop = min(first + block, part.stop)
        halves = [rows_of(array, first, stop) for array in (part.past, part.future)]
        for example in range(stop - first):
            frames = [frame for half in halves for frame in half[example]]
            found.append(
                {
                    blake2b(np.ascontiguousarray(frame).tobytes(), digest_size=8).digest()
                    for frame in frames
                    if (frame != frame.flat[0]).any()
                }
            )
    return found


def apart(
    parts: Sequence[Examples], rows_of: Callable[[ArrayIn, int, int], np.ndarray]
) -> tuple[tuple[Examples, ...], dict[str, int]]:
    """`parts` without examples that share a frame with a later split's, and how many those were.

    What is kept whole is the test split; validation gives way to it, and training to both.
    """
    seen: set = set()
    kept: list[Examples] = []
    dropped: dict[str, int] = {}
    for split in ("test", "val", "train"):
        taken = set(seen)
        looks = [(part, sketches(part, rows_of)) for part in parts if part.split == split]
        for part, own in looks:
            free = np.array([not (one & taken) for one in own], dtype=bool)
            dropped[split] = dropped.get(split, 0) + int((~free).sum())
            kept += _runs(part, free)
        for _, own in looks:
            seen.update(*(one for one in own if not one & taken))
    order = {"train": 0, "val": 1, "test": 2}
    return tuple(sorted(kept, key=lambda part: (order[part.split], part.first))), dropped


def _runs(part: Examples, free: np.ndarray) -> list[Examples]:
    """The unbroken runs of those examples that are kept."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], free.astype(int), [0]])))
    return [
        replace(part, first=part.first + int(a), stop=part.first + int(b))
        for a, b in edges.reshape(-1, 2)
    ]
