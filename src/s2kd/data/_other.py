"""Layouts that other dataset parts read, told by file names and keys."""

from pathlib import Path

from s2kd.core.files import read_json
from s2kd.data._arrays import held_in
from s2kd.data._known import Known
from s2kd.data._known_arrays import any_array, cut_windows
from s2kd.data._known_fires import fires
from s2kd.data._taxibj_cut import layout_of
from s2kd.data.frames import FACTS


def recognise(path: Path) -> Known | None:
    """The layout at `path`, or None where it is none of these."""
    fire = fires(path)
    if fire is not None:
        return fire
    cut = layout_of(path)
    if cut is not None:
        return cut_windows(path, cut)
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
    if FACTS in names:
        return _prepared(path)
    return None


def _known(kind: str, part: str, path: Path, reason: str, **arrays: tuple[str, ...]) -> Known:
    return Known(kind=kind, part=part, reason=reason, params={"path": str(path)}, arrays=arrays)


def _runs(path: Path, name: str = "") -> Known:
    """A folder of FDS runs, or one set of it."""
    params = {"path": str(path), "layout": "runs"} | ({"set": name} if name else {})
    return Known(kind="FDS runs", part="fds", reason="one simulated fire a file", params=params)


def _prepared(path: Path) -> Known:
    facts = read_json(path / FACTS)
    held, stored = facts["dataset"], facts["frames"]
    return Known(
        kind=f"prepared data ({stored['dtype']})",
        part="prepared",
        reason=f"{', '.join(held['grid']['channels'])} of {held['name']}; a recipe lies beside",
        params={"path": str(path)},
        frames=stored["shape"][0],
        step_seconds=held["grid"]["step_seconds"],
        height=held["grid"]["height"],
        width=held["grid"]["width"],
    )


def _npz(path: Path) -> Known | None:
    arrays = {key: _shape(held.shape) for key, held in held_in(path).items()}
    if "flow" in arrays and ("date" in arrays or "time" in arrays):
        return _known("TaxiBJ arrays", "taxibj", path, "flows by half-hour", **arrays)
    if {"vol_u8", "time"} <= arrays.keys():
        params = {"path": str(path), "layout": "volume"}
        reason = "a fire in a volume, read as vertical planes"
        return Known(kind="FDS volume", part="fds", reason=reason, params=params, arrays=arrays)
    return any_array(path)


def _npy(path: Path) -> Known | None:
    if (path.parent.parent / "environments.json").exists():
        return _runs(path.parent.parent, path.parent.name)
    return any_array(path)


def _hdf5(path: Path) -> Known | None:
    arrays = {key: _shape(held.shape) for key, held in held_in(path).items()}
    if {"data", "date"} <= arrays.keys() and len(arrays["data"]) == 4:
        return _known("TaxiBJ HDF5", "taxibj", path, "flows by half-hour", **arrays)
    return any_array(path)


def _shape(shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(map(str, shape))
