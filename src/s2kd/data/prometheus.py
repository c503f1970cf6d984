"""Prometheus: simulated tunnel and pool fires, one large array of frames an environment.

Wu et al., "Prometheus: Out-of-distribution Fluid Dynamics Modeling with Disentangled Graph ODE",
ICML 2024. The published files do not say their axes, units or parameters; `prometheus.json` beside
them does.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from s2kd.core.registry import nearest
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data._arrays import Held, PlainArray
from s2kd.data._end_to_end import Finish, end_to_end, refuse_not_finite, same_grid
from s2kd.data._environments import (
    EXTREMES,
    Unseen,
    end_to_end_stretches,
    held_out,
    shares,
    splits_of,
)
from s2kd.data._fds_frames import times
from s2kd.data._prometheus_layout import (
    AXES,
    SIDECAR,
    Layout,
    check_shape,
    files_of,
    header,
    layout_of,
    parameters_of,
)
from s2kd.data.dataset import Dataset

SAMPLED_FRAMES = 64
"""Frames of an environment that are looked at for cells that never change."""


@datasets.register("prometheus")
def prometheus(
    *,
    path: str | Path,
    set: str | None = None,
    channels: Sequence[str] | None = None,
    environments: Sequence[str] | None = None,
    unseen: Unseen | None = None,
    crop: Sequence[int] | None = None,
    pool: int = 1,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    gap: int = 12,
    memory_gb: float | int = 1.0,
) -> Dataset:
    """Fires in many environments: `a*_fds.npy` (tunnels, T) and `Prometheus-P/b*_fds.npy` (pools).

    `path` is the folder that was downloaded, `set` "T" or "P" (default: what is there, T first).
    Its `prometheus.json` gives axes, channels, units, the step, the crop, obstacles and the
    parameters of every environment; where it is missing, the error holds one to edit. Only files
    that are there count. `channels` and `environments` choose some; `crop` (first row, stop row,
    first column, stop column) overrides the sidecar's, `pool` averages square blocks of cells.

    `unseen` holds environments out by parameter, each as a split "test_unseen_<parameter>":
    "extremes" (the lowest and the highest value; the default is that of heat_release), the range
    [low, high] that is seen, or names; {} learns from all. Seen environments are cut by time into
    `fractions` (train, val, test), `gap` frames left out. A stretch is named by its environment.

    Up to `memory_gb` GiB of frames are held in memory; more are read from disk slice by slice (and
    known by a hash of an even sample).

    Raises S2KDError for files that are cut short, hold other shapes than the sidecar says or than
    each other, values that are not finite where cells exist, and settings that are not there.
    """
    three = shares("prometheus", fractions, gap)
    files = files_of(Path(path).expanduser(), set)
    folder = next(iter(files.values())).parent
    layout = layout_of(folder, files)
    files = _some(folder, files, environments)
    seen, held = held_out(
        str(folder),
        {name: parameters_of(layout, name) for name in files},
        {"heat_release": EXTREMES} if unseen is None else unseen,
    )
    names = [*seen, *(name for listed in held.values() for name in listed)]
    kept = _channel_numbers(folder / SIDECAR, layout, channels)
    stored = {name: Stored(files[name], header(files[name]), layout, kept) for name in names}
    same_grid({str(run.path): run for run in stored.values()})
    exists = _exists(folder, layout, stored, seen, three[0])
    cut = (layout.crop if crop is None else crop) or None
    finish = Finish(exists=exists, crop=cut, pool=pool, part="prometheus")
    runs = [Run(run, finish, layout) for run in stored.values()]
    stretches = end_to_end_stretches({name: run.shape[0] for name, run in stored.items()})
    frames = end_to_end(runs, memory_gb)
    step = layout.step_seconds
    return Dataset(
        name="prometheus",
        domain="fire",
        grid=GridSpec(
            channels=tuple(layout.channels[i] for i in kept),
            units=tuple(layout.units[i] for i in kept),
            height=frames.shape[2],
            width=frames.shape[3],
            step_seconds=step,
            mask=finish.mask(),
        ),
        frames=frames,
        times=times(np.concatenate([step * np.arange(run.shape[0]) for run in runs])),
        splits=splits_of(stretches, seen, held, fractions=three, gap=gap),
        source=f"Prometheus, {', '.join(file.name for file in files.values())}",
    )


def _some(folder: Path, files: Mapping[str, Path], wanted: Sequence[str] | None) -> dict[str, Path]:
    for name in wanted or ():
        if name not in files:
            raise S2KDError(
                f"{folder}: no environment {name!r}{nearest(name, files)} (there are "
                f"{', '.join(files)})"
            )
    return {name: files[name] for name in (files if wanted is None else wanted)}


def _channel_numbers(sidecar: Path, layout: Layout, wanted: Sequence[str] | None) -> list[int]:
    known = layout.channels
    for name in wanted or ():
        if name not in known:
            raise S2KDError(
                f"{sidecar}: has no channel {name!r}{nearest(name, known)} (it has "
                f"{', '.join(known)})"
            )
    return [known.index(name) for name in (known if wanted is None else wanted)]


class Stored:
    """One environment as it is stored, turned to (time, channel, height, width), row 0 at the top.

    Where time is the first axis, frames are read at their place in the file; else they are
    gathered from a memory map, which touches much more of it.
    """

    def __init__(self, path: Path, held: Held, layout: Layout, channels: Sequence[int]) -> None:
        check_shape(path, held, layout)
        self.path, self.layout, self.channels = path, layout, list(channels)
        self._array = PlainArray(path, str(path))
        sizes = dict(zip(layout.axes, held.shape, strict=True))
        self.shape = (sizes["time"], len(channels), sizes["height"], sizes["width"])

    def read(self, first: int, stop: int) -> np.ndarray:
        """(time, channel, height, width) as stored, of whatever type."""
        axes = list(self.layout.axes)
        before = (slice(None),) * axes.index("time")
        values = self._array.read((*before, slice(first, stop)))
        values = values[tuple(self.layout.pick.get(axis, slice(None)) for axis in axes)]
        axes = [axis for axis in axes if axis not in self.layout.pick]
        if "channel" not in axes:
            values, axes = values[None], ["channel", *axes]
        values = values.transpose([axes.index(axis) for axis in AXES])[:, self.channels]
        return values[:, :, ::-1] if self.layout.first_row == "bottom" else values


class Run:
    """One environment's finished frames."""

    def __init__(self, stored: Stored, finish: Finish, layout: Layout) -> None:
        self.stored, self.finish = stored, finish
        self.names = [layout.channels[i] for i in stored.channels]
        self.shape = (stored.shape[0], *finish(stored.read(0, 1)).shape[1:])

    def read(self, first: int, stop: int) -> Float[np.ndarray, "time channel height width"]:
        """Frames `first` up to `stop`."""
        frames = self.finish(self.stored.read(first, stop))
        refuse_not_finite(str(self.stored.path), frames, self.names, first)
        return frames


def _exists(
    folder: Path,
    layout: Layout,
    stored: Mapping[str, Stored],
    seen: Sequence[str],
    training: float,
) -> Bool[np.ndarray, "height width"] | None:
    """The cells that exist, in the way the sidecar's `mask` asks for."""
    height, width = next(iter(stored.values())).shape[2:]
    match layout.mask:
        case None:
            return None
        case "nan":
            first = [run.read(0, 1)[0] for run in stored.values()]
            exists = np.all([np.isfinite(frame).all(0) for frame in first], axis=0)
        case "constant":
            exists = np.any([_changes(stored[name], training) for name in seen], axis=0)
        case name:
            exists = _mask_file(folder / name)
    if exists.shape != (height, width):
        raise S2KDError(
            f"{folder / layout.mask}: has shape {exists.shape}, the frames are {height}×{width}"
        )
    if not exists.any():
        raise S2KDError(f"{folder / SIDECAR}: mask={layout.mask!r} leaves no cell")
    return exists


def _changes(run: Stored, training: float) -> Bool[np.ndarray, "height width"]:
    """Cells that take more than one value in a sample of the frames that are learned from."""
    last = max(1, round(run.shape[0] * training))
    numbers = np.unique(np.linspace(0, last - 1, min(last, SAMPLED_FRAMES)).astype(int))
    start = run.read(0, 1)[0]
    changed = np.zeros(run.shape[2:], dtype=bool)
    for number in numbers:
        changed |= (run.read(int(number), int(number) + 1)[0] != start).any(0)
    return changed


def _mask_file(path: Path) -> Bool[np.ndarray, "height width"]:
    try:
        return np.load(path, allow_pickle=False).astype(bool)
    except (OSError, ValueError, EOFError) as error:
        raise S2KDError(
            f"{path}: the sidecar's mask must be null, 'nan', 'constant' or a .npy beside it "
            f"({error})"
        ) from None
