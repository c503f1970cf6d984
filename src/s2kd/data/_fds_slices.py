"""FDS slice files (`.sf`), read by frame, and those of several meshes joined into one plane.

Fortran sequential unformatted records, each between two lengths of 4 bytes: three labels of 30
characters (quantity, short name, unit), six int32 (the first and last node along x, y and z), then
for every output a float32 time and float32 values, x running fastest
(`INITIALIZE_MESH_DUMPS` and `DUMP_SLCF` of FDS 6, `Source/dump.f90`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from s2kd.core.types import S2KDError
from s2kd.data._fds_smv import AXES, Mesh, SliceEntry

HEADER = 3 * (4 + 30 + 4) + (4 + 24 + 4)
"""Bytes before the first time."""


class SliceFile:
    """One `.sf`; `times` are those of whole frames, `torn` says that another one was begun."""

    def __init__(self, entry: SliceEntry) -> None:
        self.entry, self.path = entry, entry.path
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                head = file.read(HEADER)
        except OSError as error:
            packed = self.path.with_name(self.path.name + ".sz").exists()
            raise S2KDError(
                f"{self.path}: cannot be read ({error.strerror})"
                + ("; there is only a .sf.sz, which Smokeview packed" if packed else "")
            ) from None
        order = {b"\x1e\x00\x00\x00": "<", b"\x00\x00\x00\x1e": ">"}.get(head[:4])
        if order is None or len(head) < HEADER:
            raise S2KDError(f"{self.path}: does not begin as a slice file of FDS")
        bounds = tuple(int(n) for n in np.frombuffer(head, f"{order}i4", 6, HEADER - 28))
        if bounds != entry.bounds:
            raise S2KDError(
                f"{self.path}: holds nodes {bounds}, the .smv file says {entry.bounds}; are they "
                "of one run?"
            )
        low, high = np.array(bounds[::2]), np.array(bounds[1::2])
        self._shape = tuple(int(n) for n in (high - low + 1)[::-1])  # z, y, x
        self._type = np.dtype(f"{order}f4")
        # marker, time, marker, marker, values, marker: all of four bytes
        self._words = int(np.prod(self._shape)) + 5
        whole, rest = divmod(size - HEADER, 4 * self._words)
        self.torn = rest > 0
        # a map touches two pages a frame, where reading would take in the whole file
        words = (whole, self._words)
        held = np.memmap(self.path, self._type, "r", HEADER, words) if whole else np.empty(words)
        marks = np.array(held[:, [0, 2, 3, -1]], dtype=self._type).view(f"{order}i4")
        length = 4 * (self._words - 5)
        wrong = np.flatnonzero((marks != [4, 4, length, length]).any(1))
        if len(wrong):
            raise S2KDError(
                f"{self.path}: frame {wrong[0]} is not where it should be; the file is damaged"
            )
        self.times = np.array(held[:, 1], dtype=np.float64)

    def read(self, first: int, stop: int) -> Float[np.ndarray, "time row column"]:
        """Values of whole frames, as float32; rows run along the later axis, upwards."""
        count, words = max(0, stop - first), self._words
        offset = HEADER + 4 * first * words
        raw = np.fromfile(self.path, self._type, count * words, offset=offset)
        values = raw.reshape(-1, words)[:, 4:-1].reshape(-1, *self._shape)
        if self.entry.centred:
            skip = [slice(None) if n == 1 else slice(1, None) for n in self._shape]
            values = values[(slice(None), *skip)]
        assert self.entry.normal is not None
        return values.squeeze(3 - self.entry.normal).astype(np.float32)


class Plane:
    """One quantity on one plane, joined over meshes; the first mesh is right where two meet.

    `torn` names the file that ends first where files end within a frame, or after one another.

    `x` and `y` are positions in metres along the plane's two axes (columns and rows, ascending).
    Frames have row 0 at the greatest `y`: the top of a vertical plane.
    """

    def __init__(self, entries: Sequence[SliceEntry]) -> None:
        self.files = [SliceFile(entry) for entry in entries]
        normal = entries[0].normal
        assert normal is not None
        self.normal = normal
        across, up = (a for a in range(3) if a != normal)
        self.x, columns = _union([e.positions(across) for e in entries], AXES[across], entries)
        self.y, rows = _union([e.positions(up) for e in entries], AXES[up], entries)
        self.shape = (len(self.y), len(self.x))
        self._places = list(zip(rows, columns, strict=True))
        self.covered = np.zeros(self.shape, dtype=bool)
        for row, column in self._places:
            self.covered[row, column] = True
        self.covered = self.covered[::-1]
        count = min(len(file.times) for file in self.files)
        shortest = min(self.files, key=lambda file: len(file.times))
        uneven = any(file.torn or len(file.times) > count for file in self.files)
        self.torn = shortest.path.name if uneven else ""
        self.times = self.files[0].times[:count]
        for file in self.files[1:]:
            if not np.allclose(file.times[:count], self.times, atol=1e-3):
                raise S2KDError(
                    f"{file.path}: was written at other times than {self.files[0].path}"
                )

    def read(self, first: int, stop: int) -> Float[np.ndarray, "time height width"]:
        """Frames with row 0 at the top; 0 where no mesh is."""
        out = np.zeros((stop - first, *self.shape), dtype=np.float32)
        for file, (row, column) in reversed(list(zip(self.files, self._places, strict=True))):
            out[:, row, column] = file.read(first, stop)
        return out[:, ::-1]

    def free(self) -> Bool[np.ndarray, "height width"]:
        """The cells that some mesh covers and no obstacle fills for good."""
        free = self.covered.copy()
        for file in self.files:
            for obstacle in file.entry.mesh.obstacles:
                free &= ~self._inside(file.entry, obstacle.nodes)
        return free

    def _inside(self, entry: SliceEntry, nodes: tuple[int, ...]) -> np.ndarray:
        """The cells within a block of solid; nodes on its faces touch the air."""
        mesh: Mesh = entry.mesh
        bounds = [mesh.nodes[n // 2][number] for n, number in enumerate(nodes)]
        low, high = bounds[2 * self.normal], bounds[2 * self.normal + 1]
        here = float(entry.positions(self.normal)[0])
        # the only plane of nodes of a mesh that is one cell thick lies on every block's face
        thin = len(mesh.nodes[self.normal]) == 2
        if not (low <= here <= high if thin else low < here < high):
            return np.zeros(self.shape, dtype=bool)
        across, up = (a for a in range(3) if a != self.normal)
        columns = (self.x > bounds[2 * across]) & (self.x < bounds[2 * across + 1])
        rows = (self.y > bounds[2 * up]) & (self.y < bounds[2 * up + 1])
        return (rows[:, None] & columns)[::-1]


def _union(
    positions: Sequence[np.ndarray], axis: str, entries: Sequence[SliceEntry]
) -> tuple[np.ndarray, list[slice]]:
    """All positions in order, and where each mesh's lie among them, without a gap."""
    spacing = min(float(np.diff(one).min()) for one in positions if len(one) > 1)
    every = np.sort(np.concatenate(positions))
    # FDS writes coordinates with five decimals
    every = every[np.concatenate([[True], np.diff(every) > 0.1 * spacing])]
    places = []
    for one, entry in zip(positions, entries, strict=True):
        first = int(np.searchsorted(every, one[0] - 0.1 * spacing))
        found = every[first : first + len(one)]
        if len(found) != len(one) or np.abs(found - one).max() > 0.1 * spacing:
            raise S2KDError(
                f"{entry.path}: mesh {entry.mesh.number} has other cells along {axis} than the "
                f"meshes beside it ({_cells(positions)}); only meshes of one cell size join"
            )
        places.append(slice(first, first + len(one)))
    return every, places


def _cells(positions: Sequence[np.ndarray]) -> str:
    sizes = sorted({round(float(np.diff(p).mean()), 4) for p in positions if len(p) > 1})
    return " and ".join(f"{size:g} m" for size in sizes)


def planes_of(slices: Sequence[SliceEntry]) -> dict[str, list[SliceEntry]]:
    """The slice files by plane (`y = 3 m`), whatever the quantity, in order of appearance."""
    found: list[tuple[int, float, list[SliceEntry]]] = []
    for entry in slices:
        if entry.normal is None:
            continue
        here = float(entry.positions(entry.normal)[0])
        thick = float(np.diff(entry.mesh.nodes[entry.normal]).min())
        for normal, place, listed in found:
            if normal == entry.normal and abs(place - here) < 0.5 * thick:
                listed.append(entry)
                break
        else:
            found.append((entry.normal, here, [entry]))
    return {f"{AXES[n]} = {place:.4g} m": listed for n, place, listed in found}


def cf_unit(unit: str) -> str:
    """FDS's way of writing a unit in CF's: `kW/m3` as `kW m-3`, `C` as `degC`."""
    if unit in ("C", "degC"):
        return "degC"
    above, _, below = unit.partition("/")
    if above == below or unit in ("", "-"):
        return "1"
    if not below:
        return unit
    name = below.rstrip("0123456789")
    power = below[len(name) :] or "1"
    return f"{'' if above == '1' else above} {name}-{power}".strip()


def channel_name(quantity: str) -> str:
    """`U-VELOCITY` as `u_velocity`."""
    return quantity.lower().replace(" ", "_").replace("-", "_")
