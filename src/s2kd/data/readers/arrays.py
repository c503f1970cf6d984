"""Arrays of any origin (`.npy`, `.npz`, HDF5), with axes, channels and times as described."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from s2kd.core.types import Domain, S2KDError
from s2kd.data.dates import EPOCH, read_dates
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import (
    ENDINGS,
    Headers,
    choose_key,
    headers,
    in_order,
    kind_of_arrays,
    label_of,
    lazy_array,
    listing,
    small_array,
)
from s2kd.data.readers._record import check_one_grid, north_west_first, per_frame, record
from s2kd.data.readers.files import files_of
from s2kd.data.steps import seconds_after

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

LETTERS = {"R": "run", "T": "time", "C": "channel", "H": "rows", "W": "columns"}


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
        start: date of the first frame, or the date from which `time` counts seconds; 2000-01-01.
            Numbers of another unit have it in `start`: `hours since 1900-01-01`.
        time: key (or `.npy` file) with times: datetime64, dates as text or numbers in any form
            that is clear, Unix time, or numbers that count from `start`.
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
    """(time,) dates: as stored, or evenly from `start`."""
    if not time:
        if step_seconds is None or not step_seconds > 0:
            raise S2KDError(
                f"{path}: set step_seconds, the seconds from frame to frame (above 0, got "
                f"{step_seconds}), or time, the key that holds their times"
            )
        seconds = np.arange(length) * step_seconds
        if not start:
            return seconds_after(EPOCH, seconds)
        return read_dates(seconds, "arrays: start", since=f"seconds since {start}")[0]
    label, values = _named_array(path, time, length)
    return read_dates(values, label, **_units(path, time, start))[0]


def _units(path: Path, key: str, start: str = "") -> dict[str, str]:
    """What times count from: `start`, else what an HDF5 array declares, with its calendar."""
    header = headers(path).get(key)
    attributes = {} if header is None else header.attributes
    declared = str(attributes.get("units", ""))
    since = start or (declared if " since " in declared else "")
    return {"since": since, "calendar": str(attributes.get("calendar", "standard"))}


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
LAYOUTS = {
    3: ("THW", "HWT", "WHT", "HTW", "WTH", "TWH"),
    4: ("TCHW", "THWC", "CTHW", "HWCT", "HWTC", "RTHW", "TRHW"),
    5: ("RTCHW", "RTHWC", "TRCHW"),
}
"""Orders of three to five axes that are met."""
PLURALS = {"R": "runs", "T": "times", "C": "channels", "H": "rows", "W": "columns"}
MOST_CHANNELS, FEWEST_FRAMES = 32, 5


def describe_layout(path: Path) -> "DetectedLayout | None":
    """Settings for the largest array of a file, its axes guessed from their lengths.

    None for what is no array file, and for an HDF5 file without such an array.
    """
    from s2kd.data.describe import DetectedLayout

    if not path.is_file():
        return None
    try:
        kind = kind_of_arrays(path)
    except S2KDError:
        return None
    stored = headers(path)
    fitting = {
        k: v for k, v in stored.items() if len(v.shape) in (3, 4, 5) and v.dtype.kind in "iuf"
    }
    is_netcdf = any(v.is_netcdf for v in fitting.values())
    if not stored or (kind == ".h5" and (not fitting or is_netcdf)):
        return None
    if not fitting:
        raise S2KDError(
            f"{path}: holds no numbers over time, rows and columns (three to five axes); it has "
            f"{listing(stored)}"
        )
    key = max(fitting, key=lambda name: int(np.prod(fitting[name].shape)))
    shape = fitting.pop(key).shape
    coordinates = {
        setting: (axis, _key_named(stored, names, shape, dates=axis == "T"))
        for setting, (axis, names) in COORDINATES.items()
    }
    lengths = {axis: stored[name].shape[0] for axis, name in coordinates.values() if name}
    layouts = fitting_layouts(shape, lengths)
    settings: dict[str, object] = {"path": str(path)} | ({"key": key} if key else {})
    settings |= {setting: name for setting, (_, name) in coordinates.items() if name}
    problems, asks = [], {}
    if len(layouts) == 1:
        settings |= {"layout": layouts[0]} | ({"join": "runs"} if "R" in layouts[0] else {})
        problems.append(
            f"the axes are guessed from their lengths: layout={layouts[0]!r}, "
            f"{_reading(layouts[0], shape)}"
        )
    else:
        readings = "; ".join(f"{text} ({_reading(text, shape)})" for text in layouts)
        asks["layout"] = (
            f"the axes of {shape} are not clear: set dataset.params.layout to one of "
            f"{readings or 'the letters T, H, W, C and R in their order'}, and with R "
            "dataset.params.join to runs"
        )
    if fitting:
        problems.append(
            f"{key!r} is read and {listing(fitting)} left out: set dataset.params.key, to a list "
            "where arrays of one shape are channels of one field"
        )
    times = str(settings.get("time", ""))
    if not times:
        settings["step_seconds"] = 1.0
        problems.append(
            "the step from frame to frame is unknown, step_seconds=1 is assumed: set "
            "dataset.params.step_seconds"
        )
    else:
        try:
            form = read_dates(small_array(path, times), times, **_units(path, times))[1]
        except S2KDError as error:
            form, asks["start"] = "", str(error)
        if form:
            problems.append(
                f"the numbers in {times!r} are taken for {form}: set dataset.params.start if they "
                "are not"
            )
    problems.append("channels and units are unknown: set dataset.params.channels and .units")
    return DetectedLayout(
        reader="arrays",
        certain=False,
        settings=settings,
        lines=[
            f"{'HDF5' if kind == '.h5' else kind[1:].upper()} array",
            *(f"{k or path.stem} {v.shape}" for k, v in stored.items()),
        ],
        problems=problems,
        asks=asks,
    )


def fitting_layouts(shape: tuple[int, ...], lengths: Mapping[str, int]) -> list[str]:
    """The orders of axes that an array of this shape may have.

    Args:
        shape: of the array.
        lengths: of the coordinates that the file holds, by axis (T, H, W).

    Frames have at most `MOST_CHANNELS` channels and are not eight times as wide as high. Readings
    whose frames are square, or a globe of twice as many columns as rows, come before others;
    without any, time comes first or is longest. Runs without channels are videos: square, and of
    five frames or more.
    """
    readings = []
    for layout in LAYOUTS[len(shape)]:
        sizes = dict(zip(layout, shape, strict=True))
        rows, columns, times = (sizes[axis] for axis in "HWT")
        usual = rows >= 8 and (rows == columns or abs(columns - 2 * rows) <= 2)
        video = ("R" in layout and layout[:2] != "RT") or layout == "RTHW"
        if (
            all(sizes[axis] == length for axis, length in lengths.items())
            and times >= FEWEST_FRAMES
            and sizes.get("C", 1) <= MOST_CHANNELS
            and (not video or (rows == columns and sizes["R"] >= FEWEST_FRAMES))
            and (layout != "TRCHW" or times < sizes["R"])
        ):
            first = layout.strip("R")[0] == "T" and sizes.get("C", 1) <= min(rows, columns)
            longest = times > max(rows, columns) >= min(rows, columns) >= sizes.get("C", 1)
            shaped = max(rows, columns) < 8 * min(rows, columns)
            rank = 2 * usual or int(shaped and (first or longest))
            rank = 0 if layout.index("W") < layout.index("H") or "HTW" in layout else rank
            readings.append((3 if len(lengths) == len(COORDINATES) else rank, layout))
    best = max((rank for rank, _ in readings), default=0)
    return [layout for rank, layout in readings if rank == best > 0]


def _reading(layout: str, shape: tuple[int, ...]) -> str:
    sizes = dict(zip(layout, shape, strict=True))
    return ", ".join(f"{sizes[axis]} {PLURALS[axis]}" for axis in "RTCHW" if axis in sizes)


def _key_named(
    stored: Headers, names: tuple[str, ...], shape: tuple[int, ...], *, dates: bool
) -> str:
    """The key along one axis with one of these names, or of datetime64; or nothing."""
    fitting = {
        key.rpartition("/")[2].lower(): key
        for key, header in stored.items()
        if len(header.shape) == 1
        and header.shape[0] in shape
        and (dates or header.dtype.kind in "iuf")
    }
    typed = [key for key in fitting.values() if dates and stored[key].dtype.kind == "M"]
    return next((fitting[name] for name in names if name in fitting), next(iter(typed), ""))
