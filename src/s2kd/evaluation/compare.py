"""Comparison of evaluated models: gain over the baseline, share of the gap to the teacher, winner.

A group is a dataset of scores along `model` (`results.select`): the seeds of one method. Models are
compared over the seeds that both groups have, paired by seed and by test window.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from s2kd.core import methods
from s2kd.evaluation.results import select, settings_of, window_errors, window_runs
from s2kd.evaluation.significance import (
    FEWEST_SEEDS,
    Estimate,
    block_for,
    difference_estimate,
    ratio_estimate,
    winner,
    with_holm,
)

BASELINE = "baseline"
ROLES = ("reference", "teacher", "student")
KEYS = ["data", "preset", "split", "role", "backbone", "method", "narrator"]
METRICS = ("mse", "mae", "rmse", "ssim")
COORDINATES = (*KEYS, "seed", "reads_future", "parameters", "latency_ms")
TEACHER_METHODS = {
    "text": "teacher",
    "no_text": "teacher-no-text",
    "given": "teacher of your own",
}
"""Methods of teachers in results, by the kind of teacher."""
NO_GAP = "no clear gap"
"""The teacher is not clearly better than the baseline."""

BACKBONE_LABELS = {
    "unet": "U-Net",
    "resnet": "ResNet",
    "mixer": "MLP-Mixer",
    "simvp": "SimVP",
    "triton": "Triton",
    "earthfarseer": "EarthFarseer",
}

Verdict = Literal["better", "worse", "unclear", ""]


def label(name: str) -> str:
    """Label of a method, or of a backbone and its size; other names stay as they are."""
    backbone, _, size = name.partition("-")
    if backbone in BACKBONE_LABELS:
        return f"{BACKBONE_LABELS[backbone]} {size}".rstrip()
    return methods.label(name)


def method_label(name: str) -> str:
    """Label of a method beside others of the same run: the baseline by what it lacks."""
    return "no distillation" if name == BASELINE else label(name).removesuffix(" (ours)")


def verdict(difference: Estimate | None) -> Verdict:
    """By the 95 % interval of a difference of errors; "" where there is none."""
    if difference is None or difference.low is None or difference.high is None:
        return ""
    return "better" if difference.high < 0 else "worse" if difference.low > 0 else "unclear"


def common_seeds(*groups: xr.Dataset) -> list[list[int]]:
    """Positions of the same seeds in every group, in the same order; empty without common seeds.

    References, which are not trained (seed -1), are repeated beside every seed.
    """
    listed = [group["seed"].values.tolist() for group in groups]
    trained = [set(seeds) - {-1} for seeds in listed]
    if not all(listed):
        return [[] for _ in groups]
    seeds = sorted(set.intersection(*(s for s in trained if s))) if any(trained) else [-1]
    return [
        [seeds_of_group.index(seed) for seed in seeds] if is_trained else [0] * len(seeds)
        for seeds_of_group, is_trained in zip(listed, trained, strict=True)
    ]


def pair_by_seed(*groups: xr.Dataset) -> tuple[xr.Dataset, ...]:
    """The models of `common_seeds`."""
    places = common_seeds(*groups)
    return tuple(group.isel(model=at) for group, at in zip(groups, places, strict=True))


def _paired_errors(*groups: xr.Dataset) -> tuple[list[np.ndarray], int] | None:
    """Errors by seed and time, and a block as long as the differences to the first remember."""
    places, first = common_seeds(*groups), groups[0]
    if not places[0]:
        return None
    errors = [window_errors(group)[at] for group, at in zip(groups, places, strict=True)]
    differences = [(errors[0] - compared).mean(0) for compared in errors[1:]]
    overlap = int(first.attrs.get("overlap", 1))
    return errors, block_for(differences, overlap=overlap, runs=window_runs(first))


def difference(first: xr.Dataset, second: xr.Dataset) -> Estimate | None:
    """Mean difference of two methods' errors, below 0 where the first is better.

    None where they have no seed in common; without bounds where windows are too few.
    """
    paired = _paired_errors(first, second)
    return paired and difference_estimate(*paired[0], block=paired[1])


def gain_percent(first: xr.Dataset, second: xr.Dataset) -> Estimate | None:
    """`difference` as a gain: in percent of the second's error, above 0 where the first is better.

    The p-value stays that of the difference.
    """
    estimate = difference(first, second)
    return estimate and estimate.scaled(-100 / estimate.reference)


def gap_closed(baseline: xr.Dataset, student: xr.Dataset, teacher: xr.Dataset) -> Estimate | None:
    """Share of the gap between baseline and teacher that the student closes, with 95 % bounds.

    Its value is None, with the note `NO_GAP`, where the teacher is not clearly better than the
    baseline over all seeds that these two share. Without bounds where windows are too few.
    """
    paired, lead = _paired_errors(baseline, student, teacher), difference(teacher, baseline)
    if paired is None or lead is None:
        return None
    (base_errors, student_errors, teacher_errors), block = paired
    if lead.value >= 0 or verdict(lead) in ("worse", "unclear"):
        return Estimate(value=None, windows=base_errors.shape[1], block=block, note=NO_GAP)
    gap = base_errors - teacher_errors
    return ratio_estimate(base_errors - student_errors, gap, block=block)


def excess_share(
    baseline: xr.Dataset, student: xr.Dataset, other: xr.Dataset, *, times: float = 2.0
) -> Estimate | None:
    """Gain of the student less `times` the gain of another method; above 0: it closes more.

    The gap to the teacher cancels.
    """
    paired = _paired_errors(baseline, student, other)
    if paired is None:
        return None
    (base_errors, student_errors, other_errors), block = paired
    gain = base_errors - student_errors
    return difference_estimate(gain, times * (base_errors - other_errors), block=block)


def best_method(groups: Mapping[str, xr.Dataset]) -> str | None:
    """The method that is clearly better than every other one; None where none is.

    Methods with fewer than `FEWEST_SEEDS` seeds are not considered.
    """
    groups = {m: group for m, group in groups.items() if group.sizes["model"] >= FEWEST_SEEDS}
    errors = {method: float(group["mse"].mean()) for method, group in groups.items()}
    return winner(errors, lambda a, b: difference(groups[a], groups[b])) if errors else None


# --- the table -----------------------------------------------------------------------------------


def compare_methods(scores: xr.Dataset) -> pd.DataFrame:
    """One row per method of one experiment on one split, its seeds together.

    Rows: references, teachers, then students in the order of the recipe, by the order of
    `methods.BUILT_IN`.

    Columns: `KEYS`, `label`, `reads_text`, `reads_future`, `seeds`, `parameters`, `latency_ms`
    (the smallest of its architecture); mean over seeds and sample standard deviation (`…_std`) of
    `mse`, `mae`, `rmse` and `ssim`, per element, in units of the training standard deviation. Of
    students, against the baseline of the same backbone: `gain_percent` with `gain_low`,
    `gain_high`, `p_value` (adjusted by Holm over the table), `verdict`, the share of the gap to
    the teacher `gap_closed_percent` with `gap_closed_low`, `gap_closed_high`, and `best`
    (`best_method`).
    """
    scores = scores[[n for n in ("window_mse", "windows_by_run", *METRICS) if n in scores]]
    order = _order(scores)
    scores = scores.drop_vars([n for n in scores.coords if n not in COORDINATES])
    teacher = reading_teacher(scores)
    rows, differences = [], []
    keys = pd.MultiIndex.from_arrays([scores[n].values for n in ("role", "backbone", "method")])
    for role, backbone, method in sorted(keys.unique(), key=order):
        group = select(scores, role=role, backbone=backbone, method=method)
        base = select(scores, role="student", backbone=backbone, method=BASELINE)
        compared = role == "student" and method != BASELINE
        differences.append(difference(group, base) if compared else None)
        closed = gap_closed(base, group, teacher) if compared else None
        rows.append({**_summary(group), **_bounds("gap_closed", closed and closed.scaled(100.0))})
    for row, estimate in zip(rows, with_holm(differences), strict=True):
        gain = estimate and estimate.scaled(-100 / estimate.reference)
        row |= {**_bounds("gain", gain), "verdict": verdict(estimate)}
        row["p_value"] = np.nan if gain is None or gain.p_holm is None else gain.p_holm
    frame = pd.DataFrame(rows)
    # training changes no operation of an architecture, but other work beside it the clock
    same = frame.groupby(["role", "backbone", "parameters"], sort=False)["latency_ms"]
    frame["latency_ms"] = same.transform("min")
    frame["best"] = False
    for _, students in frame[frame["role"] == "student"].groupby("backbone"):
        groups = {
            m: select(scores, role="student", backbone=b, method=m)
            for b, m in students[["backbone", "method"]].itertuples(index=False)
        }
        frame.loc[students.index, "best"] = students["method"] == best_method(groups)
    return frame


def reading_teacher(scores: xr.Dataset) -> xr.Dataset:
    """The teacher that reads narratives, or the only one there is."""
    teachers = select(scores, role="teacher")
    reading = select(teachers, method="teacher")
    return reading if reading.sizes["model"] else teachers


def _order(scores: xr.Dataset):
    """Sorts (role, backbone, method) in the order of tables."""
    students = select(scores, role="student")
    backbones = list(dict.fromkeys(scores["backbone"].values))
    if students.sizes["model"]:
        parts = settings_of(students.isel(model=[0])).get("students", [])
        backbones = [*(part["name"] for part in parts), *backbones]
    names = [
        "persistence", "climatology", "teacher", "teacher-no-text",
        *(entry.method.name for entry in methods.BUILT_IN), *dict.fromkeys(scores["method"].values),
    ]  # fmt: skip

    def place(key: tuple[str, str, str]) -> tuple[int, int, int]:
        role, backbone, method = key
        student = backbones.index(backbone) if role == "student" else 0
        return ROLES.index(role), student, names.index(method)

    return place


def _summary(group: xr.Dataset) -> dict[str, object]:
    """The columns of one method that need no other."""
    first = group.isel(model=0)
    row: dict[str, object] = {name: str(first[name].values) for name in KEYS}
    row["label"] = label(str(row["method"]))
    row["reads_text"] = row["role"] == "teacher" and row["narrator"] != "none"
    row["reads_future"] = bool(group["reads_future"].any())
    row |= {"seeds": group.sizes["model"], "parameters": int(first["parameters"])}
    row["latency_ms"] = float(group["latency_ms"].min())
    for name in (n for n in METRICS if n in group):
        values = group[name].values.astype(float)
        row[name] = values.mean()
        row[f"{name}_std"] = values.std(ddof=1) if len(values) > 1 else np.nan
    return row


def _bounds(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Value and bounds as three columns, NaN where there are none."""
    values = (None,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
    columns = (f"{name}_percent", f"{name}_low", f"{name}_high")
    return {c: np.nan if v is None else v for c, v in zip(columns, values, strict=True)}
