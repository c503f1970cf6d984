"""The CF reader: files of every kind, written with other libraries' own writers, and read back."""

import os
import shutil
from pathlib import Path

import cftime
import numpy as np
import pytest
import xarray as xr

from s2kd.core.types import S2KDError
from s2kd.core.units import same_units
from s2kd.data.readers.cf import cf, starting_at

REAL = os.environ.get("S2KD_REAL_DATA")
real = pytest.mark.skipif(REAL is None, reason="S2KD_REAL_DATA is not set")
LAT = np.array([75.0, 45.0, 15.0, -15.0, -45.0])  # north first
LON = np.array([0.0, 60.0, 120.0, 180.0, 240.0, 300.0])
TIMES = np.datetime64("2001-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h")


def frames(record):
    return record["t"].values


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


def levels():
    data = np.arange(60 * 3 * 5 * 6, dtype=np.float32).reshape(60, 3, 5, 6)
    high = xr.DataArray(data, dims=("time", "level", "lat", "lon"), attrs={"units": "m2 s-2"})
    whole = dataset().assign(z=high).assign_coords(level=("level", [500, 700, 850]))
    return whole.transpose("level", "lon", "time", "lat"), data


def test_plain_file(tmp_path):
    path = save(dataset(title="made here"), tmp_path / "a.nc")
    found = cf(path=path)
    np.testing.assert_array_equal(frames(found), truth())
    np.testing.assert_array_equal(found.time.values, TIMES)
    assert found["t"].dims == ("time", "row", "column")
    np.testing.assert_array_equal(found.latitude, LAT)
    np.testing.assert_array_equal(found.longitude, LON)
    assert found.attrs["wraps"]
    assert found["t"].attrs == {"units": "K", "long_name": "warmth"}
    assert found.attrs["source"] == "made here (a.nc)"


@pytest.mark.parametrize("dims", [("lon", "lat", "time"), ("lat", "time", "lon")])
@pytest.mark.parametrize("south_first", [False, True])
@pytest.mark.parametrize("east_first", [False, True])
def test_any_order_of_axes_is_turned_north_and_west_first(tmp_path, dims, south_first, east_first):
    data = dataset()
    data = data.isel(lat=slice(None, None, -1)) if south_first else data
    data = data.isel(lon=slice(None, None, -1)) if east_first else data
    found = cf(path=save(data.transpose(*dims), tmp_path / "a.nc"))
    np.testing.assert_array_equal(frames(found), truth())
    assert tuple(found.latitude.values) == tuple(LAT)
    assert tuple(found.longitude.values) == tuple(LON)


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
    found = cf(path=save(dataset(lon=np.array(lon, float)), tmp_path / "a.nc"))
    assert tuple(found.longitude.values) == longitude
    assert bool(found.attrs["wraps"]) is wraps
    np.testing.assert_array_equal(frames(found), truth())


def test_a_repeated_first_column_is_left_out(tmp_path):
    lon = np.array([0.0, 72, 144, 216, 288, 360])
    found = cf(path=save(dataset(lon=lon), tmp_path / "a.nc"))
    assert found.sizes["column"] == 5
    assert found.attrs["wraps"]
    np.testing.assert_array_equal(frames(found), truth()[:, :, :5])


def test_longitudes_that_jump_about_are_refused(tmp_path):
    path = save(dataset(lon=LON[[0, 2, 1, 3, 4, 5]]), tmp_path / "a.nc")
    with pytest.raises(S2KDError, match=r"a\.nc: 't': 'lon' does not run once round"):
        cf(path=path)
    path = save(dataset(lat=LAT[[0, 2, 1, 3, 4]]), tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"b\.nc: 't': 'lat' neither ascends nor descends"):
        cf(path=path)


def test_axes_are_known_by_their_attributes(tmp_path):
    data = dataset().rename(time="when", lat="up", lon="along")
    data["up"].attrs = {"standard_name": "latitude"}
    found = cf(path=save(data.isel(up=slice(None, None, -1)), tmp_path / "a.nc"))
    np.testing.assert_array_equal(frames(found), truth())
    assert tuple(found.latitude.values) == tuple(LAT)


def test_the_time_a_field_is_valid_for_counts(tmp_path):
    data = dataset().assign_coords(valid_time=("time", TIMES + np.timedelta64(6, "h")))
    found = cf(path=save(data, tmp_path / "a.nc"))
    np.testing.assert_array_equal(found.time.values, TIMES + np.timedelta64(6, "h"))


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars_stay_cftime(tmp_path, calendar):
    times = xr.date_range(
        "2000-02-20", periods=60, freq="6h", calendar=calendar, use_cftime=True
    ).values
    path = save(dataset(times=times), tmp_path / "a.nc")
    found = cf(path=path)
    assert isinstance(found.time.values[0], cftime.datetime)
    assert found.time.values[0].calendar == calendar
    np.testing.assert_array_equal(found.time.values, times)


def test_packed_integers_are_unpacked(tmp_path):
    values = truth()
    values[:, 3, 1] = np.nan
    packing = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 300.0, "_FillValue": -32767}
    path = save(dataset(values), tmp_path / "a.nc", encoding={"t": packing})
    found = frames(cf(path=path))
    np.testing.assert_allclose(found, values, atol=0.0051)  # NaN where the file has its fill value


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path, version):
    path = tmp_path / "a.zarr"
    dataset().isel(lat=slice(None, None, -1)).to_zarr(
        path, zarr_format=version, consolidated=version == 2, encoding={"t": {"chunks": (7, 5, 6)}}
    )
    found = cf(path=str(path))
    np.testing.assert_array_equal(frames(found), truth())
    assert tuple(found.latitude.values) == tuple(LAT)


def test_netcdf3(tmp_path):
    pytest.importorskip("scipy")
    data = dataset(truth().astype(">f4"))
    data.to_netcdf(tmp_path / "a.nc", engine="scipy", format="NETCDF3_CLASSIC")
    assert (tmp_path / "a.nc").read_bytes()[:3] == b"CDF"
    np.testing.assert_array_equal(frames(cf(path=str(tmp_path / "a.nc"))), truth())


def test_grib(tmp_path):
    pytest.importorskip("cfgrib", exc_type=Exception)
    grib(tmp_path / "a.grib2", TIMES[:30])
    found = cf(path=str(tmp_path / "a.grib2"), variables=["t@850", "t@500"])
    for channel, level in enumerate((850, 500)):
        np.testing.assert_allclose(found.to_dataarray()[channel], truth(30, seed=level), atol=1e-3)
    assert tuple(found.latitude.values) == tuple(LAT)
    assert found.attrs["wraps"]
    assert found["t@850"].attrs["standard_name"] == "air_temperature"
    np.testing.assert_array_equal(found.time.values, TIMES[:30])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.grib2"]


def test_levels_are_chosen_by_value(tmp_path):
    whole, data = levels()
    path = save(whole, tmp_path / "a.nc")
    found = cf(path=path, variables=("z@850", "t", "z@500"))
    assert tuple(found) == ("z@850", "t", "z@500")
    assert [found[name].attrs["units"] for name in found] == ["m2 s-2", "K", "m2 s-2"]
    np.testing.assert_array_equal(found.to_dataarray(), np.stack([data[:, 2], truth(), data[:, 0]]))
    with pytest.raises(S2KDError, match="'z' has the further dimension level; choose one") as error:
        cf(path=path)
    assert "variables=['z@500', 'z@700', 'z@850']" in str(error.value)
    with pytest.raises(S2KDError, match=r"no variable 'z@1000'.*there are .*z@500…850"):
        cf(path=path, variables=["z@1000"])
    with pytest.raises(S2KDError, match=r"no variable 'tt'; did you mean 't'"):
        cf(path=path, variables=["tt"])


def test_scalar_level_is_dropped_or_asked_for(tmp_path):
    path = save(dataset().assign_coords(level=850), tmp_path / "a.nc")
    for name in ("t", "t@850"):
        np.testing.assert_array_equal(cf(path=path, variables=[name])[name], truth())
    with pytest.raises(S2KDError, match="no variable 't@500'"):
        cf(path=path, variables=["t@500"])


def test_grid_without_latitudes(tmp_path):
    data = dataset().rename(lat="y", lon="x").drop_vars(["y", "x"])
    found = cf(path=save(data, tmp_path / "a.nc"))
    np.testing.assert_array_equal(frames(found), truth())
    assert "latitude" not in found.coords
    assert not found.attrs["wraps"]


def test_projected_rows_count_upwards_and_images_do_not(tmp_path):
    y = ("y", np.arange(5.0), {"standard_name": "projection_y_coordinate", "units": "m"})
    data = dataset().rename(lat="y", lon="x").drop_vars(["y", "x"])
    found = cf(path=save(data.assign_coords(y=y), tmp_path / "a.nc"))
    np.testing.assert_array_equal(frames(found), truth()[:, ::-1])
    found = cf(path=save(data.assign_coords(y=np.arange(5.0)), tmp_path / "b.nc"))
    np.testing.assert_array_equal(frames(found), truth())
    two = ("y", "x"), np.broadcast_to(LAT[::-1, None], (5, 6)).copy(), {"units": "degrees_north"}
    turned = data.isel(y=slice(None, None, -1)).assign_coords(latitude=two)
    found = cf(path=save(turned, tmp_path / "c.nc"))
    np.testing.assert_array_equal(frames(found), truth())


def test_many_files_are_one_series(tmp_path):
    whole = dataset()
    for number, part in enumerate([slice(40, 60), slice(0, 25), slice(25, 40)]):
        save(whole.isel(time=part), tmp_path / f"{number}.nc")
    for path in (str(tmp_path), str(tmp_path / "*.nc")):
        found = cf(path=path)
        np.testing.assert_array_equal(frames(found), truth())
        np.testing.assert_array_equal(found.time.values, TIMES)


def test_variables_in_files_of_their_own(tmp_path):
    for name, seed in (("u", 1), ("v", 2)):
        for half in (slice(0, 30), slice(30, 60)):
            part = dataset(truth(seed=seed), name=name).isel(time=half)
            save(part, tmp_path / f"{name}{half.start}.nc")
    found = cf(path=str(tmp_path))
    np.testing.assert_array_equal(found.to_dataarray(), np.stack([truth(seed=1), truth(seed=2)]))
    (tmp_path / "v30.nc").unlink()
    with pytest.raises(S2KDError, match=r"'u' and 'v' must have the same times, but frame 30"):
        cf(path=str(tmp_path))


def test_files_that_do_not_fit_together(tmp_path):
    save(dataset().isel(time=slice(0, 30)), tmp_path / "a.nc")
    other = dataset(lat=LAT + 1).isel(time=slice(30, 60))
    save(other, tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"b\.nc: 't' has latitudes 76 to -44, not 75 to -45"):
        cf(path=str(tmp_path))
    other = dataset().isel(time=slice(30, 60))
    other["t"].attrs["units"] = "degC"
    save(other, tmp_path / "b.nc")
    with pytest.raises(S2KDError, match=r"b\.nc: 't' is in 'degC', but in 'K' in a\.nc"):
        cf(path=str(tmp_path))


def test_files_that_cannot_be_read(tmp_path):
    path = Path(save(dataset(), tmp_path / "a.nc"))
    (tmp_path / "torn.nc").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(S2KDError, match=r"torn\.nc: cannot be read as NetCDF-4 \(.*truncated"):
        cf(path=str(tmp_path / "torn.nc"))
    (tmp_path / "notes.nc").write_text("these are notes")
    with pytest.raises(S2KDError, match=r"notes\.nc: neither NetCDF, Zarr nor GRIB"):
        cf(path=str(tmp_path / "notes.nc"))
    with pytest.raises(S2KDError, match=r"absent\.nc: no such file"):
        cf(path=str(tmp_path / "absent.nc"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(S2KDError, match=r"empty: a folder without files that end in \.nc"):
        cf(path=str(tmp_path / "empty"))
    table = xr.Dataset({"price": ("time", np.ones(60))}, {"time": TIMES})
    with pytest.raises(S2KDError, match=r"no variable has the axes .* it holds price \(time\)"):
        cf(path=save(table, tmp_path / "table.nc"))
    bare = dataset().assign_coords(time=("time", np.arange(60.0)))
    with pytest.raises(S2KDError, match=r"'time' does not say what it counts"):
        cf(path=save(bare, tmp_path / "bare.nc"))


def test_units_are_compared_by_meaning():
    for one, other in [("degK", "K"), ("m**2 s**-2", "m2/s2"), ("m s-1", "s^-1 m"), ("", "K")]:
        assert same_units(one, other)
    for one, other in [("K", "degC"), ("m s-1", "m s-2"), ("m/s", "m s"), ("hPa", "Pa")]:
        assert not same_units(one, other)


@real
def test_era5_levels_and_orientation():
    path = f"{REAL}/era5_tl31_19590102T00.nc"
    record = cf(path=path, variables=("geopotential@500", "temperature@850"))
    height, warmth = record.to_dataarray().values[:, 0]
    assert record.latitude[0] > 85
    assert record.attrs["wraps"]
    assert (int(height.min()), int(height.max())) == (47568, 57906)
    assert warmth.min() == pytest.approx(232.7, abs=0.05)
    assert warmth.max() == pytest.approx(297.8, abs=0.05)
    # 2 January: the Arctic is colder than the Antarctic plateau's edge and both than the equator
    assert warmth[15:17].mean() > warmth[-1].mean() > warmth[0].mean()


@real
def test_a_copy_cut_short_is_refused(tmp_path):
    whole = Path(f"{REAL}/ncep_air_sig995_6h_2013_2014.nc")
    shutil.copy(whole, tmp_path / "cut.nc")
    (tmp_path / "cut.nc").chmod(0o644)
    os.truncate(tmp_path / "cut.nc", whole.stat().st_size - 100_000)
    with pytest.raises(S2KDError, match=r"cut\.nc: cannot be read as NetCDF-4"):
        cf(path=str(tmp_path / "cut.nc"))


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
    record = cf(path=str(path))
    assert record.time.values[0] == np.datetime64("1979-01-01")
    assert record.latitude[-1] == 0
    assert record.longitude[0] == 0
    np.testing.assert_array_equal(record["air"], values)


def test_columns_turn_to_the_meridian_of_another_grid(tmp_path):
    record = cf(path=save(dataset(), tmp_path / "a.nc"))
    turned = starting_at(record, -120.0)
    np.testing.assert_array_equal(turned.longitude, [240, 300, 360, 420, 480, 540])
    np.testing.assert_array_equal(frames(turned), np.roll(truth(), -4, axis=2))
    rows, columns = turned.attrs["axes"]
    np.testing.assert_array_equal(frames(turned)[0][rows.order][:, columns.order], truth()[0])
