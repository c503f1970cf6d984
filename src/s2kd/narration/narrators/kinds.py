"""What a channel measures, told from its name and unit, and what to call it."""

import re
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
"""Units that make a channel a temperature whatever it is called."""


def kind_of(channel: str, unit: str, domain: Domain) -> Kind:
    """What a channel measures; `other` where neither name nor unit says."""
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
    """What to call every channel: its kind's noun, with its name where two are of one kind."""
    kinds = kinds_of(grid, domain)
    nouns = FIRE_NOUNS if domain == "fire" else NOUNS
    labels = []
    for channel, kind in zip(grid.channels, kinds, strict=True):
        name = re.sub(r"[_\s]+", " ", channel).strip()
        noun = nouns.get(kind, name)
        shared = kinds.count(kind) > 1 and kind in nouns
        labels.append(f"{noun} ({name})" if shared else noun)
    return tuple(labels)
