"""Files of a label store: Zarr 2 arrays in blocks with a digest each, read and written."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct, to_builtins

from s2kd.core.errors import first_line
from s2kd.core.files import BlockDigests, block_digest, read_json, read_sealed, sealed, write_json
from s2kd.core.reading import read
from s2kd.core.recipe import Stored
from s2kd.core.types import S2KDError

if TYPE_CHECKING:
    import xarray as xr

FORMAT = "s2kd-labels-1"
ATTRIBUTES = ".zattrs"
BLOCK, BLOCK_BYTES = 32, 2**26
"""At most so many windows (of `inputs`: frames) and bytes share a chunk and a digest."""
VIEWS = ("inputs", "forecast", "latent")
"""The large arrays, each float32 in blocks along its first axis."""
NESTED = ("teacher", "origin", "blocks")
"""Attributes written as JSON text, since other formats have no nested ones."""
KINDS = ("<f4", "<f8", "<i8", "<i4", "|i1", "|b1")
CODECS = ("zstd", "blosc", "zlib", "gzip", "lz4")
LARGEST_CHUNK, LARGEST_COORDINATE = 2**32, 2**30
"""In bytes: an array that declares more is refused before anything is allocated."""


class Attributes(Struct, kw_only=True, forbid_unknown_fields=True):
    """Global attributes of a store.

    `origin` is what it was made from, by part; `coordinates` the digest of all small arrays;
    `blocks` those of the large ones, by array, `block` entries each.
    """

    Conventions: str = "CF-1.11"
    format: str = FORMAT
    s2kd: str
    teacher: dict[str, str]
    past: int
    lead: int
    step_seconds: float
    domain: str
    local_time: int
    wraps: int
    rows: int
    columns: int
    block: int
    latent_extent: tuple[int, int]
    origin: dict[str, Any]
    coordinates: str = ""
    blocks: dict[str, list[str]]
    complete: int = 0
    digest: str = ""


class Array(Struct):
    """Metadata of one array, as Zarr 2 has them."""

    dtype: str
    shape: list[int]
    chunks: list[int]
    filters: Any
    compressor: dict[str, Any] | None


def is_labels(path: Path) -> bool:
    """Whether a folder is a label store, finished or not."""
    file = path / ATTRIBUTES
    return file.is_file() and b'"s2kd-labels-' in file.read_bytes()


def holds_latents(spec: Stored) -> bool:
    """Whether these forecasts come with latents: named ones, or those of a label store."""
    path = Path(spec.path).expanduser()
    return bool(spec.latent) or (is_labels(path) and LabelFiles(path).has("latent"))


class LabelFiles:
    """The arrays of the store at `path`; every block is checked when it is first read.

    Raises S2KDError where the store is of another kind, torn, altered or larger than it may be.
    """

    def __init__(self, path: Path, *, writes: bool = False) -> None:
        import zarr

        self.path, self.attributes = path, _attributes(path)
        _check_arrays(path)
        try:
            self._group = zarr.open_group(
                path, mode="r+" if writes else "r", zarr_format=2, use_consolidated=False
            )
            self.arrays = {v: self._group[v] for v in self.attributes.blocks if v in self._group}
        except Exception as error:  # Zarr raises many kinds
            raise S2KDError(f"{path}: cannot be opened as Zarr 2 ({error})") from None
        self._noted, remedy = 0, "delete the store and label again"
        self._digests = {
            view: BlockDigests(f"{path / view}", self.attributes.block, digests, remedy)
            for view, digests in self.attributes.blocks.items()
        }
        for view, array in self.arrays.items():
            block = (min(self.attributes.block, array.shape[0]), *array.shape[1:])
            if array.chunks != block or array.dtype != "<f4":
                raise S2KDError(
                    f"{path / view}: has chunks {array.chunks} of {array.dtype}; its blocks are "
                    f"{block} of float32"
                )

    def has(self, view: str) -> bool:
        """Whether the store has this array."""
        return view in self.arrays

    def coordinates(self) -> "xr.Dataset":
        """All small arrays, decoded, once they are as they were written."""
        import xarray as xr

        if self.coordinate_digest() != self.attributes.coordinates:
            raise S2KDError(f"{self.path}: its coordinates differ from those written; label again")
        options = {"consolidated": False, "zarr_format": 2, "chunks": None}
        store = xr.open_zarr(self.path, decode_timedelta=False, **options)
        return store.drop_vars(list(self.arrays)).load()

    def coordinate_digest(self) -> str:
        """Digest of the small arrays, and of the shapes of the large ones."""
        hashed = hashlib.blake2b(digest_size=12)
        for name in sorted(self._group.array_keys()):
            array = self._group[name]
            hashed.update(f"{name} {array.dtype} {array.shape} {array.attrs.asdict()}".encode())
            if name not in self.arrays:
                hashed.update(np.ascontiguousarray(array[...]).tobytes())
        return hashed.hexdigest()

    def read(self, view: str, index: np.ndarray) -> np.ndarray:
        """Entries along the first axis, float32."""
        values = np.empty((len(index), *self.arrays[view].shape[1:]), np.float32)
        length = self.attributes.block
        numbers = index // length
        for number in np.unique(numbers):
            rows = numbers == number
            values[rows] = self.block(view, int(number))[index[rows] - number * length]
        return values

    def block(self, view: str, number: int) -> np.ndarray:
        """One block of an array."""
        first = number * self.attributes.block
        label = f"{self.path / view}: block {number} (from entry {first})"
        try:
            stored = self.arrays[view][first : first + self.attributes.block]
        except Exception as error:  # every codec raises its own kinds
            raise S2KDError(
                f"{label} is torn ({first_line(error)}); delete the store and label again"
            ) from None
        self._digests[view].check(number, stored)
        return stored

    def blocks(self, view: str) -> Iterator[np.ndarray]:
        """All blocks that are said to be written."""
        for number in range(len(self.attributes.blocks[view])):
            yield self.block(view, number)

    def append(self, view: str, values: np.ndarray) -> None:
        """Write the next block; `note` or `save` makes it count."""
        digests = self.attributes.blocks[view]
        first = len(digests) * self.attributes.block
        self.arrays[view][first : first + len(values)] = values
        digests.append(block_digest(np.asarray(values, "<f4")))

    def note(self) -> None:
        """Save, of very many blocks not after each: the attributes grow with their number."""
        count = sum(map(len, self.attributes.blocks.values()))
        if count - self._noted > self._noted // 64:
            self._noted = count
            self.save()

    def save(self, *, complete: bool = False) -> None:
        """Note what is written; the last time, for readers that want all metadata in one file."""
        import zarr

        self.attributes.complete = int(complete)
        self.attributes.digest = save_attributes(self.path, self.attributes)
        if complete:
            zarr.consolidate_metadata(self.path, zarr_format=2)


def save_attributes(path: Path, attributes: Attributes) -> str:
    """Write the attributes with a digest over all of them, which is returned."""
    plain = to_builtins(attributes)
    plain = sealed({k: json.dumps(v) if k in NESTED else v for k, v in plain.items()})
    write_json(path / ATTRIBUTES, plain)
    return plain["digest"]


def _attributes(path: Path) -> Attributes:
    file = path / ATTRIBUTES
    if not is_labels(path):
        raise S2KDError(f"{path}: is no label store, as `s2kd label` writes it")
    plain = read_sealed(file, "label again")
    if plain.get("format") != FORMAT:
        raise S2KDError(
            f"{file}: the format is {plain.get('format')!r}, this version reads {FORMAT}"
        )
    try:
        plain = {k: json.loads(v) if k in NESTED else v for k, v in plain.items()}
    except (TypeError, ValueError) as error:
        raise S2KDError(f"{file}: {', '.join(NESTED)} must be JSON text ({error})") from None
    attributes = read(Attributes, plain, str(file))
    if not set(attributes.blocks) <= set(VIEWS) or "forecast" not in attributes.blocks:
        raise S2KDError(f"{file}: blocks must be of {', '.join(VIEWS)}")
    return attributes


def _check_arrays(path: Path) -> None:
    """Refuse objects, unknown codecs and sizes beyond reason before Zarr opens anything."""
    for file in sorted(path.glob("*/.zarray")):
        name, array = file.parent.name, read(Array, read_json(file), str(file))
        codec = (array.compressor or {"id": CODECS[0]}).get("id")
        is_text = re.fullmatch(r"<U\d{1,4}", array.dtype)
        if array.filters or codec not in CODECS or not (is_text or array.dtype in KINDS):
            raise S2KDError(
                f"{file}: type {array.dtype}, filters {array.filters} and compressor {codec!r} are "
                "not those of plain numbers or text"
            )
        chunk, total = (_bytes(array.dtype, shape) for shape in (array.chunks, array.shape))
        if chunk > LARGEST_CHUNK or (name not in VIEWS and total > LARGEST_COORDINATE):
            raise S2KDError(
                f"{file}: declares {max(chunk, total) / 2**30:.3g} GiB, more than is read at once"
            )


def _bytes(kind: str, shape: Sequence[int]) -> float:
    return np.dtype(kind).itemsize * float(np.prod(shape, dtype=float))
