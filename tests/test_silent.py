"""Files whose values, times or places are easily taken for others: read right, or refused."""

import h5py
import numpy as np
import pytest
import xarray as xr

from s2kd.core.recipe import Keep, Part, Split
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import load
from s2kd.data.dates import read_dates
from s2kd.data.describe import describe
from s2kd.data.readers import readers
from s2kd.data.readers.arrays import fitting_layouts
from s2kd.data.statistics import statistics
from s2kd.data.values import ValueSummary, packed_edges
from s2kd.data.write import to_xarray
from s2kd.pipeline import recipes

FRAMES = np.random.default_rng(0).normal(280, 9, (48, 8, 12)).astype(np.float32)
PACKING = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 273.15, "_FillValue": -32767}


# --- times ----------------------------------------------------------------------------------------


def test_dates_that_nanoseconds_cannot_hold_do_not_wrap(tmp_path):
    days = np.datetime64("0850-01-01") + np.arange(48)
    np.savez(tmp_path / "old.npz", x=FRAMES, when=days)
    record = readers.build(
        "arrays", path=str(tmp_path / "old.npz"), key="x", layout="THW", time="when"
    )
    assert record.time.values[31].isoformat() == "0850-02-01T00:00:00"
    centuries = readers.build(
        "arrays",
        path=str(tmp_path / "old.npz"),
        key="x",
        layout="THW",
        step_seconds=86400 * 36525.0,
    )
    assert [time.year for time in centuries.time.values[:4]] == [2000, 2100, 2200, 2300]
    memory = xr.Dataset({"t": (("time", "y", "x"), FRAMES)}, {"time": days.astype("datetime64[s]")})
    assert readers.build("memory", memory).time.values[0].year == 850


def test_a_forecast_may_pass_the_last_nanosecond(tmp_path):
    grid = GridSpec(channels=("t",), units=("K",), height=1, width=2, step_seconds=86400 * 365.0)
    start = np.array(["2262-01-01"], dtype="datetime64[ns]")
    made = to_xarray(np.zeros((300, 1, 1, 2), np.float32), grid=grid, initial_times=start)
    assert made.valid_time.values[0, 0].isoformat() == "2263-01-01T00:00:00"
    assert made.lead_time.values[-1] == np.timedelta64(300 * 365, "D")


@pytest.mark.parametrize(("per_day", "first"), [(24, 1), (24, 0), (48, 1), (96, 1)])
def test_the_step_of_taxi_slots_is_that_of_their_numbers(tmp_path, per_day, first):
    dates = [f"201503{day:02d}{n:02d}" for day in (1, 2) for n in range(first, first + per_day)]
    with h5py.File(tmp_path / "city.h5", "w") as file:
        file["date"] = np.array(dates, dtype="S10")
        file["data"] = np.ones((2 * per_day, 2, 4, 5), np.float32)
    record = readers.build("taxibj", path=str(tmp_path / "city.h5"), whole_days=True)
    step = np.timedelta64(86400 // per_day, "s")
    expected = np.datetime64("2015-03-01") + np.arange(2 * per_day) * step
    np.testing.assert_array_equal(record.time.values, expected)
    assert record.attrs["step_seconds"] == 86400 / per_day


def test_slots_that_may_be_hours_or_half_hours_are_asked_about(tmp_path):
    with h5py.File(tmp_path / "morning.h5", "w") as file:
        file["date"] = np.array([f"20150301{n:02d}" for n in range(1, 13)], dtype="S10")
        file["data"] = np.ones((12, 2, 4, 5), np.float32)
    with pytest.raises(S2KDError, match=r"morning.h5: slots up to 12 .*slots_per_day"):
        readers.build("taxibj", path=str(tmp_path / "morning.h5"))
    record = readers.build("taxibj", path=str(tmp_path / "morning.h5"), slots_per_day=24)
    assert record.time.values[11] == np.datetime64("2015-03-01T11")


HOURS = [f"2020-01-{1 + n // 24:02d} {n % 24:02d}" for n in range(48)]
SINCE_1970 = np.datetime64("2020-01-01", "s").astype(int) + 3600 * np.arange(48)


@pytest.mark.parametrize(
    "stored",
    [
        [int(text.replace("-", "").replace(" ", "")) for text in HOURS],  # 2020010100
        [text.replace("-", "").replace(" ", "").encode() for text in HOURS],
        [f"{text[8:10]}.{text[5:7]}.{text[:4]} {text[11:]}:00" for text in HOURS],  # 01.01.2020
        [f"{text[5:7]}/{text[8:10]}/{text[:4]} {text[11:]}:00" for text in HOURS],  # 01/01/2020
        [text.replace(" ", "_") + ":00:00" for text in HOURS],
        [text.replace("-01-", "-Jan-").replace(" ", "T") + ":00Z" for text in HOURS],
        [20200101 + n // 24 + n % 24 / 24 for n in range(48)],
        SINCE_1970,
        SINCE_1970 * 10**9,
    ],
)
def test_dates_that_are_clear_are_read(stored):
    times, _ = read_dates(np.array(stored), "file: time")
    np.testing.assert_array_equal(
        times, np.datetime64("2020-01-01") + np.arange(48) * np.timedelta64(1, "h")
    )


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (np.arange(48) + 18262, "numbers 18262 to 18309 do not say what they count"),
        (np.arange(48) + 1051896.0, "do not say what they count"),
        (np.arange(48), "do not say what they count"),
        (np.arange(48) + 2020001, "do not say what they count"),
        (["01/02/2020", "02/02/2020", "03/02/2020"], "may be 2020-02-01.* or 2020-01-02"),
        ([f"20200101{hour:02d}" for hour in range(1, 25)], "no dates of one known form"),
        (["soon", "later"], "no dates of one known form"),
    ],
)
def test_dates_that_may_be_others_are_refused(stored, reason):
    with pytest.raises(S2KDError, match="file: time: .*" + reason):
        read_dates(np.array(stored), "file: time")


def test_numbers_count_from_what_is_set_or_declared(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["time"], file["when"] = FRAMES, np.arange(48), np.arange(48) + 18262
        file["time"].attrs["units"] = "hours since 2020-01-01"
    for settings in (
        {"time": "time"},
        {"time": "when", "start": "days since 1970-01-01"},
    ):
        record = readers.build(
            "arrays", path=str(tmp_path / "a.h5"), key="x", layout="THW", **settings
        )
        step = np.timedelta64(1, "h" if settings["time"] == "time" else "D")
        np.testing.assert_array_equal(
            record.time.values, np.datetime64("2020-01-01") + np.arange(48) * step
        )


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("since", ["2020-02-28T12", "2020-02-28 12", "hours since 2020-02-28 12"])
def test_an_hour_alone_is_not_lost(since, calendar):
    times, _ = read_dates(np.arange(2), "file: time", since=since, calendar=calendar)
    assert str(times[0])[:13].replace(" ", "T") == "2020-02-28T12"


# --- what a file is -------------------------------------------------------------------------------


def field(**attributes):
    """A temperature over 48 hours."""
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), FRAMES.copy(), {"units": "K", **attributes})},
        {
            "time": np.datetime64("2020-01-01", "ns") + np.arange(48) * np.timedelta64(1, "h"),
            "lat": ("lat", np.linspace(50, 43, 8), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(12.0), {"units": "degrees_east"}),
        },
    )


def test_a_file_is_what_it_holds_whatever_its_name(tmp_path):
    encoding = {"t": PACKING}
    for name in ("packed.nc", "packed.h5", "packed.npz"):
        field().to_netcdf(tmp_path / name, engine="h5netcdf", encoding=encoding)
        made = describe(tmp_path / name)
        assert (made.kind, made.step_seconds) == ("NetCDF-4", 3600)
        assert made.variables[0].maximum == pytest.approx(FRAMES.max(), abs=0.01)
    np.save(tmp_path / "a.npy", FRAMES)
    (tmp_path / "a.npy").rename(tmp_path / "a.dat")
    assert describe(tmp_path / "a.dat").kind == "NPY array"


def test_arrays_of_hdf5_are_unpacked_as_their_attributes_say(tmp_path):
    raw = np.arange(48 * 8 * 12, dtype=np.int16).reshape(FRAMES.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = raw
        file["x"].attrs.update(
            {"scale_factor": 0.5, "add_offset": 100.0, "_FillValue": np.int16(3)}
        )
    record = readers.build("arrays", path=str(tmp_path / "a.h5"), layout="THW", step_seconds=60)
    expected = np.where(raw == 3, np.nan, raw * 0.5 + 100).astype(np.float32)
    np.testing.assert_array_equal(record.channel_0.values, expected)


# --- axes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "coordinates", "layouts"),
    [
        ((1000, 2, 32, 32), {}, ["TCHW"]),
        ((2, 1000, 32, 32), {}, ["CTHW"]),
        ((1000, 32, 32, 2), {}, ["THWC"]),
        ((20, 60, 16, 16), {}, ["CTHW", "RTHW", "TRHW"]),  # Moving MNIST
        ((10000, 20, 64, 64), {}, ["TCHW", "RTHW", "TRHW"]),
        ((10000, 20, 1, 64, 64), {}, ["RTCHW"]),
        ((300, 90, 120), {}, ["THW"]),
        ((90, 120, 500), {}, ["THW", "HWT"]),
        ((96, 96, 96), {}, ["THW", "HWT"]),
        ((8, 12, 96), {"T": 96, "H": 8, "W": 12}, ["HWT"]),
        ((12, 8, 96), {"T": 96, "H": 8, "W": 12}, ["WHT"]),
    ],
)
def test_axes_that_a_shape_may_have(shape, coordinates, layouts):
    assert fitting_layouts(shape, coordinates) == layouts


def test_axes_of_two_readings_are_asked_for(tmp_path):
    np.save(tmp_path / "videos.npy", np.random.default_rng(0).random((20, 60, 16, 16), "f4"))
    made = describe(tmp_path / "videos.npy")
    assert made.dataset is None
    with pytest.raises(S2KDError, match=r"layout to one of .*TRHW .60 runs, 20 times, 16 rows"):
        recipes.for_data(tmp_path / "videos.npy")
    settings = ['dataset.params.layout="TRHW"', "dataset.params.join=runs"]
    recipe = recipes.for_data(tmp_path / "videos.npy", settings)
    assert recipe.dataset.params["layout"] == "TRHW"


# --- values ---------------------------------------------------------------------------------------


def summary(values, marks=()):
    """The facts of a field that comes in blocks."""
    made = ValueSummary(marks)
    for block in np.array_split(np.asarray(values, np.float32), 3):
        made.update(block)
    return made.facts()


def marked(mark, *, always, base=280.0, spread=9.0, shape=(60, 6, 7)):
    """Noise with a mark in some cells for good, or here and there."""
    rng = np.random.default_rng(1)
    values = rng.normal(base, spread / 6, shape)
    values[(slice(None), 0, slice(0, 3)) if always else rng.random(shape) < 0.02] = mark
    return values


@pytest.mark.parametrize("mark", [-9999, 255 + 280, 32767, 1e30, -1e34, 999.9, 0])
@pytest.mark.parametrize("always", [True, False])
def test_undeclared_marks_are_named(mark, always):
    made = summary(marked(mark, always=always))
    expected = () if mark in (0, 535) and not always else (pytest.approx(mark),)
    assert made.marks == expected
    assert any("3 cells at every time" in text for text in made.suspicions) == always


def test_marks_are_named_beside_spikes_and_other_marks():
    values = np.abs(marked(-9999, always=True, base=0))
    values[:, 0, :3] = -9999
    values[5, 5, 5] = 15000
    made = summary(values)
    assert made.marks == (-9999,)
    assert "reaches 15000" in made.suspicions[1]
    flags = np.random.default_rng(0).integers(0, 251, (60, 6, 7))
    flags[:, 0, :2], flags[:, 1, :2], flags[:, 2, 0] = 255, 254, 253
    scattered = marked(-888, always=False)
    scattered[:, 0, :3] = -999
    assert summary(flags).marks == (253, 254, 255)
    assert summary(scattered).marks == (-999,)
    assert "reaches -888" in summary(scattered).suspicions[1]


def test_values_that_are_no_marks():
    rng = np.random.default_rng(2)
    dry = np.maximum(rng.normal(0, 3, (60, 6, 7)), 0)
    dry[:, 0] = 0  # a desert, where others are dry at times
    clipped = np.minimum(rng.normal(200, 60, (60, 6, 7)), 255)
    clipped[:, 0, 0] = 255  # bright for good, as others are at times
    counts = rng.geometric(0.5, (60, 6, 7)) - 1
    counts[3, 2, 1] = counts[9, 4, 4] = 9
    mask = rng.random((60, 6, 7))
    mask[:, 0], mask[:, 1] = 0.05, 0.5  # land and lakes of their own albedo
    for values in (dry, clipped, counts, mask, np.full((60, 6, 7), 3)):
        assert summary(values).marks == ()


def test_the_end_of_packed_integers_is_a_mark():
    values = np.random.default_rng(0).integers(-32766, 32767, (60, 6, 7)) * 0.01 + 273.15
    values[:, 0, 0] = -32767 * 0.01 + 273.15
    assert summary(values, packed_edges(PACKING)).marks == (pytest.approx(-54.52),)


def test_a_recipe_leaves_marks_out_and_the_loaded_data_say_what_is_wrong(tmp_path):
    data = field()
    data["t"][:, :2, :3] = -9999
    data["t"][5, 5, 5] = 1e30
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    made = describe(tmp_path / "a.nc")
    assert made.keep == {"missing": "mask", "marks": {"t": (-9999.0,)}}
    part = Part(**made.dataset)
    dataset = load(part, Split(gap=2), Keep(**made.keep))
    assert dataset.grid.exists.sum() == 8 * 12 - 6
    assert dataset.frames[..., dataset.grid.exists].min() > 0
    assert any("'t' reaches 1e+30" in text for text in dataset.notices)
    unmarked = load(part, Split(gap=2))
    assert any("'t' is -9999 at 288 times and places" in text for text in unmarked.notices)
    stored = load(part, Split(gap=2), Keep(memory_gb=0.0, cache=str(tmp_path / "cache")))
    assert stored.notices == unmarked.notices
    with pytest.raises(S2KDError, match=r"keep.marks names no channel 'u' \(it has t\)"):
        load(part, Split(gap=2), Keep(marks={"u": (0.0,)}))


def write(data, path, **options):
    data.to_netcdf(path, engine="h5netcdf", **options)
    return path


def read(path, *variables):
    return readers.build("cf", path=str(path), variables=variables)


@pytest.mark.parametrize(
    "limits", [{"valid_min": 270, "valid_max": 290}, {"valid_range": [270, 290]}]
)
def test_values_beyond_declared_limits_are_missing(tmp_path, limits):
    declared = {key: np.asarray(value, np.float32) for key, value in limits.items()}
    found = read(write(field(**declared), tmp_path / "a.nc"))["t"].values
    expected = np.where((FRAMES >= 270) & (FRAMES <= 290), FRAMES, np.nan)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("limits", "applied"),
    [
        (np.array([-315, 1685], "i2"), True),  # 270 to 290 K, packed
        (np.array([270, 290], "f4"), False),  # of another type: they are unpacked
        (np.array([270, 290], "i2"), False),  # would leave 275.9 to 276.1 K
    ],
)
def test_limits_of_packed_values_are_packed_too(tmp_path, limits, applied):
    encoding = {"t": PACKING}
    path = write(field(valid_range=limits), tmp_path / "a.nc", encoding=encoding)
    record = read(path)
    low, high = (270, 290) if applied else (FRAMES.min(), FRAMES.max())
    assert float(record["t"].min()) == pytest.approx(low, abs=0.1)
    assert float(record["t"].max()) == pytest.approx(high, abs=0.1)
    assert [text for text in describe(path).problems if "they are not applied" in text] == (
        [] if applied else list(record.attrs["notices"])
    )


# --- fields of one name ---------------------------------------------------------------------------


def message(values, hour, **keys):
    """One GRIB message of a 4 by 6 grid."""
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    grid = {"Ni": 6, "Nj": 4, "latitudeOfFirstGridPointInDegrees": 50.0,
            "latitudeOfLastGridPointInDegrees": 47.0, "longitudeOfFirstGridPointInDegrees": 0.0,
            "longitudeOfLastGridPointInDegrees": 5.0, "iDirectionIncrementInDegrees": 1.0,
            "jDirectionIncrementInDegrees": 1.0, "dataDate": 20200101,
            "dataTime": 100 * hour}  # fmt: skip
    for key, value in (grid | keys).items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, np.asarray(values, float).ravel())
    content = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return content


def test_level_types_of_grib_are_two_fields_and_repeats_are_named(tmp_path):
    surface = {"shortName": "t", "typeOfLevel": "surface", "level": 0}
    upper = {"shortName": "t", "typeOfLevel": "isobaricInhPa", "level": 850}
    hours = range(6)
    messages = [
        message(FRAMES[hour, :4, :6] - shift, hour, **keys)
        for hour in hours
        for keys, shift in ((surface, 0), (upper, 20))
    ]
    (tmp_path / "a.grib").write_bytes(b"".join(messages))
    record = read(tmp_path / "a.grib")
    assert sorted(record) == ["t_isobaricInhPa", "t_surface"]
    np.testing.assert_allclose(record["t_surface"], FRAMES[:6, :4, :6], atol=0.05)
    np.testing.assert_allclose(record["t_isobaricInhPa"], FRAMES[:6, :4, :6] - 20, atol=0.05)
    (tmp_path / "b.grib").write_bytes(b"".join(messages[::2] + messages[:1]))
    assert "1 of 7 messages have the parameter" in read(tmp_path / "b.grib").attrs["notices"][0]


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ({"height": 2.0}, {"height": 10.0}, ["t@2", "t@10"]),
        ({"realization": 0.0}, {"realization": 1.0}, ["t@0", "t@1"]),
        ({"cell_methods": "time: mean"}, {"cell_methods": "time: maximum"},
         ["t_time_mean", "t_time_maximum"]),
    ],
)  # fmt: skip
def test_two_files_of_one_name_are_two_fields(tmp_path, first, second, names):
    for number, differing in enumerate((first, second)):
        data = field() + number
        data["t"].attrs = {"units": "K"}
        for key, value in differing.items():
            if isinstance(value, str):
                data["t"].attrs[key] = value
            else:
                data = data.assign_coords({key: value})
        write(data, tmp_path / f"{number}.nc")
    record = read(tmp_path)
    assert list(record) == names
    np.testing.assert_array_equal(record[names[1]], FRAMES + 1)


def test_one_field_twice_is_refused_and_files_in_turn_are_joined(tmp_path):
    for name, part in (("a", slice(0, 30)), ("b", slice(30, 48))):
        write(field().isel(time=part).assign_coords(forecast_period=float(ord(name))),
              tmp_path / f"{name}.nc")  # fmt: skip
    np.testing.assert_array_equal(read(tmp_path)["t"], FRAMES)
    write(field().isel(time=slice(25, 30)), tmp_path / "c.nc")
    with pytest.raises(S2KDError, match=r"'t' is twice in .*a\.nc and .*c\.nc at 5 times"):
        read(tmp_path)


def test_a_channel_may_not_hide_a_coordinate(tmp_path):
    with pytest.raises(S2KDError, match=r"cannot be called 'mask'.* ds\.rename"):
        read(write(field().rename(t="mask"), tmp_path / "a.nc"))


# --- coordinates ----------------------------------------------------------------------------------


def placed(latitude, longitude, units):
    return field().assign_coords(
        lat=("lat", latitude, {"units": units} if units else {}),
        lon=("lon", longitude, {"units": units} if units else {}),
    )


def test_radians_become_degrees_and_kilometres_are_no_degrees(tmp_path):
    data = placed(np.radians(np.linspace(50, 43, 8)), np.radians(np.arange(12.0)), "radians")
    record = read(write(data, tmp_path / "a.nc"))
    np.testing.assert_allclose(record.latitude, np.linspace(50, 43, 8))
    assert record.attrs["axes"][1].values[-1] == pytest.approx(11)
    record = read(write(placed(np.arange(8.0), np.arange(12.0), "km"), tmp_path / "b.nc"))
    assert "latitude" not in record.coords


@pytest.mark.parametrize(
    ("latitude", "longitude", "units", "reason"),
    [
        (np.linspace(5000, 5700, 8), np.arange(12.0), "degrees", "no degrees"),
        (np.linspace(0.8, 0.7, 8), np.arange(12) / 60, "", "may be radians"),
        (np.linspace(1.4, -1.4, 8), np.arange(12) * np.pi / 6, "degrees", "may be radians"),
    ],
)
def test_coordinates_that_are_no_degrees_are_refused(tmp_path, latitude, longitude, units, reason):
    with pytest.raises(S2KDError, match=reason):
        read(write(placed(latitude, longitude, units), tmp_path / "a.nc"))


# --- scale ----------------------------------------------------------------------------------------


def test_statistics_of_a_small_field_are_those_of_a_large_one_scaled():
    data = field()
    made = [statistics(load(data * scale, Split(gap=2)), lead=2) for scale in (1.0, 1e-25)]
    for name in ("mean", "std", "change", "maximum"):
        large, small = (np.array(getattr(facts, name)) for facts in made)
        np.testing.assert_allclose(small, large * 1e-25, rtol=1e-5)


# --- what a person would say ----------------------------------------------------------------------


def test_a_recipe_is_made_with_every_problem_that_loading_does_not_name(tmp_path):
    data = field()
    data["t"][:, 0, 0] = 32767
    data["t"][7, 3, 3] = np.nan
    del data["t"].attrs["units"]
    path = write(data.assign(still=data["t"] * 0 + 3), tmp_path / "a.nc")
    said: list[str] = []
    recipe = recipes.for_data(path, say=said.append)
    dataset = load(recipe.dataset, recipe.split, recipe.keep)
    problems = describe(path).problems
    texts = (*said, *dataset.notices)
    assert {p for p in problems if "'t'" in p} == {p for p in texts if "'t'" in p}
    assert len(set(texts)) == len(texts)
    assert sum("no units are given for 't'" in text for text in dataset.notices) == 1
    assert said[0].startswith("'t' is 32767 at 48 times and places, 1 cells at every time")


def test_an_error_is_one_line_however_long_the_library_wrote():
    error = S2KDError("does not fit (Error:\n  size mismatch for a\n  size mismatch for b\n)")
    assert str(error) == "does not fit (Error: size mismatch for a (and 2 more lines)"
    assert str(S2KDError("one")) == "one"
