"""Python calls of the two main verbs: `s2kd.distill` and `s2kd.compare`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

import s2kd.pipeline as stages
from s2kd.core.recipe import Recipe
from s2kd.evaluation.summary import summary_table
from s2kd.pipeline import main_job, recipes
from s2kd.pipeline.folder import locked, open_run
from s2kd.pipeline.options import MINUTES, Machine, SearchOptions, budget_of, quantity

if TYPE_CHECKING:
    import xarray as xr
    from torch import Tensor

    from s2kd.evaluation.answer import Answer

    Data = str | Path | Recipe | xr.Dataset | xr.DataArray

IN_MEMORY = "a callable in memory"


def recipe_and_memory(
    data: "Data", settings: Sequence[str] = ()
) -> tuple[Recipe, "dict[str, Any]"]:
    """The recipe for some data, and what `Run` needs besides: the data where they are in memory."""
    if isinstance(data, Recipe):
        return data.with_settings(settings), {}
    recipe = recipes.for_data(data, settings)
    return recipe, {} if isinstance(data, str | Path) else {"data": data}


def distill(
    data: "Data",
    *,
    out: Path | str,
    teacher: "str | Sequence[str] | Callable[[Tensor], object]" = (),
    captures: Sequence[str] = (),
    unlabelled: Sequence[str] = (),
    max_latency: str | int | float = "",
    max_parameters: int = 0,
    time: str | int | float = "30m",
    students: Sequence[str] = (),
    sizes: Sequence[str] = (),
    settings: Sequence[str] = (),
    machine: Machine = Machine(),  # noqa: B008
) -> "Answer":
    """The best small forecaster for some data, within a budget and a time.

    Parameters
    ----------
    data
        A gridded file or folder, CF data in memory, or a recipe.
    out
        The run folder; called again, the search goes on there.
    teacher
        `builtin`, a path of stored forecasts or labels, `package.module:callable`, or a callable or
        torch module itself; of several names, the best on validation teaches. Without any, the
        captures' teacher or the built-in one.
    captures, unlabelled
        Label stores (`s2kd label`) and files of further frames.
    max_latency
        Of one forecast through ONNX Runtime on one thread: "5ms", or milliseconds.
    max_parameters
        0 for no limit.
    time
        Wall time of everything: "90s", "30m", "2h", or minutes.
    students, sizes
        Backbones and sizes to try; all, and small to large, where empty.
    settings
        Changes of the recipe, as in `student_training.lr=3e-4`.
    machine
        Where to compute.

    Returns
    -------
    The chosen student with its errors in physical units, sizes, speeds and every candidate.

    Raises
    ------
    S2KDError
        Where data, teacher, captures or budget do not fit.
    """
    recipe, memory = recipe_and_memory(data, settings)
    names: tuple[str, ...] = ()
    if isinstance(teacher, str):
        names = (teacher,) if teacher else ()
    elif callable(teacher):
        recipe, memory = structs.replace(recipe, given=IN_MEMORY), {**memory, "given": teacher}
    else:
        names = tuple(teacher)
    options = SearchOptions(
        budget=budget_of(max_latency, max_parameters),
        minutes=quantity("--time", time, MINUTES),
        teachers=names,
        captures=tuple(map(str, captures)),
        unlabelled=tuple(map(str, unlabelled)),
        students=tuple(students),
        sizes=tuple(sizes),
    )
    return main_job.distill(recipe, out=out, options=options, machine=machine, **memory)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Methods side by side: scores by test split, models along `model`, and the run's folder."""

    out: Path
    scores: "dict[str, xr.Dataset]"

    def __repr__(self) -> str:
        tables = (summary_table(split).markdown() for split in self.scores.values())
        return "\n\n".join([*tables, f"Report: {self.out / 'report.html'}"])


def compare(
    data: "Data",
    *,
    out: Path | str,
    settings: Sequence[str] = (),
    machine: Machine = Machine(),  # noqa: B008
) -> Comparison:
    """Every student of a recipe by every method, with the teachers and references, scored on test.

    `data` and `settings` are those of `distill`; methods and seeds are settings, as in
    `methods=["baseline","s2kd"]`. Called again with the same folder, it goes on there.
    """
    recipe, memory = recipe_and_memory(data, settings)
    out = Path(out)
    with locked(out):
        run = open_run(recipe, out, machine=machine, **memory)
        stages.run_all(run)
    return Comparison(out=out, scores=stages.read_scores(out))
