"""Arrays of any origin (`.npy`, `.npz`, HDF5), with axes, channels and times as described."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import Domain, S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import (
    ENDINGS,
    Header,
    choose_key,
    headers,
    lazy_array,
    small_array,
)
from s2kd.data.readers._record import EPOCH, record, run_coordinate

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

JOINS = ("time", "runs")
LETTERS = {"R": "run", "T": "time", "C": "channel", "H": "rows", "W": "columns"}
UNIX_SECONDS = 5e8
"""Larger numbers of seconds (after 1985, or 16 years of a record) are taken for Unix time."""
MOST_SECONDS = 9e9
"""Seconds that nanoseconds in 64 bits can count."""


@readers.register("arrays")
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
    domain: Domain = "generic",
    local_time: bool = False,
) -> "xr.Dataset":
    """Frames from `.npy`, `.npz` or HDF5 files whose axes are described.

    Parameters
    ----------
    path
        a file, a folder, a pattern, or a list of these.
    key
        the array in an `.npz` or HDF5 file (needed where several have so many axes), or a
        list of arrays without axis C, which are the channels.
    layout
        the axes in order: T time, H rows, W columns, C channel (absent: one channel) and
        R run; `TCHW`, `THWC`, `THW`, `RTCHW`.
    channels, units
        of axis C; by default the keys, or `channel_0` and so on.
    step_seconds
        from frame to frame, where the file holds no times.
    start
        date of the first frame, or the date from which `time` counts; 2000-01-01.
    time
        key (or `.npy` file) with times: datetime64, text, or seconds since `start`, which
        is required where they look like Unix time.
    latitude, longitude, south_first
        degrees, or keys (or `.npy` files) that hold them. They turn rows
        north first and columns west first; without latitudes `south_first` turns the rows.
    wraps
        whether the columns go round the globe.
    join
        `time` makes all files one series, in order of their times (without `time` in order
        of their names, without a gap). `runs` makes every file, and every entry of R, a run
        named by its file (and `_` and its number in R).
    domain, local_time
        what narrators are told of the data.

    Raises
    ------
    S2KDError
        files that cannot be read, or whose shapes do not fit the description.
    """
    import dask.array as da

    _check_settings(layout, join)
    files = _files(path)
    parts = [_frames_of(file, key, layout) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.shape[2:] != parts[0].shape[2:]:
            raise S2KDError(
                f"{file}: frames have shape {part.shape[2:]} (channel, row, column), those of "
                f"{files[0]} {parts[0].shape[2:]}; all files must share one grid"
            )
    if not channels and not isinstance(key, str) and len(dict.fromkeys(key)) > 1:
        channels = tuple(dict.fromkeys(key))
    channels, units = _channel_names(files[0], parts[0].shape[2], channels, units)
    clocks = [
        _times(file, time, start, step_seconds, part.shape[1])
        for file, part in zip(files, parts, strict=True)
    ]
    runs = {
        (f"{file.stem}_{number}" if "R" in layout else file.stem): part[number]
        for file, part in zip(files, parts, strict=True)
        for number in range(part.shape[0])
    }
    if join == "runs" and len(runs) < sum(part.shape[0] for part in parts):
        raise S2KDError(f"{files[0].parent}: two runs have the same name; rename a file")
    if join == "runs":
        times = np.concatenate(
            [np.tile(clock, part.shape[0]) for clock, part in zip(clocks, parts, strict=True)]
        )
        frames = da.concatenate(list(runs.values()))
    else:
        order, times = _one_series(clocks, timed=bool(time))
        frames = da.concatenate([parts[number][0] for number in order])
    rows, columns, coords = _grid(files[0], frames.shape[2:], latitude, longitude, south_first)
    if join == "runs":
        coords["run"] = run_coordinate({name: run.shape[0] for name, run in runs.items()})
    label = str(path) if isinstance(path, str) else str(files[0].parent)
    return record(
        frames[:, :, rows, columns],
        channels=channels,
        units=units,
        times=times,
        coords=coords,
        name=Path(label.replace("*", "")).stem or "arrays",
        domain=domain,
        source=", ".join(file.name for file in files[:4]) + (", …" if len(files) > 4 else ""),
        local_time=int(local_time),
        wraps=int(wraps),
        step_seconds=None if step_seconds is None else float(step_seconds),
    )


def _check_settings(layout: str, join: str) -> None:
    if not set("THW") <= set(layout) <= set(LETTERS) or len(set(layout)) < len(layout):
        listed = ", ".join(f"{letter} {word}" for letter, word in LETTERS.items())
        raise S2KDError(
            f"arrays: layout={layout!r} must name T, H and W once each, and C or R where there are "
            f"such axes ({listed}), as in 'TCHW', 'THWC', 'THW' or 'RTCHW'"
        )
    if join not in JOINS:
        raise S2KDError(f"arrays: join={join!r}{nearest(join, JOINS)}: must be 'time' or 'runs'")
    if join == "time" and "R" in layout:
        raise S2KDError("arrays: a layout with R holds several runs, so set join='runs'")


def _files(path: str | Sequence[str]) -> list[Path]:
    """The files of a path, folder or pattern in order of name."""
    files: list[Path] = []
    for text in [path] if isinstance(path, str) else path:
        location = Path(text).expanduser()
        if location.is_dir():
            matches = sorted(p for p in location.iterdir() if p.suffix.lower() in ENDINGS)
            if not matches:
                raise S2KDError(f"{text}: a folder without files that end in {', '.join(ENDINGS)}")
        elif location.is_file():
            matches = [location]
        else:
            # pathlib's own globbing cannot start from an absolute pattern
            matches = sorted(map(Path, glob.glob(str(location), recursive=True)))  # noqa: PTH207
            if not matches:
                raise S2KDError(f"{text}: no such file, folder or pattern that matches")
        files += matches
    if len(set(files)) < len(files):
        raise S2KDError(f"arrays: path names {files[0].name} and others more than once")
    return files


def _frames_of(path: Path, key: str | Sequence[str], layout: str) -> "da.Array":
    """(run, time, channel, row, column) of one file, lazy."""
    import dask.array as da

    names = [key] if isinstance(key, str) else list(dict.fromkeys(key)) or [""]
    keys = [choose_key(path, name, axes=len(layout)) for name in names]
    if len(keys) > 1 and "C" in layout:
        raise S2KDError(
            f"{path}: several keys ({', '.join(keys)}) are the channels, so layout={layout!r} "
            "must have no C"
        )
    stored = [lazy_array(path, name) for name in keys]
    for name, array in zip(keys, stored, strict=True):
        label = f"{path}: {name}" if name else str(path)
        if array.ndim != len(layout) or 0 in array.shape:
            raise S2KDError(
                f"{label}: has shape {array.shape}, but layout={layout!r} means {len(layout)} axes "
                f"({', '.join(LETTERS[letter] for letter in layout)}), none empty"
            )
        if array.shape != stored[0].shape:
            raise S2KDError(
                f"{label}: has shape {array.shape}, but {keys[0]} has {stored[0].shape}; channels "
                "must share one shape"
            )
    order = [layout.index(letter) for letter in "RTCHW" if letter in layout]
    absent = tuple(axis for axis, letter in enumerate("RTCHW") if letter not in layout)
    channels = [da.expand_dims(array.transpose(order), absent) for array in stored]
    return da.concatenate(channels, axis=2).astype(np.float32)


def _channel_names(
    file: Path, count: int, channels: Sequence[str], units: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = tuple(channels) or tuple(f"channel_{number}" for number in range(count))
    texts = tuple(units) or ("",) * len(names)
    for setting, values in (("channels", names), ("units", texts)):
        if len(values) != count:
            raise S2KDError(
                f"{file}: has {count} channels by the layout, but {setting} names {len(values)} "
                f"({', '.join(values)})"
            )
    return names, texts


def _one_series(clocks: list[np.ndarray], *, timed: bool) -> tuple[list[int], np.ndarray]:
    """The order of files in one series, and its times; untimed files follow each other."""
    if timed:
        order = sorted(range(len(clocks)), key=lambda number: clocks[number][0])
        return order, np.concatenate([clocks[number] for number in order])
    step = next((c[1] - c[0] for c in clocks if len(c) > 1), np.timedelta64(0, "ns"))
    total = sum(map(len, clocks))
    return list(range(len(clocks))), clocks[0][0] + np.arange(total) * step


def _times(
    path: Path, time: str, start: str, step_seconds: float | int | None, length: int
) -> np.ndarray:
    """(time,) datetime64[ns]: as stored, or evenly from `start`."""
    begin = _date(start) if start else EPOCH
    if not time:
        if step_seconds is None:
            raise S2KDError(
                f"{path}: set step_seconds, the seconds from frame to frame, or time, the key that "
                "holds their times"
            )
        if not step_seconds > 0:
            raise S2KDError(f"arrays: step_seconds={step_seconds:g} must be above 0")
        return begin + np.round(np.arange(length) * step_seconds * 1e9).astype("timedelta64[ns]")
    label, values = named_array(path, time)
    if values.shape != (length,):
        raise S2KDError(f"{label}: has shape {values.shape}, but {length} frames need ({length},)")
    if values.dtype.kind == "M":
        return values.astype("datetime64[ns]")
    if values.dtype.kind in "iuf":
        _check_seconds(label, values, started=bool(start))
        return begin + np.round(values.astype(float) * 1e9).astype("timedelta64[ns]")
    texts = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    return np.array([_date(text.strip(), label) for text in texts])


def _date(text: str, label: str = "arrays: start") -> np.datetime64:
    try:
        return np.datetime64(text.replace(" ", "T"), "ns")
    except ValueError as error:
        raise S2KDError(
            f"{label}: {text!r} is not a date such as 2013-01-01T06:00 ({error})"
        ) from None


def is_unix_time(values: np.ndarray) -> bool:
    """Whether numbers look like seconds since 1970."""
    return bool(len(values)) and float(values.max()) > UNIX_SECONDS


def _check_seconds(label: str, values: np.ndarray, *, started: bool) -> None:
    if len(values) and np.abs(values.astype(float)).max() > MOST_SECONDS:
        raise S2KDError(
            f"{label}: times up to {values.max():.10g} are too large for seconds (milliseconds "
            "since 1970, perhaps); divide them, or store datetime64"
        )
    if not started and is_unix_time(values):
        raise S2KDError(
            f"{label}: times up to {values.max():.10g} look like seconds since 1970: set "
            "dataset.params.start=1970-01-01, or the date from which they count"
        )


def named_array(path: Path, key: str) -> tuple[str, np.ndarray]:
    """A label for errors, and a small array: a key of the file or a `.npy` relative to it."""
    if key.endswith(".npy"):
        file = path.parent / Path(key).expanduser()
        return str(file), small_array(file)
    keys = {} if path.suffix == ".npy" else headers(path)
    if key not in keys:
        listed = ", ".join(keys) or "no keys: name a .npy file"
        raise S2KDError(f"{path}: no key {key!r} (it has {listed})")
    return f"{path}: {key}", small_array(path, key)


def _grid(
    path: Path,
    shape: tuple[int, ...],
    latitude: str | Sequence[float | int],
    longitude: str | Sequence[float | int],
    south_first: bool,
) -> tuple[slice, slice, dict[str, object]]:
    """How to turn rows and columns, and the coordinates of the turned grid."""
    degrees_north = _degrees(path, "latitude", latitude, shape[0])
    degrees_east = _degrees(path, "longitude", longitude, shape[1])
    flip_rows = south_first if degrees_north is None else bool(degrees_north[0] < degrees_north[-1])
    if degrees_north is not None and south_first and not flip_rows:
        raise S2KDError(f"{path}: south_first contradicts latitudes from {degrees_north[0]:g} down")
    flip_columns = degrees_east is not None and bool(degrees_east[0] > degrees_east[-1])
    rows, columns = (slice(None, None, -1 if flip else 1) for flip in (flip_rows, flip_columns))
    coords = {
        "latitude": None if degrees_north is None else ("row", degrees_north[rows]),
        "longitude": None if degrees_east is None else ("column", degrees_east[columns]),
    }
    return rows, columns, coords


def _degrees(
    path: Path, setting: str, given: str | Sequence[float | int], length: int
) -> np.ndarray | None:
    """(length,) degrees, rising or falling; None where nothing was given."""
    if not len(given):
        return None
    if isinstance(given, str):
        label, values = named_array(path, given)
    else:
        label, values = setting, np.asarray(given, dtype=float)
    steps = np.diff(values)
    if values.shape != (length,) or not ((steps > 0).all() or (steps < 0).all()):
        raise S2KDError(
            f"{label}: has shape {values.shape}, but {setting} needs {length} degrees that only "
            "rise or only fall"
        )
    return values.astype(float)


# --- description of a file ------------------------------------------------------------------------

TIMES = ("time", "times", "date", "dates", "datetime", "timestamp", "timestamps")
LATITUDES = ("lat", "lats", "latitude", "latitudes")
LONGITUDES = ("lon", "lons", "long", "longitude", "longitudes")
MOST_CHANNELS = 32


def describe_layout(path: Path) -> "DetectedLayout | None":
    """Settings for the largest array of a file, its axes guessed from their lengths.

    None for what is no array file, and for an HDF5 file without such an array.
    """
    from s2kd.data.describe import DetectedLayout

    if not path.is_file() or path.suffix.lower() not in ENDINGS:
        return None
    stored = headers(path)
    fitting = {
        k: v for k, v in stored.items() if len(v.shape) in (3, 4, 5) and v.dtype.kind in "iuf"
    }
    if not fitting:
        if path.suffix.lower() in (".h5", ".hdf5"):
            return None
        listed = ", ".join(f"{k or 'one array'} {v.shape}" for k, v in stored.items()) or "nothing"
        raise S2KDError(
            f"{path}: holds no numbers over time, rows and columns (three to five axes); it has "
            f"{listed}"
        )
    key = max(fitting, key=lambda name: int(np.prod(fitting[name].shape)))
    shape = fitting[key].shape
    layout = _guess_layout(shape)
    sizes = dict(zip(layout, shape, strict=True))
    settings: dict[str, object] = {"path": str(path)} | ({"key": key} if key else {})
    settings |= {"layout": layout} | ({"join": "runs"} if "R" in layout else {})
    problems = [f"the axes are guessed from their lengths: layout={layout!r} of {shape}"]
    others = ", ".join(f"{name!r} {head.shape}" for name, head in fitting.items() if name != key)
    if others:
        problems.append(
            f"{key!r} is read and {others} left out: set dataset.params.key, to a list where "
            "arrays of one shape are channels of one field"
        )
    for setting, names, axis in (("latitude", LATITUDES, "H"), ("longitude", LONGITUDES, "W")):
        degrees = _key_named(stored, names, sizes[axis])
        if degrees and stored[degrees].dtype.kind in "iuf":
            settings[setting] = degrees
    time_settings, time_problems = _time_settings(path, stored, sizes["T"])
    settings |= time_settings
    problems += time_problems
    problems.append("channels and units are unknown: set dataset.params.channels and .units")
    return DetectedLayout(
        reader="arrays",
        certain=False,
        settings=settings,
        recipe="",
        lines=[
            f"{path.suffix[1:].upper()} array",
            *(f"{k or path.stem} {v.shape}" for k, v in stored.items()),
        ],
        problems=problems,
    )


def _guess_layout(shape: tuple[int, ...]) -> str:
    """Time first, after runs if there are five axes; channels are the shorter of two places."""
    prefix, rest = ("R", shape[1:]) if len(shape) == 5 else ("", shape)
    if len(rest) == 3:
        return "THW"
    last = rest[3] < rest[1] and rest[3] <= MOST_CHANNELS
    return prefix + ("THWC" if last else "TCHW")


def _key_named(stored: dict[str, Header], names: tuple[str, ...], length: int) -> str:
    """The key of that length with one of these names, or nothing."""
    by_name = {key.rpartition("/")[2].lower(): key for key in stored}
    key = next((by_name[name] for name in names if name in by_name), "")
    return key if key and stored[key].shape == (length,) else ""


def _time_settings(
    path: Path, stored: dict[str, Header], length: int
) -> tuple[dict[str, object], list[str]]:
    """Settings for times, by name or by type datetime64, and what is assumed for them."""
    dates = [k for k, v in stored.items() if v.shape == (length,) and v.dtype.kind == "M"]
    key = _key_named(stored, TIMES, length) or next(iter(dates), "")
    if not key:
        return {"step_seconds": 1.0}, [
            "the step from frame to frame is unknown, step_seconds=1 is assumed: set "
            "dataset.params.step_seconds"
        ]
    if stored[key].dtype.kind not in "iuf":
        return {"time": key}, []
    start = "1970-01-01" if is_unix_time(small_array(path, key)) else str(EPOCH)[:10]
    return {"time": key, "start": start}, [
        f"the numbers in {key!r} are taken for seconds since {start}: set dataset.params.start if "
        "they are not"
    ]
