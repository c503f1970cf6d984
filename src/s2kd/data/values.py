"""Range, mean, missing values and suspicious values of frames, gathered block by block."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

NINES = tuple(sign * v for sign in (1, -1) for v in (99, 999, 9999, 99999, 999999, 99.9, 999.9))
FLAGS = (251, 252, 253, 254, 255, 127, -127, -128, 32767, -32767, -32768, 65535)
EDGES = (2**31 - 1, 1 - 2**31, -(2**31), 2**32 - 1)
MARKS = (*NINES, *FLAGS, *EDGES)
"""Numbers that stand for missing values in many files that do not say so."""
LARGEST = 1e15
"""So are larger ones, which no field has."""
FEWEST_FRAMES = 8
"""In so many, a cell that holds one value holds it for good."""
MOST_RANGES = 20.0
"""A value further from nearly all others than this many times their range is reported."""
MOST_EXTREMES = 4
QUANTILES = (0.001, 0.999)
SAMPLE = 20_000
"""Values per block from which quantiles are computed."""


@dataclass(frozen=True, kw_only=True)
class ValueFacts:
    """Range and mean of the finite values (None without any), and what is wrong with them.

    `missing` counts values that are not finite, `never` cells without a finite value in any frame.
    `marks` are values that seem to stand for missing ones; `suspicions` follow the field's name.
    """

    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    missing: int = 0
    never: int = 0
    frames_read: int = 0
    marks: tuple[float, ...] = ()
    suspicions: tuple[str, ...] = ()

    def problems(self, name: str) -> list[str]:
        """Sentences on missing, constant and suspicious values."""
        problems = [f"{name!r} {text}" for text in self.suspicions]
        if self.minimum is None:
            return [f"{name!r} is missing at every time and place", *problems]
        if self.missing:
            always = f", {self.never} cells at every time" if self.never else ""
            return [f"{name!r} has {self.missing} missing values{always}", *problems]
        if self.minimum == self.maximum:
            return [f"{name!r} is {self.minimum:g} at every time and place", *problems]
        return problems


def unit_problems(units: Mapping[str, str]) -> list[str]:
    """A sentence on channels without units."""
    without = [repr(name) for name, unit in units.items() if not unit]
    if not without:
        return []
    return [f"no units are given for {', '.join(without)}, so errors and forecasts have none"]


class ValueSummary:
    """Summary of one field over the blocks read; `marks` are usual ones besides `MARKS`."""

    def __init__(self, marks: Sequence[float] = ()) -> None:
        self._usual = np.array([*MARKS, *marks])
        self.missing, self.frames = 0, 0
        self._total, self._count = 0.0, 0
        self._low = self._high = np.zeros(0)
        self._extremes: dict[float, int] = {}
        self._samples: list[np.ndarray] = []
        self._random = np.random.default_rng(0)

    def update(self, block: Float[np.ndarray, "time *cells"]) -> None:
        """Add the next frames."""
        finite = np.isfinite(block)
        everywhere = bool(finite.all())
        low = (block if everywhere else np.where(finite, block, np.inf)).min(0)
        high = (block if everywhere else np.where(finite, block, -np.inf)).max(0)
        if self.frames:
            low, high = np.minimum(low, self._low), np.maximum(high, self._high)
        self._low, self._high = low, high
        self.frames += len(block)
        values = block.ravel() if everywhere else block[finite]
        self.missing += block.size - values.size
        if not values.size:
            return
        self._total += float(values.sum(dtype=np.float64))
        self._count += values.size
        for extreme in (np.min, np.max):
            self._count_extremes(values, extreme)
        few = values.size <= SAMPLE
        sample = values if few else values[self._random.integers(0, values.size, SAMPLE)]
        self._samples.append(sample.astype(np.float64))

    def _count_extremes(self, values: np.ndarray, extreme: Callable[[np.ndarray], float]) -> None:
        """Count the first values from one end, as long as they are repeated."""
        for _ in range(MOST_EXTREMES):
            value = extreme(values)
            equal = values == value
            count = int(equal.sum())
            self._extremes[float(value)] = self._extremes.get(float(value), 0) + count
            if count in (1, values.size):
                return
            values = values[~equal]

    def facts(self) -> ValueFacts:
        """What the blocks so far hold."""
        finite = self._low <= self._high
        marks = self._marks(finite)
        return ValueFacts(
            minimum=float(self._low[finite].min()) if finite.any() else None,
            maximum=float(self._high[finite].max()) if finite.any() else None,
            mean=self._total / self._count if self._count else None,
            missing=self.missing,
            never=int((~finite).sum()),
            frames_read=self.frames,
            marks=tuple(marks),
            suspicions=(*map(self._mark_text, marks, marks.values()), *self._outliers(list(marks))),
        )

    def _mark_text(self, mark: float, cells: int) -> str:
        always = f", {cells} cells at every time" if cells else ""
        count = self._extremes.get(mark) or cells * self.frames
        return (
            f"is {mark:.6g} at {count} times and places{always}, far from its other values: a mark "
            "for missing values, it seems; keep.marks leaves it out"
        )

    def _marks(self, finite: np.ndarray) -> dict[float, int]:
        """Values that seem to stand for missing ones, and the cells that hold each for good.

        Such a value lies outside the others, at an end of their range. Cells hold it at every time
        and no other cell ever has it, or it is one of the usual marks and occurs repeatedly; it is
        further from the rest than these from one another (by half, if it is held for good).
        """
        constant = finite & (self._low == self._high) & (self.frames >= FEWEST_FRAMES)
        values, counts = np.unique(self._low[constant], return_counts=True)
        cells = {float(v): int(n) for v, n in zip(values, counts, strict=True)}
        if len(cells) > MOST_EXTREMES:  # cells of their own values are no marks
            cells = {v: n for v, n in cells.items() if self._is_usual(v)}
        repeated = {v for v, count in self._extremes.items() if count > 1 and self._is_usual(v)}
        rest = self._rest(cells)
        if not len(rest):
            return {}
        low, high = _core(rest)
        spread = high - low or np.ptp(rest)
        marks = {}
        for value in sorted({*cells, *repeated}):
            gap, count = np.abs(rest - value).min(), cells.get(value, 0)
            alone = count and self._extremes.get(value, 0) <= count * self.frames
            far = gap > spread or (alone and (gap >= spread / 2 or self._is_usual(value)))
            if not low <= value <= high and far and (alone or value in repeated) and gap > 0:
                marks[value] = count
        return marks

    def _is_usual(self, value: float) -> bool:
        """Whether this is one of the usual marks, but for the rounding of 32 bits."""
        return abs(value) >= LARGEST or bool(np.isclose(value, self._usual, 1e-5, 0).any())

    def _rest(self, values: Iterable[float] = ()) -> np.ndarray:
        """The sample without some values, and without repeated ones at the ends of the range."""
        repeated = [value for value, count in self._extremes.items() if count > 1]
        sample = np.concatenate(self._samples) if self._samples else np.zeros(0)
        return sample[~np.isin(sample, [*values, *repeated])]

    def _outliers(self, marks: Sequence[float]) -> list[str]:
        """Sentences on ends of the range that are far from nearly all values."""
        rest, texts = self._rest(), []
        if not len(rest):
            return []
        low, high = _core(rest)
        ends = [value for value in self._extremes if value not in marks]
        for end, beyond in ((min(ends), low - min(ends)), (max(ends), max(ends) - high)):
            if beyond > MOST_RANGES * (high - low) > 0:
                texts.append(
                    f"reaches {end:.6g}, far from nearly all of its values ({low:.6g} to "
                    f"{high:.6g}): look for spikes or for marks of missing values"
                )
        return texts


def _core(values: np.ndarray) -> tuple[float, float]:
    """The range of nearly all: a single value in a small field is no quantile itself."""
    low = np.quantile(values, QUANTILES[0], method="higher")
    return float(low), float(np.quantile(values, QUANTILES[1], method="lower"))


def packed_edges(encoding: Mapping[Hashable, Any]) -> tuple[float, ...]:
    """The ends of the integers that a variable is packed in, unpacked; empty where it is not."""
    dtype = np.dtype(encoding.get("dtype", "f4"))
    if dtype.kind not in "iu" or not {"scale_factor", "add_offset"} & encoding.keys():
        return ()
    ends = np.iinfo(dtype)
    scale, offset = encoding.get("scale_factor", 1.0), encoding.get("add_offset", 0.0)
    return tuple(float(end * scale + offset) for end in (ends.min, ends.min + 1, ends.max))
