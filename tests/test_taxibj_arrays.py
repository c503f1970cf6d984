"""TaxiBJ and TaxiBJ+ in every official layout, as miniatures: who shares frames, who sees what."""

import itertools
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data import statistics as train_statistics
from s2kd.data.describe import describe
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.models.normaliser import Normaliser
from s2kd.narration.narrators import narrators
from s2kd.pipeline import recipes


def series(count, height=8, width=8, *, seed=0):
    """(frame, 2, height, width) counts, every frame unlike any other."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, (count, 2, height, width)).astype(np.float32)


def cut(frames, past, lead, stride=1):
    """Past and future frames of every window, (window, past or lead, 2, height, width)."""
    starts = range(0, len(frames) - past - lead + 1, stride)
    x = np.stack([frames[s : s + past] for s in starts])
    return x, np.stack([frames[s + past : s + past + lead] for s in starts])


# --- by slot --------------------------------------------------------------------------------------


def slots(days, first="2015-03-02"):
    dates = [str(np.datetime64(first) + day).replace("-", "") for day in range(days)]
    return np.array([f"{date}{slot:02d}" for date in dates for slot in range(1, 49)], dtype="S10")


def write_flows(path, dates, data):
    with h5py.File(path, "w") as file:
        file["date"], file["data"] = dates, data
    return path


def write_weather(path, dates, **changed):
    """Sunny and 20 °C, from slot 60 heavy rain, -3 °C and a gale."""
    kinds = np.zeros((len(dates), 17))
    kinds[:60, 0] = kinds[60:, 6] = 1
    held = {
        "date": dates,
        "Weather": kinds,
        "Temperature": np.where(np.arange(len(dates)) < 60, 20.0, -3.0),
        "WindSpeed": np.where(np.arange(len(dates)) < 60, 4.0, 30.0),
        **changed,
    }
    with h5py.File(path, "w") as file:
        for key, value in held.items():
            if value is not None:
                file[key] = value


@pytest.fixture
def folder(tmp_path):
    dates = slots(6, "2015-05-01")
    write_flows(tmp_path / "BJ15_M32x32_T30_InOut.h5", dates, series(288, 4, 4))
    write_weather(tmp_path / "BJ_Meteorology.h5", dates)
    (tmp_path / "BJ_Holiday.txt").write_text("20150501\n20150504\n")
    return tmp_path


DAYS = {"train_days": 4, "val_days": 1, "test_days": 1, "gap": 0}


def test_weather_and_holidays_are_words_of_the_last_past_frame(folder):
    world = datasets.build("taxibj", path=folder, **DAYS)
    assert world.context[0] == ("weekday", "holiday", "sunny", "warm")
    assert world.context[60] == ("weekend", "heavy rain", "freezing", "strong wind")
    assert world.context[3 * 48] == ("weekday", "holiday", "heavy rain", "freezing", "strong wind")
    assert world.context[-1][:1] == ("weekday",)
    windows = WindowDataset(world, "train", past=4, lead=4)
    known = statistics(world)
    (number,) = np.flatnonzero(windows.starts + 3 == 59)  # the rain begins with the future
    assert "heavy rain" not in windows.past_of(int(number), known).context
    assert "heavy rain" in windows.past_of(int(number) + 1, known).context
    told = narrators.build("rules").narrate([windows.past_of(int(number) + 1, known)])[0]
    assert "heavy rain" in told
    assert "2015" not in told


def test_students_are_never_shown_the_weather(folder):
    with_words = datasets.build("taxibj", path=folder, **DAYS)
    without = datasets.build("taxibj", path=folder, weather=False, holidays=False, **DAYS)
    assert {words[0] for words in without.context} == {"weekday", "weekend"}
    assert {len(words) for words in without.context} == {1}
    np.testing.assert_array_equal(with_words.frames, without.frames)
    assert with_words.fingerprint == without.fingerprint


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Weather": None}, "needs 'Weather', has Temperature, WindSpeed, date"),
        ({"Weather": np.zeros((288, 5))}, r"Weather has shape \(288, 5\), wants \(288, 17\)"),
        ({"WindSpeed": np.zeros(3)}, r"WindSpeed has shape \(3,\), wants \(288,\)"),
        ({"date": np.array([b"2015050149"] * 288)}, "not YYYYMMDDss"),
    ],
)
def test_faulty_weather_is_named(folder, changed, message):
    write_weather(folder / "BJ_Meteorology.h5", changed.pop("date", slots(6)), **changed)
    with pytest.raises(S2KDError, match=r"BJ_Meteorology.h5: .*" + message):
        datasets.build("taxibj", path=folder, **DAYS)


def test_faulty_holidays_are_named(folder):
    (folder / "BJ_Holiday.txt").write_text("20150501\n20150230\n")
    with pytest.raises(S2KDError, match=r"BJ_Holiday.txt: entry 2 is '20150230', wants a day"):
        datasets.build("taxibj", path=folder, **DAYS)


def test_days_without_all_slots_can_be_left_out(folder):
    dates = slots(6, "2015-05-01")
    keep = np.delete(np.arange(288), [50, 51])
    write_flows(folder / "BJ15_M32x32_T30_InOut.h5", dates[keep], series(288, 4, 4)[keep])
    bridged = datasets.build("taxibj", path=folder, **DAYS)
    assert [s.stop - s.first for s in bridged.splits["train"]] == [50, 140]
    whole = datasets.build("taxibj", path=folder, whole_days=True, **{**DAYS, "train_days": 3})
    assert [s.stop - s.first for s in whole.splits["train"]] == [48, 96]
    assert len(whole.frames) == 5 * 48


def test_the_last_days_may_be_counted_from_the_end(folder):
    world = datasets.build("taxibj", path=folder, val_days=1, test_days=2, gap=0)
    assert [sum(s.stop - s.first for s in v) // 48 for v in world.splits.values()] == [3, 1, 2]
    with pytest.raises(S2KDError, match=r"go together .* got None, 3, 3 of 6 days"):
        datasets.build("taxibj", path=folder, val_days=3, test_days=3)


def test_leap_days_are_days_and_others_are_not(tmp_path):
    dates = slots(4, "2016-02-28")
    world = datasets.build(
        "taxibj",
        path=write_flows(tmp_path / "BJ16_InOut.h5", dates, series(192, 4, 4)),
        **{**DAYS, "train_days": 2},
    )
    assert world.times[48] == np.datetime64("2016-02-29T00:00")
    (only,) = world.splits["train"]
    assert (only.first, only.stop) == (0, 96)  # the 28th and the 29th are one unbroken stretch
    wrong = np.array([d.replace(b"2016", b"2015") for d in dates])
    with pytest.raises(S2KDError, match="'2015022901' at position 48"):
        datasets.build("taxibj", path=write_flows(tmp_path / "x.h5", wrong, series(192, 4, 4)))


def test_clocks_that_change(tmp_path):
    """In spring an hour is missing: a gap. In autumn one comes twice, which the layout cannot
    say: it is refused."""
    dates, data = slots(6, "2008-03-08"), series(288, 4, 4)
    spring = np.delete(np.arange(288), [48 + 4, 48 + 5])
    path = write_flows(tmp_path / "spring_InOut.h5", dates[spring], data[spring])
    world = datasets.build("taxibj", path=path, **DAYS)
    assert [s.stop - s.first for s in world.splits["train"]][:1] == [52]
    autumn = np.insert(np.arange(288), 4, [2, 3])
    path = write_flows(tmp_path / "autumn_InOut.h5", dates[autumn], data[autumn])
    with pytest.raises(S2KDError, match="comes after 2008-03-08T01:30:00"):
        datasets.build("taxibj", path=path, **DAYS)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    missing=st.sets(st.integers(0, 8 * 48 - 1), max_size=60),
    empty=st.sets(st.integers(0, 8 * 48 - 1), max_size=20),
    gap=st.integers(0, 12),
    past=st.integers(1, 6),
    lead=st.integers(1, 6),
    stride=st.integers(1, 5),
)
def test_no_window_bridges_a_gap_or_a_split(tmp_path, missing, empty, gap, past, lead, stride):
    dates, data = slots(8), series(384, 2, 2) + 1
    data[:, 0, 0, 0] = np.arange(384)  # a frame names its slot
    data[list(empty)] = 0
    keep = np.array(sorted(set(range(384)) - missing), dtype=int)
    path = write_flows(tmp_path / "any_InOut.h5", dates[keep], data[keep])
    try:
        world = datasets.build(
            "taxibj", path=path, train_days=5, val_days=1, test_days=2, gap=gap, weather=False
        )
        each = {
            k: WindowDataset(world, k, past=past, lead=lead, stride=stride) for k in world.splits
        }
    except S2KDError:
        return  # too little was left
    used = {}
    for split, windows in each.items():
        for start in windows.starts:
            inside = world.times[start : start + past + lead]
            assert (np.diff(inside) == np.timedelta64(30, "m")).all()
            for frame in world.frames[start : start + past + lead]:
                assert frame.any()
                number = int(frame[0, 0, 0])
                assert number not in missing | empty
                assert used.setdefault(number, split) == split


def test_minmax_is_of_the_training_days_alone(folder):
    data = series(288, 4, 4)
    data[4 * 48 :] += 1e4
    write_flows(folder / "BJ15_M32x32_T30_InOut.h5", slots(6, "2015-05-01"), data)
    world = datasets.build("taxibj", path=folder, **DAYS)
    known = statistics(world)
    assert known.maximum == tuple(data[: 4 * 48].max((0, 2, 3)).tolist())
    scale = Normaliser.from_statistics(known, kind="minmax").scale
    assert float(scale.max()) < 300


# --- OpenSTL's dataset.npz ------------------------------------------------------------------------


def write_openstl(path, *, count=60, test=20, packed=False, frames=None, **changed):
    """Sliding windows of one series of -1 … 1, the last `test` of them the test set."""
    frames = series(count + test + 7) / 100 - 1 if frames is None else frames
    x, y = cut(frames, 4, 4)
    held = {"X_train": x[:count], "Y_train": y[:count], "X_test": x[count:], "Y_test": y[count:]}
    held |= changed
    (np.savez_compressed if packed else np.savez)(path, **held)
    return frames


@pytest.mark.parametrize("packed", [False, True])
def test_openstl_windows_are_those_in_the_file(tmp_path, packed):
    frames = write_openstl(tmp_path / "dataset.npz", packed=packed)
    unpacked = tmp_path / "fetched" / "openstl" / "taxibj"
    unpacked.mkdir(parents=True)
    shutil.copy(tmp_path / "dataset.npz", unpacked)
    for path in (unpacked, tmp_path / "fetched", tmp_path / "dataset.npz"):
        world = datasets.build("taxibj", path=str(path), cache=str(tmp_path / "cache"))
        assert world.grid.channels == ("inflow", "outflow")
        assert isinstance(world.frames[0:1], np.ndarray)
        assert not isinstance(world.frames, np.ndarray)  # never loaded whole
        windows = WindowDataset(world, "test", past=4, lead=4)
        assert len(windows) == 20
        for number in (0, 7, 19):
            window = windows.gather(torch.tensor([number]))
            clip = (frames[60 + number : 68 + number] + 1) / 2
            np.testing.assert_allclose(window.past[0], clip[:4], atol=1e-6)
            np.testing.assert_allclose(window.future[0], clip[4:], atol=1e-6)
    assert (tmp_path / "cache").exists() == packed


def shared_frames(world):
    """Pairs of splits that hold the same frame."""
    looks = {
        split: {world.frames[i : i + 1].tobytes() for s in own for i in range(s.first, s.stop)}
        for split, own in world.splits.items()
    }
    return {(a, b) for a, b in itertools.combinations(looks, 2) if looks[a] & looks[b]}


def test_examples_that_overlap_a_later_split_are_dropped(tmp_path):
    write_openstl(tmp_path / "dataset.npz")
    world = datasets.build("taxibj", path=tmp_path, val_fraction=0.3)
    counts = {split: len(own) for split, own in world.splits.items()}
    # a window of 8 shares frames with the 7 before another split: 53 of 60 are left by the test,
    # 16 of them are val
    assert counts == {"train": 60 - 7 - 16 - 7, "val": 16, "test": 20}
    assert shared_frames(world) == set()
    first = [int(own[0].first) for own in world.splits.values()]
    assert first == sorted(first)  # val is the tail of train
    assert "left out 14 of train examples" in world.notices[0]
    leaky = datasets.build("taxibj", path=tmp_path, val_fraction=0.3, shared="keep")
    assert {split: len(own) for split, own in leaky.splits.items()} == {
        "train": 42, "val": 18, "test": 20,
    }  # fmt: skip
    assert ("train", "val") in shared_frames(leaky)


def test_examples_in_no_order_of_time_are_refused(tmp_path):
    frames = series(87) / 100 - 1
    x, y = cut(frames, 4, 4)
    order = np.random.default_rng(1).permutation(len(x))
    np.savez(
        tmp_path / "dataset.npz",
        X_train=x[order[:60]], Y_train=y[order[:60]], X_test=x[order[60:]], Y_test=y[order[60:]],
    )  # fmt: skip
    with pytest.raises(S2KDError, match="were not cut in order of time; shared='keep'"):
        datasets.build("taxibj", path=tmp_path)
    assert datasets.build("taxibj", path=tmp_path, shared="keep").frames.shape[0] == 80 * 8


def test_outages_do_not_count_as_shared(tmp_path):
    frames = series(87) / 100 - 1
    frames[[3, 40, 80]] = -1
    write_openstl(tmp_path / "dataset.npz", frames=frames)
    world = datasets.build("taxibj", path=tmp_path, val_fraction=0.3)
    assert {split: len(own) for split, own in world.splits.items()}["train"] == 30


def test_openstl_values_are_fractions_or_counts(tmp_path):
    frames = write_openstl(tmp_path / "dataset.npz")
    counts = datasets.build("taxibj", path=tmp_path, maximum=1292.0)
    np.testing.assert_allclose(counts.frames[0:4], (frames[:4] + 1) * 646, rtol=1e-5, atol=1e-3)
    write_openstl(tmp_path / "dataset.npz", frames=series(87))
    with pytest.raises(S2KDError, match=r"X_train: holds values from 0 to 199, OpenSTL's lie"):
        datasets.build("taxibj", path=tmp_path).frames[0:8]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Y_test": np.zeros((3, 4, 2, 8, 8))}, "Y_test: has 3 examples, .*X_test 20"),
        ({"X_train": np.zeros((60, 4, 3, 8, 8))}, r"X_train: has shape \(60, 4, 3, 8, 8\), wants"),
        ({"Y_train": np.zeros((60, 4, 2, 8, 4))}, r"Y_train: examples have shape \(4, 2, 8, 4\)"),
        ({"X_train": np.array(["a"])}, "X_train: holds <U1, wants numbers"),
    ],
)
def test_faulty_openstl_arrays_are_named(tmp_path, changed, message):
    write_openstl(tmp_path / "dataset.npz", **changed)
    with pytest.raises(S2KDError, match=r"dataset.npz: .*" + message):
        datasets.build("taxibj", path=tmp_path)


def test_torn_and_partial_npz_are_refused(tmp_path):
    path = tmp_path / "dataset.npz"
    np.savez(path, X_train=np.zeros((2, 4, 2, 4, 4)))
    with pytest.raises(S2KDError, match="needs X_train, Y_train, X_test, Y_test, has X_train"):
        datasets.build("taxibj", path=path)
    write_openstl(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(S2KDError, match=r"dataset.npz: cannot be read as NPZ, or cut short"):
        datasets.build("taxibj", path=path)


@pytest.mark.parametrize(
    "setting", [{"gap": 3}, {"fractions": (0.6, 0.2, 0.2)}, {"test_days": 3}, {"whole_days": True}]
)
def test_settings_of_the_other_layout_are_refused(tmp_path, setting, folder):
    write_openstl(tmp_path / "only" if (tmp_path / "only").mkdir() else tmp_path / "only/dataset")
    (name,) = setting
    with pytest.raises(S2KDError, match=f"taxibj: {name} has no meaning for windows"):
        datasets.build("taxibj", path=tmp_path / "only", **setting)
    with pytest.raises(S2KDError, match="taxibj: maximum has no meaning for files by slot"):
        datasets.build("taxibj", path=folder, maximum=1292.0)


# --- TaxiBJ+ --------------------------------------------------------------------------------------

SIZES = {"train": 12, "val": 4, "test": 5}


def write_plus(path, kind, *, stride=24, size=16, **changed):
    """Windows of 12 → 12 in the layout `kind`; returns (example, 24, 2, size, size) by split."""
    count = sum(SIZES.values())
    x, y = cut(series(stride * (count - 1) + 24, size, size), 12, 12, stride)
    both, first, found = {}, 0, {}
    for split, number in SIZES.items():
        one = slice(first, first + number)
        first += number
        found[split] = np.concatenate([x[one], y[one]], axis=1)
        if kind == "X_c":
            name = "valid" if split == "val" else split
            flat = [a[one].reshape(number, 24, size, size) for a in (x, y)]
            both |= {f"{name}/X_c.npy": flat[0], f"{name}/Y.npy": flat[1]}
        else:
            both |= {f"{split}_input_data_reshaped.npy": x[one]}
            both |= {f"{split}_output_data_reshaped.npy": y[one]}
    for name, values in (both | changed).items():
        if values is not None:
            (path / name).parent.mkdir(exist_ok=True, parents=True)
            np.save(path / name, values)
    return found


@pytest.mark.parametrize("kind", ["X_c", "reshaped"])
def test_taxibj_plus_examples_are_stretches_of_past_and_future(tmp_path, kind):
    held = write_plus(tmp_path, kind)
    world = datasets.build("taxibj", path=tmp_path)
    assert world.name == "taxibj_plus"
    assert world.window is None
    number = 0
    for split, examples in held.items():
        assert len(world.splits[split]) == SIZES[split]
        windows = WindowDataset(world, split, past=12, lead=12)
        assert len(windows) == SIZES[split]
        for stretch, example in zip(world.splits[split], examples, strict=True):
            assert (stretch.first, stretch.stop) == (24 * number, 24 * number + 24)
            np.testing.assert_array_equal(world.frames[stretch.first : stretch.stop], example)
            number += 1
    # any slice is that of the array, also across examples and splits
    whole = np.concatenate(list(held.values())).reshape(-1, 2, 16, 16)
    for first, stop in ((0, 1), (11, 13), (20, 100), (23, 25), (280, 400), (503, 504), (7, 7)):
        np.testing.assert_array_equal(world.frames[first:stop], whole[first:stop])
    # a step of time goes on inside an example and breaks between two
    steps = np.diff(world.times) / np.timedelta64(1800, "s")
    assert (steps[np.arange(len(steps)) % 24 != 23] == 1).all()
    assert (steps[23::24] == 2).all()


@pytest.mark.parametrize("kind", ["X_c", "reshaped"])
def test_overlapping_published_splits_are_set_apart(tmp_path, kind):
    write_plus(tmp_path, kind, stride=12)
    world = datasets.build("taxibj", path=tmp_path)
    assert {k: len(v) for k, v in world.splits.items()} == {"train": 11, "val": 3, "test": 5}
    assert shared_frames(world) == set()


def test_subsampled_input_keeps_every_fourth_cell_of_the_past_alone(tmp_path):
    held = write_plus(tmp_path, "X_c")
    world = datasets.build("taxibj", path=tmp_path, subsample_input=4)
    assert world.name == "taxibj_plus_subsampled_input_4"
    example, frames = held["train"][2], world.frames[48:72]
    np.testing.assert_array_equal(frames[12:], example[12:])
    for row, column in itertools.product(range(16), range(16)):
        np.testing.assert_array_equal(
            frames[:12, :, row, column], example[:12, :, row // 4 * 4, column // 4 * 4]
        )
    # the published loader's own 32 × 32 input is in it, cell for cell
    np.testing.assert_array_equal(frames[:12, :, ::4, ::4], example[:12, :, ::4, ::4])
    assert len(WindowDataset(world, "val", past=12, lead=12)) == 4
    with pytest.raises(S2KDError, match="windows of 12 past and 12 future frames that differ"):
        WindowDataset(world, "val", past=4, lead=4)
    with pytest.raises(S2KDError, match="subsample_input=5 does not divide 16×16"):
        datasets.build("taxibj", path=tmp_path, subsample_input=5)


def test_negative_counts_become_nothing_and_holes_are_refused(tmp_path):
    x = series(12 * 12, 16, 16).reshape(12, 24, 16, 16)
    x[3, 5, 2, 2] = -4
    write_plus(tmp_path, "X_c", **{"train/X_c.npy": x})
    frames = datasets.build("taxibj", path=tmp_path).frames[72:96]
    assert frames[2, 1, 2, 2] == 0
    x[3, 5, 2, 2] = np.nan
    write_plus(tmp_path, "X_c", **{"train/X_c.npy": x})
    with pytest.raises(S2KDError, match=r"train/X_c.npy: holds values that are not finite"):
        datasets.build("taxibj", path=tmp_path).frames[72:96]


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("X_c", {"valid/Y.npy": None}, r"lacks valid/Y.npy; TaxiBJ\+ has SPLIT/X_c.npy"),
        ("reshaped", {"val_input_data_reshaped.npy": None}, "lacks val_input_data_reshaped.npy"),
        ("X_c", {"test/Y.npy": np.zeros((5, 23, 16, 16))}, r"Y.npy: has shape \(5, 23, 16, 16\)"),
        ("X_c", {"test/Y.npy": np.zeros((4, 24, 16, 16))}, "Y.npy: has 4 examples, .*X_c.npy 5"),
        ("X_c", {"valid/X_c.npy": np.zeros((4, 24, 8, 16))}, "one shape and grid"),
    ],
)
def test_faulty_taxibj_plus_is_named(tmp_path, kind, changed, message):
    write_plus(tmp_path, kind, **changed)
    with pytest.raises(S2KDError, match=message):
        datasets.build("taxibj", path=tmp_path)


def test_a_half_copied_array_is_refused(tmp_path):
    write_plus(tmp_path, "X_c")
    path = tmp_path / "train" / "X_c.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(S2KDError, match=r"X_c.npy: cut short, 100 bytes of \(12, 24, 16, 16\)"):
        datasets.build("taxibj", path=tmp_path)


def test_the_sample_of_changes_is_bounded_over_many_examples(tmp_path, monkeypatch):
    """By example it would read everything many times over."""
    write_plus(tmp_path, "reshaped")
    world = datasets.build("taxibj", path=tmp_path)
    read = []

    class Counting:
        shape = world.frames.shape

        def __getitem__(self, frames):
            read.append(frames.stop - frames.start)
            return world.frames[frames]

    monkeypatch.setattr(train_statistics, "SAMPLED_CHANGES", 6)
    known = statistics(replace(world, frames=Counting()), lead=11)
    assert sum(read) == 12 * 24 + 6 * 12  # once over, and one place of every other example
    held = np.concatenate([world.frames[s.first : s.stop] for s in world.splits["train"]])
    held = held.reshape(12, 24, 2, 16, 16)[::2].astype(np.float64)
    want = np.sqrt(((held[:, 1:12] - held[:, :1]) ** 2).mean((0, 1, 3, 4)))
    np.testing.assert_allclose(known.change, want, rtol=1e-6)


# --- describe and recipes -------------------------------------------------------------------------


def test_describe_knows_every_layout_and_recipes_read_them(tmp_path, folder):
    openstl, plus, reshaped = (tmp_path / name for name in ("one", "two", "three"))
    for path in (openstl, plus, reshaped):
        path.mkdir()
    write_openstl(openstl / "dataset.npz")
    write_plus(plus, "X_c")
    write_plus(reshaped, "reshaped")
    for path, kind, past in (
        (openstl, "OpenSTL's TaxiBJ", 4),
        (plus, "TaxiBJ+", 12),
        (reshaped, "TaxiBJ+", 12),
    ):
        found = describe(path)
        assert (found.kind, found.past, found.lead) == (kind, past, past)
        assert found.recipe_dataset == {"name": "taxibj", "params": {"path": str(path)}}
        assert found.problems == ()
    for name, path, past in (("taxibj", openstl, 4), ("taxibj", folder, 12),
                             ("taxibj_plus", plus, 12), ("taxibj_plus", reshaped, 12)):  # fmt: skip
        paper = recipes.get(name, data=str(path))
        assert (paper.past, paper.lead, paper.normalise) == (past, past, "minmax")
        assert paper.teacher.backbone.name == "earthfarseer"
        assert [student.name for student in paper.students] == ["unet", "resnet", "mixer"]
        small = recipes.get(name, data=str(path), preset="small")
        assert (small.past, small.lead, small.normalise) == (4, 4, "minmax")
        datasets.check(small.dataset.name, small.dataset.params)
    with pytest.raises(S2KDError, match="holds no TaxiBJ\\+ windows"):
        recipes.get("taxibj_plus", data=str(openstl))
    with pytest.raises(S2KDError, match="preset must be paper or small, got 'papre'"):
        recipes.get("taxibj", data=str(openstl), preset="papre")
