"""Prometheus: arrays of any axis order, environments held out, and nothing read whole."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2kd.core.recipe import Part
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data._end_to_end import EndToEnd
from s2kd.data._environments import end_to_end_stretches, held_out, splits_of
from s2kd.data._prometheus_layout import Layout, template
from s2kd.data.dataset import Dataset
from s2kd.data.describe import describe
from s2kd.data.windows import WindowDataset
from s2kd.pipeline import recipes

LENGTH, HEIGHT, WIDTH = 40, 4, 6
HEAT = {"a1": 10.0, "a2": 20.0, "a3": 30.0, "a10": 40.0}


def frames(number, length=LENGTH):
    """(time, channel, height, width): 1000 · environment + frame, + row / 10; channel 1 is − that.

    A blob of 500 lies at row 0 (the top), column 5.
    """
    t, row = np.ogrid[:length, :HEIGHT]
    plane = np.broadcast_to(
        (1000.0 * number + t + row / 10)[..., None], (length, HEIGHT, WIDTH)
    ).copy()
    plane[:, 0, 5] += 500
    return np.stack([plane, -plane], 1).astype(np.float32)


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
        np.save(folder / f"{name}_fds.npy", store(frames(int(name[1:]))))
    (folder / "prometheus.json").write_text(json.dumps(sidecar(**changed)))
    return folder


@pytest.fixture
def folder(tmp_path):
    return put(tmp_path)


def build(path, **params):
    return datasets.build("prometheus", path=str(path), **{"gap": 3, **params})


def ends(world, split):
    """By environment, what channel 0 holds in row 1 of the first and of the last frame."""
    return {
        s.name: tuple(
            round(float(world.frames[at : at + 1][0, 0, 1, 0]), 3) for at in (s.first, s.stop - 1)
        )
        for s in world.splits[split]
    }


def test_seen_environments_are_cut_by_time_and_the_extremes_held_out(folder):
    world = build(folder)
    assert ends(world, "train") == {"a2": (2000.1, 2027.1), "a3": (3000.1, 3027.1)}
    assert ends(world, "val") == {"a2": (2031.1, 2031.1), "a3": (3031.1, 3031.1)}
    assert ends(world, "test") == {"a2": (2035.1, 2039.1), "a3": (3035.1, 3039.1)}
    assert ends(world, "test_unseen_heat_release") == {
        "a1": (1000.1, 1039.1),
        "a10": (10000.1, 10039.1),
    }
    assert world.grid.channels == ("temperature", "u")
    assert world.grid.units == ("degC", "m s-1")
    assert world.grid.step_seconds == 0.5
    assert world.domain == "fire"
    assert world.times[1] - world.times[0] == np.timedelta64(500, "ms")
    assert world.times[LENGTH] == world.times[0]


ORDERS = {
    "channels last": (("time", "height", "width", "channel"), lambda v: v.transpose(0, 2, 3, 1)),
    "time last": (("height", "width", "channel", "time"), lambda v: v.transpose(2, 3, 1, 0).copy()),
    "fortran order": (
        ("time", "channel", "height", "width"),
        lambda v: np.asfortranarray(v),
    ),
    "big-endian": (("time", "channel", "height", "width"), lambda v: v.astype(">f8")),
    "half": (("time", "channel", "width", "height"), lambda v: v.swapaxes(2, 3).astype("f2")),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_every_axis_order_gives_the_same_frames(tmp_path, order, memory_gb):
    axes, store = ORDERS[order]
    world = build(put(tmp_path, store, axes=axes), unseen={}, memory_gb=memory_gb)
    stored = np.concatenate([frames(n) for n in (1, 2, 3, 10)])
    # half precision holds these numbers to within 4
    np.testing.assert_allclose(world.frames[0 : len(stored)], stored, atol=8 * (order == "half"))
    assert isinstance(world.frames, EndToEnd) == (memory_gb == 0)
    middle = world.frames[LENGTH - 2 : LENGTH + 3]  # across two files
    np.testing.assert_allclose(middle, stored[LENGTH - 2 : LENGTH + 3], atol=8 * (order == "half"))
    blob = world.frames[7:8][0, 0]
    assert np.unravel_index((blob - blob[:, :1]).argmax(), blob.shape) == (0, 5)


def test_frames_on_disk_are_known_by_their_content(tmp_path):
    first = build(put(tmp_path), memory_gb=0).fingerprint
    assert build(tmp_path, memory_gb=0).fingerprint == first
    assert build(tmp_path, memory_gb=0, channels=["u"]).fingerprint != first
    assert build(tmp_path, memory_gb=0, unseen={}).fingerprint != first
    np.save(tmp_path / "a3_fds.npy", frames(3) * 1.001)
    assert build(tmp_path, memory_gb=0).fingerprint != first


def test_the_bottom_row_first(tmp_path):
    upside_down = put(tmp_path, lambda values: values[:, :, ::-1], first_row="bottom")
    np.testing.assert_array_equal(build(upside_down, unseen={}).frames[0:3], frames(1)[:3])


def test_one_channel_without_an_axis_and_a_further_axis(tmp_path):
    plain = put(
        tmp_path / "plain",
        lambda values: values[:, 0],
        axes=("time", "height", "width"),
        channels=["t"],
        units=["degC"],
    )
    np.testing.assert_array_equal(build(plain, unseen={}).frames[3:5], frames(1)[3:5, :1])
    volume = put(
        tmp_path / "volume",
        lambda values: np.stack([0 * values, values], axis=2),
        axes=("time", "channel", "y", "height", "width"),
        pick={"y": 1},
    )
    np.testing.assert_array_equal(build(volume, unseen={}).frames[3:5], frames(1)[3:5])


def test_channels_environments_crop_and_pool(tmp_path):
    put(tmp_path, crop=[0, 2, 2, 6])
    world = build(tmp_path, unseen={}, channels=["u"], environments=["a10", "a2"], pool=2)
    assert world.grid.channels == ("u",)
    assert [s.name for s in world.splits["train"]] == ["a10", "a2"]
    # rows 0 and 1, columns 2 to 5, the blob in one cell of four: 10000.05 and 10000.05 + 500 / 4
    np.testing.assert_allclose(world.frames[0:1], [[[[-10000.05, -10125.05]]]], rtol=1e-6)
    assert build(tmp_path, unseen={}, crop=(0, 4, 0, 6)).frames.shape[2:] == (4, 6)


def test_pools_lie_in_a_folder_of_their_own(tmp_path):
    put(tmp_path)
    inner = tmp_path / "Prometheus-P"
    inner.mkdir()
    for number in (1, 2):
        np.save(inner / f"b{number}_fds.npy", frames(number)[:, :, :, :4])
    (inner / "prometheus.json").write_text(json.dumps(sidecar(environments={})))
    for path, chosen in ((tmp_path, "P"), (inner, None), (inner, "P")):
        world = build(path, set=chosen, unseen={})
        assert [s.name for s in world.splits["train"]] == ["b1", "b2"]
        assert world.frames.shape == (2 * LENGTH, 2, 4, 4)
    assert [s.name for s in build(tmp_path, unseen={}).splits["train"]] == list(HEAT)


def test_environments_are_held_out_as_asked(folder):
    world = build(folder, unseen={"heat_release": [15, 35]})
    assert [s.name for s in world.splits["test_unseen_heat_release"]] == ["a1", "a10"]
    world = build(folder, unseen={"wind": ["a3"], "heat_release": [15, 25]})
    assert [s.name for s in world.splits["train"]] == ["a2"]
    assert [s.name for s in world.splits["test_unseen_wind"]] == ["a3"]
    assert [s.name for s in world.splits["test_unseen_heat_release"]] == ["a1", "a10"]


# --- obstacles -----------------------------------------------------------------------------------


def wall(values, inside):
    values = values.copy()
    values[:, :, 2, 3] = inside
    return values


@pytest.mark.parametrize(("mask", "inside"), [("nan", np.nan), ("constant", 20.0)])
@pytest.mark.parametrize("memory_gb", [1.0, 0.0])
def test_obstacles_are_masked_and_filled(tmp_path, mask, inside, memory_gb):
    put(tmp_path, lambda values: wall(values, inside), mask=mask)
    world = build(tmp_path, unseen={}, memory_gb=memory_gb)
    expected = np.ones((HEIGHT, WIDTH), dtype=bool)
    expected[2, 3] = False
    np.testing.assert_array_equal(world.grid.exists, expected)
    held = world.frames[0:LENGTH]
    np.testing.assert_array_equal(held[..., expected], frames(1)[..., expected])
    # filled from a neighbour in the same frame: 1000 + t + row / 10, of row 1, 2 or 3
    assert np.abs(held[:, 0, 2, 3] - (1000.2 + np.arange(LENGTH))).max() < 0.11


def test_a_mask_from_a_file_is_cropped_with_the_frames(tmp_path):
    put(tmp_path, mask="walls.npy", crop=[2, 4, 2, 6])
    exists = np.ones((HEIGHT, WIDTH), dtype=bool)
    exists[2, 3] = False
    np.save(tmp_path / "walls.npy", exists)
    world = build(tmp_path, unseen={})
    assert world.grid.to_dict()["mask"] == ["1011", "1111"]
    world = build(tmp_path, unseen={}, pool=2)
    assert world.grid.to_dict()["mask"] == ["01"]
    np.save(tmp_path / "walls.npy", exists[1:])
    with pytest.raises(S2KDError, match=r"walls.npy: has shape \(3, 6\), the frames are 4×6"):
        build(tmp_path, unseen={})


def test_values_that_are_not_finite_are_found_when_they_are_read(tmp_path):
    put(tmp_path)
    holed = frames(2)
    holed[31, 1, 2, 3] = np.nan
    np.save(tmp_path / "a2_fds.npy", holed)
    said = r"a2_fds.npy: 'u' is not finite in frame 31, row 2, column 3"
    with pytest.raises(S2KDError, match=said):
        build(tmp_path, unseen={})
    world = build(tmp_path, unseen={}, memory_gb=0)
    assert len(world.frames[LENGTH : LENGTH + 31]) == 31
    with pytest.raises(S2KDError, match=said):
        world.frames[LENGTH + 20 : LENGTH + 35]


# --- what can be wrong ---------------------------------------------------------------------------


def test_a_missing_sidecar_is_explained_with_one_to_edit(folder):
    (folder / "prometheus.json").unlink()
    with pytest.raises(S2KDError) as caught:
        build(folder)
    told = str(caught.value)
    assert "4 environments lie here, the first of shape (40, 2, 4, 6) and type float32" in told
    offered = json.loads(told[told.index("\n{") :])
    assert list(offered["environments"]) == list(HEAT)  # a10 after a3
    (folder / "prometheus.json").write_text(json.dumps(offered))
    world = build(folder, unseen={})
    assert world.grid.channels == ("channel0", "channel1")
    with pytest.raises(S2KDError, match=r"'a1' has no 'heat_release' .it has no parameter."):
        build(folder)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((9, 4, 6), ["time", "height", "width"]),
        ((9, 2, 4, 6), ["time", "channel", "height", "width"]),
        ((9, 4, 6, 2), ["time", "height", "width", "channel"]),
        ((9, 2, 3, 4, 6), ["time", "channel", "axis2", "height", "width"]),
    ],
)
def test_the_template_guesses_the_axes(shape, axes):
    offered = template(shape, ["a1"])
    assert offered["axes"] == axes
    assert len(offered["channels"]) == (2 if "channel" in axes else 1)
    assert offered["pick"] == ({"axis2": 0} if "axis2" in axes else {})


@pytest.mark.parametrize("keep", [0, 60, 0.5, -1])
def test_a_file_that_is_cut_short_is_named(folder, keep):
    file = folder / "a2_fds.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep) if 0 < abs(keep) < 1 else keep])
    said = r"a2_fds.npy: (is cut short, .* bytes of|not readable as .npy)"
    with pytest.raises(S2KDError, match=said):
        build(folder)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"axes": ["time", "height", "width"]}, "lacks 'channel'"),
        ({"axes": ["time", "channel", "height", "height"]}, "names an axis twice"),
        (
            {"axes": ["time", "channel", "height", "width", "y"]},
            r"pick=\{\} must give one number for each .* \['y'\]",
        ),
        (
            {"axes": ["channel", "time", "height", "width"]},
            r"a2_fds.npy: has shape \(40, 2, 4, 6\).* 40 channels, but it names 2 .*'time' has",
        ),
        (
            {"axes": ["time", "channel", "y", "height", "width"], "pick": {"y": 0}},
            r"has 4 axes of shape \(40, 2, 4, 6\), prometheus.json names 5",
        ),
        ({"units": ["degC"]}, "wants a unit a channel"),
        ({"first_row": "left"}, "first_row='left' must be"),
        ({"step_seconds": 0}, "step_seconds=0 must be positive"),
        ({"crop": [0, 9, 0, 6]}, r"prometheus: crop=\[0, 9, 0, 6\].* does not lie in 4×6"),
        ({"mask": "walls.npy"}, "walls.npy: the sidecar's mask must be"),
        ({"chanels": []}, "Layout has no 'chanels'; did you mean 'channels'"),
        ({"environments": {"a1": 3}}, "environments.a1 must give numbers"),
        ({"environments": {"a1": {"heat_release": "big"}}}, "environments.a1 must give numbers"),
    ],
)
def test_a_sidecar_that_cannot_be(tmp_path, changed, said):
    put(tmp_path, **changed)
    if "mask" not in changed and "crop" not in changed:
        changed = {"unseen": {"heat_release": [0, 30]}}
    with pytest.raises(S2KDError, match=said):
        build(tmp_path, unseen={"late": ["a1"]})


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"channels": ["temprature"]}, "no channel 'temprature'; did you mean 'temperature'"),
        ({"environments": ["a4"]}, "no environment 'a4'"),
        ({"unseen": {"ventilation": "extremes"}}, "'a1' has no 'ventilation' .it has heat_release"),
        ({"unseen": {"heat_release": "highest"}}, "must be 'extremes', the range"),
        ({"unseen": {"heat_release": [35, 15]}}, "must be 'extremes', the range"),
        ({"unseen": {"heat_release": [0, 99]}}, "holds no environment out"),
        ({"unseen": {"heat_release": [50, 99]}}, "leaves no environment to learn from"),
        ({"unseen": {"wind": ["a4"]}}, "no environment 'a4'"),
        ({"environments": ["a1", "a2"]}, "wants three different values or more, got 10, 20"),
        ({"set": "Q"}, "set='Q' must be T"),
        ({"set": "P"}, "holds no b1_fds.npy"),
        ({"fractions": (0.5, 0.5, 0.5)}, "three above 0 that add up to 1"),
        ({"gap": -1}, "gap=-1"),
    ],
)
def test_settings_that_cannot_be(folder, params, said):
    with pytest.raises(S2KDError, match=said):
        build(folder, **params)


def test_environments_of_different_shape_are_refused(folder, tmp_path):
    np.save(folder / "a3_fds.npy", frames(3)[:, :, :, :5])
    with pytest.raises(S2KDError, match=r"a3_fds.npy: frames have 2×4×5, those of .*a2_fds"):
        build(folder)
    np.save(folder / "a3_fds.npy", np.array(["x"]))
    with pytest.raises(S2KDError, match=r"a3_fds.npy: holds <U1, wants numbers"):
        build(folder)
    with pytest.raises(S2KDError, match="nowhere: no such folder"):
        build(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(S2KDError, match=r"holds no a1_fds.npy and no b1_fds.npy"):
        build(tmp_path / "empty")


# --- what must hold for all ----------------------------------------------------------------------


class Counted:
    """A run whose frames say which run they are of, and which frame they are."""

    def __init__(self, number, length):
        self.number, self.shape = number, (length, 2, 1, 1)

    def read(self, first, stop):
        t = np.arange(first, stop, dtype=np.float32)
        return np.stack([np.full_like(t, self.number), t], 1)[..., None, None]


LENGTHS = st.lists(st.integers(3, 40), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(
    lengths=LENGTHS,
    heats=st.lists(st.integers(0, 3), min_size=6, max_size=6),
    seen=st.tuples(st.integers(0, 2), st.integers(1, 3)),
    parts=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
    gap=st.integers(0, 9),
    past=st.integers(1, 6),
    lead=st.integers(1, 6),
    stride=st.integers(1, 4),
    data=st.data(),
)
def test_splits_share_no_frame_and_no_window_leaves_its_environment(
    lengths, heats, seen, parts, gap, past, lead, stride, data
):
    named = {f"e{i}": length for i, length in enumerate(lengths)}
    known = {name: {"heat": float(heats[i])} for i, name in enumerate(named)}
    try:
        kept, held = held_out("here", known, {"heat": [min(seen), max(seen)]})
    except S2KDError:
        kept, held = tuple(named), {}
    order = [*kept, *(name for listed in held.values() for name in listed)]
    assert sorted(order) == sorted(named)
    shares = tuple(part / sum(parts) for part in parts)
    stretches = end_to_end_stretches({name: named[name] for name in order})
    splits = splits_of(stretches, kept, held, fractions=shares, gap=gap)
    world = Dataset(
        name="counted",
        domain="fire",
        grid=GridSpec(channels=("run", "t"), units=("1", "1"), height=1, width=1, step_seconds=1.0),
        frames=EndToEnd([Counted(i, named[name]) for i, name in enumerate(order)]),
        times=np.zeros(sum(lengths), dtype="datetime64[ns]"),
        splits=splits,
    )
    owner = {}
    for split, listed in splits.items():
        for stretch in listed:
            assert (split.startswith("test_unseen")) == (stretch.name not in kept)
            for frame in range(stretch.first, stretch.stop):
                assert owner.setdefault(frame, split) == split
                assert order[int(world.frames[frame : frame + 1][0, 0, 0, 0])] == stretch.name
    apart = [f for f in owner if f + 1 in owner and owner[f] != owner[f + 1]]
    crossing = [f for f in apart if world.frames[f : f + 2][:, 0, 0, 0].std() == 0]
    assert gap == 0 or not crossing
    for split in splits:
        try:
            windows = WindowDataset(world, split, past=past, lead=lead, stride=stride)
        except S2KDError:
            continue
        number = data.draw(st.integers(0, len(windows) - 1))
        window = windows.gather(torch.tensor([number]))
        clip = torch.cat([window.past, window.future], 1)[0, :, :, 0, 0]
        assert (clip[:, 0] == clip[0, 0]).all()  # one environment
        assert (clip[:, 1].diff() == 1).all()  # unbroken in time
        assert order[int(clip[0, 0])] == windows.groups[number]
        start = int(windows.starts[number])
        assert {owner[f] for f in range(start, start + past + lead)} == {split}


@given(lengths=LENGTHS, data=st.data())
def test_a_slice_of_runs_end_to_end_is_that_of_the_whole(lengths, data):
    runs = [Counted(i, length) for i, length in enumerate(lengths)]
    whole = np.concatenate([run.read(0, run.shape[0]) for run in runs])
    frames = EndToEnd(runs)
    assert frames.shape == whole.shape
    first = data.draw(st.integers(-len(whole) - 2, len(whole) + 2))
    stop = data.draw(st.integers(-len(whole) - 2, len(whole) + 2))
    np.testing.assert_array_equal(frames[first:stop], whole[first:stop])
    with pytest.raises(S2KDError, match="unbroken"):
        frames[0:2:2]


def test_a_large_file_is_not_read_whole(tmp_path):
    """A window of 8 frames out of a sparse file of 7 GB."""
    path = tmp_path / "a1_fds.npy"
    header = {"descr": "<f4", "fortran_order": False, "shape": (30_000, 2, 100, 300)}
    with Path(path).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 30_000 * 2 * 100 * 300 * 4)
    (tmp_path / "prometheus.json").write_text(json.dumps(sidecar(environments={})))
    world = build(tmp_path, unseen={})
    assert world.frames.shape == (30_000, 2, 100, 300)
    assert world.frames[29_990:29_998].shape == (8, 2, 100, 300)


# --- what a user is told of a folder -------------------------------------------------------------


def test_a_described_folder_has_a_recipe_that_reads_it(folder):
    found = describe(folder)
    assert found.kind == "Prometheus folder"
    assert (found.height, found.width, found.frames) == (HEIGHT, WIDTH, 4 * LENGTH)
    assert {v.name: v.dims for v in found.variables}["a10"] == ("40", "2", "4", "6")
    assert found.problems == ()
    recipe = recipes.for_description(found)
    assert recipe.dataset.params["unseen"] == {"heat_release": "extremes"}
    world = datasets.build(recipe.dataset.name, **recipe.dataset.params)
    assert [s.name for s in world.splits["test_unseen_heat_release"]] == ["a1", "a10"]
    assert describe(folder / "a3_fds.npy").recipe_dataset == found.recipe_dataset


def test_a_folder_that_cannot_be_read_yet_is_described_with_the_remedy(folder):
    (folder / "a3_fds.npy").write_bytes((folder / "a3_fds.npy").read_bytes()[:-1])
    found = describe(folder)
    assert "a3_fds.npy: is cut short" in found.problems[0]
    assert found.recipe_dataset["params"]["environments"] == ["a1", "a2", "a10"]
    assert datasets.build("prometheus", **found.recipe_dataset["params"]).splits["train"]
    (folder / "prometheus.json").unlink()
    found = describe(folder)
    assert found.recipe_dataset is None
    assert '"axes": [' in found.problems[-1]


def test_the_documents_show_a_sidecar_that_is_one(tmp_path):
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")
    shown = text[text.index("## Prometheus") :]
    shown = json.loads(shown[shown.index("```json") + 7 : shown.index("```\n\n(Values")])
    assert set(shown) == {f.name for f in dataclasses.fields(Layout)}
    put(tmp_path, **{**shown, "channels": ["t", "v"], "crop": None})
    assert build(tmp_path, unseen={"heat_release": ["a3"]}).grid.step_seconds == 1


def test_the_recipe_at_both_sizes(folder):
    paper = recipes.get("prometheus", data=str(folder), preset="paper")
    assert paper.teacher.backbone == Part(name="simvp", params={"preset": "paper"})
    assert (paper.past, paper.lead, paper.teacher.depth) == (12, 12, 2)
    assert paper.teacher_training.lr == 5e-4
    small = recipes.get("prometheus", data=str(folder), preset="small")
    assert datasets.build("prometheus", **{**small.dataset.params, "gap": 3}).splits["train"]
    with pytest.raises(S2KDError, match="preset must be paper or small"):
        recipes.get("prometheus", data=str(folder), preset="large")
