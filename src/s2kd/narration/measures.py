"""Formulas behind the facts of a narrative, for a batch of windows and all channels at once.

"σ" is the channel's training standard deviation; row 0 is the northernmost or topmost.
"""

import numpy as np
from jaxtyping import Float, Int

from s2kd.core.types import GridSpec, S2KDError, Statistics

Stack = Float[np.ndarray, "window past channel height width"]
Maps = Float[np.ndarray, "window channel height width"]
Scalars = Float[np.ndarray, "window channel"]
Cells = Int[np.ndarray, "window channel 2"]


def standardised(physical: Stack, train_stats: Statistics, exists: np.ndarray) -> Stack:
    """(x - μ) / σ with training μ and σ; cells that do not exist are 0."""
    mean = np.array(train_stats.mean, dtype=np.float32)[:, None, None]
    scale = np.array(1.0 / np.array(train_stats.std), dtype=np.float32)[:, None, None]
    scaled = physical - mean
    scaled *= scale
    if not exists.all():
        scaled[..., ~exists] = 0.0
    return scaled


def level(train_stats: Statistics, probability: float) -> Float[np.ndarray, "channel 1 1"]:
    """A training quantile per channel, shaped to compare with maps."""
    if probability not in train_stats.quantiles:
        raise S2KDError(
            f"narrator: the training statistics lack the quantile {probability} "
            f"(they have {', '.join(map(str, train_stats.quantiles))})"
        )
    return np.array(train_stats.quantiles[probability], dtype=np.float32)[:, None, None]


def area_weights(grid: GridSpec) -> Float[np.ndarray, "height width"]:
    """Weights that sum to 1 over existing cells: cos(latitude) where there is one, else equal."""
    rows = np.ones(grid.height) if grid.latitude is None else np.cos(np.radians(grid.latitude))
    weights = np.where(grid.exists, np.maximum(rows, 1e-6)[:, None], 0.0)
    return (weights / weights.sum()).astype(np.float32)


def slope(means: Float[np.ndarray, "window past channel"]) -> Scalars:
    """Least-squares change from first to last frame: (T - 1) Σ (t - t̄) x_t / Σ (t - t̄)²."""
    steps = means.shape[1]
    if steps == 1:
        return np.zeros(means[:, 0].shape)
    centred = np.arange(steps) - (steps - 1) / 2
    along = centred * (steps - 1) / (centred**2).sum()
    return (means * along[:, None]).sum(1)


def relative(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The quotient part / |total|; 0 where the total is 0."""
    size = np.abs(total)
    return np.where(size > 1e-9, part / np.maximum(size, 1e-9), 0.0)


def share(selected: np.ndarray, exists: np.ndarray) -> Scalars:
    """Share of existing cells that are selected: Σ selected / Σ exists."""
    counted = selected if exists.all() else selected & exists
    return np.count_nonzero(counted, axis=(2, 3)) / np.count_nonzero(exists)


def extreme_cell(field: Maps, exists: np.ndarray, sign: float) -> tuple[Scalars, Cells]:
    """The largest (`sign` 1) or smallest (-1) value and its cell, the first of equals."""
    signed = field if sign > 0 else -field
    if not exists.all():
        signed = np.where(exists, signed, -np.inf)
    flat = signed.reshape(*field.shape[:2], -1)
    at = flat.argmax(-1)
    value = np.take_along_axis(flat, at[..., None], -1)[..., 0] * sign
    return value.astype(np.float64), np.stack(np.divmod(at, field.shape[-1]), -1)


class Sectors:
    """Means over the 3 × 3 thirds of the domain, existing cells only."""

    def __init__(self, exists: np.ndarray) -> None:
        self._rows, self._columns = (
            np.eye(3, dtype=np.float32)[3 * np.arange(size) // size] for size in exists.shape
        )
        self._count = self._rows.T @ exists.astype(np.float32) @ self._columns

    def mean(self, field: Maps) -> Float[np.ndarray, "window channel 3 3"]:
        """Σ field / Σ exists per third; NaN without cells. `field` is 0 off the mask."""
        mean = self.total(field) / np.maximum(self._count, 1)
        return np.where(self._count > 0, mean, np.float32(np.nan))

    def total(self, field: Maps) -> Float[np.ndarray, "window channel 3 3"]:
        """Σ field per third."""
        # stacked products, one per map: the same numbers whatever the size of the batch
        return np.matmul(self._rows.T, np.matmul(field, self._columns))

    def extreme(
        self, means: Float[np.ndarray, "window channel 3 3"], sign: float
    ) -> tuple[Scalars, Cells]:
        """The largest (`sign` 1) or smallest (-1) of the nine, and its third."""
        return extreme_cell(means, self._count > 0, sign)


def row_departure(field: Maps, exists: np.ndarray) -> Maps:
    """Departure f - (mean of f along its row), over existing cells; 0 elsewhere."""
    if exists.all():
        return field - field.mean(-1, keepdims=True)
    count = np.maximum(exists.sum(-1, keepdims=True), 1).astype(np.float32)
    return np.where(exists, field - field.sum(-1, keepdims=True) / count, np.float32(0))


def gradient(field: Maps, exists: np.ndarray) -> Maps:
    """|∇f| = √(δx² + δy²) with differences to the next cell; 0 where a neighbour is missing."""
    steep = np.zeros_like(field)
    if min(field.shape[-2:]) < 2:
        return steep
    corner = field[..., :-1, :-1]
    across, down = field[..., :-1, 1:] - corner, field[..., 1:, :-1] - corner
    complete = exists[:-1, :-1] & exists[:-1, 1:] & exists[1:, :-1]
    steep[..., :-1, :-1] = np.where(complete, np.sqrt(across**2 + down**2), np.float32(0))
    return steep


def waves(departure: Maps) -> tuple[Int[np.ndarray, "window channel"], Scalars]:
    """The k ≥ 1 of the largest Σ_rows |F_k|², and its share of Σ_k; F is the FFT along rows."""
    power = (np.abs(np.fft.rfft(departure, axis=-1)) ** 2).sum(-2)[..., 1:]
    if not power.shape[-1]:
        return np.zeros(departure.shape[:2], dtype=np.int64), np.zeros(departure.shape[:2])
    strongest = power.argmax(-1)
    top = np.take_along_axis(power, strongest[..., None], -1)[..., 0]
    return strongest + 1, (top / np.maximum(power.sum(-1), 1e-12)).astype(np.float64)


def motion(scaled: Stack, interval: int) -> tuple[Scalars, Scalars, Scalars]:
    """East and south displacement in cells per frame, and the correlation that supports them.

    Changes x(t + interval) - x(t) are tracked, less their own spatial mean: they hold nothing
    that stands still and, with an interval of one day, nothing of the daily cycle, which would be
    mistaken for a westward wave. The circular cross-correlation
    c(s) = F⁻¹[conj(F(a)) F(b)] / √(Σa² Σb²) of changes a and b that are one frame apart is
    averaged over the first and the last such pair; the movement is its peak within a quarter of
    the domain, refined by a parabola. Two frames are tracked as they are; one has no motion.
    """
    steps = scaled.shape[1]
    if steps == 1:
        still = np.zeros((scaled.shape[0], scaled.shape[2]))
        return still, still.copy(), still.copy()
    count = steps - interval  # of changes
    pairs = [(0, 1)] if steps == 2 else sorted({(0, 1), (count - 2, count - 1)})
    spectra, energy = {}, {}
    for number in sorted({number for pair in pairs for number in pair}):
        change = (
            scaled[:, number] if steps == 2 else scaled[:, number + interval] - scaled[:, number]
        )
        change = change - change.mean((-2, -1), keepdims=True)
        energy[number] = np.maximum((change**2).sum((-2, -1)), 1e-6)
        spectra[number] = np.fft.rfft2(change)
    crossed = np.zeros_like(spectra[0])
    for a, b in pairs:
        size = np.sqrt(energy[a] * energy[b]) * len(pairs)
        crossed += spectra[a].conj() * spectra[b] / size[..., None, None]
    correlation = np.fft.irfft2(crossed, s=scaled.shape[-2:])
    south, east, peak = peak_shift(correlation)
    return east, south, peak


def change_interval(steps: int, step_seconds: float) -> int:
    """Frames between the two ends of a change: one day where two fit, else half the past."""
    day = 86400 / step_seconds
    if day == int(day) and 1 <= day <= steps - 2:
        return int(day)
    return max(1, (steps - 1) // 2)


def drift(field: Stack) -> tuple[Scalars, Scalars]:
    """East and south movement of the centre of mass of f - min f, first to last frame, in cells."""
    centres = []
    for frame in (field[:, 0], field[:, -1]):
        weight = frame - frame.min((-2, -1), keepdims=True)
        total = np.maximum(weight.sum((-2, -1)), 1e-12)
        column = (weight.sum(-2) * np.arange(frame.shape[-1], dtype=np.float32)).sum(-1) / total
        row = (weight.sum(-1) * np.arange(frame.shape[-2], dtype=np.float32)).sum(-1) / total
        centres.append((column, row))
    (column, row), (last_column, last_row) = centres
    return last_column - column, last_row - row


def peak_shift(correlation: Maps) -> tuple[Scalars, Scalars, Scalars]:
    """Rows and columns from zero shift to the peak, and its height."""
    height, width = correlation.shape[-2:]
    down, across = max(1, height // 4), max(1, width // 4)
    rows, columns = np.arange(-down - 1, down + 2) % height, np.arange(-across - 1, across + 2)
    near = correlation[..., rows[:, None], columns % width]
    inner = near[..., 1:-1, 1:-1]
    flat = inner.reshape(*inner.shape[:2], -1)
    at = flat.argmax(-1)
    row, column = np.divmod(at, inner.shape[-1])
    peak = np.take_along_axis(flat, at[..., None], -1)[..., 0]
    window, channel = np.indices(at.shape)

    def neighbour(by_row: int, by_column: int) -> Scalars:
        return near[window, channel, row + 1 + by_row, column + 1 + by_column]

    south = row - down + parabola(neighbour(-1, 0), peak, neighbour(1, 0))
    east = column - across + parabola(neighbour(0, -1), peak, neighbour(0, 1))
    return south.astype(np.float64), east.astype(np.float64), peak.astype(np.float64)


def parabola(before: Scalars, peak: Scalars, after: Scalars) -> Scalars:
    """Offset of the vertex of the parabola through three points, within half a cell."""
    bend = before - 2 * peak + after
    offset = np.where(bend < -1e-9, 0.5 * (before - after) / np.where(bend < -1e-9, bend, 1), 0)
    return np.clip(offset, -0.5, 0.5)
