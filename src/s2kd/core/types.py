"""What travels between the parts: grids, statistics, windows of past frames.

Axes, everywhere: batch, past (input frames), lead (forecast steps 1..T_out), channel,
height, width; `d`, `h`, `w` are a latent's width and grid; `token` indexes text. What holds tensors
is in `core.tensors`, so that these import without PyTorch.
Row 0 is the northernmost (or topmost) row, column 0 the westernmost (or leftmost).
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from s2kd.core.errors import S2KDError

Domain = Literal["weather", "traffic", "fire", "generic"]


@dataclass(frozen=True, kw_only=True)
class GridSpec:
    """What one frame is: its channels and units, its size and place, how far apart frames are.

    `latitude` (degrees north, one a row) descends and `longitude` (degrees east, one a column)
    ascends; both are None where the grid is not geographic. `mask` is True where a cell
    exists; None means that all do.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    height: int
    width: int
    step_seconds: float
    latitude: tuple[float, ...] | None = None
    longitude: tuple[float, ...] | None = None
    wraps: bool = False
    mask: tuple[tuple[bool, ...], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.units):
            raise S2KDError(
                f"GridSpec: {len(self.channels)} channels {self.channels} "
                f"but {len(self.units)} units {self.units}"
            )
        if not self.channels or min(self.height, self.width) < 1:
            raise S2KDError(
                f"GridSpec: needs at least one channel and one cell, got "
                f"{len(self.channels)} channels on {self.height}×{self.width}"
            )
        if not self.step_seconds > 0:
            raise S2KDError(f"GridSpec: step_seconds must be positive, got {self.step_seconds}")
        self._check_length("latitude", self.latitude, self.height)
        self._check_length("longitude", self.longitude, self.width)
        if self.latitude is not None and np.any(np.diff(self.latitude) >= 0):
            raise S2KDError("GridSpec: latitude must descend (row 0 is the northernmost)")
        if self.mask is not None and self.exists.shape != (self.height, self.width):
            raise S2KDError(
                f"GridSpec: mask has shape {self.exists.shape}, grid is {self.height}×{self.width}"
            )

    def __repr__(self) -> str:
        fields = ", ".join(map("{} [{}]".format, self.channels, self.units))
        axes = ("latitude", self.latitude), ("longitude", self.longitude)
        places = [f"{name} {v[0]:g} to {v[-1]:g}" for name, v in axes if v is not None]
        size = f"{self.height} rows × {self.width} columns"
        cells = [] if self.mask is None else [f"{self.exists.sum()} cells exist"]
        step = f"a frame every {self.step_seconds:g} s"
        return f"GridSpec({', '.join([fields, size, *cells, *places, step])})"

    def _check_length(self, name: str, values: tuple[float, ...] | None, want: int) -> None:
        if values is not None and len(values) != want:
            raise S2KDError(f"GridSpec: {name} has {len(values)} values, the grid has {want}")

    @property
    def exists(self) -> np.ndarray:
        """(height, width) bool: the cells that exist."""
        if self.mask is None:
            return np.ones((self.height, self.width), dtype=bool)
        return np.asarray(self.mask, dtype=bool)

    def to_dict(self) -> dict[str, object]:
        """As plain JSON; the mask as rows of 0 and 1."""
        plain = asdict(self)
        if self.mask is not None:
            plain["mask"] = ["".join("01"[cell] for cell in row) for row in self.mask]
        return plain

    @classmethod
    def from_dict(cls, plain: dict) -> "GridSpec":
        """The inverse of `to_dict`."""
        listed = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        if plain.get("mask") is not None:
            listed["mask"] = tuple(tuple(c == "1" for c in row) for row in plain["mask"])
        return cls(**listed)


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Per-channel facts of the training split, in physical units, over existing cells.

    `quantiles` maps a probability to one value a channel; `change` is the root mean square change
    over the lead times of a forecast.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    quantiles: dict[float, tuple[float, ...]]
    change: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Past:
    """All that a narrator may see of one window: the input frames and nothing later.

    There is no date, no place name, no file name and no future here: a narrator that is handed
    only this cannot leak them. `season` and `part_of_day` are coarse classes, or None.
    `context` holds facts known at issue time that are not in the frames ("rain", "holiday").
    """

    frames: Float[np.ndarray, "past channel height width"]
    grid: GridSpec
    domain: Domain
    statistics: Statistics
    season: str | None = None
    part_of_day: str | None = None
    context: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Identity of the window by content: the hash of its input frames and channel names."""
        content = np.ascontiguousarray(self.frames, dtype="<f4")
        named = f"{self.grid.channels}{content.shape}".encode()
        return hashlib.blake2b(content.tobytes() + named, digest_size=16).hexdigest()
