"""Arrays as described: any order of axes, any file, one series or many runs; every fault named."""

import json

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data._arrays import PlainArray, held_in, open_array
from s2kd.data.describe import describe
from s2kd.data.windows import WindowDataset
from s2kd.pipeline.recipes import for_description

SHAPE = {"R": 3, "T": 60, "C": 2, "H": 4, "W": 6}
FRAMES = np.random.default_rng(0).normal(280, 9, (3, 60, 2, 4, 6)).astype(np.float32)


def laid_out(layout, frames=FRAMES):
    """(run, time, channel, row, column) in the order of `layout`; the first of what it lacks."""
    kept = [slice(None) if letter in layout else 0 for letter in "RTCHW"]
    left = [letter for letter in "RTCHW" if letter in layout]
    return frames[tuple(kept)].transpose([left.index(letter) for letter in layout])


def save(folder, kind, values, name="mine"):
    """The same array in each kind of file."""
    path = folder / f"{name}.{'npz' if kind == 'packed' else kind}"
    match kind:
        case "npy":
            np.save(path, values)
        case "npz":
            np.savez(path, field=values, other=np.zeros(3))
        case "packed":
            np.savez_compressed(path, field=values)
        case "h5":
            with h5py.File(path, "w") as file:
                file["group/field"] = values
    return path


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
@pytest.mark.parametrize("kind", ["npy", "npz", "packed", "h5"])
@pytest.mark.parametrize("layout", ["TCHW", "THWC", "CHWT", "WHT", "THW"])
def test_axes_in_any_order_from_any_file(tmp_path, layout, kind, memory_gb):
    path = save(tmp_path, kind, np.ascontiguousarray(laid_out(layout)))
    world = datasets.build(
        "arrays", path=str(path), layout=layout, step_seconds=3600, gap=2, memory_gb=memory_gb
    )
    want = FRAMES[0] if "C" in layout else FRAMES[0, :, :1]
    assert isinstance(world.frames, np.ndarray) == (memory_gb > 0)
    np.testing.assert_array_equal(world.frames[0:60], want)
    np.testing.assert_array_equal(world.frames[17:23], want[17:23])
    assert world.grid.step_seconds == 3600
    assert (np.diff(world.times) == np.timedelta64(1, "h")).all()
    assert [(s.first, s.stop) for own in world.splits.values() for s in own] == [
        (0, 45), (47, 51), (53, 60),
    ]  # fmt: skip


def test_columns_first_and_other_types(tmp_path):
    path = tmp_path / "fortran.npy"
    np.save(path, np.asfortranarray(laid_out("TCHW")))
    world = datasets.build("arrays", path=str(path), step_seconds=60.0, memory_gb=0, gap=2)
    np.testing.assert_array_equal(world.frames[3:9], FRAMES[0, 3:9])
    for dtype in (">f4", "f8", "i2", "u1", "f2"):
        values = (laid_out("TCHW") - 200).astype(dtype)
        np.save(path, values)
        world = datasets.build("arrays", path=str(path), step_seconds=60.0, memory_gb=0, gap=2)
        assert world.frames[0:1].dtype == np.float32
        np.testing.assert_array_equal(world.frames[0:60], values.astype(np.float32))


def test_large_files_are_read_by_slice_and_not_loaded(tmp_path, monkeypatch):
    path = save(tmp_path, "npy", laid_out("RTCHW"))
    world = datasets.build(
        "arrays", path=str(path), layout="RTCHW", join="runs", step_seconds=1, gap=1, memory_gb=0
    )
    read = []
    real = PlainArray.read
    monkeypatch.setattr(PlainArray, "mapped", lambda self: pytest.fail("mapped"))
    monkeypatch.setattr(
        PlainArray, "read", lambda self, index: read.append(out := real(self, index)) or out
    )
    windows = WindowDataset(world, "train", past=3, lead=2)
    window = windows.gather(torch.tensor([len(windows) - 1]))
    np.testing.assert_array_equal(window.past[0], FRAMES[2, 40:43])
    assert [one.shape for one in read] == [(5, 2, 4, 6)]


# --- where and when -------------------------------------------------------------------------------


def test_rows_are_turned_north_and_columns_west(tmp_path):
    frames = np.zeros((20, 1, 4, 6), dtype=np.float32)
    frames[:, 0, 0, 5] = 1.0  # a blob in the south-east of a file that begins in the south ...
    frames[:, 0, 1, 0] = 2.0
    path = tmp_path / "turned.npz"
    np.savez(path, field=frames, lats=[-60.0, -20, 20, 60], lons=[300.0, 240, 180, 120, 60, 0])
    known = {"key": "field", "step_seconds": 60, "gap": 0}
    world = datasets.build("arrays", path=str(path), latitude="lats", longitude="lons", **known)
    assert world.grid.latitude == (60, 20, -20, -60)
    assert world.grid.longitude == (0, 60, 120, 180, 240, 300)
    assert (world.frames[:, 0, 3, 0] == 1).all()  # ... and in the east: columns fell
    assert (world.frames[:, 0, 2, 5] == 2).all()
    given_ = datasets.build(
        "arrays", path=str(path), latitude=[-60, -20, 20, 60], south_first=True, **known
    )
    assert (given_.frames[:, 0, 3, 5] == 1).all()
    south = datasets.build("arrays", path=str(path), south_first=True, **known)
    np.testing.assert_array_equal(south.frames, given_.frames)
    assert south.grid.latitude is None


@pytest.mark.parametrize("kind", ["datetime", "text", "bytes", "seconds", "file"])
def test_times_are_read_and_gaps_are_not_bridged(tmp_path, kind):
    hours = np.r_[0:30, 33:63].astype("timedelta64[h]")
    times = np.datetime64("2016-02-28T12", "ns") + hours
    as_text = np.datetime_as_string(times, unit="s")
    held = {
        "datetime": times.astype("datetime64[s]").astype(np.int64).view("datetime64[s]"),
        "text": np.char.replace(as_text, "T", " "),
        "bytes": as_text.astype("S"),
        "seconds": hours.astype(int) * 3600.0,
        "file": times,
    }[kind]
    np.savez(tmp_path / "mine.npz", field=laid_out("TCHW"), when=held)
    if kind == "file":
        np.save(tmp_path / "when.npy", held)
    world = datasets.build(
        "arrays", path=str(tmp_path / "mine.npz"), key="field", gap=0, start="2016-02-28T12",
        time="when.npy" if kind == "file" else "when",
    )  # fmt: skip
    np.testing.assert_array_equal(world.times, times)
    assert world.times[12] == np.datetime64("2016-02-29T00")  # a leap day is a day
    assert [(s.first, s.stop) for s in world.splits["train"]] == [(0, 30), (30, 45)]


def test_several_files_are_one_series(tmp_path):
    for name, part in (("b", slice(0, 20)), ("a", slice(20, 45)), ("c", slice(45, 60))):
        times = np.datetime64("2013-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h")
        np.savez(tmp_path / f"{name}.npz", field=FRAMES[0, part], when=times[part])
    for path in (
        str(tmp_path),
        str(tmp_path / "*.npz"),
        [str(tmp_path / f"{n}.npz") for n in "cab"],
    ):
        for memory_gb in (1.0, 0.0):
            world = datasets.build(
                "arrays", path=path, key="field", time="when", memory_gb=memory_gb,
                train=["2013-01-01", "2013-01-08"], val=["2013-01-09", "2013-01-11"],
                test=["2013-01-12", "2013-01-15"], gap=0,
            )  # fmt: skip
            np.testing.assert_array_equal(world.frames[0:60], FRAMES[0])
            np.testing.assert_array_equal(world.frames[15:50], FRAMES[0, 15:50])
            assert [s.stop for own in world.splits.values() for s in own] == [32, 44, 60]
    plain = [save(tmp_path, "npy", FRAMES[0, part], name) for name, part in
             (("x", slice(0, 20)), ("y", slice(20, 45)), ("z", slice(45, 60)))]  # fmt: skip
    world = datasets.build("arrays", path=[str(p) for p in plain], step_seconds=60, gap=0)
    np.testing.assert_array_equal(world.frames, FRAMES[0])
    assert len(world.splits["train"]) == 1  # without times, files follow each other


# --- runs -----------------------------------------------------------------------------------------


def runs(tmp_path, **more):
    for number, name in enumerate(("calm", "storm_1", "storm_2")):
        np.save(tmp_path / f"{name}.npy", FRAMES[number])
    known = {"step_seconds": 60, "join": "runs", "gap": 2}
    return datasets.build("arrays", path=str(tmp_path / "*.npy"), **(known | more))


def test_runs_are_cut_in_time_each(tmp_path):
    world = runs(tmp_path)
    np.testing.assert_array_equal(world.frames, FRAMES.reshape(180, 2, 4, 6))
    assert [(s.name, s.first, s.stop) for s in world.splits["val"]] == [
        ("calm", 47, 51), ("storm_1", 107, 111), ("storm_2", 167, 171),
    ]  # fmt: skip
    windows = WindowDataset(world, "train", past=2, lead=2)
    assert set(windows.groups) == {"calm", "storm_1", "storm_2"}
    assert all(start // 60 == (start + 3) // 60 for start in windows.starts)


def test_a_gap_within_a_run_is_not_bridged(tmp_path):
    for name in "ab":
        steps = np.delete(np.arange(60), [10, 50])
        np.savez(tmp_path / f"{name}.npz", x=FRAMES[0, steps], t=60 * steps)
    world = datasets.build("arrays", path=str(tmp_path), key="x", time="t", join="runs", gap=0)
    assert [(s.name, s.first, s.stop) for own in world.splits.values() for s in own] == [
        ("a", 0, 10), ("a", 10, 44), ("b", 58, 68), ("b", 68, 102),
        ("a", 44, 49), ("b", 102, 107),
        ("a", 49, 58), ("b", 107, 116),
    ]  # fmt: skip


def test_runs_are_chosen_by_name_pattern_or_number(tmp_path):
    world = runs(tmp_path, train=["storm_1"], val=["0:1"], test=["*_2"])
    assert {k: [s.name for s in v] for k, v in world.splits.items()} == {
        "train": ["storm_1"], "val": ["calm"], "test": ["storm_2"],
    }  # fmt: skip
    path = save(tmp_path, "h5", laid_out("RHWT"), "stacked")
    for memory_gb in (1.0, 0.0):
        world = datasets.build(
            "arrays", path=str(path), layout="RHWT", join="runs", step_seconds=1,
            train=["0:1"], val=["stacked_1"], test=["2:"], memory_gb=memory_gb,
        )  # fmt: skip
        assert world.splits["test"][0].name == "stacked_2"
        np.testing.assert_array_equal(world.frames[120:180][:, 0], FRAMES[2, :, 0])
    for settings_, message in (
        ({"train": ["calm"], "val": ["calm"], "test": ["storm_1"]}, "in both train and val"),
        ({"train": ["calm"], "val": ["strm_1"], "test": ["2:"]}, "did you mean 'storm_1'"),
        ({"train": ["calm"], "val": ["storm_1"]}, "go together; test names no run"),
        ({"train": ["calm"], "val": ["3:9"], "test": ["2:"]}, "no run fits '3:9'"),
    ):
        with pytest.raises(S2KDError, match=message):
            runs(tmp_path, **settings_)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=4),
    absent=st.sets(st.integers(0, 90), max_size=12),
    gap=st.integers(0, 6),
    past=st.integers(1, 4),
    lead=st.integers(1, 4),
    stride=st.integers(1, 4),
    join=st.sampled_from(["time", "runs"]),
)
def test_no_window_crosses_a_run_a_gap_or_a_split(
    tmp_path, lengths, absent, gap, past, lead, stride, join
):
    """Frames hold their own time (and run): whatever the cut, a window's go up by one step."""
    for old in tmp_path.glob("*.npz"):
        old.unlink()
    first = 0
    for number, length in enumerate(lengths):
        step = np.array([t for t in range(first, first + length) if t not in absent], dtype=float)
        first += length if join == "time" else 0
        if len(step) < 2:
            continue
        values = np.broadcast_to(step[:, None, None] + 1000 * number, (len(step), 2, 2))
        np.savez(tmp_path / f"{number}.npz", x=values, t=step * 60)
    try:
        world = datasets.build(
            "arrays", path=str(tmp_path), key="x", layout="THW", time="t", join=join, gap=gap,
            fractions=(0.6, 0.2, 0.2),
        )  # fmt: skip
        if world.grid.step_seconds != 60:
            return
        each = {
            k: WindowDataset(world, k, past=past, lead=lead, stride=stride) for k in world.splits
        }
    except S2KDError:
        return  # too little was left
    used = {}
    for split, windows in each.items():
        for start in windows.starts:
            own = world.frames[start : start + past + lead, 0, 0, 0]
            run, step = (own // 1000, own % 1000) if join == "runs" else (0 * own, own % 1000)
            assert (np.diff(step) == 1).all()
            assert (run == run[0]).all()
            for value in own:
                assert used.setdefault(float(value), split) == split


# --- missing values -------------------------------------------------------------------------------


def holes(*, always=False, sometimes=False):
    frames = FRAMES[0].copy()
    if always:
        frames[:, 1, 2, 3] = np.nan
    if sometimes:
        frames[20:22, 0, 1, 1] = np.inf
    return frames


@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_missing_values(tmp_path, memory_gb):
    known = {"step_seconds": 60, "gap": 2, "memory_gb": memory_gb}

    def build(frames, **more):
        return datasets.build(
            "arrays", path=str(save(tmp_path, "npy", frames)), channels=("u", "v"), **known, **more
        )

    with pytest.raises(S2KDError, match=r"'v' .*missing.* row 2, column 3.*'mask'"):
        build(holes(always=True)).frames[0:60]
    masked = build(holes(always=True), missing="mask")
    assert not masked.grid.exists[2, 3]
    assert masked.grid.exists.sum() == 23
    assert np.isfinite(masked.frames[0:60]).all()
    np.testing.assert_array_equal(
        masked.frames[0:60][..., masked.grid.exists], FRAMES[0][..., masked.grid.exists]
    )
    with pytest.raises(S2KDError, match=r"'u' .*row 1, column 1"):
        build(holes(sometimes=True), missing="mask").frames[0:60]
    if memory_gb:
        filled = build(holes(sometimes=True), missing="fill")
        assert (filled.frames[20:22, 0, 1, 1] == FRAMES[0, 19, 0, 1, 1]).all()
    else:
        with pytest.raises(S2KDError, match="'fill' is done in memory, and these frames take"):
            build(holes(sometimes=True), missing="fill")


def test_a_run_is_not_filled_from_another(tmp_path):
    for number, name in enumerate("abc"):
        frames = np.full((20, 1, 2, 2), number, dtype=np.float32)
        frames[0, 0, 0, 0] = np.nan  # nothing of its own to carry on: the nearest cell stands in
        np.save(tmp_path / f"{name}.npy", frames)
    world = datasets.build(
        "arrays", path=str(tmp_path), step_seconds=1, join="runs", gap=0, missing="fill"
    )
    assert [world.frames[20 * n, 0, 0, 0] for n in range(3)] == [0, 1, 2]


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"layout": "TCWX"}, "layout='TCWX': wants each of T, H and W once"),
        ({"layout": "THW"}, r"mine.npy: has shape \(60, 2, 4, 6\), but layout='THW' means 3 axes"),
        ({"layout": "RTHW"}, "a layout with R holds several runs, so set join='runs'"),
        ({"channels": ["u"]}, r"has shape \(60, 2, 4, 6\), 2 channels .* but channels names 1"),
        ({"units": ["K"] * 3}, "but units names 3"),
        ({"step_seconds": None}, r"mine.npy: say how far apart frames are \(step_seconds\)"),
        ({"step_seconds": -60}, "step_seconds=-60 must be above 0"),
        ({"start": "yesterday"}, "start='yesterday' is no date"),
        ({"join": "tme"}, "join='tme'; did you mean 'time'"),
        ({"missing": "drop"}, "missing='drop'.*must be one of error, mask, fill"),
        ({"key": "field"}, r"mine.npy: no key 'field'"),
        ({"time": "when"}, r"mine.npy: no key 'when' \(it has no keys: name a .npy file\)"),
        ({"latitude": [1, 2, 3]}, r"latitude: has shape \(3,\), wants 4 degrees"),
        ({"longitude": [1, 2, 2, 3, 4, 5]}, "longitude.* only rise or only fall"),
        ({"latitude": [4, 3, 2, 1], "south_first": True}, "south_first contradicts latitudes"),
        ({"gap": 99}, "nothing is left for the val split"),
        ({"fractions": [0.5, 0.5]}, "fractions must be three positive numbers"),
        (
            {"train": ["2013"], "val": ["2014"], "test": ["2015"]},
            "train must be a first and a last",
        ),
    ],
)
def test_every_fault_is_named(tmp_path, settings_, message):
    path = save(tmp_path, "npy", laid_out("TCHW"))
    with pytest.raises(S2KDError, match=message):
        datasets.build("arrays", path=str(path), **({"step_seconds": 60} | settings_))


def test_files_that_do_not_fit_each_other_are_named(tmp_path):
    save(tmp_path, "npy", FRAMES[0], "a")
    save(tmp_path, "npy", FRAMES[0, :, :, :3], "b")
    with pytest.raises(
        S2KDError, match=r"b.npy: frames have shape \(2, 3, 6\) .*a.npy \(2, 4, 6\)"
    ):
        datasets.build("arrays", path=str(tmp_path), step_seconds=60)
    other = tmp_path / "times"
    other.mkdir()
    for name, start in (("a", 0), ("b", 10)):
        np.savez(other / f"{name}.npz", x=FRAMES[0, :20], t=60.0 * np.arange(start, start + 20))
    with pytest.raises(S2KDError, match=r"occurs twice|precedes it"):
        datasets.build("arrays", path=str(other), key="x", time="t", gap=0)


@pytest.mark.parametrize("layout", ["THW", "RTHW", "HTW"])
@pytest.mark.parametrize("memory_gb", [1.0, 1e-9], ids=["memory", "file"])
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_several_keys_are_the_channels_in_their_order(tmp_path, kind, layout, memory_gb):
    one, two = laid_out(layout, FRAMES), laid_out(layout, FRAMES[:, :, 1:])
    path = tmp_path / f"wind.{kind}"
    if kind == "npz":
        np.savez(path, u=one, v=two.astype(np.float64), other=np.zeros(3))
    else:
        with h5py.File(path, "w") as file:
            file["u"], file["v"] = one, two.astype(np.float64)
    known = {"path": str(path), "step_seconds": 60, "gap": 0, "memory_gb": memory_gb}
    known |= {"layout": layout, "join": "runs" if "R" in layout else "time"}
    world = datasets.build("arrays", key=["v", "u"], **known)
    wanted = FRAMES[:, :, ::-1] if "R" in layout else FRAMES[:1, :, ::-1]
    np.testing.assert_array_equal(world.frames[:], wanted.reshape(-1, 2, 4, 6))
    assert world.grid.channels == ("v", "u")
    named = datasets.build("arrays", key=["v", "u"], channels=["north", "east"], **known)
    assert named.grid.channels == ("north", "east")
    alone = datasets.build("arrays", key=["v"], **known)
    np.testing.assert_array_equal(alone.frames[:], wanted.reshape(-1, 2, 4, 6)[:, :1])


def test_channels_that_do_not_fit_each_other_are_named(tmp_path):
    path = tmp_path / "wind.npz"
    np.savez(path, u=FRAMES[0], v=FRAMES[0], w=FRAMES[0, :, 0], x=FRAMES[0, :, 0, :3])
    known = {"path": str(path), "step_seconds": 60, "gap": 0}
    with pytest.raises(S2KDError, match=r"x: has shape \(60, 3, 6\), but .*w has \(60, 4, 6\)"):
        datasets.build("arrays", key=["w", "x"], layout="THW", **known)
    with pytest.raises(S2KDError, match=r"several keys \(u, v\) .* layout='TCHW' must have no C"):
        datasets.build("arrays", key=["u", "v"], **known)
    with pytest.raises(S2KDError, match=r"no key 'y'"):
        datasets.build("arrays", key=["w", "y"], layout="THW", **known)


def test_keys_and_kinds_of_content_are_named(tmp_path):
    np.savez(tmp_path / "two.npz", u=FRAMES[0], v=FRAMES[0], names=np.array(["a"]))
    known = {"path": str(tmp_path / "two.npz"), "step_seconds": 60}
    with pytest.raises(S2KDError, match=r"say with key which array is meant \(it has u \(60, 2, 4"):
        datasets.build("arrays", **known)
    with pytest.raises(S2KDError, match=r"two.npz: no key 'uu'; did you mean 'u'"):
        datasets.build("arrays", key="uu", **known)
    with pytest.raises(S2KDError, match="names: holds <U1, wants numbers"):
        datasets.build("arrays", key="names", **known)
    np.save(tmp_path / "pickle.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(S2KDError, match=r"pickle.npy: holds object, wants numbers"):
        datasets.build("arrays", path=str(tmp_path / "pickle.npy"), step_seconds=60)
    with pytest.raises(S2KDError, match=r"no such file, folder or pattern"):
        datasets.build("arrays", path=str(tmp_path / "*.h5"), step_seconds=60)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(S2KDError, match=r"notes.txt: wants a name that ends in .npy"):
        datasets.build("arrays", path=str(tmp_path / "notes.txt"), step_seconds=60)


@pytest.mark.parametrize("kind", ["npy", "npz", "packed", "h5"])
@pytest.mark.parametrize("keep", [0, 0.01, 0.5, 0.97])
def test_torn_files_are_refused(tmp_path, kind, keep):
    path = save(tmp_path, kind, laid_out("TCHW"))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(S2KDError, match=path.name):
        datasets.build("arrays", path=str(path), step_seconds=60).frames[0:60]


def test_a_packed_array_is_unpacked_once(tmp_path):
    path = save(tmp_path, "packed", laid_out("TCHW"))
    first = open_array(path, "field")
    cache = list((tmp_path / ".s2kd-cache").iterdir())
    assert len(cache) == 1
    stamp = cache[0].stat().st_mtime_ns
    np.testing.assert_array_equal(open_array(path, "field").read((slice(5, 7),)), FRAMES[0, 5:7])
    assert cache[0].stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(first.read((3, slice(1, 2))), FRAMES[0, 3, 1:2])
    assert held_in(path)["field"].shape == (60, 2, 4, 6)


# --- describe -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
@pytest.mark.parametrize(
    ("layout", "guessed"), [("TCHW", "TCHW"), ("THWC", "THWC"), ("THW", "THW"), ("RTCHW", "RTCHW")]
)
def test_describe_makes_a_recipe_that_reads_the_file(tmp_path, kind, layout, guessed):
    path = save(tmp_path, kind, laid_out(layout))
    found = describe(path)
    part = found.recipe_dataset
    assert part["name"] == "arrays"
    assert part["params"]["layout"] == guessed
    assert any("step_seconds" in problem for problem in found.problems)
    recipe = for_description(found)
    json.dumps(recipe.to_dict())
    world = datasets.build("arrays", **part["params"])
    assert world.frames.shape[2:] == (4, 6)
    for split in world.splits:
        assert len(WindowDataset(world, split, past=recipe.past, lead=recipe.lead)) >= 2


def test_describe_finds_times_and_coordinates(tmp_path):
    times = np.datetime64("2013-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h")
    np.savez(
        tmp_path / "mine.npz", air=laid_out("TCHW"), time=times,
        lat=np.linspace(60, 30, 4), lon=np.linspace(0, 50, 6),
    )  # fmt: skip
    found = describe(tmp_path / "mine.npz")
    params = found.recipe_dataset["params"]
    assert (params["key"], params["time"]) == ("air", "time")
    assert (params["latitude"], params["longitude"]) == ("lat", "lon")
    assert not any("step_seconds" in problem for problem in found.problems)
    world = datasets.build("arrays", **params)
    assert world.grid.step_seconds == 6 * 3600
    assert world.grid.latitude[0] == 60

    assert (found.first_time, found.last_time) == ("2013-01-01T00:00:00", "2013-01-15T18:00:00")
    assert (found.latitude, found.longitude) == ((60, 30), (0, 50))


@pytest.mark.parametrize("kind", ["npy", "npz", "packed", "h5"])
def test_describe_tells_of_values_as_for_other_files(tmp_path, kind):
    frames = laid_out("TCHW").copy()
    frames[:, 0, 1, 2] = np.nan
    path = save(tmp_path, kind, frames)
    found = describe(path)
    first, second = [v for v in found.variables if v.frames_read]
    assert first.name.endswith("channel_0")
    assert first.minimum == np.nanmin(frames[:, 0])
    assert first.maximum == np.nanmax(frames[:, 0])
    assert (first.missing, first.never, first.frames_read) == (60, 1, 60)
    assert second.mean == pytest.approx(frames[:, 1].astype(float).mean())
    told = [problem for problem in found.problems if "missing values" in problem]
    assert len(told) == 1
    assert told[0].endswith("channel_0' has 60 missing values, 1 cells at every time")
    assert found.recipe_dataset["params"]["missing"] == "mask"
    datasets.build("arrays", **found.recipe_dataset["params"])
    assert found.scanned == "every frame"


def test_looking_leaves_nothing_behind(tmp_path):
    path = save(tmp_path, "packed", laid_out("TCHW"))
    describe(path)
    assert list(tmp_path.iterdir()) == [path]


def test_any_dates_of_the_right_length_are_the_times(tmp_path):
    times = np.datetime64("2023-03-01", "m") + np.arange(60) * np.timedelta64(30, "m")
    np.savez(tmp_path / "mine.npz", counts=laid_out("THW"), when=times, began=times[:3])
    found = describe(tmp_path / "mine.npz")
    assert found.recipe_dataset["params"]["time"] == "when"
    assert found.step_seconds == 1800
    assert found.last_time == "2023-03-02T05:30:00"
    assert not any("step_seconds" in problem for problem in found.problems)
    with pytest.raises(S2KDError, match="step_seconds=null"):
        datasets.build("arrays", **found.recipe_dataset["params"], step_seconds=1.0)


def test_times_from_which_nothing_can_be_cut_are_told(tmp_path):
    times = np.datetime64("2023-03-01", "s") + np.arange(60) * np.timedelta64(30, "m")
    times[7] = times[6]
    np.savez(tmp_path / "mine.npz", counts=laid_out("THW"), when=times)
    found = describe(tmp_path / "mine.npz")
    told, gap = (problem for problem in found.problems if "time" in problem)
    assert "1 times are missing in 1 gaps" in gap
    assert told.startswith("1 times repeat the one before, the first is 2023-03-01T03:00")
    assert found.recipe_dataset is None
    months = np.arange("2020-01", "2025-01", dtype="datetime64[M]").astype("datetime64[s]")
    np.savez(tmp_path / "months.npz", counts=laid_out("THW"), when=months)
    found = describe(tmp_path / "months.npz")
    (told,) = (problem for problem in found.problems if "time" in problem)
    assert told.endswith("; bring the frames to even steps of time")


def test_unix_time_is_not_counted_from_another_year(tmp_path):
    times = np.datetime64("2023-03-01", "s") + np.arange(60) * np.timedelta64(30, "m")
    path = tmp_path / "mine.npz"
    np.savez(
        path, counts=laid_out("THW"), timestamps=times.astype(int), ms=times.astype(int) * 1000
    )
    known = {"path": str(path), "key": "counts", "layout": "THW", "gap": 0}
    with pytest.raises(S2KDError, match=r"timestamps.*start=1970-01-01"):
        datasets.build("arrays", **known, time="timestamps")
    for start in ("1970-01-01", "2000-01-01"):  # who says it is believed
        world = datasets.build("arrays", **known, time="timestamps", start=start)
        since = times - np.datetime64("1970-01-01", "s")
        np.testing.assert_array_equal(world.times, np.datetime64(start, "ns") + since)
    with pytest.raises(S2KDError, match="no seconds"):
        datasets.build("arrays", **known, time="ms", start="1970-01-01")
    found = describe(path)
    assert found.recipe_dataset["params"]["start"] == "1970-01-01"
    assert found.first_time == "2023-03-01T00:00:00"
    assert any("seconds since 1970-01-01" in problem for problem in found.problems)


def test_describe_names_arrays_that_are_left_out(tmp_path):
    np.savez(tmp_path / "mine.npz", inflow=laid_out("THW"), outflow=laid_out("THW"))
    problems = describe(tmp_path / "mine.npz").problems
    assert any("'outflow' (60, 4, 6) left out" in problem for problem in problems)


def test_describe_says_what_no_layout_fits(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((30, 40)))
    with pytest.raises(S2KDError, match=r"flat.npy: .*\(30, 40\)"):
        describe(tmp_path / "flat.npy")
