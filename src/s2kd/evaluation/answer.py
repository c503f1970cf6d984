"""The answer of a search for the best small forecaster: errors in units, costs, candidates.

`answer.json` holds an `Answer`; docs/answer.md lists its fields and `json_schema` is its schema.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from msgspec import Struct

from s2kd.core.errors import S2KDError
from s2kd.core.reading import read
from s2kd.evaluation.compare import (
    Verdict,
    common_seeds,
    difference,
    gap_closed,
    label,
    method_label,
    reading_teacher,
    verdict,
)
from s2kd.evaluation.results import select, window_errors, window_runs, windows_of_moments
from s2kd.evaluation.significance import (
    BLOCKS_FOR_BOUNDS,
    FEWEST_SEEDS,
    Estimate,
    block_for,
    difference_estimate,
    mean_estimate,
    smooth_estimate,
)
from s2kd.evaluation.tables import Table, interval, number, parameters_text

REFERENCES = ("persistence", "climatology")
MARK = "▸ "
"""Before the chosen student."""
TIME_OVER = "ended early: the time was over"
"""Reason of a finished candidate that had no time for all of its epochs."""
MOST_CHANNELS = 3
"""Channels of a headline and of a leaderboard; `answer.json` and the report's curves have all."""

State = Literal["finished", "pruned", "over_budget", "failed", "interrupted", "not_tried"]


class Candidate(Struct, frozen=True, kw_only=True):
    """A student and a method of the search; `validation` is the normalised MSE."""

    student: str
    settings: dict[str, Any]
    method: str
    label: str
    parameters: int
    bytes: int
    latency_ms: float | None
    runtime: str
    validation: float | None
    seconds: float
    epochs: int
    state: State
    reason: str = ""


class Cost(Struct, frozen=True, kw_only=True):
    """Size and speed of a forecaster, and the seconds of its training."""

    latency_ms: float | None
    bytes: int
    parameters: int
    seconds: float | None
    runtime: str


class Value(Struct, frozen=True, kw_only=True):
    """A value with its 95 % interval over test windows; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Scores(Struct, frozen=True, kw_only=True):
    """Errors of a forecaster on one split, and whether the chosen student is better or worse.

    `mse` is normalised, over all leads, channels and cells; `rmse` by channel and lead in its unit.
    """

    mse: Value
    rmse: dict[str, tuple[Value, ...]]
    chosen_is: Verdict
    chosen_is_by_lead: dict[str, tuple[Verdict, ...]]


class ScoredForecaster(Struct, frozen=True, kw_only=True):
    """A line of the leaderboard; `cost` is None for persistence and climatology."""

    name: str
    label: str
    role: Literal["reference", "teacher", "student"]
    method: str
    seeds: int
    cost: Cost | None
    validation: float | None
    scores: dict[str, Scores]


class Answer(Struct, frozen=True, kw_only=True):
    """The chosen student, what it is compared with, and every candidate (docs/answer.md)."""

    format: Literal[1] = 1
    data: str
    preset: str
    units: dict[str, str]
    lead_seconds: tuple[float, ...]
    windows: dict[str, int]
    chosen: str
    baseline: str
    teacher: str
    gap_closed_percent: dict[str, Value]
    forecasters: tuple[ScoredForecaster, ...]
    candidates: tuple[Candidate, ...]
    search: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], source: str = "answer.json") -> "Answer":
        """From `to_dict`; S2KDError names the field that does not fit."""
        return read(cls, plain, source)

    @property
    def split(self) -> str:
        """The split of the headline."""
        return next(iter(self.windows))

    @property
    def student(self) -> ScoredForecaster:
        """The chosen student."""
        return next(f for f in self.forecasters if f.name == self.chosen)

    def forecaster(self, name: str) -> ScoredForecaster | None:
        """The forecaster of this name."""
        return next((f for f in self.forecasters if f.name == name), None)

    def __repr__(self) -> str:
        return f"{headline(self)}\n\n{leaderboard(self).markdown()}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `answer.json`."""
    return msgspec.json.schema(Answer)


# --- from scores ---------------------------------------------------------------------------------


def answer_of(
    scores: Mapping[str, xr.Dataset],
    *,
    chosen: str,
    baseline: str,
    costs: Mapping[str, Cost],
    candidates: Sequence[Candidate],
    search: Mapping[str, Any],
) -> Answer:
    """The answer from scores of the finalists, their teacher and the references.

    `scores` are by test split, models along `model`; the first split is that of the headline.
    `chosen` and `baseline`, which may be the same, are "backbone method"; `costs` are by these
    names, teachers by their method, and others take what the scores say. Raises S2KDError where a
    name is not in the scores, or the scores have no errors by window.
    """
    first = next(iter(scores.values()))
    groups = {split: _groups(part) for split, part in scores.items()}
    names = list(next(iter(groups.values())))
    for name in (chosen, baseline):
        if name not in names:
            raise S2KDError(f"answer: {name!r} was not scored (there are {', '.join(names)})")
    if any("window_squared_error" not in part for part in scores.values()):
        raise S2KDError("answer: the scores are of an earlier version; run `s2kd evaluate` again")
    teacher, costs = _teacher(first), {**_scored_costs(first), **costs}
    units = map(str, first["unit"].values)
    return Answer(
        data=str(first["data"].values[0]),
        preset=str(first["preset"].values[0]),
        units=dict(zip(map(str, first["channel"].values), units, strict=True)),
        lead_seconds=tuple(float(first.attrs["step_seconds"]) * int(n) for n in first["lead"]),
        windows={split: int(part.attrs["windows"]) for split, part in scores.items()},
        chosen=chosen,
        baseline=baseline,
        teacher=teacher,
        gap_closed_percent={
            split: _gap(by_name, chosen, baseline, teacher) for split, by_name in groups.items()
        },
        forecasters=_ranked(_forecaster(name, groups, chosen, costs) for name in names),
        candidates=tuple(candidates),
        search=dict(search),
    )


def _scored_costs(scores: xr.Dataset) -> dict[str, Cost]:
    """What the scores say; equal networks share the lowest latency, the rest is the clock's."""
    trained = scores.isel(model=scores["role"].values != "reference")
    names = ("role", "backbone", "method", "parameters", "latency_ms")
    frame = pd.DataFrame({name: trained[name].values for name in names})
    same = frame.groupby(["role", "backbone", "parameters"])["latency_ms"]
    frame["latency_ms"] = same.transform("min")
    return {
        _name(row.role, row.backbone, row.method): Cost(
            latency_ms=_finite(row.latency_ms),
            bytes=4 * row.parameters,
            parameters=row.parameters,
            seconds=None,
            runtime="PyTorch",
        )
        for row in frame.itertuples()
    }


def _name(role: str, backbone: str, method: str) -> str:
    return f"{backbone} {method}" if role == "student" else method


def _groups(scores: xr.Dataset) -> dict[str, xr.Dataset]:
    """The seeds of each forecaster by its name: references, teachers, students."""
    groups = {}
    for role in ("reference", "teacher", "student"):
        models = select(scores, role=role)
        pairs = zip(models["backbone"].values, models["method"].values, strict=True)
        for backbone, method in dict.fromkeys(pairs):
            groups[_name(role, str(backbone), str(method))] = select(
                models, backbone=backbone, method=method
            )
    return groups


def _teacher(scores: xr.Dataset) -> str:
    """The teacher that reads, or the best on validation; "" without any."""
    teachers = reading_teacher(scores)
    if not teachers.sizes["model"]:
        return ""
    validation = np.nan_to_num(teachers["validation"].values.astype(float), nan=np.inf)
    return str(teachers["method"].values[int(validation.argmin())])


def _ranked(forecasters: Iterable[ScoredForecaster]) -> tuple[ScoredForecaster, ...]:
    """References, teachers, students; each by their error on the first split, the best last."""
    roles = ("reference", "teacher", "student")

    def rank(forecaster: ScoredForecaster) -> tuple[int, float]:
        scores = next(iter(forecaster.scores.values()))
        return roles.index(forecaster.role), -scores.mse.value

    return tuple(sorted(forecasters, key=rank))


def _forecaster(
    name: str,
    groups: Mapping[str, Mapping[str, xr.Dataset]],
    chosen: str,
    costs: Mapping[str, Cost],
) -> ScoredForecaster:
    group = next(iter(groups.values()))[name]
    first = group.isel(model=0)
    role, backbone, method = (str(first[n].values) for n in ("role", "backbone", "method"))
    return ScoredForecaster(
        name=name,
        label=forecaster_label(backbone, method) if role == "student" else label(method),
        role=role,
        method=method,
        seeds=group.sizes["model"],
        cost=costs.get(name),
        validation=_finite(group["validation"].values.astype(float).mean()),
        scores={
            split: _scores(by_name[name], by_name[chosen]) for split, by_name in groups.items()
        },
    )


def forecaster_label(backbone: str, method: str) -> str:
    """Label of a student: `U-Net (S²-KD)`."""
    return f"{label(backbone)} ({method_label(method)})"


def _scores(group: xr.Dataset, chosen: xr.Dataset) -> Scores:
    errors, rivals = _squared_errors(group), _squared_errors(chosen)
    places = common_seeds(chosen, group)
    rmse, verdicts = {}, {}
    for number_of_channel, channel in enumerate(map(str, group["channel"].values)):
        by_lead = [errors[:, :, lead, number_of_channel] for lead in range(errors.shape[2])]
        others = [rivals[:, :, lead, number_of_channel] for lead in range(errors.shape[2])]
        rmse[channel] = tuple(_rmse(values, group) for values in by_lead)
        verdicts[channel] = tuple(
            _verdict(b[places[0]], a[places[1]], group)
            for a, b in zip(by_lead, others, strict=True)
        )
    windows = window_errors(group)
    return Scores(
        mse=_value(mean_estimate(windows, block=_block(windows, group))),
        rmse=rmse,
        chosen_is="" if np.array_equal(errors, rivals) else verdict(difference(chosen, group)),
        chosen_is_by_lead=verdicts,
    )


def _squared_errors(scores: xr.Dataset) -> Float[np.ndarray, "seed window lead channel"]:
    errors = scores["window_squared_error"].transpose("model", "window", "lead", "channel")
    return windows_of_moments(errors.values.astype(np.float64), scores)


def _block(errors: Float[np.ndarray, "seed window"], scores: xr.Dataset) -> int:
    overlap = int(scores.attrs.get("overlap", 1))
    return block_for([errors.mean(0)], overlap=overlap, runs=window_runs(scores))


def _rmse(errors: Float[np.ndarray, "seed window"], scores: xr.Dataset) -> Value:
    """Root of the mean squared error, by the delta method."""
    return _value(
        smooth_estimate(
            errors[..., None],
            lambda means: np.sqrt(np.maximum(means[..., 0], 0)),
            block=_block(errors, scores),
        )
    )


def _verdict(
    chosen: Float[np.ndarray, "seed window"],
    compared: Float[np.ndarray, "seed window"],
    scores: xr.Dataset,
) -> Verdict:
    if not len(chosen) or np.array_equal(chosen, compared):
        return ""
    block = _block(chosen - compared, scores)
    return verdict(difference_estimate(chosen, compared, block=block))


def _gap(groups: Mapping[str, xr.Dataset], chosen: str, baseline: str, teacher: str) -> Value:
    """The share that the chosen student closes; only where the gap is clear."""
    if not teacher or chosen == baseline:
        return Value(value=None)
    share = gap_closed(groups[baseline], groups[chosen], groups[teacher])
    clear = verdict(difference(groups[teacher], groups[baseline])) == "better"
    return _value(share.scaled(100.0)) if share is not None and clear else Value(value=None)


def _value(estimate: Estimate) -> Value:
    bounds = (estimate.value, estimate.low, estimate.high)
    return Value(**dict(zip(("value", "low", "high"), map(_finite, bounds), strict=True)))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


# --- words and tables ----------------------------------------------------------------------------


def headline(answer: Answer) -> str:
    """The answer in a few sentences; where it does not beat a reference, that comes first."""
    errors, gap = "; ".join(error_texts(answer)), gap_text(answer)
    lead = lead_text(answer.lead_seconds[-1])
    text = f"{summary(answer)}: RMSE at {lead}: {errors}" + (f"; {gap}" if gap else "")
    return " ".join([*(problem for problem, _ in problems(answer)), f"{text}."])


def summary(answer: Answer) -> str:
    """The chosen student, its size and speed, and those of its teacher in comparison."""
    student, teacher = answer.student, answer.forecaster(answer.teacher)
    text = f"{student.label}, {parameters_text(student.cost.parameters)} parameters"
    if student.cost.latency_ms is not None:
        text += f", {student.cost.latency_ms:.2g} ms"
    return text + ("" if teacher is None else _ratios(student.cost, teacher.cost))


def error_texts(answer: Answer) -> list[str]:
    """Per channel, the error at the last lead and those of the others."""
    channels = list(answer.units)
    texts = [_error_text(answer, channel) for channel in channels[:MOST_CHANNELS]]
    if len(channels) > MOST_CHANNELS:
        texts.append(f"{len(channels) - MOST_CHANNELS} more channels in the table")
    return texts


def gap_text(answer: Answer) -> str:
    """The share of the gap that is closed, or why there is none."""
    share = answer.gap_closed_percent[answer.split].value
    students = [f.name for f in answer.forecasters if f.role == "student"]
    if answer.chosen == answer.baseline and len(students) > 1:
        return "none of the methods that distil is better on validation"
    if _shorter_baseline(answer):
        return "no distillation was trained for fewer epochs"
    if share is not None:
        return f"{share:.0f} % of the gap between no distillation and the teacher"
    if answer.teacher and answer.chosen != answer.baseline:
        return "the teacher is not clearly better than no distillation"
    return ""


def _ratios(student: Cost, teacher: Cost) -> str:
    """`, 10 times smaller and 3.6 times faster than its teacher`."""
    words = []
    if student.bytes and teacher.bytes:
        words += _times(teacher.bytes / student.bytes, "smaller", "larger")
    if student.latency_ms and teacher.latency_ms and student.runtime == teacher.runtime:
        words += _times(teacher.latency_ms / student.latency_ms, "faster", "slower")
    return f", {' and '.join(words)} than its teacher" if words else ""


def _times(ratio: float, above: str, below: str) -> list[str]:
    times, word = (ratio, above) if ratio >= 1 else (1 / ratio, below)
    text = f"{times:.2g}" if times < 100 else f"{times:.0f}"
    return [] if text == "1" else [f"{text} times {word}"]


def _error_text(answer: Answer, channel: str) -> str:
    """`1.32 K (teacher 1.30)`; with the channel's name where there are several."""
    compared = {"no distillation": answer.baseline, "teacher": answer.teacher}
    compared |= {name: name for name in REFERENCES}
    rivals = {words: answer.forecaster(n) for words, n in compared.items() if n != answer.chosen}
    rmse = {
        words: forecaster.scores[answer.split].rmse[channel][-1].value
        for words, forecaster in {"": answer.student, **rivals}.items()
        if forecaster is not None
    }
    places = decimals(rmse.values())
    unit = f" {unit_text(answer.units[channel])}".rstrip()
    name = f"{channel} " if len(answer.units) > 1 else ""
    error = rmse.pop("")
    others = ", ".join(f"{words} {number(value, places)}" for words, value in rmse.items())
    return f"{name}{number(error, places)}{unit}" + (f" ({others})" if others else "")


def problems(answer: Answer) -> list[tuple[str, str]]:
    """What the chosen student does not beat, each with the remedy."""
    lead, rows = lead_text(answer.lead_seconds[-1]), []
    student = answer.student.scores[answer.split]
    for name in REFERENCES:
        reference = answer.forecaster(name)
        if reference is None:
            continue
        scores = reference.scores[answer.split]
        if not _beats(scores.chosen_is, student.mse, scores.mse):
            remedy = _remedy(answer, reference, scores.chosen_is)
            rows.append((f"It does not beat {name}.", remedy))
            continue
        channels = [
            channel
            for channel, verdicts in scores.chosen_is_by_lead.items()
            if not _beats(verdicts[-1], student.rmse[channel][-1], scores.rmse[channel][-1])
        ]
        if channels:
            text = f"At {lead} it does not beat {name} for {', '.join(channels)}."
            word = scores.chosen_is_by_lead[channels[0]][-1]
            rows.append((text, _remedy(answer, reference, word, channels[0])))
    return rows


def _remedy(answer: Answer, reference: ScoredForecaster, word: Verdict, channel: str = "") -> str:
    """What helps against a reference, by the verdict and by whether the teacher beats it."""
    teacher = answer.forecaster(answer.teacher)
    if word == "unclear":
        count = answer.windows[answer.split]
        return f"Over {count} test windows the difference may be chance: a longer record tells."
    if teacher is None:
        return "It has no teacher: name one with --teacher, or a capture with --capture."
    scores = [forecaster.scores[answer.split] for forecaster in (teacher, reference)]
    errors = [(s.rmse[channel][-1] if channel else s.mse).value for s in scores]
    if errors[0] < errors[1]:
        return "Its teacher does: more --time, larger --sizes, or a capture (s2kd label)."
    windows = answer.search.get("windows", {}).get("train")
    count = f" than the {windows} here" if windows else ""
    return (
        f"Nor does its teacher: it takes more training windows{count}, more --time, fewer lead "
        "times, or a teacher that has seen more (--teacher)."
    )


def _beats(word: Verdict, chosen: Value, reference: Value) -> bool:
    """By the verdict, or by the values where windows are too few for one."""
    return word == "better" if word else chosen.value < reference.value


def leaderboard(answer: Answer, split: str = "") -> Table:
    """References, teachers and students: errors at the last lead, then costs."""
    split = split or answer.split
    channels = list(answer.units)[:MOST_CHANNELS]
    lead = lead_text(answer.lead_seconds[-1])
    columns = {}
    for channel in channels:
        values = [f.scores[split].rmse[channel][-1] for f in answer.forecasters]
        form = decimals([v.value for v in values])
        columns[channel] = [interval(v.value, v.low, v.high, form) for v in values]
    lines = []
    for position, forecaster in enumerate(answer.forecasters):
        scores = forecaster.scores[split]
        cells = (
            *(columns[channel][position] for channel in channels),
            number(scores.mse.value, ".3f"),
            scores.chosen_is or "–",
            *_cost_cells(forecaster.cost),
        )
        mark = MARK if forecaster.name == answer.chosen else ""
        lines.append((mark + forecaster.label, *cells))
    names = [with_unit(channel, answer.units[channel]) for channel in channels]
    head = ("", *(f"RMSE at {lead}: {name}" for name in names), "MSE, all leads", "▸ is")
    caption = (
        f"{answer.windows[split]} windows; [ ]: 95 % interval over windows. MSE: normalised. "
        "▸: chosen; “▸ is”: better or worse than this line, by MSE. "
        f"ms: {answer.student.cost.runtime}."
    )
    return Table(
        title=f"Leaderboard, {split} split",
        head=(*head, "ms", "MB", "Train s"),
        lines=tuple(lines),
        caption=caption,
    )


def _cost_cells(cost: Cost | None) -> tuple[str, str, str]:
    if cost is None:
        return ("–", "–", "–")
    return (
        number(cost.latency_ms, ".2f"),
        number(cost.bytes / 1e6 or None, ".2f"),
        number(cost.seconds, ".0f"),
    )


def candidate_label(candidate: Candidate) -> str:
    """As in the leaderboard, with the size of the student."""
    if candidate.reason == "teacher" or not candidate.method:
        return candidate.label
    return forecaster_label(candidate.student, candidate.method)


def frontier_candidates(answer: Answer) -> tuple[Candidate, ...]:
    """Candidates, and teachers in their form, by latency."""
    teachers = [
        Candidate(
            student=f.name, settings={}, method=f.method, label=f.label, validation=f.validation,
            parameters=f.cost.parameters, bytes=f.cost.bytes, latency_ms=f.cost.latency_ms,
            runtime=f.cost.runtime, seconds=f.cost.seconds or 0.0, epochs=0, state="finished",
            reason="teacher",
        )
        for f in answer.forecasters
        if f.role == "teacher"
    ]  # fmt: skip
    rows = [*answer.candidates, *teachers]
    return tuple(sorted(rows, key=lambda c: math.inf if c.latency_ms is None else c.latency_ms))


def pareto_front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The finished candidates than which no other is both faster and better on validation."""
    rated = [c for c in candidates if c.state == "finished" and c.latency_ms is not None
             and c.validation is not None]  # fmt: skip
    best, front = math.inf, []
    for candidate in sorted(rated, key=lambda c: (c.latency_ms, c.validation)):
        if candidate.validation < best:
            best = candidate.validation
            front.append(candidate)
    return front


def scored_form(answer: Answer, candidate: Candidate) -> ScoredForecaster | None:
    """The candidate on the test split, if it was scored."""
    sizes = (f for f in answer.forecasters if f.cost and f.method == candidate.method)
    return next((f for f in sizes if f.cost.parameters == candidate.parameters), None)


def frontier(answer: Answer) -> Table:
    """Error against latency of every candidate that was trained, and of the teacher."""
    candidates, lines = frontier_candidates(answer), []
    front = pareto_front(candidates)
    untried = sorted({c.student for c in candidates if c.validation is None and c.reason})
    for candidate in candidates:
        if candidate.validation is None:
            continue
        scored = scored_form(answer, candidate)
        mark = MARK if scored is answer.student else ""
        lines.append(
            (
                mark + candidate_label(candidate),
                number(candidate.latency_ms, ".2f"),
                parameters_text(candidate.parameters),
                number(candidate.validation),
                number(scored and scored.scores[answer.split].mse.value),
                "yes" if candidate in front else "–",
                candidate.reason or candidate.state.replace("_", " "),
            )
        )
    head = ("", "ms", "Parameters", "Validation MSE", "Test MSE", "Frontier", "State")
    caption = "Frontier: no other finished line is both faster and more accurate on validation."
    if untried:
        caption += f" Not tried: {', '.join(untried)}."
    return Table(title="Error against latency", head=head, lines=tuple(lines), caption=caption)


def _shorter_baseline(answer: Answer) -> bool:
    """Whether the end of the search cut the training of the baseline short."""
    baseline = answer.forecaster(answer.baseline)
    rows = [c for c in answer.candidates if scored_form(answer, c) is baseline]
    return answer.chosen != answer.baseline and any(row.reason == TIME_OVER for row in rows)


def unverified(answer: Answer) -> tuple[str, ...]:
    """What the figures do not show."""
    student = answer.student
    months = answer.search.get("missing_months") or []
    untrained = answer.search.get("untrained_months") or []
    reasons = {
        "no distillation trained for as many epochs": _shorter_baseline(answer),
        f"other seeds (trained with {student.seeds})": student.seeds < FEWEST_SEEDS,
        f"months outside validation and test ({', '.join(map(str, months))})": bool(months),
        f"months outside training ({', '.join(map(str, untrained))})": bool(untrained),
        "other places, runs or settings than those of the data": len(answer.windows) == 1,
        f"intervals (fewer than {BLOCKS_FOR_BOUNDS} independent blocks of test windows)": (
            student.scores[answer.split].mse.low is None
        ),
        "latency on other machines": True,
    }
    return tuple(text for text, applies in reasons.items() if applies)


def unit_text(unit: str) -> str:
    """The sign of a unit; empty for numbers without one."""
    return {"1": "", "degK": "K", "degC": "°C", "celsius": "°C"}.get(unit, unit)


def with_unit(name: str, unit: str) -> str:
    """A label of an axis or column: `air (K)`."""
    return f"{name} ({unit_text(unit)})" if unit_text(unit) else name


def lead_text(seconds: float) -> str:
    """A lead time as `6 h`, `3 days` or `20 s`."""
    units = (("days", 86_400.0), ("h", 3600.0), ("min", 60.0))
    for name, size in units:
        if seconds >= size * (2 if name == "days" else 1) and seconds % size == 0:
            return f"{seconds / size:g} {name}"
    return f"{seconds:.3g} s"


def decimals(values: Iterable[float | None]) -> str:
    """The format that gives the smallest of these values three digits, whole numbers all theirs."""
    sizes = [abs(value) for value in values if value]
    digits = 2 - math.floor(math.log10(min(sizes))) if sizes else 2
    return f".{min(max(digits, 0), 6)}f"
