"""Arrays with described axes as runs of frames, read by slice."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data._arrays import ArrayIn, Channels, choose, held_in, open_array, whole
from s2kd.data._missing import nearest_cells
from s2kd.data._record import shown

LETTERS = {"R": "run", "T": "time", "C": "channel", "H": "rows", "W": "columns"}
START = np.datetime64("2000-01-01", "ns")
"""Where times begin that are not said."""
SINCE_1970 = 5e8
"""Seconds; larger ones (from 1985 on, or 16 years of a record) are taken for Unix time."""
MOST_SECONDS = 9e9
"""Seconds that nanoseconds in 64 bits can count."""
TIME_FORMS = "seconds since start as numbers, datetime64, or text such as 2013-01-01T06:00"


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run: where it lies, what its axes are, and its times.

    `number` is the entry of the axis R, or None where the layout has none. `source` gives for
    every cell the one to read instead (None: itself), `first` is added to frame numbers in errors.
    """

    name: str
    array: ArrayIn
    layout: str
    number: int | None
    times: np.ndarray
    flip_rows: bool = False
    flip_columns: bool = False
    channels: tuple[str, ...] = ()
    source: np.ndarray | None = None
    finite: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(time, channel, height, width)."""
        held = dict(zip(self.layout, self.array.shape, strict=True))
        return (held["T"], held.get("C", 1), held["H"], held["W"])

    def read(self, first: int, stop: int) -> np.ndarray:
        """(time, channel, height, width) float32 of these frames."""
        values = self.raw(first, stop)
        if self.source is not None:
            flat = values.reshape(*values.shape[:2], -1)[..., self.source]
            values = flat.reshape(values.shape)
        if self.finite and not np.isfinite(values).all():
            frame, channel, row, column = np.argwhere(~np.isfinite(values))[0]
            raise S2KDError(
                f"{self.array.where}: {self.channels[channel]!r} is missing or not finite at "
                f"{shown(self.times[first + frame])}, row {row}, column {column}; set missing to "
                "'mask' (cells that are missing at every time) or 'fill' (carry the last value on)"
            )
        return np.ascontiguousarray(values)

    def raw(self, first: int, stop: int) -> np.ndarray:
        """`read`, with missing values as they are."""
        picks: dict[str, int | slice] = {"T": slice(first, stop)}
        if self.number is not None:
            picks["R"] = self.number
        last = max(self.layout.index(letter) for letter in picks)
        index = tuple(picks.get(letter, slice(None)) for letter in self.layout[: last + 1])
        values = self.array.read(index)
        left = self.layout.replace("R", "")
        order = [left.index(letter) for letter in "TCHW" if letter in left]
        values = np.transpose(values, order).astype(np.float32, copy=False)
        values = values if "C" in left else values[:, None]
        values = values[..., ::-1, :] if self.flip_rows else values
        return values[..., ::-1] if self.flip_columns else values

    def existing(self, exists: np.ndarray) -> "Run":
        """The same, with cells that do not exist holding what the nearest one does."""
        return replace(self, source=nearest_cells(exists, wraps=False).ravel())


def check_layout(layout: str) -> None:
    """Every letter once, and those that must be there."""
    known = set(LETTERS)
    if not set("THW") <= set(layout) <= known or len(set(layout)) < len(layout):
        said = ", ".join(f"{letter} {word}" for letter, word in LETTERS.items())
        raise S2KDError(
            f"layout={layout!r}: wants each of T, H and W once, and C or R if there are such axes "
            f"({said}), as in 'TCHW', 'THWC', 'THW' or 'RTCHW'"
        )


def runs_of(
    path: Path,
    *,
    keys: Sequence[str],
    layout: str,
    time: str,
    start: np.datetime64 | None,
    step_seconds: float | None,
    cache: str,
) -> list[Run]:
    """The runs in one file: one, or as many as its axis R is long; several keys are channels."""
    chosen = [choose(path, key, axes=len(layout)) for key in keys]
    if len(chosen) > 1 and "C" in layout:
        raise S2KDError(
            f"{path}: several keys ({', '.join(chosen)}) are the channels, so layout={layout!r} "
            "must have no C"
        )
    held = [open_array(path, key, cache=cache) for key in chosen]
    array = held[0] if len(held) == 1 else Channels(held)
    layout = layout if len(held) == 1 else f"C{layout}"
    if len(array.shape) != len(layout) or 0 in array.shape:
        raise S2KDError(
            f"{array.where}: has shape {array.shape}, but layout={layout!r} means "
            f"{len(layout)} axes ({', '.join(LETTERS[letter] for letter in layout)}), none empty"
        )
    length = array.shape[layout.index("T")]
    times = run_times(path, time, start, step_seconds, length)
    if "R" not in layout:
        return [Run(name=path.stem, array=array, layout=layout, number=None, times=times)]
    return [
        Run(name=f"{path.stem}_{n}", array=array, layout=layout, number=n, times=times)
        for n in range(array.shape[layout.index("R")])
    ]


def run_times(
    path: Path, time: str, start: np.datetime64 | None, step_seconds: float | None, length: int
) -> np.ndarray:
    """(time,) datetime64[ns]: what the file says, or `start` (None: 2000) and a step a frame.

    Numbers that look like seconds since 1970 are an S2KDError where `start` is None.
    """
    begin = START if start is None else start
    if not time:
        if step_seconds is None:
            raise S2KDError(
                f"{path}: say how far apart frames are (step_seconds), or which key holds their "
                "times (time)"
            )
        return begin + np.round(np.arange(length) * step_seconds * 1e9).astype("timedelta64[ns]")
    where, values = beside(path, time)
    if values.shape != (length,):
        raise S2KDError(f"{where}: has shape {values.shape}, wants one time a frame ({length},)")
    if values.dtype.kind == "M":
        return values.astype("datetime64[ns]")
    if values.dtype.kind in "iuf":
        _check_seconds(where, values, start)
        return begin + np.round(values.astype(float) * 1e9).astype("timedelta64[ns]")
    try:
        text = [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
        return np.array([t.strip().replace(" ", "T") for t in text], dtype="datetime64[ns]")
    except ValueError as error:
        raise S2KDError(f"{where}: wants {TIME_FORMS} ({error})") from None


def since_1970(values: np.ndarray) -> bool:
    """Whether numbers are so large that they are Unix time rather than a record's own seconds."""
    return values.dtype.kind in "iuf" and len(values) > 0 and float(values.max()) > SINCE_1970


def _check_seconds(where: str, values: np.ndarray, start: np.datetime64 | None) -> None:
    if not np.isfinite(values).all():
        number = int(np.argmin(np.isfinite(values)))
        raise S2KDError(f"{where}: the time of frame {number} is {values[number]}, no number")
    if len(values) and np.abs(values.astype(float)).max() > MOST_SECONDS:
        raise S2KDError(
            f"{where}: times up to {values.max():.10g} are no seconds (milliseconds since 1970, "
            "perhaps); divide them, or store datetime64"
        )
    if start is None and since_1970(values):
        raise S2KDError(
            f"{where}: times up to {values.max():.10g} look like seconds since 1970: set "
            "dataset.params.start=1970-01-01, or the start that they do count from"
        )


def beside(path: Path, key: str) -> tuple[str, np.ndarray]:
    """A small array: a key of the file, or a `.npy` beside it or elsewhere; and where it is."""
    if key.endswith(".npy"):
        file = path.parent / Path(key).expanduser()
        return str(file), whole(file, "")
    held = {} if path.suffix == ".npy" else held_in(path)
    if key not in held:
        has = ", ".join(held) or "no keys: name a .npy file"
        raise S2KDError(f"{path}: no key {key!r} (it has {has})")
    return f"{path}: {key}", whole(path, key)


def coordinate(
    path: Path, what: str, given: str | Sequence[float | int], length: int
) -> np.ndarray | None:
    """(length,) degrees as given or as the file has them, rising or falling; None: not said."""
    if isinstance(given, str):
        if not given:
            return None
        where, values = beside(path, given)
    else:
        where, values = f"{what}", np.asarray(given, dtype=float)
        if not len(given):
            return None
    steps = np.diff(values)
    if values.shape != (length,) or not ((steps > 0).all() or (steps < 0).all()):
        raise S2KDError(
            f"{where}: has shape {values.shape}, wants {length} degrees ({what}) that only rise "
            "or only fall"
        )
    return values.astype(float)


def same_shape(runs: Sequence[Run]) -> None:
    """Refuse runs on different grids, or with other channels."""
    for run in runs:
        if run.shape[1:] != runs[0].shape[1:]:
            raise S2KDError(
                f"{run.array.where}: frames have shape {run.shape[1:]} (channel, row, column), "
                f"those of {runs[0].array.where} {runs[0].shape[1:]}; one data set has one grid"
            )
