"""The results of one experiment by who forecasts, and how two of them are compared."""

import math
import statistics as stats
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.evaluation.bootstrap import Interval, is_too_short
from s2kd.evaluation.rows import chosen, one_recipe
from s2kd.evaluation.significance import (
    FEWEST_SEEDS,
    Comparison,
    at_once,
    block_for,
    by_moment,
    gap_closed_interval,
    hierarchical_bootstrap,
    paired_bootstrap,
    runs_of,
    too_short,
)
from s2kd.paper.studies import FULL_GRID, OTHERS, PATIENCE, PATIENT

Row = Mapping[str, Any]

NO_GAP = "the teacher is not clearly better than the baseline"

METHOD_ORDER = (
    "baseline",
    "mixup",
    "output",
    "fitnet",
    *OTHERS,
    "spectral",
    "semantic",
    "s2kd",
    "output_plus",
    "s2kd_plus",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """The results of one experiment on one split, by who forecasts; a list holds the seeds.

    `note` says in what it differs from the experiment itself, where it does. Not compared by
    value, so that what is drawn from one (many resamples) can be kept by it.
    """

    data: str
    preset: str
    split: str
    rows: dict[tuple[str, str, str], list[Row]]
    note: str = ""

    @property
    def title(self) -> str:
        """Data, preset and split."""
        return ", ".join(filter(None, (self.data, self.preset, self.split, self.note)))

    @property
    def place(self) -> str:
        """The data, and the split where it is not the usual one."""
        beyond = "" if self.split == "test" else self.split
        return ", ".join(filter(None, (self.data, beyond, self.note)))

    @property
    def beyond(self) -> str:
        """In words, what is unlike in a split that is not the usual one; else ""."""
        return self.split.removeprefix("test").strip("_").replace("_", " ")

    def of(self, role: str, method: str, backbone: str = "") -> list[Row]:
        """The seeds of one model, in order; [] where there is none."""
        for (a_role, a_backbone, a_method), rows in self.rows.items():
            if (a_role, a_method) == (role, method) and backbone in ("", a_backbone):
                return rows
        return []

    @property
    def students(self) -> list[str]:
        """Backbones that have a baseline."""
        names = [b for role, b, m in self.rows if role == "student" and m == "baseline"]
        return sorted(dict.fromkeys(names), key=_student_order)

    def methods(self, backbone: str) -> list[str]:
        """How this student was trained, in the order of the table."""
        names = [m for role, b, m in self.rows if role == "student" and b == backbone]
        return [m for m in METHOD_ORDER if m in names]

    @property
    def forecasters(self) -> dict[str, list[Row]]:
        """References, reading teacher, and the first student by `METHOD_ORDER`, by name."""
        found = {name: self.of("reference", name) for name in ("persistence", "climatology")}
        found["teacher"] = self.of("teacher", "teacher")
        for method in METHOD_ORDER:
            found[method] = self.of("student", method, self.students[0])
        return {name: rows for name, rows in found.items() if rows}

    def shared(self, methods: Sequence[str]) -> "Models":
        """The first student by these methods alone, by the seeds that all of them have.

        Bars of one seed beside bars of three would differ by the seed as much as by the method.
        """
        backbone = self.students[0]
        kept = {key: rows for key, rows in self.rows.items()
                if key[:2] == ("student", backbone) and key[2] in methods}  # fmt: skip
        seeds = set.intersection(*({row["seed"] for row in rows} for rows in kept.values()))
        some = {key: [r for r in rows if r["seed"] in seeds] for key, rows in kept.items()}
        return replace(self, rows=some)

    @property
    def seeds(self) -> int:
        """How many seeds any model has."""
        return max(map(len, self.rows.values()))

    @property
    def caption(self) -> str:
        """Data, preset, split, windows, seeds, hardware."""
        some = [row for rows in self.rows.values() for row in rows]
        told = some[0]["scores"]["conventions"]
        seeds = sorted({row["seed"] for row in some if row["seed"] is not None})
        fewest = min(
            (len(r) for (role, *_), r in self.rows.items() if role != "reference"), default=0
        )
        about = counted(len(seeds), "seed")
        if fewest < len(seeds):
            about = f"{fewest} to {about}"
        return (
            f"Data {self.data}, preset {self.preset}, {self.split} split, {told['windows']} "
            f"windows{self._windows} of {told['past']} past and {told['lead']} future frames, "
            f"{about}, {self.machine}. MSE and MAE are means per element in units of the training "
            "standard deviation"
        )

    @property
    def machine(self) -> str:
        """What the models were trained and timed on."""
        where = next(iter(self.rows.values()))[-1]["hardware"]
        return where.get("gpu") or f"{where['processor']} ({where['device']})"

    @property
    def _windows(self) -> str:
        """Of how many moments or runs the windows are, which is what intervals can speak of."""
        scores = next(iter(self.rows.values()))[0]["scores"]
        parts, runs = at_once(scores), runs_of(scores)
        if parts > 1:
            return f" ({parts} parts of one scene at each moment, averaged for intervals)"
        if 1 < len(runs) <= 4:
            return f" ({len(runs)} runs; intervals are over their moments, not over other runs)"
        return ""


def experiment(
    rows: Iterable[Row], *, data: str, preset: str, split: str = "test", variant: str = "rules"
) -> Models:
    """The models of one experiment; raises S2KDError where there are none, or of two recipes."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    some = chosen(rows, data=data, preset=preset, split=split, variant=variant)
    one_recipe(some)
    for row in some:
        found.setdefault((row["role"], row["backbone"], row["method"]), []).append(row)
    if not found:
        raise S2KDError(
            f"no results of {data} ({preset}, {variant}, {split}); train them with --data FOLDER"
        )
    for group in found.values():
        group.sort(key=lambda row: row["seed"] or 0)
    return Models(data=data, preset=preset, split=split, rows=found)


def counted(number: int, what: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def longer(rows: Iterable[Row], models: Models) -> Models | None:
    """The same experiment with students trained longer (`studies.PATIENT`), if there is one."""
    found = _variant(rows, models, PATIENT)
    if found is None or not found.students:
        return None
    return replace(found, note=f"students trained {PATIENCE} times as long")


def on_full_grid(rows: Iterable[Row], models: Models) -> Models | None:
    """The first student taught on the full grid (`studies.FULL_GRID`), if there is one.

    References and the plain student, which have no teacher, are those of the experiment; raises
    S2KDError where its recipe is another in anything but the teacher.
    """
    found = _variant(rows, models, FULL_GRID)
    if found is None:
        return None
    alone = [("student", models.students[0], "baseline")]
    alone += [key for key in models.rows if key[0] == "reference"]
    same = {key: models.rows[key] for key in alone}
    every = [row for some in (*same.values(), *found.rows.values()) for row in some]
    one_recipe(every, but=("teacher", "teacher_training"))
    return replace(found, rows={**same, **found.rows}, note="teacher on the full grid")


def _variant(rows: Iterable[Row], models: Models, variant: str) -> Models | None:
    """The experiment's variant by this name, if it has a teacher that reads."""
    where = {"data": models.data, "preset": models.preset, "split": models.split}
    there = chosen(rows, **where, variant=variant)
    found = experiment(there, **where, variant=variant) if there else None
    return found if found and found.of("teacher", "teacher") else None


def _student_order(name: str) -> tuple[int, str]:
    known = ("unet", "resnet", "mixer")
    return (known.index(name) if name in known else len(known), name)


# --- numbers -------------------------------------------------------------------------------------


def window_errors(rows: Sequence[Row], *, long: bool = False) -> np.ndarray:
    """(seed, window) normalised MSE; the mean of windows that are of one moment (`by_moment`).

    With `long` that of the last block of the roll-outs, infinite where one blew up.
    """
    listed = [row["long_horizon" if long else "scores"]["window_mse"] for row in rows]
    errors = np.asarray([[math.inf if e is None else e for e in one] for one in listed], np.float64)
    return by_moment(errors, at_once(rows[0]["scores"]))


def metric(rows: Sequence[Row], name: str) -> float:
    """Mean over seeds; NaN where there is none."""
    values = [row["metrics"].get(name) for row in rows]
    known = [value for value in values if value is not None]
    return stats.fmean(known) if known else math.nan


def spread(rows: Sequence[Row], name: str) -> float:
    """Sample standard deviation over seeds; NaN for one."""
    known = [v for v in (row["metrics"].get(name) for row in rows) if v is not None]
    return stats.stdev(known) if len(known) > 1 else math.nan


def together(*groups: Sequence[Row]) -> tuple[list[Row], ...]:
    """The same seeds of each group, in one order, so that they can be paired.

    A reference was not trained, has no seed, and stands beside every one.
    """
    if not all(groups):
        return tuple([] for _ in groups)
    trained = [{row["seed"] for row in group} - {None} for group in groups]
    seeds = set.intersection(*(one for one in trained if one)) if any(trained) else {None}
    return tuple(
        [row for row in group if row["seed"] in seeds] if own else list(group[:1]) * len(seeds)
        for group, own in zip(groups, trained, strict=True)
    )


def overlap_of(rows: Sequence[Row], *, long: bool = False) -> int:
    """How many windows in a row share frames; with `long` those of whole roll-outs."""
    about = rows[0]["scores"]["conventions"]
    if not long:
        return int(about["overlap"])
    past, lead = about["past"], about["lead"]
    steps = rows[0]["long_horizon"]["steps"]
    return math.ceil(about["overlap"] * (past + steps) / (past + lead))


def paired(*groups: Sequence[Row], long: bool = False) -> tuple[list[np.ndarray], int] | None:
    """Window errors of the seeds that all have; a block as long as any difference remembers.

    Differences are to the first group. None where no seed is common. With `long` of roll-outs:
    None where one of them was not rolled out or blew up.
    """
    same = together(*groups)
    if long:
        whole = [all(map(_rolled, rows)) for rows in zip(*same, strict=True)]
        same = tuple([row for row, kept in zip(g, whole, strict=True) if kept] for g in same)
    if not same[0]:
        return None
    errors = [window_errors(rows, long=long) for rows in same]
    if not all(np.isfinite(one).all() for one in errors):
        return None
    gains = [(errors[0] - other).mean(0) for other in errors[1:]]
    runs = () if long else runs_of(same[0][0]["scores"])
    return errors, block_for(gains, overlap=overlap_of(same[0], long=long), runs=runs)


def _rolled(row: Row) -> bool:
    return bool((row.get("long_horizon") or {}).get("windows"))


def difference(
    first: Sequence[Row], second: Sequence[Row], *, long: bool = False
) -> Comparison | None:
    """Mean difference of two models' errors; from three on, seeds count too (`paired`).

    Without bounds where the windows do not make four blocks.
    """
    found = paired(first, second, long=long)
    if found is None:
        return None
    (a, b), block = found
    if is_too_short(a.shape[1], block):
        return too_short(a, b, block=block)
    if len(a) < FEWEST_SEEDS:
        return paired_bootstrap(a.mean(0), b.mean(0), block=block)
    return hierarchical_bootstrap(a, b, block=block)


def gap_closed(
    baseline: Sequence[Row], student: Sequence[Row], teacher: Sequence[Row]
) -> Interval | None:
    """Share of the gap, with bounds (`paired`); of none where the teacher is not clearly ahead.

    Whether it is ahead is asked once, of all seeds that it shares with the baseline.
    """
    found, lead = paired(baseline, student, teacher), difference(teacher, baseline)
    if found is None or lead is None:
        return None
    errors, block = found
    about = {"confidence": lead.confidence, "windows": errors[0].shape[1], "block": block}
    if not lead.is_better:
        return Interval(value=None, low=None, high=None, note=NO_GAP, **about)
    if is_too_short(errors[0].shape[1], block):
        base, own, best = (one.mean() for one in errors)
        value = float((base - own) / (base - best))
        return Interval(value=value, low=None, high=None, note="too few blocks", **about)
    return gap_closed_interval(*errors, block=block)
