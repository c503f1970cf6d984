"""The barotropic vorticity equation with a temperature tracer.

On the rotating sphere absolute vorticity is carried by the wind it makes itself; the flow is
drawn towards two mid-latitude jets sharp enough to be unstable, so that meanders grow, break and
drift as Rossby waves do: eastward with the flow, slower the longer they are. Two mountain ranges
hold standing waves in place. Temperature is carried along and drawn back to a warm equator and
cold poles. Nothing is random but the first day and a weak stirring, so a few past frames hold
nearly all that decides the days to come.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Float

from s2kd.core.types import S2KDError
from s2kd.data._sphere import Coefficients, Gridded, Sphere

RADIUS = 6.371e6
ROTATION = 7.292e-5
GRAVITY = 9.81
DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Climate:
    """What drives and what damps the flow.

    Speeds in m/s, angles in degrees, times in days; a relaxation time of infinity switches that
    relaxation off. `mountain` is the height of the ranges over the depth of the atmosphere,
    `stirring` the standard deviation of random vorticity tendency in units of 1e-11 1/s² with a
    memory of two days, `damping_hours` the e-folding time of the smallest wave.
    """

    jet_speed: float = 80.0
    jet_latitude: float = 42.0
    jet_width: float = 9.0
    jet_days: float = 8.0
    warmest: float = 300.0
    equator_to_pole: float = 60.0
    temperature_days: float = 15.0
    mountain: float = 0.15
    stirring: float = 4.0
    damping_hours: float = 3.0
    mean_height: float = 5500.0


STILL = Climate(
    jet_speed=0.0,
    jet_days=np.inf,
    temperature_days=np.inf,
    mountain=0.0,
    stirring=0.0,
    damping_hours=np.inf,
)
"""Neither driven nor damped: vorticity and temperature are only carried."""


class Flow:
    """Members side by side, stepped together by the classical fourth-order Runge-Kutta method.

    The state is coefficients with two fields a member: first every member's relative vorticity
    (1/s), then every member's temperature (K).
    """

    def __init__(self, sphere: Sphere, climate: Climate) -> None:
        self.sphere, self.climate = sphere, climate
        sine = sphere.sine[:, None]
        latitude = np.degrees(np.arcsin(sine))
        width = sphere.to_longitude.shape[0]
        longitude = 360 * np.arange(width)[:, None, None] / width
        self.coriolis = 2 * ROTATION * sine * np.ones_like(longitude)
        ranges = _range(longitude, latitude, east=255.0, north=45.0) + _range(
            longitude, latitude, east=85.0, north=35.0
        )
        dtype = sine.dtype
        self.planetary = (self.coriolis * (1 + climate.mountain * ranges)).astype(dtype)
        jet = climate.jet_speed * np.exp(
            -(((np.abs(latitude) - climate.jet_latitude) / climate.jet_width) ** 2)
        )
        along = (jet * np.sqrt(1 - sine**2) * np.ones_like(longitude)).astype(dtype)
        self.jet = -sphere.divergence(np.zeros_like(along), along) / RADIUS
        warm = climate.warmest - climate.equator_to_pole * sine**2 * np.ones_like(longitude)
        self.warm = sphere.from_grid(warm.astype(dtype))

    def wind(self, vorticity: Coefficients) -> tuple[Gridded, Gridded]:
        """Eastward and northward wind (m/s) times cos φ."""
        stream = vorticity * (self.sphere.inverse_laplacian * RADIUS)
        return -self.sphere.slope(stream), self.sphere.to_grid(self.sphere.eastward(stream))

    def tendency(self, state: Coefficients) -> Coefficients:
        """−∇·(v q) of absolute vorticity and of temperature, a second."""
        members = state.shape[-1] // 2
        east, north = self.wind(state[..., :members])
        carried = self.sphere.to_grid(state)
        carried[..., :members] += self.planetary
        flux = [
            (wind[:, :, None] * carried.reshape(*wind.shape[:2], 2, members)).reshape(carried.shape)
            for wind in (east, north)
        ]
        return self.sphere.divergence(*flux) * state.dtype.type(-1 / RADIUS)

    def step(self, state: Coefficients, seconds: float) -> Coefficients:
        """The state `seconds` later, carried only."""
        dt = state.dtype.type(seconds)
        one = self.tendency(state)
        two = self.tendency(state + dt / 2 * one)
        three = self.tendency(state + dt / 2 * two)
        four = self.tendency(state + dt * three)
        return state + dt / 6 * (one + 2 * (two + three) + four)

    def heights(self, vorticity: Coefficients) -> Gridded:
        """Height (m) of a pressure surface in balance with the wind.

        Linear balance equation, ∇²Φ = ∇·(f ∇ψ) = f ζ − 2Ω u cos φ / a (Lorenz 1960).
        """
        east, _ = self.wind(vorticity)
        right = self.coriolis * self.sphere.to_grid(vorticity) - 2 * ROTATION / RADIUS * east
        geopotential = self.sphere.inverse_laplacian * self.sphere.from_grid(
            right.astype(vorticity.dtype)
        )
        above = self.sphere.to_grid(geopotential) * (RADIUS**2 / GRAVITY)
        return above + self.climate.mean_height


def _range(longitude: np.ndarray, latitude: np.ndarray, *, east: float, north: float) -> np.ndarray:
    """A mountain range of height 1, 15° by 12° (standard deviations)."""
    across = (longitude - east + 180) % 360 - 180
    return np.exp(-0.5 * ((across / 15) ** 2 + ((latitude - north) / 12) ** 2))


def eddies(sphere: Sphere, rng: np.random.Generator) -> Coefficients:
    """Random coefficients of waves 4 ≤ n ≤ 12, m ≥ 2: one field of unit standard deviation."""
    m = np.arange(sphere.truncation + 1)
    band = (m[:, None] >= 2) & (m[:, None] <= m) & (m >= 4) & (m <= 12)
    drawn = rng.standard_normal((len(m), 2, len(m), 1)) * band[:, None, :, None]
    # the mean square over the sphere of sum c P e^(imλ) is half the sum of |c|², twice for m > 0
    size = np.sqrt((drawn**2).sum())
    return (drawn / size).astype(sphere.sine.dtype)


def simulate(
    sphere: Sphere,
    climate: Climate,
    state: Coefficients,
    *,
    frames: int,
    step_seconds: float,
    longest_step: float = 7200.0,
    generators: Sequence[np.random.Generator] = (),
) -> Iterator[Coefficients]:
    """States at 0, step, 2·step, …; `generators` stir, one a member (none where stirring is 0).

    Raises `S2KDError` where the flow becomes too fast for the time step.
    """
    flow = Flow(sphere, climate)
    members = state.shape[-1] // 2
    substeps = int(np.ceil(step_seconds / longest_step))
    seconds = step_seconds / substeps
    target = np.concatenate(
        [np.repeat(flow.jet, members, -1), np.repeat(flow.warm, members, -1)], axis=-1
    )
    days = np.repeat([climate.jet_days, climate.temperature_days], members)
    smallest = sphere.laplacian[-1]
    hours = climate.damping_hours * 3600
    keep = np.exp(-seconds * ((sphere.laplacian / smallest) ** 4 / hours + 1 / (days * DAY)))
    pull = 1 - np.exp(-seconds / (days * DAY))
    keep, drawn = keep.astype(state.dtype), (target * pull).astype(state.dtype)
    memory = np.exp(-seconds / (2 * DAY))
    fresh = np.sqrt(1 - memory**2) * climate.stirring * 1e-11
    push = np.zeros_like(state[..., :members])
    for frame in range(frames):
        yield state
        if frame == frames - 1:
            return
        for _ in range(substeps):
            state = keep * flow.step(state, seconds) + drawn
            if climate.stirring:
                new = np.concatenate([eddies(sphere, rng) for rng in generators], axis=-1)
                push = (memory * push + fresh * new).astype(state.dtype)
                state[..., :members] += state.dtype.type(seconds) * push
        if not np.isfinite(state).all():
            raise S2KDError(
                f"atmosphere: the flow became too fast for steps of {seconds:.0f} s; "
                "lower step_hours or truncation"
            )


def run(
    sphere: Sphere,
    climate: Climate,
    *,
    members: int,
    seed: int,
    skip: int,
    frames: int,
    step_seconds: float,
) -> Float[np.ndarray, "member time 2 latitude longitude"]:
    """Heights and temperatures after `skip` frames, north first, float32."""
    generators = [np.random.default_rng([seed, k]) for k in range(members)]
    flow = Flow(sphere, climate)
    start = np.concatenate(
        [flow.jet + np.float32(1e-5) * eddies(sphere, rng) for rng in generators]
        + [np.repeat(flow.warm, members, -1)],
        axis=-1,
    )
    fields = np.empty((members, frames, 2, len(sphere.sine), len(sphere.to_longitude)), np.float32)
    states = simulate(
        sphere,
        climate,
        start,
        frames=skip + frames,
        step_seconds=step_seconds,
        generators=generators,
    )
    for frame, state in enumerate(islice(states, skip, None)):
        fields[:, frame, 0] = flow.heights(state[..., :members]).transpose(2, 1, 0)[:, ::-1]
        temperature = sphere.to_grid(state[..., members:])
        fields[:, frame, 1] = temperature.transpose(2, 1, 0)[:, ::-1]
    return fields
