"""Small CF files for the tests of the road."""

from pathlib import Path

import numpy as np
import xarray as xr


def waves(frames: int = 60, rows: int = 12, columns: int = 16) -> xr.Dataset:
    """Two-metre temperature (K) as travelling waves with noise, 6-hourly, north first."""
    rng = np.random.default_rng(3)
    time, row, column = np.ogrid[:frames, :rows, :columns]
    phase = 2 * np.pi * (column / columns + row / rows - time / 10)
    values = 280 + 8 * np.sin(phase) + rng.normal(0, 0.5, (frames, rows, columns))
    return xr.Dataset(
        {
            "t2m": (
                ("time", "latitude", "longitude"),
                values.astype(np.float32),
                {
                    "units": "K",
                    "long_name": "2 metre temperature",
                    "standard_name": "air_temperature",
                },
            )
        },
        coords={
            "time": np.datetime64("2020-01-01", "ns") + np.arange(frames) * np.timedelta64(6, "h"),
            "latitude": ("latitude", np.linspace(60, 38, rows), {"units": "degrees_north"}),
            "longitude": ("longitude", np.linspace(0, 30, columns), {"units": "degrees_east"}),
        },
        attrs={"history": "made by hand", "Conventions": "CF-1.8"},
    )


def write(dataset: xr.Dataset, path: Path) -> Path:
    """As NetCDF-4."""
    dataset.to_netcdf(path, engine="h5netcdf")
    return path
