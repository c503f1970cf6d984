"""Forecasts from a file or dataset, in memory or on disk, in one call."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2kd.deploy.forecaster import Forecaster

if TYPE_CHECKING:
    import xarray as xr


def forecast(
    folder: Path | str,
    latest: "Path | str | xr.Dataset | xr.DataArray",
    *,
    student: str = "",
    **settings: Any,
) -> "xr.Dataset":
    """`Forecaster.load(folder, student=student).forecast(latest, **settings)`."""
    return Forecaster.load(folder, student=student).forecast(latest, **settings)


def forecast_file(
    folder: Path, latest: Path, out: Path, *, student: str = "", **settings: Any
) -> str:
    """`forecast` from a file, written to `out` (.nc or .zarr); returns the student's name."""
    from s2kd.data.write import check_out, write

    check_out(out, latest)
    forecaster = Forecaster.load(folder, student=student)
    write(forecaster.forecast(latest, **settings), out)
    return forecaster.metadata["student"]
