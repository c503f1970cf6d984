"""Quantiles of every cell of the training split, in memory that is bounded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from s2kd.core.types import S2KDError
from s2kd.data.dataset import Dataset
from s2kd.data.statistics import training_blocks

FEWEST_KEPT = 256
"""Frames in one buffer of a sketch; below this its ranks would be off by more than a percent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CellQuantiles:
    """Quantiles, minimum and maximum of each cell over the training frames, physical units.

    Cells that do not exist hold 0. Where not `exact`, the rank of a quantile is off by at most
    `rank_error` (a share of the frames).
    """

    probabilities: tuple[float, ...]
    values: Float[np.ndarray, "probability channel height width"]
    minimum: Float[np.ndarray, "channel height width"]
    maximum: Float[np.ndarray, "channel height width"]
    exact: bool
    rank_error: float
    frames: int


def cell_quantiles(
    dataset: Dataset, probabilities: Sequence[float], *, memory_bytes: int = 2**30
) -> CellQuantiles:
    """One streaming pass over the training split.

    Where the split fits `memory_bytes` the quantiles are exact (linear between values, as
    NumPy's). Else every cell is summed up by buffers of `kept` frames that are merged pairwise,
    every other value of the sorted pair staying (Munro and Paterson 1980; Manku, Rajagopalan and
    Lindsay 1998): all cells fill alike, so the whole grid is one array. Where even `FEWEST_KEPT`
    frames a buffer do not fit, the cells are taken in groups, with one pass for each.
    """
    exists = dataset.grid.exists
    frames = sum(s.stop - s.first for s in dataset.splits["train"])
    if not frames:
        raise S2KDError(f"{dataset.name}: the training split is empty")
    shape = (len(dataset.grid.channels), int(exists.sum()))
    if frames * shape[0] * shape[1] * 4 <= memory_bytes:
        found = [_exact(dataset, probabilities)]
        error = 0.0
    else:
        found, error = _sketched(dataset, probabilities, frames, shape, memory_bytes)
    flat = np.concatenate(found, axis=-1)
    whole = np.zeros((*flat.shape[:-1], *exists.shape), np.float32)
    whole[..., exists] = flat
    return CellQuantiles(
        probabilities=tuple(probabilities),
        values=whole[:-2],
        minimum=whole[-2],
        maximum=whole[-1],
        exact=error == 0,
        rank_error=error,
        frames=frames,
    )


def _exact(dataset: Dataset, probabilities: Sequence[float]) -> np.ndarray:
    """(probability + 2, channel, cell): the quantiles, then minimum and maximum."""
    whole = np.concatenate(list(training_blocks(dataset)))
    channels = []
    for channel in range(whole.shape[1]):
        # time last: each cell's values side by side
        cells = np.ascontiguousarray(whole[:, channel].T)
        at = np.quantile(cells, [*probabilities, 0.0, 1.0], axis=-1)
        channels.append(at.astype(np.float32))
    return np.stack(channels, axis=1)


def _sketched(
    dataset: Dataset,
    probabilities: Sequence[float],
    frames: int,
    shape: tuple[int, int],
    memory_bytes: int,
) -> tuple[list[np.ndarray], float]:
    """The same, one array a group of cells, and the bound of the error in rank."""

    def levels(kept: int) -> int:
        return max(1, int(np.ceil(np.log2(max(2.0, frames / kept)))) + 1)

    # one buffer a level, one being filled, two being merged
    kept = FEWEST_KEPT
    while (levels(2 * kept) + 3) * 2 * kept * shape[0] * shape[1] * 4 <= memory_bytes:
        kept *= 2
    each = max(1, memory_bytes // ((levels(kept) + 3) * kept * shape[0] * 4))
    found = []
    for first in range(0, shape[1], each):
        sketch = _Sketch(kept)
        for block in training_blocks(dataset):
            sketch.add(block[..., first : first + each])
        found.append(sketch.at(probabilities))
    return found, levels(kept) / (2 * kept)


class _Sketch:
    """Sorted buffers of `kept` frames; the one at level l stands for 2ˡ frames a value."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.levels: list[np.ndarray | None] = []
        self.filling: list[np.ndarray] = []
        self.filled = self.merges = 0
        self.low = self.high = None

    def add(self, block: Float[np.ndarray, "time channel cell"]) -> None:
        """Take in some more frames."""
        low, high = block.min(0), block.max(0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        while len(block):
            part, block = np.split(block, [self.kept - self.filled])
            self.filling.append(part.copy())
            self.filled += len(part)
            if self.filled == self.kept:
                self._carry(np.sort(np.concatenate(self.filling), axis=0))
                self.filling, self.filled = [], 0

    def _carry(self, full: np.ndarray) -> None:
        """As adding 1 to a binary number: two of a level become one of the next."""
        level = 0
        while level < len(self.levels) and self.levels[level] is not None:
            pair = np.sort(np.concatenate([self.levels[level], full]), axis=0)
            self.levels[level] = None
            # the lower and the upper one of two neighbours in turn, so that errors cancel
            full, self.merges = pair[self.merges % 2 :: 2], self.merges + 1
            level += 1
        if level == len(self.levels):
            self.levels.append(None)
        self.levels[level] = full

    def at(self, probabilities: Sequence[float]) -> Float[np.ndarray, "p channel cell"]:
        """The quantiles, then minimum and maximum."""
        held = [(x, 2.0**level) for level, x in enumerate(self.levels) if x is not None]
        held += [(part, 1.0) for part in self.filling]
        values = np.concatenate([part for part, _ in held])
        weights = np.concatenate([np.full(len(part), weight) for part, weight in held])
        order = np.argsort(values, axis=0)
        values = np.take_along_axis(values, order, axis=0)
        rank = np.cumsum(weights[order], axis=0) - weights[order] / 2
        found = []
        for p in probabilities:
            place = (rank < p * weights.sum()).sum(0).clip(max=len(values) - 1)
            found.append(np.take_along_axis(values, place[None], axis=0)[0])
        return np.stack([*found, self.low, self.high]).astype(np.float32)
