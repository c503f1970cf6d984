"""Built-in experiments as functions, and the recipe that fits any file.

A built-in recipe is a function decorated with `@builtin`; its settings are keyword-only and
`data` names the folder (or file) that its files lie in.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from s2kd.core.recipe import ALL_METHODS as ALL_METHODS
from s2kd.core.recipe import Keep, Part, Recipe, Split, method_named, parsed_setting, s2kd
from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.data.describe import Description, describe
from s2kd.training.label_files import is_labels

if TYPE_CHECKING:
    import xarray as xr

READER = "dataset.params."
"""How the paths of a reader's settings begin."""
_RECIPES: dict[str, Callable[..., Recipe]] = {}


def builtin(make: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Decorator: this recipe can be asked for by its function's name."""
    _RECIPES[make.__name__] = make
    return make


def names() -> tuple[str, ...]:
    """The built-in recipes."""
    _load()
    return tuple(sorted(_RECIPES))


def summary(name: str) -> str:
    """The first line of a recipe's description."""
    _load()
    return (inspect.getdoc(_RECIPES[name]) or "").partition("\n")[0]


def get(name: str, *, data: str = "", world: str = "", preset: str = "") -> Recipe:
    """A built-in recipe; `data` is the folder of its files, `world` the demo's.

    `preset` is a benchmark's size, paper or small.
    """
    _load()
    if name not in _RECIPES:
        raise S2KDError(
            f"no recipe called {name!r}{nearest(name, _RECIPES)} (there are {', '.join(names())}); "
            "a path to a gridded file or to a recipe's JSON will do too"
        )
    settings = {"data": data, "world": world, "preset": preset}
    settings = {key: value for key, value in settings.items() if value}
    parameters = inspect.signature(_RECIPES[name]).parameters
    for key in settings:
        if key not in parameters:
            raise S2KDError(f"recipe {name!r} takes no --{key}")
    if "data" in parameters and not data:
        raise S2KDError(f"recipe {name!r} reads files: say where they are with --data FOLDER")
    return _RECIPES[name](**settings)


def _load() -> None:
    from s2kd.pipeline.recipes import benchmarks, demo, standins  # noqa: F401


# --- the ways to train a student -----------------------------------------------------------------

BASELINE, OUTPUT, FITNET = (method_named(name) for name in ("baseline", "output", "fitnet"))
METHODS = (BASELINE, OUTPUT, FITNET, s2kd())
"""What a recipe compares unless it says otherwise; `ALL_METHODS` are all there are."""


def for_dataset(part: Part, *, past: int, lead: int, name: str, cells: int) -> Recipe:
    """The recipe made for a user's own file: small models that train on a laptop.

    `cells` is the size of a frame. A large grid is read in patches and in smaller batches, and
    its teacher leaves out the branch that attends from every cell of the latent to every other.
    """
    from s2kd.pipeline.recipes.standins import small_training, wide_teacher

    patch = 1 if cells <= 128 * 128 else 2 if cells <= 256 * 256 else 4
    latent_cells = cells / (4 * patch) ** 2
    training = replace(small_training(12), batch_size=16 if patch < 4 else 4)
    return Recipe(
        name=name,
        dataset=part,
        past=past,
        lead=lead,
        stride=2,
        predict="change",
        teacher=replace(wide_teacher(unet=36, patch=patch), branches=latent_cells <= 1024),
        students=(Part(name="unet", params={"width": 12, "patch": patch}),),
        methods=METHODS,
        teacher_training=training,
        student_training=training,
    )


def for_data(
    data: "str | Path | xr.Dataset | xr.DataArray",
    settings: Sequence[str] = (),
    say: Callable[[str], object] = lambda text: None,
) -> Recipe:
    """The recipe made for a gridded file or folder, or for CF data in memory.

    `settings` (`path=value`) change it; those of `dataset.params` are not guessed from the file.
    `say` is called with every problem of the file that loading the data does not name. Raises
    S2KDError where nothing that can be read fits.
    """
    if isinstance(data, str | Path) and is_labels(Path(data)):
        raise S2KDError(
            f"{data}: is a label store, which holds what a teacher says and no truth; give the "
            "data themselves, and the store as stored.path"
        )
    values = dict(map(parsed_setting, settings))
    params = {path.removeprefix(READER): value for path, value in values.items() if READER in path}
    description = describe(data, params)
    recipe = for_description(description)
    if recipe is None:
        reasons = "; ".join(description.problems)
        raise S2KDError(f"{description.path}: no recipe fits it: {reasons}")
    for problem in description.problems:
        if problem not in description.repeated:
            say(problem)
    return recipe.with_settings(settings)


def for_description(description: Description) -> Recipe | None:
    """A ready recipe for what `s2kd data describe` found, or None where nothing fits."""
    if description.dataset is None:
        return None
    part = Part(**description.dataset)
    settings = {"split": Split(**description.split), "keep": Keep(**description.keep)}
    if part.name == "weatherbench":
        from s2kd.pipeline.recipes.standins import standin

        return replace(standin("weatherbench_small", part, stride=6, test_stride=4), **settings)
    past = description.past or 4
    name = "".join(c if c.isalnum() else "_" for c in Path(description.path).stem) or "mine"
    cells = max(1, description.height * description.width)
    lead = description.lead or past
    return replace(for_dataset(part, past=past, lead=lead, name=name, cells=cells), **settings)
