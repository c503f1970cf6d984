"""What frames hold, gathered block by block: range, mean, what is missing, what looks wrong."""

import numpy as np
from jaxtyping import Float

MARKS = (-9999.0, 9999.0, -999.0, -99999.0, -32768.0, -32767.0, 9.96921e36, 1e20, -1e20)
"""Numbers that stand for missing values in many files that do not say so."""

MOST_RANGES = 20.0
"""How many ranges of nearly all values another may lie beyond them, before it is pointed out."""

QUANTILES = (0.001, 0.999)
DRAWN = 20_000
"""Values of each block that quantiles are made from."""


class Values:
    """Of one field, over the blocks seen.

    `missing` counts values that are not finite, `never` cells that are so in every frame; range
    and mean are None where nothing is finite.
    """

    def __init__(self) -> None:
        self.minimum: float | None = None
        self.maximum: float | None = None
        self.missing, self.frames = 0, 0
        self._total, self._count = 0.0, 0
        self._seen: np.ndarray | None = None
        self._marks = dict.fromkeys(MARKS, 0)
        self._drawn: list[np.ndarray] = []
        self._random = np.random.default_rng(0)

    def see(self, block: Float[np.ndarray, "time channel height width"]) -> None:
        """The next frames."""
        finite = np.isfinite(block)
        seen = finite.any(0)
        self._seen = seen if self._seen is None else self._seen | seen
        self.frames += len(block)
        values = block.ravel() if finite.all() else block[finite]
        self.missing += block.size - values.size
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.minimum = low if self.minimum is None else min(low, self.minimum)
        self.maximum = high if self.maximum is None else max(high, self.maximum)
        self._total += float(values.sum(dtype=np.float64))
        self._count += values.size
        for mark in MARKS:
            if _is(low, mark) or _is(high, mark):
                self._marks[mark] += int(_is(values, mark).sum())
        few = values.size <= DRAWN
        drawn = values if few else values[self._random.integers(0, values.size, DRAWN)]
        self._drawn.append(drawn.astype(np.float64))

    @property
    def mean(self) -> float | None:
        """Over every finite value."""
        return self._total / self._count if self._count else None

    @property
    def never(self) -> int:
        """Cells without a value in any frame."""
        return 0 if self._seen is None else int((~self._seen).sum())

    def odd(self) -> tuple[str, ...]:
        """What looks wrong, each to follow the field's name: marks, and values far out."""
        if self.minimum is None or self.maximum is None:
            return ()
        found: list[str] = []
        rest = np.concatenate(self._drawn)
        for mark, count in self._marks.items():
            other = rest[~_is(rest, mark)]
            if count > 1 and len(other) and _is_far(mark, other):
                rest = other
                found.append(
                    f"is {mark:.6g} at {count} times and places, far from its other values: a mark "
                    "for missing values, it seems; write NaN there, or declare it as _FillValue"
                )
        # towards the middle, so that one value in a small field is not a quantile itself
        low = np.quantile(rest, QUANTILES[0], method="higher")
        high = np.quantile(rest, QUANTILES[1], method="lower")
        for end, beyond in (
            (self.minimum, low - self.minimum),
            (self.maximum, self.maximum - high),
        ):
            marked = any(count and _is(end, mark) for mark, count in self._marks.items())
            if beyond > MOST_RANGES * (high - low) > 0 and not (marked and found):
                found.append(
                    f"reaches {end:.6g}, far from nearly all of its values ({low:.6g} to "
                    f"{high:.6g}): look for spikes or for marks of missing values"
                )
        return tuple(found)


def _is(values: np.ndarray | float, mark: float) -> np.ndarray | np.bool_:
    """Equal but for the rounding of 32 bits."""
    return np.abs(values - mark) <= 1e-5 * abs(mark)


def _is_far(mark: float, others: np.ndarray) -> bool:
    """Farther from the nearest of the others than these are apart."""
    return float(np.abs(others - mark).min()) > float(others.max() - others.min())
