"""What the results of all data sets come to, question by question, in plain words.

A comparison counts where its interval excludes zero, it stands against the others of its table
(Holm), and it is of seeds enough to speak of the method; everything else is "not to be told".
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from s2kd.evaluation.results import Row
from s2kd.evaluation.significance import FEWEST_SEEDS, Comparison
from s2kd.paper import rare_tables
from s2kd.paper.experiment import Models, difference, gap_closed, together
from s2kd.paper.studies import ABLATION, CONTROLS
from s2kd.paper.tables import WORDS, ablation_comparisons, main_comparisons, name_of, words_compared
from s2kd.paper.verdicts import (
    DETAIL,
    IN_SHORT,
    MEANING,
    REACHED,
    ROLLED,
    RQ1,
    RQ2,
    RQ3,
    WITHIN,
    is_twice,
    reached,
)

MAIN = ("s2kd", "fitnet", "output", "s2kd_plus")

Found = Mapping[str, Comparison | None]


@dataclass(frozen=True)
class Tally:
    """Of how many comparisons, and where, the first was better or worse for certain."""

    better: tuple[str, ...]
    worse: tuple[str, ...]
    count: int

    @staticmethod
    def of(found: Found) -> "Tally":
        """Comparisons of errors by what they are called, of seeds enough and with an interval."""
        known = {
            name: one
            for name, one in found.items()
            if one and one.low is not None and one.seeds >= FEWEST_SEEDS
        }
        clear = {name: one.difference < 0 for name, one in known.items() if one.survives}
        return Tally(
            tuple(name for name, less in clear.items() if less),
            tuple(name for name, less in clear.items() if not less),
            len(known),
        )


def conclusions(every: Sequence[Models], rows: Sequence[Row]) -> dict[str, str]:
    """A paragraph by the heading of `verdicts` that it stands under."""
    made = {heading: make(every, rows) for heading, make in _BY_HEADING.items()}
    return {heading: f"**In plain words.** {text}" for heading, text in made.items() if text}


def counts() -> str:
    """What these paragraphs count."""
    return (
        f"Paragraphs 'in plain words' count test splits, by comparisons of {FEWEST_SEEDS} or more "
        "seeds; clear is an interval without zero that stands after the Holm correction of its "
        "table, where it has one; what has no interval is not counted."
    )


def claimed(every: Sequence[Models], rows: Sequence[Row]) -> str:
    """Whether the claim comes out: 90 % of the gap, and twice FitNet's share."""
    parts = [part for method in ("s2kd", "s2kd_plus") if (part := _claimed(every, method))]
    return (
        "The claim: the distilled U-Net closes 90 % of the gap between no distillation and the "
        f"teacher, twice what FitNet closes. {' '.join(parts)}"
        if parts
        else ""
    )


def _claimed(every: Sequence[Models], method: str) -> str:
    clear, done, within, twice, better = [], [], [], [], {}
    for models in every:
        backbone = models.students[0]
        base, ours = (models.of("student", name, backbone) for name in ("baseline", method))
        teacher = models.of("teacher", "teacher")
        if len(ours) < FEWEST_SEEDS or not teacher:
            continue
        better[_place(models)] = main_comparisons(models)[backbone, method]
        closed = gap_closed(base, ours, teacher)
        if closed is not None and closed.value is not None:
            clear.append(_place(models))
            done += [_place(models)] * (reached(closed) == REACHED)
            within += [_place(models)] * (reached(closed) == WITHIN)
        if is_twice(models, backbone, method):
            twice.append(_place(models))
    if not better:
        return ""
    tally = Tally.of(better)
    maybe = f" (within the interval {_where(within, len(clear))})" if within else ""
    return (
        f"{name_of(method)} reaches 90 % {_where(done, len(clear))} test splits with a clear "
        f"gap{maybe}, and twice FitNet's share {_where(twice, tally.count)}; it is clearly better "
        f"than no distillation {_where(tally.better, tally.count)}, clearly worse "
        f"{_where(tally.worse, tally.count)}."
    )


def helped(every: Sequence[Models], rows: Sequence[Row]) -> str:
    """RQ1 over all data: student by student, whose way beats no distillation."""
    sentences = []
    for backbone in dict.fromkeys(b for m in every for b in m.students):
        parts = {}
        for method in MAIN:
            found = {
                _place(models): main_comparisons(models).get((backbone, method)) for models in every
            }
            parts[name_of(method)] = Tally.of(found)
        sentences += _told(f"{name_of(backbone)}, against no distillation", parts)
    return " ".join(sentences)


def halves(every: Sequence[Models], rows: Sequence[Row]) -> str:
    """RQ2 over all data."""
    found: dict[str, dict[str, Comparison | None]] = {}
    for models in every:
        compared = ablation_comparisons(models)
        for method in ABLATION[1:] if set(compared) == set(ABLATION) else ():
            found.setdefault(method, {})[_place(models)] = compared[method]
    parts = {name_of(method): Tally.of(one) for method, one in found.items()}
    return " ".join(_told("Against the prediction loss alone", parts))


def words(every: Sequence[Models], rows: Sequence[Row]) -> str:
    """Whether the text helps, and its meaning, over all data: teacher, then student."""
    found: dict[str, tuple[dict, dict]] = {}
    for models in every:
        for key, pair in words_compared(rows, models).items():
            if key in ("text-free", *CONTROLS):
                for one, into in zip(pair, found.setdefault(key, ({}, {})), strict=True):
                    into[_place(models)] = one
    sentences, helps, asked = [], False, 0
    for who, at in (("teacher", 0), ("student", 1)):
        parts = {key: Tally.of(pair[at]) for key, pair in found.items()}
        asked += sum(parts[key].count for key in ("empty", "shuffled") if key in parts)
        helps |= any(parts[key].worse for key in ("empty", "shuffled") if key in parts)
        named = {WORDS[key]: tally for key, tally in parts.items()}
        sentences += _told(f"For the {who}, in place of the window's own words", named)
    if asked and not helps:
        sentences.append("That the words or their meaning help is shown nowhere.")
    return " ".join(sentences)


def rare(every: Sequence[Models], rows: Sequence[Row]) -> str:
    """RQ3 over all data: events that are hit more or less often than without distillation."""
    found: dict[str, dict[str, Comparison | None]] = {}
    for models in every:
        for (channel, event, method), one in rare_tables.hits_gained(models).items():
            if method in MAIN:
                place = f"{_place(models)}: {channel} {event}"
                found.setdefault(method, {})[place] = one
    parts = {name_of(method): Tally.of(some) for method, some in found.items()}
    start = "Hits on rare values (CSI), by channel and event, against no distillation"
    # of errors less is better, of hits more
    return " ".join(_told(start, parts, ("fewer", "more"), of="events"))


def detail(every: Sequence[Models], rows: Sequence[Row]) -> str:
    """Whether L_spectral keeps detail, over all data; of its spectra there are no intervals."""
    parts = []
    for method in ("spectral", "s2kd"):
        nearer, count = [], 0
        for models in every:
            base, ours = together(
                *(models.of("student", name, models.students[0]) for name in ("baseline", method))
            )
            if len(ours) < FEWEST_SEEDS:
                continue
            before, after = (
                rare_tables.by_lead(some, "log_spectral_distance", -1) for some in (base, ours)
            )
            if math.isfinite(before) and math.isfinite(after):
                count += 1
                nearer += [_place(models)] * (after < before)
        if count:
            parts.append(f"{name_of(method)} {_where(nearer, count)}")
    if not parts:
        return ""
    return (
        "The spectrum at the last lead is nearer to the truth's than the plain student's (by the "
        f"means, which have no intervals) for {'; for '.join(parts)}."
    )


def long_runs(every: Sequence[Models], rows: Sequence[Row]) -> str:
    """Roll-outs over all data: blown up or not, against climatology and the plain student."""
    versus: dict[tuple[str, str], dict[str, Comparison | None]] = {}
    blown, count = [], 0
    for models in every:
        usual = models.of("reference", "climatology")
        base = models.of("student", "baseline", models.students[0])
        for name, some in models.forecasters.items():
            long = rare_tables.rolled(some)
            if name not in ("baseline", *MAIN) or not long:
                continue
            count += len(long)
            blown += [f"{name_of(name)}, {_place(models)}" for one in long if not one["stable"]]
            others = {"the climatology": usual} | (
                {"no distillation": base} if some != base else {}
            )
            for other, against in others.items():
                found = difference(some, against, long=True)
                versus.setdefault((name, other), {})[_place(models)] = found
    if not count:
        return ""
    sentences = [
        f"Of {count} roll-outs of students to four times their lead, "
        + (f"{len(blown)} blew up ({_listed(blown)})." if blown else "none blew up.")
    ]
    for other in ("the climatology", "no distillation"):
        parts = {
            name_of(name): Tally.of(found)
            for (name, against), found in versus.items()
            if against == other
        }
        sentences += _told(f"There, against {other}", parts)
    return " ".join(sentences)


_BY_HEADING: dict[str, Callable[[Sequence[Models], Sequence[Row]], str]] = {
    IN_SHORT: claimed,
    RQ1: helped,
    RQ2: halves,
    MEANING: words,
    RQ3: rare,
    DETAIL: detail,
    ROLLED: long_runs,
}


def _told(
    start: str,
    tallies: Mapping[str, Tally],
    words: tuple[str, str] = ("better", "worse"),
    *,
    of: str = "test splits",
) -> list[str]:
    """A sentence on all of these, the ones without any clear difference together; [] of nothing."""
    parts: list[str] = []
    unclear: dict[int, list[str]] = {}
    for name, tally in tallies.items():
        if tally.better or tally.worse:
            sides = zip(words, (tally.better, tally.worse), strict=True)
            said = [f"{word} {_where(places, tally.count)}" for word, places in sides if places]
            parts.append(f"{name} {', '.join(said)}")
        elif tally.count:
            unclear.setdefault(tally.count, []).append(name)
    parts += [
        f"no clear difference on any of {count} {of} for {', '.join(names)}"
        for count, names in unclear.items()
    ]
    return [f"{start}: {'; '.join(parts)}."] if parts else []


def _place(models: Models) -> str:
    """The data, and in words what is unlike in a preset or split beyond the usual one."""
    preset = "" if models.preset == "small" else f"({models.preset})"
    return " ".join(filter(None, (models.data, preset, models.beyond)))


def _where(places: Iterable[str], count: int) -> str:
    """`on 2 of 6 (air, fire)`, `on none of 6`, `on all 6`."""
    places = list(places)
    if not places:
        return f"on none of {count}"
    if len(places) == count:
        return f"on all {count}"
    return f"on {len(places)} of {count} ({_listed(places)})"


def _listed(places: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(places))
