"""Climatology: the training split's mean field by time of day, of week and of year."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import steps as clock
from s2kd.data.dataset import Dataset
from s2kd.data.statistics import training_blocks
from s2kd.data.windows import WindowDataset

DAY = 86_400.0
LONG_YEARS = 5.0
"""Years of training frames from which each day of the year can have a mean of its own."""

WINDOW_DAYS = 61
LARGEST_TABLE = 2**29
"""Bytes of float64 sums that a table by day and time of day may take while it is made."""

YEAR_DAYS = {"360_day": 360.0, "noleap": 365.0, "365_day": 365.0, "all_leap": 366.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class Climatology:
    """The training split's mean field by time of day, of week and of year.

    Per cell a least-squares fit of one constant for every time of day (`slots` of them; one where
    the data has no daily cycle), doubled for weekdays and weekends where `weekly`, plus
    `harmonics` annual sine and cosine pairs. Fitting them together keeps a training split that is
    not a whole number of years from bending the constants.

    Where `window_days` is more than 0 (training frames of `LONG_YEARS` and more) there is instead
    one field for every day of the year and time of day: the weighted mean over the days around it
    in all years, weights falling in a straight line from 1 on the day itself to 0 half a window
    away, as in WeatherBench 2 (Rasp et al. 2024) after Jung and Leutbecher (2008).
    """

    grid: GridSpec
    slots: int
    weekly: bool
    harmonics: int
    coefficients: Float[np.ndarray, "term channel height width"]
    window_days: int = 0

    @classmethod
    def fit(
        cls, dataset: Dataset, *, harmonics: int = 2, annual_days: float = 300.0
    ) -> "Climatology":
        """One streaming pass over the training split, in float64, existing cells only.

        A daily cycle is fitted where the step divides a day and the longest stretch lasts two
        days; a weekly one where times are local besides; an annual one where the split's frames
        cover `annual_days`, by day of the year where they cover `LONG_YEARS`, with no harmonic
        that the frames of one year are too few for.
        """
        stretches = dataset.splits["train"]
        lengths = [s.stop - s.first for s in stretches]
        if not sum(lengths):
            raise S2KDError(f"{dataset.name}: the training split is empty")
        step = dataset.grid.step_seconds
        times = np.concatenate([dataset.times[s.first : s.stop] for s in stretches])
        resolved = max(0, (round(year_days(times) * DAY / step) - 1) // 2)
        annual = min(harmonics, resolved) if sum(lengths) * step >= annual_days * DAY else 0
        daily = step <= DAY and DAY % step == 0 and max(lengths) * step >= 2 * DAY
        empty = cls(
            grid=dataset.grid,
            slots=int(DAY / step) if daily else 1,
            weekly=daily and dataset.local_time,
            harmonics=annual,
            coefficients=np.zeros((0, *dataset.frames.shape[1:]), dtype=np.float32),
        )
        if harmonics and not empty.weekly and empty._fits_table(times, step):
            return empty._by_day(dataset, times)
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
        """The mean field at each of `times`, physical units; cells that do not exist hold 0."""
        if self.window_days:
            times = np.asarray(times)
            return self.coefficients[self._rows(times, len(self.coefficients) // self.slots)]
        terms = self._terms(np.asarray(times)).astype(np.float32)
        return np.tensordot(terms, self.coefficients, axes=1)

    @property
    def kind(self) -> str:
        """A phrase for captions."""
        parts = [f"{self.slots} times of day"] * (self.slots > 1)
        parts += ["weekdays and weekends"] * self.weekly
        parts += [f"{self.harmonics} annual harmonics"] * (self.harmonics > 0)
        parts += [f"day of year ({self.window_days}-day window)"] * (self.window_days > 0)
        return "training mean of each cell" + (" by " + ", ".join(parts) if parts else "")

    def _fits_table(self, times: np.ndarray, step: float) -> bool:
        """Whether the frames cover enough years, and every day of the year, in bounded memory."""
        days = int(year_days(times))
        cells = len(self.grid.channels) * int(self.grid.exists.sum())
        if len(times) * step < LONG_YEARS * 365 * DAY:
            return False
        small = 8 * days * self.slots * cells <= LARGEST_TABLE
        return small and bool((self._counts(times)[1] > 0).all())

    def _rows(self, times: np.ndarray, days: int) -> np.ndarray:
        """(time,) rows of the table: day of the year, then time of day."""
        day = np.minimum(clock.day_of_year(times), days) - 1
        return day * self.slots + self._groups(times)

    def _counts(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(day, day) weights, and (day, time of day) the sum of weights of the training frames."""
        days = int(year_days(times))
        counts = np.bincount(self._rows(times, days), minlength=days * self.slots)
        weights = _around(days, WINDOW_DAYS)
        return weights, weights @ counts.reshape(days, self.slots)

    def _by_day(self, dataset: Dataset, times: np.ndarray) -> "Climatology":
        """Sums by day and time of day in one pass, then a weighted mean over days around it.

        Weighting sums and counts alike lets the 366th day, which few years have, borrow from its
        neighbours, and lets training frames be missing.
        """
        weights, counts = self._counts(times)
        days, exists = len(weights), dataset.grid.exists
        channels = dataset.frames.shape[1]
        sums = np.zeros((days * self.slots, channels, int(exists.sum())))
        rows, first = self._rows(times, days), 0
        for block in training_blocks(dataset):
            for frame, row in zip(block, rows[first : first + len(block)], strict=True):
                sums[row] += frame
            first += len(block)
        total = (weights @ sums.reshape(days, -1)).reshape(days, self.slots, -1)
        fields = np.zeros((len(sums), *dataset.frames.shape[1:]), dtype=np.float32)
        fields[..., exists] = (total / counts[..., None]).reshape(sums.shape)
        return replace(self, coefficients=fields, harmonics=0, window_days=WINDOW_DAYS)

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
        days = clock.day_of_year(times) - 1 + clock.hour_of_day(times) / 24
        phase = 2 * np.pi * days / year_days(times, 365.25)
        angles = phase[:, None] * np.arange(1, self.harmonics + 1)
        return np.concatenate([constants, np.sin(angles), np.cos(angles)], axis=1)

    def _solve(self, squares: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Normal equations; a time of the week without training frames takes a similar one's.

        Waves of the year that the training dates do not tell apart share their amplitude (the
        solution of least norm).
        """
        groups = self.slots * (1 + self.weekly)
        used = np.diag(squares) > 0
        flat = products.reshape(len(products), -1)
        fitted = np.zeros_like(flat)
        normal = squares[np.ix_(used, used)]
        fitted[used] = np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ flat[used]
        trained = np.flatnonzero(used[:groups])
        for group in np.flatnonzero(~used[:groups]):
            similar = trained[trained % self.slots == group % self.slots]
            fitted[group] = fitted[similar if len(similar) else trained].mean(0)
        return fitted.reshape(products.shape)


def year_days(times: np.ndarray, standard: float = 366.0) -> float:
    """Days of a year in the calendar of these times; `standard` where years have leap days."""
    return YEAR_DAYS.get(times[0].calendar, standard) if times.dtype == object else standard


def _around(days: int, window: int) -> np.ndarray:
    """(day, day) weights of the days around each, the year's end next to its beginning."""
    distance = np.abs(np.subtract.outer(np.arange(days), np.arange(days)))
    distance = np.minimum(distance, days - distance)
    return np.maximum(0.0, 1 - distance / (window // 2))


def fields_at_windows(
    climatology: Climatology, windows: WindowDataset, index: Int[Tensor, " batch"], *, lead: int = 0
) -> Float[Tensor, "batch lead channel height width"]:
    """The climatology at the valid times of these windows, `lead` steps (0: windows' own)."""
    starts = windows.starts[index.cpu().numpy()]
    frames = starts[:, None] + windows.past + np.arange(lead or windows.lead)
    # neighbouring windows share times
    distinct, inverse = np.unique(frames, return_inverse=True)
    fields = torch.from_numpy(climatology.at(windows.dataset.times[distinct]))
    return fields.to(windows.device)[torch.from_numpy(inverse.reshape(frames.shape))]
