"""A fire-like world: buoyant plumes in several environments, some of them held out."""

import itertools
from collections.abc import Sequence

import numpy as np

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data._boussinesq import CHANNELS, UNITS, simulate
from s2kd.data.dataset import Dataset, Stretch


@datasets.register("plume")
def plume(
    *,
    heat_release: Sequence[float | int] = (100, 200),
    wind: Sequence[float | int] = (0.5, 1.0),
    unseen_heat_release: Sequence[float | int] = (400,),
    unseen_wind: Sequence[float | int] = (1.5,),
    members: int = 4,
    val_members: int = 1,
    test_members: int = 1,
    frames: int = 80,
    spin_up_frames: int = 16,
    step_seconds: float | int = 0.25,
    height: int = 32,
    width: int = 64,
    cell: float | int = 0.25,
    velocities: bool = False,
    seed: int = 0,
) -> Dataset:
    """Temperature rise (K) and smoke (mg/m³) over a burner, in several environments.

    An environment is a heat release (kW per metre of depth) and a wind (m/s). Seen ones are all
    pairs of `heat_release` and `wind`, with `members` runs each: the last `test_members` of every
    environment are its test, the `val_members` before them val, the rest train. Unseen ones
    (`unseen_heat_release` under the seen winds, the seen heat release under `unseen_wind`) are
    the split "test_unseen", with `test_members` runs each; it is left out where both are empty. A
    stretch is one run and is named by its environment. Runs start at ignition, of which the first
    `spin_up_frames` are dropped. Cells are `cell` metres square; `velocities` adds the horizontal
    and the vertical velocity (m/s) as channels.

    Raises `S2KDError` for an empty list, a heat release that is not positive, a wind that is
    negative, an environment both seen and unseen, or too few members, frames or cells.
    """
    seen = tuple(itertools.product(heat_release, wind))
    unseen = (
        *itertools.product(unseen_heat_release, wind),
        *itertools.product(heat_release, unseen_wind),
    )
    _check(seen, unseen, members, val_members, test_members)
    if min(frames, step_seconds, cell) <= 0 or spin_up_frames < 0 or min(height, width) < 8:
        raise S2KDError(
            f"plume: frames={frames}, step_seconds={step_seconds} and cell={cell} must be "
            f"positive, spin_up_frames={spin_up_frames} not negative, and height={height} and "
            f"width={width} at least 8"
        )
    runs = [(*place, k) for place in seen for k in range(members)]
    runs += [(*place, k) for place in unseen for k in range(test_members)]
    fields = simulate(
        heat_release=[run[0] for run in runs],
        wind=[run[1] for run in runs],
        seeds=[(seed, number) for number in range(len(runs))],
        height=height,
        width=width,
        cell=cell,
        frames=spin_up_frames + frames,
        step_seconds=step_seconds,
    )[:, spin_up_frames:, : 4 if velocities else 2]
    stretches = tuple(
        Stretch(first=n * frames, stop=(n + 1) * frames, name=environment(run[0], run[1]))
        for n, run in enumerate(runs)
    )
    splits = _splits(stretches, len(seen), members, val_members, test_members)
    channels = CHANNELS[: fields.shape[2]]
    clock = (np.arange(spin_up_frames, spin_up_frames + frames) + 1) * step_seconds * 1e9
    return Dataset(
        name="plume",
        domain="fire",
        grid=GridSpec(
            channels=channels,
            units=UNITS[: len(channels)],
            height=height,
            width=width,
            step_seconds=float(step_seconds),
        ),
        frames=np.ascontiguousarray(fields.reshape(-1, len(channels), height, width).numpy()),
        times=np.tile(
            np.datetime64("2000-01-01", "ns") + np.round(clock).astype("timedelta64[ns]"),
            len(runs),
        ),
        splits=splits,
        attributes={name: {"long_name": name.replace("_", " ")} for name in channels},
        source="simulated: buoyant plume in a cross wind",
    )


def environment(heat_release: float | int, wind: float | int) -> str:
    """The name of an environment."""
    return f"{heat_release:g} kW/m, {wind:g} m/s"


def _splits(
    stretches: tuple[Stretch, ...], seen: int, members: int, val_members: int, test_members: int
) -> dict[str, tuple[Stretch, ...]]:
    splits: dict[str, list[Stretch]] = {"train": [], "val": [], "test": []}
    learnt = members - val_members - test_members
    for number, stretch in enumerate(stretches[: seen * members]):
        member = number % members
        held = "val" if member < learnt + val_members else "test"
        splits["train" if member < learnt else held].append(stretch)
    made = {name: tuple(found) for name, found in splits.items()}
    unseen = stretches[seen * members :]
    return {**made, "test_unseen": unseen} if unseen else made


def _check(seen: tuple, unseen: tuple, members: int, val_members: int, test_members: int) -> None:
    if not seen:
        raise S2KDError("plume: heat_release and wind need at least one value each")
    for power, speed in (*seen, *unseen):
        if power <= 0 or speed < 0:
            raise S2KDError(
                f"plume: heat release must be positive and wind not negative, got {power} kW/m "
                f"and {speed} m/s"
            )
    for place in set(seen) & set(unseen):
        raise S2KDError(f"plume: {environment(*place)} is both a seen and an unseen environment")
    if min(val_members, test_members) < 1 or members <= val_members + test_members:
        raise S2KDError(
            f"plume: members={members} must exceed val_members + test_members = "
            f"{val_members} + {test_members}, each at least 1"
        )
