"""Forecasts from a dataset, a file or a folder of files, in one call."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2kd.core.types import S2KDError
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


def forecast_files(
    folder: Path, latest: Path, out: Path, *, student: str = "", **settings: Any
) -> list[Path]:
    """`forecast` from every file of the folder `latest`, written to the folder `out` as NetCDF.

    Only forecasts that are missing, or older than their file, are made. Returns these. Raises
    S2KDError at the end where some could not be made.
    """
    from s2kd.data.readers.files import files_of
    from s2kd.data.write import check_out, write

    check_out(out / "forecast.nc", latest)
    pairs = {out / f"{file.name.removesuffix('.nc')}.nc": file for file in files_of(latest)}
    stale = {
        target: file
        for target, file in pairs.items()
        if not target.exists() or target.stat().st_mtime < file.stat().st_mtime
    }
    if not stale:
        return []
    forecaster, written, failures = Forecaster.load(folder, student=student), [], []
    for target, file in stale.items():
        try:
            write(forecaster.forecast(file, **settings), target)
            written.append(target)
        except S2KDError as error:
            failures.append(error)
    if failures:
        raise S2KDError(f"{len(failures)} of {len(stale)} files gave no forecast: {failures[0]}")
    return written
