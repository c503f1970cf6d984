"""What is usual at a time of day, week and year: the forecast that knows only the calendar."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from s2kd import times as clock
from s2kd.dataset import Dataset
from s2kd.normalise import training_blocks
from s2kd.types import GridSpec, S2KDError

DAY = 86_400.0
YEAR_DAYS = {"360_day": 360.0, "noleap": 365.0, "365_day": 365.0, "all_leap": 366.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class Climatology:
    """The training split's mean field by time of day, of week and of year.

    Per cell a least-squares fit of one constant for every time of day (`slots` of them; one where
    the data has no daily cycle), doubled for weekdays and weekends where `weekly`, plus
    `harmonics` annual sine and cosine pairs. Fitting them together keeps a training split that is
    not a whole number of years from bending the constants.
    """

    grid: GridSpec
    slots: int
    weekly: bool
    harmonics: int
    coefficients: Float[np.ndarray, "term channel height width"]

    @classmethod
    def fit(
        cls, dataset: Dataset, *, harmonics: int = 2, annual_days: float = 300.0
    ) -> "Climatology":
        """One streaming pass over the training split, in float64, existing cells only.

        A daily cycle is fitted where the step divides a day and the longest stretch lasts two
        days; a weekly one where times are local besides; an annual one where the split's frames
        cover `annual_days`.
        """
        stretches = dataset.splits["train"]
        lengths = [s.stop - s.first for s in stretches]
        if not sum(lengths):
            raise S2KDError(f"{dataset.name}: the training split is empty")
        step = dataset.grid.step_seconds
        daily = step <= DAY and DAY % step == 0 and max(lengths) * step >= 2 * DAY
        empty = cls(
            grid=dataset.grid,
            slots=int(DAY / step) if daily else 1,
            weekly=daily and dataset.local_time,
            harmonics=harmonics if sum(lengths) * step >= annual_days * DAY else 0,
            coefficients=np.zeros((0, *dataset.frames.shape[1:]), dtype=np.float32),
        )
        times = np.concatenate([dataset.times[s.first : s.stop] for s in stretches])
        squares, products, first = 0.0, 0.0, 0
        for block in training_blocks(dataset):
            terms = empty._terms(times[first : first + len(block)])
            squares = squares + terms.T @ terms
            products = products + np.tensordot(terms, block.astype(np.float64), axes=(0, 0))
            first += len(block)
        fields = np.zeros((len(squares), *dataset.frames.shape[1:]), dtype=np.float32)
        fields[..., dataset.grid.exists] = empty._solve(squares, products)
        return replace(empty, coefficients=fields)

    def at(self, times: np.ndarray) -> Float[np.ndarray, "time channel height width"]:
        """The usual field at each of `times`, physical units; cells that do not exist hold 0."""
        terms = self._terms(np.asarray(times)).astype(np.float32)
        return np.tensordot(terms, self.coefficients, axes=1)

    @property
    def kind(self) -> str:
        """In words, for captions."""
        parts = [f"{self.slots} times of day"] * (self.slots > 1)
        parts += ["weekdays and weekends"] * self.weekly
        parts += [f"{self.harmonics} annual harmonics"] * (self.harmonics > 0)
        return "training mean of each cell" + (" by " + ", ".join(parts) if parts else "")

    def _groups(self, times: np.ndarray) -> np.ndarray:
        slot = np.zeros(len(times), dtype=np.int64)
        if self.slots > 1:
            seconds = clock.hour_of_day(times) * 3600
            # a hair more, so that 05:59:59.9999 of rounding is six o'clock
            slot = np.floor(seconds / (DAY / self.slots) + 1e-6).astype(np.int64) % self.slots
        return slot + self.slots * clock.is_weekend(times) if self.weekly else slot

    def _terms(self, times: np.ndarray) -> np.ndarray:
        """(time, term): which constant applies, then sines and cosines of the year."""
        constants = np.eye(self.slots * (1 + self.weekly))[self._groups(times)]
        if not self.harmonics:
            return constants
        calendar = getattr(times[0], "calendar", "") if times.dtype == object else ""
        days = clock.day_of_year(times) - 1 + clock.hour_of_day(times) / 24
        phase = 2 * np.pi * days / YEAR_DAYS.get(calendar, 365.25)
        angles = phase[:, None] * np.arange(1, self.harmonics + 1)
        return np.concatenate([constants, np.sin(angles), np.cos(angles)], axis=1)

    def _solve(self, squares: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Normal equations; a time of the week that training never saw borrows from its like."""
        groups = self.slots * (1 + self.weekly)
        used = np.diag(squares) > 0
        flat = products.reshape(len(products), -1)
        found = np.zeros_like(flat)
        found[used] = np.linalg.solve(squares[np.ix_(used, used)], flat[used])
        seen = np.flatnonzero(used[:groups])
        for group in np.flatnonzero(~used[:groups]):
            like = seen[seen % self.slots == group % self.slots]
            found[group] = found[like if len(like) else seen].mean(0)
        return found.reshape(products.shape)
