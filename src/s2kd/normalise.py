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
    low, high, sample, seen = np.inf, -np.inf, [], 0
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
        sample.append(block[-seen % keep :: keep].copy())
        seen += len(block)
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
        change=plain(_change(dataset, lead)),
    )


def _change(dataset: Dataset, lead: int) -> np.ndarray:
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
        return np.ones(len(dataset.grid.channels))
    return np.sqrt(np.maximum(np.mean(squares, axis=0), 1e-30))


class Normaliser(nn.Module):
    """Physical units to order one and back, per channel; its numbers travel with the weights.

    `offset` and `scale` are for fields. `unit` is what one unit of a backbone's output means:
    the field itself in normalised units (`predict="frames"`), or the change from the last past
    frame in units of `unit` (`predict="change"`). The training loss is measured in `unit` too.
    """

    def __init__(
        self,
        offset: Float[Tensor, " channel"],
        scale: Float[Tensor, " channel"],
        *,
        change: Float[Tensor, " channel"] | None = None,
    ) -> None:
        super().__init__()
        self.predicts_change = change is not None
        self.register_buffer("offset", offset.float())
        self.register_buffer("scale", scale.float())
        # a copy: files of weights refuse two tensors in one memory
        self.register_buffer("unit", (scale if change is None else change).float().clone())

    @classmethod
    def from_statistics(
        cls, known: Statistics, *, kind: str = "zscore", predict: str = "frames"
    ) -> "Normaliser":
        """`zscore`: by mean and standard deviation; `minmax`: to 0..1 by training extremes.

        `predict="change"` uses the training root mean square of the change over the lead times,
        as GraphCast (Lam et al. 2023) does for its steps.
        """
        match kind:
            case "zscore":
                offset, scale = np.array(known.mean), np.array(known.std)
            case "minmax":
                offset = np.array(known.minimum)
                scale = np.array(known.maximum) - offset
            case _:
                raise S2KDError(f"normalise={kind!r}: must be 'zscore' or 'minmax'")
        match predict:
            case "frames":
                change = None
            case "change":
                change = torch.tensor(known.change)
            case _:
                raise S2KDError(f"predict={predict!r}: must be 'frames' or 'change'")
        return cls(torch.from_numpy(offset), torch.from_numpy(scale), change=change)

    def forward(
        self, field: Float[Tensor, "*lead channel height width"]
    ) -> Float[Tensor, "*lead channel height width"]:
        """Physical to normalised."""
        return (field - self.offset[:, None, None]) / self.scale[:, None, None]

    def future(
        self,
        decoded: Float[Tensor, "batch lead channel height width"],
        past: Float[Tensor, "batch past channel height width"],
    ) -> Float[Tensor, "batch lead channel height width"]:
        """A backbone's output in physical units; `past` is physical already."""
        return self._base(past) + decoded * self.unit[:, None, None]

    def decoded(
        self,
        future: Float[Tensor, "batch lead channel height width"],
        past: Float[Tensor, "batch past channel height width"],
    ) -> Float[Tensor, "batch lead channel height width"]:
        """The inverse of `future`: what a backbone should have put out for this."""
        return (future - self._base(past)) / self.unit[:, None, None]

    def _base(self, past: Tensor) -> Tensor:
        return past[:, -1:] if self.predicts_change else self.offset[:, None, None]

    def error(
        self,
        forecast: Float[Tensor, "*lead channel height width"],
        truth: Float[Tensor, "*lead channel height width"],
    ) -> Float[Tensor, "*lead channel height width"]:
        """The difference in `unit`."""
        return (forecast - truth) / self.unit[:, None, None]
