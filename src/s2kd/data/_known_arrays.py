"""Arrays that no data set's layout fits, and windows cut already: what can be told of them."""

from pathlib import Path
from typing import Any

import numpy as np

from s2kd.data._array_runs import run_times
from s2kd.data._arrays import Held, held_in
from s2kd.data._known import Known
from s2kd.data._taxibj_cut import openstl_file
from s2kd.types import S2KDError

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
    found, step = _coordinates(path, held, sizes)
    problems = [f"the axes are guessed from their lengths: layout={layout!r} of {shape}"]
    if "time" not in found:
        found["step_seconds"] = step = 1.0
        problems.append(
            "how far apart frames are is not said, so step_seconds=1 is assumed: set "
            "dataset.params.step_seconds"
        )
    problems.append("channels and units are not said: set dataset.params.channels and .units")
    past = _past(sizes["T"])
    params |= found | {"gap": 2 * past}
    return Known(
        kind=f"{path.suffix[1:].upper()} array",
        part="arrays",
        reason="",
        params=params,
        arrays={k or path.stem: tuple(map(str, v.shape)) for k, v in held.items()},
        problems=tuple(problems) if past else (*problems, f"{sizes['T']} frames are too few"),
        ready=bool(past),
        frames=sizes["T"],
        step_seconds=step,
        height=sizes["H"],
        width=sizes["W"],
        past=past,
    )


def _guess(shape: tuple[int, ...]) -> str:
    """Time first, behind runs if there are five axes; channels are the shorter of both places."""
    match len(shape):
        case 3:
            return "THW"
        case 4:
            return "THWC" if shape[3] < shape[1] and shape[3] <= MOST_CHANNELS else "TCHW"
        case _:
            return "RTHWC" if shape[4] < shape[2] and shape[4] <= MOST_CHANNELS else "RTCHW"


def _coordinates(
    path: Path, held: dict[str, Held], sizes: dict[str, int]
) -> tuple[dict[str, Any], float]:
    """Keys that hold times, latitudes and longitudes, and the step that the times have."""
    by_name = {key.rpartition("/")[2].lower(): key for key in held}
    found: dict[str, Any] = {}
    for what, names, length in (
        ("time", TIMES, sizes["T"]),
        ("latitude", LATITUDES, sizes["H"]),
        ("longitude", LONGITUDES, sizes["W"]),
    ):
        key = next((by_name[n] for n in names if n in by_name), None)
        if key is not None and held[key].shape == (length,):
            found[what] = key
    step = 0.0
    if "time" in found:
        try:
            times = run_times(path, found["time"], np.datetime64(0, "ns"), None, sizes["T"])
            step = float(np.median(np.diff(times)) / np.timedelta64(1, "s"))
        except S2KDError:
            del found["time"]
    return found, step


def _past(frames: int) -> int:
    """The longest past (and lead) that leaves windows in every split; 0 where nothing does."""
    for past in LENGTHS:
        one, two = round(0.75 * frames), round(0.85 * frames)
        splits = (one, two - one - 2 * past, frames - two - 2 * past)
        windows = [length - 2 * past + 1 for length in splits]
        if windows[0] >= 20 and min(windows[1:]) >= 2:
            return past
    return 0
