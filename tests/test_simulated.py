"""The simulated worlds, compared with closed forms and the physics they claim."""

import numpy as np
import pytest
import torch
from records import frames_of, run_names

from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError
from s2kd.data import load
from s2kd.data.readers import readers
from s2kd.data.readers._boussinesq import HEAT_CAPACITY, SOOT, Plume, burner
from s2kd.data.readers._boussinesq import simulate as simulate_plume
from s2kd.data.readers.atmosphere import GRAVITY, Channel, Climate, simulate

HOUR = 3600.0
STILL = Climate(
    jet_speed=0.0,
    jet_days=np.inf,
    temperature_days=np.inf,
    mountain=0.0,
    stirring=0.0,
    damping_hours=np.inf,
)
"""Neither driven nor damped: vorticity and temperature are only advected."""


@pytest.fixture(scope="module")
def channel():
    return Channel(height=24, width=48, climate=STILL)


@pytest.fixture(scope="module")
def world():
    return readers.build("atmosphere", members=3, days=30, spin_up_days=25)


def wave(channel, *, across=2, along=3, amplitude=2e-5):
    """(member, 2, across, along): one sine wave of vorticity, 1 K of temperature of that form."""
    state = np.zeros((1, 2, *channel.laplacian.shape), dtype=np.complex64)
    state[0, :, across - 1, along] = amplitude, 0.5
    return state


def last(states):
    for state in states:
        final = state
    return final


def test_coefficients_and_grid_are_inverse_and_eddies_have_unit_deviation(channel):
    state = channel.eddies(np.random.default_rng(1))
    for basis in (channel.sines, channel.cosines):
        grid = channel.to_grid(state, basis)
        np.testing.assert_allclose(channel.coefficients(grid, basis), state, atol=1e-6)
    assert channel.to_grid(state, channel.sines).std() == pytest.approx(1, abs=1e-5)


def test_a_single_rossby_wave_drifts_at_its_own_speed(channel):
    """An exact solution: it does not advect itself, and drifts west at β / (k² + l²)."""
    start, days = wave(channel), 3
    start[0, 1] = 0
    end = last(simulate(channel, start, frames=4 * days + 1, step_seconds=6 * HOUR))
    speed = channel.beta / channel.laplacian[1, 3]
    turned = channel.d_east[3].imag * speed * days * 24 * HOUR  # radians of phase
    assert abs(turned) > 1  # else the test says nothing
    vorticity = start[0, 0, 1, 3] * np.exp(-1j * turned)
    assert end[0, 0, 1, 3] == pytest.approx(vorticity, abs=2e-3 * 2e-5)
    end[0, 0, 1, 3] = 0
    assert np.abs(end[0, 0]).max() < 1e-3 * 2e-5
    # a northward wind along the temperature gradient, of which there is a quarter of a period
    assert np.abs(end[0, 1]).max() > 0.1


def test_energy_is_kept_where_nothing_drives(channel):
    rng = np.random.default_rng(4)
    start = np.stack([[2e-5 * channel.eddies(rng), 5 * channel.eddies(rng)]]).astype(np.complex64)
    end = last(simulate(channel, start, frames=5, step_seconds=6 * HOUR, longest_step=1800.0))
    weights = np.where(channel.d_east == 0, 1, 2)  # a real field's waves come in pairs
    energies = [(np.abs(s[0, 0]) ** 2 / -channel.laplacian * weights).sum() for s in (start, end)]
    assert np.abs(end - start)[0, 0].max() > 0.05 * np.abs(start[0, 0]).max()
    assert energies[1] == pytest.approx(energies[0], rel=1e-4)


def test_time_stepping_is_of_fourth_order(channel):
    rng = np.random.default_rng(4)
    start = np.stack([[2e-5 * channel.eddies(rng), 5 * channel.eddies(rng)]]).astype(np.complex64)
    ends = [
        last(simulate(channel, start, frames=2, step_seconds=12 * HOUR, longest_step=seconds))
        for seconds in (2 * HOUR, HOUR, HOUR / 2)
    ]
    first, second = np.abs(ends[0] - ends[1])[:, 1].max(), np.abs(ends[1] - ends[2])[:, 1].max()
    assert np.log2(first / second) == pytest.approx(4, abs=0.6)


def test_relaxation_brings_back_jet_and_temperature():
    climate = Climate(
        mountain=0.0, stirring=0.0, damping_hours=np.inf, jet_days=1.0, temperature_days=2.0
    )
    channel = Channel(height=24, width=48, climate=climate)
    start = np.zeros((1, 2, *channel.laplacian.shape), dtype=np.complex64)
    start[0, 1, 0, 0] = 10.0
    end = last(simulate(channel, start, frames=13, step_seconds=6 * HOUR))  # three days
    np.testing.assert_allclose(
        end[0, 0], (1 - np.exp(-3)) * channel.jet, atol=1e-4 * np.abs(channel.jet).max()
    )
    assert end[0, 1, 0, 0] == pytest.approx(10 * np.exp(-1.5), rel=1e-4)


def test_the_jet_is_in_geostrophic_balance():
    channel = Channel(height=48, width=32, climate=Climate())
    state = np.stack([[channel.jet, 0 * channel.jet]])
    height = channel.fields(state)[0, 0, :, 0].astype(np.float64)
    metres = channel.offset[1, 0] - channel.offset[0, 0]
    wind = GRAVITY / channel.coriolis * np.diff(height) / metres  # rows go south
    assert wind.max() == pytest.approx(45, rel=0.05)
    assert np.abs(wind.argmax() - 23) <= 1  # in the middle of the channel
    assert wind[[0, -1]].max() < 5


def test_too_long_a_step_is_refused(channel):
    start = np.repeat(wave(channel, amplitude=1e-3), 2, axis=0)
    start[:, 0, 4, 6] = 1e-3
    with np.errstate(all="ignore"), pytest.raises(S2KDError, match="too fast for steps of 21600 s"):
        last(simulate(channel, start, frames=40, step_seconds=6 * HOUR, longest_step=1e9))


def test_atmosphere_looks_like_one(world):
    assert world.attrs["wraps"]
    assert [variable.attrs["units"] for variable in world.values()] == ["m", "K"]
    assert world.sizes == {"time": 3 * 30 * 4, "row": 32, "column": 64}
    assert world.latitude.values[0] == pytest.approx(70 - 25 / 32)
    assert world.time.values[1] - world.time.values[0] == np.timedelta64(6, "h")
    assert run_names(world) == ["member 0", "member 1", "member 2"]
    mean = world.mean(["time", "column"])
    assert mean.height.values[-3] - mean.height.values[2] > 300  # westerlies
    assert mean.temperature.values[-3] - mean.temperature.values[2] > 20  # a warm south
    eddy = world - world.mean("column")
    assert 40 < float(eddy.height.std()) < 250
    assert 1 < float(eddy.temperature.std()) < 10
    runs = world.height.values.reshape(3, -1)
    assert np.corrcoef(runs).max(initial=0, where=~np.eye(3, dtype=bool)) < 0.995


def test_there_is_motion_to_learn(world):
    """Persistence grows worse with lead; a line through two frames beats it for the height."""
    runs = frames_of(world).reshape(3, -1, 2, 32, 64)
    errors = [
        np.sqrt(((runs[:, lag:] - runs[:, :-lag]) ** 2).mean(axis=(0, 1, 3, 4)))
        for lag in (1, 2, 4, 8, 12)
    ]
    assert (np.diff(errors, axis=0) > 0).all()
    assert (errors[4] > 3 * errors[0]).all()
    line = 2 * runs[:, 1:-1] - runs[:, :-2] - runs[:, 2:]
    still = runs[:, 1:-1] - runs[:, 2:]
    assert (line**2).mean() < 0.3 * (still**2).mean()


def test_waves_drift_east_of_the_stirring(world):
    """The phase of the height's long waves moves with the flow, not at random."""
    waves = np.fft.rfft(world.height.values.reshape(3, -1, 32, 64)[:, :, 12:20].mean(2))[..., 4:8]
    turns = np.angle(waves[:, 1:] / waves[:, :-1])
    assert np.abs(np.median(turns)) < 0.5
    assert (np.abs(turns) < 0.6).mean() > 0.8


@pytest.mark.parametrize("name", ["atmosphere", "plume"])
def test_same_seed_same_bytes(name):
    settings = {
        "atmosphere": {"members": 3, "days": 2, "spin_up_days": 2},
        "plume": {"members": 3, "frames": 4, "height": 16, "width": 24},
    }[name]
    first, second, third = (
        frames_of(readers.build(name, seed=seed, **settings)).tobytes() for seed in (5, 5, 6)
    )
    assert first == second != third


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 31}, "height=31 and width=64 must be even"),
        ({"members": 2}, "2 runs are too few"),
        ({"days": 0}, "days=0 must be positive"),
        ({"step_hours": 5}, "step_hours=5 divide 24"),
    ],
)
def test_atmosphere_refuses(settings, message):
    with pytest.raises(S2KDError, match=message):
        readers.build("atmosphere", **settings)


def test_blobs_move_by_their_wind_and_keep_their_shape():
    record = readers.build("blobs", runs=3, length=20)
    assert record.attrs["wraps"]
    frames = frames_of(record).reshape(3, 20, 16, 16).astype(float)
    np.testing.assert_allclose(frames.sum((2, 3)), frames.sum((2, 3))[:, :1].repeat(20, 1), 1e-2)
    waves = np.fft.fft2(frames)[:, :, 1, 1]  # one wind: each phase turns evenly
    turns = np.angle(waves[:, 1:] / waves[:, :-1])
    np.testing.assert_allclose(turns, turns[:, :1].repeat(19, 1), atol=2e-2)
    assert np.abs(turns).max() > 0.05
    with pytest.raises(S2KDError, match="2 runs are too few"):
        readers.build("blobs", runs=2)


SCENE = {"height": 32, "width": 64, "cell": 0.25, "step_seconds": 0.25}


def smoke_centre(fields):
    """(run, time) mean height above the ground and distance from the left (m) of the smoke."""
    smoke = fields[:, :, 1].double()
    mass = smoke.sum((2, 3))
    up = (torch.arange(32).flip(0) + 0.5) * 0.25
    along = (torch.arange(64) + 0.5) * 0.25
    return (
        (smoke.sum(3) * up).sum(2) / mass,
        (smoke.sum(2) * along).sum(2) / mass,
    )


def test_projection_leaves_no_divergence_and_only_once():
    wind = torch.tensor([0.5, 1.5], dtype=torch.float64)
    plume = Plume(height=12, width=20, cell=0.25, wind=wind)
    generator = torch.Generator().manual_seed(0)
    along = torch.randn(2, 12, 21, generator=generator, dtype=torch.float64)
    up = torch.randn(2, 13, 20, generator=generator, dtype=torch.float64)
    flow = plume.project(along, up)
    assert plume.divergence(along, up).abs().max() > 1
    assert plume.divergence(*flow).abs().max() < 1e-12
    torch.testing.assert_close(flow[0][:, :, 0], wind[:, None].expand(2, 12))
    assert (flow[1][:, 0] == 0).all()
    torch.testing.assert_close(plume.project(*flow), flow)


def test_air_stays_divergence_free_with_a_fire_in_it():
    wind = torch.tensor([1.0])
    plume = Plume(height=16, width=24, cell=0.25, wind=wind)
    shape = burner(height=16, width=24, cell=0.25, position=torch.tensor([2.0]))
    assert float(shape.sum()) * 0.25**2 == pytest.approx(1)
    air = plume.still()
    for _ in range(20):
        air = plume.step(air, 0.1, heating=200 * shape, soot=shape)
    assert air.up.abs().max() > 0.5
    assert plume.divergence(air.along, air.up).abs().max() < 1e-4


def test_wind_carries_smoke_at_its_own_speed():
    wind = torch.tensor([0.5], dtype=torch.float64)
    plume = Plume(height=16, width=32, cell=0.25, wind=wind)
    air = plume.still()
    air.smoke[0, 8, 6] = 1.0
    for _ in range(20):
        air = plume.advect(air, 0.2)
    along = (torch.arange(32) + 0.5) * 0.25
    assert float(air.smoke.sum()) == pytest.approx(1, abs=1e-6)
    centre = float((air.smoke[0].sum(0) * along).sum())
    assert centre == pytest.approx(6.5 * 0.25 + 0.5 * 20 * 0.2, abs=1e-6)


def test_plume_rises_leans_and_climbs_faster_when_hotter():
    fields = simulate_plume(
        heat_release=[100, 400, 100], wind=[0.5, 0.5, 1.5], seeds=[[7]] * 3, frames=14, **SCENE
    )
    height, along = smoke_centre(fields)
    assert (height[0].diff() > 0).all()
    assert height[1, 9] > height[0, 9] + 0.5  # hotter, faster
    assert along[2, 9] > along[0, 9] + 0.5  # more wind, further
    assert fields[:, :, 0].min() >= 0
    # the excess of the first second is the heat of the burner less what cooled away
    gained = fields[0, 3, 0].sum() * 0.25**2 * HEAT_CAPACITY
    assert 100 * 0.4 < float(gained) < 100 * 1.5
    # four times the heat, four times the soot, but for what interpolating gains or loses
    assert float(fields[1, 3, 1].sum() / fields[0, 3, 1].sum()) == pytest.approx(4, rel=0.1)


def test_smoke_weighs_what_the_burner_gave():
    fields = simulate_plume(heat_release=[300], wind=[0.5], seeds=[[1]], frames=6, **SCENE)
    mass = fields[0, :, 1].sum((1, 2)) * 0.25**2
    emitted = 300 * SOOT * 0.25 * torch.arange(1, 7)
    torch.testing.assert_close(mass, emitted, rtol=0.5, atol=0)  # it puffs, so not exactly
    assert float(mass[-1] / emitted[-1]) == pytest.approx(1, abs=0.15)


@pytest.fixture(scope="module")
def fires():
    params = {"members": 3, "frames": 10, "height": 16, "width": 24, "velocities": True}
    return load(Part(name="plume", params=params))


def test_unseen_environments_are_never_trained_on(fires):
    names = {split: [s.name for s in stretches] for split, stretches in fires.splits.items()}
    trained = ["100 kW/m, 0.5 m/s", "100 kW/m, 1 m/s", "200 kW/m, 0.5 m/s", "200 kW/m, 1 m/s"]
    assert names["train"] == names["val"] == names["test"] == trained
    assert names["test_unseen"] == [
        "400 kW/m, 0.5 m/s",
        "400 kW/m, 1 m/s",
        "100 kW/m, 1.5 m/s",
        "200 kW/m, 1.5 m/s",
    ]
    covered = np.zeros(len(fires.frames), dtype=int)
    for stretches in fires.splits.values():
        for stretch in stretches:
            covered[stretch.first : stretch.stop] += 1
    assert (covered == 1).all()


def test_plume_has_the_ground_below(fires):
    assert fires.grid.channels == (
        "temperature_rise",
        "smoke",
        "horizontal_velocity",
        "vertical_velocity",
    )
    assert not fires.grid.wraps
    hot = fires.frames[:, 0].mean((0, 2))
    assert hot.argmax() > 8  # the burner stands in the lower half, and row 0 is the top
    assert fires.times[9] - fires.times[0] == np.timedelta64(2250, "ms")
    assert fires.frames[9][2, :, 0].mean() == pytest.approx(0.5, abs=0.1)  # the wind


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heat_release": []}, r"got \(heat release, wind\) \(\)"),
        ({"wind": [-1.0]}, r"wind not negative.*\(100, -1.0\)"),
        (
            {"unseen_wind": [0.5]},
            r"both seen and unseen; .*\(100, 0.5\).* unseen .*\(100, 0.5\)",
        ),
        ({"members": 2}, "2 runs are too few"),
        ({"height": 4}, "height=4"),
    ],
)
def test_plume_refuses(settings, message):
    with pytest.raises(S2KDError, match=message):
        readers.build("plume", **settings)
