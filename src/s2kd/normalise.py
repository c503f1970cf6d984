"""Scaling fields to order one, by the training split's own statistics and nothing else."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from s2kd.dataset import Dataset
from s2kd.types import S2KDError, Statistics

QUANTILES = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.995)
SAMPLED_VALUES = 4_000_000


def training_blocks(dataset: Dataset, *, values: int = 2**22) -> Iterator[np.ndarray]:
    """The training frames in order, in blocks of bounded size, each (time, channel, cell)."""
    exists = dataset.grid.exists
    length = max(1, values // int(np.prod(dataset.frames.shape[1:])))
    for stretch in dataset.splits["train"]:
        for first in range(stretch.first, stretch.stop, length):
            yield np.asarray(dataset.frames[first : min(first + length, stretch.stop)])[..., exists]


def statistics(dataset: Dataset) -> Statistics:
    """One streaming pass over the training split, in float64, over existing cells only.

    Blocks are merged as in Chan, Golub and LeVeque (1983), which is stable where the mean is
    large against the spread (geopotential). Quantiles come from an even sample of frames.
    """
    count, mean, squares = 0, 0.0, 0.0
    low, high, sample = np.inf, -np.inf, []
    total = sum(s.stop - s.first for s in dataset.splits["train"])
    if total == 0:
        raise S2KDError(f"{dataset.name}: the training split is empty")
    keep = max(1, total * int(dataset.grid.exists.sum()) // SAMPLED_VALUES)
    for block in training_blocks(dataset):
        wide = block.astype(np.float64)
        n = wide.shape[0] * wide.shape[2]
        block_mean = wide.mean((0, 2))
        delta = block_mean - mean
        squares = (
            squares
            + ((wide - block_mean[:, None]) ** 2).sum((0, 2))
            + delta**2 * count * n / (count + n)
        )
        mean = mean + delta * n / (count + n)
        count += n
        low = np.minimum(low, wide.min((0, 2)))
        high = np.maximum(high, wide.max((0, 2)))
        sample.append(block[::keep])
    std = np.sqrt(squares / count)
    for channel, spread in zip(dataset.grid.channels, std, strict=True):
        if not np.isfinite(spread):
            raise S2KDError(f"{dataset.name}: {channel!r} is not finite in the training split")
        if spread == 0:
            raise S2KDError(f"{dataset.name}: {channel!r} never changes in the training split")
    at = np.quantile(np.concatenate(sample), QUANTILES, axis=(0, 2))

    def plain(values: np.ndarray) -> tuple[float, ...]:
        return tuple(map(float, values))

    return Statistics(
        mean=plain(mean),
        std=plain(std),
        minimum=plain(low),
        maximum=plain(high),
        quantiles={q: plain(v) for q, v in zip(QUANTILES, at, strict=True)},
    )


class Normaliser(nn.Module):
    """Physical units to order one and back, per channel; its numbers travel with the weights."""

    def __init__(self, offset: Float[Tensor, " channel"], scale: Float[Tensor, " channel"]) -> None:
        super().__init__()
        self.register_buffer("offset", offset.float())
        self.register_buffer("scale", scale.float())

    @classmethod
    def from_statistics(cls, known: Statistics, *, kind: str = "zscore") -> "Normaliser":
        """`zscore`: by mean and standard deviation; `minmax`: to 0..1 by training extremes."""
        match kind:
            case "zscore":
                offset, scale = np.array(known.mean), np.array(known.std)
            case "minmax":
                offset = np.array(known.minimum)
                scale = np.array(known.maximum) - offset
            case _:
                raise S2KDError(f"normalise={kind!r}: must be 'zscore' or 'minmax'")
        return cls(torch.from_numpy(offset), torch.from_numpy(scale))

    def forward(
        self, field: Float[Tensor, "*lead channel height width"]
    ) -> Float[Tensor, "*lead channel height width"]:
        """Physical to normalised."""
        return (field - self.offset[:, None, None]) / self.scale[:, None, None]

    def undo(
        self, field: Float[Tensor, "*lead channel height width"]
    ) -> Float[Tensor, "*lead channel height width"]:
        """Normalised to physical."""
        return field * self.scale[:, None, None] + self.offset[:, None, None]
