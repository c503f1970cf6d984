"""Input frames of a forecast: read as the training data were, and checked against their ranges."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from s2kd.core.recipe import Part
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.latest import LatestFrames, latest_frames
from s2kd.data.loading import read_record
from s2kd.data.readers.files import IN_MEMORY
from s2kd.data.store import FACTS

if TYPE_CHECKING:
    import xarray as xr


def input_frames(
    latest: "Path | xr.Dataset | xr.DataArray",
    metadata: Mapping[str, Any],
    *,
    fill: bool,
    beyond_training: bool,
    counts: Sequence[int] = (),
) -> LatestFrames:
    """The last frames of a file or dataset, in the units and order of training.

    Of `counts` (as many as the student takes, where it is empty) the first that the input holds.
    Raises S2KDError where they differ from training, lack values, or (unless `beyond_training`)
    are far outside its range; with `beyond_training` a notice names such values.
    """
    record = _opened(latest, metadata, GridSpec.from_dict(metadata["grid"]))
    record = record.assign_attrs(marks=metadata.get("marks", {}))
    settings = {"label": label_of(latest), "fill": fill, "beyond_training": beyond_training}
    counts = counts or (metadata["past"],)
    for count in counts[:-1]:
        with suppress(S2KDError):
            return _last_frames(record, count, metadata, **settings)
    return _last_frames(record, counts[-1], metadata, **settings)


def _last_frames(
    record: "xr.Dataset",
    count: int,
    metadata: Mapping[str, Any],
    *,
    label: str,
    fill: bool,
    beyond_training: bool,
) -> LatestFrames:
    """So many frames at the end of a record, within the ranges of training."""
    grid = GridSpec.from_dict(metadata["grid"])
    missing = "fill" if fill or metadata["missing"] == "fill" else "error"
    past = latest_frames(record, grid, count, label=label, missing=missing)
    problem = _out_of_range(past.frames, grid, metadata["statistics"])
    if problem and not beyond_training:
        raise S2KDError(
            f"{label}: {problem}; most likely another unit, or a fill value that the file does not "
            "declare (--beyond-training forecasts all the same)"
        )
    return replace(past, notices=(*past.notices, *([problem] if problem else [])))


def label_of(latest: object) -> str:
    """What errors call an input."""
    return str(latest) if isinstance(latest, Path) else IN_MEMORY


def _opened(
    latest: "Path | xr.Dataset | xr.DataArray", metadata: Mapping[str, Any], grid: GridSpec
) -> "xr.Dataset":
    """The record of the latest frames, by the reader of the student's data."""
    if isinstance(latest, Path) and (latest / FACTS).exists():
        return read_record(Part(name="prepared", params={"path": str(latest)}))
    reader = metadata["reader"] or {"name": "cf", "params": {}}
    if metadata["reader"] is None and isinstance(latest, Path):
        raise S2KDError(
            f"{label_of(latest)}: the student was trained on prepared data, and its metadata does "
            "not name their source; give a folder that `s2kd data prepare` wrote (with "
            f"{FACTS} in it)"
        )
    name, settings = reader["name"], dict(reader["params"])
    if name == "weatherbench":  # whose names of fields may be long or short
        from s2kd.data.readers.weatherbench import field_named, open_fields

        return open_fields(latest, [field_named(channel) for channel in grid.channels])
    if name == "cf" or not isinstance(latest, Path):  # in memory all data are CF
        return _opened_cf(latest, grid)
    from s2kd.data.readers import readers

    if name == "taxibj":
        from s2kd.data.readers.taxibj import DAY, windows_layout

        if windows_layout(latest) is None:  # a few slots do not say how many make a day
            step_seconds = grid.step_seconds / metadata.get("time_stride", 1)
            settings.setdefault("slots_per_day", round(DAY / step_seconds))
    channels = {"variables": list(grid.channels)} if "variables" in readers.options(name) else {}
    return read_record(Part(name=name, params={**settings, **channels, "path": str(latest)}))


def _opened_cf(latest: "Path | xr.Dataset | xr.DataArray", grid: GridSpec) -> "xr.Dataset":
    """The grid's channels of CF data; S2KDError where some are absent."""
    from s2kd.core.errors import nearest
    from s2kd.data.readers.cf import channel_names, fields_of, joined, summary

    fields = fields_of(latest)
    names = channel_names(fields)
    absent = [channel for channel in grid.channels if channel not in names]
    if absent:
        raise S2KDError(
            f"{label_of(latest)}: lacks {', '.join(absent)}, which the model was trained on"
            f"{nearest(absent[0], names)} (the file has {summary(fields)})"
        )
    return joined(label_of(latest), fields, grid.channels, chunked=False)


def _out_of_range(
    past: Float[np.ndarray, "past channel height width"],
    grid: GridSpec,
    statistics: Mapping[str, Any],
) -> str:
    """What lies further outside the values of training than these are apart; "" for nothing.

    A new extreme lies well within that; another unit or an undeclared fill value does not.
    Training statistics ignore cells outside the mask: ten times as far is allowed there.
    """
    low = np.array(statistics["minimum"])[:, None, None]
    high = np.array(statistics["maximum"])[:, None, None]
    reach = (high - low) * np.where(grid.exists, 1, 10)
    outside = (past < low - reach) | (past > high + reach)
    if not outside.any():
        return ""
    frame, channel, row, column = np.argwhere(outside)[0]
    unit = f" {grid.units[channel]}" if grid.units[channel] else ""
    return (
        f"{grid.channels[channel]!r} has {int(outside[:, channel].sum())} values far outside the "
        f"{low[channel, 0, 0]:g} to {high[channel, 0, 0]:g}{unit} of training, the first "
        f"{past[frame, channel, row, column]:g} at row {row}, column {column}"
    )
