"""Whether one method is better than another on the same test windows, or was lucky.

Test windows overlap and neighbours agree, so whole blocks of them are drawn. What a statement is
about decides what else is drawn:

- `paired_bootstrap` averages the seeds of each window before: it speaks of these trained models
  on other windows like the test's.
- `hierarchical_bootstrap` counts the seeds' spread too: it speaks of the method, trained anew, and
  wants at least three seeds. From five on they are drawn, independently of the blocks, since every
  seed is scored on the same windows (the pigeonhole bootstrap of Owen 2007); three and four are too
  few for that, and their bounds are Student's (`bootstrap.SEEDS_TO_DRAW`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from s2kd.core.types import S2KDError
from s2kd.evaluation.bootstrap import (
    FEWEST_BLOCKS,
    Bounds,
    Found,
    Function,
    Interval,
    block_means,
    bootstrap,
    identity,
    is_too_short,
)

FEWEST_SEEDS = 3

Errors = Float[np.ndarray, "*seed window"]


@dataclass(frozen=True, kw_only=True)
class Comparison(Bounds):
    """Mean difference of two methods' errors (first − second; below 0 the first is better).

    `low` and `high` bound it with the stated `confidence`; `p_value` is two-sided. What cannot be
    said of so few blocks is None, and `note` says why.
    """

    difference: float | None
    p_value: float | None
    p_holm: float | None = None
    """`p_value` adjusted for the other comparisons of its table, where there are some (`holm`)."""
    base: float | None = None
    """The second's own mean, of the same seeds: what a difference is a percentage of."""

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and it leaves out 0."""
        return self.low is not None and (self.low > 0 or self.high < 0)

    @property
    def is_better(self) -> bool:
        """Whether the first is better for certain: there is an interval and it lies below 0."""
        return self.high is not None and self.high < 0

    @property
    def survives(self) -> bool:
        """Whether the interval leaves out 0 and, where adjusted, the p-value is below 0.05."""
        return self.excludes_zero and (self.p_holm is None or self.p_holm < 1 - self.confidence)


# --- how long a block must be --------------------------------------------------------------------


def default_block(windows: int, *, overlap: int) -> int:
    """Twice `overlap` where that leaves ten blocks, fewer windows else, never less than `overlap`.

    `overlap` is the number of consecutive windows that share frames: (past + lead) / stride. A
    shorter block than that would cut dependent windows apart and claim too much.
    """
    return max(1, overlap, min(2 * overlap, windows // FEWEST_BLOCKS))


def by_moment(errors: Errors, parts: int) -> Float[np.ndarray, "*seed moment"]:
    """Means over the windows of one moment, where stretches are parts of one scene (planes).

    Stretch follows stretch and all are as long. What they share, the weather or the fire of that
    moment, is drawn once, not as often as there are `parts`.
    """
    errors = np.asarray(errors, np.float64)
    return errors.reshape(*errors.shape[:-1], parts, -1).mean(-2)


def at_once(scores: Mapping[str, Any]) -> int:
    """How many windows of these `scores` are of one moment (1 where older results do not say)."""
    return int(scores.get("conventions", {}).get("at_once", 1))


def runs_of(scores: Mapping[str, Any]) -> tuple[int, ...]:
    """How many windows of these `scores` each run has; () where they are of the same moments."""
    runs = tuple(group["windows"] for group in scores.get("by_group", {}).values())
    return runs if at_once(scores) == 1 and sum(runs) == len(scores["window_mse"]) else ()


def decorrelation_time(series: Float[np.ndarray, " window"], runs: Sequence[int] = ()) -> int:
    """Windows from one independent value to the next: 1 + 2 Σ ρ(k), rounded up, at least 1.

    von Storch and Zwiers (1999), eq. 17.5; the sum ends before the first autocorrelation within
    2/√n of 0, where only noise is left. `runs` are the windows of each run or environment, one
    after the other: that one is harder than the next is no memory.
    """
    series = np.asarray(series, np.float64)
    parts = np.split(series, np.cumsum(runs)[:-1]) if len(runs) else [series]
    gain = np.concatenate([part - part.mean() for part in parts])
    count, variance = len(gain), float(np.mean(np.square(gain)))
    if count < 3 or variance <= 1e-300:
        return 1
    size = 2 ** math.ceil(math.log2(2 * count))
    power = np.abs(np.fft.rfft(gain, size)) ** 2
    correlation = np.fft.irfft(power, size)[: count // 2] / (count * variance)
    noise = np.flatnonzero(correlation <= 2 / math.sqrt(count))
    last = int(noise[0]) if len(noise) else len(correlation)
    return max(1, math.ceil(1 + 2 * correlation[1:last].sum() - 1e-9))


def block_for(
    gains: Sequence[Float[np.ndarray, " window"]], *, overlap: int, runs: Sequence[int] = ()
) -> int:
    """`default_block`, or the longest decorrelation time of these differences if that is more."""
    times = [decorrelation_time(gain, runs) for gain in gains]
    return max([default_block(len(gains[0]), overlap=overlap), *times])


# --- two methods ---------------------------------------------------------------------------------


def paired_bootstrap(
    first: Float[np.ndarray, " window"],
    second: Float[np.ndarray, " window_of_second"],
    *,
    block: int,
    resamples: int = 4000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Studentised circular block bootstrap of mean(first − second) over windows in time order.

    Blocks of `block` consecutive windows are drawn (Politis and Romano 1992), since windows
    overlap and neighbours agree: drawing single windows would take every gain for real. Each
    resample's mean is divided by its own standard error over blocks (Götze and Künsch 1996): a
    plain percentile interval is too narrow for the handful of blocks that a test split holds. The
    interval is symmetric, and `p_value` < 1 − confidence exactly where it leaves out 0; with
    fewer than ten blocks there is none. Errors of several seeds are averaged per window before.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    _check_pair(first[None], second[None])
    gain = (first - second)[None, :, None]
    found = _comparison(bootstrap(gain, identity, block, resamples, confidence, seed))
    return replace(found, base=float(second.mean()))


def hierarchical_bootstrap(
    first: Float[np.ndarray, "seed window"],
    second: Float[np.ndarray, "seed_of_second window_of_second"],
    *,
    block: int,
    resamples: int = 4000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """As `paired_bootstrap` with the seeds' spread too: would it be better if trained again.

    Seeds are paired in the order given (the same seed gives both methods the same first weights
    and the same order of batches). The squared standard error is the windows' plus the seeds'
    (their variance over their number); from five seeds on they are drawn in every resample.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    _check_pair(first, second)
    if len(first) < FEWEST_SEEDS:
        raise S2KDError(
            f"comparison over seeds: {len(first)} of them say nothing of their spread; train at "
            f"least {FEWEST_SEEDS}, or average them (paired_bootstrap)"
        )
    gain = (first - second)[..., None]
    found = _comparison(bootstrap(gain, identity, block, resamples, confidence, seed))
    return replace(found, base=float(second.mean()))


def _check_pair(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[1] != second.shape[1]:
        raise S2KDError(
            f"paired comparison: {first.shape[1]} windows against {second.shape[1]}; "
            "both methods must be scored on the same ones"
        )
    if len(first) != len(second):
        raise S2KDError(
            f"paired comparison: {len(first)} seeds against {len(second)}; take the seeds that "
            "both methods were trained with"
        )
    if not np.isfinite(first - second).all():
        raise S2KDError("paired comparison: an error is not finite")


def _comparison(found: "Found") -> Comparison:
    plain = found.interval.to_dict()
    known = found.bounded and found.blocks >= FEWEST_BLOCKS
    return Comparison(
        difference=plain.pop("value"), p_value=found.p_value if known else None, **plain
    )


# --- what is no difference of means --------------------------------------------------------------


def function_interval(
    values: Float[np.ndarray, "*seed window k"],
    function: Function,
    *,
    block: int,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A smooth function of the means of k paired series, such as a score of mean counts.

    The same studentised block bootstrap; the standard error of the function is that of its linear
    part (the smooth function model, Hall 1992, section 2.4). Seeds, where there is a first axis
    of at least three, count too; fewer are averaged.
    """
    return _of_function(values, function, block, resamples, confidence, seed).interval


def function_comparison(
    values: Float[np.ndarray, "*seed window k"],
    function: Function,
    *,
    block: int,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """As `function_interval`, for a `function` that is a difference: with a p-value of 0."""
    return _comparison(_of_function(values, function, block, resamples, confidence, seed))


def _of_function(
    values: np.ndarray,
    function: Function,
    block: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> "Found":
    values = _by_seed(np.asarray(values, np.float64), window_axes=2)
    if not np.isfinite(values).all():
        raise S2KDError("interval of a function: a value is not finite")
    if is_too_short(values.shape[1], block):
        return Found(
            value=float(function(values.mean((0, 1))[None])[0]),
            half=math.inf,
            critical=math.inf,
            p_value=math.nan,
            confidence=confidence,
            windows=values.shape[1],
            block=block,
            seeds=len(values),
        )
    return bootstrap(values, function, block, resamples, confidence, seed)


def ratio_interval(
    numerator: Errors,
    denominator: Errors,
    *,
    block: int,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """mean(numerator) / mean(denominator), by Fieller's argument (1954) on the bootstrap.

    The bounds are the ratios R for which mean(numerator − R denominator) is not told from 0, so
    they stay true where the denominator is small, and there are none (None) where it cannot be
    told from 0 itself. From three seeds on their spread counts too; fewer are averaged.
    """
    top, bottom = (np.asarray(side, np.float64) for side in (numerator, denominator))
    top, bottom = np.broadcast_arrays(np.atleast_2d(top), np.atleast_2d(bottom))
    _check_pair(top, bottom)
    pair = _by_seed(np.stack([top, bottom], -1), window_axes=2)
    above, below = pair.mean((0, 1)).tolist()
    about = {"confidence": confidence, "windows": pair.shape[1], "block": block}
    about["seeds"] = len(pair)
    if below == 0:
        return Interval(value=None, low=None, high=None, note="nothing to divide by", **about)
    ratio = above / below

    def away(means: np.ndarray) -> np.ndarray:
        return means[..., 0] - ratio * means[..., 1]

    found = bootstrap(pair, away, block, resamples, confidence, seed)

    variance = _variance_along(pair, block)

    def outside(r: float) -> bool:
        return abs(above - r * below) > found.critical * math.sqrt(variance(r))

    scale = max(abs(ratio), 1.0)
    low, high = (_edge(outside, ratio, sign * scale) for sign in (-1, 1))
    if low is None or high is None:
        note = "no end to it: the denominator may be next to nothing"
        return Interval(value=float(ratio), low=None, high=None, note=note, **about)
    return Interval(value=float(ratio), low=low, high=high, note=found.note, **about)


def _variance_along(
    pair: Float[np.ndarray, "seed window 2"], block: int
) -> Callable[[float], float]:
    """R to the squared `_error` of numerator − R denominator, from covariances taken once."""
    mean = pair.mean(0)

    def covariance(length: int) -> np.ndarray:
        centred = block_means(mean, length) - mean.mean(0)
        return centred.T @ centred / len(mean) / (len(mean) / length - 1)

    whole, seeds = covariance(block), np.zeros((2, 2))
    half = covariance(block // 2) if block > 1 else whole
    if len(pair) > 1:
        seeds = np.cov(pair.mean(1).T) / len(pair)

    def variance(r: float) -> float:
        along = np.array([1.0, -r])
        one, other, more = (float(along @ c @ along) for c in (whole, half, seeds))
        return max(one, 2 * one - other) + more

    return variance


def _edge(outside: Callable[[float], bool], inside: float, step: float) -> float | None:
    """Where the bounds lie on one side of `inside`; None where there is no end to it."""
    reach = step / 1024
    while not outside(inside + reach):
        reach *= 2
        if abs(reach) > 1e6 * abs(step):
            return None
    near = 0.0
    for _ in range(60):
        middle = (near + reach) / 2
        near, reach = (near, middle) if outside(inside + middle) else (middle, reach)
    return float(inside + reach)


def gap_closed_interval(
    baseline: Errors, student: Errors, teacher: Errors, *, block: int, seed: int = 0
) -> Interval:
    """*Gap closed*, mean(baseline − student) / mean(baseline − teacher), with 95 % bounds.

    Errors by window, or by seed and window. Undefined where the teacher is no better.
    """
    gain, gap = _minus(baseline, student), _minus(baseline, teacher)
    found = ratio_interval(gain, gap, block=block, seed=seed)
    if gap.mean() <= 0:
        about = {**found.to_dict(), "value": None, "low": None, "high": None}
        return Interval(**{**about, "note": "the teacher is no better than the baseline"})
    return found


def share_ratio_interval(
    baseline: Errors, student: Errors, other: Errors, *, block: int, seed: int = 0
) -> Interval:
    """How many times the share of the gap that `other` closes the student closes, 95 % bounds.

    (baseline − student) / (baseline − other): the teacher cancels. Twice FitNet's share is shown
    where `low` > 2. Where `other` gains nothing for certain there are no bounds: see
    `exceeds_share`, which asks the same without dividing.
    """
    return ratio_interval(
        _minus(baseline, student), _minus(baseline, other), block=block, seed=seed
    )


def exceeds_share(
    baseline: Errors,
    student: Errors,
    other: Errors,
    *,
    times: float = 2.0,
    block: int,
    seed: int = 0,
) -> Comparison:
    """Whether the student gains more than `times` what `other` gains over the baseline.

    The difference is mean[(baseline − student) − times (baseline − other)]: shown where
    `low` > 0. From three seeds on their spread counts too.
    """
    gain, wanted = _minus(baseline, student), times * _minus(baseline, other)
    gain, wanted = (_by_seed(side, window_axes=1) for side in (gain, wanted))
    gain, wanted = np.broadcast_arrays(gain, wanted)
    if len(gain) < FEWEST_SEEDS:
        return paired_bootstrap(gain.mean(0), wanted.mean(0), block=block, seed=seed)
    return hierarchical_bootstrap(gain, wanted, block=block, seed=seed)


def _minus(one: Errors, other: Errors) -> Float[np.ndarray, "seed window"]:
    """By seed and window; one seed's errors serve for all of the other's."""
    one, other = (np.atleast_2d(np.asarray(side, np.float64)) for side in (one, other))
    if len(one) == 1 or len(other) == 1:
        shape = (max(len(one), len(other)), -1)
        one, other = (np.broadcast_to(side, (shape[0], side.shape[1])) for side in (one, other))
    _check_pair(one, other)
    return one - other


def _by_seed(values: np.ndarray, *, window_axes: int) -> np.ndarray:
    """Seeds (a first axis) as they are where they are enough to be drawn, else their mean."""
    if values.ndim == window_axes:
        return values[None]
    return values if len(values) >= FEWEST_SEEDS else values.mean(0, keepdims=True)


# --- a whole table -------------------------------------------------------------------------------


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for being many (Holm 1979): the chance of any false claim is kept.

    What has none (None) is no claim: it stays None and is not counted.
    """
    known = {place: value for place, value in enumerate(p_values) if value is not None}
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(known, key=known.__getitem__)):
        highest = max(highest, min(1.0, (len(known) - rank) * known[place]))
        adjusted[place] = highest
    return adjusted


def adjusted(found: Sequence[Comparison | None]) -> list[Comparison | None]:
    """The same comparisons, each with its `p_holm` among all of them."""
    p_values = holm([one and one.p_value for one in found])
    return [one and replace(one, p_holm=p) for one, p in zip(found, p_values, strict=True)]


def compare(
    errors: Mapping[str, Float[np.ndarray, "_seed window"]],
    *,
    reference: str,
    block: int | None = None,
    overlap: int = 1,
    runs: Sequence[int] = (),
    draw_seeds: bool = False,
    resamples: int = 4000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[dict[str, object]]:
    """Every method against `reference`, p-values adjusted by `holm` over all of them.

    One dict a method: the fields of `Comparison`, `method`, `reference`, `seeds` and `p_holm`.
    Without a `block` it is as long as `block_for` says, for all alike. Seeds are averaged per
    window, so that what varies is the test window; with `draw_seeds` their spread counts too
    (`hierarchical_bootstrap`). What so few windows cannot say is None, and `note` says so.
    """
    if reference not in errors:
        raise S2KDError(f"no errors of {reference!r} to compare with (there are {list(errors)})")
    base = np.asarray(errors[reference], np.float64)
    others = {name: np.asarray(e, np.float64) for name, e in errors.items() if name != reference}
    if block is None:
        for ones in others.values():
            _check_pair(ones.mean(0, keepdims=True), base.mean(0, keepdims=True))
        gains = [ones.mean(0) - base.mean(0) for ones in others.values()]
        block = block_for(gains, overlap=overlap, runs=runs) if gains else 1
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    rows: list[dict[str, object]] = []
    for name, ones in others.items():
        if is_too_short(base.shape[1], block):
            found = too_short(ones, base, block=block, confidence=confidence)
        elif draw_seeds:
            found = hierarchical_bootstrap(ones, base, block=block, **options)
        else:
            found = paired_bootstrap(ones.mean(0), base.mean(0), block=block, **options)
        about = {"method": name, "reference": reference}
        rows.append({**about, **found.to_dict(), "seeds": len(ones)})
    adjusted = holm([row["p_value"] for row in rows])
    return [{**row, "p_holm": p} for row, p in zip(rows, adjusted, strict=True)]


def too_short(ones: Errors, base: Errors, *, block: int, confidence: float = 0.95) -> Comparison:
    """The difference alone, where the windows are too few to say how far it may be off."""
    windows = base.shape[-1]
    return Comparison(
        difference=float(ones.mean() - base.mean()),
        base=float(base.mean()),
        low=None,
        high=None,
        p_value=None,
        confidence=confidence,
        windows=windows,
        block=block,
        note=f"{windows} windows hold fewer than 4 blocks of {block}: nothing can be said",
    )


def winner(
    errors: Mapping[str, float], against: Callable[[str, str], Comparison | None]
) -> tuple[str, bool]:
    """The method of least error, and whether a table may print it bold.

    `against(one, other)` compares their errors. Bold only where the best one's interval against
    every other method lies below 0 and, adjusted by Holm over the others, every p-value is below
    0.05.
    """
    if not errors:
        raise S2KDError("there are no errors to choose from")
    best = min(errors, key=errors.__getitem__)
    versus = [against(best, other) for other in errors if other != best]
    adjusted = holm([found and found.p_value for found in versus])
    clear = [  # where there is a p-value there is a comparison
        p is not None and p < 0.05 and found.is_better
        for found, p in zip(versus, adjusted, strict=True)
    ]
    return best, bool(clear) and all(clear)
