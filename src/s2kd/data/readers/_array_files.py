"""Arrays in `.npy`, `.npz` and HDF5 files: their headers, and lazy access to their values."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError

if TYPE_CHECKING:
    import dask.array as da

ENDINGS = (".npy", ".npz", ".h5", ".hdf5")
CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Header:
    """Shape and type of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype


class MappedArray:
    """A memory map without the method `copy`, by which dask would read all of it."""

    def __init__(self, values: np.memmap) -> None:
        self._values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        return np.array(self._values[index])


class NpzMember:
    """A C-ordered array of an `.npz`, decompressed as its first axis is read in order."""

    def __init__(self, path: Path, key: str) -> None:
        self._file = zipfile.ZipFile(path).open(f"{key}.npy")  # noqa: SIM115
        self.shape, _, self.dtype = _npy_header(self._file)
        self.ndim, self._offset = len(self.shape), self._file.tell()

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray:
        if isinstance(index[0], int):
            return self[(slice(index[0], index[0] + 1), *index[1:])][0]
        first, stop, _ = index[0].indices(self.shape[0])
        entry = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        self._file.seek(self._offset + first * entry)
        size = (stop - first) * entry
        try:
            content = self._file.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise S2KDError(f"{self._file.name}: cannot be decompressed ({error})") from None
        values = np.frombuffer(content, self.dtype).reshape(stop - first, *self.shape[1:])
        return values[(slice(None), *index[1:])]


def headers(path: Path) -> dict[str, Header]:
    """Every array in the file by key; the array of a `.npy` is called ""."""
    match _checked_ending(path):
        case ".npy":
            mapped = _mapped(path)
            return {"": Header(mapped.shape, mapped.dtype)}
        case ".npz":
            arrays = {}
            with _opened_npz(path) as members:
                for name in members.namelist():
                    if name.endswith(".npy"):
                        with members.open(name) as file:
                            shape, _, dtype = _npy_header(file)
                        arrays[name.removesuffix(".npy")] = Header(shape, dtype)
            return arrays
        case _:
            h5py, datasets = _h5py(), {}

            def note(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset):
                    datasets[name] = Header(tuple(item.shape), item.dtype)

            with _opened_hdf5(path) as file:
                file.visititems(note)
            return datasets


def choose_key(path: Path, key: str, *, axes: int | None = None) -> str:
    """`key`, or without one the only array of the file (with so many axes).

    Raises
    ------
    S2KDError
        there is no such array, or more than one.
    """
    arrays = headers(path)
    if key in arrays:
        return key
    fitting = [k for k, v in arrays.items() if axes is None or len(v.shape) == axes]
    if not key and len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{k} {v.shape}" for k, v in arrays.items()) or "nothing"
    if key:
        raise S2KDError(f"{path}: no key {key!r}{nearest(key, arrays)} (it has {listed})")
    raise S2KDError(f"{path}: set key to the array to read (it has {listed})")


def lazy_array(path: Path, key: str = "") -> "da.Array":
    """An array of numbers, read in chunks along its first axis when it is needed."""
    import dask.array as da

    key = choose_key(path, key)
    label = f"{path}: {key}" if key else str(path)
    header = headers(path)[key]
    if header.dtype.kind not in "iufb":
        raise S2KDError(f"{label}: holds {header.dtype}, but numbers are needed")
    match path.suffix.lower():
        case ".npy":
            source: Any = MappedArray(_mapped(path))
        case ".npz":
            with _opened_npz(path) as members, members.open(f"{key}.npy") as file:
                columns_first = _npy_header(file)[1]
            source = small_array(path, key) if columns_first else NpzMember(path, key)
        case _:
            with _opened_hdf5(path):
                source = _h5py().File(path)[key]
    entry = max(1, int(np.prod(header.shape[1:]))) * header.dtype.itemsize
    chunks = (max(1, CHUNK_BYTES // entry), *(-1,) * (len(header.shape) - 1))
    # one reader at a time: a zip member and an HDF5 file have one position
    lock = path.suffix.lower() != ".npy"
    return da.from_array(source, chunks=chunks, lock=lock, name=False, fancy=False)


def small_array(path: Path, key: str = "") -> np.ndarray:
    """An array of any type but pickles, read at once: times, names, coordinates."""
    match _checked_ending(path):
        case ".npy":
            try:
                return np.load(path, allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise S2KDError(f"{path}: not a .npy array of plain values ({error})") from None
        case ".npz":
            with _opened_npz(path) as members, members.open(f"{key}.npy") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        case _:
            with _opened_hdf5(path) as file:
                return np.asarray(file[key])


def _checked_ending(path: Path) -> str:
    if not path.is_file():
        raise S2KDError(f"{path}: no such file")
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise S2KDError(f"{path}: must have a name that ends in {', '.join(ENDINGS)}")
    return ending


def _mapped(path: Path) -> np.memmap:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise S2KDError(
            f"{path}: not readable as .npy of numbers, or cut short ({error})"
        ) from None


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type; the values follow in `file`."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


@contextmanager
def _opened_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as members:
            yield members
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise S2KDError(f"{path}: not readable as .npz, or cut short ({error})") from None


@contextmanager
def _opened_hdf5(path: Path) -> Iterator[Any]:
    try:
        with _h5py().File(path) as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise S2KDError(f"{path}: not readable as HDF5, or cut short ({error})") from None


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise S2KDError("HDF5 files need h5py (`pip install h5py`)") from None
    return h5py
