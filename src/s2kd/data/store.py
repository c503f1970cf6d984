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
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

import s2kd
from s2kd.core.files import check_room, digest, read_json, write_json, write_whole
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import frames as blocks
from s2kd.data.dataset import Dataset, FrameHash, Frames, StoredFrames, Stretch
from s2kd.data.gaps import GapFilter

if TYPE_CHECKING:
    pass

LAYOUT = 1
"""Rises with every change of the store, so that an older folder is not misread."""
FACTS, FRAMES, TIMES, UNFINISHED = "prepared.json", "frames.npy", "times.npy", "unfinished"
DTYPES = ("float32", "int16")
CODES = 32767
"""int16 codes run from -CODES to CODES."""
CHECKED_BLOCKS = 4
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
    channels = len(dataset.grid.channels)
    scale, offset = np.ones(channels), np.zeros(channels)
    if dtype == "int16":
        low, high = _extremes(dataset, gaps, unfinished, key, progress)
        offset, scale = (low + high) / 2, np.where(high > low, (high - low) / (2 * CODES), 1.0)
        gaps.restart()
    writer = _Writer(dataset, gaps, unfinished, dtype, scale, offset)
    writer.run(key, progress)
    grid = blocks.masked(dataset.grid, gaps.existing())
    counts, calendar = _counted(dataset.times)
    write_whole(unfinished / TIMES, lambda path: _save(path, counts))
    dataset = replace(dataset, grid=grid)
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
        "dataset": _described(dataset, calendar),
    }
    for name in (FRAMES, TIMES):
        (unfinished / name).replace(folder / name)
    write_json(folder / FACTS, facts)
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
        self.scale, self.offset = scale[:, None, None], offset[:, None, None]
        self.shape = tuple(dataset.frames.shape)
        self.block = max(1, blocks.BLOCK_BYTES // (4 * int(np.prod(self.shape[1:]))))
        self.hashes: list[str] = []
        self.content, self.error = FrameHash(), np.zeros(len(scale))

    def run(self, key: str, progress: Progress) -> None:
        """Write all blocks, after those that an interrupted copy of the same key has written."""
        path, total = self.folder / FRAMES, self.shape[0]
        done = self._resumed(path, digest([key, self.type.str, self.shape]))
        if done:
            progress(done, total, "found")
        with path.open("rb+") as file:
            file.seek(0, os.SEEK_END)
            for first in range(done, total, self.block):
                stop = min(first + self.block, total)
                frames = self.gaps.filled(self.dataset.frames[first:stop])
                coded = self._coded(frames)
                file.write(coded.data)
                file.flush()
                self._note(coded, frames)
                self.gaps.save(self.folder / "gaps.npz")
                write_json(self.folder / "blocks.json", {"hashes": self.hashes})
                progress(stop, total, "")
            os.fsync(file.fileno())

    def _resumed(self, path: Path, key: str) -> int:
        """Frames of an interrupted copy, whose blocks must have the hashes noted."""
        state = self.folder / "state.json"
        if not state.exists() or read_json(state) != key or not path.exists():
            self._start(path)
            write_json(state, key)
            return 0
        blocks = self.folder / "blocks.json"
        hashes = read_json(blocks)["hashes"] if blocks.exists() else []
        begin, size = self._data_offset(path), self.type.itemsize * int(np.prod(self.shape[1:]))
        done = min(len(hashes) * self.block, self.shape[0])
        with path.open("rb+") as file:
            file.truncate(begin + done * size)
            file.seek(begin)
            for number, expected in enumerate(hashes):
                count = min(self.block, self.shape[0] - number * self.block)
                stored = np.frombuffer(file.read(count * size), self.type)
                if len(stored) * self.type.itemsize != count * size or _hash(stored) != expected:
                    self._start(path)
                    return 0
                stored = stored.reshape(-1, *self.shape[1:])
                if number in (0, len(hashes) - 1) and not self._is_source(number, stored):
                    self._start(path)
                    return 0
                self._note(stored, None)
        if done:
            self.gaps.load(self.folder / "gaps.npz")
        return done

    def _is_source(self, number: int, stored: np.ndarray) -> bool:
        """Whether the source still has these frames (missing values aside)."""
        first = number * self.block
        frames = np.asarray(self.dataset.frames[first : first + len(stored)])
        same = self._coded(np.nan_to_num(frames)) == stored
        return bool((same | ~np.isfinite(frames) | ~self.dataset.grid.exists).all())

    def _start(self, path: Path) -> None:
        size = int(np.prod(self.shape)) * self.type.itemsize
        check_room(self.folder, size)
        self.hashes, self.content = [], FrameHash()
        (self.folder / "blocks.json").unlink(missing_ok=True)
        with path.open("wb") as file:
            header = {"descr": self.type.str, "fortran_order": False, "shape": self.shape}
            np.lib.format.write_array_header_1_0(file, header)

    def _data_offset(self, path: Path) -> int:
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            return file.tell()

    def _coded(self, frames: np.ndarray) -> np.ndarray:
        if self.type == np.dtype("<f4"):
            return np.ascontiguousarray(frames, dtype="<f4")
        codes = np.rint((frames.astype(np.float64) - self.offset) / self.scale)
        codes[..., ~self.gaps.known_to_exist] = 0
        return np.clip(codes, -CODES, CODES).astype("<i2")

    def _note(self, stored: np.ndarray, frames: np.ndarray | None) -> None:
        """Hash the frames as they will be read, and measure their rounding."""
        self.hashes.append(_hash(stored))
        values = stored
        if self.type != np.dtype("<f4"):
            scale, shift = self.scale.astype(np.float32), self.offset.astype(np.float32)
            values = stored.astype(np.float32) * scale + shift
            if frames is not None:
                exists = self.gaps.known_to_exist
                error = np.abs(values.astype(np.float64) - frames)[..., exists].max((0, 2))
                self.error = np.maximum(self.error, error)
        self.content.update(values)


def _hash(stored: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(stored).data, digest_size=8).hexdigest()


def _extremes(
    dataset: Dataset, gaps: GapFilter, folder: Path, key: str, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """(channel,) least and greatest value over all frames and existing cells, for int16 codes."""
    path, shape = folder / "extremes.json", dataset.frames.shape
    saved = read_json(path) if path.exists() else {}
    if saved.get("key") != key:
        low, high = np.full(shape[1:], np.inf), np.full(shape[1:], -np.inf)
        edges = blocks.block_edges(dataset.frames)
        for first, stop in itertools.pairwise(edges):
            frames = gaps.filled(dataset.frames[first:stop])
            low, high = np.minimum(low, frames.min(0)), np.maximum(high, frames.max(0))
            progress(stop, shape[0], "range")
        exists = gaps.existing()
        exists = np.ones(shape[2:], dtype=bool) if exists is None else exists
        saved = {
            "key": key,
            "low": low[:, exists].min(1).tolist(),
            "high": high[:, exists].max(1).tolist(),
            "exists": exists.tolist(),
        }
        write_json(path, saved)
    gaps.known_to_exist = np.array(saved["exists"])
    return np.array(saved["low"]), np.array(saved["high"])


def open_store(folder: Path, *, memory_gb: float = 1.0) -> Dataset:
    """A dataset as `write_store` wrote it: the same frames, times, splits and words.

    Up to `memory_gb` GiB are loaded into memory; more is read by slice when it is needed. Float32
    has the fingerprint of the dataset it was made from; int16, which rounds, its own.

    Raises `S2KDError` for a folder without a finished store, one by another version, or frames
    that differ from those written (an even sample of blocks is checked).
    """
    facts = store_facts(folder)
    entry, storage = facts["dataset"], facts["frames"]
    frames: Frames = StoredFrames(
        folder / FRAMES,
        scale=storage["scale"],
        offset=storage["offset"],
        content=storage["content"],
    )
    _check_frames(folder, frames, storage)
    if 4 * int(np.prod(frames.shape)) <= memory_gb * 2**30:
        frames = frames[0 : frames.shape[0]]
    splits = entry["splits"].items()
    return Dataset(
        name=entry["name"],
        domain=entry["domain"],
        grid=GridSpec.from_dict(entry["grid"]),
        frames=frames,
        times=_times(folder, entry["calendar"]),
        splits={name: tuple(Stretch(**s) for s in stretches) for name, stretches in splits},
        local_time=entry["local_time"],
        context=_context(entry["context"]),
        attributes=entry["attributes"],
        source=entry["source"],
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
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or facts.get("layout") != LAYOUT:
        raise S2KDError(
            f"{folder / FACTS}: not of layout {LAYOUT}, so another version wrote it; prepare again"
        )
    return facts


def _check_frames(folder: Path, frames: StoredFrames, storage: Mapping[str, Any]) -> None:
    """The shape, and the content of a few blocks."""
    if list(frames.shape) != storage["shape"]:
        raise S2KDError(
            f"{folder / FRAMES}: has shape {list(frames.shape)}, {FACTS} says "
            f"{storage['shape']}; prepare again"
        )
    hashes, size = storage["blocks"], storage["block_frames"]
    for number in np.unique(np.linspace(0, len(hashes) - 1, CHECKED_BLOCKS).astype(int)):
        first = int(number) * size
        block = frames.stored(first, min(first + size, frames.shape[0]))
        if _hash(block) != hashes[number]:
            raise S2KDError(
                f"{folder / FRAMES}: frames {first} to {first + len(block) - 1} differ from those "
                "written; prepare again"
            )


def _times(folder: Path, calendar: str) -> np.ndarray:
    """(time,) datetime64[ns], or cftime objects of another calendar."""
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
        "name": dataset.name,
        "domain": dataset.domain,
        "grid": dataset.grid.to_dict(),
        "splits": {k: [asdict(s) for s in v] for k, v in dataset.splits.items()},
        "local_time": dataset.local_time,
        "calendar": calendar,
        "context": context,
        "attributes": {k: dict(v) for k, v in dataset.attributes.items()},
        "source": dataset.source,
        "notices": list(dataset.notices),
        "simultaneous": dataset.simultaneous,
        "window": None if dataset.window is None else list(dataset.window),
    }
