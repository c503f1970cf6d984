"""The arrays reader: any order of axes, any file, one series or several runs, errors by name."""

import h5py
import numpy as np
import pytest
from records import frames_of, run_names

from s2kd.core.types import S2KDError
from s2kd.data.readers import _array_files, readers
from s2kd.data.readers.arrays import describe_layout

FRAMES = np.random.default_rng(0).normal(280, 9, (3, 60, 2, 4, 6)).astype(np.float32)
"""(run, time, channel, row, column)"""


def read(path, **settings):
    return readers.build("arrays", path=str(path), **settings)


def arranged(layout, frames=FRAMES):
    """Frames in the order of `layout`; the first entry of each absent axis."""
    index = tuple(slice(None) if letter in layout else 0 for letter in "RTCHW")
    present = [letter for letter in "RTCHW" if letter in layout]
    return np.ascontiguousarray(
        frames[index].transpose([present.index(letter) for letter in layout])
    )


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


@pytest.mark.parametrize("kind", ["npy", "npz", "packed", "h5"])
@pytest.mark.parametrize("layout", ["TCHW", "THWC", "CHWT", "WHT", "THW"])
def test_axes_in_any_order_from_any_file(tmp_path, layout, kind):
    record = read(
        save(tmp_path, kind, arranged(layout)), layout=layout, step_seconds=3600, start="2016-02-28"
    )
    expected = FRAMES[0] if "C" in layout else FRAMES[0, :, :1]
    np.testing.assert_array_equal(frames_of(record), expected)
    np.testing.assert_array_equal(frames_of(record.isel(time=slice(17, 23))), expected[17:23])
    assert record.time.values[24] == np.datetime64("2016-02-29")  # a leap day
    assert record.attrs["step_seconds"] == 3600


def test_column_major_arrays_and_other_types(tmp_path):
    for name, save_array in (("a.npy", np.save), ("a.npz", np.savez)):
        save_array(tmp_path / name, np.asfortranarray(arranged("TCHW")))
        record = read(tmp_path / name, step_seconds=60.0)
        np.testing.assert_array_equal(frames_of(record)[3:9], FRAMES[0, 3:9])
    for dtype in (">f4", "f8", "i2", "u1", "f2"):
        values = (arranged("TCHW") - 200).astype(dtype)
        np.save(tmp_path / "a.npy", values)
        frames = frames_of(read(tmp_path / "a.npy", step_seconds=60.0))
        assert frames.dtype == np.float32
        np.testing.assert_array_equal(frames, values.astype(np.float32))


def test_a_large_packed_array_is_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(_array_files, "CHUNK_BYTES", 4 * 2 * 4 * 6 * 7)
    record = read(save(tmp_path, "packed", arranged("TCHW")), step_seconds=1)
    assert set(record.chunksizes["time"]) == {7, 4}
    for first in (40, 10, 41):  # also backwards
        piece = frames_of(record.isel(time=slice(first, first + 15)))
        np.testing.assert_array_equal(piece, FRAMES[0, first : first + 15])


@pytest.mark.parametrize("kind", ["npy", "packed", "h5"])
@pytest.mark.parametrize(
    "frames", [slice(None, None, 7), slice(50, 10, -3), slice(9, 9), slice(-4, None), [3, 30, 8]]
)
def test_any_choice_of_frames_is_read(tmp_path, kind, frames):
    record = read(save(tmp_path, kind, arranged("TCHW")), step_seconds=1)
    np.testing.assert_array_equal(frames_of(record.isel(time=frames)), FRAMES[0, frames])
    np.testing.assert_array_equal(record.channel_0[11], FRAMES[0, 11, 0])


def test_rows_are_turned_north_and_columns_west(tmp_path):
    frames = np.zeros((20, 1, 4, 6), dtype=np.float32)
    frames[:, 0, 0, 5] = 1.0  # a blob in the south-east of a file that begins in the south
    path = tmp_path / "turned.npz"
    np.savez(path, field=frames, lats=[-60.0, -20, 20, 60], lons=[300.0, 240, 180, 120, 60, 0])
    settings = {"key": "field", "step_seconds": 60}
    record = read(path, latitude="lats", longitude="lons", **settings)
    assert record.latitude.values.tolist() == [60, 20, -20, -60]
    assert record.longitude.values.tolist() == [0, 60, 120, 180, 240, 300]
    assert (record.channel_0[:, 3, 0] == 1).all()
    listed = read(path, latitude=[-60, -20, 20, 60], south_first=True, **settings)
    turned = read(path, south_first=True, **settings)
    for record in (listed, turned):
        assert (record.channel_0[:, 3, 5] == 1).all()
    assert "latitude" not in turned.coords


@pytest.mark.parametrize("kind", ["datetime", "text", "bytes", "seconds", "file"])
def test_times_are_read_in_any_form(tmp_path, kind):
    hours = np.r_[0:30, 33:63].astype("timedelta64[h]")
    times = np.datetime64("2016-02-28T12", "ns") + hours
    text = np.datetime_as_string(times, unit="s")
    stored = {
        "datetime": times.astype("datetime64[s]"),
        "text": np.char.replace(text, "T", " "),
        "bytes": text.astype("S"),
        "seconds": hours.astype(int) * 3600.0,
        "file": times,
    }[kind]
    np.savez(tmp_path / "mine.npz", field=arranged("TCHW"), when=stored)
    np.save(tmp_path / "when.npy", stored)
    record = read(
        tmp_path / "mine.npz",
        key="field",
        start="2016-02-28T12",
        time="when.npy" if kind == "file" else "when",
    )
    np.testing.assert_array_equal(record.time.values, times)


def test_several_files_are_one_series(tmp_path):
    times = np.datetime64("2013-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h")
    for name, part in (("b", slice(0, 20)), ("a", slice(20, 45)), ("c", slice(45, 60))):
        np.savez(tmp_path / f"{name}.npz", field=FRAMES[0, part], when=times[part])
        np.save(tmp_path / f"{'xyz'['bac'.index(name)]}.npy", FRAMES[0, part])
    files = [str(tmp_path / f"{name}.npz") for name in "cab"]
    for path in (str(tmp_path / "*.npz"), files):
        record = readers.build("arrays", path=path, key="field", time="when")
        np.testing.assert_array_equal(frames_of(record), FRAMES[0])
        np.testing.assert_array_equal(record.time.values, times)
    untimed = read(tmp_path / "*.npy", step_seconds=60)
    np.testing.assert_array_equal(frames_of(untimed), FRAMES[0])
    assert (np.diff(untimed.time.values) == np.timedelta64(60, "s")).all()


def test_files_and_entries_are_runs(tmp_path):
    for number, name in enumerate(("calm", "storm_1", "storm_2")):
        np.save(tmp_path / f"{name}.npy", FRAMES[number])
    record = read(tmp_path, step_seconds=60, join="runs")
    assert run_names(record) == ["calm", "storm_1", "storm_2"]
    np.testing.assert_array_equal(frames_of(record), FRAMES.reshape(180, 2, 4, 6))
    assert record.time.values[60] == record.time.values[0]
    path = save(tmp_path, "h5", arranged("RHWT"), "stacked")
    record = read(path, layout="RHWT", join="runs", step_seconds=1)
    assert run_names(record) == ["stacked_0", "stacked_1", "stacked_2"]
    np.testing.assert_array_equal(frames_of(record)[120:, 0], FRAMES[2, :, 0])


@pytest.mark.parametrize("layout", ["THW", "RTHW", "HTW"])
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_several_keys_are_the_channels_in_their_order(tmp_path, kind, layout):
    east, north = arranged(layout), arranged(layout, FRAMES[:, :, 1:]).astype(np.float64)
    path = tmp_path / f"wind.{kind}"
    if kind == "npz":
        np.savez(path, u=east, v=north, other=np.zeros(3))
    else:
        with h5py.File(path, "w") as file:
            file["u"], file["v"] = east, north
    settings = {"step_seconds": 60, "layout": layout, "join": "runs" if "R" in layout else "time"}
    record = read(path, key=["v", "u"], **settings)
    expected = (FRAMES if "R" in layout else FRAMES[:1])[:, :, ::-1].reshape(-1, 2, 4, 6)
    np.testing.assert_array_equal(frames_of(record), expected)
    assert list(record) == ["v", "u"]
    assert list(read(path, key=["v", "u"], channels=["north", "east"], **settings)) == [
        "north", "east",
    ]  # fmt: skip
    single = read(path, key=["v"], **settings)
    np.testing.assert_array_equal(frames_of(single), expected[:, :1])


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "TCWX"}, "layout='TCWX' must name T, H and W once"),
        ({"layout": "THW"}, r"mine.npy \(60, 2, 4, 6\) must have the 3 axes of layout='THW'"),
        ({"layout": "RTHW"}, "a layout with R holds several runs, so set join='runs'"),
        ({"channels": ["u"]}, r"has 2 channels .* but channels=\['u'\]"),
        ({"units": ["K"] * 3}, r"units=\['K', 'K', 'K'\]"),
        ({"step_seconds": None}, r"mine.npy: set step_seconds"),
        ({"step_seconds": -60}, "above 0, got -60"),
        ({"start": "yesterday"}, "start: 'seconds since yesterday' is neither a date"),
        ({"join": "tme"}, "join: must be one of time, runs, got 'tme'; did you mean 'time'"),
        ({"key": "field"}, r"mine.npy: no key 'field'"),
        ({"time": "when"}, r"mine.npy: no key 'when'"),
        ({"latitude": [1, 2, 3]}, "has 4 rows, but 3 degrees"),
        ({"longitude": [1, 2, 2, 3, 4, 5]}, "longitudes must only rise or only fall"),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, message):
    path = save(tmp_path, "npy", arranged("TCHW"))
    with pytest.raises(S2KDError, match=message):
        read(path, **({"step_seconds": 60} | settings))


def test_files_and_keys_that_do_not_fit_are_named(tmp_path):
    save(tmp_path, "npy", FRAMES[0], "a")
    save(tmp_path, "npy", FRAMES[0, :, :, :3], "b")
    with pytest.raises(S2KDError, match=r"b.npy have shape \(2, 3, 6\), .*a.npy \(2, 4, 6"):
        read(tmp_path, step_seconds=60)
    path = tmp_path / "two.npz"
    np.savez(path, u=FRAMES[0], v=FRAMES[0], w=FRAMES[0, :, 0], x=FRAMES[0, :, 0, :3], names=["a"])
    for settings, message in (
        ({}, r"set key to the array to read \(it has u \(60, 2, 4"),
        ({"key": "uu"}, r"two.npz: no key 'uu'; did you mean 'u'"),
        ({"key": "names"}, "names: holds <U1, but numbers are needed"),
        ({"key": ["w", "x"], "layout": "THW"}, r"x \(60, 3, 6\) must .* share one shape"),
        ({"key": ["u", "v"]}, "several keys.* without C"),
        ({"key": ["w", "y"], "layout": "THW"}, "no key 'y'"),
    ):
        with pytest.raises(S2KDError, match=message):
            read(path, step_seconds=60, **settings)
    np.save(tmp_path / "pickle.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    (tmp_path / "notes.txt").touch()
    for name, message in (
        ("pickle.npy", r"pickle.npy: not readable as .npy of numbers"),
        ("*.h5", "no such file, folder or pattern"),
        ("notes.txt", "notes.txt: is neither .npy, .npz nor HDF5"),
    ):
        with pytest.raises(S2KDError, match=message):
            read(tmp_path / name, step_seconds=60)


@pytest.mark.parametrize("kind", ["npy", "npz", "packed", "h5"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.97])
def test_files_that_are_cut_short_are_refused(tmp_path, kind, share):
    path = save(tmp_path, kind, arranged("TCHW"))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(S2KDError, match=path.name):
        frames_of(read(path, step_seconds=60))


def test_unix_time_is_not_counted_from_another_year(tmp_path):
    times = np.datetime64("2023-03-01", "s") + np.arange(60) * np.timedelta64(30, "m")
    path = tmp_path / "mine.npz"
    np.savez(
        path, counts=arranged("THW"), timestamps=times.astype(int), ms=times.astype(int) * 1000
    )
    settings = {"key": "counts", "layout": "THW"}
    for key in ("timestamps", "ms"):
        record = read(path, time=key, **settings)
        np.testing.assert_array_equal(record.time.values, times)
    for start in ("1970-01-01", "2000-01-01"):  # an explicit start is used as it is
        record = read(path, time="timestamps", start=start, **settings)
        since = times - np.datetime64("1970-01-01", "s")
        np.testing.assert_array_equal(record.time.values, np.datetime64(start, "ns") + since)
    layout = describe_layout(path)
    assert any("seconds since 1970-01-01" in problem for problem in layout.problems)


# --- description ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
@pytest.mark.parametrize("layout", ["TCHW", "THWC", "THW", "RTCHW"])
def test_the_described_layout_reads_the_file(tmp_path, kind, layout):
    described = describe_layout(save(tmp_path, kind, arranged(layout)))
    assert described.reader == "arrays"
    assert described.settings["layout"] == layout
    assert any("step_seconds" in problem for problem in described.problems)
    record = readers.build("arrays", **described.settings)
    assert (record.sizes["row"], record.sizes["column"]) == (4, 6)


def test_times_and_coordinates_are_recognised_by_name_or_type(tmp_path):
    times = np.datetime64("2013-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h")
    np.savez(
        tmp_path / "mine.npz", air=arranged("TCHW"), when=times, second=arranged("THW"),
        lat=np.linspace(60, 30, 4), lon=np.linspace(0, 50, 6),
    )  # fmt: skip
    described = describe_layout(tmp_path / "mine.npz")
    settings = {k: described.settings.get(k) for k in ("key", "time", "latitude", "longitude")}
    assert settings == {"key": "air", "time": "when", "latitude": "lat", "longitude": "lon"}
    assert not any("step_seconds" in problem for problem in described.problems)
    assert any("second (60, 4, 6) left out" in problem for problem in described.problems)
    assert readers.build("arrays", **described.settings).latitude.values[0] == 60
    np.save(tmp_path / "flat.npy", np.zeros((30, 40)))
    with pytest.raises(S2KDError, match=r"flat.npy: .*\(30, 40\)"):
        describe_layout(tmp_path / "flat.npy")
