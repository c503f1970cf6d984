"""Output of the Fire Dynamics Simulator (FDS): planes of one volume, or runs of many environments.

FDS is NIST's public-domain large-eddy simulator of fires. Two layouts of its output are read, both
as vertical planes with row 0 at the top.
"""

from collections.abc import Sequence
from pathlib import Path

from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data._environments import shares
from s2kd.data._fds_runs import from_runs
from s2kd.data._fds_volume import from_volume
from s2kd.data.dataset import Dataset

LAYOUTS = ("runs", "volume")


@datasets.register("fds")
def fds(
    *,
    path: str | Path,
    layout: str = "runs",
    set: str | None = None,
    skip: int | None = None,
    planes: Sequence[int] | None = None,
    quantities: Sequence[str] | None = None,
    step_seconds: float | int | None = None,
    crop: Sequence[int] | None = None,
    pool: int = 1,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    gap: int = 10,
) -> Dataset:
    """A fire in vertical planes, from real FDS output.

    `layout="runs"`: `path` is a folder with `environments.json` and one `.npy` (time, channel,
    height, width) an environment; `set` ("T", the default, for tunnels, "P" for pools) chooses
    among its sets. Seen environments are cut by time into train, val and test; the environments
    held out for their heat release and for their velocity are the splits
    "test_unseen_heat_release" and "test_unseen_velocity". A stretch is named by its environment.

    `layout="volume"`: `path` is an `.npz` with `vol_u8` (time, quantity, z, y, x), `time`,
    `quantities`, `y` and `z`. Frame `skip` (default 200) is the first that is kept: the fire has
    to grow first. FDS writes at uneven times, so frames are interpolated linearly onto steps of
    `step_seconds` (default: the median step). Each of `planes` (y indices, default 5 to 15) is a
    stretch; all are cut at the same times, so that no split sees a neighbour of another's plane.
    `quantities` (default temperature and soot_density) are the channels: temperature in °C, the
    others as a fraction of the range that FDS was told to plot.

    Both: `crop` keeps rows and columns (first row, stop row, first column, stop column), `pool`
    averages square blocks of so many cells, `fractions` and `gap` (frames left out) cut the time.
    The default fractions leave room for windows in records of 150 frames.

    Raises `S2KDError` for a layout, set or quantity that is not there, a setting of the other
    layout, files that are missing, cannot be read or have other shapes than they should.
    """
    path = Path(path)
    three = shares("fds", fractions, gap)
    only_volume = {
        "skip": skip,
        "planes": planes,
        "quantities": quantities,
        "step_seconds": step_seconds,
    }
    match layout:
        case "runs":
            _refuse(layout, only_volume)
            return from_runs(path, "T" if set is None else set, crop, pool, three, gap)
        case "volume":
            _refuse(layout, {"set": set})
            return from_volume(
                path,
                skip=200 if skip is None else skip,
                planes=tuple(range(5, 16) if planes is None else planes),
                quantities=tuple(quantities or ("temperature", "soot_density")),
                step_seconds=step_seconds,
                crop=crop,
                pool=pool,
                fractions=three,
                gap=gap,
            )
        case _:
            raise S2KDError(f"fds: layout={layout!r} must be one of {', '.join(LAYOUTS)}")


def _refuse(layout: str, settings: dict[str, object]) -> None:
    for name, value in settings.items():
        if value is not None:
            raise S2KDError(f"fds: layout={layout!r} has no setting {name!r}")
