"""The xarray Dataset that readers of plain arrays return."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data.dates import EPOCH
from s2kd.data.grids import check_degrees
from s2kd.data.steps import exact_times, seconds_after

if TYPE_CHECKING:
    import xarray as xr

COORDINATES = (
    *("time", "row", "column", "latitude", "longitude"),
    *("run", "split", "context", "mask"),
)
"""Names of the dimensions and coordinates of a reader's dataset."""


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

    Args:
        frames: (time, channel, row, column), a NumPy or dask array.
        channels: names along the channel axis.
        units: of the channels.
        times: (time,) datetime64 or cftime.
        coords: further coordinates, as xarray takes them; those that are None are left out.
        long_names: descriptions by channel.
        attrs: attributes of the dataset; those that are None are left out.
    """
    import xarray as xr

    check_free(str(attrs.get("name", "")), channels)
    dims = ("time", "row", "column")
    variables = {}
    for number, (name, unit) in enumerate(zip(channels, units, strict=True)):
        described = (long_names or {}).get(name)
        metadata = {"units": unit} | ({"long_name": described} if described else {})
        variables[name] = (dims, frames[:, number], metadata)
    coordinates = {"time": exact_times(times)}
    coordinates |= {name: value for name, value in (coords or {}).items() if value is not None}
    attributes = {name: value for name, value in attrs.items() if value is not None}
    return xr.Dataset(variables, coordinates, attributes)


def check_free(label: str, channels: Iterable[str]) -> None:
    """Refuse a channel with the name of a dimension or coordinate of the dataset."""
    for name in channels:
        if name in COORDINATES:
            raise S2KDError(
                f"{label}: a channel cannot be called {name!r}, as a coordinate is; rename it, as "
                f"with xarray: ds.rename({{'{name}': '{name}_field'}})"
            )


def seconds_after_epoch(seconds: np.ndarray) -> np.ndarray:
    """(time,) dates of seconds since the start of a run."""
    return seconds_after(EPOCH, seconds)


def per_frame(values: Iterable[Any], lengths: int | Sequence[int] = 1) -> tuple[str, np.ndarray]:
    """A coordinate along time: each value (text or a tuple of words) for so many frames."""
    listed = list(values)
    objects = np.empty(len(listed), dtype=object)
    objects[:] = listed
    return ("time", np.repeat(objects, lengths))


def member_splits(label: str, members: int, held_out: int = 1) -> list[str]:
    """The split of every run of an ensemble: the last `held_out` test, as many before them val.

    Raises `S2KDError` where nothing is left to train on.
    """
    train = members - 2 * held_out
    if train < 1:
        raise S2KDError(f"{label}: {members} runs are too few for one each of train, val and test")
    return ["train"] * train + ["val"] * held_out + ["test"] * held_out


def check_names(problem: str, wanted: Iterable[str], names: Iterable[str]) -> None:
    """Refuse a name that is not among `names`; `problem` reads as in "FILE: no channel"."""
    names = list(names)
    for name in wanted:
        if name not in names:
            raise S2KDError(f"{problem} {name!r}{nearest(name, names)} (it has {', '.join(names)})")


def check_one_grid(label: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse frames, by the name of their file or run, of several shapes."""
    first, expected = next(iter(shapes.items()))
    for name, shape in shapes.items():
        if shape != expected:
            raise S2KDError(
                f"{label}: frames of {name} have shape {shape}, those of {first} {expected}; all "
                "must share one grid"
            )


def refuse_settings(reader: str, layout: str, changed: Mapping[str, bool]) -> None:
    """Refuse settings that have been changed though this layout of files does not use them."""
    for name, is_changed in changed.items():
        if is_changed:
            raise S2KDError(f"{reader}: {name} has no meaning for {layout}")


def north_west_first(label: str, dataset: "xr.Dataset") -> "xr.Dataset":
    """The dataset with falling latitudes and rising longitudes.

    Raises `S2KDError` for coordinates that neither rise nor fall throughout.
    """
    if {"latitude", "longitude"} <= set(dataset.coords):
        check_degrees(label, dataset["latitude"].values, dataset["longitude"].values)
    for name, dim, rising in (("latitude", "row", False), ("longitude", "column", True)):
        steps = np.diff(dataset[name]) if name in dataset.coords else np.zeros(0)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise S2KDError(f"{label}: {name}s must only rise or only fall")
        if len(steps) and (steps[0] > 0) != rising:
            dataset = dataset.isel({dim: slice(None, None, -1)})
    return dataset
