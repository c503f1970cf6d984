"""The vocabulary of narratives: kinds and labels of channels, places, ways, and class limits.

Every word of the rules narrator is a class of one measured number, and the cuts here define it.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from s2kd.core.types import Domain, GridSpec

Kind = Literal[
    "temperature",
    "height",
    "humidity",
    "wind across",
    "wind along",
    "wind upward",
    "arrivals",
    "departures",
    "smoke",
    "heat",
    "other",
]

NOUNS: dict[Kind, str] = {
    "temperature": "temperature",
    "height": "pressure-surface height",
    "humidity": "humidity",
    "wind across": "west wind",
    "wind along": "south wind",
    "arrivals": "inflow",
    "departures": "outflow",
    "smoke": "smoke",
    "heat": "heat release",
}
FIRE_NOUNS: dict[Kind, str] = {
    **NOUNS,
    "temperature": "gas temperature",
    "wind across": "sideways flow",
    "wind upward": "upward flow",
}

PATTERNS: dict[Domain, tuple[tuple[Kind, str], ...]] = {
    "weather": (
        ("wind across", r"^u\d*$|u_component|^ugrd|^uwnd|zonal_wind|eastward_wind"),
        ("wind along", r"^v\d*$|v_component|^vgrd|^vwnd|meridional_wind|northward_wind"),
        ("height", r"geopotential|height|^z\d*$|^zg\d*$|^hgt|^phi"),
        ("humidity", r"humidity|^q\d*$|^r\d*$|^rh\d*$"),
        ("temperature", r"temp|^t\d*m?$|^air|^ta\d*$|^tas|^theta|^t2m|^2m_t"),
    ),
    "traffic": (
        ("arrivals", r"^in$|inflow|arriv|drop"),
        ("departures", r"^out$|outflow|depart|pick"),
    ),
    "fire": (
        ("heat", r"hrr|heat"),
        ("smoke", r"soot|smoke|extinction|visib|density"),
        ("wind upward", r"^w$|^w[-_ ]|vertical"),
        ("wind across", r"^u$|^u[-_ ]|horizontal"),
        ("temperature", r"temp|^t$"),
    ),
    "generic": (),
}
TEMPERATURE_UNITS = ("k", "degk", "kelvin", "degc", "°c", "celsius")
"""Units that make a channel a temperature, whatever its name."""


def kind_of(channel: str, unit: str, domain: Domain) -> Kind:
    """The kind of quantity, from name and unit of a channel; `other` where neither says."""
    name = channel.lower().strip()
    for kind, pattern in PATTERNS[domain]:
        if re.search(pattern, name):
            return kind
    if domain in ("weather", "fire") and unit.lower().strip() in TEMPERATURE_UNITS:
        return "temperature"
    return "other"


def kinds_of(grid: GridSpec, domain: Domain) -> tuple[Kind, ...]:
    """The kind of every channel."""
    return tuple(kind_of(c, u, domain) for c, u in zip(grid.channels, grid.units, strict=True))


def labels_of(grid: GridSpec, domain: Domain) -> tuple[str, ...]:
    """The label of every channel: the noun of its kind, with its name where two share a kind."""
    kinds = kinds_of(grid, domain)
    nouns = FIRE_NOUNS if domain == "fire" else NOUNS
    labels = []
    for channel, kind in zip(grid.channels, kinds, strict=True):
        name = re.sub(r"[_\s]+", " ", channel).strip()
        noun = nouns.get(kind, name)
        shared = kinds.count(kind) > 1 and kind in nouns
        labels.append(f"{noun} ({name})" if shared else noun)
    return tuple(labels)


Third = tuple[int, int]
"""Which third of the rows (0 = top or north) and of the columns (0 = left or west), 0..2 each."""

COMPASS = (
    ("north-west", "north", "north-east"),
    ("west", "centre", "east"),
    ("south-west", "south", "south-east"),
)
SCREEN = (
    ("upper left", "top", "upper right"),
    ("left", "centre", "right"),
    ("lower left", "bottom", "lower right"),
)
COMPASS_WAYS = (
    ("north-westward", "northward", "north-eastward"),
    ("westward", "", "eastward"),
    ("south-westward", "southward", "south-eastward"),
)
SCREEN_WAYS = (
    ("up and to the left", "upwards", "up and to the right"),
    ("to the left", "", "to the right"),
    ("down and to the left", "downwards", "down and to the right"),
)

TREND_CUTS: dict[Domain, tuple[float, float, float]] = {
    "weather": (0.02, 0.05, 0.1),
    "traffic": (0.08, 0.3, 0.7),
    "fire": (0.01, 0.03, 0.08),
    "generic": (0.04, 0.15, 0.4),
}
"""Slight, plain and sharp change of the spatial mean over the past: in training standard
deviations, for traffic relative to the mean of the past."""
LOCAL_CUT: dict[Domain, float] = {"weather": 0.2, "traffic": 0.3, "fire": 0.15, "generic": 0.2}
"""Least change of a third's mean that counts, in training standard deviations."""
LEVEL_CUTS = (-0.8, -0.2, 0.2, 0.8)
"""Spatial mean of the last frame less the training mean, in training standard deviations."""
RATIO_CUTS = (0.35, 0.8, 1.15, 1.4)
"""Spatial mean of the last frame over the training mean, for counts."""
EXTREME_CUTS = (0.002, 0.01, 0.03, 0.06)
"""Share of cells beyond the training 98 % (or 2 %) quantile; 0.02 on average."""
EXTREMES = ("no", "few", "some", "many", "very many")
SPEED_CUTS = (0.12, 0.5, 1.25)
"""Cells per frame."""
FRONT_CUTS = (2.4, 3.6)
"""Gradient of the steepest third, in training standard deviations across that third."""
WAVY_CUTS = (0.3, 0.5)
"""Largest departure of a third from the mean of its rows, in training standard deviations."""
WAVE_SHARE = 0.5
"""Least share of the variance along rows in one wavenumber for waves to be counted."""
COHERENT = 0.35
"""Least correlation of shifted changes that supports a movement."""
DRIFT_CUT = 0.3
"""Least movement of a centre of mass over the past, in cells."""
BALANCE_CUT = 0.0015
"""Least difference of arrivals and departures in a third, as a share of all movements."""
TOP_CUTS = (0.4, 0.7, 0.97)
"""Height of a plume over the height of the domain."""
TOPS = ("low", "half-high", "tall", "full-height")
SPREAD_CUTS = (0.24, 0.3, 0.38)
"""Width of a plume over the width of the domain."""
TILT_CUTS = (-2.0, -0.7, -0.3, 0.3, 0.7, 2.0)
"""Cells to the right per cell up."""
HEAT_CUTS = (-0.08, -0.02, 0.02, 0.08)
"""Relative change of a fire's heat over the past."""


def class_of(value: float, cuts: Sequence[float], names: Sequence[str]) -> str:
    """The name of the class of `value`; there is one name more than cuts."""
    return names[bisect_right(cuts, value)]


def third_of(cell: tuple[int, int], grid: GridSpec) -> Third:
    """The third that a cell (row, column) lies in."""
    return 3 * cell[0] // grid.height, 3 * cell[1] // grid.width


def place_name(third: Third, domain: Domain) -> str:
    """`north-west`, or for fires `upper left`."""
    return (SCREEN if domain == "fire" else COMPASS)[third[0]][third[1]]


def at(third: Third, domain: Domain) -> str:
    """`in the north-west`, `in the upper left`, `at the top`."""
    name = place_name(third, domain)
    return f"at the {name}" if name in ("top", "bottom") else f"in the {name}"


def at_cell(cell: tuple[int, int], grid: GridSpec, domain: Domain) -> str:
    """`at` for the third that a cell (row, column) lies in."""
    return at(third_of(cell, grid), domain)


def way(east: float, south: float, domain: Domain) -> str:
    """One of eight directions; a component counts when it exceeds tan 22.5° of the other."""
    slight = 0.41421356
    across = int((east > 0) - (east < 0)) if abs(east) > slight * abs(south) else 0
    down = int((south > 0) - (south < 0)) if abs(south) > slight * abs(east) else 0
    return (SCREEN_WAYS if domain == "fire" else COMPASS_WAYS)[down + 1][across + 1]


def speed(cells_per_frame: float) -> str:
    """An adverb of speed."""
    return class_of(cells_per_frame, SPEED_CUTS, ("barely", "slowly", "steadily", "fast"))


def trend(change: float, domain: Domain, *, up: str = "rising", down: str = "falling") -> str:
    """`falling sharply` to `rising sharply`, `steady` between."""
    degree = class_of(abs(change), TREND_CUTS[domain], ("", " slightly", "", " sharply"))
    if abs(change) < TREND_CUTS[domain][0]:
        return "steady"
    return (up if change > 0 else down) + degree


def extremes(share: float) -> str:
    """How many cells are above the training 98 % quantile."""
    return class_of(share, EXTREME_CUTS, EXTREMES)


def capital(sentence: str) -> str:
    """With a capital first letter, the rest untouched."""
    return sentence[:1].upper() + sentence[1:]
