"""Tables of the proof, from result files alone, with intervals and beside the published figures."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from s2kd.evaluation.bootstrap import Interval, is_too_short
from s2kd.evaluation.rows import chosen
from s2kd.evaluation.significance import FEWEST_SEEDS, Comparison, adjusted, exceeds_share, winner
from s2kd.evaluation.tables import Table, number, p_text
from s2kd.paper.experiment import (
    Models,
    Row,
    difference,
    experiment,
    gap_closed,
    metric,
    paired,
    spread,
)
from s2kd.paper.published import Published
from s2kd.paper.studies import ABLATION, CONTROLS, FULL_GRID, PATIENT

NAMES = {
    "baseline": "baseline",
    "mixup": "mixup, no teacher",
    "output": "standard KD",
    "fitnet": "FitNet",
    "review": "Knowledge Review",
    "relational": "RKD",
    "sdkd": "SDKD",
    "spectral": "+ spectral",
    "semantic": "+ semantic",
    "s2kd": "S²-KD",
    "s2kd_plus": "S²-KD plus (ours)",
    "output_plus": "standard KD plus (ours)",
    "s2kd_no_text": "S²-KD, text-free teacher",
    "unet": "U-Net",
    "resnet": "ResNet",
    "mixer": "MLP-Mixer",
    "simvp": "SimVP",
    "triton": "Triton",
    "earthfarseer": "EarthFarseer",
}


# --- text ----------------------------------------------------------------------------------------


def name_of(part: str) -> str:
    """As a table calls it."""
    return NAMES.get(part, part)


def with_spread(rows: Sequence[Row], name: str, form: str = ".4f") -> str:
    """Mean ± standard deviation over seeds."""
    off = spread(rows, name)
    return number(metric(rows, name), form) + ("" if math.isnan(off) else f" ±{off:{form}}")


def percent(value: float | None, low: float | None, high: float | None, form: str = "+.1f") -> str:
    """Value [low, high]."""
    if value is None or not math.isfinite(value):
        return "–"
    bounds = "" if low is None or high is None else f" [{low:{form}}, {high:{form}}]"
    return f"{value:{form}}{bounds}"


def gain(found: Comparison | None) -> str:
    """Of the second's error (the baseline's), in percent, with its interval."""
    if found is None or found.difference is None:
        return "–"
    found = scaled(found, -100 / found.base)
    return percent(found.difference, found.low, found.high)


def scaled(found: Comparison, scale: float) -> Comparison:
    """The difference times `scale`, with its bounds."""
    low, high = (found.low, found.high) if scale > 0 else (found.high, found.low)
    value, low, high = (
        None if one is None else one * scale for one in (found.difference, low, high)
    )
    return replace(found, difference=value, low=low, high=high)


def _parameters(rows: Sequence[Row]) -> str:
    count = rows[0].get("parameters") or 0
    return "–" if not count else f"{count / 1e6:.3g}"


def _latency(models: Models, rows: Sequence[Row]) -> str:
    """Of the architecture: training changes no operation, but work beside it the clock."""
    same = [
        r
        for some in models.rows.values()
        for r in some
        if _architecture(r) == _architecture(rows[0])
    ]
    known = [row["latency_ms"] for row in same if row.get("latency_ms")]
    return number(min(known, default=None), ".1f")


def _architecture(row: Row) -> tuple[str, str, int]:
    return row["role"], row["backbone"], row.get("parameters") or 0


# --- tables 1 to 3 -------------------------------------------------------------------------------

MAIN_HEAD = (
    "model",
    "method",
    "parameters (M)",
    "latency (ms)",
    "MSE",
    "MAE",
    "SSIM",
    "gain over baseline %",
    "p (Holm)",
    "gap closed %",
    "published: gain %",
    "gap closed %",
    "seeds",
)


def main_table(models: Models, *, title: str, published: Published | None = None) -> Table:
    """Three students, every method, references and teachers; the winner bold where it is clear.

    Gains and shares have 95 % intervals over test windows (and seeds, where there are three);
    p-values are adjusted over the whole table.
    """
    lines = [_reference_line(models, name) for name in ("persistence", "climatology")]
    lines += [_teacher_line(models, name) for name in ("teacher", "teacher-no-text")]
    lines = [line for line in lines if line]
    best = {b: _winner(models, b, _in_main(models, b)) for b in models.students}
    for (backbone, method), other in main_comparisons(models).items():
        rows = models.of("student", method, backbone)
        base = models.of("student", "baseline", backbone)
        closed = gap_closed(base, rows, models.of("teacher", "teacher"))
        mse = with_spread(rows, "mse")
        line = (
            name_of(backbone),
            name_of(method),
            _parameters(rows),
            _latency(models, rows),
            f"**{mse}**" if method == best[backbone] else mse,
            number(metric(rows, "mae")),
            number(metric(rows, "ssim")),
            "" if method == "baseline" else gain(other),
            "" if other is None else p_text(other.p_holm),
            "" if method == "baseline" else share(closed),
            *_published(published, backbone, method),
            str(len(rows)),
        )
        lines.append(line)
    caption = (
        f"{models.caption}; ± over seeds. Latency: batch 1, float32, the least of the medians "
        "measured for that architecture. In brackets 95 % intervals over test windows and, from "
        "three seeds on, seeds; p-values are adjusted over the table (Holm; – where too few "
        "windows are independent). Bold: better than every other method of that student, all "
        f"intervals without zero, from {FEWEST_SEEDS} seeds on. "
    )
    if published is not None:
        caption += f"Published figures are of other data ({published.data}): compare gains."
    return Table(title=title, head=MAIN_HEAD, lines=tuple(lines), caption=caption)


def _in_main(models: Models, backbone: str) -> list[str]:
    return [m for m in models.methods(backbone) if m not in ("spectral", "semantic")]


@lru_cache(maxsize=32)  # a table and its sentences ask for the same
def main_comparisons(models: Models) -> dict[tuple[str, str], Comparison | None]:
    """Every method of every student against its baseline (None for that), p-values adjusted."""
    found = {
        (backbone, method): None
        if method == "baseline"
        else difference(
            models.of("student", method, backbone), models.of("student", "baseline", backbone)
        )
        for backbone in models.students
        for method in _in_main(models, backbone)
    }
    return dict(zip(found, adjusted(list(found.values())), strict=True))


def _winner(models: Models, backbone: str, methods: Sequence[str]) -> str | None:
    """The method that is clearly better than each other one, by the seeds that each pair shares.

    Methods with seeds too few to be drawn neither win nor stand in the way.
    """
    groups = {method: models.of("student", method, backbone) for method in methods}
    groups = {method: rows for method, rows in groups.items() if len(rows) >= FEWEST_SEEDS}
    if not groups:
        return None
    errors = {method: metric(rows, "mse") for method, rows in groups.items()}
    best, clear = winner(errors, lambda one, other: difference(groups[one], groups[other]))
    return best if clear else None


def share(found: Interval | None) -> str:
    """A share of the gap in percent, with its interval."""
    if found is None or found.value is None:
        return "no clear gap" if found is not None else "–"
    low, high = (None if b is None else 100 * b for b in (found.low, found.high))
    return percent(100 * found.value, low, high, "+.0f")


def _published(published: Published | None, backbone: str, method: str) -> tuple[str, str]:
    if published is None or method == "baseline":
        return "", ""
    return (
        number(published.gain_percent(backbone, method), "+.1f"),
        number(published.gap_closed_percent(backbone, method), "+.0f"),
    )


def _reference_line(models: Models, name: str) -> tuple[str, ...] | None:
    rows = models.of("reference", name)
    if not rows:
        return None
    errors = [number(metric(rows, m)) for m in ("mse", "mae", "ssim")]
    return (name, "", "–", "–", *errors, *[""] * 6)


def _teacher_line(models: Models, name: str) -> tuple[str, ...] | None:
    rows = models.of("teacher", name)
    if not rows:
        return None
    label = "reads words" if name == "teacher" else "text-free"
    if any(row.get("reads_future") for row in rows):
        label += " (and the future)"
    return (
        f"teacher ({name_of(rows[0]['backbone'])})",
        label,
        _parameters(rows),
        _latency(models, rows),
        with_spread(rows, "mse"),
        number(metric(rows, "mae")),
        number(metric(rows, "ssim")),
        *[""] * 5,
        str(len(rows)),
    )


# --- table 4 and figure 3 ------------------------------------------------------------------------


def ablation_table(models: Models, *, title: str, published: Published | None = None) -> Table:
    """L_pred alone, with each half of L_distill, and with both, for the first student."""
    backbone, lines = models.students[0], []
    for method, other in ablation_comparisons(models).items():
        rows = models.of("student", method, backbone)
        marks = [
            "✓" if on else ""
            for on in (method in ("spectral", "s2kd"), method in ("semantic", "s2kd"))
        ]
        lines.append(
            (
                name_of(method),
                *marks,
                with_spread(rows, "mse"),
                number(metric(rows, "mae")),
                number(metric(rows, "ssim")),
                "" if other is None else gain(other),
                "" if other is None else p_text(other.p_holm),
                _published(published, backbone, method)[0],
            )
        )
    head = (
        "method",
        "L_spectral",
        "L_semantic",
        "MSE",
        "MAE",
        "SSIM",
        "gain %",
        "p (Holm)",
        "published gain %",
    )
    return Table(title=title, head=head, lines=tuple(lines), caption=f"{models.caption}.")


@lru_cache(maxsize=32)
def ablation_comparisons(models: Models) -> dict[str, Comparison | None]:
    """The rows of the ablation against its first (None for that), p-values adjusted.

    By the seeds that all of them have.
    """
    backbone, models = models.students[0], models.shared(ABLATION)
    base = models.of("student", "baseline", backbone)
    found = {}
    for method in ABLATION:
        rows = models.of("student", method, backbone)
        if rows:
            found[method] = None if method == "baseline" else difference(rows, base)
    return dict(zip(found, adjusted(list(found.values())), strict=True))


# --- figure 4 and the controls -------------------------------------------------------------------

WORDS = {
    "alone": "no distillation",
    "hints": "FitNet (no semantic prior)",
    "text-free": "text-free teacher",
    "empty": "no words (empty text)",
    "shuffled": "another window's words",
    "random": "noise for token states",
    "rules": "the window's words (rules)",
}
SHORT = {"hints": "FitNet"}
"""Where a figure has less room."""


def narrator_table(rows: Sequence[Row], main: Models, *, title: str) -> Table:
    """Does the text help, and is it its meaning? Teacher and student, by what the teacher read.

    Each line differs from the next in one field of the recipe. Differences are against the rule
    narrator's: above 0 this line is worse.
    """
    compared, lines = words_compared(rows, main), []
    for key, (teacher, student) in readers(rows, main).items():
        if not teacher and not student:
            continue
        future = any(row.get("reads_future") for row in (*teacher, *student))
        cells = []
        for seeds, found in zip((teacher, student), compared[key], strict=True):
            cells.append(with_spread(seeds, "mse") if seeds else "–")
            cells += _against(found) if key != "rules" else ("", "")
        lines.append(
            (
                WORDS.get(key, f"recorded: {key}") + " (reads the future)" * future,
                *cells,
                ", ".join(str(len(seeds)) if seeds else "–" for seeds in (teacher, student)),
            )
        )
    head = (
        "the teacher reads",
        *("teacher MSE", "against rules %", "p (Holm)"),
        *("student MSE", "against rules %", "p (Holm)"),
        "seeds (teacher, student)",
    )
    caption = (
        f"{main.caption}. Student: {name_of(main.students[0])} by S²-KD. Below 0: better than with "
        "the rule narrator's words; 95 % intervals, p-values adjusted over the table."
    )
    return Table(title=title, head=head, lines=tuple(lines), caption=caption)


def words_compared(
    rows: Sequence[Row], main: Models
) -> dict[str, tuple[Comparison | None, Comparison | None]]:
    """Of `readers`, percent by which teacher and student err more than with the rules' words.

    Over the seeds that both have: the mean of one seed beside that of five would tell of the seed
    as much as of the method. P-values are adjusted over all of them.
    """
    own = main.of("teacher", "teacher"), main.of("student", "s2kd", main.students[0])
    there = readers(rows, main)
    found = adjusted(
        [
            None if not seeds or seeds == base or not base else difference(seeds, base)
            for pair in there.values()
            for seeds, base in zip(pair, own, strict=True)
        ]
    )
    in_percent = [one and scaled(one, 100 / one.base) for one in found]
    return dict(zip(there, zip(in_percent[::2], in_percent[1::2], strict=True), strict=True))


def _against(found: Comparison | None) -> tuple[str, str]:
    if found is None:
        return "–", "–"
    return percent(found.difference, found.low, found.high), p_text(found.p_holm)


def narrator_points(rows: Sequence[Row], main: Models) -> dict[str, Comparison]:
    """Figure 4's points: how much worse the student is than with the rule narrator's words."""
    return {
        SHORT.get(key) or WORDS.get(key, key): student
        for key, (_, student) in words_compared(rows, main).items()
        if student is not None
    }


def readers(rows: Iterable[Row], main: Models) -> dict[str, tuple[Sequence[Row], Sequence[Row]]]:
    """(teacher, student) by what the teacher read: a key of `WORDS`, or a recorded narrator.

    The first student, by S²-KD but for the first two, which learn without a prior.
    """
    rows, backbone = list(rows), main.students[0]
    found = {
        "alone": ([], main.of("student", "baseline", backbone)),
        "hints": ([], main.of("student", "fitnet", backbone)),
        "text-free": (
            main.of("teacher", "teacher-no-text"),
            main.of("student", "s2kd_no_text", backbone),
        ),
    }
    where = {"data": main.data, "preset": main.preset, "split": main.split}
    for variant in variants(rows, **where):
        one = experiment(rows, **where, variant=variant)
        found[variant] = one.of("teacher", "teacher"), one.of("student", "s2kd", backbone)
    return found


def variants(rows: Iterable[Row], **where: str) -> list[str]:
    """Controls first, then narrators; the rule narrator last but for recorded ones."""
    same_words = (PATIENT, FULL_GRID)
    there = {r["variant"] for r in chosen(rows, **where)} - set(same_words)
    order = [*CONTROLS, "rules"]
    return sorted(there, key=lambda v: (order.index(v) if v in order else len(order), v))


# --- in short ------------------------------------------------------------------------------------

CLAIMED_SHARE = 0.9
"""The share of the gap to the teacher that the paper's student closes."""


def short_table(experiments: Iterable[Models]) -> Table:
    """Gain, share of the gap, and the two claims of the paper, one line per split and method."""
    lines = []
    for models in experiments:
        backbone = models.students[0]
        base, teacher = models.of("student", "baseline", backbone), models.of("teacher", "teacher")
        for method in ("s2kd", "s2kd_plus"):
            rows = models.of("student", method, backbone)
            if not rows:
                continue
            closed = gap_closed(base, rows, teacher)
            cells = (
                gain(difference(rows, base)),
                share(closed),
                _reaches(closed, CLAIMED_SHARE),
                _is_above_zero(doubles_fitnet(models, backbone, method), difference(rows, base)),
            )
            lines.append((models.place, name_of(method), *cells, str(len(rows))))
    head = (
        "data and split", "method", "gain %", "gap closed %", "90 % reached", "twice FitNet's",
        "seeds",
    )  # fmt: skip
    caption = (
        "First student, 95 % intervals. Yes and no where the interval decides, else undecided; "
        "no clear gap: the teacher is not clearly better than the baseline."
    )
    return Table(title="In short", head=head, lines=tuple(lines), caption=caption)


def _reaches(closed: Interval | None, threshold: float) -> str:
    if closed is None or closed.low is None or closed.high is None:
        return "undecided"
    if closed.low >= threshold:
        return "yes"
    return "no" if closed.high < threshold else "undecided"


def _is_above_zero(excess: Comparison | None, change: Comparison | None) -> str:
    """Whether the excess over twice FitNet's gain is above 0, of a student that gains at all."""
    worse = change is not None and change.low is not None and change.low > 0
    if worse:
        return "no"
    if excess is None or not excess.excludes_zero:
        return "undecided"
    return "yes" if excess.low > 0 and change is not None and change.is_better else "no"


def doubles_fitnet(models: Models, backbone: str, method: str = "s2kd") -> Comparison | None:
    """Whether this method's share of the gap is more than twice FitNet's (`paired`)."""
    found = paired(*(models.of("student", m, backbone) for m in ("baseline", method, "fitnet")))
    if found is None:
        return None
    errors, block = found
    if is_too_short(errors[0].shape[1], block):
        return None
    return exceeds_share(*errors, block=block)
