"""Dates of files without CF metadata: text of many forms, YYYYMMDDHH, counts of seconds.

A form is accepted where every value has it and the dates rise evenly. Where no form does, or two
do, the values are refused with the reason: a wrong date is worse than none.
"""

import datetime
import itertools
import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped

from s2kd.core.types import S2KDError
from s2kd.data.steps import Times, date_text, exact_times, iso, regularity, seconds_after

EPOCH = np.datetime64("2000-01-01", "ns")
"""The arbitrary start of a clock without a date."""
DAYS = ("%Y-%m-%d", "%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y", "%d-%b-%Y", "%b-%d-%Y", "%Y-%b-%d")
CLOCKS = ("", " %H", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
DIGITS = {"%Y%m%d": 8, "%Y%m%d%H": 10, "%Y%m%d%H%M": 12, "%Y%m%d%H%M%S": 14, "%Y%j": 7, "%Y%m": 6}
"""Forms of digits alone, and their lengths."""
UNIX = {"seconds": 1, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
UNIX_SECONDS = (5e8, 2.2e9)
"""From 1985 to 2039: counts of this size are taken for Unix time."""
CALENDARS = {
    "": "standard", "gregorian": "standard", "prolepticgregorian": "proleptic_gregorian",
    **dict.fromkeys(("360", "360day", "360days", "thirtydaymonths"), "360_day"),
    **dict.fromkeys(("365", "365day", "365days", "noleap", "nonleap"), "noleap"),
    **dict.fromkeys(("366", "366day", "366days", "allleap"), "all_leap"),
}  # fmt: skip
"""Calendars by other spellings, in lower-case letters and digits."""
MONTHS = {"month": 1, "mon": 1, "year": 12, "yr": 12, "decade": 120}
CLOCK_STEPS = (600, 900, 1800, 3600, 10800, 21600, 43200, 86400)
"""Steps of a count, in multiples of its step, that is taken for seconds."""


def read_dates(
    values: Shaped[np.ndarray, " time"], label: str, *, since: str = "", calendar: str = "standard"
) -> tuple[Times, str]:
    """Dates of any stored form, and the form that was taken for numbers ("" for others).

    Args:
        values: datetime64, text, bytes or numbers.
        label: names them in errors.
        since: the date from which numbers count seconds, or units such as `hours since 1900-01-01`.
        calendar: of the units.

    Raises:
        S2KDError: no form fits, or more than one.
    """
    if values.dtype.kind == "M":
        return exact_times(values), ""
    if values.dtype.kind not in "iuf":
        texts = [text.decode(errors="replace") if isinstance(text, bytes) else str(text)
                 for text in values.tolist()]  # fmt: skip
        return _one_reading(texts, _readings(list(map(_normalised, texts))), label), ""
    if since:
        return counted_dates(values, label, since, calendar), ""
    readings = _digit_readings(values)
    if readings:
        texts = list(map(str, values.tolist()))
        return _one_reading(texts, readings, label), " or ".join(readings)
    for unit, per_second in UNIX.items():
        seconds = values / per_second
        if UNIX_SECONDS[0] < seconds.min() and seconds.max() < UNIX_SECONDS[1]:
            return seconds_after(np.datetime64("1970-01-01"), seconds), f"{unit} since 1970-01-01"
    step = np.diff(values.astype(float)).min(initial=np.inf)
    if step in CLOCK_STEPS and 0 <= values[0] < UNIX_SECONDS[0] and not (values % step).any():
        return seconds_after(EPOCH, values), f"seconds since {date_text(EPOCH)[:10]}"
    raise S2KDError(
        f"{label}: the numbers {values.min():.10g} to {values.max():.10g} do not say what they "
        "count; set dataset.params.start to the date from which they count seconds, or to units "
        "such as 'hours since 1900-01-01'"
    )


def counted_dates(
    values: Shaped[np.ndarray, "*axes"], label: str, units: str, calendar: str = ""
) -> Shaped[np.ndarray, "*axes"]:
    """Dates of numbers in units such as `hours since 1900-01-01`; a bare date counts seconds.

    Months and years are those of the calendar, whose name may be spelt in other ways than CF's. A
    number that is missing gives NaT, or None among cftime objects. S2KDError where the units name
    no date.
    """
    import xarray as xr

    parts = re.split(r"\s+since\s+", units.strip(), flags=re.IGNORECASE)
    unit, origin = (parts[0].lower().rstrip("s"), parts[1]) if len(parts) == 2 else ("s", units)
    origin = re.sub(r"^(\d+-\d+)$", r"\1-01", origin)
    origin = re.sub(r"^(\S+)[T ](\d\d?)$", r"\1 \2:00", origin)  # cftime drops an hour alone
    calendar = CALENDARS.get(re.sub("[^a-z0-9]", "", calendar.lower()), calendar)
    if calendar == "standard" and re.match("0+-", origin):
        calendar = "proleptic_gregorian"  # has a year 0
    missing = ~np.isfinite(values)
    numbers = np.where(missing, 0, values).ravel()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dates beyond nanoseconds are cftime objects
            if unit in MONTHS:
                numbers = _microseconds(numbers * MONTHS[unit], origin, calendar)
                unit, origin = "microseconds", "1970-01-01"
            elif unit == "week":
                numbers, unit = 7 * numbers, "days"
            metadata = {"units": f"{unit} since {origin}", "calendar": calendar}
            counted = xr.Variable("time", numbers, metadata)
            dates = exact_times(xr.conventions.decode_cf_variable("time", counted).values)
    except Exception as error:  # each library of dates raises its own kinds
        raise S2KDError(
            f"{label}: {units!r} is neither a date nor units such as 'hours since 1900-01-01'"
        ) from error
    dates = np.array(dates).reshape(np.shape(values))
    dates[missing] = np.datetime64("NaT") if dates.dtype.kind == "M" else None
    return dates


def _microseconds(months: np.ndarray, origin: str, calendar: str) -> np.ndarray:
    """Microseconds since 1970 of dates so many calendar months after `origin`.

    A fraction is one of the days of that month; a day that the month lacks is its last.
    """
    import cftime
    import xarray as xr

    zero = xr.Variable("time", [0], {"units": f"days since {origin}", "calendar": calendar})
    start = xr.coders.CFDatetimeCoder(use_cftime=True).decode(zero).values[0]
    dates = []
    for count in months.tolist():
        passed = int(np.floor(count + 1e-6))
        year, month = divmod(12 * start.year + start.month - 1 + passed, 12)
        first = start.replace(year=year, month=month + 1, day=1)
        length = first.daysinmonth
        days = min(start.day, length) - 1 + max(0.0, round(count - passed, 6)) * length
        dates.append(first + datetime.timedelta(days=days))
    return np.array(cftime.date2num(dates, "microseconds since 1970-01-01", calendar), np.int64)


def _normalised(text: str) -> str:
    """`2020/01/02T03:04Z` as `2020-01-02 03:04`, `20200102_03` as `2020010203`."""
    text = re.sub(r"(Z|\s*(UTC|GMT)|\+00:?00)$", "", text.strip())
    if re.fullmatch(r"\d{4,8}[T_ -]?\d{0,6}", text):
        return re.sub(r"\D", "", text)
    match = re.fullmatch(r"(.+?)(?:[ T_](\d\d?(?::\d\d){0,2}(?:\.\d+)?(?: ?[AaPp][Mm])?))?", text)
    if match is None:
        return text
    day = re.sub(r"[^0-9A-Za-z]+", "-", match[1]).strip("-")
    return f"{day} {match[2] or ''}".strip()


def _readings(texts: Sequence[str]) -> dict[str, Times]:
    """The dates by every form that all of these have."""
    import pandas as pd

    ends, readings = [texts[0], texts[-1]], {}
    digits = [form for form, length in DIGITS.items() if len(texts[0]) == length]
    for form in (*digits, *map("".join, itertools.product(DAYS, CLOCKS))):
        try:
            pd.to_datetime(ends, format=form)  # most forms are out at once
            parsed = pd.to_datetime(list(texts), format=form)
        except ValueError:
            continue
        readings[form] = exact_times(parsed.to_numpy())
    return readings


def _digit_readings(values: np.ndarray) -> dict[str, Times]:
    """The dates of numbers such as 2013010106, or 20130101.25 with a fraction of the day.

    Short numbers that rise by one step throughout may count anything.
    """
    digits = np.floor(values).astype(np.int64)
    shortest = len(str(digits.min()))
    if digits.min() < 10**5 or (shortest < 8 and len(set(np.diff(values).tolist())) < 2):
        return {}
    readings = _readings(list(map(str, digits.tolist())))
    if (values != digits).any():
        seconds = np.round((values - digits) * 86400).astype("timedelta64[s]")
        readings = {form: times + seconds for form, times in readings.items() if form == "%Y%m%d"}
    return {form: times for form, times in readings.items() if _evenness(times)}


def _evenness(times: Times) -> int:
    """2: times rise by one step, or by months; 1: and have gaps; 0: they do not rise evenly."""
    report = regularity(times)
    if not (len(report.repeated) or len(report.backwards) or len(report.between)):
        return 1 if len(report.gaps) else 2
    texts = iso(times)
    months = np.diff([12 * int(text[:4]) + int(text[5:7]) for text in texts])
    return 2 * int((months > 0).all() and len({text[7:] for text in texts}) == 1)


def _one_reading(texts: Sequence[str], readings: Mapping[str, Times], label: str) -> Times:
    """The reading whose dates rise most evenly; S2KDError where there are two, or none."""
    scores = {form: _evenness(times) for form, times in readings.items()}
    best = [times for form, times in readings.items() if scores[form] == max(scores.values())]
    distinct = {str(iso(times).tolist()): times for times in best}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    spans = [f"{date_text(times[0])} to {date_text(times[-1])}" for times in distinct.values()]
    reason = f"may be {' or '.join(spans)}" if spans else "are no dates of one known form"
    raise S2KDError(
        f"{label}: {texts[0]!r} to {texts[-1]!r} {reason}; write them as 2013-01-01T06:00"
    )
