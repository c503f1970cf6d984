"""What the results say in words: each sentence is chosen by an interval, for or against."""

import math
from collections.abc import Mapping, Sequence

from s2kd import rare_tables
from s2kd.bootstrap import Interval
from s2kd.cell_events import event_difference
from s2kd.experiment import Models, counted, difference, gap_closed, longer, metric, together
from s2kd.figures import AXIS_LABELS
from s2kd.published import PUBLISHED
from s2kd.reproduce import SOURCES, kind_of
from s2kd.results import Row
from s2kd.significance import FEWEST_SEEDS, Comparison
from s2kd.studies import ABLATION, CONTROLS, KINDS, PATIENCE
from s2kd.tables import WORDS, doubles_fitnet, gain, name_of, percent, readers, share

SO_FAR = "so far"

CLAIMED = 0.9
"""The share of the gap that the paper's student closes."""


def verdicts(every: Sequence[Models], rows: Sequence[Row]) -> dict[str, list[str]]:
    """Sentences by the heading they stand under."""
    tests = [models for models in every if models.split == "test"]
    return {
        "In short": [claim(models) for models in every],
        "RQ1: does distilling help, and whose way most?": [
            s for m in every for s in (*ranking(m), *patience(m, rows))
        ],
        "RQ2: what does each half of the loss bring?": [
            s for m in every for s in (*halves(m), *beyond(m))
        ],
        "Does the text help, and is it the meaning of the text?": [
            s for m in every for s in meaning(m, rows)
        ],
        "RQ3: extreme events": [s for m in tests for s in rare(m)],
        "Detail: spectra": [s for m in tests for s in detail(m)],
        "Longer than it was trained for": [s for m in tests for s in long_runs(m)],
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
        "interval speaks of the models that were trained, not of the method. How the settings "
        "were chosen, when teachers stop, and what did not work: [log](log.md)."
    )


def told(found: Comparison | None, better: str, worse: str, same: str) -> str:
    """`better` where the difference is below 0 for certain, `worse` above, else `same`.

    Where seeds were too few to be drawn it begins with `SO_FAR`: the interval is over test
    windows, and another training may tell another story.
    """
    if found is None or not found.excludes_zero:
        return same
    word = better if found.difference < 0 else worse
    return word if found.seeds >= FEWEST_SEEDS else f"{SO_FAR} {word}"


def in_percent(found: Comparison | None, base: Sequence[Row]) -> str:
    """A difference of errors as a gain in percent of `base`."""
    if found is None or found.difference is None:
        return "an unknown amount"
    return gain(base, found) + " %"


def claim(models: Models) -> str:
    """The headline: 90 % of the gap closed by S²-KD, and twice what FitNet closes."""
    backbone = models.students[0]
    base, teacher = models.of("student", "baseline", backbone), models.of("teacher", "teacher")
    ours = models.of("student", "s2kd", backbone)
    where = f"{models.place} ({models.preset}, {counted(len(ours), 'seed')})"
    if not ours or not teacher:
        return f"{where}: not trained yet."
    gap = 100 * (1 - metric(teacher, "mse") / metric(base, "mse"))
    found = difference(ours, base)
    verdict = told(
        found,
        "S²-KD is better than the plain student",
        "S²-KD is worse than the plain student",
        "S²-KD cannot be told from the plain student",
    )
    verdict = f"{verdict} ({in_percent(found, base)} of its error)"
    if gap <= 0:
        return (
            f"{where}: the reading teacher is no better than the plain student "
            f"({metric(teacher, 'mse'):.4f} against {metric(base, 'mse'):.4f}), so there is no gap "
            f"to close and the claim cannot be tested. {verdict}."
        )
    closed = gap_closed(base, ours, teacher)
    hints = gap_closed(base, models.of("student", "fitnet", backbone), teacher)
    sentence = (
        f"{where}: the teacher is {gap:.0f} % ahead of the plain {name_of(backbone)}. "
        f"{verdict}; it closes {_share(closed)} of the gap, FitNet "
        f"{_share(hints)}. Of the claim, 90 % of the gap {_reached(closed)} and "
        f"twice FitNet's share is {_twice(models, backbone, 's2kd')}."
    )
    plus = models.of("student", "s2kd_plus", backbone)
    if plus:
        more = difference(plus, base)
        closed = gap_closed(base, plus, teacher)
        sentence += (
            f" Our variant S²-KD plus gains {in_percent(more, base)} and closes {_share(closed)}: "
            f"90 % of the gap {_reached(closed)}, twice FitNet's share is "
            f"{_twice(models, backbone, 's2kd_plus')}."
        )
    return sentence


def _reached(closed: Interval | None) -> str:
    """Whether 90 % lies below, in or above the interval of this share."""
    if closed is None or closed.low is None or closed.high is None:
        return "cannot be judged (no interval)"
    if closed.low >= CLAIMED:
        return "is reached"
    return "is not reached" if closed.high < CLAIMED else "is within the interval, so not shown"


def _twice(models: Models, backbone: str, method: str) -> str:
    """Whether it closes more than twice FitNet's share: of something, since -1 beats twice -3."""
    base, ours = (models.of("student", name, backbone) for name in ("baseline", method))
    gained = told(difference(ours, base), "gains", "loses", "")
    found = doubles_fitnet(models, backbone, method)
    clear = found is not None and found.low is not None and found.low > 0
    return "shown" if clear and gained == "gains" else "not shown"


def patience(models: Models, rows: Sequence[Row]) -> list[str]:
    """What longer training brings to the plain student and to S²-KD plus."""
    patient = longer(rows, models)
    if patient is None or not patient.of("student", "s2kd_plus"):
        return []

    def gained(method: str) -> str:
        now, before = (m.of("student", method, m.students[0]) for m in (patient, models))
        return in_percent(difference(now, before), before)

    base, plus = patient.of("student", "baseline"), patient.of("student", "s2kd_plus")
    ahead = in_percent(difference(plus, base), base)
    closed = gap_closed(base, plus, patient.of("teacher", "teacher"))
    return [
        f"{models.place}: with {PATIENCE} times the epochs ({counted(len(plus), 'seed')}) the "
        f"plain student gains {gained('baseline')} over itself, S²-KD plus "
        f"{gained('s2kd_plus')}; it is then {ahead} better than the plain student that learned as "
        f"long, and closes {_share(closed)} of that one's gap."
    ]


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
    return "an undefined share" if found is None or found.value is None else share(found) + " %"


def ranking(models: Models) -> list[str]:
    """For every student, whether the paper's order of rows came out, and who is best."""
    found = []
    teacher, table = models.of("teacher", "teacher"), KINDS.get(kind_of(models.data), "")
    climatology = models.of("reference", "climatology")
    if teacher and climatology and metric(climatology, "mse") < metric(teacher, "mse"):
        found.append(
            f"{models.place}: the climatology ({metric(climatology, 'mse'):.4f}) is "
            f"better than the teacher ({metric(teacher, 'mse'):.4f})."
        )
    for backbone in models.students:
        methods = [
            m for m in models.methods(backbone) if m in ("baseline", "output", "fitnet", "s2kd")
        ]
        if "s2kd" not in methods:
            continue
        mse = {m: metric(models.of("student", m, backbone), "mse") for m in methods}
        order = " < ".join(name_of(m) for m in sorted(methods, key=mse.__getitem__))
        wanted = [m for m in ("s2kd", "fitnet", "baseline") if m in methods]
        same = sorted(wanted, key=mse.__getitem__) == wanted
        versus = difference(
            models.of("student", "s2kd", backbone), models.of("student", "fitnet", backbone)
        )
        verdict = told(
            versus,
            "S²-KD beats FitNet",
            "FitNet beats S²-KD",
            "S²-KD and FitNet cannot be told apart",
        )
        as_published = "as in" if same else "unlike"
        found.append(
            f"{models.place}, {name_of(backbone)}: errors are ordered {order} "
            f"({as_published} {PUBLISHED[table].data if table else 'the paper'}); {verdict}."
        )
    return found


def halves(models: Models) -> list[str]:
    """Each half of the loss against the baseline, and both against each half."""
    backbone, models = models.students[0], models.shared(ABLATION)
    base = models.of("student", "baseline", backbone)
    both = models.of("student", "s2kd", backbone)
    one = {m: models.of("student", m, backbone) for m in ("spectral", "semantic")}
    if not all(one.values()) or not both:
        return []
    parts = [
        f"{name_of(m)} {in_percent(difference(rows, base), base)} "
        f"({told(difference(rows, base), 'better', 'worse', 'no clear change')})"
        for m, rows in one.items()
    ]
    joint = difference(both, base)
    better = all(
        (found := difference(both, rows)) is not None
        and found.excludes_zero
        and found.difference < 0
        for rows in one.values()
    )
    return [
        f"{models.place}: gain over the prediction loss alone: {'; '.join(parts)}; both "
        f"{in_percent(joint, base)} ({told(joint, 'better', 'worse', 'no clear change')}). Both "
        f"together are {'' if better else 'not '}clearly better than each alone."
    ]


def beyond(models: Models) -> list[str]:
    """What S²-KD plus owes to each of its parts: against methods that lack one."""
    backbone = models.students[0]
    plus, parts = models.of("student", "s2kd_plus", backbone), []
    for name in ("s2kd", "output", "output_plus", "mixup"):
        rows = models.of("student", name, backbone)
        if plus and rows:
            found = difference(plus, rows)
            word = told(found, "better", "worse", "no clear change")
            parts.append(f"{name_of(name)} {in_percent(found, rows)} ({word})")
    return [f"{models.place}: gain of S²-KD plus over {'; '.join(parts)}."] if parts else []


def meaning(models: Models, rows: Sequence[Row]) -> list[str]:
    """Whether the text helps teacher and student, and whether its meaning does."""
    backbone, found = models.students[0], []
    teacher, student = models.of("teacher", "teacher"), models.of("student", "s2kd", backbone)
    there = readers(rows, models)
    for key in ("text-free", *CONTROLS):
        its_teacher, its_student = there.get(key, ([], []))
        label = "a text-free teacher" if key == "text-free" else WORDS[key]
        if not its_teacher or not its_student or not teacher or not student:
            continue
        on_teacher, on_student = difference(teacher, its_teacher), difference(student, its_student)
        found.append(
            f"{models.place}, the window's words against {label}: the teacher "
            f"{told(on_teacher, 'gains', 'loses', 'is not clearly changed')} "
            f"({in_percent(on_teacher, its_teacher)}), its student "
            f"{told(on_student, 'gains', 'loses', 'is not clearly changed')} "
            f"({in_percent(on_student, its_student)})."
        )
    return found


def rare(models: Models) -> list[str]:
    """CSI of S²-KD against the baseline's, event by event."""
    backbone = models.students[0]
    one, other = together(
        models.of("student", "s2kd", backbone), models.of("student", "baseline", backbone)
    )
    if not one:
        return []
    ours, theirs = rare_tables.counted(one), rare_tables.counted(other)
    if not ours or not theirs:
        return []
    found, block = [], rare_tables.block_of(one)
    for channel in ours[0].channels:
        for event in (e for e in rare_tables.SHOWN if e in ours[0].events):
            more = event_difference(ours, theirs, channel=channel, event=event, block=block)
            if more.difference is None:
                continue
            # of hits there cannot be too many: `told` is of errors
            word = told(more, "worse than", "better than", "not to be told from")
            found.append(
                f"{models.place}, {channel} {event}: S²-KD's hits (CSI) are {word} the plain "
                f"student's ({percent(more.difference, more.low, more.high, '+.3f')})."
            )
    return found


def detail(models: Models) -> list[str]:
    """Whether the spectral loss keeps detail that the squared error blurs, and its cost."""
    backbone = models.students[0]
    base = models.of("student", "baseline", backbone)
    found = []
    for method in ("spectral", "s2kd"):
        rows = models.of("student", method, backbone)
        if not rows or not base:
            continue
        before, after = (rare_tables.by_lead(r, "high_frequency_ratio", -1) for r in (base, rows))
        near, far = (rare_tables.by_lead(r, "log_spectral_distance", -1) for r in (base, rows))
        cost = difference(rows, base)
        found.append(
            f"{models.place}, {name_of(method)}: at the last lead the energy of fine detail is "
            f"{after:.2f} of the truth's (plain student {before:.2f}), the log-spectral distance "
            f"{far:.2f} dB (plain {near:.2f}); gain in MSE {in_percent(cost, base)}."
        )
    return found


def long_runs(models: Models) -> list[str]:
    """Error at four times the lead beside the climatology's, and whether anything blows up."""
    found = []
    every = {name: rare_tables.rolled(rows) for name, rows in models.forecasters.items()}
    usual = every.get("climatology") or []
    for name in ("teacher", "baseline", "s2kd", "s2kd_plus"):
        long = every.get(name) or []
        if not long or not usual:
            continue
        error = sum(math.inf if one["mse"][-1] is None else one["mse"][-1] for one in long) / len(
            long
        )
        floor = usual[0]["mse"][-1]
        stable = all(one["stable"] for one in long)
        found.append(
            f"{models.place}, {name_of(name)}: at four times the trained lead the error is "
            f"{error:.3f}, climatology's {floor:.3f}; "
            f"{'no roll-out blew up' if stable else 'some roll-outs blew up'}."
        )
    return found
