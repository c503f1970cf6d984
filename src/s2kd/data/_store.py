"""A series that is larger than memory, written once as plain frames on disk."""

import shutil
from pathlib import Path

import numpy as np

from s2kd.core.files import digest, read_json, write_json, write_whole
from s2kd.core.types import S2KDError
from s2kd.data._missing import Missing
from s2kd.data._series import Series
from s2kd.data.dataset import FrameFile, Frames

LAYOUT = 1
"""Counts up whenever what is stored changes, so that an older cache is not read."""


def in_memory(series: Series, index: np.ndarray, missing: str) -> tuple[Frames, np.ndarray | None]:
    """These frames as one array, and which cells exist (None: all)."""
    watch = _watch(series)
    frames = np.empty((len(index), *series.shape[1:]), dtype=np.float32)
    first = 0
    for block in series.blocks(index):
        watch.watch(block)
        frames[first : first + len(block)] = block
        first += len(block)
    return frames, watch.exists(series.path, missing, series.times[index])


def on_disk(
    series: Series, index: np.ndarray, missing: str, cache: str
) -> tuple[Frames, np.ndarray | None]:
    """These frames as a `.npy` under `cache`, streamed there where it is not there yet."""
    folder = Path(cache).expanduser() if cache else series.files[0].parent / ".s2kd-cache"
    frames = folder / f"{_key(series, index, missing)}.npy"
    facts = frames.with_suffix(".json")
    if not (frames.exists() and facts.exists()):
        _check_room(series, folder, len(index) * int(np.prod(series.shape[1:])) * 4)
        exists: list[np.ndarray | None] = []
        write_whole(frames, lambda path: exists.append(_stream(series, index, missing, path)))
        rows = None if exists[0] is None else exists[0].astype(int).tolist()
        write_json(facts, {"exists": rows, "files": [str(file) for file in series.files]})
    rows = read_json(facts)["exists"]
    return FrameFile(frames), None if rows is None else np.array(rows, dtype=bool)


def _stream(series: Series, index: np.ndarray, missing: str, path: Path) -> np.ndarray | None:
    watch = _watch(series)
    shape = (len(index), *series.shape[1:])
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        for block in series.blocks(index):
            watch.watch(block)
            block.astype("<f4", copy=False).tofile(file)
    return watch.exists(series.path, missing, series.times[index])


def _watch(series: Series) -> Missing:
    _, _, height, width = series.shape
    return Missing(series.channels, height, width, wraps=series.plane.wraps)


def _key(series: Series, index: np.ndarray, missing: str) -> str:
    """Changes with the files (by size and time of change), the selection and what is done."""
    stamps = [_stamp(file) for file in series.files]
    chosen = [len(index), int(index[0]), int(index[-1]), int(index.sum())]
    return digest([LAYOUT, stamps, series.channels, series.shape, chosen, missing])


def _stamp(path: Path) -> tuple[str, int, int]:
    """Name, total size and latest change in ns; of a Zarr folder, of all that is in it.

    What is at an address has neither: its name alone must do.
    """
    if not path.exists():
        return (str(path), 0, 0)
    inside = [p.stat() for p in path.rglob("*")] if path.is_dir() else []
    stats = [path.stat(), *inside]
    return (str(path.resolve()), sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats))


def _check_room(series: Series, folder: Path, size: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise S2KDError(
            f"{series.path}: {size / 2**30:.1f} GiB of frames are larger than memory_gb and "
            f"{folder} cannot be written ({error.strerror}); set cache to a folder that can"
        ) from None
    free = shutil.disk_usage(folder).free
    if free < size:
        raise S2KDError(
            f"{folder}: {size / 2**30:.1f} GiB are needed for the frames of {series.path}, "
            f"{free / 2**30:.1f} GiB are free; set cache to a folder on a larger disk"
        )
