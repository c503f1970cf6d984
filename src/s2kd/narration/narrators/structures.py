"""Facts that need a domain's own eyes: a fire's plume, the balance of arrivals and departures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from s2kd.core.types import Past
from s2kd.narration.narrators.measures import Sectors, level
from s2kd.narration.narrators.words import Third

Clips = Float[np.ndarray, "window past height width"]


@dataclass(frozen=True, kw_only=True)
class Plume:
    """The hot cells (above the training 95 % quantile) of the mean of the last quarter of frames.

    `top` is the height of the highest (0 bottom, 1 top), `spread` the widths they cover and
    `area` the cells they cover, all as shares of the domain. `tilt` is cells to the right for each
    cell up. `heat` is the excess over the training median summed over the domain, last third of
    the frames over first third, less 1. All are 0 where nothing is hot.
    """

    top: float
    spread: float
    area: float
    tilt: float
    heat: float


def plumes(pasts: Sequence[Past], channel: int) -> list[Plume]:
    """The plume of each past, in that channel."""
    known = pasts[0].statistics
    exists = pasts[0].grid.exists
    clips = np.stack([past.frames[:, channel] for past in pasts]).astype(np.float32)
    steps, height = clips.shape[1:3]
    recent = clips[:, -max(1, steps // 4) :].mean(1)
    hot = (recent > level(known, 0.95)[channel]) & exists
    rows = hot.any(2)
    top = np.where(rows.any(1), (height - rows.argmax(1)) / height, 0.0)
    excess = np.where(exists, np.maximum(clips - level(known, 0.5)[channel], 0), 0)
    columns = zip(
        top,
        hot.any(1).mean(1),
        hot.mean((1, 2)),
        tilt(np.where(hot, recent - level(known, 0.5)[channel], np.float32(0))),
        heat_change(excess.sum((2, 3))),
        strict=True,
    )
    names = ("top", "spread", "area", "tilt", "heat")
    return [Plume(**dict(zip(names, map(float, one), strict=True))) for one in columns]


def tilt(weight: Float[np.ndarray, "window height width"]) -> Float[np.ndarray, " window"]:
    """Weighted regression of column on height: cov(column, up) / var(up); 0 where flat or empty."""
    height, width = weight.shape[1:]
    total = np.maximum(weight.sum((1, 2)), 1e-12)
    up = height - 1 - np.arange(height)[:, None] + np.zeros((1, width))
    column = np.arange(width)[None] + np.zeros((height, 1))
    mean_up = (weight * up).sum((1, 2)) / total
    mean_column = (weight * column).sum((1, 2)) / total
    away_up = up - mean_up[:, None, None]
    spread = (weight * away_up**2).sum((1, 2)) / total
    both = (weight * away_up * (column - mean_column[:, None, None])).sum((1, 2)) / total
    return np.where(spread > 1e-6, both / np.maximum(spread, 1e-6), 0.0)


def heat_change(heat: Float[np.ndarray, "window past"]) -> Float[np.ndarray, " window"]:
    """mean(last third) / mean(first third) - 1; 0 where there was none."""
    part = max(1, heat.shape[1] // 3)
    first, last = heat[:, :part].mean(1), heat[:, -part:].mean(1)
    return np.where(first > 0, last / np.maximum(first, 1e-12) - 1, 0.0)


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Arrivals less departures in the last frame: by third, over all movements of the domain."""

    gain: float
    gain_at: Third
    loss: float
    loss_at: Third


def balances(pasts: Sequence[Past], arrive: int, depart: int) -> list[Balance]:
    """The balance of each past: (in - out) a third / Σ (in + out)."""
    exists = pasts[0].grid.exists
    now = np.where(exists, np.stack([past.frames[-1] for past in pasts]), 0).astype(np.float32)
    size = np.maximum(np.abs(now[:, [arrive, depart]]).sum((1, 2, 3)), 1e-12)
    sectors = Sectors(exists)
    net = sectors.total((now[:, arrive] - now[:, depart])[:, None]) / size[:, None, None, None]
    gain, gain_at = sectors.extreme(net, 1.0)
    loss, loss_at = sectors.extreme(net, -1.0)
    return [
        Balance(gain=g, gain_at=tuple(ga), loss=s, loss_at=tuple(la))
        for g, ga, s, la in zip(
            gain[:, 0].tolist(),
            gain_at[:, 0].tolist(),
            loss[:, 0].tolist(),
            loss_at[:, 0].tolist(),
            strict=True,
        )
    ]
