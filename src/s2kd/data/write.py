"""Forecasts as CF data: what any tool that reads NetCDF or Zarr understands."""

import glob
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.files import whole_folder, write_netcdf
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.grids import FileAxis
from s2kd.data.readers.files import is_zarr
from s2kd.data.steps import MOST_SECONDS, exact_times

if TYPE_CHECKING:
    import xarray as xr

CONVENTIONS = "CF-1.11"
GEOGRAPHIC = (
    {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
)


def to_xarray(
    forecast: np.ndarray,
    *,
    grid: GridSpec,
    initial_times: np.ndarray,
    axes: tuple[FileAxis, FileAxis] | None = None,
    places: "xr.Dataset | None" = None,
    attributes: Mapping[str, Mapping[str, str]] | None = None,
    title: str = "Forecast",
    source: str = "",
    history: str = "",
    done: str = "",
    facts: Mapping[str, str | int | float] | None = None,
) -> "xr.Dataset":
    """A forecast with its coordinates, one variable a channel.

    `forecast` is (lead, channel, height, width) or (init, lead, channel, height, width) in the
    grid's units; `initial_times` (init,) are the times of the last input frames (datetime64, or
    cftime objects of any calendar), so that lead 1 is valid one step later. Variables have the
    axes time (initialisation), lead_time, and lat, lon or y, x; `valid_time` is (time, lead_time).
    With the `axes` (rows, columns) of the file that the input came from, the last two have its
    names, coordinates and order instead, so that the two line up to the last bit; `places` are
    its further coordinates and grid mapping (`Series.places`).
    Cells outside `grid.mask` are missing. `attributes` are CF attributes by channel; `history` is
    that of the input, to which `done` is added with the time of now; `facts` are further global
    attributes (model, training data). A channel `z@500` is called `z_500` and keeps its name as
    the attribute `channel`.
    """
    import xarray as xr

    batch = forecast[None] if forecast.ndim == 4 else forecast
    times = exact_times(np.atleast_1d(initial_times))
    _check(batch, grid, times)
    seconds = np.arange(1, batch.shape[1] + 1) * grid.step_seconds
    unit, count = ("ns", 1e9) if seconds[-1] < MOST_SECONDS else ("us", 1e6)
    lead = np.round(seconds * count).astype(f"timedelta64[{unit}]")
    rows, columns = axes or _grid_axes(grid)
    coordinates = _times(times, lead) | _places(rows, columns, geographic=grid.latitude is not None)
    taken = {*coordinates, rows.dimension, columns.dimension}
    names = _variable_names(
        grid.channels, taken | set(() if places is None else map(str, places.variables))
    )
    fields = np.where(grid.exists, batch, np.nan).astype(np.float32)
    fields = fields[..., rows.order, :][..., columns.order]
    variables = {
        name: (
            ("time", "lead_time", rows.dimension, columns.dimension),
            fields[:, :, number],
            _describing(grid, number, name, attributes or {}),
            {"_FillValue": np.float32(np.nan), "dtype": "float32"},
        )
        for number, name in enumerate(names)
    }
    line = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {done}" if done else ""
    texts = {
        "Conventions": CONVENTIONS,
        "title": title,
        "source": source,
        "history": "\n".join(part for part in (history.rstrip(), line) if part),
    }
    forecasts = xr.Dataset(
        variables,
        coordinates,
        {key: value for key, value in texts.items() if value} | dict(facts or {}),
    )
    if places is not None:
        further = [name for name in places.variables if name not in forecasts.variables]
        forecasts = forecasts.merge(places[further])
        for name in names:
            forecasts[name].attrs |= places.attrs
    return forecasts


def _check(forecast: np.ndarray, grid: GridSpec, times: np.ndarray) -> None:
    want = (len(grid.channels), grid.height, grid.width)
    if forecast.ndim != 5 or forecast.shape[2:] != want:
        raise S2KDError(
            f"forecast has shape {forecast.shape}, the grid wants ([init,] lead, "
            f"{', '.join(map(str, want))})"
        )
    if len(times) != len(forecast):
        raise S2KDError(f"{len(forecast)} forecasts but {len(times)} initial times")


def _variable_names(channels: tuple[str, ...], taken: set[str]) -> list[str]:
    """Letters of any script, digits and underscores, a letter first (CF 2.3); distinct.

    A name that a coordinate or another channel has gets a number.
    """
    names: list[str] = []
    for channel in channels:
        plain = re.sub(r"\W+", "_", channel)
        name = plain = plain if plain[:1].isalpha() else f"v_{plain}"
        number, unavailable = 2, {*taken, *names, *channels} - {channel}
        while name in unavailable | taken:
            name, number = f"{plain}_{number}", number + 1
        names.append(name)
    return names


def _describing(
    grid: GridSpec, number: int, name: str, attributes: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    channel, unit = grid.channels[number], grid.units[number]
    named = {"channel": channel} if channel != name else {}
    units = {"units": unit} if unit else {}
    return {"long_name": channel, **dict(attributes.get(channel, {})), **named, **units}


def _grid_axes(grid: GridSpec) -> tuple[FileAxis, FileAxis]:
    """Rows and columns as the grid has them."""
    names = ("y", "x") if grid.latitude is None else ("lat", "lon")
    values = (grid.latitude, grid.longitude)
    sizes = (grid.height, grid.width)
    rows, columns = (
        FileAxis(
            dimension=name,
            name=name,
            values=None if grid.latitude is None or degrees is None else np.array(degrees),
            attributes={},
            order=np.arange(size),
        )
        for name, degrees, size in zip(names, values, sizes, strict=True)
    )
    return rows, columns


def _places(rows: FileAxis, columns: FileAxis, *, geographic: bool) -> dict[str, tuple]:
    """The coordinates of rows and columns, where they have any."""
    conventions = GEOGRAPHIC if geographic else ({}, {})
    return {
        axis.name: (axis.dimension, axis.values, axis.attributes | metadata, {"_FillValue": None})
        for axis, metadata in zip((rows, columns), conventions, strict=True)
        if axis.values is not None
    }


def _times(times: np.ndarray, lead: np.ndarray) -> dict[str, tuple]:
    """The coordinates of time: initialisation, lead and validity."""
    if times.dtype == object:
        microseconds = [np.timedelta64(step, "us").item() for step in lead]
        valid = np.array([[time + step for step in microseconds] for time in times], dtype=object)
    else:
        later = times.astype("datetime64[us]")[:, None] + lead.astype("timedelta64[us]")
        valid = exact_times(later)
    reference = {
        "standard_name": "forecast_reference_time",
        "long_name": "time of the last input",
    }
    period = {"standard_name": "forecast_period", "long_name": "time since the last input"}
    validity = {"standard_name": "time", "long_name": "time the forecast is for"}
    return {
        "time": ("time", times, reference),
        "lead_time": ("lead_time", lead, period),
        "valid_time": (("time", "lead_time"), valid, validity),
    }


def check_out(out: Path, read: Path) -> None:
    """Refuse to write to `out` what is made of `read`: a file, a folder, a store or a pattern.

    S2KDError where `out` is neither .nc nor .zarr, lies in a Zarr store, or where one of the two
    is or holds the other.
    """
    _check_suffix(out)
    to = out.expanduser().resolve()
    store = next((parent for parent in to.parents if is_zarr(parent)), None)
    if store is not None:
        raise S2KDError(f"{out}: lies in the Zarr store {store}; give an --out outside of it")
    source, matches = read.expanduser(), []
    if not source.exists():  # a pattern: what is written now it would find the next time
        matches = [Path(file) for file in glob.glob(str(source), recursive=True)]  # noqa: PTH207
        matches += [to] * to.match(str(source.parent.resolve() / source.name))
    if any(_overlap(to, file) for file in (source, *matches)):
        raise S2KDError(
            f"{out}: would overwrite, lie in or hold {read}, which the forecast is made from; "
            "give another --out"
        )


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".nc", ".zarr"):
        raise S2KDError(f"{path}: a forecast is written as NetCDF (.nc) or Zarr (.zarr)")


def _overlap(first: Path, second: Path) -> bool:
    """Whether two paths are the same, also under two names, or one holds the other."""
    if first.exists() and second.exists() and first.samefile(second):
        return True
    return first.is_relative_to(second.resolve()) or second.resolve().is_relative_to(first)


def write(dataset: "xr.Dataset", path: Path | str) -> None:
    """Write to NetCDF-4 (`.nc`) or Zarr 2 (`.zarr`): the whole of it, or nothing.

    What is at `path` is replaced only once the new one is complete on disk.
    """
    path = Path(path)
    _check_suffix(path)
    if path.suffix == ".zarr":
        _write_zarr(dataset, path)
        return
    if path.is_dir():
        raise S2KDError(f"{path}: is a folder; give the name of a file")
    packing = {"zlib": True, "complevel": 4, "shuffle": True}
    encoding = {str(name): packing for name, field in dataset.data_vars.items() if field.ndim}
    write_netcdf(path, dataset, encoding)


def _write_zarr(dataset: "xr.Dataset", path: Path) -> None:
    if path.exists() and not is_zarr(path) and (not path.is_dir() or any(path.iterdir())):
        raise S2KDError(f"{path}: exists and is no Zarr store, so it is not replaced")
    with whole_folder(path, replace=True) as partial:
        # format 2 with its metadata in one place is what most tools can read
        dataset.to_zarr(partial, mode="w", zarr_format=2, consolidated=True)
        for file in filter(Path.is_file, partial.rglob("*")):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
