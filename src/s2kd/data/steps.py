"""Time axes of any calendar: regular steps, dates as text, season and part of day."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from s2kd.core.types import S2KDError

SEASONS = ("winter", "spring", "summer", "autumn")
Times = Shaped[np.ndarray, " time"]
"""datetime64[ns], or cftime objects of another calendar."""


def _calendar_fields(times: Times) -> Any:
    """Month, day of the year, hour and so on: the fields of the `.dt` of xarray."""
    import xarray as xr

    return xr.DataArray(np.asarray(times), dims="time").dt


def calendar_of(times: Times) -> str:
    """`standard`, or the name of the times' cftime calendar."""
    return "standard" if times.dtype != object else str(times[0].calendar)


def hour_of_day(times: Times) -> Float[np.ndarray, " time"]:
    """Hours since midnight, with fraction."""
    fields = _calendar_fields(times)
    seconds = fields.second + fields.microsecond / 1e6
    return (fields.hour + fields.minute / 60 + seconds / 3600).values


def day_of_year(times: Times) -> Int[np.ndarray, " time"]:
    """1 on the first day of the year."""
    return _calendar_fields(times).dayofyear.values


def is_weekend(times: Times) -> Bool[np.ndarray, " time"]:
    """Saturday or Sunday; False in calendars other than the standard one."""
    if np.asarray(times).dtype == object:
        return np.zeros(len(times), dtype=bool)
    return _calendar_fields(times).dayofweek.values >= 5


def season(time: Shaped[np.ndarray, " 1"], *, southern: bool) -> str:
    """The meteorological season of one time on that hemisphere."""
    quarter = int(_calendar_fields(time).month[0]) % 12 // 3
    return SEASONS[(quarter + 2) % 4 if southern else quarter]


def part_of_day(time: Shaped[np.ndarray, " 1"]) -> str:
    """A coarse class of the local hour of one time."""
    hour = float(hour_of_day(time)[0])
    for until, name in ((6, "night"), (10, "morning"), (16, "midday"), (20, "evening")):
        if hour < until:
            return name
    return "night"


def seconds_between(times: Times) -> Float[np.ndarray, " steps"]:
    """Seconds from each time to the next."""
    steps = np.diff(np.asarray(times))
    if steps.dtype == object:
        return np.array([step.total_seconds() for step in steps], dtype=float)
    return steps / np.timedelta64(1, "s")


def shift(time: Any, seconds: float) -> Any:
    """`time` moved by `seconds`, in its own calendar."""
    if isinstance(time, np.datetime64):
        return time + np.timedelta64(round(seconds * 1e9), "ns")
    from datetime import timedelta

    return time + timedelta(seconds=seconds)


def date_text(time: object) -> str:
    """One time for people, to the second."""
    return str(time)[:19]


def iso(times: Times) -> Shaped[np.ndarray, " time"]:
    """Text `YYYY-MM-DDTHH:MM:SS`, which sorts as time does in every calendar."""
    if times.dtype == object:
        return np.array([time.isoformat()[:19] for time in times])
    return np.datetime_as_string(times, unit="s")


@dataclass(frozen=True, kw_only=True, eq=False)
class Regularity:
    """Numbers of the times at which a time axis is not regular.

    `step_seconds` is the commonest positive difference (0 for a single time); `missing` counts the
    absent times in all gaps.
    """

    step_seconds: float
    repeated: np.ndarray
    backwards: np.ndarray
    between: np.ndarray
    gaps: np.ndarray
    missing: int


def regularity(times: Times, *, step_seconds: float = 0.0) -> Regularity:
    """Inspect the differences between times; with `step_seconds`, against that step."""
    return _regularity(seconds_between(times), step_seconds)


def _regularity(steps: np.ndarray, step: float) -> Regularity:
    if not step:
        values, counts = np.unique(np.round(steps[steps > 0], 3), return_counts=True)
        step = float(values[np.argmax(counts)]) if len(values) else 0.0
    ratios = steps / step if step else np.ones(len(steps))
    # float32 times and leap seconds put a time a little off its step
    on_step = (steps > 0) & (np.abs(ratios - np.round(ratios)) <= 0.01)
    gaps = on_step & (np.round(ratios) > 1)
    return Regularity(
        step_seconds=step,
        repeated=np.flatnonzero(steps == 0) + 1,
        backwards=np.flatnonzero(steps < 0) + 1,
        between=np.flatnonzero((steps > 0) & ~on_step) + 1,
        gaps=np.flatnonzero(gaps) + 1,
        missing=int((np.round(ratios[gaps]) - 1).sum()),
    )


def step_numbers(
    label: str,
    times: Times,
    *,
    run_starts: Int[np.ndarray, " run"] | None = None,
    step_seconds: float = 0.0,
) -> tuple[float, Int[np.ndarray, " time"]]:
    """The step in seconds, and each time's number of steps since the start of its run.

    Args:
        label: names the record in errors.
        times: in order of time within each run.
        run_starts: numbers of the first frames of runs; None: one run.
        step_seconds: the step, where the record says so; 0: the commonest difference.

    Raises:
        S2KDError: times that repeat, run backwards or lie between steps within a run. Missing
            times are allowed: numbers jump by more than one.
    """
    starts = np.zeros(1, dtype=np.int64) if run_starts is None else run_starts
    if len(times) - len(starts) < 1 and not step_seconds:
        raise S2KDError(
            f"{label}: holds a single time ({date_text(times[0])}); two are needed to forecast"
        )
    steps = seconds_between(times)
    inside = np.ones(len(steps), dtype=bool)
    inside[starts[starts > 0] - 1] = False
    commonest = _regularity(steps[inside], 0.0).step_seconds
    # not the commonest, which is rounded to milliseconds
    usual = float(np.median(steps[inside])) if inside.any() else 0.0
    if step_seconds and usual > 0 and abs(usual - step_seconds) > 0.01 * usual:
        raise S2KDError(
            f"{label}: times are {usual:g} s apart, but step_seconds says {step_seconds:g}; "
            "where the file holds times, leave it out or set dataset.params.step_seconds=null"
        )
    step = step_seconds or commonest
    # between runs, time may jump anywhere
    within = np.where(inside, steps, step)
    report = _regularity(within, step)
    for numbers, fault in (
        (report.repeated, "occurs twice"),
        (report.backwards, "lies before the time that precedes it"),
    ):
        if len(numbers):
            raise S2KDError(
                f"{label}: time {date_text(times[numbers[0]])} (number {numbers[0]}) {fault}; sort "
                "the file by time and drop repeated times"
            )
    if len(report.between):
        at = int(report.between[0])
        raise S2KDError(
            f"{label}: times must be one step apart (the commonest is {step:g} s) or whole steps "
            f"missing, but {date_text(times[at - 1])} is followed by {date_text(times[at])}, "
            f"{steps[at - 1]:g} s later{resampling_advice(times)}"
        )
    total = np.concatenate([[0], np.cumsum(np.round(within / step))]).astype(np.int64)
    return step, total - np.repeat(total[starts], np.diff([*starts, len(times)]))


def resampling_advice(times: Times) -> str:
    """How to make uneven times even, as the end of a sentence; calendar months by their name."""
    text, steps = iso(times), seconds_between(times)
    months = np.diff([12 * int(date[:4]) + int(date[5:7]) for date in text])
    days = steps / 86400 / np.maximum(months, 1)
    monthly = bool(((months > 0) & (days >= 28) & (days <= 31)).all())
    frequency = "30D" if monthly else _frequency(float(np.median(steps[steps > 0])))
    calendar = f", calendar={times[0].calendar!r}" if times.dtype == object else ""
    even = f"'{text[0]}', '{text[-1]}', freq='{frequency}'{calendar}"
    call = f"ds.interp(time=xr.date_range({even}))"
    if not monthly:
        return f"; interpolate to even times, with xarray: {call}"
    # a calendar of equal months needs no interpolation, but knows no 31st
    if len({date[7:] for date in text}) == 1:
        call = f"ds.convert_calendar('360_day', align_on='date') or {call}"
    return f": these are calendar months, of 28 to 31 days; make them even, with xarray: {call}"


def _frequency(seconds: float) -> str:
    """A step as pandas spells it, in whole hours or minutes where it is near them."""
    for size, name in ((3600, "h"), (60, "min")):
        count = round(seconds / size)
        if count and abs(seconds / size - count) < 0.1:
            return f"{count}{name}"
    return f"{seconds:g}s"
