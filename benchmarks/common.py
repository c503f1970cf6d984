"""Timing side by side: interleaved rounds, the least of each, and results as JSON."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from s2kd.core.hardware import hardware, versions

RESULTS = Path(__file__).parent / "results"


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Least time of each candidate in seconds, by `clock` (wall time unless told otherwise).

    Rounds are interleaved, so that whatever else the computer does hits all alike, and the least
    is taken, since disturbance only ever adds. `time.process_time` leaves out what others take
    of the processor, but is blind to child processes.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    least = dict.fromkeys(candidates, float("inf"))
    for number in range(-warmup, rounds):
        for name, candidate in candidates.items():
            start = clock()
            candidate()
            taken = clock() - start
            if number >= 0:
                least[name] = min(least[name], taken)
    return least


def save(name: str, result: Mapping[str, object], *, packages: tuple[str, ...] = ()) -> Path:
    """Write `results/<name>.json`: the result, versions (of `packages` too) and hardware."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    whole = {**result, "versions": versions(*packages), "hardware": hardware()}
    path.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
