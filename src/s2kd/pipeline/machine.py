"""The devices, precision and strategy of a run."""

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
