"""Forecasts from files: the latest frames in, a CF file out."""

import dataclasses

import gridded
import numpy as np
import pytest
import road
import xarray as xr

from s2kd import service
from s2kd.forecaster import Forecaster
from s2kd.recipe import Part
from s2kd.recipes import BASELINE
from s2kd.types import S2KDError

PAST, LEAD = 3, 2


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return gridded.write(gridded.waves(), tmp_path_factory.mktemp("data") / "waves.nc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, file):
    """A student of the file, without a teacher."""
    recipe = dataclasses.replace(
        road.tiny(),
        name="waves",
        dataset=Part(
            name="netcdf", params={"path": str(file), "gap": 5, "fractions": [0.6, 0.2, 0.2]}
        ),
        methods=(BASELINE,),
        past=PAST,
        lead=LEAD,
    )
    out = tmp_path_factory.mktemp("service") / "run"
    road.walk(recipe, out)
    return out


@pytest.fixture(scope="module")
def expected(folder, file):
    """What the forecaster says of the same frames."""
    past = xr.load_dataset(file)["t2m"].values[None, -PAST:, None]
    return Forecaster.load(folder).predict(past)[0, :, 0]


def forecast(folder, latest, out, **settings):
    service.forecast_file(folder, latest, out, **settings)
    return xr.open_zarr(out).load() if out.suffix == ".zarr" else xr.load_dataset(out)


def field(made):
    return made["t2m"].isel(time=0).transpose("lead_time", "lat", "lon")


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
    for ours, theirs in (("lat", "latitude"), ("lon", "longitude")):
        np.testing.assert_allclose(made[ours].values, given[theirs].values, rtol=1e-6)


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
    """What is shipped is one folder: weights and card."""
    alone = road.copy_of(folder / "students/unet-baseline-seed42", tmp_path / "student")
    (alone / "log.jsonl").unlink()
    made = forecast(alone, file, tmp_path / "forecast.nc")
    np.testing.assert_allclose(field(made).values, expected, rtol=1e-5)


def test_missing_values_are_refused_and_carried_forward_if_asked(folder, file, tmp_path):
    lacking = xr.load_dataset(file)
    lacking["t2m"][-1, 2, 3] = np.nan
    latest, out = gridded.write(lacking, tmp_path / "lacking.nc"), tmp_path / "forecast.nc"
    with pytest.raises(S2KDError, match=r"'t2m' has 1 missing values .* row 2, column 3; --fill "):
        forecast(folder, latest, out)
    assert not out.exists()
    made = forecast(folder, latest, out, fill=True)
    lacking["t2m"][-1, 2, 3] = lacking["t2m"][-2, 2, 3]
    past = lacking["t2m"].values[None, -PAST:, None]
    wanted = Forecaster.load(folder).predict(past)[0, :, 0]
    np.testing.assert_allclose(field(made).values, wanted, rtol=1e-5)
