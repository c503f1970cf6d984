"""Summary of a file of scores for the terminal and as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from s2kd.evaluation.answer import forecaster_label
from s2kd.evaluation.compare import compare_methods, label
from s2kd.evaluation.figures import AXIS_LABELS
from s2kd.evaluation.tables import Table, number, parameters_text

HEAD = ("", "Size", "MSE", "MAE", "SSIM", "Gain %", "Gap closed %", "Reads text?")


def trials_table(search: Mapping[str, Any]) -> Table:
    """The finished trials of a result of `s2kd sweep`, best first."""
    trials = [trial for trial in search["trials"] if trial["state"] == "complete"]
    lines = [
        (
            str(trial["number"]),
            *(f"{trial['values'][axis]:g}" for axis in search["axes"]),
            f"{trial['validation']:.5f}",
        )
        for trial in sorted(trials, key=lambda trial: trial["validation"])
    ]
    head = ("Trial", *(AXIS_LABELS[axis] for axis in search["axes"]), "Validation error")
    return Table(title="", head=head, lines=tuple(lines))


def summary_rows(files: Iterable[xr.Dataset]) -> list[dict[str, object]]:
    """`compare_methods` of every file as JSON-able rows; what is undefined is None."""
    frame = pd.concat([compare_methods(scores) for scores in files], ignore_index=True)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def summary_table(scores: xr.Dataset) -> Table:
    """The methods of one split; MSE and MAE are normalised, ± is over seeds."""
    frame = compare_methods(scores)
    seeds = int(frame["seeds"].max())
    caption = "MSE, MAE: normalised, mean per element" + (f"; ± over {seeds} seeds" * (seeds > 1))
    caption += "; * p < 0.05 over test windows" * bool((frame["p_value"] < 0.05).any())
    lines = tuple((label_of(row), *cells_of(row)) for row in frame.to_dict("records"))
    title = " · ".join(str(frame[name].iloc[0]) for name in ("data", "preset", "split"))
    return Table(title=title, head=HEAD, lines=lines, caption=caption)


def label_of(row: Mapping[str, Any]) -> str:
    """A method of the summary in few words."""
    if row["role"] == "student":
        return forecaster_label(row["backbone"], row["method"])
    return label(row["method"])


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
