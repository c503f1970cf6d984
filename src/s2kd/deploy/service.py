"""A forecast as a service sees it: the latest frames in, CF data out, in memory or as files."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2kd.core.types import S2KDError
from s2kd.data._select import GIVEN, called
from s2kd.data.frames import FACTS
from s2kd.data.times import seconds_between
from s2kd.deploy.forecaster import Forecaster, find_student

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

    from s2kd.data.dataset import Dataset

GRIDDED = ("cf", "netcdf", "atmosphere", "plume", "blobs", "weatherbench")
"""Dataset parts whose students forecast from any file that follows CF."""

UNCUT: dict[str, dict[str, Any]] = {
    "arrays": {"train": (), "val": (), "test": (), "fractions": None},
    "taxibj": {
        "train_days": None,
        "val_days": None,
        "test_days": None,
        "fractions": None,
        "whole_days": False,
    },
    "fds_slices": {"unseen": {}},
    "prometheus": {"unseen": {}, "environments": None},
}
"""Settings of a dataset part under which the latest frames need not be enough to learn from."""


def forecast(
    folder: Path | str,
    latest: "Path | str | xr.Dataset",
    *,
    student: str = "",
    steps: int = 0,
    fill: bool = False,
    beyond_training: bool = False,
    say: Callable[[str], object] = lambda words: None,
) -> "xr.Dataset":
    """A forecast from the last frames of a dataset in memory or of a file, as a CF dataset.

    `folder` is a run's, whose student of the lowest validation error is taken where none is named,
    or a student's own. Returned are the axes time (the last input frame), lead_time, and rows and
    columns as the input has them, one variable a channel in physical units. `steps` beyond the
    trained lead roll out. The channels, units, grid and time step must be those that the student
    was trained on; anything else is an S2KDError that names it, and so are missing values unless
    `fill` (or the student's own data set) carries the last value of a cell forward, and values far
    outside those of training unless `beyond_training`. How many values were filled is told to
    `say`, and stands in what is returned.
    """
    from s2kd.data.output import to_xarray

    if steps < 0:
        raise S2KDError(f"--steps {steps}: must be at least 1")
    latest = Path(latest) if isinstance(latest, str) else latest
    if not isinstance(latest, Path) and not hasattr(latest, "data_vars"):
        raise S2KDError(
            f"forecast: wants an xarray.Dataset or the path of a file, not a "
            f"{type(latest).__name__} (`.to_dataset()` makes one of a DataArray that has a name)"
        )
    chosen = find_student(Path(folder), student)
    forecaster = Forecaster.load(chosen)
    past, times, where, filled = _latest(latest, forecaster, fill)
    if not beyond_training:
        _check_values(called(latest), past, forecaster)
    future = forecaster.predict(past[None], steps=steps)
    metadata = forecaster.metadata
    made = to_xarray(
        future,
        grid=forecaster.grid,
        initial_times=times[-1:],
        **where,
        attributes=metadata.get("attributes", {}),
        title=f"Forecast by {chosen.name}",
        source=metadata.get("source", ""),
        history=_history(latest),
        done=f"s2kd {metadata['versions']['s2kd']} forecast by {chosen.name} from "
        f"{latest.name if isinstance(latest, Path) else GIVEN}",
        facts=_facts(metadata) | filled,
    )
    if filled:
        carried, borrowed = filled.values()
        say(
            f"filled {carried} missing values with the last of their cell, and {borrowed} before "
            "the first of their cell with the nearest cell's"
        )
    return made


def forecast_file(
    folder: Path, latest_frames: Path, out: Path, *, student: str = "", **settings: Any
) -> str:
    """`forecast` from a file, written to `out` (.nc or .zarr); returns the student's name."""
    from s2kd.data.output import check_out, write

    check_out(out, latest_frames)
    chosen = find_student(folder, student)
    write(forecast(chosen, latest_frames, **settings), out)
    return chosen.name


def _latest(
    given: "Path | xr.Dataset", forecaster: Forecaster, fill: bool
) -> tuple[Any, Any, dict[str, Any], dict[str, int]]:
    """The last frames, from CF data or from the kind of file that the student learned from.

    With their times, where the file says that its cells lie (`axes` and `places` of `to_xarray`;
    empty where it is not CF), and how many values were filled (empty: none).
    """
    part = _part(given, forecaster.metadata)
    if part["name"] in GRIDDED:
        from s2kd.data import netcdf, weatherbench

        # WeatherBench's names of fields may be long or short in the file
        series_for = (weatherbench if part["name"] == "weatherbench" else netcdf).series_for
        series = series_for(given, forecaster.grid)
        # "mask" is of cells that never have a value; they are outside the grid's mask already
        fill = fill or part["params"].get("missing") == "fill"
        missing = "fill" if fill else "error"
        frames, times, (carried, borrowed) = netcdf.latest_of(
            series, forecaster.grid, forecaster.past, missing=missing
        )
        told = {"s2kd_values_carried_forward": carried, "s2kd_values_from_nearest_cell": borrowed}
        filled = told if carried or borrowed else {}
        axes = (series.plane.rows, series.plane.columns)
        return frames, times, {"axes": axes, "places": series.places()}, filled
    if fill:
        raise S2KDError(f"--fill: only for gridded files with a time axis, not {part['name']}")
    if not isinstance(given, Path):
        raise S2KDError(
            f"{GIVEN}: the student learned from {part['name']!r}, which is no CF data; give the "
            "path of such a file, or arrays to Forecaster.predict"
        )
    return *_from_dataset(given, part, forecaster), {}, {}


def _check_values(where: str, past: "np.ndarray", forecaster: Forecaster) -> None:
    """Refuse values further outside those of training than these are apart.

    A new extreme lies well within that; another unit or a fill value that nothing declares does
    not. Training statistics know nothing of cells outside the mask: ten times as far there.
    """
    import numpy as np

    grid, known = forecaster.grid, forecaster.metadata["statistics"]
    low = np.array(known["minimum"])[:, None, None]
    high = np.array(known["maximum"])[:, None, None]
    reach = (high - low) * np.where(grid.exists, 1, 10)
    outside = (past < low - reach) | (past > high + reach)
    if not outside.any():
        return
    frame, channel, row, column = np.argwhere(outside)[0]
    unit = f" {grid.units[channel]}" if grid.units[channel] else ""
    raise S2KDError(
        f"{where}: {grid.channels[channel]!r} has {int(outside[:, channel].sum())} values far "
        f"outside the {known['minimum'][channel]:g} to {known['maximum'][channel]:g}{unit} of "
        f"training, the first {past[frame, channel, row, column]:g} at row {row}, column "
        f"{column}; most likely another unit, or a fill value that the file does not declare "
        "(--beyond-training forecasts all the same)"
    )


def _part(given: "Path | xr.Dataset", metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The dataset part that reads it: what prepared data were made of reads its own files."""
    part = metadata["dataset"]
    if part["name"] != "prepared" or (isinstance(given, Path) and (given / FACTS).exists()):
        return part
    if metadata.get("origin") is None:
        raise S2KDError(
            f"{called(given)}: the student learned from prepared data, and its metadata lacks "
            f"what they were made of; give a folder that `s2kd data prepare` wrote (with {FACTS} "
            "in it)"
        )
    return metadata["origin"]


def _from_dataset(path: Path, part: Mapping[str, Any], forecaster: Forecaster) -> tuple[Any, Any]:
    """The last frames of a file in a dataset's own layout (arrays, TaxiBJ, FDS), and their times.

    A file that is too short to be cut into splits will do.
    """
    import numpy as np

    from s2kd.data import datasets

    params = {**part["params"], **UNCUT.get(part["name"], {}), "path": str(path)}
    if part["name"] == "fds" and path.suffix == ".npz":
        params["layout"] = "volume"
    dataset = datasets.build(part["name"], **params)
    ours, theirs = forecaster.grid, dataset.grid
    for what in ("channels", "units", "height", "width", "step_seconds"):
        if getattr(ours, what) != getattr(theirs, what):
            raise S2KDError(
                f"{path}: {what} is {getattr(theirs, what)}, the student was trained on "
                f"{getattr(ours, what)}"
            )
    first, stop = _last_past(path, dataset, forecaster.past)
    return np.asarray(dataset.frames[first:stop]), dataset.times[first:stop]


def _last_past(path: Path, dataset: "Dataset", past: int) -> tuple[int, int]:
    """First and stop of the last `past` frames, which must follow one another in one run."""
    import numpy as np

    stop = len(dataset.times)
    if dataset.window is not None:
        if dataset.window[0] != past:
            raise S2KDError(
                f"{path}: comes in windows of {dataset.window[0]} past frames, the student wants "
                f"{past}"
            )
        # an example's future frames are of another kind
        stop -= dataset.window[1]
    first = stop - past
    if first < 0:
        raise S2KDError(f"{path}: has {stop} frames, the student wants {past}")
    step, apart = dataset.grid.step_seconds, seconds_between(dataset.times[first:stop])
    broken = np.flatnonzero(np.abs(apart - step) > 0.01 * step)
    if len(broken):
        at = first + int(broken[-1])
        raise S2KDError(
            f"{path}: the student needs the last {past} frames {step:g} s apart, but "
            f"{str(dataset.times[at])[:19]} is followed by {str(dataset.times[at + 1])[:19]}"
        )
    begins: dict[str, int] = {}
    for stretch in (s for own in dataset.splits.values() for s in own):
        begins[stretch.name] = min(stretch.first, begins.get(stretch.name, stretch.first))
    for name, begin in begins.items():
        if first < begin < stop and name:
            raise S2KDError(
                f"{path}: run {name!r} has {stop - begin} frames, the student wants {past}"
            )
    return first, stop


def _history(given: "Path | xr.Dataset") -> str:
    """The `history` of the input, where it has one."""
    import xarray as xr

    if not isinstance(given, Path):
        return str(given.attrs.get("history", ""))
    try:
        # it warns of arrays without named dimensions
        with (
            warnings.catch_warnings(action="ignore"),
            xr.open_dataset(given, decode_times=False) as opened,
        ):
            return str(opened.attrs.get("history", ""))
    except Exception:
        return ""


def _facts(metadata: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What made the forecast, as global attributes."""
    return {
        "s2kd_recipe": str(metadata.get("name", "")),
        "s2kd_method": str(metadata.get("method", "")),
        "s2kd_seed": int(metadata.get("seed", 0)),
        "s2kd_training_data": str(metadata.get("fingerprint", "")),
        "s2kd_past_frames": int(metadata["past"]),
    }
