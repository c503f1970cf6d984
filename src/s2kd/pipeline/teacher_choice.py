"""Choice of the teacher of a search, and of the methods that go with it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from msgspec.structs import replace

from s2kd.core.errors import S2KDError
from s2kd.core.recipe import Recipe, Stored
from s2kd.data.windows import WindowDataset
from s2kd.models.given import open_teacher
from s2kd.pipeline.options import SearchOptions
from s2kd.pipeline.run import Run
from s2kd.pipeline.search_methods import search_methods, with_unlabelled
from s2kd.training.label_files import holds_latents
from s2kd.training.labels import Labels
from s2kd.training.loop import validation_error
from s2kd.training.objectives import exists_or_none, prediction_loss
from s2kd.training.stored import StoredForecasts

BUILTIN = "builtin"
"""The privileged teacher, trained on the user's data."""


def recipe_with(run: Run, options: SearchOptions) -> Recipe:
    """The recipe of a run with the teacher and the methods of a search.

    Raises S2KDError where a teacher or a capture does not fit the data, or where none of several
    teachers can be judged on validation.
    """
    recipe = replace(
        run.recipe,
        captures=tuple(Stored(path=path) for path in options.captures),
        unlabelled=options.unlabelled,
        seeds=run.recipe.seeds[:1],  # every candidate is trained once
    )
    sources = options.teachers or (() if options.captures or run.given else (BUILTIN,))
    source = sources[0] if sources else ""
    if len(sources) > 1:
        source = best_teacher(run, sources)
        run.say(f"The best teacher on validation: {source}")
    kind, latents = "none", True
    if run.given is not None:
        kind, latents = "given", run.given_teacher.latent_width is not None
    elif source == BUILTIN:
        kind = "text" if recipe.narrator.name != "none" else "no_text"
    elif source and _is_stored(source):
        kind, recipe = "stored", replace(recipe, stored=replace(recipe.stored, path=source))
        latents = holds_latents(recipe.stored)
    elif source:
        kind, recipe = "given", replace(recipe, given=source)
        latents = open_teacher(source, setting=run.setting).latent_width is not None
    if options.captures:
        stores = [Labels.open(path) for path in options.captures]
        latents = all(labels.latent_width is not None for labels in stores)
    methods = search_methods(kind, captures=bool(options.captures), latents=latents)
    if options.unlabelled:
        methods = with_unlabelled(methods)
    return replace(recipe, methods=methods)


def best_teacher(run: Run, sources: Sequence[str]) -> str:
    """The one of several given or stored teachers with the lowest validation error."""
    if BUILTIN in sources:
        raise S2KDError(
            f"--teacher {BUILTIN}: is trained on your data, so give it alone, or give it the "
            "others' forecasts to compare with by `s2kd compare`"
        )
    windows = run.windows("val", device=run.fabric.device)
    errors = {}
    for source in sources:
        if _is_stored(source):
            errors[source] = stored_error(run, Stored(path=source), windows)
        else:
            teacher = open_teacher(source, setting=run.setting).to(run.fabric.device)
            errors[source] = validation_error(teacher, windows, None, run.fabric)
    return min(errors, key=errors.__getitem__)


def stored_error(run: Run, stored: Stored, windows: WindowDataset) -> float:
    """L_pred (eq. 1) of stored forecasts of these windows, all of which they must hold."""
    forecasts, normaliser = StoredForecasts(stored, windows), run.setting.normaliser
    exists, total = exists_or_none(windows), 0.0
    for index in torch.arange(len(windows)).split(32):
        future = torch.from_numpy(forecasts.read(index.numpy())[0])
        batch = windows.gather(index)
        total += len(index) * float(
            prediction_loss(future.to(batch.future), batch.future, normaliser, exists)
        )
    return total / len(windows)


def _is_stored(source: str) -> bool:
    """Whether a teacher is given by its forecasts in files."""
    return Path(source).suffix.lower() in (".zarr", ".nc", ".nc4", ".grib", ".grib2", ".grb")
