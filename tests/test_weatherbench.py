"""WeatherBench's folders and WeatherBench 2's Zarr, made in miniature as they are published."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from benchmark_files import (
    LATITUDE,
    field,
    save,
    times_of_year,
    values,
    weatherbench,
    weatherbench2,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data._weatherbench import Field, field_named, usual
from s2kd.data.describe import describe
from s2kd.data.netcdf import latest_of
from s2kd.data.weatherbench import latest, series_for
from s2kd.data.windows import WindowDataset
from s2kd.evaluation.climatology import Climatology
from s2kd.evaluation.metrics import latitude_weights
from s2kd.pipeline import recipes

REAL = os.environ.get("S2KD_REAL_DATA")
SPLITS = {"train": ["1990", "1990"], "val": ["1991", "1991"], "test": ["1992", "1992"]}
Z500, T850 = "geopotential@500", "temperature@850"


def build(path, **more):
    return datasets.build("weatherbench", **{"path": str(path), **SPLITS, **more})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three years, 6-hourly, single levels and all levels of both fields."""
    root = weatherbench(tmp_path_factory.mktemp("wb"), which=("z500", "t850"))
    return weatherbench(root, which=("z", "t"), frames=24)


@pytest.fixture(scope="module")
def found(folder):
    return build(folder)


def copy(folder, tmp_path):
    """A folder of links: what a test replaces is its own."""
    root = tmp_path / "wb"
    for file in folder.rglob("*.nc"):
        target = root / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file)
    return root


def file_of(root, year, name="z"):
    about = {"z": "geopotential_500", "t": "temperature_850"}[name]
    return root / about / f"{about}hPa_{year}_5.625deg.nc"


def replaced(root, dataset, year, name="z"):
    file_of(root, year, name).unlink(missing_ok=True)
    return save(dataset, file_of(root, year, name))


# --- what comes out ------------------------------------------------------------------------------


def test_the_two_fields_in_their_order_north_first(found):
    grid = found.grid
    assert (grid.channels, grid.units) == ((Z500, T850), ("m**2 s**-2", "K"))
    assert (grid.height, grid.width, grid.wraps, grid.step_seconds) == (32, 64, True, 21600.0)
    assert grid.latitude == tuple(LATITUDE[::-1])
    assert grid.longitude[:2] == (0.0, 5.625)
    for channel, (name, level) in enumerate((("z", 500), ("t", 850))):
        made = np.concatenate(
            [values(name, times_of_year(y, hours=6), level) for y in range(1990, 1993)]
        )
        np.testing.assert_array_equal(found.frames[:, channel], made[:, ::-1])
    row, column = np.unravel_index(found.frames[7, 0].argmax(), (32, 64))
    assert (grid.latitude[row], grid.longitude[column]) == (59.0625, 90.0), "the blob is in place"
    assert found.attributes[Z500]["long_name"] == "Geopotential"


def test_splits_are_whole_years_and_leap_days_are_there(found):
    lengths = {name: [s.stop - s.first for s in split] for name, split in found.splits.items()}
    assert lengths == {"train": [1460], "val": [1460], "test": [1464]}
    first, last = (found.times[found.splits["test"][0].first], found.times[-1])
    assert (str(first)[:13], str(last)[:13]) == ("1992-01-01T00", "1992-12-31T18")
    leap = np.datetime64("1992-02-29T06", "ns")
    assert leap in found.times
    at = int(np.flatnonzero(found.times == leap)[0])
    assert found.times[at + 4] == np.datetime64("1992-03-01T06", "ns")


def test_no_hour_is_lost_or_doubled_where_clocks_change(found):
    """Times are UTC: the days of both changes of clocks in 1990 and 1991 have four frames each."""
    steps = np.diff(found.times) / np.timedelta64(1, "h")
    assert (steps == 6).all()
    for day in ("1990-03-25", "1990-09-30", "1990-04-01", "1990-10-28", "1991-03-31"):
        of_day = found.times.astype("datetime64[D]") == np.datetime64(day)
        assert of_day.sum() == 4


def test_windows_never_leave_their_year(found):
    for split, year in (("train", 1990), ("val", 1991), ("test", 1992)):
        windows = WindowDataset(found, split, past=12, lead=12)
        reach = windows.starts[:, None] + np.arange(24)
        assert set(found.times[reach].astype("datetime64[Y]").astype(int).ravel() + 1970) == {year}
        assert len(windows) == (1464 if year == 1992 else 1460) - 23


@pytest.mark.parametrize("hours", [1, 3, 6, 12])
def test_hourly_files_thinned_on_the_hours_of_the_day(tmp_path, hours):
    """Two days of hourly frames at each year's turn, the first of them not at midnight."""
    for year in (1990, 1991, 1992):
        times = times_of_year(year)[5:101]
        replaced(tmp_path, field("z", times), year)
    made = build(tmp_path, variables=["z500"], hours=hours)
    assert made.grid.step_seconds == hours * 3600
    assert set((made.times - made.times.astype("datetime64[D]")) // np.timedelta64(1, "h")) == set(
        range(0, 24, hours)
    )
    assert [len(split) for split in made.splits.values()] == [1, 1, 1]
    at = np.flatnonzero(made.times == np.datetime64("1991-01-03T12"))[0]
    want = values("z", np.array([made.times[at]]), 500)[0, ::-1]
    np.testing.assert_array_equal(made.frames[at, 0], want)


def test_thirteen_levels_hold_the_same_as_single_ones(found, folder, tmp_path):
    for name in ("geopotential", "temperature"):
        (tmp_path / "5.625deg").mkdir(exist_ok=True)
        (tmp_path / "5.625deg" / name).symlink_to(folder / name)
    stacked = build(tmp_path)
    first = np.concatenate([np.arange(24) + s[0].first for s in found.splits.values()])
    np.testing.assert_array_equal(stacked.times, found.times[first])
    np.testing.assert_array_equal(stacked.frames, found.frames[first])
    assert stacked.grid == found.grid
    other = build(tmp_path, variables=["z850", "temperature_50", "z500"])
    assert other.grid.channels == ("geopotential@850", "temperature@50", Z500)
    np.testing.assert_array_equal(other.frames[:, 2], stacked.frames[:, 0])
    with pytest.raises(S2KDError, match="no variable 'z@501'"):
        build(tmp_path, variables=["z501"])
    # the single-level folder of one field beside the 13-level one of another
    mixed = tmp_path / "mixed"
    weatherbench(mixed, which=("t850",), frames=24)
    (mixed / "geopotential").symlink_to(folder / "geopotential")
    made = build(mixed, variables=[T850, "geopotential@700", Z500])
    np.testing.assert_array_equal(made.frames[:, [2, 0]], stacked.frames)


def test_surface_fields(tmp_path):
    for year in (1990, 1991, 1992):
        times = times_of_year(year, hours=6)[:8]
        made = field("t", times, (1000,)).drop_vars("level").rename(t="t2m")
        save(made, tmp_path / "2m_temperature" / f"2m_temperature_{year}_5.625deg.nc")
    made = build(tmp_path, variables=["t2m"])
    assert made.grid.channels == ("2m_temperature",)
    assert made.frames.shape == (24, 1, 32, 64)


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        ("geopotential@500", ("geopotential", "500")),
        ("geopotential_500", ("geopotential", "500")),
        ("z@500", ("geopotential", "500")),
        ("z500", ("geopotential", "500")),
        ("u_component_of_wind_850", ("u_component_of_wind", "850")),
        ("u10", ("10m_u_component_of_wind", "")),
        ("2m_temperature", ("2m_temperature", "")),
        ("ozone@50", ("ozone", "50")),
        ("total_precipitation_6hr", ("total_precipitation_6hr", "")),
    ],
)
def test_names_that_users_give(asked, want):
    assert field_named(asked) == Field(name=want[0], level=want[1])
    assert field_named(field_named(asked).channel) == field_named(asked)


def test_weatherbench_2_gives_the_very_same_frames(found, tmp_path):
    path = weatherbench2(tmp_path / "era5.zarr", found.times[1300:1700])
    made = build(
        path,
        train=["1990", "1990"],
        val=["1991-01-01", "1991-01-20"],
        test=["1991-01-21", "1991-02-20"],
    )
    np.testing.assert_array_equal(made.frames, found.frames[1300:1664])
    assert made.grid == found.grid
    assert made.source.endswith("era5.zarr")
    with pytest.raises(S2KDError, match="frames are 6 h apart, so hours=1 cannot be had"):
        build(path, **{name: ["1990-12", "1991-01"] for name in SPLITS}, hours=1)
    with pytest.raises(S2KDError, match=r"era5\.zarr: no variable 'geopotential@501'"):
        build(path, **{n: ["1990", "1991"] for n in SPLITS}, variables=["z501"])


def test_a_store_at_an_address_is_kept_in_a_cache(found, tmp_path, monkeypatch):
    """As `gs://`, by any file system that fsspec knows."""
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = weatherbench2(tmp_path / "era5.zarr", found.times[1300:1700])
    memory = fsspec.filesystem("memory")
    memory.put(str(path), "/bucket/era5.zarr", recursive=True)
    wishes = {
        "train": ["1990", "1990"],
        "val": ["1991-01-01", "1991-01-20"],
        "test": ["1991-01-21", "1991-02-20"],
    }
    made = build("memory://bucket/era5.zarr", **wishes)
    np.testing.assert_array_equal(made.frames[0:364], found.frames[1300:1664])
    (kept,) = (tmp_path / "cache" / "s2kd").glob("*.npy")
    before = kept.stat().st_mtime_ns
    again = build("memory://bucket/era5.zarr", **wishes)
    np.testing.assert_array_equal(again.frames[5:9], found.frames[1305:1309])
    assert kept.stat().st_mtime_ns == before
    memory.rm("/bucket", recursive=True)
    with pytest.raises(S2KDError, match=r"memory://bucket/era5\.zarr: cannot be opened as Zarr"):
        build("memory://bucket/era5.zarr", **wishes)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(S2KDError, match=r"gs://bucket/era5.zarr: needs gcsfs .*s2kd\[cloud\]"):
        build("gs://bucket/era5.zarr", **wishes)


def test_what_memory_cannot_hold_is_read_from_a_file(folder, found):
    shutil.rmtree(folder / ".s2kd-cache", ignore_errors=True)
    made = build(folder, memory_gb=0.01)
    assert list((folder / ".s2kd-cache").glob("*.npy"))
    np.testing.assert_array_equal(made.frames[1450:1470], found.frames[1450:1470])
    assert made.fingerprint == found.fingerprint


def test_latitude_weights_and_climatology_are_the_benchmarks(found):
    weights = np.asarray(latitude_weights(found.grid.latitude))
    np.testing.assert_allclose(np.mean(weights), 1)
    np.testing.assert_allclose(
        weights[15] / weights[0], np.cos(np.deg2rad(2.8125)) / np.cos(np.deg2rad(87.1875))
    )
    fitted = Climatology.fit(found)
    assert fitted.slots == 4


def test_the_last_frames_for_a_forecast(found, folder, tmp_path):
    frames, times = latest(str(file_of(folder, 1992)), replace_channels(found.grid, (Z500,)), 5)
    np.testing.assert_array_equal(frames[:, 0], found.frames[-5:, 0])
    assert str(times[-1])[:13] == "1992-12-31T18"
    frames, times = latest(str(folder), found.grid, 4, until="1991-06-30")
    assert str(times[-1])[:13] == "1991-06-30T18"
    assert frames.shape == (4, 2, 32, 64)
    both = [("z", 500, "geopotential_500"), ("t", 850, "temperature_850")]
    new = xr.merge(
        field(name, found.times[-9:], (level,)).rename({name: long}).drop_vars("level")
        for name, level, long in both
    )
    frames, _ = latest(str(save(new, tmp_path / "now.nc")), found.grid, 4)
    np.testing.assert_array_equal(frames, found.frames[-4:])
    frames, *_ = latest_of(series_for(new, found.grid), found.grid, 4)  # the dataset itself
    np.testing.assert_array_equal(frames, found.frames[-4:])


def replace_channels(grid, channels):
    from dataclasses import replace

    units = tuple(grid.units[grid.channels.index(c)] for c in channels)
    return replace(grid, channels=channels, units=units)


# --- splits --------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(data=st.data())
def test_splits_share_no_frame_and_bridge_no_gap(tmp_path_factory, data):
    """Over lengths, missing hours, steps and gaps: disjoint, in range, and unbroken."""
    root = tmp_path_factory.mktemp("gaps")
    hours = data.draw(st.sampled_from([1, 2, 3, 6]), "hours")
    gap = data.draw(st.integers(0, 6), "gap")
    kept = {}
    for year in (1990, 1991, 1992):
        length = data.draw(st.integers(48, 96), "length")
        lost = data.draw(st.sets(st.integers(1, length - 2), max_size=4), "lost")
        times = np.delete(times_of_year(year)[:length], sorted(lost))
        made = field("z", times)
        save(made.isel(lon=slice(0, 64, 16)), file_of(root, year))  # four columns, to be quick
        kept[year] = times
    try:
        made = build(root, variables=["z500"], hours=hours, gap=gap)
    except S2KDError as error:
        if "nothing is left" not in str(error):
            raise
        return
    every = np.concatenate(list(kept.values()))
    hour = (every - every.astype("datetime64[D]")) // np.timedelta64(1, "h")
    np.testing.assert_array_equal(made.times, every[hour.astype(int) % hours == 0])
    seen = []
    for name, year in (("train", 1990), ("val", 1991), ("test", 1992)):
        for stretch in made.splits[name]:
            own = made.times[stretch.first : stretch.stop]
            assert (own.astype("datetime64[Y]").astype(int) + 1970 == year).all()
            assert (np.diff(own) == np.timedelta64(hours, "h")).all()
            seen += range(stretch.first, stretch.stop)
    assert len(seen) == len(set(seen))


# --- bad input -----------------------------------------------------------------------------------


def refused(words, *arguments, **more):
    with pytest.raises(S2KDError, match=words):
        build(*arguments, **more)


def test_a_download_cut_short_is_named(folder, tmp_path):
    root = copy(folder, tmp_path)
    target = file_of(root, 1991, "t")
    whole = target.read_bytes()
    target.unlink()
    target.write_bytes(whole[: len(whole) * 2 // 3])
    refused(
        r"temperature_850hPa_1991_5\.625deg\.nc: cannot be read as NetCDF-4 .*cut short: fetch",
        root,
    )
    target.write_bytes(b"<html>sign in</html>")
    refused(r"1991_5\.625deg\.nc: neither NetCDF, Zarr nor GRIB \(it starts with b'<html>", root)
    target.write_bytes(b"")
    refused(r"1991_5\.625deg\.nc: neither NetCDF, Zarr nor GRIB", root)


def test_a_file_whose_end_never_arrived_is_all_missing(folder, tmp_path):
    root = copy(folder, tmp_path)
    with h5py.File(replaced(root, field("z", times_of_year(1991, hours=6)), 1991), "r+") as file:
        file["z"][700:] = np.nan
    refused(r"'geopotential@500' has \d+ missing values, the first at 1991-06-25T00", root)
    for year in SPLITS.values():
        blank = field("z", times_of_year(int(year[0]), hours=6))
        blank["z"][:] = np.nan
        replaced(root, blank, int(year[0]))
    refused("'geopotential@500' is missing at every time and place", root)


def test_grids_that_differ_between_years(folder, tmp_path):
    root = copy(folder, tmp_path)
    made = field("z", times_of_year(1991, hours=6))
    replaced(root, made.isel(lat=slice(0, 16)), 1991)
    refused(r"1991_5.625deg.nc: 'geopotential@500' has 16×64 cells, not 32×64 .*_1990_", root)
    replaced(root, made.assign_coords(lat=made.lat + 1.0), 1991)
    refused(r"1991_5.625deg.nc: .* latitudes 88\.1\d+ to -86\.1\d+, not 87\.1\d+ to", root)
    replaced(root, made.assign_coords(lon=made.lon - 180), 1991)
    refused(r"1991_5.625deg.nc: .* longitudes -180 to", root)
    replaced(root, made.isel(lat=slice(None, None, -1)), 1991)
    turned = build(root)
    np.testing.assert_array_equal(turned.frames[1460], build(folder).frames[1460])


def test_times_twice_or_out_of_order(folder, tmp_path):
    root = copy(folder, tmp_path)
    made = field("z", times_of_year(1991, hours=6))
    replaced(root, made.isel(time=[*range(9), 8, *range(9, 1460)]), 1991)
    refused(r"1991_5.625deg.nc: time 1991-01-03T00:00 \(number 9\) occurs twice; sort", root)
    replaced(root, made.isel(time=[0, 2, 1, *range(3, 1460)]), 1991)
    refused(r"1991_5.625deg.nc: time 1991-01-01T06:00 \(number 2\) lies before the one", root)
    replaced(root, made, 1991)
    shutil.copy(file_of(root, 1991), file_of(root, 1991).with_stem("geopotential_500hPa_1991_copy"))
    refused(r"two files hold the same times; keep one of them", root)


def test_hours_that_only_one_field_has(folder, tmp_path):
    root = copy(folder, tmp_path)
    replaced(root, field("z", times_of_year(1991, hours=6)).isel(time=slice(1, None)), 1991)
    refused(
        f"'{Z500}' and '{T850}' must have the same times, but frame 1460 is 1991-01-01T06", root
    )


def test_height_in_metres_is_told_from_geopotential(folder, tmp_path):
    root = copy(folder, tmp_path)
    made = field("z", times_of_year(1991, hours=6))
    about = made.z.attrs
    replaced(root, made.assign(z=(made.z / 9.80665).assign_attrs(about)), 1991)
    words = (
        r"where about 5\.4\de\+04 m² s⁻² is usual; it looks like geopotential height in metres: m"
    )
    refused(rf"1991_5.625deg.nc: 'geopotential@500' has the mean 5,\d+.* {words}", root)
    replaced(root, made.assign(z=(made.z / 9.80665).assign_attrs(units="gpm")), 1991)
    refused(r"'geopotential@500' is in 'gpm', not in m² s⁻²; multiply it by 9\.80665", root)
    replaced(root, made.assign(z=(made.z / 3).assign_attrs(about)), 1991)
    refused(r"is usual; check the file's units and level", root)
    replaced(root, made, 1991)
    warm = field("t", times_of_year(1992, hours=6), (850,))
    replaced(root, warm.assign(t=(warm.t - 273.15).assign_attrs(units="")), 1992, "t")
    refused(r"temperature_850hPa_1992.*it looks like degrees Celsius: add 273\.15", root)


def test_usual_means_are_the_standard_atmospheres():
    """US Standard Atmosphere 1976, geopotential metres of its pressure tables."""
    for level, metres in (
        ("850", 1457),
        ("500", 5574),
        ("250", 10363),
        ("100", 16180),
        ("50", 20576),
    ):
        assert usual(Field(name="geopotential", level=level))[0] / 9.80665 == pytest.approx(
            metres, abs=12
        )
    assert usual(Field(name="geopotential", level="1000")) is None


def test_years_that_are_not_there(folder, tmp_path):
    words = r"but there are no frames of 1979–1989 \(there are of 1990–1992\); fetch"
    refused(f"train wants 1979 to 1990, {words}", folder, train=["1979", "1990"])
    refused("holds no NetCDF file of the years asked for", folder,
            train=["1960", "1961"], val=["1962", "1962"], test=["1963", "1963"])  # fmt: skip
    root = copy(folder, tmp_path)
    for name in "zt":
        file_of(root, 1991, name).unlink()
    refused(r"val wants 1991 to 1991, .* no frames of 1991 \(there are of 1990, 1992\)", root)


def test_wishes_that_cannot_be(folder, tmp_path):
    refused("hours must divide a day", folder, hours=5)
    refused("missing='errror'; did you mean 'error'", folder, missing="errror")
    refused("one or more different ones", folder, variables=["z500", "geopotential_500"])
    refused("one or more different ones", folder, variables=[])
    refused("has no folder 'vorticity_500' for 'vorticity@500'", folder, variables=["vo500"])
    refused("train must be a first and a last date", folder, train=["1990"])
    refused("the dates of train and val overlap at 1990-01-01", folder, val=["1990", "1991"])
    refused("nothing is left for the val split", folder, gap=2000)
    refused("no such file", tmp_path / "none")
    empty = field("z", times_of_year(1991, hours=6)).isel(time=slice(0, 0))
    refused("holds no times", replaced(tmp_path, empty, 1991).parent, variables=["z500"])


def test_a_level_that_nothing_tells(tmp_path):
    for year in (1990, 1991, 1992):
        made = field("z", times_of_year(year, hours=6)[:8]).drop_vars("level")
        save(
            made,
            tmp_path / "named" / "geopotential_500" / f"geopotential_500hPa_{year}_5.625deg.nc",
        )
        save(made, tmp_path / "not" / "geopotential" / f"geopotential_{year}_5.625deg.nc")
    assert build(tmp_path / "named", variables=["z500"]).grid.channels == (Z500,)
    refused(
        "has no level coordinate, so nothing says that it is at 500 hPa",
        tmp_path / "not",
        variables=["z500"],
    )


# --- recipes -------------------------------------------------------------------------------------


def test_the_recipe_in_both_sizes(tmp_path):
    large = recipes.get("weatherbench", data=str(tmp_path))
    assert (large.past, large.lead, large.teacher.backbone.name) == (12, 12, "triton")
    assert (large.teacher.width, large.teacher.depth, large.teacher.heads) == (512, 3, 8)
    assert [student.name for student in large.students] == ["unet", "resnet", "mixer"]
    assert large.student_training.batch_size == 16
    datasets.check(large.dataset.name, large.dataset.params)
    small = recipes.get("weatherbench", data=str(tmp_path), preset="small")
    assert small.dataset.params["train"] == ["2010", "2015"]
    with pytest.raises(S2KDError, match="preset must be paper or small, got 'smal'; did you mean"):
        recipes.get("weatherbench", data=str(tmp_path), preset="smal")
    with pytest.raises(S2KDError, match="no such file or folder"):
        recipes.get("weatherbench", data=str(tmp_path / "none"))
    assert (
        recipes.get("weatherbench", data="gs://b/e.zarr").dataset.params["path"] == "gs://b/e.zarr"
    )


# --- a real frame --------------------------------------------------------------------------------


@pytest.mark.skipif(REAL is None, reason="S2KD_REAL_DATA is not set")
def test_a_real_frame_lies_the_right_way_round_in_both_layouts(tmp_path):
    """ERA5 of 2 January 1959, written as both benchmarks would, read back the same way round."""
    with xr.open_dataset(Path(REAL) / "era5_tl31_19590102T00.nc") as opened:
        era5 = opened[["geopotential", "temperature"]].drop_vars("time").load()
    times = np.concatenate([times_of_year(y, hours=6)[:6] for y in (1990, 1991, 1992)])
    held = era5.expand_dims(time=times)  # (time, level, longitude, latitude), south first
    held.to_zarr(tmp_path / "wb2.zarr", zarr_format=2, consolidated=True)
    for name, long, level in (("z", "geopotential", 500), ("t", "temperature", 850)):
        single = era5[long].sel(level=level).transpose("latitude", "longitude").rename(name)
        for year in (1990, 1991, 1992):
            one = single.expand_dims(time=times_of_year(year, hours=6)[:6])
            renamed = one.rename(latitude="lat", longitude="lon").to_dataset()
            save(
                renamed,
                tmp_path / "wb" / f"{long}_{level}" / f"{long}_{level}hPa_{year}_5.625deg.nc",
            )
    one, other = build(tmp_path / "wb"), build(tmp_path / "wb2.zarr")
    np.testing.assert_array_equal(one.frames, other.frames)
    assert one.grid == other.grid
    assert one.grid.wraps
    height, warmth = one.frames[0].astype(np.float64)
    assert (int(height.min()), int(height.max())) == (47568, 57906)
    assert (round(warmth.min(), 1), round(warmth.max(), 1)) == (232.7, 297.8)
    # northern winter: the lowest heights are in the north, and it is warmer south of the equator
    assert height[:16].min() < height[16:].min()
    assert warmth[:8].mean() < warmth[-8:].mean() < warmth[14:18].mean()
    # the Antarctic plateau at 850 hPa is coldest; Siberia (120° E) is colder than the Atlantic
    row = int(np.argmin(np.abs(np.array(one.grid.latitude) - 60)))
    column = {
        east: int(np.argmin(np.abs(np.array(one.grid.longitude) - east))) for east in (120, 340)
    }
    assert warmth[row, column[120]] < warmth[row, column[340]] - 10


# --- told by its layout --------------------------------------------------------------------------


def described(path):
    found = describe(path)
    recipe = recipes.for_description(found)
    assert recipe.dataset.name == "weatherbench"
    datasets.build("weatherbench", **recipe.dataset.params)
    return found, recipe.dataset.params


def test_a_folder_is_told_and_gets_a_recipe(tmp_path):
    root = weatherbench(tmp_path, years=range(1990, 1995), frames=30)
    found, params = described(root)
    assert found.kind == "WeatherBench folder"
    assert (found.frames, found.files, found.wraps, found.step_seconds) == (150, 10, True, 21600)
    assert [v.name for v in found.variables] == ["geopotential_500", "temperature_850"]
    assert found.variables[0].minimum == pytest.approx(53975.6, abs=1)
    assert found.chosen == (Z500, T850)
    assert params == {
        "path": str(root),
        "train": ["1990", "1991"],
        "val": ["1992", "1992"],
        "test": ["1993", "1994"],
    }
    assert "s2kd run weatherbench" not in found.reason, "its years are not the benchmark's"
    warm = file_of(root, 1993, "t")
    warm.write_bytes(warm.read_bytes()[:5000])
    problems = describe(root).problems
    assert any("temperature_850hPa_1993" in words and "cut short" in words for words in problems)


def test_a_folder_with_the_benchmarks_years_needs_no_dates(tmp_path):
    weatherbench(tmp_path, years=range(1979, 2019), frames=2)
    found = describe(tmp_path)
    assert found.recipe_dataset == {"name": "weatherbench", "params": {"path": str(tmp_path)}}
    assert f"s2kd run weatherbench --data {tmp_path} --out DIR" in found.reason


def test_a_zarr_store_of_the_globe_gets_the_same_recipe(found, tmp_path):
    times = np.concatenate([times_of_year(y, hours=6)[:40] for y in (1990, 1991, 1992)])
    path = weatherbench2(tmp_path / "era5.zarr", times, levels=(500, 850))
    told, params = described(path)
    assert told.kind == "Zarr"
    assert params == {"path": str(path), **SPLITS}
    assert told.past == 4


def test_wind_at_some_level_where_the_two_fields_are_not(tmp_path):
    weatherbench(tmp_path, which=("t",), frames=30)
    found, params = described(tmp_path)
    assert params["variables"] == ["temperature@400"], "the middle one of thirteen"
    assert "middle level" in found.reason
    weatherbench(tmp_path / "short", which=("z500",), years=(1990, 1991), frames=30)
    short = describe(tmp_path / "short")
    assert short.recipe_dataset is None
    assert any("holds 1990–1991; three years in a row" in words for words in short.problems)
