"""WeatherBench's folders and WeatherBench 2's Zarr, made in miniature as they are published."""

import os
from pathlib import Path

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
from worlds import world

from s2kd.core.recipe import Keep, Part, Split
from s2kd.core.types import S2KDError
from s2kd.data import check_part, load, read_record
from s2kd.data.readers.weatherbench import BenchmarkField, field_named
from s2kd.pipeline import recipes

REAL = os.environ.get("S2KD_REAL_DATA")
YEARS = Split(train=("1990", "1990"), val=("1991", "1991"), test=("1992", "1992"))
DAYS = Split(
    train=("1990", "1990"), val=("1991-01-01", "1991-01-08"), test=("1991-01-09", "1991-01-18")
)
Z500, T850 = "geopotential@500", "temperature@850"


def build(path, *, split=YEARS, keep=None, **params):
    return world("weatherbench", path=str(path), split=split, keep=keep, **params)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three years, 6-hourly, single levels and all levels of both fields."""
    root = weatherbench(tmp_path_factory.mktemp("wb"), which=("z500", "t850"))
    return weatherbench(root, which=("z", "t"), frames=24)


@pytest.fixture(scope="module")
def dataset(folder):
    return build(folder)


def file_of(root, year, name="z"):
    stem = {"z": "geopotential_500", "t": "temperature_850"}[name]
    return root / stem / f"{stem}hPa_{year}_5.625deg.nc"


@pytest.fixture
def copy(folder, tmp_path):
    """A folder of links, and a function that replaces one of its files."""
    root = tmp_path / "wb"
    for file in folder.rglob("*.nc"):
        target = root / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(file)

    def replace_file(dataset, year, name="z"):
        file_of(root, year, name).unlink(missing_ok=True)
        return save(dataset, file_of(root, year, name))

    return root, replace_file


def test_two_fields_in_their_order_north_first(dataset):
    grid = dataset.grid
    assert (grid.channels, grid.units) == ((Z500, T850), ("m**2 s**-2", "K"))
    assert (grid.height, grid.width, grid.wraps, grid.step_seconds) == (32, 64, True, 21600.0)
    assert grid.latitude == tuple(LATITUDE[::-1])
    assert grid.longitude[:2] == (0.0, 5.625)
    for channel, (name, level) in enumerate((("z", 500), ("t", 850))):
        years = [values(name, times_of_year(y, hours=6), level) for y in range(1990, 1993)]
        np.testing.assert_array_equal(dataset.frames[:, channel], np.concatenate(years)[:, ::-1])
    row, column = np.unravel_index(dataset.frames[7, 0].argmax(), (32, 64))
    assert (grid.latitude[row], grid.longitude[column]) == (59.0625, 90.0), "the blob is in place"
    assert dataset.attributes[Z500]["long_name"] == "Geopotential"


def test_splits_are_complete_years_with_leap_days(dataset):
    lengths = {name: [s.stop - s.first for s in split] for name, split in dataset.splits.items()}
    assert lengths == {"train": [1460], "val": [1460], "test": [1464]}
    assert np.datetime64("1992-02-29T06", "ns") in dataset.times
    assert (np.diff(dataset.times) == np.timedelta64(6, "h")).all()


@pytest.mark.parametrize("hours", [1, 3, 12])
def test_hourly_files_thinned_on_the_hours_of_the_day(tmp_path, hours):
    """Two days of hourly frames at each year's turn, the first of them not at midnight."""
    for year in (1990, 1991, 1992):
        save(field("z", times_of_year(year)[5:101]), file_of(tmp_path, year))
    thinned = build(tmp_path, variables=["z500"], hours=hours)
    assert thinned.grid.step_seconds == hours * 3600
    hour = (thinned.times - thinned.times.astype("datetime64[D]")) // np.timedelta64(1, "h")
    assert set(hour) == set(range(0, 24, hours))
    at = np.flatnonzero(thinned.times == np.datetime64("1991-01-03T12"))[0]
    expected = values("z", np.array([thinned.times[at]]), 500)[0, ::-1]
    np.testing.assert_array_equal(thinned.frames[at, 0], expected)


def test_thirteen_levels_hold_the_same_as_single_ones(dataset, folder, tmp_path):
    for name in ("geopotential", "temperature"):
        (tmp_path / "5.625deg").mkdir(exist_ok=True)
        (tmp_path / "5.625deg" / name).symlink_to(folder / name)
    stacked = build(tmp_path)
    first = np.concatenate([np.arange(24) + s[0].first for s in dataset.splits.values()])
    np.testing.assert_array_equal(stacked.times, dataset.times[first])
    np.testing.assert_array_equal(stacked.frames, dataset.frames[first])
    assert stacked.grid == dataset.grid
    levels = build(tmp_path, variables=["z850", "temperature_50", "z500"])
    assert levels.grid.channels == ("geopotential@850", "temperature@50", Z500)
    np.testing.assert_array_equal(levels.frames[:, 2], stacked.frames[:, 0])
    with pytest.raises(S2KDError, match="no variable 'geopotential@501'"):
        build(tmp_path, variables=["z501"])
    # the single-level folder of one field next to the 13-level one of another
    mixed = weatherbench(tmp_path / "mixed", which=("t850",), frames=24)
    (mixed / "geopotential").symlink_to(folder / "geopotential")
    both = build(mixed, variables=[T850, "geopotential@700", Z500])
    np.testing.assert_array_equal(both.frames[:, [2, 0]], stacked.frames)


@pytest.mark.parametrize(
    ("name", "expected"),
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
def test_names_of_fields(name, expected):
    assert field_named(name) == BenchmarkField(name=expected[0], level=expected[1])
    assert field_named(field_named(name).channel) == field_named(name)


def test_weatherbench_2_gives_the_very_same_frames(dataset, tmp_path, monkeypatch):
    """Locally, and at an address, from which frames are stored once."""
    import fsspec

    path = weatherbench2(tmp_path / "era5.zarr", dataset.times[1420:1560])
    local = build(path, split=DAYS)
    np.testing.assert_array_equal(local.frames, dataset.frames[1420:1532])
    assert local.grid == dataset.grid
    assert local.source.endswith("era5.zarr")
    with pytest.raises(S2KDError, match="frames are 6 h apart, so hours=1 cannot be had"):
        build(path, hours=1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(path), "/bucket/era5.zarr", recursive=True)
    for _ in range(2):
        remote = build("memory://bucket/era5.zarr", split=DAYS, keep=Keep(memory_gb=0.0))
        assert remote.fingerprint == local.fingerprint
        assert len(list((tmp_path / "cache" / "s2kd").iterdir())) == 1
    memory.rm("/bucket", recursive=True)


def test_the_default_splits_are_the_last_years(tmp_path):
    """The benchmark's dates where its years are there; two years to test on of five or more."""
    root = weatherbench(tmp_path, years=range(1990, 1995), frames=8)
    part = Part(name="weatherbench", params={"path": str(root)})
    data = load(part)
    years = {
        name: sorted({str(data.times[s.first])[:4] for s in split})
        for name, split in data.splits.items()
    }
    assert years == {"train": ["1990", "1991"], "val": ["1992"], "test": ["1993", "1994"]}
    times = np.concatenate([times_of_year(year, hours=6)[:2] for year in range(1979, 2019)])
    for name, level in (("z", 500), ("t", 850)):
        save(field(name, times, (level,)), file_of(tmp_path / "official", 1979, name))
    part = Part(name="weatherbench", params={"path": str(tmp_path / "official")})
    assert read_record(part).attrs["split"]["train"] == ("1979", "2015")


# --- bad input -----------------------------------------------------------------------------------


def refused(words, *arguments, **params):
    with pytest.raises(S2KDError, match=words):
        build(*arguments, **params)


def test_grids_and_times_that_differ_between_files(copy):
    root, replace_file = copy
    year = field("z", times_of_year(1991, hours=6))
    replace_file(year.isel(lat=slice(0, 16)), 1991)
    refused(r"1991_5.625deg.nc: 'geopotential@500' has 16×64 cells, not 32×64 .*_1990_", root)
    replace_file(year.isel(time=slice(1, None)), 1991)
    refused(
        f"'{Z500}' and '{T850}' must have the same times, but frame 1460 is 1991-01-01T06", root
    )


def test_height_in_metres_differs_from_geopotential(copy):
    root, replace_file = copy
    year = field("z", times_of_year(1991, hours=6)[:8])
    attributes = year.z.attrs
    replace_file(year.assign(z=(year.z / 9.80665).assign_attrs(attributes)), 1991)
    words = r"where about 5\.4\de\+04 .* is usual; multiply geopotential height in metres"
    refused(rf"1991_5.625deg.nc: 'geopotential@500' has the mean 5,\d+.* {words}", root)
    replace_file(year.assign(z=(year.z / 9.80665).assign_attrs(units="gpm")), 1991)
    refused(r"has the mean 5,[\d.]+ gpm at .* multiply geopotential height in metres by", root)
    replace_file(year, 1991)
    warm = field("t", times_of_year(1992, hours=6)[:8], (850,))
    replace_file(warm.assign(t=(warm.t - 273.15).assign_attrs(units="")), 1992, "t")
    refused(r"temperature_850hPa_1992.*add 273\.15 to degrees Celsius", root)


def test_years_that_are_not_there(folder, copy):
    words = r"but there are no frames of 1979–1989 \(there are of 1990–1992\); fetch"
    split = Split(train=("1979", "1990"), val=("1991", "1991"), test=("1992", "1992"))
    refused(f"train is 1979 to 1990, {words}", folder, split=split)
    root, _ = copy
    for name in "zt":
        file_of(root, 1991, name).unlink()
    refused(r"val is 1991 to 1991, .* no frames of 1991 \(there are of 1990, 1992\)", root)


def test_settings_that_cannot_be(folder, tmp_path):
    refused("hours must divide a day", folder, hours=5)
    refused("one or more different ones", folder, variables=["z500", "geopotential_500"])
    refused("one or more different ones", folder, variables=[])
    refused("has no folder 'vorticity_500' for 'vorticity@500'", folder, variables=["vo500"])
    refused("no such file", tmp_path / "none")
    for year in (1990, 1991, 1992):
        unlevelled = field("z", times_of_year(year, hours=6)[:8]).drop_vars("level")
        save(unlevelled, file_of(tmp_path / "named", year))
        save(unlevelled, tmp_path / "not" / "geopotential" / f"geopotential_{year}_5.625deg.nc")
    assert build(tmp_path / "named", variables=["z500"]).grid.channels == (Z500,)
    words = "has no level coordinate, so nothing says that it is at 500 hPa"
    refused(words, tmp_path / "not", variables=["z500"])


# --- recipes -------------------------------------------------------------------------------------


def test_the_recipe_in_both_sizes(tmp_path):
    large = recipes.get("weatherbench", data=str(tmp_path))
    assert (large.past, large.lead, large.teacher.backbone.name) == (12, 12, "triton")
    assert (large.teacher.width, large.teacher.depth, large.teacher.heads) == (512, 3, 8)
    assert [student.name for student in large.students] == ["unet", "resnet", "mixer"]
    assert large.student_training.batch_size == 16
    check_part(large.dataset)
    assert large.split.train == ("1979", "2015")
    small = recipes.get("weatherbench", data=str(tmp_path), preset="small")
    assert (small.split.train, small.split.test) == (("2010", "2015"), ("2017", "2018"))
    with pytest.raises(S2KDError, match="preset must be paper or small, got 'smal'; did you mean"):
        recipes.get("weatherbench", data=str(tmp_path), preset="smal")
    with pytest.raises(S2KDError, match="no such file or folder"):
        recipes.get("weatherbench", data=str(tmp_path / "none"))
    address = recipes.get("weatherbench", data="gs://b/e.zarr")
    assert address.dataset.params["path"] == "gs://b/e.zarr"


# --- a real frame --------------------------------------------------------------------------------


@pytest.mark.skipif(REAL is None, reason="S2KD_REAL_DATA is not set")
def test_a_real_frame_lies_the_right_way_round_in_both_layouts(tmp_path):
    """ERA5 of 2 January 1959, written as both benchmarks would, read back the same way round."""
    with xr.open_dataset(Path(REAL) / "era5_tl31_19590102T00.nc") as opened:
        era5 = opened[["geopotential", "temperature"]].drop_vars("time").load()
    times = np.concatenate([times_of_year(y, hours=6)[:6] for y in (1990, 1991, 1992)])
    record = era5.expand_dims(time=times)  # (time, level, longitude, latitude), south first
    record.to_zarr(tmp_path / "wb2.zarr", zarr_format=2, consolidated=True)
    for name, long, level in (("z", "geopotential", 500), ("t", "temperature", 850)):
        single = era5[long].sel(level=level).transpose("latitude", "longitude").rename(name)
        for year in (1990, 1991, 1992):
            frames = single.expand_dims(time=times_of_year(year, hours=6)[:6])
            renamed = frames.rename(latitude="lat", longitude="lon").to_dataset()
            save(renamed, file_of(tmp_path / "wb", year, name))
    files, store = build(tmp_path / "wb"), build(tmp_path / "wb2.zarr")
    np.testing.assert_array_equal(files.frames, store.frames)
    assert files.grid == store.grid
    assert files.grid.wraps
    height, warmth = files.frames[0].astype(np.float64)
    assert (int(height.min()), int(height.max())) == (47568, 57906)
    assert (round(warmth.min(), 1), round(warmth.max(), 1)) == (232.7, 297.8)
    # northern winter: the lowest heights are in the north, and it is warmer south of the equator
    assert height[:16].min() < height[16:].min()
    assert warmth[:8].mean() < warmth[-8:].mean() < warmth[14:18].mean()
    # Siberia (120° E) is colder than the Atlantic
    row = int(np.argmin(np.abs(np.array(files.grid.latitude) - 60)))
    columns = [int(np.argmin(np.abs(np.array(files.grid.longitude) - e))) for e in (120, 340)]
    assert warmth[row, columns[0]] < warmth[row, columns[1]] - 10
