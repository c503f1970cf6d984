"""Registries of losses and extra windows, which check settings without PyTorch."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from s2kd.core.errors import S2KDError
from s2kd.core.methods import Part
from s2kd.core.reading import read
from s2kd.core.registry import Registry

if TYPE_CHECKING:
    from s2kd.training.extra import ExtraWindows
    from s2kd.training.losses import LossFn

COMPARES = ("latent", "unprojected", "forecast", "feature_pyramid")


class Losses(Registry["Scalar"]):
    """Losses by name, each with what it compares."""

    def __init__(self) -> None:
        super().__init__("loss", "s2kd.training.losses", group="s2kd.losses")

    def register(self, name: str, *, compares: str = "latent") -> Callable:  # type: ignore[override]
        """Decorator; `compares` says what the loss is given of each side."""
        if compares not in COMPARES:
            raise S2KDError(f"loss {name!r}: compares must be one of {COMPARES}, got {compares!r}")

        def add(loss: Callable) -> Callable:
            loss.compares = compares
            return self._add(name, loss)

        return add

    def compares(self, name: str) -> str:
        """What the loss is given of each side: one of `COMPARES`."""
        return getattr(self.get(name), "compares", "latent")

    def build(self, name: str, /, **params: object) -> "LossFn":  # type: ignore[override]
        """The loss with its settings bound: a function of student and teacher (or a class)."""
        self.check(name, params)
        return partial(self.get(name), **params)


losses = Losses()

extra_windows: "Registry[ExtraWindows]" = Registry(
    "kind of extra windows", "s2kd.training.extra", group="s2kd.extra_windows"
)


class Share(Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of extra windows, and its share of them."""

    share: float = 1.0


def shares_of(params: dict[str, Any]) -> tuple[Share, ...]:
    """The parts in the settings of a mixture; S2KDError names what does not fit."""
    shares = read(tuple[Share, ...], params.get("parts", ()), "mixture: parts")
    if len(shares) < 2 or min(part.share for part in shares) <= 0:
        raise S2KDError("mixture: parts must be at least two, each with a positive share")
    for part in shares:
        if part.name == "mixture":
            raise S2KDError("mixture: a part must not be a mixture itself")
        extra_windows.check(part.name, part.params)
    return shares
