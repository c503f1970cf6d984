"""Forecasts from the latest frames of a file or dataset, as CF data in memory or on disk."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.recipe import Part, upgrade
from s2kd.core.saved import find_student
from s2kd.core.types import S2KDError
from s2kd.data.latest import LatestFrames, latest_frames
from s2kd.data.loading import read_record
from s2kd.data.readers import readers
from s2kd.data.readers.files import IN_MEMORY
from s2kd.data.store import FACTS
from s2kd.deploy.forecaster import Forecaster

if TYPE_CHECKING:
    import xarray as xr

    from s2kd.core.types import GridSpec


def forecast(
    folder: Path | str,
    latest: "Path | str | xr.Dataset | xr.DataArray",
    *,
    student: str = "",
    steps: int = 0,
    fill: bool = False,
    beyond_training: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> "xr.Dataset":
    """A forecast from the last frames of a file, or of a dataset in memory, as a CF dataset.

    Args:
        folder: a run's, or a student's own.
        latest: CF data, or a file of the kind that the student was trained on. Channels, units,
            grid and time step must be those of training.
        student: a student's name; empty: the one with the lowest validation error.
        steps: frames to forecast; 0: as trained. More roll out.
        fill: carry the last value of a cell forward where the input lacks some. A student of data
            that were filled always does.
        beyond_training: accept values far outside those of training.
        say: called with one sentence where values were filled.

    Returns:
        Variables (time, lead_time, rows, columns), one per channel, in physical units; rows and
        columns as the input has them.

    Raises:
        S2KDError: names what differs from training, or which values are missing.
    """
    from s2kd.data.write import to_xarray

    if steps < 0:
        raise S2KDError(f"--steps {steps}: must be at least 1")
    latest = Path(latest) if isinstance(latest, str) else latest
    label = str(latest) if isinstance(latest, Path) else IN_MEMORY
    student_folder = find_student(Path(folder), student)
    forecaster = Forecaster.load(student_folder)
    metadata = forecaster.metadata
    recipe = _trained_recipe(metadata)
    fill = fill or recipe["keep"]["missing"] == "fill"
    record = _open_latest(latest, _trained_part(latest, label, metadata), forecaster.grid)
    past = latest_frames(
        record,
        forecaster.grid,
        forecaster.past,
        label=label,
        missing="fill" if fill else "error",
    )
    if not beyond_training:
        _check_values(label, past.frames, forecaster)
    if past.carried or past.borrowed:
        say(
            f"filled {past.carried} missing values with the last of their cell, and "
            f"{past.borrowed} before the first of their cell with the nearest cell's"
        )
    return to_xarray(
        forecaster.predict(past.frames[None], steps=steps),
        grid=forecaster.grid,
        initial_times=past.times[-1:],
        axes=past.axes,
        places=past.places,
        attributes=metadata.get("attributes", {}),
        title=f"Forecast by {student_folder.name}",
        source=metadata.get("source", ""),
        history=past.history,
        done=f"s2kd {metadata['versions']['s2kd']} forecast by {student_folder.name} from "
        f"{latest.name if isinstance(latest, Path) else IN_MEMORY}",
        facts=_facts(metadata, past),
    )


def forecast_file(
    folder: Path, latest: Path, out: Path, *, student: str = "", **settings: Any
) -> str:
    """`forecast` from a file, written to `out` (.nc or .zarr); returns the student's name."""
    from s2kd.data.write import check_out, write

    check_out(out, latest)
    student_folder = find_student(folder, student)
    write(forecast(student_folder, latest, **settings), out)
    return student_folder.name


def _trained_recipe(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a student's data in the form of this version."""
    return upgrade(metadata.get("recipe") or {"dataset": metadata["dataset"]})


def _trained_part(latest: "Path | xr.Dataset", label: str, metadata: Mapping[str, Any]) -> Part:
    """The reader and settings of the student's data; of prepared data, those of their source."""
    part = Part(**_trained_recipe(metadata)["dataset"])
    if part.name != "prepared" or (isinstance(latest, Path) and (latest / FACTS).exists()):
        return part
    if metadata.get("origin") is None:
        raise S2KDError(
            f"{label}: the student was trained on prepared data, and its metadata does not name "
            f"their source; give a folder that `s2kd data prepare` wrote (with {FACTS} in it)"
        )
    return Part(**upgrade({"dataset": metadata["origin"]})["dataset"])


def _open_latest(latest: "Path | xr.Dataset", part: Part, grid: "GridSpec") -> "xr.Dataset":
    """The record of the latest frames, by the reader of the student's data.

    Students of CF data and of simulated worlds, which have no files, forecast from CF data.
    """
    options = readers.options(part.name)
    if part.name == "cf" or "path" not in options:
        return _open_cf(latest, grid)
    if part.name == "weatherbench":  # whose names of fields may be long or short
        from s2kd.data.readers.weatherbench import field_named, open_fields

        return open_fields(latest, [field_named(channel) for channel in grid.channels])
    if not isinstance(latest, Path):
        raise S2KDError(
            f"{IN_MEMORY}: the student was trained on {part.name!r}, which is no CF data; give the "
            "path of such a file, or arrays to Forecaster.predict"
        )
    # settings that leave out environments or days of the training data
    skipped = ("environments", "whole_days")
    settings = {key: value for key, value in part.params.items() if key not in skipped}
    if "variables" in options:
        settings["variables"] = list(grid.channels)
    return read_record(Part(name=part.name, params={**settings, "path": str(latest)}))


def _open_cf(latest: "Path | xr.Dataset", grid: "GridSpec") -> "xr.Dataset":
    """The grid's channels of CF data; S2KDError where some are absent."""
    from s2kd.core.registry import nearest
    from s2kd.data.readers.cf import channel_names, fields_of, joined, summary

    label = str(latest) if isinstance(latest, Path) else IN_MEMORY
    fields = fields_of(latest)
    names = channel_names(fields)
    absent = [channel for channel in grid.channels if channel not in names]
    if absent:
        raise S2KDError(
            f"{label}: lacks {', '.join(absent)}, which the model was trained on"
            f"{nearest(absent[0], names)} (the file has {summary(fields)})"
        )
    return joined(label, fields, grid.channels)


def _check_values(label: str, past: np.ndarray, forecaster: Forecaster) -> None:
    """Refuse values further outside those of training than these are apart.

    A new extreme lies well within that; another unit or an undeclared fill value does not.
    Training statistics ignore cells outside the mask: ten times as far is allowed there.
    """
    grid, train_stats = forecaster.grid, forecaster.metadata["statistics"]
    low = np.array(train_stats["minimum"])[:, None, None]
    high = np.array(train_stats["maximum"])[:, None, None]
    reach = (high - low) * np.where(grid.exists, 1, 10)
    outside = (past < low - reach) | (past > high + reach)
    if not outside.any():
        return
    frame, channel, row, column = np.argwhere(outside)[0]
    unit = f" {grid.units[channel]}" if grid.units[channel] else ""
    raise S2KDError(
        f"{label}: {grid.channels[channel]!r} has {int(outside[:, channel].sum())} values far "
        f"outside the {low[channel, 0, 0]:g} to {high[channel, 0, 0]:g}{unit} of training, the "
        f"first {past[frame, channel, row, column]:g} at row {row}, column {column}; most likely "
        "another unit, or a fill value that the file does not declare (--beyond-training forecasts "
        "all the same)"
    )


def _facts(metadata: Mapping[str, Any], past: LatestFrames) -> dict[str, str | int | float]:
    """What made the forecast, as global attributes."""
    facts = {
        "s2kd_recipe": str(metadata.get("name", "")),
        "s2kd_method": str(metadata.get("method", "")),
        "s2kd_seed": int(metadata.get("seed", 0)),
        "s2kd_training_data": str(metadata.get("fingerprint", "")),
        "s2kd_past_frames": int(metadata["past"]),
    }
    if past.carried or past.borrowed:
        facts["s2kd_values_carried_forward"] = past.carried
        facts["s2kd_values_from_nearest_cell"] = past.borrowed
    return facts
