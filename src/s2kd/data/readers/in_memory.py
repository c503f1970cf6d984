"""Datasets in the bytes of NetCDF, zipped Zarr or JSON; nothing else is read."""

import io
import json
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from s2kd.core.types import S2KDError
from s2kd.data.readers._probe import hdf5_problem
from s2kd.data.readers.files import IN_MEMORY

if TYPE_CHECKING:
    import xarray as xr

NETCDF, ZARR, JSON = "application/x-netcdf", "application/zip", "application/json"


def media_type(body: bytes) -> str:
    """The type of a body by its first bytes; S2KDError for any but the three."""
    if body.startswith((b"\x89HDF", b"CDF")):
        return NETCDF
    if body.startswith(b"PK"):
        return ZARR
    if body.lstrip().startswith(b"{"):
        return JSON
    raise S2KDError(f"{IN_MEMORY}: neither NetCDF, nor a Zarr store in a ZIP archive, nor JSON")


def open_bytes(body: bytes) -> "xr.Dataset":
    """The dataset in a body, which may crash or hang a library: call it in a process apart.

    Raises S2KDError where the body refers to other files or holds pickles; where it is damaged,
    whatever the library raises.
    """
    return {NETCDF: _from_netcdf, ZARR: _from_zarr, JSON: _from_json}[media_type(body)](body)


def _from_netcdf(body: bytes) -> "xr.Dataset":
    import xarray as xr

    file = io.BytesIO(body)
    if body.startswith(b"CDF"):
        return xr.open_dataset(file, engine="scipy", decode_times=False)
    if problem := hdf5_problem(file):
        raise S2KDError(f"{IN_MEMORY}: {problem}; it is not read")
    return xr.open_dataset(file, engine="h5netcdf", decode_times=False, phony_dims="sort")


def _from_zarr(body: bytes) -> "xr.Dataset":
    import xarray as xr
    import zarr
    from zarr.core.buffer import default_buffer_prototype

    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        files = {PurePosixPath(entry.filename): archive.read(entry) for entry in entries}
    groups = [name.parent for name in files if name.name in (".zgroup", "zarr.json")]
    if not groups:
        raise S2KDError(f"{IN_MEMORY}: the ZIP archive holds no Zarr group")
    for name in files:
        # the one codec that runs what it decodes; parsed, since JSON may spell it with escapes
        if name.name in (".zarray", "zarr.json") and "pickle" in str(json.loads(files[name])):
            raise S2KDError(f"{IN_MEMORY}: {name} names pickles, which are not read")
    root, buffer = min(groups, key=lambda path: len(path.parts)), default_buffer_prototype().buffer
    store = zarr.storage.MemoryStore(
        {
            str(name.relative_to(root)): buffer.from_bytes(content)
            for name, content in files.items()
            if name.is_relative_to(root)
        }
    )
    return xr.open_zarr(store, decode_times=False, chunks=None, consolidated=False)


def _from_json(body: bytes) -> "xr.Dataset":
    """Laid out as by `xarray.Dataset.to_dict`; null is a missing value."""
    import xarray as xr

    dataset = xr.Dataset.from_dict(msgspec.json.decode(body))
    with_null = [n for n, variable in dataset.variables.items() if variable.dtype == object]
    return dataset.assign({name: dataset[name].astype(float) for name in with_null})
