"""Boussinesq flow of hot smoke from a burner into a cross wind, in a vertical plane.

Two-dimensional, on a staggered grid: semi-Lagrangian advection (Stam 1999), buoyancy g·θ/T₀,
vorticity confinement for the eddies that a coarse grid loses (Fedkiw, Stam & Jensen 2001) and an
exact discrete projection onto divergence-free flow. The wind enters from the left; right
and top are open, the ground is closed and smooth. The burner puffs at 1.5/√D Hz, D its width in
metres (Cetegen & Ahmed 1993).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

GRAVITY = 9.81
AMBIENT = 293.0
"""K, the temperature of the air that flows in."""
HEAT_CAPACITY = 1.2
"""kJ/(m³ K), of air at that temperature."""
SOOT = 0.83
"""mg of soot per kJ: heptane's 37 g/kg over its 44.6 MJ/kg."""
COOLING = 4.0
"""s, in which hot gas loses 1 − 1/e of its excess to radiation; smoke loses nothing."""
BURNER = 1.0
"""m, the burner's width D."""
STAND = 1.0
"""m, height of the burner above the ground."""
CONFINEMENT = 0.6
"""Strength of the vorticity confinement, without unit."""
CHANNELS = ("temperature_rise", "smoke", "horizontal_velocity", "vertical_velocity")
UNITS = ("K", "mg m-3", "m s-1", "m s-1")


@dataclass(frozen=True, kw_only=True, eq=False)
class Air:
    """Runs side by side, row 0 at the ground: velocity on cell faces (m/s), the rest at centres.

    `along` is the horizontal velocity, `up` the vertical one, `rise` the temperature above ambient
    (K), `smoke` soot (mg/m³).
    """

    along: Float[Tensor, "run height side"]
    up: Float[Tensor, "run floor width"]
    rise: Float[Tensor, "run height width"]
    smoke: Float[Tensor, "run height width"]


class Plume:
    """The equations on a grid of square cells of `cell` metres, for runs with one wind each."""

    def __init__(
        self, *, height: int, width: int, cell: float, wind: Float[Tensor, " run"]
    ) -> None:
        self.height, self.width, self.cell, self.wind = height, width, cell, wind[:, None, None]
        self.vertical, rate_y = _modes(height, like=wind)
        self.lateral, rate_x = _modes(width, like=wind)
        self.rates = (rate_y[:, None] + rate_x[None]) / cell**2
        self._indices = {
            location: torch.meshgrid(
                torch.arange(rows, dtype=wind.dtype),
                torch.arange(columns, dtype=wind.dtype),
                indexing="ij",
            )
            for location, rows, columns in (
                ("centre", height, width),
                ("along", height, width + 1),
                ("up", height + 1, width),
            )
        }

    def still(self) -> Air:
        """Nothing but the wind."""
        zeros = self.wind.new_zeros(len(self.wind), self.height + 1, self.width + 1)
        return Air(
            along=zeros[:, 1:] + self.wind,
            up=zeros[:, :, 1:].clone(),
            rise=zeros[:, 1:, 1:].clone(),
            smoke=zeros[:, 1:, 1:].clone(),
        )

    def step(
        self,
        air: Air,
        seconds: float,
        *,
        heating: Float[Tensor, "run height width"],
        soot: Float[Tensor, "run height width"],
    ) -> Air:
        """`seconds` later; the burner adds `heating` (K/s) and `soot` (mg/(m³ s))."""
        air = self.advect(air, seconds)
        rise = (air.rise + seconds * heating) * np.exp(-seconds / COOLING)
        smoke = air.smoke + seconds * soot
        along, up = self._push(air.along, air.up, rise, seconds)
        along, up = self.project(along, up)
        return Air(along=along, up=up, rise=rise, smoke=smoke)

    def advect(self, air: Air, seconds: float) -> Air:
        """Every quantity at the departure point of its parcel; fresh air through open sides."""
        mid_along, mid_up = centred(air.along, air.up)
        reach = seconds / self.cell
        along_at_up = _faces(mid_along, axis=1)
        up_at_along = _faces(mid_up, axis=2)
        centre = self._departure("centre", mid_along * reach, mid_up * reach)
        # one cell of fresh air round the open sides; the ground repeats the cell above it
        tracers = torch.stack([air.rise, air.smoke], dim=1)
        tracers = functional.pad(
            functional.pad(tracers, (1, 1, 0, 1)), (0, 0, 1, 0), mode="replicate"
        )
        rise, smoke = _sample(tracers, centre[0] + 1, centre[1] + 1).unbind(1)
        along = _sample(
            air.along[:, None], *self._departure("along", air.along * reach, up_at_along * reach)
        )
        up = _sample(air.up[:, None], *self._departure("up", along_at_up * reach, air.up * reach))
        return Air(along=along[:, 0], up=up[:, 0], rise=rise, smoke=smoke)

    def _departure(self, location: str, right: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
        row, column = self._indices[location]
        return row - above, column - right

    def _push(
        self, along: Tensor, up: Tensor, rise: Tensor, seconds: float
    ) -> tuple[Tensor, Tensor]:
        """Buoyancy and vorticity confinement."""
        right, above = self.confinement(*centred(along, up))
        above = above + GRAVITY / AMBIENT * rise
        return along + seconds * _faces(right, axis=2), up + seconds * _faces(above, axis=1)

    def confinement(self, along: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """ε Δx (N × ω) with N = ∇|ω| / |∇|ω||, at cell centres (m/s²)."""
        spin = (_difference(up, axis=2) - _difference(along, axis=1)) / (2 * self.cell)
        east, north = _difference(spin.abs(), axis=2), _difference(spin.abs(), axis=1)
        scale = CONFINEMENT * self.cell / ((east**2 + north**2).sqrt() + 1e-6)
        return scale * north * spin, -scale * east * spin

    def divergence(self, along: Tensor, up: Tensor) -> Float[Tensor, "run height width"]:
        """1/s, at cell centres."""
        return (along.diff(dim=2) + up.diff(dim=1)) / self.cell

    def project(self, along: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest divergence-free flow with the wind at the left and none through the ground.

        Solves ∇²p = ∇·v in the eigenvectors of the discrete Laplacian (p = 0 one cell beyond the
        open sides), so that only rounding remains of the divergence.
        """
        along = torch.cat([self.wind.expand(-1, self.height, 1), along[:, :, 1:]], dim=2)
        up = torch.cat([torch.zeros_like(up[:, :1]), up[:, 1:]], dim=1)
        modes = self.vertical.T @ self.divergence(along, up) @ self.lateral
        pressure = self.vertical @ (modes / self.rates) @ self.lateral.T
        beyond = functional.pad(pressure, (0, 1, 0, 1)) / self.cell
        along = torch.cat([along[:, :, :1], along[:, :, 1:] - beyond[:, :-1].diff(dim=2)], dim=2)
        up = torch.cat([up[:, :1], up[:, 1:] - beyond[:, :, :-1].diff(dim=1)], dim=1)
        return along, up


def centred(along: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Face velocities averaged to cell centres."""
    return (along[:, :, 1:] + along[:, :, :-1]) / 2, (up[:, 1:] + up[:, :-1]) / 2


def _repeated(centre: Tensor, axis: int) -> Tensor:
    """Centre values with the first and last cell along `axis` twice."""
    first, last = centre.narrow(axis, 0, 1), centre.narrow(axis, -1, 1)
    return torch.cat([first, centre, last], dim=axis)


def _faces(centre: Tensor, *, axis: int) -> Tensor:
    """Centre values averaged to the faces along `axis`; the outermost faces take their cell's."""
    cells = _repeated(centre, axis)
    count = centre.shape[axis] + 1
    return (cells.narrow(axis, 1, count) + cells.narrow(axis, 0, count)) / 2


def _difference(centre: Tensor, *, axis: int) -> Tensor:
    """Next minus previous cell along `axis`; at an edge the cell itself stands in."""
    cells, count = _repeated(centre, axis), centre.shape[axis]
    return cells.narrow(axis, 2, count) - cells.narrow(axis, 0, count)


def _sample(
    fields: Float[Tensor, "run field rows columns"], row: Tensor, column: Tensor
) -> Float[Tensor, "run field to_rows to_columns"]:
    """Bilinear values at fractional rows and columns, held at the edge beyond it."""
    rows, columns = fields.shape[-2:]
    locations = torch.stack([2 * column / (columns - 1) - 1, 2 * row / (rows - 1) - 1], dim=-1)
    return functional.grid_sample(
        fields, locations, mode="bilinear", padding_mode="border", align_corners=True
    )


def _modes(length: int, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors (columns) and eigenvalues of the second difference, closed first, open last."""
    operator = np.diag(np.full(length, -2.0)) + np.diag(np.ones(length - 1), 1)
    operator += np.diag(np.ones(length - 1), -1)
    operator[0, 0] = -1.0  # only prescribed flow through the closed side
    rates, vectors = np.linalg.eigh(operator)
    return torch.as_tensor(vectors).to(like), torch.as_tensor(rates).to(like)


def simulate(
    *,
    heat_release: Sequence[float | int],
    wind: Sequence[float | int],
    seeds: Sequence[Sequence[int]],
    height: int,
    width: int,
    cell: float,
    frames: int,
    step_seconds: float,
    longest_step: float = 0.125,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "run time 4 height width"]:
    """Runs from the moment of ignition: the fields of `CHANNELS`, row 0 at the top.

    Args:
        heat_release: kW per metre of depth, per run.
        wind: m/s, per run.
        seeds: per run; they set the position of the burner, its phase and its flicker.
        height: cells.
        width: cells.
        cell: side of a cell in metres.
        frames: per run; frame t is the state after t + 1 steps.
        step_seconds: between frames.
        longest_step: seconds of a time step at most.
        dtype: of the computation.
    """
    plume = Plume(height=height, width=width, cell=cell, wind=torch.tensor(list(wind), dtype=dtype))
    generators = [np.random.default_rng(list(seed)) for seed in seeds]
    shift = torch.tensor([rng.uniform(-1, 1) for rng in generators], dtype=dtype)
    phase = np.array([rng.uniform(0, 2 * np.pi) for rng in generators])
    shape = burner(height=height, width=width, cell=cell, position=0.25 * width * cell + shift)
    power = torch.tensor(list(heat_release), dtype=dtype)[:, None, None] * shape
    substeps = int(np.ceil(step_seconds / longest_step))
    seconds = step_seconds / substeps
    flicker, memory = np.zeros(len(generators)), np.exp(-seconds / 1.0)
    air, states = plume.still(), []
    with torch.inference_mode():
        for step in range(frames * substeps):
            noise = np.array([rng.standard_normal() for rng in generators])
            flicker = memory * flicker + np.sqrt(1 - memory**2) * 0.1 * noise
            puff = 0.5 * np.sin(2 * np.pi * 1.5 / np.sqrt(BURNER) * step * seconds + phase)
            current = power * torch.as_tensor(1 + puff + flicker).to(dtype)[:, None, None]
            air = plume.step(air, seconds, heating=current / HEAT_CAPACITY, soot=current * SOOT)
            if step % substeps == substeps - 1:
                states.append(
                    torch.stack([air.rise, air.smoke, *centred(air.along, air.up)], dim=1)
                )
        return torch.stack(states, dim=1).flip(-2)


def burner(
    *, height: int, width: int, cell: float, position: Float[Tensor, " run"]
) -> Float[Tensor, "run height width"]:
    """The distribution of heat (1/m², its integral 1): a bell `BURNER` wide and high."""
    up = (torch.arange(height, dtype=position.dtype) + 0.5) * cell
    along = (torch.arange(width, dtype=position.dtype) + 0.5) * cell
    across = torch.exp(-0.5 * ((along - position[:, None]) / (BURNER / 3)) ** 2)
    patch = torch.exp(-0.5 * ((up - STAND) / (BURNER / 3)) ** 2)[:, None] * across[:, None]
    return patch / (patch.sum((1, 2), keepdim=True) * cell**2)
