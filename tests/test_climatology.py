"""Climatologies recover cycles put in by hand, and learn from training frames alone."""

import os
from pathlib import Path

import cftime
import numpy as np
import pytest

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.dataset import Dataset, Stretch
from s2kd.data.splits import chronological
from s2kd.evaluation.climatology import Climatology

SHAPE = (2, 2, 3)


def dataset(frames, times, step, *, splits=None, local=False, mask=None):
    grid = GridSpec(
        channels=("a", "b"), units=("K", "1"), height=2, width=3, step_seconds=step, mask=mask
    )
    if splits is None:
        run = (Stretch(first=0, stop=len(times)),)
        splits = chronological(run, fractions=(0.8, 0.1, 0.1), gap=0)
    return Dataset(
        name="made",
        domain="generic",
        grid=grid,
        frames=frames.astype(np.float32),
        times=times,
        splits=splits,
        local_time=local,
    )


def hourly(days, *, step=1, start="2013-03-01"):
    count = days * 24 // step
    first = np.datetime64(start, "ns")
    return first + np.arange(count) * np.timedelta64(step, "h")


def cells(values):
    """A series as fields that differ by cell."""
    return values[:, None, None, None] * np.arange(1, 13).reshape(SHAPE)


def test_the_mean_of_each_hour_by_hand():
    times = hourly(10, step=6)
    generator = np.random.default_rng(0)
    frames = generator.normal(size=(len(times), *SHAPE))
    series = dataset(frames, times, 6 * 3600.0)
    fitted = Climatology.fit(series)
    assert (fitted.slots, fitted.weekly, fitted.harmonics) == (4, False, 0)
    training = frames[:32]
    got = fitted.at(np.array(["2020-07-07T12:00", "2020-07-08T18:00"], dtype="datetime64[ns]"))
    np.testing.assert_allclose(got, [training[2::4].mean(0), training[3::4].mean(0)], atol=1e-5)


def test_nothing_but_training_frames_counts():
    times = hourly(10, step=6)
    frames = np.random.default_rng(0).normal(size=(len(times), *SHAPE))
    spoilt = frames.copy()
    spoilt[32:] = 1e9
    first_fit, second_fit = (
        Climatology.fit(dataset(f, times, 6 * 3600.0)) for f in (frames, spoilt)
    )
    np.testing.assert_array_equal(first_fit.coefficients, second_fit.coefficients)


def test_weekdays_and_weekends():
    times = hourly(28)
    weekend = (times.astype("datetime64[D]").astype(int) + 3) % 7 >= 5
    hour = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
    series = dataset(cells(hour + 100 * weekend), times, 3600.0, local=True)
    fitted = Climatology.fit(series)
    assert fitted.weekly
    # 2013-06-01 was a Saturday, 2013-06-05 a Wednesday
    ask = np.array(["2013-06-01T07:00", "2013-06-05T07:00"], dtype="datetime64[ns]")
    np.testing.assert_allclose(fitted.at(ask), cells(np.array([107.0, 7.0])), rtol=1e-5)
    elsewhere = dataset(cells(hour + 100 * weekend), times, 3600.0, local=False)
    assert not Climatology.fit(elsewhere).weekly


def test_a_weekend_never_seen_borrows_from_weekdays():
    times = hourly(4, start="2013-03-04")
    hour = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
    splits = {
        "train": (Stretch(first=0, stop=72),),
        "val": (Stretch(first=72, stop=80),),
        "test": (Stretch(first=80, stop=96),),
    }
    fitted = Climatology.fit(dataset(cells(hour), times, 3600.0, splits=splits, local=True))
    saturday = np.array(["2013-03-09T05:00"], dtype="datetime64[ns]")
    np.testing.assert_allclose(fitted.at(saturday), cells(np.array([5.0])), rtol=1e-5)


@pytest.mark.parametrize("days", [400, 730])
def test_the_year_is_found_even_from_an_uneven_number_of_years(days):
    times = hourly(days, step=6)
    day = (times - np.datetime64("2013-01-01")) / np.timedelta64(1, "D")
    hour = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "h")
    phase = 2 * np.pi * (day % 365) / 365.25
    values = 280 + 10 * np.cos(phase - 0.4) + 2 * np.sin(2 * phase) + np.cos(hour / 24 * 2 * np.pi)
    series = dataset(cells(values), times, 6 * 3600.0)
    fitted = Climatology.fit(series)
    assert fitted.harmonics == 2
    ask = slice(int(0.8 * len(times)), None)
    got, want = fitted.at(times[ask]), cells(values[ask])
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize(
    ("step_days", "harmonics"), [(360, 0), (180, 0), (90, 1), (72, 2), (30, 2)]
)
def test_a_step_too_long_for_a_wave_of_the_year_drops_it(step_days, harmonics):
    """The mean of each phase of the year is what is left, whatever the fit calls it."""
    phases = 360 // step_days
    days = np.arange(4 * phases) * step_days
    times = cftime.num2date(days, "days since 1900-06-01", calendar="360_day")
    values = np.random.default_rng(0).normal(size=(len(times), *SHAPE))
    splits = {
        "train": (Stretch(first=0, stop=2 * phases),),
        "val": (Stretch(first=2 * phases, stop=3 * phases),),
        "test": (Stretch(first=3 * phases, stop=4 * phases),),
    }
    fitted = Climatology.fit(dataset(values, times, step_days * 86_400.0, splits=splits))
    assert fitted.harmonics == harmonics
    whole = fitted.at(times[: 2 * phases])
    np.testing.assert_allclose(whole.mean(0), values[: 2 * phases].mean(0), atol=1e-5)


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_other_calendars(calendar):
    length = {"360_day": 360, "noleap": 365}[calendar]
    first = cftime.datetime(1, 1, 1, calendar=calendar)
    from datetime import timedelta

    times = np.array([first + timedelta(days=i) for i in range(3 * length)], dtype=object)
    values = np.cos(2 * np.pi * np.arange(3 * length) / length)
    fitted = Climatology.fit(dataset(cells(values), times, 86_400.0))
    assert fitted.slots == 1
    np.testing.assert_allclose(fitted.at(times[-30:]), cells(values[-30:]), atol=1e-4)


@pytest.mark.parametrize(("step", "count"), [(0.1, 200), (3600.0, 40), (5 * 3600.0, 100)])
def test_without_a_daily_cycle_the_plain_mean(step, count):
    """Fires of seconds, runs of under two days, and steps that do not divide a day."""
    times = np.datetime64("2000-01-01", "ns") + np.arange(count) * np.timedelta64(
        round(step * 1e9), "ns"
    )
    frames = np.random.default_rng(0).normal(size=(count, *SHAPE))
    fitted = Climatology.fit(dataset(frames, times, step))
    want = frames[: round(0.8 * count)].mean(0)
    np.testing.assert_allclose(fitted.at(times[-2:]), [want, want], atol=1e-5)


def test_cells_that_do_not_exist_are_left_out():
    mask = ((True, False, True), (True, True, True))
    times = hourly(10)
    frames = np.ones((len(times), *SHAPE))
    frames[:, :, 0, 1] = np.inf
    fitted = Climatology.fit(dataset(frames, times, 3600.0, mask=mask))
    got = fitted.at(times[:3])
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[..., np.array(mask)], 1, rtol=1e-6)


def test_no_training_frames_is_refused():
    times = hourly(4)
    splits = {"train": (), "val": (), "test": (Stretch(first=0, stop=96),)}
    with pytest.raises(S2KDError, match="training split is empty"):
        Climatology.fit(dataset(np.zeros((96, *SHAPE)), times, 3600.0, splits=splits))


@pytest.mark.skipif("S2KD_REAL_DATA" not in os.environ, reason="S2KD_REAL_DATA is not set")
def test_real_air_beats_its_mean():
    """Annual and daily cycles take away most of the variance of air temperature."""
    import h5py

    path = Path(os.environ["S2KD_REAL_DATA"]) / "ncep_air_sig995_6h_2013_2014.nc"
    with h5py.File(path) as file:
        air = np.asarray(file["air"])[:, None, :2, :3].repeat(2, 1)
    times = hourly(730, step=6, start="2013-01-01")
    series = dataset(air, times, 6 * 3600.0)
    fitted = Climatology.fit(series)
    later = slice(int(0.9 * len(times)), None)
    error = np.sqrt(((fitted.at(times[later]) - air[later]) ** 2).mean())
    plain = np.sqrt(((air[: int(0.8 * len(times))].mean(0) - air[later]) ** 2).mean())
    assert error < 0.6 * plain


# --- by day of the year --------------------------------------------------------------------------


def years(first, last, *, step=6):
    start, stop = (np.datetime64(f"{y}-01-01", "ns") for y in (first, last + 1))
    return np.arange(start, stop, np.timedelta64(step, "h"))


def test_long_records_have_a_mean_of_every_day_and_hour():
    """Against the definition, day by day, in pandas and without any of our sums."""
    import pandas as pd

    times = years(1999, 2005)  # leap days in 2000 and 2004
    frames = (
        np.random.default_rng(0).normal(size=(len(times), *SHAPE)) + np.arange(2)[:, None, None]
    )
    cut = np.flatnonzero(times >= np.datetime64("2005-01-01"))[0]
    splits = {
        "train": (Stretch(first=0, stop=100), Stretch(first=104, stop=int(cut))),
        "val": (Stretch(first=int(cut), stop=int(cut) + 10),),
        "test": (Stretch(first=int(cut) + 10, stop=len(times)),),
    }
    fitted = Climatology.fit(dataset(frames, times, 6 * 3600.0, splits=splits))
    assert (fitted.window_days, fitted.slots, fitted.harmonics) == (61, 4, 0)
    assert "day of year (61-day window)" in fitted.kind
    train = np.r_[0:100, 104:cut]
    stamps = pd.DatetimeIndex(times[train])
    for text in (
        "2010-01-02T06",
        "2012-02-29T00",
        "2012-12-31T18",
        "2011-12-31T12",
        "2010-07-04T00",
    ):
        ask = pd.Timestamp(text)
        apart = np.abs(np.asarray(stamps.day_of_year) - ask.day_of_year)
        weight = np.clip(1 - np.minimum(apart, 366 - apart) / 30, 0, None) * (
            stamps.hour == ask.hour
        )
        want = np.average(frames[train].astype(np.float32), axis=0, weights=weight)
        got = fitted.at(np.array([text], dtype="datetime64[ns]"))[0]
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_jump_within_the_year_is_kept_where_harmonics_would_blur_it():
    times = years(1999, 2006)
    day = times.astype("datetime64[D]") - times.astype("datetime64[Y]").astype("datetime64[D]")
    wet = (day.astype(int) > 120) & (day.astype(int) < 240)
    fitted = Climatology.fit(dataset(cells(10.0 * wet), times, 6 * 3600.0))
    ask = np.array(["2012-06-30T00", "2012-02-10T00"], dtype="datetime64[ns]")
    np.testing.assert_allclose(fitted.at(ask), cells(np.array([10.0, 0.0])), atol=1e-4)


def test_training_frames_alone_make_the_table():
    times = years(1999, 2006)
    frames = np.random.default_rng(0).normal(size=(len(times), *SHAPE))
    spoilt = frames.copy()
    spoilt[round(0.8 * len(times)) :] = 1e9
    first_fit, second_fit = (
        Climatology.fit(dataset(f, times, 6 * 3600.0)) for f in (frames, spoilt)
    )
    assert first_fit.window_days
    np.testing.assert_array_equal(first_fit.coefficients, second_fit.coefficients)


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_a_table_in_other_calendars(calendar):
    from datetime import timedelta

    length = {"360_day": 360, "noleap": 365}[calendar]
    first = cftime.datetime(1, 1, 1, calendar=calendar)
    times = np.array([first + timedelta(days=i) for i in range(10 * length)], dtype=object)
    values = np.arange(10 * length) % length == 0.0
    fitted = Climatology.fit(dataset(cells(1.0 * values), times, 86_400.0))
    assert len(fitted.coefficients) == length
    # the first day of the year weighs 1 of the 30 that the triangle adds up to
    np.testing.assert_allclose(fitted.at(times[:1]), cells(np.array([1 / 30])), rtol=1e-4)
    np.testing.assert_allclose(
        fitted.at(times[length - 1 : length]), cells(np.array([29 / 900])), rtol=1e-4
    )


def test_many_years_of_one_season_are_no_year():
    """Winters alone: days that training never saw must not come out as 0 / 0."""
    times = years(1980, 2005)
    winter = np.isin(times.astype("datetime64[M]").astype(int) % 12, (0, 1, 11))
    series = times[winter]
    frames = np.random.default_rng(0).normal(size=(len(series), *SHAPE))
    fitted = Climatology.fit(dataset(frames, series, 6 * 3600.0))
    assert not fitted.window_days
    assert np.isfinite(fitted.at(times[::97])).all()
