"""Arrays in `.npy`, `.npz` and HDF5 files: their headers, and lazy access to their values."""

import math
import weakref
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data.readers._foreign import check_foreign
from s2kd.data.readers._valid import LIMITS, valid_limits

if TYPE_CHECKING:
    import dask.array as da

ENDINGS = (".npy", ".npz", ".h5", ".hdf5")
KINDS = {".npy": b"\x93NUMPY", ".npz": b"PK\x03\x04", ".h5": b"\x89HDF\r\n\x1a\n"}
"""How files of each kind begin."""
PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset", *LIMITS)
DESCRIBING, DIMENSIONS = (*PACKING, "units", "calendar"), ("DIMENSION_LIST", "_Netcdf4Dimid")
CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Header:
    """Shape and type of an array in a file, and in HDF5 what its attributes say by CF."""

    shape: tuple[int, ...]
    dtype: np.dtype
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_netcdf(self) -> bool:
        """Whether named dimensions are attached, as NetCDF-4 does."""
        return bool(set(DIMENSIONS) & self.attributes.keys())


Headers = dict[str, Header]
"""By key; the array of a `.npy` is called ""."""


class FrameSource:
    """An array of which ranges of the first axis are read, as dask wants it.

    Subclasses say `shape`, `dtype` and `read`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def read(self, first: int, stop: int) -> np.ndarray:
        """Entries `first` up to `stop`."""
        raise NotImplementedError

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        numbers = np.arange(self.shape[0])[index[0]]
        first = int(numbers.min(initial=self.shape[0]))
        entries = self.read(first, int(numbers.max(initial=first - 1)) + 1)
        return entries[(numbers - first, *index[1:])]


class MappedArray(FrameSource):
    """A memory map; without its method `copy`, by which dask would read all of it."""

    def __init__(self, values: np.memmap) -> None:
        self._values, self.shape, self.dtype = values, values.shape, values.dtype

    def read(self, first: int, stop: int) -> np.ndarray:
        """Entries `first` up to `stop`."""
        return np.asarray(self._values[first:stop])


class NpzMember(FrameSource):
    """A C-ordered array of an `.npz`, decompressed as its first axis is read in order."""

    def __init__(self, path: Path, key: str) -> None:
        archive = zipfile.ZipFile(path)
        self._path, self._file = path, archive.open(f"{key}.npy")
        for opened in (archive, self._file):  # dask keeps this object; they close with it
            weakref.finalize(self, opened.close)
        self.shape, _, self.dtype = _npy_header(self._file)
        self._offset = self._file.tell()

    def read(self, first: int, stop: int) -> np.ndarray:
        """Entries `first` up to `stop`."""
        entry = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        with _readable(self._path, ".npz"):
            self._file.seek(self._offset + first * entry)
            content = self._file.read((stop - first) * entry)
        return np.frombuffer(content, self.dtype).reshape(stop - first, *self.shape[1:])


def headers(path: Path) -> Headers:
    """Every array in the file."""
    kind = kind_of_arrays(path)
    if kind == ".npy":
        mapped = _mapped(path)
        return {"": Header(mapped.shape, mapped.dtype)}
    import h5py

    arrays = {}
    if kind == ".npz":
        with _opened_npz(path) as members:
            for name in members.namelist():
                if name.endswith(".npy"):
                    with members.open(name) as file:
                        shape, _, dtype = _npy_header(file)
                        size = file.tell() + math.prod(shape) * dtype.itemsize
                    if dtype.kind != "O" and size != members.getinfo(name).file_size:
                        raise S2KDError(
                            f"{path}: {name} claims {size} bytes, but has another number: it is "
                            "damaged; fetch or copy it again"
                        )
                    arrays[name.removesuffix(".npy")] = Header(shape, dtype)
        return arrays

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            attributes = {key: item.attrs[key] for key in DESCRIBING if key in item.attrs}
            attributes |= {key: True for key in DIMENSIONS if key in item.attrs}
            texts = {k: v.decode() for k, v in attributes.items() if isinstance(v, bytes)}
            arrays[name] = Header(tuple(item.shape), item.dtype, attributes | texts)

    with _opened_hdf5(path) as file:
        file.visititems(note)
    return arrays


def listing(arrays: Headers) -> str:
    """Keys and shapes, for messages."""
    return ", ".join(f"{key} {header.shape}".strip() for key, header in arrays.items()) or "nothing"


def choose_key(path: Path, key: str, *, axes: int | None = None) -> str:
    """`key`, or without one the only array of the file (with so many axes).

    Raises `S2KDError` where there is no such array, or more than one.
    """
    arrays = headers(path)
    if key in arrays:
        return key
    if key:
        raise S2KDError(f"{path}: no key {key!r}{nearest(key, arrays)} (it has {listing(arrays)})")
    fitting = [k for k, v in arrays.items() if axes is None or len(v.shape) == axes]
    if len(fitting) == 1:
        return fitting[0]
    raise S2KDError(f"{path}: set key to the array to read (it has {listing(arrays)})")


def lazy_array(path: Path, key: str = "") -> "da.Array":
    """An array of numbers, read in chunks along its first axis when it is needed."""
    import dask.array as da
    import h5py

    key = choose_key(path, key)
    header = headers(path)[key]
    if header.dtype.kind not in "iufb":
        raise S2KDError(f"{label_of(path, key)}: holds {header.dtype}, but numbers are needed")
    kind = kind_of_arrays(path)
    if kind == ".npy":
        source: Any = MappedArray(_mapped(path))
    elif kind == ".npz":
        with _opened_npz(path) as members, members.open(f"{key}.npy") as file:
            columns_first = _npy_header(file)[1]
        source = small_array(path, key) if columns_first else NpzMember(path, key)
    else:
        with _opened_hdf5(path):
            source = h5py.File(path)[key]
    entry = max(1, int(np.prod(header.shape[1:]))) * header.dtype.itemsize
    chunks = (max(1, CHUNK_BYTES // entry), *(-1,) * (len(header.shape) - 1))
    # one reader at a time: a zip member and an HDF5 file have one position
    array = da.from_array(source, chunks=chunks, lock=kind != ".npy", name=False, fancy=False)
    return _unpacked(array, header.attributes)


def _unpacked(array: "da.Array", attributes: Mapping[str, Any]) -> "da.Array":
    """With the missing values, scale and offset that the attributes of an HDF5 array declare."""
    import xarray as xr

    packing = {key: attributes[key] for key in PACKING if key in attributes}
    if not packing:
        return array
    dims = [f"axis{number}" for number in range(array.ndim)]
    decoded = xr.conventions.decode_cf_variable("array", xr.Variable(dims, array, packing))
    limits, _ = valid_limits(decoded)
    inside = True if limits is None else (decoded >= limits[0]) & (decoded <= limits[1])
    return decoded.where(inside).data


def small_array(path: Path, key: str = "", shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An array of any type but pickles, read at once: times, names, coordinates.

    Raises `S2KDError` where it is absent or has another shape than `shape`.
    """
    key, kind = choose_key(path, key), kind_of_arrays(path)
    if kind == ".npy":
        with _readable(path, kind):
            values = np.load(path, allow_pickle=False)
    elif kind == ".npz":
        with _opened_npz(path) as members, members.open(f"{key}.npy") as file:
            values = np.lib.format.read_array(file, allow_pickle=False)
    else:
        with _opened_hdf5(path) as file:
            values = np.asarray(file[key])
    if shape is not None and values.shape != shape:
        raise S2KDError(f"{label_of(path, key)}: has shape {values.shape}, but must have {shape}")
    return values


def in_order(array: "da.Array", axes: Sequence[str], order: Sequence[str]) -> "da.Array":
    """`array`, whose axes are named, with the axes `order`; absent ones have length 1."""
    import dask.array as da

    array = array.transpose([axes.index(axis) for axis in order if axis in axes])
    return da.expand_dims(array, tuple(n for n, axis in enumerate(order) if axis not in axes))


def label_of(path: Path, key: str) -> str:
    """The name of an array in errors."""
    return f"{path}: {key}" if key else str(path)


def kind_of_arrays(path: Path) -> str:
    """`.npy`, `.npz` or `.h5`, by content and not by name; S2KDError for any other."""
    if not path.is_file():
        raise S2KDError(f"{path}: no such file")
    check_foreign([path])
    with path.open("rb") as file:
        start = file.read(8)
    for kind, signature in KINDS.items():
        if start.startswith(signature):
            return kind
    raise S2KDError(f"{path}: is neither .npy, .npz nor HDF5 (it starts with {start!r})")


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type; the values follow in `file`."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Whatever goes wrong in reading is one S2KDError."""
    try:
        yield
    except S2KDError:
        raise
    except Exception as error:  # each library raises its own kinds
        raise S2KDError(f"{path}: not readable as {kind}, or cut short ({error})") from None


def _mapped(path: Path) -> np.memmap:
    with _readable(path, ".npy of numbers"):
        return np.load(path, mmap_mode="r", allow_pickle=False)


@contextmanager
def _opened_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    with _readable(path, ".npz"), zipfile.ZipFile(path) as members:
        yield members


@contextmanager
def _opened_hdf5(path: Path) -> Iterator[Any]:
    import h5py

    with _readable(path, "HDF5"), h5py.File(path) as file:
        yield file
