"""Summary of a file of scores: error, gain and gap closed of every method, seeds pooled."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import xarray as xr

from s2kd.evaluation.results import select, window_errors, window_runs
from s2kd.evaluation.significance import compare
from s2kd.evaluation.tables import Table, number, parameters_text

BASELINE = "baseline"
ROLES = ("reference", "teacher", "student")
KEYS = ["data", "preset", "split", "role", "backbone", "method", "narrator"]
METRICS = ("mse", "mae", "rmse", "ssim")
HEAD = ("", "Size", "MSE", "MAE", "SSIM", "Gain %", "Gap closed %", "Reads text?")


def summary(scores: xr.Dataset) -> pd.DataFrame:
    """One row per method: references first, then teachers, then students, the baseline first.

    Each of `mse`, `mae`, `rmse`, `ssim` is the mean over seeds, with `…_std` (sample standard
    deviation; NaN for one seed). Students also have, against the student of the same backbone
    trained as "baseline": `gain_percent` of the MSE, its 95 % interval over test windows
    (`gain_low`, `gain_high`) and the `p_value`, adjusted by Holm over the methods of a backbone;
    and `gap_closed_percent` of the distance between baseline and teacher, NaN where the teacher
    is not clearly better than the baseline.
    """
    metrics = [name for name in METRICS if name in scores]
    models = scores[metrics].to_dataframe().astype(dict.fromkeys(metrics, float))
    frame = (
        models.reset_index()
        .groupby(KEYS, sort=False)
        .agg(
            seeds=("seed", "size"),
            parameters=("parameters", "first"),
            latency_ms=("latency_ms", "mean"),
            reads_future=("reads_future", "any"),
            **{name: (name, "mean") for name in metrics},
            **{f"{name}_std": (name, "std") for name in metrics},
        )
        .reset_index()
    )
    frame["reads_text"] = (frame["role"] == "teacher") & (frame["narrator"] != "none")
    comparison = ["gain_percent", "gain_low", "gain_high", "p_value", "gap_closed_percent"]
    frame[comparison] = np.nan
    for backbone in frame.loc[frame["role"] == "student", "backbone"].unique():
        _compare_students(frame, scores, backbone)
    backbones = list(dict.fromkeys(scores["backbone"].values))
    frame["order"] = [
        (ROLES.index(r), backbones.index(b) if r == "student" else 0, m != BASELINE)
        for r, b, m in frame[["role", "backbone", "method"]].itertuples(index=False)
    ]
    return frame.sort_values("order", kind="stable", ignore_index=True).drop(columns="order")


def _compare_students(frame: pd.DataFrame, scores: xr.Dataset, backbone: str) -> None:
    """Fill in the columns that need the baseline and the teacher beside a student."""
    students = frame[(frame["role"] == "student") & (frame["backbone"] == backbone)]
    base = students[students["method"] == BASELINE]
    if base.empty:
        return
    base_mse = float(base["mse"].iloc[0])
    peers = students.drop(base.index)
    gains = base_mse - peers["mse"]
    frame.loc[peers.index, "gain_percent"] = 100 * gains / base_mse
    models = select(scores, role="student", backbone=backbone)
    errors = {m: window_errors(select(models, method=m)) for m in students["method"]}
    conventions = {
        "overlap": int(scores.attrs.get("overlap", 1)),
        "runs": window_runs(scores),
    }
    teachers = frame[frame["role"] == "teacher"].sort_values("reads_text", ascending=False)
    if not teachers.empty and float(teachers["mse"].iloc[0]) < base_mse:
        teacher = teachers.iloc[0]
        forecasts = select(scores, role="teacher", method=teacher["method"])
        (lead,) = compare(
            {"teacher": window_errors(forecasts), BASELINE: errors[BASELINE]},
            reference=BASELINE,
            **conventions,
        )
        if lead["low"] is None or lead["high"] < 0:
            gap = base_mse - float(teacher["mse"])
            frame.loc[peers.index, "gap_closed_percent"] = 100 * gains / gap
    for result in compare(errors, reference=BASELINE, **conventions):
        if result["low"] is None:
            continue
        row = peers.index[peers["method"] == result["method"]]
        percent = 100 / base_mse
        frame.loc[row, "gain_low"] = -result["high"] * percent
        frame.loc[row, "gain_high"] = -result["low"] * percent
        frame.loc[row, "p_value"] = np.nan if result["p_holm"] is None else result["p_holm"]


def summary_rows(files: Iterable[xr.Dataset]) -> list[dict[str, object]]:
    """The summary of every file as JSON-able rows; what is undefined is None."""
    frame = pd.concat([summary(scores) for scores in files], ignore_index=True)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def summary_table(scores: xr.Dataset) -> Table:
    """The summary of one split; MSE and MAE are normalised, ± is over seeds."""
    frame = summary(scores)
    seeds = int(frame["seeds"].max())
    caption = "MSE, MAE: normalised, mean per element" + (f"; ± over {seeds} seeds" * (seeds > 1))
    caption += "; * p < 0.05 over test windows" * bool((frame["p_value"] < 0.05).any())
    lines = tuple((label_of(row), *cells_of(row)) for row in frame.to_dict("records"))
    title = " · ".join(str(frame[name].iloc[0]) for name in ("data", "preset", "split"))
    return Table(title=title, head=HEAD, lines=lines, caption=caption)


def label_of(row: dict[str, object]) -> str:
    """A method of the summary in few words."""
    if row["role"] == "reference":
        return str(row["method"])
    return f"{row['backbone']} {row['method']}"


def cells_of(row: dict) -> tuple[str, ...]:
    """Its line of the table, under all of `HEAD` but the label."""
    reads = "yes" if row["reads_text"] else "no"
    gain = number(row["gain_percent"], "+.1f") + "*" * bool(row["p_value"] < 0.05)
    return (
        parameters_text(row["parameters"]),
        *(_spread(row[name], row[f"{name}_std"]) for name in ("mse", "mae", "ssim")),
        gain,
        number(row["gap_closed_percent"], ".0f"),
        f"{reads} (and the future)" if row["reads_future"] else reads,
    )


def _spread(mean: float, std: float) -> str:
    return number(mean, ".4f") + ("" if np.isnan(std) else f" ±{std:.4f}")
