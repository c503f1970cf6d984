"""Arrays that no data set's layout fits, and windows cut already: what can be told of them."""

from pathlib import Path
from typing import Any

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data._array_runs import START, beside, run_times, since_1970
from s2kd.data._arrays import Held, held_in
from s2kd.data._known import Known
from s2kd.data._record import missing_steps, step_numbers
from s2kd.data._taxibj_cut import openstl_file

TIMES = ("time", "times", "date", "dates", "datetime", "timestamp", "timestamps")
LATITUDES = ("lat", "lats", "latitude", "latitudes")
LONGITUDES = ("lon", "lons", "long", "longitude", "longitudes")
LENGTHS = (12, 8, 6, 4, 3, 2, 1)
MOST_CHANNELS = 32


def cut_windows(path: Path, layout: str) -> Known:
    """TaxiBJ's windows as OpenSTL or TaxiBJ+ cut them."""
    file, array = {
        "openstl": (openstl_file(path) or path, "X_train"),
        "X_c": (path / "train" / "X_c.npy", ""),
        "reshaped": (path / "train_input_data_reshaped.npy", ""),
    }[layout]
    held = held_in(file)
    if array not in held:
        raise S2KDError(f"{file}: needs {array!r}, has {', '.join(held) or 'nothing'}")
    shape = held[array].shape
    if len(shape) not in (4, 5):
        raise S2KDError(f"{file}: has shape {shape}, wants four or five axes")
    return Known(
        kind="OpenSTL's TaxiBJ" if layout == "openstl" else "TaxiBJ+",
        part="taxibj",
        reason="windows that are cut already, without dates; each is read as it is",
        params={"path": str(path)},
        arrays={key or file.name: tuple(map(str, value.shape)) for key, value in held.items()},
        height=shape[-2],
        width=shape[-1],
        past=shape[1] if len(shape) == 5 else shape[1] // 2,
    )


def any_array(path: Path) -> Known | None:
    """A recipe's settings for the largest array in the file, its axes guessed from their lengths.

    None for an HDF5 file without such an array, which other readers may know.
    """
    held = held_in(path)
    fit = {k: v for k, v in held.items() if len(v.shape) in (3, 4, 5) and v.dtype.kind in "iuf"}
    if not fit:
        if path.suffix.lower() in (".h5", ".hdf5"):
            return None
        has = ", ".join(f"{k or 'one array'} {v.shape}" for k, v in held.items()) or "nothing"
        raise S2KDError(
            f"{path}: holds no numbers over time, rows and columns (three to five axes); it has "
            f"{has}"
        )
    key = max(fit, key=lambda name: int(np.prod(fit[name].shape)))
    shape = fit[key].shape
    layout = _guess(shape)
    sizes = dict(zip(layout, shape, strict=True))
    params: dict[str, Any] = {"path": str(path)} | ({"key": key} if key else {})
    params |= {"layout": layout} | ({"join": "runs"} if "R" in layout else {})
    problems = [f"the axes are guessed from their lengths: layout={layout!r} of {shape}"]
    problems += _left_out(path, key, fit)
    found = _places(held, sizes)
    timed, times, said = _times(path, held, sizes["T"])
    found |= timed
    problems += said
    step = 0.0 if times is None else missing_steps(times).step_seconds
    if times is None:
        found["step_seconds"] = step = 1.0
        problems.append(
            "how far apart frames are is not said, so step_seconds=1 is assumed: set "
            "dataset.params.step_seconds"
        )
    problems.append("channels and units are not said: set dataset.params.channels and .units")
    past = _past(sizes["T"])
    if not past:
        problems.append(f"{sizes['T']} frames are too few")
    if times is not None and _irregular(path, times):
        past = 0  # why, `describe` says of times of any kind
    params |= found | {"gap": 2 * past}
    return Known(
        kind=f"{path.suffix[1:].upper()} array",
        part="arrays",
        reason="",
        params=params,
        arrays={k or path.stem: tuple(map(str, v.shape)) for k, v in held.items()},
        problems=tuple(problems),
        ready=bool(past),
        frames=sizes["T"],
        step_seconds=step,
        height=sizes["H"],
        width=sizes["W"],
        past=past,
        times=times,
    )


def _left_out(path: Path, key: str, fit: dict[str, Held]) -> list[str]:
    """Other arrays of frames, which a data set reads where it is told to."""
    others = ", ".join(f"{name!r} {held.shape}" for name, held in fit.items() if name != key)
    if not others:
        return []
    return [
        f"{key!r} is read and {others} left out: set dataset.params.key, to a list where arrays of "
        "one shape are channels of one field"
    ]


def _irregular(path: Path, times: np.ndarray) -> bool:
    """Whether no windows can be cut from these times."""
    try:
        step_numbers(str(path), times)
    except S2KDError:
        return True
    return False


def _guess(shape: tuple[int, ...]) -> str:
    """Time first, behind runs if there are five axes; channels are the shorter of both places."""
    match len(shape):
        case 3:
            return "THW"
        case 4:
            return "THWC" if shape[3] < shape[1] and shape[3] <= MOST_CHANNELS else "TCHW"
        case _:
            return "RTHWC" if shape[4] < shape[2] and shape[4] <= MOST_CHANNELS else "RTCHW"


def _places(held: dict[str, Held], sizes: dict[str, int]) -> dict[str, Any]:
    """Settings that name the keys which hold latitudes and longitudes."""
    wanted = (("latitude", LATITUDES, "H"), ("longitude", LONGITUDES, "W"))
    keys = {what: _named(held, names, sizes[axis]) for what, names, axis in wanted}
    return {what: key for what, key in keys.items() if key and held[key].dtype.kind in "iuf"}


def _named(held: dict[str, Held], names: tuple[str, ...], length: int) -> str:
    """The key, so long and called so, or nothing."""
    by_name = {key.rpartition("/")[2].lower(): key for key in held}
    key = next((by_name[name] for name in names if name in by_name), "")
    return key if key and held[key].shape == (length,) else ""


def _times(
    path: Path, held: dict[str, Held], length: int
) -> tuple[dict[str, Any], np.ndarray | None, list[str]]:
    """Settings for times, the times, and what is to be said: by name, or any datetime64."""
    dates = [k for k, v in held.items() if v.shape == (length,) and v.dtype.kind == "M"]
    key = _named(held, TIMES, length) or next(iter(dates), "")
    if not key:
        return {}, None, []
    _, values = beside(path, key)
    settings, problems = {"time": key}, []
    if values.dtype.kind in "iuf":
        start = "1970-01-01" if since_1970(values) else str(START)[:10]
        settings["start"] = start
        problems.append(
            f"the numbers in {key!r} are taken for seconds since {start}: set "
            "dataset.params.start if they are not"
        )
    try:
        begin = np.datetime64(settings.get("start", START), "ns")
        times = run_times(path, key, begin, None, length)
    except S2KDError as error:
        return {}, None, [str(error)]
    return settings, times, problems


def _past(frames: int) -> int:
    """The longest past (and lead) that leaves windows in every split; 0 where nothing does."""
    for past in LENGTHS:
        one, two = round(0.75 * frames), round(0.85 * frames)
        splits = (one, two - one - 2 * past, frames - two - 2 * past)
        windows = [length - 2 * past + 1 for length in splits]
        if windows[0] >= 20 and min(windows[1:]) >= 2:
            return past
    return 0
