"""Holidays and weather beside TaxiBJ's flows, in coarse words for narrators."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from s2kd.core.types import S2KDError
from s2kd.data._arrays import held_in, whole

HOLIDAYS, METEOROLOGY = "BJ_Holiday.txt", "BJ_Meteorology.h5"
WEATHER = (
    "sunny",
    "cloudy",
    "overcast",
    "rain",
    "light rain",
    "moderate rain",
    "heavy rain",
    "rainstorm",
    "thunderstorm",
    "freezing rain",
    "snow",
    "light snow",
    "moderate snow",
    "heavy snow",
    "fog",
    "sandstorm",
    "dust",
)
"""The seventeen columns of `Weather`, in the order of the data set's README."""

WARMTH = ((0.0, "freezing"), (10.0, "cold"), (20.0, "mild"), (28.0, "warm"), (np.inf, "hot"))
"""Upper bounds of temperature in °C."""

STRONG_WIND = 25.0
"""Miles an hour, TaxiBJ's unit: Beaufort 6."""

Slots = Callable[[Path, np.ndarray], np.ndarray]


def holidays(path: Path) -> np.ndarray:
    """(day,) datetime64[D] of the lines YYYYMMDD of this file."""
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").split()
    for number, line in enumerate(lines, 1):
        try:
            if len(line) != 8 or not line.isdigit():
                raise ValueError
            found.append(np.datetime64(f"{line[:4]}-{line[4:6]}-{line[6:]}", "D"))
        except ValueError:
            raise S2KDError(f"{path}: entry {number} is {line!r}, wants a day YYYYMMDD") from None
    return np.array(found, dtype="datetime64[D]")


def weather(path: Path, slots: Slots) -> dict[np.datetime64, tuple[str, ...]]:
    """Words by slot; `slots` turns `date` into times."""
    held = held_in(path)
    for key, axes in (("date", 1), ("Weather", 2), ("Temperature", 1), ("WindSpeed", 1)):
        if key not in held:
            raise S2KDError(f"{path}: needs {key!r}, has {', '.join(sorted(held)) or 'nothing'}")
        shape, count = held[key].shape, held["date"].shape[:1]
        want = (*count, len(WEATHER))[:axes]
        if shape != want:
            raise S2KDError(f"{path}: {key} has shape {shape}, wants {want}")
    times = slots(path, whole(path, "date"))
    kinds, warmth, wind = (whole(path, key) for key in ("Weather", "Temperature", "WindSpeed"))
    bounds = [bound for bound, _ in WARMTH]
    classes = np.searchsorted(bounds, warmth, side="right")
    found = {}
    for i, time in enumerate(times):
        words = [WEATHER[int(kinds[i].argmax())]] if kinds[i].any() else []
        words += [WARMTH[int(classes[i])][1]] if np.isfinite(warmth[i]) else []
        words += ["strong wind"] if wind[i] >= STRONG_WIND else []
        found[time] = tuple(words)
    return found
