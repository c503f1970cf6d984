"""Time axes of any calendar: regular steps, dates as text, season and part of day."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from s2kd.core.types import S2KDError

SEASONS = ("winter", "spring", "summer", "autumn")
MOST_SECONDS = 9.2e9
"""Seconds from 1970 that nanoseconds in 64 bits can count."""
Times = Shaped[np.ndarray, " time"]
"""datetime64[ns], or cftime objects of another calendar."""


def _calendar_fields(times: Times) -> Any:
    """Month, day of the year, hour and so on: the fields of the `.dt` of xarray."""
    import xarray as xr

    return xr.DataArray(np.asarray(times), dims="time").dt


def exact_times(times: Shaped[np.ndarray, "*any"]) -> Shaped[np.ndarray, "*any"]:
    """datetime64 of any unit as datetime64[ns], or as cftime objects where 64 bits of it wrap.

    Nanoseconds reach from 1678 to 2261; other dates belong to the proleptic Gregorian calendar.
    """
    if times.dtype == object:
        return times
    seconds = times.astype("datetime64[s]").astype(np.int64)
    if np.all(np.isnat(times) | (np.abs(seconds) < MOST_SECONDS)):
        return times.astype("datetime64[ns]")
    import cftime

    return cftime.num2date(
        times.astype("datetime64[us]").astype(np.int64),
        "microseconds since 1970-01-01",
        calendar="proleptic_gregorian",
        only_use_cftime_datetimes=True,
    )


def seconds_after(start: np.datetime64, seconds: Shaped[np.ndarray, " time"]) -> Times:
    """(time,) dates so many seconds after `start`, to the microsecond where nanoseconds wrap."""
    latest = np.abs(seconds).max(initial=0) + abs(int(start.astype("datetime64[s]").astype(int)))
    unit, count = ("ns", 1e9) if latest < MOST_SECONDS else ("us", 1e6)
    since = np.round(np.asarray(seconds) * count).astype(f"timedelta64[{unit}]")
    return exact_times(start.astype(f"datetime64[{unit}]") + since)


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

    def problems(self, times: Times) -> list[str]:
        """Sentences on times that no window can be cut from: repeated, unsorted or uneven ones."""
        order = "sort the file by time and drop repeated times"
        calendar = f", calendar={times[0].calendar!r}" if times.dtype == object else ""
        ends = iso(times[[0, -1]])
        even = f"xr.date_range('{ends[0]}', '{ends[1]}', periods={len(times)}{calendar})"
        return [
            f"{len(numbers)} times {fault}, the first is {date_text(times[numbers[0]])}; {remedy}"
            for numbers, fault, remedy in (
                (self.repeated, "repeat the one before", order),
                (self.backwards, "lie before the one that precedes them", order),
                (
                    self.between,
                    f"lie between steps of {self.step_seconds:g} s",
                    f"interpolate to even times, with xarray: ds.interp(time={even})",
                ),
            )
            if len(numbers)
        ]


def regularity(times: Times) -> Regularity:
    """Inspect the differences between times."""
    return _regularity(seconds_between(times), 0.0)


def time_problems(times: Times) -> list[str]:
    """Sentences on repeated, unsorted, uneven and missing times of one run."""
    report = regularity(times)
    problems = report.problems(times)
    if len(report.gaps):
        spans = [f"{date_text(times[i - 1])} to {date_text(times[i])}" for i in report.gaps[:3]]
        rest = f" and {len(report.gaps) - 3} more" if len(report.gaps) > 3 else ""
        problems.append(
            f"{report.missing} times are missing in {len(report.gaps)} gaps "
            f"({', '.join(spans)}{rest}); no window bridges them"
        )
    return problems


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
    # the median is not rounded to milliseconds, as the commonest step is
    usual = float(np.median(steps[inside])) if inside.any() else 0.0
    if step_seconds and usual > 0 and abs(usual - step_seconds) > 0.01 * usual:
        raise S2KDError(
            f"{label}: times are {usual:g} s apart, but step_seconds says {step_seconds:g}; "
            "where the file holds times, leave it out or set dataset.params.step_seconds=null"
        )
    step = step_seconds or _regularity(steps[inside], 0.0).step_seconds
    # between runs, time may jump anywhere
    steps = np.where(inside, steps, step)
    for problem in _regularity(steps, step).problems(times):
        raise S2KDError(f"{label}: {problem}")
    total = np.concatenate([[0], np.cumsum(np.round(steps / step))]).astype(np.int64)
    return step, total - np.repeat(total[starts], np.diff([*starts, len(times)]))
