"""Zarr stores at an address: Google Cloud Storage (`gs://`) and plain HTTPS."""

from pathlib import Path

from s2kd.core.types import S2KDError
from s2kd.data._cf import Source

GOOGLE = "https://storage.googleapis.com/"
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
            other = f", or use its {GOOGLE}… address" if module == "gcsfs" else ""
            raise S2KDError(
                f"{address}: needs {module} ({error}): pip install 's2kd[cloud]'{other}"
            ) from None
    if module == "gcsfs":
        _check_google(address)
    options = {"token": "anon"} if module == "gcsfs" else {}
    try:
        data = xr.open_dataset(
            address, engine="zarr", storage_options=options, cache=False, decode_timedelta=False
        )
    except Exception as error:  # each file system raises its own kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise S2KDError(f"{address}: cannot be opened as Zarr ({reason[0]})") from None
    return Source(path=Path(address), data=data[sorted(map(str, data.data_vars))])


def _check_google(address: str) -> None:
    """Without a connection gcsfs is silent for minutes, then prints pages: one short request."""
    import requests

    try:
        requests.head(GOOGLE + address.partition("://")[2] + "/.zmetadata", timeout=10)
    except requests.RequestException as error:
        raise S2KDError(f"{address}: no connection to {GOOGLE} ({type(error).__name__})") from None
