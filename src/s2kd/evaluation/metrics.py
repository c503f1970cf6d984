"""Verification metrics as functions; each states its reduction and unit.

Everywhere: `mask` (height, width) is True where a cell exists (None: all do), `weights` one
number a row (None: all equal). Means run over existing cells only and are divided by the sum of
the weights, so that scaling the weights changes nothing.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from s2kd.core.types import S2KDError

Field = Float[Tensor, "*lead channel height width"]
PerFrame = Float[Tensor, "*lead channel"]
Mask = Bool[Tensor, "height width"] | None
Rows = Float[Tensor, " height"] | None


def cell_mean(
    values: Float[Tensor, "*lead height width"], *, mask: Mask = None, weights: Rows = None
) -> Float[Tensor, "*lead"]:
    """Weighted mean of each frame over its existing cells; cells that do not exist may be NaN."""
    if mask is None and weights is None:
        return values.mean((-2, -1))
    share = torch.ones(values.shape[-2:], dtype=values.dtype, device=values.device)
    if weights is not None:
        share = share * weights.to(share)[:, None]
    if mask is not None:
        share = share * mask.to(share)
        values = torch.where(mask.to(values.device), values, 0)
    return torch.einsum("...hw,hw->...", values, share) / share.sum()


def latitude_weights(latitude: tuple[float, ...]) -> Float[Tensor, " height"]:
    """Weights cos φ / mean cos φ of rows at φ degrees north (Rasp et al. 2020, WeatherBench)."""
    cosine = np.cos(np.deg2rad(np.asarray(latitude, dtype=np.float64)))
    return torch.from_numpy(cosine / cosine.mean()).float()


def anomaly_products(
    forecast: Field, truth: Field, climatology: Field, *, mask: Mask = None, weights: Rows = None
) -> Float[Tensor, "3 *lead channel"]:
    """Per frame the means of f't', f'f' and t't', f' and t' being anomalies to `climatology`."""
    forecast, truth = forecast - climatology, truth - climatology
    products = torch.stack([forecast * truth, forecast.square(), truth.square()])
    return cell_mean(products, mask=mask, weights=weights)


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
    forecast, truth = (_existing(field, mask) for field in (forecast, truth))
    cells = truth.shape[-1]
    finest = max(1e-4, 1 / cells)
    p = torch.logspace(math.log10(finest), math.log10(max(tail, finest)), points)
    rank = (p.to(truth) * (cells - 1)).clamp(max=cells - 1)
    keep = min(cells, int(rank.max().ceil()) + 1)
    high, high_truth = (_at(field.topk(keep).values, rank) for field in (forecast, truth))
    scale = torch.maximum(high_truth.abs(), floor.to(truth)[:, None])
    return ((high - high_truth) / scale).mean(-1)


def _existing(field: Tensor, mask: Tensor | None) -> Tensor:
    return field.flatten(-2) if mask is None else field[..., mask.to(field.device)]


def _at(descending: Tensor, rank: Tensor) -> Tensor:
    """Values at fractional places of a sorted last axis, by linear interpolation."""
    below = rank.floor().long().clamp(max=descending.shape[-1] - 1)
    above = (below + 1).clamp(max=descending.shape[-1] - 1)
    return torch.lerp(descending[..., below], descending[..., above], rank - below)


def ssim_window(height: int, width: int, *, size: int = 11) -> int:
    """The largest odd window up to `size` that fits the grid."""
    fits = min(size, height, width)
    return fits - (fits % 2 == 0)


def ssim(
    forecast: Field,
    truth: Field,
    *,
    data_range: float | Float[Tensor, " channel"],
    size: int = 11,
    mask: Mask = None,
    chunk: int | None = None,
) -> PerFrame:
    """Structural similarity of each frame (Wang et al. 2004), the mean of its map; 1 is equal.

    The window is theirs, a Gaussian (11×11, σ = 1.5, population covariance); `size` makes it
    smaller for small grids (`ssim_window`). `data_range` is the values' possible spread: never
    guessed, take it from the training split. The map is averaged where the window lies inside the
    grid, as scikit-image does. With a `mask`, every window's weights are renormalised over its
    existing cells, and the mean runs over windows whose centre exists. `chunk` frames are filtered
    at a time (None: as many as stay in a processor's cache, or suit a GPU).
    """
    height, width = truth.shape[-2:]
    if size % 2 == 0 or not 3 <= size <= min(height, width):
        raise S2KDError(
            f"ssim: a window of {size}×{size} does not suit a {height}×{width} grid; it must be "
            f"odd, at least 3 and at most {ssim_window(height, width, size=size)}"
        )
    spread = torch.as_tensor(data_range, dtype=truth.dtype, device=truth.device)
    if not bool((spread > 0).all()):
        raise S2KDError(f"ssim: data_range must be positive, got {spread.tolist()}")
    # a GPU multiplies float32 matrices in TF32 where its user allows that: too coarse here
    exact = torch.float64 if truth.is_cuda else truth.dtype
    chunk = chunk or max(1, 2 ** (24 if truth.is_cuda else 18) // (height * width))
    similarity = _Similarity(height, width, size, mask, truth.to(exact))
    frames = (
        forecast.reshape(-1, height, width),
        truth.reshape(-1, height, width),
        spread.expand(truth.shape[:-2]).reshape(-1, 1, 1),
    )
    parts = zip(*(side.split(chunk) for side in frames), strict=True)
    values = [similarity(*(side.to(exact) for side in part)) for part in parts]
    return torch.cat(values).to(truth.dtype).reshape(truth.shape[:-2])


class _Similarity:
    """SSIM of (frame, height, width) pairs on one grid."""

    def __init__(
        self, height: int, width: int, size: int, mask: Tensor | None, like: Tensor
    ) -> None:
        self.rows = _bands(height, size, like)
        self.columns = [(s, e, band.T.contiguous()) for s, e, band in _bands(width, size, like)]
        self.mask, self.coverage, self.centres = mask, None, None
        if mask is not None:
            self.mask, edge = mask.to(like.device), size // 2
            self.centres = self.mask[edge : height - edge, edge : width - edge]
            if not self.centres.any():
                raise S2KDError(
                    f"ssim: no {size}×{size} window inside the grid is centred on a cell that "
                    "exists; use a smaller window"
                )
            # at least the centre exists wherever the map counts; elsewhere any number will do
            self.coverage = self._filter(self.mask.to(like)[None]).clamp_min(1e-6)

    def _filter(self, frames: Tensor) -> Tensor:
        """Weighted sums over the window, first along rows of the grid and then along columns."""
        count = len(frames)
        along = torch.cat([frames[..., s:e] @ band for s, e, band in self.columns], -1)
        parts = [torch.bmm(band.expand(count, -1, -1), along[:, s:e]) for s, e, band in self.rows]
        return torch.cat(parts, -2)

    def _mean(self, frames: Tensor) -> Tensor:
        filtered = self._filter(frames)
        return filtered if self.coverage is None else filtered / self.coverage

    def __call__(self, forecast: Tensor, truth: Tensor, spread: Tensor) -> Tensor:
        c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
        # variances do not feel a shift, float32 does: 280 K squared leaves few digits
        centre = cell_mean(truth, mask=self.mask)[:, None, None]
        forecast, truth = forecast - centre, truth - centre
        if self.mask is not None:
            forecast, truth = torch.where(self.mask, forecast, 0), torch.where(self.mask, truth, 0)
        # few passes over memory, which is what costs: where taps sum to forecast, c2 goes in before
        early, late = (c2, None) if self.mask is None else (torch.zeros_like(c2), c2)
        mean, truth_mean = self._mean(forecast), self._mean(truth)
        covariance = self._mean(torch.addcmul(early, forecast, truth, value=2))
        variances = self._mean(torch.addcmul(early, forecast, forecast).addcmul_(truth, truth))
        covariance.addcmul_(mean, truth_mean, value=-2)
        variances.addcmul_(mean, mean, value=-1).addcmul_(truth_mean, truth_mean, value=-1)
        if late is not None:
            covariance, variances = covariance + late, variances + late
        mean, truth_mean = mean.add_(centre), truth_mean.add_(centre)
        covariance.mul_(torch.addcmul(c1, mean, truth_mean, value=2))
        variances.mul_(torch.addcmul(c1, mean, mean).addcmul_(truth_mean, truth_mean))
        return cell_mean(covariance.div_(variances), mask=self.centres)


@lru_cache(maxsize=32)
def _taps(size: int) -> np.ndarray:
    reach = np.arange(size) - size // 2
    taps = np.exp(-(reach**2) / (2 * 1.5**2))
    return taps / taps.sum()


def _bands(length: int, size: int, like: Tensor) -> list[tuple[int, int, Tensor]]:
    """A 1-D filter at every place where it fits, as banded matrices over stretches of the axis.

    Each is (from, to, (outputs, to − from)). On CPU a matrix product beats a one-channel
    convolution several times, and 16 outputs a matrix leave out most of the band's zeros.
    """
    inside = length - size + 1
    block = inside if like.is_cuda else 16
    bands = []
    for start in range(0, inside, block):
        count = min(block, inside - start)
        band = np.zeros((count, count + size - 1))
        for row in range(count):
            band[row, row : row + size] = _taps(size)
        matrix = torch.from_numpy(band).to(dtype=like.dtype, device=like.device)
        bands.append((start, start + count + size - 1, matrix))
    return bands
