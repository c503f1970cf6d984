"""One FDS volume as bytes: planes cut out of it, brought to even steps of time."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data._fds_frames import need, shrink, times
from s2kd.data.dataset import Dataset, Stretch, chronological

FULL_SCALE = 254
"""The byte that stands for the upper end of a quantity's range."""
RANGES = {"temperature": (20.0, 2000.0, "degC")}
"""Physical value of bytes 0 and 254; other quantities stay a fraction of their range."""


def from_volume(
    path: Path,
    *,
    skip: int,
    planes: tuple[int, ...],
    quantities: tuple[str, ...],
    step_seconds: float | int | None,
    crop: Sequence[int] | None,
    pool: int,
    fractions: tuple[float, float, float],
    gap: int,
) -> Dataset:
    """The layout of one volume."""
    held = _volume_file(path)
    _check(path, held, skip, planes, quantities)
    time = held["time"][skip:].astype(np.float64)
    step = float(np.median(np.diff(time))) if step_seconds is None else float(step_seconds)
    check_step(time, step, gap)
    stored = [shrink(_plane(held, skip, p, quantities), crop=crop, pool=pool) for p in planes]
    clock = time[0] + step * np.arange(int((time[-1] - time[0]) / step + 1e-9) + 1)
    length = len(clock)
    runs = tuple(
        Stretch(first=k * length, stop=(k + 1) * length, name=f"y = {held['y'][plane]:.2g} m")
        for k, plane in enumerate(planes)
    )
    everything = np.concatenate([resample(frames, time, clock) for frames in stored])
    return Dataset(
        name="fds",
        domain="fire",
        grid=GridSpec(
            channels=quantities,
            units=tuple(RANGES[q][2] if q in RANGES else "1" for q in quantities),
            height=everything.shape[2],
            width=everything.shape[3],
            step_seconds=step,
        ),
        frames=everything,
        times=np.tile(times(clock), len(planes)),
        splits=chronological(runs, fractions=fractions, gap=gap),
        attributes={
            q: {
                "long_name": q.replace("_", " ")
                + ("" if q in RANGES else ", fraction of the plotted range")
            }
            for q in quantities
        },
        source=f"FDS, {path.name}",
        simultaneous=len(planes) > 1,
    )


def _volume_file(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, their shapes checked."""
    if not path.is_file():
        raise S2KDError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise S2KDError(f"{path}: not readable as .npz, or cut short ({error})") from None
    for key in ("vol_u8", "time", "quantities", "y", "z"):
        need(path, held, key, "the file")
    volume = held["vol_u8"]
    want = [len(held[key]) for key in ("time", "quantities", "z", "y")]
    if volume.ndim != 5 or list(volume.shape[:4]) != want or volume.dtype != np.uint8:
        raise S2KDError(
            f"{path}: vol_u8 has shape {volume.shape} and type {volume.dtype}, wants uint8 of "
            f"shape ({', '.join(map(str, want))}, x) as time, quantities, z and y say"
        )
    if (np.diff(held["time"]) <= 0).any():
        raise S2KDError(f"{path}: time must rise from frame to frame")
    return held


def _check(
    path: Path,
    held: dict[str, np.ndarray],
    skip: int,
    planes: tuple[int, ...],
    quantities: tuple[str, ...],
) -> None:
    known, number = held["quantities"].tolist(), len(held["y"])
    for quantity in quantities:
        if quantity not in known:
            raise S2KDError(f"{path}: has no quantity {quantity!r} (it has {', '.join(known)})")
    for plane in planes:
        if not 0 <= plane < number:
            raise S2KDError(f"{path}: has no plane {plane}, there are {number} along y")
    if not planes or not 0 <= skip < len(held["time"]) - 1:
        raise S2KDError(
            f"{path}: skip={skip} and planes={list(planes)} leave nothing of "
            f"{len(held['time'])} frames"
        )


def least_gap(time: np.ndarray, step: float) -> int:
    """Frames to leave out at a cut, so that no stored frame is drawn on by both its sides."""
    return int(np.ceil(2 * float(np.diff(time).max()) / step)) - 1


def check_step(time: np.ndarray, step: float, gap: int) -> None:
    """Refuse a gap that would let both sides of a cut be made of one stored frame."""
    if step <= 0:
        raise S2KDError(f"fds: step_seconds={step} must be positive")
    apart, least = float(np.diff(time).max()), least_gap(time, step)
    if gap < least:
        raise S2KDError(
            f"fds: gap={gap} frames of {step:.3g} s are too short a gap between splits, as stored "
            f"frames lie up to {apart:.3g} s apart; wants gap ≥ {least}"
        )


def _plane(
    held: dict[str, np.ndarray], skip: int, plane: int, quantities: tuple[str, ...]
) -> Float[np.ndarray, "time channel height width"]:
    """One y, top row first, in °C or as fractions of a quantity's range."""
    known = held["quantities"].tolist()
    wanted = held["vol_u8"][skip:, :, :, plane][:, [known.index(q) for q in quantities]]
    if held["z"][0] < held["z"][-1]:
        wanted = wanted[:, :, ::-1]
    values = wanted.astype(np.float32) / FULL_SCALE
    for number, quantity in enumerate(quantities):
        if quantity in RANGES:
            low, high, _ = RANGES[quantity]
            values[:, number] = low + values[:, number] * (high - low)
    return values


def resample(
    frames: Float[np.ndarray, "time channel height width"],
    time: Float[np.ndarray, " time"],
    wanted: Float[np.ndarray, " steps"],
) -> Float[np.ndarray, "steps channel height width"]:
    """Frames at the `wanted` times by linear interpolation between those at `time`.

    A frame may draw on the first one stored after it, so a forecast's past reaches into the future
    by less than one stored step; splits stay apart by their gap.
    """
    after = np.clip(np.searchsorted(time, wanted, side="right"), 1, len(time) - 1)
    share = np.clip((wanted - time[after - 1]) / (time[after] - time[after - 1]), 0, 1)
    share = share.astype(np.float32)[:, None, None, None]
    return (1 - share) * frames[after - 1] + share * frames[after]
