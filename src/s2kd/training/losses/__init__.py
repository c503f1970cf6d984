"""Distillation losses: plain functions of what student and teacher hold. One file each.

Decorate a function `loss(student, teacher, *, setting=…) -> scalar` with
`@losses.register("name", compares="latent")`; `compares` says what it is given of each side:

- `latent`: P(Z) and Z_fused, equally wide and on one grid
- `unprojected`: Z and Z_fused on one grid, each as wide as it is
- `forecast`: the two forecasts in normalised units; where the grid has a mask, only the cells that
  exist, in one row (height 1)
- `feature_pyramid`: the features from shallow to deep. Such a loss has weights of its own,
  so it is a class, `Loss(student_widths, teacher_widths, wraps, *, setting=…)`, whose `forward`
  takes the two lists of features and whose `ramp(epoch)` is a factor of its weight.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from s2kd.core.registry import Registry
from s2kd.core.types import S2KDError

Latent = Float[Tensor, "batch d h w"]
OtherLatent = Float[Tensor, "batch e h w"]
Frames = Float[Tensor, "batch lead channel height width"]
Scalar = Float[Tensor, ""]
LossFn = Callable[[Tensor, Tensor], Tensor]

COMPARES = ("latent", "unprojected", "forecast", "feature_pyramid")


class Losses(Registry[Scalar]):
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

    def build(self, name: str, /, **params: object) -> LossFn:  # type: ignore[override]
        """The loss with its settings bound: a function of student and teacher (or a class)."""
        self.check(name, params)
        return partial(self.get(name), **params)


losses = Losses()


def at_least_float32(x: Tensor) -> Tensor:
    """float32 at least: half precision is too short for sums of squares, and FFTs refuse it."""
    return x if x.dtype == torch.float64 else x.float()
