"""Training, validation and test splits: by dates, fractions, run names, days or parameters."""

import itertools
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Int, Shaped

from s2kd.core.recipe import Split
from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data.dataset import SPLITS, Stretch
from s2kd.data.steps import date_text, iso

FRACTIONS = (0.75, 0.1, 0.15)
GAP = 24
EXTREMES = "extremes"
DATE = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d)?)?)?)?)?")
Splits = dict[str, tuple[Stretch, ...]]


def run_starts(
    times: Shaped[np.ndarray, " time"], names: Shaped[np.ndarray, " time"] | None
) -> Int[np.ndarray, " run"]:
    """Numbers of the first frames of runs: where the name changes, or time starts again."""
    if names is None:
        return np.zeros(1, dtype=np.int64)
    begins = (names[1:] != names[:-1]) | (times[1:] < times[:-1])
    return np.concatenate([[0], np.flatnonzero(begins) + 1])


def unbroken(
    numbers: Int[np.ndarray, " time"],
    *,
    spacing: int = 1,
    names: Shaped[np.ndarray, " time"] | None = None,
) -> tuple[Stretch, ...]:
    """Stretches of frames whose step numbers are `spacing` apart; every run begins again at 0."""
    ends = np.flatnonzero(np.diff(numbers) != spacing) + 1
    bounds = [0, *map(int, ends), len(numbers)]
    return tuple(
        Stretch(first=a, stop=b, name="" if names is None else str(names[a]))
        for a, b in itertools.pairwise(bounds)
        if b > a
    )


def merged(split: Split, defaults: Mapping[str, Any]) -> Split:
    """`split` with a reader's defaults for what it leaves open."""
    by_range = bool(split.train or split.val or split.test)
    excluded: tuple[str, ...] = ()
    if by_range:  # runs named for a split are not held out as unseen
        excluded = ("fractions", "days", "unseen")
    elif split.fractions is not None or split.days is not None:
        excluded = (*SPLITS, "fractions", "days")
    changes = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in defaults.items()
        if name not in excluded and getattr(split, name) in ((), None, {}) and value is not None
    }
    return msgspec.structs.replace(split, **changes)


def make_splits(
    label: str,
    times: Shaped[np.ndarray, " time"],
    stretches: Sequence[Stretch],
    split: Split,
    *,
    runs: Sequence[Stretch] = (),
    unseen: Mapping[str, Sequence[str]] | None = None,
    labels: Shaped[np.ndarray, " time"] | None = None,
    whole_days: bool = False,
) -> Splits:
    """Frames of every split, as stretches without a gap in time.

    Args:
        label: names the dataset in errors.
        times: of every frame.
        stretches: all frames, unbroken in time (`unbroken`).
        split: the settings.
        runs: the runs, where there are several; empty: one record.
        unseen: run names by split `test_unseen_<parameter>` (`held_out`).
        labels: the published split of every frame, "" for none; used where `split` is open.
        whole_days: fractions are of days, not of frames.

    Raises:
        S2KDError: settings that contradict each other, or leave a split without frames.
    """
    gap = GAP if split.gap is None else split.gap
    if gap < 0:
        raise S2KDError(f"{label}: gap must be 0 or more frames, got {gap}")
    ranges = {name: getattr(split, name) for name in SPLITS}
    unseen_names = {name for names in (unseen or {}).values() for name in names}
    seen_runs = [run for run in runs if run.name not in unseen_names]
    if any(ranges.values()):
        areas = _by_run_names(label, runs, ranges) if runs else _by_dates(label, times, ranges, gap)
    elif split.days is not None:
        areas = _by_days(label, times, split.days, gap)
    elif labels is not None and split.fractions is None:
        return _published(stretches, labels)
    elif whole_days:
        fractions = _checked_fractions(label, split.fractions or FRACTIONS)
        areas = _by_days(label, times, _day_counts(times, fractions), gap)
    else:
        fractions = _checked_fractions(label, split.fractions or FRACTIONS)
        record = seen_runs or [Stretch(first=0, stop=len(times))]
        areas = chronological(tuple(record), fractions=fractions, gap=gap)
    splits = {name: _intersection(stretches, areas[name]) for name in SPLITS}
    if split.episodes is not None:
        splits["train"] = _episodes(label, splits["train"], split.episodes)
    for name, frames in splits.items():
        if not frames:
            raise S2KDError(
                f"{label}: nothing is left for the {name} split out of {len(times)} frames "
                f"({date_text(times[0])} to {date_text(times[-1])}) with a gap of {gap}; "
                "change the splits or the gap"
            )
    for name, names in (unseen or {}).items():
        unseen_runs = [run for unseen_name in names for run in runs if run.name == unseen_name]
        splits[name] = _intersection(stretches, unseen_runs)
    return splits


def chronological(
    runs: tuple[Stretch, ...], *, fractions: tuple[float, float, float], gap: int
) -> dict[str, tuple[Stretch, ...]]:
    """Cut every run into train, val and test by time, `gap` frames left out between them.

    Fractions that sum to less than 1 leave out the end of every run.
    """
    splits: dict[str, list[Stretch]] = {split: [] for split in SPLITS}
    for run in runs:
        length = run.stop - run.first
        first, second, third = (
            min(run.stop, run.first + round(length * sum(fractions[:count]))) for count in (1, 2, 3)
        )
        cuts = ((run.first, first), (first + gap, second), (second + gap, third))
        for split, (first, stop) in zip(SPLITS, cuts, strict=True):
            if stop > first:
                splits[split].append(Stretch(first=first, stop=stop, name=run.name))
    return {split: tuple(stretches) for split, stretches in splits.items()}


def _published(stretches: Sequence[Stretch], labels: np.ndarray) -> Splits:
    """Frames by their published split."""
    splits: dict[str, list[Stretch]] = {name: [] for name in SPLITS}
    changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
    for stretch in stretches:
        inside = changes[(changes > stretch.first) & (changes < stretch.stop)]
        for first, stop in itertools.pairwise([stretch.first, *map(int, inside), stretch.stop]):
            if labels[first]:
                piece = Stretch(first=first, stop=stop, name=stretch.name)
                splits.setdefault(str(labels[first]), []).append(piece)
    return {name: tuple(pieces) for name, pieces in splits.items()}


def _checked_fractions(label: str, fractions: Sequence[float]) -> tuple[float, float, float]:
    if len(fractions) != 3 or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise S2KDError(
            f"{label}: fractions must be three positive numbers (train, val, test) that sum "
            f"to at most 1, got {list(fractions)}"
        )
    train, val, test = map(float, fractions)
    return train, val, test


def date_range(label: str, name: str, dates: Sequence[object]) -> tuple[str, str]:
    """The first and last date of a split as text; anything else is an S2KDError."""
    texts = [str(date).replace(" ", "T") for date in dates]
    if len(texts) != 2 or not all(DATE.fullmatch(text) for text in texts):
        raise S2KDError(
            f"{label}: {name} must be a first and a last date such as "
            f"['2013-01-01', '2014-06-30'], got {list(dates)} (train, val and test go together)"
        )
    return texts[0], texts[1]


def within(times: Shaped[np.ndarray, " time"], low: str, high: str) -> Bool[np.ndarray, " time"]:
    """Times from one date to another, both whole: "2014-06" ends with June."""
    text = iso(times)
    # compared over the characters of the date, which therefore stands for all of its day
    return (text.astype(f"U{len(low)}") >= low) & (text.astype(f"U{len(high)}") <= high)


def _by_dates(
    label: str, times: np.ndarray, ranges: Mapping[str, Sequence[str]], gap: int
) -> Splits:
    bounds = []
    for name in SPLITS:
        low, high = date_range(label, name, ranges[name])
        frames = np.flatnonzero(within(times, low, high))
        if not len(frames):
            raise S2KDError(
                f"{label}: {name} from {low} to {high} holds no frame; the record runs from "
                f"{iso(times[:1])[0]} to {iso(times[-1:])[0]}"
            )
        bounds.append((int(frames[0]), int(frames[-1]) + 1, name))
    bounds.sort()
    for (_, stop, name), (first, _, following) in itertools.pairwise(bounds):
        if first < stop:
            raise S2KDError(
                f"{label}: the dates of {name} and {following} overlap at "
                f"{iso(times[first : first + 1])[0]}"
            )
    splits, free = {}, 0
    for first, stop, name in bounds:
        first = max(first, free)
        splits[name] = (Stretch(first=first, stop=stop),) if stop > first else ()
        free = stop + gap
    return splits


def _by_run_names(
    label: str, runs: Sequence[Stretch], ranges: Mapping[str, Sequence[str]]
) -> Splits:
    """Whole runs by name, pattern or number range; a run in two splits is refused."""
    names, owners = [run.name for run in runs], {}
    splits: Splits = {}
    for split_name, patterns in ranges.items():
        if not patterns:
            raise S2KDError(f"{label}: train, val and test go together; {split_name} names no run")
        numbers = {n for pattern in patterns for n in _matching_runs(label, names, str(pattern))}
        for number in sorted(numbers):
            owner = owners.setdefault(number, split_name)
            if owner != split_name:
                raise S2KDError(
                    f"{label}: run {names[number]!r} is in both {owner} and {split_name}"
                )
        splits[split_name] = tuple(runs[number] for number in sorted(numbers))
    return splits


def _matching_runs(label: str, names: Sequence[str], pattern: str) -> list[int]:
    low, colon, high = pattern.partition(":")
    if colon and (low or "0").isdigit() and (high or "0").isdigit():
        numbers = list(range(len(names)))[int(low or 0) : int(high) if high else None]
    else:
        numbers = [n for n, name in enumerate(names) if fnmatchcase(name, pattern)]
    if not numbers:
        listed = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        raise S2KDError(f"{label}: no run fits {pattern!r}{nearest(pattern, names)} ({listed})")
    return numbers


def _days(times: np.ndarray) -> np.ndarray:
    """The date of every frame, as text."""
    return iso(times).astype("U10")


def _day_counts(times: np.ndarray, fractions: Sequence[float]) -> tuple[int, ...]:
    ends = np.round(np.cumsum(fractions) * len(np.unique(_days(times)))).astype(int)
    return tuple(map(int, np.diff(ends, prepend=0)))


def _by_days(label: str, times: np.ndarray, counts: Sequence[int], gap: int) -> Splits:
    """Whole days in order of time; the first `gap` steps of val and test are left out."""
    days = _days(times)
    dates, firsts = np.unique(days, return_index=True)
    if len(counts) != 3:
        raise S2KDError(f"{label}: days must be three counts (train, val, test), got {counts}")
    train, val, test = counts
    train = train or len(dates) - val - test
    ends = np.cumsum((train, val, test))
    if min(train, val, test) < 1 or ends[-1] > len(dates):
        raise S2KDError(
            f"{label}: holds {len(dates)} days, too few for train, val and test of "
            f"{train}, {val} and {test} days"
        )
    bounds = [0, *(int(firsts[end]) if end < len(dates) else len(times) for end in ends)]
    steps = np.diff(times)
    step = np.min(steps[steps > np.timedelta64(0)]) if len(steps) else np.timedelta64(0)
    splits: Splits = {}
    for name, first, stop, skip in zip(SPLITS, bounds[:-1], bounds[1:], (0, gap, gap), strict=True):
        begin = np.datetime64(days[first]) if skip and times.dtype != object else times[first]
        first += int((times[first:stop] < begin + skip * step).sum())
        splits[name] = (Stretch(first=first, stop=stop),) if stop > first else ()
    return splits


def _episodes(
    label: str, stretches: Sequence[Stretch], episodes: tuple[int, int]
) -> tuple[Stretch, ...]:
    """The first frames of every period, counted through all stretches."""
    length, period = episodes
    if length > period:
        raise S2KDError(f"{label}: episodes of {length} frames do not fit in {period} frames")
    pieces, start = [], 0
    for stretch in stretches:
        size = stretch.stop - stretch.first
        # of the episodes that begin at multiples of the period, what lies in this stretch
        for begin in range(start - start % period, start + size, period):
            first, stop = max(begin, start), min(begin + length, start + size)
            if stop > first:
                shift = stretch.first - start
                pieces.append(Stretch(first=first + shift, stop=stop + shift, name=stretch.name))
        start += size
    return tuple(pieces)


def _intersection(stretches: Sequence[Stretch], areas: Sequence[Stretch]) -> tuple[Stretch, ...]:
    """The parts of `stretches` that lie in `areas`, in the areas' order."""
    pieces, firsts = [], np.array([stretch.first for stretch in stretches])
    for area in areas:
        begin = max(0, int(np.searchsorted(firsts, area.first, side="right")) - 1)
        for stretch in stretches[begin:]:
            if stretch.first >= area.stop:
                break
            first, stop = max(stretch.first, area.first), min(stretch.stop, area.stop)
            if stop > first:
                pieces.append(Stretch(first=first, stop=stop, name=stretch.name))
    return tuple(pieces)


def held_out(
    label: str, parameters: Mapping[str, Mapping[str, float]], unseen: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Runs to learn from, and the unseen runs by split `test_unseen_<parameter>`.

    Args:
        label: names the dataset in errors.
        parameters: of every run, by name.
        unseen: by parameter: "extremes", the range [low, high] that is seen, or run names. A run
            that is unseen in two parameters belongs to the first.

    Raises:
        S2KDError: nothing is held out by a parameter, or no run remains.
    """
    remaining, splits = list(parameters), {}
    for parameter, rule in unseen.items():
        names = _unseen_runs(label, parameters, parameter, rule)
        if not names and rule == []:
            continue
        if not names:
            raise S2KDError(f"{label}: unseen {parameter}={rule!r} holds no environment out")
        splits[unseen_split(parameter)] = tuple(name for name in remaining if name in names)
        remaining = [name for name in remaining if name not in names]
    if not remaining:
        raise S2KDError(f"{label}: unseen={dict(unseen)!r} leaves no environment to learn from")
    return tuple(remaining), {name: runs for name, runs in splits.items() if runs}


def unseen_split(parameter: str) -> str:
    """`SURF.HRRPUA` as `test_unseen_surf_hrrpua`."""
    return "test_unseen_" + re.sub(r"\W+", "_", parameter).strip("_").lower()


def _unseen_runs(
    label: str, parameters: Mapping[str, Mapping[str, float]], parameter: str, rule: Any
) -> set[str]:
    if not isinstance(rule, str) and all(isinstance(name, str) for name in rule):
        for name in rule:
            if name not in parameters:
                raise S2KDError(
                    f"{label}: no environment {name!r}{nearest(name, parameters)} (there are "
                    f"{', '.join(parameters)})"
                )
        return set(rule)
    values = {}
    for name, settings in parameters.items():
        if parameter not in settings:
            raise S2KDError(
                f"{label}: environment {name!r} has no {parameter!r} (it has "
                f"{', '.join(settings) or 'no parameter'}), so nothing can be held out by it; give "
                "it one, name the environments to hold out, or set unseen={}"
            )
        values[name] = settings[parameter]
    if rule == EXTREMES:
        extremes = (min(values.values()), max(values.values()))
        if len(set(values.values())) < 3:
            raise S2KDError(
                f"{label}: unseen {parameter}='extremes' needs three different values or more, got "
                f"{', '.join(f'{v:g}' for v in sorted(set(values.values())))}; to learn from "
                f'all, set split.unseen={{"{parameter}": []}}'
            )
        return {name for name, value in values.items() if value in extremes}
    if isinstance(rule, str) or len(rule) != 2 or not rule[0] <= rule[1]:
        raise S2KDError(
            f"{label}: unseen {parameter}={rule!r} must be 'extremes', the range [low, high] that "
            "is seen, or names of environments"
        )
    return {name for name, value in values.items() if not rule[0] <= value <= rule[1]}
