"""Interleaved timing of candidates, and comparison of ratios with a stored baseline."""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from s2kd.core.hardware import hardware, versions

RESULTS = Path(__file__).parent / "results"
ALLOWED_LOSS = 0.15
"""Share of the baseline's ratio that a change may lose: repeated runs differ by less."""


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


def save(
    name: str,
    result: Mapping[str, object],
    *,
    better: str,
    packages: tuple[str, ...] = (),
) -> int:
    """Compare `result["ratio"]` with the stored baseline; 1 where more than 15 % is lost.

    The baseline is `results/<name>.json`. It is written where there is none, and replaced where
    the environment variable `S2KD_SAVE_BASELINE` is set. `better` is `higher` or `lower`: which
    way a ratio improves. Versions (of `packages` too) and hardware are stored with it. The same
    goes to `results/latest/`, of which `page.py` makes docs/performance.md; there `what` is the
    figure, `peer` what it is divided by, `target` and `met` what is wanted, `limit` what sets it.
    """
    path, latest = RESULTS / f"{name}.json", RESULTS / "latest" / f"{name}.json"
    ratio = float(result["ratio"])  # type: ignore[arg-type]
    record = {**result, "versions": versions(*packages), "hardware": hardware()}
    latest.parent.mkdir(parents=True, exist_ok=True)
    latest.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if path.exists():
        baseline = json.loads(path.read_text("utf-8"))["ratio"]
        loss = 1 - (ratio / baseline if better == "higher" else baseline / ratio)
        print(f"{name}: ratio {ratio:.3f}, baseline {baseline:.3f}, loss {100 * loss:+.0f} %")
        if "S2KD_SAVE_BASELINE" not in os.environ:
            return int(loss > ALLOWED_LOSS)
    path.write_bytes(latest.read_bytes())
    return 0
