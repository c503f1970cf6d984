"""The limited vocabulary of the rules: each class of a fact, with the cuts that define it.

A claim in a narrative is one of these words, so whether it holds can be checked against the
number it was made from.
"""

from bisect import bisect_right
from collections.abc import Sequence

from s2kd.core.types import Domain

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
"""`slight`, plain and `sharp` change of the spatial mean over the past: in training standard
deviations, for traffic relative to the mean of the past."""
LOCAL_CUT: dict[Domain, float] = {"weather": 0.2, "traffic": 0.3, "fire": 0.15, "generic": 0.2}
"""A third has changed when its mean did by this much, in training standard deviations."""
LEVEL_CUTS = (-0.8, -0.2, 0.2, 0.8)
"""Spatial mean of the last frame less the training mean, in training standard deviations."""
RATIO_CUTS = (0.35, 0.8, 1.15, 1.4)
"""Spatial mean of the last frame over the training mean, for counts."""
EXTREME_CUTS = (0.002, 0.01, 0.03, 0.06)
"""Share of cells beyond the training 98 % (or 2 %) quantile; 0.02 on average."""
SPEED_CUTS = (0.12, 0.5, 1.25)
"""Cells a frame."""
FRONT_CUTS = (2.4, 3.6)
"""Gradient of the steepest third, in training standard deviations across that third."""
WAVY_CUTS = (0.3, 0.5)
"""Largest departure of a third from the mean of its rows, in training standard deviations."""
WAVE_SHARE = 0.5
"""Waves are counted when one wavenumber holds this share of the variance along rows."""
COHERENT = 0.35
"""A movement is believed when the changes it shifts correlate at least so much."""
DRIFT_CUT = 0.3
"""A centre of mass has moved when it did by so many cells over the past."""
BALANCE_CUT = 0.0015
"""A third gains or loses when the difference is this share of all movements of the domain."""
TOP_CUTS = (0.4, 0.7, 0.97)
"""Height of a plume over the height of the domain."""
SPREAD_CUTS = (0.24, 0.3, 0.38)
"""Width of a plume over the width of the domain."""
TILT_CUTS = (-2.0, -0.7, -0.3, 0.3, 0.7, 2.0)
"""Cells to the right for each cell up."""
HEAT_CUTS = (-0.08, -0.02, 0.02, 0.08)
"""Relative change of a fire's heat over the past."""


def graded(value: float, cuts: Sequence[float], names: Sequence[str]) -> str:
    """The name of the class that `value` falls in; one name more than there are cuts."""
    return names[bisect_right(cuts, value)]


def third(cell: tuple[int, int], height: int, width: int) -> Third:
    """Which third a cell (row, column) lies in."""
    return 3 * cell[0] // height, 3 * cell[1] // width


def place(where: Third, domain: Domain) -> str:
    """`north-west`, or for fires `upper left`."""
    return (SCREEN if domain == "fire" else COMPASS)[where[0]][where[1]]


def at(where: Third, domain: Domain) -> str:
    """`in the north-west`, `in the upper left`, `at the top`."""
    name = place(where, domain)
    return f"at the {name}" if name in ("top", "bottom") else f"in the {name}"


def way(east: float, south: float, domain: Domain) -> str:
    """One of eight directions; a component counts when it is over tan 22.5° of the other."""
    slight = 0.41421356
    across = int((east > 0) - (east < 0)) if abs(east) > slight * abs(south) else 0
    down = int((south > 0) - (south < 0)) if abs(south) > slight * abs(east) else 0
    return (SCREEN_WAYS if domain == "fire" else COMPASS_WAYS)[down + 1][across + 1]


def speed(cells_a_frame: float) -> str:
    """An adverb of speed."""
    return graded(cells_a_frame, SPEED_CUTS, ("barely", "slowly", "steadily", "fast"))


def trend(change: float, domain: Domain, *, up: str = "rising", down: str = "falling") -> str:
    """`falling sharply` to `rising sharply`, `steady` between."""
    how = graded(abs(change), TREND_CUTS[domain], ("", " slightly", "", " sharply"))
    if abs(change) < TREND_CUTS[domain][0]:
        return "steady"
    return (up if change > 0 else down) + how


def extremes(share: float) -> str:
    """How many cells are above the training 98 % quantile."""
    return graded(share, EXTREME_CUTS, ("no", "few", "some", "many", "very many"))


def capital(sentence: str) -> str:
    """With a capital first letter, the rest untouched."""
    return sentence[:1].upper() + sentence[1:]
