"""Taxi flows in and out of every cell of a city: TaxiBJ and TaxiBJ+, in all published layouts.

Three layouts: DeepST's files by slot (Zhang, Zheng & Qi 2017: `data` (slot, 2, row, column) and
`date`, one `YYYYMMDDss` per slot, ss from 01 (00:00) to 48 (23:30), local time); OpenSTL's
`dataset.npz` of windows; and the windows of TaxiBJ+.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import headers, lazy_array, small_array
from s2kd.data.readers._record import EPOCH, record, words_coordinate

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

SLOT = np.timedelta64(1800, "s")
SLOTS = 48
CHANNELS = ("inflow", "outflow")
LONG_NAMES = {
    "inflow": "taxis that entered the cell in the half-hour",
    "outflow": "taxis that left the cell in the half-hour",
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
OPENSTL = ("X_train", "Y_train", "X_test", "Y_test")
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
    weather: bool = True,
    holidays: bool = True,
    val_fraction: float = 0.1,
    maximum: float | int = 1.0,
    subsample_input: int = 1,
    shared: str = "drop",
) -> "xr.Dataset":
    """Taxi in- and outflow per half-hour: files by slot, or published windows.

    Parameters
    ----------
    path
        by slot: an HDF5 file with `date` and `data`, a folder with files `*_InOut.h5`, or an
        `.npz` with `flow` and `date` (or `time`, local seconds since 1970), optionally `valid`
        (which slots count) and `lat_edges` and `lon_edges` (edges of cells in degrees).
        Windows: OpenSTL's `dataset.npz` or its folder, or a TaxiBJ+ folder.
    keep_empty
        by slot: keep slots without any taxi in the city (outages).
    whole_days
        by slot: leave out days without all 48 slots, as the published preprocessing.
    weather, holidays
        by slot: read `BJ_Meteorology.h5` and `BJ_Holiday.txt` next to the
        flows, as words for narrators.
    val_fraction
        OpenSTL: the last training windows that become the validation split.
    maximum
        OpenSTL: what its 1 stands for; 1: values are fractions of the greatest count.
    subsample_input
        windows: past frames keep every n-th row and column, repeated over n × n
        cells (4 is TaxiBJ+'s super-resolution variant); future frames stay as they are.
    shared
        windows: `drop` leaves out windows of train and val that share a frame with a later
        split, `keep` keeps all, as published.

    Negative counts become 0. Slots that are invalid, not finite or empty are left out. Splits by
    slot count whole days; windows come in their published splits.

    Raises
    ------
    S2KDError
        files, keys or shapes that are not as described; bad, repeated or unsorted slots.
    """
    location = Path(path).expanduser()
    layout = windows_layout(location)
    if layout is None:
        _refuse("files by slot", val_fraction=val_fraction != 0.1, maximum=maximum != 1.0)
        _refuse("files by slot", subsample_input=subsample_input != 1, shared=shared != "drop")
        return _by_slot(location, keep_empty, whole_days, weather=weather, holidays=holidays)
    _refuse("published windows", keep_empty=keep_empty, whole_days=whole_days)
    if shared not in ("drop", "keep"):
        raise S2KDError(f"taxibj: shared={shared!r} must be 'drop' or 'keep'")
    if layout != "openstl":
        _refuse("TaxiBJ+", val_fraction=val_fraction != 0.1, maximum=maximum != 1.0)
    if not 0 < val_fraction < 1:
        raise S2KDError(f"taxibj: val_fraction={val_fraction} must lie between 0 and 1")
    return _windows(location, layout, val_fraction, float(maximum), subsample_input, shared)


def _refuse(layout: str, **changed: bool) -> None:
    for name, is_changed in changed.items():
        if is_changed:
            raise S2KDError(f"taxibj: {name} has no meaning for {layout}")


# --- files by slot --------------------------------------------------------------------------------


def _by_slot(
    path: Path, keep_empty: bool, whole_days: bool, *, weather: bool, holidays: bool
) -> "xr.Dataset":
    import xarray as xr

    files = sorted((_read_slots(file) for file in _slot_files(path)), key=lambda d: d.time[0])
    for earlier, later in itertools.pairwise(files):
        if earlier.flow.shape[1:] != later.flow.shape[1:]:
            raise S2KDError(
                f"{later.source}: frames have shape {later.flow.shape[1:]}, those of "
                f"{earlier.source} {earlier.flow.shape[1:]}"
            )
        if earlier.time[-1] >= later.time[0]:
            raise S2KDError(
                f"{later.source}: begins at {later.time[0].values}, before {earlier.source} ends "
                f"at {earlier.time[-1].values}"
            )
    flows = xr.concat(files, "time", combine_attrs="override")
    flow, times = flows.flow.values.astype(np.float32), flows.time.values
    keep = flows.valid.values & np.isfinite(flow).all((1, 2, 3))
    if whole_days:
        _, day, counts = np.unique(
            times.astype("datetime64[D]"), return_inverse=True, return_counts=True
        )
        keep &= counts[day] == SLOTS
    if not keep_empty:
        keep &= (flow != 0).any((1, 2, 3))
    if not keep.any():
        raise S2KDError(f"{path}: no slot is valid")
    times = times[keep]
    folder = path if path.is_dir() else path.parent
    return record(
        np.maximum(flow[keep], 0),
        channels=CHANNELS,
        units=("1", "1"),
        times=times,
        coords={
            "context": words_coordinate(_words(folder, times, weather=weather, holidays=holidays)),
            **{name: flows[name] for name in ("latitude", "longitude") if name in flows},
        },
        long_names=LONG_NAMES,
        name="taxibj",
        domain="traffic",
        source=", ".join(file.attrs["source"] for file in files),
        local_time=1,
        step_seconds=1800.0,
        split={"fractions": (0.7, 0.1, 0.2), "gap": 24},
        whole_days=1,
    )


def _slot_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise S2KDError(f"{path}: no such file or folder")
    files = sorted(path.glob("*_InOut.h5"))
    if not files:
        listed = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise S2KDError(f"{path}: holds no file called *_InOut.h5 (there is {listed})")
    return files


def _read_slots(path: Path) -> "xr.Dataset":
    """`flow` (time, channel, row, column) and `valid` (time) of one file, north first."""
    import xarray as xr

    keys = headers(path)
    flow_key = next((key for key in ("flow", "data") if key in keys), None)
    time_key = next((key for key in ("date", "time") if key in keys), None)
    if flow_key is None or time_key is None:
        needed = "`flow` or `data`" if flow_key is None else "`date` or `time`"
        raise S2KDError(f"{path}: needs {needed}, has {', '.join(sorted(keys)) or 'nothing'}")
    shape, dtype = keys[flow_key].shape, keys[flow_key].dtype
    if len(shape) != 4 or shape[1] != 2 or dtype.kind not in "iuf":
        raise S2KDError(
            f"{path}: {flow_key} has shape {shape} and type {dtype}, but must hold numbers of "
            "shape (slots, 2, rows, columns)"
        )
    stored = small_array(path, time_key)
    if not shape[0] or stored.shape != shape[:1]:
        raise S2KDError(
            f"{path}: {time_key} has shape {stored.shape}, but {flow_key} has {shape[0]} slots"
        )
    times = slot_times(path, stored) if time_key == "date" else _clock_times(path, stored)
    for i in np.flatnonzero(np.diff(times) <= np.timedelta64(0, "s")):
        fault = "comes twice" if times[i] == times[i + 1] else f"comes after {times[i]}"
        raise S2KDError(
            f"{path}: the slots must be in order of time, each once; {times[i + 1]} at position "
            f"{i + 1} {fault}"
        )
    valid = small_array(path, "valid") if "valid" in keys else np.ones(shape[0])
    if valid.shape != shape[:1]:
        raise S2KDError(f"{path}: valid has shape {valid.shape}, but must have ({shape[0]},)")
    flows = xr.Dataset(
        {
            "flow": (("time", "channel", "row", "column"), small_array(path, flow_key)),
            "valid": ("time", valid.astype(bool)),
        },
        {"time": times.astype("datetime64[ns]")},
        {"source": path.name},
    )
    for key, name, dim, descending in (
        ("lat_edges", "latitude", "row", True),
        ("lon_edges", "longitude", "column", False),
    ):
        if key in keys:
            centres = _cell_centres(path, key, flows.sizes[dim])
            flows = flows.assign_coords({name: (dim, centres)})
            if (centres[0] > centres[-1]) != descending:
                flows = flows.isel({dim: slice(None, None, -1)})
    return flows


def _cell_centres(path: Path, key: str, cells: int) -> np.ndarray:
    edges = small_array(path, key)
    steps = np.diff(edges)
    if edges.shape != (cells + 1,) or not ((steps > 0).all() or (steps < 0).all()):
        raise S2KDError(
            f"{path}: {key} has shape {edges.shape}, but must hold {cells + 1} degrees that only "
            "rise or only fall"
        )
    return (edges[1:] + edges[:-1]) / 2


def slot_times(path: Path, dates: np.ndarray) -> np.ndarray:
    """(slot,) datetime64[s] of `YYYYMMDDss`; `path` is for errors."""
    import pandas as pd

    text = pd.Series([d.decode(errors="replace") if isinstance(d, bytes) else str(d)
                      for d in dates.tolist()])  # fmt: skip
    day = pd.to_datetime(text.str[:8], format="%Y%m%d", errors="coerce")
    slot = pd.to_numeric(text.where(text.str.fullmatch(r"\d{10}")).str[8:], errors="coerce")
    bad = np.flatnonzero(day.isna() | ~slot.between(1, SLOTS))
    if len(bad):
        raise S2KDError(
            f"{path}: date {text[bad[0]]!r} at position {bad[0]} is not YYYYMMDDss with a slot ss "
            f"from 01 to {SLOTS}"
        )
    return (day + pd.to_timedelta((slot - 1) * 1800, unit="s")).to_numpy("datetime64[s]")


def _clock_times(path: Path, seconds: np.ndarray) -> np.ndarray:
    if seconds.dtype.kind not in "iu" or (seconds % 1800).any():
        raise S2KDError(f"{path}: time must be whole half-hours in integer seconds since 1970")
    return seconds.astype("datetime64[s]")


def _words(
    folder: Path, times: np.ndarray, *, weather: bool, holidays: bool
) -> list[tuple[str, ...]]:
    """Words per slot: kind of day, holiday, weather; of the slot itself, never of a later one."""
    import pandas as pd

    days = pd.DatetimeIndex(times).normalize()
    dates = pd.DatetimeIndex([])
    if holidays and (folder / HOLIDAYS).is_file():
        dates = _holidays(folder / HOLIDAYS)
    by_slot = {}
    if weather and (folder / METEOROLOGY).is_file():
        by_slot = _weather(folder / METEOROLOGY)
    return [
        (
            "weekend" if weekday >= 5 else "weekday",
            *(("holiday",) if free else ()),
            *by_slot.get(time, ()),
        )
        for time, weekday, free in zip(times, days.day_of_week, days.isin(dates), strict=True)
    ]


def _holidays(path: Path) -> "object":
    import pandas as pd

    text = path.read_text(encoding="utf-8", errors="replace").split()
    dates = pd.to_datetime(pd.Series(text, dtype=str), format="%Y%m%d", errors="coerce")
    for number in np.flatnonzero(dates.isna()):
        raise S2KDError(f"{path}: entry {number + 1} is {text[number]!r}, but must be YYYYMMDD")
    return pd.DatetimeIndex(dates)


def _weather(path: Path) -> dict[np.datetime64, tuple[str, ...]]:
    """Coarse words by slot."""
    import pandas as pd

    keys = headers(path)
    for key, axes in (("date", 1), ("Weather", 2), ("Temperature", 1), ("WindSpeed", 1)):
        if key not in keys:
            raise S2KDError(f"{path}: needs {key!r}, has {', '.join(sorted(keys)) or 'nothing'}")
        expected = (*keys["date"].shape[:1], len(WEATHER))[:axes]
        if keys[key].shape != expected:
            raise S2KDError(f"{path}: {key} has shape {keys[key].shape}, but must have {expected}")
    kinds = small_array(path, "Weather")
    table = pd.DataFrame(
        {
            "kind": np.where(kinds.any(1), np.array(WEATHER)[kinds.argmax(1)], ""),
            "warmth": pd.cut(
                small_array(path, "Temperature"), WARMTH_BOUNDS, labels=WARMTH, right=False
            ).astype(str),
            "wind": np.where(small_array(path, "WindSpeed") >= STRONG_WIND, "strong wind", ""),
        },
        index=slot_times(path, small_array(path, "date")).astype("datetime64[ns]"),
    ).replace("nan", "")
    return {
        time.to_datetime64(): tuple(word for word in row if word)
        for time, *row in table.itertuples()
    }


# --- published windows ----------------------------------------------------------------------------


def windows_layout(path: Path) -> str | None:
    """`openstl`, `X_c` or `reshaped`; None where `path` holds no published windows."""
    if path.is_dir():
        if any(path.glob("*_InOut.h5")):
            return None
        if openstl_file(path) is not None:
            return "openstl"
        for layout, (splits, *patterns) in PLUS_FILES.items():
            if any((path / p.format(split=s)).is_file() for s in splits for p in patterns):
                return layout
        return None
    if path.suffix == ".npz" and path.is_file() and {"X_train", "X_test"} & headers(path).keys():
        return "openstl"
    return None


def openstl_file(path: Path) -> Path | None:
    """`path` itself, or the one `dataset.npz` in it, up to two folders down."""
    if path.is_file():
        return path
    files = [file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}dataset.npz")]
    return files[0] if len(files) == 1 else None


def _windows(
    path: Path, layout: str, val_fraction: float, maximum: float, factor: int, shared: str
) -> "xr.Dataset":
    """Windows end to end, a missing step between them, with their published split."""
    import dask.array as da

    pairs = _openstl_pairs(path) if layout == "openstl" else _plus_pairs(path, layout)
    _check_pairs(pairs)
    pairs = {split: [_five_axes(array) for array in pair] for split, pair in pairs.items()}
    (past, lead), (height, width) = (a.shape[1] for a in pairs["test"]), pairs["test"][0].shape[-2:]
    if factor < 1 or height % factor or width % factor:
        raise S2KDError(f"{path}: subsample_input={factor} does not divide {height}×{width} cells")
    numbers, notices = _chosen_windows(path, pairs, val_fraction, shared)
    pairs.setdefault("val", pairs["train"])
    convert = partial(_from_unit, maximum=maximum) if layout == "openstl" else _counts
    parts, labels = [], []
    for split in ("train", "val", "test"):
        halves = [array[numbers[split]] for array in pairs[split]]
        halves = [a.map_blocks(convert, dtype=np.float32, meta=np.empty(0, "f4")) for a in halves]
        if factor > 1:
            halves[0] = da.repeat(
                da.repeat(halves[0][..., ::factor, ::factor], factor, axis=-2), factor, axis=-1
            )
        parts.append(da.concatenate(halves, axis=1).rechunk({1: -1}))
        labels += [split] * (len(numbers[split]) * (past + lead))
    frames = da.concatenate(parts).reshape(-1, 2, height, width)
    count, length = len(labels) // (past + lead), past + lead
    steps = np.arange(count)[:, None] * (length + 1) + np.arange(length)
    name = "taxibj" if layout == "openstl" else "taxibj_plus"
    return record(
        frames,
        channels=CHANNELS,
        units=("1", "1"),
        times=EPOCH + steps.ravel() * SLOT.astype("timedelta64[ns]"),
        coords={"split": ("time", np.array(labels, dtype=object))},
        long_names=LONG_NAMES,
        name=f"{name}_subsampled_input_{factor}" if factor > 1 else name,
        domain="traffic",
        source=path.name,
        local_time=0,
        step_seconds=1800.0,
        window=(past, lead) if factor > 1 else None,
        notices=notices,
    )


def _openstl_pairs(path: Path) -> dict[str, list["da.Array"]]:
    file = openstl_file(path) or path
    keys = headers(file)
    if not set(OPENSTL) <= keys.keys():
        raise S2KDError(f"{file}: needs {', '.join(OPENSTL)}, has {', '.join(keys)}")
    return {
        split: [_labelled(file, f"{half}_{split}") for half in "XY"] for split in ("train", "test")
    }


def _plus_pairs(path: Path, layout: str) -> dict[str, list["da.Array"]]:
    folders, *patterns = PLUS_FILES[layout]
    files = [[path / p.format(split=name) for p in patterns] for name in folders]
    absent = [file for pair in files for file in pair if not file.is_file()]
    if absent:
        past, future = (p.replace("{split}", "SPLIT") for p in patterns)
        raise S2KDError(
            f"{path}: lacks {', '.join(str(file.relative_to(path)) for file in absent)}; TaxiBJ+ "
            f"has {past} and {future} for each of {', '.join(folders)}"
        )
    return {
        split: [_labelled(file) for file in pair]
        for split, pair in zip(("train", "val", "test"), files, strict=True)
    }


def _labelled(path: Path, key: str = "") -> tuple[str, "da.Array"]:
    return f"{path}: {key}" if key else str(path), lazy_array(path, key)


def _check_pairs(pairs: dict[str, list[tuple[str, "da.Array"]]]) -> None:
    """Every past has a future, and all splits have one layout and grid."""
    first_pair = next(iter(pairs.values()))
    for pair in pairs.values():
        for (label, array), (like, reference) in zip(pair, first_pair, strict=True):
            shape = array.shape
            five = len(shape) == 5 and shape[2] == 2
            four = len(shape) == 4 and shape[1] % 2 == 0
            if not (five or four) or 0 in shape:
                raise S2KDError(
                    f"{label}: has shape {shape}, but must have (windows, frames, 2, rows, "
                    "columns) or (windows, 2 × frames, rows, columns) with inflow before outflow"
                )
            if shape[1:] != reference.shape[1:] or shape[-2:] != first_pair[0][1].shape[-2:]:
                raise S2KDError(
                    f"{label}: windows have shape {shape[1:]}, those of {like} "
                    f"{reference.shape[1:]}; all splits must have one shape and grid"
                )
        (past_label, past), (future_label, future) = pair
        if len(past) != len(future):
            raise S2KDError(f"{future_label}: has {len(future)} windows, {past_label} {len(past)}")


def _five_axes(labelled: tuple[str, "da.Array"]) -> "da.Array":
    """(window, frame, 2, row, column)."""
    array = labelled[1]
    if array.ndim == 5:
        return array
    return array.reshape(len(array), array.shape[1] // 2, 2, *array.shape[2:])


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
    drop = shared == "drop"
    looks = {split: _frame_hashes(pair) for split, pair in pairs.items()} if drop else {}
    lost = dict.fromkeys(("train", "val"), 0)

    def give_way(split: str, later: str) -> None:
        if not drop:
            return
        hashes = looks.get(later, looks["train"])[numbers[later]]
        free = ~np.isin(looks[split][numbers[split]], hashes[hashes != 0]).any(1)
        lost[split] += int((~free).sum())
        numbers[split] = numbers[split][free]

    for split in set(numbers) - {"test"}:
        give_way(split, "test")
    if "val" not in numbers:
        count = max(1, round(val_fraction * len(numbers["train"])))
        numbers["train"], numbers["val"] = np.split(numbers["train"], [-count])
    give_way("train", "val")
    for split, pair in pairs.items():
        if split in lost and 2 * lost[split] > len(pair[0]):
            raise S2KDError(
                f"{path}: {lost[split]} of the {len(pair[0])} {split} windows share frames with a "
                "later split: too few are left, or they were not cut in order of time; "
                "shared='keep' trains on them all the same, and scores frames seen in training"
            )
    if not drop:
        return numbers, (f"{path}: windows of different splits may share frames (shared='keep')",)
    counts = " and ".join(f"{count} of {split}" for split, count in lost.items() if count)
    notice = f"{path}: left out {counts} windows, which share frames with later splits"
    return numbers, (notice,) if counts else ()


def _frame_hashes(pair: Sequence["da.Array"]) -> np.ndarray:
    """(window, frame) hashes of the middle rows; 0 where a frame is one value (an outage)."""
    height = pair[0].shape[-2]
    rows = min(height, max(8, height // 8))
    top = (height - rows) // 2

    def hashes(block: np.ndarray) -> np.ndarray:
        flat = block.reshape(*block.shape[:2], -1)
        varied = (flat != flat[..., :1]).any(-1)
        result = np.zeros(varied.shape, dtype=np.uint64)
        for index in np.argwhere(varied):
            content = np.ascontiguousarray(flat[tuple(index)]).tobytes()
            digest = blake2b(content, digest_size=8).digest()
            result[tuple(index)] = int.from_bytes(digest, "little")
        return result

    halves = []
    for array in pair:
        middle = array[:, :, :, top : top + rows].rechunk({1: -1, 2: -1, 3: -1, 4: -1})
        blocks = [hashes(np.asarray(block)) for block in middle.blocks.ravel()]
        halves.append(np.concatenate(blocks))
    return np.concatenate(halves, axis=1)


# --- description of a file ------------------------------------------------------------------------


def describe_layout(path: Path) -> "DetectedLayout | None":
    """TaxiBJ's and TaxiBJ+'s layouts by file names and keys."""
    from s2kd.data.describe import DetectedLayout

    layout, recipe = windows_layout(path), "taxibj"
    if layout == "openstl":
        kind, keys = "OpenSTL's TaxiBJ", headers(openstl_file(path) or path)
    elif layout is not None:
        kind, recipe = "TaxiBJ+", "taxibj_plus"
        files = [path / p.format(split=s) for s in PLUS_FILES[layout][0] for p in
                 PLUS_FILES[layout][1:]]  # fmt: skip
        keys = {str(f.relative_to(path)): headers(f)[""] for f in files if f.is_file()}
    elif path.is_dir() and any(path.glob("*_InOut.h5")):
        kind = "TaxiBJ folder"
        keys = {f.name: headers(f).get("data") for f in sorted(path.glob("*_InOut.h5"))}
    elif path.is_file() and path.suffix.lower() in (".npz", ".h5", ".hdf5"):
        kind, keys = "TaxiBJ arrays", headers(path)
        named = keys.get("flow", keys.get("data"))
        if named is None or len(named.shape) != 4 or not {"date", "time"} & keys.keys():
            return None
    else:
        return None
    return DetectedLayout(
        reader="taxibj",
        settings={"path": str(path)},
        recipe=recipe,
        lines=[kind, *(f"{key} {head.shape}" for key, head in keys.items() if head is not None)],
        problems=[],
    )
