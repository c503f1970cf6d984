"""Files of every kind, written here with other libraries' own writers, and read back."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr

from s2kd.core.types import S2KDError
from s2kd.data import _series, datasets
from s2kd.data._missing import Missing, nearest_cells
from s2kd.data._select import open_series, same_units
from s2kd.data.dataset import FrameFile
from s2kd.data.netcdf import latest, netcdf
from s2kd.data.windows import WindowDataset

REAL = os.environ.get("S2KD_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="S2KD_REAL_DATA is not set")
LAT = np.array([75.0, 45.0, 15.0, -15.0, -45.0])  # north first
LON = np.array([0.0, 60.0, 120.0, 180.0, 240.0, 300.0])
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h")
SMALL = {"fractions": (0.5, 0.25, 0.25), "gap": 2}


def truth(times=60, seed=0):
    """(time, lat, lon), rows north first; a hot blob at row 1, column 2 at all times."""
    field = np.random.default_rng(seed).normal(280, 2, (times, 5, 6)).astype(np.float32)
    field[:, 1, 2] += 100
    return field


def dataset(values=None, times=TIMES, lat=LAT, lon=LON, name="t", **attributes):
    values = truth(len(times)) if values is None else values
    return xr.Dataset(
        {name: (("time", "lat", "lon"), values, {"units": "K", "long_name": "warmth"})},
        {
            "time": times,
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
        attributes,
    )


def save(data, path, **options):
    data.to_netcdf(path, engine="h5netcdf", **options)
    return str(path)


def frames(found):
    return found.frames[0 : found.frames.shape[0]][:, 0]


def test_plain_file(tmp_path):
    path = save(dataset(title="made here"), tmp_path / "a.nc")
    found = datasets.build("netcdf", path=path, **SMALL)
    np.testing.assert_array_equal(frames(found), truth())
    np.testing.assert_array_equal(found.times, TIMES)
    grid = found.grid
    assert (grid.channels, grid.units, grid.step_seconds) == (("t",), ("K",), 21600.0)
    assert grid.latitude == tuple(LAT)
    assert grid.longitude == tuple(LON)
    assert grid.wraps
    assert found.attributes == {"t": {"units": "K", "long_name": "warmth"}}
    assert found.source == "made here (a.nc)"
    spans = {k: [(s.first, s.stop) for s in v] for k, v in found.splits.items()}
    assert spans == {"train": [(0, 30)], "val": [(32, 45)], "test": [(47, 60)]}


@pytest.mark.parametrize("dims", [("lon", "lat", "time"), ("lat", "time", "lon")])
@pytest.mark.parametrize("south_first", [False, True])
@pytest.mark.parametrize("east_first", [False, True])
def test_any_order_of_axes_is_turned_north_and_west_first(tmp_path, dims, south_first, east_first):
    data = dataset()
    data = data.isel(lat=slice(None, None, -1)) if south_first else data
    data = data.isel(lon=slice(None, None, -1)) if east_first else data
    found = netcdf(path=save(data.transpose(*dims), tmp_path / "a.nc"), **SMALL)
    np.testing.assert_array_equal(frames(found), truth())
    assert found.grid.latitude == tuple(LAT)
    assert found.grid.longitude == tuple(LON)


@pytest.mark.parametrize(
    ("lon", "longitude", "wraps"),
    [
        ([-180, -120, -60, 0, 60, 120], (-180, -120, -60, 0, 60, 120), True),
        ([180, 240, 300, 0, 60, 120], (180, 240, 300, 360, 420, 480), True),
        ([0, 60, 120, -180, -120, -60], (0, 60, 120, 180, 240, 300), True),
        ([170, 175, 180, -175, -170, -165], (170, 175, 180, 185, 190, 195), False),
        ([0, 50, 100, 150, 200, 250], (0, 50, 100, 150, 200, 250), False),
        ([200, 202.5, 205, 207.5, 210, 212.5], (200, 202.5, 205, 207.5, 210, 212.5), False),
    ],
)
def test_longitudes_run_on_over_their_seam(tmp_path, lon, longitude, wraps):
    found = netcdf(path=save(dataset(lon=np.array(lon, float)), tmp_path / "a.nc"), **SMALL)
    assert found.grid.longitude == longitude
    assert found.grid.wraps is wraps
    np.testing.assert_array_equal(frames(found), truth())


def test_a_repeated_first_column_is_left_out(tmp_path):
    lon = np.array([0.0, 72, 144, 216, 288, 360])
    found = netcdf(path=save(dataset(lon=lon), tmp_path / "a.nc"), **SMALL)
    assert found.grid.width == 5
    assert found.grid.wraps
    np.testing.assert_array_equal(frames(found), truth()[:, :, :5])


def test_longitudes_that_jump_about_are_refused(tmp_path):
    path = save(dataset(lon=LON[[0, 2, 1, 3, 4, 5]]), tmp_path / "a.nc")
    with pytest.raises(S2KDError, match=r"a\.nc: 't': 'lon' does not run once round"):
        netcdf(path=path)
    path = save(dataset(lat=LAT[[0, 2, 1, 3, 4]]), tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"b\.nc: 't': 'lat' neither ascends nor descends"):
        netcdf(path=path)


def test_axes_are_known_by_their_attributes(tmp_path):
    data = dataset().rename(time="when", lat="up", lon="along")
    data["up"].attrs = {"standard_name": "latitude"}
    found = netcdf(path=save(data.isel(up=slice(None, None, -1)), tmp_path / "a.nc"), **SMALL)
    np.testing.assert_array_equal(frames(found), truth())
    assert found.grid.latitude == tuple(LAT)


def test_the_time_a_field_is_valid_for_counts(tmp_path):
    data = dataset().assign_coords(valid_time=("time", TIMES + np.timedelta64(6, "h")))
    found = netcdf(path=save(data, tmp_path / "a.nc"), **SMALL)
    np.testing.assert_array_equal(found.times, TIMES + np.timedelta64(6, "h"))


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars_stay_cftime(tmp_path, calendar):
    times = xr.date_range(
        "2000-02-20", periods=60, freq="6h", calendar=calendar, use_cftime=True
    ).values
    path = save(dataset(times=times), tmp_path / "a.nc")
    dates = {"train": ("2000-02-20", "2000-02-27"), "val": ("2000-02-28", "2000-02-28")}
    found = netcdf(path=path, **dates, test=("2000-03", "2000-03"), gap=0)
    assert isinstance(found.times[0], cftime.datetime)
    assert found.times[0].calendar == calendar
    (train,), (val,), (test,) = (found.splits[s] for s in ("train", "val", "test"))
    assert (train.first, train.stop, val.stop) == (0, 32, 36)
    # noleap has no 29 February; a 360-day February has 29 and 30
    assert test.first == {"noleap": 36, "360_day": 44}[calendar]
    assert test.stop == 60
    shown, times = latest(path, found.grid, 3)
    assert times[-1] == found.times[-1]
    np.testing.assert_array_equal(shown[:, 0], truth()[-3:])


def test_packed_integers_are_unpacked(tmp_path):
    values = truth()
    values[:, 3, 1] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 300.0, "_FillValue": -32767}
    path = save(dataset(values), tmp_path / "a.nc", encoding={"t": packing})
    found = netcdf(path=path, missing="mask", **SMALL)
    assert [list(row).count(False) for row in found.grid.mask] == [0, 0, 0, 1, 0]
    assert found.grid.mask[3][1] is False
    there = found.grid.exists
    np.testing.assert_allclose(frames(found)[:, there], values[:, there], atol=0.0051)
    assert np.isfinite(frames(found)).all()


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path, version):
    path = tmp_path / "a.zarr"
    dataset().isel(lat=slice(None, None, -1)).to_zarr(
        path, zarr_format=version, consolidated=version == 2, encoding={"t": {"chunks": (7, 5, 6)}}
    )
    found = netcdf(path=str(path), **SMALL)
    np.testing.assert_array_equal(frames(found), truth())
    assert found.grid.latitude == tuple(LAT)


def test_netcdf3(tmp_path):
    pytest.importorskip("scipy")
    data = dataset(truth().astype(">f4"))
    data.to_netcdf(tmp_path / "a.nc", engine="scipy", format="NETCDF3_CLASSIC")
    assert (tmp_path / "a.nc").read_bytes()[:3] == b"CDF"
    np.testing.assert_array_equal(frames(netcdf(path=str(tmp_path / "a.nc"), **SMALL)), truth())


def grib(path, times, level_type="isobaricInhPa"):
    """One GRIB 2 message a time and level, north first, encoded by eccodes itself."""
    eccodes = pytest.importorskip("eccodes", exc_type=Exception)
    with path.open("wb") as file:
        for number, time in enumerate(times):
            for level in (500, 850):
                handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
                stamp = str(time.astype("datetime64[m]"))
                for key, value in {
                    "Ni": 6,
                    "Nj": 5,
                    "iDirectionIncrementInDegrees": 60.0,
                    "jDirectionIncrementInDegrees": 30.0,
                    "latitudeOfFirstGridPointInDegrees": 75.0,
                    "latitudeOfLastGridPointInDegrees": -45.0,
                    "longitudeOfFirstGridPointInDegrees": 0.0,
                    "longitudeOfLastGridPointInDegrees": 300.0,
                    "dataDate": int(stamp[:10].replace("-", "")),
                    "dataTime": int(stamp[11:].replace(":", "")),
                    "shortName": "t",
                    "typeOfLevel": level_type,
                    "level": level,
                    "bitsPerValue": 24,
                }.items():
                    eccodes.codes_set(handle, key, value)
                field = truth(len(times), seed=level)[number]
                eccodes.codes_set_values(handle, field.astype(float).ravel())
                eccodes.codes_write(handle, file)
                eccodes.codes_release(handle)


def test_grib(tmp_path):
    pytest.importorskip("cfgrib", exc_type=Exception)
    grib(tmp_path / "a.grib2", TIMES[:30])
    found = netcdf(path=str(tmp_path / "a.grib2"), variables=["t@850", "t@500"], **SMALL)
    for channel, level in enumerate((850, 500)):
        np.testing.assert_allclose(found.frames[:, channel], truth(30, seed=level), atol=1e-3)
    assert found.grid.latitude == tuple(LAT)
    assert found.grid.wraps
    assert found.attributes["t@850"]["standard_name"] == "air_temperature"
    np.testing.assert_array_equal(found.times, TIMES[:30])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.grib2"]


def levels():
    data = np.arange(60 * 3 * 5 * 6, dtype=np.float32).reshape(60, 3, 5, 6)
    high = xr.DataArray(data, dims=("time", "level", "lat", "lon"), attrs={"units": "m2 s-2"})
    whole = dataset().assign(z=high).assign_coords(level=("level", [500, 700, 850]))
    return whole.transpose("level", "lon", "time", "lat"), data


def test_levels_are_chosen_by_value(tmp_path):
    whole, data = levels()
    path = save(whole, tmp_path / "a.nc")
    found = netcdf(path=path, variables=("z@850", "t", "z@500"), **SMALL)
    assert found.grid.channels == ("z@850", "t", "z@500")
    assert found.grid.units == ("m2 s-2", "K", "m2 s-2")
    np.testing.assert_array_equal(found.frames, np.stack([data[:, 2], truth(), data[:, 0]], 1))
    with pytest.raises(S2KDError, match="'z' has the further dimension level; choose one") as error:
        netcdf(path=path)
    assert "variables=['z@500', 'z@700', 'z@850']" in str(error.value)
    with pytest.raises(S2KDError, match=r"no variable 'z@1000'.*there are .*z@500…850"):
        netcdf(path=path, variables=["z@1000"])
    with pytest.raises(S2KDError, match=r"no variable 'tt'; did you mean 't'"):
        netcdf(path=path, variables=["tt"])


def test_scalar_level_is_dropped_or_asked_for(tmp_path):
    path = save(dataset().assign_coords(level=850), tmp_path / "a.nc")
    for name in ("t", "t@850"):
        np.testing.assert_array_equal(frames(netcdf(path=path, variables=[name], **SMALL)), truth())
    with pytest.raises(S2KDError, match="no variable 't@500'"):
        netcdf(path=path, variables=["t@500"])


def test_grid_without_latitudes(tmp_path):
    data = dataset().rename(lat="y", lon="x").drop_vars(["y", "x"])
    found = netcdf(path=save(data, tmp_path / "a.nc"), domain="fire", **SMALL)
    np.testing.assert_array_equal(frames(found), truth())
    assert found.grid.latitude is None
    assert found.grid.longitude is None
    assert not found.grid.wraps


def test_projected_rows_count_upwards_and_images_do_not(tmp_path):
    y = ("y", np.arange(5.0), {"standard_name": "projection_y_coordinate", "units": "m"})
    data = dataset().rename(lat="y", lon="x").drop_vars(["y", "x"])
    found = netcdf(path=save(data.assign_coords(y=y), tmp_path / "a.nc"), **SMALL)
    np.testing.assert_array_equal(frames(found), truth()[:, ::-1])
    found = netcdf(path=save(data.assign_coords(y=np.arange(5.0)), tmp_path / "b.nc"), **SMALL)
    np.testing.assert_array_equal(frames(found), truth())
    two = ("y", "x"), np.broadcast_to(LAT[::-1, None], (5, 6)).copy(), {"units": "degrees_north"}
    turned = data.isel(y=slice(None, None, -1)).assign_coords(latitude=two)
    found = netcdf(path=save(turned, tmp_path / "c.nc"), **SMALL)
    np.testing.assert_array_equal(frames(found), truth())


def test_many_files_are_one_series(tmp_path):
    whole = dataset()
    for number, part in enumerate([slice(40, 60), slice(0, 25), slice(25, 40)]):
        save(whole.isel(time=part), tmp_path / f"{number}.nc")
    for path in (str(tmp_path), str(tmp_path / "*.nc")):
        found = netcdf(path=path, **SMALL)
        np.testing.assert_array_equal(frames(found), truth())
        np.testing.assert_array_equal(found.times, TIMES)


def test_variables_in_files_of_their_own(tmp_path):
    for name, seed in (("u", 1), ("v", 2)):
        for half in (slice(0, 30), slice(30, 60)):
            part = dataset(truth(seed=seed), name=name).isel(time=half)
            save(part, tmp_path / f"{name}{half.start}.nc")
    found = netcdf(path=str(tmp_path), **SMALL)
    np.testing.assert_array_equal(found.frames, np.stack([truth(seed=1), truth(seed=2)], 1))
    (tmp_path / "v30.nc").unlink()
    with pytest.raises(S2KDError, match=r"'u' and 'v' must have the same times, but frame 30"):
        netcdf(path=str(tmp_path))


def test_files_that_do_not_fit_together(tmp_path):
    save(dataset().isel(time=slice(0, 30)), tmp_path / "a.nc")
    other = dataset(lat=LAT + 1).isel(time=slice(30, 60))
    save(other, tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"b\.nc: 't' has latitudes 76 to -44, not 75 to -45"):
        netcdf(path=str(tmp_path))
    other = dataset().isel(time=slice(30, 60))
    other["t"].attrs["units"] = "degC"
    save(other, tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"b\.nc: 't' is in 'degC', but in 'K' in a\.nc"):
        netcdf(path=str(tmp_path))
    save(dataset().isel(time=slice(20, 60)), tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"2001-01-06T00:00.* lies before the time"):
        netcdf(path=str(tmp_path))


def test_missing_times_split_the_record(tmp_path):
    keep = [*range(10), *range(12, 40), *range(41, 60)]
    path = save(dataset().isel(time=keep), tmp_path / "a.nc")
    found = netcdf(path=path, fractions=(0.7, 0.15, 0.15), gap=0)
    assert found.grid.step_seconds == 21600
    assert [(s.first, s.stop) for s in found.splits["train"]] == [(0, 10), (10, 38), (38, 40)]
    windows = WindowDataset(found, "train", past=2, lead=2)
    for start in windows.starts:
        inside = found.times[start : start + 4]
        assert (np.diff(inside) == np.timedelta64(6, "h")).all()
    assert len(windows) == 7 + 25


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ([*range(10), 9, *range(10, 60)], "2001-01-03T06.* occurs twice"),
        ([*range(10), 12, 11, *range(13, 60)], "2001-01-03T18.* lies before the time"),
    ],
)
def test_repeated_and_unsorted_times_are_refused(tmp_path, keep, words):
    path = save(dataset().isel(time=keep), tmp_path / "a.nc")
    with pytest.raises(S2KDError, match=words):
        netcdf(path=path)


def test_times_between_steps_are_refused(tmp_path):
    times = TIMES.copy()
    times[20:] += np.timedelta64(1, "h")
    with pytest.raises(S2KDError, match=r"2001-01-05T18.* followed by 2001-01-06T01.*25200 s"):
        netcdf(path=save(dataset(times=times), tmp_path / "a.nc"))


def advised(path):
    """What xarray makes of a refused file when the sentence is followed."""
    with pytest.raises(S2KDError) as refused:
        netcdf(path=path, **SMALL)
    ways = str(refused.value).partition("with xarray: ")[2].split(" or ")
    return [eval(way, {"xr": xr, "ds": xr.load_dataset(path)}) for way in ways]


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("day", ["01", "31"])
def test_calendar_months_are_named_and_can_be_made_even(tmp_path, calendar, day):
    frequency = "MS" if day == "01" else "ME"
    times = xr.date_range(f"2000-01-{day}", periods=60, freq=frequency, calendar=calendar)
    path = save(dataset(times=times), tmp_path / "a.nc")
    with pytest.raises(S2KDError, match="these are calendar months, of 28 to 31 days; make them"):
        netcdf(path=path, **SMALL)
    evened = advised(path)
    assert len(evened) == (2 if day == "01" else 1)
    for made in evened:
        assert netcdf(path=save(made, tmp_path / "b.nc"), **SMALL).grid.step_seconds == 30 * 86400


def test_uneven_times_can_be_made_even(tmp_path):
    late = np.random.default_rng(5).integers(-900, 900, 60) * np.timedelta64(1, "s")
    path = save(dataset(times=TIMES + late), tmp_path / "a.nc")
    (made,) = advised(path)
    assert netcdf(path=save(made, tmp_path / "b.nc"), **SMALL).grid.step_seconds == 6 * 3600


def test_every_nth_time(tmp_path):
    keep = [i for i in range(60) if i not in (7, 8, 9)]  # 8 is one of the kept, 7 and 9 are not
    path = save(dataset().isel(time=keep), tmp_path / "a.nc")
    found = netcdf(path=path, time_stride=2, fractions=(0.5, 0.25, 0.25), gap=0)
    kept = [i for i in range(0, 60, 2) if i != 8]
    assert found.grid.step_seconds == 43200
    np.testing.assert_array_equal(frames(found), truth()[kept])
    assert [(s.first, s.stop) for s in found.splits["train"]] == [(0, 4), (4, 14)]


def test_splits_by_date(tmp_path):
    path = save(dataset(), tmp_path / "a.nc")
    dates = {"train": ["2001-01-01", "2001-01-05"], "val": ["2001-01-06", "2001-01-08T06"]}
    found = netcdf(path=path, **dates, test=["2001-01-12", "2001-01"], gap=3)
    spans = [(s.first, s.stop) for k in ("train", "val", "test") for s in found.splits[k]]
    # train ends with the last frame of the 5th; val begins 3 frames later than it says
    assert spans == [(0, 20), (23, 30), (44, 60)]
    with pytest.raises(S2KDError, match="dates of train and val overlap at 2001-01-06T00"):
        netcdf(
            path=path,
            **(dates | {"train": ["2001-01-01", "2001-01-06"]}),
            test=["2001-01-12", "2001"],
        )
    with pytest.raises(S2KDError, match="test from 2003 to 2004 holds no frame; the record runs"):
        netcdf(path=path, **dates, test=["2003", "2004"])
    with pytest.raises(S2KDError, match="val must be a first and a last date"):
        netcdf(path=path, train=dates["train"], test=["2001-01-12", "2001-01-15"])
    with pytest.raises(S2KDError, match="train must be a first and a last date"):
        netcdf(path=path, **(dates | {"train": ["1 Jan", "5 Jan"]}), test=["2001", "2001"])
    with pytest.raises(S2KDError, match="nothing is left for the val split out of 60 frames"):
        netcdf(path=path, gap=24)


def test_missing_values_are_reported(tmp_path):
    values = truth()
    values[4, 2, 3] = values[9, 2, 3] = values[7, 0, 0] = np.nan
    path = save(dataset(values), tmp_path / "a.nc")
    with pytest.raises(S2KDError, match="'t' has 3 missing values") as error:
        netcdf(path=path, **SMALL)
    assert "first at 2001-01-02T00:00:00, row 2, column 3" in str(error.value)
    assert "'fill'" in str(error.value)
    assert "'mask'" not in str(error.value)
    with pytest.raises(S2KDError, match="missing='fil'; did you mean 'fill'"):
        netcdf(path=path, missing="fil")


def test_fill_carries_forward_and_never_back(tmp_path):
    values = truth()
    values[4:7, 2, 3] = values[0:2, 0, 0] = np.nan
    path = save(dataset(values), tmp_path / "a.nc")
    filled = frames(netcdf(path=path, missing="fill", **SMALL))
    np.testing.assert_array_equal(filled[4:7, 2, 3], truth()[3, 2, 3])
    # not observed yet: a neighbour of the same frame, never the cell's own future
    assert filled[0, 0, 0] in truth()[0, [0, 1, 0], [1, 0, 5]]
    assert filled[1, 0, 0] in truth()[1, [0, 1, 0], [1, 0, 5]]
    whole = np.isfinite(values)
    np.testing.assert_array_equal(filled[whole], values[whole])
    later = values.copy()
    later[10:] += 7  # the future must not show in what came before
    other = frames(netcdf(path=save(dataset(later), tmp_path / "b.nc"), missing="fill", **SMALL))
    np.testing.assert_array_equal(other[:10], filled[:10])


def test_mask_takes_only_cells_that_never_exist(tmp_path):
    values = truth()
    values[:, 2:4, 1:3] = np.nan
    found = netcdf(path=save(dataset(values), tmp_path / "a.nc"), missing="mask", **SMALL)
    want = np.ones((5, 6), bool)
    want[2:4, 1:3] = False
    np.testing.assert_array_equal(found.grid.exists, want)
    assert frames(found)[5, 2, 1] in (truth()[5, 2, 0], truth()[5, 1, 1])
    with pytest.raises(
        S2KDError, match=r"'t' has 240 missing values.*'mask' leaves out the 4 cells"
    ):
        netcdf(path=str(tmp_path / "a.nc"), **SMALL)
    values[7, 0, 0] = np.nan
    path = save(dataset(values), tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"'t' has 1 missing values, .* row 0, column 0"):
        netcdf(path=path, missing="mask", **SMALL)
    both = netcdf(path=path, missing="fill", **SMALL)
    np.testing.assert_array_equal(both.grid.exists, want)
    values[:] = np.nan
    with pytest.raises(S2KDError, match="'t' is missing at every time and place"):
        netcdf(path=save(dataset(values), tmp_path / "c.nc"), missing="fill", **SMALL)
    values = truth()
    values[0] = np.nan
    with pytest.raises(S2KDError, match="'t' has no values at all at 2001-01-01"):
        netcdf(path=save(dataset(values), tmp_path / "d.nc"), missing="fill", **SMALL)


def test_nearest_cells_against_a_plain_search():
    rng = np.random.default_rng(3)
    for wraps in (False, True):
        known = rng.random((7, 9)) < 0.15
        known[2, 3] = True
        source = nearest_cells(known, wraps=wraps)
        for row, column in np.ndindex(7, 9):
            apart = []
            for r, c in zip(*np.nonzero(known), strict=True):
                across = abs(c - column)
                across = min(across, 9 - across) if wraps else across
                apart.append(abs(r - row) + across)
            r, c = divmod(int(source[row, column]), 9)
            across = min(abs(c - column), 9 - abs(c - column)) if wraps else abs(c - column)
            assert known[r, c]
            assert abs(r - row) + across == min(apart)


def test_blocks_do_not_change_what_missing_finds():
    rng = np.random.default_rng(1)
    record = rng.normal(size=(20, 2, 4, 5)).astype(np.float32)
    holes = rng.random(record.shape) < 0.2
    holes[6:14] = False  # some blocks are whole, and are what is carried on
    record[holes] = np.nan
    results = []
    for size in (1, 7, 20):
        watch, copy = Missing(("a", "b"), 4, 5, wraps=True), record.copy()
        for first in range(0, 20, size):
            watch.watch(copy[first : first + size])
        results.append((copy, watch.count, watch.first))
    for copy, count, first in results:
        np.testing.assert_array_equal(copy, results[0][0])
        np.testing.assert_array_equal(count, np.isnan(record).sum(0))
        np.testing.assert_array_equal(first >= 0, count > 0)


def test_a_series_larger_than_memory_is_streamed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(_series, "BLOCK_BYTES", 4 * 30 * 7)
    values = truth()
    values[:, 3, 1] = np.nan
    path = tmp_path / "a.zarr"
    dataset(values).to_zarr(path, zarr_format=2, encoding={"t": {"chunks": (4, 5, 6)}})
    settings = {"path": str(path), "missing": "mask", **SMALL}
    streamed = netcdf(**settings, memory_gb=0.0)
    held = netcdf(**settings)
    assert isinstance(streamed.frames, FrameFile)
    assert streamed.fingerprint == held.fingerprint
    assert streamed.grid == held.grid
    (stored,) = (tmp_path / ".s2kd-cache").glob("*.npy")
    written = stored.stat().st_mtime_ns
    assert netcdf(**settings, memory_gb=0.0).fingerprint == held.fingerprint
    assert stored.stat().st_mtime_ns == written
    # another selection or a changed file is another cache
    thinned = netcdf(**settings, memory_gb=0.0, time_stride=2)
    np.testing.assert_array_equal(frames(thinned), frames(held)[::2])
    netcdf(**settings, memory_gb=0.0, cache=str(tmp_path / "here"))
    assert len(list((tmp_path / "here").glob("*.npy"))) == 1
    dataset(values + 1).to_zarr(path, zarr_format=2, mode="w")
    np.testing.assert_allclose(
        frames(netcdf(**settings, memory_gb=0.0)), frames(held) + 1, rtol=1e-6
    )


def test_an_unusable_cache_is_named(tmp_path):
    path = save(dataset(), tmp_path / "a.nc")
    (tmp_path / "file").touch()
    with pytest.raises(S2KDError, match=r"file/cache cannot be written .*set cache to a folder"):
        netcdf(path=path, memory_gb=0.0, cache=str(tmp_path / "file" / "cache"), **SMALL)


def test_torn_cache_is_not_left(tmp_path):
    values = truth()
    values[30, 0, 0] = np.nan
    path = save(dataset(values), tmp_path / "a.nc")
    with pytest.raises(S2KDError, match="1 missing values"):
        netcdf(path=path, memory_gb=0.0, **SMALL)
    assert list((tmp_path / ".s2kd-cache").iterdir()) == []


@pytest.mark.parametrize("chunk", [1, 4, 5, 9, 60])
def test_blocks_cut_along_chunks(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(_series, "BLOCK_BYTES", 4 * 30 * 8)
    path = tmp_path / "a.zarr"
    dataset().to_zarr(path, zarr_format=2, encoding={"t": {"chunks": (chunk, 5, 6)}})
    series = open_series(str(path))
    blocks = list(series.blocks(np.arange(2, 60)))
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], truth()[2:])
    bounds = 2 + np.cumsum([len(block) for block in blocks])[:-1]
    if chunk < 60:  # 60 is beyond four times the bound of 8
        assert (bounds % chunk == 0).all()
    assert max(len(block) for block in blocks) <= {9: 9}.get(chunk, 8)


def test_files_that_cannot_be_read(tmp_path):
    path = Path(save(dataset(), tmp_path / "a.nc"))
    (tmp_path / "torn.nc").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(S2KDError, match=r"torn\.nc: cannot be read as NetCDF-4 \(.*truncated"):
        netcdf(path=str(tmp_path / "torn.nc"))
    (tmp_path / "notes.nc").write_text("these are notes")
    with pytest.raises(S2KDError, match=r"notes\.nc: neither NetCDF, Zarr nor GRIB"):
        netcdf(path=str(tmp_path / "notes.nc"))
    with pytest.raises(S2KDError, match=r"absent\.nc: no such file"):
        netcdf(path=str(tmp_path / "absent.nc"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(S2KDError, match=r"empty: a folder without files that end in \.nc"):
        netcdf(path=str(tmp_path / "empty"))
    table = xr.Dataset({"price": ("time", np.ones(60))}, {"time": TIMES})
    with pytest.raises(S2KDError, match=r"no variable has the axes .* it holds price \(time\)"):
        netcdf(path=save(table, tmp_path / "table.nc"))
    bare = dataset().assign_coords(time=("time", np.arange(60.0)))
    with pytest.raises(S2KDError, match=r"'time' does not say what it counts"):
        netcdf(path=save(bare, tmp_path / "bare.nc"))


def test_a_damaged_chunk_is_named(tmp_path):
    path = tmp_path / "a.zarr"
    dataset().to_zarr(path, zarr_format=2, encoding={"t": {"chunks": (20, 5, 6)}})
    (path / "t" / "1.0.0").write_bytes(b"not a chunk at all")
    with pytest.raises(S2KDError, match=r"a\.zarr: 't' cannot be read between 2001-01-01"):
        netcdf(path=str(path), **SMALL)


def test_latest(tmp_path):
    path = save(dataset(), tmp_path / "a.nc")
    grid = netcdf(path=path, time_stride=2, **SMALL).grid
    south = dataset().isel(lat=slice(None, None, -1))
    found, times = latest(save(south, tmp_path / "b.nc"), grid, 3)
    np.testing.assert_array_equal(found[:, 0], truth()[[55, 57, 59]])
    np.testing.assert_array_equal(times, TIMES[[55, 57, 59]])
    found, times = latest(path, grid, 3, until="2001-01-05")
    np.testing.assert_array_equal(times, TIMES[[15, 17, 19]])
    one, _ = latest(save(dataset().isel(time=[7]), tmp_path / "c.nc"), grid, 1)
    np.testing.assert_array_equal(one[:, 0], truth()[[7]])


def test_latest_fills_masked_cells_as_training_did(tmp_path):
    values = truth()
    values[:, 2:4, 1:3] = np.nan
    path = save(dataset(values), tmp_path / "a.nc")
    trained = netcdf(path=path, missing="mask", **SMALL)
    found, _ = latest(path, trained.grid, 4)
    np.testing.assert_array_equal(found, trained.frames[-4:])
    values[57, 0, 0] = np.nan
    path = save(dataset(values), tmp_path / "b.nc")
    with pytest.raises(S2KDError, match="'t' has 1 missing values in the last 4 frames"):
        latest(path, trained.grid, 4)
    found, _ = latest(path, trained.grid, 4, missing="fill")
    assert found[1, 0, 0, 0] == values[56, 0, 0]


def test_latest_refuses_what_the_model_does_not_know(tmp_path):
    path = save(dataset(), tmp_path / "a.nc")
    grid = netcdf(path=path, **SMALL).grid
    with pytest.raises(S2KDError, match=r"lacks z, which .* \(the file has t\)"):
        latest(path, replace(grid, channels=("z",)), 3)
    with pytest.raises(S2KDError, match="'t' is in 'K', the model was trained on 'degC'"):
        latest(path, replace(grid, units=("degC",)), 3)
    with pytest.raises(S2KDError, match="21600 s apart, the model was trained on 3600 s"):
        latest(path, replace(grid, step_seconds=3600.0), 3)
    with pytest.raises(S2KDError, match="latitudes 75 to -45, not 80 to -40"):
        latest(path, replace(grid, latitude=tuple(LAT + 5)), 3)
    with pytest.raises(S2KDError, match="5×6, the model was trained on 4×6"):
        latest(path, replace(grid, height=4, latitude=tuple(LAT[:4])), 3)
    with pytest.raises(S2KDError, match="holds 60 frames, the model needs the last 61"):
        latest(path, grid, 61)
    path = save(dataset().isel(time=[*range(50), *range(58, 60)]), tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"needs the 3 frames .* none 43200 s before that"):
        latest(path, grid, 3)


def test_units_are_compared_by_meaning():
    for one, other in [("degK", "K"), ("m**2 s**-2", "m2/s2"), ("m s-1", "s^-1 m"), ("", "K")]:
        assert same_units(one, other)
    for one, other in [("K", "degC"), ("m s-1", "m s-2"), ("m/s", "m s"), ("hPa", "Pa")]:
        assert not same_units(one, other)


def test_settings_survive_json(tmp_path):
    path = save(dataset(), tmp_path / "a.nc")
    settings = json.loads(json.dumps({"path": path, "variables": ("t",), **SMALL}))
    assert datasets.build("netcdf", **settings).grid.channels == ("t",)
    with pytest.raises(S2KDError, match="no setting 'variable'; did you mean 'variables'"):
        datasets.build("netcdf", path=path, variable=["t"])


@real
def test_ncep_orientation_and_persistence():
    path = f"{REAL}/ncep_air_sig995_6h_2013_2014.nc"
    found = netcdf(
        path=path,
        train=("2013-01-01", "2014-06-30"),
        val=("2014-07-01", "2014-09-30"),
        test=("2014-10-01", "2014-12-31"),
    )
    rows = frames(found).mean((0, 2))
    assert rows.argmax() == found.grid.height - 1  # 15 N, the last row
    assert rows[-1] - rows[0] > 35
    field = frames(found).astype(np.float64)
    for lag, kelvin in ((1, 2.49), (4, 3.27), (12, 4.64)):
        apart = np.sqrt(np.mean((field[lag:] - field[:-lag]) ** 2))
        assert apart == pytest.approx(kelvin, abs=0.006)
    assert found.grid.longitude[0] == 200
    assert not found.grid.wraps


@real
def test_era5_levels_and_orientation():
    path = f"{REAL}/era5_tl31_19590102T00.nc"
    series = open_series(path, ("geopotential@500", "temperature@850"))
    height, warmth = series.read(np.array([0]))[0]
    assert series.plane.latitude[0] > 85
    assert series.plane.wraps
    assert (int(height.min()), int(height.max())) == (47568, 57906)
    assert warmth.min() == pytest.approx(232.7, abs=0.05)
    assert warmth.max() == pytest.approx(297.8, abs=0.05)
    # 2 January: the Arctic is colder than the Antarctic plateau's edge and both than the equator
    assert warmth[15:17].mean() > warmth[-1].mean() > warmth[0].mean()
    with pytest.raises(S2KDError, match="holds a single time"):
        netcdf(path=path, variables=("geopotential@500",))


@real
def test_a_copy_cut_short_is_refused(tmp_path):
    whole = Path(f"{REAL}/ncep_air_sig995_6h_2013_2014.nc")
    shutil.copy(whole, tmp_path / "cut.nc")
    (tmp_path / "cut.nc").chmod(0o644)
    os.truncate(tmp_path / "cut.nc", whole.stat().st_size - 100_000)
    with pytest.raises(S2KDError, match=r"cut\.nc: cannot be read as NetCDF-4"):
        netcdf(path=str(tmp_path / "cut.nc"))


@pytest.mark.parametrize("version", [2, 3])
def test_a_fill_value_of_zero_is_no_missing_time(tmp_path, version):
    """Zarr 2 fills with 0 where nothing else is said; hours since the first time begin with 0."""
    import zarr

    path = tmp_path / "zero.zarr"
    store = zarr.open_group(path, mode="w", zarr_format=version)
    values = np.random.default_rng(0).normal(280, 9, (40, 4, 6)).astype("f4")
    known = {
        "time": (np.arange(40), {"units": "hours since 1979-01-01", "calendar": "standard"}),
        "lat": (np.linspace(45, 0, 4), {"units": "degrees_north"}),
        "lon": (np.arange(6.0), {"units": "degrees_east"}),
        "air": (values, {"units": "K"}),
    }
    for name, (held, attributes) in known.items():
        dims = ["time", "lat", "lon"] if name == "air" else [name]
        more = {"dimension_names": dims} if version == 3 else {}
        array = store.create_array(name, shape=held.shape, dtype=held.dtype, fill_value=0, **more)
        array[:] = held
        array.attrs.update(attributes | ({"_ARRAY_DIMENSIONS": dims} if version == 2 else {}))
    world = datasets.build("netcdf", path=str(path), gap=0)
    assert world.times[0] == np.datetime64("1979-01-01")
    assert world.grid.latitude[-1] == 0
    assert world.grid.longitude[0] == 0
    np.testing.assert_array_equal(world.frames[:, 0], values)
