"""A part of a Zarr store at an address, copied to the disk block by block."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s2kd.core.files import digest, write_json
from s2kd.core.types import S2KDError
from s2kd.data._record import iso
from s2kd.data._series import Series
from s2kd.data._weatherbench import Field, in_words, open_fields
from s2kd.data.download import WAITS

CHUNK_FRAMES = 128
BLOCK_FRAMES = 8 * CHUNK_FRAMES
CHOICE = "s2kd_choice"
"""The store's attribute that says what was chosen."""


def copy_fields(
    address: str,
    target: Path,
    fields: Sequence[Field],
    years: Sequence[int],
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
    waits: Sequence[float] = WAITS,
) -> bool:
    """Copy these fields and years of the store at `address` to the Zarr folder `target`.

    Every field becomes a variable `geopotential_500` (time, latitude, longitude) in float32, north
    first, 128 frames to a chunk. Until all is there it grows beside `target`, and a second call
    goes on from the last whole block. False: it was there already. Raises `S2KDError` for a field
    or year that the store lacks, a full disk, a `target` of another choice, and a server that
    stays silent after all `waits`.
    """
    choice = {"address": address, "fields": [f.channel for f in fields], "years": list(years)}
    if target.exists():
        _check_choice(target, choice)
        return False
    say(f"asking {address}")
    # file systems try again by themselves while they open, and a dead address is told soon
    series = _patiently(lambda: open_fields(address, fields, years), waits[:1])
    index = _chosen(address, series, years)
    beside = target.with_name(f".{target.name}.part")
    state = target.with_name(f".{target.name}.part.json")
    begun = {"choice": choice, "key": _key(series, index)}
    done = _done(beside, state, begun)
    if not done:
        _check_room(target, series, len(index))
        shutil.rmtree(beside, ignore_errors=True)
        _create(beside, series, index, fields, choice)
    frames = np.prod(series.shape[1:]) * len(index) * 4 / 2**30
    say(f"{target}: {len(index)} frames of {', '.join(series.channels)}, {frames:.2f} GiB")
    for first in range(done, len(index), BLOCK_FRAMES):
        part = index[first : first + BLOCK_FRAMES]
        block = _patiently(lambda part=part: series.read(part), waits)
        _write(beside, fields, first, block)
        write_json(state, {**begun, "done": first + len(part)})
        report(first + len(part), len(index))
    beside.replace(target)
    state.unlink()
    return True


def _patiently(ask: Callable[[], Any], waits: Sequence[float]) -> Any:
    """Again after a while, since a cut connection is no reason to lose what is there."""
    for wait in waits:
        try:
            return ask()
        except S2KDError as error:
            if "cannot be" not in str(error):  # opened or read; all else stays as it is
                raise
            time.sleep(wait)
    return ask()


def _check_choice(target: Path, choice: dict[str, Any]) -> None:
    import zarr

    try:
        held: Any = zarr.open_group(target, mode="r", use_consolidated=False).attrs.get(CHOICE, {})
    except Exception as error:  # what is no store raises several kinds
        raise S2KDError(f"{target}: is no Zarr store ({error}); delete or move it") from None
    if any(held.get(key) != choice[key] for key in ("fields", "years")):
        what = ", ".join(map(str, held.get("fields", []))) or "something else"
        raise S2KDError(
            f"{target}: holds another choice ({what}, {len(held.get('years', []))} years); give "
            "another --out, or delete it"
        )


def _chosen(address: str, series: Series, years: Sequence[int]) -> np.ndarray:
    """Numbers of the frames in these years, all of which must be there."""
    held = np.array([text[:4] for text in iso(series.times)], dtype=int)
    lacking = sorted(set(years) - set(held.tolist()))
    if lacking:
        raise S2KDError(
            f"{address}: holds no frames of {in_words(lacking)}; it runs from "
            f"{held.min()} to {held.max()}"
        )
    return np.flatnonzero(np.isin(held, list(years)))


def _key(series: Series, index: np.ndarray) -> str:
    """Changes with the times and the grid: a part of another store is not gone on with."""
    plane = series.plane
    ends = [str(series.times[i]) for i in (index[0], index[-1])]
    return digest([ends, len(index), plane.latitude, plane.longitude])


def _done(beside: Path, state: Path, begun: dict[str, Any]) -> int:
    """How many frames an earlier call left, of this very choice."""
    try:
        told = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    same = all(told.get(key) == value for key, value in begun.items())
    return int(told["done"]) if same and beside.is_dir() else 0


def _check_room(target: Path, series: Series, frames: int) -> None:
    size = 4 * frames * int(np.prod(series.shape[1:]))
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise S2KDError(
            f"{target.parent}: {size / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free"
        )


def _create(
    beside: Path,
    series: Series,
    index: np.ndarray,
    fields: Sequence[Field],
    choice: dict[str, Any],
) -> None:
    """The store without its frames: coordinates, and the attributes that CF wants."""
    import xarray as xr
    import zarr

    plane = series.plane
    places = {
        "latitude": (np.array(plane.latitude), "degrees_north"),
        "longitude": (np.array(plane.longitude), "degrees_east"),
    }
    coords: dict[str, Any] = {
        name: (name, values, {"standard_name": name, "units": units})
        for name, (values, units) in places.items()
    }
    coords["time"] = ("time", series.times[index], {"standard_name": "time"})
    about = {"Conventions": "CF-1.8", "source": f"{series.source} at {choice['address']}"}
    xr.Dataset(coords=coords, attrs=about).to_zarr(beside, zarr_format=2, consolidated=False)
    group = zarr.open_group(beside, mode="r+", use_consolidated=False)
    group.attrs[CHOICE] = choice
    _, _, height, width = series.shape
    for field, units in zip(fields, series.units, strict=True):
        said = series.attributes.get(field.channel, {})
        array = group.create_array(
            field.flat,
            shape=(len(index), height, width),
            chunks=(CHUNK_FRAMES, height, width),
            dtype="float32",
            fill_value=float("nan"),
        )
        array.attrs.update(
            {**said, "units": units, "_ARRAY_DIMENSIONS": ["time", "latitude", "longitude"]}
        )


def _write(beside: Path, fields: Sequence[Field], first: int, block: np.ndarray) -> None:
    import zarr

    group = zarr.open_group(beside, mode="r+", use_consolidated=False)
    for number, field in enumerate(fields):
        group[field.flat][first : first + len(block)] = block[:, number]
