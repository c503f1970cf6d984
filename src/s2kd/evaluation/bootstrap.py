"""The studentised block bootstrap: how far a mean of dependent windows may be from the truth."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from s2kd.core.types import S2KDError

FEWEST_BLOCKS = 10
"""With fewer there is an interval, a wide one, but no p-value."""

SEEDS_TO_DRAW = 5
"""Of three seeds every ninth resample is one seed three times, with no spread to be divided by: the
95 % quantile lies among those, and the bounds were three times too wide. Fewer than these are not
drawn; the quantile is Student's."""

BOUNDED_FROM = 4
"""With fewer blocks there is no interval."""

Function = Callable[[np.ndarray], np.ndarray]
"""(…, k) means to (…) values, smooth."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What an interval says of itself; `low` and `high` are None where nothing bounds it (`note`).

    `seeds` > 1 where their spread counts too.
    """

    low: float | None
    high: float | None
    confidence: float
    windows: int
    block: int
    seeds: int = 1
    note: str = ""

    def to_dict(self) -> dict[str, float | int | str | None]:
        """As plain JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Interval(Bounds):
    """A value with its bounds; None where it is not defined or cannot be bounded (`note`)."""

    value: float | None


def is_too_short(windows: int, block: int) -> bool:
    """Whether so many windows hold fewer than the four blocks that bounds want."""
    return windows < BOUNDED_FROM * block


def identity(means: np.ndarray) -> np.ndarray:
    """The function of one series that is its mean."""
    return means[..., 0]


@dataclass(frozen=True, kw_only=True)
class Found:
    """`critical` standard errors lie on either side of the value."""

    value: float
    half: float
    critical: float
    p_value: float
    confidence: float
    windows: int
    block: int
    seeds: int

    @property
    def blocks(self) -> float:
        return self.windows / self.block

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.half)

    @property
    def note(self) -> str:
        if self.blocks < 4:
            return f"{self.windows} windows hold fewer than 4 blocks of {self.block}"
        if math.isfinite(self.value) and not self.bounded:
            return "too rare to be bounded"
        if self.blocks >= FEWEST_BLOCKS:
            return ""
        return f"{self.blocks:.1f} blocks of {self.block} windows: too few for a p-value"

    @property
    def interval(self) -> Interval:
        return Interval(
            value=self.value if math.isfinite(self.value) else None,
            low=self.value - self.half if self.bounded else None,
            high=self.value + self.half if self.bounded else None,
            confidence=self.confidence,
            windows=self.windows,
            block=self.block,
            seeds=self.seeds,
            note=self.note,
        )


def bootstrap(
    values: Float[np.ndarray, "seed window k"],
    function: Function,
    block: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> Found:
    """A `function` of the means of paired series, blocks of windows drawn, and seeds from five on.

    Symmetric bounds from the studentised distance (Hall 1992); the standard error is that of the
    function's linear part. With two to four seeds the distance is Student's instead, whatever
    `resamples`, with the degrees of freedom of Welch (1947) and Satterthwaite (1946). Raises
    S2KDError for fewer than four blocks.
    """
    seeds, count, _ = values.shape
    if block < 1 or is_too_short(count, block):
        raise S2KDError(
            f"paired comparison: {count} windows hold fewer than {BOUNDED_FROM} blocks of {block}; "
            "score more windows or take a shorter block"
        )
    centre = values.mean((0, 1))
    value = float(function(centre[None])[0])
    about = {"confidence": confidence, "windows": count, "block": block, "seeds": seeds}
    if not math.isfinite(value):
        return Found(value=value, half=math.nan, critical=math.nan, p_value=math.nan, **about)
    gradient = _gradient(function, centre[None])[0]
    parts = _errors(values @ gradient, block)
    error = math.hypot(*parts)
    nothing = 1e-12 if function is identity else 1e-9  # what differences leave of it
    nothing *= max(1e-300, float((np.abs(values) @ np.abs(gradient)).max()))
    if error <= nothing:
        p_value = 1.0 if abs(value) <= nothing else 1 / (resamples + 1)
        return Found(value=value, half=0.0, critical=0.0, p_value=p_value, **about)
    random = np.random.default_rng(seed)
    if 1 < seeds < SEEDS_TO_DRAW:
        freedom = error**4 / (parts[0] ** 4 / (count / block - 1) + parts[1] ** 4 / (seeds - 1))
        scaled = np.abs(random.standard_t(freedom, 100_000))
    else:
        means = np.stack([block_means(one, block) for one in values])
        scaled = _studentised(means, function, value, math.ceil(count / block), resamples, random)
    # a number in place of infinity, which quantiles cannot interpolate
    critical = float(np.quantile(np.minimum(scaled, 1e150), confidence))
    critical = critical if critical < 1e100 else math.inf
    p_value = (1 + int((scaled >= abs(value) / error).sum())) / (len(scaled) + 1)
    half = critical * error
    return Found(value=value, half=half, critical=critical, p_value=p_value, **about)


def _gradient(
    function: Function, at: Float[np.ndarray, "*resample k"]
) -> Float[np.ndarray, "*resample k"]:
    """By central differences, small against each mean."""
    if function is identity:
        return np.ones_like(at)
    step = 1e-5 * np.maximum(np.abs(at), 1e-3 * np.abs(at).max(-1, keepdims=True))
    step = np.maximum(step, 1e-300)
    found = np.empty_like(at)
    for j in range(at.shape[-1]):
        change = np.zeros_like(at)
        change[..., j] = step[..., j]
        found[..., j] = (function(at + change) - function(at - change)) / (2 * step[..., j])
    return found


def block_means(gain: np.ndarray, block: int) -> np.ndarray:
    """The mean of every run of `block` windows (first axis), the end joined to the beginning."""
    nothing = np.zeros((1, *gain.shape[1:]))
    sums = np.cumsum(np.concatenate([nothing, gain, gain[: block - 1]]), axis=0)
    return (sums[block:] - sums[:-block]) / block


def linear_part(
    values: Float[np.ndarray, "seed window k"], function: Function
) -> Float[np.ndarray, "seed window"]:
    """What each window adds to the `function` of the means, to first order."""
    return values @ _gradient(function, values.mean((0, 1))[None])[0]


def _errors(linear: Float[np.ndarray, "seed window"], block: int) -> tuple[float, float]:
    """Standard errors of the mean over windows, and over seeds where there are several."""
    error = standard_error(linear.mean(0), block)
    if len(linear) == 1:
        return error, 0.0
    return error, math.sqrt(linear.mean(1).var(ddof=1) / len(linear))


def standard_error(gain: np.ndarray, block: int) -> float:
    """Of the mean of dependent windows, from the scatter of block means.

    A block cuts the dependence at its edges, so its variance falls short in proportion to
    1 / block; the variance at half the length shows by how much (the flat-top window of Politis
    and Romano 1995). Without this, 95 % intervals covered 86 % for AR(1) at 0.7 and blocks of 5.
    """

    def variance(length: int) -> float:
        # overlapping means scatter round their own average: n / length − 1 degrees of freedom
        return float(block_means(gain, length).var()) / (len(gain) / length - 1)

    whole = variance(block)
    return math.sqrt(max(whole, 2 * whole - variance(block // 2)) if block > 1 else whole)


def _studentised(
    means: Float[np.ndarray, "seed window k"],
    function: Function,
    value: float,
    drawn: int,
    resamples: int,
    random: np.random.Generator,
) -> Float[np.ndarray, " resample"]:
    """|value − truth| in standard errors, the truth being the sample's own value."""
    parts, seeds = [], len(means)
    size = max(1, 2_000_000 // (drawn * means.shape[2] * seeds))
    for first in range(0, resamples, size):
        shape = (min(size, resamples - first), drawn)
        sample = means[:, random.integers(0, means.shape[1], shape)]
        if seeds == 1:
            blocks, between = sample[0], None
        else:
            chosen = random.integers(0, seeds, (len(sample[0]), seeds))
            share = (chosen[..., None] == np.arange(seeds)).mean(1)
            blocks = np.einsum("rs,srbk->rbk", share, sample)
            between = sample.mean(2), share
        parts.append(_offs(blocks, between, function, value))
    return np.concatenate(parts)


def _offs(
    blocks: Float[np.ndarray, "resample block k"],
    between: tuple[np.ndarray, np.ndarray] | None,
    function: Function,
    value: float,
) -> Float[np.ndarray, " resample"]:
    """One studentised distance a resample; infinite where it has no spread or no value."""
    centre = blocks.mean(1)
    gradient = _gradient(function, centre)
    variance = np.einsum("rbk,rk->rb", blocks, gradient).var(1, ddof=1) / blocks.shape[1]
    if between is not None:
        by_seed, share = between
        one = np.einsum("srk,rk->rs", by_seed, gradient)
        apart = one - (share * one).sum(1, keepdims=True)
        variance += (share * apart**2).sum(1) / (share.shape[1] - 1)
    error = np.sqrt(variance)
    off = np.abs(function(centre) - value)
    # a resample of one block again and again has no spread: as extreme as can be
    usable = np.isfinite(off) & (error > 0)
    return np.divide(off, error, out=np.full(len(off), np.inf), where=usable)
