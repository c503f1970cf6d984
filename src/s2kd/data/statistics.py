"""Statistics of the training split: moments, extremes, quantiles and mean change per channel."""

from collections.abc import Iterator

import numpy as np

from s2kd.core.types import S2KDError, Statistics
from s2kd.data.dataset import Dataset

QUANTILES = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.995)
SAMPLED_VALUES = 4_000_000
SAMPLED_CHANGES = 4096
"""Places in time that changes are taken from, over all stretches; 64 in one stretch."""


def training_blocks(dataset: Dataset, *, values: int = 2**22) -> Iterator[np.ndarray]:
    """The training frames in order, in blocks of bounded size, each (time, channel, cell)."""
    exists = dataset.grid.exists
    everywhere = bool(exists.all())
    length = max(1, values // int(np.prod(dataset.frames.shape[1:])))
    for stretch in dataset.splits["train"]:
        for first in range(stretch.first, stretch.stop, length):
            block = np.asarray(dataset.frames[first : min(first + length, stretch.stop)])
            # choosing all cells would copy them
            yield block.reshape(*block.shape[:2], -1) if everywhere else block[..., exists]


def statistics(dataset: Dataset, *, lead: int = 1) -> Statistics:
    """One streaming pass over the training split, in float64, over existing cells only.

    `change` is the root mean square difference of frames 1 to `lead` steps apart, from a sample of
    at most `SAMPLED_CHANGES` places.

    Blocks are merged as in Chan, Golub and LeVeque (1983), which is stable where the mean is
    large against the spread (geopotential). Quantiles come from an even sample of frames.
    """
    count, mean, squares = 0, 0.0, 0.0
    low, high, sample, counted = np.inf, -np.inf, [], 0
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
        # thinned across blocks, which may be shorter than the spacing; copied, since a view would
        # keep its whole block, and so the series, in memory
        sample.append(block[-counted % keep :: keep].copy())
        counted += len(block)
        count += n
        low = np.minimum(low, wide.min((0, 2)))
        high = np.maximum(high, wide.max((0, 2)))
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
        change=plain(_change(dataset, lead, std)),
    )


def _change(dataset: Dataset, lead: int, std: np.ndarray) -> np.ndarray:
    """(channel,) root mean square change over 1 to `lead` steps, from an even sample of places."""
    exists, squares = dataset.grid.exists, []
    long = [s for s in dataset.splits["train"] if s.stop - s.first > lead]
    each = max(1, min(64, SAMPLED_CHANGES // max(1, len(long))))
    for stretch in long[:: max(1, -(-len(long) // SAMPLED_CHANGES))]:
        last = stretch.stop - lead
        for first in np.unique(np.linspace(stretch.first, last - 1, each).astype(int)):
            clip = np.asarray(dataset.frames[int(first) : int(first) + lead + 1])[..., exists]
            squares.append(((clip[1:] - clip[:1]).astype(np.float64) ** 2).mean((0, 2)))
    if not squares:
        return std
    change = np.sqrt(np.mean(squares, axis=0))
    # a field that stays as it is within the sample has the unit of its spread
    return np.where(change > 0, change, std)
