"""Arrays of any origin (`.npy`, `.npz`, HDF5), with axes, channels and times as described."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from s2kd.core.types import Domain, S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import (
    ENDINGS,
    Headers,
    choose_key,
    headers,
    in_order,
    label_of,
    lazy_array,
    listing,
    small_array,
)
from s2kd.data.readers._record import (
    EPOCH,
    check_one_grid,
    north_west_first,
    per_frame,
    record,
    seconds_after_epoch,
)
from s2kd.data.readers.files import files_of

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

LETTERS = {"R": "run", "T": "time", "C": "channel", "H": "rows", "W": "columns"}
UNIX_SECONDS = 5e8
"""Larger numbers of seconds (after 1985, or 16 years of a record) are taken for Unix time."""
MOST_SECONDS = 9e9
"""Seconds that nanoseconds in 64 bits can count."""


class Piece(NamedTuple):
    """A run, or a stretch of one series: (time, channel, row, column) at `times`."""

    file: Path
    name: str
    frames: "da.Array"
    times: np.ndarray


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
    join: Literal["time", "runs"] = "time",
    domain: Domain = "generic",
    local_time: bool = False,
) -> "xr.Dataset":
    """Frames from `.npy`, `.npz` or HDF5 files whose axes are described.

    Args:
        path: a file, a folder, a pattern, or a list of these.
        key: the array in an `.npz` or HDF5 file (needed where several have so many axes), or a
            list of arrays without axis C, which are the channels.
        layout: the axes in order: T time, H rows, W columns, C channel (absent: one channel) and
            R run; `TCHW`, `THWC`, `THW`, `RTCHW`.
        channels: names along axis C; by default the keys, or `channel_0` and so on.
        units: of the channels.
        step_seconds: from frame to frame, where the file holds no times.
        start: date of the first frame, or the date from which `time` counts; 2000-01-01.
        time: key (or `.npy` file) with times: datetime64, text, or seconds since `start`, which
            is required where they look like Unix time.
        latitude: degrees, or a key (or `.npy` file) that holds them; turns rows north first.
        longitude: as `latitude`; turns columns west first.
        south_first: without latitudes, turns the rows.
        wraps: whether the columns go round the globe.
        join: `time` makes all files one series, in order of their times (without `time` in order
            of their names, without a gap). `runs` makes every file, and every entry of R, a run
            named by its file (and `_` and its number in R).
        domain: what narrators are told of the data.
        local_time: whether times are local.

    Raises:
        S2KDError: files that cannot be read, or whose shapes do not fit the description.
    """
    import dask.array as da

    if not set("THW") <= set(layout) <= set(LETTERS) or len(set(layout)) < len(layout):
        listed = ", ".join(f"{letter} {word}" for letter, word in LETTERS.items())
        raise S2KDError(
            f"arrays: layout={layout!r} must name T, H and W once each, and C or R where there are "
            f"such axes ({listed}), as in 'TCHW', 'THWC', 'THW' or 'RTCHW'"
        )
    if join == "time" and "R" in layout:
        raise S2KDError("arrays: a layout with R holds several runs, so set join='runs'")
    paths = [path] if isinstance(path, str) else path
    files = list(dict.fromkeys(file for text in paths for file in files_of(text, ENDINGS)))
    keys = [key] if isinstance(key, str) else list(dict.fromkeys(key)) or [""]
    pieces = []
    for file in files:
        runs = _runs_of(file, keys, layout)
        clock = _times(file, time, start, step_seconds, runs.shape[1])
        names = [f"{file.stem}_{n}" for n in range(len(runs))] if "R" in layout else [file.stem]
        pieces += [Piece(file, *named, clock) for named in zip(names, runs, strict=True)]
    check_one_grid("arrays", {str(piece.file): piece.frames.shape[1:] for piece in pieces})
    names = [piece.name for piece in pieces]
    if join == "runs" and len({*names}) < len(names):
        raise S2KDError(f"{files[0].parent}: two runs have the same name; rename a file")
    if join == "time" and time:
        pieces.sort(key=lambda piece: piece.times[0])
    frames = da.concatenate([piece.frames for piece in pieces])
    times = np.concatenate([piece.times for piece in pieces])
    if join == "time" and not time:
        times = _times(files[0], time, start, step_seconds, len(times))
    count = frames.shape[1]
    channels = channels or (keys if len(keys) > 1 else [f"channel_{n}" for n in range(count)])
    units = units or [""] * len(channels)
    if not len(channels) == len(units) == count:
        raise S2KDError(
            f"{files[0]}: has {count} channels by the layout, but channels={list(channels)} and "
            f"units={list(units)}"
        )
    label = str(path) if isinstance(path, str) else str(files[0].parent)
    dataset = record(
        frames[:, :, ::-1] if south_first and not len(latitude) else frames,
        channels=channels,
        units=units,
        times=times,
        coords={
            "latitude": _degrees(files[0], "row", latitude, frames.shape[2]),
            "longitude": _degrees(files[0], "column", longitude, frames.shape[3]),
            "run": per_frame(names, [len(p.times) for p in pieces]) if join == "runs" else None,
        },
        name=Path(label.replace("*", "")).stem or "arrays",
        domain=domain,
        source=", ".join(file.name for file in files[:4]) + (", …" if len(files) > 4 else ""),
        local_time=int(local_time),
        wraps=int(wraps),
        step_seconds=None if step_seconds is None else float(step_seconds),
    )
    return north_west_first(label, dataset)


def _runs_of(path: Path, keys: Sequence[str], layout: str) -> "da.Array":
    """(run, time, channel, row, column) of one file, lazy."""
    import dask.array as da

    keys = [choose_key(path, key, axes=len(layout)) for key in keys]
    stored = [lazy_array(path, key) for key in keys]
    shapes = {key: array.shape for key, array in zip(keys, stored, strict=True)}
    if (
        any(array.ndim != len(layout) or 0 in array.shape for array in stored)
        or len({*shapes.values()}) > 1
        or (len(keys) > 1 and "C" in layout)
    ):
        listed = ", ".join(f"{label_of(path, key)} {shape}" for key, shape in shapes.items())
        raise S2KDError(
            f"{listed} must have the {len(layout)} axes of layout={layout!r} "
            f"({', '.join(LETTERS[letter] for letter in layout)}), none empty; several keys, which "
            "are the channels, must share one shape, without C"
        )
    channels = [in_order(array, layout, "RTCHW") for array in stored]
    return da.concatenate(channels, axis=2).astype(np.float32)


def _times(
    path: Path, time: str, start: str, step_seconds: float | int | None, length: int
) -> np.ndarray:
    """(time,) datetime64[ns]: as stored, or evenly from `start`."""
    begin = _dates(start, "arrays: start") if start else EPOCH
    if not time:
        if step_seconds is None or not step_seconds > 0:
            raise S2KDError(
                f"{path}: set step_seconds, the seconds from frame to frame (above 0, got "
                f"{step_seconds}), or time, the key that holds their times"
            )
        return begin + (seconds_after_epoch(np.arange(length) * step_seconds) - EPOCH)
    label, values = _named_array(path, time, length)
    if values.dtype.kind == "M":
        return values.astype("datetime64[ns]")
    if values.dtype.kind not in "iuf":
        return _dates(values, label)
    latest = float(np.abs(values.astype(float)).max())
    if latest > MOST_SECONDS or (not start and _is_unix_time(values)):
        raise S2KDError(
            f"{label}: times up to {latest:.10g} are no seconds since 2000: where they count from "
            "1970, set dataset.params.start=1970-01-01 (or the date from which they count); "
            "milliseconds must be divided or stored as datetime64"
        )
    return begin + (seconds_after_epoch(values.astype(float)) - EPOCH)


def _dates(texts: str | np.ndarray, label: str) -> np.ndarray:
    """datetime64[ns] of text or bytes."""
    try:
        stripped = np.char.strip(np.asarray(texts).astype("S")).astype("U")
        return np.asarray(stripped.astype("datetime64[ns]"))
    except ValueError as error:
        raise S2KDError(f"{label}: holds no dates such as 2013-01-01T06:00 ({error})") from None


def _is_unix_time(values: np.ndarray) -> bool:
    """Whether numbers look like seconds since 1970."""
    return float(values.max(initial=0)) > UNIX_SECONDS


def _named_array(path: Path, key: str, length: int) -> tuple[str, np.ndarray]:
    """A label for errors, and (length,) values: a key of the file or a `.npy` relative to it."""
    if key.endswith(".npy"):
        path, key = path.parent / Path(key).expanduser(), ""
    return label_of(path, key), small_array(path, key, shape=(length,))


def _degrees(
    path: Path, dim: str, values: str | Sequence[float | int], length: int
) -> tuple[str, np.ndarray] | None:
    """A coordinate in degrees, as given or as the file holds it; None where nothing was given."""
    if not len(values):
        return None
    degrees = _named_array(path, values, length)[1] if isinstance(values, str) else values
    if len(degrees) != length:
        raise S2KDError(f"{path}: has {length} {dim}s, but {len(degrees)} degrees are set for them")
    return dim, np.asarray(degrees, dtype=float)


# --- description of a file ------------------------------------------------------------------------

COORDINATES = {
    "time": ("T", ("time", "times", "date", "dates", "datetime", "timestamp", "timestamps")),
    "latitude": ("H", ("lat", "lats", "latitude", "latitudes")),
    "longitude": ("W", ("lon", "lons", "long", "longitude", "longitudes")),
}
"""Axis and usual keys of each coordinate."""
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
        raise S2KDError(
            f"{path}: holds no numbers over time, rows and columns (three to five axes); it has "
            f"{listing(stored)}"
        )
    key = max(fitting, key=lambda name: int(np.prod(fitting[name].shape)))
    shape = fitting.pop(key).shape
    layout = _guess_layout(shape)
    settings: dict[str, object] = {"path": str(path)} | ({"key": key} if key else {})
    settings |= {"layout": layout} | ({"join": "runs"} if "R" in layout else {})
    problems = [f"the axes are guessed from their lengths: layout={layout!r} of {shape}"]
    if fitting:
        problems.append(
            f"{key!r} is read and {listing(fitting)} left out: set dataset.params.key, to a list "
            "where arrays of one shape are channels of one field"
        )
    for setting, (axis, names) in COORDINATES.items():
        coordinate = _key_named(stored, names, shape[layout.index(axis)], dates=axis == "T")
        settings |= {setting: coordinate} if coordinate else {}
    times = str(settings.get("time", ""))
    if not times:
        settings["step_seconds"] = 1.0
        problems.append(
            "the step from frame to frame is unknown, step_seconds=1 is assumed: set "
            "dataset.params.step_seconds"
        )
    elif stored[times].dtype.kind in "iuf":
        unix = _is_unix_time(small_array(path, times))
        settings["start"] = "1970-01-01" if unix else str(EPOCH)[:10]
        problems.append(
            f"the numbers in {times!r} are taken for seconds since {settings['start']}: set "
            "dataset.params.start if they are not"
        )
    problems.append("channels and units are unknown: set dataset.params.channels and .units")
    return DetectedLayout(
        reader="arrays",
        certain=False,
        settings=settings,
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


def _key_named(stored: Headers, names: tuple[str, ...], length: int, *, dates: bool) -> str:
    """The key of that length with one of these names, or of datetime64; or nothing."""
    fitting = {
        key.rpartition("/")[2].lower(): key
        for key, header in stored.items()
        if header.shape == (length,) and (dates or header.dtype.kind in "iuf")
    }
    typed = [key for key in fitting.values() if dates and stored[key].dtype.kind == "M"]
    return next((fitting[name] for name in names if name in fitting), next(iter(typed), ""))
