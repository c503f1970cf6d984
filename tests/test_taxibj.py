"""TaxiBJ's layout: whole days, never bridged, and every fault named."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from s2kd.core.types import S2KDError
from s2kd.data import datasets

REAL = os.environ.get("S2KD_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="needs real files: set S2KD_REAL_DATA")
SMALL = {"train_days": 3, "val_days": 1, "test_days": 1, "gap": 4}


def slots(days, first="2015-03-02"):
    """(slot,) YYYYMMDDss bytes of whole days from a Monday."""
    dates = [str(np.datetime64(first) + day).replace("-", "") for day in range(days)]
    return np.array([f"{date}{slot:02d}" for date in dates for slot in range(1, 49)], dtype="S10")


def counts(number):
    """(slot, 2, 4, 6): slot s counts s + 1 everywhere, so that a frame names its slot."""
    flow = np.ones((number, 2, 4, 6), dtype=np.float32)
    return flow * np.arange(1, number + 1)[:, None, None, None]


def write(path, date, data):
    with h5py.File(path, "w") as file:
        file["date"], file["data"] = date, data
    return path


@pytest.fixture
def week(tmp_path):
    """Five days with the slots 10 to 12 of the first missing and slot 60 an outage."""
    date, data = slots(5), counts(240)
    data[60] = 0
    keep = np.delete(np.arange(240), [10, 11, 12])
    return write(tmp_path / "BJ15_M32x32_T30_InOut.h5", date[keep], data[keep])


def covered(world, split):
    """The slots (by their counts) of each stretch."""
    return [
        (int(world.frames[s.first, 0, 0, 0]) - 1, int(world.frames[s.stop - 1, 0, 0, 0]) - 1)
        for s in world.splits[split]
    ]


def test_stretches_end_where_slots_are_missing_or_empty(week):
    world = datasets.build("taxibj", path=str(week), **SMALL)
    assert covered(world, "train") == [(0, 9), (13, 59), (61, 143)]
    assert covered(world, "val") == [(148, 191)]  # a day later, its first four slots left out
    assert covered(world, "test") == [(196, 239)]
    with_empty = datasets.build("taxibj", path=week, keep_empty=True, **SMALL)
    assert covered(with_empty, "train") == [(0, 9), (13, 143)]
    assert len(with_empty.frames) == 237


def test_every_stretch_is_one_half_hour_a_frame(week):
    world = datasets.build("taxibj", path=week, **SMALL)
    for stretches in world.splits.values():
        for stretch in stretches:
            steps = np.diff(world.times[stretch.first : stretch.stop])
            assert (steps == np.timedelta64(1800, "s")).all()
    assert world.times[0] == np.datetime64("2015-03-02T00:00")
    assert world.times[-1] == np.datetime64("2015-03-06T23:30")
    assert world.local_time
    assert world.grid.step_seconds == 1800
    assert world.grid.units == ("1", "1")
    assert world.grid.latitude is None


def test_days_of_the_week_are_known(tmp_path):
    path = write(tmp_path / "a_InOut.h5", slots(7), counts(336))
    world = datasets.build("taxibj", path=path, gap=0)
    assert world.context[0] == ("weekday",)
    assert [kind for (kind,) in world.context[::48]] == ["weekday"] * 5 + ["weekend"] * 2
    # 0.7, 0.1 and 0.2 of seven days, rounded to whole ones
    assert [covered(world, s)[0] for s in ("train", "val", "test")] == [
        (0, 239),
        (240, 287),
        (288, 335),
    ]


def test_a_folder_is_read_in_order_of_time(tmp_path):
    write(tmp_path / "BJ13_InOut.h5", slots(2, "2013-07-01"), counts(96))
    write(tmp_path / "BJ14_InOut.h5", slots(3, "2014-03-01"), counts(144) + 96)
    write(tmp_path / "other.h5", slots(1), counts(48))
    world = datasets.build("taxibj", path=tmp_path, **SMALL)
    assert covered(world, "train") == [(0, 95), (96, 143)]  # not joined over eight months
    assert world.times[96] == np.datetime64("2014-03-01T00:00")
    write(tmp_path / "BJ15_InOut.h5", slots(2, "2014-03-03"), counts(96))
    with pytest.raises(S2KDError, match=r"BJ15_InOut.h5: begins at .* before BJ14_InOut.h5 ends"):
        datasets.build("taxibj", path=tmp_path, **SMALL)


def npz(path, **changed):
    held = {
        "flow": counts(240).astype(np.int16),
        "date": slots(5),
        "valid": np.ones(240, dtype=bool),
        "lat_edges": np.linspace(37.8, 37.4, 5),
        "lon_edges": np.linspace(-122.5, -121.9, 7),
        **changed,
    }
    np.savez(path, **{key: value for key, value in held.items() if value is not None})
    return path


def test_npz_has_a_place_and_marks_slots(tmp_path):
    valid = np.ones(240, dtype=bool)
    valid[20:22] = False
    world = datasets.build("taxibj", path=npz(tmp_path / "a.npz", valid=valid), **SMALL)
    assert covered(world, "train") == [(0, 19), (22, 143)]
    np.testing.assert_allclose(world.grid.latitude, [37.75, 37.65, 37.55, 37.45])
    np.testing.assert_allclose(world.grid.longitude, np.arange(-122.45, -121.9, 0.1))


def test_npz_from_the_south_is_turned_north_up(tmp_path):
    flow = counts(240)
    flow[:, :, 3] += 1000  # the northernmost row of a file whose edges rise
    path = npz(tmp_path / "a.npz", flow=flow, lat_edges=np.linspace(37.4, 37.8, 5))
    world = datasets.build("taxibj", path=path, **SMALL)
    assert (world.frames[:, :, 0] > 1000).all()
    assert (world.frames[:, :, 1:] < 1000).all()
    assert world.grid.latitude[0] == pytest.approx(37.75)


def test_time_in_seconds_is_as_good_as_dates(tmp_path):
    hours = np.datetime64("2015-03-02") + 1800 * np.arange(240).astype("timedelta64[s]")
    seconds = npz(tmp_path / "a.npz", date=None, time=hours.astype("datetime64[s]").astype(int))
    one = datasets.build("taxibj", path=seconds, **SMALL)
    other = datasets.build("taxibj", path=npz(tmp_path / "b.npz"), **SMALL)
    assert (one.times == other.times).all()
    assert one.fingerprint == other.fingerprint


def test_what_is_not_a_count_is_put_right_or_cut_out(tmp_path):
    data = counts(240)
    data[5, 0, 0, 0] = -3
    data[50, 1, 2, 2] = np.nan
    world = datasets.build("taxibj", path=write(tmp_path / "a.h5", slots(5), data), **SMALL)
    assert world.frames[5, 0, 0, 0] == 0
    assert np.isfinite(world.frames).all()
    assert [s.stop for s in world.splits["train"]] == [50, 143]


def bad_dates(position, value):
    dates = slots(5).copy()
    dates[position] = value
    return dates


@pytest.mark.parametrize(
    ("date", "data", "message"),
    [
        (bad_dates(7, b"2015030249"), counts(240), r"'2015030249' at position 7 is not YYYYMMDDss"),
        (bad_dates(7, b"2015030200"), counts(240), "slot ss from 01 to 48"),
        (bad_dates(7, b"2015130208"), counts(240), "'2015130208' at position 7"),
        (bad_dates(7, b"nonsense"), counts(240), "'nonsense' at position 7"),
        (bad_dates(7, b"2015030207"), counts(240), "2015-03-02T03:00:00 at position 7 comes twice"),
        (bad_dates(7, b"2015030201"), counts(240), "at position 7 comes after 2015-03-02T03:00:00"),
        (
            slots(5),
            counts(240)[:, :1],
            r"data has shape \(240, 1, 4, 6\) .* wants numbers of shape",
        ),
        (slots(5), counts(240)[:, 0], r"data has shape \(240, 4, 6\)"),
        (slots(4), counts(240), r"date has shape \(192,\), data has 240 slots"),
        (slots(5), 0 * counts(240), "no slot is valid"),
    ],
)
def test_faulty_contents_are_named(tmp_path, date, data, message):
    path = write(tmp_path / "faulty.h5", date, data)
    with pytest.raises(S2KDError, match=r"faulty.h5: .*" + message):
        datasets.build("taxibj", path=path, **SMALL)


def test_missing_keys_are_named_with_what_is_there(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["date"], file["flows"] = slots(5), counts(240)
    with pytest.raises(S2KDError, match="needs `flow` or `data`, has date, flows"):
        datasets.build("taxibj", path=path)
    with pytest.raises(S2KDError, match="needs `date` or `time`, has flow, lat_edges, lon_edges"):
        datasets.build("taxibj", path=npz(tmp_path / "a.npz", date=None))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lat_edges": np.arange(4.0)}, r"lat_edges has shape \(4,\), wants 5 degrees"),
        ({"lon_edges": np.zeros(7)}, "lon_edges has shape"),
        ({"valid": np.ones(3, dtype=bool)}, r"valid has shape \(3,\), wants \(240,\)"),
        ({"date": None, "time": np.arange(240) * 1799}, "whole half-hours"),
    ],
)
def test_faulty_npz_is_named(tmp_path, changed, message):
    with pytest.raises(S2KDError, match=message):
        datasets.build("taxibj", path=npz(tmp_path / "a.npz", **changed))


def test_dates_may_be_stored_as_text_or_numbers(tmp_path):
    text = [date.decode() for date in slots(5)]
    one = datasets.build("taxibj", path=write(tmp_path / "a.h5", text, counts(240)), **SMALL)
    number = np.array(text, dtype=np.int64)
    other = datasets.build("taxibj", path=write(tmp_path / "b.h5", number, counts(240)), **SMALL)
    assert (one.times == other.times).all()
    assert one.times[47] == np.datetime64("2015-03-02T23:30")


@pytest.mark.parametrize("name", ["a.h5", "a.npz"])
def test_torn_files_are_refused(tmp_path, name):
    whole = npz(tmp_path / name) if name.endswith("npz") else write(tmp_path / name, slots(5), 0)
    if name.endswith("h5"):
        write(whole, slots(5), counts(240))
    content = whole.read_bytes()
    for size in (0, 10, len(content) // 2):
        Path(whole).write_bytes(content[:size])
        with pytest.raises(S2KDError, match=f"{name}: .* read.* as .*cut short"):
            datasets.build("taxibj", path=whole)


def test_paths_and_days_that_are_not_there(tmp_path, week):
    with pytest.raises(S2KDError, match="no such file or folder"):
        datasets.build("taxibj", path=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(S2KDError, match=r"no file called \*_InOut.h5 \(there is notes.txt\)"):
        datasets.build("taxibj", path=tmp_path / "empty")
    with pytest.raises(S2KDError, match="holds 5 days, too few for train, val and test of 9, 1, 1"):
        datasets.build("taxibj", path=week, train_days=9, val_days=1, test_days=1)
    with pytest.raises(S2KDError, match="at least 1; got 3, None, None of 5 days"):
        datasets.build("taxibj", path=week, train_days=3)
    with pytest.raises(S2KDError, match="three above 0 that add up to 1"):
        datasets.build("taxibj", path=week, fractions=(0.5, 0.1, 0.1))


def persistence(world, lag):
    """RMSE of the frame `lag` half-hours ago, where both are known."""
    later = world.times + lag * np.timedelta64(1800, "s")
    there = np.minimum(np.searchsorted(world.times, later), len(world.times) - 1)
    known = world.times[there] == later
    return np.sqrt(((world.frames[there[known]] - world.frames[known]) ** 2).mean())


@real
def test_real_flows():
    settings = {"train_days": 16, "val_days": 3, "test_days": 4}
    folder = Path(REAL)
    every = datasets.build("taxibj", path=folder / "SF08_M32x32_T30_InOut.h5", keep_empty=True)
    world = datasets.build("taxibj", path=folder / "taxi_sf_32x32_30min.npz", **settings)
    for lag, known in ((1, 3.64), (4, 5.73), (48, 4.93)):  # over all slots, outages too
        assert persistence(every, lag) == pytest.approx(known, abs=0.005)
        assert 0.95 * known < persistence(world, lag) < known  # an outage is never easy
    assert len(world.frames) == 1119 - 5
    assert len(world.splits["train"]) == 3  # two outages
    assert world.grid.latitude[0] == pytest.approx(37.81025)
