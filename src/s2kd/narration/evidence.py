"""What is measured on a window in order to check what was said of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from s2kd.core.types import Past
from s2kd.narration.facts import Balance, Facts, Plume, balances, facts, hot_channel, plumes
from s2kd.narration.lexicon import Box
from s2kd.narration.measures import Sectors, standardised
from s2kd.narration.words import Kind, kinds_of

Thirds = Float[np.ndarray, "channel 3 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """One window's facts by channel, and by channel and third: in training standard deviations.

    `change` is last frame less first; `level` the last frame less its own mean; both are nan
    where a third has no cell. `last` is the last frame, nan where a cell does not exist.
    """

    past: Past
    kinds: tuple[Kind, ...]
    facts: tuple[Facts, ...]
    change: Thirds
    level: Thirds
    last: Float[np.ndarray, "channel height width"]
    plume: Plume | None
    balance: Balance | None


def evidence(pasts: Sequence[Past]) -> list[Evidence]:
    """The evidence of pasts that share grid, length, domain and statistics."""
    if not pasts:
        return []
    grid, domain, known = pasts[0].grid, pasts[0].domain, pasts[0].statistics
    kinds, exists = kinds_of(grid, domain), grid.exists
    measured = facts(pasts)
    ends = np.stack([past.frames[[0, -1]] for past in pasts]).astype(np.float32, copy=False)
    scaled = standardised(ends, known, exists)
    sectors = Sectors(exists)
    change = sectors.mean(scaled[:, 1] - scaled[:, 0])
    mean = scaled[:, 1].sum((-2, -1), keepdims=True) / exists.sum()
    level = sectors.mean(np.where(exists, scaled[:, 1] - mean, np.float32(0)))
    last = np.where(exists, scaled[:, 1], np.float32(np.nan))
    hot = hot_channel(kinds) if domain == "fire" else None
    plume = [None] * len(pasts) if hot is None else plumes(pasts, hot)
    both = {"arrivals", "departures"} <= set(kinds)
    balance = (
        balances(pasts, kinds.index("arrivals"), kinds.index("departures"))
        if both
        else [None] * len(pasts)
    )
    return [
        Evidence(
            past=past,
            kinds=kinds,
            facts=measured[i],
            change=change[i],
            level=level[i],
            last=last[i],
            plume=plume[i],
            balance=balance[i],
        )
        for i, past in enumerate(pasts)
    ]


def thirds_in(box: Box) -> np.ndarray:
    """(3, 3) bool: the thirds whose middle lies in a part of the domain."""
    centres = (np.arange(3) + 0.5) / 3
    rows = (centres >= box[0]) & (centres <= box[1])
    columns = (centres >= box[2]) & (centres <= box[3])
    return rows[:, None] & columns


def cells_in(box: Box, height: int, width: int, *, margin: float = 0.0) -> np.ndarray:
    """(height, width) bool: the cells whose middle lies in a part, or `margin` of the domain off.

    Cells of a third are those of `words.third`, so that a third holds what is said of it.
    """
    rows, columns = np.arange(height), np.arange(width)
    down, across = (rows + 0.5) / height, (columns + 0.5) / width
    near_row = (down >= box[0] - margin) & (down <= box[1] + margin)
    near_column = (across >= box[2] - margin) & (across <= box[3] + margin)
    inside = thirds_in(box)
    third_row, third_column = 3 * rows // height, 3 * columns // width
    held = inside[third_row[:, None], third_column]
    return (near_row[:, None] & near_column) | held
