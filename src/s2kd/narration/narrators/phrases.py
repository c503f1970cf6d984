"""Clauses that several domains share, each decided by the class of one or two facts."""

from s2kd.core.types import Domain, GridSpec
from s2kd.narration.narrators import words
from s2kd.narration.narrators.facts import Facts
from s2kd.narration.narrators.words import at, graded

COUNTS = ("", "one wave", "two waves", "three waves", "four waves", "five waves", "six waves")


def highest(facts: Facts, grid: GridSpec) -> words.Third:
    """The third of the maximum."""
    return words.third(facts.maximum_at, grid.height, grid.width)


def lowest(facts: Facts, grid: GridSpec) -> words.Third:
    """The third of the minimum."""
    return words.third(facts.minimum_at, grid.height, grid.width)


def movement(facts: Facts, what: str, domain: Domain) -> str:
    """How the changing part of a field moves."""
    if facts.coherence < words.COHERENT:
        return f"{what} show no clear movement."
    pace = words.speed((facts.east**2 + facts.south**2) ** 0.5)
    if pace == "barely":
        return f"{what} barely move."
    return f"{what} move {pace} {words.way(facts.east, facts.south, domain)}."


def turn(facts: Facts, domain: Domain) -> str:
    """Whether the second half of the past went against the whole of it."""
    slight = words.TREND_CUTS[domain][0]
    if facts.trend < slight < facts.recent:
        return " but rising lately"
    if facts.recent < -slight < facts.trend:
        return " but falling lately"
    return ""


def changed(facts: Facts, domain: Domain, up: str = "rose", down: str = "fell") -> str:
    """Where the field rose most and where it fell most, of the thirds that did."""
    cut = words.LOCAL_CUT[domain]
    said = []
    if facts.rise > cut:
        said.append(f"{up} most {at(facts.rise_at, domain)}")
    if facts.fall < -cut:
        said.append(f"{down} most {at(facts.fall_at, domain)}")
    return f"it {' and '.join(said)}" if said else "no part changed much"


def front(facts: Facts) -> str:
    """A strong gradient, and the change that goes with it where the two lie side by side."""
    strength = graded(facts.front, words.FRONT_CUTS, ("", "A", "A sharp"))
    if not strength:
        return "Gradients are weak everywhere."
    where, cut = at(facts.front_at, "weather"), words.LOCAL_CUT["weather"]
    if -facts.fall > max(facts.rise, cut) and near(facts.fall_at, facts.front_at):
        return f"{strength} cold front {where} drives the cooling."
    if facts.rise > max(-facts.fall, cut) and near(facts.rise_at, facts.front_at):
        return f"{strength} warm front {where} drives the warming."
    return f"{strength} front lies {where}."


def near(one: words.Third, other: words.Third) -> bool:
    """The same third or one that touches it."""
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= 1


def shape(facts: Facts, label: str, crest: str, trough: str) -> str:
    """Zonal or wavy, and where crest and trough of the waves are."""
    size = max(facts.ridge, -facts.trough)
    bent = graded(size, words.WAVY_CUTS, ("", "A", "A strong"))
    if not bent:
        return f"The {label} field is nearly zonal."
    high, low = at(facts.ridge_at, "weather"), at(facts.trough_at, "weather")
    waves = ""
    if facts.wave_share > words.WAVE_SHARE and facts.waves < len(COUNTS):
        waves = f", {COUNTS[facts.waves]} across the domain"
    if facts.ridge >= -facts.trough:
        return f"{bent} {crest} lies {high}, with a {trough} {low}{waves}."
    return f"{bent} {trough} lies {low}, with a {crest} {high}{waves}."


def setting(season: str | None, part_of_day: str | None, context: tuple[str, ...]) -> list[str]:
    """What is known at issue time besides the frames."""
    said = [f"It is {known}." for known in (season, part_of_day) if known is not None]
    return [*said, f"Context: {', '.join(context)}."] if context else said
