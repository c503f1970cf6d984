"""Zarr stores at an address: Google Cloud Storage (`gs://`) and plain HTTPS."""

from pathlib import Path

from s2kd.data._cf import Source
from s2kd.types import S2KDError

NEEDED = {"gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


def open_remote(address: str) -> Source:
    """Open a public Zarr store lazily and without an account; errors name the address."""
    import xarray as xr

    scheme = address.partition("://")[0]
    module = NEEDED.get(scheme)
    if module is not None:
        try:
            __import__(module)
        except ImportError as error:
            other = (
                ", or use its https://storage.googleapis.com/… address" if module == "gcsfs" else ""
            )
            raise S2KDError(
                f"{address}: needs {module} ({error}): pip install 's2kd[cloud]'{other}"
            ) from None
    options = {"token": "anon"} if module == "gcsfs" else {}
    try:
        data = xr.open_dataset(
            address, engine="zarr", storage_options=options, cache=False, decode_timedelta=False
        )
    except Exception as error:  # each file system raises its own kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise S2KDError(f"{address}: cannot be opened as Zarr ({reason[0]})") from None
    return Source(path=Path(address), data=data[sorted(map(str, data.data_vars))])
