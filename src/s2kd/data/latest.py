"""The last frames of a record, checked against the grid that a model was trained on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from s2kd.core.types import GridSpec, S2KDError
from s2kd.core.units import conversion
from s2kd.data.frames import RecordFrames
from s2kd.data.gaps import GapFilter
from s2kd.data.grids import coordinate_difference
from s2kd.data.readers.cf import starting_at
from s2kd.data.steps import date_text, iso, step_numbers

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, kw_only=True, eq=False)
class LatestFrames:
    """Input frames of one forecast, in the grid's units and order.

    `axes` and `places` (of files that follow CF) say how the file names and orders its cells.
    `carried` and `borrowed` count missing values that were filled: with the last value of their
    cell, or, before that cell's first value, with the nearest cell's. `notices` are sentences on
    what was assumed.
    """

    frames: Float[np.ndarray, "past channel height width"]
    times: Shaped[np.ndarray, " past"]
    history: str = ""
    axes: tuple[Any, Any] | None = None
    places: "xr.Dataset | None" = None
    carried: int = 0
    borrowed: int = 0
    notices: tuple[str, ...] = ()


def latest_frames(
    record: "xr.Dataset",
    grid: GridSpec,
    past: int,
    *,
    label: str,
    until: str = "",
    missing: str = "error",
) -> LatestFrames:
    """The last `past` frames of a reader's record, `grid.step_seconds` apart.

    A finer step in the record is thinned, counted back from the last frame.

    Args:
        record: of any reader, with the channels of `grid` (and others).
        grid: what the model was trained on.
        past: number of frames.
        label: names the record in errors.
        until: a date; the last frame lies at or before it. Empty: the last of the record.
        missing: `error`, or `fill`: each cell's last value among these frames is carried forward,
            and before its first one the nearest cell stands in, as in training.

    Raises:
        S2KDError: channels, units, size, coordinates or step differ from the grid's, frames are
            absent, or values are missing.
    """
    if missing not in ("error", "fill"):
        raise S2KDError(f"missing={missing!r}: must be 'error' or 'fill' here")
    record, factors, offsets = _matching(record, grid, label)
    numbers = _last_frames(record, grid, past, until, label)
    part = record[list(grid.channels)].isel(time=numbers)
    frames, times = RecordFrames(part, label)[0:past], part["time"].values
    frames = frames * factors + offsets
    absent = ~np.isfinite(frames) & grid.exists
    never = absent.all(0)
    if never.any():
        channel, row, column = np.argwhere(never)[0]
        raise S2KDError(
            f"{label}: {grid.channels[channel]!r} has no value in any of the last {past} frames in "
            f"{int(never[channel].sum())} cells, the first at row {row}, column {column}, where "
            "the model was trained on values; there is none to carry forward: fill them in the file"
        )
    gaps = GapFilter(
        label, grid, times, missing=missing, advice="give --fill (in Python, fill=True)"
    )
    frames = gaps.filled(frames)
    gaps.existing()
    frames[~np.isfinite(frames)] = 0.0  # cells outside the mask without any value
    borrowed = int(np.logical_and.accumulate(absent).sum())
    return LatestFrames(
        frames=frames,
        times=times,
        history=str(record.attrs.get("history", "")),
        axes=record.attrs.get("axes"),
        places=record.attrs.get("places"),
        carried=int(absent.sum()) - borrowed,
        borrowed=borrowed,
        notices=(*record.attrs.get("notices", ()), *_assumed_units(record, grid)),
    )


def _assumed_units(record: "xr.Dataset", grid: GridSpec) -> list[str]:
    return [
        f"{channel!r} has no units in the input: {units} are assumed, as in training"
        for channel, units in zip(grid.channels, grid.units, strict=True)
        if units and not record[channel].attrs.get("units")
    ]


def _matching(
    record: "xr.Dataset", grid: GridSpec, label: str
) -> tuple["xr.Dataset", np.ndarray, np.ndarray]:
    """The grid's channels, turned to its first column, and the conversion of their units.

    Factors and offsets are (channel, 1, 1). Refused where anything else differs.
    """
    absent = [channel for channel in grid.channels if channel not in record.data_vars]
    if absent:
        raise S2KDError(
            f"{label}: lacks {', '.join(absent)}, which the model was trained on (there are "
            f"{', '.join(map(str, record.data_vars))})"
        )
    conversions = []
    for channel, units in zip(grid.channels, grid.units, strict=True):
        record_units = str(record[channel].attrs.get("units", ""))
        conversions.append(conversion(record_units, units))
        if conversions[-1] is None:
            raise S2KDError(
                f"{label}: {channel!r} is in {record_units!r}, the model was trained on {units!r}"
            )
    size = (record.sizes["row"], record.sizes["column"])
    if size != (grid.height, grid.width):
        raise S2KDError(
            f"{label}: frames are {size[0]}×{size[1]}, the model was trained on "
            f"{grid.height}×{grid.width} (rows × columns); regrid the file"
        )
    if grid.wraps and grid.longitude is not None:
        record = starting_at(record, grid.longitude[0])
    for name in ("latitude", "longitude"):
        record_values = record[name].values if name in record.coords else None
        text = coordinate_difference(name, record_values, getattr(grid, name))
        if text:
            raise S2KDError(f"{label}: {text} as the model was trained on; regrid or cut the file")
    factors, offsets = np.array(conversions, dtype=np.float32).T[..., None, None]
    return record, factors, offsets


def _last_frames(
    record: "xr.Dataset", grid: GridSpec, past: int, until: str, label: str
) -> Int[np.ndarray, " past"]:
    """Numbers of the last `past` frames, one model step apart, all of the last run."""
    times, begin, stop = record["time"].values, 0, record.sizes["time"]
    if "window" in record.attrs:
        if int(record.attrs["window"][0]) != past:
            raise S2KDError(
                f"{label}: comes in windows of {record.attrs['window'][0]} past frames, the model "
                f"needs {past}"
            )
        stop -= int(record.attrs["window"][1])  # future frames are of another kind
    run = ""
    if "run" in record.coords:
        runs = record["run"].values
        changes = np.flatnonzero(runs[1:stop] != runs[: stop - 1]) + 1
        begin, run = int(changes[-1]) if len(changes) else 0, str(runs[stop - 1])
    if until:
        text = until.replace(" ", "T")
        count = int((iso(times[begin:stop]).astype(f"U{len(text)}") <= text).sum())
        if not count:
            raise S2KDError(
                f"{label}: no frame at or before {until}; it starts {date_text(times[begin])}"
            )
        stop = begin + count
    times = times[begin:stop]
    if past == 1 and len(times) == 1:
        return np.array([begin])
    if len(times) < past:
        owner = f"run {run!r} holds" if run else "holds"
        raise S2KDError(f"{label}: {owner} {len(times)} frames, the model needs the last {past}")
    step = float(record.attrs.get("step_seconds") or 0)
    step, numbers = step_numbers(label, times, step_seconds=step)
    thinning = round(grid.step_seconds / step)
    if thinning < 1 or abs(thinning * step - grid.step_seconds) > 0.01 * step:
        raise S2KDError(
            f"{label}: frames are {step:g} s apart, the model was trained on "
            f"{grid.step_seconds:g} s"
        )
    needed = numbers[-1] - thinning * np.arange(past)[::-1]
    positions = np.searchsorted(numbers, needed)
    absent = needed[numbers[positions] != needed]
    if len(absent):
        back = (numbers[-1] - absent[-1]) * step
        raise S2KDError(
            f"{label}: the model needs the {past} frames up to {date_text(times[-1])}, "
            f"{grid.step_seconds:g} s apart, but there is none {back:g} s before that"
        )
    return begin + positions
