"""The funnel from a reader's `xarray.Dataset` to frames that train: splits, gaps, memory."""

import glob
import itertools
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from jaxtyping import Int

from s2kd.core.files import check_room, digest, locked
from s2kd.core.recipe import Keep, Part, Split
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import store as storage
from s2kd.data.dataset import SPLITS, Dataset, Stretch
from s2kd.data.frames import RecordFrames, copied_to_memory
from s2kd.data.gaps import GapFilter
from s2kd.data.readers import readers
from s2kd.data.readers._record import check_names
from s2kd.data.readers.files import IN_MEMORY
from s2kd.data.splits import (
    date_range,
    held_out,
    make_splits,
    merged,
    run_starts,
    unbroken,
    within,
)
from s2kd.data.steps import iso, step_numbers, time_problems
from s2kd.data.values import packed_edges

if TYPE_CHECKING:
    import xarray as xr

PREPARED, MEMORY = "prepared", "memory"
DEFAULT_SPLIT, DEFAULT_KEEP = Split(), Keep()


def load(
    part: "Part | xr.Dataset | xr.DataArray",
    split: Split = DEFAULT_SPLIT,
    keep: Keep = DEFAULT_KEEP,
    *,
    data: "xr.Dataset | xr.DataArray | None" = None,
) -> Dataset:
    """Read a dataset, split it, and keep its frames in memory or in one store on disk.

    Args:
        part: a reader by name, with its settings; or CF data in memory, which is the same as
            `Part(name="memory")` with `data`.
        split: which frames are train, val and test; what it leaves open is the reader's default,
            else fractions 0.75, 0.1 and 0.15 with a gap of 24 frames.
        keep: missing values, time stride, memory and cache.
        data: what the reader `memory` reads: an xarray object whose axes are found as those of a
            CF file are.

    Raises:
        S2KDError: whatever the reader, the splits or the missing values do not allow.
    """
    if not isinstance(part, Part):
        part, data = Part(name=MEMORY), part
    if part.name == PREPARED:
        readers.check(part.name, part.params)
        return storage.open_store(
            Path(part.params["path"]).expanduser(), memory_gb=float(keep.memory_gb)
        )
    dataset, gaps = open_record(part, split, keep, data)
    remote = "://" in str(part.params.get("path", ""))
    size = 4 * int(np.prod(dataset.frames.shape, dtype=np.int64))
    if size <= keep.memory_gb * 2**30 and not remote:
        return copied_to_memory(dataset, gaps)
    key = _cache_key(part, split, keep) if data is None else _content_key(dataset, keep)
    folder = _cache_folder(part, keep) / key
    check_room(folder, 0)
    busy = S2KDError(f"{folder}: another process is writing these frames; try again later")
    if not (folder / storage.FACTS).exists():
        with locked(folder / ".lock", busy):
            storage.write_store(dataset, gaps, folder, key=folder.name)
    return storage.open_store(folder, memory_gb=float(keep.memory_gb))


def read_record(part: Part, data: "xr.Dataset | xr.DataArray | None" = None) -> "xr.Dataset":
    """The record of a reader, by name and settings; `data` for the reader `memory`."""
    if data is None:
        return readers.build(part.name, **part.params)
    if part.name != MEMORY:
        raise S2KDError(f"data in memory are read by {MEMORY!r}, but dataset is {part.name!r}")
    return readers.build(part.name, data, **part.params)


def check_part(part: Part) -> None:
    """Refuse an unknown reader or setting."""
    readers.check(part.name, part.params)


def prepare(
    part: Part,
    out: Path,
    *,
    split: Split = DEFAULT_SPLIT,
    keep: Keep = DEFAULT_KEEP,
    dtype: str = "float32",
    progress: storage.Progress = storage.no_progress,
) -> dict[str, Any]:
    """Read a dataset and write it to the folder `out`, in the layout that trains fastest.

    Args:
        part: a reader by name, with its settings.
        out: new or empty, or holding an unfinished copy of the same, which resumes.
        split: as for `load`.
        keep: as for `load`; memory and cache have no effect.
        dtype: float32, or int16 with a scale and an offset per channel: half the size, rounded.
        progress: called with the frames done, their total and a word.

    Returns:
        The content of `prepared.json`.
    """
    if dtype not in storage.DTYPES:
        raise S2KDError(f"dtype={dtype!r} must be one of {', '.join(storage.DTYPES)}")
    source = {
        "part": msgspec.to_builtins(part),
        "split": msgspec.to_builtins(split),
        "keep": msgspec.to_builtins(keep),
    }
    key = digest([storage.LAYOUT, dtype, source])
    if out.exists() and not out.is_dir():
        raise S2KDError(f"{out}: is a file; --out needs a folder")
    if (out / storage.FACTS).exists():
        facts = storage.store_facts(out)
        if facts.get("key") != key:
            raise S2KDError(
                f"{out}: holds other prepared data ({facts.get('part')}, "
                f"{facts['frames']['dtype']}); choose another --out, or delete it"
            )
        shutil.rmtree(out / storage.UNFINISHED, ignore_errors=True)
        return facts
    contents = {p.name for p in out.iterdir() if p.name[0] != "."} if out.exists() else set()
    if storage.UNFINISHED in contents:  # killed between the last moves: they are done again
        for name in contents & {storage.FRAMES, storage.TIMES}:
            (out / name).replace(out / storage.UNFINISHED / name)
    elif contents:
        raise S2KDError(f"{out}: is not empty and holds no prepared data; choose another --out")
    dataset, gaps = open_record(part, split, keep)
    return storage.write_store(
        dataset, gaps, out, key=key, dtype=dtype, progress=progress, **source
    )


def origin(path: str | Path) -> dict[str, Any] | None:
    """The dataset part that a prepared folder was made of, as JSON; None where it does not say."""
    return storage.store_facts(Path(path).expanduser()).get("part")


def open_record(
    part: Part, split: Split, keep: Keep, data: "xr.Dataset | xr.DataArray | None" = None
) -> tuple[Dataset, GapFilter]:
    """`dataset_of` the record of a reader."""
    label = str(part.params.get("path", part.name if data is None else IN_MEMORY))
    return dataset_of(label, read_record(part, data), split, keep)


def split_record(
    label: str, record: "xr.Dataset", split: Split, keep: Keep = DEFAULT_KEEP
) -> dict[str, tuple[Stretch, ...]]:
    """The splits of a reader's dataset, whose frames are not read."""
    return dict(dataset_of(label, record, split, keep)[0].splits)


def dataset_of(
    label: str, record: "xr.Dataset", split: Split, keep: Keep
) -> tuple[Dataset, GapFilter]:
    """A dataset whose frames are not read yet, and the filter that they must pass in order."""
    check_names(f"{label}: keep.marks names no channel", keep.marks, map(str, record.data_vars))
    record = record.assign_attrs(marks=keep.marks)
    split = merged(split, record.attrs.get("split", {}))
    unseen: dict[str, tuple[str, ...]] = {}
    if "run" in record.coords:
        record, unseen = _ordered_by_unseen(label, record, split)
    least = record.attrs.get("smallest_gap", 0)
    if split.gap is not None and split.gap < least:
        raise S2KDError(
            f"{label}: gap={split.gap} frames between splits is too short, since frames are "
            f"interpolated between stored ones; set split.gap to at least {least}"
        )
    if record.attrs.get("complete_years"):
        record = _named_years(label, record, split)
    step, frames, stretches = _regular(label, record, keep.time_stride)
    record = record if keep.time_stride == 1 else record.isel(time=frames)
    names = record.run.values if "run" in record.coords else None
    starts = run_starts(record.time.values, names)
    ends = [*map(int, starts), record.sizes["time"]]
    runs = [
        Stretch(first=first, stop=stop, name=str(names[first]))
        for first, stop in itertools.pairwise(ends)
        if names is not None
    ]
    splits = make_splits(
        label,
        record.time.values,
        stretches,
        split,
        runs=runs,
        unseen=unseen,
        labels=record.split.values if "split" in record.coords else None,
        whole_days=bool(record.attrs.get("whole_days")),
    )
    gaps = _gaps(label, record, step, keep)
    return _unread(label, record, grid_of(record, step), splits), gaps


def load_frames(part: Part, path: str, keep: Keep = DEFAULT_KEEP) -> Dataset:
    """All frames of another file, read as `part` is, in the split `train`; the others are empty."""
    if part.name == PREPARED:
        part = Part(**(origin(part.params["path"]) or {"name": "cf"}))
    name = "cf" if part.name == MEMORY else part.name
    record = read_record(Part(name=name, params={**part.params, "path": path}))
    record = record.assign_attrs(marks=keep.marks)
    step, frames, stretches = _regular(path, record, keep.time_stride)
    record = record if keep.time_stride == 1 else record.isel(time=frames)
    splits = {"train": stretches, "val": (), "test": ()}
    dataset = _unread(path, record, grid_of(record, step), splits)
    return copied_to_memory(dataset, _gaps(path, record, step, keep))


def _gaps(label: str, record: "xr.Dataset", step: float, keep: Keep) -> GapFilter:
    names = record.run.values if "run" in record.coords else None
    times = record.time.values
    starts = run_starts(times, names)
    return GapFilter(
        label,
        grid_of(record, step),
        times,
        missing=keep.missing,
        run_starts=starts,
        marks={str(name): packed_edges(v.encoding) for name, v in record.data_vars.items()},
    )


def _unread(
    label: str,
    record: "xr.Dataset",
    grid: GridSpec,
    splits: dict[str, tuple[Stretch, ...]],
) -> Dataset:
    """A dataset whose frames are those of the record, not read yet."""
    attrs = record.attrs
    window, times = attrs.get("window"), record.time.values
    gaps = [] if "run" in record.coords else time_problems(times)
    return Dataset(
        name=attrs.get("name", label),
        domain=attrs["domain"],
        grid=grid,
        frames=RecordFrames(record, label),
        times=times,
        splits=splits,
        local_time=bool(attrs.get("local_time", 0)),
        context=tuple(map(tuple, record.context.values)) if "context" in record.coords else None,
        attributes={
            str(name): {key: str(value) for key, value in variable.attrs.items()}
            for name, variable in record.data_vars.items()
        },
        source=attrs.get("source", ""),
        notices=(*attrs.get("notices", ()), *gaps),
        window=None if window is None else (int(window[0]), int(window[1])),
        simultaneous=bool(attrs.get("simultaneous", 0)),
    )


def grid_of(record: "xr.Dataset", step_seconds: float) -> GridSpec:
    """The grid of a reader's dataset whose frames are `step_seconds` apart."""
    coords = record.coords
    degrees = {
        name: tuple(map(float, coords[name].values))
        for name, dim in (("latitude", "row"), ("longitude", "column"))
        if name in coords and coords[name].dims == (dim,)
    }
    mask = coords["mask"].values.astype(bool) if "mask" in coords else None
    return GridSpec(
        channels=tuple(map(str, record.data_vars)),
        units=tuple(str(variable.attrs.get("units", "")) for variable in record.data_vars.values()),
        height=record.sizes["row"],
        width=record.sizes["column"],
        step_seconds=step_seconds,
        wraps=bool(record.attrs.get("wraps", 0)),
        mask=None if mask is None or mask.all() else tuple(tuple(map(bool, row)) for row in mask),
        **degrees,
    )


def _regular(
    label: str, record: "xr.Dataset", stride: int
) -> tuple[float, Int[np.ndarray, " frame"], tuple[Stretch, ...]]:
    """The step between frames kept, numbers of these, and their unbroken stretches."""
    times = record.time.values
    names = record.run.values if "run" in record.coords else None
    starts = run_starts(times, names)
    step, numbers = step_numbers(
        label,
        times,
        run_starts=starts,
        step_seconds=float(record.attrs.get("step_seconds") or 0),
    )
    frames = np.flatnonzero(numbers % stride == 0)
    names = None if names is None else names[frames]
    stretches = unbroken(numbers[frames], spacing=stride, names=names)
    return step * stride, frames, stretches


def _ordered_by_unseen(
    label: str, record: "xr.Dataset", split: Split
) -> tuple["xr.Dataset", dict[str, tuple[str, ...]]]:
    """Runs that are learned from first, then the unseen ones by split."""
    if not split.unseen:
        return record, {}
    names = record.run.values
    parameters = record.attrs.get("parameters", {})
    listed = {str(name): parameters.get(str(name), {}) for name in dict.fromkeys(names)}
    numbers = {
        name: {key: value for key, value in values.items() if value is not None}
        for name, values in listed.items()
    }
    seen_runs, unseen = held_out(label, numbers, split.unseen)
    order = [*seen_runs, *(name for runs in unseen.values() for name in runs)]
    if order != list(listed):
        frames = np.concatenate([np.flatnonzero(names == name) for name in order])
        record = record.isel(time=frames)
    return record, unseen


def _named_years(label: str, record: "xr.Dataset", split: Split) -> "xr.Dataset":
    """Frames within the splits' dates; every year that a split names must have some."""
    if not (split.train or split.val or split.test):
        return record
    times = record.time.values
    available = sorted({int(text[:4]) for text in iso(times)})
    inside = np.zeros(len(times), dtype=bool)
    for name in SPLITS:
        low, high = date_range(label, name, getattr(split, name))
        absent = sorted(set(range(int(low[:4]), int(high[:4]) + 1)) - set(available))
        if absent:
            raise S2KDError(
                f"{label}: {name} is {low} to {high}, but there are no frames of "
                f"{year_ranges(absent)} (there are of {year_ranges(available)}); fetch them, or "
                "set split.train, split.val and split.test to dates that are there"
            )
        inside |= within(times, low, high)
    return record.isel(time=np.flatnonzero(inside))


def year_ranges(years: list[int]) -> str:
    """Years as `1979–1983, 1990`."""
    spans: list[list[int]] = []
    for year in years:
        if spans and year == spans[-1][-1] + 1:
            spans[-1].append(year)
        else:
            spans.append([year])
    return ", ".join(f"{s[0]}–{s[-1]}" if len(s) > 1 else str(s[0]) for s in spans)


def _cache_folder(part: Part, keep: Keep) -> Path:
    """The folder for frames larger than memory: as set, else hidden next to the data."""
    if keep.cache:
        return Path(keep.cache).expanduser()
    path = str(part.params.get("path", ""))
    local = Path(path).expanduser()
    if path and local.exists():
        return (local if local.is_dir() else local.parent) / ".s2kd-cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s2kd"


def _cache_key(part: Part, split: Split, keep: Keep) -> str:
    """Changes with the settings, and with the files by size and time of change."""
    path = str(part.params.get("path", ""))
    files = [Path(path).expanduser()] if path else []
    if path and not files[0].exists():
        files = sorted(map(Path, glob.glob(str(files[0]), recursive=True)))  # noqa: PTH207
    stamps = [_stamp(file) for file in files]
    settings = [msgspec.to_builtins(part), msgspec.to_builtins(split)]
    return digest([storage.LAYOUT, settings, keep.missing, keep.marks, keep.time_stride, stamps])


def _content_key(dataset: Dataset, keep: Keep) -> str:
    """Changes with everything in memory that the store will hold."""
    facts = [dataset.fingerprint, dataset.domain, dataset.local_time, dataset.attributes]
    times = iso(dataset.times).tolist()
    return digest([storage.LAYOUT, *facts, times, keep.missing])


def _stamp(path: Path) -> tuple[str, int, int]:
    """Name, total size and latest change in ns; of a folder, of all files in it."""
    inside = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    stats = [p.stat() for p in inside if ".s2kd-cache" not in p.parts]
    latest = max((s.st_mtime_ns for s in stats), default=0)
    return (str(path.resolve()), sum(s.st_size for s in stats), latest)
