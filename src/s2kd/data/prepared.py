"""What `s2kd data prepare` wrote: any dataset as plain frames that are read by slice."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from s2kd.core.files import read_json
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data._arrays import PlainArray, whole
from s2kd.data.dataset import Dataset, Frames, Stretch

LAYOUT = 1
"""Counts up whenever what is stored changes, so that an older folder is not read."""

FACTS, FRAMES, TIMES, UNFINISHED = "prepared.json", "frames.npy", "times.npy", "unfinished"
DTYPES = ("float32", "int16")
CHECKED_BLOCKS = 4


class PreparedFrames:
    """Frames (time, channel, height, width) of a prepared folder, float32 whatever is stored.

    Of int16 a value is `code * scale + offset`, per channel. `content` is the hash of all frames
    as they are read.
    """

    def __init__(
        self, path: Path, *, scale: Sequence[float], offset: Sequence[float], content: str
    ) -> None:
        self._array = PlainArray(path, str(path))
        self.shape, self.content = self._array.shape, content
        self._scale = np.asarray(scale, dtype=np.float32)[:, None, None]
        self._offset = np.asarray(offset, dtype=np.float32)[:, None, None]

    def __getitem__(self, frames: slice) -> np.ndarray:
        first, stop, step = frames.indices(self.shape[0])
        if step != 1:
            raise S2KDError(
                f"{self._array.path}: frames are read in unbroken slices, got step {step}"
            )
        return self.decoded(self.stored(first, stop))

    def expect(self, first: int, stop: int) -> None:
        """These frames will be asked for soon."""
        self._array.expect(first, stop)

    def stored(self, first: int, stop: int) -> np.ndarray:
        """These frames as they lie on disk."""
        return self._array.read((slice(first, stop),))

    def decoded(self, stored: np.ndarray) -> np.ndarray:
        """Stored values as float32 in physical units."""
        if stored.dtype == np.dtype("<f4"):
            return stored
        values = stored.astype(np.float32)
        values *= self._scale
        values += self._offset
        return values


@datasets.register("prepared")
def prepared(*, path: str | Path, memory_gb: float | int = 1.0) -> Dataset:
    """A dataset as `s2kd data prepare` wrote it: the same frames, times, splits and words.

    Up to `memory_gb` GiB are held in memory; more is read by slice when it is needed. Float32 has
    the fingerprint of the dataset that it was made from; int16, which rounds, one of its own.

    Raises `S2KDError` for a folder that is none of ours or unfinished, that another version wrote,
    or whose frames are not those that were written (an even sample of blocks is looked at).
    """
    folder = Path(path).expanduser()
    facts = _facts(folder)
    held, stored = facts["dataset"], facts["frames"]
    frames = PreparedFrames(
        folder / FRAMES, scale=stored["scale"], offset=stored["offset"], content=stored["content"]
    )
    _check_frames(folder, frames, stored)
    return Dataset(
        name=held["name"],
        domain=held["domain"],
        grid=GridSpec.from_dict(held["grid"]),
        frames=_in_memory(frames, float(memory_gb)),
        times=_times(folder, held["calendar"]),
        splits={name: tuple(Stretch(**one) for one in own) for name, own in held["splits"].items()},
        local_time=held["local_time"],
        context=_context(held["context"]),
        attributes=held["attributes"],
        source=held["source"],
        notices=tuple(held["notices"]),
        simultaneous=held.get("simultaneous", False),  # older folders do not say
        window=None if held["window"] is None else (held["window"][0], held["window"][1]),
    )


def origin(path: str | Path) -> dict[str, Any] | None:
    """The dataset part that a prepared folder was made of, as JSON; None where it does not say."""
    return _facts(Path(path).expanduser()).get("part")


def block_hash(stored: np.ndarray) -> str:
    """A short hash of one block as it lies on disk."""
    return blake2b(stored.reshape(-1).view(np.uint8), digest_size=8).hexdigest()


def _facts(folder: Path) -> dict[str, Any]:
    if not (folder / FACTS).exists():
        if (folder / UNFINISHED).exists():
            raise S2KDError(
                f"{folder}: is not finished; give the same `s2kd data prepare` command again"
            )
        raise S2KDError(f"{folder}: holds no {FACTS}, so `s2kd data prepare` did not write it")
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or facts.get("layout") != LAYOUT:
        raise S2KDError(
            f"{folder / FACTS}: not of layout {LAYOUT}, so another version wrote it; prepare again"
        )
    return facts


def _check_frames(folder: Path, frames: PreparedFrames, stored: dict[str, Any]) -> None:
    """The shape, and the content of a few blocks."""
    wants = tuple(stored["shape"])
    if frames.shape != wants:
        raise S2KDError(
            f"{folder / FRAMES}: has shape {frames.shape}, {FACTS} says {wants}; prepare again"
        )
    hashes, size = stored["blocks"], stored["block_frames"]
    for number in np.unique(np.linspace(0, len(hashes) - 1, CHECKED_BLOCKS).astype(int)):
        first = int(number) * size
        block = frames.stored(first, min(first + size, frames.shape[0]))
        if block_hash(block) != hashes[number]:
            raise S2KDError(
                f"{folder / FRAMES}: frames {first} to {first + len(block) - 1} are not those that "
                "were written; prepare again"
            )


def _in_memory(frames: PreparedFrames, memory_gb: float) -> Frames:
    if 4 * int(np.prod(frames.shape)) > memory_gb * 2**30:
        return frames
    return frames[0 : frames.shape[0]]


def _times(folder: Path, calendar: str) -> np.ndarray:
    """(time,) datetime64[ns], or cftime objects of another calendar."""
    counts = whole(folder / TIMES, "")
    if not calendar:
        return counts.view("datetime64[ns]")
    import cftime

    return cftime.num2date(counts, UNITS, calendar=calendar)


UNITS = "microseconds since 1970-01-01"
"""How times of other calendars are counted."""


def _context(held: dict[str, Any] | None) -> tuple[tuple[str, ...], ...] | None:
    if held is None:
        return None
    words = [tuple(one) for one in held["words"]]
    return tuple(words[number] for number in held["frames"])
