"""Tables of the proof beyond the mean error: rare events, spectra, long roll-outs."""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from s2kd.evaluation.events import event_difference, event_interval
from s2kd.evaluation.results import join_models
from s2kd.evaluation.significance import Comparison, adjusted
from s2kd.evaluation.tables import number
from s2kd.paper.experiment import Models, Row, metric, together
from s2kd.paper.tables import Table, name_of, p_text, percent

SHOWN = ("above 95 %", "below 5 %")
"""The events of the table; the results hold those at other quantiles too."""
SCORED = (("csi", ".3f"), ("pod", ".2f"), ("far", ".2f"), ("bias", ".2f"), ("sedi", ".2f"))
"""The scores of the table, with their format."""
LEADS = 6
"""At how many lead steps, first and last among them, a table tells of each."""

# --- rare events ---------------------------------------------------------------------------------


def counted(rows: Sequence[Row]) -> xr.Dataset | None:
    """The scores of these seeds, where they hold counts of events."""
    datasets = [row["dataset"] for row in rows if "dataset" in row]
    if not datasets or not all("hits" in scores for scores in datasets):
        return None
    return join_models(datasets) if len(datasets) > 1 else datasets[0]


def extremes_table(models: Models) -> Table | None:
    """CSI with its interval and its difference to the baseline's, and POD, FAR, bias, SEDI."""
    every = models.forecasters
    base = every.get("baseline", [])
    counts = {name: counted(rows) for name, rows in every.items()}
    if not base or counts["baseline"] is None:
        return None
    first, asked = counts["baseline"], []
    for channel in map(str, first["channel"].values):
        for event in (one for one in SHOWN if one in first["event"].values):
            asked += [(channel, event, name) for name in every if counts[name] is not None]
    more = hits_gained(models)
    lines = [_event_line(*one, every[one[2]], counts, more.get(one)) for one in asked]
    if not lines:
        return None
    head = (
        "event", "forecaster", "CSI", "CSI − baseline's", "p (Holm)", "POD", "FAR", "bias", "SEDI",
        "quantile error",
    )  # fmt: skip
    caption = (
        f"{models.caption}. Events: values beyond a training quantile of their own cell, all "
        "lead times together; in brackets 95 % intervals, p-values adjusted over the table. "
        "Quantile error: relative, of the upper tail. "
        f"Student: {name_of(models.students[0])}"
    )
    title = f"Extremes: {models.title}"
    return Table(title=title, head=head, lines=tuple(lines), caption=caption)


def _event_line(
    channel: str,
    event: str,
    name: str,
    rows: Sequence[Row],
    counts: dict[str, xr.Dataset],
    more: Comparison | None,
) -> tuple[str, ...]:
    scores = (
        _bounded(counts[name], channel, event, score=score, form=form) for score, form in SCORED
    )
    own, *others = scores
    return (
        f"{channel} {event}",
        name_of(name),
        own,
        "" if more is None else percent(more.difference, more.low, more.high, "+.3f"),
        "" if more is None else p_text(more.p_holm),
        *others,
        number(
            _mean_of(
                [row["scores"]["physical"][channel] for row in rows], "relative_quantile_error"
            ),
            ".3f",
        ),
    )


def _bounded(counts: xr.Dataset, channel: str, event: str, *, form: str = ".3f", **how: Any) -> str:
    found = event_interval(counts, channel=channel, event=event, **how)
    return percent(found.value, found.low, found.high, form)


def lead_table(models: Models) -> Table | None:
    """CSI of every forecaster by lead step (at most `LEADS`), for the events of `SHOWN`."""
    counts = {name: counted(rows) for name, rows in models.forecasters.items()}
    counts = {name: some for name, some in counts.items() if some is not None}
    if "baseline" not in counts:
        return None
    first = counts["baseline"]
    steps = first.sizes["lead"]
    leads = sorted({round(lead) for lead in np.linspace(1, steps, min(LEADS, steps)).tolist()})
    lines = [
        (
            f"{channel} {event}",
            name_of(name),
            *(_bounded(some, channel, event, lead=lead) for lead in leads),
        )
        for channel in map(str, first["channel"].values)
        for event in (one for one in SHOWN if one in first["event"].values)
        for name, some in counts.items()
    ]
    if not lines:
        return None
    head = ("event", "forecaster", *(f"CSI, lead {lead}" for lead in leads))
    caption = (
        f"{models.caption}. Events as above; in brackets 95 % intervals. Student: "
        f"{name_of(models.students[0])}"
    )
    title = f"Extremes by lead: {models.title}"
    return Table(title=title, head=head, lines=tuple(lines), caption=caption)


@lru_cache(maxsize=32)  # a table and its sentences ask for the same
def hits_gained(models: Models) -> dict[tuple[str, str, str], Comparison]:
    """CSI minus the baseline's by (channel, event, student), seeds paired, p-values adjusted."""
    every = models.forecasters
    base, found = every.get("baseline", []), {}
    for name, rows in every.items():
        if not rows or not base or rows[0]["role"] != "student" or name == "baseline":
            continue
        ours, theirs = map(counted, together(rows, base))
        if ours is None or theirs is None:
            continue
        for channel in map(str, ours["channel"].values):
            for event in (one for one in SHOWN if one in ours["event"].values):
                found[channel, event, name] = event_difference(
                    ours, theirs, channel=channel, event=event
                )
    return dict(zip(found, adjusted(list(found.values())), strict=True))


def hits_by_lead(
    models: Models, names: Sequence[str]
) -> dict[str, list[tuple[float, float | None, float | None]]]:
    """CSI above the 95 % quantile of every cell, first channel, at each lead, less the baseline's.

    With bounds, by the seeds that both have.
    """
    found, base = {}, models.of("student", "baseline", models.students[0])
    for name, rows in models.forecasters.items():
        if name not in names or name == "baseline":
            continue
        ours, theirs = map(counted, together(rows, base))
        if ours is None or theirs is None or SHOWN[0] not in ours["event"].values:
            continue
        where = {"channel": str(ours["channel"].values[0]), "event": SHOWN[0]}
        points = [
            event_difference(ours, theirs, lead=lead + 1, **where)
            for lead in range(ours.sizes["lead"])
        ]
        found[name] = [
            (p.difference if p.difference is not None else math.nan, p.low, p.high) for p in points
        ]
    return found


def _mean_of(some: Sequence[dict[str, Any]], name: str) -> float:
    values = [one[name] for one in some if one.get(name) is not None]
    return float(np.mean(values)) if values else math.nan


# --- spectra -------------------------------------------------------------------------------------


def spectra_table(models: Models) -> Table | None:
    """Log-spectral distance and high-frequency energy ratio at the first and last lead, and MSE."""
    lines = []
    for name, rows in models.forecasters.items():
        if not all(row["scores"].get("spectra") for row in rows):
            continue
        near, far = ([by_lead(rows, what, at) for what in SPECTRAL] for at in (0, -1))
        lines.append(
            (
                name_of(name),
                number(metric(rows, "mse")),
                *(number(value, ".2f") for value in (near[0], far[0], near[1], far[1])),
            )
        )
    if not lines:
        return None
    head = (
        "forecaster", "MSE", "log-spectral distance, first lead", "last lead",
        "high-frequency energy ratio, first lead", "last lead",
    )  # fmt: skip
    caption = (
        f"{models.caption}. Distance between the mean radial power spectra of forecast and truth "
        "in decades (0: the same, 1: off by a factor of ten); ratio of their energies in the upper "
        "half of the wavenumbers (1: as much fine detail as the truth, below 1: blurred), means "
        "over channels."
    )
    title = f"Spectra: {models.title}"
    return Table(title=title, head=head, lines=tuple(lines), caption=caption)


SPECTRAL = ("log_spectral_distance", "high_frequency_ratio")


def by_lead(rows: Sequence[Row], what: str, at: int) -> float:
    """A spectral score at one lead, mean over channels and seeds."""
    values = [one[what][at] for row in rows for one in row["scores"]["spectra"].values()]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


# --- long horizon --------------------------------------------------------------------------------


def horizon_tables(every: Iterable[Models]) -> list[Table]:
    """Roll-outs beyond the lead that was trained: error at 1, 2, 3 and 4 times T_out."""
    found = []
    for models in every:
        table = _horizon_table(models)
        if table is not None:
            found.append(table)
    return found


def rolled(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The roll-outs of these results; [] where no stretch of the split was long enough."""
    return [row["long_horizon"] for row in rows if (row.get("long_horizon") or {}).get("windows")]


def _horizon_table(models: Models) -> Table | None:
    lines, about = [], None
    for name, rows in models.forecasters.items():
        long = rolled(rows)
        if not long:
            continue
        about = long[0]
        curve = np.mean([np.array(one["mse"], float) for one in long], axis=0)
        steps = [len(curve) * part // 4 - 1 for part in (1, 2, 3, 4)]
        stable = sum(bool(one["stable"]) for one in long)
        lines.append(
            (
                name_of(name),
                *(number(float(curve[step]), ".3f") for step in steps),
                f"{stable} of {len(long)}",
            )
        )
    if about is None:
        return None
    head = ("forecaster", "MSE at T_out", "2 T_out", "3 T_out", "4 T_out", "stable")
    caption = (
        f"{models.caption}. Each model's own output is fed back to it; {about['windows']} "
        f"windows are long enough. Stable: finite and below {about['limit']:g} times the variance "
        "about the climatology."
    )
    title = f"Roll-out: {models.title}"
    return Table(title=title, head=head, lines=tuple(lines), caption=caption)
