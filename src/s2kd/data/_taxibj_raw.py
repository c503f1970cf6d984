"""Taxi flows in TaxiBJ's layout: counts in and out of every cell of a city, half-hour by half-hour.

The layout is that of DeepST (Zhang, Zheng & Qi 2017): `data` (slot, 2, row, column) holds inflow
and outflow, `date` one `YYYYMMDDss` a slot, ss from 01 (00:00) to 48 (23:30), local time.
"""

import itertools
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import _taxibj_words as words
from s2kd.data import times as clock
from s2kd.data.dataset import SPLITS, Dataset, Stretch, uncut

SLOT = np.timedelta64(1800, "s")
SLOTS = 48
CHANNELS = ("inflow", "outflow")
ATTRIBUTES = {
    "inflow": {"long_name": "taxis that entered the cell in the half-hour"},
    "outflow": {"long_name": "taxis that left the cell in the half-hour"},
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Flows:
    """One file: `flow` (slot, 2, row, column), `times` (slot,), what counts, and the place."""

    path: Path
    flow: np.ndarray
    times: np.ndarray
    valid: np.ndarray
    latitude: tuple[float, ...] | None = None
    longitude: tuple[float, ...] | None = None


def from_slots(
    path: Path,
    *,
    fractions: Sequence[float] | None,
    days: tuple[int | None, int | None, int | None],
    gap: int,
    keep_empty: bool,
    whole_days: bool,
    weather: bool,
    holidays: bool,
) -> Dataset:
    """The layouts by slot; see `s2kd.data.taxibj.taxibj`."""
    files = sorted((_read(file) for file in _files(path)), key=lambda one: one.times[0])
    _check_together(files)
    flow = np.concatenate([one.flow for one in files]).astype(np.float32)
    times = np.concatenate([one.times for one in files])
    kept = np.concatenate([one.valid for one in files]) & np.isfinite(flow).all((1, 2, 3))
    if whole_days:
        kept &= _in_whole_days(times)
    if not keep_empty:
        kept &= (flow != 0).any((1, 2, 3))
    if not kept.any():
        raise S2KDError(f"{path}: no slot is valid")
    flow, times = np.maximum(flow[kept], 0), times[kept]
    return Dataset(
        name="taxibj",
        domain="traffic",
        grid=GridSpec(
            channels=CHANNELS,
            units=("1", "1"),
            height=flow.shape[2],
            width=flow.shape[3],
            step_seconds=1800.0,
            latitude=files[0].latitude,
            longitude=files[0].longitude,
        ),
        frames=np.ascontiguousarray(flow),
        times=times.astype("datetime64[ns]"),
        splits=_splits(path, times, fractions, days, gap),
        local_time=True,
        context=_context(files[0].path.parent, times, weather=weather, holidays=holidays),
        attributes=ATTRIBUTES,
        source=", ".join(one.path.name for one in files),
    )


def _in_whole_days(times: np.ndarray) -> np.ndarray:
    """(slot,) bool: the slots of days that have all 48."""
    _, day, counts = np.unique(
        times.astype("datetime64[D]"), return_inverse=True, return_counts=True
    )
    return counts[day] == SLOTS


def _context(
    folder: Path, times: np.ndarray, *, weather: bool, holidays: bool
) -> tuple[tuple[str, ...], ...]:
    """What is known of each slot when it is over: kind of day, and the weather if it was noted."""
    free, skies = np.zeros(0, dtype="datetime64[D]"), {}
    if holidays and (folder / words.HOLIDAYS).is_file():
        free = words.holidays(folder / words.HOLIDAYS)
    if weather and (folder / words.METEOROLOGY).is_file():
        skies = words.weather(folder / words.METEOROLOGY, slot_times)
    off = np.isin(times.astype("datetime64[D]"), free)
    return tuple(
        (
            "weekend" if weekend else "weekday",
            *(("holiday",) if is_off else ()),
            *skies.get(time, ()),
        )
        for time, weekend, is_off in zip(times, clock.is_weekend(times), off, strict=True)
    )


def slot_times(path: Path, dates: np.ndarray) -> np.ndarray:
    """(slot,) datetime64[s] of `YYYYMMDDss`; `path` is for the error only."""
    text = [
        date.decode(errors="replace") if isinstance(date, bytes) else str(date)
        for date in dates.tolist()
    ]
    times = np.empty(len(text), dtype="datetime64[s]")
    for i, date in enumerate(text):
        slot = int(date[8:]) if len(date) == 10 and date.isdigit() else 0
        try:
            day = np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:8]}", "D")
        except ValueError:
            slot = 0
        if not 1 <= slot <= SLOTS:
            raise S2KDError(
                f"{path}: date {date!r} at position {i} is not YYYYMMDDss with a slot ss "
                "from 01 to 48"
            )
        times[i] = day + (slot - 1) * SLOT
    return times


def _files(path: Path) -> list[Path]:
    """`path` itself, or the files in that folder that hold flows."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise S2KDError(f"{path}: no such file or folder")
    found = sorted(path.glob("*_InOut.h5"))
    if not found:
        there = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise S2KDError(f"{path}: holds no file called *_InOut.h5 (there is {there})")
    return found


def _read(path: Path) -> Flows:
    """One file, its slots checked."""
    held = _npz(path) if path.suffix == ".npz" else _hdf5(path)
    name = next((key for key in ("flow", "data") if key in held), None)
    when = next((key for key in ("date", "time") if key in held), None)
    if name is None or when is None:
        raise S2KDError(
            f"{path}: needs {'`flow` or `data`' if name is None else '`date` or `time`'}, "
            f"has {', '.join(sorted(held)) or 'nothing'}"
        )
    flow, dates = held[name], held[when]
    if flow.ndim != 4 or flow.shape[1] != 2 or flow.dtype.kind not in "iuf":
        raise S2KDError(
            f"{path}: {name} has shape {flow.shape} and type {flow.dtype}, wants numbers of shape "
            "(slots, 2, rows, columns)"
        )
    if not len(flow) or dates.shape != (len(flow),):
        raise S2KDError(
            f"{path}: {when} has shape {dates.shape}, {name} has {len(flow)} slots; "
            "one is wanted for the other"
        )
    times = slot_times(path, dates) if when == "date" else _clock_times(path, dates)
    _check_order(path, times)
    valid = held.get("valid", np.ones(len(flow), dtype=bool))
    if valid.shape != (len(flow),):
        raise S2KDError(f"{path}: valid has shape {valid.shape}, wants ({len(flow)},)")
    north = _edges(path, held, "lat_edges", flow.shape[2])
    east = _edges(path, held, "lon_edges", flow.shape[3])
    if north is not None and north[0] < north[-1]:
        flow, north = flow[:, :, ::-1], north[::-1]
    if east is not None and east[0] > east[-1]:
        flow, east = flow[..., ::-1], east[::-1]
    return Flows(
        path=path,
        flow=flow,
        times=times,
        valid=valid.astype(bool),
        latitude=None if north is None else tuple(north.tolist()),
        longitude=None if east is None else tuple(east.tolist()),
    )


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise S2KDError("reading TaxiBJ's HDF5 files needs h5py (`pip install h5py`)") from None
    try:
        with h5py.File(path) as file:
            wanted = ("date", "data")
            return {key: np.asarray(file[key]) if key in wanted else np.zeros(0) for key in file}
    except (OSError, RuntimeError) as error:
        raise S2KDError(f"{path}: not readable as HDF5, or cut short ({error})") from None


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise S2KDError(f"{path}: not readable as .npz, or cut short ({error})") from None


def _clock_times(path: Path, seconds: np.ndarray) -> np.ndarray:
    """(slot,) datetime64[s] of local seconds since 1970."""
    if seconds.dtype.kind not in "iu" or (seconds % 1800).any():
        raise S2KDError(f"{path}: time must be whole half-hours in integer seconds since 1970")
    return seconds.astype("datetime64[s]")


def _check_order(path: Path, times: np.ndarray) -> None:
    for i in np.flatnonzero(np.diff(times) <= np.timedelta64(0, "s")):
        fault = "comes twice" if times[i] == times[i + 1] else f"comes after {times[i]}"
        raise S2KDError(
            f"{path}: the slots must be in order of time, each once; {times[i + 1]} at position "
            f"{i + 1} {fault}"
        )


def _edges(path: Path, held: dict[str, np.ndarray], key: str, cells: int) -> np.ndarray | None:
    """Cell centres from the edges, or None where the file has none."""
    if key not in held:
        return None
    edges, steps = held[key], np.diff(held[key])
    if edges.shape != (cells + 1,) or not ((steps > 0).all() or (steps < 0).all()):
        raise S2KDError(
            f"{path}: {key} has shape {edges.shape}, wants {cells + 1} degrees that only rise or "
            "only fall"
        )
    return (edges[1:] + edges[:-1]) / 2


def _check_together(files: list[Flows]) -> None:
    """Files that follow each other in time on one grid."""
    for one, other in itertools.pairwise(files):
        if one.flow.shape[1:] != other.flow.shape[1:]:
            raise S2KDError(
                f"{other.path}: frames have shape {other.flow.shape[1:]}, "
                f"those of {one.path.name} {one.flow.shape[1:]}"
            )
        if one.times[-1] >= other.times[0]:
            raise S2KDError(
                f"{other.path}: begins at {other.times[0]}, before {one.path.name} ends at "
                f"{one.times[-1]}"
            )


def _splits(
    path: Path,
    times: np.ndarray,
    fractions: Sequence[float] | None,
    days: tuple[int | None, int | None, int | None],
    gap: int,
) -> dict[str, tuple[Stretch, ...]]:
    """Whole days in order of time, as counted or by share."""
    if fractions is None and days == (None, None, None):
        return uncut(_stretches(times, times[0], times[-1] + SLOT))
    starts = _first_days(path, times, fractions or (), days)
    return {
        split: _stretches(times, first + skip * SLOT, stop)
        for split, first, stop, skip in zip(
            SPLITS, starts[:-1], starts[1:], (0, gap, gap), strict=True
        )
    }


def _first_days(
    path: Path,
    times: np.ndarray,
    fractions: Sequence[float],
    wanted: tuple[int | None, int | None, int | None],
) -> list[np.datetime64]:
    """The first day of train, val and test, and the first day after."""
    days = np.unique(times.astype("datetime64[D]"))
    if all(count is None for count in wanted):
        if len(fractions) != 3 or min(fractions) <= 0 or not np.isclose(sum(fractions), 1):
            raise S2KDError(f"fractions={list(fractions)}: wants three above 0 that add up to 1")
        ends = np.round(np.cumsum(fractions) * len(days)).astype(int)
    else:
        train, val, test = wanted
        if train is None and val is not None and test is not None:
            train = len(days) - val - test
        if any(count is None or count < 1 for count in (train, val, test)):
            raise S2KDError(
                f"{path}: train_days, val_days and test_days go together (train_days may be left "
                f"out), each at least 1; got {', '.join(map(str, wanted))} of {len(days)} days"
            )
        ends = np.cumsum((train, val, test))
    if ends[-1] > len(days) or (np.diff(ends, prepend=0) < 1).any():
        raise S2KDError(
            f"{path}: holds {len(days)} days, too few for train, val and test of "
            f"{', '.join(map(str, np.diff(ends, prepend=0)))} days"
        )
    return [days[0], *(days[end - 1] + 1 if end == len(days) else days[end] for end in ends)]


def _stretches(times: np.ndarray, first: np.datetime64, stop: np.datetime64) -> tuple[Stretch, ...]:
    """Unbroken runs of slots from `first` to before `stop`."""
    inside = np.flatnonzero((times >= first) & (times < stop))
    if not len(inside):
        return ()
    runs = np.split(inside, np.flatnonzero(np.diff(times[inside]) != SLOT) + 1)
    return tuple(Stretch(first=int(run[0]), stop=int(run[-1]) + 1) for run in runs)
