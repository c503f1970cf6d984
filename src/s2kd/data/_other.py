"""Layouts that other dataset parts read, told by file names and keys."""

from dataclasses import dataclass, field
from pathlib import Path

from s2kd.types import S2KDError


@dataclass(frozen=True, kw_only=True)
class Known:
    """A layout, the part that reads it, and its arrays' shapes."""

    kind: str
    part: str
    reason: str
    arrays: dict[str, tuple[str, ...]] = field(default_factory=dict)


def recognise(path: Path) -> Known | None:
    """The layout at `path`, or None where it is none of these."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return None
    match path.suffix.lower():
        case ".npz":
            return _npz(path)
        case ".npy":
            return _npy(path)
        case ".h5" | ".hdf5":
            return _hdf5(path)
        case _:
            return None


def _folder(path: Path) -> Known | None:
    names = {p.name for p in path.iterdir()}
    if any(n.endswith("_InOut.h5") for n in names) or any(path.glob("train/X*.npy")):
        return Known(kind="TaxiBJ folder", part="taxibj", reason="flows in the TaxiBJ layout")
    if any(n.endswith("_input_data_reshaped.npy") for n in names):
        return Known(kind="TaxiBJ+ folder", part="taxibj", reason="flows in the TaxiBJ+ layout")
    if "environments.json" in names or any(n.endswith("_fds.npy") for n in names):
        return Known(kind="FDS runs", part="prometheus", reason="one simulated fire a file")
    if any(n.startswith("geopotential_500") and (path / n).is_dir() for n in names):
        return Known(
            kind="WeatherBench folder", part="weatherbench", reason="one folder a variable"
        )
    return None


def _npz(path: Path) -> Known:
    import numpy as np

    try:
        with np.load(path) as held:
            arrays = {name: _shape(held[name].shape) for name in held.files}
    except Exception as error:  # torn zip files raise several kinds
        raise S2KDError(f"{path}: cannot be read as NPZ ({error})") from None
    if {"X_train", "Y_train"} <= arrays.keys() or {"flow", "date"} <= arrays.keys():
        reason = "flows by half-hour: keys as in TaxiBJ"
        return Known(kind="TaxiBJ arrays", part="taxibj", reason=reason, arrays=arrays)
    if any(name.startswith("vol") for name in arrays) and "time" in arrays:
        reason = "a fire in a volume: keys vol… and time"
        return Known(kind="FDS volume", part="prometheus", reason=reason, arrays=arrays)
    raise S2KDError(
        f"{path}: an NPZ with keys {', '.join(arrays)}, which no dataset reads (TaxiBJ has flow "
        "and date or X_train and Y_train, FDS has vol_u8 and time)"
    )


def _npy(path: Path) -> Known:
    import numpy as np

    try:
        shape = np.load(path, mmap_mode="r").shape
    except (OSError, ValueError) as error:
        raise S2KDError(f"{path}: cannot be read as NPY ({error})") from None
    if len(shape) != 4:
        raise S2KDError(
            f"{path}: has shape {shape}; a run has four axes (time, channel, height, width)"
        )
    arrays = {path.stem: _shape(shape)}
    reason = "one simulated run, four axes"
    return Known(kind="FDS run", part="prometheus", reason=reason, arrays=arrays)


def _hdf5(path: Path) -> Known | None:
    import h5py

    try:
        with h5py.File(path) as file:
            arrays = {k: _shape(v.shape) for k, v in file.items() if isinstance(v, h5py.Dataset)}
    except OSError as error:
        raise S2KDError(f"{path}: cannot be read as HDF5 ({error})") from None
    if {"data", "date"} <= arrays.keys() and len(arrays["data"]) == 4:
        reason = "flows by half-hour: keys data and date as in TaxiBJ"
        return Known(kind="TaxiBJ HDF5", part="taxibj", reason=reason, arrays=arrays)
    return None


def _shape(shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(map(str, shape))
