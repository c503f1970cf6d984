"""Fires in many environments: Prometheus, runs of FDS as arrays, and planes of one FDS volume.

Prometheus (Wu et al., "Prometheus: Out-of-distribution Fluid Dynamics Modeling with Disentangled
Graph ODE", ICML 2024) and runs of the Fire Dynamics Simulator share one layout: an array per
environment, and a JSON file that describes them (`prometheus.json`, `environments.json`).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from jaxtyping import Bool, Float

from s2kd.core.files import read_json
from s2kd.core.recipe import read
from s2kd.core.types import S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import headers, in_order, lazy_array, listing, small_array
from s2kd.data.readers._fires import (
    Parameters,
    even_runs,
    finished,
    fire_record,
    known_parameters,
    suggested_unseen,
)
from s2kd.data.readers._record import check_names, check_one_grid, refuse_settings

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

AXES = ("time", "channel", "height", "width")
PROMETHEUS, FDS = "prometheus.json", "environments.json"
SETS = {"T": ("a", "."), "P": ("b", "Prometheus-P")}
"""First letter of the files of each set of Prometheus, and the folder they lie in as published."""
FILE_NAME = re.compile(r"([ab])(\d+)_fds\.npy")
CF_UNITS = {"1/m": "m-1", "m/s": "m s-1"}
FULL_SCALE = 254
"""The byte that stands for the upper end of a quantity's range in a volume."""
RANGES = {"temperature": (20.0, 2000.0, "degC")}
"""Physical values of bytes 0 and 254; other quantities stay a fraction of their range."""


class Layout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `prometheus.json`.

    Attributes:
        axes: every axis of the arrays in order: time, height, width, channel (unless there is one
            channel only) and any others, of which `pick` takes one entry each.
        channels: names along the channel axis.
        units: of the channels.
        step_seconds: from frame to frame.
        first_row: `top` or `bottom`.
        crop: first row, stop row, first column, stop column, counted from the top.
        mask: null, `nan` (cells that are not finite in an environment's first frame) or a `.npy`
            of (height, width), true where a cell exists, row 0 at the top.
        environments: parameters by environment; null is unknown.
    """

    axes: tuple[str, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    step_seconds: float
    first_row: Literal["top", "bottom"] = "top"
    crop: tuple[int, ...] | None = None
    pick: dict[str, int] = {}
    mask: str | None = None
    environments: Parameters = {}


class FdsRun(msgspec.Struct, frozen=True):
    """An environment of `environments.json`."""

    name: str
    file: str


class FdsSplit(msgspec.Struct, frozen=True):
    """Environments to learn from, and those to hold out by each parameter."""

    seen: tuple[str, ...]
    unseen_hrr: tuple[str, ...] = ()
    unseen_velocity: tuple[str, ...] = ()


class FdsSet(msgspec.Struct, frozen=True):
    """One set of environments in `environments.json`."""

    channels: tuple[str, ...]
    units: tuple[str, ...]
    frame_step_s: float
    first_frame_s: float
    suggested_split: FdsSplit
    environments: tuple[FdsRun, ...]
    title: str = ""


@readers.register("prometheus")
def prometheus(
    *,
    path: str | Path,
    set: str | None = None,
    channels: Sequence[str] | None = None,
    environments: Sequence[str] | None = None,
    crop: Sequence[int] | None = None,
    pool: int = 1,
) -> "xr.Dataset":
    """Fires in many environments: `a*_fds.npy` (tunnels, T) and `Prometheus-P/b*_fds.npy` (pools).

    Every environment is a run. By default the environments with the lowest and the highest heat
    release are unseen, where all are known.

    Args:
        path: the downloaded folder, with a `prometheus.json` that describes its arrays (see
            `Layout`); where it is missing, the error holds one to edit.
        set: "T" or "P"; default: T where there are such files, else P.
        channels: names of those to read; default: all.
        environments: names of those to read; default: all.
        crop: first row, stop row, first column, stop column; default: the crop of the JSON file.
        pool: side of the blocks of cells that are averaged.

    Raises:
        S2KDError: files that are cut short or do not fit the description or each other.
    """
    files = prometheus_files(Path(path).expanduser(), set)
    folder = next(iter(files.values())).parent
    layout = prometheus_layout(folder, files)
    names, picked = list(environments or files), list(channels or layout.channels)
    check_names(f"{folder}: no environment", names, files)
    check_names(f"{folder / PROMETHEUS}: no channel", picked, layout.channels)
    numbers = [layout.channels.index(channel) for channel in picked]
    stored = {name: _environment(files[name], layout) for name in names}
    exists = _existing_cells(folder, layout, stored)
    parameters = {name: known_parameters(layout.environments, name) for name in names}
    return _environments(
        {name: run[:, numbers] for name, run in stored.items()},
        crop=layout.crop if crop is None else crop,
        pool=pool,
        exists=exists,
        channels=picked,
        units=[layout.units[number] for number in numbers],
        step_seconds=layout.step_seconds,
        parameters=parameters,
        split={"fractions": (0.7, 0.1, 0.2), "gap": 12, "unseen": suggested_unseen(parameters)},
        name="prometheus",
        source=f"Prometheus, {', '.join(files[name].name for name in names)}",
    )


@readers.register("fds")
def fds(
    *,
    path: str | Path,
    set: str | None = None,
    skip: int | None = None,
    planes: Sequence[int] | None = None,
    quantities: Sequence[str] | None = None,
    step_seconds: float | int | None = None,
    crop: Sequence[int] | None = None,
    pool: int = 1,
) -> "xr.Dataset":
    """Output of the Fire Dynamics Simulator as arrays: environments, or planes of one volume.

    Environments that the JSON file suggests to hold out are unseen by default.

    Args:
        path: a folder with `environments.json` and one `.npy` (time, channel, height, width) per
            environment, or an `.npz` volume with `vol_u8` (time, quantity, z, y, x), `time`,
            `quantities`, `y` and `z`.
        set: folder: which of its sets, "T" (tunnels, the default) or "P" (pools).
        skip: volume: frames left out at the start, while the fire grows; default 200.
        planes: volume: y indices of the vertical planes, each a run; default 5 to 15.
        quantities: volume: its channels; default temperature (°C) and soot_density (a fraction of
            the range that FDS was told to plot).
        step_seconds: volume: frames are interpolated linearly from the uneven times of FDS onto
            these steps; default: the median step.
        crop: first row, stop row, first column, stop column.
        pool: side of the blocks of cells that are averaged.

    Raises:
        S2KDError: a set, quantity or setting that is not there, and files that cannot be read.
    """
    location = Path(path).expanduser()
    is_volume = location.suffix == ".npz"
    unused: dict[str, Any] = {"set": set}
    if not is_volume:
        unused = {"skip": skip, "planes": planes, "quantities": quantities}
        unused["step_seconds"] = step_seconds
    layout = "a volume" if is_volume else "a folder of environments"
    refuse_settings("fds", layout, {name: value is not None for name, value in unused.items()})
    if not is_volume:
        return _fds_environments(location, "T" if set is None else set, crop, pool)
    return _volume(
        location,
        skip=200 if skip is None else skip,
        planes=tuple(range(5, 16) if planes is None else planes),
        quantities=tuple(quantities or ("temperature", "soot_density")),
        step_seconds=step_seconds,
        crop=crop,
        pool=pool,
    )


# --- environments ---------------------------------------------------------------------------------


def _environments(
    stored: "Mapping[str, da.Array]",
    *,
    crop: Sequence[int] | None,
    pool: int,
    exists: Bool[np.ndarray, "height width"] | None = None,
    first_seconds: float = 0.0,
    step_seconds: float,
    **metadata: Any,
) -> "xr.Dataset":
    """The runs of one grid end to end, cropped and pooled."""
    check_one_grid(metadata["name"], {name: run.shape[1:] for name, run in stored.items()})
    runs, mask = finished(metadata["name"], stored, exists=exists, crop=crop, pool=pool)
    clocks = {
        name: first_seconds + step_seconds * np.arange(len(run)) for name, run in runs.items()
    }
    return fire_record(runs, clocks, exists=mask, step_seconds=float(step_seconds), **metadata)


def _environment(path: Path, layout: Layout) -> "da.Array":
    """(time, channel, height, width) of one file, row 0 at the top."""
    values = lazy_array(path)
    sizes = dict(zip(layout.axes, values.shape, strict=False))
    count = len(layout.channels)
    if (
        values.ndim != len(layout.axes)
        or sizes.get("channel", 1) != count
        or any(not 0 <= number < sizes[axis] for axis, number in layout.pick.items())
    ):
        raise S2KDError(
            f"{path}: has shape {values.shape}, which does not fit axes={list(layout.axes)}, "
            f"{count} channels ({', '.join(layout.channels)}) and pick={layout.pick}"
        )
    values = values[tuple(layout.pick.get(axis, slice(None)) for axis in layout.axes)]
    values = in_order(values, [axis for axis in layout.axes if axis not in layout.pick], AXES)
    return values[:, :, ::-1] if layout.first_row == "bottom" else values


def prometheus_files(path: Path, chosen: str | None = None) -> dict[str, Path]:
    """The arrays of one set of Prometheus by environment (`a1`), in order of number."""
    if chosen is not None and chosen not in SETS:
        raise S2KDError(f"prometheus: set={chosen!r} must be T (tunnels) or P (pools)")
    if not path.is_dir():
        raise S2KDError(f"{path}: no such folder")
    letters = [SETS[name] for name in SETS if chosen in (None, name)]
    for letter, inner in letters:
        for folder in (path, path / inner):
            matches = [FILE_NAME.fullmatch(file.name) for file in folder.glob("*_fds.npy")]
            numbers = sorted(int(match[2]) for match in matches if match and match[1] == letter)
            if numbers:
                return {f"{letter}{n}": folder / f"{letter}{n}_fds.npy" for n in numbers}
    expected = " and no ".join(f"{letter}1_fds.npy" for letter, _ in letters)
    raise S2KDError(f"{path}: holds no {expected} or other environment of that kind")


def prometheus_layout(folder: Path, files: Mapping[str, Path]) -> Layout:
    """`prometheus.json` of the folder; where it is missing, the error holds one to edit."""
    sidecar = folder / PROMETHEUS
    if not sidecar.is_file():
        first = headers(next(iter(files.values())))[""]
        text = json.dumps(template(first.shape, files))
        raise S2KDError(
            f"{folder}: {len(files)} environments are here, the first of shape {first.shape} and "
            f"type {first.dtype}, but no {PROMETHEUS} describes their axes, channels and units; "
            f"save this as {sidecar} and correct it: {text}"
        )
    layout = read(Layout, read_json(sidecar), str(sidecar))
    if len(layout.channels) != len(layout.units) or not layout.channels:
        raise S2KDError(
            f"{sidecar}: needs one unit per channel, got channels {list(layout.channels)} and "
            f"units {list(layout.units)}"
        )
    implied = {"channel"} if len(layout.channels) == 1 else set()
    if len({*layout.axes}) < len(layout.axes) or {*layout.axes} | implied != {*AXES, *layout.pick}:
        raise S2KDError(
            f"{sidecar}: axes={list(layout.axes)} must name time, height, width and channel (where "
            f"there are several) once each, and one entry of any other axis be taken by "
            f"pick={layout.pick}"
        )
    if not layout.step_seconds > 0:
        raise S2KDError(f"{sidecar}: step_seconds={layout.step_seconds:g} must be positive")
    return layout


def _existing_cells(
    folder: Path, layout: Layout, stored: "Mapping[str, da.Array]"
) -> Bool[np.ndarray, "height width"] | None:
    """The cells that exist by the `mask` of the JSON file; None: all."""
    if layout.mask is None:
        return None
    if layout.mask == "nan":
        exists = np.all([np.isfinite(run[0].compute()).all(0) for run in stored.values()], axis=0)
    else:
        shape = next(iter(stored.values())).shape[2:]
        exists = small_array(folder / layout.mask, shape=shape).astype(bool)
    if not exists.any():
        raise S2KDError(f"{folder / PROMETHEUS}: mask={layout.mask!r} leaves no cell")
    return exists


def template(shape: tuple[int, ...], names: Iterable[str]) -> dict[str, Any]:
    """A `prometheus.json` to edit: the likeliest axes for a shape, channels to be named."""
    axes = [f"axis{number}" for number in range(len(shape) - 4)] + list(AXES)
    if len(shape) == 3:
        axes.remove("channel")
    elif shape[-1] < min(shape[-3:-1]):
        axes[-3:] = ["height", "width", "channel"]
    count = dict(zip(axes, shape, strict=False)).get("channel", 1)
    return {
        "axes": axes,
        "channels": [f"channel{number}" for number in range(count)],
        "units": ["1"] * count,
        "step_seconds": 1.0,
        "first_row": "top",
        "crop": None,
        "pick": {axis: 0 for axis in axes if axis not in AXES},
        "mask": None,
        "environments": {name: {"heat_release": None, "ventilation": None} for name in names},
    }


def _fds_environments(
    path: Path, chosen: str, crop: Sequence[int] | None, pool: int
) -> "xr.Dataset":
    """Environments described by `environments.json`, the seen ones first."""
    index = path / FDS
    sets = read(dict[str, Any], read_json(index), str(index)).get("sets", {})
    check_names(f"{index}: no set", [chosen], sets)
    facts = read(FdsSet, sets[chosen], f"{index}: set {chosen!r}")
    suggested = facts.suggested_split
    unseen = {"heat_release": suggested.unseen_hrr, "velocity": suggested.unseen_velocity}
    files = {run.name: path / run.file for run in facts.environments}
    used = [*suggested.seen, *(name for names in unseen.values() for name in names)]
    check_names(f"{index}: `suggested_split` asks for", used, files)
    if not used:
        raise S2KDError(f"{index}: names no environment to learn from")
    channels = tuple(title.lower().replace(" ", "_").replace("-", "_") for title in facts.channels)
    layout = Layout(
        axes=AXES, channels=channels, units=facts.units, step_seconds=facts.frame_step_s
    )
    return _environments(
        {name: _environment(files[name], layout) for name in used},
        crop=crop,
        pool=pool,
        first_seconds=facts.first_frame_s,
        step_seconds=facts.frame_step_s,
        channels=channels,
        units=[CF_UNITS.get(unit, unit) for unit in facts.units],
        long_names=dict(zip(channels, (title.lower() for title in facts.channels), strict=True)),
        parameters={name: {} for name in used},
        split={
            "fractions": (0.6, 0.2, 0.2),
            "gap": 10,
            "unseen": {name: list(runs) for name, runs in unseen.items() if runs},
        },
        name="fds",
        source=f"FDS, {facts.title or chosen}",
    )


# --- one volume -----------------------------------------------------------------------------------


def _volume(
    path: Path,
    *,
    skip: int,
    planes: tuple[int, ...],
    quantities: tuple[str, ...],
    step_seconds: float | int | None,
    crop: Sequence[int] | None,
    pool: int,
) -> "xr.Dataset":
    """Vertical planes of one volume, top row first, at even steps of time."""
    import dask.array as da

    time, listed, height, position = (
        small_array(path, key) for key in ("time", "quantities", "z", "y")
    )
    head = headers(path).get("vol_u8")
    expected = (len(time), len(listed), len(height), len(position))
    if head is None or head.shape[:4] != expected or len(head.shape) != 5 or head.dtype != np.uint8:
        raise S2KDError(
            f"{path}: vol_u8 must be uint8 of shape ({', '.join(map(str, expected))}, x) by time, "
            f"quantities, z and y (the file holds {listing(headers(path))})"
        )
    if (np.diff(time) <= 0).any():
        raise S2KDError(f"{path}: time must rise from frame to frame")
    check_names(f"{path}: no quantity", quantities, listed.tolist())
    outside = [plane for plane in planes if not 0 <= plane < len(position)]
    if outside or not planes or not 0 <= skip < len(time) - 1:
        raise S2KDError(
            f"{path}: skip={skip} and planes={list(planes)} must leave some of its {len(time)} "
            f"frames and {len(position)} planes along y"
        )
    time = time[skip:].astype(np.float64)
    numbers = [listed.tolist().index(quantity) for quantity in quantities]
    volume = small_array(path, "vol_u8")[skip:]
    volume = volume[:, :, ::-1] if height[0] < height[-1] else volume
    runs = {
        f"y = {position[plane]:.2g} m": da.from_array(
            _physical(volume[:, :, :, plane][:, numbers], quantities), chunks=-1, name=False
        )
        for plane in planes
    }
    runs, _ = finished("fds", runs, crop=crop, pool=pool)
    step = float(np.median(np.diff(time))) if step_seconds is None else float(step_seconds)
    runs, clocks, gap = even_runs(str(path), runs, dict.fromkeys(runs, time), step=step)
    return fire_record(
        runs,
        clocks,
        exists=None,
        channels=quantities,
        units=[RANGES[q][2] if q in RANGES else "1" for q in quantities],
        long_names={
            q: q.replace("_", " ") + ("" if q in RANGES else ", fraction of the plotted range")
            for q in quantities
        },
        name="fds",
        source=f"FDS, {path.name}",
        step_seconds=step,
        simultaneous=int(len(planes) > 1),
        split={"fractions": (0.6, 0.2, 0.2), "gap": max(10, gap)},
        smallest_gap=gap,
    )


def _physical(
    stored: np.ndarray, quantities: Sequence[str]
) -> Float[np.ndarray, "time channel height width"]:
    """Bytes as °C, or as fractions of a quantity's range."""
    values = stored.astype(np.float32) / FULL_SCALE
    for number, quantity in enumerate(quantities):
        if quantity in RANGES:
            low, high, _ = RANGES[quantity]
            values[:, number] = low + values[:, number] * (high - low)
    return values


# --- description of a folder or file --------------------------------------------------------------


def describe_layout(path: Path) -> "DetectedLayout | None":
    """Prometheus, FDS environments and FDS volumes by file names and keys."""
    from s2kd.data.describe import DetectedLayout

    if FILE_NAME.fullmatch(path.name):
        path = path.parent
    patterns = ("[ab]*_fds.npy", "Prometheus-P/b*_fds.npy")
    if any(any(path.glob(pattern)) for pattern in patterns):
        layout = DetectedLayout(
            reader="prometheus",
            settings={"path": str(path)},
            recipe="prometheus",
            lines=["Prometheus folder"],
        )
        readable = []
        for name, file in prometheus_files(path).items():
            try:
                layout.lines.append(f"{name} {headers(file)[''].shape}")
                readable.append(name)
            except S2KDError as error:
                layout.problems.append(str(error))
                layout.settings["environments"] = readable
        return layout
    for folder in (path, *path.parents[:2]):
        if (folder / FDS).is_file():
            settings = {"path": str(folder)}
            settings |= {"set": path.relative_to(folder).parts[0]} if folder != path else {}
            recipe = "fds_runs_p" if settings.get("set") == "P" else "fds_runs"
            return DetectedLayout(
                reader="fds", settings=settings, recipe=recipe, lines=["FDS runs"]
            )
    if path.is_file() and path.suffix == ".npz" and {"vol_u8", "time"} <= headers(path).keys():
        lines = ["FDS volume", *(f"{key} {head.shape}" for key, head in headers(path).items())]
        return DetectedLayout(
            reader="fds", settings={"path": str(path)}, recipe="fds_pool", lines=lines
        )
    return None
