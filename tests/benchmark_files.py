"""Miniature files in the official benchmarks' exact layouts."""

from pathlib import Path

import numpy as np
import xarray as xr

LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
LATITUDE = np.linspace(-87.1875, 87.1875, 32)  # as WeatherBench has it: south first
LONGITUDE = np.arange(64) * 5.625
UNITS = {"z": "m**2 s**-2", "t": "K"}
NAMES = {"z": "geopotential", "t": "temperature"}


def times_of_year(year: int, *, hours: int = 1) -> np.ndarray:
    """Every `hours` hours of one year."""
    first, stop = (np.datetime64(f"{y}-01-01T00", "ns") for y in (year, year + 1))
    return np.arange(first, stop, np.timedelta64(hours, "h"))


def values(name: str, times: np.ndarray, level: float) -> np.ndarray:
    """(time, 32, 64) float32, different at every time and place, warm at the equator.

    South first. A blob lies at 59.0625° N, 90° E (row 5 from the north, column 16).
    """
    height = 44330.8 * (1 - (level / 1013.25) ** 0.190263)
    mean, spread = {"z": (9.80665 * height, 1000.0), "t": (290.0 - 0.005 * height, 20.0)}[name]
    hour = (times - np.datetime64("1979-01-01")) / np.timedelta64(1, "h")
    warm = spread * (np.cos(np.deg2rad(LATITUDE)) - 0.64)
    wave = 0.1 * spread * np.cos(np.deg2rad(LONGITUDE) * 3 - hour[:, None] * 2 * np.pi / 120)
    field = mean + warm[None, :, None] + wave[:, None, :]
    field[:, 26, 16] += 3 * spread
    return field.astype(np.float32)


def field(name: str, times: np.ndarray, levels=(500,), *, scalar: bool = True) -> xr.Dataset:
    """One variable as WeatherBench writes it: one level as a scalar, or 13 along a dimension."""
    coords = {
        "lon": ("lon", LONGITUDE, {"units": "degrees_east", "standard_name": "longitude"}),
        "lat": ("lat", LATITUDE, {"units": "degrees_north", "standard_name": "latitude"}),
        "time": times,
    }
    about = {"units": UNITS[name], "long_name": NAMES[name].title(), "standard_name": NAMES[name]}
    along = {"units": "millibars", "long_name": "pressure_level"}
    if scalar:
        coords["level"] = ((), np.int32(levels[0]), along)
        array = (("time", "lat", "lon"), values(name, times, levels[0]), about)
    else:
        coords["level"] = ("level", np.array(levels, dtype=np.int32), along)
        stacked = np.stack([values(name, times, level) for level in levels], axis=1)
        array = (("time", "level", "lat", "lon"), stacked, about)
    return xr.Dataset({name: array}, coords=coords)


def save(dataset: xr.Dataset, path: Path) -> Path:
    """As NetCDF-4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.to_netcdf(path, engine="h5netcdf")
    return path


def weatherbench(root: Path, years=(1990, 1991, 1992), *, which=("z500", "t850"), frames=None):
    """WeatherBench's folders: `geopotential_500/geopotential_500hPa_1990_5.625deg.nc` and so on.

    `which` names single-level folders (`z500`) and 13-level ones (`z`). Six-hourly instead of
    hourly, to be small; of each year the first `frames`, or all.
    """
    for one in which:
        name, level = one[0], one[1:]
        for year in years:
            times = times_of_year(year, hours=6)[:frames]
            if level:
                made = field(name, times, (int(level),))
                folder = f"{NAMES[name]}_{level}"
                file = f"{folder}hPa_{year}_5.625deg.nc"
            else:
                made = field(name, times, LEVELS, scalar=False)
                folder = NAMES[name]
                file = f"{folder}_{year}_5.625deg.nc"
            save(made, root / folder / file)
    return root


def weatherbench2(path: Path, times: np.ndarray, levels=LEVELS) -> Path:
    """WeatherBench 2's Zarr: long names, (time, level, longitude, latitude), south first."""
    arrays = {}
    for name, long in NAMES.items():
        made = field(name, times, levels, scalar=False)[name]
        arrays[long] = made.transpose("time", "level", "lon", "lat")
    renamed = xr.Dataset(arrays).rename({"lat": "latitude", "lon": "longitude"})
    path.parent.mkdir(parents=True, exist_ok=True)
    renamed.to_zarr(path, zarr_format=2, consolidated=True)
    return path
