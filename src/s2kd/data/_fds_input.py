"""Numbers out of an FDS input file, and out of `parameters.json`, by run."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from s2kd.core.files import read_json
from s2kd.core.types import S2KDError

SIDECAR = "parameters.json"
ALIASES = {"heat_release": ("SURF.HRRPUA",), "ventilation": ("SURF.VEL", "WIND.SPEED")}
"""Parameters by a plain name: heat released per area (kW/m²), speed of the air let in (m/s)."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[EeDd][-+]?\d+)?"
ENTRY = re.compile(rf"([A-Za-z_]\w*)\s*(?:\([^)]*\))?\s*=\s*({NUMBER})(?![\w.])")


def namelist_numbers(text: str) -> dict[str, float]:
    """`{"SURF.HRRPUA": 300.0, …}`: the number of largest magnitude that each entry is given.

    What FDS reads lies between `&GROUP` and `/`; strings are skipped, `!` begins a comment.
    """
    text = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", "''", text)
    text = re.sub(r"!.*", "", text)
    found: dict[str, float] = {}
    for group, body in re.findall(r"&(\w+)(.*?)/", text, re.DOTALL):
        for key, number in ENTRY.findall(body):
            name = f"{group}.{key}".upper()
            value = float(re.sub("[Dd]", "e", number))
            found[name] = max(found.get(name, value), value, key=abs)
    return found


def parameters_of(smv: Path, name: str, sidecar: Mapping[str, Mapping[str, float]]) -> dict:
    """What is known of one run: from its `.fds` file, aliases, then the sidecar's own words."""
    own = smv.with_suffix(".fds")
    others = sorted(smv.parent.glob("*.fds"))
    files = [own] if own.is_file() else others if len(others) == 1 else []
    known = namelist_numbers(files[0].read_text("utf-8", "replace")) if files else {}
    for alias, sources in ALIASES.items():
        for source in sources:
            if source in known:
                known.setdefault(alias, abs(known[source]))
    return {**known, **sidecar.get(name, {})}


def sidecar_of(folder: Path) -> dict[str, dict[str, float]]:
    """`parameters.json` of the folder: numbers by run and parameter; empty where there is none."""
    path = folder / SIDECAR
    if not path.is_file():
        return {}
    held = read_json(path)
    if not isinstance(held, dict):
        raise S2KDError(f"{path}: wants parameters by run, got {held!r}")
    for name, known in held.items():
        if not isinstance(known, dict) or not all(
            isinstance(v, int | float) and np.isfinite(v) for v in known.values()
        ):
            raise S2KDError(
                f'{path}: {name!r} must give numbers, such as {{"heat_release": 30.0}}, got '
                f"{known!r}"
            )
    return {name: {k: float(v) for k, v in known.items()} for name, known in held.items()}
