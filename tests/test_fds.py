"""Output of a fire simulator: orientation, units, even steps, and splits that never touch."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data._fds_frames import shrink
from s2kd.data._fds_volume import resample
from s2kd.data.dataset import Stretch
from s2kd.data.windows import WindowDataset
from s2kd.pipeline import recipes

REAL = os.environ.get("S2KD_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="needs real files: set S2KD_REAL_DATA")
LENGTH = 60


def index(**changed):
    names = {"a1": "seen", "a2": "seen", "a3": "unseen_hrr", "a4": "unseen_velocity"}
    tunnel = {
        "title": "a tunnel",
        "channels": ["TEMPERATURE", "U-VELOCITY"],
        "units": ["degC", "m/s"],
        "frame_step_s": 0.5,
        "first_frame_s": 10.0,
        "suggested_split": {
            key: [name for name, kind in names.items() if kind == key]
            for key in ("seen", "unseen_hrr", "unseen_velocity")
        },
        "environments": [{"name": name, "file": f"T/{name}.npy"} for name in names],
        **changed,
    }
    return {"sets": {"T": tunnel}}


@pytest.fixture
def folder(tmp_path):
    """Four environments of 4 × 6 cells; environment k, frame t holds 100 k + t."""
    (tmp_path / "T").mkdir()
    (tmp_path / "environments.json").write_text(json.dumps(index()))
    for number in range(1, 5):
        frames = np.zeros((LENGTH, 2, 4, 6), dtype=np.float16)
        frames[:] = (100 * number + np.arange(LENGTH))[:, None, None, None]
        np.save(tmp_path / "T" / f"a{number}.npy", frames)
    return tmp_path


def held(world, split):
    """What each stretch begins and ends with, by name."""
    return {
        s.name: (world.frames[s.first, 0, 0, 0], world.frames[s.stop - 1, 0, 0, 0])
        for s in world.splits[split]
    }


def test_seen_runs_are_cut_by_time_and_unseen_ones_held_out(folder):
    world = datasets.build("fds", path=str(folder), gap=5)
    assert held(world, "train") == {"a1": (100, 135), "a2": (200, 235)}
    assert held(world, "val") == {"a1": (141, 147), "a2": (241, 247)}
    assert held(world, "test") == {"a1": (153, 159), "a2": (253, 259)}
    assert held(world, "test_unseen_heat_release") == {"a3": (300, 359)}
    assert held(world, "test_unseen_velocity") == {"a4": (400, 459)}
    assert world.grid.channels == ("temperature", "u_velocity")
    assert world.grid.units == ("degC", "m s-1")
    assert world.grid.step_seconds == 0.5
    assert world.times[0] == np.datetime64("2000-01-01T00:00:10")
    assert world.times[1] - world.times[0] == np.timedelta64(500, "ms")
    assert world.times[LENGTH] == world.times[0]  # every run has the same clock
    assert world.frames.dtype == np.float32


def test_shares_and_gap_are_what_was_asked(folder):
    world = datasets.build("fds", path=folder, fractions=(0.7, 0.1, 0.2), gap=0)
    assert held(world, "train")["a1"] == (100, 141)
    assert held(world, "val")["a1"] == (142, 147)
    assert held(world, "test")["a1"] == (148, 159)


def test_crop_and_pool_average_the_right_cells():
    frames = np.arange(4 * 6, dtype=np.float32).reshape(1, 1, 4, 6)
    # rows 2 and 3, columns 0 to 3: (12 13 18 19) and (14 15 20 21)
    small = shrink(frames, crop=(2, 4, 0, 4), pool=2)
    np.testing.assert_array_equal(small, [[[[15.5, 17.5]]]])
    np.testing.assert_array_equal(shrink(frames, crop=None, pool=1), frames)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "slices"}, "layout='slices' must be one of runs, volume"),
        ({"set": "X"}, r"environments.json: `sets` has no 'X' \(there is T\)"),
        ({"skip": 3}, "layout='runs' has no setting 'skip'"),
        ({"pool": 4}, "pool=4 does not divide 4×6 cells"),
        ({"crop": (0, 5, 0, 6)}, r"crop=\[0, 5, 0, 6\] .* does not lie in 4×6"),
        ({"crop": (0, 5)}, "must be four numbers"),
        ({"fractions": (0.5, 0.2, 0.2)}, "three above 0 that add up to 1"),
        ({"gap": -1}, "gap=-1"),
    ],
)
def test_settings_that_cannot_be(folder, settings, message):
    with pytest.raises(S2KDError, match=message):
        datasets.build("fds", path=folder, **settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"suggested_split": {"unseen_hrr": ["a3"]}}, "`suggested_split` has no 'seen'"),
        ({"suggested_split": {"seen": ["a9"]}}, "asks for 'a9', the environments are a1, a2"),
        ({"environments": [{"name": "a1"}]}, r"an environment has no 'file' \(there is name\)"),
        ({"channels": ["TEMPERATURE"]}, r"a1.npy: has shape \(60, 2, 4, 6\) .* \(time, 1,"),
    ],
)
def test_a_faulty_index_is_named(folder, changed, message):
    (folder / "environments.json").write_text(json.dumps(index(**changed)))
    with pytest.raises(S2KDError, match=message):
        datasets.build("fds", path=folder)


def test_faulty_runs_are_named(folder, tmp_path):
    file = folder / "T" / "a2.npy"
    whole = file.read_bytes()
    for size in (0, 20, len(whole) // 2):
        file.write_bytes(whole[:size])
        with pytest.raises(S2KDError, match=r"a2.npy: not readable as .npy, or cut short"):
            datasets.build("fds", path=folder)
    np.save(file, np.full((LENGTH, 2, 4, 6), np.nan, dtype=np.float16))
    with pytest.raises(S2KDError, match=r"a2.npy: holds values that are not finite"):
        datasets.build("fds", path=folder)
    np.save(file, np.ones((LENGTH, 2, 4, 8), dtype=np.float16))
    with pytest.raises(S2KDError, match=r"frames of a2 have shape \(2, 4, 8\), those of a1 \(2, 4"):
        datasets.build("fds", path=folder)
    file.unlink()
    with pytest.raises(S2KDError, match=r"no such file \(there is a1.npy, a3.npy, a4.npy\)"):
        datasets.build("fds", path=folder)
    (folder / "environments.json").write_text("{")
    with pytest.raises(S2KDError, match=r"environments.json: not readable as JSON"):
        datasets.build("fds", path=folder)
    with pytest.raises(S2KDError, match=r"environments.json: no such file"):
        datasets.build("fds", path=tmp_path / "nowhere")


def volume(path, **changed):
    """70 frames of 3 quantities on z 4 × y 8 × x 5; the byte is frame + 10 z + plane."""
    time = np.cumsum(np.where(np.arange(70) % 2, 0.03, 0.05)).astype(np.float32)
    t, z, y = np.ogrid[:70, :4, :8]
    stored = np.broadcast_to((t + 10 * z + y)[:, None, :, :, None], (70, 3, 4, 8, 5))
    arrays = {
        "vol_u8": stored.astype(np.uint8),
        "time": time,
        "quantities": np.array(["soot_density", "hrrpuv", "temperature"]),
        "x": np.arange(5.0),
        "y": np.linspace(-0.7, 0.7, 8),
        "z": np.arange(4.0),
        **changed,
    }
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


VOLUME = {"layout": "volume", "skip": 10, "planes": (2, 5), "gap": 3}


def test_planes_are_top_first_in_physical_units_at_even_steps(tmp_path):
    world = datasets.build("fds", path=volume(tmp_path / "v.npz"), step_seconds=0.04, **VOLUME)
    assert world.grid.channels == ("temperature", "soot_density")
    assert world.grid.units == ("degC", "1")
    assert world.frames.shape[1:] == (2, 4, 5)
    length = len(world.frames) // 2
    # first kept frame of plane 2: byte 10 + 10 z + 2, z = 3 on top
    byte = np.array([42, 32, 22, 12])
    np.testing.assert_allclose(world.frames[0, 0, :, 0], 20 + byte / 254 * 1980, rtol=1e-6)
    np.testing.assert_allclose(world.frames[0, 1, :, 0], byte / 254, rtol=1e-6)
    # plane 5 is three bytes hotter, at the same times
    np.testing.assert_allclose(
        world.frames[length:, 0] - world.frames[:length, 0], 3 / 254 * 1980, rtol=1e-3
    )
    assert (world.times[:length] == world.times[length:]).all()
    assert set(np.diff(world.times[:length])) == {np.timedelta64(40, "ms")}


def test_all_planes_are_cut_at_the_same_times(tmp_path):
    world = datasets.build("fds", path=volume(tmp_path / "v.npz"), **VOLUME)
    when = {}
    for split, stretches in world.splits.items():
        assert [s.name for s in stretches] == ["y = -0.3 m", "y = 0.3 m"]
        moments = [tuple(world.times[s.first : s.stop]) for s in stretches]
        assert moments[0] == moments[1]
        when[split] = moments[0]
    assert when["train"][-1] < when["val"][0] < when["val"][-1] < when["test"][0]
    windows = WindowDataset(world, "test", past=2, lead=1)
    assert windows.at_once == 2
    half = len(windows) // 2
    one, other = (world.times[windows.starts[part]] for part in (np.s_[:half], np.s_[half:]))
    assert (one == other).all(), "plane follows plane, window by window at the same moments"
    alone = datasets.build("fds", path=tmp_path / "v.npz", **{**VOLUME, "planes": (2,)})
    assert WindowDataset(alone, "test", past=2, lead=1).at_once == 1
    uneven = {**world.splits, "test": (world.splits["test"][0], Stretch(first=0, stop=0))}
    with pytest.raises(S2KDError, match="'test' are said to be simultaneous but differ in length"):
        replace(world, splits=uneven)


def test_resampling_is_numpys_interpolation():
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.uniform(0.02, 0.1, 40))
    frames = rng.normal(size=(40, 2, 3, 3)).astype(np.float32)
    wanted = np.concatenate([time[:1], np.sort(rng.uniform(time[0], time[-1], 50)), time[-1:]])
    ours = resample(frames, time, wanted)
    for cell in ((0, 0, 0), (1, 2, 1)):
        theirs = np.interp(wanted, time, frames[(slice(None), *cell)])
        np.testing.assert_allclose(ours[(slice(None), *cell)], theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"set": "T"}, "layout='volume' has no setting 'set'"),
        ({"quantities": ("smoke",)}, "has no quantity 'smoke' .*soot_density, hrrpuv, temperature"),
        ({"planes": (8,)}, "has no plane 8, there are 8 along y"),
        ({"planes": ()}, "leave nothing of 70 frames"),
        ({"skip": 69}, "skip=69"),
        ({"step_seconds": 0}, "must be positive"),
        ({"gap": 0}, "gap=0 frames of .* too short a gap .* wants gap ≥ 3"),
    ],
)
def test_volume_settings_that_cannot_be(tmp_path, settings, message):
    with pytest.raises(S2KDError, match=message):
        datasets.build("fds", path=volume(tmp_path / "v.npz"), **{**VOLUME, **settings})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"time": None}, r"the file has no 'time' \(there is vol_u8, quantities, x, y, z\)"),
        ({"z": np.arange(5.0)}, r"vol_u8 has shape \(70, 3, 4, 8, 5\) .* \(70, 3, 5, 8, x\)"),
        ({"time": np.zeros(70, dtype=np.float32)}, "time must rise"),
        ({"vol_u8": np.zeros((70, 3, 4, 8, 5))}, ".*type float64, wants uint8"),
    ],
)
def test_a_faulty_volume_is_named(tmp_path, changed, message):
    with pytest.raises(S2KDError, match=r"v.npz: " + message):
        datasets.build("fds", path=volume(tmp_path / "v.npz", **changed), **VOLUME)


def test_a_torn_volume_is_refused(tmp_path):
    path = volume(tmp_path / "v.npz")
    whole = path.read_bytes()
    for size in (0, 30, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(S2KDError, match=r"v.npz: not readable as .npz, or cut short"):
            datasets.build("fds", path=path, **VOLUME)
    with pytest.raises(S2KDError, match="no such file"):
        datasets.build("fds", path=tmp_path / "other.npz", **VOLUME)


@real
def test_real_tunnels_and_pools():
    for chosen, shape in (("T", (20, 160)), ("P", (32, 64))):
        world = datasets.build("fds", path=Path(REAL) / "fds_runs", set=chosen)
        assert world.frames.shape[2:] == shape
        assert world.frames[:, 0].min() >= 20  # °C, the air around
        mean = world.frames[:, 0].mean((0, 2))
        assert mean[0] < mean[-1] or chosen == "T"  # a pool fire is hottest at the ground
        assert min(s.stop - s.first for s in world.splits["val"]) >= 20


@real
def test_real_volume():
    path = Path(REAL) / "fds_pool_fire_hfg_21x21x21.npz"
    world = datasets.build("fds", path=path, layout="volume")
    assert len(world.splits["train"]) == 11
    assert world.grid.step_seconds == pytest.approx(0.032, abs=0.001)
    assert world.frames[:, 0].min() > 19.99
    middle = world.frames[world.splits["train"][5].first : world.splits["train"][5].stop, 0]
    assert np.unravel_index(middle.mean(0).argmax(), (21, 21))[0] > 10  # hottest near the ground


@real
@pytest.mark.parametrize(("name", "letter"), [("fds_runs", "a"), ("fds_runs_p", "b")])
def test_real_recipes_hold_environments_out(name, letter):
    recipe = recipes.get(name, data=REAL)
    world = datasets.build(recipe.dataset.name, **recipe.dataset.params)
    named = {k: [s.name for s in v] for k, v in world.splits.items()}
    seen = [f"{letter}0{n}" for n in (1, 2, 4, 5)]
    assert named["train"] == named["val"] == named["test"] == seen
    assert named["test_unseen_heat_release"] == [f"{letter}0{n}" for n in (3, 6)]
    assert named["test_unseen_velocity"] == [f"{letter}0{n}" for n in (7, 8)]
    for before, after in (("train", "val"), ("val", "test")):
        for one, other in zip(world.splits[before], world.splits[after], strict=True):
            assert world.times[other.first] - world.times[one.stop - 1] > np.timedelta64(1, "s")
    for split in world.splits:
        assert len(WindowDataset(world, split, past=recipe.past, lead=recipe.lead)) >= 24
