"""What the arrays of Prometheus do not say themselves: `prometheus.json` beside them."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from s2kd.core.files import read_json
from s2kd.core.recipe import read
from s2kd.core.types import S2KDError
from s2kd.data._arrays import Held, read_header

SIDECAR = "prometheus.json"
SETS = {"T": ("a", "."), "P": ("b", "Prometheus-P")}
"""First letter of the files of each set, and the folder they lie in as published."""

NAME = re.compile(r"([ab])(\d+)_fds\.npy")
AXES = ("time", "channel", "height", "width")


class Layout(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `prometheus.json`.

    `axes` names every axis of the arrays in order: time, height, width, channel (unless there is
    one channel only) and any others, of which `pick` takes one entry each. `channels` and `units`
    follow the channel axis. `first_row` is `top` or `bottom`. `crop` is first row, stop row, first
    column, stop column, counted from the top. `mask` is null, `nan` (cells that are not finite in
    an environment's first frame), `constant` (cells that never change in a sample of the training
    frames) or a `.npy` of (height, width), true where a cell exists, row 0 at the top.
    `environments` gives parameters by environment; null is unknown.
    """

    axes: tuple[str, ...]
    channels: tuple[str, ...]
    units: tuple[str, ...]
    step_seconds: float
    first_row: str = "top"
    crop: tuple[int, ...] | None = None
    pick: dict[str, Any] = {}
    mask: str | None = None
    environments: dict[str, Any] = {}


def files_of(path: Path, chosen: str | None) -> dict[str, Path]:
    """The arrays of one set by environment (`a1`), in order; an error says what is there."""
    if chosen is not None and chosen not in SETS:
        raise S2KDError(f"prometheus: set={chosen!r} must be T (tunnels) or P (pools)")
    if not path.is_dir():
        raise S2KDError(f"{path}: no such folder")
    for name in SETS if chosen is None else (chosen,):
        letter, inner = SETS[name]
        for folder in (path, path / inner):
            found = {}
            for file in folder.glob("*_fds.npy"):
                match = NAME.fullmatch(file.name)
                if match and match[1] == letter:
                    found[int(match[2])] = file
            if found:
                return {f"{letter}{number}": found[number] for number in sorted(found)}
    wanted = " and no ".join(f"{SETS[s][0]}1_fds.npy" for s in SETS if chosen in (None, s))
    raise S2KDError(f"{path}: holds no {wanted} or other environment of that kind")


def header(path: Path) -> Held:
    """The header of a `.npy`, and that the file is as long as it says."""
    try:
        with path.open("rb") as file:
            shape, _, dtype = read_header(file)
            offset = file.tell()
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise S2KDError(f"{path}: not readable as .npy ({error})") from None
    if dtype.kind not in "fiu":
        raise S2KDError(f"{path}: holds {dtype}, wants numbers")
    want = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    size = path.stat().st_size
    if size < want:
        raise S2KDError(
            f"{path}: is cut short, {size:,} bytes of {want:,}; fetch the rest of it again"
        )
    return Held(shape, dtype)


def layout_of(folder: Path, files: Mapping[str, Path]) -> Layout:
    """`prometheus.json` of the folder; where it is missing, the error holds one to edit."""
    sidecar = folder / SIDECAR
    if not sidecar.is_file():
        first = header(next(iter(files.values())))
        text = _lines(template(first.shape, files))
        raise S2KDError(
            f"{folder}: {len(files)} environments lie here, the first of shape {first.shape} and "
            f"type {first.dtype}, but no {SIDECAR} says what their axes, channels and units are; "
            f"save this as {sidecar} and put it right:\n{text}"
        )
    found = read(Layout, read_json(sidecar), str(sidecar))
    _check(sidecar, found)
    return found


def _check(sidecar: Path, found: Layout) -> None:
    if len(found.channels) != len(found.units) or not found.channels:
        raise S2KDError(
            f"{sidecar}: wants a unit a channel, got channels {list(found.channels)} and units "
            f"{list(found.units)}"
        )
    if len(set(found.axes)) < len(found.axes):
        raise S2KDError(f"{sidecar}: axes={list(found.axes)} names an axis twice")
    needed = [axis for axis in AXES if axis != "channel" or len(found.channels) > 1]
    for axis in needed:
        if axis not in found.axes:
            raise S2KDError(f"{sidecar}: axes={list(found.axes)} lacks {axis!r}")
    others = [axis for axis in found.axes if axis not in AXES]
    if sorted(others) != sorted(found.pick) or any(type(i) is not int for i in found.pick.values()):
        raise S2KDError(
            f"{sidecar}: pick={found.pick} must give one number for each of the axes besides "
            f"{', '.join(AXES)}, which are {others or 'none'}"
        )
    if found.first_row not in ("top", "bottom"):
        raise S2KDError(f"{sidecar}: first_row={found.first_row!r} must be 'top' or 'bottom'")
    if not found.step_seconds > 0:
        raise S2KDError(f"{sidecar}: step_seconds={found.step_seconds:g} must be positive")
    for name, known in found.environments.items():
        if not isinstance(known, dict) or not all(
            v is None or (isinstance(v, int | float) and np.isfinite(v)) for v in known.values()
        ):
            raise S2KDError(
                f"{sidecar}: environments.{name} must give numbers (or null) by parameter, such as "
                f'{{"heat_release": 30.0}}, got {known!r}'
            )


def parameters_of(layout: Layout, name: str) -> dict[str, float]:
    """What is known of one environment."""
    known = layout.environments.get(name, {})
    return {key: float(value) for key, value in known.items() if value is not None}


def check_shape(path: Path, found: Held, layout: Layout) -> None:
    """Refuse an array that the axes, channels and picks do not fit."""
    named = ", ".join(layout.axes)
    if len(found.shape) != len(layout.axes):
        raise S2KDError(
            f"{path}: has {len(found.shape)} axes of shape {found.shape}, {SIDECAR} names "
            f"{len(layout.axes)} ({named})"
        )
    sizes = dict(zip(layout.axes, found.shape, strict=True))
    count = len(layout.channels)
    if sizes.get("channel", 1) != count:
        like = [axis for axis, size in sizes.items() if size == count]
        hint = f"; the axis named {like[0]!r} has that length: wrong order?" if like else ""
        raise S2KDError(
            f"{path}: has shape {found.shape}, in which {SIDECAR}'s axes ({named}) make "
            f"{sizes.get('channel', 1)} channels, but it names {count} "
            f"({', '.join(layout.channels)}){hint}"
        )
    for axis, number in layout.pick.items():
        if not 0 <= number < sizes[axis]:
            raise S2KDError(
                f"{path}: pick {axis}={number} does not lie in its {sizes[axis]} entries"
            )


def _lines(offered: Mapping[str, Any]) -> str:
    """As JSON with a setting, and an environment, a line."""
    named = [
        f"    {json.dumps(name)}: {json.dumps(known)}"
        for name, known in offered["environments"].items()
    ]
    plain = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in offered.items()][:-1]
    last = '  "environments": {\n' + ",\n".join(named) + "\n  }"
    return "{\n" + ",\n".join([*plain, last]) + "\n}"


def template(shape: tuple[int, ...], names: Iterable[str]) -> dict[str, Any]:
    """A sidecar to edit: the likeliest axes for a shape, channels to be named."""
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
        "channels": [f"channel{i}" for i in range(count)],
        "units": ["1"] * count,
        "step_seconds": 1.0,
        "first_row": "top",
        "crop": None,
        "pick": {axis: 0 for axis in axes if axis not in AXES},
        "mask": None,
        "environments": {name: {"heat_release": None, "ventilation": None} for name in names},
    }
