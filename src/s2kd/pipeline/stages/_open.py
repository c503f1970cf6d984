"""Opening a folder for a recipe: what fits, what would mix two experiments, and one at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import s2kd
from s2kd.core import files
from s2kd.core.console import first_process
from s2kd.core.files import read_json, write_json
from s2kd.core.recipe import Method, Part, Recipe
from s2kd.core.types import S2KDError
from s2kd.data import datasets
from s2kd.data._cf import expand
from s2kd.models.backbones import backbones
from s2kd.narration.narrators import narrators
from s2kd.narration.text import encoders
from s2kd.pipeline.stages._run import Run
from s2kd.training.losses import losses


def open_run(recipe: Recipe, out: Path | str, **settings: Any) -> Run:
    """A run in a folder that is new, or that already belongs to this recipe.

    More seeds, methods or students may be added to a folder; anything else that differs would
    mix two experiments and is refused, naming the fields.
    """
    check_parts(recipe)
    out = Path(out)
    path = out / "recipe.json"
    if out.exists() and not out.is_dir():
        raise S2KDError(f"{out}: is a file; --out wants a folder")
    if path.exists():
        old, new = load_recipe(out).to_dict(), recipe.to_dict()
        free = {"seeds", "methods", "students", "stored", "name"}
        differ = [k for k in new if k not in free and old[k] != new[k]]
        if differ and is_used(out):
            raise S2KDError(
                f"{out}: belongs to another recipe ({old.get('name')!r}; it differs in "
                f"{', '.join(differ)}); choose another --out, or delete the folder"
            )
    elif out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise S2KDError(
            f"{out}: is not empty and holds no recipe.json of ours; choose another --out"
        )
    write_json(path, {"recipe": recipe.to_dict(), "s2kd": s2kd.__version__})
    return Run(recipe=recipe, out=out, **settings)


def is_used(out: Path) -> bool:
    """Whether a run has left more in this folder than what it was asked for."""
    return any(p.name != "recipe.json" and not p.name.startswith(".") for p in out.iterdir())


def load_recipe(out: Path) -> Recipe:
    """The recipe that a run folder belongs to."""
    path = out / "recipe.json"
    if not path.exists():
        raise S2KDError(f"{out}: holds no recipe.json, so not the folder of a run")
    saved = read_json(path)
    if not isinstance(saved, dict) or "recipe" not in saved:
        raise S2KDError(f"{path}: not the recipe of a run of this program")
    return Recipe.from_dict(saved["recipe"], source=str(path))


def check_parts(recipe: Recipe) -> None:
    """Refuse an unknown part or setting before any data is read."""
    Recipe.from_dict(recipe.to_dict())  # a recipe built in Python has unchecked fields
    pairs: list[tuple[Any, Part]] = [
        (datasets, recipe.dataset),
        (narrators, recipe.narrator),
        (encoders, recipe.text),
        (backbones, recipe.teacher.backbone),
        *[(backbones, student) for student in recipe.students],
        *[(losses, term.loss) for method in recipe.methods for term in method.terms],
    ]
    for registry, part in pairs:
        registry.check(part.name, part.params)
    _check_stored(recipe)


def _check_stored(recipe: Recipe) -> None:
    """Stored forecasts and methods that learn from them go together, and the file is there."""
    methods = [method for method in recipe.methods if method.teacher == "stored"]
    if recipe.stored.path and not methods:
        raise S2KDError(
            "stored.path is set, but no method learns from stored forecasts; add one, as in "
            '--set \'methods=["baseline","output_stored"]\''
        )
    for method in methods:
        if not recipe.stored.path:
            raise S2KDError(
                f"method {method.name!r} learns from stored forecasts: say where they are with "
                "--set stored.path=FILE"
            )
        asked = compared(method)
        if "stages" in asked:
            raise S2KDError(
                f"method {method.name!r} compares features of several stages, which stored "
                "forecasts do not hold"
            )
        if asked != {"forecast"} and not recipe.stored.latent:
            raise S2KDError(
                f"method {method.name!r} compares latents: name the variable of "
                f"{recipe.stored.path} that holds the teacher's features with "
                "--set stored.latent=NAME"
            )
    if methods:
        expand(recipe.stored.path)


def compared(method: Method) -> set[str]:
    """What this method's losses compare."""
    return {losses.compares(term.loss.name) for term in method.terms}


class Busy(S2KDError):
    """Somebody else is at work there."""


@contextmanager
def locked(out: Path, processes: int = 1) -> Iterator[None]:
    """One run a folder, by as many `processes` as share it; the second is refused with a sentence.

    Where the work fails before anything was made, what the lock itself made goes again.
    """
    if not first_process(processes):
        yield  # the first of this run's processes holds the lock for all
        return
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise S2KDError(f"{out}: is a file, or lies in one; --out wants a folder") from None
    with files.locked(out / ".lock", Busy(f"{out}: another run is at work in this folder")):
        try:
            yield
        except BaseException:
            if new and not is_used(out):
                shutil.rmtree(out)
            elif not (out / "recipe.json").exists():
                (out / ".lock").unlink(missing_ok=True)
            raise
