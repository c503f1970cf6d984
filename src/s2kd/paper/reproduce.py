"""`s2kd reproduce`: train what the paper's tables and figures need, and make them from the results.

The official data where they are given; else stand-ins, under their own names.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s2kd import pipeline
from s2kd.core.console import Progress
from s2kd.core.files import read_json, write_json
from s2kd.core.recipe import Part
from s2kd.core.types import S2KDError
from s2kd.evaluation.results import Row
from s2kd.models.checkpoint import load_student
from s2kd.paper import harness
from s2kd.paper.proof_figures import region
from s2kd.paper.studies import Study, Unit, studies, units, worth
from s2kd.pipeline import recipes
from s2kd.pipeline.recipes.standins import FULL_GRID_TEACHERS
from s2kd.training.objectives import predict


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set of the proof: what kind of field it is, and whether it is the paper's own."""

    kind: str
    official: bool


SOURCES: dict[str, Source] = {
    "weatherbench": Source(kind="weather", official=True),
    "taxibj_plus": Source(kind="traffic", official=True),
    "prometheus": Source(kind="fire", official=True),
    "ncep_air": Source(kind="weather", official=False),
    "taxi_sf": Source(kind="traffic", official=False),
    "fds_pool": Source(kind="fire", official=False),
    "fds_runs": Source(kind="fire", official=False),
    "fds_runs_p": Source(kind="fire", official=False),
}


def kind_of(data: str) -> str:
    """What kind of field it is; "" for data that the proof does not know."""
    return SOURCES[data].kind if data in SOURCES else ""


def sources_in(data: str, *, preset: str, asked: Sequence[str] = ()) -> dict[str, Any]:
    """Recipes of the data sets whose files lie in the folder `data`, by the data set's name.

    Those `asked` for must be there; else the official ones are taken, and the stand-ins for kinds
    of field of which there is no official one.
    """
    for name in asked:
        if name not in SOURCES:
            raise S2KDError(f"reproduce: no data set {name!r} (there are {', '.join(SOURCES)})")
    found, refused = {}, {}
    for name, source in SOURCES.items():
        if asked and name not in asked:
            continue
        there = {SOURCES[other].kind for other in found if SOURCES[other].official}
        if not asked and not source.official and source.kind in there:
            continue
        try:
            found[name] = _recipe(name, data, preset if source.official else "small")
        except S2KDError as error:
            refused[name] = str(error)
    missing = [refused[name] for name in asked if name in refused]
    if missing:
        raise S2KDError(missing[0])
    if not found:
        raise S2KDError(
            f"--data {data}: holds none of {', '.join(SOURCES)}; `s2kd data fetch` gets the "
            "official ones"
        )
    return found


def _recipe(name: str, data: str, preset: str) -> Any:
    from s2kd.data import load

    if name not in recipes.names():
        raise S2KDError(f"there is no recipe {name!r}")
    # results hold files by their name alone, which a relative folder would hide
    folder = Path(data).expanduser().resolve()
    inner = folder / name  # as `data fetch` lays them side by side
    place = str(inner if inner.is_dir() else folder)
    if not SOURCES[name].official:
        return recipes.get(name, data=place)
    recipe = recipes.get(name, data=place, preset=preset)
    load(recipe.dataset, recipe.split, recipe.keep)  # is it really there?
    return recipe


def small_students(unet: Part) -> tuple[Part, ...]:
    """The three students at a size for two cores; the ResNet has the U-Net's norm."""
    norm = {key: value for key, value in unet.params.items() if key == "norm"}
    return (
        Part(name="unet", params={"width": 8, **norm}),
        Part(name="resnet", params={"preset": "small", **norm}),
        Part(name="mixer", params={"preset": "small"}),
    )


def all_studies(
    found: Mapping[str, Any],
    *,
    preset: str,
    seeds: Sequence[int],
    narratives: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
) -> list[Study]:
    """Every study of these recipes; `settings` change every recipe alike."""
    made = []
    for name, recipe in found.items():
        official = SOURCES[name].official
        published = official and preset == "paper"
        students = recipe.students if published else small_students(recipe.students[0])
        made += studies(
            recipe.with_settings(settings),
            data=name,
            preset=preset if official else "small",
            students=students,
            seeds=seeds,
            narratives=narratives,
            full_grid=None if official else FULL_GRID_TEACHERS.get(name),
        )
    return made


def tables_for(what: Sequence[str], kind: str) -> list[str]:
    """Of the tables asked for, those that this kind of field has a part in."""
    only = {"table1": ("weather",), "table2": ("traffic",), "table3": ("fire",)}
    only |= {"table4": ("traffic",), "fig3": ("weather", "fire")}
    return [name for name in what if kind in only.get(name, (kind,))]


def planned(made: Sequence[Study], what: Sequence[str]) -> list[Unit]:
    """The work list of these studies: what every data set needs first comes first."""
    listed: list[Unit] = []
    for study in made:
        asked = tables_for(what, SOURCES[study.data].kind)
        if asked or not what:
            listed += units([study], tables=asked)
    return sorted(listed, key=worth)  # so that every data set has a row before any has five seeds


def reproduce(
    made: Sequence[Study],
    what: Sequence[str],
    place: harness.Place,
    *,
    jobs: int = 1,
    report: Callable[[str], Progress] = pipeline.silent,
    say: Callable[[str], None] = lambda text: None,
) -> harness.Outcome:
    """Do the work list as far as the time goes, then the map samples that can be made."""
    outcome = harness.work(
        planned(made, what),
        place,
        models=for_maps(made, what, place),
        jobs=jobs,
        report=report,
        say=say,
    )
    if not what or "fig5" in what:
        for study in made:
            save_sample(study, place)
    return outcome


# --- figure 5 ------------------------------------------------------------------------------------

SHOWN = ("baseline", "s2kd", "s2kd_plus")


def for_maps(made: Sequence[Study], what: Sequence[str], place: harness.Place) -> set[str]:
    """Names of the units whose models a map that is asked for, and not made yet, is drawn from."""
    return {
        unit.name
        for study in made
        if (not what or "fig5" in what)
        and not sample_path(place.results, study.data, study.preset).exists()
        for unit in units([study], tables=["fig5"])
        if unit.role == "student" and unit.seed == study.recipe.seeds[0] and unit.method in SHOWN
    }


def sample_path(results: Path, data: str, preset: str) -> Path:
    """Where the sample of an experiment lies."""
    return results / "maps" / f"{data}-{preset}.json"


@torch.no_grad()
def save_sample(study: Study, place: harness.Place) -> None:
    """The middle test window: truth and forecasts of its first channel at the last lead.

    Neither window, channel nor region is chosen by looking at a forecast.
    """
    recipe, seed = study.recipe, study.recipe.seeds[0]
    path = sample_path(place.results, study.data, study.preset)
    part, there = recipe.students[0], {method.name: method for method in recipe.methods}
    run = pipeline.Run(recipe=recipe, out=place.out / study.folder, machine=place.machine)
    wanted = [there[name] for name in SHOWN if name in there]
    folders = {m.name: pipeline.student_folder(run, part, m, seed) for m in wanted}
    ready = {name: folder for name, folder in folders.items() if (folder / "model.json").exists()}
    if path.exists() or not {"baseline", "s2kd"} <= set(ready):
        return
    windows = run.windows("test")
    number = len(windows) // 2
    window, grid = windows.gather(torch.tensor([number])), run.dataset.grid
    forecasts = {}
    for name, folder in ready.items():
        model = load_student(folder)[0].eval()
        forecasts[name] = predict(model, window.past, window.index, None)[0, -1, 0].numpy()
    truth = np.where(grid.exists, window.future[0, -1, 0].numpy(), np.nan)
    write_json(
        path,
        {
            "data": study.data,
            "preset": study.preset,
            "seed": seed,
            "window": number,
            "lead": recipe.lead,
            "channel": grid.channels[0],
            "unit": grid.units[0],
            "first_row_on_top": grid.latitude is None or grid.latitude[0] > grid.latitude[-1],
            "region": region(truth),
            "truth": _rounded(truth),
            "forecasts": {name: _rounded(field) for name, field in forecasts.items()},
        },
    )


def _rounded(field: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else float(f"{v:.5g}") for v in row] for row in field.tolist()]


def samples(results: Path, rows: Sequence[Row]) -> dict[str, Any]:
    """The samples that there are, by data and preset."""
    found = {}
    for data, preset in dict.fromkeys((row["data"], row["preset"]) for row in rows):
        path = sample_path(results, data, preset)
        if path.exists():
            found[f"{data}, {preset}"] = read_json(path)
    return found
