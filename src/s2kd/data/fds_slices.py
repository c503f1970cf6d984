"""Your own runs of the Fire Dynamics Simulator (FDS), straight from its `.smv` and `.sf` files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from s2kd.core.registry import nearest
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data import datasets
from s2kd.data._end_to_end import Finish, end_to_end, refuse_not_finite, same_grid
from s2kd.data._environments import Unseen, end_to_end_stretches, held_out, shares, splits_of
from s2kd.data._fds_frames import times
from s2kd.data._fds_input import parameters_of, sidecar_of
from s2kd.data._fds_slices import Plane, cf_unit, channel_name, planes_of
from s2kd.data._fds_smv import Smokeview, read_smokeview
from s2kd.data._fds_volume import check_step, resample
from s2kd.data.dataset import Dataset


@datasets.register("fds_slices")
def fds_slices(
    *,
    path: str | Path,
    plane: str | None = None,
    quantities: Sequence[str] | None = None,
    unseen: Unseen | None = None,
    skip_seconds: float | int = 0.0,
    step_seconds: float | int | None = None,
    crop: Sequence[int] | None = None,
    pool: int = 1,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    gap: int = 10,
    memory_gb: float | int = 1.0,
) -> Dataset:
    """A plane of slice files out of one run of FDS, or out of several as environments.

    `path` is a `.smv` file, the folder of a run, or a folder with a folder a run. The slices of all
    meshes are joined into one `plane` ("y = 3 m"; may be left out where a run has only one).
    `quantities` are FDS's names in any spelling ("TEMPERATURE", "u_velocity"; default: all that the
    plane has) and become the channels, in FDS's units. Vertical planes have the top first,
    horizontal ones the greatest y. Cells that no mesh covers, or that obstacles fill in every run,
    are masked.

    FDS writes at uneven times: from `skip_seconds` on, frames are interpolated linearly onto steps
    of `step_seconds` (default: the median step of all runs). A last frame that was not written
    whole is left out, and a notice says so.

    `unseen` holds runs out by parameter, each as a split "test_unseen_<parameter>": "extremes" (the
    lowest and the highest value), the range [low, high] that is seen, or names; default: none.
    Parameters are the numbers of a run's `.fds` input ("SURF.HRRPUA", of several the one of largest
    magnitude), "heat_release" for SURF.HRRPUA, "ventilation" for SURF.VEL or WIND.SPEED, and those
    of a `parameters.json` in `path` by run. Seen runs are cut by time into `fractions` (train, val,
    test) with `gap` frames left out. `crop`, `pool` and `memory_gb` are as in `prometheus`.

    Raises S2KDError for runs without slices, several planes to choose from, quantities that are not
    there, meshes that do not join, runs on other grids, and files that are damaged.
    """
    three = shares("fds_slices", fractions, gap)
    path = Path(path).expanduser()
    found = runs_of(path)
    sidecar = sidecar_of(path if path.is_dir() else path.parent)
    seen, held = held_out(
        str(path),
        {name: parameters_of(smv, name, sidecar) for name, smv in found.items()},
        unseen or {},
    )
    names = [*seen, *(name for listed in held.values() for name in listed)]
    stored = {name: stored_run(read_smokeview(found[name]), plane, quantities) for name in names}
    _same_planes(stored)
    free = np.any([run.exists() for run in stored.values()], axis=0)
    finish = Finish(
        exists=None if free.all() else free, crop=crop or None, pool=pool, part="fds_slices"
    )
    step = median_step(stored) if step_seconds is None else float(step_seconds)
    runs = {name: Run(run, finish, float(skip_seconds), step, gap) for name, run in stored.items()}
    same_grid({str(found[name]): run for name, run in runs.items()})
    stretches = end_to_end_stretches({name: run.shape[0] for name, run in runs.items()})
    frames = end_to_end(list(runs.values()), memory_gb)
    first = stored[names[0]]
    return Dataset(
        name="fds",
        domain="fire",
        grid=GridSpec(
            channels=first.channels,
            units=first.units,
            height=frames.shape[2],
            width=frames.shape[3],
            step_seconds=step,
            mask=finish.mask(),
        ),
        frames=frames,
        times=times(np.concatenate([run.clock for run in runs.values()])),
        splits=splits_of(stretches, seen, held, fractions=three, gap=gap),
        attributes={c: {"long_name": c.replace("_", " ")} for c in first.channels},
        source=f"FDS slices, {', '.join(smv.stem for smv in found.values())}",
        notices=tuple(notice for run in stored.values() for notice in run.notices),
    )


def runs_of(path: Path) -> dict[str, Path]:
    """The `.smv` files at `path` by the name of the run: its folder's, or its own."""
    if path.is_file():
        if path.suffix != ".smv":
            raise S2KDError(f"{path}: wants a .smv file, or a folder that holds some")
        return {path.stem: path}
    if not path.is_dir():
        raise S2KDError(f"{path}: no such file or folder")
    here = sorted(path.glob("*.smv"))
    if here:
        return {smv.stem: smv for smv in here}
    inside = sorted(path.glob("*/*.smv"))
    if not inside:
        raise S2KDError(
            f"{path}: holds no .smv file and no folder with one; FDS writes it beside the .sf files"
        )
    alone = len({smv.parent for smv in inside}) == len(inside)
    return {(smv.parent.name if alone else f"{smv.parent.name}/{smv.stem}"): smv for smv in inside}


class Stored:
    """The chosen quantities of one run on one plane, as they were written."""

    def __init__(self, smv: Path, place: str, named: dict[str, tuple[str, Plane]]) -> None:
        self.smv, self.place = smv, place
        self.channels = tuple(named)
        self.units = tuple(unit for unit, _ in named.values())
        self.planes = [plane for _, plane in named.values()]
        first = self.planes[0]
        self.x, self.y = first.x, first.y
        for plane in self.planes[1:]:
            if plane.shape != first.shape or not np.allclose(plane.x, first.x):
                raise S2KDError(
                    f"{smv}: quantities on {place} do not lie on the same points (cell-centred and "
                    "not?); choose quantities that do"
                )
        count = min(len(plane.times) for plane in self.planes)
        written = first.times[:count]
        for plane in self.planes[1:]:
            if not np.allclose(plane.times[:count], written, atol=1e-3):
                raise S2KDError(
                    f"{smv}: {plane.files[0].path.name} was written at other times than "
                    f"{first.files[0].path.name}; choose quantities that share them"
                )
        # a run that was started again writes some times twice: the later ones count
        later = np.minimum.accumulate(written[::-1])[::-1]
        self.kept = np.flatnonzero(written < np.append(later[1:], np.inf))
        self.times = written[self.kept]
        if len(self.times) < 2:
            raise S2KDError(
                f"{smv}: {len(self.times)} frames of {first.files[0].path.name} are whole; two are "
                "needed"
            )
        self.notices = self._notices(count)

    def _notices(self, count: int) -> list[str]:
        notices = []
        torn = [plane.torn for plane in self.planes if plane.torn]
        if torn:
            notices.append(
                f"{self.smv}: {torn[0]} ends within a frame, or before the others; {count} whole "
                f"frames are read, to {self.times[-1]:.4g} s"
            )
        if len(self.kept) < count:
            notices.append(
                f"{self.smv}: {count - len(self.kept)} frames were written again after a restart; "
                "the later ones are read"
            )
        return notices

    def exists(self) -> np.ndarray:
        """(height, width) bool: cells that a mesh covers and no obstacle fills."""
        return self.planes[0].free()

    def read(self, first: int, stop: int) -> Float[np.ndarray, "time channel height width"]:
        """Frames `first` up to `stop` of those that count."""
        low, high = int(self.kept[first]), int(self.kept[stop - 1]) + 1
        chosen = self.kept[first:stop] - low
        return np.stack([plane.read(low, high)[chosen] for plane in self.planes], 1)


class Run:
    """One run's frames at even steps."""

    def __init__(self, stored: Stored, finish: Finish, skip: float, step: float, gap: int) -> None:
        self.stored, self.finish = stored, finish
        written = stored.times
        check_step(written, step, gap)
        begin = max(skip, float(written[0]))
        if begin + step > written[-1]:
            raise S2KDError(
                f"{stored.smv}: skip_seconds={skip:g} and step_seconds={step:g} leave nothing of a "
                f"run that was written from {written[0]:.4g} to {written[-1]:.4g} s"
            )
        self.clock = begin + step * np.arange(int((written[-1] - begin) / step + 1e-6) + 1)
        plane = finish(stored.read(0, 1))
        self.shape = (len(self.clock), *plane.shape[1:])

    def read(self, first: int, stop: int) -> Float[np.ndarray, "time channel height width"]:
        """Frames `first` up to `stop`, each between the two that were written around it."""
        written, wanted = self.stored.times, self.clock[first:stop]
        after = np.clip(np.searchsorted(written, wanted, side="right"), 1, len(written) - 1)
        low, high = int(after.min()) - 1, int(after.max()) + 1
        frames = self.finish(self.stored.read(low, high))
        refuse_not_finite(str(self.stored.smv), frames, self.stored.channels, low)
        return resample(frames, written[low:high], wanted)


def stored_run(run: Smokeview, plane: str | None, quantities: Sequence[str] | None) -> Stored:
    """The plane and quantities of a run that are asked for, or that there are."""
    planes = planes_of(run.slices)
    if not planes:
        raise S2KDError(
            f"{run.path}: names no plane of slices (&SLCF with PBX, PBY or PBZ); volumes and "
            "surfaces are not read"
        )
    if plane is None and len(planes) > 1:
        raise S2KDError(
            f"{run.path}: has planes {', '.join(map(repr, planes))}; say which with plane"
        )
    place = next(iter(planes)) if plane is None else _same_place(plane, planes)
    if place is None:
        raise S2KDError(
            f"{run.path}: has no plane {plane!r} (there is {', '.join(map(repr, planes))})"
        )
    by_channel: dict[str, list] = {}
    for entry in planes[place]:
        by_channel.setdefault(channel_name(entry.quantity), []).append(entry)
    wanted = list(by_channel if quantities is None else map(channel_name, quantities))
    for channel in wanted:
        if channel not in by_channel:
            raise S2KDError(
                f"{run.path}: {place} has no quantity {channel!r}{nearest(channel, by_channel)} "
                f"(it has {', '.join(by_channel)})"
            )
    named = {}
    for channel in wanted:
        entries = by_channel[channel]
        centred = [e for e in entries if e.centred]
        # written both ways, the values of cells are the simulator's own
        entries = centred or entries
        named[channel] = (cf_unit(entries[0].unit), Plane(entries))
    return Stored(run.path, place, named)


def _same_place(asked: str, planes: dict[str, list]) -> str | None:
    """The plane that is meant by `y=3`, `Y = 3.0 m` and the like."""
    axis, _, rest = asked.replace(" ", "").lower().partition("=")
    for place in planes:
        known, _, metres = place.replace(" ", "").partition("=")
        try:
            if axis == known and np.isclose(float(rest.rstrip("m")), float(metres.rstrip("m"))):
                return place
        except ValueError:
            return None
    return None


def _same_planes(stored: dict[str, Stored]) -> None:
    first_name, first = next(iter(stored.items()))
    for name, run in stored.items():
        for what, one, other in (
            ("quantities", run.channels, first.channels),
            ("plane", run.place, first.place),
            ("points", (len(run.y), len(run.x)), (len(first.y), len(first.x))),
        ):
            if one != other:
                raise S2KDError(
                    f"{run.smv}: run {name!r} has {what} {one}, run {first_name!r} {other}; all "
                    "runs of a dataset share them"
                )


def median_step(stored: dict[str, Stored]) -> float:
    """The median, to the four digits that times in single precision allow."""
    every = np.concatenate([np.diff(run.times) for run in stored.values()])
    return float(f"{np.median(every):.4g}")
