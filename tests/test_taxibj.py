"""TaxiBJ and TaxiBJ+ in every published layout, as miniatures; errors by name."""

import itertools
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from records import frames_of

from s2kd.core.types import S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers.taxibj import describe_layout
from s2kd.pipeline import recipes

REAL = os.environ.get("S2KD_REAL_DATA")


def read(path, **settings):
    return readers.build("taxibj", path=str(path), **settings)


def slots(days, first="2015-03-02"):
    """(slot,) YYYYMMDDss bytes of whole days from a Monday."""
    dates = [str(np.datetime64(first) + day).replace("-", "") for day in range(days)]
    return np.array([f"{date}{slot:02d}" for date in dates for slot in range(1, 49)], dtype="S10")


def counts(number):
    """(slot, 2, 4, 6): slot s counts s + 1 everywhere, so that a frame names its slot."""
    flow = np.ones((number, 2, 4, 6), dtype=np.float32)
    return flow * np.arange(1, number + 1)[:, None, None, None]


def write(path, dates, data):
    with h5py.File(path, "w") as file:
        file["date"], file["data"] = dates, data
    return path


def npz(path, **changed):
    arrays = {
        "flow": counts(240).astype(np.int16),
        "date": slots(5),
        "valid": np.ones(240, dtype=bool),
        "lat_edges": np.linspace(37.8, 37.4, 5),
        "lon_edges": np.linspace(-122.5, -121.9, 7),
        **changed,
    }
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def slot_numbers(record):
    """The slot that each frame names."""
    return (record.inflow[:, 0, 0].values - 1).astype(int).tolist()


# --- by slot --------------------------------------------------------------------------------------


def test_slots_that_are_missing_empty_invalid_or_not_finite_are_left_out(tmp_path):
    data = counts(240)
    data[60] = 0  # an outage
    data[50, 1, 2, 2] = np.nan
    data[5, 0, 3, 3] = -3
    keep = np.delete(np.arange(240), [10, 11, 12])
    path = write(tmp_path / "BJ15_InOut.h5", slots(5)[keep], data[keep])
    record = read(path)
    expected = np.delete(np.arange(240), [10, 11, 12, 50, 60])
    assert slot_numbers(record) == expected.tolist()
    times = np.datetime64("2015-03-02") + expected * np.timedelta64(30, "m")
    np.testing.assert_array_equal(record.time.values, times)
    assert record.inflow[5, 3, 3] == 0
    assert record.attrs["local_time"]
    assert -1 in slot_numbers(read(path, keep_empty=True))  # the outage counts 0
    assert slot_numbers(read(path, whole_days=True)) == [n for n in expected if n >= 48]
    valid = np.ones(240, dtype=bool)
    valid[20:22] = False
    record = read(npz(tmp_path / "a.npz", valid=valid))
    assert slot_numbers(record) == np.delete(np.arange(240), [20, 21]).tolist()
    np.testing.assert_allclose(record.latitude, [37.75, 37.65, 37.55, 37.45])
    np.testing.assert_allclose(record.longitude, np.arange(-122.45, -121.9, 0.1))


def test_npz_from_the_south_is_turned_north_up(tmp_path):
    flow = counts(240)
    flow[:, :, 3] += 1000  # the northernmost row of a file whose edges rise
    record = read(npz(tmp_path / "a.npz", flow=flow, lat_edges=np.linspace(37.4, 37.8, 5)))
    assert (record.inflow[:, 0] > 1000).all()
    assert (record.inflow[:, 1:] < 1000).all()
    assert record.latitude[0] == pytest.approx(37.75)


def test_dates_are_text_numbers_or_seconds(tmp_path):
    expected = np.datetime64("2015-03-02") + np.arange(240) * np.timedelta64(30, "m")
    text = [date.decode() for date in slots(5)]
    seconds = expected.astype("datetime64[s]").astype(int)
    for path in (
        write(tmp_path / "a.h5", text, counts(240)),
        write(tmp_path / "b.h5", np.array(text, dtype=np.int64), counts(240)),
        npz(tmp_path / "a.npz", date=None, time=seconds),
    ):
        np.testing.assert_array_equal(read(path).time.values, expected)
    leap = read(write(tmp_path / "c.h5", slots(3, "2016-02-28"), counts(144)))
    assert leap.time.values[48] == np.datetime64("2016-02-29T00:00")


def test_a_folder_is_read_in_order_of_time(tmp_path):
    write(tmp_path / "BJ14_InOut.h5", slots(2, "2013-07-01"), counts(96))
    write(tmp_path / "BJ13_InOut.h5", slots(3, "2014-03-01"), counts(144) + 96)
    write(tmp_path / "other.h5", slots(1), counts(48))
    record = read(tmp_path)
    assert slot_numbers(record) == list(range(240))
    assert record.time.values[96] == np.datetime64("2014-03-01T00:00")
    write(tmp_path / "BJ15_InOut.h5", slots(2, "2014-03-03"), counts(96))
    with pytest.raises(S2KDError, match=r"03T00:00:00 comes after 2014-03-03T23:30"):
        read(tmp_path)


def changed_date(position, value):
    dates = slots(5).copy()
    dates[position] = value
    return dates


@pytest.mark.parametrize(
    ("dates", "data", "message"),
    [
        (changed_date(7, b"2015030249"), counts(240), "'2015030249' at position 7 is not YYYYMM"),
        (changed_date(7, b"2015030200"), counts(240), "slot ss from 01 to 48"),
        (changed_date(7, b"2015022908"), counts(240), "'2015022908' at position 7"),
        (changed_date(7, b"nonsense"), counts(240), "'nonsense' at position 7"),
        (changed_date(7, b"2015030207"), counts(240), "2T03:00:00 comes after 2015-03-02T03:00:00"),
        (changed_date(7, b"2015030201"), counts(240), "2T00:00:00 comes after 2015-03-02T03"),
        (slots(5), counts(240)[:, :1], r"data has shape \(240, 1, 4, 6\)"),
        (slots(5), counts(240)[:, 0], r"data has shape \(240, 4, 6\)"),
        (slots(4), counts(240), r"date: has shape \(192,\), but must have \(240,\)"),
        (slots(5), 0 * counts(240), "no slot is valid"),
    ],
)
def test_bad_contents_are_named(tmp_path, dates, data, message):
    path = write(tmp_path / "bad.h5", dates, data)
    with pytest.raises(S2KDError, match=r"bad.h5: .*" + message):
        read(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lat_edges": np.arange(4.0)}, r"lat_edges: has shape \(4,\), but must have \(5,\)"),
        ({"lon_edges": np.zeros(7)}, "longitudes must only rise or only fall"),
        ({"date": None, "time": np.arange(240) * 1799}, "an even part of a day"),
        ({"date": None}, r"no key 'date' \(it has flow \(240"),
        ({"flow": None, "flows": 1}, "no key 'flow'; did you mean 'flows'"),
    ],
)
def test_bad_npz_files_are_named(tmp_path, changed, message):
    with pytest.raises(S2KDError, match=message):
        read(npz(tmp_path / "a.npz", **changed))


def test_files_that_are_absent(tmp_path):
    with pytest.raises(S2KDError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(S2KDError, match=r"a folder without files called \*_InOut.h5"):
        read(tmp_path)


# --- weather and holidays -------------------------------------------------------------------------


def write_weather(path, dates, **changed):
    """Sunny and 20 °C, from slot 60 heavy rain, -3 °C and a gale."""
    kinds = np.zeros((len(dates), 17))
    kinds[:60, 0] = kinds[60:, 6] = 1
    arrays = {
        "date": dates,
        "Weather": kinds,
        "Temperature": np.where(np.arange(len(dates)) < 60, 20.0, -3.0),
        "WindSpeed": np.where(np.arange(len(dates)) < 60, 4.0, 30.0),
        **changed,
    }
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if value is not None:
                file[key] = value


@pytest.fixture
def folder(tmp_path):
    dates = slots(6, "2015-05-01")
    write(tmp_path / "BJ15_M32x32_T30_InOut.h5", dates, counts(288))
    write_weather(tmp_path / "BJ_Meteorology.h5", dates)
    (tmp_path / "BJ_Holiday.txt").write_text("20150501\n20150504\n")
    return tmp_path


def test_weather_and_holidays_are_words_of_their_slot(folder):
    context = read(folder).context.values
    assert context[0] == ("weekday", "holiday", "sunny", "warm")
    assert context[59][-2:] == ("sunny", "warm")
    assert context[60] == ("weekend", "heavy rain", "freezing", "strong wind")
    assert context[3 * 48] == ("weekday", "holiday", "heavy rain", "freezing", "strong wind")
    without = read(folder, weather=False, holidays=False)
    assert set(without.context.values) == {("weekday",), ("weekend",)}
    np.testing.assert_array_equal(frames_of(without), frames_of(read(folder)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Weather": None}, r"no key 'Weather' \(it has Temperature"),
        ({"Weather": np.zeros((288, 5))}, r"Weather: has shape \(288, 5\), but .* \(288, 17\)"),
        ({"date": np.array([b"2015050149"] * 288)}, "not YYYYMMDDss"),
    ],
)
def test_bad_weather_and_holidays_are_named(folder, changed, message):
    write_weather(folder / "BJ_Meteorology.h5", changed.pop("date", slots(6)), **changed)
    with pytest.raises(S2KDError, match=r"BJ_Meteorology.h5: .*" + message):
        read(folder)
    (folder / "BJ_Holiday.txt").write_text("20150501\n20150230\n")
    with pytest.raises(S2KDError, match=r"BJ_Holiday.txt: entry 2 is '20150230', but must be"):
        read(folder)


# --- OpenSTL's dataset.npz ------------------------------------------------------------------------


def series(count, height=8, width=8):
    """(frame, 2, height, width) counts, every frame unlike any other."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 200, (count, 2, height, width)).astype(np.float32)


def cut(frames, past, lead, stride=1):
    """Past and future frames of every window, (window, past or lead, 2, height, width)."""
    starts = range(0, len(frames) - past - lead + 1, stride)
    past_frames = np.stack([frames[s : s + past] for s in starts])
    return past_frames, np.stack([frames[s + past : s + past + lead] for s in starts])


def write_openstl(path, *, packed=False, frames=None, **changed):
    """80 sliding windows of one series of -1 … 1, the last 20 of them the test set."""
    frames = series(87) / 100 - 1 if frames is None else frames
    x, y = cut(frames, 4, 4)
    arrays = {"X_train": x[:60], "Y_train": y[:60], "X_test": x[60:], "Y_test": y[60:]}
    arrays = {key: value for key, value in (arrays | changed).items() if value is not None}
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    return frames


def windows_of(record, split, length):
    """(window, frame, channel, row, column) of a published split."""
    frames = frames_of(record.isel(time=record.split.values == split))
    return frames.reshape(-1, length, *frames.shape[1:])


@pytest.mark.parametrize("packed", [False, True])
def test_openstl_windows_are_those_in_the_file(tmp_path, packed):
    frames = write_openstl(tmp_path / "dataset.npz", packed=packed)
    nested = tmp_path / "fetched" / "openstl" / "taxibj"
    nested.mkdir(parents=True)
    shutil.copy(tmp_path / "dataset.npz", nested)
    for path in (nested, tmp_path / "fetched", tmp_path / "dataset.npz"):
        record = read(path, maximum=1292.0)
        test = windows_of(record, "test", 8)
        assert len(test) == 20
        for number in (0, 7, 19):
            expected = (frames[60 + number : 68 + number] + 1) * 646
            np.testing.assert_allclose(test[number], expected, rtol=1e-5, atol=1e-3)
    assert frames_of(read(tmp_path / "dataset.npz")).max() <= 1  # fractions of the maximum


def shared_frames(record, length):
    """Pairs of splits that hold the same frame."""
    looks = {
        split: {frame.tobytes() for window in windows_of(record, split, length) for frame in window}
        for split in ("train", "val", "test")
    }
    return {(a, b) for a, b in itertools.combinations(looks, 2) if looks[a] & looks[b]}


def sizes(record, length):
    return [len(windows_of(record, split, length)) for split in ("train", "val", "test")]


def test_windows_that_overlap_a_later_split_are_dropped(tmp_path):
    write_openstl(tmp_path / "dataset.npz")
    record = read(tmp_path, val_fraction=0.3)
    # a window of 8 shares frames with the 7 before another split: 53 of 60 are left by the test,
    # 16 of them are val
    assert sizes(record, 8) == [60 - 7 - 16 - 7, 16, 20]
    assert shared_frames(record, 8) == set()
    assert "left out 14 of train windows" in record.attrs["notices"][0]
    published = read(tmp_path, val_fraction=0.3, shared="keep")
    assert sizes(published, 8) == [42, 18, 20]
    assert ("train", "val") in shared_frames(published, 8)
    frames = series(87) / 100 - 1
    frames[[3, 40, 80]] = -1  # outages look alike, and do not count as shared
    write_openstl(tmp_path / "dataset.npz", frames=frames)
    assert sizes(read(tmp_path, val_fraction=0.3), 8) == [30, 16, 20]


def test_windows_in_no_order_of_time_are_refused(tmp_path):
    x, y = cut(series(87) / 100 - 1, 4, 4)
    order = np.random.default_rng(1).permutation(len(x))
    np.savez(
        tmp_path / "dataset.npz",
        X_train=x[order[:60]], Y_train=y[order[:60]], X_test=x[order[60:]], Y_test=y[order[60:]],
    )  # fmt: skip
    with pytest.raises(S2KDError, match="were not cut in order of time; shared='keep'"):
        read(tmp_path)
    assert read(tmp_path, shared="keep").sizes["time"] == 80 * 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"Y_test": np.zeros((3, 4, 2, 8, 8))},
            r"number of windows.*\(20, 4, 2, 8, 8\), \(3, 4",
        ),
        ({"X_train": np.zeros((60, 4, 3, 8, 8))}, r"X_train: has shape \(60, 4, 3, 8, 8\), but"),
        ({"Y_train": np.zeros((60, 4, 2, 8, 4))}, r"one length and grid.*\(60, 4, 2, 8, 4\)"),
        ({"Y_test": None}, "no key 'Y_test'"),
        ({"X_train": np.array(["a"])}, "X_train: holds <U1, but numbers are needed"),
        ({"X_train": np.full((60, 4, 2, 8, 8), 199.0)}, "holds values from 0 to 199; OpenSTL's"),
    ],
)
def test_bad_openstl_arrays_are_named(tmp_path, changed, message):
    write_openstl(tmp_path / "dataset.npz", **changed)
    with pytest.raises(S2KDError, match=message):
        frames_of(read(tmp_path))


# --- TaxiBJ+ --------------------------------------------------------------------------------------

SIZES = {"train": 12, "val": 4, "test": 5}


def write_plus(path, layout, *, stride=24, size=16, **changed):
    """Windows of 12 to 12 in a layout; returns (window, 24, 2, size, size) by split."""
    count = sum(SIZES.values())
    x, y = cut(series(stride * (count - 1) + 24, size, size), 12, 12, stride)
    files, first, windows = {}, 0, {}
    for split, number in SIZES.items():
        part = slice(first, first + number)
        first += number
        windows[split] = np.concatenate([x[part], y[part]], axis=1)
        if layout == "X_c":
            name = "valid" if split == "val" else split
            flat = [a[part].reshape(number, 24, size, size) for a in (x, y)]
            files |= {f"{name}/X_c.npy": flat[0], f"{name}/Y.npy": flat[1]}
        else:
            files |= {f"{split}_input_data_reshaped.npy": x[part]}
            files |= {f"{split}_output_data_reshaped.npy": y[part]}
    for name, values in (files | changed).items():
        if values is not None:
            (path / name).parent.mkdir(exist_ok=True, parents=True)
            np.save(path / name, values)
    return windows


@pytest.mark.parametrize("layout", ["X_c", "reshaped"])
def test_taxibj_plus_windows_are_past_and_future_in_a_row(tmp_path, layout):
    windows = write_plus(tmp_path, layout)
    record = read(tmp_path)
    assert record.attrs["name"] == "taxibj_plus"
    assert "window" not in record.attrs
    for split, expected in windows.items():
        np.testing.assert_array_equal(windows_of(record, split, 24), expected)
    # time goes on inside a window and breaks between two
    steps = np.diff(record.time.values) / np.timedelta64(1800, "s")
    assert (steps[np.arange(len(steps)) % 24 != 23] == 1).all()
    assert (steps[23::24] == 2).all()
    write_plus(tmp_path, layout, stride=12)
    overlapping = read(tmp_path)
    assert sizes(overlapping, 24) == [11, 3, 5]
    assert shared_frames(overlapping, 24) == set()


def test_subsampled_input_keeps_every_fourth_cell_of_the_past_alone(tmp_path):
    windows = write_plus(tmp_path, "X_c")
    record = read(tmp_path, subsample_input=4)
    assert record.attrs["name"] == "taxibj_plus_subsampled_input_4"
    assert record.attrs["window"] == (12, 12)
    example, frames = windows["train"][2], windows_of(record, "train", 24)[2]
    np.testing.assert_array_equal(frames[12:], example[12:])
    for row, column in itertools.product(range(16), range(16)):
        np.testing.assert_array_equal(
            frames[:12, :, row, column], example[:12, :, row // 4 * 4, column // 4 * 4]
        )
    with pytest.raises(S2KDError, match="subsample_input=5 does not divide 16×16"):
        read(tmp_path, subsample_input=5)


def test_negative_counts_become_zero(tmp_path):
    x = series(12 * 12, 16, 16).reshape(12, 24, 16, 16)
    x[3, 5, 2, 2] = -4
    write_plus(tmp_path, "X_c", **{"train/X_c.npy": x})
    assert windows_of(read(tmp_path), "train", 24)[3, 2, 1, 2, 2] == 0


@pytest.mark.parametrize(
    ("layout", "changed", "message"),
    [
        ("X_c", {"valid/Y.npy": None}, "valid/Y.npy: no such file"),
        (
            "reshaped",
            {"val_input_data_reshaped.npy": None},
            "val_input_data_reshaped.npy: no such file",
        ),
        ("X_c", {"test/Y.npy": np.zeros((5, 23, 16, 16))}, r"Y.npy: has shape \(5, 23, 16, 16\)"),
        (
            "X_c",
            {"test/Y.npy": np.zeros((4, 24, 16, 16))},
            r"windows.*\(5, 12, 2, 16, 16\), \(4, 12",
        ),
        ("X_c", {"valid/X_c.npy": np.zeros((4, 24, 8, 16))}, "one length and grid"),
    ],
)
def test_bad_taxibj_plus_files_are_named(tmp_path, layout, changed, message):
    write_plus(tmp_path, layout, **changed)
    with pytest.raises(S2KDError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ("published windows", {"whole_days": True}),
        ("published windows", {"keep_empty": True}),
        ("TaxiBJ", {"maximum": 1292.0}),
        ("files by slot", {"maximum": 1292.0}),
        ("files by slot", {"shared": "keep"}),
    ],
)
def test_settings_of_another_layout_are_refused(tmp_path, folder, layout, settings):
    path = folder
    if layout != "files by slot":
        path = tmp_path / "plus"
        write_plus(path, "X_c")
    (name,) = settings
    with pytest.raises(S2KDError, match=f"taxibj: {name} has no meaning for {layout}"):
        read(path, **settings)


# --- description, recipes, real files -------------------------------------------------------------


def test_every_layout_is_recognised_and_has_a_recipe(tmp_path, folder):
    openstl, plus, reshaped = (tmp_path / name for name in ("one", "two", "three"))
    openstl.mkdir()
    write_openstl(openstl / "dataset.npz")
    write_plus(plus, "X_c")
    write_plus(reshaped, "reshaped")
    for path, recipe, past in (
        (openstl, "taxibj", 4),
        (folder, "taxibj", 12),
        (folder / "BJ15_M32x32_T30_InOut.h5", "taxibj", 12),
        (plus, "taxibj_plus", 12),
        (reshaped, "taxibj_plus", 12),
    ):
        described = describe_layout(path)
        assert (described.reader, described.recipe) == ("taxibj", recipe)
        assert described.settings == {"path": str(path)}
        paper = recipes.get(recipe, data=str(path))
        assert (paper.past, paper.lead, paper.normalise) == (past, past, "minmax")
        assert paper.teacher.backbone.name == "earthfarseer"
        small = recipes.get(recipe, data=str(path), preset="small")
        assert (small.past, small.lead, small.normalise) == (4, 4, "minmax")
        readers.check(small.dataset.name, small.dataset.params)
    assert describe_layout(folder / "BJ_Holiday.txt") is None
    with pytest.raises(S2KDError, match="holds no TaxiBJ\\+ windows"):
        recipes.get("taxibj_plus", data=str(openstl))


@pytest.mark.skipif(REAL is None, reason="needs real files: set S2KD_REAL_DATA")
def test_real_flows():
    folder = Path(REAL)
    every = read(folder / "SF08_M32x32_T30_InOut.h5", keep_empty=True)
    record = read(folder / "taxi_sf_32x32_30min.npz")
    assert record.sizes["time"] == 1119 - 5
    assert record.latitude[0] == pytest.approx(37.81025)
    for lag, expected in ((1, 3.64), (4, 5.73), (48, 4.93)):  # over all slots, outages too
        assert persistence(every, lag) == pytest.approx(expected, abs=0.005)
        assert 0.95 * expected < persistence(record, lag) < expected  # an outage is never easy


def persistence(record, lag):
    """RMSE of the frame `lag` half-hours ago, where both are there."""
    frames, times = frames_of(record), record.time.values
    later = times + lag * np.timedelta64(1800, "s")
    index = np.minimum(np.searchsorted(times, later), len(times) - 1)
    present = times[index] == later
    return np.sqrt(((frames[index[present]] - frames[present]) ** 2).mean())
