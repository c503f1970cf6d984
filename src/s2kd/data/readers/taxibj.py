"""Taxi flows in and out of every cell of a city: TaxiBJ and TaxiBJ+, in all published layouts.

Three layouts: DeepST's files by slot (Zhang, Zheng & Qi 2017: `data` (slot, 2, row, column) and
`date`, one `YYYYMMDDss` per slot, local time; ss from 01 (00:00) to 48 (23:30) in TaxiBJ, to 24 in
files of other cities); OpenSTL's `dataset.npz` of windows; and the windows of TaxiBJ+.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data.dates import EPOCH
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import headers, label_of, lazy_array, small_array
from s2kd.data.readers._record import (
    check_one_grid,
    north_west_first,
    per_frame,
    record,
    refuse_settings,
)

if TYPE_CHECKING:
    import dask.array as da
    import pandas as pd
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

SLOT = np.timedelta64(1800, "s")
SLOTS, SLOTS_PER_DAY = 48, (24, 48, 72, 96)
DAY = 86400
CHANNELS = ("inflow", "outflow")
LONG_NAMES = {
    "inflow": "taxis that entered the cell within one time step",
    "outflow": "taxis that left the cell within one time step",
}
HOLIDAYS, METEOROLOGY = "BJ_Holiday.txt", "BJ_Meteorology.h5"
WEATHER = (
    "sunny", "cloudy", "overcast", "rain", "light rain", "moderate rain", "heavy rain", "rainstorm",
    "thunderstorm", "freezing rain", "snow", "light snow", "moderate snow", "heavy snow", "fog",
    "sandstorm", "dust",
)  # fmt: skip
"""The seventeen columns of `Weather`, in the order of the data set's README."""
WARMTH = ("freezing", "cold", "mild", "warm", "hot")
WARMTH_BOUNDS = (-np.inf, 0.0, 10.0, 20.0, 28.0, np.inf)
"""Of `WARMTH`, in °C."""
STRONG_WIND = 25.0
"""Miles an hour, TaxiBJ's unit: Beaufort 6."""
PLUS_FILES = {
    "X_c": (("train", "valid", "test"), "{split}/X_c.npy", "{split}/Y.npy"),
    "reshaped": (
        ("train", "val", "test"),
        "{split}_input_data_reshaped.npy",
        "{split}_output_data_reshaped.npy",
    ),
}
"""TaxiBJ+: names of the three splits, of the file of past and of the file of future frames."""


@readers.register("taxibj")
def taxibj(
    *,
    path: str | Path,
    keep_empty: bool = False,
    whole_days: bool = False,
    slots_per_day: int = 0,
    weather: bool = True,
    holidays: bool = True,
    val_fraction: float = 0.1,
    maximum: float | int = 1.0,
    subsample_input: int = 1,
    shared: Literal["drop", "keep"] = "drop",
) -> "xr.Dataset":
    """Taxi in- and outflow per slot of the day: files by slot, or published windows.

    Negative counts become 0. Slots that are invalid, not finite or empty are left out. Splits by
    slot count whole days; windows come in their published splits.

    Args:
        path: by slot: an HDF5 file with `date` and `data`, a folder with files `*_InOut.h5`, or an
            `.npz` with `flow` and `date` (or `time`, local seconds since 1970), optionally `valid`
            (which slots count) and `lat_edges` and `lon_edges` (edges of cells in degrees).
            Windows: OpenSTL's `dataset.npz` or its folder, or a TaxiBJ+ folder.
        keep_empty: by slot: keep slots without any taxi in the city (outages).
        whole_days: by slot: leave out days without all slots, as the published preprocessing.
        slots_per_day: by slot: 48 for half-hours, 24 for hours; 0: as the highest slot says.
        weather: by slot: read `BJ_Meteorology.h5` next to the flows, as words for narrators.
        holidays: by slot: read `BJ_Holiday.txt` next to the flows, as words for narrators.
        val_fraction: OpenSTL: the last training windows that become the validation split.
        maximum: OpenSTL: what its 1 stands for; 1: values are fractions of the greatest count.
        subsample_input: windows: past frames keep every n-th row and column, repeated over n × n
            cells (4 is TaxiBJ+'s super-resolution variant); future frames stay as they are.
        shared: windows: `drop` leaves out windows of train and val that share a frame with a later
            split, `keep` keeps all, as published.

    Raises:
        S2KDError: files, keys or shapes that are not as described; bad, repeated or unsorted slots.
    """
    location = Path(path).expanduser()
    layout = windows_layout(location)
    by_slot = {
        "keep_empty": keep_empty,
        "whole_days": whole_days,
        "slots_per_day": slots_per_day,
    }
    openstl = {"val_fraction": val_fraction != 0.1, "maximum": maximum != 1.0}
    windows = {"subsample_input": subsample_input != 1, "shared": shared != "drop"}
    if layout is None:
        refuse_settings("taxibj", "files by slot", openstl | windows)
        return _by_slot(location, **by_slot, weather=weather, holidays=holidays)
    refuse_settings("taxibj", "published windows", by_slot)
    if layout != "openstl":
        refuse_settings("taxibj", "TaxiBJ+", openstl)
    if not 0 < val_fraction < 1:
        raise S2KDError(f"taxibj: val_fraction={val_fraction} must lie between 0 and 1")
    return _windows(location, layout, val_fraction, float(maximum), subsample_input, shared)


# --- files by slot --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Slots:
    """The content of one file: flows (slot, 2, row, column), times and validity of the slots.

    `per_day` is the number of slots that make a day.
    """

    path: Path
    flows: np.ndarray
    times: np.ndarray
    valid: np.ndarray
    per_day: int


def _by_slot(
    path: Path,
    *,
    keep_empty: bool,
    whole_days: bool,
    slots_per_day: int,
    weather: bool,
    holidays: bool,
) -> "xr.Dataset":
    paths = sorted(path.glob("[!.]*_InOut.h5")) if path.is_dir() else [path]
    if not paths:
        raise S2KDError(f"{path}: a folder without files called *_InOut.h5")
    files = sorted((_read_slots(p, slots_per_day) for p in paths), key=lambda file: file.times[0])
    per_day = files[0].per_day
    for file in files:
        if file.per_day != per_day:
            raise S2KDError(
                f"{file.path}: has {file.per_day} slots a day, {files[0].path} {per_day}; set "
                "dataset.params.slots_per_day to what both have"
            )
    shapes = {file.path.name: file.flows.shape[1:] for file in files}
    check_one_grid(str(path), shapes)
    flows = np.concatenate([file.flows for file in files]).astype(np.float32)
    times = np.concatenate([file.times for file in files])
    for i in np.flatnonzero(np.diff(times) <= np.timedelta64(0, "s")):
        raise S2KDError(
            f"{path}: the slots of {', '.join(shapes)} must be in order of time, each once, but "
            f"{times[i + 1]} comes after {times[i]}"
        )
    keep = np.concatenate([file.valid for file in files]) & np.isfinite(flows).all((1, 2, 3))
    if whole_days:
        _, day, counts = np.unique(
            times.astype("datetime64[D]"), return_inverse=True, return_counts=True
        )
        keep &= counts[day] == per_day
    if not keep_empty:
        keep &= (flows != 0).any((1, 2, 3))
    if not keep.any():
        raise S2KDError(f"{path}: no slot is valid")
    times, (height, width) = times[keep], flows.shape[2:]
    folder = path if path.is_dir() else path.parent
    dataset = record(
        np.maximum(flows[keep], 0),
        channels=CHANNELS,
        units=("1", "1"),
        times=times,
        coords={
            "context": per_frame(
                _words(folder, times, per_day if weather else 0, holidays=holidays)
            ),
            "latitude": _cell_centres(paths[0], "lat_edges", "row", height),
            "longitude": _cell_centres(paths[0], "lon_edges", "column", width),
        },
        long_names=LONG_NAMES,
        name="taxibj",
        domain="traffic",
        source=", ".join(shapes),
        local_time=1,
        step_seconds=DAY / per_day,
        split={"fractions": (0.7, 0.1, 0.2), "gap": 24},
        whole_days=1,
    )
    return north_west_first(str(path), dataset)


def _read_slots(path: Path, per_day: int) -> Slots:
    if not path.is_file():
        raise S2KDError(f"{path}: no such file or folder")
    keys = headers(path)
    flow_key = "data" if "data" in keys and "flow" not in keys else "flow"
    flows = small_array(path, flow_key)
    if flows.ndim != 4 or flows.shape[1] != 2 or flows.dtype.kind not in "iuf" or not len(flows):
        raise S2KDError(
            f"{path}: {flow_key} has shape {flows.shape} and type {flows.dtype}, but must hold "
            "numbers of shape (slots, 2, rows, columns)"
        )
    counted = "time" in keys and "date" not in keys
    stored = small_array(path, "time" if counted else "date", shape=flows.shape[:1])
    if counted:
        steps = np.abs(np.diff(stored.astype(np.int64)))
        per_day = per_day or DAY // int(steps[steps > 0].min(initial=DAY))
        if stored.dtype.kind not in "iu" or DAY % per_day or (stored % (DAY // per_day)).any():
            raise S2KDError(
                f"{path}: time must be whole slots of an even part of a day, such as half-hours, "
                "in integer seconds since 1970"
            )
        times = stored.astype("datetime64[s]")
    else:
        times, per_day = slot_times(path, stored, per_day)
    return Slots(
        path=path,
        flows=flows,
        times=times,
        per_day=per_day,
        valid=small_array(path, "valid", shape=flows.shape[:1]).astype(bool)
        if "valid" in keys
        else np.ones(len(flows), dtype=bool),
    )


def _cell_centres(path: Path, key: str, dim: str, cells: int) -> tuple[str, np.ndarray] | None:
    if key not in headers(path):
        return None
    edges = small_array(path, key, shape=(cells + 1,))
    return dim, (edges[1:] + edges[:-1]) / 2


def slot_times(path: Path, dates: np.ndarray, per_day: int = 0) -> tuple[np.ndarray, int]:
    """(slot,) datetime64[s] of `YYYYMMDDss`, and the slots of a day; `path` is for errors.

    Slots count from 01, or from 00 where there is a slot 00. Without `per_day`, the highest slot
    says how many there are.
    """
    import pandas as pd

    text = pd.Series([d.decode(errors="replace") if isinstance(d, bytes) else str(d)
                      for d in dates.tolist()])  # fmt: skip
    day = pd.to_datetime(text.str[:8], format="%Y%m%d", errors="coerce")
    slot = pd.to_numeric(text.where(text.str.fullmatch(r"\d{10}")).str[8:], errors="coerce")
    last = int(slot.max()) if slot.notna().any() else SLOTS
    first = 0 if slot.min() == 0 and last + 1 in SLOTS_PER_DAY else 1
    count = last + 1 - first
    per_day = per_day or (count if count in SLOTS_PER_DAY else SLOTS if count > 24 else 0)
    for number in np.flatnonzero(day.isna() | ~slot.between(first, first + (per_day or 24) - 1)):
        raise S2KDError(
            f"{path}: date {text[number]!r} at position {number} is not YYYYMMDDss with a slot ss "
            f"from {first:02d} to {first + (per_day or 24) - 1}"
        )
    if not per_day or DAY % per_day:
        raise S2KDError(
            f"{path}: slots up to {last} may be hours, half-hours or others; set "
            "dataset.params.slots_per_day to their number in a day, as 24 or 48"
        )
    after = pd.to_timedelta((slot - first) * (DAY // per_day), unit="s")
    return (day + after).to_numpy("datetime64[s]"), per_day


def _words(
    folder: Path, times: np.ndarray, per_day: int, *, holidays: bool
) -> list[tuple[str, ...]]:
    """Words per slot: kind of day, holiday, weather; of the slot itself, never of a later one.

    `per_day` is the number of slots in a day of the weather's file; 0: no weather.
    """
    import pandas as pd

    index = pd.DatetimeIndex(times)
    words = pd.DataFrame({"day": np.where(index.day_of_week >= 5, "weekend", "weekday")}, index)
    if holidays and (folder / HOLIDAYS).is_file():
        free = index.normalize().isin(_holidays(folder / HOLIDAYS))
        words["holiday"] = np.where(free, "holiday", "")
    if per_day and (folder / METEOROLOGY).is_file():
        words = words.join(_weather(folder / METEOROLOGY, per_day)).fillna("")
    return [tuple(filter(None, row)) for row in words.itertuples(index=False)]


def _holidays(path: Path) -> "pd.Series":
    import pandas as pd

    text = path.read_text(encoding="utf-8", errors="replace").split()
    dates = pd.to_datetime(pd.Series(text, dtype=str), format="%Y%m%d", errors="coerce")
    for number in np.flatnonzero(dates.isna()):
        raise S2KDError(f"{path}: entry {number + 1} is {text[number]!r}, but must be YYYYMMDD")
    return dates


def _weather(path: Path, per_day: int) -> "pd.DataFrame":
    """Coarse words (kind of weather, warmth, wind) by slot."""
    import pandas as pd

    dates = small_array(path, "date")
    kinds = small_array(path, "Weather", shape=(len(dates), len(WEATHER)))
    celsius = small_array(path, "Temperature", shape=dates.shape)
    wind = small_array(path, "WindSpeed", shape=dates.shape)
    warmth = pd.cut(celsius, WARMTH_BOUNDS, labels=WARMTH, right=False)
    table = pd.DataFrame(
        {
            "kind": np.where(kinds.any(1), np.array(WEATHER)[kinds.argmax(1)], ""),
            "warmth": np.where(warmth.isna(), "", warmth.astype(str)),
            "wind": np.where(wind >= STRONG_WIND, "strong wind", ""),
        },
        index=pd.DatetimeIndex(slot_times(path, dates, per_day)[0]),
    )
    return table[~table.index.duplicated(keep="last")]


# --- published windows ----------------------------------------------------------------------------


def windows_layout(path: Path) -> str | None:
    """`openstl`, `X_c` or `reshaped`; None where `path` holds no published windows."""
    if path.is_dir():
        if any(path.glob("[!.]*_InOut.h5")):
            return None
        if openstl_file(path) is not None:
            return "openstl"
        layouts = (name for name in PLUS_FILES if any(f.is_file() for f in _plus_files(path, name)))
        return next(layouts, None)
    if path.suffix == ".npz" and path.is_file() and {"X_train", "X_test"} & headers(path).keys():
        return "openstl"
    return None


def openstl_file(path: Path) -> Path | None:
    """`path` itself, or the one `dataset.npz` in it, up to two folders down."""
    if path.is_file():
        return path
    files = [file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}dataset.npz")]
    return files[0] if len(files) == 1 else None


def _plus_files(path: Path, layout: str) -> list[Path]:
    """The files of past and future frames of train, val and test, in turn."""
    splits, *patterns = PLUS_FILES[layout]
    return [path / pattern.format(split=split) for split in splits for pattern in patterns]


def _windows(
    path: Path, layout: str, val_fraction: float, maximum: float, factor: int, shared: str
) -> "xr.Dataset":
    """Windows end to end, a missing step between them, with their published split."""
    import dask.array as da

    pairs = _pairs(path, layout)
    (past, lead), (height, width) = (a.shape[1] for a in pairs["test"]), pairs["test"][0].shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise S2KDError(f"{path}: subsample_input={factor} does not divide {height}×{width} cells")
    numbers, notices = _chosen_windows(path, pairs, val_fraction, shared)
    convert = partial(_from_unit, maximum=maximum) if layout == "openstl" else _counts
    parts, labels = [], []
    for split in ("train", "val", "test"):
        halves = [array[numbers[split]] for array in pairs.get(split, pairs["train"])]
        halves = [a.map_blocks(convert, dtype=np.float32, meta=np.empty(0, "f4")) for a in halves]
        if factor > 1:
            rows = da.repeat(halves[0][..., ::factor, ::factor], factor, axis=-2)
            halves[0] = da.repeat(rows, factor, axis=-1)
        parts.append(da.concatenate(halves, axis=1).rechunk({1: -1}))
        labels += [split] * len(numbers[split])
    length = past + lead
    steps = np.arange(len(labels))[:, None] * (length + 1) + np.arange(length)
    name = "taxibj" if layout == "openstl" else "taxibj_plus"
    return record(
        da.concatenate(parts).reshape(-1, 2, height, width),
        channels=CHANNELS,
        units=("1", "1"),
        times=EPOCH + steps.ravel() * SLOT.astype("timedelta64[ns]"),
        coords={"split": per_frame(labels, length)},
        long_names=LONG_NAMES,
        name=f"{name}_subsampled_input_{factor}" if factor > 1 else name,
        domain="traffic",
        source=path.name,
        local_time=0,
        step_seconds=1800.0,
        window=(past, lead) if factor > 1 else None,
        notices=notices,
    )


def _pairs(path: Path, layout: str) -> dict[str, list["da.Array"]]:
    """Past and future frames (window, frame, 2, row, column) by split."""
    if layout == "openstl":
        splits, file = ("train", "test"), openstl_file(path) or path
        sources = [(file, f"{half}_{split}") for split in splits for half in "XY"]
    else:
        splits = ("train", "val", "test")
        sources = [(file, "") for file in _plus_files(path, layout)]
    arrays = [_five_axes(*source) for source in sources]
    pairs = {split: arrays[2 * n : 2 * n + 2] for n, split in enumerate(splits)}
    for past, future in pairs.values():
        if (
            len(past) != len(future)
            or past.shape[1:] != arrays[0].shape[1:]
            or future.shape[1:] != arrays[1].shape[1:]
            or past.shape[2:] != future.shape[2:]
        ):
            shapes = {split: [array.shape for array in pair] for split, pair in pairs.items()}
            raise S2KDError(
                f"{path}: past and future must have one number of windows, and all splits one "
                f"length and grid, got (window, frame, 2, row, column) {shapes}"
            )
    return pairs


def _five_axes(path: Path, key: str) -> "da.Array":
    """(window, frame, 2, row, column) of an array that may have frames and channels in one axis."""
    array = lazy_array(path, key)
    if array.ndim == 4 and array.shape[1] % 2 == 0:
        array = array.reshape(len(array), array.shape[1] // 2, 2, *array.shape[2:])
    if array.ndim != 5 or array.shape[2] != 2 or 0 in array.shape:
        raise S2KDError(
            f"{label_of(path, key)}: has shape {array.shape}, but must have (windows, frames, 2, "
            "rows, columns) or (windows, 2 × frames, rows, columns) with inflow before outflow"
        )
    return array


def _counts(block: np.ndarray) -> np.ndarray:
    """Without the negative counts that some files hold."""
    return np.maximum(block.astype(np.float32), 0)


def _from_unit(block: np.ndarray, *, maximum: float) -> np.ndarray:
    """-1 … 1 to 0 … `maximum`."""
    low, high = block.min(initial=0), block.max(initial=0)
    if not (low >= -1.001 and high <= 1.001):
        raise S2KDError(
            f"taxibj: dataset.npz holds values from {low:g} to {high:g}; OpenSTL's lie between -1 "
            "and 1"
        )
    return np.maximum((block.astype(np.float32) + 1) * np.float32(maximum / 2), 0)


def _chosen_windows(
    path: Path, pairs: dict[str, list["da.Array"]], val_fraction: float, shared: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Numbers of the windows of every split, and notices on those that are left out.

    The test split keeps all of its windows; val gives way to it, and train to both.
    """
    numbers = {split: np.arange(len(pair[0])) for split, pair in pairs.items()}
    if shared == "keep":
        hashes = {split: np.zeros((len(n), 1), np.uint64) for split, n in numbers.items()}
    else:
        hashes = {split: _frame_hashes(pair) for split, pair in pairs.items()}

    def give_way(split: str, later: np.ndarray) -> None:
        repeated = np.isin(hashes[split][numbers[split]], later[later != 0]).any(1)
        numbers[split] = numbers[split][~repeated]

    for split in pairs.keys() - {"test"}:
        give_way(split, hashes["test"])
    if "val" in pairs:
        give_way("train", hashes["val"][numbers["val"]])
        remaining = {split: len(numbers[split]) for split in ("train", "val")}
    else:
        count = max(1, round(val_fraction * len(numbers["train"])))
        numbers["train"], numbers["val"] = np.split(numbers["train"], [-count])
        give_way("train", hashes["train"][numbers["val"]])
        remaining = {"train": len(numbers["train"]) + count}
    lost = {split: len(pairs[split][0]) - count for split, count in remaining.items()}
    for split, count in lost.items():
        if 2 * count > len(pairs[split][0]):
            raise S2KDError(
                f"{path}: {count} of the {len(pairs[split][0])} {split} windows share frames with "
                "a later split: too few are left, or they were not cut in order of time; "
                "shared='keep' trains on them all the same, and scores frames seen in training"
            )
    if shared == "keep":
        return numbers, (f"{path}: windows of different splits may share frames (shared='keep')",)
    counts = " and ".join(f"{count} of {split}" for split, count in lost.items() if count)
    notice = f"{path}: left out {counts} windows, which share frames with later splits"
    return numbers, (notice,) if counts else ()


def _frame_hashes(pair: Sequence["da.Array"]) -> np.ndarray:
    """(window, frame) hashes of the middle rows; 0 where a frame is one value (an outage)."""
    height = pair[0].shape[-2]
    rows = min(height, max(8, height // 8))
    top = (height - rows) // 2

    def frame_hash(frame: np.ndarray) -> int:
        if (frame == frame.flat[0]).all():
            return 0
        content = np.ascontiguousarray(frame).tobytes()
        return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")

    halves = []
    for array in pair:
        middle = array[:, :, :, top : top + rows].rechunk({1: -1, 2: -1, 3: -1, 4: -1})
        blocks = (np.asarray(block) for block in middle.blocks.ravel())
        listed = [[frame_hash(frame) for frame in window] for block in blocks for window in block]
        halves.append(np.array(listed, dtype=np.uint64))
    return np.concatenate(halves, axis=1)


# --- description of a file ------------------------------------------------------------------------


def describe_layout(path: Path) -> "DetectedLayout | None":
    """TaxiBJ's and TaxiBJ+'s layouts by file names and keys."""
    from s2kd.data.describe import DetectedLayout

    layout = windows_layout(path)
    if layout == "openstl":
        kind, keys = "OpenSTL's TaxiBJ", headers(openstl_file(path) or path)
    elif layout is not None:
        kind, files = "TaxiBJ+", [file for file in _plus_files(path, layout) if file.is_file()]
        keys = {str(file.relative_to(path)): headers(file)[""] for file in files}
    elif path.is_dir() and any(path.glob("[!.]*_InOut.h5")):
        kind, keys = "TaxiBJ folder", {}
        for file in sorted(path.glob("[!.]*_InOut.h5")):
            keys |= {file.name: headers(file)["data"]} if "data" in headers(file) else {}
    elif path.is_file() and path.suffix.lower() in (".npz", ".h5", ".hdf5"):
        kind, keys = "TaxiBJ arrays", headers(path)
        flows = keys.get("flow", keys.get("data"))
        is_flow = flows is not None and len(flows.shape) == 4 and flows.shape[1] == 2
        if not is_flow or flows.is_netcdf or not {"date", "time"} & keys.keys():
            return None
    else:
        return None
    return DetectedLayout(
        reader="taxibj",
        settings={"path": str(path)},
        recipe="taxibj" if layout in (None, "openstl") else "taxibj_plus",
        lines=[kind, *(f"{key} {header.shape}" for key, header in keys.items())],
    )
