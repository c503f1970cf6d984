"""Whether one method is better than another on the same test windows, or was lucky."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from s2kd.types import S2KDError


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Mean difference of two methods' errors (first − second; below 0 the first is better).

    `low` and `high` bound it with the stated `confidence`; `p_value` is two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float
    confidence: float
    windows: int
    block: int

    def to_dict(self) -> dict[str, float | int]:
        """As plain JSON."""
        return asdict(self)


def default_block(windows: int, *, overlap: int) -> int:
    """A block length that spans dependent windows: twice `overlap`, at most a sixth of them all.

    `overlap` is the number of consecutive windows that share frames: (past + lead) / stride.
    """
    return max(1, min(2 * overlap, windows // 6))


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
    interval is symmetric, and `p_value` < 1 − confidence exactly where it leaves out 0. Errors of
    several seeds are averaged per window before.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape:
        raise S2KDError(
            f"paired comparison: {len(first)} windows against {len(second)}; "
            "both methods must be scored on the same ones"
        )
    count = len(first)
    if block < 1 or count < 4 * block:
        raise S2KDError(
            f"paired comparison: {count} windows hold fewer than 4 blocks of {block}; "
            "score more windows or take a shorter block"
        )
    gain = first - second
    if not np.isfinite(gain).all():
        raise S2KDError("paired comparison: an error is not finite")
    means, drawn, mean = _block_means(gain, block), math.ceil(count / block), float(gain.mean())
    error = _standard_error(gain, block)
    if error <= 1e-12 * max(1e-300, float(np.abs(gain).max())):
        same = mean == 0
        p_value = 1.0 if same else 1 / (resamples + 1)
        half = 0.0
    else:
        scaled = _studentised(means, mean, drawn, resamples, np.random.default_rng(seed))
        half = float(np.quantile(scaled, confidence)) * error
        p_value = (1 + int((scaled >= abs(mean) / error).sum())) / (resamples + 1)
    return Comparison(
        difference=mean,
        low=mean - half,
        high=mean + half,
        p_value=p_value,
        confidence=confidence,
        windows=count,
        block=block,
    )


def _block_means(gain: np.ndarray, block: int) -> np.ndarray:
    """The mean of every run of `block` windows, the end joined to the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], gain, gain[: block - 1]]))
    return (sums[block:] - sums[:-block]) / block


def _standard_error(gain: np.ndarray, block: int) -> float:
    """Of the mean of dependent windows, from the scatter of block means.

    A block cuts the dependence at its edges, so its variance falls short in proportion to
    1 / block; the variance at half the length shows by how much (the flat-top window of Politis
    and Romano 1995). Without this, 95 % intervals covered 86 % for AR(1) at 0.7 and blocks of 5.
    """

    def variance(length: int) -> float:
        # overlapping means scatter round their own average: n / length − 1 degrees of freedom
        return float(_block_means(gain, length).var()) / (len(gain) / length - 1)

    whole = variance(block)
    return math.sqrt(max(whole, 2 * whole - variance(block // 2)) if block > 1 else whole)


def _studentised(
    means: np.ndarray, mean: float, drawn: int, resamples: int, random: np.random.Generator
) -> np.ndarray:
    """(resamples,) |mean − truth| in standard errors, the truth being the sample's own mean."""
    parts = []
    size = max(1, 2_000_000 // drawn)
    for first in range(0, resamples, size):
        shape = (min(size, resamples - first), drawn)
        sample = means[random.integers(0, len(means), shape)]
        error = sample.std(1, ddof=1) / math.sqrt(drawn)
        off = np.abs(sample.mean(1) - mean)
        # a resample of one block again and again has no spread: as extreme as can be
        parts.append(np.divide(off, error, out=np.full(len(off), np.inf), where=error > 0))
    return np.concatenate(parts)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being many (Holm 1979): the chance of any false claim is kept."""
    count = len(p_values)
    adjusted, highest = [0.0] * count, 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def compare(
    errors: Mapping[str, Float[np.ndarray, "seed window"]],
    *,
    reference: str,
    block: int,
    resamples: int = 4000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[dict[str, object]]:
    """Every method against `reference`, seeds averaged per window, p-values adjusted by `holm`.

    One dict a method: the fields of `Comparison`, `method`, `reference`, `seeds` and `p_holm`.
    What varies is the test window; a spread over seeds is a different question (`summary_rows`).
    """
    if reference not in errors:
        raise S2KDError(f"no errors of {reference!r} to compare with (there are {list(errors)})")
    base = errors[reference].mean(0)
    rows: list[dict[str, object]] = []
    for name, ones in errors.items():
        if name != reference:
            found = paired_bootstrap(
                ones.mean(0),
                base,
                block=block,
                resamples=resamples,
                confidence=confidence,
                seed=seed,
            )
            about = {"method": name, "reference": reference, "seeds": len(ones)}
            rows.append({**about, **found.to_dict()})
    adjusted = holm([float(row["p_value"]) for row in rows])  # type: ignore[arg-type]
    return [{**row, "p_holm": p} for row, p in zip(rows, adjusted, strict=True)]
