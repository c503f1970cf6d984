"""Output of the Fire Dynamics Simulator: its `.smv` index and its `.sf` slice files.

Layout after `WRITE_SMOKEVIEW_FILE`, `INITIALIZE_MESH_DUMPS` and `DUMP_SLCF` of FDS 6
(`Source/dump.f90`). In a `.smv`, keywords begin in the first column and their content follows. A
`.sf` holds Fortran records, each between two lengths of 4 bytes: three labels of 30 characters, six
int32 (first and last node along x, y and z), then for every output a float32 time and float32
values, x running fastest.

Parsed here, because fdsreader 1.14 removes files called `<chid>.pickle`, reads one byte order, and
stops at obstacles without a surface and at frames that were not written whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2kd.core.types import S2KDError

AXES = "xyz"
HEADER_BYTES = 3 * (4 + 30 + 4) + (4 + 24 + 4)
"""Before the first time in a `.sf`."""
BLOCK_FRAMES = 256


@dataclass(kw_only=True, eq=False)
class Mesh:
    """One mesh: positions of its nodes along x, y and z in metres, and its solid obstacles.

    An obstacle is given by the nodes (x, x, y, y, z, z) between which it lies.
    """

    number: int
    nodes: list[np.ndarray] = field(default_factory=list)
    obstacles: list[tuple[int, ...]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceFile:
    """One slice file; `bounds` are the nodes (x, x, y, y, z, z) of its values, counted from 0.

    Where `centred`, values belong to cells, and those at each first node only fill the record.
    """

    path: Path
    mesh: Mesh
    quantity: str
    unit: str
    centred: bool
    bounds: tuple[int, ...]

    @property
    def normal(self) -> int | None:
        """The axis (0 to 2) that the plane cuts; None where the file holds no plane."""
        flat = [a for a in range(3) if self.bounds[2 * a] == self.bounds[2 * a + 1]]
        return flat[0] if len(flat) == 1 else None

    def positions(self, axis: int) -> np.ndarray:
        """Of its values along an axis, in metres."""
        nodes, (low, high) = self.mesh.nodes[axis], self.bounds[2 * axis : 2 * axis + 2]
        if not self.centred:
            return nodes[low : high + 1]
        centres = (nodes[1:] + nodes[:-1]) / 2
        return centres[max(low, 1) - 1 : max(high, 1)] if low == high else centres[low:high]


class SliceFrames:
    """Frames of one slice file, read and not mapped: a map crashes where a file is cut.

    `times` are those of complete frames, `incomplete` says that another one was begun. Raises
    `S2KDError` for a file that cannot be read, is of another run, or damaged.
    """

    def __init__(self, file: SliceFile) -> None:
        try:
            size = file.path.stat().st_size - HEADER_BYTES
            with file.path.open("rb") as opened:
                head = opened.read(HEADER_BYTES)
        except OSError as error:
            raise S2KDError(f"{file.path}: cannot be read ({error.strerror})") from None
        order = {b"\x1e\x00\x00\x00": "<", b"\x00\x00\x00\x1e": ">"}.get(head[:4])
        if order is None or size < 0:
            raise S2KDError(f"{file.path}: does not begin as a slice file of FDS")
        bounds = tuple(np.frombuffer(head, f"{order}i4", 6, HEADER_BYTES - 28).tolist())
        if bounds != file.bounds:
            raise S2KDError(
                f"{file.path}: holds nodes {bounds}, the .smv file says {file.bounds}; are they "
                "of one run?"
            )
        shape = tuple(bounds[2 * a + 1] - bounds[2 * a] + 1 for a in (2, 1, 0))
        marker, length = f"{order}i4", 4 * int(np.prod(shape))
        self._record = np.dtype(
            [("a", marker), ("time", f"{order}f4"), ("b", marker), ("c", marker),
             ("values", f"{order}f4", shape), ("d", marker)]
        )  # fmt: skip
        self._path = file.path
        self._skip = tuple(slice(int(file.centred and n > 1), None) for n in shape)
        self._flat = 3 - (file.normal or 0)
        count, rest = divmod(size, self._record.itemsize)
        self.incomplete = rest > 0
        times = [np.zeros(0)]
        for first in range(0, count, BLOCK_FRAMES):
            records = self._records(first, min(first + BLOCK_FRAMES, count))
            for name, expected in (("a", 4), ("b", 4), ("c", length), ("d", length)):
                for number in first + np.flatnonzero(records[name] != expected):
                    raise S2KDError(
                        f"{file.path}: frame {number} is not where it should be; the file is "
                        "damaged"
                    )
            times.append(records["time"].astype(np.float64))
        self.times = np.concatenate(times)

    def _records(self, first: int, stop: int) -> np.ndarray:
        offset = HEADER_BYTES + first * self._record.itemsize
        return np.fromfile(self._path, self._record, stop - first, offset=offset)

    def read(self, first: int, stop: int) -> np.ndarray:
        """(time, row, column) of complete frames; rows run along the later axis, upwards."""
        values = self._records(first, stop)["values"]
        return values[(slice(None), *self._skip)].squeeze(self._flat)


def read_smokeview(path: Path) -> tuple[SliceFile, ...]:
    """The slice files that a `.smv` lists; S2KDError where it is cut short, or something else."""
    try:
        return _parse(path, path.read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError as error:
        raise S2KDError(f"{path}: cannot be read ({error.strerror})") from None
    except (IndexError, ValueError) as error:
        raise S2KDError(f"{path}: is not a complete Smokeview file of FDS ({error})") from None


def _parse(path: Path, lines: Sequence[str]) -> tuple[SliceFile, ...]:
    meshes: list[Mesh] = []
    entries: list[int] = []
    changing: set[tuple[int, int]] = set()
    for at, line in enumerate(lines):
        words = line.split()
        if not words or line[0].isspace():
            continue
        match words[0]:
            case "GRID":
                meshes.append(Mesh(number=len(meshes) + 1))
            case "TRNX" | "TRNY" | "TRNZ" if meshes:
                meshes[-1].nodes.append(_nodes(lines, at))
            case "OBST" if meshes:
                meshes[-1].obstacles += _obstacles(lines, at)
            case "SLCF" | "SLCC":
                entries.append(at)
            case "SHOW_OBST" | "HIDE_OBST":
                changing.add((int(words[1]), int(lines[at + 1].split()[0])))
    if not meshes:
        raise ValueError("it holds no GRID")
    if any(len(mesh.nodes) != 3 for mesh in meshes):
        raise ValueError("a GRID lacks TRNX, TRNY or TRNZ")
    for mesh in meshes:
        # an obstacle that appears or disappears on the way is no fixed wall
        numbered = enumerate(mesh.obstacles, 1)
        mesh.obstacles = [nodes for n, nodes in numbered if (mesh.number, n) not in changing]
    return tuple(_slice_file(path.parent, meshes, lines[at : at + 5]) for at in entries)


def _nodes(lines: Sequence[str], at: int) -> np.ndarray:
    """(node,) coordinates of a TRN block: after the lines that stretch it, to the first blank."""
    nodes = []
    for line in lines[at + 2 + int(lines[at + 1].split()[0]) :]:
        words = line.split()
        if len(words) != 2 or int(words[0]) != len(nodes):
            break
        nodes.append(float(words[1]))
    if len(nodes) < 2:
        raise ValueError(f"{lines[at].strip()} lists no coordinates")
    return np.array(nodes)


def _obstacles(lines: Sequence[str], at: int) -> list[tuple[int, ...]]:
    """After the count: one line each in metres, then one line each in nodes."""
    count = int(lines[at + 1].split()[0])
    listed = lines[at + 2 + count : at + 2 + 2 * count]
    if len(listed) < count:
        raise ValueError("OBST is cut short")
    return [tuple(int(word) for word in line.split()[:6]) for line in listed]


def _slice_file(folder: Path, meshes: Sequence[Mesh], lines: Sequence[str]) -> SliceFile:
    """`SLCF  <mesh> # STRUCTURED %<id> & <six nodes> ! <number>`, then four lines."""
    number = int(lines[0].split()[1])
    if not 1 <= number <= len(meshes):
        raise ValueError(f"a slice lies in mesh {number}, there are {len(meshes)}")
    bounds = tuple(int(w) for w in lines[0].partition("!")[0].rpartition("&")[2].split())
    if len(bounds) != 6:
        raise ValueError(f"{lines[0].strip()!r} gives no six bounds")
    name, quantity, _, unit = (line.strip() for line in lines[1:])
    mesh = meshes[number - 1]
    for axis in range(3):
        if not 0 <= bounds[2 * axis] <= bounds[2 * axis + 1] < len(mesh.nodes[axis]):
            raise ValueError(f"{name} has bounds {bounds} outside of mesh {number}")
    return SliceFile(
        path=folder / name,
        mesh=mesh,
        quantity=quantity,
        unit=unit,
        centred=lines[0].startswith("SLCC"),
        bounds=bounds,
    )
