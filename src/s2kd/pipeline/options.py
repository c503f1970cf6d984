"""What a user asks for: the machine of a run; budget, time, teachers and data of `distill`."""

import re
from dataclasses import dataclass

from s2kd.core.errors import S2KDError

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed", "32", "16", "bf16")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where to compute, in Lightning Fabric's terms."""

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    strategy: str = "auto"
    tensorboard: bool = False
    target_gigabytes: float = 20.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise S2KDError(
                f"--precision {self.precision}: must be one of {', '.join(PRECISIONS)} (weights "
                "and data stay in single precision)"
            )
        for name, value in (("devices", self.devices), ("nodes", self.nodes)):
            if value < 1 and (name, value) != ("devices", -1):  # -1: all that there are
                raise S2KDError(f"--{name} {value}: must be at least 1")


MILLISECONDS = {"": 1.0, "us": 1e-3, "ms": 1.0, "s": 1e3}
MINUTES = {"s": 1 / 60, "": 1.0, "m": 1.0, "min": 1.0, "h": 60.0, "d": 1440.0}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a student may cost. `max_latency_ms` is that of ONNX Runtime, batch 1, one thread."""

    max_latency_ms: float | None = None
    max_parameters: int | None = None

    def excess(self, *, latency_ms: float, parameters: int) -> str:
        """How a student exceeds the budget, "" where it does not."""
        if self.max_parameters is not None and parameters > self.max_parameters:
            return f"{parameters:,} parameters"
        if self.max_latency_ms is not None and latency_ms > self.max_latency_ms:
            return f"{latency_ms:.2f} ms"
        return ""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a user asks for; the rest is chosen by measurements.

    Attributes
    ----------
    budget
        What a student may cost.
    minutes
        Wall time of everything.
    teachers
        `builtin`, stored forecasts or labels (a path), or a callable (`models.given.open_teacher`);
        of several, the best on validation teaches. None for the built-in one, or for the captures'.
    captures, unlabelled
        Label stores and files of further frames (`Recipe.captures`, `Recipe.unlabelled`).
    students, sizes
        Backbones and sizes to try; empty for all.
    """

    budget: Budget = Budget()
    minutes: float = 30.0
    teachers: tuple[str, ...] = ()
    captures: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    students: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()


def quantity(option: str, text: str | int | float, units: dict[str, float]) -> float:
    """A number above 0 with one of these units, such as `5ms`; S2KDError naming the option."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", str(text))
    if match is None or match[2] not in units or not float(match[1]):
        names = ", ".join(unit for unit in units if unit)
        raise S2KDError(f"{option} {text}: must be a number above 0 and one of {names}")
    return float(match[1]) * units[match[2]]


def budget_of(max_latency: str | int | float, max_parameters: int) -> Budget:
    """The budget of these options, empty or 0 where there is no limit."""
    latency = quantity("--max-latency", max_latency, MILLISECONDS) if max_latency else None
    return Budget(max_latency_ms=latency, max_parameters=max_parameters or None)
