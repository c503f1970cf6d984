"""FDS runs of many environments: `environments.json` and one array of frames each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s2kd.core.files import read_json
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data._environments import end_to_end_stretches, splits_of
from s2kd.data._fds_frames import need, shrink, times
from s2kd.data.dataset import Dataset

CF_UNITS = {"1/m": "m-1", "m/s": "m s-1"}
UNSEEN = {"unseen_hrr": "test_unseen_heat_release", "unseen_velocity": "test_unseen_velocity"}


def from_runs(
    path: Path,
    chosen: str,
    crop: Sequence[int] | None,
    pool: int,
    fractions: tuple[float, float, float],
    gap: int,
) -> Dataset:
    """The layout of many environments."""
    index = path / "environments.json"
    sets = need(index, read_json(index), "sets", "the file")
    facts = need(index, sets, chosen, "`sets`")
    named, units, step, first, suggested, listed = (
        need(index, facts, key, f"set {chosen!r}")
        for key in (
            "channels",
            "units",
            "frame_step_s",
            "first_frame_s",
            "suggested_split",
            "environments",
        )
    )
    files = {
        need(index, one, "name", "an environment"): need(index, one, "file", "an environment")
        for one in listed
    }
    seen = need(index, suggested, "seen", "`suggested_split`")
    unseen = {split: suggested[key] for key, split in UNSEEN.items() if suggested.get(key)}
    wanted = [*seen, *(name for names in unseen.values() for name in names)]
    for name in wanted:
        if name not in files:
            raise S2KDError(
                f"{index}: `suggested_split` asks for {name!r}, the environments are "
                f"{', '.join(files)}"
            )
    frames = {
        name: shrink(_run(path / files[name], len(named)), crop=crop, pool=pool) for name in wanted
    }
    _same_grid(path, frames)
    stretches = end_to_end_stretches({name: len(held) for name, held in frames.items()})
    clocks = [first + step * np.arange(len(frames[name])) for name in wanted]
    channels = tuple(name.lower().replace(" ", "_").replace("-", "_") for name in named)
    everything = np.concatenate([frames[name] for name in wanted])
    return Dataset(
        name="fds",
        domain="fire",
        grid=GridSpec(
            channels=channels,
            units=tuple(CF_UNITS.get(unit, unit) for unit in units),
            height=everything.shape[2],
            width=everything.shape[3],
            step_seconds=float(step),
        ),
        frames=everything,
        times=times(np.concatenate(clocks)),
        splits=splits_of(stretches, seen, unseen, fractions=fractions, gap=gap),
        attributes={
            channel: {"long_name": name.lower()}
            for channel, name in zip(channels, named, strict=True)
        },
        source=f"FDS, {facts.get('title', chosen)}",
    )


def _run(path: Path, channels: int) -> np.ndarray:
    """One environment's frames as stored."""
    if not path.is_file():
        there = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise S2KDError(f"{path}: no such file (there is {', '.join(there[:12]) or 'nothing'})")
    try:
        frames = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise S2KDError(f"{path}: not readable as .npy, or cut short ({error})") from None
    if frames.ndim != 4 or frames.shape[1] != channels or frames.dtype.kind != "f":
        raise S2KDError(
            f"{path}: has shape {frames.shape} and type {frames.dtype}, wants floats of shape "
            f"(time, {channels}, height, width)"
        )
    if not np.isfinite(frames).all():
        raise S2KDError(f"{path}: holds values that are not finite")
    return frames


def _same_grid(path: Path, frames: dict[str, np.ndarray]) -> None:
    if not frames:
        raise S2KDError(f"{path}: environments.json names no environment to learn from")
    first = next(iter(frames))
    for name, held in frames.items():
        if held.shape[1:] != frames[first].shape[1:]:
            raise S2KDError(
                f"{path}: frames of {name} have shape {held.shape[1:]}, those of {first} "
                f"{frames[first].shape[1:]}"
            )
