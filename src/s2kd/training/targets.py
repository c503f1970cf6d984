"""Latents and forecasts of the frozen teacher, computed once and read by every student.

A store is two `.npy` files of float16 and a key; of windows that are costly to make, a third of
their inputs in float32. The key names the teacher's weights, the data, the windows, the narratives
and the version of this code; a store with another key is stale and is made again.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from s2kd.core.files import BlockDigests, block_digest, read_sealed, sealed, write_json
from s2kd.core.reading import read
from s2kd.core.tensors import Batch, Forecast
from s2kd.core.types import GridSpec, S2KDError
from s2kd.data.windows import WindowDataset
from s2kd.models.forecasters import Student, Teacher
from s2kd.models.given import GivenTeacher
from s2kd.models.layers import extent_of, padded_size
from s2kd.training.extra import ExtraWindows
from s2kd.training.objectives import States, Target, Targets

Source = WindowDataset | ExtraWindows
"""Windows that a teacher gives targets for."""

AnyTeacher = Teacher | Student | GivenTeacher

FORMAT, NOTE = 2, "key.json"
REMEDY = "delete its folder, and the same command makes it again"
VIEWS = ("latent", "forecast")


class _Note(Struct):
    """What a store holds: its views, of `done` of all windows, with digests of their blocks."""

    views: list[str]
    windows: int
    done: int
    block: int
    digests: dict[str, list[str]]
    extent: tuple[int, int] | None = None


class StoredTargets:
    """Targets in a store, by window number; in memory where they fit `memory_bytes`.

    Raises S2KDError where the store is unfinished, or was altered.
    """

    def __init__(self, folder: Path, *, memory_bytes: int = 2**30) -> None:
        note = read(_Note, read_sealed(folder / NOTE, REMEDY), str(folder / NOTE))
        self.extent = note.extent
        if note.done != note.windows:
            raise S2KDError(f"{folder}: holds the targets of {note.done} of {note.windows} windows")
        files = {view: folder / f"{view}.npy" for view in note.views}
        try:
            size = sum(path.stat().st_size for path in files.values())
            self._views = {
                view: np.load(path, mmap_mode=None if size <= memory_bytes else "r")
                for view, path in files.items()
            }
        except (ValueError, EOFError, OSError) as error:
            raise S2KDError(
                f"{folder}: truncated or not a store of targets ({error}); {REMEDY}"
            ) from None
        self._digests = {}
        for view, array in self._views.items():
            if len(array) != note.windows or array.dtype.str not in ("<f2", "<f4"):
                raise S2KDError(f"{files[view]}: not what {NOTE} says; {REMEDY}")
            self._digests[view] = BlockDigests(
                str(files[view]), note.block, note.digests.get(view, ()), REMEDY
            )

    def gather(self, index: Tensor, device: torch.device | str) -> Target:
        """The targets of these windows, as float32 on `device`."""
        return Target(
            latent=self._take("latent", index, device),
            forecast=self._take("forecast", index, device),
        )

    def past(self, index: Tensor, device: torch.device | str) -> Tensor:
        """The inputs of these windows, physical units, where the store holds them."""
        return self._take("past", index, device)

    def _take(self, view: str, index: Tensor, device: torch.device | str) -> Tensor | None:
        if view not in self._views:
            return None
        values, digests, numbers = self._views[view], self._digests[view], index.cpu().numpy()
        for block in digests.unchecked(numbers):
            digests.check(block, values[block * digests.length :][: digests.length])
        # gathered as float16 and widened by torch: NumPy's conversion costs four times the read
        taken = np.ascontiguousarray(values[numbers])
        return torch.from_numpy(taken).to(device).float()


class LiveTargets:
    """Targets computed by the teacher with each batch, for data too large to store or augmented."""

    def __init__(self, teacher: AnyTeacher, windows: Source, states: States | None = None) -> None:
        self._teacher, self._windows, self._states = freeze(teacher), windows, states
        self.extent = teacher_extent(teacher, windows.dataset.grid)

    @torch.no_grad()
    def gather(self, index: Tensor, device: torch.device | str) -> Target:
        """Targets of these windows."""
        return answers(self._teacher, self._windows.gather(index), self._states)


class ForecastsOnly:
    """Targets without latents, for a student that matches those of another teacher."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def gather(self, index: Tensor, device: torch.device | str) -> Target:
        """The forecasts of these windows."""
        return Target(latent=None, forecast=self._targets.gather(index, device).forecast)


def freeze(teacher: AnyTeacher) -> AnyTeacher:
    """The teacher in evaluation mode, without gradients."""
    return teacher.eval().requires_grad_(False)


def answers(teacher: AnyTeacher, window: Batch, states: States | None) -> Target:
    """Z_fused and the forecast, in the normaliser's unit, of a batch of windows."""
    output = forecast_of(teacher, window, states)
    forecast = teacher.normaliser.decoded(output.future, window.past)
    return Target(latent=output.latent, forecast=forecast, feature_pyramid=output.feature_pyramid)


def forecast_of(teacher: AnyTeacher, window: Batch, states: States | None) -> Forecast:
    """The teacher's forecast of a batch, in physical units."""
    if not isinstance(teacher, Teacher):
        return teacher(window.past)
    tokens = states.tokens(window.index, window.past.device) if teacher.reads else None
    return teacher(window.past, tokens)


def teacher_extent(teacher: AnyTeacher, grid: GridSpec) -> tuple[int, int]:
    """(rows, columns) of the area under the teacher's latents."""
    if isinstance(teacher, GivenTeacher):
        return teacher.extent
    return extent_of(teacher.backbone, grid.height, grid.width)


def views_of(teacher: AnyTeacher) -> tuple[str, ...]:
    """What there is to store of a teacher: one that is not ours may have no latent."""
    return VIEWS if teacher.latent_width is not None else ("forecast",)


@torch.no_grad()
def store_targets(
    folder: Path,
    teacher: AnyTeacher,
    windows: Source,
    states: States | None,
    *,
    key: str,
    views: Sequence[str] = VIEWS,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill `folder` with the teacher's targets, unless it already holds those of `key`.

    Blocks already written by a run that was killed are not done again. The view `past` are the
    inputs themselves.
    """
    freeze(teacher)

    def block(index: Tensor) -> dict[str, Tensor]:
        window = windows.gather(index)
        target = answers(teacher, window, states)
        return {v: window.past if v == "past" else getattr(target, v).half() for v in views}

    header = {
        "key": key,
        "views": list(views),
        "windows": len(windows),
        **extent_note(teacher_extent(teacher, windows.dataset.grid), windows.dataset.grid),
    }
    fill_store(folder, header, block, batch_size=batch_size, progress=progress)


def fill_store(
    folder: Path,
    header: Mapping[str, object],
    block: Callable[[Tensor], Mapping[str, Tensor]],
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill `folder` with the views that `block` gives of windows by number, in their dtype.

    `header` holds key, views and number of windows; a store with another one is made again.
    """
    header = {"format": FORMAT, "block": batch_size, **header}
    count, note = header["windows"], folder / NOTE
    done = read_sealed(note, REMEDY) if note.exists() else {}
    if {k: done.get(k) for k in header} != header:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        done = {**header, "done": 0, "digests": {view: [] for view in header["views"]}}
    if done["done"] == count:
        return
    digests = {view: list(blocks) for view, blocks in done["digests"].items()}
    blocks = torch.arange(count).split(batch_size)
    arrays: dict[str, np.memmap] = {}
    for number, index in enumerate(blocks):
        if int(index[-1]) < done["done"]:
            continue
        for view, tensor in block(index).items():
            value = tensor.cpu().numpy()
            if view not in arrays:
                shape = (count, *value.shape[1:])
                arrays[view] = _open(folder / f"{view}.npy", shape, value.dtype)
            arrays[view][index[0] : index[-1] + 1] = value
            digests[view].append(block_digest(value))
        if number % 32 == 31 or number == len(blocks) - 1:
            for array in arrays.values():
                array.flush()
            done = {**header, "done": int(index[-1]) + 1, "digests": digests}
            write_json(note, sealed(done))
        if progress is not None:
            progress(int(index[-1]) + 1, count)


def extent_note(extent: tuple[int, int], grid: GridSpec) -> dict[str, list[int]]:
    """The entry of a store's key for the area under its latents, empty for the usual one."""
    usual = padded_size(grid.height), padded_size(grid.width)
    return {} if tuple(extent) == usual else {"extent": list(extent)}


def _open(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    if not path.exists():
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        _reserve(path)
        return array
    try:
        np.load(path, mmap_mode="r")  # opened for writing, a short file would be filled with zeros
        return np.lib.format.open_memmap(path, mode="r+")
    except (ValueError, EOFError) as error:
        raise S2KDError(
            f"{path.parent}: truncated or not a store of targets ({error}); {REMEDY}"
        ) from None


def _reserve(path: Path) -> None:
    """Take the file's whole space now: a disk that fills under a memory map kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
