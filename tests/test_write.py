"""What is written is opened again by xarray alone."""

import sys
from dataclasses import replace

import cftime
import numpy as np
import pytest
import xarray as xr

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.write import to_xarray, write

GRID = GridSpec(
    channels=("t2m", "z@500"),
    units=("K", "m2 s-2"),
    height=3,
    width=4,
    step_seconds=21600.0,
    latitude=(60.0, 0.0, -60.0),
    longitude=(0.0, 90.0, 180.0, 270.0),
    wraps=True,
)
FORECAST = np.arange(2 * 5 * 2 * 3 * 4, dtype=np.float32).reshape(2, 5, 2, 3, 4)
TIMES = np.array(["2020-02-28T18", "2020-02-29T00"], "datetime64[ns]")
ATTRIBUTES = {"t2m": {"standard_name": "air_temperature", "units": "degK", "long_name": "warmth"}}


@pytest.fixture(params=[".nc", ".zarr"])
def path(request, tmp_path):
    return tmp_path / f"forecast{request.param}"


def reopen(path, decode=True):
    engine = "zarr" if path.suffix == ".zarr" else "h5netcdf"
    options = {"decode_timedelta": True} if decode else {"decode_cf": False}
    with xr.open_dataset(path, engine=engine, **options) as data:
        return data.load()


def made(**changes):
    settings = {"grid": GRID, "initial_times": TIMES, "attributes": ATTRIBUTES} | changes
    return to_xarray(settings.pop("forecast", FORECAST), **settings)


def test_round_trip(path):
    data = made(history="earlier: made", done="s2kd forecast", facts={"model": "unet"})
    write(data, path)
    found = reopen(path)
    assert found["t2m"].dims == ("time", "lead_time", "lat", "lon")
    np.testing.assert_array_equal(found["t2m"], FORECAST[:, :, 0])
    np.testing.assert_array_equal(found["z_500"], FORECAST[:, :, 1])
    np.testing.assert_array_equal(found["time"], TIMES)
    hours = np.array([6, 12, 18, 24, 30]) * np.timedelta64(1, "h")
    np.testing.assert_array_equal(found["lead_time"], hours)
    np.testing.assert_array_equal(found["valid_time"], TIMES[:, None] + hours)
    assert found["valid_time"].dims == ("time", "lead_time")
    np.testing.assert_array_equal(found["lat"], GRID.latitude)
    assert found["lat"].attrs["standard_name"] == "latitude"
    assert found["t2m"].attrs["standard_name"] == "air_temperature"
    assert found["t2m"].attrs["long_name"] == "warmth"
    # the numbers are in the grid's unit, whatever the attributes of the input say
    assert found["t2m"].attrs["units"] == "K"
    assert found["z_500"].attrs == {"long_name": "z@500", "channel": "z@500", "units": "m2 s-2"}
    assert found.attrs["Conventions"] == "CF-1.11"
    assert found.attrs["model"] == "unet"
    first, second = found.attrs["history"].split("\n")
    assert first == "earlier: made"
    assert second.endswith("Z s2kd forecast")


def test_what_is_stored_is_plain_cf(path):
    write(made(), path)
    raw = reopen(path, decode=False)
    assert raw["lead_time"].attrs["units"] == "hours"
    np.testing.assert_array_equal(raw["lead_time"], [6, 12, 18, 24, 30])
    assert raw["time"].attrs["standard_name"] == "forecast_reference_time"
    assert raw["valid_time"].attrs["standard_name"] == "time"
    assert raw["time"].dtype == np.int64
    assert raw["time"].attrs["units"] == "hours since 2020-02-28 18:00:00"
    assert "_FillValue" not in raw["lat"].attrs


def test_one_forecast(path):
    write(made(forecast=FORECAST[0], initial_times=TIMES[:1]), path)
    np.testing.assert_array_equal(reopen(path)["t2m"], FORECAST[:1, :, 0])


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_other_calendars(path, calendar):
    time = cftime.datetime(2020, 2, 28, 18, calendar=calendar)
    write(made(forecast=FORECAST[0], initial_times=np.array([time])), path)
    found = reopen(path)
    assert found["time"].values[0] == time
    day = {"noleap": (3, 1), "360_day": (2, 29)}[calendar]
    assert found["valid_time"].values[0, 0] == cftime.datetime(2020, *day, calendar=calendar)
    ahead = np.diff(found["valid_time"].values[0])
    assert [step.total_seconds() for step in ahead] == [21600.0] * 4
    np.testing.assert_array_equal(found["t2m"], FORECAST[:1, :, 0])


def test_masked_cells_are_missing(path):
    mask = np.ones((3, 4), bool)
    mask[1, 2] = mask[2, 0] = False
    write(made(grid=replace(GRID, mask=tuple(tuple(map(bool, row)) for row in mask))), path)
    found = reopen(path)["t2m"].values
    assert np.isnan(found[:, :, ~mask]).all()
    np.testing.assert_array_equal(found[:, :, mask], FORECAST[:, :, 0][:, :, mask])
    assert np.isnan(reopen(path, decode=False)["t2m"].attrs["_FillValue"])


def test_steps_of_a_tenth_of_a_second(path):
    grid = replace(GRID, latitude=None, longitude=None, wraps=False, step_seconds=0.1)
    write(made(grid=grid), path)
    found = reopen(path)
    assert found["t2m"].dims == ("time", "lead_time", "y", "x")
    tenths = np.arange(1, 6) * np.timedelta64(100, "ms")
    np.testing.assert_array_equal(found["lead_time"], tenths)
    np.testing.assert_array_equal(found["valid_time"], TIMES[:, None] + tenths)
    assert "lat" not in found.variables


@pytest.mark.parametrize(
    ("channels", "names"),
    [
        (("z@500", "z_500"), ("z_500_2", "z_500")),
        (("u (m s-1)", "u [m s-1]"), ("u_m_s_1_", "u_m_s_1__2")),
        (("风速", "10u"), ("风速", "v_10u")),
        (("lat", "valid_time"), ("lat_2", "valid_time_2")),
    ],
)
def test_every_channel_has_a_name_of_its_own(path, channels, names):
    write(made(grid=replace(GRID, channels=channels)), path)
    found = reopen(path)
    assert set(found.data_vars) == set(names)
    for number, (channel, name) in enumerate(zip(channels, names, strict=True)):
        np.testing.assert_array_equal(found[name], FORECAST[:, :, number])
        assert found[name].attrs.get("channel", name) == channel


def test_what_does_not_fit_is_refused():
    with pytest.raises(S2KDError, match=r"shape \(2, 5, 2, 3, 3\), the grid wants .*lead, 2, 3, 4"):
        made(forecast=FORECAST[..., :3])
    with pytest.raises(S2KDError, match="2 forecasts but 1 initial times"):
        made(initial_times=TIMES[:1])


def test_replacing_is_all_or_nothing(path):
    write(made(), path)
    before = reopen(path)
    broken = made().assign_attrs(impossible=object())
    with pytest.raises(TypeError):
        write(broken, path)
    xr.testing.assert_identical(reopen(path), before)
    assert list(path.parent.iterdir()) == [path]
    write(made(forecast=FORECAST + 1), path)
    np.testing.assert_array_equal(reopen(path)["t2m"], FORECAST[:, :, 0] + 1)
    assert list(path.parent.iterdir()) == [path]


def test_what_must_not_be_replaced(tmp_path):
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr" / "chapter.txt").touch()
    with pytest.raises(S2KDError, match=r"thesis\.zarr: exists and is no Zarr store"):
        write(made(), tmp_path / "thesis.zarr")
    assert (tmp_path / "thesis.zarr" / "chapter.txt").exists()
    (tmp_path / "folder.nc").mkdir()
    with pytest.raises(S2KDError, match=r"folder\.nc: is a folder"):
        write(made(), tmp_path / "folder.nc")
    with pytest.raises(S2KDError, match=r"forecast\.grib: .* NetCDF \(\.nc\) or Zarr \(\.zarr\)"):
        write(made(), tmp_path / "forecast.grib")


@pytest.mark.parametrize("limit", [0, 300, 5000])
def test_a_full_disk_is_an_error_and_leaves_what_was_there(path, monkeypatch, limit):
    """A limit on the size of files stands in for a full disk; HDF5 would end the process."""
    resource = pytest.importorskip("resource")
    earlier, larger = made(), made(forecast=np.random.default_rng(1).random((2, 900, 2, 3, 4)))
    write(earlier, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(larger, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    np.testing.assert_array_equal(reopen(path)["t2m"], FORECAST[:, :, 0])
