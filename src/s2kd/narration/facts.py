"""Facts about the past frames of a window, in numbers: the material of every narrative.

Everything here is computed from `Past.frames` and training statistics alone, for a batch of
windows at once. "σ" is the channel's training standard deviation. Cells are (row, column);
row 0 is the northernmost or topmost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from s2kd.core.types import Domain, GridSpec, Past, S2KDError, Statistics
from s2kd.narration import measures as m
from s2kd.narration.words import Kind, Third, kinds_of, labels_of

Clips = Float[np.ndarray, "window past height width"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One channel of one window.

    Of the last frame, in the channel's unit: `mean` (area-weighted), `maximum`, `minimum`;
    `ratio` is `mean` over the training mean; `extreme` and `extreme_low` are the shares of cells
    above the training quantile 0.98 and below 0.02.

    In σ: `anomaly` (mean less training mean), `trend` (least squares over the whole past),
    `recent` (last frame less middle frame), `rise` and `fall` (largest and smallest change of a
    third from first to last frame), `ridge` and `trough` (largest and smallest departure of a
    third from the mean of its rows), `front` (mean gradient of the steepest third times
    the root of its cells: the change across it, whatever the resolution).
    `growth` is the trend over the mean of the past, for quantities that are never negative.

    `waves` is the strongest wavenumber along the rows and `wave_share` its share of their
    variance. `east` and `south` are the movement in cells per frame, `coherence` the correlation
    that supports it; `drift_east` and `drift_south` are how far the centre of mass moved over the
    whole past, in cells.
    """

    channel: str
    unit: str
    mean: float
    ratio: float
    anomaly: float
    growth: float
    trend: float
    recent: float
    maximum: float
    maximum_at: tuple[int, int]
    minimum: float
    minimum_at: tuple[int, int]
    extreme: float
    extreme_low: float
    rise: float
    rise_at: Third
    fall: float
    fall_at: Third
    ridge: float
    ridge_at: Third
    trough: float
    trough_at: Third
    front: float
    front_at: Third
    waves: int
    wave_share: float
    east: float
    south: float
    coherence: float
    drift_east: float
    drift_south: float


def facts(pasts: Sequence[Past]) -> list[tuple[Facts, ...]]:
    """One `Facts` per channel for every past; all must share grid, length and statistics.

    Raises:
        S2KDError: a value is not finite in a cell that exists.
    """
    grid, train_stats = pasts[0].grid, pasts[0].statistics
    physical = np.stack([past.frames for past in pasts]).astype(np.float32, copy=False)
    columns = measure(physical, grid, train_stats)
    windows = zip(*columns.values(), strict=True)
    return [
        tuple(
            Facts(channel=channel, unit=unit, **dict(zip(columns, values, strict=True)))
            for channel, unit, *values in zip(grid.channels, grid.units, *window, strict=True)
        )
        for window in windows
    ]


def measure(physical: m.Stack, grid: GridSpec, train_stats: Statistics) -> dict[str, list]:
    """Every fact but channel and unit, each as nested lists [window][channel]."""
    exists, weights = grid.exists, m.area_weights(grid)
    scaled = m.standardised(physical, train_stats, exists)
    means = np.matmul(scaled.reshape(*scaled.shape[:3], -1), weights.ravel())
    if not np.isfinite(means).all():
        window, _, channel = np.argwhere(~np.isfinite(means))[0]
        raise S2KDError(
            f"narrator: {grid.channels[channel]!r} has values that are not finite in window "
            f"{window} of the batch; fill them when the data is read"
        )
    first, last, sectors = scaled[:, 0], scaled[:, -1], m.Sectors(exists)
    anomaly = means[:, -1].astype(np.float64)
    mean, std = np.array(train_stats.mean), np.array(train_stats.std)
    now, fitted = anomaly * std + mean, m.slope(means)
    columns: dict[str, np.ndarray | list] = {
        "mean": now,
        "ratio": m.relative(now, mean),
        "anomaly": anomaly,
        "growth": m.relative(fitted * std, means.mean(1) * std + mean),
        "trend": fitted,
        "recent": means[:, -1] - means[:, (means.shape[1] - 1) // 2],
        "extreme": m.share(physical[:, -1] > m.level(train_stats, 0.98), exists),
        "extreme_low": m.share(physical[:, -1] < m.level(train_stats, 0.02), exists),
    }
    for name, sign in (("maximum", 1.0), ("minimum", -1.0)):
        columns[name], columns[f"{name}_at"] = m.extreme_cell(physical[:, -1], exists, sign)
    change, bent = sectors.mean(last - first), sectors.mean(m.row_departure(last, exists))
    side = np.float32((grid.height * grid.width) ** 0.5 / 3)  # of a third, in cells
    steep = sectors.mean(m.gradient(last, exists)) * side
    for name, field, sign in (
        ("rise", change, 1.0),
        ("fall", change, -1.0),
        ("ridge", bent, 1.0),
        ("trough", bent, -1.0),
        ("front", steep, 1.0),
    ):
        columns[name], columns[f"{name}_at"] = sectors.extreme(field, sign)
    columns["waves"], columns["wave_share"] = m.waves(m.row_departure(last, exists))
    interval = m.change_interval(scaled.shape[1], grid.step_seconds)
    columns["east"], columns["south"], columns["coherence"] = m.motion(scaled, interval)
    columns["drift_east"], columns["drift_south"] = m.drift(scaled)
    return {name: plain(values) for name, values in columns.items()}


def plain(values: np.ndarray) -> list:
    """Nested lists of Python numbers; cells and thirds as tuples."""
    if values.ndim == 3:
        return [[tuple(at) for at in window] for window in values.tolist()]
    return values.tolist()


@dataclass(frozen=True, kw_only=True)
class Plume:
    """The hot cells (above the training 95 % quantile) of the mean of the last quarter of frames.

    `top` is the height of the highest (0 bottom, 1 top), `spread` the widths they cover and
    `area` the cells they cover, all as shares of the domain. `tilt` is cells to the right per
    cell up. `heat` is the excess over the training median summed over the domain, last third of
    the frames over first third, less 1. All are 0 where nothing is hot.
    """

    top: float
    spread: float
    area: float
    tilt: float
    heat: float


def plumes(pasts: Sequence[Past], channel: int) -> list[Plume]:
    """The plume of each past, in one channel."""
    train_stats, exists = pasts[0].statistics, pasts[0].grid.exists
    clips = np.stack([past.frames[:, channel] for past in pasts]).astype(np.float32)
    steps, height = clips.shape[1:3]
    recent = clips[:, -max(1, steps // 4) :].mean(1)
    hot = (recent > m.level(train_stats, 0.95)[channel]) & exists
    rows = hot.any(2)
    top = np.where(rows.any(1), (height - rows.argmax(1)) / height, 0.0)
    excess = np.where(exists, np.maximum(clips - m.level(train_stats, 0.5)[channel], 0), 0)
    columns = zip(
        top,
        hot.any(1).mean(1),
        hot.mean((1, 2)),
        tilt(np.where(hot, recent - m.level(train_stats, 0.5)[channel], np.float32(0))),
        heat_change(excess.sum((2, 3))),
        strict=True,
    )
    names = ("top", "spread", "area", "tilt", "heat")
    return [Plume(**dict(zip(names, map(float, values), strict=True))) for values in columns]


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
    covariance = (weight * away_up * (column - mean_column[:, None, None])).sum((1, 2)) / total
    return np.where(spread > 1e-6, covariance / np.maximum(spread, 1e-6), 0.0)


def heat_change(heat: Float[np.ndarray, "window past"]) -> Float[np.ndarray, " window"]:
    """mean(last third) / mean(first third) - 1; 0 where the first third has no heat."""
    part = max(1, heat.shape[1] // 3)
    first, last = heat[:, :part].mean(1), heat[:, -part:].mean(1)
    return np.where(first > 0, last / np.maximum(first, 1e-12) - 1, 0.0)


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Arrivals less departures in the last frame: per third, over all movements of the domain."""

    gain: float
    gain_at: Third
    loss: float
    loss_at: Third


def balances(pasts: Sequence[Past], arrive: int, depart: int) -> list[Balance]:
    """The balance of each past: (in - out) per third / Σ (in + out)."""
    exists = pasts[0].grid.exists
    now = np.where(exists, np.stack([past.frames[-1] for past in pasts]), 0).astype(np.float32)
    size = np.maximum(np.abs(now[:, [arrive, depart]]).sum((1, 2, 3)), 1e-12)
    sectors = m.Sectors(exists)
    net = sectors.total((now[:, arrive] - now[:, depart])[:, None]) / size[:, None, None, None]
    gain, gain_at = sectors.extreme(net, 1.0)
    loss, loss_at = sectors.extreme(net, -1.0)
    columns = zip(*(plain(values) for values in (gain, gain_at, loss, loss_at)), strict=True)
    return [Balance(gain=g, gain_at=ga, loss=s, loss_at=la) for (g,), (ga,), (s,), (la,) in columns]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All facts of one window: per channel, of its plume or balance, and the setting."""

    facts: tuple[Facts, ...]
    kinds: tuple[Kind, ...]
    labels: tuple[str, ...]
    grid: GridSpec
    domain: Domain
    season: str | None = None
    part_of_day: str | None = None
    context: tuple[str, ...] = ()
    plume: Plume | None = None
    balance: Balance | None = None

    @property
    def channels(self) -> list[tuple[Facts, Kind, str]]:
        """Facts, kind and label of each channel."""
        return list(zip(self.facts, self.kinds, self.labels, strict=True))

    def select(self, numbers: Sequence[int]) -> "Scene":
        """The same window with some of its channels."""
        return replace(
            self,
            facts=tuple(self.facts[i] for i in numbers),
            kinds=tuple(self.kinds[i] for i in numbers),
            labels=tuple(self.labels[i] for i in numbers),
        )


def scenes(pasts: Sequence[Past]) -> list[Scene]:
    """The scene of every past; all must share grid, length, domain and statistics."""
    grid, domain = pasts[0].grid, pasts[0].domain
    kinds, labels = kinds_of(grid, domain), labels_of(grid, domain)
    plume: Sequence[Plume | None] = [None] * len(pasts)
    balance: Sequence[Balance | None] = [None] * len(pasts)
    hot = hot_channel(kinds)
    if domain == "fire" and hot is not None:
        plume = plumes(pasts, hot)
    if {"arrivals", "departures"} <= set(kinds):
        balance = balances(pasts, kinds.index("arrivals"), kinds.index("departures"))
    return [
        Scene(
            facts=measured,
            kinds=kinds,
            labels=labels,
            grid=grid,
            domain=domain,
            season=past.season,
            part_of_day=past.part_of_day,
            context=past.context,
            plume=window_plume,
            balance=window_balance,
        )
        for past, measured, window_plume, window_balance in zip(
            pasts, facts(pasts), plume, balance, strict=True
        )
    ]


def hot_channel(kinds: tuple[Kind, ...]) -> int | None:
    """The channel that shows a fire's plume: temperature, else heat release, else smoke."""
    return next((kinds.index(k) for k in ("temperature", "heat", "smoke") if k in kinds), None)
