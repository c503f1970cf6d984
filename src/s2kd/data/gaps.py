"""Missing values: counted, masked or carried forward while frames stream past in order."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.steps import date_text
from s2kd.data.values import ValueSummary, unit_problems


class GapFilter:
    """Fills missing values of frames that pass in order, and finds the cells that exist.

    A cell is filled from its last observation of the same run, never from a later one, so that no
    frame learns of its future. Where a cell has not been observed yet (or never is: it is masked),
    the nearest observed cell of the same frame stands in, which a forecast can repeat from one
    frame.
    """

    def __init__(
        self,
        label: str,
        grid: GridSpec,
        times: Shaped[np.ndarray, " time"],
        *,
        missing: str = "error",
        run_starts: Int[np.ndarray, " run"] | None = None,
        marks: Mapping[str, Sequence[float]] | None = None,
        advice: str = "set keep.missing to what helps",
    ) -> None:
        """
        Args:
            label: names the record in errors.
            grid: of the frames; cells outside its mask may be missing.
            times: of all frames, for errors.
            missing: `error`, `mask` or `fill`.
            run_starts: numbers of the first frames of runs; None: one run.
            marks: values that often stand for missing ones, by channel.
            advice: the way out that errors name.
        """
        self.label, self.channels, self.times = label, grid.channels, times
        self.units = dict(zip(grid.channels, grid.units, strict=True))
        self.missing, self.wraps, self.advice = missing, grid.wraps, advice
        self.known_to_exist = grid.exists
        self.marks = marks or {}
        self.run_starts = np.zeros(1, dtype=np.int64) if run_starts is None else run_starts
        self._outside = None
        if grid.mask is not None:
            self._outside = nearest_cells(grid.exists, wraps=grid.wraps)
        self.restart()

    def restart(self) -> None:
        """Forget all frames."""
        shape = (len(self.channels), *self.known_to_exist.shape)
        self.frames = 0
        self.never = np.zeros(shape[1:], dtype=bool)
        self._summaries = {name: ValueSummary(self.marks.get(name, ())) for name in self.channels}
        self._start_run()

    def _start_run(self) -> None:
        shape = (len(self.channels), *self.known_to_exist.shape)
        self.begin = self.frames
        self.count = np.zeros(shape, dtype=np.int64)
        self.first = np.full(shape, -1, dtype=np.int64)
        self._last = np.full(shape, np.nan, dtype=np.float32)
        self._nearest: dict[int, tuple[bytes, np.ndarray]] = {}

    def filled(
        self, block: Float[np.ndarray, "time channel height width"]
    ) -> Float[np.ndarray, "time channel height width"]:
        """The next frames, without missing values."""
        block = np.array(block, dtype=np.float32)
        inside = block if self._outside is None else block[..., self.known_to_exist]
        for number, summary in enumerate(self._summaries.values()):
            summary.update(inside[:, number])
        if self._outside is not None:
            flat = block.reshape(*block.shape[:2], -1)
            nearest = flat[..., self._outside.ravel()]
            np.copyto(flat, nearest, where=~np.isfinite(flat) & ~self.known_to_exist.ravel())
        end = self.frames + len(block)
        starts = self.run_starts[(self.run_starts > self.frames) & (self.run_starts < end)]
        for piece in np.split(block, starts - self.frames):
            if self.frames in self.run_starts and self.frames:
                self._check_run()
                self._start_run()
            self._fill_piece(piece)
        return block

    def _fill_piece(self, block: np.ndarray) -> None:
        absent = ~np.isfinite(block)
        if absent.any():
            self.count += absent.sum(0)
            new = (self.first < 0) & absent.any(0)
            self.first[new] = self.frames + absent.argmax(0)[new]
            for frame, missing in zip(block, absent, strict=True):
                self._fill(frame, missing)
        elif len(block):
            self._last = block[-1].copy()
        self.frames += len(block)

    def _fill(self, frame: np.ndarray, missing: np.ndarray) -> None:
        np.copyto(self._last, frame, where=~missing)
        np.copyto(frame, self._last, where=missing)
        unknown = np.isnan(self._last)
        for channel in np.flatnonzero(unknown.any((1, 2))):
            if not unknown[channel].all():
                source = self._sources(int(channel), unknown[channel])
                frame[channel] = frame[channel].ravel()[source]

    def _sources(self, channel: int, unknown: np.ndarray) -> np.ndarray:
        """`nearest_cells`, computed again only when the unknown cells change."""
        key = unknown.tobytes()
        if channel not in self._nearest or self._nearest[channel][0] != key:
            self._nearest[channel] = (key, nearest_cells(~unknown, wraps=self.wraps))
        return self._nearest[channel][1]

    def existing(self) -> Bool[np.ndarray, "height width"] | None:
        """After the last frame: cells with values in every channel and run; None: all.

        Raises `S2KDError` for what `missing` does not allow, with number, variable, time and place.
        """
        self._check_run()
        exists = self.known_to_exist & ~self.never
        if not exists.any():
            raise S2KDError(f"{self.label}: no cell has values in every variable")
        return None if exists.all() else exists

    def notices(self, notices: Sequence[str]) -> tuple[str, ...]:
        """These, and sentences on units and on the values of all frames so far."""
        facts = {name: summary.facts() for name, summary in self._summaries.items()}
        values = [text for name, fact in facts.items() for text in fact.problems(name)]
        return (*notices, *unit_problems(self.units), *values)

    def _check_run(self) -> None:
        """Refuse missing values of the run that ends, or note its cells without any."""
        if not self.count.any():
            return
        never = self.count == self.frames - self.begin
        observed = ~never.any(0)
        for channel, name in enumerate(self.channels):
            if never[channel].all():
                raise S2KDError(f"{self.label}: {name!r} is missing at every time and place")
        fill = "'fill' carries each cell's last value forward"
        mask = (
            f"'mask' leaves out the {int((~observed).sum())} cells that are missing at every time"
        )
        if self.missing == "error":
            self._refuse(self.count > 0, fill if observed.all() else f"{mask}, {fill}")
        if self.missing == "mask":
            self._refuse((self.count > 0) & observed, fill)
        if not observed.any():
            raise S2KDError(f"{self.label}: no cell has values in every variable")
        for channel, name in enumerate(self.channels):
            if (self.first[channel] == self.begin).all():
                raise S2KDError(
                    f"{self.label}: {name!r} has no values at all at "
                    f"{date_text(self.times[self.begin])}, so there is nothing to carry forward; "
                    "start the record later"
                )
        self.never |= ~observed

    def _refuse(self, wrong: np.ndarray, remedy: str) -> None:
        if not wrong.any():
            return
        channel = int(np.argmax(wrong.any((1, 2))))
        first = np.where(wrong[channel], self.first[channel], self.frames)
        row, column = np.unravel_index(int(np.argmin(first)), first.shape)
        total = int(self.count[channel][wrong[channel]].sum())
        raise S2KDError(
            f"{self.label}: {self.channels[channel]!r} has {total} missing values, the first at "
            f"{date_text(self.times[first[row, column]])}, row {row}, column {column}; "
            f"{self.advice}: {remedy}"
        )

    def save(self, path: Path) -> None:
        """Write the state after the frames so far, so that a later process goes on."""
        position = np.array([self.frames, self.begin])
        with path.open("wb") as file:
            np.savez(
                file,
                position=position,
                never=self.never,
                count=self.count,
                first=self.first,
                last=self._last,
            )

    def load(self, path: Path) -> None:
        """The inverse of `save`."""
        with np.load(path) as state:
            self.frames, self.begin = map(int, state["position"])
            self.never, self.count = state["never"], state["count"]
            self.first, self._last = state["first"], state["last"]


def nearest_cells(
    known: Bool[np.ndarray, "height width"], *, wraps: bool
) -> Int[np.ndarray, "height width"]:
    """Flat number of the nearest known cell, in steps along rows and columns."""
    source = np.where(known, np.arange(known.size).reshape(known.shape), -1)
    while (source < 0).any():
        before = source
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            moved = np.roll(before, shift, axis)
            if not (wraps and axis == 1):
                edge = [slice(None), slice(None)]
                edge[axis] = slice(0, 1) if shift == 1 else slice(-1, None)
                moved[tuple(edge)] = -1
            source = np.where(source < 0, moved, source)
    return source
