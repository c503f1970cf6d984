"""Writing any dataset once as plain frames on disk, which train as fast as memory does.

```
OUT/prepared.json   what the dataset is, how frames are stored, hashes
OUT/frames.npy      (time, channel, height, width) float32, or int16 with scale and offset
OUT/times.npy       (time,) nanoseconds since 1970 (another calendar: microseconds)
OUT/unfinished/     while it is being written; the same command goes on from there
```
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import to_builtins

import s2kd
from s2kd.core.files import digest, read_json, write_json, write_whole
from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data._end_to_end import refuse_not_finite
from s2kd.data.dataset import Dataset, FrameFile, FrameHash
from s2kd.data.prepared import (
    DTYPES,
    FACTS,
    FRAMES,
    LAYOUT,
    TIMES,
    UNFINISHED,
    UNITS,
    PreparedFrames,
    block_hash,
)

BLOCK_BYTES = 2**24
CODES = 32767
"""int16 codes run from -CODES to CODES."""

Report = Callable[[int, int, str], None]


def _silent(done: int, total: int, word: str) -> None:
    """Nothing is shown."""


def prepare(
    part: Part, out: Path, *, dtype: str = "float32", report: Report = _silent
) -> dict[str, Any]:
    """Read `part` and write it to the folder `out`; returns what `prepared.json` holds.

    What the part copies on its way (its `cache`, unless it is set) lies in `out` and is removed.
    """
    if dtype not in DTYPES:
        raise S2KDError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    params = dict(part.params)
    if "cache" in datasets.options(part.name) and not params.get("cache"):
        params["cache"] = str(out / UNFINISHED / "source")
    key = digest([LAYOUT, dtype, to_builtins(part)])
    done = _done(out, key)
    if done is not None:
        return done
    facts = write(datasets.build(part.name, **params), out, dtype=dtype, key=key, report=report)
    facts["part"] = to_builtins(part)
    return _finish(out, facts)


def _done(out: Path, key: str) -> dict[str, Any] | None:
    """What is there already, if it is this; something else there is refused."""
    if out.exists() and not out.is_dir():
        raise S2KDError(f"{out}: is a file; --out wants a folder")
    if (out / FACTS).exists():
        facts = read_json(out / FACTS)
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)
        if facts.get("key") != key:
            raise S2KDError(
                f"{out}: holds other prepared data ({facts.get('part')}, "
                f"{facts.get('frames', {}).get('dtype')}); choose another --out, or delete it"
            )
        return facts
    there = {p.name for p in out.iterdir() if p.name[0] != "."} if out.exists() else set()
    if UNFINISHED in there:  # killed between the last moves: they are done again
        for name in there & {FRAMES, TIMES}:
            (out / name).replace(out / UNFINISHED / name)
    elif there:
        raise S2KDError(f"{out}: is not empty and holds no prepared data; choose another --out")
    return None


def write(
    dataset: Dataset, out: Path, *, dtype: str, key: str, report: Report = _silent
) -> dict[str, Any]:
    """Stream the frames to `out/unfinished/frames.npy`; goes on where a killed one stopped."""
    folder = out / UNFINISHED
    folder.mkdir(parents=True, exist_ok=True)
    state = _State(
        folder, digest([key, dataset.frames.shape, dataset.grid.to_dict(), _splits(dataset)])
    )
    scale, offset = np.ones(len(dataset.grid.channels)), np.zeros(len(dataset.grid.channels))
    source = ""
    if dtype == "int16":
        low, high, source = _extremes(dataset, state, report)
        offset = (low + high) / 2
        scale = np.where(high > low, (high - low) / (2 * CODES), 1.0)
    writer = _Writer(dataset, folder / FRAMES, dtype, scale, offset, state)
    writer.run(report)
    content, blocks = writer.content.hexdigest(), state.blocks
    counts, calendar = _counted(dataset.times)
    write_whole(folder / TIMES, lambda path: _save(path, counts))
    facts = {
        "layout": LAYOUT,
        "key": key,
        "s2kd": s2kd.__version__,
        "frames": {
            "shape": list(dataset.frames.shape),
            "dtype": dtype,
            "scale": scale.tolist(),
            "offset": offset.tolist(),
            "largest_error": writer.error.tolist(),
            "content": content,
            "block_frames": writer.block,
            "blocks": blocks,
        },
        "dataset": _described(dataset, calendar),
    }
    own = dataset.fingerprint_of(content)
    facts["fingerprint"] = own
    facts["source_fingerprint"] = source or own
    return facts


def _finish(out: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Move what is whole into place; `prepared.json` comes last and says that all is there."""
    folder = out / UNFINISHED
    for name in (FRAMES, TIMES):
        if (folder / name).exists():
            (folder / name).replace(out / name)
    write_json(out / FACTS, facts)
    shutil.rmtree(folder)
    return read_json(out / FACTS)


@dataclass
class _State:
    """What has been done in this folder, for as long as the work is the same."""

    folder: Path
    key: str
    blocks: list[str] = field(default_factory=list)
    extremes: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        path = self.folder / "state.json"
        held = read_json(path) if path.exists() else {}
        if held.get("key") != self.key:
            for name in ("blocks.txt", "state.json", FRAMES):
                (self.folder / name).unlink(missing_ok=True)
            write_json(path, {"key": self.key})
            return
        self.extremes = held.get("extremes")
        journal = self.folder / "blocks.txt"
        # the last line may be torn
        lines = journal.read_text(encoding="ascii").split("\n")[:-1] if journal.exists() else []
        self.blocks = lines

    def keep_extremes(self, extremes: dict[str, Any]) -> None:
        self.extremes = extremes
        write_json(self.folder / "state.json", {"key": self.key, "extremes": extremes})

    def rewrite(self, blocks: list[str]) -> None:
        """Forget the blocks after these."""
        self.blocks = blocks
        text = "".join(f"{block}\n" for block in blocks)
        write_whole(self.folder / "blocks.txt", lambda path: path.write_text(text))

    def add(self, block: str) -> None:
        self.blocks.append(block)
        with (self.folder / "blocks.txt").open("a", encoding="ascii") as file:
            file.write(f"{block}\n")


class _Writer:
    """Frames to disk, block by block, with their hashes."""

    def __init__(
        self,
        dataset: Dataset,
        path: Path,
        dtype: str,
        scale: np.ndarray,
        offset: np.ndarray,
        state: _State,
    ) -> None:
        self.dataset, self.path, self.state = dataset, path, state
        self.type = np.dtype("<f4" if dtype == "float32" else "<i2")
        self.scale, self.offset = scale[:, None, None], offset[:, None, None]
        self.block = max(1, BLOCK_BYTES // (4 * int(np.prod(dataset.frames.shape[1:]))))
        self.content, self.error = FrameHash(), np.zeros(len(scale))
        self.frame_bytes = self.type.itemsize * int(np.prod(dataset.frames.shape[1:]))

    def run(self, report: Report) -> None:
        total, done = self.dataset.frames.shape[0], 0
        self._begin()
        reader = PreparedFrames(
            self.path,
            scale=self.scale.ravel().tolist(),
            offset=self.offset.ravel().tolist(),
            content="",
        )
        held, self.state.blocks = self.state.blocks, []
        for number, expected in enumerate(held):
            stored = reader.stored(done, min(done + self.block, total))
            if block_hash(stored) != expected or not self._same(number, len(held), done, stored):
                break
            self._note(reader, done, stored)
            self.state.blocks.append(expected)
            done += len(stored)
            report(done, total, "found")
        self.state.rewrite(self.state.blocks)
        with self.path.open("rb+") as file:
            for first in range(done, total, self.block):
                frames = self._frames(first, min(first + self.block, total))
                stored = self._coded(frames)
                if not self.adopted:
                    file.seek(self.header + first * self.frame_bytes)
                    file.write(stored.data)
                    file.flush()
                self.state.add(block_hash(stored))
                self._note(reader, first, stored, frames)
                report(first + len(stored), total, "")
            os.fsync(file.fileno())

    def _begin(self) -> None:
        """The file at its full length, so that there is room for all of it or an error now."""
        shape = self.dataset.frames.shape
        size = shape[0] * self.frame_bytes
        source = self.dataset.frames
        ours = isinstance(source, FrameFile) and self.path.parent in source.path.parents
        self.adopted = ours and self.type == np.dtype("<f4")
        if not self.path.exists():
            self.state.rewrite([])
            if self.adopted:
                os.link(source.path, self.path)  # what the part copied on its way is the frames
            else:
                free = shutil.disk_usage(self.path.parent).free
                if free < size:
                    raise S2KDError(
                        f"{self.path.parent.parent}: {size / 2**30:.1f} GiB are needed, "
                        f"{free / 2**30:.1f} GiB are free; choose --out on a larger disk"
                    )
                write_whole(self.path, lambda path: self._header(path, size))
        with self.path.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            self.header = file.tell()

    def _header(self, path: Path, size: int) -> None:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file,
                {
                    "descr": self.type.str,
                    "fortran_order": False,
                    "shape": tuple(self.dataset.frames.shape),
                },
            )
            file.truncate(file.tell() + size)

    def _same(self, number: int, count: int, first: int, stored: np.ndarray) -> bool:
        """Whether the source still gives these frames: looked at in the first and last block."""
        if number not in (0, count - 1):
            return True
        return np.array_equal(self._coded(self._frames(first, first + len(stored))), stored)

    def _frames(self, first: int, stop: int) -> np.ndarray:
        """These frames of the source, which must be finite."""
        frames = np.ascontiguousarray(self.dataset.frames[first:stop], dtype=np.float32)
        refuse_not_finite(self.dataset.name, frames, self.dataset.grid.channels, first)
        return frames

    def _coded(self, frames: np.ndarray) -> np.ndarray:
        """Frames as they are to lie on disk."""
        if self.type == np.dtype("<f4"):
            return frames
        codes = np.rint((frames.astype(np.float64) - self.offset) / self.scale)
        codes[..., ~self.dataset.grid.exists] = 0
        return np.clip(codes, -CODES, CODES).astype("<i2")

    def _note(
        self,
        reader: PreparedFrames,
        first: int,
        stored: np.ndarray,
        meant: np.ndarray | None = None,
    ) -> None:
        """Hash what will be read, and see how far it is from what was meant."""
        read = reader.decoded(stored)
        self.content.update(read)
        if self.type != np.dtype("<f4"):
            exists = self.dataset.grid.exists
            if meant is None:
                meant = np.asarray(self.dataset.frames[first : first + len(stored)])
            apart = np.abs(read.astype(np.float64) - meant)[..., exists].max((0, 2))
            self.error = np.maximum(self.error, apart)


def _extremes(
    dataset: Dataset, state: _State, report: Report
) -> tuple[np.ndarray, np.ndarray, str]:
    """(channel,) least and greatest value of every split's frames, and the source's fingerprint.

    They only say how coarse the codes are: of all frames, so that none is clipped.
    """
    if state.extremes is None:
        channels = len(dataset.grid.channels)
        low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
        content, exists = FrameHash(), dataset.grid.exists
        for first, block in _blocks(dataset):
            refuse_not_finite(dataset.name, block, dataset.grid.channels, first)
            content.update(block)
            low = np.minimum(low, block[..., exists].min((0, 2)))
            high = np.maximum(high, block[..., exists].max((0, 2)))
            report(first + len(block), dataset.frames.shape[0], "range")
        own = dataset.fingerprint_of(content.hexdigest())
        state.keep_extremes({"low": low.tolist(), "high": high.tolist(), "fingerprint": own})
    held = state.extremes
    return np.array(held["low"]), np.array(held["high"]), held["fingerprint"]


def _blocks(dataset: Dataset) -> Iterator[tuple[int, np.ndarray]]:
    size = max(1, BLOCK_BYTES // (4 * int(np.prod(dataset.frames.shape[1:]))))
    for first in range(0, dataset.frames.shape[0], size):
        yield first, np.asarray(dataset.frames[first : first + size])


def _splits(dataset: Dataset) -> dict[str, list[list[Any]]]:
    return {k: [[s.first, s.stop, s.name] for s in v] for k, v in dataset.splits.items()}


def _counted(times: np.ndarray) -> tuple[np.ndarray, str]:
    """(time,) whole numbers, and the calendar (empty: nanoseconds since 1970)."""
    if times.dtype != object:
        return times.astype("datetime64[ns]").view(np.int64), ""
    import cftime

    calendar = times[0].calendar
    return np.asarray(cftime.date2num(times, UNITS, calendar=calendar), dtype=np.int64), calendar


def _save(path: Path, counts: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, counts)


def _described(dataset: Dataset, calendar: str) -> dict[str, Any]:
    """All of a dataset but its frames and times, as JSON."""
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
