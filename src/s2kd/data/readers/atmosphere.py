"""A simulated atmosphere: an unstable jet and a temperature field in a periodic channel.

The barotropic vorticity equation on a mid-latitude β-plane, spectral by FFT (Orszag 1971, two
thirds of the waves kept). The flow relaxes towards a westerly jet sharp enough to be unstable, so
that meanders grow, break and drift as Rossby waves do; two mountain ranges hold standing waves in
place. Temperature is advected and relaxes to a warm south and a cold north. Apart from the first
day and weak stirring nothing is random, so a few past frames hold most of what decides the future.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Complex, Float

from s2kd.core.types import S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._record import member_splits, per_frame, record

if TYPE_CHECKING:
    import xarray as xr

RADIUS = 6.371e6
ROTATION = 7.292e-5
GRAVITY = 9.81
DAY = 86400.0
SOUTH, NORTH = 20.0, 70.0
"""Degrees of latitude of the walls; the β-plane touches the sphere half-way between them."""
STIRRED = (6, 9)
"""Waves across and along the channel up to which random stirring acts."""

State = Complex[np.ndarray, "member 2 across along"]
"""Coefficients of relative vorticity (1/s) and of temperature (K) less its equilibrium."""


@dataclass(frozen=True, kw_only=True)
class Climate:
    """Forcing and damping of the flow.

    Speeds in m/s, angles in degrees, times in days; a relaxation time of infinity switches that
    relaxation off. `mountain` is the height of the ranges over the depth of the atmosphere,
    `stirring` the standard deviation of random vorticity tendency in units of 1e-11 1/s² with a
    memory of two days, `damping_hours` the e-folding time of the smallest wave.
    """

    jet_speed: float = 45.0
    jet_width: float = 8.0
    jet_days: float = 8.0
    warmest: float = 295.0
    coldest: float = 260.0
    temperature_days: float = 15.0
    mountain: float = 0.15
    stirring: float = 4.0
    damping_hours: float = 3.0
    mean_height: float = 5500.0


class Channel:
    """The equations on a grid of `height` rows from south to north and `width` columns.

    Between free-slip walls, vorticity, temperature and northward wind are sums of sines across the
    channel, the eastward wind is its mean and a sum of cosines; along the channel all are Fourier
    series. The last two axes of coefficients are numbered so.
    """

    def __init__(self, *, height: int, width: int, climate: Climate) -> None:
        self.width, self.climate = width, climate
        middle = np.radians((SOUTH + NORTH) / 2)
        breadth = RADIUS * np.radians(NORTH - SOUTH)
        self.coriolis = 2 * ROTATION * np.sin(middle)
        self.beta = np.float32(2 * ROTATION * np.cos(middle) / RADIUS)
        across = np.pi / breadth * np.arange(1, (2 * height - 1) // 3 + 1)
        along = np.arange((width - 1) // 3 + 1) / (RADIUS * np.cos(middle))
        self.across = across[:, None].astype(np.float32)
        self.d_east = (1j * along).astype(np.complex64)
        self.laplacian = -(across[:, None] ** 2 + along**2).astype(np.float32)
        north = (np.arange(height) + 0.5) / height * breadth
        self.sines = np.sin(np.outer(north, across)).astype(np.complex64)
        self.cosines = np.cos(np.outer(north, across)).astype(np.complex64)
        self.offset = (north - breadth / 2)[:, None]
        jet = climate.jet_speed * np.exp(
            -((self.offset / (RADIUS * np.radians(climate.jet_width))) ** 2)
        )
        self.mean_wind = np.float32(jet.mean())
        self.jet = self.across * self.coefficients(jet * np.ones(width), self.cosines)
        self.gradient = np.float32((climate.coldest - climate.warmest) / breadth)
        ranges = self.coriolis * climate.mountain * _ranges(height, width)
        self.mountains = ranges.astype(np.float32)

    def coefficients(self, grid: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Of fields (..., height, width) in `sines` or `cosines`, unresolved waves left out."""
        from scipy import fft

        waves = fft.rfft(grid.astype(np.float32, copy=False), norm="forward")
        return np.complex64(2 / len(basis)) * basis.T @ waves[..., : len(self.d_east)]

    def to_grid(self, coefficients: np.ndarray, basis: np.ndarray) -> np.ndarray:
        """Fields (..., height, width) of coefficients in `sines` or `cosines`."""
        from scipy import fft

        return fft.irfft(basis @ coefficients, n=self.width, norm="forward")

    def tendency(self, state: State) -> State:
        """Of vorticity and temperature by advection, per second."""
        stream = state[:, :1] / self.laplacian
        northward = self.d_east * stream
        east = self.to_grid(-self.across * stream, self.cosines) + self.mean_wind
        grid = self.to_grid(np.concatenate([northward, state], axis=1), self.sines)
        north, carried = grid[:, :1], grid[:, 1:]
        carried[:, 0] += self.mountains
        change = self.across * self.coefficients(north * carried, self.cosines)
        change -= self.d_east * self.coefficients(east * carried, self.sines)
        change[:, 0] -= self.beta * northward[:, 0]
        change[:, 1] -= self.gradient * northward[:, 0]
        return change

    def step(self, state: State, seconds: float) -> State:
        """The state `seconds` later by advection, in fourth-order Runge-Kutta form."""
        first = self.tendency(state)
        second = self.tendency(state + seconds / 2 * first)
        third = self.tendency(state + seconds / 2 * second)
        fourth = self.tendency(state + seconds * third)
        return state + seconds / 6 * (first + 2 * (second + third) + fourth)

    def fields(self, state: State) -> Float[np.ndarray, "member 2 height width"]:
        """Height (m) in geostrophic balance with the wind, and temperature (K), north first."""
        stream = self.to_grid(state[:, 0] / self.laplacian, self.sines)
        height = self.coriolis / GRAVITY * (stream - self.mean_wind * self.offset)
        mean = (self.climate.warmest + self.climate.coldest) / 2
        temperature = self.to_grid(state[:, 1], self.sines) + mean + self.gradient * self.offset
        channels = np.stack([height + self.climate.mean_height, temperature], axis=1)
        return channels[:, :, ::-1].astype(np.float32)

    def eddies(self, generator: np.random.Generator) -> np.ndarray:
        """Coefficients of a random field of unit standard deviation, in the `STIRRED` waves."""
        rows, waves = STIRRED
        draws = generator.standard_normal((2, rows, waves - 1))
        coefficients = np.zeros(self.laplacian.shape, dtype=np.complex64)
        # the mean square of Σ c sin(ky) exp(imx) with m > 0 is Σ |c|²
        coefficients[:rows, 2 : waves + 1] = (draws[0] + 1j * draws[1]) / np.sqrt((draws**2).sum())
        return coefficients


def _ranges(height: int, width: int) -> Float[np.ndarray, "height width"]:
    """Two mountain ranges of height 1, 15° by 8° (standard deviations)."""
    latitude = SOUTH + (np.arange(height)[:, None] + 0.5) / height * (NORTH - SOUTH)
    longitude = 360 * np.arange(width) / width
    total = np.zeros((height, width))
    for east, north in ((255.0, 47.0), (85.0, 40.0)):
        distance = (longitude - east + 180) % 360 - 180
        total += np.exp(-0.5 * ((distance / 15) ** 2 + ((latitude - north) / 8) ** 2))
    return total


def simulate(
    channel: Channel,
    state: State,
    *,
    frames: int,
    step_seconds: float,
    generators: Sequence[np.random.Generator] = (),
    longest_step: float = 7200.0,
) -> Iterator[State]:
    """States at 0, step, 2 · step and so on; `generators`, one per member, stir.

    Raises `S2KDError` where the flow becomes too fast for the time step.
    """
    climate = channel.climate
    substeps = int(np.ceil(step_seconds / longest_step))
    seconds = step_seconds / substeps
    days = np.array([climate.jet_days, climate.temperature_days])[:, None, None]
    damping = (channel.laplacian / channel.laplacian.min()) ** 2 / (climate.damping_hours * 3600)
    decay = np.exp(-seconds * (damping + 1 / (days * DAY))).astype(np.float32)
    target = np.stack([channel.jet, 0 * channel.jet])
    target *= (1 - np.exp(-seconds / (days * DAY))).astype(np.float32)
    memory = np.exp(-seconds / (2 * DAY))
    strength = np.sqrt(1 - memory**2) * climate.stirring * 1e-11
    push = np.zeros_like(state[:, 0])
    for frame in range(frames):
        yield state
        for _ in range(substeps if frame < frames - 1 else 0):
            state = decay * channel.step(state, seconds) + target
            if climate.stirring:
                noise = np.stack([channel.eddies(generator) for generator in generators])
                push = np.float32(memory) * push + np.float32(strength) * noise
                state[:, 0] += seconds * push
        if not np.isfinite(state).all():
            raise S2KDError(
                f"atmosphere: the flow became too fast for steps of {seconds:.0f} s; "
                "lower step_hours, height or width"
            )


@readers.register("atmosphere")
def atmosphere(
    *,
    members: int = 6,
    days: int = 50,
    spin_up_days: int = 30,
    seed: int = 0,
    height: int = 32,
    width: int = 64,
    step_hours: int = 6,
) -> "xr.Dataset":
    """Height (m) and temperature (K) in a channel round the globe: `members` runs.

    The clock of member k starts on 1 January of year 2001 + k; there are no seasons and no days
    and nights.

    Args:
        members: runs that differ in the waves of their first day and in their stirring: the last is
            the test split, the one before it the val split.
        days: length of a run.
        spin_up_days: left out before it, in which a run forgets its first day.
        seed: of the first days and of the stirring.
        height: rows, from 70° to 20° north.
        width: columns, from 0° east.
        step_hours: between frames.

    Raises:
        S2KDError: odd or too few rows and columns, too few members, or a run without frames.
    """
    labels = member_splits("atmosphere", members)
    if days < 1 or spin_up_days < 0 or step_hours < 1 or 24 % step_hours:
        raise S2KDError(
            f"atmosphere: days={days} must be positive, spin_up_days={spin_up_days} not negative, "
            f"and step_hours={step_hours} divide 24"
        )
    if height % 2 or width % 2 or height < 16 or width < 32:
        raise S2KDError(
            f"atmosphere: height={height} and width={width} must be even, and at least 16 and 32"
        )
    channel = Channel(height=height, width=width, climate=Climate())
    generators = [np.random.default_rng([seed, member]) for member in range(members)]
    start = np.zeros((members, 2, *channel.laplacian.shape), dtype=np.complex64)
    start[:, 0] = [channel.jet + 1e-5 * channel.eddies(generator) for generator in generators]
    per_day = 24 // step_hours
    length, skip = days * per_day, spin_up_days * per_day
    states = simulate(
        channel,
        start,
        frames=skip + length,
        step_seconds=step_hours * 3600.0,
        generators=generators,
    )
    fields = np.stack(
        [channel.fields(state) for number, state in enumerate(states) if number >= skip], axis=1
    )
    hours = np.arange(length) * np.timedelta64(step_hours, "h")
    rows = NORTH - (np.arange(height) + 0.5) / height * (NORTH - SOUTH)
    return record(
        fields.reshape(-1, 2, height, width),
        channels=("height", "temperature"),
        units=("m", "K"),
        times=np.concatenate([np.datetime64(f"{2001 + k}-01-01") + hours for k in range(members)]),
        coords={
            "latitude": ("row", rows),
            "longitude": ("column", 360 * np.arange(width) / width),
            "run": per_frame([f"member {number}" for number in range(members)], length),
            "split": per_frame(labels, length),
        },
        name="atmosphere",
        domain="weather",
        source="simulated: barotropic vorticity equation with a temperature tracer",
        step_seconds=step_hours * 3600.0,
        wraps=1,
    )
