"""Fires in many environments and planes of a volume: axes, orientation, units, even steps."""

import json
import os
import tracemalloc
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from records import frames_of, run_names

from s2kd.core.recipe import Part, Split
from s2kd.core.types import S2KDError
from s2kd.data import load
from s2kd.data.readers import _fires, readers
from s2kd.data.readers.environments import Layout, describe_layout, template
from s2kd.data.windows import WindowDataset
from s2kd.pipeline import recipes

REAL = os.environ.get("S2KD_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="needs real files: set S2KD_REAL_DATA")
LENGTH, HEIGHT, WIDTH = 40, 4, 6
HEAT = {"a1": 10.0, "a2": 20.0, "a3": 30.0, "a10": 40.0}


# --- Prometheus -----------------------------------------------------------------------------------


def environment(number, length=LENGTH):
    """(time, channel, height, width): 1000 · number + frame + row / 10; channel 1 is its negative.

    A blob of 500 lies at row 0 (the top), column 5.
    """
    t, row = np.ogrid[:length, :HEIGHT]
    plane = np.broadcast_to(
        (1000.0 * number + t + row / 10)[..., None], (length, HEIGHT, WIDTH)
    ).copy()
    plane[:, 0, 5] += 500
    return np.stack([plane, -plane], 1).astype(np.float32)


ALL = np.concatenate([environment(number) for number in (1, 2, 3, 10)])


def sidecar(**changed):
    return {
        "axes": ["time", "channel", "height", "width"],
        "channels": ["temperature", "u"],
        "units": ["degC", "m s-1"],
        "step_seconds": 0.5,
        "environments": {name: {"heat_release": heat} for name, heat in HEAT.items()},
        **changed,
    }


def put(folder, store=lambda values: values, **changed):
    folder.mkdir(exist_ok=True)
    for name in HEAT:
        np.save(folder / f"{name}_fds.npy", store(environment(int(name[1:]))))
    (folder / "prometheus.json").write_text(json.dumps(sidecar(**changed)))
    return folder


def prometheus(path, **settings):
    return readers.build("prometheus", path=str(path), **settings)


def test_environments_are_runs_with_parameters(tmp_path):
    record = prometheus(put(tmp_path))
    assert run_names(record) == list(HEAT)  # a10 after a3
    assert record.attrs["parameters"] == {n: {"heat_release": h} for n, h in HEAT.items()}
    assert list(record) == ["temperature", "u"]
    assert [variable.attrs["units"] for variable in record.values()] == ["degC", "m s-1"]
    assert record.time.values[1] - record.time.values[0] == np.timedelta64(500, "ms")
    assert record.time.values[LENGTH] == record.time.values[0]
    assert record.attrs["split"]["unseen"] == {"heat_release": "extremes"}
    put(tmp_path, environments={"a1": {"heat_release": 1.0}})
    assert prometheus(tmp_path).attrs["split"]["unseen"] == {}


def test_the_extremes_are_a_split_of_their_own(tmp_path):
    data = load(Part(name="prometheus", params={"path": str(put(tmp_path))}), Split(gap=3))
    names = {split: [s.name for s in stretches] for split, stretches in data.splits.items()}
    assert names["train"] == names["val"] == names["test"] == ["a2", "a3"]
    assert names["test_unseen_heat_release"] == ["a1", "a10"]
    for stretches in data.splits.values():
        for stretch in stretches:
            values = data.frames[stretch.first : stretch.stop, 0, 1, 0]
            assert (values // 1000 == int(stretch.name[1:])).all()


ORDERS = {
    "channels last": (("time", "height", "width", "channel"), lambda v: v.transpose(0, 2, 3, 1)),
    "time last": (("height", "width", "channel", "time"), lambda v: v.transpose(2, 3, 1, 0).copy()),
    "column-major": (("time", "channel", "height", "width"), np.asfortranarray),
    "big-endian": (("time", "channel", "height", "width"), lambda v: v.astype(">f8")),
    "half": (("time", "channel", "width", "height"), lambda v: v.swapaxes(2, 3).astype("f2")),
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_axis_order_gives_the_same_frames(tmp_path, order):
    axes, store = ORDERS[order]
    record = prometheus(put(tmp_path, store, axes=axes))
    # half precision holds these numbers to within 4
    np.testing.assert_allclose(frames_of(record), ALL, atol=8 * (order == "half"))
    piece = record.isel(time=slice(LENGTH - 2, LENGTH + 3))  # across two files
    np.testing.assert_allclose(
        frames_of(piece), ALL[LENGTH - 2 : LENGTH + 3], atol=8 * (order == "half")
    )


def test_rows_channels_and_further_axes_as_described(tmp_path):
    flipped = put(tmp_path / "flip", lambda values: values[:, :, ::-1], first_row="bottom")
    np.testing.assert_array_equal(frames_of(prometheus(flipped)), ALL)
    single = put(
        tmp_path / "single",
        lambda values: values[:, 0],
        axes=("time", "height", "width"),
        channels=["t"],
        units=["degC"],
    )
    np.testing.assert_array_equal(frames_of(prometheus(single)), ALL[:, :1])
    volume = put(
        tmp_path / "volume",
        lambda values: np.stack([0 * values, values], axis=2),
        axes=("time", "channel", "y", "height", "width"),
        pick={"y": 1},
    )
    np.testing.assert_array_equal(frames_of(prometheus(volume)), ALL)


def test_channels_environments_crop_and_pool_are_chosen(tmp_path):
    put(tmp_path, crop=[0, 2, 2, 6])
    record = prometheus(tmp_path, channels=["u"], environments=["a10", "a2"], pool=2)
    assert run_names(record) == ["a10", "a2"]
    # rows 0 and 1, columns 2 to 5, the blob in one cell of four: 10000.05 and 10000.05 + 500 / 4
    np.testing.assert_allclose(record.u[0], [[-10000.05, -10125.05]], rtol=1e-6)
    assert prometheus(tmp_path, crop=(0, 4, 0, 6)).u.shape[1:] == (4, 6)


def test_pools_lie_in_a_folder_of_their_own(tmp_path):
    inner = put(tmp_path) / "Prometheus-P"
    inner.mkdir()
    for number in (1, 2):
        np.save(inner / f"b{number}_fds.npy", environment(number)[:, :, :, :4])
    (inner / "prometheus.json").write_text(json.dumps(sidecar(environments={})))
    for path, chosen in ((tmp_path, "P"), (inner, None), (inner, "P")):
        record = prometheus(path, set=chosen)
        assert run_names(record) == ["b1", "b2"]
        assert record.sizes["column"] == 4
    assert run_names(prometheus(tmp_path)) == list(HEAT)


def test_obstacles_are_masked_and_filled(tmp_path):
    def wall(values):
        values = values.copy()
        values[:, :, 2, 3] = np.nan
        return values

    record = prometheus(put(tmp_path, wall, mask="nan"))
    expected = np.ones((HEIGHT, WIDTH), dtype=bool)
    expected[2, 3] = False
    np.testing.assert_array_equal(record.mask, expected)
    frames = frames_of(record)
    np.testing.assert_array_equal(frames[..., expected], ALL[..., expected])
    # filled from a neighbour in the same frame, of row 1, 2 or 3
    assert np.abs(frames[:LENGTH, 0, 2, 3] - (1000.2 + np.arange(LENGTH))).max() < 0.11


def test_a_mask_from_a_file_is_cropped_and_pooled_with_the_frames(tmp_path):
    put(tmp_path, mask="walls.npy", crop=[2, 4, 2, 6])
    exists = np.ones((HEIGHT, WIDTH), dtype=bool)
    exists[2, 3] = False
    np.save(tmp_path / "walls.npy", exists)
    assert prometheus(tmp_path).mask.values.astype(int).tolist() == [[1, 0, 1, 1], [1, 1, 1, 1]]
    assert prometheus(tmp_path, pool=2).mask.values.astype(int).tolist() == [[0, 1]]
    np.save(tmp_path / "walls.npy", exists[1:])
    with pytest.raises(S2KDError, match=r"walls.npy: has shape \(3, 6\), but must have \(4, 6\)"):
        prometheus(tmp_path)


def test_a_missing_description_is_explained_with_one_to_edit(tmp_path):
    (put(tmp_path) / "prometheus.json").unlink()
    with pytest.raises(S2KDError) as caught:
        prometheus(tmp_path)
    text = str(caught.value)
    assert "4 environments are here, the first of shape (40, 2, 4, 6) and type float32" in text
    offered = json.loads(text[text.index(": {") + 2 :])
    assert list(offered["environments"]) == list(HEAT)
    (tmp_path / "prometheus.json").write_text(json.dumps(offered))
    assert list(prometheus(tmp_path)) == ["channel0", "channel1"]


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((9, 4, 6), ["time", "height", "width"]),
        ((9, 2, 4, 6), ["time", "channel", "height", "width"]),
        ((9, 4, 6, 2), ["time", "height", "width", "channel"]),
        ((3, 9, 2, 4, 6), ["axis0", "time", "channel", "height", "width"]),
    ],
)
def test_the_template_guesses_the_axes(shape, axes):
    offered = template(shape, ["a1"])
    assert offered["axes"] == axes
    assert len(offered["channels"]) == (2 if "channel" in axes else 1)
    assert offered["pick"] == ({"axis0": 0} if "axis0" in axes else {})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"axes": ["time", "height", "width"]}, r"'time', 'height', 'width'\] must name"),
        ({"axes": ["time", "channel", "height", "height"]}, "once each"),
        (
            {"axes": ["time", "channel", "height", "width", "y"]},
            r"one entry of any other axis be taken by pick=\{\}",
        ),
        (
            {"axes": ["channel", "time", "height", "width"]},
            r"a1_fds.npy: has shape \(40, 2, 4, 6\), which does not fit .* 2 channels",
        ),
        (
            {"axes": ["time", "channel", "y", "height", "width"], "pick": {"y": 0}},
            r"has shape \(40, 2, 4, 6\), which does not fit axes",
        ),
        ({"units": ["degC"]}, "needs one unit per channel"),
        ({"first_row": "left"}, "first_row: must be one of top, bottom, got 'left'"),
        ({"step_seconds": 0}, "step_seconds=0 must be positive"),
        ({"crop": [0, 9, 0, 6]}, r"prometheus: crop=\[0, 9, 0, 6\].* within 4×6"),
        ({"mask": "walls.npy"}, "walls.npy: no such file"),
        ({"chanels": []}, "Layout has no 'chanels'; did you mean 'channels'"),
        ({"environments": {"a1": 3}}, "environments.*wants settings by name"),
        ({"environments": {"a1": {"heat_release": "big"}}}, "environments.*wants float"),
    ],
)
def test_bad_descriptions_are_named(tmp_path, changed, message):
    put(tmp_path, **changed)
    with pytest.raises(S2KDError, match=message):
        prometheus(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ["temprature"]}, "no channel 'temprature'; did you mean 'temperature'"),
        ({"environments": ["a4"]}, "no environment 'a4'"),
        ({"set": "Q"}, "set='Q' must be T"),
        ({"set": "P"}, "holds no b1_fds.npy"),
        ({"pool": 5}, "pool=5 does not divide 4×6 cells"),
        ({"crop": (0, 5)}, "must be first row, stop row"),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, message):
    with pytest.raises(S2KDError, match=message):
        prometheus(put(tmp_path), **settings)


def test_bad_environments_are_named(tmp_path):
    file = put(tmp_path) / "a3_fds.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(S2KDError, match=r"a3_fds.npy: not readable as .npy"):
        prometheus(tmp_path)
    described = describe_layout(tmp_path)
    assert "a3_fds.npy: not readable" in described.problems[0]
    assert described.settings["environments"] == ["a1", "a2", "a10"]
    assert run_names(readers.build("prometheus", **described.settings)) == ["a1", "a2", "a10"]
    np.save(file, environment(3)[:, :, :, :5])
    with pytest.raises(S2KDError, match=r"frames of a3 have shape \(2, 4, 5\), those of a1"):
        prometheus(tmp_path)
    np.save(file, np.full((4, 2, 4, 6), "x"))
    with pytest.raises(S2KDError, match=r"a3_fds.npy: holds <U1, but numbers"):
        prometheus(tmp_path)
    with pytest.raises(S2KDError, match="nowhere: no such folder"):
        prometheus(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(S2KDError, match=r"holds no a1_fds.npy and no b1_fds.npy"):
        prometheus(tmp_path / "empty")


def test_a_large_file_is_not_read_whole(tmp_path):
    """Eight frames out of a sparse file of 7 GB."""
    path = tmp_path / "a1_fds.npy"
    header = {"descr": "<f4", "fortran_order": False, "shape": (30_000, 2, 100, 300)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 30_000 * 2 * 100 * 300 * 4)
    (tmp_path / "prometheus.json").write_text(json.dumps(sidecar(environments={})))
    tracemalloc.start()
    record = prometheus(tmp_path)
    assert record.sizes["time"] == 30_000
    assert frames_of(record.isel(time=slice(29_990, 29_998))).shape == (8, 2, 100, 300)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**29  # dask copies arrays that have a method `copy`


def test_the_documents_show_a_description_that_is_one(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")
    example = text[text.index("## Prometheus") :]
    example = json.loads(example[example.index("```json") + 7 : example.index("```\n\n(Values")])
    assert set(example) == set(Layout.__struct_fields__)
    put(tmp_path, **{**example, "channels": ["t", "v"], "crop": None})
    assert prometheus(tmp_path).attrs["step_seconds"] == 1


def test_the_recipe_at_both_sizes(tmp_path):
    described = describe_layout(put(tmp_path) / "a3_fds.npy")
    assert (described.reader, described.recipe) == ("prometheus", "prometheus")
    paper = recipes.get("prometheus", data=str(tmp_path), preset="paper")
    assert paper.teacher.backbone == Part(name="simvp", params={"preset": "paper"})
    assert (paper.past, paper.lead, paper.split.gap) == (12, 12, 24)
    small = recipes.get("prometheus", data=str(tmp_path), preset="small")
    readers.check(small.dataset.name, small.dataset.params)


# --- FDS environments -----------------------------------------------------------------------------


def index(**changed):
    names = {"a1": "seen", "a4": "unseen_velocity", "a3": "unseen_hrr", "a2": "seen", "a5": ""}
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
def fds_folder(tmp_path):
    """Four environments of 4 × 6 cells; environment k, frame t holds 100 k + t."""
    (tmp_path / "T").mkdir()
    (tmp_path / "environments.json").write_text(json.dumps(index()))
    for number in range(1, 5):
        frames = np.zeros((60, 2, 4, 6), dtype=np.float16)
        frames[:] = (100 * number + np.arange(60))[:, None, None, None]
        np.save(tmp_path / "T" / f"a{number}.npy", frames)
    return tmp_path


def fds(path, **settings):
    return readers.build("fds", path=str(path), **settings)


def test_suggested_environments_are_held_out(fds_folder):
    data = load(Part(name="fds", params={"path": str(fds_folder)}), Split(gap=5))
    ends = {
        split: {
            s.name: (data.frames[s.first, 0, 0, 0], data.frames[s.stop - 1, 0, 0, 0])
            for s in stretches
        }
        for split, stretches in data.splits.items()
    }
    assert ends == {
        "train": {"a1": (100, 135), "a2": (200, 235)},
        "val": {"a1": (141, 147), "a2": (241, 247)},
        "test": {"a1": (153, 159), "a2": (253, 259)},
        "test_unseen_heat_release": {"a3": (300, 359)},
        "test_unseen_velocity": {"a4": (400, 459)},
    }
    assert data.grid.channels == ("temperature", "u_velocity")
    assert data.grid.units == ("degC", "m s-1")
    assert data.times[0] == np.datetime64("2000-01-01T00:00:10")
    assert data.times[60] == data.times[0]  # every run has the same clock
    described = describe_layout(fds_folder / "T" / "a2.npy")
    assert (described.settings["set"], described.recipe) == ("T", "fds_runs")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"set": "X"}, r"environments.json: no set 'X' \(it has T\)"),
        ({"skip": 3}, "skip has no meaning for a folder of environments"),
    ],
)
def test_bad_settings_of_fds_are_named(fds_folder, settings, message):
    with pytest.raises(S2KDError, match=message):
        fds(fds_folder, **settings)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"suggested_split": {"unseen_hrr": ["a3"]}}, "suggested_split: FdsSplit lacks seen"),
        ({"suggested_split": {"seen": ["a9"]}}, r"asks for 'a9' \(it has a1"),
        ({"suggested_split": {"seen": ["a5"]}}, "a5.npy: no such file"),
        ({"environments": [{"name": "a1"}]}, r"environments\[0\]: FdsRun lacks file"),
        (
            {"channels": ["TEMPERATURE"]},
            r"a1.npy: has shape \(60, 2, 4, 6\), .* 1 channels",
        ),
    ],
)
def test_a_bad_index_is_named(fds_folder, changed, message):
    (fds_folder / "environments.json").write_text(json.dumps(index(**changed)))
    with pytest.raises(S2KDError, match=message):
        fds(fds_folder)


# --- FDS volume -----------------------------------------------------------------------------------


def volume(path, **changed):
    """70 frames of 3 quantities on z 4 × y 8 × x 5; the byte is frame + 10 z + plane."""
    t, z, y = np.ogrid[:70, :4, :8]
    stored = np.broadcast_to((t + 10 * z + y)[:, None, :, :, None], (70, 3, 4, 8, 5))
    arrays = {
        "vol_u8": stored.astype(np.uint8),
        "time": np.cumsum(np.where(np.arange(70) % 2, 0.03, 0.05)).astype(np.float32),
        "quantities": np.array(["soot_density", "hrrpuv", "temperature"]),
        "x": np.arange(5.0),
        "y": np.linspace(-0.7, 0.7, 8),
        "z": np.arange(4.0),
        **changed,
    }
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


VOLUME = {"skip": 10, "planes": (2, 5)}


def test_planes_are_top_first_in_physical_units_at_even_steps(tmp_path):
    path = volume(tmp_path / "v.npz")
    record = fds(path, step_seconds=0.04, **VOLUME)
    assert list(record) == ["temperature", "soot_density"]
    assert [variable.attrs["units"] for variable in record.values()] == ["degC", "1"]
    assert run_names(record) == ["y = -0.3 m", "y = 0.3 m"]
    # first kept frame of plane 2: byte 10 + 10 z + 2, z = 3 on top
    byte = np.array([42, 32, 22, 12])
    np.testing.assert_allclose(record.temperature[0, :, 0], 20 + byte / 254 * 1980, rtol=1e-6)
    np.testing.assert_allclose(record.soot_density[0, :, 0], byte / 254, rtol=1e-6)
    # plane 5 is three bytes hotter, at the same times
    first, second = np.split(frames_of(record), 2)
    np.testing.assert_allclose(second[:, 0] - first[:, 0], 3 / 254 * 1980, rtol=1e-3)
    times = np.split(record.time.values, 2)
    assert (times[0] == times[1]).all()
    assert set(np.diff(times[0])) == {np.timedelta64(40, "ms")}
    assert (describe_layout(path).reader, describe_layout(path).recipe) == ("fds", "fds_pool")


def test_planes_are_no_independent_evidence(tmp_path):
    path = str(volume(tmp_path / "v.npz"))
    data = load(Part(name="fds", params={"path": path, **VOLUME}), Split(gap=3))
    for stretches in data.splits.values():
        moments = [tuple(data.times[s.first : s.stop]) for s in stretches]
        assert moments[0] == moments[1]  # both planes are cut at the same times
    assert WindowDataset(data, "test", past=2, lead=1).windows_per_time == 2
    single = load(Part(name="fds", params={"path": path, "skip": 10, "planes": [2]}), Split(gap=3))
    assert WindowDataset(single, "test", past=2, lead=1).windows_per_time == 1
    with pytest.raises(S2KDError, match=r"gap=0 .* at least 3"):
        load(Part(name="fds", params={"path": path, **VOLUME}), Split(gap=0))


def test_even_steps_are_numpys_interpolation_across_blocks(monkeypatch):
    monkeypatch.setattr(_fires, "BLOCK_BYTES", 7 * 4 * 2 * 3 * 3)  # seven frames
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.uniform(0.02, 0.1, 40))
    frames = rng.normal(size=(40, 2, 3, 3)).astype(np.float32)
    stored = da.from_array(frames, chunks=(6, -1, -1, -1))
    runs, clocks, gap = _fires.even_runs(
        "x", {"a": stored}, {"a": time}, step=0.03, begin=float(time[3])
    )
    even, clock = runs["a"].compute(), clocks["a"]
    assert clock[0] == time[3]
    assert clock[-1] <= time[-1] < clock[-1] + 0.03
    for cell in ((0, 0, 0), (1, 2, 1)):
        expected = np.interp(clock, time, frames[(slice(None), *cell)])
        np.testing.assert_allclose(even[(slice(None), *cell)], expected, atol=1e-5)
    # frames `gap` apart draw on no stored frame in common
    after = np.searchsorted(time, clock, side="right")
    assert (after[gap + 1 :] - 1 > after[: -gap - 1]).all()


def test_crop_and_pool_average_the_right_cells():
    frames = da.from_array(np.arange(4 * 6, dtype=np.float32).reshape(1, 1, 4, 6))
    # rows 2 and 3, columns 0 to 3: (12 13 18 19) and (14 15 20 21)
    runs, mask = _fires.finished("x", {"a": frames}, crop=(2, 4, 0, 4), pool=2)
    np.testing.assert_array_equal(runs["a"], [[[[15.5, 17.5]]]])
    assert mask is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"set": "T"}, "set has no meaning for a volume"),
        ({"quantities": ("smoke",)}, "no quantity 'smoke' .*soot_density, hrrpuv, temperature"),
        ({"planes": (8,)}, r"planes=\[8\] must leave some .* 8 planes along y"),
        ({"planes": ()}, r"planes=\[\] must leave some of its 70 frames"),
        ({"skip": 69}, "skip=69"),
        ({"step_seconds": 0}, "must be positive"),
    ],
)
def test_bad_volume_settings_are_named(tmp_path, settings, message):
    with pytest.raises(S2KDError, match=message):
        fds(volume(tmp_path / "v.npz"), **{**VOLUME, **settings})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"time": None}, r"no key 'time' \(it has vol_u8"),
        (
            {"z": np.arange(5.0)},
            r".*must be uint8 of shape \(70, 3, 5, 8, x\).* \(70, 3, 4, 8, 5\)",
        ),
        ({"time": np.zeros(70, dtype=np.float32)}, "time must rise"),
        ({"vol_u8": np.zeros((70, 3, 4, 8, 5))}, "vol_u8 must be uint8"),
    ],
)
def test_a_bad_volume_is_named(tmp_path, changed, message):
    path = volume(tmp_path / "v.npz", **changed)
    with pytest.raises(S2KDError, match=r"v.npz: " + message):
        fds(path, **VOLUME)


# --- real files -----------------------------------------------------------------------------------


@real
def test_real_fires_are_in_physical_units():
    for chosen, shape in (("T", (20, 160)), ("P", (32, 64))):
        temperature = fds(Path(REAL) / "fds_runs", set=chosen).temperature.values
        assert temperature.shape[1:] == shape
        assert temperature.min() >= 20  # °C, the air around
        mean = temperature.mean((0, 2))
        assert mean[0] < mean[-1] or chosen == "T"  # a pool fire is hottest at the ground
    record = fds(Path(REAL) / "fds_pool_fire_hfg_21x21x21.npz")
    assert len(run_names(record)) == 11
    assert record.attrs["step_seconds"] == pytest.approx(0.032, abs=0.001)
    assert record.temperature.min() > 19.99
    middle = record.temperature[record.run.values == run_names(record)[5]].mean("time").values
    assert np.unravel_index(middle.argmax(), (21, 21))[0] > 10  # hottest near the ground


@real
@pytest.mark.parametrize(("name", "letter"), [("fds_runs", "a"), ("fds_runs_p", "b")])
def test_real_recipes_hold_environments_out(name, letter):
    recipe = recipes.get(name, data=REAL)
    data = load(recipe.dataset, recipe.split, recipe.keep)
    names = {k: [s.name for s in v] for k, v in data.splits.items()}
    seen = [f"{letter}0{n}" for n in (1, 2, 4, 5)]
    assert names["train"] == names["val"] == names["test"] == seen
    assert names["test_unseen_heat_release"] == [f"{letter}0{n}" for n in (3, 6)]
    assert names["test_unseen_velocity"] == [f"{letter}0{n}" for n in (7, 8)]
    for split in data.splits:
        assert len(WindowDataset(data, split, past=recipe.past, lead=recipe.lead)) >= 24
