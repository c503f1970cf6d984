"""One array of numbers inside a `.npy`, `.npz` or HDF5 file, read a run of entries at a time."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Protocol, runtime_checkable

import numpy as np

from s2kd.core.files import digest, write_whole
from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data.dataset import will_need

ENDINGS = (".npy", ".npz", ".h5", ".hdf5")
Index = tuple[int | slice, ...]
"""Numbers for the first axes, then slices; axes that are not named are whole."""


@runtime_checkable
class ArrayIn(Protocol):
    """An array that lies in a file: `where` names file and key for errors."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, index: Index) -> np.ndarray: ...


class PlainArray:
    """NumPy's own layout at an offset: a `.npy`, or a member of an `.npz` that is not packed.

    What lies in one piece is read, not mapped (docs/decisions); for anything else a map is opened
    for that call alone, so that its pages do not stay.
    """

    def __init__(self, path: Path, where: str, offset: int = 0, size: int | None = None) -> None:
        self.path, self.where = path, where
        self._file = path.open("rb")
        self._file.seek(offset)
        try:
            self.shape, self._columns_first, self.dtype = read_header(self._file)
        except (ValueError, EOFError, KeyError, SyntaxError) as error:
            raise S2KDError(f"{where}: not a .npy array ({error})") from None
        check_numbers(where, self.dtype)
        self._offset = self._file.tell()
        end = path.stat().st_size if size is None else offset + size
        lacks = int(np.prod(self.shape)) * self.dtype.itemsize - (end - self._offset)
        if lacks > 0:
            raise S2KDError(f"{where}: cut short, {lacks} bytes of {self.shape} are missing")

    def read(self, index: Index) -> np.ndarray:
        """These entries, as NumPy indexes them."""
        leading = [one for one in index if not isinstance(one, int)]
        if self._columns_first or len(leading) > 1 or not isinstance(index[-1], slice):
            return np.array(self.mapped()[index])
        depth = len(index) - 1
        first, stop, step = index[-1].indices(self.shape[depth])
        if step != 1:
            return np.array(self.mapped()[index])
        number = int(np.ravel_multi_index(index[:-1], self.shape[:depth])) if depth else 0
        entry = int(np.prod(self.shape[depth + 1 :]))
        skip = (number * self.shape[depth] + first) * entry
        self._file.seek(self._offset + skip * self.dtype.itemsize)
        read = np.fromfile(self._file, self.dtype, max(0, stop - first) * entry)
        return read.reshape(-1, *self.shape[depth + 1 :])

    def expect(self, first: int, stop: int) -> None:
        """These entries of the first axis will be asked for soon."""
        entry = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        will_need(self._file.fileno(), self._offset + first * entry, (stop - first) * entry)

    def mapped(self) -> np.memmap:
        """All of it as a map that the caller drops soon."""
        order = "F" if self._columns_first else "C"
        return np.memmap(self.path, self.dtype, "r", self._offset, self.shape, order)


class Hdf5Array:
    """A dataset of an HDF5 file."""

    def __init__(self, path: Path, where: str, key: str) -> None:
        self.path, self.where = path, where
        self._held = _h5py().File(path)[key]
        self.shape, self.dtype = tuple(self._held.shape), self._held.dtype
        check_numbers(where, self.dtype)

    def read(self, index: Index) -> np.ndarray:
        """These entries, as NumPy indexes them."""
        return self._held[index]


class Channels:
    """Arrays of one shape as the entries of an axis before their own."""

    def __init__(self, arrays: Sequence[ArrayIn]) -> None:
        first = arrays[0]
        for other in arrays[1:]:
            if other.shape != first.shape:
                raise S2KDError(
                    f"{other.where}: has shape {other.shape}, but {first.where} has {first.shape}; "
                    "channels have one shape"
                )
        self._arrays, self.where = tuple(arrays), ", ".join(array.where for array in arrays)
        self.shape = (len(arrays), *first.shape)
        self.dtype = np.result_type(*(array.dtype for array in arrays))

    def read(self, index: Index) -> np.ndarray:
        """These entries of every channel; the first index is for them, and whole."""
        return np.stack([array.read(index[1:]) for array in self._arrays])


@dataclass(frozen=True)
class Held:
    """What a file says of one array, without reading it."""

    shape: tuple[int, ...]
    dtype: np.dtype


def check_numbers(where: str, dtype: np.dtype) -> None:
    """Refuse pickles, text and structures."""
    if dtype.kind not in "iufb":
        raise S2KDError(f"{where}: holds {dtype}, wants numbers")


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type of a `.npy`; its values begin where it ends."""
    version = np.lib.format.read_magic(file)
    reader = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    return reader(file)


def held_in(path: Path) -> dict[str, Held]:
    """Every array in the file by key (a `.npy` has one, called "")."""
    match _kind(path):
        case ".npy":
            array = PlainArray(path, str(path))
            return {"": Held(array.shape, array.dtype)}
        case ".npz":
            with _unzipped(path) as members:
                return {name.removesuffix(".npy"): _header(path, members, name)
                        for name in members.namelist() if name.endswith(".npy")}  # fmt: skip
        case _:
            found: dict[str, Held] = {}
            h5py = _h5py()

            def note(name: str, item: object) -> None:
                if isinstance(item, h5py.Dataset):
                    found[name] = Held(tuple(item.shape), item.dtype)

            with _hdf5(path) as file:
                file.visititems(note)
            return found


def choose(path: Path, key: str, *, axes: int | None = None) -> str:
    """`key` if the file has it; where none is asked for, its only array (of so many axes)."""
    held = held_in(path)
    if key in held:
        return key
    fit = [k for k, v in held.items() if axes is None or len(v.shape) == axes]
    if not key and len(fit) == 1:
        return fit[0]
    has = ", ".join(f"{k} {v.shape}" for k, v in held.items()) or "nothing"
    if key:
        raise S2KDError(f"{path}: no key {key!r}{nearest(key, held)} (it has {has})")
    raise S2KDError(f"{path}: say with key which array is meant (it has {has})")


def open_array(path: Path, key: str = "", *, cache: str = "") -> ArrayIn:
    """The array `key` of this file; a packed member of an `.npz` is unpacked once into `cache`.

    `cache` is a folder, by default `.s2kd-cache` beside the file.
    """
    kind, key = _kind(path), choose(path, key)
    where = f"{path}: {key}" if key else str(path)
    match kind:
        case ".npy":
            return PlainArray(path, where)
        case ".npz":
            return _member(path, key, where, cache)
        case _:
            with _hdf5(path):
                return Hdf5Array(path, where, key)


def whole(path: Path, key: str) -> np.ndarray:
    """A small array of any type but pickles: times, names, coordinates."""
    match _kind(path):
        case ".npy":
            try:
                return np.load(path, allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise S2KDError(f"{path}: not a .npy array of plain values ({error})") from None
        case ".npz":
            with _unzipped(path) as members, members.open(key + ".npy") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        case _:
            with _hdf5(path) as file:
                return np.asarray(file[key])


def _kind(path: Path) -> str:
    if not path.is_file():
        raise S2KDError(f"{path}: no such file")
    kind = path.suffix.lower()
    if kind not in ENDINGS:
        raise S2KDError(f"{path}: wants a name that ends in {', '.join(ENDINGS)}")
    return kind


def _member(path: Path, key: str, where: str, cache: str) -> PlainArray:
    """A member of an `.npz`: in place where it is stored as it is, else unpacked once."""
    with _unzipped(path) as members:
        info = members.getinfo(key + ".npy")
        if info.compress_type == zipfile.ZIP_STORED:
            return PlainArray(path, where, _data_offset(path, info), info.file_size)
        stat = path.stat()
        name = digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns, key])
        folder = Path(cache).expanduser() if cache else path.parent / ".s2kd-cache"
        unpacked = folder / f"{name}.npy"
        if not unpacked.exists():
            write_whole(unpacked, lambda beside: _unpack(where, members, info, beside))
    return PlainArray(unpacked, where)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored member begins: the local header has lengths of its own."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return info.header_offset + 30 + lengths


def _unpack(where: str, members: zipfile.ZipFile, info: zipfile.ZipInfo, beside: Path) -> None:
    import shutil
    import zlib

    free = shutil.disk_usage(beside.parent).free
    if free < info.file_size:
        raise S2KDError(
            f"{where}: is packed and takes {info.file_size / 2**30:.1f} GiB unpacked, but "
            f"{beside.parent} has {free / 2**30:.1f} GiB free; set cache to a larger disk"
        )
    try:
        with members.open(info) as packed, beside.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**22)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise S2KDError(f"{where}: cannot be unpacked ({error}); fetch the file again") from None


def _header(path: Path, members: zipfile.ZipFile, name: str) -> Held:
    with members.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    return Held(shape, dtype)


@contextmanager
def _unzipped(path: Path) -> Iterator[zipfile.ZipFile]:
    import zlib

    try:
        with zipfile.ZipFile(path) as members:
            yield members
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise S2KDError(f"{path}: cannot be read as NPZ, or cut short ({error})") from None


@contextmanager
def _hdf5(path: Path) -> Iterator[IO]:
    try:
        with _h5py().File(path) as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise S2KDError(f"{path}: cannot be read as HDF5, or cut short ({error})") from None


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise S2KDError("HDF5 files need h5py (`pip install h5py`)") from None
    return h5py
