"""Narratives from facts: one function a domain, the most telling sentences first."""

from collections.abc import Callable
from dataclasses import dataclass

from s2kd.core.types import Domain, GridSpec
from s2kd.narration.narrators import words
from s2kd.narration.narrators.facts import Facts
from s2kd.narration.narrators.kinds import Kind
from s2kd.narration.narrators.phrases import (
    changed,
    front,
    highest,
    lowest,
    movement,
    setting,
    shape,
    turn,
)
from s2kd.narration.narrators.structures import Balance, Plume
from s2kd.narration.narrators.words import at, capital, extremes, graded, trend

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


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All that a narrative is made from: the facts of the channels to tell, and their setting."""

    facts: tuple[Facts, ...]
    kinds: tuple[Kind, ...]
    labels: tuple[str, ...]
    grid: GridSpec
    domain: Domain
    season: str | None = None
    part_of_day: str | None = None
    context: tuple[str, ...] = ()
    plume: Plume | None = None
    balance: Balance | None = None

    @property
    def channels(self) -> list[tuple[Facts, Kind, str]]:
        """Facts, kind and label of each channel to tell."""
        return list(zip(self.facts, self.kinds, self.labels, strict=True))


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
    known = setting(scene.season, scene.part_of_day, scene.context)
    return [*state, *shaped, *moved, *known]


def warmth(fact: Facts, label: str, grid: GridSpec) -> str:
    """How warm, whether warming, and where."""
    return (
        f"The {label} is {graded(fact.anomaly, words.LEVEL_CUTS, WARMTH)} and "
        f"{trend(fact.trend, 'weather', up='warming', down='cooling')}{turn(fact, 'weather')}; "
        f"{changed(fact, 'weather', 'warmed', 'cooled')}; it is hottest "
        f"{at(highest(fact, grid), 'weather')} and coldest {at(lowest(fact, grid), 'weather')}."
    )


def hot_and_cold(fact: Facts) -> str:
    """How many cells are beyond the training 98 % and 2 % quantiles."""
    return f"There are {extremes(fact.extreme)} hot and {extremes(fact.extreme_low)} cold extremes."


def height(fact: Facts, label: str, grid: GridSpec) -> str:
    """Whether pressure surfaces rise, and where they are lowest."""
    return (
        f"The {label} is {trend(fact.trend, 'weather')}{turn(fact, 'weather')}; "
        f"{changed(fact, 'weather')}; it is lowest {at(lowest(fact, grid), 'weather')}."
    )


def wind(fact: Facts, label: str, grid: GridSpec, positive: str, negative: str) -> str:
    """Where the wind comes from, on average and at its extremes."""
    mean = positive if fact.mean > 0 else negative
    least = f"strongest {negative}" if fact.minimum < 0 else f"weakest {positive}"
    most = f"strongest {positive}" if fact.maximum > 0 else f"weakest {negative}"
    return (
        f"The {label} is {mean} on average, {trend(fact.trend, 'weather')}"
        f"{turn(fact, 'weather')}, {most} {at(highest(fact, grid), 'weather')} and {least} "
        f"{at(lowest(fact, grid), 'weather')}."
    )


def traffic(scene: Scene) -> list[str]:
    """How busy and which rush hour, hot spots and their shift, where arrivals exceed departures."""
    said = [demand(scene.facts[0], scene.part_of_day, scene.context)]
    for fact, _, label in scene.channels:
        said.append(
            f"The {label} is {trend(fact.growth, 'traffic')} with {extremes(fact.extreme)} hot "
            f"spots, the hottest {at(highest(fact, scene.grid), 'traffic')}; "
            f"{changed(fact, 'traffic', 'grew', 'shrank')}."
        )
    said.append(shift(scene.facts[0]))
    if scene.balance is not None:
        said.append(exchange(scene.balance))
    return [*said, *setting(scene.season, None, scene.context)]


def demand(fact: Facts, part_of_day: str | None, context: tuple[str, ...]) -> str:
    """The level against training, and the rush hour that it belongs to."""
    state = f"Traffic is {graded(fact.ratio, words.RATIO_CUTS, DEMAND)} overall"
    if part_of_day is None:
        return f"{state}."
    rush = part_of_day in ("morning", "evening") and not {"weekend", "holiday"} & set(context)
    if rush and fact.ratio > 1:
        slight = words.TREND_CUTS["traffic"][0]
        going = graded(fact.growth, (-slight, slight), ("ebbs", "goes on", "builds up"))
        return f"{state} as the {part_of_day} rush hour {going}."
    return f"{state} {TIMES.get(part_of_day, f'in the {part_of_day}')}."


def shift(fact: Facts) -> str:
    """Where the centre of activity went."""
    if (fact.drift_east**2 + fact.drift_south**2) ** 0.5 < words.DRIFT_CUT:
        return "The centre of activity stays in place."
    toward = words.way(fact.drift_east, fact.drift_south, "traffic")
    return f"The centre of activity shifts {toward}."


def exchange(balance: Balance) -> str:
    """Where more arrive than leave, and the reverse."""
    said = []
    if balance.gain >= words.BALANCE_CUT:
        said.append(f"more arrive than leave {at(balance.gain_at, 'traffic')}")
    if balance.loss <= -words.BALANCE_CUT:
        said.append(f"more leave than arrive {at(balance.loss_at, 'traffic')}")
    return capital(", and ".join(said) or "inflow and outflow balance everywhere") + "."


def fire(scene: Scene) -> list[str]:
    """The plume's height, tilt and spread, whether it grows, and the flow that bends it."""
    said, grid = [] if scene.plume is None else plume(scene.plume), scene.grid
    for fact, kind, label in scene.channels:
        peak = at(highest(fact, grid), "fire")
        state = f"The {label} is {trend(fact.trend, 'fire')}{turn(fact, 'fire')}"
        match kind:
            case "temperature":
                change = changed(fact, "fire", "heated", "cooled")
                said.append(f"{state}, hottest {peak}; {change}.")
                said.append(movement(fact, "Hot puffs", "fire"))
            case "smoke":
                change = changed(fact, "fire", "thickened", "thinned")
                said.append(f"{state}, thickest {peak}; {change}.")
            case "heat":
                said.append(f"{state}, strongest {peak}.")
            case "wind upward":
                said.append(f"{state}, with the strongest updraught {peak}.")
            case "wind across":
                said += sideways(fact, label, scene)
            case _:
                said.append(plain(fact, label, grid, "fire"))
    return [*said, *setting(None, None, scene.context)]


def sideways(fact: Facts, label: str, scene: Scene) -> list[str]:
    """Where the flow goes, and whether it is what bends the plume."""
    toward = "right" if fact.mean > 0 else "left"
    said = (
        f"The {label} goes mostly to the {toward} and is {trend(fact.trend, 'fire')}, fastest "
        f"rightward {at(highest(fact, scene.grid), 'fire')}"
    )
    if fact.minimum < 0:
        said += f" and leftward {at(lowest(fact, scene.grid), 'fire')}"
    bends = scene.plume is not None and abs(scene.plume.tilt) >= words.TILT_CUTS[3]
    if bends and scene.plume.tilt * fact.mean > 0:
        return [f"{said}.", "It bends the plume."]
    return [f"{said}."]


def plume(of: Plume) -> list[str]:
    """Height, spread and tilt, then growth."""
    if of.area == 0:
        return ["No plume stands out."]
    tall = graded(of.top, words.TOP_CUTS, ("low", "half-high", "tall", "full-height"))
    wide = graded(of.spread, words.SPREAD_CUTS, ("narrow", "medium-wide", "wide", "very wide"))
    heat = ("decaying fast", "decaying", "steady", "growing", "growing fast")
    return [
        f"The plume is {tall} and {wide}, {graded(of.tilt, words.TILT_CUTS, TILTS)}.",
        f"The fire's heat is {graded(of.heat, words.HEAT_CUTS, heat)}.",
    ]


def generic(scene: Scene) -> list[str]:
    """State and change of each channel, then movement."""
    said = [plain(fact, label, scene.grid, "generic") for fact, _, label in scene.channels]
    said += [
        movement(fact, f"{capital(label)} patterns", "generic") for fact, _, label in scene.channels
    ]
    return [*said, *setting(scene.season, scene.part_of_day, scene.context)]


def plain(fact: Facts, label: str, grid: GridSpec, domain: Domain) -> str:
    """Level, trend, where it is largest and smallest, where it changed."""
    return (
        f"The {label} is {graded(fact.anomaly, words.LEVEL_CUTS, LEVELS)} and "
        f"{trend(fact.trend, domain)}{turn(fact, domain)}, largest "
        f"{at(highest(fact, grid), domain)} and smallest {at(lowest(fact, grid), domain)}; "
        f"{changed(fact, domain)}."
    )


TELL: dict[Domain, Callable[[Scene], list[str]]] = {
    "weather": weather,
    "traffic": traffic,
    "fire": fire,
    "generic": generic,
}
