"""Times and splits of arrays: one series cut by dates, or runs told apart by name."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data._array_runs import Run
from s2kd.data._record import split, step_numbers, stretches
from s2kd.data.dataset import SPLITS, Stretch, chronological, uncut


def series_splits(
    where: str,
    runs: list[Run],
    step: float | None,
    train: Sequence[str],
    val: Sequence[str],
    test: Sequence[str],
    fractions: Sequence[float] | None,
    gap: int,
) -> tuple[np.ndarray, dict[str, tuple[Stretch, ...]], float]:
    """Times, splits and step of one series."""
    times = np.concatenate([run.times for run in runs])
    found, numbers = _numbers(where, times, step)
    _same_step(where, step, found)
    if fractions is None and not (train or val or test):
        return times, uncut(stretches(numbers, 1)), found
    splits = split(
        where,
        times,
        stretches(numbers, 1),
        ranges={"train": train, "val": val, "test": test},
        fractions=fractions or (),
        gap=gap,
    )
    return times, splits, found


def _numbers(where: str, times: np.ndarray, step: float | None) -> tuple[float, np.ndarray]:
    """`step_numbers`; a single frame will do where the step is said."""
    if len(times) == 1 and step is not None:
        return step, np.zeros(1, dtype=np.int64)
    return step_numbers(where, times)


def _same_step(where: str, said: float | None, found: float) -> None:
    if said is not None and abs(said - found) > 0.01 * found:
        raise S2KDError(
            f"{where}: times are {found:g} s apart, but step_seconds says {said:g}; where the "
            "file holds times, leave it out or set dataset.params.step_seconds=null"
        )


def run_splits(
    where: str,
    runs: list[Run],
    step: float | None,
    train: Sequence[str],
    val: Sequence[str],
    test: Sequence[str],
    fractions: Sequence[float] | None,
    gap: int,
) -> tuple[np.ndarray, dict[str, tuple[Stretch, ...]], float]:
    """Times, splits and step of several runs."""
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise S2KDError(f"{where}: two runs are called {twice!r}; rename a file")
    unbroken: list[list[Stretch]] = []
    first, found = 0, step
    for run in runs:
        one, numbers = _numbers(run.array.where, run.times, found)
        _same_step(run.array.where, found, one)
        found = one
        own = stretches(numbers, 1)
        unbroken.append(
            [Stretch(first=first + s.first, stop=first + s.stop, name=run.name) for s in own]
        )
        first += len(run.times)
    wanted = {"train": train, "val": val, "test": test}
    if fractions is None and not any(wanted.values()):
        splits = uncut([stretch for own in unbroken for stretch in own])
        return np.concatenate([run.times for run in runs]), splits, float(found or 1.0)
    if any(wanted.values()):
        chosen = _by_names(where, names, wanted)
        splits = {
            name: tuple(s for number in chosen[name] for s in unbroken[number]) for name in SPLITS
        }
    else:
        splits = _by_fractions(where, runs, unbroken, fractions or (), gap)
    for name, own in splits.items():
        if not own:
            raise S2KDError(
                f"{where}: nothing is left for the {name} split of {len(runs)} runs with "
                f"fractions={list(fractions or ())} and gap={gap}; make the gap smaller, or say "
                "which runs are train, val and test"
            )
    return np.concatenate([run.times for run in runs]), splits, float(found or 1.0)


def _by_names(
    where: str, names: list[str], wanted: dict[str, Sequence[str]]
) -> dict[str, list[int]]:
    """Numbers of the runs of each split; a run in two splits is refused."""
    chosen: dict[str, list[int]] = {}
    owner: dict[int, str] = {}
    for split_name, patterns in wanted.items():
        if not patterns:
            raise S2KDError(f"{where}: train, val and test go together; {split_name} names no run")
        numbers = [n for pattern in patterns for n in _matching(where, names, str(pattern))]
        chosen[split_name] = sorted(set(numbers))
        for number in chosen[split_name]:
            other = owner.setdefault(number, split_name)
            if other != split_name:
                raise S2KDError(
                    f"{where}: run {names[number]!r} is in both {other} and {split_name}"
                )
    return chosen


def _matching(where: str, names: list[str], pattern: str) -> list[int]:
    low, colon, high = pattern.partition(":")
    if colon and (low or "0").isdigit() and (high or "0").isdigit():
        found = list(range(len(names)))[int(low or 0) : int(high) if high else None]
    else:
        found = [n for n, name in enumerate(names) if fnmatchcase(name, pattern)]
    if not found:
        some = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        raise S2KDError(f"{where}: no run fits {pattern!r}{nearest(pattern, names)} ({some})")
    return found


def _by_fractions(
    where: str,
    runs: list[Run],
    unbroken: list[list[Stretch]],
    fractions: Sequence[float],
    gap: int,
) -> dict[str, tuple[Stretch, ...]]:
    """Every run cut in time at the same shares."""
    if len(fractions) != 3 or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9 or gap < 0:
        raise S2KDError(
            f"{where}: fractions must be three positive numbers that sum to at most 1 and gap at "
            f"least 0, got {list(fractions)} and {gap}"
        )
    one, two, three = map(float, fractions)
    whole, first = [], 0
    for run in runs:
        whole.append(Stretch(first=first, stop=first + len(run.times), name=run.name))
        first += len(run.times)
    cuts = chronological(tuple(whole), fractions=(one, two, three), gap=gap)
    own = {stretch.name: stretches_ for stretch, stretches_ in zip(whole, unbroken, strict=True)}
    splits: dict[str, tuple[Stretch, ...]] = {}
    for name, cut in cuts.items():
        both = [
            Stretch(first=max(a.first, b.first), stop=min(a.stop, b.stop), name=a.name)
            for a in cut
            for b in own[a.name]
        ]
        splits[name] = tuple(s for s in both if s.stop > s.first)
    return splits
