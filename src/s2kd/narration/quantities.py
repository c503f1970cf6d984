"""Quantities that claims are made about: their values, and the verdict of facts on each value.

A verdict is True (supported), False (contradicted), or None: the facts lie so near the border
between two values that either may be said.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from s2kd.core.types import Domain
from s2kd.narration import words
from s2kd.narration.facts import Facts, Scene
from s2kd.narration.words import Third, place_name, third_of, way

BORDER = 0.25
"""A number within this share of a limit leaves the class beyond the limit open."""
THIRDS: tuple[Third, ...] = tuple(product(range(3), repeat=2))
DIRECTIONS = tuple(
    (east, south) for south, east in product((-1.0, 0.0, 1.0), repeat=2) if east or south
)

Verdict = bool | None
Measure = Callable[[Scene, Facts], Any]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A subject of claims.

    `meaning` explains it to a model and `values` are all that can be claimed in a domain.
    `verdicts` maps every value to its verdict, True for exactly one.
    """

    meaning: str
    values: Callable[[Domain], Sequence[str]]
    verdicts: Callable[[Scene, Facts], dict[str, Verdict]]
    domains: tuple[Domain, ...] = ("weather", "traffic", "fire", "generic")
    subject: Literal["channel", "plume", "balance"] = "channel"


def ordinal(
    meaning: str,
    names: Sequence[str],
    number: Measure,
    cuts: Callable[[Domain], Sequence[float]],
    **options: Any,
) -> Quantity:
    """Classes of a number, the lowest first; one name more than cuts."""

    def verdicts(scene: Scene, facts: Facts) -> dict[str, Verdict]:
        value, limits = number(scene, facts), cuts(scene.domain)
        rank = bisect_right(limits, value)
        result: dict[str, Verdict] = {name: i == rank for i, name in enumerate(names)}
        for border, cut in enumerate(limits):
            if border in (rank - 1, rank) and abs(value - cut) <= BORDER * abs(cut):
                result[names[border if border < rank else border + 1]] = None
        return result

    return Quantity(meaning=meaning, values=lambda domain: names, verdicts=verdicts, **options)


def sized(verdict: Verdict, size: float) -> Verdict:
    """A verdict on something that counts from size 1 on."""
    if size >= 1:
        return verdict
    return None if verdict is not False and size >= 1 - BORDER else False


def absent(size: float) -> Verdict:
    """Whether something that counts from size 1 on is not there."""
    return True if size < 1 else None if size <= 1 + BORDER else False


def location(
    meaning: str, third: Measure, size: Measure = lambda scene, facts: np.inf, **options: Any
) -> Quantity:
    """One of the 3 × 3 thirds, or "nowhere" where `size` is below 1; its neighbours are open."""

    def values(domain: Domain) -> list[str]:
        return [*(place_name(each, domain) for each in THIRDS), "nowhere"]

    def verdicts(scene: Scene, facts: Facts) -> dict[str, Verdict]:
        relative, (row, column) = size(scene, facts), third(scene, facts)
        steps = {each: abs(each[0] - row) + abs(each[1] - column) for each in THIRDS}
        by_steps: dict[int, Verdict] = {0: True, 1: None}
        return {
            place_name(each, scene.domain): sized(by_steps.get(count, False), relative)
            for each, count in steps.items()
        } | {"nowhere": absent(relative)}

    return Quantity(meaning=meaning, values=values, verdicts=verdicts, **options)


def heading(meaning: str, vector: Measure, **options: Any) -> Quantity:
    """One of eight directions, or "none" where support is below 1; 45° off is open.

    `vector` gives east, south and support.
    """

    def values(domain: Domain) -> list[str]:
        return [*(way(east, south, domain) for east, south in DIRECTIONS), "none"]

    def verdicts(scene: Scene, facts: Facts) -> dict[str, Verdict]:
        east, south, support = vector(scene, facts)
        measured, result = way(east, south, scene.domain), {"none": absent(support)}
        for to_east, to_south in DIRECTIONS:
            name = way(to_east, to_south, scene.domain)
            turn = np.arctan2(to_south, to_east) - np.arctan2(south, east)
            near = None if np.cos(turn) > np.cos(np.radians(67.5)) else False
            result[name] = sized(True if name == measured else near, support)
        return result

    return Quantity(meaning=meaning, values=values, verdicts=verdicts, **options)


def change(scene: Scene, facts: Facts) -> float:
    """The trend that the cuts of a domain refer to."""
    return facts.growth if scene.domain == "traffic" else facts.trend


def level(scene: Scene, facts: Facts) -> float:
    """The mean against training: a ratio for counts, else standard deviations."""
    return facts.ratio if scene.domain == "traffic" else facts.anomaly


def movement(scene: Scene, facts: Facts) -> tuple[float, float, float]:
    """East, south and support of the movement of patterns."""
    speed = np.hypot(facts.east, facts.south)
    support = min(facts.coherence / words.COHERENT, speed / words.SPEED_CUTS[0])
    return facts.east, facts.south, support


def shift(scene: Scene, facts: Facts) -> tuple[float, float, float]:
    """East, south and support of the movement of the centre of mass."""
    size = np.hypot(facts.drift_east, facts.drift_south)
    return facts.drift_east, facts.drift_south, size / words.DRIFT_CUT


def steady(domain: Domain) -> tuple[float, float]:
    """Limits of a steady mean."""
    slight = words.TREND_CUTS[domain][0]
    return -slight, slight


TREND = ("falling", "steady", "rising")

QUANTITIES: dict[str, Quantity] = {
    "trend": ordinal("change of the mean over all frames", TREND, change, steady),
    "recent_trend": ordinal(
        "change of the mean over the last half of the frames", TREND, lambda _, f: f.recent, steady
    ),
    "level": ordinal(
        "mean of the last frame against its usual level",
        ("very low", "low", "usual", "high", "very high"),
        level,
        lambda domain: words.RATIO_CUTS if domain == "traffic" else words.LEVEL_CUTS,
    ),
    "extremes": ordinal(
        "amount of cells with unusually high values",
        words.EXTREMES,
        lambda _, f: f.extreme,
        lambda domain: words.EXTREME_CUTS,
    ),
    "maximum": location(
        "place of the largest value in the last frame", lambda s, f: third_of(f.maximum_at, s.grid)
    ),
    "minimum": location(
        "place of the smallest value in the last frame", lambda s, f: third_of(f.minimum_at, s.grid)
    ),
    "largest_rise": location(
        "place that rose most from first to last frame",
        lambda _, f: f.rise_at,
        lambda s, f: f.rise / words.LOCAL_CUT[s.domain],
    ),
    "largest_fall": location(
        "place that fell most from first to last frame",
        lambda _, f: f.fall_at,
        lambda s, f: -f.fall / words.LOCAL_CUT[s.domain],
    ),
    "movement": heading("direction in which patterns move", movement),
    "front": location(
        "place of a front",
        lambda _, f: f.front_at,
        lambda _, f: f.front / words.FRONT_CUTS[0],
        domains=("weather",),
    ),
    "ridge": location(
        "place of a ridge or warm tongue",
        lambda _, f: f.ridge_at,
        lambda _, f: f.ridge / words.WAVY_CUTS[0],
        domains=("weather",),
    ),
    "trough": location(
        "place of a trough or cold tongue",
        lambda _, f: f.trough_at,
        lambda _, f: -f.trough / words.WAVY_CUTS[0],
        domains=("weather",),
    ),
    "shift": heading("movement of the centre of activity", shift, domains=("traffic",)),
    "gain": location(
        "place where more arrive than leave",
        lambda s, _: s.balance.gain_at,
        lambda s, _: s.balance.gain / words.BALANCE_CUT,
        domains=("traffic",),
        subject="balance",
    ),
    "loss": location(
        "place where more leave than arrive",
        lambda s, _: s.balance.loss_at,
        lambda s, _: -s.balance.loss / words.BALANCE_CUT,
        domains=("traffic",),
        subject="balance",
    ),
    "plume_height": ordinal(
        "height that the plume reaches",
        words.TOPS,
        lambda s, _: s.plume.top,
        lambda domain: words.TOP_CUTS,
        domains=("fire",),
        subject="plume",
    ),
    "plume_tilt": ordinal(
        "lean of the plume",
        ("to the left", "upright", "to the right"),
        lambda s, _: s.plume.tilt,
        lambda domain: words.TILT_CUTS[2:4],
        domains=("fire",),
        subject="plume",
    ),
    "fire_heat": ordinal(
        "change of the fire's heat",
        ("decaying", "steady", "growing"),
        lambda s, _: s.plume.heat,
        lambda domain: words.HEAT_CUTS[1:3],
        domains=("fire",),
        subject="plume",
    ),
}
"""All quantities of the form, in the order in which a model is asked for them."""


def quantities_of(domain: Domain) -> dict[str, Quantity]:
    """The quantities of one domain."""
    return {name: each for name, each in QUANTITIES.items() if domain in each.domains}


def subjects(quantity: Quantity, scene: Scene) -> tuple[Facts, ...]:
    """The facts of every channel that a quantity applies to; of a plume or balance, the first."""
    if quantity.subject == "channel":
        return scene.facts
    absent_plume = scene.plume is None or scene.plume.area == 0
    missing = absent_plume if quantity.subject == "plume" else scene.balance is None
    return () if missing else scene.facts[:1]
