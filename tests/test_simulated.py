"""The simulated worlds, held against closed forms and the physics they claim."""

import numpy as np
import pytest
import torch
import worlds
from scipy.special import lpmv

from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data._barotropic import (
    GRAVITY,
    RADIUS,
    ROTATION,
    STILL,
    Climate,
    Flow,
    eddies,
    simulate,
)
from s2kd.data._boussinesq import HEAT_CAPACITY, SOOT, Plume, burner
from s2kd.data._boussinesq import simulate as simulate_plume
from s2kd.data._sphere import Sphere, legendre

HOUR = 3600.0


@pytest.fixture(scope="module")
def sphere():
    return Sphere.make(height=32, width=64, truncation=21)


@pytest.fixture(scope="module")
def world():
    return datasets.build("atmosphere", members=3, days=30, spin_up_days=25)


def places(sphere):
    """Longitude (64, 1, 1) and latitude (32, 1) in radians."""
    return 2 * np.pi * np.arange(64)[:, None, None] / 64, np.arcsin(sphere.sine)[:, None]


def test_legendre_functions_are_scipys(sphere):
    p = legendre(21, sphere.sine)
    for m, n in ((0, 0), (0, 1), (3, 3), (2, 9), (21, 21), (5, 22)):
        ours = p[m, n] / np.abs(p[m, n]).max()
        theirs = lpmv(m, n, sphere.sine)
        np.testing.assert_allclose(ours, theirs / np.abs(theirs).max(), atol=1e-11)
        degree = np.polynomial.legendre.leggauss(60)
        unit = legendre(21, degree[0])[m, n]
        assert (unit**2 * degree[1]).sum() == pytest.approx(1, abs=1e-12)


def test_transform_round_trip(sphere):
    rng = np.random.default_rng(1)
    m = np.arange(22)
    there = rng.normal(size=(22, 2, 22, 3)) * (m[:, None] <= m)[:, None, :, None]
    there[0, 1] = 0  # a real field's zonal mean has no imaginary part
    np.testing.assert_allclose(sphere.from_grid(sphere.to_grid(there)), there, atol=1e-10)


def test_derivatives_of_a_harmonic_by_hand(sphere):
    east, north = places(sphere)
    cosine, sine = np.cos(north), np.sin(north)
    c = sphere.from_grid(cosine**3 * sine * np.cos(3 * east))
    slope = cosine * (cosine**4 - 3 * cosine**2 * sine**2) * np.cos(3 * east)
    np.testing.assert_allclose(sphere.slope(c), slope, atol=1e-12)
    along = -3 * cosine**3 * sine * np.sin(3 * east)
    np.testing.assert_allclose(sphere.to_grid(sphere.eastward(c)), along, atol=1e-12)
    # cos³φ sin φ cos 3λ has degree 4, so that its Laplacian is −20 times itself
    np.testing.assert_allclose(sphere.laplacian * c, -20 * c, atol=1e-12)


def test_divergence_of_a_gradient_is_the_laplacian(sphere):
    rng = np.random.default_rng(2)
    c = eddies(sphere, rng)
    east, north = sphere.to_grid(sphere.eastward(c)), sphere.slope(c)
    np.testing.assert_allclose(sphere.divergence(east, north), sphere.laplacian * c, atol=1e-11)


def test_eddies_have_unit_deviation(sphere):
    field = sphere.to_grid(eddies(sphere, np.random.default_rng(3)))[..., 0]
    square = (field**2 * sphere.weights).mean(0).sum() / 2
    assert np.sqrt(square) == pytest.approx(1, abs=1e-12)


def haurwitz(sphere, *, waves=4, spin=7.848e-6, amplitude=7.848e-6):
    """Vorticity of the Rossby-Haurwitz wave of Williamson et al. (1992), test 6 (1/s)."""
    east, north = places(sphere)
    n = waves + 1
    swirl = amplitude * np.cos(north) ** waves * np.sin(north) * np.cos(waves * east)
    return sphere.from_grid(2 * spin * np.sin(north) - n * (n + 1) * swirl)


def last(states):
    for state in states:
        kept = state
    return kept


def test_rossby_haurwitz_wave_drifts_at_its_own_speed(sphere):
    """An exact solution: the wave keeps its shape and turns at Haurwitz's (1940) rate."""
    waves, spin, days = 4, 7.848e-6, 5
    start = np.concatenate([haurwitz(sphere), np.zeros((22, 2, 22, 1))], axis=-1)
    end = last(simulate(sphere, STILL, start, frames=days * 4 + 1, step_seconds=6 * HOUR))
    rate = (waves * (3 + waves) * spin - 2 * ROTATION) / ((1 + waves) * (2 + waves))
    turned = waves * rate * days * 24 * HOUR  # radians of phase
    expected = start.copy()
    re, im = start[waves, 0], start[waves, 1]
    expected[waves, 0] = re * np.cos(turned) + im * np.sin(turned)
    expected[waves, 1] = im * np.cos(turned) - re * np.sin(turned)
    assert abs(turned) > 1  # the test would be empty for a wave that stands still
    np.testing.assert_allclose(end, expected, atol=2e-3 * np.abs(start).max())


def test_time_stepping_is_of_fourth_order(sphere):
    rng = np.random.default_rng(4)
    wave = haurwitz(sphere) + 1e-5 * eddies(sphere, rng)
    start = np.concatenate([wave, 10 * eddies(sphere, rng)], axis=-1)
    ends = [
        last(simulate(sphere, STILL, start, frames=2, step_seconds=12 * HOUR, longest_step=dt))
        for dt in (HOUR, HOUR / 2, HOUR / 4)
    ]
    first, second = np.abs(ends[0] - ends[1]).max(), np.abs(ends[1] - ends[2]).max()
    assert np.log2(first / second) == pytest.approx(4, abs=0.3)


def test_solid_rotation_is_balanced_and_carries_the_tracer(sphere):
    east, north = places(sphere)
    turning = 2e-6  # rad/s, eastward
    spot = np.cos(north) ** 2 * np.cos(2 * east)
    start = sphere.from_grid(
        np.concatenate([2 * turning * np.sin(north) + 0 * east, spot], axis=-1)
    )
    flow = Flow(sphere, STILL)
    eastward, northward = flow.wind(start[..., :1])
    np.testing.assert_allclose(eastward, RADIUS * turning * np.cos(north) ** 2 + 0 * east)
    assert np.abs(northward).max() < 1e-9
    # a dΦ/dφ = −f u integrated by hand; the sphere's mean of sin² is one third
    above = -(RADIUS**2) * ROTATION * turning * (np.sin(north) ** 2 - 1 / 3) / GRAVITY
    np.testing.assert_allclose(
        flow.heights(start[..., :1]), above + STILL.mean_height + 0 * east, rtol=1e-12
    )
    end = last(simulate(sphere, STILL, start, frames=5, step_seconds=6 * HOUR))
    moved = np.cos(north) ** 2 * np.cos(2 * (east - turning * 24 * HOUR))
    np.testing.assert_allclose(sphere.to_grid(end[..., 1:]), moved, atol=1e-6)


def test_relaxation_brings_back_jet_and_temperature(sphere):
    calm = Climate(
        mountain=0.0, stirring=0.0, damping_hours=np.inf, jet_days=1.0, temperature_days=2.0
    )
    flow = Flow(sphere, calm)
    start = np.concatenate([0 * flow.jet, flow.warm + 0], axis=-1)
    start[0, 0, 0, 1] += 10.0
    end = last(simulate(sphere, calm, start, frames=13, step_seconds=6 * HOUR))  # three days
    np.testing.assert_allclose(
        end[..., :1], (1 - np.exp(-3)) * flow.jet, atol=1e-9 * np.abs(flow.jet).max()
    )
    assert (end - start)[0, 0, 0, 1] == pytest.approx(-10 * (1 - np.exp(-1.5)))


def test_too_long_a_step_is_refused(sphere):
    start = np.repeat(haurwitz(sphere, amplitude=1e-3), 2, axis=-1)
    with np.errstate(all="ignore"), pytest.raises(S2KDError, match="too fast for steps of 21600 s"):
        last(simulate(sphere, STILL, start, frames=40, step_seconds=6 * HOUR, longest_step=1e9))


def test_atmosphere_looks_like_one(world):
    grid = world.grid
    assert grid.wraps
    assert grid.units == ("m", "K")
    assert grid.latitude[0] == pytest.approx(85.76, abs=0.01)
    assert world.frames.shape == (3 * 30 * 4, 2, 32, 64)
    assert world.times[1] - world.times[0] == np.timedelta64(6, "h")
    mean = world.frames.mean(axis=(0, 3))
    latitude = np.radians(grid.latitude)
    northward = np.gradient(mean[0], latitude * RADIUS)
    wind = -GRAVITY * northward / (2 * ROTATION * np.sin(latitude))
    jets = (np.abs(np.degrees(latitude)) > 35) & (np.abs(np.degrees(latitude)) < 50)
    assert wind[jets].min() > 10  # westerly, m/s, in both hemispheres
    assert wind[jets].max() < 80
    assert mean[1][[15, 16]].mean() - mean[1][[0, 31]].mean() > 30  # warm equator, cold poles
    eddy = (world.frames - world.frames.mean(axis=3, keepdims=True)).std(axis=(0, 2, 3))
    assert 40 < eddy[0] < 200
    assert 1 < eddy[1] < 10


def test_each_row_and_column_lies_where_the_grid_says(sphere):
    world = datasets.build("atmosphere", members=3, days=1, spin_up_days=0, seed=9)
    narrow = Sphere.make(height=32, width=64, truncation=21, dtype=np.float32)
    flow = Flow(narrow, Climate())
    draws = [np.random.default_rng([9, member]) for member in range(3)]
    vorticity = [flow.jet + np.float32(1e-5) * eddies(narrow, rng) for rng in draws]
    start = np.concatenate([*vorticity, np.repeat(flow.warm, 3, -1)], axis=-1)
    states = simulate(narrow, Climate(), start, frames=4, step_seconds=6 * HOUR, generators=draws)
    end = last(states)
    fields = flow.heights(end[..., :3]), narrow.to_grid(end[..., 3:])
    latitude = np.degrees(np.arcsin(sphere.sine))
    for row, column in ((4, 10), (9, 50), (25, 33)):
        there = np.abs(latitude - world.grid.latitude[row]).argmin()
        assert world.grid.longitude[column] == pytest.approx(360 * column / 64)
        for channel, field in enumerate(fields):
            ours = world.frames[2 * 4 + 3, channel, row, column]  # the last frame of member 2
            assert ours == pytest.approx(field[column, there, 2], rel=1e-6)
    mirrored = world.frames[11, :, ::-1] - world.frames[11]
    assert np.abs(mirrored).max() > 0.5  # the premise: north and south differ


def test_persistence_grows_worse_with_lead(world):
    runs = world.frames.reshape(3, -1, 2, 32, 64)
    worse = [
        np.sqrt(((runs[:, lag:] - runs[:, :-lag]) ** 2).mean(axis=(0, 1, 3, 4)))
        for lag in (1, 2, 4, 8, 12)
    ]
    assert (np.diff(worse, axis=0) > 0).all()
    assert (worse[4] > 3 * worse[0]).all()


def test_height_turns_smoothly_from_day_to_day(world):
    """A straight line through the last two frames beats persistence: there is motion to learn."""
    runs = world.frames.reshape(3, -1, 2, 32, 64)
    line = 2 * runs[:, 1:-1] - runs[:, :-2] - runs[:, 2:]
    still = runs[:, 1:-1] - runs[:, 2:]
    assert (line**2).mean() < 0.3 * (still**2).mean()


def test_runs_are_apart_and_whole_in_the_splits(world):
    names = {split: [s.name for s in stretches] for split, stretches in world.splits.items()}
    assert names == {"train": ["member 0"], "val": ["member 1"], "test": ["member 2"]}
    runs = world.frames[:, 0].reshape(3, -1)
    assert np.corrcoef(runs).max(initial=0, where=~np.eye(3, dtype=bool)) < 0.995
    twice = datasets.build("atmosphere", members=4, days=1, spin_up_days=0, test_members=2)
    assert [s.name for s in twice.splits["test"]] == ["member 2", "member 3"]


def test_same_seed_same_bytes():
    def short(seed):
        return datasets.build("atmosphere", members=3, days=2, spin_up_days=2, seed=seed)

    assert short(5).frames.tobytes() == short(5).frames.tobytes()
    assert short(5).fingerprint != short(6).fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 31}, "even and at least 20 and 40, got 31 and 64"),
        ({"truncation": 22}, "truncation=22 is outside 13 to 21"),
        ({"members": 2}, "members=2 must exceed"),
        ({"days": 0}, "days ≥ 1"),
        ({"step_hours": 5}, "step_hours=5 must divide 24"),
    ],
)
def test_atmosphere_refuses(settings, message):
    with pytest.raises(S2KDError, match=message):
        datasets.build("atmosphere", **settings)


def test_blobs_move_by_their_wind_and_keep_their_shape():
    world = worlds.world("blobs", runs=3, length=20)
    assert world.grid.wraps
    assert [len(world.splits[s]) for s in ("train", "val", "test")] == [1, 1, 1]
    frames = world.frames.reshape(3, 20, 16, 16).astype(float)
    np.testing.assert_allclose(frames.sum((2, 3)), frames.sum((2, 3))[:, :1].repeat(20, 1), 1e-2)
    waves = np.fft.fft2(frames)[:, :, 1, 1]  # one wind: each phase turns evenly
    turns = np.angle(waves[:, 1:] / waves[:, :-1])
    np.testing.assert_allclose(turns, turns[:, :1].repeat(19, 1), atol=2e-2)
    assert np.abs(turns).max() > 0.05
    assert world.fingerprint == worlds.world("blobs", runs=3, length=20).fingerprint
    assert world.fingerprint != worlds.world("blobs", runs=3, length=20, seed=1).fingerprint
    with pytest.raises(S2KDError, match="runs ≥ 3"):
        worlds.world("blobs", runs=2)


SCENE = {"height": 32, "width": 64, "cell": 0.25, "step_seconds": 0.25}


def smoke_place(fields):
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
    shape = burner(height=16, width=24, cell=0.25, place=torch.tensor([2.0]))
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
        air = plume.carry(air, 0.2)
    along = (torch.arange(32) + 0.5) * 0.25
    assert float(air.smoke.sum()) == pytest.approx(1, abs=1e-6)
    centre = float((air.smoke[0].sum(0) * along).sum())
    assert centre == pytest.approx(6.5 * 0.25 + 0.5 * 20 * 0.2, abs=1e-6)


def test_plume_rises_leans_and_climbs_faster_when_hotter():
    fields = simulate_plume(
        heat_release=[100, 400, 100], wind=[0.5, 0.5, 1.5], seeds=[[7]] * 3, frames=14, **SCENE
    )
    height, along = smoke_place(fields)
    assert (height[0].diff() > 0).all()
    assert height[1, 9] > height[0, 9] + 0.5  # hotter, faster
    assert along[2, 9] > along[0, 9] + 0.5  # more wind, further
    assert fields[:, :, 0].min() >= 0
    # heat adds up: the excess of the first second is what the burner gave less what cooled away
    gained = fields[0, 3, 0].sum() * 0.25**2 * HEAT_CAPACITY
    assert 100 * 0.4 < float(gained) < 100 * 1.5
    # four times the heat, four times the soot, but for what interpolating gains or loses
    assert float(fields[1, 3, 1].sum() / fields[0, 3, 1].sum()) == pytest.approx(4, rel=0.1)


def test_smoke_weighs_what_the_burner_gave():
    fields = simulate_plume(heat_release=[300], wind=[0.5], seeds=[[1]], frames=6, **SCENE)
    mass = fields[0, :, 1].sum((1, 2)) * 0.25**2
    given = 300 * SOOT * 0.25 * torch.arange(1, 7)
    torch.testing.assert_close(mass, given, rtol=0.5, atol=0)  # it puffs, so not exactly
    assert float(mass[-1] / given[-1]) == pytest.approx(1, abs=0.15)


@pytest.fixture(scope="module")
def fires():
    return datasets.build("plume", members=3, frames=10, height=16, width=24, velocities=True)


def test_unseen_environments_are_never_trained_on(fires):
    names = {split: [s.name for s in found] for split, found in fires.splits.items()}
    seen = ["100 kW/m, 0.5 m/s", "100 kW/m, 1 m/s", "200 kW/m, 0.5 m/s", "200 kW/m, 1 m/s"]
    assert names["train"] == names["val"] == names["test"] == seen
    assert names["test_unseen"] == [
        "400 kW/m, 0.5 m/s",
        "400 kW/m, 1 m/s",
        "100 kW/m, 1.5 m/s",
        "200 kW/m, 1.5 m/s",
    ]
    covered = np.zeros(len(fires.frames), dtype=int)
    for found in fires.splits.values():
        for stretch in found:
            covered[stretch.first : stretch.stop] += 1
    assert (covered == 1).all()


def test_plume_dataset_has_the_ground_below(fires):
    assert fires.grid.channels == (
        "temperature_rise",
        "smoke",
        "horizontal_velocity",
        "vertical_velocity",
    )
    assert not fires.grid.wraps
    hot = fires.frames[:, 0].mean((0, 2))
    assert hot.argmax() > 8  # the burner stands in the lower half, and row 0 is the top
    last_of_first = fires.frames[9]
    assert fires.times[9] - fires.times[0] == np.timedelta64(2250, "ms")
    assert last_of_first[2, :, 0].mean() == pytest.approx(0.5, abs=0.1)  # what flows in is the wind


def test_plume_same_seed_same_bytes():
    def short(seed):
        return datasets.build("plume", members=3, frames=4, height=16, width=24, seed=seed)

    assert short(5).frames.tobytes() == short(5).frames.tobytes()
    assert short(5).fingerprint != short(6).fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heat_release": []}, "at least one value each"),
        ({"wind": [-1.0]}, "wind not negative, got 100 kW/m and -1.0 m/s"),
        ({"unseen_wind": [0.5]}, "is both a seen and an unseen environment"),
        ({"members": 2}, "members=2 must exceed"),
        ({"height": 4}, "height=4"),
    ],
)
def test_plume_refuses(settings, message):
    with pytest.raises(S2KDError, match=message):
        datasets.build("plume", **settings)
