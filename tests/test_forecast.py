"""Forecasts from files: the latest frames in, a CF file out."""

import os
import re
import shutil

import gridded
import h5py
import numpy as np
import pytest
import road
import torch
import xarray as xr
from msgspec import structs, to_builtins

import s2kd
from s2kd.core.recipe import Part, Split
from s2kd.core.types import S2KDError
from s2kd.data import load, prepare
from s2kd.data.latest import latest_frames
from s2kd.data.readers.cf import cf
from s2kd.data.statistics import statistics
from s2kd.deploy.forecast import forecast_file, forecast_files
from s2kd.deploy.forecaster import Forecaster
from s2kd.models.checkpoint import Setting, build_student, metadata_of, save_model
from s2kd.pipeline.recipes import BASELINE

PAST, LEAD = 3, 2
THIRDS = Split(gap=5, fractions=(0.6, 0.2, 0.2))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return gridded.write(gridded.waves(), tmp_path_factory.mktemp("data") / "waves.nc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, file):
    """A student of the file, without a teacher."""
    recipe = structs.replace(
        road.tiny(),
        name="waves",
        dataset=of_file(file),
        split=THIRDS,
        methods=(BASELINE,),
        past=PAST,
        lead=LEAD,
    )
    out = tmp_path_factory.mktemp("service") / "run"
    road.walk(recipe, out, until="distil")
    return out


@pytest.fixture(scope="module")
def expected(folder, file):
    """What the forecaster says of the same frames."""
    past = xr.load_dataset(file)["t2m"].values[None, -PAST:, None]
    return Forecaster.load(folder).predict(past)[0, :, 0]


def forecast(folder, latest, out, **settings):
    forecast_file(folder, latest, out, **settings)
    return xr.open_zarr(out).load() if out.suffix == ".zarr" else xr.load_dataset(out)


def field(made):
    """North first, west first."""
    own = made["t2m"].isel(time=0).transpose("lead_time", "latitude", "longitude")
    return own.sortby("latitude", ascending=False).sortby("longitude")


def _lead_hours(made):
    return (made["lead_time"].values / np.timedelta64(1, "h")).tolist()


@pytest.mark.parametrize("name", ["forecast.nc", "forecast.zarr"])
def test_it_is_the_students_forecast(folder, file, expected, tmp_path, name):
    made = forecast(folder, file, tmp_path / name)
    np.testing.assert_allclose(field(made).values, expected, rtol=1e-5)
    assert not list(tmp_path.glob(".*"))


def test_it_says_when_and_where(folder, file, tmp_path):
    made, given = forecast(folder, file, tmp_path / "forecast.nc"), xr.load_dataset(file)
    last = given["time"].values[-1]
    assert made["time"].values.tolist() == [last.astype("datetime64[ns]").astype(int)]
    assert _lead_hours(made) == [6, 12]
    valid = made["valid_time"].isel(time=0).values
    assert (valid == last + np.array([6, 12], "timedelta64[h]")).all()
    for name in ("latitude", "longitude"):
        np.testing.assert_array_equal(made[name].values, given[name].values)


def test_a_dataset_in_memory_gives_what_its_file_gives(folder, file, tmp_path):
    """xarray in, xarray out: the same numbers, coordinates and attributes but for the name."""
    from_file = forecast(folder, file, tmp_path / "forecast.nc", steps=5)
    given = xr.load_dataset(file)
    south_first = given.isel(latitude=slice(None, None, -1))
    raw = xr.open_dataset(file, decode_times=False)
    for latest in (given, south_first, xr.open_dataset(file), raw):
        made = s2kd.forecast(folder, latest, steps=5)
        assert "made by hand" in made.attrs["history"]
        np.testing.assert_array_equal(field(made).values, field(from_file).values)
        np.testing.assert_array_equal(made["latitude"].values, latest["latitude"].values)
        assert made["t2m"].attrs.items() >= from_file["t2m"].attrs.items()
        assert (made["valid_time"].values == from_file["valid_time"].values).all()
    # what the two hold lines up by itself
    verified = made["t2m"].isel(time=0, lead_time=0) - given["t2m"].isel(time=-1)
    assert verified.shape == (12, 16)
    assert s2kd.forecast(folder, str(file), steps=5).equals(s2kd.forecast(folder, file, steps=5))


def test_what_is_wrong_with_a_dataset_in_memory_is_told_as_of_a_file(folder, file):
    given = xr.load_dataset(file)
    lacking = given.where((given["time"] < given["time"][-1]) | (given["t2m"] > 280))
    for wrong, said in (
        (given.rename(t2m="t"), "the dataset given: lacks t2m"),
        (given.isel(latitude=slice(5)), "the dataset given: frames are 5×16"),
        (given.isel(time=slice(2)), "the dataset given: holds 2 frames"),
        (lacking, "the dataset given: 't2m' has .* missing values"),
        (given - 273.15, "the dataset given: 't2m' has .* values far outside"),
        (given.drop_vars("time"), "the dataset given: no variable has the axes time"),
        (given["t2m"].rename(None), "must be an xarray.Dataset, or .* with a name"),
        (given["t2m"].values, "not ndarray"),
        ("nowhere.nc", "nowhere.nc: no such file"),
    ):
        with pytest.raises(S2KDError, match=said):
            s2kd.forecast(folder, wrong)


def test_units_are_converted_and_those_of_another_kind_refused(folder, file, expected):
    celsius = xr.load_dataset(file)
    celsius["t2m"] = celsius["t2m"] - 273.15
    celsius["t2m"].attrs["units"] = "degC"
    predicted = s2kd.forecast(folder, celsius)
    assert predicted["t2m"].attrs["units"] == "K"
    np.testing.assert_allclose(field(predicted).values, expected, atol=1e-3)
    celsius["t2m"].attrs["units"] = "m s-1"
    with pytest.raises(S2KDError, match="'t2m' is in 'm s-1', the model was trained on 'K'"):
        s2kd.forecast(folder, celsius)


def test_units_names_and_history_are_kept(folder, file, tmp_path):
    made = forecast(folder, file, tmp_path / "forecast.nc")
    about = made["t2m"].attrs
    assert (about["units"], about["long_name"]) == ("K", "2 metre temperature")
    assert about["standard_name"] == "air_temperature"
    assert "made by hand" in made.attrs["history"]
    assert "waves.nc" in made.attrs["history"]
    assert made.attrs["Conventions"].startswith("CF-")


def test_more_steps_are_rolled_out(folder, file, expected, tmp_path):
    made = forecast(folder, file, tmp_path / "forecast.nc", steps=5)
    assert _lead_hours(made) == [6, 12, 18, 24, 30]
    frames = xr.load_dataset(file)["t2m"].values[-PAST:]
    student = Forecaster.load(folder)
    for _ in range(3):  # two at a time, each from the last three that there are
        said = student.predict(frames[None, -PAST:, None])[0, :, 0]
        frames = np.concatenate([frames, said])
    np.testing.assert_allclose(field(made).values, frames[PAST : PAST + 5], rtol=1e-5)
    np.testing.assert_allclose(field(made).values[:LEAD], expected, rtol=1e-5)


def test_fewer_steps_are_the_first_ones(folder, file, expected, tmp_path):
    made = forecast(folder, file, tmp_path / "forecast.nc", steps=1)
    np.testing.assert_allclose(field(made).values, expected[:1], rtol=1e-5)


@pytest.mark.parametrize("turned", ["latitude", "longitude"])
def test_a_file_the_other_way_round_forecasts_the_same(folder, file, expected, tmp_path, turned):
    other = xr.load_dataset(file).isel({turned: slice(None, None, -1)})
    assert float(other[turned][0]) != float(xr.load_dataset(file)[turned][0])
    made = forecast(folder, gridded.write(other, tmp_path / "turned.nc"), tmp_path / "forecast.nc")
    np.testing.assert_allclose(field(made).values, expected, rtol=1e-5)


def test_only_the_last_frames_count(folder, file, expected, tmp_path):
    longer = xr.load_dataset(file)
    longer["t2m"][:-PAST] = 0
    made = forecast(folder, gridded.write(longer, tmp_path / "cut.nc"), tmp_path / "forecast.nc")
    np.testing.assert_allclose(field(made).values, expected, rtol=1e-5)
    short = longer.isel(time=slice(-PAST, None))
    made = forecast(folder, gridded.write(short, tmp_path / "few.nc"), tmp_path / "few_out.nc")
    np.testing.assert_allclose(field(made).values, expected, rtol=1e-5)


def test_a_finer_step_is_thinned(folder, file, expected, tmp_path):
    """Frames three hours apart: those between the student's are passed over."""
    given = xr.load_dataset(file)
    finer = given.reindex(time=np.arange(given.time.values[0], given.time.values[-1] + 1,
                                         np.timedelta64(3, "h")))  # fmt: skip
    finer = finer.fillna(0)
    made = forecast(folder, gridded.write(finer, tmp_path / "finer.nc"), tmp_path / "forecast.nc")
    np.testing.assert_allclose(field(made).values, expected, rtol=1e-5)


def test_a_forecast_is_written_over_an_older_one(folder, file, expected, tmp_path):
    for name in ("forecast.nc", "forecast.zarr"):
        forecast(folder, file, tmp_path / name, steps=5)
        made = forecast(folder, file, tmp_path / name)
        np.testing.assert_allclose(field(made).values, expected, rtol=1e-5)


def test_a_students_own_folder_will_do_without_the_run(folder, file, expected, tmp_path):
    """What is shipped is one folder: weights and metadata."""
    alone = road.copy_of(folder / "students/unet-baseline-seed42", tmp_path / "student")
    (alone / "log.jsonl").unlink()
    made = forecast(alone, file, tmp_path / "forecast.nc")
    np.testing.assert_allclose(field(made).values, expected, rtol=1e-5)


def test_a_folder_of_files_gets_the_forecasts_that_are_missing(folder, file, expected, tmp_path):
    latest, out = tmp_path / "latest", tmp_path / "forecasts"
    latest.mkdir()
    for name in ("a.nc", "b.nc"):
        shutil.copy(file, latest / name)
    assert forecast_files(folder, latest, out) == [out / "a.nc", out / "b.nc"]
    np.testing.assert_allclose(field(xr.load_dataset(out / "b.nc")).values, expected, rtol=1e-5)
    assert forecast_files(folder, latest, out) == []
    (out / "a.nc").unlink()
    (latest / "c.nc").write_bytes(b"no forecast")
    with pytest.raises(S2KDError, match=r"1 of 2 files gave no forecast: .*c\.nc"):
        forecast_files(folder, latest, out)
    assert sorted(path.name for path in out.iterdir()) == ["a.nc", "b.nc"]
    (latest / "c.nc").unlink()
    later = (out / "b.nc").stat().st_mtime + 1
    os.utime(latest / "b.nc", (later, later))
    assert forecast_files(folder, latest, out) == [out / "b.nc"]
    with pytest.raises(S2KDError, match="which the forecast is made from"):
        forecast_files(folder, latest, latest)


def test_missing_values_are_refused_and_carried_forward_if_asked(folder, file, tmp_path):
    lacking = xr.load_dataset(file)
    lacking["t2m"][-1, 2, 3] = np.nan
    latest, out = gridded.write(lacking, tmp_path / "lacking.nc"), tmp_path / "forecast.nc"
    with pytest.raises(
        S2KDError, match=r"'t2m' has 1 missing values, .* row 2, column 3; give --fill "
    ):
        forecast(folder, latest, out)
    assert not out.exists()
    made = forecast(folder, latest, out, fill=True)
    assert made.attrs["s2kd_values_carried_forward"] == 1
    assert made.attrs["s2kd_values_from_nearest_cell"] == 0
    lacking["t2m"][-1, 2, 3] = lacking["t2m"][-2, 2, 3]
    past = lacking["t2m"].values[None, -PAST:, None]
    wanted = Forecaster.load(folder).predict(past)[0, :, 0]
    np.testing.assert_allclose(field(made).values, wanted, rtol=1e-5)


def test_what_is_read_is_not_written_over(folder, file, tmp_path):
    (tmp_path / "data").mkdir()
    latest = tmp_path / "data/latest.nc"
    shutil.copy(file, latest)
    (tmp_path / "other_name.nc").symlink_to(latest)
    xr.load_dataset(file).to_zarr(tmp_path / "store.zarr", zarr_format=2)
    before = sorted(tmp_path.rglob("*"))
    for read, out in [
        ("data/latest.nc", "data/latest.nc"),
        ("data/latest.nc", "data/../data/latest.nc"),
        ("data/latest.nc", "other_name.nc"),
        ("data", "data/forecast.nc"),
        ("data/*.nc", "data/latest.nc"),
        ("data/../data/l*.nc", "data/later.nc"),
        ("store.zarr", "store.zarr"),
        ("data/latest.nc", "store.zarr/t2m/forecast.nc"),
    ]:
        with pytest.raises(S2KDError, match=r"which the forecast is made from|lies in the Zarr"):
            forecast(folder, tmp_path / read, tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before
    assert latest.read_bytes() == file.read_bytes()
    forecast(folder, tmp_path / "data/l*.nc", tmp_path / "data/forecast.nc")


@pytest.mark.parametrize("fill", [False, True])
def test_cells_without_a_value_are_not_invented(folder, file, tmp_path, fill):
    """Nowhere else in the file either: the neighbours' values are not theirs."""
    lacking, out = xr.load_dataset(file), tmp_path / "forecast.nc"
    lacking["t2m"][-PAST:, 4:6, 7:10] = np.nan
    latest = gridded.write(lacking, tmp_path / "latest.nc")
    said = "'t2m' has no value in any of the last 3 frames in 6 cells, the first at row 4, column 7"
    with pytest.raises(S2KDError, match=said):
        forecast(folder, latest, out, fill=fill)
    assert not out.exists()


def test_values_before_the_first_are_counted_apart(folder, file, tmp_path):
    lacking, said = xr.load_dataset(file), []
    lacking["t2m"][-PAST : -PAST + 2, 2, 3] = np.nan
    lacking["t2m"][-1, 5:7, 5] = np.nan
    latest = gridded.write(lacking, tmp_path / "latest.nc")
    made = forecast(folder, latest, tmp_path / "forecast.nc", fill=True, say=said.append)
    assert made.attrs["s2kd_values_carried_forward"] == 2
    assert made.attrs["s2kd_values_from_nearest_cell"] == 2
    assert "filled 2 missing values with the last of their cell, and 2 before" in said[0]
    lacking["t2m"][-PAST] = np.nan
    latest = gridded.write(lacking, tmp_path / "latest.nc")
    with pytest.raises(S2KDError, match=r"no values at all at 2020-01-15T06.* nothing to carry"):
        forecast(folder, latest, tmp_path / "forecast.nc", fill=True)


@pytest.mark.parametrize("place", [slice(None), (-1, 3, 4)], ids=["everywhere", "one cell"])
@pytest.mark.parametrize("wrong", [-255.0, -9999.0, 1e20])
def test_values_far_outside_training_are_refused(folder, file, tmp_path, place, wrong):
    given, out = xr.load_dataset(file), tmp_path / "forecast.nc"
    given["t2m"].values[place] = wrong
    latest = gridded.write(given, tmp_path / "latest.nc")
    known = Forecaster.load(folder).metadata["statistics"]
    said = (
        f"the {known['minimum'][0]:g} to {known['maximum'][0]:g} K of training, the first {wrong:g}"
    )
    with pytest.raises(
        S2KDError, match=rf"latest.nc: 't2m' has .* {re.escape(said)} at row .* unit"
    ):
        forecast(folder, latest, out)
    assert not out.exists()
    forecast(folder, latest, out, beyond_training=True)


def test_assumptions_are_said(folder, file):
    given, said = xr.load_dataset(file), list[str]()
    given["t2m"].attrs.pop("units")
    given["t2m"].values[-1, 3, 4] = 1e20
    s2kd.forecast(folder, given, beyond_training=True, say=said.append)
    assert said[0] == "'t2m' has no units in the input: K are assumed, as in training"
    assert "'t2m' has 1 values far outside the" in said[1]


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_steps_are_a_number_of_frames(folder, file, steps):
    with pytest.raises(S2KDError, match="must be a whole number of frames, at least 1"):
        s2kd.forecast(folder, file, steps=steps)


def test_new_extremes_are_forecast_from(folder, file, expected, tmp_path):
    """One whole range of training beyond it on either side, and not more."""
    known = Forecaster.load(folder).metadata["statistics"]
    (low,), (high,) = known["minimum"], known["maximum"]
    for value, fits in [
        (2 * high - low - 0.01, True),
        (2 * high - low + 0.01, False),
        (2 * low - high + 0.01, True),
        (2 * low - high - 0.01, False),
    ]:
        given = xr.load_dataset(file)
        given["t2m"][-1, 0, 0] = value
        latest = gridded.write(given, tmp_path / "latest.nc")
        if fits:
            forecast(folder, latest, tmp_path / "forecast.nc")
        else:
            with pytest.raises(S2KDError, match="far outside"):
                forecast(folder, latest, tmp_path / "forecast.nc")


SEAM = np.concatenate([np.arange(340, 360, 2.5), np.arange(0, 20, 2.5)])


def student_of(dataset, folder, *, split=THIRDS, past=PAST, lead=LEAD):
    """The folder of a student of this part that repeats the last frame: its weights are nought."""
    made = load(dataset, split)
    part, train_stats = Part(name="unet", params={"width": 4}), statistics(made, lead=lead)
    setting = Setting(
        grid=made.grid, past=past, lead=lead, statistics=train_stats, predict="change"
    )
    student = build_student(part, setting)
    with torch.no_grad():
        for weight in student.backbone.parameters():
            weight.zero_()
    about = {"dataset": to_builtins(dataset), "name": "still", "method": "none", "seed": 0}
    save_model(folder, student, metadata_of("student", part, setting, **about))
    return folder


def of_file(path):
    return Part(name="cf", params={"path": str(path)})


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
@pytest.mark.parametrize(
    "coordinates",
    [
        # tenths are not exact: widened or rounded, no float32 is found in the other file again
        {
            "latitude": np.linspace(51.1, 50, 12).astype("f4"),
            "longitude": np.linspace(5, 6.5, 16).astype("f4"),
        },
        {"longitude": SEAM},
        {"longitude": SEAM - 360 * (SEAM > 180)},
        {"latitude": np.linspace(50, 51.1, 12).astype("f4"), "longitude": SEAM[::-1]},
    ],
    ids=["float32", "seam", "west", "turned"],
)
def test_what_is_written_lines_up_with_the_file(tmp_path, file, coordinates, ending):
    given = xr.load_dataset(file)
    for name, values in coordinates.items():
        given = given.assign_coords({name: (name, values, given[name].attrs)})
    latest = gridded.write(given, tmp_path / "latest.nc")
    folder = student_of(of_file(latest), tmp_path / "student")
    made = forecast(folder, latest, tmp_path / f"out{ending}")
    for name in ("latitude", "longitude"):
        assert made[name].dtype == given[name].dtype
        np.testing.assert_array_equal(made[name].values, given[name].values)
        assert made[name].attrs["standard_name"] == name
    difference = made["t2m"].isel(time=0, drop=True) - given["t2m"].isel(time=-1, drop=True)
    assert difference.sizes == {"lead_time": LEAD, "latitude": 12, "longitude": 16}
    assert float(abs(difference).max()) == 0, "every cell beside its own"


def test_a_column_that_the_file_repeats_is_repeated(tmp_path):
    round_once = gridded.waves(columns=16)
    round_once = round_once.assign_coords(
        longitude=("longitude", np.arange(0, 360, 22.5), round_once["longitude"].attrs)
    )
    twice = round_once.isel(longitude=[*range(16), 0])
    longitude = np.append(round_once["longitude"].values, 360)
    twice = twice.assign_coords(longitude=("longitude", longitude, round_once["longitude"].attrs))
    latest = gridded.write(twice, tmp_path / "latest.nc")
    made = forecast(student_of(of_file(latest), tmp_path / "student"), latest, tmp_path / "out.nc")
    np.testing.assert_array_equal(made["longitude"].values, longitude)
    np.testing.assert_array_equal(made["t2m"][..., 0], made["t2m"][..., 16])


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("west", [False, True])
def test_a_globe_may_begin_at_another_meridian(tmp_path, west, repeated):
    """A student of 0..360 and a file of -180..180, also from east to west or with its end twice."""
    globe = gridded.waves()
    about = globe["longitude"].attrs
    globe = globe.assign_coords(longitude=("longitude", np.arange(0, 360, 22.5), about))
    learned = gridded.write(globe, tmp_path / "learned.nc")
    lon = np.arange(-180, 180 + 22.5 * repeated, 22.5)[:: -1 if west else 1]
    other = globe.sel(longitude=lon % 360).assign_coords(longitude=("longitude", lon, about))
    latest = gridded.write(other, tmp_path / "latest.nc")
    folder = student_of(of_file(learned), tmp_path / "student")
    made = forecast(folder, latest, tmp_path / "out.nc")
    np.testing.assert_array_equal(made["longitude"].values, lon)
    difference = made["t2m"].isel(time=0, drop=True) - other["t2m"].isel(time=-1, drop=True)
    assert difference.sizes == {"lead_time": LEAD, "latitude": 12, "longitude": len(lon)}
    assert float(abs(difference).max()) == 0, "every cell beside its own"
    record = cf(path=str(latest))
    past = latest_frames(record, Forecaster.load(folder).grid, PAST, label="latest")
    np.testing.assert_array_equal(past.frames[:, 0], globe["t2m"].values[-PAST:])


def test_rows_of_a_projection_stay_where_they_were(tmp_path):
    """Its y counts upwards: turned for the student, and turned back."""
    given = gridded.waves().rename(latitude="y", longitude="x")
    given = given.assign_coords(
        y=("y", np.arange(12) * 2500.0, {"units": "m", "standard_name": "projection_y_coordinate"}),
        x=("x", np.arange(16) * 2500.0, {"units": "m", "standard_name": "projection_x_coordinate"}),
    )
    latest = gridded.write(given, tmp_path / "latest.nc")
    made = forecast(student_of(of_file(latest), tmp_path / "student"), latest, tmp_path / "out.nc")
    difference = made["t2m"].isel(time=0, drop=True) - given["t2m"].isel(time=-1, drop=True)
    assert difference.sizes == {"lead_time": LEAD, "y": 12, "x": 16}
    assert float(abs(difference).max()) == 0
    assert made["y"].attrs == given["y"].attrs


@pytest.mark.parametrize("ending", [".nc", ".zarr"])
@pytest.mark.parametrize("spelt", ["rotated_pole", "rotated_pole: rlat rlon"])
def test_a_rotated_grid_keeps_its_places(tmp_path, ending, spelt):
    """Latitudes and longitudes of every cell and the pole stand in the forecast too."""
    given = gridded.waves().rename(latitude="rlat", longitude="rlon")
    rows, columns = np.mgrid[:12, :16]
    place = ("rlat", "rlon")
    given = given.assign_coords(
        rlat=("rlat", np.arange(12) * 0.5, {"standard_name": "grid_latitude", "units": "degrees"}),
        rlon=("rlon", np.arange(16) * 0.5, {"standard_name": "grid_longitude", "units": "degrees"}),
        lat=(place, 50 + rows * 0.5 + columns * 0.01, {"units": "degrees_north", "bounds": "b"}),
        lon=(place, 5 + columns * 0.7 + rows * 0.02, {"units": "degrees_east"}),
    )
    about = {
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": 39.25,
        "standard_parallel": np.array([30.0, 60.0]),
    }
    given["rotated_pole"] = ((), np.int32(1), about)
    given["t2m"].attrs["grid_mapping"] = spelt
    latest = gridded.write(given, tmp_path / "latest.nc")
    folder = student_of(of_file(latest), tmp_path / "student")
    made = forecast(folder, latest, tmp_path / f"out{ending}")
    for name in ("lat", "lon"):
        assert name in made["t2m"].coords
        np.testing.assert_array_equal(made[name].values, given[name].values)
        assert made[name].attrs["units"] == given[name].attrs["units"]
    assert "bounds" not in made["lat"].attrs
    said = made["t2m"].attrs.get("grid_mapping") or made["t2m"].encoding["grid_mapping"]
    assert said == spelt
    for key, value in about.items():
        np.testing.assert_array_equal(made["rotated_pole"].attrs[key], value)
    difference = made["t2m"].isel(time=0, drop=True) - given["t2m"].isel(time=-1, drop=True)
    assert float(abs(difference).max()) == 0, "every cell beside its own"


# --- files in the layout that a student learned from ---------------------------------------------


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def array_student(tmp_path, *, past=2, **more):
    """A student of one channel of noise on 8×8 cells, and its part."""
    np.savez(tmp_path / "learned.npz", x=noise(200, 1, 8, 8), t=np.arange(200) * 3600)
    params = {"path": str(tmp_path / "learned.npz"), "key": "x", "time": "t", **more}
    return student_of(Part(name="arrays", params=params), tmp_path / "student", past=past)


def written(folder, latest, tmp_path, **settings):
    return forecast(folder, latest, tmp_path / "out.nc", **settings)["channel_0"].values[0]


@pytest.mark.parametrize("count", [2, 12])
@pytest.mark.parametrize("join", ["time", "runs"])
def test_arrays_of_the_latest_frames_alone_will_do(tmp_path, count, join):
    folder = array_student(tmp_path, join=join)
    few = noise(count, 1, 8, 8)
    np.savez(tmp_path / "latest.npz", x=few, t=np.arange(count) * 3600)
    made = written(folder, tmp_path / "latest.npz", tmp_path)
    np.testing.assert_array_equal(made, np.stack([few[-1, 0]] * LEAD))


def test_one_array_frame_will_do_for_a_past_of_one(tmp_path):
    np.save(tmp_path / "learned.npy", noise(200, 1, 8, 8))
    params = {"path": str(tmp_path / "learned.npy"), "step_seconds": 60}
    folder = student_of(Part(name="arrays", params=params), tmp_path / "student", past=1)
    np.save(tmp_path / "latest.npy", noise(1, 1, 8, 8))
    made = written(folder, tmp_path / "latest.npy", tmp_path)
    np.testing.assert_array_equal(made[0], noise(1, 1, 8, 8)[0, 0])


def test_a_past_across_missing_times_is_refused(tmp_path):
    folder = array_student(tmp_path)
    times = np.arange(20) * 3600
    times[-1] += 50 * 3600
    np.savez(tmp_path / "latest.npz", x=noise(20, 1, 8, 8), t=times)
    said = "2 frames up to 2000-01-03T21:00:00, 3600 s apart, but there is none 3600 s before"
    with pytest.raises(S2KDError, match=f"latest.npz: the model needs the {said}"):
        written(folder, tmp_path / "latest.npz", tmp_path)


def test_a_past_across_two_runs_is_refused(tmp_path):
    """Though the second happens to begin one step after the end of the first."""
    folder = array_student(tmp_path, join="runs", past=3)
    latest = tmp_path / "latest"
    latest.mkdir()
    for name, first, count in (("a", 0, 9), ("b", 9, 2)):
        times = (first + np.arange(count)) * 3600
        np.savez(latest / f"{name}.npz", x=noise(count, 1, 8, 8), t=times)
    with pytest.raises(
        S2KDError, match="latest: run 'b' holds 2 frames, the model needs the last 3"
    ):
        written(folder, latest, tmp_path)


def slots(path, days, *, first=1):
    """Taxi flows by half-hour; returns them."""
    dates = [f"201503{day:02d}{slot:02d}" for day in days for slot in range(first, 49)]
    flow = np.random.default_rng(1).integers(1, 50, (len(dates), 2, 8, 8)).astype("f4")
    with h5py.File(path, "w") as file:
        file["date"], file["data"] = np.array(dates, dtype="S10"), flow
    return flow


@pytest.mark.parametrize(
    ("settings", "split"), [({}, THIRDS), ({"whole_days": True}, Split(days=(0, 1, 1), gap=4))]
)
def test_taxi_slots_of_one_evening_will_do(tmp_path, settings, split):
    slots(tmp_path / "learned.h5", range(2, 9))
    part = Part(name="taxibj", params={"path": str(tmp_path / "learned.h5"), **settings})
    folder = student_of(part, tmp_path / "student", past=4, split=split)
    flow = slots(tmp_path / "latest.h5", [20], first=45)
    assert len(flow) == 4
    made = forecast(folder, tmp_path / "latest.h5", tmp_path / "out.nc")
    np.testing.assert_allclose(made["inflow"].values[0, 0], flow[-1, 0], rtol=1e-6)
    assert made["time"].values[0] == np.datetime64("2015-03-20T23:30")


def test_frames_that_differ_in_kind_give_a_past_of_the_right_kind(tmp_path):
    """Coarse past, fine future: what is forecast from are the last coarse ones."""
    rng = np.random.default_rng(2)
    for split in ("train", "valid", "test"):
        (tmp_path / split).mkdir()
        for name in ("X_c", "Y"):
            values = rng.uniform(1, 9, (6, 3, 2, 8, 8)).astype("f4")
            np.save(tmp_path / split / f"{name}.npy", values)
    part = Part(name="taxibj", params={"path": str(tmp_path), "subsample_input": 4})
    folder = student_of(part, tmp_path / "student", past=3, lead=3)
    made = forecast(folder, tmp_path, tmp_path.with_name(f"{tmp_path.name}.nc"))
    coarse = np.load(tmp_path / "test/X_c.npy")[-1, -1, 0, ::4, ::4]
    np.testing.assert_allclose(made["inflow"].values[0, 0], coarse.repeat(4, 0).repeat(4, 1))


# --- prepared data -------------------------------------------------------------------------------


def test_a_student_of_prepared_data_forecasts_from_the_files_they_were_made_of(tmp_path, file):
    prepare(of_file(file), tmp_path / "prepared", split=THIRDS)
    part = Part(name="prepared", params={"path": str(tmp_path / "prepared")})
    recipe = structs.replace(road.tiny(), dataset=part, methods=(BASELINE,), past=PAST, lead=LEAD)
    road.walk(recipe, tmp_path / "run", until="distil")
    shutil.rmtree(tmp_path / "prepared")
    made = forecast(tmp_path / "run", file, tmp_path / "out.nc")
    past = xr.load_dataset(file)["t2m"].values[None, -PAST:, None]
    wanted = Forecaster.load(tmp_path / "run").predict(past)[0, :, 0]
    np.testing.assert_allclose(field(made).values, wanted, rtol=1e-5)


def test_a_prepared_folder_holds_the_latest_frames_too(tmp_path, file):
    prepare(of_file(file), tmp_path / "prepared", split=THIRDS)
    part = Part(name="prepared", params={"path": str(tmp_path / "prepared")})
    folder = student_of(part, tmp_path / "student")
    made = forecast(folder, tmp_path / "prepared", tmp_path / "out.nc")
    wanted = xr.load_dataset(file)["t2m"].values[-1]
    np.testing.assert_array_equal(made["t2m"].values[0, 0], wanted)
    # the metadata of an older version: it has no word of what was prepared
    with pytest.raises(S2KDError, match=r"give a folder that `s2kd data prepare` wrote"):
        forecast(folder, file, tmp_path / "out.nc")
