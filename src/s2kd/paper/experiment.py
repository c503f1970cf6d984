"""One experiment of the paper: all evaluated models of one data set, preset and test split."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from s2kd.core.types import S2KDError
from s2kd.evaluation.compare import (
    BASELINE,
    ROLES,
    compare_methods,
    pair_by_seed,
    reading_teacher,
)
from s2kd.evaluation.results import one_recipe, select, window_runs
from s2kd.paper.studies import FULL_GRID, LONG_TRAINING, LONGER, SOURCES

Results = Mapping[str, xr.Dataset]
"""Scores along `model` by file name, as `results.read_results` returns them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """Scores of all models of one recipe along `model`; `note` names a difference in training."""

    scores: xr.Dataset
    note: str = ""

    @cached_property
    def table(self) -> pd.DataFrame:
        """`compare_methods`, a row per method."""
        return compare_methods(self.scores)

    def _field(self, name: str) -> str:
        return str(self.scores[name].values[0])

    @property
    def data(self) -> str:
        """Name of the data set."""
        return self._field("data")

    @property
    def preset(self) -> str:
        """Size of the models."""
        return self._field("preset")

    @property
    def split(self) -> str:
        """Name of the test split."""
        return self._field("split")

    @property
    def title(self) -> str:
        """Data, preset, split and note."""
        parts = (self.data, self.preset, self.split, self.note)
        return ", ".join(filter(None, parts))

    @property
    def name(self) -> str:
        """Data, split and note, each where it is not the usual one."""
        split = self.split.removeprefix("test").strip("_").replace("_", " ")
        preset = self.preset if self.preset != "small" else ""
        return ", ".join(filter(None, (self.data, preset, split, self.note)))

    @property
    def backbone(self) -> str:
        """The first student, which is trained by every method; "" without students."""
        students = self.table[self.table["method"] == BASELINE]
        return "" if students.empty else str(students["backbone"].iloc[0])

    def student_row(self, method: str) -> pd.DataFrame:
        """The row of the first student by this method, as a table of one row or none."""
        table = self.table
        return table[(table["backbone"] == self.backbone) & (table["method"] == method)]

    def student(self, method: str) -> xr.Dataset:
        """The seeds of the first student by this method; of length 0 where there is none."""
        return select(self.scores, role="student", backbone=self.backbone, method=method)

    @property
    def teacher(self) -> xr.Dataset:
        """The teacher that reads narratives, or the only one."""
        return reading_teacher(self.scores)

    @property
    def forecasters(self) -> dict[str, xr.Dataset]:
        """References, reading teacher, then the first student by method in the order of tables."""
        table = self.table[(self.table["role"] != "student")
                           | (self.table["backbone"] == self.backbone)]  # fmt: skip
        groups = {
            method: select(self.scores, role=role, backbone=backbone, method=method)
            for role, backbone, method in table[["role", "backbone", "method"]].itertuples(
                index=False
            )
        }
        return {name: g for name, g in groups.items() if name != "teacher-no-text"}

    def restricted(self, methods: Sequence[str]) -> "Experiment":
        """The first student by these methods alone, over the seeds that all of them have."""
        groups = [self.student(method) for method in methods]
        groups = pair_by_seed(*(g for g in groups if g.sizes["model"]))
        names = np.concatenate([g["model"].values for g in groups])
        return Experiment(scores=self.scores.sel(model=names), note=self.note)

    @property
    def caption(self) -> str:
        """Data, windows, seeds and hardware."""
        seeds = self.table.loc[self.table["role"] != ROLES[0], "seeds"]
        attrs, runs = self.scores.attrs, window_runs(self.scores)
        lowest, highest = seeds.min(), seeds.max()
        trained = f"{lowest} to {highest} seeds" if lowest < highest else f"seeds: {highest}"
        windows = f"{attrs['windows']} windows"
        if attrs["windows_per_time"] > 1:
            windows += f" ({attrs['windows_per_time']} planes per moment, averaged for intervals)"
        elif 1 < len(runs) <= 4:
            windows += f" ({len(runs)} runs; intervals are over their moments)"
        return (
            f"{self.title}; {windows} of {attrs['past']} past and {attrs['lead']} future frames; "
            f"{trained}; {self.machine}"
        )

    @property
    def machine(self) -> str:
        """Hardware of training and timing."""
        hardware = json.loads(str(self.scores["hardware"].values[-1]))
        return hardware.get("gpu") or f"{hardware['processor']} ({hardware['device']})"


def experiment(
    results: Results, *, data: str, preset: str, split: str = "test", variant: str = "rules"
) -> Experiment:
    """The models of one experiment; raises S2KDError where there are none, or of two recipes."""
    scores = results.get(f"{data}-{preset}-{split}")
    selected = None if scores is None else select(scores, variant=variant)
    if selected is None or not selected.sizes["model"]:
        raise S2KDError(
            f"no results of {data} ({preset}, {variant}, {split}); train them with --data FOLDER"
        )
    one_recipe(selected)
    return Experiment(scores=selected)


def experiments(results: Results) -> list[Experiment]:
    """Every experiment on every test split: official data first, then stand-ins."""
    order = list(SOURCES)
    listed = []
    for scores in results.values():
        names = {n: str(scores[n].values[0]) for n in ("data", "preset", "split")}
        if "rules" in scores["variant"].values:
            entry = experiment(results, **names)
            rank = order.index(entry.data) if entry.data in order else len(order)
            if entry.backbone:
                listed.append((rank, entry.title, entry))
    return [entry for *_, entry in sorted(listed, key=lambda entry: entry[:2])]


def variant_scores(results: Results, main: Experiment, variant: str) -> xr.Dataset:
    """The models of a variant of this experiment; of length 0 where there are none."""
    scores_of_split = results[f"{main.data}-{main.preset}-{main.split}"]
    return select(scores_of_split, variant=variant)


def longer_training(results: Results, main: Experiment) -> Experiment | None:
    """The same experiment with students trained longer, if there is one."""
    scores = variant_scores(results, main, LONG_TRAINING)
    if not select(scores, method=BASELINE).sizes["model"]:
        return None
    one_recipe(scores)
    return Experiment(scores=scores, note=f"{LONGER} times the epochs")


def full_grid_teacher(results: Results, main: Experiment) -> Experiment | None:
    """The first student with a teacher on the full grid, if there is one.

    References and the baseline, which have no teacher, are those of the experiment; raises
    S2KDError where its recipe differs in anything but the teacher.
    """
    variant = variant_scores(results, main, FULL_GRID)
    if not select(variant, role="teacher", method="teacher").sizes["model"]:
        return None
    references = select(main.scores, role="reference")["model"].values
    names = [*references, *main.student(BASELINE)["model"].values, *variant["model"].values]
    scores_of_split = results[f"{main.data}-{main.preset}-{main.split}"]
    scores = scores_of_split.sel(model=names)
    one_recipe(scores, free=("teacher", "teacher_training"))
    return Experiment(scores=scores, note="teacher on the full grid")
