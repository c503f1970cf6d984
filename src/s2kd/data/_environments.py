"""Which environments a model learns from, and which are held out by a parameter's range."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data.dataset import Stretch, chronological

EXTREMES = "extremes"
Unseen = Mapping[str, str | Sequence[float | int] | Sequence[str]]
"""By parameter: "extremes" (the lowest and the highest value), the range [low, high] that is seen,
or the names of the environments that are not."""


def held_out(
    where: str, parameters: Mapping[str, Mapping[str, float]], unseen: Unseen
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The seen environments, and the unseen ones by split "test_unseen_<parameter>".

    `parameters` are those of every environment, by name. One that is unseen in two parameters
    belongs to the first of them. Raises S2KDError where nothing is held out, or nothing left.
    """
    left, splits = list(parameters), {}
    for parameter, rule in unseen.items():
        chosen = _chosen(where, parameters, parameter, rule)
        if not chosen:
            raise S2KDError(f"{where}: unseen {parameter}={rule!r} holds no environment out")
        splits[split_name(parameter)] = tuple(name for name in left if name in chosen)
        left = [name for name in left if name not in chosen]
    if not left:
        raise S2KDError(f"{where}: unseen={dict(unseen)!r} leaves no environment to learn from")
    return tuple(left), {split: names for split, names in splits.items() if names}


def split_name(parameter: str) -> str:
    """`SURF.HRRPUA` as `test_unseen_surf_hrrpua`."""
    return "test_unseen_" + re.sub(r"\W+", "_", parameter).strip("_").lower()


def _chosen(
    where: str,
    parameters: Mapping[str, Mapping[str, float]],
    parameter: str,
    rule: str | Sequence[float | int] | Sequence[str],
) -> set[str]:
    if not isinstance(rule, str) and rule and all(isinstance(one, str) for one in rule):
        for name in rule:
            if name not in parameters:
                raise S2KDError(
                    f"{where}: no environment {name!r}{nearest(name, parameters)} (there are "
                    f"{', '.join(parameters)})"
                )
        return set(rule)
    values = {}
    for name, known in parameters.items():
        if parameter not in known:
            raise S2KDError(
                f"{where}: environment {name!r} has no {parameter!r} (it has "
                f"{', '.join(known) or 'no parameter'}), so nothing can be held out by it; give it "
                "one, name the environments to hold out, or set unseen={}"
            )
        values[name] = known[parameter]
    if rule == EXTREMES:
        low, high = min(values.values()), max(values.values())
        if len(set(values.values())) < 3:
            raise S2KDError(
                f"{where}: unseen {parameter}='extremes' wants three different values or more, got "
                f"{', '.join(f'{v:g}' for v in sorted(set(values.values())))}; set unseen={{}} to "
                "learn from all"
            )
        return {name for name, value in values.items() if value in (low, high)}
    if isinstance(rule, str) or len(rule) != 2 or not rule[0] <= rule[1]:
        raise S2KDError(
            f"{where}: unseen {parameter}={rule!r} must be 'extremes', the range [low, high] that "
            "is seen, or names of environments"
        )
    return {name for name, value in values.items() if not rule[0] <= value <= rule[1]}


def end_to_end_stretches(lengths: Mapping[str, int]) -> dict[str, Stretch]:
    """Where each environment lies when they follow one another."""
    ends = np.cumsum(list(lengths.values()))
    return {
        name: Stretch(first=int(end) - length, stop=int(end), name=name)
        for (name, length), end in zip(lengths.items(), ends, strict=True)
    }


def splits_of(
    stretches: Mapping[str, Stretch],
    seen: Sequence[str],
    unseen: Mapping[str, Sequence[str]],
    *,
    fractions: tuple[float, float, float],
    gap: int,
) -> dict[str, tuple[Stretch, ...]]:
    """Seen environments cut by time into train, val and test; unseen ones whole."""
    cut = chronological(tuple(stretches[name] for name in seen), fractions=fractions, gap=gap)
    whole = {split: tuple(stretches[name] for name in names) for split, names in unseen.items()}
    return {**cut, **whole}


def shares(part: str, fractions: Sequence[float], gap: int) -> tuple[float, float, float]:
    """`fractions` as three shares of 1, or an error; `gap` is checked too."""
    if len(fractions) != 3 or min(fractions) <= 0 or not np.isclose(np.sum(fractions), 1):
        raise S2KDError(
            f"{part}: fractions={list(fractions)} must be three above 0 that add up to 1"
        )
    if gap < 0:
        raise S2KDError(f"{part}: gap={gap} must not be negative")
    return float(fractions[0]), float(fractions[1]), float(fractions[2])
