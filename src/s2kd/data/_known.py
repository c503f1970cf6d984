"""What a layout that is told by names and keys comes to."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """A layout, the part that reads it (empty: none does), its settings and arrays' shapes.

    `problems` are sentences; `ready` is false where they keep the part from reading it. Sizes are
    0 where only reading would tell; `past` (and lead) frames suit it. `times` are (time,)
    datetime64[ns] where the file holds them.
    """

    kind: str
    part: str
    reason: str
    params: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    ready: bool = True
    frames: int = 0
    step_seconds: float = 0.0
    height: int = 0
    width: int = 0
    past: int = 0
    times: np.ndarray | None = None
