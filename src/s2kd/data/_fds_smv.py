"""The `.smv` file that FDS writes beside its output: meshes, obstacles and slice files.

Layout after `WRITE_SMOKEVIEW_FILE` and `INITIALIZE_MESH_DUMPS` of FDS 6 (`Source/dump.f90`):
keywords begin in the first column, what belongs to them follows, indented.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from s2kd.core.types import S2KDError

AXES = "xyz"


@dataclass(frozen=True, kw_only=True, eq=False)
class Obstacle:
    """A block of solid cells: the nodes (x, x, y, y, z, z) between which they lie."""

    nodes: tuple[int, ...]


@dataclass(kw_only=True, eq=False)
class Mesh:
    """One mesh: where its nodes lie along x, y and z in metres, and its obstacles."""

    number: int
    nodes: list[np.ndarray] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceEntry:
    """One slice file: `bounds` are the nodes (x, x, y, y, z, z), counted from 0, of its values.

    Where `centred`, values belong to cells, and those at each first node along a slice's own axes
    are there only to fill the record.
    """

    path: Path
    mesh: Mesh
    quantity: str
    unit: str
    centred: bool
    bounds: tuple[int, ...]

    @property
    def normal(self) -> int | None:
        """The axis (0 to 2) that the plane cuts, or None where the file holds no plane."""
        flat = [a for a in range(3) if self.bounds[2 * a] == self.bounds[2 * a + 1]]
        return flat[0] if len(flat) == 1 else None

    def positions(self, axis: int) -> np.ndarray:
        """Where its values lie along an axis, in metres."""
        nodes, (low, high) = self.mesh.nodes[axis], self.bounds[2 * axis : 2 * axis + 2]
        if not self.centred:
            return nodes[low : high + 1]
        centres = (nodes[1:] + nodes[:-1]) / 2
        return centres[max(low, 1) - 1 : max(high, 1)] if low == high else centres[low:high]


@dataclass(frozen=True, kw_only=True, eq=False)
class Smokeview:
    """What one run wrote."""

    path: Path
    meshes: tuple[Mesh, ...]
    slices: tuple[SliceEntry, ...]


def read_smokeview(path: Path) -> Smokeview:
    """Parse a `.smv` file; S2KDError where it is cut short or is something else."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise S2KDError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return _parse(path, lines)
    except (IndexError, ValueError) as error:
        raise S2KDError(f"{path}: is not a whole Smokeview file of FDS ({error})") from None


def _parse(path: Path, lines: Sequence[str]) -> Smokeview:
    meshes: list[Mesh] = []
    entries: list[tuple[str, int, bool]] = []
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
                entries.append((line, at, words[0] == "SLCC"))
            case "SHOW_OBST" | "HIDE_OBST":
                changing.add((int(words[1]), int(lines[at + 1].split()[0])))
    if not meshes:
        raise ValueError("it holds no GRID")
    if any(len(mesh.nodes) != 3 for mesh in meshes):
        raise ValueError("a GRID lacks TRNX, TRNY or TRNZ")
    for mesh in meshes:
        # an obstacle that is made or taken away on the way is no fixed wall
        mesh.obstacles = [
            one
            for number, one in enumerate(mesh.obstacles, 1)
            if (mesh.number, number) not in changing
        ]
    slices = tuple(_entry(path, meshes, lines, *one) for one in entries)
    return Smokeview(path=path, meshes=tuple(meshes), slices=slices)


def _nodes(lines: Sequence[str], at: int) -> np.ndarray:
    """(node,) coordinates of a TRN block: after the lines that stretch it, to the first blank."""
    first = at + 2 + int(lines[at + 1].split()[0])
    found = []
    for line in lines[first:]:
        words = line.split()
        if len(words) != 2 or int(words[0]) != len(found):
            break
        found.append(float(words[1]))
    if len(found) < 2:
        raise ValueError(f"{lines[at].strip()} lists no coordinates")
    return np.array(found)


def _obstacles(lines: Sequence[str], at: int) -> list[Obstacle]:
    """After the count: one line each in metres, then one line each in nodes."""
    count = int(lines[at + 1].split()[0])
    listed = lines[at + 2 + count : at + 2 + 2 * count]
    if len(listed) < count:
        raise ValueError("OBST is cut short")
    return [Obstacle(nodes=tuple(int(w) for w in line.split()[:6])) for line in listed]


def _entry(
    path: Path, meshes: Sequence[Mesh], lines: Sequence[str], line: str, at: int, centred: bool
) -> SliceEntry:
    """`SLCF  <mesh> # STRUCTURED %<id> & <six nodes> ! <number>`, then four lines."""
    number = int(line.split()[1])
    if not 1 <= number <= len(meshes):
        raise ValueError(f"a slice lies in mesh {number}, there are {len(meshes)}")
    bounds = tuple(int(w) for w in line.partition("!")[0].rpartition("&")[2].split())
    if len(bounds) != 6:
        raise ValueError(f"{line.strip()!r} gives no six bounds")
    name, quantity, _, unit = (lines[at + k].strip() for k in range(1, 5))
    mesh = meshes[number - 1]
    for axis in range(3):
        if not 0 <= bounds[2 * axis] <= bounds[2 * axis + 1] < len(mesh.nodes[axis]):
            raise ValueError(f"{name} has bounds {bounds} outside of mesh {number}")
    return SliceEntry(
        path=path.parent / name,
        mesh=mesh,
        quantity=quantity,
        unit=unit,
        centred=centred,
        bounds=bounds,
    )
