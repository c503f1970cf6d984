"""The store of frames on disk: a dataset in one folder, written once, read by slice.

```
FOLDER/prepared.json   description of the dataset, storage of its frames, hashes
FOLDER/frames.npy      (time, channel, height, width) float32, or int16 with scale and offset
FOLDER/times.npy       (time,) nanoseconds since 1970 (other calendars: microseconds)
FOLDER/unfinished/     while it is being written; the same command resumes from there
```
"""

import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

import s2kd
from s2kd.core.files import (
    BlockDigests,
    block_digest,
    check_room,
    check_seal,
    digest,
    file_digest,
    plain_fields,
    read_json,
    read_sealed,
    sealed,
    write_json,
    write_sealed,
    write_whole,
)
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import frames as blocks
from s2kd.data.dataset import Dataset, FrameHash, Frames, StoredFrames, Stretch
from s2kd.data.gaps import GapFilter

LAYOUT = 1
"""Rises with every change of the store, so that an older folder is not misread."""
FACTS, FRAMES, TIMES, UNFINISHED = "prepared.json", "frames.npy", "times.npy", "unfinished"
DTYPES = ("float32", "int16")
CODES = 32767
"""int16 codes run from -CODES to CODES."""
PLAIN = ("name", "domain", "local_time", "attributes", "source")
"""Fields of a dataset that are JSON as they are."""
UNITS = "microseconds since 1970-01-01"
"""Counting of times in other calendars."""
Progress = Callable[[int, int, str], object]


def no_progress(done: int, total: int, word: str = "") -> None:
    """Show nothing."""


def write_store(
    dataset: Dataset,
    gaps: GapFilter,
    folder: Path,
    *,
    key: str,
    dtype: str = "float32",
    progress: Progress = no_progress,
    **facts: Any,
) -> dict[str, Any]:
    """Stream a dataset into `folder`, gaps filled; an interrupted copy of the same `key` resumes.

    Args:
        dataset: its frames are read once, in order (int16: twice).
        gaps: fills missing values and finds the cells that exist.
        folder: new, or holding the unfinished copy.
        key: identity of the source; another key starts anew.
        dtype: float32, or int16 with a scale and an offset per channel.
        progress: called with the frames done, their total and a word.
        facts: further entries of `prepared.json`.

    Returns:
        The content of `prepared.json`.
    """
    unfinished = folder / UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    if dtype == "int16":
        scale, offset = _codes(dataset, gaps, progress)
    else:
        scale, offset = np.ones(len(dataset.grid.channels)), np.zeros(len(dataset.grid.channels))
    writer = _Writer(dataset, gaps, unfinished, dtype, scale, offset)
    writer.run(key, progress)
    grid = blocks.masked(dataset.grid, gaps.existing())
    counts, calendar = _counted(dataset.times)
    write_whole(unfinished / TIMES, lambda path: _save(path, counts))
    times_digest = file_digest(unfinished / TIMES)
    dataset = replace(dataset, grid=grid, notices=gaps.notices(dataset.notices))
    content = writer.content.hexdigest()
    facts |= {
        "layout": LAYOUT,
        "key": key,
        "s2kd": s2kd.__version__,
        "fingerprint": dataset.fingerprint_of(content),
        "frames": {
            "shape": list(dataset.frames.shape),
            "dtype": dtype,
            "scale": scale.tolist(),
            "offset": offset.tolist(),
            "largest_error": writer.error.tolist(),
            "content": content,
            "block_frames": writer.block,
            "blocks": writer.hashes,
        },
        "times": times_digest,
        "dataset": _described(dataset, calendar),
    }
    for name in (FRAMES, TIMES):
        (unfinished / name).replace(folder / name)
    write_json(folder / FACTS, sealed(facts))
    shutil.rmtree(unfinished)
    return read_json(folder / FACTS)


class _Writer:
    """Frames to disk, block by block, with their hashes."""

    def __init__(
        self,
        dataset: Dataset,
        gaps: GapFilter,
        folder: Path,
        dtype: str,
        scale: np.ndarray,
        offset: np.ndarray,
    ) -> None:
        self.dataset, self.gaps, self.folder = dataset, gaps, folder
        self.type = np.dtype("<f4" if dtype == "float32" else "<i2")
        self.scale, self.offset = scale, offset
        self.shape = tuple(dataset.frames.shape)
        self.block = blocks.block_length(self.shape)
        self.hashes: list[str] = []
        self.content, self.error = FrameHash(), np.zeros(len(scale))

    def run(self, key: str, progress: Progress) -> None:
        """Write all blocks, after those that an interrupted copy of the same key has written."""
        path, state, total = self.folder / FRAMES, self.folder / "blocks.json", self.shape[0]
        key = digest([key, self.type.str, self.shape])
        remedy = f"delete {self.folder}"
        saved = read_sealed(state, remedy) if state.exists() and path.exists() else {}
        if saved.get("key") != key:
            saved = {"key": key, "hashes": []}
            check_room(self.folder, int(np.prod(self.shape)) * self.type.itemsize)
            np.lib.format.open_memmap(path, "w+", self.type, self.shape)
        self.stored = StoredFrames(path, scale=self.scale.tolist(), offset=self.offset.tolist())
        done = self._resumed(saved["hashes"])
        if done:
            progress(done, total, "found")
        with path.open("rb+") as file:
            file.seek(self.stored.offset + done * self.type.itemsize * int(np.prod(self.shape[1:])))
            for first in range(done, total, self.block):
                stop = min(first + self.block, total)
                frames = self.gaps.filled(self.dataset.frames[first:stop])
                coded = self._coded(frames)
                file.write(coded.data)
                file.flush()
                self._note(coded, frames)
                write_sealed(self.folder / "gaps.npz", self.gaps.save)
                write_json(state, sealed({"key": key, "hashes": self.hashes}))
                progress(stop, total, "")
            os.fsync(file.fileno())

    def _resumed(self, hashes: Sequence[str]) -> int:
        """Frames that were written: all their blocks have these hashes, and the source them."""
        for number, expected in enumerate(hashes):
            first = number * self.block
            stored = self.stored.stored(first, min(first + self.block, self.shape[0]))
            at_end = number in (0, len(hashes) - 1)
            if block_digest(stored) != expected or (at_end and not self._is_source(first, stored)):
                self.hashes, self.content = [], FrameHash()
                return 0
            self._note(stored, None)
        if hashes:
            check_seal(self.folder / "gaps.npz", f"delete {self.folder}")
            self.gaps.load(self.folder / "gaps.npz")
        return min(len(hashes) * self.block, self.shape[0])

    def _is_source(self, first: int, stored: np.ndarray) -> bool:
        """Whether the source still has these frames (missing values aside)."""
        frames = np.asarray(self.dataset.frames[first : first + len(stored)])
        same = self._coded(np.nan_to_num(frames)) == stored
        return bool((same | ~np.isfinite(frames) | ~self.dataset.grid.exists).all())

    def _coded(self, frames: np.ndarray) -> np.ndarray:
        if self.type == np.dtype("<f4"):
            return np.ascontiguousarray(frames, dtype="<f4")
        scale, offset = self.scale[:, None, None], self.offset[:, None, None]
        codes = np.rint((frames.astype(np.float64) - offset) / scale)
        codes[..., ~self.gaps.known_to_exist] = 0
        return np.clip(codes, -CODES, CODES).astype("<i2")

    def _note(self, stored: np.ndarray, frames: np.ndarray | None) -> None:
        """Hash the frames as they will be read, and measure their rounding."""
        self.hashes.append(block_digest(stored))
        values = self.stored.decoded(stored)
        self.content.update(values)
        if self.type != np.dtype("<f4") and frames is not None:
            error = np.abs(values.astype(np.float64) - frames)[..., self.gaps.known_to_exist]
            self.error = np.maximum(self.error, error.max((0, 2)))


def _codes(dataset: Dataset, gaps: GapFilter, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """(channel,) scale and offset of int16 codes, from the range of all existing cells."""
    low, high = (
        np.full(dataset.frames.shape[1:], np.inf),
        np.full(dataset.frames.shape[1:], -np.inf),
    )
    for first, stop in itertools.pairwise(blocks.block_edges(dataset.frames)):
        frames = gaps.filled(dataset.frames[first:stop])
        low, high = np.minimum(low, frames.min(0)), np.maximum(high, frames.max(0))
        progress(stop, dataset.frames.shape[0], "range")
    exists = gaps.existing()
    gaps.known_to_exist = gaps.known_to_exist if exists is None else exists
    gaps.restart()
    low, high = low[:, gaps.known_to_exist].min(1), high[:, gaps.known_to_exist].max(1)
    return np.where(high > low, (high - low) / (2 * CODES), 1.0), (low + high) / 2


def open_store(folder: Path, *, memory_gb: float = 1.0) -> Dataset:
    """A dataset as `write_store` wrote it: the same frames, times, splits and words.

    Up to `memory_gb` GiB are loaded into memory; more is read by slice when it is needed. Float32
    has the fingerprint of the dataset it was made from; int16, which rounds, its own.

    Raises `S2KDError` for a folder without a finished store, one by another version, or frames
    and times that differ from those written (frames are checked as they are first read).
    """
    facts = store_facts(folder)
    with plain_fields(folder / FACTS, "prepare again"):
        entry, storage = facts["dataset"], facts["frames"]
        frames: Frames = StoredFrames(
            folder / FRAMES,
            scale=storage["scale"],
            offset=storage["offset"],
            content=storage["content"],
            digests=BlockDigests(
                str(folder / FRAMES), storage["block_frames"], storage["blocks"], "prepare again"
            ),
        )
        if list(frames.shape) != storage["shape"]:
            raise S2KDError(
                f"{folder / FRAMES}: has shape {list(frames.shape)}, {FACTS} says "
                f"{storage['shape']}; prepare again"
            )
        if 4 * int(np.prod(frames.shape)) <= memory_gb * 2**30:
            frames = frames[0 : frames.shape[0]]
        splits = entry["splits"].items()
        return Dataset(
            **{name: entry[name] for name in PLAIN},
            grid=GridSpec.from_dict(entry["grid"]),
            frames=frames,
            times=_times(folder, entry["calendar"], facts.get("times")),
            splits={name: tuple(Stretch(**s) for s in stretches) for name, stretches in splits},
            context=_context(entry["context"]),
            notices=tuple(entry["notices"]),
            simultaneous=entry.get("simultaneous", False),  # absent in older folders
            window=None if entry["window"] is None else (entry["window"][0], entry["window"][1]),
        )


def store_facts(folder: Path) -> dict[str, Any]:
    """The content of `prepared.json`; an error where it is missing or of another version."""
    if not (folder / FACTS).exists():
        if (folder / UNFINISHED).exists():
            raise S2KDError(
                f"{folder}: is not finished; give the same `s2kd data prepare` command again"
            )
        raise S2KDError(f"{folder}: holds no {FACTS}, so `s2kd data prepare` did not write it")
    facts = read_sealed(folder / FACTS, "prepare again")
    if facts.get("layout") != LAYOUT:
        raise S2KDError(
            f"{folder / FACTS}: not of layout {LAYOUT}, so another version wrote it; prepare again"
        )
    return facts


def _times(folder: Path, calendar: str, content: str | None) -> np.ndarray:
    """(time,) datetime64[ns], or cftime objects of another calendar."""
    if content not in (None, file_digest(folder / TIMES)):  # None: of an earlier version
        raise S2KDError(f"{folder / TIMES}: was altered after it was written; prepare again")
    counts = np.load(folder / TIMES)
    if not calendar:
        return counts.view("datetime64[ns]")
    import cftime

    return cftime.num2date(counts, UNITS, calendar=calendar)


def _counted(times: np.ndarray) -> tuple[Int[np.ndarray, " time"], str]:
    """Whole numbers, and the calendar (empty: nanoseconds since 1970)."""
    if times.dtype != object:
        return times.astype("datetime64[ns]").view(np.int64), ""
    import cftime

    calendar = times[0].calendar
    return np.asarray(cftime.date2num(times, UNITS, calendar=calendar), dtype=np.int64), calendar


def _save(path: Path, counts: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, counts)


def _context(entry: Mapping[str, Any] | None) -> tuple[tuple[str, ...], ...] | None:
    if entry is None:
        return None
    words = [tuple(words) for words in entry["words"]]
    return tuple(words[number] for number in entry["frames"])


def _described(dataset: Dataset, calendar: str) -> dict[str, Any]:
    """A dataset but its frames and times, as JSON."""
    context = None
    if dataset.context is not None:
        numbers = {words: n for n, words in enumerate(dict.fromkeys(dataset.context))}
        context = {
            "words": [list(words) for words in numbers],
            "frames": [numbers[words] for words in dataset.context],
        }
    return {
        **{name: getattr(dataset, name) for name in PLAIN},
        "grid": dataset.grid.to_dict(),
        "splits": {k: [asdict(s) for s in v] for k, v in dataset.splits.items()},
        "calendar": calendar,
        "context": context,
        "notices": list(dataset.notices),
        "simultaneous": dataset.simultaneous,
        "window": None if dataset.window is None else list(dataset.window),
    }
