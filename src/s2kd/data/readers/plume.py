"""A simulated fire: buoyant plumes in several environments, some of them unseen in training."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._record import member_splits, per_frame, record, seconds_after_epoch

if TYPE_CHECKING:
    import xarray as xr


@readers.register("plume")
def plume(
    *,
    heat_release: Sequence[float | int] = (100, 200),
    wind: Sequence[float | int] = (0.5, 1.0),
    unseen_heat_release: Sequence[float | int] = (400,),
    unseen_wind: Sequence[float | int] = (1.5,),
    members: int = 4,
    frames: int = 80,
    spin_up_frames: int = 16,
    step_seconds: float | int = 0.25,
    height: int = 32,
    width: int = 64,
    cell: float | int = 0.25,
    velocities: bool = False,
    seed: int = 0,
) -> "xr.Dataset":
    """Temperature rise (K) and smoke (mg/m³) over a burner, in several environments.

    Args:
        heat_release: kW per metre of depth; with every `wind` a seen environment.
        wind: m/s.
        unseen_heat_release: unseen environments under every `wind`.
        unseen_wind: unseen environments at every `heat_release`.
        members: runs per seen environment: the last is the test split, the one before it the val
            split. An unseen environment has one run, in the split `test_unseen`.
        frames: per run.
        spin_up_frames: left out before them, from ignition.
        step_seconds: between frames.
        height: cells.
        width: cells.
        cell: side of a cell in metres.
        velocities: add the horizontal and the vertical velocity (m/s) as channels.
        seed: of the burners' positions and flicker.

    Raises:
        S2KDError: an empty list, a heat release that is not positive, a negative wind, an
            environment both seen and unseen, or too few members, frames or cells.
    """
    # PyTorch, which other readers do without
    from s2kd.data.readers._boussinesq import CHANNELS, UNITS, simulate

    learnt = tuple(itertools.product(heat_release, wind))
    unseen = (
        *itertools.product(unseen_heat_release, wind),
        *itertools.product(heat_release, unseen_wind),
    )
    _check_environments(learnt, unseen)
    labels = member_splits("plume", members)
    if min(frames, step_seconds, cell) <= 0 or spin_up_frames < 0 or min(height, width) < 8:
        raise S2KDError(
            f"plume: frames={frames}, step_seconds={step_seconds} and cell={cell} must be "
            f"positive, spin_up_frames={spin_up_frames} not negative, and height={height} and "
            f"width={width} at least 8"
        )
    runs = [(*environment, label) for environment in learnt for label in labels]
    runs += [(*environment, "test_unseen") for environment in unseen]
    powers, winds, splits = zip(*runs, strict=True)
    fields = simulate(
        heat_release=powers,
        wind=winds,
        seeds=[(seed, number) for number in range(len(runs))],
        height=height,
        width=width,
        cell=cell,
        frames=spin_up_frames + frames,
        step_seconds=step_seconds,
    )[:, spin_up_frames:, : 4 if velocities else 2]
    channels = CHANNELS[: fields.shape[2]]
    clock = (np.arange(spin_up_frames, spin_up_frames + frames) + 1) * step_seconds
    return record(
        fields.reshape(-1, len(channels), height, width).numpy(),
        channels=channels,
        units=UNITS[: len(channels)],
        times=np.tile(seconds_after_epoch(clock), len(runs)),
        coords={
            "run": per_frame(map(environment_name, powers, winds), frames),
            "split": per_frame(splits, frames),
        },
        long_names={name: name.replace("_", " ") for name in channels},
        name="plume",
        domain="fire",
        source="simulated: buoyant plume in a cross wind",
        step_seconds=float(step_seconds),
    )


def environment_name(heat_release: float | int, wind: float | int) -> str:
    """As in "100 kW/m, 0.5 m/s"."""
    return f"{heat_release:g} kW/m, {wind:g} m/s"


def _check_environments(seen: tuple, unseen: tuple) -> None:
    bad = any(power <= 0 or speed < 0 for power, speed in (*seen, *unseen))
    if bad or not seen or {*seen} & {*unseen}:
        raise S2KDError(
            "plume: heat_release and wind need at least one value each, heat release positive and "
            "wind not negative, and no environment may be both seen and unseen; got (heat release, "
            f"wind) {seen} and unseen {unseen}"
        )
