"""Sentences of the rules narrator: one function per domain, the most telling sentences first."""

from collections.abc import Callable

from s2kd.core.types import Domain, GridSpec
from s2kd.narration import words
from s2kd.narration.facts import Balance, Facts, Plume, Scene
from s2kd.narration.words import at, at_cell, capital, class_of, extremes, trend

LEVELS = ("very low", "low", "near its usual level", "high", "very high")
WARMTH = (
    "much colder than usual",
    "colder than usual",
    "near its usual level",
    "warmer than usual",
    "much warmer than usual",
)
DEMAND = ("very quiet", "quiet", "typical", "busy", "very busy")
TILTS = (
    "lying over to the left",
    "leaning to the left",
    "leaning slightly to the left",
    "upright",
    "leaning slightly to the right",
    "leaning to the right",
    "lying over to the right",
)
TIMES = {"night": "at night", "midday": "around midday"}
COUNTS = ("", "one wave", "two waves", "three waves", "four waves", "five waves", "six waves")


def weather(scene: Scene) -> list[str]:
    """State and change, then ridges, troughs and fronts, then movement."""
    state, shaped, moved = [], [], []
    for fact, kind, label in scene.channels:
        match kind:
            case "temperature":
                state.append(warmth(fact, label, scene.grid))
                shaped += [front(fact), shape(fact, label, "warm tongue", "cold tongue")]
                shaped.append(hot_and_cold(fact))
            case "height":
                state.append(height(fact, label, scene.grid))
                shaped.append(shape(fact, label, "ridge", "trough"))
            case "wind across":
                state.append(wind(fact, label, scene.grid, "westerly", "easterly"))
            case "wind along":
                state.append(wind(fact, label, scene.grid, "southerly", "northerly"))
            case _:
                state.append(plain(fact, label, scene.grid, "weather"))
        moved.append(movement(fact, f"{capital(label)} patterns", "weather"))
    return [*state, *shaped, *moved, *setting(scene.season, scene.part_of_day, scene.context)]


def warmth(fact: Facts, label: str, grid: GridSpec) -> str:
    """Level, trend and extremes of a temperature."""
    return (
        f"The {label} is {class_of(fact.anomaly, words.LEVEL_CUTS, WARMTH)} and "
        f"{trend(fact.trend, 'weather', up='warming', down='cooling')}{turn(fact, 'weather')}; "
        f"{changed(fact, 'weather', 'warmed', 'cooled')}; it is hottest "
        f"{at_cell(fact.maximum_at, grid, 'weather')} and coldest "
        f"{at_cell(fact.minimum_at, grid, 'weather')}."
    )


def hot_and_cold(fact: Facts) -> str:
    """Amounts of cells beyond the training 98 % and 2 % quantiles."""
    return f"There are {extremes(fact.extreme)} hot and {extremes(fact.extreme_low)} cold extremes."


def height(fact: Facts, label: str, grid: GridSpec) -> str:
    """Trend and minimum of a pressure surface."""
    return (
        f"The {label} is {trend(fact.trend, 'weather')}{turn(fact, 'weather')}; "
        f"{changed(fact, 'weather')}; it is lowest {at_cell(fact.minimum_at, grid, 'weather')}."
    )


def wind(fact: Facts, label: str, grid: GridSpec, positive: str, negative: str) -> str:
    """Direction of a wind component on average, and its extremes."""
    mean = positive if fact.mean > 0 else negative
    least = f"strongest {negative}" if fact.minimum < 0 else f"weakest {positive}"
    most = f"strongest {positive}" if fact.maximum > 0 else f"weakest {negative}"
    return (
        f"The {label} is {mean} on average, {trend(fact.trend, 'weather')}"
        f"{turn(fact, 'weather')}, {most} {at_cell(fact.maximum_at, grid, 'weather')} "
        f"and {least} {at_cell(fact.minimum_at, grid, 'weather')}."
    )


def traffic(scene: Scene) -> list[str]:
    """Demand and rush hour, hot spots and their shift, balance of arrivals and departures."""
    sentences = [demand(scene.facts[0], scene.part_of_day, scene.context)]
    for fact, _, label in scene.channels:
        sentences.append(
            f"The {label} is {trend(fact.growth, 'traffic')} with {extremes(fact.extreme)} hot "
            f"spots, the hottest {at_cell(fact.maximum_at, scene.grid, 'traffic')}; "
            f"{changed(fact, 'traffic', 'grew', 'shrank')}."
        )
    sentences.append(shift(scene.facts[0]))
    if scene.balance is not None:
        sentences.append(exchange(scene.balance))
    return [*sentences, *setting(scene.season, None, scene.context)]


def demand(fact: Facts, part_of_day: str | None, context: tuple[str, ...]) -> str:
    """Level against training, and the rush hour."""
    state = f"Traffic is {class_of(fact.ratio, words.RATIO_CUTS, DEMAND)} overall"
    if part_of_day is None:
        return f"{state}."
    rush = part_of_day in ("morning", "evening") and not {"weekend", "holiday"} & set(context)
    if rush and fact.ratio > 1:
        slight = words.TREND_CUTS["traffic"][0]
        going = class_of(fact.growth, (-slight, slight), ("ebbs", "goes on", "builds up"))
        return f"{state} as the {part_of_day} rush hour {going}."
    return f"{state} {TIMES.get(part_of_day, f'in the {part_of_day}')}."


def shift(fact: Facts) -> str:
    """Movement of the centre of activity."""
    if (fact.drift_east**2 + fact.drift_south**2) ** 0.5 < words.DRIFT_CUT:
        return "The centre of activity stays in place."
    toward = words.way(fact.drift_east, fact.drift_south, "traffic")
    return f"The centre of activity shifts {toward}."


def exchange(balance: Balance) -> str:
    """Thirds with more arrivals than departures, and the reverse."""
    clauses = []
    if balance.gain >= words.BALANCE_CUT:
        clauses.append(f"more arrive than leave {at(balance.gain_at, 'traffic')}")
    if balance.loss <= -words.BALANCE_CUT:
        clauses.append(f"more leave than arrive {at(balance.loss_at, 'traffic')}")
    return capital(", and ".join(clauses) or "inflow and outflow balance everywhere") + "."


def fire(scene: Scene) -> list[str]:
    """Height, tilt, spread and growth of the plume, and the flow that bends it."""
    sentences, grid = [] if scene.plume is None else plume_sentences(scene.plume), scene.grid
    for fact, kind, label in scene.channels:
        peak = at_cell(fact.maximum_at, grid, "fire")
        state = f"The {label} is {trend(fact.trend, 'fire')}{turn(fact, 'fire')}"
        match kind:
            case "temperature":
                change = changed(fact, "fire", "heated", "cooled")
                sentences.append(f"{state}, hottest {peak}; {change}.")
                sentences.append(movement(fact, "Hot puffs", "fire"))
            case "smoke":
                change = changed(fact, "fire", "thickened", "thinned")
                sentences.append(f"{state}, thickest {peak}; {change}.")
            case "heat":
                sentences.append(f"{state}, strongest {peak}.")
            case "wind upward":
                sentences.append(f"{state}, with the strongest updraught {peak}.")
            case "wind across":
                sentences += sideways(fact, label, scene)
            case _:
                sentences.append(plain(fact, label, grid, "fire"))
    return [*sentences, *setting(None, None, scene.context)]


def sideways(fact: Facts, label: str, scene: Scene) -> list[str]:
    """Direction of the sideways flow, and whether it bends the plume."""
    toward = "right" if fact.mean > 0 else "left"
    sentence = (
        f"The {label} goes mostly to the {toward} and is {trend(fact.trend, 'fire')}, fastest "
        f"rightward {at_cell(fact.maximum_at, scene.grid, 'fire')}"
    )
    if fact.minimum < 0:
        sentence += f" and leftward {at_cell(fact.minimum_at, scene.grid, 'fire')}"
    bends = scene.plume is not None and abs(scene.plume.tilt) >= words.TILT_CUTS[3]
    if bends and scene.plume.tilt * fact.mean > 0:
        return [f"{sentence}.", "It bends the plume."]
    return [f"{sentence}."]


def plume_sentences(plume: Plume) -> list[str]:
    """Height, spread and tilt, then growth."""
    if plume.area == 0:
        return ["No plume stands out."]
    tall = class_of(plume.top, words.TOP_CUTS, words.TOPS)
    wide = class_of(plume.spread, words.SPREAD_CUTS, ("narrow", "medium-wide", "wide", "very wide"))
    heat = ("decaying fast", "decaying", "steady", "growing", "growing fast")
    return [
        f"The plume is {tall} and {wide}, {class_of(plume.tilt, words.TILT_CUTS, TILTS)}.",
        f"The fire's heat is {class_of(plume.heat, words.HEAT_CUTS, heat)}.",
    ]


def generic(scene: Scene) -> list[str]:
    """State and change of each channel, then movement."""
    sentences = [plain(fact, label, scene.grid, "generic") for fact, _, label in scene.channels]
    sentences += [
        movement(fact, f"{capital(label)} patterns", "generic") for fact, _, label in scene.channels
    ]
    return [*sentences, *setting(scene.season, scene.part_of_day, scene.context)]


def plain(fact: Facts, label: str, grid: GridSpec, domain: Domain) -> str:
    """Level, trend, extremes and local changes of any other channel."""
    return (
        f"The {label} is {class_of(fact.anomaly, words.LEVEL_CUTS, LEVELS)} and "
        f"{trend(fact.trend, domain)}{turn(fact, domain)}, largest "
        f"{at_cell(fact.maximum_at, grid, domain)} and smallest "
        f"{at_cell(fact.minimum_at, grid, domain)}; {changed(fact, domain)}."
    )


def movement(facts: Facts, subject: str, domain: Domain) -> str:
    """Speed and direction of the changing part of a field."""
    if facts.coherence < words.COHERENT:
        return f"{subject} show no clear movement."
    pace = words.speed((facts.east**2 + facts.south**2) ** 0.5)
    if pace == "barely":
        return f"{subject} barely move."
    return f"{subject} move {pace} {words.way(facts.east, facts.south, domain)}."


def turn(facts: Facts, domain: Domain) -> str:
    """A change of the second half of the past against the trend of all of it."""
    slight = words.TREND_CUTS[domain][0]
    if facts.trend < slight < facts.recent:
        return " but rising lately"
    if facts.recent < -slight < facts.trend:
        return " but falling lately"
    return ""


def changed(facts: Facts, domain: Domain, up: str = "rose", down: str = "fell") -> str:
    """The thirds where the field rose most and fell most, if any did."""
    cut = words.LOCAL_CUT[domain]
    clauses = []
    if facts.rise > cut:
        clauses.append(f"{up} most {at(facts.rise_at, domain)}")
    if facts.fall < -cut:
        clauses.append(f"{down} most {at(facts.fall_at, domain)}")
    return f"it {' and '.join(clauses)}" if clauses else "no part changed much"


def front(facts: Facts) -> str:
    """A strong gradient, and the change that goes with it where the two are adjacent."""
    strength = class_of(facts.front, words.FRONT_CUTS, ("", "A", "A sharp"))
    if not strength:
        return "Gradients are weak everywhere."
    location, cut = at(facts.front_at, "weather"), words.LOCAL_CUT["weather"]
    if -facts.fall > max(facts.rise, cut) and adjacent(facts.fall_at, facts.front_at):
        return f"{strength} cold front {location} drives the cooling."
    if facts.rise > max(-facts.fall, cut) and adjacent(facts.rise_at, facts.front_at):
        return f"{strength} warm front {location} drives the warming."
    return f"{strength} front lies {location}."


def adjacent(a: words.Third, b: words.Third) -> bool:
    """Whether two thirds touch or are the same."""
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 1


def shape(facts: Facts, label: str, crest: str, trough: str) -> str:
    """Zonal or wavy, and the thirds of crest and trough."""
    size = max(facts.ridge, -facts.trough)
    bent = class_of(size, words.WAVY_CUTS, ("", "A", "A strong"))
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
    """Season, part of the day and context, as known at issue time."""
    sentences = [f"It is {value}." for value in (season, part_of_day) if value is not None]
    return [*sentences, f"Context: {', '.join(context)}."] if context else sentences


SENTENCES: dict[Domain, Callable[[Scene], list[str]]] = {
    "weather": weather,
    "traffic": traffic,
    "fire": fire,
    "generic": generic,
}
