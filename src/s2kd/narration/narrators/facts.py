"""What a window's past shows, in numbers: the facts that narratives are made from.

Everything here is computed from `Past.frames` and training statistics alone, for a whole batch
of windows at once. "σ" is the channel's training standard deviation. Cells are (row, column);
row 0 is the northernmost or topmost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s2kd.core.types import GridSpec, Past, S2KDError, Statistics
from s2kd.narration.narrators.measures import (
    Sectors,
    Stack,
    area_weights,
    change_interval,
    drift,
    extreme_cell,
    gradient,
    level,
    motion,
    relative,
    row_departure,
    share,
    slope,
    standardised,
    waves,
    zonal_share,
)
from s2kd.narration.narrators.words import Third


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One channel of one window.

    Of the last frame, in the channel's unit: `mean` (area-weighted), `maximum`, `minimum`;
    `ratio` is `mean` over the training mean; `high`, `low`, `extreme`, `extreme_low` are the
    shares of cells above the training quantile 0.9, below 0.1, above 0.98, below 0.02.

    In σ: `anomaly` (mean less training mean), `trend` (least squares over the whole past),
    `recent` (last frame less middle frame), `rise` and `fall` (largest and smallest change of a
    third from first to last frame), `ridge` and `trough` (largest and smallest departure of a
    third from the mean of its rows), `front` (mean gradient of the steepest third times
    the root of its cells: the change across it, whatever the resolution).
    `growth` is the trend over the mean of the past, for quantities that are never negative.

    `waves` is the strongest wavenumber along the rows and `wave_share` its share of their
    variance; `zonal` is the share of all variance that lies between rows. `east` and `south` are
    the movement in cells a frame, `coherence` the correlation that supports it; `drift_east` and
    `drift_south` are how far the centre of mass moved over the whole past, in cells.
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
    high: float
    low: float
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
    zonal: float
    east: float
    south: float
    coherence: float
    drift_east: float
    drift_south: float


def facts(pasts: Sequence[Past]) -> list[tuple[Facts, ...]]:
    """One `Facts` a channel for every past; all must have one grid, length and statistics.

    A value that is not finite in a cell that exists is an S2KDError.
    """
    grid, known = pasts[0].grid, pasts[0].statistics
    physical = np.stack([past.frames for past in pasts]).astype(np.float32, copy=False)
    columns = measure(physical, grid, known)
    named = list(columns)
    windows = zip(*(columns[name] for name in named), strict=True)
    return [
        tuple(
            Facts(channel=channel, unit=unit, **dict(zip(named, values, strict=True)))
            for channel, unit, *values in zip(grid.channels, grid.units, *window, strict=True)
        )
        for window in windows
    ]


def measure(physical: Stack, grid: GridSpec, known: Statistics) -> dict[str, list]:
    """Every fact but the names, each as nested lists [window][channel]."""
    exists, weights = grid.exists, area_weights(grid)
    scaled = standardised(physical, known, exists)
    means = np.matmul(scaled.reshape(*scaled.shape[:3], -1), weights.ravel())
    if not np.isfinite(means).all():
        window, _, channel = np.argwhere(~np.isfinite(means))[0]
        raise S2KDError(
            f"narrator: {grid.channels[channel]!r} has values that are not finite in window "
            f"{window} of the batch; fill them when the data is read"
        )
    first, last, sectors = scaled[:, 0], scaled[:, -1], Sectors(exists)
    anomaly = means[:, -1].astype(np.float64)
    mean, std = np.array(known.mean), np.array(known.std)
    now, fitted = anomaly * std + mean, slope(means)
    out: dict[str, np.ndarray | list] = {
        "mean": now,
        "ratio": relative(now, mean),
        "anomaly": anomaly,
        "growth": relative(fitted * std, means.mean(1) * std + mean),
        "trend": fitted,
        "recent": means[:, -1] - means[:, (means.shape[1] - 1) // 2],
        "high": share(physical[:, -1] > level(known, 0.9), exists),
        "low": share(physical[:, -1] < level(known, 0.1), exists),
        "extreme": share(physical[:, -1] > level(known, 0.98), exists),
        "extreme_low": share(physical[:, -1] < level(known, 0.02), exists),
    }
    for name, sign in (("maximum", 1.0), ("minimum", -1.0)):
        out[name], out[f"{name}_at"] = extreme_cell(physical[:, -1], exists, sign)
    change, bent = sectors.mean(last - first), sectors.mean(row_departure(last, exists))
    steep = sectors.mean(gradient(last, exists)) * np.float32((grid.height * grid.width) ** 0.5 / 3)
    for name, field, sign in (
        ("rise", change, 1.0),
        ("fall", change, -1.0),
        ("ridge", bent, 1.0),
        ("trough", bent, -1.0),
        ("front", steep, 1.0),
    ):
        out[name], out[f"{name}_at"] = sectors.extreme(field, sign)
    out["waves"], out["wave_share"] = waves(row_departure(last, exists))
    out["zonal"] = zonal_share(last, exists)
    interval = change_interval(scaled.shape[1], grid.step_seconds)
    out["east"], out["south"], out["coherence"] = motion(scaled, interval)
    out["drift_east"], out["drift_south"] = drift(scaled)
    return {name: plain(values) for name, values in out.items()}


def plain(values: np.ndarray) -> list:
    """Nested lists of Python numbers, places as tuples."""
    if values.ndim == 3:
        return [[tuple(at) for at in window] for window in values.tolist()]
    return values.tolist()
