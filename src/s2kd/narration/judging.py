"""Whether one window's facts support a claim: one function a kind of claim.

Each gives True, False, or None where the fact lies so near the border between two classes that
either may be said. The borders are those of the rules narrator (`narrators.words`), so a
narrative made from these facts is always supported.
"""

from collections.abc import Callable

import numpy as np

from s2kd.narration import words
from s2kd.narration.claims import CENTRE, FIRE, PLUME, Claim
from s2kd.narration.evidence import Evidence, cells_in, thirds_in
from s2kd.narration.facts import Facts
from s2kd.narration.lexicon import Box
from s2kd.narration.sentences import adjacent as near

Verdict = bool | None
MARGIN = 1 / 12
"""A place is right when the cell lies in it or this share of the domain beside it."""
CLOSE = 0.1
"""A place is right too when its largest value is so near the maximum, in standard deviations."""


def judge(claim: Claim, of: Evidence) -> Verdict:
    """What the facts of a window say of a claim; channels it may mean must all agree."""
    if claim.guess:
        return None
    about = [claim.about] if isinstance(claim.about, str) else list(claim.about)
    said = {_one(claim, of, subject) for subject in about}
    verdict = said.pop() if len(said) == 1 else None
    return (not verdict) if claim.denied and verdict is not None else verdict


def _one(claim: Claim, of: Evidence, subject: int | str) -> Verdict:
    if isinstance(subject, str):
        return _other(claim, of, subject)
    return VERDICTS[claim.kind](claim, of, subject)


def _other(claim: Claim, of: Evidence, subject: str) -> Verdict:
    """A claim about a fire's heat, its plume or the centre of activity."""
    if subject == FIRE and of.plume is not None and claim.kind in ("trend", "degree"):
        cuts = words.HEAT_CUTS[2], words.HEAT_CUTS[2], words.HEAT_CUTS[3]
        return change_is(claim, of.plume.heat, cuts)
    if subject == PLUME and of.plume is not None and claim.kind in PLUME_VERDICTS:
        return PLUME_VERDICTS[claim.kind](claim, of)
    if subject == CENTRE and claim.kind in ("motion", "still"):
        return shift(claim, of)
    return None


def above(value: float, cut: float) -> Verdict:
    """Beyond a positive cut, nearly so, or not."""
    return True if value >= 0.9 * cut else False if value < 0.6 * cut else None


def below(value: float, cut: float) -> Verdict:
    """Short of a positive cut, nearly so, or not."""
    return True if value <= 1.1 * cut else False if value > 1.5 * cut else None


def all_of(*verdicts: Verdict) -> Verdict:
    """Every one holds; one that does not settles it."""
    if False in verdicts:
        return False
    return None if None in verdicts else True


# --- change in time ------------------------------------------------------------------------------


def trend(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether the mean of the domain rose, fell or stayed; or how fast it did (`degree`)."""
    domain, fact = of.past.domain, of.facts[channel]
    change = fact.growth if domain == "traffic" else fact.trend
    return change_is(claim, change, words.TREND_CUTS[domain])


def change_is(claim: Claim, change: float, cuts: tuple[float, float, float]) -> Verdict:
    """A change against the borders of steady, slight and sharp."""
    if claim.kind == "degree":
        sign, how = claim.value
        if sign * change < 0.6 * cuts[0]:
            return None  # it did not go that way at all, which is already held against it
        return above(abs(change), cuts[2]) if how == "sharp" else below(abs(change), cuts[1])
    if claim.value == 0:
        return below(abs(change), cuts[0])
    return above(claim.value * change, cuts[0])


def recent(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether the last frame's mean is above or below the middle one's."""
    slight = words.TREND_CUTS[of.past.domain][0]
    return above(claim.value * of.facts[channel].recent, slight)


def local_trend(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether a part of the domain rose or fell: the strongest of its thirds counts."""
    cut = words.LOCAL_CUT[of.past.domain]
    changes = _known(of.change[channel], claim.where)
    if not len(changes):
        return None
    if claim.value == 0:
        return below(float(np.abs(changes).max()), cut)
    return above(float((claim.value * changes).max()), cut)


def most(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether a part is where the field rose, fell or (0) changed most."""
    cut, changes = words.LOCAL_CUT[of.past.domain], of.change[channel]
    signed = np.abs(changes) if claim.value == 0 else claim.value * changes
    largest, here = np.nanmax(signed), _known(signed, claim.where)
    if largest < 0.6 * cut:
        return False
    return bool(len(here)) and bool(here.max() >= 0.9 * largest)


def unchanged(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether no third changed much."""
    return below(float(np.nanmax(np.abs(of.change[channel]))), words.LOCAL_CUT[of.past.domain])


def _known(thirds: np.ndarray, where: Box) -> np.ndarray:
    """The values of the thirds of a part that have cells."""
    values = thirds[thirds_in(where)]
    return values[np.isfinite(values)]


# --- state ---------------------------------------------------------------------------------------


def extreme(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether the maximum (or minimum) of the last frame lies in a part of the domain."""
    fact, field = of.facts[channel], of.last[channel]
    inside = cells_in(claim.where, *field.shape, margin=MARGIN)
    highest = claim.kind == "maximum"
    if inside[fact.maximum_at if highest else fact.minimum_at]:
        return True
    signed = field if highest else -field
    here = signed[inside & np.isfinite(field)]
    return bool(len(here)) and bool(here.max() >= np.nanmax(signed) - CLOSE)


def level(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether the mean is as far from its usual level as is said: -2 far below to 2 far above."""
    counts, fact = of.past.domain == "traffic", of.facts[channel]
    cuts = words.RATIO_CUTS if counts else words.LEVEL_CUTS
    value = fact.ratio if counts else fact.anomaly
    bounds = (-np.inf, *cuts, np.inf)
    low = {-2: 0, -1: 0, 0: 2, 1: 3, 2: 4}[claim.value]
    high = {-2: 1, -1: 2, 0: 3, 1: 5, 2: 5}[claim.value]
    slack = 0.05 * (cuts[3] - cuts[0])
    if bounds[low] - slack <= value <= bounds[high] + slack:
        return True
    return None if bounds[low] - 3 * slack <= value <= bounds[high] + 3 * slack else False


def local_level(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether a part is above or below the mean of the domain."""
    levels = _known(of.level[channel], claim.where)
    if not len(levels):
        return None
    return above(float((claim.value * levels).max()), 0.1)


def extremes(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """How many cells are beyond the training 98 % (or 2 %) quantile."""
    number, hot = claim.value
    share = of.facts[channel].extreme if hot else of.facts[channel].extreme_low
    low = 0.0 if number == 0 else words.EXTREME_CUTS[number - 1]
    high = words.EXTREME_CUTS[number] if number < 4 else 1.0
    if 0.9 * low <= share <= 1.1 * high:
        return True
    return None if 0.5 * low <= share <= 2 * high else False


def sign(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Where a wind blows on average."""
    return claim.value * of.facts[channel].mean > 0


def front(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether there is a strong gradient; or (`sharp`) a very strong one."""
    cuts, size = words.FRONT_CUTS, of.facts[channel].front
    return above(size, cuts[1] if claim.value == "sharp" else cuts[0])


def flat(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether gradients are weak everywhere."""
    return below(of.facts[channel].front, words.FRONT_CUTS[0])


def front_place(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether the steepest third lies in a part of the domain."""
    return bool(thirds_in(claim.where)[of.facts[channel].front_at])


def front_kind(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether the change beside the front is a warming (1) or a cooling (-1)."""
    fact, cut = of.facts[channel], words.LOCAL_CUT["weather"]
    warm, cold = fact.rise, -fact.fall
    if claim.value < 0:
        return _change_at_front(fact, cold, warm, cut, fact.fall_at)
    return _change_at_front(fact, warm, cold, cut, fact.rise_at)


def _change_at_front(
    fact: Facts, said: float, other: float, cut: float, at: words.Third
) -> Verdict:
    if said > max(other, cut) and near(at, fact.front_at):
        return True
    return False if said < 0.6 * cut or said < 0.6 * other else None


def crest(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether a ridge (1) or trough (-1) lies in a part of the domain."""
    fact = of.facts[channel]
    at, size = (fact.ridge_at, fact.ridge) if claim.value > 0 else (fact.trough_at, -fact.trough)
    return bool(thirds_in(claim.where)[at]) and size > 0


def crest_strength(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether it departs far from the mean of its rows."""
    fact = of.facts[channel]
    return above(fact.ridge if claim.value > 0 else -fact.trough, words.WAVY_CUTS[1])


def zonal(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether rows are nearly even."""
    fact = of.facts[channel]
    return below(max(fact.ridge, -fact.trough), words.WAVY_CUTS[0])


def waves(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """How many waves go round; unverifiable where no one wavenumber stands out."""
    fact = of.facts[channel]
    return claim.value == fact.waves if fact.wave_share > words.WAVE_SHARE else None


# --- movement ------------------------------------------------------------------------------------


def motion(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether what changes moves that way, give or take 45°.

    Where changes do not correlate, nothing was seen to move: with half the coherence that the
    rules ask for, the claim is neither held nor refuted.
    """
    fact = of.facts[channel]
    if fact.coherence < words.COHERENT:
        return None if fact.coherence >= words.COHERENT / 2 else False
    if np.hypot(fact.east, fact.south) < words.SPEED_CUTS[0]:
        return False
    return _towards(claim.value, fact.east, fact.south)


def _towards(way: tuple[int, int], east: float, south: float) -> bool:
    """Whether two directions are at most 45° apart."""
    cosine = (way[0] * east + way[1] * south) / (np.hypot(*way) * max(np.hypot(east, south), 1e-9))
    return bool(cosine >= np.sqrt(0.5) - 1e-6)


def still(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Whether nothing was seen to move."""
    fact = of.facts[channel]
    incoherent = below(max(fact.coherence, 0.0), words.COHERENT)
    slow = below(float(np.hypot(fact.east, fact.south)), words.SPEED_CUTS[0])
    return True if True in (incoherent, slow) else None if None in (incoherent, slow) else False


def speed(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """How fast, in cells a frame; unverifiable where nothing was seen to move."""
    fact, cuts = of.facts[channel], words.SPEED_CUTS
    if fact.coherence < words.COHERENT:
        return None
    low, high = {"slowly": cuts[:2], "steadily": cuts[1:], "fast": (cuts[2], np.inf)}[claim.value]
    pace = float(np.hypot(fact.east, fact.south))
    return all_of(above(pace, low), below(pace, high))


def shift(claim: Claim, of: Evidence) -> Verdict:
    """Whether the centre of mass went that way, or stayed."""
    fact = of.facts[0]
    size = float(np.hypot(fact.drift_east, fact.drift_south))
    if claim.kind == "still":
        return below(size, words.DRIFT_CUT)
    moved = above(size, words.DRIFT_CUT)
    return moved if not moved else _towards(claim.value, fact.drift_east, fact.drift_south)


# --- a domain's own ------------------------------------------------------------------------------


def lean(claim: Claim, of: Evidence) -> Verdict:
    """Which way a plume leans: 1 right, -1 left, 0 upright."""
    cut = words.TILT_CUTS[3]
    return (
        below(abs(of.plume.tilt), cut)
        if claim.value == 0
        else above(claim.value * of.plume.tilt, cut)
    )


def tall(claim: Claim, of: Evidence) -> Verdict:
    """How high a plume reaches."""
    low, half, tall, full = 0.0, *words.TOP_CUTS
    span = {
        "low": (low, half),
        "short": (low, half),
        "half-high": (half, tall),
        "tall": (tall, 1.0),
        "full-height": (full, 1.0),
    }[claim.value]
    return _spans(of.plume.top, span, of)


def wide(claim: Claim, of: Evidence) -> Verdict:
    """How much of the width a plume covers."""
    narrow, medium, wide = words.SPREAD_CUTS
    span = {
        "narrow": (0.0, narrow),
        "medium-wide": (narrow, medium),
        "wide": (medium, 1.0),
        "very wide": (wide, 1.0),
    }[claim.value]
    return _spans(of.plume.spread, span, of)


def _spans(value: float, span: tuple[float, float], of: Evidence) -> Verdict:
    if of.plume.area == 0:
        return False
    if span[0] - 0.02 <= value <= span[1] + 0.02:
        return True
    return None if span[0] - 0.08 <= value <= span[1] + 0.08 else False


def low_or_high(claim: Claim, of: Evidence) -> Verdict:
    """A plume said to be low or high."""
    cut = words.TOP_CUTS[0]
    return of.plume.top <= cut + 0.02 if claim.value < 0 else of.plume.top >= cut - 0.02


def no_plume(claim: Claim, of: Evidence) -> Verdict:
    """Whether no cell is hot."""
    return of.plume.area == 0


PLUME_VERDICTS: dict[str, Callable[[Claim, Evidence], Verdict]] = {
    "lean": lean,
    "tall": tall,
    "wide": wide,
    "level": low_or_high,
    "none": no_plume,
}


def balance(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """Where more arrive than leave (`gain`), or the reverse."""
    found = of.balance
    if found is None:
        return None
    if claim.kind == "balanced":
        return below(max(found.gain, -found.loss), words.BALANCE_CUT)
    gains = claim.kind == "gain"
    size, at = (found.gain, found.gain_at) if gains else (-found.loss, found.loss_at)
    return all_of(above(size, words.BALANCE_CUT), bool(thirds_in(claim.where)[at]))


def known_setting(claim: Claim, of: Evidence, channel: int) -> Verdict:
    """The season or part of the day that the narrator was told; unverifiable where it was not."""
    told = of.past.season if claim.kind == "season" else of.past.part_of_day
    return None if told is None else claim.value == told


VERDICTS: dict[str, Callable[[Claim, Evidence, int], Verdict]] = {
    "trend": trend,
    "degree": trend,
    "recent": recent,
    "local trend": local_trend,
    "most": most,
    "unchanged": unchanged,
    "maximum": extreme,
    "minimum": extreme,
    "level": level,
    "local": local_level,
    "extremes": extremes,
    "sign": sign,
    "front": front,
    "front place": front_place,
    "front kind": front_kind,
    "flat": flat,
    "crest": crest,
    "crest strength": crest_strength,
    "zonal": zonal,
    "waves": waves,
    "motion": motion,
    "still": still,
    "speed": speed,
    "gain": balance,
    "loss": balance,
    "balanced": balance,
    "season": known_setting,
    "hour": known_setting,
}
"""What each kind of claim is checked against."""
