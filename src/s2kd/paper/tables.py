"""Tables of the paper from results, with 95 % intervals and beside the published numbers."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd
import xarray as xr

from s2kd.evaluation.compare import (
    BASELINE,
    NO_GAP,
    difference,
    excess_share,
    gain_percent,
    gap_closed,
    label,
    verdict,
)
from s2kd.evaluation.events import event_difference, event_interval, event_scores
from s2kd.evaluation.results import select
from s2kd.evaluation.significance import FEWEST_SEEDS, Estimate, with_holm
from s2kd.evaluation.tables import Table, interval, number, p_text
from s2kd.paper.experiment import Experiment, Results, variant_scores
from s2kd.paper.studies import ABLATION, CONTROLS, FULL_GRID, LONG_TRAINING

CLAIMED_SHARE = 0.9
"""The share of the gap to the teacher that the paper's student closes."""

EVENTS = ("above 95 %", "below 5 %")
"""Events of the tables."""

HOLM = "95 % intervals over test windows, and seeds from three on; p-values adjusted (Holm)"

READS = {
    "no-text": "no text (text-free teacher)",
    "empty": "empty narratives",
    "shuffled": "narratives of other windows",
    "random": "random token states",
    "rules": "narratives of the window (rules)",
}


@cache
def published(table: str) -> pd.DataFrame:
    """Gain over the baseline and share of the gap in percent, by (student, method), as printed.

    Absolute errors are not comparable: data and preset differ, and in tables 1 to 3 MAE² exceeds
    MSE, which means of the same errors cannot do.
    """
    with (files("s2kd.paper") / "published.csv").open() as file:
        frame = pd.read_csv(file)
    frame = frame[frame["table"] == table]
    mse = frame.set_index(["student", "method"])["mse"]
    base = frame["student"].map(lambda student: mse.get((student, BASELINE), math.nan)).to_numpy()
    gain = base - mse
    gap = base - mse["teacher", "teacher"]
    return pd.DataFrame({"gain": 100 * gain / base, "share": 100 * gain / gap})


def text_of(estimate: Estimate | None, form: str = "+.1f") -> str:
    """`value [low, high]`; a dash where there is none."""
    if estimate is None:
        return "–"
    return interval(estimate.value, estimate.low, estimate.high, form)


def pivot(cells: Mapping[tuple[str, str], str], *, corner: str, title: str, caption: str) -> Table:
    """A table of texts by (row, column), in the order in which these first appear."""
    rows, columns = (list(dict.fromkeys(keys)) for keys in zip(*cells, strict=True))
    lines = tuple((row, *(cells.get((row, column), "–") for column in columns)) for row in rows)
    return Table(title=title, head=(corner, *columns), lines=lines, caption=caption)


# --- in short ------------------------------------------------------------------------------------


def short_table(experiments: Iterable[Experiment]) -> Table:
    """Gain, share of the gap, and the two claims of the paper: yes, no or undecided."""
    lines = []
    for experiment in experiments:
        base = experiment.student(BASELINE)
        for method in ("s2kd", "s2kd_plus"):
            group = experiment.student(method)
            if not group.sizes["model"]:
                continue
            closed = gap_closed(base, group, experiment.teacher)
            lines.append(
                (
                    experiment.name,
                    label(method),
                    text_of(gain_percent(group, base)),
                    share_text(closed),
                    reaches(closed, CLAIMED_SHARE),
                    doubles_fitnet(experiment, method),
                    str(group.sizes["model"]),
                )
            )
    head = ("data and split", "method", "gain %", "gap closed %", "90 % reached",
            "twice FitNet's share", "seeds")  # fmt: skip
    caption = (
        "First student, 95 % intervals. Yes and no where the interval decides, else undecided. "
        f"{NO_GAP.capitalize()}: the teacher is not clearly better than the baseline."
    )
    return Table(title="In short", head=head, lines=tuple(lines), caption=caption)


def share_text(closed: Estimate | None) -> str:
    """Share of the gap in percent with its interval, or `NO_GAP`."""
    if closed is not None and closed.value is None:
        return NO_GAP
    return text_of(closed and closed.scaled(100.0), "+.0f")


def reaches(closed: Estimate | None, threshold: float) -> str:
    """Whether a share is at least `threshold`: yes, no or undecided."""
    if closed is None or closed.low is None or closed.high is None:
        return "undecided"
    return "yes" if closed.low >= threshold else "no" if closed.high < threshold else "undecided"


def doubles_fitnet(experiment: Experiment, method: str) -> str:
    """Whether a method gains, and more than twice what FitNet gains: yes, no or undecided."""
    base, group, fitnet = (experiment.student(name) for name in (BASELINE, method, "fitnet"))
    change = verdict(difference(group, base))
    excess = excess_share(base, group, fitnet)
    if change == "worse":
        return "no"
    if excess is None or not excess.excludes_zero:
        return "undecided"
    if excess.value < 0:
        return "no"
    return "yes" if change == "better" else "undecided"


# --- tables 1 to 3 -------------------------------------------------------------------------------


def main_table(experiment: Experiment, *, title: str, beside: str = "") -> Table:
    """Every student by every method, references and teachers; the clear winner in bold.

    `beside` is the table of the paper (`table1`) whose relative results stand in two columns.
    """
    printed = published(beside) if beside else None
    lines = []
    for row in experiment.table.to_dict("records"):
        student = row["role"] == "student"
        compared = student and row["method"] != BASELINE
        key = (row["backbone"], row["method"])
        gap = interval(
            row["gap_closed_percent"], row["gap_closed_low"], row["gap_closed_high"], "+.0f"
        )
        mse = spread_text(row["mse"], row["mse_std"])
        lines.append(
            (
                label(row["backbone"]) if row["role"] != "reference" else "",
                teacher_label(row) if row["role"] == "teacher" else row["label"],
                number(row["parameters"] / 1e6 or None, ".3g"),
                number(row["latency_ms"], ".1f"),
                f"**{mse}**" if row["best"] else mse,
                number(row["mae"]),
                number(row["ssim"]),
                interval(row["gain_percent"], row["gain_low"], row["gain_high"], "+.1f")
                if compared
                else "",
                p_text(row["p_value"]) if compared else "",
                row["verdict"],
                gap if compared else "",
                *(
                    f"{printed.loc[key, c]:+.0f}" if compared and key in printed.index else ""
                    for c in (("gain", "share") if printed is not None else ())
                ),
                str(row["seeds"]) if row["role"] != "reference" else "",
            )
        )
    published_head = ("published: gain %", "gap closed %") if beside else ()
    head = ("model", "method", "parameters (M)", "latency (ms)", "MSE", "MAE", "SSIM",
            "gain over baseline %", "p (Holm)", "verdict", "gap closed %", *published_head,
            "seeds")  # fmt: skip
    caption = (
        f"{experiment.caption}. MSE, MAE: per element, in training standard deviations; ± over "
        "seeds. "
        f"{HOLM}. Verdict: by the interval. Bold: clearly better than every other method of that "
        f"student with {FEWEST_SEEDS} seeds or more."
    )
    return Table(title=title, head=head, lines=tuple(lines), caption=caption)


def spread_text(mean: float, deviation: float) -> str:
    """Mean ± standard deviation over seeds."""
    return number(mean) + ("" if math.isnan(deviation) else f" ±{deviation:.4f}")


def teacher_label(row: Mapping[str, object]) -> str:
    """Teacher with what it reads."""
    reads = "narratives" if row["method"] == "teacher" else "no text"
    return f"teacher ({reads}{', reads the future' if row['reads_future'] else ''})"


def gains_table(experiments: Iterable[Experiment], *, title: str) -> Table:
    """Gain over the baseline of every student and method, a column per experiment."""
    cells = {}
    for experiment in experiments:
        students = experiment.table[
            (experiment.table["role"] == "student") & (experiment.table["verdict"] != "")
        ]
        for row in students.to_dict("records"):
            text = interval(row["gain_percent"], row["gain_low"], row["gain_high"], "+.1f")
            bold = row["verdict"] != "unclear" and not row["p_value"] >= 0.05
            name = f"{label(row['backbone'])}, {row['label']}"
            cells[name, experiment.name] = f"**{text}**" if bold else text
    caption = f"Gain over the baseline %, {HOLM}. Bold: clear after this adjustment."
    return pivot(cells, corner="student, method", title=title, caption=caption)


# --- table 4 and figure 3 ------------------------------------------------------------------------


def ablation_table(experiments: Iterable[Experiment], *, title: str) -> Table | None:
    """Gain of each half of L_distill, and of both, over the prediction loss alone."""
    cells = {}
    for experiment in (
        experiment for experiment in experiments if experiment.student("semantic").sizes["model"]
    ):
        for row in experiment.restricted(ABLATION).table.to_dict("records"):
            if row["method"] != BASELINE:
                gain = interval(row["gain_percent"], row["gain_low"], row["gain_high"], "+.1f")
                cells[row["label"], experiment.name] = f"{gain} (p {p_text(row['p_value'])})"
    printed = published("table2")["gain"]["unet"]
    for method in ABLATION[1:]:
        if cells:
            cells[label(method), "published (TaxiBJ+)"] = f"{printed[method]:+.1f}"
    caption = (
        "Gain over the prediction loss alone %, first student, over the seeds that all rows have; "
        f"{HOLM}."
    )
    return pivot(cells, corner="loss", title=title, caption=caption) if cells else None


# --- figure 4 and the controls -------------------------------------------------------------------


def readers(results: Results, experiment: Experiment) -> dict[str, tuple[xr.Dataset, xr.Dataset]]:
    """(teacher, S²-KD student) by what the teacher read: a key of `READS`, or another narrator."""
    groups = {
        "no-text": (
            select(experiment.scores, role="teacher", method="teacher-no-text"),
            experiment.student("s2kd_no_text"),
        )
    }
    scores_of_split = results[f"{experiment.data}-{experiment.preset}-{experiment.split}"]
    variants = dict.fromkeys((*CONTROLS, "rules", *sorted(set(scores_of_split["variant"].values))))
    for variant in variants:
        scores = variant_scores(results, experiment, variant)
        if variant not in (LONG_TRAINING, FULL_GRID) and scores.sizes["model"]:
            student = select(scores, role="student", backbone=experiment.backbone, method="s2kd")
            groups[variant] = select(scores, role="teacher", method="teacher"), student
    return groups


def control_effects(
    results: Results, experiment: Experiment
) -> dict[str, tuple[Estimate | None, Estimate | None]]:
    """Percent by which teacher and student err more than with the rule narrator's narratives.

    By what the teacher read instead; p-values adjusted over all of them.
    """
    groups = readers(results, experiment)
    reference = groups.pop("rules")
    effects = {
        (name, role): difference(group, base)
        for name, pair in groups.items()
        for role, (group, base) in enumerate(zip(pair, reference, strict=True))
    }
    adjusted = with_holm([e and e.scaled(100 / e.reference) for e in effects.values()])
    by_key = dict(zip(effects, adjusted, strict=True))
    return {name: (by_key[name, 0], by_key[name, 1]) for name in groups}


def narrator_table(
    results: Results, experiments: Iterable[Experiment], *, title: str
) -> Table | None:
    """Whether text helps, and whether it is its meaning: error against the rule narrator's."""
    cells = {}
    for experiment in experiments:
        for name, pair in control_effects(results, experiment).items():
            for role, effect in zip(("teacher", "student"), pair, strict=True):
                if effect is not None:
                    row = f"{role}: {READS.get(name, f'recorded ({name})')}"
                    cells[row, experiment.name] = f"{text_of(effect)} (p {p_text(effect.p_holm)})"
    caption = (
        "Error of teacher and S²-KD student % more than with the rule narrator's narratives "
        f"(below 0: less); {HOLM}."
    )
    ordered = dict(sorted(cells.items(), key=lambda cell: cell[0][0].startswith("student")))
    return (
        pivot(ordered, corner="the teacher reads", title=title, caption=caption) if cells else None
    )


# --- rare events ---------------------------------------------------------------------------------


def event_table(experiments: Iterable[Experiment], *, title: str) -> Table | None:
    """CSI of rare events by forecaster, and the difference of students to the baseline."""
    cells = {}
    for experiment in experiments:
        for channel, event in events_of(experiment):
            row = f"{experiment.name}: {channel} {event}"
            for name, group in experiment.forecasters.items():
                if name in SHOWN:
                    csi = event_interval(group, channel=channel, event=event)
                    cells[row, label(name)] = text_of(csi, ".3f")
    caption = (
        "CSI of values beyond a training quantile of their cell, all lead times; 95 % intervals. "
        "Differences to the baseline by lead: figure below."
    )
    return pivot(cells, corner="event", title=title, caption=caption) if cells else None


def events_of(experiment: Experiment) -> list[tuple[str, str]]:
    """(channel, event) of the tables that the scores hold."""
    if "hits" not in experiment.scores:
        return []
    return [
        (str(channel), event)
        for channel in experiment.scores["channel"].values
        for event in EVENTS
        if event in experiment.scores["event"].values
    ]


def event_detail_table(experiment: Experiment) -> Table | None:
    """CSI less the baseline's with interval, POD, FAR, bias and SEDI, by event and forecaster."""
    base, differences, lines = experiment.student(BASELINE), {}, []
    groups = {n: g for n, g in experiment.forecasters.items() if g["hits"].notnull().all()}
    for channel, event in events_of(experiment):
        for name, group in groups.items():
            key = (channel, event, name)
            student = group["role"].values[0] == "student" and name != BASELINE
            differences[key] = event_gain(group, base, channel, event) if student else None
    adjusted = with_holm(list(differences.values()))
    by_name = {name: event_scores(group) for name, group in groups.items()}
    for (channel, event, name), gain in zip(differences, adjusted, strict=True):
        scores = by_name[name].sel(channel=channel, event=event)
        lines.append(
            (
                f"{channel} {event}",
                label(name),
                number(float(scores["csi"].mean()), ".3f"),
                text_of(gain, "+.3f") if gain else "",
                p_text(gain.p_holm) if gain else "",
                *(number(float(scores[n].mean()), ".2f") for n in ("pod", "far", "bias", "sedi")),
            )
        )
    head = ("event", "forecaster", "CSI", "CSI − baseline's", "p (Holm)", "POD", "FAR", "bias",
            "SEDI")  # fmt: skip
    title = f"Rare events: {experiment.title}"
    return (
        Table(title=title, head=head, lines=tuple(lines), caption=experiment.caption)
        if lines
        else None
    )


def event_gain(
    group: xr.Dataset, base: xr.Dataset, channel: str, event: str, lead: int | None = None
) -> Estimate | None:
    """CSI of `group` less that of `base`, over the seeds that both have."""
    from s2kd.evaluation.compare import pair_by_seed

    first, second = pair_by_seed(group, base)
    if not first.sizes["model"]:
        return None
    return event_difference(first, second, channel=channel, event=event, lead=lead)


# --- spectra and roll-outs -----------------------------------------------------------------------

SHOWN = ("persistence", "climatology", "teacher", BASELINE, "fitnet", "spectral", "s2kd",
         "s2kd_plus")  # fmt: skip
"""Forecasters of tables and figures with little room."""


def spectra_table(experiments: Iterable[Experiment], *, title: str) -> Table | None:
    """Distance of the mean power spectrum to the truth's, and energy of fine detail, last lead."""
    cells = {}
    names = ("log_spectral_distance_by_lead", "high_frequency_ratio_by_lead")
    for experiment in experiments:
        for name, group in experiment.forecasters.items():
            if name in SHOWN and names[0] in group:
                last = group[list(names)].isel(lead=-1).mean()
                values = (float(last[n]) for n in names)
                cells[label(name), experiment.name] = " / ".join(number(v, ".2f") for v in values)
    caption = (
        "Last lead: distance of the radial power spectrum to the truth's in decades (0: equal) / "
        "ratio of the energy in the upper half of the wavenumbers (1: equal, below 1: blurred)."
    )
    return pivot(cells, corner="forecaster", title=title, caption=caption) if cells else None


def rollout_table(experiments: Iterable[Experiment], *, title: str) -> Table | None:
    """Error at the trained lead and at four times that, each model fed its own output."""
    cells = {}
    for experiment in experiments:
        for name, group in experiment.forecasters.items():
            if name not in SHOWN or "rollout_mse" not in group:
                continue
            rolled = group.isel(model=group["rollout_stable"].notnull().values)
            if rolled.sizes["model"]:
                curve = rolled["rollout_mse"].mean("model").values
                unstable = int((rolled["rollout_stable"] == 0).sum())
                text = " / ".join(number(float(curve[i]), ".3f") for i in (len(curve) // 4 - 1, -1))
                cells[label(name), experiment.name] = text + (
                    f" ({unstable} unstable)" * bool(unstable)
                )
    caption = "MSE at T_out / 4 T_out. Unstable: not finite, or beyond 4 times the variance."
    return pivot(cells, corner="forecaster", title=title, caption=caption) if cells else None


# --- searches ------------------------------------------------------------------------------------


def search_table(searches: Sequence[Mapping], axis: str) -> Table:
    """Validation error of every method at every value of one axis, the smallest in bold."""
    from s2kd.evaluation.figures import AXIS_LABELS

    errors = {
        (s["preset"], label(s["backbone"]), label(s["method"])): pd.Series(
            {t["values"][axis]: t["validation"] for t in s["trials"] if t["state"] == "complete"}
        )
        for s in searches
    }
    frame = pd.DataFrame(errors).sort_index()
    lines = tuple(
        (
            *key,
            *(
                f"**{number(v)}**" if v == column.min() else number(v)
                for v in column.replace(np.nan, None)
            ),
        )
        for key, column in frame.items()
    )
    head = ("data", "student", "method", *(f"{value:g}" for value in frame.index))
    epochs = sorted({s["recipe"]["student_training"]["epochs"] for s in searches})
    caption = f"Trainings of {' or '.join(map(str, epochs))} epochs; {searches[0]['measure']}."
    title = f"Validation error by {AXIS_LABELS[axis]}"
    return Table(title=title, head=head, lines=lines, caption=caption)
