"""Slice files of the Fire Dynamics Simulator (FDS): a plane of one run, or of several runs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from s2kd.core.files import read_json
from s2kd.core.recipe import read
from s2kd.core.types import S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import FrameSource
from s2kd.data.readers._fires import (
    Parameters,
    even_runs,
    finished,
    fire_record,
    known_parameters,
    suggested_unseen,
)
from s2kd.data.readers._record import check_names
from s2kd.data.readers._smokeview import AXES, SliceFile, SliceFrames, read_smokeview

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

PARAMETERS = "parameters.json"
ALIASES = {"heat_release": ("SURF.HRRPUA",), "ventilation": ("SURF.VEL", "WIND.SPEED")}
"""Plain names of entries: heat released per area (kW/m²), speed of the air let in (m/s)."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?"
ENTRY = re.compile(rf"([A-Za-z_]\w*)\s*(?:\([^)]*\))?\s*=\s*({NUMBER})(?![\w.])")


@readers.register("fds_slices")
def fds_slices(
    *,
    path: str | Path,
    plane: str | None = None,
    quantities: Sequence[str] | None = None,
    skip_seconds: float | int = 0.0,
    step_seconds: float | int | None = None,
    crop: Sequence[int] | None = None,
    pool: int = 1,
) -> "xr.Dataset":
    """A plane of slice files out of one run of FDS, or out of several runs.

    Vertical planes have the top first, horizontal ones the greatest y. Cells that no mesh covers,
    or that obstacles fill in every run, are masked. The parameters of a run are the numbers of its
    `.fds` input ("SURF.HRRPUA"), "heat_release" and "ventilation" (`ALIASES`), and those of a
    `parameters.json` in `path` by run.

    Args:
        path: a `.smv` file, the folder of a run, or a folder with one folder per run.
        plane: as in "y = 3 m"; may be left out where there is only one. The slices of all meshes
            are joined.
        quantities: FDS's names in any spelling ("TEMPERATURE", "u_velocity"), which become the
            channels, in FDS's units; default: all that the plane has.
        skip_seconds: where the record begins.
        step_seconds: frames are interpolated linearly from the uneven times of FDS onto these
            steps; default: the median step of all runs.
        crop: first row, stop row, first column, stop column.
        pool: side of the blocks of cells that are averaged.

    Raises:
        S2KDError: runs without slices, several planes to choose from, quantities that are not
            there, meshes that do not join, runs on other grids, and files that are damaged.
    """
    location = Path(path).expanduser()
    indexes = run_indexes(location)
    runs = {name: open_run(smv, plane, quantities) for name, smv in indexes.items()}
    _check_same_planes(runs)
    first = next(iter(runs.values()))
    times = {name: run.times for name, run in runs.items()}
    step = median_step(times.values()) if step_seconds is None else float(step_seconds)
    frames, mask = finished(
        "fds_slices",
        {name: run.frames for name, run in runs.items()},
        exists=np.any([run.free for run in runs.values()], axis=0),
        crop=crop,
        pool=pool,
    )
    frames, clocks, gap = even_runs(str(path), frames, times, step=step, begin=float(skip_seconds))
    parameters = run_parameters(location, indexes)
    return fire_record(
        frames,
        clocks,
        exists=None if mask is None or mask.all() else mask,
        channels=first.channels,
        units=first.units,
        long_names={channel: channel.replace("_", " ") for channel in first.channels},
        name="fds",
        source=f"FDS slices, {', '.join(smv.stem for smv in indexes.values())}",
        step_seconds=step,
        parameters=parameters,
        split={
            "fractions": (0.7, 0.1, 0.2),
            "gap": max(10, gap),
            "unseen": suggested_unseen(parameters),
        },
        smallest_gap=gap,
        notices=tuple(notice for run in runs.values() for notice in run.notices),
    )


def run_indexes(path: Path) -> dict[str, Path]:
    """The `.smv` files at `path` by the name of the run: its folder's, or its own."""
    if path.suffix == ".smv" and path.is_file():
        return {path.stem: path}
    files = sorted(path.glob("[!.]*.smv"))
    if files:
        return {smv.stem: smv for smv in files}
    nested = sorted(path.glob("*/[!.]*.smv"))
    if not nested:
        raise S2KDError(
            f"{path}: must be a .smv file, or a folder that holds some or folders with some; FDS "
            "writes it next to .sf files"
        )
    single = len({smv.parent for smv in nested}) == len(nested)
    return {(smv.parent.name if single else f"{smv.parent.name}/{smv.stem}"): smv for smv in nested}


class Plane(FrameSource):
    """One quantity on one plane, joined over meshes; the first mesh counts where two meet.

    Frames have row 0 at the greatest `y`; `x` and `y` are ascending positions in metres along the
    plane's columns and rows. `cut_short` names the file that ends first, where files end within a
    frame or after one another.
    """

    def __init__(self, files: Sequence[SliceFile]) -> None:
        self.files, self.normal = files, files[0].normal or 0
        self.across, self.up = (axis for axis in range(3) if axis != self.normal)
        self.x, columns = _union(files, self.across)
        self.y, rows = _union(files, self.up)
        self._areas = list(zip(rows, columns, strict=True))
        self._opened = [SliceFrames(file) for file in files]
        lengths = [len(frames.times) for frames in self._opened]
        self.times = self._opened[0].times[: min(lengths)]
        for file, frames in zip(files, self._opened, strict=True):
            _check_times(file.path, frames.times, files[0].path, self.times)
        uneven = len(set(lengths)) > 1 or any(frames.incomplete for frames in self._opened)
        self.cut_short = files[int(np.argmin(lengths))].path.name if uneven else ""
        self.shape = (len(self.times), len(self.y), len(self.x))
        self.dtype = np.dtype(np.float32)

    def read(self, first: int, stop: int) -> Float[np.ndarray, "time height width"]:
        """Frames with row 0 at the top; 0 where no mesh is."""
        frames = np.zeros((stop - first, *self.shape[1:]), dtype=np.float32)
        for file, area in reversed(list(zip(self._opened, self._areas, strict=True))):
            frames[:, *area] = file.read(first, stop)
        return frames[:, ::-1]

    def free(self) -> Bool[np.ndarray, "height width"]:
        """The cells that some mesh covers and no obstacle fills for good."""
        free = np.zeros(self.shape[1:], dtype=bool)
        for area in self._areas:
            free[area] = True
        for file in self.files:
            for nodes in file.mesh.obstacles:
                free &= ~self._inside(file, nodes)
        return free[::-1]

    def _inside(self, file: SliceFile, nodes: tuple[int, ...]) -> np.ndarray:
        """Cells within an obstacle, rows upwards; nodes on its faces touch the air."""
        bounds = [file.mesh.nodes[n // 2][number] for n, number in enumerate(nodes)]
        low, high = bounds[2 * self.normal : 2 * self.normal + 2]
        position = float(file.positions(self.normal)[0])
        # the only plane of nodes of a mesh that is one cell thick lies on every obstacle's face
        thin = len(file.mesh.nodes[self.normal]) == 2
        cut = low <= position <= high if thin else low < position < high
        columns = (self.x > bounds[2 * self.across]) & (self.x < bounds[2 * self.across + 1])
        rows = (self.y > bounds[2 * self.up]) & (self.y < bounds[2 * self.up + 1])
        return cut & rows[:, None] & columns


def _check_times(file: Path, times: np.ndarray, reference: Path, expected: np.ndarray) -> None:
    count = min(len(times), len(expected))
    if not np.allclose(times[:count], expected[:count], atol=1e-3):
        raise S2KDError(
            f"{file}: was written at other times than {reference.name}; choose quantities that "
            "share them"
        )


def _union(files: Sequence[SliceFile], axis: int) -> tuple[np.ndarray, list[slice]]:
    """All positions in order, and the range of each mesh among them, without a gap."""
    positions = [file.positions(axis) for file in files]
    spacing = min(float(np.diff(values).min()) for values in positions if len(values) > 1)
    joined = np.sort(np.concatenate(positions))
    # FDS writes coordinates with five decimals
    joined = joined[np.concatenate([[True], np.diff(joined) > 0.1 * spacing])]
    ranges = []
    for values, file in zip(positions, files, strict=True):
        first = int(np.searchsorted(joined, values[0] - 0.1 * spacing))
        part = joined[first : first + len(values)]
        if len(part) != len(values) or np.abs(part - values).max() > 0.1 * spacing:
            sizes = sorted({round(float(np.diff(p).mean()), 4) for p in positions if len(p) > 1})
            raise S2KDError(
                f"{file.path}: mesh {file.mesh.number} has other cells along {AXES[axis]} than the "
                f"meshes next to it ({' and '.join(f'{size:g} m' for size in sizes)}); only meshes "
                "of one cell size join"
            )
        ranges.append(slice(first, first + len(values)))
    return joined, ranges


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRun:
    """The chosen quantities of one run on one plane, as FDS wrote them.

    `frames` are (time, channel, height, width) at `times` (s); `free` are the cells of air.
    """

    smv: Path
    location: str
    channels: tuple[str, ...]
    units: tuple[str, ...]
    frames: "da.Array"
    times: np.ndarray
    free: Bool[np.ndarray, "height width"]
    notices: tuple[str, ...]


def open_run(smv: Path, plane: str | None, quantities: Sequence[str] | None) -> StoredRun:
    """The plane and quantities of a run that are asked for, or that there are."""
    planes = planes_of(read_smokeview(smv))
    if not planes:
        raise S2KDError(
            f"{smv}: names no plane of slices (&SLCF with PBX, PBY or PBZ); volumes and surfaces "
            "are not read"
        )
    matching = [text for text in planes if plane is None or _position(text) == _position(plane)]
    if len(matching) != 1:
        problem = f"has no plane {plane!r}" if plane is not None else "several planes; choose one"
        raise S2KDError(f"{smv}: {problem} (there are {', '.join(map(repr, planes))})")
    (location,) = matching
    by_channel: dict[str, list[SliceFile]] = {}
    for file in planes[location]:
        by_channel.setdefault(channel_name(file.quantity), []).append(file)
    channels = tuple(by_channel if quantities is None else map(channel_name, quantities))
    check_names(f"{smv}: {location}: no quantity", channels, by_channel)
    files = [by_channel[channel] for channel in channels]
    # written both ways, the values of cells are the simulator's own
    files = [[f for f in group if f.centred] or group for group in files]
    return _stored_run(smv, location, channels, [Plane(group) for group in files])


def _stored_run(
    smv: Path, location: str, channels: tuple[str, ...], planes: Sequence[Plane]
) -> StoredRun:
    import dask.array as da

    first, count = planes[0], min(len(plane.times) for plane in planes)
    for plane in planes[1:]:
        if plane.shape[1:] != first.shape[1:] or not np.allclose(plane.x, first.x):
            raise S2KDError(
                f"{smv}: quantities on {location} do not lie on the same points (cell-centred and "
                "not?); choose quantities that do"
            )
        _check_times(plane.files[0].path, plane.times, first.files[0].path, first.times)
    written = first.times[:count]
    # a run that was started again writes some times twice: the later ones count
    later = np.minimum.accumulate(written[::-1])[::-1]
    numbers = np.flatnonzero(written < np.append(later[1:], np.inf))
    if len(numbers) < 2:
        raise S2KDError(
            f"{smv}: {len(numbers)} frames of {first.files[0].path.name} are complete; two are "
            "needed"
        )
    notices = [
        f"{smv}: {plane.cut_short} ends within a frame, or before the others; {count} complete "
        f"frames are read, to {written[numbers[-1]]:.4g} s"
        for plane in planes
        if plane.cut_short
    ][:1]
    if len(numbers) < count:
        notices.append(
            f"{smv}: {count - len(numbers)} frames were written again after a restart; the later "
            "ones are read"
        )
    chunks = ("auto", -1, -1)
    arrays = [da.from_array(p, chunks=chunks, name=False, fancy=False)[:count] for p in planes]
    frames = da.stack(arrays, axis=1)
    return StoredRun(
        smv=smv,
        location=location,
        channels=channels,
        units=tuple(cf_unit(plane.files[0].unit) for plane in planes),
        frames=frames[numbers] if len(numbers) < count else frames,
        times=written[numbers],
        free=first.free(),
        notices=tuple(notices),
    )


def planes_of(files: Iterable[SliceFile]) -> dict[str, list[SliceFile]]:
    """The slice files by plane (`y = 3 m`), whatever the quantity, in order of appearance."""
    groups: list[tuple[int, float, list[SliceFile]]] = []
    for file in files:
        if file.normal is None:
            continue
        position = float(file.positions(file.normal)[0])
        thickness = float(np.diff(file.mesh.nodes[file.normal]).min())
        for normal, location, listed in groups:
            if normal == file.normal and abs(location - position) < 0.5 * thickness:
                listed.append(file)
                break
        else:
            groups.append((file.normal, position, [file]))
    return {f"{AXES[n]} = {location:.4g} m": listed for n, location, listed in groups}


def _position(text: str) -> tuple[str, float] | None:
    """The plane meant by `y=3`, `Y = 3.0 m` and the like."""
    match = re.fullmatch(rf"([xyz])=({NUMBER})m?", text.replace(" ", "").lower())
    return (match[1], round(float(match[2]), 4)) if match else None


def _check_same_planes(runs: Mapping[str, StoredRun]) -> None:
    first_name, first = next(iter(runs.items()))
    for name, run in runs.items():
        for noun, value, expected in (
            ("quantities", run.channels, first.channels),
            ("plane", run.location, first.location),
            ("points", run.free.shape, first.free.shape),
        ):
            if value != expected:
                raise S2KDError(
                    f"{run.smv}: run {name!r} has {noun} {value}, run {first_name!r} {expected}; "
                    "all runs of a dataset must share them"
                )


def median_step(times: Iterable[np.ndarray]) -> float:
    """Seconds, to the four digits that times in single precision allow."""
    return float(f"{np.median(np.concatenate([np.diff(stored) for stored in times])):.4g}")


def channel_name(quantity: str) -> str:
    """`U-VELOCITY` as `u_velocity`."""
    return quantity.lower().replace(" ", "_").replace("-", "_")


def cf_unit(unit: str) -> str:
    """FDS's way of writing a unit in CF's: `kW/m3` as `kW m-3`, `C` as `degC`."""
    if unit in ("C", "degC"):
        return "degC"
    above, _, below = unit.partition("/")
    if above == below or unit in ("", "-"):
        return "1"
    if not below:
        return unit
    name = below.rstrip("0123456789")
    power = below[len(name) :] or "1"
    return f"{'' if above == '1' else above} {name}-{power}".strip()


# --- parameters -----------------------------------------------------------------------------------


def run_parameters(path: Path, indexes: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Parameters by run: of its `.fds` file, their plain names, then those of `parameters.json`."""
    sidecar = (path if path.is_dir() else path.parent) / PARAMETERS
    listed = read(Parameters, read_json(sidecar), str(sidecar)) if sidecar.is_file() else {}
    parameters = {}
    for name, smv in indexes.items():
        inputs = sorted(smv.parent.glob("[!.]*.fds"))
        paired = smv.with_suffix(".fds")
        file = paired if paired in inputs else inputs[0] if len(inputs) == 1 else None
        values = {} if file is None else namelist_numbers(file.read_text("utf-8", "replace"))
        for alias, entries in ALIASES.items():
            for entry in entries:
                if entry in values:
                    values.setdefault(alias, abs(values[entry]))
        parameters[name] = values | known_parameters(listed, name)
    return parameters


def namelist_numbers(text: str) -> dict[str, float]:
    """`{"SURF.HRRPUA": 300.0, …}` of an FDS input: the number of largest magnitude per entry.

    What FDS reads lies between `&GROUP` and `/`; strings are skipped, `!` begins a comment.
    """
    text = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "''", text)
    text = re.sub(r"!.*", "", text)
    numbers: dict[str, float] = {}
    for group, body in re.findall(r"&(\w+)(.*?)/", text, re.DOTALL):
        for key, number in ENTRY.findall(body):
            name = f"{group}.{key}".upper()
            value = float(re.sub("[Dd]", "e", number))
            numbers[name] = max(numbers.get(name, value), value, key=abs)
    return numbers


# --- description of a folder ----------------------------------------------------------------------


def describe_layout(path: Path) -> "DetectedLayout | None":
    """Runs of FDS, with the plane that has the most quantities."""
    from s2kd.data.describe import DetectedLayout

    location = path.parent if path.suffix == ".sf" else path
    if location.suffix != ".smv" and not any(
        any(location.glob(p)) for p in ("[!.]*.smv", "*/[!.]*.smv")
    ):
        return None
    settings: dict[str, object] = {"path": str(location)}
    lines, problems = ["FDS slices"], []
    try:
        indexes = run_indexes(location)
        planes = planes_of(read_smokeview(next(iter(indexes.values()))))
        channels = {
            text: dict.fromkeys(channel_name(file.quantity) for file in files)
            for text, files in planes.items()
        }
        lines = [f"FDS slices, {len(indexes)} run{'s' * (len(indexes) > 1)}"]
        lines += [f"{text}: {', '.join(names)}" for text, names in channels.items()]
        if len(channels) > 1:
            settings["plane"] = max(channels, key=lambda text: len(channels[text]))
    except S2KDError as error:
        problems.append(str(error))
    return DetectedLayout(reader="fds_slices", settings=settings, lines=lines, problems=problems)
