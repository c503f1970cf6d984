"""Forecasts in a file as the teacher: the same student as from the teacher itself."""

import dataclasses
import json

import numpy as np
import pytest
import road
import torch
import xarray as xr
from msgspec.structs import replace

from s2kd import pipeline
from s2kd.core.recipe import Part, Stored, Training
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.statistics import statistics
from s2kd.data.windows import WindowDataset
from s2kd.data.write import to_xarray, write
from s2kd.models.checkpoint import Setting, build_student, build_teacher
from s2kd.models.normaliser import Normaliser
from s2kd.training.loop import fit, validation_error
from s2kd.training.losses import losses
from s2kd.training.objectives import Distilling, Weighted
from s2kd.training.stored import StoredForecasts, store_forecasts
from s2kd.training.targets import LiveTargets, StoredTargets

PAST, LEAD = 3, 2


def setting_of(data):
    return Setting(
        grid=data.grid,
        past=PAST,
        lead=LEAD,
        statistics=statistics(data, lead=LEAD),
        predict="change",
    )


def teacher_of(data):
    torch.manual_seed(1)
    return build_teacher(
        replace(road.TEACHER, dropout=0.0), setting_of(data), text_width=1, reads=False
    ).eval()


def windows_of(data, split="train"):
    return WindowDataset(data, split, past=PAST, lead=LEAD)


@torch.no_grad()
def written(path, teacher, windows):
    """The teacher's forecasts of these windows and its latents, in one file of our own layout."""
    said = teacher(windows.gather(torch.arange(len(windows))).past, None)
    starts = windows.starts + windows.past - 1
    data = windows.dataset
    held = to_xarray(said.future.numpy(), grid=data.grid, initial_times=data.times[starts])
    held["run"] = ("time", windows.groups.astype(str))
    held["z"] = (("time", "feature", "row", "column"), said.latent.numpy())
    write(held, path)
    return path


def normaliser_of(data):
    return Normaliser.from_statistics(statistics(data, lead=LEAD), predict="change")


@pytest.fixture(scope="module")
def file(blobs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    return written(folder / "said.nc", teacher_of(blobs), windows_of(blobs))


def test_what_is_stored_is_what_the_teacher_says_live(blobs, file, tmp_path):
    train = windows_of(blobs)
    store_forecasts(
        tmp_path / "t", StoredForecasts(Stored(path=str(file), latent="z"), train),
        normaliser_of(blobs),
    )  # fmt: skip
    index = torch.randperm(len(train))[:7]
    got = StoredTargets(tmp_path / "t").gather(index, "cpu")
    want = LiveTargets(teacher_of(blobs), train, None).gather(index, "cpu")
    torch.testing.assert_close(got.forecast, want.forecast, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.latent, want.latent, rtol=1e-5, atol=1e-5)


class Remembered:
    """What the live teacher says of all windows at once, so that batches are cut the same way."""

    def __init__(self, live, count):
        self.all = live.gather(torch.arange(count), "cpu")

    def gather(self, index, device):
        return dataclasses.replace(
            self.all,
            latent=self.all.latent[index],
            forecast=self.all.forecast[index],
            feature_pyramid=(),
        )


@pytest.mark.parametrize("names", [("output",), ("semantic", "spectral")])
def test_the_student_is_the_same_bit_for_bit(blobs, file, tmp_path, fabric, names):
    train, val = windows_of(blobs), windows_of(blobs, "val")
    spec = Stored(path=str(file), latent="z")
    store_forecasts(tmp_path / "t", StoredForecasts(spec, train), normaliser_of(blobs))
    live = Remembered(LiveTargets(teacher_of(blobs), train, None), len(train))
    ends = []
    for name, targets in (("live", live), ("stored", StoredTargets(tmp_path / "t"))):
        torch.manual_seed(0)
        student = build_student(Part(name="unet", params={"width": 4}), setting_of(blobs))
        terms = [Weighted(n, 1.0, losses.build(n), losses.compares(n)) for n in names]
        objective = Distilling(student, train, targets, terms, teacher_width=16, weight=1.0)
        fit(
            objective, count=len(train), training=Training(epochs=1, batch_size=12), seed=0,
            validate=lambda student=student: validation_error(student, val, None, fabric),
            folder=tmp_path / name, fabric=fabric,
        )  # fmt: skip
        ends.append(student.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=0, atol=0)


def test_it_is_copied_once_and_anew_where_the_file_changes(blobs, file, tmp_path):
    train, scaler = windows_of(blobs), normaliser_of(blobs)

    def copied(path):
        told = []
        content = store_forecasts(
            tmp_path / "t", StoredForecasts(Stored(path=str(path)), train), scaler,
            progress=lambda done, total: told.append(done),
        )  # fmt: skip
        return content, bool(told)

    one, worked = copied(file)
    assert worked
    assert copied(file) == (one, False)
    with xr.open_dataset(file, decode_timedelta=True) as held:
        write(held.load(), tmp_path / "same.zarr")
        changed = held.copy(deep=True)
    again, worked = copied(tmp_path / "same.zarr")
    assert worked, "another file is read"
    assert again == one, "but the same content has the same name, so students stay"
    changed["density"][3, 1] += 1.0
    write(changed, tmp_path / "changed.nc")
    other, worked = copied(tmp_path / "changed.nc")
    assert worked
    assert other != one


# --- somebody's file -----------------------------------------------------------------------------

LATITUDE, LONGITUDE = (45.0, 15.0, -15.0, -45.0), tuple(np.arange(8) * 45.0)


def globe(*, mask=None):
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((60, 2, 4, 8)).astype(np.float32)
    cuts = {"train": (0, 30), "val": (30, 45), "test": (45, 60)}
    return Dataset(
        name="globe", domain="weather",
        grid=GridSpec(
            channels=("t", "z@500"), units=("K", "m**2 s**-2"), height=4, width=8,
            step_seconds=21600.0, latitude=LATITUDE, longitude=LONGITUDE, wraps=True, mask=mask,
        ),
        frames=frames,
        times=np.datetime64("2020-01-01", "ns") + np.arange(60) * np.timedelta64(6, "h"),
        splits={k: (Stretch(first=a, stop=b),) for k, (a, b) in cuts.items()},
    )  # fmt: skip


def benchmark(data):
    """Forecasts in WeatherBench 2's layout on a larger grid that goes from -180° and northward."""
    times = data.times[:40]
    leads = np.arange(0, 5) * np.timedelta64(6, "h").astype("timedelta64[ns]")
    latitude = np.array([-75.0, -45, -15, 15, 45, 75])
    longitude = np.arange(-4, 4) * 45.0
    rng = np.random.default_rng(1)
    shape = (len(times), len(leads), 3, 6, 8)
    dims = ("time", "prediction_timedelta", "level", "latitude", "longitude")
    units = {"t": "K", "z": "m2/s2"}
    fields = {
        "2m_temperature": ((*dims[:2], *dims[3:]), rng.standard_normal(shape)[:, :, 0], units["t"]),
        "geopotential": (dims, rng.standard_normal(shape), units["z"]),
    }
    return xr.Dataset(
        {k: (d, v.astype(np.float32), {"units": u}) for k, (d, v, u) in fields.items()},
        {
            "time": times, "prediction_timedelta": leads, "level": [250, 500, 850],
            "latitude": latitude, "longitude": longitude,
        },
    )  # fmt: skip


NAMES = {"t": "2m_temperature", "z@500": "geopotential@500"}


@pytest.mark.parametrize(
    ("ending", "unit", "offset"), [(".zarr", "K", 0.0), (".nc", "K", 0.0), (".nc", "degC", 273.15)]
)
def test_weatherbench_2_is_found_by_time_lead_level_and_place(tmp_path, ending, unit, offset):
    data = globe()
    held, path = benchmark(data), tmp_path / f"wb2{ending}"
    held["2m_temperature"].attrs["units"] = unit
    write(held, path)
    train = windows_of(data)
    got, latent = StoredForecasts(Stored(path=str(path), variables=NAMES), train).read(
        np.array([5, 0, 11])
    )
    assert latent is None
    for row, number in enumerate((5, 0, 11)):
        start = data.times[train.starts[number] + PAST - 1]
        for at, lead, row_, column in np.ndindex(2, LEAD, 4, 8):
            place = {
                "time": start,
                "prediction_timedelta": (lead + 1) * np.timedelta64(6, "h"),
                "latitude": LATITUDE[row_],
                "longitude": (LONGITUDE[column] + 180) % 360 - 180,
            }
            one = held[("2m_temperature", "geopotential")[at]].sel(place)
            want = one + np.float32(offset) if at == 0 else one.sel(level=500)
            assert got[row, lead, at, row_, column] == want.item()


def test_several_files_are_one(tmp_path):
    data = globe()
    whole = benchmark(data)
    write(whole.isel(time=slice(20, 40)), tmp_path / "a.nc")
    write(whole.isel(time=slice(0, 20)), tmp_path / "b.nc")
    write(whole, tmp_path / "whole.zarr")
    train = windows_of(data)
    index = np.arange(len(train))
    for pattern in ("a.nc", "b.nc"):
        with pytest.raises(S2KDError, match=r"lacks .* of the 26 initialisation times"):
            StoredForecasts(Stored(path=str(tmp_path / pattern), variables=NAMES), train)
    parts = StoredForecasts(Stored(path=str(tmp_path / "[ab].nc"), variables=NAMES), train)
    one = StoredForecasts(Stored(path=str(tmp_path / "whole.zarr"), variables=NAMES), train)
    np.testing.assert_array_equal(parts.read(index)[0], one.read(index)[0])


def drop_time(held):
    return held.isel(time=[i for i in range(40) if i not in (4, 7)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop_time, r"lacks 2 of the 26 initialisation times .*2020-01-02T00:00:00, 2020-01-02T18"),
        (lambda h: h.isel(prediction_timedelta=[0, 2]), r"lacks the lead times 6 h; it holds 2, 0"),
        (lambda h: h.isel(latitude=[0, 1, 3, 4]), r"'2m_temp.* lacks the latitudes -15 "),
        (lambda h: h.assign_coords(longitude=h.longitude + 1), r"lacks the longitudes 0, 45, .*4"),
        (lambda h: h.drop_vars("geopotential"), r"no variable for the channel 'z@500'"),
        (lambda h: h.isel(level=[0, 2]), r"'geopotential' has no level 500 \(it has 250, 850\)"),
        (lambda h: h.rename(prediction_timedelta="ahead"), r"no axis of lead times; .* lead_time"),
        (
            lambda h: h.assign({"2m_temperature": h["2m_temperature"].assign_attrs(units="m")}),
            r"'2m_temperature' is in 'm', which does not convert to 'K' of 't' of the data",
        ),
        (lambda h: h.expand_dims(number=2), r"has the further dimension number; choose"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, said):
    data, path = globe(), tmp_path / "wb2.nc"
    write(change(benchmark(data)), path)
    with pytest.raises(S2KDError, match=said):
        StoredForecasts(Stored(path=str(path), variables=NAMES), windows_of(data))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"variables": {"tt": "2m_temperature"}}, r"no channel 'tt'; did you mean 't'\?"),
        ({"variables": {**NAMES, "t": "2m_temp"}}, r"channel 't'; did you mean '2m_temperature'\?"),
        ({"variables": {**NAMES, "z@500": "geopotential"}}, r"further dimension level; choose a"),
        ({"variables": NAMES, "latent": "zz"}, r"no variable 'zz' for stored.latent"),
        ({"variables": NAMES, "latent": "flat"}, r"has the axes \(time\); wanted are four"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, spec, said):
    data, path = globe(), tmp_path / "wb2.nc"
    held = benchmark(data)
    held["flat"] = ("time", np.zeros(40))
    write(held, path)
    with pytest.raises(S2KDError, match=said):
        StoredForecasts(Stored(path=str(path), **spec), windows_of(data))


def test_missing_values_are_refused_where_cells_exist_and_filled_where_not(tmp_path):
    mask = np.ones((4, 8), dtype=bool)
    mask[1, 2] = False
    data = globe(mask=tuple(map(tuple, mask.tolist())))
    held, train = benchmark(data), windows_of(data)
    held["2m_temperature"][:, :, 3, 6] = np.nan  # 15° north, 90° east: the cell that is none
    write(held, tmp_path / "ok.nc")
    forecasts = StoredForecasts(Stored(path=str(tmp_path / "ok.nc"), variables=NAMES), train)
    store_forecasts(tmp_path / "t", forecasts, normaliser_of(data))
    got = StoredTargets(tmp_path / "t").gather(torch.arange(len(train)), "cpu").forecast
    assert torch.isfinite(got).all()
    assert not got[:, :, 0, 1, 2].any(), "no change where there is nothing"
    held["2m_temperature"][9, 1, 3, 5] = np.nan
    write(held, tmp_path / "bad.nc")
    bad = StoredForecasts(Stored(path=str(tmp_path / "bad.nc"), variables=NAMES), train)
    with pytest.raises(S2KDError, match="forecast from 2020-01-03T06:00:00 holds values that are"):
        store_forecasts(tmp_path / "t2", bad, normaliser_of(data))
    assert not list((tmp_path / "t2").glob("*"))


def test_runs_that_share_times_need_their_names(blobs, file, tmp_path):
    with xr.open_dataset(file, decode_timedelta=True) as held:
        write(held.load().drop_vars("run"), tmp_path / "nameless.nc")
    with pytest.raises(S2KDError, match="several runs of the data share times; a variable 'run'"):
        StoredForecasts(Stored(path=str(tmp_path / "nameless.nc")), windows_of(blobs))


# --- the road ------------------------------------------------------------------------------------


def tiny(**changes):
    return replace(road.tiny(), student_training=replace(road.QUICK, epochs=1), **changes)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (['methods=["output_stored"]'], r"say where they are with --set stored.path=FILE"),
        (["stored.path=x.nc"], r"no method learns from stored forecasts; add one"),
        (['methods=["s2kd_stored"]', "stored.path=x.nc"], r"--set stored.latent=NAME"),
        (['methods=["output_stored"]', "stored.path=x.nc"], r"x.nc: no such file"),
        (
            ['methods=["review"]', "methods.review.teacher=stored", "stored.path=x.nc"],
            r"'review' compares feature pyramids",
        ),
    ],
)
def test_recipes_that_cannot_be_are_refused_before_data_are_read(tmp_path, settings, said):
    with pytest.raises(S2KDError, match=said):
        pipeline.open_run(tiny().with_settings(settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_road_from_stored_forecasts(tmp_path):
    run = pipeline.Run(recipe=tiny(), out=tmp_path / "none")
    path = written(tmp_path / "said.zarr", teacher_of(run.dataset), run.windows("train"))
    recipe = tiny().with_settings(
        [
            'methods=["baseline","output_stored","s2kd_stored"]',
            f"stored.path={path}",
            "stored.latent=z",
        ]
    )
    told = road.walk(recipe, tmp_path / "run", until="evaluate")
    assert [stage for stage in told if not stage.startswith("score")] == [
        "targets stored",
        *(f"train unet-{name}-seed42" for name in ("baseline", "output_stored", "s2kd_stored")),
    ]
    assert road.walk(recipe, tmp_path / "run", until="evaluate") == []
    rows = json.loads((tmp_path / "run/scores.json").read_text())
    assert {row["method"] for row in rows} >= {"output_stored", "s2kd_stored"}
    weights = road.weights(tmp_path / "run")
    assert len(set(weights.values())) == 3
