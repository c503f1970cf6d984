"""Cutting a record of times into unbroken stretches, and those into splits."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data.dataset import SPLITS, Stretch, chronological
from s2kd.data.times import seconds_between

DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d)?)?)?)?)?")


def shown(time: object) -> str:
    """One time for people, to the second."""
    return str(time)[:19]


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """How regular times are: numbers of the times at which something is amiss.

    `step_seconds` is the commonest positive difference (0 for a single time); `missing` is how
    many times the gaps lack.
    """

    step_seconds: float
    repeated: np.ndarray
    backwards: np.ndarray
    between: np.ndarray
    gaps: np.ndarray
    missing: int


def missing_steps(times: np.ndarray) -> Steps:
    """Look at the differences of (time,) times of any calendar."""
    steps = seconds_between(times)
    values, counts = np.unique(np.round(steps[steps > 0], 3), return_counts=True)
    step = float(values[np.argmax(counts)]) if len(values) else 0.0
    ratios = steps / step if step else np.ones(len(steps))
    # float32 times and leap seconds put a time a little off its step
    whole = (steps > 0) & (np.abs(ratios - np.round(ratios)) <= 0.01)
    gaps = whole & (np.round(ratios) > 1)
    return Steps(
        step_seconds=step,
        repeated=np.flatnonzero(steps == 0) + 1,
        backwards=np.flatnonzero(steps < 0) + 1,
        between=np.flatnonzero((steps > 0) & ~whole) + 1,
        gaps=np.flatnonzero(gaps) + 1,
        missing=int((np.round(ratios[gaps]) - 1).sum()),
    )


def step_numbers(where: str, times: np.ndarray) -> tuple[float, np.ndarray]:
    """The step in seconds, and each time's number of steps since the first.

    The step is the commonest difference. Missing times are allowed (numbers jump by more than
    one); times that repeat, run backwards or lie between steps are an S2KDError with the first.
    """
    if len(times) < 2:
        raise S2KDError(
            f"{where}: holds a single time ({shown(times[0])}); two are needed to forecast"
        )
    found, steps = missing_steps(times), seconds_between(times)
    for numbers, what in (
        (found.repeated, "occurs twice"),
        (found.backwards, "lies before the time that precedes it"),
    ):
        if len(numbers):
            raise S2KDError(
                f"{where}: time {shown(times[numbers[0]])} (number {numbers[0]}) {what}; sort the "
                "file by time and drop repeated times"
            )
    step = found.step_seconds
    if len(found.between):
        at = int(found.between[0])
        raise S2KDError(
            f"{where}: times must be one step apart (the commonest is {step:g} s) or whole steps "
            f"missing, but {shown(times[at - 1])} is followed by {shown(times[at])}, "
            f"{steps[at - 1]:g} s later{remedy(times)}"
        )
    return step, np.concatenate([[0], np.cumsum(np.round(steps / step))]).astype(np.int64)


def remedy(times: np.ndarray) -> str:
    """How to make uneven times even, as the end of a sentence; calendar months by their name."""
    text, steps = iso(times), seconds_between(times)
    months = np.diff([12 * int(one[:4]) + int(one[5:7]) for one in text])
    days = steps / 86400 / np.maximum(months, 1)
    monthly = bool(((months > 0) & (days >= 28) & (days <= 31)).all())
    frequency = "30D" if monthly else _frequency(float(np.median(steps[steps > 0])))
    calendar = f", calendar={times[0].calendar!r}" if times.dtype == object else ""
    even = f"'{text[0]}', '{text[-1]}', freq='{frequency}'{calendar}"
    how = f"ds.interp(time=xr.date_range({even}))"
    if not monthly:
        return f"; interpolate to even times, with xarray: {how}"
    # a calendar of equal months needs no interpolation, but knows no 31st
    if len({one[7:] for one in text}) == 1:
        how = f"ds.convert_calendar('360_day', align_on='date') or {how}"
    return f": these are calendar months, of 28 to 31 days; make them even, with xarray: {how}"


def _frequency(seconds: float) -> str:
    """A step as pandas spells it, in whole hours or minutes where it is near them."""
    for size, name in ((3600, "h"), (60, "min")):
        count = round(seconds / size)
        if count and abs(seconds / size - count) < 0.1:
            return f"{count}{name}"
    return f"{seconds:g}s"


def stretches(numbers: np.ndarray, spacing: int) -> tuple[Stretch, ...]:
    """Runs of frames whose step numbers are `spacing` apart."""
    ends = np.flatnonzero(np.diff(numbers) != spacing) + 1
    bounds = [0, *map(int, ends), len(numbers)]
    return tuple(Stretch(first=a, stop=b) for a, b in itertools.pairwise(bounds))


def iso(times: np.ndarray) -> np.ndarray:
    """(time,) text `YYYY-MM-DDTHH:MM:SS`, which sorts as time does in every calendar."""
    if times.dtype == object:
        return np.array([time.isoformat()[:19] for time in times])
    return np.datetime_as_string(times, unit="s")


def split(
    where: str,
    times: np.ndarray,
    unbroken: Sequence[Stretch],
    *,
    ranges: Mapping[str, Sequence[str]],
    fractions: Sequence[float],
    gap: int,
) -> dict[str, tuple[Stretch, ...]]:
    """Cut the record by date `ranges` where any is given, else by `fractions` of its frames.

    `gap` frames are left out wherever two splits would adjoin. No stretch bridges missing times.
    """
    if gap < 0:
        raise S2KDError(f"{where}: gap must be 0 or more frames, got {gap}")
    if any(ranges.values()):
        whole = _by_dates(where, times, ranges, gap)
    else:
        if len(fractions) != 3 or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
            raise S2KDError(
                f"{where}: fractions must be three positive numbers (train, val, test) that sum "
                f"to at most 1, got {list(fractions)}"
            )
        one, two, three = fractions
        run = (Stretch(first=0, stop=len(times)),)
        whole = chronological(run, fractions=(one, two, three), gap=gap)
    splits = {name: _inside(unbroken, whole[name]) for name in SPLITS}
    for name, own in splits.items():
        if not own:
            raise S2KDError(
                f"{where}: nothing is left for the {name} split out of {len(times)} frames "
                f"({shown(times[0])} to {shown(times[-1])}) with a gap of {gap}; "
                "change the splits or the gap"
            )
    return splits


def checked_range(where: str, name: str, dates: Sequence[object]) -> tuple[str, str]:
    """A split's first and last date as text; anything else is an S2KDError."""
    given = [str(date).replace(" ", "T") for date in dates]
    if len(given) != 2 or not all(DATE.fullmatch(date) for date in given):
        raise S2KDError(
            f"{where}: {name} must be a first and a last date such as "
            f"['2013-01-01', '2014-06-30'], got {list(dates)} (train, val and test go together)"
        )
    return given[0], given[1]


def within(times: np.ndarray, low: str, high: str) -> np.ndarray:
    """(time,) bool: from one date to another, both whole: "2014-06" ends with June."""
    text = iso(times)
    # compared over as many characters as were given, a date stands for all of its day
    after = text.astype(f"U{len(low)}") >= low
    before = text.astype(f"U{len(high)}") <= high
    return after & before


def _by_dates(
    where: str, times: np.ndarray, ranges: Mapping[str, Sequence[str]], gap: int
) -> dict[str, tuple[Stretch, ...]]:
    """Frames from each first date to each last one, both whole: "2014-06" ends with June."""
    text, found = iso(times), []
    for name in SPLITS:
        low, high = checked_range(where, name, ranges[name])
        frames = np.flatnonzero(within(times, low, high))
        if not len(frames):
            raise S2KDError(
                f"{where}: {name} from {low} to {high} holds no frame; the record runs from "
                f"{text[0]} to {text[-1]}"
            )
        found.append((int(frames[0]), int(frames[-1]) + 1, name))
    found.sort()
    for (_, stop, one), (first, _, other) in itertools.pairwise(found):
        if first < stop:
            raise S2KDError(f"{where}: the dates of {one} and {other} overlap at {text[first]}")
    splits, free = {}, 0
    for first, stop, name in found:
        first = max(first, free)
        splits[name] = (Stretch(first=first, stop=stop),) if stop > first else ()
        free = stop + gap
    return splits


def _inside(unbroken: Sequence[Stretch], whole: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """The parts of `unbroken` that lie in `whole`."""
    both = [
        Stretch(first=max(a.first, b.first), stop=min(a.stop, b.stop))
        for b in whole
        for a in unbroken
    ]
    return tuple(s for s in both if s.stop > s.first)
