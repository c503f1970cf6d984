"""What the proof trains: each data set's recipe and its controls, cut into single trainings.

A *study* is one recipe in one folder. The study called by its narrator's name is the experiment
itself; others differ from it in one field (controls, students that train longer) or in the teacher
and its training. A *unit* is one training with its scores. Units come in an order in which a run
that is cut short has whole tables already: the comparison of table 1 for every seed, then ablation
and controls, then the other students.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

import s2kd
from s2kd.core.files import digest
from s2kd.core.recipe import Method, Part, Recipe, method_named
from s2kd.core.registry import nearest
from s2kd.core.types import S2KDError
from s2kd.pipeline import REFERENCES, TEACHER_METHODS

CONTROLS: dict[str, dict[str, Any]] = {
    "empty": {"narrator": Part(name="none")},
    "shuffled": {"narrator": Part(name="shuffled")},
    "random": {"text": Part(name="random")},
}
"""Controls by the field that they change: no words, another window's words, states of noise."""

PATIENT = "patient"
"""A study whose students train `PATIENCE` times as long (Beyer et al. 2022, section 3.3)."""
PATIENCE = 3
PATIENTLY = ("baseline", "output", "s2kd_plus")

FULL_GRID = "full_grid"
"""A study with another teacher, one that keeps the full grid, where the recipe names one."""
TAUGHT = ("output", "fitnet", "s2kd", "s2kd_plus")
"""What it trains; the plain student has no teacher, so that of the experiment stands beside."""

FIRST = ("baseline", "output", "fitnet", "s2kd")
ABLATION = ("baseline", "spectral", "semantic", "s2kd")
OTHERS = ("review", "relational", "sdkd")
EXTRA = ("s2kd_no_text", "s2kd_plus", "mixup", "output_plus")
"""S²-KD from the text-free teacher; our documented variant beside the paper's form, and the same
without teacher and without the terms of S²-KD."""

TABLES: dict[str, str] = {
    "table1": "weather: three students, every way to distil, and the teacher",
    "table2": "traffic: the same",
    "table3": "fire: the same",
    "table4": "the parts of the loss, on traffic",
    "fig3": "the parts of the loss, on weather and fire",
    "fig4": "who narrates, and controls: does the text help, and is it its meaning?",
    "fig5": "maps of truth, teacher and students",
    "extremes": "rare events (RQ3)",
    "spectra": "power spectra by lead time",
    "horizon": "roll-outs to four times the lead time",
}
KINDS = {"weather": "table1", "traffic": "table2", "fire": "table3"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """One recipe in one folder; `data`, `preset` and `variant` are what its results are called."""

    data: str
    preset: str
    variant: str
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return f"{self.data}-{self.preset}-{self.variant}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """One training and its scores: a teacher (`method` is its kind), a student, or references."""

    study: Study
    role: str
    student: str
    method: str
    seed: int
    level: int

    @property
    def name(self) -> str:
        """As its log calls it."""
        if self.role == "reference":
            return f"{self.study.folder} references"
        who = self.method if self.role == "teacher" else f"{self.student} {self.method}"
        return f"{self.study.folder} {self.role} {who} seed {self.seed}"

    @property
    def needs(self) -> "tuple[Unit, ...]":
        """The teacher that this student learns from."""
        if self.role != "student" or method_of(self.study, self.method).teacher == "none":
            return ()
        kind = method_of(self.study, self.method).teacher
        return (dataclasses.replace(self, role="teacher", student="", method=kind),)

    @property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """What its results are called by, in every field but the split."""
        about = {"data": self.study.data, "preset": self.study.preset, "role": self.role}
        about |= {"variant": self.study.variant, "seed": self.seed}
        if self.role == "reference":
            names = ((name, name) for name in REFERENCES)
            about["seed"] = None
        elif self.role == "teacher":
            names = ((self.study.recipe.teacher.backbone.name, TEACHER_METHODS[self.method]),)
        else:
            names = ((self.student, self.method),)
        return tuple({**about, "backbone": a, "method": b} for a, b in names)

    @property
    def key(self) -> str:
        """A name for exactly this training, and for its teacher's."""
        plain = self.study.recipe.to_dict()
        shared = {k: v for k, v in plain.items() if k not in ("seeds", "methods", "students")}
        parts = [to_builtins(p) for p in self.study.recipe.students if p.name == self.student]
        method = to_builtins(method_of(self.study, self.method)) if self.role == "student" else None
        return digest([shared, parts, method, self.role, self.method, self.seed, s2kd.__version__])


def method_of(study: Study, name: str) -> Method:
    """The study's method of that name."""
    return next(method for method in study.recipe.methods if method.name == name)


def studies(
    recipe: Recipe,
    *,
    data: str,
    preset: str,
    students: Sequence[Part],
    seeds: Sequence[int],
    narratives: Mapping[str, str] | None = None,
    full_grid: Mapping[str, Any] | None = None,
) -> list[Study]:
    """The experiment and its variants; `narratives` are recorded ones by their narrator's name.

    `full_grid` is what a recipe with a teacher on the full grid has in place of its own.
    """
    every = dict.fromkeys((*FIRST, *ABLATION, *OTHERS, *EXTRA))
    whole = replace(
        recipe,
        students=tuple(students),
        methods=tuple(method_named(name) for name in every),
        seeds=tuple(seeds),
    )
    narrow = replace(whole, students=whole.students[:1], methods=(method_named("s2kd"),))
    found = [Study(data=data, preset=preset, variant=recipe.narrator.name, recipe=whole)]
    for name, change in CONTROLS.items():
        found.append(
            Study(data=data, preset=preset, variant=name, recipe=replace(narrow, **change))
        )
    training = replace(whole.student_training, epochs=PATIENCE * whole.student_training.epochs)
    longer = replace(
        whole,
        students=whole.students[:1],
        methods=tuple(method_named(name) for name in PATIENTLY),
        student_training=training,
    )
    found.append(Study(data=data, preset=preset, variant=PATIENT, recipe=longer))
    if full_grid:
        methods = tuple(method_named(name) for name in TAUGHT)
        taught = replace(whole, students=whole.students[:1], methods=methods, **full_grid)
        found.append(Study(data=data, preset=preset, variant=FULL_GRID, recipe=taught))
    for name, path in (narratives or {}).items():
        part = Part(name="recorded", params={"path": path})
        found.append(
            Study(data=data, preset=preset, variant=name, recipe=replace(narrow, narrator=part))
        )
    return found


def check_tables(tables: Sequence[str]) -> list[str]:
    """These names of tables and figures; one that there is not is refused, the nearest named."""
    for name in tables:
        if name not in TABLES:
            raise S2KDError(
                f"reproduce: no table or figure {name!r}{nearest(name, TABLES)} "
                f"(there are {', '.join(TABLES)})"
            )
    return list(tables)


def units(all_studies: Iterable[Study], *, tables: Sequence[str] = ()) -> list[Unit]:
    """Every training that these tables need (all of them: none named), in order of worth."""
    check_tables(tables)
    wanted = set(tables) or set(TABLES)
    found: dict[str, Unit] = {}
    for study in all_studies:
        for unit in _units_of(study, wanted):
            for one in (*unit.needs, unit):  # a teacher is wanted as early as its first student
                if one.name not in found or one.level < found[one.name].level:
                    found[one.name] = one
    return sorted(found.values(), key=worth)


def worth(unit: Unit) -> tuple[int, int, int]:
    """Sorts units: seed by seed within a level, and a teacher before its students."""
    role = ("reference", "teacher", "student").index(unit.role)
    return unit.level, unit.study.recipe.seeds.index(unit.seed), role


def _units_of(study: Study, wanted: set[str]) -> Iterator[Unit]:
    recipe = study.recipe
    whole = study.variant not in CONTROLS and len(recipe.methods) > 1
    main = wanted & {"table1", "table2", "table3"}
    first = recipe.students[0].name
    for seed in recipe.seeds:

        def student(name: str, method: str, level: int, seed: int = seed) -> Unit:
            return Unit(
                study=study, role="student", student=name, method=method, seed=seed, level=level
            )

        if study.variant in (PATIENT, FULL_GRID):
            for method in (m.name for m in recipe.methods) if main else ():
                yield student(first, method, 3)
            continue
        if not whole:
            if "fig4" in wanted:
                yield student(first, "s2kd", 2)
            continue
        if seed == recipe.seeds[0]:
            yield Unit(study=study, role="reference", student="", method="", seed=seed, level=0)
        if wanted - {"table4", "fig3"}:
            yield Unit(study=study, role="teacher", student="", method="text", seed=seed, level=1)
            yield Unit(
                study=study, role="teacher", student="", method="no_text", seed=seed, level=1
            )
            for method in FIRST:
                yield student(first, method, 1)
            yield student(first, "s2kd_plus", 1)
        if wanted & {"table4", "fig3"}:
            for method in ABLATION:
                yield student(first, method, 2)
        if "fig4" in wanted:
            yield student(first, "s2kd_no_text", 2)
        if main:
            for method in ("mixup", "output_plus"):
                yield student(first, method, 2)
            for part in recipe.students[1:]:
                for method in (*FIRST, "s2kd_plus"):
                    yield student(part.name, method, 3)
            for method in OTHERS:
                yield student(first, method, 4)
            for part in recipe.students[1:]:
                for method in OTHERS:
                    yield student(part.name, method, 5)
