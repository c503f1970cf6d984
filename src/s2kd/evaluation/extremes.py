"""Verification of rare events: values above a high, or below a low, training quantile."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from s2kd.core.types import S2KDError, Statistics

Field = Float[Tensor, "*lead channel height width"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """Values beyond one training quantile: above it where `probability` > 0.5, else below it.

    `thresholds` holds one value a channel, in the channel's unit.
    """

    probability: float
    thresholds: tuple[float, ...]

    @property
    def name(self) -> str:
        """`above 95 %`, `below 5 %`."""
        return f"{'above' if self.probability > 0.5 else 'below'} {100 * self.probability:g} %"


def events(known: Statistics, *, tail: float = 0.1) -> tuple[Event, ...]:
    """The training quantiles in the outer `tail` on either side, as events."""
    return tuple(
        Event(probability=p, thresholds=values)
        for p, values in sorted(known.quantiles.items())
        if min(p, 1 - p) <= tail + 1e-9
    )


@dataclass(frozen=True, kw_only=True)
class Contingency:
    """How often an event was forecast and seen, counted over cells and frames."""

    hits: int
    misses: int
    false_alarms: int
    correct_negatives: int

    def __add__(self, other: "Contingency") -> "Contingency":
        return Contingency(
            hits=self.hits + other.hits,
            misses=self.misses + other.misses,
            false_alarms=self.false_alarms + other.false_alarms,
            correct_negatives=self.correct_negatives + other.correct_negatives,
        )

    @property
    def csi(self) -> float:
        """Critical success index: hits / (hits + misses + false alarms); 1 is best."""
        return _ratio(self.hits, self.hits + self.misses + self.false_alarms)

    @property
    def pod(self) -> float:
        """Probability of detection: hits / (hits + misses); 1 is best."""
        return _ratio(self.hits, self.hits + self.misses)

    @property
    def far(self) -> float:
        """False alarm ratio: false alarms / (hits + false alarms); 0 is best."""
        return _ratio(self.false_alarms, self.hits + self.false_alarms)

    @property
    def bias(self) -> float:
        """Frequency bias: events forecast / events seen; 1 is best, below 1 too few."""
        return _ratio(self.hits + self.false_alarms, self.hits + self.misses)

    @property
    def sedi(self) -> float:
        """Symmetric extremal dependence index (Ferro and Stephenson 2011); 1 is best.

        [ln F − ln H − ln(1−F) + ln(1−H)] / [ln F + ln H + ln(1−F) + ln(1−H)] with hit rate H and
        false alarm rate F (not the ratio). Where a count is 0, half a case is added to all four,
        or a perfect forecast would have no score. NaN where the event was never, or always, seen.
        """
        if not self.hits + self.misses or not self.false_alarms + self.correct_negatives:
            return math.nan
        counts = (self.hits, self.misses, self.false_alarms, self.correct_negatives)
        hits, misses, alarms, negatives = (n + 0.5 * (0 in counts) for n in counts)
        h, f = hits / (hits + misses), alarms / (alarms + negatives)
        logs = np.log([f, h, 1 - f, 1 - h])
        return float((logs @ [1, -1, -1, 1]) / logs.sum())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def contingency(
    forecast: Field, truth: Field, event: Event, *, mask: Bool[Tensor, "height width"] | None = None
) -> tuple[Contingency, ...]:
    """Counts of one event for each channel, pooled over frames and existing cells."""
    thresholds = torch.tensor(event.thresholds, dtype=truth.dtype, device=truth.device)
    if len(thresholds) != truth.shape[-3]:
        raise S2KDError(
            f"event {event.name!r} has {len(thresholds)} thresholds, the field has "
            f"{truth.shape[-3]} channels"
        )
    sign = 1 if event.probability > 0.5 else -1
    limit = sign * thresholds[:, None, None]
    said, seen = sign * forecast > limit, sign * truth > limit
    frames = truth.numel() // math.prod(truth.shape[-3:])
    cells = frames * (math.prod(truth.shape[-2:]) if mask is None else int(mask.sum()))
    if mask is not None:
        said, seen = said & mask.to(said.device), seen & mask.to(seen.device)

    def count(cases: Tensor) -> list[int]:
        return cases.movedim(-3, 0).flatten(1).sum(1).tolist()

    return tuple(
        Contingency(
            hits=both,
            misses=real - both,
            false_alarms=claimed - both,
            correct_negatives=cells - real - claimed + both,
        )
        for both, real, claimed in zip(count(said & seen), count(seen), count(said), strict=True)
    )


def relative_quantile_error(
    forecast: Field,
    truth: Field,
    *,
    floor: Float[Tensor, " channel"],
    mask: Bool[Tensor, "height width"] | None = None,
    tail: float = 0.1,
    points: int = 50,
) -> Float[Tensor, "*lead channel"]:
    """Mean of (Q_forecast − Q_truth) / |Q_truth| over each frame's high quantiles; 0 is best.

    Below 0 the extremes are underestimated. The quantiles are 1 − p for `points` values of p
    spaced evenly in the logarithm from `tail` down to 10⁻⁴, but never finer than one cell
    (Pathak et al. 2022, FourCastNet). |Q_truth| below `floor` (a scale of each channel, such as
    its training standard deviation) counts as that: the ratio is undefined near 0.
    """
    one, other = (_existing(field, mask) for field in (forecast, truth))
    cells = other.shape[-1]
    finest = max(1e-4, 1 / cells)
    p = torch.logspace(math.log10(finest), math.log10(max(tail, finest)), points)
    rank = (p.to(other) * (cells - 1)).clamp(max=cells - 1)
    keep = min(cells, int(rank.max().ceil()) + 1)
    high, high_truth = _at(one.topk(keep).values, rank), _at(other.topk(keep).values, rank)
    scale = torch.maximum(high_truth.abs(), floor.to(other)[:, None])
    return ((high - high_truth) / scale).mean(-1)


def _existing(field: Tensor, mask: Tensor | None) -> Tensor:
    return field.flatten(-2) if mask is None else field[..., mask.to(field.device)]


def _at(descending: Tensor, rank: Tensor) -> Tensor:
    """Values at fractional places of a sorted last axis, by linear interpolation."""
    below = rank.floor().long().clamp(max=descending.shape[-1] - 1)
    above = (below + 1).clamp(max=descending.shape[-1] - 1)
    return torch.lerp(descending[..., below], descending[..., above], rank - below)
