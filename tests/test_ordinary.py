"""Files as people have them: written by other programs, and by CF only nearly."""

import io
import json
import sys
import tracemalloc
import warnings
import zipfile

import cftime
import h5py
import numpy as np
import pytest
import road
import xarray as xr
from msgspec import structs

from s2kd.cli import main
from s2kd.core.console import print_table
from s2kd.core.recipe import Part, Split
from s2kd.core.types import S2KDError
from s2kd.data.describe import describe
from s2kd.data.frames import RecordFrames
from s2kd.data.readers import cf as reading
from s2kd.data.readers.cf import cf
from s2kd.deploy.forecast import forecast_file
from s2kd.pipeline.recipes import BASELINE

FRAMES = 40
HOURS = np.datetime64("2020-01-01", "ns") + np.arange(FRAMES) * np.timedelta64(1, "h")
LAT, LON = np.linspace(50, 47, 4), np.linspace(0, 4, 5)
VALUES = np.random.default_rng(0).normal(280, 3, (FRAMES, 4, 5)).astype(np.float32)
NORTH, EAST = {"units": "degrees_north"}, {"units": "degrees_east"}


def plain(name="t", values=VALUES, **coordinates):
    """Hourly, 4×5, north first."""
    axes = {"time": HOURS, "lat": ("lat", LAT, NORTH), "lon": ("lon", LON, EAST)}
    return xr.Dataset({name: (("time", "lat", "lon"), values, {"units": "K"})}, axes | coordinates)


def counted(units, numbers=None, **attributes):
    numbers = np.arange(FRAMES) if numbers is None else numbers
    return plain(time=("time", numbers, {"units": units, **attributes}))


def save(data, path, **options):
    """As NetCDF-4 where that has options, else as NetCDF-3, which is tried in no other process."""
    data.to_netcdf(path, engine="h5netcdf" if options else "scipy", **options)
    return str(path)


def save_zarr(data, path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # texts in Zarr 3 have no specification yet
        data.to_zarr(path, **options)
    return str(path)


def check_plain(path, name="t"):
    record = cf(path=path)
    np.testing.assert_array_equal(record[name].values, VALUES)
    np.testing.assert_array_equal(record["time"].values, HOURS)
    return record


# --- dates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "calendar", "first", "second", "last"),
    [
        ("months since 1950-01-01", None, "1950-01-01", "1950-02-01", "1953-04-01"),
        ("months since 1950-01-31", None, "1950-01-31", "1950-02-28", "1953-04-30"),
        ("months since 1960-02-01", "360", "1960-02-01", "1960-03-01", "1963-05-01"),
        ("years since 1960-01-01", None, "1960-01-01", "1961-01-01", "1999-01-01"),
        ("Decades Since 1960-01", None, "1960-01-01", "1970-01-01", "2350-01-01"),
        ("weeks since 2000-01-01", None, "2000-01-01", "2000-01-08", "2000-09-30"),
        ("days since 0001-01-01", "THIRTY_DAY_MONTHS", "0001-01-01", "0001-01-02", "0001-02-10"),
        ("days since 2001-02-28", "NO_LEAP", "2001-02-28", "2001-03-01", "2001-04-08"),
        ("days since 0000-02-28", None, "0000-02-28", "0000-02-29", "0000-04-07"),
        ("days since 0000-02-28", "noleap", "0000-02-28", "0000-03-01", "0000-04-08"),
    ],
)
def test_counts_of_months_and_years_in_any_calendar(tmp_path, units, calendar, first, second, last):
    attributes = {"calendar": calendar} if calendar else {}
    times = cf(path=save(counted(units, **attributes), tmp_path / "a.nc"))["time"].values
    texts = [str(time)[:10] for time in times]
    assert [texts[0], texts[1], texts[-1]] == [first, second, last]
    kinds = {None: "standard", "360": "360_day", "THIRTY_DAY_MONTHS": "360_day"}
    if times.dtype == object and units[11:15] != "0000":
        assert times[0].calendar == kinds.get(calendar, "noleap")


def test_a_fraction_of_a_month_is_one_of_its_days(tmp_path):
    units = "months since 1960-01-01"
    half = counted(units, np.arange(FRAMES) + 0.5, calendar="360")
    assert str(cf(path=save(half, tmp_path / "a.nc"))["time"].values[1]) == "1960-02-16 00:00:00"
    half = counted(units, np.arange(FRAMES) + 0.5)
    times = cf(path=save(half, tmp_path / "b.nc"))["time"].values
    assert times[1] == np.datetime64("1960-02-15T12")  # half of 29 days


def test_a_year_0_is_told(tmp_path):
    described = describe(save(counted("days since 0000-01-01"), tmp_path / "a.nc"))
    assert "by the proleptic Gregorian calendar" in described.problems[0]


@pytest.mark.parametrize(
    "write",
    [
        lambda time: time.astype("datetime64[s]").astype(str).astype("S"),
        lambda time: np.char.replace(time.astype("datetime64[s]").astype(str), "T", "_").astype(
            "S"
        ),
        lambda time: time.astype("datetime64[m]").astype(str).astype(object),
        lambda time: np.array(
            [f"{t:%Y%m%d%H}" for t in time.astype("datetime64[s]").tolist()], "S"
        ),
    ],
)
def test_dates_as_text(tmp_path, write):
    check_plain(save(plain(time=("time", write(HOURS))), tmp_path / "a.nc"))


def test_absolute_dates_of_climate_operators(tmp_path):
    days = [float(f"{t:%Y%m%d}") + t.hour / 24 for t in HOURS.astype("datetime64[s]").tolist()]
    record = cf(path=save(counted("day as %Y%m%d.%f", np.array(days)), tmp_path / "a.nc"))
    np.testing.assert_array_equal(record["time"].values, HOURS)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_frames_without_a_time_are_left_out(tmp_path, calendar):
    numbers = np.arange(FRAMES, dtype=float)
    numbers[[0, 20, -2, -1]] = np.nan
    path = save(counted("hours since 2001-02-28", numbers, calendar=calendar), tmp_path / "a.nc")
    record, lacking = cf(path=path), [0, 20, FRAMES - 2, FRAMES - 1]
    np.testing.assert_array_equal(record["t"].values, np.delete(VALUES, lacking, 0))
    assert str(record["time"].values[0])[:16].replace("T", " ") == "2001-02-28 01:00"
    text = str(describe(path).problems)
    assert f"4 of {FRAMES} frames have no time" in text
    assert "1 times are missing in 1 gaps" in text
    numbers[:] = np.nan
    with pytest.raises(S2KDError, match=r"b\.nc: 't' holds no times"):
        cf(path=save(counted("hours since 2001-01-01", numbers), tmp_path / "b.nc"))


def test_a_calendar_in_memory_is_kept():
    times = xr.date_range("2001-02-27", periods=FRAMES, calendar="noleap", use_cftime=True)
    read = reading.joined("memory", reading.fields_of(plain(time=times)))["time"].values
    np.testing.assert_array_equal(read, times.values)


def test_units_that_name_no_date(tmp_path):
    for units, calendar in (("hours since the start", "standard"), ("days since 2001-01-01", "x")):
        path = save(counted(units, calendar=calendar), tmp_path / f"{calendar}.nc")
        with pytest.raises(
            S2KDError, match=f"'time' .*{units}.*{calendar}.*give it units"
        ) as raised:
            cf(path=path)
        assert "decode_times" not in str(raised.value)


# --- attributes and names -------------------------------------------------------------------------


def test_attributes_of_any_type(tmp_path):
    data = plain().assign_attrs(title=np.array([1.0, 2.0]), institution=["a", "b", "a"])
    data["t"].attrs["units"] = ["K"]
    data["lat"].attrs |= {"standard_name": ["latitude", "latitude"], "axis": ["Y", "Y"]}
    path = save(data, tmp_path / "a.nc", mode="w")
    with h5py.File(path, "r+") as file:
        file["t"].attrs["long_name"] = np.bytes_("Wärme".encode("latin-1"))
        file["t"].attrs["cell_methods"] = np.bytes_("Wärme".encode())
        file["t"].attrs["coordinates"] = np.array([b"lat", b"lon"])
        file["lon"].attrs["positive"] = h5py.Empty("S4")
        file["lon"].attrs["units"] = np.array([b"degrees_east"])
    record = check_plain(path)
    assert record["t"].attrs == {"units": "K", "long_name": "Wärme", "cell_methods": "Wärme"}
    assert record.attrs["source"] == "1.0 2.0 (a.nc)"
    assert "latitude" in record.coords


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_names_of_any_script_on_any_terminal(tmp_path, monkeypatch, encoding, arguments):
    path = save(plain("风速"), tmp_path / "a.nc", mode="w")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with pytest.raises(SystemExit) as ended:
        main(["data", "describe", path, *arguments])
    for stream in streams:
        stream.flush()
    assert not ended.value.code
    text = streams[0].buffer.getvalue().decode(encoding)
    if arguments:
        assert json.loads(text)["chosen"] == ["风速"]
    else:
        assert ("风速" if encoding == "utf-8" else "\\u98ce\\u901f") in text + str(
            streams[1].buffer.getvalue().decode(encoding)
        )


def test_brackets_in_names_are_no_markup(capsys):
    print_table(["channel"], [["u [m s-1]"], ["[/x]"], ["[red]"]])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("u [m s-1]", "[/x]", "[red]"))


def test_a_dimension_of_names_is_channels(tmp_path):
    axes = ("time", "variable", "lat", "lon")
    data = plain().drop_vars("t").assign(f=(axes, np.stack([VALUES, 2 * VALUES], 1)))
    named = data.assign_coords(variable=["t2m", "u10"])
    record = cf(path=save(named, tmp_path / "a.nc"))
    np.testing.assert_array_equal(record["t2m"].values, VALUES)
    np.testing.assert_array_equal(record["u10"].values, 2 * VALUES)
    beside = data.rename(variable="band").assign_coords(name=("band", np.array([b"t", b"lat"])))
    record = cf(path=save(beside.transpose(..., "band"), tmp_path / "b.nc"))
    assert list(record) == ["t", "f_lat"]
    np.testing.assert_array_equal(record["f_lat"].values, 2 * VALUES)


# --- grids ----------------------------------------------------------------------------------------

TURNED = (LAT[:, None] + 0.1 * LON, LON - 0.1 * LAT[:, None])


@pytest.mark.parametrize(
    "names",
    [
        ("nlat", "nlon", "TLAT", "TLONG"),
        ("a", "b", "lat_rho", "lon_rho"),
        ("y", "x", "nav_lat", "nav_lon"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("units", [True, False])
def test_two_dimensional_positions_on_dimensions_of_any_name(tmp_path, names, order, units):
    y, x, latitude, longitude = names
    places = {
        latitude: ((y, x), TURNED[0], NORTH if units else {}),
        longitude: ((y, x), TURNED[1], EAST if units else {}),
    }
    data = plain().drop_vars(["lat", "lon"]).rename(lat=y, lon=x).assign_coords(places)
    record = check_plain(save(data.isel({y: slice(None, None, order)}), tmp_path / "a.nc"))
    assert "latitude" not in record.coords
    places = record.attrs["places"]
    np.testing.assert_allclose(places[latitude].values, TURNED[0][::order], rtol=1e-6)
    record = check_plain(save(data.transpose(x, y, "time"), tmp_path / "b.nc"))
    assert record.attrs["axes"][0].dimension == y


def test_a_fields_own_positions_among_several(tmp_path):
    data = plain().drop_vars(["lat", "lon"])
    data = data.assign_coords(
        ULAT=(("lat", "lon"), TURNED[0][::-1], NORTH), ULONG=(("lat", "lon"), TURNED[1], EAST),
        TLAT=(("lat", "lon"), TURNED[0], NORTH), TLONG=(("lat", "lon"), TURNED[1], EAST),
    ).rename(lat="j", lon="i")  # fmt: skip
    data["t"].encoding["coordinates"] = "TLONG TLAT"
    data["u"] = data["t"].copy()
    data["u"].encoding["coordinates"] = "ULONG ULAT"
    path = save(data, tmp_path / "a.nc")
    check_plain(path, "t")
    np.testing.assert_array_equal(cf(path=path, variables=["u"])["u"].values, VALUES[:, ::-1])


def wrf(latitude, longitude, times=HOURS):
    axes = ("Time", "south_north", "west_east")
    still = [np.repeat(degrees[None], len(times), 0) for degrees in (latitude, longitude)]
    texts = np.char.replace(times.astype("datetime64[s]").astype(str), "T", "_").astype("S19")
    return xr.Dataset(
        {
            "T2": (axes, VALUES[: len(times), ::-1], {"units": "K"}),
            "U": ((*axes[:2], "west_east_stag"), np.repeat(VALUES[: len(times)], 2, -1)),
            "Times": ("Time", texts),
            "XLAT": (axes, still[0].astype("f4"), {"units": "degree_north"}),
            "XLONG": (axes, still[1].astype("f4"), {"units": "degree_east"}),
        }
    )


def test_wrf(tmp_path):
    regular = wrf(*np.meshgrid(LAT[::-1], LON, indexing="ij"))
    record = check_plain_channel(save(regular, tmp_path / "a.nc"))
    np.testing.assert_allclose(record["latitude"], LAT)
    np.testing.assert_allclose(record["longitude"], LON)
    assert set(record.attrs["places"].coords) == {"XLAT", "XLONG"}
    assert record.attrs["places"]["XLAT"].shape == (4, 5)
    flat = regular.assign({n: regular[n].isel(Time=0) for n in ("XLAT", "XLONG")})
    check_plain_channel(save(flat, tmp_path / "b.nc"))
    lambert = check_plain_channel(save(wrf(TURNED[0][::-1], TURNED[1]), tmp_path / "c.nc"))
    assert "latitude" not in lambert.coords
    moving = regular.assign(XLAT=regular["XLAT"] + np.arange(FRAMES)[:, None, None])
    moving["XLAT"].attrs = NORTH
    described = describe(save(moving, tmp_path / "d.nc"))
    assert described.chosen == ("T2",)
    assert "XLAT move in time" in str(described.problems)


def check_plain_channel(path):
    record = cf(path=path, variables=["T2"])
    np.testing.assert_array_equal(record["T2"].values, VALUES)
    np.testing.assert_array_equal(record["time"].values, HOURS)
    return record


def test_a_folder_of_files_without_endings(tmp_path):
    for number, time in enumerate(HOURS[:3]):
        save(wrf(*TURNED, HOURS[number : number + 1]), tmp_path / f"wrfout_d01_{time}")
    (tmp_path / "namelist").write_text("&time_control")
    (tmp_path / "._wrfout_d01").write_bytes(b"\0\5\x16\7Mac OS X")
    np.testing.assert_array_equal(cf(path=str(tmp_path), variables=["T2"])["time"], HOURS[:3])


def test_the_longest_common_axis_is_chosen(tmp_path):
    data = plain().assign(
        a=(("time3", "lat", "lon"), VALUES[::3]), u=(("time", "lat", "edge"), VALUES)
    )
    data = data.assign_coords(time3=HOURS[::3], edge=("edge", LON + 0.5, EAST))[["a", "t", "u"]]
    described = describe(save(data, tmp_path / "a.nc"))
    assert described.chosen == ("t",)
    assert described.frames == FRAMES
    left_out = {text.partition(" is left out: ")[0] for text in described.problems}
    assert {"'a'", "'u'"} <= left_out
    for name, degrees in (("t", LAT), ("v", LAT + 1e-6)):
        save(plain(name, lat=("lat", degrees, NORTH)), tmp_path / f"of_{name}.nc")
    assert describe(tmp_path / "of_?.nc").chosen == ("t", "v")
    with pytest.raises(S2KDError, match=r"choose those that agree: dataset\.params\.variables="):
        cf(path=described.path, variables=["t", "a"])


# --- runs and lead times --------------------------------------------------------------------------


def runs(lead_times, every):
    """Runs whose values are the hour they are for, and a hundredth of the lead."""
    starts, leads = np.arange(0, FRAMES, every), np.arange(*lead_times)
    hours = starts[:, None] + leads
    values = (hours + leads / 100)[..., None, None] + np.zeros((4, 5), np.float32)
    return plain().drop_vars(["t", "time"]).assign_coords(
        time=HOURS[starts], step=("step", leads, {"units": "hours"}),
        valid_time=(("time", "step"), HOURS[0] + hours * np.timedelta64(1, "h")),
    ).assign(t=(("time", "step", "lat", "lon"), values.astype(np.float32)))  # fmt: skip


def test_runs_and_lead_times_are_one_series(tmp_path):
    data = runs((1, 11), 10)
    data["t"][0, :3], data["t"][-1, -1] = np.nan, np.nan
    record = cf(path=save(data, tmp_path / "a.nc"))
    hours = ((record["time"].values - HOURS[0]) / np.timedelta64(1, "h")).astype(int)
    np.testing.assert_array_equal(hours, np.arange(4, FRAMES))
    np.testing.assert_array_equal(record["t"].values[:, 0, 0].astype(int), hours)
    assert describe(tmp_path / "a.nc").frames == FRAMES - 4


def test_of_overlapping_runs_the_shortest_lead_counts(tmp_path):
    record = cf(path=save(runs((0, 24), 10).transpose(), tmp_path / "a.nc"))
    leads = (record["t"].values[:, 0, 0] % 1 * 100).round().astype(int)
    np.testing.assert_array_equal(leads, [*np.tile(np.arange(10), 4), *range(10, 24)])
    assert "(time × step)" in record.attrs["notices"][0]
    assert "that a later run holds" in record.attrs["notices"][0]


def test_grib_of_runs_and_lead_times(tmp_path):
    """As ERA5's precipitation: hours of accumulation since 6 and 18 h, beside hourly analyses."""
    eccodes = pytest.importorskip("eccodes", exc_type=Exception)
    with (tmp_path / "a.grib").open("wb") as file:
        for frame in range(24):
            start, step = divmod(frame + 5, 12)
            start = HOURS[0] + np.timedelta64(12 * start - 6, "h")
            for name, time, lead in (("2t", HOURS[frame], 0), ("tp", start, step + 1)):
                handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
                stamp = time.astype("datetime64[s]").item()
                for key, value in {
                    "Ni": 5, "Nj": 4, "iDirectionIncrementInDegrees": 1.0,
                    "jDirectionIncrementInDegrees": 1.0, "latitudeOfFirstGridPointInDegrees": 50.0,
                    "latitudeOfLastGridPointInDegrees": 47.0,
                    "longitudeOfFirstGridPointInDegrees": 0.0,
                    "longitudeOfLastGridPointInDegrees": 4.0, "shortName": name,
                    "dataDate": int(f"{stamp:%Y%m%d}"), "dataTime": stamp.hour * 100,
                    "step": lead, "bitsPerValue": 24,
                }.items():  # fmt: skip
                    eccodes.codes_set(handle, key, value)
                eccodes.codes_set_values(handle, VALUES[frame].astype(float).ravel())
                eccodes.codes_write(handle, file)
                eccodes.codes_release(handle)
    record = cf(path=str(tmp_path / "a.grib"))
    np.testing.assert_array_equal(record["time"].values, HOURS[:24])
    for name in ("t2m", "tp"):
        np.testing.assert_allclose(record[name].values, VALUES[:24], atol=1e-4)


# --- containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [0, 2, 3])
def test_the_group_that_holds_a_field(tmp_path, zarr_format):
    path = str(tmp_path / "a")
    if zarr_format:
        save_zarr(plain(), path, group="out/surface", zarr_format=zarr_format)
    else:
        save(plain(), path, group="out/surface")
    assert "the group /out/surface" in check_plain(path).attrs["notices"][0]


def test_coordinates_of_a_parent_group_and_two_groups(tmp_path):
    bounds = xr.Dataset({"lat_bnds": (("lat", "nv"), np.zeros((4, 2)))})
    path = save(plain().drop_vars("t").merge(bounds), tmp_path / "a.nc", mode="w")
    save(plain()[["t"]].drop_vars(["time", "lat", "lon"]), path, group="deep", mode="a")
    check_plain(path)
    save(plain("u"), path, group="high", mode="a")
    assert set(check_plain(path)) == {"t", "u"}
    save(plain(), path, group="high", mode="a")
    with pytest.raises(S2KDError, match=r"'t' lies in the groups /deep and /high; .*group="):
        cf(path=path)


def test_groups_without_a_time_are_listed(tmp_path):
    with h5py.File(tmp_path / "odim.h5", "w") as file:
        file["dataset1/data1/data"] = np.ones((8, 12), "u1")
    with pytest.raises(S2KDError, match=r"time.*holds dataset1/data1/data \(8, 12\), and no time"):
        describe(tmp_path / "odim.h5")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_arrays_without_names_of_dimensions(tmp_path, zarr_format):
    import zarr

    zarr.save_array(str(tmp_path / "a.zarr"), VALUES, zarr_format=zarr_format)
    group = zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("t", data=VALUES)
    for name, label in (("a", "at its root"), ("b", "t")):
        text = rf"{name}\.zarr: the array {label} \(40, 4, 5\) has no names of its dim.*\.npy"
        with pytest.raises(S2KDError, match=text):
            describe(tmp_path / f"{name}.zarr")


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("names", [["t2m", "u10"], np.array([b"t2m", b"u10"])])
def test_zarr_3_with_text(tmp_path, consolidated, names):
    axes = ("time", "variable", "lat", "lon")
    data = plain().assign(f=(axes, np.stack([VALUES, VALUES], 1))).assign_coords(variable=names)
    save_zarr(data[["f"]], tmp_path / "a.zarr", zarr_format=3, consolidated=consolidated)
    (tmp_path / "a.zarr" / "._zarr.json").write_bytes(b"\0\5\x16\7")
    assert list(check_plain(str(tmp_path / "a.zarr"), "u10")) == ["t2m", "u10"]


def test_what_is_wrapped_is_named(tmp_path):
    save(plain(), tmp_path / "inside.nc")
    with zipfile.ZipFile(tmp_path / "a.nc", "w") as archive:
        archive.write(tmp_path / "inside.nc", "data_stream.nc")
    (tmp_path / "b.nc").write_bytes(b"\x1f\x8b\x08\0")
    (tmp_path / "c.nc").write_text("<!DOCTYPE html><title>Log in")
    for name, text in (("a", "ZIP archive: unpack it .*data_stream"), ("b", "gzip"), ("c", "page")):
        with pytest.raises(S2KDError, match=rf"{name}\.nc: .*{text}"):
            describe(tmp_path / f"{name}.nc")


def test_many_files_take_the_memory_of_a_block(tmp_path, monkeypatch):
    cells = np.random.default_rng(0).normal(size=(24, 64, 64)).astype(np.float32)
    degrees = {"lat": ("lat", np.linspace(60, 0, 64), NORTH), "lon": ("lon", np.arange(64.0), EAST)}
    for number in range(12):
        times = HOURS[0] + (24 * number + np.arange(24)) * np.timedelta64(1, "h")
        data = xr.Dataset(
            {"t": (("time", "lat", "lon"), cells + number)}, degrees | {"time": times}
        )
        save(data, tmp_path / f"{number:02d}.nc", encoding={"t": {"chunksizes": (6, 64, 64)}})
    monkeypatch.setattr(reading, "CHUNK_BYTES", cells.nbytes)
    frames = RecordFrames(cf(path=str(tmp_path)), "a")
    frames[:24]  # imports what reading needs
    tracemalloc.start()
    means = [float(frames[first : first + 24].mean()) for first in range(0, 12 * 24, 24)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(means, cells.mean() + np.arange(12), atol=1e-4)
    assert peak < 12 * cells.nbytes / 3


# --- through to the forecast file -----------------------------------------------------------------


def test_years_of_360_days_and_names_that_would_collide(tmp_path):
    """Trained, scored against climatology, reported and forecast, with calendar and names kept."""
    names = ("u (m s-1)", "u [m s-1]")
    frames = np.random.default_rng(0).normal(size=(2, 60, 8, 8)).astype(np.float32)
    axes = ("time", "south_north", "west_east")
    years = cftime.num2date(np.arange(60) * 360, "days since 1860-06-01", calendar="360_day")
    places = np.meshgrid(np.arange(50.0, 42, -1), np.arange(8.0), indexing="ij")
    data = xr.Dataset(
        {
            name: (axes, values, {"units": "m s-1"})
            for name, values in zip(names, frames, strict=True)
        },
        {"time": years, "XLAT": (axes[1:], places[0], NORTH), "XLONG": (axes[1:], places[1], EAST)},
    )
    path = tmp_path / "a.nc"
    save(data, path)
    recipe = structs.replace(
        road.tiny(),
        dataset=Part(name="cf", params={"path": str(path), "variables": list(names)}),
        split=Split(gap=3, fractions=(0.6, 0.2, 0.2)),
        methods=(BASELINE,),
        past=2,
        lead=1,
    )
    road.walk(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").exists()
    forecast_file(tmp_path / "run", path, tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as made:
        assert set(made.data_vars) == {"u_m_s_1_", "u_m_s_1__2"}
        assert {made[name].attrs["channel"] for name in made.data_vars} == set(names)
        assert not np.allclose(*(made[name].values for name in made.data_vars))
        assert made["valid_time"].values.item().isoformat() == "1920-06-01T00:00:00"
        assert made["valid_time"].values.item().calendar == "360_day"
        np.testing.assert_array_equal(made["XLAT"].values, places[0])
        assert made["u_m_s_1_"].dims == ("time", "lead_time", *axes[1:])
