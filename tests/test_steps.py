import itertools
from datetime import datetime

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from s2kd.core.types import S2KDError
from s2kd.data.steps import (
    day_of_year,
    hour_of_day,
    is_weekend,
    part_of_day,
    season,
    seconds_between,
    step_numbers,
)

# 64 bits hold 292 years of nanoseconds, and so no difference of two times may be longer
MOMENTS = st.datetimes(datetime(1910, 1, 1), datetime(2200, 1, 1)).map(
    lambda moment: moment.replace(microsecond=0)
)


@given(st.lists(MOMENTS, min_size=1, max_size=5))
def test_fields_are_those_of_the_standard_library(moments):
    times = np.array(moments, dtype="datetime64[ns]")
    hours = [m.hour + m.minute / 60 + m.second / 3600 for m in moments]
    np.testing.assert_allclose(hour_of_day(times), hours, atol=1e-9)
    assert day_of_year(times).tolist() == [m.timetuple().tm_yday for m in moments]
    assert is_weekend(times).tolist() == [m.weekday() >= 5 for m in moments]


@given(st.lists(MOMENTS, min_size=2, max_size=5))
def test_seconds_between_are_those_of_the_standard_library(moments):
    times = np.array(moments, dtype="datetime64[ns]")
    want = [(b - a).total_seconds() for a, b in itertools.pairwise(moments)]
    np.testing.assert_allclose(seconds_between(times), want, rtol=1e-12)


def test_other_calendars_count_their_own_days():
    noleap = np.array([cftime.DatetimeNoLeap(2020, 3, 1, 6, 30), cftime.DatetimeNoLeap(2020, 3, 2)])
    assert day_of_year(noleap).tolist() == [60, 61]  # no 29 February, though 2020 has one
    assert hour_of_day(noleap).tolist() == [6.5, 0.0]
    assert seconds_between(noleap).tolist() == [17.5 * 3600]
    assert is_weekend(noleap).tolist() == [False, False]


@pytest.mark.parametrize(
    ("month", "north", "south"),
    [
        (12, "winter", "summer"),
        (2, "winter", "summer"),
        (3, "spring", "autumn"),
        (5, "spring", "autumn"),
        (6, "summer", "winter"),
        (8, "summer", "winter"),
        (9, "autumn", "spring"),
        (11, "autumn", "spring"),
    ],
)
def test_seasons_are_opposite_on_the_two_hemispheres(month, north, south):
    for time in (
        np.array([f"2001-{month:02d}-15"], dtype="datetime64[ns]"),
        np.array([cftime.DatetimeNoLeap(2001, month, 15)]),
    ):
        assert season(time, southern=False) == north
        assert season(time, southern=True) == south


def test_the_day_has_four_parts():
    hours = np.arange(24)
    said = [
        part_of_day(np.datetime64("1999-12-31") + np.array([h], "timedelta64[h]")) for h in hours
    ]
    assert said == (
        ["night"] * 6 + ["morning"] * 4 + ["midday"] * 6 + ["evening"] * 4 + ["night"] * 4
    )


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_the_way_out_of_uneven_times_gives_even_ones(calendar):
    """Calendar months, by the call that the message names."""
    months = [(2001, month, 1) for month in range(1, 13)]
    times = np.array([f"{y}-{m:02d}-01" for y, m, _ in months], dtype="datetime64[ns]")
    if calendar == "noleap":
        times = np.array([cftime.DatetimeNoLeap(*month) for month in months])
    with pytest.raises(
        S2KDError, match=r"a.nc: 5 times lie between .* the first is 2001-03"
    ) as error:
        step_numbers("a.nc", times)
    call = str(error.value).partition("ds.interp(time=")[2].removesuffix(")")
    even = eval(call, {"xr": xr}).values
    assert (even[[0, -1]] == times[[0, -1]]).all()
    assert step_numbers("a.nc", even)[1].tolist() == list(range(12))
