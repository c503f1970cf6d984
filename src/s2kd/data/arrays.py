"""Anyone's arrays: `.npy`, `.npz` or HDF5, with axes, channels and times as described."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import Domain, GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data._array_runs import Run, check_layout, coordinate, runs_of, same_shape
from s2kd.data._array_splits import run_splits, series_splits
from s2kd.data._arrays import ENDINGS
from s2kd.data._end_to_end import EndToEnd
from s2kd.data._missing import CHOICES, Missing
from s2kd.data.dataset import Dataset, Frames

JOINS = ("time", "runs")


@datasets.register("arrays")
def arrays(
    *,
    path: str | Sequence[str],
    key: str | Sequence[str] = "",
    layout: str = "TCHW",
    channels: Sequence[str] = (),
    units: Sequence[str] = (),
    step_seconds: float | int | None = None,
    start: str = "",
    time: str = "",
    latitude: str | Sequence[float | int] = "",
    longitude: str | Sequence[float | int] = "",
    south_first: bool = False,
    wraps: bool = False,
    join: str = "time",
    train: Sequence[str] = (),
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    fractions: Sequence[float] | None = (0.75, 0.1, 0.15),
    gap: int = 24,
    missing: str = "error",
    memory_gb: float | int = 1.0,
    cache: str = "",
    domain: Domain = "generic",
    local_time: bool = False,
) -> Dataset:
    """Frames from `.npy`, `.npz` or HDF5 whose axes you describe: a file, files or a pattern.

    `layout` names the axes in order: T time, H rows, W columns, C channel (left out: one channel)
    and R run; `TCHW`, `THWC`, `THW`, `RTCHW`. `key` is the array in an `.npz` or HDF5 file (not
    needed where only one has so many axes), or several that have no axis C: its channels, by their
    names unless `channels` gives others; `channels` and `units` name what C holds. Times are
    `start` (by default 2000-01-01) and `step_seconds` a frame, or `time`, a key (or `.npy` file)
    with datetime64, text or seconds since `start`, which must be given where they look like Unix
    time. `latitude` and `longitude` are degrees, or keys (or `.npy` files) that
    hold them; rows are turned north first and columns west first by them, or by `south_first`.
    `wraps` says that the columns go round the globe.

    `join="time"`: all files are one series, in order of their times (without `time`: of their
    names, with no step left out between files). Splits are dates (`train=["2013-01",
    "2014-06-30"]`) or `fractions` of the record, `gap` frames left out between.
    `join="runs"`: every file (and every entry of R) is a run, or a city, of its own, named by its
    file (and `_` and its number in R). Splits are names, patterns, or ranges of numbers in the
    order of files (`train=["0:16"]`, `test=["storm_*"]`); without them every run is cut in time by
    `fractions`. No window crosses from one run to the next, or over a missing time.
    `fractions=None` cuts nothing: all is test, to forecast from.

    `missing` says what to do about values that are not finite: `error`; `mask` takes cells that
    are missing at every time out of the grid; `fill` also carries each cell's last value forward
    within its run (in memory only). Above `memory_gb` GiB, frames are read when they are needed;
    packed `.npz` are unpacked once into `cache` (by default `.s2kd-cache` beside the file).
    """
    _check(layout=layout, join=join, missing=missing)
    files = _files(path)
    where = str(path) if isinstance(path, str) else str(files[0].parent)
    begin = _start(start)
    step = None if step_seconds is None else _positive(float(step_seconds))
    keys = [key] if isinstance(key, str) else list(dict.fromkeys(key)) or [""]
    if len(keys) > 1 and not channels:
        channels = keys
    runs = [
        run
        for file in files
        for run in runs_of(
            file, keys=keys, layout=layout, time=time, start=begin, step_seconds=step, cache=cache
        )
    ]
    same_shape(runs)
    runs, grid = _described(files[0], runs, channels, units, latitude, longitude, south_first)
    if join == "time":
        runs = _one_series(where, runs, timed=bool(time))
        times, splits, step = series_splits(where, runs, step, train, val, test, fractions, gap)
    else:
        times, splits, step = run_splits(where, runs, step, train, val, test, fractions, gap)
    frames, exists = _frames(where, runs, times, missing, float(memory_gb), joined=join == "time")
    mask = None if exists is None else tuple(tuple(map(bool, row)) for row in exists)
    return Dataset(
        name=Path(where.replace("*", "")).stem or "arrays",
        domain=domain,
        grid=replace(grid, step_seconds=step, wraps=wraps, mask=mask),
        frames=frames,
        times=times,
        splits=splits,
        local_time=local_time,
        source=", ".join(file.name for file in files[:4]) + (", …" if len(files) > 4 else ""),
    )


def _check(**settings: str) -> None:
    check_layout(settings["layout"])
    for name, known in (("join", JOINS), ("missing", CHOICES)):
        if settings[name] not in known:
            raise S2KDError(
                f"arrays: {name}={settings[name]!r}{nearest(settings[name], known)}: must be one "
                f"of {', '.join(known)}"
            )
    if settings["join"] == "time" and "R" in settings["layout"]:
        raise S2KDError("arrays: a layout with R holds several runs, so set join='runs'")


def _start(start: str) -> np.datetime64 | None:
    if not start:
        return None
    try:
        return np.datetime64(start.replace(" ", "T"), "ns")
    except ValueError as error:
        raise S2KDError(f"arrays: start={start!r} is no date ({error})") from None


def _positive(step_seconds: float) -> float:
    if not step_seconds > 0:
        raise S2KDError(f"arrays: step_seconds={step_seconds:g} must be above 0")
    return step_seconds


def _files(path: str | Sequence[str]) -> list[Path]:
    """The files meant, a pattern's in order of name."""
    found: list[Path] = []
    for one in [path] if isinstance(path, str) else path:
        given = Path(one).expanduser()
        if given.is_dir():
            inside = sorted(p for p in given.iterdir() if p.suffix.lower() in ENDINGS)
            if not inside:
                raise S2KDError(f"{one}: a folder without files that end in {', '.join(ENDINGS)}")
            found += inside
        elif given.is_file():
            found.append(given)
        else:
            # pathlib's own globbing cannot start from an absolute pattern
            matched = sorted(map(Path, glob.glob(str(given), recursive=True)))  # noqa: PTH207
            if not matched:
                raise S2KDError(f"{one}: no such file, folder or pattern that matches")
            found += matched
    if len(set(found)) < len(found):
        raise S2KDError(f"arrays: path names {found[0].name} and others more than once")
    return found


def _described(
    file: Path,
    runs: list[Run],
    channels: Sequence[str],
    units: Sequence[str],
    latitude: str | Sequence[float | int],
    longitude: str | Sequence[float | int],
    south_first: bool,
) -> tuple[list[Run], GridSpec]:
    """Runs that know their channels and how to turn, and the grid (its step is yet to come)."""
    _, count, height, width = runs[0].shape
    names = tuple(channels) or tuple(f"channel_{n}" for n in range(count))
    held = tuple(units) or ("",) * len(names)
    for what, given in (("channels", names), ("units", held)):
        if len(given) != count:
            raise S2KDError(
                f"{runs[0].array.where}: has shape {runs[0].array.shape}, {count} channels by "
                f"layout={runs[0].layout!r}, but {what} names {len(given)} ({', '.join(given)})"
            )
    north = coordinate(file, "latitude", latitude, height)
    east = coordinate(file, "longitude", longitude, width)
    flip_rows = south_first if north is None else bool(north[0] < north[-1])
    flip_columns = east is not None and bool(east[0] > east[-1])
    if north is not None and south_first and not flip_rows:
        raise S2KDError(f"{file}: south_first contradicts latitudes from {north[0]:g} down")
    turned = [
        replace(run, flip_rows=flip_rows, flip_columns=flip_columns, channels=names) for run in runs
    ]
    grid = GridSpec(
        channels=names,
        units=held,
        height=height,
        width=width,
        step_seconds=1.0,
        latitude=None if north is None else tuple(map(float, north[::-1] if flip_rows else north)),
        longitude=None if east is None else tuple(map(float, east[::-1] if flip_columns else east)),
    )
    return turned, grid


def _one_series(where: str, runs: list[Run], *, timed: bool) -> list[Run]:
    """Files in order of time; where they do not say, one after the other."""
    if timed:
        return sorted(runs, key=lambda run: run.times[0])
    placed, frames = [], 0
    for run in runs:
        step = run.times[1] - run.times[0] if len(run.times) > 1 else np.timedelta64(0, "ns")
        placed.append(replace(run, times=run.times + frames * step))
        frames += len(run.times)
    return placed


def _frames(
    where: str,
    runs: list[Run],
    times: np.ndarray,
    missing: str,
    memory_gb: float,
    *,
    joined: bool,
) -> tuple[Frames, np.ndarray | None]:
    """All frames, in memory where they fit, and which cells exist (None: all)."""
    shape = (len(times), *runs[0].shape[1:])
    size = 4 * int(np.prod(shape)) / 2**30
    if size <= memory_gb:
        return _in_memory(where, runs, times, missing, joined=joined)
    if missing == "fill":
        raise S2KDError(
            f"{where}: missing='fill' is done in memory, and these frames take {size:.1f} GiB; "
            f"set memory_gb to {np.ceil(size):.0f}, or fill the files"
        )
    if missing == "error":
        return EndToEnd([replace(run, finite=True) for run in runs]), None
    seen = np.zeros(shape[1:], dtype=bool)
    for run in runs:
        for block in _blocks(run):
            seen |= np.isfinite(block).any(0)
    exists = seen.all(0)
    if not exists.any():
        raise S2KDError(f"{where}: no cell has values in every channel")
    own = runs if exists.all() else [run.existing(exists) for run in runs]
    frames = EndToEnd([replace(run, finite=True) for run in own])
    return frames, None if exists.all() else exists


def _in_memory(
    where: str, runs: list[Run], times: np.ndarray, missing: str, *, joined: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """As one array. A cell of one run is never filled from another."""
    frames = np.empty((len(times), *runs[0].shape[1:]), dtype=np.float32)
    height, width = runs[0].shape[2:]
    first, watches = 0, []
    watch = Missing(runs[0].channels, height, width, wraps=False)
    exists: np.ndarray | None = None
    for run in runs:
        if not joined or not watches:
            watch = Missing(runs[0].channels, height, width, wraps=False)
            watches.append((watch, first, run))
        for block in _blocks(run):
            block = np.ascontiguousarray(block)
            watch.watch(block)
            frames[first : first + len(block)] = block
            first += len(block)
    for watch, begin, run in watches:
        named = where if joined else run.array.where
        own = watch.exists(named, missing, times[begin : begin + watch.frames])
        if own is not None:
            exists = own if exists is None else exists & own
    return frames, exists


def _blocks(run: Run) -> Iterator[np.ndarray]:
    """All of a run in blocks of at most 64 MiB."""
    size = max(1, 2**26 // (4 * int(np.prod(run.shape[1:]))))
    for first in range(0, run.shape[0], size):
        yield run.raw(first, min(first + size, run.shape[0]))
