"""Range, mean, missing values and suspicious values of frames, gathered block by block."""

from typing import Any

import numpy as np
from jaxtyping import Float

MARKS = (-9999.0, 9999.0, -999.0, -99999.0, -32768.0, -32767.0, 9.96921e36, 1e20, -1e20)
"""Numbers that stand for missing values in many files that do not say so."""

MOST_RANGES = 20.0
"""A value further from nearly all others than this many times their range is reported."""

QUANTILES = (0.001, 0.999)
SAMPLE = 20_000
"""Values per block from which quantiles are computed."""


class ValueSummary:
    """Summary of one field over the blocks read.

    `missing` counts values that are not finite, `never` cells without a finite value in any frame;
    range and mean are None where nothing is finite.
    """

    def __init__(self) -> None:
        self.minimum: float | None = None
        self.maximum: float | None = None
        self.missing, self.frames = 0, 0
        self._total, self._count = 0.0, 0
        self._observed: np.ndarray | None = None
        self._marks = dict.fromkeys(MARKS, 0)
        self._samples: list[np.ndarray] = []
        self._random = np.random.default_rng(0)

    def update(self, block: Float[np.ndarray, "time channel height width"]) -> None:
        """Add the next frames."""
        finite = np.isfinite(block)
        observed = finite.any(0)
        self._observed = observed if self._observed is None else self._observed | observed
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
            if _equals(low, mark) or _equals(high, mark):
                self._marks[mark] += int(_equals(values, mark).sum())
        few = values.size <= SAMPLE
        sample = values if few else values[self._random.integers(0, values.size, SAMPLE)]
        self._samples.append(sample.astype(np.float64))

    def facts(self) -> dict[str, Any]:
        """Range and mean over every finite value, counts of missing ones, and suspicions."""
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": self._total / self._count if self._count else None,
            "missing": self.missing,
            "never": 0 if self._observed is None else int((~self._observed).sum()),
            "frames_read": self.frames,
            "suspicions": self.suspicions(),
        }

    def suspicions(self) -> tuple[str, ...]:
        """Undeclared marks of missing values and outliers, each to follow the field's name."""
        if self.minimum is None or self.maximum is None:
            return ()
        texts: list[str] = []
        rest = np.concatenate(self._samples)
        for mark, count in self._marks.items():
            unmarked = rest[~_equals(rest, mark)]
            if count > 1 and len(unmarked) and _is_far(mark, unmarked):
                rest = unmarked
                texts.append(
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
            marked = any(count and _equals(end, mark) for mark, count in self._marks.items())
            if beyond > MOST_RANGES * (high - low) > 0 and not (marked and texts):
                texts.append(
                    f"reaches {end:.6g}, far from nearly all of its values ({low:.6g} to "
                    f"{high:.6g}): look for spikes or for marks of missing values"
                )
        return tuple(texts)


def _equals(values: np.ndarray | float, mark: float) -> np.ndarray | np.bool_:
    """Equal but for the rounding of 32 bits."""
    return np.abs(values - mark) <= 1e-5 * abs(mark)


def _is_far(mark: float, others: np.ndarray) -> bool:
    """Farther from the nearest of the others than these are apart."""
    return float(np.abs(others - mark).min()) > float(others.max() - others.min())
