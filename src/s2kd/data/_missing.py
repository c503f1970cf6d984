"""Missing values: counted, masked or carried forward while frames stream past."""

import numpy as np

from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data._record import shown

CHOICES = ("error", "mask", "fill")


def check_choice(missing: str) -> None:
    """Refuse a setting `missing` that is not one of `CHOICES`."""
    if missing not in CHOICES:
        raise S2KDError(
            f"missing={missing!r}{nearest(missing, CHOICES)}: must be one of {', '.join(CHOICES)}"
        )


class Missing:
    """Watches blocks of one record in order; says at the end which cells exist.

    A cell is filled from its own last observation, never from a later one, so that no frame
    learns of its future. Where a cell has not been observed yet (or never is: it is masked), the
    nearest observed cell of the same frame stands in, which a forecast can repeat from one frame.
    """

    def __init__(self, channels: tuple[str, ...], height: int, width: int, *, wraps: bool) -> None:
        shape = (len(channels), height, width)
        self.channels, self.wraps = channels, wraps
        self.frames = 0
        self.count = np.zeros(shape, dtype=np.int64)
        self.first = np.full(shape, -1, dtype=np.int64)
        self._last = np.full(shape, np.nan, dtype=np.float32)
        self._nearest: dict[int, tuple[bytes, np.ndarray]] = {}

    def watch(self, block: np.ndarray) -> None:
        """Count what is missing in (time, channel, height, width), and fill it in place."""
        lacks = ~np.isfinite(block)
        if lacks.any():
            self.count += lacks.sum(0)
            new = (self.first < 0) & lacks.any(0)
            self.first[new] = self.frames + lacks.argmax(0)[new]
            for frame, missing in zip(block, lacks, strict=True):
                self._fill(frame, missing)
        else:
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
        held = self._nearest.get(channel)
        if held is None or held[0] != key:
            held = self._nearest[channel] = (key, nearest_cells(~unknown, wraps=self.wraps))
        return held[1]

    def exists(self, where: str, choice: str, times: np.ndarray) -> np.ndarray | None:
        """(height, width) bool: cells seen at least once in every channel; None: all cells.

        What `choice` does not allow is an S2KDError with number, variable, first time and place.
        """
        if not self.count.any():
            return None
        never = self.count == self.frames
        seen = ~never.any(0)
        for channel, name in enumerate(self.channels):
            if never[channel].all():
                raise S2KDError(f"{where}: {name!r} is missing at every time and place")
        fill = "'fill' carries each cell's last value forward"
        mask = f"'mask' leaves out the {int((~seen).sum())} cells that are missing at every time"
        if choice == "error":
            remedy = fill if seen.all() else f"{mask}, {fill}"
            self._refuse(where, times, self.count > 0, remedy)
        if choice == "mask":
            self._refuse(where, times, (self.count > 0) & seen, fill)
        if not seen.any():
            raise S2KDError(f"{where}: no cell has values in every variable")
        for channel, name in enumerate(self.channels):
            if (self.first[channel] == 0).all():
                raise S2KDError(
                    f"{where}: {name!r} has no values at all at {shown(times[0])}, so there is "
                    "nothing to carry forward; start the record later"
                )
        return None if seen.all() else seen

    def _refuse(self, where: str, times: np.ndarray, wrong: np.ndarray, remedy: str) -> None:
        if not wrong.any():
            return
        channel = int(np.argmax(wrong.any((1, 2))))
        first = np.where(wrong[channel], self.first[channel], self.frames)
        row, column = np.unravel_index(int(np.argmin(first)), first.shape)
        total = int(self.count[channel][wrong[channel]].sum())
        raise S2KDError(
            f"{where}: {self.channels[channel]!r} has {total} missing values, the first at "
            f"{shown(times[first[row, column]])}, row {row}, column {column}; set missing "
            f"to what helps: {remedy}"
        )


def nearest_cells(known: np.ndarray, *, wraps: bool) -> np.ndarray:
    """(height, width) flat number of the nearest known cell, in steps along rows and columns."""
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
