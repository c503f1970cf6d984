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
from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data.readers import readers
from s2kd.data.readers._array_files import headers, lazy_array, small_array
from s2kd.data.readers._planes import plane_finisher, resample, smallest_gap
from s2kd.data.readers._record import record, run_coordinate, seconds_after_epoch

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr

    from s2kd.data.describe import DetectedLayout

AXES = ("time", "channel", "height", "width")
PROMETHEUS, FDS = "prometheus.json", "environments.json"
SETS = {"T": ("a", "."), "P": ("b", "Prometheus-P")}
"""First letter of the files of each set of Prometheus, and the folder they lie in as published."""
FILE_NAME = re.compile(r"([ab])(\d+)_fds\.npy")
SAMPLED_FRAMES = 64
"""Frames of an environment that are inspected for cells that never change."""
CF_UNITS = {"1/m": "m-1", "m/s": "m s-1"}
UNSEEN = {"unseen_hrr": "heat_release", "unseen_velocity": "velocity"}
"""Keys of `suggested_split` and the parameters they hold environments out by."""
FULL_SCALE = 254
"""The byte that stands for the upper end of a quantity's range in a volume."""
RANGES = {"temperature": (20.0, 2000.0, "degC")}
"""Physical values of bytes 0 and 254; other quantities stay a fraction of their range."""


Parameters = dict[str, dict[str, float | None]]
"""Numbers by run and parameter; null is unknown."""
HELD_OUT = ("heat_release", "ventilation")
"""Parameters that hold environments out by default: the first with three values or more."""


class Layout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `prometheus.json`.

    Attributes
    ----------
    axes
        Every axis of the arrays in order: time, height, width, channel (unless there is one
        channel only) and any others, of which `pick` takes one entry each.
    channels, units
        Along the channel axis.
    step_seconds
        From frame to frame.
    first_row
        `top` or `bottom`.
    crop
        First row, stop row, first column, stop column, counted from the top.
    mask
        null, `nan` (cells that are not finite in an environment's first frame), `constant` (cells
        that never change in a sample of frames) or a `.npy` of (height, width), true where a cell
        exists, row 0 at the top.
    environments
        Parameters by environment; null is unknown.
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

    Parameters
    ----------
    path
        the downloaded folder, with a `prometheus.json` that describes its arrays (see
        `Layout`); where it is missing, the error holds one to edit.
    set
        "T" or "P"; default: T where there are such files, else P.
    channels, environments
        names of those to read; default: all.
    crop
        first row, stop row, first column, stop column; default: the crop of the JSON file.
    pool
        side of the blocks of cells that are averaged.

    Every environment is a run. By default the environments with the lowest and the highest heat
    release are unseen, where all are known.

    Raises
    ------
    S2KDError
        files that are cut short or do not fit the description or each other.
    """
    files = prometheus_files(Path(path).expanduser(), set)
    folder = next(iter(files.values())).parent
    layout = prometheus_layout(folder, files)
    for name in environments or ():
        if name not in files:
            raise S2KDError(
                f"{folder}: no environment {name!r}{nearest(name, files)} (there are "
                f"{', '.join(files)})"
            )
    files = {name: files[name] for name in environments or files}
    picked = _channel_numbers(folder / PROMETHEUS, layout, channels)
    frames = {name: _environment(file, layout)[:, picked] for name, file in files.items()}
    _same_shape(files, frames)
    parameters = {name: known_parameters(layout.environments, name) for name in files}
    return _environments(
        frames,
        msgspec.structs.replace(
            layout,
            channels=tuple(layout.channels[n] for n in picked),
            units=tuple(layout.units[n] for n in picked),
            crop=layout.crop if crop is None else tuple(crop),
        ),
        exists=_existing_cells(folder, layout, frames),
        pool=pool,
        parameters=parameters,
        split={
            "fractions": (0.7, 0.1, 0.2),
            "gap": 12,
            "unseen": suggested_unseen(parameters),
        },
        name="prometheus",
        source=f"Prometheus, {', '.join(file.name for file in files.values())}",
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

    Parameters
    ----------
    path
        a folder with `environments.json` and one `.npy` (time, channel, height, width) per
        environment, or an `.npz` volume with `vol_u8` (time, quantity, z, y, x), `time`,
        `quantities`, `y` and `z`.
    set
        folder: which of its sets, "T" (tunnels, the default) or "P" (pools).
    skip
        volume: frames left out at the start, while the fire grows; default 200.
    planes
        volume: y indices of the vertical planes, each a run; default 5 to 15.
    quantities
        volume: its channels; default temperature (°C) and soot_density (a fraction of
        the range that FDS was told to plot).
    step_seconds
        volume: frames are interpolated linearly from the uneven times of FDS onto
        these steps; default: the median step.
    crop
        first row, stop row, first column, stop column.
    pool
        side of the blocks of cells that are averaged.

    Environments that the JSON file suggests to hold out are unseen by default.

    Raises
    ------
    S2KDError
        a set, quantity or setting that is not there, and files that cannot be read.
    """
    location = Path(path).expanduser()
    for_volume = {
        "skip": skip, "planes": planes, "quantities": quantities, "step_seconds": step_seconds,
    }  # fmt: skip
    is_volume = location.suffix == ".npz"
    layout = "a volume" if is_volume else "a folder of environments"
    for name, value in ({"set": set} if is_volume else for_volume).items():
        if value is not None:
            raise S2KDError(f"fds: {name} has no meaning for {layout}")
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
    frames: "Mapping[str, da.Array]",
    layout: Layout,
    *,
    exists: Bool[np.ndarray, "height width"] | None,
    pool: int,
    first_seconds: float = 0.0,
    long_names: Mapping[str, str] | None = None,
    **attrs: Any,
) -> "xr.Dataset":
    """The runs end to end, cropped and pooled."""
    import dask.array as da

    joined = da.concatenate(list(frames.values())).rechunk({1: -1, 2: -1, 3: -1})
    finish, shape, mask = plane_finisher(
        joined.shape[2:], exists=exists, crop=layout.crop, pool=pool, label=attrs["name"]
    )
    chunks = (*joined.chunks[:2], *((size,) for size in shape))
    joined = joined.map_blocks(finish, chunks=chunks, meta=np.empty((0, 0, 0, 0), np.float32))
    lengths = {name: len(run) for name, run in frames.items()}
    clock = [layout.step_seconds * np.arange(length) for length in lengths.values()]
    return record(
        joined,
        channels=layout.channels,
        units=layout.units,
        times=seconds_after_epoch(first_seconds + np.concatenate(clock)),
        coords={
            "run": run_coordinate(lengths),
            "mask": None if mask is None else (("row", "column"), mask),
        },
        long_names=long_names,
        domain="fire",
        step_seconds=float(layout.step_seconds),
        **attrs,
    )


def _environment(path: Path, layout: Layout) -> "da.Array":
    """(time, channel, height, width) of one file, row 0 at the top."""
    header = headers(path)[""]
    sizes = dict(zip(layout.axes, header.shape, strict=False))
    listed, count = ", ".join(layout.axes), len(layout.channels)
    if len(header.shape) != len(layout.axes):
        raise S2KDError(
            f"{path}: has {len(header.shape)} axes of shape {header.shape}, but {len(layout.axes)} "
            f"are described ({listed})"
        )
    if sizes.get("channel", 1) != count:
        fitting = [axis for axis, size in sizes.items() if size == count]
        hint = f"; the axis named {fitting[0]!r} has that length: wrong order?" if fitting else ""
        raise S2KDError(
            f"{path}: has shape {header.shape}, in which the axes ({listed}) make "
            f"{sizes.get('channel', 1)} channels, but {count} are described "
            f"({', '.join(layout.channels)}){hint}"
        )
    for axis, number in layout.pick.items():
        if not 0 <= number < sizes[axis]:
            raise S2KDError(f"{path}: pick {axis}={number} is outside its {sizes[axis]} entries")
    values = lazy_array(path)
    values = values[tuple(layout.pick.get(axis, slice(None)) for axis in layout.axes)]
    axes = [axis for axis in layout.axes if axis not in layout.pick]
    if "channel" not in axes:
        values, axes = values[None], ["channel", *axes]
    values = values.transpose([axes.index(axis) for axis in AXES])
    return values[:, :, ::-1] if layout.first_row == "bottom" else values


def _same_shape(files: Mapping[str, Path], frames: "Mapping[str, da.Array]") -> None:
    first, *others = frames
    for name in others:
        if frames[name].shape[1:] != frames[first].shape[1:]:
            shape, reference = ("×".join(map(str, frames[n].shape[1:])) for n in (name, first))
            raise S2KDError(
                f"{files[name]}: frames have {shape}, those of {files[first]} {reference} (channel "
                "× height × width); all environments must share one grid"
            )


def prometheus_files(path: Path, chosen: str | None = None) -> dict[str, Path]:
    """The arrays of one set of Prometheus by environment (`a1`), in order of number."""
    if chosen is not None and chosen not in SETS:
        raise S2KDError(f"prometheus: set={chosen!r} must be T (tunnels) or P (pools)")
    if not path.is_dir():
        raise S2KDError(f"{path}: no such folder")
    for name in SETS if chosen is None else (chosen,):
        letter, inner = SETS[name]
        for folder in (path, path / inner):
            matches = [FILE_NAME.fullmatch(file.name) for file in folder.glob("*_fds.npy")]
            numbers = sorted(int(match[2]) for match in matches if match and match[1] == letter)
            if numbers:
                return {f"{letter}{n}": folder / f"{letter}{n}_fds.npy" for n in numbers}
    expected = " and no ".join(f"{SETS[s][0]}1_fds.npy" for s in SETS if chosen in (None, s))
    raise S2KDError(f"{path}: holds no {expected} or other environment of that kind")


def prometheus_layout(folder: Path, files: Mapping[str, Path]) -> Layout:
    """`prometheus.json` of the folder; where it is missing, the error holds one to edit."""
    sidecar = folder / PROMETHEUS
    if not sidecar.is_file():
        first = headers(next(iter(files.values())))[""]
        text = json.dumps(template(first.shape, files), indent=1)
        raise S2KDError(
            f"{folder}: {len(files)} environments are here, the first of shape {first.shape} and "
            f"type {first.dtype}, but no {PROMETHEUS} describes their axes, channels and units; "
            f"save this as {sidecar} and correct it:\n{text}"
        )
    layout = read(Layout, read_json(sidecar), str(sidecar))
    if len(layout.channels) != len(layout.units) or not layout.channels:
        raise S2KDError(
            f"{sidecar}: needs one unit per channel, got channels {list(layout.channels)} and "
            f"units {list(layout.units)}"
        )
    if len({*layout.axes}) < len(layout.axes):
        raise S2KDError(f"{sidecar}: axes={list(layout.axes)} names an axis twice")
    for axis in AXES:
        if axis not in layout.axes and (axis != "channel" or len(layout.channels) > 1):
            raise S2KDError(f"{sidecar}: axes={list(layout.axes)} lacks {axis!r}")
    further = [axis for axis in layout.axes if axis not in AXES]
    if sorted(further) != sorted(layout.pick):
        raise S2KDError(
            f"{sidecar}: pick={layout.pick} must give one number for each of the axes other than "
            f"{', '.join(AXES)}, which are {further or 'none'}"
        )
    if not layout.step_seconds > 0:
        raise S2KDError(f"{sidecar}: step_seconds={layout.step_seconds:g} must be positive")
    return layout


def known_parameters(environments: Parameters, name: str) -> dict[str, float]:
    """The parameters of one environment that are not null."""
    return {k: float(v) for k, v in environments.get(name, {}).items() if v is not None}


def suggested_unseen(parameters: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The extremes of a parameter that is known of all runs and varies enough; else nothing."""
    for name in HELD_OUT:
        values = {run.get(name) for run in parameters.values()}
        if None not in values and len(values) >= 3:
            return {name: "extremes"}
    return {}


def _channel_numbers(sidecar: Path, layout: Layout, wanted: Sequence[str] | None) -> list[int]:
    for name in wanted or ():
        if name not in layout.channels:
            raise S2KDError(
                f"{sidecar}: has no channel {name!r}{nearest(name, layout.channels)} (it has "
                f"{', '.join(layout.channels)})"
            )
    return [layout.channels.index(name) for name in wanted or layout.channels]


def _existing_cells(
    folder: Path, layout: Layout, frames: "Mapping[str, da.Array]"
) -> Bool[np.ndarray, "height width"] | None:
    """The cells that exist by the `mask` of the JSON file; None: all."""
    shape = next(iter(frames.values())).shape[2:]
    match layout.mask:
        case None:
            return None
        case "nan":
            finite = [np.isfinite(run[0].compute()).all(0) for run in frames.values()]
            exists = np.all(finite, axis=0)
        case "constant":
            exists = np.any([_changing_cells(run) for run in frames.values()], axis=0)
        case name:
            try:
                exists = np.load(folder / name, allow_pickle=False).astype(bool)
            except (OSError, ValueError, EOFError) as error:
                raise S2KDError(
                    f"{folder / name}: mask must be null, 'nan', 'constant' or a .npy next to "
                    f"{PROMETHEUS} ({error})"
                ) from None
    if exists.shape != shape:
        raise S2KDError(
            f"{folder / layout.mask}: has shape {exists.shape}, the frames are "
            f"{shape[0]}×{shape[1]}"
        )
    if not exists.any():
        raise S2KDError(f"{folder / PROMETHEUS}: mask={layout.mask!r} leaves no cell")
    return exists


def _changing_cells(run: "da.Array") -> Bool[np.ndarray, "height width"]:
    """Cells that take more than one value in an even sample of frames."""
    count = min(len(run), SAMPLED_FRAMES)
    numbers = np.unique(np.linspace(0, len(run) - 1, count).astype(int))
    start, changed = run[0].compute(), np.zeros(run.shape[2:], dtype=bool)
    for number in numbers:
        changed |= (run[int(number)].compute() != start).any(0)
    return changed


def template(shape: tuple[int, ...], names: Iterable[str]) -> dict[str, Any]:
    """A `prometheus.json` to edit: the likeliest axes for a shape, channels to be named."""
    match len(shape):
        case 3:
            axes: tuple[str, ...] = ("time", "height", "width")
        case 4 if shape[3] < min(shape[1:3]):
            axes = ("time", "height", "width", "channel")
        case 4:
            axes = AXES
        case _:
            axes = ("time", "channel", *(f"axis{i}" for i in range(2, len(shape) - 2)), *AXES[2:])
    count = dict(zip(axes, shape, strict=False)).get("channel", 1)
    return {
        "axes": list(axes),
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
    sets = _need(index, read_json(index), "sets", "the file")
    facts = _need(index, sets, chosen, "`sets`")
    label = f"set {chosen!r}"
    titles = _need(index, facts, "channels", label)
    units = _need(index, facts, "units", label)
    suggested = _need(index, facts, "suggested_split", label)
    files = {
        _need(index, entry, "name", "an environment"): path
        / _need(index, entry, "file", "an environment")
        for entry in _need(index, facts, "environments", label)
    }
    unseen = {name: suggested[key] for key, name in UNSEEN.items() if suggested.get(key)}
    used = list(_need(index, suggested, "seen", "`suggested_split`"))
    used += [name for names in unseen.values() for name in names]
    for name in used:
        if name not in files:
            raise S2KDError(
                f"{index}: `suggested_split` asks for {name!r}, the environments are "
                f"{', '.join(files)}"
            )
        if not files[name].is_file():
            folder = files[name].parent
            listed = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
            raise S2KDError(
                f"{files[name]}: no such file (there is {', '.join(listed[:12]) or 'nothing'})"
            )
    if not used:
        raise S2KDError(f"{index}: names no environment to learn from")
    channels = tuple(title.lower().replace(" ", "_").replace("-", "_") for title in titles)
    layout = Layout(
        axes=AXES,
        channels=channels,
        units=tuple(CF_UNITS.get(unit, unit) for unit in units),
        step_seconds=float(_need(index, facts, "frame_step_s", label)),
        crop=None if crop is None else tuple(crop),
    )
    frames = {name: _environment(files[name], layout) for name in used}
    _same_shape(files, frames)
    return _environments(
        frames,
        layout,
        exists=None,
        pool=pool,
        first_seconds=float(_need(index, facts, "first_frame_s", label)),
        long_names=dict(zip(channels, (title.lower() for title in titles), strict=True)),
        parameters={name: {} for name in used},
        split={"fractions": (0.6, 0.2, 0.2), "gap": 10, "unseen": unseen},
        name="fds",
        source=f"FDS, {facts.get('title', chosen)}",
    )


def _need(path: Path, content: Any, key: str, label: str) -> Any:
    """`content[key]`, or an error that lists the keys."""
    if not isinstance(content, dict) or key not in content:
        listed = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise S2KDError(f"{path}: {label} has no {key!r} (there is {listed or 'nothing'})")
    return content[key]


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
    arrays = _volume_arrays(path)
    listed, positions = arrays["quantities"].tolist(), arrays["y"]
    for quantity in quantities:
        if quantity not in listed:
            raise S2KDError(f"{path}: has no quantity {quantity!r} (it has {', '.join(listed)})")
    for plane in planes:
        if not 0 <= plane < len(positions):
            raise S2KDError(f"{path}: has no plane {plane}, there are {len(positions)} along y")
    if not planes or not 0 <= skip < len(arrays["time"]) - 1:
        raise S2KDError(
            f"{path}: skip={skip} and planes={list(planes)} leave nothing of "
            f"{len(arrays['time'])} frames"
        )
    time = arrays["time"][skip:].astype(np.float64)
    step = float(np.median(np.diff(time))) if step_seconds is None else float(step_seconds)
    least = smallest_gap("fds", time, step)
    clock = time[0] + step * np.arange(int((time[-1] - time[0]) / step + 1e-9) + 1)
    channel_numbers = [listed.index(quantity) for quantity in quantities]
    shape = arrays["vol_u8"].shape
    finish, _, _ = plane_finisher(
        (shape[2], shape[4]), exists=None, crop=crop, pool=pool, label="fds"
    )
    runs = []
    for plane in planes:
        stored = arrays["vol_u8"][skip:, :, :, plane][:, channel_numbers]
        stored = stored[:, :, ::-1] if arrays["z"][0] < arrays["z"][-1] else stored
        runs.append(resample(finish(_physical(stored, quantities)), time, clock))
    names = [f"y = {positions[plane]:.2g} m" for plane in planes]
    return record(
        np.concatenate(runs),
        channels=quantities,
        units=tuple(RANGES[q][2] if q in RANGES else "1" for q in quantities),
        times=np.tile(seconds_after_epoch(clock), len(planes)),
        coords={"run": run_coordinate(dict.fromkeys(names, len(clock)))},
        long_names={
            q: q.replace("_", " ") + ("" if q in RANGES else ", fraction of the plotted range")
            for q in quantities
        },
        name="fds",
        domain="fire",
        source=f"FDS, {path.name}",
        step_seconds=step,
        simultaneous=int(len(planes) > 1),
        split={"fractions": (0.6, 0.2, 0.2), "gap": max(10, least)},
        smallest_gap=least,
    )


def _volume_arrays(path: Path) -> dict[str, np.ndarray]:
    keys = headers(path)
    for key in ("vol_u8", "time", "quantities", "y", "z"):
        _need(path, keys, key, "the file")
    shape, dtype = keys["vol_u8"].shape, keys["vol_u8"].dtype
    expected = [keys[key].shape[0] for key in ("time", "quantities", "z", "y")]
    if len(shape) != 5 or list(shape[:4]) != expected or dtype != np.uint8:
        raise S2KDError(
            f"{path}: vol_u8 has shape {shape} and type {dtype}, but must be uint8 of shape "
            f"({', '.join(map(str, expected))}, x) by time, quantities, z and y"
        )
    arrays = {key: small_array(path, key) for key in ("vol_u8", "time", "quantities", "y", "z")}
    if (np.diff(arrays["time"]) <= 0).any():
        raise S2KDError(f"{path}: time must rise from frame to frame")
    return arrays


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
    if path.is_dir() and any(any(path.glob(pattern)) for pattern in patterns):
        return _describe_prometheus(path)
    for folder, set_name in ((path, ""), (path.parent, path.name), (path.parent.parent,
                           path.parent.name)):  # fmt: skip
        if (folder / FDS).is_file():
            settings = {"path": str(folder)} | ({"set": set_name} if set_name else {})
            recipe = "fds_runs_p" if set_name == "P" else "fds_runs"
            return DetectedLayout(
                reader="fds", settings=settings, recipe=recipe, lines=["FDS runs"], problems=[]
            )
    if path.is_file() and path.suffix == ".npz" and {"vol_u8", "time"} <= headers(path).keys():
        lines = ["FDS volume", *(f"{key} {head.shape}" for key, head in headers(path).items())]
        return DetectedLayout(
            reader="fds",
            settings={"path": str(path)},
            recipe="fds_pool",
            lines=lines,
            problems=[],
        )
    return None


def _describe_prometheus(path: Path) -> "DetectedLayout":
    """Every environment's shape; the problems of those that cannot be read."""
    from s2kd.data.describe import DetectedLayout

    lines, problems, readable = ["Prometheus folder"], [], []
    files = prometheus_files(path)
    for name, file in files.items():
        try:
            lines.append(f"{name} {headers(file)[''].shape}")
            readable.append(name)
        except S2KDError as error:
            problems.append(str(error))
    settings: dict[str, object] = {"path": str(path)}
    if problems:
        settings["environments"] = readable
    return DetectedLayout(
        reader="prometheus", settings=settings, recipe="prometheus", lines=lines, problems=problems
    )
