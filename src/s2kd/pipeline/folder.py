"""Run folders: which recipe one belongs to, and one process at a time."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import s2kd
from s2kd.core import files
from s2kd.core.console import first_process
from s2kd.core.errors import S2KDError
from s2kd.core.files import read_sealed, sealed, write_json
from s2kd.core.recipe import Recipe
from s2kd.pipeline.checks import check_parts

if TYPE_CHECKING:
    from s2kd.pipeline.run import Run


def open_run(
    recipe: Recipe, out: Path | str, *, free: Sequence[str] = (), **settings: Any
) -> "Run":
    """A run in a folder that is new, or that already belongs to this recipe.

    More seeds, methods or students may be added to a folder; any other difference would mix two
    experiments and is refused, naming the fields, but for those that `free` names. `settings` are
    those of `Run`.
    """
    check_parts(recipe)
    out = Path(out)
    path = out / "recipe.json"
    if out.exists() and not out.is_dir():
        raise S2KDError(f"{out}: is a file; --out wants a folder")
    if path.exists():
        old, new = load_recipe(out).to_dict(), recipe.to_dict()
        always = {
            "seeds",
            "methods",
            "students",
            "stored",
            "name",
            "given",
            "captures",
            "unlabelled",
        }
        fixed = set(new) - always - set(free)
        differing = [name for name in new if name in fixed and old[name] != new[name]]
        if differing and is_used(out):
            raise S2KDError(
                f"{out}: belongs to another recipe ({old.get('name')!r}; it differs in "
                f"{', '.join(differing)}); choose another --out, or delete the folder"
            )
    elif out.exists() and is_used(out):
        raise S2KDError(
            f"{out}: is not empty and holds no recipe.json of ours; choose another --out"
        )
    write_json(path, sealed({"recipe": recipe.to_dict(), "s2kd": s2kd.__version__}))
    from s2kd.pipeline.run import Run

    return Run(recipe=recipe, out=out, **settings)


def is_used(out: Path) -> bool:
    """Whether the folder holds more than a recipe, a log and hidden files."""
    free = ("recipe.json", "distill.log")
    return any(p.name not in free and not p.name.startswith(".") for p in out.iterdir())


def load_recipe(out: Path) -> Recipe:
    """The recipe that a run folder belongs to."""
    path = out / "recipe.json"
    if not path.exists():
        raise S2KDError(f"{out}: holds no recipe.json, so not the folder of a run")
    saved = read_sealed(path, "restore it: every model.json below has it as 'recipe'")
    if "recipe" not in saved:
        raise S2KDError(f"{path}: not the recipe of a run of this program")
    return Recipe.from_dict(saved["recipe"], source=str(path))


class Busy(S2KDError):
    """Another process holds the folder."""


@contextmanager
def locked(out: Path, processes: int = 1) -> Iterator[None]:
    """The folder `out`, made if need be, for one run shared by so many `processes`.

    Raises `Busy` where another run holds it. Where the work fails before anything was written,
    the folder that was made for it is removed again.
    """
    if not first_process(processes):
        yield  # the first process of the run holds the lock for all
        return
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise S2KDError(f"{out}: is a file, or lies in one; --out wants a folder") from None
    with files.locked(out / ".lock", Busy(f"{out}: another run is at work in this folder")):
        files.clear_parts(out)
        try:
            yield
        except BaseException:
            if new and not is_used(out):
                shutil.rmtree(out)
            elif not (out / "recipe.json").exists():
                (out / ".lock").unlink(missing_ok=True)
            raise
