"""Layouts that other dataset parts read, told by file names and keys."""

from pathlib import Path

from s2kd.data._known import Known
from s2kd.data._known_fires import fires
from s2kd.types import S2KDError

CUT = "windows that are cut already, without times: nothing tells which of them share frames"


def recognise(path: Path) -> Known | None:
    """The layout at `path`, or None where it is none of these."""
    fire = fires(path)
    if fire is not None:
        return fire
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
    if any(n.endswith("_InOut.h5") for n in names):
        return _known("TaxiBJ folder", "taxibj", path, "flows in the TaxiBJ layout")
    if "environments.json" in names:
        return _runs(path)
    if (path.parent / "environments.json").exists():
        return _runs(path.parent, path.name)
    if any(n.endswith("_input_data_reshaped.npy") for n in names) or any(path.glob("train/X*.npy")):
        return _known("TaxiBJ+ folder", "", path, CUT)
    if any(n.startswith("geopotential_500") and (path / n).is_dir() for n in names):
        return _known("WeatherBench folder", "weatherbench", path, "one folder a variable")
    return None


def _known(kind: str, part: str, path: Path, reason: str, **arrays: tuple[str, ...]) -> Known:
    return Known(kind=kind, part=part, reason=reason, params={"path": str(path)}, arrays=arrays)


def _runs(path: Path, name: str = "") -> Known:
    """A folder of FDS runs, or one set of it."""
    params = {"path": str(path), "layout": "runs"} | ({"set": name} if name else {})
    return Known(kind="FDS runs", part="fds", reason="one simulated fire a file", params=params)


def _npz(path: Path) -> Known:
    import numpy as np

    try:
        with np.load(path) as held:
            arrays = {name: _shape(held[name].shape) for name in held.files}
    except Exception as error:  # torn zip files raise several kinds
        raise S2KDError(f"{path}: cannot be read as NPZ ({error})") from None
    if "flow" in arrays and ("date" in arrays or "time" in arrays):
        return _known("TaxiBJ arrays", "taxibj", path, "flows by half-hour", **arrays)
    if {"X_train", "Y_train"} <= arrays.keys():
        return _known("TaxiBJ windows", "", path, CUT, **arrays)
    if {"vol_u8", "time"} <= arrays.keys():
        params = {"path": str(path), "layout": "volume"}
        reason = "a fire in a volume, read as vertical planes"
        return Known(kind="FDS volume", part="fds", reason=reason, params=params, arrays=arrays)
    raise S2KDError(
        f"{path}: an NPZ with keys {', '.join(arrays)}, which no dataset reads (TaxiBJ has flow "
        "and date, FDS has vol_u8 and time)"
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
    if (path.parent.parent / "environments.json").exists():
        return _runs(path.parent.parent, path.parent.name)
    return Known(kind="NPY array", part="", reason="", arrays={path.stem: _shape(shape)})


def _hdf5(path: Path) -> Known | None:
    import h5py

    try:
        with h5py.File(path) as file:
            arrays = {k: _shape(v.shape) for k, v in file.items() if isinstance(v, h5py.Dataset)}
    except OSError as error:
        raise S2KDError(f"{path}: cannot be read as HDF5 ({error})") from None
    if {"data", "date"} <= arrays.keys() and len(arrays["data"]) == 4:
        return _known("TaxiBJ HDF5", "taxibj", path, "flows by half-hour", **arrays)
    return None


def _shape(shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(map(str, shape))
