"""Labelling: a teacher's answers to every window of some data, in a label store."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from msgspec import structs
from torch import Tensor

from s2kd.core import files
from s2kd.core.console import Progress
from s2kd.core.recipe import Recipe
from s2kd.core.types import S2KDError
from s2kd.data.dataset import Dataset
from s2kd.data.windows import WindowDataset
from s2kd.data.write import check_out
from s2kd.models.given import frames_wanted
from s2kd.pipeline import recipes
from s2kd.pipeline.run import Machine, Run, silent
from s2kd.training.labels import Labels, write_labels

if TYPE_CHECKING:
    import xarray as xr

ALL = "all"


def label(
    teacher: str | Path | Callable[[Tensor], object],
    data: "Recipe | str | Path | xr.Dataset | xr.DataArray",
    *,
    out: Path | str,
    latents: bool = False,
    inputs: bool = True,
    splits: Sequence[str] = (ALL,),
    stride: int = 1,
    past: int = 0,
    lead: int = 0,
    machine: Machine = Machine(),  # noqa: B008
    progress: Callable[[str], Progress] = silent,
    say: Callable[[str], None] = lambda text: None,
) -> Labels:
    """Write what a teacher says of every window of `data` to the label store `out`.

    The same call goes on where a killed one stopped. A window needs past frames only: those at
    the end of a record are labelled too.

    Args:
        teacher: as `open_teacher` takes it, or a callable or torch module: past frames (batch,
            past, channel, height, width) in physical units to the future, or to (future, latent).
        data: a recipe, a file, or an xarray object.
        out: a folder that ends in .zarr.
        latents: store the teacher's latents too.
        inputs: store the past frames, without which the labels teach only beside these data.
        splits: whose windows are labelled; `all` for every one.
        stride: frames from one window to the next.
        past: frames taken; 0: as the teacher was made for, else as the recipe has them.
        lead: frames forecast; 0: likewise.
        machine: where the teacher runs.
        progress: gives the `Progress` of a stage, as for `Run`.
        say: called with what the reader left out.

    Raises:
        S2KDError: what the teacher, the data or the store do not allow, by name.
    """
    out, spec = Path(out), str(teacher) if isinstance(teacher, str | Path) else ""
    recipe = data if isinstance(data, Recipe) else recipes.for_data(data, say=say)
    _check_target(out, recipe)
    trained = (frames_wanted(spec) if spec else None) or (recipe.past, recipe.lead)
    past, lead = past or trained[0], lead or trained[1]
    run = Run(
        recipe=structs.replace(recipe, past=past, lead=lead, given=spec),
        out=out,
        data=None if isinstance(data, Recipe | str | Path) else data,
        given=None if spec else teacher,
        machine=machine,
        say=say,
    )
    device = run.fabric.device
    opened = run.given_teacher.to(device)
    windows = windows_of(run.dataset, splits, past=past, lead=lead, stride=stride, device=device)
    busy = S2KDError(f"{out}: another process is labelling; try again later")
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(out.with_name(f".{out.name}.lock"), busy):
        write_labels(
            out,
            opened,
            windows,
            latents=latents,
            inputs=inputs,
            progress=progress(f"label {out.name}"),
        )
    return Labels.open(out)


def windows_of(
    dataset: Dataset,
    splits: Sequence[str],
    *,
    past: int,
    lead: int,
    stride: int,
    device: torch.device | str,
) -> WindowDataset:
    """The windows of several splits as those of one, with no need of a future.

    Where a dataset's first frames differ in kind from its last ones, windows keep their future.
    """
    names = list(dataset.splits) if ALL in splits else list(dict.fromkeys(splits))
    for name in names:
        if name not in dataset.splits:
            raise S2KDError(
                f"--split {name}: {dataset.name} has no such split (there are {ALL}, "
                f"{', '.join(dataset.splits)})"
            )
    stretches = [stretch for name in names for stretch in dataset.splits[name]]
    stretches = tuple(sorted(stretches, key=lambda stretch: stretch.first))
    joined = replace(
        dataset, splits={"train": stretches, "val": (), "test": ()}, simultaneous=False
    )
    future = 0 if dataset.window is None else lead
    return WindowDataset(joined, "train", past=past, lead=future, stride=stride, device=device)


def _check_target(out: Path, recipe: Recipe) -> None:
    if out.suffix != ".zarr":
        raise S2KDError(f"--out {out}: a label store is a folder that ends in .zarr")
    path = str(recipe.dataset.params.get("path", ""))
    if path and "://" not in path:
        check_out(out, Path(path))
