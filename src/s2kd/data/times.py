"""Times of any calendar: datetime64 where it is enough, cftime objects where it is not."""

import numpy as np

SEASONS = ("winter", "spring", "summer", "autumn")


def _fields(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Month (1..12), day of the year (1..366) and hour with fraction, each (time,)."""
    times = np.asarray(times)
    if times.dtype == object:
        month = np.array([t.month for t in times])
        day = np.array([t.dayofyr for t in times])
        hour = np.array([t.hour + t.minute / 60 + t.second / 3600 for t in times])
        return month, day, hour
    months = times.astype("datetime64[M]")
    days = times.astype("datetime64[D]")
    month = months.astype(int) % 12 + 1
    day = (days - times.astype("datetime64[Y]").astype("datetime64[D]")).astype(int) + 1
    hour = (times - days) / np.timedelta64(1, "h")
    return month, day, hour


def hour_of_day(times: np.ndarray) -> np.ndarray:
    """(time,) hours since midnight, with fraction."""
    return _fields(times)[2]


def day_of_year(times: np.ndarray) -> np.ndarray:
    """(time,) 1 on the first day of the year."""
    return _fields(times)[1]


def is_weekend(times: np.ndarray) -> np.ndarray:
    """(time,) bool: Saturday or Sunday (false for calendars without weeks)."""
    times = np.asarray(times)
    if times.dtype == object:
        return np.zeros(len(times), dtype=bool)
    weekday = (times.astype("datetime64[D]").astype(int) + 3) % 7  # 1970-01-01 was a Thursday
    return weekday >= 5


def season(time: np.ndarray, *, southern: bool) -> str:
    """The meteorological season of one time (shape (1,)) on that hemisphere."""
    quarter = int(_fields(time)[0][0]) % 12 // 3
    return SEASONS[(quarter + 2) % 4 if southern else quarter]


def part_of_day(time: np.ndarray) -> str:
    """A coarse class of the local hour of one time (shape (1,))."""
    hour = float(hour_of_day(time)[0])
    for until, name in ((6, "night"), (10, "morning"), (16, "midday"), (20, "evening")):
        if hour < until:
            return name
    return "night"


def seconds_between(times: np.ndarray) -> np.ndarray:
    """(time - 1,) seconds from each time to the next."""
    steps = np.diff(np.asarray(times))
    if steps.dtype == object:
        return np.array([step.total_seconds() for step in steps], dtype=float)
    return steps / np.timedelta64(1, "s")


def shift(time: object, seconds: float) -> object:
    """`time` moved by `seconds`, in its own calendar."""
    if isinstance(time, np.datetime64):
        return time + np.timedelta64(round(seconds * 1e9), "ns")
    from datetime import timedelta

    return time + timedelta(seconds=seconds)
