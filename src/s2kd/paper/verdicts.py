"""What the results say in words: each sentence is chosen by an interval, for or against."""

import math
from collections.abc import Callable, Mapping, Sequence

from s2kd.evaluation.bootstrap import Interval
from s2kd.evaluation.figures import AXIS_LABELS
from s2kd.evaluation.results import Row
from s2kd.evaluation.significance import FEWEST_SEEDS, Comparison, adjusted, runs_of
from s2kd.paper import rare_tables
from s2kd.paper.experiment import (
    Models,
    counted,
    difference,
    gap_closed,
    longer,
    metric,
    on_full_grid,
    together,
)
from s2kd.paper.reproduce import SOURCES
from s2kd.paper.studies import ABLATION, CONTROLS, PATIENCE, TAUGHT
from s2kd.paper.tables import (
    WORDS,
    ablation_comparisons,
    doubles_fitnet,
    gain,
    main_comparisons,
    name_of,
    p_text,
    percent,
    share,
    variants,
    words_compared,
)

IN_SHORT = "In short"
RQ1 = "RQ1: does distilling help, and whose way most?"
RQ2 = "RQ2: what does each half of the loss bring?"
MEANING = "Does the text help, and is it the meaning of the text?"
RQ3 = "RQ3: extreme events"
DETAIL = "Detail: spectra"
ROLLED = "Longer than it was trained for"
SO_FAR = "so far"

CLAIMED = 0.9
"""The share of the gap that the paper's student closes."""


def verdicts(
    every: Sequence[Models], rows: Sequence[Row], headings: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Sentences by the heading they stand under; of these headings alone, where some are named."""
    return {
        heading: sentences(every, rows)
        for heading, sentences in _BY_HEADING.items()
        if heading in headings or not headings
    }


_BY_HEADING: dict[str, Callable[[Sequence[Models], Sequence[Row]], list[str]]] = {
    IN_SHORT: lambda every, rows: [
        s for m in every for s in (claim(m), *claim_on_full_grid(m, rows))
    ],
    RQ1: lambda every, rows: [
        s for m in every for s in (*ranking(m), *patience(m, rows), *teachers(m, rows))
    ],
    RQ2: lambda every, rows: [s for m in every for s in (*halves(m), *beyond(m))],
    MEANING: lambda every, rows: [
        *(s for m in every for s in meaning(m, rows)),
        *untested(every, rows),
    ],
    RQ3: lambda every, rows: [s for m in every for s in rare(m)],
    DETAIL: lambda every, rows: [s for m in every for s in detail(m)],
    ROLLED: lambda every, rows: [s for m in every for s in long_runs(m)],
}


def standing(every: Sequence[Models]) -> str:
    """On what data, at what size and on what machine all of it stands."""
    own = sorted({m.data for m in every if m.data in SOURCES and SOURCES[m.data].official})
    other = sorted({m.data for m in every} - set(own))
    presets = ", ".join(sorted({m.preset for m in every}))
    data = f"Official data: {', '.join(own) or 'none'}. Stand-ins: {', '.join(other) or 'none'}. "
    return (
        f"{data}Preset: {presets}. A stand-in is a real field of the same kind, at a size that two "
        "cores can train; its figures are its own and say nothing of the official data's. "
        f"'{SO_FAR.capitalize()}' stands before what fewer than {FEWEST_SEEDS} seeds say, where an "
        "interval speaks of the models that were trained, not of the method. Better and worse are "
        "said where a 95 % interval excludes zero; of a comparison that stands in a table, the "
        "sentence says where its p-value, adjusted for all of that table (Holm), is not below "
        "0.05. How the settings "
        "were chosen, when teachers stop, and what did not work: [log](log.md)."
    )


def told(found: Comparison | None, better: str, worse: str, same: str) -> str:
    """`better` where the difference is below 0 for certain, `worse` above, else `same`.

    Where seeds were too few to say of their spread it begins with `SO_FAR`: the interval is over
    test windows, and another training may tell another story.
    """
    if found is None or not found.excludes_zero:
        return same
    word = better if found.is_better else worse
    return word if found.seeds >= FEWEST_SEEDS else f"{SO_FAR} {word}"


def caveat(found: Comparison | None) -> str:
    """What is certain by itself but not as one of a table's many comparisons is told with that."""
    if found is None or not found.excludes_zero or found.survives:
        return ""
    return f", though not after Holm's correction: p = {p_text(found.p_holm)}"


def in_percent(found: Comparison | None) -> str:
    """A difference of errors as a gain in percent of the second's."""
    if found is None or found.difference is None:
        return "an unknown amount"
    return gain(found) + " %"


def claim(models: Models) -> str:
    """The headline: 90 % of the gap closed by S²-KD, and twice what FitNet closes."""
    backbone = models.students[0]
    base, teacher = models.of("student", "baseline", backbone), models.of("teacher", "teacher")
    ours = models.of("student", "s2kd", backbone)
    where = f"{models.place} ({models.preset}, {counted(len(ours), 'seed')})"
    if not ours or not teacher:
        return f"{where}: not trained yet."
    compared = main_comparisons(models)
    found, lead = compared[backbone, "s2kd"], difference(teacher, base)
    verdict = told(
        found,
        "S²-KD is better than the plain student",
        "S²-KD is worse than the plain student",
        "S²-KD cannot be told from the plain student",
    )
    verdict = f"{verdict} ({in_percent(found)} of its error{caveat(found)}{_by_run(ours, base)})"
    twice = f"twice FitNet's share is {_twice(models, backbone, 's2kd')}"
    if lead is not None and lead.is_better:
        closed = gap_closed(base, ours, teacher)
        hints = gap_closed(base, models.of("student", "fitnet", backbone), teacher)
        sentence = (
            f"{where}: the teacher is {in_percent(lead)} ahead of the plain {name_of(backbone)}. "
            f"{verdict}; it closes {_share(closed)} of the gap, FitNet {_share(hints)}. Of the "
            f"claim, 90 % of the gap {reached(closed)} and {twice}."
        )
    else:
        sentence = (
            f"{where}: the reading teacher is not clearly ahead of the plain {name_of(backbone)} "
            f"({in_percent(lead)}), so there is no gap to close and 90 % of it cannot be judged; "
            f"{twice}. {verdict}."
        )
    plus = models.of("student", "s2kd_plus", backbone)
    if plus:
        more, closed = compared[backbone, "s2kd_plus"], gap_closed(base, plus, teacher)
        sentence += f" Our variant S²-KD plus gains {in_percent(more)}{caveat(more)}"
        if closed is not None and closed.value is not None:
            sentence += f" and closes {_share(closed)}: 90 % of the gap {reached(closed)}"
        sentence += f"; twice FitNet's share is {_twice(models, backbone, 's2kd_plus')}."
    return sentence


def claim_on_full_grid(models: Models, rows: Sequence[Row]) -> list[str]:
    """The headline from a teacher on the full grid, where one was trained."""
    other = on_full_grid(rows, models)
    return [] if other is None else [claim(other)]


def _by_run(ours: Sequence[Row], base: Sequence[Row]) -> str:
    """The gain on each run of the split, where there is more than one and they can be listed."""
    ours, base = together(ours, base)
    runs = runs_of(ours[0]["scores"]) if ours else ()
    if not 1 < len(runs) <= 4:
        return ""

    def error(rows: Sequence[Row], run: str) -> float:
        return sum(row["scores"]["by_group"][run]["mse"] for row in rows)

    parts = (
        f"{run} {100 * (1 - error(ours, run) / error(base, run)):+.1f}"
        for run in ours[0]["scores"]["by_group"]
    )
    return f"; by run {', '.join(parts)}: nothing is said of other runs"


REACHED, WITHIN = "is reached", "is within the interval, so not shown"


def reached(closed: Interval | None) -> str:
    """Whether 90 % lies below (`REACHED`), in (`WITHIN`) or above the interval of a share."""
    if closed is None or closed.low is None or closed.high is None:
        return "cannot be judged (no interval)"
    if closed.low >= CLAIMED:
        return REACHED
    return "is not reached" if closed.high < CLAIMED else WITHIN


def _twice(models: Models, backbone: str, method: str) -> str:
    return "shown" if is_twice(models, backbone, method) else "not shown"


def is_twice(models: Models, backbone: str, method: str) -> bool:
    """Whether it closes more than twice FitNet's share: of something, since -1 beats twice -3."""
    base, ours = (models.of("student", name, backbone) for name in ("baseline", method))
    gained, found = difference(ours, base), doubles_fitnet(models, backbone, method)
    if gained is None or found is None or gained.seeds < FEWEST_SEEDS:
        return False
    return gained.is_better and found.low is not None and found.low > 0


def patience(models: Models, rows: Sequence[Row]) -> list[str]:
    """What longer training brings to the plain student and to S²-KD plus."""
    patient = longer(rows, models)
    if patient is None or not patient.of("student", "s2kd_plus"):
        return []

    base, plus = patient.of("student", "baseline"), patient.of("student", "s2kd_plus")

    def gained(method: str) -> str:
        now, before = (m.of("student", method, m.students[0]) for m in (patient, models))
        return _gained(difference(now, before))

    closed = gap_closed(base, plus, patient.of("teacher", "teacher"))
    return [
        f"{models.place}: with {PATIENCE} times the epochs ({counted(len(plus), 'seed')}), against "
        f"the usual epochs: plain student {gained('baseline')}, S²-KD plus "
        f"{gained('s2kd_plus')}. S²-KD plus against the plain student that learned as long: "
        f"{_gained(difference(plus, base))}; share of that one's gap: {_share(closed)}."
    ]


def teachers(models: Models, rows: Sequence[Row]) -> list[str]:
    """What a teacher on the full grid brings, itself and to its students."""
    other = on_full_grid(rows, models)
    if other is None:
        return []
    backbone = models.students[0]
    both = [
        (m.of("teacher", "teacher"), *(m.of("student", name, backbone) for name in TAUGHT))
        for m in (other, models)
    ]
    gains = [
        f"{name} {_gained(difference(now, before))}"
        for name, now, before in zip(("teacher", *map(name_of, TAUGHT)), *both, strict=True)
        if now and before
    ]
    seeds = counted(len(other.of("teacher", "teacher")), "seed")
    return [
        f"{other.place} ({seeds}), against the recipe's own teacher and its students: "
        f"{', '.join(gains)}."
    ]


def _gained(found: Comparison | None) -> str:
    word = told(found, "better", "worse", "no clear change")
    return f"{in_percent(found)} ({word}{caveat(found)})"


def searched(found: Row) -> str:
    """What `s2kd sweep` tried, and its choice against the recipe's own values."""

    def at(values: Mapping[str, float]) -> str:
        return ", ".join(f"{AXIS_LABELS[axis]} = {value:g}" for axis, value in values.items())

    done = [one for one in found["trials"] if one["state"] == "complete"]
    best, own = found["best"], found["own"]
    epochs = found["recipe"]["student_training"]["epochs"]
    sentence = (
        f"{found['preset']}, {name_of(found['backbone'])}, {name_of(found['method'])}: "
        f"{len(done)} trainings of {epochs} epochs ({found['sampler']}, seeds "
        f"{', '.join(map(str, found['seeds']))}); "
        f"least validation error {best['validation']:.4f} at {at(best['values'])}"
    )
    if own is None:
        return sentence + "."
    more = 100 * (own["validation"] / best["validation"] - 1)
    return sentence + f", {own['validation']:.4f} ({more:+.1f} %) at {at(own['values'])}."


def _share(found: Interval | None) -> str:
    return "no clear gap" if found is None or found.value is None else share(found) + " %"


def ranking(models: Models) -> list[str]:
    """For every student, whether the paper's order of rows came out, and who is best."""
    found = []
    teacher = models.of("teacher", "teacher")
    climatology = models.of("reference", "climatology")
    if teacher and climatology:
        versus = difference(teacher, climatology)
        if not (versus is not None and versus.survives and versus.difference < 0):
            found.append(
                f"{models.place}: the teacher ({metric(teacher, 'mse'):.4f}) is not clearly better "
                f"than the climatology ({metric(climatology, 'mse'):.4f})."
            )
    compared = main_comparisons(models)
    for backbone in models.students:
        methods = [
            m for m in models.methods(backbone) if m in ("baseline", "output", "fitnet", "s2kd")
        ]
        if "s2kd" not in methods:
            continue
        mse = {m: metric(models.of("student", m, backbone), "mse") for m in methods}
        order = " < ".join(name_of(m) for m in sorted(methods, key=mse.__getitem__))
        parts = []
        for one, other in (("s2kd", "fitnet"), ("fitnet", "baseline")):
            if one in methods and other in methods:
                versus = (
                    compared.get((backbone, one))
                    if other == "baseline"
                    else difference(
                        models.of("student", one, backbone), models.of("student", other, backbone)
                    )
                )
                parts.append(
                    f"{name_of(one)} before {name_of(other)} is "
                    f"{told(versus, 'shown', 'reversed', 'not shown')}{caveat(versus)}"
                )
        found.append(
            f"{models.place}, {name_of(backbone)}: mean errors are ordered {order}. Of the paper's "
            f"order, {' and '.join(parts)}."
        )
    return found


def halves(models: Models) -> list[str]:
    """Each half of the loss against the baseline, and both against each half."""
    backbone, compared = models.students[0], ablation_comparisons(models)
    models = models.shared(ABLATION)
    both = models.of("student", "s2kd", backbone)
    one = {m: models.of("student", m, backbone) for m in ("spectral", "semantic")}
    if not all(one.values()) or not both:
        return []
    parts = [f"{name_of(m)} {_gained(compared[m])}" for m in one]
    better = all(
        (found := difference(both, rows)) is not None and found.is_better for rows in one.values()
    )
    return [
        f"{models.place}: gain over the prediction loss alone: {'; '.join(parts)}; both "
        f"{_gained(compared['s2kd'])}. Both "
        f"together are {'' if better else 'not '}clearly better than each alone."
    ]


def beyond(models: Models) -> list[str]:
    """What S²-KD plus owes to each of its parts: against methods that lack one."""
    backbone = models.students[0]
    plus = models.of("student", "s2kd_plus", backbone)
    others = {
        name: rows
        for name in ("s2kd", "output", "output_plus", "mixup")
        if (rows := models.of("student", name, backbone))
    }
    if not plus or not others:
        return []
    found = adjusted([difference(plus, rows) for rows in others.values()])
    parts = (f"{name_of(n)} {_gained(one)}" for n, one in zip(others, found, strict=True))
    return [f"{models.place}: gain of S²-KD plus over {'; '.join(parts)}."]


def meaning(models: Models, rows: Sequence[Row]) -> list[str]:
    """Whether the text helps teacher and student, and whether its meaning does."""
    found = []
    for key, (teacher, student) in words_compared(rows, models).items():
        if key not in ("text-free", *CONTROLS) or teacher is None or student is None:
            continue
        label = "a text-free teacher" if key == "text-free" else WORDS[key]

        def moved(one: Comparison) -> str:
            word = told(one, "falls", "rises", "is not clearly changed")
            return f"{word} ({percent(one.difference, one.low, one.high)} %{caveat(one)})"

        found.append(
            f"{models.place}, {label} instead of the window's words: the teacher's error "
            f"{moved(teacher)}, its student's {moved(student)}."
        )
    return found


def untested(every: Sequence[Models], rows: Sequence[Row]) -> list[str]:
    """What the paper's Figure 4 shows and these results cannot, where that is so."""
    known = {*CONTROLS, "rules"}
    for models in every:
        where = {"data": models.data, "preset": models.preset, "split": models.split}
        if any(variant not in known for variant in variants(rows, **where)):
            return []
    return [
        "No large multimodal model's narratives are among these results: that a better model's "
        "words make a better student (the paper's Figure 4) is untested here."
    ]


def rare(models: Models) -> list[str]:
    """CSI of S²-KD against the baseline's, event by event."""
    found, base = [], models.of("student", "baseline", models.students[0])
    if not base:
        return []
    for (channel, event, method), more in rare_tables.hits_gained(models).items():
        if method == "s2kd" and more.difference is not None:
            # of hits there cannot be too many: `told` is of errors
            word = told(more, "fewer", "more", "no clear change")
            found.append(
                f"{models.place}, {channel} {event}: hits (CSI) of S²-KD less the plain student's "
                f"{percent(more.difference, more.low, more.high, '+.3f')} ({word}{caveat(more)})."
            )
    return found


def detail(models: Models) -> list[str]:
    """Whether the spectral loss keeps detail that the squared error blurs, and its cost."""
    backbone = models.students[0]
    base = models.of("student", "baseline", backbone)
    costs = {
        "spectral": ablation_comparisons(models).get("spectral"),
        "s2kd": main_comparisons(models).get((backbone, "s2kd")),
    }
    found = []
    for method, cost in costs.items():
        rows = models.of("student", method, backbone)
        if not rows or not base:
            continue
        before, after = (rare_tables.by_lead(r, "high_frequency_ratio", -1) for r in (base, rows))
        near, far = (rare_tables.by_lead(r, "log_spectral_distance", -1) for r in (base, rows))
        found.append(
            f"{models.place}, {name_of(method)}: at the last lead the energy of fine detail is "
            f"{after:.2f} of the truth's (plain student {before:.2f}), the log-spectral distance "
            f"{far:.2f} decades (plain {near:.2f}); gain in MSE {_gained(cost)}."
        )
    return found


def long_runs(models: Models) -> list[str]:
    """Four times the lead: against climatology and the plain student, and what blows up."""
    found, usual_rows = [], models.of("reference", "climatology")
    base = models.of("student", "baseline", models.students[0])
    every = {name: rare_tables.rolled(rows) for name, rows in models.forecasters.items()}
    usual = every.get("climatology") or []
    for name in ("teacher", "baseline", "s2kd", "s2kd_plus"):
        long = every.get(name) or []
        if not long or not usual:
            continue
        rows = models.forecasters[name]
        curves = [math.inf if one["mse"][-1] is None else one["mse"][-1] for one in long]
        stable = all(one["stable"] for one in long)
        word = told(
            difference(rows, usual_rows, long=True),
            "better than",
            "worse than",
            "not to be told from",
        )
        versus = ""
        if name != "baseline":
            versus = f"; gain over the plain student's {_gained(difference(rows, base, long=True))}"
        found.append(
            f"{models.place}, {name_of(name)}: at four times the trained lead the error is "
            f"{sum(curves) / len(curves):.3f}, {word} the climatology's "
            f"({usual[0]['mse'][-1]:.3f}){versus}; "
            f"{'no roll-out blew up' if stable else 'some roll-outs blew up'}."
        )
    return found
