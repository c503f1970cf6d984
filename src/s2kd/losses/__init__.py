"""Distillation losses: plain functions of what student and teacher hold. One file each.

Decorate a function `loss(student, teacher, *, setting=…) -> scalar` with
`@losses.register("name", compares="latent")`, or `compares="forecast"`.
"""

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor

from s2kd.registry import Registry
from s2kd.types import S2KDError

Latent = Float[Tensor, "batch d h w"]
Frames = Float[Tensor, "batch lead channel height width"]
Scalar = Float[Tensor, ""]
LossFn = Callable[[Tensor, Tensor], Tensor]

COMPARES = ("latent", "forecast")


class Losses(Registry[Scalar]):
    """Losses by name; `latent` losses see (P(Z), Z_fused), `forecast` ones normalised frames."""

    def __init__(self) -> None:
        super().__init__("loss", "s2kd.losses")

    def register(self, name: str, *, compares: str = "latent") -> Callable:  # type: ignore[override]
        """Decorator; `compares` says what the loss is given of each side."""
        if compares not in COMPARES:
            raise S2KDError(f"loss {name!r}: compares must be one of {COMPARES}, got {compares!r}")

        def add(loss: Callable) -> Callable:
            loss.compares = compares
            return self._add(name, loss)

        return add

    def compares(self, name: str) -> str:
        """`latent` or `forecast`."""
        return getattr(self.get(name), "compares", "latent")

    def build(self, name: str, /, **params: object) -> LossFn:  # type: ignore[override]
        """The loss with its settings bound: a function of student and teacher."""
        self.check(name, params)
        return partial(self.get(name), **params)


losses = Losses()
