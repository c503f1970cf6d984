"""A forecast as a service sees it: a file with the latest frames in, a CF file out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2kd.forecaster import Forecaster, find_student
from s2kd.types import S2KDError


def forecast_file(
    folder: Path,
    latest_frames: Path,
    out: Path,
    *,
    student: str = "",
    steps: int = 0,
    fill: bool = False,
) -> str:
    """Read the last frames of a gridded file, forecast, write `out` (.nc or .zarr).

    Returns the name of the student that forecast. The file's channels, units, grid and time step
    must be those that the student was trained on; anything else is an S2KDError that names it, and
    so are missing values unless `fill` (or the student's own data set) carries the last value of
    a cell forward.
    """
    from s2kd.output import to_xarray, write

    if out.suffix not in (".nc", ".zarr"):
        raise S2KDError(f"{out}: a forecast is written as .nc or .zarr")
    if steps < 0:
        raise S2KDError(f"--steps {steps}: must be at least 1")
    chosen = find_student(folder, student)
    forecaster = Forecaster.load(chosen)
    past, times, axes = _latest(latest_frames, forecaster, fill)
    future = forecaster.predict(past[None], steps=steps)
    card = forecaster.card
    made = to_xarray(
        future,
        grid=forecaster.grid,
        initial_times=times[-1:],
        axes=axes,
        attributes=card.get("attributes", {}),
        title=f"Forecast by {chosen.name}",
        source=card.get("source", ""),
        history=_history(latest_frames),
        done=f"s2kd {card['versions']['s2kd']} forecast by {chosen.name} from {latest_frames.name}",
        facts=_facts(card),
    )
    write(made, out)
    return chosen.name


def _latest(path: Path, forecaster: Forecaster, fill: bool) -> tuple[Any, Any, Any]:
    """The last frames, from a CF file or from the kind of file that the student learned from.

    With their times, and the file's rows and columns where it is CF.
    """
    part = forecaster.card["dataset"]
    if part["name"] in ("netcdf", "atmosphere", "plume", "blobs", "weatherbench"):
        from s2kd.data import netcdf, weatherbench

        # WeatherBench's names of fields may be long or short in the file
        series_for = (weatherbench if part["name"] == "weatherbench" else netcdf).series_for
        series = series_for(str(path), forecaster.grid)
        fill = fill or part["params"].get("missing", "error") != "error"
        missing = "fill" if fill else "error"
        frames, times = netcdf.latest_of(series, forecaster.grid, forecaster.past, missing=missing)
        return frames, times, (series.plane.rows, series.plane.columns)
    if fill:
        raise S2KDError(f"--fill: only for gridded files with a time axis, not {part['name']}")
    return *_from_dataset(path, part, forecaster), None


def _from_dataset(path: Path, part: Mapping[str, Any], forecaster: Forecaster) -> tuple[Any, Any]:
    """The end of the last stretch of a file in a dataset's own layout (TaxiBJ, FDS)."""
    import numpy as np

    from s2kd.data import datasets

    dataset = datasets.build(part["name"], **{**part["params"], "path": str(path)})
    ours, theirs = forecaster.grid, dataset.grid
    for what in ("channels", "units", "height", "width", "step_seconds"):
        if getattr(ours, what) != getattr(theirs, what):
            raise S2KDError(
                f"{path}: {what} is {getattr(theirs, what)}, the student was trained on "
                f"{getattr(ours, what)}"
            )
    last = max(s.stop for stretches in dataset.splits.values() for s in stretches)
    first = last - forecaster.past
    if first < 0:
        raise S2KDError(f"{path}: has {last} frames, the student wants {forecaster.past}")
    return np.asarray(dataset.frames[first:last]), dataset.times[first:last]


def _history(path: Path) -> str:
    """The `history` of the input, where it has one."""
    import xarray as xr

    try:
        with xr.open_dataset(path, decode_times=False) as opened:
            return str(opened.attrs.get("history", ""))
    except Exception:
        return ""


def _facts(card: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What made the forecast, as global attributes."""
    return {
        "s2kd_recipe": str(card.get("name", "")),
        "s2kd_method": str(card.get("method", "")),
        "s2kd_seed": int(card.get("seed", 0)),
        "s2kd_training_data": str(card.get("fingerprint", "")),
        "s2kd_past_frames": int(card["past"]),
    }
