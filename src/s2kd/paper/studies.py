"""Which trainings the tables of the paper need, in order of worth.

A *variant* is a recipe in a folder: the experiment itself (called by its narrator), or one that
differs from it in a field. A *training job* is one student of a variant by one method and seed,
with the teacher that it needs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from s2kd.core.methods import ALL_METHODS, Part, method_named
from s2kd.core.recipe import Recipe
from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.pipeline import recipes
from s2kd.pipeline.recipes.standins import FULL_GRID_TEACHERS
from s2kd.pipeline.run import Run

SOURCES: dict[str, tuple[str, bool]] = {
    "weatherbench": ("weather", True),
    "taxibj_plus": ("traffic", True),
    "prometheus": ("fire", True),
    "ncep_air": ("weather", False),
    "taxi_sf": ("traffic", False),
    "fds_pool": ("fire", False),
    "fds_runs": ("fire", False),
    "fds_runs_p": ("fire", False),
}
"""Data sets: kind of field, and whether it is the paper's own (else a stand-in)."""

CONTROLS: dict[str, dict[str, Any]] = {
    "empty": {"narrator": Part(name="none")},
    "shuffled": {"narrator": Part(name="shuffled")},
    "random": {"text": Part(name="random")},
}
"""Variants by the field that they change: no text, another window's text, random token states."""

LONG_TRAINING, LONGER = "patient", 3
"""A variant whose students train `LONGER` times the epochs (Beyer et al. 2022, section 3.3)."""

FULL_GRID = "full_grid"
"""A variant whose teacher keeps the full grid, for data that name one."""

FIRST = ("baseline", "output", "fitnet", "s2kd")
ABLATION = ("baseline", "spectral", "semantic", "s2kd")
OTHERS = ("review", "relational", "sdkd")

MAIN_TABLES = {"weather": "table1", "traffic": "table2", "fire": "table3"}
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "table1": ("three students by every method, and the teacher", ("weather",)),
    "table2": ("the same", ("traffic",)),
    "table3": ("the same", ("fire",)),
    "table4": ("the parts of the loss", ("traffic",)),
    "fig3": ("the parts of the loss", ("weather", "fire")),
    "fig4": ("narrators and controls", ("weather", "traffic", "fire")),
    "fig5": ("maps of truth, teacher and students", ("weather", "traffic", "fire")),
    "extremes": ("rare events", ("weather", "traffic", "fire")),
    "spectra": ("power spectra at the last lead", ("weather", "traffic", "fire")),
    "horizon": ("roll-outs to four times the lead", ("weather", "traffic", "fire")),
}
"""What it shows, and the kinds of field that it is made of."""

LEVELS: tuple[tuple[int, bool, tuple[str, ...], frozenset[str]], ...] = (
    (1, True, (*FIRST, "s2kd_plus"), frozenset(TABLES) - {"table4", "fig3"}),
    (2, True, ABLATION, frozenset({"table4", "fig3"})),
    (2, True, ("s2kd_no_text",), frozenset({"fig4"})),
    (2, True, ("mixup", "output_plus"), frozenset(MAIN_TABLES.values())),
    (3, False, (*FIRST, "s2kd_plus"), frozenset(MAIN_TABLES.values())),
    (4, True, OTHERS, frozenset(MAIN_TABLES.values())),
    (5, False, OTHERS, frozenset(MAIN_TABLES.values())),
)
"""Level, whether of the first student (else of the others), methods, tables that need them."""

VARIANT_LEVELS = {LONG_TRAINING: 3, FULL_GRID: 3}
"""Level of the variants that the main tables need; the others are of figure 4, at level 2."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A recipe in a folder; `data`, `preset` and `name` are what its results are called by."""

    data: str
    preset: str
    name: str
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return f"{self.data}-{self.preset}-{self.name}"

    @property
    def is_main(self) -> bool:
        """Whether it is the experiment itself."""
        return self.name == self.recipe.narrator.name and len(self.recipe.methods) > 1


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One student by one method and seed; lower levels come first."""

    variant: Variant
    student: str
    method: str
    seed: int
    level: int

    @property
    def name(self) -> str:
        """Variant, student, method and seed."""
        return f"{self.variant.folder} {self.student} {self.method} seed {self.seed}"

    @property
    def recipe(self) -> Recipe:
        """The variant's recipe, narrowed to this training."""
        full = self.variant.recipe
        return replace(
            full,
            students=tuple(part for part in full.students if part.name == self.student),
            methods=tuple(method for method in full.methods if method.name == self.method),
            seeds=(self.seed,),
        )


def recipes_in(folder: str, *, preset: str, names: Sequence[str] = ()) -> dict[str, Recipe]:
    """Recipes of the data sets whose files lie in `folder`, by the data set's name.

    Those of `names` must be there; else the official ones are taken, and the stand-ins for kinds
    of field without an official one.
    """
    for name in names:
        if name not in SOURCES:
            raise S2KDError(f"reproduce: no data set {name!r} (there are {', '.join(SOURCES)})")
    available: dict[str, Recipe] = {}
    for name, (kind, official) in SOURCES.items():
        covered = {SOURCES[source][0] for source in available if SOURCES[source][1]}
        if (names and name not in names) or (not names and not official and kind in covered):
            continue
        try:
            available[name] = _recipe(name, folder, preset if official else "small")
        except S2KDError:
            if names:
                raise
    if not available:
        raise S2KDError(
            f"--data {folder}: holds none of {', '.join(SOURCES)}; `s2kd data fetch` gets the "
            "official ones"
        )
    return available


def _recipe(name: str, data: str, preset: str) -> Recipe:
    # results hold files by their name alone, which a relative folder would hide
    folder = Path(data).expanduser().resolve()
    inner = folder / name  # as `data fetch` lays them side by side
    path = str(inner if inner.is_dir() else folder)
    if not SOURCES[name][1]:
        return recipes.get(name, data=path)
    recipe = recipes.get(name, data=path, preset=preset)
    _ = Run(recipe=recipe, out=folder).dataset  # raises where files are missing
    return recipe


def small_students(unet: Part) -> tuple[Part, ...]:
    """The three students at a size for two cores; the ResNet has the U-Net's norm."""
    norm = {key: value for key, value in unet.params.items() if key == "norm"}
    return (
        Part(name="unet", params={"width": 8, **norm}),
        Part(name="resnet", params={"preset": "small", **norm}),
        Part(name="mixer", params={"preset": "small"}),
    )


def variants_of(
    recipe: Recipe,
    *,
    data: str,
    preset: str,
    seeds: Sequence[int],
    narratives: Mapping[str, str] | None = None,
) -> list[Variant]:
    """The experiment and its variants.

    `data` is the name of the data set in results; `preset` is `paper` or `small`, and stand-ins are
    always small. `narratives` are files of recorded narratives by their narrator's name.
    """
    official = SOURCES.get(data, ("", False))[1]
    students = recipe.students
    if not official or preset != "paper":
        students = small_students(recipe.students[0])
    needed = {name for _, _, methods, _ in LEVELS for name in methods}
    methods = tuple(method for method in ALL_METHODS if method.name in needed)
    full = replace(recipe, students=students, methods=methods, seeds=tuple(seeds))
    single = replace(full, students=students[:1], methods=(method_named("s2kd"),))
    epochs = LONGER * recipe.student_training.epochs
    named = {recipe.narrator.name: full}
    named |= {name: replace(single, **change) for name, change in CONTROLS.items()}
    named[LONG_TRAINING] = replace(
        single,
        methods=tuple(method_named(name) for name in ("baseline", "output", "s2kd_plus")),
        student_training=replace(recipe.student_training, epochs=epochs),
    )
    if data in FULL_GRID_TEACHERS:
        taught = tuple(method_named(n) for n in ("output", "fitnet", "s2kd", "s2kd_plus"))
        named[FULL_GRID] = replace(single, methods=taught, **FULL_GRID_TEACHERS[data])
    for name, path in (narratives or {}).items():
        named[name] = replace(single, narrator=Part(name="recorded", params={"path": path}))
    preset = preset if official else "small"
    return [Variant(data=data, preset=preset, name=n, recipe=r) for n, r in named.items()]


def check_tables(names: Sequence[str]) -> list[str]:
    """These names of tables and figures; an unknown one is refused, the nearest named."""
    for name in names:
        if name not in TABLES:
            raise S2KDError(
                f"reproduce: no table or figure {name!r}{nearest(name, TABLES)} "
                f"(there are {', '.join(TABLES)})"
            )
    return list(names)


def training_jobs(variants: Iterable[Variant], tables: Sequence[str] = ()) -> list[TrainingJob]:
    """Every training that these tables need (all tables without names), in order of worth.

    By level, then whole seeds, so that a list that is cut short has whole tables already.
    """
    jobs: dict[str, TrainingJob] = {}
    for variant in variants:
        kind = SOURCES.get(variant.data, ("", False))[0]
        names_of_kind = {name for name in tables or TABLES if kind in (*TABLES[name][1], "")}
        for level, student, method in _needed(variant, names_of_kind):
            for seed in variant.recipe.seeds:
                job = TrainingJob(
                    variant=variant, student=student, method=method, seed=seed, level=level
                )
                if job.name not in jobs or level < jobs[job.name].level:
                    jobs[job.name] = job
    return sorted(jobs.values(), key=lambda j: (j.level, j.variant.recipe.seeds.index(j.seed)))


def _needed(variant: Variant, names_of_kind: set[str]) -> list[tuple[int, str, str]]:
    """(level, student, method) of a variant."""
    first, *others = (part.name for part in variant.recipe.students)
    if variant.is_main:
        return [
            (level, student, method)
            for level, of_first, methods, tables in LEVELS
            if names_of_kind & tables
            for student in ([first] if of_first else others)
            for method in methods
        ]
    tables = set(MAIN_TABLES.values()) if variant.name in VARIANT_LEVELS else {"fig4"}
    level = VARIANT_LEVELS.get(variant.name, 2)
    return [(level, first, m.name) for m in variant.recipe.methods if names_of_kind & tables]
