"""The xarray Dataset that readers of plain arrays return."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

EPOCH = np.datetime64("2000-01-01", "ns")
"""The arbitrary start of a clock without a date."""


def record(
    frames: Any,
    *,
    channels: Sequence[str],
    units: Sequence[str],
    times: np.ndarray,
    coords: Mapping[str, Any] | None = None,
    long_names: Mapping[str, str] | None = None,
    **attrs: Any,
) -> "xr.Dataset":
    """One variable per channel.

    Parameters
    ----------
    frames
        (time, channel, row, column), a NumPy or dask array.
    channels, units
        of the channel axis.
    times
        (time,) datetime64 or cftime.
    coords
        further coordinates, as xarray takes them; those that are None are left out.
    long_names
        descriptions by channel.
    attrs
        attributes of the dataset; those that are None are left out.
    """
    import xarray as xr

    dims = ("time", "row", "column")
    variables = {}
    for number, (name, unit) in enumerate(zip(channels, units, strict=True)):
        described = (long_names or {}).get(name)
        metadata = {"units": unit} | ({"long_name": described} if described else {})
        variables[name] = (dims, frames[:, number], metadata)
    coordinates = {"time": times if times.dtype == object else times.astype("datetime64[ns]")}
    coordinates |= {name: value for name, value in (coords or {}).items() if value is not None}
    attributes = {name: value for name, value in attrs.items() if value is not None}
    return xr.Dataset(variables, coordinates, attributes)


def seconds_after_epoch(seconds: np.ndarray) -> np.ndarray:
    """(time,) datetime64[ns] of seconds since the start of a run."""
    return EPOCH + np.round(np.asarray(seconds) * 1e9).astype("timedelta64[ns]")


def words_coordinate(words: Sequence[tuple[str, ...]]) -> tuple[str, np.ndarray]:
    """The coordinate `context`: a tuple of words per frame."""
    context = np.empty(len(words), dtype=object)
    context[:] = words
    return ("time", context)


def run_coordinate(lengths: Mapping[str, int]) -> tuple[str, np.ndarray]:
    """The coordinate `run`: the name of the run of every frame."""
    return ("time", np.repeat(np.array(list(lengths), dtype=object), list(lengths.values())))
