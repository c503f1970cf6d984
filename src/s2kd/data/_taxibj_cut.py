"""TaxiBJ as OpenSTL cut it, and TaxiBJ+: windows cut already, past and future apart."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from s2kd.core.types import GridSpec, S2KDError
from s2kd.data._arrays import ArrayIn, PlainArray, held_in, open_array
from s2kd.data._cut import CutFrames, Examples, apart, stretches, times
from s2kd.data._taxibj_raw import ATTRIBUTES, CHANNELS
from s2kd.data.dataset import SPLITS, Dataset

STEP = 1800
OPENSTL = ("X_train", "Y_train", "X_test", "Y_test")
FILES = {
    "X_c": (("train", "valid", "test"), "{split}/X_c.npy", "{split}/Y.npy"),
    "reshaped": (
        ("train", "val", "test"),
        "{split}_input_data_reshaped.npy",
        "{split}_output_data_reshaped.npy",
    ),
}
"""TaxiBJ+: names of the three splits, of the file of past and of the file of future frames."""


def layout_of(path: Path) -> str | None:
    """`openstl`, `X_c` or `reshaped`; None where `path` holds no cut windows."""
    if path.is_dir():
        if any(path.glob("*_InOut.h5")):
            return None
        if openstl_file(path) is not None:
            return "openstl"
        for name, (splits, past, future) in FILES.items():
            wanted = [path / p.format(split=s) for s in splits for p in (past, future)]
            if any(file.is_file() for file in wanted):
                return name
        return None
    if path.suffix == ".npz" and path.is_file() and {"X_train", "X_test"} & held_in(path).keys():
        return "openstl"
    return None


def openstl_file(path: Path) -> Path | None:
    """`path` itself, or the one `dataset.npz` in it, up to two folders down (as it is unpacked)."""
    if path.is_file():
        return path
    found = [file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}dataset.npz")]
    return found[0] if len(found) == 1 else None


def from_cut(
    path: Path,
    layout: str,
    *,
    val_fraction: float,
    maximum: float,
    subsample_input: int,
    shared: str,
    cache: str,
) -> Dataset:
    """The layouts that are cut already; see `s2kd.data.taxibj.taxibj`."""
    if shared not in ("drop", "keep"):
        raise S2KDError(f"taxibj: shared={shared!r} must be 'drop' or 'keep'")
    if layout == "openstl":
        if not 0 < val_fraction < 1:
            raise S2KDError(f"{path}: val_fraction={val_fraction} must lie between 0 and 1")
        parts = _openstl(openstl_file(path) or path, cache)
        scale = partial(_from_unit, maximum=maximum)
    else:
        parts = _plus(path, layout)
        scale = _counts
        if maximum != 1.0 or val_fraction != 0.1:
            raise S2KDError(f"{path}: maximum and val_fraction are for OpenSTL's dataset.npz only")
    past, lead = (_frames_of(array)[1] for array in (parts[0].past, parts[0].future))
    height, width = parts[0].past.shape[-2:]
    if subsample_input < 1 or height % subsample_input or width % subsample_input:
        raise S2KDError(
            f"{path}: subsample_input={subsample_input} does not divide {height}×{width} cells"
        )
    parts, said = _without_shared(path, parts, shared, val_fraction)
    frames = CutFrames(
        parts,
        past=past,
        lead=lead,
        frame=(2, height, width),
        of_past=lambda array, block: _subsampled(scale(array, block), subsample_input),
        of_future=scale,
    )
    length = past + lead
    name = "taxibj" if layout == "openstl" else "taxibj_plus"
    coarse = subsample_input > 1
    return Dataset(
        name=f"{name}_subsampled_input_{subsample_input}" if coarse else name,
        domain="traffic",
        grid=GridSpec(
            channels=CHANNELS,
            units=("1", "1"),
            height=height,
            width=width,
            step_seconds=float(STEP),
        ),
        frames=frames,
        times=times(sum(map(len, parts)), length, STEP),
        splits={split: stretches(parts, split, length) for split in SPLITS},
        window=(past, lead) if coarse else None,
        attributes=ATTRIBUTES,
        source=path.name,
        notices=said,
    )


def _openstl(path: Path, cache: str) -> list[Examples]:
    """Train and test; val is yet to be taken from train."""
    held = held_in(path)
    for key in OPENSTL:
        if key not in held:
            raise S2KDError(f"{path}: needs {', '.join(OPENSTL)}, has {', '.join(held)}")
    arrays = {key: open_array(path, key, cache=cache) for key in OPENSTL}
    _check(list(arrays.values()))
    return [
        Examples(
            split=split,
            past=arrays[f"X_{split}"],
            future=arrays[f"Y_{split}"],
            first=0,
            stop=len_of(arrays[f"X_{split}"]),
        )
        for split in ("train", "test")
    ]


def _plus(path: Path, layout: str) -> list[Examples]:
    names, past, future = FILES[layout]
    pairs = [[path / p.format(split=name) for p in (past, future)] for name in names]
    lacking = [file for pair in pairs for file in pair if not file.is_file()]
    if lacking:
        raise S2KDError(
            f"{path}: lacks {', '.join(str(file.relative_to(path)) for file in lacking)}; TaxiBJ+ "
            f"has {past} and {future} for each of {', '.join(names)}".replace("{split}", "SPLIT")
        )
    arrays = [[open_array(file) for file in pair] for pair in pairs]
    _check([array for pair in arrays for array in pair])
    return [
        Examples(split=split, past=pair[0], future=pair[1], first=0, stop=len_of(pair[0]))
        for split, pair in zip(SPLITS, arrays, strict=True)
    ]


def len_of(array: ArrayIn) -> int:
    """How many examples."""
    return array.shape[0]


def _check(arrays: Sequence[ArrayIn]) -> None:
    """Every past has a future, and all have one layout and grid."""
    one = arrays[0]
    for number, array in enumerate(arrays):
        shape = array.shape
        five = len(shape) == 5 and shape[2] == 2
        four = len(shape) == 4 and shape[1] % 2 == 0
        if not (five or four) or 0 in shape:
            raise S2KDError(
                f"{array.where}: has shape {shape}, wants (examples, frames, 2, rows, columns) or "
                "(examples, 2 × frames, rows, columns) with inflow before outflow"
            )
        pair = arrays[number - number % 2]
        if len_of(array) != len_of(pair):
            raise S2KDError(
                f"{array.where}: has {len_of(array)} examples, {pair.where} {len_of(pair)}"
            )
        like = arrays[number % 2]
        if shape[1:] != like.shape[1:] or shape[-2:] != one.shape[-2:]:
            raise S2KDError(
                f"{array.where}: examples have shape {shape[1:]}, "
                f"those of {like.where} {like.shape[1:]}; all splits must have one shape and grid"
            )


def _frames_of(array: ArrayIn) -> tuple[int, int, int, int, int]:
    """The shape as (example, frame, channel, row, column)."""
    shape = array.shape
    frames = shape[1] if len(shape) == 5 else shape[1] // 2
    return (shape[0], frames, 2, *shape[-2:])


def _counts(array: ArrayIn, block: np.ndarray) -> np.ndarray:
    """As it is, float32, without the negative counts that some files hold."""
    values = block.astype(np.float32).reshape(len(block), *_frames_of(array)[1:])
    if not np.isfinite(values).all():
        raise S2KDError(f"{array.where}: holds values that are not finite")
    return np.maximum(values, 0, out=values)


def _from_unit(array: ArrayIn, block: np.ndarray, *, maximum: float) -> np.ndarray:
    """-1 … 1 to 0 … `maximum`."""
    values = block.astype(np.float32).reshape(len(block), *_frames_of(array)[1:])
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= -1.001 and high <= 1.001):
        raise S2KDError(
            f"{array.where}: holds values from {low:g} to {high:g}, OpenSTL's lie between -1 and 1"
        )
    return np.maximum((values + 1) * np.float32(maximum / 2), 0)


def _subsampled(frames: np.ndarray, factor: int) -> np.ndarray:
    """Every `factor`-th row and column from the first, each value repeated over its block."""
    if factor == 1:
        return frames
    few = frames[..., ::factor, ::factor]
    return few.repeat(factor, axis=-2).repeat(factor, axis=-1)


def _without_shared(
    path: Path, parts: Sequence[Examples], shared: str, val_fraction: float
) -> tuple[tuple[Examples, ...], tuple[str, ...]]:
    """The examples to be used, and a sentence on those that are not."""
    if shared == "keep":
        said = f"{path}: examples of different splits may share frames (shared='keep')"
        return tuple(_with_val(parts, val_fraction)), (said,)
    lost = dict.fromkeys(("train", "val"), 0)
    kept = tuple(parts)
    # val is cut from what the test leaves of train, and then costs train some more
    for _ in range(1 if any(part.split == "val" for part in parts) else 2):
        before = _counts_of(kept)
        kept, dropped = apart(kept, _rows)
        for split, number in dropped.items():
            if 2 * number > before.get(split, 0) > 0:
                raise S2KDError(
                    f"{path}: {number} of the {before[split]} {split} examples share frames with "
                    "a later split: too few are left, or they were not cut in order of time; "
                    "shared='keep' trains on them all the same, and scores what it has seen"
                )
            lost[split] = lost.get(split, 0) + number
        kept = tuple(_with_val(kept, val_fraction))
    words = [f"{n} of {split}" for split, n in lost.items() if n]
    said = f"{path}: left out {' and '.join(words)} examples, which share frames with later splits"
    return kept, (said,) if words else ()


def _counts_of(parts: Sequence[Examples]) -> dict[str, int]:
    return {split: sum(len(p) for p in parts if p.split == split) for split in SPLITS}


def _with_val(parts: Sequence[Examples], val_fraction: float) -> list[Examples]:
    """`parts`, and where none of them is val, the last of train as val."""
    counts = _counts_of(parts)
    if counts["val"]:
        return list(parts)
    begin, found, number = counts["train"] - max(1, round(val_fraction * counts["train"])), [], 0
    for part in parts:
        cut = len(part) if part.split == "test" else min(max(begin - number, 0), len(part))
        if cut:
            found.append(replace(part, stop=part.first + cut))
        if cut < len(part):
            found.append(replace(part, split="val", first=part.first + cut))
        number += len(part)
    return found


def _rows(array: ArrayIn, first: int, stop: int) -> np.ndarray:
    """(example, frame, channel, row, column): the rows in the middle, which tell frames apart."""
    height = array.shape[-2]
    few = min(height, max(8, height // 8))
    top = (height - few) // 2
    assert isinstance(array, PlainArray)
    mapped = array.mapped()[first:stop, ..., top : top + few, :]
    return np.array(mapped).reshape(stop - first, *_frames_of(array)[1:3], few, -1)
