"""Opening of NetCDF, Zarr and GRIB: one file, a folder, a pattern or an address."""

import glob
import math
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from s2kd.core.errors import S2KDError, first_line
from s2kd.data.readers._decoding import conformed, decoded
from s2kd.data.readers._foreign import check_foreign

if TYPE_CHECKING:
    import xarray as xr

ENDINGS = (".nc", ".nc4", ".cdf", ".netcdf", ".grib", ".grb", ".grib2", ".grb2", ".zarr")
KINDS = {"h5netcdf": "NetCDF-4", "scipy": "NetCDF-3", "zarr": "Zarr", "cfgrib": "GRIB"}
GRIB_CELLS = ("latitude", "longitude", "y", "x", "values")
"""Dimensions of the cells in one GRIB message."""
IN_MEMORY = "the dataset given"
"""What errors call a dataset that was passed in memory."""
WRAPPINGS = {
    b"PK": "a ZIP archive: unpack it",
    b"\x1f\x8b": "packed with gzip: unpack it",
    b"BZh": "packed with bzip2: unpack it",
    b"\xfd7zXZ": "packed with xz: unpack it",
    b"\x0e\x03\x13\x01": "HDF4, which is not read: convert it to NetCDF",
    b"<": "a page in HTML or XML, such as a log-in or an error message: fetch the file again",
}
"""What files are that hold no data as they are, by their first bytes."""
GOOGLE = "https://storage.googleapis.com/"
NEEDED = {"gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata", ".zarray"))


def files_of(path: str | Path, endings: Sequence[str] = ENDINGS) -> list[Path]:
    """One file, a Zarr folder, the files of a folder with these endings, or those of a pattern."""
    file = Path(path).expanduser()
    if is_zarr(file) or file.is_file():
        files, problem = [file], ""
    elif file.is_dir():
        inside = sorted(p for p in file.iterdir() if not p.name.startswith("."))
        files = [p for p in inside if p.suffix.lower() in endings]
        if not files and endings is ENDINGS:  # WRF's have none
            files = [p for p in inside if p.is_file() and _is_gridded(p)]
        problem = f"a folder without files that end in {', '.join(endings)}"
    else:
        # pathlib's own globbing cannot start from an absolute pattern
        files = sorted(map(Path, glob.glob(str(file), recursive=True)))  # noqa: PTH207
        problem = "no such file, folder or pattern that matches"
    if not files:
        raise S2KDError(f"{path}: {problem}")
    check_foreign(files)
    return files


def _is_gridded(path: Path) -> bool:
    try:
        return bool(engine_of(path))
    except S2KDError:
        return False


def open_files(
    source: "str | Path | xr.Dataset | xr.DataArray",
) -> list[tuple[Path, "xr.Dataset"]]:
    """Opened files with their paths; a GRIB file of several level types is several."""
    if not isinstance(source, str | Path):
        return [(Path(IN_MEMORY), _as_dataset(source))]
    if "://" in str(source):
        return [(Path(source), _open_address(str(source)))]
    return [(file, dataset) for file in files_of(source) for dataset in open_file(file)]


def _as_dataset(data: object) -> "xr.Dataset":
    """An xarray object in memory as a dataset; a DataArray's name is that of its channel."""
    import xarray as xr

    if isinstance(data, xr.DataArray) and data.name is not None:
        data = data.to_dataset()
    if not isinstance(data, xr.Dataset):
        raise S2KDError(
            f"{IN_MEMORY}: must be an xarray.Dataset, or an xarray.DataArray with a name "
            f"(array.rename('temperature')), not {type(data).__name__}"
        )
    return conformed(data)


def kind_of_file(path: Path) -> str:
    """NetCDF-4, NetCDF-3, Zarr or GRIB."""
    return KINDS[engine_of(path)]


def open_file(path: Path) -> list["xr.Dataset"]:
    """Open one file or Zarr folder lazily; anything unreadable is an S2KDError that names it."""
    engine = engine_of(path)
    try:
        with warnings.catch_warnings():
            # dates that datetime64 cannot hold become cftime objects, which is intended
            warnings.simplefilter("ignore")
            if engine == "cfgrib":
                return _open_grib(path)
            return _with_fields(path, engine)
    except S2KDError:
        raise
    except Exception as error:  # each backend raises its own kinds
        reason = first_line(error)
        cut = "; it is cut short: fetch or copy it again" if "truncated" in reason else ""
        raise S2KDError(f"{path}: cannot be read as {KINDS[engine]} ({reason}){cut}") from None


def engine_of(path: Path) -> str:
    """The xarray engine that reads `path`, by its first bytes and not by its name."""
    if is_zarr(path):
        return "zarr"
    if path.is_dir():
        raise S2KDError(f"{path}: a folder that is not a Zarr store")
    with path.open("rb") as file:
        start = file.read(8)
    if start == b"\x89HDF\r\n\x1a\n":
        return "h5netcdf"
    if start[:3] == b"CDF":
        return "scipy"
    if start[:4] == b"GRIB":
        try:
            import cfgrib  # noqa: F401
        except Exception as error:  # RuntimeError where the C library is missing
            raise S2KDError(
                f"{path}: GRIB files need cfgrib ({error}): pip install 's2kd[grib]'"
            ) from None
        return "cfgrib"
    members = ""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = f" (it holds {', '.join(archive.namelist()[:3])})"
    for sign, text in WRAPPINGS.items():
        if start.startswith(sign):
            raise S2KDError(f"{path}: {text}{members}")
    raise S2KDError(f"{path}: neither NetCDF, Zarr nor GRIB (it starts with {start!r})")


def _open_grib(path: Path) -> list["xr.Dataset"]:
    import cfgrib
    import eccodes

    # no index file is written beside the data
    options = {"indexpath": "", "errors": "raise"}
    datasets = cfgrib.open_datasets(str(path), backend_kwargs=options)
    if not datasets:
        raise S2KDError(f"{path}: a GRIB file without fields")
    with path.open("rb") as file:
        count = eccodes.codes_count_in_file(file)
    fields = [field for dataset in datasets for field in dataset.data_vars.values()]
    read = sum(
        math.prod(size for dim, size in field.sizes.items() if dim not in GRIB_CELLS)
        for field in fields
    )
    notice = (
        f"{count - read} of {count} messages have the parameter, level, time and step of others "
        "and are not read: two fields share a name, or frames are in the file twice"
    )
    notices = (notice,) if count > read else ()
    opened = map(conformed, datasets)
    return [d.assign_attrs(notices=(*d.attrs["notices"], *notices)) for d in opened]


def _with_fields(path: Path, engine: str) -> list["xr.Dataset"]:
    """The file's own variables, or, where none of them is a field, those of its groups."""
    import xarray as xr

    options: dict[str, Any] = {"engine": engine, "cache": False, "decode_cf": False}
    if engine == "zarr":
        _check_names(path)
        options["consolidated"] = False
    if engine == "h5netcdf":
        options["phony_dims"] = "sort"
    root = xr.open_dataset(path, **options)
    if engine == "scipy" or _planes(root):
        return [_decoded(root, engine)]
    root.close()
    groups, datasets, owners = xr.open_groups(path, **options), [], {}
    for group, dataset in groups.items():
        for name in _planes(dataset):
            if owners.setdefault(name, group) != group:
                raise S2KDError(
                    f"{path}: {name!r} lies in the groups {owners[name]} and {group}; store one "
                    f"by itself: xr.open_dataset({path.name!r}, group={group!r})"
                    ".to_netcdf('field.nc')"
                )
        for parent in PurePosixPath(group).parents:
            for name, variable in groups[str(parent)].variables.items():
                # a group sees the coordinates of its parents along its dimensions
                is_along = variable.dims and variable.sizes.items() <= dataset.sizes.items()
                if is_along and name not in dataset.variables:
                    dataset = dataset.assign({name: variable})
        if _planes(dataset):
            dataset = _decoded(dataset, engine)
            notices = (f"fields are read from the group {group}", *dataset.attrs["notices"])
            datasets.append(dataset.assign_attrs(notices=notices, group=group))
    return datasets or [_decoded(groups["/"], engine)]


def _planes(dataset: "xr.Dataset") -> list[str]:
    """Variables with two axes or more that are no pairs of bounds."""
    arrays = dataset.data_vars.items()
    return [str(name) for name, array in arrays if sum(size > 2 for size in array.shape) > 1]


def _decoded(dataset: "xr.Dataset", engine: str) -> "xr.Dataset":
    """Decoded; of a Zarr store in order of name: a folder has no order of its own."""
    if engine != "zarr":
        return decoded(dataset)
    for name in dataset.dims:
        # Zarr 2 has a fill value, often 0, for every array, but no coordinate lacks values (CF
        # 2.5.1): read as missing, the first time of "hours since ..." would be none
        if name in dataset.variables:
            dataset[name].attrs.pop("_FillValue", None)
    dataset = decoded(dataset)
    return dataset[sorted(map(str, dataset.data_vars))]


def _check_names(path: Path) -> None:
    """Refuse a Zarr array without names of its dimensions."""
    import zarr

    store = zarr.open(path, mode="r")
    arrays = [("at its root", store)] if isinstance(store, zarr.Array) else store.arrays()
    for name, array in arrays:
        names = array.metadata.to_dict().get("dimension_names")
        if array.ndim and not names and "_ARRAY_DIMENSIONS" not in array.attrs:
            raise S2KDError(
                f"{path}: the array {name} {array.shape} has no names of its dimensions, as "
                "xarray writes them; store it as .npy or .npz, whose axes can be described, or "
                "with xarray, with coordinates of time, rows and columns"
            )


def _open_address(address: str) -> "xr.Dataset":
    """A public Zarr store at an address, lazily and without an account."""
    import xarray as xr

    module = NEEDED.get(address.partition("://")[0])
    if module is not None:
        try:
            __import__(module)
        except ImportError as error:
            way = f", or use its {GOOGLE}… address" if module == "gcsfs" else ""
            raise S2KDError(
                f"{address}: needs {module} ({error}): pip install 's2kd[cloud]'{way}"
            ) from None
    if module == "gcsfs":
        _check_google(address)
    options = {"token": "anon"} if module == "gcsfs" else {}
    try:
        dataset = xr.open_dataset(
            address, engine="zarr", storage_options=options, cache=False, decode_cf=False
        )
    except Exception as error:  # each file system raises its own kinds
        raise S2KDError(f"{address}: cannot be opened as Zarr ({first_line(error)})") from None
    return _decoded(dataset, "zarr")


def _check_google(address: str) -> None:
    """Refuse at once without a connection: gcsfs is silent for minutes, then prints pages."""
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(GOOGLE + address.partition("://")[2] + "/.zmetadata", timeout=10)
    except urllib.error.HTTPError:
        pass  # what the server refuses here, gcsfs may find in another way
    except OSError as error:
        raise S2KDError(f"{address}: no connection ({error})") from None
